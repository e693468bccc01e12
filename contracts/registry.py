"""The registry of contract specs: loads ``data/*.toml``, keeps the versions, lists expiries.

A product is one file with one or more versions. A version is effective from a date. It governs the
expiries from ``first_expiry`` on, which enter the listing cycle after that date: the terms of a
listed expiry never change. The front expiry is the first whose last trading day has not passed. The
cycle is that one and those after it, ``listed_months`` in all, with the combinations of them.

If any file has a fault, the whole load fails: RegistryError names every fault of every file.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Final

import msgspec

from contracts import cycle, references, symbol
from contracts.calendar import Calendar, CalendarError, Month
from contracts.references import IndexFacts
from contracts.rules import Fault, FilesRefused
from contracts.spec import (
    LISTED_MONTHS_MAX,
    Combination,
    ContractSpec,
    Instrument,
    Listed,
    combination,
)
from contracts.spec_file import file_name, read_file

SPEC_HASH_BYTES: Final = 32
_PERSON: Final = b"hourbook.specs.2"
_PRODUCT_FILES: Final = tuple(file_name(product) for product in symbol.PRODUCTS)


class RegistryError(FilesRefused):
    """The files were refused as a whole; ``faults`` holds every reason."""


class UnknownContractError(LookupError):
    """No spec in force covers this code."""


class Registry(msgspec.Struct, frozen=True):
    """Every version of every product, by (product, effective date), and what they refer to."""

    specs: tuple[ContractSpec, ...]
    calendars: Mapping[str, Calendar]
    indices: Mapping[str, IndexFacts]

    @property
    def products(self) -> tuple[str, ...]:
        return tuple(sorted({spec.product for spec in self.specs}))

    @property
    def spec_hash(self) -> bytes:
        """Digest of the content of all specs, independent of the files and their order."""
        used = {spec.calendar for spec in self.specs}
        calendars = {code: days for code, days in self.calendars.items() if code in used}
        plain = msgspec.to_builtins((self.specs, calendars), str_keys=True)
        canonical = msgspec.json.encode(plain, order="sorted")
        return hashlib.blake2b(canonical, digest_size=SPEC_HASH_BYTES, person=_PERSON).digest()

    def listing(self, on: date, months: int = LISTED_MONTHS_MAX) -> list[Instrument]:
        """Return the expiries in the listing cycle of a day, by product and expiry.

        ``months``: at most so many of each product. A product whose first version is not yet in
        force has none. Raises CalendarError if one of them has days outside its calendar.
        """
        return list(self._cycle(on, lambda spec: min(spec.listed_months, months)))

    def opening(self, on: date) -> list[Instrument]:
        """Return those of the cycle that a market opens by itself: ``opened_months`` per
        product."""
        return list(self._cycle(on, lambda spec: spec.opened_months))

    def combinations(self, on: date, months: int = LISTED_MONTHS_MAX) -> list[Combination]:
        """Return the combinations of a day's cycle: per product spreads, then quarters, then years.
        ``months`` as in ``listing``.

        A spread has two consecutive months. A combination is listed while all its months are.
        Months with different price grids are not combined.
        """
        listed: list[Combination] = []
        expiries = {expiry.code: expiry for expiry in self.listing(on, months)}
        for product in self.products:
            codes = [code for code, expiry in expiries.items() if expiry.product == product]
            wanted = self.spec(product, on).combinations if codes else ()
            for named in _combinations(codes):
                legs = [expiries.get(str(leg)) for leg in named.legs]
                found = [leg for leg in legs if leg is not None]
                if len(found) < len(legs) or len({_grid(leg) for leg in found}) > 1:
                    continue
                made = combination(named, found)
                if made.kind in wanted:
                    listed.append(made)
        return listed

    def find(self, code: str, on: date) -> Listed:
        """Return the expiry or combination that a code names, under the versions in force on a day.

        It need not be listed on that day. Raises symbol.CodeError for a text that is not a code,
        UnknownContractError for a code that no spec covers, CalendarError for days outside the
        calendar.
        """
        named = symbol.parse(code)
        if isinstance(named, symbol.Outright):
            return self._outright(named, on)
        legs = [self._outright(leg, on) for leg in named.legs]
        if len({_grid(leg) for leg in legs}) > 1:
            raise UnknownContractError(f"the months of {code} have different price grids on {on}")
        return combination(named, legs)

    def instrument(self, code: str, on: date) -> Instrument:
        """Like ``find``, but accept the code of a single delivery month only."""
        return self._outright(symbol.parse_outright(code), on)

    def spec(self, product: str, on: date, expiry: Month | None = None) -> ContractSpec:
        """Return the newest version in force on a day; if an expiry is given, the newest that
        governs it.

        Raises UnknownContractError if there is none.
        """
        found = self._version(product, on, expiry)
        if found is None:
            raise UnknownContractError(f"no contract spec covers {product} on {on}")
        return found

    def days(self, spec: ContractSpec) -> Calendar:
        """Return the calendar that a spec names."""
        return self.calendars[spec.calendar]

    def _outright(self, named: symbol.Outright, on: date) -> Instrument:
        spec = self._version(named.root, on, named.expiry)
        if spec is None:
            raise UnknownContractError(f"no contract spec covers {named} on {on}")
        return self._instrument(spec, named.expiry, on)

    def _cycle(self, on: date, months: Callable[[ContractSpec], int]) -> Iterator[Instrument]:
        """Yield the first ``months`` expiries of a day's cycle, by product and expiry."""
        for product in self.products:
            current = self._version(product, on, None)
            if current is None:
                continue
            front = cycle.front_month(self._versions(product, on), on, self.calendars)
            for place in range(months(current)):
                expiry = front.plus(place)
                spec = self._version(product, on, expiry)
                if spec is not None:
                    yield self._instrument(spec, expiry, on)

    def _instrument(self, spec: ContractSpec, expiry: Month, on: date) -> Instrument:
        versions = self._versions(spec.product, on)
        listed_on = cycle.listed_on(versions, expiry, self.calendars)
        return spec.instrument(expiry, self.days(spec), listed_on)

    def _versions(self, product: str, on: date) -> list[ContractSpec]:
        """Return the versions of a product with an effective date up to a day, in order."""
        return [spec for spec in self.specs if spec.product == product and spec.effective <= on]

    def _version(self, product: str, on: date, expiry: Month | None) -> ContractSpec | None:
        versions = self._versions(product, on)
        if expiry is None:
            return versions[-1] if versions else None
        return cycle.governing(versions, expiry)


def _combinations(codes: list[str]) -> Iterator[symbol.Combined]:
    """Yield every combination that begins with one of the months, in the order of the listing."""
    months = [symbol.parse_outright(code) for code in codes]
    yield from (symbol.spread(near) for near in months)
    for count in (symbol.QUARTER_MONTHS, symbol.YEAR_MONTHS):
        starts = (first for first in months if (first.expiry.month - 1) % count == 0)
        yield from (symbol.strip(first, count) for first in starts)


def _grid(leg: Instrument) -> tuple[str, int, int]:
    return leg.tick, leg.price_step, leg.lot_step


@cache
def load() -> Registry:
    """Return the registry of the specs that ship with this package."""
    return read(shipped())


def shipped() -> dict[str, bytes]:
    """Return the files of ``data/`` that the registry reads, as name and content."""
    folder = resources.files("contracts") / "data"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if is_own(entry.name)}


def is_own(name: str) -> bool:
    """Whether a file of a data folder belongs to the registry; the others hold other figures."""
    return name in _PRODUCT_FILES or name in references.FILES


def read(files: Mapping[str, bytes]) -> Registry:
    """Return the registry of spec files, given as name and content.

    Files they refer to (references.FILES) that are not given are taken as shipped. Raises
    RegistryError with every fault.
    """
    own = {name: content for name, content in files.items() if name in references.FILES}
    if len(own) < len(references.FILES):
        own = {name: text for name, text in shipped().items() if name in references.FILES} | own
    known, faults = references.read_references(own)
    specs: list[ContractSpec] = []
    for name in sorted(set(files) - set(own)):
        found_specs, found_faults = read_file(name, files[name], known)
        specs += found_specs
        faults += found_faults
    specs.sort(key=lambda spec: (spec.product, spec.effective))
    faults += _sequence_faults(specs, known.calendars)
    if not specs and not faults:
        faults.append(Fault("", "", "", "at least one contract file is needed"))
    if faults:
        raise RegistryError(faults)
    return Registry(tuple(specs), known.calendars, known.indices or {})


def _sequence_faults(specs: list[ContractSpec], calendars: Mapping[str, Calendar]) -> list[Fault]:
    """Return the faults between the versions of one product; ``specs`` are in order of their
    dates."""
    faults = []
    listed_to: dict[str, Month] = {}  # the furthest month listed before a version takes over
    for place, (before, after) in enumerate(pairwise(specs), start=1):
        if before.product != after.product:
            continue
        if before.effective == after.effective:
            rule = "must differ from every other version's"
            faults.append(Fault(after.product, "effective", str(after.effective), rule))
            continue
        try:
            versions = [spec for spec in specs[:place] if spec.product == after.product]
            front = cycle.front_month(versions, after.effective, calendars)
        except CalendarError as error:
            rule = f"must lie in the calendar of the version before: {error}"
            faults.append(Fault(after.product, "effective", str(after.effective), rule))
            continue
        last = front.plus(before.listed_months - 1)
        last = listed_to[after.product] = max(last, listed_to.get(after.product, last))
        if after.first_expiry <= last:
            rule = f"must be after {last}, which is listed already under {before.effective}"
            faults.append(Fault(after.product, "first_expiry", str(after.first_expiry), rule))
    return faults


__all__ = [
    "CalendarError",
    "Registry",
    "RegistryError",
    "UnknownContractError",
    "is_own",
    "load",
    "read",
    "shipped",
]
