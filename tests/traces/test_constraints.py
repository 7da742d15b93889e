"""A score under a bound on FLOPs: what policies see, what results say, and what is refused."""

import math

import numpy as np
import pytest

from elastune import RunSpec, execute, load_bundle
from elastune.experiments.real.trainables import _BoundedTrial
from elastune.experiments.runs.world import Belief
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.bundles.constraints import Constraint, constrained, constraint_on

HEADER = """\
name: gated
direction: maximize
score: accuracy
iteration: one epoch
max_iterations: 2
source: worked out by hand
licence: CC0-1.0
measures: {flops: multiply-adds of an image}
"""
CONFIGS = "trial,lambda\n0,0.1\n1,0.01\n2,0\n"
CURVES = {
    "trial": [0, 0, 1, 1, 2, 2, 2, 2],
    "replicate": [0, 0, 0, 0, 0, 0, 1, 1],
    "iteration": [1, 2, 1, 2, 1, 2, 1, 2],
    "score": [0.1, 0.5, 0.4, 0.8, 0.6, 0.9, 0.5, math.nan],
    "test_score": [0.2, 0.4, 0.4, 0.7, 0.6, 0.95, 0.5, math.nan],
    "flops": [100.0, 50.0, 200.0, 100.0, 400.0, 400.0, 200.0, math.nan],
}


@pytest.fixture
def folder(write_bundle):
    """Three configurations, of which the best score needs most FLOPs."""
    return write_bundle(HEADER, CONFIGS, CURVES, name="gated")


@pytest.fixture
def gated(folder):
    return load_bundle(folder)


def spec(bundle, bound=None, *, policy="sha-fixed", seed=0, **workload):
    constraint = {} if bound is None else {"constraint": {"flops": bound}}
    return RunSpec.of(
        job={"trials": 3, "min_iterations": 2, "max_iterations": 2, **constraint},  # a bound holds at the end
        workload={"scaling": "linear", "iteration_s": 60, "bundle": str(bundle), **workload},
        cloud={"price_usd_per_hour": 3, "gpus_per_instance": 1, "max_instances": 3, "rescale_s": 1},
        policy=policy,
        seed=seed,
    )


def test_a_score_within_the_bound_stays_and_one_beyond_is_worse_than_all_by_its_excess(gated):
    bounded = constrained(gated, {"flops": 100})
    # The worst score is 0.1; 200 FLOPs are half beyond 100, and 400 three quarters.
    assert bounded.scores == pytest.approx(np.array([[0.1, 0.5], [0.1 - 0.5, 0.8], [0.1 - 0.75, 0.1 - 0.75]]))
    assert bounded.test_scores == pytest.approx(np.array([[0.2, 0.4], [0.1 - 0.5, 0.7], [0.1 - 0.75, 0.1 - 0.75]]))
    assert bounded.replicates.scores[3, 0] == pytest.approx(0.1 - 0.5)
    assert math.isnan(bounded.replicates.scores[3, 1])  # it diverged, whatever it needs
    assert gated.scores[1, 0] == 0.4  # the bundle itself stays as it was
    assert bounded.sha256 == gated.sha256


def test_feasible_ones_rank_before_all_others_whichever_way_scores_go():
    for direction, sign in (("maximize", 1), ("minimize", -1)):
        rule = Constraint({"flops": 10.0}, direction, worst=sign * -5.0)
        worst_feasible, barely, far, unknown = (
            sign * float(rule.score(score, {"flops": flops}))
            for score, flops in ((sign * -5.0, 10), (sign * 99, 10.1), (sign * 99, 1e12), (sign * 99, math.nan))
        )
        assert worst_feasible > barely > far >= unknown


def test_bounding_twice_is_bounding_once_and_no_bound_changes_nothing(gated):
    once = constrained(gated, {"flops": 100})
    assert constrained(once, {"flops": 100}) is once
    assert constrained(gated, {}) is gated
    assert constraint_on(once, {"flops": 100}).worst == constraint_on(gated, {"flops": 100}).worst == 0.1


def test_a_run_under_a_bound_answers_with_the_best_that_keeps_it_and_says_both_numbers(folder):
    free, bounded = (execute(spec(folder, bound)) for bound in (None, 100))
    assert free.best_config == {"lambda": 0}
    assert (free.score, free.flops, free.constraint_met) in [(0.9, 400.0, None), (0.6, 400.0, None)]
    assert bounded.best_config == {"lambda": 0.01}
    assert (bounded.score, bounded.test_score, bounded.flops, bounded.constraint_met) == (0.8, 0.7, 100.0, True)
    assert bounded.regret == 0


def test_an_answer_beyond_the_bound_is_said_to_be(folder):
    result = execute(spec(folder, 10))
    assert (result.constraint_met, result.flops, result.best_config) == (False, 50.0, {"lambda": 0.1})
    assert result.score == pytest.approx(0.1 - 0.8)


def test_measures_are_those_of_the_replicate_that_the_seed_draws(gated):
    drawn = {gated.recorded_beside(2, seed, 1)[1]["flops"] for seed in range(30)}
    assert drawn == {400.0, 200.0}


@pytest.mark.parametrize(
    ("bundle", "bound", "message"),
    [
        ("mnist5k-cnn", {"flops": 1e5}, "job.constraint.flops bounds what bundle mnist5k-cnn does not record"),
        ("mnist5k-cnn", {"flop": 1e5}, "unknown key job.constraint.flop; did you mean job.constraint.flops"),
        ("mnist5k-cnn", {"flops": 0}, "job.constraint.flops is 0, but must be a number above 0"),
        ("mnist5k-cnn", {"flops": "few"}, "job.constraint.flops is 'few', but must be a number"),
        (None, {"flops": 1e5}, "job.constraint bounds what a bundle measures: set workload.bundle"),
    ],
)
def test_a_bound_that_cannot_be_kept_account_of_is_refused(bundle, bound, message):
    with pytest.raises(InputError, match=message):
        Belief.of(
            RunSpec.of(
                job={"trials": 3, "max_iterations": 2, "constraint": bound},
                workload={"scaling": "linear", "iteration_s": 60, "bundle": bundle},
                cloud={"price_usd_per_hour": 3, "gpus_per_instance": 1},
                policy="seer",
            )
        )


@pytest.mark.parametrize(
    ("header", "curves", "message"),
    [
        (HEADER, {key: cells for key, cells in CURVES.items() if key != "flops"}, "flops: has no such column"),
        (
            HEADER,
            CURVES | {"flops": [-1.0, *CURVES["flops"][1:]]},
            "row 1, column flops: is -1.0, but must be a number",
        ),
        (HEADER, CURVES | {"flops": [math.nan, *CURVES["flops"][1:]]}, "row 1, column flops: is nan"),
        (HEADER.replace("{flops", "{seconds"), CURVES, "measures.seconds: is a column of its own"),
    ],
)
def test_a_bundle_whose_measures_are_wrong_is_refused(write_bundle, header, curves, message):
    with pytest.raises(InvalidTraceError, match=message):
        load_bundle(write_bundle(header, CONFIGS, curves, name="wrong"))


class _Trained:
    def evaluate(self):
        return 0.8

    def test_score(self):
        return 0.7

    def measures(self):
        return {"flops": 200.0}


def test_a_worker_reports_the_score_of_the_same_rule(gated):
    tight, loose = (_BoundedTrial(_Trained(), constraint_on(gated, {"flops": bound})) for bound in (100, 200))
    assert (tight.evaluate(), tight.test_score()) == pytest.approx((0.1 - 0.5, 0.1 - 0.5))
    assert (loose.evaluate(), loose.test_score()) == (0.8, 0.7)
    assert tight.measures() == {"flops": 200.0}
