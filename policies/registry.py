"""Policy names -> factories: the one place that knows all policies."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from policies.fixed_cluster import asha_fixed, asha_fixed_naive, sha_fixed, sha_fixed_naive
from policies.naive_elastic import sha_elastic
from policies.rubberband import rubberband
from policies.seer import seer
from sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sim.model.protocols import Policy, PolicyFactory


@dataclass(frozen=True)
class Entry:
    """A policy of the registry.

    Attributes:
        build: (job, profile, price_book, rng, **parameters) -> Policy.
        summary: one line for listings.
    """

    build: Callable[..., Policy]  # the keyword parameters differ by policy and are checked by `factory`
    summary: str

    @property
    def parameters(self) -> dict[str, object]:
        """Its parameters, with their defaults."""
        signature = inspect.signature(self.build)
        return {p.name: p.default for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}


POLICIES: Mapping[str, Entry] = {
    "seer": Entry(seer, "SEER: largest elastic search within T and B, planned and re-planned at each rung"),
    "rubberband": Entry(rubberband, "RubberBand: cheapest elastic plan by T, for the largest SHA that fits B"),
    "sha-fixed": Entry(sha_fixed, "successive halving on the best fixed cluster"),
    "sha-fixed-naive": Entry(sha_fixed_naive, "successive halving on floor(B / cT) machines held for all of T"),
    "asha-fixed": Entry(asha_fixed, "ASHA on the best fixed cluster"),
    "asha-fixed-naive": Entry(asha_fixed_naive, "ASHA on floor(B / cT) machines held for all of T"),
    "sha-elastic": Entry(sha_elastic, "successive halving, elastic, a constant number of GPUs per trial"),
}


def entry_named(name: str) -> Entry:
    """The policy of this name.

    Raises:
        InputError: there is none; names the nearest and all known.
    """
    if name in POLICIES:
        return POLICIES[name]
    near = difflib.get_close_matches(name, POLICIES, n=1)
    known = f"did you mean {near[0]!r}? Known" if near else "known"
    raise InputError(f"there is no policy {name!r}; {known}: {', '.join(POLICIES)}")


def factory(name: str, parameters: Mapping[str, Any] | None = None) -> PolicyFactory:
    """A factory with the parameters bound.

    Raises:
        InputError: the policy or a parameter is unknown.
    """
    entry = entry_named(name)
    known = entry.parameters
    for parameter in parameters or {}:
        if parameter not in known:
            near = difflib.get_close_matches(parameter, known, n=1)
            hint = f"did you mean {near[0]!r}? Its" if near else "its"
            allowed = ", ".join(known) or "none"
            raise InputError(f"policy {name} has no parameter {parameter!r}; {hint} parameters: {allowed}")
    return partial(entry.build, **(parameters or {}))
