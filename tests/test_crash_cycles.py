"""A crash at every step of a default, a delivery and a change of hands ends in exactly one cycle.

Each cycle is run once undisturbed, then once for every batch of it with a crash there, of three
kinds in turn: clearing dies before it has booked the batch; who sent it dies before the answer and
sends it again; the ledger's file is lost. Where money, lots, fund, escrow and stages end is one.
Budget: 30 seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import pytest
import test_defaults as default
import test_deliveries as delivery
from clearing_house import House, factors

from exchange.clearing import Clearing
from exchange.clearing.default.matter import Defaults
from exchange.clearing.default.records import (
    CloseDefault,
    DistributeRecovery,
    OpenAuction,
    SizeFund,
)
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.delivery.terms import DAY_NS
from exchange.clearing.expiry import FixingRecorded
from exchange.clearing.members.offbook import OffBook
from exchange.clearing.members.records import GiveUp, Register, Sign
from exchange.messages import EVENT, Command, CommandKind, EventFlag, EventKind

UNBOOKED, UNANSWERED, LOST = range(3)


@dataclass
class Crashing(House):
    """A house that crashes at the batch of a number, in one of three ways."""

    crash_at: int = -1
    kind: int = UNBOOKED
    sent: int = 0  # batches

    def send(self, *commands: Command, texts: list[tuple[int, str]] | None = None) -> bytes:
        self.sent += 1
        if self.sent != self.crash_at:
            return super().send(*commands, texts=texts)
        if self.kind == UNBOOKED:
            events = self.market.apply(*commands, texts=texts or [])
            self.reopen()
            self.clearing.apply(self.market.frames)
            return events
        events = super().send(*commands, texts=texts)
        if self.kind == UNANSWERED:
            self.reopen()
            self.market.apply(*commands, texts=texts or [])
            self.clearing.apply(self.market.frames[-1:])
        else:
            self.clearing.rebuild(self.market.frames)
            self.__post_init__()
        return events


def ends(house: House) -> dict[str, Any]:
    """Where everything is, and how often lots and money moved."""
    house.agree()
    state = house.clearing._state
    rows = [row for frame in house.market.frames for row in EVENT.iter_unpack(frame.events)]
    moved = (EventKind.DEPOSITED, EventKind.WITHDRAWN, EventKind.FEE_CHARGED,
             EventKind.LOTS_TRANSFERRED, EventKind.POSITION_SETTLED)  # fmt: skip
    off_book = state.matters.get(OffBook)
    return {
        "cash": {account: state.ledger.cash(account) for account in (0, *state.members)},
        "lots": {
            (number, account): held.net
            for number in state.positions.instruments()
            for account, held in state.positions.of_instrument(number).items()
        },
        "book": {name: account.totals() for name, account in state.book.accounts.items()},
        "moved": sorted(
            (row[2], row[6], row[8], row[9]) for row in rows
            if row[2] in moved and not row[3] & EventFlag.DUPLICATE
        ),
        "defaults": [
            (d.stage, d.junior, d.repaid) for d in state.matters.get(Defaults).defaults
        ],
        "deliveries": [
            (d.stage, d.weeks, d.slices) for d in state.matters.get(Deliveries).deliveries
        ],
        "transfers": sorted(
            (n, t.stage) for n, t in (off_book.pending | off_book.ended).items()
        ),
        "dues": [due.id for due in house.dues()],
    }  # fmt: skip


# The cycles


def a_default(house: House) -> None:
    """Frozen, ported, auctioned, torn up, shared, replenished, ended; then something comes in."""
    default.crash(house)
    default.declare(house)
    house.record(default.port())
    house.pay()
    _, facts = house.record(OpenAuction(default=1, instrument=0, person="risk"))
    for account, lots, price in ((20, 60, 1_500_000), (30, 20, 1_480_000)):
        default.bid(house, account, lots, price)
    house.at(facts["deadline"])
    house.pay()
    default.tear_up(house)
    house.pay()
    default.settle(house, 1_500_000)
    house.pay()
    default.allocate(house)
    house.pay()
    for account in (20, 30, 40):
        house.send(house.market.money(CommandKind.DEPOSIT, account, default.DEPOSIT))
    house.record(SizeFund(person="risk"))
    house.pay()
    both = {"proposed_by": "risk", "approved_by": "chief"}
    for record in (CloseDefault(default=1, **both), DistributeRecovery(default=1, **both)):
        house.record(record)
        house.pay()
        house.send(house.market.money(CommandKind.DEPOSIT, 10, 7_000_000_001))


def delivered_until(house: House, last: int) -> int:
    """Tendered, assigned, expired, in escrow, and delivered day by day; the month's begin."""
    begin = delivery.begun(house)
    for day in range(1, last + 1):
        house.at(begin + day * DAY_NS)
        for account in (delivery.SHORT, delivery.OLD):
            house.record(delivery.attest(account, day))
        house.pay()
    return begin


def a_delivery_that_fails(house: House) -> None:
    """A week is paid, the seller stops, the next fixing buys in."""
    begin = delivered_until(house, 7)
    for day in (8, 9, 10):
        house.at(begin + (day + 2) * DAY_NS)
    house.pay()
    house.record(
        FixingRecorded(index="HBX-H100", date=20261216, revision=0, state="PUBLISHED",
                       price="3.000000")
    )  # fmt: skip
    house.pay()


def a_delivery_that_is_agreed_otherwise(house: House) -> None:
    delivered_until(house, 2)
    for account in (delivery.SHORT, delivery.OLD):
        house.record(delivery._alternative(account))
    house.pay()


def a_buyer_that_does_not_pay_in(house: House) -> None:
    """And shorts that tender nothing: penalties to those who get nothing."""
    house.trade(delivery.NEW, delivery.SHORT, 16, 2_550)
    delivery.assigned(house)
    house.pay(but=("delivery 1 escrow",))
    house.at(delivery.deliveries(house).expiries[0].terms.begin_ns)
    house.pay()


def changes_of_hands(house: House) -> None:
    """A give-up, a block and an exchange for physical: signed by both, moved once."""
    for account in (20, 30, 40):
        house.send(house.market.money(CommandKind.DEPOSIT, account, default.DEPOSIT))
    terms: dict[str, Any] = {"instrument": 0, "price": 2_500_000}
    for record, signer in (
        (GiveUp(account=20, taker=30, lots=5, match_number=7, **terms), (30,)),
        (Register(account=20, other=30, lots=50, **terms), (30,)),
        (Register(account=40, other=20, lots=3, kind="efp", related="PO 7", **terms), (20,)),
    ):
        number = house.record(record)[1]["transfer"]
        for account in signer:
            house.record(Sign(account=account, transfer=number))
        house.pay()


def physical(path: Path) -> House:
    """As the deliveries' tests begin."""
    house = House(Clearing.open(path))
    for account in (delivery.SHORT, delivery.OLD, delivery.NEW, delivery.OTHER):
        house.open(account, account, 1, delivery.DEPOSIT)
    house.list(0, "H100PZ26", date(2026, 11, 2))
    house.day(20261118)
    house.trade(delivery.OLD, delivery.SHORT, 8, 2_500)
    house.close(20261118)
    house.record(factors())
    return house


CYCLES: Final[list[tuple[Callable[[Path], House], Callable[[House], None]]]] = [
    (default.start, a_default),
    (physical, a_delivery_that_fails),
    (physical, a_delivery_that_is_agreed_otherwise),
    (physical, a_buyer_that_does_not_pay_in),
    (default.start, changes_of_hands),
]


def run(
    begin: Callable[[Path], House], cycle: Callable[[House], None], path: Path, at: int, kind: int
) -> tuple[dict[str, Any], int]:
    """Where a cycle with a crash at a batch ends, and how many batches it has."""
    begun = begin(path)
    house = Crashing(begun.clearing, begun.market, crash_at=at, kind=kind)
    cycle(house)
    assert at <= house.sent, "it did not crash"
    count, found = house.sent, ends(house)
    house.clearing.close()
    return found, count


@pytest.mark.parametrize(("begin", "cycle"), CYCLES, ids=lambda value: value.__name__)
def test_a_crash_at_every_step_ends_in_one_cycle(
    begin: Callable[[Path], House], cycle: Callable[[House], None], tmp_path: Path
) -> None:
    wanted, count = run(begin, cycle, tmp_path / "whole.db", -1, UNBOOKED)
    assert count > 8 and wanted["moved"]
    for at in range(1, count + 1):
        path = tmp_path / f"{at}.db"
        found, _ = run(begin, cycle, path, at, at % 3)
        assert found == wanted, (cycle.__name__, at, at % 3)
