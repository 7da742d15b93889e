"""How much faster a gang of GPUs trains one trial: the protocol, and the scalings that do not depend on nodes.

Imports only the standard library and sim.model.errors. Scalings that depend on nodes are in `sim.model.node_scaling`.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from elastune.sim.model.errors import InputError

ScalingKind: TypeAlias = Literal["weak", "strong", "unstated"]
"""strong: the batch of the whole gang is fixed, so the gang trains as one GPU does. weak: the batch of each GPU is fixed, so
the gang's batch grows with the gang; curves recorded with one batch are then assumed to hold for the larger one."""


@runtime_checkable
class Scaling(Protocol):
    """Speed-up of one trial by its gang of GPUs (lambda in the papers)."""

    @property
    def max_gpus(self) -> int:
        """The largest gang it is known for."""

    def speedup(self, gpus: int, nodes: int = 1) -> float:
        """Speed-up over one GPU; `speedup(1)` is 1.

        Raises:
            InputError: `gpus` is not between 1 and `max_gpus`.
        """


def check_gang(scaling: object, gpus: int, max_gpus: int) -> None:
    """Raise an InputError for a gang outside the range of a scaling."""
    if not 1 <= gpus <= max_gpus:
        raise InputError(
            f"{type(scaling).__name__}: speed-up of {gpus} GPUs asked for; it is known for 1 to {max_gpus}"
        )


@dataclass(frozen=True)
class TableScaling:
    """Measured speed-ups, linear in between; no gang is larger than the last point.

    Attributes:
        points: speed-up over one GPU by number of GPUs; 1: 1.0 is required.
        kind: how the batch was held when it was measured.
    """

    points: Mapping[int, float]
    kind: ScalingKind = "unstated"
    _gpus: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _by_gpus: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        gpus = sorted(self.points)
        if not gpus or gpus[0] != 1 or not math.isclose(self.points[1], 1.0, rel_tol=1e-6):
            raise InputError(f"scaling {dict(self.points)}: a table of speed-ups starts with 1 GPU at 1.0")
        for count in gpus:
            if not (math.isfinite(self.points[count]) and self.points[count] > 0):
                raise InputError(f"scaling: the speed-up of {count} GPUs is {self.points[count]}, but must be positive")
        object.__setattr__(self, "_gpus", tuple(gpus))
        object.__setattr__(self, "_by_gpus", tuple(self._interpolate(count) for count in range(1, gpus[-1] + 1)))

    def _interpolate(self, gpus: int) -> float:
        at = bisect.bisect_left(self._gpus, gpus)
        right = self._gpus[at]
        if right == gpus:
            return float(self.points[right])
        left = self._gpus[at - 1]
        share = (gpus - left) / (right - left)
        return float(self.points[left] + share * (self.points[right] - self.points[left]))

    @property
    def max_gpus(self) -> int:
        """The largest gang the table covers."""
        return self._gpus[-1]

    def speedup(self, gpus: int, nodes: int = 1) -> float:  # noqa: ARG002  a table by GPUs alone says nothing of nodes
        """Speed-up over one GPU; see `Scaling`."""
        if not 1 <= gpus <= len(self._by_gpus):
            check_gang(self, gpus, len(self._by_gpus))
        return self._by_gpus[gpus - 1]


@dataclass(frozen=True)
class LinearScaling:
    """Twice the GPUs, half the time."""

    max_gpus: int = 64

    def speedup(self, gpus: int, nodes: int = 1) -> float:  # noqa: ARG002  linear on any number of nodes
        """Speed-up over one GPU; see `Scaling`."""
        check_gang(self, gpus, self.max_gpus)
        return float(gpus)


@dataclass(frozen=True)
class AmdahlScaling:
    """Amdahl's law: `serial` of the work is not divided."""

    serial: float
    max_gpus: int = 64
    kind: ScalingKind = "unstated"

    def __post_init__(self) -> None:
        if not 0 <= self.serial <= 1:
            raise InputError(f"scaling: the serial share is {self.serial}, but must be between 0 and 1")

    def speedup(self, gpus: int, nodes: int = 1) -> float:  # noqa: ARG002  the law knows no nodes
        """Speed-up over one GPU; see `Scaling`."""
        check_gang(self, gpus, self.max_gpus)
        return 1.0 / (self.serial + (1.0 - self.serial) / gpus)


@dataclass(frozen=True)
class PowerScaling:
    """Speed-up gpus ** exponent."""

    exponent: float
    max_gpus: int = 64
    kind: ScalingKind = "unstated"

    def __post_init__(self) -> None:
        if not 0 <= self.exponent <= 1:
            raise InputError(f"scaling: the exponent is {self.exponent}, but must be between 0 and 1")

    def speedup(self, gpus: int, nodes: int = 1) -> float:  # noqa: ARG002  the law knows no nodes
        """Speed-up over one GPU; see `Scaling`."""
        check_gang(self, gpus, self.max_gpus)
        return float(gpus**self.exponent)


_PHRASES: Mapping[ScalingKind, str] = {
    "weak": "weak scaling, the batch grows with the gang",
    "strong": "strong scaling, the gang's batch is fixed",
    "unstated": "weak or strong is not stated",
}


def kind_phrase(scaling: Scaling) -> str:
    """How the batch was held, in words; none for linear scaling, which is the same either way."""
    if isinstance(scaling, LinearScaling):
        return ""
    return _PHRASES[getattr(scaling, "kind", "unstated")]
