"""Figures of the part *Gates that pay for their bits*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from expertbank.book.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PINK,
    RED,
    SKY,
    Pair,
    canvas,
    draw_tiles,
    hatched,
    legend_below,
    named_lines,
    panel_canvas,
    smooth_band,
    smooth_line,
)
from expertbank.gates import Distance
from expertbank.theorem2 import Theorem2Terms

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# --- gates that pay for their bits ---

FAMILY_LOOKS = {"linear": (ORANGE, "s"), "cnn": (RED, "o"), "prototype": (GREEN, "^")}


def gates_planes(panels: dict[str, dict]) -> Figure:
    """Loss against rate, a panel a bank: its curve, what known gates that see x reach, gates by
    family.

    panels: name -> {"curve": RateDistortionCurve, "known": {name: RoutedByEstimate}, "soft" and
    "hard": {family: (rates, losses)}}.
    """
    figure, axes = panel_canvas(len(panels), height=4.3)
    for ax, (title, panel) in zip(axes, panels.items()):
        curve = panel["curve"]
        order = np.argsort(curve.rate)
        frontier = (curve.rate[order], curve.distortion[order])
        ax.plot(*frontier, "-", color=BLACK, lw=1.8, label="D(R): sees the label")
        for (name, known), style in zip(panel["known"].items(), ("--", ":", "-.")):
            ax.plot(known.rate, known.loss, style, color=BLUE, label=f"sees x: {name}")
        for family, (color, marker) in FAMILY_LOOKS.items():
            look = {"color": color, "ms": 5}
            ax.plot(*panel["soft"][family], marker, label=f"{family}, soft", **look)
            hard = panel["hard"][family]
            ax.plot(*hard, marker, mfc="none", label=f"{family}, hardened", **look)
        ax.set(title=title, xlabel="rate $I(X;T)$, nats", ylim=(0, None), xlim=(-0.08, None))
    axes[0].set_ylabel("held-out expected loss")
    legend_below(figure, 3)
    return figure


def label_free_planes(panels: dict[str, dict]) -> Figure:
    """Loss against rate, a panel a bank, from below to above the frontier of gates that see x.

    panels: name -> {"curve", "floor" and "fitted": RateDistortionCurve, "certified":
    RoutedByEstimate}.
    """
    figure, axes = panel_canvas(len(panels), height=4.3)
    for ax, (title, panel) in zip(axes, panels.items()):
        certified = panel["certified"]
        rates = np.linspace(0, certified.rate.max(), 200)
        limit = certified.at(rates)
        least = panel["curve"].lower(rates)
        ax.fill_between(rates, least, limit, color=SKY, alpha=0.25, lw=0, label="sees x: in here")
        ax.plot(rates, limit, "-", color=RED, lw=1.8, label="certified, 95%")
        ax.plot(rates, panel["fitted"].upper(rates), "-.", color=BLUE, label="sees x, fitted law")
        ax.plot(rates, panel["floor"].lower(rates), ":", color=GREEN, label="floor, fitted law")
        ax.plot(rates, least, "--", color=BLACK, lw=1.8, label="D(R): sees the label")
        ax.set(title=title, xlabel="rate $I(X;T)$, nats", ylim=(0, None), xlim=(0, None))
    axes[0].set_ylabel("expected loss")
    legend_below(figure, 3)
    return figure


def minibatch_biases(
    sizes: ArrayLike, own: ArrayLike, predicted: ArrayLike, running: ArrayLike, truth: float
) -> Figure:
    """Mean minibatch estimate of I(X;T) against batch size: with the batch's own marginal, as
    predicted, corrected."""
    figure, ax = canvas(height=3.4)
    ax.semilogx(sizes, own, "o", color=RED, label="batch's own marginal")
    smooth_line(ax, sizes, predicted, "x", "--", color=RED, label="predicted by the delta method")
    ax.semilogx(sizes, running, "s", color=BLUE, label="fixed marginal of the gate")
    ax.axhline(truth, color=BLACK, lw=1.2, label="all inputs at once")
    ax.set(xlabel="batch size B", ylabel="mean estimate of $I(X;T)$, nats")
    ax.legend()
    return figure


def distance_terms(lams: Sequence[float], panels: dict[str, Distance]) -> Figure:
    """Stacked terms of the mean distance over seeds against the price, a panel a family."""
    figure, axes = panel_canvas(len(panels), height=3.4)
    places = np.arange(len(lams))
    for ax, (title, distance) in zip(axes, panels.items()):
        terms = {
            "bracket": (distance.bracket, SKY, "//"),
            "generalisation": (distance.generalisation, ORANGE, r"\\"),
            "not learned": (distance.not_learned, PINK, "xx"),
        }
        up, down = np.zeros((2, len(lams)))
        for name, (height, color, hatch) in terms.items():
            look: Any = {"color": color, "hatch": hatch, "edgecolor": "white", "label": name}
            ax.bar(places, height, bottom=np.where(height >= 0, up, down), **look)
            up = up + np.maximum(height, 0)
            down = down + np.minimum(height, 0)
        ax.plot(places, distance.total, "D", color=BLACK, ms=4, label="total")
        ax.set(title=title, xlabel=r"price $\lambda$")
        ax.set_xticks(places[::3], [f"{lam:.2g}" for lam in lams[::3]])
    axes[0].set_ylabel("loss above D(rate)")
    legend_below(figure, 4)
    return figure


def gaps_by_rate(panels: dict[str, dict[str, Pair]]) -> Figure:
    """Held-out less training loss against rate: panel -> {family: (rates, gaps)}."""
    figure, axes = panel_canvas(len(panels), height=3.4)
    for ax, (title, families) in zip(axes, panels.items()):
        for family, places in families.items():
            color, marker = FAMILY_LOOKS[family]
            ax.plot(*places, marker, color=color, ms=5, label=family)
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set(title=title, xlabel="rate $I(X;T)$ on training inputs, nats")
    axes[0].set_ylabel("held-out less training loss")
    axes[0].legend()
    return figure


def expert_loads(
    loads: dict[str, np.ndarray], rows: Sequence[str], columns: Sequence[str]
) -> Figure:
    """Share of the inputs each expert serves, a panel a gate: name -> (R,), laid out as rows x
    columns of experts."""
    figure, axes = panel_canvas(2, (len(loads) + 1) // 2, 6, 5.4)
    tables = [load.reshape(len(rows), len(columns)) for load in loads.values()]
    for ax, title in zip(axes, loads):
        ax.set(title=title, aspect="equal")
        ax.set_xticks(range(len(columns)), columns)
        ax.set_yticks(range(len(rows)), rows)
        ax.tick_params(labelleft=ax in axes[::2])
    draw_tiles(figure, axes, tables, "Blues", "share of inputs")
    return figure


# --- chapter 16: private gates and noisy links ---


def against_limits(panels: list[dict], width: float = 7.8) -> Figure:
    """Panels of measured lines and limits: dict of x, xlabel, ylabel, limits and measured, name ->
    (P,) or a constant.

    Options: title, log (the x axis), ylim, bands: name -> (low, high), shaded; `straight` joins the
    measured points by chords, where these mean something.
    """
    figure, axes = panel_canvas(len(panels), width=width, height=4.6)
    for panel, ax in zip(panels, axes):
        log = "x" if panel.get("log") else ""
        for name, (low, high) in panel.get("bands", {}).items():
            shade = {"color": GREY, "alpha": 0.3, "lw": 0, "label": name}
            smooth_band(ax, panel["x"], low, high, log, **shade)
        for (name, values), style in zip(panel["limits"].items(), ("-", "--", ":", "-.")):
            smooth_line(ax, panel["x"], values, log, style, color=BLACK, lw=1.3, label=name)
        curved = None if panel.get("straight") else log
        named_lines(ax, panel["x"], panel["measured"], curved, lw=1.2, ls="-")
        if log:
            ax.set_xscale("log")
        ax.set(xlabel=panel["xlabel"], ylabel=panel["ylabel"], ylim=panel.get("ylim"))
        ax.set_title(panel.get("title", ""))
        # below, as curves fill the panel from corner to corner
        ax.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


# --- Theorem 2 with all its terms ---


def theorem2_sides(terms: dict[str, Theorem2Terms], ceilings: dict[str, float]) -> Figure:
    """Both sides of (10) against alpha, a panel for each name, with D(0) of the same name."""
    figure, axes = panel_canvas(len(terms), height=4.2)
    for (name, term), ax in zip(terms.items(), axes):
        alpha = term.parameter
        shade = {"color": ORANGE, "label": "δ of (8)"}
        hatched(ax.fill_between, alpha, term.distortion, term.train_risk, **shade)
        smooth_line(ax, alpha, term.bound(1), style="--", color=RED, label="right side, σ = 1")
        smooth_line(ax, alpha, term.bound(), style="-", color=RED, label="right side, σ = 1/2")
        ax.axhline(ceilings[name], color=BLACK, ls=":", label="$D(0)$: best single expert")
        risk = {"color": BLUE, "ms": 3, "label": "risk of the selected gate"}
        smooth_line(ax, alpha, term.population_risk, style="o-", **risk)
        smooth_line(ax, alpha, term.train_risk, style="-.", color=BLUE, label="its training risk")
        frontier = {"color": GREEN, "ls": (0, (6, 2)), "label": "$D$ at its rate"}
        smooth_line(ax, alpha, term.distortion, marker="", **frontier)
        ax.set(xlabel=r"$\alpha$", ylim=(0, None), title=name)
    axes[0].set_ylabel("loss")
    legend_below(figure, 3)
    return figure


def theorem2_region(
    alphas: Sequence[float], sizes: Sequence[int], levels: dict[str, np.ndarray]
) -> Figure:
    """Where (10) certifies that routing helps: name -> 0 nowhere, 1 with sigma = 1/2, 2 also with
    sigma = 1, (m, A)."""
    from matplotlib.patches import Rectangle  # a page, which has none, keeps the book's picture

    figure, axes = panel_canvas(len(levels), height=3.4)
    shades = {"no": PALE, r"with $\sigma=1/2$": SKY, r"also with $\sigma=1$": BLUE}
    for (name, level), ax in zip(levels.items(), axes):
        for value, shade in enumerate(shades.values()):
            for row, column in np.argwhere(level == value):
                ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc=shade, ec="white"))
        ax.set(xlim=(-0.5, len(alphas) - 0.5), ylim=(-0.5, len(sizes) - 0.5))
        ax.set(title=name, xlabel=r"$\alpha$")
        ax.set_xticks(range(0, len(alphas), 5), [f"{alpha:g}" for alpha in alphas[::5]])
        ax.set_yticks(range(len(sizes)), [f"{size:,}" for size in sizes])
        ax.tick_params(labelleft=ax is axes[0])
        ax.grid(False)
    axes[0].set_ylabel("sample size $m$")
    look = {"ec": BLACK, "lw": 0.4}
    handles = [
        Rectangle((0, 0), 1, 1, fc=shade, label=label, **look) for label, shade in shades.items()
    ]
    legend_below(figure, 3, handles)
    return figure


def theorem2_split(rows: dict[str, tuple[float, float, float, float]]) -> Figure:
    """E R(W) in three parts, a bar for each name -> (D, bracket, not learned or not selected,
    gap)."""
    figure, ax = canvas(7.8, 0.5 * len(rows) + 1.3)
    looks = {
        "$D$ at its rate": (GREEN, ""),
        "bracket: best known that sees $x$": (ORANGE, "//"),
        "not learned or not selected": (SKY, r"\\"),
    }
    parts = np.array(list(rows.values()))
    left = np.zeros(len(rows))
    for values, (label, (color, hatch)) in zip(parts.T, looks.items()):
        look = {"color": color, "hatch": hatch, "ec": "white", "height": 0.6}
        ax.barh(list(rows), values, left=left, label=label, **look)
        left = left + values
    train_risk = left - parts[:, 3]
    tick = {"color": BLACK, "ms": 22, "mew": 2, "label": "training risk"}
    ax.plot(train_risk, np.arange(len(rows)), "|", **tick)
    ax.invert_yaxis()
    ax.set_xlabel("loss")
    legend_below(figure, 2)
    return figure


def information_and_gap(panels: dict[str, dict[str, tuple]]) -> Figure:
    """G against I(S;W): panel name -> line name -> (I (P,), G (P,), whether the points are joined
    in their order)."""
    figure, axes = panel_canvas(len(panels), height=3.9)
    looks = {"soft": (BLUE, "o", "-"), "hard": (RED, "^", "--")}
    for (name, lines), ax in zip(panels.items(), axes):
        for label, (information, gap, joined) in lines.items():
            color, marker, style = looks[label]
            look = {"color": color, "ms": 4, "label": label}
            if joined:
                smooth_line(ax, information, gap, style=marker + style, **look)
            else:
                ax.plot(information, gap, marker, **look)
        ax.set(xlabel="$I(S;W)$ in nats", ylim=(0, None))
        ax.set_title(name, fontsize=9)
    axes[0].set_ylabel("gap $G$")
    axes[0].legend()
    return figure
