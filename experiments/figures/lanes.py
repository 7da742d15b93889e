"""Where a Gantt chart's machines and segments lie: machines in slots, segments in blocks of neighbouring GPUs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastune.experiments.figures.tables import numbers

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Slot:
    """Rows of the chart for one machine after the other: `first` to `first + gpus`, counted from the top."""

    first: int
    gpus: int


@dataclass(frozen=True)
class Block:
    """A segment on neighbouring GPUs of one machine: rows `first` to `first + gpus`."""

    trial: int
    rung: int
    first: int
    gpus: int
    start_s: float
    end_s: float
    launch_s: float
    checkpoint_s: float
    is_lost: bool

    @property
    def trains_from_s(self) -> float:
        """When its workers had started; its end where they never had. What was cut did not tell."""
        return min(self.start_s + self.launch_s, self.end_s) if self.launch_s > 0 else self.start_s


def slots_of(leases: pd.DataFrame, figure: str) -> dict[int, Slot]:
    """By machine its slot: the uppermost of its size that is free when it is launched, so that there are as few as can be."""
    order = leases.sort_values(["launched_s", "instance"])
    spans = zip(
        order["instance"], numbers(order, figure, "gpus"), numbers(order, figure, "launched_s"),
        numbers(order, figure, "end_s"), strict=True,
    )  # fmt: skip
    slots: list[Slot] = []
    free_from_s: list[float] = []
    found = {}
    for instance, gpus, launched_s, end_s in spans:
        fits = (at for at, slot in enumerate(slots) if slot.gpus == gpus and free_from_s[at] <= launched_s)
        place = next(fits, len(slots))
        if place == len(slots):
            slots.append(Slot(sum(slot.gpus for slot in slots), int(gpus)))
            free_from_s.append(end_s)
        free_from_s[place] = end_s
        found[int(instance)] = slots[place]
    return found


def blocks_of(segments: pd.DataFrame, slots: dict[int, Slot]) -> list[Block]:
    """The segments, one block for each stretch of neighbouring lanes; on machines that have no slot, none."""
    blocks = []
    for (_, instance), rows in segments.groupby(["segment", "instance"], sort=False):
        if instance not in slots:
            continue
        lanes = sorted(int(lane) for lane in rows["lane"])
        breaks = [at for at in range(1, len(lanes)) if lanes[at] != lanes[at - 1] + 1]
        for start, end in zip([0, *breaks], [*breaks, len(lanes)], strict=True):
            blocks.append(_block(rows.iloc[0], slots[instance].first + lanes[start], end - start))
    return blocks


def _block(row: pd.Series, first: int, gpus: int) -> Block:
    return Block(
        int(row["trial"]), int(row["until_iteration"]), first, gpus, float(row["start_s"]), float(row["end_s"]),
        float(row["launch_s"]), float(row["checkpoint_s"]), row["outcome"] in ("failed", "instance_gone"),
    )  # fmt: skip
