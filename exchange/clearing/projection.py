"""The projection of the released stream: events in, postings, positions and rulings out.

The engine has moved cash and lots already. Clearing books the same amounts in double entry,
recomputes what it can (variation, balances, positions, checkpoints), and reports each difference as
a Divergence. Only the matters decide anything.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, Protocol

from exchange.clearing.calling import concerned
from exchange.clearing.ledger import (
    BANK,
    CASH,
    HOUSE_FEES,
    PURPOSES,
    SUSPENSE,
    TRADE_ENTRY,
    VM_CLEARING,
    Entry,
    EntryKind,
    Posting,
    cash_of,
    transfer,
)
from exchange.clearing.matters import At, Dues, Ruling
from exchange.clearing.novation import Position
from exchange.clearing.settlement import Settlement
from exchange.clearing.state import Activity, Changes, Divergence, Instrument, State, Trading
from exchange.messages import (
    EVENT,
    EVENT_BYTES,
    EVENT_FIELDS,
    HOUSE_ACCOUNT,
    INDEX_BITS,
    TRADE,
    Event,
    EventFlag,
    EventKind,
)

# Plain integers for the loop over all events: operators of an enumeration are Python calls.
_SELL: Final = int(EventFlag.SELL)
_DUPLICATE: Final = int(EventFlag.DUPLICATE)
_TRADE: Final = int(EventKind.TRADE)
_POSITION_SETTLED: Final = int(EventKind.POSITION_SETTLED)
_KIND: Final = 12  # offset of the kind byte in an event
_INDEX: Final = (1 << INDEX_BITS) - 1
_MASK: Final = (1 << 64) - 1
# Matters see these once the settlement that they begin is booked.
_SETTLING: Final = (EventKind.INSTRUMENT_SETTLED, EventKind.INSTRUMENT_EXPIRED)


class Frame(Protocol):
    """A released batch, as on the tape: whole commands, in sequence order."""

    @property
    def epoch(self) -> int:
        """Fencing term under which the batch was written."""

    @property
    def first_sequence(self) -> int:
        """Sequence of its first command."""

    @property
    def stamp(self) -> int:
        """Log time, nanoseconds."""

    @property
    def events(self) -> bytes:
        """Event records, EVENT_BYTES each."""

    @property
    def texts(self) -> Sequence[tuple[int, str]]:
        """(sequence, text) of the commands that carried one, in sequence order."""


class Projection:
    """Applies a batch of frames to ``state`` and gathers what is to be stored in ``changes``."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.changes = Changes()
        self._settling: Settlement | None = None
        self._settling_event: Event | None = None
        self._stamp = 0
        self._texts: Sequence[tuple[int, str]] = ()  # of the frame in work, by sequence
        self._watched = state.matters.watched
        kinds = bytes(sorted({_TRADE, _POSITION_SETTLED, *_HANDLERS, *self._watched}))
        self._wanted = re.compile(b"[%b]" % re.escape(kinds)).finditer

    def apply(self, frame: Frame) -> None:
        """Apply what is new in a frame. ValueError if frames before it are missing."""
        state, events = self.state, frame.events
        epoch, sequence, index = state.point
        if frame.first_sequence > sequence + 1:
            raise ValueError(f"gap: sequence {sequence} is followed by {frame.first_sequence}")
        assert len(events) % EVENT_BYTES == 0, "a torn frame"
        last = EVENT.unpack_from(events, len(events) - EVENT_BYTES)
        if last[:2] <= (sequence, index):
            return
        assert last[3] & EventFlag.LAST_IN_COMMAND, "a frame holds whole commands"
        assert frame.epoch >= epoch, f"epoch {frame.epoch} after {epoch}"
        self._stamp, self._texts = frame.stamp, frame.texts
        if frame.first_sequence > sequence:
            state.book.sequence = frame.first_sequence
            state.book.advance(frame.stamp)
            passed = state.matters.passed(frame.stamp, frame.first_sequence, state)
            self._note(frame.first_sequence << INDEX_BITS, passed)
        for found in self._wanted(events[_KIND::EVENT_BYTES]):
            row, (kind,) = found.start(), found[0]
            layout = TRADE if kind == _TRADE else EVENT
            fields = layout.unpack_from(events, row * EVENT_BYTES)
            if fields[0] <= sequence and fields[:2] <= (sequence, index):
                continue
            if fields[3] & _DUPLICATE:
                continue
            if self._settling is not None and self._settling.number >> INDEX_BITS != fields[0]:
                self._settlement_ended(self._settling)
            if kind == _TRADE:
                self._traded(fields)
            elif kind == _POSITION_SETTLED:
                self._position_settled(fields)
            else:
                event = Event(**dict(zip(EVENT_FIELDS, fields, strict=True)))
                if kind in _HANDLERS:
                    _HANDLERS[kind](self, event)
                if kind in self._watched and kind not in _SETTLING:
                    self._saw(event)
        if self._settling is not None:
            self._settlement_ended(self._settling)
        state.point = (frame.epoch, *last[:2])

    def _text(self, event: Event) -> str | None:
        """Return the text of the event's command; few are read, so they are not gathered."""
        at = bisect_left(self._texts, event.sequence, key=itemgetter(0))
        if at == len(self._texts) or self._texts[at][0] != event.sequence:
            return None
        return self._texts[at][1]

    def _book(
        self,
        number: int,
        kind: EntryKind,
        postings: list[Posting],
        *,
        instrument: int = 0,
        price: int = 0,
        quantity: int = 0,
        buyer: int = 0,
        seller: int = 0,
    ) -> None:
        state = self.state
        entry = Entry(
            number, kind, self._stamp, state.business_date, instrument, price, quantity, buyer,
            seller, postings,
        )  # fmt: skip
        state.entries += 1
        self.changes.book(entry, state.ledger.post(entry))

    def _compare(
        self, number: int, what: str, ours: int, engine: int, account: int = 0, instrument: int = 0
    ) -> None:
        if ours != engine:
            found = Divergence(
                number >> INDEX_BITS, number & _INDEX, what, account, instrument, ours, engine
            )
            self.state.divergences.append(found)
            self.changes.divergences.append(found)

    def _traded(self, fields: tuple[Any, ...]) -> None:
        (sequence, index, _, flags, legs, instrument, account, _, price, quantity, _, _,
         maker, _, cash, maker_cash) = fields  # fmt: skip
        state, changes = self.state, self.changes
        buyer, seller = (maker, account) if flags & _SELL else (account, maker)
        value = price * quantity
        tick_value = state.instruments[instrument].tick_value
        if not legs:  # a combination holds no position: its legs do
            state.positions.trade(instrument, buyer, seller, quantity, value * tick_value)
            changes.positions.add((buyer, instrument))
            changes.positions.add((seller, instrument))
        day = state.trading.get(instrument)
        if day is None:
            day = state.trading[instrument] = Trading()
        day.trades += 1
        day.volume += quantity
        day.value += value
        day.last_price = price
        changes.trading[state.business_date, instrument] = day
        number = sequence << INDEX_BITS | index
        self._active(number, account, 0 if legs else quantity, 0, -cash)
        self._active(number, maker, 0 if legs else quantity, -maker_cash, 0)
        # What a trade pays is minus its fee; a rebate comes back out of the house's fees.
        postings = transfer(CASH | account, HOUSE_FEES, -cash)
        postings += transfer(CASH | maker, HOUSE_FEES, -maker_cash)
        entry = Entry(
            number, TRADE_ENTRY, self._stamp, state.business_date,
            instrument, price, quantity, buyer, seller, postings,
        )  # fmt: skip
        state.entries += 1
        changes.book(entry, state.ledger.post(entry))

    def _active(
        self, number: int, account: int, lots: int, maker_fee: int, taker_fee: int, sign: int = 1
    ) -> None:
        """Add the lots and fees of the entry ``number`` to an account's activity of the date.

        Rebates do not count. ``sign`` -1 subtracts fees that a bust gives back.
        """
        done = self.state.activity.get(account)
        if done is None:
            done = self.state.activity[account] = Activity()
        if not done.first:
            done.first = number
        done.last = number
        done.lots += lots
        if maker_fee > 0:
            done.maker_fees += sign * maker_fee
        if taker_fee > 0:
            done.taker_fees += sign * taker_fee
        self.changes.activity[self.state.business_date, account] = done

    def _leg_traded(self, event: Event) -> None:
        """Book a leg of a combination's trade, at a clearing price: positions and fees.

        It is not a trade of the leg's book, so it adds no volume and no last price.
        """
        instrument, account, maker = event.instrument, event.account, event.key_hi
        buyer, seller = _sides(event)
        value = event.quantity * event.price * self.state.instruments[instrument].multiplier
        self._move(instrument, buyer, seller, event.quantity, value)
        self._active(_number(event), account, event.quantity, 0, -event.a)
        self._active(_number(event), maker, event.quantity, -event.b, 0)
        postings = transfer(CASH | account, HOUSE_FEES, -event.a)
        postings += transfer(CASH | maker, HOUSE_FEES, -event.b)
        self._book(
            _number(event), EntryKind.LEG, postings, instrument=instrument, price=event.price,
            quantity=event.quantity, buyer=buyer, seller=seller,
        )  # fmt: skip

    def _residual_posted(self, event: Event) -> None:
        """Book the residual between a combination's price and those of its legs, which one side
        pays the other; for a corrected trade its reversal."""
        account, (buyer, seller) = event.account, _sides(event)
        self._book(
            _number(event), EntryKind.RESIDUAL,
            transfer(CASH | account, CASH | event.key_hi, -event.a), instrument=event.instrument,
            price=event.price, quantity=event.quantity, buyer=buyer, seller=seller,
        )  # fmt: skip
        self._compare(_number(event), "residual", -event.a, event.b, account, event.instrument)

    def _transferred(self, event: Event) -> None:
        """Book an off-book transfer at a clearing price: positions only, no cash or volume."""
        state, number = self.state, _number(event)
        instrument, taker, giver = event.instrument, event.account, event.order_id
        buyer, seller = (giver, taker) if event.flags & _SELL else (taker, giver)
        value = event.quantity * event.price * state.instruments[instrument].multiplier
        self._move(instrument, buyer, seller, event.quantity, value)
        self._active(number, buyer, 0, 0, 0)
        self._active(number, seller, 0, 0, 0)
        self._book(
            number, EntryKind.TRANSFER, [], instrument=instrument, price=event.price,
            quantity=event.quantity, buyer=buyer, seller=seller,
        )  # fmt: skip
        for account, net in ((taker, event.a), (giver, event.b)):
            ours = state.positions.get(account, instrument).net
            self._compare(number, "position", ours, net, account, instrument)

    def _corrected(self, event: Event) -> None:
        """Book the bust or adjustment of a trade of the date: its legs reversed, or the change of
        their costs."""
        state, changes = self.state, self.changes
        busted = event.kind == EventKind.TRADE_BUSTED
        lots = -event.quantity if busted else 0
        price = event.price if busted else event.price - _signed(event.key_lo)
        value = (lots or event.quantity) * price
        if not event.reason:  # otherwise of a combination: its legs follow
            tick_value = state.instruments[event.instrument].tick_value
            self._move_back(event, lots, value * tick_value)
        day = state.trading[event.instrument]
        day.trades -= int(busted)
        day.volume += lots
        day.value += value
        changes.trading[state.business_date, event.instrument] = day
        self._book_correction(event, EntryKind.BUST if busted else EntryKind.ADJUSTMENT, price)

    def _leg_corrected(self, event: Event) -> None:
        """Book the correction of a leg of a combination's trade, at clearing prices."""
        busted = event.kind == EventKind.LEG_BUSTED
        lots = -event.quantity if busted else 0
        price = event.price if busted else event.price - _signed(event.key_lo)
        value = (lots or event.quantity) * price
        multiplier = self.state.instruments[event.instrument].multiplier
        self._move_back(event, lots, value * multiplier)
        kind = EntryKind.LEG_BUST if busted else EntryKind.LEG_ADJUSTMENT
        self._book_correction(event, kind, price)

    def _move(self, instrument: int, buyer: int, seller: int, lots: int, value: int) -> None:
        self.state.positions.trade(instrument, buyer, seller, lots, value)
        self.changes.positions.update({(buyer, instrument), (seller, instrument)})

    def _move_back(self, event: Event, lots: int, value: int) -> None:
        """Update the positions and the activity of both sides of a corrected trade."""
        self._move(event.instrument, *_sides(event), lots, value)
        self._active(_number(event), event.account, lots, 0, 0)
        self._active(_number(event), event.key_hi, lots, 0, 0)

    def _book_correction(self, event: Event, kind: EntryKind, price: int) -> None:
        """Book what comes back of both sides' fees. ``price`` is the trade's, or its change."""
        buyer, seller = _sides(event)
        self._active(_number(event), event.account, 0, 0, event.a, -1)
        self._active(_number(event), event.key_hi, 0, event.b, 0, -1)
        postings = transfer(HOUSE_FEES, CASH | event.account, event.a)
        postings += transfer(HOUSE_FEES, CASH | event.key_hi, event.b)
        self._book(
            _number(event), kind, postings, instrument=event.instrument, price=price,
            quantity=event.quantity, buyer=buyer, seller=seller,
        )  # fmt: skip

    def _cash_moved(self, event: Event) -> None:
        account, cash = event.account, cash_of(event.account)
        kind, debit, credit = {
            EventKind.DEPOSITED: (EntryKind.DEPOSIT, BANK, cash),
            EventKind.WITHDRAWN: (EntryKind.WITHDRAWAL, cash, BANK),
            EventKind.FEE_CHARGED: (EntryKind.FEE, cash, HOUSE_FEES),
        }[EventKind(event.kind)]
        number, due = _number(event), self.state.matters.get(Dues).of(event)
        if due is not None:
            kind = PURPOSES.get(due.id.partition(" ")[0], kind)
        else:
            self._asked(event)
        self._book(number, kind, [(debit, credit, event.price)], buyer=account)
        self._compare(number, "cash", self.state.ledger.cash(account), event.b, account)

    def _asked(self, event: Event) -> None:
        """Keep the request id under which an operator's command was accepted, if it had one."""
        if event.key_lo or event.key_hi:
            key = (event.key_hi << 64 | event.key_lo).to_bytes(16, "little")
            self.changes.requests.append((event.account, key, event.sequence))

    def _recorded(self, event: Event) -> None:
        text = self._text(event)
        if event.account == HOUSE_ACCOUNT:
            self._asked(event)
        if text is not None:
            self.state.book.sequence = event.sequence
            ruling = self.state.matters.rule(text, self._at(event), self.state)
            self._note(_number(event), [] if ruling is None else [ruling])

    def _saw(self, event: Event) -> None:
        """Show an event to the matters that watch it."""
        self.state.book.sequence = event.sequence
        self._note(_number(event), self.state.matters.saw(event, self._at(event), self.state))

    def _at(self, event: Event) -> At:
        text = self._text(event) or ""
        return At(_number(event), self._stamp, self.state.business_date, event.account, text)

    def _note(self, number: int, rulings: Sequence[Ruling]) -> None:
        """Add rulings to be stored; several causes may share a number (a frame's time and its first
        event), so lines are counted by number."""
        changes, date = self.changes, self.state.business_date
        for ruling in rulings:
            line = changes.lines[number]
            changes.lines[number] += 1
            changes.steps += [(account, number, line) for account in concerned(ruling)]
            changes.rulings.append(
                (number, line, self._stamp, date, ruling.operation, ruling.outcome,
                 json.dumps(ruling.facts, separators=(",", ":")))
            )  # fmt: skip

    def _settlement_begun(self, event: Event) -> None:
        self._settling_event = event
        expiry = event.kind == EventKind.INSTRUMENT_EXPIRED
        self._settling = Settlement(
            _number(event), event.instrument, event.price, event.quantity, expiry,
            self.state.instruments[event.instrument].multiplier,
            self.state.positions.of_instrument(event.instrument),
        )  # fmt: skip

    def _position_settled(self, fields: tuple[Any, ...]) -> None:
        (sequence, index, _, flags, _, instrument, account, _, _, quantity, _, _, _, due,
         cash) = fields  # fmt: skip
        settling = self._settling
        assert settling is not None, "POSITION_SETTLED outside a settlement"
        position = settling.held.get(account) or Position()
        net = -quantity if flags & _SELL else quantity
        ours = position.variation(settling.price, settling.multiplier)
        left = self.state.ledger.cash(account) + due
        if (position.net, ours, left) != (net, due, cash):
            number = sequence << INDEX_BITS | index
            self._compare(number, "position", position.net, net, account, instrument)
            self._compare(number, "variation", ours, due, account, instrument)
            self._compare(number, "cash", left, cash, account, instrument)
        settling.paid[account] = due

    def _settlement_ended(self, settling: Settlement) -> None:
        """Book a settlement as one entry: losers pay into vm_clearing, winners are paid from it.

        A residual, which only a fault of the engine can cause, is posted to suspense.
        """
        self._settling = None
        state, number, instrument = self.state, settling.number, settling.instrument
        listed, held = state.instruments[instrument], settling.held
        postings: list[Posting] = []
        for account, variation in settling.paid.items():
            postings += transfer(VM_CLEARING, cash_of(account), variation)
        residual = sum(settling.paid.values())
        postings += transfer(SUSPENSE, VM_CLEARING, residual)
        kind = EntryKind.EXPIRY if settling.expiry else EntryKind.SETTLEMENT
        self._book(
            number, kind, postings,
            instrument=instrument, price=settling.price, quantity=settling.cycle,
        )  # fmt: skip
        assert not state.ledger.balances.get(VM_CLEARING, 0), "vm_clearing keeps a residual"
        self._compare(number, "sum of variation", 0, residual, 0, instrument)
        for account in settling.passed_over():
            due = held[account].variation(settling.price, listed.multiplier)
            self._compare(number, "position", held[account].net, 0, account, instrument)
            self._compare(number, "variation", due, 0, account, instrument)
        if settling.expiry:
            state.ended = {account: position.net for account, position in held.items()}
        state.positions.strike(instrument, settling.price, listed.multiplier, close=settling.expiry)
        listed.mark = listed.settlement_price = settling.price
        listed.settlement_date = state.business_date
        listed.expired = int(settling.expiry)
        self.changes.instruments.add(instrument)
        self.changes.positions.update((account, instrument) for account in held)
        assert self._settling_event is not None
        if self._settling_event.kind in self._watched:
            self._saw(self._settling_event)
        state.ended = {}

    def _listed(self, event: Event) -> None:
        self.state.instruments[event.instrument] = Instrument(
            instrument=event.instrument,
            code=_code(self._text(event) or "", event.instrument),
            multiplier=event.quantity,
            tick_scale=event.leaves,
            price_step=event.order_id,
            mark=event.price,
            settlement_price=event.price,
        )
        self.changes.instruments.add(event.instrument)

    def _marked(self, event: Event) -> None:
        self.state.instruments[event.instrument].mark = event.price
        self.changes.instruments.add(event.instrument)

    def _account_opened(self, event: Event) -> None:
        self.state.members[event.account] = event.instrument, event.reason
        self.changes.accounts.add(event.account)

    def _day_opened(self, event: Event) -> None:
        self.state.business_date = event.quantity
        self.state.trading.clear()
        self.state.activity.clear()

    def _checkpointed(self, event: Event) -> None:
        number, state = _number(event), self.state
        cash, fold = totals(state)
        interest = sum(map(state.positions.open_interest, state.positions.instruments()))
        self._compare(number, "sum of cash", cash, event.a)
        self._compare(number, "fold", fold, event.b)
        self._compare(number, "open interest", interest, event.price)
        self._compare(number, "suspense", state.ledger.balances.get(SUSPENSE, 0), 0)


# Functions of the class: bound methods would make each batch part of a reference cycle, which stays
# in memory until the garbage collector runs.
_HANDLERS: Final[Mapping[int, Callable[[Projection, Event], None]]] = {
    EventKind.INSTRUMENT_LISTED: Projection._listed,
    EventKind.MARKED: Projection._marked,
    EventKind.INSTRUMENT_SETTLED: Projection._settlement_begun,
    EventKind.INSTRUMENT_EXPIRED: Projection._settlement_begun,
    EventKind.ACCOUNT_OPENED: Projection._account_opened,
    EventKind.DEPOSITED: Projection._cash_moved,
    EventKind.WITHDRAWN: Projection._cash_moved,
    EventKind.FEE_CHARGED: Projection._cash_moved,
    EventKind.DAY_OPENED: Projection._day_opened,
    EventKind.CHECKPOINTED: Projection._checkpointed,
    EventKind.TRADE_BUSTED: Projection._corrected,
    EventKind.TRADE_ADJUSTED: Projection._corrected,
    EventKind.LEG_TRADE: Projection._leg_traded,
    EventKind.RESIDUAL_POSTED: Projection._residual_posted,
    EventKind.LEG_BUSTED: Projection._leg_corrected,
    EventKind.LEG_ADJUSTED: Projection._leg_corrected,
    EventKind.RESIDUAL_CORRECTED: Projection._residual_posted,
    EventKind.LOTS_TRANSFERRED: Projection._transferred,
    EventKind.RECORDED: Projection._recorded,
}


def _number(event: Event) -> int:
    return event.sequence << INDEX_BITS | event.index


def _sides(event: Event) -> tuple[int, int]:
    """Return buyer and seller of a leg, a residual or a correction, laid out as a trade is."""
    sold = event.flags & _SELL
    return (event.key_hi, event.account) if sold else (event.account, event.key_hi)


def _signed(word: int) -> int:
    """Return the 64 bits of a key as a signed number."""
    return word - (1 << 64) if word >> 63 else word


def _code(text: str, instrument: int) -> str:
    """Return the instrument's code from its listing text, or a number sign and its id.

    The code is for display only, so clearing accepts a text of another form.
    """
    try:
        listing = json.loads(text)
    except ValueError:
        listing = None
    code = listing.get("code") if isinstance(listing, dict) else None
    return code if isinstance(code, str) else f"#{instrument}"


def _mix(x: int) -> int:
    """The splitmix64 finalizer."""
    x &= _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def totals(state: State) -> tuple[int, int]:
    """Return the sum of all cash, and the fold of cash and positions (docs/reference/engine.md)."""
    cash = fold = 0
    for account in {HOUSE_ACCOUNT, *state.members}:  # the house is open from the start
        amount = state.ledger.cash(account)
        cash += amount
        fold += _mix(_mix(1 << 56 | account) + amount)
    for instrument in state.positions.instruments():
        for account, position in state.positions.of_instrument(instrument).items():
            if position.net:
                fold += _mix(_mix(2 << 56 | account << 32 | instrument) + position.net)
    fold &= _MASK
    return cash, fold - (1 << 64) if fold >> 63 else fold
