"""`elastune bundles import`: what it prints where, and with which code it ends. What it makes is tested beside."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from elastune import traces
from elastune.experiments.cli.app import app

TIDY = "trial,iteration,score,seconds,lr\n" + "".join(
    f"{trial},{iteration},{1 / (1 + trial + iteration)},{1 + trial},0.{1 + trial}\n"
    for trial in range(9)
    for iteration in range(1, 10)
)
DESCRIBED = ("--name", "toy", "--source", "by hand", "--licence", "CC0-1.0")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tidy.csv").write_text(TIDY)
    return tmp_path


@pytest.fixture
def elastune(folder):  # noqa: ARG001  commands read and write where they are called
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def import_table(elastune):
    return lambda *more: elastune(
        "bundles", "import", "table", "tidy.csv", *DESCRIBED, "--direction", "minimize", *more
    )


def test_a_table_is_imported_and_what_was_made_of_it_is_told(import_table, folder):
    done = import_table("--score", "validation loss")
    assert done.exit_code == 0, done.stderr
    for told in (
        "9 trials x 9 iterations",
        "validation loss, to minimize",
        "5 s on 1 GPU, times 0.2 to 1.8",
        "tidy table tidy.csv",
        "set workload.scaling in a run",
        "set cloud.rescale_s in a run",
        "results/bundles/toy",
    ):
        assert told in done.stdout
    assert traces.load_bundle(folder / "results" / "bundles" / "toy").configurations[8] == {"lr": 0.9}


def test_json_is_all_there_is_on_standard_output(import_table):
    done = import_table(
        "--json", "-o", "out", "--set", "scaling=linear", "--set", "provenance.scaling=assumed: an action"
    )
    told = json.loads(done.stdout)
    assert (told["name"], told["folder"], told["trials"], told["hyperparameters"]) == ("toy", "out", 9, ["lr"])
    assert told["lacking"] == {"launch and checkpoint seconds": "cloud.rescale_s"}
    assert told["provenance"]["scaling"] == "assumed: an action"
    assert told["imported"] == {"from": "tidy table tidy.csv", "trials_recorded": 9}


def test_an_imported_bundle_runs(import_table, elastune, folder):
    assert import_table().exit_code == 0
    (folder / "spec.yaml").write_text(
        "job: {trials: 9, max_iterations: 9, deadline_s: 3600, budget_usd: 20}\n"
        "workload: {bundle: results/bundles/toy, scaling: resnet50-v100}\n"
        "cloud: {instance_type: p3.8xlarge, startup: fast, rescale_s: 5}\npolicy: sha-fixed\n"
    )
    result = json.loads(elastune("run", "spec.yaml", "--json").stdout)
    # The last of the nine ends lowest, at 1 / (1 + 8 + 9), and nobody is better at any rung.
    assert (result["best_config"], result["score"]) == ({"lr": 0.9}, pytest.approx(1 / 18))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--score-column", "loss"],
            r"error: tidy.csv, column loss: has no such column; its columns: trial, iteration,",
        ),
        (["--iterations", 40], "error: tidy.csv: asked to keep 40 iterations, but the longest curve has 9"),
        (["--set", "lauch_s=3"], "column lauch_s: is unknown; did you mean 'launch_s'?"),
        (["--set", "provenance.curves"], "error: --set provenance.curves: must be key=value"),
        (["--set", "lauch_s"], "error: --set lauch_s: must be key=value"),
        (["--configs", "absent.csv"], "error: absent.csv: cannot be read: No such file or directory"),
    ],
)
def test_wrong_input_ends_with_code_2_and_nothing_written(import_table, folder, arguments, message):
    done = import_table(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert not list(folder.rglob("bundle.yaml"))


def test_what_is_there_is_not_replaced_by_accident(import_table):
    assert [import_table().exit_code, import_table().exit_code, import_table("--overwrite").exit_code] == [0, 2, 0]


def test_a_missing_licence_is_asked_for(elastune):
    done = elastune(
        "bundles", "import", "table", "tidy.csv", "--name", "toy", "--source", "x", "--direction", "minimize"
    )
    assert done.exit_code == 2
    assert "--licence" in done.stderr


def test_a_blackbox_is_imported(elastune, fixtures):
    arguments = ("bundles", "import", "syne-tune", fixtures / "syne-tune", *DESCRIBED, "--direction", "minimize")
    refused = elastune(*arguments)
    assert (refused.exit_code, "name one with --task: task-0, task-1" in refused.stderr) == (2, True)
    done = elastune(*arguments, "--task", "task-1", "--training-seed", 1, "--json")
    told = json.loads(done.stdout)
    assert told["family"] == "syne-tune"
    assert told["imported"]["training_seed"] == 1


def test_a_study_is_imported(elastune, fixtures):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[optuna]'")
    arguments = ("bundles", "import", "optuna", fixtures / "optuna.db", *DESCRIBED, "--study", "toy")
    assert "--incomplete drop" in elastune(*arguments).stderr
    done = elastune(*arguments, "--incomplete", "drop")
    assert done.exit_code == 0, done.stderr
    assert "5 COMPLETE, 1 PRUNED, 1 FAIL" in done.stdout


def test_runs_are_imported(elastune, fixtures):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[tensorboard]'")
    arguments = ("bundles", "import", "tensorboard", fixtures / "tensorboard", *DESCRIBED, "--direction", "minimize")
    done = elastune(*arguments, "--tag", "val/loss", "--test-tag", "test/loss", "--json")
    assert json.loads(done.stdout)["has_test_scores"] is True


def completions(monkeypatch, capfd, line):
    """What the shell would offer for the last word of a command line."""
    monkeypatch.setenv("_ELASTUNE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - (not line.endswith(" "))))
    monkeypatch.setattr(sys, "argv", ["elastune"])
    with pytest.raises(SystemExit):
        app(prog_name="elastune")
    return [line for line in capfd.readouterr().out.splitlines() if line]


@pytest.mark.usefixtures("folder")
def test_columns_objectives_tasks_and_keys_are_completed(monkeypatch, capfd, fixtures):
    table = "elastune bundles import table tidy.csv"
    assert completions(monkeypatch, capfd, f"{table} --score-column s") == ["score", "seconds"]
    assert completions(monkeypatch, capfd, f"{table} --set sca") == ["scaling="]
    assert completions(monkeypatch, capfd, "elastune bundles import table absent.csv --score-column s") == []
    blackbox = f"elastune bundles import syne-tune {fixtures / 'syne-tune'}"
    assert completions(monkeypatch, capfd, f"{blackbox} --task t") == ["task-0", "task-1"]
    assert completions(monkeypatch, capfd, f"{blackbox} --objective metric_v") == ["metric_valid_loss"]


@pytest.mark.usefixtures("folder")
def test_studies_are_completed(monkeypatch, capfd, fixtures):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[optuna]'")
    line = f"elastune bundles import optuna {fixtures / 'optuna.db'} --study t"
    assert completions(monkeypatch, capfd, line) == ["toy", "two objectives"]


def test_replicates_and_chosen_rows_are_imported_and_shown(elastune, write, out):
    lines = [
        f"{trial},{number},{iteration},{score},{split}"
        for trial in range(3)
        for number in (0, 1)
        for iteration in (1, 2)
        for split, score in (("val", trial + number / 10), ("train", 9))
    ]
    table = write("trial,run,iteration,score,split\n" + "\n".join(lines) + "\n")
    options = ("--replicate-column", "run", "--where", "split=val", "--name", "b", "--direction", "minimize")
    words = ("--source", "s", "--licence", "l", "-o", str(out))
    done = elastune("bundles", "import", "table", str(table), *options, *words, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["trials"], told["imported"]["rows_left_out_by_where"]) == (3, 12)
    shown = json.loads(elastune("bundles", "show", str(out), "--json").stdout)["replicates"]
    assert (shown["trials_with_several"], shown["fewest"], shown["most"], shown["rank_correlation"]) == (3, 2, 2, 1.0)
    screen = " ".join(elastune("bundles", "show", str(out)).stdout.split())  # lines end where the screen does
    assert "of 3 configurations, 2 trainings of each" in screen
    assert "Spearman between replicates" in screen
    refused = elastune("bundles", "import", "table", str(table), "--where", "split", *options[4:], *words)
    told = "error: --where split: must be COLUMN=VALUE, as in --where on_grid=True"
    assert (refused.exit_code, refused.stderr.strip()) == (2, told)
    refused = elastune("bundles", "import", "table", str(table), *options, "--where", "split=train", *words)
    told = "error: --where split=val, split=train: a column is named twice, but rows hold one value of it"
    assert (refused.exit_code, refused.stderr.strip()) == (2, told)


def test_all_training_seeds_are_imported(elastune, fixtures, out):
    words = ("--name", "b", "--direction", "minimize", "--source", "s", "--licence", "l", "-o", str(out))
    chosen = ("--task", "task-0", "--all-training-seeds", "--incomplete", "drop")
    done = elastune("bundles", "import", "syne-tune", str(fixtures / "syne-tune"), *chosen, *words, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["imported"]["trainings_recorded"] == 12
