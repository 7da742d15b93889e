"""Trials whose configuration was sampled, and trials that go on from the checkpoint of another."""

from __future__ import annotations

import io

import msgspec
import pytest

from elastune.sim.control.controller import Controller
from elastune.sim.control.journal import Entry, JournalWriter, replay
from elastune.sim.model.actions import CloneTrial, FinishRun, PauseTrial, RunTrial, ScaleTo, StopTrial
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.errors import InvalidActionError
from elastune.sim.model.events import (
    InstanceLaunched,
    InstanceReady,
    Outcome,
    RunStarted,
    SegmentEnded,
    TimerFired,
    TrialSampled,
)

FIRST, SECOND, MIXED = {"rate": 0.1}, {"rate": 0.3}, {"rate": 0.12}


def ended(trial, segment, iteration, *, at_s, durable=None, score=0.5, outcome=Outcome.COMPLETED):
    durable = iteration if durable is None else durable
    return SegmentEnded(at_s, trial, segment, iteration, durable, score, outcome, 0.0, 1.0, 0.0)


def started(run, answers, trials=2, **keywords):
    """A run whose trials have each trained for 3 iterations on a GPU of their own; trial t with a score of t + 0.5."""
    first = {"start": [ScaleTo(1), *(RunTrial(trial, 1, 3) for trial in range(trials))]}
    controlled = run(first | answers, trials=trials, **keywords)
    events = [RunStarted(0.0), InstanceLaunched(0.0, 0), InstanceReady(0.0, 0)]
    events += [TrialSampled(0.0, trial, {"rate": trial / 10}) for trial in range(trials)]
    events += [ended(trial, trial, 3, at_s=10.0 + trial, score=trial + 0.5) for trial in range(trials)]
    for event in events:
        controlled.handle(event)
    return controlled


def commands(run, event):
    return [command for command in run.handle(event) if isinstance(command, StartSegment)]


def test_a_sampled_configuration_is_known_to_the_policy_and_goes_with_every_later_segment(controlled):
    seen = []
    run = controlled(
        {
            "start": [ScaleTo(1), RunTrial(0, 1, 3)],
            "sampled 0": lambda view: seen.append(view.trial(0).configuration) or [],
            "ended 0": [RunTrial(0, 1, 5)],
        }
    )
    run.handle(RunStarted(0.0))
    run.handle(InstanceLaunched(0.0, 0))
    [first] = commands(run, InstanceReady(0.0, 0))
    run.handle(TrialSampled(0.0, 0, FIRST))
    [second] = commands(run, ended(0, 0, 3, at_s=10.0))
    assert (first.configuration, first.restore_from) == (None, None)
    assert (second.configuration, second.restore_from, second.from_iteration) == (FIRST, 0, 3)
    assert seen == [FIRST]


def test_a_clone_goes_on_from_its_source_until_it_has_a_checkpoint_of_its_own(controlled):
    run = started(
        controlled,
        {
            "timer clone": [CloneTrial(1, 0, MIXED), RunTrial(0, 2, 5)],
            "timer again": [RunTrial(0, 2, 5)],
            "timer further": [RunTrial(0, 2, 9)],
        },
    )
    [first] = commands(run, TimerFired(20.0, "clone"))
    assert (first.trial, first.from_iteration, first.restore_from, first.configuration) == (0, 3, 1, MIXED)
    # It fails at iteration 4, of which nothing is durable: it borrows once more.
    run.handle(ended(0, 2, 4, durable=3, at_s=25.0, outcome=Outcome.FAILED))
    [again] = commands(run, TimerFired(26.0, "again"))
    assert (again.from_iteration, again.restore_from, again.configuration) == (3, 1, MIXED)
    run.handle(ended(0, 3, 5, at_s=30.0))
    [further] = commands(run, TimerFired(31.0, "further"))
    assert (further.from_iteration, further.restore_from, further.configuration) == (5, 0, MIXED)


def test_a_clone_shows_the_iteration_and_score_of_its_source_at_once(controlled):
    seen = []

    def show(view):
        trial = view.trial(0)
        seen.append(
            (trial.iteration, trial.score, trial.checkpoint_iteration, trial.checkpoint_score, trial.cloned_from)
        )
        return []

    run = started(controlled, {"timer before": show, "timer clone": [CloneTrial(1, 0, MIXED)], "timer after": show})
    for number, tag in enumerate(("before", "clone", "after")):
        run.handle(TimerFired(20.0 + number, tag))
    assert seen == [(3, 0.5, 3, 0.5, None), (3, 1.5, 3, 1.5, 1)]


def test_a_trial_that_never_ran_can_become_a_clone(controlled):
    run = started(controlled, {"timer clone": [CloneTrial(1, 2, MIXED), RunTrial(2, 1, 4)]}, trials=3)
    # Trials 0 to 2 have trained; a fourth one has not.
    fresh = controlled(
        {"start": [ScaleTo(1), RunTrial(0, 1, 3)], "ended 0": [CloneTrial(0, 1, MIXED), RunTrial(1, 1, 4)]}
    )
    for event in (RunStarted(0.0), InstanceLaunched(0.0, 0), InstanceReady(0.0, 0)):
        fresh.handle(event)
    [command] = commands(fresh, ended(0, 0, 3, at_s=10.0))
    assert (command.trial, command.from_iteration, command.until_iteration, command.restore_from) == (1, 3, 4, 0)
    assert list(fresh.state.started) == [0, 1]
    assert list(run.state.started) == [0, 1, 2]


def test_the_source_may_run_or_be_stopped(controlled):
    run = started(
        controlled,
        {
            "timer run": [RunTrial(1, 1, 6), CloneTrial(1, 0, MIXED)],
            "timer stop": [StopTrial(1), CloneTrial(1, 2, MIXED), RunTrial(2, 1, 4)],
        },
        trials=3,
    )
    run.handle(TimerFired(20.0, "run"))
    [command] = commands(run, TimerFired(21.0, "stop"))
    assert (command.trial, command.restore_from) == (2, 1)


def test_a_clone_of_a_clone_that_has_saved_nothing_borrows_from_who_has(controlled):
    run = started(
        controlled,
        {"timer clone": [CloneTrial(2, 1, MIXED), CloneTrial(1, 0, SECOND), RunTrial(0, 1, 4)]},
        trials=3,
    )
    [command] = commands(run, TimerFired(20.0, "clone"))
    assert (command.trial, command.restore_from, command.configuration) == (0, 2, SECOND)


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        ([CloneTrial(0, 9, MIXED)], r"target=9.*the job has trials 0 to 2"),
        ([CloneTrial(9, 0, MIXED)], r"source=9.*the job has trials 0 to 2"),
        ([CloneTrial(0, 0, MIXED)], r"a trial cannot be its own clone"),
        ([CloneTrial(0, 1, {})], r"the configuration is empty"),
        ([StopTrial(1), CloneTrial(0, 1, MIXED)], r"the target is stopped; only an idle trial can become a clone"),
        ([RunTrial(1, 1, 6), CloneTrial(0, 1, MIXED)], r"the target is running; only an idle trial"),
        ([RunTrial(1, 1, 6), PauseTrial(1), CloneTrial(0, 1, MIXED)], r"the target is ending; only an idle trial"),
        ([RunTrial(0, 4, 6), RunTrial(1, 4, 6), CloneTrial(0, 1, MIXED)], r"the target is waiting; only an idle trial"),
        (
            [CloneTrial(0, 1, MIXED), CloneTrial(2, 0, MIXED)],
            r"trial 1 goes on from the target's checkpoint and has not saved one of its own yet",
        ),
        (
            [CloneTrial(0, 1, MIXED), FinishRun(1)],
            r"FinishRun\(best=1\).*saved nothing since it was cloned; its checkpoint is trial 0's",
        ),
        ([CloneTrial(0, 1, MIXED), RunTrial(1, 1, 3)], r"the trial has completed 3 iterations already"),
    ],
)
def test_an_impossible_clone_is_refused_with_policy_action_and_time(controlled, actions, problem):
    run = started(controlled, {"timer now": actions}, trials=3)
    with pytest.raises(InvalidActionError, match=rf"^script: .* at 100\.0 s: .*{problem}|^script: .*{problem}"):
        run.handle(TimerFired(100.0, "now"))


def test_a_lender_can_become_a_clone_when_its_borrower_has_saved(controlled):
    run = started(
        controlled,
        {
            "timer clone": [CloneTrial(0, 1, MIXED), RunTrial(1, 1, 4)],
            "timer back": [CloneTrial(1, 0, SECOND), RunTrial(0, 1, 6)],
        },
    )
    run.handle(TimerFired(20.0, "clone"))
    run.handle(ended(1, 2, 4, at_s=25.0))
    [command] = commands(run, TimerFired(26.0, "back"))
    assert (command.trial, command.from_iteration, command.restore_from) == (0, 4, 1)


def test_iterations_of_a_clone_count_from_where_its_source_was(controlled):
    run = started(controlled, {"timer clone": [CloneTrial(1, 0, MIXED), RunTrial(0, 1, 5)]})
    run.handle(TimerFired(20.0, "clone"))
    run.handle(ended(0, 2, 5, at_s=25.0))
    assert run.state.totals.iterations_trained == 3 + 3 + 2


def test_a_journal_with_samples_and_clones_replays_without_a_sampler(controlled, world, script):
    answers = {"timer clone": [CloneTrial(1, 0, MIXED), RunTrial(0, 1, 5)], "timer end": [FinishRun(0)]}
    run = started(controlled, answers)
    for event in (TimerFired(20.0, "clone"), ended(0, 2, 5, at_s=25.0), TimerFired(26.0, "end")):
        run.handle(event)
    stream = io.BytesIO()
    writer = JournalWriter(stream)
    for entry in run.entries:
        writer.write(entry)
    recorded = [msgspec.json.decode(line, type=Entry) for line in stream.getvalue().splitlines()]
    assert recorded == run.entries
    tiny = world()
    start = {"start": [ScaleTo(1), RunTrial(0, 1, 3), RunTrial(1, 1, 3)]}
    reproduced = replay(
        recorded, lambda sink: Controller(script(start | answers), tiny.job, tiny.book, name="script", sink=sink)
    )
    assert reproduced == len(run.entries)


def test_the_simulated_world_refuses_a_clone_and_says_whose_action_it_was(simulate):
    with pytest.raises(
        InvalidActionError,
        match=(
            r"^script: CloneTrial\(source=0, target=1, configuration=\{'rate': 0\.12\}\) at 30\.0 s: cloned trials have no"
            r" recorded curve; they need real workers$"
        ),
    ):
        simulate({"start": [ScaleTo(1), RunTrial(0, 1, 3)], "ended 0": [CloneTrial(0, 1, MIXED), RunTrial(1, 1, 5)]})
