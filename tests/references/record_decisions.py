"""Record what Optuna and Syne Tune decide on one table, for tests/policies/test_against_references.py.

Each needs an environment of its own (Syne Tune 0.13 needs numpy < 2, and neither is a dependency of the project):

    python3.11 -m venv optuna-env && optuna-env/bin/pip install optuna==5.0.0
    python3.11 -m venv syne-env && syne-env/bin/pip install syne-tune==0.13.0 "numpy<2"
    optuna-env/bin/python tests/references/record_decisions.py optuna
    syne-env/bin/python tests/references/record_decisions.py syne-tune

`table` writes table.csv anew: 200 curves of 27 iterations from the standard library's generator, the same on every machine.
The files are written next to this script; equal versions write equal files.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import logging
import math
import random
import sys
from pathlib import Path

HERE = Path(__file__).parent
TRIALS, ITERATIONS, ETA = 200, 27, 3
LEVELS = [1, 3, 9, 27]


def make_table():
    """200 noisy exponential curves, to be minimised; no two scores are equal after the same iteration."""
    draw = random.Random(20210)
    rows = []
    for _ in range(TRIALS):
        end, gap, rate = draw.uniform(0.05, 0.6), draw.uniform(0.1, 0.5), draw.uniform(0.03, 0.6)
        rows.append([round(end + gap * math.exp(-rate * k) + draw.gauss(0, 0.01), 6) for k in range(1, ITERATIONS + 1)])
    assert all(len(set(column)) == TRIALS for column in zip(*rows, strict=True))
    with (HERE / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def table():
    with (HERE / "table.csv").open(encoding="utf-8") as stream:
        return [[float(cell) for cell in row] for row in csv.reader(stream)]


def calm(scores):
    """The same table with a thousandth of its movement, on which the ranking of the best is soon stable."""
    return [[row[-1] + (value - row[-1]) / 1000 for value in row] for row in scores]


def write(name, package, decisions):
    recorded = {"package": package, "version": importlib.metadata.version(package), "decisions": decisions}
    text = json.dumps(recorded).replace('"decisions": {', '"decisions": {\n').replace(']], "', ']],\n"')
    (HERE / name).write_text(text + "\n", encoding="utf-8")


# Optuna. Its pruners judge each trial when it comes to a rung, against those that have come before; a synchronous rung is what
# the last to come would see. So each trial of a rung is judged in a study of its own in which all others have reported before.


def survivors(trials, exponent, scores):
    """Who is not pruned at iteration ETA ** exponent, each as the last to come."""
    import optuna

    level = ETA**exponent
    kept = []
    for last in trials:
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=1, reduction_factor=ETA, min_early_stopping_rate=exponent
        )
        study = optuna.create_study(pruner=pruner)
        for trial in [*(other for other in trials if other != last), last]:
            asked = study.ask()
            asked.report(scores[trial][level - 1], level)
            is_pruned = asked.should_prune()
        if not is_pruned:
            kept.append(last)
    return sorted(kept)


def halve(trials, first, scores):
    """Survivors of each rung from ETA ** first up to, and without, R."""
    rungs = []
    for exponent in range(first, len(LEVELS) - 1):
        trials = survivors(trials, exponent, scores)
        rungs.append({"iteration": ETA**exponent, "survivors": trials})
    return rungs


def optuna_brackets(scores):
    """Optuna's own number of brackets and their sizes; their trials are consecutive, and each bracket is run as above."""
    import optuna

    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=ITERATIONS, reduction_factor=ETA)
    study = optuna.create_study(pruner=pruner, study_name="brackets")
    asked = study.ask()
    asked.report(1.0, 1)
    asked.should_prune()  # initialises the brackets
    brackets, first = [], 0
    for number, size in enumerate(pruner._trial_allocation_budgets):
        trials = list(range(first, first + size))
        brackets.append({"trials": size, "rungs": halve(trials, number, scores)})
        first += size
    return brackets


def record_optuna():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    scores = table()
    sha = {str(size): halve(list(range(size)), 0, scores) for size in (200, 81, 32)}
    write("optuna.json", "optuna", {"sha": sha, "hyperband": optuna_brackets(scores)})


# Syne Tune, with one worker: what comes next depends on what has been reported, and on nothing else.


def paper_cutoff(rung):
    """The floor(n / eta)-th best value, as in the ASHA paper's Algorithm 2; Syne Tune's quantile is the ceil(n / eta)-th."""
    best = len(rung.data) // ETA
    return rung.data[best - 1].metric_val if best else None


def syne_tune_tasks(kind, scores):
    """What one worker does, until the scheduler asks for a configuration beyond the table: [trial, until iteration]."""
    import datetime as dt

    from syne_tune.backend.trial_status import Trial
    from syne_tune.config_space import uniform
    from syne_tune.optimizer.scheduler import SchedulerDecision
    from syne_tune.optimizer.schedulers.hyperband import HyperbandScheduler

    scheduler = HyperbandScheduler(
        {"x": uniform(0, 1)},
        searcher="random",
        type=kind,
        metric="loss",
        mode="min",
        resource_attr="epoch",
        max_t=ITERATIONS,
        grace_period=1,
        reduction_factor=ETA,
        random_seed=0,
    )
    trials, done, tasks = [], [], []
    while True:
        suggestion = scheduler.suggest(trial_id=len(trials))
        if suggestion.spawn_new_trial_id:
            if len(trials) == len(scores):
                return tasks
            trial = Trial(len(trials), suggestion.config, dt.datetime(2021, 1, 1))  # noqa: DTZ001
            trials.append(trial)
            done.append(0)
            scheduler.on_trial_add(trial)
        else:
            trial = trials[suggestion.checkpoint_trial_id]
        number = trial.trial_id
        decision = SchedulerDecision.CONTINUE
        while decision == SchedulerDecision.CONTINUE and done[number] < ITERATIONS:
            done[number] += 1
            result = {"epoch": done[number], "loss": scores[number][done[number] - 1]}
            decision = scheduler.on_trial_result(trial, result)
        if done[number] == ITERATIONS:
            scheduler.on_trial_complete(trial, result)
        else:
            scheduler.on_trial_remove(trial)
        tasks.append([number, done[number]])


def record_syne_tune():
    logging.disable(logging.WARNING)
    from syne_tune.optimizer.schedulers.hyperband_stopping import Rung

    scores = table()
    decisions = {"promotion": syne_tune_tasks("promotion", scores), "stopping": syne_tune_tasks("stopping", scores)}
    Rung.quantile = paper_cutoff
    decisions["promotion, the paper's cutoff"] = syne_tune_tasks("promotion", scores)
    decisions["pasha, the paper's cutoff"] = syne_tune_tasks("pasha", scores)
    decisions["pasha, the paper's cutoff, calm"] = syne_tune_tasks("pasha", calm(scores))
    write("syne_tune.json", "syne-tune", decisions)


if __name__ == "__main__":
    {"table": make_table, "optuna": record_optuna, "syne-tune": record_syne_tune}[sys.argv[1]]()
