"""What the cloud charges and allows: instance types, billing rule, quota. Imports only the standard library and msgspec."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from sim.model.errors import InputError

ON_DEMAND = "on-demand"
SECONDS_PER_HOUR = 3600.0


class InstanceType(msgspec.Struct, frozen=True):
    """A kind of machine.

    Attributes:
        usd_per_hour: the whole machine's price by market ("on-demand", "spot").
    """

    name: str
    gpus_per_instance: int
    usd_per_hour: dict[str, float]

    def __post_init__(self) -> None:
        if self.gpus_per_instance < 1:
            raise InputError(
                f"instance type {self.name}: gpus_per_instance is {self.gpus_per_instance}, but must be >= 1"
            )
        if not self.usd_per_hour:
            raise InputError(f"instance type {self.name}: no price is given")
        for market, price in self.usd_per_hour.items():
            if not (math.isfinite(price) and price >= 0):
                raise InputError(f"instance type {self.name}: the {market} price is {price} USD/h, but must be >= 0")


class BillingRule(msgspec.Struct, frozen=True):
    """How use becomes a bill.

    Attributes:
        granularity_s: use is rounded up to a multiple of this; 0 for no rounding.
        minimum_s: the least use that is billed, per lease (or per function call).
        bills_startup: whether the time between launch and readiness is billed.
        model: "per-instance" bills leases; "per-function" bills each segment's GPU-seconds and idle machines nothing.
    """

    granularity_s: float = 1.0
    minimum_s: float = 60.0
    bills_startup: bool = True
    model: Literal["per-instance", "per-function"] = "per-instance"

    def __post_init__(self) -> None:
        for name, seconds in (("granularity_s", self.granularity_s), ("minimum_s", self.minimum_s)):
            if not (math.isfinite(seconds) and seconds >= 0):
                raise InputError(f"billing.{name} is {seconds}, but must be a number >= 0")

    def billed_s(self, used_s: float) -> float:
        """Seconds that are billed for `used_s` seconds of use."""
        billed_s = max(used_s, self.minimum_s)
        if self.granularity_s > 0:
            # The tolerance keeps 60.000000001 s, a sum of rounded floats, from costing another quantum.
            billed_s = math.ceil(billed_s / self.granularity_s - 1e-9) * self.granularity_s
        return billed_s


class PriceBook(msgspec.Struct, frozen=True):
    """What a policy knows of the cloud's terms.

    Attributes:
        instance_types: what may be rented; the first is the default.
        max_instances: the account's quota.
        release_s: seconds from giving an instance back to the end of its bill.
    """

    instance_types: tuple[InstanceType, ...]
    billing: BillingRule = BillingRule()
    max_instances: int = 32
    release_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.instance_types:
            raise InputError("the price book names no instance type")
        if self.max_instances < 1:
            raise InputError(f"max_instances is {self.max_instances}, but must be at least 1")

    @property
    def default_type(self) -> InstanceType:
        """The instance type that is meant where none is named."""
        return self.instance_types[0]

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

    def usd_per_hour(self, name: str | None = None, market: str | None = None) -> float:
        """Price of one instance.

        Raises:
            InputError: the type is unknown, or has no price on this market.
        """
        instance_type = self.type_named(name)
        price = instance_type.usd_per_hour.get(market or ON_DEMAND)
        if price is None:
            raise InputError(f"instance type {instance_type.name} has no {market or ON_DEMAND} price")
        return price
