"""Logs of random commands, nonsense among them, can be asked anything. Budget: 5 seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

from exchange.history import order, tell, walk
from exchange.history.audit import FIELDS, Trail
from exchange.history.bulletin import Bulletin
from exchange.history.differ import compare
from exchange.history.picture import Picture
from exchange.history.records import command_at, event_row
from exchange.history.table import rows
from exchange.history.whatif import Changes, what_if
from exchange.history.words import command_line, event_line
from exchange.journal.frame import Frame
from exchange.messages import EVENT_BYTES, EventKind

CHECKOUT = Path(__file__).parents[1]
LOGS = sorted(path.parent for path in (CHECKOUT / "tests/golden").glob("*/log"))


@pytest.fixture(params=LOGS, ids=lambda log: log.name)
def log(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def order_ids(log: Path) -> list[int]:
    """Ids of all orders accepted; every record is put into words and rows on the way."""
    picture, ids = Picture(), set()

    def take(frame: Frame, events: bytes) -> None:
        picture.take(frame, events)
        count = len(events) // EVENT_BYTES
        assert len(rows(frame, events, picture)[0]) == frame.opening.count + count
        for number in range(frame.opening.count):
            assert command_line(command_at(frame.commands, number), picture)
        for number in range(count):
            row = event_row(events, number)
            assert event_line(row, picture)
            if row[2] == EventKind.ORDER_ACCEPTED:
                ids.add(row[7])

    walk.walk(log, take)
    return sorted(ids)


def test_every_record_has_words_and_every_life_adds_up(log: Path) -> None:
    for order_id in order_ids(log)[::15]:
        life, picture = order.trace(log, order_id=order_id)
        assert life is not None
        assert life.quantity == life.executed + life.cancelled + life.leaves
        assert life.leaves >= 0
        assert str(order_id) in tell.text(tell.tell(life, picture))


def test_the_audit_trail_verifies_itself(log: Path, tmp_path: Path) -> None:
    file = tmp_path / "trail.csv"
    with open(file, "w") as out:
        out.write(",".join(FIELDS) + "\n")

        def write(row: list[object]) -> None:
            out.write(",".join(str(cell).replace(",", ";").replace('"', "") for cell in row) + "\n")

        trail = Trail(write)
        walk.walk(log, trail.take)
    command = [sys.executable, "-I", str(CHECKOUT / "docs/verify_audit.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{trail.rows} rows" in done.stdout


def test_open_interest_and_profits_hold(log: Path) -> None:
    """The bulletin asserts both sides of the open interest, what-if that profits sum to zero."""
    collected = Bulletin()
    walk.walk(log, collected.take)
    collected.finish()
    for day in collected.days:
        assert len(collected.rows(day)) == len(day.lines)
        collected.large_traders(day)
        collected.concentration(day)
    picture = Picture()
    walk.walk(log, picture.take)
    changes = [Changes(without=frozenset(list(picture.accounts)[1:2]))]
    if picture.instruments.by_code:
        everything = [("*", 1)]
        changes += [Changes(margin=[("*", 1_000)], limits=everything, position_limit=everything)]
    for change in changes:
        told = what_if(log, change)
        assert told["trades"] - told["trades_gone"] + told["trades_new"] == told["trades_instead"]


def test_a_log_equals_itself(log: Path) -> None:
    assert compare(log, log).as_dict()["same"]
