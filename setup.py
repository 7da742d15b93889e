"""Lays the import tree: `.links/elastune/` links the top-level folders, so that all of them are imported as `elastune.*`.

pip, mypy, pytest and Ray workers read that tree; the wheel copies it. Everything else is in pyproject.toml.
"""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
TREE = ROOT / ".links" / "elastune"
SOURCES = {
    "__init__.py": "experiments/public_api.py",
    "__main__.py": "experiments/cli/module.py",
    "py.typed": "sim/py.typed",
    **{folder: folder for folder in ("sim", "policies", "traces", "experiments")},
}

TREE.mkdir(parents=True, exist_ok=True)
for name, source in SOURCES.items():
    link = TREE / name
    if not link.is_symlink():
        link.symlink_to(Path("../..") / source)

setup()
