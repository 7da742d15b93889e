"""What the project promises about itself: light imports, notebooks that run, no machine-specific paths."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pyarrow as pa
import pytest
from nbclient import NotebookClient
from pyarrow import parquet

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


READERS = {
    "a bundle": "from elastune.traces.bundles.curves import read_curves; read_curves(path, np.arange(2), 2, ())",
    "a file to import": "from elastune.traces.importers.read_table import read_parquet; read_parquet(path)",
    "a table of results": "from elastune.experiments.files import read_table; read_table(path)",
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_arrow_opens_parquet_itself(tmp_path, reader):
    """Where Python had opened it, an Arrow thread that dropped bytes of it while the process ended aborted the process."""
    path = tmp_path / "curves.parquet"
    parquet.write_table(
        pa.table({"trial": [0, 0, 1, 1], "iteration": [1, 2, 1, 2], "score": [0.4, 0.3, 0.2, 0.1]}), path
    )
    code = f"""
import sys
from pathlib import Path
import numpy as np
path, opened = Path({str(path)!r}), []
sys.addaudithook(lambda event, about: opened.append(about[0]) if event == "open" else None)
{reader}
print(str(path) in map(str, opened), len(opened) > 10)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert told.split() == ["False", "True"]  # the second: what Python opens is seen, its modules at least


def test_parquet_is_read_in_no_other_way():
    """pandas opens a file in Python, and `parquet.read_table` takes a file that Python opened."""
    other = re.compile(r"pd\.read_parquet|\b(parquet|pq)\.read_(table|schema)|\.open\(.*ParquetFile")
    code = [*(ROOT / "experiments").rglob("*.py"), *(ROOT / "traces").rglob("*.py")]
    assert len(code) > 100
    assert not [str(path) for path in code if other.search(path.read_text(encoding="utf-8"))]


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
