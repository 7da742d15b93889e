"""The engine: a policy sees events and answers with actions; a controller turns them into orders; a backend carries them out.

General layout, from the inside out (DESIGN.md defends it; import-linter holds it):

    model, billing, streams                      the pure core: vocabulary, money, randomness
    placement, state, journal, controller        pure decisions; no clock, no I/O but the journal's sink
    runner                                       the only loop
    simulated | bridge                           the two worlds; each knows the pure core only
"""

from elastune.sim.control.controller import Controller
from elastune.sim.control.journal import (
    Entry,
    Header,
    JournalWriter,
    MemorySink,
    read_entries,
    read_header,
    replay,
)
from elastune.sim.control.runner import run
from elastune.sim.model.streams import Streams

__all__ = [
    "Controller",
    "Entry",
    "Header",
    "JournalWriter",
    "MemorySink",
    "Streams",
    "read_entries",
    "read_header",
    "replay",
    "run",
]
