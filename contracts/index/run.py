"""Fixes days from an observation file onto a tape: all of them or none.

``fix_through`` and ``revise`` return a new tape and leave the given one unchanged, also on errors.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from enum import IntEnum
from itertools import islice
from typing import Final, NamedTuple

from contracts.index.anchors import AnchorTable, Past, anchor_table
from contracts.index.fixing import Fixing, fix, locate, rules_of, seats_of
from contracts.index.methodology import Index, Methodology
from contracts.index.numbers import price_micros
from contracts.index.observations import (
    EPOCH_DAY,
    NS_OF_DAY,
    Batch,
    ByDay,
    FileRefusal,
    Observation,
    RefusedFile,
    by_day,
    fingerprints,
    fresh,
)
from contracts.index.tape import Capture, Tape
from contracts.index.votes import Day, Feeds, day_of

DAYS_MAX: Final = 3_660

Advance = Callable[[int, int], None]


class RunRefusal(IntEnum):
    """Why days could not be fixed. The numbers are frozen, as those of ``observations``."""

    ALREADY_FIXED = 2251  # to correct it, use a revision
    OUT_OF_ORDER = 2252  # a later day is fixed, a day would be skipped, or indices are not level
    NOT_FIXED = 2253  # nothing to revise or reproduce
    UNCHANGED = 2254  # the revision would have the same inputs and rules
    RANGE = 2255  # the last day is before the first, or ``DAYS_MAX`` or more after it; before 1970
    CLOCK = 2256  # the time given is before the tape's last entry
    NOT_OVER = 2257  # the last day is not over yet


class RefusedRun(ValueError):
    """Nothing was fixed."""

    def __init__(self, refusal: RunRefusal, said: str) -> None:
        self.refusal = refusal
        super().__init__(f"{refusal.name} ({int(refusal)}): {said}")


def fix_through(
    tape: Tape,
    methodology: Methodology,
    batch: Batch,
    codes: Sequence[str],
    last: date,
    *,
    recorded_ns: int,
    first: date | None = None,
    advance: Advance | None = None,
) -> tuple[Tape, list[Fixing]]:
    """Fix every day from ``first`` to ``last``; return the longer tape and the new fixings, by day
    and code.

    ``first`` is by default the day after the tape's last or, on a tape without fixings, the first
    day observed in the file. Fixings depend on earlier days, so days without observations are
    withheld, not skipped. ``recorded_ns`` is when the entries become known. ``advance(done, days)``
    is called before each day.

    Raises RefusedRun (CLOCK, OUT_OF_ORDER, RANGE, ALREADY_FIXED, NOT_OVER), RefusedFile (REPLAYED),
    TapeError for an entry that is too long, LookupError for an unknown code.
    """
    grown = _copy(tape, recorded_ns)
    _refuse_uneven(grown, codes)
    days = _days(grown, batch, codes, first, last)
    _refuse_replay(grown, batch, codes, days)
    _refuse_fixed(grown, codes, days, recorded_ns)
    return grown, _fix_days(grown, methodology, batch, codes, days, recorded_ns, advance)


def _fix_days(
    grown: Tape,
    methodology: Methodology,
    batch: Batch,
    codes: Sequence[str],
    days: Sequence[date],
    recorded_ns: int,
    advance: Advance | None = None,
) -> list[Fixing]:
    """Append a capture, and the anchor tables and fixings of its days; return the fixings."""
    observed = by_day(batch.observations)
    feeds = _feeds_before(grown, observed, days[0], codes)
    prints = _prints(observed, days)
    grown.append(_capture(batch, codes, prints), recorded_ns)
    fixings = []
    for done, on in enumerate(days):
        if advance is not None:
            advance(done, len(days))
        seen = _days_of(on, observed.get(on.toordinal(), []), prints[on], feeds)
        for code in codes:
            index = methodology.index(code)
            fixings.append(_fix_day(grown, methodology, index, seen[code], recorded_ns))
    return fixings


def revise(
    tape: Tape,
    methodology: Methodology,
    batch: Batch,
    codes: Sequence[str],
    on: date,
    *,
    recorded_ns: int,
) -> tuple[Tape, list[Fixing]]:
    """Fix one day again from other observations; return the longer tape and the new revisions.

    The month's anchors and the previous day's gate state stay as first fixed, later days are not
    changed, and an index with the same inputs and rules gets no revision.

    Raises RefusedRun (CLOCK, NOT_FIXED, UNCHANGED), RefusedFile (REPLAYED), TapeError for an entry
    that is too long, LookupError for an unknown code.
    """
    grown = _copy(tape, recorded_ns)
    _refuse_replay(grown, batch, codes, [on])
    observed = by_day(batch.observations)
    feeds = _feeds_before(grown, observed, on, codes)
    prints = _prints(observed, [on])
    seen = _days_of(on, observed.get(on.toordinal(), []), prints[on], feeds)
    grown.append(_capture(batch, codes, prints), recorded_ns)
    fixings = []
    for code in codes:
        known = grown.fixing(code, on)
        if known is None:
            raise RefusedRun(RunRefusal.NOT_FIXED, f"{code} {on} has no fixing to revise")
        table = grown.table(code, on)
        again = fix(
            methodology.index(code),
            methodology,
            seen[code],
            table,
            was_open=_was_open(grown, code, on),
            revision=known.revision + 1,
        )
        if again.inputs_hash == known.inputs_hash and again.rules_hash == known.rules_hash:
            continue
        grown.append(again, recorded_ns)
        fixings.append(again)
    if not fixings:
        raise RefusedRun(RunRefusal.UNCHANGED, f"{on} has these very inputs in every index already")
    return grown, fixings


class Again(NamedTuple):
    """The result of reproducing a file's captures."""

    runs: int  # captures that were reproduced
    other_rules: int  # captures skipped because their fixings were made by other rules
    differ: list[str]  # ranges of entries that came out differently


def reproduce(
    tape: Tape, methodology: Methodology, file_hash: bytes, read_at: Callable[[int], Batch]
) -> Again:
    """Repeat every capture of a file on the tape as it was before, and compare all entries up to
    the next capture byte for byte.

    ``read_at`` reads the file with the clock at a moment in ns, so that observations that were in
    the future at the capture are rejected again. Raises RefusedRun (NOT_FIXED) if the tape has no
    capture of the file.
    """
    runs, other_rules, differ = 0, 0, []
    for before, recorded in enumerate(tape):
        capture = recorded.entry
        if not isinstance(capture, Capture) or capture.file_hash != file_hash.hex():
            continue
        if not _has_these_rules(tape, before, methodology):
            other_rules += 1
            continue
        runs += 1
        days = sorted(date.fromisoformat(day) for day in capture.prints)
        again, at = tape.prefix(before), recorded.recorded_ns
        batch, codes = read_at(at), capture.indices
        if again.fixing(codes[0], days[0]) is None:
            _fix_days(again, methodology, batch, codes, days, at)
        else:
            again, _ = revise(again, methodology, batch, codes, days[0], recorded_ns=at)
        end = _end_of(tape, before)
        if len(again) != end or again.head != tape.head_at(end):
            differ.append(f"entries {before + 1} to {max(end, len(again))}")
    if not runs and not other_rules:
        said = f"the tape has no capture of file {file_hash.hex()[:16]}"
        raise RefusedRun(RunRefusal.NOT_FIXED, said)
    return Again(runs, other_rules, differ)


def unfounded(tape: Tape) -> list[str]:
    """Return the entries that no capture accounts for: of an index or a day that the capture before
    them does not name, or a second one of the same."""
    found: list[str] = []
    capture: Capture | None = None
    seen: set[tuple[type, str, date]] = set()
    for recorded in tape:
        entry = recorded.entry
        if isinstance(entry, Capture):
            capture = entry
            seen.clear()
            continue
        on = entry.date if isinstance(entry, Fixing) else entry.first_day
        own = (type(entry), entry.index, on)
        named = capture and entry.index in capture.indices and f"{on}" in capture.prints
        if not named or own in seen:
            found.append(f"entry {recorded.number}, {entry.index} {on}: of no file")
        seen.add(own)
    return found


def _end_of(tape: Tape, capture: int) -> int:
    """How many entries the tape has before the capture that follows ``capture`` (from 0)."""
    rest = enumerate(islice(tape, capture + 1, None), start=capture + 1)
    return next((at for at, one in rest if isinstance(one.entry, Capture)), len(tape))


def _has_these_rules(tape: Tape, capture: int, methodology: Methodology) -> bool:
    """Whether the fixings that followed a capture were made by these rules."""
    used = tape[capture].entry
    if not isinstance(used, Capture) or not methodology.indices.keys() >= set(used.indices):
        return False
    for recorded in islice(tape, capture + 1, _end_of(tape, capture)):
        entry = recorded.entry
        assert not isinstance(entry, Capture)
        known = entry.index in methodology.indices
        if not known or methodology.rules_hash(entry.index).hex() != entry.rules_hash:
            return False
    return True


def recompute(fixing: Fixing, index: Index, table: AnchorTable) -> int | None:
    """Return the price (millionths) of a fixing's own votes with its table; None if no vote has an
    anchor."""
    seats = seats_of(table, fixing.votes)
    return price_micros(locate(seats, rules_of(index, table)).log) if seats else None


def _fix_day(
    tape: Tape, methodology: Methodology, index: Index, day: Day, recorded_ns: int
) -> Fixing:
    table = tape.table(index.code, day.date)
    if table is None:
        table = _new_table(tape, methodology, index, day.date)
        if table is not None:
            tape.append(table, recorded_ns)
    was_open = _was_open(tape, index.code, day.date)
    fixing = fix(index, methodology, day, table, was_open=was_open)
    tape.append(fixing, recorded_ns)
    return fixing


def _new_table(tape: Tape, methodology: Methodology, index: Index, on: date) -> AnchorTable | None:
    """The anchor table of a month that has none yet, from the tape alone; None if there are too few
    days or providers."""
    begun = [table for table in tape.tables(index.code) if table.level is not None]
    least_coverage, memory = index.gates.coverage_percent.keep, index.anchor_days
    past = []
    for day in tape.days(index.code):
        if not 0 < (on - day).days <= memory:
            continue
        fixing = tape.fixing(index.code, day)
        assert fixing is not None
        if fixing.published or fixing.gates.get("coverage_percent", 0) >= least_coverage:
            log = fixing.log
        else:  # a day from which the index began, or began again, stands at that table's level
            before = (table for table in begun if 0 < (table.first_day - day).days <= memory)
            log = next((table.level for table in before), None)
        past.append(Past(day, fixing.votes, log))
    routes = {
        name: methodology.route(name)
        for name, provider in methodology.providers.items()
        if provider.venue in index.venues
    }
    rules_hash = methodology.rules_hash(index.code).hex()
    return anchor_table(index, routes, on, past, rules_hash)


def _was_open(tape: Tape, code: str, on: date) -> bool:
    """Whether the index had a number the day before, as that day was first fixed."""
    before = tape.revisions(code, on - timedelta(days=1))
    return bool(before) and before[0][1].published


def _copy(tape: Tape, recorded_ns: int) -> Tape:
    if recorded_ns < tape.recorded_ns:
        said = f"the tape's last entry became known at {tape.recorded_ns} ns, after {recorded_ns}"
        raise RefusedRun(RunRefusal.CLOCK, said)
    return Tape.decode(tape.encode())


def _days(
    tape: Tape, batch: Batch, codes: Sequence[str], first: date | None, last: date
) -> list[date]:
    fixed = sorted({day for code in codes for day in tape.days(code)})
    if first is None and fixed:
        first = fixed[-1] + timedelta(days=1) if fixed[-1] < last else last
    elif first is None:
        fresh_days = {seen.day for seen in batch.observations if fresh(seen)}
        first = date.fromordinal(min(fresh_days)) if fresh_days else last
    assert first is not None
    if first.toordinal() < EPOCH_DAY:
        raise RefusedRun(RunRefusal.RANGE, f"{first}: no observation is from before 1970")
    if not 0 <= (last - first).days < DAYS_MAX:
        do = "fix fewer at a time" if fixed else "--from names another first day"
        said = f"from {first} to {last} is not 1 to {DAYS_MAX} days; {do}"
        raise RefusedRun(RunRefusal.RANGE, said)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _refuse_uneven(tape: Tape, codes: Sequence[str]) -> None:
    """Refuse indices with different last days: one run of days could not continue them all."""
    last = {code: days[-1] for code in codes if (days := tape.days(code))}
    if len(set(last.values())) > 1:
        said = ", ".join(f"{code} to {day}" for code, day in last.items())
        said = f"fixed are {said}; --index brings each of them to the same day first"
        raise RefusedRun(RunRefusal.OUT_OF_ORDER, said)


def _refuse_fixed(tape: Tape, codes: Sequence[str], days: Sequence[date], now_ns: int) -> None:
    fixed = {day for code in codes for day in tape.days(code)}
    for day in days:
        if day in fixed:
            said = f"{day} has its fixing; a corrected file goes in with --revise"
            raise RefusedRun(RunRefusal.ALREADY_FIXED, said)
    if fixed and days[0] < max(fixed):
        raise RefusedRun(RunRefusal.OUT_OF_ORDER, f"{max(fixed)}, a later day, is fixed already")
    if fixed and (days[0] - max(fixed)).days > 1:
        said = f"the days between {max(fixed)} and {days[0]} could never be fixed: leave --from out"
        raise RefusedRun(RunRefusal.OUT_OF_ORDER, said)
    if now_ns < end_ns(days[-1]):
        raise RefusedRun(RunRefusal.NOT_OVER, f"{days[-1]} is fixed when it is over, UTC")


def _refuse_replay(tape: Tape, batch: Batch, codes: Sequence[str], days: Sequence[date]) -> None:
    """Refuse the same file for days that it was used for; it may be used for later days."""
    name = batch.file_hash.hex()
    for capture in tape.captures():
        again = capture.file_hash == name and set(codes) & set(capture.indices)
        if again and all(f"{day}" in capture.prints for day in days):
            raise RefusedFile(FileRefusal.REPLAYED, "once", name[:16])


def _feeds_before(
    tape: Tape, observed: ByDay, first: date, codes: Sequence[str]
) -> list[tuple[list[str], Feeds]]:
    """The feeds as of the day before ``first``, from the tape and the file's earlier days: groups
    of indices and the feeds that they share.

    An index has its feeds from the files that it was fixed from. Where others were fixed from files
    of their own, a feed that never changes would otherwise differ from file to file and never be
    stale.
    """
    captures = list(tape.captures())
    groups: dict[tuple[bool, ...], list[str]] = {}
    for code in codes:
        groups.setdefault(tuple(code in one.indices for one in captures), []).append(code)
    earlier = {
        date.fromordinal(day): fingerprints(observations)
        for day, observations in observed.items()
        if day < first.toordinal()
    }
    found = []
    for owns, members in groups.items():
        prints = earlier | _prints_before(captures, owns, first)
        feeds = Feeds()
        for day in sorted(prints):
            feeds.note(day, prints[day])
        found.append((members, feeds))
    return found


def _prints_before(
    captures: Sequence[Capture], owns: Sequence[bool], first: date
) -> dict[date, dict[str, bytes]]:
    """The last fingerprints of every day before ``first``: of the captures marked in ``owns``, and
    of any other for a day that these lack."""
    prints: dict[date, dict[str, bytes]] = {}
    for wanted in (False, True):
        for capture, own in zip(captures, owns, strict=True):
            if own is not wanted:
                continue
            for text, of_day in capture.prints.items():
                if (on := date.fromisoformat(text)) < first:
                    prints[on] = {p: bytes.fromhex(print_) for p, print_ in of_day.items()}
    return prints


def _days_of(
    on: date,
    observations: Sequence[Observation],
    prints: Mapping[str, bytes],
    feeds: Sequence[tuple[list[str], Feeds]],
) -> dict[str, Day]:
    """The day as each index sees it. Updates the feeds."""
    seen: dict[str, Day] = {}
    for members, known in feeds:
        seen |= dict.fromkeys(members, day_of(on, observations, prints, known))
    return seen


def _prints(observed: ByDay, days: Sequence[date]) -> dict[date, dict[str, bytes]]:
    return {day: fingerprints(observed.get(day.toordinal(), [])) for day in days}


def _capture(
    batch: Batch, codes: Sequence[str], prints: Mapping[date, Mapping[str, bytes]]
) -> Capture:
    rejected = Counter(row.screen.name for row in batch.rejected)
    return Capture(
        file_hash=batch.file_hash.hex(),
        indices=tuple(codes),
        observations=len(batch.observations),
        rejected=dict(sorted(rejected.items())),
        prints={
            f"{day}": {provider: found.hex() for provider, found in of_day.items()}
            for day, of_day in prints.items()
        },
    )


def end_ns(day: date) -> int:
    """Return the first instant after a day, UTC, in nanoseconds since the epoch."""
    return (day.toordinal() + 1 - EPOCH_DAY) * NS_OF_DAY
