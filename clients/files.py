"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written(file: Path) -> Iterator[Path]:
    """Where to write a result: beside ``file``, which appears only when all of it is there.

    What is there and is no file, as a device or a pipe, is written itself: it must not be replaced.
    Raises OSError where it cannot be put in its place.
    """
    file = file.resolve()  # what a link names, /dev/stdout say, is meant
    if file.exists() and not file.is_file():
        yield file
        return
    beside = file.with_name(f"{file.name}.part")
    try:
        yield beside
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
