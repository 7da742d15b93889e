"""How long machines take to start: presets from published figures, or a user's numbers.

Imports sim.model and the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from elastune.sim.model.errors import InputError, nearest, unknown
from elastune.sim.model.numbers import seconds_of
from elastune.sim.model.profile import Delay, Startup
from elastune.traces.formats.limits import LONGEST_S, too_long
from elastune.traces.formats.texts import plain

DelayInput: TypeAlias = "float | str | Mapping[str, float | str | Sequence[float | str]]"
"""Seconds (a number, or a text such as `2min`), `{mean_s, cv}`, or `{recorded_s}`."""
StartupInput: TypeAlias = "Startup | str | Mapping[str, DelayInput]"
"""What a user may give for a start-up; see `startup_of`."""

# The figures run from launch to readiness and leave the provider's queue out; we know of none that was published for
# it, so 5 s is assumed everywhere. A published range is read as the mean plus and minus two standard deviations.
_PHASES = ("queue_s", "init_s", "setup_s")
_QUEUE = Delay(5.0)
_BOOT_SD_S = 3.5
_BOOT = Delay(33.0, cv=_BOOT_SD_S / 33.0)
"""Boot alone, 26 to 40 s (SkyPilot, pull request 4091, GPU machines on AWS)."""


_SPREAD = 11.5 / 124.0
"""Relative spread of the time from launch to readiness of `typical`; assumed where there is one figure."""


def _with_setup(ready_s: float, sd_s: float, queue: Delay = _QUEUE) -> Startup:
    """Boot, and the set-up that makes of it these seconds from launch to readiness, if the two are independent."""
    setup_s = ready_s - _BOOT.mean_s
    return Startup(queue, _BOOT, Delay(setup_s, cv=math.sqrt(sd_s**2 - _BOOT_SD_S**2) / setup_s))


_PRESETS = {
    # A machine image that already holds everything the training needs: no set-up.
    "fast": Startup(_QUEUE, _BOOT),
    # 101 to 147 s from launch to ready, set-up of the runtime included (same source).
    "typical": _with_setup(124.0, 11.5),
    # 7 min, the slow cases of the same provider; one figure, so the relative spread of `typical` is assumed.
    "slow": _with_setup(420.0, 420.0 * _SPREAD),
    # One GPU machine each, by provider: a stock image, and one with the runtime built in. SkyPilot, pull requests 4027 and
    # 4091 (October 2024): AWS 147 and 210 s, and 101 and 140 s; 4027: GCP 215 and 75 s.
    "aws": _with_setup(178.5, (210.0 - 147.0) / 4),
    "aws-image": _with_setup(120.5, (140.0 - 101.0) / 4),
    "gcp": _with_setup(215.0, 215.0 * _SPREAD),
    "gcp-image": _with_setup(75.0, 75.0 * _SPREAD),
    # SkyPilot, pull request 4167 (October 2024): from the command to the prompt, so the provider's queue is in it.
    "azure": _with_setup(240.0, 240.0 * _SPREAD, queue=Delay(0.0)),
    "azure-image": _with_setup(160.0, 160.0 * _SPREAD, queue=Delay(0.0)),
    # 5 to 10 min on 8 GPUs, environment, weights and state of the job included (SkyNomad, NSDI 2027, section 2.1).
    "8-gpus-with-weights": _with_setup(450.0, (600.0 - 300.0) / 4),
}


def startup_of(value: StartupInput) -> Startup:
    """The start-up that a spec describes.

    Args:
        value: a preset's name, or a mapping with `queue_s`, `init_s` and `setup_s` (0 where left out), each a number of
            seconds, `{mean_s, cv}` of a log-normal distribution, or `{recorded_s}`: waiting times that were recorded.

    Raises:
        InputError: it is neither; the message names the key.
    """
    if isinstance(value, Startup):
        return value
    if isinstance(value, str):
        if value not in _PRESETS:
            raise unknown("start-up", value, _PRESETS, "or give queue_s and init_s")
        return _PRESETS[value]
    if isinstance(value, Mapping):
        given: Mapping[str, DelayInput] = plain(value)
        _require_keys("startup", given, _PHASES)
        return Startup(*(_delay_of(f"startup.{key}", given.get(key, 0.0)) for key in _PHASES))
    raise InputError(f"startup is {value!r}, but must be a preset's name or a mapping with queue_s and init_s")


def _delay_of(where: str, value: DelayInput) -> Delay:
    if not isinstance(value, Mapping):
        return Delay(_seconds(where, value))
    if "recorded_s" in value:
        _require_keys(where, value, ("recorded_s",))
        return _recorded(f"{where}.recorded_s", value["recorded_s"])
    _require_keys(where, value, ("mean_s", "cv"))
    if "mean_s" not in value:
        raise InputError(f"{where}: mean_s is missing")
    return Delay(_seconds(f"{where}.mean_s", value["mean_s"]), _number(f"{where}.cv", value.get("cv", 0.0)))


def _recorded(where: str, waits_s: object) -> Delay:
    if not isinstance(waits_s, list | tuple):
        raise InputError(f"{where} is {waits_s!r}, but must be a list of seconds")
    try:
        return Delay.recorded([_seconds(where, wait_s) for wait_s in waits_s])
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(where) else f"{where} {error}") from error


def _require_keys(where: str, value: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key in value:
        if key not in known:
            match = nearest(str(key), known, likeness=0.0)
            raise InputError(f"{where}: unknown key {key!r}; did you mean {match!r}? known: {', '.join(known)}")


def _seconds(where: str, value: object) -> float:
    if not isinstance(value, str):
        return _number(where, value)
    try:
        return _number(where, seconds_of(value))
    except ValueError as error:
        raise InputError(f"{where} is {value!r}, but {error}") from error


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
        raise InputError(f"{where} is {value!r}, but must be a number of at least 0")
    if value > LONGEST_S:
        raise InputError(f"{where} is {value!r}, {too_long(value)}")
    return float(value)
