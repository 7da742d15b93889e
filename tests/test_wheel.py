"""The wheel, installed into a fresh environment, works in a folder that has packages of the project's folder names."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = (
    "sim",
    "policies",
    "traces",
    "experiments",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)
HEADLINE = "headline"
TRAPS = ("sim", "policies", "traces", "experiments")

pytestmark = pytest.mark.slow


def call(*arguments, cwd, **environment):
    """Standard output of a command, which must succeed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(  # noqa: PLW1510  the return code is asserted with all that was said
        [str(one) for one in arguments],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the commands of a fresh environment that holds the wheel, beside what it depends on."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", source / "dist", source, cwd=source)
    (wheel,) = (source / "dist").glob("*.whl")
    environment = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", environment, cwd=source)
    python = environment / "bin" / "python"
    call(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=source)
    # What it depends on comes from the environment of the tests, whose own elastune is not seen: a line of a .pth file
    # in a folder that is itself named by a .pth file is not read.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return environment / "bin"


@pytest.fixture
def folder(tmp_path):
    """A researcher's folder, whose packages must never be imported."""
    for name in TRAPS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('foreign code ran')\n", encoding="utf-8")
    return tmp_path


def test_everything_is_under_one_name(installed, folder):
    code = "import elastune, sys; print(elastune.__file__, elastune.RunSpec.__module__, {*sys.argv} & {*sys.modules})"
    said = call(installed / "python", "-P", "-c", code, *TRAPS, cwd=folder)
    assert str(installed.parent) in said
    assert said.endswith("elastune.experiments.spec.run set()\n")


def test_compare_runs(installed, folder):
    said = call(
        installed / "elastune", "compare", HEADLINE, "--policies", "seer,asha-fixed", "--seeds", "2", cwd=folder
    )
    assert "asha-fixed" in said


def test_figures_are_drawn(installed, folder):
    call(installed / "elastune", "figures", "s4-gantt", "--smoke", "-o", "out", cwd=folder)
    assert list((folder / "out").glob("*.png"))


def test_workers_of_a_real_run_are_spawned(installed, folder):
    # Emulated seconds pass 100 times as fast, those of Ray do not: the deadline leaves room for a slow start.
    limits = {"job.trials": 2, "job.max_iterations": 3, "job.deadline_s": 36_000, "job.budget_usd": 200}
    settings = [word for key, value in limits.items() for word in ("--set", f"{key}={value}")]
    command = (
        "run",
        HEADLINE,
        *settings,
        "--policy",
        "sha-elastic",
        "--on",
        "ray",
        "--emulate",
        "100",
        "-o",
        "real",
        "--json",
    )
    said = call(installed / "elastune", *command, cwd=folder, RAY_USAGE_STATS_ENABLED="0")
    assert '"best_trial": ' in said
