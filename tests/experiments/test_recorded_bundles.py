"""Bundles that others recorded: they have no timings, and TaskSet's hold diverged runs and scores up to 1e34."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from elastune import RunSpec, compare
from elastune.experiments import figures
from elastune.experiments.plans.bundle_summary import curves_table, describe
from elastune.traces import load_bundle

NAMES = (
    "deepobs-cifar10-3c3d",
    "deepobs-cifar100-allcnnc",
    "deepobs-fmnist-2c2d",
    "taskset-patch128-lstm128-avg-bs64",
    "taskset-patch128-lstm128-embed128-bs64",
    "taskset-patch32-gru64-avg-bs128",
    "taskset-patch32-irnn64-relu-avg-bs128",
    "taskset-patch32-irnn64-relu-last-bs128",
    "taskset-patch32-lstm128-e128-bs128",
    "taskset-patch32-vrnn128-tanh-bs128",
    "taskset-patch32-vrnn64-relu-avg-bs128",
)
WILD = "taskset-patch32-irnn64-relu-avg-bs128"


def spec_of(folder):
    return RunSpec.of(
        job={"trials": 27, "max_iterations": 27, "deadline_s": 1800, "budget_usd": 12},
        workload={"bundle": str(folder), "scaling": "resnet50-v100", "iteration_s": 60},
        cloud={"instance_type": "p3.8xlarge", "startup": "fast", "rescale_s": 10},
        policy="seer",
    )


def test_all_of_them_are_named_here(shared_data):
    assert sorted(folder.name for folder in (shared_data / "bundles").iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_bundle_runs_and_compares(shared_data, name):
    folder = shared_data / "bundles" / name
    comparison = compare(spec_of(folder), ["seer", "asha-fixed"], seeds=3, jobs=1)
    done = comparison.results
    assert not comparison.failed
    assert done["status"].tolist() == ["done"] * 6
    assert done["deadline_met"].all()
    assert done["budget_met"].all()
    # Regret is over the distance from median to best, which no diverged run may stretch: nobody loses more than a few of them.
    assert np.isfinite(done["score"]).all()
    assert done["regret"].between(-0.5, 5).all()
    scores = load_bundle(folder).scores
    assert done["score"].between(np.nanmin(scores), np.nanmax(scores)).all()


def test_scores_of_1e34_and_diverged_runs_leave_figures_readable(shared_data, tmp_path):
    bundle = load_bundle(shared_data / "bundles" / WILD)
    assert np.nanmax(bundle.scores) > 1e34
    assert np.isnan(bundle.scores).mean() > 0.2
    curves = figures.curves(curves_table(bundle))
    low, high = curves.axes[0].get_ylim()
    best, median = np.nanmin(bundle.scores), np.nanmedian(bundle.scores[:, -1])
    assert 0 < low < best < median < high < 20 * median
    figures.save(curves, tmp_path / "curves.png")
    comparison = compare(spec_of(shared_data / "bundles" / WILD), ["seer", "asha-fixed"], seeds=4, jobs=1)
    drawn = figures.comparison(comparison.results, comparison.trajectories)
    figures.save(drawn, tmp_path / "comparison.png")
    for axes in drawn.axes[:2]:
        low, high = axes.get_ylim()
        assert 0 < low < high < 20 * median
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_what_is_said_of_a_bundle_with_diverged_runs_is_finite(shared_data):
    described = describe(load_bundle(shared_data / "bundles" / WILD))
    assert described["diverged_share"] == pytest.approx(0.234, abs=0.001)
    assert np.isfinite(pd.Series(described["final_quantiles"])).all()
    assert all(-1 <= row["spearman"] <= 1 for row in described["rank_correlation"])
