from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from elastune import traces

PACKAGE = Path(traces.__file__).parent
README = PACKAGE / "README.md"
ROW = re.compile(r"^\| (data/\S+) \|.*\| `([0-9a-f]{64})` \|$", re.MULTILINE)

UNITS = {
    "bundle.yaml": "in the names of its keys",
    "configs.csv": "hyperparameters; relative_cost over the mean",
    "curves.parquet": "scores as bundle.yaml says; seconds",
    "scaling.csv": "speed-up over one GPU",
}


def shipped_digests():
    # A measurement that is still going on keeps its parts in a hidden folder, which does not ship.
    found = sorted((PACKAGE / "data").rglob("*"))
    files = [path for path in found if path.is_file() and "/." not in path.relative_to(PACKAGE).as_posix()]
    return {path.relative_to(PACKAGE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def row_of(path, digest):
    """The row to paste into the README; for a table that is no bundle, four cells are left to be written."""
    told = ["...", "...", "...", "..."]
    if path.startswith("data/bundles/"):
        bundle = traces.load_bundle((PACKAGE / path).parent)
        told = [bundle.source, bundle.licence, UNITS[Path(path).name], f"`provenance` in {bundle.name}/bundle.yaml"]
    return f"| {path} | {' | '.join(told)} | `{digest}` |"


def test_every_shipped_file_has_its_row_with_its_digest():
    listed = dict(ROW.findall(README.read_text(encoding="utf-8")))
    shipped = shipped_digests()
    stale = [row_of(path, digest) for path, digest in shipped.items() if listed.get(path) != digest]
    assert not stale, "traces/README.md needs these rows:\n" + "\n".join(stale)
    assert set(listed) == set(shipped)


def test_the_readme_says_that_cpu_cores_supply_no_gpu_scaling():
    text = " ".join(README.read_text(encoding="utf-8").split())
    assert "Two CPU cores cannot supply GPU scaling" in text
    assert "taken from another table are `assumed`" in text


def test_every_row_of_the_shipped_tables_names_its_source():
    from elastune.traces.formats.csv_rows import read_rows

    for table in ("scaling.csv", "instance_types.csv"):
        for row in read_rows(PACKAGE / "data" / table, ("name", "source")):
            assert len(row.text("source")) > 20


def test_the_public_names_are_those_that_are_exported():
    assert sorted(traces.__all__) == traces.__all__
    assert all(hasattr(traces, name) for name in traces.__all__)


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"pandas", "pyarrow", "yaml", "scipy", "torch", "simpy"}
    code = f"import sys, elastune.traces; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
