"""The process that keeps an embedded Ray cluster: starts and ends its nodes as it is told, and ends all with its parent.

Run as `python -m sim.bridge.machines.keeper FOLDER`. One JSON object a line: `{"gpus": n, "visible": [...]}` on
standard input adds a node, answered by `{"node_id", "pid"}`, or by `{"problem"}` where it does not come up; `{"remove":
node_id}` ends one, answered by `{}`. The first line it says holds the cluster's address. The end of its input, which
comes even when its parent is killed, ends every process of the cluster.

A process of its own, because Ray wants to start nodes in a main thread, and because whoever is killed cannot clean up.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

FOLDER_PREFIX = "elastune-"
"""What the names of embedded clusters' folders begin with, below the folder for temporary files."""
LOOPBACK = "127.0.0.1"
CUDA_VISIBLE = "CUDA_VISIBLE_DEVICES"
_OBJECT_STORE_BYTES = 80 * 2**20
"""Ray's least is 75 MiB; workers exchange messages of some hundred bytes."""
_HEALTH_CHECKS = {
    # That a node died shows at once in its process, which the driver watches; a node that is only slow, on a machine that other
    # work keeps busy, is not to be taken for dead.
    "health_check_initial_delay_ms": 5000,
    "health_check_period_ms": 2000,
    "health_check_timeout_ms": 10000,
    "health_check_failure_threshold": 5,
}


def main(folder: Path) -> None:
    """Keep a cluster whose files lie in this folder until standard input ends."""
    # Ctrl-C reaches a whole terminal; what it means is for the parent to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever Ray prints is no answer
    from ray._common.utils import get_default_ray_temp_dir
    from ray.cluster_utils import Cluster

    cluster = None
    try:
        # Ray notes the address of its newest cluster there, and fails where a TMPDIR of the user's has no such folder yet.
        folder_of_ray = get_default_ray_temp_dir()  # type: ignore[no-untyped-call]
        Path(folder_of_ray).mkdir(parents=True, exist_ok=True)
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                **_common(0),
                "include_dashboard": False,
                "temp_dir": str(folder),
                "_system_config": _HEALTH_CHECKS,
            },
        )
        answers.write(json.dumps({"address": str(cluster.address)}) + "\n")
        _serve(cluster, answers.write)
    finally:
        try:
            if cluster is not None:
                cluster.shutdown()  # type: ignore[no-untyped-call]  # as Ray ships it
        finally:
            end_leftovers(folder)


def _common(gpus: int) -> dict[str, Any]:  # of Ray's parameters, which have many types
    return {
        "num_cpus": gpus,
        "num_gpus": 0,
        "node_ip_address": LOOPBACK,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }


def _serve(cluster: Cluster, answer: Any) -> None:  # noqa: ANN401  a file's write
    nodes: dict[str, Any] = {}  # of a class of Ray's
    for line in sys.stdin:
        command = json.loads(line)
        if "remove" in command:
            node = nodes.pop(command["remove"], None)
            if node is not None:
                cluster.remove_node(node)  # gracefully, so that the head knows at once
            answer("{}\n")
            continue
        visible = command["visible"]
        given = {"num_gpus": len(visible), "env_vars": {CUDA_VISIBLE: ",".join(visible)}} if visible else {}
        try:
            node = _added(cluster, **_common(command["gpus"]) | given)
        except Exception as error:  # one machine that does not come up is no reason to end the others
            answer(json.dumps({"problem": f"{type(error).__name__}: {error}"}) + "\n")
            continue
        nodes[node.node_id] = node
        pid = node.all_processes["raylet"][0].process.pid
        answer(json.dumps({"node_id": node.node_id, "pid": pid}) + "\n")


def _added(cluster: Cluster, **given: Any) -> Any:  # noqa: ANN401  a node of Ray's, and its parameters
    """A node that is up; nothing is left of one that did not come up in time."""
    before = set(cluster.worker_nodes)
    try:
        return cluster.add_node(wait=True, **given)
    except Exception:
        for half in set(cluster.worker_nodes) - before:
            cluster.remove_node(half, allow_graceful=False)
        raise


def end_leftovers(folder: Path) -> None:
    """Kill every process of the Ray session below this folder, and remove it: agents outlive their node for a while.

    Raises:
        InputError: it is no folder of an embedded cluster, whose processes and files are somebody else's.
    """
    import psutil

    if not (folder.is_absolute() and folder.name.startswith(FOLDER_PREFIX)):
        raise InputError(f"{str(folder)!r} is no folder of an embedded Ray cluster: nothing there is ended or removed")
    for process in psutil.process_iter(["cmdline"]):
        names_it = any(str(folder) in part for part in process.info["cmdline"] or ())
        if names_it and process.pid not in (os.getpid(), os.getppid()):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile, or is another user's
                process.kill()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
