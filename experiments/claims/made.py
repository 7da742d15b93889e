"""Bundles of the catalogue that follow from a formula; they are written when first needed. Imports traces; pandas inside.

They lie beside the results, so that a run of them is a run like any other: named by a folder, known by its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from elastune.sim.model.errors import InvalidTraceError, unknown
from elastune.traces import Bundle, load_bundle
from elastune.traces.bundles.synthetic import hypersched_toy
from elastune.traces.bundles.writer import write_bundle

MADE: Mapping[str, Callable[[], Bundle]] = {"hypersched-toy": lambda: hypersched_toy(1_024, 500)}
"""Builders of the bundles, by name."""


def make_bundle(name: str, folder: Path) -> Path:
    """Write the bundle into the folder unless it is there; returns its path.

    Raises:
        InputError: none of this name is known.
    """
    if name not in MADE:
        raise unknown("bundle that is made from a formula", name, MADE)
    at = folder / name
    if (at / "bundle.yaml").is_file():
        try:
            load_bundle(at)
        except InvalidTraceError:
            pass
        else:
            return at
    _write(MADE[name](), at)
    return at


def _write(bundle: Bundle, at: Path) -> None:
    import pandas as pd

    header = {
        "name": bundle.name,
        "direction": bundle.direction,
        "iteration": bundle.iteration,
        "score": bundle.score,
        "max_iterations": bundle.max_iterations,
        "trials": bundle.trials,
        "iteration_s": bundle.iteration_s,
        "schedule": bundle.schedule,
        "source": bundle.source,
        "licence": bundle.licence,
        "provenance": dict(bundle.provenance),
    }
    trials, steps = bundle.scores.shape
    rows = pd.MultiIndex.from_product([range(trials), range(1, steps + 1)], names=["trial", "iteration"])
    curves = pd.DataFrame({"score": bundle.scores.ravel()}, index=rows).reset_index()
    configurations = pd.DataFrame(list(bundle.configurations)).rename_axis("trial").reset_index()
    write_bundle(at, header, curves, {"configs.csv": configurations}, overwrite=True)
