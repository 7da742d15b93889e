"""Runs a sitting: profile, predict, calibrate, run for real. A second call continues where the first one stopped."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastune.experiments.fidelity.prediction import DRAWS, predict, sha256_of
from elastune.experiments.fidelity.sitting import (
    Began,
    Calibration,
    Ended,
    JobAsked,
    Sitting,
    SittingAsked,
    Unit,
    faults_of,
    node_starts_s,
    profile_in,
    read_note,
    write_note,
)
from elastune.experiments.fidelity.trainings import differences
from elastune.experiments.files import locked
from elastune.experiments.own_code import changed_phrase
from elastune.experiments.profiling.curves import probe
from elastune.experiments.profiling.estimates import Estimate, mean_and_cv
from elastune.experiments.profiling.records import GangShape
from elastune.experiments.profiling.timed_bundle import profile_timing
from elastune.experiments.profiling.timing_plan import TimingEffort, TimingPlan, rows_to_time
from elastune.experiments.profiling.work_folder import copy_bundle
from elastune.experiments.real.options import RealRunOptions
from elastune.experiments.real.run import execute_real
from elastune.experiments.real.slots import require_installed
from elastune.experiments.real.trainables import seed_of_profile
from elastune.experiments.runs.configurations import own_workload_of
from elastune.experiments.runs.journals import with_named_training
from elastune.experiments.runs.world import most_gpus
from elastune.experiments.spec.places import place_of_bundle
from elastune.experiments.spec.run import RunSpec
from elastune.sim.model.errors import InputError
from elastune.traces import Bundle, bundle_folder, load_bundle

if TYPE_CHECKING:
    from elastune.traces.workloads import Workload

_CALIBRATED_S = 1.0
"""Seconds of training in a calibration, at the speed of the bundle."""
EFFORT = TimingEffort(node_starts=8)
_TAKEN = "another process is at this sitting"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The options of a sitting.

    Attributes:
        specs: by the name of the job.
        policies: with their parameters.
        repeats: seeds.
        device: what a slot is.
        bundle: profile to predict from; None to profile here.
        speed: of emulated workers; None to train.
        injects: whether the spec's start-up delays and losses are added.
        effort: of the profile; what it leaves out is decided here.
        draws: simulations behind an interval.
    """

    specs: Mapping[str, RunSpec]
    policies: Sequence[str]
    repeats: int = 1
    device: Any = "cpu"
    bundle: str | None = None
    speed: float | None = None
    injects: bool = False
    effort: TimingEffort = EFFORT
    draws: int = DRAWS


def measure(asked: Measurement, folder: Path, on_progress: Callable[[int, int, str], None]) -> Sitting:
    """Measure everything that is not in the folder yet.

    Args:
        asked: of the sitting.
        folder: of it.
        on_progress: called with runs done, all runs, and what is under way.

    Raises:
        InputError: something asked for cannot be run, or the folder is another's.
        WorkerError: a real run broke down; the same call goes on.
    """
    RealRunOptions(device=asked.device, speed=asked.speed, injects=asked.injects)  # refuses what it cannot be
    places: dict[str, Path] = {}
    for name, spec in asked.specs.items():
        bundle = _require_possible(asked, name, spec)
        source = _source(asked, spec).resolve()
        if places.setdefault(bundle.name, source) != source:
            raise InputError(
                f"{name}: its bundle {source} and {places[bundle.name]} are both called {bundle.name}:"
                " measure them into two folders (-o)"
            )
    with locked(folder, _TAKEN):
        for name, spec in asked.specs.items():
            on_progress(0, 1, f"profile for {name}")
            _profile(asked, spec, folder)
        jobs = [_job(asked, name, spec, folder) for name, spec in asked.specs.items()]
        sitting = Sitting.begin(
            folder, SittingAsked(jobs, list(asked.policies), asked.repeats, asked.device, asked.speed, asked.injects)
        )
        units = list(sitting.units())
        for number, unit in enumerate(units):
            on_progress(number, len(units), unit.name)
            if not unit.is_done:
                _run(sitting, unit, asked)
        on_progress(len(units), len(units), "done")
    return sitting


def _require_possible(asked: Measurement, name: str, spec: RunSpec) -> Bundle:
    """The bundle of a job; what is known to fail later is refused while nothing is written yet."""
    if spec.workload.bundle is None:
        raise InputError(f"{name}: workload.bundle is missing: a real run needs a workload")
    spec.require_simulable()
    bundle = spec.bundle() if asked.bundle is None else load_bundle(_source(asked, spec))
    if asked.speed is None:
        _workload(spec, bundle)
        if asked.bundle is None:
            rows_to_time(bundle, _effort(asked, spec, bundle))
    return bundle


# The profile.


def _source(asked: Measurement, spec: RunSpec) -> Path:
    return place_of_bundle(spec.workload.bundle or "") if asked.bundle is None else bundle_folder(asked.bundle)


def _profile(asked: Measurement, spec: RunSpec, folder: Path) -> None:
    """The profile of a job's workload, in the sitting's folder, unless it is there."""
    source = _source(asked, spec)
    bundle = load_bundle(source)
    target = folder / "bundles" / bundle.name
    if (target / "bundle.yaml").is_file() and not (target / ".partial").exists():
        if asked.speed is None:
            _workload(spec, load_bundle(target))  # the code may have changed since
        return
    if asked.bundle is not None or asked.speed is not None:
        copy_bundle(source, target)
    else:
        workload = _workload(spec, bundle)
        shapes = _shapes(_alike(asked, spec)) if workload.trains_in_gangs else (GangShape(1, 1),)
        plan = TimingPlan(shapes=shapes, device=asked.device, effort=_effort(asked, spec, bundle))
        profile_timing(workload, plan, target, curves=str(source))
    calibration = _calibrate(spec, bundle)
    if calibration is not None:
        write_note(folder / "bundles" / f"{bundle.name}.json", calibration)


def _workload(spec: RunSpec, bundle: Bundle) -> Workload:
    """What trains: the spec's own code, or the workload that ships.

    Raises:
        InputError: the bundle was recorded with other code, or of nothing that can be trained here.
    """
    from elastune.traces.workloads import workload_named

    own = own_workload_of(spec, spec.job.direction or bundle.direction)
    if own is None:
        seed_of_profile(bundle)
        return workload_named(bundle.name)
    if phrase := changed_phrase(bundle.source, own.source):
        raise InputError(
            f"bundle {bundle.name} {phrase}: record it anew (elastune profile), and measure into another folder (-o)"
        )
    return own


def _alike(asked: Measurement, spec: RunSpec) -> list[RunSpec]:
    """The jobs of the sitting that share the bundle of this one."""
    return [one for one in asked.specs.values() if _source(asked, one) == _source(asked, spec)]


def _effort(asked: Measurement, spec: RunSpec, bundle: Bundle) -> TimingEffort:
    """The effort of the profile, which leaves out what the runs train."""
    rows = {int(row) for one in _alike(asked, spec) for row in _drawn(bundle, one, asked.repeats)}
    return replace(asked.effort, left_out=tuple(sorted(rows)))


def _drawn(bundle: Bundle, spec: RunSpec, repeats: int) -> set[int]:
    trials = spec.job.tuning_job(bundle.direction).trials
    return {int(row) for seed in range(spec.seed, spec.seed + repeats) for row in bundle.draw(trials, seed)}


def _shapes(specs: Sequence[RunSpec]) -> tuple[GangShape, ...]:
    """Gangs of 1, 2, 4 and so on, up to what machines and quota of the specs allow."""
    found = set()
    for spec in specs:
        book = spec.price_book()
        per_node, gpus = most_gpus(book), 1
        while gpus <= per_node * book.max_instances:
            found.add(GangShape(gpus, -(-gpus // per_node)))
            gpus *= 2
    return tuple(sorted(found))


def _job(asked: Measurement, name: str, spec: RunSpec, folder: Path) -> JobAsked:
    """The job on the profile: measured numbers replace the assumptions of the spec."""
    bundle = load_bundle(_source(asked, spec))
    target = folder / "bundles" / bundle.name
    profile = load_bundle(target)
    told = spec.to_dict()
    told["workload"]["bundle"] = str(target)
    if not asked.injects:
        told["cloud"]["faults"] = faults_of(profile)
    if asked.speed is None:
        kept = {"bundle", "batch", "profile", "trainable", "space"}
        if profile.scaling is None:  # it was not timed
            kept.add("scaling")
        told["workload"] = {key: value for key, value in told["workload"].items() if key in kept}
        told["cloud"].pop("rescale_s", None)
        if not asked.injects:
            told["cloud"]["startup"] = _startup(profile) or told["cloud"]["startup"]
    RunSpec.of(**told)
    return JobAsked(name, told, bundle.name)


def _startup(bundle: Bundle) -> dict[str, Any] | None:
    """How long a node took to start when the bundle was timed; None where none was started."""
    starts_s = node_starts_s(bundle)
    if not starts_s:
        return None
    mean_s, cv = mean_and_cv(starts_s)
    return {"queue_s": 0.0, "init_s": {"mean_s": round(mean_s, 4), "cv": round(cv, 4)}}


# Calibration.


def _calibrate(spec: RunSpec, bundle: Bundle) -> Calibration | None:
    """Time the bundle's first configuration in a fresh process; None where nothing is there that trains it."""
    seed = bundle.notes.get("seed")
    if not isinstance(seed, int):
        return None
    try:
        workload = _workload(spec, bundle)
        if workload.repeats_itself:
            require_installed("a calibration", "torch", "sklearn", "mlxtend")
    except InputError:
        return None
    count = min(max(round(_CALIBRATED_S / (bundle.iteration_s or _CALIBRATED_S)), 3), 100)
    found = probe(workload, seed, 0, count)
    median = Estimate.of(found.iteration_seconds)
    assert median is not None  # at least three were timed
    return Calibration(median.value, found.launch_s, os.getloadavg()[0] / (os.cpu_count() or 1))


def _calibrations(unit: Unit, earlier: Sequence[Unit]) -> list[Calibration]:
    """The calibrations of the unit's workload so far; that of its profile comes first."""
    path = unit.bundle.with_name(f"{unit.bundle.name}.json")
    if not path.is_file():
        return []
    found = [read_note(path, Calibration)]
    for other in earlier:
        before = read_note(other.folder / "began.json", Began).before
        after = read_note(other.folder / "ended.json", Ended).after
        found += [one for one in (before, after) if one is not None]
    return found


# A run.


def _run(sitting: Sitting, unit: Unit, asked: Measurement) -> None:
    """Predict, calibrate, run, calibrate. The remains of an interrupted call are deleted."""
    # Nothing that a folder names is run, so the training code is that of the specs that were asked for.
    spec = with_named_training(unit.spec, asked.specs[unit.job].workload.trainable, sitting.folder)
    shutil.rmtree(unit.folder, ignore_errors=True)
    unit.folder.mkdir(parents=True)
    bundle, _ = profile_in(unit.bundle)
    earlier = [other for other in sitting.units() if other.bundle == unit.bundle and other.is_done]
    known = _calibrations(unit, earlier)
    trained = [difference for other in earlier for difference in differences(other)]
    write_note(unit.folder / "prediction.json", predict(unit, time.time(), known, asked.draws, trained))
    before = _calibrate(spec, bundle)
    profiled = known[0] if known else None
    write_note(unit.folder / "began.json", Began(time.time(), sha256_of(unit), profiled, before))
    options = RealRunOptions(device=asked.device, speed=asked.speed, injects=asked.injects)
    execute_real(spec, unit.folder / "run", options).write()
    shutil.rmtree(unit.folder / "run" / "checkpoints", ignore_errors=True)
    write_note(unit.folder / "ended.json", Ended(time.time(), _calibrate(spec, bundle)))
