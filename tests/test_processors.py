"""A market that keeps to one processor, and its children that do not."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from served import CHECKOUT, COMMAND, serving

from exchange.app.processors import ANY, NoSuchProcessor, keep_to

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system keeps nothing to a processor"
)


def allowed(process: int) -> list[set[int]]:
    """The processors that each thread of a process may run on."""
    threads = [int(one.name) for one in Path(f"/proc/{process}/task").iterdir()]
    return [os.sched_getaffinity(thread) for thread in threads]


def children(process: int) -> list[int]:
    """Those that a process started, by any of its threads."""
    found = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for one in found for child in one.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for threads in /proc")
def test_the_market_keeps_to_it_and_its_children_do_not(tmp_path: Path) -> None:
    given = os.sched_getaffinity(0)
    last = max(given)
    config = tmp_path / "hourbook.toml"
    config.write_text('[serve]\nclearing = "process"\n')
    flags = ["--gateways", "1", "--processor", str(last), "--config", str(config)]
    with serving(tmp_path / "market", *flags) as server:
        started = children(server.process.pid)
        assert len(started) == 2  # the gateway, the clearing house
        assert all(one == given for child in started for one in allowed(child))
        assert os.sched_getaffinity(server.process.pid) == {last}  # of its first thread
        # the one that syncs too; not those that numpy began before, or that wait for a child
        assert allowed(server.process.pid).count({last}) >= 2
        assert "state_hash" in server.stop()


def test_it_keeps_to_none_unless_told(tmp_path: Path) -> None:
    with serving(tmp_path / "market") as server:
        assert os.sched_getaffinity(server.process.pid) == os.sched_getaffinity(0)


def test_a_processor_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    command = [*COMMAND, "serve", "--data", str(tmp_path), "--processor", "4095"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    told = re.search(r"no processor 4095; it may run on ([\d, ]+)", done.stderr)
    assert told is not None
    assert {int(one) for one in told[1].split(", ")} == os.sched_getaffinity(0)
    before = os.sched_getaffinity(0)
    keep_to(ANY)
    with pytest.raises(NoSuchProcessor):
        keep_to(4095)
    assert os.sched_getaffinity(0) == before
    assert not list(tmp_path.iterdir())
