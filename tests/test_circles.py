"""No file of the product imports itself by way of others, imports inside functions included; imports for types do not count."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

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


def test_no_file_imports_itself_by_way_of_others():
    graph = {name: {one for one in imported(path) if one in FILES and one != name} for name, path in FILES.items()}
    assert sum(map(len, graph.values())) > 1_000
    assert circle(graph) is None
    first, second = next((name, other) for name, others in graph.items() for other in others)
    assert circle({**graph, second: {*graph[second], first}}) is not None
