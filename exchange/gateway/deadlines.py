"""Dead man's switches: cancel a session's orders unless its client renews the switch in time.

Their state is a function of the log. A client's request becomes a RECORD command; a switch is due
its timeout after the stamp of the latest one. It is thrown when log time reaches that, and done
when the mass cancel with its name is in the log. So a client whose renewal the log has in time is
never cancelled, a gateway that crashes loses no switch, and a market that was down throws the
switches that fell due meanwhile late, and once.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

import msgspec

from exchange.gateway.decode import NO_ID, RECORD, UNSTATED, Refused, checked_id
from exchange.marketdata.stream import Row
from exchange.messages import (
    EVENT,
    EVENT_BYTES,
    HOUSE_ACCOUNT,
    CommandKind,
    EventKind,
    Reason,
    Selection,
)
from exchange.messages.wire import CancelAfter

TIMEOUT_MS_LEAST: Final = 1_000
TIMEOUT_MS_MOST: Final = 3_600_000
SWITCHES: Final = 64  # per account; one more throws the one that is due first
NS_PER_MS: Final = 1_000_000
_KIND: Final = 12  # offset of the kind byte in an event
_RECORDED: Final = int(EventKind.RECORDED)
_DONE: Final = int(EventKind.MASS_CANCELLED)
Texts: TypeAlias = Mapping[int, str] | Iterable[tuple[int, str]]  # by sequence


class Hold(msgspec.Struct, frozen=True, tag_field="operation", tag="cancel_after", kw_only=True):
    """The text of the RECORD command of a ``cancel_after`` request."""

    session: int
    timeout_ms: int  # 0: the switch is removed
    request_id: str

    def due_ms(self, stamp: int) -> int:
        """Return when the switch is due, in ms of log time, for its command's stamp in ns."""
        return stamp // NS_PER_MS + self.timeout_ms


class Switch(NamedTuple):
    """A session's switch; switches are thrown in the order of these fields."""

    due_ms: int
    session: int
    account: int

    @property
    def name(self) -> str:
        """The request id of its mass cancel, and in the reports of that."""
        return f"after.{self.session}.{self.due_ms}"

    @property
    def record(self) -> bytes:
        """The command record of its mass cancel."""
        return cancel_session(self.account, self.session)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Hold).decode


def hold(request: CancelAfter, account: int, session: int) -> tuple[bytes, str]:
    """Return the command record and text that set a session's switch, or remove it.

    Raises Refused for an invalid request id, and PARAMETER_RANGE for a timeout outside 1 s to 1 h.
    """
    checked_id(request.request_id, "request_id")
    timeout_ms = request.timeout_ms
    if timeout_ms and not TIMEOUT_MS_LEAST <= timeout_ms <= TIMEOUT_MS_MOST:
        limit = TIMEOUT_MS_LEAST if timeout_ms < TIMEOUT_MS_LEAST else TIMEOUT_MS_MOST
        observed = str(timeout_ms)
        raise Refused(Reason.PARAMETER_RANGE, "timeout_ms", limit=str(limit), observed=observed)
    said = Hold(session=session, timeout_ms=timeout_ms, request_id=request.request_id)
    record = RECORD.pack(
        CommandKind.RECORD, 0, 0, 0, 0, account, session, 0, 0, 0, 0, 0, NO_ID, NO_ID
    )
    return record, _encode(said).decode()


def read_hold(row: Row, text: str | None) -> Hold | None:
    """Return the switch request of a RECORDED event; None for any other record."""
    if text is None or row[6] == HOUSE_ACCOUNT:
        return None
    try:
        return _decode(text)
    except msgspec.MsgspecError:
        return None  # recorded for an account by a later version or an operator


def request_of(text: str) -> str:
    """Return the id of the request that a switch's text was made from."""
    return _decode(text).request_id


def cancel_session(account: int, session: int) -> bytes:
    """Return the record of a MASS_CANCEL of the orders that an account entered in a session."""
    return RECORD.pack(
        CommandKind.MASS_CANCEL, UNSTATED, Selection.SESSION, 0, 0, account, 0, 0, 0, 0, 0, 0,
        session.to_bytes(16, "little"), NO_ID,
    )  # fmt: skip


class Deadlines:
    """All switches, computed from the released stream.

    ``thrown`` are those that fell due and whose mass cancels are not in the log yet, in order.
    ``first_ms`` is the earliest due time of the others, 0 without any.
    """

    def __init__(self, switches: Iterable[Switch] = (), thrown: Iterable[Switch] = ()) -> None:
        self._set: dict[int, dict[int, Switch]] = {}  # by account, by session
        self.thrown = dict.fromkeys(thrown)
        for one in switches:
            self._set.setdefault(one.account, {})[one.session] = one
        self.first_ms = min((one.due_ms for one in self), default=0)

    def __iter__(self) -> Iterator[Switch]:
        """Iterate over the switches that were not thrown."""
        return (one for of in self._set.values() for one in of.values())

    def advance(self, now_ms: int) -> None:
        """Throw the switches that are due by that time, in ms of log time."""
        if not self.first_ms or now_ms < self.first_ms:
            return
        for one in sorted(one for one in self if one.due_ms <= now_ms):
            self._throw(one)
        self.first_ms = min((one.due_ms for one in self), default=0)

    def take(self, stamp: int, events: bytes, texts: Texts) -> None:
        """Apply a released batch: first its stamp, since due switches precede its commands."""
        self.advance(stamp // NS_PER_MS)
        kinds = events[_KIND::EVENT_BYTES]
        if _RECORDED not in kinds and (_DONE not in kinds or not self.thrown):
            return
        text_of = dict(texts).get
        for row in EVENT.iter_unpack(events):
            text = text_of(row[0])
            if row[2] == _RECORDED and (said := read_hold(row, text)) is not None:
                self._hold(
                    Switch(said.due_ms(stamp), said.session, row[6]), back=not said.timeout_ms
                )
            elif row[2] == _DONE:
                done = next((one for one in self.thrown if one.name == text), None)
                if done is not None and done.account == row[6]:
                    del self.thrown[done]

    def _hold(self, one: Switch, *, back: bool) -> None:
        own = self._set.setdefault(one.account, {})
        own.pop(one.session, None)
        if not back:
            if len(own) >= SWITCHES:
                self._throw(min(own.values()))
            own[one.session] = one
        self.first_ms = min((one.due_ms for one in self), default=0)

    def _throw(self, one: Switch) -> None:
        del self._set[one.account][one.session]
        self.thrown[one] = None
