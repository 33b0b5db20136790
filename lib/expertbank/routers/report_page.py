"""The routing report as one HTML page: figures, tables and how to read them, with nothing to load
from elsewhere."""

from __future__ import annotations

import io
import re
from html import escape
from pathlib import Path

import numpy as np

from expertbank._files import write_atomically
from expertbank.routers.quantities import QUANTITIES
from expertbank.routers.report import RoutingReport, shown

# of Okabe & Ito's colours those that stand out on white and on black; INK becomes the colour of the
# page's text
BLUE, RED, GREEN, PINK, INK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#010203"
LOOKS = (
    ("o", "-", BLUE),
    ("s", "--", RED),
    ("^", "-.", GREEN),
    ("D", ":", PINK),
    ("", (0, (5, 3)), INK),
)
STYLE = {
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.titlecolor": INK, "grid.color": INK, "grid.alpha": 0.15, "axes.grid": True, "axes.spines.top": False,
    "axes.spines.right": False, "font.size": 10, "legend.frameon": False, "svg.fonttype": "none",
    "figure.constrained_layout.use": True, "axes.facecolor": "none",
}  # fmt: skip
CSS = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #5b6570; --line: #d5dae0; --shade: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --paper: #14171b; --soft: #a2acb7; --line: #3a424b; --shade: #1e2329; }
}
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; margin: .5rem 0; }
h2 { margin: 2.5rem 0 .5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
figure { margin: 1rem 0; max-width: 36rem; }
figure svg { display: block; width: 100%; height: auto; font-family: system-ui, sans-serif; }
figure svg text { font-family: inherit !important; }
figcaption, .soft { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; margin: .5rem 0; }
.wide:focus-visible { outline: 2px solid #0072B2; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { border-bottom-color: var(--soft); }
tbody th { text-align: left; position: sticky; left: 0; background: var(--paper); font-weight: 600; }
tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 4rem; max-width: 35vw; }
thead th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
details { background: var(--shade); border-radius: .4rem; padding: .5rem .8rem; }
summary { cursor: pointer; }
dl { margin: .5rem 0; display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0; }
@media (max-width: 32rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""


def write_html(report: RoutingReport, path) -> None:
    """Write the report as one page: all of it or nothing. Needs matplotlib (`pip install
    "expertbank[routers]"`).

    No script and no reference to another file or host; light or dark as the reader's system is.
    """
    text = html_page(report)
    write_atomically(Path(path), lambda file: file.write(text.encode()))


def html_page(report: RoutingReport) -> str:
    """The page as text."""
    drawn = {"Rate": _rate_figure, "Load": _load_figure, "Domains": _domain_figure,
             "Co-activation": _team_figure, "Agreement": _agreement_figure}  # fmt: skip
    parts = ["<h1>Routing report</h1>", f"<p>{escape(report.title())}</p>"]
    parts += [f"<p>{escape(note)}</p>" for note in report.notes()]
    for group, names in report.groups().items():
        parts.append(f"<h2>{escape(group)}</h2>")
        parts += (
            [_figure(group, *found) for found in [drawn[group](report)] if found]
            if group in drawn
            else []
        )
        parts += [_table(report, group, names), _explanations(names)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Routing report: {escape(report.title())}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _table(report: RoutingReport, group: str, names: list[str]) -> str:
    heads = "".join(f'<th scope="col">{escape(QUANTITIES[name].label)}</th>' for name in names)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(str(layer.layer))}</th>'
        + "".join(f"<td>{escape(shown(getattr(layer, name)))}</td>" for name in names)
        + "</tr>"
        for layer in report.layers
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(group)} by layer"><table>\n'
        f'<thead><tr><th scope="col">layer</th>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'
    )


def _explanations(names: list[str]) -> str:
    found = (QUANTITIES[name] for name in names)
    entries = "\n".join(
        f"<dt>{escape(quantity.label)}</dt><dd>{escape(quantity.text)}</dd>" for quantity in found
    )
    return f"<details><summary>How to read these numbers</summary><dl>\n{entries}\n</dl></details>"


def _figure(group: str, svg: str, caption: str) -> str:
    """An SVG as matplotlib wrote it, made part of a page: own ids, no namespaces, the page's
    ink."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = (
        re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
        .replace("xlink:href", "href")
        .replace(INK, "currentColor")
    )
    own = re.sub(r"\W", "", group).lower()
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}-", svg)
    size = r'\s(?:width|height|version)="[^"]*"'
    head, body = svg.split(">", 1)
    head = re.sub(size, "", head) + f' role="img" aria-label="{escape(caption)}"'
    return f"<figure>{head}>{body}<figcaption>{escape(caption)}</figcaption></figure>"


def _svg(draw, height: float) -> str:
    """What `draw(axes)` draws, as SVG text. No pyplot: a report leaves no figure and no setting
    behind."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "routing"}):
        figure = Figure(figsize=(4.8, height))
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def _series(report: RoutingReport, series: dict[str, str], unit: str) -> str | None:
    """Lines by layer of the fields that some layer has: {field: legend}."""
    values = {
        name: np.array(
            [
                np.nan if (value := getattr(layer, name)) is None else value
                for layer in report.layers
            ]
        )
        for name in series
    }
    values = {name: line for name, line in values.items() if not np.isnan(line).all()}
    if not values:
        return None

    if len(report.layers) == 1:  # no line to draw

        def bars(axes):
            axes.barh(
                [series[name] for name in values],
                [line[0] for line in values.values()],
                color=BLUE,
                height=0.6,
            )
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.set(xlabel=unit)
            axes.locator_params(axis="x", nbins=5)

        return _svg(bars, 0.9 + 0.32 * len(values))

    def draw(axes):
        for (name, line), (marker, style, color) in zip(values.items(), LOOKS):
            every = max(1, len(line) // 12)
            axes.plot(
                line,
                marker=marker,
                ls=style,
                color=color,
                ms=5,
                lw=1.4,
                markevery=every,
                label=series[name],
            )
        _name_layers(axes, report, axes.xaxis)
        lines = np.array(list(values.values()))
        axes.set(ylabel=unit, ylim=(min(0, 1.08 * np.nanmin(lines)), 1.08 * np.nanmax(lines) or 1))
        axes.figure.legend(loc="outside upper left", ncols=2, fontsize=9)

    return _svg(draw, 3.6)


def _name_layers(axes, report: RoutingReport, axis) -> None:
    """Ticks at a few layers, by number; names are long and stand in the table."""
    n = len(report.layers)
    step = max(1, -(-n // 12))
    numbered = all(isinstance(layer.layer, int) for layer in report.layers)
    places = range(0, n, step)
    axis.set_ticks(places, [str(report.layers[i].layer if numbered else i + 1) for i in places])
    axis.set_label_text("layer" if numbered else "layer, in the order of the table")


def _load_figure(report: RoutingReport) -> tuple[str, str] | None:
    layers = [layer for layer in report.layers if layer.load]
    if not layers:
        return None
    loads = (
        np.array([layer.load or (np.nan,) * report.n_experts for layer in report.layers])
        * report.n_experts
    )
    if len(report.layers) == 1:

        def draw(axes):
            axes.bar(range(report.n_experts), -np.sort(-loads[0]), color=BLUE, width=0.85)
            axes.axhline(1, color=INK, ls="--", lw=1.2)
            axes.grid(axis="x", visible=False)
            axes.set(xlabel="experts, from the busiest", ylabel="load over the mean load")

        return _svg(draw, 3.2), (
            "Load of each expert over the mean load, busiest first. The dashed line is balance; "
            f"the busiest lies at {loads[0].max():.2f}, {layers[0].dead} of {report.n_experts} serve no token."
        )

    def draw(axes):
        # a few very busy experts would leave all others dark
        top = max(2.0, float(np.nanquantile(loads, 0.99)))
        image = axes.imshow(
            loads, aspect="auto", cmap="cividis", vmin=0, vmax=top, interpolation="nearest"
        )
        axes.grid(visible=False)
        _name_layers(axes, report, axes.yaxis)
        axes.set(xlabel="expert")
        axes.figure.colorbar(image, label="load over the mean load", extend="max")

    busiest = max(layers, key=lambda layer: layer.max_violation)
    return _svg(draw, 2.4 + 0.1 * min(len(report.layers), 40)), (
        "Load of each expert in each layer over the mean load: 1 is balance, dark blue is idle, yellow is busy. The "
        f"busiest expert, in layer {busiest.layer}, has {1 + busiest.max_violation:.2f} times the mean; "
        f"{sum(layer.dead for layer in layers)} experts in all layers together serve no token."
    )


def _rate_figure(report: RoutingReport) -> tuple[str, str] | None:
    names = {"rate": "I(X;T)", "conditional_entropy": "H(T|X)", "softmax_rate": "I of the softmax"}
    svg = _series(report, {**names, "output_entropy": "H(T)"}, "nats")
    rates = [layer.rate for layer in report.layers if layer.rate is not None]
    return svg and (svg, (
        "H(T) by layer splits into the rate I(X;T), what the expert tells about the token, and H(T|X), what stays "
        f"undecided. The rate is {_range(rates)} nats; log E is {np.log(report.n_experts):.3g}."
    ))  # fmt: skip


def _domain_figure(report: RoutingReport) -> tuple[str, str] | None:
    names = {
        "domain_information": "I(D;T)",
        "null_high": "its null, 95%",
        "sequence_information": "I(Seq;T)",
    }
    svg = _series(
        report, {**names, "fano_floor": "Fano's floor", "cap": "cap log E - H(T|Seq)"}, "nats"
    )
    values = [
        layer.domain_information for layer in report.layers if layer.domain_information is not None
    ]
    return svg and (svg, (
        f"What the expert tells about the domain, I(D;T), by layer: {_range(values)} nats. Below its null it "
        "is chance. It cannot exceed I(Seq;T), nor that the cap, which balance inside sequences lowers."
    ))  # fmt: skip


def _team_figure(report: RoutingReport) -> tuple[str, str] | None:
    names = {"coactivation": "total correlation", "coactivation_uniform": "of a uniform choice"}
    svg = _series(report, {**names, "coactivation_bias": "bias"}, "nats")
    return svg and (svg, "Experts chosen together, by layer: what the total correlation exceeds a uniform choice by, "
                         "and is more than its bias, is teams.")  # fmt: skip


def _agreement_figure(report: RoutingReport) -> tuple[str, str] | None:
    names = {
        "flip_rate": "flips",
        "matched_flip_rate": "after matching",
        "chance_flip_rate": "by chance",
    }
    svg = _series(report, names, "share of chosen experts")
    return svg and (svg, "Chosen experts that differ from the other run's on the same tokens, by layer: 0 is the same "
                         "choice. Matching renames the other run's experts for the fewest flips.")  # fmt: skip


def _range(values) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"
