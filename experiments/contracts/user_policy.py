"""A policy of the user's own, found by name and put through the contract suite. Imports the suite and the standard library."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from elastune.experiments.contracts.policies import check_policy, raised_at
from elastune.sim.model.errors import InputError, TuningError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from elastune.experiments.contracts.policies import Finding
    from elastune.sim.model.protocols import Policy, PolicyFactory

EXPECTED = "it must be a class or function of (job, profile, price_book, rng) with keyword parameters beyond that"


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
        target: `module:Name` (modules of the current folder included), `file.py:Name`, or a name of the registry.
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
    parameters = dict(parameters or {})
    if ":" not in target:
        from elastune.policies.registry import entry_named, factory

        if entry_named(target).needs_real_workers:
            raise InputError(f"policy {target} needs real workers, and the worlds of this check are simulated")
        return factory(target, parameters)
    build = _object_of(target)
    try:
        inspect.signature(build).bind(None, None, None, None, **parameters)
    except TypeError as error:
        raise InputError(f"policy {target} cannot be built: {error}; {EXPECTED}") from error

    def built(*given: object) -> Policy:
        try:
            policy = build(*given, **parameters)
        except TuningError:
            raise
        except Exception as error:
            raise InputError(
                f"policy {target} cannot be built: {type(error).__name__}: {error}{raised_at(error)}"
            ) from error
        if not callable(getattr(policy, "on_event", None)):
            raise InputError(f"policy {target}: a {type(policy).__name__} has no on_event(event, view)")
        return cast("Policy", policy)

    return built


def _object_of(target: str) -> Callable[..., object]:
    where, _, name = target.rpartition(":")
    module = _module_of_file(Path(where)) if where.endswith(".py") else _module_named(where)
    found = getattr(module, name, None)
    if found is None:
        public = ", ".join(known for known in vars(module) if not known.startswith("_"))
        raise InputError(f"policy {target}: {where} has no {name!r}; it has {public or 'nothing public'}")
    if not callable(found):
        raise InputError(f"policy {target}: {name} is a {type(found).__name__}; {EXPECTED}")
    return cast("Callable[..., object]", found)


def _module_of_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise InputError(f"there is no file {file}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look their module up by name.
    sys.modules[spec.name] = module
    _imported(str(file), lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]  # seen above
    return module


def _module_named(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if not name:
        raise InputError("a policy is named module:Class or file.py:Class")
    return cast("ModuleType", _imported(name, lambda: importlib.import_module(name)))


def _imported(name: str, load: Callable[[], object]) -> object:
    try:
        return load()
    except (Exception, SystemExit) as error:  # whatever code of the user's own does
        where = "" if isinstance(error, ModuleNotFoundError) and error.name == name else raised_at(error)
        raise InputError(f"{name} cannot be imported: {type(error).__name__}: {error}{where}") from error
