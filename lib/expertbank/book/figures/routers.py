"""Figures of the part *Real routers*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from expertbank.book.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    Pair,
    draw_tiles,
    hatched,
    legend_below,
    name_ticks,
    panel_canvas,
    smooth_line,
)
from expertbank.routers.layer_report import LayerReport
from expertbank.routers.regret import RouterRegret

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# --- your own router ---


def domain_loads(tables: dict[str, np.ndarray], domains: Sequence[str]) -> Figure:
    """Share of each domain's slots by expert, a panel for each name -> counts (D, E); experts by
    their main domain."""
    figure, axes = panel_canvas(rows=len(tables), width=6.6, height=2.6 * len(tables))
    shares = {name: counts / counts.sum(axis=1, keepdims=True) for name, counts in tables.items()}
    ordered = []
    for (name, share), ax in zip(shares.items(), axes):
        order = np.lexsort((-share.max(axis=0), share.argmax(axis=0)))
        ordered.append(share[:, order])
        ax.set_yticks(range(len(domains)), domains)
        ax.set(title=name, xticks=[], xlabel="experts")
    draw_tiles(figure, axes, ordered, "cividis_r", "share of the domain's slots")
    return figure


def counting_rows(results: Sequence[dict[str, str]]) -> list[list[Any]]:
    """Rows of a table, case, ours and plain in nanoseconds a token, their ratio and its limit, of
    what benchmarks/routers.py wrote of batches."""
    return [
        [
            row["case"],
            1e9 * float(row["seconds"]),
            1e9 * float(row["plain"]),
            float(row["ratio"]),
            float(row["limit"]),
        ]
        for row in results
        if row["section"] == "update"
    ]


def counting_ratios(results: Sequence[dict[str, str]]) -> Figure:
    """Time over that of a plain version, case by case, and the limit, of what benchmarks/routers.py
    wrote of batches."""
    rows = counting_rows(results)[::-1]
    figure, (ax,) = panel_canvas(width=6.6, height=3.2)
    places = np.arange(len(rows))
    ax.plot([row[3] for row in rows], places, "o", color=BLUE, label="measured")
    ax.axvline(rows[0][4], color=RED, ls="--", lw=1.2, label="limit")
    ax.axvline(1, color=BLACK, lw=0.8)
    ax.set(xlabel="time, as a multiple of plain NumPy and SciPy", xlim=(0, None))
    names = [row[0].replace(", weights and probabilities too", ", all") for row in rows]
    ax.set_yticks(places, names)
    legend_below(figure, 2)
    return figure


def domain_information_by_size(
    sizes: Sequence[int], found: dict[str, Sequence[LayerReport]]
) -> Figure:
    """I(D;T), its null and Miller and Madow's bias by sequences, a panel for each name -> a report
    a size."""
    figure, axes = panel_canvas(rows=len(found), width=6.6, height=2.9 * len(found))
    for (name, layers), ax in zip(found.items(), axes):
        measured = [layer.domain_information for layer in layers]
        ax.loglog(sizes, measured, "o-", color=BLUE, label="$I(D;T)$, plug-in")
        null = np.array([[layer.null_mean, layer.null_high] for layer in layers], dtype=float)
        mean, high = null.T
        ax.loglog(sizes, mean, "s--", color=ORANGE, ms=4, label="mean of the null")
        needed = {"color": ORANGE, "label": "to what p = .05 needs"}
        hatched(ax.fill_between, sizes, mean, high, **needed)
        bias = [layer.domain_bias for layer in layers]
        ax.loglog(sizes, bias, ":", color=BLACK, label="Miller–Madow")
        ax.set(ylabel="nats", title=name, ylim=(1e-3, 2))
        name_ticks(ax.xaxis, sizes)
    axes[-1].set_xlabel("sequences")
    legend_below(figure, 2)
    return figure


def router_planes(layers: Sequence[RouterRegret]) -> Figure:
    """Loss against rate, a panel a layer: certified D(R), gates on the router's input, the router,
    its softmax, the model as it is."""
    figure, axes = panel_canvas(len(layers), height=4.3)
    for index, (found, ax) in enumerate(zip(layers, axes)):
        order = np.argsort(found.curve.rate)
        frontier = (found.curve.rate[order], found.curve.distortion[order])
        ax.plot(*frontier, "-", color=BLACK, lw=1.8, label="D(R): saw the next token")
        rates = np.linspace(0, max(point.rate for point in found.seen), 60)
        reached = [found.reached(rate) for rate in rates]
        ax.plot(rates, reached, "--", color=BLUE, label="sees the router's input")
        seen = [(point.rate, point.loss) for point in found.seen]
        ax.plot(*np.transpose(seen), "D", color=BLUE, ms=3, label="gates fitted on it")
        if found.softmax is not None:
            place = ([found.softmax.rate], [found.softmax.loss])
            ax.plot(*place, "s", color=GREEN, label="its softmax, drawn")
        ax.plot([found.router.rate], [found.router.loss], "o", color=RED, label="the router")
        ax.axhline(found.as_is, ls=":", color=ORANGE, label="the model as it is")
        ax.set(title=f"layer {index}", xlabel="rate $I(X;T)$, nats", xlim=(-0.08, None))
    axes[0].set_ylabel("loss of the next token, nats")
    legend_below(figure, 3)
    return figure


# --- the routing testbed ---

METHOD_LOOKS: dict[str, dict[str, Any]] = {
    "LBL": {"color": BLUE, "marker": "o", "ls": "-"},
    "SH": {"color": GREEN, "marker": "s", "ls": "--"},
    "BA": {"color": ORANGE, "marker": "^", "ls": "-."},
    "EB": {"color": PINK, "marker": "D", "ls": ":"},
    "none": {"color": RED, "marker": "X", "ls": (0, (1, 3))},
    "reference": {"color": BLACK, "marker": "*", "ls": (0, (5, 3))},
}
OPEN = {"ls": "", "ms": 6, "mfc": "none"}


def scope_caps(
    points: dict[str, Pair], by_scope: dict[str, Pair], scopes: Sequence[int], limit: ArrayLike
) -> Figure:
    """Above: I(D;T) against its cap, method -> (caps, informations). Below: against scope, method
    -> (scopes, values), with the limit (P,) at perfect balance over `scopes` (P,)."""
    figure, (upper, lower) = panel_canvas(rows=2, width=6.4, height=7)
    end = 1.05 * max(caps.max() for caps, _ in points.values())
    upper.plot([0, end], [0, end], "-", color=BLACK, lw=1, label="equality")
    for method, (caps, values) in points.items():
        upper.plot(caps, values, label=method, **METHOD_LOOKS[method] | OPEN)
    upper.set(xlabel=r"cap $\log E - H(T|\mathrm{Seq})$, nats", ylabel="$I(D;T)$, nats")
    upper.set(xlim=(0, end), ylim=(0, end))
    upper.legend(ncols=2)
    perfect = {"color": BLACK, "lw": 1, "label": "limit at perfect balance"}
    smooth_line(lower, scopes, limit, "x", "-", **perfect)
    lower.set_xscale("log", base=2)
    for method, (where, values) in by_scope.items():
        lower.plot(where, values, label=method, **METHOD_LOOKS[method] | OPEN)
    lower.set(xlabel="scope of balancing, sequences", ylabel="$I(D;T)$, nats", ylim=(0, None))
    name_ticks(lower.xaxis, scopes)
    lower.legend()
    return figure


def losses_by_scope(panels: dict[str, dict]) -> Figure:
    """Held-out loss against scope, a panel a mix: {"lines": method -> (scopes, means, deviations),
    "levels": method -> mean} for methods without a scope of their own."""
    figure, axes = panel_canvas(rows=len(panels), width=6.4, height=3.6 * len(panels))
    for ax, (title, panel) in zip(axes, panels.items()):
        for method, measured in panel["lines"].items():
            ax.errorbar(*measured, capsize=3, label=method, **METHOD_LOOKS[method])
        for method, level in panel["levels"].items():
            look = METHOD_LOOKS[method]
            ax.axhline(level, color=look["color"], ls=look["ls"], lw=1.2, label=method)
        ax.set_xscale("log", base=2)
        scopes = [scopes for scopes, _, _ in panel["lines"].values()]
        name_ticks(ax.xaxis, np.unique(np.concatenate(scopes)))
        ax.set(title=title, xlabel="scope of balancing, sequences")
        ax.set_ylabel("held-out loss, nats a token")
        ax.legend(ncols=2, fontsize=8)
    return figure


def losses_under_caps(capacities: Sequence[str], lines: dict[str, tuple]) -> Figure:
    """Loss (left) and I(D;T) (right) by token cap: name -> two pairs (means, deviations), each
    (C,)."""
    figure, axes = panel_canvas(2, height=3.6)
    places = np.arange(len(capacities))
    looks = ((RED, "o--"), (BLUE, "s-"))
    for (name, pairs), (color, look) in zip(lines.items(), looks):
        for ax, measured in zip(axes, pairs):
            ax.errorbar(places, *measured, fmt=look, color=color, capsize=3, label=name)
    for ax, label in zip(axes, ("held-out loss, nats a token", "$I(D;T)$, nats")):
        ax.set(xlabel="tokens an expert may take, of the mean load", ylabel=label)
        ax.set_xticks(places, capacities)
    axes[0].legend()
    return figure


PRICED_LOOKS: dict[str, dict[str, Any]] = {
    "top-k": {"color": BLUE, "marker": "o", "ls": "-"},
    "BEAM": {"color": RED, "marker": "s", "ls": "--"},
    "L2R": {"color": GREEN, "marker": "^", "ls": ""},
}


def prices_of_experts(families: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Held-out loss against the experts that a token uses (left) and against I(X;T) (right).

    families: name -> "experts", "rate" and "loss" of its settings and seeds (K, S) each; bars are
    standard deviations over seeds.
    """
    figure, axes = panel_canvas(2, height=3.8)
    for name, found in families.items():
        look: dict[str, Any] = PRICED_LOOKS[name] | {"capsize": 2, "ms": 5}
        loss = found["loss"].mean(axis=1), found["loss"].std(axis=1, ddof=1)
        for ax, along in zip(axes, ("experts", "rate")):
            places = found[along].mean(axis=1), found[along].std(axis=1, ddof=1)
            ax.errorbar(places[0], loss[0], loss[1], places[1], label=name, **look)
    axes[0].set_xscale("log", base=2)
    name_ticks(axes[0].xaxis, (1, 2, 4, 8))
    axes[0].set(xlabel="experts a token uses", ylabel="held-out loss, nats a token")
    axes[1].set(xlabel="rate $I(X;T)$, nats")
    legend_below(figure, 3)
    return figure


def metrics_and_loss(
    panels: dict[str, np.ndarray], losses: np.ndarray, methods: np.ndarray
) -> Figure:
    """Loss (K,) against one metric a panel: label -> (K,) values; `methods` (K,) sets colour and
    marker."""
    figure, axes = panel_canvas(len(panels), height=3.6)
    for ax, (label, values) in zip(axes, panels.items()):
        for method, look in METHOD_LOOKS.items():
            own = methods == method
            if own.any():
                ax.plot(values[own], losses[own], label=method, **look | OPEN)
        ax.set_xlabel(label)
    axes[0].set_ylabel("held-out loss, nats a token")
    legend_below(figure, 6)
    return figure


# --- learning in a network ---


def arm_intervals(panels: dict[str, dict[str, tuple[float, float, float]]]) -> Figure:
    """Mean and interval of each arm: a panel for each title -> (arm -> mean, low, high)."""
    figure, axes = panel_canvas(len(panels), height=3.2)
    for ax, (title, arms) in zip(axes, panels.items()):
        mean, low, high = np.transpose(list(arms.values()))
        places = np.arange(len(arms))
        reach = np.array([mean - low, high - mean])
        ax.errorbar(mean, places, xerr=reach, fmt="o", color=BLUE, capsize=3)
        ax.axvline(0, color=BLACK, lw=0.8)
        ax.set(xlabel=title)
        ax.set_ylim(len(arms) - 0.5, -0.5)
        ax.set_yticks(places, list(arms) if ax is axes[0] else [""] * len(arms))
    return figure
