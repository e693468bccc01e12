"""Answers queries from the released state, each with the sequence as of which it is true."""

from typing import Final

from msgspec.structs import replace

from exchange.gateway.accounts import Account, Accounts, Exposure, Order
from exchange.gateway.http import Flood
from exchange.marketdata.feed import Feed
from exchange.marketdata.instruments import micros_text
from exchange.messages import TimeInForce, TradingState
from exchange.messages.wire import (
    AccountReport,
    Instruments,
    Orders,
    OrderStatus,
    PositionReport,
    WorkingOrder,
)

ORDERS_A_SECOND: Final = 100_000  # that one account's queries may read


class Queries:
    """Builds the answers to ``instruments``, ``account``, ``orders`` and ``order``."""

    def __init__(self, feed: Feed, accounts: Accounts) -> None:
        self._feed = feed
        self._accounts = accounts
        self._flood = Flood()
        self._known: dict[int, AccountReport] = {}  # by account, as of sequence ``_known_at``
        self._known_at = -1

    def instruments(
        self, sequence: int, request_id: str | None = None, *, every: bool = True
    ) -> Instruments:
        """Return every listed instrument in listing order, or those that have not expired."""
        listed = self._feed.instruments.by_id.values()
        return Instruments(
            sequence=sequence,
            instruments=[
                instrument.describe()
                for instrument in listed
                if every or instrument.state != TradingState.EXPIRED
            ],
            request_id=request_id,
        )

    def required(self, account: Account, exposures: dict[int, Exposure]) -> int:
        """Return the account's requirement in micro-dollars."""
        hold = sum(self._accounts.hold(*item) for item in exposures.items())
        gain = sum(self._accounts.unrealized(*item) for item in exposures.items())
        return hold - self._accounts.credit(exposures) + max(0, -gain)

    def _spend(self, number: int) -> None:
        """Count the orders that a query reads; raises Refused above the account's limit."""
        cost = len(self._accounts.by_id[number].orders)
        self._flood.count(str(number), ORDERS_A_SECOND, cost)

    def account(self, number: int, sequence: int, request_id: str) -> AccountReport:
        """Return an account's money and positions, computed at most once per batch.

        Raises Refused if the account's queries read too many orders.
        """
        if sequence != self._known_at:
            self._known_at = sequence
            self._known.clear()
        known = self._known.get(number)
        if known is None:
            self._spend(number)
            known = self._known[number] = self._report(number, sequence)
        return replace(known, request_id=request_id)

    def _report(self, number: int, sequence: int) -> AccountReport:
        account = self._accounts.by_id[number]
        exposures = self._accounts.exposures(account)
        required = self.required(account, exposures)
        return AccountReport(
            request_id="",
            account=number,
            sequence=sequence,
            time=self._feed.time,
            cash=micros_text(account.cash),
            required=micros_text(required),
            free=micros_text(account.cash - required),
            open_orders=len(account.orders),
            positions=[self._position(*item) for item in sorted(exposures.items())],
            killed=self._accounts.is_killed(account),
            member=account.member,
            self_trade_group=account.group,
            tokens=account.bucket.left(self._feed.time),
            burst=account.bucket.burst,
            interval_ns=account.bucket.interval,
            credit=micros_text(self._accounts.credit(exposures)),
        )

    def _position(self, number: int, exposure: Exposure) -> PositionReport:
        return PositionReport(
            instrument=self._feed.instruments.by_id[number].code,
            net=str(exposure.net),
            working_buy=str(exposure.working_buy),
            working_sell=str(exposure.working_sell),
            hold=micros_text(self._accounts.hold(number, exposure)),
            unrealized=micros_text(self._accounts.unrealized(number, exposure)),
        )

    def orders(self, number: int, sequence: int, request_id: str) -> Orders:
        """Return an account's working orders, oldest first; raises Refused as ``account`` does."""
        self._spend(number)
        working = self._accounts.by_id[number].orders.values()
        return Orders(
            request_id=request_id,
            sequence=sequence,
            time=self._feed.time,
            orders=[self._order(order) for order in working],
        )

    def order(self, order: Order | None, sequence: int, request_id: str) -> OrderStatus:
        """Return the state of one order; ``unknown`` for None."""
        if order is None:
            return OrderStatus(
                request_id=request_id, sequence=sequence, time=self._feed.time, state="unknown"
            )
        works = order.id in self._accounts.by_id[order.account].orders
        return OrderStatus(
            request_id=request_id,
            sequence=sequence,
            time=self._feed.time,
            state="working" if works else "ended",
            executed_quantity=str(order.quantity - order.leaves),
            order=self._order(order),
        )

    def _order(self, order: Order) -> WorkingOrder:
        instrument = self._feed.instruments.by_id[order.instrument]
        return WorkingOrder(
            order_id=str(order.id),
            client_order_id=order.text,
            instrument=instrument.code,
            side="sell" if order.sell else "buy",
            price=instrument.price_text(order.price),
            quantity=str(order.quantity),
            leaves_quantity=str(order.leaves),
            time_in_force=TimeInForce(order.tif).name,  # type: ignore[arg-type]
            dormant=order.dormant,
            waiting=order.waiting,
        )
