"""What every test may use, in what order tests run, and what no test run may start with: a compiled
core older than its source.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

CHECKOUT = Path(__file__).parents[1]
SHARED = CHECKOUT.parent / "shared"
AGREED = "commands that agreed"  # a test's property: of its random commands
SHARED_ABSENT = "../shared is absent: it is not part of the project"


def stale_binaries(checkout: Path) -> list[str]:
    """The compiled modules under ``exchange`` that are older than a source beside them, or whose
    source is no longer compiled."""
    stale = []
    for binary in sorted(checkout.glob("exchange/**/*.so")):
        source = binary.with_name(binary.name.partition(".")[0] + ".pyx")
        if not source.exists() and source.with_suffix(".pxd").exists():
            source = source.with_suffix(".py")  # compiled as it stands
        known = (path.stat().st_mtime for path in (source, *binary.parent.glob("*.pxd")))
        if not source.exists() or binary.stat().st_mtime < max(known):
            stale.append(str(binary.relative_to(checkout)))
    return stale


def pytest_configure(config: pytest.Config) -> None:
    stale = stale_binaries(CHECKOUT)
    if stale and os.environ.get("HOURBOOK_STALE") != "allow":
        pytest.exit(
            f"older than its source, or without one: {', '.join(stale)}; `make clean build`",
            returncode=2,
        )


BUDGET: Final = re.compile(r"\bBudget: (\d+) seconds\b")


@cache
def budget(path: Path) -> int:
    """The seconds of one core that a file of tests says it takes; 0 if it does not say."""
    said = BUDGET.search(path.read_text())
    return 0 if said is None else int(said[1])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: workers that take file after file then end nearly together."""
    items.sort(key=lambda item: -budget(item.path))


_skipped_for_shared: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple) and "shared" in report.longrepr[2]:
        _skipped_for_shared.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test must not skip for want of ../shared when it is there."""
    if os.environ.get("CI") == "true" and SHARED.is_dir() and _skipped_for_shared:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\n../shared is there, yet these skipped for want of it: {_skipped_for_shared}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many random commands were compared, over all tests that count them."""
    passed = terminalreporter.stats.get("passed", [])
    counts = [n for report in passed for name, n in report.user_properties if name == AGREED]
    if counts:
        terminalreporter.write_line(f"{sum(counts):,} random commands: oracle and engine agreed")


@pytest.fixture(scope="session")
def shared() -> Iterator[Path]:
    """The folder of acceptance vectors, real data and order flow beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(SHARED_ABSENT)
    yield SHARED
