"""What `elastune profile --gpus` prints for people. Imports rich; numbers arrive computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from elastune.experiments.cli.options import console

if TYPE_CHECKING:
    from elastune.experiments.profiling.estimates import Estimate
    from elastune.experiments.profiling.timing_profile import TimingProfile

_TOLD_FROM = 0.5
"""An interval that holds the median less surely than this is none."""


def print_timing(profile: TimingProfile) -> None:
    """Gangs, the seconds around training, spread, and how a spec takes them."""
    out, timing = console(), profile.timing
    gangs = Table(title=f"{profile.workload} on {_slots(profile)}: an iteration at relative cost 1, without evaluation")
    for heading in ("GPUs", "nodes", "seconds", "speed-up", "samples"):
        gangs.add_column(heading, justify="right")
    for shape, speedup in timing.speedups.items():
        seconds = _seconds(timing.train_s[shape])
        gangs.add_row(str(shape.gpus), str(shape.nodes), seconds, _interval(speedup), str(speedup.samples))
    out.print(gangs)
    around = Table(title="Around it: medians, and an interval that holds the true one so surely")
    for heading in ("what", "seconds", "surely", "samples"):
        around.add_column(heading, justify="left" if heading == "what" else "right")
    named = {
        "iteration with its evaluation, on one GPU": timing.iteration_s,
        "evaluation": timing.evaluate_s,
        "launch of a new trial": timing.launch_s,
        "launch from a checkpoint": timing.resume_s,
        f"checkpoint of {timing.checkpoint_bytes / 1e6:.3g} MB": timing.checkpoint_s,
        "rescale: the checkpoint, and a launch from it": timing.rescale_s,
    }
    init_s = profile.startup.get("init_s")
    if init_s is not None:
        named["node, from its launch to readiness"] = init_s
    for what, estimate in named.items():
        surely = f"{estimate.coverage:.0%}" if estimate.coverage >= _TOLD_FROM else "-"
        around.add_row(what, _seconds(estimate), surely, str(estimate.samples))
    out.print(around)
    spread = timing.spread
    out.print(
        f"spread of an iteration: {_share(spread.per_iteration)} within a segment, {_share(spread.workers)} between fresh"
        f" workers, {_share(spread.configurations)} between configurations beyond their relative costs"
    )
    for remark in profile.remarks:
        out.print(f"[yellow]note:[/] {remark}")
    out.print("In a spec:")
    out.print(f"  workload: {{bundle: {profile.folder}}}", markup=False, highlight=False)
    if init_s is not None:
        out.print(f"  cloud: {{startup: {{queue_s: 0, init_s: {init_s.value:.3g}}}}}", markup=False, highlight=False)
    else:
        out.print("  cloud.startup: what machines of your provider take; none was started for this")
    out.print(f"{profile.folder}", markup=False, highlight=False)


def _slots(profile: TimingProfile) -> str:
    found = profile.surroundings.measured_on
    return f"{found.get('gpu')}" if profile.plan.device == "cuda" else f"CPU slots of {found.get('cpu')}"


def _seconds(estimate: Estimate) -> str:
    return _interval(estimate)


def _interval(estimate: Estimate) -> str:
    if estimate.coverage < _TOLD_FROM or estimate.low == estimate.high:
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _share(cv: float | None) -> str:
    return "unknown" if cv is None else f"{cv:.0%}"
