from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune import traces
from elastune.sim.model.errors import InputError
from elastune.sim.model.job import TuningJob
from elastune.sim.model.profile import Delay, Startup, Stragglers, Timings
from elastune.sim.model.scaling import LinearScaling, TableScaling
from elastune.traces import Overrides, ProfileErrors, WorkloadTerms

SCALING = TableScaling({1: 1.0, 2: 1.7, 4: 2.5})
BUNDLE = traces.tiny_bundle(
    [[0.9, 0.8, 0.7], [0.6, 0.5, 0.4], [0.3, 0.2, 0.1]],
    iteration_s=10.0,
    relative_cost=[1.0, 2.0, 3.0],
    scaling=SCALING,
    timings=Timings(launch_s=2.0, checkpoint_s=1.0, rescale_s=3.0),
)


def job(trials=2, max_iterations=3, direction="minimize", stages=None):
    return TuningJob(trials, 1, max_iterations, direction=direction, stages=stages)


def test_a_draw_is_a_permutation_that_depends_on_the_seed_alone():
    bundle = traces.synthetic_bundle(50, 2)
    assert sorted(bundle.draw(50, seed=3)) == list(range(50))
    assert bundle.draw(50, seed=3).tolist() == bundle.draw(50, seed=3).tolist()
    assert bundle.draw(50, seed=3).tolist() != bundle.draw(50, seed=4).tolist()


def test_the_drawn_configurations_are_those_of_the_drawn_rows():
    assert BUNDLE.drawn_configurations(2, seed=1) == [{"row": int(row)} for row in BUNDLE.draw(2, seed=1)]


@given(seed=st.integers(0, 2**32), sizes=st.tuples(st.integers(1, 200), st.integers(1, 200)))
def test_a_larger_draw_extends_a_smaller_one(seed, sizes):
    bundle = traces.synthetic_bundle(200, 1)
    fewer, more = sorted(sizes)
    assert bundle.draw(more, seed)[:fewer].tolist() == bundle.draw(fewer, seed).tolist()


@pytest.mark.parametrize("trials", [0, 4])
def test_more_trials_than_the_bundle_has_are_an_error(trials):
    with pytest.raises(InputError, match=rf"job.trials is {trials}, but bundle tiny has 1 to 3 configurations"):
        BUNDLE.draw(trials, seed=0)


def test_the_truth_holds_the_drawn_curves_and_their_own_iteration_times():
    truth = BUNDLE.truth_of(BUNDLE.terms(), job(), seed=5)
    rows = BUNDLE.draw(2, seed=5)
    assert truth.scores.tolist() == BUNDLE.scores[rows].tolist()
    assert truth.iteration_s.tolist() == [10.0 * (row + 1) for row in rows]
    assert (truth.scaling, truth.timings, truth.stragglers) == (SCALING, BUNDLE.timings, Stragglers())


def test_an_override_takes_the_place_of_what_the_bundle_recorded_and_is_assumed():
    overrides = Overrides(iteration_s=60.0, scaling=LinearScaling(), stragglers=Stragglers(0.1), rescale_s=9.0)
    terms = BUNDLE.terms(overrides, sync_s=2.0)
    assert terms == WorkloadTerms(
        60.0,
        LinearScaling(),
        Timings(launch_s=2.0, checkpoint_s=1.0, rescale_s=9.0),
        Stragglers(0.1),
        2.0,
        dict.fromkeys(("iteration_s", "scaling", "timings", "stragglers"), "assumed: set by the run"),
    )


@pytest.mark.parametrize(
    ("overrides", "launch_s", "checkpoint_s", "rescale_s"),
    [
        (Overrides(launch_s=5.0), 5.0, 1.0, 6.0),
        (Overrides(checkpoint_s=4.0), 2.0, 4.0, 6.0),
        (Overrides(rescale_s=8.0), 2.0, 1.0, 8.0),
        (Overrides(launch_s=0.0, checkpoint_s=0.0, rescale_s=0.0), 0.0, 0.0, 0.0),
    ],
)
def test_timings_that_are_not_overridden_stay_the_bundles(overrides, launch_s, checkpoint_s, rescale_s):
    assert BUNDLE.terms(overrides).timings == Timings(launch_s, checkpoint_s, rescale_s)


def test_a_rescale_time_alone_is_all_launch_where_the_bundle_has_no_timings(write_bundle):
    bundle = traces.load_bundle(write_bundle())
    terms = bundle.terms(Overrides(iteration_s=1.0, scaling=SCALING, rescale_s=5.0))
    assert terms.timings == Timings(launch_s=5.0, checkpoint_s=0.0, rescale_s=5.0)
    assert terms.provenance["stragglers"] == "assumed: none"


def test_a_rescale_time_that_cannot_be_is_an_error_that_names_it(write_bundle):
    bundle = traces.load_bundle(write_bundle())
    for overrides, message in (
        (Overrides(1.0, SCALING, rescale_s=-5.0), r"rescale_s is -5.0, but must be a number >= 0"),
        (Overrides(1.0, SCALING, checkpoint_s=4.0, rescale_s=2.0), r"rescale_s is 2.0, but .* must be at least 4.0"),
    ):
        with pytest.raises(InputError, match=message):
            bundle.terms(overrides)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (Overrides(scaling=SCALING, rescale_s=5.0), "workload.iteration_s"),
        (Overrides(iteration_s=1.0, rescale_s=5.0), "workload.scaling"),
        (Overrides(iteration_s=1.0, scaling=SCALING), "cloud.rescale_s"),
    ],
)
def test_what_neither_bundle_nor_run_gives_is_an_error_that_names_the_key(write_bundle, overrides, key):
    with pytest.raises(InputError, match=rf"bundle toy records no .*: set {key}$"):
        traces.load_bundle(write_bundle()).terms(overrides)


def test_the_terms_say_how_the_bundle_came_by_its_numbers(write_bundle, conftest_header):
    header = f"""{conftest_header}
iteration_s: 5
launch_s: 1
checkpoint_s: 1
straggler: {{persistent_cv: 0.1}}
scaling: linear
provenance: {{iteration_s: measured, launch_s: measured once, straggler.persistent_cv: "measured: five processes"}}
"""
    assert traces.load_bundle(write_bundle(header)).terms().provenance == {
        "iteration_s": "measured",
        "scaling": "unstated",
        "timings": "measured once",
        "stragglers": "measured: five processes",
    }


def test_a_job_longer_than_its_curves_is_an_error_with_both_numbers():
    with pytest.raises(InputError, match=r"job\.max_iterations asks for 4 iterations, bundle tiny has 3"):
        BUNDLE.truth_of(BUNDLE.terms(), job(max_iterations=4), seed=0)
    with pytest.raises(InputError, match=r"job\.stages asks for 5 iterations, bundle tiny has 3"):
        BUNDLE.truth_of(BUNDLE.terms(), job(stages=((2, 2), (1, 3))), seed=0)


def test_a_job_that_ranks_scores_the_other_way_is_an_error():
    with pytest.raises(InputError, match=r"job.direction is maximize, but bundle tiny says minimize"):
        BUNDLE.truth_of(BUNDLE.terms(), job(direction="maximize"), seed=0)


@pytest.mark.parametrize("iteration_s", [0.0, -1.0, float("nan"), float("inf")])
def test_an_iteration_takes_a_positive_time(iteration_s):
    with pytest.raises(InputError, match=r"workload.iteration_s is .*, but must be a positive number"):
        BUNDLE.terms(Overrides(iteration_s=iteration_s))


def test_a_profile_without_errors_is_the_truth_on_average():
    startup = Startup(Delay(5.0), Delay(60.0))
    profile = BUNDLE.profile_of(BUNDLE.terms(sync_s=2.0), startup)
    assert profile.iteration_s == pytest.approx(20.0)
    assert (profile.scaling, profile.timings, profile.startup) == (SCALING, BUNDLE.timings, startup)
    assert profile.sync_s == 2.0


def test_a_profile_is_as_wrong_as_asked_for():
    profile = BUNDLE.profile_of(BUNDLE.terms(), errors=ProfileErrors(iteration_s_error=0.5, scaling_error=-0.5))
    assert profile.iteration_s == pytest.approx(30.0)
    assert [profile.scaling.speedup(gpus) for gpus in (1, 2, 4)] == pytest.approx([1.0, 1.35, 1.75])
    assert profile.scaling.max_gpus == 4


@given(
    error=st.floats(-0.99, 100.0),
    points=st.lists(st.floats(0.01, 64.0), min_size=1, max_size=5),
)
def test_a_believed_speedup_is_positive_and_1_on_one_gpu(error, points):
    scaling = TableScaling({1: 1.0} | dict(enumerate(points, start=2)))
    believed = ProfileErrors(scaling_error=error).scaling_believed(scaling)
    assert believed.speedup(1) == 1.0
    assert min(believed.speedup(gpus) for gpus in range(1, believed.max_gpus + 1)) > 0


@pytest.mark.parametrize(("assumed", "largest"), [(LinearScaling(64), 4), (TableScaling({1: 1.0, 2: 2.0}), 2)])
def test_a_scaling_is_believed_instead_of_the_true_one_for_gangs_that_both_know(assumed, largest):
    believed = BUNDLE.profile_of(BUNDLE.terms(), errors=ProfileErrors(scaling=assumed)).scaling
    assert believed.max_gpus == largest
    assert [believed.speedup(gpus) for gpus in range(1, largest + 1)] == pytest.approx(range(1, largest + 1))
    with pytest.raises(InputError, match=f"known for 1 to {largest}"):
        believed.speedup(largest + 1)


@pytest.mark.parametrize("name", ["iteration_s_error", "scaling_error"])
@pytest.mark.parametrize("error", [-1.0, float("nan"), float("inf")])
def test_a_relative_error_is_above_minus_1(name, error):
    with pytest.raises(InputError, match=rf"workload.profile.{name} is {error}, but must be a number above -1"):
        ProfileErrors(**{name: error})


@given(seed=st.integers(0, 1000), trials=st.integers(1, 40), direction=st.sampled_from(["minimize", "maximize"]))
def test_the_truth_of_a_smaller_job_is_the_head_of_a_larger_one(seed, trials, direction):
    bundle = traces.synthetic_bundle(40, 3, direction=direction)
    terms = bundle.terms()
    whole = bundle.truth_of(terms, job(40, direction=direction), seed)
    part = bundle.truth_of(terms, job(trials, direction=direction), seed)
    np.testing.assert_array_equal(part.scores, whole.scores[:trials])
