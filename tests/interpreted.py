"""Runs from its source what the build compiles of Python, whatever is compiled beside it.

python -c 'import interpreted; interpreted.install(); ...'
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

CHECKOUT: Final = Path(__file__).parents[1]


def compiled_python() -> dict[str, Path]:
    """The sources, by module, that the build compiles as they stand: a ``.pxd`` is beside them."""
    sources = (path.with_suffix(".py") for path in sorted(CHECKOUT.glob("exchange/**/*.pxd")))
    return {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts): path
        for path in sources
        if path.exists()
    }


class _Sources:
    """Finds those modules' sources before anybody finds their binaries."""

    def __init__(self) -> None:
        self._paths = compiled_python()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = self._paths.get(name)
        return None if found is None else spec_from_file_location(name, found)


def install() -> None:
    """Import from sources from now on."""
    sys.meta_path.insert(0, _Sources())
