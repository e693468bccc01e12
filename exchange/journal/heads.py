"""Signed heads: proof of the log's content, kept where the log's writer cannot rewrite it.

A hash chain alone does not stop somebody who rewrites the whole log. A head kept in a second
directory and signed with Ed25519 does: it states the hash of the frame that ends at a sequence, and
a log with another hash there is refused. Every head carries the hash of the head before it, so that
the last signature covers all of them. Layout and handling of keys: docs/reference/journal.md.
"""

import errno
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.journal.errors import DamagedHead, JournalError
from exchange.journal.frame import NO_HASH, digest
from exchange.journal.head import KnownFrame, Written, check_format
from exchange.journal.places import EXCHANGE_ID_NAME, exchange_of
from exchange.journal.storage import (
    LocalStorage,
    make_directory,
    replace_file,
    sync_directory,
)

SIGNED_FORMAT: Final = 1
KEY_NAME: Final = "head.key"  # beside the log, mode 0600
PUBLIC_NAME: Final = "keys"  # beside the heads
PERIOD_NS: Final = 60_000_000_000  # least distance of two heads, in the log's time
CLOSE_SECONDS_MAX: Final = 10.0  # a directory that does not respond delays the stop by this at most
_log = logging.getLogger(__name__)


class BadKey(JournalError):
    """The signing key, or a public one, cannot be used."""


class HeadsMissing(JournalError):
    """Heads of this exchange were signed before, and are not where they should be."""


class SignedHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last durable frame at some moment. Hashes, key and signature are hex."""

    format: int
    exchange_id: str
    epoch: int
    sequence: int
    frame_hash: str
    stamp: int
    previous: str
    key: str
    signature: str = ""

    def signed_text(self) -> bytes:
        """Return the signed bytes: eight lines of text, so that any tool can verify the
        signature."""
        title, fields = f"hourbook head {self.format}", msgspec.structs.astuple(self)[1:-1]
        return "".join(f"{line}\n" for line in (title, *fields)).encode()


def key_id(public: bytes) -> str:
    """Return the name of a public key: its first eight bytes in hex."""
    return public[:8].hex()


def load_key(path: Path) -> Any:
    """Return the private key at ``path``; create it if there is none. Raises BadKey."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - to sign
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415 - to sign
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )

    if not path.exists():
        made = Ed25519PrivateKey.generate()
        pem = made.private_bytes(
            forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()
        )
        replace_file(path, pem, 0o600)
        return made
    if path.stat().st_mode & 0o077:
        raise BadKey(f"{path} can be read by others: chmod 600 it, or replace it")
    try:
        key = forms.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{path}: {error}: restore it, or delete it to sign with a new one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{path} is no Ed25519 key")
    return key


def _public_key(path: Path) -> Any:
    """Return the public key at ``path``; the file's name must be the key's. Raises BadKey."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - to check
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415 - to check
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    try:
        key = forms.load_pem_public_key(path.read_bytes())
    except FileNotFoundError as error:
        raise BadKey(f"{path}: the public key of a head is missing: restore it") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{path}: {error}: restore the public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadKey(f"{path} is no Ed25519 key")
    if key_id(key.public_bytes(forms.Encoding.Raw, forms.PublicFormat.Raw)) != path.stem:
        raise BadKey(f"{path} is another key than its name says: restore the public key")
    return key


def heads_path(directory: Path, exchange_id: str) -> Path:
    """Return the path of an exchange's heads: a file of one JSON object a line, oldest first."""
    return directory / f"{exchange_id}.jsonl"


def read_heads(directory: Path, exchange_id: str) -> list[SignedHead]:
    """Return the heads of an exchange, verified; empty if there is no file.

    Each head carries the hash of the one before it, so of a run of heads signed by one key only the
    last signature is checked. An incomplete last line is a write that a crash cut short; it is
    ignored. Raises DamagedHead, NewerVersion, BadKey.
    """
    path = heads_path(directory, exchange_id)
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    heads: list[SignedHead] = []
    previous = NO_HASH
    for number, line in enumerate(lines, 1):
        place = f"{path}, line {number}"
        head = _decode(line, place)
        if head.previous != previous.hex():
            raise DamagedHead(f"{place} does not follow the line before: restore it from a copy")
        if head.exchange_id != exchange_id:
            raise DamagedHead(f"{place}: of exchange {head.exchange_id}")
        if heads and heads[-1].key != head.key:
            _check_signature(heads[-1], directory, f"{path}, line {number - 1}")
        heads.append(head)
        previous = digest(line)
    if heads:
        _check_signature(heads[-1], directory, f"{path}, line {len(heads)}")
    return heads


def _decode(line: bytes, place: str) -> SignedHead:
    try:
        check_format(line, SIGNED_FORMAT, Path(place))
        head = msgspec.json.decode(line, type=SignedHead)
        bytes.fromhex(head.frame_hash + head.signature)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DamagedHead(f"{place}: {error}: restore the file from a copy") from error
    if not head.key.isalnum():
        raise DamagedHead(f"{place}: {head.key!r} names no key")
    return head


def _check_signature(head: SignedHead, directory: Path, place: str) -> None:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - to check

    key = _public_key(directory / PUBLIC_NAME / f"{head.key}.pem")
    try:
        key.verify(bytes.fromhex(head.signature), head.signed_text())
    except InvalidSignature as error:
        raise DamagedHead(f"{place}: the signature is not of key {head.key}") from error


def known_frames(directory: Path, exchange_id: str) -> list[KnownFrame]:
    """Return the frames that the signed heads in a directory state for an exchange, as
    KnownFrames."""
    return _known(read_heads(directory, exchange_id), heads_path(directory, exchange_id))


def _known(heads: list[SignedHead], path: Path) -> list[KnownFrame]:
    source = f"the signed head in {path}"
    return [KnownFrame(one.sequence, bytes.fromhex(one.frame_hash), source) for one in heads]


def frames_known_of(directory: Path, heads: Path) -> list[KnownFrame]:
    """Return the frames that the heads in ``heads`` state for the log in ``directory``.

    Raises HeadsMissing if ``heads`` has none of the log's exchange, or nothing says which that is.
    """
    exchange_id = _exchange_in(directory).hex()
    known = known_frames(heads, exchange_id)
    if not known:
        raise HeadsMissing(f"{heads} has no heads of exchange {exchange_id}: nothing is compared")
    return known


def _exchange_in(directory: Path) -> bytes:
    """Return the exchange whose log is in a directory. A log that was removed, or lost its first
    header, does not say: its heads still do, so its file ``exchange.id`` is asked."""
    found = exchange_of(LocalStorage(directory))
    path = directory / EXCHANGE_ID_NAME
    if found is None:
        with suppress(OSError, ValueError):
            found = bytes.fromhex(path.read_text().strip())
    if not found:
        raise HeadsMissing(
            f"neither a frame of the log in {directory} nor {path} says whose heads to compare it"
            " with: restore them from a copy"
        )
    return found


class HeadWriter:
    """Signs a head about every PERIOD_NS, in a thread: neither matching nor the log's disk waits.

    ``failed`` counts heads that could not be written; each is logged, and a later head covers what
    it would have covered. ``signed_upto`` is the last sequence that a head covers.
    """

    def __init__(self, log_directory: Path, directory: Path, exchange_id: bytes) -> None:
        """Verify the existing heads, open the key and start the thread. Raises HeadsMissing,
        BadKey, DamagedHead, OSError."""
        self._exchange_id = exchange_id.hex()
        self._path = heads_path(directory, self._exchange_id)
        key_path = log_directory / KEY_NAME
        if key_path.exists() and not self._path.exists():
            raise HeadsMissing(
                f"{key_path} has signed heads of this exchange, and there is no {self._path}: "
                f"mount that directory, or delete {key_path} to give up what they prove"
            )
        heads = read_heads(directory, self._exchange_id)
        self.known = _known(heads, self._path)
        self.signed_upto = heads[-1].sequence if heads else 0
        self._stamp = heads[-1].stamp if heads else 0  # start of the current period
        self.failed = 0
        make_directory(log_directory)
        self._open(key_path, directory)
        self._next: Written | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="head-writer", daemon=True)
        self._thread.start()

    def _open(self, key_path: Path, directory: Path) -> None:
        """Load the key, write its public half beside the heads, cut off an incomplete last line."""
        make_directory(directory)
        if not self._path.exists():
            self._path.touch()
            sync_directory(directory)
        self._key = load_key(key_path)
        self._key_id = _leave_public(self._key, directory / PUBLIC_NAME)
        lines = self._path.read_bytes().split(b"\n")
        torn = lines.pop()
        self._size = sum(len(line) + 1 for line in lines)
        if torn:
            os.truncate(self._path, self._size)
        self._tried = b""  # a line that failed, of which some may be in the file
        self._previous = digest(lines[-1]) if lines else NO_HASH

    def offer(self, written: Written) -> None:
        """Have this durable frame signed if the last head is at least PERIOD_NS older. Never
        blocks."""
        if not self._stamp:
            self._stamp = written.stamp
        elif written.stamp - self._stamp >= PERIOD_NS:
            self._stamp = written.stamp
            self._put(written)

    def _put(self, written: Written) -> None:
        with self._changed:
            self._next = written
            self._changed.notify()

    def close(self, written: Written | None) -> None:
        """Sign a last head if ``written`` is newer than the last one, and stop the thread."""
        if written is not None:
            self._put(written)
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS_MAX)
        if self._thread.is_alive():
            _log.error("%s does not answer: the last head is not written", self._path)

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._closing:
                    self._changed.wait()
                written, self._next = self._next, None
            if written is None:
                return
            if written.sequence > self.signed_upto:
                self._write(written)

    def _write(self, written: Written) -> None:
        head = SignedHead(
            SIGNED_FORMAT,
            self._exchange_id,
            written.epoch,
            written.sequence,
            written.frame_hash.hex(),
            written.stamp,
            self._previous.hex(),
            self._key_id,
        )
        signature = self._key.sign(head.signed_text()).hex()
        line = msgspec.json.encode(msgspec.structs.replace(head, signature=signature))
        try:
            self._append(line + b"\n")
        except OSError as error:
            self.failed += 1
            _log.error("no signed head at sequence %d: %s", written.sequence, error)
        else:
            self.signed_upto = written.sequence
            self._previous = digest(line)

    def _append(self, line: bytes) -> None:
        """Append durably; on an error remove what was written of the line, if the disk lets it, and
        otherwise before the next one.

        Never creates the file: where its disk is not mounted any more, a new one in the mount point
        would take heads that the real one then lacks, and break its chain.
        """
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            left = os.pread(file, len(self._tried) + 1, self._size)
            if left and self._tried.startswith(left):
                os.ftruncate(file, self._size)
            self._tried, size = line, os.fstat(file).st_size
            try:
                if os.write(file, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file)
            except OSError:
                os.ftruncate(file, size)
                raise
            self._tried, self._size = b"", size + len(line)
        finally:
            os.close(file)


def _leave_public(key: Any, folder: Path) -> str:
    """Write the public key beside the heads if it is not there; return the key's name."""
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415 - to sign

    public = key.public_key()
    name = key_id(public.public_bytes(forms.Encoding.Raw, forms.PublicFormat.Raw))
    path = folder / f"{name}.pem"
    if not path.exists():
        pem = public.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
        LocalStorage(folder).replace(path.name, pem)
    return name
