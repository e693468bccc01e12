"""Every reject that the engine can give: its limit and observed value, and the state unchanged.

A row is (what is done first, the command, reason, a, b).
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from differences import Machine, command_in_words
from generator import pack
from oracle import Oracle
from reject_market import (
    BY_KEY,
    CANCEL_ONLY,
    CANCELLED,
    DATE,
    FILLED,
    HALT,
    KILL,
    NEW,
    RECEIPT,
    STAMP,
    WORKING,
    Market,
    assert_rejected,
    cancel,
    deposit,
    enter,
    expire,
    fee,
    list_instrument,
    logoff,
    logon,
    mark,
    open_account,
    opening,
    record,
    reduce,
    renew,
    replace,
    set_account,
    set_limits,
    set_risk,
    set_state,
    settle,
    withdraw,
)
from test_engine_combinations import combine

from exchange.engine import Engine
from exchange.messages import (
    CombinationRule,
    CommandFlag,
    CommandKind,
    Limit,
    OrderFeature,
    Reason,
    TimeInForce,
    TradingState,
)

Case = tuple[bytes, bytes, Reason, int, int]
MONEY, PRICE = int(Limit.MONEY), int(Limit.PRICE)
POST_ONLY, MARKET, NEW_ID, PROTECTED = (
    int(CommandFlag[n]) for n in ("POST_ONLY", "MARKET", "NEW_ID", "PROTECTED")
)
STOP, ICEBERG = int(OrderFeature.STOP), int(OrderFeature.ICEBERG)
IOC, FOK, GTD = (int(TimeInForce[n]) for n in ("IOC", "FOK", "GTD"))
OPEN, SHUT, EXPIRED = (int(TradingState[n]) for n in ("CONTINUOUS", "CLOSED", "EXPIRED"))
HALTED = int(TradingState.HALTED)
SECOND = 1_000_000_000
HIS_OFFER = 1 << 32 | 3  # order id of account 2's offer: the third slot taken
THROTTLED_ACCOUNT = open_account(account=4, target_lo=SECOND) + deposit(
    account=4, price=9999, key_lo=2
)
POOR = withdraw(price=740, key_lo=7)  # account 1 has nothing free


def of_every_order_command() -> Iterator[Case]:
    for command in (enter, cancel, reduce, replace):
        yield b"", command(account=99), Reason.UNKNOWN_ACCOUNT, 0, 0
        yield b"", command(session=77), Reason.SESSION_UNKNOWN, 0, 77
        yield b"", command(session=1 << 16 | 1), Reason.SESSION_UNKNOWN, 0, 1 << 16 | 1
        yield b"", command(flags=64), Reason.SYNTAX, 0, 0
        yield b"", command(key_lo=FILLED), Reason.DUPLICATE_DIFFERENT, 0, 0
        yield b"", command(key_lo=RECEIPT), Reason.DUPLICATE_DIFFERENT, 0, 0
    for command in (enter, replace):
        yield KILL, command(), Reason.ACCOUNT_KILLED, 0, 0
        yield b"", command(stp=4), Reason.SYNTAX, 0, 0
        yield HALT, command(), Reason.NOT_TRADING, OPEN, HALTED
        yield CANCEL_ONLY, command(), Reason.CANCEL_ONLY, 0, 0
        yield b"", command(quantity=0), Reason.QUANTITY_RANGE, 20, 0
        yield b"", command(quantity=22), Reason.QUANTITY_RANGE, 20, 22
        small = set_account(quantity=2)
        yield small, command(quantity=4), Reason.ACCOUNT_MAX_QUANTITY, 2, 4
        yield b"", command(price=MONEY, quantity=2), Reason.NOTIONAL, MONEY, 2 * MONEY
        yield b"", command(price=-(1 << 63)), Reason.NOTIONAL, MONEY, (1 << 63) - 1
        yield b"", command(price=301), Reason.TICK, 5, 301
        yield b"", command(price=-301), Reason.TICK, 5, -301
        yield b"", command(quantity=3), Reason.LOT, 2, 3
        yield b"", command(price=1005), Reason.PRICE_LIMIT, 1000, 1005
        yield b"", command(price=-5), Reason.PRICE_LIMIT, 0, -5


def of_enter() -> Iterator[Case]:
    wrongs: tuple[dict[str, int], ...] = (
        {"side": 2}, {"tif": 6}, {"flags": 8}, {"flags": MARKET, "tif": IOC}, {"target_lo": 1},
    )  # fmt: skip
    for wrong in wrongs:
        yield b"", enter(**wrong), Reason.SYNTAX, 0, 0
    yield b"", enter(key_lo=0), Reason.ID_FORMAT, 0, 0
    for flags, tif in ((POST_ONLY, IOC), (POST_ONLY, FOK)):
        yield b"", enter(flags=flags, tif=tif), Reason.COMBINATION, 0, 0
    for flags, tif in ((MARKET, FOK), (MARKET | POST_ONLY, IOC), (PROTECTED, 0)):
        yield b"", enter(flags=flags, tif=tif, price=0), Reason.COMBINATION, 0, 0
    for flags, tif in ((POST_ONLY, 0), (0, FOK)):
        yield b"", enter(flags=flags, tif=tif, target_hi=2), Reason.COMBINATION, 0, 0
    yield b"", enter(flags=MARKET | PROTECTED, price=7), Reason.TICK, 5, 7
    yield b"", enter(flags=MARKET | PROTECTED, price=5, quantity=3), Reason.LOT, 2, 3
    yield b"", enter(flags=MARKET | PROTECTED, price=-5), Reason.PRICE_LIMIT, 0, -5
    yield b"", enter(target_hi=99), Reason.MINIMUM, 4, 99
    yield b"", enter(tif=GTD, target_lo=SECOND), Reason.EXPIRY, STAMP, SECOND
    yield b"", enter(tif=GTD, target_lo=1 << 63), Reason.EXPIRY, STAMP, -(1 << 63)
    yield b"", enter(spare=STOP, target_hi=307), Reason.TRIGGER, 5, 307
    yield b"", enter(spare=STOP, target_hi=5000), Reason.TRIGGER, 1000, 5000
    yield b"", enter(spare=STOP, target_hi=-5), Reason.TRIGGER, 0, -5
    for display, limit in ((6, 4), (1, 2), (0, 1)):
        yield b"", enter(spare=ICEBERG, target_hi=display), Reason.DISPLAY, limit, display
    yield b"", enter(spare=STOP | ICEBERG), Reason.COMBINATION, 0, 0
    yield b"", enter(key_lo=WORKING, target_hi=2), Reason.DUPLICATE_DIFFERENT, 0, 0
    yield b"", enter(key_lo=WORKING, price=305), Reason.DUPLICATE_DIFFERENT, 0, 0
    yield b"", enter(instrument=3), Reason.UNKNOWN_INSTRUMENT, 3, 3
    yield b"", enter(instrument=1), Reason.NOT_TRADING, OPEN, SHUT
    yield b"", enter(instrument=2), Reason.NOT_TRADING, OPEN, EXPIRED
    spent = THROTTLED_ACCOUNT + enter(account=4, key_lo=1)
    yield spent, enter(account=4), Reason.THROTTLED, 1, SECOND
    yield b"", enter(price=600, flags=POST_ONLY), Reason.POST_ONLY, 600, 600
    yield b"", enter(side=1, price=300, flags=POST_ONLY), Reason.POST_ONLY, 400, 300
    two = enter(key_lo=1001) + enter(key_lo=1002)
    yield two, enter(), Reason.OPEN_ORDERS, 3, 3
    yield enter(quantity=20, key_lo=1001), enter(quantity=20), Reason.POSITION_LIMIT, 40, 46
    short = enter(side=1, price=700, quantity=14)
    yield set_risk(quantity=10), short, Reason.POSITION_LIMIT, 10, 12
    yield POOR, enter(), Reason.MARGIN, 60, 100
    # at 520 for 500, four lots are 80 away from the mark
    yield POOR, enter(price=520), Reason.MARGIN, 60, 180
    brother = open_account(account=4) + fee(account=4, price=900)
    yield brother, enter(), Reason.MEMBER_MARGIN, -100, 100


def of_auctions() -> Iterator[Case]:
    call = pack(CommandKind.SET_STATE, tif=TradingState.AUCTION)
    gathering = int(TradingState.AUCTION)
    for wrong in ({"tif": IOC}, {"tif": FOK}, {"flags": POST_ONLY}, {"target_hi": 2}):
        yield call, enter(**wrong), Reason.NOT_IN_AUCTION, 0, gathering
    for flags in (MARKET | PROTECTED, MARKET):
        yield call, enter(flags=flags, price=0, tif=IOC), Reason.NOT_IN_AUCTION, 0, gathering
    yield call, replace(flags=int(BY_KEY) | POST_ONLY), Reason.NOT_IN_AUCTION, 0, gathering
    yield b"", enter(tif=int(TimeInForce.GFA)), Reason.AUCTION_ONLY, gathering, OPEN
    yield b"", enter(spare=int(OrderFeature.ALL_OR_NONE)), Reason.ALL_OR_NONE, 0, 0
    stop = {"spare": int(OrderFeature.STOP), "target_hi": 400, "tif": int(TimeInForce.GFA)}
    yield call, enter(**stop), Reason.COMBINATION, 0, 0
    for number, state in ((0, OPEN), (1, SHUT)):
        asked = pack(CommandKind.INDICATE, instrument=number)
        yield b"", asked, Reason.STATE, gathering, state
    yield b"", pack(CommandKind.INDICATE, instrument=9), Reason.UNKNOWN_INSTRUMENT, 3, 9
    for state, cause, most in ((TradingState.HALTED, 10, 0), (TradingState.AUCTION, 9, 12)):
        moved = pack(CommandKind.SET_STATE, tif=state, quantity=cause)
        yield b"", moved, Reason.PARAMETER_RANGE, most, cause


def of_named_orders() -> Iterator[Case]:
    for command in (cancel, reduce, replace):
        yield b"", command(side=3), Reason.SYNTAX, 0, 0
        yield b"", command(flags=0, target_lo=99), Reason.NOT_FOUND, 0, 0
        yield b"", command(flags=0, target_lo=HIS_OFFER), Reason.NOT_FOUND, 0, 0
        yield b"", command(flags=0, target_lo=2 << 32 | 5), Reason.NOT_FOUND, 0, 0
        yield b"", command(flags=0, target_lo=0), Reason.NOT_FOUND, 0, 0
        yield b"", command(target_lo=NEW), Reason.NOT_FOUND, 0, 0
        yield b"", command(target_lo=RECEIPT), Reason.NOT_FOUND, 0, 0
        yield b"", command(target_lo=CANCELLED), Reason.NOT_FOUND, 0, 0
        yield b"", command(target_lo=FILLED), Reason.TOO_LATE, 0, 0
        yield b"", command(side=1), Reason.SIDE_MISMATCH, 0, 1
    yield b"", reduce(quantity=0), Reason.QUANTITY_RANGE, 20, 0
    yield b"", reduce(quantity=3), Reason.LOT, 2, 3


def of_replace() -> Iterator[Case]:
    yield b"", renew(key_lo=0), Reason.ID_FORMAT, 0, 0
    spent = THROTTLED_ACCOUNT + enter(account=4, key_lo=WORKING)
    yield spent, replace(account=4), Reason.THROTTLED, 1, SECOND
    for command, flags in ((replace, BY_KEY), (renew, BY_KEY | NEW_ID)):
        post_only = command(price=600, flags=flags | POST_ONLY)
        yield b"", post_only, Reason.POST_ONLY, 600, 600
        full = enter(quantity=20, key_lo=1001)
        yield full, command(quantity=20), Reason.POSITION_LIMIT, 40, 42
        yield POOR, command(price=300), Reason.MARGIN, 60, 80
        brother = open_account(account=4) + fee(account=4, price=900)
        yield brother, command(price=300), Reason.MEMBER_MARGIN, -100, 80


def of_sessions() -> Iterator[Case]:
    yield b"", logon(account=99), Reason.UNKNOWN_ACCOUNT, 0, 0
    yield b"", logon(session=77), Reason.SESSION_UNKNOWN, 0, 77
    yield b"", logon(session=1 << 16 | 1), Reason.SESSION_UNKNOWN, 0, 1 << 16 | 1
    yield b"", logon(session=1 << 16 | 2), Reason.SESSION_UNKNOWN, 0, 1 << 16 | 2
    yield b"", logon(account=2, session=1 << 16 | 1), Reason.SESSION_LIVE, 0, 1 << 16 | 1
    for session in (0, 77, 1 << 16 | 1, 1 << 16 | 2):
        yield b"", logoff(session=session), Reason.SESSION_UNKNOWN, 0, session
    waiting = logon(flags=CommandFlag.CANCEL_ON_DISCONNECT) + logoff(session=2 << 16 | 2)
    yield waiting, logoff(session=2 << 16 | 2), Reason.SESSION_UNKNOWN, 0, 2 << 16 | 2


def of_listing() -> Iterator[Case]:
    out_of_range = Reason.PARAMETER_RANGE
    yield b"", list_instrument(instrument=4), Reason.STATE, 3, 4
    yield b"", list_instrument(instrument=0), Reason.STATE, 3, 0
    wrong = [{name: 0} for name in ("quantity", "session", "account", "operator")]
    wrong += [{"target_lo": 1}, {"target_hi": 1001}, {"target_lo": 505, "target_hi": 500}]
    wrong += [{"target_lo": -PRICE - 5}, {"target_hi": PRICE + 5, "account": 1}]
    wrong += [{"account": 1, "target_hi": int(Limit.LADDER_LEVELS)}]
    wrong += [{"price": PRICE + 1}, {"price": -PRICE - 1}, {"price": -(1 << 63)}]
    wrong += [{"target_lo": -1 << 63}, {"quantity": 1 << 31, "session": 1 << 31}]
    wrong += [{"quantity": 1 << 20, "price": (1 << 40) + 1}]
    for changes in wrong:
        yield b"", list_instrument(**changes), out_of_range, 0, 0
    for command in (set_limits, set_risk, mark, settle, expire):
        yield b"", command(instrument=3), Reason.UNKNOWN_INSTRUMENT, 3, 3
        yield b"", command(instrument=2), Reason.STATE, 0, EXPIRED
    yield b"", set_state(OPEN, instrument=3), Reason.UNKNOWN_INSTRUMENT, 3, 3
    for changes in (
        {"target_lo": 101},
        {"target_hi": 901},
        {"target_lo": 905},
        {"target_hi": PRICE + 5},
        {"target_hi": 5 * int(Limit.LADDER_LEVELS) + 100},
    ):
        yield b"", set_limits(**changes), out_of_range, 0, 0


def of_parameters() -> Iterator[Case]:
    out_of_range = Reason.PARAMETER_RANGE
    lots = (1 << 31) - 1
    for changes in (
        {"price": -1},
        {"price": (1 << 40) + 1},
        {"target_lo": (1 << 32) + 1},
        {"target_lo": -(1 << 32) - 1, "target_hi": 1 << 33},
        {"target_lo": -2, "target_hi": 1},
        {"session": lots + 1},
        {"price": 1 << 40, "quantity": (1 << 20) + 1},
    ):
        yield b"", set_risk(**changes), out_of_range, 0, 0
    wide = list_instrument(quantity=1 << 20, session=1 << 10)
    yield wide, set_risk(instrument=3, session=1 << 22), out_of_range, 0, 0
    for state in (SHUT, HALTED, EXPIRED, 6, 255):
        yield b"", set_state(state, instrument=1), Reason.STATE, SHUT, state
    for state in (OPEN, EXPIRED, 7):
        yield b"", set_state(state), Reason.STATE, OPEN, state
        yield b"", set_state(state, instrument=2), Reason.STATE, EXPIRED, state
    for command in (mark, settle, expire):
        for price in (PRICE + 1, -PRICE - 1, -(1 << 63)):
            yield b"", command(price=price), out_of_range, 0, 0
    for cycle in (0, 100):
        yield b"", settle(quantity=cycle), out_of_range, 0, 0
    yield b"", settle(quantity=1), Reason.ALREADY_SETTLED, DATE * 100 + 1, DATE * 100 + 1
    yield b"", expire(instrument=0), Reason.STATE, HALTED, OPEN


def of_accounts() -> Iterator[Case]:
    yield b"", open_account(account=1 << 16), Reason.ACCOUNTS_FULL, 1 << 16, 1 << 16
    yield b"", open_account(account=1), Reason.ACCOUNT_EXISTS, 0, 0
    yield b"", open_account(account=0), Reason.ACCOUNT_EXISTS, 0, 0
    for changes in (
        {"instrument": int(Limit.MEMBERS)},
        {"tif": 3},
        {"operator": 1},
        {"quantity": 0},
        {"quantity": int(Limit.ORDERS) + 1},
        {"target_hi": 0},
        {"target_hi": (1 << 50) + 1},
        {"target_lo": (1 << 50) + 1},
        {"target_lo": 1 << 32, "target_hi": 1 << 32},
    ):
        yield b"", open_account(**changes), Reason.PARAMETER_RANGE, 0, 0
    for command in (deposit, withdraw, fee, record):
        yield b"", command(account=99), Reason.UNKNOWN_ACCOUNT, 0, 0
        yield b"", command(key_lo=RECEIPT), Reason.DUPLICATE_DIFFERENT, 0, 0
    for command in (deposit, withdraw, fee):
        for amount in (0, -1, MONEY + 1, -(1 << 63)):
            yield b"", command(price=amount), Reason.PARAMETER_RANGE, MONEY, amount
        yield b"", command(tif=1), Reason.ASSET_MISMATCH, 0, 1
    yield b"", deposit(price=MONEY), Reason.MONEY_RANGE, MONEY, MONEY
    deep = fee(price=MONEY, key_lo=8)
    yield deep, fee(price=MONEY), Reason.MONEY_RANGE, MONEY, MONEY
    yield b"", withdraw(price=741), Reason.FUNDS, 740, 741
    brother = open_account(account=4) + fee(account=4, price=700)
    yield brother, withdraw(price=100), Reason.FUNDS, 40, 100
    yield b"", set_account(account=99), Reason.UNKNOWN_ACCOUNT, 0, 0


def of_the_market() -> Iterator[Case]:
    open_day, close_day = CommandKind.OPEN_DAY, CommandKind.CLOSE_DAY
    yield b"", pack(open_day, quantity=DATE + 1), Reason.DAY_STATE, DATE, DATE + 1
    closed = pack(close_day, quantity=DATE)
    yield closed, pack(open_day, quantity=DATE), Reason.DAY_STATE, DATE, DATE
    yield closed, closed, Reason.DAY_STATE, DATE, DATE
    yield b"", pack(close_day, quantity=DATE + 1), Reason.DAY_STATE, DATE, DATE + 1
    for version in (0, 1, 2):
        upgrade = pack(CommandKind.UPGRADE, quantity=version)
        yield b"", upgrade, Reason.RULES_VERSION, 1, version
    yield b"", pack(CommandKind.SET_MODE, tif=2), Reason.PARAMETER_RANGE, 1, 2
    for kind in (0, 14, 19, 27, 35, 46, 255):
        yield b"", pack(kind), Reason.UNKNOWN_COMMAND, 0, kind


def of_combinations() -> Iterator[Case]:
    spread = combine(3, {0: 1, 1: -1}, CombinationRule.DIFFERENCE)
    for command in (mark, settle, expire):
        yield spread, command(instrument=3), Reason.NOT_OUTRIGHT, 0, 2
    quote = pack(CommandKind.MASS_QUOTE, instrument=3, account=1, key_lo=NEW)
    yield spread, quote, Reason.NOT_OUTRIGHT, 0, 2
    for kind in (CommandKind.SET_PROTECTIONS, CommandKind.SET_BREAKER):
        yield spread, pack(kind, instrument=3), Reason.NOT_OUTRIGHT, 0, 2
    moved = pack(CommandKind.TRANSFER, instrument=3, account=1, target_lo=2, tif=2, key_lo=NEW)
    yield spread, moved, Reason.NOT_OUTRIGHT, 0, 2
    trading = set_state(OPEN, instrument=1) + spread + set_risk(instrument=3, price=0)
    trading += set_state(OPEN, instrument=3)
    for feature, value in ((STOP, 400), (ICEBERG, 2)):
        special = enter(instrument=3, spare=feature, target_hi=value)
        yield trading, special, Reason.NOT_OUTRIGHT, 0, 2
    imply = partial(pack, CommandKind.SET_IMPLIED, tif=1)
    yield b"", imply(instrument=0), Reason.NOT_IMPLIED, 0, 0
    most = int(Limit.LEG_SPREADS)
    numbers = range(3, 3 + most)
    many = [combine(n, {0: 1, 1: -1}, CombinationRule.DIFFERENCE) for n in (*numbers, 3 + most)]
    full = b"".join([*many, *(imply(instrument=n) for n in numbers)])
    yield full, imply(instrument=3 + most), Reason.SPREADS_FULL, most, most
    most = int(Limit.CREDITS)
    numbers = range(3, 3 + most)
    many = [combine(n, {0: 1, 1: -1}, CombinationRule.DIFFERENCE) for n in (*numbers, 3 + most)]
    spared = b"".join([*many, *(set_risk(instrument=n, price=0, key_lo=1) for n in numbers)])
    another = set_risk(instrument=3 + most, price=0, key_lo=1)
    yield spared, another, Reason.CREDITS_FULL, most, most
    yield spread, set_risk(instrument=3, price=0, key_lo=11), Reason.PARAMETER_RANGE, 0, 0


CASES: list[Case] = [
    *of_every_order_command(),
    *of_enter(),
    *of_auctions(),
    *of_named_orders(),
    *of_replace(),
    *of_sessions(),
    *of_listing(),
    *of_parameters(),
    *of_accounts(),
    *of_the_market(),
    *of_combinations(),
]

KINDS = set(CommandKind)
# What the capacity tests cover (test_engine_capacity.py), those of mass acts (test_engine_mass.py,
# test_engine_groups.py, test_engine_quotes.py), of icebergs (test_engine_icebergs.py) and of
# corrections (test_engine_corrections.py), and SETTLE before the first day below.
ELSEWHERE = {
    (CommandKind.ENTER, Reason.SESSION_KILLED),
    (CommandKind.ENTER, Reason.MEMBER_KILLED),
    (CommandKind.ENTER, Reason.EXCHANGE_KILLED),
    (CommandKind.ENTER, Reason.GROUP),
    (CommandKind.ENTER, Reason.REDUCE_ONLY),
    (CommandKind.REPLACE, Reason.QUOTE),
    (CommandKind.MASS_QUOTE, Reason.QUOTES_BLOCKED),
    (CommandKind.MASS_QUOTE, Reason.CROSSED),
    (CommandKind.SET_PROTECTION, Reason.PROTECTIONS_FULL),
    *((kind, Reason.ORDERS_FULL) for kind in (CommandKind.ENTER, CommandKind.CANCEL)),
    (CommandKind.ENTER, Reason.BOOK_FULL),
    (CommandKind.ENTER, Reason.POSITIONS_FULL),
    (CommandKind.ENTER, Reason.ICEBERGS_FULL),
    (CommandKind.ENTER, Reason.REDUCING_FULL),  # test_engine_bounds.py
    (CommandKind.ENTER, Reason.GROUPS_FULL),  # test_engine_bounds.py
    (CommandKind.LOGON, Reason.SESSIONS_FULL),
    (CommandKind.LIST, Reason.INSTRUMENTS_FULL),
    (CommandKind.SETTLE, Reason.DAY_STATE),
    (CommandKind.BUST, Reason.TRADE_UNKNOWN),
    (CommandKind.BUST, Reason.ALREADY_CORRECTED),
    (CommandKind.BUST, Reason.CORRECTIONS_FULL),
    (CommandKind.BUST, Reason.LEG_ALONE),  # test_engine_whole.py
    (CommandKind.BUST, Reason.TRADE_DIFFERENT),
    (CommandKind.BUST, Reason.LEGS_FORGOTTEN),
    (CommandKind.TRANSFER, Reason.NOT_HELD),  # test_engine_offbook.py
    (CommandKind.TRANSFER, Reason.HOUSE_ACCOUNT),
    # test_engine_protections.py
    *(
        (CommandKind.ENTER, reason)
        for reason in (
            Reason.FEATURE_OFF,
            Reason.PRICE_BAND,
            Reason.ORDER_VALUE,
            Reason.ALL_MONTHS_LIMIT,
            Reason.LOSS_LIMIT,
        )
    ),
}


def name_of(case: Case) -> str:
    return f"{case[2].name}-{command_in_words(case[1]).replace(' ', ',')}"


@pytest.mark.parametrize("machine", [Oracle, Engine])
@pytest.mark.parametrize("case", CASES, ids=map(name_of, CASES))
def test_reject(machine: type[Machine], case: Case) -> None:
    first, command, reason, a, b = case
    market = Market(machine(), opening() + first)
    assert assert_rejected(market, command, reason) == (a, b)


@pytest.mark.parametrize("machine", [Oracle, Engine])
def test_settle_before_the_first_day(machine: type[Machine]) -> None:
    market = Market(machine(), list_instrument(instrument=0))
    assert assert_rejected(market, settle(), Reason.DAY_STATE) == (0, 0)


@pytest.mark.parametrize("machine", [Oracle, Engine])
def test_what_would_pass(machine: type[Machine]) -> None:
    """The commands that the rows spoil are good in this market."""
    good: list[Callable[[], bytes]] = [enter, cancel, reduce, replace, renew, logon]
    good += [list_instrument, set_limits, set_risk, mark, settle, expire]
    good += [open_account, deposit, withdraw, fee, record, set_account]
    for command in good:
        Market(machine(), opening() + command())


def test_every_reject_has_a_row() -> None:
    """Every reason that the core names, and every pair of command and reason, is covered."""
    core = Path(__file__).parents[1] / "exchange" / "engine"
    sources = [*core.glob("*.pyx"), *core.glob("*.pxd")]
    text = "".join(path.read_text() for path in sources if path.stem != "vocabulary")
    named = {Reason[name] for name in re.findall(r"\bREASON_([A-Z_]+)", text)}
    covered = {(CommandKind(case[1][0]), case[2]) for case in CASES if case[1][0] in KINDS}
    covered |= ELSEWHERE
    assert named == {reason for _, reason in covered} | {Reason.UNKNOWN_COMMAND}
