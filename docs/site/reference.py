"""Pages that follow from the code: the command line, the public names, a page per room, and texts that live beside the code.

Run by MkDocs (`make docs`); writes virtual files only.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import mkdocs_gen_files
import typer
from typer.cli import get_docs_for_click

from elastune.experiments.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from links import BESIDE_THE_CODE  # noqa: E402  a file beside this one, which MkDocs runs from elsewhere


def write(page: str, text: str) -> None:
    """A virtual page of the site."""
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(text)


def without_links_out(text: str) -> str:
    """Links to files that are no pages of the site become plain text."""
    return re.sub(r"\[([^\]]+)\]\((?!http|#)[^)]*\)", r"\1", text)


def command_line() -> str:
    """The reference of all commands."""
    command = typer.main.get_command(app)
    return get_docs_for_click(obj=command, ctx=typer.Context(command), name="elastune", title="Command line")


def rooms() -> list[Path]:
    """Packages of the project, outermost first."""
    folders = [ROOT / name for name in ("sim", "policies", "traces", "experiments")]
    packages = [init.parent for folder in folders for init in folder.rglob("__init__.py")]
    return sorted(packages, key=lambda package: package.relative_to(ROOT).as_posix())


def modules_of(room: Path) -> list[str]:
    """Names of the modules of a package that document something."""
    files = [file for file in sorted(room.glob("*.py")) if file.name != "__init__.py"]
    return [file.stem for file in files if ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))]


def page_of(room: Path) -> str:
    """The page of a package: what it says of itself, and its modules."""
    dotted = "elastune." + room.relative_to(ROOT).as_posix().replace("/", ".")
    parts = [f"# {dotted}\n\n{ast.get_docstring(ast.parse((room / '__init__.py').read_text(encoding='utf-8')))}\n"]
    parts += [
        f"## {name}\n\n::: {dotted}.{name}\n    options:\n      show_root_heading: false\n" for name in modules_of(room)
    ]
    return "\n".join(parts)


def public_names() -> str:
    """The page of what `import elastune` gives: each name, with a link to where it is described."""
    source = ast.parse((ROOT / "experiments" / "public_api.py").read_text(encoding="utf-8"))
    imports = [
        node for node in ast.walk(source) if isinstance(node, ast.ImportFrom) and (node.module or "")[:9] == "elastune."
    ]
    names = sorted(
        (alias.asname or alias.name, f"{node.module}.{alias.name}") for node in imports for alias in node.names
    )
    rows = "\n".join(f"| `{name}` | [{target}][{target}] |" for name, target in names)
    return f"# import elastune\n\n{ast.get_docstring(source)}\n\n| name | where it is described |\n|---|---|\n{rows}\n"


write("generated/command_line.md", command_line())
for source, page in BESIDE_THE_CODE.items():
    if (ROOT / source).exists():
        write(page, without_links_out((ROOT / source).read_text(encoding="utf-8")))
summary = ["* [import elastune](elastune.md)"]
write("generated/python/elastune.md", public_names())
for room in rooms():
    name = room.relative_to(ROOT).as_posix()
    write(f"generated/python/{name}.md", page_of(room))
    summary.append(f"{'    ' * name.count('/')}* [{name}]({name}.md)")
write("generated/python/SUMMARY.md", "\n".join(summary) + "\n")
