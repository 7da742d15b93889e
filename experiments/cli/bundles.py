"""`elastune bundles`: what was recorded. Imports typer; the rest when needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from elastune.experiments.cli import import_ as cli_import
from elastune.experiments.cli.completion import complete_bundle
from elastune.experiments.cli.options import AsJson, Figure, print_json
from elastune.experiments.cli.table_views import with_view
from elastune.experiments.cli.tables import NONE, Table, key, number, numbers, percent, print_pairs, say, text
from elastune.sim.model.errors import InputError

app = typer.Typer(help="Recorded workloads.", no_args_is_help=True)
app.add_typer(cli_import.app, name="import")


@app.command("list")
@with_view
def list_bundles(as_json: AsJson = False) -> None:
    """The bundles that have a name here: those that ship, those of your data folders, and those in results/bundles."""
    described = list(_described())
    if as_json:
        shown = ("name", "direction", "score", "iteration", "trials", "max_iterations", "iteration_s", "sha256")
        print_json([{key: one[key] for key in shown} for one in described])
        return
    table = Table(
        "", [*key("bundle"), *numbers("configurations", "iterations", "s per iteration"), *text("score", "iteration")]
    )
    for one in described:
        counts = (one["trials"], one["max_iterations"], number(one["iteration_s"]))
        table.add(one["name"], *counts, f"{one['score']} ({one['direction']})", one["iteration"])
    table.print()


def _described() -> Iterator[dict[str, Any]]:
    """Each bundle that has a name; one that is damaged is told on standard error, and hides no other."""
    from elastune.experiments.plans.bundle_summary import describe
    from elastune.experiments.spec.places import known_bundles, place_of_bundle
    from elastune.traces import load_bundle

    for name in known_bundles():
        try:
            yield {**describe(load_bundle(place_of_bundle(name))), "name": name}
        except InputError as error:
            say(f"left out: {name}: {error}", err=True)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="A name, or a bundle's folder.", autocompletion=complete_bundle, show_default=False)
    ],
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """How good a bundle's configurations are, how early that shows, and what each number comes from."""
    from elastune.experiments.plans.bundle_summary import curves_table, describe
    from elastune.experiments.spec.places import place_of_bundle
    from elastune.traces import load_bundle

    bundle = load_bundle(place_of_bundle(name))
    described = describe(bundle)
    if figure is not None:
        from elastune.experiments import figures

        figures.save(figures.curves(curves_table(bundle)), figure)
        say(f"figure: {figure}", err=True)
    if as_json:
        print_json(described)
        return
    _print_bundle(described)


def _print_bundle(described: Mapping[str, Any]) -> None:
    """Everything `describe` says of one bundle."""
    quantiles = described["final_quantiles"] or {}
    # Of few iterations, several early ones are the same.
    correlations = dict.fromkeys(
        f"{number(row['spearman'], 3)} after {row['iteration']}" for row in described["rank_correlation"]
    )
    low, high = described["relative_cost_range"]
    rows = {
        "score": f"{described['score']}, to {described['direction']}",
        "iteration": described["iteration"],
        "size": f"{described['trials']} configurations x {described['max_iterations']} iterations",
        "final scores, worst to best": ", ".join(f"{level}: {number(score)}" for level, score in quantiles.items()),
        "diverged": percent(described["diverged_share"]),
        "Spearman of early with final ranks": ", ".join(correlations),
        **_noise(described["replicates"]),
        **{
            name: f"{number(one['least'])} to {number(one['most'])}, median {number(one['median'])}: {one['means']}"
            for name, one in described["measures"].items()
        },
        "cost of an iteration": f"{number(described['iteration_s'])} s on 1 GPU, times {number(low)} to {number(high)}",
        **_evaluation(described["evaluate_s"]),
        "GPUs for its memory": f"at least {described['min_gpus']}",
        "launch, checkpoint": f"{number(described['launch_s'])} s, {number(described['checkpoint_s'])} s",
        "stragglers (cv)": f"{number(described['straggler_persistent_cv'])} persistent, "
        f"{number(described['straggler_per_iteration_cv'])} per iteration",
        "scaling": "none: set workload.scaling"
        if described["max_gpus"] is None
        else f"to {described['max_gpus']} GPUs",
        "schedule": described["schedule"] or NONE,
        "source": f"{described['source']} ({described['licence']})",
        **{f"provenance of {key}": text for key, text in described["provenance"].items()},
        "sha256": described["sha256"],
    }
    print_pairs(described["name"], rows)


def _evaluation(evaluate_s: float | None) -> dict[str, str]:
    """What evaluating takes of an iteration, where it was measured."""
    return {} if evaluate_s is None else {"evaluation, of that": f"{number(evaluate_s)} s on 1 GPU, whatever the gang"}


def _noise(noise: Mapping[str, Any] | None) -> dict[str, str]:
    """How much trainings of the same configuration differ, where there are several."""
    if noise is None:
        return {}
    fewest, most = noise["fewest"], noise["most"]
    counted = str(most) if fewest == most else f"{fewest} to {most}"
    return {
        "replicates": f"of {noise['trials_with_several']} configurations, {counted} trainings of each",
        "spread of final scores": f"{number(noise['spread_over_replicates'])} over replicates, "
        f"{number(noise['spread_over_configurations'])} over configurations",
        "Spearman between replicates": number(noise["rank_correlation"], 3),
    }
