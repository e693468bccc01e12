"""An event loop in a thread of its own: how blocking code uses async clients.

It stands beside whatever loop the program has, so a blocking client works inside a notebook, whose
cells run in a loop already.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from clients.errors import NotConnected

_R = TypeVar("_R")


class LoopThread:
    """A loop that runs until ``stop``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hourbook", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether anything can be awaited in it."""
        return self._thread.is_alive()

    def wait(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Run a coroutine in the loop and wait for its end. NotConnected once it has stopped."""
        if not self._thread.is_alive():
            work.close()
            raise NotConnected("the client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
