"""Every value of every small field of an order's command: what goes the plain way is what the page
says, and nothing that only looks like it.

Budget: 15 seconds.
"""

from itertools import count

import pytest
from differences import difference
from generator import pack
from oracle import Oracle
from reject_market import DATE, STAMP, deposit, list_instrument, logon, open_account, set_risk
from reject_market import set_state as state

from exchange.engine import Engine
from exchange.messages import COMMAND, CommandFlag, CommandKind, Side, TimeInForce, TradingState

SMALL = {"side": 1, "tif": 2, "flags": 3, "operator": 28, "stp": 30, "spare": 31}  # offsets
SESSION = 1 << 16 | 1
BY_KEY, NEW_ID = int(CommandFlag.BY_CLIENT_ID), int(CommandFlag.NEW_ID)
ASKED = {"flags": BY_KEY, "key_lo": 0}  # and an id of its own
MINE = {"account": 2, "session": SESSION}
OPENING = b"".join(
    [
        open_account(account=2, instrument=2, session=2, quantity=1000),
        deposit(account=2, price=1_000_000_000, key_lo=1),
        list_instrument(instrument=0, account=1, operator=1),
        set_risk(quantity=100_000),
        state(TradingState.CONTINUOUS),
        pack(CommandKind.OPEN_DAY, quantity=DATE),
        logon(account=2),
    ]
)


def test_the_fields_lie_where_they_are_changed() -> None:
    found = pack(CommandKind.ENTER, side=1, tif=2, flags=3, operator=4, stp=5, spare=6)
    assert [found[at] for at in SMALL.values()] == [1, 2, 3, 4, 5, 6]
    assert len(found) == COMMAND.size


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (CommandKind.ENTER, {}),
        (CommandKind.ENTER, {"tif": int(TimeInForce.IOC)}),
        (CommandKind.ENTER, {"flags": int(CommandFlag.POST_ONLY)}),
        (CommandKind.CANCEL, {"flags": BY_KEY}),
        (CommandKind.CANCEL, ASKED),
        (CommandKind.REDUCE, {"flags": BY_KEY}),
        (CommandKind.REDUCE, ASKED),
        (CommandKind.REPLACE, {"flags": BY_KEY | NEW_ID}),
        (CommandKind.REPLACE, ASKED),
        (CommandKind.REPLACE, {**ASKED, "quantity": 10}),
    ],
)
@pytest.mark.parametrize("field", SMALL)
def test_every_value_of_a_small_field_is_judged_as_the_oracle_judges_it(
    field: str, kind: CommandKind, fields: dict[str, int], side: Side
) -> None:
    """An order rests, a command of which one byte is anything comes, and what rests leaves."""
    at, keys, steps = SMALL[field], count(1), [(STAMP, OPENING)]
    price = {Side.BUY: 300, Side.SELL: 700}[side]
    entered = {"side": int(side), "price": price, "quantity": 9, **MINE}
    for value in range(256):
        named, given = next(keys), next(keys)
        rests = pack(CommandKind.ENTER, key_lo=named, **entered)
        told = dict(fields)
        if "key_lo" in fields or kind == CommandKind.REPLACE or kind == CommandKind.ENTER:
            told["key_lo"] = given
        if kind == CommandKind.ENTER:
            asked = pack(kind, **{**entered, **told})
        else:
            amount = {"price": price, "quantity": 4} if kind != CommandKind.CANCEL else {}
            named_so = {"side": int(side), "target_lo": named, **MINE}
            asked = pack(kind, **{**amount, **named_so, **told})
        asked = asked[:at] + bytes([value]) + asked[at + 1 :]
        gone = [
            pack(CommandKind.CANCEL, side=2, flags=BY_KEY, target_lo=key, **MINE)
            for key in (named, given)
        ]
        steps.append((STAMP, b"".join([rests, asked, *gone])))
    assert not difference(steps, Oracle(), Engine())


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_a_repeated_request_of_an_order_that_lives_is_answered_again(side: Side) -> None:
    """Not done again: by its id alone it is known, whatever the order has become."""
    price = {Side.BUY: 300, Side.SELL: 700}[side]
    of_order = {"side": int(side), "flags": BY_KEY, "target_lo": 11, **MINE}
    reduced = pack(CommandKind.REDUCE, key_lo=12, quantity=2, **of_order)
    moved = pack(CommandKind.REPLACE, key_lo=13, price=price + 1, quantity=7, **of_order)
    smaller = pack(CommandKind.REPLACE, key_lo=14, price=price + 1, quantity=5, **of_order)
    other = pack(CommandKind.REDUCE, key_lo=14, quantity=1, **of_order)
    entered = pack(CommandKind.ENTER, side=int(side), price=price, quantity=9, key_lo=11, **MINE)
    batch = [entered, reduced, reduced, moved, reduced, moved, smaller, smaller, moved, other]
    engine = Engine()
    assert not difference([(STAMP, OPENING), (STAMP, b"".join(batch))], Oracle(), engine)
    assert engine.position(2, 0)[f"working_{side.name.lower()}"] == 5


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("low", [0, 21], ids=["upper half", "both halves"])
def test_a_request_is_known_by_its_whole_id_whether_it_states_a_side(side: Side, low: int) -> None:
    key = {"key_lo": low, "key_hi": 1}
    entered = pack(CommandKind.ENTER, side=0, price=300, quantity=9, key_lo=11, **MINE)
    of_order = {"side": int(side), "flags": BY_KEY, "target_lo": 11, **MINE}
    reduced = pack(CommandKind.REDUCE, quantity=2, **of_order, **key)
    unnamed = pack(CommandKind.REDUCE, quantity=1, **of_order)
    cancelled = pack(CommandKind.CANCEL, **of_order)
    batch = [entered, reduced, reduced, unnamed, unnamed]
    engine = Engine()
    steps = [(STAMP, OPENING), (STAMP, b"".join(batch))]
    assert not difference(steps, Oracle(), engine)
    assert engine.position(2, 0)["working_buy"] == (9 if side == Side.SELL else 5)
    assert not difference([*steps, (STAMP, cancelled)], Oracle(), Engine())
