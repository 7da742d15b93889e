"""Population based training: what it does in small worlds worked out by hand, and its promises in the contract's worlds."""

from __future__ import annotations

import numpy as np
import pytest
from cloning_backends import Learning, sampled
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import Story, check_each_event

from elastune.experiments.contracts.policies import check_policy, record, worlds
from elastune.policies.execution.asynchronous import Task
from elastune.policies.registry import POLICIES, factory
from elastune.policies.tuners.pbt import Population, explored, pbt
from elastune.sim.control.controller import Controller
from elastune.sim.control.journal import MemorySink, replay
from elastune.sim.control.runner import run
from elastune.sim.model.actions import CloneTrial
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.sim.model.events import SegmentEnded, TrialSampled
from elastune.sim.model.job import TuningJob
from elastune.traces.workloads import Categorical, Integer, LogUniform, Uniform

RATE = {"rate": Uniform(0.0, 1.0)}


class Luck:
    """Draws what was written down: never anew, then these choices in order."""

    def __init__(self, choices):
        self.choices = list(choices)

    def random(self):
        return 1.0

    def integers(self, below):
        chosen = self.choices.pop(0)
        assert 0 <= chosen < below
        return chosen


def played(world, rates, choices, **parameters):
    """The history of a population whose trials learn at these rates, in which scores are maximised."""
    tiny = world(trials=len(rates), iterations=4, timings=(2.0, 1.0, 4.0), direction="maximize", quota=1, **parameters)
    sinks = []

    def fresh(sink):
        policy = pbt(tiny.job, tiny.profile, tiny.book, Luck(choices), hyperparameters=RATE, interval=2)
        return Controller(policy, tiny.job, tiny.book, name="pbt", sink=sink)

    sinks.append(MemorySink())
    controller = check_each_event(fresh(sinks[0]))
    backend = Learning(rates)
    run(controller, backend)
    assert replay(sinks[0].entries, fresh) == len(sinks[0].entries)
    return Story(controller, sinks[0].entries), backend


def starts(story):
    """Who starts when, from where to where, restored from whom, and at which rate."""
    return [
        (
            entry.event.at_s,
            o.trial,
            o.from_iteration,
            o.until_iteration,
            o.restore_from,
            (o.configuration or {}).get("rate"),
        )
        for entry in story.entries
        for o in entry.commands
        if isinstance(o, StartSegment)
    ]


def test_members_that_train_at_once(world):
    # A new segment takes 2 + 20 + 1 s, one that goes on 3 + 20 + 1 s. All end their first interval at 23 s, in their order.
    # Trial 0 (.8) is alone and goes on. Trial 1 (.6) is the worse of two: it takes over from trial 0, at .4 x 1.2. Trials 2 and
    # 3 are the worst of three and of four so far, and take over as well, at .4 x .8 and .4 x 1.2.
    story, backend = played(world, [0.4, 0.3, 0.2, 0.1], [0, 1, 0, 0, 0, 1])
    assert starts(story) == [
        (0.0, 0, 0, 2, None, None),
        (0.0, 1, 0, 2, None, None),
        (0.0, 2, 0, 2, None, None),
        (0.0, 3, 0, 2, None, None),
        (23.0, 0, 2, 4, 0, 0.4),
        (23.0, 1, 2, 4, 0, pytest.approx(0.48)),
        (23.0, 2, 2, 4, 0, pytest.approx(0.32)),
        (23.0, 3, 2, 4, 0, pytest.approx(0.48)),
    ]
    # .8 + 2 x the rate; trials 1 and 3 are equal, and the lower number wins.
    assert [backend.saved[trial, 4] for trial in range(4)] == pytest.approx([1.6, 1.76, 1.44, 1.76])
    assert (story.makespan_s, story.best, story.bill_usd) == (47.0, 1, 47.0)


def test_members_that_take_turns(world):
    # One GPU. All three train for an interval before anybody goes on. Then trial 0 (.2) is the worst of three and takes over
    # from trial 1 (.6) at .3 x 1.2; at R it is compared no more. Trial 1 is the better of the two left, trial 2 is alone.
    story, backend = played(world, [0.1, 0.3, 0.2], [0, 1], gpus=1)
    assert starts(story) == [
        (0.0, 0, 0, 2, None, None),
        (23.0, 1, 0, 2, None, None),
        (46.0, 2, 0, 2, None, None),
        (69.0, 0, 2, 4, 1, pytest.approx(0.36)),
        (93.0, 1, 2, 4, 1, 0.3),
        (117.0, 2, 2, 4, 2, 0.2),
    ]
    assert [backend.saved[trial, 4] for trial in range(3)] == pytest.approx([1.32, 1.2, 0.8])
    assert (story.makespan_s, story.best) == (141.0, 0)


def test_the_journal_says_who_took_over_from_whom(world):
    story, _ = played(world, [0.1, 0.3, 0.2], [0, 1], gpus=1)
    [clone] = [action for entry in story.entries for action in entry.actions if isinstance(action, CloneTrial)]
    assert (clone.source, clone.target) == (1, 0)
    told = [entry.event for entry in story.entries if isinstance(entry.event, TrialSampled)]
    assert [(event.trial, event.configuration) for event in told] == [
        (0, {"rate": 0.1}),
        (1, {"rate": 0.3}),
        (2, {"rate": 0.2}),
    ]


# The rule alone.

JOB = TuningJob(trials=8, min_iterations=1, max_iterations=9)


def population(members, *, quantile=0.25, interval=3, job=JOB, rng=None):
    rule = Population(job, members, interval, quantile, dict, rng or np.random.default_rng(0))
    for trial in range(members):
        rule.sampled(trial, {"rate": trial})
    return rule


def compared(rule, scores, iteration=3):
    """What each member does next after all have reached the iteration; None or whom it takes over from."""
    for _ in scores:
        rule.next_task()
    for trial, score in enumerate(scores):
        rule.reached(trial, iteration, score)
    tasks = [rule.next_task() for _ in scores]
    return [None if task.clone is None else task.clone.source for task in tasks]


@pytest.mark.parametrize(
    ("scores", "quantile", "sources"),
    [
        # A quarter of 8 is 2: the worst of all is replaced; the two best are 0 and 1.
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 0.25, {6: {0, 1}, 7: {0, 1}}),
        # Rounded up: a quarter of 5 is 2, of 2 is 1, but never more than half: of 3 it is 1.
        ([0.1, 0.2, 0.3, 0.4, 0.5], 0.25, {3: {0, 1}, 4: {0, 1}}),
        ([0.1, 0.2, 0.3], 0.5, {2: {0}}),
        ([0.1], 0.5, {}),
        # Diverged members are the worst; ties are broken by the number.
        ([None, 0.2, float("nan"), 0.2], 0.25, {2: {1}}),
    ],
)
def test_the_lowest_quantile_takes_over_from_the_highest(scores, quantile, sources):
    rule = population(len(scores), quantile=quantile)
    for trial, score in enumerate(scores):
        rule.next_task()
        rule.reached(trial, 3, score)
    ranked = {trial: rule._taken_over_by(trial) for trial in range(len(scores))}
    taken = {trial: source for trial, source in ranked.items() if source is not None}
    assert taken.keys() == sources.keys()
    assert all(source in sources[trial] for trial, source in taken.items())


def test_a_population_in_step_is_replaced_by_no_more_than_a_quantile():
    sources = compared(population(8), [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert sources[2:] == [None] * 6
    assert set(sources[:2]) <= {6, 7}


def test_nobody_takes_over_from_a_member_that_has_only_just_taken_over():
    rule = population(4)
    assert compared(rule, [0.1, 0.2, 0.3, 0.4]) == [None, None, None, 0]
    # The others have become worse than trial 3 was when it took over; its new checkpoint is not known to be good.
    for trial, score in ((0, 0.5), (1, 0.6), (2, 0.7)):
        rule.reached(trial, 6, score)
    assert rule._taken_over_by(2) is None
    rule.reached(3, 6, 0.1)
    assert rule._taken_over_by(2) == 3


def test_nobody_takes_over_from_a_population_that_has_diverged():
    assert compared(population(4), [None, None, None, None]) == [None] * 4


def test_scores_are_compared_in_the_direction_of_the_job():
    job = TuningJob(trials=4, min_iterations=1, max_iterations=9, direction="maximize")
    assert compared(population(4, job=job), [0.1, 0.2, 0.3, 0.4]) == [3, None, None, None]


def test_who_lends_is_not_replaced_before_the_borrower_has_saved():
    rule = population(4)
    assert compared(rule, [0.1, 0.2, 0.3, 0.4]) == [None, None, None, 0]
    # Trial 0 has become the worst meanwhile, but trial 3 may still need its checkpoint.
    for trial, score in ((0, 0.9), (1, 0.2), (2, 0.3)):
        rule.reached(trial, 6, score)
    assert rule._taken_over_by(0) is None
    rule.reached(3, 6, 0.05)
    assert rule._taken_over_by(0) == 3


def test_a_member_that_takes_over_stands_where_its_source_does():
    rule = population(2, quantile=0.5)
    rule.next_task(), rule.next_task()
    rule.reached(0, 3, 0.1)
    assert rule.next_task() == Task(0, 6)
    rule.reached(0, 6, 0.05)
    rule.reached(1, 3, 0.9)
    # Trial 1 has trained least, so it goes on first, from iteration 6 of trial 0.
    task = rule.next_task()
    assert (task.trial, task.until_iteration, task.clone.source) == (1, 9, 0)


def test_a_member_without_a_configuration_cannot_be_taken_over_from():
    rule = Population(JOB, 2, 3, 0.5, dict, np.random.default_rng(0))
    with pytest.raises(InputError, match=r"trial 0 has trained, but nobody has told with which configuration"):
        compared(rule, [0.1, 0.9])


# Exploring.

SPACE = {
    "rate": LogUniform(1e-4, 1.0),
    "momentum": Uniform(0.0, 0.99),
    "depth": Integer(1, 8),
    "batch": Categorical((16, 32, 64)),
}


def test_a_hyperparameter_is_multiplied_with_one_factor_or_the_other():
    luck = Luck([0, 1, 1, 0])
    given_ = {"rate": 0.1, "momentum": 0.5, "depth": 2, "batch": 32, "optimizer": "sgd"}
    changed = explored(given_, SPACE, 0.25, luck)
    expected = {"rate": 0.08, "momentum": 0.6, "depth": 3, "batch": 16, "optimizer": "sgd"}
    assert changed == {name: value if name == "optimizer" else pytest.approx(value) for name, value in expected.items()}
    assert given_["rate"] == 0.1


def test_one_in_so_many_is_drawn_anew():
    rng = np.random.default_rng(3)
    changed = [explored({"rate": 0.01}, {"rate": SPACE["rate"]}, 0.25, rng)["rate"] for _ in range(2000)]
    perturbed = sum(min(abs(rate - 0.008), abs(rate - 0.012)) < 1e-12 for rate in changed)
    # A quarter of 2,000 is 500; five standard deviations are 97.
    assert abs(2000 - perturbed - 500) < 97


@given(st.integers(0, 2**32), st.floats(0.0, 1.0), st.integers(1, 30))
def test_explored_configurations_never_leave_the_search_space(seed, probability, generations):
    rng = np.random.default_rng(seed)
    configuration = {name: dimension.sample(rng) for name, dimension in SPACE.items()}
    for _ in range(generations):
        configuration = explored(configuration, SPACE, probability, rng)
    assert 1e-4 <= configuration["rate"] <= 1.0
    assert 0.0 <= configuration["momentum"] <= 0.99
    assert configuration["depth"] in range(1, 9)
    assert configuration["batch"] in (16, 32, 64)


def test_a_configuration_that_lacks_what_may_change_is_an_error():
    with pytest.raises(InputError, match=r"^pbt: rate may change, but the configuration \{'x': 1\} has none"):
        explored({"x": 1}, RATE, 0.25, Luck([]))


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"interval": 10}, r"^pbt: interval is 10, but must be between 1 and job.max_iterations \(9\)"),
        ({"interval": -1}, r"^pbt: interval is -1"),
        ({"quantile": 0.6}, r"^pbt: quantile is 0.6, but must be above 0 and at most 0.5"),
        ({"quantile": 0.0}, r"^pbt: quantile is 0.0"),
        ({"resample_probability": 1.5}, r"^pbt: resample_probability is 1.5, but must be between 0 and 1"),
        ({"hyperparameters": {}}, r"^pbt: no hyperparameter may change"),
        ({"gpus_per_trial": 99}, r"^pbt: gpus_per_trial is 99"),
    ],
)
def test_parameters_out_of_range_are_refused(world, parameters, problem):
    tiny = world()
    with pytest.raises(InputError, match=problem):
        pbt(tiny.job, tiny.profile, tiny.book, None, **{"hyperparameters": RATE, **parameters})


def test_a_job_that_no_cluster_can_do_is_infeasible(world):
    tiny = world(deadline_s=30.0)
    with pytest.raises(
        InfeasibleJobError, match=r"^pbt: with 1 GPU per trial, no number of machines trains 1 configuration"
    ):
        pbt(tiny.job, tiny.profile, tiny.book, None, hyperparameters=RATE)


# In the worlds of the contract, where configurations are told.

WORLDS = {world.name: sampled(world) for world in worlds()}
CHANGING = {"rate": LogUniform(1e-3, 1.0), "depth": Integer(1, 4)}
VARIANTS = [{}, {"gpus_per_trial": 2, "interval": 2, "quantile": 0.5}]


@pytest.mark.many(fast=8)
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())
@pytest.mark.parametrize("parameters", VARIANTS, ids=str)
def test_it_keeps_every_promise_in_every_world(parameters, world):
    built = factory("pbt", {**parameters})
    findings = check_policy("pbt", lambda *terms: built(*terms, hyperparameters=CHANGING), where=[world])
    assert [finding for finding in findings if finding.status == "broken"] == []


def test_it_takes_over_in_the_worlds_that_go_wrong_too():
    built = factory("pbt")
    for name in ("plain", "failing segments", "lost instances"):
        recording = record("pbt", lambda *terms: built(*terms, hyperparameters=CHANGING), WORLDS[name])
        assert recording.error is None
        actions = [action for entry in recording.entries for action in entry.actions]
        assert sum(isinstance(action, CloneTrial) for action in actions) >= 3
        failed = [
            e.event for e in recording.entries if isinstance(e.event, SegmentEnded) and e.event.outcome != "completed"
        ]
        assert failed or name == "plain"


@pytest.mark.parametrize("name", POLICIES)
def test_other_policies_decide_the_same_where_configurations_are_told(name):
    def decided(world):
        entries = record(name, factory(name), world).entries
        return [(e.event, e.actions) for e in entries if not isinstance(e.event, TrialSampled)]

    plain = next(world for world in worlds() if world.name == "plain")
    with_samples = record(name, factory(name), WORLDS["plain"])
    assert with_samples.error is None
    silent = [e.actions for e in with_samples.entries if isinstance(e.event, TrialSampled)]
    assert silent == [[]] * len(with_samples.controller.state.started)
    # The numbers of simultaneous events do not move either, since told configurations take no time.
    assert decided(WORLDS["plain"]) == decided(plain)
