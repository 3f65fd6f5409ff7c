"""The example notebook runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.reviews import ROOT


NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


@pytest.mark.night
def test_the_quickstart_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = ["".join(o["text"] for o in cell.outputs if o.get("name") == "stdout") for cell in cells]
    assert any(text.startswith("delivery {") and "\npayment {" in text for text in printed)
    (accuracy,) = (cell.outputs[-1] for cell in cells if cell.source.endswith('news.metrics["test_accuracy"]'))
    assert float(accuracy["data"]["text/plain"]) > 0.85
