"""``hourbook admin``: an operator's commands for instruments: states, auctions, protections.

As in ``operator``, each function builds the request of one command.
"""

from typing import Annotated, Any, Literal

import typer

from exchange.app import requests
from exchange.cli.access import market_command
from exchange.cli.output import plain, show_json, show_table
from exchange.cli.rulings import show_proposed

app = typer.Typer()  # listed among the commands of `admin`

Target = Annotated[
    str,
    typer.Argument(metavar="CODE", help="An instrument, H100Z26; or a product, H100: all of it."),
]
Off = Annotated[bool, typer.Option("--off", help="Turn it off again.")]
Feature = Literal[
    "reduce_only", "groups", "stops", "icebergs", "bands", "circuit_breaker", "velocity",
    "accountability", "order_value", "all_months_limit", "loss_limit",
]  # fmt: skip
WEEK = 604_800  # seconds
_MS_PER_SECOND = 1_000


def _show_indicative(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(result)
        return
    rows = [
        (one["code"], plain(one["price"]), str(one["quantity"]), str(one["surplus"]))
        for one in result["indicative"]
    ]
    show_table(("code", "price", "lots", "surplus"), rows)


@market_command(app, "halt")
def halt(code: Target) -> requests.Halt:
    """Stop trading; orders stay and may be cancelled."""
    return requests.Halt(code=code)


@market_command(app, "resume", show=show_proposed)
def resume(
    code: Target,
    reason: Annotated[str, typer.Option(help="Why a breaker's halt may end: for the log.")] = "",
    auction: Annotated[
        bool, typer.Option("--auction", help="Collect orders for a volatility auction first.")
    ] = False,
) -> requests.Resume:
    """Start trading in what is closed, halted or collected. A breaker's halt takes two people."""
    return requests.Resume(code=code, reason=reason, auction=auction)


@market_command(app, "pre-open")
def pre_open(code: Target) -> requests.PreOpen:
    """Collect orders for an opening auction."""
    return requests.PreOpen(code=code)


@market_command(app, "auction")
def auction(
    code: Target,
    cause: Annotated[
        Literal["opening", "closing", "volatility"],
        typer.Option(help="The cause that is published."),
    ] = "volatility",
) -> requests.Auction:
    """Collect orders for an auction; `resume` or `close` trades them at one price."""
    return requests.Auction(code=code, cause=cause)


@market_command(app, "close")
def close(code: Target) -> requests.Close:
    """End trading; what an auction has collected trades at its price."""
    return requests.Close(code=code)


@market_command(app, "indicate", show=_show_indicative)
def indicate(code: Target) -> requests.Indicate:
    """Publish what the orders collected would do if the auction ended now."""
    return requests.Indicate(code=code)


@market_command(app, "list")
def list_contract(
    code: Annotated[
        str, typer.Argument(help="An expiry, H100PZ26, or a combination, H100Z26-H100F27.")
    ],
    price: Annotated[
        str, typer.Argument(help="First mark of an expiry: dollars per GPU-hour, as 2.650.")
    ] = "",
) -> requests.ListContract:
    """List an expiry of the cycle, a physical one say, or a combination of listed expiries."""
    return requests.ListContract(code=code, price=price)


@market_command(app, "implied")
def implied(
    code: Annotated[
        str, typer.Argument(help="A combination, H100Z26-H100F27; every one if absent.")
    ] = "",
    off: Off = False,
) -> requests.SetImplied:
    """Let a combination and its legs imply each other's prices."""
    return requests.SetImplied(code=code, on=not off)


@market_command(app, "protect")
def protect(
    code: Annotated[
        str, typer.Argument(help="An instrument, H100Z26, or a product, H100; all if absent.")
    ] = "",
    band: Annotated[
        str | None, typer.Option(help="Price band: dollars through the reference price.")
    ] = None,
    order_value: Annotated[str | None, typer.Option(help="Most dollars of one order.")] = None,
    accountability: Annotated[
        int | None, typer.Option(help="Lots of an account in an expiry that are reported.")
    ] = None,
    all_months: Annotated[
        int | None, typer.Option(help="Lots of an account over all expiries.")
    ] = None,
    off: Off = False,
) -> requests.Protect:
    """Hold instruments to the protections of their terms, or to those stated instead."""
    return requests.Protect(
        code=code,
        on=not off,
        band=band,
        order_value=order_value,
        accountability=accountability,
        all_months=all_months,
    )


@market_command(app, "breaker")
def breaker(
    code: Target,
    variation: Annotated[
        str, typer.Argument(help="Dollars that its price may move within the span; 0: any.")
    ],
    window: Annotated[
        Literal["circuit", "velocity"], typer.Option(help="Which of the instrument's two breakers.")
    ] = "circuit",
    span: Annotated[
        float, typer.Option(min=0.001, max=WEEK, help="Seconds that the window looks back.")
    ] = 60.0,
    halt: Annotated[
        float,
        typer.Option(
            min=0, max=WEEK, help="Seconds until it goes on by itself; 0: two people resume it."
        ),
    ] = 0.0,
    product: Annotated[
        bool, typer.Option("--product", help="Every outright of the product halts with it.")
    ] = False,
) -> requests.SetBreaker:
    """Halt an instrument whose price moves too far within a span of time."""
    return requests.SetBreaker(
        code=code,
        window=window,
        variation=variation,
        span_ms=round(span * _MS_PER_SECOND),
        halt_ms=round(halt * _MS_PER_SECOND),
        product=product,
    )


@market_command(app, "limits")
def limits(
    code: Annotated[str, typer.Argument(help="An instrument, H100Z26 or H100Z26-H100F27.")],
    low: Annotated[str | None, typer.Option(help="Lowest price of an order, dollars.")] = None,
    high: Annotated[str | None, typer.Option(help="Highest price of an order, dollars.")] = None,
    position: Annotated[
        int | None, typer.Option(help="Lots of one account, working orders counted.")
    ] = None,
    order: Annotated[int | None, typer.Option(help="Lots of one order.")] = None,
    credit: Annotated[
        str | None, typer.Option(help="Dollars a pair of a calendar spread need not hold.")
    ] = None,
) -> requests.SetLimits:
    """Move an instrument's limits of price, position or order until the next business day, or
    give a calendar spread a credit of margin, which stays."""
    return requests.SetLimits(
        code=code, low=low, high=high, position_limit=position, max_order=order, credit=credit
    )


@market_command(app, "feature")
def feature(
    name: Annotated[Feature, typer.Argument(help="What is turned off for everybody.")],
    on: Annotated[bool, typer.Option("--on", help="Turn it on again.")] = False,
) -> requests.SetFeature:
    """Turn a feature of the whole market off without a restart."""
    return requests.SetFeature(feature=name, on=on)
