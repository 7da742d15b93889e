"""What the tests of importers share: a description, and a folder to write to."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from elastune.traces.importers import Description, from_table

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def fixtures():
    """Folder of what other libraries wrote; the record_*.py beside it write it anew."""
    return FIXTURES


@pytest.fixture
def described():
    """A complete description of a recording."""
    return Description(
        name="toy",
        source="worked out by hand",
        licence="CC0-1.0",
        direction="minimize",
        score="validation loss",
        iteration="one epoch",
    )


@pytest.fixture
def out(tmp_path):
    """Where the bundle goes."""
    return tmp_path / "bundles" / "toy"


@pytest.fixture
def header_of():
    """What the bundle.yaml in a folder says."""
    return lambda folder: yaml.safe_load((folder / "bundle.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def write(tmp_path):
    """A CSV file with this text."""

    def written(text, name="tidy.csv"):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return written


@pytest.fixture
def imported(write, out, described):
    """Imports this text as a table."""
    return lambda text, **keywords: from_table(write(text), out, described, **keywords)
