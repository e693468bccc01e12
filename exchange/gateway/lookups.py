"""One order of an account, asked for by either of its ids.

An order may still be on its way when it is asked for, before the question or beside it. So who
asks for one that is not known has an answer when it is, or after ``WAIT_MS`` that it is not.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from exchange.gateway.accounts import Accounts, Order
from exchange.gateway.decode import Refused, target_of
from exchange.messages.access import GatewayReason
from exchange.messages.wire import QueryOrder

WAIT_MS: Final = 1_000
LOOKUPS: Final = 1_000  # that wait, of all connections

Tell = Callable[[Order | None], None]


class _Waiting(NamedTuple):
    account: int
    request: QueryOrder
    until_ms: int
    tell: Tell


class Lookups:
    """Questions and, of those without an answer yet, who waits for it."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._waiting: list[_Waiting] = []

    def ask(self, request: QueryOrder, account: int, now_ms: int, tell: Tell) -> None:
        """Tell the order, now or once it is known; None if it is not. Raises Refused."""
        target_of(request)
        order = self._find(request, account)
        if order is not None:
            return tell(order)
        if len(self._waiting) >= LOOKUPS:
            why = "orders that are waited for"
            raise Refused(GatewayReason.REQUESTS_FULL, None, why, limit=str(LOOKUPS))
        self._waiting.append(_Waiting(account, request, now_ms + WAIT_MS, tell))

    def release(self, now_ms: int) -> None:
        """Answer what is known by now, and what has waited long enough."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            order = self._find(one.request, one.account)
            if order is not None or now_ms >= one.until_ms:
                one.tell(order)
            else:
                self._waiting.append(one)

    def _find(self, request: QueryOrder, account: int) -> Order | None:
        accounts = self._accounts
        if request.client_order_id is not None:
            order_id = accounts.by_id[account].ids.get(request.client_order_id, -1)
        else:
            order_id = int(request.order_id or 0)
        order = accounts.known(order_id)
        return order if order is not None and order.account == account else None

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)
