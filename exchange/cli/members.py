"""Under ``hourbook clear``: expiry, deliveries, a lender's box."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exchange.cli.access import DEFAULT_DATA, Data, Json, market_command
from exchange.cli.output import Exit, fail, show_json, show_table

if TYPE_CHECKING:
    from exchange.app import requests

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@market_command(app, "expire")
def expire(
    code: str,
    at_settlement: Annotated[
        bool,
        typer.Option(
            "--at-settlement", help="Where the index has no price: at the last settlement price."
        ),
    ] = False,
) -> "requests.Expire":
    """Expire a contract after its last trading day, at its final settlement price."""
    from exchange.app import requests  # noqa: PLC0415

    return requests.Expire(code=code, at_settlement=at_settlement)


@app.command("deliveries")
def deliveries(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """List every delivery: who to whom, its stage, days settled, paid and returned."""
    found = _matter(data, "deliveries")["deliveries"]
    if as_json:
        show_json(found)
        return
    heads = ("delivery", "stage", "seller", "buyer", "lots", "price", "factor", "invoice USD",
             "days", "earned USD", "returned USD")  # fmt: skip
    rows = [
        (
            str(one["id"]), one["stage"], str(one["seller"]), str(one["buyer"]), str(one["lots"]),
            f"{one['price'] / 1e6:.6f}", f"{one['factor_e4'] / 1e4:.4f}", _cents(one["invoice"]),
            str(len(one["slices"])), _cents(sum(s[2] for s in one["slices"])),
            _cents(sum(s[3] for s in one["slices"])),
        )
        for one in found
    ]  # fmt: skip
    show_table(heads, rows, left=2) if rows else print("nothing was ever delivered")


@app.command("box")
def box(account: int, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Show a lender what a box holds, its margin, coverage and liquidity. Reads alone."""
    from exchange.cli.clear import ledger  # noqa: PLC0415

    with ledger(data) as clearing:
        try:
            found = clearing.box(account)
        except KeyError:
            fail(f"account {account} was never opened")
        except ValueError as error:
            fail(f"{error}; open one with `hourbook admin account {account} --kind box`", Exit.NO)
    show_json(asdict(found)) if as_json else print(found.text())


def _matter(data: Data, name: str) -> Any:
    from exchange.cli.clear import ledger  # noqa: PLC0415

    with ledger(data) as clearing:
        return clearing.matter(name)


def _cents(amount: int) -> str:
    return f"{amount // 100:,}.{amount % 100:02d}"
