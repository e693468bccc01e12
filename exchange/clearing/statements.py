"""Reports: account statements, open interest, and its roll-forward.

Each report is a dataclass with plain fields (``dataclasses.asdict`` gives JSON), with a table as
text. Money is in integer micro-dollars in the fields and in dollars in the text.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from exchange.clearing.ledger import EntryKind, Movement
from exchange.clearing.profit import AverageCost
from exchange.clearing.standing import Standing, standing
from exchange.clearing.state import State, Trading
from exchange.clearing.store import AT_TICKS, Store

MICROS = 1_000_000


def dollars(amount: int) -> str:
    """Return micro-dollars as dollars with six decimals: ``-1,234.567890`` for -1234567890."""
    whole, micros = divmod(abs(amount), MICROS)
    return f"{'-' if amount < 0 else ''}{whole:,}.{micros:06d}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a text table; the first column is aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, ["-" * width for width in widths], *rows)
    ]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Holding:
    """An open position: signed lots, the mark (clearing price), and the gain since the last
    settlement in micro-dollars."""

    code: str
    net: int
    mark: int
    unrealized: int


# The lines of cash between opening and closing, in the order in which they are shown.
CASH_LINES: Final = {
    "deposits": Movement.DEPOSITS,
    "withdrawals": Movement.WITHDRAWALS,
    "variation": Movement.VARIATION,
    "fees": Movement.FEES,
    "fees_earned": Movement.FEES_EARNED,
    "fee_discounts": Movement.FEE_DISCOUNTS,
    "interest": Movement.INTEREST,
    "delivery": Movement.DELIVERY,
    "default_fund": Movement.DEFAULT_FUND,
}
FEE_MOVEMENTS: Final = (Movement.FEES, Movement.FEES_EARNED, Movement.FEE_DISCOUNTS)
EARNED: Final = ("variation", "fees", "fees_earned", "fee_discounts", "interest")


@dataclass(frozen=True, slots=True)
class Statement:
    """An account's cash from ``opening`` to ``closing``, its positions and its standing.

    ``opening`` plus the nine lines is ``closing``. ``profit`` is the sum of variation, the three
    fee lines, interest and ``unrealized``: without deposits, withdrawals, deliveries and payments
    of the default fund and defaults, such as a ported client's cash.

    ``business_date`` is None for the whole life, 0 for the time before the first date. For a past
    date the holdings are empty, ``unrealized`` is 0 and ``standing`` is None: only the present ones
    are known.
    """

    account: int
    sequence: int
    business_date: int | None
    opening: int
    deposits: int
    withdrawals: int
    variation: int
    fees: int
    fees_earned: int
    fee_discounts: int
    interest: int
    delivery: int
    default_fund: int
    closing: int
    unrealized: int
    profit: int
    holdings: list[Holding]
    standing: Standing | None

    def cash_rows(self) -> list[tuple[str, str]]:
        """Return (name, dollars) of opening, every line that is not zero, closing, unrealized and
        profit."""
        shown = [name for name in CASH_LINES if getattr(self, name)]
        names = ("opening", *shown, "closing", "unrealized", "profit")
        return [(name.replace("_", " "), dollars(getattr(self, name))) for name in names]

    def text(self) -> str:
        """Return the statement as text tables."""
        parts = [table((f"account {self.account}", "USD"), self.cash_rows())]
        if self.holdings:
            parts.append(table(HOLDING_HEADS, holding_rows(self.holdings)))
        if self.standing is not None:
            parts += [table(heads, rows) for heads, rows in standing_tables(self.standing)]
        return "\n\n".join(parts)


HOLDING_HEADS: Final = ("instrument", "lots", "mark", "unrealized USD")


def holding_rows(holdings: Sequence[Holding]) -> list[tuple[str, ...]]:
    """Return positions as rows of a table."""
    return [(h.code, f"{h.net:,}", dollars(h.mark), dollars(h.unrealized)) for h in holdings]


Rows = Sequence[Sequence[str]]


def standing_tables(found: Standing) -> Iterator[tuple[tuple[str, ...], Rows]]:
    """Yield (heads, rows) of the tables of margin, collateral, calls, fee tier and defaults, except
    for empty ones."""
    margin = [("collateral, less haircuts", dollars(found.collateral_value))]
    if found.required is not None and found.liquidity is not None:
        margin += [("required", dollars(found.required)), ("liquidity", dollars(found.liquidity))]
    if found.call:
        margin.append((f"called, by {moment(found.call_deadline)}", dollars(found.call)))
    if found.required is not None or found.collateral or found.call:
        yield ("margin", "USD"), margin
    if found.collateral:
        yield (
            ("collateral", "units", "price", "haircut", "counts USD"),
            [
                (p.asset, f"{p.units:,}", dollars(p.price), percent(p.haircut_bp),
                 dollars(p.counts))
                for p in found.collateral
            ],
        )  # fmt: skip
    if found.calls:
        yield (
            ("margin call", "step", "missing USD", "deadline"),
            [
                (moment(c.stamp), c.step, dollars(c.missing) if c.missing else "",
                 moment(c.deadline) if c.deadline else "")
                for c in found.calls
            ],
        )  # fmt: skip
    if found.fee_version:
        yield (
            (f"fee tier, version {found.fee_version}", ""),
            [
                ("lots last month, which make the tier", f"{found.lots_last_month:,}"),
                ("lots this month", f"{found.lots_this_month:,}"),
                ("of a maker's fee given back", percent(found.maker_discount_bp)),
                ("of a taker's fee given back", percent(found.taker_discount_bp)),
            ],
        )
    if found.defaults:
        yield (
            ("default", "layer", "borne USD", "repaid USD"),
            [
                (str(one.default), one.layer.replace("_", " "), dollars(one.borne),
                 dollars(one.repaid))
                for one in found.defaults
            ],
        )  # fmt: skip


def percent(basis_points: int) -> str:
    """Return basis points as per cent: ``2.50 %`` for 250."""
    return f"{basis_points // 100}.{basis_points % 100:02d} %"


def moment(stamp: int) -> str:
    """Return a stamp as text in UTC, to the minute."""
    return f"{datetime.fromtimestamp(stamp // 1_000_000_000, UTC):%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class Interest:
    """One instrument's line of the daily bulletin: the date's trades and volume, and the lots held
    long."""

    instrument: int
    code: str
    settlement_price: int
    settlement_date: int
    trades: int
    volume: int
    open_interest: int


def statement(
    state: State, store: Store, account: int, business_date: int | None = None
) -> Statement:
    """Return an account's statement of a business date, or of its whole life. KeyError: no such
    account."""
    if account not in state.members:
        raise KeyError(f"no account {account}")
    opening, moved = 0, defaultdict[int, int](int)
    for date, kind, amount in store.movements(account):
        if business_date is None or date == business_date:
            moved[kind] += amount
        elif date < business_date:
            opening += amount
    held: list[Holding] = []
    if business_date in (None, state.business_date):
        held = [
            Holding(listed.code, net, listed.mark, gain)
            for listed, net, gain in state.unrealized(account)
            if net or gain
        ]
    unrealized = sum(holding.unrealized for holding in held)
    lines = {name: moved[kind] for name, kind in CASH_LINES.items()}
    now = business_date in (None, state.business_date)
    return Statement(
        account=account,
        sequence=state.point[1],
        business_date=business_date,
        opening=opening,
        **lines,
        closing=opening + sum(moved.values()),
        unrealized=unrealized,
        profit=sum(lines[name] for name in EARNED) + unrealized,
        holdings=held,
        standing=standing(state, store, account) if now else None,
    )


def open_interest(state: State) -> list[Interest]:
    """Return open interest and the date's volume of every instrument, by instrument id."""
    lines = []
    for number, listed in sorted(state.instruments.items()):
        day = state.trading.get(number, Trading())
        lines.append(
            Interest(
                instrument=number,
                code=listed.code,
                settlement_price=listed.settlement_price,
                settlement_date=listed.settlement_date,
                trades=day.trades,
                volume=day.volume,
                open_interest=state.positions.open_interest(number),
            )
        )
    return lines


@dataclass(frozen=True, slots=True)
class Day:
    """An account's cash movements of a business date, in micro-dollars; the date 0 is the time
    before the first."""

    business_date: int
    variation: int
    fees: int  # the three fee lines
    interest: int
    paid_in: int  # deposits and withdrawals
    other: int  # deliveries, the default fund and defaults
    closing: int


@dataclass(frozen=True, slots=True)
class Profit:
    """An account's profit in one instrument by average cost, in micro-dollars; for display only."""

    code: str
    net: int
    realized: int
    unrealized: int


@dataclass(frozen=True, slots=True)
class Roll:
    """One instrument's open interest over a date: before + opened - closed - expired = after.

    A buyer's new long lots count as opened, a seller's sold long lots as closed.
    """

    instrument: int
    code: str
    before: int
    opened: int
    closed: int
    expired: int
    after: int


def days(store: Store, account: int) -> list[Day]:
    """Return an account's dates with movements, oldest first."""
    moved: defaultdict[int, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    for date, kind, amount in store.movements(account):
        moved[date][kind] += amount
    found, closing = [], 0
    for date, kinds in sorted(moved.items()):
        closing += sum(kinds.values())
        found.append(
            Day(
                date,
                variation=kinds[Movement.VARIATION],
                fees=sum(kinds[kind] for kind in FEE_MOVEMENTS),
                interest=kinds[Movement.INTEREST],
                paid_in=kinds[Movement.DEPOSITS] + kinds[Movement.WITHDRAWALS],
                other=kinds[Movement.DELIVERY] + kinds[Movement.DEFAULT_FUND],
                closing=closing,
            )
        )
    return found


def profits(state: State, store: Store, account: int) -> list[Profit]:
    """Return an account's profit by average cost of what it cleared, by instrument id."""
    own = set(state.positions.instruments())  # not combinations, whose legs are cleared
    held: dict[int, AverageCost] = {}
    for kind, number, lots, adjusted, price in store.legs(account):
        if number in own:
            scale = state.instruments[number].tick_scale if kind in AT_TICKS else 1
            average = held.setdefault(number, AverageCost())
            average.trade(lots, price * scale)
            average.adjust(adjusted, price * scale)
    found = []
    for number, average in sorted(held.items()):
        listed = state.instruments[number]
        hours = listed.multiplier
        gain, realized = average.unrealized(listed.mark) * hours, average.realized * hours
        if listed.expired:
            found.append(Profit(listed.code, 0, realized + gain, 0))
        else:
            found.append(Profit(listed.code, average.net, realized, gain))
    return found


def roll_forward(state: State, store: Store, date: int) -> list[Roll]:
    """Return the open interest over a business date, by instrument id, of every instrument that had
    any or whose lots moved.

    It reads the journal from that date on, and of instruments that have expired since all of it.
    """
    begun = store.before(date)
    nets = _held(state, store, begun)
    rolls = {number: [_long(net), 0, 0, 0] for number, net in nets.items() if _long(net)}
    for kind, day, number, lots, buyer, seller in store.moves(begun + 1, state.number):
        if day != date:
            break
        if number not in nets:
            continue
        net, roll = nets[number], rolls.setdefault(number, [0, 0, 0, 0])
        if kind == EntryKind.EXPIRY:
            roll[3] += _long(net)
            net.clear()
        else:
            roll[1] += max(net[buyer] + lots, 0) - max(net[buyer], 0)
            net[buyer] += lots
            roll[2] += max(net[seller], 0) - max(net[seller] - lots, 0)
            net[seller] -= lots
    found = []
    for number, (before, opened, closed, expired) in sorted(rolls.items()):
        after = before + opened - closed - expired
        code = state.instruments[number].code
        found.append(Roll(number, code, before, opened, closed, expired, after))
    return found


def _held(state: State, store: Store, begun: int) -> dict[int, defaultdict[int, int]]:
    """Return the signed lots by instrument and account as of the entry ``begun``: what is held now
    without what has moved since, or if the instrument has expired since, what had moved before."""
    now, own = state.number, state.positions.instruments()
    expired = {row[2] for row in store.moves(begun + 1, now) if row[0] == EntryKind.EXPIRY}
    nets: dict[int, defaultdict[int, int]] = {number: defaultdict(int) for number in own}
    live, gone = nets.keys() - expired, nets.keys() & expired
    for number in live:
        for account, position in state.positions.of_instrument(number).items():
            nets[number][account] = position.net
    for _, _, number, lots, buyer, seller in store.moves(begun + 1, now):
        if number in live:
            nets[number][buyer] -= lots
            nets[number][seller] += lots
    for _, _, number, lots, buyer, seller in store.moves(0, begun) if gone else ():
        if number in gone:
            nets[number][buyer] += lots
            nets[number][seller] -= lots
    return nets


def _long(net: Mapping[int, int]) -> int:
    return sum(max(lots, 0) for lots in net.values())
