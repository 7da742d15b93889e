"""Step times in the form of Pollux's artifact: a table made up by hand, and the real one."""

from __future__ import annotations

import pytest

from elastune import traces
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.importers.step_times import import_step_times

# One GPU: 1 s for 4 samples, 1.8 s for 8. Two GPUs of one node: half a second of synchronisation on top, of two nodes 1 s.
# Four GPUs over two nodes, in two placements.
TABLE = """\
workload,gpus,nodes,placement,kind,local_batch_size,step_time_s,sync_time_s
toy,1,1,1.0,placements,4,1.0,0.0
toy,1,1,1.0,placements,8,1.8,0.0
toy,2,1,2.0,placements,4,1.5,0.5
toy,2,1,2.0,placements,8,2.3,0.5
toy,2,2,11.0,placements,4,2.0,1.0
toy,2,2,11.0,placements,8,2.8,1.0
toy,4,2,22.0,placements,4,2.0,1.0
toy,4,2,31.0,placements,4,3.0,2.0
toy,4,4,,scalability,4,4.0,3.0
other,2,1,2.0,placements,4,1.0,0.0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text(TABLE)
    return path


def test_weak_scaling_does_the_work_of_every_gpu_in_a_step(file):
    found = import_step_times(file, "toy", "weak", 4)
    # 2 GPUs train 8 samples in 1.5 s, which takes one GPU 2 x 1.0 s; the two placements on two nodes take 2.5 s on average.
    expected = {(1, 1): 1.0, (2, 1): 2 / 1.5, (2, 2): 2 / 2.0, (4, 2): 4 / 2.5, (4, 4): 4 / 4.0}
    assert dict(found.scaling.points) == pytest.approx(expected)
    assert found.scaling.kind == "weak"
    assert found.notes == (
        "gangs measured in several placements on as many nodes: 1; the mean of their seconds counts",
    )


def test_strong_scaling_divides_the_batch(file):
    found = import_step_times(file, "toy", "strong", 8, {"kind": "placements"})
    # 8 samples: 1.8 s on one GPU, 4 each on two GPUs in 1.5 s or 2.0 s; 2 each on four were not measured.
    assert found.seconds == {(1, 1): 1.8, (2, 1): 1.5, (2, 2): 2.0}
    assert dict(found.scaling.points) == pytest.approx({(1, 1): 1.0, (2, 1): 1.2, (2, 2): 0.9})
    assert found.notes == (
        "gangs left out: 1, of 4 GPUs and more, whose share of the batch is below the smallest measured one, 4",
    )


def test_between_two_batches_seconds_are_linear(file):
    found = import_step_times(file, "toy", "strong", 12, {"kind": "placements"})
    # 6 each on two GPUs of one node: half way between 1.5 and 2.3 s. One GPU takes two passes of 6, each 1.4 s.
    assert found.seconds[2, 1] == pytest.approx(1.9)
    assert found.seconds[1, 1] == pytest.approx(2.8)
    assert "batches beyond the largest measured one are accumulated, in up to 2 passes" in found.notes[0]


def test_only_the_last_pass_of_an_accumulated_batch_synchronises(file):
    # 32 samples on two GPUs are two passes of 8 each: 1.8 s without, 2.3 s with synchronisation.
    assert import_step_times(file, "toy", "strong", 32).seconds[2, 1] == pytest.approx(4.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("tpy", "weak", 4), InputError, r"no workload in .*steps.csv 'tpy'; did you mean 'toy'\?"),
        (("toy", "weak", 5), InputError, r"a batch of 5 per GPU was not measured on 1 GPU; measured: 4, 8"),
        (("toy", "strong", 2), InputError, r"a batch of 2 on 1 GPU is below every measured one: 4, 8"),
        (
            ("other", "weak", 4),
            InvalidTraceError,
            r"column gpus: workload other has no row for 1 GPU, .* 2 GPUs on 1 nodes",
        ),
        (
            ("toy", "weak", 4, {"node": "1"}),
            InvalidTraceError,
            r"column node: has no such column; its columns: workload",
        ),
        (("toy", "weak", 4, {"kind": "x"}), InvalidTraceError, r"has no row with workload=toy, kind=x"),
    ],
)
def test_what_the_table_does_not_hold_is_refused(file, arguments, error, message):
    with pytest.raises(error, match=message):
        import_step_times(file, *arguments)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("toy,2,3,,,4,1.0,0.0", r"row 11, column nodes: is 3, but 2 GPUs fit on at most as many nodes"),
        ("toy,2,1,,,4,1.0,1.5", r"row 11, column sync_time_s: is 1.5, but the whole step takes 1"),
        ("toy,2,1,,,4,0,0", r"row 11, column step_time_s: is 0, but must be positive"),
        ("toy,2,1,,,4.5,1,0", r"row 11, column local_batch_size: is 4.5, but must be a whole number"),
    ],
)
def test_a_bad_row_is_named(file, row, message):
    file.write_text(TABLE + row + "\n")
    with pytest.raises(InvalidTraceError, match=message):
        import_step_times(file, "toy", "weak", 4)


def test_the_shipped_bert_is_what_the_shared_table_holds(shared_data):
    steps = shared_data / "scaling" / "step_times_t4_pollux.csv.gz"
    found = import_step_times(steps, "bert", "weak", 12, {"kind": "placements"}).scaling
    shipped = traces.scaling_named("bert-t4")
    assert dict(found.points) == pytest.approx(dict(shipped.points), abs=0.0005)


def test_two_rows_that_measure_the_same_are_refused_and_both_named(file):
    file.write_text(TABLE + "toy,4,2,31.0,placements,4,3.5,2.0\n")
    with pytest.raises(InvalidTraceError, match="row 11, column step_time_s: measures what row 8 does: keep one"):
        import_step_times(file, "toy", "weak", 4)
