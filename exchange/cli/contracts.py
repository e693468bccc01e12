"""``hourbook contracts``: what is traded."""

from datetime import UTC, date, datetime
from typing import Annotated

import typer

from exchange.cli.access import Json
from exchange.cli.output import Exit, fail, show_json, show_table

app = typer.Typer(help="What is traded.", no_args_is_help=True, rich_markup_mode=None)

On = Annotated[
    datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="The day; today if absent.")
]


@app.command("list")
def list_(on: On = None, as_json: Json = False) -> None:
    """List the instruments of a day's listing cycle."""
    from contracts import registry  # noqa: PLC0415

    listed = registry.load().listing(_day(on))
    if as_json:
        show_json(listed)
        return
    heads = ("code", "delivery", "hours", "tick", "last trading day", "name")
    rows = [
        (i.code, i.expiry, str(i.multiplier), i.tick, f"{i.last_trading_day}", i.name)
        for i in listed
    ]
    show_table(heads, rows)


@app.command("show")
def show(code: str, on: On = None, as_json: Json = False) -> None:
    """Show one instrument's terms: what a lot is, delivers and costs."""
    from contracts import registry, sheet, symbol  # noqa: PLC0415

    try:
        instrument = registry.load().instrument(code, _day(on))
    except (symbol.CodeError, registry.UnknownContractError) as error:
        fail(f"{error}; `hourbook contracts list` shows what is listed", Exit.NO)
    if as_json:
        show_json(instrument)
    else:
        print(sheet(instrument), end="")


def _day(on: datetime | None) -> date:
    return on.date() if on is not None else datetime.now(UTC).date()
