"""The `cloud` section of a run spec: what is rented, at which price, how long it takes to come, and what breaks.

Imports sim.model, sim.placement, the loaders of traces, and pydantic.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from experiments.spec_sections import Count, NotNegative, Number, Section
from sim.model.errors import InputError
from sim.model.prices import ON_DEMAND, BillingRule, InstanceType, PriceBook
from sim.model.profile import Faults, Startup
from sim.placement import PlacementRule  # noqa: TC001  pydantic reads the annotations when the program runs
from traces import instance_type_named, startup_of

_DEFAULT_MAX_INSTANCES = 32


class InstanceTypeSpec(Section):
    """A machine: a name from the price catalogue, or price and GPUs."""

    name: str | None = None
    price_usd_per_hour: Number | None = None
    gpus_per_instance: Count | None = None

    def instance_type(self) -> InstanceType:
        """The machine in the words of `sim`.

        Raises:
            InputError: the name is unknown, or price or GPUs are missing or out of range.
        """
        if self.name is not None and self.price_usd_per_hour is None and self.gpus_per_instance is None:
            return instance_type_named(self.name)
        if self.price_usd_per_hour is None or self.gpus_per_instance is None:
            missing = "price_usd_per_hour" if self.price_usd_per_hour is None else "gpus_per_instance"
            raise InputError(f"cloud.instance_type.{missing} is missing")
        return InstanceType(self.name or "inline", self.gpus_per_instance, {ON_DEMAND: self.price_usd_per_hour})


class BillingSpec(Section):
    """How use becomes a bill; see `sim.model.prices.BillingRule`."""

    granularity_s: NotNegative = 1.0
    minimum_s: NotNegative = 60.0
    bills_startup: bool = True
    model: Literal["per-instance", "per-function"] = "per-instance"


class DelaySpec(Section):
    """A waiting time."""

    mean_s: Number
    cv: Number = 0.0


class StartupSpec(Section):
    """How a machine comes up."""

    queue_s: DelaySpec = DelaySpec(mean_s=0.0)
    init_s: DelaySpec = DelaySpec(mean_s=0.0)


class FaultsSpec(Section):
    """What breaks; see `sim.model.profile.Faults`."""

    instance_loss_per_hour: NotNegative = 0.0
    segment_failure_per_hour: NotNegative = 0.0


def _placement_form(value: object) -> object:
    """YAML reads on and off as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _market_form(value: object) -> object:
    if value in ("spot", "mixed"):
        raise ValueError("this version rents on-demand machines only; leave it out or set it to on-demand")
    return value


class CloudSpec(Section):
    """What is rented, at which price, and how long it takes to come."""

    instance_type: InstanceTypeSpec
    market: Annotated[Literal["on-demand"], BeforeValidator(_market_form)] = "on-demand"
    billing: BillingSpec = BillingSpec()
    startup: StartupSpec = StartupSpec()
    sync_s: NotNegative = 0.0
    rescale_s: NotNegative | None = None
    max_instances: Annotated[Count, Field(ge=1, le=10_000)] | None = None
    max_gpus: Annotated[Count, Field(ge=1)] | None = None
    faults: FaultsSpec = FaultsSpec()
    placement: Annotated[PlacementRule, BeforeValidator(_placement_form)] = "on"

    @model_validator(mode="before")
    @classmethod
    def _flat_forms(cls, value: object) -> object:
        """`queue_s` and `init_s` beside `startup`, price and GPUs beside `instance_type`, and names for mappings."""
        if not isinstance(value, dict):
            return value
        cloud = dict(value)
        _fold_in(cloud, "startup", ("queue_s", "init_s"))
        _fold_in(cloud, "instance_type", ("price_usd_per_hour", "gpus_per_instance"))
        if isinstance(cloud.get("instance_type"), str):
            cloud["instance_type"] = {"name": cloud["instance_type"]}
        if "startup" in cloud and not isinstance(cloud["startup"], StartupSpec):
            cloud["startup"] = _startup_form(cloud["startup"])
        return cloud

    def price_book(self) -> PriceBook:
        """What a policy knows of the cloud's terms.

        Raises:
            InputError: a price or a number is missing or out of range.
        """
        instance_type = self.instance_type.instance_type()
        billing = self.billing
        rule = BillingRule(billing.granularity_s, billing.minimum_s, billing.bills_startup, billing.model)
        return PriceBook((instance_type,), rule, self._quota(instance_type.gpus_per_instance))

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
        return startup_of(self.startup.model_dump())

    def fault_rates(self) -> Faults:
        """What breaks."""
        return Faults(self.faults.instance_loss_per_hour, self.faults.segment_failure_per_hour)


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
    return {key: {"mean_s": delay.mean_s, "cv": delay.cv} for key, delay in delays.items()}
