"""The price catalogue: instance types with what they cost. Imports sim.model and the standard library."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from sim.model.prices import ON_DEMAND, InstanceType
from traces.nearest import unknown
from traces.tables import read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from traces.tables import Row

SPOT = "spot"
"""The market whose instances the provider may take back."""

_SHIPPED = Path(__file__).parent / "data" / "instance_types.csv"
_COLUMNS = ("name", "gpus_per_instance", "on_demand_usd_per_hour", "spot_usd_per_hour")


def instance_type_names() -> tuple[str, ...]:
    """Names in the shipped catalogue."""
    return tuple(_shipped())


def instance_type_named(name: str, catalogue: Mapping[str, InstanceType] | None = None) -> InstanceType:
    """The instance type of this name.

    Args:
        name: as the provider calls it.
        catalogue: what `load_instance_types` read; None for the shipped one.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    known = _shipped() if catalogue is None else catalogue
    if name not in known:
        hint = "or give gpus_per_instance and price_usd_per_hour inline" if catalogue is None else ""
        raise unknown("instance type", name, known, hint)
    return known[name]


def load_instance_types(path: Path) -> dict[str, InstanceType]:
    """The instance types of a CSV file, by name.

    The file has the columns `name, gpus_per_instance, on_demand_usd_per_hour, spot_usd_per_hour` and may have more.
    Prices are of the whole machine; an empty spot price means that there is no such market.

    Raises:
        InvalidTraceError: a price is negative, missing or no number, or a name appears twice.
    """
    types: dict[str, InstanceType] = {}
    for row in read_rows(path, _COLUMNS):
        instance_type = _type_of(row)
        if instance_type.name in types:
            raise row.wrong("name", f"{instance_type.name!r} is given twice")
        types[instance_type.name] = instance_type
    return types


@functools.cache
def _shipped() -> Mapping[str, InstanceType]:
    return load_instance_types(_SHIPPED)


def _type_of(row: Row) -> InstanceType:
    prices = {ON_DEMAND: row.number_at_least("on_demand_usd_per_hour")}
    if row.cells["spot_usd_per_hour"]:
        prices[SPOT] = row.number_at_least("spot_usd_per_hour")
    return InstanceType(row.text("name"), row.whole_number("gpus_per_instance", 1), prices)
