"""Records of ``ml-goodput-measurement`` (Google, Apache-2.0; as of 0.2.3) as attestation events.

Its recorder writes one JSON object per record: ``job_name`` and one or two of ``job_start_time``,
``job_end_time``, ``step_count`` with ``step_start_time``, ``tpu_init_``, ``training_prep_``,
``data_loading_`` and ``custom_badput_event_`` with ``start_time`` or ``end_time``, as float seconds
since the epoch. They are converted as follows:

- A step ends where the next one starts, the last one at the job's end; without a job end the last
  step is lost.
- A step number that starts again means that all steps before it were preserved and the others lost.
  The disruption is dated to the start of the last step before it, the resources' return to the
  job's new start. The records name no cause: the caller states one.
- A job that ended and started again with the next step was not disrupted: it becomes two jobs.
- The excess of a stretch's first step over the mean of the others is startup, as in that library.
- Data loading during steps takes none of their time. Of overlapping phases the one that began first
  counts. Custom events interrupt the step or startup that they fall into. Records of checkpoint
  managers are counted and left out: they would reduce productive time.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from contracts.goodput import events as ev
from contracts.goodput.events import Activity, Event
from contracts.refusals import Refusal, Refused

RECORDS_MAX: Final = 10_000_000
_NANO: Final = 10**9
_PHASES: Final[dict[str, Activity]] = {
    "tpu_init": "initialization",
    "training_prep": "preparation",
    "data_loading": "data_loading",
    "custom_badput_event": "custom",
}


_Phase: TypeAlias = tuple[int, int, Activity]  # from and to in ns


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts that the records lack: where the job ran, on which GPUs, and what it computed."""

    node: ev.Name
    provider: ev.Name
    challenge: ev.Hex32
    gpu_class: ev.Name
    gpus: tuple[ev.Name, ...]
    workload: ev.Workload
    cause: ev.Cause = "unknown"  # of every disruption


class Imported(NamedTuple):
    """The events, and the number of records that were left out."""

    events: list[Event]
    left_out: int


class _Stretch:
    """The records from one start or restart of the job to the next; times in ns."""

    def __init__(self, start: int, phases: Sequence[_Phase] = ()) -> None:
        self.start = start
        self.phases = list(phases)
        self.steps: list[tuple[int, int]] = []  # number and start
        self.end: int | None = None


def records_to_events(records: Sequence[dict[str, Any]], site: Site, key: str) -> Imported:
    """Convert one job's records to events, for a log signed with the public key ``key`` (hex).

    Raises Refused SYNTAX for a malformed record, TIME_ORDER, STEP_ORDER, STATE, and TOO_LARGE for
    more than ``RECORDS_MAX`` records.
    """
    if len(records) > RECORDS_MAX:
        raise Refused(Refusal.TOO_LARGE, "split the records", limit=RECORDS_MAX, seen=len(records))
    _check_job(records)
    stretches, left_out = _stretches(records)
    if not stretches or not stretches[0].steps:
        raise Refused(Refusal.STATE, "the records hold no job start or no step")
    first = stretches[0]
    base = first.steps[0][0]
    out: list[Event] = [
        ev.Open(first.start, ev.SCHEMA, site.node, site.provider, key, site.challenge),
        ev.Hardware(first.start, site.node, site.gpu_class, site.gpus),
        ev.JobStart(first.start, "imported", site.workload, base),
    ]
    resumed = False
    for number, stretch in enumerate(stretches):
        after = stretches[number + 1] if number + 1 < len(stretches) else None
        kept = _kept(stretch, after)
        end = stretch.end if kept > stretch.steps[-1][0] else None
        out += _stretch_events(stretch, after, kept, end, resumed=resumed)
        if end is not None:
            out.append(ev.JobEnd(end))
            base = kept
            if after is not None:
                out.append(ev.JobStart(after.start, "imported", site.workload, base))
        elif after is not None:
            if kept < base:
                what = "a restart goes back behind a job that had ended"
                raise Refused(Refusal.STEP_ORDER, what, limit=base, seen=kept)
            out += _restart(stretch, after, kept, site.cause)
        resumed = end is None
    out.append(ev.Close(max(event.at for event in out)))
    return Imported(out, left_out)


def _check_job(records: Sequence[dict[str, Any]]) -> None:
    """Refuse records of several jobs: the others would look like restarts. Some name no job."""
    named = [(line, r["job_name"]) for line, r in enumerate(records, start=1) if "job_name" in r]
    for line, name in named:
        if name != named[0][1]:
            raise Refused(
                Refusal.STATE, "records of one job at a time", where=f"record {line}",
                limit=ascii(named[0][1])[:80], seen=ascii(name)[:80],
            )  # fmt: skip


def _stretches(records: Sequence[dict[str, Any]]) -> tuple[list[_Stretch], int]:
    """The records by stretch, and how many were left out.

    A restart is a second job start, or a step number that starts again.
    """
    found: list[_Stretch] = []
    open_phases: dict[str, int] = {}
    left_out = 0
    restarted: int | None = None  # job start after steps: a new stretch if steps follow
    phases: list[_Phase] = []  # since ``restarted``
    for line, record in enumerate(records, start=1):
        at, kind = _moment(record, line)
        if kind == "job_start":
            if not found:
                found.append(_Stretch(at))
            elif found[-1].steps:
                restarted, phases = at, []
            continue
        if not found:
            raise Refused(Refusal.STATE, "the job has not started", where=f"record {line}")
        if kind == "step":
            number = record.get("step_count")
            if type(number) is not int or not 0 <= number < ev.STEPS_MAX:
                raise Refused(
                    Refusal.SYNTAX, "step_count is a whole number", where=f"record {line}",
                    limit=f"0 to {ev.STEPS_MAX - 1}", seen=ascii(number)[:40],
                )  # fmt: skip
            steps = found[-1].steps
            again = steps and number <= steps[-1][0]
            if restarted is not None or again:
                found.append(_Stretch(at) if restarted is None else _Stretch(restarted, phases))
                restarted = None
            elif found[-1].end is not None:
                raise Refused(Refusal.STATE, "the job has ended", where=f"record {line}")
            if steps and number > steps[-1][0] + 1:
                raise Refused(
                    Refusal.STEP_ORDER,
                    "steps are counted one by one",
                    where=f"record {line}",
                    limit=steps[-1][0] + 1,
                    seen=number,
                )
            _check_order(found[-1], at, line)
            found[-1].steps.append((number, at))
        elif kind == "job_end" and restarted is not None:
            restarted = None  # a start without any step
        elif kind == "job_end":
            _check_order(found[-1], at, line)
            found[-1].end = at
        elif kind is None:
            left_out += 1
        elif kind.endswith("_start"):
            open_phases[kind.removesuffix("_start")] = at
        elif (begun := open_phases.pop(kind.removesuffix("_end"), None)) is not None:
            open_stretch = found[-1].phases if restarted is None else phases
            open_stretch.append((begun, at, _PHASES[kind.removesuffix("_end")]))
    return found, left_out


def _check_order(stretch: _Stretch, at: int, line: int) -> None:
    """Refuse a step or end before the last step, or the start, of its stretch."""
    last = stretch.steps[-1][1] if stretch.steps else stretch.start
    if at < last:
        raise Refused(
            Refusal.TIME_ORDER, "time goes back", where=f"record {line}", limit=last, seen=at
        )


def _moment(record: dict[str, Any], line: int) -> tuple[int, str | None]:
    """A record's time in ns and its kind; 0 and None for a record that is not used."""
    for field, value in record.items():
        kind = field.removesuffix("_time")
        known = kind.removesuffix("_start").removesuffix("_end") in (*_PHASES, "job")
        if kind != field and (known or kind == "step_start"):
            if type(value) not in (int, float) or not 0 <= value < (1 << 33):
                where = f"record {line}, {field}"
                raise Refused(Refusal.SYNTAX, "not seconds since the epoch", where=where)
            return round(value * _NANO), "step" if kind == "step_start" else kind
    return 0, None


def _kept(stretch: _Stretch, after: _Stretch | None) -> int:
    """The count of steps preserved when the stretch ends: the number of the next one."""
    if after is not None:
        return min(after.steps[0][0], stretch.steps[-1][0] + 1)
    return stretch.steps[-1][0] + (stretch.end is not None)


def _stretch_events(
    stretch: _Stretch, after: _Stretch | None, kept: int, end: int | None, *, resumed: bool
) -> list[Event]:
    """Phases and steps of one stretch, the last step ending at the job's orderly end, if any.

    All time before the first step of a restart is recovery; all time from the start of an
    unfinished last step to the restart is the outage.
    """
    moments = [ev.Step(at, number) for number, at in stretch.steps[1:]]
    if end is not None:
        moments.append(ev.Step(end, stretch.steps[-1][0] + 1))
    inside = _inside(stretch, moments, stretch.steps[-1][1] if after and end is None else end)
    begins = _begins(stretch.steps[0][1], _startup(stretch.steps, kept, inside), inside)
    out: list[Event] = [] if resumed else _before(stretch)
    timed: list[ev.Begin | ev.Step] = [*begins, *moments]
    return out + sorted(timed, key=_order)


def _order(event: ev.Begin | ev.Step) -> tuple[int, int]:
    """Sort key: at one moment a custom event ends first, then a step, then a custom one begins."""
    if isinstance(event, ev.Step):
        return event.at, 1
    return event.at, 2 * (event.activity == "custom")


def _before(stretch: _Stretch) -> list[Event]:
    """The phases before a stretch's first step, without overlap."""
    out: list[Event] = []
    free, begun = stretch.start, stretch.steps[0][1]
    for since, till, activity in sorted(stretch.phases):
        start, free_again = max(since, free), min(till, begun)
        if start <= free_again:
            out += [ev.Begin(start, activity), ev.Begin(free_again, "startup")]
            free = free_again
    return out


def _inside(
    stretch: _Stretch, moments: Sequence[ev.Step], until: int | None
) -> list[tuple[int, int]]:
    """Intervals (ns) of custom events from the first step on, split where a step was complete."""
    free = stretch.steps[0][1]
    found: list[tuple[int, int]] = []
    complete = [step.at for step in moments]  # in order of time
    for since, till, activity in sorted(stretch.phases):
        start, end = max(since, free), till if until is None else min(till, until)
        if activity != "custom" or start >= end:
            continue
        between = complete[bisect_right(complete, start) : bisect_left(complete, end)]
        found += pairwise(sorted({start, *between, end}))
        free = end
    return found


def _begins(begun: int, startup: int, inside: Sequence[tuple[int, int]]) -> list[ev.Begin]:
    """The stretch's changes between startup, steps and custom; ``startup`` is ns of startup."""
    out = [ev.Begin(begun, "startup" if startup else "step")]
    for since, till in inside:
        if startup and since - begun >= startup:
            out.append(ev.Begin(begun + startup, "step"))
            startup = 0
        elif startup:
            startup -= since - begun
        out += [ev.Begin(since, "custom"), ev.Begin(till, "startup" if startup else "step")]
        begun = till
    if startup:
        out.append(ev.Begin(begun + startup, "step"))
    return out


def _startup(steps: list[tuple[int, int]], kept: int, inside: list[tuple[int, int]]) -> int:
    """Nanoseconds by which the first preserved step exceeded the mean of the others, at least 0."""
    begun, ended = [since for since, _ in inside], [till for _, till in inside]
    sums = list(accumulate((till - since for since, till in inside), initial=0))

    def custom(start: int, end: int) -> int:
        """Ns of the intervals from ``start`` to ``end``: they are in order and do not overlap."""
        first, after = bisect_left(begun, start), bisect_right(ended, end)
        return max(0, sums[after] - sums[first])

    spans = [
        end - start - custom(start, end)
        for (_, start), (number, end) in pairwise(steps)
        if number <= kept
    ]
    if len(spans) < 2:
        return 0
    return max(0, spans[0] - sum(spans[1:]) // (len(spans) - 1))


def _restart(stretch: _Stretch, after: _Stretch, kept: int, cause: ev.Cause) -> list[Event]:
    """The events from the disruption, at the last step's start, to the first step after it."""
    number, last = stretch.steps[-1]
    resumed = after.steps[0][1]
    if not last <= after.start <= resumed:
        raise Refused(Refusal.TIME_ORDER, "a restart before what it restarts", seen=after.start)
    out: list[Event] = []
    if kept == number + 1:  # the last step was preserved, though its end is not recorded
        out.append(ev.Step(last, kept))
    return [
        *out,
        ev.Checkpoint(last, kept),
        ev.Disruption(last, cause),
        ev.Available(after.start),
        ev.Resume(resumed, kept),
    ]
