"""Files that appear only when complete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written(file: Path) -> Iterator[Path]:
    """Yield a path beside ``file`` to write to; it is renamed to ``file`` at the end of the block.

    If ``file`` is a device or a pipe, it is written directly, since it must not be replaced. If the
    block raises, nothing appears. Raises OSError if the file cannot be renamed.
    """
    file = file.resolve()  # a link, such as /dev/stdout, means its target
    if file.exists() and not file.is_file():
        yield file
        return
    beside = file.with_name(f"{file.name}.part")
    try:
        yield beside
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
