"""What ``bench features`` prepares in a market before the flow."""

from collections.abc import Iterable
from typing import Final

import msgspec

from benches.feature_flows import FLOW_ACCOUNTS, Before, Market
from exchange.messages import (
    Breaker,
    Command,
    CommandKind,
    Limit,
    OrderFeature,
    Side,
    TradingState,
)

STOPS: Final = 1_000
MONTHS: Final = 24  # of a curve
SPREADS: Final = range(MONTHS, MONTHS + Limit.LEG_SPREADS)
LOTS: Final = 1_000_000
SECOND_NS: Final = 10**9
OF_A_MONTH: Final = (CommandKind.LIST, CommandKind.SET_RISK, CommandKind.SET_STATE)
U64: Final = (1 << 64) - 1


def stops(market: Market) -> Iterable[Command]:
    """Return orders that wait for a price at which the flow never trades."""
    waits = {"spare": OrderFeature.STOP, "target_hi": market.high}
    return [market.order(Side.BUY, market.high, **waits) for _ in range(STOPS)]


def protected(**fields: int) -> Before:
    """Return protections of the instrument, so wide that they never act."""
    return lambda market: [Command(kind=CommandKind.SET_PROTECTIONS, **fields)]


def as_shipped(market: Market) -> Iterable[Command]:
    """Yield the flow's month among others of its product, every account with an order in each
    month.

    Each month has the protections of the products in ``contracts/data``, so wide that they never
    act.
    """
    width = market.high - market.low
    yield from months(market, MONTHS)
    for month in range(MONTHS):
        yield Command(
            kind=CommandKind.SET_PROTECTIONS, instrument=month, price=width, quantity=LOTS,
            target_lo=Limit.MONEY, target_hi=Limit.POSITION,
        )  # fmt: skip
    for account in FLOW_ACCOUNTS:
        for month in range(1, MONTHS):
            yield market.order(Side.BUY, market.low, account=account, instrument=month)


def breaker(which: Breaker) -> Before:
    """Return a breaker with a price window that is never left."""
    return lambda market: [
        Command(kind=CommandKind.SET_BREAKER, tif=which, price=market.high, target_lo=SECOND_NS)
    ]


def loss_limits(market: Market) -> Iterable[Command]:
    """Return a daily loss limit for every account, never reached."""
    return [
        Command(kind=CommandKind.SET_ACCOUNT, account=account, price=Limit.MONEY)
        for account in FLOW_ACCOUNTS
    ]


def quotes_protected(market: Market) -> Iterable[Command]:
    """Yield a protection of the trader's quotes in the product, so wide that it never acts."""
    order = market.order(Side.BUY, market.low)
    yield Command(
        kind=CommandKind.SET_PROTECTION, account=order.account, session=order.session,
        quantity=LOTS, target_lo=SECOND_NS,
    )  # fmt: skip


def collecting(market: Market) -> Iterable[Command]:
    return [Command(kind=CommandKind.SET_STATE, tif=TradingState.AUCTION)]


def months(market: Market, count: int) -> Iterable[Command]:
    """Yield further months like the flow's."""
    commands = [c for c in market.setup if c.kind in OF_A_MONTH]
    for month in range(1, count):
        for command in commands:
            yield msgspec.structs.replace(command, instrument=month)


def listed(market: Market, number: int, far: int) -> Iterable[Command]:
    """Yield the commands that list the calendar spread of the flow's month with another."""
    width = market.high - market.low
    yield Command(
        kind=CommandKind.LIST_COMBINATION, instrument=number, quantity=0xF1,  # 1, -1
        target_lo=-width & U64, target_hi=width, key_lo=far << 16,
    )  # fmt: skip
    yield Command(kind=CommandKind.SET_RISK, instrument=number, quantity=LOTS, session=LOTS)
    yield Command(kind=CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS)


def spread(market: Market) -> Iterable[Command]:
    """Yield one calendar spread of two months."""
    yield from months(market, 2)
    yield from listed(market, number=2, far=1)


def curve(market: Market) -> Iterable[Command]:
    """Yield a curve of months, and as many calendar spreads of the flow's month as may imply
    prices.

    Each spread and its far month have an order on either side: the prices that both imply are at
    the day's limits.
    """
    low, high, step = market.low, market.high, market.step
    centre = (low + high) // 2 // step * step
    yield from months(market, MONTHS)
    for far, number in enumerate(SPREADS, 1):
        yield from listed(market, number, far)
        quotes = (
            (number, Side.BUY, low - centre + step), (number, Side.SELL, high - centre - step),
            (far, Side.BUY, centre - step), (far, Side.SELL, centre + step),
        )  # fmt: skip
        for book, side, price in quotes:
            yield market.order(side, price, account=1 + (book == far), instrument=book)


def credits(market: Market) -> Iterable[Command]:
    """Yield the curve with implied prices off, and a margin credit for each spread."""
    yield from curve(market)
    for number in SPREADS:
        yield Command(
            kind=CommandKind.SET_RISK, instrument=number, quantity=LOTS, session=LOTS, key_lo=number
        )


def implied(market: Market) -> Iterable[Command]:
    """Yield the curve with implied prices on."""
    yield from curve(market)
    for number in SPREADS:
        yield Command(kind=CommandKind.SET_IMPLIED, instrument=number, tif=1)
