"""Under ``hourbook clear``: expiry, deliveries, the default fund, defaults, a lender's box."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

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


@market_command(app, "hedge")
def hedge(
    default: Annotated[int, typer.Argument(help="Its number; `defaults` shows it.")],
    code: str,
    side: Annotated[Literal["buy", "sell"], typer.Argument()],
    lots: int,
    price: Annotated[str, typer.Argument(help="The limit, dollars per GPU-hour, as 2.650.")],
) -> "requests.Hedge":
    """Trade a defaulter's book by one order; what does not trade at once is cancelled."""
    from exchange.app import requests  # noqa: PLC0415

    return requests.Hedge(default=default, code=code, side=side, lots=lots, price=price)


@market_command(app, "liquidate")
def liquidate(
    auction: Annotated[int, typer.Argument(help="Its number; `defaults` shows it.")],
) -> "requests.Liquidate":
    """Carry the awards of a defaulter's closed auction out on the book."""
    from exchange.app import requests  # noqa: PLC0415

    return requests.Liquidate(auction=auction)


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


@app.command("defaults")
def defaults(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Show the default fund, the house's capital, and every default with its auctions."""
    from exchange.cli.clear import ledger  # noqa: PLC0415

    with ledger(data) as clearing:
        fund, capital, matter = clearing.fund(), clearing.capital(), clearing.matter("defaults")
    if as_json:
        show_json({"fund": fund, "capital": capital, **matter})
        return
    rows = [(f"member {member}", _dollars(amount)) for member, amount in fund.items()]
    show_table(("default fund", "USD"), [*rows, ("own capital", _dollars(capital))])
    for one in matter["defaults"]:
        print(f"\ndefault {one['id']}: member {one['member']}, {one['stage']}")
        print(f"  margin at the declaration {_dollars(one['margin'])} USD, junior {one['junior']}")
        for auction in matter["auctions"]:
            if auction["default"] == one["id"]:
                state = "closed" if auction["closed"] else f"open until {auction['deadline']}"
                print(f"  auction {auction['id']}: {auction['net']} lots, {state}")


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


def _dollars(micros: int) -> str:
    from exchange.clearing.statements import dollars  # noqa: PLC0415

    return dollars(micros)
