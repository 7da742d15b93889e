"""The command line: what it prints where, which files it leaves, and with which code it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import typer
import yaml
from typer.testing import CliRunner

from elastune import RunSpec, execute, load_bundle
from elastune.experiments.cli import completion
from elastune.experiments.cli.app import app
from elastune.experiments.cli.bundles import _print_bundle
from elastune.experiments.cli.run_shown import print_run
from elastune.experiments.plans.bundle_summary import describe
from elastune.policies.registry import POLICIES, RegisteredPolicy
from elastune.traces import bundle_folder

SPEC = """
job: {trials: 20, max_iterations: 9, deadline_s: 3600, budget_usd: 20}
workload: {bundle: digits-mlp, scaling: resnet50-v100, iteration_s: 60}
cloud: {instance_type: {name: p3.8xlarge, price_usd_per_hour: 12.24, gpus_per_instance: 8}, startup: fast, rescale_s: 5}
policy: seer
seed: 1
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


@pytest.fixture
def elastune(folder):  # noqa: ARG001  commands read and write where they are called
    def call(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_run_leaves_spec_journal_and_result(elastune, folder):
    done = elastune("run", "spec.yaml")
    assert done.exit_code == 0
    assert re.search(r"cost\W+\d+\.\d\d USD, within 20\.00 USD", done.stdout)
    (run,) = (folder / "results" / "runs").iterdir()
    assert files_in(run) == ["journal.jsonl", "kind.txt", "result.json", "spec.yaml"]
    result = json.loads((run / "result.json").read_text())
    assert result["digest"] == run.name
    assert yaml.safe_load((run / "spec.yaml").read_text())["seed"] == 1


def test_a_pre_determined_job_that_was_cut_is_told_so_and_not_as_late(elastune):
    # RubberBand plans by mean durations; this seed's are longer, so it stops well before T with a rung untrained.
    done = elastune("run", "tight", "--policy", "rubberband", "--seed", 60003)
    assert re.search(r"makespan +\d+ s, the job was cut; the limit is 900 s", done.stdout)
    assert "BEYOND" not in done.stdout


def test_run_json_is_all_there_is_on_standard_output(elastune, folder):
    done = elastune("run", "spec.yaml", "--json", "-o", "out", "--seed", 3, "--policy", "sha-elastic:gpus_per_trial=4")
    told = json.loads(done.stdout)
    assert (told["policy"], told["seed"]) == ("sha-elastic:gpus_per_trial=4", 3)
    assert told.pop("notes") == []
    assert told == json.loads((folder / "out" / "result.json").read_text())


def test_the_spec_that_run_leaves_gives_the_same_run(elastune, folder):
    elastune("run", "spec.yaml", "-o", "one", "--set", "job.deadline_s=1800", "--set", "cloud.sync_s=2")
    elastune("run", "one/spec.yaml", "-o", "two")
    for name in ("spec.yaml", "journal.jsonl", "result.json"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()


def test_equal_seeds_give_equal_journals_and_they_replay(elastune, folder):
    for name in ("a", "b"):
        assert elastune("run", "spec.yaml", "--seed", 3, "--journal", name, "-o", f"out-{name}").exit_code == 0
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    replayed = elastune("replay", "a")
    assert replayed.exit_code == 0
    assert replayed.stdout == f"{len((folder / 'a').read_bytes().splitlines()) - 1} entries reproduced\n"
    assert json.loads(elastune("replay", "a", "--json").stdout)["replay_equal"] is True


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_run_without_an_answer_is_a_failure_that_says_so(elastune, folder, form):
    failed = elastune("run", "spec.yaml", "--set", "cloud.capacity=0", "-o", "out", *form)
    assert failed.exit_code == 1
    shown = "out/journal.jsonl shows why"
    message = f"seer has no answer: no configuration was ever saved; {shown}"
    told = json.dumps({"error": message, "exit_code": 1}) if form else f"error: {message}"
    assert failed.stderr == f"{told}\n"
    assert json.loads((folder / "out" / "result.json").read_text())["best_trial"] is None
    if form:
        assert json.loads(failed.stdout)["best_trial"] is None


def test_a_journal_that_does_not_replay_is_a_failure(elastune, folder):
    elastune("run", "spec.yaml", "--journal", "a", "-o", "out")
    text = (folder / "a").read_text()
    (folder / "a").write_text(text.replace('"ScaleTo","instances":', '"ScaleTo","instances":1', 1))
    failed = elastune("replay", "a")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("error: entry 1 at 0.000 s does not replay")


BAD_INPUT = [
    (["--set", "job.deadlin_s=3"], "unknown key job.deadlin_s; did you mean job.deadline_s?"),
    (["--set", "workload.bundle=digits-mpl"], "there is no bundle 'digits-mpl'; did you mean 'digits-mlp'?"),
    (["--set", "workload.scaling=resnet50-v10"], "there is no scaling 'resnet50-v10'; did you mean 'resnet50-v100'?"),
    (["--set", "policy=seeer"], "there is no policy 'seeer'; did you mean 'seer'"),
    (["--set", "cloud.instance_type=p3.8xlarg"], "did you mean 'p3.8xlarge'?"),
    (
        ["--set", "cloud.instance_type={price_usd_per_hour: -1, gpus_per_instance: 4}"],
        "must be a number from 0 up to 1e6",
    ),
    (["--set", "cloud.instance_type={gpus_per_instance: 4}"], "cloud.instance_type.price_usd_per_hour is missing"),
    (["--set", "job.max_iterations=82"], "job longer than its curves: job.max_iterations asks for 82 iterations"),
    (["--set", "job.trials=257"], "job.trials is 257, but bundle digits-mlp has 1 to 256 configurations"),
    (["--set", "job.deadline_s=20"], "seer: no plan trains 1 configuration to 3 iterations within a deadline of 20 s"),
    (["--set", "job.budget_usd=0.01"], "and a budget of 0.01 USD; the fastest takes"),
    (["--set", "cloud.market=spot"], "cloud.spot is missing: say how spot machines are taken back"),
    (["--policy", "seer:replan=maybe"], "replan is 'maybe', but must be true or false"),
]


@pytest.mark.many(fast=10)
@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT)
@pytest.mark.parametrize(("command", "is_json"), [("run", False), ("run", True), ("compare", True)])
def test_bad_input_is_one_sentence_code_2_and_no_file(elastune, folder, command, is_json, arguments, message):
    if "--policy" in arguments and command == "compare":
        arguments = ["--policies", arguments[1]]
    if command == "compare" and {"job.deadline_s=20", "job.budget_usd=0.01"} & set(arguments):
        arguments = [*arguments, "--policies", "seer", "--seeds", 1]
    failed = elastune(command, "spec.yaml", *arguments, "-o", "out", *(["--json"] if is_json else []))
    assert failed.exit_code == 2
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    told = json.loads(failed.stderr) if is_json else {"error": failed.stderr.removeprefix("error: "), "exit_code": 2}
    assert told["exit_code"] == 2
    if not (command == "compare" and "policy=seeer" in arguments):
        assert message in told["error"]
    assert files_in(folder) == ["spec.yaml"]
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job: {trials: 3", "spec.yaml, line "),
        ("[1]", "spec.yaml: holds a list"),
        (SPEC + "seed: 2\n", "spec.yaml, line 7: the key 'seed' is given twice"),
        (SPEC + "sede: 2\n", "unknown key sede; did you mean seed?"),
    ],
)
def test_a_malformed_spec_is_code_2(elastune, folder, text, message):
    (folder / "spec.yaml").write_text(text)
    failed = elastune("run", "spec.yaml")
    assert (failed.exit_code, failed.stderr.count("\n")) == (2, 1)
    assert message in failed.stderr
    assert files_in(folder) == ["spec.yaml"]


BUNDLE = {
    "name": "mine",
    "direction": "minimize",
    "score": "loss",
    "iteration": "epoch",
    "max_iterations": 3,
    "iteration_s": 1.0,
    "launch_s": 1.0,
    "checkpoint_s": 0.0,
    "source": "here",
    "licence": "CC0-1.0",
    "scaling": "linear",
}


def write_bundle(folder, rows):
    folder.mkdir()
    (folder / "bundle.yaml").write_text(yaml.safe_dump(BUNDLE))
    (folder / "configs.csv").write_text("trial,lr\n0,0.1\n1,0.2\n")
    pd.DataFrame(rows, columns=["trial", "iteration", "score"]).to_parquet(folder / "curves.parquet", index=False)


GOOD_CURVES = [(trial, iteration, 0.5) for trial in (0, 1) for iteration in (1, 2, 3)]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([*GOOD_CURVES, (1, 3, 0.5)], id="duplicate"),
        pytest.param([row for row in GOOD_CURVES if row[:2] != (1, 2)], id="missing"),
        pytest.param([GOOD_CURVES[1], GOOD_CURVES[0], *GOOD_CURVES[2:]], id="not monotone"),
    ],
)
def test_curves_with_wrong_iterations_are_code_2(elastune, folder, rows):
    write_bundle(folder / "mine", rows)
    before = files_in(folder)
    failed = elastune(
        "run", "spec.yaml", "--set", "workload={bundle: mine}", "--set", "job={trials: 2, max_iterations: 3}"
    )
    assert (failed.exit_code, failed.stderr.count("\n")) == (2, 1)
    assert "curves.parquet" in failed.stderr
    assert files_in(folder) == before


def test_a_bundle_may_be_a_folder(elastune, folder):
    write_bundle(folder / "mine", GOOD_CURVES)
    done = elastune(
        "run", "spec.yaml", "--set", "workload={bundle: mine}", "--set", "job={trials: 2, max_iterations: 3}"
    )
    assert done.exit_code == 0


def test_a_run_that_breaks_is_code_1_and_keeps_its_journal(elastune, folder, monkeypatch):
    class Sleeps:
        def on_event(self, _event, _view):
            return ()

    monkeypatch.setitem(POLICIES, "sleeps", RegisteredPolicy(lambda *_: Sleeps(), "for tests"))
    failed = elastune("run", "spec.yaml", "--policy", "sleeps", "-o", "out")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("error: sleeps: nothing can happen any more at 0.0 s")
    assert files_in(folder) == ["out/journal.jsonl", "spec.yaml"]
    compared = elastune("compare", "spec.yaml", "--policies", "seer,sleeps", "--seeds", 1, "--jobs", 1, "--json")
    assert compared.exit_code == 1
    assert [run["status"] for run in json.loads(compared.stdout)["runs"]] == ["done", "failed"]


def test_an_interrupted_run_is_code_130(elastune, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("elastune.experiments.runs.simulate.execute", interrupted)
    stopped = elastune("run", "spec.yaml")
    assert (stopped.exit_code, stopped.stderr) == (130, "error: interrupted\n")


def test_a_run_that_is_interrupted_keeps_its_journal_and_says_where(elastune, folder, monkeypatch):
    class Interrupted:
        def on_event(self, _event, _view):
            raise KeyboardInterrupt

    monkeypatch.setitem(POLICIES, "interrupted", RegisteredPolicy(lambda *_: Interrupted(), "for tests"))
    stopped = elastune("run", "spec.yaml", "--policy", "interrupted", "-o", "out")
    assert stopped.exit_code == 130
    assert stopped.stderr == "what was done is kept in out/journal.jsonl\nerror: interrupted\n"
    assert files_in(folder) == ["out/journal.jsonl", "spec.yaml"]


@pytest.mark.parametrize(
    ("arguments", "broken"),
    [
        (["plan", "spec.yaml"], "plans.planning.make_plans"),
        (["ledger", "spec.yaml"], "runs.replay.ledger_of"),
        (["replay", "spec.yaml"], "runs.replay.replay_journal"),
        (["ablate", "spec.yaml"], "comparisons.ablation.ablate"),
        (["profile", "digits-mlp"], "profiling.curves.profile_workload"),
        (["check-policy", "seer"], "contracts.user_policy.check_target"),
    ],
)
def test_every_command_that_is_interrupted_is_code_130(elastune, monkeypatch, arguments, broken):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"elastune.experiments.{broken}", interrupted)
    stopped = elastune(*arguments)
    assert stopped.exit_code == 130
    assert stopped.stderr.endswith("error: interrupted\n")
    assert stopped.stdout == ""


def test_a_place_that_cannot_be_written_is_code_2(elastune, folder):
    (folder / "file").write_text("")
    failed = elastune("run", "spec.yaml", "-o", "file")
    assert (failed.exit_code, failed.stderr.count("\n")) == (2, 1)


def test_wrong_use_is_code_2(elastune):
    assert elastune("run").exit_code == 2
    assert elastune("compare", "spec.yaml", "--seeds", "0").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "spec.yaml", "--sed", "3"), r"No such option: --sed .*--seed.* \(elastune run --help\)"),
        (("runx",), r"No such command 'runx'.* \(elastune --help\)"),
        (("--wrong",), r"No such option: --wrong.* \(elastune --help\)"),
        (("bundles", "show"), r"Missing argument 'name' \(elastune bundles show --help\)"),
        (
            ("audit", "log.csv", "--machine", "p3.8xlarge", "--direction", "minimise"),
            r"Invalid value for '--direction': 'minimise' is not one of 'minimize', 'maximize' \(elastune audit --help\)",
        ),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_wrong_use_is_one_line(elastune, arguments, told, form):
    failed = elastune(*form, *arguments) if arguments == ("--wrong",) else elastune(*arguments, *form)
    assert (failed.exit_code, failed.stdout, failed.stderr.count("\n")) == (2, "", 1)
    if not form:
        # The runxer of these tests does not name the program.
        assert re.fullmatch(f"error: {told}\n", failed.stderr.replace("(root", "(elastune"))


def test_a_group_without_a_command_shows_its_help(elastune):
    shown = elastune("bundles")
    assert shown.exit_code == 2
    assert "Recorded workloads." in shown.output
    assert "error:" not in shown.output


def test_where_one_of_many_is_probably_meant_few_are_listed_with_the_command_that_lists_all(elastune):
    failed = elastune("run", "spec.yaml", "--set", "cloud.instance_type=p3.8xlarg")
    [listed, more] = re.search(
        r"did you mean 'p3.8xlarge'\? known: (.*) and (\d+) more \(elastune prices list\)", failed.stderr
    ).groups()
    assert len(listed.split(", ")) == 12
    assert int(more) > 12
    assert "p3.8xlarge" in listed.split(", ")


def test_a_file_that_is_named_without_its_class_is_told_its_classes_and_not_run(elastune, folder):
    (folder / "mine.py").write_text(
        "raise SystemExit('was run')\nclass First: pass\nclass _Hidden: pass\nclass Second: pass\n"
    )
    failed = elastune("run", "spec.yaml", "--policy", "mine.py")
    assert failed.exit_code == 2
    assert (
        "mine.py is a file, and what it defines must be named too, as mine.py:First or mine.py:Second\n"
        in failed.stderr
    )
    assert "there is no file other.py" in elastune("run", "spec.yaml", "--policy", "other.py").stderr


def test_a_checkpoint_of_another_folder_is_refused_by_its_kind(elastune, folder):
    elastune("run", "spec.yaml", "-o", "run")
    for place, kind in (("run", "holds a simulated run"), ("nothing", "holds no results")):
        failed = elastune("checkpoint", place, "-o", "files")
        assert (
            failed.stderr
            == f"error: {place}: {kind}; a checkpoint is of a real run: name a folder that elastune run --on ray wrote\n"
        )
    assert not (folder / "files").exists()


def test_a_regret_that_nobody_knows_is_no_line_of_a_run(folder, capsys):
    spec = RunSpec.load(folder / "spec.yaml")
    result = execute(spec)
    for one, is_told in ((result, True), (replace(result, regret=None), False)):
        print_run(spec, one, folder, folder)
        assert ("sampling" in capsys.readouterr().out) is is_told


def test_correlations_of_so_few_iterations_that_they_are_the_same_are_shown_once(capsys):
    described = describe(load_bundle(bundle_folder("digits-mlp", (), ())))
    same = {**described, "rank_correlation": [{"iteration": 1, "spearman": 0.5}] * 3, "evaluate_s": None}
    _print_bundle(same)
    shown = capsys.readouterr().out
    assert shown.count("0.5 after 1") == 1
    assert "evaluation, of that" not in shown


def test_compare_prints_a_summary_and_leaves_tables_and_a_figure(elastune, folder):
    done = elastune("compare", "spec.yaml", "--policies", "seer,sha-fixed", "--seeds", 2, "--jobs", 1, "-o", "out")
    assert done.exit_code == 0, done.output
    assert "Differences to seer on the same seeds" in done.stdout
    tables = ("results.parquet", "results.csv", "trajectories.parquet", "summary.csv", "paired.csv", "ledger.csv")
    assert set(files_in(folder / "out")) == {*tables, "comparison.png", "ledger.png", "spec.yaml", "kind.txt"}
    results = pd.read_parquet(folder / "out" / "results.parquet")
    assert list(results["policy"]) == ["seer", "seer", "sha-fixed", "sha-fixed"]
    assert list(results["seed"]) == [1, 2, 1, 2]


def test_compare_json_is_all_there_is_on_standard_output(elastune):
    done = elastune("compare", "spec.yaml", "--policies", "seer,sha-fixed", "--seeds", 1, "--jobs", 1, "--json")
    assert set(json.loads(done.stdout)) == {"runs", "summary", "paired", "ledger", "notes"}


@pytest.mark.slow
def test_compare_says_which_policy_finds_no_plan(elastune):
    found = elastune(
        *("compare", "spec.yaml", "--set", "job.deadline_s=null", "--policies", "seer,sha-fixed-naive"),
        *("--seeds", 1, "--jobs", 1, "-o", "out"),
    )
    assert found.exit_code == 0
    assert "the pictures show" not in found.stderr, "a policy without a run is not left out for want of room"
    assert "sha-fixed-naive: the naive size is B / (c T)" in found.stdout.replace("\n", " ")


def test_a_damaged_bundle_hides_no_other(elastune, folder):
    damaged = folder / "results" / "bundles" / "mine"
    damaged.mkdir(parents=True)
    (damaged / "bundle.yaml").write_text("direction: [")
    listed = elastune("bundles", "list", "--json")
    assert (listed.exit_code, listed.stderr.count("\n")) == (0, 1)
    assert listed.stderr.startswith("left out: mine: results/bundles/mine/bundle.yaml, line 1: malformed YAML")
    assert {"digits-mlp", "mnist5k-cnn"} <= {one["name"] for one in json.loads(listed.stdout)}


def test_bundles_are_listed_and_shown(elastune, folder):
    assert "digits-mlp" in elastune("bundles", "list").stdout
    assert "digits-mlp" in [one["name"] for one in json.loads(elastune("bundles", "list", "--json").stdout)]
    shown = elastune("bundles", "show", "digits-mlp", "--figure", "curves.png")
    assert "Spearman of early with final ranks" in shown.stdout
    assert "provenance of iteration_s" in shown.stdout
    assert (folder / "curves.png").stat().st_size > 1000
    assert "figure: curves.png" in shown.stderr
    told = json.loads(elastune("bundles", "show", "digits-mlp", "--json").stdout)
    assert [row["iteration"] for row in told["rank_correlation"]] == [3, 9, 27, 54]
    assert all(0 < row["spearman"] < 1 for row in told["rank_correlation"])
    quantiles = list(told["final_quantiles"].values())
    assert quantiles == sorted(quantiles, reverse=True)


def test_a_wrong_bundle_or_figure_is_code_2(elastune, folder):
    failed = elastune("bundles", "show", "digits")
    assert (failed.exit_code, failed.stdout) == (2, "")
    assert "did you mean 'digits-mlp'?" in failed.stderr
    assert elastune("bundles", "show", "digits-mlp", "--figure", "curves.txt").exit_code == 2
    assert files_in(folder) == ["spec.yaml"]


def test_policies_are_listed(elastune):
    assert all(name in elastune("policies", "list").stdout for name in (*POLICIES, "oracle"))
    listed = json.loads(elastune("policies", "list", "--json").stdout)
    assert [one["name"] for one in listed] == [*POLICIES, "pbt", "oracle"]
    by_name = {one["name"]: one for one in listed}
    assert by_name["rubberband"]["summary"].startswith("RubberBand: cheapest elastic plan")
    assert by_name["sha-elastic"]["parameters"]["gpus_per_trial"] == 1


def test_profile_hands_its_arguments_over(elastune, monkeypatch):
    told = {}

    def profile(workload, trials, iterations, jobs, out_dir, seed, *, again, replicates, on_progress):
        told.update(name=workload.name, numbers=(trials, iterations, jobs, seed, again, replicates), out_dir=out_dir)
        on_progress("curves", 1, 2)
        shutil.copytree(bundle_folder("digits-mlp"), out_dir)
        return out_dir

    monkeypatch.setattr("elastune.experiments.profiling.curves.profile_workload", profile)
    done = elastune(
        "profile", "digits-mlp", "--trials", 2, "--iterations", 3, "--jobs", 1, "--seed", 4, "--again", 1,
        "--replicates", 3, "-o", "mine",
    )  # fmt: skip
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "mine")
    assert re.search(
        r"configurations, .* s per iteration on average\nin a spec: workload\.bundle: mine\n$", done.stdout
    )
    assert (told["name"], told["numbers"], str(told["out_dir"])) == ("digits-mlp", (2, 3, 1, 4, 1, 3), "mine")
    failed = elastune("profile", "digits-mlp", "--replicates", 3)
    assert failed.exit_code == 2
    assert "say with --again how many configurations are trained so often" in failed.stderr
    failed = elastune("profile", "digits-mpl")
    assert failed.exit_code == 2
    assert "digits-mlp" in failed.stderr


def test_the_version_is_printed(elastune):
    assert re.fullmatch(r"elastune \d+\.\d+\.\d+\n", elastune("--version").stdout)


def commands_of(group, path=()):
    """Every command, as the words that name it."""
    for name, command in getattr(group, "commands", {}).items():
        yield from [(*path, name), *commands_of(command, (*path, name))]


COMMANDS = typer.main.get_command(app)


@pytest.mark.many(fast=8)
@pytest.mark.parametrize("words", list(commands_of(COMMANDS)), ids=" ".join)
def test_every_command_has_help_that_names_all_of_its_options(elastune, words):
    command = COMMANDS
    for word in words:
        command = command.commands[word]
    shown = elastune(*words, "-h")
    assert shown.exit_code == 0
    assert shown.stdout == elastune(*words, "--help").stdout
    named = {option for one in command.params for option in one.opts if option.startswith("--")}
    assert named <= set(re.findall(r"--[a-z-]+", shown.stdout))
    assert command.help
    assert "Usage: " in shown.stdout


def test_the_help_of_results_shows_the_options_of_its_table(elastune):
    shown = elastune("results", "--help").stdout
    assert {"--where", "--group", "--against", "--csv"} <= set(re.findall(r"--[a-z]+", shown))
    assert "elastune results merge" in shown


def test_commands_are_grouped(elastune):
    shown = elastune("-h").stdout
    places = [shown.index(panel) for panel in ("Run and compare", "Plan", "Data")]
    assert places == sorted(places)
    assert {"Output", "Real workers"} <= set(re.findall(r"Output|Real workers", elastune("run", "-h").stdout))


def test_a_policy_is_shown_with_its_parameters(elastune):
    shown = elastune("policies", "show", "sha-elastic").stdout
    assert re.search(r"parameter gpus_per_trial +a whole number \(default 1\)\. Size of every gang", shown)
    assert "--policy sha-elastic:gpus_per_trial=1" in shown
    told = json.loads(elastune("policies", "show", "sha-elastic", "--json").stdout)
    assert told["parameters"]["gpus_per_trial"] == 1


def test_a_policy_is_shown_with_the_values_that_its_parameters_take(elastune):
    shown = " ".join(elastune("policies", "show", "seer").stdout.split())  # lines end where the screen does
    assert re.search(r"parameter replan +true or false \(default true\)\. The remaining rungs are planned anew", shown)
    assert re.search(r"parameter resize_rule +gain, never or always \(default gain\)", shown)
    told = json.loads(elastune("policies", "show", "seer", "--json").stdout)
    assert told["choices"]["parallelism"] == ["uniform", "ranked"]
    failed = elastune("compare", "spec.yaml", "--policies", "seer:parallelism=each")
    assert (failed.exit_code, failed.stderr) == (
        2,
        "error: policy seer: parallelism is 'each', but must be one of uniform, ranked\n",
    )
    assert elastune("policies", "show", "sha-elastik").exit_code == 2


@pytest.mark.parametrize(
    ("kind", "begun", "found"),
    [
        ("policy", "sha-f", ["sha-fixed", "sha-fixed-naive"]),
        ("policies", "seer,rub", ["seer,rubberband"]),
        ("bundle", "digits", ["digits-mlp"]),
        ("workload", "digits", ["digits-mlp"]),
        ("machine", "p3.8", ["p3.8xlarge"]),
        ("scaling", "bert-a", ["bert-a100"]),
        ("claim", "S1", ["S1"]),
        ("setting", "job.dead", ["job.deadline_s="]),
        ("column", "seed,job.dead", ["seed,job.deadline_s"]),
        ("measure", "cost_", ["cost_usd"]),
        ("drawable", "led", ["ledger"]),
    ],
)
def test_names_are_completed(kind, begun, found):
    assert getattr(completion, f"complete_{kind}")(begun) == found


def test_asking_for_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom elastune.experiments.cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([name for name in ('numpy', 'pandas', 'scipy', 'pydantic', 'simpy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_completing_the_name_of_a_policy_imports_no_policy_and_nothing_heavy():
    program = (
        "import atexit, sys\nfrom elastune.experiments.cli.entry import main\n"
        "heavy = ('numpy', 'pandas', 'scipy', 'pydantic', 'simpy', 'torch', 'elastune.policies.seer.seer')\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules]))\n"
        "main()"
    )
    asked = {"_ELASTUNE_COMPLETE": "complete_bash", "COMP_WORDS": "elastune run tight --policy port", "COMP_CWORD": "4"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | asked, check=True, capture_output=True, text=True
    )
    assert done.stdout == "portfolio\n[]\n"


def test_the_words_before_are_not_obeyed_when_names_are_completed():
    program = "from elastune.experiments.cli.entry import main; main()"
    asked = {"_ELASTUNE_COMPLETE": "complete_bash", "COMP_WORDS": "elastune --version rep", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | asked, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["report", "replay"]


@pytest.mark.parametrize("seed", ["010", "1_0", "-1", "0x1"])
def test_a_seed_is_read_as_in_a_spec(elastune, folder, seed):
    done = elastune("run", "spec.yaml", "-o", "out", "--seed", seed)
    assert done.exit_code == 2
    assert seed in done.stderr
    assert not (folder / "out").exists()


def test_plan_takes_the_name_of_a_shipped_spec_as_run_does(elastune):
    planned = elastune("plan", "headline", "--planner", "static", "--json")
    assert planned.exit_code == 0, planned.stderr
    assert json.loads(planned.stdout)["naive"] == {}
    assert "did you mean 'headline'?" in elastune("plan", "headlin").stderr


def test_a_sweep_of_a_shipped_run_spec_says_that_a_sweep_file_is_wanted(elastune):
    refused = elastune("sweep", "headline")
    assert refused.exit_code == 2
    assert "a sweep needs a YAML file with base, axes and seeds" in refused.stderr


def test_a_name_in_capitals_finds_its_suggestion(elastune):
    assert "did you mean 'seer'?" in elastune("run", "spec.yaml", "--policy", "SEER").stderr


class Lacking:
    """An import that finds no key."""

    def find_spec(self, name, path, target=None):  # noqa: ARG002  as Python asks
        if name == "elastune.experiments.cli.init":
            raise KeyError("a key that is not there")


def test_an_error_of_a_command_s_import_is_not_taken_for_a_wrong_name(monkeypatch):
    monkeypatch.delitem(sys.modules, "elastune.experiments.cli.init", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Lacking(), *sys.meta_path])
    with pytest.raises(KeyError, match="a key that is not there"):
        CliRunner().invoke(app, ["init"], catch_exceptions=False)
    assert "No such command 'initt'. Did you mean 'init'" in CliRunner().invoke(app, ["initt"]).output
