"""What all tests share: hypothesis settings, the builders of `tiny_worlds`, and the folder of data that others measured."""

import gc
import os
import sys
from itertools import chain, zip_longest
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from tiny_worlds import Script, build_world, check_each_event, play_world

from elastune.sim.control.controller import Controller
from elastune.sim.control.journal import MemorySink

# Examples are the same in every run, and a loaded machine does not fail them.
# Host time must not decide whether a test passes, neither by a deadline nor by the health check for slow examples.
settings.register_profile("elastune", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# `make test-fast` names this one, by --hypothesis-profile. Tests with a number of their own ask `examples` for a share of it.
settings.register_profile("fast", settings.get_profile("elastune"), max_examples=15)
settings.load_profile("elastune")


def pytest_addoption(parser):
    """`--few-cases` is what `make test-fast` leaves out of tests that are marked `many`."""
    parser.addoption("--few-cases", action="store_true", help="Of tests marked `many`, take a few cases.")


def pytest_collection_modifyitems(config, items):
    """Put long files first; where few cases are asked for, leave them of each test that is marked `many`."""
    items[:] = long_files_first(items)
    if config.getoption("--few-cases"):
        leave_few_cases(config, items)


def pytest_collection_finish():
    """Thousands of tests and what they import stay to the end: no garbage collection looks through them again."""
    gc.collect()
    gc.freeze()


def long_files_first(items):
    """Files with slow tests or real workers, in turn one whose tests wait for such and one that computes; then the quick ones.

    Processes take file after file: so the cores are seldom idle, and nobody has a long file left at the end.
    """
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting, computing, quick = [], [], []
    for path, tests in files.items():
        has_workers = any("cluster" in test.fixturenames for test in tests)
        if not has_workers and not any(test.get_closest_marker("slow") for test in tests):
            quick.append(tests)
        elif has_workers or path.parent.name == "bridge":
            waiting.append(tests)
        else:
            computing.append(tests)
    in_turn = chain.from_iterable(zip_longest(waiting, computing, fillvalue=()))
    return list(chain.from_iterable([*in_turn, *quick]))


def leave_few_cases(config, items):
    """Of a test that is marked `many`, leave a few cases: each value of a product once, or some of a list, evenly spread."""
    by_test = {}
    for item in items:
        by_test.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = set()
    for cases in by_test.values():
        mark = cases[0].get_closest_marker("many")
        kept.update(cases if mark is None else few_cases(cases, mark.kwargs.get("fast", 4)))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def few_cases(cases, most):
    """Those on the diagonal of all values, which show each value at least once; evenly spread, at most so many of them."""
    sizes = {}
    for case in cases:
        for name, index in case.callspec.indices.items():
            sizes[name] = max(sizes.get(name, 0), index + 1)
    diagonal = [{name: step % size for name, size in sizes.items()} for step in range(max(sizes.values()))]
    on_diagonal = [case for case in cases if case.callspec.indices in diagonal]
    return on_diagonal[:: -(-len(on_diagonal) // most)]


@pytest.fixture(autouse=True)
def _subnormal_numbers_are_kept():
    """Workloads that train flush them, in their whole process; other tests have them among their examples."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def world():
    """Builds a literal world; see `build_world`."""
    return build_world


@pytest.fixture(scope="session")
def play():
    """Runs a policy or a script in a world; see `play_world`."""
    return play_world


@pytest.fixture(scope="session")
def script():
    """The policy that answers as it was written down; see `Script`."""
    return Script


@pytest.fixture(scope="session")
def simulate():
    """Runs a script in a literal world that is described in keywords."""
    return lambda answers, **keywords: play_world(answers, build_world(**keywords))


@pytest.fixture(scope="session")
def controlled():
    """A controller with a scripted policy and no backend: events are told to it one by one."""

    def build(answers, **keywords):
        world = build_world(**keywords)
        sink = MemorySink()
        controller = check_each_event(Controller(Script(answers), world.job, world.book, name="script", sink=sink))
        return SimpleNamespace(
            handle=controller.handle, entries=sink.entries, state=controller.state, controller=controller
        )

    return build


@pytest.fixture
def shared_data():
    """The folder of data that others measured, or a skip."""
    folder = Path(os.environ.get("ELASTUNE_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the shared data folder is absent; ELASTUNE_SHARED_DATA can name it")
    return folder
