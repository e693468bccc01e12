"""What a default's layers pay, and the fund's and the capital's accounts in the book."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from exchange.clearing.default.waterfall import Waterfall
from exchange.clearing.delivery import dvp
from exchange.clearing.matters import At, Due
from exchange.clearing.members.registry import Registry
from exchange.clearing.moves import ask, take
from exchange.clearing.sharing import share
from exchange.clearing.transfers import Account
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State

OUTSIDE: Final = "outside"  # money of the owner's, before it is paid in
CAPITAL: Final = "capital"


def pay_layers(
    id: str,
    member: int,
    cash: Mapping[int, int],
    found: Waterfall[int],
    at: At,
    state: "State",
) -> None:
    """Pay what each layer bears into the defaulter's accounts, until they are at zero; what some of
    them have goes to those that owe. ``cash`` is what each has; ``id`` names what moves."""
    short = {account: -held for account, held in cash.items() if held < 0}
    has = {account: held for account, held in cash.items() if held > 0}
    registry = state.matters.get(Registry)
    funds = {member: found.defaulter_fund, **found.survivors_fund}
    sources = {fund_of(who): amount for who, amount in funds.items()}
    sources[CAPITAL] = found.own_capital
    for source, amount in sources.items():
        if amount:
            move(state, f"{id} {source}", source, dvp.MARKET, amount, at)
    into = sum(sources.values())
    charged: list[tuple[int, int, str]] = []
    for who, amount in found.assessments.items():
        charged.append((registry.own(who, state)[0], amount, "assessment"))
    charged += [(account, cut, "haircut") for account, cut in found.haircuts.items()]
    netted = share(min(sum(has.values()), sum(short.values())), has)
    charged += [(account, amount, "estate") for account, amount in netted.items()]
    for account, amount, why in charged:
        ask(state, *take(f"{id} {why} {account}", account, amount))
    through = sum(amount for _, amount, _ in charged)
    ask(state, Due(f"{id} out", "withdraw", HOUSE_ACCOUNT, through))
    paid = share(into + through, short)
    assert sum(short.values()) == into + through + found.uncovered, "what is short is covered"
    for account, amount in paid.items():
        ask(state, Due(f"{id} in {account}", "deposit", account, amount))


def fund_of(member: int) -> str:
    """The fund account of a member."""
    return f"fund/{member}"


def open_fund(state: "State", member: int) -> None:
    """Open a member's fund account, which is never overdrawn."""
    state.book.open(Account(dvp.MARKET))
    state.book.open(Account(fund_of(member), "USD", "debits"))


def move(state: "State", id: str, debit: str, credit: str, amount: int, at: At) -> None:
    """One transfer of clearing's own that nothing may refuse: AssertionError if the book does."""
    state.book.open(Account(dvp.MARKET))
    outcome = dvp.move(state.book, id, debit, credit, amount, at.stamp)
    assert not outcome, f"{id}: {outcome!r}"


def named(amounts: dict[int, int]) -> dict[str, int]:
    """Amounts that are not zero, as the facts of a ruling have them."""
    return {str(who): amount for who, amount in amounts.items() if amount}
