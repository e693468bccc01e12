"""Build ``hourbook_flash1.so``: ``python -m benches.flash1.build [FOLDER]``.

The library refers to the checkout and the Python that built it; both must stay in place.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CHECKOUT: Final = HERE.parents[1]
NAME: Final = "hourbook_flash1"


def build(folder: Path) -> Path:
    """Compile into ``folder``; return the library's path; raise CalledProcessError on failure."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{NAME}.c"
    cython = [sys.executable, "-m", "cython", "-3", "-I", str(CHECKOUT)]
    options = ["-X", "boundscheck=False", "-X", "cdivision=True", "-X", "wraparound=False"]
    pyx = folder / f"{NAME}.pyx"
    shutil.copy(HERE / f"{NAME}.pyx", pyx)
    subprocess.run([*cython, *options, str(pyx), "-o", str(source)], check=True)
    library = folder / f"{NAME}.so"
    facts = {
        "HOURBOOK_PYTHON": sys.executable,
        "HOURBOOK_CHECKOUT": str(CHECKOUT),
        "HOURBOOK_FOLDER": str(folder.resolve()),
        "HOURBOOK_LIBPYTHON": sysconfig.get_config_var("INSTSONAME"),
    }
    subprocess.run(
        [
            "gcc", "-O3", "-fPIC", "-shared", "-fno-semantic-interposition",
            *(f'-D{name}="{value}"' for name, value in facts.items()),
            f"-I{sysconfig.get_path('include')}",
            str(source), str(HERE / "start.c"),
            f"-L{sysconfig.get_config_var('LIBDIR')}",
            f"-Wl,-rpath,{sysconfig.get_config_var('LIBDIR')}",
            f"-lpython{sysconfig.get_config_var('LDVERSION')}", "-ldl",
            "-o", str(library),
        ],
        check=True,
    )  # fmt: skip
    return library


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "build" / "flash1"))
