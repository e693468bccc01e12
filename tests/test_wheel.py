"""What is shipped works: the wheel built from the sdist, in a fresh environment, elsewhere.

Budget: 170 seconds, nearly all of them the build's.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path
from typing import Any, Final

import pytest
from test_house import ROOMS

CHECKOUT: Final = Path(__file__).parents[1]
PACKED_AT: Final = "SOURCE_DATE_EPOCH"
LEFT_BEHIND: Final = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "*.so", "*.c", "__pycache__", "market"
)


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", PACKED_AT)}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout if code == 0 else done.stderr


def packed(folder: Path, name: str, copy: Callable[..., Any] = shutil.copy2) -> Path:
    """The source distribution of a clean copy of the checkout, in a folder of that name."""
    shutil.copytree(CHECKOUT, folder / name, ignore=LEFT_BEHIND, copy_function=copy)
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder)
    run(*build, "--sdist", cwd=folder / name)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("sdist"), "checkout")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from what the sdist holds, and from nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder)
    run(*build, "--wheel", cwd=source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's bin folder; its dependencies are those of this environment.

    They are found by a path file, which does not run this environment's own: the checkout stays
    out of sight.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_sdist_holds_sources_and_no_products(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert "exchange/engine/core.pyx" in names
    assert "contracts/data/h100.toml" in names
    assert {"LICENSE", "NOTICE", "CHANGELOG.md", "README.md"} <= set(names)
    assert {"THREAT_MODEL.md", "docs/index.md", "docs/verify_log.py"} <= set(names)  # linked there
    assert [name for name in names if name.startswith("tests/") or "__pycache__" in name] == []
    assert [name for name in names if name.endswith((".so", ".c"))] == []


def test_an_sdist_packed_again_is_the_same_bytes(sdist: Path, tmp_path: Path) -> None:
    """Elsewhere, later, by somebody with another umask."""
    before = os.umask(0o077)
    try:
        again = packed(tmp_path, "another place", shutil.copyfile)
    finally:
        os.umask(before)
    assert again.read_bytes() == sdist.read_bytes()


def test_whose_figures_are_shipped_is_said_with_their_licences(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
    metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["License-Expression"] == "Apache-2.0 AND CC-BY-4.0 AND MIT"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    (shipped,) = [name for name in archive.namelist() if name.endswith("/licenses/NOTICE")]
    notice = " ".join(archive.read(shipped).decode().split())
    of_others = {
        (data, part, table["source"], table["attribution"])
        for data in archive.namelist()
        if data.endswith(".toml")
        for part, table in tomllib.loads(archive.read(data).decode()).items()
        if "attribution" in table
    }
    assert len(of_others) == 4
    for data, part, source, attribution in of_others:
        assert f"{data} [{part}]" in notice
        assert source in notice and attribution.partition(";")[0] in notice
    assert "Permission is hereby granted, free of charge" in notice


def test_the_wheel_holds_the_three_packages_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "clients",
        "contracts",
        "exchange",
    }
    assert {f"{p}/py.typed" for p in ("clients", "contracts", "exchange")} <= set(names)
    assert "exchange/engine/book.pxd" in names
    assert [name for name in names if name.endswith(".c")] == []


def test_every_third_party_import_is_declared(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
    required = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist") or []
    declared = {line.split(">")[0].replace("-", "_") for line in required if "extra" not in line}
    undeclared = {"pyarrow", "torch", "matplotlib"}  # optional extras, imported lazily
    assert set().union(*(packages for _, packages in ROOMS.values())) - undeclared == declared


def test_the_command_works_outside_the_checkout(fresh: Path, tmp_path: Path) -> None:
    hourbook = fresh / "hourbook"
    where = run(fresh / "python", "-c", "import exchange; print(exchange.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(fresh.parent)
    listed = json.loads(run(hourbook, "contracts", "list", "--opened", "--json", cwd=tmp_path))
    assert len(listed) == 48
    run(hourbook, "admin", "deposit", "1", "100", "--data", "market", cwd=tmp_path)
    replayed = json.loads(run(hourbook, "replay", "market", "--verify", "--json", cwd=tmp_path))
    assert replayed["verified"]
    assert replayed["commands"] > 100
    assert "checkout" in run(hourbook, "bench", "core", cwd=tmp_path, code=2)
