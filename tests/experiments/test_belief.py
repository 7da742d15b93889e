"""What a policy is given follows from the spec alone where there is no bundle, and journals replay all the same."""

import pytest

from elastune import RunSpec, execute, replay_journal
from elastune.experiments.runs.world import Belief, World
from elastune.sim.model.errors import InputError
from elastune.traces import tiny_bundle

CURVES = tiny_bundle([[3.0, 2.0], [1.0, 0.5]])


def a_spec(policy="random-fixed", workload=None, **job):
    return RunSpec.of(
        job={"trials": 2, "max_iterations": 2, **job},
        workload={"iteration_s": 1.0, "scaling": "linear"} if workload is None else workload,
        cloud={"price_usd_per_hour": 3.6, "gpus_per_instance": 1, "max_instances": 1, "rescale_s": 0.5},
        policy=policy,
    )


def test_without_a_bundle_the_spec_says_what_is_believed():
    belief = Belief.of(a_spec(direction="maximize"))
    assert (belief.profile.iteration_s, belief.profile.timings.launch_s) == (1.0, 0.5)
    assert belief.job.direction == "maximize"


def test_a_bundle_gives_profile_and_direction_even_to_a_job_that_its_curves_do_not_cover():
    belief = Belief.of(a_spec(workload={"bundle": "digits-mlp", "scaling": "linear"}, trials=9999, max_iterations=999))
    assert belief.job.direction == "minimize"
    assert belief.profile.family


def test_belief_and_world_agree_where_there_are_both():
    spec = a_spec(workload={"bundle": "mnist5k-cnn", "scaling": "linear"})
    assert Belief.of(spec).profile == World.of(spec).profile


@pytest.mark.parametrize("key", ["iteration_s", "scaling"])
def test_what_neither_spec_nor_bundle_says_is_named(key):
    workload = {"iteration_s": 1.0, "scaling": "linear"}
    del workload[key]
    with pytest.raises(InputError, match=rf"workload\.{key} is missing"):
        Belief.of(a_spec(workload=workload))


def test_a_simulated_run_takes_no_other_direction_than_its_curves():
    with pytest.raises(InputError, match=r"job\.direction is maximize, but bundle tiny says minimize"):
        execute(a_spec(direction="maximize"), bundle=CURVES)


def test_an_upper_bound_needs_curves():
    with pytest.raises(InputError, match="told the true curves"):
        Belief.of(a_spec("oracle", deadline_s=100.0)).controller(None)


def test_a_journal_recorded_with_a_bundle_that_its_spec_does_not_name_asks_for_it(tmp_path):
    execute(a_spec(), bundle=CURVES, journal=tmp_path / "journal.jsonl")
    assert replay_journal(tmp_path / "journal.jsonl", bundle=CURVES)[1]
    with pytest.raises(InputError, match="recorded with tiny, which its spec does not name"):
        replay_journal(tmp_path / "journal.jsonl")
