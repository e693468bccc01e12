"""Builds the compiled core, and what of Python is compiled. Everything static is in pyproject.toml.

A `.py` with a `.pxd` beside it is compiled as it stands: the `.pxd` says which of its classes and
names are C's. It means the same uncompiled, where there is no binary beside it.

HOURBOOK_CHECKED=1 builds the same sources with bounds checks and assertions of the core on.
HOURBOOK_WITHOUT_CORE=1 builds nothing: an editable install whose core `make build` compiles.
"""

import os
import platform
import sys
from hashlib import sha256
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
# -fno-wrapv: Python's own flags hide signed overflow from the sanitizer.
CHECKS = ["-O1", "-g", "-fno-wrapv", "-fsanitize=undefined", "-fno-sanitize-recover=undefined"]
# One command is one path through one function: let the compiler put all of it there.
INLINE = {
    "max-inline-insns-single": 4000,
    "max-inline-insns-auto": 2000,
    "inline-unit-growth": 2000,
    "large-function-growth": 4000,
    "large-function-insns": 100_000,
}
# Two fields are stored faster as two words than gathered into a vector first; what buys and sells
# both compute is computed when it is needed, not before their ways part, to wait on the stack.
PLAIN = ["-O3", "-g0", "-fno-semantic-interposition"]
PLAIN += ["-fno-tree-slp-vectorize", "-fno-code-hoisting"]
if sys.platform == "linux" and platform.machine() == "x86_64":
    # Intel's processors from Skylake to Cascade Lake decode a jump anew each time if it touches a
    # boundary of 32 bytes: so their microcode mends an erratum (SKX102).
    PLAIN += ["-Wa,-mbranches-within-32B-boundaries"]
QUIET = ["-Wno-unused-but-set-variable"]  # Cython's own temporaries
SPEED = PLAIN + [flag for name, value in INLINE.items() for flag in ("--param", f"{name}={value}")]
SELDOM = {"check", "image", "snapshot", "flow_records"}  # run once in a while: compiled sooner
LINK = ["-fsanitize=undefined"] if CHECKED else []

# An engine's memory image is read back by a build of the same sources alone: any change of them
# makes another layout, and older snapshots give way to the log.
SOURCES = sorted(Path("exchange/engine").glob("*.p*[dx]"))
LAYOUT = sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]
MACROS = [("HOURBOOK_LAYOUT", f"0x{LAYOUT}ULL"), *([("HOURBOOK_CHECKED", "1")] if CHECKED else [])]

extensions = [
    Extension(
        str(path.with_suffix("")).replace(os.sep, "."),
        [str(path)],
        extra_compile_args=QUIET + (CHECKS if CHECKED else PLAIN if path.stem in SELDOM else SPEED),
        extra_link_args=LINK,
        define_macros=MACROS,
        depends=list(map(str, SOURCES)) if path.stem == "snapshot" else [],
    )
    for path in sorted(Path("exchange").rglob("*.pyx"))
    if os.environ.get("HOURBOOK_WITHOUT_CORE") != "1"
]
# Python's own meaning of an index below zero, of a division and of an annotation.
AS_PYTHON = {"language_level": 3, "annotation_typing": False}
compiled = [
    Extension(
        str(path.with_suffix("")).replace(os.sep, "."),
        [str(path)],
        extra_compile_args=[*QUIET, "-O2", "-g0"],
    )
    for path in sorted(Path("exchange").rglob("*.py"))
    if path.with_suffix(".pxd").exists()
    and not CHECKED  # the checks are the core's: around it Python runs as it is read
    and os.environ.get("HOURBOOK_WITHOUT_CORE") != "1"
]
setup(
    ext_modules=[
        *cythonize(extensions, compiler_directives=DIRECTIVES, annotate=False),
        *cythonize(compiled, compiler_directives=AS_PYTHON, annotate=False),
    ],
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
