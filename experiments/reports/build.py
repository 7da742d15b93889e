"""The page of any folder of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastune.experiments.runs.run_folder import kind_of
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from elastune.experiments.reports.page import Page
    from elastune.experiments.reports.what_if import WhatIf


KINDS = ("simulated run", "real run", "sweep", "comparison", "recommendation")
"""What a report can be of."""


def report_of(tried: WhatIf) -> Page:
    """The page of a folder.

    Args:
        tried: the folder, of `run`, `sweep`, `compare -o` or `recommend -o`, and how larger limits are tried.

    Raises:
        InputError: it is no such folder, or a file in it is missing or damaged.
    """
    folder = tried.folder
    kind = require_readable(folder)
    if kind in ("simulated run", "real run"):
        from elastune.experiments.reports.of_run import RecordedRun, run_page

        run = RecordedRun.read(folder)
        return run_page(run, tried.section([run.spec]), run.spec.notes())
    if kind == "comparison":
        from elastune.experiments.reports.of_comparison import comparison_page

        return comparison_page(folder, tried)
    if kind == "recommendation":
        from elastune.experiments.reports.of_recommendation import recommendation_page

        return recommendation_page(folder, tried)
    from elastune.experiments.reports.of_sweep import sweep_page

    return sweep_page(folder)


def require_readable(folder: Path) -> str:
    """The kind of a folder that a report can be of.

    Raises:
        InputError: it is another.
    """
    made_by = "a report is of a folder that elastune run, sweep, compare -o or recommend -o wrote"
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is a file' if folder.exists() else 'is not there'}; {made_by}")
    kind = kind_of(folder)
    if kind not in KINDS:
        raise InputError(f"{folder}: holds {f'a {kind}' if kind else 'no results'}; {made_by}")
    return kind
