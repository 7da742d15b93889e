"""The `cloud` section of a run spec: what is rented, at which price, how long it takes to come, and what breaks.

Imports sim.model, sim.control.placement, the loaders of traces, and pydantic. Keys that a spec may leave out have no
default here where there is nothing to say: a spec that does not name them keeps its digest.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, model_validator

from elastune.experiments.spec.billing import BillingSpec, DataSpec
from elastune.experiments.spec.section import (
    ANY_SHARE,
    GPUS,
    MACHINES,
    RATE,
    SECONDS,
    SPREAD,
    Count,
    Number,
    Range,
    Section,
)
from elastune.experiments.spec.spot import SpotSpec, StepPairs, pair_form, pool_named, steps_of
from elastune.sim.control.placement import PlacementRule  # noqa: TC001  pydantic reads the annotations when the program runs
from elastune.sim.model.errors import InputError
from elastune.sim.model.numbers import number_of
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import MIXED, ON_DEMAND, SECONDS_PER_HOUR, SPOT, InstanceType, PriceBook
from elastune.sim.model.profile import CloudTruth, Contention, Delay, Faults, SlowNodes, Startup
from elastune.traces import load_offers, offer_named, shipped_offers, startup_of

if TYPE_CHECKING:
    from elastune.sim.model.capacity import Steps
    from elastune.sim.model.price_series import Price
    from elastune.sim.model.prices import Pool

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


USD_PER_HOUR = Range(0, 1e6)
PriceForm = Annotated[
    float | tuple[tuple[Annotated[float, SECONDS], Annotated[float, USD_PER_HOUR]], ...] | None,
    BeforeValidator(_price_form),
]


def _plain_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(value)
    return float(number_of(value) if isinstance(value, str) else value)


def _series_of(key: str, pairs: tuple[tuple[float, float], ...]) -> PriceSeries:
    try:
        return PriceSeries(tuple(start_s for start_s, _ in pairs), tuple(usd_per_hour for _, usd_per_hour in pairs))
    except InputError as error:
        raise InputError(f"cloud.instance_type.{key}: {error}") from error


class InstanceTypeSpec(Section):
    """A machine: a name from the price catalogue, or price and GPUs."""

    name: Annotated[str | None, "of the price catalogue; or give price and GPUs"] = None
    price_usd_per_hour: Annotated[
        PriceForm, USD_PER_HOUR, "a number, or a series `[[0, 3.1], [3600, 2.8]]` by seconds of the run"
    ] = None
    spot_price_usd_per_hour: Annotated[PriceForm, USD_PER_HOUR, "the same for its spot market"] = None
    gpus_per_instance: Annotated[Count | None, GPUS, "of one machine"] = None

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
            return _catalogued(self.name, prices, region)
        if self.price_usd_per_hour is None or self.gpus_per_instance is None:
            missing = "price_usd_per_hour" if self.price_usd_per_hour is None else "gpus_per_instance"
            raise InputError(f"cloud.instance_type.{missing} is missing")
        by_market = {ON_DEMAND: _price_of("price_usd_per_hour", self.price_usd_per_hour)}
        if self.spot_price_usd_per_hour is not None:
            by_market[SPOT] = _price_of("spot_price_usd_per_hour", self.spot_price_usd_per_hour)
        return InstanceType(self.name or "inline", self.gpus_per_instance, by_market)


def _catalogued(name: str, prices: str | None, region: str | None) -> InstanceType:
    """The machine of this name in a catalogue, None for the shipped one."""
    if prices is not None:
        return offer_named(name, load_offers(Path(prices)), region, where=f"{prices}: ").instance_type
    hint = "or give gpus_per_instance and price_usd_per_hour inline, or a catalogue as cloud.prices"
    return offer_named(name, shipped_offers(), region, hint=hint).instance_type


def _price_of(key: str, price: float | tuple[tuple[float, float], ...]) -> Price:
    return _series_of(key, price) if isinstance(price, tuple) else price


class DelaySpec(Section):
    """A waiting time: a log-normal one, or as recorded."""

    mean_s: Annotated[Number | None, SECONDS, "mean of a log-normal wait; a plain number is this one"] = None
    cv: Annotated[Number | None, SPREAD, "its spread (0)"] = None
    recorded_s: Annotated[tuple[Annotated[Number, SECONDS], ...] | None, "or waits as they were recorded"] = None


class StartupSpec(Section):
    """How a machine comes up."""

    queue_s: DelaySpec = DelaySpec(mean_s=0.0, cv=0.0)
    init_s: DelaySpec = DelaySpec(mean_s=0.0, cv=0.0)
    setup_s: DelaySpec | None = None


class FaultsSpec(Section):
    """What breaks; see `sim.model.profile.Faults`."""

    instance_loss_per_hour: Annotated[Number, RATE, "how often a machine is lost"] = 0.0
    segment_failure_per_hour: Annotated[Number, RATE, "how often a gang breaks"] = 0.0


class SlowNodesSpec(Section):
    """How machines differ in speed; see `sim.model.profile.SlowNodes`."""

    share: Annotated[Number, ANY_SHARE, "of machines that are slow"] = 0.0
    slowdown: Annotated[Number, Range(1, 1000), "how many times slower they are"] = 1.0
    cv: Annotated[Number, SPREAD, "spread of the speed of all machines"] = 0.0


def _placement_form(value: object) -> object:
    """YAML reads on and off as true and false; on is what is meant where nothing is said."""
    if value is False:
        return "off"
    return None if value is True or value == "on" else value


CAPACITY = Range(0, 10_000)


class CloudSpec(Section):
    """What is rented, at which price, and how long it takes to come."""

    instance_type: Annotated[InstanceTypeSpec, "the machine: its name in the price catalogue, or the keys below"]
    prices: Annotated[str | None, "a price catalogue of your own"] = None
    region: Annotated[str | None, "where a machine of the catalogue is rented, if it has several"] = None
    market: Annotated[Literal["on-demand", "spot", "mixed"], "`mixed`: spot, and the last rungs on demand"] = (
        "on-demand"
    )
    on_demand_rungs: Annotated[Count | None, Range(1, 1000), "how many last rungs `mixed` trains on demand"] = None
    spot: Annotated[SpotSpec | None, "how machines are taken back ([spot](spot.md))"] = None
    billing: Annotated[
        BillingSpec, "`aws`, `gcp` or `azure`, or the keys below, or `{provider: aws, ...}` ([costs](costs.md))"
    ] = BillingSpec()
    startup: Annotated[
        StartupSpec,
        "`fast`, `typical`, `slow`, or `queue_s`, `init_s`, `setup_s`, each a number, `{mean_s, cv}` or `{recorded_s: [...]}`;"
        " these three may also stand in `cloud` itself",
    ] = StartupSpec()
    sync_s: Annotated[Number, SECONDS, "a barrier between stages"] = 0.0
    rescale_s: Annotated[Number | None, SECONDS, "checkpoint and launch of a trial that moves; the bundle's"] = None
    max_instances: Annotated[Count | None, MACHINES, "the account's quota (32); or `max_gpus`"] = None
    max_gpus: Annotated[Count | None, Range(1, 2_000_000), "the same in GPUs"] = None
    quota_ramp: Annotated[StepPairs | None, BeforeValidator(pair_form), "`[[0, 4], [600, 32]]`: the quota grows"] = None
    capacity: Annotated[
        Count | StepPairs | dict[str, Annotated[Count | StepPairs, CAPACITY]] | None,
        BeforeValidator(pair_form),
        CAPACITY,
        "how many machines there are: a number, pairs by seconds as above, or either of them by pool (`p3.8xlarge/spot`)",
    ] = None
    when_refused: Annotated[
        Literal["refuse", "wait", "fail-over"] | None,
        "whether a request beyond that is refused, waits, or goes elsewhere",
    ] = None
    fail_over: Annotated[tuple[str, ...] | None, "pools that are asked next"] = None
    faults: FaultsSpec = FaultsSpec()
    placement: Annotated[
        PlacementRule | None,
        BeforeValidator(_placement_form),
        "`on`: gangs on as few machines as they fit on; `off`: where there is room; `spread`",
    ] = None
    head_node: Annotated[str | None, "the machine that runs the tuner, by its name in the catalogue"] = None
    head_node_usd_per_hour: Annotated[Number | None, USD_PER_HOUR, "or its price"] = None
    data: Annotated[DataSpec | None, "what machines load"] = None
    slow_nodes: Annotated[SlowNodesSpec | None, "how machines differ ([stragglers](stragglers.md))"] = None
    interference: Annotated[Number | None, SPREAD, "how much gangs on one machine slow each other"] = None
    store_writers: Annotated[
        Number | None, Range(1e-3, 1e6), "so many checkpoints are written at once without slowing each other"
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _flat_forms(cls, value: object) -> object:
        """`queue_s`, `init_s` and `setup_s` beside `startup`, price and GPUs beside `instance_type`, and names for mappings."""
        if not isinstance(value, dict):
            return value
        cloud = dict(value)
        _fold_in(cloud, "startup", ("queue_s", "init_s", "setup_s"))
        _fold_in(cloud, "instance_type", ("price_usd_per_hour", "spot_price_usd_per_hour", "gpus_per_instance"))
        if isinstance(cloud.get("instance_type"), str):
            cloud["instance_type"] = {"name": cloud["instance_type"]}
        if "startup" in cloud and not isinstance(cloud["startup"], StartupSpec):
            cloud["startup"] = _startup_form(cloud["startup"])
        return cloud

    @model_validator(mode="after")
    def _say_what_they_need(self) -> Self:
        if (self.market != ON_DEMAND or self._may_become_spot()) and self.spot is None:
            raise InputError(
                "cloud.spot is missing: say how spot machines are taken back, by trace (a file) or lifetime.mean_s (by chance)"
            )
        if self.on_demand_rungs is not None and self.market != MIXED:
            raise InputError("cloud.on_demand_rungs is about cloud.market: mixed only")
        if (self.when_refused == "fail-over") and not self.fail_over:
            raise InputError("cloud.fail_over is missing: name what is asked for where a request is refused")
        if self.fail_over and self.when_refused not in (None, "fail-over"):
            raise InputError(f"cloud.fail_over is given, but cloud.when_refused is {self.when_refused}")
        return self

    def _may_become_spot(self) -> bool:
        return any(text == SPOT or text.endswith(f"/{SPOT}") for text in self.fail_over or ())

    def price_book(self, data_bytes: float | None = None) -> PriceBook:
        """What a policy knows of the cloud's terms.

        Args:
            data_bytes: size of the bundle's data set, where it says so.

        Raises:
            InputError: a price or a number is missing or out of range.
        """
        instance_type = self.instance_type.instance_type(self.prices, self.region)
        fail_over = tuple(pool_named("cloud.fail_over", text, self._pool) for text in self.fail_over or ())
        others = dict.fromkeys(name for name, _ in fail_over if name != instance_type.name)
        data = DataSpec(gb=0.0) if self.data is None else self.data
        if self.market != ON_DEMAND and SPOT not in instance_type.usd_per_hour:
            raise InputError(
                f"cloud.market is {self.market}, but {instance_type.name} has no spot price: give price_usd_per_hour and"
                " spot_price_usd_per_hour inline, or a catalogue that has one as cloud.prices"
            )
        return PriceBook(
            (instance_type, *(_catalogued(name, self.prices, self.region) for name in others)),
            self.billing.rule(),
            self._quota(instance_type.gpus_per_instance),
            data_gb=data.size_gb(data_bytes),
            ingress_usd_per_gb=data.ingress_usd_per_gb,
            storage_usd_per_gb_month=data.storage_usd_per_gb_month,
            head_node_usd_per_hour=self._head_node_usd_per_hour(),
            market=self.market,
            on_demand_rungs=self.on_demand_rungs or 1,
            fail_over=fail_over,
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

    @property
    def _pool(self) -> Pool:
        """What is asked for first."""
        name = self.instance_type.instance_type(self.prices, self.region).name
        return name, ON_DEMAND if self.market == ON_DEMAND else SPOT

    def truth(self, data_bytes: float | None = None) -> CloudTruth:
        """What really happens when a machine is rented.

        Args:
            data_bytes: size of the bundle's data set, where it says so.

        Raises:
            InputError: a number is out of range, or the spot trace is malformed.
        """
        return CloudTruth(
            self.startup_delays(data_bytes),
            self.fault_rates(),
            self._capacities(),
            quota=None if self.quota_ramp is None else steps_of("cloud.quota_ramp", self.quota_ramp),
            waits=self.when_refused == "wait",
            spot=None if self.spot is None else self.spot.truth(),
            slow_nodes=self.slow_machines(),
            contention=self.contention(),
        )

    def believed_mtbf_s(self) -> float:
        """Mean seconds for which a machine is held until it is lost, as far as the spec says how; infinite for ever."""
        held_s = math.inf if self.spot is None or self.market == ON_DEMAND else self.spot.believed_mtbf_s()
        rate_per_s = 1.0 / held_s + self.faults.instance_loss_per_hour / SECONDS_PER_HOUR
        return 1.0 / rate_per_s if rate_per_s else math.inf

    def _capacities(self) -> dict[Pool, Steps]:
        capacity = self.capacity
        if capacity is None:
            return {}
        if not isinstance(capacity, dict):
            return {self._pool: steps_of("cloud.capacity", capacity)}
        book = self.price_book(data_bytes=0.0)
        capacities = {}
        for text, value in capacity.items():
            pool = pool_named("cloud.capacity", text, self._pool)
            rented = [instance_type.name for instance_type in book.instance_types]
            if pool[0] not in rented:
                raise InputError(
                    f"cloud.capacity.{text}: this run asks for {', '.join(rented)} only; name others in cloud.fail_over, or"
                    " leave this one out"
                )
            book.usd_per_hour(*pool)
            capacities[pool] = steps_of(f"cloud.capacity.{text}", value)
        return capacities

    def _quota(self, gpus_per_instance: int) -> int:
        if self.quota_ramp is None:
            return self._final_quota(gpus_per_instance)
        most = max(steps_of("cloud.quota_ramp", self.quota_ramp).counts)
        if self.max_gpus is None and self.max_instances is None:
            return most
        if (quota := self._final_quota(gpus_per_instance)) != most:
            raise InputError(
                f"cloud.quota_ramp rises to {most} instances, but the quota is {quota}: leave one of them out"
            )
        return most

    def _final_quota(self, gpus_per_instance: int) -> int:
        if self.max_gpus is None:
            return _DEFAULT_MAX_INSTANCES if self.max_instances is None else self.max_instances
        if self.max_instances is not None:
            raise InputError("cloud.max_gpus and cloud.max_instances are both given: leave one of them out")
        if self.max_gpus < gpus_per_instance:
            raise InputError(
                f"cloud.max_gpus is {self.max_gpus}, but one instance has {gpus_per_instance} GPUs already"
            )
        instances = self.max_gpus // gpus_per_instance
        if instances not in MACHINES:
            raise InputError(
                f"cloud.max_gpus is {self.max_gpus}, which is {instances} instances, but there may be {MACHINES}"
            )
        return instances

    def startup_delays(self, data_bytes: float | None = None) -> Startup:
        """How machines come up; the data set is loaded in their set-up.

        Args:
            data_bytes: size of the bundle's data set, where it says so.

        Raises:
            InputError: data is to be loaded, and nobody says how much it is.
        """
        startup = startup_of(self.startup.model_dump(exclude_none=True))
        download_s = 0.0 if self.data is None else self.data.download_s(data_bytes)
        return replace(startup, setup=startup.setup.plus(download_s)) if download_s else startup

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
    phases = {"queue_s": startup.queue, "init_s": startup.init}
    if startup.setup.mean_s > 0:
        phases["setup_s"] = startup.setup
    return {key: _as_spec(delay) for key, delay in phases.items()}


def _as_spec(delay: Delay) -> dict[str, Any]:
    return {"recorded_s": delay.quantiles_s} if delay.quantiles_s else {"mean_s": delay.mean_s, "cv": delay.cv}
