"""Imports each module named on its standard input in a process of its own, and prints what failed.

The processes are forks of one that has imported only what others wrote: what is left of the time
is the project's own. Run by tests/test_house.py.
"""

import importlib
import os
import sys
import traceback
from typing import Final

THIRD_PARTY: Final = ("aiohttp.web", "cryptography.fernet", "msgspec", "numpy", "sqlite_utils")


def fails_alone(module: str) -> bool:
    """Import ``module`` in a fork of this process; what it raised is on standard error."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    try:
        importlib.import_module(module)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    for package in THIRD_PARTY:
        importlib.import_module(package)
    sys.exit(sum(fails_alone(module) for module in sys.stdin.read().split()) > 0)
