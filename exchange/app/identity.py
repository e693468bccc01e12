"""The identity of an exchange: ``DIR/exchange.id``, made once, in every frame of its log."""

import secrets
from pathlib import Path
from typing import Final

from exchange.journal.errors import JournalError
from exchange.journal.frame import EXCHANGE_ID_BYTES
from exchange.journal.storage import LocalStorage

EXCHANGE_ID_NAME: Final = "exchange.id"


class BadExchangeId(JournalError):
    """The file is there and holds no identity."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} does not hold {EXCHANGE_ID_BYTES} bytes in hexadecimal: put the market's own"
            " back, or delete it where there is no log yet"
        )


def exchange_id(directory: Path) -> bytes:
    """The identity of the exchange whose log is in ``directory``; made at its first start.

    Raises BadExchangeId; where it is to be made DirectoryLocked and ReadOnlyDirectory too.
    """
    path = directory / EXCHANGE_ID_NAME
    if path.exists():
        return _read(path)
    storage = LocalStorage(directory)
    lock = storage.lock()  # of two first starts one makes it
    try:
        if not path.exists():
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
