"""`elastune bundles`: what was recorded. Imports typer; the rest when needed."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads annotations at run time
from typing import Annotated

import typer

from elastune.experiments.cli import import_ as cli_import
from elastune.experiments.cli.options import AsJson, complete_bundle, print_json

app = typer.Typer(help="Recorded workloads.", no_args_is_help=True)
app.add_typer(cli_import.app, name="import")


@app.command("list")
def list_bundles(as_json: AsJson = False) -> None:
    """The bundles that ship with the project."""
    from elastune.experiments.plans.bundle_summary import describe
    from elastune.traces import bundle_names, load_bundle

    described = [describe(load_bundle(name)) for name in bundle_names()]
    if as_json:
        shown = ("name", "direction", "score", "iteration", "trials", "max_iterations", "iteration_s", "sha256")
        print_json([{key: one[key] for key in shown} for one in described])
        return
    from elastune.experiments.cli.tables import print_bundles

    print_bundles(described)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="A name, or a bundle's folder.", autocompletion=complete_bundle, show_default=False)
    ],
    figure: Annotated[Path | None, typer.Option(help="Draw the curves: a .png or .pdf file.")] = None,
    as_json: AsJson = False,
) -> None:
    """How good a bundle's configurations are, how early that shows, and what each number comes from."""
    from elastune.experiments.plans.bundle_summary import curves_table, describe
    from elastune.traces import load_bundle

    bundle = load_bundle(name)
    described = describe(bundle)
    if figure is not None:
        from elastune.experiments import figures

        figures.save(figures.curves(curves_table(bundle)), figure)
    if as_json:
        print_json(described)
        return
    from elastune.experiments.cli.tables import print_bundle

    print_bundle(described)
