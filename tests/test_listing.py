"""How contracts reach a market: as commands in the log, once, whole. Budget: 15 seconds."""

import logging
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest
from live import Running, market_in
from overrides import override

from contracts import registry, symbol
from contracts.index import methodology
from contracts.registry import RegistryError
from contracts.spec import Instrument
from exchange.app import Market, listings, requests, wishes
from exchange.app.expiry import final_price
from exchange.app.wishes import RequestRefused

CHECKOUT = Path(__file__).parents[1]
TODAY = date(2026, 11, 20)


def noon(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) * 10**9


def running(directory: Path, day: date = TODAY) -> Running:
    """A market whose clock stands still at noon of a day."""
    return market_in(directory, clock=lambda: noon(day))


def changed(old: str, new: str, file: str = "h100.toml") -> registry.Registry:
    """The shipped registry with one file changed."""
    files = registry.shipped()
    text = files[file].decode()
    assert old in text
    return registry.read({**files, file: text.replace(old, new).encode()})


async def test_what_opens_by_itself_is_what_the_engine_trades(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        listed = list(m.desk.instruments.by_code)
        assert listed == [i.code for i in registry.load().opening(TODAY)]
        assert all(isinstance(symbol.parse(code), symbol.Outright) for code in listed)
        for one in registry.load().opening(TODAY):
            assert m.desk.terms[one.code] == one


def test_a_replay_reads_no_contract_file(tmp_path: Path) -> None:
    """In a process that cannot import the contracts at all, the log gives the same state."""
    script = """
import asyncio, sys
from pathlib import Path
from exchange.app import Market
async def run():
    market = await Market.start(Path(sys.argv[1]), clock=lambda: int(sys.argv[2]))
    print(await market.stop())
asyncio.run(run())
"""
    again = """
import sys
sys.modules["contracts"] = None
from pathlib import Path
from exchange.engine import Engine
from exchange.journal.replay import replay
report = replay(Path(sys.argv[1]), Engine)
assert report.divergence is None
print(report.state_hash.hex())
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(noon(TODAY))],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.split()[-1]
        for code in (script, again)
    ]
    assert said[0] == said[1]


async def test_an_edited_file_moves_nothing_that_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as m:
        before = m.desk.terms["H100Z26"]
        await m.operations.perform(requests.Settle())
    edited = changed("limit_percent = 10 ", "limit_percent = 50 ")
    monkeypatch.setattr(registry, "load", lambda: edited)
    with caplog.at_level(logging.WARNING):
        async with running(tmp_path, date(2026, 12, 1)) as m:
            assert m.desk.terms["H100Z26"] == before
            listed = m.desk.instruments.by_code["H100Z26"]
            assert listed.high_ticks * 100 <= listed.mark // 1000 * 110
            # An expiry that was not listed yet comes under what the file says now.
            assert m.desk.terms["H100X27"].limit_percent == 50
    said = [record.getMessage() for record in caplog.records if "H100Z26" in record.getMessage()]
    assert "H100Z26 keeps the terms of its listing (limit_percent '10' not '50')" in said[0]
    assert not any("A100" in record.getMessage() for record in caplog.records)


async def test_the_spot_month_begins_with_the_month(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        before = m.desk.instruments.by_code["H100Z26"].rate
        spot = m.desk.instruments.by_code["H100X26"].rate
        await override(m.operations, "H100Z26", "3.000")
        await override(m.operations, "H100X26", "3.000")
        await m.operations.perform(requests.Settle())
    async with running(tmp_path, date(2026, 12, 1)) as m:
        december = m.desk.terms["H100Z26"]
        rate = m.desk.instruments.by_code["H100Z26"].rate
        assert rate == 3_000_000 * 744 * december.spot_margin_percent // 100
        assert rate > before
    assert spot == 3_250_000 * 720 * 12 // 100  # November was in its delivery month already


async def test_a_product_without_a_price_level_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = changed("opened_months = 0 ", "opened_months = 1 ", "gb200.toml")
    monkeypatch.setattr(registry, "load", lambda: opened)
    with pytest.raises(RequestRefused, match="GB200X26 cannot be listed: GB200 has no price"):
        async with running(tmp_path):
            pass


async def test_a_product_with_a_level_opens_by_a_number_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = changed("opened_months = 0 ", "opened_months = 3 ", "mi300.toml")
    monkeypatch.setattr(registry, "load", lambda: opened)
    async with running(tmp_path) as m:
        codes = [c for c in m.desk.instruments.by_code if c.startswith("MI300")]
        assert codes == ["MI300X26", "MI300Z26", "MI300F27"]
        assert m.desk.instruments.by_code["MI300X26"].mark == 2_990_000


async def test_a_month_on_another_tick_opens_at_the_same_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = changed('tick = "0.001"', 'tick = "0.01"')
    monkeypatch.setattr(registry, "load", lambda: ticks)
    async with running(tmp_path) as m:
        listed = m.desk.instruments.by_code
        assert [listed[f"{code}X26"].mark for code in ("H100", "H200")] == [3_250_000, 4_470_000]
        assert (listed["H100Z26"].mark, listed["H100Z26"].low_ticks) == (3_220_000, 290)


@pytest.mark.parametrize(
    ("old", "new", "ticks"),
    [("price_step = 1 ", "price_step = 100 ", 100), ('tick = "0.001"', 'tick = "0.1"', 1)],
)
async def test_a_band_is_never_rounded_down_to_none(
    old: str, new: str, ticks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 % of $3.2 are less than a step of ten cents, and a band of 0 is none in the engine."""
    coarse = changed(old, new)
    monkeypatch.setattr(registry, "load", lambda: coarse)
    async with running(tmp_path) as m:
        listed = m.desk.instruments.by_code
        assert listed["H100Z26"].protections.band == ticks
        assert listed["A100Z26"].protections.band == 68  # 3 % of 2288


async def test_a_new_month_follows_the_one_before_it_wherever_the_market_went(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, date(2026, 11, 30)) as m:
        last = m.desk.instruments.by_code["H100V27"]
        await m.operations.perform(requests.Settle())
        await m.desk.perform([wishes.settle(last.code, last.id, 6_000_000, cycle=9)])
        await m.operations.perform(requests.OpenDay(date=20261201))
        listed = m.desk.instruments.by_code
        assert listed["H100X27"].mark == 5_952_000  # 0.8 % less
        assert listed["A100X27"].mark == round(last_of(m, "A100V27") * 0.995 / 1_000) * 1_000


def last_of(market: Market, code: str) -> int:
    """A month's last settlement price."""
    price = market.desk.instruments.by_code[code].settlement_price
    assert price is not None
    return price


async def test_a_day_opens_when_no_number_is_left_for_its_new_months(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listings, "_INSTRUMENTS_MAX", 50)
    async with running(tmp_path, date(2026, 11, 30)) as m:
        await m.operations.perform(requests.Settle())
        opened = await m.operations.perform(requests.OpenDay(date=20261201))
        assert (opened["opened"], list(m.desk.terms)[48:]) == (46, ["A100X27", "B200X27"])
    assert caplog.text.count("is not listed: no instrument has a number left") == 2


async def test_a_bad_file_starts_no_market_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> registry.Registry:
        return changed('tick = "0.001"', 'tick = "0"')

    monkeypatch.setattr(registry, "load", broken)
    with pytest.raises(RegistryError, match=r"lot\.tick = '0' must be a power of ten"):
        await Market.start(tmp_path / "market", clock=lambda: noon(TODAY))
    assert not (tmp_path / "market" / "log").exists()


async def test_a_day_that_no_calendar_knows_does_not_open(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        await m.operations.perform(requests.Settle())
        with pytest.raises(RequestRefused, match="calendar US knows 2025 to 2040"):
            await m.operations.perform(requests.OpenDay(date=20410102))
        assert (await m.operations.perform(requests.OpenDay(date=20261123)))["opened"] == 48


async def test_no_date_is_opened_by_a_slip_of_its_year_or_month(tmp_path: Path) -> None:
    """Any date may be the first; from then on at most a month is skipped."""
    async with running(tmp_path) as m:  # on Friday, 2026-11-20
        await m.operations.perform(requests.Settle())
        for slip in (20361123, 20261223, 99991231):
            with pytest.raises(RequestRefused, match=r"too far ahead|calendar US knows"):
                await m.operations.perform(requests.OpenDay(date=slip))
        assert m.desk.business_date == 20261120 and not m.desk.day_open
        assert (await m.operations.perform(requests.OpenDay(date=20261222)))["opened"] == 48


async def test_a_calendar_that_ends_in_a_year_is_told_of_each_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is listed by itself needs a year of it, what an operator may list two."""
    async with running(tmp_path, date(2038, 12, 29)) as m:
        assert m.desk.day_open and "no business date" not in caplog.text
        with pytest.raises(RequestRefused, match="calendar US knows 2025 to 2040, not 2041-01-01"):
            await m.operations.perform(requests.ListContract(code="H100PF39", price="3.25"))
        await m.operations.perform(requests.Settle())
        await m.operations.perform(requests.OpenDay(date=20381230))
        assert caplog.text.count("from a year from now on no business date can be opened") == 1
    assert len(registry.load().opening(date(2039, 12, 30))) == 48


def test_every_term_that_acts_is_in_the_listing() -> None:
    """What the operations ask of terms after listing, they ask of the log's, not of the files."""
    one = registry.load().instrument("H100Z26", TODAY)
    again = Instrument.from_json(one.to_json())
    day = date(2026, 12, 1)
    assert again == one
    assert again.limits(settlement_micros=3_000_000) == one.limits(settlement_micros=3_000_000)
    assert again.margin_rate(price_micros=1, on=day) == one.margin_rate(price_micros=1, on=day)


async def test_a_contract_whose_index_left_the_rules_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as m:
        rules = methodology.load()
        left = {code: index for code, index in rules.indices.items() if code != "HBX-H100"}
        changed_rules = msgspec.structs.replace(rules, indices=left)
        monkeypatch.setattr(methodology, "load", lambda: changed_rules)
        with pytest.raises(RequestRefused, match="settles on HBX-H100: no index 'HBX-H100'"):
            listed = m.desk.instruments.by_code["H100X26"]
            final_price(listed, m.desk.terms["H100X26"], m.clearing, now_ns=0)
