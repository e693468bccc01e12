"""The clearing house: applies the released stream to its store and answers queries."""

import copy
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contracts.index.settlement import FinalPrice
from exchange.clearing import beancount, day, pages, statements
from exchange.clearing.calling import Calls
from exchange.clearing.cycles import Cycles
from exchange.clearing.default import loss
from exchange.clearing.default.fund import FundSize
from exchange.clearing.default.matter import Defaults
from exchange.clearing.default.payout import CAPITAL
from exchange.clearing.delivery import dvp
from exchange.clearing.delivery.course import deadline
from exchange.clearing.delivery.matter import CLOSED, Deliveries
from exchange.clearing.expiry import Fixings
from exchange.clearing.fees import Fees, Trader
from exchange.clearing.ledger import Ledger, Movement
from exchange.clearing.margin.matter import MarginVersions
from exchange.clearing.margin.parameters import MarginParameters, root_of
from exchange.clearing.matters import At, Due, Dues, Ruling
from exchange.clearing.members.box import Box, box
from exchange.clearing.members.offbook import OffBook
from exchange.clearing.prices import Priced
from exchange.clearing.pricing import Prices
from exchange.clearing.projection import Frame, Projection, totals
from exchange.clearing.state import Divergence, Point
from exchange.clearing.store import Damaged, OtherVersion, Store, audit, discard
from exchange.clearing.transferring import Transferring
from exchange.clearing.trial import TrialBalance, trial_balance
from exchange.messages import HOUSE_ACCOUNT, INDEX_BITS
from exchange.messages.dates import date_of

if TYPE_CHECKING:
    from contracts.history import Panel
    from exchange.clearing.margin.book import Requirement

REBUILD_FRAMES: Final = 512  # frames per transaction while rebuilding
_CONTRADICTIONS: Final = (  # raised by rows that contradict each other
    AssertionError, LookupError, StopIteration, TypeError, ValueError, msgspec.MsgspecError,
)  # fmt: skip


class Clearing:
    """An open clearing house. Its methods may be called from any thread; one runs at a time."""

    def __init__(self, store: Store, *, read_only: bool = False) -> None:
        self._store = store
        self._read_only = read_only
        self._lock = threading.RLock()
        self._state = store.load()
        self._position = self._state.point

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> "Clearing":
        """Open the store at ``path``, and create it if it is absent.

        ``read_only`` opens it beside a writer; then ``look`` and ``refresh`` read what the writer
        has committed. Raises OtherVersion, and sqlite3.DatabaseError (or Damaged, which is one) if
        the store cannot be read.
        """
        store = Store(path, read_only=read_only)
        with ExitStack() as unless_whole:
            unless_whole.callback(store.close)
            try:
                found = cls(store, read_only=read_only)
            except OtherVersion:
                raise
            except _CONTRADICTIONS as error:
                raise Damaged(f"it contradicts itself: {error!r}") from error
            unless_whole.pop_all()
        return found

    @classmethod
    def anew(cls, path: Path) -> "Clearing":
        """Replace the store at ``path`` by an empty one and open that."""
        discard(path)
        return cls.open(path)

    def close(self) -> None:
        """Close the store."""
        with self._lock:
            self._store.close()

    @property
    def position(self) -> Point:
        """(epoch, sequence, index) of the last event committed; zeros before the first one."""
        return self._position

    @property
    def divergences(self) -> Sequence[Divergence]:
        """All differences from the engine found so far, oldest first."""
        return tuple(self._state.divergences)

    @property
    def ledger_hash(self) -> bytes:
        """The hash of the last journal entry, which covers all entries before it."""
        return self._state.ledger.head

    def apply(self, frames: Sequence[Frame]) -> None:
        """Apply frames in one SQLite transaction, all or nothing; skip events applied before.

        After an error (ValueError: a gap in the sequence; sqlite3.Error; AssertionError: an
        invariant is violated) memory and store agree on ``position``. It is that before the frames,
        unless the commit itself raised the error.
        """
        with self._lock:
            before = self._state.point
            projection = Projection(self._state)
            try:
                for frame in frames:
                    projection.apply(frame)
                if self._state.point != before:
                    projection.changes.check()
                    self._store.write(self._state, projection.changes, before)
            except BaseException:
                self._state = self._store.load()
                raise
            finally:
                self._position = self._state.point

    def look(self) -> None:
        """Beside a writer: read its position and divergences again, which is cheap."""
        if self._read_only:
            with self._lock:
                self._state.divergences[:] = self._store.divergences()
                self._position = self._store.point()

    def recall(self) -> None:
        """Beside a writer: read its matters again (deadlines, dues and so on), which is cheap."""
        if self._read_only:
            with self._lock:
                self._state.matters = self._store.matters()

    def refresh(self) -> None:
        """Beside a writer: read all that it has committed, so that queries answer as of then."""
        if self._read_only:
            with self._lock:
                self._state = self._store.load(self._state.book)
                self._position = self._state.point

    def rebuild(self, frames: Iterable[Frame]) -> None:
        """Delete the store and apply the stream from its start.

        After a crash meanwhile the store is valid, at an earlier position.
        """
        with self._lock:
            path = self._store.path
            self._store.close()
            discard(path)
            self._store = Store(path)
            self._state = self._store.load()
            self._position = self._state.point
            batch: list[Frame] = []
            for frame in frames:
                batch.append(frame)
                if len(batch) == REBUILD_FRAMES:
                    self.apply(batch)
                    batch.clear()
            self.apply(batch)

    def audit(self) -> None:
        """Recompute balances, movements, positions and the hash chain from the journal.

        AssertionError names the first difference. It reads everything, which takes minutes for a
        large journal.
        """
        with self._lock:
            audit(self._store, self._state)

    # Queries. Each answers as of ``position``.

    def totals(self) -> tuple[int, int]:
        """Return the sum of all cash, and the fold of cash and positions, as in CHECKPOINTED."""
        with self._lock:
            return totals(self._state)

    def cash(self, account: int) -> int:
        """Return an account's cash in micro-dollars; negative cash is a claim of the house."""
        with self._lock:
            return self._state.ledger.cash(account)

    def net(self, account: int, instrument: int) -> int:
        """Return the signed lots that an account holds."""
        with self._lock:
            return self._state.positions.get(account, instrument).net

    def trial_balance(self) -> TrialBalance:
        """Return the balance of every account of the ledger and of the book of transfers."""
        with self._lock:
            return trial_balance(self._state)

    def beancount(self) -> Iterator[str]:
        """Yield the whole ledger as lines of a beancount file (exchange.clearing.beancount)."""
        with self._lock:
            rows = self._store.transfers()
            yield from beancount.lines(self._state, self._store.entries(), rows)

    def is_balanced(self) -> bool:
        """Return whether debits equal credits, and suspense and vm_clearing are zero."""
        with self._lock:
            ledger = Ledger(self._store.balances()) if self._read_only else self._state.ledger
            return ledger.is_balanced()

    def statement(self, account: int, business_date: int | None = None) -> statements.Statement:
        """Return an account's statement of a business date, or of its whole life. KeyError: no such
        account."""
        with self._lock:
            return statements.statement(self._state, self._store, account, business_date)

    def statement_page(self, account: int, business_date: int | None = None) -> str:
        """Return the same as an HTML page with a chart of all dates. KeyError: no such account."""
        with self._lock:
            found = statements.statement(self._state, self._store, account, business_date)
            days = statements.days(self._store, account)
            return pages.page(found, days, statements.profits(self._state, self._store, account))

    def roll_forward(self, business_date: int | None = None) -> list[statements.Roll]:
        """Return the roll-forward of open interest over a business date; None: the last one."""
        with self._lock:
            date = business_date or self._state.business_date
            return statements.roll_forward(self._state, self._store, date)

    def open_interest(self) -> list[statements.Interest]:
        """Return open interest and the date's volume of every instrument."""
        with self._lock:
            return statements.open_interest(self._state)

    def margin_parameters(self, business_date: int = 0) -> MarginParameters | None:
        """Return the margin parameters of a business date (yyyymmdd; 0: the present one), or None.

        A later date may already have another version than the present one.
        """
        with self._lock:
            on = business_date or self._state.business_date
            return self._state.matters.get(MarginVersions).in_force(on)

    def margin_versions(self) -> tuple[MarginParameters, ...]:
        """Return the adopted versions: the one in force, and those of later dates."""
        with self._lock:
            return self._state.matters.get(MarginVersions).adopted

    def margins(
        self, advance: Callable[[int, int], object] = lambda done, total: None
    ) -> list["Requirement"]:
        """Return the requirement of every account with positions, at the last settlement prices, or
        deliveries that have not ended, except for those that ``uncovered`` names.

        LookupError without margin parameters. ``advance`` is called with the number of positions
        done and their total.
        """
        from exchange.clearing.margin import book  # noqa: PLC0415 - numpy, only for who asks

        with self._lock:
            parameters, number = self.margin_parameters(), self._state.business_date
            if parameters is None:
                raise LookupError(f"no margin parameters are in force on {number}")
            on = date_of(number)
            but = book.unknown(self._state, parameters)
            return book.requirements(self._state, parameters, on, advance, but=but)

    def uncovered(self) -> dict[int, list[str]]:
        """Return the codes, by account, of positions and deliveries that the margin parameters in
        force do not cover, so that the account's requirement is not known."""
        with self._lock:
            return self._state.matters.get(Calls).unknown(self._state)

    def historical_losses(self, history: "Panel", steps: int, confidence_bp: int) -> dict[int, int]:
        """Return every account's expected shortfall in the filtered weeks of a history, at a
        confidence in basis points: a float figure to compare with its requirement."""
        from exchange.clearing.margin import book, historical  # noqa: PLC0415 - numpy

        with self._lock:
            held = book.exposures(self._state)
        moves = historical.weeks(history, steps)
        losses = historical.shortfall(held.values(), moves, confidence_bp)
        return dict(zip(held, losses, strict=True))

    def daily_volumes(self, days: int) -> dict[str, int]:
        """Return the mean lots a date by product, over the last ``days`` dates with trades.

        Rounded down, at least 1; a product that never traded is absent.
        """
        query = "select business_date, instrument, volume from trading order by business_date"
        with self._lock:
            rows = [row for row in self._store.rows(query) if row["business_date"]]
            dates = sorted({row["business_date"] for row in rows})[-days:]
            total: dict[str, int] = {}
            for row in rows:
                root = root_of(self._state.instruments[row["instrument"]].code)
                if root and row["business_date"] in dates:
                    total[root] = total.get(root, 0) + row["volume"]
        return {root: max(1, lots // len(dates)) for root, lots in sorted(total.items())}

    def settlement_prices(self, quotes: day.Quotes = MappingProxyType({})) -> list[Priced]:
        """Return the settlement price of every instrument that has not expired, with its tier and
        inputs; ``quotes`` as in ``exchange.clearing.day.closing``."""
        with self._lock:
            return day.closing(self._state, self._store, quotes)

    def cycle_prices(self) -> list[Priced]:
        """Return the prices of the intraday cycle that is due, for the instruments it has left."""
        with self._lock:
            return day.intraday(self._state, self._store)

    def fees(self) -> Fees:
        """Return the adopted fee tiers, and all accounts' lots by month."""
        with self._lock:
            return copy.deepcopy(self._state.matters.get(Fees))

    def fee_tiers(self) -> tuple[int, list[Trader]]:
        """Return the business date, and every account's lots and tiers of this and next month."""
        with self._lock:
            fees, state = self._state.matters.get(Fees), self._state
            accounts = sorted(state.members.keys() - {HOUSE_ACCOUNT})
            return state.business_date, [fees.trader(account, state) for account in accounts]

    def cycles(self) -> Cycles:
        """Return the schedule of intraday cycles, and the cycle that is due."""
        with self._lock:
            return copy.deepcopy(self._state.matters.get(Cycles))

    def look_is_due(self) -> bool:
        """Return whether variation was paid and no ``call_margin`` has followed."""
        with self._lock:
            return self._state.matters.get(Calls).look_due

    def cycle_is_due(self) -> bool:
        """Return whether an intraday cycle is due, or at least the ``call_margin`` that ends it."""
        with self._lock:
            closed = self._state.matters.get(Prices).closed
            left = self._state.matters.get(Cycles).due is not None
            return left or (self.look_is_due() and not closed)

    def settled(self) -> frozenset[int]:
        """Return the instruments that were settled since the date closed, except for those with a
        newly approved price."""
        with self._lock:
            prices = self._state.matters.get(Prices)
            return frozenset(prices.final).difference(prices.approved)

    def next_cycle(self, instrument: int) -> int:
        """Return the number of an instrument's next settlement cycle of the business date."""
        with self._lock:
            return self._state.matters.get(Prices).cycles.get(instrument, 0) + 1

    def would(self, text: str) -> Ruling:
        """Return the ruling that a record by two would get if it were approved now."""
        with self._lock:
            number = self._state.point[1] << INDEX_BITS
            at = At(number, 0, self._state.business_date)
            return self._state.matters.would(text, at, self._state)

    def rulings(self, sequence: int) -> list[dict[str, Any]]:
        """Return the rulings on the command of a sequence, in order: operation, outcome, facts."""
        first, query = sequence << INDEX_BITS, (
            "select operation, outcome, facts from rulings where number >= ? and number < ?"
            " order by number, line"
        )  # fmt: skip
        with self._lock:
            rows = list(self._store.rows(query, (first, first + (1 << INDEX_BITS))))
        return [row | {"facts": json.loads(row["facts"])} for row in rows]

    def dues(self) -> list[Due]:
        """Return the open dues, in the order in which they must be performed."""
        with self._lock:
            return self._state.matters.get(Dues).in_order()

    def box(self, account: int) -> Box:
        """Return a lender's view of a box. KeyError: no such account; ValueError: not a box."""
        with self._lock:
            return box(self._state, account)

    def matter(self, name: str) -> Any:
        """Return the state of a matter as plain data, by name: ``deliveries``, ``defaults`` etc."""
        with self._lock:
            return msgspec.to_builtins(self._state.matters.all[name], str_keys=True)

    def delivery(self, number: int) -> dict[str, Any] | None:
        """Return a delivery as plain data, or None if there is none of that number.

        With its ``terms``, its ``events`` in order (stamp, operation, outcome, facts), and its next
        ``deadline`` (0: none).
        """
        query = (
            "select stamp, operation, outcome, facts from rulings where operation in"
            " ('delivery', 'attest', 'alternative_delivery')"
            " and json_extract(facts, '$.delivery') = ? order by number, line"
        )
        with self._lock:
            matter = self._state.matters.get(Deliveries)
            rows = [row | {"facts": json.loads(row["facts"])}
                    for row in self._store.rows(query, (number,))]  # fmt: skip
            known, by_itself = None, 0
            if rows and rows[-1]["outcome"] == CLOSED:
                known = _without(rows.pop()["facts"], "delivery")
            for found in matter.deliveries:
                if found.id == number:
                    known = matter.known(found)
                    by_itself = deadline(found, matter.expiries[found.instrument].terms)
        return None if known is None else {**known, "events": rows, "deadline": by_itself}

    def figures(self, day: int, digest: str) -> list[dict[str, Any]]:
        """Return the figures that count of a day of a month by logs of a digest, each as the facts
        of its ruling (``delivery``, ``side``, ``available`` and so on), oldest first."""
        query = (
            "select facts from rulings where operation = 'attest' and outcome = 'accepted'"
            " and json_extract(facts, '$.day') = ? and json_extract(facts, '$.digest') = ?"
            " order by number, line"
        )
        with self._lock:
            return [json.loads(row["facts"]) for row in self._store.rows(query, (day, digest))]

    def deliveries(self) -> list[dict[str, Any]]:
        """Return all deliveries, closed ones too, as plain data, by id."""
        query = "select facts from rulings where operation = 'delivery' and outcome = ?"
        with self._lock:
            rows = self._store.rows(query, (CLOSED,))
            found = [_without(json.loads(row["facts"]), "delivery", "terms") for row in rows]
            matter = self._state.matters.get(Deliveries)
            found += [_without(matter.known(one), "terms") for one in matter.deliveries]
        return sorted(found, key=lambda one: int(one["id"]))

    def codes(self) -> dict[int, str]:
        """Return the code of every instrument ever listed, by number."""
        with self._lock:
            return {number: one.code for number, one in self._state.instruments.items()}

    def defaulter(self, default: int) -> list[int]:
        """Return the defaulter's own accounts; empty if there is no default of that number."""
        with self._lock:
            found = self._state.matters.get(Defaults).defaults
            return list(found[default - 1].accounts) if 1 <= default <= len(found) else []

    def gone(self) -> frozenset[int]:
        """Return the members in default, including those whose default has ended."""
        with self._lock:
            return self._state.matters.get(Defaults).gone

    def default_stage(self, default: int) -> str:
        """Return the stage of a default, ``declared`` to ``ended``; empty if there is none."""
        with self._lock:
            found = self._state.matters.get(Defaults).defaults
            return found[default - 1].stage if 1 <= default <= len(found) else ""

    def losses(self, default: int) -> loss.Losses:
        """Return what was borne and repaid of a default, and what its estate holds.

        LookupError: no such default.
        """
        with self._lock:
            found = self._state.matters.get(Defaults).defaults
            if not 1 <= default <= len(found):
                raise LookupError(f"no default {default}")
            return loss.losses(found[default - 1], self._state)

    def hedge(self, request_id: str) -> tuple[int, dict[str, Any]] | None:
        """Return the last hedge under a request id: the sequence of its order, and its record's
        fields; None if there is none."""
        query = (
            "select number, facts from rulings where operation = 'hedge' and outcome = 'accepted'"
            " and json_extract(facts, '$.request_id') = ? order by number desc limit 1"
        )
        with self._lock:
            found = next(self._store.rows(query, (request_id,)), None)
        if found is None:
            return None
        return (found["number"] >> INDEX_BITS) + 1, json.loads(found["facts"])

    def request(self, account: int, key_lo: int, key_hi: int) -> int | None:
        """Return the sequence of the first command of an account, or for the house a record, that
        was accepted under a request id; None if there is none."""
        query = "select sequence from requests where account = ? and key = ?"
        key = (key_hi << 64 | key_lo).to_bytes(16, "little")
        with self._lock:
            return self._store.first(query, (account, key))

    def gains(self, default: int) -> dict[int, int]:
        """Return the gains that haircuts may take for a default, in micro-dollars by account.

        They are the variation received since the default's business date, without dates on which
        variation was paid, and without the defaulter's own accounts. LookupError: no such default.
        """
        query = "select account, amount from movements where kind = ? and business_date >= ?"
        gained: dict[int, int] = {}
        with self._lock:
            defaults = self._state.matters.get(Defaults).defaults
            if not 1 <= default <= len(defaults):
                raise LookupError(f"no default {default}")
            found = defaults[default - 1]
            for row in self._store.rows(query, (int(Movement.VARIATION), found.date)):
                account, amount = row["account"], int(row["amount"])
                if amount > 0 and account not in found.accounts:
                    gained[account] = gained.get(account, 0) + amount
        return dict(sorted(gained.items()))

    def sizing(self) -> FundSize:
        """Return the default fund that present positions require, by scenario."""
        with self._lock:
            return self._state.matters.get(Defaults).sizing(self._state)

    def fund(self) -> dict[int, int]:
        """Return every member's money in the default fund, in micro-dollars."""
        with self._lock:
            return self._state.matters.get(Defaults).fund(self._state)

    def capital(self) -> int:
        """Return the house's own capital at risk, in micro-dollars."""
        with self._lock:
            return dvp.balance(self._state.book, CAPITAL)

    def is_assigned(self, instrument: int) -> bool:
        """Return whether a physical contract's tenders are assigned, so that it may expire."""
        with self._lock:
            expiry = self._state.matters.get(Deliveries).expiries.get(instrument)
            return expiry is not None and expiry.assigned

    def final_price(self, instrument: int, index: str, month: str) -> FinalPrice:
        """Return a cash contract's final settlement price, from the fixings in the log and its own
        settlement prices: those of the dates that it traded on, not of one that is not settled yet.
        MonthIncomplete if a day's fixing is missing; KeyError: no such index.
        """
        query = (
            "select price from settlement_prices"
            " where instrument = ? and business_date <= ? and business_date <> ?"
            " group by business_date having cycle = max(cycle) order by business_date"
        )
        with self._lock:
            prices, today = self._state.matters.get(Prices), self._state.business_date
            # Later dates only repeat the last price: it would count once for each day of waiting
            last = prices.last_days.get(instrument, today)
            unsettled = 0 if instrument in prices.final else today
            rows = self._store.rows(query, (instrument, last, unsettled))
            market = [row["price"] for row in rows]
            return self._state.matters.get(Fixings).final(index, month, market)

    def deadline(self) -> int:
        """Return the next log time at which clearing decides without a record; 0: never."""
        with self._lock:
            times = [self._state.matters.get(Deliveries).deadline]
            times += self._state.matters.get(Defaults).deadlines()
            times.append(self._state.matters.get(OffBook).soonest)
            times.append(self._state.matters.get(Cycles).deadline)
            times += self._state.matters.get(Calls).deadlines()
            times.append(self._state.matters.get(Transferring).soonest)
            return min((time for time in times if time), default=0)


def _without(facts: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}
