"""A defaulter's client goes to another member, with all that it has, when two people say so."""

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import msgspec
import pytest
from clearing_house import RATE, House, factors
from live import CODE, Live, opened_live, until
from overrides import people
from test_defaults import (
    CLIENT,
    DAY,
    DEPOSIT,
    HAVEN,
    HOURS,
    POOR,
    RICH,
    SAFE,
    cancelled,
    declare,
    defaults,
    house,
    port,
)
from test_margin_market import version

from contracts.hardware import gpu_class
from exchange.app import requests, wishes
from exchange.app.wishes import RequestRefused
from exchange.clearing.calling import CallMargin, Calls, Pledge, Release, ValueAsset
from exchange.clearing.delivery import dvp
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.delivery.records import (
    Attest,
    NameConsignee,
    SetJurisdiction,
    Tender,
)
from exchange.clearing.delivery.slices import DAY_S
from exchange.clearing.delivery.terms import DAY_NS
from exchange.clearing.margin.matter import AdoptMargin
from exchange.clearing.members.registry import Registry
from exchange.clearing.novation import Position
from exchange.clearing.standing import standing
from exchange.messages import (
    TRADE,
    TRADE_FIELDS,
    CancelReason,
    Command,
    CommandKind,
    EventKind,
    Side,
    Trade,
    TradingState,
)

__all__ = ["house"]  # a fixture
FEES = 10_000_000  # micro-dollars for the fees of a trade
ASSETS = {"T-BILL": (990_000_001, 150), "GOLD": (70_000_000, 1_000)}  # price of a unit, haircut


def calls(house: House) -> Calls:
    return house.clearing._state.matters.get(Calls)


def pledged(house: House, account: int) -> dict[str, int]:
    state = house.clearing._state
    return {asset: units for asset, _, units, _ in state.matters.get(Calls).pledges(account, state)}


def pledge(house: House, account: int, asset: str, units: int) -> None:
    id = f"{account} {asset} {house.market.key()}"
    assert house.record(Pledge(id=id, account=account, asset=asset, units=units))[0] == "accepted"


@pytest.fixture
def secured(house: House) -> House:
    """CLIENT has pledged of two assets, HAVEN and SAFE of one."""
    for asset, (price, haircut) in ASSETS.items():
        house.record(ValueAsset(asset=asset, price=price, haircut_bp=haircut))
    pledge(house, CLIENT, "T-BILL", 7)
    pledge(house, CLIENT, "GOLD", 3)
    pledge(house, HAVEN, "T-BILL", 2)
    pledge(house, SAFE, "GOLD", 5)
    return house


def test_a_client_goes_to_another_member_with_positions_and_cash(house: House) -> None:
    """Frozen, its cash, its lots; what the settlement after it still brings follows."""
    house.send(house.market.enter(CLIENT, Side.SELL, 3_900, 1))
    declare(house)
    before, margin = house.clearing.cash(CLIENT), house.market.engine.account(CLIENT)["hold"]
    assert margin > 0
    outcome, facts = house.record(port())
    assert (outcome, facts["lots"], facts["cash"]) == ("ported", {"H100Z26": 10}, before)
    house.pay()
    assert cancelled(house) == [(CLIENT, CancelReason.KILLED)]
    assert [house.clearing.net(a, 0) for a in (CLIENT, HAVEN)] == [0, 10]
    assert [house.clearing.cash(a) for a in (CLIENT, HAVEN)] == [0, before]
    registry = house.clearing._state.matters.get(Registry)
    assert registry.gross_margin(2, house.clearing._state) == 30 * RATE
    # it traded at 2,500 and is settled at 2,600: the first part of that came at the old account
    house.send(house.market.settle(0, 2_600_000))
    house.pay()
    moved = 10 * 100_000 * HOURS
    assert [house.clearing.cash(a) for a in (CLIENT, HAVEN)] == [0, before + moved]
    house.agree()
    assert house.record(port())[0] == "duplicate"
    house.clearing.rebuild(house.market.frames)
    assert house.clearing.net(HAVEN, 0) == 10


def test_cash_that_is_ported_is_nobodys_fee_and_nobodys_profit(house: House) -> None:
    """It stands where a default's other payments do; the house earns nothing as it passes."""
    declare(house)
    before = {who: house.clearing.statement(who) for who in (CLIENT, HAVEN, 0)}
    house.record(port())
    house.pay()
    after = {who: house.clearing.statement(who) for who in before}
    cash = before[CLIENT].closing
    assert [after[who].closing for who in (CLIENT, HAVEN)] == [0, cash]
    moved = {who: after[who].default_fund - was.default_fund for who, was in before.items()}
    assert moved == {CLIENT: -cash, HAVEN: cash, 0: 0}
    for who, was in before.items():
        now = after[who]
        for line in ("deposits", "withdrawals", "fees", "fees_earned"):
            assert getattr(now, line) == getattr(was, line), (who, line)
        assert now.profit == was.profit + now.unrealized - was.unrealized


def test_what_was_traded_since_the_settlement_follows_the_client(house: House) -> None:
    """Bought below the settlement price: the gain is paid at the old account, then moved."""
    house.send(house.market.settle(0, 2_500_000))
    house.trade(CLIENT, RICH, 5, 2_400)
    declare(house)
    before = house.clearing.cash(CLIENT)
    house.record(port())
    house.pay()
    house.send(house.market.settle(0, 2_450_000, cycle=2))
    gain = 5 * 100_000 * HOURS  # of the trade, up to the price the lots were moved at
    assert house.clearing.cash(CLIENT) == gain
    house.pay()
    assert house.clearing.cash(CLIENT) == 0
    moved = before + gain - 15 * 50_000 * HOURS
    assert house.clearing.cash(HAVEN) == moved
    (rest,) = [facts for _, outcome, facts in house.rulings("port_client") if outcome == "rest"]
    assert rest == {"account": CLIENT, "to": HAVEN, "cash": gain}
    assert "port" not in defaults(house).defaults[0].steps
    house.agree()


@pytest.mark.parametrize("lots", [-4, -15, 3])
def test_lots_of_a_trade_before_the_freeze_go_as_well(house: House, lots: int) -> None:
    """It may have sold what was to be moved, or bought more: what it holds when frozen goes."""
    declare(house)
    assert house.record(port())[1]["lots"] == {"H100Z26": 10}
    buyer, seller = (CLIENT, RICH) if lots > 0 else (RICH, CLIENT)
    house.trade(buyer, seller, abs(lots), 2_500)
    house.pay_what_is_there()
    house.reopen()
    house.pay()
    assert [house.clearing.net(a, 0) for a in (CLIENT, HAVEN)] == [0, 10 + lots]
    house.send(house.market.settle(0, 2_600_000))
    house.pay()
    assert house.clearing.cash(CLIENT) == 0
    assert "port" not in defaults(house).defaults[0].steps
    rests = [facts for _, outcome, facts in house.rulings("port_client") if outcome == "rest"]
    assert rests[0]["lots"] == {"H100Z26": lots if lots > 0 else 10 + lots}
    house.agree()


def test_lots_of_a_trade_that_is_taken_back_after_the_port_follow(house: House) -> None:
    house.send(house.market.enter(RICH, Side.SELL, 2_500, 4))
    events = house.send(house.market.enter(CLIENT, Side.BUY, 2_500, 4))
    (made,) = [row for row in TRADE.iter_unpack(events) if row[2] == EventKind.TRADE]
    declare(house)
    house.record(port())
    house.pay()
    house.send(wishes.bust(Trade(**dict(zip(TRADE_FIELDS, made, strict=True)))).command)
    house.pay()
    assert [house.clearing.net(a, 0) for a in (CLIENT, HAVEN)] == [0, 10]
    house.agree()


def test_cash_follows_where_lots_could_not_move_until_they_expired(house: House) -> None:
    """Who takes the client had no margin for them: they ended with their contract."""
    declare(house)
    house.record(port(POOR))
    house.pay(but=("port 1 11 0",))
    house.send(
        Command(kind=CommandKind.SET_STATE, instrument=0, tif=TradingState.CLOSED),
        Command(kind=CommandKind.EXPIRE, instrument=0, price=2_600_000),
    )
    assert not [due for due in house.dues() if due.kind == "transfer"]
    house.pay()
    assert house.clearing.cash(CLIENT) == 0
    house.agree()


def test_collateral_goes_with_the_client_and_no_unit_is_lost(secured: House) -> None:
    """One chain for all assets; the ledger of each sums to zero, custody is as it was."""
    house = secured
    declare(house)
    book = house.clearing._state.book
    custody = {asset: book.accounts[f"custody/{asset}"].totals() for asset in ASSETS}
    outcome, facts = house.record(port())
    assert (outcome, facts["collateral"]) == ("ported", {"GOLD": 3, "T-BILL": 7})
    assert pledged(house, CLIENT) == {}  # with the ruling: no command of the engine is needed
    assert pledged(house, HAVEN) == {"GOLD": 3, "T-BILL": 9}
    assert pledged(house, SAFE) == {"GOLD": 5}
    rows = [row for row in house.clearing._store.transfers() if row.id.startswith("port 1 ")]
    assert [(row.debit, row.credit, row.amount) for row in rows] == [
        (f"pledged/{CLIENT}/{asset}", f"pledged/{HAVEN}/{asset}", units)
        for asset, units in (("GOLD", 3), ("T-BILL", 7))
    ]
    book = house.clearing._state.book
    assert {asset: book.accounts[f"custody/{asset}"].totals() for asset in ASSETS} == custody
    assert sum(units for _, asset, units in house.clearing.trial_balance().book
               if asset == "T-BILL") == 0  # fmt: skip
    house.pay()
    house.agree()  # every ledger of the book sums to zero
    house.clearing.audit()
    house.clearing.rebuild(house.market.frames)
    assert pledged(house, HAVEN) == {"GOLD": 3, "T-BILL": 9}


def test_what_is_pledged_at_the_old_account_later_follows(secured: House) -> None:
    house = secured
    declare(house)
    house.record(port())
    house.pay()
    assert "port" not in defaults(house).defaults[0].steps
    for units in (1, 2):
        pledge(house, CLIENT, "GOLD", units)
        house.send(house.market.settle(0, 2_500_000, cycle=units))
        assert house.rulings("port_client", newest=1)[0][1:] == (
            "rest", {"account": CLIENT, "to": HAVEN, "collateral": {"GOLD": units}},
        )  # fmt: skip
    assert (pledged(house, CLIENT), pledged(house, HAVEN)["GOLD"]) == ({}, 6)
    house.pay()
    house.agree()


def test_a_clients_call_ends_and_its_collateral_meets_one_of_the_account_that_takes_it(
    secured: House,
) -> None:
    """The client has the engine's hold in cash and too little gold beside it; HAVEN is short of
    less than that gold. Maintenance is the whole requirement."""
    house, terms = secured, version(1, DAY)
    whole = [msgspec.structs.replace(one, maintenance_percent=100) for one in terms.products]
    terms = msgspec.structs.replace(terms, products=tuple(whole))
    house.record(AdoptMargin(parameters=terms))
    house.record(Release(id="r", account=CLIENT, asset="T-BILL", units=7))
    house.record(Release(id="s", account=HAVEN, asset="T-BILL", units=2))
    required = {r.account: int(r.requirement) + int(r.loss) for r in house.clearing.margins()}
    paid = required[CLIENT] - 50_000_000  # for as many lots at the same price
    house.send(house.market.money(CommandKind.DEPOSIT, HAVEN, paid))
    house.trade(HAVEN, RICH, 10, 2_500)
    spare = house.clearing.cash(CLIENT) - house.market.engine.account(CLIENT)["hold"]
    house.send(house.market.money(CommandKind.WITHDRAW, CLIENT, spare))
    called = house.record(CallMargin(within_seconds=60))[1]
    assert {str(CLIENT), str(HAVEN)} <= called["calls"].keys()
    declare(house)
    assert house.record(port())[0] == "ported"
    assert CLIENT not in calls(house).open and HAVEN in calls(house).open
    state, store = house.clearing._state, house.clearing._store
    assert [one.step for one in standing(state, store, CLIENT).calls] == ["called", "closed"]
    house.at(called["deadlines"][str(HAVEN)])
    assert [one.step for one in standing(state, store, HAVEN).calls] == ["called", "met"]


def test_a_call_that_a_pledge_meets_says_so(secured: House) -> None:
    house = secured
    house.record(AdoptMargin(parameters=version(1, DAY)))
    house.record(Release(id="s", account=HAVEN, asset="T-BILL", units=2))
    house.send(house.market.money(CommandKind.DEPOSIT, HAVEN, 10 * RATE + FEES))
    house.trade(HAVEN, RICH, 10, 2_500)
    house.record(CallMargin())
    pledge(house, HAVEN, "T-BILL", 20)
    found = house.clearing.statement(HAVEN).standing
    assert found is not None and [one.step for one in found.calls] == ["called", "met"]


# Deliveries


def physical(house: House, buyer: int = CLIENT, seller: int = RICH, lots: int = 8) -> None:
    """``seller`` is short so many lots of H100PZ26, and has tendered them."""
    for account in (buyer, seller):
        house.send(house.market.money(CommandKind.DEPOSIT, account, 20 * DEPOSIT))
    house.list(1, "H100PZ26", date(2026, 11, 2))
    house.trade(buyer, seller, lots, 2_500, 1)
    house.close(DAY)
    house.record(factors())
    house.at(deliveries(house).expiries[1].terms.notice_from_ns)
    tender = Tender(account=seller, instrument=1, lots=lots, grade="H100-NODE", provider="alpha",
                    facility="one", factor_version=1)  # fmt: skip
    assert house.record(tender)[0] == "accepted"
    declare(house)


def deliveries(house: House) -> Deliveries:
    return house.clearing._state.matters.get(Deliveries)


def cut_off(house: House) -> None:
    house.at(deliveries(house).expiries[1].terms.cutoff_ns + 1)


def expire(house: House) -> None:
    house.day(20261130)
    house.send(
        Command(kind=CommandKind.SET_STATE, instrument=1, tif=TradingState.CLOSED),
        Command(kind=CommandKind.EXPIRE, instrument=1, price=2_500_000),
    )


@pytest.mark.parametrize(
    ("done", "on_its_way"), [(0, False), (1, False), (2, False), (2, True), (3, False)]
)
def test_a_delivery_goes_with_the_client_that_receives_it(
    house: House, done: int, on_its_way: bool
) -> None:
    """The cash has left the old account: the escrow is asked of who has it. An escrow of the old
    one that was on its way goes back, and follows."""
    physical(house)
    steps: list[Callable[[House], None]] = [cut_off, expire, House.pay]
    for step in steps[:done]:
        step(house)
    late = [due for due in house.dues() if due.id == "delivery 1 escrow" and on_its_way]
    outcome, facts = house.record(port())
    assert (outcome, facts["deliveries"]) == ("ported", [1] if done else [])
    for due in late:
        house.send(wishes.due(due).command)
    house.reopen()
    for step in steps[done:]:
        house.pay()
        step(house)
    (delivery,) = deliveries(house).deliveries
    assert (delivery.seller, delivery.buyer, delivery.stage) == (RICH, HAVEN, "delivering")
    begin = deliveries(house).expiries[1].terms.begin_ns
    house.at(begin + DAY_NS)
    for account in (RICH, HAVEN):
        spoken = Attest(account=account, delivery=1, day=1, available=8 * DAY_S)
        assert house.record(spoken, account)[0] == "accepted"
    house.pay()
    house.at(begin + 2 * DAY_NS)
    assert house.clearing.cash(CLIENT) == 0 and len(delivery.slices) == 1
    assert dvp.balance(house.clearing._state.book, f"hours/{HAVEN}") == 8 * DAY_S
    returned = [f for _, outcome, f in house.rulings("delivery") if outcome == "escrow_returned"]
    assert len(returned) == on_its_way
    house.agree()
    rulings = house.rulings("delivery")
    house.clearing.rebuild(house.market.frames)
    assert house.rulings("delivery") == rulings


def test_a_consignee_is_of_an_account_that_there_is(house: House) -> None:
    """Somebody's who mistyped it would otherwise be barred without a word."""
    named = NameConsignee(account=99, country="XC", parent_country="XC")
    outcome, facts = house.record(named)
    assert (outcome, facts["observed"]) == ("unknown_account", 99)
    assert (deliveries(house).consignees, deliveries(house).years) == ({}, {})


def test_no_delivery_is_ported_to_who_may_not_receive_it(house: House) -> None:
    def name(account: int, country: str, received: int = 0) -> None:
        named = NameConsignee(account=account, country=country, parent_country=country,
                              tpp_received=received)  # fmt: skip
        assert house.record(named)[0] == "accepted"

    node = 8 * gpu_class("H100-SXM").tpp
    rules = SetJurisdiction(enabled=True, denied_countries=("XD",), tpp_per_consignee=2 * node)
    name(CLIENT, "XC")
    house.record(rules)
    physical(house)
    cut_off(house)
    assert deliveries(house).deliveries[0].buyer == CLIENT
    name(HAVEN, "XD")
    outcome, facts = house.record(port())
    assert (outcome, facts["limit"], facts["observed"]) == ("barred", 1, HAVEN)
    name(HAVEN, "XC", node + 1)  # with eight lots more it would be above the year's limit
    assert house.record(port())[0] == "barred"
    name(HAVEN, "XC", node)
    assert house.record(port())[0] == "ported"
    assert deliveries(house).deliveries[0].buyer == HAVEN
    assert deliveries(house).consignees[HAVEN].tpp_received == 2 * node
    house.agree()


def test_a_client_keeps_its_consignee_where_it_goes(house: House) -> None:
    named = NameConsignee(account=CLIENT, country="XC", parent_country="XC", tpp_received=5)
    house.record(named)
    house.record(SetJurisdiction(enabled=True, denied_countries=("XD",)))
    physical(house)
    assert house.record(port())[0] == "ported"
    cut_off(house)  # lots still at the old account are assigned to the new one
    (delivery,) = deliveries(house).deliveries
    assert delivery.buyer == HAVEN
    received = deliveries(house).consignees[HAVEN].tpp_received
    assert received == 5 + 8 * gpu_class("H100-SXM").tpp
    house.pay()
    house.agree()


def test_a_notice_goes_with_the_client_that_gave_it(house: House) -> None:
    """It is its lots that it was given of: nobody pays for not having tendered them."""
    physical(house, RICH, CLIENT)
    house.record(port())
    house.pay()
    cut_off(house)
    expire(house)
    (delivery,) = deliveries(house).deliveries
    assert (delivery.seller, delivery.buyer) == (HAVEN, RICH)
    assert deliveries(house).expiries[1].untendered == {}


def test_lots_keep_the_date_on_which_they_were_bought(house: House) -> None:
    """HAVEN's own are a day younger: the client's are still the oldest."""
    physical(house)
    house.send(house.market.money(CommandKind.DEPOSIT, HAVEN, 20 * DEPOSIT))
    house.day(DAY + 1)
    house.trade(HAVEN, RICH, 3, 2_500, 1)
    house.close(DAY + 1)
    house.record(port())
    house.pay()
    assert deliveries(house).expiries[1].longs[HAVEN] == [(DAY, 8), (DAY + 1, 3)]


# The two people


live = opened_live  # a fixture


def record(operation: str, **fields: object) -> requests.PutRecord:
    return requests.PutRecord(record=json.dumps({"operation": operation, **fields}))


async def test_two_keys_port_a_client_and_names_alone_do_not(live: Live) -> None:
    """Neither a record that names two people, nor the socket, nor one key twice."""
    market, perform = live.market, live.market.operations.perform
    people(market.directory, "key-a", "key-b")
    await perform(requests.OpenAccount(account=1, kind="house"))
    await perform(requests.OpenAccount(account=2, member=1))
    await perform(requests.OpenAccount(account=3, kind="house"))
    client, other = await live.client(2), await live.client(3)
    listed = market.desk.instruments.by_code[CODE]
    price = listed.mark // listed.tick_scale
    await other.enter(CODE, "sell", 4, price)
    await client.enter(CODE, "buy", 4, price)
    await perform(requests.OpenAccount(account=4, member=3, kind="client"))
    await perform(record("value_asset", asset="T-BILL", price=990_000_000, haircut_bp=100))
    await perform(record("pledge", id="p", account=2, asset="T-BILL", units=6))
    await perform(record("declare_default", member=1, person="ann", reason="unpaid"))
    facts = {"operation": "port_client", "default": 1, "account": 2, "to": 4}
    named = {**facts, "proposed_by": "ann", "approved_by": "bob"}
    with pytest.raises(RequestRefused, match="takes two people"):
        await perform(requests.PutRecord(record=json.dumps(named)))
    wish = requests.ByTwo(record=json.dumps(facts), reason="member 3 takes it on")
    with pytest.raises(RequestRefused, match="each under an admin key of their own"):
        await perform(wish)
    proposed = await perform(wish, "key-a")
    assert proposed["collateral"] == {"T-BILL": 6} and proposed["lots"] == {CODE: 4}
    assert market.clearing.net(2, listed.id) == 4  # nothing has moved yet
    with pytest.raises(RequestRefused, match="another person"):
        await perform(requests.Approve(proposal=proposed["proposal"]), "key-a")
    done = await perform(requests.Approve(proposal=proposed["proposal"]), "key-b")
    assert (done["proposed_by"], done["approved_by"]) == ("key-a", "key-b")
    await until(lambda: market.clearing.net(4, listed.id) == 4)
    market.clearing.refresh()
    state = market.clearing._state
    held = {a: state.matters.get(Calls).collateral(a, state) for a in (2, 4)}
    assert held == {2: 0, 4: 6 * 990_000_000 * 99 // 100}
    with pytest.raises(RequestRefused, match="duplicate"):
        await perform(wish, "key-a")


def test_who_was_ported_once_is_not_looked_for_in_every_contract(house: House) -> None:
    """At every deposit and settlement of the market, for good: only what it ever held is read."""

    class Counted(dict[int, dict[int, Position]]):
        read = 0

        def __getitem__(self, instrument: int) -> dict[int, Position]:
            self.read += 1
            return super().__getitem__(instrument)

        def get(self, instrument: int, other: Any = None) -> Any:
            self.read += 1
            return super().get(instrument, other)

    declare(house)
    house.record(port())
    house.pay()
    house.reopen()
    positions, reads = house.clearing._state.positions, []
    for contracts in (0, 300):
        for number in range(1, contracts):
            positions.add(RICH, number, 0, 0)
        positions._books = books = Counted(positions._books)
        house.send(house.market.money(CommandKind.DEPOSIT, SAFE, 1))
        reads.append(books.read)
    assert reads[0] == reads[1] > 0
    assert [number for number, _ in positions.of_account(CLIENT)] == [0]
    assert [number for number, _ in positions.of_account(RICH)] == list(range(300))
