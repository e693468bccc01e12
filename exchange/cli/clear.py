"""``hourbook clear``: settlement, the ledger and the clearing house's records."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exchange.app import requests
from exchange.cli.access import (
    DEFAULT_DATA,
    Account,
    Data,
    Expiry,
    Json,
    databases,
    market_command,
    operate,
)
from exchange.cli.output import (
    Exit,
    fail,
    group,
    percent,
    show_facts,
    show_json,
    show_table,
    why,
    write_text,
    written,
)
from exchange.cli.rulings import show_proposed, show_rulings
from exchange.messages.dates import date_of

if TYPE_CHECKING:
    from exchange.clearing import Clearing

app = group("Settlement and the ledger.")


def _is_date(number: int | None) -> int | None:
    """Refuse a number that is no date; 0 stands for the time before the first business date."""
    try:
        if number:
            date_of(number)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None
    return number


def _show_settled(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(result)
    else:
        print(f"business date {result['business_date']} settled")
        heads = ("instrument", "tier", "settlement", "prior", "window", "last", "bid", "ask",
                 "month before", "spreads")  # fmt: skip
        names = ("price", "prior", "window_lots", "last", "bid", "ask", "preceding_change")
        rows = [
            (p["code"], f"{p['tier']} {p['rule']}",
             *("" if p[n] is None else str(p[n]) for n in names), " ".join(p["spreads"]))
            for p in result["inputs"]
        ]  # fmt: skip
        if rows:  # empty if only the margin calls of a settlement were left
            show_table(heads, rows, left=2)
        for account, missing in result["margin_calls"].items():
            print(f"margin call: account {account} is short of {missing} USD")
        for account, codes in result.get("margin_unknown", {}).items():
            print(f"account {account} was not looked at: nothing covers {' '.join(codes)}")
    if result["divergences"]:
        fail("clearing differs from the engine: the market is cancel-only; keep its directory")


@market_command(app, "settle", show=_show_settled)
def settle() -> requests.Settle:
    """Close the open business date and settle every instrument once."""
    return requests.Settle()


@market_command(app, "cycle", show=_show_settled)
def cycle() -> requests.RunCycle:
    """Pay the variation of the intraday cycle that is due, if the market has not done so."""
    return requests.RunCycle()


@market_command(app, "schedule", show=show_rulings)
def schedule(
    times: Annotated[
        list[str] | None, typer.Argument(help="HH:MM, UTC; none at all ends the schedule.")
    ] = None,
) -> requests.PutRecord:
    """Set the times of the day at which variation is paid besides the day's settlement."""
    from exchange.clearing.cycles import ScheduleCycles  # noqa: PLC0415
    from exchange.clearing.records import write  # noqa: PLC0415

    return requests.PutRecord(record=write(ScheduleCycles(times=tuple(times or ()))))


@market_command(app, "propose-price", show=show_proposed)
def propose_price(
    code: Expiry,
    price: Annotated[str, typer.Argument(help="Dollars per GPU-hour, as 2.650.")],
    reason: Annotated[
        str, typer.Option(help="Why the computed price will not do: it goes into the log.")
    ],
    correction: Annotated[
        bool, typer.Option("--correction", help="Of a date that is settled already.")
    ] = False,
) -> requests.ProposePrice:
    """Propose a settlement price; another person approves it: hourbook admin approve."""
    return requests.ProposePrice(code=code, price=price, reason=reason, correction=correction)


@market_command(app, "record", show=show_rulings)
def record(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.json", help="One record, as docs/reference/clearing.md has them."
        ),
    ],
    request_id: Annotated[
        str, typer.Option("--request-id", help="Makes a repeat harmless: it is recorded once.")
    ] = "",
) -> requests.PutRecord:
    """Put a record before the clearing house and print what it ruled."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file}: {why(error)}", Exit.USAGE)
    return requests.PutRecord(record=text, request_id=request_id)


@app.command("trial-balance")
def trial_balance(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Print every account's balance, ledger and book; debits equal credits or the code is 1."""
    with ledger(data) as clearing:
        balance = clearing.trial_balance()
    show_json(asdict(balance)) if as_json else print(balance.text())
    if not balance.is_balanced:
        fail("debits and credits differ: the ledger is broken; keep its directory")


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.beancount", help="The file to write.")],
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Write the whole ledger as a beancount file, which `bean-check` adds up on its own."""
    count = 0
    try:
        with (
            ledger(data) as clearing,
            written(file) as place,
            open(place, "w", encoding="utf-8") as out,
        ):
            for line in clearing.beancount():
                out.write(line + "\n")
                count += line.count("\n") + 1
    except OSError as error:
        fail(f"{file}: {why(error)}", Exit.USAGE)
    show_facts({"file": str(file), "lines": count}, as_json)


@app.command("statement")
def statement(
    account: Account,
    data: Data = DEFAULT_DATA,
    day: Annotated[
        int | None,
        typer.Option("--date", callback=_is_date, help="Business date yyyymmdd; all if absent."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with a chart there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print an account's statement."""
    with ledger(data) as clearing:
        try:
            found = clearing.statement(account, day)
            if html is not None:
                write_text(html, clearing.statement_page(account, day))
        except KeyError:
            fail(f"account {account} was never opened")
    show_json(asdict(found)) if as_json else print(found.text())


@app.command("roll-forward")
def roll_forward(
    data: Data = DEFAULT_DATA,
    day: Annotated[
        int | None,
        typer.Option(
            "--date", callback=_is_date, help="Business date yyyymmdd; the last if absent."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print how each instrument's open interest came of the date before."""
    with ledger(data) as clearing:
        rolls = [asdict(roll) for roll in clearing.roll_forward(day)]
    if as_json:
        show_json(rolls)
        return
    heads = ("code", "before", "opened", "closed", "expired", "after")
    show_table(heads, [tuple(str(roll[name]) for name in heads) for roll in rolls])


@app.command("fees")
def fees(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Print the fee tiers adopted, and who is in which: by last month's lots, and next month's."""
    with ledger(data) as clearing:
        adopted, (date, traders) = clearing.fees(), clearing.fee_tiers()
    version = adopted.in_force(date)
    standing = [one for one in adopted.adopted if one is version or one.effective > date]
    if as_json:
        show_json({
            "business_date": date, "version": version.version if version else 0,
            "adopted": [{"version": one.version, "effective": one.effective, "tiers": one.tiers}
                        for one in standing],
            "accounts": [trader._asdict() for trader in traders],
        })  # fmt: skip
        return
    for one in standing:
        now = "in force" if one is version else "to come"
        print(f"fee tiers, version {one.version}: {now}, from {one.effective} on")
        rows = [
            (str(place), f"{tier.from_lots:,}", percent(tier.maker_bp), percent(tier.taker_bp),
             f"{sum(t.tier == place for t in traders):,}" if one is version else "")
            for place, tier in enumerate(one.tiers, start=1)
        ]  # fmt: skip
        show_table(("tier", "from lots", "maker fees back", "taker fees back", "accounts"), rows)
        print()
    if not standing:
        print("no fee tiers: everybody pays the fees of the contract's terms\n")
    active = [t for t in traders if t.lots_last_month or t.lots_this_month]
    print(f"{len(active)} of {len(traders)} accounts traded in this month or the last")
    heads = ("account", "lots last month", "tier", "lots this month", "next tier")
    show_table(heads, [tuple(f"{figure:,}" for figure in trader) for trader in active])


@contextmanager
def ledger(data: Path) -> "Iterator[Clearing]":
    """Open the ledger for reading, also while it is served. One that is missing or of another
    build's layout is rebuilt from the log by a start of the market, which says so on stderr."""
    from exchange.app.market import LEDGER_NAME  # noqa: PLC0415
    from exchange.clearing import Clearing  # noqa: PLC0415
    from exchange.clearing.store import OtherVersion  # noqa: PLC0415

    path = data / LEDGER_NAME
    if not path.exists():
        operate(requests.State(), data)
    with databases(data):
        try:
            clearing = Clearing.open(path, read_only=True)
        except OtherVersion:
            operate(requests.State(), data)
            try:
                clearing = Clearing.open(path, read_only=True)
            except OtherVersion as error:  # the build that serves it
                fail(f"{error}", Exit.UNUSABLE)
        try:
            yield clearing
        finally:
            clearing.close()
