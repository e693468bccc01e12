"""The Python that the build compiles means the same uncompiled. Budget: 15 seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from interpreted import compiled_python

TESTS = Path(__file__).parent


def ran(place: str) -> Any:
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS)))
    program = f"import contextlib, interpreted\nwith {place}: import retelling; retelling.main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        stdout=subprocess.PIPE,
        check=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    return json.loads(done.stdout)


def binaries() -> list[Path]:
    return [
        binary
        for one in compiled_python().values()
        for binary in one.parent.glob(f"{one.stem}.*.so")
    ]


@pytest.mark.skipif(not binaries(), reason="the core has its checks on: Python runs as it is")
def test_python_that_is_compiled_means_the_same_from_its_source() -> None:
    compiled, source = ran("contextlib.nullcontext()"), ran("interpreted.sources()")
    assert compiled["digests"] == source["digests"]
    assert set(source["files"]) == set(compiled_python())
    assert {Path(file).suffix for file in source["files"].values()} == {".py"}
    assert ".py" not in {Path(file).suffix for file in compiled["files"].values()}
