"""The output of every bench: one row per figure, as text or JSON; and the history file."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

HISTORY: Final = Path(__file__).with_name("history.jsonl")
UNREAD: Final = 3  # Exit.UNUSABLE of exchange.cli.output


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``ratio`` is ``value`` over the same figure of ``ratio_to``, in the same run."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    ratio_to: str | None = None

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    def as_text(self) -> str:
        ratio = "" if self.ratio is None else f"  {self.ratio:8.3f} x {self.ratio_to}"
        return f"{self.name:<44} {self.value:>14,.2f} {self.unit:<24}{ratio}"


def row(name: str, value: float, unit: str, base: float | None = None, to: str = "") -> Row:
    """Return a row, with its ratio to ``base`` if given; the ratio keeps four significant
    digits."""
    ratio = None if base is None else float(f"{value / base:.4g}")
    return Row(name, float(f"{value:.6g}"), unit, ratio, None if base is None else to)


def bench_parser(name: str, description: str | None, rounds: int = 0) -> argparse.ArgumentParser:
    """Return the parser of ``hourbook bench NAME`` with what every bench takes. ``rounds``: its
    own number of them; 0 if it has none."""
    parser = argparse.ArgumentParser(prog=f"hourbook bench {name}", description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object per row, not text")
    parser.add_argument(
        "--record", action="store_true", help="append the rows to benches/history.jsonl"
    )
    if rounds:
        text = "times that all is done; figures are medians over them (%(default)s)"
        parser.add_argument("--rounds", type=whole, default=rounds, help=text)
    return parser


def whole(text: str) -> int:
    """Return a whole number from 1, an argument of a parser."""
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: it is a whole number, 1 or more")
    return int(text)


def folder(text: str) -> Path:
    """Return an existing folder, an argument of a parser: what was timed for an hour is not lost
    for want of it."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no such folder")
    return Path(text)


def publish(rows: Iterable[Row], *, as_json: bool, record: bool) -> None:
    """Print each row as it comes; with ``record`` append all to the history at the end. Ends with
    UNREAD if nobody reads the rows any more."""
    shown = []
    for one in rows:
        try:
            print(one.as_json() if as_json else one.as_text(), flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed
            sys.exit(UNREAD)
        shown.append(one)
    if record:
        _append(shown)


def _append(rows: list[Row]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=HISTORY.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    date = datetime.now(UTC).date().isoformat()
    with HISTORY.open("a") as history:
        for one in rows:
            workload, _, name = one.name.partition(".")
            entry = {"commit": commit, "date": date, "workload": workload}
            history.write(json.dumps(entry | asdict(one) | {"name": name}) + "\n")


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call in all threads, including the kernel's, where copying
    happens."""
    started = time.process_time()
    work()
    return time.process_time() - started


def peak_mib() -> float:
    """Return the peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
