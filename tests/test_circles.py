"""No file and no folder of the product imports itself by way of others, imports inside functions included.

Imports for types do not count.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    f"elastune.{'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')}": path
    for room in ("sim", "policies", "traces", "experiments")
    for path in (ROOT / room).rglob("*.py")
}


def executed(node):
    """The nodes below this one, without those under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from executed(child)


def imported(path):
    """The files that a file imports."""
    for node in executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def folder(name):
    """The folder of a file. The front of a package stands for its folder, too."""
    return name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]


def arrows(place):
    """Which places a place imports; `place` is of a file."""
    graph = {}
    for name, path in FILES.items():
        others = {place(one) for one in imported(path) if one in FILES}
        graph.setdefault(place(name), set()).update(others - {place(name)})
    return graph


@pytest.mark.parametrize(("place", "fewest"), [pytest.param(str, 1_000, marks=pytest.mark.slow), (folder, 150)])
def test_nothing_imports_itself_by_way_of_others(place, fewest):
    graph = arrows(place)
    assert sum(map(len, graph.values())) > fewest
    assert circle(graph) is None
    first, second = next((name, other) for name, others in graph.items() for other in others)
    assert circle({**graph, second: {*graph[second], first}}) is not None
