"""A hundred million commands on two builds of the core: the fast one here, and the checked one in a
process of its own, in which every other life goes the general way (no plain path at all).

    python tests/endurance.py [--commands N] [--seconds N] [--first LIFE] [--json]
    python tests/endurance.py --life LIFE      one life again, every event compared

A *life* is one engine and up to four variations of recorded flows sent to it one after another
(variations.py); its number is its seed. All that either build says is folded into a digest, which
is compared with the hash of the state and the next deadline every LOOK commands, after both have
checked themselves. Now and then one of the two becomes an engine restored from its own image.
Of every ORACLE_EVERY-th life the oracle has the first ORACLE_COMMANDS, too. Exit code 1, and the
life, if any differ. What was drawn, and what never was, is told at the end.
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
from differences import first_difference
from oracle import Oracle
from variations import Flow, Play, Rows, record

from exchange.engine import Engine
from exchange.messages import CommandKind, EventKind, Reason

CHECKOUT: Final = Path(__file__).parents[1]
SECOND: Final = "--second"  # how this file is called in the other build
COMMANDS: Final = 100_000_000
LOOK: Final = 10_000  # commands, at least
RESTORED: Final = 0.01  # of the batches
PASSES: Final = 4  # of a life, at most
NEIGHBOURS: Final = 64  # lives that share FLOWS recordings
FLOWS: Final = 6
ORACLE_EVERY: Final = 40
ORACLE_COMMANDS: Final = 12_000
UNSEEN: Final = 4  # looks that the second build may lag behind
TELL_SECONDS: Final = 2.0
WAY: Final = "if not do_plainly(m, c):"
GENERAL: Final = "if hourbook_general or not do_plainly(m, c):"
SWITCH: Final = """

cdef bint hourbook_general = False


def choose_general(bint general):
    global hourbook_general
    hourbook_general = general
"""


class Differs(Exception):
    """Two machines that should be one said different things."""


# --- the two machines


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
            [sys.executable, "-P", str(CHECKOUT / "tests" / "endurance.py"), SECOND],
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
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(CHECKOUT / name, folder / name)
    source = (CHECKOUT / "exchange/engine/batch.pyx").read_text()
    assert source.count(WAY) == 1, "the plain way is chosen elsewhere"
    text, path = source.replace(WAY, GENERAL) + SWITCH, folder / "exchange/engine/batch.pyx"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, check=True,
        env=os.environ | {"HOURBOOK_CHECKED": "1", "PYTHONPATH": str(folder)},
    )  # fmt: skip
    return folder


# --- lives


@dataclass
class Tally:
    """What was drawn and what came of it."""

    lives: int = 0
    oracle_commands: int = 0
    restored: int = 0
    commands: Any = field(default_factory=lambda: np.zeros(256, dtype="i8"))  # by kind
    events: Any = field(default_factory=lambda: np.zeros(256, dtype="i8"))
    rejects: Any = field(default_factory=lambda: np.zeros(1 << 10, dtype="i8"))  # by reason

    def add(self, sent: Rows, events: Rows) -> None:
        self.commands += np.bincount(sent["kind"], minlength=256)
        self.events += np.bincount(events["kind"], minlength=256)
        reasons = events["reason"][events["kind"] == EventKind.REJECTED]
        self.rejects += np.bincount(reasons, minlength=1 << 10)

    @property
    def total(self) -> int:
        return int(self.commands.sum())

    def told(self) -> dict[str, Any]:
        """Totals, what came how often, and what never came."""
        found = {
            "commands": {kind.name: int(self.commands[kind]) for kind in CommandKind},
            "events": {kind.name: int(self.events[kind]) for kind in EventKind},
            "rejects": {reason.name: int(self.rejects[reason]) for reason in engine_reasons()},
        }
        never = {what: [one for one, n in names.items() if not n] for what, names in found.items()}
        unknown = self.total - sum(found["commands"].values())
        return {
            "total": self.total, "lives": self.lives, "restored": self.restored,
            "oracle_commands": self.oracle_commands, "unknown_kinds": unknown,
            **found, "never": never,
        }  # fmt: skip


def engine_reasons() -> list[Reason]:
    """Those that the engine decides, as the page of rejects says."""
    page = (CHECKOUT / "docs/reference/rejects.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
    decided = {row[2] for row in cells if len(row) > 4 and row[1].isdigit() and "E" in row[3]}
    return [reason for reason in Reason if reason.name in decided]


def flows_of(life: int, random: np.random.Generator) -> Iterator[Flow]:
    """The recordings that a life varies, drawn among those that its neighbours have, too."""
    first = life // NEIGHBOURS * FLOWS
    for _ in range(int(random.integers(1, PASSES + 1))):
        yield record(first + int(random.integers(FLOWS)))


def live(life: int, second: Second, tally: Tally) -> None:
    """One life on both machines. Raises Differs."""
    random = np.random.default_rng(life)
    second.begin(general=bool(life % 2))
    first, oracle = Lane(), Oracle() if life % ORACLE_EVERY == 0 else None
    play, asked = Play(first.apply, life), deque[bytes]()
    looked = 0
    for flow in flows_of(life, random):
        for sent, events in play.send(flow):
            begins = play.sequence - len(sent)
            second.apply(sent.tobytes(), begins, play.stamp)
            tally.add(sent, events)
            tally.restored += restored(random, first, second)
            if play.sequence - looked > LOOK:
                looked = play.sequence
                look(first, second, asked, UNSEEN)
            if oracle is not None:
                expected = oracle.apply(sent.tobytes(), begins, play.stamp)
                if expected != events.tobytes():
                    words = first_difference(sent.tobytes(), begins, expected, events.tobytes())
                    raise Differs(f"the oracle says otherwise: {words}")
                tally.oracle_commands += len(sent)
                if play.sequence > ORACLE_COMMANDS:
                    oracle = None
    look(first, second, asked, 0)
    tally.lives += 1


def restored(random: np.random.Generator, first: Lane, second: Second) -> bool:
    """Now and then one of the two goes on as what was restored of it."""
    draw = float(random.random())
    if draw < RESTORED:
        (first if draw < RESTORED / 2 else second).restore()
    return draw < RESTORED


def look(first: Lane, second: Second, asked: deque[bytes], unseen: int) -> None:
    """Ask the second, and compare what it answered so far but the last few."""
    asked.append(first.look())
    second.ask()
    while len(asked) > unseen:
        if asked.popleft() != second.answer():
            raise Differs("digest, state or deadline differ")


def again(life: int, second: Second) -> str:
    """One life again, every event compared; in words what first differs, empty if nothing does."""
    random = np.random.default_rng(life)
    second.begin(general=bool(life % 2))
    lane = Lane()
    play, number = Play(lane.apply, life), 0
    for flow in flows_of(life, random):
        for sent, events in play.send(flow):
            begins, found = play.sequence - len(sent), events.tobytes()
            other = second.events(sent.tobytes(), begins, play.stamp)
            if found != other:
                words = first_difference(sent.tobytes(), begins, found, other)
                return f"batch {number} (oracle stands for the fast build): {words}"
            number += 1
            restored(random, lane, second)
            mine = lane.look()
            second.ask()
            if mine != second.answer():
                return f"batch {number}: the state differs behind equal events"
    return ""


# --- the run


def run(second: Second, first: int, commands: int, seconds: float,
        tell: Callable[[str], None]) -> Tally:  # fmt: skip
    """Lives from ``first`` on, until so many commands or seconds. Raises Differs, with the life."""
    tally, begun, life = Tally(), time.monotonic(), first
    told = begun
    while tally.total < commands and time.monotonic() - begun < seconds:
        try:
            live(life, second, tally)
        except BaseException as error:
            error.add_note(f"again: python tests/endurance.py --life {life}")
            raise
        life += 1
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            rate = tally.total / (told - begun)
            tell(f"{tally.total:,} commands, {rate:,.0f} a second, lives {first} to {life - 1}")
    return tally


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text}", end="", file=sys.stderr, flush=True)


def main() -> int:
    if sys.argv[1:] == [SECOND]:
        serve_second(sys.stdin.buffer, sys.stdout.buffer)
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=COMMANDS, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="or after so long")
    parser.add_argument("--first", type=int, default=0, help="the first life")
    parser.add_argument("--life", type=int, help="this life alone, every event compared")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    core = Path(str(import_module("exchange.engine.core").__file__))
    assert CHECKOUT in core.parents, f"{core} is of another checkout: set PYTHONPATH=."
    with Other(second_build()) as second:
        try:
            if options.life is not None:
                differs = again(options.life, second)
                print(differs or "both builds say the same")
                return int(bool(differs))
            tally = run(second, options.first, options.commands, options.seconds, progress)
        except (Differs, AssertionError) as error:
            print("", error, *error.__notes__, sep="\n", file=sys.stderr)
            return 1
    report(tally.told(), as_json=options.json)
    return 0


def report(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told))
        return
    print(
        f"\n{told['total']:,} commands in {told['lives']} lives, the same on both builds;"
        f" {told['restored']} times restored, {told['oracle_commands']:,} on the oracle too"
    )
    for what in ("commands", "events", "rejects"):
        often = sorted(told[what].items(), key=lambda item: -item[1])
        print(f"{what}: " + ", ".join(f"{name} {count:,}" for name, count in often if count))
        print(f"  never: {' '.join(told['never'][what]) or '-'}")


if __name__ == "__main__":
    sys.exit(main())
