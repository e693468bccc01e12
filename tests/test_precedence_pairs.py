"""Of any two neighbours in the page's order of rejects, the earlier is the answer.

The lists are read from docs/reference/rejects.md, so that none can be left out. For each pair a
command breaks both rules at once: it is rejected for the first; with that mended for the second;
with both mended it passes. Budget: 4 seconds.
"""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from differences import Machine, event_in_words, events_of
from generator import pack
from oracle import Oracle
from reject_market import (
    BY_KEY,
    CANCEL_ONLY,
    FILLED,
    HALT,
    KILL,
    NEW,
    RECEIPT,
    WORKING,
    Market,
    cancel,
    deposit,
    enter,
    fee,
    logon,
    open_account,
    opening,
    reduce,
    replace,
    set_account,
    set_risk,
    set_state,
    withdraw,
)
from test_engine_capacity import PAIRS as FULL_PAIRS
from test_engine_combinations import combine

from exchange.engine import Engine
from exchange.messages import (
    EVENT,
    CombinationRule,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Feature,
    KillScope,
    Limit,
    OrderFeature,
    Reason,
    Selection,
    Side,
    TimeInForce,
    TradingState,
)

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "rejects.md"
SECOND = 1_000_000_000
MONEY = int(Limit.MONEY)
POST_ONLY, NEW_ID = int(CommandFlag.POST_ONLY), int(CommandFlag.NEW_ID)
IOC, GTD, GFA = (int(TimeInForce[name]) for name in ("IOC", "GTD", "GFA"))
REDUCE_ONLY, GROUPED, STOP, ICEBERG = (
    int(OrderFeature[name]) for name in ("REDUCE_ONLY", "GROUPED", "STOP", "ICEBERG")
)
OPEN, CALL = int(TradingState.CONTINUOUS), int(TradingState.AUCTION)
HIS_SESSION = 2 << 16 | 2  # the next one of account 1
QUOTED_BID = 1 << 32 | 9  # the next slot
ICE, REDUCER = 801, 802  # keys of account 1

Key = tuple[Reason, str]  # a reason, and of which side of a quote
Command = Callable[..., bytes]


class Fault(NamedTuple):
    """What breaks one rule, beside the command's own good fields, and what mends it."""

    fields: Mapping[str, int] = MappingProxyType({})
    before: bytes = b""
    mend: bytes = b""
    protect: Mapping[str, int] = MappingProxyType({})  # of SET_PROTECTIONS, which says all at once
    limit: int = 40  # lots of a position
    cancels: bool = False  # the account's orders are gone then


def quote(**changes: int) -> bytes:
    fields = {"account": 1, "price": 300, "quantity": 2, "target_lo": 700, "target_hi": 2}
    return pack(CommandKind.MASS_QUOTE, **{**fields, "key_lo": NEW, **changes})


def mass_cancel(**changes: int) -> bytes:
    fields = {"account": 1, "side": int(Side.UNSTATED), "key_lo": NEW}
    return pack(CommandKind.MASS_CANCEL, **{**fields, **changes})


def kill(**changes: int) -> bytes:
    return pack(CommandKind.KILL, **{"tif": int(KillScope.ACCOUNT), "account": 1, **changes})


def protection(**changes: int) -> bytes:
    fields = {"account": 1, "quantity": 1, "target_lo": SECOND}
    return pack(CommandKind.SET_PROTECTION, **{**fields, **changes})


def switched(scope: KillScope, **who: int) -> Fault:
    """A kill switch that has been thrown; its orders are gone."""
    thrown, lifted = (
        pack(kind, tif=scope, **who) for kind in (CommandKind.KILL, CommandKind.RESUME)
    )
    return Fault({}, thrown, lifted, cancels=scope is not KillScope.SESSION)


COMMANDS: dict[str, Command] = {
    "enter": enter, "cancel": cancel, "reduce": reduce, "replace": replace, "quote": quote,
    "mass cancel": mass_cancel, "kill": kill, "protect": protection, "logon": logon,
}  # fmt: skip
SPREAD = combine(3, {0: 1, 1: -1}, CombinationRule.DIFFERENCE)
SPREAD_TRADING = (
    set_state(OPEN, instrument=1) + SPREAD + set_risk(instrument=3, price=0)
    + set_state(OPEN, instrument=3)
)  # fmt: skip
SLOW = open_account(account=4, target_lo=SECOND) + deposit(account=4, price=9999, key_lo=2)
SPENT = SLOW + enter(account=4, key_lo=WORKING)
BROTHER = open_account(account=4) + fee(account=4, price=900)
FREE = open_account(account=4) + deposit(account=4, price=9999, key_lo=2)
HIT = enter(account=2, side=1, price=450, quantity=2, tif=IOC, key_lo=3)
BLOCKED = protection(account=4) + quote(account=4, price=450, key_lo=0) + HIT
LOGGED_ON = logon()
ICEBERG_RULE = set_risk(quantity=4000, session=1000)

COMMON: dict[Reason, Fault] = {
    Reason.UNKNOWN_ACCOUNT: Fault({"account": 99}),
    Reason.SESSION_UNKNOWN: Fault({"session": 77}),
    Reason.ACCOUNT_KILLED: Fault({}, KILL, set_account()),
    Reason.SESSION_KILLED: switched(KillScope.SESSION, account=1, session=HIS_SESSION)._replace(
        fields={"session": HIS_SESSION},
        before=LOGGED_ON + kill(tif=int(KillScope.SESSION), session=HIS_SESSION),
    ),
    Reason.LOSS_LIMIT: Fault(
        {}, set_account(price=1) + fee(price=1, key_lo=11), set_account(), cancels=True
    ),
    Reason.MEMBER_KILLED: switched(KillScope.MEMBER, quantity=1),
    Reason.EXCHANGE_KILLED: switched(KillScope.EXCHANGE),
    Reason.SYNTAX: Fault({"stp": 9}),
    Reason.UNKNOWN_INSTRUMENT: Fault({"instrument": 9}),
    Reason.NOT_TRADING: Fault({}, HALT, set_state(OPEN)),
    Reason.CANCEL_ONLY: Fault({}, CANCEL_ONLY, pack(CommandKind.SET_MODE)),
    Reason.THROTTLED: Fault({"account": 4}, SPENT),
    Reason.QUANTITY_RANGE: Fault({"quantity": 22}),
    Reason.ACCOUNT_MAX_QUANTITY: Fault({}, set_account(quantity=2), set_account()),
    Reason.NOTIONAL: Fault({"price": MONEY}),
    Reason.ORDER_VALUE: Fault(protect={"target_lo": 100}),
    Reason.TICK: Fault({"price": 301}),
    Reason.LOT: Fault({"quantity": 3}),
    Reason.PRICE_LIMIT: Fault({"price": 1005}),
    Reason.PRICE_BAND: Fault({"price": 550}, protect={"price": 5}),
    Reason.ALL_MONTHS_LIMIT: Fault(protect={"target_hi": 1}),
    Reason.POSITION_LIMIT: Fault(limit=7),
    Reason.MARGIN: Fault({}, withdraw(price=740, key_lo=7), deposit(price=740, key_lo=8)),
    Reason.MEMBER_MARGIN: Fault({}, BROTHER, deposit(account=4, price=900, key_lo=9)),
}
OPEN_ORDERS = Fault(
    {}, enter(key_lo=1001) + enter(key_lo=1002), cancel(target_lo=1001, key_lo=0)
    + cancel(target_lo=1002, key_lo=0),
)  # fmt: skip
NAMED: dict[Reason, Fault] = {
    Reason.SYNTAX: Fault({"side": 3}),
    Reason.DUPLICATE_DIFFERENT: Fault({"key_lo": RECEIPT}),
    Reason.NOT_FOUND: Fault({"target_lo": NEW}),
    Reason.TOO_LATE: Fault({"target_lo": FILLED}),
    Reason.SIDE_MISMATCH: Fault({"side": 1}),
}
OF: dict[str, dict[Reason, Fault]] = {
    "enter": COMMON | {
        Reason.ID_FORMAT: Fault({"key_lo": 0}),
        Reason.COMBINATION: Fault({"flags": POST_ONLY, "tif": IOC}),
        Reason.ALL_OR_NONE: Fault({"spare": int(OrderFeature.ALL_OR_NONE)}),
        Reason.DUPLICATE_DIFFERENT: Fault({"key_lo": FILLED}),
        Reason.FEATURE_OFF: Fault(
            {"spare": ICEBERG, "target_hi": 2},
            pack(CommandKind.SET_FEATURE, tif=Feature.ICEBERGS),
            pack(CommandKind.SET_FEATURE, tif=Feature.ICEBERGS, quantity=1),
        ),
        Reason.NOT_IN_AUCTION: Fault({"flags": POST_ONLY}, set_state(CALL), set_state(OPEN)),
        Reason.POST_ONLY: Fault({"flags": POST_ONLY, "price": 600}),
        Reason.MINIMUM: Fault({"target_hi": 99}),
        Reason.EXPIRY: Fault({"tif": GTD, "target_lo": 1}),
        Reason.AUCTION_ONLY: Fault({"tif": GFA}),
        Reason.TRIGGER: Fault({"spare": STOP, "target_hi": 7}),
        Reason.DISPLAY: Fault({"spare": ICEBERG, "target_hi": 99}),
        Reason.NOT_OUTRIGHT: Fault(
            {"instrument": 3, "spare": ICEBERG, "target_hi": 2}, SPREAD_TRADING
        ),
        Reason.GROUP: Fault({"spare": GROUPED, "target_hi": 999}),
        Reason.REDUCE_ONLY: Fault({"spare": REDUCE_ONLY}),
        Reason.OPEN_ORDERS: OPEN_ORDERS,
    },
    "replace": COMMON | NAMED | {
        Reason.ID_FORMAT: Fault({"flags": int(BY_KEY) | NEW_ID, "key_lo": 0}),
        Reason.QUOTE: Fault({"flags": 0, "target_lo": QUOTED_BID}, quote(key_lo=0)),
        Reason.NOT_IN_AUCTION: Fault(
            {"flags": int(BY_KEY) | POST_ONLY}, set_state(CALL), set_state(OPEN)
        ),
        Reason.POST_ONLY: Fault({"flags": int(BY_KEY) | POST_ONLY, "price": 600}),
        Reason.DISPLAY: Fault(
            {"target_lo": ICE, "quantity": 200},
            ICEBERG_RULE + enter(key_lo=ICE, spare=ICEBERG, target_hi=2),
        ),
        Reason.REDUCE_ONLY: Fault(
            {"target_lo": REDUCER, "quantity": 14, "price": 705},
            enter(side=1, price=700, quantity=2, spare=REDUCE_ONLY, key_lo=REDUCER),
        ),
    },
    "cancel": COMMON | NAMED,
    "reduce": COMMON | NAMED | {
        Reason.QUANTITY_RANGE: Fault({"quantity": 0}),
    },
    "quote": COMMON | {
        Reason.DUPLICATE_DIFFERENT: Fault({"key_lo": RECEIPT}),
        Reason.NOT_OUTRIGHT: Fault({"instrument": 3}, SPREAD),
        Reason.QUOTES_BLOCKED: Fault({"account": 4}, FREE + BLOCKED, protection(account=4)),
        Reason.CROSSED: Fault({"price": 700}),
        Reason.OPEN_ORDERS: OPEN_ORDERS,
    },
    "mass cancel": COMMON | {
        Reason.SYNTAX: Fault({"side": 3}),
        Reason.COMBINATION: Fault({"tif": int(Selection.INSTRUMENT | Selection.PRODUCT)}),
        Reason.DUPLICATE_DIFFERENT: Fault({"key_lo": RECEIPT}),
        Reason.UNKNOWN_INSTRUMENT: Fault({"tif": int(Selection.INSTRUMENT), "instrument": 9}),
    },
    "kill": {
        Reason.SYNTAX: Fault({"tif": 9}),
        Reason.UNKNOWN_ACCOUNT: Fault({"account": 99}),
        Reason.SESSION_UNKNOWN: Fault({"tif": int(KillScope.SESSION), "session": 77}),
        Reason.PARAMETER_RANGE: Fault({"tif": int(KillScope.MEMBER), "quantity": 1 << 20}),
    },
    "protect": COMMON | {Reason.PARAMETER_RANGE: Fault({"target_lo": 0})},
    "logon": {
        Reason.UNKNOWN_ACCOUNT: Fault({"account": 99}),
        Reason.SESSION_UNKNOWN: Fault({"session": 77}),
    },
}  # fmt: skip
ASK: dict[Reason, Fault] = {
    Reason.QUANTITY_RANGE: Fault({"target_hi": 22}),
    Reason.ACCOUNT_MAX_QUANTITY: Fault({"target_hi": 4}, set_account(quantity=2), set_account()),
    Reason.NOTIONAL: Fault({"target_lo": MONEY}),
    Reason.ORDER_VALUE: Fault(protect={"target_lo": 1000}),
    Reason.TICK: Fault({"target_lo": 701}),
    Reason.LOT: Fault({"target_hi": 3}),
    Reason.PRICE_LIMIT: Fault({"target_lo": -5}),
    Reason.POST_ONLY: Fault({"target_lo": 400, "price": 350}),
    Reason.ALL_MONTHS_LIMIT: Fault({"target_hi": 20}, protect={"target_hi": 10}),
    Reason.POSITION_LIMIT: Fault({"target_hi": 20}, limit=10),
}
BID: dict[Reason, Fault] = {
    Reason.ACCOUNT_MAX_QUANTITY: Fault({}, set_account(quantity=1), set_account()),
}
OUT = ICEBERG_RULE + enter(
    side=1, price=700, quantity=2, spare=REDUCE_ONLY | ICEBERG, target_hi=2, key_lo=REDUCER
)
# Where the two would have to say different things in one field.
TOGETHER: dict[tuple[str, Reason, Reason], tuple[Fault, Fault]] = {
    ("enter", Reason.NOT_OUTRIGHT, Reason.GROUP): (
        Fault({"instrument": 3, "spare": GROUPED, "target_hi": 999}, SPREAD_TRADING),
        Fault({"spare": GROUPED, "target_hi": 999}),
    ),
    ("enter", Reason.GROUP, Reason.REDUCE_ONLY): (
        Fault({"spare": GROUPED | REDUCE_ONLY, "target_hi": 999}),
        Fault({"spare": REDUCE_ONLY}),
    ),
    ("replace", Reason.DISPLAY, Reason.REDUCE_ONLY): (
        Fault({"target_lo": REDUCER, "quantity": 200, "price": 705}, OUT),
        Fault({"target_lo": REDUCER, "quantity": 4, "price": 705}),
    ),
    **{
        (name, Reason.CANCEL_ONLY, Reason.THROTTLED): (
            Fault({"account": 4}, SPENT + CANCEL_ONLY, pack(CommandKind.SET_MODE)),
            Fault({"account": 4}),
        )
        for name in ("enter", "replace", "quote")
    },
    ("quote", Reason.THROTTLED, Reason.QUOTES_BLOCKED): (
        Fault({"account": 4}, SLOW + BLOCKED),
        Fault({"account": 4}, b"", protection(account=4)),
    ),
}


def reasons_of(text: str) -> list[Key]:
    """A list of the page, in order; what stands in brackets is said of the bid, then of the ask."""
    text = text.replace("*known id*", "DUPLICATE_DIFFERENT")
    twice = r"\(bid, then ask: ([^)]*)\)"
    out: list[Key] = []
    for at, part in enumerate(re.split(twice, text)):
        names = [name for name in re.findall(r"[A-Z_]{3,}", part) if name in Reason.__members__]
        for side in ("bid", "ask") if at % 2 else ("",):
            out += [(Reason[name], side) for name in names]
    return out


def lists() -> dict[str, list[Key]]:
    """Each command's whole order of rejects, as the page has it."""
    text = PAGE.read_text().split("In the engine:")[1].split("*Known id*")[0]
    found = {
        name: reasons_of(re.split(r"\. One that|\(the last", told)[0])
        for name, told in re.findall(
            r"\*\*([a-z ]+)\*\*:(.*?)(?=\*\*[a-z ]+\*\*:|$)", text, re.DOTALL
        )
    }
    common = found.pop("all four order commands and quote")
    found["reduce"] = found["cancel"] + found["reduce"]
    for name in ("enter", "replace", "quote"):
        found[name] = common + found[name]
    for name in ("cancel", "reduce"):
        found[name] = common[:2] + found[name]
    return found


LISTS = lists()
PAIRS = [(name, *pair) for name, reasons in LISTS.items() for pair in pairwise(reasons)]

# One command cannot break both.
COMBINED = "one of them asks for what COMBINATION refuses beside the other"
ONE_FIELD = "both are about one field, which is either the one or the other"
CROSSING = "a bid and an ask that are both wrong so are CROSSED"
APART: dict[tuple[str, Reason, Reason], str] = {
    ("enter", Reason.PRICE_BAND, Reason.NOT_IN_AUCTION): "an auction has no band",
    ("enter", Reason.POST_ONLY, Reason.MINIMUM): COMBINED,
    ("enter", Reason.EXPIRY, Reason.AUCTION_ONLY): ONE_FIELD,
    ("enter", Reason.AUCTION_ONLY, Reason.TRIGGER): COMBINED,
    ("enter", Reason.TRIGGER, Reason.DISPLAY): COMBINED,
    ("replace", Reason.ID_FORMAT, Reason.DUPLICATE_DIFFERENT): ONE_FIELD,
    ("cancel", Reason.NOT_FOUND, Reason.TOO_LATE): ONE_FIELD,
    ("reduce", Reason.NOT_FOUND, Reason.TOO_LATE): ONE_FIELD,
    ("replace", Reason.NOT_FOUND, Reason.TOO_LATE): ONE_FIELD,
    ("reduce", Reason.QUANTITY_RANGE, Reason.LOT): ONE_FIELD,
    ("quote", Reason.UNKNOWN_INSTRUMENT, Reason.NOT_OUTRIGHT): ONE_FIELD,
    ("quote", Reason.PRICE_BAND, Reason.PRICE_BAND): CROSSING,
    ("quote", Reason.PRICE_BAND, Reason.POST_ONLY): CROSSING,
    ("quote", Reason.POST_ONLY, Reason.POST_ONLY): CROSSING,
    ("kill", Reason.SESSION_UNKNOWN, Reason.PARAMETER_RANGE): "of a session, or of a member",
    ("logon", Reason.SESSION_UNKNOWN, Reason.SESSION_LIVE): ONE_FIELD,
    ("logon", Reason.SESSION_LIVE, Reason.SESSIONS_FULL): "a session that is there needs no room",
}
FULL = {  # with as much as there may be of something: test_engine_capacity.py
    Reason.BOOK_FULL, Reason.ORDERS_FULL, Reason.POSITIONS_FULL, Reason.ICEBERGS_FULL,
    Reason.REDUCING_FULL, Reason.GROUPS_FULL, Reason.PROTECTIONS_FULL,
}  # fmt: skip


def faults_of(name: str, one: Key, two: Key) -> tuple[Fault, Fault]:
    """What breaks the first rule, and what the second."""
    if pair := TOGETHER.get((name, one[0], two[0])):
        return pair
    known = {"": OF[name], "bid": OF[name] | BID, "ask": OF[name] | ASK}
    return known[one[1]][one[0]], known[two[1]][two[0]]


class Breach:
    """A market in which a command meets faults, and the time it takes to wait for a token."""

    def __init__(self, machine: Machine, command: Command, faults: list[Fault]) -> None:
        self.command, self.faults, self.waits = command, faults, False
        self.limited = any(fault.limit != 40 for fault in faults)
        self.market = Market(machine, opening() + b"".join(fault.before for fault in faults))
        self.limits()

    def limits(self) -> None:
        """Those that the faults that are left want."""
        if self.limited:
            lots = min([40, *(fault.limit for fault in self.faults)])
            self.market.must(set_risk(quantity=lots))
        protect = {k: n for fault in reversed(self.faults) for k, n in fault.protect.items()}
        self.market.must(pack(CommandKind.SET_PROTECTIONS, **protect))

    def wish(self) -> bytes:
        """The command with all faults that are left, the first the strongest."""
        self.market.stamp += SECOND if self.waits else 0
        fields = {k: n for fault in reversed(self.faults) for k, n in fault.fields.items()}
        return self.command(**fields)

    def mend(self, reason: Reason) -> None:
        """The first fault."""
        self.market.must(self.faults.pop(0).mend)
        self.limits()
        self.waits |= reason is Reason.THROTTLED

    def assert_refused(self, reason: Reason, side: str) -> None:
        """For this, of this side, with the state as it was."""
        state = self.market.machine.state_bytes
        wish, before = self.wish(), state(buckets=False)
        (event,) = events_of(self.market.apply(wish))
        words = event_in_words(event)
        assert state(buckets=False) == before, words
        _, _, kind, flags, why, *_ = EVENT.unpack(event)
        assert (kind, why) == (EventKind.REJECTED, reason), f"{reason.name}, not {words}"
        assert not side or bool(flags & EventFlag.SELL) == (side == "ask"), words


def wanted() -> list[tuple[str, Key, Key]]:
    return [
        (name, one, two)
        for name, one, two in PAIRS
        if (name, one[0], two[0]) not in APART and two[0] not in FULL
    ]


def name_of(pair: tuple[str, Key, Key]) -> str:
    return "-".join([pair[0], *(reason.name + side for reason, side in pair[1:])])


@pytest.mark.parametrize("machine", [Oracle, Engine])
@pytest.mark.parametrize("pair", wanted(), ids=name_of)
def test_the_earlier_is_the_answer(machine: type[Machine], pair: tuple[str, Key, Key]) -> None:
    name, one, two = pair
    faults = list(faults_of(name, one, two))
    gone = name == "replace" and any(fault.cancels for fault in faults)
    breach = Breach(machine(), COMMANDS[name], faults)
    breach.assert_refused(*one)
    breach.mend(one[0])
    breach.assert_refused(*two)
    breach.mend(two[0])
    if gone:
        breach.assert_refused(Reason.NOT_FOUND, "")
    else:
        breach.market.must(breach.wish())


def test_no_pair_is_left_out() -> None:
    """What cannot be broken at once is a pair of the page, and so is every other."""
    pairs = {(name, one[0], two[0]) for name, one, two in PAIRS}
    assert set(APART) <= pairs and set(TOGETHER) <= pairs
    assert len(PAIRS) == len(wanted()) + sum(
        (name, one[0], two[0]) in APART or two[0] in FULL for name, one, two in PAIRS
    )
    assert {(name, one[0], two[0]) for name, one, two in PAIRS if two[0] in FULL} == FULL_PAIRS
    assert len(wanted()) > 100


def test_where_one_value_has_to_break_both_it_does() -> None:
    """A field with another value for the second fault would hide it, but for these."""
    clashing = set()
    for name, one, two in wanted():
        first, second = faults_of(name, one, two)
        for some, other in ((first.fields, second.fields), (first.protect, second.protect)):
            for field in some.keys() & other.keys():
                if some[field] != other[field]:
                    clashing.add((one[0], two[0], field))
    assert clashing == {
        (Reason.DISPLAY, Reason.NOT_OUTRIGHT, "target_hi"),  # special, and shows too much
        (Reason.GROUP, Reason.REDUCE_ONLY, "spare"),  # asks for both
        (Reason.PRICE_LIMIT, Reason.PRICE_BAND, "price"),  # beyond both
        (Reason.DISPLAY, Reason.REDUCE_ONLY, "quantity"),  # too much for both
        (Reason.QUANTITY_RANGE, Reason.ACCOUNT_MAX_QUANTITY, "target_hi"),
        (Reason.CROSSED, Reason.PRICE_BAND, "price"),
        (Reason.ALL_MONTHS_LIMIT, Reason.ALL_MONTHS_LIMIT, "target_hi"),
    }
