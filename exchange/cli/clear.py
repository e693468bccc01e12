"""``hourbook clear``: the clearing house's desk."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exchange.cli.access import DEFAULT_DATA, Data, Json, KeyFile, Url, operate
from exchange.cli.output import Exit, fail, show_json

if TYPE_CHECKING:
    from exchange.clearing import Clearing

app = typer.Typer(help="Settlement and the ledger.", no_args_is_help=True, rich_markup_mode=None)


@app.command("settle")
def settle(
    data: Data = DEFAULT_DATA,
    price: Annotated[
        list[str] | None,
        typer.Option("--price", help="CODE=PRICE in place of the proposed price; repeatable."),
    ] = None,
    url: Url = "",
    key: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Close the open business date and settle every instrument once."""
    from exchange.app import requests  # noqa: PLC0415

    prices = {}
    for given in price or []:
        code, equals, text = given.partition("=")
        if not equals:
            fail(f"--price {given}: write CODE=PRICE, as in H100Z26=2.650", Exit.USAGE)
        prices[code] = text
    result = operate(requests.Settle(prices=prices), data, url, key)
    if as_json:
        show_json(result)
    else:
        print(f"business date {result['business_date']} settled")
        for code, settled in result["settlement_prices"].items():
            print(f"  {code:<10} {settled}")
    if result["divergences"]:
        fail("clearing differs from the engine: the market is cancel-only; keep its directory")


@app.command("trial-balance")
def trial_balance(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Print every ledger account's balance; debits equal credits or the exit code is 1."""
    with ledger(data) as clearing:
        balance = clearing.trial_balance()
    show_json(asdict(balance)) if as_json else print(balance.text())
    if balance.debits != balance.credits:
        fail("debits and credits differ: the ledger is broken; keep its directory")


@app.command("statement")
def statement(
    account: int,
    data: Data = DEFAULT_DATA,
    day: Annotated[
        int | None, typer.Option("--date", help="Business date yyyymmdd; all if absent.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print an account's statement."""
    with ledger(data) as clearing:
        try:
            found = clearing.statement(account, day)
        except KeyError:
            fail(f"account {account} was never opened")
    show_json(asdict(found)) if as_json else print(found.text())


@contextmanager
def ledger(data: Path) -> "Iterator[Clearing]":
    """The ledger, read beside whoever serves it; a missing one is rebuilt from the log."""
    from exchange.app import requests  # noqa: PLC0415
    from exchange.app.market import LEDGER_NAME  # noqa: PLC0415
    from exchange.clearing import Clearing  # noqa: PLC0415

    if not (data / LEDGER_NAME).exists():
        operate(requests.State(), data)
    clearing = Clearing.open(data / LEDGER_NAME, read_only=True)
    try:
        yield clearing
    finally:
        clearing.close()
