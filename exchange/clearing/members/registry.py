"""Members, their own and their clients' accounts, and their margin, gross by account.

Every account is margined alone, and a member's margin is the sum: one client's long position never
offsets another's short one.

    margin of an account = sum over instruments of rate x |net| - credit of spreads
    margin of a member   = sum of its accounts

Rates and credits are the engine's (RISK_CHANGED), so this is what it holds for positions alone.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import msgspec

from exchange.clearing.default.fund import Exposure
from exchange.clearing.matters import At, Matter, Ruling
from exchange.messages import HOUSE_ACCOUNT, AccountKind, Event, EventKind

if TYPE_CHECKING:
    from exchange.clearing.state import State


class Registry(Matter):
    """The accounts of each member, and the margin rates and credits of the stream."""

    name: ClassVar[str] = "registry"
    watches: ClassVar[tuple[EventKind, ...]] = (EventKind.RISK_CHANGED, EventKind.LEG_LISTED)
    rates: dict[int, int] = msgspec.field(default_factory=dict)  # micro-dollars a lot
    legs: dict[int, list[int]] = msgspec.field(default_factory=dict)  # by combination
    credits: dict[int, int] = msgspec.field(default_factory=dict)  # by spread, micro-dollars a pair

    def saw(self, event: Event, at: At, state: "State") -> tuple[Ruling, ...]:
        """Note an instrument's new rate, a spread's credit, or a leg of a combination."""
        if event.kind == EventKind.LEG_LISTED:
            self.legs.setdefault(event.instrument, []).append(event.order_id)
            return ()
        self.rates[event.instrument] = event.price
        self.credits.pop(event.instrument, None)
        if event.key_lo:  # the engine gives one to calendar spreads alone: two legs
            self.credits[event.instrument] = event.key_lo
        return ()

    def member_of(self, account: int, state: "State") -> int:
        """Return the clearing member of an account; KeyError for an unknown one."""
        return state.members[account][0]

    def accounts(self, member: int, state: "State") -> list[int]:
        """Return all accounts of a member, in order; the clearing house's own has no member."""
        return [
            account
            for account in sorted(state.members)
            if account != HOUSE_ACCOUNT and self.member_of(account, state) == member
        ]

    def own(self, member: int, state: "State") -> list[int]:
        """Return a member's own accounts: those of kind HOUSE, or if it has none its first."""
        accounts = self.accounts(member, state)
        own = [a for a in accounts if state.members[a][1] == AccountKind.HOUSE]
        return own or accounts[:1]

    def clients(self, member: int, state: "State") -> list[int]:
        """Return a member's accounts other than its own."""
        own = self.own(member, state)
        return [account for account in self.accounts(member, state) if account not in own]

    def members(self, state: "State") -> list[int]:
        """Return every member with an account, in order."""
        return sorted({self.member_of(a, state) for a in state.members if a != HOUSE_ACCOUNT})

    def margin(self, account: int, state: "State") -> int:
        """Return the initial margin on an account's positions, in micro-dollars: what the engine
        would hold for them without working orders."""
        return self.needed({n: p.net for n, p in state.positions.of_account(account) if p.net})

    def needed(self, net: Mapping[int, int]) -> int:
        """Return the initial margin of signed lots by instrument, in micro-dollars."""
        held = sum(self.rates.get(number, 0) * abs(lots) for number, lots in net.items())
        return held - self.credit(net, self.rates)

    def credit(self, net: Mapping[int, int], rates: Mapping[int, int]) -> int:
        """Return the credit of signed lots by instrument at ``rates``: the spread with the largest
        credit takes its pairs first, of equal ones the one listed first."""
        if not self.credits:
            return 0
        left, total = dict(net), 0
        pairs = sorted(
            (-min(credit, *(rates.get(leg, 0) for leg in self.legs[number])), number)
            for number, credit in self.credits.items()
        )
        for amount, number in pairs:
            legs = self.legs[number]
            long, short = legs if left.get(legs[0], 0) > 0 else reversed(legs)
            lots = min(left.get(long, 0), -left.get(short, 0))
            if lots > 0:
                left[long] -= lots
                left[short] += lots
                total -= amount * lots
        return total

    def gross_margin(self, member: int, state: "State") -> int:
        """Return a member's margin in micro-dollars: the sum over its accounts, without netting."""
        return sum(self.margin(account, state) for account in self.accounts(member, state))

    def exposures(self, account: int, state: "State") -> Iterator[Exposure]:
        """Yield the account's open positions at their marks, as input of a stress test."""
        for number, position in state.positions.of_account(account):
            if position.net:
                listed = state.instruments[number]
                yield Exposure(
                    product_of(listed.code), position.net, listed.mark, listed.multiplier
                )


def product_of(code: str) -> str:
    """Return the product of an expiry's code: ``H100`` of ``H100Z26``."""
    return code[:-3]
