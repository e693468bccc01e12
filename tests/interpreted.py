"""Runs from its source what the build compiles of Python, whatever is compiled beside it.

python -c 'import interpreted; interpreted.install(); ...'
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from typing import Any, Final

CHECKOUT: Final = Path(__file__).parents[1]


def compiled_python() -> dict[str, Path]:
    """The sources, by module, that the build compiles as they stand: a ``.pxd`` is beside them."""
    sources = (path.with_suffix(".py") for path in sorted(CHECKOUT.glob("exchange/**/*.pxd")))
    return {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts): path
        for path in sources
        if path.exists()
    }


_sources_first = FileFinder.path_hook(
    (SourceFileLoader, SOURCE_SUFFIXES), (ExtensionFileLoader, EXTENSION_SUFFIXES)
)


def _of_the_checkout(folder: str) -> Any:
    if not Path(folder).is_relative_to(CHECKOUT):
        raise ImportError("another's: it is found as ever")
    return _sources_first(folder)


@contextmanager
def sources() -> Iterator[None]:
    """Import from sources, where there are any, for so long."""
    sys.path_hooks.insert(0, _of_the_checkout)
    sys.path_importer_cache.clear()
    try:
        yield
    finally:
        sys.path_hooks.remove(_of_the_checkout)
        sys.path_importer_cache.clear()
