"""Which functions are called: a measure of work that no machine's load moves."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """Note the name of every function that this thread calls in the block, Python's and C's.

    The last three are those that end the block. Nothing is collected in it: what rubbish of before
    calls on its way out is not the block's work.
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
