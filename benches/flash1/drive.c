/* A harness of our own for a library that has the flash1 benchmark's C interface:
 *
 *     drive LIBRARY.so MESSAGES
 *
 * Draws a flow around the benchmark's middle price from a fixed seed, hands it over message by
 * message, drains the reports on another thread, and prints one JSON line. It is not the
 * benchmark: its flow is plainer, and nothing is compared with other engines. */

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct order { uint64_t id, sequence; int64_t price; uint32_t quantity; uint8_t side, ioc, rest[2]; };
struct name { uint64_t id, sequence; };
struct report { uint8_t bytes[64]; };
struct transport {
    void *(*create)(uint32_t);
    int (*push)(void *, const struct report *);
    uint32_t (*drain)(void *, struct report *, uint32_t);
    void (*flush)(void *);
    void (*destroy)(void *);
};

enum { ROOM = 1 << 16, MIDDLE = 33504 };
static struct report ring[ROOM];
static _Atomic uint64_t pushed, drained;
static _Atomic int over;
static uint64_t kinds[6];

static int push(void *handle, const struct report *r)
{
    uint64_t at = atomic_load_explicit(&pushed, memory_order_relaxed);
    (void)handle;
    if (at - atomic_load_explicit(&drained, memory_order_acquire) == ROOM)
        return 0;
    ring[at % ROOM] = *r;
    atomic_store_explicit(&pushed, at + 1, memory_order_release);
    return 1;
}

static void *drain(void *unused)
{
    (void)unused;
    for (;;) {
        int last = atomic_load(&over);
        uint64_t at = atomic_load_explicit(&drained, memory_order_relaxed);
        uint64_t end = atomic_load_explicit(&pushed, memory_order_acquire);
        for (; at < end; at++)
            kinds[ring[at % ROOM].bytes[0] % 6]++;
        atomic_store_explicit(&drained, at, memory_order_release);
        if (last && at == atomic_load(&pushed))
            return NULL;
    }
}

static uint64_t state = 88172645463325252ull;
static uint32_t draw(uint32_t below) /* xorshift */
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 11) % below);
}

static void *needed(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "drive: the library has no %s\n", name);
        exit(1);
    }
    return found;
}

int main(int count, char **words)
{
    void *library = count == 3 ? dlopen(words[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    uint64_t messages = count == 3 ? strtoull(words[2], NULL, 10) : 0, i;
    struct transport transport = {NULL, push, NULL, NULL, NULL};
    struct timespec begun, ended;
    pthread_t drainer;
    double seconds;
    if (!library || !messages) {
        fprintf(stderr, "usage: drive LIBRARY.so MESSAGES%s%s\n", library ? "" : ": ",
                library ? "" : dlerror());
        return 2;
    }
    void (*init)(uint64_t, const struct transport *, void *) = needed(library, "engine_init");
    void (*enter)(const struct order *) = needed(library, "engine_on_new_order");
    void (*cancel)(const struct name *) = needed(library, "engine_on_cancel");
    void (*modify)(const struct order *) = needed(library, "engine_on_modify");
    void (*flush)(void) = needed(library, "engine_flush");
    void (*stop)(void) = needed(library, "engine_shutdown");
    struct { uint8_t kind; struct order o; } *flow = calloc(messages, sizeof *flow);
    uint64_t ids = 0;
    for (i = 0; i < messages; i++) { /* half of what is entered is cancelled, a tenth modified */
        uint32_t chance = draw(100);
        struct order *o = &flow[i].o;
        flow[i].kind = ids < 100 || chance < 50 ? 0 : chance < 90 ? 1 : 2;
        o->id = flow[i].kind == 0 ? ids++ : ids - 1 - draw(ids < 2000 ? (uint32_t)ids : 2000);
        o->sequence = i;
        o->side = (uint8_t)(o->id & 1);
        o->price = MIDDLE + (o->side ? 1 : -1) * (int64_t)(draw(24) - (draw(10) ? 0 : 4));
        o->quantity = 1 + draw(100) + (flow[i].kind == 2 ? 100 : 0);
        o->ioc = flow[i].kind == 0 && draw(100) < 15;
    }
    init(23, &transport, NULL);
    pthread_create(&drainer, NULL, drain, NULL);
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (i = 0; i < messages; i++) {
        if (flow[i].kind == 0)
            enter(&flow[i].o);
        else if (flow[i].kind == 1)
            cancel((const struct name *)&flow[i].o);
        else {
            flow[i].o.ioc = 0;
            modify(&flow[i].o);
        }
    }
    flush();
    clock_gettime(CLOCK_MONOTONIC, &ended);
    atomic_store(&over, 1);
    pthread_join(drainer, NULL);
    stop();
    seconds = (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9;
    printf("{\"messages\": %llu, \"acks\": %llu, \"trades\": %llu, \"cancels\": %llu, "
           "\"modifies\": %llu, \"rejects\": %llu, \"messages_per_second\": %.0f}\n",
           (unsigned long long)messages, (unsigned long long)kinds[0],
           (unsigned long long)kinds[1], (unsigned long long)kinds[2],
           (unsigned long long)kinds[3], (unsigned long long)(kinds[4] + kinds[5]),
           (double)messages / seconds);
    return 0;
}
