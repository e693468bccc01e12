"""With many faults at once a command is rejected for the earliest in the page's order.

A walk starts with every fault and mends one after another; at its end the command passes.
"""

import pytest
from differences import Machine
from generator import pack
from oracle import Oracle
from reject_market import (
    BY_KEY,
    CANCEL_ONLY,
    DATE,
    FILLED,
    HALT,
    NEW,
    WORKING,
    Market,
    assert_rejected,
    cancel,
    deposit,
    enter,
    expire,
    fee,
    list_instrument,
    logon,
    open_account,
    opening,
    reduce,
    renew,
    set_account,
    set_risk,
    set_state,
    settle,
    withdraw,
)

from exchange.engine import Engine
from exchange.messages import (
    COMMAND,
    COMMAND_FIELDS,
    CommandFlag,
    CommandKind,
    Limit,
    OrderFeature,
    Reason,
    TimeInForce,
    TradingState,
)

MONEY, PRICE = int(Limit.MONEY), int(Limit.PRICE)
POST_ONLY, NEW_ID = int(CommandFlag.POST_ONLY), int(CommandFlag.NEW_ID)
IOC, GTD, OPEN = int(TimeInForce.IOC), int(TimeInForce.GTD), int(TradingState.CONTINUOUS)
SECOND = 1_000_000_000

Fix = dict[str, int] | bytes
Walk = tuple[bytes, bytes, list[tuple[Reason, Fix]]]

SPENT = (
    open_account(account=4, quantity=1, target_lo=SECOND)
    + deposit(account=4, price=50, key_lo=2)
    + enter(account=4, key_lo=3)
)
BLOCKED = (
    fee(price=5000, key_lo=9)
    + set_account(account=4, flags=CommandFlag.KILLED, quantity=2)
    + set_risk(quantity=10)
    + CANCEL_ONLY
    + pack(CommandKind.SET_PROTECTIONS, price=5)
)
WAIT = b""  # every attempt waits for a token; a walk waits only from its THROTTLED on
NORMAL = pack(CommandKind.SET_MODE)
FIELDS: list[tuple[Reason, Fix]] = [
    (Reason.CANCEL_ONLY, NORMAL),
    (Reason.THROTTLED, WAIT),
    (Reason.QUANTITY_RANGE, {"quantity": 19}),
    (Reason.ACCOUNT_MAX_QUANTITY, set_account(account=4)),
    (Reason.NOTIONAL, {"price": 1201}),
    (Reason.TICK, {"price": 1200}),
    (Reason.LOT, {"quantity": 20}),
    (Reason.PRICE_LIMIT, {"price": 600}),
    (Reason.PRICE_BAND, pack(CommandKind.SET_PROTECTIONS)),
]
MONEY_IN: list[tuple[Reason, Fix]] = [
    (Reason.POSITION_LIMIT, set_risk(quantity=40)),
    (Reason.MARGIN, deposit(account=4, price=5000, key_lo=10)),
    (Reason.MEMBER_MARGIN, deposit(account=1, price=5000, key_lo=10)),
]
FAULTS = {"account": 99, "session": 77, "stp": 9, "quantity": 21, "price": MONEY + 1}

WALKS: dict[str, Walk] = {
    "enter": (
        SPENT + BLOCKED,
        enter(**FAULTS, key_lo=0, flags=POST_ONLY, tif=IOC, instrument=3),
        [
            (Reason.UNKNOWN_ACCOUNT, {"account": 4}),
            (Reason.SESSION_UNKNOWN, {"session": 0}),
            (Reason.ACCOUNT_KILLED, set_account(account=4, quantity=2)),
            (Reason.SYNTAX, {"stp": 0}),
            (Reason.ID_FORMAT, {"key_lo": 3}),
            (Reason.COMBINATION, {"tif": GTD}),
            (Reason.DUPLICATE_DIFFERENT, {"key_lo": NEW}),
            (Reason.UNKNOWN_INSTRUMENT, {"instrument": 1}),
            (Reason.NOT_TRADING, {"instrument": 0}),
            *FIELDS,
            (Reason.POST_ONLY, {"flags": 0, "target_hi": 99}),
            (Reason.MINIMUM, {"target_hi": 0}),
            (Reason.EXPIRY, {"tif": 0, "spare": OrderFeature.STOP, "target_hi": 7}),
            (Reason.TRIGGER, {"spare": OrderFeature.ICEBERG, "target_hi": 99}),
            (Reason.DISPLAY, {"spare": 0, "target_hi": 0}),
            (Reason.OPEN_ORDERS, cancel(account=4, target_lo=3, key_lo=0)),
            *MONEY_IN,
        ],
    ),
    "replace": (
        SPENT + BLOCKED + HALT,
        renew(**FAULTS, key_lo=0, flags=BY_KEY | NEW_ID | POST_ONLY, target_lo=2, side=1),
        [
            (Reason.UNKNOWN_ACCOUNT, {"account": 4}),
            (Reason.SESSION_UNKNOWN, {"session": 0}),
            (Reason.ACCOUNT_KILLED, set_account(account=4, quantity=2)),
            (Reason.SYNTAX, {"stp": 0}),
            (Reason.ID_FORMAT, {"key_lo": 3}),
            (Reason.DUPLICATE_DIFFERENT, {"key_lo": NEW}),
            (Reason.NOT_FOUND, {"target_lo": 3}),
            (Reason.SIDE_MISMATCH, {"side": 0}),
            (Reason.NOT_TRADING, set_state(OPEN)),
            *FIELDS,
            (Reason.POST_ONLY, {"flags": BY_KEY | NEW_ID}),
            *MONEY_IN,
        ],
    ),
    "reduce": (
        b"",
        reduce(account=99, session=77, flags=POST_ONLY, key_lo=FILLED, target_lo=9, side=1),
        [
            (Reason.UNKNOWN_ACCOUNT, {"account": 1}),
            (Reason.SESSION_UNKNOWN, {"session": 0}),
            (Reason.SYNTAX, {"flags": BY_KEY, "quantity": 0}),
            (Reason.DUPLICATE_DIFFERENT, {"key_lo": NEW}),
            (Reason.NOT_FOUND, {"target_lo": FILLED}),
            (Reason.TOO_LATE, {"target_lo": WORKING}),
            (Reason.SIDE_MISMATCH, {"side": 0}),
            (Reason.QUANTITY_RANGE, {"quantity": 1}),
            (Reason.LOT, {"quantity": 2}),
        ],
    ),
    "withdraw": (
        withdraw(price=740, key_lo=7) + fee(price=100, key_lo=8),
        withdraw(account=99, price=0, tif=1, key_lo=FILLED),
        [
            (Reason.UNKNOWN_ACCOUNT, {"account": 1}),
            (Reason.DUPLICATE_DIFFERENT, {"key_lo": NEW}),
            (Reason.PARAMETER_RANGE, {"price": MONEY}),
            (Reason.ASSET_MISMATCH, {"tif": 0}),
            (Reason.MONEY_RANGE, {"price": 100}),
            (Reason.FUNDS, deposit(price=1000, key_lo=12)),
        ],
    ),
    "settle": (
        pack(CommandKind.CLOSE_DAY, quantity=DATE),
        settle(instrument=9, price=PRICE + 1, quantity=1),
        [
            (Reason.UNKNOWN_INSTRUMENT, {"instrument": 2}),
            (Reason.STATE, {"instrument": 0}),
            (Reason.PARAMETER_RANGE, {"price": 510}),
            (Reason.ALREADY_SETTLED, {"quantity": 2}),
        ],
    ),
    "expire": (
        b"",
        expire(instrument=9, price=PRICE + 1),
        [
            (Reason.UNKNOWN_INSTRUMENT, {"instrument": 2}),
            (Reason.STATE, {"instrument": 0}),
            (Reason.STATE, HALT),
            (Reason.PARAMETER_RANGE, {"price": 510}),
        ],
    ),
    "open account": (
        b"",
        open_account(account=1 << 16, quantity=0),
        [
            (Reason.ACCOUNTS_FULL, {"account": 1}),
            (Reason.ACCOUNT_EXISTS, {"account": 9}),
            (Reason.PARAMETER_RANGE, {"quantity": 1}),
        ],
    ),
    "list": (
        b"",
        list_instrument(instrument=2, quantity=0),
        [(Reason.STATE, {"instrument": 3}), (Reason.PARAMETER_RANGE, {"quantity": 1})],
    ),
    "logon": (
        b"",
        logon(account=99, session=77),
        [
            (Reason.UNKNOWN_ACCOUNT, {"account": 2}),
            (Reason.SESSION_UNKNOWN, {"session": 1 << 16 | 1}),
            (Reason.SESSION_LIVE, {"session": 0}),
        ],
    ),
}


@pytest.mark.parametrize("machine", [Oracle, Engine])
@pytest.mark.parametrize("name", WALKS)
def test_precedence(machine: type[Machine], name: str) -> None:
    """With many faults at once the reject is the earliest one of the table."""
    first, command, faults = WALKS[name]
    market = Market(machine(), opening() + first)
    fields = dict(zip(COMMAND_FIELDS, COMMAND.unpack(command), strict=True))
    throttled = False
    for reason, fix in faults:
        market.stamp += SECOND if throttled else 0
        assert_rejected(market, COMMAND.pack(*fields.values()), reason)
        throttled = throttled or reason is Reason.THROTTLED
        if isinstance(fix, bytes):
            market.must(fix)
        else:
            fields |= fix
    market.stamp += SECOND
    market.must(COMMAND.pack(*fields.values()))
