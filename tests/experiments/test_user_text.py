"""Names, hyperparameters and paths of users are printed as they are, whatever they hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from elastune.experiments.cli.tables import Table, key, numbers, plain, print_pairs, text

SHOWN_AS_THEY_ARE = ("[red]", "[/x]", r"\[", "[bold]x[/bold]", "[link=http://a]", ":smile:", "\U0001f600")
ESCAPED = {"a\nb": r"a\nb", "\x1b[31mred": r"\x1b[31mred", "\x9b31m": r"\x9b31m", "\u202eabc": r"\u202eabc"}
ODD = {name: name for name in SHOWN_AS_THEY_ARE} | ESCAPED
SPEC = {
    "job": {"trials": 2, "max_iterations": 2, "deadline_s": 3600, "budget_usd": 20},
    "workload": {"bundle": "b", "scaling": "linear", "iteration_s": 10},
    "cloud": {"rescale_s": 1, "instance_type": {"name": "m", "price_usd_per_hour": 3, "gpus_per_instance": 1}},
    "policy": "sha-fixed",
}


@pytest.fixture
def elastune(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@given(st.text())
def test_what_is_printed_is_one_line_without_control_characters_and_loses_nothing(name):
    shown = plain(name)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]", shown)
    assert plain(shown) == shown
    assert all(c in shown for c in name if c.isprintable())


@pytest.mark.parametrize("odd", ODD)
def test_tables_show_names_as_they_are(capsys, odd):
    table = Table(f"title {odd}", [*key(f"key {odd}"), *numbers("n"), *text("told")])
    table.add(f"name {odd}", 1, f"text {odd}")
    table.print()
    print_pairs(f"one {odd}", {f"what {odd}": f"value {odd}"})
    told = capsys.readouterr().out
    for where in ("title", "key", "name", "text", "one", "what", "value"):
        assert f"{where} {ODD[odd]}" in told


@pytest.mark.parametrize("odd", ["[red]", "[/x]", r"\[", ":smile:", "\U0001f600", "\x1b[31mred"])
def test_hyperparameters_and_paths_are_shown_by_import_and_run(elastune, tmp_path, odd):
    quoted = '"' + odd + '"'
    rows = [f"{trial},{iteration},0.{trial}{iteration},{quoted}" for trial in (1, 2) for iteration in (1, 2)]
    (tmp_path / "t.csv").write_text("\n".join([f"trial,iteration,score,{quoted}", *rows]) + "\n")
    described = ("--name", "b", "--direction", "minimize", "--source", "s", "--licence", "l")
    made = elastune("bundles", "import", "table", "t.csv", *described, "-o", "b")
    assert made.exit_code == 0, made.output
    assert ODD[odd] in made.stdout
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SPEC))
    done = elastune("run", "s.yaml", "-o", f"out{odd}")
    assert done.exit_code == 0, done.output
    assert f"{ODD[odd]}={ODD[odd]}" in done.stdout
    assert f"results: out{ODD[odd]}" in done.stdout


@pytest.mark.parametrize("odd", ["[red]", "[/x]", "\x1b[31mred"])
def test_errors_show_names_as_they_are(elastune, odd):
    failed = elastune("run", f"{odd}.yaml")
    assert failed.exit_code == 2
    assert failed.stderr.startswith(f"error: {ODD[odd]}.yaml")
    assert "\x1b" not in failed.stderr


def test_what_a_terminal_cannot_show_is_escaped(tmp_path):
    """Such as an emoji, where the encoding of the terminal is ASCII."""
    name = "caf\u00e9\U0001f600"
    program = "from elastune.experiments.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "run", f"{name}.yaml"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr.startswith(b"error: caf\\xe9\\U0001f600.yaml")) == (2, True)
