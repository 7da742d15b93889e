"""The look shared by all figures: sizes, policy colours, axes and legends. Imports matplotlib inside its functions.

Every size is set on the artist and none through rcParams, which are global to the process.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from elastune.experiments.files import write_whole
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Array: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]
Truths: TypeAlias = NDArray[np.bool_]

SINGLE_IN, DOUBLE_IN = 3.4, 7.0
"""Printed widths of a figure in one and in two columns."""

LABEL_PT, TICK_PT, NOTE_PT = 7.5, 6.5, 6.5
"""Font sizes, as printed."""

ROW_IN, USUAL_ROWS = 0.125, 4
"""The height of a row of a legend, and how many a figure has room for."""
MANY = 10
"""More policies than this take the width of a page, because their legend does."""

INK, RULE = "#333333", "#8A8A8A"

Dashes = tuple[float, tuple[float, ...]]
SOLID: Dashes = (0, ())
DASHED: Dashes = (0, (7.0, 1.6))
DOTTED: Dashes = (0, (1.2, 1.2))
DASH_DOT: Dashes = (0, (6.0, 1.5, 1.5, 1.5))
DASH_DOT_DOT: Dashes = (0, (4.0, 1.3, 1.2, 1.3, 1.2, 1.3))
HALVES: Dashes = (0, (3.0, 3.0))
OTHER_HALVES: Dashes = (3.0, (3.0, 3.0))
LIMIT_DASHES: Dashes = (0, (6.0, 2.0))


@dataclass(frozen=True)
class Look:
    """How one policy is drawn in every figure."""

    color: str
    dashes: Dashes
    marker: str


# Okabe and Ito's colours, with two darker ones in place of their yellow and black. The naive twin of a policy has the
# light colour of its hue. Lines that often coincide (equal clusters) differ in their dashes, so that the upper one lets
# the lower one through.
KNOWN = {
    "seer": Look("#D55E00", SOLID, "o"),
    "seer-staged": Look("#332288", DASHED, "h"),
    "rubberband": Look("#009E73", DASH_DOT, "s"),
    "sha-fixed": Look("#0072B2", SOLID, "^"),
    "sha-fixed-naive": Look("#56B4E9", HALVES, "v"),
    "asha-fixed": Look("#A0207A", DASHED, "D"),
    "asha-fixed-naive": Look("#CC79A7", OTHER_HALVES, "p"),
    "sha-elastic:gpus_per_trial=1": Look("#E69F00", DOTTED, "P"),
    "sha-elastic:gpus_per_trial=4": Look("#444444", DASH_DOT_DOT, "X"),
    "hyperband-fixed": Look("#8C510A", DOTTED, "H"),
    "hypersched-fixed": Look("#999933", DASHED, "<"),
    "random-fixed": Look("#777777", DASH_DOT, ">"),
    "static": Look("#661100", HALVES, "*"),
    "pasha-fixed": Look("#44AA99", DASH_DOT_DOT, "d"),
    "one-cut": Look("#6699CC", DASHED, "8"),
    "elasticflow": Look("#117733", DOTTED, "h"),
    "portfolio": Look("#4A4A9C", HALVES, "P"),
    "explore-finish": Look("#882255", DASH_DOT, "s"),
    "asha-stopping-fixed": Look("#B07AA1", DOTTED, "D"),
    "hyperband-elastic": Look("#BF812D", DASHED, "H"),
    "random-elastic": Look("#AAAAAA", DOTTED, ">"),
    "asha-elastic": Look("#7B4173", DASH_DOT_DOT, "d"),
    "pbt": Look("#DDCC77", SOLID, "D"),
    "oracle": Look("#000000", DASHED, "X"),
}
"""The policies that ship: their look never changes, whatever else is plotted."""

_NEXT_COLORS = ("#A6761D", "#B3B300", "#8DA0CB", "#A50F15", "#66C2A5", "#E78AC3", "#1B7837", "#969696")
_NEXT_MARKERS = ("H", "<", ">", "*", "d", "8", "1", "s")


def looks_of(policies: Iterable[str]) -> dict[str, Look]:
    """The look of each policy in drawing order: known ones first, then the others by name, which get the next looks.

    A variant of a known policy, such as `seer:truncate=always`, looks like it where it is the only one of its name.
    """
    names = set(policies)
    known = {name: look for policy, look in KNOWN.items() if (name := _only_one(policy, names)) is not None}
    styles = product((SOLID, DASHED, DOTTED, DASH_DOT), zip(_NEXT_COLORS, _NEXT_MARKERS, strict=True))
    upcoming = cycle([Look(color, dashes, marker) for dashes, (color, marker) in styles])
    return known | dict(zip(sorted(names - known.keys()), upcoming, strict=False))


def _only_one(policy: str, names: Collection[str]) -> str | None:
    """The name of this policy, or of its only variant; None where there is none, or several."""
    if policy in names:
        return policy
    variants = [name for name in names if name.startswith(f"{policy}:")]
    return variants[0] if len(variants) == 1 else None


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of its printed size, white, laid out so that nothing is cut off."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03)
    return Figure(figsize=(width_in, height_in), dpi=150, facecolor="white", layout=layout)


def balanced(panels: int, most: int) -> int:
    """How many panels stand side by side, at most so many, so that rows are as equal as can be."""
    return -(-panels // -(-panels // most))


@dataclass(frozen=True)
class Panel:
    """One of several axes of a figure.

    Attributes:
        is_left: whether it is the first of its row.
        is_lowest: whether none is below it.
    """

    axes: Axes
    is_left: bool
    is_lowest: bool


def panels_on(figure: Figure, count: int, columns: int, **shared: Any) -> list[Panel]:  # noqa: ANN401  as of Figure.subplots
    """Axes in rows of equal length; where they share their horizontal axis, only the lowest of each column has numbers."""
    grid = figure.subplots(math.ceil(count / columns), columns, squeeze=False, **shared)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    shown = enumerate(grid.flat[:count])
    panels = [Panel(axes, place % columns == 0, place + columns >= count) for place, axes in shown]
    for panel in panels if shared.get("sharex") else ():
        panel.axes.tick_params(labelbottom=panel.is_lowest)
    return panels


def width_of(panels: int, policies: int) -> float:
    """The width of a figure with so many panels side by side, and policies in its legend."""
    return SINGLE_IN if panels == 1 and policies <= MANY else DOUBLE_IN


def finished(figure: Figure) -> Figure:
    """The figure with its layout frozen: constrained layout moves a little at every draw, and bytes would differ."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def dress(axes: Axes, x_label: str, y_label: str) -> None:
    """Label the axes and give them the common ticks, spines and grid."""
    axes.set_xlabel(x_label, fontsize=LABEL_PT, color=INK, labelpad=2)
    axes.set_ylabel(y_label, fontsize=LABEL_PT, color=INK, labelpad=2)
    axes.tick_params(labelsize=TICK_PT, colors=INK, length=2.5, width=0.6, pad=2)
    axes.tick_params(which="minor", length=1.5, width=0.4)
    axes.grid(visible=True, which="major", color="#E4E4E4", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(linewidth=0.6, color=INK)


def plain_ticks(axis: Axis) -> None:
    """Plain numbers at 1, 1.5, 2, 3, 5 and 7 times the powers of ten, on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def panel_name(axes: Axes, name: str, width_in: float) -> None:
    """Write what a panel shows above its upper left corner, so small that it does not reach into the next one."""
    size_pt = min(TICK_PT, 72 * width_in / (0.56 * max(len(name), 1)))
    axes.set_title(name, loc="left", fontsize=size_pt, color=INK, pad=3)


def line_widths(looks: Mapping[str, Look]) -> dict[str, float]:
    """The width of each policy's line: the first solid one is wide, so that it shows beside equal ones drawn upon it."""
    solid = [name for name, look in looks.items() if look.dashes == SOLID]
    wide = solid[0] if len(looks) > 1 and solid else None
    return {name: 2.2 if name == wide else 1.2 for name in looks}


def step_line(axes: Axes, x: Array, y: Array, look: Look, width: float, label: str) -> None:
    """Draw a step function in the look of a policy: it holds its value until the next point."""
    how: dict[str, Any] = {"color": look.color, "linestyle": look.dashes, "linewidth": width, "label": label}
    axes.plot(x, y, drawstyle="steps-post", **how)


def step_band(axes: Axes, x: Array, ends: tuple[Array, Array], look: Look, alpha: float, **how: Any) -> None:  # noqa: ANN401
    """Fill between two step functions in the colour of a policy; `how` is as of `Axes.fill_between`."""
    axes.fill_between(x, *ends, step="post", color=look.color, alpha=alpha, linewidth=0, **{"label": "_band", **how})


def band_alpha(bands: int) -> float:
    """How strong each of so many bands may be, that lie on one another."""
    return 0.15 * min(1.0, 6 / max(bands, 1))


def panel_letter(axes: Axes, letter: str) -> None:
    """Write the letter of a panel above its upper left corner."""
    axes.set_title(letter, loc="left", fontsize=LABEL_PT, fontweight="bold", color=INK, pad=4)


def limit_lines(axes: Axes, name: str, values: Sequence[float], unit: str) -> None:
    """Draw a vertical line at each limit (deadline, budget) and name it above the axes, outside of the data."""
    if not values:
        return
    for value in values:
        axes.axvline(value, color=INK, linewidth=0.9, linestyle=LIMIT_DASHES, zorder=2.5, label="_limit")
    low, _ = axes.get_ylim()
    place = float((axes.transScale + axes.transLimits).transform((values[-1], low))[0])
    side = "right" if place > 0.75 else "left" if place < 0.25 else "center"
    beyond = " \N{RIGHTWARDS ARROW}" if place > 1 else ""
    text = f"{name} {', '.join(f'{value:.4g}' for value in values)} {unit}{beyond}"
    axes.annotate(
        text,
        (min(max(place, 0.0), 1.0), 1.0),
        xycoords="axes fraction",
        xytext=(0, 2.5),
        textcoords="offset points",
        ha=side,
        va="bottom",
        fontsize=NOTE_PT,
        color=INK,
    )


def handle(look: Look, label: str, *, has_marker: bool = True) -> Line2D:
    """The legend's sample of a policy: its line and, where the figure has one, its mark."""
    from matplotlib.lines import Line2D

    marker = look.marker if has_marker else "None"
    return Line2D(
        [], [], color=look.color, linestyle=look.dashes, linewidth=1.4, marker=marker, markersize=4, label=label
    )


def _columns(labels: Sequence[str], width_in: float) -> int:
    """The most columns, filled one after the other, whose longest labels fit side by side; at least 1."""
    for columns in range(min(len(labels), 5), 1, -1):
        parts = np.array_split([len(label) for label in labels], columns)
        if sum(0.049 * part.max() + 0.42 for part in parts) <= width_in:
            return columns
    return 1


def legend_below(figure: Figure, handles: Sequence[Artist], caption: str) -> None:
    """Put one legend under the axes, in as many columns as fit, with what marks and bands mean as its title.

    A long one makes the figure higher, so that its axes keep their size.
    """
    width_in = figure.get_figwidth()
    columns = _columns([str(artist.get_label()) for artist in handles], width_in)
    figure.set_figheight(figure.get_figheight() + ROW_IN * max(-(-len(handles) // columns) - USUAL_ROWS, 0))
    legend = figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=columns,
        fontsize=NOTE_PT,
        title="\n".join(line for told in caption.split("\n") for line in wrap(told, int(width_in / 0.048))),
        title_fontsize=NOTE_PT,
        frameon=False,
        handlelength=2.4,
        columnspacing=1.2,
        labelspacing=0.3,
        borderpad=0.1,
    )
    legend.get_title().set(color=INK, multialignment="center")


PRINT_DPI = 300

# Dates would change the bytes at every run, and matplotlib's version with every update.
_METADATA = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}
_RC_LOCK = threading.Lock()


def require_format(path: Path) -> None:
    """Raise an InputError where figures cannot be written as the suffix says; asked before any work is done."""
    if path.suffix not in _METADATA:
        raise InputError(f"cannot write {path.name}: a figure is one of {', '.join(_METADATA)}")


def picture_html(figure: Figure) -> str:
    """The figure within HTML, as a notebook shows it."""
    import base64
    import io

    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata=_METADATA[".png"])
    return f'<img src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}" alt="figure">'


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as its suffix says (.png, .pdf or .svg), creating the folder; returns the path.

    Raises an InputError for any other suffix.
    """
    import matplotlib as mpl

    path = Path(path)
    require_format(path)
    # Type 42 fonts stay text that can be searched and are what publishers ask for. Only rcParams can say so, and that the
    # names within an SVG are the same each time.
    with _RC_LOCK, mpl.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "elastune"}):
        kind = path.suffix
        write_whole(path, lambda file: figure.savefig(file, format=kind[1:], dpi=PRINT_DPI, metadata=_METADATA[kind]))
    return path
