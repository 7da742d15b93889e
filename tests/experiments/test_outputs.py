"""What commands write: files that are whole, pipes and devices in place, and nothing through links that lead elsewhere."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from elastune.experiments.files import check_outputs, kept_file, write_text
from elastune.sim.model.errors import InputError

SPEC = """
job: {trials: 4, max_iterations: 9, deadline_s: 3600, budget_usd: 20}
workload: {bundle: digits-mlp, scaling: resnet50-v100, iteration_s: 60}
cloud: {instance_type: p3.8xlarge, startup: fast, rescale_s: 5}
policy: sha-fixed
"""


@pytest.fixture
def elastune(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def read_in_background(pipe):
    """What arrives in a pipe, once it has been closed."""
    found = []
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # open before anybody writes
    os.set_blocking(descriptor, True)

    def read():
        with os.fdopen(descriptor, "rb") as stream:
            found.append(stream.read())

    thread = threading.Thread(target=read)
    thread.start()
    return lambda: thread.join(120) or found[0]


def test_a_journal_into_a_pipe_is_the_journal_of_a_file(elastune, tmp_path):
    assert elastune("run", "spec.yaml", "-o", "file").exit_code == 0
    os.mkfifo("pipe")
    # Opened for writing here, so that the reader waits for the run.
    keep = os.open("pipe", os.O_RDWR)
    arrived = read_in_background("pipe")
    done = elastune("run", "spec.yaml", "-o", "out", "--journal", "pipe")
    os.close(keep)
    assert done.exit_code == 0, done.output
    assert arrived() == (tmp_path / "file" / "journal.jsonl").read_bytes()
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_pipe_that_nobody_reads_is_refused_and_stays(elastune, tmp_path):
    os.mkfifo("pipe")
    failed = elastune("run", "spec.yaml", "-o", "out", "--journal", "pipe")
    assert failed.exit_code == 2
    assert failed.stderr == "error: pipe: cannot be written: nobody reads this pipe; start its reader first\n"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert not (tmp_path / "out").exists()


def test_a_device_is_written_to_and_stays(elastune):
    before = Path("/dev/null").stat()
    assert elastune("run", "spec.yaml", "-o", "out", "--journal", "/dev/null").exit_code == 0
    after = Path("/dev/null").stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("name", ["journal.jsonl", "result.json", "spec.yaml"])
def test_a_link_out_of_the_folder_of_a_run_is_refused_before_the_run(elastune, tmp_path, name):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "mine")
    failed = elastune("run", "spec.yaml", "-o", "out")
    assert failed.exit_code == 2
    assert f"out/{name}: a symbolic link to " in failed.stderr
    assert (tmp_path / "mine").read_text() == "precious"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.parametrize("name", ["journal.jsonl", "result.json", "spec.yaml"])
def test_a_link_where_a_file_is_written_first_is_not_followed(elastune, tmp_path, name):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f".{name}.partial").symlink_to(tmp_path / "mine")
    assert elastune("run", "spec.yaml", "-o", "out").exit_code == 0
    assert (tmp_path / "mine").read_text() == "precious"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "journal.jsonl",
        "kind.txt",
        "result.json",
        "spec.yaml",
    ]


@pytest.mark.parametrize("written", ["comparison.png", "results.parquet", "summary.csv", "spec.yaml"])
def test_a_link_out_of_the_folder_of_a_comparison_is_refused(elastune, tmp_path, written):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / written).symlink_to(tmp_path / "mine")
    failed = elastune("compare", "spec.yaml", "--policies", "sha-fixed", "--seeds", 1, "--jobs", 1, "-o", "out")
    assert failed.exit_code == 2
    assert f"out/{written}: a symbolic link to " in failed.stderr
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_link_within_its_folder_is_followed(tmp_path):
    (tmp_path / "latest").symlink_to("first")
    write_text(tmp_path / "latest", "new")
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "first").read_text() == "new"


def test_a_folder_or_a_socket_is_no_output(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="but is a folder"):
        check_outputs(tmp_path / "folder")
    with pytest.raises(InputError, match="but is a folder"), kept_file(tmp_path / "folder"):
        pass


@pytest.mark.parametrize(("error", "kept"), [(RuntimeError, ["out"]), (KeyboardInterrupt, ["out"]), (InputError, [])])
def test_what_was_written_is_kept_when_a_run_fails_and_not_when_it_never_began(tmp_path, error, kept):
    def fail():
        with kept_file(tmp_path / "out") as stream:
            stream.write(b"some")
            raise error("stop")

    with pytest.raises(error):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == kept
    assert all(path.read_bytes() == b"some" for path in tmp_path.iterdir())


def test_a_redirected_standard_output_is_written_in_place(tmp_path):
    """Others write to it as well: it is not replaced."""
    (tmp_path / "all").write_text("before\n")
    with (tmp_path / "all").open("a") as stream, kept_file(Path(f"/dev/fd/{stream.fileno()}")) as out:
        out.write(b"after\n")
    assert (tmp_path / "all").read_text() == "before\nafter\n"


def test_runs_and_sweeps_refuse_the_folders_of_each_other_and_of_bundles(elastune):
    Path("sweep.yaml").write_text("base: spec.yaml\naxes: {policy: [sha-fixed]}\nseeds: 1\n", encoding="utf-8")
    assert elastune("run", "spec.yaml", "-o", "run").exit_code == 0
    assert elastune("sweep", "sweep.yaml", "-o", "swept").exit_code == 0
    Path("bundle").mkdir()
    Path("bundle", "bundle.yaml").touch()
    for command, spec, out, found in (
        ("run", "spec.yaml", "swept", "holds a sweep"),
        ("run", "spec.yaml", "bundle", "holds a bundle"),
        ("sweep", "sweep.yaml", "run", "holds a simulated run"),
        ("sweep", "sweep.yaml", "bundle", "holds a bundle"),
    ):
        before = sorted(path.name for path in Path(out).iterdir())
        failed = elastune(command, spec, "-o", out)
        assert failed.exit_code == 2
        assert found in failed.output
        assert sorted(path.name for path in Path(out).iterdir()) == before
    assert elastune("run", "spec.yaml", "-o", "run").exit_code == 0
    assert elastune("sweep", "sweep.yaml", "-o", "swept").exit_code == 0


def test_links_in_a_circle_are_refused(elastune, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    failed = elastune("run", "spec.yaml", "-o", "out", "--journal", "loop")
    assert (failed.exit_code, failed.stdout) == (2, "")
    assert "loop: a symbolic link to itself: remove the link, or name another file" in failed.stderr


@pytest.mark.parametrize("command", ["run", "compare"])
@pytest.mark.parametrize("out", ["file", "file/below", "/dev/null/below"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_runs(elastune, tmp_path, monkeypatch, command, out):
    (tmp_path / "file").write_text("precious")
    for runner in ("runs.simulate.execute", "comparisons.comparison.compare"):
        monkeypatch.setattr(f"elastune.experiments.{runner}", lambda *_, **__: pytest.fail("it ran"))
    failed = elastune(command, "spec.yaml", "-o", out)
    assert (failed.exit_code, failed.stdout) == (2, "")
    assert "is not a folder: name another file or folder" in failed.stderr
    assert (tmp_path / "file").read_text() == "precious"


def test_a_full_device_is_named(elastune):
    failed = elastune("run", "spec.yaml", "-o", "out", "--journal", "/dev/full")
    assert (failed.exit_code, failed.stderr) == (2, "error: /dev/full: No space left on device\n")


@pytest.mark.many(fast=1)
@pytest.mark.parametrize("command", ["run", "compare"])
def test_results_of_another_spec_are_not_replaced(elastune, tmp_path, command):
    options = ["--policies", "sha-fixed", "--seeds", 1, "--jobs", 1] if command == "compare" else []
    assert elastune(command, "spec.yaml", "-o", "out", *options).exit_code == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    failed = elastune(command, "spec.yaml", "-o", "out", *options, "--set", "job.deadline_s=1800")
    assert failed.exit_code == 2
    assert "of another spec: job.deadline_s was 3600.0 and is 1800.0. Choose another folder (-o)" in failed.stderr
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert elastune(command, "spec.yaml", "-o", "out", *options).exit_code == 0


@pytest.mark.slow
def test_a_comparison_replaces_one_whose_runs_it_has_too(elastune):
    options = ["-o", "out", "--jobs", 1]
    assert elastune("compare", "spec.yaml", "--policies", "sha-fixed", "--seeds", 1, *options).exit_code == 0
    more = ["--policies", "random-fixed,sha-fixed", "--seeds", 2]
    assert elastune("compare", "spec.yaml", *more, *options).exit_code == 0
    for fewer in (["--policies", "sha-fixed", "--seeds", 2], ["--policies", "random-fixed,sha-fixed", "--seeds", 1]):
        failed = elastune("compare", "spec.yaml", *fewer, *options)
        assert failed.exit_code == 2
        assert "out holds runs that this comparison would lose, such as " in failed.stderr


def test_a_comparison_does_not_go_into_the_folder_of_a_run(elastune):
    assert elastune("run", "spec.yaml", "-o", "out").exit_code == 0
    failed = elastune("compare", "spec.yaml", "--policies", "sha-fixed", "--seeds", 1, "-o", "out")
    assert failed.exit_code == 2
    assert "out holds a simulated run, but a comparison needs a folder of its own" in failed.stderr


def test_a_table_that_is_no_comparison_s_is_refused(elastune, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.csv").write_text("policy,seed\nseer,first\n")
    failed = elastune("compare", "spec.yaml", "--policies", "sha-fixed", "--seeds", 1, "-o", "out")
    assert failed.exit_code == 2
    assert "results.csv: is no table of a comparison" in failed.stderr


@pytest.fixture
def recorded(elastune, tmp_path):
    """A run, a sweep, a spec, prices and step times in a folder; says what all files hold."""
    spec = "job: {trials: 4, max_iterations: 3, deadline_s: 3600}\n"
    spec += "workload: {bundle: digits-mlp, scaling: linear, iteration_s: 9}\n"
    spec += "cloud: {price_usd_per_hour: 1, gpus_per_instance: 1, rescale_s: 1}\npolicy: random-fixed\n"
    (tmp_path / "s.yaml").write_text(spec)
    (tmp_path / "w.yaml").write_text("base: s.yaml\naxes: {policy: [random-fixed]}\nseeds: 1\n")
    (tmp_path / "p.csv").write_text("name,gpus,price\nm,1,2\n")
    for command in (("run", "s.yaml", "-o", "r"), ("sweep", "w.yaml", "-o", "w", "--jobs", "1")):
        assert elastune(*command).exit_code == 0
    return lambda: {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.many(fast=4)
@pytest.mark.parametrize(
    "command",
    [
        ("run", "s.yaml", "-o", "r", "--journal", "s.yaml"),
        ("run", "s.yaml", "-o", "r", "--journal", "r/result.json"),
        ("run", "s.yaml", "-o", "r", "--journal", "r/../r/spec.yaml"),
        ("report", "r", "--seeds", "0", "-o", "r/journal.jsonl"),
        ("report", "r", "--seeds", "0", "-o", "p.html", "--perfetto", "p.html"),
        ("report", "r", "--seeds", "0", "-o", "p.html", "--perfetto", "r/result.json"),
        ("report", "w", "-o", "w/sweep.yaml"),
        ("results", "w", "--csv", "w/sweep.yaml"),
        ("prices", "import", "p.csv", "-o", "p.csv"),
        ("scaling", "import", "p.csv", "--workload", "x", "--kind", "weak", "--batch", "1", "-o", "p.csv"),
    ],
)
def test_what_is_read_or_written_too_is_never_replaced(elastune, recorded, command):
    before = recorded()
    done = elastune(*command)
    assert done.exit_code == 2
    assert "by the same command, which would replace it: name another file" in done.stderr
    assert recorded() == before


def test_a_page_within_the_folder_of_a_run_is_written_again(elastune, recorded):
    for _ in range(2):
        done = elastune("report", "r", "--seeds", "0", "-o", "r/page.html", "--perfetto", "r/trace.json")
        assert done.exit_code == 0, done.stderr
        done = elastune("results", "w", "--csv", "w/table.csv")
        assert done.exit_code == 0, done.stderr
    assert len(recorded()) > 10
