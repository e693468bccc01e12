"""Goodput from an attestation log, compared with msgspec decoding the same file.

    hourbook bench goodput [--json] [--events N] [--rounds N]

The log is written by the recorder: steps, a checkpoint every 500, a disruption every 100,000, a
seal every 4,096. The rival only decodes bytes in memory, typed and line by line into the same
structs, without hashing, verifying or adding up anything: the floor for any reader based on
msgspec. Both take turns on the same log.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from benches.rows import Row, bench_parser, publish, row, whole
from contracts.goodput import compute
from contracts.goodput import events as ev
from contracts.goodput.keys import SigningKey
from contracts.goodput.log import Recorder

EVENTS: Final = 1_000_000
ROUNDS: Final = 7
START_NS: Final = 1_790_000_000 * 10**9
WORK: Final = ev.Workload(
    model="dense-7b",
    benchmark="transformer-step",
    benchmark_version="1",
    precision="bf16",
    gpus=8,
    parameters=7 * 10**9,
    active_parameters=7 * 10**9,
    layers=32,
    heads=32,
    head_dimension=128,
    sequence_length=4096,
    tokens_per_step=262_144,
    image="bench",
)


def write_log(path: Path, steps: int) -> None:
    """Write the log of a job with so many steps on one node, with checkpoints and disruptions."""
    key = SigningKey(bytes(range(32)))
    now = START_NS
    with path.open("wb") as file:
        recorder = Recorder(file, key)
        recorder.record(ev.Open(now, ev.SCHEMA, "node-1", "bench", key.public, "0" * 64))
        recorder.record(ev.Hardware(now, "node-1", "H100-SXM", tuple(f"GPU-{n}" for n in range(8))))
        recorder.record(ev.JobStart(now, "job", WORK))
        recorder.record(ev.Begin(now, "step"))
        for step in range(1, steps + 1):
            now += 3_500_000_000 + step % 977 * 1_000
            recorder.record(ev.Step(now, step))
            if step % 500 == 0:
                recorder.record(ev.Checkpoint(now, step))
            if step % 100_000 == 0:
                recorder.record(ev.Disruption(now, "hardware"))
                recorder.record(ev.Available(now + 600 * 10**9))
                now += 900 * 10**9
                recorder.record(ev.Resume(now, step))
        recorder.record(ev.JobEnd(now))
        recorder.record(ev.Close(now))
        recorder.close()


def rows(events: int, rounds: int) -> Iterator[Row]:
    """Yield the rows; raise RuntimeError if the account differs from what the log was written
    for."""
    decode = msgspec.json.Decoder(ev.Event | ev.Seal).decode_lines
    decoded, computed = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attestation.jsonl"
        write_log(path, events)
        content = path.read_bytes()
        for _ in range(rounds):
            started = time.perf_counter()
            lines = len(decode(content))
            decoded.append(lines / (time.perf_counter() - started))
            started = time.perf_counter()
            found = compute(path)
            computed.append(found.events / (time.perf_counter() - started))
            if found.account.steps != events:
                raise RuntimeError(f"{found.account.steps} steps of {events}")
    yield row("goodput.decode", median(decoded), "events/s")
    ratio = median(a / b for a, b in zip(computed, decoded, strict=True))
    yield Row(
        "goodput.compute", round(median(computed)), "events/s", round(ratio, 4), "goodput.decode"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("goodput", "Time the account of a log.", ROUNDS)
    parser.add_argument("--events", type=whole, default=EVENTS, help="in the log (%(default)s)")
    options = parser.parse_args(arguments)
    publish(rows(options.events, options.rounds), as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
