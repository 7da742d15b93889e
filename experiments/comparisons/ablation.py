"""What each mechanism of a policy is worth: the same runs with one of them switched the other way.

Imports `experiments.sweeps` for the runs and `experiments.statistics` for the tables; pandas inside the functions that need it.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elastune.experiments.comparisons.paired_runs import Interrupted, on_each_seed
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.sweeps.paired import paired_table
from elastune.experiments.sweeps.rows import table_of
from elastune.experiments.sweeps.summary import json_records, summarise
from elastune.experiments.sweeps.worker import bundle_of, row_of
from elastune.sim.model.commands import EndSegment, ProvisionInstance, ReleaseInstance, StartSegment
from elastune.sim.model.errors import InputError
from elastune.sim.model.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd

    from elastune.experiments.runs.fold import Tables


AS_IT_IS = "-"
"""The first row's switch: none."""


@dataclass(frozen=True, eq=False)
class Ablation:
    """What came out of an ablation.

    Attributes:
        policy: as it is, with its parameters.
        table: one row per switch, the first, "-", being the policy as it is: switch, runs (worlds in which both have a plan),
            infeasible, failed, changed (share of runs with other commands), regret (mean difference to the policy as it is,
            with `regret_low` and `regret_high`; the mean itself in the first row), better (share of runs with less regret),
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
        on_progress: called with the runs that are done and that there are.

    Raises:
        InputError: a switch is no parameter of the policy, has none of its values, or is there twice; the policy has none.
        Interrupted: Ctrl-C; holds the ablation on the seeds that are finished.
    """
    switches = tuple(switches) or spec.policy.entry.switches
    if not switches:
        known = ", ".join(spec.policy.entry.parameters) or "none"
        raise InputError(
            f"policy {spec.policy.name} has no switches of its own; name some, as --switch parameter=value (its parameters:"
            f" {known})"
        )
    if doubles := [switch for switch, count in Counter(switches).items() if count > 1]:
        raise InputError(f"--switch {doubles[0]} is given twice")
    label = spec.policy.label
    variants = [spec, *(spec.with_policy(f"{spec.policy.written}:{switch}") for switch in switches)]
    task = functools.partial(_run, spec.bundle().sha256, is_rough)
    numbers = range(spec.seed, spec.seed + seeds)
    paired = on_each_seed(task, variants, numbers, jobs=jobs, on_progress=on_progress)
    labels = (AS_IT_IS, *switches)
    ablation = Ablation(
        label, _table(labels, [list(zip(labels, runs, strict=True)) for runs in paired.by_seed.values()])
    )
    if paired.interrupted is not None:
        raise Interrupted(ablation, paired.interrupted)
    return ablation


def rough(spec: RunSpec) -> RunSpec:
    """Draw a world around the spec's by its seed, with wrong beliefs, stragglers and faults.

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


def _run(sha256: str, is_rough: bool, spec: RunSpec) -> tuple[dict[str, Any], str]:
    """The row of a run, and a digest of the commands that decide what is trained where and what is paid."""
    spec = rough(spec) if is_rough else spec
    row, result = row_of(spec, bundle_of(spec.workload.bundle or "", None, sha256), record_trajectory=True)
    if result is None or result.recording is None:
        return row, ""
    return row, hashlib.sha256(repr(list(_deciding(result.recording.tables))).encode()).hexdigest()


def _deciding(tables: Tables) -> Iterator[object]:
    """Yield these commands with their times. Timers and report intervals decide nothing by themselves."""
    for _, at_s, command, _ in tables.changes:
        if isinstance(command, StartSegment):
            yield at_s, command.trial, command.placement, command.from_iteration, command.until_iteration
        elif isinstance(command, EndSegment | ProvisionInstance | ReleaseInstance):
            yield at_s, command


def _table(labels: Sequence[str], runs: Sequence[Sequence[tuple[str, tuple[dict[str, Any], str]]]]) -> pd.DataFrame:
    import pandas as pd

    flat = [(label, row, commands) for of_seed in runs for label, (row, commands) in of_seed]
    # The tables compare by policy, so the switch takes its place.
    rows = table_of([{**row, "policy": label} for label, row, _ in flat]).to_pandas()
    rows = rows.assign(commands=[commands for *_, commands in flat])
    paired = paired_table(rows, AS_IT_IS, group=[]).set_index("policy")
    (own,) = summarise(rows[rows["policy"] == AS_IT_IS], ["policy"], ["regret"]).to_dict("records")
    told = {"mean": own["regret"], "low": own["regret_low"], "high": own["regret_high"], "better": float("nan")}
    compared = {AS_IT_IS: told} | paired.to_dict("index")
    return pd.DataFrame([_row(label, rows, compared[label]) for label in labels])


def _row(label: str, rows: pd.DataFrame, compared: Mapping[Any, Any]) -> dict[str, object]:
    mine, as_it_is = (rows[rows["policy"] == name].set_index("seed") for name in (label, AS_IT_IS))
    both = mine[(mine["status"] == "done") & (as_it_is["status"] == "done")]
    return {
        "switch": label,
        "runs": len(both),
        "infeasible": int((mine["status"] == "infeasible").sum()),
        "failed": int((mine["status"] == "failed").sum()),
        "changed": (both["commands"] != as_it_is["commands"].loc[both.index]).mean(),
        "regret": compared["mean"],
        "regret_low": compared["low"],
        "regret_high": compared["high"],
        "better": compared["better"],
        "deadline_missed": (both["deadline_met"] == False).mean(),  # noqa: E712  empty without a deadline
        "budget_missed": (both["budget_met"] == False).mean(),  # noqa: E712  empty without a budget
        "unanswered": both["best_trial"].isna().mean(),
    }
