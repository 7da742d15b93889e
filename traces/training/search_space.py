"""A small search space: named hyperparameters and how each is drawn. Imports numpy and the pure core only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from elastune.sim.model.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from elastune.sim.model.protocols import Configuration, Value


def _number(value: Value) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{value!r} is not a number, so it cannot be scaled")
    return value


def _require_range(low: float, high: float, *, positive: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"a range from {low} to {high} is empty; low must be below high")
    if positive and low <= 0:
        raise InputError(f"a logarithmic range starts at {low}, but must start above 0")


@dataclass(frozen=True)
class Uniform:
    """A float, equally likely anywhere in [low, high)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _require_range(self.low, self.high, positive=False)

    def sample(self, rng: np.random.Generator) -> float:
        """One value."""
        return float(rng.uniform(self.low, self.high))

    def scaled(self, value: Value, factor: float) -> float:
        """The value times the factor, kept within the range; see `sim.model.protocols.Hyperparameter`."""
        return min(max(_number(value) * factor, self.low), self.high)


@dataclass(frozen=True)
class LogUniform:
    """A positive float whose logarithm is equally likely anywhere in [log low, log high)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _require_range(self.low, self.high, positive=True)

    def sample(self, rng: np.random.Generator) -> float:
        """One value."""
        return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))

    def scaled(self, value: Value, factor: float) -> float:
        """The value times the factor, kept within the range; see `sim.model.protocols.Hyperparameter`."""
        return min(max(_number(value) * factor, self.low), self.high)


@dataclass(frozen=True)
class Integer:
    """An integer from low to high, both included; with `log`, equally likely per octave."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _require_range(self.low, self.high, positive=self.log)

    def sample(self, rng: np.random.Generator) -> int:
        """One value."""
        if not self.log:
            return int(rng.integers(self.low, self.high, endpoint=True))
        return min(self.high, math.floor(math.exp(rng.uniform(math.log(self.low), math.log(self.high + 1)))))

    def scaled(self, value: Value, factor: float) -> int:
        """The value times the factor, but at least one more or less, kept within the range."""
        number = _number(value)
        moved = round(number * factor)
        if moved == number and factor != 1:
            moved += 1 if factor > 1 else -1
        return min(max(moved, self.low), self.high)


@dataclass(frozen=True)
class Categorical:
    """One of the choices, each equally likely."""

    choices: tuple[str | int | float, ...]

    def __post_init__(self) -> None:
        if len(set(self.choices)) != len(self.choices) or not self.choices:
            raise InputError(f"the choices {self.choices} must be distinct, and at least one")

    def sample(self, rng: np.random.Generator) -> str | int | float:
        """One value."""
        return self.choices[int(rng.integers(len(self.choices)))]

    def scaled(self, value: Value, factor: float) -> str | int | float:
        """The next larger or smaller choice, where all are numbers; names have no size and stay as they are."""
        known = next((choice for choice in self.choices if choice == value), None)
        if known is None:
            raise InputError(f"{value!r} is none of the choices {self.choices}")
        if factor == 1 or any(isinstance(choice, str) for choice in self.choices):
            return known
        ordered = sorted(self.choices, key=float)
        place = ordered.index(known) + (1 if factor > 1 else -1)
        return ordered[min(max(place, 0), len(ordered) - 1)]


Dimension: TypeAlias = Uniform | LogUniform | Integer | Categorical
"""How one hyperparameter is drawn."""


@dataclass(frozen=True)
class SearchSpace:
    """Hyperparameters by name, drawn independently and in this order."""

    dimensions: Mapping[str, Dimension]

    def sample(self, rng: np.random.Generator) -> dict[str, float | int | str]:
        """One configuration."""
        return {name: dimension.sample(rng) for name, dimension in self.dimensions.items()}

    def require(self, configuration: Configuration) -> None:
        """Check that a configuration names exactly the hyperparameters of this space; values may lie outside it.

        Raises:
            InputError: one is missing or unknown; the message names it, and the nearest known one.
        """
        for name in configuration:
            if name not in self.dimensions:
                raise unknown("hyperparameter", name, self.dimensions)
        missing = [name for name in self.dimensions if name not in configuration]
        if missing:
            raise InputError(f"the configuration lacks {', '.join(missing)}")
