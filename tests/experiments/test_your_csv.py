"""The ten minutes from a CSV to a decision, as docs/your_csv.md tells them: its commands print what it shows.

`python tests/experiments/test_your_csv.py` writes the outputs into the page.
"""

import os
import re
import runpy
import shlex
import sys
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elastune import load_bundle
from elastune.experiments.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "your_csv.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
SPEEDUPS = "gpus,speedup\n1,1\n2,1.8\n4,3.1\n"


def printed(command):
    """What a command of the page prints; both streams, as on a terminal."""
    name, *arguments = shlex.split(command)
    match name:
        case "python":
            runpy.run_path(str(DOCS / "examples" / arguments[0]))
            return ""
        case "head":
            return "".join(Path(arguments[1]).read_text().splitlines(keepends=True)[:3])
        case "cat":
            return Path(arguments[0]).read_text()
    assert name == "elastune"
    jobs = ["--jobs", "1"] if arguments[0] in ("compare", "recommend") else []
    done = CliRunner().invoke(app, [*arguments, *jobs], env={"COLUMNS": "100"})
    assert done.exit_code == 0, (command, done.output)
    lines = [line.rstrip() for line in done.output.splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def rewritten(page):
    """The page with what its commands print now."""
    Path("speedups.csv").write_text(SPEEDUPS)

    def block(found):
        commands = [line for line in found[1].splitlines() if line.startswith("$ ")]
        return "```console\n" + "".join(f"{command}\n{printed(command[2:])}" for command in commands) + "```"

    return BLOCK.sub(block, page)


@pytest.mark.slow
def test_the_page_shows_what_its_commands_print(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    assert rewritten(page) == page
    assert "sha-fixed" in Path("report.html").read_text(encoding="utf-8")
    bundle = load_bundle("results/bundles/ours")
    assert bundle.scores.shape == (60, 40)
    assert bundle.labels[0].startswith("w")  # as the user named them


def record():
    """Write the page anew."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        os.chdir("/")


if __name__ == "__main__":
    sys.exit(record())
