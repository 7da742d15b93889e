"""The sweep: a base spec, axes, zipped axes and paired seeds, as one YAML file; every cell is checked before anything starts.

Imports the run spec and its files, sim.model.errors and pydantic. A cell is a run spec without its
seed; a run is a cell on a seed. What a key means is `experiments.spec.run`'s business, and an axis may be any key that
`--set` takes.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from elastune.experiments.spec.errors import one_message
from elastune.experiments.spec.places import make_beside, read_run_spec, spec_file, spec_names
from elastune.experiments.spec.run import RunSpec
from elastune.experiments.spec.section import SEED, Count, Number, Range, Section
from elastune.experiments.spec.yaml_file import put, read_mapping, with_own_code, with_own_files, with_settings
from elastune.experiments.sweeps.rows import spec_columns
from elastune.sim.model.errors import InputError
from elastune.sim.model.numbers import whole_number_of

MOST_RUNS = 1_000_000
"""Of one sweep. More are a mistake: they would take weeks."""
MOST_CELLS = 20_000
"""Each is checked before anything starts, which takes milliseconds."""
_COUNTED = Range(1, MOST_RUNS)
_OF_POLICIES = ("policy", "policy.name")
_RANGE = "a range {from, to, step} or {from, to, num}"


class RangeSpec(Section):
    """Numbers from one to another, both included: `{from, to, step}`, or `{from, to, num, scale: linear | log}`."""

    start: Annotated[Number, Field(alias="from")]
    stop: Annotated[Number, Field(alias="to")]
    step: Number | None = None
    num: Annotated[Count | None, _COUNTED] = None
    scale: Literal["linear", "log"] = "linear"

    def values(self) -> list[float | int]:
        """List the numbers; a whole number is an int.

        Raises:
            InputError: neither or both of step and num are given, the step leads away, or a logarithmic end is not above 0.
        """
        if (self.step is None) == (self.num is None):
            raise InputError("a range has either a step or a num")
        numbers = self._stepped(self.step) if self.step is not None else self._spaced(self.num or 1)
        return [int(number) if number.is_integer() else number for number in numbers]

    def _stepped(self, step: float) -> list[float]:
        if self.scale == "log":
            raise InputError("a range with a step is linear; a logarithmic one has a num")
        # Decimal arithmetic: 0.1, 0.2, 0.3 and not 0.30000000000000004, which would be another run.
        start, stop, by = (Decimal(str(number)) for number in (self.start, self.stop, step))
        if by == 0 or (stop - start) / by < 0:
            raise InputError(f"a range from {self.start:g} to {self.stop:g} cannot go by steps of {step:g}")
        steps = int((stop - start) / by)
        if steps >= MOST_RUNS:
            raise InputError(f"a range from {self.start:g} to {self.stop:g} by {step:g} has over {MOST_RUNS:,} numbers")
        return [float(start + by * index) for index in range(steps + 1)]

    def _spaced(self, num: int) -> list[float]:
        if self.scale == "log" and min(self.start, self.stop) <= 0:
            raise InputError("a logarithmic range has both ends above 0")
        if num == 1 and self.start != self.stop:
            raise InputError("a range of one number has equal ends")
        is_log = self.scale == "log"
        start, stop = (math.log(end) if is_log else end for end in (self.start, self.stop))
        between = [start + (stop - start) * index / (num - 1) for index in range(1, num - 1)]
        # Twelve digits, so that 10 between 1 and 100 is 10, and the same on every machine's logarithm.
        inner = [float(f"{math.exp(number) if is_log else number:.12g}") for number in between]
        return [self.start, *inner, *([self.stop] if num > 1 else [])]


class SweepSpec(Section):
    """A sweep as YAML holds it, with lists for ranges. `load` and `of` build it and raise only `InputError`.

    Attributes:
        base: a run spec, as YAML holds it; need not be complete where axes complete it.
        axes: by dotted key; the product of all of them.
        zip: groups of dotted keys that move together; each group is one axis of the product.
        seeds: the same for every cell.
    """

    base: dict[str, Any]
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    zip: list[dict[str, list[Any]]] = Field(default_factory=list)
    seeds: list[Annotated[Count, SEED]]

    @classmethod
    def load(cls, path: str | Path, settings: Sequence[str] = ()) -> Self:
        """Read a sweep from a YAML file. A base that is a path is relative to the file.

        Args:
            path: the file.
            settings: `dotted.key=value` texts that are put into the base.

        Raises:
            InputError: a file cannot be read or is malformed, a key is unknown, or a setting is an axis too.
        """
        path = Path(path)
        if str(path) in spec_names() and not path.exists():
            raise InputError(
                f"{path}: is a run spec that ships, but a sweep needs a YAML file with base, axes and seeds"
            )
        try:
            return cls.of(read_mapping(path), settings, folder=path.parent)
        except InputError as error:
            text = str(error)
            raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error

    @classmethod
    def of(cls, document: Mapping[str, Any], settings: Sequence[str] = (), *, folder: Path = Path()) -> Self:
        """Read a sweep from a mapping. A base that is a path is relative to `folder`; it may be the name of a shipped spec.

        Raises:
            InputError: see `load`.
        """
        base = document.get("base")
        if isinstance(base, str):
            base = read_run_spec(_base_file(base, folder))
        elif isinstance(base, dict):
            base = with_own_code(base, folder)
        if not isinstance(base, dict):
            raise InputError("base is missing: give a run spec, by path or inline")
        base = with_settings(base, ())
        if isinstance(document.get("base"), dict):
            make_beside(base, folder)
        base = with_settings(base, settings)
        try:
            sweep = cls.model_validate({**_written_out(document, base.get("seed", 0), folder), "base": base})
        except ValidationError as error:
            raise InputError(one_message(error, cls)) from error
        sweep.check(settings)
        return sweep

    def check(self, settings: Sequence[str] = ()) -> None:
        """Check that no key is swept twice or also set, that keys which move together have equally many values, and the size.

        Raises:
            InputError: one of it is wrong.
        """
        self._check_values()
        keys = [*self.axes, *(key for group in self.zip for key in group)]
        doubles = sorted({key for key in keys if keys.count(key) > 1})
        if doubles:
            raise InputError(f"{doubles[0]} is swept twice: a key is in one axis or in one zip")
        if "seed" in keys:
            raise InputError("seed is swept: give `seeds`, which are the same for every cell")
        for setting in settings:
            key = setting.partition("=")[0].strip()
            if key in keys:
                raise InputError(f"--set {setting}: {key} is swept: change its axis instead")

    def _check_values(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds: {len(self.seeds)} are given, but at least one is needed, and none twice")
        for group in self.zip:
            if not group:
                raise InputError("zip: a group holds no keys")
            if len({len(values) for values in group.values()}) > 1:
                counted = ", ".join(f"{key} has {len(values)}" for key, values in group.items())
                raise InputError(f"zip: {counted} values, but keys that move together have equally many")
        for key, values in [*self.axes.items(), *(item for group in self.zip for item in group.items())]:
            if not values:
                raise InputError(f"{key} is swept, but there are no values")
        cells = self.size() // len(self.seeds)
        if cells > MOST_CELLS or self.size() > MOST_RUNS:
            raise InputError(
                f"the axes make {cells:,} cells and {self.size():,} runs, but at most {MOST_CELLS:,} cells and {MOST_RUNS:,}"
                " runs are allowed: take fewer values or seeds, or split the sweep and merge the results"
            )

    def swept(self) -> list[list[dict[str, Any]]]:
        """List the settings of each value of each axis, by dotted key."""
        axes = [[{key: value} for value in values] for key, values in self.axes.items()]
        groups = [
            [dict(zip(group, values, strict=True)) for values in zip(*group.values(), strict=True)]
            for group in self.zip
        ]
        return axes + groups

    def size(self) -> int:
        """The number of runs."""
        return math.prod(len(values) for values in self.swept()) * len(self.seeds)

    def narrowed(self, keys: Collection[str]) -> Self:
        """Keep all values of axes with one of these keys, and the first value of every other axis."""
        axes = {key: values if key in keys else values[:1] for key, values in self.axes.items()}
        groups = [
            group if any(key in keys for key in group) else {key: values[:1] for key, values in group.items()}
            for group in self.zip
        ]
        return self.model_copy(update={"axes": axes, "zip": groups})

    def cells(self) -> list[Cell]:
        """Build and check every cell, in the order of the axes; the last axis varies fastest.

        Raises:
            InputError: a cell is no run spec, or the same as another; names the cell, the key and the nearest known one.
        """
        cells: list[Cell] = []
        seen: dict[str, Cell] = {}
        files: dict[str, str] = {}
        for chosen in itertools.product(*self.swept()):
            settings = {key: value for part in chosen for key, value in part.items()}
            cell = Cell(settings, _spec(self.base, settings, self.seeds[0]))
            same = seen.setdefault(cell.spec.digest(), cell)
            if same is not cell:
                raise InputError(f"two cells are the same run: {same.label}; and {cell.label}")
            name = files.setdefault(cell.spec.policy.short_name, cell.spec.policy.name)
            if name != cell.spec.policy.name:  # tables name a file without its folder
                raise InputError(f"policies {name} and {cell.spec.policy.name}: give the files different names")
            cells.append(cell)
        return cells

    def to_dict(self) -> dict[str, Any]:
        """The sweep as YAML, with its base inline and lists for ranges; `SweepSpec.of` reads it back."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class Cell:
    """A run spec on the first seed, and the settings that turn the base into it."""

    settings: Mapping[str, Any]
    spec: RunSpec

    @property
    def label(self) -> str:
        """The settings as key=value texts; they tell the cell from the others."""
        return _label(self.settings)


def _spec(base: Mapping[str, Any], settings: Mapping[str, Any], seed: int) -> RunSpec:
    document = with_settings(base, ())
    # A section before the keys in it, whatever their order in the file.
    for key in sorted(settings, key=lambda key: key.count(".")):
        put(document, key.split("."), copy.deepcopy(settings[key]), f"{key}={settings[key]}")
    try:
        return RunSpec.of(**document).with_seed(seed)
    except InputError as error:
        raise InputError(f"cell {_label(settings)}: {error}") from error


def _label(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items()) or "base"


def _base_file(base: str, folder: Path) -> Path:
    file = folder / base
    return spec_file(base) if base in spec_names() and not file.exists() else file


def _written_out(document: Mapping[str, Any], first_seed: object, folder: Path) -> dict[str, Any]:
    """Replace ranges by lists, and files by absolute paths. Other malformed parts are left for the model to refuse."""
    written = dict(document)
    if isinstance(written.get("axes"), dict):
        written["axes"] = _lists(written["axes"], folder)
    if "zip" in written:
        groups = written["zip"] if isinstance(written["zip"], list) else [written["zip"]]
        written["zip"] = [_lists(group, folder) if isinstance(group, dict) else group for group in groups]
    seeds = written.get("seeds", 1)
    written["seeds"] = _list("seeds", seeds) if isinstance(seeds, list | dict) else _counted(seeds, first_seed)
    return written


def _counted(number: object, first_seed: object) -> list[int]:
    """So many seeds, from the first on."""
    first, count = _whole("seed", first_seed), _whole("seeds", number, f", a list, or {_RANGE}")
    if count not in _COUNTED:
        raise InputError(f"seeds is {count}, but must be a whole number {_COUNTED}")
    return list(range(first, first + count))


def _whole(key: str, value: object, otherwise: str = "") -> int:
    try:
        return whole_number_of(str(value))
    except ValueError as error:
        raise InputError(f"{key} is {value!r}, but {error}{otherwise}") from error


def _lists(axes: Mapping[object, object], folder: Path) -> dict[str, list[Any]]:
    lists = {str(key): _list(str(key), values) for key, values in axes.items()}
    own = {key: [with_own_files(value, folder) for value in lists[key]] for key in _OF_POLICIES if key in lists}
    return lists | own


def _list(key: str, values: object) -> list[Any]:
    if isinstance(values, list):
        return values
    is_section = any(column.startswith(f"{key}.") for column in spec_columns())
    if is_section or not isinstance(values, dict):
        below = next(iter(values), "KEY") if isinstance(values, dict) else "KEY"
        dotted = f"; keys of a section are dotted, as {key}.{below}" if is_section else ""
        raise InputError(f"{key} is {values!r}, but must be a list, or {_RANGE}{dotted}")
    try:
        return RangeSpec.model_validate(values).values()
    except ValidationError as error:
        raise InputError(f"{key}: {one_message(error, RangeSpec)}") from error
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
