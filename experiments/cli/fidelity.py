"""`elastune fidelity`: predictions before real runs, and what became of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elastune.experiments.cli import options
from elastune.experiments.cli.completion import complete_bundle, complete_policies
from elastune.experiments.cli.numbers import count_option, number_option
from elastune.experiments.cli.tables import NONE, Table, key, number, numbers, percent, say, text
from elastune.experiments.files import check_outputs, write_text
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.experiments.fidelity.analysis import CheckedRun
    from elastune.experiments.fidelity.conduct import Measurement
    from elastune.experiments.fidelity.report import Errors, FidelityReport, Group

_REAL = "Real runs"
_Specs = Annotated[
    list[Path] | None, typer.Argument(metavar="SPEC...", help="YAML files, a job each.", show_default=False)
]
_Policies = Annotated[
    str | None,
    typer.Option(
        help="With commas between.", show_default="the spec's", autocompletion=complete_policies, rich_help_panel=_REAL
    ),
]
_Repeats = Annotated[
    int | None, count_option(help="Seeds, counted from the spec's.", show_default="1", rich_help_panel=_REAL)
]
_Bundle = Annotated[
    str | None,
    typer.Option(
        help="Predict from this profile, instead of timing other configurations first.",
        autocompletion=complete_bundle,
        rich_help_panel=_REAL,
    ),
]
_Emulate = Annotated[
    float | None,
    number_option(
        metavar="SPEED", help="Do not train: wait out the recorded seconds, so many per second.", rich_help_panel=_REAL
    ),
]
_Inject = Annotated[
    bool, typer.Option("--inject", help="Add the spec's start-up delays and losses.", rich_help_panel=_REAL)
]
_From = Annotated[
    list[Path] | None,
    typer.Option("--from", metavar="DIR", help="Redo the report from recorded sittings; may be given several times."),
]
_Pack = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Write a small copy of a sitting, without checkpoints, to -o.")
]
_Physical = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Replay the placements of a physical cluster that others recorded, instead."),
]
_Figures = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Draw the pictures into this folder.", rich_help_panel=options.OUTPUT)
]
_Rows = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write a row per real run to this CSV file.", rich_help_panel=options.OUTPUT),
]


def fidelity(
    specs: _Specs = None,
    settings: options.Settings = None,
    policies: _Policies = None,
    repeats: _Repeats = None,
    device: Annotated[options.Device | None, options.device_option(_REAL)] = None,
    bundle: _Bundle = None,
    emulate: _Emulate = None,
    inject: _Inject = False,
    recorded: _From = None,
    pack: _Pack = None,
    physical: _Physical = None,
    out: Annotated[
        Path | None, options.out_option("Folder of the sitting, or of the packed copy.", "results/fidelity")
    ] = None,
    figures: _Figures = None,
    rows: _Rows = None,
    as_json: options.AsJson = False,
) -> None:
    """Predict runs, run them for real, and say how far reality was from the prediction, and why.

    What an interrupted call had finished is kept; the same command goes on.
    """
    of_runs: dict[str, object] = {
        "SPEC": specs or None,
        "--set": settings or None,
        "--policies": policies,
        "--repeats": repeats,
        "--device": device,
        "--bundle": bundle,
        "--emulate": emulate,
        "--inject": inject or None,
    }
    of_reports = {"--from": recorded or None, "--figures": figures, "--rows": rows}
    if physical is not None:
        options.refuse(of_runs | of_reports | {"--pack": pack, "-o": out}, "a physical record is replayed")
        _show_physical(physical, as_json)
        return
    if pack is not None:
        options.refuse(of_runs | of_reports | {"--json": as_json or None}, "a recorded sitting is packed")
        _pack(pack, out)
        return
    if rows is not None:
        check_outputs(rows, reads=(path for one in recorded or () for path in one.rglob("*") if path.is_file()))
    if figures is not None:
        check_outputs(figures / "gantt.png")
    if recorded:
        options.refuse(of_runs | {"-o": out}, "recorded sittings are read (--from)")
        _show(recorded, figures, rows, as_json)
        return
    folder = out or Path("results/fidelity")
    _measure(_measurement(specs or [], settings, policies, repeats, device, bundle, emulate, injects=inject), folder)
    _show([folder], figures, rows, as_json)


def _measurement(
    specs: Sequence[Path],
    settings: list[str] | None,
    policies: str | None,
    repeats: int | None,
    device: options.Device | None,
    bundle: str | None,
    speed: float | None,
    *,
    injects: bool,
) -> Measurement:
    """What is asked for, read and checked."""
    from elastune.experiments.fidelity.conduct import Measurement
    from elastune.experiments.spec.yaml_file import names_in

    if not specs:
        raise InputError("fidelity: name the YAML files of the jobs, or recorded sittings (--from DIR)")
    loaded = {path.stem: options.load_spec(path, settings) for path in specs}
    if len(loaded) < len(specs):
        raise InputError("fidelity: two of the files have the same name, by which the runs are called")
    return Measurement(
        specs=loaded,
        policies=names_in(policies, "--policies") or [next(iter(loaded.values())).policy.label],
        repeats=repeats or 1,
        device=device or "cpu",
        bundle=bundle,
        speed=speed,
        injects=injects,
    )


def _measure(asked: Measurement, folder: Path) -> None:
    from elastune.experiments.fidelity.conduct import measure

    with options.kept_when_interrupted(folder), options.progress("Measuring") as on_progress:
        measure(asked, folder, on_progress)


def _pack(folder: Path, out: Path | None) -> None:
    from elastune.experiments.fidelity.pack import pack

    if out is None:
        raise InputError(f"--pack {folder}: name the folder of the copy (-o DIR)")
    say(f"{out}: {pack(folder, out) / 1024:,.0f} KiB")


def _show_physical(folder: Path, as_json: bool) -> None:
    from elastune.experiments.fidelity.physical_report import physical_report

    with options.progress("Replaying placements") as on_progress:
        rows, orders = physical_report(folder, on_progress=on_progress)
    if as_json:
        told = [{name: _finite(value) for name, value in row._asdict().items()} for row in rows]
        options.print_json({"runs": told, "orders": [{**one._asdict(), "is_kept": one.is_kept} for one in orders]})
        return
    errors = numbers("makespan", "median", "90th", "bias", "service: median", "90th", "in 90 %")
    table = Table("Simulated over real, less 1; per job: completion time, service time", [*key("run", "by"), *errors])
    for row in rows:
        shown = (row.makespan, row.jct_median, row.jct_p90, row.jct_bias, row.service_median, row.service_p90)
        table.add(row.run, row.by, *map(_signed, shown), percent(row.coverage), is_strong=row.by == "authors")
    table.print()
    for one in orders:
        kept = "kept" if one.is_kept else "NOT kept"
        say(f"{one.by}: mean completion time of {one.first} over {one.second}: {_signed(one.real)} real,"
            f" {_signed(one.simulated)} simulated, sign {kept}")  # fmt: skip
    say(
        "Placements and the times of rounds are those of the record; the authors' simulator chose its own. This checks rounds,"
        " preemption and restarts, and neither tuning nor bills."
    )


def _finite(value: str | float) -> str | float | None:
    return value if isinstance(value, str) or math.isfinite(value) else None


def _show(folders: Sequence[Path], figures: Path | None, rows: Path | None, as_json: bool) -> None:
    from elastune.experiments.fidelity.analysis import checked_runs
    from elastune.experiments.fidelity.report import FidelityReport

    runs = checked_runs(folders)
    report = FidelityReport.of(runs)
    if as_json:
        options.print_json(report.to_json(runs))
    else:
        _print(report, runs)
    if rows is not None:
        from elastune.experiments.fidelity.rows import rows_of_runs

        write_text(rows, rows_of_runs(runs).to_csv(index=False))
        say(str(rows), err=as_json)
    if figures is not None:
        from elastune.experiments.fidelity.pictures import draw

        for path in draw(runs, figures):
            say(str(path), err=as_json)


def _print(report: FidelityReport, runs: Sequence[CheckedRun]) -> None:
    _heads_table(report).print()
    _regimes_table(report).print()
    _parts_table(report).print()
    _pairs_table(report).print()
    _decisions_table(runs).print()
    say(
        f"{report.runs} real runs; all {report.entries} entries of their journals replay, command by command.\n"
        f"90 % intervals: reality lies in {percent(report.coverage)} of {report.intervals} (scores not counted)."
    )


def _signed(share: float) -> str:
    return NONE if math.isnan(share) else f"{100 * share:+.1f} %"


def _of(group: Group) -> tuple[str, str]:
    return group.job, group.policy or "all"


def _heads_table(report: FidelityReport) -> Table:
    title = "Prediction less reality, over reality (the score: in its own unit)"
    columns = numbers("runs", "bias", "error", "parameters", "structure", "in 90 %")
    table = Table(title, [*key("job", "policy", "of"), *columns, *text("equal within 5 %")])
    for group in report.groups:
        for name, errors in group.heads.items():
            table.add(*_of(group), name, *_cells(errors, name), _equal(group, name), is_strong=not group.policy)
    return table


def _cells(errors: Errors, name: str) -> list[str]:
    shown = (errors.bias, errors.error, errors.parameters, errors.structure)
    told = [number(value, 3) for value in shown] if name == "score" else [_signed(value) for value in shown]
    return [str(errors.runs), *told, percent(errors.coverage)]


def _equal(group: Group, name: str) -> str:
    test = group.equivalence.get(name)
    if test is None:
        return "too few repeats" if name != "score" and group.policy else NONE
    return f"{'yes' if test.is_equal else 'no'}: [{_signed(test.low)}, {_signed(test.high)}], p {number(test.p, 2)}"


def _regimes_table(report: FidelityReport) -> Table:
    title = "The runs: shares of busy GPU-seconds, and the drift of the machine since the profile"
    columns = numbers("training", "start-up, launch, rescale", "drift of training", "drift of launches")
    same = numbers("decided as predicted", "with measured seconds", "survivors in common")
    table = Table(title, [*key("job", "policy"), *columns, *same])
    for group in report.groups:
        drift = (NONE, NONE) if group.drift is None else tuple(map(_signed, group.drift))
        shares = (percent(group.trained), percent(group.starting))
        same_of = (f"{count} of {group.runs}" for count in (group.same_decisions, group.same_decisions_measured))
        table.add(*_of(group), *shares, *drift, *same_of, percent(group.in_common), is_strong=not group.policy)
    return table


def _parts_table(report: FidelityReport) -> Table:
    title = "By part: of the ledger over the whole run's; ends of stages and trials over themselves"
    table = Table(title, [*key("part"), *numbers("numbers", "bias", "error", "parameters", "structure", "in 90 %")])
    found = {**report.parts, "ends of stages": report.stages, "ends of trials": report.trials}
    for name, errors in found.items():
        if errors is not None:
            table.add(name, *_cells(errors, name))
    return table


def _pairs_table(report: FidelityReport) -> Table:
    table = Table("Differences between policies", [*key("job and number", "policies"), *numbers("predicted", "real")])
    table.columns = [*table.columns, *text("sign kept")]
    for name, pairs in report.pairs.items():
        for pair in pairs:
            told = (_signed(pair.predicted), _signed(pair.real), "yes" if pair.is_kept else "NO")
            table.add(name, f"{pair.first} over {pair.second}", *told)
    return table


def _decisions_table(runs: Sequence[CheckedRun]) -> Table:
    table = Table("The first decision that differs from the prediction", [*key("run"), *numbers("number", "after s")])
    table.columns = [*table.columns, *text("real", "predicted")]
    for run in runs:
        found = run.difference
        if found.number:
            table.add(run.unit.name, found.number, number(found.at_s, 3), found.real, found.simulated)
    return table


def calibrate(
    sittings: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Sittings of fidelity.", show_default=False)],
    out: Annotated[Path, options.out_option("Folder of the new bundle.")],
    as_json: options.AsJson = False,
) -> None:
    """Make a profile better by what real runs took; every third run is left out, and shows whether that helped."""
    from elastune.experiments.fidelity.calibrating import calibrate as calibrated

    found = calibrated(sittings, out)
    if as_json:
        options.print_json({
            "bundle": str(found.folder),
            "runs_used": found.used,
            "changes": {one.name: {"before": one.before, "after": one.after} for one in found.changes},
            "cloud": found.cloud._asdict(),
            "left_out": found.checked,
            "mean_absolute_error": found.means(),
        })  # fmt: skip
        return
    table = Table(f"From the journals of {found.used} runs", [*key("number"), *numbers("before", "after")])
    for one in found.changes:
        table.add(one.name, number(one.before, 3), number(one.after, 3))
    table.print()
    cloud = found.cloud
    say(
        f"In a spec:\n  cloud: {{startup: {{queue_s: {cloud.queue_s:.3g}, init_s: {{mean_s: {cloud.init_s:.3g}, cv:"
        f" {cloud.init_cv:.2g}}}}}, faults: {{instance_loss_per_hour: {cloud.instance_loss_per_hour:.3g},"
        f" segment_failure_per_hour: {cloud.segment_failure_per_hour:.3g}}}}}"
    )
    for name, (before, after) in found.means().items():
        say(
            f"{name}: mean error {_signed(before)} before, {_signed(after)} after, over {len(found.checked)} runs not used"
        )
    say(str(found.folder))
