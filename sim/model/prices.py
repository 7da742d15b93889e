"""What the cloud charges and allows: instance types, billing rule, quota. Imports only the standard library and msgspec."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import msgspec

from elastune.sim.model.errors import InputError
from elastune.sim.model.price_series import Price, PriceSeries, highest, price_at, require_price

ON_DEMAND = "on-demand"
SPOT = "spot"
"""The market whose instances the provider may take back."""
MIXED = "mixed"
"""Not a market, but what a job may be rented on: spot first, on demand for the last rungs."""

Pool: TypeAlias = tuple[str, str]
"""Name of an instance type, and market."""
SECONDS_PER_HOUR = 3600.0
MOST_GPUS_PER_INSTANCE = 1_000
"""The largest machine [ours]; the controller lists free GPUs by their number."""
HOURS_PER_MONTH = 730.0
"""As the providers count: 365 x 24 / 12."""


class InstanceType(msgspec.Struct, frozen=True):
    """A kind of machine.

    Attributes:
        usd_per_hour: the whole machine's price by market ("on-demand", "spot"), constant or as a series.
    """

    name: str
    gpus_per_instance: int
    usd_per_hour: dict[str, Price]

    def __post_init__(self) -> None:
        if not 1 <= self.gpus_per_instance <= MOST_GPUS_PER_INSTANCE:
            raise InputError(
                f"instance type {self.name}: gpus_per_instance is {self.gpus_per_instance}, but must be between 1 and"
                f" {MOST_GPUS_PER_INSTANCE}"
            )
        if not self.usd_per_hour:
            raise InputError(f"instance type {self.name}: no price is given")
        for market, price in self.usd_per_hour.items():
            if not isinstance(price, PriceSeries):
                require_price(f"instance type {self.name}, {market}", price)


class BillingRule(msgspec.Struct, frozen=True):
    """How use becomes a bill.

    A machine is queued for, boots and is set up before it can train. Its bill begins with the first of these that is
    billed, or with its readiness, and has no gaps. Each quantum of a price series is charged at the price that holds when the
    quantum begins; without granularity the series is integrated.

    Attributes:
        granularity_s: use is rounded up to a multiple of this; 0 for no rounding.
        minimum_s: the least use that is billed, per lease (or per function call).
        bills_startup: whether the time between launch and readiness is billed.
        model: "per-instance" bills leases; "per-function" bills each segment's GPU-seconds and idle machines nothing.
        bills_queue: whether the time between request and launch is billed.
        bills_setup: whether the set-up after boot is billed; None: as `bills_startup`.
        free_if_reclaimed_within_s: a machine that the provider takes back sooner than this after its bill began is free.
    """

    granularity_s: float = 1.0
    minimum_s: float = 60.0
    bills_startup: bool = True
    model: Literal["per-instance", "per-function"] = "per-instance"
    bills_queue: bool = False
    bills_setup: bool | None = None
    free_if_reclaimed_within_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("granularity_s", "minimum_s", "free_if_reclaimed_within_s"):
            seconds = getattr(self, name)
            if not (math.isfinite(seconds) and seconds >= 0):
                raise InputError(f"billing.{name} is {seconds}, but must be a number >= 0")
        for earlier, later in (("bills_queue", "bills_startup"), ("bills_startup", "bills_setup")):
            if getattr(self, earlier) and getattr(self, later) is False:
                raise InputError(
                    f"billing.{earlier} is true and billing.{later} is false, but a bill that has begun runs on: set both"
                    " to true, or the first to false"
                )

    @property
    def is_setup_billed(self) -> bool:
        """Whether the set-up is billed."""
        return self.bills_startup if self.bills_setup is None else self.bills_setup

    def billed_s(self, used_s: float) -> float:
        """Seconds that are billed for `used_s` seconds of use."""
        billed_s = max(used_s, self.minimum_s)
        if self.granularity_s > 0:
            # The tolerance keeps 60.000000001 s, a sum of rounded floats, from costing another quantum.
            billed_s = math.ceil(billed_s / self.granularity_s - 1e-9) * self.granularity_s
        return billed_s


class PriceBook(msgspec.Struct, frozen=True):
    """What a policy knows of the cloud's terms. Price changes are known in advance.

    Attributes:
        instance_types: what may be rented; the first is the default.
        max_instances: the account's quota.
        release_s: seconds from giving an instance back to the end of its bill.
        data_gb: what every machine loads when it is launched.
        ingress_usd_per_gb: price of loading it.
        storage_usd_per_gb_month: price of keeping it, from the start of the run to its end.
        head_node_usd_per_hour: price of the machine that runs the tuner, from the start of the run to its end. It is billed as
            used, because no run is short enough for its minimum to matter.
        market: the default where an action names no market: "on-demand", "spot", or "mixed".
        on_demand_rungs: on "mixed", how many of the last rungs are trained on demand.
        fail_over: pools that are tried in this order when a request is refused.
    """

    instance_types: tuple[InstanceType, ...]
    billing: BillingRule = BillingRule()
    max_instances: int = 32
    release_s: float = 0.0
    data_gb: float = 0.0
    ingress_usd_per_gb: float = 0.0
    storage_usd_per_gb_month: float = 0.0
    head_node_usd_per_hour: float = 0.0
    market: Literal["on-demand", "spot", "mixed"] = "on-demand"
    on_demand_rungs: int = 1
    fail_over: tuple[Pool, ...] = ()

    def __post_init__(self) -> None:
        if not self.instance_types:
            raise InputError("the price book names no instance type")
        if self.max_instances < 1:
            raise InputError(f"max_instances is {self.max_instances}, but must be at least 1")
        for name in ("data_gb", "ingress_usd_per_gb", "storage_usd_per_gb_month", "head_node_usd_per_hour"):
            number = getattr(self, name)
            if not (math.isfinite(number) and number >= 0):
                raise InputError(f"{name} is {number}, but must be a number >= 0")
        if self.on_demand_rungs < 1:
            raise InputError(f"on_demand_rungs is {self.on_demand_rungs}, but must be at least 1")
        self.usd_per_hour()
        for pool in self.fail_over:
            self._check_fail_over(pool)

    def _check_fail_over(self, pool: Pool) -> None:
        self.usd_per_hour(*pool)
        other, first = self.type_named(pool[0]), self.default_type
        if other.gpus_per_instance != first.gpus_per_instance:
            raise InputError(
                f"fail_over names {other.name} with {other.gpus_per_instance} GPUs, but {first.name} has"
                f" {first.gpus_per_instance}: plans count whole machines, so name types of the same size"
            )

    @property
    def default_type(self) -> InstanceType:
        """The instance type for actions that name none."""
        return self.instance_types[0]

    @property
    def ingress_usd(self) -> float:
        """What one machine's loading of the data costs."""
        return self.data_gb * self.ingress_usd_per_gb

    @property
    def storage_usd_per_hour(self) -> float:
        """What keeping the data costs."""
        return self.data_gb * self.storage_usd_per_gb_month / HOURS_PER_MONTH

    @property
    def standing_usd_per_hour(self) -> float:
        """What the run costs whether it holds machines or not: head node and storage."""
        return self.head_node_usd_per_hour + self.storage_usd_per_hour

    def type_named(self, name: str | None) -> InstanceType:
        """The instance type of this name, the default for None.

        Raises:
            InputError: there is none of this name.
        """
        if name is None:
            return self.instance_types[0]
        for instance_type in self.instance_types:
            if instance_type.name == name:
                return instance_type
        known = ", ".join(instance_type.name for instance_type in self.instance_types)
        raise InputError(f"there is no instance type {name!r}; known: {known}")

    def price(self, name: str | None = None, market: str | None = None) -> Price:
        """Price of one instance, constant or as a series. A job on both markets gets the dearer price where none is named.

        Raises:
            InputError: the type is unknown, or has no price on this market.
        """
        market = market or self.market
        if market == MIXED:
            return max((self.price(name, one) for one in (ON_DEMAND, SPOT)), key=highest)
        instance_type = self.type_named(name)
        price = instance_type.usd_per_hour.get(market)
        if price is None:
            raise InputError(f"instance type {instance_type.name} has no {market} price")
        return price

    def usd_per_hour(self, name: str | None = None, market: str | None = None, at_s: float = 0.0) -> float:
        """Price of one instance at a time.

        Raises:
            InputError: the type is unknown, or has no price on this market.
        """
        return price_at(self.price(name, market), at_s)

    def at_highest(self, until_s: float | None = None) -> PriceBook:
        """A copy in which each price is constant: the highest that it reaches by `until_s`, an upper bound on what is paid.

        Args:
            until_s: end of the time that counts; None for all time.
        """
        end_s = math.inf if until_s is None else until_s
        prices = [price for kind in self.instance_types for price in kind.usd_per_hour.values()]
        if not any(isinstance(price, PriceSeries) for price in prices):
            return self
        kinds = tuple(
            msgspec.structs.replace(
                kind,
                usd_per_hour={market: highest(price, 0.0, end_s) for market, price in kind.usd_per_hour.items()},
            )
            for kind in self.instance_types
        )
        return msgspec.structs.replace(self, instance_types=kinds)

    def paid_until_s(self, deadline_s: float | None) -> float | None:
        """The last time at whose price a run that ends by the deadline may have to pay; None for ever.

        Release latency and minimum charge reach beyond the deadline.
        """
        return None if deadline_s is None else deadline_s + self.release_s + self.billing.minimum_s

    @property
    def dearest_usd_per_hour(self) -> float:
        """Price of the dearest machine that the job may hold."""
        return max((self.usd_per_hour(), *(self.usd_per_hour(*pool) for pool in self.fail_over)))

    def pool(self, name: str | None = None, market: str | None = None) -> Pool:
        """The pool that an action means. Where it names no market, a job on both markets means spot."""
        named = market or self.market
        return self.type_named(name).name, SPOT if named == MIXED else named
