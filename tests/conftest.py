"""What all tests share: hypothesis settings, the builders of `tiny_worlds`, and the folder of data that others measured."""

import os
import sys
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
settings.load_profile("elastune")


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
