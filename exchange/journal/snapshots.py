"""Snapshots: the engine's state at a point of the log, so that a start need not replay all of it.

The log stays authoritative: a snapshot is used only if its bytes are unchanged, the frame it names
is in the log, and the restored state has the recorded hash and passed the self-check. Any other is
skipped, with a named reason, for an older one, and at last for the log from its beginning. Rules:
docs/reference/snapshots.md.
"""

import logging
from pathlib import Path
from typing import Final, Protocol

import msgspec

from exchange.journal import replay
from exchange.journal.frame import digest
from exchange.journal.point import Point
from exchange.journal.reader import Start
from exchange.journal.sealed import (
    KEEP,
    PROVEN,
    Facts,
    Header,
    OtherState,
    Refused,
    check_kin,
    check_log,
    check_tape,
    list_files,
    load,
    read_header,
    write_sealed,
)
from exchange.journal.storage import Storage

KIND: Final = "hbs"
_LAYOUT_IN_IMAGE: Final = slice(8, 16)
_log = logging.getLogger(__name__)


class Engine(replay.Engine, Protocol):
    """An engine that can be saved to an image and restored from one."""

    def snapshot(self) -> bytes: ...
    def restore(self, image: bytes | memoryview, /) -> None: ...
    def check(self) -> None: ...


def layout_of(image: bytes | memoryview) -> int:
    """Return the layout id in an engine's image."""
    return int.from_bytes(image[_LAYOUT_IN_IMAGE], "little")


def write(
    storage: Storage,
    engine: Engine,
    point: Point,
    exchange_id: bytes,
    *,
    keep: int = KEEP,
    prove: Engine | None = None,
) -> Header:
    """Write the engine's state at ``point`` durably, and keep the newest ``keep`` snapshots.

    With ``prove``, an empty engine, the image is first restored into it and checked whole. The log,
    and the tape if it is used, must be durable up to the point already. Raises OtherState before
    anything is written; OSError.
    """
    image = engine.snapshot()
    state_hash, flags = digest(engine.state_bytes()), 0
    if prove is not None:
        restore(prove, "the image", state_hash, image, check=True)
        flags = PROVEN
    facts = Facts(point, exchange_id, state_hash, flags)
    return write_sealed(storage, KIND, layout_of(image), facts, image, keep=keep)


def restore(
    engine: Engine, name: str, state_hash: bytes, image: bytes | memoryview, *, check: bool
) -> None:
    """Restore the engine from an image and verify its state hash. Raises OtherState.

    ``name`` names the image in errors. ``check``: run the engine's whole self-check as well.
    """
    try:
        engine.restore(image)
    except ValueError as bad:
        raise OtherState(name, str(bad)) from bad
    found = digest(engine.state_bytes())
    if found != state_hash:
        raise OtherState(name, f"hash {found.hex()}, recorded {state_hash.hex()}")
    if check:
        try:
            engine.check()
        except AssertionError as broken:
            raise OtherState(name, f"the self-check fails: {broken}") from broken


class Passed(msgspec.Struct, frozen=True):
    """A snapshot that recovery skipped, and why."""

    file: str
    reason: str
    why: str


class Found(msgspec.Struct, frozen=True):
    """What recovery starts from: the point of the restored engine, and the snapshots skipped.

    ``file`` is None if the log is to be read from its beginning.
    """

    point: Point
    file: str | None
    passed: list[Passed]
    exchange_id: bytes | None = None

    @property
    def log_start(self) -> Start | None:
        """Where to continue in the log; None for its beginning."""
        point = self.point
        if not point.sequence:
            return None
        return Start(point.sequence, point.frame_hash, point.epoch, point.stamp)


def recover(
    storage: Storage,
    engine: Engine,
    exchange_id: bytes | None = None,
    *,
    tape: Path | None = None,
    until: int | None = None,
) -> Found:
    """Restore the newest snapshot that is intact, of this log and of this build's layout.

    ``engine`` is empty, and stays so if there is none. ``tape`` is the market's directory if its
    released stream must reach the snapshot; ``until`` the last sequence wanted. The self-check is
    skipped for a snapshot that passed it when it was written. Every skipped snapshot is logged.
    Raises only OSError.
    """
    passed: list[Passed] = []
    names = [name for at, _, name in list_files(storage, KIND) if until is None or at <= until]
    empty = engine.snapshot() if names else b""
    for name in names:
        try:
            header = read_header(storage, name)
            check_kin(header, layout_of(empty), exchange_id)
            header, point, image = load(storage, name)
            check_log(storage, header, point)
            if tape is not None:
                check_tape(tape, header.file, header.exchange_id, point)
            proven = bool(header.flags & PROVEN)
            restore(engine, header.file, header.state_hash, image, check=not proven)
        except FileNotFoundError:
            _log.warning("snapshot passed over: %s: gone: deleted meanwhile", storage.where(name))
            passed.append(Passed(name, "gone", "deleted meanwhile"))
        except Refused as refused:
            _log.warning("snapshot passed over: %s", refused)
            passed.append(Passed(name, refused.name, refused.why))
            if isinstance(refused, OtherState):
                engine.restore(memoryview(empty))
        else:
            return Found(point, header.file, passed, header.exchange_id)
    return Found(Point(), None, passed)


class Examined(msgspec.Struct, frozen=True):
    """A snapshot and whether recovery would use it: ``reason`` is empty, or a ``Refused.name``."""

    file: str
    sequence: int
    layout: str
    bytes: int
    stamp: int
    state_hash: str
    reason: str
    why: str


def examine(storage: Storage, engine: Engine) -> list[Examined]:
    """Check all snapshots as recovery would, with the whole self-check; newest first.

    ``engine`` is overwritten: each snapshot is restored into it. The tape is not compared.
    """
    own, found = layout_of(engine.snapshot()), []
    for sequence, layout, name in list_files(storage, KIND):
        stamp, state_hash, reason, why = 0, "", "", ""
        try:
            size = storage.size(name)
            header = read_header(storage, name)
            state_hash = header.state_hash.hex()
            check_kin(header, own, None)
            header, point, image = load(storage, name)
            stamp = point.stamp
            check_log(storage, header, point)
            restore(engine, header.file, header.state_hash, image, check=True)
        except FileNotFoundError:  # deleted since it was listed
            continue
        except Refused as refused:
            reason, why = refused.name, refused.why
        found.append(
            Examined(name, sequence, f"{layout:016x}", size, stamp, state_hash, reason, why)
        )
    return found
