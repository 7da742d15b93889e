"""Fits the curve models of SEER's expected score, and measures what they predict of families that they have not seen.

`python -m experiments.profiling.fit_curve_prior FOLDER...` fits the shipped bundles and those in the folders, writes
their families, and no others, to `policies/sizing/curve_priors.json`, and prints for each bundle how well the prior of the
other families agrees with replaying successive halving on its curves. Imports policies, sim.model, traces and numpy;
scipy in the functions that need it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from elastune.experiments.files import write_text
from elastune.policies.rules.halving import Stage, rungs
from elastune.policies.sizing.curve_prior import FAILED_REGRET, PRIORS_FILE, CurveModel, CurvePrior, family_key
from elastune.sim.model.errors import InputError
from elastune.sim.model.job import TuningJob
from elastune.traces import Bundle, bundle_names, load_bundle

FRACTIONS = (1 / 81, 1 / 27, 1 / 9, 1 / 3, 0.6)
"""Shares of R at which ranks and losses are compared with the final ones."""
TRIALS = (2, 3, 9, 27, 81)
"""Numbers of configurations among which the best is chosen; at most a quarter of a bundle's, as in the experiments."""
WINNER_OF = 3
"""The best of more than this many configurations counts as a winner when the gap is fitted."""
BUDGETS = (1.5, 2, 3, 4, 6, 9, 14, 20, 30, 45)
"""Budgets in full trainings, for which the prior chooses a schedule."""
DRAWS = 1500
REPLAYS = 400
_SEED = 20211101

HELD_BACK = ("deepmoe-mnist5k",)
"""Bundles that no prior was fitted to, so that claim D3 sees SEER on a family that it does not know."""


def regret_curves(bundle: Bundle) -> np.ndarray:
    """(trials, iterations) float; (loss - best) / (median - best) of the final losses, at most `FAILED_REGRET`.

    A diverged final loss counts as the worst finite one, as in `experiments.runs.regret.regret_of`. Regrets are capped only
    here, because some losses are as large as 1e34.

    Raises:
        InputError: all final losses are equal or diverged, so there is no scale.
    """
    losses = bundle.scores if bundle.direction == "minimize" else -bundle.scores
    losses = np.where(np.isfinite(losses), losses, np.inf)
    known = losses[:, -1][np.isfinite(losses[:, -1])]
    if not known.size:
        raise InputError(f"bundle {bundle.name}: every configuration diverged")
    best, median = float(known.min()), float(np.median(np.minimum(losses[:, -1], known.max())))
    if median <= best:
        raise InputError(f"bundle {bundle.name}: the median final loss, {median}, is the best one too")
    return np.minimum((losses - best) / (median - best), FAILED_REGRET)


@dataclass(frozen=True)
class Moment:
    """The best of several configurations at one time, on average over draws from one bundle.

    Attributes:
        fraction: the time, as a share of R.
        trials: configurations among which it is the best.
        rank: its final rank among all, as a standard normal number; higher is better.
        regret: its final regret.
        gap: its regret at the time minus its final regret.
    """

    fraction: float
    trials: int
    rank: float
    regret: float
    gap: float


def moments(regrets: np.ndarray) -> list[Moment]:
    """The moments of one bundle, by its `regret_curves`."""
    rng = np.random.default_rng(_SEED)
    iterations = regrets.shape[1]
    drawn = _draws(rng, len(regrets), DRAWS)
    ranks = _normal_ranks(regrets[:, -1], rng)
    found = []
    for until in sorted({max(1, round(share * iterations)) for share in FRACTIONS} | {iterations}):
        reached = regrets[:, until - 1]
        for trials in (count for count in TRIALS if count <= drawn.shape[1]):
            best = drawn[np.arange(DRAWS), reached[drawn[:, :trials]].argmin(axis=1)]
            final = float(regrets[best, -1].mean())
            gap = float(reached[best].mean()) - final
            found.append(Moment(until / iterations, trials, float(ranks[best].mean()), final, gap))
    return found


def _draws(rng: np.random.Generator, configurations: int, draws: int) -> np.ndarray:
    """(draws, a quarter of the configurations) int; without replacement."""
    order = np.argsort(rng.random((draws, configurations)), axis=1)
    return order[:, : max(2, configurations // 4)]


def _normal_ranks(losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(trials,) float; ties are broken at random."""
    from scipy.stats import norm

    places = np.empty(len(losses))
    places[np.lexsort((rng.random(len(losses)), losses))] = np.arange(len(losses))
    return np.asarray(-norm.ppf((places + 0.5) / len(losses)))


def fit(bundles: Sequence[np.ndarray]) -> CurveModel:
    """The model of one family, by least squares over the moments of all its bundles.

    The churn is fitted to ranks, the rarity to final regrets of the best at R, the gap to later losses of the best.

    Args:
        bundles: `regret_curves` of each.
    """
    observed = [moment for regrets in bundles for moment in moments(regrets)]
    # The median has a regret of 1, so fewer than half of the runs are nearer to a failed one.
    failed = float(np.mean([np.mean(regrets[:, -1] > (1 + FAILED_REGRET) / 2) for regrets in bundles]))
    early = [moment for moment in observed if moment.fraction < 1]
    winners = [moment for moment in early if moment.trials > WINNER_OF]
    trained = [moment for moment in observed if moment.fraction == 1]

    def model(churn: float = 1.0, rarity: float = 1.0, gap: float = 1.0, gap_power: float = 1.0) -> CurveModel:
        return CurveModel(churn, rarity, failed, gap, gap_power)

    (churn,) = _least_squares(
        lambda churn: [model(churn).mean_rank_of_best(m.trials, m.fraction) - m.rank for m in early], 0.1
    )
    (rarity,) = _least_squares(
        lambda rarity: [model(rarity=rarity).expected_regret([Stage(m.trials, 1, 1)], 1) - m.regret for m in trained],
        1.0,
    )
    gap, gap_power = _least_squares(
        lambda gap, power: [model(gap=gap, gap_power=power).truncation(m.fraction) - m.gap for m in winners], 0.1, 1.0
    )
    return CurveModel(*(float(f"{number:.3g}") for number in (churn, rarity, failed, gap, gap_power)))


def _least_squares(misses: Callable[..., list[float]], *start: float) -> list[float]:
    """The positive parameters with the least squares of misses, searched on a logarithmic scale."""
    from scipy.optimize import least_squares

    found = least_squares(lambda logs: np.array(misses(*np.exp(logs).tolist())), np.log(start), bounds=(-9, 2))
    return list(np.exp(found.x).tolist())


def _by_family(bundles: Iterable[Bundle]) -> dict[str, list[Bundle]]:
    families: dict[str, list[Bundle]] = {}
    for bundle in bundles:
        families.setdefault(_family_of(bundle), []).append(bundle)
    return dict(sorted(families.items()))


def _family_of(bundle: Bundle) -> str:
    return family_key(bundle.family or bundle.name)


def replayed_regret(regrets: np.ndarray, stages: Sequence[Stage]) -> float:
    """Mean regret of the winner of successive halving at its last rung, over `REPLAYS` draws.

    Args:
        regrets: (trials, iterations) float, of `regret_curves`.
        stages: of successive halving; at most a quarter of the trials in the first.
    """
    live = _draws(np.random.default_rng(_SEED + 1), len(regrets), REPLAYS)[:, : stages[0].trials]
    for index, stage in enumerate(stages):
        keep = stages[index + 1].trials if index + 1 < len(stages) else 1
        order = np.argsort(regrets[live, stage.until_iteration - 1], axis=1, kind="stable")
        live = np.take_along_axis(live, order[:, :keep], axis=1)
    return float(regrets[live[:, 0], stages[-1].until_iteration - 1].mean())


def schedules(configurations: int, iterations: int, *, is_prefix_schedule: bool) -> list[tuple[Stage, ...]]:
    """Schedules (n, r, R') with at most a quarter of the configurations; R' = R unless shorter runs are prefixes."""
    sizes = sorted({round(1.4**power) for power in range(30)} | {configurations // 4})
    shares = (1, 3, 9) if is_prefix_schedule else (1,)
    found = {
        rungs(TuningJob(trials=trials, min_iterations=least, max_iterations=last))
        for trials in sizes
        for last in {max(1, iterations // share) for share in shares}
        for least in {max(1, iterations // share) for share in (81, 27, 9, 3)}
        if 1 <= trials <= configurations // 4 and least <= last
    }
    return sorted(found, key=lambda stages: [(s.trials, s.until_iteration) for s in stages])


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predicted and replayed regrets of schedules, on a bundle whose family the prior has not seen.

    Attributes:
        schedules: compared.
        first: (schedules,) float; the first rung, as a share of R.
        last: (schedules,) float; the last, as a share of R.
        work: (schedules,) float; in full trainings.
        predicted: (schedules,) float; expected regret.
        measured: (schedules,) float; mean regret over `REPLAYS` draws.
    """

    schedules: Sequence[tuple[Stage, ...]]
    first: np.ndarray
    last: np.ndarray
    work: np.ndarray
    predicted: np.ndarray
    measured: np.ndarray

    def summary(self) -> dict[str, float]:
        """Rank correlations over all schedules and over those of similar work, bias, and the loss by choosing.

        `chosen` is the measured regret of the schedule with the best prediction within a budget, minus that of the best one.
        `chosen_given_r` is the same among schedules whose first rung is R / 27. `largest_n` is the same for the most
        configurations trained to R. All are means over the `BUDGETS` that are reached.
        """
        given_r = self.first == self.first[np.abs(self.first - 1 / 27).argmin()]
        budgets = [budget for budget in BUDGETS if budget <= self.work.max()]
        close = [np.flatnonzero((self.work <= budget) & (self.work > budget / 2)) for budget in budgets]
        numbers = {
            "rank_correlation": _rank_correlation(self.predicted, self.measured),
            "rank_correlation_at_like_work": float(
                np.nanmean([_rank_correlation(self.predicted[rows], self.measured[rows]) for rows in close])
            ),
            "bias": float(np.mean(self.predicted - self.measured)),
            "chosen": self._lost_by(self.predicted, budgets, np.full(len(self.work), fill_value=True)),
            "chosen_given_r": self._lost_by(self.predicted, budgets, given_r),
            "largest_n": self._lost_by(np.where(self.last == 1, -self.work, 0.0), budgets, given_r),
        }
        return {name: round(number, 3) for name, number in numbers.items()}

    def _lost_by(self, order: np.ndarray, budgets: Sequence[float], among: np.ndarray) -> float:
        """Mean over budgets: measured regret of the schedule with the lowest `order` (schedules,), minus the best one."""
        affordable = [np.flatnonzero(among & (self.work <= budget)) for budget in budgets]
        lost = [
            self.measured[rows[order[rows].argmin()]] - self.measured[rows].min() for rows in affordable if rows.size
        ]
        return float(np.mean(lost))

    def rows(self) -> list[tuple[str, float, float]]:
        """(trials x iterations in all of each stage, predicted, measured) of every schedule."""
        names = (" ".join(f"{stage.trials}x{stage.until_iteration}" for stage in stages) for stages in self.schedules)
        return list(zip(names, self.predicted.tolist(), self.measured.tolist(), strict=True))


def _rank_correlation(some: np.ndarray, others: np.ndarray) -> float:
    """Spearman's; NaN with fewer than five."""
    from scipy.stats import spearmanr

    return float(spearmanr(some, others).statistic) if len(some) >= 5 else math.nan


def held_out(bundle: Bundle, prior: CurvePrior) -> HeldOut:
    """Compare the prior with replays on the bundle."""
    regrets = regret_curves(bundle)
    configurations, last = regrets.shape
    compared = schedules(configurations, last, is_prefix_schedule=bundle.schedule == "constant")
    return HeldOut(
        schedules=compared,
        first=np.array([stages[0].until_iteration / last for stages in compared]),
        last=np.array([stages[-1].until_iteration / last for stages in compared]),
        work=np.array([sum(stage.trials * stage.iterations for stage in stages) / last for stages in compared]),
        predicted=np.array([prior.expected_regret(stages, last) for stages in compared]),
        measured=np.array([replayed_regret(regrets, stages) for stages in compared]),
    )


class Document(TypedDict):
    """The file of priors."""

    source: str
    model: str
    held_out: str
    families: dict[str, Family]


class Family(TypedDict):
    """A family in the file: its model, its bundles, and how well the other families predict it."""

    model: dict[str, float]
    bundles: dict[str, dict[str, str]]
    held_out: dict[str, dict[str, float]]


def document_of(bundles: Iterable[Bundle]) -> Document:
    """The models of all families of the bundles, with provenance and comparison."""
    families = _by_family(bundles)
    models = {name: fit([regret_curves(bundle) for bundle in family]) for name, family in families.items()}
    entries: dict[str, Family] = {
        name: {
            "model": asdict(models[name]),
            "bundles": {bundle.name: _provenance(bundle) for bundle in family},
            "held_out": {bundle.name: held_out(bundle, _without(name, models)).summary() for bundle in family},
        }
        for name, family in families.items()
    }
    return {
        "source": "ours: `python -m experiments.profiling.fit_curve_prior` on the recorded curves of the bundles below",
        "model": "policies.sizing.curve_prior.CurveModel; the prior for a workload leaves its own family out",
        "held_out": "experiments.profiling.fit_curve_prior.HeldOut.summary, for the prior without the bundle's family",
        "families": entries,
    }


def _without(family: str, models: Mapping[str, CurveModel]) -> CurvePrior:
    return CurvePrior(tuple(model for name, model in models.items() if name != family))


def _provenance(bundle: Bundle) -> dict[str, str]:
    return {"source": bundle.source, "licence": bundle.licence, "sha256": bundle.sha256}


def developed_on(folders: Sequence[Path] = ()) -> tuple[str, ...]:
    """Names of the shipped bundles and of those in the folders, without what is held back."""
    return tuple(name for name in bundle_names(folders) if name not in HELD_BACK)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, write the file and print what was written."""
    parser = argparse.ArgumentParser(description="Fit the curve models that SEER's expected score rests on.")
    parser.add_argument("folders", nargs="*", type=Path, help="folders of bundles besides the shipped ones")
    parser.add_argument("--output", type=Path, default=PRIORS_FILE, help="the file to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    for folder in options.folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder of bundles")
    bundles = [load_bundle(name, options.folders) for name in developed_on(options.folders)]
    document = document_of(bundles)
    write_text(options.output, json.dumps(document, indent=2) + "\n")
    for name, family in document["families"].items():
        sys.stdout.write(f"{name}: {family['model']}\n")
        for bundle, summary in family["held_out"].items():
            sys.stdout.write(f"  {bundle}: {summary}\n")


if __name__ == "__main__":
    main()
