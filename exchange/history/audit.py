"""The audit trail: one row for every command received and for every answer sent.

A trade has two rows of the same match number, one for each side. Rows are numbered without gaps,
and so are their sequences. Source of each field: docs/reference/audit.md.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from exchange.history.picture import Picture
from exchange.history.records import (
    COMMANDS_OF_ACCOUNT,
    COMMANDS_OF_INSTRUMENT,
    CORRECTIONS,
    LEGS,
    RESIDUALS,
    SPECIAL,
    TRANSFERRED,
    EventRow,
    event_row,
    names_account,
    names_instrument,
)
from exchange.history.walk import NS, time_text
from exchange.history.words import Names, key_text
from exchange.journal.frame import Frame, unpack_texts
from exchange.marketdata.instruments import decimal_text
from exchange.marketdata.stream import signed
from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    EVENT_BYTES,
    INDEX_BITS,
    AccountKind,
    CancelReason,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    KillScope,
    OrderFeature,
    Reason,
    Selection,
    SelfTrade,
    Side,
    TimeInForce,
    TransferKind,
)

FIELDS: Final = (
    "row", "direction", "record_type", "msg_type", "sequence", "index", "epoch", "time",
    "received", "business_date", "account", "firm", "account_kind", "cti", "session", "operator",
    "manual", "self_trade_group", "self_trade_mode", "client_order_key", "order_id",
    "order_flow_id", "execution_id", "match_number", "instrument", "side", "order_type",
    "time_in_force", "post_only", "price", "quantity", "last_price", "last_quantity", "leaves",
    "cumulative", "aggressor", "duplicate", "reason", "limit", "observed", "fee", "cash", "text",
    "features", "group_order_id", "trigger", "display", "minimum", "expires", "ask_price",
    "ask_quantity",
)  # fmt: skip
# A row is a list, and these are its indexes: access by name would be most of the work.
(
    ROW, DIRECTION, RECORD_TYPE, MSG_TYPE, SEQUENCE, INDEX, EPOCH, TIME, RECEIVED, BUSINESS_DATE,
    ACCOUNT, FIRM, ACCOUNT_KIND, CTI, SESSION, OPERATOR, MANUAL_BY, GROUP, MODE, KEY, ORDER_ID,
    FLOW_ID, EXECUTION_ID, MATCH_NUMBER, INSTRUMENT, SIDE, ORDER_TYPE, TIF, POST, PRICE, QUANTITY,
    LAST_PRICE, LAST_QUANTITY, LEAVES, CUMULATIVE, AGGRESSOR, REPEATED, WHY, LIMIT, OBSERVED, FEE,
    CASH, TEXT, FEATURES, GROUP_ORDER, TRIGGER, DISPLAY, MINIMUM, EXPIRES, ASK_PRICE, ASK_QUANTITY,
) = range(len(FIELDS))  # fmt: skip
Row = list[object]  # a text or an integer for each of FIELDS
CommandRow = tuple[
    int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int
]  # fmt: skip

# Plain integers and cached texts for the loop over every record: enumerations are slow there.
_ENTER, _CANCEL, _REPLACE = (
    int(CommandKind.ENTER), int(CommandKind.CANCEL), int(CommandKind.REPLACE),
)  # fmt: skip
_TARGETED: Final = frozenset(
    map(int, (CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE))
)
_ORDERS: Final = _TARGETED | {_ENTER}
_SESSIONS: Final = frozenset(map(int, (CommandKind.LOGON, CommandKind.LOGOFF)))
_MONEY: Final = frozenset(map(int, (CommandKind.DEPOSIT, CommandKind.WITHDRAW, CommandKind.FEE)))
_PRICED: Final = frozenset(
    map(int, (CommandKind.MARK, CommandKind.SETTLE, CommandKind.EXPIRE, CommandKind.LIST))
)
_TRANSFERS: Final = {int(kind): kind.name for kind in TransferKind}
_CORRECTING: Final = frozenset(map(int, (CommandKind.BUST, CommandKind.ADJUST)))
# Their key bytes hold amounts and numbers, and no id.
_KEYLESS: Final = _CORRECTING | set(
    map(
        int,
        (
            CommandKind.LOGON,
            CommandKind.LIST,
            CommandKind.SET_RISK,
            CommandKind.LIST_COMBINATION,
        ),
    )
)
_MASS_CANCEL, _MASS_QUOTE = int(CommandKind.MASS_CANCEL), int(CommandKind.MASS_QUOTE)
_IN_SESSION: Final = (
    _ORDERS | _SESSIONS | {_MASS_CANCEL, _MASS_QUOTE, int(CommandKind.SET_PROTECTION)}
)
_KILLING: Final = frozenset(map(int, (CommandKind.KILL, CommandKind.RESUME)))
_WHOSE: Final = (int(KillScope.ACCOUNT), int(KillScope.SESSION))
_OF_ONE: Final = int(Selection.INSTRUMENT)
_TRADE, _REJECTED, _ACCEPTED = (
    int(EventKind.TRADE), int(EventKind.REJECTED), int(EventKind.ORDER_ACCEPTED),
)  # fmt: skip
_EXECUTED: Final = int(EventKind.ORDER_EXECUTED)  # traded at an implied price
_REPLACED_ORDER, _KEPT = int(EventKind.ORDER_REPLACED), 1  # its reason if it keeps its place
_DAY_OPENED: Final = int(EventKind.DAY_OPENED)
_WAITING, _ELECTED = int(EventKind.ORDER_WAITING), int(EventKind.ORDER_ELECTED)
_QUOTED: Final = int(EventKind.QUOTED)
_LEG_TRADE, _RESIDUAL = int(EventKind.LEG_TRADE), int(EventKind.RESIDUAL_POSTED)
_CANCELLED, _REDUCED = int(EventKind.ORDER_CANCELLED), int(EventKind.ORDER_REDUCED)
_FEE, _SETTLED = int(EventKind.FEE_CHARGED), int(EventKind.POSITION_SETTLED)
_LAST_OF_ORDERS: Final = int(EventKind.ORDER_RETURNED)
_OF_SESSION: Final = frozenset(
    map(int, (EventKind.SESSION_OPENED, EventKind.SESSION_LOST, EventKind.SESSION_ENDED))
)
# What the answer to a command of _PRICED says: its price is a clearing price.
_STATED: Final = frozenset(
    map(
        int,
        (
            EventKind.MARKED,
            EventKind.INSTRUMENT_SETTLED,
            EventKind.INSTRUMENT_EXPIRED,
            EventKind.INSTRUMENT_LISTED,
        ),
    )
)
_CASH: Final = frozenset(map(int, (EventKind.DEPOSITED, EventKind.WITHDRAWN, _FEE, _SETTLED)))
_MARKET_ORDER, _POST_ONLY, _MANUAL, _BY_CLIENT_ID = (
    int(CommandFlag.MARKET), int(CommandFlag.POST_ONLY), int(CommandFlag.MANUAL),
    int(CommandFlag.BY_CLIENT_ID),
)  # fmt: skip
_SELL, _DUPLICATE, _AT_MARKET, _RESTING, _AUCTION = (
    int(EventFlag.SELL), int(EventFlag.DUPLICATE), int(EventFlag.MARKET), int(EventFlag.RESTING),
    int(EventFlag.AUCTION),
)  # fmt: skip
_AGGRESSOR: Final = ("N", "Y")  # by whether the side came in
_GROUPED, _STOP, _ICEBERG = (
    int(OrderFeature.GROUPED), int(OrderFeature.STOP), int(OrderFeature.ICEBERG),
)  # fmt: skip
_GTD: Final = int(TimeInForce.GTD)
_UNSTATED, _REPLACED = int(Side.UNSTATED), int(CancelReason.REPLACED)
_COMMAND_KINDS, _EVENT_KINDS = Names.of(CommandKind), Names.of(EventKind)
_SIDES, _TIFS, _MODES = Names.of(Side), Names.of(TimeInForce), Names.of(SelfTrade)
_REASONS, _CANCEL_REASONS = Names.of(Reason), Names.of(CancelReason)
_KINDS: Final = Names.of(AccountKind)
_FEATURES: Final = Names(lambda bits: "|".join(str(one.name) for one in OrderFeature(bits)))
_MSG_IN: Final = {
    _ENTER: "D", _CANCEL: "F", 3: "G", _REPLACE: "G", 10: "A", 11: "5", _MASS_CANCEL: "q",
    _MASS_QUOTE: "i",
}  # fmt: skip
_MSG_OUT: Final = {int(EventKind.MASS_CANCELLED): "r", _QUOTED: "b"}
_MSG_NO: Final = {**dict.fromkeys(_TARGETED, "9"), _MASS_CANCEL: "r", _MASS_QUOTE: "b"}
_CTI: Final = {0: "2", 1: "4", 2: "4"}  # by AccountKind
_BLANK: Final[Row] = [""] * len(FIELDS)


def _owned(command: CommandRow) -> bool:
    """Whether the command's account field holds an account; other kinds use the field
    differently."""
    kind = command[0]
    return kind in COMMANDS_OF_ACCOUNT and (kind not in _KILLING or command[2] in _WHOSE)


class _Order(NamedTuple):
    """The fields of an order's entry that its later rows repeat."""

    session: int
    tif: str
    mode: str
    key: str
    instrument: int
    market: bool


class Trail:
    """Builds the rows of a log. Call ``take`` with every batch; each row is passed to ``write``."""

    def __init__(self, write: Callable[[Row], object]) -> None:
        self._write = write
        self.picture = Picture()
        self.rows = 0
        self._epoch = 0
        self._now = ""
        self._date: int | str = ""  # of the event in hand
        self._orders: dict[int, _Order] = {}  # working orders
        self._executed: dict[int, int] = {}
        self._flows: dict[int, int] = {}  # order id -> first order id of its chain of replacements
        self._replaced = 0  # the order that a new order of the same command replaces
        self._uncrossed: set[int] = set()  # match numbers of the date's trades of auctions

    def take(self, frame: Frame, events: bytes) -> None:
        """Write the rows of a batch: each command, followed by its answers."""
        texts = dict(unpack_texts(frame.texts))
        ingress = memoryview(frame.ingress).cast("Q").tolist()
        sequence = frame.opening.first_sequence
        self._epoch, self._now = frame.opening.epoch, time_text(frame.opening.stamp)
        received = Names(lambda stamp: time_text(stamp) if stamp >= NS else "")
        at, total = 0, len(events) // EVENT_BYTES
        self.picture.take(frame, events)
        event = event_row(events, 0)
        for number in range(frame.opening.count):
            command: CommandRow = COMMAND.unpack_from(frame.commands, number * COMMAND_BYTES)
            kind = command[0]
            row = self._row("IN", sequence, "", command[5] if _owned(command) else None)
            row[RECEIVED] = received[ingress[number]]
            row[TEXT] = texts.get(sequence, "")
            row[RECORD_TYPE], row[MSG_TYPE] = _COMMAND_KINDS[kind], _MSG_IN.get(kind, "")
            self._command(row, command)
            self._put(row)
            self._replaced = 0
            while at < total and event[0] == sequence:
                self._event(event, command)
                at += 1
                if at < total:
                    event = event_row(events, at)
            sequence += 1

    def _row(self, direction: str, sequence: int, index: object, account: int | None) -> Row:
        row = _BLANK.copy()
        row[DIRECTION], row[SEQUENCE], row[INDEX] = direction, sequence, index
        row[EPOCH], row[TIME] = self._epoch, self._now
        row[BUSINESS_DATE] = self._date
        if account is None:
            return row
        row[ACCOUNT] = account
        holder = self.picture.accounts.get(account)
        if holder is not None:
            row[FIRM], row[GROUP], row[ACCOUNT_KIND] = (
                holder.member,
                holder.group,
                _KINDS[holder.kind],
            )
            row[CTI] = _CTI.get(holder.kind, "")
        return row

    def _put(self, row: Row) -> None:
        self.rows += 1
        row[ROW] = self.rows
        self._write(row)

    # Commands

    def _command(self, row: Row, command: CommandRow) -> None:
        kind = command[0]
        if kind in _IN_SESSION:
            row[SESSION], row[OPERATOR] = command[6], command[9]
        if kind in _CORRECTING:
            row[MATCH_NUMBER], row[INSTRUMENT] = command[12], self.picture.code(command[4])
            row[LAST_PRICE] = self.picture.price(command[4], command[7])
            row[SIDE], row[LAST_QUANTITY] = _SIDES[command[1]], command[8]
            if kind == CommandKind.ADJUST:
                row[PRICE] = self.picture.price(command[4], signed(command[13]))
            return
        if (command[14] or command[15]) and kind not in _KEYLESS:
            row[KEY] = key_text(command[14], command[15])
        if kind == _ENTER:
            self._entry(row, command)
        elif kind == _MASS_QUOTE:
            self._quote(row, command)
        elif kind in _TARGETED:
            self._target(row, command)
        elif kind in _MONEY:
            row[CASH] = decimal_text(command[7], 6)
        elif kind in _PRICED:
            row[INSTRUMENT] = self.picture.code(command[4])
            row[PRICE] = decimal_text(command[7], 6)
        elif kind == CommandKind.TRANSFER:
            row[INSTRUMENT], row[SIDE] = self.picture.code(command[4]), _SIDES[command[1]]
            row[PRICE], row[QUANTITY] = decimal_text(command[7], 6), command[8]
        elif kind == _MASS_CANCEL:
            row[MANUAL_BY] = "Y" if command[3] & _MANUAL else "N"
            row[SIDE] = "" if command[1] == _UNSTATED else _SIDES[command[1]]
            if command[2] & _OF_ONE:
                row[INSTRUMENT] = self.picture.code(command[4])
        elif kind in COMMANDS_OF_INSTRUMENT:
            row[INSTRUMENT] = self.picture.code(command[4])

    def _entry(self, row: Row, command: CommandRow) -> None:
        flags, instrument = command[3], command[4]
        market = flags & _MARKET_ORDER
        row[MANUAL_BY] = "Y" if flags & _MANUAL else "N"
        row[MODE], row[SIDE], row[TIF] = _MODES[command[10]], _SIDES[command[1]], _TIFS[command[2]]
        row[INSTRUMENT] = self.picture.code(instrument)
        row[ORDER_TYPE] = "MARKET" if market else "LIMIT"
        row[POST] = "Y" if flags & _POST_ONLY else "N"
        row[PRICE] = "" if market else self.picture.price(instrument, command[7])
        row[QUANTITY] = command[8]
        features, more = command[11], command[13]
        row[FEATURES] = _FEATURES[features]
        if features & _GROUPED:
            row[GROUP_ORDER] = more
        elif features & _STOP:
            row[TRIGGER] = self.picture.price(instrument, signed(more))
        elif features & _ICEBERG:
            row[DISPLAY] = more
        elif more:
            row[MINIMUM] = more
        if command[2] == _GTD:
            row[EXPIRES] = time_text(command[12])

    def _quote(self, row: Row, command: CommandRow) -> None:
        instrument = command[4]
        row[MANUAL_BY] = "Y" if command[3] & _MANUAL else "N"
        row[MODE], row[TIF] = _MODES[command[10]], _TIFS[command[2]]
        row[INSTRUMENT] = self.picture.code(instrument)
        row[PRICE], row[QUANTITY] = self.picture.price(instrument, command[7]), command[8]
        ask = self.picture.price(instrument, signed(command[12]))
        row[ASK_PRICE], row[ASK_QUANTITY] = ask, command[13]

    def _target(self, row: Row, command: CommandRow) -> None:
        kind, target, known = command[0], command[12], None
        row[MANUAL_BY] = "Y" if command[3] & _MANUAL else "N"
        if command[3] & _BY_CLIENT_ID:
            row[KEY] = key_text(target, command[13])
        else:
            known = self._orders.get(target)
            row[ORDER_ID], row[FLOW_ID] = target, self._flows.get(target, target)
        if command[1] != _UNSTATED:
            row[SIDE] = _SIDES[command[1]]
        if kind != _CANCEL:
            row[QUANTITY] = command[8]
        if kind == _REPLACE:
            row[MODE] = _MODES[command[10]]
            row[PRICE] = (
                f"{command[7]} ticks"
                if known is None
                else self.picture.price(known.instrument, command[7])
            )

    # Events

    def _event(self, event: EventRow, command: CommandRow) -> None:
        kind = event[2]
        if kind == _DAY_OPENED:
            self._date = event[9]
            self._uncrossed.clear()  # from here on no earlier trade is corrected
        if kind == _TRADE:
            self._trade(event)
            return
        if kind in CORRECTIONS or kind in LEGS or kind in RESIDUALS:
            self._two_sided(event)
            return
        if kind == TRANSFERRED:
            self._transfer(event)
            return
        of_order = kind <= _LAST_OF_ORDERS or kind in SPECIAL or kind == _EXECUTED
        owned = names_account(event, command[0], command[2])
        row = self._row("OUT", event[0], event[1], event[6] if owned else None)
        row[RECORD_TYPE] = _EVENT_KINDS[kind]
        if event[3] & _DUPLICATE:
            row[REPEATED] = "Y"
        if kind == _REJECTED:
            self._rejected(row, event, command)
        elif of_order:
            self._order(row, event)
        elif kind in _CASH:
            self._moved(row, event)
        else:
            self._other(row, event, command)
        self._put(row)

    def _other(self, row: Row, event: EventRow, command: CommandRow) -> None:
        """Fill the row of an event that is of no order and moves no cash."""
        kind = event[2]
        row[MSG_TYPE] = _MSG_OUT.get(kind, "")
        if kind in _OF_SESSION:
            row[SESSION] = event[7]
        if names_instrument(event, command[0], command[2]):
            row[INSTRUMENT] = self.picture.code(event[5])
        if kind in _STATED:
            if not self._is_combination(event[5]):  # which has no clearing price of its own
                row[PRICE] = decimal_text(event[8], 6)
        elif kind == _QUOTED:
            row[PRICE], row[QUANTITY] = self.picture.price(event[5], event[8]), event[9]
            if not event[3] & _DUPLICATE:  # a repeated answer has the bid alone
                row[ASK_PRICE] = self.picture.price(event[5], event[13])
                row[ASK_QUANTITY] = event[10]

    def _is_combination(self, instrument: int) -> bool:
        listed = self.picture.listed(instrument)
        return listed is not None and bool(listed.legs)

    def _two_sided(self, event: EventRow) -> None:
        """Write two rows, one for each side, of a correction, of a combination's leg or of its
        residual. Their match number is that of the trade's own two rows."""
        sell, of_leg, residual = bool(event[3] & _SELL), event[2] in LEGS, event[2] in RESIDUALS
        match = event[7] - (event[4] & 0xFF if of_leg else 0)
        if event[2] in (_LEG_TRADE, _RESIDUAL):
            match = event[0] << INDEX_BITS | event[10]
        price = decimal_text(event[8], 6) if of_leg else self.picture.price(event[5], event[8])
        sides = ((event[6], event[13], sell, True), (event[12], event[14], not sell, False))
        collected = match in self._uncrossed
        for account, cash, sold, incoming in sides:
            row = self._row("OUT", event[0], event[1], account)
            row[RECORD_TYPE], row[MSG_TYPE] = _EVENT_KINDS[event[2]], "8"
            row[EXECUTION_ID] = f"{event[0]}-{event[1]}-{'T' if incoming else 'M'}"
            row[MATCH_NUMBER], row[INSTRUMENT] = match, self.picture.code(event[5])
            row[SIDE] = "SELL" if sold else "BUY"
            row[LAST_PRICE], row[LAST_QUANTITY] = price, event[9]
            row[AGGRESSOR] = "" if collected else _AGGRESSOR[incoming]
            row[CASH if residual else FEE] = decimal_text(cash if residual else -cash, 6)
            self._put(row)

    def _transfer(self, event: EventRow) -> None:
        """Write two rows, one for each side of lots transferred off the book."""
        sell = bool(event[3] & _SELL)
        for account, sold, taker in ((event[6], sell, True), (event[7], not sell, False)):
            row = self._row("OUT", event[0], event[1], account)
            row[RECORD_TYPE], row[MSG_TYPE] = _EVENT_KINDS[event[2]], "8"
            row[INSTRUMENT] = self.picture.code(event[5])
            row[SIDE], row[LAST_QUANTITY] = "SELL" if sold else "BUY", event[9]
            row[LAST_PRICE] = decimal_text(event[8], 6)
            row[EXECUTION_ID] = f"{event[0]}-{event[1]}-{'T' if taker else 'M'}"
            if event[3] & _DUPLICATE:
                row[EXECUTION_ID], row[REPEATED] = "", "Y"
            row[WHY] = _TRANSFERS.get(event[4], "")
            self._put(row)

    def _moved(self, row: Row, event: EventRow) -> None:
        if event[2] == _FEE:
            row[FEE] = decimal_text(-event[13], 6)
            return
        row[CASH] = decimal_text(event[13], 6)
        if event[2] == _SETTLED:
            row[INSTRUMENT] = self.picture.code(event[5])
            row[PRICE], row[QUANTITY] = decimal_text(event[8], 6), event[9]
            row[SIDE] = "SELL" if event[3] & _SELL else "BUY"

    def _rejected(self, row: Row, event: EventRow, command: CommandRow) -> None:
        aimed = command[0] in _TARGETED
        row[MSG_TYPE] = _MSG_NO.get(command[0], "8")
        row[WHY], row[LIMIT], row[OBSERVED] = _REASONS[event[4]], event[13], event[14]
        if (event[11] or event[12]) and command[0] not in _KEYLESS:
            row[KEY] = key_text(event[11], event[12])
        if aimed and event[7]:
            row[ORDER_ID] = event[7]
        if names_instrument(event, command[0], command[2]):
            row[INSTRUMENT] = self.picture.code(event[5])
        if command[0] == _ENTER:
            row[SIDE], row[QUANTITY] = _SIDES[command[1]], event[9]

    def _order(self, row: Row, event: EventRow) -> None:
        kind, flags, order_id = event[2], event[3], event[7]
        duplicate = flags & _DUPLICATE
        if kind == _ACCEPTED and not duplicate:
            self._begin(event)
        elif kind == _REPLACED_ORDER and event[4] != _KEPT:
            self._limited(order_id)
        order = self._orders.get(order_id)
        market = bool(flags & _AT_MARKET) or (order is not None and order.market)
        row[MSG_TYPE] = "8"
        row[ORDER_ID], row[FLOW_ID] = order_id, self._flows.get(order_id, order_id)
        row[EXECUTION_ID] = f"{event[0]}-{event[1]}"
        row[INSTRUMENT] = self.picture.code(event[5])
        row[SIDE] = "SELL" if flags & _SELL else "BUY"
        row[ORDER_TYPE] = "MARKET" if market else "LIMIT"
        if not market or (not duplicate and (event[8] or event[10] or flags & _RESTING)):
            row[PRICE] = self.picture.price(event[5], event[8])
        row[QUANTITY] = event[9]
        if not duplicate or kind == _ACCEPTED:  # other repeated answers have none
            row[LEAVES] = event[10]
        if kind in (_CANCELLED, _REDUCED):
            row[WHY] = "" if duplicate else _CANCEL_REASONS[event[4]]
        elif kind in (_WAITING, _ELECTED):
            row[TRIGGER] = self.picture.price(event[5], event[14])
        elif kind == _EXECUTED:
            row[QUANTITY], row[LAST_QUANTITY] = "", event[9]
            # The orders of a trade with an implied price are numbered from its first event
            row[MATCH_NUMBER] = event[0] << INDEX_BITS | event[1] - event[4]
            self._executed[order_id] = self._executed.get(order_id, 0) + event[9]
        if order is not None:
            self._known(row, order, order_id)
        if kind == _CANCELLED and not duplicate:
            self._replaced = order_id if event[4] == _REPLACED else 0
            self._end(order_id)
        elif kind == _EXECUTED and not event[10]:
            self._end(order_id)

    def _known(self, row: Row, order: _Order, order_id: int) -> None:
        row[SESSION], row[TIF], row[MODE], row[KEY] = order[:4]
        row[CUMULATIVE] = self._executed.get(order_id, 0)

    def _begin(self, event: EventRow) -> None:
        order_id, terms = event[7], event[14]
        if self._replaced:
            self._flows[order_id] = self._flows.get(self._replaced, self._replaced)
            self._replaced = 0
        self._orders[order_id] = _Order(
            event[13], _TIFS[terms & 0xFF], _MODES[terms >> 8 & 0xFF],
            key_text(event[11], event[12]), event[5], bool(event[3] & _AT_MARKET),
        )  # fmt: skip

    def _limited(self, order_id: int) -> None:
        """Note that a replacement gave an order a limit, whatever it was entered as."""
        order = self._orders.get(order_id)
        if order is not None and order.market:
            self._orders[order_id] = order._replace(market=False)

    def _end(self, order_id: int) -> None:
        """Drop a finished order; its chain of replacements, if any, stays in ``_flows``."""
        self._orders.pop(order_id, None)
        self._executed.pop(order_id, None)

    def _trade(self, event: EventRow) -> None:
        sell = bool(event[3] & _SELL)
        price, code = self.picture.price(event[5], event[8]), self.picture.code(event[5])
        report, match = f"{event[0]}-{event[1]}", event[0] << INDEX_BITS | event[1]
        auction = event[3] & _AUCTION  # both orders were collected for it
        if auction:
            self._uncrossed.add(match)
        sides = (
            (event[6], event[7], event[10], event[13], sell, True),
            (event[12] & 0xFFFF_FFFF, event[11], event[12] >> 32, event[14], not sell, False),
        )
        for account, order_id, leaves, cash, sold, incoming in sides:
            row = self._row("OUT", event[0], event[1], account)
            done = self._executed[order_id] = self._executed.get(order_id, 0) + event[9]
            row[RECORD_TYPE], row[MSG_TYPE] = "TRADE", "8"
            row[ORDER_ID], row[FLOW_ID] = order_id, self._flows.get(order_id, order_id)
            row[EXECUTION_ID] = f"{report}-{'T' if incoming else 'M'}"
            row[MATCH_NUMBER], row[INSTRUMENT] = match, code
            row[SIDE] = "SELL" if sold else "BUY"
            row[LAST_PRICE], row[LAST_QUANTITY], row[LEAVES] = price, event[9], leaves
            row[AGGRESSOR] = "" if auction else _AGGRESSOR[incoming]
            row[FEE] = decimal_text(-cash, 6)
            if (order := self._orders.get(order_id)) is not None:
                self._known(row, order, order_id)
                row[ORDER_TYPE] = "MARKET" if order.market else "LIMIT"
            row[CUMULATIVE] = done
            self._put(row)
            if leaves == 0:
                self._end(order_id)
