"""Corrects a profile by the journals of real runs, and tests it on runs that were not used."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from elastune.experiments.fidelity.analysis import CheckedRun, checked_runs
from elastune.experiments.fidelity.draws import Noise
from elastune.experiments.fidelity.measures import HEADS, RunNumbers
from elastune.experiments.fidelity.simulations import with_noise
from elastune.experiments.fidelity.sitting import NO_FAULTS, SEGMENTS_FILE, profile_in
from elastune.experiments.profiling.estimates import Timing, mean_and_cv, timing_of
from elastune.experiments.profiling.records import SegmentRecord
from elastune.experiments.profiling.work_folder import copy_bundle, rounded
from elastune.experiments.runs.run_folder import claim_folder
from elastune.experiments.runs.world import World
from elastune.experiments.spec.run import RunSpec
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import GoneCause, Outcome
from elastune.sim.model.prices import SECONDS_PER_HOUR
from elastune.traces import Bundle, load_bundle
from elastune.traces.formats.yaml_text import dump_yaml, parse_yaml

if TYPE_CHECKING:
    from elastune.experiments.runs.fold import Lease

_HELD_OUT = 3
"""One run in so many is not used, but predicted anew."""
_DRAWS = 20


class Change(NamedTuple):
    """A number of the profile, before and after."""

    name: str
    before: float | None
    after: float


class CloudSeen(NamedTuple):
    """The cloud as the runs saw it, for a spec.

    Attributes:
        queue_s: mean seconds from request to launch.
        init_s: mean seconds from launch to readiness.
        init_cv: coefficient of variation of it.
        instance_loss_per_hour: of running machines.
        segment_failure_per_hour: of running segments.
    """

    queue_s: float
    init_s: float
    init_cv: float
    instance_loss_per_hour: float
    segment_failure_per_hour: float

    @property
    def faults(self) -> dict[str, float]:
        """The two rates, as a spec takes them."""
        return {name: getattr(self, name) for name in NO_FAULTS}


@dataclass(frozen=True)
class CalibratedProfile:
    """A profile that was written.

    Attributes:
        folder: of it.
        used: runs that it is from.
        changes: of its numbers.
        cloud: what a spec says of machines.
        checked: by run that was not used, error of the makespan and of the cost: before, after.
    """

    folder: Path
    used: int
    changes: list[Change]
    cloud: CloudSeen
    checked: dict[str, dict[str, tuple[float, float]]]

    def means(self) -> dict[str, tuple[float, float]]:
        """Mean absolute errors over the runs that were not used, before and after."""
        return {
            name: cast(
                "tuple[float, float]",
                tuple(statistics.fmean(abs(run[name][at]) for run in self.checked.values()) for at in (0, 1)),
            )
            for name in HEADS[:2]
        }


def calibrate(folders: Sequence[Path], out: Path) -> CalibratedProfile:
    """Write the profile of a workload with the numbers of real runs.

    Args:
        folders: sittings of fidelity, all of one profile.
        out: folder of the new bundle; must not exist.

    Raises:
        InputError: a sitting proves nothing, there are several profiles, too few runs, or the folder is there.
    """
    if out.exists():
        raise InputError(f"{out} is there already: name another folder (-o)")
    runs = checked_runs(folders)
    if len(shas := {profile_in(run.unit.bundle)[0].sha256 for run in runs}) > 1:
        raise InputError(f"the sittings are of {len(shas)} profiles: calibrate one after the other")
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run is too few: one is needed to learn from, and one to see whether it helped")
    held_out = runs[_HELD_OUT - 1 :: _HELD_OUT] if len(runs) >= _HELD_OUT else runs[-1:]
    used = [run for run in runs if run not in held_out]
    bundle, _ = profile_in(used[0].unit.bundle)
    series = [records for run in used for records in _series(run, bundle)]
    if not any(record.gpus == 1 for records in series for record in records):
        raise InputError("no run trained on a single GPU, with which everything is compared")
    cloud = _cloud(used)
    changes = _write(used, bundle, series, cloud, out)
    after, flat = load_bundle(out), [record for records in series for record in records]
    noise = Noise.of(flat, after.relative_cost.tolist(), after.iteration_s or 1.0, 0.0)
    checked = {run.unit.name: _errors_after(run, after, noise, cloud) for run in held_out}
    return CalibratedProfile(out, len(used), changes, cloud, checked)


def _series(run: CheckedRun, bundle: Bundle) -> Iterator[list[SegmentRecord]]:
    """The whole segments of each trial of a real run, as a profile keeps those that it timed."""
    rows = bundle.draw(run.unit.spec.job.tuning_job(bundle.direction).trials, run.unit.spec.seed)
    spread = bundle.stragglers.per_iteration_cv if bundle.stragglers is not None else 0.0
    by_trial: dict[int, list[SegmentRecord]] = {}
    for segment in run.tables[0].segments:
        ended, command = segment.ended, segment.command
        done = 0 if ended is None else ended.iteration - command.from_iteration
        if ended is None or done <= 0 or ended.outcome is not Outcome.COMPLETED:
            continue
        iteration_s = ended.train_s / done
        share = (bundle.evaluate_s or 0.0) / bundle.iteration_s if bundle.iteration_s else 0.0
        records = by_trial.setdefault(command.trial, [])
        records.append(
            SegmentRecord(
                series=0, row=int(rows[command.trial]), round=run.unit.repeat, gpus=segment.gpus,
                nodes=len(command.placement), is_fresh=command.restore_from is None, iterations=done,
                launch_s=ended.launch_s, warm_up_s=0.0, train_s=iteration_s * (1 - share),
                evaluate_s=iteration_s * share, iteration_s=iteration_s, mean_iteration_s=iteration_s,
                iteration_cv=spread, checkpoint_s=ended.checkpoint_s,
                checkpoint_bytes=round(bundle.checkpoint_bytes or 0),
            )
        )  # fmt: skip
    yield from by_trial.values()


def _write(
    used: Sequence[CheckedRun],
    bundle: Bundle,
    series: Sequence[Sequence[SegmentRecord]],
    cloud: CloudSeen,
    out: Path,
) -> list[Change]:
    """Write the bundle and return what changed; numbers that the journals do not know stay."""
    import pandas as pd

    changes = _changes(timing_of(series, {row: float(cost) for row, cost in enumerate(bundle.relative_cost)}), bundle)
    with tempfile.TemporaryDirectory() as made:
        staging = Path(made) / "bundle"
        copy_bundle(used[0].unit.bundle, staging)
        # Delays and losses that were added to the runs are those of a spec, not of these machines.
        machines = {} if any(run.unit.injects for run in used) else _machines(used, cloud)
        _rewrite(staging / "bundle.yaml", changes, machines, f"measured: journals of {len(used)} real runs; median")
        rows = [msgspec.to_builtins(record) for records in series for record in records]
        pd.DataFrame(rows).to_csv(staging / SEGMENTS_FILE, index=False, lineterminator="\n")
        load_bundle(staging)
        claim_folder(out, "bundle")
        copy_bundle(staging, out)
    return changes


def _changes(timing: Timing, bundle: Bundle) -> list[Change]:
    """What the journals measured, beside what the bundle says; the spread only where it was measured."""
    measured = {
        "launch_s": timing.launch_s.value,
        "checkpoint_s": timing.checkpoint_s.value,
        "rescale_s": max(timing.rescale_s.value, timing.checkpoint_s.value),
    }
    changes = [Change("iteration_s", bundle.iteration_s, timing.iteration_s.value)]
    changes += [Change(name, getattr(bundle.timings, name, None), value) for name, value in measured.items()]
    if timing.spread.persistent is not None:
        was = getattr(bundle.stragglers, "persistent_cv", None)
        changes.append(Change("straggler.persistent_cv", was, timing.spread.persistent))
    return changes


def _machines(runs: Sequence[CheckedRun], cloud: CloudSeen) -> dict[str, object]:
    """What later sittings take from the profile about machines: see `node_starts_s` and `faults_of`."""
    return {
        "node_starts_s": [rounded(lease.ready_s - lease.launched_s) for lease in _ready(runs)],
        "faults": {name: rounded(rate) for name, rate in cloud.faults.items()},
    }


def _rewrite(header: Path, changes: Sequence[Change], machines: Mapping[str, object], how: str) -> None:
    """Put the new numbers into a bundle.yaml, and where they are from."""
    told = cast("dict[str, Any]", parse_yaml(header.read_text(encoding="utf-8"), str(header)))
    for change in changes:
        section, _, key = change.name.rpartition(".")
        number = {key: rounded(change.after)}
        told |= {section: {**(told.get(section) or {}), **number}} if section else number
    if machines:
        told["timing"] = {**told.get("timing", {}), **machines}
    told["provenance"] = {**told.get("provenance", {}), **{change.name: how for change in changes}}
    header.write_text(dump_yaml(told), encoding="utf-8")


def _ready(runs: Sequence[CheckedRun]) -> list[Lease]:
    return [lease for run in runs for lease in run.tables[0].leases if not math.isnan(lease.ready_s)]


def _cloud(runs: Sequence[CheckedRun]) -> CloudSeen:
    leases = _ready(runs)
    if not leases:
        raise InputError("no machine of these runs ever became ready")
    init_s = [lease.ready_s - lease.launched_s for lease in leases]
    lived_s = sum(
        (run.tables[0].finished_s if math.isnan(lease.ended_s) else lease.ended_s) - lease.launched_s
        for run in runs
        for lease in run.tables[0].leases
        if not math.isnan(lease.launched_s)
    )
    segments = [segment for run in runs for segment in run.tables[0].segments if segment.ended is not None]
    ran_s = sum(segment.ended.at_s - segment.started_s for segment in segments if segment.ended is not None)
    failed = sum(segment.ended is not None and segment.ended.outcome is Outcome.FAILED for segment in segments)
    lost = sum(lease.cause is GoneCause.LOST for lease in leases)
    return CloudSeen(
        statistics.fmean(lease.launched_s - lease.requested_s for lease in leases),
        *mean_and_cv(init_s),
        lost / lived_s * SECONDS_PER_HOUR if lived_s else 0.0,
        failed / ran_s * SECONDS_PER_HOUR if ran_s else 0.0,
    )


def _errors_after(run: CheckedRun, bundle: Bundle, noise: Noise, cloud: CloudSeen) -> dict[str, tuple[float, float]]:
    """Relative errors of a run's old prediction, and of a new one from the calibrated profile and start-up."""
    told = run.unit.spec.to_dict()
    # What a spec states itself is what the profile knows better now.
    told["workload"] = {"bundle": told["workload"]["bundle"]} | {
        key: told["workload"][key] for key in ("scaling", "profile") if key in told["workload"]
    }
    told["cloud"].pop("rescale_s", None)
    told["cloud"]["startup"] = {
        "queue_s": cloud.queue_s, "init_s": {"mean_s": cloud.init_s, "cv": cloud.init_cv}
    }  # fmt: skip
    told["cloud"]["faults"] = cloud.faults
    world = World.of(RunSpec.of(**told), bundle)
    drawn = [RunNumbers.of(with_noise(world, noise, number)).quantities for number in range(_DRAWS)]
    found = {}
    for name in HEADS[:2]:
        real, guess = run.real.quantities[name], run.guesses[name]
        found[name] = (guess.value / real - 1, statistics.median(one[name] for one in drawn) / real - 1)
    return found
