"""The commands: snapshots beside a live market, a restart from one, a shadow that tells.

Budget: 20 seconds, most of it the processes of the live market.
"""

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from recorded import FIRST_SEGMENT, frame_bounds
from served import CHECKOUT, COMMAND, serving
from test_journal import reseal

from exchange.app import Market, asking, requests
from exchange.cli.output import Exit, Failure
from exchange.cli.root import app
from exchange.engine import Engine
from exchange.journal import frame as frames
from exchange.journal import sealed, snapshots
from exchange.journal.errors import DamagedLog
from exchange.journal.replay import replay
from exchange.journal.storage import LocalStorage
from exchange.messages import COMMAND_BYTES, CommandKind

SECONDS = 30
PRICE_AT = 16  # of a command: a deposit's amount

Hourbook = Callable[..., Any]


@pytest.fixture
def hourbook(capsys: pytest.CaptureFixture[str]) -> Hourbook:
    """Runs a command in this process; returns its last line of JSON."""

    def run(*arguments: str | Path) -> Any:
        capsys.readouterr()
        app([*map(str, arguments), "--json"], standalone_mode=False)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def deposit(account: int) -> requests.Deposit:
    return requests.Deposit(account=account, amount="1000")


def deposited(directory: Path, *accounts: int) -> None:
    """A run of the market in which these accounts are given money."""

    async def session() -> None:
        market = await Market.start(directory)
        for account in accounts:
            await market.operations.perform(deposit(account))
        await market.stop()

    asyncio.run(session())


@contextmanager
def shadowing(data: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    command = [*COMMAND, "shadow", str(data), "--json", *options]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def test_a_shadow_beside_a_live_market_writes_what_the_next_start_begins_with(
    tmp_path: Path,
) -> None:
    options = ("--every", "3", "--seconds", "1000")
    with serving(tmp_path) as server, shadowing(tmp_path, *options) as shadow:
        assert line(shadow)["ready"] is True
        taken = line(shadow)
        for account in (1, 2):
            answer = asyncio.run(asking.ask(tmp_path, deposit(account)))
            assert answer is not None and answer.ok
        assert line(shadow)["sequence"] > taken["sequence"]
        server.stop(signal.SIGKILL)
        shadow.send_signal(signal.SIGTERM)
        said, _ = shadow.communicate(timeout=SECONDS)
    last = json.loads(said.splitlines()[-1])
    assert last["stopped"] is True and last["snapshots"] >= 2
    storage, engine = LocalStorage(tmp_path), Engine()
    found = snapshots.recover(storage, engine, tape=tmp_path)
    newest, _, name = sealed.list_files(storage, snapshots.KIND)[0]
    assert (found.point.sequence, found.passed) == (newest, [])
    with serving(tmp_path) as server:
        final = json.loads(server.stop().splitlines()[-1])
    report = replay(tmp_path, Engine)
    assert report.divergence is None
    assert report.state_hash.hex() == final["state_hash"]
    assert found.file is not None and found.file.endswith(name)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed market with a snapshot and something behind it."""
    data = tmp_path_factory.mktemp("closed") / "market"
    deposited(data, 1)
    app(["snapshot", "write", str(data)], standalone_mode=False)
    deposited(data, 2, 3)
    return data


@pytest.fixture
def copy(market: Path, tmp_path: Path) -> Path:
    shutil.copytree(market, tmp_path / "copy")
    return tmp_path / "copy"


def test_write_list_verify(copy: Path, hourbook: Hourbook) -> None:
    (before,) = hourbook("snapshot", "list", copy)
    written = hourbook("snapshot", "write", copy)
    newest, older = hourbook("snapshot", "list", copy)
    assert (newest["sequence"], older) == (written["sequence"], before)
    assert newest["this_build"] is True
    verified = hourbook("snapshot", "verify", copy)
    assert [(one["reason"], one["view"]) for one in verified] == [("", "")] * 2
    assert verified[0]["state_hash"] == written["state_hash"]
    assert written["state_hash"] == replay(copy, Engine).state_hash.hex()
    hourbook("snapshot", "write", copy, "--fresh", "--keep", "1")
    assert len(hourbook("snapshot", "list", copy)) == 1


def test_a_replay_may_begin_with_a_snapshot(copy: Path, hourbook: Hourbook) -> None:
    whole = hourbook("replay", copy, "--verify")
    short = hourbook("replay", copy, "--from-snapshot")
    for name in ("last_sequence", "state_hash"):
        assert short[name] == whole[name]
    assert 0 < short["commands"] < whole["commands"]
    until = ("replay", copy, "--until", str(whole["last_sequence"] - 1))
    assert hourbook(*until)["state_hash"] == hourbook(*until, "--from-snapshot")["state_hash"]
    with pytest.raises(Failure, match="whole log"):
        hourbook("replay", copy, "--verify", "--from-snapshot")


def test_what_people_see(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("list", "verify"):
        app(["snapshot", command, str(copy)], standalone_mode=False)
        heads, row = capsys.readouterr().out.splitlines()
        assert heads.startswith("sequence")
        assert row


def test_a_damaged_snapshot_is_told_and_a_start_does_without(
    copy: Path, hourbook: Hourbook, caplog: pytest.LogCaptureFixture
) -> None:
    _, _, name = sealed.list_files(LocalStorage(copy), snapshots.KIND)[0]
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(Failure, match="snapshot write") as failure:
        hourbook("snapshot", "verify", copy)
    assert failure.value.code == Exit.NO
    deposited(copy, 4)
    assert "snapshot passed over" in caplog.text and "damaged" in caplog.text
    hourbook("snapshot", "write", copy)
    with pytest.raises(Failure, match="a start passes over it"):
        hourbook("snapshot", "verify", copy)


def test_without_a_log_or_a_snapshot_they_say_what_to_do(
    tmp_path: Path, copy: Path, hourbook: Hourbook
) -> None:
    for command in (["snapshot", "write"], ["shadow"]):
        with pytest.raises(Failure, match="no log in") as failure:
            hourbook(*command, tmp_path)
        assert failure.value.code == Exit.UNUSABLE
    shutil.rmtree(copy / sealed.FOLDER)
    assert hourbook("snapshot", "list", copy) == []
    with pytest.raises(Failure, match="no snapshot"):
        hourbook("snapshot", "verify", copy)


def test_a_log_that_is_damaged_gets_no_snapshot(copy: Path, hourbook: Hourbook) -> None:
    before = hourbook("snapshot", "list", copy)
    path, (start, end) = copy / FIRST_SEGMENT, frame_bounds(copy)[-1]
    data = bytearray(path.read_bytes())
    data[(start + end) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedLog):
        hourbook("snapshot", "write", copy)
    with pytest.raises(DamagedLog):
        hourbook("shadow", copy)
    assert hourbook("snapshot", "list", copy) == before


def altered(directory: Path) -> int:
    """Change a deposit behind the snapshot and reseal all that follows, as one who may write it
    all could; return the first sequence of its batch.
    """
    path, bounds = directory / FIRST_SEGMENT, frame_bounds(directory)
    whole, after = (
        path.read_bytes(),
        sealed.list_files(LocalStorage(directory), snapshots.KIND)[0][0],
    )
    previous, remade, changed = frames.NO_HASH, [], 0
    for start, end in bounds:
        frame = bytearray(whole[start:end])
        frame[104:136] = previous
        first = int.from_bytes(frame[32:40], "little")
        commands = range(frames.HEADER_BYTES, frames.HEADER_BYTES + frame[56] * COMMAND_BYTES,
                         COMMAND_BYTES)  # fmt: skip
        for at in commands:
            if first > after and not changed and frame[at] == CommandKind.DEPOSIT:
                frame[at + PRICE_AT] ^= 1
                changed = first
        remade.append(reseal(bytes(frame)))
        previous = remade[-1][176:208]
    path.write_bytes(b"".join(remade))
    (directory / "head").unlink()
    return changed


@pytest.mark.parametrize("command", [["shadow"], ["snapshot", "write"]])
def test_a_difference_is_said_where_it_is_and_is_exit_code_1(
    copy: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = altered(copy)
    with pytest.raises(Failure, match="not what this build makes of it") as failure:
        app([*command, str(copy), "--json"], standalone_mode=False)
    assert failure.value.code == Exit.NO
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["what"], told["first_sequence"]) == ("events", first)
    assert len(sealed.list_files(LocalStorage(copy), snapshots.KIND)) == 1
