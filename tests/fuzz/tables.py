"""Small tables of recorded curves, sound or with edits, and their import through the command line."""

from __future__ import annotations

from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from tests.fuzz.journals import edited_lines

_SCORES = ["nan", "inf", "-inf", "", "1e308", "-1e308", "1e-320", "0", "-0.0", "0.5"]


def table(rng):
    """One to eight trials of one to five iterations, some of them with hyperparameters; a few scores are odd."""
    trials, iterations = rng.randint(1, 8), rng.randint(1, 5)
    rows = ["trial,iteration,score,lr"]
    for trial in range(trials):
        rate = rng.choice(["0.1", "0.01", "1e-3"])
        for iteration in range(1, iterations + 1):
            score = rng.choice(_SCORES[:2]) if rng.random() < 0.05 else repr(round(rng.random(), 4))
            rows.append(f"{trial},{iteration},{score},{rate}")
    return "\n".join(rows) + "\n"


def edited_table(rng):
    """A table as bytes, with edits: lines, numbers, odd scores, the header, the encoding."""
    text = table(rng)
    if rng.random() < 0.3:
        text = text.replace("0.5", rng.choice(_SCORES)).replace(",0.", f",{rng.choice(_SCORES)}", 1)
    if rng.random() < 0.2:
        text = text.replace("score", rng.choice(["seconds", "relative_cost", "trial", "", "scöre"]), 1)
    if rng.random() < 0.2:
        lines = text.splitlines()
        column = rng.choice(["seconds", "relative_cost", "min_gpus", "x"])
        value = rng.choice(["12", "0", "-3", "1700000000", "abc", ""])
        text = "\n".join([f"{lines[0]},{column}", *(f"{line},{value}" for line in lines[1:])]) + "\n"
    raw = text.encode(rng.choice(["utf-8", "utf-8", "utf-8", "utf-16", "latin-1"]), errors="replace")
    return b"".join(edited_lines(rng, raw.splitlines(keepends=True))) if rng.random() < 0.8 else raw


def import_table(source, out):
    """The exit code of `elastune bundles import table`; an error that is none of the project's is raised."""
    command = ["bundles", "import", "table", str(source), "--name", "b", "--direction", "minimize"]
    done = CliRunner().invoke(app, [*command, "--source", "s", "--licence", "l", "-o", str(out)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code
