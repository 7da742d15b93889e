"""The `cloud` section of a run spec: what is rented, at which price, how long it takes to come, and what breaks.

Imports sim.model, sim.control.placement, the loaders of traces, and pydantic. Keys that a spec may leave out have no
default here where there is nothing to say: a spec that does not name them keeps its digest.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, model_validator

from elastune.experiments.spec.billing import BillingSpec, DataSpec
from elastune.experiments.spec.machine import USD_PER_HOUR, InstanceTypeSpec, catalogued
from elastune.experiments.spec.section import (
    ANY_SHARE,
    MACHINES,
    RATE,
    SECONDS,
    SPREAD,
    Count,
    Number,
    Range,
    Seconds,
    Section,
)
from elastune.experiments.spec.spot import SpotSpec, StepPairs, pair_form, pool_named, steps_of
from elastune.sim.control.placement import PlacementRule  # noqa: TC001  pydantic reads the annotations when the program runs
from elastune.sim.model.errors import InputError
from elastune.sim.model.price_series import PriceSeries
from elastune.sim.model.prices import MIXED, ON_DEMAND, SECONDS_PER_HOUR, SPOT, Pool, PriceBook
from elastune.sim.model.profile import CloudTruth, Contention, Delay, Faults, SlowNodes, Startup
from elastune.traces import startup_of

if TYPE_CHECKING:
    from elastune.sim.model.capacity import Steps

_DEFAULT_MAX_INSTANCES = 32


class DelaySpec(Section):
    """A waiting time: a log-normal one, or as recorded."""

    mean_s: Annotated[Seconds | None, SECONDS, "mean of a log-normal wait; a plain number means this key"] = None
    cv: Annotated[Number | None, SPREAD, "coefficient of variation of the wait (0)"] = None
    recorded_s: Annotated[tuple[Annotated[Seconds, SECONDS], ...] | None, "recorded waits, instead of mean and cv"] = (
        None
    )


class StartupSpec(Section):
    """How a machine comes up."""

    queue_s: DelaySpec = DelaySpec(mean_s=0.0, cv=0.0)
    init_s: DelaySpec = DelaySpec(mean_s=0.0, cv=0.0)
    setup_s: DelaySpec | None = None


class FaultsSpec(Section):
    """What breaks; see `sim.model.profile.Faults`."""

    instance_loss_per_hour: Annotated[Number, RATE, "how many times an hour a machine is lost"] = 0.0
    segment_failure_per_hour: Annotated[Number, RATE, "how many times an hour a training gang breaks"] = 0.0


class SlowNodesSpec(Section):
    """How machines differ in speed; see `sim.model.profile.SlowNodes`."""

    share: Annotated[Number, ANY_SHARE, "share of the machines that are slow"] = 0.0
    slowdown: Annotated[Number, Range(1, 1000), "how many times slower these are"] = 1.0
    cv: Annotated[Number, SPREAD, "coefficient of variation of the speed of all machines"] = 0.0


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
    market: Annotated[
        Literal["on-demand", "spot", "mixed"],
        "where machines are rented; `mixed` is spot, but on demand for the last rungs",
    ] = "on-demand"
    on_demand_rungs: Annotated[
        Count | None, Range(1, 1000), "how many of the last rungs `mixed` trains on demand (1)"
    ] = None
    spot: Annotated[SpotSpec | None, "how machines are taken back ([spot](spot.md))"] = None
    billing: Annotated[
        BillingSpec, "`aws`, `gcp` or `azure`, or the keys below, or `{provider: aws, ...}` ([costs](costs.md))"
    ] = BillingSpec()
    startup: Annotated[
        StartupSpec,
        "`fast`, `typical`, `slow`, as reported of a provider (`aws`, `gcp`, `azure`; `aws-image` and so on where the image"
        " holds the runtime), or `queue_s`, `init_s`, `setup_s`, each a number, `{mean_s, cv}` or `{recorded_s: [...]}`;"
        " these three may also stand in `cloud` itself",
    ] = StartupSpec()
    sync_s: Annotated[Seconds, SECONDS, "seconds that a barrier between two stages takes"] = 0.0
    rescale_s: Annotated[
        Seconds | None, SECONDS, "seconds to checkpoint and launch a trial that moves; default: the bundle's"
    ] = None
    max_instances: Annotated[Count | None, MACHINES, "the account's quota (32); or `max_gpus`"] = None
    max_gpus: Annotated[Count | None, Range(1, 2_000_000), "the account's quota in GPUs"] = None
    quota_ramp: Annotated[
        StepPairs | None,
        BeforeValidator(pair_form),
        "a quota that grows: `[[0, 4], [600, 32]]` is 4 machines at first, and 32 after 600 s",
    ] = None
    capacity: Annotated[
        Count | StepPairs | dict[str, Annotated[Count | StepPairs, CAPACITY]] | None,
        BeforeValidator(pair_form),
        CAPACITY,
        "how many machines the cloud has: a number, pairs as above, or either of them by pool (`p3.8xlarge/spot`)",
    ] = None
    when_refused: Annotated[
        Literal["refuse", "wait", "fail-over"] | None,
        "whether a request beyond the capacity is refused, waits, or goes to another pool",
    ] = None
    fail_over: Annotated[tuple[str, ...] | None, "the other pools, in the order in which they are asked"] = None
    faults: FaultsSpec = FaultsSpec()
    placement: Annotated[
        PlacementRule | None,
        BeforeValidator(_placement_form),
        "where gangs go: `on` as few machines as possible, `off` wherever there is room, or `spread` over many machines",
    ] = None
    head_node: Annotated[str | None, "the machine that runs the tuner, by its name in the catalogue"] = None
    head_node_usd_per_hour: Annotated[Number | None, USD_PER_HOUR, "the price of that machine, instead of its name"] = (
        None
    )
    data: Annotated[DataSpec | None, "the data set that machines load"] = None
    slow_nodes: Annotated[SlowNodesSpec | None, "how machines differ ([stragglers](stragglers.md))"] = None
    interference: Annotated[
        Number | None, SPREAD, "how much each other gang on a machine slows a gang; 0.1 is 10 %"
    ] = None
    store_writers: Annotated[
        Number | None, Range(1e-3, 1e6), "how many checkpoints can be written at once without slowing each other"
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
            (instance_type, *(catalogued(name, self.prices, self.region) for name in others)),
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
