"""``hourbook clear margin`` and its relatives: calibrate, adopt, backtest."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from exchange.app import requests
from exchange.cli.access import DEFAULT_DATA, Data, Json, market_command
from exchange.cli.clear import ledger
from exchange.cli.output import (
    Exit,
    dollars,
    fail,
    percent,
    progress,
    show_json,
    show_table,
    why,
    write_text,
)
from exchange.messages.dates import number_of

if TYPE_CHECKING:
    from contracts.history import History
    from exchange.clearing import Clearing
    from exchange.clearing.margin.backtest import Verdict
    from exchange.clearing.margin.book import Requirement
    from exchange.clearing.margin.calibrate import Calibration

app = typer.Typer()  # listed among the commands of `clear`

_LOTS_DIGITS: Final = 15
PICTURES: Final = (".svg", ".png")
YEAR_MOST: Final = 2099  # in which a version may take effect
VOLUME_DAYS: Final = 20  # business dates over which a product's daily volume is averaged
Prices = Annotated[
    Path | None,
    typer.Option("--prices", help="A price history (TOML); the one that ships if absent."),
]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw what was found: FILE.svg or .png.")]


@app.command("margin")
def margin(
    data: Data = DEFAULT_DATA,
    account: Annotated[
        list[int] | None,
        typer.Option("--account", metavar="ACCOUNT", help="Only this account; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what every account with positions or deliveries must have, and of what parts; 1 if one
    is short, or holds what the parameters do not cover."""
    with ledger(data) as clearing, progress("margin") as advance:
        try:
            found = clearing.margins(advance or _quiet)
        except LookupError as error:
            fail(f"{error.args[0]}; `hourbook clear calibrate` and `adopt` put some into the log")
        parameters, uncovered = clearing.margin_parameters(), clearing.uncovered()
        losses = _historical(clearing)
    chosen = [r for r in found if account is None or r.account in account]
    unknown = {a: codes for a, codes in uncovered.items() if account is None or a in account}
    assert parameters is not None
    if as_json:
        rows = [
            asdict(r) | {"excess": r.excess, "call": r.call, "historical": losses.get(r.account, 0)}
            for r in chosen
        ]
        show_json({"version": parameters.version, "accounts": rows, "unknown": unknown})
    else:
        _show_margins(chosen, losses, parameters.version)
    short = [r.account for r in chosen if r.excess < 0]
    wrong = [f"accounts short of their margin: {', '.join(map(str, short))}"] if short else []
    wrong += [
        f"account {a} is left out: no margin parameters cover {' '.join(codes)}"
        for a, codes in unknown.items()
    ]
    if wrong:
        fail("; ".join(wrong))


@app.command("limits")
def limits(
    data: Data = DEFAULT_DATA,
    supply: Annotated[
        list[str] | None,
        typer.Option(
            "--supply",
            metavar="CODE=LOTS",
            help="Lots of an expiry that can be delivered; repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what one account may hold by open interest, or of a deliverable supply, per expiry."""
    from exchange.clearing.margin import rules  # noqa: PLC0415

    supplies = {}
    for given in supply or []:
        code, equals, lots = given.partition("=")
        if not equals or not (lots.isascii() and lots.isdecimal()) or len(lots) > _LOTS_DIGITS:
            fail(f"--supply {given}: write CODE=LOTS, as in H100PZ26=4003", Exit.USAGE)
        supplies[code] = int(lots)
    with ledger(data) as clearing:
        interest = {line.code: line.open_interest for line in clearing.open_interest()}
    unknown = sorted(supplies.keys() - interest.keys())
    if unknown:
        fail(f"not listed: {', '.join(unknown)}", Exit.USAGE)
    rows = [
        {
            "code": code,
            "open_interest": lots,
            "limit": rules.position_limit(lots),
            "spot_limit": rules.spot_limit(supplies[code]) if code in supplies else None,
        }
        for code, lots in interest.items()
    ]
    if as_json:
        show_json(rows)
    else:
        cells = [["" if cell is None else f"{cell}" for cell in row.values()] for row in rows]
        show_table(("expiry", "open interest", "limit", "spot month"), cells)


@app.command("calibrate")
def calibrate(
    effective: Annotated[
        datetime | None,
        typer.Option(
            "--effective",
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="Business date; today if absent.",
        ),
    ] = None,
    prices: Prices = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="A market: its last version and its volumes.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write the parameters there, for `adopt`.")
    ] = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Propose margin parameters from price history: integers, with the figures behind them."""
    from contracts import registry  # noqa: PLC0415
    from exchange.clearing.margin import calibrate as calibration  # noqa: PLC0415

    on = effective.date() if effective else datetime.now(UTC).date()
    (content, history), drawing = _history(prices), _drawing(plot)
    found = registry.load()
    try:
        specs = {product: found.spec(product, on) for product in found.products}
    except registry.UnknownContractError as error:
        fail(f"--effective: {error}", Exit.USAGE)
    if on.year > YEAR_MOST:
        fail(f"--effective {on}: a version takes effect by the end of {YEAR_MOST}", Exit.USAGE)
    before, volumes = None, dict[str, int]()
    if data is not None:
        with ledger(data) as clearing:
            adopted = clearing.margin_versions()
            before = adopted[-1] if adopted else None
            volumes = clearing.daily_volumes(VOLUME_DAYS)
    try:
        result = calibration.calibrate(
            specs, history, content, effective=number_of(on), before=before, volumes=volumes
        )
    except ValueError as error:
        fail(f"{prices} is too short a price history: {error}", Exit.USAGE)
    if output is not None:
        write_text(output, result.parameters.to_json() + "\n")
    if drawing is not None:
        drawing.calibration(result, history, plot)
    if as_json:
        show_json({
            "parameters": result.parameters,
            "proposals": [proposal._asdict() for proposal in result.proposals],
            "pairs": [pair._asdict() for pair in result.pairs],
            "chosen": calibration.CHOSEN,
        })  # fmt: skip
    else:
        _show_calibration(result, history)


@market_command(app, "adopt")
def adopt(
    file: Annotated[Path, typer.Argument(help="Parameters as `hourbook clear calibrate` writes.")],
) -> requests.AdoptMargin:
    """Adopt margin parameters: they enter the log, and the engine's rates follow them."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {why(error)}", Exit.USAGE)
    return requests.AdoptMargin(parameters=text)


@app.command("backtest")
def backtest(
    prices: Prices = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=0, max=1_000, help="Made-up series to test on as well.")
    ] = 20,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Test the margin model on the moves that came after: coverage, independence, and the power."""
    from exchange.clearing.margin import study  # noqa: PLC0415

    (_, history), drawing = _history(prices), _drawing(plot)
    with progress("backtest") as advance:
        verdicts = list(study.run(history, seeds, advance or _quiet))
        swings = study.procyclicality()
    if drawing is not None:
        drawing.backtest(history, plot)
    if as_json:
        rows = [v._asdict() | {"passed": v.passed} for v in verdicts]
        show_json({"backtests": rows, "swings": [swing._asdict() for swing in swings]})
    else:
        _show_verdicts(verdicts)
        for line in study.summary(verdicts):
            print(line)
        print()
        shown = [(s.name, f"{s.days}", f"x {s.steepest:.2f}") for s in swings]
        show_table(("steepest rise of a made-up series' margin", "days", ""), shown)


def _quiet(done: int, total: int) -> None:
    """Ignore progress."""


def _history(path: Path | None) -> tuple[bytes, "History"]:
    """Return a price history's bytes and the parsed history; the shipped one without a path."""
    from contracts import history  # noqa: PLC0415
    from contracts.refusals import UNREADABLE  # noqa: PLC0415

    try:
        content = history.shipped() if path is None else path.read_bytes()
        return content, history.read(content)
    except (OSError, *UNREADABLE) as error:
        fail(f"{path} is no price history: {why(error)}", Exit.USAGE)


def _drawing(file: Path | None) -> Any:
    """Return the plotting module if a plot is wanted; it needs an optional library."""
    if file is None:
        return None
    if file.suffix not in PICTURES:
        fail(f"--plot {file}: write to a file that ends in {' or '.join(PICTURES)}", Exit.USAGE)
    import exchange.cli.plot as plot  # noqa: PLC0415

    try:
        plot.library()
    except ImportError:
        fail("--plot needs matplotlib: `pip install 'hourbook[plot]'`", Exit.USAGE)
    return plot


def _historical(clearing: "Clearing") -> dict[int, int]:
    """Return every book's loss in the filtered weeks of the shipped history."""
    from contracts import history  # noqa: PLC0415
    from exchange.clearing.margin.calibrate import CONFIDENCE_BP, WEEK_DAYS  # noqa: PLC0415

    return clearing.historical_losses(history.load().daily, WEEK_DAYS, CONFIDENCE_BP)


def _show_margins(found: Sequence["Requirement"], losses: Mapping[int, int], version: int) -> None:
    print(f"margin parameters {version}; USD")
    heads = ("account", "product", "scan", "calendar", "delivery", "liquidity", "concentration",
             "undelivered")  # fmt: skip
    rows = []
    for one in found:
        for part in one.parts:
            money = (part.scan, part.calendar, part.delivery, part.liquidity, part.concentration,
                     part.undelivered)  # fmt: skip
            rows.append((f"{one.account}", part.product, *map(dollars, money)))
    show_table(heads, rows, left=2)
    print()
    totals = [
        (f"{one.account}", *map(dollars, (
            one.credit, one.requirement, one.maintenance, losses.get(one.account, 0), one.hold,
            one.cash, one.collateral, one.loss, one.excess, one.call,
        )))
        for one in found
    ]  # fmt: skip
    columns = ("account", "credit", "requirement", "maintenance", "99 % week", "engine's hold",
               "cash", "collateral", "loss", "excess", "call")  # fmt: skip
    show_table(columns, totals)


def _show_calibration(result: "Calibration", history: "History") -> None:
    parameters = result.parameters
    print(f"version {parameters.version}, in force from {parameters.effective}")
    print(f"inputs  {parameters.inputs_hash}\n")
    heads = ("product", "history", "weeks", "long run", "filtered", "stress", "blended", "floor",
             "model", "charged")  # fmt: skip
    rows = [
        (p.product, p.source or "the largest", f"{p.weeks}", *map(percent, p[3:]))
        for p in result.proposals
    ]
    show_table(heads, rows, left=2)
    print()
    pairs = [
        (f"{p.a}, {p.b}", f"{p.correlation:+.2f}", f"{p.least:.2f}", f"{p.percent} %")
        for p in result.pairs
    ]
    show_table(("weekly correlation of", "measured", "at least", "credit"), pairs)
    print(f"\n{history.daily.attribution}\n{history.hourly.attribution}")


def _show_verdicts(verdicts: "Sequence[Verdict]") -> None:
    heads = ("series", "moves", "beyond", "expected", "coverage p", "independence p", "both p",
             "power", "")  # fmt: skip
    rows = [
        (
            v.name, f"{v.observations:,}", f"{v.exceedances}", f"{v.expected:.1f}",
            f"{v.coverage_p:.3f}", f"{v.independence_p:.3f}", f"{v.both_p:.3f}", f"{v.power:.2f}",
            "" if v.passed else "rejected",
        )
        for v in verdicts
    ]  # fmt: skip
    show_table(heads, rows)
