"""Figures of the part *A second look*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline

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
    Pair,
    canvas,
    hatched,
    legend_below,
    name_ticks,
    panel_canvas,
    smooth_band,
    smooth_curve,
    smooth_line,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# --- chapter 9: how sure are we? ---


def replicated_curves(alphas: ArrayLike, panels: Sequence[tuple]) -> Figure:
    """A panel each of (label, bank means (B, A), low, high and the paper's values (A,)), drawn
    smoothly through the A values of alpha; bank 0 is the shipped one."""
    figure, axes = panel_canvas(len(panels), height=3.9)
    fine = np.linspace(np.min(alphas), np.max(alphas), 101)
    for ax, (label, means, low, high, reported) in zip(axes, panels):
        means, low, high = (CubicSpline(alphas, y, axis=-1)(fine) for y in (means, low, high))
        shade = {"color": SKY, "alpha": 0.3, "lw": 0, "label": "95% of experiments"}
        ax.fill_between(fine, low, high, **shade)
        others = ax.plot(fine, means[1:].T, "-", color=BLUE, lw=0.6)
        others[0].set_label("another bank")
        ax.plot(fine, means[0], "--", color=RED, lw=1.8, label="the shipped bank")
        ax.plot(alphas, reported, "x", color=BLACK, ms=7, label="Table II of P2")
        ax.set(xlabel=r"$\alpha$", title=label)
    legend_below(figure, 4)
    return figure


def banks_plane(information: np.ndarray, gap: np.ndarray, reported: tuple[float, float]) -> Figure:
    """Gap against information in nats, (B,) each, one dot a bank, bank 0 ours; and the paper's
    climb beside them."""
    figure, ax = canvas(5.6)
    ax.plot(information[1:], gap[1:], "o", color=BLUE, label="another bank")
    ax.plot(information[0], gap[0], "s", color=RED, ms=8, label="the shipped bank")
    ax.plot(*reported, "x", color=BLACK, ms=9, label="P2: $G(1) - G(0)$")
    ax.set_xlabel(r"$I(S;W)$ at $\alpha = 1$, nats")
    ax.set_ylabel(r"gap at $\alpha = 1$, population = pool")
    ax.legend()
    return figure


def sensitivity_grid(sizes: Sequence[int], panels: dict[str, dict[int, Pair]]) -> Figure:
    """Panels title -> {images: (nested (P,), all (P, K))} of I(S;W) in nats against the bank sizes
    (P,), log axis."""
    figure, axes = panel_canvas(len(panels), height=3.9)
    for ax, (title, found) in zip(axes, panels.items()):
        ax.semilogx(sizes, np.log(sizes), ":", color=BLACK, label=r"$\log R$")
        for (images, (nested, every)), look in zip(found.items(), LINE_LOOKS):
            label = f"{images:,} images each"
            mean = every.mean(axis=1)
            ax.errorbar(sizes, mean, every.std(axis=1), capsize=3, label=label, **look)
            ax.plot(sizes, nested, look["marker"], color=look["color"], mfc="white", ms=8)
        ax.set(title=title, xlabel="experts $R$, log axis", ylabel="$I(S;W)$, nats")
        ax.set_ylim(0, 4.1)
        name_ticks(ax.xaxis, sizes)
    legend_below(figure, 4)
    return figure


# --- chapter 10: estimators and intervals ---


def estimator_biases(sizes: Sequence[int], panels: dict[str, tuple]) -> Figure:
    """Bias of each estimate against M: title -> (name -> errors (P, K) over K repeats, predicted
    plug-in bias (P,))."""
    figure, axes = panel_canvas(len(panels), height=3.6)
    for ax, (title, (errors, predicted)) in zip(axes, panels.items()):
        ax.axhline(0, color=GREY, lw=0.8)
        # it falls nearly like a power of M, unless it is nothing at all
        line = np.array(sizes), np.abs(predicted)
        places, below = smooth_curve(*line, "xy") if np.all(predicted) else line
        ax.semilogx(places, -below, ":", color=BLACK, lw=1.4, label="plug-in, predicted")
        for k, (name, error) in enumerate(errors.items()):
            noise = 2 * error.std(axis=1) / np.sqrt(error.shape[1])
            beside = np.array(sizes) * 1.06 ** (k - 1.5)
            look = {"ls": "", "ms": 5, "capsize": 2, "label": name}
            ax.errorbar(beside, error.mean(axis=1), noise, **look)
        means = [error.mean(axis=1) for error in errors.values()]
        ends = min(-0.8, 2 * np.min(means)), max(0.45, 2 * np.max(means))
        ax.set(title=title, xlabel="datasets M", ylim=ends)
        ax.set_yscale("symlog", linthresh=0.01)
        ax.set_yticks([-0.1, -0.01, 0, 0.01, 0.1], ["−0.1", "−0.01", "0", "0.01", "0.1"])
    axes[0].set_ylabel("bias of the estimate (nats)")
    legend_below(figure, 5, fontsize=8)
    return figure


def interval_coverage(shares: dict[str, dict[float, tuple]], confidence: float) -> Figure:
    """Measured coverage: method -> (alpha -> (share, low, high)), with the nominal confidence as a
    line."""
    figure, ax = canvas(7.2, 3.2)
    ax.axvline(confidence, color=BLACK, ls="--", lw=1.2, label="nominal")
    for k, alpha in enumerate(next(iter(shares.values()))):
        share, low, high = np.array([shares[method][alpha] for method in shares]).T
        beside = np.arange(len(shares)) + 0.2 * (k - 1)
        reach = (share - low, high - share)
        label = rf"$\alpha$ = {alpha:g}"
        ax.errorbar(share, beside, xerr=reach, ls="", capsize=3, label=label)
    ax.set_yticks(range(len(shares)), list(shares))
    ax.set_ylim(len(shares) - 0.5, -0.5)
    ax.set_xlabel("share of experiments whose interval contains the truth")
    legend_below(figure, 4)
    return figure


def interval_in_context(
    reported: tuple[float, float], rows: dict[str, Sequence[float]], alpha: float
) -> Figure:
    """P2's interval (low, high) as a band; rows of the axis: name -> values (K,) as ticks, or (low,
    value, high), at one alpha."""
    figure, ax = canvas(7.4, 2.9)
    hatched(ax.axvspan, *reported, color=SKY, label="95 % interval reported in P2")
    for row, (values, color) in enumerate(zip(rows.values(), (BLUE, RED, BLACK, GREEN))):
        if len(values) == 3:
            low, value, high = values
            ax.plot([low, high], [row, row], "-", color=color, lw=2)
            ax.plot(value, row, "o", color=color)
        else:
            ax.plot(values, np.full(len(values), row), "|", color=color, ms=16, mew=1.6)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlabel=rf"$I(S;W)$ at $\alpha$ = {alpha:g} (nats)", ylim=(len(rows) - 0.4, -0.6))
    legend_below(figure, 1)
    return figure


# --- chapter 11: other learners ---


def rules_plane(found: dict[str, dict[int, tuple]], labelled: str) -> Figure:
    """(I/m, G) of every rule and m, both axes logarithmic: rule -> (m -> (information (P,), gap
    (P,)))."""
    figure, ax = canvas(7.6, 5.6)
    ends = np.array([2e-6, 0.12])
    ax.loglog(ends, np.sqrt(ends / 2), "-", color=BLACK, lw=1.6, label="bound, √($I/2m$)")
    for (rule, by_size), look in zip(found.items(), LINE_LOOKS):
        line = look | {"linestyle": "-", "ms": 5, "lw": 0.8, "alpha": 0.85}
        ax.plot([], [], label=rule, **line)
        for m, (information, gap) in by_size.items():
            seen = (information > 1e-3) & (gap > 0)
            smooth_line(ax, information[seen] / m, gap[seen], "xy", **line)
            if rule == labelled:
                end = (information[seen][-1] / m, gap[seen][-1])
                place = {"xytext": (14, -26), "textcoords": "offset points"}
                ax.annotate(f"m = {m:,}", end, arrowprops={"arrowstyle": "-"}, **place)
    ax.set(xlabel="information per sample point $I(S;W)/m$ (nats)", ylabel="mean gap $G$")
    ax.set(xlim=ends, ylim=(1e-4, 0.3))
    legend_below(figure, 3)
    return figure


def rules_at_one_size(panels: dict[str, tuple]) -> Figure:
    """(I, G) planes, title -> (m, rule -> (information, gap), envelope (information, gap)), linear
    axes."""
    figure, axes = panel_canvas(len(panels), height=4.4)
    for ax, (title, (m, found, (rate, largest))) in zip(axes, panels.items()):
        top = 1.3 * largest.max()
        shade = {"color": BLACK, "alpha": 0.1, "lw": 0, "label": "no rule reaches this"}
        smooth_band(ax, rate, largest, top, **shade)
        frontier = {"color": BLACK, "lw": 1.8, "label": "largest gap of any rule"}
        smooth_line(ax, rate, largest, style="-", **frontier)
        span = np.linspace(0, rate.max(), 200)
        bound = np.sqrt(span / (2 * m))
        ax.plot(span, bound, "--", color=BLACK, lw=1.2, label="bound, √($I/2m$)")
        for rule, (information, gap) in found.items():
            smooth_line(ax, information, gap, ls="-", ms=5, lw=0.8, label=rule)
        ax.set(title=title, xlabel="$I(S;W)$ (nats)")
        ax.set_ylim(min(0, -0.05 * largest.max()), top)
    axes[0].set_ylabel("mean gap $G$")
    legend_below(figure, 3)
    return figure


# --- chapter 12: the ladder of bounds ---


def bound_ratios(alphas: np.ndarray, ratios: dict[str, np.ndarray]) -> Figure:
    """Bound over gap (A,) against alpha, log axis, loosest first; every line is named at its right
    end."""
    figure, ax = canvas(7.8, 5.6)
    heights = np.log([values[-1] for values in ratios.values()])
    # loosest first: push a name down where it would touch the one above
    for i in range(1, len(heights)):
        heights[i] = min(heights[i], heights[i - 1] - 0.115)
    heights += max(0, np.log(0.83) - heights[-1])
    # more lines than the cycle has looks
    colors = (RED, BLACK, RED, ORANGE, PINK, BLUE, GREEN, PINK, SKY, ORANGE, BLUE, GREEN, BLACK)
    looks = zip(colors, "sXvDp^oP*d<>o", ["-", "--", "-.", ":"] * 4)
    for (name, values), (color, marker, style), height in zip(
        ratios.items(), looks, np.exp(heights)
    ):
        look = {"color": color, "lw": 1.3, "ms": 4.5, "clip_on": False}
        smooth_line(ax, alphas, values, "y", marker + style, **look)
        place = {"xytext": (1.05, height), "textcoords": "data", "va": "center", "fontsize": 9}
        line = {"arrowstyle": "-", "lw": 0.6, "color": color, "shrinkA": 1, "shrinkB": 4}
        ax.annotate(name, (1, values[-1]), arrowprops=line, **place)
    ax.axhline(1, color=BLACK, lw=0.8)
    ax.set(yscale="log", xlabel=r"$\alpha$", ylabel="bound / gap")
    ax.set(xlim=(alphas[0] - 0.02, 1), ylim=(0.8, None))
    name_ticks(ax.yaxis, (1, 1.5, 2, 3, 5, 10, 20))
    return figure


def bound_waterfall(
    paths: dict[str, tuple[float, dict[str, float]]], kinds: dict[str, str]
) -> Figure:
    """A panel each of (loosest bound, step -> bound after it), log axis: a bar is as long as the
    factor that its step takes off the bound, which is written below its name. `kinds` says of each
    step what the bound after it looks at; the second kind is hatched."""
    figure, axes = panel_canvas(rows=len(paths), height=2.3 * len(paths) + 0.4)
    for ax, (title, (first, steps)) in zip(axes, paths.items()):
        after = np.array(list(steps.values()))
        before = np.append(first, after[:-1])
        rows = np.arange(len(after))
        for kind, color in zip(dict.fromkeys(kinds.values()), (BLUE, ORANGE)):
            own = rows[[kinds[name] == kind for name in steps]]
            look = {"left": after[own], "height": 0.6, "label": f"by {kind}", "color": color}
            look |= {"hatch": "//" if color == ORANGE else "", "ec": BLACK, "lw": 0}
            ax.barh(own, before[own] - after[own], **look)
        ax.vlines(after[:-1], rows[:-1], rows[1:], color=BLACK, lw=0.8)
        taken = zip(steps, before / after, after)
        ax.set_yticks(rows, [f"{name}\n÷ {factor:.2f} → {low:.1f}" for name, factor, low in taken])
        ax.set(xscale="log", title=title, xlim=(0.95 * after[-1], 1.05 * first))
        ax.set_ylim(len(rows) - 0.5, -0.5)
        name_ticks(ax.xaxis, (20, 50, 100))
    axes[-1].set_xlabel("bound in thousandths, log axis")
    legend_below(figure, 1)
    return figure


# --- what else is true: selection without a dataset ---


def selection_ratios(sizes: Sequence[int], panels: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Theory over simulation against the sample size, log axis: title -> (name -> ratios (B, S) of
    B banks); a line is the mean over banks. Of the first and the fourth a shade reaches from the
    least bank to the greatest."""
    figure, axes = panel_canvas(len(panels), height=4.1)
    looks = ((BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^:"), (RED, "D-."))
    for ax, (title, lines) in zip(axes, panels.items()):
        for (name, ratios), (color, style) in zip(lines.items(), looks):
            if color in (BLUE, RED):
                ends = (ratios.min(axis=0), ratios.max(axis=0))
                smooth_band(ax, sizes, *ends, "x", color=color, alpha=0.15, lw=0)
            smooth_line(ax, sizes, ratios.mean(axis=0), "x", style, color=color, label=name)
        ax.axhline(1, color=BLACK, lw=0.8)
        ax.set(xscale="log", title=title, xlabel="sample size $m$")
        name_ticks(ax.xaxis, sizes[:: 2 if len(sizes) > 4 else 1])
    axes[0].set_ylabel("theory / simulation")
    legend_below(figure, 2)
    return figure


# --- chapter 13: the audit ---


def ladder_bars(ratios: dict[str, float]) -> Figure:
    """Bounds as multiples of the gap, one bar each from top to bottom; the gap itself is the line
    at 1."""
    figure, ax = canvas(7.2, 0.42 * len(ratios) + 0.9)
    bars = ax.barh(list(ratios), list(ratios.values()), color=BLUE, height=0.6)
    ax.bar_label(bars, fmt="%.2f", padding=3)
    ax.axvline(1, color=BLACK, linestyle="--")
    ax.invert_yaxis()
    ax.set_xlabel("bound / gap")
    return figure


# --- is it MNIST? ---


def families_of_data(alphas: ArrayLike, panels: Sequence[tuple[str, dict]]) -> Figure:
    """A panel each of (label, data set -> (bank means (B, A), low (A,), high (A,))), drawn smoothly
    through the A values of alpha: a shade for single experiments, a line a bank."""
    figure, axes = panel_canvas(len(panels), height=3.9)
    fine = np.linspace(np.min(alphas), np.max(alphas), 101)
    for ax, (label, sets) in zip(axes, panels):
        for (name, lines), color, style in zip(sets.items(), (BLUE, RED, GREEN), ("-", "--", ":")):
            means, low, high = (CubicSpline(alphas, y, axis=-1)(fine) for y in lines)
            ax.fill_between(fine, low, high, color=color, alpha=0.15, lw=0)
            drawn = ax.plot(fine, means.T, style, color=color, lw=0.8)
            drawn[0].set_label(name)
        ax.set(xlabel=r"$\alpha$", title=label)
    legend_below(figure, len(panels[0][1]))
    return figure


def spread_decides(panels: Sequence[tuple[str, dict, dict]]) -> Figure:
    """A panel each of (label, lines, marks) against spread over noise, log axis: size of bank ->
    (places, middle, low, high) of small banks, (P,) each, and data set -> (places, values)."""
    figure, axes = panel_canvas(len(panels), height=4.1)
    looks = ((BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^:"), (PINK, "D-."))
    for ax, (label, lines, marks) in zip(axes, panels):
        for (size, (places, middle, low, high)), (color, style) in zip(lines.items(), looks):
            smooth_band(ax, places, low, high, "x", color=color, alpha=0.15, lw=0)
            smooth_line(ax, places, middle, "x", style, color=color, ms=4, label=f"$R = {size}$")
        for (name, (places, values)), color, marker in zip(marks.items(), (BLACK, RED), "x+"):
            ax.plot(places, values, marker, color=color, ms=9, label=name)
        ax.set(xscale="log", title=label, xlabel=r"spread over noise $\kappa$")
        name_ticks(ax.xaxis, (0.1, 0.3, 1, 3))
    legend_below(figure, 3)
    return figure


# --- the report ---


def verdict_bars(counts: dict[str, dict[str, int]]) -> Figure:
    """How many rows have each verdict, one bar a verdict, with the share of each paper: verdict ->
    (paper -> rows). Those that speak against a paper are red."""
    figure, ax = canvas(7.2, 0.36 * len(counts) + 0.9)
    totals = [sum(papers.values()) for papers in counts.values()]
    colors = [RED if verdict in ("outside", "does not hold") else BLUE for verdict in counts]
    bars = ax.barh(list(counts), totals, color=colors, height=0.6)
    shares = [", ".join(f"{n} {paper}" for paper, n in x.items() if n) for x in counts.values()]
    ax.bar_label(bars, [f"{n} ({share})" for n, share in zip(totals, shares)], padding=3)
    ax.set(xlabel="rows", xlim=(0, 2.1 * max(totals)))
    ax.invert_yaxis()
    return figure
