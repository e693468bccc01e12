"""Margin as an operator meets it: calibrated, adopted, held by the engine, asked for."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import figures
import margin_figures
import msgspec
import pytest
from command import run
from live import market_in

from contracts import history, registry
from exchange.app import Market, requests
from exchange.app.wishes import RequestRefused
from exchange.clearing.margin import book, calibrate
from exchange.clearing.margin.parameters import Band, MarginParameters, lot_rates
from exchange.clearing.state import Instrument
from exchange.messages import CommandKind

DAY = date(2026, 12, 1)
DATE = 20261201


def noon() -> int:
    return int(datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()) * 10**9


def proposed(effective: int = DATE, **more: Any) -> MarginParameters:
    found = registry.load()
    specs = {product: found.spec(product, DAY) for product in found.products}
    return calibrate.calibrate(
        specs, history.load(), history.shipped(), effective=effective, **more
    ).parameters


def rate_of(market: Market, code: str) -> int:
    number = market.desk.instruments.by_code[code].id
    return int(market.engine.instrument(number)["rate"])


async def test_adopted_parameters_move_the_engines_rates(tmp_path: Path) -> None:
    terms = proposed()
    async with market_in(tmp_path, clock=noon) as market:
        listed = market.desk.terms["H100F27"]
        own = rate_of(market, "H100F27")
        assert own == listed.margin_rate(price_micros=_price(market), on=DAY)
        asked = requests.AdoptMargin(parameters=terms.to_json())
        answer = await market.operations.perform(asked)
        assert (answer["version"], answer["adopted"], answer["adopted_before"]) == (1, True, False)
        lot = lot_rates(terms, "H100F27", listed.multiplier, _price(market), DAY)
        assert rate_of(market, "H100F27") == lot.hold > own
        again = await market.operations.perform(asked)
        assert again["adopted_before"] and again["adopted"]
        later = proposed(DATE + 1, before=terms)
        await market.operations.perform(requests.AdoptMargin(parameters=later.to_json()))
        assert rate_of(market, "H100F27") == lot.hold  # not before its date
        await market.operations.perform(requests.Settle())
        await market.operations.perform(requests.OpenDay(date=DATE + 1))
        lot = lot_rates(later, "H100F27", listed.multiplier, _price(market), date(2026, 12, 2))
        assert rate_of(market, "H100F27") == lot.hold
        await _is_refused(market, later)


async def test_limits_that_an_operator_set_outlive_the_adoption_of_margin(tmp_path: Path) -> None:
    """Of its first time as of a repeat: only the rates are new."""
    async with market_in(tmp_path, clock=noon) as market:
        own = rate_of(market, "H100F27")
        limits = requests.SetLimits(code="H100F27", position_limit=7, max_order=3)
        await market.operations.perform(limits)
        for _ in range(2):
            await market.operations.perform(requests.AdoptMargin(parameters=proposed().to_json()))
            shown = market.operations.state()["instruments"]
            (one,) = [one for one in shown if one["code"] == "H100F27"]
            assert (one["position_limit"], one["max_order"]) == (7, 3)
            assert rate_of(market, "H100F27") > own


async def _is_refused(market: Market, second: MarginParameters) -> None:
    """Texts that are no parameters, and parameters that may not follow: by name, nothing logged."""
    low = [
        msgspec.structs.replace(p, floor_bp=999) if p.product == "H100" else p
        for p in second.products
    ]
    next_one = msgspec.structs.replace(second, version=3)
    sequence = market.desk.sequence
    for refused, reason in (
        ("{}", "no margin parameters"),
        (msgspec.structs.replace(second, version=9).to_json(), r"VERSION \(2301\)"),
        (msgspec.structs.replace(next_one, effective=DATE).to_json(), r"EFFECTIVE \(2302\)"),
        (msgspec.structs.replace(next_one, products=low).to_json(), r"BELOW_LIMIT_MOVE \(2307\)"),
    ):
        with pytest.raises(RequestRefused, match=reason):
            await market.operations.perform(requests.AdoptMargin(parameters=refused))
    assert market.desk.sequence == sequence


def _price(market: Market) -> int:
    listed = market.desk.instruments.by_code["H100F27"]
    return listed.mark if listed.settlement_price is None else listed.settlement_price


def test_from_prices_to_the_requirement_on_the_command_line(tmp_path: Path) -> None:
    """calibrate, adopt, trade, margin: the figures agree, and a short account is exit code 1."""
    file, picture, data = tmp_path / "m.json", tmp_path / "m.svg", tmp_path / "market"
    today = datetime.now(UTC).date()
    done = run("clear", "calibrate", "--output", file, "--plot", picture, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    terms = msgspec.json.decode(file.read_bytes(), type=MarginParameters)
    assert shown["parameters"] == json.loads(file.read_text())
    assert (terms.version, terms.effective) == (1, int(f"{today:%Y%m%d}"))
    assert picture.read_text().startswith("<?xml") and "gpurentalprices.com" in picture.read_text()
    run("admin", "deposit", "1", "100000", "--data", data)
    done = run("clear", "margin", "--data", data)
    assert (done.returncode, "no margin parameters" in done.stderr) == (1, True)
    done = run("clear", "adopt", file, "--data", data, "--json")
    assert json.loads(done.stdout)["adopted"], done.stderr
    done = run("clear", "margin", "--data", data, "--json")
    assert json.loads(done.stdout) == {"version": 1, "accounts": [], "unknown": {}}
    done = run("clear", "calibrate", "--data", data, "--json")
    assert json.loads(done.stdout)["parameters"]["version"] == 2
    done = run("clear", "adopt", tmp_path / "absent", "--data", data)
    assert done.returncode == 2


@pytest.mark.parametrize(("days", "hours"), [(7, 200), (30, 168)])
def test_a_history_without_a_whole_week_is_too_short(days: int, hours: int, tmp_path: Path) -> None:
    text = "".join(
        f"""[{panel}]\nsource="s"\nlicence="l"\nattribution="a"\nfirst_day=2026-07-07
last_day=2026-08-22\n[{panel}.products.H100]\nseries="x"\nlevels={[9] * count}\n"""
        for panel, count in (("daily", days), ("hourly", hours))
    )
    file = tmp_path / "prices.toml"
    file.write_text(text)
    done = run("clear", "calibrate", "--prices", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file} is too short a price history: H100 has" in done.stderr


def test_a_date_on_which_no_version_can_take_effect_is_a_usage_error() -> None:
    for day, why in (("1999-01-01", "no contract spec covers"), ("2100-01-01", "end of 2099")):
        done = run("clear", "calibrate", "--effective", day)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("hourbook: --effective") and why in done.stderr


def test_margin_is_shown_with_its_parts(tmp_path: Path) -> None:
    """On a ledger of its own, a market's file name and no market beside it."""
    from test_margin_market import Listed, MarginMarket, product, version  # noqa: PLC0415

    from exchange.app.market import LEDGER_NAME  # noqa: PLC0415
    from exchange.clearing import Clearing  # noqa: PLC0415

    market, terms = MarginMarket(), version()
    _, f27, g27, *_ = market.open(terms, 10**12)
    market.adopt(terms)
    market.trade(f27, 1, 2, 10, 2_500)
    market.trade(g27, 2, 1, 4, 2_500)
    market.apply(market.money(CommandKind.FEE, 2, 10**12))  # all that it has
    others = version(products=(product("A100"),))
    market.list_code(odd := Listed(6, "A100F27", 744, 2_500_000), others)
    market.trade(odd, 3, 4, 1, 2_500)
    clearing = Clearing.open(tmp_path / LEDGER_NAME)
    clearing.apply(market.frames)
    requirements = clearing.margins()
    assert clearing.daily_volumes(20) == {"A100": 1, "H100": 14}
    clearing.close()
    done = run("clear", "margin", "--data", tmp_path, "--json")
    assert done.returncode == 1
    assert done.stderr == (
        "hourbook: accounts short of their margin: 2; account 3 is left out: no margin parameters"
        " cover A100F27; account 4 is left out: no margin parameters cover A100F27\n"
    )
    answer = json.loads(done.stdout)
    assert answer["unknown"] == {"3": ["A100F27"], "4": ["A100F27"]}
    shown = answer["accounts"]
    assert [(a["account"], a["requirement"]) for a in shown] == [
        (r.account, r.requirement) for r in requirements
    ]
    assert all(0 < a["historical"] < a["requirement"] for a in shown)
    done = run("clear", "limits", "--data", tmp_path, "--supply", "H100F27=4003", "--json")
    limits = {row["code"]: row for row in json.loads(done.stdout)}
    assert limits["H100F27"] == {
        "code": "H100F27", "open_interest": 10, "limit": 1, "spot_limit": 1_000,
    }  # fmt: skip
    assert limits["H100G27"]["spot_limit"] is None
    assert run("clear", "limits", "--data", tmp_path, "--supply", "X=1").returncode == 2
    assert run("clear", "limits", "--data", tmp_path, "--supply", "X").returncode == 2
    done = run("clear", "margin", "--data", tmp_path, "--account", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "concentration" in done.stdout and f"{requirements[0].requirement % 10**6:06d}" in (
        done.stdout
    )


def test_a_spread_costs_no_more_than_either_leg(tmp_path: Path) -> None:
    """A far month at a fifth of the near one's price: the charge is the far leg's scan."""
    terms = proposed()
    dear = msgspec.structs.replace(
        terms.of("H100"), bands=(Band(0, 1_000),), spread_bp=1_000, averaged=False
    )
    terms = msgspec.structs.replace(terms, products=(dear,))
    near = Instrument(0, "H100F27", 744, 1_000, 1, 0, 2_500_000)
    far = replace(near, instrument=1, code="H100G27", multiplier=672, settlement_price=500_000)
    priced = book.price({0: near, 1: far}, terms, DAY, {})
    assert priced.lots[0].spread > priced.lots[1].scan_whole
    assert priced.rates.spread.tolist() == [priced.lots[1].scan_whole]


def test_a_lot_of_two_months_in_their_notice_is_relieved_by_the_lesser() -> None:
    """Lots are not paired: a relief is what a lot of either month is charged at least, whatever
    months outside their notice cost."""
    terms = proposed()
    physical = msgspec.structs.replace(
        terms.of("H100P"), delivery_bp=400, delivery_spread_bp=150, notice_days=40
    )
    terms = msgspec.structs.replace(terms, products=(physical,))
    near = Instrument(0, "H100PZ26", 744, 1_000, 1, 0, 2_500_000)
    next_ = replace(near, instrument=1, code="H100PF27", settlement_price=2_400_000)
    far = replace(near, instrument=2, code="H100PG27", multiplier=672, settlement_price=2_000_000)
    priced = book.price({0: near, 1: next_, 2: far}, terms, DAY, {})
    reliefs = [lot.relief for lot in priced.lots.values()]
    assert [lot.spot for lot in priced.lots.values()] == [True, True, False]
    assert reliefs == [744 * 2_500 * 25, 744 * 2_400 * 25, 0]
    assert priced.rates.relief.tolist() == [reliefs[1]]


def test_the_history_is_what_the_panels_give(shared: Path) -> None:
    days, hours = margin_figures.series(shared / "data")
    found = history.load()
    assert {n: (list(s.levels), s.providers) for n, s in found.daily.products.items()} == days
    assert {n: list(s.levels) for n, s in found.hourly.products.items()} == hours
    for series, gpu in ((found.daily, margin_figures.DAILY_SERIES),
                        (found.hourly, figures.PATH_SERIES)):  # fmt: skip
        assert {n: s.series for n, s in series.products.items()} == gpu


def test_the_history_says_where_it_comes_from() -> None:
    found = history.load()
    assert "CC BY 4.0" in found.daily.licence and "gpurentalprices.com" in found.daily.attribution
    assert "MIT" in found.hourly.licence
    assert b"Permission is hereby granted, free of charge" in history.shipped()
    torn = history.shipped().replace(b"providers = 7\nlevels = [", b"levels = [\n    7,", 1)
    with pytest.raises(msgspec.ValidationError, match="the same times"):
        history.read(torn)
