"""A short fuzz of the decoder in every run; `make fuzz SECONDS=N` goes on. Budget: 10 seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_no_frame_breaks_the_decoder(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="no wheel of atheris for this platform")
    # no limit of memory: what a parent once had counts as the child's
    limits = ["-runs=80000", "-seed=1", "-rss_limit_mb=0"]
    command = [sys.executable, str(HERE / "fuzzing.py"), *limits]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/"],
        env={"PYTHONPATH": f"{HERE.parent}:{HERE}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done 80000 runs" in done.stderr
    assert "no interesting inputs" not in done.stderr, "nothing was instrumented"
