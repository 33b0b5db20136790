"""How far an empirical distortion-rate curve may be off: resampled inputs, and the optimism of
fitting them; and the surface of accuracy, rate and cost. Nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import (
    ABOVE_0,
    BELOW_1,
    BELOW_INF,
    as_count,
    as_interval,
    as_losses,
    as_number,
    as_weights,
    check_size,
)
from expertbank.information import TINY
from expertbank.rate_distortion import RateDistortionCurve, rate_distortion_curve
from expertbank.tables import merge_rows, quietly, table_of

# --- resampled inputs ---


@dataclass(frozen=True)
class CurveBand:
    """D(rate) on a grid of rates and I at a grid of prices, with what resampling the inputs does to
    them."""

    rates: np.ndarray
    """nats, (P,)"""
    distortion: np.ndarray
    """D at these rates, (P,)"""
    low: np.ndarray
    """pointwise interval of D, (P,)"""
    high: np.ndarray
    simultaneous_low: np.ndarray
    """band that holds D at all rates at once, (P,)"""
    simultaneous_high: np.ndarray
    lams: np.ndarray
    """prices, (K,)"""
    information: np.ndarray
    """I(X;T) at these prices, (K,)"""
    information_low: np.ndarray
    """pointwise interval of I, (K,)"""
    information_high: np.ndarray


def curve_bootstrap(
    losses: ArrayLike,
    rates: ArrayLike | None = None,
    lams: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    n_resamples: int = 200,
    level: float = 0.95,
    rng: np.random.Generator | int = 0,
) -> CurveBand:
    """Bootstrap over the inputs of losses (N, R): intervals of D(rate) and I(lam), and a
    simultaneous band of D.

    A resample draws N inputs, which on merged rows is a draw of weights, and solves the curve again
    at the same prices; D between them is by chords. Its mean lies below D by about the optimism
    that D itself has (see `split_optimism`), so that intervals are D plus the deviations from that
    mean. The simultaneous band reaches c standard deviations, c the quantile of the largest
    deviation over all rates. By default rates are 21 from 0 to the curve's highest, and prices
    those of `rate_distortion_curve`. Raises ValueError for bad tables, weights, rates or prices,
    fewer than two resamples, and a level outside (0, 1).

    >>> losses = np.random.default_rng(0).integers(0, 2, (200, 3))
    >>> band = curve_bootstrap(losses, rates=[0.1], lams=[1, 0.3, 0], n_resamples=20)
    >>> bool(band.low[0] < band.distortion[0] < band.high[0])
    True
    """
    losses = as_losses(losses)
    n_resamples = as_count(n_resamples, "n_resamples", 2)
    level = as_number(level, "level", ABOVE_0, BELOW_1)
    rows, weights, _ = merge_rows(losses, as_weights(weights, len(losses)))
    check_size(n_resamples * len(rows), f"{n_resamples} resamples of {len(rows)} distinct inputs")
    curve = rate_distortion_curve(rows, lams, weights)
    rates = np.linspace(0, curve.rate.max(), 21) if rates is None else np.atleast_1d(rates)
    distortion = curve.upper(rates)
    counts = np.random.default_rng(rng).multinomial(len(losses), weights, size=n_resamples)
    resampled = [rate_distortion_curve(rows, curve.lam, drawn) for drawn in counts]
    deviations = _deviations([other.upper(rates) for other in resampled])
    shifts = _deviations([other.rate for other in resampled])

    ends = ((1 - level) / 2, (1 + level) / 2)
    low, high = distortion + np.quantile(deviations, ends, axis=0)
    information = curve.rate + np.quantile(shifts, ends, axis=0)
    information_low, information_high = np.maximum(information, 0)
    reach = _simultaneous_reach(deviations, level)
    return CurveBand(
        rates=rates,
        distortion=distortion,
        low=low,
        high=high,
        simultaneous_low=distortion - reach,
        simultaneous_high=distortion + reach,
        lams=curve.lam,
        information=curve.rate,
        information_low=information_low,
        information_high=information_high,
    )


def _deviations(resamples: Sequence[np.ndarray]) -> np.ndarray:
    return np.array(resamples) - np.mean(resamples, axis=0)


def _simultaneous_reach(deviations: np.ndarray, level: float) -> np.ndarray:
    """Half the width (P,) of a band that a share `level` of resamples (B, P) stays in at all P
    rates."""
    size = max(float(np.abs(deviations).max()), TINY)  # so that no square overflows or vanishes
    errors = (deviations / size).std(axis=0, ddof=1) * size
    worst = np.abs(deviations / np.where(errors > 0, errors, np.inf)).max(axis=1)
    return np.quantile(worst, level) * errors


# --- the optimism of a fit ---


@dataclass(frozen=True)
class Optimism:
    """Least Lagrangian E[loss] + lam I(X;T) of half of the inputs, against what its experts' shares
    cost elsewhere."""

    lams: np.ndarray
    """prices, (K,)"""
    fitted: np.ndarray
    """least value on one half, mean over splits, (K,); on average below the truth"""
    held_out: np.ndarray
    """value of that half's shares on the other half, mean over splits, (K,); on average above the
    truth"""
    excess: np.ndarray
    """that value above the least one of the other half, (splits, K); never negative, its mean is
    held_out - fitted"""


def split_optimism(
    losses: ArrayLike,
    lams: ArrayLike | None = None,
    n_splits: int = 50,
    rng: np.random.Generator | int = 0,
) -> Optimism:
    """How much better a curve looks on the inputs that it was fitted to, by random halves of losses
    (N, R).

    The experts' shares of one half's optimum, used on the other half, are one gate among those that
    the other half could choose, so they cost at least its optimum. By symmetry the mean excess is
    held_out - fitted, and the true Lagrangian lies between the two means: a minimum over gates is
    on average below the minimum of the average. All N inputs together are about half as optimistic.
    Prices must be positive: at 0 a held-out input whose only good expert has no share would cost
    infinite rate. Raises ValueError for them, for bad tables and for fewer than two inputs.

    >>> losses = np.random.default_rng(0).integers(0, 2, (40, 5))
    >>> found = split_optimism(losses, lams=[0.5], n_splits=10)
    >>> bool(found.fitted[0] < found.held_out[0]), bool(found.excess.min() >= -1e-9)
    (True, True)
    """
    losses = as_losses(losses)
    if len(losses) < 2:
        raise ValueError(
            f"losses has shape {losses.shape}; at least two inputs are needed to split them"
        )
    if lams is None:
        lams = rate_distortion_curve(losses).lam[:-1]
        if not len(lams):  # one expert is the best for every input, whatever the price
            lams = np.ones(1)
    lams = np.atleast_1d(as_interval(lams, "lams", ABOVE_0, BELOW_INF, allowed="positive numbers"))
    n_splits = as_count(n_splits, "n_splits")
    check_size(n_splits * len(lams), f"{n_splits} splits at {len(lams)} prices")
    rng = np.random.default_rng(rng)
    rows, _, row_of = merge_rows(losses)
    half = len(losses) // 2
    fitted = np.zeros((n_splits, len(lams)))
    held_out = np.zeros_like(fitted)
    excess = np.zeros_like(fitted)
    for split in range(n_splits):
        order = rng.permutation(row_of)
        here = np.bincount(order[:half], minlength=len(rows))
        there = np.bincount(order[half : 2 * half], minlength=len(rows))
        curve = rate_distortion_curve(rows, lams, here)
        fitted[split] = _least_lagrangian(curve)
        held_out[split] = [
            _value(rows, there, shares, lam) for shares, lam in zip(curve.marginal, lams)
        ]
        best = rate_distortion_curve(rows, lams, there)
        excess[split] = held_out[split] - _least_lagrangian(best)
    return Optimism(lams, fitted.mean(axis=0), held_out.mean(axis=0), excess)


def _least_lagrangian(curve: RateDistortionCurve) -> np.ndarray:
    """E[loss] + lam I(X;T) at the points of a curve, (K,)."""
    return curve.distortion + curve.lam * curve.rate


@quietly
def _value(rows: np.ndarray, counts: np.ndarray, shares: np.ndarray, lam: float) -> float:
    """Least E[loss] + lam KL(gate || shares) over gates: what the given shares of the experts cost
    at this price."""
    used = shares > 0  # the minimum of a row is over these
    table = table_of(rows[:, used], counts)
    table.set_price(lam)
    f, _, _ = table.evaluate(shares[used] / shares[used].sum())
    return table.floor - lam * f


# --- costs ---


@dataclass(frozen=True)
class AccuracyRateCost:
    """What routing reaches for every exchange rate of cost into loss (M,) and price of a nat (K,);
    fields (M, K)."""

    exchange_rates: np.ndarray
    lams: np.ndarray
    loss: np.ndarray
    """expected loss without the cost"""
    rate: np.ndarray
    """I(X;T) in nats"""
    cost: np.ndarray
    """expected cost, in its own units"""
    certificate: np.ndarray


def accuracy_rate_cost(
    losses: ArrayLike,
    cost: ArrayLike,
    exchange_rates: ArrayLike,
    lams: ArrayLike,
    weights: ArrayLike | None = None,
) -> AccuracyRateCost:
    """The surface of loss, rate and cost: the curve of losses + exchange_rate * cost for every
    exchange rate.

    losses (N, R), cost (R,) per expert (seconds, joules, bytes), exchange_rates (M,) units of loss
    per unit of cost, lams (K,) units of loss per nat. Each point is optimal for its two prices,
    which its certificate proves. Raises ValueError for bad tables, costs or weights, and for prices
    below 0.

    >>> losses = [[0, 0.5], [1, 0.5]]  # an expert that is right half the time, one that hedges
    >>> surface = accuracy_rate_cost(losses, cost=[1, 0], exchange_rates=[0, 1], lams=[0.1])
    >>> surface.cost.round(3).tolist()
    [[0.5], [0.0]]
    """
    exchange_rates = np.atleast_1d(
        as_interval(exchange_rates, "exchange_rates", 0, BELOW_INF, allowed="finite numbers >= 0")
    )
    cost = np.asarray(cost, float)
    lams = np.atleast_1d(lams)
    curves = [
        rate_distortion_curve(losses, lams, weights, cost=price * cost) for price in exchange_rates
    ]
    spent = np.array([curve.marginal @ cost for curve in curves])
    distortion = np.array([curve.distortion for curve in curves])
    return AccuracyRateCost(
        exchange_rates=exchange_rates,
        lams=lams,
        loss=distortion - exchange_rates[:, None] * spent,
        rate=np.array([curve.rate for curve in curves]),
        cost=spent,
        certificate=np.array([curve.certificate for curve in curves]),
    )
