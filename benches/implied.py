"""``hourbook bench implied``: the cost of implied prices on a curve of 24 months.

A seeded flow of new orders, cancels, replacements, IOC and market orders over 24 monthly futures
and the 23 calendar spreads between neighbours, with about a hundred orders per book. Callgrind
counts instructions per command in three modes: the months' commands alone, without spreads; all
commands, with implied prices off; and all, with them on, so that each may trade through three
books. The counts do not depend on load. Then the same three are timed in turn; a ratio of times is
the median of the rounds' ratios.
"""

import sys
from collections.abc import Iterator
from statistics import median
from typing import Final

from benches.instructions import count
from benches.rows import Row, bench_parser, publish, row
from benches.workloads import MIDDLE, Draw, Profile
from exchange.engine import Engine
from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    COMMAND_FIELDS,
    EVENT,
    CommandFlag,
    CommandKind,
    EventKind,
)
from exchange.sim.flow import START_NS, Flow, fill_books, prepare, time_once

MONTHS: Final = 24
BOOKS: Final = 2 * MONTHS - 1  # spread MONTHS + i is of the months i and i + 1
CURVE: Final = Profile(20, (45, 40, 5, 5, 3, 2), 100 * BOOKS, 300, symbols=BOOKS)
COMMANDS: Final = 60_000
MODES: Final = ("outright", "off", "on")
ROUNDS: Final = 5
Record = dict[str, int]


def listed(record: Record, mode: str) -> list[Record]:
    """Return the command, or for a spread's book the commands that list the spread."""
    number, kind = record["instrument"], record["kind"]
    if number < MONTHS or kind not in (CommandKind.LIST, CommandKind.SET_RISK):
        return [record]
    if kind == CommandKind.SET_RISK:
        return [record | {"price": 0, "target_lo": 0, "target_hi": 0}]  # its legs hold and pay
    near = number - MONTHS
    half = max(record["target_hi"] - MIDDLE, MIDDLE - record["target_lo"])
    spread = dict.fromkeys(COMMAND_FIELDS, 0) | {
        "kind": CommandKind.LIST_COMBINATION, "instrument": number, "quantity": 0xF1,  # 1, -1
        "key_lo": near | near + 1 << 16, "target_lo": -half & (1 << 64) - 1, "target_hi": half,
    }  # fmt: skip
    switch = dict.fromkeys(COMMAND_FIELDS, 0) | {
        "kind": CommandKind.SET_IMPLIED, "instrument": number, "tif": int(mode == "on"),
    }  # fmt: skip
    return [spread, switch]


def ordered(record: Record) -> Record:
    """Return an order's command; the price of a spread is shifted to lie around zero."""
    named = record["kind"] in (CommandKind.CANCEL, CommandKind.REDUCE)
    if record["instrument"] < MONTHS or named or record["flags"] & CommandFlag.MARKET:
        return record
    return record | {"price": record["price"] - MIDDLE}


def changed(batches: list[bytes], mode: str) -> list[bytes]:
    """Return the batches of a flow, changed for a mode."""
    out = []
    for batch in batches:
        records = [
            dict(zip(COMMAND_FIELDS, fields, strict=True)) for fields in COMMAND.iter_unpack(batch)
        ]
        if mode == "outright":
            records = [record for record in records if record["instrument"] < MONTHS]
        else:
            records = [ordered(record) for record in records]
        out.append(b"".join(COMMAND.pack(*record.values()) for record in records))
    return out


def opened(batches: list[bytes], mode: str) -> list[bytes]:
    """Return the setup of a flow, changed for a mode."""
    out = []
    for batch in batches:
        for fields in COMMAND.iter_unpack(batch):
            record = dict(zip(COMMAND_FIELDS, fields, strict=True))
            account = record["kind"] in (CommandKind.OPEN_ACCOUNT, CommandKind.LOGON)
            if mode == "outright" and not account and record["instrument"] >= MONTHS:
                continue
            parts = [record] if account else listed(record, mode)
            out += [COMMAND.pack(*part.values()) for part in parts]
    return [b"".join(out)]


def flow_of(mode: str) -> Flow:
    raw = b"".join(Draw(CURVE, CURVE.seed).records(COMMANDS))
    flow = prepare(raw, CURVE.resting)
    prefix, timed = changed(flow.prefix, mode), changed(flow.timed, mode)
    return Flow(
        setup=opened(flow.setup, mode),
        prefix=prefix,
        timed=timed,
        commands=sum(map(len, prefix + timed)) // COMMAND_BYTES,
        timed_commands=sum(map(len, timed)) // COMMAND_BYTES,
    )


def implied_trades(flow: Flow) -> int:
    """Return the number of trades through an implied price; raise RuntimeError if there is none."""
    engine = Engine()
    sequence = fill_books(flow, engine)
    found = 0
    for batch in flow.timed:
        events = engine.apply(batch, sequence, START_NS)
        executed = [e for e in EVENT.iter_unpack(events) if e[2] == EventKind.ORDER_EXECUTED]
        found += len(executed) // 3
        sequence += len(batch) // COMMAND_BYTES
    if found == 0:
        raise RuntimeError("nothing traded through an implied price")
    return found


def timed_rows() -> Iterator[Row]:
    """Yield thread CPU time per command, from rounds that run all modes one after the other."""
    flows = [flow_of(mode) for mode in MODES]
    rounds = [[time_once(flow, Engine()).cpu_ns_per_command for flow in flows]
              for _ in range(ROUNDS)]  # fmt: skip
    for at, mode in enumerate(MODES):
        value = median(one[at] for one in rounds)
        ratio = median(one[at] / one[0] for one in rounds)
        yield Row(f"implied.{mode}.time", round(value, 1), "ns/command", float(f"{ratio:.4g}"),
                  "implied.outright.time")  # fmt: skip


def rows() -> Iterator[Row]:
    base = 0.0
    for mode in MODES:
        flow = flow_of(mode)
        counted = count(flow.setup + flow.prefix, flow.timed)
        value = counted.instructions / flow.timed_commands
        base = base or value
        yield row(f"implied.{mode}", value, "instructions/command", base, "implied.outright")
        if mode == "on":
            yield row("implied.trades", implied_trades(flow), "trades through an implied price")
    yield from timed_rows()


def main() -> int:
    parser = bench_parser("implied", __doc__)
    options = parser.parse_args()
    publish(rows(), as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
