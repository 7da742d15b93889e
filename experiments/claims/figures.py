"""Draw the figures of claims from their runs and plans.

Imports the figures, the statistics they show, and timelines of journals; pandas and matplotlib inside the functions that need
them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elastune.experiments import figures
from elastune.experiments.claims.plans import ClaimPlans, frontier_of_first, gaps_of, planners_as_policies
from elastune.experiments.claims.rows import BUDGET_MULTIPLE, DEADLINE_MULTIPLE, rows_of
from elastune.experiments.claims.sweeps import BUDGET, DEADLINE, ClaimSweep
from elastune.experiments.figures import tables
from elastune.experiments.runs.timeline import timeline_of, trajectories_of
from elastune.experiments.sweeps.paired import paired_table, profile_table
from elastune.experiments.sweeps.rows import measures
from elastune.experiments.sweeps.store import Store
from elastune.experiments.sweeps.summary import condition, known_column
from elastune.sim.model.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from elastune.experiments.claims.entries import FigureEntry
    from elastune.experiments.claims.trainings import ClaimTrainings


@dataclass(frozen=True, eq=False)
class Source:
    """The data of a figure: the runs of an experiment, by workload, or its plans.

    Attributes:
        drawn: the catalogue's entry.
        sweeps: of the runs, those whose data is there.
        plans: where the experiment is on plans.
        trainings: where it is on trained networks.
    """

    drawn: FigureEntry
    sweeps: Sequence[ClaimSweep] = ()
    plans: ClaimPlans | None = None
    trainings: ClaimTrainings | None = None

    def text(self, name: str, default: str) -> str:
        """An option of the figure."""
        return str(self.drawn.options.get(name, default))

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        """The rows that the figure is drawn from.

        Raises:
            InputError: there are none.
        """
        where, trained = self.drawn.where, self.trainings
        rows = rows_of(self.sweeps, where) if trained is None else trained.chosen(trained.rows(), where)
        if not len(rows):
            raise InputError(f"no row of experiment {self.drawn.experiment} meets the figure's condition")
        return rows

    @property
    def sides(self) -> tuple[str, str]:
        """The columns over which the cells of a heat map lie, and up which."""
        return DEADLINE_MULTIPLE, BUDGET_MULTIPLE

    def folder_of(self, row: pd.Series[Any]) -> Path:
        """The folder of the runs that a row is of."""
        return next(sweep.folder for sweep in self.sweeps if sweep.workload == row["workload"])

    def trajectories(self) -> pd.DataFrame:
        """The trajectories of these rows, from their journals."""
        import pandas as pd

        rows = self.rows
        folders = {sweep.workload: sweep.folder for sweep in self.sweeps}
        parts = [trajectories_of(folders[str(name)], part) for name, part in rows.groupby("workload")]
        return pd.concat(parts, ignore_index=True)

    def planned(self) -> ClaimPlans:
        """The plans.

        Raises:
            InputError: the experiment has runs, no plans.
        """
        if self.plans is None:
            raise InputError(f"{self.drawn.draw} is drawn from plans, but {self.drawn.experiment} has runs")
        return self.plans

    def plan_rows(self) -> pd.DataFrame:
        """The rows of the plans.

        Raises:
            InputError: there are none.
        """
        rows = self.planned().read()
        if not len(rows):
            raise InputError(f"nothing of {self.drawn.experiment} is planned")
        return rows


def check(drawn: FigureEntry) -> None:
    """Check an entry before anything is run.

    Raises:
        InputError: a figure, an option, a measure or a column of its condition is unknown; names the nearest.
    """
    if drawn.draw not in FIGURES:
        raise unknown("figure", drawn.draw, FIGURES)
    options = OPTIONS.get(drawn.draw, ())
    for option in drawn.options:
        if option not in options:
            raise unknown(f"option of {drawn.draw}", option, options)
    if drawn.where is not None and drawn.draw not in ON_TRAININGS:
        condition(drawn.where)
    if drawn.draw in ("sensitivity", "score-grid"):
        known_column(str(drawn.options.get("measure", "regret")), measures())
    if drawn.draw == "sensitivity":
        known_column(str(drawn.options.get("x")))


def draw(source: Source) -> Figure:
    """The figure of an entry that `check` accepts.

    Raises:
        InputError: it cannot be drawn from what is there.
    """
    return FIGURES[source.drawn.draw](source)


def _gantt(source: Source) -> Figure:
    """Draw the first finished run that meets the condition."""
    rows = source.rows
    done = rows[rows["status"] == "done"].sort_values(["workload", "policy", "seed"])
    if not len(done):
        raise InputError(f"no run of experiment {source.drawn.experiment} that meets the figure's condition is done")
    first = done.iloc[0]
    timeline = timeline_of(Store(source.folder_of(first)).journals / f"{first['digest']}.jsonl.zst")
    return figures.gantt(
        timeline.segments, timeline.leases, deadline_s=timeline.deadline_s, best_trial=timeline.best_trial
    )


def _sensitivity(source: Source) -> Figure:
    import pandas as pd

    rows, parameter, order = source.rows, source.text("x", ""), source.drawn.options.get("order")
    if order is not None:
        rows = rows.assign(**{parameter: pd.Categorical(rows[parameter], categories=order)})
    return figures.sensitivity(rows, parameter, value=source.text("measure", "regret"))


def _gaps(source: Source) -> Figure:
    by = source.drawn.options.get("by")
    gaps = gaps_of(source.plan_rows(), by)
    return figures.greedy_gap(gaps.assign(family=_named(gaps["family"], by)))


def _named(families: pd.Series[Any], column: str | None) -> pd.Categorical[str]:
    """Names of panels: texts as they are, numbers with name and unit, in ascending order."""
    import pandas as pd

    values = sorted(families.unique())
    texts = {value: str(value) for value in values}
    if pd.api.types.is_numeric_dtype(families):
        name, unit = tables.name_of(column or "")
        texts = {value: f"{name} {value:g} {unit}".strip() for value in values}
    return pd.Categorical(families.map(texts), categories=list(texts.values()))


def _planned(source: Source) -> Figure:
    """Cost or machines of plans over a setting, as means over deadlines; one line per planner."""
    rows = planners_as_policies(source.plan_rows(), source.drawn.options.get("fixed"))
    measure, told = source.text("measure", "cost_usd"), "plans, means over deadlines, side by side"
    label = "machines, at most" if measure == "instances" else None
    return figures.sensitivity(rows, source.text("x", ""), value=measure, label=label, told=told)


def _explored(source: Source) -> Figure:
    """How many times as many configurations a policy starts as another one, by deadline and scaling; a panel per start-up."""
    rows, policy, against = source.rows, source.text("policy", "seer"), source.text("against", "sha-fixed")
    # The panels' names are sorted as texts: numbers of equal width keep their order.
    startup = [f"start-up {seconds:3.0f} s" for seconds in rows[list(_STARTUP)].sum(axis=1)]
    keys = [source.sides[0], "workload.scaling", "startup", "workload", "seed"]
    by_policy = rows.assign(startup=startup).set_index([*keys, "policy"])["trials_started"]
    mine, theirs = (by_policy.xs(name, level="policy") for name in (policy, against))
    ratios = (mine / theirs).rename("trials_started").reset_index()
    # Where one of the two has no plan, there is no ratio, and the cell says so.
    ratios["status"] = ratios["trials_started"].notna().map({True: "done", False: "infeasible"})
    return figures.score_grid(
        ratios.rename(columns={"startup": "policy", "workload": "bundle_name"}),
        value="trials_started",
        x=source.sides[0],
        y="workload.scaling",
        label=f"started, {policy} / {against}",
    )


_STARTUP = tuple(f"cloud.startup.{part}.mean_s" for part in ("queue_s", "init_s", "setup_s"))


def _differences(source: Source) -> Figure:
    """Pooled differences in regret of every other policy to the reference."""
    reference = source.text("reference", "seer")
    return figures.paired_differences(paired_table(source.rows, reference, group=[]), reference=reference)


def _gates(source: Source) -> Figure:
    """Rows of the wide mixtures of one data set and one body."""
    rows, options = source.rows, source.drawn.options
    for name in ("data", "body", "network"):
        rows = rows[rows[name] == options.get(name, rows[name].iloc[0])]
    return figures.gate_sparsity(rows)


def _scored(source: Source) -> pd.DataFrame:
    """The runs that are done, with their limits under the names that `score_over_cost` takes."""
    rows = tables.done_runs(source.rows)
    return rows.assign(deadline_s=rows[DEADLINE], budget_usd=rows[BUDGET])


FIGURES: Mapping[str, Callable[[Source], Figure]] = {
    "comparison": lambda source: figures.comparison(_scored(source), source.trajectories()),
    "cost-over-deadline": lambda source: figures.cost_over_deadline(
        source.rows, reference=source.text("reference", "sha-fixed")
    ),
    "differences": _differences,
    "explored": _explored,
    "frontier": lambda source: figures.frontier(frontier_of_first(source.planned())),
    "gantt": _gantt,
    "gaps": _gaps,
    "gates": _gates,
    "gpus-over-time": lambda source: figures.gpus_over_time(source.trajectories()),
    "networks": lambda source: figures.networks_over_flops(source.rows),
    "plans": _planned,
    "ledger": lambda source: figures.ledger(source.rows),
    "profiles": lambda source: figures.performance_profiles(profile_table(source.rows)),
    "score-grid": lambda source: figures.score_grid(
        source.rows,
        value=source.text("measure", "regret"),
        against=source.drawn.options.get("against"),
        x=source.sides[0],
        y=source.sides[1],
    ),
    "score-over-cost": lambda source: figures.best_so_far(source.trajectories(), "spent_usd"),
    "score-and-cost": lambda source: figures.score_over_cost(_scored(source)),
    "score-over-time": lambda source: figures.best_so_far(source.trajectories(), "at_s"),
    "score-over-time-and-cost": lambda source: figures.score_over_time_and_cost(source.trajectories()),
    "sensitivity": _sensitivity,
}
"""Drawing functions, by the name that the catalogue's files use."""

ON_TRAININGS = ("networks", "gates")
"""Those of trained networks, whose conditions are pandas'."""
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "cost-over-deadline": ("reference",),
    "differences": ("reference",),
    "explored": ("policy", "against"),
    "gaps": ("by",),
    "gates": ("data", "body", "network"),
    "plans": ("x", "measure", "fixed"),
    "score-grid": ("measure", "against"),
    "sensitivity": ("x", "measure", "order"),
}
"""Options that an entry may have, by figure."""
