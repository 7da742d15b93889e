"""How a provider takes spot machines back: by chance, or as it was recorded. Imports the pure core and numpy.

A `ReclaimProcess` describes a market; `begin` returns the `SpotPool` of one run. Random times are keyed by instance, zone and
event, and recorded ones happen at their own time, so two policies see the same luck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from elastune.sim.model.errors import InputError
from elastune.sim.model.prices import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from elastune.sim.model.streams import Streams


class SpotPool(Protocol):
    """The spot machines of one provider during one run. Times do not go back from call to call."""

    def place(self, instance: int, at_s: float) -> float | None:
        """Grant a machine; returns when it will be taken back (infinite for never), or None where none is available now."""

    def vacate(self, instance: int) -> None:
        """Note that the machine has been given back or taken."""

    def frees_at_s(self, at_s: float) -> float:
        """When the provider next has more machines than now; infinite for never."""


class ReclaimProcess(Protocol):
    """The true behaviour of a spot market."""

    @property
    def mtbf_s(self) -> float:
        """Mean seconds from the grant of a machine until it is taken back, as an operator could have measured it."""

    def begin(self, streams: Streams, notice_s: float) -> SpotPool:
        """The market of one run.

        Args:
            streams: of the run.
            notice_s: how long before the end of a machine its provider says so.
        """


@dataclass(frozen=True)
class Lifetimes:
    """Machines are taken back at random: each on its own, and many of a zone at once.

    Attributes:
        mean_s: mean seconds from the grant of a machine to the notice that it alone is taken back; infinite for never.
        shape: of the Weibull distribution of these seconds; 1 is exponential, below 1 young machines go sooner.
        bulk_per_hour: how often each zone takes many machines back at once (exponential waiting times).
        bulk_share: share of that zone's machines that is taken, each machine drawn on its own.
        zones: instance i is in zone i modulo this.
    """

    mean_s: float = math.inf
    shape: float = 1.0
    bulk_per_hour: float = 0.0
    bulk_share: float = 1.0
    zones: int = 1

    def __post_init__(self) -> None:
        if not self.mean_s > 0:
            raise InputError(f"lifetime.mean_s is {self.mean_s}, but must be positive")
        if not 0.01 <= self.shape < math.inf:
            raise InputError(f"lifetime.shape is {self.shape}, but must be at least 0.01")
        if not (math.isfinite(self.bulk_per_hour) and self.bulk_per_hour >= 0):
            raise InputError(f"bulk.per_hour is {self.bulk_per_hour}, but must be a number >= 0")
        if not 0 < self.bulk_share <= 1:
            raise InputError(f"bulk.share is {self.bulk_share}, but must be above 0 and at most 1")
        if self.zones < 1:
            raise InputError(f"bulk.zones is {self.zones}, but must be at least 1")

    @property
    def mtbf_s(self) -> float:
        """See `ReclaimProcess.mtbf_s`; the notice is left out."""
        rate_per_s = 1.0 / self.mean_s + self.bulk_per_hour * self.bulk_share / SECONDS_PER_HOUR
        return 1.0 / rate_per_s if rate_per_s > 0 else math.inf

    def begin(self, streams: Streams, notice_s: float) -> SpotPool:
        """See `ReclaimProcess.begin`."""
        return _DrawnPool(self, streams, notice_s)


_SAME_MOMENT_S = 1e-6
"""A machine that is asked for at the moment of a bulk reclaim is not hit by it. The clock's moment is rounded, and may come out
just before the drawn one; without this, replacements would be taken back at the same moment without end."""


class _DrawnPool:
    """There is always a machine; each is taken at the end of its lifetime or at a bulk reclaim of its zone."""

    def __init__(self, process: Lifetimes, streams: Streams, notice_s: float) -> None:
        self._process = process
        self._streams = streams
        self._notice_s = notice_s
        self._bulks_s: list[list[float]] = [[] for _ in range(process.zones)]

    def place(self, instance: int, at_s: float) -> float | None:
        process = self._process
        wanted_s = math.inf
        if math.isfinite(process.mean_s):
            scale_s = process.mean_s / math.gamma(1.0 + 1.0 / process.shape)
            wanted_s = at_s + scale_s * float(self._streams.rng("spot-lifetime", instance).weibull(process.shape))
        return min(wanted_s, self._bulk_hits_s(instance, at_s, wanted_s)) + self._notice_s

    def vacate(self, instance: int) -> None:
        pass

    def frees_at_s(self, at_s: float) -> float:
        return at_s

    def _bulk_hits_s(self, instance: int, after_s: float, before_s: float) -> float:
        process = self._process
        if process.bulk_per_hour == 0:
            return math.inf
        zone, nth = instance % process.zones, 0
        while (bulk_s := self._bulk_s(zone, nth)) < before_s:
            if bulk_s > after_s + _SAME_MOMENT_S:
                draw = self._streams.rng("bulk-reclaim-hit", zone, nth, instance).random()
                if draw < process.bulk_share:
                    return bulk_s
            nth += 1
        return math.inf

    def _bulk_s(self, zone: int, nth: int) -> float:
        """When the zone's nth bulk reclaim is."""
        times_s = self._bulks_s[zone]
        while len(times_s) <= nth:
            gap_s = self._streams.rng("bulk-reclaim", zone, len(times_s)).exponential(
                SECONDS_PER_HOUR / self._process.bulk_per_hour
            )
            times_s.append((times_s[-1] if times_s else 0.0) + float(gap_s))
        return times_s[nth]


class NodeChange(NamedTuple):
    """A node that appears or disappears."""

    at_s: float
    is_added: bool
    node: str


@dataclass(frozen=True)
class RecordedNodes:
    """Nodes that a provider gave and took back, as recorded. Our machines live on them and end with them.

    A machine is put on the node that has been there longest, but never on one within its notice. The recording is played in a
    circle. At the seam as many nodes stay as it begins with, the oldest first: surplus nodes are taken back, missing ones are
    new.

    Attributes:
        name: of the recording, for messages.
        changes: in order of time, all nodes there at the beginning at 0 s.
        length_s: of the recording.
        start_s: where in the recording a run begins; None to draw it from the seed.
    """

    name: str
    changes: tuple[NodeChange, ...]
    length_s: float
    start_s: float | None = 0.0

    def __post_init__(self) -> None:
        if not self.length_s > 0:
            raise InputError(f"{self.name}: lasts {self.length_s:g} s, but must last longer than 0 s")
        if self.start_s is not None and not 0 <= self.start_s < self.length_s:
            raise InputError(f"{self.name}: start_s is {self.start_s:g}, but the recording lasts {self.length_s:g} s")

    @property
    def initial_nodes(self) -> list[str]:
        """Nodes that exist at the beginning."""
        there: dict[str, None] = {}
        for change in self.changes:
            if change.at_s == 0 and change.is_added:
                there[change.node] = None
            elif change.at_s == 0:
                del there[change.node]
        return list(there)

    @property
    def mtbf_s(self) -> float:
        """Node-seconds of the recording per removal."""
        alive, last_s, node_s = 0, 0.0, 0.0
        for change in self.changes:
            node_s += alive * (change.at_s - last_s)
            last_s = change.at_s
            alive += 1 if change.is_added else -1
        node_s += alive * (self.length_s - last_s)
        removals = sum(not change.is_added for change in self.changes)
        return node_s / removals if removals else math.inf

    def begin(self, streams: Streams, notice_s: float) -> SpotPool:
        """See `ReclaimProcess.begin`."""
        start_s = self.start_s
        if start_s is None:
            start_s = float(streams.rng("spot-trace-start").uniform(0.0, self.length_s))
        return _RecordedPool(self, start_s, notice_s)


class _Spell:
    """A node from its arrival to its end."""

    __slots__ = ("from_s", "holder", "rank", "until_s")

    def __init__(self, from_s: float) -> None:
        self.from_s = from_s
        self.until_s = math.inf
        self.holder: int | None = None
        self.rank = -1  # among those alive at the last seam


class _RecordedPool:
    """The recording from its start on, lap by lap, read as far as needed."""

    def __init__(self, recording: RecordedNodes, start_s: float, notice_s: float) -> None:
        self._recording = recording
        self._notice_s = notice_s
        self._spells: list[_Spell] = []
        self._alive: dict[str, _Spell] = {}
        self._held: dict[int, _Spell] = {}
        self._known_until_s = 0.0
        self._initial = recording.initial_nodes
        self._read_first_lap(start_s)

    def place(self, instance: int, at_s: float) -> float | None:
        while self._known_until_s <= at_s + self._notice_s:
            self._read_lap()
        for spell in self._spells:
            if spell.from_s <= at_s and spell.holder is None and self._until_s(spell) > at_s + self._notice_s:
                spell.holder = instance
                self._held[instance] = spell
                return spell.until_s
        return None

    def vacate(self, instance: int) -> None:
        self._held.pop(instance).holder = None

    def frees_at_s(self, at_s: float) -> float:
        if not any(change.is_added for change in self._recording.changes):
            return math.inf
        while True:
            later = (spell.from_s for spell in self._spells if spell.from_s > at_s)
            found_s = min(later, default=math.inf)
            if math.isfinite(found_s):
                return found_s
            if self._is_still():
                return math.inf
            self._read_lap()

    def _is_still(self) -> bool:
        """Whether no lap brings a new node, because all nodes stay at the seam."""
        return all(change.at_s == 0 for change in self._recording.changes)

    def _until_s(self, spell: _Spell) -> float:
        """When the node goes; reads as many laps as are needed to know.

        All laps are alike, so a node with the same rank at two seams in a row keeps it at all later ones, and stays.
        """
        while math.isinf(spell.until_s):
            rank = spell.rank
            self._read_lap()
            if math.isinf(spell.until_s) and spell.rank == rank:
                break
        return spell.until_s

    def _read_first_lap(self, start_s: float) -> None:
        for change in self._recording.changes:
            if change.at_s <= start_s:
                self._take(change, 0.0)
        gone = [spell for spell in self._spells if math.isfinite(spell.until_s)]
        for spell in gone:
            self._spells.remove(spell)
        self._read(start_s, -start_s)

    def _read_lap(self) -> None:
        """Pass the seam, then read on to the next one."""
        seam_s = self._known_until_s
        oldest = sorted(self._alive.values(), key=lambda spell: spell.from_s)
        for spell in oldest[len(self._initial) :]:
            spell.until_s = seam_s
        self._alive = {}
        for rank, node in enumerate(self._initial):
            spell = oldest[rank] if rank < len(oldest) else self._new(seam_s)
            spell.rank = rank
            self._alive[node] = spell
        self._read(0.0, seam_s)

    def _read(self, after_s: float, shift_s: float) -> None:
        for change in self._recording.changes:
            if change.at_s > after_s:
                self._take(change, change.at_s + shift_s)
        self._known_until_s = self._recording.length_s + shift_s

    def _take(self, change: NodeChange, at_s: float) -> None:
        if change.is_added:
            self._alive[change.node] = self._new(at_s)
        else:
            self._alive.pop(change.node).until_s = at_s

    def _new(self, from_s: float) -> _Spell:
        spell = _Spell(from_s)
        self._spells.append(spell)
        return spell
