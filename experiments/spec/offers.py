"""The same job on several kinds of machines, of which one is to be chosen. Imports experiments.spec.run and sim.model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from elastune.experiments.spec.run import RunSpec
from elastune.experiments.spec.yaml_file import put
from elastune.sim.model.errors import InputError
from elastune.sim.model.node_scaling import unstated_gangs
from elastune.sim.model.price_series import Price, PriceSeries
from elastune.sim.model.prices import ON_DEMAND, SPOT
from elastune.traces import load_offers, scaling_of, shipped_offers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elastune.sim.model.scaling import Scaling


def within_machines(spec: RunSpec, scaling: Scaling) -> tuple[RunSpec, str]:
    """The spec without gangs that are larger than a machine, where nothing says what the network between machines costs.

    A choice among machines would else go to the smallest: they look as fast as large ones, and may be had one by one.

    Args:
        spec: on its kind of machine.
        scaling: of its workload.

    Returns:
        The spec, and what was left out in words; the spec as it is, and nothing, where all gangs are stated.
    """
    machine = spec.cloud.price_book(data_bytes=0.0).default_type
    whole = machine.gpus_per_instance
    if not unstated_gangs(scaling, whole, scaling.max_gpus):
        return spec, ""
    inline = {str(gpus): scaling.speedup(gpus) for gpus in range(1, whole + 1)}
    mapping = spec.to_dict()
    put(mapping, ["workload", "scaling"], inline, "workload.scaling")
    told = (
        f"{machine.name}: gangs of more than {whole} GPU{'' if whole == 1 else 's'} are left out, as nothing says what the"
        f" network between machines costs; state it by GPUs and nodes, as in workload.scaling={{1: 1, {2 * whole}x2: 1.7}}"
    )
    return RunSpec.of(**mapping), told


def believed_within(specs: Iterable[RunSpec]) -> tuple[list[RunSpec], list[str]]:
    """Each of several specs to choose among as `within_machines` makes it, and what to know of them in words."""
    pairs = [within_machines(spec, scaling_in_use(spec)) for spec in specs]
    within = [spec for spec, _ in pairs]
    return within, [*(told for _, told in pairs if told), *believed_as_fast(within)]


def believed_as_fast(specs: Iterable[RunSpec]) -> list[str]:
    """Which accelerators are taken to be equally fast, in words: those of machines for which the same seconds are given."""
    by_seconds: dict[float | None, dict[str, str]] = {}
    for spec in specs:
        machine, catalogue = spec.cloud.price_book(data_bytes=0.0).default_type.name, spec.cloud.prices
        offers = shipped_offers() if catalogue is None else load_offers(Path(catalogue))
        for gpu in {offer.gpu for offer in offers if offer.name == machine and offer.gpu}:
            by_seconds.setdefault(spec.workload.iteration_s, {}).setdefault(gpu, machine)
    return [
        f"{', '.join(f'{gpu} ({machine})' for gpu, machine in machines.items())}: an iteration is taken to last as long on each"
        f" of these GPUs; where it does not, say how long, as in --types {next(iter(machines.values()))}:iteration_s=60,..."
        for machines in by_seconds.values()
        if len(machines) > 1
    ]


def scaling_in_use(spec: RunSpec) -> Scaling:
    """That of the spec, or of its bundle.

    Raises:
        InputError: neither has one.
    """
    given = spec.workload.scaling
    scaling = spec.bundle().scaling if given is None and spec.workload.bundle is not None else None
    if given is not None:
        scaling = scaling_of(cast("str", given))
    if scaling is None:
        raise InputError(
            "workload.scaling is missing: say how speed grows with GPUs, as a table's name or {1: 1, 2: 1.7}"
        )
    return scaling


def at_prices(spec: RunSpec, factor: float) -> RunSpec:
    """The spec with all prices of its machine times a factor."""
    machine = spec.cloud.price_book(data_bytes=0.0).default_type

    def times(price: Price) -> object:
        if not isinstance(price, PriceSeries):
            return price * factor
        return [[at_s, usd * factor] for at_s, usd in zip(price.start_s, price.usd_per_hour, strict=True)]

    keys = {ON_DEMAND: "price_usd_per_hour", SPOT: "spot_price_usd_per_hour"}
    prices = {keys[market]: times(price) for market, price in machine.usd_per_hour.items()}
    inline = {"name": machine.name, "gpus_per_instance": machine.gpus_per_instance, **prices}
    mapping = spec.to_dict()
    put(mapping, ["cloud", "instance_type"], inline, "cloud.instance_type")
    return RunSpec.of(**mapping)
