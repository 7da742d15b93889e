"""Options of a real run: checked, kept in the run's folder, and read again when it is resumed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from elastune.sim.model.errors import InputError

_MOST_SPEED = 1e6


@dataclass(frozen=True, kw_only=True)
class RealRunOptions:
    """Options of a real run; real.json keeps them for a resume.

    Attributes:
        device: what a slot is: a CPU slot, or a CUDA GPU.
        ray_address: of a running Ray cluster; None for an embedded one.
        checkpoints: folder or fsspec URL that every node reaches; None for `checkpoints` in the run's folder.
        speed: seconds of the run per second of the host, for an emulated run; None trains for real.
        injects: whether the spec's start-up delays and losses are added.
        keep: checkpoints kept of each trial.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    ray_address: str | None = None
    checkpoints: str | None = None
    speed: float | None = None
    injects: bool = False
    keep: int = 2

    def __post_init__(self) -> None:
        if self.speed is not None and not 0 < self.speed <= _MOST_SPEED:
            raise InputError(
                f"--emulate {self.speed}: run seconds per second here, above 0 and at most {_MOST_SPEED:g}"
            )
        if self.keep < 2:
            raise InputError(f"keep is {self.keep}, but must be at least 2: the newest checkpoint may be a broken one")


def require_named(options: RealRunOptions, ray_address: str | None, checkpoints: str | None) -> None:
    """Check that the caller names what the run uses outside of its folder.

    Ray runs code that a cluster sends, and checkpoints are deleted where they are kept.
    """
    given = None if checkpoints is None else absolute(checkpoints)
    places = ("--ray", options.ray_address, ray_address), ("--checkpoints", options.checkpoints, given)
    for option, noted, named in places:
        if noted != named:
            used = f"used {option} {noted}" if noted is not None else f"did not use {option}"
            instead = f"add {option} {noted} if you trust it" if noted is not None else f"leave {option} out"
            raise InputError(f"the run {used}, which --resume takes only from the command line: {instead}")


def absolute(checkpoints: str) -> str:
    """Make the place independent of the working folder, which differs between processes."""
    return checkpoints if "://" in checkpoints else str(Path(checkpoints).absolute())


def options_of(path: Path) -> RealRunOptions:
    """The options that a run's folder keeps.

    Raises:
        InputError: the file is damaged, or holds others.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        RealRunOptions(**told)  # refuses unknown names
        return msgspec.convert(told, RealRunOptions)
    except (ValueError, TypeError, InputError) as error:  # msgspec's is a ValueError
        raise InputError(f"{path} does not say how the run was run: {error}") from error
