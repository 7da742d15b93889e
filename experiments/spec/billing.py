"""How use becomes a bill in a run spec: `cloud.billing` and `cloud.data`. Imports sim.model and pydantic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import model_validator

from elastune.experiments.spec.section import SECONDS, Number, Range, Seconds, Section
from elastune.sim.model.errors import InputError, unknown
from elastune.sim.model.prices import BillingRule

PROVIDERS: dict[str, dict[str, Any]] = {
    # Per second, 60 s at least; pending is free, running is billed, set-up included (secondary sources). An instance that EC2
    # itself interrupts in its first hour is free (EC2 user guide, "Billing for interrupted Spot Instances").
    "aws": {"granularity_s": 1.0, "minimum_s": 60.0, "bills_startup": True, "free_if_reclaimed_within_s": 3600.0},
    # Per second after the first minute (secondary source).
    "gcp": {"granularity_s": 1.0, "minimum_s": 60.0, "bills_startup": True},
    # Per second, 5 min at least since June 2025 (answer 2259765 of Microsoft's questions and answers).
    "azure": {"granularity_s": 1.0, "minimum_s": 300.0, "bills_startup": True},
}
"""Billing rules by provider, each figure with its source."""


class BillingSpec(Section):
    """How use becomes a bill; see `sim.model.prices.BillingRule`. A provider's name stands for its rule."""

    granularity_s: Annotated[Seconds, SECONDS, "use is rounded up to a multiple of this; 0 rounds nothing"] = 1.0
    minimum_s: Annotated[Seconds, SECONDS, "the shortest use that is billed"] = 60.0
    bills_startup: Annotated[bool, "whether a machine is billed from its launch on, before it is ready"] = True
    model: Annotated[Literal["per-instance", "per-function"], "what is billed: machines, or the GPUs that train"] = (
        "per-instance"
    )
    bills_queue: Annotated[bool | None, "whether a machine is billed from its request on (false)"] = None
    bills_setup: Annotated[bool | None, "whether a machine's set-up is billed (default: as its start-up)"] = None
    free_if_reclaimed_within_s: Annotated[
        Seconds | None, SECONDS, "a machine that is taken back within this time costs nothing"
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _provider(cls, value: object) -> object:
        """`aws`, or `{provider: aws, ...}` with what differs from its rule."""
        if isinstance(value, str):
            return _rule_of(value)
        if isinstance(value, dict) and "provider" in value:
            own = {key: given for key, given in value.items() if key != "provider"}
            return {**_rule_of(value["provider"]), **own}
        return value

    def rule(self) -> BillingRule:
        """The same in the words of `sim`.

        Raises:
            InputError: a bill would have gaps.
        """
        return BillingRule(
            self.granularity_s,
            self.minimum_s,
            self.bills_startup,
            self.model,
            bool(self.bills_queue),
            self.bills_setup,
            self.free_if_reclaimed_within_s or 0.0,
        )


def _rule_of(provider: object) -> dict[str, Any]:
    if not isinstance(provider, str) or provider not in PROVIDERS:
        raise unknown(
            "billing rule", str(provider), PROVIDERS, "or give granularity_s, minimum_s, bills_startup, model"
        )
    return PROVIDERS[provider]


class DataSpec(Section):
    """What machines load when they are launched, and what it costs to load and to keep."""

    gb: Annotated[Number | None, Range(0, 1e9), "size of the data set in 1e9 bytes; default: the bundle's"] = None
    download_gb_per_s: Annotated[
        Number | None, Range(1e-6, 1e6), "how fast a new machine loads it, in its set-up; left out, in no time"
    ] = None
    ingress_usd_per_gb: Annotated[Number, Range(0, 1e6), "price of loading it onto one machine"] = 0.0
    storage_usd_per_gb_month: Annotated[Number, Range(0, 1e6), "price of keeping it during the run"] = 0.0

    def download_s(self, data_bytes: float | None) -> float:
        """Seconds that a new machine loads the data; see `size_gb`."""
        return 0.0 if self.download_gb_per_s is None else self.size_gb(data_bytes) / self.download_gb_per_s

    def size_gb(self, data_bytes: float | None) -> float:
        """Gigabytes (1e9 bytes).

        Args:
            data_bytes: what the bundle says, None where it does not or there is none.

        Raises:
            InputError: nobody says how much it is.
        """
        if self.gb is not None:
            return self.gb
        if data_bytes is None:
            raise InputError("cloud.data.gb is missing: no bundle says how large its data is")
        return data_bytes / 1e9
