"""The figures of the report page, as SVG that takes the page's ink and fits any width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from expertbank.routers.layer_report import LayerReport
from expertbank.routers.quantities import RATE_OF_PICKS
from expertbank.routers.report import RoutingReport
from expertbank.routers.report_page import _pictures
from expertbank.routers.report_page._canvas import (
    BAR_COLOUR,
    INK,
    Drawing,
    Figure,
    as_drawing,
    draw_lines,
    name_layers,
    panels_svg,
)


def draw_group(group: str, report: RoutingReport) -> list[Drawing]:
    """The figures of a group of numbers; none where the group has none, or the report nothing to
    draw.

    >>> from expertbank.routers import RouterStatistics, routing_report
    >>> statistics = RouterStatistics(n_experts=4, n_chosen=1)
    >>> statistics.update(0, [[0], [0], [1], [2]])
    >>> [drawing] = draw_group("Load", routing_report(statistics))
    >>> drawing.svg.startswith("<svg"), drawing.caption.split(". ")[0]
    (True, 'Load of each expert over the mean load, busiest first')
    """
    figures: dict[str, list[Callable[[RoutingReport], Figure]]] = {
        "Rate": [_rate_figure],
        "Load": [_load_figure],
        "Steps": [_step_figure],
        "Domains": [_domain_figure, _pictures.domain_maps],
        "Co-activation": [_team_figure],
        "Agreement": [
            _agreement_figure,
            _pictures.flips_by_position,
            _pictures.flips_by_margin,
        ],
        "Next layer": [_next_figure, _pictures.next_maps],
        "Prefill and decode": [_phase_figure, _pictures.phase_maps],
        "Communication": [
            _pictures.cost_figure,
            _pictures.traffic_figure,
            _pictures.dropped_figure,
        ],
        "Checkpoints": [_pictures.load_over_time, _pictures.information_over_time],
        "Side by side": [_pictures.beside_figure],
    }
    found = [figure(report) for figure in figures.get(group, [])]
    return [as_drawing(each, f"{group}{i}") for i, each in enumerate(found) if each is not None]


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
        return panels_svg(lambda axes: _draw_bars(axes, bars, unit), 0.9 + 0.32 * len(bars))
    return panels_svg(lambda axes: draw_lines(axes, report, lines, unit), 3.6)


def _draw_bars(axes: Any, bars: dict[str, float], unit: str) -> None:
    axes.barh(list(bars), list(bars.values()), color=BAR_COLOUR, height=0.6)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=unit)
    axes.locator_params(axis="x", nbins=5)


def _rate_figure(report: RoutingReport) -> Figure:
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


def _step_figure(report: RoutingReport) -> Figure:
    if not any(layer.steps for layer in report.layers):
        return None
    legends = {
        "max_violation": "all tokens together",
        "step_violation_p50": "steps, median",
        "step_violation_p95": "steps, 95%",
        "step_violation_max": "steps, largest",
    }
    svg = _series(report, legends, "MaxVio")
    assert svg is not None  # what has steps has slots
    return svg, (
        "MaxVio by layer, of all tokens together and of single steps: in each step the other "
        "devices wait for the busiest expert, whoever it is, so steps are what they pay."
    )


def _domain_figure(report: RoutingReport) -> Figure:
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


def _captioned(svg: str | None, caption: str) -> Figure:
    """A picture with its caption, where there is one."""
    return None if svg is None else (svg, caption)


def _team_figure(report: RoutingReport) -> Figure:
    legends = {
        "coactivation": "total correlation",
        "coactivation_baseline": "of an independent choice",
        "coactivation_bias": "bias",
    }
    caption = (
        "Experts chosen together, by layer: where the load is near balance, what the total "
        "correlation exceeds a uniform choice by, and is more than its bias, is teams."
    )
    return _captioned(_series(report, legends, "nats"), caption)


def _agreement_figure(report: RoutingReport) -> Figure:
    legends = {
        "flip_rate": "flips",
        "matched_flip_rate": "after matching",
        "chance_flip_rate": "by chance",
    }
    caption = (
        "Chosen experts that differ from the other run's on the same tokens, by layer: 0 is the "
        "same choice. Matching renames the other run's experts for the fewest flips."
    )
    return _captioned(_series(report, legends, "share of chosen experts"), caption)


def _next_figure(report: RoutingReport) -> Figure:
    caption = (
        "What the expert of a slot tells about that of the next layer on the same token, by layer: "
        "what lies above the bias is paths through the model."
    )
    return _captioned(
        _series(report, {"next_information": "I(T;T')", "next_bias": "bias"}, "nats"), caption
    )


def _phase_figure(report: RoutingReport) -> Figure:
    legends = {
        "prefill_violation": "MaxVio prefill",
        "decode_violation": "MaxVio decode",
        "phase_distance": "moved",
    }
    caption = (
        "The busiest expert's excess over the mean load of tokens of the prompts and of those that "
        "were generated, by layer, and the share of the work that moves between the two."
    )
    return _captioned(_series(report, legends, "a ratio"), caption)


def _range(values: Sequence[float]) -> str:
    low = f"{min(values):.3g}"
    high = f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


# --- the load, expert by expert ---


def _load_figure(report: RoutingReport) -> Figure:
    layers = [layer for layer in report.layers if layer.load]
    if not layers:
        return None
    unknown = (np.nan,) * report.n_experts
    shares = np.array([layer.load if layer.load else unknown for layer in report.layers])
    loads = shares * report.n_experts
    n_dead = sum(len(layer.dead_experts) for layer in layers)
    if len(report.layers) == 1:
        svg = panels_svg(lambda axes: _draw_load(axes, loads[0]), 3.2)
        return svg, (
            "Load of each expert over the mean load, busiest first. The dashed line is balance; "
            f"the busiest lies at {loads[0].max():.2f}, {n_dead} of {report.n_experts} serve no "
            "token."
        )
    busiest = max(layers, key=_violation)
    height = 2.4 + 0.1 * min(len(report.layers), 40)
    svg = panels_svg(lambda axes: _draw_loads(axes, report, loads), height)
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
    axes.bar(range(len(load)), -np.sort(-load), color=BAR_COLOUR, width=0.85)
    axes.axhline(1, color=INK, ls="--", lw=1.2)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="experts, from the busiest", ylabel="load over the mean load")


def _draw_loads(axes: Any, report: RoutingReport, loads: np.ndarray) -> None:
    # a few very busy experts would leave all others dark
    top = max(2.0, float(np.nanquantile(loads, 0.99)))
    image = axes.imshow(
        loads, aspect="auto", cmap="cividis", vmin=0, vmax=top, interpolation="nearest"
    )
    axes.grid(visible=False)
    name_layers(axes.yaxis, report)
    axes.set(xlabel="expert")
    axes.figure.colorbar(image, label="load over the mean load", extend="max")
