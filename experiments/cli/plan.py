"""`elastune plan`: what planners make of a spec, before anything is run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from elastune.experiments.cli.options import AsJson, Figure, Settings, print_json, print_notes
from elastune.experiments.cli.table_views import require_asked, with_view
from elastune.experiments.cli.tables import NONE, Column, Table, key, numbers, percent, say, spread, text
from elastune.sim.model.errors import InputError
from elastune.sim.model.numbers import seconds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.experiments.plans.planning import Plans
    from elastune.policies.planning.plan import Plan

_SHOWN_OF_FRONTIER = 12


PlannerName: TypeAlias = Literal["static", "rubberband", "frontier", "all"]
"""Which planners are asked."""


SpaceName: TypeAlias = Literal["fair", "wide"]
"""Which plans there are to choose from."""


MakespanName: TypeAlias = Literal["mean", "p95"]
"""What is compared with a deadline."""


@with_view
def plan(  # noqa: PLR0913, PLR0917  the options of a command
    spec_file: Annotated[
        Path, typer.Argument(metavar="SPEC", help="A YAML file; it needs no bundle and no policy.", show_default=False)
    ],
    settings: Settings = None,
    planner: Annotated[PlannerName, typer.Option(help="Which planners are asked.")] = "all",
    space: Annotated[
        SpaceName, typer.Option(help="Plans to choose from, for all planners: fair is RubberBand's, wide allows more.")
    ] = "wide",
    makespan: Annotated[
        MakespanName, typer.Option(help="What is within the deadline: the expected makespan or its 95th percentile.")
    ] = "mean",
    deadlines: Annotated[
        str | None,
        typer.Option(metavar="S,S,...", help="Ask each planner for each of these deadlines (20min,1h), side by side."),
    ] = None,
    types: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE],...",
            help="Kinds of machines to choose from, instead of the spec's; with their scaling=... and iteration_s=...",
        ),
    ] = None,
    as_json: AsJson = False,
    figure: Figure = None,
) -> None:
    """Plan a job without running it: GPUs and machines per stage, time, cost, and how far from the best possible."""
    from elastune.experiments.plans.plan_spec import load_plan_spec
    from elastune.experiments.plans.planning import frontier_table, make_plans

    given = settings or []
    offered = [[*given, *settings_of_type(text)] for text in types.split(",")] if types is not None else [given]
    deadlines_s = [] if deadlines is None else deadlines_of(deadlines)
    if deadlines_s:
        require_asked(_deadline_columns(deadlines_s))
    else:  # whether a plan may be late is known only when it is made
        has_types, has_p95 = len(offered) > 1, makespan == "p95"
        require_asked(_columns("planner", "plan", has_types=has_types, has_p95=has_p95, has_late=True))
    spec, *others = offers = [load_plan_spec(spec_file, each) for each in offered]
    known: list[str] = []
    if others:
        from elastune.experiments.spec.offers import believed_within

        (spec, *others), known = believed_within(offers)
    plans = make_plans(
        spec,
        planner=planner,
        space=space,
        makespan=makespan,
        deadlines_s=deadlines_s,
        others=others,
    )
    notes = print_notes([*known, *(note for each in (spec, *others) for note in each.notes())])
    if figure is not None:
        from elastune.experiments.figures.frontier import frontier
        from elastune.experiments.figures.style import save

        save(frontier(frontier_table(plans)), figure)
        say(f"figure: {figure}", err=True)
    if as_json:
        print_json(plans.to_json() | notes)
        if plans.within.best is None and plans.asked in ("frontier", "all"):
            say(f"No plan keeps the limits. {plans.achievable()}", err=True)
    else:
        _print_plans(plans)


def settings_of_type(text: str) -> list[str]:
    """The settings that make a spec one on another kind of machine, written as `name[:key=value...]`.

    Raises:
        InputError: there is no name, a key is not one that depends on the machine, or it has no value.
    """
    name, *given = (part.strip() for part in text.split(":"))
    if not name:
        raise InputError("--types: a name is empty; must be names of machines, as in p3.2xlarge,p3.8xlarge")
    settings = [f"cloud.instance_type={name}"]
    for setting in given:
        key, _, value = setting.partition("=")
        if key not in ("scaling", "iteration_s") or not value:
            raise InputError(
                f"--types {text}: must be a name, with scaling=... and iteration_s=... if they differ, as in"
                " p3.8xlarge:iteration_s=60"
            )
        settings.append(f"workload.{key}={value}")
    return settings


def deadlines_of(text: str) -> list[float]:
    """Seconds, in the order given.

    Raises:
        InputError: one of them is not a positive number.
    """
    deadlines_s = []
    for part in text.split(","):
        try:
            deadline_s = seconds_of(part)
        except ValueError as error:
            raise InputError(f"--deadlines {text}: {part.strip()!r} {error}") from error
        if not deadline_s > 0:
            raise InputError(f"--deadlines {text}: {part.strip()!r} must be above 0 seconds, as in 900,20min,1h")
        deadlines_s.append(deadline_s)
    return deadlines_s


def _print_plans(plans: Plans) -> None:
    """The plans side by side, the frontier, and what can be had where a planner finds nothing."""
    if plans.by_deadline:
        _table_by_deadline(plans).print()
        is_missing = any(made is None for one in plans.by_deadline for made in (one.static, one.best))
    else:
        _print_tables(plans)
        is_missing = any(made is None for _, made in plans.rows())
    if plans.search_gap > 0:
        share = f"{100 * plans.search_gap:.1f} %"
        say(f"Not all plans were searched: {plans.left_out}; plans of the frontier may be up to {share} cheaper.")
    if is_missing:
        say(f"Where no plan is shown, none was found within the limits. {plans.achievable()}")


def _print_tables(plans: Plans) -> None:
    limits = " and ".join(_limits(plans)) or "without limits"
    space = plans.planning.space
    table = _table(
        f"Plans of the {space} space for {_job(plans)}, {limits}, on {_machine_names(plans)}", "planner", plans
    )
    for name, made in plans.rows():
        _add(table, plans, name, made)
    table.print()
    if plans.frontier and plans.asked in ("frontier", "all"):
        shown = [plans.frontier[rank] for rank in spread(len(plans.frontier), _SHOWN_OF_FRONTIER)]
        count = f"{len(shown)} of {len(plans.frontier)} plans, fastest first"
        title = f"Frontier, {plans.planning.space} space: {count} (* machines asked for before the barrier)"
        table = _table(title, "plan", plans)
        for rank, made in enumerate(shown, start=1):
            _add(table, plans, str(rank), made)
        table.print()


def _job(plans: Plans) -> str:
    return " ".join(f"({stage.trials},{stage.iterations})" for stage in plans.planning.stages)


def _machine_names(plans: Plans) -> str:
    return " or ".join(plans.planning.offers)


def _limits(plans: Plans) -> list[str]:
    job = plans.planning.job
    surely = " in 95 runs of 100" if plans.planning.makespan == "p95" else ""
    return [
        *([] if job.deadline_s is None else [f"within {job.deadline_s:,.0f} s{surely}"]),
        *([] if job.budget_usd is None else [f"for {job.budget_usd:.2f} USD"]),
    ]


def _table_by_deadline(plans: Plans) -> Table:
    """Planners by deadlines: cost, and by how much it is above the frontier's."""
    surely = ", kept in 95 runs of 100" if plans.planning.makespan == "p95" else ""
    space = plans.planning.space
    table = Table(
        f"USD by deadline{surely} (and above the frontier), {space} space, for {_job(plans)} on {_machine_names(plans)}",
        _deadline_columns([one.deadline_s for one in plans.by_deadline]),
    )
    columns = [dict(one.rows(plans.asked, plans.planning.space)) for one in plans.by_deadline]
    for name in columns[0]:
        cells = (_beside(column[name], one.best) for column, one in zip(columns, plans.by_deadline, strict=True))
        table.add(name, *cells)
    return table


def _beside(made: Plan | None, best: Plan | None) -> str:
    if made is None:
        return NONE
    if best is None or made is best:
        return f"{made.cost_usd:.2f}"
    return f"{made.cost_usd:.2f} ({100 * (made.cost_usd / best.cost_usd - 1):+.1f} %)"


def _table(title: str, first: str, plans: Plans) -> Table:
    has_types, has_p95 = len(plans.planning.offers) > 1, plans.planning.makespan == "p95"
    return Table(title, _columns(first, has_types=has_types, has_p95=has_p95, has_late=_may_be_late(plans)))


def _columns(*first: str, has_types: bool, has_p95: bool, has_late: bool) -> list[Column]:
    return [
        *key(*first, *(["on"] if has_types else [])),
        *numbers("makespan, s", *(["95 % end by, s"] if has_p95 else [])),
        *numbers(*(["late"] if has_late else []), "cost, USD", "over bound"),
        *text("GPUs per stage", "machines per stage", "where the money goes"),
    ]


def _deadline_columns(deadlines_s: Sequence[float]) -> list[Column]:
    return [*key("planner"), *numbers(*(f"{deadline_s:,.0f} s" for deadline_s in deadlines_s))]


def _add(table: Table, plans: Plans, name: str, made: Plan | None) -> None:
    if made is None:
        table.add(name, *(NONE for _ in table.columns[1:]))
        return
    late_s = [] if made.makespan_p95_s is None else [f"{made.makespan_p95_s:,.0f}"]
    table.add(
        name,
        *([made.instance_type] if len(plans.planning.offers) > 1 else []),
        f"{made.makespan_s:,.0f}",
        *late_s,
        *([percent(plans.planning.late_probability(made, plans.within.deadline_s))] if _may_be_late(plans) else []),
        f"{made.cost_usd:.2f}",
        f"{100 * plans.planning.gap(made):.0f} %",
        " ".join(map(str, made.gpus_per_stage)),
        _machines(made),
        _money(plans, made),
    )


def _may_be_late(plans: Plans) -> bool:
    """Whether there is a deadline that a plan may miss by chance."""
    return math.isfinite(plans.within.deadline_s) and plans.planning.is_random


def _machines(made: Plan) -> str:
    """Machines by stage, those asked for before the barrier marked."""
    early = (False, *(after_s is not None for after_s in made.prefetch_after_s[:-1]))
    return " ".join(
        f"{count}*" if is_early else str(count) for count, is_early in zip(made.instances_per_stage, early, strict=True)
    )


def _money(plans: Plans, made: Plan) -> str:
    from elastune.policies.planning.spending import spending_usd

    total = made.cost_usd or 1.0
    parts = spending_usd(made, plans.planning.terms_of(made)).items()
    return ", ".join(f"{part} {100 * usd / total:.0f} %" for part, usd in parts if usd / total >= 0.005)
