"""The `cloud` section of a run spec: what is rented, at which price, how long it takes to come, and what breaks.

Imports sim.model, sim.placement, the loaders of traces, and pydantic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from experiments.spec_billing import BillingSpec, DataSpec
from experiments.spec_sections import Count, NotNegative, Number, Section
from sim.model.errors import InputError
from sim.model.price_series import PriceSeries
from sim.model.prices import ON_DEMAND, InstanceType, PriceBook
from sim.model.profile import Contention, Faults, SlowNodes, Startup
from sim.placement import PlacementRule  # noqa: TC001  pydantic reads the annotations when the program runs
from traces import load_offers, offer_named, shipped_offers, startup_of

_DEFAULT_MAX_INSTANCES = 32


def _price_form(value: object) -> float | tuple[tuple[float, float], ...] | None:
    """A number, or a series of pairs [from which second, USD per hour]."""
    if value is None:
        return None
    pairs = value if isinstance(value, list | tuple) else [(0.0, value)]
    try:
        series = tuple((_plain_number(start_s), _plain_number(price)) for start_s, price in pairs)
    except (TypeError, ValueError) as error:
        also = ", or a list of pairs [start_s, usd_per_hour]" if isinstance(value, list | tuple) else ""
        raise ValueError(f"must be a number{also}") from error
    return series if isinstance(value, list | tuple) else series[0][1]


def _plain_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):  # YAML reads 1e3 as text
        raise TypeError(value)
    return float(value)


def _series_of(pairs: tuple[tuple[float, float], ...]) -> PriceSeries:
    try:
        return PriceSeries(tuple(start_s for start_s, _ in pairs), tuple(usd_per_hour for _, usd_per_hour in pairs))
    except InputError as error:
        raise InputError(f"cloud.instance_type.price_usd_per_hour: {error}") from error


class InstanceTypeSpec(Section):
    """A machine: a name from the price catalogue, or price and GPUs.

    Attributes:
        price_usd_per_hour: a number, or a series of pairs [from which second of the run, USD per hour].
    """

    name: str | None = None
    price_usd_per_hour: Annotated[float | tuple[tuple[float, float], ...] | None, BeforeValidator(_price_form)] = None
    gpus_per_instance: Count | None = None

    def instance_type(self, prices: str | None = None, region: str | None = None) -> InstanceType:
        """The machine in the words of `sim`.

        Args:
            prices: the price catalogue, None for the shipped one.
            region: where it is rented.

        Raises:
            InputError: the name or the region is unknown, or price or GPUs are missing or out of range.
        """
        if self.name is not None and self.price_usd_per_hour is None and self.gpus_per_instance is None:
            if prices is not None:
                return offer_named(self.name, load_offers(Path(prices)), region, where=f"{prices}: ").instance_type
            hint = "or give gpus_per_instance and price_usd_per_hour inline, or a catalogue as cloud.prices"
            return offer_named(self.name, shipped_offers(), region, hint=hint).instance_type
        if self.price_usd_per_hour is None or self.gpus_per_instance is None:
            missing = "price_usd_per_hour" if self.price_usd_per_hour is None else "gpus_per_instance"
            raise InputError(f"cloud.instance_type.{missing} is missing")
        price = self.price_usd_per_hour
        usd_per_hour = _series_of(price) if isinstance(price, tuple) else price
        return InstanceType(self.name or "inline", self.gpus_per_instance, {ON_DEMAND: usd_per_hour})


class DelaySpec(Section):
    """A waiting time."""

    mean_s: Number
    cv: Number = 0.0


class StartupSpec(Section):
    """How a machine comes up."""

    queue_s: DelaySpec = DelaySpec(mean_s=0.0)
    init_s: DelaySpec = DelaySpec(mean_s=0.0)
    setup_s: DelaySpec | None = None


class FaultsSpec(Section):
    """What breaks; see `sim.model.profile.Faults`."""

    instance_loss_per_hour: NotNegative = 0.0
    segment_failure_per_hour: NotNegative = 0.0


class SlowNodesSpec(Section):
    """How machines differ in speed; see `sim.model.profile.SlowNodes`."""

    share: NotNegative = 0.0
    slowdown: NotNegative = 1.0
    cv: NotNegative = 0.0


def _placement_form(value: object) -> object:
    """YAML reads on and off as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _market_form(value: object) -> object:
    if value in ("spot", "mixed"):
        raise ValueError("this version rents on-demand machines only; leave it out or set it to on-demand")
    return value


class CloudSpec(Section):
    """What is rented, at which price, and how long it takes to come.

    Attributes:
        prices: a price catalogue of one's own; see `traces/README.md`.
        region: where a machine of the catalogue is rented, if it has several.
        head_node: the machine that runs the tuner, by its name in the catalogue; or `head_node_usd_per_hour`.
    """

    instance_type: InstanceTypeSpec
    prices: str | None = None
    region: str | None = None
    market: Annotated[Literal["on-demand"], BeforeValidator(_market_form)] = "on-demand"
    billing: BillingSpec = BillingSpec()
    startup: StartupSpec = StartupSpec()
    sync_s: NotNegative = 0.0
    rescale_s: NotNegative | None = None
    max_instances: Annotated[Count, Field(ge=1, le=10_000)] | None = None
    max_gpus: Annotated[Count, Field(ge=1)] | None = None
    faults: FaultsSpec = FaultsSpec()
    placement: Annotated[PlacementRule, BeforeValidator(_placement_form)] = "on"
    head_node: str | None = None
    head_node_usd_per_hour: NotNegative | None = None
    data: DataSpec | None = None
    slow_nodes: SlowNodesSpec | None = None
    interference: NotNegative | None = None
    store_writers: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _flat_forms(cls, value: object) -> object:
        """`queue_s`, `init_s` and `setup_s` beside `startup`, price and GPUs beside `instance_type`, and names for mappings."""
        if not isinstance(value, dict):
            return value
        cloud = dict(value)
        _fold_in(cloud, "startup", ("queue_s", "init_s", "setup_s"))
        _fold_in(cloud, "instance_type", ("price_usd_per_hour", "gpus_per_instance"))
        if isinstance(cloud.get("instance_type"), str):
            cloud["instance_type"] = {"name": cloud["instance_type"]}
        if "startup" in cloud and not isinstance(cloud["startup"], StartupSpec):
            cloud["startup"] = _startup_form(cloud["startup"])
        return cloud

    def price_book(self, data_bytes: float | None = None) -> PriceBook:
        """What a policy knows of the cloud's terms.

        Args:
            data_bytes: size of the bundle's data set, where it says so.

        Raises:
            InputError: a price or a number is missing or out of range.
        """
        instance_type = self.instance_type.instance_type(self.prices, self.region)
        data = DataSpec(gb=0.0) if self.data is None else self.data
        return PriceBook(
            (instance_type,),
            self.billing.rule(),
            self._quota(instance_type.gpus_per_instance),
            data_gb=data.size_gb(data_bytes),
            ingress_usd_per_gb=data.ingress_usd_per_gb,
            storage_usd_per_gb_month=data.storage_usd_per_gb_month,
            head_node_usd_per_hour=self._head_node_usd_per_hour(),
        )

    def _head_node_usd_per_hour(self) -> float:
        if self.head_node is None:
            return self.head_node_usd_per_hour or 0.0
        if self.head_node_usd_per_hour is not None:
            raise InputError("cloud.head_node and cloud.head_node_usd_per_hour are both given: leave one of them out")
        price = InstanceTypeSpec(name=self.head_node).instance_type(self.prices, self.region).usd_per_hour[ON_DEMAND]
        if isinstance(price, PriceSeries):
            raise InputError(
                f"cloud.head_node: the price of {self.head_node} changes; give cloud.head_node_usd_per_hour"
            )
        return price

    def _quota(self, gpus_per_instance: int) -> int:
        if self.max_gpus is None:
            return _DEFAULT_MAX_INSTANCES if self.max_instances is None else self.max_instances
        if self.max_instances is not None:
            raise InputError("cloud.max_gpus and cloud.max_instances are both given: leave one of them out")
        if self.max_gpus < gpus_per_instance:
            raise InputError(
                f"cloud.max_gpus is {self.max_gpus}, but one instance has {gpus_per_instance} GPUs already"
            )
        return self.max_gpus // gpus_per_instance

    def startup_delays(self) -> Startup:
        """How machines come up."""
        return startup_of(self.startup.model_dump(exclude_none=True))

    def fault_rates(self) -> Faults:
        """What breaks."""
        return Faults(self.faults.instance_loss_per_hour, self.faults.segment_failure_per_hour)

    def slow_machines(self) -> SlowNodes:
        """How machines differ in speed.

        Raises:
            InputError: the share or the slowdown is out of range.
        """
        slow = self.slow_nodes
        try:
            return SlowNodes() if slow is None else SlowNodes(slow.share, slow.slowdown, slow.cv)
        except InputError as error:
            raise InputError(f"cloud.{error}") from error

    def contention(self) -> Contention:
        """How what runs side by side slows each other."""
        return Contention(self.interference or 0.0, self.store_writers)


def _fold_in(cloud: dict[str, Any], section: str, keys: tuple[str, ...]) -> None:
    flat = {key: cloud.pop(key) for key in keys if key in cloud}
    if flat and section in cloud:
        raise InputError(f"cloud.{next(iter(flat))} and cloud.{section} are both given: leave one of them out")
    if flat:
        cloud[section] = flat


def _startup_form(value: object) -> dict[str, Any]:
    try:
        startup = startup_of(cast("str", value))  # which checks whatever YAML held there
    except InputError as error:
        message = str(error)
        raise InputError(f"cloud.{message}" if message.startswith("startup") else message) from error
    delays = {"queue_s": startup.queue, "init_s": startup.init}
    if startup.setup.mean_s > 0:
        delays["setup_s"] = startup.setup
    return {key: {"mean_s": delay.mean_s, "cv": delay.cv} for key, delay in delays.items()}
