"""Policies by name, those of the user's own included. Imports experiments.own_code and the registry."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, cast, get_args

import msgspec
import numpy as np

from elastune.experiments.known_policies import ENTRY_POINTS, policy_names
from elastune.experiments.own_code import OwnCode, called, find, raised_at
from elastune.policies.registry import RegisteredPolicy, all_entries
from elastune.sim.model.actions import Action, BaseAction
from elastune.sim.model.errors import InputError, InvalidActionError, TuningError, unknown
from elastune.sim.model.protocols import PlannedWork, Policy, RunView, TellsWork

if TYPE_CHECKING:
    from elastune.sim.model.events import Event

EXPECTED = "it must be a class or function of (job, profile, price_book, rng) with keyword parameters beyond that"
NEEDED = inspect.Parameter.empty
"""The default of a parameter that has none."""
_GIVEN = 4
_ACTIONS = tuple(action.__name__ for action in get_args(Action))


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
        raise unknown(
            "policy",
            name,
            policy_names(),
            "or name your own as module:Class or file.py:Class",
            listed_by="elastune policies list",
        )
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
            policy = called(lambda: self.build(*given, **parameters))
        except TuningError:
            raise
        except Exception as error:
            raise InputError(
                f"policy {name} cannot be built: {type(error).__name__}: {error}{raised_at(error)}"
            ) from error
        if not callable(getattr(policy, "on_event", None)):
            raise InputError(f"policy {name}: a {type(policy).__name__} has no on_event(event, view)")
        asked = _WithWork if isinstance(policy, TellsWork) else _Asked
        return asked(self.code.short, cast("Policy", policy))


class _Asked:
    """A policy of the user's own, whose answers are what they are said to be: a list of actions with values of their types.

    Numpy scalars become the plain values that they stand for.
    """

    def __init__(self, name: str, policy: Policy) -> None:
        self._name, self._policy = name, policy

    def on_event(self, event: Event, view: RunView) -> Sequence[Action]:
        """What the policy answers.

        Raises:
            InvalidActionError: that is no list of actions, or a value in one has the wrong type.
        """
        answer = called(lambda: self._policy.on_event(event, view))
        if isinstance(answer, str | bytes | BaseAction) or not isinstance(answer, Iterable):
            raise self._invalid(answer, event, "on_event must give a list of actions")
        return [self._checked(action, event) for action in called(lambda: list(answer))]

    def _checked(self, action: Action, event: Event) -> Action:
        if not isinstance(action, BaseAction):
            raise self._invalid(action, event, f"that is no action; there are {', '.join(_ACTIONS)}")
        try:
            return msgspec.convert(msgspec.to_builtins(action, enc_hook=_plain), type(action))
        except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
            raise self._invalid(action, event, str(error)) from error

    def _invalid(self, what: object, event: Event, problem: str) -> InvalidActionError:
        return InvalidActionError(self._name, what, event.at_s, problem)


class _WithWork(_Asked):
    """The same of a policy that says what it has set out to do."""

    @property
    def work(self) -> PlannedWork:
        """As of the last event."""
        return cast("TellsWork", self._policy).work


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}, but must be a number or a text")
