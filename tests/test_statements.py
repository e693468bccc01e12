"""What people read of their accounts: the page with its chart, profit, and open interest rolled."""

import random
from collections import Counter, defaultdict
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from clearing_house import House
from clearing_market import ACCOUNTS, DAY, TestMarket, open_market, random_day

from exchange.app.reads import Books
from exchange.clearing import Clearing
from exchange.clearing.ledger import PURPOSES, EntryKind
from exchange.clearing.matters import Due
from exchange.clearing.moves import ask
from exchange.clearing.reading import PRICES
from exchange.clearing.statements import CASH_LINES
from exchange.clearing.store import ACTIVE, AT_TICKS, LEGS, MOVES
from exchange.messages import AccountKind, Command, CommandKind, Limit, Side


@pytest.fixture
def clearing(tmp_path: Path) -> Clearing:
    market, draw = open_market(), random.Random(21)
    for _ in range(3):
        random_day(market, draw, batches=25)
    market.apply(Command(kind=CommandKind.SET_STATE, instrument=2, tif=0),
                 Command(kind=CommandKind.EXPIRE, instrument=2, price=2_500_000))  # fmt: skip
    opened = Clearing.open(tmp_path / "clearing.db")
    opened.apply(market.frames)
    return opened


class Tags(HTMLParser):
    """Every opened tag is closed, in order; counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_statement_is_a_page_with_a_chart(clearing: Clearing) -> None:
    text = clearing.statement_page(1)
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.seen.count("rect") == tags.seen.count("circle") == 5  # with before, and the expiry
    assert "http" not in text  # it needs nothing else
    whole = clearing.statement(1)
    assert f"{whole.closing / 1e6:,.6f}" in text
    assert "Nothing has moved" in clearing.statement_page(0) or "cash" in text
    with pytest.raises(KeyError):
        clearing.statement_page(77)
    clearing.close()


def test_average_cost_and_variation_say_the_same_in_sum(clearing: Clearing) -> None:
    """Of instruments that were held to the end: realized + unrealized = all variation so far."""
    from exchange.clearing import statements  # noqa: PLC0415

    for account in ACCOUNTS:
        state, store = clearing._state, clearing._store
        profits = statements.profits(state, store, account)
        unrealized = sum(gain for _, _, gain in state.unrealized(account))
        made = sum(p.realized + p.unrealized for p in profits)
        assert made == clearing.statement(account).variation + unrealized
    clearing.close()


def test_what_an_account_reads_is_searched_for(clearing: Clearing) -> None:
    """No question about one account, a date or settlements reads the whole journal, or more of it
    than the stretches in which the account was active; and what it finds is all there is."""
    store = clearing._store
    view = (
        "select instrument, lots, adjusted, price from cleared_legs where account = ?"
        " order by match_number"
    )
    for account in ACCOUNTS:
        scale = {n: one.tick_scale for n, one in clearing._state.instruments.items()}
        found = [
            (number, lots, adjusted, price * (scale[number] if kind in AT_TICKS else 1))
            for kind, number, lots, adjusted, price in store.legs(account)
        ]
        assert found == [tuple(row.values()) for row in store.rows(view, (account,))] != []
    settled = "select price from settlement_prices where instrument = ?"
    for query, values in (
        (ACTIVE, (1,)), (LEGS, (1, 2, 3)), (PRICES, (0, 0, 99991231, None, 10)), (settled, (0,)),
        (MOVES, (1, 2)),
    ):  # fmt: skip
        plan = store._connection.execute(f"explain query plan {query}", values)
        steps = [step for *_, step in plan if "journal" in step or "activity" in step]
        assert steps and all(step.startswith("SEARCH") for step in steps), steps
        assert query in (ACTIVE, LEGS, MOVES) or "settlements_by" in steps[0]
    clearing.close()


def test_open_interest_rolls_from_date_to_date(clearing: Clearing) -> None:
    before: dict[int, int] = {}
    for date in range(DAY, DAY + 4):
        rolls = clearing.roll_forward(date)
        for roll in rolls:
            assert roll.before == before.get(roll.instrument, 0)
            assert roll.before + roll.opened - roll.closed - roll.expired == roll.after
            before[roll.instrument] = roll.after
    held = {line.instrument: line.open_interest for line in clearing.open_interest()}
    assert before == held
    assert rolls[2].expired > 0 == rolls[2].after
    clearing.close()


def test_open_interest_on_every_date_is_what_was_cleared_by_then(clearing: Clearing) -> None:
    """Summed from the first trade on, which the roll-forward reads of expired instruments alone."""
    store, last = clearing._store, DAY + 3
    ends = {
        row["instrument"]: row["business_date"]
        for row in store.rows(
            f"select instrument, business_date from journal where kind = {EntryKind.EXPIRY:d}"
        )
    }
    assert ends == {2: last}
    query = (
        "select instrument, account, sum(lots) as net from cleared_legs where business_date <= ?"
        " group by instrument, account"
    )
    for date in range(DAY - 1, last + 2):
        long: defaultdict[int, int] = defaultdict(int)
        for row in store.rows(query, (date,)):
            if date < ends.get(row["instrument"], date + 1):
                long[row["instrument"]] += max(row["net"], 0)
        rolls = {roll.instrument: roll for roll in clearing.roll_forward(date)}
        assert {n: roll.after for n, roll in rolls.items() if roll.after} == +Counter(long)
        assert bool(rolls) == (date >= DAY)
    clearing.close()


def test_open_interest_beside_a_writer_is_of_one_moment(tmp_path: Path) -> None:
    """Positions are those that were read, though the journal has grown since."""
    market, draw = open_market(), random.Random(4)
    random_day(market, draw, batches=10)
    writer = Clearing.open(tmp_path / "clearing.db")
    writer.apply(market.frames[:-9])
    beside = Clearing.open(tmp_path / "clearing.db", read_only=True)
    asked = beside.roll_forward(DAY)
    writer.apply(market.frames[-9:])
    assert beside.roll_forward(DAY) == asked != writer.roll_forward(DAY)
    beside.refresh()
    assert beside.roll_forward(DAY) == writer.roll_forward(DAY)
    beside.close()
    writer.close()


def test_what_goes_in_and_out_on_a_date_has_no_bound(tmp_path: Path) -> None:
    """More than 64 bits hold, both ways: written piece by piece, and at once by a rebuild."""
    house, times = House(Clearing.open(tmp_path / "clearing.db")), 17
    house.open(1, 1, AccountKind.HOUSE, 0)
    house.day(DAY)
    for _ in range(times):
        for kind in (CommandKind.DEPOSIT, CommandKind.WITHDRAW):
            house.send(house.market.money(kind, 1, int(Limit.MONEY)))
    said = house.clearing.statement(1, DAY)
    moved = times * Limit.MONEY
    assert (said.deposits, said.withdrawals, said.closing) == (moved, -moved, 0)
    house.clearing.audit()
    house.agree()
    house.clearing.rebuild(house.market.frames)
    assert house.clearing.statement(1, DAY).deposits == moved
    assert "<svg" in house.clearing.statement_page(1)
    house.clearing.audit()
    house.clearing.close()


def test_what_http_says_of_cash_adds_up_whatever_moved(tmp_path: Path) -> None:
    """Each of the nine lines has moved, of somebody; opening and they are closing."""
    house = House(Clearing.open(tmp_path / "clearing.db"), TestMarket())
    for account in (1, 2):
        house.market.open_account(account, 10**12)
    house.market.list_instrument(0, (100_000, 700_000))
    house.clearing.apply(house.market.frames)
    house.day(DAY)
    house.send(house.market.money(CommandKind.WITHDRAW, 1, 5))
    house.send(
        house.market.enter(1, Side.SELL, 2_500, 3), house.market.enter(2, Side.BUY, 2_500, 3)
    )
    house.close(DAY)
    house.send(house.market.settle(0, 2_480_000))
    house.day(DAY + 1)
    dues = [Due(f"{word} 1", "deposit", 1, 7**n) for n, word in enumerate(PURPOSES)]
    ask(house.clearing._state, *dues)
    house.pay()
    books, moved = Books(house.clearing, house.clearing._store.path), set()
    for account in (0, 1, 2):
        for date in (None, DAY, DAY + 1):
            said = books.statement(account, date)
            lines = {name: Decimal(getattr(said, name)) for name in CASH_LINES}
            assert Decimal(said.opening) + sum(lines.values()) == Decimal(said.closing)
            moved |= {name for name, amount in lines.items() if amount}
    assert moved == set(CASH_LINES)
    house.clearing.close()
