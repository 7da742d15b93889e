from __future__ import annotations

import math
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from elastune import traces
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.sim.model.profile import Stragglers, Timings
from elastune.traces.bundles.curves import read_curves

NAN = math.nan
HEADER = """\
name: toy
direction: minimize
score: validation loss
iteration: one epoch
max_iterations: 3
source: worked out by hand
licence: CC0-1.0
"""


def curves_of(rows):
    """Columns from (trial, iteration, score) rows."""
    trial, iteration, score = zip(*rows, strict=True)
    return {"trial": list(trial), "iteration": list(iteration), "score": list(score)}


def test_a_bundle_is_loaded_from_its_folder(write_bundle):
    bundle = traces.load_bundle(write_bundle())
    assert (bundle.name, bundle.direction, bundle.max_iterations, bundle.trials) == ("toy", "minimize", 3, 2)
    assert bundle.scores.tolist() == [[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]
    assert bundle.configurations == [{"lr": 0.1, "optimizer": "sgd"}, {"lr": 0.2, "optimizer": "adam"}]
    assert bundle.relative_cost.tolist() == [1.0, 1.0]
    assert (bundle.iteration_s, bundle.timings, bundle.scaling, bundle.stragglers) == (None, None, None, None)
    assert (bundle.test_scores, bundle.seconds, bundle.family) == (None, None, None)


def test_everything_a_bundle_may_record_is_loaded(write_bundle):
    header = f"""{HEADER}
trials: 2
iteration_s: 20
launch_s: 3
checkpoint_s: 1
checkpoint_bytes: 1000
data_bytes: 5000
straggler: {{persistent_cv: 0.05, per_iteration_cv: null}}
family: toys
schedule: constant
provenance: {{iteration_s: "measured: by hand", scaling: "assumed, from elsewhere"}}
note: a remark
"""
    configs = "trial,layers,wide,momentum,relative_cost\n0,2,true,,0.5\n1,3,False,0.9,1.5\n"
    curves = {
        "trial": [0, 0, 0, 1, 1, 1],
        "iteration": [1, 2, 3, 1, 2, 3],
        "score": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
        "seconds": [1.0, 1.0, 1.0, 3.0, 3.0, 3.0],
        "test_score": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    }
    bundle = traces.load_bundle(write_bundle(header, configs, curves, "gpus,nodes,speedup\n1,1,1\n2,1,1.7\n2,2,1.2\n"))
    assert bundle.iteration_s == 20.0
    assert bundle.timings == Timings(launch_s=3.0, checkpoint_s=1.0, rescale_s=4.0)
    assert bundle.stragglers == Stragglers(0.05, 0.0)
    assert bundle.scaling.speedup(2) == 1.7
    assert (bundle.checkpoint_bytes, bundle.data_bytes) == (1000, 5000)
    assert (bundle.family, bundle.schedule, bundle.notes) == ("toys", "constant", {"note": "a remark"})
    assert bundle.provenance["iteration_s"] == "measured: by hand"
    assert bundle.configurations == [
        {"layers": 2, "wide": True, "momentum": None},
        {"layers": 3, "wide": False, "momentum": 0.9},
    ]
    assert bundle.relative_cost.tolist() == [0.5, 1.5]
    assert bundle.seconds[1].tolist() == [3.0, 3.0, 3.0]
    assert bundle.test_scores[0].tolist() == [1.0, 2.0, 3.0]


def test_without_iteration_s_the_recorded_seconds_say_what_each_trial_costs(write_bundle):
    curves = curves_of([(0, 1, 0.5), (0, 2, NAN), (1, 1, 0.4), (1, 2, 0.3), (1, 3, 0.2)]) | {
        "seconds": [1.0, NAN, 2.0, 3.0, 4.0]
    }
    bundle = traces.load_bundle(write_bundle(curves=curves))
    assert (bundle.iteration_s, bundle.relative_cost.tolist()) == (2.0, [0.5, 1.5])
    configs = "trial,relative_cost\n0,2\n1,5\n"
    bundle = traces.load_bundle(write_bundle(curves=curves, configs=configs, name="costed"))
    assert bundle.relative_cost.tolist() == [2.0, 5.0]
    assert bundle.iteration_s == (1 + 2 + 3 + 4) / (1 * 2 + 3 * 5)


def test_a_bundle_may_name_a_shipped_scaling(write_bundle):
    bundle = traces.load_bundle(write_bundle(HEADER + "scaling: resnet50-v100\n"))
    assert bundle.scaling == traces.scaling_named("resnet50-v100")


def test_a_curve_that_ends_early_in_nan_is_padded_with_nan(write_bundle):
    curves = curves_of([(0, 1, 0.9), (0, 2, NAN), (1, 1, 0.6), (1, 2, 0.5), (1, 3, 0.4)])
    np.testing.assert_array_equal(traces.load_bundle(write_bundle(curves=curves)).scores[0], [0.9, NAN, NAN])


def test_trials_may_be_interleaved_and_in_another_order_than_their_configurations(write_bundle):
    curves = curves_of([(1, 1, 0.1), (0, 1, 0.5), (1, 2, 0.2), (0, 2, 0.6), (1, 3, 0.3), (0, 3, 0.7)])
    bundle = traces.load_bundle(write_bundle(configs="trial,lr\n1,0.2\n0,0.1\n", curves=curves))
    assert bundle.scores.tolist() == [[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]]
    assert [configuration["lr"] for configuration in bundle.configurations] == [0.2, 0.1]


def test_the_arrays_of_a_bundle_cannot_be_written(write_bundle):
    bundle = traces.load_bundle(write_bundle())
    with pytest.raises(ValueError, match="read-only"):
        bundle.scores[0, 0] = 0.0


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("name: [toy\n", r"bundle.yaml, line 2: malformed YAML: "),
        ("- toy\n", r"bundle.yaml: holds a list, but must hold keys and values"),
        ("", r"bundle.yaml: holds a NoneType"),
        (HEADER.replace("licence: CC0-1.0\n", ""), r"bundle.yaml, column licence: is required, but missing"),
        (HEADER.replace("minimize", "downwards"), r"column direction: is 'downwards', but must be 'minimize' or 'max"),
        (HEADER.replace("iterations: 3", "iterations: 0"), r"column max_iterations: Expected `int` >= 1"),
        (HEADER.replace("iterations: 3", "iterations: many"), r"column max_iterations: Expected `int`, got `str`"),
        (HEADER + "iteration_s: -1\n", r"column iteration_s: Expected `float` > 0.0"),
        (HEADER + "iteration_s: .inf\n", r"column iteration_s: is inf, but must be finite"),
        (HEADER + "lauch_s: 3\n", r"column lauch_s: is unknown; did you mean 'launch_s'\?"),
        (HEADER + "launch_s: 3\n", r"column checkpoint_s: launch_s and checkpoint_s are recorded together"),
        (HEADER + "checkpoint_s: 3\n", r"column launch_s: launch_s and checkpoint_s are recorded together"),
        (
            HEADER + "launch_s: 1\ncheckpoint_s: 3\nrescale_s: 2\n",
            r"column rescale_s: rescale_s is 2.0, but it contains",
        ),
        (HEADER + "straggler: {cv: 1}\n", r"column straggler: Object contains unknown field `cv`"),
        (HEADER + "scaling: resnet5-v100\n", r"column scaling: there is no scaling .* did you mean 'resnet50-v100'"),
        (
            HEADER + "provenance: {scores: guessed}\n",
            r"column provenance.scores: is 'guessed', but must begin with meas",
        ),
        (HEADER + "trials: 3\n", r"column trials: is 3, but configs.csv has 2"),
    ],
)
def test_a_bad_header_is_an_error_that_names_the_key(write_bundle, header, message):
    with pytest.raises(InvalidTraceError, match=message):
        traces.load_bundle(write_bundle(header))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, 1, 0.5), (0, 1, 0.5)], r"row 2, column iteration: iteration 1 of trial 0 appears twice"),
        ([(0, 1, 0.5), (0, 3, 0.5)], r"row 2, column iteration: trial 0 jumps from iteration 1 to 3"),
        ([(0, 0, 0.5)], r"row 1, column iteration: trial 0 starts at iteration 0, but iterations are counted from 1"),
        ([(1, 1, 0.5), (0, 2, 0.5)], r"row 2, column iteration: trial 0 starts at iteration 2"),
        ([(0, 1, 0.5), (0, 2, 0.5), (0, 1, 0.5)], r"row 3, .*iteration 1 of trial 0 comes after its iteration 2"),
        ([(0, 1.5, 0.5)], r"row 1, column iteration: is 1.5, but must be a whole number"),
        ([(0, NAN, 0.5)], r"row 1, column iteration: is nan, but must be a whole number"),
        ([(7, 1, 0.5)], r"row 1, column trial: trial 7 is not in configs.csv"),
        ([(0, 1, 0.5), (0, 2, NAN)], r"curves.parquet: trial 1 of configs.csv has no curve"),
        ([(0, 1, "bad")], r"column score: holds object, but must hold numbers"),
        (
            [(0, 1, 0.5), (0, 2, 0.5), (1, 1, NAN)],
            r"curves.parquet: trial 0 ends at iteration 2 of 3; only a curve whose last score is not finite",
        ),
        (
            [(0, 1, 0.5), (0, 2, 0.5), (0, 3, 0.5), (0, 4, 0.5)],
            r"row 4, column iteration: iteration 4 of trial 0 is beyond max_iterations \(3\)",
        ),
    ],
)
def test_a_bad_curve_is_an_error_that_names_the_row(write_bundle, rows, message):
    with pytest.raises(InvalidTraceError, match=message):
        traces.load_bundle(write_bundle(curves=curves_of(rows)))


def test_the_first_bad_row_of_the_file_is_named(write_bundle):
    curves = curves_of([(1, 1, 0.5), (1, 3, 0.5), (0, 1, 0.5), (0, 1, 0.5)])
    with pytest.raises(InvalidTraceError) as caught:
        traces.load_bundle(write_bundle(curves=curves))
    assert (caught.value.row, caught.value.column) == (2, "iteration")


@pytest.mark.parametrize("seconds", [-1.0, NAN, math.inf])
def test_recorded_seconds_are_numbers_of_at_least_0(write_bundle, seconds):
    curves = curves_of([(trial, k, 0.5) for trial in (0, 1) for k in (1, 2, 3)]) | {"seconds": [1.0] * 5 + [seconds]}
    with pytest.raises(InvalidTraceError, match=r"row 6, column seconds: is .*, but must be a number >= 0"):
        traces.load_bundle(write_bundle(curves=curves))


@pytest.mark.parametrize("column", ["trial", "iteration", "score"])
def test_a_missing_column_of_the_curves_is_named(write_bundle, column):
    curves = curves_of([(0, 1, 0.5)])
    del curves[column]
    with pytest.raises(InvalidTraceError, match=rf"curves.parquet, column {column}: has no such column"):
        traces.load_bundle(write_bundle(curves=curves))


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ("lr\n0.1\n", r"configs.csv, column trial: has no such column; its columns: lr"),
        ("trial,lr\n", r"configs.csv: has no rows"),
        ("", r"configs.csv, column trial: has no such column"),
        ("trial,lr\n0,0.1\n0,0.2\n", r"row 2, column trial: trial 0 was already given in row 1"),
        ("trial,lr\n0,0.1\nb,0.2\n", r"row 2, column trial: is 'b', but must be a number"),
        ("trial,lr\n0,0.1\n1.5,0.2\n", r"row 2, column trial: is 1.5, but must be a whole number"),
        ("trial,lr\n-1,0.1\n", r"row 1, column trial: is -1, but must be at least 0"),
        ("trial,lr\n0,0.1\n1\n", r"row 2: has 1 cells, but the header names 2"),
        ("trial,trial\n0,0\n", r"column trial: the header names it twice"),
        ("trial,relative_cost\n0,1\n1,-2\n", r"row 2, column relative_cost: is -2, but must be positive"),
        ("trial,relative_cost\n0,1\n1,\n", r"row 2, column relative_cost: is empty"),
        ("trial,relative_cost\n0,1\n1,inf\n", r"row 2, column relative_cost: is 'inf', but must be a finite number"),
    ],
)
def test_a_bad_table_of_configurations_is_an_error_that_names_the_row(write_bundle, configs, message):
    with pytest.raises(InvalidTraceError, match=message):
        traces.load_bundle(write_bundle(configs=configs))


@pytest.mark.parametrize("file", ["bundle.yaml", "configs.csv", "curves.parquet"])
def test_a_missing_file_is_named(write_bundle, file):
    folder = write_bundle()
    (folder / file).unlink()
    with pytest.raises(InvalidTraceError, match=rf"{file}: cannot be read: .*No such file"):
        traces.load_bundle(folder)


def test_curves_that_are_no_parquet_are_an_error(write_bundle):
    folder = write_bundle()
    (folder / "curves.parquet").write_text("trial,iteration,score\n0,1,0.5\n")
    with pytest.raises(InvalidTraceError, match=r"curves.parquet: is no parquet file"):
        traces.load_bundle(folder)


def test_bytes_that_are_no_text_are_an_error(write_bundle):
    folder = write_bundle()
    (folder / "configs.csv").write_bytes(b"trial,lr\n0,\xff\n")
    with pytest.raises(InvalidTraceError, match=r"configs.csv: is no CSV text"):
        traces.load_bundle(folder)


def test_a_bundle_has_its_scaling_in_one_place_only(write_bundle):
    folder = write_bundle(HEADER + "scaling: linear\n", scaling="gpus,speedup\n1,1\n2,2\n")
    with pytest.raises(InvalidTraceError, match=r"column scaling: is given, but there is a scaling.csv too"):
        traces.load_bundle(folder)


def test_an_unknown_name_is_an_error_that_names_the_nearest(write_bundle, tmp_path):
    write_bundle(name="digits-toy")
    message = r"there is no bundle 'digit-toy'; did you mean 'digits-toy'\? known: .*digits-toy.*folder"
    with pytest.raises(InputError, match=message):
        traces.load_bundle("digit-toy", search=[tmp_path])


def test_a_name_is_looked_up_in_the_folders_to_search(write_bundle, tmp_path):
    folder = write_bundle(name="toys/first")
    assert traces.load_bundle("first", search=[folder.parent]).name == "toy"
    assert "first" in traces.bundle_names([folder.parent])
    assert traces.bundle_names([tmp_path / "absent"]) == traces.bundle_names()


def test_every_shipped_bundle_loads():
    for name in traces.bundle_names():
        bundle = traces.load_bundle(name)
        assert bundle.name == name
        assert bundle.iteration_s > 0


def test_the_digest_depends_on_the_bytes_of_the_files_alone(write_bundle):
    first, second, other = write_bundle(name="a"), write_bundle(name="b"), write_bundle(HEADER + "note: x\n", name="c")
    (second / "remarks.txt").write_text("not part of the bundle")
    digests = [traces.load_bundle(folder).sha256 for folder in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]
    assert re.fullmatch("[0-9a-f]{64}", digests[0])


@settings(deadline=None, max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_was_written_is_read_whatever_the_interleaving(write_bundle, tmp_path_factory, data):
    trials = data.draw(st.integers(1, 4), label="trials")
    iterations = data.draw(st.integers(1, 4), label="iterations")
    scores = np.arange(trials * iterations, dtype=float).reshape(trials, iterations)
    turns = data.draw(st.permutations([trial for trial in range(trials) for _ in range(iterations)]), label="order")
    seen = [0] * trials
    rows = []
    for trial in turns:
        seen[trial] += 1
        rows.append((trial, seen[trial], scores[trial, seen[trial] - 1]))
    configs = "trial,lr\n" + "".join(f"{trial},0.1\n" for trial in range(trials))
    header = HEADER.replace("max_iterations: 3", f"max_iterations: {iterations}")
    folder = write_bundle(header, configs, curves_of(rows), name=tmp_path_factory.mktemp("bundle").name)
    np.testing.assert_array_equal(traces.load_bundle(folder).scores, scores)


def test_the_shared_bundles_load(shared_data):
    folders = sorted((shared_data / "bundles").iterdir())
    shapes = {folder.name: traces.load_bundle(folder).scores.shape for folder in folders}
    assert shapes["deepobs-cifar100-allcnnc"] == (108, 350)
    assert [shape for name, shape in shapes.items() if name.startswith("taskset")] == [(1000, 50)] * 8


def test_the_shared_bundles_have_no_timings_and_say_which_key_supplies_them(shared_data):
    bundle = traces.load_bundle("taskset-patch32-gru64-avg-bs128", search=[shared_data / "bundles"])
    assert bundle.test_scores.shape == (1000, 50)
    with pytest.raises(InputError, match=r"records no seconds per iteration: set workload\.iteration_s"):
        bundle.terms()


def test_a_bundle_is_read_again_only_where_its_bytes_changed(write_bundle):
    folder = write_bundle()
    first = traces.load_bundle(folder)
    assert traces.load_bundle(folder) is first
    (folder / "bundle.yaml").write_text(HEADER.replace("toy", "other"))
    assert traces.load_bundle(folder).name == "other"
    (folder / "curves.parquet").unlink()
    with pytest.raises(InvalidTraceError):
        traces.load_bundle(folder)


def test_a_scaling_in_another_file_is_read_every_time(write_bundle, tmp_path):
    table = tmp_path / "speed.csv"
    table.write_text("gpus,speedup\n1,1\n2,1.5\n")
    folder = write_bundle(header=f"{HEADER}scaling: {table}\n")
    assert traces.load_bundle(folder).scaling.speedup(2, 1) == 1.5
    table.write_text("gpus,speedup\n1,1\n2,1.9\n")
    assert traces.load_bundle(folder).scaling.speedup(2, 1) == 1.9


def test_curves_are_read_without_pandas():
    loaded = "import sys; from elastune import load_bundle; load_bundle('mnist5k-cnn'); print('pandas' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True).strip() == "False"


@given(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=40))
def test_scores_are_what_the_file_holds_wherever_some_are_missing(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("curves") / "curves.parquet"
    whole = [0.5, *scores]
    columns = {"trial": [0] * len(whole), "iteration": range(1, len(whole) + 1), "score": pa.array(whole, pa.float64())}
    parquet.write_table(pa.table(columns), path)
    read = read_curves(path, np.array([0]), len(whole)).scores[0]
    assert [None if math.isnan(score) else score for score in read] == whole
