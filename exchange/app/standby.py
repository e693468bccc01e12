"""A shadow that also keeps the state of gateway and desk, so that a start need not rebuild it.

DIR/snapshots/SEQUENCE-SOURCES.hbv beside a snapshot of the same point: the gateway's View, usable
only by a build of the same sources. Without one the stream is read from its beginning.
"""

import logging
from pathlib import Path
from typing import Final

import msgspec

from exchange.gateway.view import View, sources
from exchange.journal import sealed
from exchange.journal.errors import NoSuchPosition
from exchange.journal.frame import HASH_BYTES, Frame, unpack_texts
from exchange.journal.shadow import Shadow
from exchange.journal.snapshots import Engine
from exchange.journal.storage import Storage
from exchange.journal.tape import START, Reel, Tape

KIND: Final = "hbv"
_log = logging.getLogger(__name__)


class Standby(Shadow):
    """A Shadow with a View beside its engine, both at the same point.

    ``view`` is None if there is neither a View of the snapshot started from nor a tape to build it
    from: snapshots are then taken without one.
    """

    def __init__(self, directory: Path, engine: Engine, *, fresh: bool = False) -> None:
        """As ``Shadow``; a missing View is built from the tape."""
        super().__init__(directory, engine, fresh=fresh)
        self.view: View | None = View()
        if self.point.sequence:
            self.view = _view_at(self.storage, self.point.sequence) or self._from_tape()

    def _from_tape(self) -> View | None:
        assert self.found.file is not None and self.exchange_id is not None
        try:
            sealed.check_tape(self.directory, self.found.file, self.exchange_id, self.point)
        except sealed.OtherTape as behind:
            _log.warning("snapshots are taken without what gateway and desk know: %s", behind)
            return None
        view = View()
        for one in Tape(self.directory, self.exchange_id, self.point).read(*START):
            view.take(one.epoch, one.stamp, one.events, dict(one.texts))
        return view

    def _apply(self, frame: Frame) -> bytes:
        events = super()._apply(frame)
        if self.view is not None:
            texts = dict(unpack_texts(frame.texts))
            self.view.take(frame.opening.epoch, frame.opening.stamp, events, texts)
        return events

    def write(self, *, keep: int = sealed.KEEP, prove: Engine | None = None) -> sealed.Header:
        """As ``Shadow.write``, with the View first, so that every snapshot has one."""
        if self.view is not None:
            assert self.exchange_id is not None
            self._make_durable()
            facts = sealed.Facts(self.point, self.exchange_id, bytes(HASH_BYTES))
            sealed.write_sealed(self.storage, KIND, sources(), facts, self.view.pack(), keep=keep)
        return super().write(keep=keep, prove=prove)


def _load(storage: Storage, name: str) -> View:
    """Return the View in a file. Raises sealed.Refused."""
    header = sealed.read_header(storage, name)
    sealed.check_kin(header, sources(), None)
    header, point, body = sealed.load(storage, name)
    sealed.check_log(storage, header, point)
    try:
        view = View.unpack(body)
    except msgspec.MsgspecError as error:
        raise sealed.OtherState(header.file, str(error)) from error
    if view.position != (point.epoch, point.sequence, point.last_index):
        raise sealed.OtherState(header.file, f"it stands at {view.position}")
    return view


def _view_at(storage: Storage, sequence: int) -> View | None:
    name = sealed.file_name(sequence, sources(), KIND)
    try:
        return _load(storage, name)
    except FileNotFoundError:
        return None
    except sealed.Refused as refused:
        _log.warning("passed over: %s", refused)
        return None


def view_reason(storage: Storage, sequence: int) -> str:
    """Return why a start could not use the View at a sequence; empty if it could."""
    try:
        _load(storage, sealed.file_name(sequence, sources(), KIND))
    except FileNotFoundError:
        return "absent"
    except sealed.Refused as refused:
        return refused.name
    return ""


def recover_view(storage: Storage, tape: Reel) -> View | None:
    """Return the newest View that is intact, of this build and of this tape; None if there is none.

    Each one skipped is logged.
    """
    for _, _, name in sealed.list_files(storage, KIND):
        try:
            view = _load(storage, name)
            next(tape.read(*view.position), None)
        except (sealed.Refused, NoSuchPosition) as refused:
            _log.warning("passed over: %s", refused)
        except FileNotFoundError:
            _log.warning("passed over: %s: gone: deleted meanwhile", storage.where(name))
        else:
            return view
    return None
