"""The jobs of docs/planning.md: the frontier is that of brute force, and the page shows the costs that are planned."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from small_jobs import assert_same_curve, brute_force, fair_space, wide_space

from elastune.experiments.plans.plan_spec import load_plan_spec, planning_profile
from elastune.policies.planning.estimate import expected_s
from elastune.policies.planning.frontier import cheapest_by, frontier
from elastune.policies.planning.plan import Terms
from elastune.policies.planning.rubberband_search import rubberband_plan
from elastune.policies.planning.static import static_plan
from elastune.policies.rules.halving import rungs

DOCS = Path(__file__).parents[2] / "docs"


@functools.cache
def documented(name):
    """Stages and terms of an example, without its deadline."""
    spec = load_plan_spec(DOCS / "examples" / name)
    job = spec.job.tuning_job("minimize")
    return rungs(job), Terms.of(job, planning_profile(spec), spec.price_book()).without_limits()


def test_the_fair_frontier_of_the_small_job_is_that_of_brute_force():
    stages, terms = documented("plan_small.yaml")
    found = frontier(stages, terms, space="fair")
    assert len(found) > 5
    assert_same_curve(found, brute_force(fair_space, stages, terms))


def fastest_on_each_number(stage, index, terms):
    """Of the whole wide space of a stage: the fastest for each number of machines held, early or not."""
    best = {}
    for allocation in wide_space(stage, index, terms):
        seconds = expected_s(stage, allocation, terms, is_first=index == 0)
        key = (allocation.instances, allocation.is_prefetched)
        if key not in best or seconds < best[key][0]:
            best[key] = (seconds, allocation)
    return [allocation for _, allocation in best.values()]


@pytest.mark.parametrize("quota", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_the_wide_frontier_of_the_small_job_is_that_of_brute_force(quota):
    """On equally many machines a slower stage is dearer as well, so that only the fastest are combined."""
    stages, terms = documented("plan_small.yaml")
    terms = replace(terms, price_book=msgspec.structs.replace(terms.price_book, max_instances=quota))
    assert_same_curve(frontier(stages, terms), brute_force(fastest_on_each_number, stages, terms))


def shown_tables():
    """Of docs/planning.md: {(example, space): ([deadlines], {planner: [costs or None]})}."""
    tables, lines = {}, iter((DOCS / "planning.md").read_text(encoding="utf-8").splitlines())
    for line in lines:
        if not line.startswith("`elastune plan docs/examples/") or "--deadlines" not in line:
            continue
        words = line.strip("`").split()
        example, deadlines = (
            Path(words[2]).name,
            [float(part) for part in words[words.index("--deadlines") + 1].split(",")],
        )
        rows = [row.strip("| ").split("|") for row in itertools.takewhile(str.strip, itertools.islice(lines, 1, None))]
        costs = {name.strip(): [cost_of(cell) for cell in cells] for name, *cells in rows[2:]}
        tables[example, words[words.index("--space") + 1]] = (deadlines, costs)
    return tables


def cost_of(cell):
    return None if cell.strip() == "-" else float(cell.split()[0])


def test_the_page_shows_what_is_planned():
    tables = shown_tables()
    assert set(tables) == set(itertools.product(("plan_small.yaml", "plan_large.yaml"), ("fair", "wide")))
    for (example, space), (deadlines, costs) in tables.items():
        stages, terms = documented(example)
        found = frontier(stages, terms, space=space)
        planned = {
            f"frontier, {space}": lambda late, found=found: cheapest_by(found, late.deadline_s),
            "static": functools.partial(static_plan, stages, space=space),
            "rubberband, all": functools.partial(rubberband_plan, stages, space=space),
            "rubberband, next": functools.partial(rubberband_plan, stages, space=space, steps="next"),
        }
        for name, planner in planned.items():
            plans = [planner(replace(terms, deadline_s=deadline_s)) for deadline_s in deadlines]
            assert costs[name] == [None if plan is None else round(plan.cost_usd, 2) for plan in plans], (example, name)
