"""``hourbook goodput`` from roster to true-up, a table in the market's log, the pages' figures."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attested
import msgspec
import pytest
from attested import SECOND, roster, rules, site
from command import run
from live import market_in
from served import CHECKOUT

from benches import goodput as goodput_bench
from benches import mlperf, normalization
from contracts import grades
from contracts.goodput import events as ev
from contracts.goodput import keys, probe
from contracts.grades import measure, table
from contracts.grades import roster as rosters
from contracts.grades.schedule import schedule
from contracts.refusals import Refused
from exchange.app import Market, requests
from exchange.app.wishes import RequestRefused

DAY = 86_400 * SECOND
DAYS = schedule(attested.EXPIRY, rules())
PUBLISHED_NS = int(datetime(2026, 11, 16, 9, tzinfo=UTC).timestamp()) * SECOND
NOW = "2026-11-16T09:00:00"


def said(*arguments: object) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a roster of two sites and the drawn nodes' logs; beta is 15 % slower."""
    folder = tmp_path_factory.mktemp("fixing")
    made = roster(site("alpha"), site("beta"))
    (folder / "roster.json").write_bytes(attested.encoded(made))
    (folder / "alpha.bin").write_bytes(b"\xff")
    for (provider, _), names in rosters.draw(made, rules()).items():
        for name in names:
            level = 0.40 if provider == "alpha" else 0.34
            for number in range(3):
                at = attested.hour_of(made, name, number)
                log = attested.run(name, level, provider=provider, at=at)
                attested.write(folder / f"{name}-{number}.jsonl", log)
    return folder


def test_from_a_roster_to_a_true_up(inputs: Path, tmp_path: Path) -> None:
    logs, listed = sorted(inputs.glob("*.jsonl")), inputs / "roster.json"
    drawn = said("goodput", "draw", listed)
    assert drawn["schedule"]["published"] == "2026-11-16"
    out, key = tmp_path / "table.json", tmp_path / "factors.key"
    made = said("goodput", "factors", listed, *logs, "--now", NOW, "--out", out, "--key-file", key)
    assert [row["state"] for row in made["rows"]] == ["DELIVERABLE"] * 2
    assert key.stat().st_mode & 0o777 == 0o600
    checked = run("goodput", "factors", listed, *logs, "--now", NOW, "--check", out)
    assert checked.returncode == 0
    assert "to the byte" in checked.stdout
    both = run("goodput", "factors", listed, *logs, "--check", out, "--out", out)
    assert (both.returncode, "leave --out out" in both.stderr) == (2, True)
    for alone in (("--dispute", "node 9 was in repair"), ("--before", str(out))):
        draft = run("goodput", "factors", listed, *logs, "--now", NOW, *alone)
        assert (draft.returncode, "--before and --dispute go together" in draft.stderr) == (2, True)
    whole = ("--before", out, "--dispute", "node 9 was in repair")
    later = said("goodput", "factors", listed, *logs, "--now", NOW, *whole)
    assert (later["version"], later["dispute"]) == (2, "node 9 was in repair")
    binary = run("goodput", "publish", inputs / "alpha.bin", "--data", tmp_path)
    assert (binary.returncode, "not a factor table" in binary.stderr) == (1, True)
    other = run("goodput", "factors", listed, *logs[:-1], "--now", NOW, "--check", out)
    assert other.returncode == 1
    assert "these inputs make" in other.stderr
    offers = tmp_path / "offers.json"
    offers.write_text(json.dumps([
        {"provider": "alpha", "facility": "one", "price": "2.600"},
        {"provider": "beta", "facility": "one", "price": "2.500"},
        {"provider": "beta", "facility": "on", "price": "2.100"},
    ]))  # fmt: skip
    ranked = said("goodput", "cheapest", out, offers, "--price", "2.650")
    assert [place["provider"] for place in ranked["sites"]] == ["alpha", "beta"]
    assert ranked["left_out"] == ["beta/on"]  # a slip that would be the cheapest
    shown = run("goodput", "cheapest", out, offers, "--price", "2.650").stdout
    assert "left out, for want of a factor: beta/on" in shown
    offers.write_text('[{"provider": "gamma", "facility": "one", "price": "2.6"}]')
    nobody = run("goodput", "cheapest", out, offers, "--price", "2.650", "--json")
    assert (nobody.returncode, "no offer is of a site" in nobody.stderr) == (1, True)
    free = run("goodput", "cheapest", out, offers, "--price", "0")
    assert (free.returncode, "must be above zero" in free.stderr) == (1, True)
    month = tmp_path / "december.jsonl"
    attested.write(month, december(lost_hours=60))
    terms = ("goodput", "true-up", month, out, "--site", "alpha/one", "--price", "2.650")
    owed = said(*terms, "--lots", 64)
    assert owed["factor_e4"] == 10_000
    assert owed["invoice_cents"] == 265 * 744 * 64
    assert (owed["attested_hours"], owed["hours"]) == (744, 744)
    short = 1 - (684 / 744) / (made["rows"][0]["fixed_e4"] / 10_000) - 0.005
    assert owed["cents"] == pytest.approx(owed["invoice_cents"] * short, abs=2)
    beta = run(*terms[:5], "beta/one", *terms[6:], "--lots", 64)
    assert (beta.returncode, "UNKNOWN_NODE (2122)" in beta.stderr) == (1, True)
    nobody = run(*terms[:5], "alpha", *terms[6:], "--lots", 64)
    assert (nobody.returncode, "it has alpha/one, beta/one" in nobody.stderr) == (1, True)
    slashed = table.read(out.read_bytes())
    rows = [msgspec.structs.replace(row, provider=f"x/{row.provider}") for row in slashed.rows]
    slashed = table.sign(msgspec.structs.replace(slashed, rows=tuple(rows)), keys.load_key(key))
    (tmp_path / "slashed.json").write_bytes(msgspec.json.encode(slashed))
    attested.write(month, december(lost_hours=60, provider="x/alpha"))
    places = ("goodput", "true-up", month, tmp_path / "slashed.json", "--site", "x/alpha/one")
    assert said(*places, *terms[6:], "--lots", 64)["cents"] == owed["cents"]
    half = run(*terms, "--lots", 4)
    assert (half.returncode, "DELIVERY_UNIT (2130)" in half.stderr) == (1, True)
    attested.write(month, december(lost_hours=200))
    failed = run(*terms, "--lots", 64)
    assert (failed.returncode, "failure to deliver" in failed.stdout) == (1, True)


def test_an_import_that_is_refused_leaves_no_log(tmp_path: Path) -> None:
    where, records, out = (tmp_path / name for name in ("site.json", "records", "log"))
    where.write_bytes(msgspec.json.encode(
        {"node": "n1", "provider": "alpha", "challenge": attested.FIXING, "gpu_class": "H100-SXM",
         "gpus": attested.gpus_of("n1"), "workload": attested.work(tokens_per_step=1_000)}
    ))  # fmt: skip
    lines = [{"job_start_time": 1.0}, {"step_count": 0, "step_start_time": 9.0}]
    back = [*lines, {"step_count": 1, "step_start_time": 8.0}, {"job_end_time": 20.0}]
    records.write_bytes(msgspec.json.Encoder().encode_lines(back))
    terms = ("goodput", "import", records, where, out, "--key-file")
    for key in ("node.key", "node.key"):
        done = run(*terms, tmp_path / key)
        assert (done.returncode, "TIME_ORDER (2111)" in done.stderr) == (1, True)
    (tmp_path / "bad.key").write_text("zz")
    done = run(*terms, tmp_path / "bad.key")
    assert (done.returncode, "bad.key: SYNTAX (2101)" in done.stderr) == (1, True)
    (tmp_path / "words").write_text("step 1\n")
    for swapped, named in (((records, records), records), ((tmp_path / "words", where), "words")):
        done = run("goodput", "import", *swapped, out)
        assert (done.returncode, f"{named}: " in done.stderr) == (1, True)
    assert not out.exists()


def test_what_the_draw_cannot_be_of_is_named(tmp_path: Path) -> None:
    listed = tmp_path / "roster.json"
    for changes, reason in (({"expiry": "2041-05"}, 2125), ({"grade": "H100-POD"}, 2121)):
        listed.write_bytes(attested.encoded(roster(site("alpha"), **changes)))
        done = run("goodput", "draw", listed)
        assert (done.returncode, f"({reason})" in done.stderr) == (1, True)


def december(lost_hours: int, provider: str = "alpha") -> list[ev.Event]:
    """A month of a node that was gone for so many hours of it."""
    start = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * SECOND
    hour = 3600 * SECOND
    return [
        *attested.opening("alpha-00", at=start, provider=provider)[:2],
        ev.Disruption(start + 100 * hour, "hardware"),
        ev.Available(start + (100 + lost_hours) * hour),
        ev.Close(start + 744 * hour),
    ]


def test_a_refused_log_ends_in_one_line(inputs: Path, tmp_path: Path) -> None:
    log = sorted(inputs.glob("*.jsonl"))[0]
    damaged = tmp_path / "log"
    damaged.write_bytes(log.read_bytes().replace(b'"step":7', b'"step":8', 1))
    done = run("goodput", "compute", damaged)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "CHAIN_BROKEN (2106)" in done.stderr
    assert said("goodput", "compute", log)["lost_steps"] == 0
    assert "H100-NODE" in run("goodput", "grades").stdout


def test_two_logs_of_the_same_hours(tmp_path: Path) -> None:
    seller = attested.write(tmp_path / "seller", december(lost_hours=10))
    buyer = attested.write(tmp_path / "buyer", december(lost_hours=17))
    doubted = attested.write(tmp_path / "doubted", december(lost_hours=18))
    assert said("goodput", "compute", seller, "--against", buyer)["delivered_e4"] == 9_866
    done = run("goodput", "compute", seller, "--against", doubted)
    assert (done.returncode, "arbiter" in done.stderr) == (1, True)
    other = attested.write(tmp_path / "other", attested.job())
    done = run("goodput", "compute", seller, "--against", other)
    assert (done.returncode, "STALE (2109)" in done.stderr) == (1, True)


# The log of the market


def signed(folder: Path, version: int = 1, before: table.FactorTable | None = None) -> str:
    made = rosters.read((folder / "roster.json").read_bytes())
    grade = grades.load().grade(made.grade)
    logs = sorted(folder.glob("*.jsonl"))[: None if version == 1 else -1]
    runs = measure.measure(logs, made, grade, rules(), now_ns=PUBLISHED_NS)
    dispute = "" if before is None else "alpha: a node was in repair"
    found = table.make(made, runs, grade, rules(), before=before, dispute=dispute)
    return msgspec.json.encode(table.sign(found, attested.key_of("exchange"))).decode()


async def test_a_table_enters_the_log_once_and_survives_a_restart(
    inputs: Path, tmp_path: Path
) -> None:
    text = signed(inputs)
    first = table.read(text.encode())
    market = await Market.start(tmp_path, clock=lambda: PUBLISHED_NS)
    answer = await market.operations.perform(requests.RecordFactors(table=text))
    assert (answer["version"], answer["recorded_before"]) == (1, False)
    again = await market.operations.perform(requests.RecordFactors(table=text))
    assert again["recorded_before"]
    await market.stop()
    later = PUBLISHED_NS + DAY
    async with market_in(tmp_path, clock=lambda: later) as market:
        assert market.desk.factors["H100-NODE", "2026-12"] == text
        second = signed(inputs, 2, first)
        answer = await market.operations.perform(requests.RecordFactors(table=second))
        assert answer["version"] == 2
        assert market.desk.factors["H100-NODE", "2026-12"] == second
        other = msgspec.json.encode(table.sign(first, attested.key_of("another"))).decode()
        for refused, reason in (
            (second.replace('"version":2', '"version":3'), "WRONG_KEY"),
            (other, "WRONG_KEY"),
            (text, "FACTOR_VERSION"),
            ("{}", "SYNTAX"),
        ):
            with pytest.raises(RequestRefused, match=reason):
                await market.operations.perform(requests.RecordFactors(table=refused))


async def test_a_frozen_table_stays_out_of_the_log(inputs: Path, tmp_path: Path) -> None:
    frozen = int((DAYS.frozen - DAYS.published) / timedelta(days=1)) * DAY
    async with market_in(tmp_path, clock=lambda: PUBLISHED_NS + frozen) as market:
        sequence = market.desk.sequence
        with pytest.raises(RequestRefused, match="FROZEN"):
            await market.operations.perform(requests.RecordFactors(table=signed(inputs)))
        assert market.desk.sequence == sequence


# The probe


@pytest.mark.skipif(
    find_spec("torch") is None, reason="torch is an optional extra: hourbook[probe]"
)
def test_the_probe_measures_this_machine(tmp_path: Path) -> None:
    out = tmp_path / "probe.json"
    found = said("goodput", "probe", "--rounds", 2, "--node", "here", "--out", out,
                 "--key-file", tmp_path / "node.key")  # fmt: skip
    assert found["matmul_flops"] == min(device["matmul_flops"] for device in found["devices"]) > 0
    assert found["tokens_a_second"] > 0
    report = msgspec.json.decode(out.read_bytes(), type=probe.ProbeReport)
    assert keys.verify(report.key, keys.REPORT, report.content, report.signature)
    better = msgspec.structs.replace(report, matmul_flops=report.matmul_flops + 1)
    assert not keys.verify(report.key, keys.REPORT, better.content, report.signature)
    if report.kind == "cpu":
        assert report.mfu_e4 is None


def test_the_probe_of_a_node_that_has_no_name(tmp_path: Path) -> None:
    done = run("goodput", "probe", "--node", "a b", "--key-file", tmp_path / "node.key")
    assert (done.returncode, "SYNTAX (2101): not a node's name" in done.stderr) == (1, True)


def _report(**changes: Any) -> probe.ProbeReport:
    """What a probe of two devices might have found."""
    slow, fast = (
        probe.Device(identity=f"GPU-{n}", name="NVIDIA H100 80GB HBM3", gpu_class="H100-SXM",
                     matmul_flops=n * 10**14, matmul_share_e4=1_000 * n, tokens_a_second=100 * n,
                     mfu_e4=400 * n)
        for n in (5, 6)
    )  # fmt: skip
    found = probe.ProbeReport(
        schema=probe.SCHEMA, node="node-1", at_ns=1_795_000_000 * 10**9, kind="cuda", torch="2.4",
        precision="bf16", rounds=9, size=probe.GPU_SIZE, devices=(fast, slow),
        matmul_flops=5 * 10**14, tokens_a_second=500, mfu_e4=2_000,
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def _signed(report: probe.ProbeReport, key: keys.SigningKey) -> dict[str, Any]:
    signature = key.sign(keys.REPORT, report.content)
    signed = msgspec.structs.replace(report, key=key.public, signature=signature)
    return dict(msgspec.json.decode(msgspec.json.encode(signed)))


def test_a_probes_report_is_verified_by_whoever_gets_it(tmp_path: Path) -> None:
    file, key, other = tmp_path / "probe.json", *map(keys.SigningKey, (b"k" * 32, b"o" * 32))
    good = _signed(_report(), key)
    file.write_bytes(msgspec.json.encode(good))
    assert said("goodput", "check-probe", file, "--key", key.public.upper()) == good
    shown = run("goodput", "check-probe", file).stdout
    assert "600.000   0.6000       600  0.2400" in shown and f"signed {key.public}" in shown
    wrong = run("goodput", "check-probe", file, "--key", other.public)
    assert (wrong.returncode, "WRONG_KEY (2105)" in wrong.stderr) == (1, True)
    assert run("goodput", "check-probe", tmp_path / "none").returncode == 3
    bad = {
        b"{}": "VERSION", b"[]": "SYNTAX", b"\xff": "SYNTAX",
        msgspec.json.encode({**good, "node": "node-2"}): "WRONG_KEY",
        msgspec.json.encode({**good, "key": other.public}): "WRONG_KEY",
        msgspec.json.encode({**good, "schema": 2}): "VERSION",
        msgspec.json.encode({**good, "signature": ""}): "UNSIGNED",
        msgspec.json.encode({**good, "unsigned": 1}): "SYNTAX",
        msgspec.json.encode(_signed(_report(matmul_flops=6 * 10**14), key)): "SYNTAX",
        msgspec.json.encode(_signed(_report(devices=()), key)): "SYNTAX",
        msgspec.json.encode(_signed(_report(mfu_e4=None), key)): "SYNTAX",
        msgspec.json.encode(_signed(_report(at_ns=-1), key)): "SYNTAX",
        msgspec.json.encode(_signed(_report(at_ns=1 << 80), key)): "SYNTAX",
        msgspec.json.encode(_signed(_report(torch="2.4\nsigned by others"), key)): "SYNTAX",
        msgspec.json.encode(_signed(_report(node="node-1\n"), key)): "SYNTAX",
    }  # fmt: skip
    whole = tuple(msgspec.structs.replace(one, matmul_share_e4=10_001) for one in _report().devices)
    bad[msgspec.json.encode(_signed(_report(devices=whole), key))] = "MFU_RANGE"
    for data, name in bad.items():
        with pytest.raises(Refused) as refused:
            probe.check(data)
        assert refused.value.reason.name == name


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is here")
def test_without_torch_the_probe_says_what_to_install(tmp_path: Path) -> None:
    done = run("goodput", "probe", "--key-file", tmp_path / "node.key")
    assert (done.returncode, "hourbook[probe]" in done.stderr) == (3, True)


# The bench and the pages


def test_the_bench_of_a_small_log() -> None:
    decode, computed = goodput_bench.rows(5_000, 1)
    assert (decode.name, computed.name) == ("goodput.decode", "goodput.compute")
    assert computed.ratio is not None
    assert decode.value > 0


def test_the_how_to_writes_a_log(tmp_path: Path) -> None:
    page = (CHECKOUT / "docs" / "howto" / "attest-a-node.md").read_text()
    (block,) = re.findall(r"(?ms)^```py\n(.*?)^```$", page)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(CHECKOUT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "9999" in done.stdout or "10000" in done.stdout


def test_the_page_says_what_the_data_say(shared: Path) -> None:
    page = (CHECKOUT / "docs" / "concepts" / "normalization.md").read_text()
    rows = {row.name: row.value for row in normalization.rows(shared / "data", None)}
    table_rows = {
        "no factor": "no_factor", "the class's peak": "peak", "peak and cluster": "peak_and_size",
        "class and cluster": "class_and_size", "**the model**": "model",
        "the model, all": "model_any_class",
    }  # fmt: skip
    for start, name in table_rows.items():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {start}")]
        for kind in ("rms", "median"):
            assert f"{rows[f'mlperf.{name}.{kind}']:.1f}" in line, (name, kind)
    for unit in ("node of 8 GPUs", "cluster of 64", "cluster of 512"):
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {unit}")]
        for kind in ("charged", "failed", "true_up"):
            name = unit.replace(" ", "_")
            assert f"{rows[f'faults.{name}.{kind}']:.1f} %" in line
    stated = {
        "faults.fleet_month_mean": 1, "faults.fleet_month_least": 1, "prices.spread": 0,
        "faults.node_months_without_loss": 1, "mlperf.same_class_and_size.sd": 1,
        "mlperf.same_class_and_size.robust_sd": 1, "prices.most_explained": 1,
        "prices.spread_without_hyperscalers": 0, "prices.usually_explained": 1,
        "prices.most_explained_without_hyperscalers": 1, "prices.matched_spread": 1,
        "prices.usually_explained_without_hyperscalers": 1, "mlperf.submitter_sd": 1,
        "prices.matched_spread_normalized": 1, "mlperf.llama31_405b.rms": 1,
        "mlperf.chosen_on_4.0.rms": 1, "mlperf.chosen_on_4.1.rms": 1, "mlperf.chosen_on_5.0.rms": 1,
    }  # fmt: skip
    for name, decimals in stated.items():
        assert f"{rows[name]:.{decimals}f}" in page, name
    assert rows["mlperf.results"] == 110


def test_the_model_was_chosen_without_the_last_round(shared: Path) -> None:
    """Whatever the last round holds, the search sees the same."""
    results = mlperf.load(shared / "data")
    known = results.only(results.round != mlperf.LAST)
    assert len(known) < len(results)
    assert mlperf.search(results, 1, 0) == mlperf.search(known, 1, 0)
