"""Builds the compiled core, and what of Python is compiled. Everything static is in pyproject.toml.

A `.py` with a `.pxd` beside it is compiled as it stands: the `.pxd` says which of its classes and
names are C's. It means the same uncompiled, where there is no binary beside it.

HOURBOOK_CHECKED=1 builds the same sources with bounds checks and assertions of the core on.
HOURBOOK_WITHOUT_CORE=1 builds nothing: an editable install whose core `make build` compiles.
"""

import gzip
import os
import platform
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

# Packing the same files gives the same bytes: the time in an archive is this one, not the clock's
# or a checkout's, unless whoever packs names another.
PACKED_AT = int(os.environ.setdefault("SOURCE_DATE_EPOCH", "1580601600"))  # 2020-02-02

if sys.byteorder != "little" or sys.maxsize < 1 << 62:
    sys.exit("a 64-bit little-endian processor is needed: records are read as they lie in memory")

CHECKED = os.environ.get("HOURBOOK_CHECKED") == "1"
WITHOUT_CORE = os.environ.get("HOURBOOK_WITHOUT_CORE") == "1"
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
# Two fields are stored faster as two words than gathered into a vector first.
PLAIN = ["-O3", "-g0", "-fno-semantic-interposition", "-fno-tree-slp-vectorize"]
# What buys and sells both compute is computed when it is needed, not before their ways part, to
# wait on the stack; they share no ends; registers are given out over the whole function.
GCC_ONLY = ["-fno-code-hoisting", "-fno-tree-tail-merge", "-fira-region=one"]
GCC_ONLY += [f"--param={name}={value}" for name, value in INLINE.items()]
if sys.platform == "linux" and platform.machine() == "x86_64":
    # Intel's processors from Skylake to Cascade Lake decode a jump anew each time if it touches a
    # boundary of 32 bytes: so their microcode mends an erratum (SKX102).
    GCC_ONLY += ["-Wa,-mbranches-within-32B-boundaries"]
SPEED = PLAIN + GCC_ONLY
# Cython's own temporaries, and what is set whenever it is read, of which GCC sees too little.
UNSURE = "-Wno-maybe-uninitialized"
QUIET = ["-Wno-unused-but-set-variable", UNSURE]
# run once in a while: compiled sooner
SELDOM = {"adopt", "check", "image", "snapshot", "flow_records"}
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
    if not WITHOUT_CORE
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
    and not WITHOUT_CORE
]


def nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member of an archive without the owner, the clock and the umask of whoever packs it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = PACKED_AT
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


class Sdist(sdist):
    """The source distribution, the same bytes whoever packs it, when and where."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        """Pack `base_dir`; as `format` there is gzip'd tar alone, which is what an sdist is."""
        path = f"{base_name}.tar.gz"
        with (
            gzip.GzipFile(path, "wb", mtime=PACKED_AT) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(base_dir, filter=nobodys)
        return path


class Build(build_ext):
    """Translates to C once something is compiled: who packs or describes the sources need not."""

    def run(self):
        """Translate what has changed, then compile."""
        for modules, directives in ((extensions, DIRECTIVES), (compiled, AS_PYTHON)):
            made = cythonize(modules, compiler_directives=directives, annotate=False)
            sources = {module.name: module.sources for module in made}
            for module in modules:
                module.sources = sources[module.name]
        super().run()

    def build_extensions(self):
        """Compile, without the options that only GCC knows if it is another compiler."""
        asked = [self.compiler.compiler_so[0], "--version"]
        told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        if "Free Software Foundation" not in told:
            for extension in self.extensions:
                options = extension.extra_compile_args
                extension.extra_compile_args = [
                    one for one in options if one not in (*GCC_ONLY, UNSURE)
                ]
        super().build_extensions()


setup(
    # So an editable install is a line in a path file, and nothing that runs at every start.
    package_dir={"": "."} if WITHOUT_CORE else {},
    cmdclass={"build_ext": Build, "sdist": Sdist},
    ext_modules=[*extensions, *compiled],
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
