"""What a method gives back: a result, at once or later, or a wish that the native session carries
out.

``Pending`` pairs the wishes with the native answers, which repeat their ids.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from exchange.gateway.decode import Refused
from exchange.gateway.dialects.deribit import codes
from exchange.gateway.dialects.deribit.rpc import Failure
from exchange.messages.wire import AnyCommand, LoggedOn, Rejected, Response
from exchange.messages.wire_base import Request

LOGON = ""  # the id of a logon, whose answers carry none


class Wish(NamedTuple):
    """A native request, the id in its answer, and what makes that the method's result.

    Of several commands, a frame of them, the result is made of all their answers.
    """

    id: str
    request: Request | Sequence[AnyCommand] | None  # None: passed on already
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

    def __contains__(self, text: str) -> bool:
        return text in self._waiting

    def add(self, wish: Wish, reply: Reply) -> None:
        """Wait for a wish's answer and reply with what it comes to; one of several commands has
        failed if one of them has."""
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
        """Wait no longer."""
        for text in _ids_of(wish):
            self._waiting.pop(text, None)

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
