"""Figures of the part *The gate as a channel*."""

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
    named_lines,
    panel_canvas,
    sample,
    smooth_band,
    smooth_curve,
    smooth_line,
)
from expertbank.channels import bsc_distortion_rate
from expertbank.rate_distortion import RateDistortionCurve
from expertbank.synthetic import AlphaCurve, BscSelection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG_DASHES = (0, (6, 2))

# --- chapter 2: the gate as a channel ---


def gate_sharpness(
    sharpness: ArrayLike, rates: ArrayLike, usage: ArrayLike, n_experts: int, capacity: float
) -> Figure:
    """I(X;T) and H(T) in nats of one gate, (P,) each, against the factor (P,) on its logits, with a
    link's capacity."""
    figure, ax = canvas(5.8, 3.4)
    ax.fill_between(sharpness, 0, rates, color=BLUE, alpha=0.35, lw=0)
    hatched(ax.fill_between, sharpness, rates, usage, color=ORANGE)
    ax.semilogx(sharpness, rates, "-", color=BLUE, label="rate $I(X;T)$")
    ax.semilogx(sharpness, usage, "--", color=ORANGE, label="usage entropy $H(T)$")
    top = np.log(n_experts)
    ax.axhline(top, color=BLACK, ls=":", label=rf"$\log n$, $n = {n_experts}$")
    ax.axhline(capacity, color=RED, ls="-.", label=f"capacity $C = {capacity:g}$ of a link")
    ax.set(xlabel="sharpness: factor on the gate's logits", ylabel="nats", ylim=(0, 1.35 * top))
    ax.legend(ncols=2, loc="upper left")
    return figure


def rate_estimators(
    sizes: ArrayLike, estimates: dict[str, Pair], predicted: ArrayLike, truth: float, top: float
) -> Figure:
    """Estimates of I(X;T) from N inputs: name -> (mean (P,), standard deviation (P,)), the delta
    method's mean (P,)."""
    figure, ax = canvas()
    for (name, (mean, spread)), look in zip(estimates.items(), LINE_LOOKS):
        shade = {"color": look["color"], "alpha": 0.15, "lw": 0}
        smooth_band(ax, sizes, mean - spread, mean + spread, "x", **shade)
        smooth_line(ax, sizes, mean, "x", ms=4, label=name, **look)
    ax.plot(sizes, predicted, "x", color=BLACK, label="exact rows, predicted mean")
    ax.axhline(truth, color=BLACK, ls=":", lw=1.2, label="$I(X;T)$")
    ax.axhline(top, color=BLACK, ls=(0, (1, 4)), lw=1.2, label="$H(T)$")
    ax.set(xscale="log", xlabel="held-out inputs N", ylabel="nats", ylim=(0, 1.65 * top))
    ax.legend(ncols=2, loc="upper left")
    return figure


def closed_forms(
    errors: ArrayLike,
    capacities: Lines,
    epsilons: ArrayLike,
    rates: dict[int, np.ndarray],
    loose: np.ndarray,
    sharp: ArrayLike,
) -> Figure:
    """Left: capacity (P,) of each link against its error; right: rate (E,) of each k against
    epsilon, two caps (E,)."""
    figure, (left, right) = panel_canvas(2)
    named_lines(left, errors, capacities, marker="")
    left.set(xlabel="error or erasure probability", ylabel="capacity, nats per use")
    left.legend()
    responses = {f"randomised response, k = {k}": values for k, values in rates.items()}
    named_lines(right, epsilons, responses, marker="")
    right.loglog(epsilons, loose, ":", color=BLACK, label=r"$\epsilon$")
    right.loglog(epsilons, sharp, "-", color=BLACK, lw=1, label=r"$Z - 1 - \log Z$")
    right.set(xlabel=r"privacy parameter $\epsilon$", ylabel="$I$, nats per use")
    right.set_ylim(None, 3 * loose.max())
    right.legend(fontsize=8)
    return figure


def noisy_gates(panels: list[dict]) -> Figure:
    """One panel a link: dict of x, xlabel, title, and curves name -> (P,) or a constant, the
    received rate first."""
    figure, axes = panel_canvas(len(panels))
    for panel, ax in zip(panels, axes):
        named_lines(ax, panel["x"], panel["curves"], marker="")
        ax.lines[0].set_linewidth(2.4)
        ax.set(xlabel=panel["xlabel"], ylabel="nats", title=panel["title"])
        ax.set_ylim(0, 1.25 * max(np.max(values) for values in panel["curves"].values()))
        ax.legend(fontsize=8)
    return figure


def limited_risk(
    curve: RateDistortionCurve,
    capacity: float,
    limit: float,
    epsilons: ArrayLike,
    private_rates: ArrayLike,
    private_risks: ArrayLike,
    limits: Lines,
) -> Figure:
    """Left: D(R), a link of given capacity, and private gates (E,); right: their risks and limits
    against epsilon."""
    figure, (left, right) = panel_canvas(2)
    left.plot(curve.rate, curve.distortion, "-", color=BLACK, label="$D(R)$")
    corner = ([capacity, capacity, 0], [0, limit, limit])
    left.plot(*corner, "--", color=RED, lw=1, label=f"$C = {capacity:g}$, $D(C)$")
    private = {"color": BLUE, "ms": 3, "label": "randomised response"}
    left.plot(private_rates, private_risks, "o:", **private)
    left.set(xlabel="rate $I$, nats", ylabel="expected loss", ylim=(0, None), xlim=(0, None))
    right.plot(epsilons, private_risks, "o:", **private)
    for (name, values), color, style in zip(limits.items(), (GREEN, BLACK), ("--", "-")):
        right.plot(epsilons, values, style, color=color, label=name)
    right.set(xlabel=r"privacy parameter $\epsilon$", ylabel="expected loss", ylim=(0, None))
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    return figure


# --- chapter 3: Theorem 1 ---


def cumulants(
    lams: np.ndarray,
    candidates: np.ndarray,
    centred: ArrayLike,
    uncentred: ArrayLike,
    sample_size: int,
) -> Figure:
    """Log moment generating functions (P,) against lambda: each candidate's (R, P), and of the
    whole product law."""
    figure, ax = canvas()
    parabola = lams**2 / (8 * sample_size)
    ax.plot(lams, parabola, "-", color=BLACK, label=r"$\lambda²\sigma²/2m$, $\sigma = 1/2$")
    singles = ax.plot(lams, np.transpose(candidates), "-", color=SKY, lw=1.2)
    singles[0].set_label("one candidate")
    label = "random candidate, centred on $R(W)$"
    ax.plot(lams, centred, "--", color=BLUE, lw=2, label=label)
    ax.plot(lams, uncentred, "-.", color=RED, lw=2, label="random candidate, not centred")
    ax.set(xlabel=r"$\lambda$", ylabel="log moment generating function, nats")
    ax.set_xlim(lams[0], lams[-1])
    ax.legend(loc="upper center")
    return figure


def decoupling(
    lams: np.ndarray, values: ArrayLike, gap: float, information: float, sample_size: int
) -> Figure:
    """The Donsker-Varadhan functional (P,) of the gap against lambda, below I(S;W) and above its
    two parabolas."""
    figure, ax = canvas()
    ax.axhline(information, color=BLACK, label="$I(S;W)$")
    ax.plot(lams, values, "-", color=BLUE, lw=2, label="Donsker-Varadhan value")
    looks = ((0.5, "1/2", GREEN, "--", "o"), (1, "1", RED, "-.", "s"))
    for sigma, name, color, style, marker in looks:
        parabola = lams * gap - (lams * sigma) ** 2 / (2 * sample_size)
        label = rf"$\lambda G - \lambda²\sigma²/2m$, $\sigma = {name}$"
        ax.plot(lams, parabola, style, color=color, label=label)
        peak = sample_size * gap / sigma**2
        ax.plot(peak, peak * gap / 2, marker, color=color)
    ax.axhline(0, color=GREY, lw=0.6)
    ax.set(xlabel=r"$\lambda$", ylabel="nats", xlim=(lams[0], lams[-1]))
    reach = max(information, 1e-9)  # a learner may ignore its sample
    ax.set_ylim(-0.3 * reach, 1.75 * reach)
    ax.legend(ncols=2, loc="upper left")
    return figure


def bounds_by_alpha(alphas: ArrayLike, gaps: ArrayLike, bounds: Lines, union: float) -> Figure:
    """Exact gap (P,) and bounds name -> (P,) of a learner against alpha, with the union bound."""
    figure, ax = canvas()
    curve = smooth_curve(alphas, gaps)
    ax.plot(*curve, lw=2, markevery=0.1, ms=4, label="gap")
    named_lines(ax, alphas, bounds, "", marker="")
    ax.axhline(union, color=BLACK, ls=":", label=r"union bound, √($\log R/2m$)")
    ax.set(xlabel=r"$\alpha$", ylabel="risk", xlim=(0, 1), ylim=(0, None))
    ax.legend(loc="upper left")
    return figure


# --- chapter 4: the alpha-mixture ---


def alpha_plane(curve: AlphaCurve, marked: Sequence[float] = (0, 0.3, 0.5, 0.7, 1)) -> Figure:
    """P1 Fig. 2: the gap against the information, under the bound's lines.

    The alphas in `marked` are named.
    """
    figure, ax = canvas(6.8, 4.6)
    reach = 1.06 * max(curve.information.max(), 0.1)
    line = np.linspace(0, reach, 400)
    for sigma, style, name in ((1, "--", "1"), (0.5, "-", "1/2")):
        bound = sigma * np.sqrt(2 * line / curve.sample_size)
        ax.plot(line, bound, style, color=BLACK, lw=1.3, label=rf"bound, $\sigma$ = {name}")
    test = {"color": ORANGE, "mfc": "white", "label": "separate test set"}
    smooth_line(ax, curve.information, curve.test_gap, style="s:", ms=5, **test)
    pool = {"color": BLUE, "label": "pool as exact population"}
    smooth_line(ax, curve.information, curve.gap, style="o-", ms=5, **pool)
    ax.errorbar(curve.information, curve.gap, 2 * curve.gap_error, fmt="none", ecolor=BLUE)
    for alpha in marked:
        i = int(np.abs(curve.alphas - alpha).argmin())
        place = (curve.information[i], curve.gap[i])
        name = rf"$\alpha$ = {curve.alphas[i]:g}"
        ax.annotate(name, place, (7, -14), textcoords="offset points")
    ax.set(xlabel="$I(S;W)$ (nats)", ylabel="mean generalisation gap")
    ax.set_xlim(-0.03 * reach, 1.12 * reach)
    top = np.sqrt(2 * reach / curve.sample_size)
    ax.set_ylim(min(-0.07 * top, 1.2 * curve.test_gap.min()), 1.05 * top)
    legend_below(figure, 2)
    return figure


def alpha_grid(curves: dict[tuple[int, int, int, int], AlphaCurve]) -> Figure:
    """One panel per sample size, log-log: curves by (dimension, experts, candidates, m)."""
    dimensions, candidates, sizes = (sorted({key[i] for key in curves}) for i in (0, 2, 3))
    figure, (*axes, corner) = panel_canvas(2, (len(sizes) + 2) // 2, 6.6, 6)
    colours = dict(zip(dimensions, (ORANGE, GREEN, BLUE, PINK)))
    styles = dict(zip(candidates, (":", "--", "-", "-.")))
    # sigma -> stroke and width
    bounds = {"1": {"ls": LONG_DASHES, "lw": 1}, "1/2": {"ls": "-", "lw": 1.8}}
    line = np.geomspace(1e-4, 6, 50)
    for m, ax in zip(sizes, axes):
        for sigma, look in zip((1, 0.5), bounds.values()):
            ax.loglog(line, sigma * np.sqrt(2 * line / m), color=BLACK, marker="", **look)
        for (dimension, _, k, size), curve in curves.items():
            seen = (curve.information > 0) & (curve.gap > 0)
            if size == m and seen.any():
                place = smooth_curve(curve.information[seen], curve.gap[seen], "xy")
                ax.loglog(*place, styles[k], color=colours[dimension], lw=1.2)
        ax.set(title=f"m = {m}", xlabel="$I(S;W)$ (nats)", xlim=(1e-3, 6), ylim=(3e-5, 0.5))
    for ax in axes[::2]:
        ax.set_ylabel("mean generalisation gap")
    entries = {rf"bound, $\sigma$ = {sigma}": look for sigma, look in bounds.items()}
    entries |= {f"d = {d}": {"color": colour, "lw": 4} for d, colour in colours.items()}
    entries |= {f"{k} candidates": {"ls": style, "lw": 1.2} for k, style in styles.items()}
    handles = [sample(label, **{"color": BLACK, **look}) for label, look in entries.items()]
    corner.axis("off")
    corner.legend(handles=handles, loc="center")
    return figure


# --- chapter 5: the binary symmetric channel ---


def bsc_plane(
    betas: Sequence[float],
    points: Sequence[BscSelection],
    sample_size: int,
    sampled: Sequence[BscSelection] = (),
    marked: Sequence[float] = (),
) -> Figure:
    """P1 Fig. 3: mean risks against rates, the curve D(R), and (13) at each point.

    `points` are exact, one for each of `betas`; `sampled` are Monte Carlo ones; betas in `marked`
    are named.
    """
    figure, ax = canvas(6.8, 4.6)
    rate = np.array([point.rate for point in points])
    risk = np.array([point.risk for point in points])
    information = np.array([point.information for point in points])
    curve = bsc_distortion_rate(rate)
    span = np.linspace(max(0, rate.min() - 0.03), rate.max() + 0.03, 200)
    ax.plot(span, bsc_distortion_rate(span), "-", color=BLACK, lw=1.6, label="$D(R)$, closed form")
    for sigma, look, name in ((1, "^--", "1"), (0.5, "v:", "1/2")):
        bound = curve + sigma * np.sqrt(2 * information / sample_size)
        label = rf"(13), $\sigma$ = {name}"
        smooth_line(ax, rate, bound, style=look, color=RED, mfc="white", lw=1, label=label)
    if sampled:
        rates = [point.rate for point in sampled]
        risks = [point.risk for point in sampled]
        ax.plot(rates, risks, "x", color=GREEN, label="mean risk, Monte Carlo")
    above = risk > curve + np.sqrt(2 * information / sample_size)
    ax.plot(rate[~above], risk[~above], "o", color=BLUE, label="mean risk, below (13)")
    over: Any = {"color": ORANGE, "mec": BLACK, "label": "mean risk, above (13)"}
    ax.plot(rate[above], risk[above], "D", **over)
    for beta, x, y in zip(betas, rate, risk):
        if beta in marked:
            name = rf"$\beta$ = {beta:g}"
            ax.annotate(name, (x, y), (7, 3), textcoords="offset points", fontsize=9)
    ax.set(xlabel="mean gating rate (nats)", ylabel="mean risk")
    legend_below(figure, 3)
    return figure


def bsc_information(
    betas: Sequence[float],
    exact: Sequence[BscSelection],
    sampled: Sequence[BscSelection],
    ceiling: float,
) -> Figure:
    """I(S;W) against beta: exact results as a line, Monte Carlo ones with two standard errors."""
    figure, (left, right) = panel_canvas(2, width=8.2, height=3.6)
    truth = np.array([point.information for point in exact])
    estimate = np.array([point.information for point in sampled])
    error = np.array([point.information_error for point in sampled])
    left.axhline(ceiling, color=BLACK, ls=":", lw=1, label="log of the number of candidates")
    whole = {"color": BLUE, "lw": 1.8, "label": "exact sum over $K$"}
    smooth_line(left, betas, truth, "x", "-", **whole)
    measured = {"color": RED, "capsize": 3, "label": "Monte Carlo, ±2 errors"}
    left.errorbar(betas, estimate, 2 * error, fmt="x", **measured)
    left.set(xscale="log", xlabel=r"inverse temperature $\beta$", ylabel="$I(S;W)$ (nats)")
    left.legend(loc="upper left", bbox_to_anchor=(0, 0.93))
    right.axhspan(-2, 2, color=SKY, alpha=0.2, lw=0)
    right.axhline(0, color=BLUE, lw=1.8)
    right.semilogx(betas, (estimate - truth) / error, "x", color=RED)
    right.set_xlabel(r"inverse temperature $\beta$")
    right.set(ylabel="(Monte Carlo - exact) / error", ylim=(-4, 4))
    return figure


def bsc_terms(betas: ArrayLike, settings: dict[str, tuple[int, list[BscSelection]]]) -> Figure:
    """Panels of the excess E[p_W] - D(R_g) beside the bound's term, against beta, both axes
    logarithmic.

    `settings` maps a panel's title to (sample size, results); where the excess is larger is shaded.
    """
    figure, (*axes, corner) = panel_canvas(2, (len(settings) + 2) // 2, 6.6, 5.6)
    for ax, (title, (sample_size, points)) in zip(axes, settings.items()):
        excess = np.array([point.excess for point in points])
        information = np.array([point.information for point in points])
        term = np.sqrt(2 * information / sample_size)
        label = "excess of the mean risk over $D$"
        ax.loglog(betas, excess, "-", color=BLUE, lw=1.8, label=label)
        label = "√($2I/m$), the term in (13)"
        ax.loglog(betas, term, "--", color=RED, lw=1.4, label=label)
        label = r"the same with $\sigma$ = 1/2"
        ax.loglog(betas, term / 2, ":", color=RED, lw=1.4, label=label)
        shade = {"color": ORANGE, "alpha": 0.25, "lw": 0, "label": "mean risk above (13)"}
        whole = ax.get_xaxis_transform()
        ax.fill_between(betas, 0, 1, where=excess > term, transform=whole, **shade)
        ax.set(title=title, xlabel=r"inverse temperature $\beta$", ylim=(1e-4, 1))
    for ax in axes[::2]:
        ax.set_ylabel("risk")
    corner.axis("off")
    corner.legend(*axes[0].get_legend_handles_labels(), loc="center")
    return figure
