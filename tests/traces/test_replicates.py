"""Bundles whose configurations were trained several times: loaded, drawn by seed, and told."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from elastune import execute, traces
from elastune.experiments.plans.bundle_summary import describe
from elastune.experiments.spec.run import RunSpec
from elastune.sim.model.errors import InvalidTraceError
from elastune.sim.model.job import TuningJob

HEADER = """\
name: noisy
direction: minimize
score: validation loss
iteration: one epoch
max_iterations: 2
source: worked out by hand
licence: CC0-1.0
launch_s: 1
checkpoint_s: 1
scaling: linear
"""
CONFIGS = "trial,lr\n4,0.1\n7,0.2\n9,0.3\n"
CURVES = {
    "trial": [4, 4, 7, 7, 4, 4, 4, 4, 9, 9, 9, 9],
    "replicate": [0, 0, 1, 1, 2, 2, 5, 5, 0, 0, 1, 1],
    "iteration": [1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2],
    "score": [0.9, 0.8, 0.5, 0.4, 0.95, 0.85, 0.7, math.nan, 0.3, 0.2, 0.45, 0.3],
    "test_score": [1.9, 1.8, 1.5, 1.4, 1.95, 1.85, 1.7, math.nan, 1.3, 1.2, 1.45, 1.3],
    "seconds": [10.0, 10.0, 30.0, 30.0, 20.0, 20.0, 15.0, 15.0, 40.0, 40.0, 20.0, 20.0],
}
FINALS = {0: (0.8, 0.85, math.nan), 1: (0.4,), 2: (0.2, 0.3)}


@pytest.fixture
def noisy(write_bundle):
    """Three configurations: one with three replicates (a gap in their numbers), one with one, one with two."""
    return traces.load_bundle(write_bundle(HEADER, CONFIGS, CURVES, name="noisy"))


def job_of(trials):
    """A job over the whole curves."""
    return TuningJob(trials=trials, min_iterations=1, max_iterations=2, direction="minimize")


def without(column, keep=lambda _place: True):
    """The curves without a column, and some rows."""
    return {
        name: [cell for place, cell in enumerate(cells) if keep(place)]
        for name, cells in CURVES.items()
        if name != column
    }


def test_the_replicates_of_each_trial_are_loaded_and_the_first_stands_for_it(noisy):
    assert noisy.replicates.trial.tolist() == [0, 0, 0, 1, 2, 2]
    assert noisy.replicates.number.tolist() == [0, 2, 5, 1, 0, 1]
    assert noisy.scores.tolist() == [[0.9, 0.8], [0.5, 0.4], [0.3, 0.2]]
    assert noisy.test_scores.tolist() == [[1.9, 1.8], [1.5, 1.4], [1.3, 1.2]]


def test_costs_are_means_over_all_replicates_and_each_replicate_has_its_slowness(noisy):
    # Trial 4: (10 + 20 + 15) / 3 = 15 s, trial 7: 30 s, trial 9: 30 s; their mean is 25 s.
    assert noisy.iteration_s == pytest.approx(25)
    assert noisy.relative_cost.tolist() == pytest.approx([0.6, 1.2, 1.2])
    assert noisy.replicates.slowness.tolist() == pytest.approx([10 / 15, 20 / 15, 1, 1, 40 / 30, 20 / 30])


def timed(seconds):
    """The curves with these seconds."""
    return {**CURVES, "seconds": seconds}


def test_a_training_without_seconds_takes_as_long_as_its_trial_does_otherwise(write_bundle):
    of_trial_9, none = [40.0, 40.0], [math.nan, math.nan]
    curves = timed([10.0, 10.0, 30.0, 30.0, *none, 20.0, 20.0, *of_trial_9, *none])
    bundle = traces.load_bundle(write_bundle(HEADER, CONFIGS, curves))
    assert bundle.replicates.slowness.tolist() == pytest.approx([10 / 15, 1, 20 / 15, 1, 1, 1])
    # Trial 4: (10 + 20) / 2 = 15 s, trial 7: 30 s, trial 9: 40 s.
    assert bundle.iteration_s * bundle.relative_cost == pytest.approx([15, 30, 40])


@pytest.mark.parametrize(
    ("seconds", "row"),
    [
        ([10.0, 10.0, math.nan, math.nan, *CURVES["seconds"][4:]], 3),  # the only training of trial 7
        ([*CURVES["seconds"][:8], *[math.nan] * 4], 9),  # both of trial 9
        ([10.0, math.nan, *CURVES["seconds"][2:]], 2),  # an iteration of a training that has others
    ],
)
def test_seconds_are_needed_of_some_training_of_each_trial_and_then_of_all_its_iterations(write_bundle, seconds, row):
    with pytest.raises(InvalidTraceError, match=rf"row {row}, column seconds: is nan, but must be a number >= 0"):
        traces.load_bundle(write_bundle(HEADER, CONFIGS, timed(seconds)))


def test_a_seed_draws_one_replicate_for_each_trial_with_its_own_seconds(noisy):
    job, terms = job_of(3), noisy.terms()
    drawn = set()
    for seed in range(60):
        truth, tests = noisy.truth_of(terms, job, seed), noisy.drawn_test_scores(3, seed, 1)
        for place, row in enumerate(noisy.draw(3, seed).tolist()):
            final = truth.scores[place, -1]
            drawn.add((row, str(final)))
            assert str(final) in {str(one) for one in FINALS[row]}
            # The same replicate gives the test score, one more than the score, and the seconds.
            assert tests[place] == pytest.approx(truth.scores[place, 0] + 1)
            assert noisy.recorded_beside(row, seed, 1)[0] == tests[place]
            at = CURVES["score"].index(truth.scores[place, 0])
            assert truth.iteration_s[place] == pytest.approx(CURVES["seconds"][at])
    assert drawn == {(row, str(final)) for row, finals in FINALS.items() for final in finals}


def test_a_replicate_that_was_timed_for_fewer_iterations_takes_its_own_seconds(write_bundle):
    # Trial 4: replicates of 10, 20 and 40 s, the last timed once; their mean is 70 / 3 s, whatever their lengths.
    seconds = [*CURVES["seconds"][:6], 40.0, math.nan, *CURVES["seconds"][8:]]
    bundle = traces.load_bundle(write_bundle(HEADER, CONFIGS, {**CURVES, "seconds": seconds}, name="uneven"))
    assert bundle.relative_cost[0] * bundle.iteration_s == pytest.approx(70 / 3)
    own_s = bundle.iteration_s * bundle.relative_cost[bundle.replicates.trial] * bundle.replicates.slowness
    assert own_s.tolist() == pytest.approx([10, 20, 40, 30, 40, 20])


def test_what_a_seed_draws_for_a_trial_does_not_depend_on_the_others(noisy):
    job = job_of(1)
    for seed in range(20):
        alone = noisy.truth_of(noisy.terms(), job, seed)
        together = noisy.truth_of(noisy.terms(), job_of(3), seed)
        np.testing.assert_array_equal(alone.scores[0], together.scores[0])


def test_a_bundle_with_one_training_of_each_is_the_same_with_and_without_the_column(write_bundle):
    once = without("replicate", lambda place: CURVES["replicate"][place] == 0 or CURVES["trial"][place] == 7)
    plain = traces.load_bundle(write_bundle(HEADER, CONFIGS, once, name="plain"))
    named = traces.load_bundle(
        write_bundle(HEADER, CONFIGS, {**once, "replicate": [3] * len(once["trial"])}, name="named")
    )
    assert plain.replicates is None
    assert named.replicates is None
    np.testing.assert_array_equal(plain.scores, named.scores)
    assert (plain.iteration_s, plain.relative_cost.tolist()) == (named.iteration_s, named.relative_cost.tolist())


def test_the_believed_spread_contains_that_of_replicates(noisy):
    # Durations of a draw: 10, 20, 15 (a third each) | 30 | 40, 20 (half each), over their mean of 25.
    squared = ((100 + 400 + 225) / 3 + 900 + (1600 + 400) / 2) / 3
    expected = math.sqrt(squared / 25**2 - 1)
    assert noisy.profile_of(noisy.terms()).stragglers.persistent_cv == pytest.approx(expected)


@pytest.mark.parametrize(
    ("row", "column", "cell", "told"),
    [
        (1, "replicate", -1, "row 2, column replicate: is -1, but must be 0 or more"),
        (4, "replicate", 0, "row 5, column iteration: iteration 1 of trial 4, replicate 0 comes after its iteration 2"),
        (5, "iteration", 3, "row 6, column iteration: trial 4, replicate 2 jumps from iteration 1 to 3"),
        (8, "replicate", 3, "row 9, .*|row 10, column iteration: trial 9, replicate 0 starts at iteration 2"),
    ],
)
def test_a_bad_row_is_named_with_trial_and_replicate(write_bundle, row, column, cell, told):
    curves = {name: list(cells) for name, cells in CURVES.items()}
    curves[column][row] = cell
    with pytest.raises(InvalidTraceError, match=told):
        traces.load_bundle(write_bundle(HEADER, CONFIGS, curves, name="bad"))


def test_a_short_replicate_is_refused_unless_it_diverged(write_bundle):
    folder = write_bundle(HEADER, CONFIGS, without("", lambda place: place != 5), name="short")
    with pytest.raises(InvalidTraceError, match="trial 4, replicate 2 ends at iteration 1 of 2"):
        traces.load_bundle(folder)


def test_a_trial_without_any_replicate_is_refused(write_bundle):
    folder = write_bundle(HEADER, CONFIGS, without("", lambda place: CURVES["trial"][place] != 7), name="absent")
    with pytest.raises(InvalidTraceError, match=r"trial 7 of configs\.csv has no curve"):
        traces.load_bundle(folder)


def test_the_noise_is_told_beside_the_spread_over_configurations(write_bundle):
    # Finals: 0.1, 0.3 | 0.5, 0.7 | 0.9, 1.1 | 1.3, 1.5: each trial's standard deviation is 0.2 / sqrt(2); the means of
    # the trials are 0.2, 0.6, 1.0, 1.4, whose quartiles are 0.5 and 1.1, and 0.6 / 1.349 of a normal's spread.
    trial, replicate = np.repeat(np.arange(4), 2), np.tile([0, 1], 4)
    curves = {
        "trial": np.repeat(trial, 2),
        "replicate": np.repeat(replicate, 2),
        "iteration": np.tile([1, 2], 8),
        "score": np.repeat(0.1 + 0.4 * trial + 0.2 * replicate, 2),
    }
    configs = "trial,lr\n0,1\n1,2\n2,3\n3,4\n"
    noise = describe(traces.load_bundle(write_bundle(HEADER, configs, curves, name="spread")))["replicates"]
    assert noise["trials_with_several"] == 4
    assert (noise["fewest"], noise["most"]) == (2, 2)
    assert noise["spread_over_replicates"] == pytest.approx(0.2 / math.sqrt(2))
    assert noise["spread_over_configurations"] == pytest.approx(0.6 / 1.349, rel=1e-3)
    assert noise["rank_correlation"] == pytest.approx(1.0)


def test_ranks_that_replicates_turn_round_correlate_negatively(write_bundle):
    curves = {
        "trial": [0, 0, 1, 1, 2, 2],
        "replicate": [0, 1, 0, 1, 0, 1],
        "iteration": [1] * 6,
        "score": [1.0, 3.0, 2.0, 2.0, 3.0, 1.0],
    }
    header = HEADER.replace("max_iterations: 2", "max_iterations: 1")
    folder = write_bundle(header, "trial,lr\n0,0.1\n1,0.2\n2,0.3\n", curves, name="turned")
    noise = describe(traces.load_bundle(folder))["replicates"]
    assert noise["rank_correlation"] == pytest.approx(-1.0)


def test_a_bundle_without_replicates_tells_no_noise(write_bundle):
    assert describe(traces.load_bundle(write_bundle()))["replicates"] is None


@pytest.mark.parametrize(
    ("drawn", "told"), [(64, ""), (65, "draws 65 of 256 configurations; .* a quarter \\(64\\), seeds")]
)
def test_seeds_repeat_each_other_where_they_draw_more_than_a_quarter(drawn, told):
    assert re.match(told or "$", traces.repeating_phrase(drawn, 256))


def test_a_spec_notes_that_its_seeds_repeat_each_other():
    def notes(trials):
        spec = RunSpec.load("headline", [f"job.trials={trials}"])
        return [note for note in spec.notes() if "repeat" in note]

    assert notes(32) == []
    (note,) = notes(33)
    assert note.startswith("workload.bundle mnist5k-cnn: draws 33 of 128 configurations")


def test_a_run_is_judged_by_the_replicates_that_its_seed_drew(write_bundle):
    folder = write_bundle(HEADER, CONFIGS, CURVES, name="run")
    found = set()
    for seed in range(12):
        spec = RunSpec.of(
            job={"trials": 3, "max_iterations": 2, "min_iterations": 2, "exact": True},
            workload={"bundle": str(folder)},
            cloud={
                "instance_type": {"name": "m", "price_usd_per_hour": 3600, "gpus_per_instance": 1},
                "billing": {"granularity_s": 0, "minimum_s": 0},
                "max_instances": 1,
            },
            policy="sha-fixed",
            seed=seed,
        )
        result = execute(spec)
        # Trial 9 is the best whatever is drawn, and its replicates tell its score and its test score.
        assert result.test_score == pytest.approx(result.score + 1)
        assert result.regret == pytest.approx(0)
        found.add(result.score)
    assert found == {0.2, 0.3}
