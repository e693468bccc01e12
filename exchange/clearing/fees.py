"""Fee tiers: who traded much last month gets a share of this month's fees back.

The engine charges every account the fees of the contract's terms. When a date closes, each account
is paid the share that its tier gives of what it paid that day as maker and as taker, rounded down.
The tier is that of its lots, either side, of the calendar month before, so what a trade costs is
known before it trades. Rebates are no fees and stay as they are. The house pays what the accounts
get: the sum is zero. Schedules are versions that enter by the log, for a date to come.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, NamedTuple

import msgspec
from msgspec import Meta

from exchange.clearing.matters import ACCEPTED, At, Due, Matter, Ruling, refused
from exchange.clearing.moves import ask
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind

if TYPE_CHECKING:
    from exchange.clearing.state import State

TIERS_MAX: Final = 16
_BP: Final = 10_000
_MONTH: Final = 100  # a date of the form yyyymmdd over this is its month
Share = Annotated[int, Meta(ge=0, le=_BP)]


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From so many lots a month on: the share of fees given back, in basis points."""

    from_lots: Annotated[int, Meta(ge=0)]
    maker_bp: Share
    taker_bp: Share


class AdoptFees(Record, frozen=True, kw_only=True, tag="adopt_fees"):
    """The next version of the tiers, in force from the business date ``effective`` on."""

    version: int
    effective: int
    tiers: Annotated[tuple[Tier, ...], Meta(max_length=TIERS_MAX)]


NO_TIER: Final = Tier(0, 0, 0)


class Fees(Matter):
    """Versions adopted, and every account's lots of the last two months with a trade."""

    name: ClassVar[str] = "fees"
    records: ClassVar[tuple[type[Record], ...]] = (AdoptFees,)
    watches: ClassVar[tuple[EventKind, ...]] = (EventKind.DAY_CLOSED,)
    adopted: list[AdoptFees] = msgspec.field(default_factory=list)  # in force, and to come
    lots: dict[int, dict[int, int]] = msgspec.field(default_factory=dict)  # yyyymm -> account
    counted: int = 0  # the last date whose lots are

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Adopt a version: the next one, for a date to come, its tiers rising from 0 lots."""
        operation = "adopt_fees"
        if at.account != HOUSE_ACCOUNT:
            return refused(operation, Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        following = self.adopted[-1].version + 1 if self.adopted else 1
        if record.version != following:
            return refused(operation, Denial.DUPLICATE, following, record.version)
        least = max([state.business_date, *(one.effective for one in self.adopted)])
        if record.effective <= least:
            return refused(operation, Denial.LATE, least, record.effective)
        starts = [tier.from_lots for tier in record.tiers]
        if starts != sorted(set(starts)) or starts[:1] != [0]:
            return refused(operation, Denial.QUANTITY, 0, starts)
        old = [one for one in self.adopted if one.effective > state.business_date]
        self.adopted = [*filter(None, [self.in_force(state.business_date)]), *old, record]
        return Ruling(operation, ACCEPTED, {"version": record.version, "tiers": len(starts)})

    def in_force(self, date: int) -> AdoptFees | None:
        """The version of a business date; None before the first."""
        return max(
            (one for one in self.adopted if one.effective <= date),
            key=lambda one: one.effective,
            default=None,
        )

    def tier(self, account: int, date: int) -> Tier:
        """An account's tier on a business date."""
        version = self.in_force(date)
        if version is None:
            return NO_TIER
        before = self.lots.get(month_before(date // _MONTH), {}).get(account, 0)
        return version.tiers[_place(version, before) - 1]

    def trader(self, account: int, state: "State") -> "Trader":
        """What an account has traded, the open date included, and where that puts it."""
        date, month = state.business_date, state.business_date // _MONTH
        before, this = (self.lots.get(one, {}) for one in (month_before(month), month))
        active = state.activity.get(account)
        today = active.lots if active is not None and self.counted < date else 0
        last, so_far = before.get(account, 0), this.get(account, 0) + today
        following = self.in_force(month_after(month) * _MONTH + 1)
        return Trader(account, last, _place(self.in_force(date), last), so_far,
                      _place(following, so_far))  # fmt: skip

    def saw(self, event: Event, at: At, state: "State") -> list[Ruling]:
        """A date has closed: count its lots, and ask for the discounts."""
        date, month = at.business_date, at.business_date // _MONTH
        self.counted = date
        counted = self.lots.setdefault(month, {})
        back: dict[int, int] = {}
        for account, done in sorted(state.activity.items()):
            tier = self.tier(account, date)
            share = done.maker_fees * tier.maker_bp // _BP + done.taker_fees * tier.taker_bp // _BP
            if share > 0 and account != HOUSE_ACCOUNT:
                back[account] = share
            if done.lots:
                counted[account] = counted.get(account, 0) + done.lots
        for old in [one for one in self.lots if one < month_before(month)]:
            del self.lots[old]
        version = self.in_force(date)
        if version is None or not back:
            return []
        total, id = sum(back.values()), f"discount {date}"
        dues = [Due(f"{id} {who}", "deposit", who, share) for who, share in back.items()]
        assert sum(due.amount for due in dues) == total, "what the house gives is what they get"
        ask(state, Due(f"{id} out", "withdraw", HOUSE_ACCOUNT, total), *dues)
        facts = {"version": version.version, "accounts": len(back), "total": total}
        return [Ruling("fee_discounts", "asked", facts)]


class Trader(NamedTuple):
    """An account's lots, either side, by calendar month, and the tiers they give it.

    Tiers are places in the version of their date, from 1; 0: no version is in force then.
    """

    account: int
    lots_last_month: int
    tier: int
    lots_this_month: int
    next_tier: int  # next month's, if it trades no more in this one


def _place(version: AdoptFees | None, lots: int) -> int:
    """The tier of so many lots: how many tiers they reach."""
    return 0 if version is None else sum(tier.from_lots <= lots for tier in version.tiers)


def month_after(month: int) -> int:
    """The month after one of the form yyyymm."""
    return month + 1 if month % _MONTH < 12 else month + _MONTH - 11


def month_before(month: int) -> int:
    """The month before one of the form yyyymm."""
    return month - 1 if month % _MONTH > 1 else month - _MONTH + 11
