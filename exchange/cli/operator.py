"""``hourbook keys`` and ``hourbook admin``: API keys, and an operator's commands.

Each function builds the request of one command; ``market_command`` does the rest.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from exchange.app import requests
from exchange.cli.access import Account, market_command
from exchange.cli.output import Exit, fail, group, plain, show_facts, show_json, show_table
from exchange.cli.rulings import show_proposed

keys = group("API keys.")
admin = group("Operate a market.")

Dollars = Annotated[str, typer.Argument(help="Dollars, as in 2500000 or 99.50.")]
RequestId = Annotated[
    str, typer.Option("--request-id", help="A text of your own: what repeats it is booked once.")
]
KeyId = Annotated[str, typer.Argument(help="The key's id; `hourbook keys list` shows it.")]
Reason = Annotated[str, typer.Option(help="Why: it goes into the log.")]
Malfunction = Annotated[
    bool, typer.Option("--malfunction", help="The market's own fault: the range does not bind.")
]
MatchNumber = Annotated[int, typer.Argument(help="The trade's match number.")]
Member = Annotated[
    int | None, typer.Option(help="Clearing member; the account's own number if absent.")
]


PublicKey = Annotated[
    Path | None,
    typer.Option("--public-key", help="PEM file of an Ed25519 public key: no secret is made."),
]


def _as_json(result: dict[str, Any], as_json: bool) -> None:
    """Show a secret: always as one line of JSON, which a script can keep."""
    show_json(result)


def _show_keys(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(result)
        return
    rows = [
        (
            key["key_id"],
            str(key["account"]),
            key["scope"],
            key["algorithm"],
            " ".join(key["addresses"]) or "any",
            "never" if key["expires_ms"] is None else _when(key["expires_ms"]),
            key["person"],
        )
        for key in result["keys"]
    ]
    show_table(("key", "account", "scope", "algorithm", "from", "expires", "person"), rows)


def _when(stamp_ms: int) -> str:
    return f"{datetime.fromtimestamp(stamp_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"


def _public_key(file: Path | None) -> str:
    """Return the Ed25519 key of a PEM file in hexadecimal; an empty text without a file."""
    if file is None:
        return ""
    from exchange.gateway.auth import read_public_key  # noqa: PLC0415

    try:
        return read_public_key(file.read_bytes())
    except ValueError as error:
        fail(f"{file} holds no Ed25519 public key: {error}", Exit.UNUSABLE)


def show_proposals(result: dict[str, Any], as_json: bool) -> None:
    """Print the proposals that wait, each with what it asks for."""
    if as_json:
        show_json(result)
        return
    rows = [
        (
            one["proposal"],
            one["by"],
            one["expires"],
            plain({name: value for name, value in one["request"].items() if value != ""}),
        )
        for one in result["proposals"]
    ]
    show_table(("proposal", "by", "expires", "what"), rows, left=4)


def _show_state(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(result)
        return
    instruments, refused = result.pop("instruments"), result.pop("dues_refused")
    show_facts(result, False)
    for id, why in refused.items():
        print(f"not done yet: {id}: {why}")
    print()
    names = ("code", "state", "cause", "low_limit", "high_limit", "mark", "band")
    rows = [tuple(plain(instrument[name]) for name in names) for instrument in instruments]
    show_table([name.replace("_", " ") for name in names], rows)


@market_command(keys, "create", create=True, show=_as_json)
def create(
    account: Annotated[
        int, typer.Argument(help="Whose key it is; 0, the house, for an admin key.")
    ],
    scope: Annotated[
        Literal["read", "trade", "cancel_only", "clear", "admin"],
        typer.Option(help="What the key may do; admin operates the market."),
    ] = "trade",
    address: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK", help="Address or network that it may be used from; repeat for more."
        ),
    ] = None,
    public_key: PublicKey = None,
) -> requests.CreateKey:
    """Make an API key and print it as JSON, this once. Opens the account if need be."""
    return requests.CreateKey(
        account=account,
        scope=scope,
        addresses=tuple(address or ()),
        public_key=_public_key(public_key),
    )


@market_command(keys, "rotate", show=_as_json)
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        int, typer.Option(min=0, max=7_776_000, help="Seconds that the old key stays good.")
    ] = 86_400,
    public_key: PublicKey = None,
) -> requests.RotateKey:
    """Make a key that takes another one's place and print it, this once; the old one ends later."""
    return requests.RotateKey(
        key_id=key_id, overlap_seconds=overlap, public_key=_public_key(public_key)
    )


@market_command(keys, "list", show=_show_keys)
def list_keys() -> requests.ListKeys:
    """Show every API key, without its secret, oldest first."""
    return requests.ListKeys()


@market_command(keys, "revoke")
def revoke(key_id: KeyId) -> requests.RevokeKey:
    """Revoke an API key for good and close its live connections."""
    return requests.RevokeKey(key_id=key_id)


@market_command(admin, "deposit", create=True)
def deposit(account: Account, usd: Dollars, request_id: RequestId = "") -> requests.Deposit:
    """Book dollars into an account, which is opened if need be."""
    return requests.Deposit(account=account, amount=usd, request_id=request_id)


@market_command(admin, "withdraw")
def withdraw(account: Account, usd: Dollars, request_id: RequestId = "") -> requests.Withdraw:
    """Book dollars out of an account, as far as they are free."""
    return requests.Withdraw(account=account, amount=usd, request_id=request_id)


@market_command(admin, "account", create=True)
def account_(
    account: Annotated[int, typer.Argument(help="Number of the new account, from 1.")],
    member: Member = None,
    kind: Annotated[
        Literal["house", "client", "box"],
        typer.Option(help="A member's own, a client's, or a lender's box."),
    ] = "client",
    self_trade_group: Annotated[
        int | None,
        typer.Option(
            help="Accounts of one group never trade with each other; a group of its own if absent."
        ),
    ] = None,
) -> requests.OpenAccount:
    """Open an account."""
    return requests.OpenAccount(
        account=account, member=member, kind=kind, self_trade_group=self_trade_group
    )


@market_command(admin, "kill", show=show_proposed)
def kill(
    account: Annotated[int | None, typer.Argument(help="The account to stop.")] = None,
    session: Annotated[
        int, typer.Option(help="Only this session of the account; 0: all of it.")
    ] = 0,
    member: Annotated[
        int | None, typer.Option(help="Instead of an account: all those of this member.")
    ] = None,
    exchange: Annotated[
        bool, typer.Option("--exchange", help="Instead of an account: the whole market.")
    ] = False,
    lift: Annotated[
        bool, typer.Option("--lift", help="Let them trade again: another person approves it.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why it may be lifted: for the log.")] = "",
) -> requests.Kill:
    """Throw a kill switch: orders are cancelled; only cancels and reductions pass until --lift."""
    if (account is not None) + (member is not None) + exchange != 1:
        raise typer.BadParameter("state one of ACCOUNT, --member and --exchange")
    if session and account is None:
        raise typer.BadParameter("a --session is one of an ACCOUNT")
    if exchange:
        return requests.Kill(scope="exchange", lift=lift, reason=reason)
    if member is not None:
        return requests.Kill(scope="member", member=member, lift=lift, reason=reason)
    scope: Literal["account", "session"] = "session" if session else "account"
    return requests.Kill(
        scope=scope, account=account or 0, session=session, lift=lift, reason=reason
    )


@market_command(admin, "bust", show=show_proposed)
def bust(
    match_number: MatchNumber, reason: Reason, malfunction: Malfunction = False
) -> requests.Bust:
    """Propose to take a trade of the open day back; another person approves it."""
    return requests.Bust(match_number=match_number, reason=reason, malfunction=malfunction)


@market_command(admin, "adjust", show=show_proposed)
def adjust(
    match_number: MatchNumber, usd: Dollars, reason: Reason, malfunction: Malfunction = False
) -> requests.Adjust:
    """Propose another price for a trade of the open day; another person approves it."""
    return requests.Adjust(
        match_number=match_number, price=usd, reason=reason, malfunction=malfunction
    )


@market_command(admin, "approve", show=show_proposed)
def approve(
    proposal: Annotated[str, typer.Argument(help="Its id; `hourbook admin proposals` lists them.")],
) -> requests.Approve:
    """Have done what another person proposed in the last ten minutes."""
    return requests.Approve(proposal=proposal)


@market_command(admin, "proposals", show=show_proposals)
def proposals() -> requests.ListProposals:
    """Show the proposals that wait for a second person."""
    return requests.ListProposals()


@market_command(admin, "mode")
def mode(
    mode: Annotated[
        Literal["normal", "cancel_only"],
        typer.Argument(help="cancel_only: only cancels and reductions pass."),
    ],
) -> requests.SetMode:
    """Make the whole market cancel-only, or normal again."""
    return requests.SetMode(mode=mode)


@market_command(admin, "open-day")
def open_day(
    day: Annotated[
        int | None, typer.Option("--date", help="Business date yyyymmdd; the next if absent.")
    ] = None,
) -> requests.OpenDay:
    """Open a business date: list new expiries, set the limits, start trading."""
    return requests.OpenDay(date=day)


@market_command(admin, "state", show=_show_state)
def state(
    every: Annotated[bool, typer.Option("--all", help="Expired instruments, too.")] = False,
) -> requests.State:
    """Show how the market stands."""
    return requests.State(every=every)
