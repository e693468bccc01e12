"""A rule broken in the oracle on purpose is found: the canary of the comparison in test_engine.py.

A rule that no random command ever reached would pass that comparison, right or wrong. Each row
breaks one; the engine must be seen to differ within a share of what the comparison runs. What it
does not reach so soon is left to examples: auctions in test_auction_rule.py. Budget: 40 seconds.
"""

from collections.abc import Callable
from typing import Any

import oracle
import oracle_accounts
import oracle_auction
import oracle_combinations
import oracle_corrections
import oracle_features
import oracle_implied
import oracle_instruments
import oracle_mass
import oracle_matching
import oracle_offbook
import oracle_orders
import oracle_protections
import oracle_quotes
import oracle_risk
import oracle_state
import oracle_stops
import pytest
from generator import MIXED, Generator
from oracle import Oracle

from exchange.engine import Engine
from exchange.messages import COMMAND_BYTES

SEEDS = 40
SPREADS = {**MIXED, "combine": 20, "imply": 20}
LEGS = {**SPREADS, "correct": 80, "mark": 60, "limits": 80, "state": 80}
CALLS = {**MIXED, "call": 60, "uncross": 60, "indicate": 60, "mark": 40, "protect": 0}
MIXES = (MIXED, SPREADS, LEGS, {**MIXED, "protect": 40, "set_account": 30}, CALLS)
# Bands around prices off the ladder, met by orders without a price: searched after the others.
STRAYS = {**MIXED, "protect": 80, "set_account": 30, "settle": 40, "limits": 30, "day": 12,
          "mark": 40, "feature": 0, "quote": 0}  # fmt: skip
MARKETS = 0.4  # of their orders
Row = tuple[object, str, object]


def nothing(*_: object, **__: object) -> None:
    """Instead of a guard or an act."""


def always(value: object) -> Callable[..., object]:
    return lambda *_, **__: value


def plus(value: int, kept: Callable[..., Any]) -> Any:
    return lambda *given: kept(*given) + value


def rounded_up(kept: Callable[..., Any]) -> Any:
    """Leg prices, the last one unit higher."""

    def prices(*given: Any) -> Any:
        found = list(kept(*given))
        return [*found[:-1], found[-1] + 1]

    return prices


MATCHING: list[Row] = [
    (oracle_matching, "can_fill", always(True)),
    (oracle_matching, "own", always(False)),
    (oracle_matching, "hide", nothing),
    (oracle_orders, "judge_post_only", nothing),
    (oracle_orders, "judge_display", nothing),
    (oracle_orders, "judge_trigger", nothing),
    (oracle_orders, "judge_auction", nothing),
    (oracle_orders, "keeps_place", always(False)),
    (oracle_stops, "elect", nothing),
    (oracle_stops, "reached", lambda order, price: order.trigger == price),
    (oracle_instruments, "return_dormant", nothing),
    (oracle, "fire_timers", nothing),
    (oracle_state.Market, "forget_if_finished", nothing),
    (oracle_state, "insort", lambda orders, order, key: orders.append(order)),
]
RISK: list[Row] = [
    (oracle_orders, "judge_position", nothing),
    (oracle_orders, "judge_margin", nothing),
    (oracle_instruments, "review", nothing),
    (oracle_accounts, "review", nothing),
    (oracle_risk, "side_lots", always(0)),
    (oracle_risk, "unrealized", always(0)),
    (oracle_risk, "member_figures", always((0, 0))),
    (oracle_corrections, "review", nothing),
]
COMBINATIONS: list[Row] = [
    (oracle_combinations, "leg_prices", rounded_up(oracle_combinations.leg_prices)),
    (oracle_combinations, "value_at_marks", plus(1, oracle_combinations.value_at_marks)),
    (oracle_combinations, "weight", plus(1, oracle_combinations.weight)),
    (oracle_risk, "mark_of", lambda m, instrument: instrument.mark),
    (oracle_combinations, "made_of", always([])),
    (oracle_instruments, "made_of", always([])),
    (oracle_orders, "judge_legs_open", nothing),
    (oracle_orders, "open_legs", always(True)),
    (oracle_implied, "best_source", always(None)),
    (oracle_implied, "source_of", always(None)),
    (oracle_orders, "best_source", always(None)),
]
PROTECTIONS: list[Row] = [
    (oracle_orders, "judge_band", nothing),
    (oracle_orders, "judge_through", nothing),
    (oracle_orders, "bound_by_band", lambda m, instrument, side, price: price),
    (oracle_orders, "judge_value", nothing),
    (oracle_orders, "judge_features", nothing),
    (oracle_orders, "judge_all_months", nothing),
    (oracle_orders, "judge_loss", nothing),
    (oracle_accounts, "count_losses_from_now", nothing),
    (oracle_protections, "trips", always(None)),
    (oracle_protections, "tell_level", nothing),
    (oracle_protections, "is_on", always(True)),
    (oracle_quotes, "judge_band", nothing),
    (oracle_quotes, "judge_value", nothing),
    (oracle_features, "protect", nothing),
]
THE_REST: list[Row] = [
    (oracle_auction, "join_stops", always(False)),
    (oracle_auction, "half_fees", always((0, 0))),
    (oracle_auction, "clamp", lambda price, tied: tied[0].price),
    (oracle_features, "trim", nothing),
    (oracle_quotes, "keeps", always(False)),
    (oracle_mass, "sweep", nothing),
    (oracle_offbook, "judge_giver", nothing),
]
BROKEN = [*MATCHING, *RISK, *COMBINATIONS, *PROTECTIONS, *THE_REST]


def name_of(row: Row) -> str:
    return f"{getattr(row[0], '__name__', '')}.{row[1]}"


@pytest.mark.parametrize("broken", BROKEN, ids=name_of)
def test_a_broken_rule_is_found(monkeypatch: pytest.MonkeyPatch, broken: Row) -> None:
    monkeypatch.setattr(*broken)
    for seed in range(2 * SEEDS):
        strays = seed >= SEEDS
        mix = STRAYS if strays else MIXES[seed % len(MIXES)]
        generator, slow, fast = Generator(seed, mix), Oracle(), Engine()
        generator.markets = MARKETS if strays else generator.markets
        batch, sequence = generator.opening(), 1
        for _ in range(60):
            events = fast.apply(batch, sequence, generator.stamp)
            if slow.apply(batch, sequence, generator.stamp) != events:
                return
            generator.learn(events)
            sequence += len(batch) // COMMAND_BYTES
            batch = generator.batch(64)
    pytest.fail("the engine agrees with a broken oracle")
