"""How much processor time planners take; printed, not asserted."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from rows import median_s

from elastune.policies.planning.frontier import frontier, frontier_of
from elastune.policies.planning.plan import Terms
from elastune.policies.rules.halving import explicit_stages
from elastune.sim.model.prices import BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import Delay, Profile, Startup, Stragglers, Timings
from elastune.sim.model.scaling import TableScaling

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


def median_ms(work, repeats=7):
    return 1e3 * median_s(work, repeats)


@pytest.mark.parametrize("space", ["fair", "wide"])
@pytest.mark.parametrize(("stages", "shape"), [(HALVED, "halved"), (UNEVEN, "uneven")], ids=["halved", "uneven"])
@pytest.mark.parametrize("scaling", [SMALL_GANGS, LARGE_GANGS], ids=["gangs to 8", "gangs to 64"])
def test_frontier_of_ten_stages_512_trials_512_gpus(space, stages, shape, scaling, capsys):
    found = frontier(stages, terms(scaling), space=space)
    took_ms = median_ms(lambda: frontier(stages, terms(scaling), space=space))
    with capsys.disabled():
        print(f"\nfrontier, {space}, {shape}, gangs to {scaling.max_gpus}: {len(found)} plans in {took_ms:.1f} ms")  # noqa: T201


@pytest.mark.parametrize("space", ["fair", "wide"])
@pytest.mark.parametrize("startup_cv", [0.0, 0.1], ids=["even starts", "spread starts"])
@pytest.mark.parametrize("scaling", [SMALL_GANGS, LARGE_GANGS], ids=["gangs to 8", "gangs to 64"])
def test_frontier_of_percentiles(space, startup_cv, scaling, capsys):
    known = with_spread_starts(terms(scaling, Stragglers(0.1, 0.3)), startup_cv)
    found = frontier(HALVED, known, space=space, makespan="p95")
    took_ms = median_ms(lambda: frontier(HALVED, known, space=space, makespan="p95"), repeats=1)
    with capsys.disabled():
        what = f"p95, {space}, starts {startup_cv}, gangs to {scaling.max_gpus}"
        print(f"\n{what}: {len(found)} plans in {took_ms:.0f} ms")  # noqa: T201


def with_spread_starts(known, cv):
    startup = known.profile.startup
    return replace(known, profile=replace(known.profile, startup=replace(startup, init=replace(startup.init, cv=cv))))


SHORT_LEASES = BillingRule(minimum_s=60.0, bills_startup=False)
BY_THE_HOUR = BillingRule(granularity_s=3600.0, minimum_s=60.0)


@pytest.mark.filterwarnings("ignore::elastune.policies.planning.aged.InexactFrontierWarning")
@pytest.mark.parametrize(("stages", "shape"), [(HALVED, "halved"), (UNEVEN, "uneven")], ids=["halved", "uneven"])
@pytest.mark.parametrize("scaling", [SMALL_GANGS, LARGE_GANGS], ids=["gangs to 8", "gangs to 64"])
@pytest.mark.parametrize(
    ("rule", "iteration_s", "what"),
    [
        (SHORT_LEASES, 5.0, "minimum of 60 s"),
        (BY_THE_HOUR, 60.0, "by the hour"),
        (BY_THE_HOUR, 600.0, "by the hour, long"),
    ],
    ids=["minimum", "hourly", "hourly-long"],
)
def test_frontier_where_minimum_and_quanta_bind(stages, shape, scaling, rule, iteration_s, what, capsys):
    known = terms(scaling)
    plain = replace(known, profile=replace(known.profile, iteration_s=iteration_s))
    bound = replace(plain, price_book=msgspec.structs.replace(plain.price_book, billing=rule))
    plain_ms = median_ms(lambda: frontier(stages, plain), repeats=3)
    found = frontier(stages, bound)
    took_ms = median_ms(lambda: frontier(stages, bound), repeats=3)
    gap = max(plan.search_gap for plan in found)
    with capsys.disabled():
        row = f"{what}, {shape}, gangs to {scaling.max_gpus}: {len(found)} plans in {took_ms:.0f} ms"
        print(f"\n{row}, {took_ms / plain_ms:.1f} times the plain frontier, search gap up to {100 * gap:.0f} %")  # noqa: T201


def test_frontier_of_three_instance_types(capsys):
    one = terms(LARGE_GANGS)
    machines = [InstanceType(f"p3.{gpus}", gpus, {"on-demand": 3.06 * gpus}) for gpus in (1, 4, 8)]
    books = [
        msgspec.structs.replace(one.price_book, instance_types=(kind,), max_instances=512 // kind.gpus_per_instance)
        for kind in machines
    ]
    offered = [replace(one, price_book=book) for book in books]
    each_ms = [median_ms(lambda terms=terms: frontier(HALVED, terms), repeats=3) for terms in offered]
    took_ms = median_ms(lambda: frontier_of(HALVED, offered), repeats=3)
    with capsys.disabled():
        print(f"\nthree instance types: {took_ms:.0f} ms, {took_ms / max(each_ms):.1f} times the slowest of them")  # noqa: T201
