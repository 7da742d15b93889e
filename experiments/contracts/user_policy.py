"""A policy, found by name and put through the contract suite. Imports the suite and experiments.own_policy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from elastune.experiments.contracts.policies import Finding, check_policy
from elastune.experiments.own_policy import policy_named
from elastune.policies.registry import factory
from elastune.sim.model.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elastune.sim.model.protocols import PolicyFactory


@dataclass(frozen=True)
class Report:
    """What the contract suite found.

    Attributes:
        target: what was checked.
        findings: one per promise and world, one per world that is infeasible.
    """

    target: str
    findings: Sequence[Finding]

    @property
    def broken(self) -> list[Finding]:
        """The promises that broke, and where."""
        return [finding for finding in self.findings if finding.status == "broken"]

    @property
    def infeasible(self) -> list[str]:
        """Worlds whose job the policy said it cannot do, where it may say so."""
        return [finding.world for finding in self.findings if finding.status == "infeasible"]

    @property
    def worlds(self) -> int:
        """How many worlds it was played in."""
        return len({finding.world for finding in self.findings})

    def to_json(self) -> dict[str, object]:
        """What `elastune check-policy --json` prints."""
        return {
            "policy": self.target,
            "worlds": self.worlds,
            "kept": sum(finding.status == "kept" for finding in self.findings),
            "broken": [{"promise": f.promise, "world": f.world, "problem": f.problem} for f in self.broken],
            "infeasible": self.infeasible,
        }


def check_target(target: str, parameters: Mapping[str, Any] | None = None) -> Report:
    """Put a policy through the contract suite; broken promises are reported, not raised.

    Args:
        target: `module:Name` (modules of the current folder included), `file.py:Name`, or the name of a policy.
        parameters: keyword parameters of the policy.

    Raises:
        InputError: there is no such policy, or it cannot be built.
    """
    return Report(target, check_policy(target.rpartition(":")[2], policy_factory(target, parameters)))


def policy_factory(target: str, parameters: Mapping[str, Any] | None = None) -> PolicyFactory:
    """The factory that a target names, its parameters bound; see `check_target`.

    Raises:
        InputError: there is no such policy, or it cannot be built.
    """
    entry, code = policy_named(target)
    if entry.needs_real_workers:
        raise InputError(f"policy {target} needs real workers, and the worlds of this check are simulated")
    if code is None:
        return factory(target, parameters)
    for parameter in parameters or {}:
        if parameter not in entry.parameters:
            raise unknown(f"{code.short} parameter", parameter, entry.parameters)
    return partial(entry.build, **(parameters or {}))
