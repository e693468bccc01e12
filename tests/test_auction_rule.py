"""The rule of an auction's price where the vectors do not go: random calls, negative prices, width.

The compiled rule is held against the oracle's, and both machines against arithmetic of the page.
"""

import os
from pathlib import Path
from random import Random

import pytest
from differences import Machine, decoded, first_difference
from generator import pack
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle
from oracle_auction import Call, clear

from exchange.engine import Engine
from exchange.engine.call import clearing_price
from exchange.messages import (
    COMMAND_BYTES,
    EVENT,
    CommandFlag,
    CommandKind,
    Event,
    EventKind,
    OrderFeature,
    TimeInForce,
    TradingState,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
STAMP = 1_000_000_000_000
CALLED = TradingState.AUCTION
CALLS = 400  # of one drawn seed


def random_call(random: Random) -> Call:
    """Few prices on either side of zero, few lots, so that ties are common."""
    centre = random.choice((-30, 0, 0, 200))
    sides = [
        [(centre + random.randint(-4, 4), random.choice((0, 1, 1, 2, 3, 5))) for _ in range(n)]
        for n in (random.randint(0, 5), random.randint(0, 5))
    ]
    market = [random.choice((0, 0, 0, 1, 3)) for _ in range(2)]
    reference = centre + random.randint(-8, 8)
    band = random.choice((None, None, 0, 37, 500, 2_500, 9_999))
    return Call(sides[0], sides[1], market[0], market[1], reference, random.random() < 0.2, band)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 32))
def test_the_compiled_rule_agrees(seed: int) -> None:
    random = Random(seed)
    for _ in range(CALLS):
        call = random_call(random)
        assert clearing_price(*call) == clear(call), call


class Hall:
    """An instrument of any grid, collecting; account 1 buys and account 2 sells."""

    def __init__(self, machine: Machine, **listing: int) -> None:
        self.machine, self.sequence, self.key = machine, 1, 0
        grid = {"quantity": 1, "session": 1, "account": 1, "operator": 1, **listing}
        for account in (1, 2):
            self.do(
                CommandKind.OPEN_ACCOUNT, account=account, instrument=account, session=account,
                quantity=100, target_hi=1,
            )  # fmt: skip
            self.do(CommandKind.DEPOSIT, account=account, price=1 << 50)
        self.do(CommandKind.LIST, **grid)
        self.do(CommandKind.SET_RISK, quantity=1 << 20, session=1_000)
        self.move(TradingState.AUCTION)

    def do(self, kind: CommandKind, **fields: int) -> list[Event]:
        events = self.machine.apply(pack(kind, **fields), self.sequence, STAMP)
        self.sequence += 1
        told = decoded(events)
        assert told[0].kind != EventKind.REJECTED, told
        return told

    def move(self, state: TradingState) -> list[Event]:
        return self.do(CommandKind.SET_STATE, tif=state)

    def enter(self, side: int, price: int | None, lots: int = 1) -> list[Event]:
        self.key += 1
        terms = {"price": price or 0, "quantity": lots, "key_lo": self.key}
        if price is None:
            terms |= {"flags": CommandFlag.MARKET, "tif": TimeInForce.GFA}
        return self.do(CommandKind.ENTER, side=side, account=1 + side, **terms)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 32))
def test_an_engine_finds_the_price_of_what_it_collected(seed: int) -> None:
    """Limit orders within a few ticks and market orders, the mark among them."""
    random = Random(seed)
    hall = Hall(Engine(), target_lo=-8, target_hi=9)
    for _ in range(60):
        reference = random.randint(-10, 10)
        hall.do(CommandKind.MARK, price=reference)
        sides: list[list[tuple[int, int]]] = [[], []]
        market = [0, 0]
        for _ in range(random.randint(0, 9)):
            side, lots = random.randrange(2), random.choice((1, 1, 2, 3))
            price = None if random.random() < 0.15 else random.randint(-8, 9)
            hall.enter(side, price, lots)
            if price is None:
                market[side] += lots
            else:
                sides[side].append((price, lots))
        (told,) = hall.do(CommandKind.INDICATE)
        moved = max(-8, min(9, reference))
        found = clear(Call(sides[0], sides[1], market[0], market[1], moved))
        expected = (found.price or 0, int(found.price is not None), *found[1:])
        assert (told.price, told.leaves, told.a, told.b) == expected, (sides, market, reference)
        for account in (1, 2):
            hall.do(CommandKind.MASS_CANCEL, account=account, side=2)


@both
def test_a_reference_between_tied_prices_counts_the_orders_there(machine: type[Machine]) -> None:
    """At 10 a buyer is over, at 11 and 12 a seller: of these the mark's, with its own surplus."""
    hall = Hall(machine(), target_hi=20, price=11)
    for side, price in ((0, 10), (0, 12), (1, 10), (1, 11)):
        hall.enter(side, price)
    (told,) = hall.do(CommandKind.INDICATE)
    assert (told.price, told.a, told.b) == (11, 1, -1)


def test_tied_prices_without_a_reference_are_an_error() -> None:
    """Balanced from 1 to 3 there is no telling which; where one price is left none is needed."""
    assert clearing_price([(1, 5)], [(1, 5)], 0, 0) == (1, 5, 0)
    for band in (None, 100):
        with pytest.raises(ValueError, match="reference"):
            clearing_price([(3, 5)], [(1, 5)], 0, 0, band_bp=band)
    with pytest.raises(ValueError, match="reference"):
        clearing_price([(3, 5)], [(3, 1)], 0, 0, band_bp=100)


def nearest(mark: int, unit: int) -> int:
    """The multiple of ``unit`` nearest to a mark, halves up."""
    return (2 * mark + unit) // (2 * unit)


@both
@pytest.mark.parametrize(("scale", "step"), [(1, 1), (2, 1), (1, 4), (10, 3)])
def test_the_reference_is_the_mark_to_the_nearest_step(
    machine: type[Machine], scale: int, step: int
) -> None:
    """With market orders alone it is the price: halves up, on either side of zero, clamped."""
    low, high = -12 * step, 12 * step
    hall = Hall(machine(), session=scale, account=step, target_lo=low, target_hi=high)
    for side in (0, 1):
        hall.enter(side, None)
    unit = scale * step
    for mark in range(-14 * unit, 14 * unit + 1):
        hall.do(CommandKind.MARK, price=mark)
        (told,) = hall.do(CommandKind.INDICATE)
        expected = max(low, min(high, nearest(mark, unit) * step))
        assert (told.price, told.leaves, told.a, told.b) == (expected, 1, 1, 0), mark


@both
@pytest.mark.parametrize("first", [0, 262_143, 262_144, 524_288])
def test_a_ladder_as_wide_as_its_bitset_is_deep(machine: type[Machine], first: int) -> None:
    """Levels more than 64 x 64 x 64 apart are found from each other, collected and trading."""
    hall = Hall(machine(), target_hi=600_000)
    last = 600_000
    for price in (first, last):
        hall.enter(1, price)
    hall.enter(0, last, 2)
    hall.enter(0, first, 1)
    (told,) = hall.do(CommandKind.INDICATE)
    assert (told.price, told.a, told.b) == (last, 2, 0)
    trades = [e for e in hall.move(TradingState.CONTINUOUS) if e.kind == EventKind.TRADE]
    assert [e.quantity for e in trades] == [1, 1]
    assert hall.machine.book(0) == ([(first, 1, 1)], [])
    hall.do(CommandKind.SET_LIMITS, target_lo=0, target_hi=first + 10)
    hall.do(CommandKind.SET_LIMITS, target_lo=0, target_hi=last)  # built again, wider
    hall.enter(0, first + 1)
    swept = hall.enter(1, first, 3)
    assert [e.price for e in swept if e.kind == EventKind.TRADE] == [first + 1, first]
    hall.machine.check()


STATM = Path("/proc/self/statm")


def mapped() -> int:
    """Bytes that are mapped, touched or not."""
    return int(STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not STATM.exists(), reason="no /proc to read memory from")
@pytest.mark.parametrize(("levels", "auctions"), [(4_000_000, 40), (10, 20_000)])
def test_an_auction_gives_back_what_it_took(levels: int, auctions: int) -> None:
    """Its second ladder, the bits of that, and what it knows of itself."""
    hall = Hall(Engine(), target_hi=levels)
    states = [pack(CommandKind.SET_STATE, tif=s) for s in (TradingState.CONTINUOUS, CALLED)]
    batch = b"".join(states) * (auctions // 4)

    def run() -> int:
        hall.machine.apply(batch, hall.sequence, STAMP)
        hall.sequence += auctions // 2
        return mapped()

    first = run()
    assert max(run() for _ in range(3)) - first < 1 << 21


def collected(random: Random, key: int) -> bytes:
    """An order for an auction of prices 0 to 40: any kind that one takes, on four accounts."""
    draw = random.random
    side, price, lots = random.randrange(2), random.randint(10, 30), random.randint(1, 9)
    fields = {"side": side, "account": random.randint(1, 4), "quantity": lots, "key_lo": key}
    fields |= {"stp": random.randrange(4), "tif": random.choice((0, 0, 1, 2, int(TimeInForce.GFA)))}
    if fields["tif"] == TimeInForce.GTD:
        fields["target_lo"] = STAMP + 1_000_000
    if draw() < 0.35:
        return pack(CommandKind.ENTER, flags=CommandFlag.MARKET, **fields)
    if draw() < 0.25:
        market = int(draw() < 0.3)
        fields |= {"tif": random.choice((0, int(TimeInForce.IOC)))}
        fields.pop("target_lo", None)
        limit = 0 if market else random.choice((0, 40, price))
        return pack(
            CommandKind.ENTER, price=limit, flags=market and CommandFlag.MARKET,
            spare=OrderFeature.STOP, target_hi=random.randint(14, 26), **fields,
        )  # fmt: skip
    if draw() < 0.2 and fields["tif"] != TimeInForce.GFA:
        fields |= {"spare": int(OrderFeature.ICEBERG), "target_hi": random.randint(1, lots)}
    return pack(CommandKind.ENTER, price=price, **fields)


def grouped(random: Random, key: int, events: bytes) -> list[bytes]:
    """Orders, each grouped with one that was accepted: on either side, some only to reduce."""
    known = [row for row in EVENT.iter_unpack(events) if row[2] == EventKind.ORDER_ACCEPTED]
    return [
        pack(
            CommandKind.ENTER, account=row[6], target_hi=row[7], key_lo=key + i,
            side=random.randrange(2), quantity=random.randint(1, 9),
            flags=CommandFlag.MARKET if market else 0,
            price=0 if market else random.choice((row[8], random.randint(10, 30))),
            spare=OrderFeature.GROUPED | random.choice((0, 0, OrderFeature.REDUCE_ONLY)),
        )
        for i, row in enumerate(random.sample(known, len(known) // 2))
        for market in (random.random() < 0.2,)
    ]  # fmt: skip


def before_auction(random: Random, key: int) -> bytes:
    """Quotes and a little trading, then orders are collected."""
    quotes = [
        pack(CommandKind.MASS_QUOTE, account=n, price=19, quantity=5, target_lo=21, target_hi=5)
        for n in (2, 3)
    ]
    orders = [collected(random, key + i) for i in range(random.randint(0, 16))]
    called = random.randint(0, 3)
    return b"".join([
        pack(CommandKind.SET_PROTECTION, account=2, quantity=4, target_lo=1 << 40),
        pack(CommandKind.MARK, price=random.randint(12, 28)),
        *quotes, *orders[:called],
        pack(CommandKind.SET_STATE, tif=TradingState.AUCTION),
        *orders[called:],
    ])  # fmt: skip


def whole_auction(random: Random, key: int, events: bytes) -> bytes:
    """Some orders are grouped with those accepted, then the auction is held; all goes."""
    then = random.choice((TradingState.CLOSED, *[None] * 9))
    last = TradingState.CONTINUOUS if then is None else then
    return b"".join([
        *(grouped(random, key, events) if random.random() < 0.7 else []),
        pack(CommandKind.INDICATE),
        pack(CommandKind.SET_STATE, tif=last),
        *([] if then is None else [pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS)]),
        *(pack(CommandKind.MASS_CANCEL, account=n, side=2) for n in range(1, 5)),
    ])  # fmt: skip


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1 << 32))
def test_whole_auctions_agree(seed: int) -> None:
    """Market orders and what is left of them, stops that join, quotes, icebergs, own orders, two
    of a group."""
    random, machines = Random(seed), (Oracle(), Engine())
    opening = [
        pack(CommandKind.LIST, quantity=1, session=1, account=1, operator=1, target_hi=40),
        pack(CommandKind.SET_RISK, price=3, quantity=1 << 20, session=99, target_lo=1, target_hi=2),
        *(
            pack(kind, account=n, instrument=n % 3, session=n % 3, quantity=500, target_hi=1,
                 price=(kind == CommandKind.DEPOSIT) << 40)
            for n in range(1, 5) for kind in (CommandKind.OPEN_ACCOUNT, CommandKind.DEPOSIT)
        ),
        pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS),
    ]  # fmt: skip
    batch, sequence = b"".join(opening), 1
    for number in range(240):
        slow, fast = (machine.apply(batch, sequence, STAMP) for machine in machines)
        assert slow == fast, first_difference(batch, sequence, slow, fast)
        machines[1].check()
        sequence += len(batch) // COMMAND_BYTES
        key = 100 * number + 1
        batch = whole_auction(random, key, fast) if number % 2 else before_auction(random, key)
