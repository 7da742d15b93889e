"""Policy names -> factories: the one place that knows all policies.

A policy is imported when it is built or described: a shell that asks for names would wait for all of them, and numpy.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast, get_args, get_type_hints

from elastune.sim.model.errors import InfeasibleJobError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from elastune.policies.seer.mechanisms import Mechanisms
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.sim.model.protocols import Policy, PolicyFactory


_DESCRIBED = r"^    {}: (.+?)(?=\n    \w+: |\n\n|\Z)"
"""An entry of a docstring's list of arguments or attributes."""


@dataclass(frozen=True)
class RegisteredPolicy:
    """A policy of the registry.

    Attributes:
        made_by: (job, profile, price_book, rng, **parameters) -> Policy; or where that is below `elastune.policies`.
        summary: one line for listings.
        needs_truth: it is handed the true curves as `scores`, and so is an upper bound and not a tuner.
        own_switches: parameters, as `name=value`, that change how it works; those of `mechanisms` are known there.
        mechanisms_at: where the list of further parameters that it takes is.
        on_one_gpu: it trains configurations on one GPU each, all or at first.
        is_predetermined: its job is fixed before the run: every stage with all its trials, or the job is not done.
        needs_real_workers: it changes configurations while they train, so that nothing recorded can stand for them. It is
            handed those hyperparameters that may change as `hyperparameters`.
    """

    made_by: Callable[..., Policy] | str
    summary: str
    needs_truth: bool = False
    own_switches: tuple[str, ...] = ()
    mechanisms_at: str = ""
    on_one_gpu: bool = False
    is_predetermined: bool = False
    needs_real_workers: bool = False

    @cached_property
    def build(self) -> Callable[..., Policy]:
        """What builds it. The keyword parameters differ by policy; `factory` checks them."""
        return cast("Callable[..., Policy]", _at(self.made_by)) if isinstance(self.made_by, str) else self.made_by

    @cached_property
    def mechanisms(self) -> type[Mechanisms] | None:
        """The list of further parameters that `build` takes."""
        return cast("type[Mechanisms]", _at(self.mechanisms_at)) if self.mechanisms_at else None

    @property
    def switches(self) -> tuple[str, ...]:
        """Parameters, as `name=value`, that switch one of its mechanisms the other way."""
        return self.own_switches + (self.mechanisms.switches() if self.mechanisms else ())

    @cached_property
    def parameters(self) -> Mapping[str, object]:
        """Its parameters, with their defaults."""
        return self._own_parameters() | (self.mechanisms.parameters() if self.mechanisms else {})

    @cached_property  # asked for each spec that is read
    def choices(self) -> Mapping[str, tuple[object, ...]]:
        """The values of those parameters that have a list of them."""
        written = {name: self.build.__annotations__[name] for name in self._own_parameters()}
        types = get_type_hints(SimpleNamespace(__annotations__=written), self.build.__globals__)
        own = {name: (True, False) if hint is bool else get_args(hint) for name, hint in types.items()}
        return {name: values for name, values in own.items() if values} | (
            self.mechanisms.values() if self.mechanisms else {}
        )

    def meaning(self, parameter: str) -> str:
        """What a parameter is for, as the docstring of what takes it says; empty where that only points elsewhere."""
        for source in (self.build, *(self.mechanisms.__mro__ if self.mechanisms else ())):
            found = re.search(_DESCRIBED.format(parameter), inspect.getdoc(source) or "", re.MULTILINE | re.DOTALL)
            if found:
                text = re.sub(r"(^|; )see `[^`]+`", "", " ".join(found[1].split())).strip(".").replace("`", "")
                return text[:1].upper() + text[1:]
        return ""

    def _own_parameters(self) -> dict[str, object]:
        """The parameters of `build` itself that a user sets, with their defaults."""
        signature = inspect.signature(self.build)
        handed = {"scores"} if self.needs_truth else {"hyperparameters"} if self.needs_real_workers else set()
        named = (p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY and p.name not in handed)
        return {p.name: p.default for p in named}


def _at(place: str) -> object:
    module, _, name = place.partition(":")
    return getattr(import_module(f"elastune.policies.{module}"), name)


POLICIES: Mapping[str, RegisteredPolicy] = {
    "seer": RegisteredPolicy(
        "seer.seer:seer",
        "SEER: best expected score within T and B, elastic, planned and re-planned at each rung",
        mechanisms_at="seer.mechanisms:TowardsR",
    ),
    "seer-staged": RegisteredPolicy(
        "seer.staged:seer_staged",
        "SEER planned without R: stages grow by eta, trained as long as T and B allow, re-planned",
        mechanisms_at="seer.staged:StagedMechanisms",
    ),
    "explore-finish": RegisteredPolicy(
        "explore_finish.policy:explore_finish",
        "many configurations on many machines without barriers, then the best few on large gangs (ours)",
        own_switches=("time_share=1", "money_share=0.4", "rounds=1", "widens=false"),
    ),
    "portfolio": RegisteredPolicy(
        "seer.portfolio:portfolio",
        "ASHA where configurations differ much in seconds per iteration, seer elsewhere (ours)",
    ),
    "rubberband": RegisteredPolicy(
        "tuners.rubberband:rubberband",
        "RubberBand: cheapest elastic plan by T, for the largest SHA that fits B",
        own_switches=("space=wide", "steps=next", "makespan=p95", "replan=true"),
        is_predetermined=True,
    ),
    "static": RegisteredPolicy(
        "tuners.static:static",
        "static allocation: the whole job on the cheapest constant cluster that ends by T",
        own_switches=("space=wide", "makespan=p95"),
        is_predetermined=True,
    ),
    "sha-fixed": RegisteredPolicy("tuners.sha:sha_fixed", "successive halving on the best fixed cluster"),
    "sha-fixed-naive": RegisteredPolicy(
        "tuners.sha:sha_fixed_naive", "successive halving on floor(B / cT) machines held for all of T"
    ),
    "asha-fixed": RegisteredPolicy("tuners.asha:asha_fixed", "ASHA on the best fixed cluster", on_one_gpu=True),
    "asha-fixed-naive": RegisteredPolicy(
        "tuners.asha:asha_fixed_naive", "ASHA on floor(B / cT) machines held for all of T", on_one_gpu=True
    ),
    "asha-elastic": RegisteredPolicy(
        "tuners.asha:asha_elastic", "ASHA, elastic, a constant number of GPUs per trial, with admission control"
    ),
    "asha-stopping-fixed": RegisteredPolicy(
        "tuners.asha_stopping:asha_stopping_fixed",
        "ASHA that stops instead of pausing, on the best fixed cluster",
        on_one_gpu=True,
    ),
    "pasha-fixed": RegisteredPolicy(
        "tuners.pasha:pasha_fixed",
        "PASHA: ASHA whose highest rung rises on demand, on the best fixed cluster",
        on_one_gpu=True,
    ),
    "hyperband-fixed": RegisteredPolicy(
        "tuners.hyperband:hyperband_fixed", "Hyperband, brackets back to back, on the best fixed cluster"
    ),
    "hypersched-fixed": RegisteredPolicy(
        "tuners.hypersched:hypersched_fixed",
        "HyperSched: ever more GPUs for the best trials, on a fixed cluster",
        on_one_gpu=True,
    ),
    "random-fixed": RegisteredPolicy(
        "tuners.random_search:random_fixed", "random search, every configuration to R, on the best fixed cluster"
    ),
    "one-cut": RegisteredPolicy(
        "tuners.one_cut:one_cut", "many configurations for a few iterations, the best one to R, elastic"
    ),
    "elasticflow": RegisteredPolicy(
        "tuners.elasticflow:elasticflow", "ElasticFlow's rule: minimum shares by T, spare GPUs by marginal speed-up"
    ),
    "random-elastic": RegisteredPolicy(
        "tuners.random_search:random_elastic", "random search, elastic, a constant number of GPUs per trial"
    ),
    "hyperband-elastic": RegisteredPolicy(
        "tuners.hyperband:hyperband_elastic", "Hyperband, elastic, a constant number of GPUs per trial"
    ),
    "sha-elastic": RegisteredPolicy(
        "tuners.sha:sha_elastic", "successive halving, elastic, a constant number of GPUs per trial"
    ),
}

UPPER_BOUNDS: Mapping[str, RegisteredPolicy] = {
    "oracle": RegisteredPolicy(
        "tuners.oracle:oracle",
        "upper bound: knows the curves, trains only the best reachable configuration",
        needs_truth=True,
    ),
}
"""Not tuners: what a policy that knows the future could reach."""


ON_REAL_WORKERS: Mapping[str, RegisteredPolicy] = {
    "pbt": RegisteredPolicy(
        "tuners.pbt:pbt",
        "population based training: the worst go on from the best with changed hyperparameters (real workers only)",
        needs_real_workers=True,
    ),
}
"""Tuners that cannot be simulated."""


def all_entries() -> Mapping[str, RegisteredPolicy]:
    """Policies, those for real workers only, and upper bounds, by name."""
    return {**POLICIES, **ON_REAL_WORKERS, **UPPER_BOUNDS}


def entry_named(name: str) -> RegisteredPolicy:
    """The policy of this name.

    Raises:
        InputError: there is none; names the nearest and all known.
    """
    entries = all_entries()
    if name in entries:
        return entries[name]
    raise unknown("policy", name, entries)


def factory(name: str, parameters: Mapping[str, Any] | None = None) -> PolicyFactory:
    """A factory with the parameters bound.

    Raises:
        InputError: the policy or a parameter is unknown.
    """
    entry = entry_named(name)
    known = entry.parameters
    for parameter in parameters or {}:
        if parameter not in known:
            raise unknown(f"{name} parameter", parameter, known)
    build = partial(entry.build, **(parameters or {}))
    return partial(_on_one_gpu, name, build) if entry.on_one_gpu else build


def _on_one_gpu(
    name: str,
    build: PolicyFactory,
    job: TuningJob,
    profile: Profile,
    price_book: PriceBook,
    rng: np.random.Generator,
) -> Policy:
    if profile.min_gpus > 1:
        raise InfeasibleJobError(
            f"{name}: trains a configuration on one GPU, but its memory takes {profile.min_gpus} (min_gpus); policies with"
            " larger gangs are, among others, sha-fixed, asha-elastic with gpus_per_trial, and seer"
        )
    return build(job, profile, price_book, rng)
