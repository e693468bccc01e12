"""Under ``hourbook clear``: expiry, and a lender's box."""

from dataclasses import asdict
from typing import Annotated

import typer

from exchange.app import requests
from exchange.cli.access import DEFAULT_DATA, Account, Data, Expiry, Json, market_command
from exchange.cli.clear import ledger
from exchange.cli.output import Exit, fail, show_json

app = typer.Typer()  # listed among the commands of `clear`


@market_command(app, "expire")
def expire(
    code: Expiry,
    at_settlement: Annotated[
        bool,
        typer.Option(
            "--at-settlement", help="Where the index has no price: at the last settlement price."
        ),
    ] = False,
) -> requests.Expire:
    """Expire a contract after its last trading day, at its final settlement price."""
    return requests.Expire(code=code, at_settlement=at_settlement)


@app.command("box")
def box(account: Account, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Show a lender what a box holds, its margin, coverage and liquidity. Reads alone."""
    with ledger(data) as clearing:
        try:
            found = clearing.box(account)
        except KeyError:
            fail(f"account {account} was never opened")
        except ValueError as error:
            fail(f"{error}; open one with `hourbook admin account {account} --kind box`", Exit.NO)
    show_json(asdict(found)) if as_json else print(found.text())
