"""The tape in two times, a month's final settlement price, and the index at the command line.

Budget: 10 seconds.
"""

import fcntl
import json
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from command import hourbook
from hypothesis import given, settings
from hypothesis import strategies as st
from index_panel import (
    BASE_DAYS,
    CODE,
    SELLERS,
    batch,
    changed,
    day,
    flat,
    spread_out,
)

from contracts.calendar import Month
from contracts.decimal_text import format_price
from contracts.index import methodology as rules
from contracts.index.anchors import AnchorTable
from contracts.index.fixing import Fixing, State
from contracts.index.methodology import Index, digest
from contracts.index.observations import Batch, Observation, read
from contracts.index.run import end_ns, fix_through, recompute, reproduce, revise, unfounded
from contracts.index.settlement import FinalPrice, MonthIncomplete, Step, final_price
from contracts.index.tape import FOREVER_NS, Capture, Tape, TapeError
from exchange.app import requests, wishes
from exchange.cli.access import operate
from exchange.cli.output import Failure

NOW = BASE_DAYS
LATER_NS = end_ns(day(NOW + 5))


def panel(days: int = NOW + 2) -> list[Observation]:
    return flat(spread_out(9), range(days))


def a_tape() -> Tape:
    last = day(NOW + 1)
    return fix_through(
        Tape(), rules.load(), batch(panel()), [CODE], last, recorded_ns=end_ns(last)
    )[0]


def revised(tape: Tape, factor: float = 0.8, at: int = LATER_NS, name: str = "better") -> Tape:
    better = {seller: price * factor for seller, price in spread_out(9).items()}
    again = batch(flat(better, [NOW]), name)
    return revise(tape, rules.load(), again, [CODE], day(NOW), recorded_ns=at)[0]


def always(made: Batch) -> Callable[[int], Batch]:
    return lambda _: made


def test_a_revision_stands_beside_what_it_revises() -> None:
    tape = a_tape()
    longer = revised(tape)
    assert longer.encode().startswith(tape.encode())
    first, second = (fixing for _, fixing in longer.revisions(CODE, day(NOW)))
    assert (first.state, first.revision, first.price_micros) == (State.PUBLISHED, 0, 2_880_000)
    assert (second.state, second.revision, second.price_micros) == (State.REVISED, 1, 2_304_000)
    assert longer.fixing(CODE, day(NOW), LATER_NS - 1) == first
    assert longer.fixing(CODE, day(NOW), LATER_NS) == second
    assert longer.fixing(CODE, day(NOW), end_ns(day(NOW + 1)) - 1) is None, "not known yet"
    after = longer.fixing(CODE, day(NOW + 1))
    assert after == tape.fixing(CODE, day(NOW + 1)), "later days are as they were"


def test_a_revision_may_withhold() -> None:
    thin = batch(flat(spread_out(2), [NOW]), "thin")
    grown, (fixing,) = revise(a_tape(), rules.load(), thin, [CODE], day(NOW), recorded_ns=LATER_NS)
    assert (fixing.state, fixing.revision, fixing.price_micros) == (State.WITHHELD, 1, None)
    assert grown.fixing(CODE, day(NOW), LATER_NS - 1) != fixing


def test_a_day_without_anchors_looks_back_no_further_than_anchors_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An index that never begins, for want of sellers, tries again on each of its days."""
    index = rules.load().index(CODE)
    looked, fixing = 0, Tape.fixing

    def counted(tape: Tape, code: str, on: date, known_ns: int = FOREVER_NS) -> Fixing | None:
        nonlocal looked
        looked += 1
        return fixing(tape, code, on, known_ns)

    monkeypatch.setattr(Tape, "fixing", counted)
    many = index.anchor_days + 40
    seen = batch(flat(spread_out(3), range(many)))
    last = day(many - 1)
    tape, _ = fix_through(Tape(), rules.load(), seen, [CODE], last, recorded_ns=end_ns(last))
    assert tape.tables(CODE) == [] and len(tape.days(CODE)) == many
    assert looked == sum(min(n, index.anchor_days) for n in range(many))


def test_anchors_once_made_are_frozen() -> None:
    tape = a_tape()
    (table,) = tape.tables(CODE)
    assert revised(tape).tables(CODE) == [table]
    with pytest.raises(TapeError, match="frozen"):
        tape.append(table, LATER_NS)


def test_a_tape_reads_back_and_nothing_on_it_runs_backwards() -> None:
    tape = revised(a_tape())
    again = Tape.decode(tape.encode())
    assert (again.head, again.encode()) == (tape.head, tape.encode())
    known = [recorded.recorded_ns for recorded in again]
    assert all(before <= after for before, after in pairwise(known))
    fixing = again.fixing(CODE, day(NOW))
    assert fixing is not None
    with pytest.raises(TapeError, match="before the entry before it"):
        again.append(msgspec.structs.replace(fixing, revision=2), LATER_NS - 1)
    with pytest.raises(TapeError, match="has 2 revisions"):
        again.append(fixing, LATER_NS)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_tape_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    content = bytearray(a_tape().encode())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TapeError):
        Tape.decode(bytes(content))


def test_every_number_is_given_again_by_its_inputs() -> None:
    tape, methodology = revised(a_tape()), rules.load()
    for recorded in tape:
        fixing = recorded.entry
        if isinstance(fixing, Fixing) and fixing.published:
            table = tape.table(CODE, fixing.date)
            assert table is not None
            assert recompute(fixing, methodology.indices[CODE], table) == fixing.price_micros
    better = {seller: price * 0.8 for seller, price in spread_out(9).items()}
    other = {seller: 3.0 for seller in SELLERS[:9]}
    for made, differ in (
        (batch(panel()), []),
        (batch(flat(better, [NOW]), "better"), []),
        (batch(flat(other, range(NOW + 2))), ["entries 1 to 18"]),
    ):
        again = reproduce(tape, methodology, made.file_hash, always(made))
        assert again == (1, 0, differ)
    named = msgspec.structs.replace(methodology, gpus=methodology.gpus | {"h300"})
    for other_rules in (changed(clip_bp=200), named):
        hidden = reproduce(tape, other_rules, made.file_hash, always(made))
        assert hidden == (0, 1, []), "what other rules fixed is not held against these"


CHECKOUT = Path(__file__).parents[1]


def forged(tape: Tape, index: Index, up: int = 500_000_000) -> Fixing:
    """A revision of the tape's last day: votes of no file, and the price that follows from them."""
    last = tape.fixing(CODE, tape.days(CODE)[-1])
    assert last is not None
    table = tape.table(CODE, last.date)
    assert table is not None
    votes = tuple(msgspec.structs.replace(vote, log=vote.log + up) for vote in last.votes)
    made = msgspec.structs.replace(last, revision=1, state=State.REVISED, votes=votes)
    return msgspec.structs.replace(made, price_micros=recompute(made, index, table))


def test_a_fixing_that_follows_from_no_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chain, its votes and its price agree with each other; only no capture has them."""
    monkeypatch.chdir(tmp_path)
    csv_file(tmp_path / "march.csv", range(NOW + 2))
    fix = ("index", "fix", "march.csv", "--date", f"{day(NOW + 1)}", "--index", CODE)
    hourbook(*fix)
    path = tmp_path / "index.tape"
    tape = Tape.decode(path.read_bytes())
    assert unfounded(tape) == []
    proof = json.loads(hourbook("index", "verify", "--json"))
    assert (proof["captures_without_their_file"], proof["differ"]) == (1, [])
    made = forged(tape, index())
    tape.append(made, tape.recorded_ns)
    path.write_bytes(tape.encode())
    assert len(unfounded(tape)) == 1
    assert "entry 19" in hourbook("index", "verify", code=1)
    proof = hourbook("index", "verify", "march.csv", code=1)
    assert "2 parts of the tape" in proof
    alone = Tape()
    alone.append(msgspec.structs.replace(made, revision=0), 0)
    assert len(unfounded(alone)) == 1, "before any capture"


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        (Capture, b'"indices":["HBX-H100"]', b'"indices":[]'),
        (Capture, b'"2026-03-01":', b'"20260301":'),
        (Capture, b'"2026-03-01":', b'"noday":'),
        (Capture, b'"coreweave":"', b'"coreweave":"x'),
        (AnchorTable, b'"scale":', b'"scale":1000000000'),
        (AnchorTable, b'"weight":', b'"weight":-'),
        (Fixing, b'"log":', b'"log":1000000000'),
        (Fixing, b'"influence_bp":', b'"influence_bp":1000000000'),
    ],
)
def test_a_tape_of_impossible_figures_is_refused_though_its_chain_is_whole(
    kind: type, old: bytes, new: bytes
) -> None:
    content, head = b"", ""
    for recorded in a_tape():
        raw = msgspec.json.encode(recorded.entry)
        if isinstance(recorded.entry, kind):
            raw = raw.replace(old, new)
        own = digest(f"{recorded.number} {recorded.recorded_ns} {head}".encode(), raw).hex()
        whole = (recorded.number, recorded.recorded_ns, head, msgspec.Raw(raw), own)
        content, head = content + msgspec.json.encode(whole) + b"\n", own
    with pytest.raises(TapeError, match=r"line 1?[0-9] of the tape"):
        Tape.decode(content)


# The ladder of a final settlement price

MONTH = Month(2026, 4)


def month_tape(prices: list[int | None]) -> Tape:
    """A tape with a fixing of every day of the month: a price, or withheld."""
    tape = Tape()
    for number, price in enumerate(prices):
        on = date(2026, 4, number + 1)
        fixing = Fixing(
            index=CODE,
            date=on,
            revision=0,
            state=State.WITHHELD if price is None else State.PUBLISHED,
            reason="PROVIDERS" if price is None else "",
            price_micros=price,
            votes=(),
            rules_hash="",
            inputs_hash=f"{number:02x}",
            methodology_version="1.0",
        )
        tape.append(fixing, end_ns(on))
    return tape


def settled(prices: list[int | None], market: tuple[int, ...] = ()) -> FinalPrice:
    return final_price(index(), MONTH, month_tape(prices), market)


def index() -> Index:
    return rules.load().indices[CODE]


@pytest.mark.parametrize(
    ("published", "market", "step", "price"),
    [
        (30, 0, Step.MEAN, 2_500_000),
        (30, 7, Step.MEAN, 2_500_000),
        (20, 0, Step.MEAN, 2_500_000),
        (19, 5, Step.SHORT_MEAN, 2_500_000),
        (10, 0, Step.SHORT_MEAN, 2_500_000),
        (9, 5, Step.MARKET_MEAN, 3_000_003),
        (0, 7, Step.MARKET_MEAN, 3_000_005),
        (9, 4, Step.UNDETERMINED, None),
        (0, 0, Step.UNDETERMINED, None),
    ],
)
def test_a_month_settles_by_the_ladder(
    published: int, market: int, step: Step, price: int | None
) -> None:
    prices = [2_500_000] * published + [None] * (30 - published)
    ours = tuple(3_000_001 + n for n in range(market))
    final = settled(prices, ours)
    assert (final.step, final.price_micros) == (step, price)
    unused = step in (Step.MEAN, Step.SHORT_MEAN)
    assert (final.inputs_hash == settled(prices).inputs_hash) == (unused or not ours)
    assert (final.published_days, len(final.withheld)) == (published, 30 - published)


@pytest.mark.parametrize(
    ("prices", "mean"),
    [
        ([2_000_000] * 15 + [2_000_001] * 15, 2_000_000),  # a half, to the even one
        ([2_000_001] * 15 + [2_000_002] * 15, 2_000_002),
        ([2_000_000] * 14 + [2_000_001] * 16, 2_000_001),
        ([2_000_000] * 10 + [2_000_001] * 10 + [None] * 10, 2_000_000),
        ([1] * 29 + [10**12], 33_333_333_334),
    ],
)
def test_a_final_price_is_rounded_once_half_to_even(prices: list[int | None], mean: int) -> None:
    assert settled(prices).price_micros == mean


def test_a_month_with_a_day_unfixed_does_not_settle() -> None:
    with pytest.raises(MonthIncomplete, match="2026-04-30; 1 of the 30 days of 2026-04 lack"):
        settled([2_500_000] * 29)


def test_a_day_known_after_the_cut_counts_as_it_was_known_first() -> None:
    """Nothing could be known by the cut any more: the contract would never end."""
    tape = month_tape([2_500_000] * 30)
    known = tape.fixing(CODE, date(2026, 4, 10))
    assert known is not None
    cut_ns = final_price(index(), MONTH, tape).cut_ns
    late = month_tape([2_500_000] * 29)
    for number, price in enumerate((3_100_000, 9_000_000)):
        last = msgspec.structs.replace(
            known, date=date(2026, 4, 30), revision=number, price_micros=price
        )
        late.append(last, cut_ns + 86_400 * 10**9 * (number + 1))
        assert final_price(index(), MONTH, late).price_micros == 2_520_000
    with pytest.raises(MonthIncomplete, match="2026-04-30 that was known then"):
        final_price(index(), MONTH, late, cut_ns=cut_ns)


def test_a_revision_after_the_cut_changes_no_settlement() -> None:
    tape = month_tape([2_500_000] * 30)
    before = final_price(index(), MONTH, tape)
    known = tape.fixing(CODE, date(2026, 4, 10))
    assert known is not None
    again = msgspec.structs.replace(
        known, revision=1, state=State.REVISED, price_micros=2_800_000, inputs_hash="ff"
    )
    in_time = Tape.decode(tape.encode())
    in_time.append(again, before.cut_ns)
    tape.append(again, before.cut_ns + 1)
    assert final_price(index(), MONTH, tape) == before
    moved = final_price(index(), MONTH, in_time)
    assert moved.price_micros == 2_510_000
    assert moved.inputs_hash != before.inputs_hash
    assert final_price(index(), MONTH, tape, cut_ns=before.cut_ns + 1).price_micros == 2_510_000


# The log of a market


def test_a_fixing_becomes_a_record_with_the_hash_of_its_inputs() -> None:
    facts = {"index": CODE, "date": 20260801, "inputs_hash": "ab" * 32, "tape_hash": "cd" * 32}
    published = requests.RecordFixing(**facts, state="PUBLISHED", price="3.203183")  # type: ignore[arg-type]
    wish = wishes.record_fixing(published)
    command = wish.command
    assert (command.price, command.quantity, command.account) == (3_203_183, 20260801, 0)
    assert command.target_lo == command.target_hi == int("ab" * 8, 16)
    assert json.loads(wish.text)["inputs_hash"] == "ab" * 32
    withheld = requests.RecordFixing(**facts, state="WITHHELD", reason="PROVIDERS")  # type: ignore[arg-type]
    same_day = wishes.record_fixing(withheld).command
    assert (same_day.key_lo, same_day.key_hi) == (command.key_lo, command.key_hi)


@pytest.mark.parametrize(
    "wrong",
    [
        {"price": ""},
        {"price": "-1"},
        {"price": "0"},
        {"price": "1e3"},
        {"state": "WITHHELD"},
        {"inputs_hash": "xy"},
        {"inputs_hash": "ab"},
        {"tape_hash": "ab" * 33},
        {"date": 20260230},
        {"revision": -1},
        {"index": "\u00e9"},
    ],
)
def test_a_record_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    facts: dict[str, object] = {
        "index": CODE,
        "date": 20260801,
        "state": "PUBLISHED",
        "price": "3.2",
        "inputs_hash": "ab" * 32,
        "tape_hash": "cd" * 32,
    }
    with pytest.raises(wishes.RequestRefused):
        wishes.record_fixing(requests.RecordFixing(**facts | wrong))  # type: ignore[arg-type]


# The command line


def csv_file(path: Path, days: range, factor: float = 1.0) -> None:
    lines = ["provider,gpu,kind,usd_hr,fetched_at"]
    lines += [
        f"{name},h100-sxm,on-demand,{price * factor:.6f},{day(n)}T06:00:00Z"
        for n in days
        for name, price in spread_out(9).items()
    ]
    path.write_text("\n".join(lines))


def test_the_command_line_fixes_shows_verifies_and_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    csv_file(tmp_path / "march.csv", range(NOW + 2))
    csv_file(tmp_path / "better.csv", range(NOW, NOW + 1), 0.9)
    on, last = f"{day(NOW)}", f"{day(NOW + 1)}"
    only = ("--index", CODE)
    fixed = hourbook("index", "fix", "march.csv", "--date", last, *only, "--json")
    assert [f["price_micros"] for f in json.loads(fixed)["fixings"][-2:]] == [2_880_000] * 2
    again = hourbook("index", "fix", "march.csv", "--date", last, *only, code=1)
    assert again.startswith("hourbook: march.csv: REPLAYED (2202)")
    hourbook("index", "fix", "better.csv", "--date", on, *only, "--revise")
    table = hourbook("index", "show", CODE)
    assert "REVISED  2.592000" in table and "PUBLISHED  2.880000" in table
    both = json.loads(hourbook("index", "show", CODE, "--date", on, "--json"))
    assert [one["fixing"]["revision"] for one in both] == [0, 1]
    assert "nebius" in hourbook("index", "show", CODE, "--date", on)
    files = ("march.csv", "better.csv")
    proof = json.loads(hourbook("index", "verify", *files, "--json"))
    assert (proof["recomputed"], proof["files_run_again"], proof["differ"]) == (3, 2, [])
    for price in ("--market=-1.0", "--market=0"):
        assert "above zero" in hourbook("index", "settle", CODE, "2026-03", price, code=2)
    early = hourbook("index", "settle", CODE, "2026-03", code=1)
    assert "no fixing of 2026-03-17; 15 of the 31 days" in early
    assert "2026-03-17" in hourbook(
        "index", "settle", CODE, "2026-03", "--known", "2099-01-01", code=1
    )
    assert "no fixing of 2026-03-01 that was known then" in hourbook(
        "index", "settle", CODE, "2026-03", "--known", "2026-04-01", code=1
    )
    assert "not a month" in hourbook("index", "show", CODE, "--month", "2026-0", code=2)
    assert "no such fixing" in hourbook("index", "show", CODE, "--month", "2026-04", code=1)
    hourbook("admin", "deposit", "1", "5", "--data", "market")
    record = ("index", "record", CODE, "--date", on, "--data", "market", "--json")
    first, second = (json.loads(hourbook(*record)) for _ in range(2))
    assert (first["recorded_before"], second["recorded_before"]) == (False, True)
    facts = {"index": CODE, "date": int(on.replace("-", "")), "revision": 1}
    facts |= {"inputs_hash": "ab" * 32, "tape_hash": "ab" * 32}
    other = requests.RecordFixing(**facts, state="REVISED", price="9.99")  # type: ignore[arg-type]
    with pytest.raises(Failure, match="DUPLICATE_DIFFERENT"):
        operate(other, tmp_path / "market")
    damaged = (tmp_path / "index.tape").read_bytes().replace(b"PUBLISHED", b"PUBLISHEd", 1)
    (tmp_path / "index.tape").write_bytes(damaged)
    assert "line 17 of the tape" in hourbook("index", "show", CODE, code=3)


def test_a_file_is_verified_by_the_clock_it_was_captured_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in the future then is rejected again; what is no file of prices is refused."""
    monkeypatch.chdir(tmp_path)
    csv_file(tmp_path / "march.csv", range(NOW))
    csv_file(tmp_path / "next.csv", range(NOW, NOW + 1))
    for on, file in ((day(NOW - 1), "march.csv"), (day(NOW), "next.csv")):
        monkeypatch.setattr("time.time_ns", lambda on=on: end_ns(on))
        if on == day(NOW - 1):
            with (tmp_path / file).open("a") as late:
                late.write(f"\nvultr,h100-sxm,on-demand,2.5,{day(NOW)}T00:06:00Z")
        hourbook("index", "fix", file, "--date", f"{on}", "--index", CODE, "--index", CODE)
    assert "FUTURE" in (tmp_path / "index.tape").read_text()
    proof = json.loads(hourbook("index", "verify", "march.csv", "next.csv", "--json"))
    assert (proof["files_run_again"], proof["differ"]) == (2, [])
    assert "no tape typo" in hourbook("index", "verify", "--tape", "typo", code=3)
    (tmp_path / "other.csv").write_text("no prices")
    assert "the tape has no capture" in hourbook("index", "verify", "other.csv", code=1)


def test_a_price_is_final_once_no_revision_can_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = tmp_path / "april"
    tape.write_bytes(month_tape([2_500_000] * 30).encode())
    settle = ("index", "settle", CODE, "2026-04", "--tape", str(tape), "--json")
    cut_ns = end_ns(date(2026, 4, 30)) + index().settlement.revision_hours * 3_600 * 10**9
    for now_ns, final in ((cut_ns - 1, False), (cut_ns, True)):
        monkeypatch.setattr("time.time_ns", lambda now_ns=now_ns: now_ns)
        found = json.loads(hourbook(*settle))
        assert (found["price"], found["final"]) == ("2.500000", final)
    assert not json.loads(hourbook(*settle, "--known", "2026-06-01"))["final"]


def test_two_writers_of_one_tape_wait_for_each_other(tmp_path: Path) -> None:
    csv_file(tmp_path / "march.csv", range(2))
    tape, fix = tmp_path / "t", ("index", "fix", str(tmp_path / "march.csv"), "--date", f"{day(1)}")
    with (tmp_path / "t.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another command is writing" in hourbook(*fix, "--tape", str(tape), code=3)
    assert not tape.exists()
    hourbook(*fix, "--tape", str(tape))
    before = tape.read_bytes()
    absent = ("index", "fix", str(tmp_path / "none.csv"), "--date", f"{day(1)}")
    assert "no file" in hourbook(*absent, "--tape", str(tape), code=3)
    assert tape.read_bytes() == before


def test_no_day_is_withheld_for_columns_interchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be closed for the next day too, and a revision does not open it."""
    monkeypatch.chdir(tmp_path)
    csv_file(tmp_path / "march.csv", range(2))
    rows = (tmp_path / "march.csv").read_text()
    head, rest = rows.split("\n", 1)
    (tmp_path / "other.csv").write_text(f"{head.replace('provider,gpu', 'gpu,provider')}\n{rest}")
    said = hourbook("index", "fix", "other.csv", "--date", f"{day(1)}", code=1)
    assert "EMPTY (2207)" in said and "18 rejected, line 2 for UNKNOWN_PROVIDER 'h100-sxm'" in said
    assert not (tmp_path / "index.tape").exists()
    hourbook("index", "fix", "march.csv", "--date", f"{day(1)}")
    csv_file(tmp_path / "later.csv", range(2, 4))
    revise = ("--date", f"{day(1)}", "--revise")
    said = hourbook("index", "fix", "later.csv", *revise, code=1)
    assert "(limit an observation of 2026-03-02, seen 2026-03-03 to 2026-03-04)" in said


def test_a_tape_behind_a_link_grows_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else there were two tapes from then on, each with a chain of its own."""
    monkeypatch.chdir(tmp_path)
    csv_file(tmp_path / "march.csv", range(2))
    (tmp_path / "kept").mkdir()
    link, own = tmp_path / "index.tape", tmp_path / "kept" / "own.tape"
    link.symlink_to(own)
    fix = ("index", "fix", "march.csv", "--index", CODE, "--date")
    for number, tape in enumerate((link, own)):
        hourbook(*fix, f"{day(number)}", "--tape", str(tape))
    assert link.is_symlink() and Tape.decode(own.read_bytes()).days(CODE) == [day(0), day(1)]
    assert sorted(file.name for file in own.parent.iterdir()) == ["own.tape", "own.tape.lock"]


def test_the_command_line_shows_the_rules() -> None:
    listed = hourbook("index", "rules")
    assert CODE in listed and "2027-01-15" in listed
    facts = json.loads(hourbook("index", "rules", CODE, "--json"))
    iosco = {"administrator", "methodology_version", "data_sufficiency", "input_hierarchy",
             "transition_policy", "cessation", "conflicts", "complaints", "review_date",
             "change_notice_days", "retention_years"}  # fmt: skip
    assert iosco <= facts.keys()
    assert facts["gates"]["effective_tenths"] == {"enter": 60, "keep": 50}
    assert "there are HBX-A100" in hourbook("index", "rules", "GOLD", code=1)


# Real quotes


def test_the_real_panel_gives_the_documented_fixings(shared: Path) -> None:
    """Prices by gpurentalprices.com, CC BY 4.0; the page shows these figures."""
    content = (shared / "data" / "gpurentalprices_ccby.csv").read_bytes()
    last = date(2026, 8, 22)
    taken = read(content, now_ns=end_ns(last), methodology=rules.load())
    codes = sorted(rules.load().indices)
    _, fixings = fix_through(Tape(), rules.load(), taken, codes, last, recorded_ns=end_ns(last))
    page = (CHECKOUT / "docs" / "reference" / "index-methodology.md").read_text()
    for code in codes:
        own = [fixing for fixing in fixings if fixing.index == code]
        counts = [
            sum(1 for fixing in own if fixing.state is state)
            for state in (State.PUBLISHED, State.FALLBACK, State.WITHHELD)
        ]
        price = own[-1].price_micros
        shown = "withheld" if price is None else f"${format_price(price, 6)}"
        cells = [code, *(str(count) for count in counts), shown]
        assert f"| {' | '.join(cells)} |" in page, cells
        for fixing in own:
            assert not fixing.published or fixing.gates["influence_bp"] <= 150


def test_a_fixing_carries_the_hash_of_the_rules_it_was_made_by() -> None:
    methodology = changed(clip_bp=200)
    _, (*_, fixing) = fix_through(
        Tape(), methodology, batch(panel()), [CODE], day(NOW), recorded_ns=LATER_NS
    )
    assert fixing.rules_hash == methodology.rules_hash(CODE).hex()
    assert fixing.rules_hash != rules.load().rules_hash(CODE).hex()
