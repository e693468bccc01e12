"""Builds the compiled core. Everything static is in pyproject.toml.

HOURBOOK_CHECKED=1 builds the same sources with bounds checks and assertions of the core on.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CHECKED = os.environ.get("HOURBOOK_CHECKED") == "1"
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    "wraparound": False,
    "initializedcheck": CHECKED,
    "cdivision": True,
    "embedsignature": True,
}
FLAGS = (
    ["-O1", "-g", "-fsanitize=undefined", "-fno-sanitize-recover=undefined"]
    if CHECKED
    else ["-O3", "-fno-semantic-interposition"]
)
LINK = ["-fsanitize=undefined"] if CHECKED else []

extensions = [
    Extension(
        str(path.with_suffix("")).replace(os.sep, "."),
        [str(path)],
        extra_compile_args=FLAGS,
        extra_link_args=LINK,
        define_macros=[("HOURBOOK_CHECKED", "1")] if CHECKED else [],
    )
    for path in sorted(Path("exchange").rglob("*.pyx"))
]
setup(ext_modules=cythonize(extensions, compiler_directives=DIRECTIVES, annotate=False))
