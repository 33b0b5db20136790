"""Explorers: sliders around pure library functions. One function a chapter, each returning one widget."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from expertbank import figures
from expertbank.bank import ExpertBank
from expertbank.bounds import xu_raginsky_bound
from expertbank.learners import simulate
from expertbank.rate_distortion import RateDistortion
from expertbank.synthetic import alpha_curve, bsc_selection


def _explorer(draw: Callable, **sliders: ipywidgets.Widget) -> ipywidgets.VBox:
    """Sliders over a picture: `draw(**values)` returns a Figure and a sentence that reads out its numbers."""
    picture = ipywidgets.HTML()

    def update(_=None):
        figure, sentence = draw(**{name: slider.value for name, slider in sliders.items()})
        picture.value = f'<p aria-live="polite">{sentence}</p><img alt="{sentence}" src="{_as_uri(figure)}">'

    for slider in sliders.values():
        slider.observe(update, names="value")
    update()
    return ipywidgets.VBox([*sliders.values(), picture])


def _as_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _slider(values, value, description: str) -> ipywidgets.SelectionSlider:
    """A slider over given values, with a label wide enough to read."""
    options = [(f"{v:g}", v) for v in values]
    return ipywidgets.SelectionSlider(
        options=options, value=value, description=description, style={"description_width": "12em"},
        layout={"width": "32em", "max_width": "100%"},
    )  # fmt: skip


# --- chapter 4: the alpha-mixture ---


def explore_alpha_mixture(pool, test, n_datasets: int = 500) -> ipywidgets.VBox:
    """The (information, gap) plane by alpha, sample size m and how many candidates (columns) are in the bank."""
    alphas = [i / 20 for i in range(21)]

    def draw(alpha, sample_size, candidates):
        curve = alpha_curve(pool[:, :candidates], alphas, sample_size, n_datasets, test[:, :candidates])
        at = alphas.index(alpha)
        bounds = [xu_raginsky_bound(curve.information[at], sample_size, sigma) for sigma in (1, 0.5)]
        sentence = (
            f"alpha = {alpha:g}: I(S;W) = {curve.information[at]:.3f} nats, gap {curve.gap[at]:.4f} "
            f"± {curve.gap_error[at]:.4f} (separate test set: {curve.test_gap[at]:.4f}); "
            f"bound {bounds[0]:.4f} with σ = 1, {bounds[1]:.4f} with σ = 1/2"
        )
        return figures.alpha_plane(curve, marked=(alpha,)), sentence

    banks = sorted({min(k, pool.shape[1]) for k in (2, 5, 10, 25, 50, 100)})
    return _explorer(
        draw,
        alpha=_slider(alphas, 0.7, "alpha"),
        sample_size=_slider([16, 32, 64, 128, 256, 512, 1024], 256, "sample size m"),
        candidates=_slider(banks, banks[-1], "candidates in the bank"),
    )


# --- chapter 5: the binary symmetric channel ---


def explore_bsc(candidates) -> ipywidgets.VBox:
    """The (rate, risk) plane of P1 experiment 2, exactly, by beta, sample size m and the true crossover p*."""
    betas = [0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1, 3, 10, 30]

    def draw(beta, sample_size, crossover):
        points = [bsc_selection(candidates, crossover, sample_size, b) for b in betas]
        point = points[betas.index(beta)]
        term = xu_raginsky_bound(point.information, sample_size, sigma=1)
        place = "above" if point.excess > term else "below"
        sentence = (
            f"beta = {beta:g}: I(S;W) = {point.information:.3f} nats, rate {point.rate:.3f} nats; mean risk "
            f"{point.risk:.4f} is {point.excess:.4f} over D(R) = {point.distortion:.4f}; the term of (13) is "
            f"{term:.4f}, so the point lies {place} (13)"
        )
        return figures.bsc_plane(betas, points, sample_size, marked=(beta,)), sentence

    return _explorer(
        draw,
        beta=_slider(betas, 1, "inverse temperature"),
        sample_size=_slider([10, 25, 50, 100, 250, 500, 1000, 2500], 100, "sample size m"),
        crossover=_slider([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4], 0.2, "true crossover p*"),
    )


# --- chapter 6: the MNIST bank ---


def explore_mnist_bank(bank: ExpertBank, n_datasets: int = 1000) -> ipywidgets.VBox:
    """Gaps of an alpha-mixture over a bank, by alpha, sample size m and what counts as the population."""
    pool = bank.losses("train")
    populations = {"test split (P2)": bank.losses("test").mean(axis=0), "the pool itself": pool.mean(axis=0)}

    def draw(alpha, sample_size, protocol):
        run = simulate(pool, alpha, sample_size, n_datasets, populations[protocol])
        bounds = {
            f"bound, σ = {sigma:g}:": float(xu_raginsky_bound(run.information, sample_size, sigma))
            for sigma in (1, 0.5)
        }
        sentence = (
            f"I(S;W) = {run.information:.3f} nats, mean gap {run.gap:.4f} ± {run.gap_error:.4f}; "
            f"bound {bounds['bound, σ = 1:']:.4f} with σ = 1, {bounds['bound, σ = 0.5:']:.4f} with σ = 1/2"
        )
        return figures.bank_gap_histogram(run.gaps, bounds), sentence

    return _explorer(
        draw,
        alpha=_slider([i / 20 for i in range(21)], 0.7, "alpha"),
        sample_size=_slider([16, 32, 64, 128, 256, 512, 1024], 256, "sample size m"),
        protocol=ipywidgets.ToggleButtons(options=list(populations), description="population"),
    )


# --- chapter 7: Blahut-Arimoto curves ---


def explore_blahut_arimoto(curve: RateDistortion) -> ipywidgets.VBox:
    """Points of a solved curve by lambda: rate, loss, supporting line and the share of each expert."""

    def draw(lam):
        at = int(np.abs(curve.lam - lam).argmin())
        serving = int((curve.marginal[at] >= 0.01).sum())
        sentence = (
            f"λ = {lam:.3g}: rate {curve.rate[at]:.4f} nats, expected loss {curve.distortion[at]:.4f}; "
            f"{serving} of {curve.marginal.shape[1]} experts serve at least 1% of the images; "
            f"certificate {curve.certificate[at]:.0e} nats"
        )
        return figures.curve_point(curve, at), sentence

    lams = np.sort(curve.lam).tolist()
    return _explorer(draw, lam=_slider(lams, lams[len(lams) // 2], "price lambda"))
