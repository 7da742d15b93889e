"""Files that the recipes of CONTRIBUTING.md and the tables of README.md send a newcomer to are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = re.split(r"^### ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]


def files_named(text):
    """Paths in code marks that name a file of the repository."""
    return re.findall(r"`((?:sim|policies|traces|experiments|tests|docs)/[\w/.]+\.\w+)`", text)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.partition("\n")[0])
def test_a_recipe_names_files_that_exist(recipe):
    files = files_named(recipe)
    assert len(files) >= 3
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_there_is_a_recipe_for_each():
    assert [recipe.split("\n")[0].split()[1] for recipe in RECIPES] == [
        "policy",
        "planner",
        "key",
        "part",
        "command",
        "figure",
        "importer",
    ]


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/README.md", "docs/tutorial.md", "docs/policies.md"]
)
def test_links_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
