"""Draw the figures of the catalogue from the rows of any sweep.

Imports experiments.claims.figures, what figures ask of their tables, and which columns vary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastune.experiments.claims.entries import FigureEntry
from elastune.experiments.claims.figures import FIGURES, ON_TRAININGS, OPTIONS, Source, check, draw
from elastune.experiments.claims.sweeps import BUDGET, DEADLINE
from elastune.experiments.figures.tables import few_policies, policy_named, require_one_run_each, told_values
from elastune.experiments.runs.timeline import trajectories_of
from elastune.experiments.sweeps.summary import known_column, varying
from elastune.sim.model.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.figure import Figure

FROM_PLANS = ("frontier", "gaps", "plans")
DRAWABLE = tuple(name for name in FIGURES if name not in (*FROM_PLANS, *ON_TRAININGS))
"""The figures that rows of runs suffice for."""
OF_ONE_CELL = (
    "comparison",
    "gpus-over-time",
    "score-and-cost",
    "score-over-cost",
    "score-over-time",
    "score-over-time-and-cost",
)
USUAL_REFERENCE = "sha-fixed"
_REFERENCE_OPTION = {"score-grid": "against", "explored": "against"}
_AXES = {"sensitivity": 1, "score-grid": 2}


@dataclass(frozen=True, eq=False)
class FolderSource(Source):
    """The rows of a folder as the data of a figure.

    Attributes:
        folder: of the sweep.
        table: its rows, or a part of them.
        axes: the columns of a heat map.
    """

    folder: Path = Path()
    table: Any = None  # a data frame: a default must not import pandas
    axes: tuple[str, str] = (DEADLINE, BUDGET)

    @property
    def rows(self) -> pd.DataFrame:
        """The rows, as one workload; scalings that a bundle brings have a name."""
        scaling = self.table["workload.scaling"].fillna("of the bundle")
        named: pd.DataFrame = self.table.assign(**{"workload": "", "workload.scaling": scaling})
        return named

    @property
    def sides(self) -> tuple[str, str]:
        """The columns over which the cells of a heat map lie, and up which."""
        return self.axes

    def folder_of(self, row: pd.Series[Any]) -> Path:  # noqa: ARG002  all rows are of one folder
        """The folder of the runs."""
        return self.folder

    def trajectories(self) -> pd.DataFrame:
        """The trajectories of the rows, from the journals that the sweep kept."""
        return trajectories_of(self.folder, self.table)


def draw_rows(
    folder: Path,
    rows: pd.DataFrame,
    name: str,
    *,
    axes: Sequence[str] = (),
    measure: str | None = None,
    reference: str | None = None,
    named: Sequence[str] = (),
) -> tuple[Figure, list[str]]:
    """A figure of the rows of a sweep.

    Args:
        folder: of the sweep, for its journals.
        rows: what is drawn.
        name: one of `DRAWABLE`.
        axes: columns: over which a measure is drawn (`sensitivity`), or over and up which (`score-grid`); those that vary where
            empty.
        measure: what is drawn; regret where left out.
        reference: the policy that others are compared with; `sha-fixed` where left out and there.
        named: policies that are drawn in any case. In all there are at most eight: the reference, these, and those of least
            regret.

    Returns:
        The figure, and the policies in it.

    Raises:
        InputError: the figure is unknown or drawn from something else, something else varies in the rows, or they do not have
            what it shows; says what would do.
    """
    if name in FROM_PLANS:
        raise InputError(f"{name} is drawn from plans, not from runs: `elastune plan SPEC --figure FILE` draws them")
    if name in ON_TRAININGS:
        raise InputError(
            f"{name} is drawn from trained networks, not from runs: `elastune figures` draws it of its claim"
        )
    if name not in DRAWABLE:
        raise unknown("figure", name, DRAWABLE)
    for policy in (*named, *([] if reference is None else [reference])):
        policy_named(rows, name, policy)
    options = _options(rows, name, axes, measure, reference)
    shown = list(dict.fromkeys(map(str, rows["policy"])))
    if name != "gantt":
        shown = few_policies(rows, _reference(rows, reference), named)
        rows = rows[rows["policy"].isin(shown)]
    if name in OF_ONE_CELL:
        require_one_run_each(rows.drop(columns="workload.bundle").assign(bundle_name=""), name, [])
    sides = tuple(_axes(rows, name, axes)) if name == "score-grid" else (DEADLINE, BUDGET)
    entry = FigureEntry(draw=name, experiment=str(folder), caption="", options=options)
    check(entry)
    return draw(FolderSource(entry, folder=folder, table=rows, axes=(sides[0], sides[1]))), shown


def _options(
    rows: pd.DataFrame, name: str, axes: Sequence[str], measure: str | None, reference: str | None
) -> dict[str, Any]:
    """The options of the catalogue's entry, as they were asked for."""
    taken = OPTIONS.get(name, ())
    options: dict[str, Any] = {}
    if axes and name not in _AXES:
        raise InputError(f"{name} has axes of its own: leave out --group")
    if measure is not None:
        if "measure" not in taken:
            raise InputError(f"{name} shows measures of its own: leave out --measure")
        options["measure"] = measure
    if name == "sensitivity":
        (options["x"],) = _axes(rows, name, axes)
    if "reference" in taken:
        options["reference"] = _reference(rows, reference)
    elif reference is not None and name in _REFERENCE_OPTION:
        options[_REFERENCE_OPTION[name]] = reference
    elif reference is not None:
        raise InputError(f"{name} compares with no policy: leave out --against")
    return options


def _reference(rows: pd.DataFrame, reference: str | None) -> str:
    if reference is not None:
        return reference
    policies = list(map(str, rows["policy"]))
    return USUAL_REFERENCE if USUAL_REFERENCE in policies else policies[0]


def _axes(rows: pd.DataFrame, name: str, asked: Sequence[str]) -> list[str]:
    """The columns that were asked for, else the only ones that vary."""
    wanted = _AXES[name]
    if len(asked) not in (0, wanted):
        raise InputError(f"{name} is drawn over {wanted} of the columns, but --group names {len(asked)}")
    if asked:
        return [known_column(column) for column in asked]
    found = [column for column in varying(rows) if column not in ("policy", "policy.params")]
    if name == "score-grid" and {DEADLINE, BUDGET} <= set(found):
        return [DEADLINE, BUDGET]
    if len(found) != wanted:
        what = told_values(rows, found) if found else "no column but the policy"
        raise InputError(
            f"{name} is drawn over {'a column' if wanted == 1 else 'two columns'} of the spec; in these rows {what}"
            f" var{'y' if len(found) > 1 else 'ies'}: name {'it' if wanted == 1 else 'them'} by --group"
            ", and draw the rows of one value of any other by --where"
        )
    return found
