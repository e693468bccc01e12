"""The core a second time: built with its own checks on, in a process of its own, with a switch for
the general way, which leaves the plain path out. endurance.py holds it against the fast build.

    python tests/second.py      how the process is started: it does what stdin says
"""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import IO, Final, Protocol

from exchange.engine import Engine

CHECKOUT: Final = Path(__file__).parents[1]
WAY: Final = "if not do_plainly(m, c) and not do_asked(m, c):"
GENERAL: Final = "if hourbook_general or not (do_plainly(m, c) or do_asked(m, c)):"
SWITCH: Final = """

cdef bint hourbook_general = False


def choose_general(bint general):
    global hourbook_general
    hourbook_general = general
"""


class Differs(Exception):
    """Two machines that should be one said different things."""


class Lane:
    """An engine, and a digest of all that it said."""

    def __init__(self, general: bool = False) -> None:
        if choose := getattr(import_module("exchange.engine.batch"), "choose_general", None):
            choose(general)
        self.engine, self.said = Engine(), blake2b(digest_size=16)

    def apply(self, commands: bytes, sequence: int, stamp: int) -> bytes:
        events = self.engine.apply(commands, sequence, stamp)
        self.said.update(events)
        return events

    def look(self) -> bytes:
        """All that must be the same: what was said, the state, the next deadline."""
        self.engine.check()
        state = blake2b(self.engine.state_bytes(), digest_size=16).digest()
        return self.said.digest() + state + struct.pack("<q", self.engine.next_deadline())

    def restore(self) -> None:
        """Go on as an engine restored from this one's image."""
        image, self.engine = self.engine.snapshot(), Engine()
        self.engine.restore(image)


class Second(Protocol):
    """Whatever is held against the fast build."""

    def begin(self, general: bool) -> None: ...
    def apply(self, commands: bytes, sequence: int, stamp: int) -> None: ...
    def ask(self) -> None: ...
    def answer(self) -> bytes: ...
    def restore(self) -> None: ...
    def events(self, commands: bytes, sequence: int, stamp: int) -> bytes: ...


HEAD: Final = struct.Struct("<cqqI")  # what, sequence, stamp, bytes that follow
LOOK_BYTES: Final = 40


class Other:
    """The second build in its own process: told everything, asked now and then."""

    def __init__(self, checkout: Path) -> None:
        paths = f"{checkout}{os.pathsep}{CHECKOUT / 'tests'}{os.pathsep}{CHECKOUT}"
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip

    def __enter__(self) -> "Other":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _tell(self, what: bytes, sequence: int = 0, stamp: int = 0, data: bytes = b"") -> None:
        assert self._process.stdin is not None
        with self._alive():
            self._process.stdin.write(HEAD.pack(what, sequence, stamp, len(data)) + data)

    def _hear(self, count: int) -> bytes:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._alive():
            self._process.stdin.flush()
            heard = self._process.stdout.read(count)
            if len(heard) != count:
                raise BrokenPipeError
        return heard

    @contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise Differs(f"the second build died: {self._process.wait()}") from None

    def begin(self, general: bool) -> None:
        self._tell(b"B", int(general))

    def apply(self, commands: bytes, sequence: int, stamp: int) -> None:
        self._tell(b"A", sequence, stamp, commands)

    def ask(self) -> None:
        self._tell(b"L")

    def answer(self) -> bytes:
        return self._hear(LOOK_BYTES)

    def restore(self) -> None:
        self._tell(b"R")

    def events(self, commands: bytes, sequence: int, stamp: int) -> bytes:
        self._tell(b"E", sequence, stamp, commands)
        return self._hear(int.from_bytes(self._hear(8), "little"))


def serve_second(source: IO[bytes], sink: IO[bytes]) -> None:
    """In the process of the second build: do as told until nobody tells anything."""
    lane = Lane()
    while head := source.read(HEAD.size):
        what, sequence, stamp, size = HEAD.unpack(head)
        data = source.read(size)
        if what == b"B":
            lane = Lane(general=bool(sequence))
        elif what == b"A":
            lane.apply(data, sequence, stamp)
        elif what == b"R":
            lane.restore()
        else:
            events = lane.look() if what == b"L" else lane.apply(data, sequence, stamp)
            sink.write(events if what == b"L" else len(events).to_bytes(8, "little") + events)
            sink.flush()


def second_build() -> Path:
    """The checked build of the same sources, with a switch for the general way; kept in build/."""
    folder = CHECKOUT / "build" / "second"
    made = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "batch.pyx")
    shutil.copytree(CHECKOUT / "exchange", folder / "exchange", ignore=made, dirs_exist_ok=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy2(CHECKOUT / name, folder / name)
    source = (CHECKOUT / "exchange/engine/batch.pyx").read_text()
    assert source.count(WAY) == 1, "the plain way is chosen elsewhere"
    text, path = source.replace(WAY, GENERAL) + SWITCH, folder / "exchange/engine/batch.pyx"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, check=False,
        env=os.environ | {"HOURBOOK_CHECKED": "1", "PYTHONPATH": str(folder)},
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the second build: {done.stderr}")
    return folder


if __name__ == "__main__":
    serve_second(sys.stdin.buffer, sys.stdout.buffer)
