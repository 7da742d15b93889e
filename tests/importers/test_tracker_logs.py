"""Logs of W&B and stores of MLflow, read without these libraries: damage is told, and nothing is written where it is read."""

from __future__ import annotations

import math
import os
import sqlite3
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.importers.mlflow_runs import _copied
from elastune.traces.importers.wandb_runs import _Log


def framed(*records):
    """A file as wandb writes it, each record whole."""
    parts = [b":W&B\xe1\xbe\x00"]
    for record in records:
        checksum = zlib.crc32(record, zlib.crc32(b"\x01"))
        parts.append(struct.pack("<IHB", checksum, len(record), 1) + record)
    return b"".join(parts)


@pytest.fixture
def log(tmp_path):
    def write(content):
        file = tmp_path / "run-a.wandb"
        file.write_bytes(content)
        return _Log(file)

    return write


@pytest.mark.parametrize(
    ("tail", "is_cut_short"), [(b"", False), (framed(b"three")[7:-2], True), (b"\x01", True), (bytes(40), False)]
)
def test_a_log_of_wandb_says_whether_it_ends_within_a_record(log, tail, is_cut_short):
    read = log(framed(b"one", b"two") + tail)
    assert list(read._framed()) == [b"one", b"two"]
    assert read.is_cut_short == is_cut_short


def test_a_byte_that_changed_in_a_log_of_wandb_is_told(log):
    with pytest.raises(InvalidTraceError, match=r"run-a\.wandb, row 2: is damaged: a checksum does not fit"):
        list(log(framed(b"one", b"0.7").replace(b"0.7", b"0.1"))._framed())


def test_a_pipe_is_no_log_of_wandb(tmp_path):
    os.mkfifo(tmp_path / "run-a.wandb")
    with pytest.raises(InvalidTraceError, match="is a pipe or a device, but must be a file"):
        list(_Log(tmp_path / "run-a.wandb")._framed())


@pytest.mark.parametrize("text", ["{", "", "9" * 5000, "[" * 100_000])
def test_values_of_wandb_that_are_no_json_are_told(log, text):
    item = SimpleNamespace(key="loss", nested_key=[], value_json=text)
    with pytest.raises(InvalidTraceError, match="row 3, column loss: is malformed JSON"):
        log(framed()).values(3, [item])


def test_numbers_that_wandb_writes_as_texts_are_numbers(log):
    read = log(framed())
    assert [read.number(1, "loss", value) for value in (2, 0.5, "Infinity", "-Infinity", True, "1", None, [1])] == [
        *(2.0, 0.5, math.inf, -math.inf),
        *(None, None, None, None),
    ]
    assert math.isnan(read.number(1, "loss", "NaN"))
    with pytest.raises(InvalidTraceError, match="row 1, column loss: is larger than"):
        read.number(1, "loss", 10**400)


def test_mlflow_opens_copies_only(tmp_path):
    run = tmp_path / "mlruns" / "1" / "abc"
    (run / "artifacts").mkdir(parents=True)
    (run / "artifacts" / "model.bin").write_bytes(b"large")
    (run / "meta.yaml").write_text("a: 1")
    with _copied(str(tmp_path / "mlruns")) as copy:
        assert copy != str(tmp_path / "mlruns")
        found = {path.relative_to(copy).as_posix() for path in Path(copy).rglob("*")}
    assert found == {"1", "1/abc", "1/abc/artifacts", "1/abc/meta.yaml"}
    with sqlite3.connect(tmp_path / "ml.db") as database:
        database.execute("create table t (a)")
    database.close()
    with _copied(f"sqlite:///{tmp_path}/ml.db") as copy:
        assert copy.startswith("sqlite:///")
        assert str(tmp_path / "ml.db") not in copy
        assert Path(copy.removeprefix("sqlite:///")).read_bytes() == (tmp_path / "ml.db").read_bytes()
    with _copied("http://localhost:5000") as same:
        assert same == "http://localhost:5000"


@pytest.mark.parametrize("store", ["mlruns", "sqlite:///no.db"])
def test_a_store_of_mlflow_that_is_not_there_is_not_made(tmp_path, monkeypatch, store):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"{store}: there is no such "), _copied(store):
        pass
    assert not list(tmp_path.iterdir())
