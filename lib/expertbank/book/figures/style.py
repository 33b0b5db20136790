"""The book's style: colours, looks, canvases."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

# Okabe & Ito's colours: told apart with any colour vision, and by lightness in print
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
}


def canvas(
    columns: int = 1, width=None, height: float = 3.4, onto: Figure | None = None, *, rows: int = 1
):
    """A figure in the book's style with axes in rows and columns: (figure, axes), one Axes or a
    flat array of them.

    It is closed at once, so that a notebook shows it where it is returned and nowhere else. `onto`
    is an earlier figure to wipe and draw on again: its axes and ticks are there already, which an
    explorer cannot wait for.
    """
    if onto is not None:
        for axes in onto.axes:
            for artist in [*axes.lines, *axes.collections, *axes.patches, *axes.texts]:
                artist.remove()
            axes.relim()
            axes.autoscale()
        return onto, onto.axes[0] if columns == 1 else np.array(onto.axes)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(width or min(4.2 * columns + 1.6, 9.5), height)
        )
    plt.close(figure)
    return figure, np.ravel(axes) if rows > 1 else axes


def legend_below(figure: Figure, columns: int, **entries) -> None:
    """A legend under the axes, unless the figure is drawn on again and has it."""
    if not figure.legends:
        figure.legend(loc="outside lower center", ncols=columns, **entries)


def pointer(axes, x: float, y: float, levels) -> list[Artist]:
    """A ring at (x, y) and a thin line from it through the levels, each with a tick: what a slider
    moves."""
    ends = [min(y, *levels), max(y, *levels)]
    (line,) = axes.plot([x, x], ends, color=PINK, lw=1.4)
    (ticks,) = axes.plot([x] * len(levels), levels, "_", color=PINK, ms=14, mew=2)
    (ring,) = axes.plot(x, y, "o", ms=13, mfc="none", mec=PINK, mew=2.6)
    return [line, ticks, ring]
