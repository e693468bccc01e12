"""The account of an attestation log, slow and obvious: one list entry per second of the log.

Times are whole seconds. Every second carries a label; a second of work also carries which step it
went into. When steps are lost their seconds are labelled again.
"""

from collections import Counter
from collections.abc import Sequence

from contracts.goodput import events as ev
from contracts.goodput.events import Event

SECOND = 10**9
CAP = 3600


def account(events: Sequence[Event]) -> dict[tuple[str, str], int]:
    """Seconds by (bucket, who answers), ``("PRODUCTIVE", "")`` among them."""
    spent: Counter[tuple[str, str]] = Counter()
    label = "IDLE"
    cause = ""
    recovery = 0
    running = False
    work: list[int] = []  # of each second of work the step it went into
    done = base = 0
    kept: list[int] = []
    now = events[0].at

    def whose() -> str:
        return "buyer" if cause.startswith("buyer") else "seller"

    def capped(bucket: str, seconds: int) -> None:
        for second in range(seconds):
            spent[bucket, whose() if second < CAP else "buyer"] += 1

    def lose(after: int) -> None:
        nonlocal done
        lost = [step for step in work if step > after]
        work[:] = [step for step in work if step <= after]
        kept[:] = [step for step in kept if step <= after]
        capped("WASTED_PROGRESS", len(lost))
        done = after

    def finish(upto: int) -> None:
        for step in work:
            spent[("PRODUCTIVE", "") if step <= upto else ("UNPRESERVED", "buyer")] += 1
        work.clear()

    for event in events:
        for _ in range((event.at - now) // SECOND):
            if label == "WORK":
                work.append(done + 1)
            elif label == "RECOVERY":
                recovery += 1
            elif label == "UNAVAILABLE":
                spent[label, whose()] += 1
            else:
                spent[label, "buyer"] += 1
        now = event.at
        match event:
            case ev.JobStart():
                running, label, done, base, kept = (
                    True,
                    "INITIALIZATION",
                    event.step,
                    event.step,
                    [event.step],
                )
            case ev.Begin():
                label = "WORK" if event.activity == "step" else event.activity.upper()
            case ev.Step():
                done += 1
            case ev.Checkpoint():
                kept.append(event.step)
            case ev.Disruption():
                capped("RECOVERY", recovery)
                recovery, label, cause = 0, "UNAVAILABLE", event.cause
            case ev.Available():
                label = "RECOVERY" if running else "IDLE"
                cause = cause if running else ""
            case ev.Resume():
                capped("RECOVERY", recovery)
                recovery = 0
                lose(event.step)
                label, cause = "WORK", ""
            case ev.JobEnd() | ev.Close():
                if running:
                    if cause:
                        capped("RECOVERY", recovery)
                        recovery = 0
                        lose(max(kept))
                    finish(done if isinstance(event, ev.JobEnd) else max(kept))
                running = False
                if label != "UNAVAILABLE":
                    label, cause = "IDLE", ""
    assert base >= 0
    return dict(spent)
