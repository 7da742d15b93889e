"""Numbers that are given as options, read as in tables and specs. Imports typer and sim.model.numbers."""

from __future__ import annotations

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

    def read(given: Any) -> int:  # noqa: ANN401  typer also hands in the default
        number = given if isinstance(given, int) else _read(given, whole_number_of)
        if not least <= number <= most:
            raise typer.BadParameter(f"{given} must be from {least} up to {most:,}")
        return int(number)

    return typer.Option(*names, parser=read, **others)


def number_option(*names: str, **others: Any) -> Any:  # noqa: ANN401  as typer's own
    """An option that takes a finite number."""

    def read(given: Any) -> float:  # noqa: ANN401  typer also hands in the default
        return float(given if isinstance(given, int | float) else _read(given, number_of))

    return typer.Option(*names, parser=read, **others)


def seconds_option(*names: str, **others: Any) -> Any:  # noqa: ANN401  as typer's own
    """An option that takes seconds, or a number with its unit such as `2min`."""

    def read(given: Any) -> float:  # noqa: ANN401  typer also hands in the default
        return float(given if isinstance(given, int | float) else _read(given, seconds_of))

    return typer.Option(*names, parser=read, **others)


def _read(given: str, reader: Any) -> Any:  # noqa: ANN401  one of the two readers above, and its number
    try:
        return reader(given)
    except ValueError as error:
        raise typer.BadParameter(f"{given} {error}") from error
