"""What a bundle is like, in numbers: how good its configurations are, how early that shows, and how long they take.

Imports numpy, sim.model.job and traces; scipy.stats inside the function that needs it.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.job import loss_of

if TYPE_CHECKING:
    import pandas as pd

    from elastune.traces import Bundle
    from elastune.traces.bundles.replicates import Replicates

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""From the worst final score (0) to the best (1)."""
EARLY_SHARES = (1 / 27, 1 / 9, 1 / 3, 2 / 3)
"""Shares of a full training after which ranks are compared with the final ones."""


def describe(bundle: Bundle) -> dict[str, object]:
    """What `elastune bundles show --json` prints; None where nothing was recorded or a number does not exist."""
    timings, stragglers, scaling = bundle.timings, bundle.stragglers, bundle.scaling
    return {
        "name": bundle.name,
        "direction": bundle.direction,
        "score": bundle.score,
        "iteration": bundle.iteration,
        "trials": bundle.trials,
        "max_iterations": bundle.max_iterations,
        "final_quantiles": _final_quantiles(bundle),
        "diverged_share": float(np.mean(~np.isfinite(bundle.scores[:, -1]))),
        "rank_correlation": _rank_correlations(bundle),
        "replicates": _noise(bundle),
        "measures": {name: _measure(bundle, name) for name in bundle.measures},
        "iteration_s": bundle.iteration_s,
        "evaluate_s": bundle.evaluate_s,
        "min_gpus": 1 if bundle.min_gpus is None else int(bundle.min_gpus.max()),
        "relative_cost_range": [float(bundle.relative_cost.min()), float(bundle.relative_cost.max())],
        "launch_s": timings.launch_s if timings else None,
        "checkpoint_s": timings.checkpoint_s if timings else None,
        "straggler_persistent_cv": stragglers.persistent_cv if stragglers else None,
        "straggler_per_iteration_cv": stragglers.per_iteration_cv if stragglers else None,
        "max_gpus": scaling.max_gpus if scaling else None,
        "schedule": bundle.schedule,
        "family": bundle.family,
        "source": bundle.source,
        "licence": bundle.licence,
        "provenance": dict(bundle.provenance),
        "sha256": bundle.sha256,
    }


def _measure(bundle: Bundle, name: str) -> dict[str, object]:
    """What it is in words, and its range at the end of the curves; None where all diverged."""
    finals = bundle.measured[name][:, -1]
    finite = finals[np.isfinite(finals)]
    levels = ("least", 0.0), ("median", 0.5), ("most", 1.0)
    found = {key: float(np.quantile(finite, level)) if finite.size else None for key, level in levels}
    return {"means": bundle.measures[name], **found}


def describe_import(bundle: Bundle) -> dict[str, object]:
    """What `elastune bundles import --json` prints besides: what was made of a recording, and what a run must add."""
    return {
        "imported": bundle.notes.get("imported", {}),
        "hyperparameters": list(bundle.configurations[0]),
        "without_score_share": float(np.mean(np.isnan(bundle.scores))),
        "has_test_scores": bundle.test_scores is not None,
        "has_seconds": bundle.seconds is not None,
        "lacking": bundle.lacking(),
    }


def curves_table(bundle: Bundle) -> pd.DataFrame:
    """The curves as a tidy table: trial, iteration (from 1), score, direction."""
    import pandas as pd

    trials, iterations = bundle.scores.shape
    return pd.DataFrame(
        {
            "trial": np.repeat(np.arange(trials), iterations),
            "iteration": np.tile(np.arange(1, iterations + 1), trials),
            "score": bundle.scores.ravel(),
            "direction": bundle.direction,
        }
    )


def finals_table(bundle: Bundle) -> pd.DataFrame:
    """Each configuration at the end of its curve: score, and a column for each measure."""
    import pandas as pd

    measured = {name: values[:, -1] for name, values in bundle.measured.items()}
    return pd.DataFrame({"score": bundle.scores[:, -1], **measured})


def _final_quantiles(bundle: Bundle) -> dict[str, float] | None:
    finals = bundle.scores[:, -1]
    finite = finals[np.isfinite(finals)]
    if not finite.size:
        return None
    levels = QUANTILES if bundle.direction == "maximize" else tuple(1 - level for level in QUANTILES)
    return {f"{level:g}": float(score) for level, score in zip(QUANTILES, np.quantile(finite, levels), strict=True)}


def _rank_correlations(bundle: Bundle) -> list[dict[str, float | int | None]]:
    """Spearman's correlation of the ranks after some iterations with the final ones; diverged runs rank last."""
    final = _ranks(bundle, bundle.max_iterations)
    rows: list[dict[str, float | int | None]] = []
    for share in EARLY_SHARES:
        iteration = max(1, round(share * bundle.max_iterations))
        early = _ranks(bundle, iteration)
        known = early.std() > 0 and final.std() > 0
        correlation = float(np.corrcoef(early, final)[0, 1]) if known else math.nan
        rows.append({"iteration": iteration, "spearman": correlation if known else None})
    return rows


def _ranks(bundle: Bundle, iteration: int) -> np.ndarray:
    from scipy.stats import rankdata

    return np.asarray(rankdata(_losses(bundle, bundle.scores[:, iteration - 1])))


def _losses(bundle: Bundle, scores: np.ndarray) -> list[float]:
    return [loss_of(score, bundle.direction) for score in scores.tolist()]


def _noise(bundle: Bundle) -> dict[str, object] | None:
    """How much the final scores of equal configurations differ; None where each was trained once.

    Both spreads are standard deviations, and robust ones, because few runs that diverge would decide otherwise: the median of
    the trials' own, and the range between the quartiles of the trials' means over 1.349, which it is for a normal distribution.
    """
    if bundle.replicates is None:
        return None
    trial, finals = bundle.replicates.trial, bundle.replicates.scores[:, -1]
    by_trial = [finals[trial == row] for row in range(bundle.trials)]
    finite = [scores[np.isfinite(scores)] for scores in by_trial]
    spreads = [scores.std(ddof=1) for scores in finite if len(scores) > 1]
    means = [scores.mean() for scores in finite if len(scores)]
    counts = [len(scores) for scores in by_trial]
    return {
        "trials_with_several": sum(count > 1 for count in counts),
        "fewest": min(counts),
        "most": max(counts),
        "spread_over_replicates": float(np.median(spreads)) if spreads else None,
        "spread_over_configurations": float(np.subtract(*np.quantile(means, (0.75, 0.25)))) / 1.349 if means else None,
        "rank_correlation": _correlation_of_replicates(bundle, bundle.replicates),
    }


def _correlation_of_replicates(bundle: Bundle, replicates: Replicates) -> float | None:
    """Spearman's correlation of the final ranks of two replicates; the mean over all pairs that share at least three trials."""
    from scipy.stats import rankdata

    finals = {
        number: dict(
            zip(
                replicates.trial[replicates.number == number].tolist(),
                _losses(bundle, replicates.scores[replicates.number == number, -1]),
                strict=True,
            )
        )
        for number in np.unique(replicates.number).tolist()
    }
    found = []
    for one, other in itertools.combinations(finals.values(), 2):
        shared = sorted(one.keys() & other.keys())
        ranks = [rankdata([of[trial] for trial in shared]) for of in (one, other)]
        if len(shared) >= 3 and all(rank.std() > 0 for rank in ranks):
            found.append(np.corrcoef(*ranks)[0, 1])
    return float(np.mean(found)) if found else None
