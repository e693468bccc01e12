"""A delivery as an HTML page: a chart of its month, its stages, and a table of its days.

The chart's upper panel shows the GPU-hours available of those sold, by day. The lower one shows
each day's slice of the invoice and, after the last day, what a side owes at the month's end.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from exchange.clearing import pages
from exchange.clearing.delivery import story
from exchange.clearing.delivery.slices import DAY_S, HOUR_S, WEEK_DAYS
from exchange.clearing.delivery.story import DayLine, cents_text
from exchange.clearing.statements import MICROS

_BAR: Final = 0.7  # width of a bar, as a share of a day's
_CENT: Final = 10_000  # micro-dollars
_SECOND_AXIS: Final = pages.TOP + pages.PANEL + pages.GAP
_LEGEND: Final = (
    ("gain", "there, paid"), ("held", "not paid yet"), ("loss", "lost, owed"),
    ("open", "disputed"), ("idle", "not there, returned"),
)  # fmt: skip
# State of a day -> style of its hours and earnings.
_PAINT: Final = {
    "paid": "gain", "settled": "held", "attested": "held", "disputed": "open", "failed": "loss",
}  # fmt: skip


def page(found: Mapping[str, Any]) -> str:
    """Return the delivery as HTML; ``found`` is the result of ``Clearing.delivery``."""
    lines, owed = story.days(found), story.owed(found)
    heads = ("day", "state", "GPU-hours", "lost", "earned USD", "returned USD")
    rows = [
        (str(line.day), line.state, _hours(line.there_s), _hours(line.lost_s),
         cents_text(line.earned), cents_text(line.returned))
        for line in lines
    ]  # fmt: skip
    parts = [
        pages.figures(_figures(found, lines, owed)),
        chart(found, lines, owed),
        "<h2>Stages</h2>",
        pages.table(story.HEADS, story.stages(found)),
        "<h2>Days</h2>",
        pages.table(heads, rows),
    ]
    due = f"next by itself: {story.time_text(found['deadline'])}" if found["deadline"] else ""
    about = story.title(found)
    return pages.document(about[:1].upper() + about[1:], due or "nothing is due", parts)


def _figures(
    found: Mapping[str, Any], lines: Sequence[DayLine], owed: Mapping[str, int]
) -> list[tuple[str, str, bool]]:
    paid = [line for line in lines if line.state in ("paid", "failed")]
    shown = [
        ("Invoice", cents_text(found["invoice"]), False),
        ("Paid", cents_text(sum(line.earned for line in paid)), False),
        ("Earned", cents_text(sum(line.earned for line in lines)), False),
        ("Returned", cents_text(sum(line.returned for line in lines)), False),
    ]
    return shown + [(name.capitalize(), cents_text(cents), True) for name, cents in owed.items()]


def chart(found: Mapping[str, Any], lines: Sequence[DayLine], owed: Mapping[str, int]) -> str:
    """Return both panels as SVG."""
    places = len(lines) + 2 * len(owed)  # room for a name above each
    step = (pages.WIDTH - pages.LEFT - pages.RIGHT) / places
    xs = [pages.LEFT + step * (place + (1 - _BAR) / 2) for place in range(places)]
    bottom = pages.HEIGHT - 8
    labels = [
        f'<text class="middle" x="{xs[day - 1] + step * _BAR / 2:.1f}" y="{bottom}">{day}</text>'
        for day in range(1, len(lines) + 1, WEEK_DAYS)
    ]
    return "\n".join(
        [
            f'<figure><svg viewBox="0 0 {pages.WIDTH} {pages.HEIGHT + 18}" role="img"'
            ' aria-label="hours that were there and cents of every day of the month">',
            *_hours_panel(found["lots"], lines, xs, step * _BAR),
            *_money_panel(lines, owed, xs, step * _BAR),
            *labels,
            *_legend(),
            "</svg></figure>",
        ]
    )


def _hours_panel(
    lots: int, lines: Sequence[DayLine], xs: Sequence[float], wide: float
) -> Iterator[str]:
    """Each day's hours: available, lost of these, and not available."""
    whole = lots * DAY_S
    low, high, step = pages.span([0, _axis_hours(whole)])
    place = pages.scale(low, high, pages.TOP)
    yield from pages.axis("GPU-hours of the day", range(low, high + 1, step), place, pages.TOP)
    for line, x in zip(lines, xs, strict=False):
        told = (
            f"day {line.day}, {line.state}: {_hours(line.there_s)} of {_hours(whole)} GPU-hours"
            f" were there, {_hours(line.lost_s)} of these lost"
        )
        good = line.there_s - line.lost_s
        paint = _PAINT.get(line.state, "idle")
        for paint_of, bottom, top in (
            (paint, 0, good), ("loss", good, line.there_s), ("idle", line.there_s, whole),
        ):  # fmt: skip
            ends = place(_axis_hours(bottom)), place(_axis_hours(top))
            yield from _bar(paint_of, x, wide, *ends, told)
        if line.state == "failed" and not line.there_s:
            y = place(0)
            yield f'<rect class="loss" x="{x:.1f}" y="{y - 3:.1f}" width="{wide:.1f}" height="3"/>'


def _money_panel(
    lines: Sequence[DayLine], owed: Mapping[str, int], xs: Sequence[float], wide: float
) -> Iterator[str]:
    """Each day's slice: earned and returned; then the amounts owed at the end."""
    most = max([line.earned + line.returned for line in lines] + [*owed.values(), 1])
    low, high, step = pages.span([0, most * _CENT])
    place = pages.scale(low, high, _SECOND_AXIS)
    ticks = range(low, high + 1, step)
    yield from pages.axis("Slice of the day, USD", ticks, place, _SECOND_AXIS)
    for line, x in zip(lines, xs, strict=False):
        told = (
            f"day {line.day}, {line.state}: {cents_text(line.earned)} USD earned,"
            f" {cents_text(line.returned)} returned"
        )
        earned, both = line.earned * _CENT, (line.earned + line.returned) * _CENT
        paint = _PAINT.get(line.state, "idle")
        yield from _bar(paint, x, wide, place(0), place(earned), told)
        yield from _bar("idle", x, wide, place(earned), place(both), told)
    for (name, cents), x in zip(owed.items(), xs[len(lines) + 1 :: 2], strict=True):
        top = place(cents * _CENT)
        yield from _bar("loss", x, wide, place(0), top, f"{name}: {cents_text(cents)} USD")
        middle = x + wide / 2
        yield f'<text class="middle" x="{middle:.1f}" y="{top - 4:.1f}">{name}</text>'


def _bar(paint: str, x: float, wide: float, low: float, high: float, told: str) -> Iterator[str]:
    """A rectangle between two heights, or nothing if it would be empty."""
    if low - high > 0:
        yield (
            f'<rect class="{paint}" x="{x:.1f}" y="{high:.1f}" width="{wide:.1f}"'
            f' height="{low - high:.1f}"><title>{escape(told)}</title></rect>'
        )


def _legend() -> Iterator[str]:
    y = pages.HEIGHT + 12
    step = (pages.WIDTH - pages.LEFT) / len(_LEGEND)
    for place, (paint, text) in enumerate(_LEGEND):
        x = pages.LEFT + step * place
        yield f'<rect class="{paint}" x="{x:.1f}" y="{y - 8}" width="8" height="8"/>'
        yield f'<text x="{x + 12:.1f}" y="{y}">{text}</text>'


def _axis_hours(seconds: int) -> int:
    """GPU-seconds in millionths of a GPU-hour, the unit of the axis."""
    return seconds * MICROS // HOUR_S


def _hours(seconds: int) -> str:
    return f"{seconds / HOUR_S:,.2f}".rstrip("0").rstrip(".")
