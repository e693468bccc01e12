"""What an observation file may not be, and when days may not be fixed: each a named refusal.

Budget: 8 seconds.
"""

import re
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_panel import (
    BASE_DAYS,
    CODE,
    FIRST,
    SELLERS,
    batch,
    day,
    flat,
    moment_ns,
    observed,
    spread_out,
)

from contracts.index import methodology as rules
from contracts.index import observations
from contracts.index.observations import FileRefusal, RefusedFile, Screen, read
from contracts.index.run import RefusedRun, RunRefusal, end_ns, fix_through, revise
from contracts.index.tape import Tape, TapeError

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "index-methodology.md"
NOW_NS = moment_ns(date(2026, 8, 1))
HEAD = "date,provider,gpu,kind,usd_hr,fetched_at,currency"
GOOD = "2026-08-01,lambda,h100-sxm,on-demand,3.99,2026-08-01T05:44:34.628Z,USD"


def fields(**changes: str) -> str:
    """A good row with some fields changed."""
    row = dict(zip(HEAD.split(","), GOOD.split(","), strict=True)) | changes
    return ",".join(row.values())


def read_rows(*rows: str, head: str = HEAD) -> observations.Batch:
    content = "\n".join([head, *rows]).encode()
    return read(content, now_ns=NOW_NS, methodology=rules.load())


REJECTED = [
    ("NaN", fields(usd_hr="NaN"), Screen.PRICE),
    ("infinity", fields(usd_hr="-inf"), Screen.PRICE),
    ("exponent", fields(usd_hr="3e0"), Screen.PRICE),
    ("no price", fields(usd_hr=""), Screen.PRICE),
    ("words", fields(usd_hr="on request"), Screen.PRICE),
    ("digits that are not ASCII", fields(usd_hr="\u0663.9"), Screen.PRICE),
    ("thirteen digits", fields(usd_hr="1000000000000"), Screen.PRICE),
    ("zero", fields(usd_hr="0"), Screen.NONPOSITIVE),
    ("negative", fields(usd_hr="-3.99"), Screen.NONPOSITIVE),
    ("rounds to zero", fields(usd_hr="0.0000004"), Screen.NONPOSITIVE),
    ("more than a million dollars", fields(usd_hr="1000000.000001"), Screen.PRICE_RANGE),
    ("euros", fields(currency="EUR"), Screen.CURRENCY),
    ("no currency", fields(currency=""), Screen.CURRENCY),
    ("unknown seller", fields(provider="acme"), Screen.UNKNOWN_PROVIDER),
    ("seller of another case", fields(provider="Lambda"), Screen.UNKNOWN_PROVIDER),
    ("unknown class", fields(gpu="h100-sxm9"), Screen.UNKNOWN_CLASS),
    ("unknown kind", fields(kind="reserved"), Screen.UNKNOWN_KIND),
    ("far in the future", fields(fetched_at="2062-01-01T00:00:00Z"), Screen.FUTURE),
    ("beyond the year 9999", fields(fetched_at="9999-12-31T23:59:59-23:59"), Screen.FUTURE),
    ("no zone", fields(fetched_at="2026-08-01T05:44:34"), Screen.TIME),
    ("no time", fields(fetched_at="yesterday"), Screen.TIME),
    ("no date", fields(date="2026-02-30"), Screen.TIME),
    ("a date in another form", fields(date="20260801"), Screen.TIME),
    ("a date by its week", fields(date="2026-W31-6"), Screen.TIME),
    ("before the year 1", fields(fetched_at="0001-01-01T00:00:00+23:59"), Screen.TIME),
]


@pytest.mark.parametrize(("row", "screen"), [r[1:] for r in REJECTED], ids=[r[0] for r in REJECTED])
def test_an_unfit_observation_is_rejected_by_itself(row: str, screen: Screen) -> None:
    taken = read_rows(row, GOOD)
    assert [(r.line, r.screen) for r in taken.rejected] == [(2, screen)]
    assert len(taken.observations) == 1


def test_the_same_observation_twice_counts_once() -> None:
    taken = read_rows(GOOD, GOOD, fields(usd_hr="3.990"), fields(usd_hr="4.00"))
    assert [(r.line, r.screen) for r in taken.rejected] == [
        (3, Screen.DUPLICATE),
        (4, Screen.DUPLICATE),
    ]
    assert [o.price_micros for o in taken.observations] == [3_990_000, 4_000_000]


def test_sixteen_digits_round_once_half_to_even() -> None:
    texts = ("3.9492000000000003", "0.0000025", "0.0000035", "9.796550569")
    taken = read_rows(*(fields(usd_hr=text) for text in texts))
    assert [o.price_micros for o in taken.observations] == [3_949_200, 2, 4, 9_796_551]


REFUSED: list[tuple[str, bytes, FileRefusal]] = [
    ("not UTF-8", HEAD.encode() + b"\n\xff", FileRefusal.NOT_TEXT),
    ("a NUL", (HEAD + "\n" + GOOD + "\0").encode(), FileRefusal.NOT_TEXT),
    ("nothing", b"", FileRefusal.HEADER),
    ("no header", GOOD.encode(), FileRefusal.HEADER),
    ("a column missing", b"provider,gpu,kind,usd_hr\n", FileRefusal.HEADER),
    ("an unknown column", (HEAD + ",mood\n").encode(), FileRefusal.HEADER),
    ("a column twice", (HEAD + ",date\n").encode(), FileRefusal.HEADER),
    ("a header alone", (HEAD + "\n").encode(), FileRefusal.EMPTY),
    ("a row too short", f"{HEAD}\n{GOOD}\nlambda".encode(), FileRefusal.ROW_FORM),
    ("a row too long", f"{HEAD}\n{GOOD},x".encode(), FileRefusal.ROW_FORM),
    ("an endless field", f"{HEAD}\n{fields(kind='x' * 600)}".encode(), FileRefusal.ROW_FORM),
    ("an open quote", f'{HEAD}\n{GOOD}\n"lambda'.encode(), FileRefusal.ROW_FORM),
    ("a blank line", f"{HEAD}\n\n{GOOD}".encode(), FileRefusal.ROW_FORM),
]


@pytest.mark.parametrize(
    ("content", "refusal"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_a_file_of_another_form_is_refused_whole(content: bytes, refusal: FileRefusal) -> None:
    with pytest.raises(RefusedFile) as refused:
        read(content, now_ns=NOW_NS, methodology=rules.load())
    assert refused.value.refusal is refusal


def test_a_file_has_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "ROWS_MAX", 1)
    with pytest.raises(RefusedFile, match=r"ROWS \(2206\)"):
        read_rows(GOOD, fields(usd_hr="4"))
    monkeypatch.setattr(observations, "FILE_BYTES_MAX", 10)
    with pytest.raises(RefusedFile, match=r"FILE_TOO_LARGE \(2201\).*limit 10"):
        read_rows(GOOD)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_in_a_file_it_is_read_or_refused(data: st.DataObject) -> None:
    """Bytes of a good file changed, fields put in the place of others: never another error."""
    odd = [
        "",
        "\x00",
        '"',
        "9" * 400,
        "-0",
        "\u0663",
        "\r",
        "\u2028",
        "0001-01-01T00:00:00+23:59",
        "1e9",
    ]
    rows = []
    for _ in range(data.draw(st.integers(0, 3))):
        cells = GOOD.split(",")
        cells[data.draw(st.integers(0, 6))] = data.draw(st.sampled_from(odd) | st.text(max_size=9))
        rows.append(",".join(cells))
    content = bytearray("\n".join([HEAD, GOOD, *rows]).encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.integers(0, 2))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    at = end_ns(date(2026, 8, 1))
    try:
        taken = read(bytes(content), now_ns=at, methodology=rules.load())
        fix_through(Tape(), rules.load(), taken, [CODE], date(2026, 8, 1), recorded_ns=at)
    except (RefusedFile, RefusedRun):
        return
    assert all(0 < o.price_micros <= observations.PRICE_MICROS_MAX for o in taken.observations)


def started(last: int = BASE_DAYS) -> Tape:
    """A tape that is fixed up to a day."""
    panel = flat(spread_out(9), range(last + 1))
    at = end_ns(day(last))
    return fix_through(Tape(), rules.load(), batch(panel), [CODE], day(last), recorded_ns=at)[0]


def refusal(call: object) -> RunRefusal:
    assert callable(call)
    with pytest.raises(RefusedRun) as refused:
        call()
    return refused.value.refusal


def test_days_that_cannot_be_fixed_are_refused_and_the_tape_is_as_it_was() -> None:
    tape, methodology = started(), rules.load()
    before = tape.encode()
    last, other = BASE_DAYS, batch(flat(spread_out(9), range(BASE_DAYS + 3)), "other")
    later = end_ns(day(last + 2))

    def fixing(number: int, at: int = later, first: date | None = None) -> object:
        return lambda: fix_through(
            tape, methodology, other, [CODE], day(number), recorded_ns=at, first=first
        )

    def revising(number: int, name: str = "other", code: str = CODE) -> object:
        again = batch(flat(spread_out(9), [number]), name)
        return lambda: revise(tape, methodology, again, [code], day(number), recorded_ns=later)

    assert refusal(fixing(last)) is RunRefusal.ALREADY_FIXED
    assert refusal(fixing(last + 1, first=day(last))) is RunRefusal.ALREADY_FIXED
    assert refusal(fixing(-1, first=day(-1))) is RunRefusal.OUT_OF_ORDER
    assert refusal(fixing(last + 1, first=day(last + 2))) is RunRefusal.RANGE
    assert refusal(fixing(last + 2, first=day(last + 2))) is RunRefusal.OUT_OF_ORDER, "a day left"
    assert refusal(fixing(last + 1, at=end_ns(day(last)) - 1)) is RunRefusal.CLOCK
    assert refusal(fixing(last + 1, at=end_ns(day(last + 1)) - 1)) is RunRefusal.NOT_OVER
    assert refusal(revising(last + 1)) is RunRefusal.NOT_FIXED
    assert refusal(revising(last, code="HBX-H200")) is RunRefusal.NOT_FIXED
    assert refusal(revising(last)) is RunRefusal.UNCHANGED
    assert tape.encode() == before


@pytest.mark.parametrize("last", [day(-1), date(1, 1, 1)])
def test_an_empty_tape_begins_with_the_first_day_observed_and_not_before_1970(last: date) -> None:
    """A mistyped date begins no tape years before its observations, nor ends in a traceback."""
    arguments = (Tape(), rules.load(), batch(flat(spread_out(9), range(3))), [CODE], last)
    at = end_ns(day(2))
    with pytest.raises(RefusedRun, match=r"RANGE \(2255\)"):
        fix_through(*arguments, recorded_ns=at)
    if last == day(-1):  # asked for by --from it may
        assert len(fix_through(*arguments, recorded_ns=at, first=last)[1]) == 1
    else:
        empty = (Tape(), rules.load(), batch([]), [CODE], last)
        with pytest.raises(RefusedRun, match="before 1970"):
            fix_through(*empty, recorded_ns=at)


def test_indices_go_on_together_from_one_day() -> None:
    """Of the one that is behind, days would be left out for good and its month have no price."""
    methodology, last = rules.load(), BASE_DAYS
    panel = flat(spread_out(9), range(last + 3))
    at, both = end_ns(day(last + 2)), [CODE, "HBX-H200"]

    def fixed(tape: Tape, name: str, codes: list[str], to: int) -> Tape:
        made = batch(panel, name)
        return fix_through(tape, methodology, made, codes, day(to), recorded_ns=at)[0]

    behind = fixed(started(), "a", both[1:], last - 2)
    with pytest.raises(RefusedRun, match=r"OUT_OF_ORDER \(2252\).*HBX-H200 to") as refused:
        fixed(behind, "b", both, last + 1)
    assert f"{day(last)}" in str(refused.value) and f"{day(last - 2)}" in str(refused.value)
    even = fixed(fixed(behind, "c", both[1:], last), "d", both, last + 1)
    assert even.days(CODE) == even.days("HBX-H200")


def test_the_same_file_again_is_refused_as_a_replay() -> None:
    panel, methodology = batch(flat(spread_out(9), range(BASE_DAYS + 2))), rules.load()
    at = end_ns(day(BASE_DAYS + 1))
    tape, _ = fix_through(Tape(), methodology, panel, [CODE], day(BASE_DAYS), recorded_ns=at)
    for again in (fix_through, revise):
        with pytest.raises(RefusedFile, match=r"REPLAYED \(2202\)"):
            again(tape, methodology, panel, [CODE], day(BASE_DAYS), recorded_ns=at)
    longer, fixings = fix_through(
        tape, methodology, panel, [CODE], day(BASE_DAYS + 1), recorded_ns=at
    )
    assert [fixing.date for fixing in fixings] == [day(BASE_DAYS + 1)], "its later days are new"
    assert longer.encode().startswith(tape.encode())


def test_a_stamp_far_in_the_future_moves_no_clock() -> None:
    """The rejected row leaves the tape as if it had not been in the file."""
    rows = [
        fields(date=f"{day(n)}", provider=name, usd_hr=f"{price}", fetched_at=f"{day(n)}T06:00:00Z")
        for n in range(BASE_DAYS + 1)
        for name, price in spread_out(9).items()
    ]
    ahead = fields(provider=SELLERS[0], usd_hr="1", fetched_at="2062-01-01T06:00:00Z")
    at = end_ns(day(BASE_DAYS))
    results = []
    for lines in (rows, [ahead, *rows]):
        content = "\n".join([HEAD, *lines]).encode()
        taken = read(content, now_ns=at, methodology=rules.load())
        tape, fixings = fix_through(
            Tape(), rules.load(), taken, [CODE], day(BASE_DAYS), recorded_ns=at
        )
        results.append([msgspec.structs.replace(f, screened={}) for f in fixings])
        assert tape.recorded_ns == at
    assert [row.screen for row in taken.rejected] == [Screen.FUTURE]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "place", ["line", "hash", "entry", "text", "number", "cut", "dropped", "swapped"]
)
def test_a_damaged_tape_is_refused_with_its_line(place: str) -> None:
    lines = started().encode().splitlines(keepends=True)
    third = lines[2]
    lines[2:3] = {
        "line": [b"x" + third],
        "hash": [third[:-5] + b'0"]\n' if third[-5:-4] != b"0" else third[:-5] + b'1"]\n'],
        "entry": [third.replace(b"WITHHELD", b"PUBLISHED")],
        "text": [third.replace(b"fixing", b"\xe2ixing", 1)],
        "number": [third.replace(b"[3,", b"[4,")],
        "cut": [third],
        "dropped": [],
        "swapped": [lines[3], third],
    }[place]
    content = b"".join(lines)
    with pytest.raises(TapeError, match=r"line [34] of the tape|cut short"):
        Tape.decode(content[:-9] if place == "cut" else content)


def test_every_refusal_and_screen_is_documented_and_its_number_frozen() -> None:
    page = PAGE.read_text()
    members = [*FileRefusal, *Screen, *RunRefusal]
    assert len({int(member) for member in members}) == len(members)
    for member in members:
        if member is not Screen.ACCEPTED:
            assert re.search(rf"\| {int(member)} \| {member.name} \|", page), member.name


def test_every_refusal_and_screen_of_this_page_is_met_in_the_tests() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_index*.py"))
    for member in [*FileRefusal, *Screen, *RunRefusal]:
        named = re.findall(rf"\b{member.name}\b", tests)
        assert named, member.name


def test_days_are_counted_from_the_first_of_the_file() -> None:
    observed_days = [observed(day(n), SELLERS[0], 3.0) for n in (0, 2)]
    _, fixings = fix_through(
        Tape(), rules.load(), batch(observed_days), [CODE], day(3), recorded_ns=end_ns(day(3))
    )
    assert [fixing.date for fixing in fixings] == [FIRST + timedelta(days=n) for n in range(4)]


def test_an_old_date_does_not_stretch_the_days() -> None:
    """A row that claims 1970 and was read today is carried; one read then needs --from."""
    seen = [observed(day(n), SELLERS[0], 3.0) for n in range(3)]
    claims = seen[0]._replace(day=date(1970, 1, 2).toordinal())
    arguments = (Tape(), rules.load())
    at = end_ns(day(2))
    _, fixings = fix_through(*arguments, batch([*seen, claims]), [CODE], day(2), recorded_ns=at)
    assert len(fixings) == 3
    old = observed(date(1970, 1, 2), SELLERS[0], 3.0)
    both = batch([*seen, old])
    with pytest.raises(RefusedRun, match=r"RANGE \(2255\).*--from"):
        fix_through(*arguments, both, [CODE], day(2), recorded_ns=at)
    _, fixings = fix_through(*arguments, both, [CODE], day(2), recorded_ns=at, first=day(0))
    assert len(fixings) == 3


def test_a_feed_is_stale_also_where_each_index_has_a_file_of_its_own() -> None:
    """A dead feed stays the same in the files of both indices; that the files differ from each
    other is no sign of life."""
    tapes = [Tape(), Tape()]
    quotes, other = spread_out(9), "HBX-H200"
    days = 61 + 2  # of rate cards
    for number in range(days):
        on, at = day(number), end_ns(day(number))
        first, second = flat(quotes, [number]), flat(quotes, [number], gpu="h200")
        tapes[0], both = fix_through(
            tapes[0], rules.load(), batch(first + second, f"{number}"), [CODE, other], on,
            recorded_ns=at,
        )  # fmt: skip
        apart = []
        for code, seen in ((CODE, first), (other, second)):
            tapes[1], made = fix_through(
                tapes[1], rules.load(), batch(seen, f"{number} {code}"), [code], on, recorded_ns=at
            )
            apart += made
    assert [one.screened["STALE"] for one in both] == [9, 9]
    assert [one.screened.get("STALE") for one in apart] == [9, 9]
    assert [one.votes for one in apart] == [(), ()]
