"""A small market in which every guard can be made to fail, and commands that would pass in it.

Instrument 0 trades (step 5, lots of 2, limits 0 to 1000, mark 500, rate 10, position limit 40, at
most 20 lots); 1 is closed; 2 has expired. Account 1 (cash 800, at most 3 orders) is long 2 lots
and bids for 4 at 300; account 2 is rich, bids at 400 and offers at 600. Fees are zero.
"""

from differences import Machine, event_in_words, events_of
from generator import pack

from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    COMMAND_FIELDS,
    EVENT,
    EVENT_BYTES,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Reason,
    Side,
    TimeInForce,
    TradingState,
)

STAMP = 1_000_000_000_000
DATE = 20261121
BY_KEY = CommandFlag.BY_CLIENT_ID

WORKING, FILLED, CANCELLED, RECEIPT = 60, 61, 62, 63  # keys of account 1
OFFER, BID = 50, 51  # keys of account 2
NEW = 900  # a key that nobody has used


def enter(**changes: int) -> bytes:
    fields = {"account": 1, "price": 300, "quantity": 4, "key_lo": NEW, **changes}
    return pack(CommandKind.ENTER, **fields)


def naming(kind: CommandKind, **changes: int) -> bytes:
    """A command of account 1 that names its working order."""
    fields = {"account": 1, "side": int(Side.UNSTATED), "flags": int(BY_KEY)}
    return pack(kind, **{**fields, "target_lo": WORKING, "key_lo": NEW, **changes})


def cancel(**changes: int) -> bytes:
    return naming(CommandKind.CANCEL, **changes)


def reduce(**changes: int) -> bytes:
    return naming(CommandKind.REDUCE, **{"quantity": 2, **changes})


def replace(**changes: int) -> bytes:
    return naming(CommandKind.REPLACE, **{"price": 305, "quantity": 6, **changes})


def renew(**changes: int) -> bytes:
    return replace(**{"flags": BY_KEY | CommandFlag.NEW_ID, **changes})


def logon(**changes: int) -> bytes:
    return pack(CommandKind.LOGON, **{"account": 1, "quantity": 1000, **changes})


def logoff(**changes: int) -> bytes:
    return pack(CommandKind.LOGOFF, **{"account": 1, "session": 1 << 16 | 1, **changes})


def list_instrument(**changes: int) -> bytes:
    fields = {"instrument": 3, "price": 500, "quantity": 1, "session": 1, "account": 5}
    fields |= {"operator": 2, "target_lo": 0, "target_hi": 1000}
    return pack(CommandKind.LIST, **{**fields, **changes})


def set_limits(**changes: int) -> bytes:
    return pack(CommandKind.SET_LIMITS, **{"target_lo": 100, "target_hi": 900, **changes})


def set_risk(**changes: int) -> bytes:
    fields = {"price": 10, "quantity": 40, "session": 20}
    return pack(CommandKind.SET_RISK, **{**fields, **changes})


def set_state(state: int, **changes: int) -> bytes:
    return pack(CommandKind.SET_STATE, **{"tif": state, **changes})


def mark(**changes: int) -> bytes:
    return pack(CommandKind.MARK, **{"price": 510, **changes})


def settle(**changes: int) -> bytes:
    return pack(CommandKind.SETTLE, **{"price": 510, "quantity": 2, **changes})


def expire(**changes: int) -> bytes:
    return pack(CommandKind.EXPIRE, **{"instrument": 1, "price": 510, **changes})


def open_account(**changes: int) -> bytes:
    fields = {"account": 9, "instrument": 1, "session": 9, "tif": 1, "quantity": 3}
    return pack(CommandKind.OPEN_ACCOUNT, **{**fields, "target_hi": 1, **changes})


def deposit(**changes: int) -> bytes:
    return pack(CommandKind.DEPOSIT, **{"account": 1, "price": 100, "key_lo": NEW, **changes})


def withdraw(**changes: int) -> bytes:
    return pack(CommandKind.WITHDRAW, **{"account": 1, "price": 100, "key_lo": NEW, **changes})


def fee(**changes: int) -> bytes:
    return pack(CommandKind.FEE, **{"account": 1, "price": 100, "key_lo": NEW, **changes})


def record(**changes: int) -> bytes:
    return pack(CommandKind.RECORD, **{"account": 1, "key_lo": NEW, **changes})


def set_account(**changes: int) -> bytes:
    return pack(CommandKind.SET_ACCOUNT, **{"account": 1, **changes})


KILL = set_account(flags=CommandFlag.KILLED)
HALT = set_state(TradingState.HALTED)
CANCEL_ONLY = pack(CommandKind.SET_MODE, tif=1)


def opening() -> bytes:
    """The commands that make the market."""
    ioc, trading = TimeInForce.IOC, TradingState.CONTINUOUS
    rich = {"account": 2, "instrument": 2, "session": 2, "quantity": 1000}
    out = [
        open_account(account=1, session=1),
        open_account(**rich),
        deposit(account=1, price=1000, key_lo=1),
        deposit(account=2, price=1_000_000, key_lo=1),
    ]
    for number in range(3):
        out += [list_instrument(instrument=number), set_risk(instrument=number)]
    out += [
        expire(instrument=2),
        set_state(trading),
        pack(CommandKind.OPEN_DAY, quantity=DATE),
        enter(account=2, side=1, price=600, quantity=8, key_lo=OFFER),
        enter(account=2, price=400, quantity=8, key_lo=BID),
        enter(price=600, quantity=2, tif=ioc, key_lo=FILLED),
        enter(key_lo=WORKING),
        enter(key_lo=CANCELLED),
        cancel(target_lo=CANCELLED, key_lo=RECEIPT),
        settle(price=500, quantity=1),
        logon(account=2),
        logon(account=1),
        logoff(account=1, session=1 << 16 | 2),
    ]
    return b"".join(out)


class Market:
    """A machine in the small market, with its sequence."""

    def __init__(self, machine: Machine, commands: bytes) -> None:
        self.machine, self.sequence, self.stamp = machine, 1, STAMP
        self.must(commands)

    def apply(self, commands: bytes) -> bytes:
        events = self.machine.apply(commands, self.sequence, self.stamp)
        self.sequence += len(commands) // COMMAND_BYTES
        return events

    def must(self, commands: bytes) -> None:
        """Commands of which none may be rejected."""
        if commands:
            events = events_of(self.apply(commands))
            rejects = [event_in_words(event) for event in events if event[12] == EventKind.REJECTED]
            assert not rejects, rejects


def assert_rejected(market: Market, command: bytes, reason: Reason) -> tuple[int, int]:
    """One event that repeats the command, and the state as before; gives ``a`` and ``b``."""
    before = market.machine.state_bytes(buckets=False)
    events = market.apply(command)
    words = "; ".join(map(event_in_words, events_of(events)))
    assert market.machine.state_bytes(buckets=False) == before, f"{words} changed the state"
    assert len(events) == EVENT_BYTES, words
    c = dict(zip(COMMAND_FIELDS, COMMAND.unpack(command), strict=True))
    named = CommandKind.CANCEL <= c["kind"] <= CommandKind.REPLACE and not c["flags"] & BY_KEY
    _, index, kind, flags, why, *rest, a, b = EVENT.unpack(events)
    assert (index, kind, why) == (0, EventKind.REJECTED, reason), words
    assert flags == EventFlag.LAST_IN_COMMAND | (EventFlag.SELL if c["side"] == 1 else 0)
    assert rest == [
        c["instrument"],
        c["account"],
        c["target_lo"] if named else 0,
        c["price"],
        c["quantity"],
        0,
        c["key_lo"],
        c["key_hi"],
    ], words
    return a, b
