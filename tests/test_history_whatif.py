"""Other parameters for markets with spreads, implied prices, and several commands in a batch.

Budget: 4 seconds.
"""

from pathlib import Path

import pytest
from history_market import Item, Script
from recorded import record_of
from test_history_lives import CODE, SPREAD, begun, entered, implied

from exchange.history.walk import walk
from exchange.history.whatif import Changes, NothingChosen, WhatIf, what_if
from exchange.messages import INDEX_BITS, CommandKind, EventFlag, EventKind, Side

BUY, SELL = Side.BUY, Side.SELL
MAKER, TAKER, POOR = 4, 5, 6


def mark(instrument: int, price: int) -> Item:
    return record_of(CommandKind.MARK, instrument=instrument, price=price), None


def limits(instrument: int, low: int, high: int) -> Item:
    wide = {"target_lo": low % 2**64, "target_hi": high % 2**64}
    return record_of(CommandKind.SET_LIMITS, instrument=instrument, **wide), None


@pytest.mark.parametrize("together", [True, False])
def test_limits_are_measured_from_the_mark_of_that_moment(tmp_path: Path, together: bool) -> None:
    """Whether the mark before them is in their own batch or in an earlier one."""
    script, both = begun(), (mark(0, 2_700_000), limits(0, 2_000, 3_000))
    for batch in (both,) if together else [(one,) for one in both]:
        script.say(*batch)
    entered(script, 3, BUY, 2_700, 1)  # within 1 % of 2.700, and not of the 2.500 before
    entered(script, 3, BUY, 2_550, 1)
    told = what_if(script.write(tmp_path / "market"), Changes(limits=[("*", 1)]))
    assert told["orders_rejected"] == 1
    assert "the price 2.550 is beyond the day's limit, 2.673" in told["examples"][0]


def test_a_combination_keeps_its_limits(tmp_path: Path) -> None:
    """They follow from its legs': a spread of equal months is worth nothing, and no per cent of
    that is a limit."""
    script = implied()
    script.say(limits(SPREAD, -500, 500))
    entered(script, MAKER, SELL, 5, 1, instrument=SPREAD)
    market = script.write(tmp_path / "market")
    told = what_if(market, Changes(limits=[("*", 10)]))
    assert (told["orders_rejected"], told["parameters_refused"]) == (0, 0)
    with pytest.raises(NothingChosen, match="fits combinations alone"):
        what_if(market, Changes(limits=[(CODE, 10)]))


def test_a_listing_of_no_price_step_is_refused_as_it_was(tmp_path: Path) -> None:
    script = begun()
    script.say((record_of(CommandKind.LIST, instrument=9, price=2_500_000), None))
    told = what_if(script.write(tmp_path / "market"), Changes(limits=[("*", 10)]))
    assert told["orders_rejected"] == 0


def corrected(script: Script, kind: CommandKind, others: tuple[int, ...] = ()) -> None:
    """Three lots trade at an implied price; two commands correct them, a leg each."""
    entered(script, POOR, SELL, 2_500, 5)  # which it could not, if a lot held much more
    for other in others:
        entered(script, other, SELL, 2_500, 5)
    entered(script, MAKER, BUY, 2_490, 5, instrument=1)
    entered(script, POOR, BUY, 2_400, 1)
    entered(script, 1, SELL, 2_400, 1)  # so that it has a position whatever is rejected
    rows = script.say(script.enter(TAKER, BUY, 12, 3, instrument=SPREAD))
    (first, *_) = [row for row in rows if row["kind"] == EventKind.ORDER_EXECUTED]
    legs = [row for row in rows if row["kind"] == EventKind.LEG_TRADE]
    answers = []
    for leg in legs:
        bust = kind == CommandKind.BUST
        moved = {"target_hi": leg["a"] % 2**64, "key_lo": leg["b"] % 2**64}
        record = record_of(
            kind, side=1 if leg["flags"] & EventFlag.SELL else 0, spare=leg["reason"] & 0xFF,
            instrument=leg["instrument"], account=leg["account"], session=leg["key_hi"],
            price=leg["price"] // 1_000, quantity=leg["quantity"], key_hi=SPREAD,
            target_lo=first["sequence"] << INDEX_BITS | first["index"],
            **(moved if bust else {"target_hi": 2_450}),
        )  # fmt: skip
        answers += [row["kind"] for row in script.say((record, None))]
    done = EventKind.LEG_BUSTED if kind == CommandKind.BUST else EventKind.LEG_ADJUSTED
    assert answers == [EventKind.LEG_STATED, done, done]


@pytest.mark.parametrize("kind", [CommandKind.BUST, CommandKind.ADJUST])
def test_an_implied_trade_that_is_gone_is_counted_and_not_corrected(
    tmp_path: Path, kind: CommandKind
) -> None:
    script = implied()
    corrected(script, kind)
    other = WhatIf(Changes(margin=[("*", 450)]))
    told = other.report(walk(script.write(tmp_path / "market"), other.take))
    assert (told["orders_rejected"], told["others_rejected"]) == (1, 0)
    assert (told["trades"], told["trades_instead"], told["trades_gone"]) == (2, 1, 1)
    assert told["lots"] == {"H100Z26": [4, 1], CODE: [3, 0], "H200Z26": [3, 0]}
    nets = {(a, n): other.engine.position(a, n)["net"] for a in (MAKER, TAKER) for n in (0, 1)}
    assert set(nets.values()) == {0}
    profits = {one["account"]: one["instead"] for one in told["profit"]}
    assert {profits.get(account, "0.00") for account in (MAKER, TAKER)} == {"0.00"}


@pytest.mark.parametrize("kind", [CommandKind.BUST, CommandKind.ADJUST])
def test_an_implied_trade_that_is_there_is_corrected_as_it_was(
    tmp_path: Path, kind: CommandKind
) -> None:
    script = implied()
    corrected(script, kind)
    told = what_if(script.write(tmp_path / "market"), Changes(margin=[("*", 101)]))
    assert (told["commands_changed"], told["trades_gone"]) == (2, 0)
    assert {one["difference"] for one in told["profit"]} <= {"0.00"}


def test_a_leg_with_somebody_else_is_another_trade(tmp_path: Path) -> None:
    """The incoming order trades as it did, but one of the orders that it meets is another's."""
    script = implied()
    corrected(script, CommandKind.BUST, others=(3,))
    other = WhatIf(Changes(margin=[("*", 450)]))
    told = other.report(walk(script.write(tmp_path / "market"), other.take))
    assert (told["orders_rejected"], told["trades_gone"], told["trades_new"]) == (1, 0, 0)
    nets = [other.engine.position(account, 0)["net"] for account in (TAKER, 3, POOR)]
    assert nets == [3, -3, 1]  # nothing of it was corrected


@pytest.mark.parametrize("together", [True, False])
def test_an_id_that_no_order_of_the_log_has_names_none_elsewhere(
    tmp_path: Path, together: bool
) -> None:
    """A cancel guesses the id that an order gets in the other run alone."""
    script = begun()
    known = entered(script, MAKER, SELL, 2_600, 1)
    refused = script.enter(POOR, BUY, 2_400, 40)
    guess = {"target_lo": known + 1, "key_lo": script.key(), "key_hi": 7}
    cancel = record_of(CommandKind.CANCEL, account=POOR, side=Side.UNSTATED, **guess), None
    for batch in ((refused, cancel),) if together else ((refused,), (cancel,)):
        assert {row["kind"] for row in script.say(*batch)} == {EventKind.REJECTED}
    entered(script, MAKER, SELL, 2_601, 1)  # which has that id in the log, and another there
    script.say((record_of(
        CommandKind.CANCEL, account=MAKER, side=Side.UNSTATED, target_lo=known + 1,
        key_lo=script.key(), key_hi=7,
    ), None))  # fmt: skip
    other = WhatIf(Changes(margin=[("*", 1)]))
    told = other.report(walk(script.write(tmp_path / "market"), other.take))
    assert (told["orders_accepted"], told["others_accepted"]) == (1, 0)
    assert other.engine.book(0, 0) == ([(2_400, 40, 1)], [(2_600, 1, 1)])
