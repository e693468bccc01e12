"""The audit trail: one row for every command that came in and for every answer that went out.

A trade has two rows of the same match number, one for each order's side. Rows are numbered without
gaps, and so are the sequences in them. Where each field comes from: docs/reference/audit.md.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from exchange.history.picture import Picture
from exchange.history.records import EventRow, command_at, event_row
from exchange.history.walk import NS, time_text
from exchange.history.words import member_name
from exchange.journal.frame import Frame, unpack_texts
from exchange.marketdata.instruments import decimal_text
from exchange.messages import (
    EVENT_BYTES,
    INDEX_BITS,
    AccountKind,
    CancelReason,
    Command,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Reason,
    SelfTrade,
    Side,
    TimeInForce,
)

FIELDS: Final = (
    "row", "direction", "record_type", "msg_type", "sequence", "index", "epoch", "time",
    "received", "business_date", "account", "firm", "account_kind", "cti", "session", "operator",
    "manual", "self_trade_group", "self_trade_mode", "client_order_key", "order_id",
    "order_flow_id", "execution_id", "match_number", "instrument", "side", "order_type",
    "time_in_force", "post_only", "price", "quantity", "last_price", "last_quantity", "leaves",
    "cumulative", "aggressor", "duplicate", "reason", "limit", "observed", "fee", "cash", "text",
)  # fmt: skip
_PLACE: Final = {name: place for place, name in enumerate(FIELDS)}
_MSG_IN: Final = {
    CommandKind.ENTER: "D",
    CommandKind.CANCEL: "F",
    CommandKind.REDUCE: "G",
    CommandKind.REPLACE: "G",
    CommandKind.LOGON: "A",
    CommandKind.LOGOFF: "5",
}
_CTI: Final = {AccountKind.HOUSE: "2", AccountKind.CLIENT: "4", AccountKind.BOX: "4"}
_TARGETED: Final = frozenset({CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE})
# Other commands use the account's field for something else, or not at all.
_OWNED: Final = frozenset(
    {
        CommandKind.ENTER,
        *_TARGETED,
        CommandKind.LOGON,
        CommandKind.LOGOFF,
        *(k for k in CommandKind if CommandKind.OPEN_ACCOUNT <= k <= CommandKind.SET_ACCOUNT),
        CommandKind.RECORD,
    }
)
_SESSIONS: Final = frozenset({CommandKind.LOGON, CommandKind.LOGOFF})
_MONEY: Final = frozenset({CommandKind.DEPOSIT, CommandKind.WITHDRAW, CommandKind.FEE})
_PRICED: Final = frozenset(
    {CommandKind.MARK, CommandKind.SETTLE, CommandKind.EXPIRE, CommandKind.LIST}
)
_CASH_EVENTS: Final = frozenset(
    {EventKind.DEPOSITED, EventKind.WITHDRAWN, EventKind.FEE_CHARGED, EventKind.POSITION_SETTLED}
)
# Events of an account beside those of orders and sessions.
_ACCOUNTS: Final = frozenset(
    {
        EventKind.POSITION_SETTLED,
        *(k for k in EventKind if EventKind.ACCOUNT_OPENED <= k <= EventKind.DEFICIT_ENDED),
        EventKind.RECORDED,
    }
)
Row = list[str]


class _Order(NamedTuple):
    """What an order's later rows repeat of its entry."""

    session: int
    tif: int
    stp: int
    flow: int
    side: str
    key: str
    account: int
    instrument: int
    market: bool


class Trail:
    """Makes the rows. Give it every batch; each row goes to ``write`` at once."""

    def __init__(self, write: Callable[[Row], object]) -> None:
        self._write = write
        self.picture = Picture()
        self.rows = 0
        self._orders: dict[int, _Order] = {}  # working orders
        self._executed: dict[int, int] = {}
        self._flows: dict[int, int] = {}  # first order id of a chain of replacements
        self._replaced = 0  # the order that a new one of the same command goes on

    def take(self, frame: Frame, events: bytes) -> None:
        """Write the rows of a batch: each command, and then its answers."""
        texts = dict(unpack_texts(frame.texts))
        first, count = frame.opening.first_sequence, frame.opening.count
        epoch, now = str(frame.opening.epoch), time_text(frame.opening.stamp)
        at, total = 0, len(events) // EVENT_BYTES
        self.picture.take(frame, events)
        for number in range(count):
            command = command_at(frame.commands, number)
            sequence = first + number
            owner = command.account if command.kind in _OWNED else None
            ingress = int.from_bytes(frame.ingress[8 * number : 8 * number + 8], "little")
            row = self._row("IN", sequence, "", epoch, now, owner)
            row[_PLACE["received"]] = time_text(ingress) if ingress >= NS else ""
            row[_PLACE["text"]] = texts.get(sequence, "")
            self._command(row, command)
            self._put(row)
            self._replaced = 0
            while at < total and (event := event_row(events, at))[0] == sequence:
                self._event(event, epoch, now, command)
                at += 1

    def _row(
        self, direction: str, sequence: int, index: str, epoch: str, now: str, account: int | None
    ) -> Row:
        row = [""] * len(FIELDS)
        row[1], row[4], row[5], row[6], row[7] = direction, str(sequence), index, epoch, now
        row[9] = str(self.picture.business_date or "")
        if account is None:
            return row
        holder = self.picture.accounts.get(account)
        row[10] = str(account)
        if holder is not None:
            row[11] = str(holder.member)
            row[12] = member_name(AccountKind, holder.kind)
            row[13] = _CTI.get(AccountKind(holder.kind), "")
            row[17] = str(holder.group)
        return row

    def _put(self, row: Row) -> None:
        self.rows += 1
        row[0] = str(self.rows)
        self._write(row)

    def _command(self, row: Row, command: Command) -> None:
        kind = command.kind
        row[2], row[3] = member_name(CommandKind, kind), _MSG_IN.get(kind, "")  # type: ignore[call-overload]
        put = _Putter(row)
        if kind in _SESSIONS or kind in _TARGETED or kind == CommandKind.ENTER:
            put("session", command.session)
            put("operator", command.operator)
        if command.key_lo or command.key_hi:
            put("client_order_key", _key(command.key_lo, command.key_hi))
        if kind == CommandKind.ENTER or kind in _TARGETED:
            put("manual", "Y" if command.flags & CommandFlag.MANUAL else "N")
        if kind == CommandKind.ENTER:
            self._entry(put, command)
        elif kind in _TARGETED:
            self._target(put, command)
        elif kind in _MONEY:
            put("cash", decimal_text(command.price, 6))
        elif kind in _PRICED:
            put("instrument", self.picture.code(command.instrument))
            put("price", decimal_text(command.price, 6))
        elif CommandKind.LIST < kind < CommandKind.OPEN_ACCOUNT:
            put("instrument", self.picture.code(command.instrument))

    def _entry(self, put: "_Putter", command: Command) -> None:
        market = bool(command.flags & CommandFlag.MARKET)
        put("self_trade_mode", member_name(SelfTrade, command.stp))
        put("instrument", self.picture.code(command.instrument))
        put("side", member_name(Side, command.side))
        put("order_type", "MARKET" if market else "LIMIT")
        put("time_in_force", member_name(TimeInForce, command.tif))
        put("post_only", "Y" if command.flags & CommandFlag.POST_ONLY else "N")
        put("price", "" if market else self.picture.price(command.instrument, command.price))
        put("quantity", command.quantity)

    def _target(self, put: "_Putter", command: Command) -> None:
        known = None
        if command.flags & CommandFlag.BY_CLIENT_ID:
            put("client_order_key", _key(command.target_lo, command.target_hi))
        else:
            known = self._orders.get(command.target_lo)
            put("order_id", command.target_lo)
            put("order_flow_id", self._flows.get(command.target_lo, command.target_lo))
        if command.side != Side.UNSTATED:
            put("side", member_name(Side, command.side))
        if command.kind != CommandKind.CANCEL:
            put("quantity", command.quantity)
        if command.kind == CommandKind.REPLACE:
            put("self_trade_mode", member_name(SelfTrade, command.stp))
            price = f"{command.price} ticks"
            if known is not None:
                price = self.picture.price(known.instrument, command.price)
            put("price", price)

    def _event(self, row: EventRow, epoch: str, now: str, command: Command) -> None:
        kind = row[2]
        if kind == EventKind.TRADE:
            self._trade(row, epoch, now)
            return
        owned = kind < EventKind.TIME_ADVANCED or kind in _ACCOUNTS
        out = self._row("OUT", row[0], str(row[1]), epoch, now, row[6] if owned else None)
        out[2] = member_name(EventKind, kind)
        put = _Putter(out)
        if kind == EventKind.REJECTED:
            self._rejected(put, row, command)
        elif EventKind.ORDER_ACCEPTED <= kind <= EventKind.ORDER_RETURNED:
            self._order(put, row, command)
        elif kind in _CASH_EVENTS:
            put("fee" if kind == EventKind.FEE_CHARGED else "cash", decimal_text(
                row[13] if kind != EventKind.FEE_CHARGED else -row[13], 6))  # fmt: skip
            if kind == EventKind.POSITION_SETTLED:
                put("instrument", self.picture.code(row[5]))
                put("price", decimal_text(row[8], 6))
                put("quantity", row[9])
                put("side", "SELL" if row[3] & EventFlag.SELL else "BUY")
        elif EventKind.INSTRUMENT_LISTED <= kind < EventKind.ACCOUNT_OPENED:
            put("instrument", self.picture.code(row[5]))
        elif EventKind.SESSION_OPENED <= kind <= EventKind.SESSION_ENDED:
            put("session", row[7])
        self._put(out)

    def _rejected(self, put: "_Putter", row: EventRow, command: Command) -> None:
        put("msg_type", "9" if command.kind in _TARGETED else "8")
        put("reason", member_name(Reason, row[4]))
        put("limit", row[13])
        put("observed", row[14])
        if row[11] or row[12]:
            put("client_order_key", _key(row[11], row[12]))
        if command.kind in _TARGETED and row[7]:
            put("order_id", row[7])
        if command.kind == CommandKind.ENTER:
            put("instrument", self.picture.code(row[5]))
            put("side", member_name(Side, command.side))
            put("quantity", row[9])

    def _order(self, put: "_Putter", row: EventRow, command: Command) -> None:
        kind, flags, order_id = row[2], row[3], row[7]
        put("msg_type", "8")
        if flags & EventFlag.DUPLICATE:
            put("duplicate", "Y")
        elif kind == EventKind.ORDER_ACCEPTED:
            self._begin(row)
        order = self._orders.get(order_id)
        put("order_id", order_id)
        put("order_flow_id", self._flows.get(order_id, order_id))
        put("execution_id", f"{row[0]}-{row[1]}")
        put("instrument", self.picture.code(row[5]))
        put("side", "SELL" if flags & EventFlag.SELL else "BUY")
        market = bool(flags & EventFlag.MARKET) or (order is not None and order.market)
        put("order_type", "MARKET" if market else "LIMIT")
        if not market:
            put("price", self.picture.price(row[5], row[8]))
        put("quantity", row[9])
        put("leaves", row[10])
        if kind in (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED):
            put("reason", member_name(CancelReason, row[4]))
        if order is not None:
            self._known(put, order, order_id)
        if kind == EventKind.ORDER_CANCELLED and not flags & EventFlag.DUPLICATE:
            self._replaced = order_id if row[4] == CancelReason.REPLACED else 0
            self._end(order_id)

    def _known(self, put: "_Putter", order: _Order, order_id: int) -> None:
        put("session", order.session)
        put("time_in_force", member_name(TimeInForce, order.tif))
        put("self_trade_mode", member_name(SelfTrade, order.stp))
        put("client_order_key", order.key)
        put("cumulative", self._executed.get(order_id, 0))

    def _begin(self, row: EventRow) -> None:
        order_id, terms = row[7], row[14]
        if self._replaced:
            self._flows[order_id] = self._flows.get(self._replaced, self._replaced)
            self._replaced = 0
        side = "SELL" if row[3] & EventFlag.SELL else "BUY"
        self._orders[order_id] = _Order(
            row[13], terms & 0xFF, terms >> 8, self._flows.get(order_id, order_id), side,
            _key(row[11], row[12]), row[6], row[5], bool(row[3] & EventFlag.MARKET),
        )  # fmt: skip

    def _end(self, order_id: int) -> None:
        """Forget an order that is done; its chain lives on in ``_flows`` where it has one."""
        self._orders.pop(order_id, None)
        self._executed.pop(order_id, None)

    def _trade(self, row: EventRow, epoch: str, now: str) -> None:
        sell = bool(row[3] & EventFlag.SELL)
        sides = (
            (row[6], row[7], row[10], row[13], sell, True),
            (row[12] & 0xFFFF_FFFF, row[11], row[12] >> 32, row[14], not sell, False),
        )
        price = self.picture.price(row[5], row[8])
        for account, order_id, leaves, cash, sold, incoming in sides:
            out = self._row("OUT", row[0], str(row[1]), epoch, now, account)
            out[2], put = "TRADE", _Putter(out)
            done = self._executed[order_id] = self._executed.get(order_id, 0) + row[9]
            put("msg_type", "8")
            put("order_id", order_id)
            put("order_flow_id", self._flows.get(order_id, order_id))
            put("execution_id", f"{row[0]}-{row[1]}-{'T' if incoming else 'M'}")
            put("match_number", row[0] << INDEX_BITS | row[1])
            put("instrument", self.picture.code(row[5]))
            put("side", "SELL" if sold else "BUY")
            put("last_price", price)
            put("last_quantity", row[9])
            put("leaves", leaves)
            put("aggressor", "Y" if incoming else "N")
            put("fee", decimal_text(-cash, 6))
            if (order := self._orders.get(order_id)) is not None:
                self._known(put, order, order_id)
                put("order_type", "MARKET" if order.market else "LIMIT")
            put("cumulative", done)
            self._put(out)
            if leaves == 0:
                self._end(order_id)


class _Putter:
    """Writes into a row by the field's name."""

    __slots__ = ("_row",)

    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self, name: str, value: object) -> None:
        self._row[_PLACE[name]] = str(value)


def _key(low: int, high: int) -> str:
    """A digest as its 16 bytes in hex, as the id's BLAKE2b gives them."""
    return (low.to_bytes(8, "little") + high.to_bytes(8, "little")).hex()
