"""Connects this process to a Ray cluster as a driver."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

from elastune.sim.bridge.machines.keeper import LOOPBACK
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.job_config import JobConfig

ENVIRONMENT = {
    # Without it Ray looks for an address other than loopback, where nothing answers.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""For a cluster on loopback and for what connects to it."""
_TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_ANSWERS_WITHIN_S = 10.0
_users_token: dict[str, str | None] = {}
"""The user's own variables of these names, while they are replaced."""


def token_variables(token: str) -> dict[str, str]:
    """Environment variables that make a cluster demand this token, if the installed Ray can."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def connect(address: str, token: Mapping[str, str] | None = None) -> None:
    """Make this process a driver of the cluster, without its workers' output.

    Args:
        address: of the cluster, as `ray.init` takes it.
        token: `token_variables` of the cluster; None leaves it to the user's own variables.

    Raises:
        InputError: no cluster answers there.
    """
    _require_listener(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = ENVIRONMENT["RAY_USAGE_STATS_ENABLED"]
    import ray
    from ray._private import auto_init_hook, ray_constants, worker

    if token is not None:
        _use_token(token)
    # A late thread may still end an actor after the shutdown, which must not start a new cluster.
    auto_init_hook.enable_auto_connect = False
    # Ray reads its environment when it is imported, and the calling program may have imported it before.
    ray_constants.ENABLE_RAY_CLUSTER = not address.startswith((LOOPBACK, "localhost"))
    # A run reports its losses itself, and Ray has no switch for the messages of its daemons about dead nodes.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    worker.print_to_stdstream = lambda *_, **__: None
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, job_config=_isolated_job(), log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, ValueError, RuntimeError) as error:
        _restore_token()
        raise InputError(f"--ray {address}: no Ray cluster answers there: {error}") from error
    if on_terminate is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray's own prints a stack and ends the process


def disconnect() -> None:
    """Undo `connect`."""
    import ray

    try:
        ray.shutdown()
    finally:
        _restore_token()


def _isolated_job() -> JobConfig:
    """A job whose workers do not search the folder of this program and the working folder for code."""
    from ray.job_config import JobConfig

    class IsolatedJob(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            return True  # Ray adds both folders to the search path of the workers unless the job brings its own

    return IsolatedJob()


def _use_token(token: Mapping[str, str]) -> None:
    """Let this process talk to a cluster that asks for a token."""
    for name in _TOKEN:
        _users_token.setdefault(name, os.environ.pop(name, None))
    os.environ.update(token)
    _reread_token()


def _restore_token() -> None:
    """Restore the user's own variables."""
    if not _users_token:
        return
    for name, value in _users_token.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    _users_token.clear()
    _reread_token()


def _reread_token() -> None:
    """Make Ray read the variables again; it keeps what it read first. Old versions have no tokens."""
    from ray import _raylet

    if hasattr(_raylet, "AuthenticationTokenLoader"):
        _raylet.Config.initialize("")  # type: ignore[attr-defined]  # first: a thread of Ray may still use the old mode
        _raylet.AuthenticationTokenLoader.instance().reset_cache()


def _require_listener(address: str) -> None:
    """Fail at once if nothing listens; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return  # `auto`, or a client's ray://host:port
    try:
        socket.create_connection((host, int(port)), _ANSWERS_WITHIN_S).close()
    except OSError as error:
        raise InputError(f"--ray {address}: no Ray cluster answers there: {error}") from error
