"""Builds commands from operators' requests. Pure functions of their arguments.

A wish is a command with a text that is journaled with it: auditors read the request there, and the
requester identifies the answer by it. The text of a listing is the instrument's terms.
"""

import secrets
import struct
from datetime import date
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from contracts.decimal_text import DecimalTextError, parse_price
from contracts.grades.table import FactorTable
from exchange.app.requests import (
    Deposit,
    Hedge,
    Kill,
    OpenAccount,
    RecordFixing,
    SetAccount,
    SetFeature,
    Withdraw,
)
from exchange.clearing.default.hedging import HEDGE, Hedged
from exchange.clearing.delivery.expiry import factors_of
from exchange.clearing.margin.matter import AdoptMargin
from exchange.clearing.margin.parameters import MarginParameters
from exchange.clearing.matters import Due
from exchange.clearing.records import DEPTH_MAX, kinds, too_deep, write
from exchange.messages import (
    COMMAND,
    COMMAND_FIELDS,
    HOUSE_ACCOUNT,
    INDEX_BITS,
    AccountKind,
    Command,
    CommandFlag,
    CommandKind,
    EventFlag,
    Feature,
    HaltCause,
    KillScope,
    Limit,
    Mode,
    Side,
    Trade,
    TradingState,
)
from exchange.messages.dates import date_of

USD_DECIMALS: Final = 6
_U64: Final = (1 << 64) - 1
RECORD_FACTORS: Final = "record_factors"  # the operation in the text of such a record
RECORD_FIXING: Final = "record_fixing"  # likewise
PROPOSE: Final = "propose"
# Records with a request of their own, which checks what clearing does not (a table's key and date,
# the id of a fixing, the floor of a margin), and the command of each
_OWN_REQUESTS: Final = {
    RECORD_FACTORS: "goodput publish",
    RECORD_FIXING: "index record",
    "adopt_margin": "clear adopt",
}
APPROVED: Final = "approved"
_HASH_BYTES: Final = 32
_REVISIONS: Final = 1_000


class RequestRefused(ValueError):
    """The request is invalid; the message says what would be valid."""


class Wish(NamedTuple):
    """A command and the text that is journaled with it."""

    command: Command
    text: str

    @property
    def record(self) -> bytes:
        """The command's 64 bytes. RequestRefused if a number does not fit into its field."""
        try:
            return COMMAND.pack(*msgspec.structs.astuple(self.command))
        except struct.error as error:
            raise RequestRefused(_beyond(self.command)) from error


def _beyond(command: Command) -> str:
    """Return a message that names the number that does not fit into its field."""
    for letter, name in zip(COMMAND.format[1:], COMMAND_FIELDS, strict=True):
        bits, found = 8 * struct.calcsize(f"<{letter}"), getattr(command, name)
        low, high = (
            (0, (1 << bits) - 1) if letter.isupper() else (-1 << bits - 1, (1 << bits - 1) - 1)
        )
        if not low <= found <= high:
            return (
                f"{name} of {CommandKind(command.kind).name} is from {low} to {high}, not {found}"
            )
    raise AssertionError("every figure fits")


def digest(text: str, person: bytes) -> tuple[int, int]:
    """Return the 128-bit key of an id; ``person`` is ``b"order"`` or ``b"request"``."""
    key = blake2b(text.encode("ascii"), digest_size=16, person=person).digest()
    return int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")


def note(operation: str, **facts: object) -> str:
    """Return the text of a wish: the request, and a nonce that makes the text unique."""
    named = {"operation": operation, **facts, "nonce": secrets.token_hex(8)}
    return msgspec.json.encode(named).decode()


def micros(text: str, name: str = "price") -> int:
    """Return a decimal string of dollars as micro-dollars; raises RequestRefused, which calls it
    ``name``."""
    try:
        return parse_price(text, USD_DECIMALS, name)
    except DecimalTextError as error:
        raise RequestRefused(str(error)) from error


def as_date(number: int) -> date:
    """Return the date of a yyyymmdd number; RequestRefused if it is no date."""
    try:
        return date_of(number)
    except ValueError as error:
        raise RequestRefused(str(error)) from error


def set_state(
    code: str,
    number: int,
    state: TradingState,
    cause: HaltCause = HaltCause.NONE,
    **facts: object,
) -> Wish:
    """Set an instrument's trading state; ``cause`` is the purpose of an auction."""
    command = Command(kind=CommandKind.SET_STATE, instrument=number, tif=state, quantity=cause)
    return Wish(command, note("state", code=code, state=state.name, **facts))


def set_feature(request: SetFeature) -> Wish:
    """Turn a feature of the whole market on or off."""
    feature = Feature[request.feature.upper()]
    command = Command(kind=CommandKind.SET_FEATURE, tif=feature, quantity=int(request.on))
    return Wish(command, note("feature", feature=feature.name, on=request.on))


def settle(code: str, number: int, price_micros: int, cycle: int = 1) -> Wish:
    """Settle an instrument for the business date at a clearing price."""
    command = Command(
        kind=CommandKind.SETTLE, instrument=number, price=price_micros, quantity=cycle
    )
    return Wish(command, note("settle", code=code))


def expire(code: str, number: int, price_micros: int) -> Wish:
    """Expire an instrument at its final settlement price."""
    command = Command(kind=CommandKind.EXPIRE, instrument=number, price=price_micros)
    return Wish(command, note("expire", code=code))


def open_day(number: int) -> Wish:
    """Open a business date."""
    return Wish(Command(kind=CommandKind.OPEN_DAY, quantity=number), note("open_day", date=number))


def close_day(number: int) -> Wish:
    """Close the open business date. The command's sequence separates the day from the next."""
    command = Command(kind=CommandKind.CLOSE_DAY, quantity=number)
    return Wish(command, note("close_day", date=number))


def checkpoint() -> Wish:
    """Request the engine's totals, which clearing compares with its own."""
    return Wish(Command(kind=CommandKind.CHECKPOINT), note("checkpoint"))


def set_mode(mode: Mode, why: str) -> Wish:
    """Set the mode of the whole market."""
    return Wish(Command(kind=CommandKind.SET_MODE, tif=mode), note("mode", mode=mode.name, why=why))


def open_account(request: OpenAccount) -> Wish:
    """Open an account. Its member and self-trade group default to its own number."""
    member = request.of_member
    if not 0 <= member < Limit.MEMBERS:
        said = f"member {member} is out of range; state one from 0 to {Limit.MEMBERS - 1}"
        if request.member is None and request.account < Limit.ACCOUNTS:
            # Of a deposit or a key too, which name no member
            said += f": `hourbook admin account {request.account} --member N` opens the account"
        raise RequestRefused(said)
    group = request.account if request.self_trade_group is None else request.self_trade_group
    if not 0 <= group < Limit.ACCOUNTS:
        raise RequestRefused(
            f"self-trade group {group} is out of range; state one from 0 to {Limit.ACCOUNTS - 1}"
        )
    command = Command(
        kind=CommandKind.OPEN_ACCOUNT,
        account=request.account,
        instrument=member,
        session=group,
        tif=AccountKind[request.kind.upper()],
        quantity=request.max_open_orders,
        target_lo=request.throttle_interval_ns,
        target_hi=request.throttle_burst,
    )
    return Wish(command, note("open_account", account=request.account))


def set_account(request: SetAccount) -> Wish:
    """Set or clear an account's kill switch and the size limit of its orders."""
    command = Command(
        kind=CommandKind.SET_ACCOUNT,
        account=request.account,
        flags=CommandFlag.KILLED if request.killed else 0,
        quantity=request.max_order,
    )
    return Wish(command, note("set_account", account=request.account, killed=request.killed))


def record_facts(text: str) -> dict[str, Any]:
    """Return a record's fields. RequestRefused if it is no JSON object or is nested too deep."""
    if too_deep(text):
        raise RequestRefused(f"a record is nested at most {DEPTH_MAX} levels deep")
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise RequestRefused(f"a record is a JSON object with an operation: {error}") from error


def put_record(text: str, request_id: str = "") -> Wish:
    """Record a clearing record, all of which is in its text. RequestRefused if it is invalid.

    The command's target is a digest of the content, so that another record under a known request id
    is not taken for a repeat.
    """
    facts = record_facts(text)
    operation = facts.pop("operation", None)
    if not isinstance(operation, str) or operation not in kinds():
        raise RequestRefused(f"operation {operation!a} is none of {', '.join(sorted(kinds()))}")
    if operation == HEDGE:
        raise RequestRefused("such a record trades nothing: ask for a `hedge`")
    if operation in _OWN_REQUESTS:
        own = _OWN_REQUESTS[operation]
        raise RequestRefused(f"{operation} is a request of its own: `hourbook {own}`")
    facts.pop("nonce", None)
    if not request_id.isascii():
        raise RequestRefused("request_id must be ASCII")
    key_lo, key_hi = digest(f"record {request_id or secrets.token_hex(8)}", b"request")
    said = msgspec.json.encode({**facts, "operation": operation}, order="sorted")
    content = blake2b(said, digest_size=16, person=b"record").digest()
    command = Command(
        kind=CommandKind.RECORD,
        account=HOUSE_ACCOUNT,
        target_lo=int.from_bytes(content[:8], "little"),
        target_hi=int.from_bytes(content[8:], "little"),
        key_lo=key_lo,
        key_hi=key_hi,
    )
    return Wish(command, note(operation, **facts))


def hedged(request: Hedge, request_id: str, account: int) -> Wish:
    """Record a hedge under its request id. Its order on ``account`` follows directly."""
    asked = msgspec.structs.asdict(request) | {"request_id": request_id}
    record = Hedged(nonce=secrets.token_hex(8), account=account, **asked)
    return Wish(Command(kind=CommandKind.RECORD, account=HOUSE_ACCOUNT), write(record))


def due(asked: Due) -> Wish:
    """Return the command that a due requires. Its key makes it happen once."""
    kind = CommandKind[asked.kind.upper()]
    key_lo, key_hi = asked.key
    if kind == CommandKind.KILL:
        command = Command(kind=kind, tif=KillScope.ACCOUNT, account=asked.account)
    elif asked.lots is None:
        command = Command(
            kind=kind, account=asked.account, price=asked.amount, key_lo=key_lo, key_hi=key_hi
        )
    else:
        command = Command(
            kind=kind,
            tif=asked.lots.kind,
            side=Side.SELL if asked.lots.sells else Side.BUY,
            instrument=asked.lots.instrument,
            account=asked.account,
            price=asked.lots.price,
            quantity=asked.amount,
            target_lo=asked.lots.other,
            key_lo=key_lo,
            key_hi=key_hi,
        )
    return Wish(command, note("due", id=asked.id, kind=asked.kind, account=asked.account))


def switch(request: Kill, *, on: bool, **names: str) -> Wish:
    """Throw (``on``) or lift a kill switch of an account, a session, a member or the exchange."""
    scope = KillScope[request.scope.upper()]
    if not 0 <= request.member < Limit.MEMBERS:
        raise RequestRefused(f"member {request.member} is out of range, 0 to {Limit.MEMBERS - 1}")
    command = Command(
        kind=CommandKind.KILL if on else CommandKind.RESUME,
        tif=scope,
        account=request.account,
        session=request.session,
        quantity=request.member,
    )
    facts = msgspec.structs.asdict(request) | names
    return Wish(command, note("kill" if on else "lift", **facts))


def record_fixing(request: RecordFixing) -> Wish:
    """Record an index's fixing: the price and the first half of the inputs' hash in the command,
    the rest in the text.

    The request id is (index, date, revision), so no fixing is recorded twice.
    """
    try:
        inputs_hash = bytes.fromhex(request.inputs_hash)
        tape_hash = bytes.fromhex(request.tape_hash)
    except ValueError as error:
        raise RequestRefused(f"a hash must be hexadecimal: {error}") from error
    if len(inputs_hash) != _HASH_BYTES or len(tape_hash) != _HASH_BYTES:
        raise RequestRefused(f"a hash must have {_HASH_BYTES} bytes")
    if (request.state == "WITHHELD") != (not request.price):
        raise RequestRefused("a withheld fixing has no price, any other has one")
    if not 0 <= request.revision < _REVISIONS or not f"{request.index}{request.reason}".isascii():
        raise RequestRefused(f"revision must be 0 to {_REVISIONS - 1}, index and reason ASCII")
    as_date(request.date)
    price = micros(request.price) if request.price else 0
    if price < 0 or price > Limit.PRICE or (request.price and not price):
        raise RequestRefused(f"price {request.price} is out of range")
    name = f"fixing {request.index} {request.date} {request.revision}"
    key_lo, key_hi = digest(name, b"request")
    command = Command(
        kind=CommandKind.RECORD,
        account=HOUSE_ACCOUNT,
        price=price,
        quantity=request.date,
        target_lo=int.from_bytes(inputs_hash[:8], "little"),
        target_hi=int.from_bytes(inputs_hash[8:16], "little"),
        key_lo=key_lo,
        key_hi=key_hi,
    )
    facts = msgspec.structs.asdict(request)
    return Wish(command, note(RECORD_FIXING, **facts))


def record_factors(table: FactorTable, text: str) -> Wish:
    """Record a published factor table: the version and the first half of its digest in the command,
    the unchanged table in the text.

    The request id is (grade, expiry, version), so no version is recorded twice. RequestRefused if
    clearing would refuse the table: gateways and desk take it as it comes.
    """
    try:
        factors_of(table)
    except ValueError as error:
        raise RequestRefused(str(error)) from error
    digest_bytes = bytes.fromhex(table.digest)
    key_lo, key_hi = digest(f"factors {table.grade} {table.expiry} {table.version}", b"request")
    command = Command(
        kind=CommandKind.RECORD,
        account=HOUSE_ACCOUNT,
        quantity=table.version,
        target_lo=int.from_bytes(digest_bytes[:8], "little"),
        target_hi=int.from_bytes(digest_bytes[8:16], "little"),
        key_lo=key_lo,
        key_hi=key_hi,
    )
    facts = {"grade": table.grade, "expiry": table.expiry, "digest": table.digest, "table": text}
    return Wish(command, note(RECORD_FACTORS, **facts))


def propose(proposal: str, by: str, expires: int, request: str, about: dict[str, object]) -> Wish:
    """Record a person's proposal, which a second person may approve until it expires."""
    text = note(PROPOSE, proposal=proposal, by=by, expires=expires, request=request, about=about)
    return Wish(Command(kind=CommandKind.RECORD, account=HOUSE_ACCOUNT), text)


def approve(proposal: str, by: str) -> Wish:
    """Record a second person's approval. The proposed commands follow directly."""
    command = Command(kind=CommandKind.RECORD, account=HOUSE_ACCOUNT)
    return Wish(command, note(APPROVED, proposal=proposal, by=by))


def bust(trade: Trade, **facts: object) -> Wish:
    """Bust a trade."""
    command = _correction(
        CommandKind.BUST, trade, trade.cash & _U64, key_lo=trade.maker_cash & _U64
    )
    return Wish(command, note("bust", match_number=command.target_lo, **facts))


def adjust(trade: Trade, price_ticks: int, **facts: object) -> Wish:
    """Adjust a trade to a new price."""
    command = _correction(CommandKind.ADJUST, trade, price_ticks & _U64)
    return Wish(command, note("adjust", match_number=command.target_lo, **facts))


def correct_leg(
    leg: Trade, place: int, match_number: int, combination: int, price: int, new_price: int | None,
    **facts: object,
) -> Wish:  # fmt: skip
    """Correct one leg of a trade at an implied price. The trade is corrected with its last leg.

    ``price`` and ``new_price`` are in ticks; without ``new_price`` the leg is busted.
    """
    kind = CommandKind.BUST if new_price is None else CommandKind.ADJUST
    moved = (leg.cash, leg.maker_cash) if new_price is None else (new_price, 0)
    command = msgspec.structs.replace(
        _correction(kind, leg, moved[0] & _U64, moved[1] & _U64),
        spare=place,
        price=price,
        target_lo=match_number,
        key_hi=combination,
    )
    return Wish(command, note(kind.name.lower(), match_number=match_number, **facts))


def _correction(kind: CommandKind, trade: Trade, target_hi: int, key_lo: int = 0) -> Command:
    return Command(
        kind=kind,
        side=Side.SELL if trade.flags & EventFlag.SELL else Side.BUY,
        instrument=trade.instrument,
        account=trade.account,
        session=trade.maker_account,
        price=trade.price,
        quantity=trade.quantity,
        target_lo=trade.sequence << INDEX_BITS | trade.index,
        target_hi=target_hi,
        key_lo=key_lo,
    )


def adopt_margin(parameters: MarginParameters) -> Wish:
    """Record a version of the margin parameters: its number and half of its inputs' hash in the
    command, the parameters in the text.

    The request id is a digest of all of it, so the same version is not recorded twice.
    """
    inputs = bytes.fromhex(parameters.inputs_hash)
    content = blake2b(parameters.to_json().encode(), digest_size=_HASH_BYTES).hexdigest()
    key_lo, key_hi = digest(f"margin {parameters.version} {content}", b"request")
    command = Command(
        kind=CommandKind.RECORD,
        account=HOUSE_ACCOUNT,
        quantity=parameters.version,
        target_lo=int.from_bytes(inputs[:8], "little"),
        target_hi=int.from_bytes(inputs[8:16], "little"),
        key_lo=key_lo,
        key_hi=key_hi,
    )
    record = AdoptMargin(nonce=secrets.token_hex(8), parameters=parameters)
    return Wish(command, write(record))


def move_cash(request: Deposit | Withdraw) -> Wish:
    """Book a deposit or withdrawal. A repeat under the same request id is not booked again; without
    one a new id is made.

    RequestRefused for an amount out of range or a request id that is not ASCII.
    """
    deposit = isinstance(request, Deposit)
    amount = micros(request.amount, "amount")
    if not 0 < amount <= Limit.MONEY:
        most = Limit.MONEY // 10**USD_DECIMALS
        raise RequestRefused(f"an amount is above 0 and at most {most} dollars: {request.amount}")
    request_id = request.request_id or secrets.token_hex(8)
    if not request_id.isascii():
        raise RequestRefused("request_id must be ASCII")
    key_lo, key_hi = digest(request_id, b"request")
    command = Command(
        kind=CommandKind.DEPOSIT if deposit else CommandKind.WITHDRAW,
        account=request.account,
        price=amount,
        key_lo=key_lo,
        key_hi=key_hi,
    )
    operation = "deposit" if deposit else "withdraw"
    return Wish(command, note(operation, account=request.account, request_id=request_id))
