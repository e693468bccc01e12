"""Instructions per command of a flow, counted by callgrind inside ``Engine.apply`` alone.

    python -m benches.instructions FLOW.bin [--skip N] [--commands N] [--keep FILE] [--json]

The first ``--commands`` commands after the prefix of ``--skip`` are counted (default: the
``prefill`` of the .json beside the file). The count includes what Python spends on passing each
batch. It does not depend on the machine's load, so it serves as the gate; valgrind must be
installed. With ``--cache``, callgrind's cache model (the sizes of this machine, without
prefetching) adds the data misses.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from benches.rows import Row, publish, row
from exchange.engine import Engine
from exchange.sim.flow import START_NS, fill_books, prepare
from exchange.sim.flow_records import RAW_BYTES

COMMANDS: Final = 200_000
# The Python-callable wrapper only: a second matching symbol would switch the counting off again.
COUNTED: Final = "__pyx_pw_*flow_records*apply_all"
# Callgrind counts every byte of a `rep movsb` as an instruction. The C library would use it above
# these sizes, so it is told to use its vector loops, as for smaller copies.
TUNABLES: Final = "glibc.cpu.x86_rep_movsb_threshold=1073741824:" + (
    "glibc.cpu.x86_rep_stosb_threshold=1073741824"
)


@dataclass(frozen=True, slots=True)
class Count:
    """Counts of callgrind: instructions, and data misses (read and write) by cache level."""

    instructions: int
    first_misses: int = 0
    last_misses: int = 0


def prefill(path: Path) -> int:
    """Return how many commands at the start only fill the book, from the .json beside the flow."""
    facts = path.with_suffix(".json")
    return int(json.loads(facts.read_text())["prefill"]) if facts.exists() else 0


def count(
    ready: list[bytes], counted: list[bytes], *, keep: Path | None = None, cache: bool = False
) -> Count:
    """Return what an engine spends on the batches ``counted``, after the batches ``ready``.

    ``keep``: where to leave callgrind's own file. ``cache``: count misses too, which takes twice as
    long. Raises RuntimeError if valgrind is missing or fails, or if nothing was counted.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError("valgrind is not installed")
    with tempfile.TemporaryDirectory() as folder:
        batches, found = Path(folder) / "batches", Path(folder) / "callgrind.out"
        batches.write_bytes(msgspec.msgpack.encode((START_NS, ready, counted)))
        done = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                "--collect-atstart=no",
                f"--cache-sim={'yes' if cache else 'no'}",
                f"--toggle-collect={COUNTED}",
                f"--callgrind-out-file={found}",
                *(sys.executable, "-m", "benches.counted", str(batches)),
            ],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"GLIBC_TUNABLES": TUNABLES, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"valgrind failed: {done.stderr[-2000:]}")
        if keep is not None:
            shutil.copyfile(found, keep)
        return _read(found.read_text())


def _read(text: str) -> Count:
    """Return the totals of a callgrind file; raise RuntimeError if nothing was counted."""
    lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    figures = map(int, lines["totals"].split())
    totals = dict(  # trailing zeros are left out
        zip(lines["events"].split(), figures, strict=False)
    )
    if totals["Ir"] == 0:
        raise RuntimeError(f"nothing was counted: no function is called {COUNTED}")
    return Count(
        instructions=totals["Ir"],
        first_misses=totals.get("D1mr", 0) + totals.get("D1mw", 0),
        last_misses=totals.get("DLmr", 0) + totals.get("DLmw", 0),
    )


def flow_count(
    path: Path,
    skip: int,
    commands: int = COMMANDS,
    *,
    keep: Path | None = None,
    cache: bool = False,
) -> tuple[Count, int]:
    """Return the count of a raw flow's first commands after its prefix, and how many those are.

    Raises RuntimeError if the engine refuses the flow's setup, or as ``count`` does.
    """
    with path.open("rb") as file:
        flow = prepare(file.read((skip + commands) * RAW_BYTES), skip)
    fill_books(flow, Engine())
    found = count(flow.setup + flow.prefix, flow.timed, keep=keep, cache=cache)
    return found, flow.timed_commands


def count_rows(name: str, found: Count, of: int, unit: str, *, cache: bool) -> Iterator[Row]:
    """Yield the rows of a count, per unit; ``of`` is the number of units."""
    yield row(f"{name}.instructions", found.instructions / of, f"instructions/{unit}")
    if cache:
        yield row(f"{name}.first_misses", found.first_misses / of, f"data misses/{unit}")
        yield row(f"{name}.last_misses", found.last_misses / of, f"data misses/{unit}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("flow", type=Path, help="a raw flow file, .bin")
    parser.add_argument("--skip", type=int, help="commands before the count (those of its .json)")
    parser.add_argument(
        "--commands", type=int, default=COMMANDS, help="commands to count (%(default)s)"
    )
    parser.add_argument(
        "--cache", action="store_true", help="count misses of the processor's caches as well"
    )
    parser.add_argument("--keep", type=Path, help="a file to keep callgrind's own output in")
    parser.add_argument("--json", action="store_true", help="one JSON object per row, not text")
    options = parser.parse_args(arguments)
    skip = prefill(options.flow) if options.skip is None else options.skip
    found, commands = flow_count(
        options.flow, skip, options.commands, keep=options.keep, cache=options.cache
    )
    rows = count_rows(options.flow.stem, found, commands, "command", cache=options.cache)
    publish(rows, as_json=options.json, record=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
