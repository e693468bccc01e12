"""The index's bench measures what its page says, and its rows are the page's figures.

Budget: 15 seconds.
"""

import json
import re
from functools import partial
from pathlib import Path

from index_panel import day, spread_out

from benches import index, index_manipulation, index_panel, index_speed
from benches.index_manipulation import CHOSEN, ESTIMATORS, MEMORY, draw, manipulation, point
from contracts.index import methodology as rules

CHECKOUT = Path(__file__).parents[1]
FIRST_OF_APRIL = 31  # the attacked month begins after the index has
PAGE = CHECKOUT / "docs" / "reference" / "index-methodology.md"
TABLE = {
    "mean": "mean",
    "trimmed mean, 10 %": "trimmed_10",
    "trimmed mean, 25 %": "trimmed_25",
    "median": "median",
    "mean after a 3-sigma screen": "screened_mean",
    "chained changes, capped at 5 % a day": "chained_5",
    "chained, 3 %": "chained_3",
    "chained, 1 %": "chained_1",
    "chained median of changes": "chained_median",
    "anchored, clipped at 10 %": "anchored_10",
    "anchored, 5 %": "anchored_5",
    "anchored, 3 %": "anchored_3",
    "anchored, 1 %": "anchored_1",
    "anchored median": "anchored_median",
}
COLUMNS = (
    "moved", "moved_by_two", "behind_sudden", "behind_staggered", "behind_slow", "never_arrives",
    "noise",
)  # fmt: skip


def recorded() -> dict[str, float]:
    """The last recorded value of every row of the index's bench."""
    lines = (CHECKOUT / "benches" / "history.jsonl").read_text().splitlines()
    entries = (json.loads(line) for line in lines)
    return {e["name"]: e["value"] for e in entries if e["workload"] in ("index", "panel")}


def test_the_chosen_rule_is_moved_less_than_a_capped_chain_and_follows_sooner() -> None:
    chosen, chain, levels = (point(name, 9, 2) for name in (CHOSEN, "chained_3", "mean"))
    assert chosen.moved.any_way < chain.moved.any_way / 3 < levels.moved.any_way / 3
    assert chosen.follow.sudden < 0.01 < chain.follow.sudden
    assert chosen.follow.staggered < chain.follow.staggered / 3
    assert chosen.follow.missing < 0.05 < chain.follow.missing


def test_the_bench_attacks_what_the_rules_say() -> None:
    """Its clip is the shipped one, and a lone leap moves by weight x clip where quotes stand."""
    clips = {index.clip_bp for index in rules.load().indices.values()}
    assert clips == {300} and CHOSEN == "anchored_3"
    still = draw(9, 1, 1).repeat(MEMORY + 30, axis=0)
    moved = manipulation(ESTIMATORS[CHOSEN], still, MEMORY)
    assert abs(moved.leap - 0.03 / 9) < 2e-5


def test_the_page_shows_the_recorded_curve() -> None:
    values, page = recorded(), PAGE.read_text()
    for title, name in TABLE.items():
        row = re.search(rf"^\| \**{re.escape(title)}\** \|(.*)\|$", page, re.MULTILINE)
        assert row is not None, title
        cells = [cell.strip(" *%") for cell in row[1].split("|")]
        assert len(cells) == len(COLUMNS)
        for column, cell in zip(COLUMNS, cells, strict=True):
            value = values[f"{name}.{column}"]
            decimals = len(cell.partition(".")[2])
            assert float(cell) == abs(round(value, decimals)), (title, column, value)
    for title, column in (("moved by one", "moved"), ("by two together", "moved_by_two")):
        row = re.search(rf"^\| {title} \|(.*)\|$", page, re.MULTILINE)
        assert row is not None
        for providers, cell in zip((3, 4, 5, 6, 9, 12, 18), row[1].split("|"), strict=True):
            number = cell.strip(" %")
            decimals = len(number.partition(".")[2])
            value = values[f"anchored_3.of_{providers}.{column}"]
            assert float(number) == round(value, decimals), (title, providers)
    for code in ("HBX-A100", "HBX-B200", "HBX-H100", "HBX-H200"):
        keys = ("index.noise", "median.noise", "mean.noise", "index.moved", "chained_3.moved",
                "mean.moved", "median.moved")  # fmt: skip
        row = re.search(rf"^\| {code} \| ([0-9.]+ %.*) \|$", page, re.MULTILINE)
        assert row is not None
        for key, cell in zip(keys, row[1].split("|"), strict=True):
            number = cell.strip(" %")
            decimals = len(number.partition(".")[2])
            assert float(number) == round(values[f"{code}.{key}"], decimals), (code, key)


def test_the_speed_bench_fixes_what_it_reads() -> None:
    read, fix = index_speed.rows(count=40_000, rounds=1)
    assert (read.name, fix.name) == ("index.read", "index.fix")
    assert fix.ratio is not None and fix.ratio_to == "the time of index.read"


def test_the_panel_bench_runs_the_attack_through_the_index(tmp_path: Path) -> None:
    lines = ["provider,gpu,kind,usd_hr,fetched_at"]
    lines += [
        f"{name},h100-sxm,on-demand,{price},{day(number)}T06:00:00Z"
        for number in range(FIRST_OF_APRIL + 4)
        for name, price in spread_out(9).items()
    ]
    panel = tmp_path / "panel.csv"
    panel.write_text("\n".join(lines))
    rows = {row.name: row.value for row in index_panel.rows(panel)}
    assert 0.3 < rows["panel.HBX-H100.index.moved"] < 0.34
    assert rows["panel.HBX-H100.mean.moved"] > 2
    assert not any("HBX-A100" in name for name in rows), "withheld every day"


def test_the_bench_prints_rows(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(index_manipulation, "ESTIMATORS", {CHOSEN: ESTIMATORS[CHOSEN]})
    monkeypatch.setattr(index_manipulation, "PANELS", (6,))
    monkeypatch.setattr(index_speed, "rows", partial(index_speed.rows, 40_000, 1))
    assert index.main(["--json", "--seeds", "1"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"index.anchored_3.moved", "index.anchored_3.of_6.moved", "index.fix"} <= {
        row["name"] for row in rows
    }
