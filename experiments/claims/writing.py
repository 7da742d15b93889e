"""The files of figures and claims: pictures, tables, captions with the command and the conditions.

Imports `experiments.claims`; pandas and matplotlib are imported by what draws. Nothing else writes to the figures' folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from elastune.experiments import figures
from elastune.experiments.claims.entries import FIRST_SEED, Claim
from elastune.experiments.claims.figures import draw
from elastune.experiments.claims.plans import ClaimPlans, gap_table, planner_table
from elastune.experiments.claims.rows import rows_of
from elastune.experiments.claims.tables import CELL_SCOPE, claim_table, markdown, runs_table
from elastune.experiments.claims.trainings import ClaimTrainings, training_table
from elastune.experiments.files import write_text
from elastune.experiments.results_version import RESULTS_VERSION
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from elastune.experiments.claims.drawing import Asked, Drawing

KINDS = (".png", ".pdf")
INDEX = "README.md"
_HIDDEN = ("experiment", "measure", "scope", "only", "only_against", "families", "bundles", "seeds", "over")
"""Columns of a claim's table that only the CSV has."""


@dataclass(frozen=True)
class Written:
    """A written figure or table, or why it was left out.

    Attributes:
        rows: that it was made from.
        files: none where it was left out.
        reason: why it was left out.
    """

    name: str
    claim: str
    rows: int
    files: tuple[Path, ...] = ()
    reason: str | None = None

    def to_json(self) -> dict[str, object]:
        """What `elastune figures --json` prints of it."""
        files = [str(path) for path in self.files]
        return {"name": self.name, "claim": self.claim, "rows": self.rows, "files": files, "left_out": self.reason}


def write_all(drawing: Drawing, out: Path, command: Callable[[str], str]) -> list[Written]:
    """Draw every figure, and write every table and caption. A figure that cannot be drawn says why; the others go on.

    Args:
        drawing: of which everything was run.
        out: the folder of the files.
        command: what draws one figure or claim, by its name.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = [_figure(drawing, asked, out, command(asked.name)) for asked in drawing.figures]
    written += [_table(drawing, claim, out, command(claim.id)) for claim in drawing.tables if claim.experiments]
    tables = drawing.tables
    written += [_plan_table(drawing, one, out, command(one.claim.id)) for one in drawing.plans if one.claim in tables]
    written += [
        _training_table(drawing, one, out, command(one.claim.id)) for one in drawing.trainings if one.claim in tables
    ]
    _write_index(out)
    return written


def _figure(drawing: Drawing, asked: Asked, out: Path, command: str) -> Written:
    source = drawing.source(asked)
    try:
        rows = len(source.rows if source.plans is None else source.plans.read())
        figure = draw(source)
    except InputError as error:
        return Written(asked.name, asked.claim.id, 0, reason=str(error))
    files = [figures.save(figure, out / f"{asked.name}{kind}") for kind in KINDS]
    caption = out / f"{asked.name}.md"
    write_text(caption, _caption(drawing, asked, rows, command))
    return Written(asked.name, asked.claim.id, rows, (*files, caption))


def _caption(drawing: Drawing, asked: Asked, rows: int, command: str) -> str:
    claim, drawn = asked.claim, asked.drawn
    condition = f" with `{drawn.where}`" if drawn.where else ""
    lines = [
        f"# {asked.name}",
        f"![{drawn.caption}]({asked.name}.png)",
        drawn.caption,
        f"Claim {claim.id}: {claim.claim} ({claim.source}; {claim.flag}).",
        f"`{command}`",
        "\n".join([*_conditions(drawing, claim, drawn.experiment), f"- drawn from {rows:,} rows{condition}"]),
    ]
    return "\n\n".join(lines) + "\n"


def _conditions(drawing: Drawing, claim: Claim, experiment: str | None = None) -> list[str]:
    """Conditions of the results of one experiment or all, as a markdown list."""
    lines = list(claim.conditions)
    for sweep in drawing.sweeps:
        if sweep.claim.id == claim.id and experiment in (None, sweep.experiment):
            seeds, units = sweep.sweep.seeds, sweep.units
            lines.append(
                f"{sweep.experiment}, {sweep.workload}: {len(seeds)} seeds from {seeds[0]}; R tau is {units.deadline_s:,.0f} s,"
                f" c R tau {units.budget_usd:.3f} USD"
            )
    lines += [
        f"{part.experiment}, {part.workload}: left out, {part.reason}"
        for part in drawing.left_out
        if part.claim == claim.id and experiment in (None, part.experiment)
    ]
    for trainings in drawing.trainings:
        if trainings.claim.id == claim.id and experiment in (None, trainings.experiment):
            lines += trainings.conditions()
    if drawing.size == "smoke":
        lines.append(f"smoke size, seeds from {FIRST_SEED['smoke']}: it shows that everything works, and nothing else")
    lines.append(f"results version {RESULTS_VERSION}, elastune {version('elastune')}")
    return [f"- {line}" for line in lines]


def _table(drawing: Drawing, claim: Claim, out: Path, command: str) -> Written:
    name = f"{claim.id} table"
    rows = rows_of([sweep for sweep in drawing.sweeps if sweep.claim.id == claim.id])
    if not len(rows):
        return Written(name, claim.id, 0, reason="there are no runs of it")
    table, runs = claim_table(claim, rows), runs_table(rows)
    csv, text = out / f"{claim.id}.csv", out / f"{claim.id}.md"
    write_text(csv, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_text(text, _table_text(drawing, claim, table, runs, command))
    return Written(name, claim.id, len(rows), (csv, text))


def _plan_table(drawing: Drawing, plans: ClaimPlans, out: Path, command: str) -> Written:
    """What planners plan, and the gaps between them."""
    name, rows = f"{plans.claim.id}-{plans.experiment}", plans.read()
    if not len(rows):
        return Written(f"{name} table", plans.claim.id, 0, reason="nothing is planned")
    planners, gaps = planner_table(rows), gap_table(rows)
    csv, text = out / f"{name}.csv", out / f"{name}.md"
    write_text(csv, gaps.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    parts = [
        f"# {plans.claim.id}, {plans.experiment}: {plans.claim.claim}",
        f"`{command}`; {csv.name} has the gaps.",
        "\n".join(_conditions(drawing, plans.claim, plans.experiment)),
        "## Planners, means over jobs and deadlines\n\nMeans of those that found a plan; machines are the most that are held.",
        markdown(planners),
        "## How much dearer than what it is compared with, as a share\n\nThe interval of the mean is over jobs.",
        markdown(gaps),
    ]
    write_text(text, "\n\n".join(parts) + "\n")
    return Written(f"{name} table", plans.claim.id, len(rows), (csv, text))


def _training_table(drawing: Drawing, trainings: ClaimTrainings, out: Path, command: str) -> Written:
    """What trained networks reach; one file for all claims that rest on them."""
    name, table = trainings.file.stem, training_table(trainings.rows())
    csv, text = out / f"{name}.csv", out / f"{name}.md"
    write_text(csv, table.to_csv(index=False, lineterminator="\n"))
    parts = [
        f"# {trainings.experiment}",
        f"`{command}`",
        "\n".join(_conditions(drawing, trainings.claim, trainings.experiment)),
        *(
            f"## {data}, {body}\n\n{markdown(part.drop(columns=['data', 'body']))}"
            for (data, body), part in table.groupby(["data", "body"], sort=False)
        ),
    ]
    write_text(text, "\n\n".join(parts) + "\n")
    return Written(f"{trainings.label} table", trainings.claim.id, len(trainings.rows()), (csv, text))


def _table_text(drawing: Drawing, claim: Claim, table: pd.DataFrame, runs: pd.DataFrame, command: str) -> str:
    parts = [
        f"# {claim.id}: {claim.claim}",
        f"{claim.source}; {claim.flag}. {claim.question} Expected: {claim.expected}.",
        f"`{command}`; {claim.id}.csv has every group, cells included.",
        "\n".join(_conditions(drawing, claim)),
        "## Runs",
        markdown(runs),
    ]
    for (experiment, measure, scope), part in table.groupby(["experiment", "measure", "scope"], sort=False):
        if scope != CELL_SCOPE:
            shown = part.drop(columns=[name for name in _HIDDEN if name in part]).dropna(axis="columns", how="all")
            by = [name for name in str(scope).split(" x ") if name in shown]
            shown = shown[[*by, *(name for name in shown if name not in by)]]
            parts += [f"## {experiment}: {measure}, {scope}", markdown(shown)]
    return "\n\n".join(parts) + "\n"


def _write_index(out: Path) -> None:
    """README.md of the folder: every table and the caption of every figure that is there, whichever command made it."""
    pages = sorted((path for path in out.glob("*.md") if path.name != INDEX), key=lambda path: path.stem)
    captions = [path for path in pages if path.with_suffix(".png").is_file()]
    tables = ", ".join(f"[{path.stem}]({path.name})" for path in pages if path.with_suffix(".csv").is_file())
    parts = ["# Figures\n\nEach with the command that draws it, and the conditions under which it holds.\n"]
    parts += [f"Tables: {tables}.\n"] if tables else []
    parts += [re.sub(r"^#", "##", path.read_text(encoding="utf-8")) for path in captions]
    if captions or tables:
        write_text(out / INDEX, "\n".join(parts))
