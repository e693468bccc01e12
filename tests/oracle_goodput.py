"""The account of an attestation log, slow and obvious: one entry per second of the log.

Times are whole seconds. Every second carries a label; a second of work also carries which step it
went into, so that the seconds of lost steps can be labelled again.
"""

from collections import Counter
from collections.abc import Sequence

from contracts.goodput import events as ev
from contracts.goodput.events import Event

SECOND = 10**9
CAP = 3600


class _Oracle:
    def __init__(self) -> None:
        self.spent: Counter[tuple[str, str]] = Counter()
        self.label, self.cause = "IDLE", ""
        self.stopped = ""  # the first cause since the job last ran
        self.recovery = 0  # seconds since the last disruption ended
        self.running = False
        self.work: list[int] = []  # of each second of work the step it went into
        self.done = 0
        self.kept: list[int] = []

    def whose(self, bucket: str) -> str:
        cause = self.stopped if bucket == "WASTED_PROGRESS" else self.cause
        return "buyer" if cause.startswith("buyer") else "seller"

    def second(self) -> None:
        """One second passes."""
        if self.label == "WORK":
            self.work.append(self.done + 1)
        elif self.label == "RECOVERY":
            self.recovery += 1
        elif self.label == "UNAVAILABLE":
            self.spent[self.label, self.whose(self.label)] += 1
        else:
            self.spent[self.label, "buyer"] += 1

    def capped(self, bucket: str, seconds: int) -> None:
        for number in range(seconds):
            self.spent[bucket, self.whose(bucket) if number < CAP else "buyer"] += 1

    def recovered(self) -> None:
        self.capped("RECOVERY", self.recovery)
        self.recovery = 0

    def lose(self, after: int) -> None:
        self.capped("WASTED_PROGRESS", sum(step > after for step in self.work))
        self.work = [step for step in self.work if step <= after]
        self.kept = [step for step in self.kept if step <= after]
        self.done, self.stopped = after, ""

    def ended(self, *, orderly: bool) -> None:
        """The job is over: what is preserved was productive."""
        if not self.running:
            return
        if self.cause:
            self.recovered()
            self.lose(max(self.kept))
        upto = self.done if orderly else max(self.kept)
        for step in self.work:
            self.spent[("PRODUCTIVE", "") if step <= upto else ("UNPRESERVED", "buyer")] += 1
        self.work = []
        self.running = False

    def take(self, event: Event) -> None:
        match event:
            case ev.JobStart():
                self.running, self.label = True, "INITIALIZATION"
                self.done, self.kept = event.step, [event.step]
            case ev.Begin():
                self.label = "WORK" if event.activity == "step" else event.activity.upper()
            case ev.Step():
                self.done += 1
            case ev.Checkpoint():
                self.kept.append(event.step)
            case ev.Disruption():
                self.recovered()
                self.label, self.cause = "UNAVAILABLE", event.cause
                if self.running:
                    self.stopped = self.stopped or event.cause
            case ev.Available():
                self.label = "RECOVERY" if self.running else "IDLE"
                self.cause = self.cause if self.running else ""
            case ev.Resume():
                self.recovered()
                self.lose(event.step)
                self.label, self.cause = "WORK", ""
            case ev.JobEnd() | ev.Close():
                self.ended(orderly=isinstance(event, ev.JobEnd))
                if self.label != "UNAVAILABLE":
                    self.label, self.cause = "IDLE", ""


def account(events: Sequence[Event]) -> dict[tuple[str, str], int]:
    """Seconds by (bucket, who answers), ``("PRODUCTIVE", "")`` among them."""
    oracle, now = _Oracle(), events[0].at
    for event in events:
        for _ in range((event.at - now) // SECOND):
            oracle.second()
        now = event.at
        oracle.take(event)
    return dict(oracle.spent)
