"""The registry of contract specs: loads ``data/*.toml``, keeps the versions, lists expiries.

A product is one file with one or more versions. A version is effective from a date and governs the
expiries from ``first_expiry`` on that enter the listing cycle from then: terms of a listed expiry
never change. The front expiry is the first whose last trading day has not passed; the cycle is
that one and those after it, ``listed_months`` in all.

A file with any fault makes the whole load fail: RegistryError names every fault of every file.
"""

import hashlib
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Final

import msgspec

from contracts import symbol
from contracts.calendar import Month, last_trading_day
from contracts.spec import ContractSpec, Instrument
from contracts.spec_file import Fault, read_file

SPEC_HASH_BYTES: Final = 32
_PERSON: Final = b"hourbook.specs.1"
_PRODUCT_FILES: Final = {f"{root.lower()}{end}.toml" for root in symbol.ROOTS for end in ("", "p")}


class RegistryError(ValueError):
    """The files were refused whole; ``faults`` says every reason."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in faults))


class UnknownContractError(LookupError):
    """No spec in force covers this code."""


class Registry(msgspec.Struct, frozen=True):
    """Every version of every product, by (product, effective date)."""

    specs: tuple[ContractSpec, ...]

    @property
    def products(self) -> tuple[str, ...]:
        return tuple(sorted({spec.product for spec in self.specs}))

    @property
    def spec_hash(self) -> bytes:
        """Digest of everything the specs say, whatever files and order they came from."""
        canonical = msgspec.json.encode(self.specs, order="sorted")
        return hashlib.blake2b(canonical, digest_size=SPEC_HASH_BYTES, person=_PERSON).digest()

    def listing(self, on: date, months: int | None = None) -> list[Instrument]:
        """The instruments listed on a day, by product and expiry.

        ``months`` overrides the number of expiries that the specs state. A product whose
        first version is not yet in force has none.
        """
        front = front_month(on)
        listed: list[Instrument] = []
        for product in self.products:
            current = self._version(product, on, None)
            if current is None:
                continue
            count = current.listed_months if months is None else months
            for expiry in (front.plus(n) for n in range(count)):
                spec = self._version(product, on, expiry)
                if spec is not None:
                    listed.append(spec.instrument(expiry))
        return listed

    def instrument(self, code: str, on: date) -> Instrument:
        """The expiry that a code names, under the version in force on a day.

        Raises symbol.CodeError for a text that is no outright's code, UnknownContractError for one
        that no spec covers. Whether it is listed on that day plays no part.
        """
        outright = symbol.parse_outright(code)
        spec = self._version(outright.product, on, outright.expiry)
        if spec is None or outright.physical:
            raise UnknownContractError(f"no contract spec covers {code} on {on}")
        return spec.instrument(outright.expiry)

    def _version(self, product: str, on: date, expiry: Month | None) -> ContractSpec | None:
        """The latest version in force on a day, of those that govern the expiry if one is given."""
        found = None
        for spec in self.specs:
            governs = expiry is None or spec.first_expiry <= expiry
            if spec.product == product and spec.effective <= on and governs:
                found = spec
        return found


def front_month(on: date) -> Month:
    """The nearest delivery month that still trades on that day."""
    month = Month.of(on)
    return month if on <= last_trading_day(month) else month.plus(1)


@cache
def load() -> Registry:
    """The registry of the specs that ship with this package."""
    folder = resources.files("contracts") / "data"
    return read(
        {
            entry.name: entry.read_bytes()
            for entry in folder.iterdir()
            if entry.name in _PRODUCT_FILES  # the others hold figures, not specs
        }
    )


def read(files: Mapping[str, bytes]) -> Registry:
    """A registry of spec files given as name and content, or RegistryError with every fault."""
    specs: list[ContractSpec] = []
    faults: list[Fault] = []
    for name in sorted(files):
        try:
            found_specs, found_faults = read_file(name, files[name])
        except (ValueError, RecursionError) as error:
            found_specs, found_faults = [], [Fault(name, "", "", f"must be a TOML file: {error}")]
        specs += found_specs
        faults += found_faults
    specs.sort(key=lambda spec: (spec.product, spec.effective))
    faults += _sequence_faults(specs)
    if not specs and not faults:
        faults.append(Fault("", "", "", "at least one contract file is needed"))
    if faults:
        raise RegistryError(faults)
    return Registry(tuple(specs))


def _sequence_faults(specs: list[ContractSpec]) -> list[Fault]:
    """What is wrong between the versions of one product, in order of their dates."""
    faults = []
    for before, after in pairwise(specs):
        if before.product != after.product:
            continue
        if before.effective == after.effective:
            rule = "must differ from every other version's"
            faults.append(Fault(after.product, "effective", str(after.effective), rule))
            continue
        listed_to = front_month(after.effective).plus(before.listed_months - 1)
        if after.first_expiry <= listed_to:
            rule = f"must be after {listed_to}, which is listed already under {before.effective}"
            faults.append(Fault(after.product, "first_expiry", str(after.first_expiry), rule))
    return faults
