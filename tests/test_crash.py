"""A real server, killed without warning under load: nothing said is lost, nothing is there twice.

Budget: 45 seconds on two cores. HOURBOOK_CRASH_SECONDS=N goes on for N seconds instead.
"""

import os
import time
from pathlib import Path

from crashes import Supervisor, judge
from nursery import Nursery

KILLS = 24
SECONDS = int(os.environ.get("HOURBOOK_CRASH_SECONDS", "0"))


async def test_a_server_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Each client's own story, the log's, the oracle's and the ledger's are the same one."""
    deadline = time.monotonic() + SECONDS

    def goes_on(kills: int) -> bool:
        return time.monotonic() < deadline if SECONDS else kills < KILLS

    with Nursery() as nursery:
        supervisor = Supervisor(tmp_path, nursery, seed=1)
        await supervisor.storm(goes_on)
    found = judge(supervisor)
    print(found)
    assert found["placed"] > 10 * found["kills"] and found["ok"] > found["fail"]
