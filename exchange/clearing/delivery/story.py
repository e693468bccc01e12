"""A delivery for display: its stages with their deadlines, and its month by day.

All functions read the result of ``Clearing.delivery``, as ``found``, and decide nothing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from exchange.clearing.delivery.slices import DAY_S, week_of

HEADS: Final = ("time", "stage", "deadline", "what")
OWED: Final = {"true_up": "true-up", "refund": "refund", "dearer": "buy-in", "penalty": "penalty"}
_SHOWN: Final = ("week", "hours", "fixing", "side", "step", "terms")
_CENTS: Final = ("cents", "returned", *OWED)


class DayLine(NamedTuple):
    """One day of a delivery month: GPU-seconds, and cents of its slice.

    ``state`` is ``to come``; ``attested``, by one side or both; ``disputed``; ``settled``, that is
    delivered against payment; ``paid``, with its week; ``failed``, if no hours were available or
    the seller had failed before; ``ended``, if both sides agreed on an alternative or the buyer did
    not pay in.
    """

    day: int
    state: str
    there_s: int  # attested; before settlement by the seller, else by the buyer
    lost_s: int  # of these, lost by the seller
    earned: int
    returned: int  # also of a day after the end, whose slice returns with the escrow


def days(found: Mapping[str, Any]) -> list[DayLine]:
    """Return every day of the month."""
    lost = {
        row["facts"]["day"]: row["facts"]["lost_s"]
        for row in found["events"]
        if (row["operation"], row["outcome"]) == ("delivery", "slice")
    }
    after = {"failing": "failed", "failed": "failed", "alternative": "ended", "unpaid": "ended"}
    unsettled = after.get(found["stage"], "to come")
    paid_out = found["stage"] in ("delivered", "failing", "failed", "alternative")
    lines = []
    for day, there, earned, returned in found["slices"]:
        paid = paid_out or week_of(day) < found["weeks"]
        state = "failed" if not there else "paid" if paid else "settled"
        lines.append(DayLine(day, state, there, lost.get(day, 0), earned, returned))
    for day in range(len(lines) + 1, found["terms"]["days"] + 1):
        seen = found["days"].get(str(day)) if unsettled == "to come" else None
        if seen is None:
            back = found["parts"][day - 1] if paid_out and found["parts"] else 0
            lines.append(DayLine(day, unsettled, 0, 0, 0, back))
            continue
        there, lost_s = seen["seller"] or seen["buyer"] or (0, 0)
        state = "disputed" if seen["disputed"] else "attested"
        lines.append(DayLine(day, state, there, lost_s, 0, 0))
    return lines


def owed(found: Mapping[str, Any]) -> dict[str, int]:
    """Return the cents that a side owes the other at the month's end, by kind."""
    rows = [row["facts"] for row in found["events"] if row["operation"] == "delivery"]
    return {text: facts[name] for facts in rows for name, text in OWED.items() if facts.get(name)}


def stages(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return every stage with its time, deadline and figures.

    Days without a dispute are only in ``days``.
    """
    return [
        (
            time_text(row["stamp"]),
            _stage(row),
            time_text(row["facts"].get("deadline", 0)),
            _what(row["facts"]),
        )
        for row in found["events"]
        if _is_told(row)
    ]


def title(found: Mapping[str, Any]) -> str:
    """Return a title: lots, contract, seller, buyer and stage."""
    return (
        f"delivery {found['id']}: {found['lots']} lots of {found['terms']['code']}, account"
        f" {found['seller']} ({found['provider']}/{found['facility']}) to account"
        f" {found['buyer']}; {found['stage']}"
    )


def share_there(line: DayLine, lots: int) -> float:
    """Return the share of a day's hours that was available, 0 to 1."""
    return line.there_s / (lots * DAY_S)


def time_text(stamp: int) -> str:
    """Return a stamp as text to the second, UTC; empty for 0."""
    return f"{datetime.fromtimestamp(stamp // 10**9, UTC):%Y-%m-%d %H:%M:%S}" if stamp else ""


def cents_text(amount: int) -> str:
    """Return cents as text in dollars."""
    return f"{amount // 100:,}.{amount % 100:02d}"


def _is_told(row: Mapping[str, Any]) -> bool:
    if row["operation"] == "delivery":
        return bool(row["outcome"] != "slice")
    agreed = row["facts"].get("said") in ("held", "noted", "agreed")
    return row["outcome"] == "accepted" and not agreed


def _stage(row: Mapping[str, Any]) -> str:
    if row["operation"] == "attest":
        return f"day {row['facts']['day']} {row['facts']['said']}"
    if row["operation"] == "alternative_delivery":
        return str(row["facts"].get("stage", "signed"))
    return str(row["outcome"])


def _what(facts: Mapping[str, Any]) -> str:
    shown = {name: facts[name] for name in (*_SHOWN, *_CENTS) if facts.get(name)}
    return ", ".join(
        f"{name.replace('_', '-')} {cents_text(value) + ' USD' if name in _CENTS else value}"
        for name, value in shown.items()
    )
