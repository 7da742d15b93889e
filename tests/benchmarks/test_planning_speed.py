"""How long planners take; printed, not asserted."""

from __future__ import annotations

import time

import numpy as np
import pytest

from policies.halving import explicit_stages
from policies.planning.estimate import estimate
from policies.planning.frontier import frontier
from policies.planning.plan import Allocation, Terms
from policies.planning.sampling import sample
from sim.model.prices import BillingRule, InstanceType, PriceBook
from sim.model.profile import Delay, Profile, Startup, Stragglers, Timings
from sim.model.scaling import TableScaling

pytestmark = pytest.mark.benchmark

HALVED = explicit_stages([(512 >> stage, 1 << stage) for stage in range(10)])
UNEVEN = explicit_stages(
    zip((500, 261, 139, 77, 41, 23, 13, 7, 3, 1), (1, 2, 3, 5, 8, 13, 21, 34, 55, 89), strict=True)
)
SMALL_GANGS = TableScaling({1: 1.0, 2: 1.7, 4: 2.55, 8: 3.1})
LARGE_GANGS = TableScaling({1: 1.0, 2: 1.9, 4: 3.6, 8: 6.5, 16: 11.0, 32: 17.0, 64: 24.0})
EVEN = Stragglers()


def terms(scaling=SMALL_GANGS, stragglers=EVEN):
    """512 GPUs on machines of four."""
    startup = Startup(Delay(5.0), Delay(60.0))
    profile = Profile(60.0, scaling, Timings(5.0, 1.0, 5.0), startup, stragglers, 2.0)
    return Terms(profile, PriceBook((InstanceType("p3.8xlarge", 4, {"on-demand": 12.24}),), BillingRule(), 128))


def best_ms(work, repeats=5):
    work()
    times_s = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - began_s)
    return 1e3 * min(times_s)


@pytest.mark.parametrize("space", ["fair", "wide"])
@pytest.mark.parametrize(("stages", "shape"), [(HALVED, "halved"), (UNEVEN, "uneven")], ids=["halved", "uneven"])
@pytest.mark.parametrize("scaling", [SMALL_GANGS, LARGE_GANGS], ids=["gangs to 8", "gangs to 64"])
def test_frontier_of_ten_stages_512_trials_512_gpus(space, stages, shape, scaling, capsys):
    found = frontier(stages, terms(scaling), space=space)
    took_ms = best_ms(lambda: frontier(stages, terms(scaling), space=space))
    with capsys.disabled():
        print(f"\nfrontier, {space}, {shape}, gangs to {scaling.max_gpus}: {len(found)} plans in {took_ms:.1f} ms")  # noqa: T201


@pytest.mark.parametrize("gpus", [512, 128], ids=["no waves", "waves"])
@pytest.mark.parametrize("stragglers", [EVEN, Stragglers(0.1, 0.3)], ids=["even", "stragglers"])
def test_a_thousand_samples_of_ten_stages(gpus, stragglers, capsys):
    sizes = [min(8, max(1, gpus // stage.trials)) for stage in HALVED]
    gangs = [min(stage.trials, gpus // size) for stage, size in zip(HALVED, sizes, strict=True)]
    allocations = [Allocation(s.trials, g * p, p, 4) for s, g, p in zip(HALVED, gangs, sizes, strict=True)]
    known, rng = terms(stragglers=stragglers), np.random.default_rng(0)
    plan = estimate(HALVED, allocations, known)
    took_ms = best_ms(lambda: sample(plan, known, 1000, rng))
    with capsys.disabled():
        print(f"\n1000 samples on {gpus} GPUs, stragglers {stragglers.any}: {took_ms:.1f} ms")  # noqa: T201
