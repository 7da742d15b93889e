"""`elastune init`: a commented spec for a bundle on a machine, to start from. Imports typer; the rest when needed."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from elastune.experiments.cli.completion import complete_bundle, complete_machine
from elastune.experiments.cli.numbers import count_option, number_option, seconds_option
from elastune.experiments.cli.options import out_option, print_notes
from elastune.experiments.cli.prices import Catalogue  # noqa: TC001  typer reads the annotations
from elastune.experiments.cli.tables import duration, number, say
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from elastune.traces import Bundle, Offer

_ETA = 3
_OF_BUNDLE = 4
"""A seed tries one of so many of the bundle's configurations: with more, the seeds would repeat each other."""
_SPARE_TIME, _SPARE_MONEY, _START_S = 1.25, 1.5, 150.0
"""Times the least, and what `typical` machines take to come."""


def init(  # noqa: PLR0913, PLR0917  the options of a command
    bundle: Annotated[
        str, typer.Argument(help="A name, or a bundle's folder.", autocompletion=complete_bundle, show_default=False)
    ],
    machine: Annotated[
        str,
        typer.Option(help="As its provider calls it; see elastune prices list.", autocompletion=complete_machine),
    ] = "p3.8xlarge",
    prices: Catalogue = None,
    scaling: Annotated[
        str | None,
        typer.Option(help="A name of elastune scaling list, a CSV file, or linear.", show_default="the bundle's"),
    ] = None,
    iteration_s: Annotated[
        float | None, seconds_option(help="Of an iteration on one GPU, such as 90s.", show_default="the bundle's")
    ] = None,
    trials: Annotated[
        int | None, count_option(help="Configurations to try.", show_default="a quarter of the bundle's, at least 8")
    ] = None,
    deadline: Annotated[
        float | None,
        seconds_option(help="Such as 2h.", show_default="1.25 times what one configuration takes on 1 GPU"),
    ] = None,
    budget: Annotated[
        float | None, number_option(help="In USD.", show_default="1.5 times what all rungs cost on busy GPUs")
    ] = None,
    out: Annotated[Path | None, out_option("The file to write; one that is there stays.", "<bundle>.yaml")] = None,
) -> None:
    """Write a commented spec of a bundle on a machine, which run, compare, plan and recommend take as it is."""
    from elastune.experiments.files import check_outputs, write_text
    from elastune.experiments.spec.places import make_beside, place_of_bundle
    from elastune.experiments.spec.run import RunSpec
    from elastune.traces import load_bundle
    from elastune.traces.formats.yaml_text import parse_yaml

    folder = place_of_bundle(bundle)
    recorded = load_bundle(folder)
    out = out or Path(f"{recorded.name}.yaml")
    if out.exists():
        raise InputError(f"{out}: is there already; name another file with -o, or remove it")
    check_outputs(out)
    count = trials or min(recorded.trials, max(8, recorded.trials // _OF_BUNDLE))
    needs = _Needs.of(recorded, machine, prices, count, _seconds(recorded, iteration_s, scaling))
    text = _text(
        recorded,
        needs,
        bundle=_named(bundle, out),
        scaling=None if scaling is None else _named(scaling, out),
        iteration_s=iteration_s,
        prices=None if prices is None else _named(str(prices), out),
        deadline_s=needs.deadline_s if deadline is None else deadline,
        budget_usd=needs.budget_usd if budget is None else budget,
    )
    mapping = cast("dict[str, Any]", parse_yaml(text, str(out)))
    make_beside(mapping, out.parent)
    spec = RunSpec.of(**mapping)
    recorded.draw(count, spec.seed)  # refuses more than there are
    recorded.require_covers(spec.job.tuning_job(recorded.direction))
    write_text(out, text)
    print_notes(spec.notes())
    say(f"written to {out}; next: elastune plan {out}, elastune compare {out}, elastune recommend {out}")


def _seconds(recorded: Bundle, iteration_s: float | None, scaling: str | None) -> float:
    """Seconds of an iteration on one GPU: as given, or the bundle's.

    Raises:
        InputError: nobody says them, or how speed grows with GPUs.
    """
    one_s = recorded.iteration_s if iteration_s is None else iteration_s
    if one_s is None:
        raise InputError(
            f"bundle {recorded.name} has no seconds: say how long an iteration takes, as --iteration-s 90s"
        )
    if scaling is None and recorded.scaling is None:
        raise InputError(
            f"bundle {recorded.name} has no scaling: say how speed grows with GPUs, by --scaling (a name of elastune scaling"
            " list, a CSV file with gpus and speedup, or linear)"
        )
    return one_s


def _named(given: str, out: Path) -> str:
    """What the spec calls a file or folder: its path from there; a name stays a name."""
    is_path = Path(given).is_absolute() or os.sep in given or Path(given).suffix
    return given if Path(given).is_absolute() or not is_path else os.path.relpath(given, out.parent)


@dataclass(frozen=True)
class _Needs:
    """What the job takes at least, and the limits that leave some room.

    Attributes:
        trials: that are tried.
        one_s: R iterations on one GPU.
        all_gpu_s: all rungs of successive halving on GPUs that never wait.
        offer: the machine.
        usd_per_gpu_s: its price.
    """

    trials: int
    one_s: float
    all_gpu_s: float
    offer: Offer
    usd_per_gpu_s: float

    @classmethod
    def of(cls, bundle: Bundle, machine: str, prices: Path | None, trials: int, iteration_s: float) -> _Needs:
        from elastune.policies.rules.halving import rungs
        from elastune.sim.model.job import TuningJob
        from elastune.sim.model.price_series import highest
        from elastune.sim.model.prices import ON_DEMAND, SECONDS_PER_HOUR
        from elastune.traces import load_offers, offer_named, shipped_offers

        job = TuningJob(trials=trials, min_iterations=1, max_iterations=bundle.max_iterations, reduction_factor=_ETA)
        offers = shipped_offers() if prices is None else load_offers(prices)
        offer = offer_named(machine, offers, None, where=f"{prices}: " if prices else "")
        kind = offer.instance_type
        usd_per_gpu_s = highest(kind.usd_per_hour[ON_DEMAND]) / kind.gpus_per_instance / SECONDS_PER_HOUR
        iterations = sum(stage.trials * stage.iterations for stage in rungs(job))
        return cls(trials, bundle.max_iterations * iteration_s, iterations * iteration_s, offer, usd_per_gpu_s)

    @property
    def deadline_s(self) -> float:
        return _rounded(_SPARE_TIME * self.one_s + _START_S)

    @property
    def budget_usd(self) -> float:
        start_gpu_s = _START_S * self.offer.instance_type.gpus_per_instance
        return _rounded(_SPARE_MONEY * (self.all_gpu_s + start_gpu_s) * self.usd_per_gpu_s)


def _rounded(value: float) -> float:
    """Up to two significant digits, or one of three."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.6g}")


def _text(
    recorded: Bundle,
    needs: _Needs,
    *,
    bundle: str,
    scaling: str | None,
    iteration_s: float | None,
    prices: str | None,
    deadline_s: float,
    budget_usd: float,
) -> str:
    from elastune.sim.model.price_series import highest
    from elastune.sim.model.prices import ON_DEMAND

    kind = needs.offer.instance_type
    gpus = f"{kind.gpus_per_instance} x {needs.offer.gpu or 'GPU'}"
    least_usd = needs.all_gpu_s * needs.usd_per_gpu_s
    of_bundle = recorded.iteration_s
    lines = [
        f"# Tune {recorded.name} on {kind.name}. Every key: docs/spec.md. Seconds may be written 90s, 30min, 2h.",
        "job:",
        f"  trials: {needs.trials}  # of the bundle's {recorded.trials} configurations, drawn by the seed",
        f"  max_iterations: {recorded.max_iterations}  # R, the whole of the recorded curves",
        f"  reduction_factor: {_ETA}  # eta: one of so many survives a rung",
        f"  deadline_s: {deadline_s:g}  # T; one configuration to R on 1 GPU takes {duration(needs.one_s)}",
        f"  budget_usd: {budget_usd:g}  # B; all rungs on GPUs that never wait cost {least_usd:.2f} USD",
        "workload:",
        f"  bundle: {json.dumps(bundle)}",
        f"  scaling: {json.dumps(scaling)}  # speed-up by GPUs; say how it was measured"
        if scaling is not None
        else "  # scaling: the bundle's own; or a name of `elastune scaling list`, a CSV, {1: 1, 2: 1.8, 4: 3.1}",
        f"  iteration_s: {iteration_s:g}  # on one GPU, instead of the bundle's"
        if iteration_s is not None
        else f"  # iteration_s: {number(of_bundle)} is the bundle's, on one GPU",
        "cloud:",
        *([] if prices is None else [f"  prices: {json.dumps(prices)}"]),
        f"  instance_type: {json.dumps(kind.name)}  # {gpus}, {number(highest(kind.usd_per_hour[ON_DEMAND]))} USD/h",
        f"  startup: {needs.offer.startup}  # fast, typical, slow, a provider's aws, gcp or azure, or queue_s and init_s",
        "  rescale_s: 10  # assumed: to save a trial and start it on other GPUs",
        "  max_instances: 32  # the account's quota",
        "policy: seer  # of `elastune run`; compare and recommend try all",
        "seed: 0",
    ]
    return "\n".join(lines) + "\n"
