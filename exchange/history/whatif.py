"""What-if: the commands of a log under other parameters, compared with what really happened.

The commands are those of the log, one for one and under the same sequences; participants do not
react. A changed parameter is put into the commands that set it; an excluded account enters nothing.
The engine assigns its own order ids, so an id that a command names is translated to the id in the
other run, and one that names no order of the log names none there; a correction of a trade that the
other run does not have is left out.
"""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from exchange.engine import Engine
from exchange.history.picture import Picture, money
from exchange.history.records import (
    COMMAND_PLACES,
    TRADE,
    EventRow,
    command_column,
    event_column,
    event_row,
    kinds_of,
)
from exchange.history.walk import Pieces, Progress, walk
from exchange.history.words import command_line, member_name, reject_words
from exchange.journal.frame import Frame
from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    COMMAND_FIELDS,
    EVENT_BYTES,
    INDEX_BITS,
    Command,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    OrderFeature,
    Reason,
)

EXAMPLES_MAX: Final = 20
PERCENT: Final = 100
_U64: Final = (1 << 64) - 1
_U32: Final = (1 << 32) - 1
_I64: Final = (1 << 63) - 1  # a larger parameter is set to the field's maximum, and so refused
_MADE: Final = frozenset({CommandKind.ENTER, CommandKind.MASS_QUOTE})
_NAMING: Final = frozenset({CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE})
_ORDERS: Final = _MADE | _NAMING
_ENTERING: Final = _MADE | {CommandKind.REPLACE}
_CORRECTING: Final = frozenset({CommandKind.BUST, CommandKind.ADJUST})
_PARAMETERS: Final = frozenset({CommandKind.LIST, CommandKind.SET_LIMITS, CommandKind.SET_RISK})
_RELATIVE: Final = frozenset({CommandKind.SET_LIMITS})  # to the mark at that moment
_TOUCHED: Final = _NAMING | _CORRECTING | _PARAMETERS
_ENTER, _SPARE_AT = int(CommandKind.ENTER), COMMAND_PLACES["spare"][1]
_NOBODY: Final = 0  # no order has this id
_LEG_TRADE, _EXECUTED = int(EventKind.LEG_TRADE), int(EventKind.ORDER_EXECUTED)
_REJECTED: Final = int(EventKind.REJECTED)
_CASH: Final = frozenset({EventKind.DEPOSITED, EventKind.WITHDRAWN})


# Order id by (sequence, SELL), since a quote enters both sides
Accepted: TypeAlias = dict[tuple[int, int], int]


class NothingChosen(LookupError):
    """A change that applies to nothing in the log; reporting no effect would be misleading."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """The changes. Each pair is (code pattern with * and ?, value); the last match applies.

    ``margin``: percent of the rate in the log; ``limits``: distance from the mark in percent, both
    ways, of outrights: a combination's prices follow from its legs and keep their limits;
    ``position_limit``: lots; ``without``: accounts whose orders and quotes are left out.
    """

    margin: list[tuple[str, int]] = []
    limits: list[tuple[str, int]] = []
    position_limit: list[tuple[str, int]] = []
    without: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.margin or self.limits or self.position_limit or self.without)


def _chosen(pairs: list[tuple[str, int]], code: str) -> int | None:
    return next((v for pattern, v in reversed(pairs) if fnmatchcase(code, pattern)), None)


class WhatIf:
    """Both runs side by side. Call ``take`` with every batch of the log; then read ``report``."""

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.engine = Engine()
        self.picture = Picture()
        self.ids: dict[int, int] = {}  # order ids that differ: the log's -> this run's
        self.own: set[int] = set()  # ids of this run that the log gave to another order, or to none
        # Trades missing in this run, and legs of trades with an implied price: sequence,
        # instrument, clearing price, lots, taker, resting account.
        self.gone: set[tuple[int, ...]] = set()
        self.altered = 0  # commands with a changed parameter, or left out
        self.deposits: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
        self.trades: tuple[Counter[str], Counter[str]] = (Counter(), Counter())  # lots by code
        self.counts: Counter[str] = Counter()
        self.instead: Counter[str] = Counter()  # reject reasons
        self.examples: list[str] = []
        self.deficits: tuple[set[int], set[int]] = (set(), set())

    def take(self, frame: Frame, events: bytes) -> None:
        """Apply a batch with the changes and compare the result with the log's events."""
        self.picture.take(frame, events)
        others = self._apply(frame, events)
        if others == events:
            self._count(events, events)
            return
        self._count(events, others)
        if others != events:
            self._compare(frame, events, others)

    def _apply(self, frame: Frame, events: bytes) -> bytes:
        """Run the changed batch; in parts if a command names an order entered in the same batch,
        which may be one that only this run has, or sets limits, which are measured from the mark
        that the commands before it leave."""
        first, pieces = frame.opening.first_sequence, Pieces(self.engine, frame)
        commands, done = bytearray(frame.commands), 0
        accepted, entry = _accepted(events), _entries(frame, events)
        fresh = {order_id: sequence for (sequence, _), order_id in accepted.items()}
        outputs: list[bytes] = []

        def run_upto(end: int) -> None:
            nonlocal done
            outputs.append(output := pieces.upto(commands, end))
            self._follow({key: order_id for key, order_id in accepted.items()
                          if first + done <= key[0] < first + end}, _accepted(output))  # fmt: skip
            done = end

        for number in self._touched(frame.commands):
            command = _command(commands, number)
            entered = done <= fresh.get(_aim(command), 0) - first < number
            relative = command.kind in _RELATIVE and self.changes.limits and done < number
            if entered or relative or entry.get(number, -1) >= done:
                run_upto(number)
            changed = self._changed(command)
            if changed != command:
                COMMAND.pack_into(
                    commands, number * COMMAND_BYTES, *msgspec.structs.astuple(changed)
                )
        if done < frame.opening.count:
            run_upto(frame.opening.count)
        return b"".join(outputs)

    def _touched(self, commands: bytes) -> Iterable[int]:
        """Return the numbers of the commands that may have to be changed."""
        wanted = _TOUCHED | _ORDERS if self.changes.without else _TOUCHED
        pairs = zip(commands[::COMMAND_BYTES], commands[_SPARE_AT::COMMAND_BYTES], strict=True)
        return [
            n for n, (kind, spare) in enumerate(pairs)
            if kind in wanted or (kind == _ENTER and spare & OrderFeature.GROUPED)
        ]  # fmt: skip

    def _changed(self, command: Command) -> Command:
        kind, aim = command.kind, _aim(command)
        if (kind in _ORDERS and command.account in self.changes.without) or (
            kind in _CORRECTING and self._corrected(command) in self.gone
        ):
            self.altered += 1
            return Command(kind=CommandKind.ADVANCE_TIME)
        if kind in _PARAMETERS:
            changed = self._parameters(command)
            self.altered += changed != command
            return changed
        instead = self.ids.get(aim, _NOBODY if aim in self.own else aim)
        if aim == instead:
            return command
        field = "target_hi" if kind == _ENTER else "target_lo"
        return msgspec.structs.replace(command, **{field: instead})

    def _parameters(self, command: Command) -> Command:
        code, listed = (
            self.picture.code(command.instrument),
            self.picture.listed(command.instrument),
        )
        if command.kind == CommandKind.SET_RISK:
            rate = _chosen(self.changes.margin, code)
            limit = _chosen(self.changes.position_limit, code)
            return msgspec.structs.replace(
                command,
                price=command.price
                if rate is None
                else min(-(-command.price * rate // PERCENT), _I64),
                key_lo=command.key_lo
                if rate is None
                else min(command.key_lo * rate // PERCENT, _U64),
                quantity=command.quantity if limit is None else min(limit, _U32),
            )
        percent = _chosen(self.changes.limits, code)
        listed = self.picture.listed(command.instrument)
        if percent is None or (listed is not None and listed.legs):
            return command
        if command.kind == CommandKind.LIST:
            mark, scale, step = command.price, command.session, command.account
        else:
            try:
                stands = self.engine.instrument(command.instrument)
            except KeyError:
                return command  # the engine refuses it
            mark, scale, step = stands["mark"], stands["tick_scale"], stands["price_step"]
        reach, unit = abs(mark) * percent // PERCENT, scale * step
        if not unit:
            return command  # the engine refuses it
        low = max(-(-(mark - reach) // unit) * step, -_I64)
        high = min((mark + reach) // unit * step, _I64)
        return msgspec.structs.replace(command, target_lo=low & _U64, target_hi=high & _U64)

    def _follow(self, ours: "Accepted", theirs: "Accepted") -> None:
        """Record the id in this run of each order of the log; _NOBODY if it was not accepted."""
        if ours == theirs:
            return
        for key, order_id in ours.items():
            other = theirs.get(key, _NOBODY)
            if other != order_id:
                self.ids[order_id] = other
        self.own |= set(theirs.values()) - set(ours.values())

    def _count(self, events: bytes, others: bytes) -> None:
        for place, data in enumerate((events, others)):
            kinds = kinds_of(data)
            if TRADE in kinds or _EXECUTED in kinds:
                lots = event_column(data, "quantity").tolist()
                instruments = event_column(data, "instrument").tolist()
                reasons = event_column(data, "reason").tolist()
                for number, kind in enumerate(kinds):
                    if kind in (TRADE, _EXECUTED):
                        self.trades[place][self.picture.code(instruments[number])] += lots[number]
                        once = kind == TRADE or not reasons[number]  # its first event
                        self.counts[("trades", "trades_instead")[place]] += once
            if any(kind in kinds for kind in (*_CASH, EventKind.DEFICIT_STARTED)):
                for number, kind in enumerate(kinds):
                    row = event_row(data, number)
                    if kind in _CASH and not row[3] & EventFlag.DUPLICATE:
                        self.deposits[place][row[6]] += row[13]
                    elif kind == EventKind.DEFICIT_STARTED:
                        self.deficits[place].add(row[6])

    def _compare(self, frame: Frame, events: bytes, others: bytes) -> None:
        """Count how each command's result differs; order ids alone make no difference."""
        ours, theirs = _by_sequence(events), _by_sequence(others)
        first = frame.opening.first_sequence
        for sequence, rows in ours.items():
            instead = theirs[sequence]
            command = _command(frame.commands, sequence - first)
            if command.account in self.changes.without and command.kind in _ORDERS:
                self.counts["orders_taken_out"] += command.kind in _MADE
            elif rows != instead:
                self._refused(sequence, command, rows, instead)
            gone, new = _fills(rows), _fills(instead)
            if rows != instead and len(rows) > 1:
                lost = self._cleared(rows) - self._cleared(instead)
                self.gone |= {(sequence, *trade) for trade in lost}
            self.counts["trades_gone"] += (gone - new).total()
            self.counts["trades_new"] += (new - gone).total()

    def _cleared(self, rows: list[EventRow]) -> Counter[tuple[int, ...]]:
        """Return the trades, and all legs, in the form of ``gone`` without the sequence."""
        trades: Counter[tuple[int, ...]] = Counter(
            (row[5], row[8] * self._scale(row[5]), row[9], row[6], row[12] & 0xFFFF_FFFF)
            for row in rows
            if row[2] == TRADE
        )
        legs = ((row[5], row[8], row[9], row[6], row[12]) for row in rows if row[2] == _LEG_TRADE)
        trades.update(legs)
        return trades

    def _corrected(self, command: Command) -> tuple[int, ...]:
        """Return the trade or leg that a BUST or an ADJUST names, in the form of ``gone``."""
        sequence, price = command.target_lo >> INDEX_BITS, command.price
        of = command.instrument, price * self._scale(command.instrument), command.quantity
        return sequence, *of, command.account, command.session

    def _scale(self, instrument: int) -> int:
        listed = self.picture.listed(instrument)
        return 1 if listed is None else listed.tick_scale

    def _refused(
        self, sequence: int, command: Command, rows: list[EventRow], instead: list[EventRow]
    ) -> None:
        was, now = (self._reject(some) for some in (rows, instead))
        if now is not None and was is None:
            entered = command.kind in _ENTERING
            self.counts["orders_rejected" if entered else "others_rejected"] += 1
            self.instead[member_name(Reason, now[4])] += 1
            self.counts["parameters_refused"] += command.kind in _PARAMETERS
            if entered and len(self.examples) < EXAMPLES_MAX:
                line = command_line(command, self.picture)
                known = None if command.kind == CommandKind.REPLACE else command.instrument
                why = reject_words(now, self.picture, known)
                self.examples.append(f"#{sequence} {line}: {why}")
        elif was is not None and now is None:
            entered = command.kind in _ENTERING
            self.counts["orders_accepted" if entered else "others_accepted"] += 1

    @staticmethod
    def _reject(rows: list[EventRow]) -> EventRow | None:
        return next((row for row in rows if row[2] == EventKind.REJECTED), None)

    def report(self, engine: Engine) -> dict[str, Any]:
        """Return the differences. ``engine`` is that of the log's own run, at its end.

        Profit is cash plus unrealized gains, less net deposits; its sum over all accounts is zero
        in either run, which is asserted.
        """
        profits = []
        for account in self.picture.accounts:
            was, now = (
                run.account(account)["cash"]
                + run.account(account)["unrealized"]
                - self.deposits[place][account]
                for place, run in enumerate((engine, self.engine))
            )
            profits.append((account, was, now))
        assert sum(was for _, was, _ in profits) == 0, "the log's profits sum to zero"
        assert sum(now for _, _, now in profits) == 0, "the other run's profits sum to zero"
        codes = sorted({*self.trades[0], *self.trades[1]})
        return {
            "commands_changed": self.altered,
            **{name: self.counts[name] for name in ("parameters_refused", *_COUNTS)},
            "rejected_by_reason": dict(self.instead.most_common()),
            "examples": self.examples,
            "lots": {code: [self.trades[0][code], self.trades[1][code]] for code in codes},
            "deficits": [len(accounts) for accounts in self.deficits],
            "profit": [
                {
                    "account": account,
                    "in_the_log": money(was),
                    "instead": money(now),
                    "difference": money(now - was),
                }
                for account, was, now in profits
                if was or now
            ],
            "note": NOTE,
        }


NOTE: Final = (
    "Participants' reactions are not simulated: everybody sends what they sent, and settlement"
    " prices, deposits and marks are those of the log."
)
_COUNTS: Final = (
    "orders_taken_out", "orders_rejected", "others_rejected", "orders_accepted",
    "others_accepted", "trades", "trades_instead", "trades_gone", "trades_new",
)  # fmt: skip


def _command(commands: "bytes | bytearray", number: int) -> Command:
    row = COMMAND.unpack_from(commands, number * COMMAND_BYTES)
    return Command(**dict(zip(COMMAND_FIELDS, row, strict=True)))


def _aim(command: Command) -> int:
    """Return the order id that a command names; _NOBODY if it names none."""
    if command.kind in _NAMING and not command.flags & CommandFlag.BY_CLIENT_ID:
        return command.target_lo
    grouped = command.kind == _ENTER and command.spare & OrderFeature.GROUPED
    return command.target_hi if grouped else _NOBODY


def _accepted(events: bytes) -> Accepted:
    """Return the accepted order ids, without repeated answers."""
    accepted: Accepted = {}
    kinds = kinds_of(events)
    if EventKind.ORDER_ACCEPTED in kinds:
        for number, kind in enumerate(kinds):
            if kind == EventKind.ORDER_ACCEPTED:
                row = event_row(events, number)
                if not row[3] & EventFlag.DUPLICATE:
                    accepted[row[0], row[3] & EventFlag.SELL] = row[7]
    return accepted


def _entries(frame: Frame, events: bytes) -> dict[int, int]:
    """Return, of each command of the batch that was rejected and names an order, the number of its
    account's last command before it that may have entered one; both are numbers in the batch."""
    kinds = kinds_of(events)
    if _REJECTED not in kinds:
        return {}
    sequences = event_column(events, "sequence").tolist()
    rejected = {sequences[at] for at, kind in enumerate(kinds) if kind == _REJECTED}
    last: dict[int, int] = {}
    found: dict[int, int] = {}
    accounts = command_column(frame.commands, "account").tolist()
    for number, kind in enumerate(frame.commands[::COMMAND_BYTES]):
        account, sequence = accounts[number], frame.opening.first_sequence + number
        if account in last and sequence in rejected and _aim(_command(frame.commands, number)):
            found[number] = last[account]
        if kind in _ENTERING:
            last[account] = number
    return found


def _by_sequence(events: bytes) -> dict[int, list[EventRow]]:
    rows: dict[int, list[EventRow]] = {}
    for number in range(len(events) // EVENT_BYTES):
        row = event_row(events, number)
        rows.setdefault(row[0], []).append(row)
    return rows


def _fills(rows: list[EventRow]) -> Counter[tuple[int, ...]]:
    """Return the trades as (instrument, price, lots, incoming account, resting account); one
    through an implied price has the combination, as -1 - its number, in place of the last."""
    return Counter(
        (row[5], row[8], row[9], row[6], row[12] & 0xFFFF_FFFF if row[2] == TRADE else -1 - row[14])
        for row in rows
        if row[2] == TRADE or _is_incoming(row)
    )


def _is_incoming(row: EventRow) -> bool:
    """Whether this is the incoming order's event of a trade through an implied price."""
    return row[2] == EventKind.ORDER_EXECUTED and not row[4]


def what_if(directory: Path, changes: Changes, progress: Progress | None = None) -> dict[str, Any]:
    """Replay a log as it was and with the changes; return the report.

    Raises what ``walk`` raises; NothingChosen for a pattern or an account that the log does not
    have.
    """
    other = WhatIf(changes)
    engine = walk(directory, other.take, progress=progress)
    known = other.picture.instruments.by_code
    for pattern, _ in (*changes.margin, *changes.limits, *changes.position_limit):
        if not any(fnmatchcase(code, pattern) for code in known):
            raise NothingChosen(f"{pattern} fits nothing that the log lists")
    outrights = [code for code, listed in known.items() if not listed.legs]
    for pattern, _ in changes.limits:
        if not any(fnmatchcase(code, pattern) for code in outrights):
            raise NothingChosen(f"{pattern} fits combinations alone, which keep their limits")
    for account in sorted(changes.without - other.picture.accounts.keys()):
        raise NothingChosen(f"account {account} is opened nowhere in the log")
    return other.report(engine)
