"""Recordings whose configurations were trained several times, as bundles with replicates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces import load_bundle
from elastune.traces.importers import BlackboxChoice, CurveRules, TableColumns, from_blackbox, from_table
from elastune.traces.importers.blackbox_folder import StoredBlackbox

NOISY = """\
trial,replicate,iteration,score,t,lr
a,0,1,0.9,1,0.1
a,0,2,0.8,2,0.1
a,1,1,0.7,3,0.1
a,1,2,0.6,6,0.1
b,1,1,0.5,5,0.2
b,1,2,0.4,9,0.2
"""


def test_a_table_with_a_replicate_column_becomes_a_bundle_with_replicates(imported):
    bundle = imported(NOISY, columns=TableColumns(elapsed="t"))
    assert bundle.configurations == [{"lr": 0.1}, {"lr": 0.2}]
    assert bundle.replicates.trial.tolist() == [0, 0, 1]
    assert bundle.replicates.number.tolist() == [0, 1, 1]
    assert bundle.replicates.scores.tolist() == [[0.9, 0.8], [0.7, 0.6], [0.5, 0.4]]
    # The clock of each training starts anew: 1 + 1, 3 + 3 and 5 + 4 s.
    assert (bundle.iteration_s * bundle.relative_cost).tolist() == pytest.approx([2.0, 4.5])
    assert bundle.replicates.slowness.tolist() == pytest.approx([0.5, 1.5, 1.0])
    noted = bundle.notes["imported"]
    assert (noted["trials_recorded"], noted["trainings_recorded"]) == (2, 3)


def test_what_tells_trainings_apart_may_have_another_name(imported):
    with pytest.raises(
        InvalidTraceError, match="row 3, column iteration: trial a: iteration 1 was already given in row 1"
    ):
        imported(NOISY.replace("replicate", "seed"))
    bundle = imported(NOISY.replace("replicate", "seed"), columns=TableColumns(replicate="seed", elapsed="t"))
    assert bundle.replicates.number.tolist() == [0, 1, 1]


def test_incomplete_trainings_are_dropped_one_by_one_and_named(imported):
    text = NOISY.replace("a,1,2,0.6,6,0.1\n", "")
    with pytest.raises(
        InvalidTraceError, match=r"row 3, column iteration: trial a \(replicate 1\): ends at iteration 1"
    ):
        imported(text, columns=TableColumns(elapsed="t"))
    bundle = imported(text, columns=TableColumns(elapsed="t"), rules=CurveRules(incomplete="drop"))
    assert (bundle.trials, bundle.replicates) == (2, None)
    assert bundle.notes["imported"]["trials_dropped_as_incomplete"] == ["a (replicate 1)"]


@pytest.mark.parametrize("cell", ["-1", "0.5", "", "x"])
def test_a_number_of_a_replicate_that_is_none_is_refused(imported, cell):
    with pytest.raises(InvalidTraceError, match="row 3, column replicate: is "):
        imported(NOISY.replace("a,1,1,", f"a,{cell},1,"))


def test_two_rows_of_one_replicate_and_iteration_are_refused(imported):
    with pytest.raises(InvalidTraceError, match=r"row 4, column iteration: .*iteration 1 was already given in row 3"):
        imported(NOISY.replace("a,1,2,", "a,1,1,"))


def test_only_rows_that_hold_a_value_are_read_and_the_others_are_counted(imported):
    text = "trial,iteration,score,split\n0,1,9,train\n0,1,3,val\n0,2,8,train\n0,2,x,val\n"
    columns = TableColumns(where={"split": "val"})
    with pytest.raises(InvalidTraceError, match="row 4, column score: is 'x'"):
        imported(text, columns=columns)
    bundle = imported(text.replace("x", "2"), columns=columns)
    assert bundle.scores.tolist() == [[3.0, 2.0]]
    assert bundle.notes["imported"]["rows_left_out_by_where"] == 2


def test_a_value_that_no_row_holds_is_refused(imported):
    with pytest.raises(InvalidTraceError, match=r"column lr: no row holds '0\.3', as --where asks"):
        imported(NOISY, columns=TableColumns(where={"lr": "0.3"}))
    with pytest.raises(InvalidTraceError, match=r"column lrr: has no such column; did you mean 'lr'\?"):
        imported(NOISY, columns=TableColumns(where={"lrr": "0.1"}))


def test_of_several_rows_of_a_dropped_iteration_0_the_first_starts_the_clock(imported):
    text = "trial,iteration,score,t\n0,0,9,5\n0,1,3,7\n0,0,4,8\n0,2,2,11\n0,0,4,12\n"
    with pytest.raises(
        InvalidTraceError, match="row 3, column iteration: trial 0: iteration 0 was already given in row 1"
    ):
        imported(text, columns=TableColumns(elapsed="t"))
    bundle = imported(text, columns=TableColumns(elapsed="t"), rules=CurveRules(iteration_zero="drop"))
    assert bundle.seconds.tolist() == [[2.0, 4.0]]
    assert bundle.notes["imported"]["points_of_iteration_0_dropped"] == 3


def blackbox_of(evaluations):
    return StoredBlackbox(
        hyperparameters=pd.DataFrame({"lr": [0.1, 0.2]}),
        objectives_evaluations=np.asarray(evaluations, dtype=float),
        fidelity_values=np.array([1, 2]),
        objectives_names=["loss"],
        fidelity_space={"epoch": None},
    )


def test_all_training_seeds_of_a_blackbox_become_replicates(out, described):
    nan = np.nan
    # Configuration 0 was trained with both seeds, configuration 1 with the second alone.
    evaluations = [[[[4], [3]], [[5], [2]]], [[[nan], [nan]], [[7], [6]]]]
    choice = BlackboxChoice(objective="loss", seed=None, untimed=True)
    bundle = from_blackbox(blackbox_of(evaluations), out, described, choice=choice)
    assert bundle.replicates.trial.tolist() == [0, 0, 1]
    assert bundle.replicates.number.tolist() == [0, 1, 1]
    assert bundle.replicates.scores.tolist() == [[4.0, 3.0], [5.0, 2.0], [7.0, 6.0]]
    assert bundle.notes["imported"]["training_seeds_recorded"] == 2


def test_a_seed_that_a_blackbox_has_not_is_refused(out, described):
    choice = BlackboxChoice(objective="loss", seed=2, untimed=True)
    with pytest.raises(InputError, match="asked for seed 2, but its seeds are 0 to 1"):
        from_blackbox(blackbox_of(np.ones((2, 2, 2, 1))), out, described, choice=choice)


def test_recorded_replicates_of_algoperf_are_imported(shared_data, out, described):
    recorded = shared_data / "replicated" / "algoperf-ogbg"
    bundle = from_table(
        recorded / "replicates.parquet",
        out,
        described,
        columns=TableColumns(elapsed="train_seconds", where={"on_grid": "True"}),
        configurations=recorded / "configs_all.csv",
        rules=CurveRules(iterations=23, incomplete="drop"),
    )
    first = load_bundle(recorded)
    counts = np.bincount(bundle.replicates.trial)
    assert (bundle.trials, counts.max(), len(counts)) == (47, 5, 47)
    # Trials keep their numbers, so those below 47 have the same configuration in both.
    numbers = pd.read_csv(out / "configs.csv")["trial"].tolist()
    compared = 0
    for row, number in enumerate(numbers):
        curve = np.searchsorted(bundle.replicates.trial, row)
        if bundle.replicates.number[curve] == 0 and number < first.trials:
            np.testing.assert_array_equal(bundle.replicates.scores[curve], first.scores[number])
            compared += 1
    assert compared > 40
    noted = bundle.notes["imported"]
    assert noted["trainings_recorded"] == 275
    assert noted["trainings_recorded"] == len(bundle.replicates.trial) + len(noted["trials_dropped_as_incomplete"])


def test_recorded_replicates_of_nanogpt_are_imported(shared_data, out, described):
    recorded = shared_data / "replicated" / "nanogpt-speedrun"
    configurations = pd.read_csv(recorded / "configs.csv").drop(columns="relative_cost")
    bundle = from_table(
        recorded / "replicates.parquet",
        out,
        described,
        columns=TableColumns(iteration="curve_iteration", elapsed="train_seconds"),
        configurations=configurations,
        rules=CurveRules(iteration_zero="drop"),
    )
    first = load_bundle(recorded)
    np.testing.assert_array_equal(bundle.scores, first.scores)
    np.testing.assert_allclose(bundle.seconds, first.seconds, atol=1e-3)
    assert len(bundle.replicates.trial) == 557
