"""How do I record the market's data, to run my bots on it later?

    python -m clients.bots.recorder --key KEY.json H100Z26 H100F27 --file day.parquet

Every message of the channels ``depth``, ``trades`` and ``state`` becomes a row of a Parquet file:
the whole message, and columns for the fields used most. The file gets its name only when it is
complete. Reading and writing need pyarrow: ``pip install 'hourbook[export]'``.
"""

import argparse
import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from clients.aio import AsyncClient
from clients.bots import options
from clients.errors import HourbookError, ValueRefused
from clients.events import Disconnected
from clients.files import written
from exchange.messages.wire import (
    AuctionResult,
    DepthDelta,
    DepthSnapshot,
    IndicativePrice,
    Instruments,
    InstrumentState,
    PublicCorrection,
    PublicTrade,
    PublicTransfer,
)

CHANNELS: Final = ("state", "depth", "trades")
ROWS: Final = 10_000  # rows per write, and per row group
SCHEMA: Final = 1
SCHEMA_NAME: Final = "hourbook.tape.schema"
COLUMNS: Final = {
    "received_ns": "int64",  # on the recorder's clock, nanoseconds since 1970
    "sequence": "int64",  # of the market's log; null for a lost connection
    "type": "string",  # as on the wire; `disconnected` for a lost connection
    "instrument": "string",
    "price": "string",  # of a trade, in dollars per GPU-hour
    "quantity": "int64",  # of a trade, in lots
    "aggressor": "string",  # of a trade; null in an auction
    "message": "string",  # JSON, as on the wire
}
DISCONNECTED: Final = "disconnected"
Message: TypeAlias = (
    DepthSnapshot
    | DepthDelta
    | PublicTrade
    | PublicCorrection
    | PublicTransfer
    | InstrumentState
    | IndicativePrice
    | AuctionResult
    | Instruments
)
Write: TypeAlias = Callable[[list[tuple[Any, ...]]], None]


class Recorded(msgspec.Struct, frozen=True):
    """One row: the time of arrival, and the message; None for a lost connection."""

    received_ns: int
    message: Message | None


def row(received_ns: int, message: Message) -> tuple[Any, ...]:
    """Return the row of a message, in the order of ``COLUMNS``."""
    trade = message if isinstance(message, PublicTrade) else None
    return (
        received_ns,
        message.sequence,
        message.__struct_config__.tag,
        None if isinstance(message, Instruments) else message.instrument,
        trade and trade.price,
        trade and int(trade.quantity),
        trade and trade.aggressor,
        msgspec.json.encode(message).decode(),
    )


async def run(
    client: AsyncClient,
    instruments: Sequence[str],
    path: Path,
    *,
    stop: asyncio.Event,
    # Looked up late, so that a simulation can replace it
    clock_ns: Callable[[], int] = lambda: time.time_ns(),
) -> int:
    """Record until ``stop`` is set; return the number of rows.

    An error that ends the client is raised, after everything before it was written. ValueRefused
    without pyarrow, and for an instrument that is not listed.
    """
    for code in instruments:
        client.book(code)  # ValueRefused if it is not listed
    rows, count = [], 0
    events, failure = client.events(), None
    with writing(path) as write:
        listed = [client.instruments[code] for code in instruments]
        rows.append(row(clock_ns(), Instruments(sequence=0, instruments=listed)))
        await client.subscribe(*(f"{kind}.{code}" for code in instruments for kind in CHANNELS))
        try:
            while (event := await options.next_event(events, stop)) is not None:
                if isinstance(event, Message):
                    rows.append(row(clock_ns(), event))
                elif isinstance(event, Disconnected):
                    rows.append((clock_ns(), None, DISCONNECTED, *[None] * 5))
                if len(rows) >= ROWS:
                    count += len(rows)
                    write(rows)
                    rows = []
        except HourbookError as error:  # what has arrived is kept
            failure = error
        finally:
            events.close()
        write(rows)
    if failure is not None:
        raise failure
    return count + len(rows)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Write]:
    """Yield a writer of rows into ``path``, which gets its name only when complete; a device is
    written directly. ValueRefused if it cannot be written; for a directory before anything is
    recorded."""
    pa, parquet = _pyarrow()
    schema = pa.schema(list(COLUMNS.items()), metadata={SCHEMA_NAME: str(SCHEMA)})
    if path.is_dir():
        raise ValueRefused(f"{path} is a directory: name a file in it")
    with contextlib.ExitStack() as place:
        with _named(path):
            beside = place.enter_context(written(path))
            file = parquet.ParquetWriter(beside, schema, compression="zstd")

        def write(rows: list[tuple[Any, ...]]) -> None:
            columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
            arrays = [
                pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)
            ]
            with _named(path):
                file.write_table(pa.table(arrays, schema=schema))

        try:
            yield write
            with _named(path):
                file.close()
                place.close()
        finally:
            with contextlib.suppress(OSError):
                file.close()


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn an OSError into ValueRefused with the file's name."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ValueRefused(f"{path} cannot be written: {why}") from None


def span(path: Path) -> tuple[int, int]:
    """Return the times of the first and the last row; (0, 0) for an empty recording. Raises as
    ``read``."""
    times = _open(path).read(columns=["received_ns"]).column(0)
    if times.null_count:
        raise ValueRefused(f"{path} is no recorded tape: a row has no received_ns")
    return (times[0].as_py(), times[-1].as_py()) if len(times) else (0, 0)


def read(path: Path) -> Iterator[Recorded]:
    """Yield the rows of a recording, in order. ValueRefused for a file that is none, and at a row
    that holds no message of this version."""
    decode, number = msgspec.json.Decoder(Message).decode, 0
    for batch in _open(path).iter_batches(ROWS, columns=["received_ns", "message"]):
        columns = batch.to_pydict()
        for received_ns, text in zip(columns["received_ns"], columns["message"], strict=True):
            number += 1
            try:
                message = None if text is None else decode(text)
            except msgspec.MsgspecError as error:
                raise ValueRefused(f"{path}, row {number}: no message: {error}") from None
            yield Recorded(received_ns, message)


def _open(path: Path) -> Any:
    pa, parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueRefused(f"{path} is no recorded tape: {error}") from None
    if (file.schema_arrow.metadata or {}).get(SCHEMA_NAME.encode()) != str(SCHEMA).encode():
        raise ValueRefused(f"{path} is no recorded tape of schema {SCHEMA}")
    kinds = {field.name: str(field.type) for field in file.schema_arrow}
    for name in ("received_ns", "message"):
        if kinds.get(name) != COLUMNS[name]:
            seen = kinds.get(name, "no column")
            raise ValueRefused(f"{path} is no recorded tape: {name} is {COLUMNS[name]}, not {seen}")
    return file


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra: needed for recording only
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise ValueRefused("a tape needs pyarrow: pip install 'hourbook[export]'") from None
    return pa, parquet


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command line's arguments."""
    parser.add_argument("instruments", nargs="+", help="codes such as H100Z26")
    parser.add_argument(
        "--file",
        type=Path,
        default=Path("tape.parquet"),
        help="Parquet file to write (%(default)s)",
    )


async def bot(client: AsyncClient, chosen: argparse.Namespace, stop: asyncio.Event) -> None:
    """Run from the command line, and print the number of rows."""
    count = await run(client, chosen.instruments, chosen.file, stop=stop)
    print(f"{count} rows in {chosen.file}")


if __name__ == "__main__":
    raise SystemExit(options.main("Records a market's public data.", bot, arguments))
