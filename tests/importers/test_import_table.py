from __future__ import annotations

import gzip
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tidy_tables import TIDY, rows

from elastune import traces
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.importers import CurveRules, TableColumns, from_table, table_columns

NAN = math.nan


def test_a_tidy_table_becomes_a_bundle(imported, out):
    bundle = imported(TIDY)
    assert (bundle.name, bundle.direction, bundle.score, bundle.iteration) == (
        "toy",
        "minimize",
        "validation loss",
        "one epoch",
    )
    assert bundle.scores.tolist() == [[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]
    assert bundle.configurations == [{"lr": 0.1, "optimizer": "sgd"}, {"lr": 0.2, "optimizer": "adam"}]
    assert bundle.seconds.tolist() == [[1.0] * 3, [3.0] * 3]
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (2.0, [0.5, 1.5])
    assert bundle.sha256 == traces.load_bundle(out).sha256
    assert sorted(path.name for path in out.iterdir()) == ["bundle.yaml", "configs.csv", "curves.parquet"]


def test_every_number_says_where_it_comes_from(imported):
    assert imported(TIDY).provenance == {
        "curves": "measured elsewhere: tidy table tidy.csv",
        "iteration_s": "measured elsewhere: recorded seconds, their mean",
        "relative_cost": "measured elsewhere: seconds of a trial's iterations over the mean of all",
        "timings": "not measured: set cloud.rescale_s",
        "scaling": "not measured: pair it with a scaling table by workload.scaling",
    }


def test_what_is_set_at_import_is_assumed_unless_its_provenance_is_set_too(write, out, described):
    others = {
        "scaling": "resnet50-v100",
        "launch_s": 3,
        "checkpoint_s": 1,
        "iteration_s": 40,
        "family": "toys",
        "provenance": {"scaling": "published: elsewhere"},
    }
    bundle = from_table(write(TIDY), out, replace(described, others=others))
    assert bundle.provenance["timings"] == bundle.provenance["iteration_s"] == "assumed: set at import"
    assert bundle.provenance["scaling"] == "published: elsewhere"
    assert (bundle.iteration_s, bundle.family, bundle.lacking()) == (40.0, "toys", {})
    assert bundle.terms().provenance["iteration_s"] == "assumed: set at import"


def test_a_bundle_says_which_keys_of_a_run_supply_what_it_lacks(imported):
    assert imported(TIDY, untimed=True).lacking() == {
        "seconds per iteration": "workload.iteration_s",
        "scaling": "workload.scaling",
        "launch and checkpoint seconds": "cloud.rescale_s",
    }


def test_columns_may_be_called_otherwise(write, out, described):
    text = TIDY.replace("trial,iteration,score,seconds", "run_id,epoch,loss,took")
    columns = TableColumns(trial="run_id", iteration="epoch", score="loss", seconds="took", configuration=["lr"])
    bundle = from_table(write(text), out, replace(described, score=None, iteration=None), columns=columns)
    assert bundle.seconds[1].tolist() == [3.0] * 3
    assert bundle.configurations == [{"lr": 0.1}, {"lr": 0.2}]
    assert (bundle.score, bundle.iteration) == ("loss", "one epoch")
    assert bundle.notes["imported"]["columns_left_out"] == ["optimizer"]


def test_elapsed_seconds_become_those_of_each_iteration(imported):
    text = "trial,iteration,score,t\n0,1,3,2\n0,2,2,5\n0,3,1,9\n1,1,3,1\n1,2,2,2\n1,3,1,3\n"
    bundle = imported(text, columns=TableColumns(elapsed="t"))
    assert bundle.seconds.tolist() == [[2.0, 3.0, 4.0], [1.0, 1.0, 1.0]]
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (2.0, [1.5, 0.5])


def test_seconds_spent_before_the_first_iteration_are_none_of_its(imported):
    text = "trial,iteration,score,t\n0,0,9,5\n0,1,3,7\n0,2,2,9\n"
    bundle = imported(text, columns=TableColumns(elapsed="t"), rules=CurveRules(iteration_zero="drop"))
    assert (bundle.scores.tolist(), bundle.seconds.tolist()) == ([[3.0, 2.0]], [[2.0, 2.0]])


def test_a_column_that_varies_within_a_trial_is_left_out_and_named(imported):
    text = rows((0, 1, 3, 0.1, 7), (0, 2, 2, 0.05, 7)).replace("score\n", "score,lr_now,width\n")
    bundle = imported(text)
    assert bundle.configurations == [{"width": 7}]
    assert bundle.notes["imported"]["columns_left_out"] == ["lr_now"]


def test_a_column_that_varies_is_an_error_where_it_was_asked_for(imported):
    text = rows((0, 1, 3, 0.1), (0, 2, 2, 0.05)).replace("score\n", "score,lr\n")
    with pytest.raises(InvalidTraceError, match=r"tidy.csv, row 2, column lr: differs within trial 0"):
        imported(text, columns=TableColumns(configuration=["lr"]))


def test_trials_with_names_are_numbered_and_their_names_kept(imported, out):
    bundle = imported(rows(("b", 1, 2), ("a", 1, 1)))
    assert bundle.scores.tolist() == [[2.0], [1.0]]
    assert (out / "trials.csv").read_text() == "trial,recorded_as\n0,b\n1,a\n"


def test_trials_with_numbers_keep_them(imported, out):
    imported(rows((7, 1, 2), (3, 1, 1)))
    assert (out / "configs.csv").read_text() == "trial\n7\n3\n"


def test_configurations_may_stand_in_a_second_table(write, out, described):
    configs = write("trial,lr,relative_cost\n1,0.2,3\n0,0.1,1\n", "configs.csv")
    bundle = from_table(write(TIDY), out, described, configurations=configs)
    assert bundle.configurations == [{"lr": 0.2}, {"lr": 0.1}]
    assert bundle.scores.tolist() == [[0.6, 0.5, 0.4], [0.9, 0.8, 0.7]]
    assert (bundle.relative_cost.tolist(), bundle.iteration_s) == ([3.0, 1.0], 1.0)
    assert bundle.notes["imported"]["columns_left_out"] == ["lr", "optimizer"]
    assert bundle.provenance["relative_cost"] == "measured elsewhere: tidy table tidy.csv"


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ("trial,lr\n0,0.1\n", r"tidy.csv, row 4, column trial: this trial is not in .*configs.csv"),
        ("trial,lr\n0,0.1\n1,0.2\n0,0.3\n", r"configs.csv, row 3, column trial: trial 0 was already given in row 1"),
        ("name,lr\n0,0.1\n", r"configs.csv, column trial: has no such column; its columns: name, lr"),
        ("trial,relative_cost\n0,1\n1,0\n", r"configs.csv, row 2, column relative_cost: is 0, but must be a positive"),
        (
            "trial,lr\n0,0.1\n1,0.2\n5,0.3\n",
            r"tidy.csv, column iteration: trial 5: has no curve; 1 of 3 trials are inc",
        ),
    ],
)
def test_a_bad_second_table_is_an_error_that_names_the_row(write, out, described, configs, message):
    with pytest.raises(InvalidTraceError, match=message):
        from_table(write(TIDY), out, described, configurations=write(configs, "configs.csv"))
    assert not out.exists()


def test_hyperparameters_come_from_one_place(write, out, described):
    with pytest.raises(InputError, match="from a second table or from columns of the first, not from both"):
        from_table(write(TIDY), out, described, configurations=write(TIDY), columns=TableColumns(configuration=["lr"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"tidy.csv: is no CSV text: Empty CSV file"),
        ("trial,iteration,score\n", r"tidy.csv: has no rows"),
        ("trial,iteration,score,lr,lr\n0,1,1,1,1\n", r"tidy.csv, column lr: the header names it twice"),
        (
            "trial,iteration,scores\n0,1,1\n",
            r"column score: has no such column; did you mean 'scores'\? .*--score-column",
        ),
        (
            "trial,epoch,score\n0,1,1\n",
            r"column iteration: has no such column; .*trial, epoch, score; .*--iteration-column",
        ),
        (
            "run,epoch,loss\n0,1,1\n",
            r"column trial: .*name another with --trial-column \(and with --iteration-column, --score-column\)",
        ),
        ("trial,iteration,score\n0,1,1\n0,2\n", r"tidy.csv, row 2: has 2 cells, but the header names 3"),
        (rows((0, 1, 1), (0, 2, "bad")), r"row 2, column score: is 'bad', but must be a number \(empty or nan where"),
        (rows((0, 1, 1), ("", 2, 1)), r"row 2, column trial: is empty"),
        (rows((0, "one", 1)), r"row 1, column iteration: is 'one', but must be a number"),
        (
            rows((0, 1, 1), (0, 1.5, 1)),
            r"row 2, column iteration: trial 0: is 1.5, but must be a whole number, 0 or more",
        ),
        (rows((0, -1, 1)), r"row 1, column iteration: trial 0: is -1, but must be a whole number"),
        (rows((0, "", 1)), r"row 1, column iteration: trial 0: is nan, but must be a whole number"),
        (
            rows((0, 1, 1), (1, 1, 1), (0, 1, 2)),
            r"row 3, column iteration: trial 0: iteration 1 was already given in row 1",
        ),
        (
            rows((0, 1, 1), (0, 3, 1)),
            r"row 2, column iteration: trial 0: jumps from iteration 1 to 3; a bundle needs every",
        ),
        (
            rows((0, 1, 1), (0, 2, 1), (1, 2, 1)),
            r"row 3, .*trial 1: starts at iteration 2, but the first .* anywhere is 1",
        ),
        (
            rows((0, 99, 1), (0, 199, 1)),
            r"jumps from iteration 99 to 199; .*counted from 0, --iteration-zero first adds 1",
        ),
        (rows((0, 0, 1), (0, 1, 1)), r"row 1, column iteration: trial 0: has an iteration 0: is it the first"),
        (
            rows((0, 1, 1), (0, 2, 1), (1, 1, 1)),
            r"row 3, .*trial 1: ends at iteration 1 of 2; 1 of 2 .*1 x 2, 1 x 1\): .*drop.*--iterations N.*diverged",
        ),
    ],
)
def test_a_malformed_table_is_an_error_that_names_the_row_and_what_would_do(imported, out, text, message):
    with pytest.raises(InvalidTraceError, match=message):
        imported(text)
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        ("-1", r"row 3, column seconds: trial 0: iteration 3 has -1 seconds, but .* needs a number >= 0; .*--untimed"),
        ("inf", r"row 3, column seconds: trial 0: iteration 3 has inf seconds"),
        ("", r"row 3, column seconds: trial 0: iteration 3 has nan seconds"),
        ("soon", r"row 3, column seconds: is 'soon', but must be a number"),
    ],
)
def test_seconds_are_numbers_of_at_least_0(imported, seconds, message):
    with pytest.raises(InvalidTraceError, match=message):
        imported(TIDY.replace("0,3,0.7,1", f"0,3,0.7,{seconds}"))


def test_seconds_that_are_no_numbers_do_not_matter_where_they_are_left_out(imported):
    bundle = imported(TIDY.replace("0,3,0.7,1", "0,3,0.7,-1"), untimed=True)
    assert (bundle.seconds, bundle.iteration_s) == (None, None)


def test_elapsed_seconds_do_not_fall(imported):
    message = (
        r"row 2, column t: trial 0: elapsed seconds fall from 5 to 4 at iteration 2; .*name them as seconds instead"
    )
    with pytest.raises(InvalidTraceError, match=message):
        imported("trial,iteration,score,t\n0,1,3,5\n0,2,2,4\n", columns=TableColumns(elapsed="t"))


def test_a_trial_that_took_no_time_at_all_is_an_error(imported):
    with pytest.raises(InvalidTraceError, match=r"column seconds: trial 0: its iterations took 0 s; .*--untimed"):
        imported(TIDY.replace(",1,0.1,sgd", ",0,0.1,sgd"))


def test_seconds_are_elapsed_ones_or_not(imported):
    with pytest.raises(InputError, match=r"not both: --seconds-column or --elapsed-column"):
        imported(TIDY, columns=TableColumns(seconds="seconds", elapsed="seconds"))


def test_a_parquet_file_a_compressed_one_and_a_data_frame_give_the_same(tmp_path, write, out, described):
    frame = pd.read_csv(write(TIDY))
    frame.to_parquet(tmp_path / "tidy.parquet")
    (tmp_path / "tidy.csv.gz").write_bytes(gzip.compress(TIDY.encode()))
    bundles = [
        from_table(table, out.with_name(str(number)), described)
        for number, table in enumerate([write(TIDY), tmp_path / "tidy.parquet", tmp_path / "tidy.csv.gz", frame])
    ]
    for bundle in bundles[1:]:
        np.testing.assert_array_equal(bundle.scores, bundles[0].scores)
        assert bundle.configurations == bundles[0].configurations
    assert [table_columns(tmp_path / name) for name in ("tidy.csv", "tidy.parquet")] == [
        TIDY.splitlines()[0].split(",")
    ] * 2


def test_cells_that_no_csv_could_hold_are_read_from_parquet(tmp_path, out, described):
    frame = pd.DataFrame(
        {
            "trial": [0.0, 0.0, 1.0, 1.0],
            "iteration": [1, 2, 1, 2],
            "score": [1.0, None, 3.0, 4.0],
            "wide": [True, True, None, None],
        }
    )
    frame.to_parquet(tmp_path / "tidy.parquet")
    bundle = from_table(tmp_path / "tidy.parquet", out, described)
    assert bundle.configurations == [{"wide": True}, {"wide": None}]
    np.testing.assert_array_equal(bundle.scores, [[1.0, NAN], [3.0, 4.0]])


@pytest.mark.parametrize("content", [b"PAR1 and no more", b"trial,iteration,score\n0,1,\xff\n"])
def test_bytes_that_are_no_table_are_an_error(tmp_path, out, described, content):
    (tmp_path / "tidy").write_bytes(content)
    with pytest.raises(InvalidTraceError, match=r"tidy: is no (parquet file|CSV text)"):
        from_table(tmp_path / "tidy", out, described)


def test_a_missing_file_is_named(tmp_path, out, described):
    with pytest.raises(InvalidTraceError, match=r"absent.csv: cannot be read: No such file"):
        from_table(tmp_path / "absent.csv", out, described)


def test_a_table_does_not_tell_its_direction(write, out, described):
    with pytest.raises(InputError, match=r"tidy.csv does not tell whether .*: give --direction"):
        from_table(write(TIDY), out, replace(described, direction=None))


def test_a_hyperparameter_called_as_a_column_of_the_bundle_is_refused(imported):
    text = TIDY.replace("trial,iteration", "run,iteration").replace("optimizer", "trial")
    with pytest.raises(InvalidTraceError, match=r"a hyperparameter is called 'trial', which a bundle uses itself"):
        imported(text, columns=TableColumns(trial="run"))


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (TableColumns(score="iteration"), "column iteration: is taken for the iteration and for the score"),
        (TableColumns(seconds="score"), "column score: is taken for the score and for the seconds"),
        (TableColumns(configuration=["score"]), "column score: is measured, so it is no hyperparameter"),
    ],
)
def test_a_column_has_one_meaning(imported, columns, told):
    with pytest.raises(InvalidTraceError, match=told):
        imported(TIDY, columns=columns)


def test_seconds_that_are_not_asked_for_are_left_out_and_no_hyperparameter(imported):
    assert "seconds" not in imported(TIDY, untimed=True).configurations[0]
    elapsed = imported(
        TIDY.replace("optimizer", "t").replace("sgd", "0").replace("adam", "0"), untimed=True, overwrite=True
    )
    assert elapsed.notes["imported"]["columns_left_out"] == ["seconds"]


def test_a_column_iteration_s_is_no_hyperparameter(imported):
    text = TIDY.replace("seconds", "iteration_s")
    with pytest.raises(InvalidTraceError, match=r"column iteration_s: is no hyperparameter: .* --seconds-column"):
        imported(text)
    bundle = imported(text, columns=TableColumns(seconds="iteration_s"))
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (2.0, [0.5, 1.5])


GROWING = "trial,iteration,score,seconds\n" + "".join(
    f"{trial},{iteration},1,{iteration * 10 + trial}\n" for trial in (0, 1) for iteration in (1, 2, 3, 4)
)


def test_seconds_that_grow_like_a_clock_are_refused_until_an_option_says_what_they_are(imported):
    with pytest.raises(InvalidTraceError, match="column seconds: grows from iteration to iteration in every trial"):
        imported(GROWING)
    assert imported(GROWING, columns=TableColumns(elapsed="seconds")).seconds.tolist()[0] == [10.0, 10.0, 10.0, 10.0]
    bundle = imported(GROWING, columns=TableColumns(seconds="seconds"), overwrite=True)
    assert bundle.seconds.tolist()[0] == [10.0, 20.0, 30.0, 40.0]


def test_seconds_that_fall_once_are_those_of_each_iteration(imported):
    assert imported(GROWING.replace("1,4,1,41", "1,4,1,30")).seconds.tolist()[1] == [11.0, 21.0, 31.0, 30.0]


def test_one_number_in_two_spellings_is_one_value_of_a_hyperparameter(imported):
    bundle = imported(TIDY.replace("0,2,0.8,1,0.1", "0,2,0.8,1,1e-1"))
    assert [configuration["lr"] for configuration in bundle.configurations] == [0.1, 0.2]


def test_one_number_in_two_spellings_is_no_two_trials(imported):
    with pytest.raises(InvalidTraceError, match=r"row 2, column trial: is 1\.0, but 1 elsewhere: write them alike"):
        imported("trial,iteration,score\n1,1,5\n1.0,2,4\n")


def test_what_a_bundle_cannot_hold_is_told_of_the_table_and_not_of_a_file_that_was_not_written(imported, out):
    with pytest.raises(InvalidTraceError, match=r"tidy\.csv, column min_gpus: trial 3: is 'low', but must be a number"):
        imported("trial,iteration,score,min_gpus\n3,1,5,low\n")
    assert not out.exists()


def test_a_wide_table_is_refused_with_what_to_do(imported):
    with pytest.raises(InvalidTraceError, match="if the table has a column for each iteration, make a row of each"):
        imported("trial,epoch_1,epoch_2\n0,5,4\n")
