"""Policies of the user's own, wherever a policy is named: in commands, YAML and Python, in other processes, and in records."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_sweep_spec import BASE
from typer.testing import CliRunner

from elastune import RunSpec, compare, execute, replay_journal
from elastune.experiments.cli.app import app
from elastune.experiments.comparisons.ablation import ablate
from elastune.experiments.contracts.user_policy import check_target
from elastune.experiments.fidelity.sitting import FORMAT, Sitting
from elastune.experiments.own_code import find
from elastune.experiments.runs.journals import header_of, spec_of
from elastune.experiments.runs.replay import ledger_of
from elastune.experiments.spec.yaml_file import policy_mapping, split_names
from elastune.experiments.sweeps.grid import SweepSpec
from elastune.experiments.sweeps.run import plan, run_sweep
from elastune.experiments.sweeps.store import Store
from elastune.sim.model.errors import InputError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "median_stopping.py"
RAISING = """
class Mine:
    def __init__(self, job, profile, price_book, rng, *, at, quick=False):
        pass

    def on_event(self, event, view):
        return self.decide()

    def decide(self):
        return {}["rung"]
"""
TRAP = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working folder with the example as `mine.py`."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(EXAMPLE, tmp_path / "mine.py"))


@pytest.fixture
def trap(own):
    """Turns `mine.py` into one that leaves a file where it is run; says whether it was."""

    def was_run():
        return (own.parent / "ran").exists()

    def turn():
        own.write_text(own.read_text() + TRAP)
        assert not was_run()

    return turn, was_run


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def base(**changes):
    return RunSpec.of(**{**BASE, **changes})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mine.py:Mine", {"name": "mine.py:Mine"}),
        ("mine.py:Mine(quantile=0.4)", {"name": "mine.py:Mine", "quantile": 0.4}),
        ("a/b.py:Mine:quantile=0.4:soft=true", {"name": "a/b.py:Mine", "quantile": 0.4, "soft": True}),
        ("package.module:Mine(rungs=[1, 3], on=a b)", {"name": "package.module:Mine", "rungs": [1, 3], "on": "a b"}),
        ("sha-elastic(gpus_per_trial=4)", {"name": "sha-elastic", "gpus_per_trial": 4}),
        ("seer:fill=true", {"name": "seer", "fill": True}),
    ],
)
def test_parameters_are_written_with_colons_or_in_brackets(text, expected):
    assert policy_mapping(text) == expected


def test_commas_between_parameters_part_no_names():
    names = split_names("seer, mine.py:Mine(rungs=[1, 3], quick=true),sha-elastic:gpus_per_trial=4")
    assert names == ["seer", "mine.py:Mine(rungs=[1, 3], quick=true)", "sha-elastic:gpus_per_trial=4"]


def test_the_worked_example_keeps_every_promise():
    report = check_target(f"{EXAMPLE}:MedianStopping")
    assert report.broken == []
    assert report.worlds > 15


@pytest.mark.slow
@pytest.mark.usefixtures("own")
def test_it_is_compared_in_other_processes_as_in_this_one():
    policies = ["sha-fixed", "mine.py:MedianStopping(grace=3)", "mine:MedianStopping:machines=1"]
    here, there = (compare(base(), policies, 3, jobs=jobs) for jobs in (1, 2))
    assert here.to_json() == there.to_json()
    assert list(there.summary["policy"]) == ["sha-fixed", "mine.py:MedianStopping:grace=3", policies[2]]
    assert set(there.results["status"]) == {"done"}
    assert len(set(there.summary["cost_usd"])) == 3


def test_the_code_travels_with_its_spec_and_the_working_folder_does_not_become_importable(own, tmp_path):
    (tmp_path / "other.py").write_text("raise SystemExit('imported')\n")
    spec = base(policy="mine.py:MedianStopping")
    expected = execute(spec).to_json()
    (tmp_path / "spec.pickle").write_bytes(pickle.dumps(spec))
    own.unlink()
    code = (
        "import json, pickle, sys; spec = pickle.load(open(sys.argv[1], 'rb'))\n"
        "from elastune import execute; print(json.dumps(execute(spec).to_json()))\n"
        "assert not {'', '.', sys.argv[2]} & set(sys.path), sys.path"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", code, tmp_path / "spec.pickle", tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".links")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == json.loads(json.dumps(expected))
    assert str(tmp_path) not in sys.path


def test_the_journal_names_the_code_and_its_digest_and_replays_only_where_it_is_named(own, trap):
    journal, place = own.parent / "journal.jsonl", f"{own}:MedianStopping"
    execute(base(policy={"name": "mine.py:MedianStopping", "grace": 2}), journal=journal)
    header = header_of(journal)
    assert header.spec["policy"] == {"name": place, "grace": 2}
    assert header.data_sha256[place] == find(place).sha256
    assert replay_journal(journal, policy="mine.py:MedianStopping") == replay_journal(journal, policy=place)

    turn, was_run = trap
    turn()
    assert ledger_of(journal).usd["training"] > 0
    assert spec_of(journal).policy.label == "mine.py:MedianStopping:grace=2"
    with pytest.raises(InputError, match=r"is run only where you name it: add --policy .*mine\.py:MedianStopping"):
        replay_journal(journal)
    for another in ("mine.py:Other", "sha-fixed"):
        with pytest.raises(InputError, match=r"has no 'Other'|not of sha-fixed: name that"):
            replay_journal(journal, policy=another)
    (own.parent / "ran").unlink(missing_ok=True)
    own.write_text(EXAMPLE.read_text() + "\n# changed\n")
    with pytest.raises(InputError, match=rf"the policy's code {place} is not the one .* its sha256 was"):
        replay_journal(journal, policy="mine.py:MedianStopping")
    assert not was_run()


def test_a_folder_that_was_handed_over_runs_nothing(own, trap):
    arguments = ("run", "tight", "--policy", "mine.py:MedianStopping", "-o", "out")
    assert command(*arguments).exit_code == 0
    turn, was_run = trap
    (own.parent / "evil.py").write_text(own.read_text() + TRAP)
    saved = yaml.safe_load((own.parent / "out" / "spec.yaml").read_text())
    (own.parent / "out" / "spec.yaml").write_text(yaml.safe_dump({**saved, "policy": "evil.py:MedianStopping"}))
    turn()
    refused = command("run", "tight", "--policy", "sha-fixed", "-o", "out")
    assert refused.exit_code == 2
    assert "holds the simulated run of another spec: policy was" in " ".join(refused.output.split())
    assert command("ledger", "out/journal.jsonl").exit_code == 0
    replayed = command("replay", "out/journal.jsonl")
    assert (replayed.exit_code, "only where you name it" in replayed.output) == (2, True)
    assert not was_run()


def test_files_in_yaml_are_relative_to_that_file(own, tmp_path, monkeypatch):
    (tmp_path / "specs").mkdir()
    shutil.move(own, tmp_path / "specs" / "mine.py")
    policy = {"name": "mine.py:MedianStopping", "grace": 2}
    (tmp_path / "specs" / "run.yaml").write_text(yaml.safe_dump({**BASE, "policy": policy}))
    sweep = {"base": "run.yaml", "axes": {"policy": [policy, "./mine.py:MedianStopping(grace=4)", "seer"]}, "seeds": 2}
    (tmp_path / "specs" / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    place = f"{tmp_path}/specs/mine.py:MedianStopping"
    spec = RunSpec.load("../specs/run.yaml")
    assert spec.policy.name == place
    spec.save(tmp_path / "saved.yaml")
    assert RunSpec.load(tmp_path / "saved.yaml") == spec
    assert [cell.spec.policy.name for cell in SweepSpec.load("../specs/sweep.yaml").cells()] == [place, place, "seer"]
    assert command("plan", "../specs/run.yaml", "--json").exit_code == 0


def test_a_sweep_with_processes_knows_when_the_code_has_changed(own, tmp_path):
    sweep = SweepSpec.of({"base": BASE, "axes": {"policy": ["sha-fixed", "mine.py:MedianStopping"]}, "seeds": 2})
    assert run_sweep(plan(sweep, tmp_path / "out"), tmp_path / "out", jobs=2).counts == {
        "done": 4,
        "infeasible": 0,
        "failed": 0,
    }
    rows = Store(tmp_path / "out").read().to_pylist()
    assert {row["policy.name"] for row in rows} == {"sha-fixed", f"{own}:MedianStopping"}
    own.write_text(own.read_text() + "\n# changed\n")
    with pytest.raises(InputError, match="2 of its 4 rows are of another sweep or of data that changed"):
        plan(sweep, tmp_path / "out")


@pytest.mark.usefixtures("own")
def test_its_parameters_are_ablated():
    spec = base(policy="mine.py:MedianStopping")
    assert list(ablate(spec, ["machines=1"], 2, jobs=1).table["switch"]) == ["-", "machines=1"]
    with pytest.raises(InputError, match=r"no switches of its own; .*its parameters: machines, grace, least"):
        ablate(spec)


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("mine.py:Mine", r"policy mine\.py:Mine: at is missing, and has no default"),
        ("mine.py:Mine(at=1, quik=true)", r"there is no mine\.py:Mine parameter 'quik'; did you mean 'quick'"),
        ("mine.py:Mine(at=1, quick=7)", r"policy mine\.py:Mine: quick is 7, but must be true or false"),
        ("gone.py:Mine", r"there is no file .*gone\.py"),
        ("sha-fixt", r"did you mean 'sha-fixed'.*or name your own as module:Class or file\.py:Class"),
    ],
)
def test_what_is_wrong_with_a_name_is_said_before_anything_starts(own, policy, problem):
    own.write_text(RAISING)
    with pytest.raises(InputError, match=problem):
        base(policy=policy)


def test_its_own_exception_is_told_with_file_and_line(own):
    own.write_text(RAISING)
    told = command("run", "tight", "--policy", "mine.py:Mine(at=1)", "-o", "out")
    assert told.exit_code == 1
    assert f"KeyError: 'rung' ({own}, line 10, in decide)" in "".join(told.output.splitlines())
    comparison = compare(base(), ["sha-fixed", "mine.py:Mine(at=1)"], 1, jobs=1)
    assert comparison.runs[1]["error"] == f"KeyError: 'rung' ({own}, line 10, in decide)"
    checked = command("check-policy", "mine.py:Mine(at=1)")
    assert checked.exit_code == 1
    assert sum("KeyError" in line for line in checked.output.splitlines()) == 1


ANSWERS = """
import sys
import numpy as np
from elastune.sim.model.actions import FinishRun, RunTrial, ScaleTo, SetTimer

class Mine:
    def __init__(self, job, profile, price_book, rng):
        pass

    def on_event(self, event, view):
        {}
"""


@pytest.mark.many(fast=3)
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("return None", "mine.py:Mine: None at 0.0 s: on_event must give a list of actions"),
        ("return 'ScaleTo'", "mine.py:Mine: ScaleTo at 0.0 s: on_event must give a list of actions"),
        ("return ScaleTo(1)", "on_event must give a list of actions"),
        ("return [1]", "mine.py:Mine: 1 at 0.0 s: that is no action; there are ScaleTo, RunTrial"),
        ("return [ScaleTo(1.5)]", "ScaleTo(instances=1.5, instance_type=None, market=None) at 0.0 s: Expected `int`"),
        ("return [ScaleTo(np.arange(2))]", "array([0, 1]) is a ndarray, but must be a number or a text"),
        ("return [SetTimer(5, 1.0)]", "Expected `str`, got `int`"),
        ("sys.exit(3)", "RuntimeError: SystemExit: 3 ("),
        ("yield sys.exit(3)", "RuntimeError: SystemExit: 3 ("),
        ("raise GeneratorExit", "RuntimeError: GeneratorExit:  ("),
    ],
)
def test_answers_that_are_no_actions_are_told_and_end_nothing_but_their_run(own, answer, problem):
    own.write_text(ANSWERS.format(answer))
    told = command("run", "tight", "--policy", "mine.py:Mine", "-o", "out")
    assert told.exit_code == 1
    assert problem in "".join(told.output.splitlines())
    comparison = compare(base(), ["sha-fixed", "mine.py:Mine"], 1, jobs=1)
    assert [run["status"] for run in comparison.runs] == ["done", "failed"]
    assert problem in comparison.runs[1]["error"]


def test_numpy_values_of_actions_are_the_plain_ones(own):
    own.write_text(
        ANSWERS.format(
            "name = type(event).__name__\n"
            "        if name == 'RunStarted':\n"
            "            yield ScaleTo(np.int64(1))\n"
            "            yield SetTimer(np.str_('t'), np.float32(0.5))\n"
            "            yield RunTrial(np.int32(0), np.array(1), np.int64(1))\n"
            "        if name == 'SegmentEnded':\n"
            "            yield FinishRun(np.uint8(0))"
        )
    )
    done = command("run", "tight", "--policy", "mine.py:Mine", "-o", "out", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["iterations_trained"] == 1
    assert replay_journal(Path("out/journal.jsonl"), policy="mine.py:Mine")[1]


@pytest.mark.parametrize(
    "code", ["import sys\nsys.exit(0)", "raise GeneratorExit", "class E(BaseException): pass\nraise E"]
)
def test_code_that_would_end_the_process_when_it_is_imported_is_wrong_input(own, code):
    own.write_text(code)
    told = command("check-policy", "mine.py:Mine")
    assert (told.exit_code, "cannot be imported" in told.output) == (2, True), told.output


def test_an_import_that_takes_long_is_named_once(own, monkeypatch):
    own.write_text("import time\ntime.sleep(0.2)\n" + ANSWERS.format("return []"))
    monkeypatch.setattr("elastune.experiments.own_code.SLOW_S", 0.01)
    with pytest.warns(UserWarning, match=r"importing .*mine\.py takes more than 0 s; Ctrl-C ends it"):
        find("mine.py:Mine").load()


def test_files_with_the_name_of_a_module_stand_for_nothing_else(own):
    shutil.move(own, own.with_name("random.py"))
    import random

    assert execute(base(policy="random.py:MedianStopping")).score is not None
    assert sys.modules["random"] is random


def test_installed_packages_register_policies(own, monkeypatch):
    shutil.move(own, own.with_name("installed_median.py"))
    information = own.parent / "median-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: median\nVersion: 1.0\n")
    named = "median = installed_median:MedianStopping\nsha-fixed = installed_median:MedianStopping\n"
    (information / "entry_points.txt").write_text(f"[elastune.policies]\n{named}")
    monkeypatch.syspath_prepend(own.parent)
    journal = own.parent / "journal.jsonl"
    ours, theirs = base(), base(policy="median:grace=2")
    assert ours.policy.code is None
    execute(theirs, journal=journal)
    assert header_of(journal).data_sha256["median"] == theirs.policy.code.sha256
    assert replay_journal(journal)[1]  # to install it was to name it
    assert "of an installed package" in " ".join(command("policies", "list").output.split())


def test_a_sitting_that_was_handed_over_runs_no_code_that_it_names(own, trap):
    turn, was_run = trap
    turn()
    job = {"name": "one", "spec": {**BASE, "policy": "seer"}, "bundle": "mnist5k-cnn"}
    asked = {
        "jobs": [job],
        "policies": ["mine.py:MedianStopping"],
        "repeats": 1,
        "device": "cpu",
        "speed": None,
        "injects": False,
    }
    (own.parent / "fidelity.json").write_text(json.dumps({**asked, "format": FORMAT}))
    with pytest.raises(InputError, match=r"policy mine\.py:MedianStopping is code of somebody's own"):
        Sitting.load(own.parent)
    assert not was_run()


def test_an_import_that_never_ends_is_ended_by_ctrl_c(own):
    own.write_text("print('begun', flush=True)\nwhile True: pass")
    # Started in the background, the tests' own process may ignore Ctrl-C, and would pass that on.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; from elastune.experiments.cli.entry import main; main()"
    asked = [sys.executable, "-c", code, "run", "tight", "--policy", "mine.py:Mine", "-o", "out"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "begun\n"
        run.send_signal(signal.SIGINT)
        try:
            _, told = run.communicate(timeout=60)
        finally:
            run.kill()
    assert (run.returncode, told) == (130, "error: interrupted\n")
    assert not Path("out").exists()


@pytest.mark.many(fast=1)
@pytest.mark.parametrize("closes", ["sys.stdout.close()", "sys.stdout.close(); sys.stderr.close()"])
def test_a_policy_that_closes_the_output_does_not_close_ours(own, closes):
    own.write_text("import sys\n" + ANSWERS.format(f"{closes}; return [FinishRun(None)]"))
    code = "from elastune.experiments.cli.entry import main; main()"
    asked = [sys.executable, "-c", code, "run", "tight", "--policy", "mine.py:Mine", "-o", "out", "--json"]
    run = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert "Traceback" not in run.stderr
    assert json.loads(run.stdout)["trials_started"] == 0


def test_what_a_policy_wrote_to_a_file_that_it_left_open_is_there_in_the_end(own):
    held = "global held; held = [open('log.txt', 'w')]; held.append(held); held[0].write('seen')"
    own.write_text(ANSWERS.format(f"{held}; return [FinishRun(None)]"))
    code = "from elastune.experiments.cli.entry import main; main()"
    asked = [sys.executable, "-W", "ignore", "-c", code, "run", "tight", "--policy", "mine.py:Mine", "-o", "out"]
    subprocess.run(asked, capture_output=True, check=False)
    assert Path("log.txt").read_text() == "seen"
