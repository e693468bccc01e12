"""Bad input to the normalization: an input for every reason, each a named refusal."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import attested
import msgspec
import pytest
from attested import SECOND, START, roster, rules, site

from contracts import goodput, grades
from contracts.calendar import Month, delivery_period
from contracts.goodput import events as ev
from contracts.goodput import importer, keys
from contracts.goodput.events import Event
from contracts.grades import Jurisdiction, eligibility, measure, table
from contracts.grades import roster as rosters
from contracts.grades.delivery import check_log, true_up
from contracts.grades.roster import Roster
from contracts.refusals import Refusal, Refused, RefusedAll

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "attestation.md"
DAY = 86_400 * SECOND
NOW = attested.window_start() + 31 * DAY
MADE = roster(site("alpha"), site("beta"))
NODES = rosters.draw(MADE, rules())["alpha", "one"]
NODE = NODES[0]

Attempt = Callable[[Path], object]
CASES: list[tuple[Refusal, str, Attempt]] = []


def case(reason: Refusal, name: str) -> Callable[[Attempt], Attempt]:
    def register(attempt: Attempt) -> Attempt:
        CASES.append((reason, name, attempt))
        return attempt

    return register


def good(**options: Any) -> list[Event]:
    return attested.run(NODE, at=attested.hour_of(MADE, NODE), **options)


def computed(folder: Path, events: list[Event]) -> object:
    return goodput.compute(attested.write(folder / "log", events))


def rewritten(folder: Path, change: Callable[[bytes], bytes], count: int = 20) -> object:
    """The account of a sound log whose bytes were changed."""
    path = attested.write(folder / "log", attested.job(count=count))
    path.write_bytes(change(path.read_bytes()))
    return goodput.compute(path, key=attested.key_of("n1").public)


def measured(folder: Path, events: list[Event], *, made: Roster = MADE, now: int = NOW) -> object:
    path = attested.write(folder / "log", events)
    grade = grades.load().grade(made.grade)
    return measure.measure([path], made, grade, rules(), now_ns=now)


case(Refusal.SYNTAX, "no JSON")(
    lambda f: rewritten(f, lambda b: b.replace(b'{"type":"job_end"', b'{"type""job_end"'))
)
case(Refusal.SYNTAX, "an unknown event")(
    lambda f: rewritten(f, lambda b: b.replace(b'"job_end"', b'"job_fin"'))
)
case(Refusal.SYNTAX, "an unknown field")(
    lambda f: rewritten(f, lambda b: b.replace(b'"step":1}', b'"stop":1}'))
)
case(Refusal.SYNTAX, "negative time")(
    lambda f: rewritten(f, lambda b: b.replace(b'"at":17', b'"at":-7', 1))
)
case(Refusal.SYNTAX, "a fraction of a step")(
    lambda f: rewritten(f, lambda b: b.replace(b'"step":1}', b'"step":1.5}'))
)
case(Refusal.SYNTAX, "a name that ends in a line feed")(
    lambda f: rewritten(f, lambda b: b.replace(b'"driver":"unknown"', b'"driver":"unknown\\n"'))
)
case(Refusal.SYNTAX, "a site's name that ends in a line feed")(
    lambda f: rosters.read(
        attested.encoded(MADE).replace(b'"facility":"one"', b'"facility":"one\\n"', 1)
    )
)
case(Refusal.SYNTAX, "a fixing's hash that ends in a line feed")(
    lambda f: rosters.read(
        attested.encoded(msgspec.structs.replace(MADE, fixing=MADE.fixing + "\n"))
    )
)
case(Refusal.SYNTAX, "a pickle")(lambda f: rewritten(f, lambda b: b"\x80\x04K\x01.\n" + b))
case(Refusal.VERSION, "another schema")(
    lambda f: computed(f, [msgspec.structs.replace(good()[0], schema=2), *good()[1:]])
)
case(Refusal.VERSION, "another benchmark than par's")(
    lambda f: measured(f, good(workload=attested.work(benchmark_version="2")))
)
case(Refusal.VERSION, "another model than the benchmark's")(
    lambda f: measured(f, good(workload=attested.work(sequence_length=8192)))
)
case(Refusal.VERSION, "more tokens than the benchmark's")(
    lambda f: measured(f, good(workload=attested.work(tokens_per_step=262_152)))
)
case(Refusal.TOO_LARGE, "an endless line")(
    lambda f: rewritten(f, lambda b: b"[" + b" " * (ev.LINE_BYTES_MAX + 1) + b"\n" + b)
)
case(Refusal.TOO_LARGE, "a line padded with blanks")(
    lambda f: rewritten(f, lambda b: b"{" + b" " * ev.LINE_BYTES_MAX + b[1:])
)
case(Refusal.UNSIGNED, "no seal")(lambda f: rewritten(f, lambda b: b[: b.index(b'{"type":"seal"')]))
case(Refusal.UNSIGNED, "an empty file")(lambda f: rewritten(f, lambda b: b""))
case(Refusal.UNSIGNED, "a draft table")(
    lambda f: table.read(
        msgspec.json.encode(table.make(MADE, [], grades.load().grade(MADE.grade), rules()))
    )
)
case(Refusal.WRONG_KEY, "signed by another node")(
    lambda f: goodput.compute(
        attested.write(f / "log", good()), key=attested.key_of("another").public
    )
)
case(Refusal.WRONG_KEY, "a signature of something else")(
    lambda f: rewritten(f, lambda b: re.sub(rb'"signature":"..', b'"signature":"00', b))
)
case(Refusal.CHAIN_BROKEN, "a line changed after sealing")(
    lambda f: rewritten(f, lambda b: b.replace(b'"driver":"unknown"', b'"driver":"renamed"'))
)
case(Refusal.CHAIN_BROKEN, "a line left out")(
    lambda f: rewritten(f, lambda b: b.replace(b.splitlines(keepends=True)[7], b""))
)


@case(Refusal.SEGMENT_SHORT, "a signature over too little")
def short_segment(folder: Path) -> object:
    from contracts.goodput.log import Recorder  # noqa: PLC0415

    events = attested.job(count=20)
    with (folder / "log").open("wb") as file:
        recorder = Recorder(file, attested.key_of("n1"))
        for event in events[:9]:
            recorder.record(event)
        recorder.seal()
        for event in events[9:]:
            recorder.record(event)
        recorder.close()
    return goodput.compute(folder / "log")


@case(Refusal.SEGMENT_SHORT, "a signature over nothing")
def empty_segment(folder: Path) -> object:
    from contracts.goodput.log import chain, signed_content  # noqa: PLC0415

    key, path = attested.key_of("n1"), attested.write(folder / "log", attested.job(count=994))
    content = path.read_bytes()  # 1,000 events
    before = msgspec.json.decode(content.splitlines()[-1], type=ev.Seal)
    for number in (1, 2):
        digest = chain(bytes.fromhex(before.digest), b"")
        signature = key.sign(keys.SEGMENT, signed_content(number, digest))
        before = ev.Seal(number, 0, digest.hex(), signature)
        content += msgspec.json.encode(before) + b"\n"
    path.write_bytes(content)
    return goodput.compute(path)


@case(Refusal.SYNTAX, "a key that is none")
def no_key(folder: Path) -> object:
    (folder / "node.key").write_text("")
    return keys.load_key(folder / "node.key")


@case(Refusal.SYNTAX, "a step without its number")
def no_step_count(folder: Path) -> object:
    records = [{"job_start_time": 1.0}, {"step_start_time": 2.0}]
    named = {"node": "n1", "provider": "alpha", "challenge": attested.FIXING, "gpus": ["G"]}
    where = {**named, "gpu_class": "H100-SXM", "workload": msgspec.to_builtins(attested.work())}
    return importer.records_to_events(records, msgspec.convert(where, importer.Site), "ab" * 32)


case(Refusal.CLOCK_FUTURE, "a clock that is ahead")(
    lambda f: measured(f, good(), now=attested.window_start())
)
case(Refusal.STALE, "older than the window")(
    lambda f: measured(f, attested.run(NODE, at=attested.window_start() - DAY))
)
case(Refusal.REPLAYED, "made for another fixing")(lambda f: measured(f, good(challenge="ab" * 32)))


@case(Refusal.REPLAYED, "one log twice")
def twice(folder: Path) -> object:
    paths = [attested.write(folder / name, good()) for name in ("a", "b")]
    return measure.measure(paths, MADE, grades.load().grade(MADE.grade), rules(), now_ns=NOW)


@case(Refusal.TIME_ORDER, "two logs of one moment")
def overlapping(folder: Path) -> object:
    first, second, _ = (attested.hour_of(MADE, NODE, number) for number in range(3))
    long = (second - first) // SECOND + 60
    logs = [attested.run(NODE, at=at, seconds=long) for at in (first, second)]
    paths = [attested.write(folder / str(n), log) for n, log in enumerate(logs)]
    return measure.measure(paths, MADE, grades.load().grade(MADE.grade), rules(), now_ns=NOW)


case(Refusal.TIME_ORDER, "time goes back")(
    lambda f: computed(f, [*good()[:6], msgspec.structs.replace(good()[6], at=START), *good()[7:]])
)
case(Refusal.TIME_ORDER, "negative hours of a delivery")(lambda f: owed(lost_ns=-1))
case(Refusal.STEP_ORDER, "a step left out")(lambda f: computed(f, [*good()[:6], *good()[7:]]))
case(Refusal.STATE, "a resume of nothing")(
    lambda f: computed(f, [*good()[:4], ev.Resume(good()[3].at, 0), *good()[4:]])
)
case(Refusal.UNKNOWN_GPU, "a class not in the table")(
    lambda f: computed(f, good(gpu_class="H100-PCIE"))
)
case(Refusal.UNKNOWN_GPU, "a GPU not pledged")(
    lambda f: measured(f, good(gpus=tuple(f"GPU-new-{n}" for n in range(8))))
)


def refitted(folder: Path, count: int, gpu_class: str = "H100-SXM") -> object:
    """A job whose node names other hardware after the tenth step."""
    events = good()
    named = ev.Hardware(events[13].at, NODE, gpu_class, attested.gpus_of(NODE, count))
    return computed(folder, [*events[:14], named, *events[14:]])


case(Refusal.GPU_COUNT, "more GPUs on the way")(lambda f: refitted(f, 16))
case(Refusal.UNKNOWN_GPU, "another class on the way")(lambda f: refitted(f, 8, "B200-HGX"))
case(Refusal.UNKNOWN_PRECISION, "a precision the class has not")(
    lambda f: computed(f, good(workload=attested.work(precision="fp4")))
)
case(Refusal.SPARSE_PEAK, "a sparse peak by name")(
    lambda f: computed(f, good(workload=attested.work(precision="bf16-sparse")))
)
case(Refusal.GPU_COUNT, "more GPUs than the job owns up to")(
    lambda f: computed(f, good(gpus=attested.gpus_of(NODE, 16)))
)


@case(Refusal.GPU_TWICE, "one GPU pledged by two nodes")
def pledged_twice(folder: Path) -> object:
    made = site("beta")
    stolen = msgspec.structs.replace(made.nodes[0], gpus=attested.gpus_of("alpha-00"))
    double = roster(site("alpha"), msgspec.structs.replace(made, nodes=(stolen, *made.nodes[1:])))
    return rosters.read(attested.encoded(double))


case(Refusal.GPU_TWICE, "another node's GPUs instead of the drawn one's")(
    lambda f: measured(f, good(gpus=attested.gpus_of(next(n for n in NODES if n != NODE))))
)
case(Refusal.GPU_TWICE, "another site's GPU in a log")(
    lambda f: measured(f, good(gpus=attested.gpus_of("beta-00")))
)


def told_by_two(folder: Path, apart: int) -> object:
    """Two drawn nodes' runs on the GPUs of both; the second begins so many seconds after the end of
    the first."""
    drawn = [(attested.hour_of(MADE, node), node) for node in NODES]
    (first, one), (second, other) = sorted(drawn)[:2]
    shared = (*attested.gpus_of(one), *attested.gpus_of(other))
    large = attested.work(gpus=16, tokens_per_step=2 * attested.work().tokens_per_step)
    spans = ((one, first, (second - first) // SECOND - apart), (other, second, 1_300))
    paths = []
    for node, at, seconds in spans:
        log = attested.run(node, at=at, seconds=seconds, gpus=shared, workload=large)
        paths.append(attested.write(folder / node, log))
    return measure.measure(paths, MADE, grades.load().grade(MADE.grade), rules(), now_ns=NOW)


case(Refusal.GPU_TWICE, "one job told by two nodes")(lambda f: told_by_two(f, -60))


def test_a_job_after_another_on_the_same_gpus_is_its_own(tmp_path: Path) -> None:
    found = told_by_two(tmp_path, 60)
    assert isinstance(found, list) and len(found) == 2


case(Refusal.GPU_TWICE, "one GPU twice on a node")(
    lambda f: computed(f, good(gpus=(*attested.gpus_of(NODE, 7), f"GPU-{NODE}-0")))
)
case(Refusal.GOODPUT_RANGE, "more delivered than there was")(lambda f: owed(fixed_e4=10_001))
case(Refusal.GOODPUT_RANGE, "more lost than there was")(lambda f: owed(lost_ns=2 * DAY))
case(Refusal.MFU_RANGE, "utilization above one")(lambda f: computed(f, good(mfu=1.01)))
case(Refusal.MFU_RANGE, "more active parameters than there are")(
    lambda f: computed(f, good(workload=attested.work(active_parameters=8 * 10**9)))
)
case(Refusal.UNKNOWN_GRADE, "no such grade")(lambda f: grades.load().grade("H100-POD"))
case(Refusal.UNKNOWN_NODE, "a node of nobody")(
    lambda f: measured(f, attested.run("stranger", at=attested.window_start() + DAY))
)
case(Refusal.UNKNOWN_NODE, "another provider's name")(lambda f: measured(f, good(provider="beta")))


@case(Refusal.NOT_DRAWN, "a node that the draw left out")
def not_drawn(folder: Path) -> object:
    drawn = rosters.draw(MADE, rules())["alpha", "one"]
    (left, *_) = (node.node for node in MADE.sites[0].nodes if node.node not in drawn)
    return measured(folder, attested.run(left, at=attested.window_start() + DAY))


case(Refusal.NOT_DRAWN, "an hour that the draw left out")(
    lambda f: measured(f, attested.run(NODE, at=attested.hour_of(MADE, NODE) + 3600 * SECOND))
)


def idle_after(steps: int) -> list[Event]:
    """A run of so many good steps, whose log stays open for as long as a whole run."""
    whole = good()
    kept, last = whole[: 4 + steps], whole[-1].at
    return [*kept, ev.JobEnd(kept[-1].at), ev.Close(last)]


case(Refusal.TIME_ORDER, "a run that idled after its best steps")(
    lambda f: measured(f, idle_after(3))
)
case(Refusal.TIME_ORDER, "a run whose later steps were not preserved")(
    lambda f: measured(f, [*good()[:-2], ev.Checkpoint(good()[-3].at, 3), good()[-1]])
)
case(Refusal.TIME_ORDER, "a run that was stopped early")(
    lambda f: measured(f, attested.run(NODE, at=attested.hour_of(MADE, NODE), seconds=1_100))
)
case(Refusal.PROVIDER_TWICE, "a provider's site twice")(
    lambda f: rosters.read(attested.encoded(roster(site("alpha"), site("alpha"))))
)


def draft() -> table.FactorTable:
    return table.make(MADE, [], grades.load().grade(MADE.grade), rules())


def publication(**changes: int) -> object:
    """Publish a draft so many days after its day, with what is said changed."""
    made, grade = draft(), grades.load().grade(MADE.grade)
    before = made if changes.get("later") else None
    if before is not None:
        made = msgspec.structs.replace(made, version=2, replaces=before.digest)
    today = made.schedule.published + timedelta(changes.get("days", 0))
    grade = msgspec.structs.replace(grade, par_mfu_e4=changes.get("par", grade.par_mfu_e4))
    table.check_publication(made, before, rules(), grade, today)
    return made


case(Refusal.RULES_CHANGED, "another par after listing")(lambda f: publication(par=3_900))
case(Refusal.RULES_CHANGED, "a month beyond the calendar")(
    lambda f: (
        rosters.draw(MADE, rules())
        and rosters.hours(roster(site("alpha"), expiry="2041-05"), site("alpha"), NODE, rules())
    )
)


def row_of(**changes: Any) -> object:
    """Publish a table of one site, its row twice if ``twice``."""
    made, often = draft(), 1 + changes.pop("twice", 0)
    row = msgspec.structs.replace(made.rows[0], factor_e4=10_000, **changes)
    made = msgspec.structs.replace(made, rows=(row,) * often)
    return publish(made)


def publish(made: table.FactorTable) -> object:
    grade = grades.load().grade(MADE.grade)
    table.check_publication(made, None, rules(), grade, made.schedule.published)
    return made


case(Refusal.GOODPUT_RANGE, "a site without goodput to compare with")(lambda f: row_of(fixed_e4=0))
case(Refusal.PROVIDER_TWICE, "two factors of one site")(lambda f: row_of(twice=1))


@case(Refusal.PROVIDER_TWICE, "two sites that are written alike")
def alike(folder: Path) -> object:
    other = msgspec.structs.replace(site("x"), provider="a", facility="b/c")
    return rosters.read(attested.encoded(roster(site("a/b", facility="c"), other)))


case(Refusal.FACTOR_VERSION, "a version of another expiry's table")(
    lambda f: table.make(
        roster(site("alpha"), expiry="2027-01"), [], grades.load().grade(MADE.grade), rules(),
        before=draft(),
    )
)  # fmt: skip
case(Refusal.FROZEN, "a table after the freeze")(lambda f: publication(days=7))
case(Refusal.DISPUTE_CLOSED, "a new version without a dispute")(lambda f: publication(later=1))
case(Refusal.FACTOR_BOUNDS, "a site without a factor")(
    lambda f: draft().factor_of("alpha", "one", version=1)
)
case(Refusal.FACTOR_VERSION, "another version's factor")(
    lambda f: draft().factor_of("alpha", "one", version=9)
)
case(Refusal.DELIVERY_UNIT, "half a node")(lambda f: grades.load().grade("H100-NODE").check_lots(4))


def ineligible(**changes: Any) -> object:
    found = eligibility.faults(site("alpha", 1, **changes), grades.load().grade("H100-NODE"))
    raise found[0]


case(Refusal.FORM_FACTOR, "a card for a slot")(lambda f: ineligible(form_factor="PCIe"))
case(Refusal.FABRIC, "no such fabric")(lambda f: ineligible(fabric="ethernet"))
case(Refusal.CLUSTER_SIZE, "too small")(lambda f: ineligible(gpus=4))


@case(Refusal.CLUSTER_SIZE, "a log of another tier")
def other_tier(folder: Path) -> object:
    made = msgspec.structs.replace(MADE, grade="H100-C64")
    node = rosters.draw(made, rules())["alpha", "one"][0]
    log = attested.run(node, at=attested.hour_of(made, node))
    return measured(folder, log, made=made)


case(Refusal.TENANCY, "shared")(lambda f: ineligible(tenancy="shared"))
case(Refusal.SERVICE_LEVEL, "promises too little")(lambda f: ineligible(availability_e4=1))


@case(Refusal.REGION, "elsewhere")
def elsewhere(folder: Path) -> object:
    grade = msgspec.structs.replace(grades.load().grade("H100-NODE"), regions=("us",))
    raise eligibility.faults(site("alpha", 1), grade)[0]


@case(Refusal.JURISDICTION, "a denied consignee")
def denied(folder: Path) -> object:
    on = Jurisdiction(enabled=True, denied_countries=("XA",))
    consignee = eligibility.Consignee(country="XA", parent_country="XA")
    raise eligibility.may_receive(consignee, "H100-SXM", 8, on)[0]


@pytest.mark.parametrize(
    ("provider", "month", "reason"),
    [("beta", "2026-12", Refusal.UNKNOWN_NODE), ("alpha", "2027-01", Refusal.STALE)],
)
def test_a_true_up_is_of_the_sellers_own_month(
    provider: str, month: str, reason: Refusal, tmp_path: Path
) -> None:
    start = int(delivery_period(Month(2026, 12))[0].timestamp()) * SECOND
    log = attested.write(tmp_path / "log", attested.job(at=start))
    account = goodput.compute(log).account
    check_log(account, "alpha", Month(2026, 12))
    with pytest.raises(Refused) as caught:
        check_log(account, provider, Month.parse(month))
    assert caught.value.reason is reason


def owed(**changes: int) -> object:
    terms = {
        "price_micros": 1, "hours": 24, "lots": 8, "factor_e4": 10_000, "fixed_e4": 9_750,
        "lost_ns": 0, "elapsed_ns": DAY,
    }  # fmt: skip
    return true_up(**{**terms, **changes}, rules=rules())


@pytest.mark.parametrize(
    ("reason", "name", "attempt"),
    CASES,
    ids=[f"{r.name}-{n.replace(' ', '_')}" for r, n, _ in CASES],
)
def test_bad_input_is_refused_by_name(
    reason: Refusal, name: str, attempt: Attempt, tmp_path: Path
) -> None:
    with pytest.raises((Refused, RefusedAll)) as caught:
        attempt(tmp_path)
    refused = caught.value
    first = refused.faults[0] if isinstance(refused, RefusedAll) else refused
    assert isinstance(first, Refused)
    assert first.reason is reason, str(refused)
    assert str(first).count(f"{reason.name} ({reason.value})") == 1


def test_every_reason_has_a_case_and_a_line_in_the_docs() -> None:
    assert {reason for reason, _, _ in CASES} == set(Refusal)
    page = PAGE.read_text()
    for reason in Refusal:
        assert re.search(rf"(?m)^\| {reason.value} \| {reason.name} \|", page), reason


def test_the_numbers_are_frozen() -> None:
    assert [reason.value for reason in Refusal] == list(range(2101, 2101 + len(Refusal)))
    assert (Refusal.SYNTAX, Refusal.UNSIGNED, Refusal.MFU_RANGE) == (2101, 2104, 2120)
    assert (Refusal.NOT_DRAWN, Refusal.FROZEN, Refusal.JURISDICTION) == (2123, 2126, 2137)


def test_the_sound_log_is_taken(tmp_path: Path) -> None:
    """What the cases spoil is sound before they do."""
    assert isinstance(measured(tmp_path, good()), list)
    path = attested.write(tmp_path / "log", good())
    assert goodput.compute(path, key=attested.key_of(NODE).public.upper()) == goodput.compute(path)
    assert rosters.read(attested.encoded(MADE)) == MADE
    assert publication() == draft()
    assert refitted(tmp_path, 8)


def test_the_goodput_reports_of_the_bad_inputs(shared: Path) -> None:
    """B99 and the feed of B103: each of their flaws is a case above."""
    cases = json.loads((shared / "vectors" / "bad_inputs.json").read_text())["cases"]
    found = {case["id"]: case["input"] for case in cases}
    flaws = {
        "older than the contract window": (Refusal.STALE, "older than the window"),
        "utilisation above 1": (Refusal.MFU_RANGE, "utilization above one"),
        "negative hours": (Refusal.TIME_ORDER, "negative hours of a delivery"),
        "unsigned": (Refusal.UNSIGNED, "no seal"),
        "provider twice": (Refusal.PROVIDER_TWICE, "a provider's site twice"),
    }
    known = {(reason, name) for reason, name, _ in CASES}
    for words, wanted in flaws.items():
        assert words in found["B99"]
        assert wanted in known
    assert "far in the future" in found["B103"]
    assert (Refusal.CLOCK_FUTURE, "a clock that is ahead") in known
    assert "pickle" in found["B97"]
    assert (Refusal.SYNTAX, "a pickle") in known
