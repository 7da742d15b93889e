"""Times of day taken for durations, and scores that cannot be computed with, are refused at the edge."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from tidy_tables import TIDY, rows

from elastune import traces
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.importers import TableColumns, from_optuna

NOW = 1_700_000_000


@pytest.mark.parametrize(("unit", "told"), [(1, "seconds"), (1000, "milliseconds")])
def test_a_time_of_day_is_no_duration(imported, unit, told):
    points = [("a", 1, 0.9, NOW + 10), ("a", 2, 0.8, NOW + 20), ("b", 1, 0.7, NOW + 500), ("b", 2, 0.6, NOW + 520)]
    text = "trial,iteration,score,t\n" + "".join(f"{a},{b},{c},{d * unit}\n" for a, b, c, d in points)
    with pytest.raises(
        InvalidTraceError, match=r"row 1, column t: trial a: elapsed seconds begin at 1.7e\+.*start of the trial"
    ):
        imported(text, columns=TableColumns(elapsed="t"))
    with pytest.raises(InvalidTraceError, match=rf"row 1, column t: trial a: .*are these {told} since 1970\?"):
        imported(text, columns=TableColumns(seconds="t"))


def test_a_clock_that_began_before_the_trial_is_refused(imported):
    text = "trial,iteration,score,t\n0,1,3,850010\n0,2,2,850020\n0,3,1,850030\n"
    with pytest.raises(
        InvalidTraceError, match=r"row 1, .*elapsed seconds begin at 850010, but iterations take at most 10 s"
    ):
        imported(text, columns=TableColumns(elapsed="t"))
    slow_start = text.replace("850010", "4000").replace("850020", "4010").replace("850030", "4020")
    assert imported(slow_start, columns=TableColumns(elapsed="t")).seconds.tolist() == [[4000.0, 10.0, 10.0]]


def test_a_trial_that_lasted_for_years_is_refused(out, described):
    optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[optuna]'")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.COMPLETE, value=1.0, intermediate_values={1: 1.0})
    trial.datetime_start = dt.datetime(1970, 1, 1)  # noqa: DTZ001  Optuna's times know no zone
    study.add_trial(trial)
    with pytest.raises(
        InvalidTraceError, match=r"column duration: trial 0: its iterations took .*are these seconds since 1970\?"
    ):
        from_optuna(study, out, described)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t_s,op,node\n1700000000,add,a\n1700003600,remove,a\n", r"row 1, column t_s: is 1700000000, .*since 1970\?"),
        (
            "t_s,op,node\n850000,add,a\n853600,remove,a\n",
            r"row 1, column t_s: begins at 850000 s, and lasts 3600 s from there",
        ),
        (
            "start_s,duration_s,available_nodes\n0,1700000000,1\n",
            r"row 1, column duration_s: is 1700000000, .*since 1970\?",
        ),
        (
            "start_s,duration_s,available_nodes\n1700000000,10,1\n",
            r"row 1, column start_s: is 1700000000, .*since 1970\?",
        ),
        (
            "start_s,duration_s,available_nodes\n0,10,1e9\n",
            r"row 1, column available_nodes: is 1e9, but must be at most",
        ),
    ],
)
def test_a_spot_market_does_not_begin_in_1970(write, text, message):
    with pytest.raises(InvalidTraceError, match=message):
        traces.load_spot_trace(write(text))


@pytest.mark.parametrize("column", ["score", "test_score"])
@pytest.mark.parametrize("score", [1.2e308, -1.2e308, 1.1e100])
def test_a_score_that_cannot_be_squared_is_refused(imported, column, score):
    text = rows((0, 1, 1, 1), (0, 2, 1, 1)).replace("score\n", "score,test_score\n")
    wrong = text.replace("0,2,1,1", f"0,2,{score},1" if column == "score" else f"0,2,1,{score}")
    with pytest.raises(
        InvalidTraceError, match=rf"row 2, column {column}: trial 0: is .*, but must be between .* diverged"
    ):
        imported(wrong)
    assert imported(wrong.replace(str(score), "1e100")).trials == 1


def test_bundles_and_literals_hold_no_such_score_either(imported, out):
    import pandas as pd

    imported(TIDY)
    curves = pd.read_parquet(out / "curves.parquet")
    for column, wrong, message in (
        ("score", 1e300, r"curves.parquet, row 3, column score: is 1e\+300, but must be between"),
        ("seconds", float(NOW), r"curves.parquet, row 3, column seconds: is more than 1e\+08 s"),
    ):
        curves.assign(**{column: np.where(curves.index == 2, wrong, curves[column])}).to_parquet(out / "curves.parquet")
        with pytest.raises(InvalidTraceError, match=message):
            traces.load_bundle(out)
    with pytest.raises(InputError, match=r"is 1e\+300, but must be between"):
        traces.tiny_bundle([[1.0, 1e300]])
