"""``hourbook goodput``: attestation logs, their goodput, and the conversion factors made from
them."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from exchange.app import requests
from exchange.cli.access import Json, market_command
from exchange.cli.output import (
    Exit,
    fail,
    group,
    progress,
    show_facts,
    show_json,
    show_table,
    write_text,
)

if TYPE_CHECKING:
    from contracts.goodput import Computed
    from contracts.goodput.probe import ProbeReport
    from contracts.grades.table import FactorTable

app = group("Attested goodput and MFU, and the conversion factors made from them.")

DEFAULT_KEY = Path("node.key")
PublicKey = Annotated[
    str | None,
    typer.Option(
        "--key", help="Public key, in hexadecimal, that must have signed; the file's own if absent."
    ),
]
SigningFile = Annotated[
    Path, typer.Option("--key-file", help="File with the secret key; made if absent, mode 0600.")
]
Now = Annotated[
    datetime | None,
    typer.Option(
        "--now", metavar="TIME", help="The clock, UTC: 2026-11-16T12:00:00; now if absent."
    ),
]
Price = Annotated[str, typer.Option("--price", help="Dollars per GPU-hour, as 2.650.")]


@contextmanager
def refusals() -> Iterator[None]:
    """Report a refusal of the contracts package as the command's failure."""
    from contracts.decimal_text import DecimalTextError  # noqa: PLC0415
    from contracts.refusals import Refused, RefusedAll  # noqa: PLC0415

    try:
        yield
    except (Refused, RefusedAll, DecimalTextError) as refused:
        fail(str(refused))


@app.command("compute")
def compute(
    file: Annotated[Path, typer.Argument(help="An attestation log, JSON lines.")],
    key: PublicKey = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="The other side's log of the same hours.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute goodput and MFU from an attestation log, verifying every signature."""
    from contracts import goodput  # noqa: PLC0415
    from contracts.goodput import account as accounts  # noqa: PLC0415

    with refusals():
        computed = goodput.compute(file, key=key)
        if against is not None:
            other = goodput.compute(against).account
            apart = accounts.disagreement_e4(computed.account, other)
            if apart > accounts.DISAGREEMENT_E4_MAX:
                fail(
                    f"{file.name} says {computed.account.delivered_e4 / 1e4:.4f} delivered,"
                    f" {against.name} {other.delivered_e4 / 1e4:.4f}: let an arbiter's run decide"
                )
    if as_json:
        show_json({**msgspec.to_builtins(computed.account), **_identity(computed)})
        return
    _show_account(computed)


def _identity(computed: "Computed") -> dict[str, Any]:
    return {
        "digest": computed.digest, "segments": computed.segments, "events": computed.events,
    }  # fmt: skip


def _show_account(computed: "Computed") -> None:
    account = computed.account
    hours = 3600 * 10**9
    show_facts(
        {
            "node": f"{account.provider}/{account.node}",
            "time": f"{account.elapsed_ns / hours:.4f} h, {account.disruptions} disruptions",
            "goodput": f"{account.goodput_e4 / 1e4:.4f} = scheduling "
            f"{account.scheduling_e4 / 1e4:.4f} x runtime {account.runtime_e4 / 1e4:.4f}",
            "delivered": f"{account.delivered_e4 / 1e4:.4f} (all but what the seller lost)",
            "MFU": "no step was preserved"
            if account.mfu_e6 is None
            else f"{account.mfu_e6 / 1e6:.4f} of the dense peak, over preserved steps",
            "steps": f"{account.steps:,} preserved, {account.lost_steps:,} lost",
            "log": f"{computed.events:,} events, {computed.segments:,} segments signed",
            "signed by": account.key,
            "digest": computed.digest,
        },
        as_json=False,
    )
    print()
    rows = [("productive", f"{account.productive_ns / hours:.4f}", "", "")]
    for name, loss in account.losses.items():
        seller, buyer = f"{loss.seller_ns / hours:.4f}", f"{loss.buyer_ns / hours:.4f}"
        rows.append((name.lower().replace("_", " "), "", seller, buyer))
    show_table(("hours", "productive", "seller's loss", "buyer's loss"), rows)


@app.command("import")
def import_(
    records: Annotated[
        Path, typer.Argument(help="ml-goodput-measurement's records, a JSON each line.")
    ],
    site: Annotated[
        Path, typer.Argument(help="JSON: node, provider, GPUs, workload; see the docs.")
    ],
    out: Annotated[Path, typer.Argument(help="The attestation log to write.")],
    key_file: SigningFile = DEFAULT_KEY,
    as_json: Json = False,
) -> None:
    """Turn records of ml-goodput-measurement into a signed attestation log."""
    from contracts.goodput import compute, importer, keys  # noqa: PLC0415
    from contracts.goodput.log import Recorder  # noqa: PLC0415
    from contracts.refusals import UNREADABLE  # noqa: PLC0415

    reading = site
    try:
        where = msgspec.json.decode(site.read_bytes(), type=importer.Site)
        reading = records
        lines = msgspec.json.Decoder(dict[str, Any]).decode_lines(records.read_bytes())
    except UNREADABLE as error:
        fail(f"{reading}: {error}; docs/reference/attestation.md says what the two files hold")
    with refusals():
        key = keys.load_key(key_file)
        imported = importer.records_to_events(lines, where, key.public)
        file = out.open("xb")
        try:
            with file:
                recorder = Recorder(file, key)
                for event in imported.events:
                    recorder.record(event)
                recorder.close()
            computed = compute(out)
        except BaseException:
            out.unlink(missing_ok=True)  # a log that is refused or broken off is not left behind
            raise
    if as_json:
        show_json(
            {
                **msgspec.to_builtins(computed.account),
                **_identity(computed),
                "left_out": imported.left_out,
            }
        )
        return
    _show_account(computed)
    print(f"{imported.left_out} records had no part in it")


@app.command("probe")
def probe(
    node: Annotated[
        str, typer.Option("--node", help="This node's name; its host name if absent.")
    ] = "",
    rounds: Annotated[
        int,
        typer.Option("--rounds", min=1, max=1000, help="Rounds to measure; their median counts."),
    ] = 5,
    key_file: SigningFile = DEFAULT_KEY,
    out: Annotated[Path | None, typer.Option("--out", help="Write the signed report here.")] = None,
    as_json: Json = False,
) -> None:
    """Measure this node: matrix products and transformer steps, the slowest GPU counting.

    Needs torch: pip install 'hourbook[probe]'.
    """
    from contracts.goodput import keys  # noqa: PLC0415
    from contracts.goodput import probe as bench  # noqa: PLC0415

    with progress("measuring") as advance, refusals():
        key = keys.load_key(key_file)
        try:
            found = bench.run(node or socket.gethostname(), rounds=rounds, advance=advance)
        except bench.TorchMissing as error:
            fail(str(error), Exit.UNUSABLE)
    signed = msgspec.structs.replace(
        found, key=key.public, signature=key.sign(keys.REPORT, found.content)
    )
    if out is not None:
        write_text(out, msgspec.json.encode(signed).decode() + "\n")
    _show_report(signed, as_json)


@app.command("check-probe")
def check_probe(
    file: Annotated[Path, typer.Argument(help="A report that `probe --out` wrote.")],
    key: PublicKey = None,
    as_json: Json = False,
) -> None:
    """Verify a probe's report: its signature, and that its figures are its devices'."""
    from contracts.goodput import probe as bench  # noqa: PLC0415

    with refusals():
        report = bench.check(file.read_bytes(), key)
    _show_report(report, as_json)


def _show_report(report: "ProbeReport", as_json: bool) -> None:
    if as_json:
        show_json(report)
        return
    heads = ("device", "TFLOP/s", "of peak", "tokens/s", "MFU")
    rows = [
        (d.name, f"{d.matmul_flops / 1e12:.3f}", _share(d.matmul_share_e4),
         f"{d.tokens_a_second:,}", _share(d.mfu_e4))
        for d in report.devices
    ]  # fmt: skip
    show_table(heads, rows)
    how = f"{report.precision}, median of {report.rounds} rounds, torch {report.torch}"
    at = datetime.fromtimestamp(report.at_ns // 10**9, UTC)
    print(f"{how}, {report.node} at {at:%Y-%m-%dT%H:%M:%SZ}, signed {report.key}")


def _share(share_e4: int | None) -> str:
    return "no peak" if share_e4 is None else f"{share_e4 / 1e4:.4f}"


@app.command("grades")
def grades_(as_json: Json = False) -> None:
    """List the deliverable grades: what a seller must bring, in which units, and par."""
    from contracts import grades  # noqa: PLC0415

    loaded = grades.load()
    if as_json:
        show_json(loaded)
        return
    heads = ("grade", "GPU", "fabric Gb/s", "GPUs", "unit", "par delivered", "par MFU", "at")
    show_table(
        heads,
        [
            (g.code, g.gpu_class, str(g.fabric_gbps), f"{g.gpus_least}-{g.gpus_most}",
             str(g.delivery_unit_lots), _share(g.par_delivered_e4), _share(g.par_mfu_e4),
             f"{g.precision}, {g.benchmark} {g.benchmark_version}")
            for g in loaded.grades.values()
        ],
    )  # fmt: skip


@app.command("draw")
def draw(
    roster: Annotated[Path, typer.Argument(help="The roster, JSON: sites, nodes, keys, GPUs.")],
    as_json: Json = False,
) -> None:
    """Show which nodes and hours the previous fixing's hash draws, and the table's days."""
    from contracts import grades  # noqa: PLC0415
    from contracts.grades import roster as rosters  # noqa: PLC0415
    from contracts.grades.schedule import schedule  # noqa: PLC0415

    with refusals():
        found = rosters.read(roster.read_bytes())
        loaded = grades.load()
        loaded.grade(found.grade, found.month)
        rules = loaded.rules_of(found.month)
        drawn = [
            (site, node, rosters.hours(found, site, node, rules))
            for site in found.sites
            for node in rosters.draw(found, rules)[site.place]
        ]
        days = schedule(found.month, rules)
    if as_json:
        runs = [
            {"provider": s.provider, "facility": s.facility, "node": node, "hours_ns": hours}
            for s, node, hours in drawn
        ]
        show_json({"grade": found.grade, "schedule": days, "drawn": runs})
        return
    show_facts(msgspec.structs.asdict(days), as_json=False)
    print()
    rows = [
        ("/".join(site.place), node, *(_hour(at) for at in hours)) for site, node, hours in drawn
    ]
    show_table(("site", "node", *["start within the hour of"] * rules.runs_drawn), rows)


def _hour(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%m-%d %H:00")


@app.command("factors")
def factors(
    roster: Annotated[Path, typer.Argument(help="The roster, JSON: sites, nodes, keys, GPUs.")],
    logs: Annotated[list[Path], typer.Argument(help="The drawn nodes' attestation logs.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write the signed table here.")] = None,
    key_file: SigningFile = Path("factors.key"),
    before: Annotated[
        Path | None, typer.Option("--before", help="The published version that this one replaces.")
    ] = None,
    dispute: Annotated[
        str, typer.Option("--dispute", help="With --before: what was disputed, in words.")
    ] = "",
    check: Annotated[
        Path | None, typer.Option("--check", help="Compare with this published table instead.")
    ] = None,
    now: Now = None,
    as_json: Json = False,
) -> None:
    """Make the conversion factors of a grade and expiry from its roster and logs.

    The same inputs give the same table: with --check anyone holds a published one against them.
    """
    from contracts import grades  # noqa: PLC0415
    from contracts.goodput.keys import load_key  # noqa: PLC0415
    from contracts.grades import measure, table  # noqa: PLC0415
    from contracts.grades import roster as rosters  # noqa: PLC0415

    if check is not None and out is not None:
        fail("--check compares and writes nothing: leave --out out", Exit.USAGE)
    if check is None and (before is None) != (not dispute):
        # Neither a first version with a dispute nor a later one without is ever published
        fail("--before and --dispute go together: a later version answers a dispute", Exit.USAGE)
    with refusals():
        found = rosters.read(roster.read_bytes())
        loaded = grades.load()
        rules, grade = loaded.rules_of(found.month), loaded.grade(found.grade, found.month)
        runs = measure.measure(logs, found, grade, rules, now_ns=_now_ns(now))
        replaced = None if before is None else table.read(before.read_bytes())
        published = None if check is None else table.read(check.read_bytes())
        if published is not None:
            dispute = published.dispute
            if published.version > 1 and replaced is None:
                fail(f"{check} is version {published.version}: name the one before with --before")
        made = table.make(found, runs, grade, rules, before=replaced, dispute=dispute)
    if published is not None:
        if made.digest != published.digest:
            fail(f"these inputs make {made.digest}, published is {published.digest}")
        made = published
    elif out is not None:
        with refusals():
            made = table.sign(made, load_key(key_file))
        write_text(out, msgspec.json.encode(made).decode() + "\n")
    if as_json:
        show_json({**msgspec.to_builtins(made), "digest": made.digest})
        return
    _show_table(made)
    if published is not None:
        print("these inputs make the published table, to the byte")


def _now_ns(now: datetime | None) -> int:
    return time.time_ns() if now is None else int(now.replace(tzinfo=UTC).timestamp()) * 10**9


def _show_table(made: "FactorTable") -> None:
    days = made.schedule
    print(
        f"{made.grade}, {made.expiry}, version {made.version}, {made.precision}, {made.benchmark}"
        f" {made.benchmark_version}; par {_share(made.par_delivered_e4)} delivered,"
        f" {_share(made.par_mfu_e4)} MFU"
    )
    print(f"published {days.published}, disputes to {days.dispute_last}, frozen {days.frozen}")
    print(f"digest {made.digest}, inputs {made.inputs}\n")
    heads = ("site", "factor", "state", "delivered", "MFU", "interval", "weights", "nodes", "runs")
    rows = [
        (
            f"{row.provider}/{row.facility}",
            "none" if row.factor_e4 is None else f"{row.factor_e4 / 1e4:.4f}",
            ", ".join((row.state, *row.reasons)),
            _share(row.delivered_e4),
            f"{row.mfu_e6 / 1e6:.4f}",
            "too few"
            if row.mfu_low_e6 is None or row.mfu_high_e6 is None
            else f"{row.mfu_low_e6 / 1e6:.4f}-{row.mfu_high_e6 / 1e6:.4f}",
            f"{row.weight_mfu_e4 / 1e4:.2f} {row.weight_delivered_e4 / 1e4:.2f}",
            str(row.nodes),
            f"{row.runs} of {row.runs + row.absent}",
        )
        for row in made.rows
    ]
    show_table(heads, rows)


@market_command(app, "publish")
def publish(
    table: Annotated[Path, typer.Argument(help="The signed table, from `goodput factors --out`.")],
) -> requests.RecordFactors:
    """Put a signed factor table into the market's log."""
    try:
        return requests.RecordFactors(table=table.read_text("utf-8"))
    except UnicodeDecodeError as error:
        fail(f"{table}: not a factor table: {error}")


@app.command("cheapest")
def cheapest(
    table: Annotated[Path, typer.Argument(help="A published factor table.")],
    offers: Annotated[Path, typer.Argument(help="JSON list: provider, facility, price.")],
    price: Price,
    as_json: Json = False,
) -> None:
    """Rank offers by what a short would pay: price over factor; and show each one's basis."""
    from contracts.decimal_text import format_price  # noqa: PLC0415
    from contracts.grades import delivery  # noqa: PLC0415
    from contracts.grades import table as tables  # noqa: PLC0415
    from contracts.refusals import UNREADABLE  # noqa: PLC0415

    with refusals():
        published = tables.read(table.read_bytes())
        future = _dollars(price)
        try:
            texts = msgspec.json.decode(offers.read_bytes(), type=list[dict[str, str]])
            quoted = [
                delivery.Offer(
                    provider=text["provider"],
                    facility=text["facility"],
                    price_micros=_dollars(text["price"]),
                )
                for text in texts
            ]
        except (*UNREADABLE, KeyError) as error:
            fail(f"{offers}: not a list of provider, facility and price: {error}")
    known = {
        (row.provider, row.facility): row.factor_e4
        for row in published.rows
        if row.factor_e4 is not None
    }
    ranked = delivery.by_cheapness(quoted, known, future_micros=future)
    if not ranked:
        fail("no offer is of a site with a factor")
    left_out = [f"{o.provider}/{o.facility}" for o in quoted
                if (o.provider, o.facility) not in known]  # fmt: skip
    if as_json:
        show_json({"expiry": published.expiry, "grade": published.grade, "sites": ranked,
                   "left_out": left_out})  # fmt: skip
        return
    heads = ("site", "price", "factor", "price/factor", "basis")
    dollars = [
        (f"{b.provider}/{b.facility}", format_price(b.price_micros, 6), f"{b.factor_e4 / 1e4:.4f}",
         format_price(b.normalized_micros, 6), format_price(b.basis_micros, 6))
        for b in ranked
    ]  # fmt: skip
    show_table(heads, dollars)
    print(f"{published.grade} {published.expiry}: the first is the cheapest to deliver")
    if left_out:
        print(f"left out, for want of a factor: {', '.join(left_out)}")


def _dollars(price: str) -> int:
    """Return a price in millionths of a dollar; it must be above zero."""
    from contracts.decimal_text import parse_price  # noqa: PLC0415
    from contracts.spec import PRICE_DECIMALS  # noqa: PLC0415

    micros = parse_price(price, PRICE_DECIMALS)
    if micros <= 0:
        fail(f"price {price}: must be above zero")
    return micros


@app.command("true-up")
def true_up(
    log: Annotated[Path, typer.Argument(help="The delivery month's attestation log.")],
    table: Annotated[Path, typer.Argument(help="The frozen factor table.")],
    site: Annotated[str, typer.Option("--site", help="PROVIDER/FACILITY that delivered.")],
    lots: Annotated[int, typer.Option("--lots", help="Lots delivered.")],
    price: Price,
    version: Annotated[int, typer.Option("--version", help="The table's version.")] = 1,
    key: PublicKey = None,
    as_json: Json = False,
) -> None:
    """What the seller owes for what it alone lost against the fixed goodput."""
    from contracts import goodput, grades  # noqa: PLC0415
    from contracts.calendar import Month  # noqa: PLC0415
    from contracts.grades import delivery  # noqa: PLC0415
    from contracts.grades import table as tables  # noqa: PLC0415

    with refusals():
        published = tables.read(table.read_bytes())
        # As the table's sites are written, since the names may have slashes of their own
        places = {f"{row.provider}/{row.facility}": row for row in published.rows}
        if site not in places:
            fail(f"{table} has no site {site[:140]!a}; it has {', '.join(places) or 'none'}")
        provider, facility = places[site].provider, places[site].facility
        loaded = grades.load()
        loaded.grade(published.grade).check_lots(lots)
        factor = published.factor_of(provider, facility, version=version)
        month = Month.parse(published.expiry)
        account = goodput.compute(log, key=key).account
        delivery.check_log(account, provider, month)
        micros = _dollars(price)
        found = delivery.true_up_of(
            account, price_micros=micros, hours=month.hours, lots=lots, factor_e4=factor,
            fixed_e4=published.fixed_of(provider, facility), rules=loaded.rules_of(month),
        )  # fmt: skip
    invoice = delivery.invoice_cents(
        price_micros=micros, hours=month.hours, lots=lots, factor_e4=factor
    )
    attested = account.elapsed_ns / (3600 * 10**9)
    if as_json:
        told = {"invoice_cents": invoice, "factor_e4": factor, "hours": month.hours}
        show_json({**msgspec.to_builtins(found), **told, "attested_hours": attested})
        return
    facts = {
        "log": f"{attested:.4f} of {month.hours} hours, the others taken to be like them",
        "invoice": f"${invoice / 100:,.2f} at factor {factor / 1e4:.4f}",
        "realized": f"{found.realized_e6 / 1e6:.6f} of the fixed goodput",
        "true_up": "failure to deliver"
        if found.failed
        else f"${found.cents / 100:,.2f} to the buyer",
    }
    show_facts(facts, as_json=False)
    if found.failed:
        raise typer.Exit(Exit.NO)
