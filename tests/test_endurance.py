"""The long run's own test: its flows are alive, varied and the same every time, and a second
machine that is another in anything is found. Budget: 10 seconds.
"""

from collections.abc import Iterator
from dataclasses import replace

import endurance
import numpy as np
import pytest
from endurance import Tally, again, flows_of, live, run
from second import CHECKOUT, Differs, Lane, Other
from variations import Flow, Play, record

from exchange.engine import Engine
from exchange.messages import CancelReason, EventKind

COMMANDS = 2_000  # of a flow


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endurance, "record", lambda seed: record(seed, COMMANDS))
    monkeypatch.setattr(endurance, "ORACLE_COMMANDS", COMMANDS)


@pytest.fixture(scope="module")
def second() -> Iterator[Other]:
    """The same build in another process: the checked one is made by `make soak` alone."""
    with Other(CHECKOUT) as other:
        yield other


def test_lives_on_two_processes(second: Other) -> None:
    tally = run(second, 0, 20 * COMMANDS, 60.0, lambda text: None)
    told = tally.told()
    assert told["total"] == sum(told["commands"].values()) + told["unknown_kinds"]
    assert told["oracle_commands"] >= COMMANDS and told["restored"] > 0
    assert told["events"]["ORDER_ACCEPTED"] > told["total"] / 30
    never = {*told["never"]["commands"], *told["never"]["events"]}
    assert not never & {"MASS_QUOTE", "TRADE", "LEG_TRADE", "AUCTION_UNCROSSED", "ORDER_ELECTED"}


def test_a_life_again_event_by_event(second: Other) -> None:
    assert again(6, second) == ""


def test_the_same_life_is_the_same_and_another_is_not() -> None:
    said = []
    for life in (7, 7, 8):
        lane, random = Lane(), np.random.default_rng(life)
        play = Play(lane.apply, life)
        for flow in flows_of(life, random):
            for _ in play.send(flow):
                pass
        said.append(lane.look())
    assert said[0] == said[1] != said[2]


def targets_found(flow: Flow, seed: int) -> int:
    """Cancels and reductions that were done as requested, in one variation."""
    play, done = Play(Engine().apply, seed), 0
    for _, events in play.send(flow):
        asked = np.isin(events["kind"], (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED))
        done += int((asked & (events["reason"] == CancelReason.REQUESTED)).sum())
    return done


def test_a_variation_names_what_it_was_given_itself() -> None:
    found = without = 0
    for seed in range(6):
        flow = record(seed, COMMANDS)
        nothing = {name: np.full_like(places, -1) for name, places in flow.named.items()}
        found += targets_found(flow, seed)
        without += targets_found(replace(flow, named=nothing), seed)
    assert found > 1.3 * without > 0, (found, without)


class Wrong(Other):
    """A second machine that is told one command less, or otherwise, at one batch."""

    at, how = 30, "less"

    def begin(self, general: bool) -> None:
        super().begin(general)
        self.told = 0

    def apply(self, commands: bytes, sequence: int, stamp: int) -> None:
        self.told += 1
        if self.told == self.at:
            stamp += self.how == "later"
            commands = commands[:-64] if self.how == "less" else commands
        if commands:
            super().apply(commands, sequence, stamp)


@pytest.mark.parametrize("how", ["less", "later"])
def test_a_second_machine_that_is_another_is_found(how: str) -> None:
    wrong = Wrong(CHECKOUT)
    wrong.how = how
    with wrong, pytest.raises(Differs, match="differ"):
        run(wrong, 1, 20 * COMMANDS, 60.0, lambda text: None)


def test_a_second_machine_that_dies_is_told(second: Other) -> None:
    with Other(CHECKOUT) as other:
        other._process.kill()
        with pytest.raises(Differs, match="died"):
            live(1, other, Tally())
