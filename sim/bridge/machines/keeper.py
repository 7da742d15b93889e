"""The process that keeps an embedded Ray cluster. It starts and ends nodes on command, and ends them all with its parent.

Run as `python -P -m elastune.sim.bridge.machines.keeper FOLDER`. It reads one JSON object per line from standard input and
answers each with one line:

- `{"gpus": n, "visible": [...]}` adds a node; the answer is `{"node_id", "pid"}`, or `{"problem"}` if it did not come up;
- `{"remove": node_id}` ends a node; the answer is `{}`.

Its first line is the cluster's address. It ends every process of the cluster when its input ends, which also happens when its
parent is killed.

It is a process of its own, because Ray starts nodes only in a main thread, and because a killed process cannot clean up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastune.sim.bridge.machines.cluster_folder import ClusterFolder

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

LOOPBACK = "127.0.0.1"
CUDA_VISIBLE = "CUDA_VISIBLE_DEVICES"
_OBJECT_STORE_BYTES = 80 * 2**20
"""Ray's least is 75 MiB; workers exchange messages of some hundred bytes."""
_HEALTH_CHECKS = {
    # Slow checks: the driver watches the processes itself, and a node on a busy machine must not count as dead.
    "health_check_initial_delay_ms": 5000,
    "health_check_period_ms": 2000,
    "health_check_timeout_ms": 10000,
    "health_check_failure_threshold": 5,
}


def main(folder: Path) -> None:
    """Keep a cluster whose files lie in this folder until standard input ends."""
    # Ctrl-C reaches every process of a terminal, but only the parent decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what Ray prints is no answer
    from ray.cluster_utils import Cluster

    cluster, ours = None, ClusterFolder.at(folder)
    # Ray opens its folder to everybody, so it lies in one that only this user can enter. It must exist, because Ray writes the
    # address of its newest cluster there (RAY_TMPDIR).
    ray_files = folder / "ray"
    try:
        ray_files.mkdir()
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                **_common(0),
                "include_dashboard": False,
                "temp_dir": str(ray_files),
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
            ours.end_leftovers()


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
        except Exception as error:  # the other machines go on if one does not come up
            answer(json.dumps({"problem": f"{type(error).__name__}: {error}"}) + "\n")
            continue
        nodes[node.node_id] = node
        pid = node.all_processes["raylet"][0].process.pid
        answer(json.dumps({"node_id": node.node_id, "pid": pid}) + "\n")


def _added(cluster: Cluster, **given: Any) -> Any:  # noqa: ANN401  a node of Ray's, and its parameters
    """Start a node; remove what is left of it if it does not come up in time."""
    before = set(cluster.worker_nodes)
    try:
        return cluster.add_node(wait=True, **given)
    except Exception:
        for half in set(cluster.worker_nodes) - before:
            cluster.remove_node(half, allow_graceful=False)
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
