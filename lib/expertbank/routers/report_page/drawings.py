"""The figures of the report page, as SVG that takes the page's ink and fits any width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from expertbank.routers.layer_report import LayerReport
from expertbank.routers.quantities import RATE_OF_PICKS
from expertbank.routers.report import RoutingReport

if TYPE_CHECKING:
    from markupsafe import Markup

# of Okabe & Ito's colours those that stand out on white and on black; the ink becomes the colour
# of the page's text
_BLUE = "#0072B2"
_RED = "#D55E00"
_GREEN = "#009E73"
_PINK = "#CC79A7"
_INK = "#010203"
# marker, line style and colour of the first line, the second, ...
_LOOKS = (
    ("o", "-", _BLUE),
    ("s", "--", _RED),
    ("^", "-.", _GREEN),
    ("D", ":", _PINK),
    ("", (0, (5, 3)), _INK),
)
_STYLE = {
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
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
_MOST_MARKS = 12  # markers of a line, and ticks of an axis


@dataclass(frozen=True)
class Drawing:
    """A figure for a page: an SVG element and its caption."""

    svg: Markup
    caption: str


def draw_group(group: str, report: RoutingReport) -> Drawing | None:
    """The figure of a group of numbers; None where the group has none, or the report nothing to
    draw.

    >>> from expertbank.routers import RouterStatistics, routing_report
    >>> statistics = RouterStatistics(n_experts=4, n_chosen=1)
    >>> statistics.update(0, [[0], [0], [1], [2]])
    >>> drawing = draw_group("Load", routing_report(statistics))
    >>> drawing.svg.startswith("<svg"), drawing.caption.split(". ")[0]
    (True, 'Load of each expert over the mean load, busiest first')
    """
    import markupsafe

    figures: dict[str, Callable[[RoutingReport], tuple[str, str] | None]] = {
        "Rate": _rate_figure,
        "Load": _load_figure,
        "Domains": _domain_figure,
        "Co-activation": _team_figure,
        "Agreement": _agreement_figure,
    }
    found = figures[group](report) if group in figures else None
    if found is None:
        return None
    svg, caption = found
    return Drawing(markupsafe.Markup(_inline_svg(svg, group, caption)), caption)


def _inline_svg(svg: str, group: str, caption: str) -> str:
    """An SVG as matplotlib wrote it, made part of a page: own ids, no namespaces, the page's
    ink."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href").replace(_INK, "currentColor")
    own = re.sub(r"\W", "", group).lower()
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}-", svg)
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(caption)}">{body}'


def _svg(draw: Callable[[Any], None], height: float) -> str:
    """What `draw(axes)` draws, as SVG text. No pyplot: a report leaves no figure and no setting
    behind."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = _STYLE
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.8, height))
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


# --- numbers by layer ---


def _series(report: RoutingReport, legends: dict[str, str], unit: str) -> str | None:
    """Lines by layer of the fields that some layer has, {field: legend}; bars where there is one
    layer, and None where no layer has any."""
    lines = {}
    for name, legend in legends.items():
        values = [getattr(layer, name) for layer in report.layers]
        if any(value is not None for value in values):
            lines[legend] = np.array([np.nan if value is None else value for value in values])
    lines = {legend: line for legend, line in lines.items() if not np.isnan(line).all()}
    if not lines:
        return None
    if len(report.layers) == 1:
        bars = {legend: float(line[0]) for legend, line in lines.items()}
        return _svg(lambda axes: _draw_bars(axes, bars, unit), 0.9 + 0.32 * len(bars))
    return _svg(lambda axes: _draw_lines(axes, report, lines, unit), 3.6)


def _draw_bars(axes: Any, bars: dict[str, float], unit: str) -> None:
    axes.barh(list(bars), list(bars.values()), color=_BLUE, height=0.6)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=unit)
    axes.locator_params(axis="x", nbins=5)


def _draw_lines(axes: Any, report: RoutingReport, lines: dict[str, np.ndarray], unit: str) -> None:
    every = max(1, len(report.layers) // _MOST_MARKS)
    for (legend, line), (marker, style, color) in zip(lines.items(), _LOOKS):
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
    _name_layers(axes.xaxis, report)
    values = np.array(list(lines.values()))
    bottom = min(0, 1.08 * np.nanmin(values))
    top = 1.08 * np.nanmax(values)
    axes.set(ylabel=unit, ylim=(bottom, top if top else 1))
    axes.figure.legend(loc="outside upper left", ncols=2, fontsize=11)


def _name_layers(axis: Any, report: RoutingReport) -> None:
    """Ticks at a few layers, by number; names are long and stand in the table."""
    n = len(report.layers)
    step = max(1, -(-n // _MOST_MARKS))
    numbered = all(isinstance(layer.layer, int) for layer in report.layers)
    places = range(0, n, step)
    axis.set_ticks(places, [report.layers[i].name if numbered else str(i + 1) for i in places])
    axis.set_label_text("layer" if numbered else "layer, in the order of the table")


def _rate_figure(report: RoutingReport) -> tuple[str, str] | None:
    legends = {
        "rate": report.quantity("rate").label,
        "conditional_entropy": "H(T|X)",
        "softmax_rate": "I of the softmax",
        "output_entropy": "H(T)",
    }
    svg = _series(report, legends, "nats")
    if svg is None:
        return None
    log_e = f"log E is {np.log(report.n_experts):.3g}"
    rates = [layer.rate for layer in report.layers if layer.rate is not None]
    if not rates:
        return svg, (
            "H(T) by layer, from loads that were counted without their tokens: how it splits into "
            f"rate and H(T|X) is not known. {log_e}."
        )
    if report.quantity("rate") is RATE_OF_PICKS:
        return svg, (
            "H(T) by layer, H(T|X) of a pick among a token's experts, and their difference, "
            f"{_range(rates)} nats: a matter of the load, whatever the router looks at. {log_e}."
        )
    return svg, (
        "H(T) by layer splits into the rate I(X;T), what the expert tells about the token, and "
        f"H(T|X), what stays undecided. The rate is {_range(rates)} nats; {log_e}."
    )


def _domain_figure(report: RoutingReport) -> tuple[str, str] | None:
    legends = {
        "domain_information": "I(D;T)",
        "null_mean": "its null, mean",
        "sequence_information": "I(Seq;T)",
        "fano_floor": "Fano's floor",
        "cap": "cap log E - H(T|Seq)",
    }
    svg = _series(report, legends, "nats")
    if svg is None:
        return None
    values = [layer.domain_information for layer in report.layers]
    known = [value for value in values if value is not None]
    caption = (
        f"What the expert tells about the domain, I(D;T), by layer: {_range(known)} nats. What its "
        "null has is chance; whether the rest is more, p in the table says."
    )
    if all(layer.capped == "yes" for layer in report.layers):
        caption += (
            " It cannot exceed I(Seq;T), nor that the cap, which balance inside sequences lowers."
        )
    return svg, caption


def _team_figure(report: RoutingReport) -> tuple[str, str] | None:
    legends = {
        "coactivation": "total correlation",
        "coactivation_baseline": "of an independent choice",
        "coactivation_bias": "bias",
    }
    svg = _series(report, legends, "nats")
    if svg is None:
        return None
    return svg, (
        "Experts chosen together, by layer: where the load is near balance, what the total "
        "correlation exceeds a uniform choice by, and is more than its bias, is teams."
    )


def _agreement_figure(report: RoutingReport) -> tuple[str, str] | None:
    legends = {
        "flip_rate": "flips",
        "matched_flip_rate": "after matching",
        "chance_flip_rate": "by chance",
    }
    svg = _series(report, legends, "share of chosen experts")
    if svg is None:
        return None
    return svg, (
        "Chosen experts that differ from the other run's on the same tokens, by layer: 0 is the "
        "same choice. Matching renames the other run's experts for the fewest flips."
    )


def _range(values: Sequence[float]) -> str:
    low = f"{min(values):.3g}"
    high = f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


# --- the load, expert by expert ---


def _load_figure(report: RoutingReport) -> tuple[str, str] | None:
    layers = [layer for layer in report.layers if layer.load]
    if not layers:
        return None
    unknown = (np.nan,) * report.n_experts
    shares = np.array([layer.load if layer.load else unknown for layer in report.layers])
    loads = shares * report.n_experts
    n_dead = sum(len(layer.dead_experts) for layer in layers)
    if len(report.layers) == 1:
        svg = _svg(lambda axes: _draw_load(axes, loads[0]), 3.2)
        return svg, (
            "Load of each expert over the mean load, busiest first. The dashed line is balance; "
            f"the busiest lies at {loads[0].max():.2f}, {n_dead} of {report.n_experts} serve no "
            "token."
        )
    busiest = max(layers, key=_violation)
    height = 2.4 + 0.1 * min(len(report.layers), 40)
    svg = _svg(lambda axes: _draw_loads(axes, report, loads), height)
    return svg, (
        "Load of each expert in each layer over the mean load: 1 is balance, dark blue is idle, "
        f"yellow is busy. The busiest expert, in layer {busiest.name}, has "
        f"{1 + _violation(busiest):.2f} times the mean; {n_dead} experts in all layers together "
        "serve no token."
    )


def _violation(layer: LayerReport) -> float:
    assert layer.max_violation is not None  # it is known wherever the load is
    return layer.max_violation


def _draw_load(axes: Any, load: np.ndarray) -> None:
    axes.bar(range(len(load)), -np.sort(-load), color=_BLUE, width=0.85)
    axes.axhline(1, color=_INK, ls="--", lw=1.2)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="experts, from the busiest", ylabel="load over the mean load")


def _draw_loads(axes: Any, report: RoutingReport, loads: np.ndarray) -> None:
    # a few very busy experts would leave all others dark
    top = max(2.0, float(np.nanquantile(loads, 0.99)))
    image = axes.imshow(
        loads, aspect="auto", cmap="cividis", vmin=0, vmax=top, interpolation="nearest"
    )
    axes.grid(visible=False)
    _name_layers(axes.yaxis, report)
    axes.set(xlabel="expert")
    axes.figure.colorbar(image, label="load over the mean load", extend="max")
