"""Find what the named figures and claims need, and run what is missing.

Imports the other modules of `experiments.claims`, and sweeps. Each version of
results has a folder of its own, so that a figure never mixes two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from elastune.experiments.claims.entries import CATALOG, Claim, FigureEntry, SizeName, load_claims, load_workloads
from elastune.experiments.claims.figures import Source, check
from elastune.experiments.claims.made import make_bundle
from elastune.experiments.claims.plans import ClaimPlans, plans_of
from elastune.experiments.claims.real_runs import ClaimRealRuns
from elastune.experiments.claims.sweeps import ClaimSweep, LeftOut, sweeps_of
from elastune.experiments.claims.trainings import ClaimTrainings, trainings_of
from elastune.experiments.results_version import RESULTS_VERSION
from elastune.experiments.sweeps.run import SweepPlan, plan, run_sweep
from elastune.experiments.sweeps.store import Store
from elastune.sim.model.errors import InputError, unknown

PLANNING_JOBS = 2
"""Default number of processes that make plans."""


@dataclass(frozen=True)
class Asked:
    """A requested figure of the catalogue."""

    name: str
    claim: Claim
    drawn: FigureEntry


@dataclass(frozen=True, eq=False)
class Drawing:
    """The requested figures and tables, and the runs and plans that they need.

    Attributes:
        figures: to draw.
        tables: claims whose table is written: those of which every experiment is asked for.
        sweeps: runs that it takes.
        plans: plans that it takes.
        trainings: trained networks that it takes.
        real_runs: real runs that it reads.
        left_out: parts whose data is not there.
    """

    size: SizeName
    figures: Sequence[Asked]
    tables: Sequence[Claim]
    sweeps: Sequence[ClaimSweep]
    plans: Sequence[ClaimPlans]
    trainings: Sequence[ClaimTrainings]
    real_runs: Sequence[ClaimRealRuns]
    left_out: Sequence[LeftOut]

    @property
    def measured(self) -> list[ClaimTrainings | ClaimRealRuns]:
        """What was measured, and not simulated."""
        return [*self.trainings, *self.real_runs]

    def source(self, asked: Asked) -> Source:
        """The data of a figure."""
        mine = (asked.claim.id, asked.drawn.experiment)
        plans = next((each for each in self.plans if (each.claim.id, each.experiment) == mine), None)
        trainings = next((each for each in self.trainings if (each.claim.id, each.experiment) == mine), None)
        sweeps = [each for each in self.sweeps if (each.claim.id, each.experiment) == mine]
        return Source(asked.drawn, sweeps, plans, trainings)


def prepare(
    names: Sequence[str],
    size: SizeName,
    *,
    results: Path,
    data: Sequence[Path] = (),
    folder: Path = CATALOG,
    most_seeds: int | None = None,
) -> Drawing:
    """Find and check what these figures need. Nothing is run or written.

    Args:
        names: figures, or claims, which stand for all their figures and their table; none for everything.
        size: how much is run.
        results: where results of all claims and sizes lie.
        data: the folders of real data.
        folder: of the catalogue.
        most_seeds: fewer seeds than the size has, the first ones.

    Raises:
        InputError: a name is unknown (names the nearest), or a file of the catalogue is wrong.
    """
    claims, workloads = load_claims(folder), load_workloads(folder)
    asked = list(_asked(names, claims))
    for figure in asked:
        try:
            check(figure.drawn)
        except InputError as error:
            raise InputError(f"{figure.claim.id}: figures.{figure.name}: {error}") from error
    tables = [claim for claim in claims.values() if not names or claim.id in names]
    needed = {
        (claim.id, name): claim for claim in tables for name in (*claim.experiments, *claim.plans, *claim.trainings)
    }
    real_runs = [ClaimRealRuns.of(claim, name) for claim in tables for name in claim.real_runs]
    needed |= {(figure.claim.id, figure.drawn.experiment): figure.claim for figure in asked}
    at = results / f"v{RESULTS_VERSION}"
    sweeps: list[ClaimSweep] = []
    plans: list[ClaimPlans] = []
    trainings: list[ClaimTrainings] = []
    left_out: list[LeftOut] = []
    for (_, name), claim in needed.items():
        if name in claim.plans:
            plans.append(plans_of(claim, name, size, results=at, most_seeds=most_seeds))
        elif name in claim.trainings:
            trained, missing = trainings_of(claim, name, size, results=at, most_seeds=most_seeds)
            trainings += trained
            left_out += missing
        else:
            found, missing = sweeps_of(claim, name, size, workloads, results=at, data=data, most_seeds=most_seeds)
            sweeps += found
            left_out += missing
    return Drawing(size, asked, tables, sweeps, plans, trainings, real_runs, left_out)


def _asked(names: Sequence[str], claims: Mapping[str, Claim]) -> Iterator[Asked]:
    every = {name: Asked(name, claim, drawn) for claim in claims.values() for name, drawn in claim.figures.items()}
    for name in names:
        if name not in every and name not in claims:
            raise unknown("figure or claim", name, (*every, *claims))
    for name, asked in every.items():
        if not names or name in names or asked.claim.id in names:
            yield asked


SECONDS = {"seer": 0.2, "seer-staged": 0.3}
"""Seconds of one core that a run takes, by policy; measured on 3 GHz cores, over the workloads of the catalogue."""
OTHER_S, PLANNED_JOB_S, TRAINED_S = 0.03, 1.5, 2.0
"""The same of any other policy, of planning one job at all its deadlines, and of training a network of the smoke size."""


@dataclass(frozen=True, eq=False)
class Needed:
    """One needed sweep or set of plans, and how much of it is missing.

    Attributes:
        label: claim, experiment and workload.
        total: runs, or jobs that are planned.
        missing: of them.
        runs: the sweep beside what its folder holds; None for plans, and where runs were only counted.
    """

    label: str
    total: int
    missing: int
    part: ClaimSweep | ClaimPlans | ClaimTrainings
    runs: SweepPlan | None = None

    @property
    def core_s(self) -> float:
        """About how many seconds of one core the missing part takes."""
        if not isinstance(self.part, ClaimSweep):
            return (PLANNED_JOB_S if isinstance(self.part, ClaimPlans) else TRAINED_S) * self.missing
        policies = self.part.claim.experiments[self.part.experiment].policies
        each = [SECONDS.get(policy.partition(":")[0], OTHER_S) for policy in policies]
        return self.missing * sum(each) / max(len(each), 1)


def needed(
    drawing: Drawing,
    *,
    is_retrying: bool = False,
    is_counting: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> list[Needed]:
    """List every needed part and how much of it is missing. Bundles that follow from a formula are written.

    Args:
        drawing: what is asked for.
        is_retrying: whether runs that failed count as missing.
        is_counting: whether rows are only counted, which is quick: no run is checked then, and nothing is written.
        on_progress: called with what is looked up, how many parts are and how many there are.

    Raises:
        InputError: a cell is no run, or a folder is damaged or holds rows of another sweep.
    """
    told = []
    for done, sweep in enumerate(drawing.sweeps):
        on_progress(f"Looking up {sweep.label}", done, len(drawing.sweeps))
        if sweep.makes is not None and not is_counting:
            make_bundle(sweep.makes.name, sweep.makes.parent)
        told.append((_counted if is_counting else _planned)(sweep, is_retrying=is_retrying))
    told += [Needed(plans.label, len(plans.jobs), len(plans.missing()), plans) for plans in drawing.plans]
    tables = {one.file: one for one in drawing.trainings}  # claims share them
    return told + [Needed(one.label, one.total(), one.missing(), one) for one in tables.values()]


def _planned(sweep: ClaimSweep, *, is_retrying: bool) -> Needed:
    try:
        runs = plan(sweep.sweep, sweep.folder)
    except InputError as error:
        raise InputError(f"{sweep.label}: {error}") from error
    return Needed(sweep.label, len(runs.runs), len(runs.missing(is_retrying=is_retrying)), sweep, runs)


def _counted(sweep: ClaimSweep, *, is_retrying: bool) -> Needed:
    """Count rows: the folder's path names grid and results version, so its rows on these seeds belong to the sweep."""
    rows = Store(sweep.folder).columns("seed", "status").to_pylist()
    seeds, redone = set(sweep.sweep.seeds), ("failed",) if is_retrying else ()
    done = sum(row["seed"] in seeds and row["status"] not in redone for row in rows)
    return Needed(sweep.label, sweep.sweep.size(), sweep.sweep.size() - done, sweep)


@dataclass
class Failures:
    """Failed runs by part: their number, and the first error."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)


def run_missing(
    parts: Sequence[Needed],
    *,
    jobs: int | None = None,
    ray_address: str | None = None,
    is_retrying: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> Failures:
    """Run and plan what is missing. After any interruption, a later call continues.

    Args:
        parts: from `needed`.
        jobs: processes; left out, 2, or all CPUs of a Ray cluster.
        ray_address: of a Ray cluster that does the runs; plans are made here.
        is_retrying: whether runs that failed are run again.
        on_progress: called with what is under way, how much is done and how much there is, over everything.

    Raises:
        InputError: another process writes to a folder, or the cluster is not there.
        StoreError: the disk is full.
        WorkerError: a worker died.
    """
    failures, before, total = Failures(), 0, sum(part.missing for part in parts)
    for part in parts:

        def tell(done: int, _of: int = 0, label: str = part.label, before: int = before) -> None:
            on_progress(label, before + done, total)

        match part.part:
            case ClaimPlans() as plans:
                plans.run(PLANNING_JOBS if jobs is None or ray_address is not None else jobs, tell)
            case ClaimTrainings() as trainings:
                trainings.run(tell)
            case ClaimSweep() as sweep:
                assert part.runs is not None
                outcome = run_sweep(
                    part.runs,
                    sweep.folder,
                    jobs=jobs,
                    ray_address=ray_address,
                    is_retrying=is_retrying,
                    with_journals=sweep.keeps_journals,
                    on_progress=tell,
                )
                if outcome.counts["failed"]:
                    errors = [str(told["error"]) for told in outcome.failures] or ["it failed in an earlier run"]
                    failures.counts[part.label], failures.first[part.label] = outcome.counts["failed"], errors[0]
        before += part.missing
    return failures
