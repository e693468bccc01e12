"""Fee tiers, which are discounts by the lots of the previous calendar month, and final fees.

The engine charges every account the fees of the contract's terms. When a date closes, each account
is paid back the share of its tier of what it paid that date as maker and as taker, rounded down.
The tier follows from its lots, on either side, in the calendar month before, so the cost of a trade
is known in advance. Rebates are not fees and do not change. The house pays the discounts: the sum
is zero. A schedule of tiers is a version recorded in the log for a later date.

When a cash contract expires, each account pays the final fee of its terms for every lot that it
held. Of a physical one a delivery's sides pay it with the invoice (exchange.clearing.delivery).
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, NamedTuple

import msgspec
from msgspec import Meta

from contracts.spec import PHYSICAL
from exchange.clearing.expiry import listing
from exchange.clearing.matters import ACCEPTED, MALFORMED, At, Due, Matter, Ruling, refused
from exchange.clearing.moves import ask, take
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind
from exchange.messages.dates import date_of

if TYPE_CHECKING:
    from exchange.clearing.state import State

TIERS_MAX: Final = 16
_BP: Final = 10_000
_MONTH: Final = 100  # a date of the form yyyymmdd over this is its month
Share = Annotated[int, Meta(ge=0, le=_BP)]


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shares of fees given back from a number of lots a month on, in basis points."""

    from_lots: Annotated[int, Meta(ge=0)]
    maker_bp: Share
    taker_bp: Share


class AdoptFees(Record, frozen=True, kw_only=True, tag="adopt_fees"):
    """A version of the tiers, in force from the business date ``effective`` on."""

    version: int
    effective: int
    tiers: Annotated[tuple[Tier, ...], Meta(max_length=TIERS_MAX)]


NO_TIER: Final = Tier(0, 0, 0)


class Fees(Matter):
    """The adopted versions, every account's lots of the present and the previous month, and the
    final fees of listed cash contracts."""

    name: ClassVar[str] = "fees"
    records: ClassVar[tuple[type[Record], ...]] = (AdoptFees,)
    watches: ClassVar[tuple[EventKind, ...]] = (
        EventKind.DAY_CLOSED,
        EventKind.INSTRUMENT_LISTED,
        EventKind.INSTRUMENT_EXPIRED,
    )
    adopted: list[AdoptFees] = msgspec.field(default_factory=list)  # in force, and later ones
    lots: dict[int, dict[int, int]] = msgspec.field(default_factory=dict)  # by yyyymm, account
    counted: int = 0  # the last date whose lots are in ``lots``
    final: dict[int, int] = msgspec.field(default_factory=dict)  # micro-dollars a lot

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Adopt the next version, for a later date, with tiers in order from 0 lots on."""
        operation = "adopt_fees"
        if at.account != HOUSE_ACCOUNT:
            return refused(operation, Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        try:
            date_of(record.effective)
        except ValueError as wrong:
            return Ruling(operation, MALFORMED, {"why": f"effective: {wrong}"})
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
        """Return the version in force on a business date; None before the first."""
        return max(
            (one for one in self.adopted if one.effective <= date),
            key=lambda one: one.effective,
            default=None,
        )

    def tier(self, account: int, date: int) -> Tier:
        """Return an account's tier on a business date."""
        version = self.in_force(date)
        if version is None:
            return NO_TIER
        before = self.lots.get(month_before(date // _MONTH), {}).get(account, 0)
        return version.tiers[_place(version, before) - 1]

    def trader(self, account: int, state: "State") -> "Trader":
        """Return an account's lots by month, including the open date, and its tiers."""
        date, month = state.business_date, state.business_date // _MONTH
        before, this = (self.lots.get(one, {}) for one in (month_before(month), month))
        active = state.activity.get(account)
        today = active.lots if active is not None and self.counted < date else 0
        last, so_far = before.get(account, 0), this.get(account, 0) + today
        following = self.in_force(month_after(month) * _MONTH + 1)
        return Trader(account, last, _place(self.in_force(date), last), so_far,
                      _place(following, so_far))  # fmt: skip

    def saw(self, event: Event, at: At, state: "State") -> list[Ruling] | None:
        """Follow up a listing, an expiry, or a closed date."""
        if event.kind == EventKind.DAY_CLOSED:
            return self._closed(at, state)
        if event.kind == EventKind.INSTRUMENT_EXPIRED:
            fee = self.final.pop(event.instrument, None)
            return None if fee is None else self._final(event.instrument, fee, state)
        listed = listing(at.text)
        if listed is None or listed.settlement == PHYSICAL or not listed.final_fee:
            return None
        self.final[event.instrument] = listed.final_fee
        return []

    def _final(self, instrument: int, fee: int, state: "State") -> list[Ruling]:
        """Request the final fee of who held lots of a cash contract that has expired."""
        due = {
            account: abs(lots) * fee
            for account, lots in sorted(state.ended.items())
            if lots and account != HOUSE_ACCOUNT
        }
        for account, amount in due.items():
            ask(state, *take(f"final {instrument} {account}", account, amount))
        facts = {"instrument": instrument, "fee": fee, "accounts": len(due)}
        return [Ruling("final_fee", "asked", {**facts, "total": sum(due.values())})] if due else []

    def _closed(self, at: At, state: "State") -> list[Ruling]:
        """Count the lots of a closed date, and request its discounts."""
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
    """An account's lots, on either side, by calendar month, and the resulting tiers.

    Tiers are numbered from 1 in the version of their date; 0 if no version is in force then.
    """

    account: int
    lots_last_month: int
    tier: int
    lots_this_month: int
    next_tier: int  # next month's, if it trades no more in this one


def _place(version: AdoptFees | None, lots: int) -> int:
    """Return the number of the tier that ``lots`` reach; 0 without a version."""
    return 0 if version is None else sum(tier.from_lots <= lots for tier in version.tiers)


def month_after(month: int) -> int:
    """Return the next month; months have the form yyyymm."""
    return month + 1 if month % _MONTH < 12 else month + _MONTH - 11


def month_before(month: int) -> int:
    """Return the previous month; months have the form yyyymm."""
    return month - 1 if month % _MONTH > 1 else month - _MONTH + 11
