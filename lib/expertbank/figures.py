"""What the chapters draw. Each function takes results and returns a matplotlib Figure; none computes or shows."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from expertbank.channels import bsc_distortion_rate

# Okabe & Ito's colours: told apart with any colour vision, and by lightness in print
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
}


def canvas(columns: int = 1, width=None, height: float = 3.4, onto: Figure | None = None, *, rows: int = 1):
    """A figure in the book's style with axes in rows and columns: (figure, axes), one Axes or a flat array of them.

    It is closed at once, so that a notebook shows it where it is returned and nowhere else. `onto` is an earlier
    figure to wipe and draw on again: its axes and ticks are there already, which an explorer cannot wait for.
    """
    if onto is not None:
        for axes in onto.axes:
            for artist in [*axes.lines, *axes.collections, *axes.patches, *axes.texts]:
                artist.remove()
            axes.relim()
            axes.autoscale()
        return onto, onto.axes[0] if columns == 1 else np.array(onto.axes)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(width or min(4.2 * columns + 1.6, 9.5), height))
    plt.close(figure)
    return figure, np.ravel(axes) if rows > 1 else axes


def legend_below(figure: Figure, columns: int, **entries) -> None:
    """A legend under the axes, unless the figure is drawn on again and has it."""
    if not figure.legends:
        figure.legend(loc="outside lower center", ncols=columns, **entries)


def pointer(axes, x: float, y: float, levels) -> list[Artist]:
    """A ring at (x, y) and a thin line from it through the levels, each with a tick: what a slider moves."""
    ends = [min(y, *levels), max(y, *levels)]
    (line,) = axes.plot([x, x], ends, color=PINK, lw=1.4)
    (ticks,) = axes.plot([x] * len(levels), levels, "_", color=PINK, ms=14, mew=2)
    (ring,) = axes.plot(x, y, "o", ms=13, mfc="none", mec=PINK, mew=2.6)
    return [line, ticks, ring]


# --- chapter 2: the gate as a channel ---


def gate_sharpness(sharpness, rates, usage, n_experts: int, capacity: float) -> Figure:
    """I(X;T) and H(T) in nats of one gate, (P,) each, against the factor (P,) on its logits, with a link's capacity."""
    figure, axes = canvas()
    axes.fill_between(sharpness, 0, rates, color=BLUE, alpha=0.35, lw=0)
    axes.fill_between(sharpness, rates, usage, color=ORANGE, alpha=0.25, lw=0, hatch="//")
    axes.semilogx(sharpness, rates, color=BLUE, label="rate $I(X;T)$")
    axes.semilogx(sharpness, usage, color=ORANGE, ls="--", label="usage entropy $H(T)$")
    axes.axhline(np.log(n_experts), color=BLACK, ls=":", label=rf"$\log n$, $n = {n_experts}$")
    axes.axhline(capacity, color=RED, ls="-.", label=f"capacity $C = {capacity:g}$ of a link")
    axes.set(xlabel="sharpness: factor on the gate's logits", ylabel="nats", ylim=(0, 1.35 * np.log(n_experts)))
    axes.legend(ncols=2, loc="upper left")
    return figure


def rate_estimators(sizes, estimates: dict, predicted, truth: float, top: float) -> Figure:
    """Estimates of I(X;T) from N inputs: name -> (mean (P,), standard deviation (P,)), the delta method's mean (P,)."""
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
    """Left: capacity (P,) of each link against its error; right: rate (E,) of each k against epsilon, two caps (E,)."""
    figure, (left, right) = canvas(2, width=7.8, height=3.8)
    for (name, values), color, style in zip(capacities.items(), (BLUE, GREEN, RED, PINK), ("-", "--", "-.", ":")):
        left.plot(errors, values, color=color, ls=style, label=name)
    left.set(xlabel="error or erasure probability", ylabel="capacity, nats per use")
    left.legend()
    for (k, values), color, style in zip(rates.items(), (BLUE, GREEN, RED), ("-", "--", "-.")):
        right.loglog(epsilons, values, color=color, ls=style, label=f"randomised response, k = {k}")
    right.loglog(epsilons, loose, color=BLACK, ls=":", label=r"$\epsilon$")
    right.loglog(epsilons, sharp, color=BLACK, lw=1, label=r"$Z - 1 - \log Z$")
    right.set(xlabel=r"privacy parameter $\epsilon$", ylabel="$I$, nats per use", ylim=(None, 3 * loose.max()))
    right.legend(fontsize=8)
    return figure


def noisy_gates(panels: list[dict]) -> Figure:
    """One panel a link: dict of x, xlabel, title, and curves name -> (P,) or a constant, the received rate first."""
    figure, axes = canvas(len(panels), width=7.8, height=3.8)
    looks = list(zip((BLUE, BLACK, GREEN, RED, PINK), ("-", ":", "--", "-.", (0, (1, 3)))))
    for panel, axis in zip(panels, axes):
        for (name, values), (color, style) in zip(panel["curves"].items(), looks):
            values = np.broadcast_to(values, np.shape(panel["x"]))
            axis.plot(panel["x"], values, color=color, ls=style, lw=2.4 if color == BLUE else 1.5, label=name)
        axis.set(xlabel=panel["xlabel"], ylabel="nats", title=panel["title"])
        axis.set_ylim(0, 1.25 * max(np.max(values) for values in panel["curves"].values()))
        axis.legend(fontsize=8)
    return figure


def limited_risk(curve, capacity, limit, epsilons, private_rates, private_risks, limits: dict) -> Figure:
    """Left: D(R), a link of given capacity, and private gates (E,); right: their risks and limits against epsilon."""
    figure, (left, right) = canvas(2, width=7.8, height=3.8)
    left.plot(curve.rate, curve.distortion, color=BLACK, label="$D(R)$")
    left.plot([capacity, capacity, 0], [0, limit, limit], color=RED, ls="--", lw=1, label=f"$C = {capacity:g}$, $D(C)$")
    left.plot(private_rates, private_risks, color=BLUE, marker="o", ms=3, ls=":", label="randomised response")
    left.set(xlabel="rate $I$, nats", ylabel="expected loss", ylim=(0, None), xlim=(0, None))
    right.plot(epsilons, private_risks, color=BLUE, marker="o", ms=3, ls=":", label="randomised response")
    for (name, values), color, style in zip(limits.items(), (GREEN, BLACK), ("--", "-")):
        right.plot(epsilons, values, color=color, ls=style, label=name)
    right.set(xlabel=r"privacy parameter $\epsilon$", ylabel="expected loss", ylim=(0, None))
    for axis in (left, right):
        axis.legend(fontsize=8)
    return figure


# --- chapter 3: Theorem 1 ---


def cumulants(lams, candidates, centred, uncentred, sample_size: int) -> Figure:
    """Log moment generating functions (P,) against lambda: each candidate's (R, P), and of the whole product law."""
    figure, axes = canvas(width=6.6, height=3.8)
    axes.plot(lams, lams**2 / (8 * sample_size), color=BLACK, label=r"$\lambda^2\sigma^2/2m$, $\sigma = 1/2$")
    for row, style in zip(candidates, ("-", "--", "-.", ":")):
        axes.plot(lams, row, color=SKY, ls=style, lw=1.2, label="one candidate" if style == "-" else None)
    axes.plot(lams, centred, color=BLUE, lw=2, ls="--", label="random candidate, centred on $R(W)$")
    axes.plot(lams, uncentred, color=RED, lw=2, ls="-.", label="random candidate, not centred")
    axes.set(xlabel=r"$\lambda$", ylabel="log moment generating function, nats", xlim=(lams[0], lams[-1]))
    axes.legend(loc="upper center")
    return figure


def decoupling(lams, values, gap: float, information: float, sample_size: int) -> Figure:
    """The Donsker-Varadhan functional (P,) of the gap against lambda, below I(S;W) and above its two parabolas."""
    figure, axes = canvas(width=6.6, height=3.8)
    axes.axhline(information, color=BLACK, label="$I(S;W)$")
    axes.plot(lams, values, color=BLUE, lw=2, label="Donsker-Varadhan value")
    for sigma, name, color, style, marker in ((0.5, "1/2", GREEN, "--", "o"), (1, "1", RED, "-.", "s")):
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
    for (name, values), color, style in zip(bounds.items(), (RED, GREEN, PINK), ("-.", "--", (0, (5, 1, 1, 1, 1, 1)))):
        axes.plot(alphas, values, color=color, ls=style, label=name)
    axes.axhline(union, color=BLACK, ls=":", label=r"union bound $\sqrt{\log R/2m}$")
    axes.plot(alphas, gaps, color=BLUE, lw=2, marker="o", markevery=0.1, ms=4, label="gap")
    axes.set(xlabel=r"$\alpha$", ylabel="risk", xlim=(0, 1), ylim=(0, None))
    axes.legend(loc="upper left")
    return figure


# --- chapter 4: the alpha-mixture ---


def alpha_plane(curve, marked=(0, 0.3, 0.5, 0.7, 1), every: int = 1, onto: Figure | None = None) -> Figure:
    """P1 Fig. 2: the gap of an `AlphaCurve` against its information, under the bound's lines.

    The alphas in `marked` are named; one point in `every` has a marker. `onto` as in `canvas`.
    """
    figure, ax = canvas(width=6.8, height=4.6, onto=onto)
    reach = 1.06 * max(curve.information.max(), 0.1)
    line = np.linspace(0, reach, 400)
    for sigma, style, name in ((1, "--", "1"), (0.5, "-", "1/2")):
        bound = sigma * np.sqrt(2 * line / curve.sample_size)
        ax.plot(line, bound, style, color=BLACK, lw=1.3, label=rf"bound, $\sigma$ = {name}")
    look = {"color": ORANGE, "mfc": "white", "ms": 5, "markevery": every, "label": "separate test set"}
    ax.plot(curve.information, curve.test_gap, "s:", **look)
    error, look = 2 * curve.gap_error, {"fmt": "o-", "color": BLUE, "ms": 5, "markevery": every, "errorevery": every}
    ax.errorbar(curve.information, curve.gap, error, **look, label="pool as exact population")
    for alpha in marked:
        i = int(np.abs(curve.alphas - alpha).argmin())
        place = (curve.information[i], curve.gap[i])
        ax.annotate(rf"$\alpha$ = {curve.alphas[i]:g}", place, (7, -14), textcoords="offset points")
    ax.set(xlabel="$I(S;W)$ (nats)", ylabel="mean generalisation gap", xlim=(-0.03 * reach, 1.12 * reach))
    top = np.sqrt(2 * reach / curve.sample_size)
    ax.set_ylim(min(-0.07 * top, 1.2 * curve.test_gap.min()), 1.05 * top)
    legend_below(figure, 2)
    return figure


def alpha_grid(curves) -> Figure:
    """One panel per sample size, log-log: every `AlphaCurve` of a dict keyed (dimension, experts, candidates, m)."""
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
    handles += [Line2D([], [], color=BLACK, lw=1.2, ls=s, label=f"{k} candidates") for k, s in styles.items()]
    corner.axis("off")
    corner.legend(handles=handles, loc="center")
    return figure


# --- chapter 5: the binary symmetric channel ---


def bsc_plane(betas, points, sample_size: int, sampled=(), marked=(), onto: Figure | None = None) -> Figure:
    """P1 Fig. 3: mean risks of `BscSelection` results against their rates, the curve D(R), and (13) at each point.

    `points` are exact, one for each of `betas`; `sampled` are Monte Carlo ones; betas in `marked` are named. `onto` as
    in `canvas`.
    """
    figure, ax = canvas(width=6.8, height=4.6, onto=onto)
    rate, risk = np.array([p.rate for p in points]), np.array([p.risk for p in points])
    curve, information = bsc_distortion_rate(rate), np.array([p.information for p in points])
    span = np.linspace(max(0, rate.min() - 0.03), rate.max() + 0.03, 200)
    ax.plot(span, bsc_distortion_rate(span), color=BLACK, lw=1.6, label="$D(R)$, closed form")
    for sigma, marker, style, name in ((1, "^", "--", "1"), (0.5, "v", ":", "1/2")):
        bound = curve + sigma * np.sqrt(2 * information / sample_size)
        ax.plot(rate, bound, marker + style, color=RED, mfc="white", ms=6, lw=1, label=rf"(13), $\sigma$ = {name}")
    above = risk > curve + np.sqrt(2 * information / sample_size)
    if sampled:
        x, y = [p.rate for p in sampled], [p.risk for p in sampled]
        ax.plot(x, y, "x", color=GREEN, ms=6, label="mean risk, Monte Carlo")
    ax.plot(rate[~above], risk[~above], "o", color=BLUE, ms=6, label="mean risk, below (13)")
    ax.plot(rate[above], risk[above], "D", color=ORANGE, mec=BLACK, ms=6, label="mean risk, above (13)")
    for beta, x, y in zip(betas, rate, risk):
        if beta in marked:
            ax.annotate(rf"$\beta$ = {beta:g}", (x, y), (7, 3), textcoords="offset points", fontsize=9)
    ax.set(xlabel="mean gating rate $R_g$ (nats)", ylabel="mean risk")
    legend_below(figure, 3)
    return figure


def bsc_information(betas, exact, sampled, ceiling: float) -> Figure:
    """I(S;W) against beta: exact `BscSelection` results as a line, Monte Carlo ones with two standard errors."""
    figure, (ax, below) = canvas(2, width=8.2, height=3.6)
    truth = np.array([p.information for p in exact])
    estimate, error = (np.array([getattr(p, f) for p in sampled]) for f in ("information", "information_error"))
    ax.axhline(ceiling, color=BLACK, ls=":", lw=1, label="log of the number of candidates")
    ax.semilogx(betas, truth, color=BLUE, lw=1.8, label="exact sum over $K$")
    ax.errorbar(betas, estimate, 2 * error, fmt="x", color=RED, capsize=3, label="Monte Carlo, ±2 errors")
    ax.set(xlabel=r"inverse temperature $\beta$", ylabel="$I(S;W)$ (nats)")
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.93))
    below.axhspan(-2, 2, color=SKY, alpha=0.2, lw=0)
    below.axhline(0, color=BLUE, lw=1.8)
    below.semilogx(betas, (estimate - truth) / error, "x", color=RED)
    below.set(xlabel=r"inverse temperature $\beta$", ylabel="(Monte Carlo - exact) / error", ylim=(-4, 4))
    return figure


def bsc_terms(betas, settings: dict) -> Figure:
    """Panels of the excess E[p_W] - D(R_g) beside the bound's term, against beta, both axes logarithmic.

    `settings` maps a panel's title to (sample size, list of `BscSelection`); where the excess is larger is shaded.
    """
    figure, (*axes, corner) = canvas(2, width=6.6, height=5.6, rows=(len(settings) + 2) // 2)
    for ax, (title, (sample_size, points)) in zip(axes, settings.items()):
        excess = np.array([p.excess for p in points])
        term = np.sqrt(2 * np.array([p.information for p in points]) / sample_size)
        ax.loglog(betas, excess, color=BLUE, lw=1.8, label="excess of the mean risk over $D(R_g)$")
        ax.loglog(betas, term, color=RED, ls="--", lw=1.4, label=r"$\sqrt{2I/m}$, the term in (13)")
        ax.loglog(betas, term / 2, color=RED, ls=":", lw=1.4, label=r"the same with $\sigma$ = 1/2")
        where = {"where": excess > term, "transform": ax.get_xaxis_transform()}
        ax.fill_between(betas, 0, 1, color=ORANGE, alpha=0.25, lw=0, label="mean risk above (13)", **where)
        ax.set(title=title, xlabel=r"inverse temperature $\beta$", ylim=(1e-4, 1))
    for ax in axes[::2]:
        ax.set_ylabel("risk")
    corner.axis("off")
    corner.legend(*axes[0].get_legend_handles_labels(), loc="center")
    return figure


# --- chapter 6: the MNIST bank ---


def bank_protocol() -> Figure:
    """P2's experiment as a chain of boxes: pool, sample, empirical risks, posterior, expert, what is measured."""
    boxes = (
        (0, 1, "Pool\n60,000 images\nlosses of $R$ experts"),
        (1, 1, "Sample $S$\n$m$ images, drawn\nwith replacement"),
        (2, 1, "Empirical risks\n$R_S(1), \\ldots, R_S(R)$"),
        (2, 0, "Posterior $q_{\\alpha}(r \\mid S)$\n$\\alpha$: lowest $R_S$\n$1-\\alpha$: any expert"),
        (1, 0, "Expert $W$\ndrawn from\nthe posterior"),
        (0, 0, "Measured over $M$ samples\ninformation $I(S;W)$\ngap $R(W) - R_S(W)$"),
    )
    figure, axes = canvas(width=7.4, height=3.2)
    for column, row, text in boxes:
        look = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": BLUE if row else RED, "lw": 1.5}
        axes.text(column, row, text, ha="center", va="center", bbox=look)
    arrow = {"arrowstyle": "-|>", "lw": 1.5, "color": BLACK}
    for start, end in (((0.36, 1), (0.64, 1)), ((1.34, 1), (1.64, 1)), ((2, 0.72), (2, 0.3)),
                       ((1.64, 0), (1.32, 0)), ((0.7, 0), (0.4, 0))):  # fmt: skip
        axes.annotate("", end, start, arrowprops=arrow)
    axes.annotate("", (1, 0.72), (1, 0.3), arrowprops=arrow | {"ls": ":"})
    axes.text(1.05, 0.51, "repeat $M$ times", va="center")
    axes.set(xlim=(-0.45, 2.45), ylim=(-0.4, 1.4))
    axes.axis("off")
    return figure


def bank_overview(accuracies, disagreements, accuracy_range, disagreement_range) -> Figure:
    """Test accuracies (R,) sorted, and a histogram of the pairwise disagreements (pairs,), with reported ranges."""
    figure, (upper, lower) = canvas(width=6.2, height=6, rows=2)
    upper.axhspan(*accuracy_range, color=SKY, alpha=0.3, lw=0, hatch="//", label="range reported in P2")
    upper.plot(np.arange(1, len(accuracies) + 1), np.sort(accuracies)[::-1], "o", color=BLUE, label="our experts")
    upper.set(xlabel="expert, from best to worst", ylabel="test accuracy (share of images)")
    upper.set_xticks([1, *range(5, len(accuracies) + 1, 5)])
    lower.axvspan(*disagreement_range, color=SKY, alpha=0.3, lw=0, hatch="//", label="range reported in P2")
    lower.hist(disagreements, bins=25, color=BLUE, label="our pairs")
    lower.set(xlabel="test images on which a pair disagrees (share)", ylabel="pairs of experts")
    for axis in (upper, lower):
        axis.legend()
    return figure


def pool_against_test(pool_risks, test_risks) -> Figure:
    """Error of each expert (R,) on the pool and on the test split, with the line of equality."""
    figure, axes = canvas(width=5.6, height=4.2)
    ends = np.array([min(pool_risks.min(), test_risks.min()), max(pool_risks.max(), test_risks.max())])
    axes.plot(ends, ends, color=BLACK, ls="--", label="same error on both")
    axes.plot(pool_risks, test_risks, "o", color=BLUE, label="one expert")
    axes.set(xlabel="error on the pool (training split)", ylabel="error on the test split")
    axes.legend()
    return figure


def bank_trends(alphas, information, gaps: dict, paper_alphas, paper_information, paper_gaps) -> Figure:
    """Above: information in nats (A,) against alpha. Below: gaps name -> (A,). The paper's points (P,) in both."""
    figure, (upper, lower) = canvas(width=6.2, height=6.2, rows=2)
    upper.plot(alphas, information, color=BLUE, marker="o", ms=4, label="our bank")
    upper.plot(paper_alphas, paper_information, "x", color=BLACK, ms=8, label="Table II of P2")
    upper.set(xlabel=r"$\alpha$", ylabel="information $I(S;W)$, nats")
    for (name, values), color, style, marker in zip(gaps.items(), (BLUE, RED), ("-", "--"), "os"):
        lower.plot(alphas, values, color=color, ls=style, marker=marker, ms=4, label=name)
    lower.plot(paper_alphas, paper_gaps, "x", color=BLACK, ms=8, label="Table II of P2")
    lower.axhline(0, color=BLACK, lw=0.8)
    lower.set(xlabel=r"$\alpha$", ylabel="mean gap $G$")
    for axis in (upper, lower):
        axis.legend(loc="upper left")
    return figure


def bank_winners(frequencies, risks) -> Figure:
    """How often each expert (R,) has the lowest empirical risk, experts ordered by their risk (R,)."""
    order = np.argsort(risks)
    figure, axes = canvas(width=6.6)
    axes.bar(np.arange(1, len(order) + 1), frequencies[order], color=BLUE, label="wins")
    axes.axhline(1 / len(order), color=RED, ls="--", label="$1/R$: no preference")
    axes.set(xlabel="expert, from lowest to highest error on the pool", ylabel="share of samples won")
    axes.set_xticks([1, *range(5, len(order) + 1, 5)])
    axes.legend()
    return figure


def bank_gap_histogram(gaps, bounds: dict) -> Figure:
    """P2's Fig. 2: gaps (M,) of single runs, their mean, and plus and minus each bound name -> value."""
    figure, axes = canvas(width=6.6)
    axes.hist(gaps, bins=30, color=SKY, edgecolor="white", lw=0.5)
    axes.axvline(np.mean(gaps), color=BLACK, label=f"mean gap {np.mean(gaps):.4f}")
    for (name, value), color, style in zip(bounds.items(), (RED, GREEN), ("--", "-.")):
        axes.axvline(value, color=color, ls=style, label=f"± {name} {value:.4f}")
        axes.axvline(-value, color=color, ls=style)
    axes.set(xlabel="gap of one run: population risk − empirical risk", ylabel="runs")
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.legend(loc="upper center", ncols=3, fontsize=8)
    return figure


def gap_histogram(ends, reach: float, names, onto: Figure | None = None) -> tuple[Figure, np.ndarray]:
    """Axes for `gap_bars` from -reach to reach, high enough for samples `ends` of gaps, and the bins."""
    figure, axes = canvas(width=6, height=3.6, onto=onto)
    bins = np.linspace(-reach, reach, 61)
    axes.set(xlabel="gap of one run: population risk − empirical risk", ylabel="runs", xlim=(-reach, reach))
    axes.set_ylim(0, 1.1 * max(np.histogram(gaps, bins)[0].max() for gaps in ends))
    looks = zip(names, ({"color": SKY, "lw": 6}, {"color": BLACK, "lw": 1.2}))
    lines = [Line2D([], [], label=f"population: {name}", **look) for name, look in looks]
    for name, color, style in (("σ = 1", RED, "--"), ("σ = 1/2", GREEN, "-.")):
        lines.append(Line2D([], [], color=color, ls=style, label=f"± bound, {name}"))
    legend_below(figure, 2, handles=lines, frameon=False)
    return figure, bins


def gap_bars(axes, samples, bins, bounds) -> list[Artist]:
    """Gaps under two populations, filled and outlined, and plus and minus the bounds with sigma 1 and 1/2."""
    filled, outlined = (np.histogram(gaps, bins)[0] for gaps in samples)
    artists = [axes.stairs(filled, bins, fill=True, color=SKY), axes.stairs(outlined, bins, color=BLACK, lw=1.2)]
    for value, color, style in zip(bounds, (RED, GREEN), ("--", "-.")):
        artists += [axes.axvline(place, color=color, ls=style) for place in (-value, value)]
    return artists


# --- chapter 7: Blahut-Arimoto curves ---


def routing_curves(curves: dict, points: dict) -> Figure:
    """Distortion against rate: curves name -> RateDistortion, single gates name -> (rate, distortion)."""
    figure, axes = canvas(width=6.6, height=4)
    for (name, curve), color, style, marker in zip(curves.items(), (BLUE, RED), ("-", "--"), "os"):
        order = np.lexsort((-curve.distortion, curve.rate))
        axes.plot(curve.rate[order], curve.distortion[order], color=color, ls=style, marker=marker, ms=4, label=name)
    for (name, (rate, distortion)), color, marker in zip(points.items(), (GREEN, BLACK), "D*"):
        axes.plot(rate, distortion, marker, color=color, ms=9, label=name)
    axes.set(xlabel="rate $I(X;T)$, nats", ylabel="expected loss (share of errors)", ylim=(0, None))
    axes.legend()
    return figure


def rate_by_lambda(curves: dict, criticals: dict) -> Figure:
    """Rate against lambda: name -> RateDistortion, with the critical lambda of each name as a vertical line."""
    figure, axes = canvas(width=6.6, height=3.8)
    for (name, curve), color, style, marker in zip(curves.items(), (BLUE, RED), ("-", "--"), "os"):
        seen = (curve.lam > 0) & (curve.rate > 0)
        order = np.argsort(curve.lam[seen])
        lams, rates = curve.lam[seen][order], curve.rate[seen][order]
        axes.loglog(lams, rates, color=color, ls=style, marker=marker, ms=4, label=name)
        critical = criticals[name]
        axes.axvline(critical, color=color, ls=style, lw=1.2, label=rf"critical $\lambda$ = {critical:.1f}: rate 0")
    axes.set(xlabel=r"price $\lambda$ of a nat", ylabel="rate $I(X;T)$, nats")
    axes.legend(loc="lower left")
    return figure


def marginals_by_lambda(lams, marginals, shown: int = 6) -> Figure:
    """Share of inputs that each expert serves, (P, R), against lambda (P,): the most used ones, and the rest."""
    order = np.argsort(-marginals.max(axis=0), kind="stable")
    figure, axes = canvas(width=6.6, height=3.8)
    looks = zip((BLUE, RED, GREEN, BLACK, PINK, ORANGE), ("-", "--", "-.", ":", "-", "--"), "os^vDP")
    for expert, (color, style, marker) in zip(order[:shown], looks):
        share = marginals[:, expert]
        axes.semilogx(lams, share, color=color, ls=style, marker=marker, ms=4, label=f"expert {expert}")
    rest = marginals[:, order[shown:]]
    axes.semilogx(lams, rest.sum(axis=1), color=SKY, lw=3, label=f"the other {rest.shape[1]} together")
    axes.set(xlabel=r"price $\lambda$ of a nat", ylabel="share of images served", ylim=(0, None))
    axes.legend(loc="upper left", ncols=2)
    return figure


def curve_and_shares(curve) -> Figure:
    """A curve, and empty axes for the shares of its experts: the ground of `curve_point`."""
    figure, (left, right) = canvas(2, width=6.6, height=3.2)
    left.plot(curve.rate, curve.distortion, color=BLUE)
    left.set(xlabel="rate, nats", ylabel="expected loss", ylim=(0, 1.1 * curve.distortion.max()))
    right.set(xlabel="expert", ylabel="share of images served", ylim=(0, 1), xlim=(-0.8, curve.marginal.shape[1] - 0.2))
    return figure


def curve_point(axes, point, highest_rate: float) -> list[Artist]:
    """One point of a curve: its place and supporting line of slope -lambda, and the share of each expert."""
    left, right = axes
    ends = np.array([0, 1.05 * highest_rate])
    line = left.plot(ends, point.distortion - point.lam * (ends - point.rate), color=RED, ls="--")
    dot = left.plot(point.rate, point.distortion, "o", color=BLACK, ms=8)
    place = {"transform": left.transAxes, "ha": "right", "va": "top"}
    name = left.text(0.97, 0.95, f"slope −λ = −{point.lam:.3g}", **place)
    return [*line, *dot, name, *right.bar(np.arange(len(point.marginal)), point.marginal, color=BLUE)]


# --- gates that pay for their bits ---

FAMILY_LOOKS = {"linear": (ORANGE, "s"), "cnn": (RED, "o"), "prototype": (GREEN, "^")}


def gates_planes(panels: dict) -> Figure:
    """Loss against rate, a panel a bank: its curve, what estimates of E[loss | x] reach, gates by family.

    panels: name -> {"curve": RateDistortionCurve, "known": {name: RoutedByEstimate}, "soft" and "hard": {family:
    (rates, losses)}}.
    """
    figure, axes = canvas(len(panels), width=7.8, height=4.3)
    for ax, (title, panel) in zip(axes, panels.items()):
        curve = panel["curve"]
        order = np.argsort(curve.rate)
        ax.plot(curve.rate[order], curve.distortion[order], color=BLACK, lw=1.8, label="D(R): sees the label")
        for (name, known), style in zip(panel["known"].items(), ("--", ":")):
            ax.plot(known.rate, known.loss, color=BLUE, ls=style, label=f"sees x: {name}")
        for family, (color, marker) in FAMILY_LOOKS.items():
            ax.plot(*panel["soft"][family], marker, color=color, ms=5, label=f"{family}, soft")
            ax.plot(*panel["hard"][family], marker, color=color, ms=5, mfc="none", label=f"{family}, hardened")
        ax.set(title=title, xlabel="rate $I(X;T)$, nats", ylim=(0, None), xlim=(-0.08, None))
    axes[0].set_ylabel("held-out expected loss")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def minibatch_biases(sizes, own, predicted, running, truth: float) -> Figure:
    """Mean minibatch estimate of I(X;T) against batch size: with the batch's own marginal, as predicted, corrected."""
    figure, axes = canvas(width=6.6, height=3.4)
    axes.semilogx(sizes, own, "o", color=RED, label="batch's own marginal")
    axes.semilogx(sizes, predicted, "--", color=RED, label="predicted by the delta method")
    axes.semilogx(sizes, running, "s", color=BLUE, label="fixed marginal of the gate")
    axes.axhline(truth, color=BLACK, lw=1.2, label="all inputs at once")
    axes.set(xlabel="batch size B", ylabel="mean estimate of $I(X;T)$, nats")
    axes.legend()
    return figure


def distance_terms(lams, panels: dict) -> Figure:
    """Stacked terms of `Distance` against the price, a panel a family: name -> Distance of the mean over seeds."""
    figure, axes = canvas(len(panels), width=7.8, height=3.4)
    terms = {"label access": (SKY, "//"), "generalisation": (ORANGE, ".."), "family": (PINK, "xx")}
    for ax, (title, distance) in zip(axes, panels.items()):
        up, down = np.zeros(len(lams)), np.zeros(len(lams))
        for name, (color, hatch) in terms.items():
            height = getattr(distance, name.replace(" ", "_"))
            base = np.where(height >= 0, up, down)
            ax.bar(np.arange(len(lams)), height, bottom=base, color=color, hatch=hatch, edgecolor="white", label=name)
            up, down = up + np.maximum(height, 0), down + np.minimum(height, 0)
        ax.plot(np.arange(len(lams)), distance.total, "D", color=BLACK, ms=4, label="total")
        ax.set(title=title, xlabel=r"price $\lambda$")
        shown = np.arange(0, len(lams), 3)
        ax.set_xticks(shown, [f"{lams[i]:.2g}" for i in shown])
    axes[0].set_ylabel("loss above D(rate)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def gaps_by_rate(panels: dict) -> Figure:
    """Held-out less training loss against rate: panel -> {family: (rates, gaps)}."""
    figure, axes = canvas(len(panels), width=7.8, height=3.4)
    for ax, (title, families) in zip(axes, panels.items()):
        for family, (rates, gaps) in families.items():
            color, marker = FAMILY_LOOKS[family]
            ax.plot(rates, gaps, marker, color=color, ms=5, label=family)
        ax.axhline(0, color=BLACK, lw=0.8)
        ax.set(title=title, xlabel="rate $I(X;T)$ on training inputs, nats")
    axes[0].set_ylabel("held-out less training loss")
    axes[0].legend()
    return figure


def expert_loads(loads: dict, rows, columns) -> Figure:
    """Share of the inputs each expert serves, a panel a gate: name -> (R,), laid out as rows x columns of experts."""
    figure, axes = canvas(2, width=6, height=5.4, rows=(len(loads) + 1) // 2)
    top = max(load.max() for load in loads.values())
    for ax, (title, load) in zip(axes, loads.items()):
        shown = ax.imshow(load.reshape(len(rows), len(columns)), cmap="Blues", vmin=0, vmax=top)
        ax.set(title=title, xticks=range(len(columns)), yticks=range(len(rows)))
        ax.set_xticklabels(columns)
        ax.set_yticklabels(rows if ax in axes[::2] else [])
        ax.grid(False)
    figure.colorbar(shown, ax=axes, label="share of inputs", shrink=0.8)
    return figure


def gate_dial(curve, points: dict, n_experts: int) -> Figure:
    """The ground of `gate_point`: a curve, trained gates family -> (rates, losses), and empty axes for the loads."""
    figure, (left, right) = canvas(2, width=6.6, height=3.4)
    order = np.argsort(curve.rate)
    left.plot(curve.rate[order], curve.distortion[order], color=BLACK, label="D(R)")
    for family, (rates, losses) in points.items():
        color, marker = FAMILY_LOOKS[family]
        left.plot(rates, losses, marker, color=color, ms=4, label=family)
    left.set(xlabel="rate, nats", ylabel="expected loss", ylim=(0, None))
    left.legend(fontsize=8)
    right.set(xlabel="expert", ylabel="share of inputs served", ylim=(0, 0.25), xlim=(-0.8, n_experts - 0.2))
    return figure


def gate_point(axes, rate: float, loss: float, best: float, load) -> list[Artist]:
    """A gate at (rate, loss), the frontier's loss at its rate, and its load."""
    left, right = axes
    return [*pointer(left, rate, loss, [loss, best]), *right.bar(np.arange(len(load)), load, color=BLUE)]


# --- chapter 8: the solver ---


def stalling(shares, used, newton: dict, gaps: dict, tol: float) -> Figure:
    """Left: Blahut-Arimoto's shares (K, R) by step, those `used` (R,) at the optimum apart; right: gaps by step."""
    figure, (left, right) = canvas(2, width=7.8, height=3.9)
    steps = np.unique(np.geomspace(1, len(shares), 400).astype(int))
    for keep, color, style, name in ((used, BLUE, "-", "used at the optimum"), (~used, RED, "--", "not used")):
        lines = left.loglog(steps, shares[steps - 1][:, keep], color=color, ls=style, lw=1)
        lines[0].set_label(name)
    left.set(xlabel="Blahut-Arimoto steps", ylabel="share of an expert", ylim=(1e-9, 2))
    for (name, path), color, style in zip(gaps.items(), (BLUE, RED), ("-", "--")):
        right.loglog(steps, path[steps - 1], color=color, ls=style, label=f"Blahut-Arimoto, {name}")
    for (name, path), color, marker in zip(newton.items(), (BLUE, RED), "os"):
        floored = np.maximum(path, tol / 10)
        right.loglog(np.arange(1, len(path) + 1), floored, color=color, marker=marker, ls=":", label=f"Newton, {name}")
    right.axhline(tol, color=BLACK, lw=0.8)
    right.set(xlabel="evaluations of the gradient", ylabel=r"gap $\log \max_t g_t$, nats", ylim=(tol / 20, 30))
    left.legend(loc="lower left")
    right.legend(loc="upper right", fontsize=8)
    return figure


def closing_bounds(panels: dict) -> Figure:
    """Bounds on the least Lagrangian by step: name -> (upper (K,), lower (K,)), one panel each, the first linear."""
    figure, axes = canvas(len(panels), width=7.8, height=3.6)
    for axis, (name, (upper, lower)) in zip(axes, panels.items()):
        steps = np.arange(1, len(upper) + 1)
        axis.fill_between(steps, lower, upper, color=SKY, alpha=0.3, lw=0)
        marker = "o" if len(upper) < 50 else ""
        axis.plot(steps, upper, color=BLUE, marker=marker, ms=4, label="upper: the gate in hand")
        axis.plot(steps, lower, color=RED, ls="--", marker=marker, ms=4, label="lower: proved so far")
        axis.set(xlabel="evaluations of the gradient", title=name, xscale="linear" if marker else "log")
    for axis in axes[1:]:
        axis.sharey(axes[0])
    axes[0].set_ylabel(r"expected loss + $\lambda$ rate")
    axes[0].legend(loc="lower right")
    return figure


def curve_bands(coarse, curves: dict, rates) -> Figure:
    """Left: a coarse curve's points and band; right: width of the band by rate (P,), band -> curve."""
    figure, (left, right) = canvas(2, width=7.8, height=3.8)
    left.fill_between(rates, coarse.lower(rates), coarse.upper(rates), color=ORANGE, alpha=0.5, lw=0, label="band")
    left.plot(rates, coarse.upper(rates), color=BLUE, lw=1, label="upper: chords")
    left.plot(rates, coarse.lower(rates), color=RED, lw=1, ls="--", label="lower: supporting lines")
    left.plot(coarse.rate, coarse.distortion, "o", color=BLACK, ms=5, label="solved points")
    left.set(xlabel="rate, nats", ylabel="expected loss", ylim=(0, None))
    left.legend()
    looks = zip((BLUE, GREEN, RED), ("-", "-.", "--"))
    for (band, curve), (color, style) in zip(curves.items(), looks):
        width = np.maximum(curve.upper(rates) - curve.lower(rates), 1e-12)
        label = f"band {band:g}: {len(curve.lam)} points"
        right.semilogy(rates, width, color=color, ls=style, lw=1, label=label)
        right.axhline(band, color=color, ls=style, lw=0.8)
    low, high = min(curves), max(curves)
    right.set(xlabel="rate, nats", ylabel="width of the band, units of loss", ylim=(low / 50, 20 * high))
    right.legend(loc="upper right", fontsize=8)
    return figure


def bootstrap_bands(panels: dict, full) -> Figure:
    """D with its intervals, one panel a sample: name -> CurveBand, and the curve of all inputs over each."""
    figure, axes = canvas(len(panels), width=7.8, height=3.9)
    for axis, (name, band) in zip(axes, panels.items()):
        simultaneous = band.simultaneous_low, band.simultaneous_high
        axis.fill_between(band.rates, *simultaneous, color=SKY, alpha=0.35, lw=0, label="95%, all rates at once")
        axis.fill_between(band.rates, band.low, band.high, color=BLUE, alpha=0.35, lw=0, label="95%, each rate")
        axis.plot(band.rates, band.distortion, color=BLUE, label="$D$ of the 2,000")
        axis.plot(band.rates, full.upper(band.rates), color=RED, ls="--", label="$D$ of all 10,000")
        axis.set(xlabel="rate, nats", title=name, ylim=(0, 0.13))
    axes[0].set_ylabel("expected loss")
    axes[0].legend(fontsize=8)
    return figure


def optimism_by_size(sizes, sides: dict) -> Figure:
    """How far the value is from the truth by inputs fitted to (P,): name -> (fitted (P,), held out (P,))."""
    figure, axes = canvas(len(sides), width=7.8, height=3.8)
    for axis, (name, (fitted, held_out)) in zip(axes, sides.items()):
        axis.semilogx(sizes, held_out, color=RED, marker="s", ls="--", label="held-out inputs")
        axis.semilogx(sizes, fitted, color=BLUE, marker="o", label="the inputs fitted to")
        axis.axhline(0, color=BLACK, lw=1.2, label="all 10,000")
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        axis.minorticks_off()
        axis.set(xlabel="inputs that the shares are fitted to", title=name)
    axes[0].set_ylabel("value less that of all 10,000")
    axes[0].legend()
    return figure


def cost_surface(surface, unit: str) -> Figure:
    """Loss against rate (left) and against mean cost (right), a line for each exchange rate of an AccuracyRateCost."""
    figure, (left, right) = canvas(2, width=7.8, height=3.9)
    looks = zip((BLUE, GREEN, ORANGE, RED), ("-", "-.", ":", "--"), "o^Ds")
    for m, (color, style, marker) in zip(range(len(surface.loss)), looks):
        look = {"color": color, "ls": style, "marker": marker, "ms": 4}
        left.plot(surface.rate[m], surface.loss[m], **look, label=f"{surface.exchange_rates[m]:g} loss per {unit}")
        right.semilogx(surface.cost[m], surface.loss[m], **look)
    left.set(xlabel="rate, nats", ylabel="expected loss", ylim=(0, None))
    right.set(xlabel=f"mean cost, {unit}", ylabel="expected loss", ylim=(0, None))
    left.legend(fontsize=8)
    return figure


# --- chapter 9: how sure are we? ---


def replicated_curves(alphas, panels) -> Figure:
    """A panel each of (label, bank means (B, A), low, high and the paper's values (A,)); bank 0 is the shipped one."""
    figure, axes = canvas(len(panels), width=7.8, height=3.9)
    for axis, (label, means, low, high, reported) in zip(axes, panels):
        axis.fill_between(alphas, low, high, color=SKY, alpha=0.3, lw=0, label="95% of experiments, M = 300")
        for i, row in enumerate(means[1:]):
            axis.plot(alphas, row, color=BLUE, lw=0.6, label=None if i else "another bank")
        axis.plot(alphas, means[0], color=RED, ls="--", lw=1.8, label="the shipped bank")
        axis.plot(alphas, reported, "x", color=BLACK, ms=7, label="Table II of P2")
        axis.set(xlabel=r"$\alpha$", title=label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def banks_plane(information, gap, reported: tuple[float, float]) -> Figure:
    """Gap against information in nats, (B,) each, one dot a bank, bank 0 ours; and the paper's climb beside them."""
    figure, axes = canvas(width=5.6, height=3.8)
    axes.plot(information[1:], gap[1:], "o", color=BLUE, label="another bank")
    axes.plot(information[0], gap[0], "s", color=RED, ms=8, label="the shipped bank")
    axes.plot(*reported, "x", color=BLACK, ms=9, label="P2: $G(1) - G(0)$")
    axes.set(xlabel=r"$I(S;W)$ at $\alpha = 1$, nats", ylabel=r"gap at $\alpha = 1$, population = pool")
    axes.legend()
    return figure


def sensitivity_grid(sizes, panels: dict) -> Figure:
    """Panels title -> {images: (nested (P,), all (P, K))} of I(S;W) in nats against the bank sizes (P,), log axis."""
    figure, axes = canvas(len(panels), width=7.8, height=3.9)
    for axis, (title, found) in zip(axes, panels.items()):
        axis.semilogx(sizes, np.log(sizes), color=BLACK, ls=":", label=r"$\log R$")
        for (images, (nested, every)), color, look in zip(found.items(), (ORANGE, BLUE, GREEN), ("o:", "s-", "^--")):
            mean, sd = every.mean(axis=1), every.std(axis=1)
            axis.errorbar(sizes, mean, sd, fmt=look, color=color, capsize=3, label=f"{images:,} images each")
            axis.plot(sizes, nested, look[0], color=color, mfc="white", ms=8)
        axis.set(title=title, xlabel="experts $R$, log axis", ylabel="$I(S;W)$, nats", ylim=(0, 4.1))
        axis.set_xticks(sizes, sizes)
        axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


# --- chapter 10: estimators and intervals ---


def estimator_biases(sizes, panels: dict) -> Figure:
    """Bias of each estimate against M: title -> (name -> errors (P, K) over K repeats, predicted plug-in bias (P,))."""
    figure, axes = canvas(len(panels), width=7.8, height=3.6)
    for ax, (title, (errors, predicted)) in zip(np.atleast_1d(axes), panels.items()):
        ax.axhline(0, color=BLACK, lw=0.8)
        ax.semilogx(sizes, predicted, color=BLACK, ls=":", lw=1.4, label="plug-in, predicted")
        for k, ((name, error), color, marker) in enumerate(zip(errors.items(), (BLUE, RED, GREEN, PINK), "osD^")):
            noise = 2 * error.std(axis=1) / np.sqrt(error.shape[1])
            x = np.array(sizes) * 1.06 ** (k - 1.5)
            ax.errorbar(x, error.mean(axis=1), noise, fmt=marker, color=color, ms=5, capsize=2, label=name)
        ax.set(title=title, xlabel="datasets M", ylim=(-0.8, 0.45))
        ax.set_yscale("symlog", linthresh=0.01)
        ax.set_yticks([-0.1, -0.01, 0, 0.01, 0.1], ["−0.1", "−0.01", "0", "0.01", "0.1"])
    np.atleast_1d(axes)[0].set_ylabel("bias of the estimate (nats)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def interval_coverage(shares: dict, confidence: float) -> Figure:
    """Measured coverage: method -> (alpha -> (share, low, high)), with the nominal confidence as a line."""
    figure, ax = canvas(width=7.2, height=3.2)
    ax.axvline(confidence, color=BLACK, ls="--", lw=1.2, label="nominal")
    alphas = list(next(iter(shares.values())))
    for k, (alpha, color, marker) in enumerate(zip(alphas, (SKY, BLUE, RED), "os^")):
        found = np.array([shares[name][alpha] for name in shares]).T
        y = np.arange(len(shares)) + 0.2 * (k - 1)
        reach = np.abs(found[1:] - found[0])
        ax.errorbar(found[0], y, xerr=reach, fmt=marker, color=color, capsize=3, label=rf"$\alpha$ = {alpha:g}")
    ax.set_yticks(range(len(shares)), list(shares))
    ax.set(xlabel="share of experiments whose interval contains the truth", ylim=(len(shares) - 0.5, -0.5))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def interval_in_context(reported, rows: dict) -> Figure:
    """P2's interval (low, high) as a band; rows of the axis: name -> values (K,) as ticks, or (low, value, high)."""
    figure, ax = canvas(width=7.4, height=2.9)
    ax.axvspan(*reported, color=SKY, alpha=0.3, lw=0, hatch="//", label="95 % interval reported in P2")
    for y, (values, color) in enumerate(zip(rows.values(), (BLUE, RED, BLACK, GREEN))):
        if len(values) == 3:
            ax.plot([values[0], values[2]], [y, y], color=color, lw=2)
            ax.plot(values[1], y, "o", color=color)
        else:
            ax.plot(values, np.full(len(values), y), "|", color=color, ms=16, mew=1.6)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlabel=r"$I(S;W)$ at $\alpha$ = 0.7 (nats)", ylim=(len(rows) - 0.4, -0.6))
    figure.legend(loc="outside lower center")
    return figure


# --- chapter 11: other learners ---


RULE_LOOKS = tuple(zip((BLUE, RED, GREEN, BLACK, PINK, ORANGE, SKY, BLACK), "os^Dv*PX"))


def rules_plane(found: dict, labelled: str) -> Figure:
    """(I/m, G) of every rule and m, both axes logarithmic: rule -> (m -> (information (P,), gap (P,)))."""
    figure, ax = canvas(width=7.6, height=5.6)
    ends = np.array([2e-6, 0.12])
    ax.loglog(ends, np.sqrt(ends / 2), color=BLACK, lw=1.6, label=r"bound $\sqrt{I/(2m)}$")
    for (rule, by_size), (color, marker) in zip(found.items(), RULE_LOOKS):
        for k, (m, (information, gap)) in enumerate(by_size.items()):
            seen = (information > 1e-3) & (gap > 0)
            style = {"color": color, "marker": marker, "ms": 5, "lw": 0.8, "alpha": 0.85}
            ax.loglog(information[seen] / m, gap[seen], label=None if k else rule, **style)
            if rule == labelled:
                at = (information[seen][-1] / m, gap[seen][-1])
                ax.annotate(f"m = {m:,}", at, (14, -26), textcoords="offset points", arrowprops={"arrowstyle": "-"})
    ax.set(xlabel="information per sample point $I(S;W)/m$ (nats)", ylabel="mean gap $G$", xlim=ends, ylim=(1e-4, 0.3))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def rules_at_one_size(panels: dict) -> Figure:
    """(I, G) planes, title -> (m, rule -> (information, gap), envelope (information, gap)), linear axes."""
    figure, axes = canvas(len(panels), width=7.8, height=4.4)
    for ax, (title, (m, found, (rate, largest))) in zip(np.atleast_1d(axes), panels.items()):
        ax.fill_between(rate, largest, 1.3 * largest.max(), color=BLACK, alpha=0.1, lw=0)
        ax.plot(rate, largest, color=BLACK, lw=1.8, label="largest gap of any rule")
        span = np.linspace(0, rate.max(), 200)
        ax.plot(span, np.sqrt(span / (2 * m)), color=BLACK, ls="--", lw=1.2, label=r"bound $\sqrt{I/(2m)}$")
        for (rule, (information, gap)), (color, marker) in zip(found.items(), RULE_LOOKS):
            ax.plot(information, gap, color=color, marker=marker, ms=5, lw=0.8, label=rule)
        ax.set(title=title, xlabel="$I(S;W)$ (nats)", ylim=(min(0, -0.05 * largest.max()), 1.3 * largest.max()))
    np.atleast_1d(axes)[0].set_ylabel("mean gap $G$")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# --- chapter 12: the ladder of bounds ---


def bound_ratios(alphas, ratios: dict[str, np.ndarray]) -> Figure:
    """Bound over gap (A,) against alpha, log axis, loosest first; every line is named at its right end."""
    figure, ax = canvas(width=7.8, height=5.6)
    looks = zip((RED, BLACK, RED, ORANGE, BLUE, GREEN, PINK, SKY, BLUE, GREEN, BLACK), "sXvD^oP*<>o")
    ends = np.log([values[-1] for values in ratios.values()])
    for i in range(1, len(ends)):  # loosest first: push a name down where it would touch the one above
        ends[i] = min(ends[i], ends[i - 1] - 0.115)
    ends += max(0, np.log(0.83) - ends[-1])
    for i, ((name, values), (color, marker), end) in enumerate(zip(ratios.items(), looks, np.exp(ends))):
        style = ("-", "--", "-.", ":")[i % 4]
        ax.plot(alphas, values, color=color, marker=marker, ls=style, lw=1.3, ms=4.5, clip_on=False)
        place = {"xytext": (1.05, end), "textcoords": "data", "va": "center", "fontsize": 9}
        line = {"arrowstyle": "-", "lw": 0.6, "color": color, "shrinkA": 1, "shrinkB": 4}
        ax.annotate(name, (1, values[-1]), **place, arrowprops=line)
    ax.axhline(1, color=BLACK, lw=0.8)
    ax.set(yscale="log", xlabel=r"$\alpha$", ylabel="bound / gap", xlim=(alphas[0] - 0.02, 1), ylim=(0.8, None))
    ticks = (1, 1.5, 2, 3, 5, 10, 20)
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_yticks([], minor=True)
    return figure


def ladder_axes(names, onto: Figure | None = None) -> Figure:
    """Axes for `ladder_rungs`: one row a bound from top to bottom, multiples of the gap on a logarithmic axis."""
    figure, ax = canvas(width=6, height=4, onto=onto)
    ax.set_yticks(range(len(names)), names)
    ax.set(xscale="log", xlabel="bound / gap", xlim=(0.9, 130), ylim=(len(names) - 0.4, -0.6))
    ticks = (1, 2, 5, 10, 20, 50, 100)
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.grid(axis="y", visible=False)
    return figure


def ladder_rungs(ax, multiples) -> list[Artist]:
    """A bar from 1 to each multiple, with its number."""
    bars = ax.hlines(range(len(multiples)), 1, multiples, color=BLUE, lw=10)  # as one artist, it is drawn sooner
    look = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
    return [bars, *(ax.annotate(f"{at:.2f}", (at, row), **look) for row, at in enumerate(multiples))]


# --- chapter 13: the audit ---


def ladder_bars(ratios: dict[str, float]) -> Figure:
    """Bounds as multiples of the gap, one bar each from top to bottom; the gap itself is the line at 1."""
    figure, ax = canvas(width=7.2, height=0.42 * len(ratios) + 0.9)
    bars = ax.barh(list(ratios), list(ratios.values()), color=BLUE, height=0.6)
    ax.bar_label(bars, fmt="%.2f", padding=3)
    ax.axvline(1, color=BLACK, linestyle="--")
    ax.invert_yaxis()
    ax.set_xlabel("bound / gap")
    return figure


# --- chapter 16: private gates and noisy links ---


def against_limits(panels: list[dict], width: float = 7.8, height: float = 4.6, onto: Figure | None = None) -> Figure:
    """Panels of measured lines and limits: dict of x, xlabel, ylabel, limits and measured, name -> (P,) or a constant.

    Options: title, log (the x axis), ylim. `onto` as in `canvas`.
    """
    figure, axes = canvas(len(panels), width=width, height=height, onto=onto)
    for panel, axis in zip(panels, np.atleast_1d(axes)):
        for (name, values), style in zip(panel["limits"].items(), ("-", "--", ":", "-.")):
            axis.plot(
                panel["x"], np.broadcast_to(values, np.shape(panel["x"])), color=BLACK, ls=style, lw=1.3, label=name
            )
        looks = zip((BLUE, ORANGE, GREEN, RED, PINK), "os^Dv")
        for (name, values), (color, marker) in zip(panel["measured"].items(), looks):
            axis.plot(panel["x"], values, color=color, marker=marker, ms=4, lw=1.2, label=name)
        if panel.get("log"):
            axis.set_xscale("log")
        axis.set(xlabel=panel["xlabel"], ylabel=panel["ylabel"], title=panel.get("title"), ylim=panel.get("ylim"))
        if axis.get_legend() is None:  # below, as curves fill the panel from corner to corner
            axis.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


# --- the solver's benchmarks ---


def benchmark_growth(results: dict) -> Figure:
    """Seconds for one price against inputs and against experts, from benchmarks/solver.py, with the fitted slopes."""
    figure, panels = canvas(2, width=7.8, height=3.6)
    sections = (("growth_inputs", "inputs", "experts"), ("growth_experts", "experts", "inputs"))
    for axis, (section, size, other), color, marker in zip(panels, sections, (BLUE, RED), "os"):
        rows, slopes = results[section], {row["axis"]: row for row in results["slopes"]}
        sizes, seconds = np.array([(row[size], row["seconds"]) for row in rows]).T
        axis.loglog(sizes, seconds, color=color, marker=marker, label=f"measured, {rows[0][other]:,} {other}")
        upper, slope = sizes >= slopes[size]["upper_from_size"], slopes[size]["upper_slope"]
        middle = np.exp(np.log(seconds[upper]).mean() + slope * (np.log(sizes) - np.log(sizes[upper]).mean()))
        axis.loglog(sizes[upper], 2 * middle[upper], color=BLACK, ls="--", label=f"slope {slope:.2f} (shifted up)")
        axis.set(xlabel=size, ylabel="seconds", ylim=(None, 6 * seconds.max()))
        axis.yaxis.set_minor_formatter("")
        axis.legend(loc="upper left")
    panels[1].set_xscale("log", base=2)
    return figure


def benchmark_peers(results: dict, least: float = 1e-16, tol: float = 1e-9) -> Figure:
    """Certified gap against seconds of every tool at one price, a panel a table; open where time ran out."""
    tools = ["ours", "Blahut-Arimoto", "Blahut-Arimoto, merged rows", "dit", "dit, inner loop", "SLSQP", "L-BFGS-B",
             "cvxpy + CLARABEL"]  # fmt: skip
    looks = dict(zip(tools, zip((BLUE, BLACK, ORANGE, PINK, PINK, RED, GREEN, SKY), "*osPXD^v")))
    names = [row["table"] for row in results["tables"]]
    seconds = [row["seconds"] for row in results["points"] if row["tool"] in looks]
    xlim = min(seconds) / 2, max(seconds) * 2
    figure, panels = canvas(2, width=6.4, height=6.6, rows=(len(names) + 1) // 2)
    for name, axis in zip(names, panels):
        for row in (row for row in results["points"] if row["table"] == name and row["tool"] in looks):
            color, marker = looks[row["tool"]]
            look = dict(color=color, mfc="none" if row["capped"] else color, ms=10 if color == BLUE else 6)
            axis.plot(row["seconds"], max(row["gap"], least), marker, **look)
        axis.axhline(tol, color=BLACK, lw=0.8, ls="--")
        axis.set(xscale="log", yscale="log", xlabel="seconds", xlim=xlim, ylim=(least / 3, 300))
        axis.set_title(name.replace("x", "×"), fontsize=9)
        axis.tick_params(labelleft=axis in panels[::2])
    for axis in panels[::2]:
        axis.set_ylabel("certified gap, nats")
    handles = [Line2D([], [], color=color, marker=marker, ls="", label=tool) for tool, (color, marker) in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


# --- Theorem 2 with all its terms ---


def theorem2_sides(terms: dict, ceilings: dict) -> Figure:
    """Both sides of (10) against alpha, a panel for each name -> `Theorem2Terms`, with D(0) of the same name."""
    figure, panels = canvas(len(terms), width=7.8, height=4.2)
    for (name, term), axis in zip(terms.items(), np.atleast_1d(panels)):
        alpha = term.parameter
        axis.fill_between(alpha, term.distortion, term.train_risk, color=ORANGE, alpha=0.25, lw=0, hatch="//",
                          label=r"$\delta_m$")  # fmt: skip
        axis.plot(alpha, term.bound(1), color=RED, ls="--", label=r"right side of (10), $\sigma=1$")
        axis.plot(alpha, term.bound(), color=RED, label=r"right side of (10), $\sigma=1/2$")
        axis.axhline(ceilings[name], color=BLACK, ls=":", label="$D(0)$: best single expert")
        axis.plot(alpha, term.population_risk, color=BLUE, marker="o", ms=3, label=r"$\mathrm{E}\,R(W)$")
        axis.plot(alpha, term.train_risk, color=BLUE, ls="-.", label=r"$\mathrm{E}\,R_S(W)$")
        axis.plot(alpha, term.distortion, color=GREEN, ls=(0, (6, 2)), label=r"$\mathrm{E}\,D(I_W)$")
        axis.set(xlabel=r"$\alpha$", ylim=(0, None), title=name)
    np.atleast_1d(panels)[0].set_ylabel("loss")
    handles, labels = np.atleast_1d(panels)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def theorem2_region(alphas, sizes, levels: dict) -> Figure:
    """Where (10) certifies that routing helps: name -> 0 nowhere, 1 with sigma = 1/2, 2 also with sigma = 1, (m, A)."""
    figure, panels = canvas(len(levels), width=7.8, height=3.4)
    shades = {0: ("#F2F2F2", "no"), 1: (SKY, r"with $\sigma=1/2$"), 2: (BLUE, r"also with $\sigma=1$")}
    for (name, level), axis in zip(levels.items(), panels):
        for value, (shade, _) in shades.items():
            for row, column in zip(*np.nonzero(level == value)):
                axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc=shade, ec="white"))
        axis.set(xlim=(-0.5, len(alphas) - 0.5), ylim=(-0.5, len(sizes) - 0.5), title=name, xlabel=r"$\alpha$")
        axis.set_xticks(range(0, len(alphas), 5), [f"{alpha:g}" for alpha in alphas[::5]])
        axis.set_yticks(range(len(sizes)), [f"{size:,}" for size in sizes] if axis is panels[0] else [])
        axis.grid(False)
    panels[0].set_ylabel("sample size $m$")
    figure.legend([Rectangle((0, 0), 1, 1, fc=shade, ec=BLACK, lw=0.4) for shade, _ in shades.values()],
                  [label for _, label in shades.values()], loc="outside lower center", ncols=3)  # fmt: skip
    return figure


def theorem2_split(rows: dict) -> Figure:
    """E R(W) in three parts, a bar for each name -> (D, label access, family and selection, gap)."""
    figure, axis = canvas(width=7.8, height=0.5 * len(rows) + 1.3)
    looks = ((GREEN, "", r"$\mathrm{E}\,D(I_W)$"), (ORANGE, "//", "oracle over the best gates that see $x$"),
             (SKY, "..", "family and selection"))  # fmt: skip
    parts, left = np.array(list(rows.values())), np.zeros(len(rows))
    for values, (color, hatch, label) in zip(parts.T, looks):
        axis.barh(list(rows), values, left=left, color=color, hatch=hatch, ec="white", height=0.6, label=label)
        left = left + values
    axis.plot(left - parts[:, 3], np.arange(len(rows)), "|", color=BLACK, ms=22, mew=2, label=r"$\mathrm{E}\,R_S(W)$")
    axis.invert_yaxis()
    axis.set_xlabel("loss")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def information_and_gap(panels: dict) -> Figure:
    """G against I(S;W): panel name -> line name -> (I (P,), G (P,), whether the points are joined in their order)."""
    figure, axes = canvas(len(panels), width=7.8, height=3.9)
    looks = {"soft": (BLUE, "o", "-"), "hard": (RED, "^", "--")}
    for (name, lines), axis in zip(panels.items(), axes):
        for label, (information, gap, joined) in lines.items():
            color, marker, style = looks[label]
            axis.plot(information, gap, color=color, marker=marker, ms=4, ls=style if joined else "", label=label)
        axis.set(xlabel="$I(S;W)$ in nats", ylim=(0, None), title=name)
        axis.title.set_fontsize(9)
    axes[0].set_ylabel("gap $G$")
    axes[0].legend()
    return figure


# --- your own router ---


def domain_loads(tables: dict, domains) -> Figure:
    """Share of each domain's slots by expert, a panel for each name -> counts (D, E); experts by their main domain."""
    figure, panels = canvas(1, width=6.6, height=2.6 * len(tables), rows=len(tables))
    shares = {name: counts / counts.sum(axis=1, keepdims=True) for name, counts in tables.items()}
    top = max(share.max() for share in shares.values())
    for (name, share), axis in zip(shares.items(), np.atleast_1d(panels)):
        order = np.lexsort((-share.max(axis=0), share.argmax(axis=0)))
        image = axis.imshow(share[:, order], cmap="cividis_r", vmin=0, vmax=top, aspect="auto")
        axis.set_yticks(range(len(domains)), domains)
        axis.set(title=name, xticks=[], xlabel="experts")
        axis.grid(False)
    figure.colorbar(image, ax=panels, label="share of the domain's slots", shrink=0.8)
    return figure


def domain_information_by_size(sizes, found: dict) -> Figure:
    """I(D;T), its null and Miller and Madow's bias by sequences, a panel for each name -> a `LayerReport` a size."""
    figure, panels = canvas(1, width=6.6, height=2.9 * len(found), rows=len(found))
    for (name, layers), axis in zip(found.items(), np.atleast_1d(panels)):
        measured, mean, high, bias = np.array(
            [[layer.domain_information, layer.null_mean, layer.null_high, layer.domain_bias] for layer in layers]
        ).T
        axis.loglog(sizes, measured, color=BLUE, marker="o", label="$I(D;T)$, plug-in")
        axis.fill_between(sizes, mean, high, color=ORANGE, alpha=0.35, lw=0, hatch="//", label="to its 95% quantile")
        axis.loglog(sizes, mean, color=ORANGE, ls="--", marker="s", ms=4, label="mean of the null")
        axis.loglog(sizes, bias, color=BLACK, ls=":", label="Miller–Madow")
        axis.set(ylabel="nats", title=name, ylim=(1e-3, 2))
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
    axis.set_xlabel("sequences")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend([handles[i] for i in (0, 2, 1, 3)], [labels[i] for i in (0, 2, 1, 3)],
                  loc="outside lower center", ncols=2)  # fmt: skip
    return figure


# --- the routing testbed ---

METHOD_LOOKS = {
    "LBL": (BLUE, "o", "-"),
    "SH": (GREEN, "s", "--"),
    "BA": (ORANGE, "^", "-."),
    "EB": (PINK, "D", ":"),
    "none": (RED, "X", (0, (1, 3))),
    "reference": (BLACK, "*", (0, (5, 3))),
}


def scope_caps(points: dict, by_scope: dict, scopes, limit) -> Figure:
    """Above: I(D;T) against its cap, method -> (caps, informations). Below: against scope, method -> (scopes, values),
    with the limit (P,) at perfect balance over `scopes` (P,)."""
    figure, (top, bottom) = canvas(1, width=6.4, height=7, rows=2)
    end = 1.05 * max(caps.max() for caps, _ in points.values())
    top.plot([0, end], [0, end], color=BLACK, lw=1, label="equality")
    for method, (caps, values) in points.items():
        color, marker, _ = METHOD_LOOKS[method]
        top.plot(caps, values, marker, color=color, ms=6, mfc="none", label=method)
    top.set(xlabel=r"cap $\log E - H(T|\mathrm{Seq})$, nats", ylabel="$I(D;T)$, nats", xlim=(0, end), ylim=(0, end))
    top.legend(ncols=2)
    bottom.semilogx(scopes, limit, color=BLACK, lw=1, base=2, label="limit at perfect balance")
    for method, (where, values) in by_scope.items():
        color, marker, _ = METHOD_LOOKS[method]
        bottom.plot(where, values, marker, color=color, ms=6, mfc="none", label=method)
    bottom.set(xlabel="scope of balancing, sequences", ylabel="$I(D;T)$, nats", ylim=(0, None))
    bottom.set_xticks(scopes, [f"{scope}" for scope in scopes])
    bottom.legend()
    return figure


def losses_by_scope(panels: dict) -> Figure:
    """Held-out loss against scope, a panel a mix: {"lines": method -> (scopes, means, deviations), "levels":
    method -> mean} for methods without a scope of their own."""
    figure, axes = canvas(1, width=6.4, height=3.6 * len(panels), rows=len(panels))
    for ax, (title, panel) in zip(np.atleast_1d(axes), panels.items()):
        for method, (scopes, means, deviations) in panel["lines"].items():
            color, marker, style = METHOD_LOOKS[method]
            ax.errorbar(scopes, means, deviations, color=color, marker=marker, ls=style, capsize=3, label=method)
        for method, level in panel["levels"].items():
            color, _, style = METHOD_LOOKS[method]
            ax.axhline(level, color=color, ls=style, lw=1.2, label=method)
        ax.set_xscale("log", base=2)
        ticks = np.unique(np.concatenate([scopes for scopes, *_ in panel["lines"].values()]))
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set(title=title, xlabel="scope of balancing, sequences", ylabel="held-out loss, nats a token")
        ax.legend(ncols=2, fontsize=8)
    return figure


def losses_under_caps(capacities, lines: dict) -> Figure:
    """Loss (left) and I(D;T) (right) by token cap: name -> two pairs (means, deviations), each (C,)."""
    figure, axes = canvas(2, width=7.8, height=3.6)
    looks = ((RED, "o", "--"), (BLUE, "s", "-"))
    for (name, pairs), (color, marker, style) in zip(lines.items(), looks):
        for ax, (means, deviations) in zip(axes, pairs):
            where = np.arange(len(capacities))
            ax.errorbar(where, means, deviations, color=color, marker=marker, ls=style, capsize=3, label=name)
    for ax, label in zip(axes, ("held-out loss, nats a token", "$I(D;T)$, nats")):
        ax.set(xlabel="tokens an expert may take, of the mean load", ylabel=label)
        ax.set_xticks(np.arange(len(capacities)), capacities)
    axes[0].legend()
    return figure


def metrics_and_loss(panels: dict, losses, methods) -> Figure:
    """Loss (K,) against one metric a panel: label -> (K,) values; `methods` (K,) sets colour and marker."""
    figure, axes = canvas(len(panels), width=7.8, height=3.6)
    for ax, (label, values) in zip(axes, panels.items()):
        for method, (color, marker, _) in METHOD_LOOKS.items():
            own = methods == method
            if own.any():
                ax.plot(values[own], losses[own], marker, color=color, ms=6, mfc="none", label=method)
        ax.set(xlabel=label)
    axes[0].set_ylabel("held-out loss, nats a token")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    return figure
