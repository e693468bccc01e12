"""What people read: trial balance, account statement, open interest.

Each is a value with plain fields (``dataclasses.asdict`` gives JSON) and a ``text()`` table.
Money is integer micro-dollars in the values and dollars in the text.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from exchange.clearing.ledger import Movement, ledger_name
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
