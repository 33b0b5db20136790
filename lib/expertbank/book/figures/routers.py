"""Figures of the part *Real routers*."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from expertbank.book.figures.style import BLACK, BLUE, GREEN, ORANGE, PINK, RED, canvas

# --- your own router ---


def domain_loads(tables: dict, domains) -> Figure:
    """Share of each domain's slots by expert, a panel for each name -> counts (D, E); experts by
    their main domain."""
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
    """I(D;T), its null and Miller and Madow's bias by sequences, a panel for each name -> a
    `LayerReport` a size."""
    figure, panels = canvas(1, width=6.6, height=2.9 * len(found), rows=len(found))
    for (name, layers), axis in zip(found.items(), np.atleast_1d(panels)):
        measured, mean, high, bias = np.array(
            [
                [layer.domain_information, layer.null_mean, layer.null_high, layer.domain_bias]
                for layer in layers
            ]
        ).T
        axis.loglog(sizes, measured, color=BLUE, marker="o", label="$I(D;T)$, plug-in")
        axis.fill_between(
            sizes,
            mean,
            high,
            color=ORANGE,
            alpha=0.35,
            lw=0,
            hatch="//",
            label="to its 95% quantile",
        )
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
    """Above: I(D;T) against its cap, method -> (caps, informations). Below: against scope, method
    -> (scopes, values), with the limit (P,) at perfect balance over `scopes` (P,)."""
    figure, (top, bottom) = canvas(1, width=6.4, height=7, rows=2)
    end = 1.05 * max(caps.max() for caps, _ in points.values())
    top.plot([0, end], [0, end], color=BLACK, lw=1, label="equality")
    for method, (caps, values) in points.items():
        color, marker, _ = METHOD_LOOKS[method]
        top.plot(caps, values, marker, color=color, ms=6, mfc="none", label=method)
    top.set(
        xlabel=r"cap $\log E - H(T|\mathrm{Seq})$, nats",
        ylabel="$I(D;T)$, nats",
        xlim=(0, end),
        ylim=(0, end),
    )
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
    """Held-out loss against scope, a panel a mix: {"lines": method -> (scopes, means, deviations),
    "levels": method -> mean} for methods without a scope of their own."""
    figure, axes = canvas(1, width=6.4, height=3.6 * len(panels), rows=len(panels))
    for ax, (title, panel) in zip(np.atleast_1d(axes), panels.items()):
        for method, (scopes, means, deviations) in panel["lines"].items():
            color, marker, style = METHOD_LOOKS[method]
            ax.errorbar(
                scopes,
                means,
                deviations,
                color=color,
                marker=marker,
                ls=style,
                capsize=3,
                label=method,
            )
        for method, level in panel["levels"].items():
            color, _, style = METHOD_LOOKS[method]
            ax.axhline(level, color=color, ls=style, lw=1.2, label=method)
        ax.set_xscale("log", base=2)
        ticks = np.unique(np.concatenate([scopes for scopes, *_ in panel["lines"].values()]))
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set(
            title=title,
            xlabel="scope of balancing, sequences",
            ylabel="held-out loss, nats a token",
        )
        ax.legend(ncols=2, fontsize=8)
    return figure


def losses_under_caps(capacities, lines: dict) -> Figure:
    """Loss (left) and I(D;T) (right) by token cap: name -> two pairs (means, deviations), each
    (C,)."""
    figure, axes = canvas(2, width=7.8, height=3.6)
    looks = ((RED, "o", "--"), (BLUE, "s", "-"))
    for (name, pairs), (color, marker, style) in zip(lines.items(), looks):
        for ax, (means, deviations) in zip(axes, pairs):
            where = np.arange(len(capacities))
            ax.errorbar(
                where,
                means,
                deviations,
                color=color,
                marker=marker,
                ls=style,
                capsize=3,
                label=name,
            )
    for ax, label in zip(axes, ("held-out loss, nats a token", "$I(D;T)$, nats")):
        ax.set(xlabel="tokens an expert may take, of the mean load", ylabel=label)
        ax.set_xticks(np.arange(len(capacities)), capacities)
    axes[0].legend()
    return figure


def metrics_and_loss(panels: dict, losses, methods) -> Figure:
    """Loss (K,) against one metric a panel: label -> (K,) values; `methods` (K,) sets colour and
    marker."""
    figure, axes = canvas(len(panels), width=7.8, height=3.6)
    for ax, (label, values) in zip(axes, panels.items()):
        for method, (color, marker, _) in METHOD_LOOKS.items():
            own = methods == method
            if own.any():
                ax.plot(
                    values[own], losses[own], marker, color=color, ms=6, mfc="none", label=method
                )
        ax.set(xlabel=label)
    axes[0].set_ylabel("held-out loss, nats a token")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    return figure
