"""The oracle: docs/reference/engine.md in slow, obvious Python, with the compiled engine's face.

``oracle_state`` holds the market, ``oracle_risk`` its arithmetic; ``oracle_orders``,
``oracle_instruments`` and ``oracle_accounts`` have the commands. This file has the commands of
the whole market, the way from a command's bytes to its events' bytes, and the views.
"""

from collections.abc import Callable
from itertools import groupby

from oracle_accounts import (
    fire_timers,
    logoff,
    logon,
    lose_session,
    move_money,
    next_due,
    open_account,
    record,
    set_account,
)
from oracle_auction import indicate
from oracle_combinations import mark_of
from oracle_implied import set_implied
from oracle_instruments import (
    change_state,
    expire,
    list_combination,
    list_instrument,
    mark,
    protect,
    set_limits,
    set_mode,
    set_risk,
    set_state,
    settle,
)
from oracle_legwise import adjust, bust
from oracle_mass import is_stopped, kill, mass_cancel, resume
from oracle_matching import cancel_order
from oracle_offbook import transfer
from oracle_orders import cancel, enter, reduce, replace
from oracle_protections import count_losses_from_now, set_feature
from oracle_quotes import mass_quote, set_protection
from oracle_risk import account_hold, credit, hold, required, unrealized, working
from oracle_state import (
    U64,
    WORKING,
    Account,
    Instrument,
    Market,
    Order,
    Position,
    Receipt,
    Record,
    Rejected,
    signed,
)

from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    RULES_VERSION,
    CancelReason,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    HaltCause,
    Limit,
    OrderFeature,
    Reason,
    Side,
    TimeInForce,
    TradingState,
)

Depth = tuple[int, int, int]  # price_ticks, lots, orders
TARGETED = (CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE)


def advance_time(m: Market, c: Record) -> None:
    m.emit(EventKind.TIME_ADVANCED, a=m.stamp)


def recovered(m: Market, c: Record) -> None:
    m.emit(EventKind.RECOVERED, quantity=c.quantity)
    for session in sorted(m.sessions.values(), key=lambda s: s.slot):
        if session.online:
            lose_session(m, session)
    for instrument in m.instruments:
        if instrument.state == TradingState.CONTINUOUS:
            change_state(m, instrument, TradingState.HALTED, HaltCause.RECOVERY)


def open_day(m: Market, c: Record) -> None:
    if m.day_open or c.quantity <= m.business_date:
        raise Rejected(Reason.DAY_STATE, m.business_date, c.quantity)
    m.day_open, m.business_date = True, c.quantity
    m.day_first, m.corrected = m.sequence, set()
    m.legs_known, m.leg_changes, m.stated = m.sequence, [], None
    for account in m.accounts.values():
        count_losses_from_now(m, account)
    m.emit(EventKind.DAY_OPENED, quantity=c.quantity)


def close_day(m: Market, c: Record) -> None:
    if not m.day_open or c.quantity != m.business_date:
        raise Rejected(Reason.DAY_STATE, m.business_date, c.quantity)
    m.day_open = False
    m.emit(EventKind.DAY_CLOSED, quantity=c.quantity)
    for order in m.orders_by_slot():
        if order.tif == TimeInForce.DAY:
            cancel_order(m, order, CancelReason.DAY_ENDED)


def upgrade(m: Market, c: Record) -> None:
    if not m.rules_version < c.quantity <= RULES_VERSION:
        raise Rejected(Reason.RULES_VERSION, RULES_VERSION, c.quantity)
    m.rules_version = c.quantity
    m.emit(EventKind.UPGRADED, quantity=c.quantity)


def mix(x: int) -> int:
    """The splitmix64 finalizer."""
    x &= U64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & U64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & U64
    return x ^ x >> 31


def checkpoint(m: Market, c: Record) -> None:
    fold = lots = 0
    for number, account in m.accounts.items():
        fold += mix(mix(1 << 56 | number) + account.cash)
        for instrument, position in account.positions.items():
            lots += max(0, position.net)
            if position.net:
                fold += mix(mix(2 << 56 | number << 32 | instrument) + position.net)
    cash = sum(account.cash for account in m.accounts.values())
    m.emit(EventKind.CHECKPOINTED, price=lots, a=cash, b=signed(fold & U64))


EFFECTS: dict[int, Callable[[Market, Record], None]] = {
    CommandKind.ENTER: enter,
    CommandKind.CANCEL: cancel,
    CommandKind.REDUCE: reduce,
    CommandKind.REPLACE: replace,
    CommandKind.MASS_CANCEL: mass_cancel,
    CommandKind.KILL: kill,
    CommandKind.RESUME: resume,
    CommandKind.MASS_QUOTE: mass_quote,
    CommandKind.SET_PROTECTION: set_protection,
    CommandKind.LOGON: logon,
    CommandKind.LOGOFF: logoff,
    CommandKind.ADVANCE_TIME: advance_time,
    CommandKind.RECOVERED: recovered,
    CommandKind.LIST: list_instrument,
    CommandKind.SET_LIMITS: set_limits,
    CommandKind.SET_RISK: set_risk,
    CommandKind.SET_STATE: set_state,
    CommandKind.MARK: mark,
    CommandKind.SETTLE: settle,
    CommandKind.EXPIRE: expire,
    CommandKind.OPEN_ACCOUNT: open_account,
    CommandKind.DEPOSIT: move_money,
    CommandKind.WITHDRAW: move_money,
    CommandKind.FEE: move_money,
    CommandKind.SET_ACCOUNT: set_account,
    CommandKind.OPEN_DAY: open_day,
    CommandKind.CLOSE_DAY: close_day,
    CommandKind.UPGRADE: upgrade,
    CommandKind.SET_MODE: set_mode,
    CommandKind.RECORD: record,
    CommandKind.CHECKPOINT: checkpoint,
    CommandKind.INDICATE: indicate,
    CommandKind.BUST: bust,
    CommandKind.ADJUST: adjust,
    CommandKind.TRANSFER: transfer,
    CommandKind.SET_PROTECTIONS: protect,
    CommandKind.SET_BREAKER: protect,
    CommandKind.SET_FEATURE: set_feature,
    CommandKind.LIST_COMBINATION: list_combination,
    CommandKind.SET_IMPLIED: set_implied,
}


def unknown(m: Market, c: Record) -> None:
    raise Rejected(Reason.UNKNOWN_COMMAND, 0, c.kind)


def reject(m: Market, c: Record, why: Rejected) -> None:
    c = why.told or c
    named = c.kind in TARGETED and not c.flags & CommandFlag.BY_CLIENT_ID
    m.emit(
        EventKind.REJECTED,
        flags=EventFlag.SELL if c.side == Side.SELL else 0,
        reason=why.reason,
        instrument=c.instrument,
        account=c.account,
        order_id=c.target_lo if named else 0,
        price=c.price,
        quantity=c.quantity,
        key=c.key,
        a=why.a,
        b=why.b,
    )


class Oracle:
    """The same face as ``exchange.engine.Engine``; see docs/reference/engine.md."""

    def __init__(self) -> None:
        self.market = Market()

    def apply(self, commands: bytes, first_sequence: int, stamp_ns: int) -> bytes:
        """n x 64 bytes of commands to m x 80 bytes of events."""
        if len(commands) % COMMAND_BYTES:
            raise ValueError(f"{len(commands)} bytes are not whole commands")
        if not commands:
            return b""
        m = self.market
        m.stamp = max(m.stamp, stamp_ns)
        m.rows = []
        fire_timers(m)
        out: list[bytes] = []
        for sequence, fields in enumerate(COMMAND.iter_unpack(commands), first_sequence):
            c, m.sequence = Record._make(fields), sequence
            try:
                EFFECTS.get(c.kind, unknown)(m, c)
            except Rejected as why:
                reject(m, c, why)
            last = len(m.rows) - 1
            out += [row.pack(sequence, i, i == last) for i, row in enumerate(m.rows)]
            m.rows = []
        return b"".join(out)

    def next_deadline(self) -> int:
        """The stamp of the next timer, 0 if there is none."""
        due = next_due(self.market)
        return due[0] if due else 0

    def state_bytes(self, buckets: bool = True) -> bytes:
        """All that can change a later event, as canonical text; without sequence and stamp."""
        m = self.market
        parts = [
            ("market", m.stops, m.business_date, m.day_open, m.mode, m.rules_version, m.deposited),
            ("off", sorted(m.features_off)),
            ("corrected", m.day_first, sorted(m.corrected)),
            ("legs", m.legs_known, m.leg_changes, m.stated),
            ("killed", m.killed, sorted(m.killed_members)),
            ("slots", m.generations, m.free_slots),
            ("sessions", m.session_generations, list(m.ended_slots)),
            *(_entry_state(m.slots[slot]) for slot in sorted(m.slots)),
            *(_account_state(n, m.accounts[n], buckets) for n in sorted(m.accounts)),
            *(_instrument_state(instrument) for instrument in m.instruments),
            *(_fields(m.sessions[n]) for n in sorted(m.sessions)),
        ]
        return "\n".join(map(repr, parts)).encode("ascii")

    def account(self, account_id: int) -> dict[str, int]:
        """Money and state of an account. Raises KeyError."""
        account = self.market.accounts[account_id]
        return {
            "cash": account.cash,
            "hold": account_hold(self.market, account),
            "credit": credit(self.market, account),
            "unrealized": unrealized(self.market, account),
            "required": required(self.market, account),
            "open_orders": account.open_orders(),
            "member": account.member,
            "group": account.group,
            "kind": account.kind,
            "killed": int(is_stopped(self.market, account)),
            "max_order": account.max_order,
            "in_deficit": int(account.in_deficit),
        }

    def position(self, account_id: int, instrument_id: int) -> dict[str, int]:
        """One account in one instrument; zeros if it has no record there."""
        m = self.market
        position = Position()
        if account_id in m.accounts:
            position = m.position(account_id, instrument_id)
        bound, orders = 0, []
        if account_id in m.accounts:
            orders = working(m, m.accounts[account_id], instrument_id)
        if position.net or orders:
            bound = hold(m, m.instruments[instrument_id], position.net, orders)
        return {
            "net": position.net,
            "working_buy": sum(lots for side, lots, _ in orders if side == Side.BUY),
            "working_sell": sum(lots for side, lots, _ in orders if side == Side.SELL),
            "hold": bound,
            "cost": position.cost,
        }

    def book(self, instrument_id: int, levels: int = 0) -> tuple[list[Depth], list[Depth]]:
        """Bids and asks, best first, as (price_ticks, lots, orders); 0 levels means all."""
        instrument = self.market.instruments[instrument_id]
        buys = [order for order in instrument.market if order.side == Side.BUY]
        sells = [order for order in instrument.market if order.side == Side.SELL]
        return _depth(buys + instrument.bids, levels), _depth(sells + instrument.asks, levels)

    def instrument(self, instrument_id: int) -> dict[str, int]:
        """Figures and parameters of an instrument. Raises KeyError."""
        if not 0 <= instrument_id < len(self.market.instruments):
            raise KeyError(instrument_id)
        instrument = self.market.instruments[instrument_id]
        names = (
            "state", "mark", "low", "high", "multiplier", "tick_scale", "price_step", "lot_step",
            "rate", "position_limit", "max_order", "maker_fee", "taker_fee", "last_settled",
            "product", "credit",
        )  # fmt: skip
        figures = {name: int(getattr(instrument, name)) for name in names}
        return {**figures, "mark": mark_of(self.market, instrument)}

    def counts(self) -> dict[str, int]:
        """Sizes and the state of the whole market."""
        m = self.market
        return {
            "orders": len(m.orders_by_slot()),
            "accounts": len(m.accounts),
            "instruments": len(m.instruments),
            "positions": sum(len(account.positions) for account in m.accounts.values()),
            "sessions": len(m.sessions),
            "business_date": m.business_date,
            "day_open": int(m.day_open),
            "rules_version": m.rules_version,
            "mode": m.mode,
        }

    def check(self) -> None:
        """Raises AssertionError naming the invariant that does not hold."""
        m = self.market
        nets = [0] * len(m.instruments)
        for account in m.accounts.values():
            for number, position in account.positions.items():
                nets[number] += position.net
        assert not any(nets), "net positions of an instrument sum to zero"
        cash = sum(account.cash for account in m.accounts.values())
        assert cash == m.deposited, "cash = deposits less withdrawals"
        held = {number for account in m.accounts.values() for number in account.positions}
        states = {m.instruments[number].state for number in held}
        assert TradingState.EXPIRED not in states, "an expired instrument has no positions"
        for instrument in m.instruments:
            _check_book(m, instrument)
        for account in m.accounts.values():
            in_window = [entry for entry in account.known.values() if entry.in_window]
            assert len(in_window) == len(account.window), "the window has its ids and no other"
            assert len(account.window) <= Limit.IDEMPOTENCY_WINDOW, "the window is bounded"
        used = len(m.slots) + len(m.free_slots)
        assert used == len(m.generations) - 1, "every slot is used or free"


def _fields(thing: object) -> tuple[object, ...]:
    return type(thing).__name__, *(getattr(thing, name) for name in thing.__slots__)  # type: ignore[attr-defined]


def _entry_state(entry: Order | Receipt) -> tuple[object, ...]:
    if isinstance(entry, Receipt):
        return _fields(entry)
    bound = 0 if entry.partner is None else entry.partner.order_id
    names = [name for name in entry.__slots__ if name not in ("partner", "serial")]
    return "Order", bound, *(getattr(entry, name) for name in names)


def _account_state(number: int, account: Account, buckets: bool) -> tuple[object, ...]:
    positions = sorted(account.positions.items())
    return (
        "Account",
        number,
        account.member,
        account.group,
        account.kind,
        account.currency,
        account.max_open,
        account.interval,
        account.burst,
        account.cash,
        account.tat if buckets else 0,
        account.max_order,
        sorted((n, *_fields(one)) for n, one in account.protections.items()),
        account.killed,
        account.stopped,
        account.in_deficit,
        (account.loss_limit, account.loss_base, account.loss_reached) if account.loss_limit else (),
        [(instrument, p.net, p.cost, sorted(p.orders)) for instrument, p in positions],
        [entry.order_id for entry in account.window],
        sorted((key, entry.order_id) for key, entry in account.known.items()),
    )


def _instrument_state(instrument: Instrument) -> tuple[object, ...]:
    books = [instrument.bids, instrument.asks, instrument.dormant]
    queues = [*books, instrument.stops, instrument.elected, instrument.market]
    return (
        *_fields(instrument)[: -len(queues)],
        *([order.order_id for order in queue] for queue in queues),
    )


def _depth(orders: list[Order], levels: int) -> list[Depth]:
    """Orders that stand best first, as levels."""
    depth: list[Depth] = []
    for price, group in groupby(orders, key=lambda order: order.price):
        lots = [order.shown for order in group]
        depth.append((price, sum(lots), len(lots)))
    return depth[:levels] if levels else depth


def _check_book(m: Market, instrument: Instrument) -> None:
    bids, asks = instrument.bids, instrument.asks
    assert not (bids and asks) or instrument.collected or bids[0].price < asks[0].price, (
        "no crossed book"
    )
    prices = [order.price for order in bids], [order.price for order in asks]
    assert prices[0] == sorted(prices[0], reverse=True), "bids stand best first"
    assert prices[1] == sorted(prices[1]), "asks stand best first"
    assert instrument.collected or not instrument.market, "market orders wait for auctions alone"
    waiting = [*instrument.stops, *instrument.elected, *instrument.market]
    for order in [*bids, *asks, *instrument.dormant, *waiting]:
        assert order.shown > 0, "a working order has leaves"
        assert order.place in WORKING, "an order knows where it is"
        quote = order.features & OrderFeature.QUOTE
        found = None if quote else m.accounts[order.account].known[order.key]
        assert quote or found is order, "found by its key"
        assert m.slots[order.slot] is order, "found by its id"
        held = m.accounts[order.account].positions[order.instrument].orders
        assert held[order.order_id] is order, "held by its position"
