"""Orders whose lives are more than entry, trades and cancel: what `hourbook log why` tells of them.

Budget: 5 seconds.
"""

from pathlib import Path
from typing import Any

import pytest
from history_market import LISTING, Script
from recorded import record_of

from exchange.history import order, tell
from exchange.messages import (
    INDEX_BITS,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Side,
    TimeInForce,
    TradingState,
)

BUY, SELL = Side.BUY, Side.SELL
SPREAD = 2  # the number of the spread that ``implied`` lists
CODE = "H100Z26-H200Z26"


def begun() -> Script:
    script = Script()
    script.set_up()
    return script


def implied() -> Script:
    """A market whose two instruments imply prices in their spread."""
    script = begun()
    listed = record_of(
        CommandKind.LIST_COMBINATION, instrument=SPREAD, quantity=0xF1, key_lo=1 << 16,
        target_lo=-1_000 % 2**64, target_hi=1_000,
    )  # fmt: skip
    risk = record_of(CommandKind.SET_RISK, instrument=SPREAD, quantity=100, session=50)
    state = record_of(CommandKind.SET_STATE, instrument=SPREAD, tif=TradingState.CONTINUOUS)
    on = record_of(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=1)
    text = LISTING.format(code=CODE, product="H100")
    script.say((listed, text), (risk, None), (state, None), (on, None))
    return script


def entered(script: Script, account: int, side: Side, price: int, lots: int, **more: int) -> int:
    """Enter an order; return its id."""
    accepted = script.say(script.enter(account, side, price, lots, **more))[0]
    assert accepted["kind"] == EventKind.ORDER_ACCEPTED
    return accepted["order_id"]


def ask(script: Script, kind: CommandKind, account: int, target: int = 0, **more: int) -> None:
    fields = {"side": Side.UNSTATED, "target_lo": target, "key_lo": script.key(), **more}
    script.say((record_of(kind, account=account, **fields), None))


def told(script: Script, directory: Path, order_id: int) -> dict[str, Any] | None:
    if not directory.exists():
        script.write(directory)
    life, picture = order.trace(directory, order_id=order_id)
    return None if life is None else tell.tell(life, picture)


def steps(life: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    assert life is not None
    return [(s["by"], h["what"], h["why"]) for s in life["steps"] for h in s["happened"]]


def test_lots_that_trade_through_an_implied_price_are_of_the_life(tmp_path: Path) -> None:
    script = implied()
    near = entered(script, 3, SELL, 2_500, 5)
    entered(script, 4, BUY, 2_490, 5, instrument=1)
    taker = entered(script, 5, BUY, 12, 3, instrument=SPREAD)
    resting, incoming = (told(script, tmp_path / "market", one) for one in (near, taker))
    assert resting is not None and incoming is not None
    assert (resting["state"], resting["executed"], resting["leaves"]) == ("working", 3, 2)
    assert (incoming["state"], incoming["executed"]) == ("filled", 3)
    by, what, why = steps(resting)[-1]
    assert (by, what) == ("account 5", "sold 3 at 2.500; 2 left")
    assert why.startswith(f"with others of {CODE} and its legs, this order implied a price")
    by, what, why = steps(incoming)[-1]
    assert (by, what) == ("the order's owner", "bought 3 at 0.010; 0 left")
    assert f"prices of {CODE} and of its legs imply one" in why


def test_a_trade_that_is_busted_or_adjusted_later_is_told_to_both_orders(tmp_path: Path) -> None:
    script = begun()
    maker = entered(script, 3, SELL, 2_500, 5)
    rows = script.say(script.enter(4, BUY, 2_500, 2), script.enter(4, BUY, 2_500, 3))
    taker = rows[0]["order_id"]
    first, second = (row for row in rows if row["kind"] == EventKind.TRADE)
    for trade, kind in ((first, CommandKind.BUST), (second, CommandKind.ADJUST)):
        moved = {"target_hi": trade["a"] % 2**64, "key_lo": trade["b"] % 2**64}
        record = record_of(
            kind, side=BUY, account=4, session=3, price=2_500, quantity=trade["quantity"],
            target_lo=trade["sequence"] << INDEX_BITS | trade["index"],
            **(moved if kind == CommandKind.BUST else {"target_hi": 2_510}),
        )  # fmt: skip
        assert len(script.say((record, None))) == 1
    life = told(script, tmp_path / "market", maker)
    assert life is not None
    assert (life["state"], life["executed"]) == ("filled", 5)
    by, whats, whys = zip(*steps(life)[-2:], strict=True)
    assert by == ("the market", "the market")
    assert [what.split()[0] for what in whats] == ["TRADE_BUSTED", "TRADE_ADJUSTED"]
    assert "now at 2.510" in whats[1] and "do not work again" in whys[0]
    assert [w.split()[0] for _, w, _ in steps(told(script, tmp_path / "market", taker))] == [
        "accepted", "bought", "TRADE_BUSTED",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [CommandKind.BUST, CommandKind.ADJUST])
def test_a_trade_at_an_implied_price_is_corrected_leg_by_leg(
    tmp_path: Path, kind: CommandKind
) -> None:
    """Each resting order is told of its own leg, the incoming one of both."""
    script = implied()
    near = entered(script, 3, SELL, 2_500, 3)
    far = entered(script, 4, BUY, 2_490, 3, instrument=1)
    rows = script.say(script.enter(5, BUY, 12, 3, instrument=SPREAD))
    incoming = rows[0]["order_id"]
    (first, *_) = [row for row in rows if row["kind"] == EventKind.ORDER_EXECUTED]
    for leg in [row for row in rows if row["kind"] == EventKind.LEG_TRADE]:
        moved = {"target_hi": leg["a"] % 2**64, "key_lo": leg["b"] % 2**64}
        record = record_of(
            kind, side=1 if leg["flags"] & EventFlag.SELL else 0, spare=leg["reason"] & 0xFF,
            instrument=leg["instrument"], account=leg["account"], session=leg["key_hi"],
            price=leg["price"] // 1_000, quantity=leg["quantity"], key_hi=SPREAD,
            target_lo=first["sequence"] << INDEX_BITS | first["index"],
            **(moved if kind == CommandKind.BUST else {"target_hi": 2_450}),
        )  # fmt: skip
        answers = script.say((record, None))
    assert len(answers) == 2
    name = "LEG_BUSTED" if kind == CommandKind.BUST else "LEG_ADJUSTED"
    for order_id, legs in ((near, ["H100Z26:"]), (far, ["H200Z26:"]),
                           (incoming, ["H100Z26:", "H200Z26:"])):  # fmt: skip
        whats = [what.split() for _, what, _ in steps(told(script, tmp_path / "market", order_id))]
        assert [what[1] for what in whats if what[0] == name] == legs


def test_an_id_that_is_named_before_an_order_has_it_is_of_no_life(tmp_path: Path) -> None:
    """A refused cancel names whatever id its sender wrote."""
    script = begun()
    first = entered(script, 3, SELL, 2_503, 4)
    ask(script, CommandKind.CANCEL, 4, first + 1)
    ask(script, CommandKind.CANCEL, 4, first + 2)
    assert entered(script, 4, SELL, 2_503, 4) == first + 1
    assert [what for _, what, _ in steps(told(script, tmp_path / "market", first + 1))] == [
        f"accepted as order {first + 1}; 4 lots rest, behind 4 lots of 1 order at 2.503, which"
        " came before it"
    ]
    assert told(script, tmp_path / "market", first + 2) is None
    assert told(script, tmp_path / "market", 0) is None


def test_what_another_account_asks_of_an_order_is_not_its_owners(tmp_path: Path) -> None:
    script = begun()
    mine = entered(script, 3, SELL, 2_503, 4)
    ask(script, CommandKind.CANCEL, 4, mine)
    ask(script, CommandKind.REPLACE, 5, mine, price=2_504, quantity=4)
    ask(script, CommandKind.REPLACE, 3, mine, price=9_000, quantity=4)
    by, whats, whys = zip(*steps(told(script, tmp_path / "market", mine))[1:], strict=True)
    assert by == ("account 4", "account 5", "the order's owner")
    assert [what.partition("(")[0] for what in whats] == [
        "rejected: NOT_FOUND ", "rejected: NOT_FOUND ", "rejected: PRICE_LIMIT ",
    ]  # fmt: skip
    assert ["USD in cash" in why for why in whys] == [False, False, True]


def test_an_order_is_not_behind_itself(tmp_path: Path) -> None:
    script = begun()
    mine = entered(script, 3, SELL, 2_503, 4)
    ask(script, CommandKind.REPLACE, 3, mine, price=2_503, quantity=9)
    entered(script, 4, SELL, 2_503, 6)
    ask(script, CommandKind.REPLACE, 3, mine, price=2_503, quantity=12)
    places = [why for _, _, why in steps(told(script, tmp_path / "market", mine))[1:]]
    grown = "more lots, or not in the book: it goes to the back; "
    assert places == [
        f"{grown}alone at 2.503",
        f"{grown}behind 6 lots of 1 order at 2.503, which came before it",
    ]


def test_an_order_is_not_behind_the_one_that_it_replaces(tmp_path: Path) -> None:
    """Under a new id, or as the next side of a quote."""
    script = begun()
    mine = entered(script, 3, SELL, 2_503, 4)
    entered(script, 4, SELL, 2_503, 6)
    renewed = record_of(
        CommandKind.REPLACE, account=3, side=Side.UNSTATED, flags=CommandFlag.NEW_ID,
        target_lo=mine, price=2_503, quantity=7, key_lo=script.key(), key_hi=7,
    )  # fmt: skip
    _, new = script.say((renewed, None))
    bids = []
    for tif in (TimeInForce.GTC, TimeInForce.DAY):  # another tif is another order
        quote = record_of(
            CommandKind.MASS_QUOTE, account=1, price=2_490, quantity=5, tif=tif,
            key_lo=script.key(),
        )  # fmt: skip
        bids += [
            row for row in script.say((quote, None)) if row["kind"] == EventKind.ORDER_ACCEPTED
        ]
    places = [
        steps(told(script, tmp_path / "market", row["order_id"]))[0][1].partition("rest, ")[2]
        for row in (new, *bids)
    ]
    assert places == [
        "behind 6 lots of 1 order at 2.503, which came before it",
        "alone at 2.490",
        "alone at 2.490",
    ]


def test_orders_that_return_together_stand_behind_one_another(tmp_path: Path) -> None:
    script = begun()
    near, far = (
        record_of(CommandKind.SET_LIMITS, instrument=0, target_lo=low, target_hi=3_000)
        for low in (2_510, 2_000)
    )
    first = entered(script, 3, SELL, 2_505, 4)
    second = entered(script, 4, SELL, 2_505, 6)
    script.say((near, None))
    script.say((far, None))
    places = [
        steps(told(script, tmp_path / "market", one))[-1][2].partition("; ")[2]
        for one in (first, second)
    ]
    assert places == [
        "alone at 2.505", "behind 4 lots of 1 order at 2.505, which came before it",
    ]  # fmt: skip


def test_a_trade_of_an_auction_has_no_order_that_came_in(tmp_path: Path) -> None:
    script = begun()
    call, end = (
        (record_of(CommandKind.SET_STATE, instrument=0, tif=state), None)
        for state in (TradingState.AUCTION, TradingState.CONTINUOUS)
    )
    script.say(call)
    seller = entered(script, 3, SELL, 2_490, 4)
    buyer = entered(script, 4, BUY, 2_510, 4)
    waits = entered(script, 5, BUY, 0, 2, flags=CommandFlag.MARKET)
    ask(script, CommandKind.CANCEL, 5, waits)
    script.say(end)
    for mine, verb, other, account in ((seller, "sold", buyer, 4), (buyer, "bought", seller, 3)):
        life = told(script, tmp_path / "market", mine)
        _, what, why = steps(life)[-1]
        assert what.startswith(f"{verb} 4 at 2.500 with order {other} of account {account}; 0 left")
        assert why == "both orders were collected for an auction: all its trades are at one price"
        assert life is not None
        assert life["steps"][-1]["happened"][-1]["rule"] == tell.AUCTIONS
    accepted = steps(told(script, tmp_path / "market", waits))[0][1]
    assert accepted.endswith("2 lots rest, at any price, ahead of all that have a limit")


def test_a_client_id_that_is_used_again_names_both_orders(tmp_path: Path) -> None:
    """It is forgotten with 256 more of the account, and may then be given to another order."""
    script, key = begun(), 5_000
    first = entered(script, 3, BUY, 2_400, 1, key_lo=key)
    by_client = {"flags": CommandFlag.BY_CLIENT_ID, "target_lo": key, "target_hi": 7}
    ask(script, CommandKind.CANCEL, 3, **by_client)
    for _ in range(256):
        entered(script, 3, BUY, 2_400, 1, tif=TimeInForce.IOC)
    second = entered(script, 3, BUY, 2_401, 2, key_lo=key)
    ask(script, CommandKind.REPLACE, 3, price=9_000, quantity=2, **by_client)  # refused
    market = script.write(tmp_path / "market")
    life, picture = order.trace(market, account=3, key=(key, 7))
    assert life is not None
    named = tell.tell(life, picture)
    assert (named["order_id"], named["entered_again"]) == (first, [second])
    assert [step["sequence"] for step in named["steps"]] == [22, 23]
    assert tell.text(named).endswith(f"was used again later, for another order: {second}")
    again = told(script, market, second)
    assert again is not None and again["entered_again"] == []
    assert [by for by, *_ in steps(again)] == ["the order's owner"] * 2
