"""Statistics over the checked runs: bias, coverage, equivalence, and whether differences between policies are kept.

Imports numpy, and scipy.stats inside.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from elastune.experiments.fidelity.measures import HEADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.experiments.fidelity.analysis import CheckedRun

MARGIN = 0.05
"""Prediction and reality are called equal within this share."""
FEWEST = 6
"""Repeats that the test of equivalence needs [ours]: with fewer its interval is wider than any margin of use."""
_LEAST_SHARE = 0.5


class Errors(NamedTuple):
    """Relative errors of one quantity over runs; of the score and of parts that may be 0, in their own unit.

    Attributes:
        runs: that have it.
        bias: mean of prediction minus reality.
        error: mean of the absolute values.
        parameters: mean of the part that the profile did not know.
        structure: mean of the part that the simulator does otherwise.
        structure_error: mean of its absolute values.
        coverage: share of runs in whose interval reality lies.
    """

    runs: int
    bias: float
    error: float
    parameters: float
    structure: float
    structure_error: float
    coverage: float


class Equivalence(NamedTuple):
    """Two one-sided t tests of the mean relative error against the margin, at 5 %.

    Attributes:
        low: lower end of the 90 % interval of the mean.
        high: upper end.
        p: the larger of both.
        is_equal: whether both reject, so that prediction and reality are equal within the margin.
    """

    low: float
    high: float
    p: float
    is_equal: bool


class Pair(NamedTuple):
    """Two policies on the same job: the mean difference, first minus second over the second, predicted and real."""

    first: str
    second: str
    predicted: float
    real: float

    @property
    def is_kept(self) -> bool:
        """Whether prediction and reality have the same sign."""
        return self.predicted * self.real > 0 or self.predicted == self.real


@dataclass(frozen=True)
class Group:
    """All runs of one job under one policy; the empty policy stands for all of them, which are no repeats of each other."""

    job: str
    policy: str
    runs: int
    trained: float
    starting: float
    drift: tuple[float, float] | None
    heads: dict[str, Errors]
    equivalence: dict[str, Equivalence]
    same_decisions: int
    same_decisions_measured: int
    in_common: float


@dataclass(frozen=True)
class FidelityReport:
    """What `elastune fidelity` prints and writes.

    Attributes:
        runs: how many.
        entries: of their journals, all of which replay.
        groups: by job and policy, then by job.
        parts: errors of the parts of the ledger, in GPU-seconds and dollars, relative to the whole of a run.
        stages: errors of the ends of stages.
        trials: errors of the ends of trials.
        coverage: share of all intervals that hold reality.
        intervals: how many there are.
        pairs: of policies, by job and quantity.
    """

    runs: int
    entries: int
    groups: list[Group]
    parts: dict[str, Errors]
    stages: Errors | None
    trials: Errors | None
    coverage: float
    intervals: int
    pairs: dict[str, list[Pair]]

    @classmethod
    def of(cls, runs: Sequence[CheckedRun]) -> FidelityReport:
        """The report on these runs; there is at least one."""
        jobs = list(dict.fromkeys(run.unit.job for run in runs))
        groups = []
        for job in jobs:
            of_job = [run for run in runs if run.unit.job == job]
            groups += [
                _group(job, policy, [run for run in of_job if run.unit.policy == policy])
                for policy in dict.fromkeys(run.unit.policy for run in of_job)
            ]
            groups.append(_group(job, "", of_job))
        parts = sorted({name for run in runs for name in run.names() if name.startswith(("usd:", "gpu_s:"))})
        covered = [
            split.is_covered for run in runs for name in told_names(run) if (split := run.split(name)) is not None
        ]
        return cls(
            len(runs),
            sum(run.entries for run in runs),
            groups,
            {name: found for name in parts if (found := _errors(runs, [name], of_whole=True)) is not None},
            _errors(runs, ["stage:"]),
            _errors(runs, ["trial:"]),
            statistics.fmean(covered) if covered else math.nan,
            len(covered),
            {f"{job} {name}": _pairs([run for run in runs if run.unit.job == job], name)
             for job in jobs for name in HEADS[:2]},
        )  # fmt: skip

    def to_json(self, runs: Sequence[CheckedRun]) -> dict[str, Any]:
        """Everything, and each run with its numbers."""
        told: dict[str, Any] = _plain(asdict(self))
        told["pairs"] = {
            name: [{**pair._asdict(), "is_kept": pair.is_kept} for pair in pairs] for name, pairs in self.pairs.items()
        }
        told["each"] = [_run_json(run) for run in runs]
        return told


def _plain(value: Any) -> Any:  # noqa: ANN401  any JSON
    """Named tuples as mappings, and no NaN, which JSON does not have."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run_json(run: CheckedRun) -> dict[str, Any]:
    quantities = {}
    for name in run.names():
        split = run.split(name)
        assert split is not None  # names() has only those
        quantities[name] = {
            "real": split.real,
            "predicted": split.guess.value,
            "low": split.guess.low,
            "high": split.guess.high,
            "parameters": split.parameters,
            "structure": split.structure,
            "is_covered": split.is_covered,
        }
    told = {
        "run": run.unit.name,
        "job": run.unit.job,
        "policy": run.unit.policy,
        "seed": run.unit.spec.seed,
        "drift": run.drift,
        "trained": run.regime[0],
        "starting": run.regime[1],
        "first_difference": run.difference,
        "first_difference_with_measured_seconds": run.difference_measured,
        "survivors_in_common": run.in_common,
        "quantities": quantities,
    }
    plain: dict[str, Any] = _plain(told)
    return plain


def told_names(run: CheckedRun) -> list[str]:
    """The quantities that most of the draws have, with an interval; scores are not counted here."""
    return [name for name in run.names() if name != "score" and run.guesses[name].share >= _LEAST_SHARE]


def _errors(runs: Sequence[CheckedRun], names: Sequence[str], *, of_whole: bool = False) -> Errors | None:
    """Errors of quantities whose names begin so.

    Args:
        runs: that have them.
        names: beginnings.
        of_whole: relative to the run's whole GPU-seconds or dollars, since a part may be zero.
    """
    found = []
    for run in runs:
        for name in run.names():
            split = run.split(name)
            if split is None or not name.startswith(tuple(names)):
                continue
            whole = _whole(run, name) if of_whole else abs(split.real)
            whole = 1.0 if name == "score" else whole
            if whole and (name in HEADS or run.guesses[name].share >= _LEAST_SHARE):
                found.append((split.total / whole, split.parameters / whole, split.structure / whole, split.is_covered))
    if not found:
        return None
    total, parameters, structure, covered = zip(*found, strict=True)
    return Errors(
        len(found),
        statistics.fmean(total),
        statistics.fmean(map(abs, total)),
        statistics.fmean(parameters),
        statistics.fmean(structure),
        statistics.fmean(map(abs, structure)),
        statistics.fmean(covered),
    )


def _whole(run: CheckedRun, name: str) -> float:
    unit = name.partition(":")[0]
    return math.fsum(value for one, value in run.real.quantities.items() if one.startswith(f"{unit}:"))


def _group(job: str, policy: str, runs: Sequence[CheckedRun]) -> Group:
    heads = {name: found for name in HEADS if (found := _errors(runs, [name])) is not None}
    drifts = [run.drift for run in runs if run.drift is not None]
    shares = [share for run in runs for share in run.in_common.values()]
    return Group(
        job,
        policy,
        len(runs),
        statistics.fmean(run.regime[0] for run in runs),
        statistics.fmean(run.regime[1] for run in runs),
        (statistics.fmean(one[0] for one in drifts), statistics.fmean(one[1] for one in drifts)) if drifts else None,
        heads,
        {name: test for name in HEADS[:2] if policy and (test := _equivalence(runs, name)) is not None},
        sum(run.difference.number == 0 for run in runs),
        sum(run.difference_measured.number == 0 for run in runs),
        statistics.fmean(shares) if shares else math.nan,
    )


def _equivalence(runs: Sequence[CheckedRun], name: str) -> Equivalence | None:
    """The test on the relative errors; None with too few repeats."""
    errors = [split.relative(split.total) for run in runs if (split := run.split(name)) is not None]
    return equivalence(errors) if len(errors) >= FEWEST else None


def equivalence(errors: Sequence[float], margin: float = MARGIN) -> Equivalence:
    """Two one-sided t tests that the mean lies within plus and minus the margin (Schuirmann 1987).

    Args:
        errors: relative, at least two.
        margin: share.
    """
    from scipy.stats import t as student

    count, mean = len(errors), statistics.fmean(errors)
    standard = statistics.stdev(errors) / math.sqrt(count)
    if standard == 0:
        return Equivalence(mean, mean, float(abs(mean) >= margin), abs(mean) < margin)
    reach = float(student.ppf(0.95, count - 1)) * standard
    p = float(max(student.sf((mean + margin) / standard, count - 1), student.sf((margin - mean) / standard, count - 1)))
    return Equivalence(mean - reach, mean + reach, p, p < 0.05)


def _pairs(runs: Sequence[CheckedRun], name: str) -> list[Pair]:
    """Every two policies, on the repeats that both have."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for run in runs:
        split = run.split(name)
        if split is not None:
            found.setdefault(run.unit.policy, {})[run.unit.repeat] = (split.guess.value, split.real)
    pairs = []
    for first, second in itertools.combinations(found, 2):
        both = sorted(found[first].keys() & found[second].keys())
        if not both:
            continue
        predicted, real = (
            statistics.fmean(found[first][one][at] for one in both)
            / statistics.fmean(found[second][one][at] for one in both)
            - 1
            for at in (0, 1)
        )
        pairs.append(Pair(first, second, predicted, real))
    return pairs
