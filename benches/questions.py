"""The cost of queries to a log, compared with a plain replay of it in the same run.

    hourbook bench questions [--json] [--commands N] [--rounds N]

The market directory is written by the sequencer itself. Every round then runs each query right
after a plain replay: a search, the life of an order, other parameters, every export.
"""

import asyncio
import csv
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.progress import Progress

from benches.replay import write_log
from benches.rows import Row, bench_parser, publish, row, whole
from benches.workloads import PROFILES, workload
from exchange.cli.export import exporting
from exchange.history import walk
from exchange.history.audit import Trail
from exchange.history.bulletin import Bulletin
from exchange.history.differ import compare
from exchange.history.order import trace
from exchange.history.picture import Picture
from exchange.history.records import event_row
from exchange.history.search import Query
from exchange.history.table import rows as table_rows
from exchange.history.whatif import Changes, what_if
from exchange.journal.frame import Frame
from exchange.messages import EventKind
from exchange.sim.flow import prepare

COMMANDS: Final = 500_000
ROUNDS: Final = 3
UNIT: Final = "commands/cpu s"
Question = Callable[[Path], object]


def replayed(directory: Path) -> object:
    """The base: read, apply and compare every frame."""
    return walk.replay(directory)


def shown(directory: Path) -> walk.Replayed:
    """Like `hourbook replay` on a terminal: with a progress bar."""
    file = io.StringIO()
    with Progress(console=Console(file=file, force_terminal=True)) as bar:
        task = bar.add_task("replaying", total=None)
        return walk.replay(
            directory, progress=lambda done, of: bar.update(task, completed=done, total=of)
        )


def verified(directory: Path) -> object:
    """Like `hourbook replay --verify` on a terminal: with the engine's self-check at the end."""
    done = shown(directory)
    done.engine.check()
    return done


def searched(directory: Path) -> object:
    """Everything about one account."""
    query = Query(account=1)
    walk.walk(directory, lambda frame, events: query.search(frame, events, lambda *_: None))
    return query.counts


def rejects(directory: Path) -> object:
    """Every reject."""
    query = Query(event_kinds=frozenset({int(EventKind.REJECTED)}))
    walk.walk(directory, lambda frame, events: query.search(frame, events, lambda *_: None))
    return query.counts


def life(directory: Path) -> object:
    """The life of an order in the middle of the log."""
    return trace(directory, order_id=some_order(directory))


_orders: dict[Path, int] = {}


def some_order(directory: Path) -> int:
    """Return the first order that rested in the second half of the log."""
    if directory not in _orders:
        frames = list(walk.batches(directory))
        for _, events in frames[len(frames) // 2 :]:
            for number in range(len(events) // 80):
                one = event_row(events, number)
                if one[2] == EventKind.ORDER_ACCEPTED and one[10]:
                    return _orders.setdefault(directory, one[7])
    return _orders[directory]


def exported(suffix: str) -> Question:
    """Return the query that exports every record into a file of a kind."""

    def export(directory: Path) -> None:
        picture = Picture()
        with exporting(directory / f"export{suffix}") as write:

            def take(frame: Frame, events: bytes) -> None:
                picture.take(frame, events)
                write(table_rows(frame, events, picture))

            walk.walk(directory, take)

    return export


def audited(directory: Path) -> None:
    """The audit trail, as CSV."""
    with open(os.devnull, "w", newline="") as file:
        walk.walk(directory, Trail(csv.writer(file).writerow).take)


def bulletin(directory: Path) -> object:
    """The daily bulletin."""
    collected = Bulletin()
    walk.walk(directory, collected.take)
    return collected


QUESTIONS: Final[dict[str, Question]] = {
    "progress": shown,
    "verify": verified,
    "grep_account": searched,
    "grep_rejects": rejects,
    "why": life,
    "what_if": lambda directory: what_if(directory, Changes(margin=[("*", 110)])),
    "diff_with_itself": lambda directory: compare(directory, directory),
    "bulletin": bulletin,
    "audit": audited,
    "jsonl": exported(".jsonl"),
    "parquet": exported(".parquet"),
}


def timed(question: Question, directory: Path) -> float:
    """Return the CPU seconds of one query over all threads: other load does not count."""
    started = time.process_time()
    question(directory)
    return time.process_time() - started


def question_rows(name: str, commands: int, rounds: int, asked: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of one workload; every query is compared with a plain replay right before
    it."""
    drawn = workload(name, commands)
    flow = prepare(drawn.raw, drawn.prefill)
    plain: dict[str, list[float]] = {question: [] for question in asked}
    seconds: dict[str, list[float]] = {question: [] for question in asked}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        asyncio.run(write_log(directory, flow))
        count = walk.replay(directory).replayer.commands
        some_order(directory)
        for _ in range(rounds):
            for question in asked:
                plain[question].append(timed(replayed, directory))
                seconds[question].append(timed(QUESTIONS[question], directory))
    whole = median(one for some in plain.values() for one in some)
    yield row(f"{name}.replay", count / whole, UNIT)
    for question in asked:
        ratio = median(p / s for p, s in zip(plain[question], seconds[question], strict=True))
        rate = round(count / median(seconds[question]))
        yield Row(f"{name}.{question}", rate, UNIT, round(ratio, 4), f"{name}.replay")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("questions", "Time questions to a log.", ROUNDS)
    parser.add_argument(
        "--workloads",
        nargs="+",
        choices=PROFILES,
        default=["single"],
        help="flows to ask about (single)",
    )
    parser.add_argument(
        "--questions",
        nargs="+",
        choices=QUESTIONS,
        default=list(QUESTIONS),
        help="questions to time (all)",
    )
    parser.add_argument("--commands", type=whole, default=COMMANDS, help="in the log (%(default)s)")
    options = parser.parse_args(arguments)
    rows = (
        one
        for name in options.workloads
        for one in question_rows(name, options.commands, options.rounds, options.questions)
    )
    publish(rows, as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
