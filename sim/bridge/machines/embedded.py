"""A Ray cluster of our own on loopback. Nodes are added and removed while the job runs.

The slots of a node are CPU slots, however many cores there are, or GPUs of this machine. Each node sees only its own GPUs.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from elastune.sim.bridge.machines.cluster_folder import ClusterFolder
from elastune.sim.bridge.machines.connection import ENVIRONMENT, connect, disconnect, token_variables
from elastune.sim.bridge.machines.isolation import child_environment
from elastune.sim.bridge.machines.keeper import CUDA_VISIBLE, LOOPBACK
from elastune.sim.bridge.machines.nodes import CPU, Node, NoNodeError
from elastune.sim.model.errors import InputError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from elastune.sim.model.ids import InstanceId

_CLOSES_WITHIN_S = 20.0


class EmbeddedNodes:
    """Nodes of a local cluster. See `Nodes`.

    Attributes:
        address: of the cluster's head.
        folder: with Ray's files; removed at the end.
    """

    def __init__(self, device: str = CPU) -> None:
        self._free_gpus = [] if device == CPU else visible_gpus()
        self._device = device
        self._talking = threading.Lock()  # with the keeper, which takes seconds to start a node
        self._lock = threading.Lock()
        self._nodes: dict[InstanceId, tuple[str, int]] = {}
        self._gpus: dict[InstanceId, list[str]] = {}
        self.folder = ClusterFolder.create()
        # Kept open: a keeper that fails removes the folder, but its last line is read afterwards.
        self._log = (self.folder.path / "keeper.log").open("w+b")
        token = token_variables(secrets.token_hex(32))
        self._keeper = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-P", "-m", "elastune.sim.bridge.machines.keeper", str(self.folder.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=self.folder.path,
            env=os.environ | ENVIRONMENT | token | child_environment() | {"RAY_TMPDIR": str(self.folder.path)},
            text=True,
            start_new_session=True,
        )
        try:
            self.address: str = self._answer()["address"]
            connect(self.address, token)
        except BaseException:  # Ctrl-C among them: starting takes seconds
            self._end_keeper(0.0)
            raise

    def _ask(self, command: Mapping[str, object]) -> dict[str, Any]:
        assert self._keeper.stdin is not None  # a pipe
        try:
            self._keeper.stdin.write(json.dumps(command) + "\n")
            self._keeper.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise WorkerError("the process that keeps the embedded Ray cluster is gone") from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._keeper.stdout is not None  # a pipe
        line = self._keeper.stdout.readline()
        if not line:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines()
            raise WorkerError(f"the embedded Ray cluster broke down: {said[-1] if said else 'it was killed'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def acquire(
        self, instance: InstanceId, gpus: int, *, launched: Callable[[], None], is_cancelled: Callable[[], bool]
    ) -> Node:
        """Start a node; one at a time, because a start keeps the processor busy. See `Nodes`."""
        with self._talking:
            if is_cancelled():
                raise NoNodeError("cancelled")
            visible = self._take_gpus(instance, gpus)
            launched()
            node = self._ask({"gpus": gpus, "visible": visible})
            if "problem" in node:
                self._give_gpus_back(instance)
                raise NoNodeError(f"Ray could not start a node: {node['problem']}")
            with self._lock:
                self._nodes[instance] = node["node_id"], node["pid"]
        return Node(node["node_id"], LOOPBACK, gpus)

    def _take_gpus(self, instance: InstanceId, gpus: int) -> list[str]:
        if self._device == CPU:
            return []
        with self._lock:
            if len(self._free_gpus) < gpus:
                raise NoNodeError(f"{gpus} GPUs were asked for, {len(self._free_gpus)} of this machine's are free")
            given, self._free_gpus = self._free_gpus[:gpus], self._free_gpus[gpus:]
            self._gpus[instance] = given
            return given

    def _give_gpus_back(self, instance: InstanceId) -> None:
        with self._lock:
            self._free_gpus += self._gpus.pop(instance, [])

    def release(self, instance: InstanceId) -> None:
        """End the node's processes, but do not wait for the remains of a dead node. See `Nodes`."""
        with self._lock:
            node_id, pid = self._nodes.pop(instance, ("", 0))
        if not node_id:
            return
        if _runs(pid):
            self._remove(node_id)
        else:
            # The loss is told at once, although the keeper may be busy with the start of another node.
            threading.Thread(target=self._bury, args=(node_id,), name=f"bury-{instance}", daemon=True).start()
        self._give_gpus_back(instance)

    def _remove(self, node_id: str) -> None:
        with self._talking:
            self._ask({"remove": node_id})

    def _bury(self, node_id: str) -> None:
        with contextlib.suppress(WorkerError):  # without its keeper the whole cluster is gone
            self._remove(node_id)

    def dead(self) -> list[InstanceId]:
        """Those whose raylet process has ended. See `Nodes`."""
        with self._lock:
            nodes = list(self._nodes.items())
        return [number for number, (_, pid) in nodes if not _runs(pid)]

    def adopt(self, leased: Mapping[InstanceId, Node]) -> Mapping[InstanceId, Node]:
        """Return nothing: an embedded cluster dies with its driver."""
        del leased
        return {}

    def raylet_pid(self, instance: InstanceId) -> int:
        """The process to kill to let a machine die."""
        return self._nodes[instance][1]

    def close(self) -> None:
        """End all nodes, the head, and all leftovers. See `Nodes`."""
        try:
            disconnect()
        finally:
            with self._talking:
                self._nodes.clear()
                self._end_keeper(_CLOSES_WITHIN_S)

    def _end_keeper(self, within_s: float) -> None:
        assert self._keeper.stdin is not None  # a pipe
        assert self._keeper.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it died before it read a command
                self._keeper.stdin.close()
            self._keeper.wait(within_s)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        finally:
            self._keeper.stdout.close()
            self._log.close()
            self.folder.end_leftovers()


def _runs(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def visible_gpus() -> list[str]:
    """The GPUs of this machine that we may use, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        InputError: there are none.
    """
    import torch

    there = torch.cuda.device_count()  # CUDA ignores `-1` in that variable and all that follows
    named = os.environ.get(CUDA_VISIBLE)
    names = map(str, range(there)) if named is None else (name.strip() for name in named.split(","))
    found = list(itertools.islice(names, there))
    if not found:
        raise InputError("--device cuda: this machine has no CUDA device; --device cpu trains on CPU slots")
    return found
