"""Figures of the part *Finite banks on MNIST*."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from expertbank.book.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LINE_LOOKS,
    ORANGE,
    PINK,
    RED,
    SKY,
    Lines,
    Pair,
    canvas,
    hatched,
    legend_below,
    name_ticks,
    named_lines,
    panel_canvas,
    sample,
    smooth_band,
    smooth_line,
)
from expertbank.rate_distortion import RateDistortionCurve
from expertbank.uncertainty import AccuracyRateCost, CurveBand

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from expertbank.book.figures.vector import BookFigure

# a bound is drawn at plus and minus its value; markers would sit on the frame
BOUND_LOOKS: Any = ({"color": RED, "ls": "--"}, {"color": GREEN, "ls": "-."})
GAP_LABEL = "gap of one run: population risk − empirical risk"

# --- chapter 6: the MNIST bank ---


def bank_protocol() -> Figure:
    """P2's experiment as a chain of boxes: pool, sample, empirical risks, posterior, expert, what
    is measured."""
    across = [(0, 1), (1, 1), (2, 1), (2, 0), (1, 0), (0, 0)]
    down = [(0, -row) for row in range(6)]
    figure = _protocol(across, (7.4, 3.2), repeat=((1, 0.3), (1, 0.72), (1.05, 0.51)))
    figure.narrow_form = _protocol(down, (3.6, 6.4), repeat=((0.62, -4), (0.62, -1), (0.66, -2.5)))
    return figure


def _protocol(
    places: Sequence[tuple[float, float]], size: tuple[float, float], repeat: Sequence[tuple]
) -> BookFigure:
    """The boxes of the protocol at these places, an arrow from each to the next, and one that
    goes back, as (from, to, place of its words)."""
    texts = [
        "Pool\n60,000 images\nlosses of $R$ experts",
        "Sample $S$\n$m$ images, drawn\nwith replacement",
        "Empirical risk\nof each of\nthe $R$ experts",
        "Posterior over experts\n$\\alpha$: lowest risk\n$1-\\alpha$: any expert",
        "Expert $W$\ndrawn from\nthe posterior",
        "Measured over $M$ samples\ninformation $I(S;W)$\nand gap: population\nless empirical risk",
    ]
    figure, ax = canvas(*size)
    arrow = {"arrowstyle": "-|>", "lw": 1.5, "color": BLACK}
    boxes = []
    for place, (text, (column, row)) in enumerate(zip(texts, places)):
        edge = BLUE if place < 3 else RED
        look = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": edge, "lw": 1.5}
        boxes.append(ax.text(column, row, text, ha="center", va="center", bbox=look))
    for box, following in pairwise(boxes):
        ends = {"xy": following.get_position(), "xytext": box.get_position()}
        patches = {"patchA": box.get_bbox_patch(), "patchB": following.get_bbox_patch()}
        ax.annotate("", **ends, arrowprops=arrow | patches, zorder=1)
    start, end, words = repeat
    ax.annotate("", end, start, arrowprops=arrow | {"ls": ":"})
    ax.text(words[0], words[1], "repeat $M$ times", va="center")
    columns, rows = zip(*places)
    ax.set(xlim=(min(columns) - 0.45, max(columns) + 0.45 + (len(set(columns)) == 1) * 0.9))
    ax.set(ylim=(min(rows) - 0.45, max(rows) + 0.45))
    ax.axis("off")
    return figure


def bank_overview(
    accuracies: np.ndarray,
    disagreements: ArrayLike,
    accuracy_range: tuple[float, float],
    disagreement_range: tuple[float, float],
) -> Figure:
    """Test accuracies (R,) sorted, and a histogram of the pairwise disagreements (pairs,), with
    reported ranges."""
    figure, (upper, lower) = panel_canvas(rows=2, width=6.2, height=6)
    hatched(upper.axhspan, *accuracy_range, color=SKY, label="range reported in P2")
    order = np.arange(1, len(accuracies) + 1)
    upper.plot(order, np.sort(accuracies)[::-1], "o", color=BLUE, label="our experts")
    upper.set(xlabel="expert, from best to worst", ylabel="test accuracy (share of images)")
    upper.set_xticks([1, *range(5, len(accuracies) + 1, 5)])
    hatched(lower.axvspan, *disagreement_range, color=SKY, label="range reported in P2")
    lower.hist(disagreements, bins=25, color=BLUE, label="our pairs")
    lower.set(xlabel="test images on which a pair disagrees (share)", ylabel="pairs of experts")
    upper.legend()
    lower.legend()
    return figure


def pool_against_test(pool_risks: np.ndarray, test_risks: np.ndarray) -> Figure:
    """Error of each expert (R,) on the pool and on the test split, with the line of equality."""
    figure, ax = canvas(5.6, 4.2)
    both = np.concatenate([pool_risks, test_risks])
    ends = [both.min(), both.max()]
    ax.plot(ends, ends, "--", color=BLACK, label="same error on both")
    ax.plot(pool_risks, test_risks, "o", color=BLUE, label="one expert")
    ax.set(xlabel="error on the pool (training split)", ylabel="error on the test split")
    ax.legend()
    return figure


def bank_trends(
    alphas: ArrayLike,
    information: ArrayLike,
    gaps: Lines,
    paper_alphas: ArrayLike,
    paper_information: ArrayLike,
    paper_gaps: ArrayLike,
) -> Figure:
    """Above: information in nats (A,) against alpha. Below: gaps name -> (A,). The paper's points
    (P,) in both."""
    figure, (upper, lower) = panel_canvas(rows=2, width=6.2, height=6.2)
    paper = {"color": BLACK, "ms": 8, "label": "Table II of P2"}
    named_lines(upper, alphas, {"our bank": information}, "")
    upper.plot(paper_alphas, paper_information, "x", **paper)
    upper.set(xlabel=r"$\alpha$", ylabel="information $I(S;W)$, nats")
    named_lines(lower, alphas, gaps, "")
    lower.plot(paper_alphas, paper_gaps, "x", **paper)
    lower.axhline(0, color=GREY, lw=0.8)
    lower.set(xlabel=r"$\alpha$", ylabel="mean gap $G$")
    upper.legend(loc="upper left")
    lower.legend(loc="upper left")
    return figure


def bank_winners(frequencies: np.ndarray, risks: ArrayLike) -> Figure:
    """How often each expert (R,) has the lowest empirical risk, experts ordered by their risk
    (R,)."""
    order = np.argsort(risks)
    figure, ax = canvas(height=3.4)
    ax.bar(np.arange(1, len(order) + 1), frequencies[order], color=BLUE, label="wins")
    ax.axhline(1 / len(order), color=RED, ls="--", label="$1/R$: no preference")
    ax.set_xlabel("expert, from lowest to highest error on the pool")
    ax.set_ylabel("share of samples won")
    ax.set_xticks([1, *range(5, len(order) + 1, 5)])
    ax.legend()
    return figure


def bank_gap_histogram(gaps: np.ndarray, bounds: dict[str, float]) -> Figure:
    """P2's Fig. 2: gaps (M,) of single runs, their mean, and plus and minus each bound name ->
    value."""
    figure, ax = canvas(height=3.4)
    ax.hist(gaps, bins=30, color=SKY, edgecolor="white", lw=0.5)
    mean = float(np.mean(gaps))
    ax.axvline(mean, color=BLACK, label=f"mean gap {mean:.4f}")
    for (name, value), look in zip(bounds.items(), BOUND_LOOKS):
        ax.axvline(value, label=f"± {name} {value:.4f}", **look)
        ax.axvline(-value, **look)
    ax.set(xlabel=GAP_LABEL, ylabel="runs")
    ax.set_ylim(0, 1.35 * ax.get_ylim()[1])
    ax.legend(loc="upper center", ncols=3)
    return figure


# --- chapter 7: Blahut-Arimoto curves ---


def routing_curves(
    curves: dict[str, RateDistortionCurve], points: dict[str, tuple[float, float]]
) -> Figure:
    """Distortion against rate: curves by name, and single gates name -> (rate, distortion)."""
    figure, ax = canvas(height=4)
    for name, curve in curves.items():
        order = np.lexsort((-curve.distortion, curve.rate))
        named_lines(ax, curve.rate[order], {name: curve.distortion[order]}, "")
    for (name, place), color, marker in zip(points.items(), (GREEN, BLACK), "D*"):
        ax.plot(*place, marker, color=color, ms=9, label=name)
    ax.set(xlabel="rate $I(X;T)$, nats", ylabel="expected loss (share of errors)", ylim=(0, None))
    ax.legend()
    return figure


def rate_by_lambda(curves: dict[str, RateDistortionCurve], criticals: dict[str, float]) -> Figure:
    """Rate against lambda, curves by name, with the critical lambda of each as a vertical line."""
    figure, ax = canvas()
    for (name, curve), look in zip(curves.items(), LINE_LOOKS):
        seen = (curve.lam > 0) & (curve.rate > 0)
        order = np.argsort(curve.lam[seen])
        places = (curve.lam[seen][order], curve.rate[seen][order])
        smooth_line(ax, *places, "xy", ms=4, label=name, **look)
        label = rf"critical $\lambda$ = {criticals[name]:.1f}: rate 0"
        ax.axvline(criticals[name], lw=1.2, label=label, **look | {"marker": ""})
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel=r"price $\lambda$ of a nat", ylabel="rate $I(X;T)$, nats")
    ax.legend(loc="lower left")
    return figure


def marginals_by_lambda(lams: ArrayLike, marginals: np.ndarray, shown: int = 6) -> Figure:
    """Share of inputs that each expert serves, (P, R), against lambda (P,): the most used ones, and
    the rest."""
    order = np.argsort(-marginals.max(axis=0), kind="stable")
    figure, ax = canvas()
    shares = {f"expert {expert}": marginals[:, expert] for expert in order[:shown]}
    named_lines(ax, lams, shares, "x")
    rest = marginals[:, order[shown:]]
    label = f"the other {rest.shape[1]} together"
    smooth_line(ax, lams, rest.sum(axis=1), "x", "-", color=SKY, lw=3, label=label)
    ax.set_xscale("log")
    ax.set(xlabel=r"price $\lambda$ of a nat", ylabel="share of images served", ylim=(0, None))
    ax.legend(loc="upper left", ncols=2)
    return figure


# --- chapter 8: the solver ---


def stalling(
    shares: np.ndarray,
    used: np.ndarray,
    newton: dict[str, np.ndarray],
    gaps: dict[str, np.ndarray],
    tol: float,
) -> Figure:
    """Left: Blahut-Arimoto's shares (K, R) by step, those `used` (R,) at the optimum apart; right:
    gaps by step."""
    figure, (left, right) = panel_canvas(2, height=3.9)
    steps = np.unique(np.geomspace(1, len(shares), 400).astype(int))
    kept = left.loglog(steps, shares[steps - 1][:, used], "-", color=BLUE, lw=1)
    kept[0].set_label("used at the optimum")
    fading = left.loglog(steps, shares[steps - 1][:, ~used], "--", color=RED, lw=1)
    if fading:  # none fade where the optimum uses all
        fading[0].set_label("not used")
    left.set(xlabel="Blahut-Arimoto steps", ylabel="share of an expert", ylim=(1e-9, 2))
    slow = {f"Blahut-Arimoto, {name}": path[steps - 1] for name, path in gaps.items()}
    named_lines(right, steps, slow, marker="")
    for (name, path), look in zip(newton.items(), LINE_LOOKS):
        evaluations = np.arange(1, len(path) + 1)
        floored = np.maximum(path, tol / 10)
        right.loglog(evaluations, floored, label=f"Newton, {name}", **look | {"linestyle": ":"})
    right.axhline(tol, color=BLACK, lw=0.8, label="tolerance")
    right.set(xlabel="evaluations of the gradient", ylabel="gap, nats")
    right.set_ylim(tol / 20, 30)
    left.legend(loc="lower left")
    right.legend(loc="upper right", fontsize=8)
    return figure


def closing_bounds(panels: dict[str, Pair]) -> Figure:
    """Bounds on the least Lagrangian by step: name -> (upper (K,), lower (K,)), one panel each, the
    first linear."""
    figure, axes = panel_canvas(len(panels), height=3.6)
    for ax, (name, (upper, lower)) in zip(axes, panels.items()):
        steps = np.arange(1, len(upper) + 1)
        shade = {"color": SKY, "alpha": 0.3, "lw": 0, "label": "between: the least there is"}
        ax.fill_between(steps, lower, upper, **shade)
        few = len(upper) < 50
        sides = {"upper: the gate in hand": upper, "lower: proved so far": lower}
        named_lines(ax, steps, sides, marker="o" if few else "")
        ax.set(xlabel="evaluations of the gradient", title=name)
        ax.set_xscale("linear" if few else "log")
    for ax in axes[1:]:
        ax.sharey(axes[0])
    axes[0].set_ylabel(r"expected loss + $\lambda$ rate")
    axes[-1].legend(loc="lower right")
    return figure


def curve_bands(
    coarse: RateDistortionCurve, curves: dict[float, RateDistortionCurve], rates: np.ndarray
) -> Figure:
    """Left: a coarse curve's points and band; right: width of the band by rate (P,), band ->
    curve."""
    figure, (left, right) = panel_canvas(2)
    low = coarse.lower(rates)
    high = coarse.upper(rates)
    left.fill_between(rates, low, high, color=ORANGE, alpha=0.5, lw=0, label="band")
    named_lines(
        left, rates, {"upper: chords": high, "lower: supporting lines": low}, lw=1, marker=""
    )
    left.plot(coarse.rate, coarse.distortion, "o", color=BLACK, ms=5, label="solved points")
    left.set(xlabel="rate, nats", ylabel="expected loss", ylim=(0, None))
    left.legend()
    for (band, curve), look in zip(curves.items(), LINE_LOOKS):
        line = look | {"marker": ""}
        width = np.maximum(curve.upper(rates) - curve.lower(rates), 1e-12)
        label = f"band {band:g}: {len(curve.lam)} points"
        right.semilogy(rates, width, lw=1, label=label, **line)
        right.axhline(band, lw=0.8, **line)
    right.set(xlabel="rate, nats", ylabel="width of the band, units of loss")
    right.set_ylim(min(curves) / 50, 20 * max(curves))
    right.legend(loc="upper right", fontsize=8)
    return figure


def bootstrap_bands(panels: dict[str, CurveBand], full: RateDistortionCurve) -> Figure:
    """D with its intervals, a panel a sample, and the curve of all inputs over each."""
    figure, axes = panel_canvas(len(panels), height=3.9)
    for ax, (name, band) in zip(axes, panels.items()):
        shade = {"alpha": 0.35, "lw": 0}
        whole = {"color": SKY, "label": "95%, all rates at once", **shade}
        smooth_band(ax, band.rates, band.simultaneous_low, band.simultaneous_high, **whole)
        each = {"color": BLUE, "label": "95%, each rate", **shade}
        smooth_band(ax, band.rates, band.low, band.high, **each)
        lines = {"$D$ of the sample": band.distortion, "$D$ of all": full.upper(band.rates)}
        named_lines(ax, band.rates, lines, "", marker="")
        ax.set(xlabel="rate, nats", title=name, ylim=(0, None))
    axes[0].set_ylabel("expected loss")
    axes[0].legend(fontsize=8)
    return figure


def optimism_by_size(sizes: Sequence[int], sides: dict[str, Pair]) -> Figure:
    """How far the value is from the truth by inputs fitted to (P,): name -> (fitted (P,), held out
    (P,))."""
    figure, axes = panel_canvas(len(sides))
    for ax, (name, (fitted, held_out)) in zip(axes, sides.items()):
        sides_of = {"the inputs fitted to": fitted, "held-out inputs": held_out}
        named_lines(ax, sizes, sides_of, "x")
        ax.axhline(0, color=BLACK, lw=1.2, label="all images")
        ax.set(xscale="log", xlabel="inputs that the shares are fitted to", title=name)
        name_ticks(ax.xaxis, sizes, "{:,}")
    axes[0].set_ylabel("value less that of all images")
    axes[0].legend()
    return figure


def cost_surface(surface: AccuracyRateCost, unit: str) -> Figure:
    """Loss against rate (left) and against mean cost (right), a line for each exchange rate."""
    figure, (left, right) = panel_canvas(2, height=3.9)
    for price, rate, cost, loss in zip(
        surface.exchange_rates, surface.rate, surface.cost, surface.loss
    ):
        named_lines(left, rate, {f"{price:g} loss per {unit}": loss}, "")
        smooth_line(right, cost, loss, "x", ms=4)
    left.set(xlabel="rate, nats", ylabel="expected loss", ylim=(0, None))
    right.set(xscale="log", xlabel=f"mean cost, {unit}", ylabel="expected loss", ylim=(0, None))
    left.legend(fontsize=8)
    return figure


# --- the solver's benchmarks ---

PEER_LOOKS = {
    "ours": (BLUE, "*"),
    "Blahut-Arimoto": (BLACK, "o"),
    "Blahut-Arimoto, merged rows": (ORANGE, "s"),
    "dit": (PINK, "P"),
    "dit, inner loop": (PINK, "X"),
    "SLSQP": (RED, "D"),
    "L-BFGS-B": (GREEN, "^"),
    "cvxpy + CLARABEL": (SKY, "v"),
}


# the other solvers of the table lie between these; the cycle has looks for all but the last
RACED = (
    "ours",
    "Blahut-Arimoto",
    "squared extrapolation",
    "constrained BA",
    "CommOT",
    "root tracking",
    "cvxpy + CLARABEL",
    "QICS",
)


def solved_within(rows: list[dict]) -> Figure:
    """Share of the reference problems that a peer has solved within a time, from
    benchmarks/reference_peers.py."""
    figure, ax = canvas(height=4.2)
    longest = max(row["seconds"] for row in rows if row["seconds"])
    for peer in RACED:
        own = [row for row in rows if row["peer"] == peer]
        times = sorted(row["seconds"] for row in own if row["outcome"] == "solved")
        shares = np.arange(1, len(times) + 1) / max(len(own), 1)
        line = np.repeat(shares, 2)
        until = np.repeat([*times, longest], 2)[1:-1]
        look: dict[str, Any] = {"color": RED, "marker": "x", "ls": ":"} if peer == RACED[-1] else {}
        ax.plot(until, line, label=peer, markevery=4, ms=4, **look)
    ax.set(xscale="log", xlabel="seconds", ylabel="share of the problems solved", ylim=(0, 1.03))
    legend_below(figure, 3)
    return figure


def benchmark_growth(results: dict) -> Figure:
    """Seconds for one price against inputs and against experts, from benchmarks/solver.py, with the
    fitted slopes."""
    figure, axes = panel_canvas(2, height=3.6)
    slopes = {row["axis"]: row for row in results["slopes"]}
    for ax, size, other in zip(axes, ("inputs", "experts"), ("experts", "inputs")):
        rows = results[f"growth_{size}"]
        sizes, seconds = np.array([(row[size], row["seconds"]) for row in rows]).T
        ax.loglog(sizes, seconds, label=f"measured, {rows[0][other]:,} {other}")
        upper = sizes >= slopes[size]["upper_from_size"]
        slope = slopes[size]["upper_slope"]
        shift = np.log(sizes[upper]) - np.log(sizes[upper]).mean()
        fitted = np.exp(np.log(seconds[upper]).mean() + slope * shift)
        label = f"slope {slope:.2f} (shifted up)"
        ax.loglog(sizes[upper], 2 * fitted, "--", color=BLACK, label=label)
        ax.set(xlabel=size, ylabel="seconds", ylim=(None, 6 * seconds.max()))
        ax.yaxis.set_minor_formatter("")
        ax.legend(loc="upper left")
    axes[1].set_xscale("log", base=2)
    return figure


def benchmark_peers(results: dict, least: float = 1e-16, tol: float = 1e-9) -> Figure:
    """Certified gap against seconds of every tool at one price, a panel a table; open where time
    ran out."""
    names = [row["table"] for row in results["tables"]]
    runs = [row for row in results["points"] if row["tool"] in PEER_LOOKS]
    seconds = [run["seconds"] for run in runs]
    figure, axes = panel_canvas(2, (len(names) + 1) // 2, 6.4, 6.6)
    by_name = dict(zip(names, axes))
    for run in runs:
        color, marker = PEER_LOOKS[run["tool"]]
        face = "none" if run["capped"] else color
        size = 10 if run["tool"] == "ours" else 6
        place = (run["seconds"], max(run["gap"], least))
        by_name[run["table"]].plot(*place, marker, color=color, mfc=face, ms=size)
    for name, ax in by_name.items():
        ax.axhline(tol, color=BLACK, lw=0.8, ls="--")
        ax.set(xscale="log", yscale="log", xlabel="seconds", ylim=(least / 3, 300))
        ax.set_xlim(min(seconds) / 2, 2 * max(seconds))
        ax.set_title(name.replace("x", "×"), fontsize=9)
        ax.tick_params(labelleft=ax in axes[::2])
    for ax in axes[::2]:
        ax.set_ylabel("certified gap, nats")
    handles = [
        sample(tool, color, marker=marker, ls="") for tool, (color, marker) in PEER_LOOKS.items()
    ]
    legend_below(figure, 3, handles)
    return figure
