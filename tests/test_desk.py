"""What a request leaves behind that cannot be done. Budget: 5 seconds."""

import logging
from pathlib import Path

import pytest
from test_app import perform, running

from exchange.app import admin, requests, wishes
from exchange.app.operations import Operations
from exchange.app.wishes import RequestRefused
from exchange.messages import COMMAND, Command, CommandKind
from exchange.sequencer import LogFull


async def test_a_request_that_the_queue_refuses_is_waited_for_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise LogFull(0)

    async with running(tmp_path) as m:
        with monkeypatch.context() as patch:
            patch.setattr(m.desk, "_submit", refuse)
            for _ in range(3):
                with pytest.raises(LogFull):
                    await m.operations.checkpoint()
        assert not m.desk._waiting
        await m.operations.checkpoint()


@pytest.mark.parametrize(
    ("request_", "refused"),
    [
        (
            requests.Deposit(account=5, amount="99999999999999999999"),
            "an amount is above 0 and at most 1152921504606 dollars: 99999999999999999999",
        ),
        (
            requests.Kill(scope="session", account=1, session=99_999_999_999_999),
            "session of KILL is from 0 to 4294967295, not 99999999999999",
        ),
        (requests.SetAccount(account=-1), "account of SET_ACCOUNT is from 0 to 4294967295, not -1"),
        (requests.ListContract(code="H100-1Q99"), "calendar US knows 2025 to 2040"),
        (
            requests.RecordFixing(
                index="HBX-H100",
                date=10**18,
                state="WITHHELD",
                inputs_hash="00" * 32,
                tape_hash="00" * 32,
            ),
            "1000000000000000000 is not a date",
        ),
        (requests.CreateKey(account=1 << 64), "member 18446744073709551616 is out of range"),
        (
            requests.Deposit(account=5000, amount="5"),
            "state one from 0 to 4095: `hourbook admin account 5000 --member N` opens the account",
        ),
    ],
    ids=["deposit", "kill", "account", "list", "date", "key", "member"],
)
async def test_a_figure_beyond_any_is_refused_and_nothing_is_done(
    tmp_path: Path, request_: requests.AnyRequest, refused: str
) -> None:
    async with running(tmp_path) as m:
        before = m.desk.sequence
        with pytest.raises(RequestRefused, match=refused):
            await perform(m, request_)
        assert (m.desk.sequence, 5 in m.desk.accounts, m.desk._waiting) == (before, False, {})


def test_every_field_of_a_command_has_its_range() -> None:
    largest = [255] * 4 + [2**32 - 1] * 3 + [2**63 - 1, 2**32 - 1, 2**16 - 1, 255, 255]
    for name, most in zip(Command.__struct_fields__, [*largest, *[2**64 - 1] * 4], strict=True):
        if name == "kind":
            continue
        for figure in (most, most + 1):
            command = Command(**{"kind": CommandKind.KILL, name: figure})
            wish = wishes.Wish(command, "text")
            if figure == most:
                assert COMMAND.unpack(wish.record)[Command.__struct_fields__.index(name)] == most
                continue
            with pytest.raises(RequestRefused, match=f"^{name} of KILL .* to {most}, not"):
                assert wish.record


async def test_a_request_that_fails_is_answered_and_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Operations, request: object, person: str) -> None:
        raise KeyError("a defect")

    async with running(tmp_path) as m:
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(Operations, "perform", broken)
            answer = await admin.answer(requests.State(), m.operations)
        assert not answer.ok and answer.error == "failed, KeyError: 'a defect'; look at the log"
        assert "State failed" in caplog.text and "Traceback" in caplog.text
