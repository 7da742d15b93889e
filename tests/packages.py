"""Which packages a test needs, asked without importing them."""

from __future__ import annotations

import importlib.util

import pytest


def needs(*packages, reason="the bridge extra is not installed"):
    """Skip the test or the module where one is missing.

    `pytest.importorskip` imports: a second for torch, and one for scikit-learn, in each process that imports the module.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: {reason}", allow_module_level=True)
