"""Turn an experiment of a claim into sweeps, one for each workload whose data is there.

Imports the sweep spec, the entries of the catalogue, sim.model and traces. T and B are multiples of what the workload itself
takes: R tau, the seconds of one configuration to R on one GPU, and c R tau, what these cost on one GPU at the price of the
machine over its GPUs.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastune.experiments.claims.entries import (
    FIRST_SEED,
    Claim,
    ClaimWorkload,
    Experiment,
    PlanExperiment,
    Size,
    SizeName,
)
from elastune.experiments.spec.places import DATA_VARIABLE, find_data
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.sweeps.grid import SweepSpec
from elastune.sim.model.errors import InputError
from elastune.sim.model.prices import ON_DEMAND, SECONDS_PER_HOUR
from elastune.traces import repeating_phrase

DEADLINE, BUDGET = "job.deadline_s", "job.budget_usd"


@dataclass(frozen=True)
class LimitUnits:
    """The units of T and B.

    Attributes:
        deadline_s: R tau.
        budget_usd: c R tau.
    """

    deadline_s: float
    budget_usd: float


@dataclass(frozen=True, eq=False)
class ClaimSweep:
    """The runs of an experiment on one workload.

    Attributes:
        folder: of its results.
        makes: where it lies, the bundle that follows from a formula and is written before anything runs; else None.
    """

    claim: Claim
    experiment: str
    workload: str
    sweep: SweepSpec
    folder: Path
    units: LimitUnits
    makes: Path | None = None

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return f"{self.claim.id} {self.experiment}, {self.workload}"

    @property
    def keeps_journals(self) -> bool:
        """Whether its figures read what happens within runs."""
        return self.claim.experiments[self.experiment].journals


@dataclass(frozen=True)
class LeftOut:
    """A part of an experiment that is left out, and the reason."""

    claim: str
    experiment: str
    workload: str
    reason: str


def sweeps_of(
    claim: Claim,
    name: str,
    size: SizeName,
    workloads: Mapping[str, ClaimWorkload],
    *,
    results: Path,
    data: Sequence[Path] = (),
    most_seeds: int | None = None,
) -> tuple[list[ClaimSweep], list[LeftOut]]:
    """Build the sweeps of an experiment, and list the parts whose data is missing. Nothing is written.

    Args:
        claim: of the catalogue.
        name: of the experiment.
        size: how much is run.
        workloads: of the catalogue.
        results: the folder in which results of all claims lie.
        data: the folders of real data.
        most_seeds: fewer seeds than the size has, the first ones.

    Raises:
        InputError: the experiment is none, draws more than a quarter of a pool, or changes what T and B are multiples of.
    """
    experiment = claim.experiments[name]
    chosen = experiment.size(size)
    sweeps, left_out = [], []
    for workload_name in chosen.workloads or experiment.workloads:
        workload = workloads[workload_name]
        bundle = _bundle_of(workload, data, results)
        if bundle is None:
            left_out.append(LeftOut(claim.id, name, workload_name, _absent(workload.bundle, data)))
            continue
        base = merged(workload.base, experiment.base, {"workload": {"bundle": bundle}})
        label = f"{claim.id}: {name}: {workload_name}"
        try:
            units = _units(base)
            sweep = SweepSpec.of(_document(base, experiment, chosen, units, seeds_of(chosen, size, most_seeds)))
            _check_pool(sweep, workload)
        except InputError as error:
            raise InputError(f"{label}: {error}") from error
        folder = results / size / claim.id / name / f"{workload_name}-{_digest(sweep)}"
        makes = Path(bundle) if workload.origin == "made" else None
        sweeps.append(ClaimSweep(claim, name, workload_name, sweep, folder, units, makes))
    return sweeps, left_out


def _digest(sweep: SweepSpec) -> str:
    """Digest of everything but the seeds: a sweep may grow by seeds, but another grid is another sweep."""
    document = {**sweep.to_dict(), "seeds": []}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:8]


def _bundle_of(workload: ClaimWorkload, data: Sequence[Path], results: Path) -> str | None:
    """The bundle as a run spec names it; None if it is not there."""
    if workload.origin == "shipped":
        return workload.bundle
    if workload.origin == "made":
        return str(results / "bundles" / workload.bundle)
    file = find_data(Path(workload.bundle) / "bundle.yaml", data)
    return None if file is None else str(file.parent)


def _absent(bundle: str, data: Sequence[Path]) -> str:
    if not data:
        return f"{bundle} does not ship; say where it is with --data, {DATA_VARIABLE} or a configuration file"
    return f"{bundle} is not in {', '.join(map(str, data))}"


def _document(
    base: dict[str, Any], experiment: Experiment, size: Size, units: LimitUnits, seeds: list[int]
) -> dict[str, Any]:
    axes = {**experiment.axes, **size.axes}
    for key, multiples, unit in (
        (DEADLINE, size.deadlines or experiment.deadlines, units.deadline_s),
        (BUDGET, size.budgets or experiment.budgets, units.budget_usd),
    ):
        if multiples:
            # Six digits, so that the printed value is the value of the run.
            axes[key] = [float(f"{multiple * unit:.6g}") for multiple in multiples]
    return {"base": base, "axes": axes, "zip": experiment.zip, "seeds": seeds}


def seeds_of(size: Size, name: SizeName, most: int | None = None) -> list[int]:
    """The seeds of a size, so many at most."""
    count = size.seeds if most is None else min(size.seeds, most)
    return list(range(FIRST_SEED[name], FIRST_SEED[name] + count))


def plan_sweep(experiment: PlanExperiment, size: SizeName, most_seeds: int | None = None) -> SweepSpec:
    """The cells that an experiment on plans plans, as a sweep whose policy does not matter.

    Raises:
        InputError: a cell is no job.
    """
    chosen = experiment.size(size)
    base = merged({"policy": "rubberband"}, experiment.base)
    axes = {**experiment.axes, **chosen.axes}
    return SweepSpec.of(
        {"base": base, "axes": axes, "zip": experiment.zip, "seeds": seeds_of(chosen, size, most_seeds)}
    )


def merged(*documents: Mapping[str, Any]) -> dict[str, Any]:
    """One document of several; where two give a key, the later one holds, section by section.

    A stage list takes the place of the numbers that say the same.
    """
    together: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            is_section = isinstance(value, dict) and isinstance(together.get(key), dict) and key in _SECTIONS
            together[key] = merged(together[key], value) if is_section else copy.deepcopy(value)
    job = together.get("job")
    if isinstance(job, dict) and "stages" in job:
        together["job"] = {key: value for key, value in job.items() if key not in _SAID_BY_STAGES}
    return together


_SECTIONS = ("job", "workload", "cloud")
_SAID_BY_STAGES = ("trials", "min_iterations", "max_iterations", "reduction_factor")


def _units(base: Mapping[str, Any]) -> LimitUnits:
    spec = RunSpec.of(**{"policy": "seer", **base})
    seconds = r_tau_s(spec)
    machine = spec.cloud.instance_type.instance_type(spec.cloud.prices, spec.cloud.region)
    price = machine.usd_per_hour[ON_DEMAND]
    if not isinstance(price, int | float):
        raise InputError(f"the price of {machine.name} changes: budgets are told as multiples of one price")
    return LimitUnits(seconds, seconds * price / machine.gpus_per_instance / SECONDS_PER_HOUR)


def r_tau_s(spec: RunSpec) -> float:
    """R tau: the seconds that one configuration takes to R on one GPU.

    Raises:
        InputError: the spec does not say the seconds per iteration.
    """
    if spec.workload.iteration_s is None:
        raise InputError("workload.iteration_s is missing: T and B are told as multiples of R tau")
    return _iterations(spec) * spec.workload.iteration_s


def _iterations(spec: RunSpec) -> int:
    if spec.job.stages is not None:
        return sum(further for _, further in spec.job.stages)
    assert spec.job.max_iterations is not None  # a job without stages has it
    return spec.job.max_iterations


_SIZES = ("job", "job.trials", "job.stages")
"""Keys that decide how many configurations a run draws."""


def _check_pool(sweep: SweepSpec, workload: ClaimWorkload) -> None:
    """Check one cell of each size, which is quick even for thousands of cells."""
    for cell in sweep.narrowed(_SIZES).cells():
        drawn = cell.spec.job.tuning_job("minimize").trials
        if phrase := repeating_phrase(drawn, workload.pool):
            raise InputError(f"cell {cell.label}: {phrase}")
