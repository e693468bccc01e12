"""The adopted margin parameters of a market, a function of the log."""

from typing import TYPE_CHECKING, Any, ClassVar

from exchange.clearing.margin.parameters import MarginParameters, fault, root_of
from exchange.clearing.matters import ACCEPTED, At, Matter, Ruling
from exchange.clearing.moves import refused
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State


class AdoptMargin(Record, frozen=True, kw_only=True, tag="adopt_margin"):
    """An operator adopts a set of margin parameters."""

    parameters: MarginParameters


class MarginVersions(Matter):
    """The adopted versions that are in force or have a later effective date.

    An adoption drops the versions that are no longer in force, and those that would take effect on
    or after its own date. The rulings and the log keep them.
    """

    name: ClassVar[str] = "margin"
    records: ClassVar[tuple[type[Record], ...]] = (AdoptMargin,)
    adopted: tuple[MarginParameters, ...] = ()

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Adopt the next version, or rule it refused with the fault's name; the earlier version
        then stays in force."""
        new: MarginParameters = record.parameters
        facts: dict[str, Any] = {"version": new.version, "effective": new.effective}
        if at.account != HOUSE_ACCOUNT:
            return refused("adopt_margin", Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        found = fault(new, self.version, at.business_date, products(state))
        if found is not None:
            facts |= {"number": int(found.fault), "what": found.what}
            facts |= {"limit": found.limit, "observed": found.observed}
            return Ruling("adopt_margin", found.fault.name.lower(), facts)
        kept = self.in_force(at.business_date)
        waiting = [a for a in self.adopted if at.business_date < a.effective < new.effective]
        self.adopted = (*(() if kept is None else (kept,)), *waiting, new)
        return Ruling("adopt_margin", ACCEPTED, facts | {"inputs_hash": new.inputs_hash})

    @property
    def version(self) -> int:
        """The number of the last version adopted, in force or not yet; 0 before the first."""
        return self.adopted[-1].version if self.adopted else 0

    def in_force(self, business_date: int) -> MarginParameters | None:
        """Return the version in force on a business date (yyyymmdd); None before the first."""
        found = [one for one in self.adopted if one.effective <= business_date]
        return found[-1] if found else None


def products(state: "State") -> set[str]:
    """Return the products of the listed instruments that have not expired."""
    roots = (root_of(listed.code) for listed in state.instruments.values() if not listed.expired)
    return {root for root in roots if root}
