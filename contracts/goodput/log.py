"""Attestation logs as files: JSON lines in chained and signed segments.

    line       a JSON object as ``msgspec`` encodes it, and a newline; a seal starts {"type":"seal"
    segment    1,000 events or more (fewer only in the last), then its seal
    digest     BLAKE2b-256 (person "hourbook.attest") of the previous digest (32 zero bytes at
               first) and the bytes of the segment's events
    signature  Ed25519, by the key that the first line names, over segment number and digest

A changed bit or a line moved, removed or inserted breaks the chain from that segment on.
"""

import mmap
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from contracts.goodput.events import (
    LINE_BYTES_MAX,
    SCHEMA,
    SEGMENT_EVENTS,
    SEGMENT_EVENTS_MIN,
    Event,
    Open,
    Seal,
)
from contracts.goodput.keys import SEGMENT, SigningKey, verify
from contracts.refusals import UNREADABLE, Refusal, Refused

DIGEST_BYTES: Final = 32
SEGMENT_BYTES_MAX: Final = 1 << 28
_PERSON: Final = b"hourbook.attest"
_SEAL_HEAD: Final = b'{"type":"seal"'

_decode_lines = msgspec.json.Decoder(Event).decode_lines
_decode_event = msgspec.json.Decoder(Event).decode
_decode_seal = msgspec.json.Decoder(Seal).decode
_encode = msgspec.json.Encoder().encode


def chain(before: bytes, content: bytes | memoryview) -> bytes:
    """Return the digest of a segment from the previous digest and the segment's bytes."""
    state = blake2b(before, digest_size=DIGEST_BYTES, person=_PERSON)
    state.update(content)
    return state.digest()


def signed_content(number: int, digest: bytes) -> bytes:
    """Return the content that a segment's signature covers."""
    return number.to_bytes(8, "little") + digest


class Recorder:
    """Writes one log. The first event must be the ``Open`` that names this key.

    ValueError if ``segment_events`` is below ``SEGMENT_EVENTS_MIN``.
    """

    def __init__(
        self, file: BinaryIO, key: SigningKey, *, segment_events: int = SEGMENT_EVENTS
    ) -> None:
        if segment_events < SEGMENT_EVENTS_MIN:
            raise ValueError(f"a segment has at least {SEGMENT_EVENTS_MIN} events")
        self._file, self._key, self._most = file, key, segment_events
        self._lines: list[bytes] = []
        self._number = 0
        self.digest = bytes(DIGEST_BYTES)

    def record(self, event: Event) -> None:
        """Take one event; after every ``segment_events`` of them the segment is sealed and written.

        Raises ValueError if the first event is not an ``Open`` with this key.
        """
        if (
            not self._number
            and not self._lines
            and not (isinstance(event, Open) and event.key == self._key.public)
        ):
            raise ValueError("the first event of a log is the open that names its key")
        self._lines.append(_encode(event))
        if len(self._lines) == self._most:
            self.seal()

    def seal(self) -> None:
        """Write the pending events as a segment. Only a log's last may have fewer than 1,000."""
        content = b"\n".join(self._lines) + b"\n"
        self.digest = chain(self.digest, content)
        signature = self._key.sign(SEGMENT, signed_content(self._number, self.digest))
        seal = Seal(self._number, len(self._lines), self.digest.hex(), signature)
        self._file.write(content + _encode(seal) + b"\n")
        self._number += 1
        self._lines.clear()

    def close(self) -> None:
        """Seal the pending events, if any. The file stays open."""
        if self._lines:
            self.seal()


class Segment(NamedTuple):
    """One verified segment: its first line from 1, its events, the digest in hex."""

    first_line: int
    events: Sequence[Event]
    digest: str


def read(path: Path, *, key: str | None = None) -> Iterator[Segment]:
    """Yield the segments of a log, each verified before it is yielded.

    ``key`` is the public key that the node is registered with (hex); without it the log's own is
    trusted. Raises Refused: SYNTAX, VERSION, TOO_LARGE, UNSIGNED, WRONG_KEY, CHAIN_BROKEN,
    SEGMENT_SHORT, or STATE if the first event is not ``Open``. OSError if it cannot be read.
    """
    if path.stat().st_size == 0:
        raise Refused(Refusal.UNSIGNED, "an empty file attests nothing", where=path.name)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield from _segments(content, path.name, key)


def _segments(content: mmap.mmap, name: str, key: str | None) -> Iterator[Segment]:
    digest, start, line, number = bytes(DIGEST_BYTES), 0, 1, 0
    short: int | None = None  # events of the previous segment, if they were too few
    size = len(content)
    while start < size:
        seal_at, end = _next_seal(content, start, name, line)
        place = f"{name}, segment {number}"
        if seal_at - start > SEGMENT_BYTES_MAX:
            raise Refused(
                Refusal.TOO_LARGE, "seal more often", where=place, limit=SEGMENT_BYTES_MAX
            )
        body = content[start:seal_at]
        events = decode(body, name, line)
        seal = _seal(content[seal_at:end], place)
        if number == 0:
            key = _opened(events, place, key)
        if short is not None:
            raise Refused(
                Refusal.SEGMENT_SHORT,
                "only the last segment may be short",
                where=f"{name}, segment {number - 1}",
                limit=SEGMENT_EVENTS_MIN,
                seen=short,
            )
        digest = chain(digest, body)
        if (seal.segment, seal.events, seal.digest) != (number, len(events), digest.hex()):
            raise Refused(Refusal.CHAIN_BROKEN, "lines were changed after sealing", where=place)
        if key is None or not verify(key, SEGMENT, signed_content(number, digest), seal.signature):
            raise Refused(Refusal.WRONG_KEY, "the signature is not this node's", where=place)
        yield Segment(line, events, seal.digest)
        short = len(events) if len(events) < SEGMENT_EVENTS_MIN else None
        line += len(events) + 1
        start, number = end, number + 1


def _next_seal(content: mmap.mmap, start: int, name: str, line: int) -> tuple[int, int]:
    """The offsets of the next seal and of the line after it."""
    found = start
    if content[start : start + len(_SEAL_HEAD)] != _SEAL_HEAD:
        found = content.find(b"\n" + _SEAL_HEAD, start) + 1
        if found == 0:
            raise Refused(
                Refusal.UNSIGNED, "the lines from here on have no seal", where=f"{name}:{line}"
            )
    end = content.find(b"\n", found) + 1
    if end == 0:
        raise Refused(Refusal.UNSIGNED, "the last seal is cut", where=name)
    return found, end


def decode(body: bytes, name: str, line: int) -> list[Event]:
    """Return the events of whole lines.

    Raises Refused SYNTAX or TOO_LARGE with the first faulty line, counted from ``line``.
    """
    try:
        if len(body) <= LINE_BYTES_MAX:
            return _decode_lines(body)
        _check_lengths(body, name, line)
        return _decode_lines(body)
    except UNREADABLE:
        for offset, text in enumerate(body.split(b"\n")):
            if not text.strip():
                continue
            try:
                _decode_event(text)
            except UNREADABLE as error:
                raise Refused(
                    Refusal.SYNTAX, f"not an event: {error}", where=f"{name}:{line + offset}"
                ) from error
        raise


def _check_lengths(body: bytes, name: str, line: int) -> None:
    for offset, text in enumerate(body.split(b"\n")):
        if len(text) > LINE_BYTES_MAX:
            raise Refused(
                Refusal.TOO_LARGE, "split this line", where=f"{name}:{line + offset}",
                limit=LINE_BYTES_MAX, seen=len(text),
            )  # fmt: skip


def _seal(text: bytes, place: str) -> Seal:
    try:
        return _decode_seal(text)
    except UNREADABLE as error:
        raise Refused(Refusal.SYNTAX, f"not a seal: {error}", where=place) from error


def _opened(events: Sequence[Event], place: str, key: str | None) -> str:
    """Check a log's first event; return the key to verify the log with."""
    first = events[0] if events else None
    if not isinstance(first, Open):
        raise Refused(Refusal.STATE, "the first line must be open", where=place)
    if first.schema != SCHEMA:
        raise Refused(
            Refusal.VERSION,
            "another schema of events",
            where=place,
            limit=SCHEMA,
            seen=first.schema,
        )
    if key is not None and key.lower() != first.key:
        raise Refused(
            Refusal.WRONG_KEY,
            "the node is registered with another key",
            where=place,
            seen=first.key,
        )
    return first.key
