"""The book's style, and what its figures have in common.

`book.mplstyle` holds the look; `vector` makes figures of it, or `sketch` where Matplotlib is not.
The property cycle gives a line without a format the next colour,
stroke and marker. A line with a format and a colour of its own leaves the cycle where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from expertbank.book.palette import CYCLE, LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

    from expertbank.book.figures.vector import BookFigure

# two arrays over one axis, and lines by name
Pair = tuple[np.ndarray, np.ndarray]
Lines = Mapping[str, ArrayLike]

# colours are told apart by lightness in print too; a line differs from the next in its stroke and
# its marker as well
BLUE, RED, GREEN, PINK, ORANGE, BLACK, SKY = CYCLE
STROKES = ("-", "--", "-.", ":", "-", "--", "-.")
# for artists that share one look; each is a dict of colour, stroke and marker
LINE_LOOKS: list[Any] = [
    {"color": color, "linestyle": stroke, "marker": marker}
    for color, stroke, marker in zip(CYCLE, STROKES, "os^DvP*")
]
WITH_MATPLOTLIB = find_spec("matplotlib") is not None
# straight ones, between two points of a smooth curve: more cannot be seen, and weigh
PIECES = 6
GREY = LIGHT["grey"]
PALE = LIGHT["light"]


def panel_canvas(
    columns: int = 1,
    rows: int = 1,
    width: float = 7.8,
    height: float = 3.8,
) -> tuple[BookFigure, list[Axes]]:
    """A figure in the book's style, inches wide and high, and its axes, row by row.

    A notebook shows it where it is returned and nowhere else. Without Matplotlib, as in a page, it
    is a sketch.
    """
    if not WITH_MATPLOTLIB:
        from expertbank.book.figures.sketch import SketchedFigure

        sketched: Any = SketchedFigure(columns * rows)
        return sketched, sketched.axes
    from expertbank.book.figures.vector import panels_of

    return panels_of(LINE_LOOKS, columns, rows, (width, height))


def sample(label: str, color: str, **look: Any) -> Any:
    """A line of a legend that stands for no line of the panels."""
    if not WITH_MATPLOTLIB:
        from expertbank.book.figures.sketch import Line

        return Line(label, CYCLE.index(color))
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, color=color, **look)


def canvas(width: float = 6.6, height: float = 3.8) -> tuple[BookFigure, Axes]:
    """A figure with one panel, as `panel_canvas` makes it."""
    figure, (ax,) = panel_canvas(width=width, height=height)
    return figure, ax


def named_lines(ax: Axes, x: ArrayLike, lines: Lines, curved: str | None = None, **look) -> None:
    """A line over x (P,) for each name -> values (P,) or a constant, in the next look of the
    cycle; `look` replaces part of it.

    Where `curved` is given it is a smooth curve, as `smooth_line` draws it.
    """
    look = {"ms": 4, **look}
    for name, values in lines.items():
        if curved is None:
            ax.plot(x, np.broadcast_to(values, np.shape(x)), label=name, **look)
        else:
            smooth_line(ax, x, values, curved, label=name, **look)


def smooth_curve(
    x: ArrayLike, y: ArrayLike, logarithmic: str = "", parts: int = PIECES
) -> tuple[np.ndarray, np.ndarray]:
    """A smooth curve through P points, in their order, as `parts` pieces between two of them.

    Both coordinates are monotone cubics of the place in the order, so that the curve does not
    overshoot, and points on a straight line give a straight line. `logarithmic` names axes, "x",
    "y" or "xy", on whose logarithm the cubics are taken.

    >>> x, y = smooth_curve([0, 1, 4], [0, 2, 8], parts=2)
    >>> bool(np.allclose(y, 2 * x)), x[::2].tolist()
    (True, [0.0, 1.0, 4.0])
    """
    points = np.array([x, np.broadcast_to(y, np.shape(x))], dtype=float)
    n_points = points.shape[1]
    if n_points < 3:
        return points[0], points[1]
    rows = ["xy".index(name) for name in logarithmic]
    points[rows] = np.log(points[rows])
    fine = np.linspace(0, n_points - 1, parts * (n_points - 1) + 1)
    curve = PchipInterpolator(np.arange(n_points), points, axis=1)(fine)
    curve[rows] = np.exp(curve[rows])
    return curve[0], curve[1]


def smooth_line(
    ax: Axes, x: ArrayLike, y: ArrayLike, logarithmic: str = "", style: str = "", **look
) -> None:
    """A smooth curve through points (P,), with markers at the points."""
    curve = smooth_curve(x, y, logarithmic)
    every = PIECES if len(curve[0]) > np.size(x) else 1
    # an empty format would say a second time what `look` says
    formats = [style] if style else []
    ax.plot(*curve, *formats, markevery=every, **look)


def smooth_band(
    ax: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, logarithmic: str = "", **look
) -> None:
    """What lies between two smooth curves over x (P,); `logarithmic` is "x" or nothing."""
    places, bottom = smooth_curve(x, low, logarithmic)
    _, top = smooth_curve(x, high, logarithmic)
    ax.fill_between(places, bottom, top, **look)


def hatched(draw: Callable, *place: Any, color: str, label: str | None = None) -> None:
    """A shade with lines over it, which stay to be seen where the shade is faint; `draw` is a
    method of axes that fills the `place`."""
    draw(*place, color=color, alpha=0.25, lw=0)
    draw(*place, fc="none", ec=color, hatch="//", lw=0, label=label)


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
    bar = figure.colorbar(
        cast("QuadMesh", axes[0].collections[0]), ax=axes, label=label, shrink=0.8
    )
    cast("QuadMesh", bar.solids).set_rasterized(False)


def name_ticks(axis: Axis, places: Iterable[float], form: str = "{:g}") -> None:
    """Ticks at these places and no others, named by a format of their value."""
    axis.set_ticks(list(places), [form.format(place) for place in places])
    axis.set_ticks([], minor=True)


def legend_below(figure: Figure, columns: int, handles: Sequence | None = None, **look) -> None:
    """A legend under all panels; of the first panel's artists where no `handles` are given."""
    if handles is None:
        handles, _ = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, **look)
