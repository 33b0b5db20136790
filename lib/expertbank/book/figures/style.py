"""The book's style, and what its figures have in common.

`book.mplstyle` holds the look. Its property cycle gives a line without a format the next colour,
stroke and marker. A line with a format and a colour of its own leaves the cycle where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

# two arrays over one axis, and lines by name
Pair = tuple[np.ndarray, np.ndarray]
Lines = Mapping[str, ArrayLike]

BOOK_STYLE = matplotlib.rc_params_from_file(
    Path(__file__).with_name("book.mplstyle"), use_default_template=False
)
# for artists that share one look; each is a dict of colour, stroke and marker
LINE_LOOKS = list(BOOK_STYLE["axes.prop_cycle"])
BLUE, RED, GREEN, PINK, ORANGE, BLACK, SKY = (look["color"] for look in LINE_LOOKS)
# a range that a paper reports
REPORTED = {"color": SKY, "alpha": 0.3, "lw": 0, "hatch": "//"}


def panel_canvas(
    columns: int = 1,
    rows: int = 1,
    width: float = 7.8,
    height: float = 3.8,
    onto: Figure | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure in the book's style, inches wide and high, and its axes, row by row.

    It is closed at once, so that a notebook shows it where it is returned and nowhere else. `onto`
    is an earlier figure to wipe and draw on again: its axes and ticks are there already, which an
    explorer cannot wait for.
    """
    if onto is not None:
        for ax in onto.axes:
            _wipe(ax)
        return onto, onto.axes
    with plt.rc_context(BOOK_STYLE):
        figure, grid = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    plt.close(figure)
    return figure, list(grid.flat)


def canvas(
    width: float = 6.6, height: float = 3.8, onto: Figure | None = None
) -> tuple[Figure, Axes]:
    """A figure with one panel, as `panel_canvas` makes it."""
    figure, (ax,) = panel_canvas(width=width, height=height, onto=onto)
    return figure, ax


def _wipe(ax: Axes) -> None:
    for artist in [*ax.lines, *ax.collections, *ax.patches, *ax.texts]:
        artist.remove()
    ax.set_prop_cycle(BOOK_STYLE["axes.prop_cycle"])
    ax.relim()
    ax.autoscale()


def named_lines(ax: Axes, x: ArrayLike, lines: Lines, **look) -> None:
    """A line over x (P,) for each name -> values (P,) or a constant, in the next look of the
    cycle; `look` replaces part of it."""
    look = {"ms": 4, **look}
    for name, values in lines.items():
        ax.plot(x, np.broadcast_to(values, np.shape(x)), label=name, **look)


def name_ticks(axis: Axis, places: Iterable[float], form: str = "{:g}") -> None:
    """Ticks at these places and no others, named by a format of their value."""
    axis.set_ticks(list(places), [form.format(place) for place in places])
    axis.set_ticks([], minor=True)


def legend_below(figure: Figure, columns: int, handles: Sequence | None = None, **look) -> None:
    """A legend under all panels, unless the figure is drawn on again and has it; of the first
    panel's artists where no `handles` are given."""
    if figure.legends:
        return
    if handles is None:
        handles, _ = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, **look)


def pointer(ax: Axes, x: float, y: float, levels: Sequence[float]) -> list[Artist]:
    """A ring at (x, y) and a thin line from it through the levels, each with a tick: what a slider
    moves."""
    ends = [min(y, *levels), max(y, *levels)]
    (line,) = ax.plot([x, x], ends, "-", color=PINK, lw=1.4)
    (ticks,) = ax.plot([x] * len(levels), levels, "_", color=PINK, ms=14, mew=2)
    (ring,) = ax.plot(x, y, "o", color=PINK, ms=13, mfc="none", mew=2.6)
    return [line, ticks, ring]
