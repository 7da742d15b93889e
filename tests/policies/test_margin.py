"""One margin before T, subtracted in one place."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from elastune import policies
from elastune.policies.rules.margin import deadline_for_s, plan_ends_by_s, run_ends_by_s
from elastune.sim.model.job import TuningJob


def test_a_plan_ends_before_its_run_and_the_run_before_the_deadline():
    job = TuningJob(trials=1, min_iterations=1, max_iterations=1, deadline_s=100.0)
    assert run_ends_by_s(job) == pytest.approx(99.999, abs=1e-9)
    assert plan_ends_by_s(job) == pytest.approx(99.998, abs=1e-9)
    assert deadline_for_s(plan_ends_by_s(job)) == pytest.approx(100.0, abs=1e-9)


def test_without_a_deadline_nothing_has_to_end():
    job = TuningJob(trials=1, min_iterations=1, max_iterations=1)
    assert run_ends_by_s(job) == plan_ends_by_s(job) == math.inf


def test_nobody_else_subtracts_from_the_deadline():
    sources = Path(policies.__file__).parent.rglob("*.py")
    offenders = [path.name for path in sources if "job.deadline_s -" in path.read_text(encoding="utf-8")]
    assert offenders == ["margin.py"]
