"""What one command costs in a large market, in instructions: little, however much others do there.

Budget: 15 seconds.
"""

import shutil
from random import Random
from typing import Final

import pytest
from generator import pack

from benches import instructions
from exchange.engine import Engine
from exchange.messages import (
    COMMAND_BYTES,
    EVENT,
    EVENT_BYTES,
    CancelReason,
    CombinationRule,
    CommandKind,
    EventKind,
    TimeInForce,
    TradingState,
)
from exchange.sim.flow import START_NS

BUY, SELL = 0, 1
MAKERS: Final = range(1, 17)
ASKER: Final = 17
ORDERS: Final = 20_000  # of the makers, of one lot each, in two months
SPREAD: Final = 2
MID: Final = 2650

pytestmark = pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind")


def opening() -> list[bytes]:
    """Two months of equal hours and their spread, all of them trading; everybody has enough."""
    out = [
        pack(kind, account=number, **fields)
        for number in (*MAKERS, ASKER)
        for kind, fields in (
            (CommandKind.OPEN_ACCOUNT, {"instrument": number, "session": number,
                                        "quantity": 1 << 20, "target_hi": 1}),
            (CommandKind.DEPOSIT, {"price": 1 << 54}),
        )
    ]  # fmt: skip
    out += [
        pack(CommandKind.LIST, instrument=number, price=MID * 1000, quantity=744, session=1000,
             account=1, operator=1, target_lo=2000, target_hi=3300)
        for number in (0, 1)
    ]  # fmt: skip
    out.append(
        pack(CommandKind.LIST_COMBINATION, instrument=SPREAD, tif=CombinationRule.DIFFERENCE,
             target_lo=-500, target_hi=500, key_lo=1 << 16, quantity=1 | 15 << 4)
    )  # fmt: skip
    for number in (0, 1, SPREAD):
        out.append(pack(CommandKind.SET_RISK, instrument=number, quantity=1 << 24, session=1 << 20))
        out.append(pack(CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS))
    return out


def market() -> list[bytes]:
    """The commands that open the market and fill its books around the middle."""
    draw, out = Random(3), opening()
    for key in range(1, ORDERS + 1):
        side = draw.randrange(2)
        away = draw.randint(1, 100)
        out.append(
            pack(CommandKind.ENTER, account=draw.choice(MAKERS), instrument=draw.randrange(2),
                 side=side, price=MID + away if side else MID - away, quantity=1, key_lo=key)
        )  # fmt: skip
    return out


def spent(commands: list[bytes], kind: EventKind, reason: int = 0) -> int:
    """Instructions that the last command takes, whose last event is of this kind and reason."""
    engine, sequence = Engine(), 1
    ready = [b"".join(commands[i : min(i + 1000, len(commands) - 1)])
             for i in range(0, len(commands) - 1, 1000)]  # fmt: skip
    for batch in (*ready, commands[-1]):
        events = engine.apply(batch, sequence, START_NS)
        assert not {row[0] for row in EVENT.iter_unpack(events) if row[2] == EventKind.REJECTED}
        sequence += len(batch) // COMMAND_BYTES
    last = EVENT.unpack(events[-EVENT_BYTES:])
    assert (last[2], last[4]) == (kind, reason)
    return instructions.count(ready, [commands[-1]]).instructions


def test_a_mass_cancel_of_spreads_does_not_walk_the_months() -> None:
    """An order in a spread works in both months, but in no book of theirs."""
    orders = [
        pack(CommandKind.ENTER, account=ASKER, instrument=SPREAD, side=side, price=price,
             quantity=2, key_lo=key)
        for key, (side, price) in enumerate([(BUY, -20), (SELL, 20)], ORDERS + 1)
    ]  # fmt: skip
    cancel = pack(CommandKind.MASS_CANCEL, account=ASKER, side=2)
    reason = CancelReason.MASS_CANCELLED
    assert spent([*market(), *orders, cancel], EventKind.ORDER_CANCELLED, reason) < ORDERS


@pytest.mark.parametrize("minimum", [0, 2 * ORDERS])
def test_too_few_lots_in_the_book_are_told_from_its_levels(minimum: int) -> None:
    """What cannot be filled at once is cancelled without a look at every order."""
    reason = CancelReason.MINIMUM_UNFILLED if minimum else CancelReason.FOK_UNFILLED
    ask = pack(CommandKind.ENTER, account=ASKER, side=BUY, price=3000, quantity=2 * ORDERS,
               tif=TimeInForce.IOC if minimum else TimeInForce.FOK, target_hi=minimum,
               key_lo=ORDERS + 1)  # fmt: skip
    assert spent([*market(), ask], EventKind.ORDER_CANCELLED, reason) < ORDERS
