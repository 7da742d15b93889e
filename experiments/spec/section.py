"""What all sections of a spec share: unknown keys are errors, and numbers have ranges. Imports pydantic, sim.model and traces.

A key is a field whose annotation holds its type, its `Range` and, as text, what it means:

    trials: Annotated[Count | None, Range(1, 1_000_000), "configurations that may be tried"] = None

`experiments.spec.page` writes the tables of docs/spec.md from these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from elastune.sim.model.numbers import number_of, seconds_of, whole_number_of
from elastune.sim.model.prices import MOST_GPUS_PER_INSTANCE
from elastune.traces.scaling.tables import MOST_GPUS

RECORDED, RECORDED_TRAINABLE = "recorded", "recorded trainable"
"""In the context of a validation: True for the spec of a record, such as a journal, which must not make any code run; or the
code of its policy or its training that the user named."""


def _number_form(value: object) -> object:
    """Numbers that are written as text are read as everywhere; true is none."""
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004  pydantic reports ValueErrors with their place
    return number_of(value) if isinstance(value, str) else value


def _count_form(value: object) -> object:
    """The same for whole numbers."""
    return whole_number_of(value) if isinstance(value, str) else _number_form(value)


def seconds_form(value: object) -> object:
    """The same for durations, which may have a unit."""
    return seconds_of(value) if isinstance(value, str) else _number_form(value)


Number = Annotated[float, BeforeValidator(_number_form)]
Seconds = Annotated[float, BeforeValidator(seconds_form)]
"""A number, or a text such as `2h`: of every key that ends in `_s`, and of seconds in pairs."""
Count = Annotated[int, BeforeValidator(_count_form)]


@dataclass(frozen=True)
class NeededUnless:
    """A key that may be left out only where another one is given.

    Attributes:
        other: the name of the other key, in the same section.
    """

    other: str

    def __str__(self) -> str:
        return f"*needed* unless `{self.other}` is given"


@dataclass(frozen=True)
class Range:
    """The numbers that a key may hold; what else it may hold, such as None or a word, is left alone.

    Attributes:
        least: the smallest.
        most: the largest.
        is_open: whether `least` itself is excluded.
    """

    least: float
    most: float
    is_open: bool = False

    def __str__(self) -> str:
        return f"{'above' if self.is_open else 'from'} {_plain(self.least)} up to {_plain(self.most)}"

    def __contains__(self, number: float) -> bool:
        return self.least < number <= self.most if self.is_open else self.least <= number <= self.most

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.checked, handler(source))

    def checked(self, value: object) -> object:
        """The value itself.

        Raises:
            ValueError: it is a number out of range.
        """
        if isinstance(value, int | float) and value not in self:
            kind = "a whole number" if isinstance(value, int) else "a number"
            raise ValueError(f"must be {kind} {self}")
        return value


def _plain(number: float) -> str:
    """In digits, as `1,000,000`, or as `1e9`."""
    return f"{number:,}" if isinstance(number, int) else f"{number:g}".replace("e+0", "e").replace("e-0", "e-")


ANY_SHARE = Range(0, 1)
SECONDS = Range(0, 1e9)
SOME_SECONDS = Range(0, 1e9, is_open=True)
RATE = Range(0, 360)
"""Per hour: at most once in ten seconds."""
SPREAD = Range(0, 100)
"""A coefficient of variation, or a slowdown less 1."""
USD = Range(0, 1e9)
ITERATIONS = Range(1, 1_000_000)
SEED = Range(0, 2**63 - 1)
MACHINES = Range(1, 10_000)
"""The largest quota that SEER still plans within seconds."""
GPUS = Range(1, MOST_GPUS_PER_INSTANCE)
"""Of one machine."""
GANG = Range(1, MOST_GPUS)
"""GPUs that train one trial."""


class Section(BaseModel):
    """A part of a spec: unknown keys are errors, and nothing changes once it is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
