"""Every command that a page shows is one: `elastune` knows it and all its options."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

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


def commands_of(page):
    """Every `elastune ...` that a page shows in a block, as arguments; comments and prompts are left out."""
    for language, block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language not in SHELL:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            typed = line.removeprefix("$ ")
            if typed.startswith("elastune "):
                yield shlex.split(typed, comments=True)[1:]


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
