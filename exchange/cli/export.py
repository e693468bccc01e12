"""Writers of an exported log: JSON lines, and Parquet with the optional ``pyarrow``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.cli.output import Exit, fail, written
from exchange.history.table import COLUMNS, SCHEMA, Columns

ROWS: Final = 131_072  # rows per write, and per Parquet row group
SUFFIXES: Final = (".jsonl", ".parquet")

Write = Callable[[Columns], None]
_Row = msgspec.defstruct(
    "Row", [(column.name, Any, None) for column in COLUMNS], omit_defaults=True, gc=False
)


@contextmanager
def exporting(path: Path) -> Iterator[Write]:
    """Yield a writer of columns of rows into ``path``; the suffix gives the format.

    The file gets its name only when it is complete. Fails if it cannot be written.
    """
    if path.suffix not in SUFFIXES:
        fail(f"{path}: write to a file that ends in {' or '.join(SUFFIXES)}", Exit.USAGE)
    writer = _json_lines if path.suffix == ".jsonl" else _parquet
    with written(path) as place, writer(place) as write:
        gathered: Columns = [[] for _ in COLUMNS]

        def gather(columns: Columns) -> None:
            for have, more in zip(gathered, columns, strict=True):
                have += more
            if len(gathered[0]) >= ROWS:
                write(gathered)
                for have in gathered:
                    have.clear()

        yield gather
        if gathered[0]:
            write(gathered)


@contextmanager
def _json_lines(path: Path) -> Iterator[Write]:
    encode = msgspec.json.Encoder().encode_lines
    with open(path, "wb") as file:

        def write(columns: Columns) -> None:
            file.write(encode([_Row(*row) for row in zip(*columns, strict=True)]))

        yield write


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional dependency, for Parquet only
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        fail(
            "Parquet needs pyarrow: `pip install 'hourbook[export]'`; .jsonl needs nothing",
            Exit.USAGE,
        )
    types = {
        "u8": pa.uint8(),
        "u16": pa.uint16(),
        "u32": pa.uint32(),
        "u64": pa.uint64(),
        "i64": pa.int64(),
        "text": pa.string(),
        "name": pa.dictionary(pa.int32(), pa.string()),
    }
    metadata = {"hourbook.export.schema": str(SCHEMA)}
    schema = pa.schema([(c.name, types[c.type]) for c in COLUMNS], metadata=metadata)
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:

        def write(columns: Columns) -> None:
            arrays = [
                pa.array(values, pa.string()).dictionary_encode()
                if column.type == "name"
                else pa.array(values, types[column.type])
                for column, values in zip(COLUMNS, columns, strict=True)
            ]
            file.write_table(pa.table(arrays, schema=schema))

        yield write
