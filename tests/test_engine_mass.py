"""Mass cancel and the kill switches by example, on engine and oracle."""

from typing import Any

import pytest
from differences import Machine, restored
from generator import pack
from oracle import Oracle
from test_engine_rules import BUY, SELL, Desk, words

from exchange.engine import Engine
from exchange.messages import (
    EVENT,
    CombinationRule,
    CommandFlag,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    KillScope,
    Limit,
    Reason,
    Selection,
    TradingState,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
LAST = int(EventFlag.LAST_IN_COMMAND)
KILLED = {
    KillScope.ACCOUNT: Reason.ACCOUNT_KILLED,
    KillScope.SESSION: Reason.SESSION_KILLED,
    KillScope.MEMBER: Reason.MEMBER_KILLED,
    KillScope.EXCHANGE: Reason.EXCHANGE_KILLED,
}


class Street(Desk):
    """The desk with instruments 1 and 2 of product 7, account 1 online in two sessions."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        for number in (1, 2):
            self.do(
                pack(
                    CommandKind.LIST, instrument=number, price=1000, quantity=2, session=10,
                    account=1, operator=1, target_lo=50, target_hi=150, key_lo=7,
                ),
                pack(CommandKind.SET_RISK, instrument=number, price=50, quantity=1000, session=500),
                pack(CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS),
            )  # fmt: skip
        self.first, self.second = (
            self.do(pack(CommandKind.LOGON, account=1))[0].order_id for _ in range(2)
        )

    def scatter(self) -> dict[str, int]:
        """Orders of account 1, by name; entered in the order of their names. One of account 3."""
        return {
            "a0": self.rest(1, BUY, 5, 90, session=self.first),
            "b0": self.rest(1, SELL, 6, 110, session=self.second),
            "c1": self.rest(1, BUY, 7, 91, instrument=1, session=self.first),
            "d2": self.rest(1, SELL, 8, 111, instrument=2),
            "other": self.rest(3, BUY, 1, 92),
        }

    def mass_cancel(self, **fields: int) -> list[Event]:
        return self.do(pack(CommandKind.MASS_CANCEL, **{"account": 1, "side": 2, **fields}))

    def switch(self, kind: CommandKind, scope: KillScope) -> list[Event]:
        """Throw or lift a switch over account 1."""
        named: dict[KillScope, dict[str, int]] = {
            KillScope.ACCOUNT: {"account": 1},
            KillScope.SESSION: {"account": 1, "session": self.first},
            KillScope.MEMBER: {"quantity": 1},
            KillScope.EXCHANGE: {},
        }
        return self.do(pack(kind, tif=scope, **named[scope]))


def cancelled(events: list[Event]) -> list[int]:
    return [event.order_id for event in events if event.kind == EventKind.ORDER_CANCELLED]


CHOICES: list[tuple[dict[str, int], str]] = [
    ({}, "a0 b0 c1 d2"),
    ({"side": BUY}, "a0 c1"),
    ({"side": SELL}, "b0 d2"),
    ({"tif": Selection.INSTRUMENT, "instrument": 0}, "a0 b0"),
    ({"tif": Selection.INSTRUMENT, "instrument": 2, "side": BUY}, ""),
    ({"tif": Selection.PRODUCT, "instrument": 7}, "c1 d2"),
    ({"tif": Selection.PRODUCT, "instrument": 0}, "a0 b0"),
    ({"tif": Selection.SESSION}, "d2"),
]


@both
@pytest.mark.parametrize(("chosen", "names"), CHOICES)
def test_mass_cancel(machine: type[Machine], chosen: dict[str, int], names: str) -> None:
    """One event per order in slot order; the head says how many, the last one that it is last."""
    desk = Street(machine())
    ids = desk.scatter()
    head, *rest = desk.mass_cancel(**chosen)
    assert head.kind == EventKind.MASS_CANCELLED
    assert cancelled(rest) == [ids[name] for name in names.split()]
    assert head.quantity == len(rest)
    assert [event.flags & LAST for event in (head, *rest)] == [0] * len(rest) + [LAST]
    assert desk.mass_cancel(**chosen)[0].quantity == 0


@both
def test_mass_cancel_of_a_session_takes_nobody_elses(machine: type[Machine]) -> None:
    desk = Street(machine())
    ids = desk.scatter()
    by = int(Selection.SESSION)
    assert cancelled(desk.mass_cancel(tif=by, target_lo=desk.second)) == [ids["b0"]]
    assert cancelled(desk.mass_cancel(account=3, tif=by, target_lo=desk.first)) == []


@both
def test_mass_cancel_takes_dormant_orders(machine: type[Machine]) -> None:
    desk = Street(machine())
    far = desk.rest(1, BUY, 5, 60)
    desk.do(pack(CommandKind.SET_LIMITS, target_lo=80, target_hi=150))
    (gone,) = desk.mass_cancel()[1:]
    assert (gone.order_id, gone.flags & int(EventFlag.RESTING)) == (far, 0)


@both
def test_a_repeated_mass_cancel_takes_nothing_new(machine: type[Machine]) -> None:
    desk = Street(machine())
    desk.scatter()
    (first, *_) = desk.mass_cancel(key_lo=9)
    kept = desk.rest(1, BUY, 5, 90)
    (again,) = desk.mass_cancel(key_lo=9)
    assert (again.kind, again.quantity, again.flags & 4) == (first.kind, 4, 4)
    assert desk.machine.book(0)[0] == [(92, 1, 1), (90, 5, 1)]
    assert words(desk.mass_cancel(key_lo=9, side=BUY))[0][0] == "DUPLICATE_DIFFERENT"
    assert kept


WRONG: list[tuple[dict[str, int], Reason, int, int]] = [
    ({"account": 99}, Reason.UNKNOWN_ACCOUNT, 0, 0),
    ({"session": 77}, Reason.SESSION_UNKNOWN, 0, 77),
    ({"side": 3}, Reason.SYNTAX, 0, 0),
    ({"tif": 8}, Reason.SYNTAX, 0, 0),
    ({"flags": int(CommandFlag.MARKET)}, Reason.SYNTAX, 0, 0),
    ({"target_lo": 5}, Reason.SYNTAX, 0, 0),
    ({"tif": int(Selection.SESSION), "target_lo": 1 << 32}, Reason.SYNTAX, 0, 0),
    ({"tif": 3}, Reason.COMBINATION, 0, 0),
    ({"tif": int(Selection.INSTRUMENT), "instrument": 3}, Reason.UNKNOWN_INSTRUMENT, 3, 3),
]


@both
@pytest.mark.parametrize("wrong", WRONG)
def test_mass_cancel_is_refused(machine: type[Machine], wrong: tuple[Any, ...]) -> None:
    fields, *expected = wrong
    desk = Street(machine())
    before = desk.machine.state_bytes()
    (event,) = desk.mass_cancel(**fields)
    assert [event.reason, event.a, event.b] == expected
    assert desk.machine.state_bytes() == before


# --- kill switches


@both
@pytest.mark.parametrize("scope", KillScope)
def test_a_kill_cancels_and_blocks_until_it_is_lifted(
    machine: type[Machine], scope: KillScope
) -> None:
    """After it only cancels of whom it stops follow; what was cancelled never comes back."""
    desk = Street(machine())
    ids = desk.scatter()
    head, *rest = desk.switch(CommandKind.KILL, scope)
    names = {
        KillScope.ACCOUNT: "a0 b0 c1 d2",
        KillScope.SESSION: "a0 c1",
        KillScope.MEMBER: "a0 b0 c1 d2",
        KillScope.EXCHANGE: "a0 b0 c1 d2 other",
    }[scope]
    assert (head.kind, head.reason, head.quantity) == (EventKind.KILLED, scope, len(rest))
    assert cancelled(rest) == [ids[name] for name in names.split()]
    (refused,) = desk.enter(1, BUY, 1, 90, session=desk.first)
    assert refused.reason == KILLED[scope]
    left = [id_ for name, id_ in ids.items() if name not in names.split()]
    for order_id in left:  # cancels pass
        owner = 3 if order_id == ids["other"] else 1
        session = 0 if owner == 3 else desk.first
        (gone,) = desk.name(CommandKind.CANCEL, owner, order_id, session=session)
        assert gone.kind == EventKind.ORDER_CANCELLED
    (lifted,) = desk.switch(CommandKind.RESUME, scope)
    assert (lifted.kind, lifted.reason) == (EventKind.RESUMED, scope)
    assert desk.machine.book(1) == ([], [])
    assert desk.rest(1, BUY, 1, 90, session=desk.first)


@both
def test_who_else_a_kill_stops(machine: type[Machine]) -> None:
    """Account 2 is of the same member; account 5 joins a member that is stopped."""
    desk = Street(machine())
    desk.switch(CommandKind.KILL, KillScope.SESSION)
    desk.rest(1, BUY, 1, 90, session=desk.second)
    desk.switch(CommandKind.KILL, KillScope.MEMBER)
    opening = pack(CommandKind.OPEN_ACCOUNT, account=5, instrument=1, quantity=9, target_hi=1)
    desk.do(opening)
    for account in (1, 2, 5):
        (event,) = desk.enter(account, BUY, 1, 90)
        assert (event.reason, event.b) == (Reason.MEMBER_KILLED, 1)
    desk.rest(3, BUY, 1, 90)


@both
def test_switches_do_not_lift_each_other(machine: type[Machine]) -> None:
    desk = Street(machine())
    for scope in KillScope:
        desk.switch(CommandKind.KILL, scope)
    desk.do(pack(CommandKind.SET_ACCOUNT, account=1))
    for scope in KillScope:  # the order in which they are told of
        (event,) = desk.enter(1, BUY, 1, 90, session=desk.first)
        assert event.reason == KILLED[scope]
        desk.switch(CommandKind.RESUME, scope)
    assert desk.rest(1, BUY, 1, 90, session=desk.first)


@both
def test_a_killed_session_stays_killed_over_a_new_connection(machine: type[Machine]) -> None:
    desk = Street(machine())
    cod = int(CommandFlag.CANCEL_ON_DISCONNECT)
    session = desk.do(pack(CommandKind.LOGON, account=1, flags=cod, quantity=10))[0].order_id
    desk.do(pack(CommandKind.KILL, tif=KillScope.SESSION, account=1, session=session))
    desk.do(pack(CommandKind.LOGOFF, account=1, session=session))
    desk.do(pack(CommandKind.LOGON, account=1, session=session))
    (event,) = desk.enter(1, BUY, 1, 90, session=session)
    assert (event.reason, event.b) == (Reason.SESSION_KILLED, session)
    assert desk.rest(1, BUY, 1, 90)


@both
@pytest.mark.parametrize("kind", [CommandKind.KILL, CommandKind.RESUME])
def test_a_switch_is_refused(machine: type[Machine], kind: CommandKind) -> None:
    desk = Street(machine())
    most = Limit.MEMBERS - 1
    cases: list[tuple[dict[str, int], Reason, int, int]] = [
        ({"tif": 4}, Reason.SYNTAX, 0, 0),
        ({"tif": KillScope.ACCOUNT, "account": 99}, Reason.UNKNOWN_ACCOUNT, 0, 0),
        ({"tif": KillScope.SESSION, "account": 99}, Reason.UNKNOWN_ACCOUNT, 0, 0),
        ({"tif": KillScope.SESSION, "account": 1, "session": 9}, Reason.SESSION_UNKNOWN, 0, 9),
        (
            {"tif": KillScope.SESSION, "account": 2, "session": desk.first},
            Reason.SESSION_UNKNOWN,
            0,
            desk.first,
        ),
        ({"tif": KillScope.MEMBER, "quantity": most + 1}, Reason.PARAMETER_RANGE, most, most + 1),
    ]
    for fields, *expected in cases:
        (event,) = desk.do(pack(kind, **fields))
        assert [event.reason, event.a, event.b] == expected


def test_a_killed_market_is_restored_killed() -> None:
    desk = Street(Engine())
    for scope in KillScope:
        desk.switch(CommandKind.KILL, scope)
    desk.machine = restored(desk.machine)
    for scope in KillScope:
        (event,) = desk.enter(1, BUY, 1, 90, session=desk.first)
        assert event.reason == KILLED[scope]
        desk.switch(CommandKind.RESUME, scope)


@both
def test_a_request_is_not_an_order_to_be_named(machine: type[Machine]) -> None:
    """What a mass cancel keeps of itself stands in a slot, with a number that is no position."""
    engine = machine()
    engine.apply(
        pack(CommandKind.OPEN_ACCOUNT, account=1, instrument=1, session=1, tif=1, quantity=9,
             target_hi=1)
        + pack(CommandKind.MASS_CANCEL, account=1, instrument=0xFFFFFFFF, side=2, key_lo=5),
        1, 10**12,
    )  # fmt: skip
    for number, kind in enumerate((CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE)):
        wish = pack(kind, account=1, side=2, quantity=1, target_lo=1 << 32 | 1, key_lo=6 + number)
        row = EVENT.unpack(engine.apply(wish, 3 + number, 10**12))
        assert (row[2], row[4]) == (EventKind.REJECTED, Reason.NOT_FOUND)


@pytest.mark.parametrize("deep", [0, 400])
@pytest.mark.parametrize("by", [0, Selection.INSTRUMENT, Selection.PRODUCT, Selection.SESSION])
@pytest.mark.parametrize("side", [BUY, SELL, 2])
def test_deep_in_a_book_or_at_its_top_the_same_orders_are_found(
    deep: int, by: int, side: int
) -> None:
    """Many orders of others before the account's, and orders in a spread that work in both months:
    the engine may walk the books or pass over all slots, the oracle looks at every order."""
    told = []
    for machine in (Oracle, Engine):
        desk = Street(machine())
        fields = {"tif": CombinationRule.DIFFERENCE, "target_lo": -60, "target_hi": 60}
        desk.do(
            pack(CommandKind.LIST_COMBINATION, instrument=3, key_lo=1 | 2 << 16,
                 quantity=1 | 14 << 4, **fields),
            pack(CommandKind.SET_RISK, instrument=3, quantity=1000, session=100),
            pack(CommandKind.SET_STATE, instrument=3, tif=TradingState.CONTINUOUS),
        )  # fmt: skip
        desk.scatter()
        desk.rest(1, BUY, 2, -50, instrument=3)
        desk.rest(1, SELL, 3, 50, instrument=3, session=desk.second)
        desk.do(
            *[
                pack(CommandKind.ENTER, account=4, instrument=n % 3, side=n // 3 % 2, quantity=1,
                     price=109 if n // 3 % 2 else 94, key_lo=5000 + n)
                for n in range(deep)
            ]
        )  # fmt: skip
        chosen = {Selection.INSTRUMENT: 1, Selection.PRODUCT: 7}.get(Selection(by), 0)
        session = desk.second if by & Selection.SESSION else 0
        told.append(desk.mass_cancel(side=side, tif=by, instrument=chosen, target_lo=session))
        told.append(desk.mass_cancel())
    assert told[:2] == told[2:]
    assert len(told[0]) + len(told[1]) > 6
