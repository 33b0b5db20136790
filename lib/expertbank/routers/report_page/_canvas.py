"""What all drawings of the report share: one look, and SVG that is part of a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from expertbank.routers.report import RoutingReport

if TYPE_CHECKING:
    from markupsafe import Markup

# of Okabe & Ito's colours those that stand out on white and on black; the ink becomes the colour
# of the page's text
BAR_COLOUR = "#0072B2"
INK = "#010203"
# marker, line style and colour of the first line, the second, ...
MARKED_LINES = (
    ("o", "-", BAR_COLOUR),
    ("s", "--", "#D55E00"),
    ("^", "-.", "#009E73"),
    ("D", ":", "#CC79A7"),
    ("", (0, (5, 3)), INK),
)
_STYLE = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "font.size": 11,  # on a phone as many pixels
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "routing",  # the same ids in every run
}
MOST_MARKS = 12  # markers of a line, and ticks of an axis


@dataclass(frozen=True)
class Drawing:
    """A figure for a page: an SVG element and its caption."""

    svg: Markup
    caption: str


# what a function draws: SVG as matplotlib writes it, and its caption; None for nothing
Figure = tuple[str, str] | None


def as_drawing(figure: tuple[str, str], own: str) -> Drawing:
    """A figure as a part of a page, where ids begin with the name that is its own."""
    import markupsafe

    svg, caption = figure
    return Drawing(markupsafe.Markup(inline_svg(svg, own, caption)), caption)


def inline_svg(svg: str, group: str, caption: str) -> str:
    """An SVG as matplotlib wrote it, made part of a page: own ids, no namespaces, the page's
    ink."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href").replace(INK, "currentColor")
    own = re.sub(r"\W", "", group).lower()
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}-", svg)
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(caption)}">{body}'


def panels_svg(draw: Callable[[Any], None], height: float, n_panels: int = 1) -> str:
    """What `draw(axes)` draws on one axes, or on a list of several below one another, as SVG text.
    No pyplot: a report leaves no figure and no setting behind."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = _STYLE
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.8, height))
        draw(figure.subplots(n_panels))
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def draw_lines(axes: Any, report: RoutingReport, lines: dict[str, np.ndarray], unit: str) -> None:
    """Lines by layer, with a legend above."""
    every = max(1, len(report.layers) // MOST_MARKS)
    for (legend, line), (marker, style, color) in zip(lines.items(), MARKED_LINES):
        axes.plot(
            line,
            marker=marker,
            ls=style,
            color=color,
            ms=5,
            lw=1.4,
            markevery=every,
            label=legend,
        )
    name_layers(axes.xaxis, report)
    values = np.array(list(lines.values()))
    bottom = min(0, 1.08 * np.nanmin(values))
    top = 1.08 * np.nanmax(values)
    axes.set(ylabel=unit, ylim=(bottom, top if top else 1))
    axes.figure.legend(loc="outside upper left", ncols=2, fontsize=11)


def name_layers(axis: Any, report: RoutingReport) -> None:
    """Ticks at a few layers, by number; names are long and stand in the table."""
    n = len(report.layers)
    step = max(1, -(-n // MOST_MARKS))
    numbered = all(isinstance(layer.layer, int) for layer in report.layers)
    places = range(0, n, step)
    axis.set_ticks(places, [report.layers[i].name if numbered else str(i + 1) for i in places])
    axis.set_label_text("layer" if numbered else "layer, in the order of the table")
