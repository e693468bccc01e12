"""Small file systems that really fill up, or really turn read-only."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NO_DISK = "only root may mount a small disk, and only outside a locked container"


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of that size (as in ``2m``) at ``place``; skips where none can be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(NO_DISK)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Fill a disk to its last byte; return the file to delete when there shall be room again."""
    ballast = place / "ballast"
    with open(ballast, "ab", buffering=0) as file:
        try:
            while file.write(bytes(4_096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return ballast


def remount(place: Path, *, read_only: bool) -> None:
    """Turn a mounted disk read-only, or back."""
    how = "ro" if read_only else "rw"
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)
