"""`elastune run`, `replay`, `ledger`, `doctor`: one run, in simulation or on real workers, and what it left."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from elastune.experiments.cli import options
from elastune.experiments.cli.numbers import count_option, number_option
from elastune.experiments.cli.run_shown import print_control, print_ledger, print_run
from elastune.experiments.cli.tables import (
    plain,
    say,
)
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from elastune.experiments.real.doctor import Check
    from elastune.experiments.real.options import RealRunOptions
    from elastune.experiments.real.result import RealResult
    from elastune.experiments.runs.result import RunResult
    from elastune.experiments.spec.run import RunSpec


RunPlace: TypeAlias = Literal["simulation", "ray"]
"""What a run happens in."""


_REAL = "Real workers"
_SpecFile = Annotated[
    Path | None,
    typer.Argument(metavar="SPEC", help="A YAML file that describes the run; not with --resume.", show_default=False),
]
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
_Trainable = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.PY:NAME", help="With --resume: names the run's own training code.", rich_help_panel=_REAL
    ),
]
_Resume = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Go on with a real run whose driver died.", rich_help_panel=_REAL)
]


def run(
    spec_file: _SpecFile = None,
    settings: options.Settings = None,
    policy: options.Policy = None,
    seed: Annotated[int | None, count_option(least=0, most=2**63 - 1, help="Instead of the spec's.")] = None,
    as_json: options.AsJson = False,
    out: Annotated[Path | None, options.out_option("Folder of the results.", "results/runs/<digest>")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Put the journal elsewhere (simulation only).", rich_help_panel=options.OUTPUT)
    ] = None,
    place: Annotated[RunPlace, typer.Option("--on", help="Where it runs.")] = "simulation",
    device: Annotated[options.Device | None, options.device_option(_REAL)] = None,
    ray: Annotated[str | None, options.ray_option(_REAL)] = None,
    checkpoints: Annotated[str | None, options.checkpoints_option("in the results", _REAL)] = None,
    emulate: _Emulate = None,
    inject: _Inject = False,
    resume: _Resume = None,
    trainable: _Trainable = None,
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
        again = ("--ray", "--checkpoints")
        fixed = {name: given for name, given in means.items() if name not in again}
        unasked = {name: given for name, given in asked.items() if name != "--policy"}
        options.refuse(unasked | {"--journal": journal} | fixed, f"--resume {resume} goes on as the run began")
        _show_real(_resumed(resume, ray, checkpoints, {"--policy": policy, "--trainable": trainable}), as_json)
        return
    options.refuse({"--trainable": trainable}, "the spec names it (workload.trainable)")
    if spec_file is None:
        raise InputError(
            "run: name the YAML file that describes the run, or the folder of a run to go on with (--resume DIR)"
        )
    from elastune.experiments.files import check_outputs

    spec = options.load_spec(spec_file, [*(settings or []), *_overriding(policy, seed)])
    folder = out or Path("results/runs") / spec.digest()
    if place == "simulation":
        options.refuse(means, "this run is simulated (--on ray runs it on real workers)")
        if journal is not None:
            check_outputs(journal, reads=[spec_file])
        _simulate(spec, folder, journal or folder / "journal.jsonl", as_json)
        return
    options.refuse({"--journal": journal}, "the journal of a real run lies in its folder (-o), from where it can go on")
    from elastune.experiments.real.options import RealRunOptions

    how = RealRunOptions(
        device=device or "cpu", ray_address=ray, checkpoints=checkpoints, speed=emulate, injects=inject
    )
    options.print_notes(spec.notes())
    _show_real(_executed(spec, folder, how), as_json)


def _overriding(policy: str | None, seed: int | None) -> list[str]:
    """Settings that stand for the options of their own."""
    given = {"policy": policy, "seed": seed}
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def _simulate(spec: RunSpec, folder: Path, journal: Path, as_json: bool) -> None:
    from elastune.experiments.files import check_outputs, write_text
    from elastune.experiments.runs.run_folder import KIND_FILE, claim_folder, require_no_other
    from elastune.experiments.runs.simulate import execute

    check_outputs(journal, *(folder / name for name in ("spec.yaml", "result.json", KIND_FILE)))
    require_no_other(folder, "simulated run", spec)
    with _journal_told(journal):
        result = execute(spec, journal=journal)
    notes = options.print_notes(spec.notes())
    claim_folder(folder, "simulated run")
    spec.save(folder / "spec.yaml")
    write_text(folder / "result.json", json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n")
    if as_json:
        options.print_json(result.to_json() | notes)
    else:
        print_run(spec, result, folder, journal)
    _require_answer(result, journal)


@contextmanager
def _journal_told(journal: Path) -> Iterator[None]:
    """Say where the journal of a run is that was interrupted, if it left one."""
    before = _stamp(journal)
    try:
        yield
    except KeyboardInterrupt:
        if _stamp(journal) not in (None, before):
            say(f"what was done is kept in {journal}", err=True)
        raise


def _stamp(file: Path) -> tuple[int, int] | None:
    return (file.stat().st_ino, file.stat().st_mtime_ns) if file.is_file() else None


def _executed(spec: RunSpec, folder: Path, means: RealRunOptions) -> RealResult:
    from elastune.experiments.cli.live import live
    from elastune.experiments.real.run import execute_real

    own = spec.policy.name if spec.policy.code is not None else None
    trained = None if means.speed is not None else spec.workload.trainable
    own_code = {"--policy": own, "--trainable": trained}
    outside = {"--ray": means.ray_address, "--checkpoints": means.checkpoints, **own_code}
    with _may_be_gone_on_with(folder, outside), live() as watch:
        return execute_real(spec, folder, means, watch=watch)


def _resumed(
    folder: Path, ray_address: str | None, checkpoints: str | None, own: Mapping[str, str | None]
) -> RealResult:
    from elastune.experiments.cli.live import live
    from elastune.experiments.real.run import resume_real

    outside = {"--ray": ray_address, "--checkpoints": checkpoints, **own}
    named = {option.removeprefix("--"): name for option, name in own.items()}
    with _may_be_gone_on_with(folder, outside), live() as watch:
        return resume_real(folder, ray_address=ray_address, checkpoints=checkpoints, watch=watch, **named)


@contextmanager
def _may_be_gone_on_with(folder: Path, outside: Mapping[str, str | None]) -> Iterator[None]:
    """What ends a run before its time says how to go on; SIGTERM ends it as Ctrl-C does, and machines are given back."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except InputError:
        raise
    except (Exception, KeyboardInterrupt):  # a full disk among them
        if (folder / "journal.jsonl").is_file():
            named = "".join(f" {option} {place}" for option, place in outside.items() if place is not None)
            say(f"what was done is kept: elastune run --resume {folder}{named}", err=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _show_real(result: RealResult, as_json: bool) -> None:
    from elastune.experiments.runs.journals import spec_of

    result.write()
    journal = result.folder / "journal.jsonl"
    spec = spec_of(journal)
    if as_json:
        options.print_json(result.to_json() | {"notes": list(spec.notes())})
    else:
        print_run(spec, result.run, result.folder, journal)
        print_control(result)
        if result.checkpoint is not None:
            say(f"winner: {result.checkpoint}\nits files: {result.checkpoint_command}")
    _require_answer(result.run, journal)


def _require_answer(result: RunResult, journal: Path) -> None:
    if result.best_trial is None:
        raise options.CommandError(
            f"{result.policy} has no answer: no configuration was ever saved; {journal} shows why", options.FAILED
        )


def replay(
    journal: options.Journal,
    policy: Annotated[
        str | None, typer.Option(help="Names the code of a policy that does not ship, which is then run.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Feed a journal's events to a fresh controller, which must decide the same."""
    from elastune.experiments.runs.replay import replay_journal

    entries, is_complete = replay_journal(journal, policy=policy)
    if as_json:
        options.print_json(
            {"journal": str(journal), "entries": entries, "is_complete": is_complete, "replay_equal": True}
        )
    else:
        say(f"{entries} entries reproduced" + ("" if is_complete else "; the journal ends before its run did"))


def ledger(journal: options.Journal, as_json: options.AsJson = False) -> None:
    """Where the dollars and GPU-hours of a recorded run went."""
    from elastune.experiments.runs.replay import ledger_of

    found = ledger_of(journal)
    if as_json:
        options.print_json({"journal": str(journal), "ledger_usd": found.usd, "ledger_gpu_s": found.gpu_s})
    else:
        print_ledger(found.usd, found.gpu_s)


def checkpoint(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a real run that has ended.", show_default=False)
    ],
    out: Annotated[Path, options.out_option("A new folder for the files.")],
) -> None:
    """Put the winner of a real run into a folder: its checkpoint's files, and config.json."""
    from elastune.experiments.real.winner import unpack_winner

    for file in unpack_winner(folder, out):
        say(str(file))


def doctor(
    device: Annotated[options.Device | None, options.device_option()] = None,
    ray: Annotated[str | None, options.ray_option()] = None,
    checkpoints: Annotated[str | None, options.checkpoints_option("results/runs")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Check what real runs need, and say what to do where it is missing. Exit code 1: they will fail."""
    from elastune.experiments.real.doctor import DoctorOptions, examine

    checks: list[Check] = []
    for check in examine(DoctorOptions(device or "cpu", ray, checkpoints)):
        checks.append(check)
        if not as_json:
            _say_check(check)
    has_failed = any(check.status == "failed" for check in checks)
    if as_json:
        options.print_json({"is_ready": not has_failed, "checks": [asdict(check) for check in checks]})
    if has_failed:
        raise typer.Exit(options.FAILED)


def _say_check(check: Check) -> None:
    colours = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "failed": typer.colors.RED}
    status = typer.style(f"{check.status:8}", fg=colours[check.status])
    advice = f": {check.advice}" if check.advice else ""
    typer.echo(f"{status} {plain(f'{check.name:14} {check.found}{advice}')}")
