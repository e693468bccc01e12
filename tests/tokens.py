"""Reads the names in a Cython source, without its comments and strings."""

import re
from collections.abc import Iterator

TOKEN = re.compile(
    r"""(?P<string>\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"|(?P<comment>\#[^\n]*)|(?P<name>[A-Za-z_]\w*)|.",
    re.DOTALL,
)


def names(text: str) -> Iterator[str]:
    """Every identifier and keyword of ``text``; prose does not count."""
    for match in TOKEN.finditer(text):
        if name := match["name"]:
            yield name
