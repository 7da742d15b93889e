"""`elastune profile`: curves of many trials, or with `--gpus` timings on real workers. Imports typer; the rest when needed."""

from __future__ import annotations

import enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli_options import AsJson, complete_bundle, complete_workload, print_json, progress
from sim.model.errors import InputError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from experiments.timing import TimingPlan
    from experiments.timing_profile import TimingProfile
    from traces.workloads import BatchMode, Workload

_CURVES, _TIMINGS = "Curves", "Timings on real workers (--gpus)"


class Device(enum.StrEnum):
    """What a slot is."""

    CPU = "cpu"
    CUDA = "cuda"


class Batch(enum.StrEnum):
    """What the batch size of a configuration is of."""

    GLOBAL = "global"
    PER_WORKER = "per-worker"


def profile(
    workload: Annotated[
        str, typer.Argument(help="What is trained.", autocompletion=complete_workload, show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the bundle.", show_default="results/bundles/<workload>"),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Configurations drawn from its search space.", show_default="64", rich_help_panel=_CURVES
        ),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Iterations of each.", show_default="27", rich_help_panel=_CURVES)
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes, one CPU slot each.", show_default="2", rich_help_panel=_CURVES),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of configurations, weights and the order of the data.",
            show_default="0",
            rich_help_panel=_CURVES,
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(metavar="1,2,4,4x2", help="Time gangs of so many GPUs (x nodes).", rich_help_panel=_TIMINGS),
    ] = None,
    device: Annotated[Device, typer.Option(help="What a GPU is.", rich_help_panel=_TIMINGS)] = Device.CPU,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Lease nodes of this Ray cluster, instead of starting one here.",
            rich_help_panel=_TIMINGS,
        ),
    ] = None,
    gpus_per_node: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of each node.", show_default="as the gangs need, or the cluster has", rich_help_panel=_TIMINGS
        ),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Folder or fsspec URL that every node reaches.",
            show_default="in the bundle's folder",
            rich_help_panel=_TIMINGS,
        ),
    ] = None,
    batch: Annotated[
        Batch, typer.Option(help="Shared by the gang (strong scaling), or one each (weak).", rich_help_panel=_TIMINGS)
    ] = Batch.GLOBAL,
    configurations: Annotated[
        int | None,
        typer.Option(min=1, help="Of the bundle, from cheap to dear.", show_default="3", rich_help_panel=_TIMINGS),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Fresh trials of each.", show_default="2", rich_help_panel=_TIMINGS)
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Of training per segment, at least.", show_default="2", rich_help_panel=_TIMINGS),
    ] = None,
    curves: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE",
            help="Whose curves a new bundle has.",
            show_default="the one that ships",
            autocompletion=complete_bundle,
            rich_help_panel=_TIMINGS,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train for real and write a bundle: its curves, or with --gpus its timings on workers; goes on where it stopped.

    Both write into the same folder: curves first, where the shipped ones do not serve.
    """
    from traces.workloads import workload_named

    trained, folder = workload_named(workload), out or Path("results/bundles") / workload
    of_curves = {"--trials": trials, "--iterations": iterations, "--jobs": jobs, "--seed": seed}
    of_timings = {
        "--device": None if device is Device.CPU else device,
        "--ray": ray,
        "--gpus-per-node": gpus_per_node,
        "--checkpoints": checkpoints,
        "--batch": None if batch is Batch.GLOBAL else batch,
        "--configurations": configurations,
        "--rounds": rounds,
        "--seconds": seconds,
        "--curves": curves,
        "--json": as_json or None,
    }
    if gpus is None:
        _refuse(of_timings, "curves are recorded (--gpus 1,2 times workers)")
        _require_installed("torch", "sklearn", "mlxtend")
        _record_curves(trained, trials or 64, iterations or 27, jobs or 2, folder, seed or 0)
        return
    _refuse(of_curves, "workers are timed (without --gpus, curves are recorded)")
    _require_installed("torch", "sklearn", "mlxtend", "ray", "psutil")
    from experiments.timing import TimingEffort, TimingPlan
    from experiments.timing_records import GangShape

    effort = {"configurations": configurations, "rounds": rounds, "seconds": seconds}
    plan = TimingPlan(
        shapes=tuple(GangShape.parse(text, gpus_per_node) for text in gpus.split(",")),
        device=device.value,
        ray_address=ray,
        gpus_per_node=gpus_per_node,
        effort=TimingEffort(**{name: number for name, number in effort.items() if number is not None}),  # type: ignore[arg-type]
    )
    _show(_timed(trained, plan, folder, curves, batch.value, checkpoints), as_json)


def _refuse(options: Mapping[str, object], reason: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"{', '.join(given)}: not here, as {reason}")


def _require_installed(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"profiling trains for real and needs {', '.join(missing)}: pip install -e '.[bridge]'")


def _record_curves(workload: Workload, trials: int, iterations: int, jobs: int, folder: Path, seed: int) -> None:
    from experiments.profiling import profile_workload

    with progress("Profiling") as on_progress:
        written = profile_workload(
            workload,
            trials,
            iterations,
            jobs,
            folder,
            seed,
            on_progress=lambda _phase, done, total: on_progress(done, total),
        )
    typer.echo(str(written))


def _timed(
    workload: Workload, plan: TimingPlan, folder: Path, curves: str | None, batch: BatchMode, checkpoints: str | None
) -> TimingProfile:
    from experiments.timing_profile import profile_timing

    try:
        with progress("Timing gangs") as on_progress:
            return profile_timing(
                workload, plan, folder, curves=curves, batch=batch, checkpoints=checkpoints, on_progress=on_progress
            )
    except (WorkerError, KeyboardInterrupt):
        typer.echo("what was measured is kept: the same command goes on", err=True)
        raise


def _show(found: TimingProfile, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
    else:
        from experiments.cli_profile_tables import print_timing

        print_timing(found)
