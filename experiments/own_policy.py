"""Policies by name, those of the user's own included. Imports experiments.own_code and the registry."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, cast

from elastune.experiments.own_code import OwnCode, find, installed, raised_at
from elastune.policies.registry import RegisteredPolicy, all_entries
from elastune.sim.model.errors import InputError, TuningError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from elastune.sim.model.protocols import Policy

ENTRY_POINTS = "elastune.policies"
"""The group in which an installed package registers its policies."""
EXPECTED = "it must be a class or function of (job, profile, price_book, rng) with keyword parameters beyond that"
NEEDED = inspect.Parameter.empty
"""The default of a parameter that has none."""
_GIVEN = 4


def policy_names() -> list[str]:
    """Of the registry, and of installed packages."""
    return [*all_entries(), *installed_policies()]


def installed_policies() -> dict[str, str]:
    """`module:Class` of the policies that installed packages register, by name; ours keep their names."""
    return {name: place for name, place in installed(ENTRY_POINTS).items() if name not in all_entries()}


def policy_named(name: str) -> tuple[RegisteredPolicy, OwnCode | None]:
    """A policy, and its code where it is the user's own, which this runs.

    Args:
        name: of the registry; else of an entry point, `module:Class` or `file.py:Class`.

    Raises:
        InputError: there is none, or its code cannot be imported or is no policy.
    """
    if name in all_entries():
        return all_entries()[name], None
    code = find(name, group=ENTRY_POINTS)
    if code is None:
        raise unknown("policy", name, policy_names(), "or name your own as module:Class or file.py:Class")
    return own_entry(code), code


def unloaded(name: str) -> RegisteredPolicy:
    """What is known of a policy whose code is not to be run: enough to read what it did."""
    return RegisteredPolicy(cast("Callable[..., Policy]", functools.partial(_refuse, name)), "")


def _refuse(name: str, *_: object, **__: object) -> Policy:
    raise InputError(f"policy {name} is code that came with a record; it is run only where you name it yourself")


@functools.cache
def own_entry(code: OwnCode) -> RegisteredPolicy:
    """The entry of a policy of the user's own, whose code this runs.

    Raises:
        InputError: its code cannot be imported or is no policy.
    """
    build = code.load()
    if not callable(build):
        raise InputError(f"policy {code.name}: {code.place.rpartition(':')[2]} is a {type(build).__name__}; {EXPECTED}")
    told = inspect.getdoc(build) or ""
    return RegisteredPolicy(_Build(code, build), told.partition("\n")[0] or "a policy of your own")


class _Build:
    """Builds a policy of the user's own; to the registry it looks like one of ours, whose parameters have keywords only."""

    def __init__(self, code: OwnCode, build: Callable[..., object]) -> None:
        self.code, self.build = code, build
        try:
            signature = inspect.signature(build)
            signature.bind_partial(*[None] * _GIVEN)
        except (TypeError, ValueError) as error:
            raise InputError(f"policy {code.name} cannot be built: {error}; {EXPECTED}") from error
        given, by_keyword = list(signature.parameters.values()), inspect.Parameter.KEYWORD_ONLY
        first = sum(parameter.kind is not by_keyword for parameter in given[:_GIVEN])
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, by_keyword)
        own = [parameter.replace(kind=by_keyword) for parameter in given[first:] if parameter.kind in kinds]
        self.__signature__ = inspect.Signature(own)
        self.__annotations__ = {p.name: bool if isinstance(p.default, bool) else object for p in own}
        self.__globals__: dict[str, object] = {}
        written = map(inspect.getdoc, (build, getattr(build, "__init__", None)))
        self.__doc__ = "\n\n".join(text for text in written if text)

    def __call__(self, *given: object, **parameters: object) -> Policy:
        name = self.code.name
        try:
            policy = self.build(*given, **parameters)
        except TuningError:
            raise
        except Exception as error:
            raise InputError(
                f"policy {name} cannot be built: {type(error).__name__}: {error}{raised_at(error)}"
            ) from error
        if not callable(getattr(policy, "on_event", None)):
            raise InputError(f"policy {name}: a {type(policy).__name__} has no on_event(event, view)")
        return cast("Policy", policy)
