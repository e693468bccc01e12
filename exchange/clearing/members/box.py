"""A lender's read-only view of a box: holdings, value, and how far its margin suffices.

A box is an account of kind BOX: the vehicle that holds a take-or-pay contract, GPUs and their
hedge. Its lender has an API key of scope read. Money is in micro-dollars.

    balance      = cash + collateral after haircuts
    margin       = what the engine holds for positions, and that of deliveries under way
    coverage     = balance / margin, in per cent: below 100 the hedge may be closed
    liquidity    = balance + unrealized - margin: the excess, or if negative the shortfall. Only
                   cash can be withdrawn
    worst_move   = the adverse move of all prices, at 1e-4, that would use up the liquidity
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exchange.clearing.calling import Calls
from exchange.clearing.margin import undelivered
from exchange.clearing.members.registry import Registry
from exchange.clearing.statements import Holding, dollars, table
from exchange.messages import AccountKind

if TYPE_CHECKING:
    from exchange.clearing.state import State

E4: Final = 10_000
PERCENT: Final = 100


@dataclass(frozen=True, slots=True)
class Box:
    """One box at one point of the stream. A ratio is None if its denominator is zero."""

    account: int
    member: int
    sequence: int
    business_date: int
    cash: int
    collateral: int
    unrealized: int
    margin: int
    liquidity: int
    coverage_percent: int | None
    exposure: int  # sum of net x mark x multiplier: the gain if all prices doubled
    worst_move_e4: int | None
    holdings: list[Holding]

    def text(self) -> str:
        """Return the view as two text tables."""
        money = ("cash", "collateral", "unrealized", "margin", "liquidity", "exposure")
        rows = [(name, dollars(getattr(self, name))) for name in money]
        cover = "-" if self.coverage_percent is None else f"{self.coverage_percent:,} %"
        move = "-" if self.worst_move_e4 is None else f"{self.worst_move_e4 / PERCENT:,.2f} %"
        rows += [("coverage", cover), ("adverse move it survives", move)]
        first = table((f"box {self.account} of member {self.member}", "USD"), rows)
        held = [
            (h.code, f"{h.net:,}", dollars(h.mark), dollars(h.unrealized)) for h in self.holdings
        ]
        if not held:
            return first
        return f"{first}\n\n{table(('instrument', 'lots', 'mark', 'unrealized USD'), held)}"


def box(state: "State", account: int) -> Box:
    """Return the view of a box; KeyError for an unknown account, ValueError for another kind."""
    member, kind = state.members[account]
    if kind != AccountKind.BOX:
        raise ValueError(f"account {account} is no box but of kind {AccountKind(kind).name}")
    registry = state.matters.get(Registry)
    lines = list(state.unrealized(account))
    holdings = [Holding(i.code, net, i.mark, gain) for i, net, gain in lines if net or gain]
    unrealized = sum(gain for _, _, gain in lines)
    exposure = sum(net * listed.mark * listed.multiplier for listed, net, _ in lines)
    cash = state.ledger.cash(account)
    margin = registry.margin(account, state) + undelivered.of_account(state, account)
    collateral = state.matters.get(Calls).collateral(account, state)
    liquidity = cash + collateral + unrealized - margin
    return Box(
        account=account,
        member=member,
        sequence=state.point[1],
        business_date=state.business_date,
        cash=cash,
        collateral=collateral,
        unrealized=unrealized,
        margin=margin,
        liquidity=liquidity,
        coverage_percent=(cash + collateral) * PERCENT // margin if margin else None,
        exposure=exposure,
        worst_move_e4=max(0, liquidity) * E4 // abs(exposure) if exposure else None,
        holdings=holdings,
    )
