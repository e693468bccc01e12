"""An account's statement as a page: one HTML file that needs nothing else, with a chart.

The chart has a bar per business date for the variation paid, above or below the zero line, and a
line for the cash at its end. It is drawn as SVG text; colours have names in one place.
"""

from collections.abc import Sequence
from html import escape
from typing import Final

from exchange.clearing.statements import MICROS, Day, Profit, Statement, dollars

WIDTH: Final = 720
HEIGHT: Final = 240
_MARGIN: Final = 24
_STYLE: Final = """
:root { --ink: #1d2733; --soft: #66727f; --rule: #d9dee4; --gain: #2a7f62; --loss: #b4442f;
        --cash: #2f5d9b; --paper: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaee; --soft: #9aa6b2; --rule: #36414d; --gain: #5fbf9b; --loss: #e07a63;
          --cash: #84aee6; --paper: #151b22; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin-top: 2rem; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; } tr:last-child td { font-weight: 600; }
svg { width: 100%; height: auto; } .gain { fill: var(--gain); } .loss { fill: var(--loss); }
.cash { fill: none; stroke: var(--cash); stroke-width: 2; } .dot { fill: var(--cash); }
.axis { stroke: var(--rule); } text { fill: var(--soft); font-size: 11px; }
"""


def page(found: Statement, days: Sequence[Day], profits: Sequence[Profit]) -> str:
    """The statement as HTML."""
    date = "all dates" if found.business_date is None else _date(found.business_date)
    lines = ("opening", "deposits", "withdrawals", "fees", "fees_earned", "variation", "closing")
    cash = [(line.replace("_", " "), dollars(getattr(found, line))) for line in lines]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Account {found.account}, {escape(date)}</title><style>{_STYLE}</style></head>",
        f"<body><h1>Account {found.account}</h1>",
        f'<p class="soft">{escape(date)} · as of sequence {found.sequence:,} · US dollars</p>',
        chart(days),
        "<h2>Cash</h2>",
        _table(("", "USD"), cash),
    ]
    if found.holdings:
        held = [
            (h.code, f"{h.net:,}", dollars(h.mark), dollars(h.unrealized)) for h in found.holdings
        ]
        parts += ["<h2>Positions</h2>", _table(("instrument", "lots", "mark", "unrealized"), held)]
    if profits:
        rows = [(p.code, f"{p.net:,}", dollars(p.realized), dollars(p.unrealized)) for p in profits]
        heads = ("instrument", "lots", "realized", "unrealized")
        parts += ["<h2>Profit by average cost, for reading alone</h2>", _table(heads, rows)]
    if days:
        dates = [
            (_date(d.business_date), dollars(d.paid_in), dollars(d.fees), dollars(d.variation),
             dollars(d.closing))
            for d in days
        ]  # fmt: skip
        names = ("date", "paid in", "fees", "variation", "closing")
        parts += ["<h2>By date</h2>", _table(names, dates)]
    return "\n".join([*parts, "</body></html>", ""])


def chart(days: Sequence[Day]) -> str:
    """The bars and the line as SVG; a note where there is no date yet."""
    if not days:
        return '<p class="soft">Nothing has moved yet.</p>'
    top = max(*(abs(d.variation) for d in days), 1)
    cash = [d.closing for d in days]
    low, high = min(cash), max(cash)
    inner, middle = HEIGHT - 2 * _MARGIN, HEIGHT / 2
    step = (WIDTH - 2 * _MARGIN) / len(days)
    bars, points = [], []
    for place, day in enumerate(days):
        tall = abs(day.variation) * inner / 2 / top
        left, name = _MARGIN + place * step, "gain" if day.variation >= 0 else "loss"
        y = middle - tall if day.variation >= 0 else middle
        label = f"{_date(day.business_date)}: variation {dollars(day.variation)}, " \
                f"closing {dollars(day.closing)}"  # fmt: skip
        bars.append(
            f'<rect class="{name}" x="{left + step * 0.2:.1f}" y="{y:.1f}"'
            f' width="{step * 0.6:.1f}" height="{tall:.1f}"><title>{escape(label)}</title></rect>'
        )
        share = (day.closing - low) / (high - low) if high > low else 0.5
        points.append((left + step / 2, HEIGHT - _MARGIN - share * inner))
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points]
    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            ' aria-label="variation by date as bars, cash as a line">',
            f'<line class="axis" x1="{_MARGIN}" x2="{WIDTH - _MARGIN}" y1="{middle}"'
            f' y2="{middle}"/>',
            *bars,
            f'<polyline class="cash" points="{line}"/>',
            *dots,
            f'<text x="{_MARGIN}" y="14">bars: variation, up to {_short(top)} a date'
            f" · line: cash, {_short(low)} to {_short(high)}</text>",
            "</svg>",
        ]
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _date(number: int) -> str:
    if not number:
        return "before the first date"
    return f"{number // 10_000}-{number // 100 % 100:02d}-{number % 100:02d}"


def _short(amount: int) -> str:
    return f"{amount // MICROS:,} USD"
