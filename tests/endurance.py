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
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from differences import first_difference
from oracle import Oracle
from second import CHECKOUT, Differs, Lane, Other, Second, second_build
from variations import Flow, Play, Rows, record

from exchange.messages import CommandKind, EventKind, Reason

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=COMMANDS, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="or after so long")
    parser.add_argument("--first", type=int, default=0, help="the first life")
    parser.add_argument("--life", type=int, help="this life alone, every event compared")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    core = Path(str(import_module("exchange.engine.core").__file__))
    assert CHECKOUT in core.parents, f"{core} is of another checkout: set PYTHONPATH=."
    progress("building the checked core; the first time takes minutes")
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
