"""Under ``hourbook clear``: deliveries, the story of one, and the hours that were there."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from exchange.cli.access import DEFAULT_DATA, Data, Json, operate
from exchange.cli.clear import ledger, show_rulings
from exchange.cli.output import Exit, fail, show_json, show_table

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

DAY_NS: Final = 86_400 * 10**9
DAY_S: Final = 86_400
_SHADES: Final = ".-=+#"  # of a day: none of it there, up to all
Number = Annotated[int, typer.Argument(metavar="DELIVERY", help="`deliveries` lists them.")]


@app.command("deliveries")
def deliveries(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """List every delivery: who to whom, its stage, days settled, paid and returned."""
    with ledger(data) as clearing:
        found = clearing.matter("deliveries")["deliveries"]
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


@app.command("delivery")
def delivery(number: Number, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Show a delivery's story: every stage with its time and deadline, and its month day by day."""
    found = _find(number, data)
    if as_json:
        show_json(found)
        return
    terms = found["terms"]
    print(
        f"delivery {number}: {found['lots']} lots of {terms['code']}, account {found['seller']}"
        f" ({found['provider']}/{found['facility']}) to account {found['buyer']}; {found['stage']}"
    )
    heads = ("time", "stage", "deadline", "what")
    rows = [
        (
            _time(row["stamp"]),
            _stage(row),
            _time(row["facts"].get("deadline", 0)),
            _what(row["facts"]),
        )
        for row in found["events"]
        if _is_told(row)
    ]
    show_table(heads, rows, left=4)
    if found["slices"]:
        print(f"\n{_month(found)}")
    if found["deadline"]:
        print(f"\nnext by itself: {_time(found['deadline'])}")


@app.command("attest")
def attest(
    number: Number,
    day: Annotated[int, typer.Argument(min=1, max=31, help="Of the delivery month, from 1.")],
    logs: Annotated[list[Path], typer.Argument(help="The nodes' attestation logs of that day.")],
    account: Annotated[int, typer.Option(help="Who says so: the seller, the buyer, or 0.")],
    roster: Annotated[Path, typer.Option(help="The roster with the site's nodes and their keys.")],
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Put a side's figure of a day before the clearing house, computed from signed logs."""
    from contracts import goodput  # noqa: PLC0415
    from contracts.grades import roster as rosters  # noqa: PLC0415
    from contracts.grades.present import present  # noqa: PLC0415
    from contracts.refusals import Refused, RefusedAll  # noqa: PLC0415
    from exchange.app import requests  # noqa: PLC0415

    found = _find(number, data)
    begin = found["terms"]["begin_ns"] + (day - 1) * DAY_NS
    try:
        sites = {site.place: site for site in rosters.read(roster.read_bytes()).sites}
        site = sites.get((found["provider"], found["facility"]))
        if site is None:
            fail(f"{roster} has no site {found['provider']}/{found['facility']}")
        computed = [goodput.compute(log) for log in logs]
        hours = present(computed, site, (begin, begin + DAY_NS), found["lots"])
    except (Refused, RefusedAll) as refused:
        fail(f"the logs say nothing: {refused}")
    text = msgspec.json.encode(
        {"operation": "attest", "account": account, "delivery": number, "day": day,
         **hours._asdict()}
    ).decode()  # fmt: skip
    show_rulings(operate(requests.PutRecord(record=text), data), as_json)


def _find(number: int, data: Path) -> dict[str, Any]:
    with ledger(data) as clearing:
        found = clearing.delivery(number)
    if found is None:
        fail(f"no delivery {number}; `hourbook clear deliveries` lists them", Exit.NO)
    return found


def _is_told(row: dict[str, Any]) -> bool:
    """Days that went as they should are in the picture alone."""
    if row["operation"] == "delivery":
        return bool(row["outcome"] != "slice")
    agreed = row["facts"].get("said") in ("held", "noted", "agreed")
    return row["outcome"] == "accepted" and not agreed


def _stage(row: dict[str, Any]) -> str:
    if row["operation"] == "attest":
        return f"day {row['facts']['day']} {row['facts']['said']}"
    if row["operation"] == "alternative_delivery":
        return str(row["facts"].get("stage", "signed"))
    return str(row["outcome"])


def _what(facts: dict[str, Any]) -> str:
    """The figures of a stage, cents as dollars."""
    cents = ("cents", "returned", "true_up", "refund", "dearer", "penalty")
    names = ("week", "hours", "fixing", "side", "step", "terms", *cents)
    shown = {name: facts[name] for name in names if facts.get(name)}
    return ", ".join(
        f"{name.replace('_', '-')} {_cents(value) + ' USD' if name in cents else value}"
        for name, value in shown.items()
    )


def _month(found: dict[str, Any]) -> str:
    """A picture of the month: a mark for every day, and what it earned."""
    days, whole = found["terms"]["days"], found["lots"] * DAY_S
    marks = [
        _SHADES[-1] if there == whole else _SHADES[there * (len(_SHADES) - 1) // whole]
        for _, there, _, _ in found["slices"]
    ]
    strip = "".join(marks).ljust(days)
    weeks = " ".join(strip[place : place + 7] for place in range(0, days, 7))
    earned = sum(payable for _, _, payable, _ in found["slices"])
    back = sum(returned for _, _, _, returned in found["slices"])
    return (
        f"days by the hours that were there, {_SHADES[0]} none to {_SHADES[-1]} all:  |{weeks}|\n"
        f"earned {_cents(earned)} USD, returned {_cents(back)} USD, of {_cents(found['invoice'])}"
    )


def _time(stamp: int) -> str:
    return f"{datetime.fromtimestamp(stamp // 10**9, UTC):%Y-%m-%d %H:%M:%S}" if stamp else ""


def _cents(amount: int) -> str:
    return f"{amount // 100:,}.{amount % 100:02d}"
