"""Which functions are called: a measure of work that does not depend on the machine's load."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """Record the name of every function that this thread calls in the block, Python's and C's.

    The last three names are those that end the block. The garbage collector is off, since
    finalizers of earlier garbage are not the block's work.
    """
    names: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            names.append(frame.f_code.co_qualname)
        elif event == "c_call":
            names.append(argument.__name__)

    collects = gc.isenabled()
    gc.disable()
    sys.setprofile(note)
    try:
        yield names
    finally:
        sys.setprofile(None)
        if collects:
            gc.enable()
