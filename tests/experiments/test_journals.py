"""Journals are read as they lie there: plain, or compressed as sweeps keep them."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from test_sweep_spec import BASE
from typer.testing import CliRunner

from elastune import RunSpec, execute
from elastune.experiments.cli.app import app
from elastune.experiments.runs.journals import entries_of, header_of
from elastune.experiments.runs.replay import replay_journal
from elastune.sim.control.journal import read_entries, read_header
from elastune.sim.model.errors import InputError


@pytest.fixture
def journal(tmp_path):
    execute(RunSpec.of(**BASE), journal=tmp_path / "plain.jsonl")
    return tmp_path / "plain.jsonl"


@pytest.fixture
def compressed(journal, tmp_path):
    path = tmp_path / "run.jsonl.zst"
    path.write_bytes(pa.compress(journal.read_bytes(), codec="zstd", asbytes=True))
    return path


def told(command, path):
    done = CliRunner().invoke(app, [command, str(path), "--json"])
    assert done.exit_code == 0, done.stderr
    return {**json.loads(done.stdout), "journal": None}


def test_a_compressed_journal_is_read_as_the_plain_one(journal, compressed):
    assert header_of(compressed) == header_of(journal) == read_header(journal)
    assert list(entries_of(compressed)) == list(entries_of(journal)) == list(read_entries(journal))


@pytest.mark.parametrize("command", ["replay", "ledger"])
def test_commands_take_either_whatever_its_name(command, journal, compressed, tmp_path):
    renamed = compressed.rename(tmp_path / "journal")
    assert told(command, renamed) == told(command, journal)


@pytest.mark.parametrize("command", ["replay", "ledger"])
def test_a_torn_file_is_told(command, compressed, tmp_path):
    torn = tmp_path / "torn.zst"
    torn.write_bytes(compressed.read_bytes()[:-200])
    failed = CliRunner().invoke(app, [command, str(torn)])
    assert (failed.exit_code, failed.stderr.count("\n")) == (2, 1)
    assert failed.stderr.startswith(f"error: {torn}: cannot be read: ")
    assert "None" not in failed.stderr


@pytest.mark.parametrize(("spec", "problem"), [({}, "job is missing"), ({"cls": 1}, "unknown key cls")])
def test_a_header_whose_spec_is_none_is_told_with_its_file(tmp_path, spec, problem):
    header = {"type": "Header", "spec": spec, "digest": "", "versions": {}, "data_sha256": {}}
    (tmp_path / "j").write_text(json.dumps(header) + "\n")
    with pytest.raises(InputError, match=rf"j, line 1: its spec is none: {problem}"):
        replay_journal(tmp_path / "j")


def test_a_device_is_no_journal():
    with pytest.raises(InputError, match=r"^/dev/zero: is a pipe or a device, but a journal is read more than once"):
        replay_journal("/dev/zero")


def test_what_is_no_journal_is_told(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    for path, message in (
        (tmp_path / "empty", "empty, line 1: is empty, but must hold the header of a journal"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(InputError, match=message):
            header_of(path)
