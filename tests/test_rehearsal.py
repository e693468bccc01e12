"""The rehearsal of a default: its page's commands, in order, on a server process of its own.

Budget: 30 seconds.
"""

import asyncio
import json
import re
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final, Literal

import pytest
import today
from served import CHECKOUT, serving
from test_docs import blocks
from typer.testing import CliRunner

from clients.sync import Client
from exchange.app import asking, requests
from exchange.app.bookkeeping import LEDGER_NAME
from exchange.clearing import Clearing
from exchange.clearing.statements import dollars
from exchange.cli.root import app

PAGE: Final = CHECKOUT / "docs" / "howto" / "manage-a-default.md"
CODE: Final = today.dated("H100Z26")  # of the page; the server has the machine's own date
OWN, ITS, SAFE, HAVEN, RICH, POOR = 10, 11, 20, 21, 30, 40
ACCOUNTS: Final[dict[int, tuple[int, Literal["house", "client"]]]] = {
    OWN: (10, "house"), ITS: (10, "client"), SAFE: (20, "house"), HAVEN: (20, "client"),
    RICH: (30, "house"), POOR: (40, "house"),
}  # fmt: skip
CASH: Final = {OWN: "100000", ITS: "30000", SAFE: "500000", RICH: "500000", POOR: "100000"}
SAID: Final = re.compile(r'"\$\(jq -r \.(\w+) (\S+)\)"')  # the only shell that the page needs


def operate(data: Path, *wanted: requests.AnyRequest) -> list[dict[str, Any]]:
    """What an operator at the socket asks for, and the answers."""

    async def ask_all() -> list[dict[str, Any]]:
        answers = [await asking.ask(data, one) for one in wanted]
        assert all(answer is not None and answer.ok for answer in answers), answers
        return [answer.result for answer in answers if answer is not None]

    return asyncio.run(ask_all())


def set_up(data: Path, at: Path) -> dict[int, dict[str, str]]:
    """Accounts with money, two people with admin keys; the accounts' own keys."""
    for account, (member, kind) in ACCOUNTS.items():
        operate(data, requests.OpenAccount(account=account, member=member, kind=kind))
    for account, usd in CASH.items():
        operate(data, requests.Deposit(account=account, amount=usd))
    for person in ("ann", "bob"):
        (made,) = operate(data, requests.CreateKey(account=0, scope="admin"))
        (at / f"{person}.json").write_text(json.dumps(made))
    return {account: operate(data, requests.CreateKey(account=account))[0] for account in CASH}


def test_the_page_of_a_default_is_rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last cent: the layers are the loss, and a rebuilt ledger says the same."""
    data = tmp_path / "market"
    with serving(data) as server, ExitStack() as stack:
        clients = {
            account: stack.enter_context(Client(server.ready["ws"], key["key_id"], key["secret"]))
            for account, key in set_up(data, tmp_path).items()
        }
        clients[OWN].subscribe(f"state.{CODE}")
        mark = clients[OWN].states[CODE].mark
        for buyer, seller, lots in ((OWN, RICH, 100), (ITS, RICH, 10), (SAFE, POOR, 20)):
            clients[seller].enter(CODE, "sell", lots, mark)
            clients[buyer].enter(CODE, "buy", lots, mark)
        clients[OWN].enter(CODE, "buy", 1, mark)  # it rests, until its member is frozen
        monkeypatch.chdir(tmp_path)
        servers = [server]

        def crash() -> None:
            """The process is killed with the book half closed, and another one goes on."""
            servers[-1].stop(SIGKILL)
            servers.append(stack.enter_context(serving(data)))

        meanwhile: dict[str, Callable[[], object]] = {
            "hedge": lambda: clients[SAFE].enter(CODE, "buy", 15, "0.990"),
            "auction": crash,
        }
        said = run(PAGE, lambda: servers[-1].ready["http"], tmp_path, meanwhile)
        servers[-1].stop()
    judge(said, data)


def judge(said: dict[str, str], data: Path) -> None:
    """The loss is the layers, nobody owes anything, and a rebuilt ledger says the same."""
    (loss,) = [json.loads(text) for name, text in said.items() if " allocate " in name]
    assert sum(loss["layers"].values()) == loss["loss"] > 0
    assert loss["layers"]["own_capital"] == 2_000_000_000
    assert f"{dollars(loss['loss'])} USD\n" in "".join(said.values())  # what the approval says
    assert loss["junior"] == [30, 40]  # 30 bid for too little, 40 for nothing
    assert "lots        15\n" in next(text for name, text in said.items() if " hedge " in name)
    (torn,) = [json.loads(text) for name, text in said.items() if " tear-up " in name]
    assert sum(torn["torn"].values()) == 100 - 15 - 30 - 20
    assert "replenished" in said["clear default show 1"]
    judge_end(said, loss)
    judge_fund()
    assert CliRunner().invoke(app, ["clear", "default", "show", "9"]).exit_code == 1
    before = state_of(data)
    assert before["cash"][OWN] == before["cash"][ITS] == 0
    assert before["nets"] == {SAFE: 65, HAVEN: 10, RICH: -61, POOR: -14}
    (data / LEDGER_NAME).unlink()
    assert CliRunner().invoke(app, ["clear", "trial-balance"]).exit_code == 0  # it is rebuilt
    assert state_of(data) == before


def judge_end(said: dict[str, str], loss: dict[str, Any]) -> None:
    """Nothing was left at the end; what came in later is those members' who bore the last loss."""
    (ended,) = [json.loads(text) for name, text in said.items() if " close " in name]
    assert (ended["repaid"], ended["written_off"], ended["left"]) == ({}, 0, 0)
    (paid,) = [json.loads(text) for name, text in said.items() if " distribute " in name]
    assert sum(sum(parts.values()) for parts in paid["repaid"].values()) == 5_000_000_000
    assert sum(ended["unpaid"].values()) - sum(paid["unpaid"].values()) == 5_000_000_000
    borne = loss["layers"]["own_capital"] + sum(loss["survivors_fund"].values())
    assert sum(ended["unpaid"].values()) == borne + sum(loss["assessments"].values())
    shown = CliRunner().invoke(app, ["clear", "default", "show", "1"]).stdout
    assert "member 10, ended" in shown and "not repaid USD" in shown
    told = json.loads(CliRunner().invoke(app, ["clear", "default", "show", "--json"]).stdout)
    losses = told["losses"]["1"]
    assert losses["repaid"] == paid["repaid"] and losses["estate"] == 0


def test_what_makes_no_sense_ends_with_its_code(tmp_path: Path) -> None:
    data = ["--data", str(tmp_path / "market")]
    for arguments, code in (
        (["declare", "10"], 2),  # no person, no reason
        (["port", "1", "11", "21", "--person", "ann"], 2),
        (["hedge", "1", CODE, "hold", "1", "3"], 2),
        (["show", *data], 1),  # no market
        (["allocate", "1", "--help"], 0),
    ):
        done = CliRunner().invoke(app, ["clear", "default", *arguments])
        assert done.exit_code == code, (arguments, done.output)


def judge_fund() -> None:
    """The fund covers the two largest losses beyond margin of its worst scenario, shown."""
    told = CliRunner().invoke(app, ["clear", "default", "fund", "--json"]).stdout
    fund = json.loads(told)
    assert {"week_fall_40", "generation_shock"} <= fund["losses"].keys()
    for name, losses in fund["losses"].items():
        beyond = sorted(max(0, loss - fund["margin"][member]) for member, loss in losses.items())
        assert fund["uncovered"][name] == sum(beyond[-2:])
    assert fund["size"] == max(fund["uncovered"].values()) == sum(fund["contributions"].values())


def state_of(data: Path) -> dict[str, Any]:
    """What clearing holds, and the hash of how it came to it."""
    clearing = Clearing.open(data / LEDGER_NAME)
    try:
        assert clearing.is_balanced() and not clearing.divergences
        clearing.audit()
        (number,) = [n for n, code in clearing.codes().items() if code == CODE]
        nets = {account: clearing.net(account, number) for account in ACCOUNTS}
        return {
            "cash": {account: clearing.cash(account) for account in ACCOUNTS},
            "nets": {account: net for account, net in nets.items() if net},
            "fund": clearing.fund(),
            "defaults": clearing.matter("defaults"),
            "head": clearing.ledger_hash,
        }
    finally:
        clearing.close()


def run(
    page: Path, url: Callable[[], str], at: Path, meanwhile: Mapping[str, Callable[[], object]]
) -> dict[str, str]:
    """The page's commands, in order: what each said; the first that fails is an AssertionError.

    ``meanwhile``: what others do just before the command of that name.
    """
    said = {}
    for line in filter(None, "\n".join(blocks(page, "sh")).splitlines()):
        line = SAID.sub(lambda m: json.loads((at / m[2]).read_text())[m[1]], line)
        words = shlex.split(line.replace("$URL", url().removesuffix("/api/v1")))
        if words[0] == "sleep":
            time.sleep(float(words[1]))
            continue
        meanwhile.get(words[3] if len(words) > 3 else "", lambda: None)()
        arguments, _, file = " ".join(map(shlex.quote, words[1:])).partition(" '>' ")
        done = CliRunner().invoke(app, shlex.split(arguments))
        until = time.monotonic() + 30
        while "limit moved" in str(done.exception) and time.monotonic() < until:
            time.sleep(0.5)  # the awards are still on their way
            done = CliRunner().invoke(app, shlex.split(arguments))
        assert done.exit_code == 0, (line, done.output, done.exception)
        said[arguments] = done.stdout
        if file:
            (at / file).write_text(done.stdout)
    return said
