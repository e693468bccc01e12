"""``hourbook clear default``: a member's default, and the sharing of its loss."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from exchange.app import requests
from exchange.cli.access import DEFAULT_DATA, Data, Expiry, Json, market_command
from exchange.cli.clear import ledger
from exchange.cli.output import Exit, dollars, fail, group, plain, show_json, show_table
from exchange.cli.rulings import show_proposed, show_rulings

if TYPE_CHECKING:
    from exchange.clearing.default.loss import Losses

app = group("The default fund, and a member's default.")

Number = Annotated[
    int, typer.Argument(metavar="DEFAULT", help="Number of the default; `show` lists them.")
]
Person = Annotated[str, typer.Option(help="Who does it: it goes into the log.")]
Reason = Annotated[str, typer.Option(help="Why: it goes into the log.")]


def _put(operation: str, **facts: object) -> requests.PutRecord:
    text = msgspec.json.encode({"operation": operation, **facts}).decode()
    return requests.PutRecord(record=text)


def _by_two(operation: str, reason: str, **facts: object) -> requests.ByTwo:
    text = msgspec.json.encode({"operation": operation, **facts}).decode()
    return requests.ByTwo(record=text, reason=reason)


@market_command(app, "capital", show=show_rulings, negative=True)
def capital(
    usd: Annotated[str, typer.Argument(help="Dollars paid in, as 2000; below 0: out.")],
    person: Person,
) -> requests.PutRecord:
    """Pay the house's own capital at risk in, or out."""
    return _put("pay_capital", amount=usd, person=person)


@market_command(app, "size-fund", show=show_rulings)
def size_fund(person: Person) -> requests.PutRecord:
    """Size the fund by the stress scenarios; call or give back the differences. Replenishes."""
    return _put("size_fund", person=person)


@market_command(app, "declare", show=show_rulings)
def declare(
    member: Annotated[int, typer.Argument(help="Number of the clearing member.")],
    person: Person,
    reason: Reason,
) -> requests.PutRecord:
    """Declare a member's default: its own accounts are frozen, their orders cancelled."""
    return _put("declare_default", member=member, person=person, reason=reason)


@market_command(app, "port", show=show_proposed)
def port(
    default: Number,
    account: Annotated[int, typer.Argument(help="The client's account.")],
    to: Annotated[int, typer.Argument(help="The account of another member that takes it.")],
    reason: Reason,
) -> requests.ByTwo:
    """Propose to move a client to another member, with all that it has; another approves."""
    return _by_two("port_client", reason, default=default, account=account, to=to)


@market_command(app, "hedge")
def hedge(
    default: Number,
    code: Expiry,
    side: Annotated[Literal["buy", "sell"], typer.Argument(help="What the defaulter does.")],
    lots: Annotated[int, typer.Argument(help="Lots to trade at most, 1 or more.")],
    price: Annotated[str, typer.Argument(help="The limit, dollars per GPU-hour, as 2.650.")],
    request_id: Annotated[
        str, typer.Option("--request-id", help="Makes a repeat harmless: it is traded once.")
    ] = "",
) -> requests.Hedge:
    """Trade a defaulter's book by one order; what does not trade at once is cancelled."""
    return requests.Hedge(
        default=default, code=code, side=side, lots=lots, price=price, request_id=request_id
    )


@market_command(app, "auction", show=show_rulings)
def auction(
    default: Number,
    code: Expiry,
    person: Person,
    seconds: Annotated[int, typer.Option(min=1, help="Seconds until the bids are opened.")] = 3_600,
) -> requests.PutRecord:
    """Offer a defaulter's position in an instrument to the members."""
    return _put(
        "open_auction", default=default, instrument=code, within_seconds=seconds, person=person
    )


@market_command(app, "bid", show=show_rulings)
def bid(
    number: Annotated[
        int, typer.Argument(metavar="AUCTION", help="Number of the auction; `show` lists them.")
    ],
    account: Annotated[int, typer.Argument(help="The account of a member that bids.")],
    lots: Annotated[int, typer.Argument(help="Lots bid for, at most those offered.")],
    price: Annotated[str, typer.Argument(help="Dollars per GPU-hour, as 2.650.")],
) -> requests.PutRecord:
    """Put a member's sealed bid in. The best price wins; everybody pays the price bid."""
    return _put("auction_bid", auction=number, account=account, lots=lots, price=price)


@market_command(app, "tear-up", show=show_proposed)
def tear_up(default: Number, code: Expiry, reason: Reason) -> requests.ByTwo:
    """Propose to end what nobody bid for, against those on the other side; another approves."""
    return _by_two("tear_up", reason, default=default, instrument=code)


@market_command(app, "allocate", show=show_proposed)
def allocate(
    default: Number,
    reason: Reason,
    haircut: Annotated[
        bool, typer.Option("--haircut", help="Take back gains, where nothing else is left.")
    ] = False,
    assessment: Annotated[
        int, typer.Option(min=0, max=550, help="Most per cent of a fund contribution assessed.")
    ] = 275,
) -> requests.ByTwo:
    """Propose to share the loss, and see the layers; another person approves. Again if more comes
    to be owed."""
    gains: object = "variation" if haircut else {}
    return _by_two("allocate", reason, default=default, gains=gains, assessment_cap_pct=assessment)


@market_command(app, "close", show=show_proposed)
def close(default: Number, reason: Reason) -> requests.ByTwo:
    """Propose to end a default: repay who bore the loss, write off the rest; another approves."""
    return _by_two("close_default", reason, default=default)


@market_command(app, "distribute", show=show_proposed)
def distribute(default: Number, reason: Reason) -> requests.ByTwo:
    """Propose to distribute what has come in since a default ended; another person approves."""
    return _by_two("distribute_recovery", reason, default=default)


@app.command("fund")
def fund(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Show the fund that today's books ask for: every scenario, who loses what beyond margin."""
    with ledger(data) as clearing:
        found, there = clearing.sizing(), clearing.fund()
    if as_json:
        show_json({**found._asdict(), "fund": there})
        return
    print(f"size {dollars(found.size)} USD by {found.scenario or 'no scenario'}\n")
    heads = ("member", *(f"{name} USD" for name in found.losses), "margin USD", "share USD",
             "paid USD")  # fmt: skip
    rows = [
        (
            str(member), *(dollars(by[member]) for by in found.losses.values()),
            dollars(margin), dollars(found.contributions.get(member, 0)),
            dollars(there.get(member, 0)),
        )
        for member, margin in found.margin.items()
    ]  # fmt: skip
    beyond = ("beyond", *(dollars(found.uncovered[name]) for name in found.losses), "", "", "")
    show_table(heads, [*rows, beyond])
    print("\nlosses of whole books; beyond: the two largest losses beyond margin together")


@app.command("show")
def show(
    default: Annotated[
        int | None,
        typer.Argument(metavar="[DEFAULT]", help="Number of the default; all if absent."),
    ] = None,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Show the fund, the house's capital, and every default: stages, deadlines, auctions, who bore
    the loss and has got back how much."""
    with ledger(data) as clearing:
        there, capital, matter = clearing.fund(), clearing.capital(), clearing.matter("defaults")
        codes = clearing.codes()
        found = [one for one in matter["defaults"] if default in (None, one["id"])]
        losses = {one["id"]: clearing.losses(one["id"]) for one in found}
    if default is not None and not found:
        fail(f"no default {default}; there are {len(matter['defaults'])}", Exit.NO)
    auctions = [one for one in matter["auctions"] if default in (None, one["default"])]
    if as_json:
        show_json({"fund": there, "capital": capital, "calls": matter["calls"], "defaults": found,
                   "losses": {id: one._asdict() for id, one in losses.items()},
                   "auctions": auctions})  # fmt: skip
        return
    rows = [(f"member {member}", dollars(amount)) for member, amount in there.items()]
    show_table(("default fund", "USD"), [*rows, ("own capital", dollars(capital))])
    for one in found:
        _show_default(one, [a for a in auctions if a["default"] == one["id"]], codes)
        _show_losses(losses[one["id"]])


def _show_default(
    one: dict[str, Any], auctions: list[dict[str, Any]], codes: dict[int, str]
) -> None:
    print(f"\ndefault {one['id']}: member {one['member']}, {one['stage']}; margin"
          f" {dollars(one['margin'])} USD")  # fmt: skip
    for stage in one["history"]:
        print(f"  {_time(stage['stamp'])}  {stage['stage']}")
    for step, deadline in one["steps"].items():
        print(f"  {_time(deadline) if deadline else 'overdue':<20}  {step} by then")
    for client in one["ported"]:
        print(f"  client {client['account']} went to account {client['to']}")
    for auction in auctions:
        state = f"until {_time(auction['deadline'])}, {len(auction['bids'])} bids"
        if auction["closed"]:
            sold = sum(lots for _, _, lots, _ in auction["awards"])
            state = f"{sold} awarded, {auction['unsold']} unsold, junior {plain(auction['junior'])}"
        code = codes[auction["instrument"]]
        print(f"  auction {auction['id']}: {auction['net']:+,} {code}, {state}")


def _show_losses(losses: "Losses") -> None:
    """Who bore what, the first layer first."""
    print(f"  estate {dollars(losses.estate)} USD")
    rows = []
    for layer, parts in losses.borne.items():
        for who, borne in parts.items():
            kind = "account" if layer == "haircuts" else "member"
            back = losses.repaid.get(layer, {}).get(who, 0)
            rows.append((layer.replace("_", " "), f"{kind} {who}" if who else "house",
                         *map(dollars, (borne, back, borne - back))))  # fmt: skip
    if losses.uncovered:
        rows.append(("uncovered", "nobody", dollars(losses.uncovered), "", ""))
    if rows:
        show_table(("layer", "whose", "borne USD", "repaid USD", "not repaid USD"), rows)


def _time(stamp: int) -> str:
    from exchange.history.walk import time_text  # noqa: PLC0415

    return time_text(stamp)[:19]
