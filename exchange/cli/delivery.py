"""Under ``hourbook clear``: deliveries, their history, and the hours delivered."""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from exchange.app import requests
from exchange.cli.access import DEFAULT_DATA, Data, Json, operate
from exchange.cli.clear import ledger
from exchange.cli.output import Exit, fail, show_json, show_table, write_text
from exchange.cli.rulings import show_rulings

app = typer.Typer()  # listed among the commands of `clear`

DAY_NS: Final = 86_400 * 10**9
_SHADES: Final = ".-=+#"  # characters for a day, from no hours delivered to all
Number = Annotated[
    int, typer.Argument(metavar="DELIVERY", help="Number of the delivery; `deliveries` lists them.")
]


@app.command("deliveries")
def deliveries(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """List every delivery: who to whom, its stage, days settled, paid and returned."""
    with ledger(data) as clearing:
        found = clearing.deliveries()
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
def delivery(
    number: Number,
    data: Data = DEFAULT_DATA,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with a picture there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a delivery's story: every stage with its time and deadline, and its month day by day."""
    found = _find(number, data)
    if html is not None:
        from exchange.clearing.delivery.page import page  # noqa: PLC0415

        write_text(html, page(found))
    if as_json:
        show_json(found)
        return
    from exchange.clearing.delivery import story  # noqa: PLC0415

    print(story.title(found))
    show_table(story.HEADS, story.stages(found), left=4)
    if found["slices"]:
        print(f"\n{_month(found)}")
    if found["deadline"]:
        print(f"\nnext by itself: {story.time_text(found['deadline'])}")


@app.command("attest")
def attest(
    number: Number,
    day: Annotated[int, typer.Argument(min=1, max=31, help="Day of the delivery month, from 1.")],
    logs: Annotated[list[Path], typer.Argument(help="The nodes' attestation logs of that day.")],
    account: Annotated[
        int, typer.Option(help="Whose figure it is: the seller's account, the buyer's, or 0.")
    ],
    roster: Annotated[Path, typer.Option(help="The roster with the site's nodes and their keys.")],
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Put a side's figure of a day before the clearing house, computed from signed logs."""
    from contracts import goodput  # noqa: PLC0415
    from contracts.grades import roster as rosters  # noqa: PLC0415
    from contracts.grades.present import present  # noqa: PLC0415
    from contracts.refusals import Refused, RefusedAll  # noqa: PLC0415

    found = _find(number, data)
    begin = found["terms"]["begin_ns"] + (day - 1) * DAY_NS
    try:
        listed = rosters.read(roster.read_bytes())
        sold = found["grade"], found["terms"]["month"]
        if (listed.grade, listed.expiry) != sold:
            # One facility may have nodes of several grades, under one name in several rosters
            fail(f"{roster} is the roster of {listed.grade} {listed.expiry}, and delivery {number}"
                 f" of {' '.join(sold)}")  # fmt: skip
        sites = {site.place: site for site in listed.sites}
        site = sites.get((found["provider"], found["facility"]))
        if site is None:
            fail(f"{roster} has no site {found['provider']}/{found['facility']}")
        computed = [goodput.compute(log) for log in logs]
        window = (begin, begin + DAY_NS)
        hours = present(computed, site, window, found["lots"])
        others = _same_logs(found, day, account, hours.digest, data)
        together = sum(one["lots"] for one in (found, *others))
        most = present(computed, site, window, together).available
    except (Refused, RefusedAll) as refused:
        fail(f"the logs say nothing: {refused}")
    counted = sum(one["available"] for one in others)
    if hours.available + counted > most:
        named = ", ".join(str(one["id"]) for one in others)
        fail(f"these logs show {most} GPU-seconds, of which {counted} count for delivery {named}:"
             " no GPU counts twice at one moment")  # fmt: skip
    text = msgspec.json.encode(
        {"operation": "attest", "account": account, "delivery": number, "day": day,
         **hours._asdict()}
    ).decode()  # fmt: skip
    show_rulings(operate(requests.PutRecord(record=text), data), as_json)


def _same_logs(
    found: dict[str, Any], day: int, account: int, digest: str, data: Path
) -> list[dict[str, int]]:
    """Return the site's other deliveries whose figure of that day is of the same side and the same
    logs: ``id``, ``lots`` and GPU-seconds ``available``."""
    sides = {found["buyer"]: "buyer", found["seller"]: "seller"}
    keys, side = ("instrument", "provider", "facility"), sides.get(account, "house")
    with ledger(data) as clearing:
        there = {row["delivery"]: row["available"] for row in clearing.figures(day, digest)
                 if row["side"] == side}  # fmt: skip
        return [
            {"id": one["id"], "lots": one["lots"], "available": there[one["id"]]}
            for one in clearing.deliveries()
            if one["id"] in there and one["id"] != found["id"]
            and all(one[key] == found[key] for key in keys)
        ]  # fmt: skip


def _find(number: int, data: Path) -> dict[str, Any]:
    with ledger(data) as clearing:
        found = clearing.delivery(number)
    if found is None:
        fail(f"no delivery {number}; `hourbook clear deliveries` lists them", Exit.NO)
    return found


def _month(found: dict[str, Any]) -> str:
    """Return the month as text: a mark for every day, and what was earned."""
    from exchange.clearing.delivery import story  # noqa: PLC0415

    lines, last = story.days(found), len(_SHADES) - 1
    settled = lines[: len(found["slices"])]
    marks = [_SHADES[int(story.share_there(line, found["lots"]) * last)] for line in settled]
    strip = "".join(marks).ljust(len(lines))
    weeks = " ".join(strip[place : place + 7] for place in range(0, len(lines), 7))
    earned, back = (sum(line.earned for line in lines), sum(line.returned for line in lines))
    return (
        f"days by the hours that were there, {_SHADES[0]} none to {_SHADES[-1]} all:  |{weeks}|\n"
        f"earned {_cents(earned)} USD, returned {_cents(back)} USD, of {_cents(found['invoice'])}"
    )


def _cents(amount: int) -> str:
    from exchange.clearing.delivery.story import cents_text  # noqa: PLC0415

    return cents_text(amount)
