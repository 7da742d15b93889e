"""Foreign price tables -> a catalogue of ours. Imports traces.cloud.prices, traces.formats.csv_rows and the standard library.

Columns are found by their names: ours, those of SkyPilot's catalogue, and plain variants of both. Where a table has a row per
zone, the spot price is the median over the zones of a region.
"""

from __future__ import annotations

import csv
from statistics import median
from typing import TYPE_CHECKING

from elastune.sim.model.errors import InvalidTraceError
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import ON_DEMAND, SPOT, InstanceType
from elastune.traces.cloud.prices import COLUMNS, NOTES, START, Offer, load_offers
from elastune.traces.formats.csv_rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from elastune.traces.formats.csv_rows import Row

_CALLED = {
    "name": ("name", "instance_type", "InstanceType"),
    "gpus_per_instance": ("gpus_per_instance", "n_gpus", "gpus", "AcceleratorCount"),
    "on_demand_usd_per_hour": ("on_demand_usd_per_hour", "ondemand_usd_per_h", "usd_per_hour", "Price"),
    "spot_usd_per_hour": ("spot_usd_per_hour", "spot_usd_per_h", "SpotPrice"),
    "provider": ("provider", "cloud"),
    "gpu": ("gpu", "accelerator", "AcceleratorName"),
    "region": ("region", "Region"),
    "date": ("date",),
    "source": ("source",),
}
"""What each of our columns may be called."""


def import_prices(path: Path, *, date: str = "", source: str = "") -> tuple[Offer, ...]:
    """The machines of a price table in our or a foreign format, in the order of the file.

    Rows without GPUs are left out.

    Args:
        path: a CSV file.
        date: of the prices, where the table has none.
        source: of the prices, where the table has none.

    Raises:
        InvalidTraceError: a column or a price is missing, a price is negative or no number, or the zones of a region disagree.
    """
    rows = read_rows(path)
    header = tuple(rows[0].cells)
    if START in header or set(COLUMNS) <= set(header):
        return load_offers(path)
    called = _called(path, header)
    by_place: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.cells[called["gpus_per_instance"]] in ("", "0", "0.0"):
            continue
        place = (row.text(called["name"]), row.cells.get(called.get("region", ""), ""))
        by_place.setdefault(place, []).append(row)
    if not by_place:
        raise InvalidTraceError(path, "has no machine with GPUs")
    told = {"date": date, "source": source}
    return tuple(_offer_of(zones, called, told) for zones in by_place.values())


def write_prices(path: Path, offers: Sequence[Offer]) -> None:
    """Write a catalogue that `traces.cloud.prices.load_offers` reads back as the same."""
    has_series = any(isinstance(price, PriceSeries) for o in offers for price in o.instance_type.usd_per_hour.values())
    columns = ("name", "provider", "gpu", *((START,) if has_series else ()), *COLUMNS[1:], "region", "date", "source")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for offer in offers:
            writer.writerows(_cells(offer))


def _cells(offer: Offer) -> Iterator[dict[str, object]]:
    kind = offer.instance_type
    notes = {note: getattr(offer, note) for note in NOTES}
    prices = kind.usd_per_hour
    times_s = next((price.start_s for price in prices.values() if isinstance(price, PriceSeries)), (0.0,))
    for index, start_s in enumerate(times_s):
        at = {
            market: price.usd_per_hour[index] if isinstance(price, PriceSeries) else price
            for market, price in prices.items()
        }
        yield {
            **notes,
            "name": kind.name,
            "gpus_per_instance": kind.gpus_per_instance,
            COLUMNS[2]: at[ON_DEMAND],
            COLUMNS[3]: at.get(SPOT, ""),
            START: start_s,
        }


def _called(path: Path, header: Iterable[str]) -> dict[str, str]:
    """Our columns that the table has, and what it calls them.

    Raises:
        InvalidTraceError: it lacks one that is needed.
    """
    known = set(header)
    called = {ours: name for ours, names in _CALLED.items() for name in names if name in known}
    for column in COLUMNS[:3]:
        if column not in called:
            named = ", ".join(_CALLED[column])
            raise InvalidTraceError(
                path, f"has no such column, nor one called {named}; its columns: {', '.join(header)}", column=column
            )
    return called


def _offer_of(zones: Sequence[Row], called: dict[str, str], told: dict[str, str]) -> Offer:
    """The machine of all rows that name it in one region."""
    first = zones[0]
    name, gpus = first.text(called["name"]), first.whole_number(called["gpus_per_instance"], 1)
    notes = {note: first.cells.get(called.get(note, ""), "") or told.get(note, "") for note in NOTES}
    column = called["on_demand_usd_per_hour"]
    on_demand = {_on_demand(row, column, name, notes["region"]): row for row in zones}
    if len(on_demand) > 1:
        prices = " and ".join(f"{price:g}" for price in on_demand)
        raise list(on_demand.values())[1].wrong(column, f"{name} in {notes['region']} costs both {prices}: keep one")
    usd_per_hour = {ON_DEMAND: next(iter(on_demand))}
    spot = called.get("spot_usd_per_hour", "")
    spots = [row.number_at_least(spot) for row in zones if row.cells.get(spot, "")]
    if spots:
        usd_per_hour[SPOT] = round(median(spots), 6)
        if len(spots) > 1:
            notes["source"] = "; ".join(filter(None, (notes["source"], "spot is the median over the zones")))
    return Offer(InstanceType(name, gpus, dict(usd_per_hour)), **notes)


def _on_demand(row: Row, column: str, name: str, region: str) -> float:
    if not row.cells[column]:
        raise row.wrong(
            column,
            f"is empty: {name}{f' in {region}' if region else ''} has no on-demand price; give one in USD per hour, or leave"
            " the row out",
        )
    return row.number_at_least(column)
