"""Random months of deliveries: what every account paid and got, once more by the rules of
docs/concepts/delivery.md alone."""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Final

import msgspec
import pytest
from attested import key_of
from clearing_house import FACTOR, House, factors
from test_deliveries import OLD, SHORT, WHOLE, attest, begun, deliveries, house

from contracts.grades import table
from exchange.app import wishes
from exchange.app.wishes import RequestRefused
from exchange.clearing import Clearing
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.delivery.records import Attest, Tender
from exchange.clearing.delivery.terms import DAY_NS, day_of
from exchange.clearing.expiry import FixingRecorded
from exchange.clearing.records import Record
from exchange.messages import Command, CommandKind

__all__ = ["house"]  # a fixture
SHORTS, LONGS = (1, 2), (3, 4, 5, 6)
DEPOSIT: Final = 10**13
DAYS: Final = 31  # of the month
HOURS: Final = 24 * DAYS
DAY_S: Final = 86_400
CENT: Final = 10_000
FIXED: Final = Fraction(9_750, 10_000)  # goodput that the factor assumes
TOLERANCE, CAP, FLOOR = Fraction(50, 10_000), Fraction(1, 10), Fraction(8_500, 10_000)
PENALTY: Final = 10  # per cent

Figure = tuple[int, int]  # available and lost


def cents(price: Fraction | int, hours: int, lots: int, factor: int = FACTOR) -> int:
    """Half to even, once."""
    return round(Fraction(price) * hours * lots * factor / 10_000 / CENT)


@dataclass
class Course:
    """One delivery; ``cash`` is what it has moved, in micro-dollars by account."""

    id: int
    seller: int
    buyer: int
    lots: int
    price: int
    begin: int
    stage: str = "invoiced"
    escrow_by: int = 0
    begun: int = 0
    figures: defaultdict[int, dict[str, Figure]] = field(default_factory=lambda: defaultdict(dict))
    disputed: set[int] = field(default_factory=set)
    settled: list[Figure] = field(default_factory=list)
    earned: int = 0
    missing: tuple[int, int, int] = (0, 0, 0)  # day of the failure, hours, refund
    cash: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def parts(self) -> list[int]:
        """The slices of the days: the earlier ones have a cent more."""
        each, more = divmod(cents(self.price, HOURS, self.lots), DAYS)
        return [each + (day < more) for day in range(DAYS)]

    def pay(self, giver: int, taker: int, amount: int) -> None:
        self.cash[giver] -= amount * CENT
        self.cash[taker] += amount * CENT

    def escrowed(self, stamp: int) -> None:
        self.stage, self.begun = "delivering", stamp
        self.cash[self.buyer] -= sum(self.parts) * CENT

    def attested(self, day: int, side: str, figure: Figure) -> None:
        said = self.figures[day]
        self.disputed.discard(day)
        if side == "house":
            said["seller"] = said["buyer"] = figure
            return
        said[side] = figure
        if len(said) == 2:
            (there, lost), (seen, missed) = said["seller"], said["buyer"]
            apart = max(abs(there - seen), abs(there - lost - seen + missed))
            self.disputed |= {day} if apart * 100 > self.lots * DAY_S else set()

    def counts(self, day: int, stamp: int) -> Figure | None:
        """The figure by which a day is settled, if it is by now."""
        said = self.figures[day]
        if len(said) == 2 and day not in self.disputed:
            return said["seller"]
        late = stamp - max(self.begin + day * DAY_NS, self.begun)
        if late < (5 if day in self.disputed else 2) * DAY_NS:
            return None
        if day in self.disputed:
            return said["buyer"]
        return said.get("seller") or said.get("buyer") or (0, 0)

    def passed(self, stamp: int) -> None:
        """What happens by itself."""
        today = int(f"{day_of(stamp):%Y%m%d}")
        if self.stage == "invoiced" and stamp >= self.escrow_by:
            self.stage = "unpaid"
            self.pay(self.buyer, self.seller, sum(self.parts) * PENALTY // 100)
        while self.stage == "delivering":
            day = len(self.settled) + 1
            figure = self.counts(day, stamp)
            if figure is None:
                break
            self.settled.append(figure)
            part = self.parts[day - 1]
            earned = part * figure[0] // (self.lots * DAY_S)
            self.earned += earned
            self.cash[self.seller] += earned * CENT
            self.cash[self.buyer] += (part - earned) * CENT
            if day > 2 and not any(there for there, _ in self.settled[-3:]):
                self.cash[self.buyer] += sum(self.parts[day:]) * CENT
                self.end(today, (DAYS - day + 3) * 24)
            elif day == DAYS:
                self.end(today, 0)

    def end(self, today: int, missing: int) -> None:
        """The true-up, hours that a seller which has stopped owes, or all under the floor."""
        there, lost = (sum(figures) for figures in zip(*self.settled, strict=True))
        realized = Fraction(there - lost, there) / FIXED if there else Fraction(0)
        if realized < FLOOR:
            self.stage, self.missing = "failing", (today, HOURS, self.earned)
            return
        short = min(max(Fraction(0), 1 - realized - TOLERANCE), CAP)
        self.stage = "failing" if missing else "delivered"
        self.missing = today, missing, 0
        self.pay(self.seller, self.buyer, cents(self.price * short, there // 3_600, 1))

    def fixed(self, prices: dict[int, int]) -> None:
        """The buy-in, at the first price of the day of the failure or later."""
        since, hours, refund = self.missing
        later = [prices[day] for day in sorted(prices) if day >= since]
        if self.stage == "failing" and later:
            self.stage = "failed"
            dearer = cents(max(0, later[0] - self.price), hours, self.lots)
            penalty = cents(Fraction(self.price * PENALTY, 100), hours, self.lots)
            self.pay(self.seller, self.buyer, refund + dearer + penalty)


class Months:
    """The house, and beside it the courses of its deliveries."""

    def __init__(self, path: Path, seed: int) -> None:
        self.draw, self.house = random.Random(seed), House(Clearing.open(path))
        self.today, self.prices = 20261130, dict[int, int]()
        self.courses: dict[int, Course] = {}
        draw = self.draw
        self.bad = draw.choice((0.0, 0.05, 0.25))  # of the days
        self.silent = {number: draw.randint(3, 25) for number in draw.sample(range(1, 8), 2)}
        self.lossy = set(draw.sample(range(1, 8), 2))  # deliveries under the floor
        self.slow = {side: draw.choice((0.2, 0.6, 0.9)) for side in ("seller", "buyer", "house")}

    @property
    def deliveries(self) -> Deliveries:
        return self.house.clearing._state.matters.get(Deliveries)

    def passes(self) -> None:
        """The next batch begins."""
        for course in self.courses.values():
            course.passed(self.house.market.stamp + 1_000_000)

    def expire(self) -> None:
        """Random trades, tenders, the assignment and the expiry at a random price."""
        house, draw = self.house, self.draw
        for account in (*SHORTS, *LONGS):
            house.open(account, account, 1, DEPOSIT)
        house.list(0, "H100PZ26", date(2026, 11, 2))
        for day in (20261118, 20261119):
            house.day(day)
            for _ in range(5):
                house.trade(draw.choice(LONGS), draw.choice(SHORTS), draw.randint(1, 30), 2_500)
            house.close(day)
        assert house.record(factors())[0] == "accepted"
        terms = self.deliveries.expiries[0].terms
        house.at(terms.notice_from_ns)
        for account in SHORTS:
            lots = -house.clearing.net(account, 0) // 8 * 8
            tender = Tender(account=account, instrument=0, lots=lots, grade="H100-NODE",
                            provider="alpha", facility="one", factor_version=1)  # fmt: skip
            assert not lots or house.record(tender)[0] == "accepted"
        house.at(terms.cutoff_ns + 1)
        house.at(terms.begin_ns + draw.choice((-2, 0, 4)) * DAY_NS)
        house.day(self.today)
        price = draw.randint(2_000_000, 3_000_000)
        house.send(
            Command(kind=CommandKind.SET_STATE, instrument=0),
            Command(kind=CommandKind.EXPIRE, instrument=0, price=price),
        )
        for one in self.deliveries.deliveries:
            course = Course(one.id, one.seller, one.buyer, one.lots, price, terms.begin_ns)
            course.escrow_by = max(terms.begin_ns, house.market.stamp + DAY_NS)
            for side in (one.seller, one.buyer):
                course.cash[side] -= one.lots * terms.fee
            self.courses[one.id] = course

    def pay(self) -> None:
        """All but one buyer in six pay into escrow."""
        house = self.house
        for due in house.dues():
            number = int(due.id.split()[1])
            if due.id.endswith(" escrow") and self.draw.random() < 1 / 6:
                continue
            self.passes()
            house.send(wishes.due(due).command)
            if due.id.endswith(" escrow"):
                self.courses[number].escrowed(house.market.stamp)
        house.pay(but=tuple(f"delivery {number} escrow" for number in self.courses))

    def figure(self, course: Course) -> Figure:
        whole, draw = course.lots * DAY_S, self.draw
        if draw.random() > self.bad:
            return whole, whole // 5 if course.id in self.lossy else 0
        there = draw.choice((0, whole, whole - whole // 150, draw.randint(0, whole)))
        return there, draw.choice((0, there // 100, there // 3))

    def attest(self, course: Course, day: int) -> None:
        """Either side may say something, now or later, and the house of what they differ in."""
        draw = self.draw
        for side, account in (("seller", course.seller), ("buyer", course.buyer), ("house", 0)):
            decides = side == "house" and day in course.disputed
            silent = day > self.silent.get(course.id, DAYS) or draw.random() < self.slow[side]
            if silent or side in course.figures[day] or (side == "house" and not decides):
                continue
            self.passes()
            if len(course.settled) >= day or course.stage != "delivering":
                return
            figure, said = self.figure(course), course.figures[day].get("seller")
            if side == "buyer" and said is not None and draw.random() < 0.6:
                figure = said if draw.random() < 0.9 else (said[0] - said[1], 0)
            record = Attest(account=account, delivery=course.id, day=day, available=figure[0],
                            lost=figure[1])  # fmt: skip
            assert self.record(record) == "accepted"
            course.attested(day, side, figure)

    def record(self, record: Record) -> str:
        """Any record has what failed bought in, if there is a price by now."""
        self.passes()
        outcome = self.house.record(record)[0]
        for course in self.courses.values():
            course.fixed(self.prices)
        return outcome

    def fix(self, day: int) -> None:
        """A fixing, and the next business date, from which on failures have later prices."""
        self.passes()
        self.house.close(self.today)
        self.passes()
        self.house.day(day)
        self.today, self.prices[day] = day, self.draw.choice((1_500_000, 2_612_345, 3_100_000))
        fixing = FixingRecorded(index="HBX-H100", date=day, revision=0, state="PUBLISHED",
                                price=f"{self.prices[day] / 1_000_000:.6f}")  # fmt: skip
        assert self.record(fixing) == "accepted"

    def live(self) -> None:
        """The month and the days after it, in halves; a crash now and then."""
        begin = self.deliveries.expiries[0].terms.begin_ns
        for half in range(2 * (DAYS + 8)):
            self.house.market.stamp = max(self.house.market.stamp, begin + half * DAY_NS // 2)
            self.passes()
            self.house.at(0)
            self.compare()
            for course in self.courses.values():
                for day in range(len(course.settled) + 1, min(half // 2, DAYS) + 1):
                    if course.stage == "delivering":
                        self.attest(course, day)
            if self.draw.random() < 0.05:
                self.house.reopen()
            if half % 14 == 13:
                self.fix((20261201 if half < 2 * DAYS else 20270101 - DAYS) + half // 2)
        self.fix(20270201)

    def compare(self) -> None:
        """What ended a day ago is known no more."""
        for one in self.deliveries.deliveries:
            course = self.courses[one.id]
            assert one.stage == course.stage
            assert [day.attested_s for day in one.slices] == [there for there, _ in course.settled]


@pytest.mark.parametrize("seed", range(12))
def test_every_account_has_what_the_rules_give_it(tmp_path: Path, seed: int) -> None:
    months = Months(tmp_path / "clearing.db", seed)
    house = months.house
    months.expire()
    house.pay(but=("delivery",))  # penalties of who has not tendered
    before = {a: house.clearing.statement(a).delivery for a in (*SHORTS, *LONGS)}
    months.pay()
    months.live()
    house.pay()
    assert {c.stage for c in months.courses.values()} <= {"delivered", "failed", "unpaid"}
    for account in before:
        moved = sum(course.cash[account] for course in months.courses.values())
        assert house.clearing.statement(account).delivery - before[account] == moved
    house.agree()
    house.clearing.close()


@pytest.mark.parametrize("stops", [3, 4, 20, 29])
def test_who_stops_delivering_answers_for_the_hours_before(house: House, stops: int) -> None:
    """What was lost of them is trued up or, under the floor, given back, as at the month's end."""
    begin = begun(house)
    for day in range(1, DAYS + 1):
        house.at(begin + day * DAY_NS)
        figure = (WHOLE, WHOLE // 12 if stops % 2 else WHOLE // 2) if day < stops else (0, 0)
        for account in (SHORT, OLD):
            house.record(attest(account, day, *figure))
    house.at(begin + (DAYS + 1) * DAY_NS)
    (delivery,) = deliveries(house).deliveries
    assert (delivery.stage, len(delivery.slices)) == ("failing", stops + 2)
    (failing,) = (f for _, outcome, f in house.rulings("delivery") if outcome == "failing")
    earned = sum(one.payable for one in delivery.slices)
    if stops % 2:
        realized = Fraction(11, 12) / FIXED
        owed = cents(delivery.price * (1 - realized - TOLERANCE), WHOLE * (stops - 1) // 3_600, 1)
        assert (failing["hours"], failing["refund"]) == ((DAYS - stops + 1) * 24, 0)
        assert failing["true_up"] == owed > 0
    else:
        assert (failing["hours"], failing["refund"], failing["true_up"]) == (HOURS, earned, 0)
    house.pay()
    house.agree()


def test_hours_that_were_there_and_lost_are_not_hours_that_were_missing(house: House) -> None:
    """As much is left of both figures, but one pays for the whole day and the other for half."""
    begin = begun(house)
    for day, seller, buyer, said in (
        (1, (WHOLE, WHOLE // 2), (WHOLE // 2, 0), "disputed"),
        (2, (WHOLE, WHOLE // 50), (WHOLE - WHOLE // 50, 0), "disputed"),
        (3, (WHOLE, WHOLE // 100), (WHOLE - WHOLE // 100, 0), "agreed"),
        (4, (WHOLE, WHOLE // 100 + 1), (WHOLE, 0), "disputed"),
        (5, (WHOLE, WHOLE // 100), (WHOLE - 1, 0), "agreed"),
    ):
        house.at(begin + day * DAY_NS)
        house.record(attest(SHORT, day, *seller))
        assert house.record(attest(OLD, day, *buyer))[1]["said"] == said
    house.at(begin + 6 * DAY_NS)  # the buyer's figure of the first day stands
    (first,) = deliveries(house).deliveries[0].slices
    assert (first.attested_s, first.payable) == (
        WHOLE // 2, deliveries(house).deliveries[0].parts[0] // 2
    )  # fmt: skip


def test_no_fixing_of_a_day_before_the_failure_prices_a_buy_in(house: House) -> None:
    """The business date may be days behind: over a weekend, or while the market is closed."""
    begin = begun(house)
    for day in (1, 2, 3):
        house.at(begin + (day + 2) * DAY_NS)
    (delivery,) = deliveries(house).deliveries
    assert (delivery.stage, delivery.failed_on) == ("failing", 20261206)
    assert house.clearing._state.business_date == 20261130
    for day, stage in ((20261130, "failing"), (20261205, "failing"), (20261206, "failed")):
        fixing = FixingRecorded(index="HBX-H100", date=day, revision=0, state="PUBLISHED",
                                price="3.000000")  # fmt: skip
        house.record(fixing)
        assert deliveries(house).deliveries[0].stage == stage


@pytest.mark.parametrize(
    ("factor", "fixed"),
    [(FACTOR, 0), (FACTOR, 10_001), (FACTOR, -1), (0, 9_750), (-FACTOR, 9_750), (10**30, 9_750)],
)
def test_a_table_by_which_nothing_can_be_invoiced_is_malformed(
    house: House, factor: int, fixed: int
) -> None:
    """Whoever signed it: at the expiry or the month's end clearing could not go on."""
    before, good = deliveries(house).factors.copy(), factors(version=2)
    made = table.read(good.table.encode())
    (row,) = made.rows
    row = msgspec.structs.replace(row, factor_e4=factor, fixed_e4=fixed)
    bad = table.sign(msgspec.structs.replace(made, rows=(row,)), key_of("x"))
    text = msgspec.json.encode(bad).decode()
    record = msgspec.structs.replace(good, table=text)
    with pytest.raises(RequestRefused, match="alpha/one: factor"):
        wishes.record_factors(bad, text)
    outcome, facts = house.record(record)
    assert outcome == "malformed" and facts["why"].startswith("alpha/one: factor")
    assert deliveries(house).factors == before
    assert house.record(good)[0] == "accepted"
