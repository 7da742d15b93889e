"""What a spec and a bundle say of stragglers, evaluation and memory, and what truth and belief make of it."""

from __future__ import annotations

import numpy as np
import pytest

from elastune import RunSpec, execute
from elastune.policies.planning.plan import Terms
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.sim.model.job import TuningJob
from elastune.sim.model.prices import ON_DEMAND, InstanceType, PriceBook
from elastune.sim.model.profile import Stragglers, Timings
from elastune.sim.model.scaling import LinearScaling
from elastune.sim.model.spread import LOG_NORMAL, EmpiricalTail, ParetoTail
from elastune.traces import Overrides, ProfileErrors, load_bundle, tail_of, tiny_bundle

JOB = TuningJob(2, 1, 3)
BUNDLE = tiny_bundle(
    [[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]],
    iteration_s=10.0,
    relative_cost=[1.0, 3.0],
    scaling=LinearScaling(8),
    timings=Timings(launch_s=2.0, checkpoint_s=1.0, rescale_s=3.0),
)


def spec(**sections):
    return RunSpec.of(
        **{
            "job": {"trials": 2, "max_iterations": 3, "exact": True},
            "cloud": {"price_usd_per_hour": 3.6, "gpus_per_instance": 4, "max_instances": 4},
            "workload": {},
            "policy": "sha-elastic",
            **sections,
        }
    )


# Tails.


def test_tails_by_name_inline_and_from_files(tmp_path):
    (tmp_path / "seconds.csv").write_text("seconds\n10\n30\n")
    (tmp_path / "quantiles.csv").write_text("share,seconds\n0,1\n0.5,2\n1,5\n")
    assert tail_of("lognormal") == LOG_NORMAL
    assert tail_of("pareto") == ParetoTail()
    assert tail_of({"samples": [30, 10]}) == tail_of(str(tmp_path / "seconds.csv"))
    assert tail_of({"quantiles": [1, 2, 5]}) == tail_of(str(tmp_path / "quantiles.csv"))
    assert tail_of({"quantiles": {"1": 5, "0": 1, "0.5": 2}}) == tail_of({"quantiles": [1, 2, 5]})
    assert tail_of({"samples": [30, 10]}).mean == 20.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("parreto", "there is no tail 'parreto'; did you mean 'pareto'"),
        ({"sample": [1]}, r"tail is \{'sample': \[1\]\}, but must be a name, a .csv, "),
        ({"samples": "many"}, "tail.samples is 'many', but must be a list of numbers"),
        ({"samples": {"0": 1}}, "tail.samples is .*, but must be a list of numbers"),
        ({"quantiles": [1, "two"]}, "tail.quantiles holds 'two', but must hold numbers"),
        ({"quantiles": [2, 1]}, "quantiles are .*, but must not fall"),
    ],
)
def test_what_is_no_tail_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        tail_of(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("second\n1\n", "tail.csv, column seconds: has no such column"),
        ("seconds\n1\n-2\n", "tail.csv, row 2, column seconds: is -2, but must be positive"),
        ("share,seconds\n0,2\n1,1\n", "tail.csv: quantiles are .*, but must not fall"),
    ],
)
def test_a_malformed_tail_file_names_the_place(tmp_path, text, message):
    (tmp_path / "tail.csv").write_text(text)
    with pytest.raises(InvalidTraceError, match=message):
        tail_of(str(tmp_path / "tail.csv"))


def test_a_spec_says_which_tail_and_for_whom():
    def stragglers(value):
        return spec(workload={"straggler_cv": value}).workload.overrides(None).stragglers

    assert stragglers(0.1) == Stragglers(0.0, 0.1)
    assert stragglers({"persistent": 0.05, "per_iteration": 0.08, "tail": "lognormal"}) == Stragglers(0.05, 0.08)
    assert stragglers({"per_iteration": 0.5, "tail": "pareto", "per": "worker"}) == Stragglers(
        0.0, 0.5, ParetoTail(), is_per_worker=True
    )
    measured = EmpiricalTail.of_quantiles((1.0, 3.0))
    assert stragglers({"persistent": 0.2, "tail": {"quantiles": [1, 3]}}) == Stragglers(0.2, measured.cv, measured)
    again = RunSpec.of(**spec(workload={"straggler_cv": {"tail": {"quantiles": {0: 1, 1: 3}}}}).to_dict())
    assert again.workload.overrides(None).stragglers == Stragglers(0.0, measured.cv, measured)


def test_a_measured_tail_leaves_no_room_for_another_spread():
    with pytest.raises(InputError, match=r"^workload\.straggler_cv\.per_iteration is 0\.3, but the tail was measured"):
        spec(workload={"straggler_cv": {"per_iteration": 0.3, "tail": {"samples": [1, 3]}}})
    with pytest.raises(InputError, match=r"^workload\.straggler_cv: there is no tail 'cauchy'"):
        spec(workload={"straggler_cv": {"per_iteration": 0.3, "tail": "cauchy"}})


# Evaluation.


def test_evaluation_runs_on_one_gpu_whatever_the_gang():
    # 8 of 10 s are training: on 4 GPUs 8 / 4 + 2 = 4 s, on 8 GPUs 3 s; three times that for the configuration of cost 3.
    terms = BUNDLE.terms(Overrides(evaluate_s=2.0))
    truth, profile = BUNDLE.truth_of(terms, JOB, 0), BUNDLE.profile_of(terms)
    assert [10.0 / truth.scaling.speedup(gpus) for gpus in (1, 4, 8)] == pytest.approx([10.0, 4.0, 3.0])
    assert sorted(truth.iteration_s) == [10.0, 30.0]
    assert profile.iteration_s == 20.0
    assert profile.iteration_s / profile.scaling.speedup(4) == pytest.approx(8.0)
    assert terms.provenance["evaluate_s"] == "assumed: set by the run"
    assert "evaluate_s" not in BUNDLE.terms().provenance


def test_only_the_speed_up_of_training_is_misjudged():
    # Half of the speed-up beyond one GPU is believed: 2.5 on 4, so 8 / 2.5 + 2 = 5.2 s.
    profile = BUNDLE.profile_of(BUNDLE.terms(Overrides(evaluate_s=2.0)), errors=ProfileErrors(scaling_error=-0.5))
    assert 10.0 / profile.scaling.speedup(4) == pytest.approx(5.2)


def test_plans_and_runs_agree_on_what_evaluation_takes():
    # Two trials on 4 GPUs each: 2 + 3 x (8 / 4 + 2) x relative cost 1 and 3 + 1.
    run = spec(
        workload={"evaluate_s": 2.0},
        policy="random-fixed",
        job={"trials": 1, "max_iterations": 3, "exact": True, "deadline_s": 100.0},
        cloud={"price_usd_per_hour": 3.6, "gpus_per_instance": 4, "max_instances": 1},
    )
    bundle = tiny_bundle([[0.9, 0.8, 0.7]], iteration_s=10.0, scaling=LinearScaling(8), timings=BUNDLE.timings)
    assert execute(run, bundle=bundle).makespan_s == pytest.approx(2 + 3 * 4 + 1)
    profile = bundle.profile_of(bundle.terms(Overrides(evaluate_s=2.0)))
    terms = Terms(profile, PriceBook((InstanceType("m", 4, {ON_DEMAND: 3.6}),), max_instances=1))
    assert terms.segment_s(3, 4, is_first=True) == pytest.approx(15.0)


def test_a_bundle_may_say_what_its_evaluation_takes(write_bundle, conftest_header):
    header = conftest_header + "iteration_s: 10\nevaluate_s: 2\nscaling: {1: 1, 2: 2}\nlaunch_s: 1\ncheckpoint_s: 1\n"
    bundle = load_bundle(write_bundle(header))
    assert bundle.evaluate_s == 2.0
    assert bundle.terms().evaluate_s == 2.0
    # Other hardware changes both alike.
    assert bundle.terms(Overrides(iteration_s=60.0)).evaluate_s == 12.0
    assert bundle.terms(Overrides(iteration_s=60.0, evaluate_s=3.0)).evaluate_s == 3.0
    assert bundle.terms().provenance["evaluate_s"] == "unstated"


@pytest.mark.parametrize("lines", ["evaluate_s: 2\n", "iteration_s: 2\nevaluate_s: 2\n"])
def test_evaluation_is_a_part_of_the_iteration(write_bundle, conftest_header, lines):
    with pytest.raises(InvalidTraceError, match="column evaluate_s: is a part of the iteration, and so must be less"):
        load_bundle(write_bundle(conftest_header + lines))
    with pytest.raises(InputError, match=r"workload\.evaluate_s is 10\.0, but it is a part of the iteration"):
        BUNDLE.terms(Overrides(evaluate_s=10.0))


# Memory.


def test_a_bundle_says_which_configurations_need_more_gpus(write_bundle, conftest_header):
    header = conftest_header + "iteration_s: 10\nscaling: {1: 1, 8: 8}\nlaunch_s: 1\ncheckpoint_s: 1\n"
    bundle = load_bundle(write_bundle(header, configs="trial,lr,min_gpus\n0,0.1,1\n1,0.2,4\n"))
    assert bundle.configurations == [{"lr": 0.1}, {"lr": 0.2}]
    truth = bundle.truth_of(bundle.terms(), JOB, 0)
    assert truth.min_gpus.tolist() == [[1, 4][row] for row in bundle.draw(2, 0)]
    assert bundle.profile_of(bundle.terms()).min_gpus == 4
    given = bundle.terms(Overrides(min_gpus=2))
    assert bundle.truth_of(given, JOB, 0).min_gpus.tolist() == [2, 2]
    assert bundle.profile_of(given).min_gpus == 2
    assert bundle.truth_of(bundle.terms(Overrides(min_gpus=1)), JOB, 0).min_gpus is None
    assert (given.provenance["min_gpus"], bundle.terms().provenance["min_gpus"]) == (
        "assumed: set by the run",
        "unstated",
    )


@pytest.mark.parametrize("cell", ["0", "1.5", "two", ""])
def test_a_least_gang_is_a_whole_number_of_gpus(write_bundle, cell):
    with pytest.raises(InvalidTraceError, match=r"configs\.csv, row 2, column min_gpus: is "):
        load_bundle(write_bundle(configs=f"trial,lr,min_gpus\n0,0.1,1\n1,0.2,{cell}\n"))


def test_configurations_that_fit_one_gpu_need_no_column(write_bundle):
    assert load_bundle(write_bundle(configs="trial,lr,min_gpus\n0,0.1,1\n1,0.2,1\n")).min_gpus is None
    assert load_bundle(write_bundle(name="other")).min_gpus is None
    assert BUNDLE.truth_of(BUNDLE.terms(), JOB, 0).min_gpus is None


# The cloud's part, from spec to world.


def test_slow_machines_interference_and_the_store_reach_the_run():
    def makespan_s(**cloud):
        run = spec(cloud={"price_usd_per_hour": 3.6, "gpus_per_instance": 4, "max_instances": 4, **cloud})
        return execute(run, bundle=flat).makespan_s

    flat = tiny_bundle(
        np.tile([[0.9], [0.8]], 3), iteration_s=10.0, scaling=LinearScaling(8), timings=Timings(0.0, 4.0, 4.0)
    )
    # SHA on 1 GPU each: both trials for an iteration on one machine, and the better one for two more.
    assert makespan_s() == pytest.approx(14 + 24)
    assert makespan_s(slow_nodes={"share": 1.0, "slowdown": 2.0}) == pytest.approx(24 + 44)
    assert makespan_s(interference=0.5) == pytest.approx(15 + 4 + 24)
    assert makespan_s(store_writers=1) == pytest.approx(10 + 8 + 24)
