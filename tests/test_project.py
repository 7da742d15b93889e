"""What the project promises about itself: light imports, notebooks that run, no machine-specific paths."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "ray", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn", "pydantic", "typer")


def test_the_core_imports_nothing_heavy():
    code = f"import sys; from elastune import sim, policies, traces; print([n for n in {HEAVY!r} if n in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert loaded.strip() == "[]"


def test_the_core_works_where_torch_is_not_installed():
    code = "import sys; sys.modules['torch'] = None; from elastune import sim, policies, traces; print(traces.bundle_names())"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "digits-mlp" in names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the kernel's own libraries warn about themselves
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(ROOT)}}).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_tells_and_does_not_define(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not [source for source in cells if source.lstrip().startswith(("def ", "class "))]
