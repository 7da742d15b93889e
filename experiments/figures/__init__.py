"""Figures: one pure function per figure, tidy table in, matplotlib Figure out.

Nothing here uses pyplot or needs a display. May import `sim.model` and `sim.streams`; matplotlib and pandas are
imported when a figure is made.
"""

from __future__ import annotations

from experiments.figures.best import best_so_far
from experiments.figures.gpus import gpus_over_time
from experiments.figures.learning import curves
from experiments.figures.ledger import ledger
from experiments.figures.panels import comparison
from experiments.figures.saving import save
from experiments.figures.scaling import scaling_fit
from experiments.figures.score_cost import score_over_cost

__all__ = ["best_so_far", "comparison", "curves", "gpus_over_time", "ledger", "save", "scaling_fit", "score_over_cost"]
