from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidy_tables import TIDY, rows

from elastune import traces
from elastune.sim.model.errors import InputError
from elastune.traces.importers import CurveRules, from_table

NAN = math.nan


def test_a_diverged_run_may_end_early_and_its_missing_seconds_cost_nothing(imported):
    text = TIDY.replace("0,2,0.8,1", "0,2,,").replace("0,3,0.7,1,0.1,sgd\n", "")
    bundle = imported(text)
    np.testing.assert_array_equal(bundle.scores[0], [0.9, NAN, NAN])
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (2.0, [0.5, 1.5])


def test_a_trial_without_any_seconds_costs_the_mean_and_the_bundle_says_so(imported):
    bundle = imported("trial,iteration,score,seconds\n0,1,,\n1,1,1,2\n1,2,1,2\n2,1,1,4\n2,2,1,4\n")
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (3.0, [1.0, 2 / 3, 4 / 3])
    assert bundle.provenance["relative_cost"].endswith("; assumed to be 1 for 1 trials without seconds")


def test_incomplete_trials_are_dropped_if_asked_and_named(imported):
    bundle = imported(rows((0, 1, 1), (0, 2, 1), (5, 1, 1)), rules=CurveRules(incomplete="drop"))
    assert bundle.scores.tolist() == [[1.0, 1.0]]
    assert bundle.notes["imported"]["trials_dropped_as_incomplete"] == ["5"]


def test_incomplete_trials_are_ended_as_diverged_if_asked_and_named(imported):
    text = "trial,iteration,score,seconds,test_score\n5,1,1,1,1\n0,1,1,1,1\n0,2,1,1,1\n"
    bundle = imported(text, rules=CurveRules(incomplete="diverged"))
    np.testing.assert_array_equal(bundle.scores, [[1.0, NAN], [1.0, 1.0]])
    np.testing.assert_array_equal(bundle.test_scores, [[1.0, NAN], [1.0, 1.0]])
    assert bundle.notes["imported"]["trials_ended_as_diverged"] == ["5"]


def test_curves_are_cut_if_asked_and_what_was_cut_is_counted(imported):
    bundle = imported(rows((0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 1, 4), (1, 2, 5)), rules=CurveRules(iterations=2))
    assert bundle.scores.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert bundle.notes["imported"]["points_beyond_iterations_cut"] == 1


def test_no_more_iterations_can_be_kept_than_there_are(imported):
    with pytest.raises(InputError, match=r"asked to keep 5 iterations, but the longest curve has 3"):
        imported(TIDY, rules=CurveRules(iterations=5))


def test_every_fifth_epoch_is_an_iteration_of_five_epochs(write, out, described):
    text = rows((0, 5, 3), (0, 10, 2), (1, 5, 1), (1, 10, 0.5))
    bundle = from_table(write(text), out, replace(described, iteration=None))
    assert bundle.scores.tolist() == [[3.0, 2.0], [1.0, 0.5]]
    assert bundle.iteration == "5 of the recorded iteration"
    assert bundle.notes["imported"]["recorded_units_per_iteration"] == 5


@pytest.mark.parametrize(
    ("numbers", "rule", "kept"),
    [
        ((0, 1, 2), "first", [10.0, 11.0, 12.0]),
        ((0, 1, 2), "drop", [11.0, 12.0]),
        ((99, 199, 299), "first", [10.0, 11.0, 12.0]),
        ((0, 100, 200), "drop", [11.0, 12.0]),
    ],
)
def test_what_iteration_0_is_must_be_said(imported, numbers, rule, kept):
    text = rows(*((0, number, 10 + place) for place, number in enumerate(numbers)))
    assert imported(text, rules=CurveRules(iteration_zero=rule)).scores.tolist() == [kept]


def test_points_without_a_score_before_one_with_are_counted(imported):
    bundle = imported(rows((0, 1, 1), (0, 2, ""), (0, 3, 1), (1, 1, ""), (1, 2, ""), (1, 3, "nan")))
    assert bundle.notes["imported"]["points_without_score_before_one_with"] == 1


def test_rows_may_stand_in_any_order(imported):
    lines = TIDY.splitlines()
    bundle = imported("\n".join([lines[0], *(lines[row] for row in (6, 3, 1, 5, 2, 4))]) + "\n")
    assert bundle.scores.tolist() == [[0.6, 0.5, 0.4], [0.9, 0.8, 0.7]]


@settings(deadline=None, max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_was_written_is_read_whatever_the_order_and_the_numbers(described, tmp_path_factory, data):
    trials, iterations = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    step = data.draw(st.integers(1, 7))
    numbers = st.one_of(st.floats(-1e100, 1e100), st.just(NAN), st.just(math.inf))
    scores = np.array(data.draw(st.lists(numbers, min_size=trials * iterations, max_size=trials * iterations)))
    scores = scores.reshape(trials, iterations)
    cells = [(trial, step * (k + 1), repr(scores[trial, k])) for trial in range(trials) for k in range(iterations)]
    cells = [(trial, number, text.removeprefix("np.float64(").rstrip(")")) for trial, number, text in cells]
    order = data.draw(st.permutations(range(len(cells))))
    folder = tmp_path_factory.mktemp("table")
    (folder / "tidy.csv").write_text(rows(*(cells[place] for place in order)))
    configs = pd.DataFrame({"trial": range(trials)})
    bundle = from_table(folder / "tidy.csv", folder / "bundle", described, configurations=configs)
    np.testing.assert_array_equal(bundle.scores, scores)


def tidy_csv_of(bundle, file):
    """A bundle as a tidy table, one row per point, its configurations repeated."""
    count, iterations = bundle.scores.shape
    columns = {
        "trial": np.repeat(np.arange(count), iterations),
        "iteration": np.tile(np.arange(1, iterations + 1), count),
        "score": bundle.scores.ravel(),
        **({} if bundle.test_scores is None else {"test_score": bundle.test_scores.ravel()}),
        **({} if bundle.seconds is None else {"seconds": bundle.seconds.ravel()}),
        "relative_cost": np.repeat(bundle.relative_cost, iterations),
    }
    names = bundle.configurations[0]
    texts = {name: [str(c[name]) for c in bundle.configurations for _ in range(iterations)] for name in names}
    pd.DataFrame(columns | texts).to_csv(file, index=False)


def assert_round_trip(bundle, tmp_path, described):
    tidy_csv_of(bundle, tmp_path / "tidy.csv")
    again = from_table(tmp_path / "tidy.csv", tmp_path / "again", replace(described, direction=bundle.direction))
    np.testing.assert_array_equal(again.scores, bundle.scores)
    np.testing.assert_array_equal(again.relative_cost, bundle.relative_cost)
    assert list(again.configurations) == list(bundle.configurations)
    for name in ("test_scores", "seconds"):
        one, other = getattr(again, name), getattr(bundle, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", traces.bundle_names())
def test_a_shipped_bundle_survives_the_way_over_a_tidy_table(tmp_path, described, name):
    assert_round_trip(traces.load_bundle(name), tmp_path, described)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepobs-fmnist-2c2d", "taskset-patch32-irnn64-relu-avg-bs128"])
def test_a_recorded_bundle_survives_it_too(tmp_path, described, shared_data, name):
    assert_round_trip(traces.load_bundle(name, [shared_data / "bundles"]), tmp_path, described)
