"""A bundle.yaml, read and checked, and what its numbers mean.

Imports the standard library, msgspec, sim.model.errors; yaml where the file is opened.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from elastune.sim.model.errors import InputError, InvalidTraceError, nearest
from elastune.sim.model.profile import Stragglers, Timings
from elastune.traces.bundles.curves import COLUMNS
from elastune.traces.bundles.terms import Overrides
from elastune.traces.formats.texts import read_text
from elastune.traces.formats.yaml_text import parse_yaml
from elastune.traces.scaling.named import load_scaling, scaling_of

if TYPE_CHECKING:
    from pathlib import Path

    from elastune.sim.model.scaling import Scaling

_Positive = Annotated[float, msgspec.Meta(gt=0)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]
_REQUIRED = ("name", "direction", "score", "iteration", "max_iterations", "source", "licence")
_PROVENANCE = re.compile(r"(measured|published|assumed|not measured)\b")


class StragglerSpread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Spread of an iteration's duration, as in `sim.model.profile.Stragglers`; None where it could not be told."""

    persistent_cv: _NotNegative | None = None
    per_iteration_cv: _NotNegative | None = None


class BundleHeader(msgspec.Struct, frozen=True):
    """What a bundle.yaml says; `Bundle` has the meaning of each."""

    name: str
    direction: Literal["minimize", "maximize"]
    score: str
    iteration: str
    max_iterations: Annotated[int, msgspec.Meta(ge=1)]
    source: str
    licence: str
    trials: Annotated[int, msgspec.Meta(ge=1)] | None = None
    family: str | None = None
    schedule: str | None = None
    iteration_s: _Positive | None = None
    evaluate_s: _NotNegative | None = None
    launch_s: _NotNegative | None = None
    checkpoint_s: _NotNegative | None = None
    rescale_s: _NotNegative | None = None
    checkpoint_bytes: _NotNegative | None = None
    data_bytes: _NotNegative | None = None
    straggler: StragglerSpread | None = None
    scaling: Any = None  # whatever `traces.scaling.named.scaling_of` takes
    measures: dict[str, str] = {}
    provenance: dict[str, str] = {}


def read_header(path: Path) -> tuple[BundleHeader, dict[str, object]]:
    """The header, and all other keys of the file, which are free text for readers.

    Raises:
        InvalidTraceError: naming the key as the column.
    """
    mapping = _read_mapping(path)
    for key in _REQUIRED:
        if mapping.get(key) is None:
            raise InvalidTraceError(path, "is required, but missing", column=key)
    others = {key: value for key, value in mapping.items() if key not in BundleHeader.__struct_fields__}
    for key in others:
        # A misspelt `lauch_s` must not silently become a remark.
        match = nearest(key, BundleHeader.__struct_fields__, likeness=0.8)
        if match:
            raise InvalidTraceError(path, f"is unknown; did you mean {match!r}?", column=key)
    header = _convert(path, mapping)
    _check_provenance(path, header)
    _check_measures(path, header)
    return header, others


def _read_mapping(path: Path) -> dict[str, object]:
    mapping = parse_yaml(read_text(path), str(path))
    if not isinstance(mapping, dict):
        raise InvalidTraceError(path, f"holds a {type(mapping).__name__}, but must hold keys and values")
    return {str(key): value for key, value in mapping.items()}


def _convert(path: Path, mapping: dict[str, object]) -> BundleHeader:
    if mapping["direction"] not in ("minimize", "maximize"):
        problem = f"is {mapping['direction']!r}, but must be 'minimize' or 'maximize'"
        raise InvalidTraceError(path, problem, column="direction")
    for key, value in mapping.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidTraceError(path, f"is {value}, but must be finite", column=key)
    try:
        return msgspec.convert(mapping, BundleHeader)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$.")
        raise InvalidTraceError(path, problem, column=where.rstrip("`") or None) from error


def _check_provenance(path: Path, header: BundleHeader) -> None:
    for key, text in header.provenance.items():
        if not _PROVENANCE.match(text):
            problem = f"is {text!r}, but must begin with measured, published, assumed or not measured"
            raise InvalidTraceError(path, problem, column=f"provenance.{key}")


def _check_measures(path: Path, header: BundleHeader) -> None:
    for name in header.measures:
        if name in COLUMNS:
            problem = f"is a column of its own; a measure has a name beside {', '.join(COLUMNS)}"
            raise InvalidTraceError(path, problem, column=f"measures.{name}")


def evaluate_s_of(file: Path, header: BundleHeader, iteration_s: float | None) -> float | None:
    """The part of an iteration that is evaluation, or None.

    Raises:
        InvalidTraceError: it is not less than the iteration.
    """
    if header.evaluate_s is not None and (iteration_s is None or header.evaluate_s >= iteration_s):
        problem = f"is a part of the iteration, and so must be less than iteration_s, which is {iteration_s}"
        raise InvalidTraceError(file, problem, column="evaluate_s")
    return header.evaluate_s


def timings_of(file: Path, header: BundleHeader) -> Timings | None:
    """Launch, checkpoint and rescale, or None where nothing was timed.

    Raises:
        InvalidTraceError: one is missing, or the rescale is shorter than its parts.
    """
    if header.launch_s is None and header.checkpoint_s is None and header.rescale_s is None:
        return None
    if header.launch_s is None or header.checkpoint_s is None:
        missing = "launch_s" if header.launch_s is None else "checkpoint_s"
        raise InvalidTraceError(file, "launch_s and checkpoint_s are recorded together or not at all", column=missing)
    own = Overrides(launch_s=header.launch_s, checkpoint_s=header.checkpoint_s, rescale_s=header.rescale_s)
    try:
        return own.timings(None)
    except InputError as error:
        raise InvalidTraceError(file, str(error), column="rescale_s") from error


def stragglers_of(header: BundleHeader) -> Stragglers | None:
    """The spread of an iteration's duration, or None."""
    if header.straggler is None:
        return None
    return Stragglers(header.straggler.persistent_cv or 0.0, header.straggler.per_iteration_cv or 0.0)


def scaling_in(folder: Path, header: BundleHeader) -> Scaling | None:
    """The speed-ups of a bundle, in its `scaling.csv` or in its header; None where it has none.

    Raises:
        InvalidTraceError: they are malformed, or in both.
    """
    has_table = (folder / "scaling.csv").is_file()
    if has_table and header.scaling is not None:
        raise InvalidTraceError(folder / "bundle.yaml", "is given, but there is a scaling.csv too", column="scaling")
    if has_table:
        return load_scaling(folder / "scaling.csv")
    if header.scaling is None:
        return None
    try:
        return scaling_of(header.scaling)
    except InvalidTraceError:
        raise
    except InputError as error:
        raise InvalidTraceError(folder / "bundle.yaml", str(error), column="scaling") from error
