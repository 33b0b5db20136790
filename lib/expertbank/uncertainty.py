"""How far an empirical distortion-rate curve may be off: resampled inputs, and the optimism of
fitting them. Nats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from expertbank._checks import (
    ABOVE_0,
    BELOW_1,
    BELOW_INF,
    as_count,
    as_interval,
    as_losses,
    as_number,
    as_weights,
)
from expertbank.rate_distortion import rate_distortion_curve
from expertbank.tables import merge_rows, quietly, table_of


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


@dataclass(frozen=True)
class Optimism:
    """Least Lagrangian E[loss] + lam I(X;T) of half of the inputs, against what its experts' shares
    cost elsewhere."""

    lams: np.ndarray
    """prices, (K,)"""
    fitted: np.ndarray
    """least value on one half, mean over splits, (K,): on average below the truth"""
    held_out: np.ndarray
    """value of that half's shares on the other half, mean over splits, (K,): on average above the
    truth"""
    excess: np.ndarray
    """that value above the least one of the other half, (splits, K): never negative, mean held_out
    - fitted"""


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


def curve_bootstrap(
    losses, rates=None, lams=None, weights=None, n_resamples: int = 200, level: float = 0.95, rng=0
) -> CurveBand:
    """Bootstrap over the inputs of losses (N, R): intervals of D(rate) and I(lam), and a
    simultaneous band of D.

    A resample draws N inputs, which on merged rows is a draw of weights, and solves the curve again
    at the same prices; D between them is by chords. Its mean lies below D by about the optimism
    that D itself has (see `split_optimism`), so that intervals are D plus the deviations from that
    mean. The simultaneous band reaches c standard deviations, c the quantile of the largest
    deviation over all rates.
    """
    losses = as_losses(losses)
    n_resamples, level = (
        as_count(n_resamples, "n_resamples", 2),
        as_number(level, "level", ABOVE_0, BELOW_1),
    )
    rows, weights, _ = merge_rows(losses, as_weights(weights, len(losses)))
    curve = rate_distortion_curve(rows, lams, weights)
    rates = np.linspace(0, curve.rate.max(), 21) if rates is None else np.atleast_1d(rates)
    distortion = curve.upper(rates)
    rng = np.random.default_rng(rng)
    counts = rng.multinomial(len(losses), weights, size=n_resamples)
    curves = [rate_distortion_curve(rows, curve.lam, drawn) for drawn in counts]
    deviations = _deviations([resampled.upper(rates) for resampled in curves])
    shifts = _deviations([resampled.rate for resampled in curves])
    ends = (1 - level) / 2, (1 + level) / 2
    errors = deviations.std(axis=0, ddof=1)
    worst = np.abs(deviations / np.where(errors > 0, errors, np.inf)).max(axis=1)
    reach = np.quantile(worst, level) * errors
    low, high = distortion + np.quantile(deviations, ends, axis=0)
    information_low, information_high = np.maximum(
        curve.rate + np.quantile(shifts, ends, axis=0), 0
    )
    return CurveBand(
        rates, distortion, low, high, distortion - reach, distortion + reach,
        curve.lam, curve.rate, information_low, information_high,
    )  # fmt: skip


def split_optimism(losses, lams=None, n_splits: int = 50, rng=0) -> Optimism:
    """How much better a curve looks on the inputs that it was fitted to, by random halves of losses
    (N, R).

    The experts' shares of one half's optimum, used on the other half, are one gate among those that
    the other half could choose, so they cost at least its optimum. By symmetry the mean excess is
    held_out - fitted, and the true Lagrangian lies between the two means: a minimum over gates is
    on average below the minimum of the average. All N inputs together are about half as optimistic.
    Prices must be positive: at 0 a held-out input whose only good expert has no share would cost
    infinite rate.
    """
    losses = as_losses(losses)
    if len(losses) < 2:
        raise ValueError(
            f"losses has shape {losses.shape}; at least two inputs are needed to split them"
        )
    if lams is None:
        lams = rate_distortion_curve(losses).lam[:-1]
    lams = np.atleast_1d(as_interval(lams, "lams", ABOVE_0, BELOW_INF, allowed="positive numbers"))
    rows, _, row_of = merge_rows(losses)
    rng, half = np.random.default_rng(rng), len(losses) // 2
    fitted, held_out, excess = np.zeros((3, as_count(n_splits, "n_splits"), len(lams)))
    for split in range(len(fitted)):
        order = rng.permutation(row_of)
        halves = [
            np.bincount(part, minlength=len(rows))
            for part in (order[:half], order[half : 2 * half])
        ]
        here, there = (rate_distortion_curve(rows, lams, counts) for counts in halves)
        fitted[split] = here.distortion + lams * here.rate
        held_out[split] = [
            _value(rows, halves[1], shares, lam) for shares, lam in zip(here.marginal, lams)
        ]
        excess[split] = held_out[split] - (there.distortion + lams * there.rate)
    return Optimism(lams, fitted.mean(axis=0), held_out.mean(axis=0), excess)


def accuracy_rate_cost(losses, cost, exchange_rates, lams, weights=None) -> AccuracyRateCost:
    """The surface of loss, rate and cost: the curve of losses + exchange_rate * cost for every
    exchange rate.

    losses (N, R), cost (R,) per expert (seconds, joules, bytes), exchange_rates (M,) units of loss
    per unit of cost, lams (K,) units of loss per nat. Each point is optimal for its two prices,
    which its certificate proves.
    """
    allowed = "finite numbers >= 0"
    exchange_rates = np.atleast_1d(
        as_interval(exchange_rates, "exchange_rates", 0, BELOW_INF, allowed=allowed)
    )
    cost, lams = np.asarray(cost, float), np.atleast_1d(lams)
    curves = [
        rate_distortion_curve(losses, lams, weights, cost=price * cost) for price in exchange_rates
    ]
    spent = np.array([curve.marginal @ cost for curve in curves])
    loss = np.array([curve.distortion for curve in curves]) - exchange_rates[:, None] * spent
    rate, certificate = (
        np.array([getattr(curve, name) for curve in curves]) for name in ("rate", "certificate")
    )
    return AccuracyRateCost(exchange_rates, lams, loss, rate, spent, certificate)


@quietly
def _value(rows, counts, shares, lam: float) -> float:
    """Least E[loss] + lam KL(gate || shares) over gates: what the given shares of the experts cost
    at this price."""
    used = shares > 0  # the minimum of a row is over these
    table = table_of(rows[:, used], counts)
    table.set_price(lam)
    return table.floor - lam * table.evaluate(shares[used] / shares[used].sum())[0]


def _deviations(resamples: list[np.ndarray]) -> np.ndarray:
    return np.array(resamples) - np.mean(resamples, axis=0)
