"""Figures of the part *Gates that pay for their bits*."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from expertbank.book.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    canvas,
    pointer,
)

# --- gates that pay for their bits ---

FAMILY_LOOKS = {"linear": (ORANGE, "s"), "cnn": (RED, "o"), "prototype": (GREEN, "^")}


def gates_planes(panels: dict) -> Figure:
    """Loss against rate, a panel a bank: its curve, what estimates of E[loss | x] reach, gates by
    family.

    panels: name -> {"curve": RateDistortionCurve, "known": {name: RoutedByEstimate}, "soft" and
    "hard": {family: (rates, losses)}}.
    """
    figure, axes = canvas(len(panels), width=7.8, height=4.3)
    for ax, (title, panel) in zip(axes, panels.items()):
        curve = panel["curve"]
        order = np.argsort(curve.rate)
        ax.plot(
            curve.rate[order],
            curve.distortion[order],
            color=BLACK,
            lw=1.8,
            label="D(R): sees the label",
        )
        for (name, known), style in zip(panel["known"].items(), ("--", ":")):
            ax.plot(known.rate, known.loss, color=BLUE, ls=style, label=f"sees x: {name}")
        for family, (color, marker) in FAMILY_LOOKS.items():
            ax.plot(*panel["soft"][family], marker, color=color, ms=5, label=f"{family}, soft")
            ax.plot(
                *panel["hard"][family],
                marker,
                color=color,
                ms=5,
                mfc="none",
                label=f"{family}, hardened",
            )
        ax.set(title=title, xlabel="rate $I(X;T)$, nats", ylim=(0, None), xlim=(-0.08, None))
    axes[0].set_ylabel("held-out expected loss")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def minibatch_biases(sizes, own, predicted, running, truth: float) -> Figure:
    """Mean minibatch estimate of I(X;T) against batch size: with the batch's own marginal, as
    predicted, corrected."""
    figure, axes = canvas(width=6.6, height=3.4)
    axes.semilogx(sizes, own, "o", color=RED, label="batch's own marginal")
    axes.semilogx(sizes, predicted, "--", color=RED, label="predicted by the delta method")
    axes.semilogx(sizes, running, "s", color=BLUE, label="fixed marginal of the gate")
    axes.axhline(truth, color=BLACK, lw=1.2, label="all inputs at once")
    axes.set(xlabel="batch size B", ylabel="mean estimate of $I(X;T)$, nats")
    axes.legend()
    return figure


def distance_terms(lams, panels: dict) -> Figure:
    """Stacked terms of `Distance` against the price, a panel a family: name -> Distance of the mean
    over seeds."""
    figure, axes = canvas(len(panels), width=7.8, height=3.4)
    terms = {"label access": (SKY, "//"), "generalisation": (ORANGE, ".."), "family": (PINK, "xx")}
    for ax, (title, distance) in zip(axes, panels.items()):
        up, down = np.zeros(len(lams)), np.zeros(len(lams))
        for name, (color, hatch) in terms.items():
            height = getattr(distance, name.replace(" ", "_"))
            base = np.where(height >= 0, up, down)
            ax.bar(
                np.arange(len(lams)),
                height,
                bottom=base,
                color=color,
                hatch=hatch,
                edgecolor="white",
                label=name,
            )
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
    """Share of the inputs each expert serves, a panel a gate: name -> (R,), laid out as rows x
    columns of experts."""
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
    """The ground of `gate_point`: a curve, trained gates family -> (rates, losses), and empty axes
    for the loads."""
    figure, (left, right) = canvas(2, width=6.6, height=3.4)
    order = np.argsort(curve.rate)
    left.plot(curve.rate[order], curve.distortion[order], color=BLACK, label="D(R)")
    for family, (rates, losses) in points.items():
        color, marker = FAMILY_LOOKS[family]
        left.plot(rates, losses, marker, color=color, ms=4, label=family)
    left.set(xlabel="rate, nats", ylabel="expected loss", ylim=(0, None))
    left.legend(fontsize=8)
    right.set(
        xlabel="expert",
        ylabel="share of inputs served",
        ylim=(0, 0.25),
        xlim=(-0.8, n_experts - 0.2),
    )
    return figure


def gate_point(axes, rate: float, loss: float, best: float, load) -> list[Artist]:
    """A gate at (rate, loss), the frontier's loss at its rate, and its load."""
    left, right = axes
    return [
        *pointer(left, rate, loss, [loss, best]),
        *right.bar(np.arange(len(load)), load, color=BLUE),
    ]


# --- chapter 16: private gates and noisy links ---


def against_limits(
    panels: list[dict], width: float = 7.8, height: float = 4.6, onto: Figure | None = None
) -> Figure:
    """Panels of measured lines and limits: dict of x, xlabel, ylabel, limits and measured, name ->
    (P,) or a constant.

    Options: title, log (the x axis), ylim. `onto` as in `canvas`.
    """
    figure, axes = canvas(len(panels), width=width, height=height, onto=onto)
    for panel, axis in zip(panels, np.atleast_1d(axes)):
        for (name, values), style in zip(panel["limits"].items(), ("-", "--", ":", "-.")):
            axis.plot(
                panel["x"],
                np.broadcast_to(values, np.shape(panel["x"])),
                color=BLACK,
                ls=style,
                lw=1.3,
                label=name,
            )
        looks = zip((BLUE, ORANGE, GREEN, RED, PINK), "os^Dv")
        for (name, values), (color, marker) in zip(panel["measured"].items(), looks):
            axis.plot(panel["x"], values, color=color, marker=marker, ms=4, lw=1.2, label=name)
        if panel.get("log"):
            axis.set_xscale("log")
        axis.set(
            xlabel=panel["xlabel"],
            ylabel=panel["ylabel"],
            title=panel.get("title"),
            ylim=panel.get("ylim"),
        )
        if axis.get_legend() is None:  # below, as curves fill the panel from corner to corner
            axis.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


# --- Theorem 2 with all its terms ---


def theorem2_sides(terms: dict, ceilings: dict) -> Figure:
    """Both sides of (10) against alpha, a panel for each name -> `Theorem2Terms`, with D(0) of the
    same name."""
    figure, panels = canvas(len(terms), width=7.8, height=4.2)
    for (name, term), axis in zip(terms.items(), np.atleast_1d(panels)):
        alpha = term.parameter
        axis.fill_between(alpha, term.distortion, term.train_risk, color=ORANGE, alpha=0.25, lw=0, hatch="//",
                          label=r"$\delta_m$")  # fmt: skip
        axis.plot(alpha, term.bound(1), color=RED, ls="--", label=r"right side of (10), $\sigma=1$")
        axis.plot(alpha, term.bound(), color=RED, label=r"right side of (10), $\sigma=1/2$")
        axis.axhline(ceilings[name], color=BLACK, ls=":", label="$D(0)$: best single expert")
        axis.plot(
            alpha, term.population_risk, color=BLUE, marker="o", ms=3, label=r"$\mathrm{E}\,R(W)$"
        )
        axis.plot(alpha, term.train_risk, color=BLUE, ls="-.", label=r"$\mathrm{E}\,R_S(W)$")
        axis.plot(
            alpha, term.distortion, color=GREEN, ls=(0, (6, 2)), label=r"$\mathrm{E}\,D(I_W)$"
        )
        axis.set(xlabel=r"$\alpha$", ylim=(0, None), title=name)
    np.atleast_1d(panels)[0].set_ylabel("loss")
    handles, labels = np.atleast_1d(panels)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def theorem2_region(alphas, sizes, levels: dict) -> Figure:
    """Where (10) certifies that routing helps: name -> 0 nowhere, 1 with sigma = 1/2, 2 also with
    sigma = 1, (m, A)."""
    figure, panels = canvas(len(levels), width=7.8, height=3.4)
    shades = {
        0: ("#F2F2F2", "no"),
        1: (SKY, r"with $\sigma=1/2$"),
        2: (BLUE, r"also with $\sigma=1$"),
    }
    for (name, level), axis in zip(levels.items(), panels):
        for value, (shade, _) in shades.items():
            for row, column in zip(*np.nonzero(level == value)):
                axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc=shade, ec="white"))
        axis.set(
            xlim=(-0.5, len(alphas) - 0.5),
            ylim=(-0.5, len(sizes) - 0.5),
            title=name,
            xlabel=r"$\alpha$",
        )
        axis.set_xticks(range(0, len(alphas), 5), [f"{alpha:g}" for alpha in alphas[::5]])
        axis.set_yticks(
            range(len(sizes)), [f"{size:,}" for size in sizes] if axis is panels[0] else []
        )
        axis.grid(False)
    panels[0].set_ylabel("sample size $m$")
    figure.legend([Rectangle((0, 0), 1, 1, fc=shade, ec=BLACK, lw=0.4) for shade, _ in shades.values()],
                  [label for _, label in shades.values()], loc="outside lower center", ncols=3)  # fmt: skip
    return figure


def theorem2_split(rows: dict) -> Figure:
    """E R(W) in three parts, a bar for each name -> (D, label access, family and selection,
    gap)."""
    figure, axis = canvas(width=7.8, height=0.5 * len(rows) + 1.3)
    looks = ((GREEN, "", r"$\mathrm{E}\,D(I_W)$"), (ORANGE, "//", "oracle over the best gates that see $x$"),
             (SKY, "..", "family and selection"))  # fmt: skip
    parts, left = np.array(list(rows.values())), np.zeros(len(rows))
    for values, (color, hatch, label) in zip(parts.T, looks):
        axis.barh(
            list(rows),
            values,
            left=left,
            color=color,
            hatch=hatch,
            ec="white",
            height=0.6,
            label=label,
        )
        left = left + values
    axis.plot(
        left - parts[:, 3],
        np.arange(len(rows)),
        "|",
        color=BLACK,
        ms=22,
        mew=2,
        label=r"$\mathrm{E}\,R_S(W)$",
    )
    axis.invert_yaxis()
    axis.set_xlabel("loss")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def information_and_gap(panels: dict) -> Figure:
    """G against I(S;W): panel name -> line name -> (I (P,), G (P,), whether the points are joined
    in their order)."""
    figure, axes = canvas(len(panels), width=7.8, height=3.9)
    looks = {"soft": (BLUE, "o", "-"), "hard": (RED, "^", "--")}
    for (name, lines), axis in zip(panels.items(), axes):
        for label, (information, gap, joined) in lines.items():
            color, marker, style = looks[label]
            axis.plot(
                information,
                gap,
                color=color,
                marker=marker,
                ms=4,
                ls=style if joined else "",
                label=label,
            )
        axis.set(xlabel="$I(S;W)$ in nats", ylim=(0, None), title=name)
        axis.title.set_fontsize(9)
    axes[0].set_ylabel("gap $G$")
    axes[0].legend()
    return figure
