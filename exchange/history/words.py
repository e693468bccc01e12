"""Events and rejects as text: one line each, with codes, prices and dollars."""

from collections.abc import Callable
from typing import Any, Final

from exchange.history.picture import Picture, money
from exchange.history.records import (
    COMMANDS_OF_ACCOUNT,
    COMMANDS_OF_INSTRUMENT,
    CORRECTIONS,
    LEGS,
    RESIDUALS,
    SPECIAL,
    TRANSFERRED,
    EventRow,
)
from exchange.history.walk import time_text
from exchange.marketdata.instruments import micros_text
from exchange.marketdata.stream import signed
from exchange.messages import (
    INDEX_BITS,
    Breaker,
    CancelReason,
    Command,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Feature,
    HaltCause,
    KillScope,
    Mode,
    OrderFeature,
    Reason,
    Selection,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
    TransferKind,
)

_MONEY: Final = frozenset(
    {
        Reason.NOTIONAL,
        Reason.MARGIN,
        Reason.MEMBER_MARGIN,
        Reason.FUNDS,
        Reason.MONEY_RANGE,
        Reason.ORDER_VALUE,
        Reason.LOSS_LIMIT,
        Reason.TRADE_DIFFERENT,
    }
)
_PRICE: Final = frozenset(
    {
        Reason.PRICE_LIMIT,
        Reason.POST_ONLY,
        Reason.TICK,
        Reason.CROSSED,
        Reason.TRIGGER,
        Reason.PRICE_BAND,
    }
)

_STATE: Final = frozenset({Reason.NOT_TRADING, Reason.AUCTION_ONLY, Reason.NOT_IN_AUCTION})

# The rule behind each reject. {limit} and {observed} are the event's figures, in the reason's unit.
RULES: Final[dict[Reason, str]] = {
    Reason.SESSION_LIVE: "session {observed} is online; it can be taken up once it is not",
    Reason.SESSION_UNKNOWN: "session {observed} is unknown, has ended or is another account's",
    Reason.ACCOUNT_KILLED: "the account's kill switch is on: it may only cancel and reduce",
    Reason.UNKNOWN_ACCOUNT: "the account is not open",
    Reason.SESSION_KILLED: "the kill switch of session {observed} is on",
    Reason.MEMBER_KILLED: "the kill switch of member {observed} is on",
    Reason.EXCHANGE_KILLED: "the kill switch of the whole market is on",
    Reason.SYNTAX: "a field of the command has no such value",
    Reason.ID_FORMAT: "the command has no id",
    Reason.COMBINATION: "these options exclude each other",
    Reason.UNKNOWN_COMMAND: "there is no command of kind {observed}",
    Reason.DUPLICATE_DIFFERENT: "the id is known, with other fields: an id names one wish",
    Reason.NOT_FOUND: "the account has no such order, or it was cancelled before",
    Reason.TOO_LATE: "the order was filled before",
    Reason.SIDE_MISMATCH: "the order's side is {limit}, the command says {observed}",
    Reason.QUOTE: "the order is one side of a quote: the next quote changes it",
    Reason.GROUP: "the other order of the group does not work, or is in a group already",
    Reason.UNKNOWN_INSTRUMENT: "no instrument has number {observed}; {limit} are listed",
    Reason.NOT_TRADING: "orders match in CONTINUOUS alone; the instrument is {observed}",
    Reason.STATE: "the instrument's state forbids it",
    Reason.CANCEL_ONLY: "the whole market takes cancels and reductions only",
    Reason.NOT_OUTRIGHT: "a combination ({observed} legs) has no such thing: its legs do, each by"
    " itself",
    Reason.NOT_IMPLIED: "an outright implies no price by itself: a combination does, with its legs",
    Reason.LEG_ALONE: "it is leg {observed} of a combination's trade, which is corrected whole",
    Reason.TRADE_DIFFERENT: "the trade as described moved {limit} micro-dollars, not {observed}",
    Reason.LEGS_FORGOTTEN: "what the legs were at sequence {observed} is forgotten: known since"
    " {limit}",
    Reason.THROTTLED: "the account's tokens ({limit}) are spent; the next comes in {observed} ns",
    Reason.QUANTITY_RANGE: "{observed} lots; an order has 1 to {limit}",
    Reason.ACCOUNT_MAX_QUANTITY: "{observed} lots; the account's own bound is {limit}",
    Reason.NOTIONAL: "price x quantity x tick value is {observed} USD; {limit} is the most",
    Reason.TICK: "the price {observed} is no multiple of the price step, {limit}",
    Reason.LOT: "{observed} lots are no multiple of the lot step, {limit}",
    Reason.PRICE_LIMIT: "the price {observed} is beyond the day's limit, {limit}",
    Reason.POST_ONLY: "at {observed} it would trade at once with {limit}, which post-only forbids",
    Reason.MINIMUM: "a minimum of {observed} lots is more than the {limit} lots ordered",
    Reason.EXPIRY: "it would end at {observed}, and {limit} has come already",
    Reason.TRIGGER: "the trigger {observed} is off the price step or beyond a limit: {limit}",
    Reason.DISPLAY: "it would show {observed} lots; the rule that this breaks has {limit}",
    Reason.REDUCE_ONLY: "{observed} lots, of which {limit} would reduce the position",
    Reason.QUOTES_BLOCKED: "its quotes traded {observed} lots, the protection allows {limit}: it"
    " blocks until it is set again",
    Reason.PROTECTIONS_FULL: "the account has a protection in {observed} products; {limit}"
    " is the most",
    Reason.CROSSED: "the bid, {observed}, is not below the ask, {limit}",
    Reason.OPEN_ORDERS: "the account has {observed} working orders; {limit} is the most",
    Reason.POSITION_LIMIT: "net and working lots of the side would be {observed}, above {limit}",
    Reason.MARGIN: "the account would need {observed} USD as margin and has {limit}",
    Reason.MEMBER_MARGIN: "the member's accounts would need {observed} USD as margin, of {limit}",
    Reason.FUNDS: "{observed} USD asked, {limit} free",
    Reason.ORDERS_FULL: "every one of {limit} order slots is taken",
    Reason.POSITIONS_FULL: "every one of {limit} position records is taken",
    Reason.ACCOUNTS_FULL: "account {observed}; numbers go up to {limit}",
    Reason.INSTRUMENTS_FULL: "instrument {observed}; numbers go up to {limit}",
    Reason.BOOK_FULL: "the instrument has {observed} working orders; {limit} is the most",
    Reason.ICEBERGS_FULL: "the instrument has {limit} orders that show a part, the most",
    Reason.REDUCING_FULL: "the account has {limit} orders that only reduce there, the most",
    Reason.GROUPS_FULL: "one of the two instruments has {limit} orders grouped with another's, the"
    " most",
    Reason.SPREADS_FULL: "a leg stands in {observed} combinations with implied prices; {limit} is"
    " the most",
    Reason.CREDITS_FULL: "{observed} spreads have a credit; {limit} is the most",
    Reason.SESSIONS_FULL: "every one of {limit} sessions is taken",
    Reason.ALREADY_SETTLED: "settled already: last {limit}, asked {observed} (date and cycle)",
    Reason.DAY_STATE: "the business date is {limit}, the command says {observed}",
    Reason.RULES_VERSION: "rules version {observed}; this build knows {limit}",
    Reason.ASSET_MISMATCH: "the account's currency is number {limit}, the command's {observed}",
    Reason.PARAMETER_RANGE: "a parameter is out of its range: limit {limit}, observed {observed}",
    Reason.ACCOUNT_EXISTS: "the account is open already",
    Reason.MONEY_RANGE: "a balance would pass {limit} USD",
    Reason.TRADE_UNKNOWN: "the open day, from sequence {limit}, has no such trade",
    Reason.ALREADY_CORRECTED: "the trade was busted or adjusted before",
    Reason.CORRECTIONS_FULL: "{limit} trades were corrected today, and no more may be",
    Reason.NOT_HELD: "{observed} lots are to be handed on by an account that holds {limit}",
    Reason.HOUSE_ACCOUNT: "the clearing house's own account takes and gives no lots",
    Reason.AUCTION_ONLY: "good for auction, while no orders are collected: the instrument is"
    " {observed}",
    Reason.NOT_IN_AUCTION: "the instrument is {observed}: while orders are collected none can"
    " trade at once, be post-only, protected or have a minimum",
    Reason.ALL_OR_NONE: "all-or-none orders are not taken; a minimum or fill or kill is",
    Reason.FEATURE_OFF: "what the order asks for is turned off",
    Reason.PRICE_BAND: "the price {observed} is beyond the price band, which ends at {limit}",
    Reason.ORDER_VALUE: "the order is worth {observed} USD, and {limit} is the most",
    Reason.ALL_MONTHS_LIMIT: "the product's months together would come to {observed} lots of"
    " {limit}",
    Reason.LOSS_LIMIT: "the account lost {observed} USD today of {limit} that it may",
}

# Why lots were removed from an order without trading.
CANCELS: Final[dict[CancelReason, str]] = {
    CancelReason.REQUESTED: "its owner asked for it",
    CancelReason.IOC_REMAINDER: "immediate or cancel: what does not trade at once is cancelled",
    CancelReason.FOK_UNFILLED: "fill or kill: the whole could not trade at once, so nothing did",
    CancelReason.MARKET_REMAINDER: "a market order never rests: what does not trade is cancelled",
    CancelReason.SELF_TRADE: "it met an order of its own self-trade group: no trade, and the"
    " incoming order's mode says which of the two loses lots",
    CancelReason.DAY_ENDED: "a DAY order ends with its business date",
    CancelReason.DISCONNECTED: "cancel on disconnect: its session was lost, the grace has passed",
    CancelReason.INSTRUMENT_EXPIRED: "its instrument expired",
    CancelReason.REDUCED: "reduced by all of its leaves",
    CancelReason.REPLACED: "it goes on as a new order under a new id",
    CancelReason.MINIMUM_UNFILLED: "its minimum could not trade at once, so nothing did",
    CancelReason.TIME_EXPIRED: "good till a time, and the time came",
    CancelReason.MASS_CANCELLED: "its owner cancelled it with others, in one command",
    CancelReason.KILLED: "a kill switch was thrown",
    CancelReason.GROUP: "the other order of its group traded",
    CancelReason.REDUCE_ONLY: "there is no longer as much of a position for it to reduce",
    CancelReason.QUOTE: "the next quote has none of this side, or begins anew",
    CancelReason.AUCTION_ENDED: "good for auction, and the auction is over",
    CancelReason.LIMITS_MOVED: "it waited for an auction at any price, and the day's limits moved",
    CancelReason.LOSS_LIMIT: "its account lost as much today as it may",
    CancelReason.PROTECTION: "its owner's quotes traded more than the protection allows",
}


def member_name(kind: type, value: int) -> str:
    """Return the name of an enumeration's member; the number if this build does not know it."""
    try:
        return str(kind(value).name)
    except ValueError:
        return str(value)


class Names(dict[Any, str]):
    """A cache of texts by key, for the loops over every record."""

    def __init__(self, make: Callable[[Any], object]) -> None:
        self._make = make

    def __missing__(self, key: Any) -> str:
        text = self[key] = str(self._make(key))
        return text

    @classmethod
    def of(cls, kind: type) -> "Names":
        """Return a cache of the names of an enumeration's members."""
        return cls(lambda value: member_name(kind, value))


def sides(flags: int) -> str:
    """Return ``sell`` or ``buy`` for an event's flags."""
    return "sell" if flags & EventFlag.SELL else "buy"


def figure(reason: Reason, value: int, instrument: int | None, picture: Picture) -> str:
    """Return a reject's limit or observed value in its unit; ``instrument`` is None if unknown."""
    if reason in _MONEY:
        return money(value)
    if reason in _PRICE:
        return f"{value} ticks" if instrument is None else picture.price(instrument, value)
    if reason in _STATE:
        return member_name(TradingState, value)
    if reason == Reason.SIDE_MISMATCH:
        return member_name(Side, value)
    return f"{value:,}"


def reject_words(row: EventRow, picture: Picture, instrument: int | None = None) -> str:
    """Return why a command was rejected, with its figures. ``instrument``: the order's, if
    known."""
    name = member_name(Reason, row[4])
    try:
        reason = Reason(row[4])
    except ValueError:
        return f"reason {name}"
    limit, observed = (figure(reason, value, instrument, picture) for value in row[13:15])
    rule = RULES.get(reason, "decided at the gateway").format(limit=limit, observed=observed)
    return f"{name} ({int(reason)}): {rule}"


def key_text(low: int, high: int) -> str:
    """Return a digest as its 16 bytes in hex, in the order that BLAKE2b gives them."""
    return (low.to_bytes(8, "little") + high.to_bytes(8, "little")).hex()


def command_line(command: Command, picture: Picture, instrument: int | None = None) -> str:
    """Return a line that describes a command. ``instrument``: that of the targeted order, if
    known."""
    kind = member_name(CommandKind, command.kind)
    account = f"account {command.account}"
    if command.kind == CommandKind.ENTER:
        price = (
            "at the market"
            if command.flags & CommandFlag.MARKET
            else f"at {picture.price(command.instrument, command.price)}"
        )
        extra = ", post-only" if command.flags & CommandFlag.POST_ONLY else ""
        return (
            f"ENTER by {account}: {member_name(Side, command.side).lower()} {command.quantity:,}"
            f" {picture.code(command.instrument)} {price},"
            f" {member_name(TimeInForce, command.tif)}{extra}{_special(command, picture)},"
            f" self-trade {member_name(SelfTrade, command.stp)}"
        )
    if command.kind in (CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE):
        target = (
            f"the order with client id digest {key_text(command.target_lo, command.target_hi)}"
            if command.flags & CommandFlag.BY_CLIENT_ID
            else f"order {command.target_lo}"
        )
        what = {
            CommandKind.CANCEL: "",
            CommandKind.REDUCE: f" by {command.quantity:,} lots",
            CommandKind.REPLACE: f": {command.quantity:,} lots in all at"
            f" {figure(Reason.TICK, command.price, instrument, picture)}"
            + (", under a new id" if command.flags & CommandFlag.NEW_ID else ""),
        }[CommandKind(command.kind)]
        return f"{kind} by {account} of {target}{what}"
    if command.kind in (CommandKind.DEPOSIT, CommandKind.WITHDRAW, CommandKind.FEE):
        return f"{kind} {money(command.price)} USD, {account}"
    if command.kind in (CommandKind.BUST, CommandKind.ADJUST):
        where = picture.price(command.instrument, command.price)
        price = picture.price(command.instrument, signed(command.target_hi))
        to = f" to {price}" if command.kind == CommandKind.ADJUST else ""
        return (
            f"{kind} match {command.target_lo}: {command.quantity:,}"
            f" {picture.code(command.instrument)} at {where}{to}"
        )
    if command.kind == CommandKind.TRANSFER:
        verb = "sells to" if command.side == Side.SELL else "buys of"
        return (
            f"{kind} {member_name(TransferKind, command.tif)}: {account} {verb} account"
            f" {command.target_lo} {command.quantity:,} {picture.code(command.instrument)} at"
            f" {micros_text(command.price)}"
        )
    return kind + _of_whom(command, picture)


def _special(command: Command, picture: Picture) -> str:
    """Return the special conditions of an ENTER."""
    features, more = command.spare, command.target_hi
    told = [f"good till {time_text(command.target_lo)}"] if command.tif == TimeInForce.GTD else []
    if features & OrderFeature.REDUCE_ONLY:
        told.append("reduces only")
    if features & OrderFeature.GROUPED:
        told.append(f"grouped with order {more}")
    elif features & OrderFeature.STOP:
        told.append(f"stop at {picture.price(command.instrument, signed(more))}")
    elif features & OrderFeature.ICEBERG:
        told.append(f"shows {more:,}")
    elif more:
        told.append(f"at least {more:,}")
    return "".join(f", {one}" for one in told)


def _of_whom(command: Command, picture: Picture) -> str:
    """Return the instrument and the account of a command, where it has them."""
    chosen = command.kind != CommandKind.MASS_CANCEL or command.tif & Selection.INSTRUMENT
    killed = command.kind not in (CommandKind.KILL, CommandKind.RESUME) or (
        command.tif in (KillScope.ACCOUNT, KillScope.SESSION)
    )
    code = picture.code(command.instrument)
    of_one = f" {code}" if command.kind in COMMANDS_OF_INSTRUMENT and chosen else ""
    by = f", account {command.account}" if command.kind in COMMANDS_OF_ACCOUNT and killed else ""
    return f"{of_one}{by}"


def event_line(row: EventRow, picture: Picture) -> str:
    """Return a line that describes an event."""
    kind = row[2]
    if kind == EventKind.TRADE:
        return _trade_line(row, picture)
    if EventKind.ORDER_ACCEPTED <= kind <= EventKind.ORDER_RETURNED or kind in SPECIAL:
        return _order_line(row, picture)
    if EventKind.PROTECTIONS_CHANGED <= kind <= EventKind.LOSS_LIMIT_REACHED:
        return _protection_line(row, picture)
    if kind in CORRECTIONS:
        return _correction_line(row, picture)
    if kind == TRANSFERRED:
        return _transfer_line(row, picture)
    if kind in LEGS or kind in RESIDUALS or kind == EventKind.LEG_LISTED:
        return _leg_line(row, picture)
    if kind == EventKind.ORDER_EXECUTED:
        return f"{_order_line(row, picture)}, with prices implied by {picture.code(row[14])}"
    if kind == EventKind.IMPLIED_CHANGED:
        on = "on" if row[9] else "off"
        return f"{member_name(EventKind, kind)} {picture.code(row[5])}: {on}"
    if EventKind.AUCTION_UNCROSSED <= kind <= EventKind.LEVEL_TAKEN:
        return _auction_line(row, picture)
    if kind == EventKind.QUOTED:
        return _quote_line(row, picture)
    if kind < EventKind.INSTRUMENT_LISTED:
        return _session_line(row)
    if kind < EventKind.ACCOUNT_OPENED:
        return _instrument_line(row, picture)
    return _account_line(row)


def _trade_line(row: EventRow, picture: Picture) -> str:
    account, order, maker = row[6], row[7], row[12] & 0xFFFF_FFFF
    verb = "sold" if row[3] & EventFlag.SELL else "bought"
    return (
        f"TRADE account {account} {verb} {row[9]:,} {picture.code(row[5])} at"
        f" {picture.price(row[5], row[8])}: order {order} with resting order {row[11]} of account"
        f" {maker}, match {row[0] << INDEX_BITS | row[1]}, fees {money(-row[13])} and"
        f" {money(-row[14])} USD"
    )


def _leg_line(row: EventRow, picture: Picture) -> str:
    start = f"{member_name(EventKind, row[2])} {picture.code(row[5])}"
    if row[2] == EventKind.LEG_LISTED:
        return f"{start}: leg {row[9]} of {row[10]}, {row[8]:+} x {picture.code(row[7])}"
    traded = row[2] in (EventKind.LEG_TRADE, EventKind.RESIDUAL_POSTED)
    whole = row[7] if row[2] in RESIDUALS else row[7] - (row[4] & 0xFF)
    match = f"match {row[0] << INDEX_BITS | row[10] if traded else whole}"
    if row[2] in RESIDUALS:
        return (
            f"{start}: {money(row[13])} USD to account {row[6]}, {money(row[14])} USD to account"
            f" {row[12]}, {match}"
        )
    verb = "sold" if row[3] & EventFlag.SELL else "bought"
    line = f"{start}: account {row[6]} {verb} {row[9]:,} of account {row[12]} at"
    leg = f"leg {row[4] & 0xFF} of {row[4] >> 8} of {match}"
    if row[2] == EventKind.LEG_ADJUSTED:
        was, now = micros_text(signed(row[11])), micros_text(row[8])
        return f"{line} {was}, now at {now}, {leg}"
    if row[2] == EventKind.LEG_STATED:
        return f"{line} {micros_text(row[8])}, {leg}, corrected with the last"
    fees = (-row[13], -row[14]) if traded else (row[13], row[14])
    back = "" if traded else " back"
    return (
        f"{line} {micros_text(row[8])}, {leg}, fees {money(fees[0])} and {money(fees[1])} USD{back}"
    )


def _transfer_line(row: EventRow, picture: Picture) -> str:
    verb = "sold" if row[3] & EventFlag.SELL else "bought"
    again = row[3] & EventFlag.DUPLICATE  # a repeated answer has no kind
    what = "the first answer again" if again else member_name(TransferKind, row[4])
    return (
        f"LOTS_TRANSFERRED {what}: account {row[6]} {verb} {row[9]:,} {picture.code(row[5])} of"
        f" account {row[7]} at {micros_text(row[8])}"
    )


def _correction_line(row: EventRow, picture: Picture) -> str:
    account, maker, number = row[6], row[12], row[5]
    verb = "sold" if row[3] & EventFlag.SELL else "bought"
    start = (
        f"{member_name(EventKind, row[2])} match {row[7]}: account {account} {verb} {row[9]:,}"
        f" {picture.code(number)} of account {maker}"
    )
    price = picture.price(number, row[8])
    if row[2] == EventKind.TRADE_ADJUSTED:
        return f"{start} at {picture.price(number, signed(row[11]))}, now at {price}"
    return f"{start} at {price}, fees {money(row[13])} and {money(row[14])} USD back"


def _order_line(row: EventRow, picture: Picture) -> str:
    kind, flags, account, order = row[2], row[3], row[6], row[7]
    again = ", the first answer again" if flags & EventFlag.DUPLICATE else ""
    if kind == EventKind.REJECTED:
        # Cancels, reductions and replacements name no instrument: the field is zero.
        why = reject_words(row, picture, row[5] or None)
        return f"REJECTED account {account}: {why}{again}"
    name = member_name(EventKind, kind)
    price = "the market" if flags & EventFlag.MARKET else picture.price(row[5], row[8])
    where = f"{picture.code(row[5])} at {price}"
    line = f"{name} account {account}, order {order}: {sides(flags)} {row[9]:,} {where}"
    if again and kind != EventKind.ORDER_ACCEPTED:  # leaves and reason are not repeated
        return f"{name} account {account}, order {order}{again}"
    if kind in (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED):
        if not row[8] and not flags & EventFlag.RESTING:
            where = picture.code(row[5])  # a market order has no price
        line = (
            f"{name} account {account}, order {order}: {row[9]:,} lots off {sides(flags)} {where},"
            f" {member_name(CancelReason, row[4])}"
        )
    return f"{line}, {row[10]:,} left{again}"


def _auction_line(row: EventRow, picture: Picture) -> str:
    start, price = f"{member_name(EventKind, row[2])} {picture.code(row[5])}", row[8]
    if row[2] == EventKind.LEVEL_TAKEN:
        return f"{start}: {row[13]:,} lots to {sides(row[3])} at {picture.price(row[5], price)}"
    if not row[10]:
        return f"{start}: no price"
    return f"{start}: {row[13]:,} lots at {picture.price(row[5], price)}, surplus {row[14]:+,}"


def _quote_line(row: EventRow, picture: Picture) -> str:
    start = f"QUOTED account {row[6]}, {picture.code(row[5])}"
    if row[3] & EventFlag.DUPLICATE:  # which has the bid alone
        return f"{start}: the first answer again"
    told = [
        f"{verb} {lots:,} at {picture.price(row[5], price)}"
        for verb, lots, price in (("buy", row[9], row[8]), ("sell", row[10], row[13]))
        if lots
    ]
    return f"{start}: {', '.join(told) or 'withdrawn'}"


def _session_line(row: EventRow) -> str:
    name = member_name(EventKind, row[2])
    if row[2] >= EventKind.MASS_CANCELLED:
        return _mass_line(row)
    if row[2] in (EventKind.SESSION_OPENED, EventKind.SESSION_LOST, EventKind.SESSION_ENDED):
        return f"{name} session {row[7]}, account {row[6]}"
    return f"{name} epoch {row[9]}" if row[2] == EventKind.RECOVERED else name


def _protection_line(row: EventRow, picture: Picture) -> str:
    kind, number, start = row[2], row[5], member_name(EventKind, row[2])
    if kind == EventKind.FEATURE_CHANGED:
        return f"{start} {member_name(Feature, row[4])} {'on' if row[9] else 'off'}"
    if kind == EventKind.LOSS_LIMIT_REACHED:
        return f"{start} account {row[6]}: lost {money(row[14])} of {money(row[13])} USD"
    start += f" {picture.code(number)}"
    if kind == EventKind.ACCOUNTABILITY_PASSED:
        return f"{start} account {row[6]}: {row[14]:+,} lots, level {row[13]:,}"
    if kind == EventKind.BREAKER_CHANGED:
        return (
            f"{start} {member_name(Breaker, row[4])}: {picture.price(number, row[8])} within"
            f" {row[13]:,} ns halts {'the product' if row[9] else 'it'} for {row[14]:,} ns"
        )
    return (
        f"{start}: band {picture.price(number, row[8])}, accountability {row[9]:,} lots, orders up"
        f" to {money(row[13])} USD, all months {row[14]:,} lots"
    )


def _mass_line(row: EventRow) -> str:
    kind, name = row[2], member_name(EventKind, row[2])
    if kind == EventKind.MASS_CANCELLED:
        by = "|".join(one.name or "" for one in Selection(row[4])) or "all"
        return f"{name} account {row[6]}: {row[9]:,} orders chosen by {by}"
    if kind in (EventKind.KILLED, EventKind.RESUMED):
        whom = {
            KillScope.ACCOUNT: f" {row[6]}",
            KillScope.SESSION: f" {row[7]} of account {row[6]}",
            KillScope.MEMBER: f" {row[10]}",
        }.get(row[4], "")  # type: ignore[call-overload]
        gone = f": {row[9]:,} orders cancelled" if kind == EventKind.KILLED else ""
        return f"{name} {member_name(KillScope, row[4]).lower()}{whom}{gone}"
    if kind == EventKind.PROTECTION_CHANGED:
        blocked = ", blocked" if row[10] else ""
        return (
            f"{name} account {row[6]}, product {row[5]}: {row[14]:,} of {row[9]:,} lots within"
            f" {row[13]:,} ns{blocked}"
        )
    return name


def _instrument_line(row: EventRow, picture: Picture) -> str:
    kind, number = row[2], row[5]
    start = f"{member_name(EventKind, kind)} {picture.code(number)}"
    if kind == EventKind.LIMITS_CHANGED:
        low, high = (picture.price(number, value) for value in row[13:15])
        return f"{start}: {low} to {high}"
    if kind == EventKind.RISK_CHANGED:
        spared = f", credit {money(row[11])} USD a pair" if row[11] else ""
        return (
            f"{start}: {money(row[8])} USD a lot, position limit {row[9]:,}, orders up to"
            f" {row[10]:,} lots, fees {money(row[13])} and {money(row[14])} USD a lot{spared}"
        )
    if kind == EventKind.STATE_CHANGED:
        before, after = member_name(TradingState, row[10]), member_name(TradingState, row[9])
        cause = f" ({member_name(HaltCause, row[4])})" if row[4] else ""
        return f"{start}: {before} to {after}{cause}"
    if kind == EventKind.POSITION_SETTLED:
        net = -row[9] if row[3] & EventFlag.SELL else row[9]
        return f"{start} account {row[6]}: {net:+,} lots, variation {money(row[13])} USD"
    listed = picture.listed(number)
    if kind == EventKind.INSTRUMENT_LISTED and listed is not None and listed.legs:
        return start  # a combination has no clearing price of its own
    return f"{start} at {micros_text(row[8])}"


def _account_line(row: EventRow) -> str:
    kind, account = row[2], row[6]
    start = f"{member_name(EventKind, kind)} account {account}"
    if kind in (EventKind.DEPOSITED, EventKind.WITHDRAWN, EventKind.FEE_CHARGED):
        return f"{start}: {money(row[8])} USD, cash {money(row[14])}"
    if kind in (EventKind.DEFICIT_STARTED, EventKind.DEFICIT_ENDED):
        return f"{start}: needs {money(row[13])} USD, has {money(row[14])}"
    if kind == EventKind.ACCOUNT_OPENED:
        return f"{start} of member {row[5]}"
    if kind == EventKind.ACCOUNT_CHANGED:
        return f"{start}: {'killed' if row[10] else 'may trade'}"
    if kind == EventKind.RECORDED:
        return start
    if kind in (EventKind.DAY_OPENED, EventKind.DAY_CLOSED, EventKind.UPGRADED):
        return f"{member_name(EventKind, kind)} {row[9]}"
    if kind == EventKind.MODE_CHANGED:
        return f"{member_name(EventKind, kind)} {member_name(Mode, row[9])}"
    return member_name(EventKind, kind)
