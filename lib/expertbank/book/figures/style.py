"""The book's style, and what its figures have in common.

`book.mplstyle` holds the look. Its property cycle gives a line without a format the next colour,
stroke and marker. A line with a format and a colour of its own leaves the cycle where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from expertbank.book.figures.vector import BookFigure

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
) -> tuple[BookFigure, list[Axes]]:
    """A figure in the book's style, inches wide and high, and its axes, row by row.

    A notebook shows it where it is returned and nowhere else.
    """
    with matplotlib.rc_context(BOOK_STYLE):
        figure = BookFigure(figsize=(width, height))
        grid = figure.subplots(rows, columns, squeeze=False)
    return figure, list(grid.flat)


def canvas(width: float = 6.6, height: float = 3.8) -> tuple[BookFigure, Axes]:
    """A figure with one panel, as `panel_canvas` makes it."""
    figure, (ax,) = panel_canvas(width=width, height=height)
    return figure, ax


def named_lines(ax: Axes, x: ArrayLike, lines: Lines, **look) -> None:
    """A line over x (P,) for each name -> values (P,) or a constant, in the next look of the
    cycle; `look` replaces part of it."""
    look = {"ms": 4, **look}
    for name, values in lines.items():
        ax.plot(x, np.broadcast_to(values, np.shape(x)), label=name, **look)


def draw_tiles(
    figure: Figure, axes: Sequence[Axes], tables: Sequence[np.ndarray], cmap: str, label: str
) -> None:
    """Tables (A, B) as tiles centred on whole numbers, first row on top, a panel each and one bar
    of colours: rectangles, since a bitmap would not print sharp."""
    look = {"cmap": cmap, "vmin": 0, "vmax": max(table.max() for table in tables)}
    for ax, table in zip(axes, tables):
        rows, columns = table.shape
        x = np.arange(columns + 1) - 0.5
        y = np.arange(rows + 1) - 0.5
        ax.pcolormesh(x, y, table, **look)
        ax.invert_yaxis()
        ax.grid(False)
    bar = figure.colorbar(cast(QuadMesh, axes[0].collections[0]), ax=axes, label=label, shrink=0.8)
    cast(QuadMesh, bar.solids).set_rasterized(False)


def name_ticks(axis: Axis, places: Iterable[float], form: str = "{:g}") -> None:
    """Ticks at these places and no others, named by a format of their value."""
    axis.set_ticks(list(places), [form.format(place) for place in places])
    axis.set_ticks([], minor=True)


def legend_below(figure: Figure, columns: int, handles: Sequence | None = None, **look) -> None:
    """A legend under all panels; of the first panel's artists where no `handles` are given."""
    if handles is None:
        handles, _ = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, **look)
