"""Figures of the part *A second look*."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from expertbank.book.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, RED, SKY, canvas

# --- chapter 9: how sure are we? ---


def replicated_curves(alphas, panels) -> Figure:
    """A panel each of (label, bank means (B, A), low, high and the paper's values (A,)); bank 0 is
    the shipped one."""
    figure, axes = canvas(len(panels), width=7.8, height=3.9)
    for axis, (label, means, low, high, reported) in zip(axes, panels):
        axis.fill_between(
            alphas, low, high, color=SKY, alpha=0.3, lw=0, label="95% of experiments, M = 300"
        )
        for i, row in enumerate(means[1:]):
            axis.plot(alphas, row, color=BLUE, lw=0.6, label=None if i else "another bank")
        axis.plot(alphas, means[0], color=RED, ls="--", lw=1.8, label="the shipped bank")
        axis.plot(alphas, reported, "x", color=BLACK, ms=7, label="Table II of P2")
        axis.set(xlabel=r"$\alpha$", title=label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def banks_plane(information, gap, reported: tuple[float, float]) -> Figure:
    """Gap against information in nats, (B,) each, one dot a bank, bank 0 ours; and the paper's
    climb beside them."""
    figure, axes = canvas(width=5.6, height=3.8)
    axes.plot(information[1:], gap[1:], "o", color=BLUE, label="another bank")
    axes.plot(information[0], gap[0], "s", color=RED, ms=8, label="the shipped bank")
    axes.plot(*reported, "x", color=BLACK, ms=9, label="P2: $G(1) - G(0)$")
    axes.set(
        xlabel=r"$I(S;W)$ at $\alpha = 1$, nats", ylabel=r"gap at $\alpha = 1$, population = pool"
    )
    axes.legend()
    return figure


def sensitivity_grid(sizes, panels: dict) -> Figure:
    """Panels title -> {images: (nested (P,), all (P, K))} of I(S;W) in nats against the bank sizes
    (P,), log axis."""
    figure, axes = canvas(len(panels), width=7.8, height=3.9)
    for axis, (title, found) in zip(axes, panels.items()):
        axis.semilogx(sizes, np.log(sizes), color=BLACK, ls=":", label=r"$\log R$")
        for (images, (nested, every)), color, look in zip(
            found.items(), (ORANGE, BLUE, GREEN), ("o:", "s-", "^--")
        ):
            mean, sd = every.mean(axis=1), every.std(axis=1)
            axis.errorbar(
                sizes, mean, sd, fmt=look, color=color, capsize=3, label=f"{images:,} images each"
            )
            axis.plot(sizes, nested, look[0], color=color, mfc="white", ms=8)
        axis.set(
            title=title, xlabel="experts $R$, log axis", ylabel="$I(S;W)$, nats", ylim=(0, 4.1)
        )
        axis.set_xticks(sizes, sizes)
        axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


# --- chapter 10: estimators and intervals ---


def estimator_biases(sizes, panels: dict) -> Figure:
    """Bias of each estimate against M: title -> (name -> errors (P, K) over K repeats, predicted
    plug-in bias (P,))."""
    figure, axes = canvas(len(panels), width=7.8, height=3.6)
    for ax, (title, (errors, predicted)) in zip(np.atleast_1d(axes), panels.items()):
        ax.axhline(0, color=BLACK, lw=0.8)
        ax.semilogx(sizes, predicted, color=BLACK, ls=":", lw=1.4, label="plug-in, predicted")
        for k, ((name, error), color, marker) in enumerate(
            zip(errors.items(), (BLUE, RED, GREEN, PINK), "osD^")
        ):
            noise = 2 * error.std(axis=1) / np.sqrt(error.shape[1])
            x = np.array(sizes) * 1.06 ** (k - 1.5)
            ax.errorbar(
                x, error.mean(axis=1), noise, fmt=marker, color=color, ms=5, capsize=2, label=name
            )
        ax.set(title=title, xlabel="datasets M", ylim=(-0.8, 0.45))
        ax.set_yscale("symlog", linthresh=0.01)
        ax.set_yticks([-0.1, -0.01, 0, 0.01, 0.1], ["−0.1", "−0.01", "0", "0.01", "0.1"])
    np.atleast_1d(axes)[0].set_ylabel("bias of the estimate (nats)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def interval_coverage(shares: dict, confidence: float) -> Figure:
    """Measured coverage: method -> (alpha -> (share, low, high)), with the nominal confidence as a
    line."""
    figure, ax = canvas(width=7.2, height=3.2)
    ax.axvline(confidence, color=BLACK, ls="--", lw=1.2, label="nominal")
    alphas = list(next(iter(shares.values())))
    for k, (alpha, color, marker) in enumerate(zip(alphas, (SKY, BLUE, RED), "os^")):
        found = np.array([shares[name][alpha] for name in shares]).T
        y = np.arange(len(shares)) + 0.2 * (k - 1)
        reach = np.abs(found[1:] - found[0])
        ax.errorbar(
            found[0],
            y,
            xerr=reach,
            fmt=marker,
            color=color,
            capsize=3,
            label=rf"$\alpha$ = {alpha:g}",
        )
    ax.set_yticks(range(len(shares)), list(shares))
    ax.set(
        xlabel="share of experiments whose interval contains the truth",
        ylim=(len(shares) - 0.5, -0.5),
    )
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def interval_in_context(reported, rows: dict) -> Figure:
    """P2's interval (low, high) as a band; rows of the axis: name -> values (K,) as ticks, or (low,
    value, high)."""
    figure, ax = canvas(width=7.4, height=2.9)
    ax.axvspan(
        *reported, color=SKY, alpha=0.3, lw=0, hatch="//", label="95 % interval reported in P2"
    )
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
    """(I/m, G) of every rule and m, both axes logarithmic: rule -> (m -> (information (P,), gap
    (P,)))."""
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
                ax.annotate(
                    f"m = {m:,}",
                    at,
                    (14, -26),
                    textcoords="offset points",
                    arrowprops={"arrowstyle": "-"},
                )
    ax.set(
        xlabel="information per sample point $I(S;W)/m$ (nats)",
        ylabel="mean gap $G$",
        xlim=ends,
        ylim=(1e-4, 0.3),
    )
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def rules_at_one_size(panels: dict) -> Figure:
    """(I, G) planes, title -> (m, rule -> (information, gap), envelope (information, gap)), linear
    axes."""
    figure, axes = canvas(len(panels), width=7.8, height=4.4)
    for ax, (title, (m, found, (rate, largest))) in zip(np.atleast_1d(axes), panels.items()):
        ax.fill_between(rate, largest, 1.3 * largest.max(), color=BLACK, alpha=0.1, lw=0)
        ax.plot(rate, largest, color=BLACK, lw=1.8, label="largest gap of any rule")
        span = np.linspace(0, rate.max(), 200)
        ax.plot(
            span,
            np.sqrt(span / (2 * m)),
            color=BLACK,
            ls="--",
            lw=1.2,
            label=r"bound $\sqrt{I/(2m)}$",
        )
        for (rule, (information, gap)), (color, marker) in zip(found.items(), RULE_LOOKS):
            ax.plot(information, gap, color=color, marker=marker, ms=5, lw=0.8, label=rule)
        ax.set(
            title=title,
            xlabel="$I(S;W)$ (nats)",
            ylim=(min(0, -0.05 * largest.max()), 1.3 * largest.max()),
        )
    np.atleast_1d(axes)[0].set_ylabel("mean gap $G$")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# --- chapter 12: the ladder of bounds ---


def bound_ratios(alphas, ratios: dict[str, np.ndarray]) -> Figure:
    """Bound over gap (A,) against alpha, log axis, loosest first; every line is named at its right
    end."""
    figure, ax = canvas(width=7.8, height=5.6)
    looks = zip(
        (RED, BLACK, RED, ORANGE, BLUE, GREEN, PINK, SKY, BLUE, GREEN, BLACK), "sXvD^oP*<>o"
    )
    ends = np.log([values[-1] for values in ratios.values()])
    # loosest first: push a name down where it would touch the one above
    for i in range(1, len(ends)):
        ends[i] = min(ends[i], ends[i - 1] - 0.115)
    ends += max(0, np.log(0.83) - ends[-1])
    for i, ((name, values), (color, marker), end) in enumerate(
        zip(ratios.items(), looks, np.exp(ends))
    ):
        style = ("-", "--", "-.", ":")[i % 4]
        ax.plot(alphas, values, color=color, marker=marker, ls=style, lw=1.3, ms=4.5, clip_on=False)
        place = {"xytext": (1.05, end), "textcoords": "data", "va": "center", "fontsize": 9}
        line = {"arrowstyle": "-", "lw": 0.6, "color": color, "shrinkA": 1, "shrinkB": 4}
        ax.annotate(name, (1, values[-1]), **place, arrowprops=line)
    ax.axhline(1, color=BLACK, lw=0.8)
    ax.set(
        yscale="log",
        xlabel=r"$\alpha$",
        ylabel="bound / gap",
        xlim=(alphas[0] - 0.02, 1),
        ylim=(0.8, None),
    )
    ticks = (1, 1.5, 2, 3, 5, 10, 20)
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_yticks([], minor=True)
    return figure


def ladder_axes(names, onto: Figure | None = None) -> Figure:
    """Axes for `ladder_rungs`: one row a bound from top to bottom, multiples of the gap on a
    logarithmic axis."""
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
    # as one artist, it is drawn sooner
    bars = ax.hlines(range(len(multiples)), 1, multiples, color=BLUE, lw=10)
    look = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
    return [
        bars,
        *(ax.annotate(f"{at:.2f}", (at, row), **look) for row, at in enumerate(multiples)),
    ]


# --- chapter 13: the audit ---


def ladder_bars(ratios: dict[str, float]) -> Figure:
    """Bounds as multiples of the gap, one bar each from top to bottom; the gap itself is the line
    at 1."""
    figure, ax = canvas(width=7.2, height=0.42 * len(ratios) + 0.9)
    bars = ax.barh(list(ratios), list(ratios.values()), color=BLUE, height=0.6)
    ax.bar_label(bars, fmt="%.2f", padding=3)
    ax.axvline(1, color=BLACK, linestyle="--")
    ax.invert_yaxis()
    ax.set_xlabel("bound / gap")
    return figure
