"""Which folders a driver may end and remove: only one that proves to be this user's embedded cluster of this run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile

import psutil
import pytest

from elastune.sim.bridge.machines.cluster_folder import FOLDER_PREFIX, ClusterFolder
from elastune.sim.model.errors import InputError

NOT_OURS = r"is no embedded Ray cluster of this run and this user"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def sleeper(argument):
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(argument)])


def test_a_folder_is_private_and_its_note_is_read_back():
    folder = ClusterFolder.create()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert ClusterFolder.of_note(folder.note()) == ClusterFolder.at(folder.path) == folder
    assert ClusterFolder.create().secret != folder.secret


def test_processes_of_a_cluster_and_its_folder_are_ended():
    folder = ClusterFolder.create()
    namesake = f"{folder.path}-of-another"
    with (
        sleeper(folder.path / "session") as ours,
        sleeper(f"--at={folder.path},x") as agent,
        sleeper(namesake) as theirs,
    ):
        folder.end_leftovers()
        assert ours.wait(60) == agent.wait(60) == -signal.SIGKILL
        assert theirs.poll() is None
        theirs.kill()
    assert not folder.path.exists()
    folder.end_leftovers()  # there is nothing left to do


@pytest.mark.parametrize("noted", ["", ".", "elastune-abc", "/", "/home/somebody"])
def test_a_name_that_is_not_a_clusters_is_refused_before_any_process_is_looked_at(tmp_path, monkeypatch, noted):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(psutil, "process_iter", lambda *_: pytest.fail("processes are looked for"))
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match=NOT_OURS):
        ClusterFolder.of_note(json.dumps({"folder": noted, "secret": "x"})).end_leftovers()
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "/tmp/elastune-old", "[]", "{}", '{"folder": 3, "secret": "x"}'])
def test_a_note_that_is_something_else_is_refused(text):
    with pytest.raises(InputError, match="does not name the folder of an embedded Ray cluster"):
        ClusterFolder.of_note(text)


def without_marker(folder):
    (folder.path / "cluster.json").unlink()


def with_a_linked_marker(folder):
    (folder.path / "cluster.json").rename(folder.path / "there")
    (folder.path / "cluster.json").symlink_to("there")


def with_another_secret(folder):
    told = json.loads((folder.path / "cluster.json").read_text())
    (folder.path / "cluster.json").write_text(json.dumps(told | {"secret": "0" * 32}))


def with_an_open_door(folder):
    folder.path.chmod(0o777)


def with_a_broken_marker(folder):
    (folder.path / "cluster.json").write_text("{")


@pytest.mark.parametrize(
    "change",
    [without_marker, with_a_linked_marker, with_another_secret, with_an_open_door, with_a_broken_marker],
    ids=lambda change: change.__name__,
)
def test_a_folder_that_does_not_prove_itself_is_left_alone(change):
    folder = ClusterFolder.create()
    (folder.path / "precious").write_text("precious")
    change(folder)
    with sleeper(folder.path / "session") as theirs:
        with pytest.raises(InputError, match=NOT_OURS):
            folder.end_leftovers()
        assert theirs.poll() is None
        theirs.kill()
    assert (folder.path / "precious").read_text() == "precious"


def test_a_link_to_a_cluster_is_not_followed(tmp_path):
    folder = ClusterFolder.create()
    link = tmp_path / f"{FOLDER_PREFIX}link"
    link.symlink_to(folder.path)
    with pytest.raises(InputError, match=NOT_OURS):
        ClusterFolder(link, folder.secret).end_leftovers()
    assert folder.path.is_dir()


def test_another_users_folder_is_refused(monkeypatch):
    folder = ClusterFolder.create()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(InputError, match=rf"{NOT_OURS}: elastune-.* belongs to user"):
        folder.end_leftovers()


def test_the_cluster_of_a_driver_that_lives_is_not_touched():
    """A copied run folder names the cluster of the original, which may still run."""
    made = f"import {ClusterFolder.__module__} as made; print(made.ClusterFolder.create().note(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"import tempfile; tempfile.tempdir = {tempfile.tempdir!r}; {made}; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        folder = ClusterFolder.of_note(driver.stdout.readline())
        with pytest.raises(InputError, match=rf"process {driver.pid} still uses the Ray cluster"):
            folder.require_no_driver()
    folder.require_no_driver()


def test_a_process_older_than_the_cluster_is_not_the_clusters():
    with sleeper("") as unrelated:
        folder = ClusterFolder.create()
        marker = json.loads((folder.path / "cluster.json").read_text())
        (folder.path / "cluster.json").write_text(json.dumps(marker | {"started_s": marker["started_s"] + 1e6}))
        with sleeper(folder.path / "session") as older:
            folder.end_leftovers()
            assert older.poll() is None
            older.kill()
        unrelated.kill()
