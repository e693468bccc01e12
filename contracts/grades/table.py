"""Published factor tables: versioned, signed, and frozen on the date that the rules set.

A table carries the digests of its inputs, so that anyone with the roster and the logs can recompute
and compare it. A later version changes only the figures: par, formula, roster rules and bounds stay
those of the expiry's listing.
"""

from collections.abc import Sequence
from datetime import date
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from contracts.calendar import Month
from contracts.goodput.keys import TABLE, SigningKey, verify
from contracts.grades import Grade, Lots, Rules, frozen_terms
from contracts.grades.factors import FactorRow, rows
from contracts.grades.measure import Run
from contracts.grades.roster import Roster
from contracts.grades.schedule import Schedule, schedule
from contracts.refusals import UNREADABLE, Refusal, Refused
from contracts.spec import PAR_FACTOR

SCHEMA: Final = 2
SCHEMA_UNITLESS: Final = 1  # without the grade's delivery unit; older logs contain such tables
TABLE_BYTES_MAX: Final = 1 << 20
_PERSON: Final = b"hourbook.inputs"
_TABLE_PERSON: Final = b"hourbook.factors"


class FactorTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The factors of one grade and expiry, as published."""

    schema: int
    grade: str
    expiry: str
    gpu_class: str
    precision: str
    benchmark: str
    benchmark_version: str
    gpus_least: int
    gpus_most: int
    version: int  # of this table, from 1
    replaces: str  # digest of the previous version, empty for the first
    dispute: str  # reason for a later version; empty for the first
    terms: str  # digest of the terms frozen at listing
    inputs: str  # digest of roster and logs
    fixing: str
    schedule: Schedule
    par_delivered_e4: int
    par_mfu_e4: int
    rows: tuple[FactorRow, ...]
    delivery_unit_lots: Lots | UnsetType = UNSET  # of the grade; unset only in schema 1
    key: str = ""
    signature: str = ""

    @property
    def digest(self) -> str:
        """Digest (hex) that the signature covers: of all fields but ``key`` and ``signature``."""
        plain = msgspec.structs.replace(self, key="", signature="")
        content = msgspec.json.encode(plain, order="sorted")
        return blake2b(content, digest_size=32, person=_TABLE_PERSON).hexdigest()

    def factor_of(self, provider: str, facility: str, *, version: int) -> int:
        """Return the factor (1e-4) of a site, for a caller who states the table's version.

        Raises Refused FACTOR_VERSION for another version, FACTOR_BOUNDS for a site without a
        factor.
        """
        if version != self.version:
            raise Refused(
                Refusal.FACTOR_VERSION, "name the published table", limit=self.version, seen=version
            )
        factor = self._row(provider, facility).factor_e4
        assert factor is not None
        return factor

    def fixed_of(self, provider: str, facility: str) -> int:
        """Return the reference goodput (1e-4) for a true-up of a site's delivery.

        Raises Refused FACTOR_BOUNDS for a site without a factor.
        """
        return self._row(provider, facility).fixed_e4

    def _row(self, provider: str, facility: str) -> FactorRow:
        for row in self.rows:
            if (row.provider, row.facility) == (provider, facility) and row.factor_e4 is not None:
                return row
        raise Refused(
            Refusal.FACTOR_BOUNDS, "no deliverable factor", where=f"{provider}/{facility}"
        )


def make(
    roster: Roster,
    runs: Sequence[Run],
    grade: Grade,
    rules: Rules,
    *,
    before: FactorTable | None = None,
    dispute: str = "",
) -> FactorTable:
    """Return the unsigned table of a roster and its runs; ``before`` is the version it replaces.

    Raises Refused FACTOR_VERSION if ``before`` is a table of another grade or expiry, RULES_CHANGED
    if the calendar does not cover the expiry.
    """
    wanted = (roster.grade, roster.expiry)
    if before is not None and (before.grade, before.expiry) != wanted:
        raise Refused(
            Refusal.FACTOR_VERSION, "it replaces a table of the same grade and expiry",
            limit=" ".join(wanted), seen=f"{before.grade} {before.expiry}",
        )  # fmt: skip
    return FactorTable(
        **_header(grade, rules, roster.month),
        version=1 if before is None else before.version + 1,
        replaces="" if before is None else before.digest,
        dispute=dispute,
        inputs=inputs_digest(roster, runs),
        fixing=roster.fixing,
        rows=rows(runs, roster, grade, rules),
    )


def _header(grade: Grade, rules: Rules, expiry: Month) -> dict[str, Any]:
    """The fields of a table that depend only on its grade, rules and expiry."""
    return {
        "schema": SCHEMA,
        "grade": grade.code,
        "expiry": str(expiry),
        "gpu_class": grade.gpu_class,
        "precision": grade.precision,
        "benchmark": grade.benchmark,
        "benchmark_version": grade.benchmark_version,
        "gpus_least": grade.gpus_least,
        "gpus_most": grade.gpus_most,
        "terms": frozen_terms(rules, grade),
        "schedule": schedule(expiry, rules),
        "par_delivered_e4": grade.par_delivered_e4,
        "par_mfu_e4": grade.par_mfu_e4,
        "delivery_unit_lots": grade.delivery_unit_lots,
    }


def inputs_digest(roster: Roster, runs: Sequence[Run]) -> str:
    """Return the digest (hex) of the roster and of every measured log."""
    content = msgspec.json.encode((roster, sorted(run.digest for run in runs)), order="sorted")
    return blake2b(content, digest_size=32, person=_PERSON).hexdigest()


def sign(table: FactorTable, key: SigningKey) -> FactorTable:
    """Return the table signed with the exchange's key."""
    signature = key.sign(TABLE, bytes.fromhex(table.digest))
    return msgspec.structs.replace(table, key=key.public, signature=signature)


def read(content: bytes, *, key: str | None = None) -> FactorTable:
    """Return a published table after checking its signature.

    ``key`` is the exchange's public key (hex); without it the table's own is trusted. Raises
    Refused SYNTAX, TOO_LARGE, VERSION, UNSIGNED, WRONG_KEY.
    """
    if len(content) > TABLE_BYTES_MAX:
        raise Refused(Refusal.TOO_LARGE, "a table", limit=TABLE_BYTES_MAX, seen=len(content))
    try:
        table = msgspec.json.decode(content, type=FactorTable)
        Month.parse(table.expiry)
    except (*UNREADABLE, ValueError) as error:
        raise Refused(Refusal.SYNTAX, f"not a factor table: {error}") from error
    if table.schema != (SCHEMA_UNITLESS if table.delivery_unit_lots is UNSET else SCHEMA):
        raise Refused(Refusal.VERSION, "another schema", limit=SCHEMA, seen=table.schema)
    if not table.signature:
        raise Refused(Refusal.UNSIGNED, "the table is a draft")
    if key is not None and key != table.key:
        raise Refused(Refusal.WRONG_KEY, "not the exchange's key", limit=key, seen=table.key)
    if not verify(table.key, TABLE, bytes.fromhex(table.digest), table.signature):
        raise Refused(Refusal.WRONG_KEY, "the signature is not of this table")
    return table


def check_publication(
    table: FactorTable, before: FactorTable | None, rules: Rules, grade: Grade, today: date
) -> None:
    """Check that a table may be published today; ``before`` is the version published last.

    Raises Refused RULES_CHANGED, FROZEN, FACTOR_VERSION, CLOCK_FUTURE, DISPUTE_CLOSED,
    PROVIDER_TWICE, FACTOR_BOUNDS, GOODPUT_RANGE.
    """
    month = Month.parse(table.expiry)
    header = {name: getattr(table, name) for name in _header(grade, rules, month)}
    if header != _header(grade, rules, month):
        raise Refused(Refusal.RULES_CHANGED, "par, formula, rules and bounds froze at listing")
    days = table.schedule
    if today >= days.frozen:
        raise Refused(Refusal.FROZEN, "factors are frozen", limit=days.frozen, seen=today)
    if before is None:
        if table.version != 1 or table.replaces or table.dispute:
            raise Refused(Refusal.FACTOR_VERSION, "the first version is 1", seen=table.version)
        if today < days.published:
            raise Refused(
                Refusal.CLOCK_FUTURE, "not measured to its end", limit=days.published, seen=today
            )
    elif (table.version, table.replaces) != (before.version + 1, before.digest):
        raise Refused(
            Refusal.FACTOR_VERSION,
            "it replaces another",
            limit=before.version + 1,
            seen=table.version,
        )
    elif not table.dispute or today > days.dispute_last:
        raise Refused(
            Refusal.DISPUTE_CLOSED, "a later version answers a dispute", limit=days.dispute_last,
            seen=today,
        )  # fmt: skip
    _check_rows(table, rules)


def _check_rows(table: FactorTable, rules: Rules) -> None:
    low, high = rules.factor_low_e4, rules.factor_high_e4
    places: set[str] = set()
    for row in table.rows:
        where = f"{row.provider}/{row.facility}"
        if where in places:
            raise Refused(Refusal.PROVIDER_TWICE, "a site has one factor", where=where)
        places.add(where)
        if row.factor_e4 is None:
            continue
        if not low <= row.factor_e4 <= high:
            raise Refused(
                Refusal.FACTOR_BOUNDS, "not deliverable", where=where, limit=f"{low} to {high}",
                seen=row.factor_e4,
            )  # fmt: skip
        if not 0 < row.fixed_e4 <= PAR_FACTOR:
            raise Refused(
                Refusal.GOODPUT_RANGE, "no share to true up to", where=where,
                limit=f"1 to {PAR_FACTOR}", seen=row.fixed_e4,
            )  # fmt: skip
