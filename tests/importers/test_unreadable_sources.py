"""Texts, numbers and names that are no good table: one error that says what to do, never a traceback or another number."""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from tidy_tables import TIDY, rows

from elastune.experiments.sweeps.store import _read as read_part
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.sim.model.numbers import number_of
from elastune.traces import load_bundle
from elastune.traces.bundles.curves import read_curves
from elastune.traces.formats.csv_rows import read_rows
from elastune.traces.importers import CurveRules, Description, TableColumns, from_table, table_columns
from elastune.traces.importers.read_table import SourceTable

LATIN_1 = "trial,iteration,score,größe\n0,1,1,2\n".encode("latin-1")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", TIDY.encode("utf-16"), r"is no CSV text but UTF-16: save it as UTF-8"),
        ("t.csv", b"\xfe\xff" + TIDY.encode("utf-16-be"), r"is no CSV text but UTF-16: save it as UTF-8"),
        ("t.csv", TIDY.encode("utf-16-le"), r"is no CSV text: it holds bytes that no text has"),
        ("t.csv", LATIN_1, r"is no CSV text: its header is not UTF-8 \(byte 0xf6\); save it as UTF-8"),
        ("t.csv.gz", gzip.compress(LATIN_1, mtime=0), r"is no CSV text: its header is not UTF-8"),
        (
            "t.csv",
            TIDY.replace("sgd", "größe").encode("latin-1"),
            r"is no CSV text: column 6 of row 1 is not UTF-8; save it",
        ),
        ("t.csv.xz", lzma.compress(TIDY.encode()), r"is no CSV text but compressed with xz: unpack it"),
        ("t.xlsx", b"PK\x03\x04rest", r"is no CSV text but a zip archive or a workbook"),
        (
            "t.csv",
            gzip.compress(TIDY.encode(), mtime=0),
            r"is no CSV text but compressed with gzip: let its name end in \.gz",
        ),
        ("t.csv", TIDY.replace(",", ";").encode(), r"is separated by semicolons: save it with commas"),
        ("t.csv", TIDY.replace(",", "\t").encode(), r"is separated by tabs: save it with commas"),
        ("t.csv", b"# made by hand\n" + TIDY.encode(), r"begins with a comment"),
        ("t.csv.gz", gzip.compress(TIDY.encode(), mtime=0)[:-30], r"is no CSV text"),
        ("t.csv", bytes(range(256)), r"is no CSV text"),
    ],
)
def test_bytes_that_are_no_utf_8_text_are_refused_with_what_to_do(tmp_path, out, described, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidTraceError, match=message):
        from_table(tmp_path / name, out, described)
    if "header" in message:
        with pytest.raises(InvalidTraceError, match=message):
            table_columns(tmp_path / name)
    with pytest.raises(
        InvalidTraceError, match=r"is no CSV text|cannot be read|has no such column|header names|separated|comment"
    ):
        read_rows(tmp_path / name, ("trial",))


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path, out, described):
    (tmp_path / "t.csv").write_text(TIDY, encoding="utf-8-sig")
    assert from_table(tmp_path / "t.csv", out, described).trials == 2


@pytest.mark.parametrize("text", ["1_0", "010", "0x10", "1:30", "٣", "1,5", "1e400"])
@pytest.mark.parametrize("column", ["iteration", "score", "seconds", "test_score", "relative_cost"])
def test_what_python_or_yaml_alone_read_as_a_number_is_none(imported, text, column):
    cells = {"trial": "0", "iteration": "1", "score": "1", "seconds": "1", "test_score": "1", "relative_cost": "1"}
    cells[column] = f'"{text}"'
    with pytest.raises(InvalidTraceError, match=rf"row 1, column {column}: is .*, but must be a number"):
        imported(",".join(cells) + "\n" + ",".join(cells.values()) + "\n")


def test_a_hyperparameter_that_only_looks_like_a_number_stays_text(imported):
    text = rows((0, 1, 1, "010", "1_0", "1e-3"), (1, 1, 1, "011", "2_0", "2")).replace(
        "score\n", "score,code,name,lr\n"
    )
    assert imported(text).configurations == [
        {"code": "010", "name": "1_0", "lr": 0.001},
        {"code": "011", "name": "2_0", "lr": 2.0},
    ]


@pytest.mark.parametrize("largest", [2**63 - 1, 2**63, 2**64 - 1, 10**30])
def test_trials_with_large_numbers_are_kept_or_numbered(imported, out, largest):
    bundle = imported(rows((largest, 1, 0.9), (7, 1, 0.7)))
    assert bundle.scores.tolist() == [[0.9], [0.7]]
    if largest < 2**63:
        assert (out / "configs.csv").read_text() == f"trial\n{largest}\n7\n"
    else:
        assert (out / "trials.csv").read_text() == f"trial,recorded_as\n0,{largest}\n1,7\n"


def test_neighbouring_numbers_beyond_2_53_stay_two_trials(imported, tmp_path, out, described):
    bundle = imported(rows((2**53, 1, 0.9), (2**53 + 1, 1, 0.7)))
    assert bundle.scores.tolist() == [[0.9], [0.7]]
    frame = pd.DataFrame(
        {"trial": np.array([2**64 - 1, 2**64 - 2], dtype=np.uint64), "iteration": 1, "score": [0.9, 0.7]}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    assert from_table(tmp_path / "t.parquet", out, described, overwrite=True).scores.tolist() == [[0.9], [0.7]]
    with pytest.raises(InvalidTraceError, match=r"column trial: is the float 1.84467e\+19, which stands for several"):
        from_table(frame.astype({"trial": float}), out, described, overwrite=True)


def test_numpy_values_are_taken_wherever_a_number_or_a_text_is(out):
    frame = pd.DataFrame(
        {
            "trial": [np.int64(0), np.int64(1)],
            "iteration": [np.int32(1), np.int32(1)],
            "score": np.array([0.5, 0.25], dtype=np.float32),
            "lr": [np.float64(0.1), np.float64(0.2)],
            "wide": [np.bool_(True), np.bool_(False)],
            "betas": [np.array([0.9, 0.99]), [np.float64(0.8), 0.88]],
        }
    )
    others = {"iteration_s": np.float64(40), "data_bytes": np.int64(7), "straggler": {"persistent_cv": np.float32(0.5)}}
    description = Description(
        name="toy",
        source="here",
        licence="CC0-1.0",
        direction="minimize",
        others={**others, "scaling": {1: np.float64(1)}},
    )
    bundle = from_table(
        frame,
        out,
        description,
        columns=TableColumns(configuration=["lr", "wide", "betas"]),
        rules=CurveRules(iterations=np.int64(1)),
    )
    assert (bundle.iteration_s, bundle.data_bytes, bundle.stragglers.persistent_cv) == (40.0, 7.0, 0.5)
    assert bundle.configurations == [
        {"lr": 0.1, "wide": True, "betas": "[0.9, 0.99]"},
        {"lr": 0.2, "wide": False, "betas": "[0.8, 0.88]"},
    ]


def test_a_hyperparameter_that_two_tables_tell_apart_is_refused_and_names_both_rows(write, out, described):
    configs = write("trial,lr\n1,0.3\n0,0.10\n", "configs.csv")
    with pytest.raises(
        InvalidTraceError, match=r"tidy.csv, row 4, column lr: is '0.2', but '0.3' in row 1 of .*configs.csv"
    ):
        from_table(write(TIDY), out, described, configurations=configs)


def test_a_file_that_a_bundle_names_is_blamed_by_its_own_name(write, out):
    scaling = write("gpus,speedup\n1,1\n2,fast\n", "speed.csv")
    others = {"scaling": str(scaling)}
    with pytest.raises(InvalidTraceError) as error:
        from_table(
            write(TIDY), out, Description(name="x", source="s", licence="l", direction="minimize", others=others)
        )
    assert str(error.value) == f"{scaling}, row 2, column speedup: is 'fast', but must be a number"
    assert not out.exists()


def test_a_quotation_mark_that_is_never_closed_does_not_fill_the_screen(imported):
    with pytest.raises(InvalidTraceError, match=r"row 1, column score: is .0\.5") as told:
        imported('trial,iteration,score\n0,1,"0.5\n' + "0,2,0.4\n" * 1000)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("name", ["t.csv", "bundle/bundle.yaml", "bundle/curves.parquet", "bundle/configs.csv"])
def test_a_pipe_is_refused_because_it_may_never_end(imported, tmp_path, out, described, name):
    imported(TIDY)
    (tmp_path / "bundle").mkdir()
    for file in out.iterdir():
        (tmp_path / "bundle" / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(InvalidTraceError, match="is a pipe or a device, but must be a file"):
        load_bundle(tmp_path / "bundle") if "/" in name else from_table(tmp_path / name, tmp_path / "other", described)


def test_columns_without_a_name_are_left_out_and_counted(imported):
    bundle = imported(",trial,iteration,score,\n5,0,1,3,x\n6,0,2,2,x\n")
    assert bundle.configurations == [{}]
    assert bundle.notes["imported"]["columns_left_out"] == ["(without a name)", "(without a name)"]


@pytest.mark.parametrize(
    "text", ["0", "12", "-0.5", "1e5", "1E-3", "1.5e+3", "+2", ".5", "1.", "123456789012345678901", "nan"]
)
def test_quick_and_careful_reading_give_the_same_number(imported, text):
    bundle = imported(f"trial,iteration,score\n0,1,{text}\n")
    assert repr(float(bundle.scores[0, 0])) == repr(float(number_of(text, is_score=True)))


@pytest.mark.parametrize("text", ["1e400", "-1e9999", "01", "1_0", "0x1", "1e", "--1", "1 2", "1" * 500])
def test_quick_reading_takes_nothing_that_careful_reading_refuses(imported, text):
    with pytest.raises(InvalidTraceError, match=r"row 1, column score: is .*, but must be a number"):
        imported(f"trial,iteration,score\n0,1,{text}\n")


@pytest.mark.parametrize("before", ["", "\n", "\r\n\r\n"])
def test_rows_are_counted_below_the_header_whatever_stands_above_it(imported, before):
    with pytest.raises(InvalidTraceError, match=r"row 2, column score: is 'x'"):
        imported(before + "trial,iteration,score\n0,1,1\n0,2,x\n")
    with pytest.raises(InvalidTraceError, match=r"row 2: has 2 cells, but the header names 3"):
        imported(before + "trial,iteration,score\n0,1,1\n0,2\n")


def test_a_name_of_a_column_may_hold_a_line_break(imported):
    bundle = imported('trial,iteration,score,"learning\nrate"\n0,1,1,5\n')
    assert bundle.configurations == [{"learning\nrate": 5}]


@pytest.mark.parametrize("times", range(3))
def test_a_header_that_is_no_text_does_not_abort_the_process(tmp_path, times):
    """Arrow's reader of headers did so in some of the runs, when Python ended."""
    (tmp_path / "t.csv").write_bytes(LATIN_1)
    code = (
        "from elastune.traces.importers import table_columns; from elastune.sim.model.errors import InputError\n"
        f"from pathlib import Path\ntry: table_columns(Path({str(tmp_path / 't.csv')!r}))\nexcept InputError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "refused\n"), f"time {times}: {done.stderr}"


def test_a_parquet_file_whose_names_are_no_text_is_told_by_every_reader(tmp_path):
    file = tmp_path / "curves.parquet"
    pd.DataFrame({"trial": [0], "iteration": [1], "score": [0.9], "zzzzzz": [1]}).to_parquet(file)
    file.write_bytes(file.read_bytes().replace(b"zzzzzz", b"\xfd\xfe\xff\xfd\xfe\xff"))
    for read in (lambda: SourceTable.of(file), lambda: read_curves(file, (0,), 1, ()), lambda: read_part(file)):
        with pytest.raises(InputError, match=r"parquet.*can't decode byte 0xfd"):
            read()
