"""`elastune profile`: curves of many trials, or with `--gpus` timings on real workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from elastune.experiments.cli import options
from elastune.experiments.cli.completion import complete_bundle, complete_workload
from elastune.experiments.cli.numbers import count_option, seconds_option
from elastune.experiments.cli.tables import NONE, Table, key, numbers, say
from elastune.experiments.real.slots import require_installed
from elastune.sim.model.errors import InputError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elastune.experiments.profiling.estimates import Estimate
    from elastune.experiments.profiling.timed_bundle import TimingProfile
    from elastune.experiments.profiling.timing_plan import TimingPlan
    from elastune.experiments.spec.run import RunSpec
    from elastune.traces.workloads import BatchMode, Workload

_TRAINS = "profiling trains for real, and"
_CURVES, _TIMINGS = "Curves", "Timings on real workers (--gpus)"


Batch: TypeAlias = Literal["global", "per-worker"]
"""What the batch size of a configuration is of."""


_Workload = Annotated[
    str,
    typer.Argument(
        help="What is trained: a workload that ships, or a YAML file whose workload.trainable is your own.",
        autocompletion=complete_workload,
        show_default=False,
    ),
]
_Out = Annotated[
    Path | None,
    options.out_option(
        "Folder of the bundle.", "workload.bundle of a spec if it is a path, else results/bundles/<workload>"
    ),
]


def _count(told: str, default: str, panel: str, least: int = 1) -> Any:  # noqa: ANN401  as typer's own
    return count_option(least=least, help=told, show_default=default, rich_help_panel=panel)


_Trials = Annotated[int | None, _count("Configurations drawn from its search space.", "64", _CURVES)]
_Iterations = Annotated[int | None, _count("Iterations of each.", "27", _CURVES)]
_Jobs = Annotated[int | None, _count("Worker processes, one CPU slot each.", "the cores", _CURVES)]
_Seed = Annotated[int | None, _count("Of configurations, weights and the order of the data.", "0", _CURVES, least=0)]
_Again = Annotated[
    int | None, _count("Configurations, the first ones, trained again with other seeds.", "0", _CURVES, 0)
]
_Replicates = Annotated[int | None, _count("Trainings of each of these.", "2", _CURVES, 2)]
_Gpus = Annotated[
    str | None,
    typer.Option(metavar="1,2,4,4x2", help="Time gangs of so many GPUs (x nodes).", rich_help_panel=_TIMINGS),
]
_GpusPerNode = Annotated[int | None, _count("Of each node.", "as the gangs need, or the cluster has", _TIMINGS)]
_Batch = Annotated[
    Batch | None,
    typer.Option(
        help="Shared by the gang (strong scaling), or one each (weak).", show_default="global", rich_help_panel=_TIMINGS
    ),
]
_Configurations = Annotated[int | None, _count("Of the bundle, from cheap to dear.", "3", _TIMINGS)]
_Rounds = Annotated[int | None, _count("Fresh trials of each.", "2", _TIMINGS)]
_Seconds = Annotated[
    float | None, seconds_option(help="Of training per segment, at least.", show_default="2", rich_help_panel=_TIMINGS)
]
_Curves = Annotated[
    str | None,
    typer.Option(
        metavar="BUNDLE",
        help="Whose curves a new bundle has.",
        show_default="the one that ships",
        autocompletion=complete_bundle,
        rich_help_panel=_TIMINGS,
    ),
]


def profile(
    workload: _Workload,
    out: _Out = None,
    trials: _Trials = None,
    iterations: _Iterations = None,
    jobs: _Jobs = None,
    seed: _Seed = None,
    again: _Again = None,
    replicates: _Replicates = None,
    gpus: _Gpus = None,
    device: Annotated[options.Device | None, options.device_option(_TIMINGS)] = None,
    ray: Annotated[str | None, options.ray_option(_TIMINGS)] = None,
    gpus_per_node: _GpusPerNode = None,
    checkpoints: Annotated[str | None, options.checkpoints_option("in the bundle's folder", _TIMINGS)] = None,
    batch: _Batch = None,
    configurations: _Configurations = None,
    rounds: _Rounds = None,
    seconds: _Seconds = None,
    curves: _Curves = None,
    as_json: options.AsJson = False,
) -> None:
    """Train for real and write a bundle: its curves, or with --gpus its timings on workers; goes on where it stopped.

    Both write into the same folder: curves first, where the shipped ones do not serve.
    """
    from elastune.traces.workloads import workload_named

    spec = _spec_in(workload)
    trained = workload_named(workload) if spec is None else _own(Path(workload), spec)
    folder = out or _folder_of(spec, trained)
    effort = {"configurations": configurations, "rounds": rounds, "seconds": seconds}
    of_cluster = {"--device": device, "--ray": ray, "--gpus-per-node": gpus_per_node, "--checkpoints": checkpoints}
    if gpus is None:
        of_effort = {f"--{name}": number for name, number in effort.items()}
        others = of_cluster | {"--batch": batch} | of_effort | {"--curves": curves, "--json": as_json or None}
        options.refuse(others, "curves are recorded (--gpus 1,2 times workers)")
        if replicates is not None and not again:
            raise InputError(
                f"--replicates {replicates}: say with --again how many configurations are trained so often"
            )
        asked = (trials or 64, iterations or 27)
        drawn = (seed or 0, again or 0, replicates or 2)
        written = _record_curves(trained, *asked, options.cores(jobs), folder, *drawn)
        say(str(written))
        say(_measured(written, spec, workload))
        return
    of_curves = {"--trials": trials, "--iterations": iterations, "--jobs": jobs, "--seed": seed}
    of_curves |= {"--again": again, "--replicates": replicates}
    options.refuse(of_curves, "workers are timed (without --gpus, curves are recorded)")
    plan = _plan(gpus, device or "cpu", ray, gpus_per_node, effort)
    if not trained.trains_in_gangs and any(shape.gpus > 1 for shape in plan.shapes):
        raise InputError(
            f"--gpus {gpus}: {trained.name} trains on one GPU, as its class does not say `distributed = True`"
        )
    _show(_timed(trained, plan, folder, curves, batch or "global", checkpoints), as_json)


def _spec_in(workload: str) -> RunSpec | None:
    """The spec that is named in place of a workload; None where it is a workload."""
    from elastune.experiments.plans.plan_spec import load_plan_spec

    return load_plan_spec(workload) if workload.endswith((".yaml", ".yml")) else None


def _folder_of(spec: RunSpec | None, trained: Workload) -> Path:
    """Where the spec looks for its bundle, if that is a path, else where bundles are looked for by name."""
    from elastune.experiments.spec.places import OWN_BUNDLES

    named = None if spec is None else spec.workload.bundle
    is_path = named is not None and Path(named).name != named
    return Path(named) if named is not None and is_path else OWN_BUNDLES / trained.name


def _measured(folder: Path, spec: RunSpec | None, file: str) -> str:
    """What was recorded, and what comes next."""
    from elastune.experiments.spec.places import place_of_bundle
    from elastune.traces import load_bundle

    bundle = load_bundle(folder)
    told = (
        f"{bundle.trials} configurations, {bundle.max_iterations} iterations each, {bundle.iteration_s:.3g} s per iteration on"
        " average"
    )
    if spec is None:
        return f"{told}\nin a spec: workload.bundle: {folder}"
    try:
        is_named = (
            spec.workload.bundle is not None and place_of_bundle(spec.workload.bundle).resolve() == folder.resolve()
        )
    except InputError:
        is_named = False
    named = "" if is_named else f" --set workload.bundle={folder}"
    job = spec.job.tuning_job(bundle.direction)
    covers = bundle.trials >= job.trials and bundle.max_iterations >= job.max_iterations and not spec.draws_anew
    commands = ["plan", "compare"] if covers else ["plan"]
    return f"{told}\nnext: " + "; ".join(f"elastune {command} {file}{named}" for command in commands)


def _own(file: Path, spec: RunSpec) -> Workload:
    """The workload of the user's own training code that a spec names."""
    from elastune.experiments.runs.configurations import own_workload_of

    own = own_workload_of(spec, spec.job.direction)
    if own is None:
        raise InputError(
            f"{file}: workload.trainable is missing: name training code of your own, or give a workload that ships"
        )
    return own


def _plan(
    gpus: str, device: options.Device, ray: str | None, gpus_per_node: int | None, effort: Mapping[str, float | None]
) -> TimingPlan:
    """What is timed; effort that was not asked for is as usual."""
    require_installed(_TRAINS, "torch", "sklearn", "mlxtend", "ray", "psutil")
    from elastune.experiments.profiling.records import GangShape
    from elastune.experiments.profiling.timing_plan import TimingEffort, TimingPlan

    return TimingPlan(
        shapes=tuple(GangShape.parse(text, gpus_per_node) for text in gpus.split(",")),
        device=device,
        ray_address=ray,
        gpus_per_node=gpus_per_node,
        effort=TimingEffort(**{name: number for name, number in effort.items() if number is not None}),  # type: ignore[arg-type]
    )


def _record_curves(
    workload: Workload, trials: int, iterations: int, jobs: int, folder: Path, seed: int, again: int, replicates: int
) -> Path:
    if workload.repeats_itself:
        require_installed(_TRAINS, "torch", "sklearn", "mlxtend")
    from elastune.experiments.profiling.curves import profile_workload

    with options.progress("Profiling") as on_progress:
        return profile_workload(
            workload,
            trials,
            iterations,
            jobs,
            folder,
            seed,
            again=again,
            replicates=replicates,
            on_progress=lambda _phase, done, total: on_progress(done, total),
        )


def _timed(
    workload: Workload, plan: TimingPlan, folder: Path, curves: str | None, batch: BatchMode, checkpoints: str | None
) -> TimingProfile:
    from elastune.experiments.profiling.timed_bundle import profile_timing

    try:
        with options.progress("Timing gangs") as on_progress:
            return profile_timing(
                workload, plan, folder, curves=curves, batch=batch, checkpoints=checkpoints, on_progress=on_progress
            )
    except (WorkerError, KeyboardInterrupt):
        say("what was measured is kept: the same command goes on", err=True)
        raise


def _show(found: TimingProfile, as_json: bool) -> None:
    if as_json:
        options.print_json(found.to_json())
    else:
        print_timing(found)


_TOLD_FROM = 0.5
"""An interval that holds the median less surely than this is none."""


def print_timing(profile: TimingProfile) -> None:
    """Gangs, the seconds around training, spread, and how a spec takes them."""
    _gangs_table(profile).print()
    _around_table(profile).print()
    within, workers, configurations = map(_cv, profile.timing.spread)
    say(
        f"spread of an iteration: {within} within a segment, {workers} between fresh workers, {configurations} between"
        " configurations beyond their relative costs"
    )
    for remark in profile.remarks:
        say(f"note: {remark}")
    init_s = profile.startup.get("init_s")
    startup = (
        ".startup: what machines of your provider take; none was started for this"
        if init_s is None
        else f": {{startup: {{queue_s: 0, init_s: {init_s.value:.3g}}}}}"
    )
    say(f"In a spec:\n  workload: {{bundle: {profile.folder}}}\n  cloud{startup}\n{profile.folder}")


def _gangs_table(profile: TimingProfile) -> Table:
    found, timing = profile.surroundings.measured_on, profile.timing
    slots = f"{found.get('gpu')}" if profile.plan.device == "cuda" else f"CPU slots of {found.get('cpu')}"
    title = f"{profile.workload} on {slots}: an iteration at relative cost 1, without evaluation"
    table = Table(title, numbers("GPUs", "nodes", "seconds", "speed-up", "samples"))
    for shape, speedup in timing.speedups.items():
        train_s = timing.train_s[shape]
        table.add(shape.gpus, shape.nodes, _with_interval(train_s), _with_interval(speedup), speedup.samples)
    return table


def _around_table(profile: TimingProfile) -> Table:
    timing, init_s = profile.timing, profile.startup.get("init_s")
    named = {
        "iteration with its evaluation, on one GPU": timing.iteration_s,
        "evaluation": timing.evaluate_s,
        "launch of a new trial": timing.launch_s,
        "launch from a checkpoint": timing.resume_s,
        f"checkpoint of {timing.checkpoint_bytes / 1e6:.3g} MB": timing.checkpoint_s,
        "rescale: the checkpoint, and a launch from it": timing.rescale_s,
        **({} if init_s is None else {"node, from its launch to readiness": init_s}),
    }
    title = "Around it: medians, and an interval that holds the true one so surely"
    table = Table(title, [*key("what"), *numbers("seconds", "surely", "samples")])
    for what, estimate in named.items():
        surely = f"{estimate.coverage:.0%}" if estimate.coverage >= _TOLD_FROM else NONE
        table.add(what, _with_interval(estimate), surely, estimate.samples)
    return table


def _with_interval(estimate: Estimate) -> str:
    if estimate.coverage < _TOLD_FROM or estimate.low == estimate.high:
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _cv(cv: float | None) -> str:
    return "unknown" if cv is None else f"{cv:.0%}"
