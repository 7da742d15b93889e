"""Decide the claims by the bounds in their entries. Nothing here is judged by hand.

Imports the evidence, and the rows of runs and plans; pandas inside. A contrast holds where its gain lies on the right side of
its bound and no cell on the wrong one, and partly where only cells do, or some cell lies on the wrong one. Else it does not
hold where the whole lies on the wrong side, and is not shown where its interval lies on both. Without a pair nothing is
decided. A claim holds where all its contrasts do, and partly where some do, if only partly; else it does not hold where one
does not.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from elastune.experiments.claims.evidence import CellGain, Evidence, MeanGain, Side, evidence_of
from elastune.experiments.claims.rows import BUDGET_MULTIPLE, DEADLINE_MULTIPLE, rows_of
from elastune.experiments.claims.sweeps import BUDGET, DEADLINE
from elastune.experiments.results_version import RESULTS_VERSION
from elastune.experiments.sweeps.summary import KEPT_APART, varying, with_origins

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from elastune.experiments.claims.drawing import Drawing
    from elastune.experiments.claims.entries import Claim, Contrast, Endpoint

Word: TypeAlias = Literal["holds", "partly", "does not hold", "not shown", "not testable here", "smoke"]
_MULTIPLES = {DEADLINE: DEADLINE_MULTIPLE, BUDGET: BUDGET_MULTIPLE}
_SCALING = KEPT_APART[0]
_SHORT = {DEADLINE_MULTIPLE: "T", BUDGET_MULTIPLE: "B", "workload": "workload"}


def verdicts(drawing: Drawing, size: str) -> list[dict[str, Any]]:
    """One record per requested claim, as `elastune claims --json` prints it.

    Args:
        drawing: of which everything was run.
        size: in words: `full`, `smoke`, or how many seeds of each experiment were run at most.

    Returns:
        id, claim, source, flag, expected, measured (of the first contrast) with its interval, verdict, where, conditions, size,
        results_version, figures, and `tests`, one per policy and baseline; `beside` has those that decide nothing.
    """
    return [record_of(drawing, claim, size) for claim in drawing.tables]


def record_of(drawing: Drawing, claim: Claim, size: str) -> dict[str, Any]:
    """One record of `verdicts`."""
    found = list(_evidence(drawing, claim, claim.endpoint.contrasts))
    tests = [_test(one) | {"scaling": scaling} for scaling, one in found]
    beside = [_test(one) | {"scaling": scaling} for scaling, one in _evidence(drawing, claim, _beside(claim.endpoint))]
    missing = [f"{part.experiment}, {part.workload}: left out, {part.reason}" for part in _left_out(drawing, claim)]
    measured = [told for one in drawing.measured if one.claim.id == claim.id for told in one.conditions()]
    verdict, where = _verdict(claim, tests, is_smoke=drawing.size == "smoke")
    first = found[0][1].pooled if found else None
    return {
        "id": claim.id,
        "claim": claim.claim,
        "source": claim.source,
        "flag": claim.flag,
        "expected": claim.expected,
        "measured": None if first is None else _plain(first.value),
        "interval": None if first is None else [_plain(first.low), _plain(first.high)],
        "verdict": verdict,
        "where": where,
        "conditions": [*claim.conditions, *measured, *missing],
        "size": size if found else None,
        "results_version": RESULTS_VERSION,
        "figures": list(claim.figures),
        "tests": tests,
        "beside": beside,
    }


def _left_out(drawing: Drawing, claim: Claim) -> list[Any]:
    return [part for part in drawing.left_out if part.claim == claim.id]


def _beside(endpoint: Endpoint) -> list[Contrast]:
    """The contrasts that the endpoint's measure decides, by each of those that are told beside it."""
    own = [contrast for contrast in endpoint.contrasts if contrast.measure is None]
    return [contrast.model_copy(update={"measure": measure}) for measure in endpoint.beside for contrast in own]


def _evidence(drawing: Drawing, claim: Claim, contrasts: Sequence[Contrast]) -> Iterator[tuple[str, Evidence]]:
    """The source of the speed-ups, and the evidence; workloads with their own and with borrowed ones are never pooled."""
    for contrast in contrasts:
        if contrast.decides:
            rows, cells = _rows(drawing, claim, contrast)
            for scaling, part in rows.groupby(_SCALING) if len(rows) else ():
                for one in evidence_of(claim.endpoint, contrast, part, cells):
                    yield str(scaling), one


def _rows(drawing: Drawing, claim: Claim, contrast: Contrast) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a contrast's experiment, and the columns that tell its cells apart."""
    mine = (claim.id, contrast.experiment)
    for plans in drawing.plans:
        if (plans.claim.id, plans.experiment) == mine:
            rows, cells = plans.as_runs()
            return rows.assign(**{_SCALING: "borrowed"}), cells
    for table in drawing.measured:
        if (table.claim.id, table.experiment) == mine:
            return table.evidence_rows(contrast).assign(**{_SCALING: "-"}), list(table.cells)
    rows = rows_of([sweep for sweep in drawing.sweeps if (sweep.claim.id, sweep.experiment) == mine], contrast.where)
    return (with_origins(rows), _cell_columns(rows)) if len(rows) else (rows, [])


def _cell_columns(rows: pd.DataFrame) -> list[str]:
    """Workload, T and B as multiples, and what else varies within a workload."""
    within = {name for _, part in rows.groupby("workload") for name in varying(part)}
    names = [_MULTIPLES.get(name, name) for name in sorted(within) if name != "policy"]
    return [*(["workload"] if len(rows["workload"].unique()) > 1 else []), *names]


def _test(one: Evidence) -> dict[str, Any]:
    """One policy against one baseline, as `elastune claims --json` prints it."""
    right, wrong = one.cells_on("right"), one.cells_on("wrong")
    word = word_of(one.side, one.pooled.pairs, cells=len(one.cells), right=len(right), wrong=len(wrong))
    return {
        "policy": one.policy,
        "against": one.against,
        "measure": one.measure,
        "kind": one.kind,
        "experiment": one.contrast.experiment,
        "along": one.contrast.along,
        "gain": one.name,
        "needed": str(one.bound),
        **_numbers(one.pooled),
        "one_sided": one.one_sided,
        "unfinished": one.unfinished,
        "cells": len(one.cells),
        "cells_right": len(right),
        "cells_wrong": len(wrong),
        "where": _where(one.cells, right) if word != "holds" else "",
        "where_not": _where(one.cells, wrong),
        "verdict": word,
    }


def word_of(side: Side, pairs: int, *, cells: int, right: int, wrong: int) -> Word:
    """The word for one test: by the side of all its pairs, and by how many of its cells lie on which side."""
    if not pairs:
        return "not testable here"
    if side == "right":
        return "partly" if wrong else "holds"
    if right and cells > 1:
        return "partly"
    return "does not hold" if side == "wrong" else "not shown"


def _numbers(found: MeanGain) -> dict[str, Any]:
    numbers = {name: _plain(getattr(found, name)) for name in ("value", "low", "high", "p_holm")}
    return numbers | {name: getattr(found, name) for name in ("pairs", "families", "bundles", "seeds")}


def _plain(value: float) -> float | None:
    """Four significant digits, which is all that a table shows, without the dust of sums; None for no number."""
    return None if math.isnan(value) else float(f"{round(value, 12):.4g}")


def _where(cells: Sequence[CellGain], chosen: Sequence[CellGain]) -> str:
    """How many cells, and of each setting the values in which most of its cells are among them."""
    if not chosen:
        return ""
    if len(chosen) == len(cells):
        return f"in all {len(cells)} cells"
    told = []
    for name in cells[0].settings:
        of, among = (Counter(_value(cell.settings[name]) for cell in part) for part in (cells, chosen))
        values = [value for value in of if 2 * among[value] > of[value]]
        if values and len(values) < len(of):
            told.append(f"{_SHORT.get(name, name.rpartition('.')[2])} {', '.join(values)}")
    most = f", most of {'; '.join(told)}" if told else ""
    return f"in {len(chosen)} of {len(cells)} cells{most}"


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _verdict(claim: Claim, tests: Sequence[Mapping[str, Any]], *, is_smoke: bool) -> tuple[Word, str]:
    """The word for the claim, and where it holds and where not."""
    if not tests:
        reason = "nothing is trained" if claim.trainings else "its data does not ship, and none was named"
        return "not testable here", reason
    if is_smoke:
        return "smoke", "the smoke size shows that everything works, and decides nothing"
    return word_of_all([test["verdict"] for test in tests]), "; ".join(_where_told(tests))


def word_of_all(words: Sequence[Word]) -> Word:
    """The word for a claim with these words for its tests."""
    if len(set(words)) == 1:
        return words[0]
    if {"holds", "partly"} & set(words):
        return "partly"
    return "does not hold" if "does not hold" in words else "not shown"


def _where_told(tests: Sequence[Mapping[str, Any]]) -> list[str]:
    """What came out of each test; policies whose own measures came out the same are told together."""
    policies: dict[tuple[str, str], list[str]] = {}
    for test in tests:
        own = f" of {test['policy']}" if test["against"] is None else ""
        gain = test["gain"].replace(own, " of {}", 1) if own else test["gain"]
        policies.setdefault((f"{test['experiment']}, {gain}", _outcome(test)), []).append(test["policy"])
    return [f"{gain.replace('{}', ', '.join(alike))}: {outcome}" for (gain, outcome), alike in policies.items()]


def _outcome(test: Mapping[str, Any]) -> str:
    if test["verdict"] == "holds":
        return "holds"
    parts = [test["verdict"]] if test["verdict"] != "partly" else []
    parts += [f"holds {test['where']}"] if test["where"] else []
    parts += [f"the opposite {test['where_not']}"] if test["where_not"] else []
    return ", ".join(parts)
