"""The deferred results of methods: ``Later`` waits first, ``Wish`` sends a native request.

``Pending`` matches wishes with the native answers, which repeat their ids.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from exchange.gateway.decode import Refused
from exchange.gateway.dialects.deribit import codes
from exchange.gateway.dialects.deribit.rpc import Failure
from exchange.messages.wire import AnyCommand, LoggedOn, Rejected, Response
from exchange.messages.wire_base import Request

LOGON = ""  # stands for the id of a logon, whose answers have none


class Wish(NamedTuple):
    """A native request, the id in its answer, and the function from answer to result.

    For a frame of several commands the function takes the list of all answers.
    """

    id: str
    request: Request | Sequence[AnyCommand] | None  # None: already sent
    result: Callable[[Any], Any]


class Later(NamedTuple):
    """A result, or a Wish, that must be waited for: what is on disk, or an order that another
    gateway knows already. ``work`` takes the caller's address."""

    work: Callable[[str], Awaitable[Any]]

    async def done(self, address: str) -> Any:
        """Return the result or the Wish; raises Failure."""
        try:
            return await self.work(address)
        except Refused as refused:
            raise codes.refused_by(refused) from None


Reply = Callable[[Any], None]  # takes a result or a Failure


class Pending:
    """Wishes without an answer yet."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Wish, Reply]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, text: str) -> bool:
        return text in self._waiting

    def add(self, wish: Wish, reply: Reply) -> None:
        """Wait for a wish's answer and call ``reply`` with its result or Failure.

        A wish of several commands fails if one of them is rejected.
        """
        if not isinstance(wish.request, Sequence):
            self._waiting[wish.id] = wish, reply
            return
        ids, answers = _ids_of(wish), list[Any]()

        def gather(answer: Any) -> None:
            answers.append(answer)
            if len(answers) == len(ids):
                failed = [one for one in answers if isinstance(one, Failure)]
                reply(failed[0] if failed else wish.result(answers))

        for text in ids:
            self._waiting[text] = Wish(text, None, lambda answer: answer), gather

    def drop(self, wish: Wish) -> None:
        """Stop waiting for a wish."""
        for text in _ids_of(wish):
            self._waiting.pop(text, None)

    def settle(self, message: Response) -> None:
        """Reply if the message answers a wish."""
        for text in _ids(message):
            found = self._waiting.pop(text, None)
            if found is None:
                continue
            wish, reply = found
            if isinstance(message, Rejected):
                reply(codes.failure(message))
            else:
                try:
                    reply(wish.result(message))
                except Failure as failure:
                    reply(failure)
            return


def _ids_of(wish: Wish) -> list[str]:
    if not isinstance(wish.request, Sequence):
        return [wish.id]
    return [str(key) for one in wish.request for key in _ids(one)]


def _ids(message: Response | Request) -> Iterable[str]:
    if isinstance(message, LoggedOn):
        return (LOGON,)
    named = (getattr(message, name, None) for name in ("request_id", "client_order_id"))
    found = [text for text in named if text]
    if isinstance(message, Rejected) and not found:
        return (LOGON,)
    return found
