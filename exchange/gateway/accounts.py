"""Orders, cash and positions of every account, computed from released events alone.

The gateway answers queries from these figures, with the sequence that they are as of; the engine is
never queried. The formulas are those of docs/reference/engine.md. An order's client order id is
kept while the order works and, for late duplicates and replays, among the last ``FINISHED_ORDERS``
that ended.
"""

from collections import deque
from typing import Final, TypeAlias

from exchange.gateway.buckets import Bucket, spends
from exchange.gateway.decode import ORDER_ID
from exchange.marketdata.instruments import Instrument, Instruments
from exchange.marketdata.stream import Row, signed
from exchange.messages import (
    HOUSE_ACCOUNT,
    CancelReason,
    EventFlag,
    EventKind,
    KillScope,
    OrderFeature,
)
from exchange.messages.wire import Replace

FINISHED_ORDERS: Final = 1 << 17
EXCHANGE: Final = -1  # in ``Accounts.stopped``: all members
_BY_SETTING, _BY_KILL = 1, 2
_QUOTE: Final = int(OrderFeature.QUOTE)
# Plain integers: the operators of enumerations cost more than all other work per event.
_DUPLICATE: Final = int(EventFlag.DUPLICATE)
_SELL: Final = int(EventFlag.SELL)
_ACCEPTED: Final = int(EventKind.ORDER_ACCEPTED)
_TRADE: Final = int(EventKind.TRADE)
_CANCELLED: Final = int(EventKind.ORDER_CANCELLED)
_EXECUTED: Final = int(EventKind.ORDER_EXECUTED)
_REDUCED: Final = int(EventKind.ORDER_REDUCED)
_REPLACED: Final = int(EventKind.ORDER_REPLACED)
_DORMANT: Final = int(EventKind.ORDER_DORMANT)
_RETURNED: Final = int(EventKind.ORDER_RETURNED)
_WAITING: Final = int(EventKind.ORDER_WAITING)
_ELECTED: Final = int(EventKind.ORDER_ELECTED)
_REPLACED_AWAY: Final = int(CancelReason.REPLACED)
_REPRICED: Final = 2  # reason of an ORDER_REPLACED made by an auction, not by a request
_ASKED: Final = frozenset((int(EventKind.REJECTED), int(EventKind.QUOTED)))
# id, account, instrument, text, sell, price, quantity, leaves, time in force, dormant, waiting
Terms: TypeAlias = tuple[int, int, int, str, bool, int, int, int, int, bool, bool]


def quote_name(code: str, sell: bool) -> str:
    """Return the substitute client order id of one side of a quote, which has none of its own."""
    return f"quote.{code}.{'sell' if sell else 'buy'}"


class Order:
    """One order, working or recently ended: what its reports and queries need. Price in ticks.

    Holds only numbers and one text, so that a million orders give the garbage collector no work. It
    is created empty and then filled, since passing the fields as arguments doubles the cost.
    """

    __slots__ = (
        "account", "dormant", "id", "instrument", "leaves", "price", "quantity", "sell", "text",
        "tif", "waiting",
    )  # fmt: skip

    def __init__(self) -> None:
        self.id = self.account = self.instrument = self.tif = 0
        self.price = self.quantity = self.leaves = 0
        self.text = ""
        self.sell = self.dormant = False
        self.waiting = False  # a stop that has not been elected

    def terms(self) -> Terms:
        """Return all fields, for ``order_of``."""
        return (
            self.id, self.account, self.instrument, self.text, self.sell, self.price,
            self.quantity, self.leaves, self.tif, self.dormant, self.waiting,
        )  # fmt: skip


def order_of(terms: Terms) -> Order:
    """Return the order with these terms."""
    order = Order()
    (
        order.id, order.account, order.instrument, order.text, order.sell, order.price,
        order.quantity, order.leaves, order.tif, order.dormant, order.waiting,
    ) = terms  # fmt: skip
    return order


class Holding:
    """A position: signed lots and their cost since the last settlement, in micro-dollars."""

    __slots__ = ("cost", "net")

    def __init__(self) -> None:
        self.net = 0
        self.cost = 0


class Account:
    """One account; money in micro-dollars. ``orders`` are the working ones, by order id."""

    __slots__ = ("bucket", "cash", "group", "holdings", "ids", "killed", "member", "orders")

    def __init__(self, member: int = 0, bucket: Bucket | None = None, group: int = 0) -> None:
        self.bucket = bucket or Bucket()  # throttle
        self.cash = 0
        self.member = member
        self.group = group  # self-trade group: its accounts never trade with each other
        self.killed = 0  # bits: kill switch set by SET_ACCOUNT, by KILL
        self.holdings: dict[int, Holding] = {}  # by instrument id
        self.orders: dict[int, Order] = {}
        self.ids: dict[str, int] = {}  # client order id -> order id, finished ones included


class Exposure:
    """One instrument's share of an account's requirement: lots, and money in micro-dollars."""

    __slots__ = ("adverse", "cost", "net", "working_buy", "working_sell")

    def __init__(self) -> None:
        self.net = self.cost = self.working_buy = self.working_sell = self.adverse = 0

    def work(self, sell: bool, lots: int) -> None:
        """Add lots of a working order."""
        if sell:
            self.working_sell += lots
        else:
            self.working_buy += lots

    def leaning(self) -> int:
        """Return the most lots it could become long minus the most it could become short."""
        return max(0, self.net + self.working_buy) - max(0, self.working_sell - self.net)


class Accounts:
    """All accounts, and all working and recently ended orders by id."""

    def __init__(self, instruments: Instruments) -> None:
        self.by_id: dict[int, Account] = {HOUSE_ACCOUNT: Account()}
        self.orders: dict[int, Order] = {}  # working ones and those in ``finished``
        self.finished: deque[Order] = deque()  # the oldest first
        self.stopped: set[int] = set()  # members whose kill switch is on; EXCHANGE for all
        self.now = 0  # stamp of the current or last batch
        # Sequence of the last final settlement. The instrument's state does not tell which one a
        # position's is: the instruments are a batch ahead.
        self._expiring = 0
        self._instruments, self._listed = instruments, instruments.by_id

    def tokens(self, account: int, stamp: int) -> int | None:
        """Return the tokens left in an account's throttle; None for a stamp other than ``now``."""
        if stamp != self.now:
            return None
        known = self.by_id[account]
        return known.bucket.left(stamp)

    def is_killed(self, account: Account) -> bool:
        """Return whether a kill switch of the account, its member or the exchange is on; those of
        sessions do not count."""
        return bool(account.killed or self.stopped & {account.member, EXCHANGE})

    def text_of(self, order_id: int) -> str:
        """Return an order's client order id; empty if the order is no longer kept."""
        order = self.orders.get(order_id)
        return "" if order is None else order.text

    def known(self, order_id: int) -> Order | None:
        """Return an order that works or ended recently; None if there is none of that id."""
        return self.orders.get(order_id)

    def target_instrument(self, request: Replace, account: int) -> Instrument | None:
        """Return the instrument of the order that a replace names; None if the account has no
        such order."""
        order_id = -1
        if request.client_order_id is not None:
            order_id = self.by_id[account].ids.get(request.client_order_id, -1)
        elif request.order_id is not None and ORDER_ID.fullmatch(request.order_id):
            order_id = int(request.order_id)
        order = self.known(order_id)
        if order is None or order.account != account:
            return None
        return self._listed[order.instrument]

    def apply(self, row: Row, text: str | None) -> Order | None:
        """Apply one event; ``text`` came with its command. Return the order that it changed; of a
        trade the incoming one."""
        kind, flags = row[2], row[3]
        if flags & _DUPLICATE:
            return None
        if kind == _ACCEPTED:
            return self._accept(row, text or "")
        if kind == _TRADE:
            return self._trade(row)
        if kind in (
            _CANCELLED, _EXECUTED, _REDUCED, _REPLACED, _DORMANT, _RETURNED, _WAITING, _ELECTED,
        ):  # fmt: skip
            return self._change(row)
        if kind in _ASKED and spends(row, text):
            self.by_id[row[6]].bucket.spend(self.now)
        self._account(row)
        return None

    def _change(self, row: Row) -> Order:
        kind, order = row[2], self.orders[row[7]]
        if kind == _CANCELLED:
            if row[4] == _REPLACED_AWAY and not row[1]:
                self.by_id[row[6]].bucket.spend(self.now)
            self._finish(order)
        elif kind == _EXECUTED:  # at an implied price: positions follow in leg events
            self._leave(order, row[10])
        elif kind == _REDUCED:
            order.quantity -= row[9]
            order.leaves = row[10]
        elif kind == _REPLACED:
            executed = order.quantity - order.leaves
            order.price, order.quantity, order.leaves = row[8], row[9], row[9] - executed
            order.dormant = False
            if row[4] != _REPRICED and not row[1]:
                self.by_id[row[6]].bucket.spend(self.now)
        elif kind == _WAITING:
            order.waiting = True
        elif kind == _ELECTED:  # a stop market order gets its limit price now
            order.waiting, order.price = False, row[8]
        else:
            order.dormant = kind == _DORMANT
        return order

    def _accept(self, row: Row, text: str) -> Order:
        order_id, account_id, flags, terms = row[7], row[6], row[3], row[14]
        quoted = terms >> 16 & _QUOTE != 0
        order = Order()
        order.id, order.account, order.instrument = order_id, account_id, row[5]
        order.sell, order.tif, order.price = flags & _SELL != 0, terms & 0xFF, row[8]
        order.quantity = order.leaves = row[9]
        if quoted:
            text = quote_name(self._listed[row[5]].code, order.sell)
        order.text = text
        self.orders[order_id] = order
        account = self.by_id[account_id]
        account.orders[order_id] = order
        account.ids[text] = order_id
        if not row[1] and not quoted:
            account.bucket.spend(self.now)
        return order

    def _account(self, row: Row) -> None:
        kind = row[2]
        if kind == EventKind.POSITION_SETTLED:
            account = self.by_id[row[6]]
            account.cash = row[14]
            if row[0] == self._expiring:
                del account.holdings[row[5]]
            else:
                holding = account.holdings[row[5]]
                holding.cost = holding.net * row[8] * self._listed[row[5]].multiplier
        elif kind == EventKind.INSTRUMENT_EXPIRED:
            self._expiring = row[0]
            self._drop_flat(row[5])
        elif kind in (EventKind.DEPOSITED, EventKind.WITHDRAWN, EventKind.FEE_CHARGED):
            self.by_id[row[6]].cash = row[14]
            if kind == EventKind.FEE_CHARGED and row[6] != HOUSE_ACCOUNT:
                self.by_id[HOUSE_ACCOUNT].cash += row[8]
        elif kind == EventKind.TRADE_BUSTED or kind == EventKind.TRADE_ADJUSTED:
            if not row[4]:  # a combination's legs are corrected by their own events
                self._correct(row, self._listed[row[5]].tick_value)
        elif kind == EventKind.LEG_BUSTED or kind == EventKind.LEG_ADJUSTED:
            self._correct(row, self._listed[row[5]].multiplier)
        elif kind == EventKind.LEG_TRADE:
            lots = -row[9] if row[3] & _SELL else row[9]
            value = lots * row[8] * self._listed[row[5]].multiplier
            self._book(row[6], row[5], lots, value, row[13])
            self._book(row[12], row[5], -lots, -value, row[14])
            self.by_id[HOUSE_ACCOUNT].cash -= row[13] + row[14]
        elif kind == EventKind.LOTS_TRANSFERRED:
            lots = -row[9] if row[3] & _SELL else row[9]
            value = lots * row[8] * self._listed[row[5]].multiplier
            self._book(row[6], row[5], lots, value, 0)
            self._book(row[7], row[5], -lots, -value, 0)
        elif kind == EventKind.RESIDUAL_POSTED or kind == EventKind.RESIDUAL_CORRECTED:
            self.by_id[row[6]].cash += row[13]
            self.by_id[row[12]].cash += row[14]
        elif kind == EventKind.ACCOUNT_OPENED:
            self.by_id[row[6]] = Account(row[5], Bucket(row[13], row[14]), row[10])
        elif kind == EventKind.ACCOUNT_CHANGED:
            self._switch(self.by_id[row[6]], _BY_SETTING, row[10] != 0)
        elif kind == EventKind.KILLED or kind == EventKind.RESUMED:
            self._kill(row, kind == EventKind.KILLED)

    def _drop_flat(self, instrument: int) -> None:
        """Delete the flat positions of an expired instrument: no settlement event follows them."""
        for account in self.by_id.values():
            holding = account.holdings.get(instrument)
            if holding is not None and not holding.net and not holding.cost:
                del account.holdings[instrument]

    def _switch(self, account: Account, bit: int, on: bool) -> None:
        account.killed = account.killed | bit if on else account.killed & ~bit

    def _kill(self, row: Row, on: bool) -> None:
        if row[4] == KillScope.ACCOUNT:
            self._switch(self.by_id[row[6]], _BY_KILL, on)
        elif row[4] != KillScope.SESSION:
            whom = {row[10] if row[4] == KillScope.MEMBER else EXCHANGE}
            self.stopped = self.stopped | whom if on else self.stopped - whom

    def _trade(self, row: Row) -> Order:
        maker = row[12]  # maker_of, without the call
        lots = -row[9] if row[3] & _SELL else row[9]
        value = lots * row[8] * self._listed[row[5]].tick_value
        order = self.orders[row[7]]
        self._leave(order, row[10])
        self._leave(self.orders[row[11]], maker >> 32)
        if row[4]:  # a combination: its leg events move the positions
            return order
        self._book(row[6], row[5], lots, value, row[13])
        self._book(maker & 0xFFFF_FFFF, row[5], -lots, -value, row[14])
        fees = row[13] + row[14]
        if fees:
            self.by_id[HOUSE_ACCOUNT].cash -= fees
        return order

    def _correct(self, row: Row, unit: int) -> None:
        """Apply the bust or price adjustment of a trade or leg; prices are in units of ``unit``
        micro-dollars per lot. Fields as in ``_trade``."""
        busted = row[2] == EventKind.TRADE_BUSTED or row[2] == EventKind.LEG_BUSTED
        bought = -row[9] if row[3] & _SELL else row[9]
        lots = -bought if busted else 0
        value = -bought * row[8] if busted else bought * (row[8] - signed(row[11]))
        value *= unit
        self._book(row[6], row[5], lots, value, row[13])
        self._book(row[12], row[5], -lots, -value, row[14])
        self.by_id[HOUSE_ACCOUNT].cash -= row[13] + row[14]

    def _book(self, account_id: int, instrument: int, lots: int, value: int, cash: int) -> None:
        account = self.by_id[account_id]
        account.cash += cash
        holding = account.holdings.get(instrument)
        if holding is None:
            holding = account.holdings[instrument] = Holding()
        holding.net += lots
        holding.cost += value

    def _leave(self, order: Order, leaves: int) -> None:
        order.leaves = leaves
        if not leaves:
            self._finish(order)

    def _finish(self, order: Order) -> None:
        account = self.by_id[order.account]
        del account.orders[order.id]
        finished = self.finished
        finished.append(order)
        if len(finished) > FINISHED_ORDERS:
            oldest = finished.popleft()
            if self.orders.get(oldest.id) is oldest:
                del self.orders[oldest.id]
            ids = self.by_id[oldest.account].ids
            if ids.get(oldest.text) == oldest.id:
                del ids[oldest.text]

    def exposures(self, account: Account) -> dict[int, Exposure]:
        """Return the account's exposure by instrument id: positions and working orders."""
        found: dict[int, Exposure] = {}
        for number, holding in account.holdings.items():
            exposure = found[number] = Exposure()
            exposure.net, exposure.cost = holding.net, holding.cost
        for order in account.orders.values():
            exposure = found.setdefault(order.instrument, Exposure())
            instrument = self._listed[order.instrument]
            beyond = order.price * instrument.tick_value - self._instruments.value(instrument)
            exposure.work(order.sell, order.leaves)
            exposure.adverse += order.leaves * max(0, -beyond if order.sell else beyond)
            for number, ratio in instrument.legs:
                leg = found.setdefault(number, Exposure())
                leg.work(order.sell == (ratio > 0), order.leaves * abs(ratio))
        return found

    def hold(self, number: int, exposure: Exposure) -> int:
        """Return the hold of one instrument's exposure, in micro-dollars."""
        buys = abs(exposure.net + exposure.working_buy)
        sells = abs(exposure.net - exposure.working_sell)
        return self._listed[number].rate * max(buys, sells) + exposure.adverse

    def credit(self, exposures: dict[int, Exposure]) -> int:
        """Return the spread credit on an account's requirement, in micro-dollars."""
        return self._instruments.credit(
            {number: exposure.leaning() for number, exposure in exposures.items()}
        )

    def unrealized(self, number: int, exposure: Exposure) -> int:
        """Return the gain at the mark since the last settlement, in micro-dollars."""
        instrument = self._listed[number]
        return exposure.net * instrument.mark * instrument.multiplier - exposure.cost
