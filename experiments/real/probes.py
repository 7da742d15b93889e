"""What the doctor looks at, as plain values: packages, this machine, a Ray cluster and one of its nodes.

`experiments.real.doctor` judges what is found here. May import `sim.bridge`; the probes that need ray, torch or psutil import
them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
import uuid
from collections import defaultdict
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from elastune.experiments.real.slots import slots_here
from elastune.sim.bridge.machines.attached import AttachedNodes, alive_nodes
from elastune.sim.bridge.machines.cluster_folder import FOLDER_PREFIX
from elastune.sim.bridge.machines.embedded import EmbeddedNodes
from elastune.sim.bridge.machines.nodes import Node, Nodes, NoNodeError, slots_of
from elastune.sim.bridge.machines.remote_call import run_on
from elastune.sim.bridge.workers.checkpoint import CheckpointStore
from elastune.sim.bridge.workers.process_group import form_group, listen
from elastune.sim.model.errors import WorkerError
from elastune.sim.model.ids import InstanceId, TrialId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from elastune.sim.bridge.workers.worker import Device

_WORKER_WITHIN_S = 180.0
"""A node's first process imports torch, which takes long where many start at once."""


class Space(NamedTuple):
    """Room in a folder."""

    folder: str
    free_bytes: int
    total_bytes: int


class Leftovers(NamedTuple):
    """Processes of embedded clusters.

    Attributes:
        orphans: process ids of clusters whose keeper is gone.
        running: clusters whose keeper lives.
    """

    orphans: tuple[int, ...]
    running: int


class OpenCluster(NamedTuple):
    """A cluster with a node to look at.

    Attributes:
        node: no run uses it.
        slots: of each node that has some.
        free_slots: of all of them; None where the cluster is our own.
    """

    node: Node
    slots: tuple[int, ...]
    free_slots: int | None


class Gpu(NamedTuple):
    """The GPU that a worker sees."""

    name: str
    free_bytes: int
    total_bytes: int


class FoundWorker(NamedTuple):
    """A worker process on a node.

    Attributes:
        python: its version.
        torch: its version.
        gpu: None on a CPU slot.
    """

    python: str
    torch: str
    gpu: Gpu | None = None


class ClockReading(NamedTuple):
    """A node's time, and when it was asked for and received here; seconds since 1970."""

    asked_s: float
    there_s: float
    received_s: float


class CheckpointTrip(NamedTuple):
    """A checkpoint that a node saved and restored, in seconds, and whether this machine can read it."""

    save_s: float
    restore_s: float
    is_read_here: bool


def version_of(package: str) -> str | None:
    """The installed version; None where the package is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def slot_names(device: Device) -> Sequence[str]:
    """What each slot of this machine is."""
    count = slots_here(device)
    if device == "cpu" or not count:
        return ["CPU core"] * count
    import torch

    return [torch.cuda.get_device_name(index) for index in range(count)]


def free_memory_bytes() -> int:
    """What can be allocated without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def shared_memory() -> Space | None:
    """Where Ray's object stores lie; None where the system has no such folder."""
    folder = "/dev/shm"  # noqa: S108  Ray's, not a temporary file of ours
    return space_in(folder) if Path(folder).is_dir() else None


def space_in(folder: str) -> Space:
    """Room in the file system of a folder."""
    usage = shutil.disk_usage(folder)
    return Space(folder, usage.free, usage.total)


def leftovers() -> Leftovers:
    """Look through the processes of this machine for those of embedded clusters."""
    import psutil

    start = str(Path(tempfile.gettempdir()) / FOLDER_PREFIX)
    kept, found = set[str](), defaultdict[str, list[int]](list)
    for process in psutil.process_iter(["cmdline", "pid"]):
        command = process.info["cmdline"] or []
        named = next((part for part in command if start in part), None)
        if named is None:
            continue
        folder = named.split(start, 1)[1].split("/")[0].split(",")[0]
        found[folder].append(process.info["pid"])
        if "elastune.sim.bridge.machines.keeper" in command:
            kept.add(folder)
    orphans = sorted(pid for folder, pids in found.items() if folder not in kept for pid in pids)
    return Leftovers(tuple(orphans), len(kept))


@contextmanager
def open_cluster(device: Device, ray_address: str | None) -> Iterator[OpenCluster]:
    """A cluster of our own with one node of one slot, or a leased node of the cluster at an address.

    Raises:
        InputError: no cluster answers at the address, or this machine has no such device.
        WorkerError: the cluster does not start, or it has no free node.
    """
    if ray_address is None:
        with closing(EmbeddedNodes(device)) as nodes:
            node = nodes.acquire(InstanceId(0), 1, launched=lambda: None, is_cancelled=lambda: False)
            yield OpenCluster(node, (1,), None)
        return
    import ray

    with closing(AttachedNodes(ray_address, device, patience_s=0.0)) as attached:
        there = alive_nodes().values()
        slots = tuple(count for one in there if (count := slots_of(one["Resources"], device)))
        if not slots:
            raise WorkerError(f"none of the {len(there)} nodes at {ray_address} has a slot ({device})")
        free = slots_of(ray.available_resources(), device)  # type: ignore[no-untyped-call]
        yield OpenCluster(_leased(attached, sorted(set(slots))), slots, free)


def _leased(nodes: Nodes, sizes: Sequence[int]) -> Node:
    """A node of one of these sizes, leased so that no run is disturbed.

    Raises:
        WorkerError: others have leased all of them.
    """
    for size in sizes:
        with contextlib.suppress(NoNodeError):
            return nodes.acquire(InstanceId(0), size, launched=lambda: None, is_cancelled=lambda: False)
    raise WorkerError("all nodes are leased by runs: try again when one has ended")


def worker_on(node: Node, device: Device) -> FoundWorker:
    """A worker process on a node.

    Raises:
        WorkerError: it does not start, or it lacks a package.
    """
    return run_on(node, device, describe_worker, device, within_s=_WORKER_WITHIN_S)


def describe_worker(device: Device) -> FoundWorker:
    """This process."""
    import torch

    if device == "cpu":
        return FoundWorker(platform.python_version(), torch.__version__)
    gpu = Gpu(torch.cuda.get_device_name(0), *torch.cuda.mem_get_info())
    return FoundWorker(platform.python_version(), torch.__version__, gpu)


def group_on(node: Node, device: Device) -> str:
    """What connects the members of a worker group, after it was tried on a node.

    Raises:
        WorkerError: it does not work.
    """
    return run_on(node, device, form_group_alone, device, within_s=_WORKER_WITHIN_S)


def form_group_alone(device: Device) -> str:
    """Form a process group of this process only, and exchange a message in it."""
    import torch

    listening = listen("127.0.0.1")
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    with form_group(0, 1, device, address, listening) as group:
        group.agree(1)
    if device == "cpu":
        return "gloo"
    return f"nccl {'.'.join(map(str, torch.cuda.nccl.version()))}"  # type: ignore[no-untyped-call]


def clock_on(node: Node, device: Device) -> ClockReading:
    """Read the clock of a node."""
    asked_s = time.time()
    there_s = run_on(node, device, read_clock)
    return ClockReading(asked_s, there_s, time.time())


def read_clock() -> float:
    """Seconds since 1970; a function of Python's own, as Ray takes no built-in one."""
    return time.time()


def checkpoint_on(node: Node, device: Device, place: str, size_bytes: int) -> CheckpointTrip:
    """Save a checkpoint on a node, restore it there, look for it here, and delete it.

    Raises:
        OSError: the place cannot be used from here.
        TuningError: it cannot be used from the node.
    """
    url = f"{place.rstrip('/')}/.doctor-{uuid.uuid4().hex[:8]}"
    try:
        save_s, restore_s = run_on(node, device, save_and_restore, url, size_bytes)
        store = CheckpointStore(url)
        is_read_here = store.latest(TrialId(0)) is not None
        store.forget(TrialId(0))
    finally:
        if "://" not in url:
            shutil.rmtree(url, ignore_errors=True)
    return CheckpointTrip(save_s, restore_s, is_read_here)


def save_and_restore(url: str, size_bytes: int) -> tuple[float, float]:
    """Seconds to save a checkpoint of this size, and to restore it."""
    content, store = os.urandom(size_bytes), CheckpointStore(url)
    began_s = time.monotonic()
    saved = store.save(TrialId(0), 1, None, lambda path: _write(path, content))
    saved_s = time.monotonic()
    with store.restore(saved):
        return saved_s - began_s, time.monotonic() - saved_s


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@dataclass(frozen=True)
class Probes:
    """All that the doctor looks at. Each probe returns plain values, so that tests can replace it.

    Attributes:
        python: version of this process.
        version: of a package; None if it is missing.
        slots: what each slot of this machine is.
        load: mean number of runnable processes in the last minute.
        cores: of this machine.
        memory_bytes: that are free.
        shared_memory: None if there is none.
        disk: of temporary files.
        leftovers: processes of embedded clusters.
        cluster: opens a cluster, by device and address.
        worker, group, clock: of a node, by node and device.
        checkpoint: saves and restores one, by node, device, place and bytes.
    """

    python: Callable[[], str] = platform.python_version
    version: Callable[[str], str | None] = version_of
    slots: Callable[[Device], Sequence[str]] = slot_names
    load: Callable[[], float] = lambda: os.getloadavg()[0]
    cores: Callable[[], int] = lambda: os.cpu_count() or 1
    memory_bytes: Callable[[], int] = free_memory_bytes
    shared_memory: Callable[[], Space | None] = shared_memory
    disk: Callable[[], Space] = lambda: space_in(tempfile.gettempdir())
    leftovers: Callable[[], Leftovers] = leftovers
    cluster: Callable[[Device, str | None], AbstractContextManager[OpenCluster]] = open_cluster
    worker: Callable[[Node, Device], FoundWorker] = worker_on
    group: Callable[[Node, Device], str] = group_on
    clock: Callable[[Node, Device], ClockReading] = clock_on
    checkpoint: Callable[[Node, Device, str, int], CheckpointTrip] = checkpoint_on
