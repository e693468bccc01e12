"""A market in a process of its own, for tests that are its users."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

CHECKOUT: Final = Path(__file__).parents[1]
COMMAND: Final = [sys.executable, "-m", "exchange.cli"]
STOP_SECONDS: Final = 30


class Server:
    """A serving process and what it said when it was ready."""

    def __init__(self, data: Path, *flags: str, log: IO[str] | None = None) -> None:
        """``log``: where what it logs goes, instead of to the test's own stderr."""
        command = [*COMMAND, "serve", "--data", str(data), "--port", "0", *flags]
        self.process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert self.process.stdout is not None
        self.ready: dict[str, str] = json.loads(self.process.stdout.readline())

    def stop(self, number: int = signal.SIGTERM) -> str:
        """Send a signal; what the process said until it ended."""
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=STOP_SECONDS)
        return said


@contextmanager
def serving(data: Path, *flags: str, log: IO[str] | None = None) -> Iterator[Server]:
    """A served market, killed at the end if it still runs."""
    server = Server(data, *flags, log=log)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)
        assert server.process.stdout is not None
        server.process.stdout.close()
