"""What `recommend` loses by giving candidates up early: its choice against an exhaustive search, on the bundles that ship.

    python -m tests.benchmarks.recommend_regret [--quick]

Prints the table of docs/recommend.md. Both run the same candidates on the same seeds; the exhaustive search runs every one on
all of them. Regret of the choice: how much worse the mean measure of what the halving chose is than that of the best, over all
seeds, as a share of the best. Seconds are of one search with two processes.
"""

from __future__ import annotations

import sys
import time

from elastune import RunSpec, recommend

JOBS = 2
POLICIES = ("seer", "rubberband", "sha-fixed", "sha-elastic", "asha-elastic")
MACHINES = ("g5.xlarge", "g5.12xlarge", "p3.8xlarge", "g2-standard-48")
CASES = (
    # bundle, iterations, the deadline (s), the budget (USD; None: sought), the score to reach, sizes, seeds
    ("digits-mlp", 27, 1800, 10, None, 1, 64),
    ("digits-mlp", 27, 3600, None, 0.1, 10, 64),
    ("mnist5k-cnn", 27, 1800, 10, None, 1, 64),
    ("mnist5k-cnn", 27, 3600, None, 0.95, 10, 64),
    ("deepmoe-mnist5k", 27, 3600, None, 0.93, 10, 64),
)


def specs(bundle, iterations, deadline_s, budget_usd):
    """The job on each of the machines."""
    job = {"trials": 32, "max_iterations": iterations, "deadline_s": deadline_s, "budget_usd": budget_usd}
    workload = {"bundle": bundle, "scaling": "resnet50-v100", "iteration_s": 60}
    return [
        RunSpec.of(
            job=job,
            workload=workload,
            cloud={"instance_type": machine, "startup": "fast", "rescale_s": 10},
            policy="sha-fixed",
        )
        for machine in MACHINES
    ]


def searched(case, first_seeds):
    """The answer of one search, and the seconds that it took."""
    bundle, iterations, deadline_s, budget_usd, score, levels, seeds = case
    first, *others = specs(bundle, iterations, deadline_s, budget_usd)
    began_s = time.perf_counter()
    answer = recommend(
        first,
        others=others,
        policies=POLICIES,
        score=score,
        levels=levels,
        seeds=seeds,
        first_seeds=first_seeds or seeds,
        jobs=JOBS,
    )
    return answer, time.perf_counter() - began_s


def regret(chosen, exhaustive):
    """How much worse the choice is than the best, by the exhaustive search's means; None where nothing keeps the goal."""
    if chosen.best is None or exhaustive.best is None:
        return None
    measure, table = exhaustive.goal.measure, exhaustive.candidates
    sign = -1 if measure == "score" and exhaustive.goal.direction == "maximize" else 1
    job, label = chosen.best.spec.job, chosen.best.spec.policy.label
    machine = chosen.best.spec.price_book().default_type.name
    is_it = (table["policy"] == label) & (table["instance_type"] == machine)
    if measure == "cost_usd":
        is_it &= table["budget_usd"] == job.budget_usd
    able = table[(table["status"] == "done") & (table["kept"] >= 0.95 * table["runs"])]
    best = sign * (sign * able[measure]).min()
    return sign * (float(table[is_it][measure].iloc[0]) - best) / abs(best)


def told(answer):
    """What was chosen."""
    if answer.best is None:
        return "nothing keeps it"
    spec = answer.best.spec
    size = "" if answer.goal.measure == "score" else f", {spec.job.budget_usd:g} USD"
    return f"{spec.policy.label} on {spec.price_book().default_type.name}{size}"


def main(cases):
    """Print a row for each case."""
    print("| bundle | sought | candidates | left out | runs, all | seconds, all | choice | the same? | regret |")  # noqa: T201
    print("|---|---|---|---|---|---|---|---|---|")  # noqa: T201
    for case in cases:
        bundle, _, deadline_s, budget_usd, score, *_ = case
        sought = (
            f"best score, {deadline_s} s, {budget_usd} USD"
            if score is None
            else f"cheapest {score:g} by {deadline_s} s"
        )
        quick, quick_s = searched(case, 4)
        full, full_s = searched(case, None)
        left_out = int((quick.candidates["status"] != "done").sum())
        runs = [int(answer.candidates["runs"].sum()) for answer in (quick, full)]
        lost = regret(quick, full)
        cells = (
            bundle,
            sought,
            len(quick.candidates),
            left_out,
            f"{runs[0]:,}, {runs[1]:,}",
            f"{quick_s:.0f}, {full_s:.0f}",
            told(quick),
            "yes" if told(quick) == told(full) else told(full),
            "-" if lost is None else f"{100 * lost:.2g} %",
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main([(*case[:-1], 20) for case in CASES[:1]] if "--quick" in sys.argv else CASES)
