"""``hourbook keys`` and ``hourbook admin``: who may trade, and what an operator may do."""

from typing import Annotated, Literal

import typer

from exchange.cli.access import DEFAULT_DATA, Data, Json, KeyFile, Url, operate
from exchange.cli.output import show_facts, show_json, show_table

keys = typer.Typer(help="API keys.", no_args_is_help=True, rich_markup_mode=None)
admin = typer.Typer(help="Operate a market.", no_args_is_help=True, rich_markup_mode=None)

MemberOption = Annotated[
    int | None, typer.Option(help="Clearing member; the account's own number if absent.")
]
RequestId = Annotated[
    str, typer.Option("--request-id", help="Makes a repeat harmless: it is booked once.")
]


@keys.command("create")
def create(
    account: int,
    scope: Annotated[
        Literal["read", "trade", "admin"], typer.Option(help="What the key may do.")
    ] = "trade",
    data: Data = DEFAULT_DATA,
    url: Url = "",
    key: KeyFile = None,
    as_json: Json = True,
) -> None:
    """Make an API key and print it as JSON, this once. Opens the account if need be."""
    from exchange.app import requests  # noqa: PLC0415

    request = requests.CreateKey(account=account, scope=scope)
    show_json(operate(request, data, url, key, create=True))


@admin.command("deposit")
def deposit(
    account: int,
    usd: Annotated[str, typer.Argument(help="Dollars, as in 2500000 or 99.50.")],
    request_id: RequestId = "",
    data: Data = DEFAULT_DATA,
    url: Url = "",
    key: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Book dollars into an account, which is opened if need be."""
    from exchange.app import requests  # noqa: PLC0415

    request = requests.Deposit(account=account, amount=usd, request_id=request_id)
    show_facts(operate(request, data, url, key, create=True), as_json)


@admin.command("withdraw")
def withdraw(
    account: int,
    usd: Annotated[str, typer.Argument(help="Dollars, as in 2500000 or 99.50.")],
    request_id: RequestId = "",
    data: Data = DEFAULT_DATA,
    url: Url = "",
    key: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Book dollars out of an account, as far as they are free."""
    from exchange.app import requests  # noqa: PLC0415

    request = requests.Withdraw(account=account, amount=usd, request_id=request_id)
    show_facts(operate(request, data, url, key), as_json)


@admin.command("account")
def account_(
    account: int,
    member: MemberOption = None,
    kind: Annotated[
        Literal["house", "client", "box"], typer.Option(help="Whose account it is.")
    ] = "client",
    data: Data = DEFAULT_DATA,
    url: Url = "",
    key: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Open an account."""
    from exchange.app import requests  # noqa: PLC0415

    request = requests.OpenAccount(account=account, member=member, kind=kind)
    show_facts(operate(request, data, url, key, create=True), as_json)


@admin.command("kill")
def kill(
    account: int,
    lift: Annotated[bool, typer.Option("--lift", help="Let the account trade again.")] = False,
    data: Data = DEFAULT_DATA,
    url: Url = "",
    key: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Throw an account's kill switch: it may cancel and reduce, and nothing else."""
    from exchange.app import requests  # noqa: PLC0415

    request = requests.SetAccount(account=account, killed=not lift)
    show_facts(operate(request, data, url, key), as_json)


@admin.command("halt")
def halt(
    code: str, data: Data = DEFAULT_DATA, url: Url = "", key: KeyFile = None, as_json: Json = False
) -> None:
    """Stop trading in an instrument; its orders stay and may be cancelled."""
    from exchange.app import requests  # noqa: PLC0415

    show_facts(operate(requests.Halt(code=code), data, url, key), as_json)


@admin.command("resume")
def resume(
    code: str, data: Data = DEFAULT_DATA, url: Url = "", key: KeyFile = None, as_json: Json = False
) -> None:
    """Start trading in a halted or closed instrument again."""
    from exchange.app import requests  # noqa: PLC0415

    show_facts(operate(requests.Resume(code=code), data, url, key), as_json)


@admin.command("mode")
def mode(
    mode: Annotated[Literal["normal", "cancel_only"], typer.Argument(help="The mode wished for.")],
    data: Data = DEFAULT_DATA,
    url: Url = "",
    key: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Make the whole market cancel-only, or normal again."""
    from exchange.app import requests  # noqa: PLC0415

    show_facts(operate(requests.SetMode(mode=mode), data, url, key), as_json)


@admin.command("open-day")
def open_day(
    day: Annotated[int | None, typer.Option("--date", help="yyyymmdd; the next if absent.")] = None,
    data: Data = DEFAULT_DATA,
    url: Url = "",
    key: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Open a business date: list new expiries, set the limits, start trading."""
    from exchange.app import requests  # noqa: PLC0415

    show_facts(operate(requests.OpenDay(date=day), data, url, key), as_json)


@admin.command("state")
def state(
    data: Data = DEFAULT_DATA, url: Url = "", key: KeyFile = None, as_json: Json = False
) -> None:
    """Show how the market stands."""
    from exchange.app import requests  # noqa: PLC0415

    result = operate(requests.State(), data, url, key)
    if as_json:
        show_json(result)
        return
    instruments = result.pop("instruments")
    show_facts(result, False)
    print()
    heads = ("code", "state", "cause", "low limit", "high limit", "mark")
    show_table(heads, [tuple(instrument.values()) for instrument in instruments])
