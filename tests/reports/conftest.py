"""One folder of each kind, and the page of each."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from report_folders import elastune, write_inputs


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Folders by kind, and the pages of their reports."""
    root, before = tmp_path_factory.mktemp("reports"), Path.cwd()
    os.chdir(root)
    try:
        write_inputs(root)
        told = ("--name", "b", "--direction", "minimize", "--source", "s", "--licence", "l")
        elastune("bundles", "import", "table", "t.csv", *told, "-o", "b")
        elastune("run", "s.yaml", "-o", "run<i>")
        elastune("sweep", "sweep.yaml", "-o", "sweep<i>", "--jobs", 1)
        policies = "seer,sha-fixed,asha-fixed-naive"
        elastune("compare", "s.yaml", "--policies", policies, "--seeds", 4, "--jobs", 1, "-o", "comparison")
        elastune("recommend", "s.yaml", "--policies", policies, "--seeds", 20, "--jobs", 1, "-o", "choice")
        pages = {}
        for kind, folder in {
            "run": "run<i>",
            "sweep": "sweep<i>",
            "comparison": "comparison",
            "choice": "choice",
        }.items():
            pages[kind] = root / f"{kind}.html"
            elastune("report", folder, "-o", pages[kind], "--seeds", 3, "--jobs", 1)
        yield SimpleNamespace(root=root, pages=pages, run=root / "run<i>")
    finally:
        os.chdir(before)
