"""The identity of an exchange: ``DIR/exchange.id``, created once and in every frame of its log."""

import secrets
from pathlib import Path

from exchange.journal.errors import JournalError
from exchange.journal.frame import EXCHANGE_ID_BYTES
from exchange.journal.places import EXCHANGE_ID_NAME, exchange_of
from exchange.journal.storage import LocalStorage


class BadExchangeId(JournalError):
    """The file holds no identity; or it is missing although there is a log."""

    def __init__(self, path: Path, own: bytes | None = None) -> None:
        what = f"does not hold {EXCHANGE_ID_BYTES} bytes in hexadecimal"
        todo = "put the market's own back, or delete it where there is no log yet"
        if own is not None:
            what = f"is not there, and the log is of exchange {own.hex()}"
            todo = "if that is this market, put it back"
        super().__init__(f"{path} {what}: {todo}")


def exchange_id(directory: Path) -> bytes:
    """Return the identity of the exchange in ``directory``; create it at the first start.

    Raises BadExchangeId, also for a log without the file; when it is created DirectoryLocked and
    ReadOnlyDirectory as well.
    """
    path = directory / EXCHANGE_ID_NAME
    if path.exists():
        return _read(path)
    storage = LocalStorage(directory)
    lock = storage.lock()  # of two first starts only one creates it
    try:
        if not path.exists():
            if (own := exchange_of(storage)) is not None:
                raise BadExchangeId(path, own)
            made = secrets.token_bytes(EXCHANGE_ID_BYTES)
            storage.replace(EXCHANGE_ID_NAME, made.hex().encode() + b"\n")
        return _read(path)
    finally:
        lock.close()


def _read(path: Path) -> bytes:
    try:
        found = bytes.fromhex(path.read_text().strip())
    except ValueError:
        raise BadExchangeId(path) from None
    if len(found) != EXCHANGE_ID_BYTES:
        raise BadExchangeId(path)
    return found
