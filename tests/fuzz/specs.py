"""Random run specs: ordinary ones in which much can go wrong, and the same with values that nobody expects."""

from __future__ import annotations

from elastune.experiments.spec.run import RunSpec
from elastune.experiments.spec.section import Section
from elastune.policies.registry import POLICIES

_NUMBERS = [
    *(0, 1, 2, 3, 100, 10**4, 10**6, 2**31, 2**53 + 1, 2**63, 10**12, 10**30),
    *(0.5, 1e-300, 1e-9, 1e-3, 1.5, 1e9, 1e18, 1e300),
]
_OTHERS = [
    *(-1, -0.0, -1e-9, float("inf"), float("nan")),
    *("", "x", "1_0", "010", "1e3", "../x", "[red]", None, True, [], {}, [[0, 1], [5, 0]]),
]


_COUNTS = {
    *(
        "trials",
        "min_iterations",
        "max_iterations",
        "reduction_factor",
        "checkpoint_every",
        "max_instances",
        "max_gpus",
    ),
    *(
        "gpus_per_instance",
        "on_demand_rungs",
        "min_gpus",
        "seed",
        "shape",
        "share",
        "zones",
        "slowdown",
        "interference",
    ),
    *("store_writers", "score_noise", "gb", "capacity"),
}
"""Keys of numbers that do not say a unit at their end."""


def _one(rng, *values):
    return rng.choice(values)


def ordinary_spec(rng):
    """A small run on a shipped workload, on any policy and cloud."""
    tau = _one(rng, 1, 30, 600)
    job = {"trials": rng.randint(1, 12), "max_iterations": rng.randint(1, 9)}
    if rng.random() < 0.7:
        job["deadline_s"] = tau * rng.uniform(3, 100)
    if rng.random() < 0.7:
        job["budget_usd"] = tau * rng.uniform(0.002, 0.1)
    job |= _some(rng, reduction_factor=_one(rng, 2, 3, 4), checkpoint_every=_one(rng, 0, 1, 3, "auto"))
    workload = {"bundle": _one(rng, "digits-mlp", "mnist5k-cnn", "deepmoe-mnist5k"), "iteration_s": tau}
    if workload["bundle"] == "deepmoe-mnist5k":  # the one that records FLOPs beside its scores
        job |= _some(rng, constraint={"flops": 10 ** rng.uniform(4, 8)})
    workload["scaling"] = _one(rng, "linear", "resnet50-v100", {"amdahl": 0.2})
    workload |= _some(rng, straggler_cv=_one(rng, 0, 0.3), score_noise=_one(rng, 0, 0.1), evaluate_s=tau / 10)
    return {"job": job, "workload": workload, "cloud": _cloud(rng, tau), "policy": _one(rng, *sorted(POLICIES)),
            "seed": rng.randrange(1000)}  # fmt: skip


def with_durations_as_text(rng, spec):
    """The same spec, some of its seconds written with their unit."""
    return {key: _written(rng, key, value) for key, value in spec.items()}


def _written(rng, key, value):
    if isinstance(value, dict):
        return with_durations_as_text(rng, value)
    is_duration = key.endswith("_s") and isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value!r}{_one(rng, 's', ' s', '')}" if is_duration and rng.random() < 0.5 else value


def random_policy(rng):
    """Code of a policy that gives random answers, some of which are none."""
    numbers = [0, 0, 1, 1, 2, 3, "np.int64(1)", "np.array(2)", "R", "R"]
    odd = [-1, 1.5, 10**30, "float('nan')", "float('inf')", "'x'", "None", "True", "[1]", "1j", "np.float64('nan')"]
    numbers += rng.sample(odd, rng.randint(0, 2)) * rng.randint(0, 1)
    answers = _one(rng, *["[]"] * 6, "None", "7", "'x'", "[3]", "iter(())", "(x for x in ())", "sys.exit(1)")
    return f"""
import random, sys
import numpy as np
from elastune.sim.model.actions import FinishRun, PauseTrial, RunTrial, ScaleTo, SetTimer, StopTrial

class Mine:
    def __init__(self, job, profile, price_book, rng):
        self.random, R = random.Random({rng.randrange(10**6)}), job.max_iterations
        self.numbers = [{", ".join(map(str, numbers))}]

    def on_event(self, event, view):
        one, chance = self.random.choice, self.random.random()
        if type(event).__name__ == "RunStarted":
            return [ScaleTo(one(self.numbers)), RunTrial(0, 1, view.job.max_iterations)]
        if chance < 0.1:
            return {answers}
        if chance < 0.3:
            return [FinishRun(one([None, 0]))]
        kinds = [(PauseTrial, 1), (RunTrial, 3), (ScaleTo, 1), (StopTrial, 1)]
        made = [kind(*(one(self.numbers) for _ in range(count))) for kind, count in self.random.sample(kinds, 1)]
        return [*made, SetTimer("again", event.at_s + 10)]
"""


def spec_at_the_ends(rng):
    """A policy with parameters of its own, and limits, machines and prices far from what anybody meant."""
    spec = ordinary_spec(rng)
    spec["policy"] = ":".join([spec["policy"], *_parameters(rng, POLICIES[spec["policy"]])])
    tau = spec["workload"]["iteration_s"]
    spec["job"] |= {"trials": _one(rng, 1, 2, 12, 60, 128), "max_iterations": _one(rng, 1, 9, 27)}
    for key, unit in (("deadline_s", tau), ("budget_usd", tau / 1200)):
        spec["job"][key] = _one(rng, None, unit * 10 ** rng.uniform(-1, 1), unit * 10 ** rng.uniform(1, 6))
    # Many machines that are lost all the time until a far deadline take long, and end.
    loses = spec["cloud"]["market"] != "on-demand" or "faults" in spec["cloud"]
    spec["cloud"]["max_instances"] = _one(rng, 1, 1, 3) if loses else _one(rng, 1, 3, 40, 300, 3000)
    if rng.random() < 0.3:
        spec["cloud"]["billing"] = {
            "model": _one(rng, "per-instance", "per-function"),
            "granularity_s": _one(rng, 0, 1, 3600, 86400),
            "minimum_s": _one(rng, 0, 60, 3600),
        }
    return spec


def _parameters(rng, entry):
    """Some parameters of a policy, each at one of its values or at a number about its default."""
    for name, default in entry.parameters.items():
        if rng.random() < 0.4:
            values = entry.choices.get(name) or (default, 0, 1, 2, default * rng.uniform(0, 3) if default else 0.5)
            value = _one(rng, *values)
            whole = isinstance(default, int) and isinstance(value, float)
            yield f"{name}={str(int(value) if whole else value).lower()}"


def _some(rng, **values):
    return {key: value for key, value in values.items() if rng.random() < 0.3}


def _cloud(rng, tau):
    prices = {"price_usd_per_hour": 3, "spot_price_usd_per_hour": 1}
    if rng.random() < 0.2:
        prices["price_usd_per_hour"] = [[0, 3], [tau * 5, _one(rng, 0.5, 10)]]
    cloud = {"instance_type": {"name": "m", **prices, "gpus_per_instance": _one(rng, 1, 2, 4, 8)}}
    cloud |= {"rescale_s": _one(rng, 0.01, 1, tau), "market": _one(rng, "on-demand", "on-demand", "spot", "mixed")}
    cloud["spot"] = {"lifetime": {"mean_s": tau * _one(rng, 3, 30), "shape": _one(rng, 0.7, 1, 3)},
                     "notice_s": _one(rng, 0, 30, 120)}  # fmt: skip
    if rng.random() < 0.2:
        cloud["spot"]["bulk"] = {"per_hour": _one(rng, 0.5, 5), "share": _one(rng, 0.5, 1), "zones": 2}
    cloud |= _some(
        rng,
        queue_s=_one(rng, 0, tau),
        init_s=_one(rng, 0, 3 * tau),
        setup_s=tau,
        sync_s=tau / 5,
        max_instances=_one(rng, 1, 2, 8),
        billing={"granularity_s": _one(rng, 0, 1, 60, 3600), "minimum_s": _one(rng, 0, 60, 600)},
        capacity=_one(rng, 0, 1, [[0, 2], [tau * 10, 0]]),
        faults={"instance_loss_per_hour": _one(rng, 0, 5), "segment_failure_per_hour": _one(rng, 0, 20)},
        placement=_one(rng, "on", "off", "spread"),
        head_node_usd_per_hour=0.5,
        interference=0.2,
        store_writers=1,
        slow_nodes={"share": 0.3, "slowdown": 2},
    )
    if rng.random() < 0.2:
        cloud["billing"] = {"model": "per-function", "minimum_s": _one(rng, 0, 60)}
    return cloud


def _keys(model, prefix=()):
    """All keys of a section of the spec, as paths."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        for part in _sections_in(field.annotation):
            yield from _keys(part, (*prefix, name))


def _sections_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _sections_in(part)]


_KEYS = sorted(_keys(RunSpec))
_NUMERIC = [key for key in _KEYS if key[-1].endswith(("_s", "_usd", "_hour", "_cv", "cv", "_gb")) or key[-1] in _COUNTS]


def spec_with_extremes(rng):
    """An ordinary spec in which one key, or two, have odd values; most often large or small numbers."""
    spec = ordinary_spec(rng)
    for _ in range(_one(rng, 1, 1, 1, 2)):
        *parents, last = rng.choice(_NUMERIC if rng.random() < 0.8 else _KEYS)
        inner = spec
        for parent in parents:
            if not isinstance(inner.get(parent), dict):
                inner[parent] = {}
            inner = inner[parent]
        inner[last] = rng.choice(_NUMBERS if rng.random() < 0.8 else _OTHERS)
    return spec
