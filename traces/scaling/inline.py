"""Scalings as inline values of a spec, in both directions. Imports sim.model and the standard library.

Points `{1: 1, 2: 1.7, 2x2: 1.1}` are speed-ups by GPUs, or GPUs x nodes. With a key `family` they are one of `FAMILIES`, whose
parameters are the keys beside it; `{amdahl: 0.1}` and `{power: 0.8}` are short for two of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from elastune.sim.model.errors import InputError, nearest, unknown
from elastune.sim.model.node_scaling import AllReduceScaling, Link, PlacedTableScaling
from elastune.sim.model.scaling import AmdahlScaling, LinearScaling, PowerScaling, Scaling, ScalingKind, TableScaling
from elastune.traces.formats.texts import plain
from elastune.traces.scaling.tables import KINDS, MOST_GPUS

if TYPE_CHECKING:
    Keys = Mapping[str, object]

_GANG = re.compile(r"(0|[1-9][0-9]*)(?:x(0|[1-9][0-9]*))?")
_ANY = ("family", "kind", "max_gpus")
_LINKS = ("intra", "inter")


def scaling_inline(value: Mapping[int | str, object]) -> Scaling:
    """The scaling that a mapping describes.

    Raises:
        InputError: it describes none, or a number is out of range.
    """
    keys: dict[str, object] = {}
    for key, given in plain(value).items():
        if str(key) in keys:
            raise InputError(f"scaling: {key} is given twice; keep one")
        keys[str(key)] = given
    if "family" in keys:
        family = str(keys["family"])
        if family not in FAMILIES:
            raise unknown("family of scalings", family, tuple(FAMILIES))
        return FAMILIES[family](keys)
    if any(not _GANG.fullmatch(key) and key != "kind" for key in keys):
        return _short_law(keys)
    return _points({key: given for key, given in keys.items() if key != "kind"}, _kind(keys))


def inline_of(scaling: Scaling) -> dict[str, object]:
    """What a spec holds for a scaling; `scaling_inline` makes the same of it.

    Raises:
        InputError: it is of no family.
    """
    match scaling:
        case LinearScaling():
            return {"family": "linear", "max_gpus": scaling.max_gpus}
        case AmdahlScaling():
            law: dict[str, object] = {"family": "amdahl", "serial": scaling.serial}
        case PowerScaling():
            law = {"family": "power", "exponent": scaling.exponent}
        case TableScaling():
            return _table_inline({str(gpus): speedup for gpus, speedup in scaling.points.items()}, scaling.kind)
        case PlacedTableScaling():
            points = {f"{gpus}x{nodes}": speedup for (gpus, nodes), speedup in scaling.points.items()}
            return _table_inline(points, scaling.kind)
        case AllReduceScaling():
            law = {"family": "allreduce", "compute_s": scaling.compute_s, "serial_s": scaling.serial_s}
            for name, link in zip(_LINKS, (scaling.intra, scaling.inter), strict=True):
                law |= {f"{name}_latency_s": link.latency_s, f"{name}_transfer_s": link.transfer_s}
        case _:
            raise InputError(f"{type(scaling).__name__} is of no family that a spec can hold: {', '.join(FAMILIES)}")
    stated = {} if scaling.kind == "unstated" else {"kind": scaling.kind}
    return law | stated | {"max_gpus": scaling.max_gpus}


def _table_inline(points: Mapping[str, float], kind: ScalingKind) -> dict[str, object]:
    return {"family": "table", **({} if kind == "unstated" else {"kind": kind}), "points": dict(points)}


def gang_of(text: str) -> tuple[int, int | None]:
    """`GPUS` or `GPUSxNODES` as (GPUs, nodes), nodes None where they are not given.

    Raises:
        InputError: it is neither, or there are more nodes than GPUs.
    """
    found = _GANG.fullmatch(text.strip())
    if not found:
        raise InputError(f"{text!r} is no gang: give GPUs, as in 8, or GPUs x nodes, as in 16x2")
    gpus, nodes = int(found[1]), int(found[2]) if found[2] else None
    if not 1 <= (1 if nodes is None else nodes) <= gpus <= MOST_GPUS:
        raise InputError(f"{text!r} is no gang: it has 1 to {MOST_GPUS} GPUs, and between 1 node and as many as GPUs")
    return gpus, nodes


def _points(points: Keys, kind: ScalingKind) -> Scaling:
    speedups: dict[tuple[int, int], float] = {}
    for key, given in points.items():
        gpus, nodes = gang_of(key)
        if (gpus, nodes or 1) in speedups:
            raise InputError(f"scaling: {gpus} GPUs on {nodes or 1} nodes are given twice, once as {key}; keep one")
        speedups[gpus, nodes or 1] = _number(f"scaling: the speed-up of {key} GPUs", given)
    if any("x" in key for key in points):
        return PlacedTableScaling(speedups, kind)
    return TableScaling({gpus: speedup for (gpus, _), speedup in speedups.items()}, kind)


def _short_law(keys: Keys) -> Scaling:
    allowed = (*_SHORT, "max_gpus", "kind")
    for key in keys:
        if key not in allowed and not _GANG.fullmatch(key):
            match = nearest(key, (*allowed, "family"))
            meant = f"; did you mean {match!r}?" if match else ""
            raise InputError(f"scaling: {key!r} is neither a number of GPUs nor one of amdahl, power, max_gpus{meant}")
    given = [key for key in keys if key in _SHORT]
    if len(given) != 1:
        raise InputError(f"scaling {dict(keys)}: exactly one of amdahl and power must be given")
    build, parameter = FAMILIES[given[0]], _SHORT[given[0]]
    return build({parameter: keys[given[0]], **{key: keys[key] for key in keys if key != given[0]}})


def _linear(keys: Keys) -> Scaling:
    _check_keys("linear", keys, ())
    return LinearScaling(_max_gpus(keys))


def _amdahl(keys: Keys) -> Scaling:
    _check_keys("amdahl", keys, ("serial",))
    return AmdahlScaling(_required("amdahl", keys, "serial"), _max_gpus(keys), _kind(keys))


def _power(keys: Keys) -> Scaling:
    _check_keys("power", keys, ("exponent",))
    return PowerScaling(_required("power", keys, "exponent"), _max_gpus(keys), _kind(keys))


def _table(keys: Keys) -> Scaling:
    _check_keys("table", keys, ("points",))
    points = keys.get("points")
    if not isinstance(points, Mapping):
        raise InputError("scaling table: points is missing; give speed-ups by GPUs, as in {1: 1, 2: 1.7}")
    return _points({str(key): given for key, given in points.items()}, _kind(keys))


def _allreduce(keys: Keys) -> Scaling:
    parts = ("latency_s", "transfer_s", "bytes_per_s")
    _check_keys(
        "allreduce", keys, ("compute_s", "serial_s", "gradient_bytes", *(f"{n}_{p}" for n in _LINKS for p in parts))
    )
    intra, inter = (_link(name, keys) for name in _LINKS)
    serial_s = _number("scaling.serial_s", keys.get("serial_s", 0.0))
    compute_s = _required("allreduce", keys, "compute_s")
    return AllReduceScaling(compute_s, intra, inter, _kind(keys), serial_s, _max_gpus(keys))


def _link(name: str, keys: Keys) -> Link:
    """A link, by the seconds that one copy of the gradients takes, or by the gradients' bytes and its bytes per second."""
    latency_s = _number(f"scaling.{name}_latency_s", keys.get(f"{name}_latency_s", 0.0))
    if f"{name}_transfer_s" in keys:
        if f"{name}_bytes_per_s" in keys:
            raise InputError(f"scaling: {name}_transfer_s and {name}_bytes_per_s are both given: leave one of them out")
        return Link(latency_s, _required("allreduce", keys, f"{name}_transfer_s"))
    if f"{name}_bytes_per_s" not in keys:
        raise InputError(f"scaling allreduce: {name}_transfer_s is missing, or gradient_bytes and {name}_bytes_per_s")
    bytes_per_s = _required("allreduce", keys, f"{name}_bytes_per_s")
    if bytes_per_s <= 0:
        raise InputError(f"scaling.{name}_bytes_per_s is {bytes_per_s:g}, but must be positive")
    return Link(latency_s, _required("allreduce", keys, "gradient_bytes") / bytes_per_s)


FAMILIES: Mapping[str, Callable[[Keys], Scaling]] = {
    "linear": _linear,
    "amdahl": _amdahl,
    "power": _power,
    "allreduce": _allreduce,
    "table": _table,
}
"""What `family` may be."""
_SHORT = {"amdahl": "serial", "power": "exponent"}


def _check_keys(family: str, keys: Keys, own: tuple[str, ...]) -> None:
    for key in keys:
        if key not in (*own, *_ANY):
            raise unknown(f"key of scaling {family}", key, (*own, *_ANY))


def _required(family: str, keys: Keys, key: str) -> float:
    if key not in keys:
        raise InputError(f"scaling {family}: {key} is missing")
    return _number(f"scaling.{family}" if _SHORT.get(family) == key else f"scaling.{key}", keys[key])


def _kind(keys: Keys) -> ScalingKind:
    kind = keys.get("kind", "unstated")
    if kind not in (*KINDS, "unstated"):
        raise InputError(
            f"scaling.kind is {kind!r}, but must be weak (batch of each GPU fixed) or strong (whole batch)"
        )
    return cast("ScalingKind", kind)


def _max_gpus(keys: Keys) -> int:
    max_gpus = _number("scaling.max_gpus", keys.get("max_gpus", 64))
    if not (1 <= max_gpus <= MOST_GPUS and max_gpus == int(max_gpus)):
        raise InputError(f"scaling.max_gpus is {max_gpus:g}, but must be a whole number from 1 to {MOST_GPUS}")
    return int(max_gpus)


def _number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{what} is {value!r}, but must be a number")
    return float(value)
