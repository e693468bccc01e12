"""The index's rules, one by one, and the known ways in which an index goes wrong.

Budget: 10 seconds.
"""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import msgspec
import pytest
from index_panel import (
    BASE_DAYS,
    CODE,
    GPU,
    SELLERS,
    batch,
    changed,
    day,
    equal,
    fixed,
    flat,
    observed,
    spread_out,
    with_provider,
)

from contracts import registry
from contracts.calendar import Month
from contracts.index import methodology as rules
from contracts.index.fixing import Fixing, State
from contracts.index.methodology import Gate, MethodologyError, Series, Tier
from contracts.index.numbers import log_nanos
from contracts.index.run import end_ns, fix_through, revise
from contracts.index.settlement import FinalPrice, final_price
from contracts.index.tape import Tape

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "index-methodology.md"
NOW = BASE_DAYS  # the first day with a number
BASE = range(NOW)


PATIENT = dict.fromkeys(Tier, 60)  # stale_days for panels of quotes that stand still


def change(fixing: Fixing, before: Fixing) -> float:
    """Log change of the price between two published fixings."""
    assert fixing.price_micros is not None and before.price_micros is not None
    return math.log(fixing.price_micros / before.price_micros)


def influence(fixing: Fixing) -> float:
    return fixing.gates["influence_bp"] / 10_000


def test_an_index_begins_at_the_weighted_median_of_its_sellers() -> None:
    fixings = fixed(flat(spread_out(9), range(NOW + 1)), NOW)
    assert [f.state for f in fixings.values()] == [State.WITHHELD] * NOW + [State.PUBLISHED]
    assert {f.reason for f in fixings.values()} == {"NO_TABLE", ""}
    assert fixings[NOW].price_micros == 2_880_000


def test_an_index_that_begins_anew_late_in_a_month_goes_on_in_the_next() -> None:
    """The days that it began anew from stand at its level, as those of its first beginning."""
    anew = {seller: price + 0.1 for seller, price in spread_out(9).items()}  # from 14 April on
    panel = flat(spread_out(9), range(NOW + 2)) + flat(anew, range(44, 63))
    made = fixed(panel, 62, methodology=changed(anchor_days=20))
    began = [number for number in made if made[number].published and not made[number - 1].published]
    assert [str(day(number)) for number in began] == ["2026-03-15", "2026-04-28"]
    assert [made[number].reason for number in (60, 61, 62)] == ["", "", ""]
    assert made[62].price_micros == made[58].price_micros == 2_980_000


def test_an_index_does_not_begin_at_the_level_of_a_few() -> None:
    fixing = fixed(flat(spread_out(5), range(NOW + 1)), NOW)[NOW]
    assert (fixing.state, fixing.reason) == (State.WITHHELD, "NO_TABLE")


def test_equal_quotes_have_no_scale_and_one_absurd_quote_moves_nothing() -> None:
    """Zero MAD: eight equal quotes and one of a million dollars print the eight's price."""
    quotes = flat(equal(9), BASE) + flat(equal(8) | {SELLERS[8]: 1_000_000}, [NOW])
    fixing = fixed(quotes, NOW)[NOW]
    assert fixing.price_micros == 3_000_000
    assert fixing.outliers == (SELLERS[8],)
    assert fixing.screened["OUTLIER"] == 1


def test_one_strong_seller_cutting_its_price_is_seen_and_moves_nothing() -> None:
    """A screen in dollars misses a low outlier: 4.01 to 0.90. In logs low is as far as high."""
    methodology = changed(stale_days=PATIENT)
    methodology = with_provider(methodology, SELLERS[0], tier=Tier.EXECUTABLE)
    before = spread_out(9) | {SELLERS[0]: 4.01}
    quotes = flat(before, range(NOW + 1)) + flat(before | {SELLERS[0]: 0.90}, [NOW + 1])
    fixings = fixed(quotes, NOW + 1, methodology=methodology)
    assert fixings[NOW + 1].outliers == (SELLERS[0],)
    assert fixings[NOW + 1].price_micros == fixings[NOW].price_micros


def test_a_lone_cut_counts_for_no_more_than_its_weight_times_the_clip() -> None:
    before = spread_out(9)
    cut = before | {SELLERS[4]: before[SELLERS[4]] * 0.7}
    fixings = fixed(flat(before, range(NOW + 1)) + flat(cut, [NOW + 1]), NOW + 1)
    assert change(fixings[NOW + 1], fixings[NOW]) == pytest.approx(-0.03 / 9, abs=1e-6)
    assert abs(change(fixings[NOW + 1], fixings[NOW])) <= influence(fixings[NOW])


def test_a_repricing_of_the_whole_market_is_followed_at_once_and_in_full() -> None:
    before = spread_out(9)
    after = {name: price * 0.8 for name, price in before.items()}
    fixings = fixed(flat(before, range(NOW + 1)) + flat(after, [NOW + 1]), NOW + 1)
    assert change(fixings[NOW + 1], fixings[NOW]) == pytest.approx(math.log(0.8), abs=1e-6)


def test_a_repricing_one_by_one_arrives_in_full() -> None:
    """A seller a day: a little on the way, nothing while one would tip it, then all of it."""
    before = spread_out(9)
    quotes = flat(before, range(NOW + 1))
    for step in range(1, 10):
        moved = {n: p * (0.8 if SELLERS.index(n) < step else 1.0) for n, p in before.items()}
        quotes += flat(moved, [NOW + step])
    fixings = fixed(quotes, NOW + 9)
    assert [fixings[NOW + step].reason for step in (4, 5)] == ["INFLUENCE_BP"] * 2
    path = [change(fixings[NOW + step], fixings[NOW]) for step in (0, 1, 2, 3, 6, 7, 8, 9)]
    assert path == sorted(path, reverse=True)
    assert path[3] == pytest.approx(-3 * 0.03 / 9, abs=1e-6)
    assert path[4] == pytest.approx(math.log(0.8) + 3 * 0.03 / 9, abs=1e-6)
    assert path[-1] == pytest.approx(math.log(0.8), abs=1e-6)


def test_sellers_that_come_and_go_do_not_move_the_index() -> None:
    """Composition: a newcomer far below the others, and the dearest seller gone."""
    quotes = spread_out(9)
    more = quotes | {SELLERS[9]: 1.9}
    fewer = {name: price for name, price in more.items() if name != SELLERS[8]}
    panel = (
        flat(quotes, range(NOW + 2)) + flat(more, range(NOW + 2, 33)) + flat(fewer, range(33, 36))
    )
    fixings = fixed(panel, 35)
    published = [fixings[number].price_micros for number in range(NOW, 36)]
    assert set(published) == {published[0]}
    assert fixings[20].screened["NO_ANCHOR"] == 1, "no seat before the month begins"
    assert (day(31).day, fixings[31].gates["providers"]) == (1, 10)
    assert mean(more.values()) < 0.97 * mean(quotes.values()), "a mean of levels would jump"


def test_gates_do_not_flicker() -> None:
    """Sellers waver between five and six: shut until there are six, open while there are five."""
    quotes = spread_out(6)
    five = {name: price for name, price in quotes.items() if name != SELLERS[5]}
    panel = flat(quotes, BASE)
    for number in range(NOW, NOW + 12):
        panel += flat(five if number % 2 == 0 else quotes, [number])
    count = Gate(enter=6, keep=5)
    loose = msgspec.structs.replace(
        rules.load().indices[CODE].gates,
        providers=count,
        observations=Gate(0, 0),
        effective_tenths=Gate(0, 0),
        influence_bp=Gate(1_000, 1_000),
    )
    states = [
        fixed(panel, NOW + 11, methodology=changed(gates=loose))[n] for n in range(NOW, NOW + 12)
    ]
    assert [f.gates["providers"] for f in states] == [5, 6] * 6
    assert [f.published for f in states] == [False] + [True] * 11
    assert states[0].reason == "PROVIDERS"
    sharp = msgspec.structs.replace(loose, providers=Gate(6, 6))
    flickering = fixed(panel, NOW + 11, methodology=changed(gates=sharp))
    assert [flickering[n].published for n in range(NOW, NOW + 12)] == [False, True] * 6


def test_a_thin_day_is_withheld_and_nothing_is_carried_forward() -> None:
    panel = flat(spread_out(9), range(NOW + 1)) + flat(spread_out(3), [NOW + 1])
    fixings = fixed(panel, NOW + 2)
    for number, providers in ((NOW + 1, 3), (NOW + 2, 0)):
        assert fixings[number].state is State.WITHHELD
        assert fixings[number].reason == "PROVIDERS"
        assert fixings[number].price_micros is None
        assert fixings[number].gates["providers"] == providers


def test_too_few_effective_sellers_are_withheld() -> None:
    """One executable seller among judged ones: eight providers, fewer that count."""
    methodology = changed(stale_days=PATIENT)
    for name in SELLERS[1:8]:
        methodology = with_provider(methodology, name, tier=Tier.JUDGEMENT)
    methodology = with_provider(methodology, SELLERS[0], tier=Tier.EXECUTABLE)
    fixing = fixed(flat(spread_out(8), range(NOW + 1)), NOW, methodology=methodology)[NOW]
    assert fixing.reason == "EFFECTIVE_TENTHS"
    assert fixing.gates["effective_tenths"] == 54


def final_of(sellers: int, *, stays: bool) -> FinalPrice:
    """April's final price: its sellers cut their prices by a fifth from the 16th on, two a day. If
    one does not stay, the last of them withdraws its quote instead."""
    quotes = spread_out(sellers)
    last, sixteenth = [*quotes][-1], 46
    seen = [
        observed(day(number), seller, round(dollars * (0.8 if cut else 1), 3))
        for number in range(61)
        for place, (seller, dollars) in enumerate(quotes.items())
        for cut in [number >= sixteenth + place // 2]
        if stays or seller != last or number < sixteenth
    ]
    tape, _ = fix_through(
        Tape(), rules.load(), batch(seen), [CODE], day(60), recorded_ns=end_ns(day(60))
    )
    return final_price(rules.load().index(CODE), Month(2026, 4), tape)


@pytest.mark.parametrize(("sellers", "said"), [(8, "9.8 % higher"), (9, "0.02 % lower")])
def test_who_has_days_withheld_chooses_what_counts_as_the_page_says(
    sellers: int, said: str
) -> None:
    """No fixing moves, and yet the month's price does: it is the mean of the days with a number."""
    stayed, left = (final_of(sellers, stays=stays) for stays in (True, False))
    assert stayed.price_micros is not None and left.price_micros is not None
    moved = left.price_micros / stayed.price_micros - 1
    share = f"{abs(moved):.1%}" if abs(moved) > 0.01 else f"{abs(moved):.2%}"
    assert f"{share[:-1]} % {'higher' if moved > 0 else 'lower'}" == said
    page = " ".join(PAGE.read_text().split())
    assert said in page
    if sellers == 8:
        assert (left.published_days, stayed.published_days) == (16, 29)
        assert "16 days count instead of 29" in page


def test_no_seller_weighs_more_than_the_cap() -> None:
    methodology = changed(
        stale_days=PATIENT,
        tier_weights={Tier.EXECUTABLE: 1_000, Tier.RATE_CARD: 60, Tier.JUDGEMENT: 25},
    )
    methodology = with_provider(methodology, SELLERS[4], tier=Tier.EXECUTABLE)
    before = spread_out(9)
    cut = before | {SELLERS[4]: before[SELLERS[4]] * 0.7}
    panel = flat(before, range(NOW + 1)) + flat(cut, [NOW + 1])
    loose = {name: Gate(0, 0) for name in ("providers", "effective_tenths")}
    gates = msgspec.structs.replace(
        methodology.indices[CODE].gates, **loose, influence_bp=Gate(5_000, 5_000)
    )
    methodology = msgspec.structs.replace(
        methodology,
        indices={CODE: msgspec.structs.replace(methodology.indices[CODE], gates=gates)},
    )
    fixings = fixed(panel, NOW + 1, methodology=methodology)
    assert change(fixings[NOW + 1], fixings[NOW]) == pytest.approx(-0.35 * 0.03, abs=1e-6)


def test_an_aggregator_is_one_seller() -> None:
    """Eight of twelve come through one: together they weigh the cap, and are one in the bound."""
    methodology = rules.load()
    for name in SELLERS[:8]:
        methodology = with_provider(methodology, name, route="spheron")
    before = spread_out(12)
    cut = {n: p * (0.9 if n in SELLERS[:8] else 1.0) for n, p in before.items()}
    loose = msgspec.structs.replace(
        methodology.indices[CODE].gates, influence_bp=Gate(5_000, 5_000)
    )
    methodology = msgspec.structs.replace(
        methodology,
        indices={CODE: msgspec.structs.replace(methodology.indices[CODE], gates=loose)},
    )
    panel = flat(before, range(NOW + 1)) + flat(cut, [NOW + 1])
    fixings = fixed(panel, NOW + 1, methodology=methodology)
    assert change(fixings[NOW + 1], fixings[NOW]) == pytest.approx(-0.35 * 0.03, abs=1e-6)
    assert influence(fixings[NOW]) == pytest.approx(2 * 0.35 * 0.03, abs=1e-4)


def test_what_rests_on_restated_prices_is_withheld() -> None:
    generic = dict(list(spread_out(10).items())[2:])
    panel = flat(spread_out(2), range(NOW + 1)) + flat(generic, range(NOW + 1), gpu="h100")
    fixing = fixed(panel, NOW)[NOW]
    assert fixing.reason == "RESTATED_PERCENT"
    assert fixing.gates["restated_percent"] == 63


@pytest.mark.parametrize(
    ("gate", "today"),
    [
        ("COVERAGE_PERCENT", lambda n, price: price if n < 8 else None),
        ("DISAGREEMENT_BP", lambda n, price: price * (0.8 + 0.04 * n)),
        ("INFLUENCE_BP", lambda n, price: price * (0.97 + 0.01 * n)),
    ],
)
def test_a_day_that_fails_a_gate_is_withheld_in_its_name(
    gate: str, today: Callable[[int, float], float | None]
) -> None:
    before = spread_out(12)
    quotes = {name: today(n, price) for n, (name, price) in enumerate(before.items())}
    panel = flat(before, BASE) + flat({n: p for n, p in quotes.items() if p is not None}, [NOW])
    fixing = fixed(panel, NOW)[NOW]
    assert (fixing.state, fixing.reason, fixing.price_micros) == (State.WITHHELD, gate, None)
    assert fixing.log is not None, "where the votes stood is kept: a newcomer's anchor needs it"


def test_levels_that_are_no_one_good_are_withheld() -> None:
    wide = {name: 1.0 * 1.25**place for place, name in enumerate(SELLERS[:9])}
    fixing = fixed(flat(wide, range(NOW + 1)), NOW)[NOW]
    assert fixing.reason == "DISPERSION_BP"


def test_a_restated_price_is_restated_by_the_schedule_and_counts_as_such() -> None:
    """Bought as PCIe at 3.00 with a factor of 1.08 it is a vote for 3.24."""
    schedule = (
        Series(GPU, "on-demand", Tier.EXECUTABLE),
        Series("h100-pcie", "on-demand", Tier.RATE_CARD, "1.0800"),
    )
    panel = flat(spread_out(8), range(NOW + 1))
    panel += flat({SELLERS[8]: 3.0}, range(NOW + 1), gpu="h100-pcie")
    fixing = fixed(panel, NOW, methodology=changed(series=schedule))[NOW]
    (vote,) = (vote for vote in fixing.votes if vote.provider == SELLERS[8])
    assert (vote.log, vote.restated) == (log_nanos(3_240_000), True)
    assert fixing.gates["restated_percent"] == 12


def test_a_seller_has_one_vote_however_much_it_lists() -> None:
    before = spread_out(9)
    many = [observed(day(NOW + 1), SELLERS[0], 1.9, place=f"{n}") for n in range(50)]
    panel = flat(before, range(NOW + 2)) + many
    fixings = fixed(panel, NOW + 1)
    votes = [vote for vote in fixings[NOW + 1].votes if vote.provider == SELLERS[0]]
    assert [vote.observations for vote in votes] == [51]
    assert change(fixings[NOW + 1], fixings[NOW]) == pytest.approx(-0.03 / 9, abs=1e-6)


def test_a_seller_of_the_good_itself_is_not_heard_on_another() -> None:
    panel = flat(spread_out(9), range(NOW + 1))
    panel += flat({SELLERS[0]: 9.0}, [NOW], gpu="h100")
    assert fixed(panel, NOW)[NOW].price_micros == 2_880_000


def test_the_capture_window_is_fixed() -> None:
    """Three minutes after it closes a price does not count, until the window is extended."""
    before = spread_out(9)
    late = [observed(day(NOW), name, price, minute=663) for name, price in before.items()]
    fixing = fixed(flat(before, BASE) + late, NOW)[NOW]
    assert (fixing.state, fixing.step) == (State.FALLBACK, 1)
    spoilt = [observed(day(NOW), name, 2 * price, minute=663) for name, price in before.items()]
    fixing = fixed(flat(before, range(NOW + 1)) + spoilt, NOW)[NOW]
    assert (fixing.state, fixing.step, fixing.price_micros) == (State.PUBLISHED, 0, 2_880_000)
    assert fixing.screened["OUTSIDE_WINDOW"] == 9


def test_a_dead_feed_is_found_by_its_fingerprint() -> None:
    """Captured afresh each day, the same to the last digit: stale after two days if executable."""
    methodology = with_provider(rules.load(), SELLERS[0], tier=Tier.EXECUTABLE)
    alive = [observed(day(n), SELLERS[0], 3 + n / 1_000) for n in range(NOW)]
    dead = [observed(day(n), SELLERS[0], 3.5) for n in range(NOW, NOW + 5)]
    panel = flat(dict(list(spread_out(10).items())[1:]), range(NOW + 5)) + alive + dead
    fixings = fixed(panel, NOW + 4, methodology=methodology)
    stale = [fixings[n].screened.get("STALE", 0) for n in range(NOW, NOW + 5)]
    assert stale == [0, 0, 0, 1, 1]


def test_a_dead_feed_stays_dead_in_a_revision() -> None:
    """The days before those on the tape are in the file alone, the corrected one as the first."""
    seen = flat(spread_out(9), range(70))
    until = day(69)
    tape, fixings = fix_through(
        Tape(), rules.load(), batch(seen), [CODE], until, first=day(65), recorded_ns=end_ns(until)
    )
    assert fixings[-1].screened == {"STALE": 9}
    last = [observed(until, "vultr", 2.5)]
    better = batch([one for one in seen if one.day < until.toordinal()] + seen[-9:] + last, "new")
    _, (again,) = revise(tape, rules.load(), better, [CODE], until, recorded_ns=end_ns(until))
    assert again.screened == {"STALE": 9} and len(again.votes) == 1


def test_what_was_carried_forward_is_screened() -> None:
    panel = flat(spread_out(9), range(NOW + 1))
    carried = panel[-1]._replace(observed_ns=panel[0].observed_ns)
    fixing = fixed([*panel[:-1], carried], NOW)[NOW]
    assert (fixing.screened["CARRIED"], fixing.gates["providers"]) == (1, 8)


def test_an_administered_price_is_screened() -> None:
    """Spot at exactly half of on-demand on three goods is a formula; on two it may be chance."""
    spot = Series("h100-sxm", "spot", Tier.RATE_CARD)
    methodology = changed(series=(spot,))
    quotes = spread_out(9)
    panel = [observed(day(NOW), name, price, kind="spot") for name, price in quotes.items()]
    for place, gpu in enumerate(("a100", "h200", "b200")):
        half = [
            observed(day(NOW), SELLERS[0], 2.0 + place, gpu=gpu),
            observed(day(NOW), SELLERS[0], 1.0 + place / 2, gpu=gpu, kind="spot"),
        ]
        panel += half
        screened = fixed(panel, NOW, methodology=methodology)[NOW].screened
        assert screened.get("ADMINISTERED", 0) == (1 if place == 2 else 0)


@pytest.mark.parametrize("left", [None, "hyperscaler"])
def test_who_has_left_the_rules_has_no_seat_in_later_months(left: str | None) -> None:
    """Whose price is no longer known, or is of another venue by now."""
    panel, gone = flat(spread_out(9), range(32)), SELLERS[0]
    at = end_ns(day(31))
    begun, _ = fix_through(
        Tape(), rules.load(), batch(panel), [CODE], day(20), recorded_ns=end_ns(day(20))
    )
    if left:
        methodology = with_provider(rules.load(), gone, venue=left)
    else:
        known = {name: one for name, one in rules.load().providers.items() if name != gone}
        methodology = msgspec.structs.replace(rules.load(), providers=known)
    rest = batch([seen for seen in panel if seen.provider != gone], "rest")
    grown, _ = fix_through(begun, methodology, rest, [CODE], day(31), recorded_ns=at)
    seated = [[anchor.provider for anchor in table.anchors] for table in grown.tables(CODE)]
    assert [gone in table for table in seated] == [True, False]
    last = grown.fixing(CODE, day(31))
    assert last is not None
    assert (last.published, last.gates["coverage_percent"]) == (True, 100)


def test_a_hyperscaler_is_another_good() -> None:
    panel = flat(spread_out(9), range(NOW + 1)) + flat({"aws": 12.29}, range(NOW + 1))
    fixing = fixed(panel, NOW)[NOW]
    assert (fixing.price_micros, fixing.screened["OTHER_VENUE"]) == (2_880_000, 1)
    other = flat({"lambda": 1.0}, [NOW], gpu="h100-pcie")
    assert fixed([*panel, *other], NOW)[NOW].screened["OTHER_GOOD"] == 1


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ('tier = "executable" },', 'tier = "executable", factor = "1.7600" },', "restates by more"),
        ('tier = "executable" },', 'tier = "executable", factor = "0.5700" },', "restates by more"),
        ('tier = "executable" },', 'tier = "executable", factor = "nan" },', "not of the form"),
        ('tier = "executable" },', 'tier = "guess" },', "indices.'HBX-A100': Invalid enum value"),
        ('lambda = { venue = "neocloud"', 'lambda = { venue = "moon"', "providers.'?lambda'?: Inv"),
        ('"neocloud", "marketplace"]', '"neocloud", "marketplce"]', "Invalid enum value 'marketpl"),
        ('gpu = "h200", kind', 'gpu = "h2000", kind', "not in the panel's names"),
        ("window_opens_minute = 300", "window_opens_minute = 660", "before it closes"),
        ("screen_floor_bp = 1500", "screen_floor_bp = 50", "not be narrower than the clip"),
        ("keep = 5 }", "keep = 7 }", "not be easier to enter"),
        ("enter = 60, keep = 50", "enter = 60, keep = 49", "effective_tenths must keep 50"),
        ("short_days = 10", "short_days = 21", "must not be above full_days"),
        ("executable = 2\n", "", "must name every tier"),
        ('currency = "USD"', 'currency = "EUR"', "currency"),
        ("review_date = 2027-01-15", "", "review_date"),
        ("clip_bp = 300", "clip_bp = nan", "clip_bp"),
        ("clip_bp = 300", "clip_bp = 0", "clip_bp"),
        ("clip_bp = 300", "clip_bp = 300\nclop_bp = 1", "clop_bp"),
        ("[providers]", "[provider]", "provider"),
        ("[indices.HBX-A100]", "[indices.hbx]", "matching regex"),
        ('currency = "USD"', "]", "not a file of indices"),
    ],
)
def test_a_file_of_rules_with_a_fault_is_refused_whole(right: str, wrong: str, says: str) -> None:
    text = (Path(rules.__file__).parents[1] / "data" / "indices.toml").read_text()
    assert right in text
    with pytest.raises(MethodologyError, match=says):
        rules.read(text.replace(right, wrong, 1).encode())


def test_every_cash_contract_settles_on_an_index_of_these_rules() -> None:
    named = [(spec.index, spec.methodology) for spec in registry.load().specs if spec.index]
    assert named
    for code, version in named:
        assert rules.load().index(code).methodology_version == version


def test_the_rules_hash_covers_rules_sellers_and_names() -> None:
    """The names of the panel as well: what has none is rejected, and is in no feed's fingerprint
    and no formula of a seller's prices."""
    shipped, again = rules.load(), msgspec.structs.replace
    hashes = {
        again(shipped, gpus=shipped.gpus | {"h300"}).rules_hash(CODE),
        again(shipped, kinds=shipped.kinds - {"spot"}).rules_hash(CODE),
        rules.load().rules_hash(CODE),
        changed(clip_bp=301).rules_hash(CODE),
        with_provider(rules.load(), "vultr", route="spheron").rules_hash(CODE),
        rules.load().rules_hash("HBX-H200"),
    }
    assert len(hashes) == 6
