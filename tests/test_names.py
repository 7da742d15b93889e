"""What the classes and the test files of the project are called."""

import ast
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("sim", "policies", "traces", "experiments")


def _classes():
    """(name, file and line) of every class of the product, private and nested ones too."""
    for folder in PRODUCT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    yield node.name, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_no_two_classes_share_a_name():
    places = defaultdict(list)
    for name, place in _classes():
        places[name].append(place)
    assert len(places) > 100  # the classes of the product were found
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_two_test_files_share_a_name():
    """Of two files of one name, pytest collects one where both are asked for."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "__init__.py")
    shared = {name for name, times in names.items() if times > 1 and name.startswith("test_")}
    assert not shared
