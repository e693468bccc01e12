"""The engine's suite again, on a core built with its own checks, bounds and overflow trapped.

Budget: 180 seconds, of which the build takes a third.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[1]
ROOMS: Final = ("exchange", "contracts", "clients", "tests", "docs", "benches")
FILES: Final = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
SUITE: Final = ("", "_rules", "_rejects", "_precedence", "_properties", "_snapshot", "_quotes",
         "_positions")  # fmt: skip


def run(where: Path, *command: str) -> None:
    environment = dict(os.environ, HOURBOOK_CHECKED="1", PYTHONPATH=str(where))
    done = subprocess.run(
        [sys.executable, "-P", *command],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_the_checked_build_runs_the_same_suite(tmp_path: Path) -> None:
    made = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    for room in ROOMS:
        shutil.copytree(CHECKOUT / room, tmp_path / room, ignore=made)
    for name in FILES:
        shutil.copy(CHECKOUT / name, tmp_path / name)
    run(tmp_path, "setup.py", "-q", "build_ext", "--inplace")
    found = "import exchange.engine.core as core, pathlib, sys\n"
    found += f"sys.exit(not pathlib.Path(core.__file__).is_relative_to({str(tmp_path)!r}))"
    run(tmp_path, "-c", found)
    run(tmp_path, "-m", "pytest", "-q", *(f"tests/test_engine{name}.py" for name in SUITE))
