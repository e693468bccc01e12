"""What people read: trial balance, account statement, open interest.

Each is a value with plain fields (``dataclasses.asdict`` gives JSON) and a ``text()`` table.
Money is integer micro-dollars in the values and dollars in the text.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from exchange.clearing.ledger import EntryKind, Movement, ledger_name
from exchange.clearing.profit import AverageCost
from exchange.clearing.state import State, Trading
from exchange.clearing.store import Store

MICROS = 1_000_000


def dollars(amount: int) -> str:
    """``-1234567890`` as ``-1,234.567890``: exact, always six decimals."""
    whole, micros = divmod(abs(amount), MICROS)
    return f"{'-' if amount < 0 else ''}{whole:,}.{micros:06d}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain text table; the first column to the left, the others to the right."""
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
class TrialBalance:
    """All ledger accounts. ``debits`` = ``credits`` or the ledger is broken."""

    sequence: int
    business_date: int
    accounts: list[tuple[str, int]]  # (name, balance, debit-positive), by ledger account id
    debits: int
    credits: int
    entries: int
    ledger_hash: str

    def text(self) -> str:
        """The balance as a table with its two sums."""
        rows = [
            (
                name,
                dollars(balance) if balance > 0 else "",
                dollars(-balance) if balance < 0 else "",
            )
            for name, balance in self.accounts
        ]
        rows.append(("total", dollars(self.debits), dollars(self.credits)))
        return table(("account", "debit USD", "credit USD"), rows)


@dataclass(frozen=True, slots=True)
class Holding:
    """One open position in a statement."""

    code: str
    net: int
    mark: int
    unrealized: int


@dataclass(frozen=True, slots=True)
class Statement:
    """An account's cash from ``opening`` to ``closing``, and what it holds.

    ``opening`` plus the five lines is ``closing``. ``profit`` = variation + fees + fees earned +
    unrealized: everything but money paid in and out. ``business_date`` None is the whole life, 0
    the time before the first date. Of a past date the holdings are empty and unrealized is zero,
    since those are known for now alone.
    """

    account: int
    sequence: int
    business_date: int | None
    opening: int
    deposits: int
    withdrawals: int
    fees: int
    fees_earned: int
    variation: int
    closing: int
    unrealized: int
    profit: int
    holdings: list[Holding]

    def text(self) -> str:
        """The statement as two tables."""
        lines = ("opening", "deposits", "withdrawals", "fees", "fees_earned", "variation",
                 "closing", "unrealized", "profit")  # fmt: skip
        rows = [(line.replace("_", " "), dollars(getattr(self, line))) for line in lines]
        cash = table((f"account {self.account}", "USD"), rows)
        if not self.holdings:
            return cash
        held = [
            (h.code, f"{h.net:,}", dollars(h.mark), dollars(h.unrealized)) for h in self.holdings
        ]
        return f"{cash}\n\n{table(('instrument', 'lots', 'mark', 'unrealized USD'), held)}"


@dataclass(frozen=True, slots=True)
class Interest:
    """One instrument's line of the daily bulletin; the day's trades and the lots held."""

    instrument: int
    code: str
    settlement_price: int
    settlement_date: int
    trades: int
    volume: int
    open_interest: int


def trial_balance(state: State) -> TrialBalance:
    """Every ledger account's balance."""
    balances = sorted(state.ledger.balances.items())
    return TrialBalance(
        sequence=state.point[1],
        business_date=state.business_date,
        accounts=[(ledger_name(account), balance) for account, balance in balances],
        debits=sum(balance for _, balance in balances if balance > 0),
        credits=-sum(balance for _, balance in balances if balance < 0),
        entries=state.entries,
        ledger_hash=state.ledger.head.hex(),
    )


def statement(
    state: State, store: Store, account: int, business_date: int | None = None
) -> Statement:
    """An account's statement of one business date, or of its whole life. KeyError: unknown."""
    if account not in state.members:
        raise KeyError(f"no account {account}")
    opening, moved = 0, defaultdict[int, int](int)
    query = "select business_date, kind, amount from movements where account = ?"
    for row in store.rows(query, (account,)):
        if business_date is None or row["business_date"] == business_date:
            moved[row["kind"]] += row["amount"]
        elif row["business_date"] < business_date:
            opening += row["amount"]
    held: list[Holding] = []
    if business_date in (None, state.business_date):
        held = [
            Holding(listed.code, net, listed.mark, gain)
            for listed, net, gain in state.unrealized(account)
            if net or gain
        ]
    unrealized = sum(holding.unrealized for holding in held)
    earned = moved[Movement.FEES] + moved[Movement.FEES_EARNED] + moved[Movement.VARIATION]
    return Statement(
        account=account,
        sequence=state.point[1],
        business_date=business_date,
        opening=opening,
        deposits=moved[Movement.DEPOSITS],
        withdrawals=moved[Movement.WITHDRAWALS],
        fees=moved[Movement.FEES],
        fees_earned=moved[Movement.FEES_EARNED],
        variation=moved[Movement.VARIATION],
        closing=opening + sum(moved.values()),
        unrealized=unrealized,
        profit=earned + unrealized,
        holdings=held,
    )


def open_interest(state: State) -> list[Interest]:
    """Open interest and the day's volume per instrument, by instrument id."""
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


def open_interest_text(lines: Sequence[Interest]) -> str:
    """The bulletin as a table."""
    rows = [
        (line.code, dollars(line.settlement_price), f"{line.trades:,}", f"{line.volume:,}",
         f"{line.open_interest:,}")
        for line in lines
    ]  # fmt: skip
    return table(("instrument", "settlement", "trades", "volume", "open interest"), rows)


@dataclass(frozen=True, slots=True)
class Day:
    """One business date of an account; micro-dollars. 0 is the time before the first date."""

    business_date: int
    variation: int
    fees: int
    paid_in: int  # deposits less withdrawals
    closing: int


@dataclass(frozen=True, slots=True)
class Profit:
    """One instrument by average cost, for reading alone: lots, and micro-dollars."""

    code: str
    net: int
    realized: int
    unrealized: int


@dataclass(frozen=True, slots=True)
class Roll:
    """One instrument's open interest over a date: before + opened - closed - expired = after.

    A buyer's new long lots open, a seller's long lots sold close.
    """

    instrument: int
    code: str
    before: int
    opened: int
    closed: int
    expired: int
    after: int


def days(store: Store, account: int) -> list[Day]:
    """An account's dates with any movement, oldest first."""
    query = "select business_date, kind, amount from movements where account = ?"
    moved: defaultdict[int, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    for row in store.rows(query, (account,)):
        moved[row["business_date"]][row["kind"]] += row["amount"]
    found, closing = [], 0
    for date, kinds in sorted(moved.items()):
        closing += sum(kinds.values())
        found.append(
            Day(
                date,
                kinds[Movement.VARIATION],
                kinds[Movement.FEES] + kinds[Movement.FEES_EARNED],
                kinds[Movement.DEPOSITS] + kinds[Movement.WITHDRAWALS],
                closing,
            )
        )
    return found


def profits(state: State, store: Store, account: int) -> list[Profit]:
    """An account's instruments by average cost of its cleared trades, by instrument."""
    query = (
        "select instrument, lots, price_ticks from cleared_legs where account = ?"
        " order by match_number"
    )
    held: dict[int, AverageCost] = {}
    for row in store.rows(query, (account,)):
        held.setdefault(row["instrument"], AverageCost()).trade(row["lots"], row["price_ticks"])
    found = []
    for number, average in sorted(held.items()):
        listed = state.instruments[number]
        value, mark = listed.tick_value, listed.mark
        gain = average.net * mark * listed.multiplier - average.cost * value
        realized = average.realized * value
        if listed.expired:
            found.append(Profit(listed.code, 0, realized + gain, 0))
        else:
            found.append(Profit(listed.code, average.net, realized, gain))
    return found


def roll_forward(state: State, store: Store, date: int) -> list[Roll]:
    """Open interest of every instrument over a business date, by instrument; from the journal."""
    nets: defaultdict[int, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    rolls: dict[int, list[int]] = {}
    query = (
        "select number, kind, business_date, instrument, quantity, buyer, seller from journal"
        f" where kind in ({EntryKind.TRADE:d}, {EntryKind.EXPIRY:d}) and business_date <= ?"
        " order by number"
    )
    for row in store.rows(query, (date,)):
        net = nets[row["instrument"]]
        roll = rolls.setdefault(row["instrument"], [0, 0, 0, 0])
        today = row["business_date"] == date
        if row["kind"] == EntryKind.EXPIRY:
            delta = [0, 0, sum(max(lots, 0) for lots in net.values())]
            net.clear()
        else:
            lots, buyer, seller = row["quantity"], row["buyer"], row["seller"]
            opened = max(net[buyer] + lots, 0) - max(net[buyer], 0)
            net[buyer] += lots
            closed = max(net[seller], 0) - max(net[seller] - lots, 0)
            net[seller] -= lots
            delta = [opened, closed, 0]
        if today:
            roll[1:] = [a + b for a, b in zip(roll[1:], delta, strict=True)]
        else:
            roll[0] += delta[0] - delta[1] - delta[2]
    found = []
    for number, (before, opened, closed, expired) in sorted(rolls.items()):
        after = before + opened - closed - expired
        code = state.instruments[number].code
        found.append(Roll(number, code, before, opened, closed, expired, after))
    return found
