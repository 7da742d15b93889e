from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune import traces
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.sim.model.node_scaling import AllReduceScaling, Link, PlacedTableScaling
from elastune.sim.model.scaling import AmdahlScaling, LinearScaling, PowerScaling, TableScaling

DECREASING = {"bert-a100": "32, 64", "gpt2-a100": "64", "resnet50-cifar10-a100": "8", "bert-t4": "5"}

BY_SECONDS = {
    "family": "allreduce",
    "kind": "weak",
    "compute_s": 0.5,
    "serial_s": 0.1,
    "max_gpus": 32,
    "intra_latency_s": 0.001,
    "intra_transfer_s": 0.02,
    "inter_transfer_s": 0.4,
}
# 440 MB of gradients at 22 GB/s within a node and 1.1 GB/s between nodes.
BY_BYTES = {
    "family": "allreduce",
    "kind": "strong",
    "compute_s": 0.5,
    "gradient_bytes": 440e6,
    "intra_bytes_per_s": 22e9,
    "inter_bytes_per_s": 1.1e9,
}


@pytest.fixture
def write_csv(tmp_path):
    def write(text):
        path = tmp_path / "speed.csv"
        path.write_text(text)
        return path

    return write


def test_the_published_speedups_ship():
    assert traces.scaling_named("resnet50-v100").points == {1: 1.0, 2: 1.87, 4: 3.421, 8: 5.598}
    assert traces.scaling_named("vgg16-a100").points[64] == 15.72
    assert traces.scaling_named("imagenet-resnet50-v100").speedup(8) == 4.29
    assert len(traces.scaling_names()) == 11


def test_a_table_by_gpus_and_nodes_ships():
    bert = traces.scaling_named("bert-t4")
    # Placement matters: 4 T4 in one node, over two, over four.
    assert [bert.speedup(4, nodes) for nodes in (1, 2, 4)] == [3.851, 1.762, 2.507]
    assert (bert.kind, bert.max_gpus) == ("weak", 16)


@pytest.mark.parametrize("name", [name for name in traces.scaling_names() if name not in DECREASING])
def test_of_a_shipped_table_that_rises_nothing_is_told(name):
    assert traces.slower_phrase(traces.scaling_named(name)) == ""
    assert traces.measured_table(name).slower == ()


@pytest.mark.parametrize(("name", "gpus"), DECREASING.items())
def test_a_table_that_decreases_is_accepted_and_says_which_gangs_are_slower(name, gpus):
    phrase = f"{gpus} GPUs are slower than the next smaller gang; planners use the non-decreasing envelope"
    assert traces.slower_phrase(traces.scaling_named(name)) == phrase
    assert ", ".join(map(str, traces.measured_table(name).slower)) == gpus
    terms = traces.tiny_bundle([[1.0]], scaling=traces.scaling_named(name)).terms()
    assert terms.provenance["scaling"].endswith(f"; {phrase}")


def test_an_unknown_name_is_an_error_that_names_the_nearest():
    with pytest.raises(InputError, match=r"no scaling 'resnet-50-v100'; did you mean 'resnet50-v100'\? known: bert"):
        traces.scaling_of("resnet-50-v100")


@pytest.mark.parametrize(
    ("value", "scaling"),
    [
        ("linear", LinearScaling()),
        ("resnet18-v100", TableScaling({1: 1.0, 2: 1.854, 4: 3.426, 8: 5.398}, "weak")),
        ({1: 1, 2: 1.7}, TableScaling({1: 1.0, 2: 1.7})),
        ({"1": 1, "2": 1.7}, TableScaling({1: 1.0, 2: 1.7})),
        ({"amdahl": 0.1}, AmdahlScaling(0.1)),
        ({"power": 0.8, "max_gpus": 16}, PowerScaling(0.8, 16)),
        ({"power": 0.8, "kind": "weak"}, PowerScaling(0.8, kind="weak")),
        ({1: 1, 2: 1.7, "kind": "strong"}, TableScaling({1: 1.0, 2: 1.7}, "strong")),
        ({1: 1, 2: 1.7, "2x2": 1.1}, PlacedTableScaling({(1, 1): 1.0, (2, 1): 1.7, (2, 2): 1.1})),
        ({"family": "linear", "max_gpus": 8}, LinearScaling(8)),
        ({"family": "amdahl", "serial": 0.1, "kind": "strong"}, AmdahlScaling(0.1, kind="strong")),
        ({"family": "power", "exponent": 0.8}, PowerScaling(0.8)),
        ({"family": "table", "points": {1: 1, "4x2": 2}}, PlacedTableScaling({(1, 1): 1.0, (4, 2): 2.0})),
        (BY_SECONDS, AllReduceScaling(0.5, Link(0.001, 0.02), Link(0.0, 0.4), "weak", 0.1, 32)),
        (BY_BYTES, AllReduceScaling(0.5, Link(0.0, 0.02), Link(0.0, 0.4), "strong")),
        (PowerScaling(0.5), PowerScaling(0.5)),
    ],
)
def test_a_scaling_is_given_in_many_ways(value, scaling):
    assert traces.scaling_of(value) == scaling


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, r"a table of speed-ups starts with 1 GPU at 1.0"),
        ({2: 1.7}, r"a table of speed-ups starts with 1 GPU at 1.0"),
        ({1: 1, 2: -1}, r"the speed-up of 2 GPUs is -1.0, but must be positive"),
        ({1: 1, 2: "fast"}, r"the speed-up of 2 GPUs is 'fast', but must be a number"),
        ({"amdal": 0.1}, r"'amdal' is neither a number of GPUs nor one of .*; did you mean 'amdahl'\?"),
        ({"amdahl": 0.1, "power": 0.8}, r"exactly one of amdahl and power"),
        ({"max_gpus": 8}, r"exactly one of amdahl and power"),
        ({"amdahl": True}, r"scaling.amdahl is True, but must be a number"),
        ({"family": "amdal"}, r"there is no family of scalings 'amdal'; did you mean 'amdahl'\?"),
        ({"family": "amdahl"}, r"scaling amdahl: serial is missing"),
        ({"family": "amdahl", "seriell": 1}, r"no key of scaling amdahl 'seriell'; did you mean 'serial'\?"),
        ({"family": "power", "exponent": 2}, r"the exponent is 2.0, but must be between 0 and 1"),
        ({"family": "table"}, r"scaling table: points is missing"),
        (
            {"family": "table", "points": {"4y2": 1}},
            r"'4y2' is no gang: give GPUs, as in 8, or GPUs x nodes, as in 16x2",
        ),
        ({1: 1, "kind": "big"}, r"scaling.kind is 'big', but must be weak .* or strong"),
        ({**BY_BYTES, "kind": "unstated"}, r"scaling allreduce: kind is missing"),
        ({**BY_BYTES, "inter_bytes_per_s": 0}, r"scaling.inter_bytes_per_s is 0, but must be positive"),
        ({**BY_BYTES, "inter_transfer_s": 1}, r"inter_transfer_s and inter_bytes_per_s are both given"),
        (
            {"family": "allreduce", "kind": "weak", "compute_s": 1},
            r"intra_transfer_s is missing, or gradient_bytes and",
        ),
        ({"amdahl": 2}, r"the serial share is 2.0, but must be between 0 and 1"),
        ({"power": 0.8, "max_gpus": 1.5}, r"max_gpus is 1.5, but must be a whole number"),
        (3, r"scaling is 3, but must be a name"),
        ("x.csv#gpus", r"'gpus' is no list of filters; they are as in workload=bert"),
    ],
)
def test_a_bad_scaling_is_an_error_that_says_what_is_wrong(value, message):
    with pytest.raises(InputError, match=message):
        traces.scaling_of(value)


@pytest.mark.parametrize(
    "text",
    [
        "gpus,speedup\n1,1\n2,1.6\n4,2.5\n",
        "gpus,iteration_s\n1,100\n2,62.5\n4,40\n",
        "gpus,samples_per_s\n4,250\n1,100\n2,160\n",
        "gpus,nodes,speedup\n1,1,1\n2,1,1.6\n4,1,2.5\n",
        "gpus,nodes,speedup\n1,,1\n2,,1.6\n4,,2.5\n",
        "gpus,kind,step_s\n1,strong,100\n2,strong,62.5\n4,strong,40\n",
        "gpus,mode,step_s\n1,weak,100\n2,weak,125\n4,weak,160\n",  # a step of 2 GPUs does twice the work
    ],
)
def test_a_csv_may_hold_speedups_seconds_or_rates(write_csv, text):
    assert traces.scaling_of(str(write_csv(text))).points == pytest.approx({1: 1.0, 2: 1.6, 4: 2.5})


def test_rows_on_several_nodes_make_a_table_by_gpus_and_nodes(write_csv):
    read = traces.scaling_of(str(write_csv("gpus,nodes,kind,speedup\n1,1,weak,1\n2,2,weak,1.1\n2,1,weak,1.6\n")))
    assert read == PlacedTableScaling({(1, 1): 1.0, (2, 1): 1.6, (2, 2): 1.1}, "weak")


def test_filters_choose_the_rows_of_one_workload(write_csv):
    path = write_csv("model,batch,gpus,speedup\na,64,1,1\na,64,2,1.5\na,128,1,1\na,128,2,1.9\nb,64,1,1\n")
    assert traces.scaling_of(f"{path}#model=a,batch=128").points == {1: 1.0, 2: 1.9}
    with pytest.raises(InvalidTraceError, match=r"row 3, column gpus: 1 GPUs were already given in row 1; filter"):
        traces.scaling_of(f"{path}#model=a")
    with pytest.raises(InvalidTraceError, match=r"has no row with model=c"):
        traces.scaling_of(f"{path}#model=c")
    with pytest.raises(InvalidTraceError, match=r"column size: has no such column; its columns: model, batch"):
        traces.scaling_of(f"{path}#size=1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes,speedup\n1,1\n", r"column gpus: has no such column"),
        ("gpus,rate\n1,1\n", r"has none of the columns speedup, iteration_s, step_s, samples_per_s"),
        ("gpus,speedup\n4,3\n2,1.7\n", r"row 2, column gpus: has no row for 1 GPU, .*, of 2\. Add a row for 1 GPU"),
        ("gpus,speedup\n2,3\n1,2\n", r"row 2, column speedup: is 2, but a table of speed-ups starts with 1 GPU at 1.0"),
        ("gpus,nodes,speedup\n1,1,1\n2,,2\n", r"row 2, column nodes: is empty"),
        ("gpus,nodes,speedup\n1,1,1\n2,3,2\n", r"row 2, column nodes: is 3, but 2 GPUs fit on at most as many nodes"),
        (
            "gpus,nodes,speedup\n1,1,1\n2,2,2\n2,2,2\n",
            r"row 3, column gpus: 2 GPUs on 2 nodes were already given in row 2",
        ),
        ("gpus,step_s\n1,1\n", r"column step_s: needs a column kind: in weak scaling a step of p GPUs does p times"),
        ("gpus,kind,speedup\n1,weak,1\n2,big,2\n", r"row 2, column kind: is 'big', but must be weak or strong"),
        ("gpus,kind,speedup\n1,weak,1\n2,strong,2\n", r"row 2, column kind: is 'strong', but row 1 is 'weak'; filter"),
        ("gpus,speedup\n1,1\n2,0\n", r"row 2, column speedup: is 0, but must be positive"),
        ("gpus,speedup\n1,1\n2.5,2\n", r"row 2, column gpus: is 2.5, but must be a whole number"),
        ("gpus,speedup\n1,1\n0,2\n", r"row 2, column gpus: is 0, but must be at least 1"),
    ],
)
def test_a_bad_csv_is_an_error_that_names_the_row(write_csv, text, message):
    with pytest.raises(InvalidTraceError, match=message):
        traces.load_scaling(write_csv(text))


def test_a_csv_that_is_absent_is_named(tmp_path):
    with pytest.raises(InvalidTraceError, match=r"none\.csv: cannot be read: No such file"):
        traces.scaling_of(str(tmp_path / "none.csv"))


@given(st.lists(st.floats(0.1, 1000.0), min_size=1, max_size=6))
def test_seconds_and_rates_of_the_same_runs_give_the_same_speedups(seconds):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        tables = []
        for column, measured in (("iteration_s", seconds), ("samples_per_s", [1 / s for s in seconds])):
            path = Path(folder) / f"{column}.csv"
            rows = [f"{gpus},{number!r}\n" for gpus, number in enumerate(measured, start=1)]
            path.write_text(f"gpus,{column}\n{''.join(rows)}")
            tables.append(traces.load_scaling(path).points)
    assert tables[0] == pytest.approx(tables[1])


def test_the_shared_tables_agree_with_the_shipped_ones(shared_data):
    table = shared_data / "scaling" / "strong_a100_elasticflow.csv"
    read = traces.scaling_of(f"{table}#workload=vgg16,global_batch=256")
    assert isinstance(read, PlacedTableScaling)  # it says that 16 GPUs were on 2 nodes
    shipped = traces.scaling_named("vgg16-a100")
    assert {gpus: read.speedup(gpus) for gpus in shipped.points} == pytest.approx(dict(shipped.points), abs=0.005)
    assert read.kind == shipped.kind == "strong"
    table = shared_data / "scaling" / "weak_v100_hypersched.csv"
    assert traces.scaling_of(f"{table}#workload=resnet101") == traces.scaling_named("resnet101-v100")


@pytest.mark.parametrize(
    "value",
    [
        {"family": "linear", "max_gpus": 8},
        {"amdahl": 0.1, "kind": "weak"},
        {"power": 0.8, "max_gpus": 16},
        {1: 1, 2: 1.7, "kind": "strong"},
        {1: 1, "2x2": 1.1},
        BY_SECONDS,
        BY_BYTES,
    ],
)
def test_what_a_spec_holds_for_a_scaling_means_the_same_scaling(value):
    scaling = traces.scaling_of(value)
    assert traces.scaling_of(traces.inline_of(scaling)) == scaling


def test_a_scaling_of_no_family_cannot_be_written_down():
    from elastune.sim.model.node_scaling import OnMachines

    with pytest.raises(InputError, match="OnMachines is of no family that a spec can hold: linear, amdahl, power"):
        traces.inline_of(OnMachines(LinearScaling(), 4))


def test_tables_may_be_compressed(tmp_path):
    import gzip

    path = tmp_path / "speed.csv.gz"
    path.write_bytes(gzip.compress(b"gpus,speedup\n1,1\n2,1.6\n"))
    assert traces.scaling_of(str(path)) == TableScaling({1: 1.0, 2: 1.6})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InvalidTraceError, match=r"speed\.csv\.gz: is no CSV text: Compressed file ended before"):
        traces.scaling_of(str(path))
    path.write_bytes(b"gpus,speedup")
    with pytest.raises(InvalidTraceError, match=r"speed\.csv\.gz: cannot be read: Not a gzipped file"):
        traces.scaling_of(str(path))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1: 1, 2: 1.9, "2": 1.5}, r"scaling: 2 is given twice; keep one"),
        ({1: 1, 2: 1.9, "2x1": 1.5}, r"scaling: 2 GPUs on 1 nodes are given twice, once as 2x1; keep one"),
        ({1: 1, "02": 1.5}, r"scaling: '02' is neither a number of GPUs nor one of"),
        ({1: 1, 10**9: 2}, r"'1000000000' is no gang: it has 1 to 100000 GPUs"),
        (
            {"family": "linear", "max_gpus": 10**9},
            r"scaling.max_gpus is 1e\+09, but must be a whole number from 1 to 100000",
        ),
        ({1: 1, 2: "1_9"}, r"the speed-up of 2 GPUs is '1_9', but must be a number"),
    ],
)
def test_inline_speedups_that_contradict_themselves_or_have_no_end_are_refused(value, message):
    with pytest.raises(InputError, match=message):
        traces.scaling_of(value)


def test_two_columns_of_a_table_say_the_same_or_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("gpus,speedup,iteration_s\n1,1,10\n2,1.9,5.26\n")
    assert traces.load_scaling(path).points == {1: 1.0, 2: 1.9}
    path.write_text("gpus,speedup,iteration_s\n1,1,10\n2,1.9,9\n")
    with pytest.raises(
        InvalidTraceError, match=r"row 2, column iteration_s: means a speed-up of 1.111, but speedup one of 1.9"
    ):
        traces.load_scaling(path)
    path.write_text("gpus,speedup\n1,1\n100001,2\n")
    with pytest.raises(InvalidTraceError, match=r"row 2, column gpus: is 100001, but must be at most 100000"):
        traces.load_scaling(path)


def test_numpy_numbers_are_taken_inline():
    import numpy as np

    scaling = traces.scaling_of({np.int64(1): np.int64(1), np.int64(2): np.float64(1.5)})
    assert scaling == traces.scaling_of({1: 1, 2: 1.5})
    assert traces.startup_of({"queue_s": np.int64(3)}) == traces.startup_of({"queue_s": 3})
    assert traces.tail_of({"samples": np.array([1.0, 2.0])}) == traces.tail_of({"samples": [1, 2]})
    with pytest.raises(InputError, match=r"startup.queue_s is 1700000000.0, more than 1e\+08 s .*since 1970"):
        traces.startup_of({"queue_s": 1.7e9})
    with pytest.raises(InputError, match=r"tail.samples holds '2_0', but must hold numbers"):
        traces.tail_of({"samples": [1, "2_0"]})


@pytest.mark.parametrize("name", ["a#b.csv", "a#model=b.csv", "a#1/b#2.csv"])
def test_a_file_whose_name_holds_a_number_sign_is_read_and_no_other(tmp_path, name):
    (tmp_path / "a").write_text("gpus,speedup\n1,1\n2,1.1\n")
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("model,gpus,speedup\nx,1,1\nx,2,1.9\ny,1,1\ny,2,1.5\n")
    assert traces.scaling_of(f"{file}#model=y").points == {1: 1.0, 2: 1.5}
    file.write_text("gpus,speedup\n1,1\n2,1.9\n")
    assert traces.scaling_of(str(file)).points == {1: 1.0, 2: 1.9}


@pytest.mark.parametrize("text", ["gpus,speedup\n1,1\n2,1e300\n", "gpus,iteration_s\n1,1.7e9\n2,1\n"])
def test_a_speedup_beyond_all_reason_is_refused(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(
        InvalidTraceError, match=r"row 2, column .*: means a speed-up of .* on 2 GPUs: was another amount"
    ):
        traces.scaling_of(str(tmp_path / "x.csv"))
