"""Logs that this build must not believe: written under another rule, or edited and chained anew.

Budget: 6 seconds on two cores.
"""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from history_market import two_days
from recorded import FIRST_SEGMENT, record_of
from test_history_lives import SPREAD, begun, entered, implied

from exchange.engine import Engine
from exchange.history import divergence, walk
from exchange.history.differ import compare
from exchange.journal import frame as frames
from exchange.messages import (
    COMMAND_BYTES,
    CommandFlag,
    CommandKind,
    EventKind,
    Side,
)


class NoPostOnly:
    """An engine of another rule: post-only orders enter as any other."""

    def __init__(self) -> None:
        self._engine = Engine()
        self.next_deadline = self._engine.next_deadline
        self.state_bytes = self._engine.state_bytes
        self.counts = self._engine.counts

    def apply(self, commands: bytes, first: int, stamp: int) -> bytes:
        changed = bytearray(commands)
        for at in range(0, len(changed), COMMAND_BYTES):
            if changed[at] == CommandKind.ENTER:
                changed[at + 3] &= ~CommandFlag.POST_ONLY & 0xFF
        return self._engine.apply(bytes(changed), first, stamp)


class Hidden(NoPostOnly):
    """An engine whose events are right and whose state is not."""

    def __init__(self) -> None:
        super().__init__()
        state = self._engine.state_bytes
        self.state_bytes = lambda *_: state() + b"hidden"

    def apply(self, commands: bytes, first: int, stamp: int) -> bytes:
        return self._engine.apply(commands, first, stamp)


def explained(directory: Path) -> dict[str, Any]:
    diverged = walk.replay(directory).divergence
    assert diverged is not None
    return divergence.explain(directory, diverged)


def first_difference(directory: Path) -> int:
    """The first sequence where an engine of this build and the tape differ, looked for plainly."""
    for frame, events in walk.batches(directory):
        recorded = divergence.recorded_events(directory, frame.opening.first_sequence)
        if recorded != events:
            assert recorded is not None
            for at in range(0, len(events), 80):
                if recorded[at : at + 80] != events[at : at + 80]:
                    mine = int.from_bytes(events[at : at + 8], "little")
                    theirs = int.from_bytes(recorded[at : at + 8], "little")
                    return min(mine, theirs)
    raise AssertionError("nothing differs")


def test_another_rule_is_found_down_to_the_field(tmp_path: Path) -> None:
    market = two_days().write(tmp_path / "market", NoPostOnly())
    told = explained(market)
    assert told["what"] == "events"
    assert told["sequence"] == first_difference(market)
    assert told["first_sequence"] <= told["sequence"] <= told["last_sequence"]
    assert "post-only" in told["command"]
    words = "\n".join(told["words"])
    assert "every batch before it gives the recorded events" in words
    assert "the recorded answer fits the command" in words
    flags = told["fields"].get("flags")
    kinds = told["fields"].get("kind")
    assert flags or kinds == (EventKind.ORDER_ACCEPTED, EventKind.REJECTED)


def test_a_rule_that_changes_one_figure_names_that_figure(tmp_path: Path) -> None:
    class OneMore(NoPostOnly):
        def apply(self, commands: bytes, first: int, stamp: int) -> bytes:
            events = bytearray(self._engine.apply(commands, first, stamp))
            for at in range(0, len(events), 80):
                if events[at + 12] == EventKind.TRADE and first > 500:
                    events[at + 64] ^= 1  # the taker's cash
            return bytes(events)

    market = two_days().write(tmp_path / "market", OneMore())
    told = explained(market)
    assert list(told["fields"]) == ["cash"]
    was, now = told["fields"]["cash"]
    assert was ^ 1 == now
    assert told["sequence"] == first_difference(market)
    assert any(f"cash of event {told['index']}" in line for line in told["words"])


class OtherFee(NoPostOnly):
    """An engine that charges the incoming side of a trade another fee."""

    def apply(self, commands: bytes, first: int, stamp: int) -> bytes:
        events = bytearray(self._engine.apply(commands, first, stamp))
        for at in range(0, len(events), 80):
            if events[at + 12] == EventKind.TRADE:
                events[at + 64] ^= 1
        return bytes(events)


@pytest.mark.parametrize(("price", "protected"), [(0, False), (5, True)])
def test_a_market_order_whose_answer_has_another_price_was_not_altered(
    tmp_path: Path, price: int, protected: bool
) -> None:
    """The answer has the price at which it rests, the command how far it may go."""
    script = begun()
    entered(script, 3, Side.SELL, 2_503, 4)
    flags = CommandFlag.MARKET | (CommandFlag.PROTECTED if protected else 0)
    entered(script, 4, Side.BUY, price, 2, flags=flags)
    told = explained(script.write(tmp_path / "market", OtherFee()))
    assert told["words"][-1] == (
        "the recorded answer fits the command: this build's rules differ from the writer's"
    )


def test_an_event_of_one_side_in_place_of_one_of_two_is_told(tmp_path: Path) -> None:
    class NoneExecuted(NoPostOnly):
        def apply(self, commands: bytes, first: int, stamp: int) -> bytes:
            events = self._engine.apply(commands, first, stamp)
            rows = (events[at : at + 80] for at in range(0, len(events), 80))
            return b"".join(row for row in rows if row[12] != EventKind.ORDER_EXECUTED)

    script = implied()
    entered(script, 3, Side.SELL, 2_500, 5)
    entered(script, 4, Side.BUY, 2_490, 5, instrument=1)
    entered(script, 5, Side.BUY, 12, 3, instrument=SPREAD)
    told = explained(script.write(tmp_path / "market", NoneExecuted()))
    assert told["fields"] == {"kind": ("LEG_TRADE", "ORDER_EXECUTED")}


def test_a_scope_that_this_build_does_not_know_is_told_by_its_number(tmp_path: Path) -> None:
    class Wider(NoPostOnly):
        def apply(self, commands: bytes, first: int, stamp: int) -> bytes:
            events = bytearray(self._engine.apply(commands, first, stamp))
            for at in range(0, len(events), 80):
                if events[at + 12] == EventKind.KILLED:
                    events[at + 14] = 9
            return bytes(events)

    script = begun()
    script.say((record_of(CommandKind.KILL, account=4), None))
    told = explained(script.write(tmp_path / "market", Wider()))
    assert told["fields"] == {"reason": (9, 0)}
    assert "  recorded: KILLED 9: 0 orders cancelled" in told["words"]


class OtherExpiry(NoPostOnly):
    """An engine with another event in a log's last batch."""

    def apply(self, commands: bytes, first: int, stamp: int) -> bytes:
        events = bytearray(self._engine.apply(commands, first, stamp))
        if events[12] == EventKind.INSTRUMENT_EXPIRED:
            events[32] ^= 1
        return bytes(events)


def test_the_last_batch_is_compared_with_the_head(tmp_path: Path) -> None:
    market = two_days(batches=40).write(tmp_path / "market", OtherExpiry())
    told = explained(market)
    assert told["command"].startswith("EXPIRE")
    assert list(told["fields"]) == ["price"]
    assert told["last_sequence"] == walk.log_end(market)


@pytest.mark.parametrize(
    ("engine", "kind", "count"),
    [(OtherExpiry, "recorded digest", 1), (Hidden, "recorded state", 3)],
)
def test_two_logs_are_told_apart_by_what_they_recorded_alone(
    tmp_path: Path, engine: type[NoPostOnly], kind: str, count: int
) -> None:
    """Two checkpoints and the head state a state; of the last batch the head states the digest."""
    script = two_days(batches=5)
    right, other = script.write(tmp_path / "right"), script.write(tmp_path / "other", engine())
    told = compare(right, other).as_dict()
    assert [(one["kind"], one["count"]) for one in told["differences"]] == [(kind, count)]
    assert (told["first"]["sequence"] == walk.log_end(right)) == (engine is OtherExpiry)
    assert walk.log_end(right) == told["commands_compared"]
    (other / "head").unlink()
    assert compare(right, other).as_dict()["same"] == (engine is OtherExpiry)


def test_without_a_tape_the_batch_is_named_and_its_commands(tmp_path: Path) -> None:
    market = two_days().write(tmp_path / "market", NoPostOnly())
    exact = explained(market)
    shutil.rmtree(market / "tape")
    told = explained(market)
    assert told["first_sequence"] == exact["first_sequence"]
    assert "sequence" not in told
    assert "there is no tape" in told["words"][1]
    assert any(exact["command"] in line for line in told["words"])


@pytest.mark.parametrize("why", ["segment missing", "CRC"])
def test_a_log_whose_beginning_cannot_be_read_has_its_divergence_named(
    tmp_path: Path, why: str
) -> None:
    """As a shadow finds one behind a snapshot, whatever became of the segments below that."""
    market = two_days(batches=20).write(tmp_path / "market", NoPostOnly())
    diverged = walk.replay(market).divergence
    assert diverged is not None
    segment = market / FIRST_SEGMENT
    if why == "CRC":
        data = bytearray(segment.read_bytes())
        data[300] ^= 1
        segment.write_bytes(data)
    else:
        segment.rename(segment.with_name(f"{2:020}.hbl"))
    told = divergence.explain(market, diverged)
    assert (told["what"], told["first_sequence"]) == ("events", diverged.first_sequence)
    (line,) = told["words"]
    assert f"to {diverged.last_sequence}; which of its commands" in line and why in line


def test_a_tape_of_another_build_is_not_believed(tmp_path: Path) -> None:
    market = two_days().write(tmp_path / "market", NoPostOnly())
    shutil.rmtree(market / "tape")
    shutil.copytree(two_days().write(tmp_path / "right") / "tape", market / "tape")
    told = explained(market)
    assert "sequence" not in told
    assert "another build's events" in told["words"][1]


def test_a_state_that_differs_lies_between_two_checkpoints(tmp_path: Path) -> None:
    market = two_days().write(tmp_path / "market", Hidden())
    told = explained(market)
    assert told["what"] == "state"
    assert told["agreed_upto"] == 0
    assert "no state was recorded before" in told["words"][1]


def rechained(directory: Path, sequence: int, offset: int) -> None:
    """Change one byte of a command, seal its frame anew and chain all that follow."""
    path = directory / FIRST_SEGMENT
    view, at, previous, out = memoryview(path.read_bytes()), 0, frames.NO_HASH, []
    while at < len(view) and view[at]:
        frame = frames.decode(view, at)
        at += frame.length
        commands = bytearray(frame.commands)
        if frame.opening.first_sequence <= sequence <= frame.last_sequence:
            commands[(sequence - frame.opening.first_sequence) * COMMAND_BYTES + offset] ^= 1
        opening = msgspec.structs.replace(frame.opening, previous_hash=previous)
        data, previous = frames.encode(
            opening, bytes(commands), frame.ingress, frame.texts, frame.notes
        )
        out.append(data)
    path.write_bytes(b"".join(out))
    (directory / "head").unlink()


def test_an_edited_and_chained_log_is_found_and_called_edited(tmp_path: Path) -> None:
    script = two_days()
    market = script.write(tmp_path / "market")
    batch = next(n for n, items in enumerate(script.batches) if n > 90 and items[-1][0][0] == 1)
    sequence = sum(map(len, script.batches[: batch + 1]))
    rechained(market, sequence, 24)  # the quantity's lowest bit
    told = explained(market)
    assert told["sequence"] == sequence
    assert told["fields"]["quantity"][0] ^ 1 == told["fields"]["quantity"][1]
    assert "the command was altered after it was answered" in told["words"][-1]
    shutil.rmtree(market / "tape")
    told = explained(market)
    assert told["first_sequence"] <= sequence <= told["last_sequence"]


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_the_divergent_batch_is_the_edited_one_wherever_it_is(tmp_path: Path, place: float) -> None:
    """An edit that changes no answer is no divergence of events; any other is found where it is."""
    script = two_days(seed=3, batches=60)
    market = script.write(tmp_path / "market")
    starts = [0]
    for items in script.batches:
        starts.append(starts[-1] + len(items))
    chosen = next(
        (first, last)
        for number, (first, last) in enumerate(pairwise(starts))
        if first > place * starts[-1] and script.batches[number][0][0][0] == CommandKind.ENTER
    )
    rechained(market, chosen[0] + 1, 16)  # the price's lowest bit, which every answer repeats
    diverged = walk.replay(market).divergence
    assert diverged is not None
    assert (diverged.first_sequence, diverged.last_sequence) == (chosen[0] + 1, chosen[1])
