"""Queries for one order of an account, by either of its ids.

The order may have been sent just before, and not released yet. A query for an unknown order
therefore waits until the order is known, or for ``WAIT_MS``, and is then answered as unknown.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

from exchange.gateway.accounts import Accounts, Order
from exchange.gateway.decode import Refused, target_of
from exchange.messages.access import GatewayReason
from exchange.messages.wire import QueryOrder

WAIT_MS: Final = 1_000
LOOKUPS: Final = 1_000  # waiting queries of all accounts
ACCOUNT_LOOKUPS: Final = 100  # waiting queries of one account

Tell = Callable[[Order | None], None]


class _Waiting:
    """A query without an answer yet."""

    def __init__(self, account: int, request: QueryOrder, until_ms: int, tell: Tell) -> None:
        self.account, self.request = account, request
        self.until_ms = until_ms
        self.tell: Tell | None = tell  # None once it is answered


class Lookups:
    """Answers queries for orders, and holds those that wait."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._waiting: deque[_Waiting] = deque()  # the oldest first; also answered ones
        self._by_text: dict[str, list[_Waiting]] = {}  # unanswered, by client order id
        self._unanswered: Counter[int] = Counter()  # by account

    def ask(self, request: QueryOrder, account: int, now_ms: int, tell: Tell) -> None:
        """Call ``tell`` with the order, now or once it is known, or with None after ``WAIT_MS``.

        Raises Refused for an invalid target, and REQUESTS_FULL if too many queries wait.
        """
        target_of(request)
        order = self._find(request, account)
        if order is not None:
            return tell(order)
        waiting = self._unanswered
        for most, now in ((ACCOUNT_LOOKUPS, waiting[account]), (LOOKUPS, waiting.total())):
            if now >= most:
                why = "orders that are waited for"
                raise Refused(GatewayReason.REQUESTS_FULL, None, why, limit=str(most))
        waiting[account] += 1
        one = _Waiting(account, request, now_ms + WAIT_MS, tell)
        self._waiting.append(one)
        if request.client_order_id is not None:
            self._by_text.setdefault(request.client_order_id, []).append(one)

    def release(self, texts: Iterable[str]) -> None:
        """Answer the queries by client order id that a batch made known; ``texts`` are those of
        its commands."""
        for text in texts:
            if text in self._by_text:
                waiting = self._by_text.pop(text)
                left = [one for one in waiting if not self._answer(one)]
                if left:  # the text was of another account's order, or of a reject
                    self._by_text[text] = left

    def expire(self, now_ms: int) -> None:
        """Answer the queries that have waited for ``WAIT_MS``, or whose time of arrival is ahead:
        the clock was put back."""
        while self._waiting and not 0 < self._waiting[0].until_ms - now_ms <= WAIT_MS:
            one = self._waiting.popleft()
            if one.tell is None:
                continue
            self._end(one, self._find(one.request, one.account))
            text = one.request.client_order_id
            if text is not None:
                self._by_text[text].remove(one)
                if not self._by_text[text]:
                    del self._by_text[text]

    def _answer(self, one: _Waiting) -> bool:
        """Answer a query if its order is known now; return whether it was answered."""
        order = self._find(one.request, one.account)
        if order is None or one.tell is None:
            return False
        self._end(one, order)
        return True

    def _end(self, one: _Waiting, order: Order | None) -> None:
        """Answer a query and stop counting it."""
        tell, one.tell = one.tell, None
        self._unanswered[one.account] -= 1
        if not self._unanswered[one.account]:
            del self._unanswered[one.account]
        if tell is not None:
            tell(order)

    def _find(self, request: QueryOrder, account: int) -> Order | None:
        accounts = self._accounts
        if request.client_order_id is not None:
            order_id = accounts.by_id[account].ids.get(request.client_order_id, -1)
        else:
            order_id = int(request.order_id or 0)
        order = accounts.known(order_id)
        return order if order is not None and order.account == account else None

    def __bool__(self) -> bool:
        """Whether any query is held; answered ones are until ``expire``."""
        return bool(self._waiting)
