"""The margin before a limit, and the rounding of money at one: the one place for both [ours].

Two things that are scheduled for the same instant must not depend on which of them came first. So a run ends one margin before
T, and the plan that it follows ends one margin before the run: its last event is handled before the run is stopped.

Prices that come to exactly B may add up to a little more, as floats are rounded. Whoever compares a bill, or what is about to
be committed, with a budget allows for that with `most_usd`. Times need nothing of the kind, as margins are far above rounding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elastune.sim.model.job import TuningJob

MARGIN_S = 1e-3
"""Seconds; far below what matters in a run, far above the rounding of times."""
PLAN_MARGIN_S = 2 * MARGIN_S
"""A plan ends this long before T: one margin before its run, which ends one margin before T."""

ROUNDING = 1e-12
"""Share of a budget by which the sum of its prices may be above it; far below a cent, far above the rounding of floats."""


def most_usd(budget_usd: float) -> float:
    """The most that a bill within this budget may come to in floats; infinite without a budget."""
    return budget_usd * (1 + ROUNDING)


def run_ends_by_s(job: TuningJob) -> float:
    """When the run is stopped at the latest; infinite without a deadline."""
    return _before_deadline(job, MARGIN_S)


def plan_ends_by_s(job: TuningJob) -> float:
    """When everything that is planned must have ended; infinite without a deadline."""
    return _before_deadline(job, PLAN_MARGIN_S)


def deadline_for_s(plan_s: float) -> float:
    """The least deadline that a plan of so many seconds keeps; the inverse of `plan_ends_by_s`."""
    return plan_s + PLAN_MARGIN_S


def _before_deadline(job: TuningJob, margin_s: float) -> float:
    return math.inf if job.deadline_s is None else job.deadline_s - margin_s
