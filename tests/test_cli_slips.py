"""What the command line says of slips: one line that names what is wrong, and the right exit code.

Budget: 15 seconds.
"""

import errno
import http.client
import json
import logging
import os
import re
import resource
import shlex
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from served import CHECKOUT, COMMAND
from test_access import certificate
from typer.testing import CliRunner

import exchange.cli.root as cli
from exchange.app import asking
from exchange.app.asking import Answer
from exchange.cli.access import databases
from exchange.cli.output import Failure
from exchange.cli.root import app
from exchange.journal.frame import Frame
from exchange.journal.reader import LogReader


def ended(*arguments: str | Path) -> tuple[str, int]:
    """What a command says in the end, and its exit code; raises what it should have named."""
    handlers = logging.root.handlers[:]
    done = CliRunner().invoke(app, [*map(str, arguments)])
    logging.root.handlers[:] = handlers  # those of a serve write to a stderr that is closed now
    if isinstance(done.exception, Failure):
        return f"{done.output}{done.exception}", int(done.exception.code)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output, done.exit_code


def said_by_main(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of the whole command line."""
    monkeypatch.setattr(sys, "argv", ["hourbook", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A market in which account 1 has money, that nobody serves."""
    data = tmp_path_factory.mktemp("kept") / "market"
    assert ended("admin", "deposit", "1", "1000", "--data", data)[1] == 0
    return data


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "admin.key"
    file.write_text('{"key_id": "a", "secret": "00"}')
    return file


@pytest.mark.parametrize("text", ["", "key", "[1]", '{"key_id": "a"}', "\udcff"])
def test_a_file_that_holds_no_admin_key_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "wrong.key"
    file.write_bytes(text.encode(errors="surrogateescape"))
    said, code = ended("admin", "state", "--url", "http://127.0.0.1:9", "--key", file)
    assert code == 3 and "wrong.key holds no admin key" in said


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:x", "http://[::1", "127.0.0.1:9", "ws://127.0.0.1:9/ws", "http://"]
)
def test_an_address_that_is_none_is_named(key: Path, url: str) -> None:
    said, code = ended("admin", "state", "--url", url, "--key", key)
    assert code == 3 and f"no market answers at {url}" in said and "http://HOST:PORT" in said


def test_a_certificate_that_is_not_trusted_is_no_wrong_address(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told to send signed requests without TLS instead."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path))
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        url = f"https://127.0.0.1:{server.server_port}"
        said, code = ended("admin", "state", "--url", url, "--key", key)
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
    assert code == 3 and "SSL_CERT_FILE" in said and "http://HOST" not in said


@pytest.mark.parametrize(
    "failure", [TimeoutError("timed out"), http.client.RemoteDisconnected("gone")]
)
def test_a_request_without_an_answer_may_have_been_done(
    key: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_url(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(asking, "ask_url", ask_url)
    said, code = ended("admin", "deposit", "1", "5", "--url", "http://market", "--key", key)
    assert code == 3 and "may have done it" in said and "no market" not in said


@pytest.mark.parametrize("name", ["", "ledger.db", "keys.db"])
def test_a_database_that_a_user_may_not_write_is_no_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """SQLite writes beside a ledger that it only reads, if nobody serves the directory."""
    place = tmp_path / name
    (tmp_path / "ledger.db").touch()
    (tmp_path / "keys.db").touch()
    monkeypatch.setattr(os, "access", lambda path, right: Path(path) != place)
    said = re.escape(f"{place} cannot be written to by this user (attempt")
    with pytest.raises(Failure, match=said), databases(tmp_path):
        raise sqlite3.OperationalError("attempt to write a readonly database")


@pytest.mark.parametrize(("name", "then"), [("ledger.db", "of the log"), ("keys.db", "admin.key")])
def test_a_damaged_database_is_named_with_its_remedy(
    kept: Path, tmp_path: Path, name: str, then: str
) -> None:
    commands = [["admin", "state"], ["serve", "--port", "0"], ["clear", "trial-balance"]]
    if name == "keys.db":
        del commands[-1]  # it reads the ledger alone
    alone = shutil.ignore_patterns(f"{name}*")  # a log of changes beside it has what is in it
    for command in commands:
        data = tmp_path / command[0]
        shutil.copytree(kept, data, ignore=alone)
        (data / name).write_text("no database")
        said, code = ended(*command, "--data", data)
        assert code == 3 and f"{data / name} is damaged" in said and then in said
    data = tmp_path / "mended"
    shutil.copytree(kept, data, ignore=alone)
    said, code = ended("clear", "statement", "1", "--data", data, "--json")
    assert code == 0 and json.loads(said)["closing"] == 1_000_000_000


@pytest.mark.parametrize(
    "torn", ["delete from progress", "update progress set epoch = 0, sequence = 0, event_index = 0"]
)
def test_a_ledger_of_several_moments_is_named_with_its_remedy(
    kept: Path, tmp_path: Path, torn: str
) -> None:
    """Each page of the copy is whole; what they say together is not."""
    data = tmp_path / "torn"
    shutil.copytree(kept, data)
    with closing(sqlite3.connect(data / "ledger.db")) as ledger, ledger:
        ledger.execute(torn)
    commands = [["admin", "state"], ["serve", "--port", "0"], ["clear", "trial-balance"]]
    for command in commands[: 3 if "delete" in torn else 2]:
        said, code = ended(*command, "--data", data)
        assert code == 3 and f"{data / 'ledger.db'} is damaged" in said and "of the log" in said


def test_a_ledger_that_a_kill_left_empty_is_made_again(kept: Path, tmp_path: Path) -> None:
    """Of a first start that ended between the file and its tables."""
    data = tmp_path / "market"
    shutil.copytree(kept, data, ignore=shutil.ignore_patterns("ledger.db*"))
    (data / "ledger.db").touch()
    said, code = ended("clear", "statement", "1", "--data", data, "--json")
    assert code == 0 and json.loads(said)["closing"] == 1_000_000_000


@pytest.mark.parametrize("change", ["version - 1", "version + 1", ""])
def test_a_ledger_that_this_build_cannot_read_is_rebuilt_and_said_so(
    kept: Path, tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of an earlier layout, of a later one, or missing."""
    data = tmp_path / "market"
    shutil.copytree(kept, data, ignore=shutil.ignore_patterns("" if change else "ledger.db*"))
    if change:
        with closing(sqlite3.connect(data / "ledger.db")) as ledger, ledger:
            ledger.execute(f"update progress set version = {change}")
    said, code = ended("clear", "statement", "1", "--data", data, "--json")
    assert code == 0 and json.loads(said)["closing"] == 1_000_000_000
    told = "layout .* of another build" if change else "missing; it is rebuilt from the log"
    assert re.fullmatch(f"{re.escape(str(data / 'ledger.db'))} .*{told}.*", caplog.messages[-1])
    caplog.clear()
    assert ended("clear", "statement", "1", "--data", data, "--json") == (said, 0)
    assert caplog.messages == []


def test_the_ledger_of_a_market_that_another_build_serves_is_left_alone(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "market"
    shutil.copytree(kept, data)
    with closing(sqlite3.connect(data / "ledger.db")) as ledger, ledger:
        ledger.execute("update progress set version = version + 1")
    before = (data / "ledger.db").read_bytes()

    async def ask(*_: Any) -> Answer:
        return Answer(ok=True)

    monkeypatch.setattr(asking, "ask", ask)
    said, code = ended("clear", "trial-balance", "--data", data)
    assert code == 3 and "of another build" in said
    assert (data / "ledger.db").read_bytes() == before


def test_a_database_that_is_whole_is_not_blamed(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(asking, "ask", no_room)
    said, code = ended("admin", "state", "--data", kept)
    assert code == 3 and said.startswith(f"{kept}: database or disk is full;")


def test_a_path_too_long_for_a_socket_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / ("x" * 60) / ("y" * 60)
    code = said_by_main(monkeypatch, "serve", "--port", "0", "--data", data)
    assert code == 3 and "too long for its sockets" in capsys.readouterr().err


def test_an_error_without_words_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent(**_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(cli, "app", silent)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "hourbook: TimeoutError\n"


@pytest.mark.parametrize(
    ("command", "said", "code"),
    [
        (["snapshot", "list", "NONE"], "no log in", 3),
        (["snapshot", "verify", "NONE"], "no log in", 3),
        (["archive", "list", "BARE"], "none", 0),
        (["archive", "restore", "NONE"], "no log in", 3),
        (["log", "diff", "NONE", "NONE"], "no log in", 3),
        (["log", "grep", "KEPT", "--instrument", "H100z26"], "H100z26 is listed nowhere", 1),
        (["log", "grep", "KEPT", "--account", "77"], "account 77 is opened nowhere", 1),
        (["log", "what-if", "KEPT", "--margin", "*=99999999999999999999"], "at most 100000", 2),
        (["log", "what-if", "KEPT", "--position-limit", "*=2147483648"], "at most 2147483647", 2),
        (["replay", "KEPT", "--speed", "1e-320x"], "a factor like 10x", 2),
        (["admin", "breaker", "H100", "0.1", "--span", "nan", "--data", "KEPT"], "--span", 2),
        (["admin", "breaker", "H100", "0.1", "--halt", "inf", "--data", "KEPT"], "--halt", 2),
        (["clear", "default", "capital", "-5", "--person", "owner", "--data", "KEPT"], "", 1),
        (["bench", "core", "--flow", "NONE"], "--flow", 2),
        (["bench", "core", "--flow", "EMPTY"], "has no raw flow", 2),
        (["bench", "core", "--rival", "NONE"], "--rival", 2),
        (["admin", "deposit", "1", "1e9", "--data", "KEPT"], "amount '1e9': not of the form", 1),
        (["clear", "default", "capital", "5", "--persn", "o", "--data", "KEPT"], "--person", 2),
    ],
)  # fmt: skip
def test_slips(kept: Path, tmp_path: Path, command: list[str], said: str, code: int) -> None:
    places = {"KEPT": kept, "NONE": tmp_path / "none", "EMPTY": tmp_path, "BARE": tmp_path / "a"}
    (tmp_path / "a" / "log").mkdir(parents=True)
    told, found = ended(*(places.get(word, word) for word in command))
    assert found == code and said in told and "No such option" not in told


@pytest.mark.parametrize("command", [["serve", "--port", "0", "--data"], ["shadow"]])
def test_a_replay_may_be_interrupted(
    kept: Path, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(kept, tmp_path / "market")
    chunks = LogReader.chunks

    def interrupted(self: LogReader) -> Iterator[list[Frame]]:
        for chunk in chunks(self):
            os.kill(os.getpid(), signal.SIGTERM)
            yield chunk

    monkeypatch.setattr(LogReader, "chunks", interrupted)
    told, code = ended(*command, tmp_path / "market")
    assert code == 130 and not told.strip()


@pytest.mark.parametrize(
    "entry", [["-c", "from exchange.command import main; main()"], ["-m", "exchange.cli"]]
)
def test_an_interrupt_while_the_command_is_loaded_ends_it(tmp_path: Path, entry: list[str]) -> None:
    # It sleeps until the signal has come: it may be handled a little later. A job in the background
    # inherits that it is ignored.
    (tmp_path / "typer.py").write_text(
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(9)\n"
    )
    done = subprocess.run(
        [sys.executable, *entry, "--version"],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_who_closes_the_standard_places_has_the_work_done_all_the_same(
    kept: Path, tmp_path: Path
) -> None:
    command = shlex.join([*COMMAND, "replay", str(kept), "--verify", "--json"])
    done = subprocess.run(
        ["sh", "-c", f"{command} <&- 2>&-; {command} --until nonsense 2>&-; exec {command} >&-"],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"], "one line, and no error among the results"


@pytest.mark.parametrize("group", [(), ("log",), ("clear",), ("clear", "default"), ("admin",)])
def test_what_a_command_does_is_listed_whole(group: tuple[str, ...]) -> None:
    told, code = ended(*group, "--help")
    listed = told.partition("Commands:")[2]
    assert code == 0 and listed and "..." not in listed


def test_the_version_is_told() -> None:
    told, code = ended("--version")
    assert code == 0 and told.startswith("hourbook")


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("contracts", "pages", "pages", "--on", "2019-01-01"), "no contract spec covers A100", 1),
        (("index", "fix", "wrong", "--date", "2026-11-20", "--tape", ""), "is no file", 2),
        (("goodput", "publish", "wrong"), "wrong: not a factor table", 1),
        (("clear", "calibrate", "--prices", "wrong"), "wrong is no price history", 2),
        (("clear", "calibrate", "--plot", "wrong"), "ends in .svg or .png", 2),
        (("clear", "backtest", "--plot", "wrong.txt"), "ends in .svg or .png", 2),
        (("serve", "--data", ""), "flag: serve.data = ''", 2),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_file_or_a_day_that_will_not_do_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong").write_bytes(b"\xff\xfe")
    told, ends = ended(*arguments)
    assert (ends, said in told) == (code, True), told
    assert [file.name for file in tmp_path.iterdir()] == ["wrong"]


def test_a_device_or_a_pipe_is_written_and_never_replaced(kept: Path, tmp_path: Path) -> None:
    """As root, a result that is put in the place of /dev/null takes it from everybody."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert ended("log", "audit", kept, pipe, "--until", "1")[1] == 0
        assert os.read(reader, 100).startswith(b"row,direction,") and pipe.is_fifo()
        assert ended("clear", "export", pipe, "--data", kept)[1] == 0 and pipe.is_fifo()
    finally:
        os.close(reader)
    assert ended("index", "fix", pipe, "--date", "2026-11-20", "--tape", pipe)[1] == 2
    link.symlink_to("target")
    assert ended("log", "bulletin", kept, "--csv", link)[1] == 0
    assert link.is_symlink() and (tmp_path / "target").is_file()
    assert {file.name for file in tmp_path.iterdir()} == {"pipe", "link", "target"}
    assert ended("log", "audit", kept, "")[1] == 2


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["replay", "KEPT", "--export", "FILE"], 3),
        (["log", "audit", "KEPT", "FILE"], 3),
        (["clear", "export", "FILE", "--data", "KEPT"], 2),
        (["clear", "statement", "1", "--html", "FILE", "--data", "KEPT"], 3),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_file_that_cannot_be_written_is_named_as_it_was_asked_for(
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    code: int,
    name: str,
) -> None:
    places = {"KEPT": kept, "FILE": tmp_path / "absent" / name}
    assert said_by_main(monkeypatch, *(places.get(word, word) for word in command)) == code
    said = f"hourbook: {places['FILE']}: No such file or directory\n"
    assert capsys.readouterr().err == said


def test_a_file_that_may_not_be_read_is_no_wrong_command_line(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens a path says what is wrong with it; asked beforehand, typer ends with 2."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert said_by_main(monkeypatch, "replay", kept) == 0
    assert said_by_main(monkeypatch, "contracts", "check", tmp_path) == 1


def test_a_place_where_no_socket_can_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert said_by_main(monkeypatch, "admin", "deposit", "1", "5", "--data", tmp_path / "file") == 3
    said = f"hourbook: {tmp_path / 'file' / 'admin.sock'}: Not a directory\n"
    assert capsys.readouterr().err == said


def test_output_that_nobody_reads_is_no_answer(kept: Path, tmp_path: Path) -> None:
    """What was asked for is done: exit code 1 would say that it was refused."""
    shutil.copytree(kept, tmp_path / "market")
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, "admin", "deposit", "1", "5", "--data", str(tmp_path / "market")]
    done = subprocess.run(
        command, cwd=CHECKOUT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (3, "")
    told, _ = ended("admin", "withdraw", "1", "1005", "--data", tmp_path / "market", "--json")
    assert json.loads(told)["cash"] == "0.000000"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory; is a file that was named too large?"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_an_error_that_names_no_file_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    said: str,
) -> None:
    def failing(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "app", failing)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code, capsys.readouterr().err) == (3, f"hourbook: {said}\n")


def test_a_result_that_finds_no_room_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "margin.json"
    file.write_text("version 1")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        assert said_by_main(monkeypatch, "clear", "calibrate", "--output", file) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err == f"hourbook: {file}: File too large\n"
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(file.name, "version 1")]


def test_text_in_no_encoding_is_named(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said_by_main(monkeypatch, "admin", "halt", "H\udcfc", "--data", kept) == 2
    assert "'H\\udcfc' is not UTF-8" in capsys.readouterr().err
    with open(os.devnull, "w", encoding="ascii") as plain:
        monkeypatch.setattr(sys, "stdout", plain)
        monkeypatch.setattr(cli, "app", lambda **_: print("\xfc"))
        assert said_by_main(monkeypatch) == 3
    assert "the output takes no '\\xfc' (ascii); set PYTHONUTF8=1" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("statement", "1"), ("roll-forward",)])
@pytest.mark.parametrize("day", ["20261301", "-20261124", "1", str(10**30)])
def test_a_date_that_is_none_has_no_statement(
    kept: Path, command: tuple[str, ...], day: str
) -> None:
    """Of a slip of the hand there was a statement: all zeros, or as if nothing had moved."""
    said, code = ended("clear", *command, "--date", day, "--data", kept)
    assert (code, f"{day} is not a date of the form yyyymmdd" in " ".join(said.split())) == (
        2,
        True,
    )
    assert ended("clear", *command, "--date", "20261124", "--data", kept)[1] == 0
