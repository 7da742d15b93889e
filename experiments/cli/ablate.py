"""`elastune ablate`: what each mechanism of a policy is worth. Imports typer; the rest when needed."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations when the program runs
from typing import Annotated

import typer

from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.options import AsJson, complete_policy, print_json, progress


def ablate(
    spec_file: Annotated[Path, typer.Argument(metavar="SPEC", help="A YAML file that describes the run.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the spec.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="name[:param=value...], instead of the spec's.", autocompletion=complete_policy)
    ] = None,
    switches: Annotated[
        list[str] | None,
        typer.Option("--switch", metavar="PARAM=VALUE", help="A parameter to change; all known switches if left out."),
    ] = None,
    seeds: Annotated[int, count_option(help="How many, counted from the spec's.")] = 100,
    is_rough: Annotated[
        bool,
        typer.Option("--rough", help="Each seed in a world of its own, with wrong beliefs, stragglers and faults."),
    ] = False,
    jobs: Annotated[int, count_option(help="Processes.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Run a policy as it is and with one mechanism switched at a time, on the same seeds."""
    from elastune.experiments.comparisons.ablation import ablate as ablate_policy
    from elastune.experiments.spec.run import RunSpec

    spec = RunSpec.load(spec_file, [*(settings or []), *([f"policy={policy}"] if policy is not None else [])])
    with progress("Running") as on_progress:
        ablation = ablate_policy(spec, switches or (), seeds, is_rough=is_rough, jobs=jobs, on_progress=on_progress)
    if as_json:
        print_json(ablation.to_json())
        return
    from elastune.experiments.cli.tables import print_ablation

    print_ablation(ablation)
