"""Figures where Matplotlib is not: in a page. What a figure function plots becomes a `Scene`, which
the page draws with the module that draws the explorers.

A sketch has the lines, points, bands, bars, error bars, axes and names of the figure, and none of
its notes. What a scene cannot hold, such as tiles or stacked bars, is refused: a page then says
that the picture is the book's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from expertbank.book.explorers.scene import Axis, Mark, Panel, Scene, Series
from expertbank.book.palette import CYCLE, LIGHT

DRAWN_THROUGH = ("--", "-.", "-", ":")
# what only arranges or annotates
UNDRAWN = {"legend", "grid", "tick_params", "annotate", "margins", "bar_label"}


class NotSketched(Exception):
    """A figure holds what a scene cannot."""


def plain(label: str) -> str:
    r"""A label without Matplotlib's formulas.

    >>> plain(r"inverse temperature $\beta$, $p^{*}$")
    'inverse temperature β, p^*'
    """

    def letter(found: re.Match) -> str:
        name = found[1]
        kind = "SMALL" if name.islower() else "CAPITAL"
        try:
            return unicodedata.lookup(f"GREEK {kind} LETTER {name.upper()}")
        except KeyError:
            return "" if name in ("mathrm", "mathbf", "rm") else name

    return re.sub(r"[{}$]", "", re.sub(r"\\([A-Za-z]+) ?", letter, str(label)))


def name_of(look: dict[str, Any]) -> str:
    """The name of what is drawn in a look, empty where it has none."""
    label = look.get("label")
    return "" if label is None else str(label)


@dataclass
class Line:
    """What stands for a line in a legend; `rename` changes its name."""

    label: str
    look: int
    rename: Callable[[str], None] | None = None

    def set_label(self, label: str) -> None:
        if self.rename is not None:
            self.rename(label)


@dataclass
class Ruler:
    """One axis of a panel while it is drawn."""

    label: str = ""
    scale: str = "linear"
    seen: list[np.ndarray] = field(default_factory=list)
    limits: tuple = (None, None)
    names: tuple[str, ...] = ()
    upside_down: bool = False

    def see(self, values: Any) -> None:
        self.seen.append(np.atleast_1d(np.asarray(values, dtype=float)))

    def place(self, values: Any) -> np.ndarray:
        """Values as numbers: names of categories are counted."""
        found = np.atleast_1d(np.asarray(values))
        if found.dtype.kind in "US":
            self.names = tuple(dict.fromkeys([*self.names, *map(str, found)]))
            found = np.array([self.names.index(str(name)) for name in found])
        return found.astype(float)

    def ends(self) -> tuple[float, float]:
        """Where the axis begins and ends."""
        values = np.concatenate([np.ravel(x) for x in self.seen]) if self.seen else np.array([0, 1])
        values = values[np.isfinite(values) & ((values > 0) | (self.scale == "linear"))]
        values = np.log(values) if self.scale == "log" else values
        low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
        margin = 0.05 * (high - low) if high > low else 0.05
        found = [low - margin, high + margin]
        if self.scale == "log":
            found = [float(np.exp(end)) for end in found]
        first, last = (
            known if known is not None else own for known, own in zip(self.limits, found)
        )
        return float(min(first, last)), float(max(first, last))

    def axis(self) -> Axis:
        if self.names:
            high = len(self.names) - 0.5
            return Axis(plain(self.label), -0.5, high, categories=tuple(map(plain, self.names)))
        low, high = self.ends()
        return Axis(plain(self.label), low, high, "log" if self.scale == "log" else "linear")


class SketchedAxes:
    """Takes what figure functions tell axes of Matplotlib, and keeps it for a panel."""

    def __init__(self, figure: SketchedFigure) -> None:
        self.figure = figure
        self.x = Ruler()
        self.y = Ruler()
        self.series: list[Series] = []
        self.marks: list[Mark] = []
        # what reaches from one end of an axis to the other, which is known when all is drawn
        self.spans: list[Callable[[], None]] = []
        self.title = ""
        self.next_look = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in UNDRAWN:
            return self.figure.named_by
        raise NotSketched(name)

    # --- what is drawn ---

    def plot(self, *given: Any, **look: Any) -> list[Line]:
        """Lines or points; columns (P, L) are L of them."""
        style = given[-1] if isinstance(given[-1], str) else ""
        places = [np.asarray(one) for one in given if not isinstance(one, str)]
        x, y = places if len(places) == 2 else (np.arange(len(places[0])), places[0])
        stroke = look.get("ls", look.get("linestyle", self._stroke(style)))
        kind = "line" if stroke in DRAWN_THROUGH or (not style and stroke is None) else "dots"
        number = self._look(style, look)
        x = self.x.place(x)
        columns = [self.y.place(column) for column in (y.T if y.ndim == 2 else [y])]
        label = name_of(look)
        first = len(self.series)
        for column in columns:
            self._add(label, np.broadcast_to(x, column.shape), column, kind, number)
        return [Line(label, number, partial(self._rename, first))]

    def _rename(self, place: int, label: str) -> None:
        self.series[place] = replace(self.series[place], name=plain(label))

    def semilogx(self, *given: Any, **look: Any) -> list[Line]:
        self.x.scale = "log"
        return self.plot(*given, **look)

    def semilogy(self, *given: Any, **look: Any) -> list[Line]:
        self.y.scale = "log"
        return self.plot(*given, **look)

    def loglog(self, *given: Any, **look: Any) -> list[Line]:
        self.x.scale = "log"
        return self.semilogy(*given, **look)

    def fill_between(self, x: Any, low: Any, high: Any = 0, **look: Any) -> None:
        if "transform" in look:  # from the bottom to the top of the panel
            own = {name: value for name, value in look.items() if name != "transform"}
            self.spans.append(lambda: self.fill_between(x, *self.y.ends(), **own))
            return
        x, low, high = np.broadcast_arrays(self.x.place(x), low, high)
        where = np.broadcast_to(look.get("where", True), x.shape)
        bottom, top = (np.where(where, side, np.nan) for side in (low, high))
        self._add(name_of(look), x, bottom, "band", self._look("", look), top)

    def axhspan(self, low: float, high: float, **look: Any) -> None:
        self.y.see([low, high])
        self.spans.append(lambda: self.fill_between(self.x.ends(), low, high, **look))

    def axvspan(self, low: float, high: float, **look: Any) -> None:
        self.x.see([low, high])
        self.spans.append(lambda: self.fill_between([low, high], *self.y.ends(), **look))

    def axhline(self, y: float = 0, **look: Any) -> None:
        self.y.see(y)
        name = plain(name_of(look))
        self.marks.append(Mark(name, 0, float(y), "rule", self._look("", look)))

    def axvline(self, x: float = 0, **look: Any) -> None:
        self.x.see(x)
        name = plain(name_of(look))
        self.marks.append(Mark(name, float(x), 0, "post", self._look("", look)))

    def errorbar(self, x: Any, y: Any, yerr: Any = None, xerr: Any = None, **look: Any) -> None:
        """Points, and a line through each over its error."""
        style = look.pop("fmt", "")
        look = {"color": look.get("ecolor", CYCLE[self._look(style, look)])} | look
        x = self.x.place(x)
        y = self.y.place(y)
        if style != "none":
            self.plot(x, y, *([style] if style else []), **look)
        for error, across in ((yerr, False), (xerr, True)):
            if error is not None:
                error = np.broadcast_to(error, (2, len(x)))
                ends = (x - error[0], x + error[1]) if across else (y - error[0], y + error[1])
                bar = np.stack([*ends, np.full(len(x), np.nan)], axis=1).ravel()
                still = np.repeat(y if across else x, 3)
                places = (bar, still) if across else (still, bar)
                self._add("", *places, "line", self._look("", look))

    def bar(self, x: Any, height: Any, width: Any = 0.8, bottom: Any = None, **look: Any) -> None:
        self._refuse_stacked(bottom)
        self.y.see(0)
        self._add(name_of(look), self.x.place(x), height, "bars", self._look("", look))

    def barh(self, y: Any, width: Any, height: Any = 0.8, left: Any = None, **look: Any) -> None:
        self._refuse_stacked(left)
        self.x.see(0)
        self._add(name_of(look), width, self.y.place(y), "bars", self._look("", look))

    def hist(self, values: Any, bins: int = 10, **look: Any) -> None:
        counts, edges = np.histogram(values, bins)
        self.bar((edges[:-1] + edges[1:]) / 2, counts, **look)

    def text(self, x: float, y: float, text: str, bbox: Any = None, **look: Any) -> None:
        """A note, which is left out; boxes with text are a drawing of their own."""
        if bbox is not None:
            raise NotSketched("boxes")

    # --- axes ---

    def set(self, **what: Any) -> None:
        for name, value in what.items():
            getattr(self, f"set_{name}")(value)

    def set_title(self, text: str, **look: Any) -> None:
        self.title = plain(text)

    def set_xlabel(self, text: str, **look: Any) -> None:
        self.x.label = text

    def set_ylabel(self, text: str, **look: Any) -> None:
        self.y.label = text

    def set_xlim(self, low: Any = None, high: Any = None) -> None:
        self.x.limits = tuple(low) if np.ndim(low) else (low, high)

    def set_ylim(self, low: Any = None, high: Any = None) -> None:
        self.y.limits = tuple(low) if np.ndim(low) else (low, high)

    def get_ylim(self) -> tuple[float, float]:
        return self.y.ends()

    def set_xscale(self, scale: str, **options: Any) -> None:
        self.x.scale = _known_scale(scale)

    def set_yscale(self, scale: str, **options: Any) -> None:
        self.y.scale = _known_scale(scale)

    def set_xticks(self, places: Iterable, names: Iterable = (), **look: Any) -> None:
        _name_categories(self.x, places, names)

    def set_yticks(self, places: Iterable, names: Iterable = (), **look: Any) -> None:
        _name_categories(self.y, places, names)

    def invert_yaxis(self) -> None:
        self.y.upside_down = True

    def axis(self, what: str) -> None:
        """Only "off": a corner that holds a legend."""

    def get_xaxis_transform(self) -> str:
        return "bottom to top"

    def get_legend_handles_labels(self) -> tuple[list, list]:
        return [], []

    # --- what comes of it ---

    def panel(self) -> Panel:
        self.x.limits = self.x.ends()
        self.y.limits = self.y.ends()
        for fill in self.spans:
            fill()
        self.spans = []
        series = self.series
        if self.y.names and not self.y.upside_down:  # a scene counts names from the top
            last = len(self.y.names) - 1
            series = [replace(one, y=last - np.asarray(one.y)) for one in series]
            self.y.names = self.y.names[::-1]
            self.y.upside_down = True
        return Panel(self.x.axis(), self.y.axis(), series, self.marks, title=self.title)

    def _add(self, name: str, x: Any, y: Any, kind: Any, look: int, top: Any = None) -> None:
        self.x.see(x)
        self.y.see(y if top is None else [*np.ravel(y), *np.ravel(top)])
        name = plain(name)
        self.series.append(
            Series(name, np.asarray(x, float), np.asarray(y, float), kind, look, top)
        )

    def _look(self, style: str, look: dict) -> int:
        """Which of the book's colours is meant; the next one where none is said."""
        colour = look.get("color", look.get("fc", look.get("ec")))
        colour = colour[0] if isinstance(colour, list) else colour
        if colour in CYCLE:
            return CYCLE.index(colour)
        if colour is not None:
            return CYCLE.index(LIGHT["ink"])
        self.next_look += 1
        return (self.next_look - 1) % len(CYCLE)

    def _stroke(self, style: str) -> str | None:
        return next((stroke for stroke in DRAWN_THROUGH if stroke in style), None)

    def _refuse_stacked(self, foot: Any) -> None:
        if foot is not None and np.any(np.asarray(foot, dtype=float) != 0):
            raise NotSketched("stacked bars")


def _known_scale(scale: str) -> str:
    if scale not in ("linear", "log"):
        raise NotSketched(f"a {scale} axis")
    return scale


def _name_categories(ruler: Ruler, places: Iterable, names: Iterable) -> None:
    """Take names of ticks at 0, 1, 2, ... for categories; other ticks are the page's."""
    named = [str(name) for name in names]
    if named and np.array_equal(list(places), np.arange(len(named))):
        ruler.names = tuple(named)


class SketchedFigure:
    """Some panels; a page shows the scene of those that hold something."""

    def __init__(self, n_panels: int) -> None:
        self.axes = [SketchedAxes(self) for _ in range(n_panels)]
        self.samples: list[Line] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotSketched(name)

    def legend(self, *given: Any, **look: Any) -> None:
        self.named_by(*given, **look)

    def named_by(self, *given: Any, handles: Sequence[Any] = (), **look: Any) -> None:
        """Keep what a legend names by samples of its own."""
        self.samples += [one for one in handles if isinstance(one, Line)]

    def scene(self) -> Scene:
        """What the figure shows."""
        for line in self.samples:
            for ax in self.axes:
                unnamed = (i for i, one in enumerate(ax.series) if not one.name)
                place = next((i for i in unnamed if ax.series[i].look == line.look), None)
                if place is not None:
                    ax._rename(place, line.label)
        return Scene([ax.panel() for ax in self.axes if ax.series or ax.marks or ax.spans])

    def __repr__(self) -> str:
        return f"Sketch with {len(self.axes)} panels"
