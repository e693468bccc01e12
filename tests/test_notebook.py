"""The notebook of the documentation runs from its first cell to its last in a kernel of its own,
against the sandbox that it starts. Budget: 15 seconds, of which 6 are spent listening."""

import os
from pathlib import Path
from typing import Any, Final

import pytest
from served import CHECKOUT

nbformat = pytest.importorskip("nbformat", reason="pip install 'hourbook[dev]'")
nbclient = pytest.importorskip("nbclient", reason="pip install 'hourbook[dev]'")

PAGE: Final = CHECKOUT / "docs" / "tutorial" / "notebook.ipynb"
CELL_SECONDS: Final = 60


def shown(notebook: Any, kind: str) -> list[str]:
    """What its cells show of a kind, a MIME type or ``text``, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    found = [output.get(kind) or output.get("data", {}).get(kind) for output in outputs]
    return [one for one in found if one]


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):  # nothing of it is to stay behind
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(PAGE, nbformat.NO_CONVERT)
    runner = nbclient.NotebookClient(
        notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(tmp_path)}}
    )
    runner.execute(env=os.environ | {"PYTHONPATH": str(CHECKOUT)})
    said = "".join(shown(notebook, "text"))
    assert "gone ...\n... and back; positions as before: True" in said
    assert said.endswith("ended with 0\n")
    assert len(shown(notebook, "image/png")) == 3


def test_what_is_stored_is_a_whole_run() -> None:
    """So that who reads it without running it sees its pictures."""
    stored = nbformat.read(PAGE, nbformat.NO_CONVERT)
    nbformat.validate(stored)
    assert shown(stored, "text")[-1] == "ended with 0\n"
    assert len(shown(stored, "image/png")) == 3 and not shown(stored, "traceback")
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
