"""The account of an attestation log: all elapsed time by bucket and by responsible party.

    goodput   = Scheduling x Runtime = productive / elapsed
                Scheduling = available / elapsed, Runtime = productive / available
    delivered = 1 - the seller's losses / elapsed           G in the formula of conversion factors
    MFU       over preserved steps only, so lost time lowers goodput and never MFU as well

A step's time is productive once a checkpoint or the job's orderly end preserves it. The seller
answers for the cost of a disruption unless the cause is one of ``BUYER_CAUSES``: for the whole
outage, but for recovery and for lost steps only up to ``SELLER_RESTART_NS_MAX`` each per
disruption, so that a buyer who takes no checkpoints cannot charge the seller for it. Lost steps are
attributed to the disruption that stopped the job, even if others follow before it resumes. All
other unproductive time is the buyer's.

Invariant, asserted: productive + all buckets = elapsed, to the nanosecond.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

import msgspec

from contracts.goodput import events as ev
from contracts.goodput.events import BUYER_CAUSES, Bucket, Event, Workload
from contracts.goodput.mfu import utilization
from contracts.hardware import gpu_class
from contracts.refusals import Refusal, Refused

SELLER_RESTART_NS_MAX: Final = 3600 * 10**9
JOBS_MAX: Final = 100_000
DISAGREEMENT_E4_MAX: Final = 100  # a larger difference of two logs goes to an arbiter's run
SAME_HOURS_NS: Final = 60 * 10**9
E4: Final = 10_000
E6: Final = 1_000_000


class JobAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One job's preserved and lost steps, productive nanoseconds and MFU (1e-6) within the log."""

    job: str
    workload: Workload
    gpu_class: str
    steps: int  # preserved
    lost_steps: int
    productive_ns: int
    mfu_e6: int


class Loss(msgspec.Struct, frozen=True):
    """Nanoseconds of one bucket, by the party that answers for them."""

    seller_ns: int
    buyer_ns: int


class Presence(NamedTuple):
    """An interval of a log and how many GPUs were named in it; without the seller's outages."""

    from_ns: int
    to_ns: int
    gpus: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The account of a log. Fields ``_e4`` are shares at 1e-4, ``_e6`` at 1e-6, half to even."""

    node: str
    provider: str
    key: str  # public key the log was verified with, hex
    challenge: str
    from_ns: int
    to_ns: int
    elapsed_ns: int
    productive_ns: int
    losses: dict[str, Loss]
    scheduling_e4: int
    runtime_e4: int
    goodput_e4: int
    delivered_e4: int
    mfu_e6: int | None  # None where no step was preserved
    disruptions: int
    seller_disruptions: int
    steps: int
    lost_steps: int
    gpus: tuple[str, ...]  # every GPU named at any time, sorted
    gpu_classes: tuple[str, ...]  # their classes, sorted
    most_gpus: int  # most GPUs named at one moment
    there: tuple[Presence, ...]  # in order of time, without overlap
    jobs: tuple[JobAccount, ...]

    @property
    def seller_ns(self) -> int:
        """Nanoseconds that the seller answers for, of all buckets."""
        return sum(loss.seller_ns for loss in self.losses.values())


class _Job:
    """A running job. ``done[n]`` is its work in ns when step ``base + n + 1`` was complete."""

    __slots__ = ("base", "done", "last_preserved", "lost_steps", "preserved", "start", "worked")

    def __init__(self, start: ev.JobStart) -> None:
        self.start = start
        self.base = start.step
        self.done: list[int] = []
        self.worked = 0  # ns of stepping since the job's start, without lost work
        self.preserved = {start.step}
        self.last_preserved = start.step
        self.lost_steps = 0

    @property
    def step(self) -> int:
        return self.base + len(self.done)

    def work_until(self, step: int) -> int:
        return self.done[step - self.base - 1] if step > self.base else 0


class Accountant:
    """Accounts for a log's events, taken in order; ``result`` after the last of them.

    ``name`` identifies the log in refusals.
    """

    def __init__(self, name: str = "log") -> None:
        self._name = name
        self._line = 0
        self._open: ev.Open | None = None
        self._closed = False
        self._last = 0
        self._activity: Bucket | None = Bucket.IDLE  # None while stepping
        self._job: _Job | None = None
        self._job_class = ""  # GPU class of the running job
        self._cause: str | None = None  # of the ongoing disruption
        self._stopped: str | None = None  # cause of the first disruption since the job last ran
        self._recovery = 0  # ns of RECOVERY since the last disruption
        self._spent = [[0, 0] for _ in Bucket]  # seller, buyer
        self._productive = 0
        self._disruptions = [0, 0]
        self._nodes: dict[str, ev.Hardware] = {}
        self._places: dict[str, str] = {}  # node of each GPU named now
        self._refitted = False  # hardware changed since it was last compared with the job's
        self._gpus: set[str] = set()
        self._classes: set[str] = set()
        self._most_gpus = 0
        self._there: list[Presence] = []
        self._jobs: list[JobAccount] = []
        self._handlers = {
            ev.Begin: self._begin,
            ev.Checkpoint: self._checkpoint,
            ev.Disruption: self._disruption,
            ev.Available: self._available,
            ev.Resume: self._resume,
            ev.JobStart: self._job_start,
            ev.JobEnd: self._job_end,
            ev.Hardware: self._hardware,
            ev.Counters: self._counters,
            ev.Open: self._opened,
            ev.Close: self._close,
        }

    def take(self, events: Sequence[Event], first_line: int = 1) -> None:
        """Account for the next events, of which the first stands in line ``first_line``.

        Raises Refused TIME_ORDER, STEP_ORDER, STATE, GPU_TWICE, GPU_COUNT, UNKNOWN_GPU, TOO_LARGE
        (more than ``JOBS_MAX`` jobs), or at a job's end as ``mfu.utilization`` does.
        """
        at = 0
        others = [n for n, kind in enumerate(map(type, events)) if kind is not ev.Step]
        for place in (*others, len(events)):
            if at < place:
                self._steps(events[at:place], first_line + at)  # type: ignore[arg-type]
            if place < len(events):
                self._one(events[place], first_line + place)
            at = place + 1

    def _one(self, event: Event, line: int) -> None:
        """Account for an event that is not a step."""
        self._line = line
        if self._closed:
            raise self._refused(Refusal.STATE, "nothing follows close")
        self._pass_until(event.at)
        self._handlers[type(event)](event)  # type: ignore[operator]

    def _steps(self, steps: Sequence[ev.Step], first_line: int) -> None:
        """Account for consecutive steps at once: they are the bulk of any log."""
        job = self._job
        self._line = first_line
        if job is None or self._activity is not None or self._cause is not None:
            raise self._refused(Refusal.STATE, "no job is stepping here")
        if self._refitted:
            self._check_fit(job.start.workload)
        # In a run of steps all time is work: a step's work is its moment minus one constant.
        moments = [step.at for step in steps]
        numbers = [step.step for step in steps]
        first = job.step + 1
        if numbers != list(range(first, first + len(numbers))):
            place = next(n for n, number in enumerate(numbers) if number != first + n)
            self._line = first_line + place
            wanted = first + place
            raise self._refused(
                Refusal.STEP_ORDER, "steps are counted one by one", wanted, numbers[place]
            )
        if moments[0] < self._last or moments != sorted(moments):
            before = [self._last, *moments]
            place = next(n for n, now in enumerate(moments) if now < before[n])
            self._line = first_line + place
            raise self._refused(Refusal.TIME_ORDER, "time goes back", before[place], moments[place])
        idle = self._last - job.worked
        self._were_there(moments[-1])
        job.done.extend([moment - idle for moment in moments])
        job.worked, self._last = moments[-1] - idle, moments[-1]

    def _pass_until(self, now: int) -> None:
        """Book the time since the last event to the current activity."""
        if self._open is None:
            self._last = now
            return
        span = now - self._last
        if span < 0:
            raise self._refused(Refusal.TIME_ORDER, "time goes back", self._last, now)
        gone = self._activity is Bucket.UNAVAILABLE
        if not (gone and _is_sellers(self._cause)):
            self._were_there(now)
        self._last = now
        if self._activity is None:
            assert self._job is not None
            self._job.worked += span
        elif self._activity is Bucket.RECOVERY:
            self._recovery += span
        else:
            self._book(self._activity, span, self._cause if gone else None)

    def _were_there(self, now: int) -> None:
        """Note that the GPUs now named were present from the last event to ``now``."""
        gpus = len(self._places)
        if not gpus or now == self._last:
            return
        begun = self._last
        if self._there and self._there[-1][1:] == (begun, gpus):
            begun = self._there.pop().from_ns
        self._there.append(Presence(begun, now, gpus))

    def _book(self, bucket: Bucket, span: int, cause: str | None, most: int | None = None) -> None:
        """Book a loss of ``span`` ns: of a seller's disruption at most ``most`` to the seller."""
        theirs = 0
        if _is_sellers(cause):
            theirs = span if most is None else min(span, most)
        self._spent[bucket][0] += theirs
        self._spent[bucket][1] += span - theirs

    def _refused(
        self, reason: Refusal, what: str, limit: object = "", seen: object = ""
    ) -> Refused:
        return Refused(reason, what, where=f"{self._name}:{self._line}", limit=limit, seen=seen)

    def _opened(self, event: ev.Open) -> None:
        if self._open is not None:
            raise self._refused(Refusal.STATE, "a log is opened once")
        self._open = event

    def _running(self) -> _Job:
        if self._job is None:
            raise self._refused(Refusal.STATE, "no job runs")
        return self._job

    def _hardware(self, event: ev.Hardware) -> None:
        gpu_class(event.gpu_class)
        twice = [g for g in event.gpus if self._places.get(g, event.node) != event.node]
        if twice or len(set(event.gpus)) < len(event.gpus):
            seen = min(twice) if twice else ""
            raise self._refused(Refusal.GPU_TWICE, "a GPU is in one place", seen=seen)
        before = self._nodes.pop(event.node, None)
        for gpu in before.gpus if before else ():
            del self._places[gpu]
        if event.gpus:
            self._nodes[event.node] = event
            self._classes.add(event.gpu_class)
        self._places |= dict.fromkeys(event.gpus, event.node)
        self._refitted = True
        self._gpus.update(event.gpus)
        self._most_gpus = max(self._most_gpus, len(self._places))

    def _counters(self, event: ev.Counters) -> None:
        if event.gpu not in self._places:
            raise self._refused(Refusal.STATE, "counters of a GPU not named", seen=event.gpu)

    def _job_start(self, event: ev.JobStart) -> None:
        if self._job is not None or self._cause is not None:
            raise self._refused(Refusal.STATE, "a job runs, or the resources are gone")
        if len(self._jobs) == JOBS_MAX:
            raise self._refused(Refusal.TOO_LARGE, "too many jobs", JOBS_MAX)
        self._job_class = ""
        self._check_fit(event.workload)
        self._job = _Job(event)
        self._activity = Bucket.INITIALIZATION

    def _check_fit(self, work: Workload) -> None:
        """Refuse a job whose GPUs are not exactly those named, or are of several classes.

        MFU divides by the peak of the job's GPUs.
        """
        named = len(self._places)
        if named != work.gpus:
            raise self._refused(Refusal.GPU_COUNT, "a job counts the GPUs named", named, work.gpus)
        kinds = {hardware.gpu_class for hardware in self._nodes.values()}
        own = self._job_class or min(kinds)
        if kinds != {own}:
            raise self._refused(Refusal.UNKNOWN_GPU, "a job runs on one class of GPU")
        self._job_class, self._refitted = own, False

    def _begin(self, event: ev.Begin) -> None:
        self._running()
        if self._cause is not None:
            raise self._refused(Refusal.STATE, "the job is disrupted; resume it first")
        stepping = event.activity == "step"
        self._activity = None if stepping else Bucket[event.activity.upper()]

    def _checkpoint(self, event: ev.Checkpoint) -> None:
        job = self._running()
        if not job.base <= event.step <= job.step:
            raise self._refused(
                Refusal.STEP_ORDER, "no such step is complete", job.step, event.step
            )
        job.preserved.add(event.step)
        job.last_preserved = max(job.last_preserved, event.step)

    def _disruption(self, event: ev.Disruption) -> None:
        self._end_recovery()
        self._disruptions[not _is_sellers(event.cause)] += 1
        self._cause = event.cause
        if self._job is not None and self._stopped is None:
            self._stopped = event.cause
        self._activity = Bucket.UNAVAILABLE

    def _available(self, event: ev.Available) -> None:
        if self._activity is not Bucket.UNAVAILABLE:
            raise self._refused(Refusal.STATE, "the resources are there")
        if self._job is None:
            self._cause = None
        self._activity = Bucket.IDLE if self._job is None else Bucket.RECOVERY

    def _resume(self, event: ev.Resume) -> None:
        job = self._running()
        if self._cause is None:
            raise self._refused(Refusal.STATE, "nothing disrupted the job")
        if event.step not in job.preserved or event.step > job.step:
            raise self._refused(
                Refusal.STEP_ORDER, "this step was not preserved", job.last_preserved, event.step
            )
        self._end_recovery()
        self._lose_after(job, event.step)
        self._cause, self._activity = None, None

    def _end_recovery(self) -> None:
        if self._recovery:
            most = SELLER_RESTART_NS_MAX
            self._book(Bucket.RECOVERY, self._recovery, self._cause, most)
            self._recovery = 0

    def _lose_after(self, job: _Job, step: int) -> None:
        """Book all work after ``step``, also of an incomplete step, as wasted progress."""
        kept = job.work_until(step)
        lost = job.worked - kept
        self._book(Bucket.WASTED_PROGRESS, lost, self._stopped, SELLER_RESTART_NS_MAX)
        self._stopped = None
        job.lost_steps += job.step - step
        job.preserved.difference_update(range(step + 1, job.step + 1))
        del job.done[step - job.base :]
        job.worked = kept
        job.last_preserved = step

    def _job_end(self, event: ev.JobEnd) -> None:
        job = self._running()
        if self._cause is not None:  # ended while disrupted: unpreserved work is lost
            self._end_recovery()
            self._lose_after(job, job.last_preserved)
            if self._activity is Bucket.RECOVERY:
                self._cause = None
        self._settle(job, job.step)
        if self._cause is None:
            self._activity = Bucket.IDLE

    def _close(self, event: ev.Close) -> None:
        job = self._job
        if job is not None:
            if self._cause is not None:
                self._end_recovery()
                self._lose_after(job, job.last_preserved)
            self._settle(job, job.last_preserved)
        self._closed = True

    def _settle(self, job: _Job, step: int) -> None:
        """Close the job: its work up to ``step`` is productive, the rest unpreserved."""
        productive = job.work_until(step)
        self._book(Bucket.UNPRESERVED, job.worked - productive, None)
        work = job.start.workload
        gpu = self._job_class
        steps = step - job.base
        try:
            mfu = utilization(work, gpu, steps, productive)
        except Refused as refused:
            raise self._refused(
                refused.reason, refused.what, refused.limit, refused.seen
            ) from refused
        account = JobAccount(
            job=job.start.job,
            workload=work,
            gpu_class=gpu,
            steps=steps,
            lost_steps=job.lost_steps,
            productive_ns=productive,
            mfu_e6=round(mfu * E6),
        )
        self._jobs.append(account)
        self._productive += productive
        self._job = None

    def result(self) -> Account:
        """Return the account.

        Raises Refused STATE if the log lacks its open or close, TIME_ORDER if no time passed.
        """
        opened = self._open
        if opened is None or not self._closed:
            raise self._refused(Refusal.STATE, "a log begins with open and ends with close")
        elapsed = self._last - opened.at
        if elapsed <= 0:
            raise self._refused(Refusal.TIME_ORDER, "no time passed", seen=elapsed)
        assert self._productive + sum(map(sum, self._spent)) == elapsed, "every nanosecond once"
        gone = sum(self._spent[Bucket.UNAVAILABLE])
        seller = sum(theirs for theirs, _ in self._spent)
        there = elapsed - gone
        return Account(
            node=opened.node,
            provider=opened.provider,
            key=opened.key,
            challenge=opened.challenge,
            from_ns=opened.at,
            to_ns=self._last,
            elapsed_ns=elapsed,
            productive_ns=self._productive,
            losses={b.name: Loss(*self._spent[b]) for b in Bucket if any(self._spent[b])},
            scheduling_e4=share_e4(there, elapsed),
            runtime_e4=share_e4(self._productive, there) if there else 0,
            goodput_e4=share_e4(self._productive, elapsed),
            delivered_e4=share_e4(elapsed - seller, elapsed),
            mfu_e6=self._mfu_e6(),
            disruptions=sum(self._disruptions),
            seller_disruptions=self._disruptions[0],
            steps=sum(job.steps for job in self._jobs),
            lost_steps=sum(job.lost_steps for job in self._jobs),
            gpus=tuple(sorted(self._gpus)),
            gpu_classes=tuple(sorted(self._classes)),
            most_gpus=self._most_gpus,
            there=tuple(self._there),
            jobs=tuple(self._jobs),
        )

    def _mfu_e6(self) -> int | None:
        """MFU of all jobs at 1e-6, weighted by productive GPU time; None without any."""
        flops, capacity = Fraction(0), 0
        for job in self._jobs:
            if job.productive_ns:
                room = job.productive_ns * job.workload.gpus
                flops += room * utilization(
                    job.workload, job.gpu_class, job.steps, job.productive_ns
                )
                capacity += room
        return round(flops / capacity * E6) if capacity else None


def _is_sellers(cause: str | None) -> bool:
    """Whether the seller answers for a disruption of this cause; None means no disruption."""
    return cause is not None and cause not in BUYER_CAUSES


def disagreement_e4(first: Account, second: Account) -> int:
    """Return the difference of two logs' delivered shares, at 1e-4.

    Raises Refused STALE if the logs' starts or ends are more than ``SAME_HOURS_NS`` apart.
    """
    apart = max(abs(first.from_ns - second.from_ns), abs(first.to_ns - second.to_ns))
    if apart > SAME_HOURS_NS:
        raise Refused(Refusal.STALE, "logs of other hours", limit=SAME_HOURS_NS, seen=apart)
    return abs(first.delivered_e4 - second.delivered_e4)


def share_e4(part: int, whole: int) -> int:
    """Return ``part / whole`` at 1e-4, half to even; Refused GOODPUT_RANGE outside 0 to 1."""
    if not 0 <= part <= whole:
        raise Refused(Refusal.GOODPUT_RANGE, "a share lies between 0 and 1", seen=f"{part}/{whole}")
    return round(Fraction(part * E4, whole))
