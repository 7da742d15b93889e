"""Tiny literal bundles on disk."""

from __future__ import annotations

import pytest

HEADER = """\
name: toy
direction: minimize
score: validation loss
iteration: one epoch
max_iterations: 3
source: worked out by hand
licence: CC0-1.0
"""
CONFIGS = "trial,lr,optimizer\n0,0.1,sgd\n1,0.2,adam\n"
CURVES = {
    "trial": [0, 0, 0, 1, 1, 1],
    "iteration": [1, 2, 3, 1, 2, 3],
    "score": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
}


@pytest.fixture
def conftest_header():
    """A valid bundle.yaml without any optional key."""
    return HEADER


@pytest.fixture
def write_bundle(tmp_path):
    """Writes a valid bundle of two trials and three iterations, changed as asked; None leaves a file out."""
    import pyarrow as pa
    from pyarrow import parquet

    def write(header=HEADER, configs=CONFIGS, curves=CURVES, scaling=None, name="toy"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file, text in (("bundle.yaml", header), ("configs.csv", configs), ("scaling.csv", scaling)):
            if text is not None:
                (folder / file).write_text(text, encoding="utf-8")
        if curves is not None:
            parquet.write_table(pa.table(curves), folder / "curves.parquet")
        return folder

    return write
