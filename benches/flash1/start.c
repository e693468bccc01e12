/* Starts Python in the harness's process. The core is a set of extension modules that find each
 * other through Python's imports; this library is one of them. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

extern int hourbook_begin(void);
extern void hourbook_send_to(const void *transport, void *sink);

static void fail(const char *what)
{
    if (PyErr_Occurred())
        PyErr_Print();
    fprintf(stderr, "hourbook: %s\n", what);
    abort();
}

/* Start an interpreter with the executable, and so the packages, that built this library. */
static void start_python(void)
{
    PyConfig config;
    PyStatus status;
    /* extension modules need Python's own symbols to be global */
    if (!dlopen(HOURBOOK_LIBPYTHON, RTLD_NOW | RTLD_GLOBAL))
        fail("no " HOURBOOK_LIBPYTHON);
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    status = PyConfig_SetBytesString(&config, &config.executable, HOURBOOK_PYTHON);
    if (!PyStatus_Exception(status))
        status = PyConfig_SetBytesString(&config, &config.program_name, HOURBOOK_PYTHON);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        fail("Python does not start");
}

void engine_init(uint64_t seed, const void *transport, void *sink)
{
    PyGILState_STATE held;
    int started = !Py_IsInitialized();
    (void)seed;
    if (started)
        start_python();
    held = started ? PyGILState_LOCKED : PyGILState_Ensure();
    if (PyRun_SimpleString("import sys; sys.path[:0] = ['" HOURBOOK_FOLDER "', '" HOURBOOK_CHECKOUT
                           "']; import hourbook_flash1") != 0)
        fail("the core cannot be imported");
    if (hourbook_begin() != 0)
        fail("the market does not open");
    hourbook_send_to(transport, sink);
    if (started)
        PyEval_SaveThread();
    else
        PyGILState_Release(held);
}
