"""`elastune bundles` and `elastune profile`: what was recorded, and recording more. Imports typer; the rest when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments import cli_import
from experiments.cli_options import AsJson, complete_bundle, complete_workload, print_json, progress

app = typer.Typer(help="Recorded workloads.", no_args_is_help=True)
app.add_typer(cli_import.app, name="import")


@app.command("list")
def list_bundles(as_json: AsJson = False) -> None:
    """The bundles that ship with the project."""
    from experiments.bundle_summary import describe
    from traces import bundle_names, load_bundle

    described = [describe(load_bundle(name)) for name in bundle_names()]
    if as_json:
        shown = ("name", "direction", "score", "iteration", "trials", "max_iterations", "iteration_s", "sha256")
        print_json([{key: one[key] for key in shown} for one in described])
        return
    from experiments.cli_tables import print_bundles

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
    from experiments.bundle_summary import curves_table, describe
    from traces import load_bundle

    bundle = load_bundle(name)
    described = describe(bundle)
    if figure is not None:
        from experiments import figures

        figures.save(figures.curves(curves_table(bundle)), figure)
    if as_json:
        print_json(described)
        return
    from experiments.cli_tables import print_bundle

    print_bundle(described)


def profile(
    workload: Annotated[
        str, typer.Argument(help="What is trained.", autocompletion=complete_workload, show_default=False)
    ],
    trials: Annotated[int, typer.Option(min=1, help="Configurations drawn from its search space.")] = 64,
    iterations: Annotated[int, typer.Option(min=1, help="Iterations of each.")] = 27,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes, one CPU slot each.")] = 2,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the bundle.", show_default="results/bundles/<workload>"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of configurations, weights and the order of the data.")] = 0,
) -> None:
    """Train configurations for real and record curves and timings as a bundle; goes on where it stopped."""
    from importlib.util import find_spec

    from experiments.profiling import profile_workload
    from sim.model.errors import InputError
    from traces.workloads import workload_named

    trained = workload_named(workload)
    missing = [name for name in ("torch", "sklearn", "mlxtend") if find_spec(name) is None]
    if missing:
        raise InputError(f"profiling trains for real and needs {', '.join(missing)}: pip install -e '.[bridge]'")
    with progress("Profiling") as on_progress:
        folder = profile_workload(
            trained,
            trials,
            iterations,
            jobs,
            out or Path("results/bundles") / workload,
            seed,
            on_progress=lambda _phase, done, total: on_progress(done, total),
        )
    typer.echo(str(folder))
