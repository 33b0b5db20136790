"""Figures of the part *The gate as a channel*."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from expertbank.book.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    canvas,
    legend_below,
)
from expertbank.channels import bsc_distortion_rate

# --- chapter 2: the gate as a channel ---


def gate_sharpness(sharpness, rates, usage, n_experts: int, capacity: float) -> Figure:
    """I(X;T) and H(T) in nats of one gate, (P,) each, against the factor (P,) on its logits, with a
    link's capacity."""
    figure, axes = canvas()
    axes.fill_between(sharpness, 0, rates, color=BLUE, alpha=0.35, lw=0)
    axes.fill_between(sharpness, rates, usage, color=ORANGE, alpha=0.25, lw=0, hatch="//")
    axes.semilogx(sharpness, rates, color=BLUE, label="rate $I(X;T)$")
    axes.semilogx(sharpness, usage, color=ORANGE, ls="--", label="usage entropy $H(T)$")
    axes.axhline(np.log(n_experts), color=BLACK, ls=":", label=rf"$\log n$, $n = {n_experts}$")
    axes.axhline(capacity, color=RED, ls="-.", label=f"capacity $C = {capacity:g}$ of a link")
    axes.set(
        xlabel="sharpness: factor on the gate's logits",
        ylabel="nats",
        ylim=(0, 1.35 * np.log(n_experts)),
    )
    axes.legend(ncols=2, loc="upper left")
    return figure


def rate_estimators(sizes, estimates: dict, predicted, truth: float, top: float) -> Figure:
    """Estimates of I(X;T) from N inputs: name -> (mean (P,), standard deviation (P,)), the delta
    method's mean (P,)."""
    figure, axes = canvas(width=6.6, height=3.8)
    looks = zip((BLUE, GREEN, RED), "os^", ("-", "-.", "--"))
    for (name, (mean, spread)), (color, marker, style) in zip(estimates.items(), looks):
        axes.fill_between(sizes, mean - spread, mean + spread, color=color, alpha=0.15, lw=0)
        axes.semilogx(sizes, mean, color=color, marker=marker, ls=style, ms=4, label=name)
    axes.plot(sizes, predicted, color=BLACK, ls="", marker="x", label="exact rows, predicted mean")
    axes.axhline(truth, color=BLACK, ls=":", lw=1.2, label="$I(X;T)$")
    axes.axhline(top, color=BLACK, ls=(0, (1, 4)), lw=1.2, label="$H(T)$")
    axes.set(xlabel="held-out inputs N", ylabel="nats", ylim=(0, 1.65 * top))
    axes.legend(ncols=2, loc="upper left")
    return figure


def closed_forms(errors, capacities: dict, epsilons, rates: dict, loose, sharp) -> Figure:
    """Left: capacity (P,) of each link against its error; right: rate (E,) of each k against
    epsilon, two caps (E,)."""
    figure, (left, right) = canvas(2, width=7.8, height=3.8)
    for (name, values), color, style in zip(
        capacities.items(), (BLUE, GREEN, RED, PINK), ("-", "--", "-.", ":")
    ):
        left.plot(errors, values, color=color, ls=style, label=name)
    left.set(xlabel="error or erasure probability", ylabel="capacity, nats per use")
    left.legend()
    for (k, values), color, style in zip(rates.items(), (BLUE, GREEN, RED), ("-", "--", "-.")):
        right.loglog(epsilons, values, color=color, ls=style, label=f"randomised response, k = {k}")
    right.loglog(epsilons, loose, color=BLACK, ls=":", label=r"$\epsilon$")
    right.loglog(epsilons, sharp, color=BLACK, lw=1, label=r"$Z - 1 - \log Z$")
    right.set(
        xlabel=r"privacy parameter $\epsilon$",
        ylabel="$I$, nats per use",
        ylim=(None, 3 * loose.max()),
    )
    right.legend(fontsize=8)
    return figure


def noisy_gates(panels: list[dict]) -> Figure:
    """One panel a link: dict of x, xlabel, title, and curves name -> (P,) or a constant, the
    received rate first."""
    figure, axes = canvas(len(panels), width=7.8, height=3.8)
    looks = list(zip((BLUE, BLACK, GREEN, RED, PINK), ("-", ":", "--", "-.", (0, (1, 3)))))
    for panel, axis in zip(panels, axes):
        for (name, values), (color, style) in zip(panel["curves"].items(), looks):
            values = np.broadcast_to(values, np.shape(panel["x"]))
            axis.plot(
                panel["x"],
                values,
                color=color,
                ls=style,
                lw=2.4 if color == BLUE else 1.5,
                label=name,
            )
        axis.set(xlabel=panel["xlabel"], ylabel="nats", title=panel["title"])
        axis.set_ylim(0, 1.25 * max(np.max(values) for values in panel["curves"].values()))
        axis.legend(fontsize=8)
    return figure


def limited_risk(
    curve, capacity, limit, epsilons, private_rates, private_risks, limits: dict
) -> Figure:
    """Left: D(R), a link of given capacity, and private gates (E,); right: their risks and limits
    against epsilon."""
    figure, (left, right) = canvas(2, width=7.8, height=3.8)
    left.plot(curve.rate, curve.distortion, color=BLACK, label="$D(R)$")
    left.plot(
        [capacity, capacity, 0],
        [0, limit, limit],
        color=RED,
        ls="--",
        lw=1,
        label=f"$C = {capacity:g}$, $D(C)$",
    )
    left.plot(
        private_rates,
        private_risks,
        color=BLUE,
        marker="o",
        ms=3,
        ls=":",
        label="randomised response",
    )
    left.set(xlabel="rate $I$, nats", ylabel="expected loss", ylim=(0, None), xlim=(0, None))
    right.plot(
        epsilons, private_risks, color=BLUE, marker="o", ms=3, ls=":", label="randomised response"
    )
    for (name, values), color, style in zip(limits.items(), (GREEN, BLACK), ("--", "-")):
        right.plot(epsilons, values, color=color, ls=style, label=name)
    right.set(xlabel=r"privacy parameter $\epsilon$", ylabel="expected loss", ylim=(0, None))
    for axis in (left, right):
        axis.legend(fontsize=8)
    return figure


# --- chapter 3: Theorem 1 ---


def cumulants(lams, candidates, centred, uncentred, sample_size: int) -> Figure:
    """Log moment generating functions (P,) against lambda: each candidate's (R, P), and of the
    whole product law."""
    figure, axes = canvas(width=6.6, height=3.8)
    axes.plot(
        lams,
        lams**2 / (8 * sample_size),
        color=BLACK,
        label=r"$\lambda^2\sigma^2/2m$, $\sigma = 1/2$",
    )
    for row, style in zip(candidates, ("-", "--", "-.", ":")):
        axes.plot(
            lams, row, color=SKY, ls=style, lw=1.2, label="one candidate" if style == "-" else None
        )
    axes.plot(lams, centred, color=BLUE, lw=2, ls="--", label="random candidate, centred on $R(W)$")
    axes.plot(lams, uncentred, color=RED, lw=2, ls="-.", label="random candidate, not centred")
    axes.set(
        xlabel=r"$\lambda$", ylabel="log moment generating function, nats", xlim=(lams[0], lams[-1])
    )
    axes.legend(loc="upper center")
    return figure


def decoupling(lams, values, gap: float, information: float, sample_size: int) -> Figure:
    """The Donsker-Varadhan functional (P,) of the gap against lambda, below I(S;W) and above its
    two parabolas."""
    figure, axes = canvas(width=6.6, height=3.8)
    axes.axhline(information, color=BLACK, label="$I(S;W)$")
    axes.plot(lams, values, color=BLUE, lw=2, label="Donsker-Varadhan value")
    for sigma, name, color, style, marker in (
        (0.5, "1/2", GREEN, "--", "o"),
        (1, "1", RED, "-.", "s"),
    ):
        parabola = lams * gap - (lams * sigma) ** 2 / (2 * sample_size)
        label = rf"$\lambda G - \lambda^2\sigma^2/2m$, $\sigma = {name}$"
        axes.plot(lams, parabola, color=color, ls=style, label=label)
        peak = sample_size * gap / sigma**2
        axes.plot(peak, peak * gap / 2, color=color, marker=marker)
    axes.axhline(0, color=BLACK, lw=0.6)
    axes.set(xlabel=r"$\lambda$", ylabel="nats", xlim=(lams[0], lams[-1]))
    axes.set_ylim(-0.3 * information, 1.75 * information)
    axes.legend(ncols=2, loc="upper left")
    return figure


def bounds_by_alpha(alphas, gaps, bounds: dict, union: float) -> Figure:
    """Exact gap (P,) and bounds name -> (P,) of a learner against alpha, with the union bound."""
    figure, axes = canvas(width=6.6, height=3.8)
    for (name, values), color, style in zip(
        bounds.items(), (RED, GREEN, PINK), ("-.", "--", (0, (5, 1, 1, 1, 1, 1)))
    ):
        axes.plot(alphas, values, color=color, ls=style, label=name)
    axes.axhline(union, color=BLACK, ls=":", label=r"union bound $\sqrt{\log R/2m}$")
    axes.plot(alphas, gaps, color=BLUE, lw=2, marker="o", markevery=0.1, ms=4, label="gap")
    axes.set(xlabel=r"$\alpha$", ylabel="risk", xlim=(0, 1), ylim=(0, None))
    axes.legend(loc="upper left")
    return figure


# --- chapter 4: the alpha-mixture ---


def alpha_plane(
    curve, marked=(0, 0.3, 0.5, 0.7, 1), every: int = 1, onto: Figure | None = None
) -> Figure:
    """P1 Fig. 2: the gap of an `AlphaCurve` against its information, under the bound's lines.

    The alphas in `marked` are named; one point in `every` has a marker. `onto` as in `canvas`.
    """
    figure, ax = canvas(width=6.8, height=4.6, onto=onto)
    reach = 1.06 * max(curve.information.max(), 0.1)
    line = np.linspace(0, reach, 400)
    for sigma, style, name in ((1, "--", "1"), (0.5, "-", "1/2")):
        bound = sigma * np.sqrt(2 * line / curve.sample_size)
        ax.plot(line, bound, style, color=BLACK, lw=1.3, label=rf"bound, $\sigma$ = {name}")
    look = {
        "color": ORANGE,
        "mfc": "white",
        "ms": 5,
        "markevery": every,
        "label": "separate test set",
    }
    ax.plot(curve.information, curve.test_gap, "s:", **look)
    error, look = (
        2 * curve.gap_error,
        {"fmt": "o-", "color": BLUE, "ms": 5, "markevery": every, "errorevery": every},
    )
    ax.errorbar(curve.information, curve.gap, error, **look, label="pool as exact population")
    for alpha in marked:
        i = int(np.abs(curve.alphas - alpha).argmin())
        place = (curve.information[i], curve.gap[i])
        ax.annotate(rf"$\alpha$ = {curve.alphas[i]:g}", place, (7, -14), textcoords="offset points")
    ax.set(
        xlabel="$I(S;W)$ (nats)",
        ylabel="mean generalisation gap",
        xlim=(-0.03 * reach, 1.12 * reach),
    )
    top = np.sqrt(2 * reach / curve.sample_size)
    ax.set_ylim(min(-0.07 * top, 1.2 * curve.test_gap.min()), 1.05 * top)
    legend_below(figure, 2)
    return figure


def alpha_grid(curves) -> Figure:
    """One panel per sample size, log-log: every `AlphaCurve` of a dict keyed (dimension, experts,
    candidates, m)."""
    dimensions, candidates, sizes = (sorted({key[i] for key in curves}) for i in (0, 2, 3))
    figure, (*axes, corner) = canvas(2, width=6.6, height=6, rows=(len(sizes) + 2) // 2)
    colours = dict(zip(dimensions, (ORANGE, GREEN, BLUE, PINK)))
    styles = dict(zip(candidates, (":", "--", "-", "-.")))
    line = np.geomspace(1e-4, 6, 50)
    for m, ax in zip(sizes, axes):
        ax.loglog(line, np.sqrt(2 * line / m), color=BLACK, lw=1, ls=(0, (6, 2)))
        ax.loglog(line, np.sqrt(line / (2 * m)), color=BLACK, lw=1.8)
        for (dimension, _, k, size), curve in curves.items():
            seen = (curve.information > 0) & (curve.gap > 0)
            if size == m and seen.any():
                style = {"ls": styles[k], "color": colours[dimension], "lw": 1.2}
                ax.loglog(curve.information[seen], curve.gap[seen], **style)
        ax.set(title=f"m = {m}", xlabel="$I(S;W)$ (nats)", xlim=(1e-3, 6), ylim=(3e-5, 0.5))
    for ax in axes[::2]:
        ax.set_ylabel("mean generalisation gap")
    handles = [Line2D([], [], color=BLACK, lw=1, ls=(0, (6, 2)), label=r"bound, $\sigma$ = 1")]
    handles += [Line2D([], [], color=BLACK, lw=1.8, label=r"bound, $\sigma$ = 1/2")]
    handles += [Line2D([], [], color=c, lw=4, label=f"d = {d}") for d, c in colours.items()]
    handles += [
        Line2D([], [], color=BLACK, lw=1.2, ls=s, label=f"{k} candidates")
        for k, s in styles.items()
    ]
    corner.axis("off")
    corner.legend(handles=handles, loc="center")
    return figure


# --- chapter 5: the binary symmetric channel ---


def bsc_plane(
    betas, points, sample_size: int, sampled=(), marked=(), onto: Figure | None = None
) -> Figure:
    """P1 Fig. 3: mean risks of `BscSelection` results against their rates, the curve D(R), and (13)
    at each point.

    `points` are exact, one for each of `betas`; `sampled` are Monte Carlo ones; betas in `marked`
    are named. `onto` as in `canvas`.
    """
    figure, ax = canvas(width=6.8, height=4.6, onto=onto)
    rate, risk = np.array([p.rate for p in points]), np.array([p.risk for p in points])
    curve, information = bsc_distortion_rate(rate), np.array([p.information for p in points])
    span = np.linspace(max(0, rate.min() - 0.03), rate.max() + 0.03, 200)
    ax.plot(span, bsc_distortion_rate(span), color=BLACK, lw=1.6, label="$D(R)$, closed form")
    for sigma, marker, style, name in ((1, "^", "--", "1"), (0.5, "v", ":", "1/2")):
        bound = curve + sigma * np.sqrt(2 * information / sample_size)
        ax.plot(
            rate,
            bound,
            marker + style,
            color=RED,
            mfc="white",
            ms=6,
            lw=1,
            label=rf"(13), $\sigma$ = {name}",
        )
    above = risk > curve + np.sqrt(2 * information / sample_size)
    if sampled:
        x, y = [p.rate for p in sampled], [p.risk for p in sampled]
        ax.plot(x, y, "x", color=GREEN, ms=6, label="mean risk, Monte Carlo")
    ax.plot(rate[~above], risk[~above], "o", color=BLUE, ms=6, label="mean risk, below (13)")
    ax.plot(
        rate[above], risk[above], "D", color=ORANGE, mec=BLACK, ms=6, label="mean risk, above (13)"
    )
    for beta, x, y in zip(betas, rate, risk):
        if beta in marked:
            ax.annotate(
                rf"$\beta$ = {beta:g}", (x, y), (7, 3), textcoords="offset points", fontsize=9
            )
    ax.set(xlabel="mean gating rate $R_g$ (nats)", ylabel="mean risk")
    legend_below(figure, 3)
    return figure


def bsc_information(betas, exact, sampled, ceiling: float) -> Figure:
    """I(S;W) against beta: exact `BscSelection` results as a line, Monte Carlo ones with two
    standard errors."""
    figure, (ax, below) = canvas(2, width=8.2, height=3.6)
    truth = np.array([p.information for p in exact])
    estimate, error = (
        np.array([getattr(p, f) for p in sampled]) for f in ("information", "information_error")
    )
    ax.axhline(ceiling, color=BLACK, ls=":", lw=1, label="log of the number of candidates")
    ax.semilogx(betas, truth, color=BLUE, lw=1.8, label="exact sum over $K$")
    ax.errorbar(
        betas, estimate, 2 * error, fmt="x", color=RED, capsize=3, label="Monte Carlo, ±2 errors"
    )
    ax.set(xlabel=r"inverse temperature $\beta$", ylabel="$I(S;W)$ (nats)")
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.93))
    below.axhspan(-2, 2, color=SKY, alpha=0.2, lw=0)
    below.axhline(0, color=BLUE, lw=1.8)
    below.semilogx(betas, (estimate - truth) / error, "x", color=RED)
    below.set(
        xlabel=r"inverse temperature $\beta$", ylabel="(Monte Carlo - exact) / error", ylim=(-4, 4)
    )
    return figure


def bsc_terms(betas, settings: dict) -> Figure:
    """Panels of the excess E[p_W] - D(R_g) beside the bound's term, against beta, both axes
    logarithmic.

    `settings` maps a panel's title to (sample size, list of `BscSelection`); where the excess is
    larger is shaded.
    """
    figure, (*axes, corner) = canvas(2, width=6.6, height=5.6, rows=(len(settings) + 2) // 2)
    for ax, (title, (sample_size, points)) in zip(axes, settings.items()):
        excess = np.array([p.excess for p in points])
        term = np.sqrt(2 * np.array([p.information for p in points]) / sample_size)
        ax.loglog(betas, excess, color=BLUE, lw=1.8, label="excess of the mean risk over $D(R_g)$")
        ax.loglog(betas, term, color=RED, ls="--", lw=1.4, label=r"$\sqrt{2I/m}$, the term in (13)")
        ax.loglog(betas, term / 2, color=RED, ls=":", lw=1.4, label=r"the same with $\sigma$ = 1/2")
        where = {"where": excess > term, "transform": ax.get_xaxis_transform()}
        ax.fill_between(
            betas, 0, 1, color=ORANGE, alpha=0.25, lw=0, label="mean risk above (13)", **where
        )
        ax.set(title=title, xlabel=r"inverse temperature $\beta$", ylim=(1e-4, 1))
    for ax in axes[::2]:
        ax.set_ylabel("risk")
    corner.axis("off")
    corner.legend(*axes[0].get_legend_handles_labels(), loc="center")
    return figure
