"""What a method gives back: a result, at once or later, or a wish that the native session carries
out.

``Pending`` pairs the wishes with the native answers, which repeat their ids.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from exchange.gateway.decode import Refused
from exchange.gateway.dialects.deribit import codes
from exchange.gateway.dialects.deribit.rpc import Failure
from exchange.messages.wire import LoggedOn, Rejected, Response
from exchange.messages.wire_base import Request

LOGON = ""  # the id of a logon, whose answers carry none


class Wish(NamedTuple):
    """A native request, the id in its answer, and what makes that the method's result."""

    id: str
    request: Request | None  # None: passed on already
    result: Callable[[Any], Any]


class Later(NamedTuple):
    """A result that must be read from the disk first; ``work`` takes the caller's address."""

    work: Callable[[str], Awaitable[Any]]

    async def done(self, address: str) -> Any:
        """Return the result; raises Failure."""
        try:
            return await self.work(address)
        except Refused as refused:
            raise codes.refused_by(refused) from None


Reply = Callable[[Any], None]  # takes a result or a Failure


class Pending:
    """Wishes that wait for their answers."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Wish, Reply]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, wish: Wish, reply: Reply) -> None:
        """Wait for a wish's answer and reply with what it comes to."""
        self._waiting[wish.id] = wish, reply

    def drop(self, wish: Wish) -> None:
        """Wait no longer."""
        self._waiting.pop(wish.id, None)

    def settle(self, message: Response) -> None:
        """Reply if the message is the answer of a wish."""
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


def _ids(message: Response) -> Iterable[str]:
    if isinstance(message, LoggedOn):
        return (LOGON,)
    named = (getattr(message, name, None) for name in ("request_id", "client_order_id"))
    found = [text for text in named if text]
    if isinstance(message, Rejected) and not found:
        return (LOGON,)
    return found
