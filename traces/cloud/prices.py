"""The price catalogue: machines with what they cost, where, since when, and who says so.

Imports sim.model and the standard library. A catalogue is a CSV file; its format is in `traces/README.md`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elastune.sim.model.errors import InputError, unknown
from elastune.sim.model.price_series import Price, PriceSeries
from elastune.sim.model.prices import ON_DEMAND, SPOT, InstanceType
from elastune.traces.formats.csv_rows import Row, read_rows

COLUMNS = ("name", "gpus_per_instance", "on_demand_usd_per_hour", "spot_usd_per_hour")
"""What a catalogue must have."""
NOTES = ("provider", "gpu", "region", "date", "source")
"""What it may say besides, as text."""
START = "start_s"
"""Where a catalogue has this column, the rows of a machine are a series: from when, in seconds of the run, each price holds."""

_SHIPPED = Path(__file__).parents[1] / "data" / "instance_types.csv"
_PRICES = {ON_DEMAND: "on_demand_usd_per_hour", SPOT: "spot_usd_per_hour"}


_MEMORY_GB = {"T4": 16, "L4": 24, "A10G": 24, "L40S": 48, "H200": 141, "B200": 180}
"""GB of one accelerator whose name leaves it open (data sheets of NVIDIA; A10G and B200: as AWS states of its machines)."""


@dataclass(frozen=True)
class Offer:
    """One machine in one region; texts are empty where the catalogue says nothing.

    Attributes:
        provider: aws, gcp, azure or any other.
        gpu: its accelerator.
        date: of the prices.
        source: who says so.
    """

    instance_type: InstanceType
    provider: str = ""
    gpu: str = ""
    region: str = ""
    date: str = ""
    source: str = ""

    @property
    def name(self) -> str:
        """As the provider calls it."""
        return self.instance_type.name

    @property
    def gpu_memory_gb(self) -> int | None:
        """Memory of one accelerator in GB, as its name or its maker says; None where it is not known."""
        size = self.gpu.rpartition("-")[2].removesuffix("GB")
        return int(size) if size.isdecimal() else _MEMORY_GB.get(self.gpu)

    @property
    def startup(self) -> str:
        """The start-up preset to assume for it: its provider's; `typical`, which was measured on AWS, for any other."""
        return self.provider if self.provider in ("azure", "gcp") else "typical"


@functools.cache
def shipped_offers() -> tuple[Offer, ...]:
    """The catalogue that ships with the project: one region per machine."""
    return load_offers(_SHIPPED)


def load_offers(path: Path) -> tuple[Offer, ...]:
    """The machines of a catalogue, in the order of the file.

    Prices are of the whole machine; an empty spot price means that there is no such market.

    Raises:
        InvalidTraceError: a price is negative, missing or no number, a series does not go forward in time, or a machine is
            given twice.
    """
    by_place: dict[tuple[str, str], list[Row]] = {}
    for row in read_rows(path, COLUMNS):
        by_place.setdefault((row.text("name"), row.cells.get("region", "")), []).append(row)
    return tuple(_offer_of(rows) for rows in by_place.values())


def offer_named(
    name: str, offers: Sequence[Offer], region: str | None = None, *, where: str = "", hint: str = ""
) -> Offer:
    """The machine of this name.

    Args:
        name: as the provider calls it.
        offers: the catalogue.
        region: may be left out where the machine is offered in one only.
        where: the catalogue's file, for messages.
        hint: what else could have been given, as a clause.

    Raises:
        InputError: there is none, none in this region, or one in each of several regions.
    """
    found = [offer for offer in offers if offer.name == name]
    if not found:
        # Of a long catalogue, those with the accelerator that the name speaks of, as in a100x8.
        like = {one.name for one in offers if one.gpu and one.gpu.partition("-")[0].casefold() in name.casefold()}
        if like:
            hint = f"these have that accelerator; {hint}".removesuffix("; ")
        names = like or {offer.name for offer in offers}
        raise unknown("instance type", name, names, hint, listed_by="elastune prices list")
    regions = ", ".join(offer.region or "(none named)" for offer in found)
    if region is None:
        if len(found) > 1:
            raise InputError(f"{where}{name} has prices in several regions: set cloud.region to one of {regions}")
        return found[0]
    for offer in found:
        if offer.region == region:
            return offer
    raise InputError(
        f"{where}{name} has no price in region {region!r}, only in {regions}: set cloud.region to one that it has, or add a row"
        f" for it with region {region} and {COLUMNS[2]} (elastune prices import checks the file)"
    )


def instance_type_names() -> tuple[str, ...]:
    """Names in the shipped catalogue."""
    return tuple(offer.name for offer in shipped_offers())


def _offer_of(rows: Sequence[Row]) -> Offer:
    """The machine of all rows that name it in one region."""
    first = rows[0]
    name, gpus = first.text("name"), first.whole_number("gpus_per_instance", 1)
    for row in rows[1:]:
        if START not in first.cells:
            raise row.wrong("name", f"{name!r} is given twice{_in(first)}, first in row {first.number}; keep one")
        if row.whole_number("gpus_per_instance", 1) != gpus:
            raise row.wrong(
                "gpus_per_instance",
                f"is {row.cells['gpus_per_instance']}, but {name} has {gpus}{_in(first)} in row {first.number}",
            )
        for note in ("provider", "gpu"):
            if row.cells.get(note) != first.cells.get(note):
                problem = f"is {row.cells[note]!r}, but {first.cells[note]!r} in row {first.number}, of the same {name}"
                raise row.wrong(note, problem)
    times_s = _times_s(rows) if START in first.cells else (0.0,)
    prices = {ON_DEMAND: _price(rows, times_s, ON_DEMAND)}
    if any(row.cells[_PRICES[SPOT]] for row in rows):
        prices[SPOT] = _price(rows, times_s, SPOT)
    return Offer(InstanceType(name, gpus, prices), **{note: joined(rows, note) for note in NOTES})


def joined(rows: Sequence[Row], note: str) -> str:
    """The texts of a column, each once; empty where there is no such column."""
    return "; ".join(dict.fromkeys(row.cells[note] for row in rows if row.cells.get(note)))


def _times_s(rows: Sequence[Row]) -> tuple[float, ...]:
    times_s: list[float] = []
    for row in rows:
        at_s = row.number_at_least(START)
        if not times_s and at_s != 0:
            raise row.wrong(START, f"is {at_s:g}, but the first price of a series must hold from 0 s on")
        if times_s and at_s <= times_s[-1]:
            raise row.wrong(
                START,
                f"is {at_s:g}, but the row before of {row.text('name')}{_in(row)} is at {times_s[-1]:g} s already: a series"
                " must go forward in time",
            )
        times_s.append(at_s)
    return tuple(times_s)


def _price(rows: Iterable[Row], times_s: tuple[float, ...], market: str) -> Price:
    column = _PRICES[market]
    found: list[float] = []
    for row in rows:
        if not row.cells[column]:
            what = f"{row.text('name')}{_in(row)} has no {market} price"
            raise row.wrong(column, f"is empty: {what}; give one in USD per hour, or leave the row out")
        found.append(row.price(column))
    return found[0] if len(found) == 1 else PriceSeries(times_s, tuple(found))


def _in(row: Row) -> str:
    region = row.cells.get("region", "")
    return f" in {region}" if region else ""
