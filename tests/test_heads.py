"""Signed heads: a log written anew as a whole is still not the log that was."""

import asyncio
import base64
import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from recorded import (
    EXCHANGE_ID,
    FIRST_SEGMENT,
    NOON,
    SECOND,
    Clock,
    crashed_copy,
    deposits,
    open_sequencer,
    read_log,
    record,
    running,
    say,
)
from typer.testing import CliRunner

from exchange.app import Market
from exchange.app.settings import Serve, Settings
from exchange.cli.root import app
from exchange.engine import Engine
from exchange.journal import heads as signed
from exchange.journal.errors import BrokenChain, DamagedHead, DamagedLog, NewerVersion
from exchange.journal.head import Written, read_head
from exchange.journal.heads import BadKey, HeadsMissing, read_heads
from exchange.journal.places import find_sequence
from exchange.journal.reader import LogReader, Start

HEX = EXCHANGE_ID.hex()
BATCHES = [deposits(2, 10 * at) for at in range(1, 5)]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


@pytest.fixture
def market(tmp_path: Path, elsewhere: Path) -> Path:
    """A market that signed a head at its close, of sequence 8, and one more after a restart."""
    directory = tmp_path / "market"
    record(directory, BATCHES, heads=elsewhere, clock=Clock())
    record(directory, [deposits(1, 900)], heads=elsewhere, clock=Clock(NOON + SECOND))
    return directory


def start(directory: Path, heads: Path) -> None:
    asyncio.run(open_sequencer(directory, heads=heads).close())


def rewritten(market: Path, other: Path) -> Path:
    """The same history but for one deposit, by somebody who may write the whole directory."""
    changed = [deposits(2, 10 * at) for at in (1, 5, 3, 4)]
    record(other, changed, clock=Clock())
    record(other, [deposits(1, 900)], clock=Clock(NOON + SECOND))
    shutil.copy(market / signed.KEY_NAME, other / signed.KEY_NAME)
    return other


def test_a_head_says_what_the_log_was(market: Path, elsewhere: Path) -> None:
    heads = read_heads(elsewhere, HEX)
    assert [(head.epoch, head.sequence) for head in heads] == [(1, 8), (2, 10)]
    for head in heads:
        frames = [f for chunk in LogReader(market).chunks() for f in chunk]
        (frame,) = [f for f in frames if f.last_sequence == head.sequence]
        assert (head.frame_hash, head.stamp) == (frame.hash.hex(), frame.opening.stamp)
    start(market, elsewhere)
    assert os.stat(market / signed.KEY_NAME).st_mode & 0o777 == 0o600


async def test_heads_are_signed_while_the_market_runs(tmp_path: Path, elsewhere: Path) -> None:
    """Once a period of the log's time, and never of what is not durable."""
    clock = Clock()
    async with running(tmp_path, clock=clock, heads=elsewhere) as sequencer:
        for number in range(6):
            clock.now += signed.PERIOD_NS // 2
            await say(sequencer, deposits(1, 1 + number))
            signer = sequencer._signer
            assert signer is not None
            expected = number + 1 if number and not number % 2 else 0
            async with asyncio.timeout(10):
                while signer.signed_upto < expected:
                    await asyncio.sleep(0.001)
    assert [head.sequence for head in read_heads(elsewhere, HEX)] == [3, 5, 6]


def test_a_log_written_anew_is_refused_with_the_place(
    market: Path, elsewhere: Path, tmp_path: Path
) -> None:
    other = rewritten(market, tmp_path / "other")
    assert read_log(other).last_sequence == 10  # in itself it is whole
    place = find_sequence(other, 8)
    with pytest.raises(BrokenChain) as caught:
        start(other, elsewhere)
    error = caught.value
    assert (error.path, error.offset) == (other / FIRST_SEGMENT, place.offset)
    assert f"sequence 8, named by the signed head in {elsewhere}" in str(error)
    assert error.expected == read_heads(elsewhere, HEX)[0].frame_hash != error.found
    for command in (["heads", "verify"], ["replay", "--verify"]):
        told = CliRunner().invoke(app, [*command, str(other), "--heads", str(elsewhere)])
        assert isinstance(told.exception, BrokenChain)
        assert told.exception.offset == place.offset
    assert CliRunner().invoke(app, ["replay", "--verify", str(other)]).exit_code == 0
    good = CliRunner().invoke(
        app, ["heads", "verify", str(market), "--heads", str(elsewhere), "--json"]
    )
    facts = json.loads(good.stdout)
    assert (facts["heads"], facts["signed_upto"], facts["log_upto"]) == (2, 10, 10)
    refused = CliRunner().invoke(
        app, ["heads", "verify", str(market), "--heads", str(elsewhere), "--key", "ab" * 8]
    )
    assert refused.exit_code == 1


def test_other_batches_of_the_same_commands_are_another_log(
    market: Path, elsewhere: Path, tmp_path: Path
) -> None:
    """No frame ends where the head says: that is found too."""
    other = tmp_path / "batched"
    every = [command for batch in BATCHES for command in batch]
    record(other, [every[:7], [every[7], *deposits(2, 700)]], clock=Clock())
    shutil.copy(market / signed.KEY_NAME, other / signed.KEY_NAME)
    with pytest.raises(BrokenChain, match="ending at sequence 8"):
        start(other, elsewhere)


def test_a_log_cut_below_a_head_is_refused(market: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Even with every file beside it gone that could have told."""
    cut = crashed_copy(market, tmp_path / "cut")
    shutil.copy(market / signed.KEY_NAME, cut / signed.KEY_NAME)
    os.truncate(cut / FIRST_SEGMENT, find_sequence(cut, 9).offset)
    assert read_log(cut).last_sequence == 8
    with pytest.raises(DamagedLog, match="durable up to 10"):
        start(cut, elsewhere)


@pytest.mark.parametrize("left", ["nothing", "a spoilt header"])
def test_a_log_that_says_no_longer_whose_it_is_is_compared_all_the_same(
    market: Path, elsewhere: Path, tmp_path: Path, left: str
) -> None:
    """Without a first header the exchange is the one that ``exchange.id`` names."""
    gone = crashed_copy(market, tmp_path / "gone")
    (gone / "head").unlink(missing_ok=True)
    if left == "nothing":
        (gone / FIRST_SEGMENT).unlink()
    else:
        with open(gone / FIRST_SEGMENT, "r+b") as file:
            file.write(bytes(4))
    for command in (["heads", "verify"], ["replay", "--verify"]):
        asked = [*command, str(gone), "--heads", str(elsewhere)]
        (gone / "exchange.id").write_text(f"{HEX}\n")
        assert "durable up to 10" in str(CliRunner().invoke(app, asked).exception)
        (gone / "exchange.id").unlink()
        assert isinstance(CliRunner().invoke(app, asked).exception, HeadsMissing)


def test_a_start_inside_the_log_still_looks_at_the_head_before_it(
    market: Path, elsewhere: Path, tmp_path: Path
) -> None:
    known = signed.frames_known_of(market, elsewhere)
    other = rewritten(market, tmp_path / "other")
    LogReader(market, EXCHANGE_ID, known=known, start=Start(9))
    with pytest.raises(BrokenChain, match="ending at sequence 8"):
        LogReader(other, EXCHANGE_ID, known=known, start=Start(9))


def test_the_head_beside_a_log_does_not_speak_for_it_in_place_of_a_signed_one(
    market: Path, elsewhere: Path, tmp_path: Path
) -> None:
    """Who wrote the log anew wrote that one, too."""
    other, known = rewritten(market, tmp_path / "other"), signed.frames_known_of(market, elsewhere)
    assert (head := read_head(other)) is not None and head.sequence == known[-1].sequence == 10
    with pytest.raises(BrokenChain, match=f"sequence 10, named by the signed head in {elsewhere}"):
        LogReader(other, EXCHANGE_ID, known=known, start=Start(10))


@pytest.mark.parametrize(
    "damage", ["changed", "removed", "swapped", "unsigned", "key", "no key", "newer"]
)
def test_damaged_heads_are_refused(market: Path, elsewhere: Path, damage: str) -> None:
    path = elsewhere / f"{HEX}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    (public,) = (elsewhere / "keys").iterdir()
    names: type[Exception] = DamagedHead
    if damage == "changed":
        lines[0] = lines[0].replace(b'"sequence":8', b'"sequence":7')
    elif damage == "removed":
        del lines[0]
    elif damage == "swapped":
        lines.reverse()
    elif damage == "unsigned":
        head = json.loads(lines[1])
        head["signature"] = "00" * 64
        lines[1] = json.dumps(head).encode() + b"\n"
    elif damage == "newer":
        lines[1] = json.dumps(json.loads(lines[1]) | {"format": 2, "witness": ""}).encode() + b"\n"
        names = NewerVersion
    elif damage == "key":
        name = signed._leave_public(signed.load_key(elsewhere / "other.pem"), elsewhere / "keys")
        (elsewhere / "keys" / f"{name}.pem").rename(public)
        names = BadKey
    else:
        public.unlink()
        names = BadKey
    path.write_bytes(b"".join(lines))
    with pytest.raises(names):
        read_heads(elsewhere, HEX)
    with pytest.raises(names):
        start(market, elsewhere)


def test_a_torn_last_line_was_never_a_head(market: Path, elsewhere: Path) -> None:
    path = elsewhere / f"{HEX}.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    assert len(read_heads(elsewhere, HEX)) == 2
    record(market, [deposits(1, 950)], heads=elsewhere, clock=Clock(NOON + 2 * SECOND))
    assert [head.sequence for head in read_heads(elsewhere, HEX)] == [8, 10, 12]


def test_another_key_goes_on_where_the_last_one_ended(market: Path, elsewhere: Path) -> None:
    """Rotation: the old public key stays and speaks for what it signed."""
    (market / signed.KEY_NAME).unlink()
    record(market, [deposits(1, 950)], heads=elsewhere)
    heads = read_heads(elsewhere, HEX)
    assert len({head.key for head in heads}) == 2 == len(list((elsewhere / "keys").iterdir()))
    start(market, elsewhere)


def test_heads_that_should_be_there_are_missed(market: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadsMissing, match="mount that directory"):
        start(market, tmp_path / "not mounted")
    start(market, tmp_path / "elsewhere")  # the directory was given back


def test_heads_that_are_none_prove_nothing(market: Path, elsewhere: Path) -> None:
    """A file without a line: nothing was signed yet, or all of it was cut off."""
    (elsewhere / f"{HEX}.jsonl").write_bytes(b"")
    for ask in (["replay", "--verify"], ["heads", "verify"]):
        done = CliRunner().invoke(app, [*ask, str(market), "--heads", str(elsewhere)])
        assert isinstance(done.exception, HeadsMissing)
        assert "nothing is compared" in str(done.exception)


def test_a_key_of_an_unknown_kind_is_refused(market: Path, elsewhere: Path) -> None:
    """Well-made PEM, of an algorithm that this build does not know."""
    (public,) = (elsewhere / "keys").iterdir()
    for path, kind in ((market / signed.KEY_NAME, "PRIVATE"), (public, "PUBLIC")):
        whole = path.read_bytes()
        head, body, foot = whole.strip().rsplit(b"\n", 2)
        der = base64.b64decode(body).replace(bytes([0x2B, 0x65, 0x70]), bytes([0x2B, 0x65, 0x0F]))
        path.write_bytes(b"\n".join((head, base64.b64encode(der), foot, b"")))
        assert kind.encode() in head and path.read_bytes() != whole
        with pytest.raises(BadKey):
            start(market, elsewhere)
        path.write_bytes(whole)


@pytest.mark.parametrize("which", [f"/{signed.KEY_NAME}", ".pem"])
def test_a_key_is_there_whole_or_not_at_all(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """Power goes while it is written, or its public half: the next start makes it again."""
    rename = os.rename

    def die(source: object, target: Path) -> None:
        if str(target).endswith(which):
            raise KeyboardInterrupt
        rename(source, target)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            signed.HeadWriter(tmp_path, elsewhere, EXCHANGE_ID)
    assert not list((elsewhere / "keys").glob("*.pem"))
    signed.HeadWriter(tmp_path, elsewhere, EXCHANGE_ID).close(Written(1, 5, bytes(32), NOON))
    assert len(read_heads(elsewhere, HEX)) == 1
    assert (tmp_path / signed.KEY_NAME).stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_may_read_is_refused(market: Path, elsewhere: Path) -> None:
    os.chmod(market / signed.KEY_NAME, 0o640)
    with pytest.raises(BadKey, match="chmod 600"):
        start(market, elsewhere)


def test_a_head_that_cannot_be_written_stops_nobody(tmp_path: Path, elsewhere: Path) -> None:
    writer = signed.HeadWriter(tmp_path, elsewhere, EXCHANGE_ID)
    (elsewhere / f"{HEX}.jsonl").unlink()
    (elsewhere / f"{HEX}.jsonl").mkdir()
    writer.close(Written(1, 5, bytes(32), NOON))
    assert (writer.failed, writer.signed_upto) == (1, 0)


def test_heads_go_on_where_they_were_once_their_disk_is_back(
    tmp_path: Path, elsewhere: Path
) -> None:
    """While it is not mounted, nothing is written to the directory that is there in its place."""
    writer = signed.HeadWriter(tmp_path, elsewhere, EXCHANGE_ID)
    writer._write(Written(1, 5, bytes(32), NOON))
    elsewhere.rename(tmp_path / "unmounted")
    elsewhere.mkdir()
    writer._write(Written(1, 6, bytes(32), NOON))
    assert (writer.failed, writer.signed_upto, list(elsewhere.iterdir())) == (1, 5, [])
    elsewhere.rmdir()
    (tmp_path / "unmounted").rename(elsewhere)
    writer.close(Written(1, 7, bytes(32), NOON))
    assert [head.sequence for head in read_heads(elsewhere, HEX)] == [5, 7]


@pytest.mark.parametrize("written", [1, 200, 10_000])
def test_what_a_disk_keeps_of_a_head_that_failed_is_removed_before_the_next(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """It takes a part of the line, or all of it, and then neither a sync nor a truncation."""
    writer, write = signed.HeadWriter(tmp_path, elsewhere, EXCHANGE_ID), os.write
    writer._write(Written(1, 5, bytes(32), NOON))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, line: write(file, line[:written]))
        patch.setattr(os, "fsync", fail)
        patch.setattr(os, "ftruncate", fail)
        writer._write(Written(1, 6, bytes(32), NOON))
        writer._write(Written(1, 7, bytes(32), NOON))
    assert (writer.failed, writer.signed_upto) == (2, 5)
    writer.close(Written(1, 8, bytes(32), NOON))
    assert [head.sequence for head in read_heads(elsewhere, HEX)] == [5, 8]


def test_openssl_agrees(market: Path, elsewhere: Path, tmp_path: Path) -> None:
    """The eight lines and the PEM are enough for any tool."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    head = read_heads(elsewhere, HEX)[-1]
    (tmp_path / "text").write_bytes(head.signed_text())
    (tmp_path / "signature").write_bytes(bytes.fromhex(head.signature))
    done = subprocess.run(
        [openssl, "pkeyutl", "-verify", "-pubin", "-rawin",
         "-inkey", str(elsewhere / "keys" / f"{head.key}.pem"),
         "-in", str(tmp_path / "text"), "-sigfile", str(tmp_path / "signature")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(head.signed_text().splitlines()) == 8


def test_an_engine_replays_the_same_with_or_without_heads(market: Path, elsewhere: Path) -> None:
    engine, plain = Engine(), Engine()
    asyncio.run(open_sequencer(market, engine, heads=elsewhere).close())
    asyncio.run(open_sequencer(market, plain).close())
    assert engine.state_bytes() == plain.state_bytes()


async def test_a_served_market_signs_where_it_is_told(tmp_path: Path, elsewhere: Path) -> None:
    """By the setting that ``hourbook serve --heads`` gives."""
    settings = Settings(serve=Serve(heads=str(elsewhere)))
    market = await Market.start(tmp_path / "market", settings=settings)
    last = market.sequencer.sequence
    await market.stop()
    identity = (tmp_path / "market/exchange.id").read_text().strip()
    heads = read_heads(elsewhere, identity)
    assert heads[-1].sequence >= last > 0
    shutil.rmtree(elsewhere)
    with pytest.raises(HeadsMissing):
        await Market.start(tmp_path / "market", settings=settings)
