"""``hourbook bench soak``: does the memory of a market that serves for an hour stay constant?

A real ``hourbook serve`` gets a steady rate of orders from real clients, which come and go. Its
resident memory and open descriptors are sampled once a second. After ``WARM_ORDERS`` orders every
bounded table is full, and both are judged from then on: descriptors must not rise, and the linear
trend of memory may grow by at most ``GROWTH_MAX``. At the end the log is replayed and every hash
compared.
"""

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from benches.rows import Row, bench_parser, folder, publish, row
from clients.aio import AsyncClient
from clients.errors import ConnectionLost, NotConnected, OutcomeUnknown
from exchange.app import asking
from exchange.app.requests import Deposit, OpenAccount
from exchange.gateway.accounts import FINISHED_ORDERS
from exchange.gateway.auth import create_key

CLIENTS: Final = 4
WORKERS: Final = 8  # of one client, each with one order under way
RATE: Final = 400  # orders a second, of all clients together
# Mean life of a connection; then the client leaves and another one comes
LIVE_SECONDS: Final = 20.0
ORDERS_MAX: Final = 50  # an account's working orders; above this, the oldest is cancelled
SPREAD_TICKS: Final = 20
# The gateway remembers the last FINISHED_ORDERS that ended: until then it grows by design.
WARM_ORDERS: Final = FINISHED_ORDERS * 3 // 2
JUDGED_SAMPLES: Final = 60  # at least
SECONDS_MIN: Final = 4  # of two samples in the half that is judged
GROWTH_MAX: Final = 0.05  # of memory over the judged part
DESCRIPTORS_MAX: Final = CLIENTS + 1  # by how many the second half's maximum may exceed the first's
CASH: Final = "900000000"


class Sample(msgspec.Struct, frozen=True):
    """The server at one moment, ``seconds`` after the start."""

    seconds: float
    resident_mib: float
    descriptors: int
    orders: int


class Trend(msgspec.Struct, frozen=True):
    """A straight line through samples, by least squares."""

    start: float
    slope: float  # per second

    @classmethod
    def of(cls, points: list[tuple[float, float]]) -> "Trend":
        """Fit the line; there must be at least two different moments."""
        count = len(points)
        middle = sum(x for x, _ in points) / count
        mean = sum(y for _, y in points) / count
        spread = sum((x - middle) ** 2 for x, _ in points)
        slope = sum((x - middle) * (y - mean) for x, y in points) / spread
        return cls(mean - slope * middle, slope)


class Load:
    """Clients that trade at a steady rate. ``orders`` counts those answered."""

    def __init__(self, url: str, keys: list[tuple[str, str]], rate: float) -> None:
        self.orders = 0
        self._url, self._keys = url, keys
        self._pause = len(keys) * WORKERS / rate
        self._over = asyncio.Event()
        self._going: WeakKeyDictionary[AsyncClient, set[str]] = WeakKeyDictionary()

    async def run(self) -> None:
        """Trade until ``end``."""
        async with asyncio.TaskGroup() as tasks:
            for number, key in enumerate(self._keys):
                tasks.create_task(self._account(key, Random(number)))

    def end(self) -> None:
        """Stop all clients."""
        self._over.set()

    async def _account(self, key: tuple[str, str], random: Random) -> None:
        while not self._over.is_set():
            async with AsyncClient(self._url, *key, msgpack=True) as client:
                code = min(c for c, data in client.instruments.items() if data.product == "H100")
                await client.subscribe(f"state.{code}", f"depth.{code}")
                leave = time.monotonic() + LIVE_SECONDS * (0.5 + random.random())
                await asyncio.gather(
                    *(self._work(client, code, random, leave) for _ in range(WORKERS))
                )

    async def _work(self, client: AsyncClient, code: str, random: Random, leave: float) -> None:
        due = time.monotonic()
        while time.monotonic() < leave and not self._over.is_set():
            # Do not make up for a delay of over 1 s
            due = max(due + self._pause, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                await self._step(client, code, random)
            except (ConnectionLost, NotConnected, OutcomeUnknown):
                return  # the next client continues

    async def _step(self, client: AsyncClient, code: str, random: Random) -> None:
        mark = round(float(client.states[code].mark) * 1_000) if code in client.states else 3_000
        price = mark + random.randint(-SPREAD_TICKS, SPREAD_TICKS)
        side = "buy" if random.randrange(2) else "sell"
        await client.enter(code, "buy" if side == "buy" else "sell", random.randint(1, 5), price)
        self.orders += 1
        going = self._going.setdefault(client, set())
        if len(client.orders) - len(going) > ORDERS_MAX:
            oldest = next(key for key in client.orders if key not in going)
            going.add(oldest)  # otherwise every worker would cancel the same one
            try:
                await client.cancel(oldest)
            finally:
                going.discard(oldest)


class Server:
    """``hourbook serve`` in a process, and what the system reports on it."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, "-m", "exchange.cli", "serve", "--data", str(directory)]
        self.process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.ready: dict[str, Any] = json.loads(self.process.stdout.readline())
        self._folder = Path(f"/proc/{self.process.pid}")

    def sample(self, seconds: float, orders: int) -> Sample:
        """Return a sample of it now."""
        status = (self._folder / "status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        descriptors = sum(1 for _ in (self._folder / "fd").iterdir())
        return Sample(seconds, int(resident.split()[1]) / 1024, descriptors, orders)

    def stop(self) -> None:
        """Send SIGTERM, and wait."""
        self.process.terminate()
        self.process.communicate(timeout=120)


async def accounts(directory: Path) -> list[tuple[str, str]]:
    """Open and fund the clients' accounts; return their keys."""
    keys = []
    for account in range(1, CLIENTS + 1):
        opening = OpenAccount(account=account, throttle_interval_ns=1, throttle_burst=1 << 30)
        for request in (opening, Deposit(account=account, amount=CASH)):
            answer = await asking.ask(directory, request)
            assert answer is not None and answer.ok, answer
        keys.append(create_key(directory, account, "trade"))
    return keys


async def measure(directory: Path, seconds: float, rate: float) -> list[Sample]:
    """Serve, trade and sample once a second; then stop and verify the log."""
    server = Server(directory)
    try:
        load = Load(server.ready["ws"], await accounts(directory), rate)
        trading = asyncio.create_task(load.run())
        start = time.monotonic()
        samples = []
        for number in itertools.count(1):
            await asyncio.sleep(max(0.0, start + number - time.monotonic()))
            now = time.monotonic() - start
            samples.append(server.sample(now, load.orders))
            show(samples[-1], seconds)
            if now >= seconds or trading.done():
                break
        load.end()
        await trading
    finally:
        server.stop()
    command = [sys.executable, "-m", "exchange.cli", "replay", str(directory), "--verify"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return samples


def show(sample: Sample, seconds: float) -> None:
    if sys.stderr.isatty():
        text = f"\r{sample.seconds:6.0f} of {seconds:.0f} s, {sample.orders:,} orders, "
        print(f"{text}{sample.resident_mib:.1f} MiB", end="", file=sys.stderr, flush=True)


def judge(samples: list[Sample]) -> tuple[list[Row], list[str]]:
    """Return the rows, and the faults: too few samples, or growth."""
    judged = [one for one in samples if one.orders >= WARM_ORDERS]
    is_warm = len(judged) >= JUDGED_SAMPLES
    judged = judged if is_warm else samples[len(samples) // 2 :]
    memory = Trend.of([(one.seconds, one.resident_mib) for one in judged])
    length = judged[-1].seconds - judged[0].seconds
    mean = sum(one.resident_mib for one in judged) / len(judged)
    growth = memory.slope * length / mean
    half = len(judged) // 2
    before = max(one.descriptors for one in judged[:half])
    after = max(one.descriptors for one in judged[half:])
    orders = samples[-1].orders
    rows = [
        row("soak.seconds", samples[-1].seconds, "s"),
        row("soak.orders", orders, "orders"),
        row("soak.judged", len(judged), "seconds"),
        row("soak.resident.mean", mean, "MiB"),
        row("soak.resident.growth", 100 * growth, "% over the judged part"),
        row("soak.resident.slope", memory.slope * 3600, "MiB/hour"),
        row("soak.descriptors.first", before, "at most"),
        row("soak.descriptors.last", after, "at most"),
    ]
    faults = []
    if not is_warm:
        faults.append(
            f"{orders:,} orders are too few to judge by: go on until {JUDGED_SAMPLES} s after"
            f" {WARM_ORDERS:,} orders (--seconds, --rate)"
        )
    if growth > GROWTH_MAX:
        faults.append(f"memory grew by {growth:.1%} of its mean, more than {GROWTH_MAX:.0%}")
    if after > before + DESCRIPTORS_MAX:
        faults.append(f"descriptors rose from {before} to {after}")
    return rows, faults


def draw(samples: list[Sample], folder: Path) -> Path:
    """Draw memory and descriptors over time."""
    import matplotlib  # noqa: PLC0415 - needed for drawing only

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "hourbook", "svg.fonttype": "none"})
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axis = pyplot.subplots(figsize=(7.5, 3.6))
    minutes = [one.seconds / 60 for one in samples]
    axis.plot(minutes, [one.resident_mib for one in samples], color="#2166ac")
    axis.set_ylim(bottom=0)
    axis.set_xlabel(f"minutes at {samples[-1].orders / samples[-1].seconds:.0f} orders a second")
    axis.set_ylabel("resident memory (MiB)", color="#2166ac")
    other = axis.twinx()
    other.plot(minutes, [one.descriptors for one in samples], color="#b2182b", linewidth=0.8)
    other.set_ylim(bottom=0)
    other.set_ylabel("open descriptors", color="#b2182b")
    figure.tight_layout()
    path = folder / "simulation-soak.svg"
    figure.savefig(path, metadata={"Date": None})
    return path


def options() -> argparse.Namespace:
    parser = bench_parser("soak", __doc__)
    parser.add_argument("--seconds", type=float, default=3600, help="how long (%(default)s)")
    parser.add_argument(
        "--rate", type=float, default=RATE, help="orders a second, of all clients (%(default)s)"
    )
    parser.add_argument("--plot", type=folder, help="a folder for the picture (needs matplotlib)")
    parser.add_argument("--samples", type=Path, help="a file for every sample, as JSON lines")
    chosen = parser.parse_args()
    if not (chosen.seconds >= SECONDS_MIN and chosen.rate > 0):
        parser.error(f"--seconds is {SECONDS_MIN} or more, and --rate above 0")
    return chosen


def main() -> Iterator[str]:
    """Run the bench; yield its faults."""
    chosen = options()
    with tempfile.TemporaryDirectory(prefix="hourbook-soak-") as folder:
        samples = asyncio.run(measure(Path(folder), chosen.seconds, chosen.rate))
    rows, faults = judge(samples)
    publish(rows, as_json=chosen.json, record=chosen.record)
    if chosen.samples is not None:
        chosen.samples.write_bytes(b"\n".join(map(msgspec.json.encode, samples)) + b"\n")
    if chosen.plot is not None:
        draw(samples, chosen.plot)
    yield from faults


if __name__ == "__main__":
    found = list(main())
    for fault in found:
        print(f"hourbook bench soak: {fault}", file=sys.stderr)
    sys.exit(bool(found))
