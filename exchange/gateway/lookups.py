"""One order of an account, asked for by either of its ids.

An order may still be on its way when it is asked for, before the question or beside it. So who
asks for one that is not known has an answer when it is, or after ``WAIT_MS`` that it is not.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

from exchange.gateway.accounts import Accounts, Order
from exchange.gateway.decode import Refused, target_of
from exchange.messages.access import GatewayReason
from exchange.messages.wire import QueryOrder

WAIT_MS: Final = 1_000
LOOKUPS: Final = 1_000  # that wait, of all accounts
ACCOUNT_LOOKUPS: Final = 100  # of one

Tell = Callable[[Order | None], None]


class _Waiting:
    """A question without an answer yet."""

    def __init__(self, account: int, request: QueryOrder, until_ms: int, tell: Tell) -> None:
        self.account, self.request = account, request
        self.until_ms = until_ms
        self.tell: Tell | None = tell  # None once it has its answer


class Lookups:
    """Questions and, of those without an answer yet, who waits for it."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._waiting: deque[_Waiting] = deque()  # the longest first
        self._by_text: dict[str, list[_Waiting]] = {}  # those who named a client order id
        self._unanswered: Counter[int] = Counter()  # by account

    def ask(self, request: QueryOrder, account: int, now_ms: int, tell: Tell) -> None:
        """Tell the order, now or once it is known; None if it is not. Raises Refused."""
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
        """Answer who waits for one of those commands, the texts of a batch, if that is known."""
        for text in texts:
            if text in self._by_text:
                waiting = self._by_text.pop(text)
                left = [one for one in waiting if not self._answer(one)]
                if left:  # another account's order, or a reject
                    self._by_text[text] = left

    def expire(self, now_ms: int) -> None:
        """Answer who has waited long enough."""
        while self._waiting and self._waiting[0].until_ms <= now_ms:
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
        """Tell the order if it is known by now; return whether."""
        order = self._find(one.request, one.account)
        if order is None or one.tell is None:
            return False
        self._end(one, order)
        return True

    def _end(self, one: _Waiting, order: Order | None) -> None:
        """Give a question its answer; it is waited for no longer."""
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
        """Whether anybody waits."""
        return bool(self._waiting)
