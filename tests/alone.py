"""Imports each module named on its standard input in a process of its own, and prints what failed.

The processes are forks: of one that has imported only what others wrote, or of the one that has
imported the module's package, which Python does first anyhow. What is left of the time is the
project's own. Run by tests/test_house.py.
"""

import importlib
import os
import sys
import traceback
from collections import defaultdict
from typing import Final

THIRD_PARTY: Final = ("aiohttp.web", "cryptography.fernet", "msgspec", "numpy", "sqlite_utils")
Within = dict[str, list[str]]  # by package, the modules right beneath it; "" has the topmost


def arranged(modules: list[str]) -> Within:
    """Return which of the modules lie in which of them that are packages."""
    within, known = defaultdict(list), set(modules)
    for module in modules:
        names = module.split(".")
        above = (".".join(names[:n]) for n in range(len(names) - 1, 0, -1))
        within[next((name for name in above if name in known), "")].append(module)
    return within


def fails_alone(module: str, within: Within) -> bool:
    """Import a module in a fork of this process, and in forks of that what lies within; what any
    raised is on standard error."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    try:
        importlib.import_module(module)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(any([fails_alone(one, within) for one in within.get(module, ())]))


if __name__ == "__main__":
    for package in THIRD_PARTY:
        importlib.import_module(package)
    beneath = arranged(sys.stdin.read().split())
    sys.exit(any([fails_alone(module, beneath) for module in beneath[""]]))
