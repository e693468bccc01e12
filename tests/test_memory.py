"""A table from which the oldest leaves does not grow the process that serves. Budget: 3 seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
# As the gateway's orders: the newest come in, the oldest leave, the table is laid out anew.
PROGRAM = """
import sys
from collections import deque
from exchange.app.collector import give_back_tables

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4 // 1024

if sys.argv[1] == "give back":
    give_back_tables()
table, ends, seen = {}, deque(), []
for number in range(1_300_000):
    table[number] = str(number)
    ends.append(number)
    if len(ends) > 1 << 17:
        del table[ends.popleft()]
    if number in (250_000, 1_299_999):
        seen.append(resident())
print(seen[1] - seen[0])
"""


def growth(how: str) -> int:
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to read memory from")
def test_tables_give_their_memory_back() -> None:
    assert growth("give back") <= 2  # MiB
    assert growth("keep") >= 8  # else the measure measures nothing here
