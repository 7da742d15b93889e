"""This process as a driver of a Ray cluster, whoever keeps that."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading

from elastune.sim.bridge.machines.keeper import LOOPBACK
from elastune.sim.model.errors import InputError

ENVIRONMENT = {
    # Without it Ray looks for an address other than loopback, where nothing answers.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Of a cluster on loopback, and of what connects to it."""
_ANSWERS_WITHIN_S = 10.0


def connect(address: str) -> None:
    """Make this process a driver of the cluster, without its workers' output.

    Raises:
        InputError: no cluster answers there.
    """
    _require_listener(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = ENVIRONMENT["RAY_USAGE_STATS_ENABLED"]
    import ray
    from ray._private import auto_init_hook, ray_constants, worker

    # A thread of ours that is late, and asks for an actor's end after the shutdown, must not start a cluster by that.
    auto_init_hook.enable_auto_connect = False
    # Ray reads its environment when it is imported, which a program that calls us may have done before.
    ray_constants.ENABLE_RAY_CLUSTER = not address.startswith((LOOPBACK, "localhost"))
    # A run says itself what it lost. For what its daemons print of every node that dies, Ray has no switch.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    worker.print_to_stdstream = lambda *_, **__: None
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--ray {address}: no Ray cluster answers there: {error}") from error
    if on_terminate is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray's own prints a stack and ends the process


def _require_listener(address: str) -> None:
    """Ray itself tries an address for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return  # `auto`, or a client's ray://host:port
    try:
        socket.create_connection((host, int(port)), _ANSWERS_WITHIN_S).close()
    except OSError as error:
        raise InputError(f"--ray {address}: no Ray cluster answers there: {error}") from error
