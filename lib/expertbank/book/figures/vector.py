"""Figures as SVG that a page can theme, in two forms: for a desk and for a phone.

A `BookFigure` shows itself as SVG. Its letters are text and its colours are CSS variables with the
book's own colours to fall back on, so that a dark page needs no second picture. The narrow form,
its panels in one column, travels in the metadata of the wide one.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import Formatter, LogFormatterMathtext, MaxNLocator
from matplotlib.transforms import ScaledTranslation

from expertbank.book.palette import LIGHT

BOOK_STYLE = matplotlib.rc_params_from_file(
    Path(__file__).with_name("book.mplstyle"), use_default_template=False
)
NARROW_WIDTH = 3.6  # inches: the text of a phone, 390 pixels wide less its margins
NARROW_LETTERS = 8.6  # points: 11.5 pixels
DESK_WIDTH = 670  # pixels that a page at a desk gives a figure
LEAST_LETTERS = 11  # pixels
LABEL_LENGTH = 38  # letters of a label that fit beside each other on a phone
# what the palette calls a colour; black is what Matplotlib writes in
NAMED = {colour: name for name, colour in LIGHT.items()} | {"#000000": "ink"}
SVG_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "expertbank",
    "mathtext.fontset": "dejavusans",
    "font.family": "DejaVu Sans",
}


class BookFigure(Figure):
    """A figure of the book; a notebook shows it as SVG.

    `narrow_form` is what a phone shows where another layout of the same panels does not do.
    """

    narrow_form: Figure | None = None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"image/svg+xml": both_forms(self)}


def panels_of(
    looks: Sequence[Mapping[str, str]], columns: int, rows: int, size: tuple[float, float]
) -> tuple[BookFigure, list[Axes]]:
    """A figure in the book's style, its lines in these looks by turns, and its axes, row by row."""
    cycle = cycler(**{name: [look[name] for look in looks] for name in looks[0]})
    with matplotlib.rc_context({**BOOK_STYLE, "axes.prop_cycle": cycle}):
        figure = BookFigure(figsize=size)
        grid = figure.subplots(rows, columns, squeeze=False)
    return figure, list(grid.flat)


def both_forms(figure: Figure) -> str:
    """The wide form as SVG, which holds the narrow one, escaped, in its metadata."""
    _write_powers(figure)
    _raise_letters(figure)
    wide = themed_svg(figure, "wide")
    narrow = themed_svg(narrowed(figure), "narrow")
    _refuse_small(wide, _pixels(figure))
    _refuse_small(narrow, 4 / 3)
    return wide.replace("</svg>", f"<metadata>{html.escape(narrow)}</metadata></svg>")


class PlainPowers(Formatter):
    """The numbers of a logarithmic axis as `inner` has them, powers as text: 10⁻³.

    A formula would set exponents too small to read, and in places that other fonts do not fit.
    """

    def __init__(self, inner: Formatter) -> None:
        self.inner = inner

    def set_axis(self, axis: Any) -> None:
        super().set_axis(axis)
        self.inner.set_axis(axis)

    def set_locs(self, locs: Any) -> None:
        self.inner.set_locs(locs)

    def __call__(self, x: float, pos: int | None = None) -> str:
        return plain_power(self.inner(x, pos))


def plain_power(formula: str) -> str:
    """A number in Matplotlib's formula as text.

    >>> plain_power(r"$\\mathdefault{2\\times10^{-3}}$")
    '2×10⁻³'
    """
    text = formula.replace(r"\mathdefault", "").replace(r"\times", "×").replace("$", "")
    raised = str.maketrans("-−0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    text = re.sub(r"\^\{([^}]*)\}", lambda power: power[1].translate(raised), text)
    return text.strip("{}")


def _write_powers(figure: Figure) -> None:
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter(PlainPowers(axis.get_major_formatter()))
            if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
                axis.set_minor_formatter(PlainPowers(axis.get_minor_formatter()))


def _pixels(figure: Figure) -> float:
    """Pixels of a point where the page shows the wide form."""
    return min(4 / 3, DESK_WIDTH / (72 * figure.get_figwidth()))


def _raise_letters(figure: Figure) -> None:
    """No letters too small to read where the page shows the wide form smaller than it is."""
    least = LEAST_LETTERS / _pixels(figure)
    for found in figure.findobj(Text):
        text = cast(Text, found)
        text.set_fontsize(max(text.get_fontsize(), least))
        if r"\sqrt" in text.get_text():
            # in another font than ours the bar leaves its sign
            raise ValueError(f"{text.get_text()!r} has a root with a bar; write √(...) as text")


def _refuse_small(svg: str, pixels: float) -> None:
    """Raise ValueError for a letter too small to read, as an index of a formula is."""
    for style, letters in re.findall(r'<t(?:ext|span)\b[^>]*style="([^"]*)"[^>]*>([^<]+)<', svg):
        size = re.search(r"font(?:-size)?: (?:[a-z]+ )*([\d.]+)px", style)
        if size is not None and letters.strip() and float(size[1]) * pixels < LEAST_LETTERS - 0.05:
            raise ValueError(
                f"{html.unescape(letters)!r} in a figure has {float(size[1]) * pixels:.1f} pixels; "
                f"at least {LEAST_LETTERS} are allowed: write an index or a power as text"
            )


def themed_svg(figure: Figure, form: str) -> str:
    """The figure as one `svg` element of class `form`, colours by variable, ids of its own."""
    buffer = io.StringIO()
    with matplotlib.rc_context(cast(Any, SVG_STYLE)):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<[^>]*>", lambda tag: _plain_tag(tag[0]), text)
    text = _own_ids(text, form)
    width, height = 72 * figure.get_size_inches()
    head = (
        f'<svg class="{form}" viewBox="0 0 {width:g} {height:g}" width="{4 * width / 3:.0f}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'style="fill: var(--book-ink, #000000); background: var(--book-ground, #ffffff)">'
    )
    return head + text[text.index(">") + 1 :].strip()


def _plain_tag(tag: str) -> str:
    """A tag with short coordinates and colours by variable; what is printed between tags stays."""
    tag = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag)
    tag = re.sub(r'\b(fill|stroke)="(#[0-9a-f]{6})"', r'style="\1: \2"', tag)
    return re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda colour: _variable(colour[0]), tag)


def _variable(colour: str) -> str:
    """A colour of the style, black, white or a grey as a variable; others as they are."""
    name = NAMED.get(colour)
    if name is None and colour[1:3] == colour[3:5] == colour[5:]:
        name = "light" if int(colour[1:3], 16) > 0xA0 else "grey"
    if name is None:
        return colour
    return f"var(--book-{name}, {colour})"


def _own_ids(text: str, form: str) -> str:
    """Only ids that something refers to, each with a prefix that no other drawing has."""
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    prefix = hashlib.sha256((form + text).encode()).hexdigest()[:8]

    def own(found: re.Match) -> str:
        return f' id="{prefix}-{found[1]}"' if found[1] in used else ""

    text = re.sub(r' id="([^"]+)"', own, text)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}-", text)


def narrowed(figure: Figure) -> Figure:
    """A copy laid out for a phone: one column, few ticks, letters of one size, legends below."""
    own = getattr(figure, "narrow_form", None)
    if own is not None:
        return own
    copy = deepcopy(figure)
    panels = [ax for ax in copy.axes if not hasattr(ax, "_colorbar")]
    rows = len({spec.rowspan.start for ax in panels if (spec := ax.get_subplotspec())})
    heights = [_narrow_height(ax, copy.get_figheight() / max(rows, 1)) for ax in panels]
    if len(panels) < len(copy.axes):  # panels that share a bar of colours keep their places
        heights = [copy.get_figheight()]
    else:
        _repeat_labels(panels)
        grid = GridSpec(len(panels), 1, figure=copy, height_ratios=heights)
        for place, ax in enumerate(panels):
            ax.set_subplotspec(grid[place])
    for ax in panels:
        _simplify(ax)
    for found in copy.findobj(Text):
        text = cast(Text, found)
        text.set_fontsize(min(max(text.get_fontsize(), NARROW_LETTERS), 9.5))
    entries = _move_legends(copy, [ax for ax in panels if ax.axison])
    copy.set_size_inches(NARROW_WIDTH, sum(heights) + 0.19 * entries)
    return copy


def _repeat_labels(panels: list[Axes]) -> None:
    """Labels and ticks for panels that leave them to a neighbour: below each other they cannot."""
    for ax in panels:
        place = ax.get_subplotspec()
        if place is None or not ax.axison:
            continue
        for other in panels:
            spot = other.get_subplotspec()
            if spot is None:
                continue
            if not ax.get_ylabel() and spot.rowspan.start == place.rowspan.start:
                ax.set_ylabel(other.get_ylabel())
            if not ax.get_xlabel() and spot.colspan.start == place.colspan.start:
                ax.set_xlabel(other.get_xlabel())
        ax.tick_params(labelleft=True, labelbottom=True)


def _narrow_height(ax: Axes, height: float) -> float:
    """Inches of a panel: as high as it was within limits, or as its rows or entries need."""
    if not ax.axison and ax.get_legend() is not None:
        return 0.2 * len(cast(Legend, ax.get_legend()).get_texts()) + 0.2
    named = [text for text in ax.get_yticklabels() if text.get_text().strip(" −.0123456789")]
    return max(2.5, min(height, 3.4), 0.24 * len(named) + 0.8)


def _simplify(ax: Axes) -> None:
    """Titles and labels in lines that fit, and no more ticks than do."""
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        if "\n" not in text.get_text():
            text.set_text("\n".join(textwrap.wrap(text.get_text(), LABEL_LENGTH)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_tick_params(labelsize=NARROW_LETTERS)
    if isinstance(ax.xaxis.get_major_locator(), MaxNLocator):
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5))


def _move_legends(figure: Figure, panels: list[Axes]) -> int:
    """Put every legend in one column below what it belongs to; how many entries there are."""
    entries = 0
    for legend in list(figure.legends):
        figure.legend(**_entries(legend), loc="outside lower center", ncols=1)
        figure.legends.remove(legend)  # a copy's own remove() is still the first figure's
        entries += len(legend.get_texts())
    for ax in panels:
        legend = ax.get_legend()
        if legend is not None:
            lines = 1 + ax.get_xlabel().count("\n")
            # inches below the axes, whatever their height becomes: room for ticks and label
            below = ScaledTranslation(0, -0.28 - 0.17 * lines, figure.dpi_scale_trans)
            place = {"bbox_to_anchor": (0.5, 0), "bbox_transform": ax.transAxes + below}
            ax.legend(**_entries(legend), loc="upper center", borderaxespad=0, **place)
            entries += len(legend.get_texts())
    return entries


def _entries(legend: Legend) -> dict[str, Any]:
    labels = [text.get_text() for text in legend.get_texts()]
    return {"handles": legend.legend_handles, "labels": labels, "fontsize": NARROW_LETTERS}
