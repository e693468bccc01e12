"""The schedule of a day: a function of the calendar, and what the command line shows of it.

Budget: 5 seconds.
"""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from contracts import registry
from contracts.calendar import CalendarError
from contracts.sessions import Phase, Step, in_force, steps

SPECS = registry.load()
US = SPECS.calendars["US"]
MONDAY = date(2026, 11, 23)
H100 = SPECS.spec("H100", MONDAY)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def states(found: list[Step]) -> list[tuple[str, str]]:
    return [(f"{s.at:%dT%H:%M}", s.phase.value) for s in found if s.phase is not Phase.INDICATE]


def test_a_day_in_utc_and_in_summer_time() -> None:
    assert states(steps(H100, US, MONDAY)) == [
        ("22T22:30", "pre-open"),
        ("22T22:55", "opening auction"),
        ("22T23:00", "continuous"),
        ("23T21:55", "closing auction"),
        ("23T22:00", "closed"),
    ]
    assert states(steps(H100, US, date(2026, 7, 6)))[0] == ("05T21:30", "pre-open")


def test_indicative_prices_tick_while_orders_are_collected_and_at_no_other_time() -> None:
    found = steps(H100, US, MONDAY)
    ticks = [step.at for step in found if step.phase is Phase.INDICATE]
    assert len(ticks) == (30 + 5) * 60 // 15 - 2
    for tick in ticks:
        holds = in_force(found, tick)
        assert holds is not None and holds.phase.value in (
            "pre-open", "opening auction", "closing auction",
        )  # fmt: skip
    apart = {after - before for before, after in pairwise(ticks)}
    assert min(apart) == timedelta(seconds=US.indicate_seconds) and len(apart) == 2
    assert [step.at for step in found] == sorted(step.at for step in found)


def test_every_session_of_a_year_follows_the_one_before() -> None:
    days = US.business_days(date(2026, 1, 1), date(2026, 12, 31))
    for before, after in pairwise(days):
        assert steps(H100, US, before)[-1].at <= steps(H100, US, after)[0].at
    with pytest.raises(CalendarError, match="Thanksgiving"):
        steps(H100, US, date(2026, 11, 26))


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-11-22T22:29:59", "2026-11-20"),  # Sunday: Friday's session is the last begun
        ("2026-11-22T22:30", "2026-11-23"),
        ("2026-11-23T22:29", "2026-11-23"),
        ("2026-11-25T22:30", "2026-11-25"),  # the eve of Thanksgiving opens nothing
        ("2026-11-26T22:30", "2026-11-27"),
    ],
)
def test_which_session_has_begun(now: str, day: str) -> None:
    assert US.begun(utc(now)).day == date.fromisoformat(day)


def test_a_combination_is_not_collected() -> None:
    spread = SPECS.find("H100Z26-H100F27", MONDAY)
    assert states(steps(spread, US, MONDAY)) == [
        ("22T22:30", "closed"),
        ("22T23:00", "continuous"),
        ("23T21:55", "closed"),
    ]


def test_what_is_in_force() -> None:
    found = steps(H100, US, MONDAY)
    assert in_force(found, utc("2026-11-22T22:29:59")) is None
    for now, phase in (
        ("2026-11-22T22:30", Phase.PRE_OPEN),
        ("2026-11-22T22:59:59", Phase.OPENING_AUCTION),
        ("2026-11-23T12:00", Phase.CONTINUOUS),
        ("2026-11-24T00:00", Phase.CLOSED),
    ):
        holds = in_force(found, utc(now))
        assert holds is not None and holds.phase is phase
