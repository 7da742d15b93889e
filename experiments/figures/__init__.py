"""Figures: one pure function per figure, tidy table in, matplotlib Figure out.

Nothing here uses pyplot or needs a display. May import `sim.model`, `sim.streams` and `experiments.metrics`; matplotlib and
pandas are imported when a figure is made.
"""

from __future__ import annotations

from experiments.figures.best import best_so_far
from experiments.figures.cost_deadline import cost_over_deadline
from experiments.figures.differences import paired_differences
from experiments.figures.frontier import frontier
from experiments.figures.gantt import gantt
from experiments.figures.gpus import gpus_over_time
from experiments.figures.greedy_gap import greedy_gap
from experiments.figures.grid import score_grid
from experiments.figures.learning import curves
from experiments.figures.ledger import ledger
from experiments.figures.panels import comparison
from experiments.figures.profiles import performance_profiles
from experiments.figures.progress import score_over_time_and_cost
from experiments.figures.saving import save
from experiments.figures.scaling import scaling_fit
from experiments.figures.score_cost import score_over_cost
from experiments.figures.sensitivity import sensitivity

__all__ = [
    "best_so_far",
    "comparison",
    "cost_over_deadline",
    "curves",
    "frontier",
    "gantt",
    "gpus_over_time",
    "greedy_gap",
    "ledger",
    "paired_differences",
    "performance_profiles",
    "save",
    "scaling_fit",
    "score_grid",
    "score_over_cost",
    "score_over_time_and_cost",
    "sensitivity",
]
