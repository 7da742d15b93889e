"""The page of any folder of results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.experiments.reports.page import Page, PageSection
from elastune.experiments.reports.what_if import what_if
from elastune.experiments.runs.journals import with_named_policy
from elastune.experiments.runs.run_folder import kind_of
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from elastune.experiments.spec.run import RunSpec

KINDS = ("simulated run", "real run", "sweep", "comparison", "recommendation")
"""What a report can be of."""


@dataclass(frozen=True)
class WhatIf:
    """How limits that are a tenth larger are tried.

    Attributes:
        folder: that the report is of.
        seeds: that they are simulated on; 0 leaves it out.
        jobs: processes.
        named: the code of a policy that does not ship, which may be run: `file.py:Name` or `module:Name`.
        on_progress: called with the runs that are done and that there are.
    """

    folder: Path
    seeds: int
    jobs: int
    named: str | None = None
    on_progress: Callable[[int, int], None] = lambda _done, _total: None

    def section(self, specs: Sequence[RunSpec], seeds: Sequence[int] | None = None) -> list[PageSection]:
        """What T + 10 % or B + 10 % would change; nothing where no seeds are asked for, or there are no limits.

        Args:
            specs: of the policies.
            seeds: those to use, as far as they are asked for; by default from the first spec's on.
        """
        if not self.seeds or not specs:
            return []
        first = specs[0].seed
        chosen = tuple(seeds or range(first, first + self.seeds))[: self.seeds]
        title = "What a tenth more time or money would change"
        try:
            may_run = [self._may_run(spec) for spec in specs]
            table, sentences = what_if(may_run, chosen, jobs=self.jobs, on_progress=self.on_progress)
        except InputError as error:
            return [PageSection(title, [f"It cannot be simulated: {error}."])]
        return [PageSection(title, sentences, [table])] if table is not None else []

    def _may_run(self, spec: RunSpec) -> RunSpec:
        """The spec with the code that the user has named, where it needs some: a folder does not make code run.

        Raises:
            InputError: it needs a name, or real workers, or its bundle is not here.
        """
        may_run = with_named_policy(spec, self.named, self.folder) if spec.policy.needs_naming else spec
        may_run.require_simulable()
        may_run.bundle()
        return may_run


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
