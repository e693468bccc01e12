"""Instructions per command of a flow, counted by callgrind inside ``Engine.apply`` alone.

    python -m benches.instructions FLOW.bin [--skip N] [--commands N] [--keep FILE] [--json]

The count is of the first ``--commands`` commands after the prefix of ``--skip`` (from the
``prefill`` of the .json beside the file unless given). It includes what Python spends to hand
over each batch. It does not depend on the machine's load, so it is the gate; valgrind must be
installed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benches.rows import publish, row
from exchange.engine import Engine
from exchange.sim.flow import START_NS, fill_books, prepare
from exchange.sim.flow_records import RAW_BYTES, apply_all

COMMANDS: Final = 200_000
# The Python-callable wrapper only: a second matching symbol would switch the counting off again.
COUNTED: Final = "__pyx_pw_*flow_records*apply_all"
# Callgrind counts every byte of a `rep movsb` as an instruction; above these sizes the C library
# would copy with it, so it is told to use its vector loops as it does for smaller copies.
TUNABLES: Final = "glibc.cpu.x86_rep_movsb_threshold=1073741824:" + (
    "glibc.cpu.x86_rep_stosb_threshold=1073741824"
)


def prefill(path: Path) -> int:
    """How many commands at the start only fill the book, as the file beside the flow says."""
    facts = path.with_suffix(".json")
    return int(json.loads(facts.read_text())["prefill"]) if facts.exists() else 0


def instructions_per_command(
    path: Path, skip: int, commands: int = COMMANDS, keep: Path | None = None
) -> float:
    """Run the flow under callgrind. Raises RuntimeError if valgrind is missing or fails."""
    commands = min(commands, path.stat().st_size // RAW_BYTES - skip)
    run = ["-m", "benches.instructions", str(path.resolve())]
    run += ["--counted", "--skip", str(skip), "--commands", str(commands)]
    return count(run, keep) / commands


def count(run: Sequence[str], keep: Path | None = None) -> int:
    """The instructions inside ``apply_all`` of Python called with these arguments.

    Raises RuntimeError if valgrind is missing or fails, or if ``apply_all`` was not called.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError("valgrind is not installed")
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "callgrind.out"
        done = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                "--collect-atstart=no",
                f"--toggle-collect={COUNTED}",
                f"--callgrind-out-file={counts}",
                *(sys.executable, *run),
            ],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"GLIBC_TUNABLES": TUNABLES, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"valgrind failed: {done.stderr[-2000:]}")
        total = next(
            int(line.split()[1])
            for line in counts.read_text().splitlines()
            if line.startswith("totals:")
        )
        if keep is not None:
            shutil.copyfile(counts, keep)
    if total == 0:
        raise RuntimeError(f"nothing was counted: no function is called {COUNTED}")
    return total


def _run_counted(path: Path, skip: int, commands: int) -> None:
    """The run that callgrind watches: only ``apply_all`` is counted."""
    with path.open("rb") as file:
        flow = prepare(file.read((skip + commands) * RAW_BYTES), skip)
    engine = Engine()
    sequence = fill_books(flow, engine)
    apply_all(engine.apply, flow.timed, sequence, START_NS)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("flow", type=Path)
    parser.add_argument("--skip", type=int)
    parser.add_argument("--commands", type=int, default=COMMANDS)
    parser.add_argument("--keep", type=Path, help="where to leave callgrind's own file")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    skip = prefill(options.flow) if options.skip is None else options.skip
    if options.counted:
        _run_counted(options.flow, skip, options.commands)
        return 0
    count = instructions_per_command(options.flow, skip, options.commands, options.keep)
    name = f"{options.flow.stem}.instructions"
    publish([row(name, count, "instructions/command")], as_json=options.json, record=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
