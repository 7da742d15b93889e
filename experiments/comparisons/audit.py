"""What a past search cost, and what each policy would have cost and reached on its trials. Imports traces, spec, comparison.

A past search is a log that the importers read, or a bundle that was made of one. What a log does not tell is assumed, and every
assumption is a sentence of the result. A trial that was cut short has no later curve: it is left out of what policies choose
from, or, where that is asked for, is taken to have diverged where it ends. In both cases the result says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elastune.experiments.comparisons.comparison import Comparison, compare
from elastune.experiments.spec.run import RunSpec
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.sim.model.job import loss_of
from elastune.sim.model.price_series import highest
from elastune.sim.model.prices import ON_DEMAND, SECONDS_PER_HOUR
from elastune.traces import Bundle, shipped_offers
from elastune.traces.importers.assemble import SECONDS_OF_ALL

_ETA = 3


@dataclass(frozen=True)
class PastSearch:
    """What a search spent.

    Attributes:
        trials: it trained, those cut short included.
        complete: of them, trained as far as the longest.
        gpu_s: seconds of training, each trial on one GPU.
        complete_gpu_s: of the complete ones.
        at_once: trials that trained at a time.
        usd: the price of that training on GPUs that never waited.
        longest_s: seconds of the longest complete trial.
        best_score: of the complete trials at their end; None where all have diverged.
    """

    trials: int
    complete: int
    gpu_s: float
    complete_gpu_s: float
    at_once: int
    usd: float
    longest_s: float
    best_score: float | None

    @property
    def makespan_s(self) -> float:
        """At least; trials are not split."""
        return max(self.gpu_s / self.at_once, self.longest_s)


@dataclass(frozen=True)
class Audit:
    """The past search beside the policies.

    Attributes:
        past: the search.
        spec: of the policies' runs.
        comparison: of the policies, on the complete trials; None where none of them finds a plan.
        assumed: a sentence for all that the log does not tell.
        no_plan: that none of them does, as in so short a search, and what would do; empty otherwise.
        reasons: why, by policy.
    """

    past: PastSearch
    spec: RunSpec
    comparison: Comparison | None
    assumed: tuple[str, ...]
    no_plan: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What `elastune audit --json` prints."""
        past = {name: getattr(self.past, name) for name in PastSearch.__dataclass_fields__}
        return {
            "past": {**past, "makespan_s": self.past.makespan_s},
            "assumed": list(self.assumed),
            "spec": self.spec.to_dict(),
            "no_plan": self.no_plan or None,
            "reasons": dict(self.reasons),
            **(self.comparison.to_json() if self.comparison is not None else {}),
        }


def audit(  # noqa: PLR0913  all but the first three by keyword, each with a default
    bundle: Bundle,
    bundle_name: str,
    machine: str,
    *,
    at_once: int | None = None,
    scaling: object = None,
    policies: str | Sequence[str] = (),
    seeds: int = 20,
    jobs: int = 1,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Audit:
    """Compare what a search cost with what policies would have, given the same money and the same time.

    Args:
        bundle: the complete trials of the search.
        bundle_name: what a spec calls it.
        machine: its name in the price catalogue.
        at_once: trials that trained at a time; None for as many as a machine has GPUs.
        scaling: of a trial over GPUs, as a spec takes it; None for one GPU per trial.
        policies: as `compare` takes them.
        seeds: orders in which the trials are tried.
        jobs: processes.
        on_progress: as `compare` calls it.

    Raises:
        InputError: the log has no seconds, or a policy or the machine is unknown.
    """
    total_s, complete_s = _seconds_of(bundle)
    recorded = int(_noted(bundle, "trials_recorded", least=bundle.trials) or bundle.trials)
    sections: dict[str, Any] = {
        "job": {"trials": bundle.trials, "max_iterations": bundle.max_iterations, "reduction_factor": _ETA},
        "workload": {"bundle": bundle_name, "scaling": {"1": 1} if scaling is None else scaling},
        "cloud": {"instance_type": machine, "startup": _startup_of(machine), "rescale_s": 10},
        "policy": "sha-fixed",
    }
    kind = RunSpec.of(**sections).price_book().default_type
    together = min(at_once or kind.gpus_per_instance, recorded)
    usd = total_s * highest(kind.usd_per_hour[ON_DEMAND]) / kind.gpus_per_instance / SECONDS_PER_HOUR
    best = min(bundle.scores[:, -1].tolist(), key=lambda score: loss_of(score, bundle.direction))
    past = PastSearch(
        recorded,
        bundle.trials,
        total_s,
        math.fsum(complete_s),
        together,
        usd,
        max(complete_s),
        best if math.isfinite(best) else None,
    )
    sections["job"] |= {"deadline_s": past.makespan_s, "budget_usd": usd}
    sections["cloud"]["max_instances"] = max(1, math.ceil(together / kind.gpus_per_instance))
    spec = RunSpec.of(**sections)
    assumed = tuple(_assumed(bundle, past, at_once, scaling))
    try:
        comparison = compare(spec, policies, seeds, jobs=jobs, on_progress=on_progress)
    except InfeasibleJobError as error:
        return Audit(past, spec, None, assumed, str(error), error.reasons)
    return Audit(past, spec, comparison, assumed)


def _seconds_of(bundle: Bundle) -> tuple[float, list[float]]:
    """(of all trials, of each that the bundle holds) seconds of training.

    Raises:
        InputError: nothing was timed.
    """
    if bundle.seconds is not None:
        complete_s = np.nansum(bundle.seconds, axis=1).tolist()
    elif bundle.iteration_s is not None:
        complete_s = (bundle.iteration_s * bundle.max_iterations * bundle.relative_cost).tolist()
    else:
        raise InputError(
            f"{bundle.name} has no seconds, so nothing says what the search cost: import it with its seconds, or with"
            " --set iteration_s=..."
        )
    least_s = math.fsum(complete_s)
    noted_s = _noted(bundle, SECONDS_OF_ALL, least=0)
    return (least_s if noted_s is None else noted_s), complete_s


def _startup_of(machine: str) -> str:
    """The start-up preset of the catalogue's machine of this name; an unknown name is refused where prices are looked up."""
    return next((offer.startup for offer in shipped_offers() if offer.name == machine), "typical")


def _assumed(bundle: Bundle, past: PastSearch, at_once: int | None, scaling: object) -> list[str]:
    told = []
    few = past.at_once == past.trials
    cut = past.trials - past.complete
    if cut:
        share = max(0.0, 1 - past.complete_gpu_s / past.gpu_s)  # below where trials inherited what others had trained
        told.append(
            f"{cut} of {past.trials} trials were cut short and have no later curve: policies choose among the"
            f" {past.complete} complete ones only, which the search believed in. The others are {100 * share:.0f} % of its cost"
        )
    if (ended := len(_listed(bundle, "trials_ended_as_diverged"))) > 0:
        told.append(f"{ended} trials are taken to have diverged where their curves end")
    told.append(
        "each trial of the search trained on one GPU, which was paid only while it trained: the least it can have cost"
    )
    if at_once is None:
        told.append(
            f"{past.at_once} trials trained at a time, as many as {'there are' if few else 'one machine has GPUs'} (--at-once)"
        )
    if scaling is None:
        told.append("no trial gets more than one GPU, as nothing says how it would scale (--scaling)")
    told.append("machines take 5 s + 124 s to come (typical), a trial that moves takes 10 s")
    return told


def _noted(bundle: Bundle, note: str, *, least: float) -> float | None:
    """A number that the import noted; None where it did not.

    Raises:
        InputError: it is no number, or less than that.
    """
    imported = bundle.notes.get("imported")
    value = imported.get(note) if isinstance(imported, dict) else None
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and least <= value < math.inf):
        raise InputError(
            f"{bundle.name}, bundle.yaml: imported.{note} is {value!r}, but must be a number from {least:g} on; import the"
            " search again"
        )
    return float(value)


def _listed(bundle: Bundle, note: str) -> list[object]:
    imported = bundle.notes.get("imported")
    found = imported.get(note, []) if isinstance(imported, dict) else []
    return list(found) if isinstance(found, list) else []
