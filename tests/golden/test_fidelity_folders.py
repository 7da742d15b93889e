"""Real runs on two CPU slots, recorded by `elastune fidelity` and packed: what they showed is shown again."""

from __future__ import annotations

from pathlib import Path

import pytest

from elastune.experiments.fidelity.analysis import checked_runs
from elastune.experiments.fidelity.report import FidelityReport
from elastune.experiments.fidelity.rows import RealRunRow, rows_of_runs

FOLDERS = Path(__file__).parent / "fidelity"
STRUCTURE = 0.02
"""The most that simulation with measured seconds may be off."""


@pytest.fixture(scope="module")
def runs():
    return checked_runs(sorted(FOLDERS.iterdir()))


JOBS = ("cnn", "sklearn", "startup")
OTHERWISE = {"cnn-seer-5": 6, "sklearn-seer-1": 6, "sklearn-seer-3": 6, "sklearn-seer-5": 6, "startup-seer-2": 7}
"""Runs that did not decide as predicted: about a second machine of SEER, or as two trials ended in the opposite order."""


def test_four_policies_ran_for_real_in_both_regimes(runs):
    found = {(run.unit.job, run.unit.policy) for run in runs}
    policies = ("seer", "rubberband", "sha-fixed", "asha-fixed")
    assert found == {(job, policy) for job in JOBS for policy in policies}
    shares = {job: [run.regime for run in runs if run.unit.job == job] for job in JOBS}
    assert all(starting > 0.8 for _, starting in shares["startup"])
    trained = [share for share, _ in shares["sklearn"]]
    assert min(trained) > 0.7
    assert sum(trained) / len(trained) >= 0.8


def test_structure_alone_is_off_by_less_than_two_per_cent(runs):
    for run in runs:
        for name in ("makespan_s", "cost_usd"):
            split = run.split(name)
            assert abs(split.relative(split.structure)) <= STRUCTURE, run.unit.name


def test_simulation_and_reality_decided_the_same(runs):
    for run in runs:
        assert run.difference.number == OTHERWISE.get(run.unit.name, 0), run.unit.name
        assert run.difference_measured.number == 0, run.unit.name
        assert set(run.in_common.values()) == {1.0}, run.unit.name
        # The curves of sklearn were recorded on the machine of its runs, those of the others on another one.
        score = run.split("score")
        off = {"cnn": 0.04, "sklearn": 1e-6, "startup": 0.08}[run.unit.job]
        assert score.guess.value == pytest.approx(score.real, abs=off), run.unit.name


def test_intervals_hold_as_often_as_they_say(runs):
    splits = [run.split(name) for run in runs for name in run.names() if name != "score"]
    assert 0.85 <= sum(split.is_covered for split in splits) / len(splits) <= 0.95


def test_one_job_reaches_one_score_under_every_policy(runs):
    # SEER may choose another schedule, and ASHA may promote another trial; the other two train the same job.
    scores = {}
    for run in runs:
        if run.unit.policy in ("rubberband", "sha-fixed"):
            scores.setdefault((run.unit.job, run.unit.repeat), set()).add(run.split("score").real)
    assert all(len(found) == 1 for found in scores.values())


def test_the_machine_had_drifted_and_the_report_says_so(runs):
    report = FidelityReport.of(runs)
    assert report.entries == sum(run.entries for run in runs) > 20 * len(runs)
    assert all(group.drift is not None for group in report.groups)


def test_a_row_tells_the_errors_of_its_run(runs):
    rows = rows_of_runs(runs)
    assert list(rows) == list(RealRunRow._fields)
    assert len(rows) == len(runs)
    for (_, row), run in zip(rows.iterrows(), runs, strict=True):
        makespan = run.split("makespan_s")
        assert row["makespan_s"] == pytest.approx(makespan.real, rel=1e-5)
        assert row["makespan_error"] == pytest.approx((makespan.guess.value - makespan.real) / makespan.real, rel=1e-4)
        known = makespan.guess.value * (1 + row["drift"])
        assert row["makespan_beyond_drift"] == pytest.approx(abs(known - makespan.real) / makespan.real, abs=1e-4)
        low, high = sorted(run.drift)
        assert low <= row["drift"] <= high
        assert row["policy"] == run.unit.policy
