import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from elastune.sim.bridge.workers.blobs import blobs_at
from elastune.sim.bridge.workers.checkpoint import CheckpointStore, LostCheckpointError
from elastune.sim.model.errors import InputError, WorkerError


def content(trial, iteration, size=4096):
    return random.Random(f"{trial} {iteration}").randbytes(size)


def save(store, trial, iteration, score=0.5, **keywords):
    return store.save(trial, iteration, score, lambda path: path.write_bytes(content(trial, iteration)), **keywords)


def read(store, saved):
    with store.restore(saved) as path:
        return path.read_bytes()


def files_of(store_folder, trial=0):
    return sorted(path.name for path in (store_folder / f"trial-{trial:05d}").iterdir())


@pytest.fixture(params=["folder", "file", "memory"])
def url(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "checkpoints")
    if request.param == "file":
        return f"file://{tmp_path}/checkpoints"
    pytest.importorskip("fsspec", reason="the bridge extra is not installed")
    return f"memory://{tmp_path.name}/checkpoints"


def test_what_was_saved_is_restored_byte_for_byte(url):
    store = CheckpointStore(url)
    assert store.latest(7) is None
    save(store, 7, 1, 0.25)
    save(store, 7, 3, float("nan"))
    save(store, 8, 2, None)
    another_reader = CheckpointStore(url)

    newest = another_reader.latest(7)
    assert (newest.trial, newest.iteration, newest.score) == (7, 3, None)
    assert read(another_reader, newest) == content(7, 3)
    older = another_reader.latest(7, at_most=2)
    assert (older.iteration, older.score, read(another_reader, older)) == (1, 0.25, content(7, 1))
    assert another_reader.latest(7, at_most=0) is None
    assert another_reader.latest(8).iteration == 2


def test_the_newest_are_kept_and_those_that_are_spared(url):
    store = CheckpointStore(url, keep=2)
    for iteration in (1, 2, 3, 4, 5):
        save(store, 0, iteration, spare=(2,))

    assert [saved.iteration for saved in store.recorded(0)] == [5, 4, 2]
    save(store, 0, 6)
    assert [saved.iteration for saved in store.recorded(0)] == [6, 5]


def test_an_iteration_that_is_saved_again_replaces_what_was_there(url):
    store = CheckpointStore(url)
    save(store, 0, 4, 0.1)
    store.save(0, 4, 0.2, lambda path: path.write_bytes(b"another course"))

    [saved] = store.recorded(0)
    assert (saved.score, read(store, saved)) == (0.2, b"another course")


def test_what_is_forgotten_does_not_come_back(url):
    store = CheckpointStore(url, keep=3)
    for iteration in (1, 2, 3):
        save(store, 0, iteration)
        save(store, 1, iteration)
    store.forget(0, above=1)

    assert store.latest(0).iteration == 1
    store.forget(0)
    assert store.latest(0) is None
    assert store.latest(1).iteration == 3


def test_a_checkpoint_that_was_deleted_meanwhile_is_lost_and_says_so(url):
    store = CheckpointStore(url, keep=1)
    first = save(store, 0, 1)
    save(store, 0, 2)

    with (
        pytest.raises(LostCheckpointError, match=r"trial-00000/iteration-000001-\w+\.ckpt cannot be read"),
        store.restore(first),
    ):
        pass


def test_a_save_that_fails_leaves_nothing_behind_and_everything_as_it_was(tmp_path):
    store = CheckpointStore(str(tmp_path))
    save(store, 0, 1)
    before = files_of(tmp_path)

    def full_disk(path):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(WorkerError, match=r"trial 0: checkpoint 2 cannot be saved at .*No space left on device"):
        store.save(0, 2, 0.5, full_disk)
    assert files_of(tmp_path) == before
    assert store.latest(0).iteration == 1


@pytest.mark.parametrize("suffix", [".ckpt", ".json"])
def test_a_file_cut_short_at_any_byte_is_detected_and_the_one_before_is_used(tmp_path, suffix):
    store = CheckpointStore(str(tmp_path))
    store.save(0, 1, 0.1, lambda path: path.write_bytes(b"the one before"))
    store.save(0, 2, 0.2, lambda path: path.write_bytes(content(0, 2, 300)))
    [victim] = (tmp_path / "trial-00000").glob(f"iteration-000002*{suffix}")
    whole = victim.read_bytes()
    for kept in range(len(whole)):
        victim.write_bytes(whole[:kept])
        assert store.latest(0).iteration == 1, f"{kept} of {len(whole)} bytes"
    victim.write_bytes(whole)
    assert store.latest(0).iteration == 2


def test_a_changed_byte_or_a_file_too_many_bytes_long_is_detected(tmp_path):
    store = CheckpointStore(str(tmp_path))
    save(store, 0, 1)
    damaged = save(store, 0, 2)
    path = tmp_path / "trial-00000" / damaged.data
    whole = path.read_bytes()
    for changed in (bytes([whole[0] ^ 1]) + whole[1:], whole[:-1] + bytes([whole[-1] ^ 128]), whole + b"\0"):
        path.write_bytes(changed)
        assert store.latest(0).iteration == 1
    with pytest.raises(LostCheckpointError, match="has 4097 bytes instead of 4096"), store.restore(damaged):
        pass


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{}",
        b"[1, 2]",
        b"\xff\xfe",
        b'{"trial":0,"iteration":9,"score":0.5,"data":"../../secret","size_bytes":1,"sha256":"0"}',
        b'{"trial":1,"iteration":2,"score":0.5,"data":"x","size_bytes":1,"sha256":"0"}',
        b'{"trial":0,"iteration":2,"score":"best","data":"x","size_bytes":1,"sha256":"0"}',
    ],
)
def test_a_record_that_is_none_counts_for_nothing_and_goes_with_the_next_save(tmp_path, record):
    store = CheckpointStore(str(tmp_path))
    save(store, 0, 1)
    (tmp_path / "trial-00000" / "iteration-000002.json").write_bytes(record)

    assert store.latest(0).iteration == 1
    save(store, 0, 3)
    assert [saved.iteration for saved in store.recorded(0)] == [3, 1]
    assert len(files_of(tmp_path)) == 4


def test_a_record_that_names_a_file_outside_of_the_store_is_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    store = CheckpointStore(str(tmp_path / "store"))
    save(store, 0, 1)
    record = {"trial": 0, "iteration": 2, "score": 0.5, "data": "../../secret", "size_bytes": 6, "segment": 0}
    record["sha256"] = hashlib.sha256(b"secret").hexdigest()
    (tmp_path / "store" / "trial-00000" / "iteration-000002.json").write_text(json.dumps(record))
    assert store.latest(0).iteration == 1


def test_a_trials_folder_that_is_a_link_out_of_the_store_is_neither_read_nor_written(tmp_path):
    other = CheckpointStore(str(tmp_path / "other"))
    save(other, 0, 1)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "trial-00000").symlink_to(tmp_path / "other" / "trial-00000")
    before = files_of(tmp_path / "other")
    store = CheckpointStore(str(tmp_path / "store"))
    with pytest.raises(PermissionError, match="trial-00000 leads out of"):
        store.recorded(0)
    with pytest.raises(WorkerError, match=r"cannot be saved .*trial-00000 leads out of"):
        save(store, 0, 2)
    assert files_of(tmp_path / "other") == before


def test_a_clone_reads_on_while_its_source_goes_on(tmp_path):
    store = CheckpointStore(str(tmp_path), keep=1)
    with store.restore(save(store, 0, 1)) as path, path.open("rb") as file:
        save(store, 0, 2)
        assert file.read() == content(0, 1)


def test_wrong_input_is_refused(tmp_path):
    with pytest.raises(InputError, match="keep is 0, but must be at least 1"):
        CheckpointStore(str(tmp_path), keep=0)
    with pytest.raises(InputError, match="checkpoints at nowhere://bucket: Protocol not known: nowhere"):
        CheckpointStore("nowhere://bucket")


def test_the_store_needs_neither_torch_nor_ray_nor_fsspec_for_a_folder(tmp_path):
    code = f"""
import sys
for name in ("torch", "ray", "fsspec", "psutil"):
    sys.modules[name] = None
from elastune.sim.bridge.workers.checkpoint import CheckpointStore
store = CheckpointStore({str(tmp_path)!r})
store.save(0, 1, 0.5, lambda path: path.write_bytes(b"x"))
print(store.latest(0).iteration)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def save_until_killed(folder, first, begun):
    store = CheckpointStore(folder)

    def write(path):
        with path.open("wb") as file:
            for _ in range(64):
                file.write(b"\xa5" * 4096)
        begun.set()

    iteration = first
    while True:
        store.save(0, iteration, float(iteration), write)
        iteration += 1


def test_kill_9_in_the_middle_of_saving_never_loses_what_was_durable(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    store, delays = CheckpointStore(str(tmp_path)), random.Random(0)
    durable, kills_in_a_save = 0, 0
    for kill in range(12):
        begun = spawn.Event()
        process = spawn.Process(target=save_until_killed, args=(str(tmp_path), durable + 1, begun), daemon=True)
        process.start()
        assert begun.wait(60)
        time.sleep(delays.uniform(0, 0.02) * (kill % 2))
        os.kill(process.pid, signal.SIGKILL)
        process.join()

        kills_in_a_save += any(name.startswith(".saving-") for name in files_of(tmp_path))
        newest = store.latest(0)
        found = 0 if newest is None else newest.iteration
        assert found >= durable
        if newest is not None:
            assert (newest.score, len(read(store, newest))) == (float(found), 64 * 4096)
            records = store.recorded(0)
            assert [saved.iteration for saved in records[:2]] == [found, found - 1][: len(records)]
            assert all(store.latest(0, at_most=saved.iteration) == saved for saved in records)
            assert len(records) >= min(found, 2)
        durable = found
    assert kills_in_a_save, "no kill came in the middle of a save"
    save(store, 0, durable + 1)
    assert len(files_of(tmp_path)) == 4, "what the killed ones left is swept up"


class Unreachable(AbstractFileSystem):
    """A file system that raises what is no OSError, as some of fsspec's do."""

    def _fail(self, *_arguments, **_keywords):
        raise KeyError("no credentials")

    ls = makedirs = put_file = get_file = rm_file = _fail


def test_what_goes_wrong_at_a_url_is_said_as_one_error_whatever_it_is_called_there():
    fsspec.register_implementation("unreachable", Unreachable, clobber=True)
    store = CheckpointStore("unreachable://somewhere")
    with pytest.raises(
        WorkerError, match=r"checkpoint 1 cannot be saved at unreachable://somewhere: KeyError: 'no credentials'"
    ):
        store.save(0, 1, 0.5, lambda path: path.write_bytes(b"x"))
    with pytest.raises(InputError, match="checkpoints at unreachable://somewhere cannot be read: KeyError"):
        store.is_empty()


def test_a_checkpoint_counts_although_older_ones_cannot_be_deleted(tmp_path, caplog):
    def denied(_name):
        raise PermissionError(1, "Operation not permitted")

    kept = blobs_at(str(tmp_path))
    kept.delete = denied
    store = CheckpointStore(str(tmp_path), keep=1, blobs=kept)
    save(store, 0, 1)
    assert save(store, 0, 2) == store.latest(0)
    assert "older checkpoints of trial 0 cannot be deleted" in caplog.text
    store = CheckpointStore(str(tmp_path), keep=1)
    save(store, 0, 3)
    assert [saved.iteration for saved in store.recorded(0)] == [3]
