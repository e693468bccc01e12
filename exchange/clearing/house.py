"""The clearing house: applies the released stream to its store and answers about it."""

import copy
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import date
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

if TYPE_CHECKING:
    from contracts.history import Panel
    from exchange.clearing.margin.book import Requirement

REBUILD_FRAMES: Final = 512  # frames per transaction while rebuilding
_CONTRADICTIONS: Final = (  # what comes of rows that do not belong together
    AssertionError, LookupError, StopIteration, TypeError, ValueError, msgspec.MsgspecError,
)  # fmt: skip


class Clearing:
    """The open clearing house. Methods may be called from any thread, one at a time runs."""

    def __init__(self, store: Store, *, read_only: bool = False) -> None:
        self._store = store
        self._read_only = read_only
        self._lock = threading.RLock()
        self._state = store.load()
        self._position = self._state.point

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> "Clearing":
        """Open the store at ``path``, made if absent. ``read_only`` beside a live writer: then
        ``look`` and ``refresh`` say how far that one is. Raises OtherVersion, and
        sqlite3.DatabaseError, be it Damaged, where it cannot be read.
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
        """Open an empty store in place of the one at ``path``."""
        discard(path)
        return cls.open(path)

    def close(self) -> None:
        """Close the store."""
        with self._lock:
            self._store.close()

    @property
    def position(self) -> Point:
        """(epoch, sequence, index) of the last event committed; zeros before the first."""
        return self._position

    @property
    def divergences(self) -> Sequence[Divergence]:
        """Every difference from the engine found so far, oldest first; empty when all is well."""
        return tuple(self._state.divergences)

    @property
    def ledger_hash(self) -> bytes:
        """Hash of the last journal entry; it covers all entries before it."""
        return self._state.ledger.head

    def apply(self, frames: Sequence[Frame]) -> None:
        """Apply frames in one SQLite transaction; events already applied are skipped.

        All or nothing: on an error (ValueError: a gap in the sequence; sqlite3.Error; an
        AssertionError of an invariant) memory and store agree on ``position``, which only an error
        of the commit itself may find after the frames.
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
        """Beside a writer: read its position and divergences again. Cheap."""
        if self._read_only:
            with self._lock:
                self._state.divergences[:] = self._store.divergences()
                self._position = self._store.point()

    def recall(self) -> None:
        """Beside a writer: read again what its matters know, deadlines and dues say. Cheap."""
        if self._read_only:
            with self._lock:
                self._state.matters = self._store.matters()

    def refresh(self) -> None:
        """Beside a writer: read all that it has committed, for the queries to answer of."""
        if self._read_only:
            with self._lock:
                self._state = self._store.load(self._state.book)
                self._position = self._state.point

    def rebuild(self, frames: Iterable[Frame]) -> None:
        """Delete the store and apply the stream from its start. A crash meanwhile only means
        that the next open finds a younger point."""
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

        AssertionError names the first difference. Reads everything: minutes for a big journal.
        """
        with self._lock:
            audit(self._store, self._state)

    # Queries. Each answers as of ``position``.

    def totals(self) -> tuple[int, int]:
        """(sum of the cash of all accounts, fold of cash and positions), as a CHECKPOINTED has."""
        with self._lock:
            return totals(self._state)

    def cash(self, account: int) -> int:
        """Cash of an account in micro-dollars; negative is a receivable of the house."""
        with self._lock:
            return self._state.ledger.cash(account)

    def net(self, account: int, instrument: int) -> int:
        """Signed lots an account holds."""
        with self._lock:
            return self._state.positions.get(account, instrument).net

    def trial_balance(self) -> TrialBalance:
        """Every account's balance, of the ledger and of the book."""
        with self._lock:
            return trial_balance(self._state)

    def beancount(self) -> Iterator[str]:
        """The whole ledger as lines of a beancount file (exchange.clearing.beancount)."""
        with self._lock:
            rows = self._store.transfers()
            yield from beancount.lines(self._state, self._store.entries(), rows)

    def is_balanced(self) -> bool:
        """Whether debits equal credits and nothing lies in suspense or in vm_clearing."""
        with self._lock:
            ledger = Ledger(self._store.balances()) if self._read_only else self._state.ledger
            return ledger.is_balanced()

    def statement(self, account: int, business_date: int | None = None) -> statements.Statement:
        """An account's statement of one business date, or of its whole life. KeyError: unknown."""
        with self._lock:
            return statements.statement(self._state, self._store, account, business_date)

    def statement_page(self, account: int, business_date: int | None = None) -> str:
        """The same as an HTML page with a chart of every date. KeyError: unknown."""
        with self._lock:
            found = statements.statement(self._state, self._store, account, business_date)
            days = statements.days(self._store, account)
            return pages.page(found, days, statements.profits(self._state, self._store, account))

    def roll_forward(self, business_date: int | None = None) -> list[statements.Roll]:
        """How each instrument's open interest came of the date before; the last date if None."""
        with self._lock:
            date = business_date or self._state.business_date
            return statements.roll_forward(self._state, self._store, date)

    def open_interest(self) -> list[statements.Interest]:
        """Open interest and the day's volume per instrument."""
        with self._lock:
            return statements.open_interest(self._state)

    def margin_parameters(self, business_date: int = 0) -> MarginParameters | None:
        """The margin parameters of a business date, or of the present one; None if there are none.

        ``yyyymmdd``; a date to come may have a version of its own already.
        """
        with self._lock:
            on = business_date or self._state.business_date
            return self._state.matters.get(MarginVersions).in_force(on)

    def margin_versions(self) -> tuple[MarginParameters, ...]:
        """The versions adopted: the one in force, and those that wait for their date."""
        with self._lock:
            return self._state.matters.get(MarginVersions).adopted

    def margins(
        self, advance: Callable[[int, int], object] = lambda done, total: None
    ) -> list["Requirement"]:
        """What every account with positions must have, at the last settlement prices; without
        those that ``uncovered`` names.

        LookupError without margin parameters. ``advance`` is told how many of how many positions
        are done.
        """
        from exchange.clearing.margin import book  # noqa: PLC0415 - numpy, only for who asks

        with self._lock:
            parameters, number = self.margin_parameters(), self._state.business_date
            if parameters is None:
                raise LookupError(f"no margin parameters are in force on {number}")
            on = date(number // 10_000, number // 100 % 100, number % 100)
            but = book.unknown(self._state, parameters)
            return book.requirements(self._state, parameters, on, advance, but=but)

    def uncovered(self) -> dict[int, list[str]]:
        """Codes by account of what is held and the margin parameters in force do not cover: what
        such an account must have is not known."""
        with self._lock:
            return self._state.matters.get(Calls).unknown(self._state)

    def historical_losses(self, history: "Panel", steps: int, confidence_bp: int) -> dict[int, int]:
        """What every account with positions would lose in the filtered weeks of a history, at the
        confidence: a float model's figure, to be held beside its requirement."""
        from exchange.clearing.margin import book, historical  # noqa: PLC0415 - numpy

        with self._lock:
            held = book.exposures(self._state)
        moves = historical.weeks(history, steps)
        losses = historical.shortfall(held.values(), moves, confidence_bp)
        return dict(zip(held, losses, strict=True))

    def daily_volumes(self, days: int) -> dict[str, int]:
        """Lots a business date by product, the mean of the last ``days`` dates with any trade,
        rounded down and at least 1; a product that never traded is absent."""
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
        """The price of every instrument that has not expired, with its tier and inputs.

        ``quotes``: best bid and ask in price ticks when the date closed. Of an open date the window
        ends with the last trade.
        """
        with self._lock:
            return day.closing(self._state, self._store, quotes)

    def cycle_prices(self) -> list[Priced]:
        """The prices of the intraday cycle that is due, of what it has left; none: none is."""
        with self._lock:
            return day.intraday(self._state, self._store)

    def fees(self) -> Fees:
        """The fee tiers adopted, and everybody's lots by month."""
        with self._lock:
            return copy.deepcopy(self._state.matters.get(Fees))

    def fee_tiers(self) -> tuple[int, list[Trader]]:
        """The business date, and every account's lots and fee tier, now and next month."""
        with self._lock:
            fees, state = self._state.matters.get(Fees), self._state
            accounts = sorted(state.members.keys() - {HOUSE_ACCOUNT})
            return state.business_date, [fees.trader(account, state) for account in accounts]

    def cycles(self) -> Cycles:
        """The schedule of intraday cycles, and the one that is due."""
        with self._lock:
            return copy.deepcopy(self._state.matters.get(Cycles))

    def look_is_due(self) -> bool:
        """Whether variation was paid and no look at the accounts for margin calls has followed."""
        with self._lock:
            return self._state.matters.get(Calls).look_due

    def cycle_is_due(self) -> bool:
        """Whether an intraday cycle is to be carried out, be it only the look that ends it."""
        with self._lock:
            closed = self._state.matters.get(Prices).closed
            left = self._state.matters.get(Cycles).due is not None
            return left or (self.look_is_due() and not closed)

    def settled(self) -> frozenset[int]:
        """Instruments that were settled since the business date closed, and have no new price."""
        with self._lock:
            prices = self._state.matters.get(Prices)
            return frozenset(prices.final).difference(prices.approved)

    def next_cycle(self, instrument: int) -> int:
        """The number of an instrument's next settlement cycle of the business date."""
        with self._lock:
            return self._state.matters.get(Prices).cycles.get(instrument, 0) + 1

    def would(self, text: str) -> Ruling:
        """What would become of a record by two, approved now."""
        with self._lock:
            number = self._state.point[1] << INDEX_BITS
            at = At(number, 0, self._state.business_date)
            return self._state.matters.would(text, at, self._state)

    def rulings(self, sequence: int) -> list[dict[str, Any]]:
        """What was decided on the command of a sequence, in order: operation, outcome, facts."""
        first, query = sequence << INDEX_BITS, (
            "select operation, outcome, facts from rulings where number >= ? and number < ?"
            " order by number, line"
        )  # fmt: skip
        with self._lock:
            rows = list(self._store.rows(query, (first, first + (1 << INDEX_BITS))))
        return [row | {"facts": json.loads(row["facts"])} for row in rows]

    def dues(self) -> list[Due]:
        """Commands that clearing asks for and has not seen yet, in the order to do them in."""
        with self._lock:
            return self._state.matters.get(Dues).in_order()

    def box(self, account: int) -> Box:
        """A lender's view of a box. KeyError: no such account; ValueError: it is no box."""
        with self._lock:
            return box(self._state, account)

    def matter(self, name: str) -> Any:
        """All that a matter knows, as plain data: ``deliveries``, ``defaults``, ``offbook``."""
        with self._lock:
            return msgspec.to_builtins(self._state.matters.all[name], str_keys=True)

    def delivery(self, number: int) -> dict[str, Any] | None:
        """A delivery as plain data: what it is, its ``terms``, all its ``events`` in order (stamp,
        operation, outcome, facts), and its next ``deadline``; None if there is none."""
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

    def deliveries(self) -> list[dict[str, Any]]:
        """Every delivery there was as plain data, by id."""
        query = "select facts from rulings where operation = 'delivery' and outcome = ?"
        with self._lock:
            rows = self._store.rows(query, (CLOSED,))
            found = [_without(json.loads(row["facts"]), "delivery", "terms") for row in rows]
            matter = self._state.matters.get(Deliveries)
            found += [_without(matter.known(one), "terms") for one in matter.deliveries]
        return sorted(found, key=lambda one: int(one["id"]))

    def codes(self) -> dict[int, str]:
        """The code of every instrument ever listed, by number."""
        with self._lock:
            return {number: one.code for number, one in self._state.instruments.items()}

    def defaulter(self, default: int) -> list[int]:
        """The own accounts of the member of a default; empty if there is none of that number."""
        with self._lock:
            found = self._state.matters.get(Defaults).defaults
            return list(found[default - 1].accounts) if 1 <= default <= len(found) else []

    def gone(self) -> frozenset[int]:
        """Return the members in default, including those whose default has ended."""
        with self._lock:
            return self._state.matters.get(Defaults).gone

    def default_stage(self, default: int) -> str:
        """How far a default is, ``declared`` to ``ended``; empty if there is none."""
        with self._lock:
            found = self._state.matters.get(Defaults).defaults
            return found[default - 1].stage if 1 <= default <= len(found) else ""

    def losses(self, default: int) -> loss.Losses:
        """Who bore the loss of a default, what each has got back, and what its estate holds.

        LookupError: no such default.
        """
        with self._lock:
            found = self._state.matters.get(Defaults).defaults
            if not 1 <= default <= len(found):
                raise LookupError(f"no default {default}")
            return loss.losses(found[default - 1], self._state)

    def hedge(self, request_id: str) -> tuple[int, dict[str, Any]] | None:
        """The last hedge of that id: the sequence of its order, and what was asked for; None if
        there is none."""
        query = (
            "select number, facts from rulings where operation = 'hedge' and outcome = 'accepted'"
            " and json_extract(facts, '$.request_id') = ? order by number desc limit 1"
        )
        with self._lock:
            found = next(self._store.rows(query, (request_id,)), None)
        if found is None:
            return None
        return (found["number"] >> INDEX_BITS) + 1, json.loads(found["facts"])

    def gains(self, default: int) -> dict[int, int]:
        """What variation has paid each account since a default's business date, dates on which it
        took left out, the defaulter's own accounts too: what a haircut may take back.

        LookupError: no such default.
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
        """The default fund that today's books ask for, scenario by scenario."""
        with self._lock:
            return self._state.matters.get(Defaults).sizing(self._state)

    def fund(self) -> dict[int, int]:
        """Micro-dollars of every member in the default fund."""
        with self._lock:
            return self._state.matters.get(Defaults).fund(self._state)

    def capital(self) -> int:
        """Micro-dollars of the house's own capital at risk."""
        with self._lock:
            return dvp.balance(self._state.book, CAPITAL)

    def is_assigned(self, instrument: int) -> bool:
        """Whether a physical contract's last notice has passed, so that it may expire."""
        with self._lock:
            expiry = self._state.matters.get(Deliveries).expiries.get(instrument)
            return expiry is not None and expiry.assigned

    def final_price(self, instrument: int, index: str, month: str) -> FinalPrice:
        """A cash contract's final settlement price, by the fixings in the log and its own last
        settlement prices. MonthIncomplete, KeyError.
        """
        query = (
            "select price from settlement_prices where instrument = ?"
            " group by business_date having cycle = max(cycle) order by business_date"
        )
        with self._lock:
            market = [row["price"] for row in self._store.rows(query, (instrument,))]
            return self._state.matters.get(Fixings).final(index, month, market)

    def deadline(self) -> int:
        """Log time at which clearing decides something by itself next; 0: never."""
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
