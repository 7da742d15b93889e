"""Every command that a page shows is one: `elastune` knows all its options, and what can be run here runs as it is typed.

`python tests/test_documented_commands.py [PAGE ...]` runs the blocks of these pages, or of all, and says how each one ended.
"""

import contextlib
import re
import shlex
import sys
import tempfile
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from elastune.experiments.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [
    str(path.relative_to(ROOT))
    for path in (*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("README.md", "traces/README.md")))
]
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = ("bash", "console", "")
ELASTUNE = typer.main.get_command(app)
MARK = re.compile(r"`elastune\s+([^`]+)`")
UNABLE = (
    # what a command contains, why it is not run here
    ("--on ray", "trains for minutes: tests/bridge does"),
    ("--ray", "needs a cluster of one's own"),
    ("--resume", "goes on with a real run: tests/bridge does"),
    ("runs/first", "is about a real run: tests/bridge does"),
    ("elastune profile", "times real workers: tests/bridge does"),
    ("elastune fidelity", "needs hours of real runs: tests/golden has their folders"),
    ("elastune claims", "takes more than an hour"),
    ("elastune figures", "asks, or draws from runs of the claims"),
    ("ray_results", "a folder that Ray Tune writes: tests/bridge/test_audit_of_real_logs.py does"),
    ("mlruns", "a store of one's own: tests/importers does"),
    ("wandb", "runs of one's own: tests/importers does"),
    ("elastune bundles import", "data of one's own: tests/importers does"),
    ("study.db", "a study of one's own: tests/importers does"),
    ("_elasticflow.csv", "a table that does not ship"),
    ("_pollux.csv", "a table that does not ship"),
    ("spot.yaml", "a trace that does not ship"),
    ("mine.yaml", "a spec of one's own"),
    ("digits_tuned", "trains: tests/bridge/test_own_training_runs.py does"),
)
SHOWN_ELSEWHERE = "docs/your_csv.md"
"""A page whose commands tests/experiments/test_your_csv.py runs, with what they print."""
FEWER = {
    "recommend": ["--seeds", "20", "--policies", "sha-fixed,asha-fixed", "--jobs", "1"],
    "compare": ["--seeds", "2", "--jobs", "1"],
    "audit": ["--jobs", "1"],
    "sweep": ["--jobs", "1"],
}
"""What is appended so that a page takes less than a minute; the last of an option counts."""


def commands_of(page):
    """Every `elastune ...` that a page shows in a block, as arguments; comments and prompts are left out."""
    for language, block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language not in SHELL:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            typed = line.removeprefix("$ ")
            if typed.startswith("elastune "):
                yield shlex.split(typed, comments=True)[1:]


def why_not(arguments):
    """Why a command is not run here; empty where it is."""
    typed = shlex.join(["elastune", *arguments]).replace("'", "")
    return next((reason for part, reason in UNABLE if part in typed), "")


def mentions_in(page):
    """Every `elastune ...` in a sentence of a page, as words; they may leave arguments out."""
    for typed in MARK.findall(BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))):
        yield typed.split()


def command_of(words):
    """The command that words begin with, and the words after its name."""
    command, rest = ELASTUNE, list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


RUN = [page for page in PAGES if page != SHOWN_ELSEWHERE and not all(map(why_not, commands_of(page)))]


def lay_out(folder):
    """Make the files that the pages speak of; returns where their commands are typed."""
    here = folder / "here"
    here.mkdir()
    (folder / "experiments").symlink_to(ROOT / "experiments")  # beside it, as sweep.yaml has it
    for name in ("docs", "experiments"):
        (here / name).symlink_to(ROOT / name)
    rows = [f"{trial},{step},{1 / (trial + step)},30" for trial in range(8) for step in range(1, 10)]
    (here / "log.csv").write_text("\n".join(["trial,iteration,score,seconds", *rows]))
    sweeps = dict(BLOCK.findall((ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")))
    (here / "sweep.yaml").write_text(sweeps["yaml"].replace("seeds: 50", "seeds: 2"))
    with contextlib.chdir(here):
        origin = ["--direction", "minimize", "--source", "made here", "--licence", "none"]
        made = CliRunner().invoke(app, ["bundles", "import", "table", "log.csv", "--name", "mine", *origin])
    assert made.exit_code == 0, made.output
    return here


def typed(page):
    """Run what can be run of a page, one command after the other; yields each with what it said and its exit code."""
    for arguments in commands_of(page):
        if not why_not(arguments):
            asked = [*arguments, *FEWER.get(arguments[0], ())]
            done = CliRunner().invoke(app, asked, env={"COLUMNS": "100"}, catch_exceptions=False)
            yield shlex.join(arguments), done.exit_code, done.output


@pytest.mark.parametrize("page", PAGES)
def test_the_command_line_knows_each_command_of_a_page(page):
    for arguments in commands_of(page):
        command, rest = command_of(arguments)
        command.make_context(shlex.join(arguments), rest)  # raises for what it does not know
    for words in mentions_in(page):
        command, rest = command_of(words)
        assert command is not ELASTUNE or rest[0].startswith("--"), words
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in rest if re.match(r"--?[a-z]", word)} <= {*known, "--help"}, words


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_each_command_of_a_page_does_what_it_is_shown_for(page, tmp_path, monkeypatch):
    monkeypatch.chdir(lay_out(tmp_path))
    for command, code, said in typed(page):
        # With so few seeds, nothing that is tried may keep the goal.
        assert code == 0 or (code == 1 and command.startswith("recommend")), (command, said)


if __name__ == "__main__":
    for one_page in sys.argv[1:] or RUN:
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(lay_out(Path(scratch))):
            for one_command, exit_code, answer in typed(one_page):
                print(exit_code, one_page, one_command, answer if exit_code else "", flush=True)  # noqa: T201
