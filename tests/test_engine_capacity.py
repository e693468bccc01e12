"""Every capacity has a FULL reject: nothing grows beyond it and nothing breaks at it.

The engine alone fills them all; the oracle joins where that takes it a second.
"""

from collections.abc import Iterable

import numpy as np
import pytest
from differences import Machine
from generator import pack
from oracle import Oracle
from packing import COMMAND_ROWS

from exchange.engine import Engine
from exchange.messages import (
    COMMAND_BYTES,
    EVENT,
    EVENT_BYTES,
    INDEX_BITS,
    CommandFlag,
    CommandKind,
    EventKind,
    Limit,
    Mode,
    OrderFeature,
    Reason,
    TimeInForce,
    TradingState,
)

STAMP = 1_000_000_000_000
ORDERS, BOOK_ORDERS = int(Limit.ORDERS), int(Limit.BOOK_ORDERS)
WINDOW = int(Limit.IDEMPOTENCY_WINDOW)


# Neighbours in the order of rejects of which the second is one of these: asked for here, the others
# in test_precedence_pairs.py.
PAIRS = {
    ("enter", Reason.MEMBER_MARGIN, Reason.BOOK_FULL),
    ("enter", Reason.BOOK_FULL, Reason.ORDERS_FULL),
    ("enter", Reason.ORDERS_FULL, Reason.POSITIONS_FULL),
    ("enter", Reason.POSITIONS_FULL, Reason.ICEBERGS_FULL),
    ("enter", Reason.ICEBERGS_FULL, Reason.REDUCING_FULL),
    ("enter", Reason.REDUCING_FULL, Reason.GROUPS_FULL),
    ("replace", Reason.MEMBER_MARGIN, Reason.ORDERS_FULL),
    ("mass cancel", Reason.UNKNOWN_INSTRUMENT, Reason.ORDERS_FULL),
    ("quote", Reason.MEMBER_MARGIN, Reason.BOOK_FULL),
    ("quote", Reason.BOOK_FULL, Reason.ORDERS_FULL),
    ("quote", Reason.ORDERS_FULL, Reason.POSITIONS_FULL),
    ("protect", Reason.PARAMETER_RANGE, Reason.PROTECTIONS_FULL),
}


class Bulk:
    """A machine that is fed many commands at once and tells the rejects among their answers."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.sequence = machine, 1

    def do(self, *commands: bytes) -> list[tuple[Reason, int, int]]:
        """Rejects as (reason, a, b)."""
        batch = b"".join(commands)
        events = self.machine.apply(batch, self.sequence, STAMP)
        self.sequence += len(batch) // COMMAND_BYTES
        kinds = np.frombuffer(events, "u1")[12::EVENT_BYTES]
        return [
            (Reason(event[4]), event[13], event[14])
            for at in np.flatnonzero(kinds == EventKind.REJECTED)
            for event in [EVENT.unpack_from(events, int(at) * EVENT_BYTES)]
        ]

    def many(
        self, kind: CommandKind, count: int, **fields: object
    ) -> list[tuple[Reason, int, int]]:
        """``count`` commands; a field is one number or an array of them."""
        rejects = []
        batch = np.zeros(count, COMMAND_ROWS)
        batch["kind"] = kind
        for name, values in fields.items():
            batch[name] = values
        for start in range(0, count, 1 << 16):
            rejects += self.do(batch[start : start + (1 << 16)].tobytes())
        return rejects


def trading(numbers: Iterable[int]) -> list[bytes]:
    """Instruments with a free margin and ten price levels, open."""
    listing = {"price": 5, "quantity": 1, "session": 1, "account": 1, "operator": 1}
    out = []
    for number in numbers:
        out += [
            pack(CommandKind.LIST, instrument=number, target_lo=1, target_hi=10, **listing),
            pack(CommandKind.SET_RISK, instrument=number, quantity=1 << 30, session=100),
            pack(CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS),
        ]
    return out


def assert_money_comes_first(bulk: Bulk) -> None:
    """Account 1 without money is told so, and what its member lacks, before it is told of the book
    or of slots."""
    dear = {"account": 1, "price": 10, "quantity": 1, "key_lo": 1}
    named = {"side": 2, "flags": int(CommandFlag.BY_CLIENT_ID), "target_lo": 7}
    asked = [
        (pack(CommandKind.ENTER, instrument=1, **dear), Reason.BOOK_FULL),
        (pack(CommandKind.MASS_QUOTE, instrument=1, **dear), Reason.BOOK_FULL),
        (pack(CommandKind.REPLACE, **dear, **named), Reason.ORDERS_FULL),
    ]
    assert bulk.do(pack(CommandKind.FEE, account=2, price=9)) == []
    expected = [Reason.MARGIN] * len(asked)
    assert [bulk.do(wish)[0][0] for wish, _ in asked] == expected
    assert bulk.do(pack(CommandKind.DEPOSIT, account=1, price=5)) == []
    expected = [Reason.MEMBER_MARGIN] * len(asked)
    assert [bulk.do(wish)[0][0] for wish, _ in asked] == expected
    assert bulk.do(pack(CommandKind.DEPOSIT, account=2, price=9)) == []
    assert [bulk.do(wish)[0][0] for wish, _ in asked] == [reason for _, reason in asked]


def assert_what_has_ended_makes_room(bulk: Bulk) -> None:
    """Account 3 forgets its oldest id, a request's, for each new one: no kind of order and no
    request needs a slot more."""
    own = {"account": 3, "price": 3, "quantity": 1}
    named = {"account": 3, "side": 2, "flags": int(CommandFlag.BY_CLIENT_ID), "target_lo": 1 << 41}
    later = {"tif": int(TimeInForce.GTD), "target_lo": STAMP + 1}
    wishes = [
        pack(CommandKind.ENTER, instrument=2, key_lo=1 << 41, **own),
        pack(CommandKind.REDUCE, key_lo=(1 << 41) + 1, quantity=1, **named),
        pack(CommandKind.ENTER, instrument=2, key_lo=(1 << 41) + 2, **later, **own),
        pack(CommandKind.RECORD, account=3, key_lo=(1 << 41) + 3),
        pack(CommandKind.DEPOSIT, account=3, price=1, key_lo=(1 << 41) + 4),
        pack(CommandKind.MASS_QUOTE, account=3, instrument=2, key_lo=(1 << 41) + 5),
        pack(CommandKind.MASS_CANCEL, account=3, side=2, key_lo=(1 << 41) + 6),
    ]
    for wish in wishes:
        assert bulk.do(wish) == []
    quote = pack(CommandKind.MASS_QUOTE, instrument=2, key_lo=(1 << 41) + 7, **own)
    assert bulk.do(quote) == [(Reason.ORDERS_FULL, ORDERS, ORDERS)]  # a side has no id to forget


def assert_auctions_come_one_by_one(bulk: Bulk) -> None:
    """Those that waited for a market to be more than cancel-only, if they are too large for one
    command: an index counts no more events."""
    states = [
        pack(CommandKind.SET_STATE, instrument=instrument, tif=state)
        for state in (TradingState.AUCTION, TradingState.CONTINUOUS)
        for instrument in range(2)
    ]
    assert bulk.do(pack(CommandKind.SET_MODE, tif=Mode.CANCEL_ONLY), *states) == []
    normal = pack(CommandKind.SET_MODE)
    (full,) = bulk.do(normal)
    assert full == (Reason.BOOK_FULL, BOOK_ORDERS, 2 * BOOK_ORDERS - 1)
    assert bulk.do(pack(CommandKind.SET_STATE, tif=TradingState.HALTED), normal, states[2]) == []


def test_orders_and_a_book() -> None:
    """One instrument is full at a million orders, the market at the slots of its slab."""
    bulk = Bulk(Engine())
    assert bulk.do(*trading(range(3))) == []
    poor = [
        pack(CommandKind.OPEN_ACCOUNT, account=n, instrument=1, quantity=9, target_hi=1)
        for n in (1, 2, 3)
    ]
    poor += [pack(CommandKind.RECORD, account=3, key_lo=n) for n in range(1, WINDOW + 1)]
    own = {"account": 1, "price": 3, "quantity": 1}
    deposit = pack(CommandKind.DEPOSIT, price=1 << 40)
    assert bulk.do(*poor, deposit, pack(CommandKind.ENTER, instrument=2, key_lo=7, **own)) == []
    full = 0
    for instrument in range(2):
        keys = np.arange(BOOK_ORDERS, dtype="u8") + 1 + full
        fields = {"instrument": instrument, "price": 3, "quantity": 1, "key_lo": keys}
        assert bulk.many(CommandKind.ENTER, BOOK_ORDERS, **fields) == []
        full += BOOK_ORDERS
        one_more = pack(
            CommandKind.ENTER, instrument=instrument, price=3, quantity=1, key_lo=1 << 40
        )
        assert bulk.do(one_more) == [(Reason.BOOK_FULL, BOOK_ORDERS, BOOK_ORDERS)]
    rest = ORDERS - 2 - full - WINDOW  # slot 0 is no order
    keys = np.arange(rest, dtype="u8") + 1 + full
    fields = {"instrument": 2, "price": 3, "quantity": 1, "key_lo": keys}
    assert bulk.many(CommandKind.ENTER, rest, **fields) == []
    assert bulk.do(pack(CommandKind.LOGON)) == []
    before = bulk.machine.state_bytes(buckets=False)
    last = {"side": 2, "flags": int(CommandFlag.BY_CLIENT_ID), "target_lo": full + rest}
    quote = {"price": 3, "quantity": 1, "key_lo": 1 << 40}
    asked = [
        (CommandKind.ENTER, {"instrument": 2, "price": 3, "quantity": 1}),
        (CommandKind.CANCEL, last),
        (CommandKind.REDUCE, {"quantity": 1, **last}),
        (CommandKind.REPLACE, {"quantity": 1, "price": 4, **last}),
    ]
    wishes = [
        *[  # of nobody's session, and of one
            pack(kind, key_lo=1 << 40, session=session, **fields)
            for session in (0, 1 << 16 | 1)
            for kind, fields in asked
        ],
        pack(CommandKind.MASS_CANCEL, key_lo=1 << 40, side=2),
        pack(CommandKind.MASS_QUOTE, instrument=2, **quote),
        pack(CommandKind.DEPOSIT, key_lo=1 << 40, price=1),
        pack(CommandKind.WITHDRAW, key_lo=1 << 40, price=1),
        pack(CommandKind.FEE, key_lo=1 << 40, price=1),
        pack(CommandKind.RECORD, key_lo=1 << 40),
    ]
    for wish in wishes:
        assert bulk.do(wish) == [(Reason.ORDERS_FULL, ORDERS, ORDERS)]
    # what comes before it in the order of rejects
    full_book = pack(CommandKind.ENTER, instrument=1, price=3, quantity=1, key_lo=1 << 40)
    assert bulk.do(full_book) == [(Reason.BOOK_FULL, BOOK_ORDERS, BOOK_ORDERS)]
    full_book = pack(CommandKind.MASS_QUOTE, instrument=1, **quote)
    assert bulk.do(full_book) == [(Reason.BOOK_FULL, BOOK_ORDERS, BOOK_ORDERS)]
    unknown = pack(CommandKind.MASS_CANCEL, key_lo=1 << 40, side=2, tif=1, instrument=9)
    assert bulk.do(unknown) == [(Reason.UNKNOWN_INSTRUMENT, 3, 9)]
    assert bulk.machine.state_bytes(buckets=False) == before
    assert_money_comes_first(bulk)
    assert_what_has_ended_makes_room(bulk)
    # without a request id a cancel needs no slot; the newest order's id is still in the window
    assert bulk.do(pack(CommandKind.CANCEL, **last)) == []
    first = {**last, "target_lo": 1}  # it has left the window: its slot is free at once
    assert bulk.do(pack(CommandKind.CANCEL, **first)) == []
    assert bulk.do(wishes[0]) == []
    assert_auctions_come_one_by_one(bulk)
    bulk.machine.check()


def assert_expiry_makes_room(bulk: Bulk, accounts: int, instruments: int) -> None:
    """A full market in which every account trades every month goes on, month by month: each that
    expires makes room for one that is listed, and for no account more."""
    full = [(Reason.POSITIONS_FULL, int(Limit.POSITIONS), int(Limit.POSITIONS))]
    fields = {"price": 3, "quantity": 1}
    one_more = pack(CommandKind.ENTER, instrument=instruments, key_lo=1 << 39, **fields)
    for cycle in range(3):
        oldest, newest = 3 + cycle, instruments + 1 + cycle
        halt = pack(CommandKind.SET_STATE, instrument=oldest, tif=TradingState.HALTED)
        assert bulk.do(*trading([newest]), one_more) == full
        expire = pack(CommandKind.EXPIRE, instrument=oldest, price=5)
        assert bulk.do(halt, expire) == []
        assert bulk.machine.counts()["positions"] == Limit.POSITIONS - 1 - accounts
        keys = {"account": np.arange(accounts), "key_lo": (1 << 39) + newest}
        assert bulk.many(CommandKind.ENTER, accounts, instrument=newest, **keys, **fields) == []
    assert bulk.do(one_more) == full


def test_positions() -> None:
    """As many (account, instrument) pairs as there may be, and one more: record 0 is none."""
    bulk = Bulk(Engine())
    pairs = int(Limit.POSITIONS)
    accounts, instruments = 1 << 15, pairs >> 15
    assert bulk.do(*trading(range(instruments + 1))) == []
    numbers = np.arange(1, accounts, dtype="u4")
    opening = {"account": numbers, "quantity": 100, "target_hi": 1, "session": numbers}
    assert bulk.many(CommandKind.OPEN_ACCOUNT, accounts - 1, **opening) == []
    assert bulk.do(pack(CommandKind.DEPOSIT, price=1 << 40)) == []
    rejects = []
    for instrument in range(instruments):
        fields = {"account": np.arange(accounts), "instrument": instrument, "price": 3}
        fields |= {"quantity": 1, "key_lo": instrument + 1}
        rejects += bulk.many(CommandKind.ENTER, accounts, **fields)
    assert rejects == [(Reason.POSITIONS_FULL, pairs, pairs)]
    wish = pack(CommandKind.ENTER, instrument=instruments, price=3, quantity=1, key_lo=1 << 40)
    assert bulk.do(wish) == [(Reason.POSITIONS_FULL, pairs, pairs)]
    known = pack(CommandKind.ENTER, instrument=0, price=3, quantity=1, key_lo=1 << 40)
    assert bulk.do(known) == []
    assert_expiry_makes_room(bulk, accounts, instruments)
    # the last account has no record in the last instrument, which has all the icebergs it may
    last = {"instrument": instruments - 1, "price": 3, "spare": int(OrderFeature.ICEBERG)}
    last |= {"quantity": 2, "target_hi": 1}
    most = int(Limit.ICEBERGS)
    icebergs = {**last, "account": np.arange(most), "key_lo": 1 << 41}
    assert bulk.many(CommandKind.ENTER, most, **icebergs) == []
    for account, reason in ((accounts - 1, Reason.POSITIONS_FULL), (0, Reason.ICEBERGS_FULL)):
        wish = pack(CommandKind.ENTER, account=account, key_lo=1 << 42, **last)
        assert bulk.do(wish)[0][0] == reason
    # with every slot taken as well, slots are named first
    for place, instrument in enumerate((0, 1, 2, 0)):  # some take over slots of ended orders
        count = min(ORDERS - bulk.machine.counts()["slots"] - 1, BOOK_ORDERS // 2)
        keys = np.arange(count, dtype="u8") + (1 << 43) + place * BOOK_ORDERS
        fields = {"instrument": instrument, "price": 3, "quantity": 1, "key_lo": keys}
        assert bulk.many(CommandKind.ENTER, count, **fields) == []
    unheld = {"account": accounts - 1, "instrument": instruments - 1, "price": 3, "quantity": 1}
    unheld["key_lo"] = 1 << 42
    both = [pack(kind, **unheld) for kind in (CommandKind.ENTER, CommandKind.MASS_QUOTE)]
    assert [bulk.do(wish)[0][0] for wish in both] == [Reason.ORDERS_FULL] * 2
    for key in range(3):  # those whose ids have left the window: an order, a quote, its receipt
        gone = {"side": 2, "flags": int(CommandFlag.BY_CLIENT_ID), "target_lo": (1 << 43) + key}
        assert bulk.do(pack(CommandKind.CANCEL, **gone)) == []
    assert [bulk.do(wish)[0][0] for wish in both] == [Reason.POSITIONS_FULL] * 2
    bulk.machine.check()


@pytest.mark.parametrize("machine", [Oracle, Engine])
def test_protections(machine: type[Machine]) -> None:
    """Of one account as many as it may have; what is out of range is told first, one that is there
    may be changed, and every other account still has its own share."""
    bulk, most, accounts = Bulk(machine()), int(Limit.PROTECTIONS), int(Limit.ACCOUNTS)
    fields = {"quantity": 1, "target_lo": 1}
    products = np.arange(most, dtype="u4")
    assert bulk.many(CommandKind.SET_PROTECTION, most, instrument=products, **fields) == []
    one_more = {"instrument": most, **fields}
    refused = bulk.do(pack(CommandKind.SET_PROTECTION, **{**one_more, "target_lo": 0}))
    assert refused[0][0] == Reason.PARAMETER_RANGE
    full = bulk.do(pack(CommandKind.SET_PROTECTION, **one_more))
    assert full == [(Reason.PROTECTIONS_FULL, most, most)]
    assert bulk.do(pack(CommandKind.SET_PROTECTION, **{**one_more, "instrument": 0})) == []
    opening = {"account": np.arange(1, accounts, dtype="u4"), "quantity": 1, "target_hi": 1}
    assert bulk.many(CommandKind.OPEN_ACCOUNT, accounts - 1, **opening) == []
    if machine is Engine:  # all that there may be of all accounts; the oracle keeps them one by one
        places = np.arange(most * (accounts - 1), dtype="u4")
        drawn = {"account": 1 + places // most, "instrument": places % most, **fields}
        assert bulk.many(CommandKind.SET_PROTECTION, len(places), **drawn) == []
    last = {"account": accounts - 1, "instrument": 0, **fields}
    assert bulk.do(pack(CommandKind.SET_PROTECTION, **last)) == []
    bulk.machine.check()


@pytest.mark.parametrize("machine", [Oracle, Engine])
def test_sessions(machine: type[Machine]) -> None:
    """Slots 1 to 65535; one that ended is used again, the one that ended longest ago first."""
    bulk, capacity = Bulk(machine()), int(Limit.SESSIONS)
    assert bulk.many(CommandKind.LOGON, capacity - 1) == []
    full = [(Reason.SESSIONS_FULL, capacity, capacity)]
    assert bulk.do(pack(CommandKind.LOGON)) == full
    for slot in (7, 5):
        assert bulk.do(pack(CommandKind.LOGOFF, session=1 << 16 | slot)) == []
    opened = []
    for _ in range(2):
        events = bulk.machine.apply(pack(CommandKind.LOGON), bulk.sequence, STAMP)
        bulk.sequence += 1
        opened.append(EVENT.unpack(events)[7])
    assert opened == [2 << 16 | 7, 2 << 16 | 5]
    assert bulk.do(pack(CommandKind.LOGON)) == full
    bulk.machine.check()


@pytest.mark.parametrize("machine", [Oracle, Engine])
def test_instruments(machine: type[Machine]) -> None:
    bulk, capacity = Bulk(machine()), int(Limit.INSTRUMENTS)
    listing = {"quantity": 1, "session": 1, "account": 1, "operator": 1}
    numbers = np.arange(capacity, dtype="u4")
    assert bulk.many(CommandKind.LIST, capacity, instrument=numbers, **listing) == []
    one_more = pack(CommandKind.LIST, instrument=capacity, **listing)
    assert bulk.do(one_more) == [(Reason.INSTRUMENTS_FULL, capacity, capacity)]
    bulk.machine.check()


@pytest.mark.parametrize("machine", [Oracle, Engine])
def test_accounts(machine: type[Machine]) -> None:
    bulk, capacity = Bulk(machine()), int(Limit.ACCOUNTS)
    numbers = np.arange(1, capacity, dtype="u4")
    opening = {"account": numbers, "quantity": 1, "target_hi": 1}
    assert bulk.many(CommandKind.OPEN_ACCOUNT, capacity - 1, **opening) == []
    one_more = pack(CommandKind.OPEN_ACCOUNT, account=capacity, quantity=1, target_hi=1)
    assert bulk.do(one_more) == [(Reason.ACCOUNTS_FULL, capacity, capacity)]
    assert bulk.machine.counts()["accounts"] == capacity
    bulk.machine.check()


@pytest.mark.parametrize("machine", [Oracle, Engine])
def test_a_session_slot_used_65535_times(machine: type[Machine]) -> None:
    """Its generation starts again at 1: zero is skipped."""
    bulk = Bulk(machine())
    batch = np.zeros(2 * 0xFFFF, COMMAND_ROWS)
    batch["kind"][::2] = CommandKind.LOGON
    batch["kind"][1::2] = CommandKind.LOGOFF
    batch["session"][1::2] = np.arange(1, 0x10000, dtype="u4") << 16 | 1
    for start in range(0, len(batch), 1 << 16):
        assert bulk.do(batch[start : start + (1 << 16)].tobytes()) == []
    events = bulk.machine.apply(pack(CommandKind.LOGON), bulk.sequence, STAMP)
    assert EVENT.unpack(events)[7] == 1 << 16 | 1


def test_an_auction_is_no_larger_than_an_index_counts() -> None:
    """Each order that may trade can be elected, trade, and be the last of its level."""
    bulk, most = Bulk(Engine()), BOOK_ORDERS // 3
    half = most // 2 + 1
    listing = {"price": 1 << 19, "quantity": 1, "session": 1, "account": 1, "operator": 1}
    states = {
        state: pack(CommandKind.SET_STATE, tif=state)
        for state in (TradingState.PRE_OPEN, TradingState.CONTINUOUS)
    }
    assert not bulk.do(
        pack(CommandKind.LIST, target_lo=1, target_hi=1 << 20, **listing),
        pack(CommandKind.SET_RISK, quantity=1 << 30, session=100),
        pack(CommandKind.OPEN_ACCOUNT, account=1, instrument=1, session=1, quantity=1 << 20,
             target_hi=1),
        *(pack(CommandKind.DEPOSIT, account=n, price=1 << 50) for n in (0, 1)),
        states[TradingState.PRE_OPEN],
    )  # fmt: skip
    for side in (0, 1):  # every order at a price of its own, and all of them cross
        prices = (1 << 19) + np.arange(half) * (1 - 2 * side)
        keys = np.arange(half, dtype="u8") + 1
        fields = {"account": side, "side": side, "price": prices, "quantity": 1, "key_lo": keys}
        assert bulk.many(CommandKind.ENTER, half, **fields) == []
    before = bulk.machine.state_bytes()
    size = 3 * 2 * half
    assert size > BOOK_ORDERS
    full = (Reason.BOOK_FULL, BOOK_ORDERS, size)
    assert bulk.do(states[TradingState.CONTINUOUS]) == [full]
    assert bulk.machine.state_bytes() == before
    cancel_only = pack(CommandKind.SET_MODE, tif=Mode.CANCEL_ONLY)
    assert bulk.do(cancel_only, states[TradingState.CONTINUOUS]) == []
    assert bulk.do(pack(CommandKind.SET_MODE)) == [full]
    named = {"side": 2, "flags": int(CommandFlag.BY_CLIENT_ID), "target_lo": 1}
    assert bulk.do(pack(CommandKind.CANCEL, **named)) == []
    events = bulk.machine.apply(pack(CommandKind.SET_MODE), bulk.sequence, STAMP)
    traded = [e[1] for e in EVENT.iter_unpack(events) if e[2] == EventKind.TRADE]
    assert len(traded) > half - 3
    assert max(traded) < 1 << INDEX_BITS


def spread_of(legs: int) -> list[bytes]:
    """A strip of so many months, the instruments from 0 on, all open; it is the last."""
    numbers = sum(leg << 16 * leg for leg in range(legs))
    ratios = sum(1 << 4 * leg for leg in range(legs))
    return [
        *trading(range(legs)),
        pack(CommandKind.LIST_COMBINATION, instrument=legs, tif=1, target_lo=1, target_hi=10,
             key_lo=numbers & (1 << 64) - 1, key_hi=numbers >> 64 & (1 << 64) - 1,
             price=numbers >> 128, quantity=ratios & (1 << 32) - 1, session=ratios >> 32),
        pack(CommandKind.SET_RISK, instrument=legs, quantity=1 << 30, session=1 << 20),
        pack(CommandKind.SET_STATE, instrument=legs, tif=TradingState.CONTINUOUS),
    ]  # fmt: skip


def trade_indexes(events: bytes) -> list[int]:
    """The indexes of the TRADE events, and of the last event."""
    rows = np.frombuffer(events, "u1").reshape(-1, EVENT_BYTES)
    return [*np.flatnonzero(rows[:, 12] == EventKind.TRADE).tolist(), len(rows) - 1]


@pytest.mark.parametrize("legs", [2, 12])
def test_a_combination_has_no_more_orders_than_an_index_counts(legs: int) -> None:
    """Each trade of one is a trade of every leg, too."""
    bulk, most = Bulk(Engine()), BOOK_ORDERS // (legs + 3)
    rich = [
        pack(CommandKind.OPEN_ACCOUNT, account=1, instrument=1, session=1, quantity=9,
             target_hi=1),
        *(pack(CommandKind.DEPOSIT, account=n, price=1 << 50) for n in (0, 1)),
    ]  # fmt: skip
    assert bulk.do(*rich, *spread_of(legs)) == []
    keys = np.arange(most, dtype="u8") + 1
    fields = {"instrument": legs, "price": 5, "quantity": 1}
    assert bulk.many(CommandKind.ENTER, most, key_lo=keys, **fields) == []
    before = bulk.machine.state_bytes()
    one_more = pack(CommandKind.ENTER, key_lo=most + 1, **fields)
    assert bulk.do(one_more) == [(Reason.BOOK_FULL, most, most)]
    assert bulk.machine.state_bytes() == before
    named = {"side": 2, "flags": int(CommandFlag.BY_CLIENT_ID), "target_lo": 1}
    assert bulk.do(pack(CommandKind.CANCEL, **named)) == []
    sweep = pack(CommandKind.ENTER, account=1, side=1, instrument=legs, price=5, quantity=most,
                 key_lo=1)  # fmt: skip
    events = bulk.machine.apply(sweep, bulk.sequence, STAMP)
    *traded, last = trade_indexes(events)
    assert len(traded) == most - 1
    assert last < 1 << INDEX_BITS


def test_no_more_orders_return_than_an_index_counts() -> None:
    """A dormant order may return and trade."""
    bulk, half = Bulk(Engine()), BOOK_ORDERS // 4 + 1

    def limits(low: int, high: int) -> bytes:
        return pack(CommandKind.SET_LIMITS, target_lo=low, target_hi=high)

    def state(wanted: TradingState) -> bytes:
        return pack(CommandKind.SET_STATE, tif=wanted)

    assert bulk.do(
        *trading(range(1)),
        pack(CommandKind.OPEN_ACCOUNT, account=1, instrument=1, session=1, quantity=1 << 20,
             target_hi=1),
        *(pack(CommandKind.DEPOSIT, account=n, price=1 << 50) for n in (0, 1)),
    ) == []  # fmt: skip
    keys = np.arange(half, dtype="u8") + 1
    for side, price in ((0, 8), (1, 4)):  # each enters while the other is dormant
        fields = {"account": side, "side": side, "price": price, "quantity": 1, "key_lo": keys}
        assert bulk.many(CommandKind.ENTER, half, **fields) == []
        assert bulk.do(limits(1, 6 - 5 * side)) == []
    before = bulk.machine.state_bytes()
    full = (Reason.BOOK_FULL, BOOK_ORDERS, 4 * half)
    assert bulk.do(limits(1, 10)) == [full]
    assert bulk.machine.state_bytes() == before
    assert bulk.do(state(TradingState.HALTED), limits(1, 10)) == []
    assert bulk.do(state(TradingState.CONTINUOUS)) == [full]
    cancel_only = pack(CommandKind.SET_MODE, tif=Mode.CANCEL_ONLY)
    assert bulk.do(cancel_only, state(TradingState.CONTINUOUS)) == []
    assert bulk.do(pack(CommandKind.SET_MODE)) == [full]
    named = {"side": 2, "flags": int(CommandFlag.BY_CLIENT_ID)}
    for key in (1, 2, 3):
        assert bulk.do(pack(CommandKind.CANCEL, target_lo=key, **named)) == []
    events = bulk.machine.apply(pack(CommandKind.SET_MODE), bulk.sequence, STAMP)
    *traded, last = trade_indexes(events)
    assert len(traded) == half - 3
    assert last < 1 << INDEX_BITS
