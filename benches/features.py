"""``hourbook bench features``: what each feature of the core costs, in instructions per command.

The flow ``single`` (docs/reference/benchmarks.md) once as it is, then once for each feature: with
every new order changed to use it, or with the market prepared so that it is on and watches. The
difference to the plain flow is the price of the feature; callgrind counts, so load does not matter.
``--table FILE`` renews the table between the two marks in that page: docs/concepts/speed.md.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from benches.instructions import count
from benches.rows import Row, publish, row
from benches.workloads import workload
from exchange.engine import Engine
from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    COMMAND_FIELDS,
    EVENT,
    Command,
    CommandFlag,
    CommandKind,
    EventKind,
    Limit,
    OrderFeature,
    Side,
    TimeInForce,
    TradingState,
)
from exchange.sim.flow import START_NS, Flow, fill_books, prepare
from exchange.sim.flow_records import apply_all

COMMANDS: Final = 60_000
MARKS: Final = ("<!-- features -->\n", "<!-- end of features -->\n")
FAR_NS: Final = START_NS + 86_400 * 10**9
STOPS: Final = 1_000
MONTHS: Final = 24  # of a curve
SPREADS: Final = range(MONTHS, MONTHS + Limit.LEG_SPREADS)
LOTS: Final = 1_000_000
OF_A_MONTH: Final = (CommandKind.LIST, CommandKind.SET_RISK, CommandKind.SET_STATE)
U64: Final = (1 << 64) - 1
SESSION: Final = 1 << 16 | 1
KEY: Final = 1 << 60  # apart from the flow's
Change = Callable[[dict[str, int]], None]


@dataclass(frozen=True, slots=True)
class Feature:
    """``change``: what becomes of each new order; ``before``: commands ahead of the flow."""

    words: str
    change: Change | None = None
    before: Callable[[Flow], list[Command]] = lambda flow: []


def rests(order: dict[str, int]) -> bool:
    """Whether it is a plain limit order, which may be given a feature."""
    plain = order["tif"] == TimeInForce.GTC and not order["flags"] & CommandFlag.MARKET
    return order["kind"] == CommandKind.ENTER and plain


def good_till(order: dict[str, int]) -> None:
    order["tif"], order["target_lo"] = TimeInForce.GTD, FAR_NS + order["key_lo"]


def minimum(order: dict[str, int]) -> None:
    order["target_hi"] = 0 if order["flags"] & CommandFlag.POST_ONLY else 1


def iceberg(order: dict[str, int]) -> None:
    order["spare"] |= OrderFeature.ICEBERG
    order["target_hi"] = 1 + order["quantity"] // 4


def post_only(order: dict[str, int]) -> None:
    order["flags"] |= CommandFlag.POST_ONLY


def highest(flow: Flow) -> int:
    """The upper price limit of the flow's instrument."""
    rows = [row for batch in flow.setup for row in COMMAND.iter_unpack(batch)]
    return next(int(row[13]) for row in rows if row[0] == CommandKind.LIST)


def stops(flow: Flow) -> list[Command]:
    """Orders that wait for a price which the flow never trades at."""
    high = highest(flow)
    return [
        Command(
            kind=CommandKind.ENTER, account=1, session=SESSION, price=high, quantity=1,
            spare=OrderFeature.STOP, target_hi=high, key_lo=KEY + number,
        )
        for number in range(STOPS)
    ]  # fmt: skip


def curve(flow: Flow) -> list[Command]:
    """A curve of months, and calendar spreads of the flow's with as many of them as may imply. Each
    has an order on either side, as has its far month: what both imply is at the day's limits."""
    setup = [
        Command(**dict(zip(COMMAND_FIELDS, row, strict=True)))
        for batch in flow.setup
        for row in COMMAND.iter_unpack(batch)
    ]
    months = [c for c in setup if c.kind in OF_A_MONTH]
    low, high, step = months[0].target_lo, months[0].target_hi, months[0].account
    centre = (low + high) // 2 // step * step
    out = [
        msgspec.structs.replace(command, instrument=month)
        for month in range(1, MONTHS)
        for command in months
    ]
    for far, number in enumerate(SPREADS, 1):
        spread = {"instrument": number}
        ends = {"target_lo": (low - high) & U64, "target_hi": high - low, "key_lo": far << 16}
        out += [
            Command(kind=CommandKind.LIST_COMBINATION, quantity=0xF1, **spread, **ends),
            Command(kind=CommandKind.SET_RISK, quantity=LOTS, session=LOTS, **spread),
            Command(kind=CommandKind.SET_STATE, tif=TradingState.CONTINUOUS, **spread),
        ]
        quotes = (
            (number, Side.BUY, low - centre + step), (number, Side.SELL, high - centre - step),
            (far, Side.BUY, centre - step), (far, Side.SELL, centre + step),
        )  # fmt: skip
        out += [
            Command(
                kind=CommandKind.ENTER, account=1 + (book == far), instrument=book, side=side,
                price=price, quantity=1, key_lo=KEY + 4 * far + place,
            )
            for place, (book, side, price) in enumerate(quotes)
        ]  # fmt: skip
    return out


def implied(flow: Flow) -> list[Command]:
    """The same, and the switches are on."""
    on = [Command(kind=CommandKind.SET_IMPLIED, instrument=n, tif=1) for n in SPREADS]
    return curve(flow) + on


def credits(flow: Flow) -> list[Command]:
    """The curve with implied prices off, and each spread has a credit."""
    spared = [
        Command(kind=CommandKind.SET_RISK, instrument=n, quantity=LOTS, session=LOTS, key_lo=n)
        for n in SPREADS
    ]
    return curve(flow) + spared


FEATURES: Final = {
    "plain": Feature("limit orders, cancels, reductions, replacements, IOC and market orders"),
    "post_only": Feature("every order that rests is post-only", post_only),
    "good_till_date": Feature("every order that rests expires at a time of its own", good_till),
    "minimum": Feature("every order that rests asks for one lot at once", minimum),
    "iceberg": Feature("every order that rests shows a quarter of itself", iceberg),
    "stops_wait": Feature(f"{STOPS:,} stops wait in the book; none is elected", before=stops),
    "curve": Feature(
        f"{MONTHS} months and {Limit.LEG_SPREADS} spreads, implied prices off", before=curve
    ),
    "implied": Feature(
        f"the same, implied prices on: {Limit.LEG_SPREADS} looked at on either side, none better",
        before=implied,
    ),
    "credits": Feature(
        f"the same, implied prices off: {Limit.LEG_SPREADS} spreads with a credit of margin",
        before=credits,
    ),
}


def flow_of(name: str) -> tuple[Flow, list[bytes]]:
    """The flow, and its timed batches with the feature in use."""
    drawn = workload("single", COMMANDS)
    flow = prepare(drawn.raw, drawn.prefill)
    change = FEATURES[name].change
    return flow, flow.timed if change is None else [_changed(b, change) for b in flow.timed]


def _changed(batch: bytes, change: Change) -> bytes:
    out = []
    for fields in COMMAND.iter_unpack(batch):
        order = dict(zip(COMMAND_FIELDS, fields, strict=True))
        if rests(order):
            change(order)
        out.append(COMMAND.pack(*order.values()))
    return b"".join(out)


def run(name: str) -> None:
    """What callgrind watches. Raises RuntimeError if the market refuses the preparation."""
    flow, timed = flow_of(name)
    engine = Engine()
    sequence = fill_books(flow, engine)
    for command in FEATURES[name].before(flow):
        events = engine.apply(COMMAND.pack(*msgspec.structs.astuple(command)), sequence, START_NS)
        if EVENT.unpack_from(events)[2] == EventKind.REJECTED:
            raise RuntimeError(f"{name}: refused: {EVENT.unpack_from(events)}")
        sequence += 1
    apply_all(engine.apply, timed, sequence, START_NS)


def rows(names: list[str]) -> Iterator[Row]:
    base = 0.0
    for name in names:
        _, timed = flow_of(name)
        commands = sum(map(len, timed)) // COMMAND_BYTES
        value = count(["-m", "benches.features", "--counted", name]) / commands
        base = base or value
        yield row(f"features.{name}", value, "instructions/command", base, f"features.{names[0]}")


def table(measured: list[Row]) -> str:
    """The measured rows in Markdown."""
    lines = ["| feature | instructions a command | over plain |", "|---|---|---|"]
    for one in measured:
        name = one.name.removeprefix("features.")
        over = one.value - measured[0].value
        lines.append(f"| {FEATURES[name].words} | {one.value:.0f} | {over:+.0f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="hourbook bench features", description=__doc__)
    parser.add_argument("features", nargs="*", help=f"of {', '.join(FEATURES)}; all if absent")
    parser.add_argument("--table", type=Path, help="a page with the two marks: renew its table")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    parser.add_argument("--record", action="store_true", help="append to benches/history.jsonl")
    parser.add_argument("--counted", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.counted:
        run(options.counted)
        return 0
    unknown = set(options.features) - set(FEATURES)
    if unknown:
        parser.error(f"no such feature: {', '.join(sorted(unknown))}")
    measured = list(rows(["plain", *(n for n in options.features or FEATURES if n != "plain")]))
    publish(measured, as_json=options.json, record=options.record)
    if options.table:
        head, rest = options.table.read_text().split(MARKS[0])
        tail = rest.split(MARKS[1])[1]
        options.table.write_text(head + MARKS[0] + table(measured) + MARKS[1] + tail)
    return 0


if __name__ == "__main__":
    sys.exit(main())
