"""Numbers that are given as options, read as in tables and specs. Imports typer and sim.model.numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from elastune.sim.model.numbers import number_of, seconds_of, whole_number_of


def count_option(*names: str, least: int = 1, most: int = 1_000_000, **others: Any) -> Any:  # noqa: ANN401  as typer's own
    """An option that takes a whole number.

    Args:
        names: of the option; none for that of the parameter.
        least: the smallest one allowed.
        most: the largest one allowed.
        others: as `typer.Option` takes them.
    """

    def whole_number_within(given: str) -> int:
        number = whole_number_of(given)
        if not least <= number <= most:
            raise ValueError(f"must be from {least} up to {most:,}")
        return number

    return _option(whole_number_within, int, names, others)


def number_option(*names: str, **others: Any) -> Any:  # noqa: ANN401  as typer's own
    """An option that takes a finite number."""
    return _option(number_of, float, names, others)


def seconds_option(*names: str, **others: Any) -> Any:  # noqa: ANN401  as typer's own
    """An option that takes seconds, or a number with its unit such as `2min`."""
    return _option(seconds_of, float, names, others)


def _option(reader: Callable[[str], float], kind: type[float], names: tuple[str, ...], others: dict[str, Any]) -> Any:  # noqa: ANN401  as typer's own
    def read(given: Any) -> float:  # noqa: ANN401  typer also hands in the default
        try:
            return kind(given if isinstance(given, int | float) else reader(given))
        except ValueError as error:
            raise typer.BadParameter(f"{given} {error}") from error

    return typer.Option(*names, parser=read, **others)
