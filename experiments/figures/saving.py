"""Writing figures: equal figures give equal bytes. Imports matplotlib when a figure is saved."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from elastune.experiments.files import write_whole
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRINT_DPI = 300

# Dates would change the bytes at every run, and matplotlib's version with every update.
_METADATA = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_RC_LOCK = threading.Lock()


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as its suffix says (.png or .pdf), creating the folder; returns the path.

    Raises an InputError for any other suffix.
    """
    import matplotlib as mpl

    path = Path(path)
    if path.suffix not in _METADATA:
        raise InputError(f"save: cannot write {path.name}; the suffix must be one of {', '.join(_METADATA)}")
    # Type 42 fonts stay text that can be searched and are what publishers ask for. Only rcParams can say so.
    with _RC_LOCK, mpl.rc_context({"pdf.fonttype": 42}):
        kind = path.suffix
        write_whole(path, lambda file: figure.savefig(file, format=kind[1:], dpi=PRINT_DPI, metadata=_METADATA[kind]))
    return path
