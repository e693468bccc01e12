"""Serving processes made by fork: a process that has imported everything, and children that serve.

What a child runs is ``hourbook serve``; it has a memory, handles and threads of its own, and dies
alone. Importing is left out of every start but the first.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Final

CHECKOUT: Final = Path(__file__).parents[1]
STOP_SECONDS: Final = 30.0
_CODE: Final = """
import json, os, signal, sys
import exchange.app.collector, exchange.sim.demo
from exchange.cli.root import app
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    if os.fork():
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    print(json.dumps({"pid": os.getpid()}), flush=True)
    app(json.loads(line))
    os._exit(0)
"""


class Nursery:
    """Leave the context to end it; its children are ended by whoever asked for them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE], cwd=CHECKOUT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(STOP_SECONDS)
        self._process.stdout.close()

    def serve(self, data: Path, port: int) -> "Child":
        """Start one child; return once it is ready."""
        assert self._process.stdin is not None and self._process.stdout is not None
        arguments = ["serve", "--data", str(data), "--port", str(port)]
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        pid = json.loads(self._process.stdout.readline())["pid"]
        ready = self._process.stdout.readline()
        assert ready, "the server ended before it was ready"
        return Child(pid, json.loads(ready), self._process.stdout)


class Child:
    """One serving process."""

    def __init__(self, pid: int, ready: dict[str, str], said: IO[str]) -> None:
        self.pid, self.ready = pid, ready
        self._said = said

    def kill(self) -> None:
        """SIGKILL; return once it is gone. Harmless to repeat."""
        self._end(signal.SIGKILL)

    def stop(self) -> str:
        """SIGTERM; return what it said at its end."""
        self._end(signal.SIGTERM)
        return self._said.readline()

    def _end(self, number: int) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        try:
            os.kill(self.pid, number)
            while time.monotonic() < deadline:
                os.kill(self.pid, 0)
                time.sleep(0.002)
        except ProcessLookupError:
            return
        raise TimeoutError(f"process {self.pid} did not end")
