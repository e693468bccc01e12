"""What a request leaves behind that cannot be done, or is asked for again. Budget: 10 seconds."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from test_app import NOON_NS, perform, running

from exchange.app import Market, admin, requests, wishes
from exchange.app.market import LEDGER_NAME
from exchange.app.operations import Operations
from exchange.app.wishes import RequestRefused, Wish, note
from exchange.messages import COMMAND, Command, CommandKind, Limit, Side
from exchange.sequencer import LogFull

CODE = "H100Z26"
PAID = '{"operation": "pay_capital", "amount": "5", "person": "owner"}'
MANY = int(Limit.IDEMPOTENCY_WINDOW) + 1  # ids after which the engine has forgotten one


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


# Request ids


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    async with asyncio.timeout(60), running(tmp_path) as m:
        await perform(m, requests.Deposit(account=1, amount="5000000"))
        yield m


async def forget(market: Market) -> None:
    """Have account 1 and the house use so many ids that the engine knows none from before."""
    listed = market.desk.instruments.by_code[CODE]
    first = market.desk.sequence + 1
    for number in range(MANY):
        order = Command(
            kind=CommandKind.ENTER, account=1, side=Side.BUY, quantity=1, instrument=listed.id,
            price=listed.low_ticks, key_lo=first + number,
        )  # fmt: skip
        record = Command(kind=CommandKind.RECORD, key_lo=first + number)
        await market.desk.perform([Wish(order, note("enter")), Wish(record, note("nothing"))])
    await market.operations.cleared()


def fixing(price: str, revision: int = 0) -> requests.RecordFixing:
    return requests.RecordFixing(
        index="HBX-H100", date=20261101, state="PUBLISHED", price=price, revision=revision,
        inputs_hash="ab" * 32, tape_hash="cd" * 32,
    )  # fmt: skip


@pytest.mark.parametrize("later", [False, True])
async def test_money_is_moved_once_under_an_id(market: Market, later: bool) -> None:
    deposit = requests.Deposit(account=1, amount="7", request_id="in")
    withdrawal = requests.Withdraw(account=1, amount="2.5", request_id="out")
    told = [await perform(market, deposit), await perform(market, withdrawal)]
    assert [one["cash"] for one in told] == ["5000007.000000", "5000004.500000"]
    if later:
        await forget(market)
    sequence = market.desk.sequence
    again = [await perform(market, deposit), await perform(market, withdrawal)]
    assert again == [{**one, "booked_before": True} for one in told]
    for other in (
        requests.Deposit(account=1, amount="8", request_id="in"),
        requests.Withdraw(account=1, amount="7", request_id="in"),
    ):
        with pytest.raises(RequestRefused, match="DUPLICATE_DIFFERENT"):
            await perform(market, other)
    assert market.desk.sequence == sequence
    assert market.engine.account(1)["cash"] == 5_000_004_500_000
    elsewhere = requests.Deposit(account=2, amount="8", request_id="in")  # an id is its account's
    assert "booked_before" not in await perform(market, elsewhere)


@pytest.mark.parametrize("later", [False, True])
async def test_a_record_is_written_once_under_an_id(market: Market, later: bool) -> None:
    paid = await perform(market, requests.PutRecord(record=PAID, request_id="x"))
    first = await perform(market, fixing("3.2"))
    if later:
        await forget(market)
    again = await perform(market, requests.PutRecord(record=PAID, request_id="x"))
    assert again == {**paid, "recorded_before": True}
    assert market.clearing.capital() == 5_000_000
    repeated = await perform(market, fixing("3.2"))
    assert (first["recorded_before"], repeated["recorded_before"]) == (False, True)
    for other in (requests.PutRecord(record=PAID.replace("5", "7"), request_id="x"), fixing("9.9")):
        with pytest.raises(RequestRefused, match="DUPLICATE_DIFFERENT"):
            await perform(market, other)
    assert not (await perform(market, fixing("9.9", revision=1)))["recorded_before"]
    assert market.clearing.capital() == 5_000_000


async def test_an_id_is_known_after_a_restart_that_makes_the_ledger_anew(tmp_path: Path) -> None:
    deposit = requests.Deposit(account=1, amount="7", request_id="in")
    async with running(tmp_path) as m:
        await perform(m, requests.Deposit(account=1, amount="5000000"))
        first = await perform(m, deposit)
        await forget(m)
    for path in tmp_path.glob(f"{LEDGER_NAME}*"):
        path.unlink()
    async with running(tmp_path, NOON_NS) as m:
        assert await perform(m, deposit) == {**first, "booked_before": True}
        assert m.clearing.cash(1) == 5_000_007_000_000


async def test_what_was_given_up_and_is_still_queued_is_not_done_again(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ids its account uses before it has its turn."""
    deposit = requests.Deposit(account=1, amount="7", request_id="in")
    real, held = market.desk._submit, []

    def queue(items: list[Any]) -> None:
        held.append(items)

    monkeypatch.setattr(market.desk, "_submit", queue)
    monkeypatch.setattr("exchange.app.desk.ANSWER_SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        await perform(market, deposit)
    monkeypatch.undo()

    def release(items: list[Any]) -> None:
        for one in (*held, items):
            real(one)
        held.clear()

    monkeypatch.setattr(market.desk, "_submit", release)
    assert (await perform(market, deposit))["booked_before"]
    assert market.engine.account(1)["cash"] == 5_000_007_000_000
    assert not market.desk.unanswered
    sequence = market.desk.sequence
    await perform(market, deposit)
    assert market.desk.sequence == sequence


async def test_a_figure_that_fits_no_command_is_asked_for_in_no_books(market: Market) -> None:
    for account in (-1, 1 << 64):
        with pytest.raises(RequestRefused):
            await perform(market, requests.Deposit(account=account, amount="1", request_id="x"))
