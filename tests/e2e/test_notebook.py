from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


@pytest.mark.slow  # `.ci/run` runs it
def test_quickstart_runs_from_top_to_bottom_and_is_stored_without_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)

    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert all(cell.execution_count for cell in cells)
    assert any("PRIMARY FOCUS MODEL" in str(cell.outputs) for cell in cells)
    assert (tmp_path / "trained_models" / "quickstart.pth").is_file()
    figures = [output for cell in cells for output in cell.outputs if "image/png" in str(output)]
    assert len(figures) == 1
