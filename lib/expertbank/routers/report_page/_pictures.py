"""Pictures of single layers, of costs, and of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from expertbank.routers.communication import FACTORS
from expertbank.routers.maps import LayerMap, LiftTable
from expertbank.routers.report import RoutingReport, trend
from expertbank.routers.report_page._canvas import (
    BAR_COLOUR,
    MARKED_LINES,
    MOST_MARKS,
    Figure,
    draw_lines,
    name_layers,
    panels_svg,
)

MOST_LIFT = 4.0  # lifts above look alike
MOST_DEVICES = 32  # whose traffic is drawn


def _having(report: RoutingReport, field: str) -> list[LayerMap]:
    """The layers that have a table."""
    return [each for each in report.maps if getattr(each, field)]


def _panels(
    report: RoutingReport,
    field: str,
    rows: str,
    columns: str,
    value: str,
    row_height: float,
) -> str:
    """A map a layer, one below another, of a table that some layers have."""
    maps = _having(report, field)
    titles = {layer.layer: layer.name for layer in report.layers}
    tables = [_array(getattr(each, field)) for each in maps]
    top = max(2.0, min(MOST_LIFT, max(float(np.nanmax(table)) for table in tables)))

    def draw(axes: Any) -> None:
        panels = [axes] if len(maps) == 1 else list(axes)
        for panel, each, table in zip(panels, maps, tables):
            panel.imshow(
                table, aspect="auto", cmap="cividis", vmin=0, vmax=top, interpolation="nearest"
            )
            panel.grid(visible=False)
            panel.set_title(f"layer {_cut(titles[each.layer])}", fontsize=11)
            panel.set_ylabel(rows)
            panel.locator_params(axis="both", integer=True, nbins=6)
        panels[-1].set_xlabel(columns)
        panels[0].figure.colorbar(panels[0].images[0], ax=panels, label=value, extend="max")

    height = sum(0.75 + row_height * min(len(table), 40) for table in tables)
    return panels_svg(draw, max(1.9, 0.3 + height), len(maps))


def _array(table: LiftTable) -> np.ndarray:
    """A table with nan for what is not known."""
    return np.array([[np.nan if value is None else value for value in row] for row in table])


def _cut(name: str) -> str:
    """A layer's name, in a figure: its end, where it is long; without what starts a formula."""
    text = name if len(name) <= 34 else f"...{name[-31:]}"
    return text.replace("$", r"\$")


def _names(maps: Sequence[LayerMap], report: RoutingReport) -> str:
    titles = {layer.layer: layer.name for layer in report.layers}
    names = [titles[each.layer] for each in maps]
    return f"layer {names[0]}" if len(names) == 1 else f"layers {', '.join(names)}"


def domain_maps(report: RoutingReport) -> Figure:
    """Domains against experts."""
    shown_maps = _having(report, "domain_lift")
    if not shown_maps:
        return None
    svg = _panels(report, "domain_lift", "domain", "expert", "lift", 0.12)
    largest = max(float(np.nanmax(_array(each.domain_lift))) for each in shown_maps)
    return svg, (
        f"Domains and experts in {_names(shown_maps, report)}: the lift, P(expert given the "
        f"domain) over P(expert). At 1 the expert ignores the domain; the largest is {largest:.2f}."
    )


def phase_maps(report: RoutingReport) -> Figure:
    """Load of prompts over that of what is generated."""
    shown_maps = _having(report, "phases")
    if not shown_maps:
        return None
    svg = _panels(report, "phases", "", "expert", "load / mean", 0.35)
    return svg, (
        "Load of each expert over the mean load, of tokens of prompts (row 0) beside those that "
        f"were generated (row 1), in {_names(shown_maps, report)}."
    )


def next_maps(report: RoutingReport) -> Figure:
    """Experts of a layer against those of the next."""
    shown_maps = _having(report, "next_lift")
    if not shown_maps:
        return None
    svg = _panels(report, "next_lift", "expert", "expert of the next layer", "lift", 0.035)
    return svg, (
        f"From {_names(shown_maps, report)} to the next: P(next expert given this one) over "
        "P(next expert). At 1 the two choose independently; bright cells are paths."
    )


# --- flips ---


def flips_by_position(report: RoutingReport) -> Figure:
    """Flip rates of layers by position."""
    rates = [layer.flips_by_position for layer in report.layers]
    width = max(map(len, rates), default=0)
    if not width:
        return None
    table = np.full((len(rates), width), np.nan)
    for row, known in zip(table, rates):
        row[: len(known)] = [np.nan if rate is None else rate for rate in known]

    def draw(axes: Any) -> None:
        image = axes.imshow(table, aspect="auto", cmap="cividis", vmin=0, interpolation="nearest")
        axes.grid(visible=False)
        name_layers(axes.yaxis, report)
        places = range(0, width, max(1, -(-width // 6)))
        axes.set_xticks(places, [str(int(2 ** (i - 1))) for i in places])
        axes.set_xlabel("position, from")
        axes.figure.colorbar(image, label="share of chosen experts")

    svg = panels_svg(draw, 1.6 + 0.08 * min(len(rates), 40))
    return svg, (
        "Chosen experts that differ from the other run's, by layer and position; positions double "
        f"from column to column. The largest share is {np.nanmax(table):.3f}."
    )


def flips_by_margin(report: RoutingReport) -> Figure:
    """How near a tie the choices were that flipped."""
    rows = report.further().get("Flips by margin of the choice, all layers")
    if rows is None:
        return None
    layers = [layer for layer in report.layers if layer.tokens_by_margin]
    tokens = np.sum([layer.tokens_by_margin for layer in layers], axis=0)
    flips = np.sum([layer.flips_by_margin for layer in layers], axis=0)
    rates = np.divide(flips, tokens, out=np.zeros(len(tokens)), where=tokens > 0)

    def draw(axes: Any) -> None:
        axes.barh([row[0] for row in rows[1:]], rates, color=BAR_COLOUR, height=0.7)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="experts that differ, a token", ylabel="margin, nats")

    return panels_svg(draw, 3.0), (
        "Experts that differ, a token, by margin: how much more probable the last chosen expert "
        f"was than the first left out. Of {int(flips.sum()):,} flips, those at small margins are "
        "what rounding does; those at wide ones are not."
    )


# --- what expert parallelism costs ---


def cost_figure(report: RoutingReport) -> Figure:
    """Devices a token and the busiest device, by placement."""
    costs = report.costs
    if costs is None:
        return None
    busiest = costs.mean("busiest_95")
    known = [(kind, costs.devices(kind), busiest[kind]) for kind in costs.kinds()]
    places = np.arange(len(known))

    def draw(axes: Any) -> None:
        for i, (label, color) in enumerate(
            [("devices a token", BAR_COLOUR), ("busiest device, 95% of steps", MARKED_LINES[1][2])]
        ):
            axes.barh(
                places + 0.38 * i, [row[i + 1] for row in known], 0.36, color=color, label=label
            )
        axes.set_yticks(places + 0.19, [row[0] for row in known])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("devices; slots over the mean of a step")
        axes.figure.legend(loc="outside upper left", fontsize=11)

    best = min(known, key=lambda row: row[1])
    return panels_svg(draw, 1.5 + 0.55 * len(known)), (
        f"What {costs.n_devices} devices cost, by placement of the experts, mean over layers, on "
        f"texts that no placement was fitted on: {best[0]} reaches the fewest devices, "
        f"{best[1]:.2f} a token."
    )


def traffic_figure(report: RoutingReport) -> Figure:
    """Which device serves which one's tokens."""
    costs = report.costs
    if costs is None or costs.n_devices > MOST_DEVICES or len(costs.kinds()) < 2:
        return None
    kinds = costs.kinds()
    # as experts come, and the placement that reaches the fewest devices
    pair = (kinds[0], min(kinds[1:], key=costs.devices))
    tables = [np.array(costs.traffic(kind)) for kind in pair]
    shares = [table / table.sum() for table in tables]

    def draw(axes: Any) -> None:
        for panel, kind, share in zip(axes, pair, shares):
            panel.imshow(share, cmap="cividis", vmin=0, vmax=max(each.max() for each in shares))
            panel.grid(visible=False)
            panel.set_title(kind, fontsize=11)
            panel.set_ylabel("tokens of device")
            panel.locator_params(axis="both", integer=True, nbins=6)
        axes[-1].set_xlabel("served by device")
        axes[0].figure.colorbar(axes[0].images[0], ax=list(axes), label="share of the traffic")

    return panels_svg(draw, 5.2, 2), (
        f"Traffic between the {costs.n_devices} devices, all layers together: what of all that is "
        f"sent goes from the row to the column, placed as {pair[0]} and as {pair[1]}. The "
        "diagonal costs no network."
    )


def dropped_figure(report: RoutingReport) -> Figure:
    """Slots that a capacity factor drops."""
    if report.costs is None:
        return None
    shares = np.array(list(report.costs.dropped.values()))
    lines = {"mean of layers": shares.mean(axis=0), "worst layer": shares.max(axis=0)}

    def draw(axes: Any) -> None:
        for (label, line), (marker, style, color) in zip(lines.items(), MARKED_LINES):
            axes.plot(FACTORS, line, marker=marker, ls=style, color=color, label=label)
        axes.set(xlabel="capacity factor", ylabel="share of slots dropped")
        axes.set_ylim(bottom=0)
        axes.figure.legend(loc="outside upper left", ncols=2, fontsize=11)

    return panels_svg(draw, 3.0), (
        f"Slots dropped where an expert takes at most a factor times its share of a step of "
        f"{report.costs.step} tokens: {lines['mean of layers'][0]:.3f} of all at a factor of 1."
    )


# --- several runs ---


def load_over_time(report: RoutingReport) -> Figure:
    """The load, checkpoint by checkpoint."""
    return _over_time(report, ("max_violation", "utilisation"), "a ratio", "the load")


def information_over_time(report: RoutingReport) -> Figure:
    """What the expert tells, checkpoint by checkpoint."""
    fields = ("rate", "domain_information", "excess")
    return _over_time(report, fields, "nats", "what the expert tells")


def _over_time(report: RoutingReport, fields: Sequence[str], unit: str, what: str) -> Figure:
    reports = [*report.checkpoints, report.last]
    values = {name: [trend(each, name) for _, each in reports] for name in fields}
    lines = {
        report.quantity(name).label: [np.nan if value is None else value for value in line]
        for name, line in values.items()
        if any(value is not None for value in line)
    }
    if not report.checkpoints or not lines:
        return None

    def draw(axes: Any) -> None:
        for (label, line), (marker, style, color) in zip(lines.items(), MARKED_LINES):
            axes.plot(line, marker=marker, ls=style, color=color, label=label)
        places = range(0, len(reports), max(1, -(-len(reports) // MOST_MARKS)))
        axes.set_xticks(places, [str(i + 1) for i in places])
        axes.set(xlabel="checkpoint, in the order given", ylabel=unit)
        axes.figure.legend(loc="outside upper left", ncols=2, fontsize=11)

    return panels_svg(draw, 3.2), (
        f"{what[0].upper()}{what[1:]} over {len(reports)} checkpoints in the order given, the last "
        "of which is what the rest of this page is about; means over layers."
    )


def beside_figure(report: RoutingReport) -> Figure:
    """The load of two runs, layer by layer."""
    if report.beside is None or len(report.layers) == 1:
        return None
    theirs = {layer.layer: layer.max_violation for layer in report.beside[1].layers}
    lines = {
        "MaxVio, this run": [layer.max_violation for layer in report.layers],
        "the other": [theirs.get(layer.layer) for layer in report.layers],
    }
    arrays = {
        legend: np.array([np.nan if value is None else value for value in line])
        for legend, line in lines.items()
    }
    if any(np.isnan(line).all() for line in arrays.values()):
        return None
    return panels_svg(lambda axes: draw_lines(axes, report, arrays, "a ratio"), 3.4), (
        "MaxVio by layer in this run and in the other. Means over layers: "
        f"{np.nanmean(arrays['MaxVio, this run']):.3f} and {np.nanmean(arrays['the other']):.3f}."
    )
