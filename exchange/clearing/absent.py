"""Imports without what they would load for no use of ours."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(package: str) -> Iterator[None]:
    """Have a package look as if it were not installed; one that is loaded stays as it is."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # so says Python's import system
    try:
        yield
    finally:
        del sys.modules[package]
