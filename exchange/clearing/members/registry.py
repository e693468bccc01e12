"""Members, their own and their clients' accounts, and their margin, gross by account.

Every account is margined alone, and a member's margin is the sum: one client's long position never
offsets another's short one.

    margin of an account = sum over instruments of rate x |net|        of a member = sum of accounts

The rate is the engine's (RISK_CHANGED), so the sum is what the engine holds for positions alone,
before the credits of spreads.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import msgspec

from exchange.clearing.default.fund import Exposure
from exchange.clearing.matters import At, Matter, Ruling
from exchange.messages import HOUSE_ACCOUNT, AccountKind, Event, EventKind

if TYPE_CHECKING:
    from exchange.clearing.state import State


class Registry(Matter):
    """The accounts of each member, and the margin rates of the stream."""

    name: ClassVar[str] = "registry"
    watches: ClassVar[tuple[EventKind, ...]] = (EventKind.RISK_CHANGED,)
    rates: dict[int, int] = msgspec.field(default_factory=dict)  # micro-dollars a lot

    def saw(self, event: Event, at: At, state: "State") -> tuple[Ruling, ...]:
        """Note an instrument's new rate."""
        self.rates[event.instrument] = event.price
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
        """Return the initial margin on an account's positions, in micro-dollars."""
        return sum(
            self.rates.get(number, 0) * abs(position.net)
            for number, position in state.positions.of_account(account)
        )

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
