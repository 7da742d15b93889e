"""The row of a run. Its columns and types are fixed, so that rows of all sweeps fit into one table.

Imports the run spec and what a result is made of; pyarrow inside the functions that need it. A row holds nothing of the machine
and no wall-clock time: equal runs give equal rows.

Columns, in this order: what identifies the run, the keys of the spec (dotted), the fields of `run --json` (its tables as
`table.part`). A key that may hold more than one kind of value, such as `job.checkpoint_every`, is a text: strings as they are,
anything else as JSON. `policy` is the policy as the command line takes it; all its parameters, defaults included, are the JSON
of `policy.params`.
"""

from __future__ import annotations

import functools
import json
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from elastune.experiments.runs.ledger import PARTS as LEDGER_PARTS
from elastune.experiments.runs.placements import PARTS as PLACEMENT_PARTS
from elastune.experiments.spec.policy import PolicySpec
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.spec.section import Section
from elastune.experiments.spec.workload import BATCHES, CONFIGURATIONS
from elastune.experiments.spec.yaml_file import with_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from elastune.experiments.runs.result import RunResult
    from elastune.traces import Bundle

ROWS_FORMAT = "2"
"""Written into each file of rows."""
STATUSES = ("done", "infeasible", "failed")

_TEXT, _NUMBER, _COUNT, _TRUTH = "string", "double", "int64", "bool"
_KINDS: Mapping[object, str] = {str: _TEXT, float: _NUMBER, int: _COUNT, bool: _TRUTH}
_IDENTITY = {
    "key": _TEXT,
    "status": _TEXT,
    "error": _TEXT,
    "policy": _TEXT,
    "policy.name": _TEXT,
    "policy.params": _TEXT,
    "seed": _COUNT,
}
_RESULT = {
    "best_trial": _COUNT,
    "best_config": _TEXT,
    "best_iteration": _COUNT,
    **dict.fromkeys(("best_is_complete", "best_was_earlier", "best_stopped_short", "some_is_complete"), _TRUTH),
    **dict.fromkeys(("score", "test_score", "flops"), _NUMBER),
    "constraint_met": _TRUTH,
    **dict.fromkeys(("regret", "regret_sampling", "regret_selection", "regret_truncation"), _NUMBER),
    **dict.fromkeys(("cost_usd", "makespan_s"), _NUMBER),
    "completed": _TRUTH,
    "completed_at_s": _NUMBER,
    **dict.fromkeys(("deadline_met", "budget_met"), _TRUTH),
    "late_probability": _NUMBER,
    **dict.fromkeys(("trials_started", "iterations_trained"), _COUNT),
    "gpu_utilisation": _NUMBER,
    **dict.fromkeys((f"ledger_usd.{part}" for part in LEDGER_PARTS), _NUMBER),
    **dict.fromkeys((f"ledger_gpu_s.{part}" for part in LEDGER_PARTS), _NUMBER),
    **dict.fromkeys((f"placement.{part}" for part in PLACEMENT_PARTS), _NUMBER),
    **dict.fromkeys(
        (f"provenance.{key}" for key in ("iteration_s", "scaling", "timings", "stragglers", "evaluate_s", "min_gpus")),
        _TEXT,
    ),
}
SEARCH_GAP, LEFT_OUT = "plan_search_gap", "plan_left_out"
"""Of the search for the plan, not of the run."""
UNSPENT = "unspent_because"
_LATER = {SEARCH_GAP: _NUMBER, LEFT_OUT: _TEXT, UNSPENT: _TEXT}
"""Those that older rows lack, the newest last."""
_ORIGIN = dict.fromkeys(
    (
        "direction",
        "bundle_name",
        "bundle_family",
        "bundle_sha256",
        "data_sha256",
        "results_version",
        "versions",
        "digest",
    ),
    _TEXT,
)


@functools.cache
def columns() -> Mapping[str, str]:
    """Every column and its Arrow type, in order."""
    spec = {key: kind for key, kind in _leaves(RunSpec) if key not in _IDENTITY}
    return {**_IDENTITY, **spec, **_RESULT, **_LATER, **_ORIGIN}


@functools.cache
def spec_columns() -> tuple[str, ...]:
    """The columns that hold keys of the spec, the policy's label included; not the seed."""
    return ("policy", *(key for key, _ in _leaves(RunSpec) if key not in _IDENTITY))


def measures() -> tuple[str, ...]:
    """The columns that hold numbers that came out of runs."""
    found = {**_RESULT, **_LATER}.items()
    return tuple(name for name, kind in found if kind != _TEXT and name != "best_trial")


@functools.cache
def schema() -> pa.Schema:
    """The schema of every file of rows."""
    import pyarrow as pa

    fields = [pa.field(name, pa.type_for_alias(kind)) for name, kind in columns().items()]
    return pa.schema(fields, metadata={"elastune.rows": ROWS_FORMAT})


def table_of(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Rows as an Arrow table of the schema; missing cells are null."""
    import pyarrow as pa

    unknown = {name for row in rows for name in row} - set(columns())
    assert not unknown, f"no column for {sorted(unknown)}"  # a new field of runs needs a column here
    return pa.Table.from_pylist(rows, schema=schema())


def spec_row(spec: RunSpec) -> dict[str, object]:
    """The columns that follow from the spec alone."""
    document = spec.to_dict()
    del document["policy"]
    label, params = spec.policy.label, {**spec.policy.resolved()}
    name = params.pop("name")
    flat = {"policy": label, "policy.name": name, "policy.params": _json(params), "digest": spec.digest()}
    # Defaults that the spec's document leaves out, as its digest does.
    unsaid = {"cloud.placement": "on", "workload.configurations": CONFIGURATIONS[0], "workload.batch": BATCHES[0]}
    return unsaid | flat | dict(_flattened(document))


def spec_of_row(row: Mapping[str, object]) -> RunSpec:
    """The spec that a row says it is of, with a policy that ships: what comes from a folder runs no code of the user's own.

    Raises:
        InputError: it is no spec here, as where a file that it names is not.
    """
    said = {name: row[name] for name in spec_columns()[1:] if row.get(name) is not None}
    texts = [f"{name}={value if isinstance(value, str) else _json(value)}" for name, value in said.items()]
    return RunSpec.recorded(with_settings({"policy": "sha-fixed"}, texts))


def bundle_row(bundle: Bundle) -> dict[str, object]:
    """The columns that follow from the bundle."""
    return {
        "direction": bundle.direction,
        "bundle_name": bundle.name,
        "bundle_family": bundle.family or bundle.name,
        "bundle_sha256": bundle.sha256,
    }


def result_row(result: RunResult) -> dict[str, object]:
    """The columns that follow from the result of a run that is done."""
    row: dict[str, object] = {}
    for name, value in result.to_json().items():
        if name == "best_config":
            row[name] = None if value is None else _json(value)
        elif isinstance(value, dict):
            row |= {f"{name}.{part}": number for part, number in value.items()}
        else:
            row[name] = value
    return row


def _leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in section.model_fields.items():
        members = _members(field.annotation)
        below = [member for member in members if isinstance(member, type) and issubclass(member, Section)]
        if below and below != [PolicySpec]:
            yield from _leaves(below[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _kind(members)


def _members(annotation: object) -> list[object]:
    """The types that a value may have, without None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [] if annotation is NoneType else [annotation]


def _kind(members: Sequence[object]) -> str:
    kinds = {_TEXT if get_origin(member) is Literal else _KINDS.get(member, _TEXT) for member in members}
    return kinds.pop() if len(kinds) == 1 else _TEXT


def _flattened(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    known = columns()
    for name, value in section.items():
        key = f"{prefix}{name}"
        if key not in known:
            yield from _flattened(value, f"{key}.")
        elif known[key] == _TEXT and not isinstance(value, str):
            yield key, _json(value)
        else:
            yield key, value


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)
