"""Seconds, relative costs and `iteration_s`: a simulation of what was recorded takes as long as it took."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidy_tables import TIDY

from elastune import RunSpec, execute, traces
from elastune.sim.model.errors import InvalidTraceError
from elastune.traces.importers import CurveRules, TableColumns, from_optuna, from_table

seconds_of_an_iteration = st.floats(1e-3, 1e6)
quiet = settings(deadline=None, max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])


def table_of(seconds, costs):
    header = "trial,iteration,score,seconds" + (",relative_cost" if costs else "")
    lines = [header]
    for trial, of_trial in enumerate(seconds):
        for iteration, took_s in enumerate(of_trial, start=1):
            cells = [trial, iteration, 1 / iteration, repr(took_s), *([repr(costs[trial])] if costs else [])]
            lines.append(",".join(map(str, cells)))
    return "\n".join(lines) + "\n"


def simulated_s(bundle):
    """(trials,) float: seconds of each trial alone on one GPU."""
    recorded = np.isfinite(bundle.scores).sum(axis=1)
    return bundle.iteration_s * bundle.relative_cost * recorded


@quiet
@given(data=st.data())
def test_a_simulation_of_all_trials_takes_the_recorded_seconds(described, tmp_path_factory, data):
    trials, iterations = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    rows = st.lists(seconds_of_an_iteration, min_size=iterations, max_size=iterations)
    seconds = data.draw(st.lists(rows, min_size=trials, max_size=trials))
    off = data.draw(st.none() | st.lists(st.floats(0.9, 1.1), min_size=trials, max_size=trials))
    costs = None if off is None else (np.mean(seconds, axis=1) / 7 * off).tolist()
    folder = tmp_path_factory.mktemp("table")
    (folder / "tidy.csv").write_text(table_of(seconds, costs))
    bundle = from_table(folder / "tidy.csv", folder / "bundle", described)
    took_s = np.array(seconds).sum(axis=1)
    assert simulated_s(bundle).sum() == pytest.approx(took_s.sum(), rel=1e-9)
    if costs is None:
        np.testing.assert_allclose(simulated_s(bundle), took_s, rtol=1e-9)
    else:
        np.testing.assert_array_equal(bundle.relative_cost, costs)
    # The same where a bundle leaves iteration_s to its seconds.
    header = (folder / "bundle" / "bundle.yaml").read_text().splitlines()
    (folder / "bundle" / "bundle.yaml").write_text("\n".join(x for x in header if not x.startswith("iteration_s:")))
    assert traces.load_bundle(folder / "bundle").iteration_s == pytest.approx(bundle.iteration_s, rel=1e-12)


@quiet
@given(costs=st.lists(st.floats(0.01, 100), min_size=1, max_size=4), iteration_s=st.floats(0.01, 100))
def test_seconds_in_proportion_to_their_costs_come_back_trial_by_trial(described, tmp_path_factory, costs, iteration_s):
    folder = tmp_path_factory.mktemp("table")
    seconds = [[cost * iteration_s] * 3 for cost in costs]
    (folder / "tidy.csv").write_text(table_of(seconds, costs))
    bundle = from_table(folder / "tidy.csv", folder / "bundle", described)
    assert bundle.iteration_s == pytest.approx(iteration_s)
    np.testing.assert_allclose(simulated_s(bundle), np.array(seconds).sum(axis=1))
    assert "trials_with_seconds_10_percent_off_their_relative_cost" not in bundle.notes["imported"]


def run_of(folder, trials, iterations):
    spec = RunSpec.of(
        job={"trials": trials, "exact": True, "max_iterations": iterations, "min_iterations": iterations},
        workload={"bundle": str(folder), "scaling": "linear"},
        cloud={
            "instance_type": {"name": "m", "price_usd_per_hour": 3600, "gpus_per_instance": 1},
            "billing": {"granularity_s": 0, "minimum_s": 0},
            "rescale_s": 0,
            "max_instances": 1,
        },
        policy="sha-fixed",
    )
    return execute(spec)


@pytest.mark.parametrize("costs", [None, [2.0, 4.0], [1.0, 2.0], [1.0, 1.7]])
def test_a_run_of_the_recorded_trials_on_one_gpu_takes_and_costs_what_they_took(tmp_path, described, costs):
    (tmp_path / "tidy.csv").write_text(table_of([[2.0, 2.0], [4.0, 4.0]], costs))
    from_table(tmp_path / "tidy.csv", tmp_path / "bundle", described)
    result = run_of(tmp_path / "bundle", 2, 2)
    assert (result.makespan_s, result.cost_usd) == (pytest.approx(12.0), pytest.approx(12.0))


def test_costs_that_are_a_little_off_their_seconds_are_counted(imported):
    # 2 s and 4 s at costs 1 and 1.7: an iteration at cost 1 takes 6 / 2.7 = 2.22 s, and they are off by 11 and 6 %.
    bundle = imported(table_of([[2.0, 2.0], [4.0, 4.0]], [1.0, 1.7]))
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (pytest.approx(12 / 5.4), [1.0, 1.7])
    assert bundle.notes["imported"]["trials_with_seconds_10_percent_off_their_relative_cost"] == 1
    assert bundle.provenance["iteration_s"] == "measured elsewhere: recorded seconds, at relative cost 1"


@pytest.mark.parametrize(
    ("seconds", "costs", "told"),
    [
        ([2.0, 4.0], [1.0, 1.0], "trial 0: is 1, so that an iteration takes 3 s, but the seconds say 2 s"),
        ([2.0, 4.0], [4.0, 2.0], "trial 0: is 4, so that an iteration takes 4 s, but the seconds say 2 s"),
        ([5.0] * 9 + [50.0], [1.0] * 10, "trial 9: is 1, so that an iteration takes 9.5 s, but the seconds say 50 s"),
    ],
)
def test_costs_that_contradict_their_seconds_are_refused(imported, out, seconds, costs, told):
    text = table_of([[took_s] * 2 for took_s in seconds], costs)
    with pytest.raises(InvalidTraceError, match=f"column relative_cost: {told}; leave one of them out"):
        imported(text)
    assert not out.exists()
    assert imported(text, untimed=True).relative_cost.tolist() == costs


def test_a_bundle_whose_costs_contradict_its_seconds_is_refused_unless_it_says_iteration_s(imported, out):
    imported(table_of([[2.0, 2.0], [4.0, 4.0]], [1.0, 2.0]))
    text, header = (out / "configs.csv").read_text(), (out / "bundle.yaml").read_text()
    (out / "configs.csv").write_text(text.replace("1.0", "2.0").replace("0,2.0", "0,4.0"))
    assert traces.load_bundle(out).iteration_s == 2.0  # as bundle.yaml says
    (out / "bundle.yaml").write_text("\n".join(x for x in header.splitlines() if not x.startswith("iteration_s:")))
    with pytest.raises(InvalidTraceError, match=r"configs\.csv, row 1, column relative_cost: is 4, so that"):
        traces.load_bundle(out)


def test_a_relative_cost_that_varies_within_a_trial_is_refused_and_names_both_rows(imported):
    text = (
        TIDY.replace("optimizer", "relative_cost")
        .replace("sgd", "2")
        .replace("adam", "2")
        .replace("0.7,1,0.1,2", "0.7,1,0.1,3")
    )
    with pytest.raises(InvalidTraceError, match=r"row 3, column relative_cost: differs within trial 0 from row 1"):
        imported(text)


def study_of(trials):
    """A study with these trials: (values by step, seconds, numbers of the trials that it retries)."""
    optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[optuna]'")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="retried")
    started = dt.datetime(2026, 1, 1, 12)  # noqa: DTZ001  Optuna's times know no zone
    for values, took_s, retries in trials:
        state = "RUNNING" if took_s is None else "COMPLETE" if len(values) == 4 else "FAIL"
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState[state],
            value=values[4] if state == "COMPLETE" else None,
            intermediate_values=values,
            system_attrs={"failed_trial": retries[0], "retry_history": list(retries)} if retries else None,
        )
        trial.datetime_start = started
        trial.datetime_complete = None if took_s is None else started + dt.timedelta(seconds=took_s)
        study.add_trial(trial)
    return study


def values(first, last, scale=1.0):
    return {step: scale / step for step in range(first, last + 1)}


def test_steps_that_a_retry_inherited_cost_none_of_its_seconds(out, described):
    # The retry trained steps 3 and 4 in 20 s; a trial of its own took 40 s for four.
    study = study_of([(values(1, 2), 20.0, ()), (values(1, 4), 20.0, (0,)), (values(1, 4, 2.0), 40.0, ())])
    bundle = from_optuna(study, out, described, rules=CurveRules(incomplete="drop"))
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (10.0, [1.0, 1.0])
    noted = bundle.notes["imported"]
    assert (noted["trials_with_inherited_steps"], noted["trials_dropped_as_incomplete"]) == (["1"], ["0"])


def test_a_retry_that_began_anew_costs_its_seconds_over_all_its_steps(out, described):
    study = study_of([(values(1, 2), 20.0, ()), (values(1, 4, 1.5), 40.0, (0,))])
    bundle = from_optuna(study, out, described, rules=CurveRules(incomplete="drop"))
    assert bundle.iteration_s == 10.0
    assert "trials_with_inherited_steps" not in bundle.notes["imported"]


def test_a_retry_of_a_retry_inherits_from_the_last_one(out, described):
    study = study_of(
        [
            (values(1, 1), 10.0, ()),
            (values(1, 3), 20.0, (0,)),
            (values(1, 4), 10.0, (0, 1)),
            (values(1, 4, 3.0), None, ()),
        ]
    )
    bundle = from_optuna(study, out, described, rules=CurveRules(incomplete="drop"))
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (10.0, [1.0, 1.0])
    assert bundle.provenance["relative_cost"].endswith("; assumed to be 1 for 1 trials without seconds")


def test_a_trial_that_inherited_everything_has_no_seconds_of_its_own(out, described):
    study = study_of([(values(1, 4), 40.0, ()), (values(1, 4), 5.0, (0,))])
    bundle = from_optuna(study, out, described)
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (10.0, [1.0, 1.0])


def test_an_iteration_0_that_is_dropped_is_counted(imported):
    text = "trial,iteration,score,t\n0,0,9,5\n0,1,3,7\n0,2,2,9\n"
    bundle = imported(text, columns=TableColumns(elapsed="t"), rules=CurveRules(iteration_zero="drop"))
    assert bundle.notes["imported"]["points_of_iteration_0_dropped"] == 1


def test_diverged_runs_cost_what_their_iterations_took(imported):
    bundle = imported("trial,iteration,score,seconds\n0,1,1,2\n0,2,nan,6\n1,1,1,1\n1,2,1,1\n")
    assert bundle.iteration_s * bundle.relative_cost[0] == 4.0
    assert math.isnan(bundle.scores[0, 1])
