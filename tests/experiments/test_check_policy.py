from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from elastune.experiments.cli.policies import check_policy
from elastune.experiments.contracts.user_policy import check_target, policy_factory
from elastune.sim.model.actions import ScaleTo
from elastune.sim.model.errors import InputError
from elastune.sim.model.events import RunStarted

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "my_policy.py"

BAD = """
class Forgetful:
    def __init__(self, job, profile, price_book, rng, *, machines=1):
        self.machines = machines

    def on_event(self, event, view):
        from elastune.sim.model.actions import FinishRun, ScaleTo
        return [ScaleTo(self.machines), FinishRun(None)]

class Raising:
    def __init__(self, job, profile, price_book, rng):
        raise KeyError("rung")


class NoPolicy:
    def __init__(self, job, profile, price_book, rng):
        pass

class Stumbling:
    def __init__(self, job, profile, price_book, rng):
        pass

    def on_event(self, event, view):
        return self.decide()

    def decide(self):
        return [][1]


class Endless:
    def __init__(self, job, profile, price_book, rng):
        pass

    def on_event(self, event, view):
        from elastune.sim.model.actions import SetTimer
        return [SetTimer("t", float("inf"))]


def few(job):
    return None

number = 7
"""


@pytest.fixture
def bad(tmp_path):
    file = tmp_path / "bad_policies.py"
    file.write_text(BAD, encoding="utf-8")
    return str(file)


@pytest.fixture
def command():
    app = typer.Typer()
    app.command()(check_policy)
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.mark.slow
def test_the_example_is_short_and_keeps_every_promise():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 30
    report = check_target(f"{EXAMPLE}:MyPolicy")
    assert report.broken == []
    assert report.worlds > 15


def test_a_policy_is_found_by_module_file_or_name(monkeypatch, tmp_path, bad):
    monkeypatch.chdir(tmp_path)
    assert policy_factory("bad_policies:Forgetful")
    policy = policy_factory(f"{bad}:Forgetful", {"machines": 2})(None, None, None, None)
    assert policy.on_event(RunStarted(0.0), None)[0] == ScaleTo(2)
    assert policy_factory("sha-fixed")


def test_broken_promises_are_named_with_world_and_time(bad):
    report = check_target(f"{bad}:Forgetful")
    assert {finding.promise for finding in report.broken} == {"answers_durably"}
    told = "world 'plain', at 0.000 s: the policy ended the run without an answer, and nothing was ever trained"
    assert told in report.broken[0].problem


def test_a_timer_that_never_fires_is_a_broken_promise(bad):
    report = check_target(f"{bad}:Endless")
    assert {finding.promise for finding in report.broken} == {"actions_are_possible"}
    assert "a timer must fire at a finite time" in report.broken[0].problem


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Missing", r"has no 'Missing'; it has Forgetful, Raising, NoPolicy, Stumbling, Endless, few$"),
        ("number", r"number is a int; it must be a class or function of \(job, profile, price_book, rng\)"),
        ("few", r"cannot be built: too many positional arguments"),
        ("NoPolicy", r"a NoPolicy has no on_event"),
        ("Raising", r"Raising cannot be built: KeyError: 'rung' \(.*bad_policies.py, line 12, in __init__\)"),
    ],
)
def test_what_is_no_policy_is_refused(bad, name, problem):
    with pytest.raises(InputError, match=problem):
        check_target(f"{bad}:{name}")


def test_what_cannot_be_imported_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"^no_such_module cannot be imported: ModuleNotFoundError: No module named 'no_such_module'$"
    ):
        check_target("no_such_module:Policy")
    with pytest.raises(InputError, match=r"there is no file .*gone\.py"):
        check_target(f"{tmp_path / 'gone.py'}:Policy")
    with pytest.raises(InputError, match=r"there is no policy 'sha-fixt'; did you mean 'sha-fixed'"):
        check_target("sha-fixt")
    with pytest.raises(InputError, match=r"module:Class"):
        check_target(":Policy")
    (tmp_path / "leaves.py").write_text("raise SystemExit(5)\n")
    with pytest.raises(InputError, match=r"leaves\.py cannot be imported: SystemExit: 5 \(.*leaves\.py, line 1"):
        check_target(f"{tmp_path / 'leaves.py'}:Policy")


def test_an_exception_of_the_policy_is_told_once_with_file_and_line(command, bad):
    broken = command(f"{bad}:Stumbling")
    assert broken.exit_code == 1
    told = [line for line in broken.output.splitlines() if "IndexError" in line]
    assert len(told) == 1
    assert f"IndexError: list index out of range ({bad}, line 27, in decide) (and the same in" in told[0]
    assert "Traceback" not in broken.output


@pytest.mark.slow
def test_the_command_prints_what_broke_and_exits_with_1(command, bad):
    kept = command(f"{EXAMPLE}:MyPolicy")
    assert kept.exit_code == 0, kept.output
    assert "0 broken" in kept.output
    broken = command(f"{bad}:Forgetful")
    assert broken.exit_code == 1
    assert "BROKEN answers_durably: Forgetful answers with a durable winner, world 'plain'" in broken.output
    document = json.loads(command(f"{bad}:Forgetful", "--json").stdout)
    assert document["broken"][0]["world"] == "plain"
    assert document["kept"] > 100
