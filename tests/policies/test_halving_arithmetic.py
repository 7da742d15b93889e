from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune.policies.rules.halving import (
    AsynchronousRung,
    Bracket,
    Stage,
    explicit_stages,
    ranked,
    rung_levels,
    rungs,
)
from elastune.sim.model.job import TuningJob, loss_of


def pairs(stages):
    return [(stage.trials, stage.iterations) for stage in stages]


def sha(trials, r, last, eta, levels):
    return TuningJob(trials=trials, min_iterations=r, max_iterations=last, reduction_factor=eta, levels=levels)


@pytest.mark.parametrize(
    ("job", "stages"),
    [
        (sha(32, 1, 50, 3, "further"), [(32, 1), (10, 3), (3, 9), (1, 37)]),
        (sha(64, 4, 508, 2, "further"), [(64, 4), (32, 8), (16, 16), (8, 32), (4, 64), (2, 128), (1, 256)]),
        (sha(27, 1, 27, 3, "cumulative"), [(27, 1), (9, 2), (3, 6), (1, 18)]),
        (sha(81, 3, 81, 3, "cumulative"), [(81, 3), (27, 6), (9, 18), (3, 54)]),
        (sha(20, 1, 10, 3, "cumulative"), [(20, 1), (6, 2), (2, 6), (1, 1)]),
        (sha(4, 1, 27, 3, "cumulative"), [(4, 1), (1, 26)]),  # who is alone trains to R
        (sha(1, 1, 27, 3, "cumulative"), [(1, 27)]),
        (sha(9, 5, 5, 3, "cumulative"), [(9, 5)]),
    ],
)
def test_the_rungs_of_successive_halving(job, stages):
    assert pairs(rungs(job)) == stages


def test_stages_can_be_given():
    job = TuningJob(trials=9, min_iterations=1, max_iterations=9, stages=((6, 2), (2, 3)))
    assert rungs(job) == explicit_stages(job.stages) == (Stage(6, 2, 2), Stage(2, 3, 5))


@pytest.mark.parametrize(
    ("job", "levels"),
    [
        (sha(1, 1, 81, 3, "cumulative"), (1, 3, 9, 27, 81)),
        (sha(1, 1, 50, 3, "cumulative"), (1, 3, 9, 27, 50)),
        (sha(1, 1, 50, 3, "further"), (1, 4, 13, 40, 50)),
        (sha(1, 5, 5, 3, "cumulative"), (5,)),
    ],
)
def test_the_levels_of_the_rungs(job, levels):
    assert rung_levels(job) == levels


@given(
    st.integers(1, 200),
    st.integers(1, 10),
    st.integers(0, 200),
    st.integers(2, 5),
    st.sampled_from(["cumulative", "further"]),
)
def test_rungs_shrink_by_eta_and_end_at_r(trials, r, more, eta, levels):
    stages = rungs(sha(trials, r, r + more, eta, levels))
    assert stages[0].trials == trials
    assert stages[-1].until_iteration == r + more == sum(stage.iterations for stage in stages)
    for before, after in pairwise(stages):
        assert after.trials == max(1, before.trials // eta)
        assert after.iterations >= 1


def test_ranking_puts_diverged_runs_last_and_breaks_ties_by_number():
    scores = [(4, 0.5), (3, None), (2, float("nan")), (1, 0.5), (0, 0.9)]
    assert ranked(scores, "minimize") == [1, 4, 0, 2, 3]
    assert ranked(scores, "maximize") == [0, 1, 4, 2, 3]


def test_a_bracket_keeps_the_best_and_tells_who_drops_out():
    bracket = Bracket(explicit_stages([(4, 1), (2, 1), (1, 2)]), [0, 1, 2, 3], "maximize")
    for trial, score in ((2, 0.3), (0, 0.1), (1, None), (3, 0.2)):
        assert not bracket.is_stage_complete
        bracket.record(trial, score)
    assert bracket.is_stage_complete
    assert bracket.advance() == [0, 1]
    assert (bracket.trials, bracket.stage, bracket.is_last) == ([2, 3], Stage(2, 1, 2), False)
    assert bracket.drop(1) == [3]
    bracket.record(2, None)
    assert bracket.is_stage_complete
    assert bracket.advance() == []
    assert (bracket.trials, bracket.is_last, bracket.remaining) == ([2], True, ())


losses = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, float("inf")]), max_size=40)


@given(losses, st.integers(2, 4), st.randoms())
def test_an_asynchronous_rung_promotes_like_the_definition(recorded, eta, random):
    rung, seen, promoted = AsynchronousRung(eta), [], set()
    trials = list(range(len(recorded)))
    random.shuffle(trials)
    for trial, loss in zip(trials, recorded, strict=True):
        rung.record(trial, loss)
        seen.append((loss, trial))
        while True:
            # ASHA, Algorithm 2: the candidates are the top 1/eta of the rung that were not promoted yet.
            top = [one for _, one in sorted(seen)[: len(seen) // eta]]
            expected = next((one for one in top if one not in promoted), None)
            actual = rung.promote()
            assert actual == expected
            if actual is None:
                break
            promoted.add(actual)
            if random.random() < 0.3:
                break
    assert rung.size == len(recorded)


@given(losses, st.integers(2, 4))
def test_the_last_resort_is_the_best_that_was_not_promoted(recorded, eta):
    rung = AsynchronousRung(eta)
    for trial, loss in enumerate(recorded):
        rung.record(trial, loss)
    taken = []
    while (trial := rung.promote_best()) is not None:
        taken.append(trial)
    assert taken == [trial for _, trial in sorted((loss, trial) for trial, loss in enumerate(recorded))]


@pytest.mark.parametrize(
    ("score", "direction", "loss"),
    [
        (0.3, "minimize", 0.3),
        (0.3, "maximize", -0.3),
        (None, "maximize", float("inf")),
        (float("nan"), "minimize", float("inf")),
        (float("-inf"), "minimize", float("inf")),
    ],
)
def test_scores_become_losses(score, direction, loss):
    assert loss_of(score, direction) == loss
