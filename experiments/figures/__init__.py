"""Figures: one pure function per figure, tidy table in, matplotlib Figure out.

Nothing here uses pyplot or needs a display. It knows tables and no room above it, so results can draw themselves. May
import `sim.model` and `experiments.statistics`; matplotlib and pandas are imported when a figure is made.
"""

from __future__ import annotations

from elastune.experiments.figures.best import best_so_far, score_over_time_and_cost
from elastune.experiments.figures.cost_deadline import cost_over_deadline
from elastune.experiments.figures.differences import paired_differences
from elastune.experiments.figures.flops import gate_sparsity, networks_over_flops, trade_off
from elastune.experiments.figures.front import front
from elastune.experiments.figures.frontier import frontier
from elastune.experiments.figures.gantt import gantt
from elastune.experiments.figures.gpus import gpus_over_time
from elastune.experiments.figures.greedy_gap import greedy_gap
from elastune.experiments.figures.grid import score_grid
from elastune.experiments.figures.learning import curves
from elastune.experiments.figures.ledger import ledger
from elastune.experiments.figures.panels import comparison
from elastune.experiments.figures.profiles import performance_profiles
from elastune.experiments.figures.reliability import reliability
from elastune.experiments.figures.scaling import scaling_fit
from elastune.experiments.figures.score_cost import score_over_cost
from elastune.experiments.figures.sensitivity import sensitivity
from elastune.experiments.figures.style import save

__all__ = [
    "best_so_far",
    "comparison",
    "cost_over_deadline",
    "curves",
    "front",
    "frontier",
    "gantt",
    "gate_sparsity",
    "gpus_over_time",
    "greedy_gap",
    "ledger",
    "networks_over_flops",
    "paired_differences",
    "performance_profiles",
    "reliability",
    "save",
    "scaling_fit",
    "score_grid",
    "score_over_cost",
    "score_over_time_and_cost",
    "sensitivity",
    "trade_off",
]
