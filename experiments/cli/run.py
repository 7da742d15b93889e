"""`elastune run`: one policy once, in simulation or on real workers."""

from __future__ import annotations

import enum
import json
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elastune.experiments.cli.numbers import count_option, number_option
from elastune.experiments.cli.options import (
    FAILED,
    AsJson,
    Device,
    checkpoints_option,
    complete_policy,
    device_option,
    failure,
    load_spec,
    print_json,
    ray_option,
    refuse,
)
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elastune.experiments.real.result import RealResult
    from elastune.experiments.real.run import Means
    from elastune.experiments.runs.result import RunResult
    from elastune.experiments.spec.run import RunSpec


class World(enum.StrEnum):
    """What a run happens in."""

    SIMULATION = "simulation"
    RAY = "ray"


_REAL = "Real workers"
_SpecFile = Annotated[
    Path | None,
    typer.Argument(metavar="SPEC", help="A YAML file that describes the run; not with --resume.", show_default=False),
]
_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the spec, as job.deadline_s=1800."),
]
_Policy = Annotated[
    str | None, typer.Option(help="name[:param=value...], instead of the spec's.", autocompletion=complete_policy)
]
_Seed = Annotated[int | None, count_option(least=0, help="Instead of the spec's.")]
_Out = Annotated[
    Path | None, typer.Option("-o", "--out", help="Folder of the results.", show_default="results/runs/<digest>")
]
_Journal = Annotated[Path | None, typer.Option(help="Put the journal elsewhere (simulation only).")]
_On = Annotated[World, typer.Option("--on", help="Where it runs.")]
_Emulate = Annotated[
    float | None,
    number_option(
        metavar="SPEED", help="Do not train: wait out the recorded seconds, so many per second.", rich_help_panel=_REAL
    ),
]
_Inject = Annotated[
    bool,
    typer.Option("--inject", help="Add the spec's start-up delays and losses of machines.", rich_help_panel=_REAL),
]
_Resume = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Go on with a real run whose driver died.", rich_help_panel=_REAL)
]


def run(
    spec_file: _SpecFile = None,
    settings: _Settings = None,
    policy: _Policy = None,
    seed: _Seed = None,
    as_json: AsJson = False,
    out: _Out = None,
    journal: _Journal = None,
    world: _On = World.SIMULATION,
    device: Annotated[Device | None, device_option(_REAL)] = None,
    ray: Annotated[str | None, ray_option(_REAL)] = None,
    checkpoints: Annotated[str | None, checkpoints_option("in the results", _REAL)] = None,
    emulate: _Emulate = None,
    inject: _Inject = False,
    resume: _Resume = None,
) -> None:
    """Run one policy once, in simulation or on real workers; writes spec.yaml, journal.jsonl and result.json."""
    means: dict[str, object] = {
        "--device": device,
        "--ray": ray,
        "--checkpoints": checkpoints,
        "--emulate": emulate,
        "--inject": inject or None,
    }
    asked: dict[str, object] = {
        "SPEC": spec_file,
        "--set": settings or None,
        "--policy": policy,
        "--seed": seed,
        "-o": out,
    }
    if resume is not None:
        refuse(asked | {"--journal": journal} | means, f"--resume {resume} goes on as the run began")
        _show_real(_resumed(resume), as_json)
        return
    if spec_file is None:
        raise InputError(
            "run: name the YAML file that describes the run, or the folder of a run to go on with (--resume DIR)"
        )
    spec = load_spec(spec_file, [*(settings or []), *_overriding(policy, seed)])
    folder = out or Path("results/runs") / spec.digest()
    if world is World.SIMULATION:
        refuse(means, "this run is simulated (--on ray runs it on real workers)")
        _simulate(spec, folder, journal or folder / "journal.jsonl", as_json)
        return
    refuse({"--journal": journal}, "the journal of a real run lies in its folder (-o), from where it can go on")
    from elastune.experiments.real.run import Means

    slots = device or Device.CPU
    how = Means(device=slots.value, ray_address=ray, checkpoints=checkpoints, speed=emulate, injects=inject)
    _show_real(_executed(spec, folder, how), as_json)


def _overriding(policy: str | None, seed: int | None) -> list[str]:
    """Settings that stand for the options of their own."""
    given = {"policy": policy, "seed": seed}
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def _simulate(spec: RunSpec, folder: Path, journal: Path, as_json: bool) -> None:
    from elastune.experiments.runs.simulate import execute

    result = execute(spec, journal=journal)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(folder / "spec.yaml")
    text = json.dumps(result.to_json(), indent=2, allow_nan=False)
    (folder / "result.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        print_json(result.to_json())
    else:
        from elastune.experiments.cli.tables import print_run

        print_run(spec, result, folder, journal)
    _require_answer(result, journal)


def _executed(spec: RunSpec, folder: Path, means: Means) -> RealResult:
    from elastune.experiments.cli.live import live
    from elastune.experiments.real.run import execute_real

    with _may_be_gone_on_with(folder), live() as watch:
        return execute_real(spec, folder, means, watch=watch)


def _resumed(folder: Path) -> RealResult:
    from elastune.experiments.cli.live import live
    from elastune.experiments.real.run import resume_real

    with _may_be_gone_on_with(folder), live() as watch:
        return resume_real(folder, watch=watch)


@contextmanager
def _may_be_gone_on_with(folder: Path) -> Iterator[None]:
    """What ends a run before its time says how to go on; SIGTERM ends it as Ctrl-C does, and machines are given back."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except InputError:
        raise
    except (Exception, KeyboardInterrupt):  # a full disk among them
        if (folder / "journal.jsonl").is_file():
            typer.echo(f"what was done is kept: elastune run --resume {folder}", err=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _show_real(result: RealResult, as_json: bool) -> None:
    result.write()
    journal = result.folder / "journal.jsonl"
    if as_json:
        print_json(result.to_json())
    else:
        from elastune.experiments.cli.tables import print_control, print_run
        from elastune.experiments.spec.run import RunSpec

        print_run(RunSpec.load(result.folder / "spec.yaml"), result.run, result.folder, journal)
        print_control(result)
    _require_answer(result.run, journal)


def _require_answer(result: RunResult, journal: Path) -> None:
    if result.best_trial is None:
        raise failure(f"{result.policy} has no answer: no configuration was ever saved; {journal} shows why", FAILED)
