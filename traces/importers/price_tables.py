"""Price tables of others as a catalogue of ours.

Imports sim.model, traces.cloud.prices, traces.formats and the standard library.

Columns are found by their names: ours, those of SkyPilot's catalogue, and plain variants of both. Where a table has a row per
zone, the spot price is the median over the zones of a region. Rows that are no machine with GPUs and a price are left out, and
told.
"""

from __future__ import annotations

import calendar
import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import ON_DEMAND, SPOT, InstanceType
from elastune.traces.cloud.prices import COLUMNS, NOTES, START, Offer, joined, load_offers
from elastune.traces.formats.csv_rows import Row, read_rows, same_cell

_CALLED = {
    "name": ("name", "instance_type", "InstanceType"),
    "gpus_per_instance": ("gpus_per_instance", "n_gpus", "gpus", "AcceleratorCount"),
    "on_demand_usd_per_hour": ("on_demand_usd_per_hour", "ondemand_usd_per_h", "usd_per_hour", "Price"),
    "spot_usd_per_hour": ("spot_usd_per_hour", "spot_usd_per_h", "SpotPrice"),
    "provider": ("provider", "cloud"),
    "gpu": ("gpu", "accelerator", "AcceleratorName"),
    "region": ("region", "Region"),
    "zone": ("zone", "AvailabilityZone"),
    "date": ("date",),
    "source": ("source",),
}
"""What each of our columns may be called."""
_LISTED = 5


@dataclass(frozen=True)
class ImportedPrices:
    """A catalogue, and what of the table is not in it.

    Attributes:
        left_out: by reason, what the rows are called that were left out; one name for each row.
    """

    offers: tuple[Offer, ...]
    left_out: Mapping[str, Sequence[str]]

    def notes(self) -> Iterator[str]:
        """A sentence for each reason."""
        for reason, names in self.left_out.items():
            known = list(dict.fromkeys(filter(None, names)))
            listed = f": {', '.join(known[:_LISTED])}{', ...' if known[_LISTED:] else ''}" if known else ""
            yield f"{len(names)} row{'s' if len(names) > 1 else ''} left out, {reason}{listed}"


def import_prices(path: Path, *, date: str = "", source: str = "") -> ImportedPrices:
    """The machines of a price table in our or a foreign format, in the order of the file.

    Args:
        path: a CSV file.
        date: of the prices, where the table has none.
        source: of the prices, where the table has none.

    Raises:
        InvalidTraceError: a column is missing, a price is negative or no number, a date is none, two rows disagree, or no
            machine is left.
        InputError: the date is none.
    """
    rows = read_rows(path)
    told = {"date": date, "source": source}
    if not _is_date(date):
        raise InputError(f"--date {date}: must be {_DATES}")
    for row in rows:
        if not _is_date(row.cells.get("date", "")):
            raise row.wrong("date", f"is {row.cells['date']!r}, but must be {_DATES}, or empty")
    header = tuple(rows[0].cells)
    if START in header or set(COLUMNS) <= set(header):
        offers = load_offers(path)
        dated = (replace(one, date=one.date or date, source=one.source or source) for one in offers)
        return ImportedPrices(tuple(dated), {})
    called = _called(path, header)
    _check_names(rows, called)
    by_place: dict[tuple[str, str], list[Row]] = {}
    left_out: dict[str, list[str]] = {}
    for row in rows:
        reason = _why_not(row, called)
        if reason:
            left_out.setdefault(reason, []).append(
                row.cells[called["name"]] or row.cells.get(called.get("gpu", ""), "")
            )
            continue
        place = (row.text(called["name"]), row.cells.get(called.get("region", ""), ""))
        by_place.setdefault(place, []).append(row)
    imported = ImportedPrices(tuple(_offer_of(zones, called, told) for zones in by_place.values()), left_out)
    if not imported.offers:
        raise InvalidTraceError(path, f"has no machine with GPUs and a price: {'; '.join(imported.notes())}")
    return imported


_DATES = "a date such as 2026-07-31, 2026-07 or 2026"
_DATE = re.compile(r"(\d{4})(-\d\d)?(-\d\d)?(?:[T ].*)?")


def _is_date(text: str) -> bool:
    """Whether a text is a day, a month or a year; an empty one says nothing."""
    found = _DATE.fullmatch(text)
    if found is None:
        return not text
    year, month, day = (int(part.strip("-")) for part in found.groups(default="1"))
    return year > 0 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]


def _why_not(row: Row, called: Mapping[str, str]) -> str:
    """Why a row is no offer of a machine with GPUs; empty where it is one."""
    count = called["gpus_per_instance"]
    gpus = row.number_at_least(count) if row.cells[count] else 0.0
    if not gpus:
        return "without GPUs"
    if gpus != int(gpus):
        return "with a part of a GPU"
    if not row.cells[called["name"]]:
        return "without the name of a machine"
    return "" if row.cells[called["on_demand_usd_per_hour"]] else "without an on-demand price"


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
    """By our name of a column, its name in the table.

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


def _check_names(rows: Sequence[Row], called: Mapping[str, str]) -> None:
    """Check that columns agree where they may mean the same.

    Raises:
        InvalidTraceError: they do not; names the row.
    """
    for ours in COLUMNS:
        for other in (name for name in _CALLED[ours] if name in rows[0].cells and name != called[ours]):
            for row in rows:
                if not same_cell(row.cells[other], row.cells[called[ours]]):
                    problem = (
                        f"is {row.cells[other]!r}, but {called[ours]} is {row.cells[called[ours]]!r}: keep one column"
                    )
                    raise row.wrong(other, problem)


def _offer_of(zones: Sequence[Row], called: Mapping[str, str], told: Mapping[str, str]) -> Offer:
    """The machine of all rows that name it in one region."""
    first = zones[0]
    for what in ("gpus_per_instance", "on_demand_usd_per_hour", "provider", "gpu"):
        _check_equal(zones, called.get(what), called)
    spot = called.get("spot_usd_per_hour", "")
    by_zone: dict[str, list[Row]] = {}
    for row in zones:
        by_zone.setdefault(row.cells.get(called.get("zone", ""), ""), []).append(row)
    for rows in by_zone.values():
        _check_equal(rows, spot, called)
    spots = [rows[0].price(spot) for rows in by_zone.values() if rows[0].cells.get(spot)]
    notes = {note: joined(zones, called.get(note, "")) or told.get(note, "") for note in NOTES}
    usd_per_hour = {ON_DEMAND: first.price(called["on_demand_usd_per_hour"])}
    if spots:
        usd_per_hour[SPOT] = round(median(spots), 6)
    if len(spots) > 1:
        notes["source"] = "; ".join(filter(None, (notes["source"], "spot is the median over the zones")))
    gpus = first.whole_number(called["gpus_per_instance"], 1)
    return Offer(InstanceType(first.text(called["name"]), gpus, dict(usd_per_hour)), **notes)


def _check_equal(rows: Sequence[Row], column: str | None, called: Mapping[str, str]) -> None:
    """Check that rows of one machine in one place agree.

    Raises:
        InvalidTraceError: two do not; names both.
    """
    if not column:
        return
    first = rows[0]
    for row in rows[1:]:
        if not same_cell(row.cells[column], first.cells[column]):
            region = row.cells.get(called.get("region", ""), "")
            of = f"{row.cells[called['name']]}{f' in {region}' if region else ''}"
            known = f"{first.cells[column] or 'empty'} in row {first.number}"
            raise row.wrong(column, f"is {row.cells[column] or 'empty'}, but {known}, both of {of}: keep one")
