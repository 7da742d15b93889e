"""`elastune recommend`: which policy, machine and market to take. Imports typer; the rest when needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elastune.experiments.cli import options
from elastune.experiments.cli.numbers import count_option, number_option
from elastune.experiments.cli.plan import settings_of_type
from elastune.experiments.cli.table_views import require_asked, with_view
from elastune.experiments.cli.tables import (
    NONE,
    Column,
    Table,
    interval,
    key,
    number,
    numbers,
    percent,
    say,
    spread,
    text,
    usd,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elastune.experiments.comparisons.race import Goal
    from elastune.experiments.comparisons.recommendation import Recommendation
    from elastune.experiments.spec.run import RunSpec

_FILES = ("kind.txt", "spec.yaml", "recommendation.json", "candidates.csv", "front.png")
_SOUGHT = {"score": "the best score", "cost_usd": "the cheapest", "makespan_s": "the soonest"}
_SHOWN_OF_FRONT = 10
_SHOWN_NEAREST = 5
_FREE = {"cost_usd": ["given, USD"], "makespan_s": ["given, s"], "score": []}
_SOUGHT_HEADING = {"score": "score", "cost_usd": "cost, USD", "makespan_s": "makespan, s"}
_ON_BUNDLES = [*key("policy", "on", "bundle"), *numbers("kept", "score", "cost, USD", "makespan, s")]
_FRONT = [*key("policy", "on"), *numbers("runs", "kept", "score", "cost, USD", "makespan, s")]


def _nearest_columns(goal: Goal) -> list[Column]:
    return [*key("policy", "on"), *numbers(*_FREE[goal.measure], "runs", "kept", "score", "cost, USD", "makespan, s")]


def _standings_columns(goal: Goal) -> list[Column]:
    shown = numbers(*_FREE[goal.measure], "kept", "score", "cost, USD", "makespan, s", "to the best")
    return [*key("policy", "on"), *shown]


def _wrong_columns(goal: Goal) -> list[Column]:
    return [*key("if"), *numbers("kept", _SOUGHT_HEADING[goal.measure], "loses"), *text("then better")]


@with_view
def recommend(  # noqa: PLR0913, PLR0917  the options of a command
    spec_file: Annotated[
        Path, typer.Argument(metavar="SPEC", help="A YAML file; it needs no policy.", show_default=False)
    ],
    settings: options.Settings = None,
    score: Annotated[
        float | None,
        number_option(help="To be reached; then leave deadline or budget out of the spec.", show_default=False),
    ] = None,
    bundles: Annotated[
        str | None,
        typer.Option(
            "--bundle",
            metavar="A,B,...",
            help="Workloads that the answer is to serve, on their mean; instead of the spec's.",
            show_default=False,
        ),
    ] = None,
    types: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE],...",
            help="Machines to choose from, instead of the spec's; with their scaling=... and iteration_s=...",
        ),
    ] = None,
    markets: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Of on-demand, spot, mixed; instead of the spec's.")
    ] = None,
    policies: options.SomePolicies = None,
    levels: Annotated[int, count_option(most=100, help="Sizes of the limit that is left out.")] = 8,
    seeds: Annotated[int, count_option(least=20, help="To choose by; as many new ones judge the best few.")] = 64,
    is_exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Run every candidate on all seeds.", rich_help_panel=options.COMPUTE)
    ] = False,
    jobs: options.Jobs = None,
    as_json: options.AsJson = False,
    out: Annotated[Path | None, options.out_option("Folder for the spec to run, the tables and the picture.")] = None,
) -> None:
    """Say which policy, machine and market to take, for two of deadline, budget and score to reach."""
    from elastune.experiments.comparisons import recommendation as found
    from elastune.experiments.comparisons.race import FIRST_SEEDS, Goal
    from elastune.experiments.files import check_outputs
    from elastune.experiments.plans.plan_spec import bundles_of, load_plan_spec
    from elastune.experiments.runs.run_folder import require_kind
    from elastune.experiments.spec.yaml_file import names_in

    over = names_in(bundles, "--bundle") or bundles_of(spec_file)
    given = [*(settings or []), *(f"workload.bundle={name}" for name in over[:1])]
    of_types = [settings_of_type(one) for one in types.split(",")] if types is not None else [[]]
    of_markets = [[f"cloud.market={name}"] for name in names_in(markets, "--markets")] or [[]]
    offered = [[*given, *machine, *market] for machine in of_types for market in of_markets]
    spec, *others = (load_plan_spec(spec_file, each) for each in offered)
    goal = Goal(spec.bundle().direction, spec.job.deadline_s, spec.job.budget_usd, score)
    require_asked(_standings_columns(goal), _nearest_columns(goal), _wrong_columns(goal), _ON_BUNDLES, _FRONT)
    if out is not None:
        check_outputs(*(out / name for name in _FILES))
        require_kind(out, "recommendation")
    with options.progress("Running") as tell:
        recommendation = found.recommend(
            spec,
            others=others,
            policies=names_in(policies, "--policies"),
            score=score,
            levels=levels,
            seeds=seeds,
            first_seeds=seeds if is_exhaustive else FIRST_SEEDS,
            jobs=options.cores(jobs),
            bundles=over if len(over) > 1 else (),
            on_progress=tell,
        )
    options.print_notes(recommendation.notes)
    if out is not None:
        _write(out, recommendation)
    if as_json:
        options.print_json(recommendation.to_json())
    else:
        _print(recommendation, out)
    if not recommendation.is_sure:
        raise typer.Exit(options.FAILED)


def _write(folder: Path, recommendation: Recommendation) -> None:
    import json

    from elastune.experiments import figures
    from elastune.experiments.files import write_text
    from elastune.experiments.runs.run_folder import claim_folder

    claim_folder(folder, "recommendation")
    write_text(folder / "recommendation.json", json.dumps(recommendation.to_json(), indent=2, allow_nan=False))
    write_text(folder / "candidates.csv", recommendation.candidates.to_csv(index=False))
    front = recommendation.front()
    if len(front):
        minimized = recommendation.goal.direction == "minimize"
        drawn = figures.front(recommendation.candidates, front, recommendation.best_row(), minimized=minimized)
        figures.save(drawn, folder / "front.png")
    if recommendation.best is not None:
        recommendation.best.spec.save(folder / "spec.yaml")


def _print(recommendation: Recommendation, folder: Path | None) -> None:
    goal, best = recommendation.goal, recommendation.best
    limits = {"by {:,.0f} s": goal.deadline_s, "for {:,.2f} USD": goal.budget_usd, "with a score of {:g}": goal.score}
    asked = " ".join(told.format(value) for told, value in limits.items() if value is not None)
    tried = recommendation.candidates
    beyond = int((tried["status"] == "out of reach").sum())
    left_out = f" {beyond} out of reach," if beyond else ""
    say(
        f"{_SOUGHT[goal.measure]} {asked}: {len(tried)} candidates, {(tried['status'] == 'infeasible').sum()} without a plan,"
        f"{left_out} {tried['runs'].sum()} runs to choose"
    )
    if best is None:
        say("No candidate may keep it in 95 runs of 100.")
        _nearest_table(recommendation).print()
    else:
        _standings_table(recommendation).print()
        if best.on_bundles:
            _bundles_table(recommendation).print()
        _wrong_table(recommendation).print()
    _front_table(recommendation).print()
    if best is not None and folder is not None:
        say(f"written to {folder}; {_to_train(best.spec, folder / 'spec.yaml')}")


def _to_train(spec: RunSpec, file: Path) -> str:
    from elastune.traces.workloads import WORKLOAD_NAMES

    if spec.workload.trainable is None and spec.bundle().name not in WORKLOAD_NAMES:
        return "real workers need your training code beside it: workload.trainable, workload.space"
    return f"to run it on real workers: elastune run {file} --on ray"


def _standings_table(recommendation: Recommendation) -> Table:
    from elastune.experiments.comparisons.candidates import named

    goal = recommendation.goal
    title = (
        f"The best few on {recommendation.standings[0].runs} new seeds, with 95 % intervals; the first is recommended: it was"
        " best on the seeds that chose"
    )
    table = Table(title, _standings_columns(goal))
    for one in recommendation.standings:
        candidate = named(one.spec)
        table.add(
            *_where(candidate),
            *_given(candidate, goal),
            f"{percent(one.kept)} (>= {percent(one.kept_low)})",
            *(interval(each.value, each.low, each.high, 3) for each in (one.score, one.cost_usd, one.makespan_s)),
            NONE if one.to_best is None else interval(one.to_best.mean, one.to_best.low, one.to_best.high, 2),
            is_strong=one is recommendation.best,
        )
    return table


def _bundles_table(recommendation: Recommendation) -> Table:
    from elastune.experiments.comparisons.candidates import named

    table = Table("The same runs on each bundle", _ON_BUNDLES)
    for one in recommendation.standings:
        for on in one.on_bundles:
            means = (interval(each.value, each.low, each.high, 3) for each in (on.score, on.cost_usd, on.makespan_s))
            table.add(*_where(named(one.spec)), on.bundle, percent(on.kept), *means)
    return table


def _wrong_table(recommendation: Recommendation) -> Table:
    from elastune.experiments.comparisons.recommendation import WRONG

    title = f"What it costs to be wrong by {100 * WRONG:.0f} %, among the best few on the first half of these seeds"
    table = Table(title, _wrong_columns(recommendation.goal))
    for one in recommendation.when_wrong:
        better = NONE if one.better is None else f"{one.better['policy']} on {one.better['instance_type']}"
        table.add(one.what, percent(one.kept), number(one.value), number(one.loss, 2), better)
    return table


def _nearest_table(recommendation: Recommendation) -> Table:
    goal = recommendation.goal
    table = Table("Nearest, by how often they kept it", _nearest_columns(goal))
    for row in recommendation.nearest().head(_SHOWN_NEAREST).to_dict("records"):
        table.add(*_where(row), *_given(row, goal), *_means(row))
    return table


def _given(candidate: Mapping[Any, Any], goal: Goal) -> list[str]:
    """The limit that the goal leaves free, as the candidate was given it; nothing where it leaves none."""
    limit = {"cost_usd": "budget_usd", "makespan_s": "deadline_s"}.get(goal.measure)
    return [] if limit is None else [number(candidate[limit])]


def _where(row: Mapping[Any, Any]) -> tuple[str, str]:
    """Policy and machine of a candidate."""
    on_demand = row["market"] == "on-demand"
    return row["policy"], row["instance_type"] if on_demand else f"{row['instance_type']}, {row['market']}"


def _means(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """Runs, how often the goal was kept, and the means of a candidate."""
    kept, makespan_s = percent(row["kept"] / row["runs"]), f"{row['makespan_s']:,.0f}"
    return row["runs"], kept, number(row["score"]), usd(row["cost_usd"]), makespan_s


def _front_table(recommendation: Recommendation) -> Table:
    front = recommendation.front()
    shown = front.iloc[spread(len(front), _SHOWN_OF_FRONT)]
    count = f"{len(shown)} of {len(front)}, cheapest first"
    title = f"No other is cheaper, sooner and better at once ({count}; means of the runs it took)"
    table = Table(title, _FRONT)
    for row in shown.to_dict("records"):
        table.add(*_where(row), *_means(row))
    return table
