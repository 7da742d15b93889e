"""What each mechanism of a policy is worth: the same runs with one of them switched the other way.

Imports the other modules of `experiments`; pandas inside the functions that need it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from elastune.experiments.runs.simulate import execute
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.statistics.differences import paired_difference
from elastune.experiments.statistics.summary import json_records
from elastune.experiments.sweeps.paired_seeds import of_each_seed
from elastune.policies.registry import entry_named
from elastune.sim.model.commands import EndSegment, ProvisionInstance, ReleaseInstance, StartSegment
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.sim.model.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from elastune.experiments.runs.result import RunResult
    from elastune.sim.control.journal import Entry
    from elastune.traces import Bundle

COLUMNS = (
    "switch",
    "runs",
    "infeasible",
    "changed",
    "regret",
    "regret_low",
    "regret_high",
    "better",
    "deadline_missed",
    "budget_missed",
    "unanswered",
)


@dataclass(frozen=True, eq=False)
class Ablation:
    """What came out of an ablation.

    Attributes:
        policy: as it is, with its parameters.
        table: one row per switch, the first, "-", being the policy as it is: switch, runs (worlds in which both have a plan),
            infeasible, changed (share of runs with other orders), regret (mean difference to the policy as it is, with
            `regret_low` and `regret_high`; the mean itself in the first row), better (share of runs with less regret),
            deadline_missed and budget_missed (shares of runs), unanswered (share of runs that named no trial).
    """

    policy: str
    table: pd.DataFrame

    def to_json(self) -> dict[str, object]:
        """What `elastune ablate --json` prints: NaN is null."""
        return {"policy": self.policy, "rows": json_records(self.table)}


def ablate(
    spec: RunSpec,
    switches: Sequence[str] = (),
    seeds: int = 100,
    *,
    is_rough: bool = False,
    jobs: int = 2,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Ablation:
    """Run a spec as it is and with each of these parameters changed, on the same seeds.

    Args:
        spec: the run; its policy is the one that is taken apart.
        switches: parameters as `name=value`; none for those that the registry knows of this policy.
        seeds: how many, counted from the spec's.
        is_rough: each seed in a world of its own around the spec's; see `rough`.
        jobs: processes.
        on_progress: called with the seeds that are done and that there are.

    Raises:
        InputError: a switch is no parameter of the policy, or has none of its values; the policy has no switches.
    """
    switches = tuple(switches) or entry_named(spec.policy.name).switches
    if not switches:
        known = ", ".join(entry_named(spec.policy.name).parameters) or "none"
        raise InputError(
            f"policy {spec.policy.name} has no switches of its own; name some, as --switch parameter=value (its parameters:"
            f" {known})"
        )
    label = spec.policy.label
    variants = [spec, *(spec.with_policy(f"{label}:{switch}") for switch in switches)]
    bundle = spec.bundle()
    runs: list[list[_Run | None]] = []
    of_seed = functools.partial(_runs_of_seed, variants, bundle, is_rough=is_rough)
    for done in of_each_seed(of_seed, range(spec.seed, spec.seed + seeds), jobs):
        runs.append(done)
        on_progress(len(runs), seeds)
    return Ablation(label, _table(("-", *switches), runs))


def rough(spec: RunSpec) -> RunSpec:
    """A world around the spec's, drawn by its seed, in which much is unlike what is believed.

    Seconds per iteration and scaling believed up to 50 % wrong either way, spread of trials and iterations up to 1 each,
    segments and machines that fail once in 1 to 20 deadlines (or not at all, each half of the time), and deadline and budget
    0.7 to 1.5 times the spec's. Drawn uniformly; failures log-uniformly.

    Raises:
        InputError: the spec has no deadline, by which failures are scaled.
    """
    if spec.job.deadline_s is None:
        raise InputError("rough worlds scale their failures by job.deadline_s, which is missing")
    rng = Streams(spec.seed).rng("rough-world")
    hours = spec.job.deadline_s / 3600
    errors, spreads = rng.uniform(-0.5, 0.5, 2).tolist(), rng.uniform(0, 1, 2).tolist()
    rates = (rng.integers(0, 2, 2) / (hours * 20 ** rng.uniform(0, 1, 2))).tolist()
    shares = rng.uniform(0.7, 1.5, 2).tolist()
    document = spec.to_dict()
    _put(document, "workload.profile", {"iteration_s_error": errors[0], "scaling_error": errors[1]})
    _put(document, "workload.straggler_cv", {"persistent": spreads[0], "per_iteration": spreads[1]})
    _put(document, "cloud.faults", {"segment_failure_per_hour": rates[0], "instance_loss_per_hour": rates[1]})
    _put(document, "job.deadline_s", spec.job.deadline_s * shares[0])
    if spec.job.budget_usd is not None:
        _put(document, "job.budget_usd", spec.job.budget_usd * shares[1])
    return RunSpec.of(**document)


def _put(document: dict[str, Any], key: str, value: object) -> None:
    section, name = key.split(".")
    document[section] = {**document[section], name: value}


@dataclass(frozen=True)
class _Run:
    """One run: its result, and its orders as far as they decide what is trained where and what is paid."""

    result: RunResult
    orders: tuple[object, ...]


def _runs_of_seed(variants: Sequence[RunSpec], bundle: Bundle, seed: int, *, is_rough: bool) -> list[_Run | None]:
    """A run per variant; None where it has no plan."""
    specs = [variant.with_seed(seed) for variant in variants]
    return [_run(rough(spec) if is_rough else spec, bundle) for spec in specs]


def _run(spec: RunSpec, bundle: Bundle) -> _Run | None:
    try:
        result = execute(spec, bundle=bundle, record_trajectory=True)
    except InfeasibleJobError:
        return None
    assert result.recording is not None  # it was asked for
    # Without the recording, which would have to cross the processes.
    return _Run(replace(result, recording=None), tuple(_orders(result.recording.entries)))


def _orders(entries: Sequence[Entry]) -> Iterator[object]:
    """What was ordered when; timers and how often a segment reports decide nothing by themselves."""
    for entry in entries:
        for order in entry.commands:
            if isinstance(order, StartSegment):
                yield entry.event.at_s, order.trial, order.placement, order.from_iteration, order.until_iteration
            elif isinstance(order, EndSegment | ProvisionInstance | ReleaseInstance):
                yield entry.event.at_s, order


def _table(labels: Sequence[str], runs: Sequence[Sequence[_Run | None]]) -> pd.DataFrame:
    import pandas as pd

    rows = [_row(label, [(of_seed[0], of_seed[index]) for of_seed in runs]) for index, label in enumerate(labels)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(label: str, pairs: Sequence[tuple[_Run | None, _Run | None]]) -> dict[str, object]:
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    count = max(len(both), 1)
    regrets = [(_regret(a.result), _regret(b.result)) for a, b in both]
    is_itself = label == "-"
    found = paired_difference([b for _, b in regrets], [0.0 if is_itself else a for a, _ in regrets])
    return {
        "switch": label,
        "runs": len(both),
        "infeasible": sum(b is None for _, b in pairs),
        "changed": sum(a.orders != b.orders for a, b in both) / count,
        "regret": found.mean,
        "regret_low": found.low,
        "regret_high": found.high,
        "better": float("nan") if is_itself else found.better,
        "deadline_missed": sum(b.result.deadline_met is False for _, b in both) / count,
        "budget_missed": sum(b.result.budget_met is False for _, b in both) / count,
        "unanswered": sum(b.result.best_trial is None for _, b in both) / count,
    }


def _regret(result: RunResult) -> float:
    """A run without an answer, or without regret, drops out of the mean; the table counts the first."""
    return float("nan") if result.regret is None else result.regret
