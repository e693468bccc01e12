"""Self-contained HTML pages with charts: the parts of all pages, and the page of a statement.

A chart is SVG with two panels over the same dates. That of a statement shows cash at the end of
each date as a line, and below it each date's variation and fees as bars from the zero line. Colours
are defined in one place, in a light and a dark set.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from exchange.clearing.statements import (
    HOLDING_HEADS,
    MICROS,
    Day,
    Profit,
    Statement,
    dollars,
    holding_rows,
    standing_tables,
)

WIDTH: Final = 760
PANEL: Final = 150  # height of one of the two
GAP: Final = 48
LEFT: Final = 92  # room for the figures of an axis
RIGHT: Final = 12
TOP: Final = 24
HEIGHT: Final = TOP + 2 * PANEL + GAP + 30
LABELS_MAX: Final = 8  # dates on the axis
STYLE: Final = """
:root { --ink: #1d2733; --soft: #5d6975; --rule: #dfe4e9; --gain: #2a7f62; --loss: #b4442f;
        --cash: #2f5d9b; --paper: #ffffff; --panel: #f6f8fa; --alarm: #fbeae6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaee; --soft: #9aa6b2; --rule: #323d48; --gain: #5fbf9b; --loss: #e07a63;
          --cash: #84aee6; --paper: #151b22; --panel: #1b232c; --alarm: #3a231e; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 52rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.02rem; margin: 2.2rem 0 .5rem; }
.soft { color: var(--soft); margin: .1rem 0 1.4rem; }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0 0 1.5rem; padding: 0; }
.figures div { flex: 1 1 9rem; background: var(--panel); border-radius: .4rem;
               padding: .6rem .8rem; }
.figures dt { color: var(--soft); font-size: .8rem; }
.figures dd { margin: 0; font-size: 1.1rem; font-weight: 600;
              font-variant-numeric: tabular-nums; }
.figures .alarm { background: var(--alarm); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
        font-size: .92rem; }
th { color: var(--soft); font-weight: 500; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
figure { margin: 0; } svg { width: 100%; height: auto; display: block; }
.gain { fill: var(--gain); } .loss { fill: var(--loss); } .idle { fill: var(--rule); }
.held { fill: var(--cash); } .open { fill: var(--alarm); stroke: var(--loss); }
.cash { fill: none; stroke: var(--cash); stroke-width: 2; stroke-linejoin: round; }
.dot { fill: var(--cash); } .axis { stroke: var(--rule); } .zero { stroke: var(--soft); }
text { fill: var(--soft); font: 11px system-ui, sans-serif; } .name { font-weight: 600; }
.end { text-anchor: end; } .middle { text-anchor: middle; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } }
"""


def page(found: Statement, days: Sequence[Day], profits: Sequence[Profit]) -> str:
    """Return the statement as HTML."""
    date = "all dates" if found.business_date is None else _date(found.business_date)
    parts = [
        _figures(found),
        chart(days),
        "<h2>Cash</h2>",
        table(("", "USD"), found.cash_rows()),
    ]
    if found.holdings:
        parts += ["<h2>Positions</h2>", table(HOLDING_HEADS, holding_rows(found.holdings))]
    if found.standing is not None:
        for heads, rows in standing_tables(found.standing):
            title = heads[0][:1].upper() + heads[0][1:]
            parts += [f"<h2>{escape(title)}</h2>", table(("", *heads[1:]), rows)]
    if profits:
        rows = [(p.code, f"{p.net:,}", dollars(p.realized), dollars(p.unrealized)) for p in profits]
        heads = ("instrument", "lots", "realized", "unrealized")
        parts += ["<h2>Profit by average cost, for reading alone</h2>", table(heads, rows)]
    if days:
        dates = [
            (_date(d.business_date), dollars(d.paid_in), dollars(d.variation), dollars(d.fees),
             dollars(d.interest), dollars(d.other), dollars(d.closing))
            for d in days
        ]  # fmt: skip
        names = ("date", "paid in", "variation", "fees", "interest", "other", "closing")
        parts += ["<h2>By date</h2>", table(names, dates)]
    about = f"{date} · as of sequence {found.sequence:,} · US dollars"
    return document(f"Statement of account {found.account}", about, parts)


def document(title: str, about: str, parts: Sequence[str]) -> str:
    """Return a whole page: its title, a line about it, and its parts."""
    head = (
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>",
        f'<body><h1>{escape(title)}</h1><p class="soft">{escape(about)}</p>',
    )
    return "\n".join([*head, *parts, "</body></html>", ""])


def figures(shown: Sequence[tuple[str, str, bool]]) -> str:
    """Return the main figures, in large type: name, figure, and whether it is an alarm."""
    boxes = "".join(
        f"<div{' class=alarm' if alarm else ''}><dt>{escape(name)}</dt>"
        f"<dd>{escape(figure)}</dd></div>"
        for name, figure, alarm in shown
    )
    return f'<dl class="figures">{boxes}</dl>'


def _figures(found: Statement) -> str:
    shown = [("Closing cash", found.closing, found.closing < 0), ("Profit", found.profit, False)]
    stands = found.standing
    if stands is not None:
        if stands.collateral_value:
            shown.append(("Collateral", stands.collateral_value, False))
        if stands.required is not None and stands.liquidity is not None:
            shown.append(("Margin required", stands.required, False))
            shown.append(("Liquidity", stands.liquidity, stands.liquidity < 0))
        if stands.call:
            shown.append(("Margin call", stands.call, True))
    return figures([(name, _cents(amount), alarm) for name, amount, alarm in shown])


def chart(days: Sequence[Day]) -> str:
    """Return both panels as SVG; a note if there are no dates yet."""
    if not days:
        return '<p class="soft">Nothing has moved yet.</p>'
    step = (WIDTH - LEFT - RIGHT) / len(days)
    middles = [LEFT + step * (place + 0.5) for place in range(len(days))]
    every = -(-len(days) // LABELS_MAX)
    labels = [
        f'<text class="middle" x="{x:.1f}" y="{HEIGHT - 8}">{_short_date(day.business_date)}</text>'
        for place, (x, day) in enumerate(zip(middles, days, strict=True))
        if place % every == 0
    ]
    return "\n".join(
        [
            f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            ' aria-label="cash by date as a line, variation and fees by date as bars">',
            *_cash_panel(days, middles),
            *_change_panel(days, middles, min(step * 0.6, 42)),
            *labels,
            "</svg></figure>",
        ]
    )


def _cash_panel(days: Sequence[Day], middles: Sequence[float]) -> list[str]:
    low, high, step = span([day.closing for day in days])
    place = scale(low, high, TOP)
    points = [(x, place(day.closing)) for x, day in zip(middles, days, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{_date(day.business_date)}:'
        f" closing {dollars(day.closing)}</title></circle>"
        for (x, y), day in zip(points, days, strict=True)
    ]
    return [*axis("Cash at the end of the date, USD", range(low, high + 1, step), place, TOP),
            f'<polyline class="cash" points="{line}"/>', *dots]  # fmt: skip


def _change_panel(days: Sequence[Day], middles: Sequence[float], wide: float) -> list[str]:
    top = TOP + PANEL + GAP
    changes = [day.variation + day.fees for day in days]
    low, high, step = span([*changes, 0])
    place = scale(low, high, top)
    zero = place(0)
    bars = []
    for x, day, change in zip(middles, days, changes, strict=True):
        y, name = place(change), "gain" if change >= 0 else "loss"
        label = f"{_date(day.business_date)}: variation {dollars(day.variation)}, fees" \
                f" {dollars(day.fees)}"  # fmt: skip
        bars.append(
            f'<rect class="{name}" x="{x - wide / 2:.1f}" y="{min(y, zero):.1f}"'
            f' width="{wide:.1f}" height="{abs(y - zero):.1f}" rx="1">'
            f"<title>{label}</title></rect>"
        )
    return [
        *axis("Variation and fees of the date, USD", range(low, high + 1, step), place, top),
        *bars,
        f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}"/>',
    ]


def span(amounts: Sequence[int]) -> tuple[int, int, int]:
    """Return (low, high, step) of an axis with round figures that covers the amounts, with two to
    six lines. Amounts are in millionths of the unit of the axis."""
    low, high = min(amounts), max(amounts)
    least = max((high - low) // 4, MICROS)
    power = 10 ** (len(str(least)) - 1)
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least)
    low, high = low // step * step, -(-high // step) * step
    return low, max(high, low + step), step


def scale(low: int, high: int, top: int) -> Callable[[int], float]:
    """Return the function from an amount to its height in the panel that begins at ``top``."""
    return lambda amount: top + PANEL - (amount - low) / (high - low) * PANEL


def axis(name: str, amounts: Sequence[int], place: Callable[[int], float], top: int) -> list[str]:
    """Return a panel's name, and a line with its figure at every amount."""
    lines = [f'<text class="name" x="0" y="{top - 13}">{name}</text>']
    for amount in amounts:
        y = place(amount)
        lines += [
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text class="end" x="{LEFT - 8}" y="{y + 4:.1f}">{amount // MICROS:,}</text>',
        ]
    return lines


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _date(number: int) -> str:
    if not number:
        return "before the first date"
    return f"{number // 10_000}-{number // 100 % 100:02d}-{number % 100:02d}"


def _short_date(number: int) -> str:
    return _date(number)[5:] if number else "before"


def _cents(amount: int) -> str:
    """Return micro-dollars as dollars, rounded to the cent."""
    whole, cents = divmod((abs(amount) + MICROS // 200) * 100 // MICROS, 100)
    return f"{'-' if amount < 0 else ''}{whole:,}.{cents:02d}"
