"""`elastune plan`: what planners make of a spec, before anything is run. Imports typer; the rest when needed."""

from __future__ import annotations

import enum
from pathlib import Path  # noqa: TC003  typer reads the annotations when the program runs
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli_options import AsJson, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from experiments.planning import Plans
    from policies.planning.plan import Plan

_PIPED_WIDTH = 200
_SHOWN_OF_FRONTIER = 12


class PlannerName(enum.StrEnum):
    """Which planners are asked."""

    STATIC = "static"
    RUBBERBAND = "rubberband"
    FRONTIER = "frontier"
    ALL = "all"


class SpaceName(enum.StrEnum):
    """In which plan space the frontier is exact."""

    FAIR = "fair"
    WIDE = "wide"


def plan(
    spec_file: Annotated[
        Path, typer.Argument(metavar="SPEC", help="A YAML file; it needs no bundle and no policy.", show_default=False)
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the spec, as job.deadline_s=1800."),
    ] = None,
    planner: Annotated[PlannerName, typer.Option(help="Which planners are asked.")] = PlannerName.ALL,
    space: Annotated[
        SpaceName, typer.Option(help="Plans of the frontier: fair is RubberBand's, wide allows more.")
    ] = SpaceName.WIDE,
    as_json: AsJson = False,
    figure: Annotated[Path | None, typer.Option(help="Draw the frontier: a .png or .pdf file.")] = None,
) -> None:
    """Plan a job without running it: GPUs and machines per stage, time, cost, and how far from the best possible."""
    from experiments.planning import frontier_table, load_plan_spec, make_plans

    plans = make_plans(load_plan_spec(spec_file, settings or []), planner=planner.value, space=space.value)
    if figure is not None:
        from experiments.figures.frontier import frontier
        from experiments.figures.saving import save

        save(frontier(frontier_table(plans)), figure)
    if as_json:
        print_json(plans.to_json())
    else:
        print_plans(plans)


def print_plans(plans: Plans) -> None:
    """The plans side by side, the frontier, and what can be had where a planner finds nothing."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED_WIDTH)
    stages = " ".join(f"({stage.trials},{stage.iterations})" for stage in plans.stages)
    limits = " and ".join(_limits(plans)) or "without limits"
    table = _table(f"Plans for {stages}, {limits}, on {plans.terms.instance_type}", "planner", "where the money goes")
    for name, made in plans.rows():
        _add(table, plans, name, made)
    console.print(table)
    if plans.frontier and plans.asked in ("frontier", "all"):
        shown = _thinned(plans.frontier)
        count = f"{len(shown)} of {len(plans.frontier)} plans, fastest first"
        title = f"Frontier, {plans.space} space: {count} (* machines asked for before the barrier)"
        table = _table(title, "", "where the money goes")
        for made in shown:
            _add(table, plans, "", made)
        console.print(table)
    if any(made is None for _, made in plans.rows()) and plans.frontier:
        fastest, cheapest = plans.frontier[0], plans.frontier[-1]
        console.print(
            f"Where no plan is shown, none was found within the limits. The fastest of all takes {fastest.makespan_s:,.0f} s"
            f" (for {fastest.cost_usd:.2f} USD), the cheapest costs {cheapest.cost_usd:.2f} USD (in"
            f" {cheapest.makespan_s:,.0f} s).",
            highlight=False,
        )


def _limits(plans: Plans) -> list[str]:
    job = plans.job
    return [
        *([] if job.deadline_s is None else [f"within {job.deadline_s:,.0f} s"]),
        *([] if job.budget_usd is None else [f"for {job.budget_usd:.2f} USD"]),
    ]


def _table(title: str, first: str, last: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for heading in ("GPUs per stage", "machines per stage", "makespan, s", "cost, USD", "over bound"):
        table.add_column(heading, justify="right")
    table.add_column(last)
    return table


def _add(table: Table, plans: Plans, name: str, made: Plan | None) -> None:
    if made is None:
        table.add_row(name, *("-" for _ in range(5)))
        return
    table.add_row(
        name,
        " ".join(map(str, made.gpus_per_stage)),
        _machines(made),
        f"{made.makespan_s:,.0f}",
        f"{made.cost_usd:.2f}",
        f"{100 * plans.bound.gap(made):.0f} %",
        _money(plans, made),
    )


def _machines(made: Plan) -> str:
    """Machines by stage, those asked for before the barrier marked."""
    early = (False, *(after_s is not None for after_s in made.prefetch_after_s[:-1]))
    return " ".join(
        f"{count}*" if is_early else str(count) for count, is_early in zip(made.instances_per_stage, early, strict=True)
    )


def _money(plans: Plans, made: Plan) -> str:
    from policies.planning.spending import spending_usd

    total = made.cost_usd or 1.0
    parts = spending_usd(made, plans.terms).items()
    return ", ".join(f"{part} {100 * usd / total:.0f} %" for part, usd in parts if usd / total >= 0.005)


def _thinned(frontier: tuple[Plan, ...]) -> list[Plan]:
    """So many of the plans, the first and the last among them, evenly by rank."""
    last = len(frontier) - 1
    steps = min(_SHOWN_OF_FRONTIER, len(frontier)) - 1
    return [frontier[round(index * last / steps)] for index in range(steps + 1)] if steps else list(frontier)
