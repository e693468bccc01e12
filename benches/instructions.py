"""Instructions per command of a flow, counted by callgrind inside ``Engine.apply`` alone.

    python -m benches.instructions FLOW.bin [--skip N] [--commands N] [--keep FILE] [--json]

The count is of the first ``--commands`` commands after the prefix of ``--skip`` (from the
``prefill`` of the .json beside the file unless given). It includes what Python spends to hand
over each batch. It does not depend on the machine's load, so it is the gate; valgrind must be
installed. With ``--cache`` callgrind's model of the caches (those of this machine, without its
prefetching) adds the misses of data.
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
# Callgrind counts every byte of a `rep movsb` as an instruction; above these sizes the C library
# would copy with it, so it is told to use its vector loops as it does for smaller copies.
TUNABLES: Final = "glibc.cpu.x86_rep_movsb_threshold=1073741824:" + (
    "glibc.cpu.x86_rep_stosb_threshold=1073741824"
)


@dataclass(frozen=True, slots=True)
class Count:
    """What callgrind saw. Misses of data, reads and writes: of the first and of the last cache."""

    instructions: int
    first_misses: int = 0
    last_misses: int = 0


def prefill(path: Path) -> int:
    """How many commands at the start only fill the book, as the file beside the flow says."""
    facts = path.with_suffix(".json")
    return int(json.loads(facts.read_text())["prefill"]) if facts.exists() else 0


def count(
    ready: list[bytes], counted: list[bytes], *, keep: Path | None = None, cache: bool = False
) -> Count:
    """What an engine spends on the batches ``counted``, after those that make it ready.

    ``keep``: where to leave callgrind's own file. ``cache``: misses too, which takes twice as long.
    Raises RuntimeError if valgrind is missing or fails, or if nothing was counted.
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
    """The totals of a callgrind file. Raises RuntimeError if nothing was counted."""
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
    """What a raw flow's first commands after its prefix cost, and how many those are.

    Raises RuntimeError if the engine refuses the flow's setup, or as ``count`` does.
    """
    with path.open("rb") as file:
        flow = prepare(file.read((skip + commands) * RAW_BYTES), skip)
    fill_books(flow, Engine())
    found = count(flow.setup + flow.prefix, flow.timed, keep=keep, cache=cache)
    return found, flow.timed_commands


def count_rows(name: str, found: Count, of: int, unit: str, *, cache: bool) -> Iterator[Row]:
    """The rows of a count, for each of so many commands or orders."""
    yield row(f"{name}.instructions", found.instructions / of, f"instructions/{unit}")
    if cache:
        yield row(f"{name}.first_misses", found.first_misses / of, f"data misses/{unit}")
        yield row(f"{name}.last_misses", found.last_misses / of, f"data misses/{unit}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("flow", type=Path)
    parser.add_argument("--skip", type=int)
    parser.add_argument("--commands", type=int, default=COMMANDS)
    parser.add_argument("--cache", action="store_true", help="misses of the caches too")
    parser.add_argument("--keep", type=Path, help="where to leave callgrind's own file")
    parser.add_argument("--json", action="store_true")
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
