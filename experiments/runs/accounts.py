"""All that a result counts of its run's leases and segments, as the run goes on. Imports experiments.runs and `sim.model`."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from elastune.experiments.runs.ledger import LedgerCount
from elastune.experiments.runs.placements import PlacementCount
from elastune.experiments.runs.world import World, most_gpus
from elastune.sim.model.events import SegmentEnded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.experiments.runs.fold import Change
    from elastune.sim.model.ids import TrialId


class DurableIterations:
    """When how many iterations of each trial were durable; a reader for `experiments.runs.fold.Tables`."""

    def __init__(self) -> None:
        # Columns, as a list of events would hold a hundred times the memory.
        self._trials, self._iterations, self._at_s = array("q"), array("q"), array("d")

    def read(self, changes: Sequence[Change]) -> None:
        """Note the ends of segments."""
        ends = [what for _, _, what, _ in changes if type(what) is SegmentEnded]
        self._trials.extend([end.trial for end in ends])
        self._iterations.extend([end.checkpoint_iteration for end in ends])
        self._at_s.extend([end.at_s for end in ends])

    def first_at_s(self, trial: TrialId | None, iteration: int) -> float | None:
        """When so many iterations of the trial were durable first; None where they never were."""
        rows = zip(self._trials, self._iterations, self._at_s, strict=True)
        return next((at_s for one, reached, at_s in rows if one == trial and reached >= iteration), None)


class Accounts:
    """What a result counts; a reader for `experiments.runs.fold.Tables`.

    Attributes:
        ledger: where dollars and GPU-seconds went.
        placement: what placement cost.
        durable: when trials got how far.
    """

    def __init__(self, world: World) -> None:
        self.ledger = LedgerCount(world.price_book)
        self.placement = PlacementCount(world.truth.scaling, most_gpus(world.price_book))
        self.durable = DurableIterations()

    def read(self, changes: Sequence[Change]) -> None:
        """Count the next changes."""
        self.ledger.read(changes)
        self.placement.read(changes)
        self.durable.read(changes)
