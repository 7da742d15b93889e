"""What `elastune scaling` prints for people. Imports rich; numbers arrive computed."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from rich.table import Table

from elastune.experiments.cli.options import console
from elastune.experiments.plans.scaling_fits import as_text, coverage, gang_fits, mean_errors
from elastune.traces.scaling.fit import LEVEL
from elastune.traces.scaling.inline import inline_of
from elastune.traces.scaling.laws import FITTED_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elastune.experiments.plans.scaling_fits import GangFit, HeldOut
    from elastune.traces.scaling.fit import Estimate, ScalingFit

    Gang = tuple[int, int]

_NONE = "-"


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3g}"


def _error(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:+.0f} %"


def _with_interval(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return _number(found.value)
    high = "inf" if math.isinf(found.high) else _number(found.high)
    return f"{_number(found.value)} [{_number(found.low)}, {high}]"


def print_scalings(listed: Sequence[Mapping[str, Any]]) -> None:
    """One line per shipped table."""
    table = Table("scaling", "kind", "to GPUs", "by", "source")
    for one in listed:
        by = "GPUs and nodes" if one["knows_nodes"] else "GPUs, packed"
        table.add_row(one["name"], one["kind"], str(one["max_gpus"]), by, one["source"])
    console().print(table)


def print_measured(name: str, described: Mapping[str, Any]) -> None:
    """One line per gang."""
    by = "by GPUs and nodes" if described["knows_nodes"] else "by GPUs, packed"
    table = _table(f"{name}: {described['kind']} scaling, {by}", "GPUs", "nodes", "speed-up", "per GPU", "")
    for one in described["gangs"]:
        remark = "slower than fewer GPUs" if one["is_slower_than_fewer"] else ""
        nodes = str(one["nodes"]) if described["knows_nodes"] else _NONE
        table.add_row(str(one["gpus"]), nodes, _number(one["speedup"]), f"{100 * one['efficiency']:.0f} %", remark)
    console().print(table)


def print_fit(name: str, fit: ScalingFit, predicted: Sequence[Gang]) -> None:
    """The families, then every gang, then what should be known, then what a spec holds."""
    wide = console()
    level = f"{100 * LEVEL:.0f} %"
    title = f"{name}: {fit.table.kind} scaling, fitted on {', '.join(map(as_text, fit.fitted_on))} GPUs over 1"
    families = _table(title, "family", f"parameters, {level} intervals", "points over parameters", "left-out error")
    for family, one in fit.families.items():
        parameters = ", ".join(f"{key} {_with_interval(found)}" for key, found in one.parameters.items()) or _NONE
        error = _NONE if one.left_out_error is None else f"{100 * math.expm1(one.left_out_error):.1f} %"
        chosen = f"{family} *" if one is fit.chosen else family
        families.add_row(chosen, parameters, str(one.degrees_of_freedom), error)
    wide.print(families)
    others = [family for family in fit.families if family != fit.chosen.family]
    headings = ("measured", f"{fit.chosen.family} *", "error", *others)
    gangs = _table(f"Speed-ups; predictions with {level} intervals", "GPUs (x nodes)", *headings)
    for gang in gang_fits(fit, predicted):
        estimate = _number(gang.chosen.value) if gang.is_used else _with_interval(gang.chosen)
        values = [_number(gang.by_family[family]) for family in others]
        role = "" if gang.is_used else " predicted"
        gangs.add_row(f"{as_text(gang.gang)}{role}", _number(gang.measured), estimate, _error(gang.error), *values)
    wide.print(gangs)
    for note in fit.notes:
        wide.print(f"note: {note}", markup=False, highlight=False)
    wide.print(
        "note: intervals hold if the chosen family is right; the other columns show what another would say",
        markup=False,
        highlight=False,
    )
    wide.print(
        f"workload.scaling: {json.dumps(inline_of(fit.chosen.scaling))}", markup=False, highlight=False, soft_wrap=True
    )


def print_held_out(name: str, found: Sequence[HeldOut]) -> None:
    """One line per gang of each table, and the means."""
    wide = console()
    columns = list(found[0].group)
    families = [family for family in FITTED_FAMILIES if any(family in one.errors for one in found)]
    headings = (*columns[1:], "GPUs", "measured", "chosen", "predicted", "error", *families)
    table = _table(f"{name}: predicted less measured, relative", columns[0], *headings)
    for one in found:
        errors = [_error(one.errors.get(family)) for family in families]
        told = (as_text(one.one.gang), _number(one.one.measured), one.family, _interval_of(one.one))
        table.add_row(*one.group.values(), *told, _error(one.one.error), *errors)
    wide.print(table)
    means = ", ".join(f"{family} {100 * error:.0f} %" for family, error in mean_errors(found).items())
    covered, intervals = coverage(found)
    wide.print(f"mean absolute error over {len(found)} gangs: {means}", highlight=False)
    wide.print(f"{covered} of {intervals} intervals of {100 * LEVEL:.0f} % hold what was measured", highlight=False)


def _interval_of(one: GangFit) -> str:
    return _with_interval(one.chosen) + (" !" if one.is_covered is False else "")
