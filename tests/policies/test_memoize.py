"""Plans that are cached between the runs of a process: the same as if they were not."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest

from elastune import RunSpec, execute
from elastune.policies.seer import seer
from elastune.policies.seer import staged as seer_staged
from elastune.policies.sizing.memoize import MAX_CACHED, memoized
from elastune.policies.tuners import one_cut

SPEC = {
    "job": {"trials": 16, "max_iterations": 9, "deadline_s": 1200, "budget_usd": 4},
    "workload": {"bundle": "mnist5k-cnn", "scaling": "resnet50-v100", "iteration_s": 60},
    "cloud": {"instance_type": "p3.8xlarge", "startup": "typical", "rescale_s": 10},
}


def counting(function):
    calls = []

    @memoized
    def planner(*args, **kwargs):
        calls.append((args, kwargs))
        return function(*args, **kwargs)

    return planner, calls


@dataclass(frozen=True)
class Table:
    """As a scaling is: a mapping, so without a hash."""

    points: dict[int, float]


def test_equal_arguments_are_planned_once_and_others_anew():
    planner, calls = counting(lambda table, factor=1: table.points[2] * factor)
    assert [planner(Table({1: 1.0, 2: 1.5})), planner(Table({1: 1.0, 2: 1.5}))] == [1.5, 1.5]
    assert len(calls) == 1
    assert planner(Table({1: 1.0, 2: 1.6})) == 1.6
    assert planner(Table({1: 1.0, 2: 1.5}), factor=2) == 3.0
    assert len(calls) == 3


def test_only_so_many_results_are_kept():
    planner, calls = counting(lambda number: number)
    for number in (*range(MAX_CACHED + 1), 0, MAX_CACHED):
        assert planner(number) == number
    assert len(calls) == MAX_CACHED + 2  # 0 had been dropped for the last one


def test_that_there_is_no_plan_is_cached_too_but_no_error():
    none, found = counting(lambda: None)
    assert none() is none() is None
    assert len(found) == 1
    failing, tried = counting(lambda: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            failing()
    assert len(tried) == 2


def test_what_cannot_be_pickled_is_planned_each_time():
    planner, calls = counting(lambda function: function())
    assert [planner(lambda: 1), planner(lambda: 2)] == [1, 2]
    assert len(calls) == 2


def journal(policy, seed, **job):
    spec = RunSpec.of(**{**SPEC, "job": {**SPEC["job"], **job}}, policy=policy, seed=seed)
    stream = io.BytesIO()
    execute(spec, journal=stream)
    return stream.getvalue()


def test_what_ran_before_in_a_process_changes_no_journal(monkeypatch):
    runs = [
        (policy, seed, {"deadline_s": deadline_s})
        for deadline_s in (1200, 1500)
        for policy in ("seer", "seer-staged", "one-cut")
        for seed in (0, 1)
    ]
    after_others = {}
    for order in (runs, runs[::-1]):
        for policy, seed, job in order:
            after_others.setdefault((policy, seed, job["deadline_s"]), set()).add(journal(policy, seed, **job))
    for module, name in ((seer, "best_plan"), (seer_staged, "best_staged_plan"), (one_cut, "best_plan")):
        monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)
    for policy, seed, job in runs:
        assert after_others[policy, seed, job["deadline_s"]] == {journal(policy, seed, **job)}
