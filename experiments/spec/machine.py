"""The machine of a run spec: its name in the price catalogue, or GPUs and prices. Imports sim.model, traces and pydantic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from elastune.experiments.spec.section import GPUS, SECONDS, Count, Range, Section
from elastune.sim.model.errors import InputError
from elastune.sim.model.numbers import number_of, seconds_of
from elastune.sim.model.price_series import Price, PriceSeries
from elastune.sim.model.prices import ON_DEMAND, SPOT, InstanceType
from elastune.traces import load_offers, offer_named, shipped_offers


def _price_form(value: object) -> float | tuple[tuple[float, float], ...] | None:
    """A number, or a series of pairs [from which second, USD per hour]."""
    if value is None:
        return None
    pairs = value if isinstance(value, list | tuple) else [(0.0, value)]
    try:
        series = tuple(
            (_plain_number(start_s, seconds_of), _plain_number(price, number_of)) for start_s, price in pairs
        )
    except (TypeError, ValueError) as error:
        also = ", or a list of pairs [start_s, usd_per_hour]" if isinstance(value, list | tuple) else ""
        raise ValueError(f"must be a number{also}") from error
    return series if isinstance(value, list | tuple) else series[0][1]


USD_PER_HOUR = Range(0, 1e6)
PriceForm = Annotated[
    float | tuple[tuple[Annotated[float, SECONDS], Annotated[float, USD_PER_HOUR]], ...] | None,
    BeforeValidator(_price_form),
]


def _plain_number(value: object, read: Callable[[str], float]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(value)
    return float(read(value) if isinstance(value, str) else value)


def _series_of(key: str, pairs: tuple[tuple[float, float], ...]) -> PriceSeries:
    try:
        return PriceSeries(tuple(start_s for start_s, _ in pairs), tuple(usd_per_hour for _, usd_per_hour in pairs))
    except InputError as error:
        raise InputError(f"cloud.instance_type.{key}: {error}") from error


class InstanceTypeSpec(Section):
    """A machine: a name from the price catalogue, or price and GPUs."""

    name: Annotated[str | None, "its name in the price catalogue; or give price and GPUs instead"] = None
    price_usd_per_hour: Annotated[
        PriceForm, USD_PER_HOUR, "a number, or a series `[[0, 3.1], [3600, 2.8]]` by seconds of the run"
    ] = None
    spot_price_usd_per_hour: Annotated[PriceForm, USD_PER_HOUR, "its price on the spot market, in the same forms"] = (
        None
    )
    gpus_per_instance: Annotated[Count | None, GPUS, "GPUs of one machine"] = None

    def instance_type(self, prices: str | None = None, region: str | None = None) -> InstanceType:
        """The machine in the words of `sim`.

        Args:
            prices: the price catalogue, None for the shipped one.
            region: where it is rented.

        Raises:
            InputError: the name or the region is unknown, or price or GPUs are missing or out of range.
        """
        inline = (self.price_usd_per_hour, self.spot_price_usd_per_hour, self.gpus_per_instance)
        if self.name is not None and inline == (None, None, None):
            return catalogued(self.name, prices, region)
        if self.price_usd_per_hour is None or self.gpus_per_instance is None:
            missing = "price_usd_per_hour" if self.price_usd_per_hour is None else "gpus_per_instance"
            raise InputError(f"cloud.instance_type.{missing} is missing")
        by_market = {ON_DEMAND: _price_of("price_usd_per_hour", self.price_usd_per_hour)}
        if self.spot_price_usd_per_hour is not None:
            by_market[SPOT] = _price_of("spot_price_usd_per_hour", self.spot_price_usd_per_hour)
        return InstanceType(self.name or "inline", self.gpus_per_instance, by_market)


def catalogued(name: str, prices: str | None, region: str | None) -> InstanceType:
    """The machine of this name in a catalogue, None for the shipped one."""
    if prices is not None:
        return offer_named(name, load_offers(Path(prices)), region, where=f"{prices}: ").instance_type
    hint = "or give gpus_per_instance and price_usd_per_hour inline, or a catalogue as cloud.prices"
    return offer_named(name, shipped_offers(), region, hint=hint).instance_type


def _price_of(key: str, price: float | tuple[tuple[float, float], ...]) -> Price:
    return _series_of(key, price) if isinstance(price, tuple) else price
