"""A delivery told: its stages with their deadlines, and its month day by day.

Everything here reads what ``Clearing.delivery`` gives and decides nothing.
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

    ``state``: ``to come``; ``attested``, by one side or both; ``disputed``; ``settled``, that is
    delivered against payment; ``paid``, with its week; ``failed``, if no hour was there or the
    seller had failed before; ``ended``, if both sides agreed otherwise or the buyer did not pay in.
    """

    day: int
    state: str
    there_s: int  # attested, of a day not settled yet by whoever spoke first
    lost_s: int  # within these
    earned: int
    returned: int  # of a day that will not come: with the rest of the escrow


def days(found: Mapping[str, Any]) -> list[DayLine]:
    """Every day of the month."""
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
    """Cents that a side owes the other when the month ends, by what for."""
    rows = [row["facts"] for row in found["events"] if row["operation"] == "delivery"]
    return {text: facts[name] for facts in rows for name, text in OWED.items() if facts.get(name)}


def stages(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Every stage, with its time, its deadline and its figures. Days that went as they should are
    in ``days`` alone."""
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
    """What it is: lots, contract, from whom to whom, and where it stands."""
    return (
        f"delivery {found['id']}: {found['lots']} lots of {found['terms']['code']}, account"
        f" {found['seller']} ({found['provider']}/{found['facility']}) to account"
        f" {found['buyer']}; {found['stage']}"
    )


def share_there(line: DayLine, lots: int) -> float:
    """How much of a day's hours was there: 0 to 1."""
    return line.there_s / (lots * DAY_S)


def time_text(stamp: int) -> str:
    """A stamp to the second, UTC; nothing for none."""
    return f"{datetime.fromtimestamp(stamp // 10**9, UTC):%Y-%m-%d %H:%M:%S}" if stamp else ""


def cents_text(amount: int) -> str:
    """Cents as dollars."""
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
