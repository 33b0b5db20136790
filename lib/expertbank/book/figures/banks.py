"""Figures of the part *Finite banks on MNIST*."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
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

# --- chapter 6: the MNIST bank ---


def bank_protocol() -> Figure:
    """P2's experiment as a chain of boxes: pool, sample, empirical risks, posterior, expert, what
    is measured."""
    boxes = (
        (0, 1, "Pool\n60,000 images\nlosses of $R$ experts"),
        (1, 1, "Sample $S$\n$m$ images, drawn\nwith replacement"),
        (2, 1, "Empirical risks\n$R_S(1), \\ldots, R_S(R)$"),
        (
            2,
            0,
            "Posterior $q_{\\alpha}(r \\mid S)$\n$\\alpha$: lowest $R_S$\n$1-\\alpha$: any expert",
        ),
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
    """Test accuracies (R,) sorted, and a histogram of the pairwise disagreements (pairs,), with
    reported ranges."""
    figure, (upper, lower) = canvas(width=6.2, height=6, rows=2)
    upper.axhspan(
        *accuracy_range, color=SKY, alpha=0.3, lw=0, hatch="//", label="range reported in P2"
    )
    upper.plot(
        np.arange(1, len(accuracies) + 1),
        np.sort(accuracies)[::-1],
        "o",
        color=BLUE,
        label="our experts",
    )
    upper.set(xlabel="expert, from best to worst", ylabel="test accuracy (share of images)")
    upper.set_xticks([1, *range(5, len(accuracies) + 1, 5)])
    lower.axvspan(
        *disagreement_range, color=SKY, alpha=0.3, lw=0, hatch="//", label="range reported in P2"
    )
    lower.hist(disagreements, bins=25, color=BLUE, label="our pairs")
    lower.set(xlabel="test images on which a pair disagrees (share)", ylabel="pairs of experts")
    for axis in (upper, lower):
        axis.legend()
    return figure


def pool_against_test(pool_risks, test_risks) -> Figure:
    """Error of each expert (R,) on the pool and on the test split, with the line of equality."""
    figure, axes = canvas(width=5.6, height=4.2)
    ends = np.array(
        [min(pool_risks.min(), test_risks.min()), max(pool_risks.max(), test_risks.max())]
    )
    axes.plot(ends, ends, color=BLACK, ls="--", label="same error on both")
    axes.plot(pool_risks, test_risks, "o", color=BLUE, label="one expert")
    axes.set(xlabel="error on the pool (training split)", ylabel="error on the test split")
    axes.legend()
    return figure


def bank_trends(
    alphas, information, gaps: dict, paper_alphas, paper_information, paper_gaps
) -> Figure:
    """Above: information in nats (A,) against alpha. Below: gaps name -> (A,). The paper's points
    (P,) in both."""
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
    """How often each expert (R,) has the lowest empirical risk, experts ordered by their risk
    (R,)."""
    order = np.argsort(risks)
    figure, axes = canvas(width=6.6)
    axes.bar(np.arange(1, len(order) + 1), frequencies[order], color=BLUE, label="wins")
    axes.axhline(1 / len(order), color=RED, ls="--", label="$1/R$: no preference")
    axes.set(
        xlabel="expert, from lowest to highest error on the pool", ylabel="share of samples won"
    )
    axes.set_xticks([1, *range(5, len(order) + 1, 5)])
    axes.legend()
    return figure


def bank_gap_histogram(gaps, bounds: dict) -> Figure:
    """P2's Fig. 2: gaps (M,) of single runs, their mean, and plus and minus each bound name ->
    value."""
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


def gap_histogram(
    ends, reach: float, names, onto: Figure | None = None
) -> tuple[Figure, np.ndarray]:
    """Axes for `gap_bars` from -reach to reach, high enough for samples `ends` of gaps, and the
    bins."""
    figure, axes = canvas(width=6, height=3.6, onto=onto)
    bins = np.linspace(-reach, reach, 61)
    axes.set(
        xlabel="gap of one run: population risk − empirical risk",
        ylabel="runs",
        xlim=(-reach, reach),
    )
    axes.set_ylim(0, 1.1 * max(np.histogram(gaps, bins)[0].max() for gaps in ends))
    looks = zip(names, ({"color": SKY, "lw": 6}, {"color": BLACK, "lw": 1.2}))
    lines = [Line2D([], [], label=f"population: {name}", **look) for name, look in looks]
    for name, color, style in (("σ = 1", RED, "--"), ("σ = 1/2", GREEN, "-.")):
        lines.append(Line2D([], [], color=color, ls=style, label=f"± bound, {name}"))
    legend_below(figure, 2, handles=lines, frameon=False)
    return figure, bins


def gap_bars(axes, samples, bins, bounds) -> list[Artist]:
    """Gaps under two populations, filled and outlined, and plus and minus the bounds with sigma 1
    and 1/2."""
    filled, outlined = (np.histogram(gaps, bins)[0] for gaps in samples)
    artists = [
        axes.stairs(filled, bins, fill=True, color=SKY),
        axes.stairs(outlined, bins, color=BLACK, lw=1.2),
    ]
    for value, color, style in zip(bounds, (RED, GREEN), ("--", "-.")):
        artists += [axes.axvline(place, color=color, ls=style) for place in (-value, value)]
    return artists


# --- chapter 7: Blahut-Arimoto curves ---


def routing_curves(curves: dict, points: dict) -> Figure:
    """Distortion against rate: curves name -> RateDistortion, single gates name -> (rate,
    distortion)."""
    figure, axes = canvas(width=6.6, height=4)
    for (name, curve), color, style, marker in zip(curves.items(), (BLUE, RED), ("-", "--"), "os"):
        order = np.lexsort((-curve.distortion, curve.rate))
        axes.plot(
            curve.rate[order],
            curve.distortion[order],
            color=color,
            ls=style,
            marker=marker,
            ms=4,
            label=name,
        )
    for (name, (rate, distortion)), color, marker in zip(points.items(), (GREEN, BLACK), "D*"):
        axes.plot(rate, distortion, marker, color=color, ms=9, label=name)
    axes.set(xlabel="rate $I(X;T)$, nats", ylabel="expected loss (share of errors)", ylim=(0, None))
    axes.legend()
    return figure


def rate_by_lambda(curves: dict, criticals: dict) -> Figure:
    """Rate against lambda: name -> RateDistortion, with the critical lambda of each name as a
    vertical line."""
    figure, axes = canvas(width=6.6, height=3.8)
    for (name, curve), color, style, marker in zip(curves.items(), (BLUE, RED), ("-", "--"), "os"):
        seen = (curve.lam > 0) & (curve.rate > 0)
        order = np.argsort(curve.lam[seen])
        lams, rates = curve.lam[seen][order], curve.rate[seen][order]
        axes.loglog(lams, rates, color=color, ls=style, marker=marker, ms=4, label=name)
        critical = criticals[name]
        axes.axvline(
            critical,
            color=color,
            ls=style,
            lw=1.2,
            label=rf"critical $\lambda$ = {critical:.1f}: rate 0",
        )
    axes.set(xlabel=r"price $\lambda$ of a nat", ylabel="rate $I(X;T)$, nats")
    axes.legend(loc="lower left")
    return figure


def marginals_by_lambda(lams, marginals, shown: int = 6) -> Figure:
    """Share of inputs that each expert serves, (P, R), against lambda (P,): the most used ones, and
    the rest."""
    order = np.argsort(-marginals.max(axis=0), kind="stable")
    figure, axes = canvas(width=6.6, height=3.8)
    looks = zip(
        (BLUE, RED, GREEN, BLACK, PINK, ORANGE), ("-", "--", "-.", ":", "-", "--"), "os^vDP"
    )
    for expert, (color, style, marker) in zip(order[:shown], looks):
        share = marginals[:, expert]
        axes.semilogx(
            lams, share, color=color, ls=style, marker=marker, ms=4, label=f"expert {expert}"
        )
    rest = marginals[:, order[shown:]]
    axes.semilogx(
        lams, rest.sum(axis=1), color=SKY, lw=3, label=f"the other {rest.shape[1]} together"
    )
    axes.set(xlabel=r"price $\lambda$ of a nat", ylabel="share of images served", ylim=(0, None))
    axes.legend(loc="upper left", ncols=2)
    return figure


def curve_and_shares(curve) -> Figure:
    """A curve, and empty axes for the shares of its experts: the ground of `curve_point`."""
    figure, (left, right) = canvas(2, width=6.6, height=3.2)
    left.plot(curve.rate, curve.distortion, color=BLUE)
    left.set(xlabel="rate, nats", ylabel="expected loss", ylim=(0, 1.1 * curve.distortion.max()))
    right.set(
        xlabel="expert",
        ylabel="share of images served",
        ylim=(0, 1),
        xlim=(-0.8, curve.marginal.shape[1] - 0.2),
    )
    return figure


def curve_point(axes, point, highest_rate: float) -> list[Artist]:
    """One point of a curve: its place and supporting line of slope -lambda, and the share of each
    expert."""
    left, right = axes
    ends = np.array([0, 1.05 * highest_rate])
    line = left.plot(ends, point.distortion - point.lam * (ends - point.rate), color=RED, ls="--")
    dot = left.plot(point.rate, point.distortion, "o", color=BLACK, ms=8)
    place = {"transform": left.transAxes, "ha": "right", "va": "top"}
    name = left.text(0.97, 0.95, f"slope −λ = −{point.lam:.3g}", **place)
    return [
        *line,
        *dot,
        name,
        *right.bar(np.arange(len(point.marginal)), point.marginal, color=BLUE),
    ]


# --- chapter 8: the solver ---


def stalling(shares, used, newton: dict, gaps: dict, tol: float) -> Figure:
    """Left: Blahut-Arimoto's shares (K, R) by step, those `used` (R,) at the optimum apart; right:
    gaps by step."""
    figure, (left, right) = canvas(2, width=7.8, height=3.9)
    steps = np.unique(np.geomspace(1, len(shares), 400).astype(int))
    for keep, color, style, name in (
        (used, BLUE, "-", "used at the optimum"),
        (~used, RED, "--", "not used"),
    ):
        lines = left.loglog(steps, shares[steps - 1][:, keep], color=color, ls=style, lw=1)
        lines[0].set_label(name)
    left.set(xlabel="Blahut-Arimoto steps", ylabel="share of an expert", ylim=(1e-9, 2))
    for (name, path), color, style in zip(gaps.items(), (BLUE, RED), ("-", "--")):
        right.loglog(steps, path[steps - 1], color=color, ls=style, label=f"Blahut-Arimoto, {name}")
    for (name, path), color, marker in zip(newton.items(), (BLUE, RED), "os"):
        floored = np.maximum(path, tol / 10)
        right.loglog(
            np.arange(1, len(path) + 1),
            floored,
            color=color,
            marker=marker,
            ls=":",
            label=f"Newton, {name}",
        )
    right.axhline(tol, color=BLACK, lw=0.8)
    right.set(
        xlabel="evaluations of the gradient",
        ylabel=r"gap $\log \max_t g_t$, nats",
        ylim=(tol / 20, 30),
    )
    left.legend(loc="lower left")
    right.legend(loc="upper right", fontsize=8)
    return figure


def closing_bounds(panels: dict) -> Figure:
    """Bounds on the least Lagrangian by step: name -> (upper (K,), lower (K,)), one panel each, the
    first linear."""
    figure, axes = canvas(len(panels), width=7.8, height=3.6)
    for axis, (name, (upper, lower)) in zip(axes, panels.items()):
        steps = np.arange(1, len(upper) + 1)
        axis.fill_between(steps, lower, upper, color=SKY, alpha=0.3, lw=0)
        marker = "o" if len(upper) < 50 else ""
        axis.plot(steps, upper, color=BLUE, marker=marker, ms=4, label="upper: the gate in hand")
        axis.plot(
            steps, lower, color=RED, ls="--", marker=marker, ms=4, label="lower: proved so far"
        )
        axis.set(
            xlabel="evaluations of the gradient", title=name, xscale="linear" if marker else "log"
        )
    for axis in axes[1:]:
        axis.sharey(axes[0])
    axes[0].set_ylabel(r"expected loss + $\lambda$ rate")
    axes[0].legend(loc="lower right")
    return figure


def curve_bands(coarse, curves: dict, rates) -> Figure:
    """Left: a coarse curve's points and band; right: width of the band by rate (P,), band ->
    curve."""
    figure, (left, right) = canvas(2, width=7.8, height=3.8)
    left.fill_between(
        rates, coarse.lower(rates), coarse.upper(rates), color=ORANGE, alpha=0.5, lw=0, label="band"
    )
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
    right.set(
        xlabel="rate, nats", ylabel="width of the band, units of loss", ylim=(low / 50, 20 * high)
    )
    right.legend(loc="upper right", fontsize=8)
    return figure


def bootstrap_bands(panels: dict, full) -> Figure:
    """D with its intervals, one panel a sample: name -> CurveBand, and the curve of all inputs over
    each."""
    figure, axes = canvas(len(panels), width=7.8, height=3.9)
    for axis, (name, band) in zip(axes, panels.items()):
        simultaneous = band.simultaneous_low, band.simultaneous_high
        axis.fill_between(
            band.rates, *simultaneous, color=SKY, alpha=0.35, lw=0, label="95%, all rates at once"
        )
        axis.fill_between(
            band.rates, band.low, band.high, color=BLUE, alpha=0.35, lw=0, label="95%, each rate"
        )
        axis.plot(band.rates, band.distortion, color=BLUE, label="$D$ of the 2,000")
        axis.plot(band.rates, full.upper(band.rates), color=RED, ls="--", label="$D$ of all 10,000")
        axis.set(xlabel="rate, nats", title=name, ylim=(0, 0.13))
    axes[0].set_ylabel("expected loss")
    axes[0].legend(fontsize=8)
    return figure


def optimism_by_size(sizes, sides: dict) -> Figure:
    """How far the value is from the truth by inputs fitted to (P,): name -> (fitted (P,), held out
    (P,))."""
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
    """Loss against rate (left) and against mean cost (right), a line for each exchange rate of an
    AccuracyRateCost."""
    figure, (left, right) = canvas(2, width=7.8, height=3.9)
    looks = zip((BLUE, GREEN, ORANGE, RED), ("-", "-.", ":", "--"), "o^Ds")
    for m, (color, style, marker) in zip(range(len(surface.loss)), looks):
        look = {"color": color, "ls": style, "marker": marker, "ms": 4}
        left.plot(
            surface.rate[m],
            surface.loss[m],
            **look,
            label=f"{surface.exchange_rates[m]:g} loss per {unit}",
        )
        right.semilogx(surface.cost[m], surface.loss[m], **look)
    left.set(xlabel="rate, nats", ylabel="expected loss", ylim=(0, None))
    right.set(xlabel=f"mean cost, {unit}", ylabel="expected loss", ylim=(0, None))
    left.legend(fontsize=8)
    return figure


# --- the solver's benchmarks ---


def benchmark_growth(results: dict) -> Figure:
    """Seconds for one price against inputs and against experts, from benchmarks/solver.py, with the
    fitted slopes."""
    figure, panels = canvas(2, width=7.8, height=3.6)
    sections = (("growth_inputs", "inputs", "experts"), ("growth_experts", "experts", "inputs"))
    for axis, (section, size, other), color, marker in zip(panels, sections, (BLUE, RED), "os"):
        rows, slopes = results[section], {row["axis"]: row for row in results["slopes"]}
        sizes, seconds = np.array([(row[size], row["seconds"]) for row in rows]).T
        axis.loglog(
            sizes,
            seconds,
            color=color,
            marker=marker,
            label=f"measured, {rows[0][other]:,} {other}",
        )
        upper, slope = sizes >= slopes[size]["upper_from_size"], slopes[size]["upper_slope"]
        middle = np.exp(
            np.log(seconds[upper]).mean() + slope * (np.log(sizes) - np.log(sizes[upper]).mean())
        )
        axis.loglog(
            sizes[upper],
            2 * middle[upper],
            color=BLACK,
            ls="--",
            label=f"slope {slope:.2f} (shifted up)",
        )
        axis.set(xlabel=size, ylabel="seconds", ylim=(None, 6 * seconds.max()))
        axis.yaxis.set_minor_formatter("")
        axis.legend(loc="upper left")
    panels[1].set_xscale("log", base=2)
    return figure


def benchmark_peers(results: dict, least: float = 1e-16, tol: float = 1e-9) -> Figure:
    """Certified gap against seconds of every tool at one price, a panel a table; open where time
    ran out."""
    tools = ["ours", "Blahut-Arimoto", "Blahut-Arimoto, merged rows", "dit", "dit, inner loop", "SLSQP", "L-BFGS-B",
             "cvxpy + CLARABEL"]  # fmt: skip
    looks = dict(zip(tools, zip((BLUE, BLACK, ORANGE, PINK, PINK, RED, GREEN, SKY), "*osPXD^v")))
    names = [row["table"] for row in results["tables"]]
    seconds = [row["seconds"] for row in results["points"] if row["tool"] in looks]
    xlim = min(seconds) / 2, max(seconds) * 2
    figure, panels = canvas(2, width=6.4, height=6.6, rows=(len(names) + 1) // 2)
    for name, axis in zip(names, panels):
        for row in (
            row for row in results["points"] if row["table"] == name and row["tool"] in looks
        ):
            color, marker = looks[row["tool"]]
            look = dict(
                color=color, mfc="none" if row["capped"] else color, ms=10 if color == BLUE else 6
            )
            axis.plot(row["seconds"], max(row["gap"], least), marker, **look)
        axis.axhline(tol, color=BLACK, lw=0.8, ls="--")
        axis.set(xscale="log", yscale="log", xlabel="seconds", xlim=xlim, ylim=(least / 3, 300))
        axis.set_title(name.replace("x", "×"), fontsize=9)
        axis.tick_params(labelleft=axis in panels[::2])
    for axis in panels[::2]:
        axis.set_ylabel("certified gap, nats")
    handles = [
        Line2D([], [], color=color, marker=marker, ls="", label=tool)
        for tool, (color, marker) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
