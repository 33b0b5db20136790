"""Shares learnt from a sample, and what they lose on the population: a Theorem 2 whose delta is
computable. Rates in nats.

At a price lam the least D + lam I(X;T) of a law of losses l is L = min_q E[loss(q)] over shares q
of the experts, loss(q) = -lam log sum_t q_t exp(-l_t/lam). With k_t = exp(-l_t/lam) an input is a
day of a market with prices k, and q a portfolio that is rebalanced daily: loss(q) is -lam times the
log of what it gains. L_n is L of a sample of n inputs.

**Statement.** Let b_i be shares chosen from the inputs before the i-th, any way at all, W the gain
they make on the sample, the product of b_i . k_i, and q their average. For i.i.d. inputs

    L <= E[loss of q on a fresh input] <= E[-lam log(W) / n].

The universal portfolio, Dirichlet(1/2), has log(W) >= max_q log gain - r_n, so that the right side
is at most E[L_n] + lam r_n / n, whatever the bank, with r_n = `universal_regret` <=
(R - 1)/2 log(n + 1) + log 2 (Cover & Ordentlich 1996). The gate q_t k_t / (q . k) of the shares
keeps D + lam I at or below their loss.

*Proof.* b_i does not depend on the i-th input, so the mean of loss_i(b_i) is that of b_i on a fresh
input, which is at least L. The loss is convex in the shares: the average of the b_i loses at most
the average of what they lose. For the last step, the rate of the gate is at most the mean
divergence of its rows from q. Nothing here is asked of I(S;W), and nothing of how losses are
distributed.

*Regret.* A mixture of portfolios gains sum_z Q(z) prod_i k_i,z(i), over sequences z of experts,
with Q(z) = E[prod_i q_z(i)]; the best portfolio the same with prod_i q_z(i). So their ratio is at
least the least Q(z) / max_q prod_i q_z(i), a matter of counts alone; it is least where one expert
is in all places (Cover & Ordentlich 1996, Lemma 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import (
    ABOVE_0,
    BELOW_INF,
    as_count,
    as_distribution,
    as_losses,
    as_number,
    as_weights,
)

LARGEST_SUM = 10**6  # states of counts in `mixture_gain`


@dataclass(frozen=True)
class OnlineShares:
    """What shares chosen one input at a time gain; `universal_shares` makes it. Units of loss."""

    average: np.ndarray
    """of the shares before each input, (R,)"""
    last: np.ndarray
    """shares after the last input, (R,)"""
    paid: float
    """-lam log(W) / n: its mean over samples is at least the loss of the average, and L"""


def universal_regret(n_inputs: int, n_experts: int) -> float:
    """The most, in nats, that the Dirichlet(1/2) universal portfolio may gain less than the best
    constant one on n inputs: log of Gamma(1/2) Gamma(n + R/2) / (Gamma(R/2) Gamma(n + 1/2)).

    It is at most (R - 1)/2 log(n + 1) + log 2. Raises ValueError for counts below 1.

    >>> round(universal_regret(2000, 25), 2), round(float(12 * np.log(2001) + np.log(2)), 2)
    (73.08, 91.91)
    """
    n = as_count(n_inputs, "n_inputs")
    half = as_count(n_experts, "n_experts") / 2
    ends = scipy.special.gammaln([0.5, n + half, half, n + 0.5])
    return float(ends[0] + ends[1] - ends[2] - ends[3])


def shares_loss(
    losses: ArrayLike, lam: float, shares: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """E[-lam log sum_t q_t exp(-l_t/lam)] of shares q (R,) on losses (N, R): D + lam I of their
    gate, or above it by lam KL(load, q).

    Input weights (N,) are uniform by default. Raises ValueError for a bad table or weights, a price
    that is not positive, or shares that are no law of R experts.

    >>> from expertbank.rate_distortion import rate_distortion
    >>> point = rate_distortion([[0, 1], [1, 0], [1, 0]], lam=0.5)
    >>> round(shares_loss([[0, 1], [1, 0], [1, 0]], 0.5, point.marginal), 6)
    0.254793
    >>> round(point.distortion + 0.5 * point.rate, 6)
    0.254793
    """
    losses, lam = _checked(losses, lam)
    shares = as_distribution(shares, "shares")
    if shares.shape != losses.shape[1:]:
        raise ValueError(f"shares has shape {shares.shape}; allowed is {losses.shape[1:]}")
    weights = as_weights(weights, len(losses))
    paid = -lam * scipy.special.logsumexp(-losses / lam, axis=1, b=shares)
    return float(weights @ paid)


def universal_shares(
    losses: ArrayLike, lam: float, n_particles: int = 64, rng: np.random.Generator | int = 0
) -> OnlineShares:
    """Shares learnt from losses (n, R), input by input, by the Dirichlet(1/2) universal portfolio.

    Its shares are the mean of the posterior of q, here that of `n_particles` weighted draws, which
    are moved by a Gibbs sweep whenever few of them have the weight. However good the draws are, the
    module's statement holds for the gain that they make; with many it is the portfolio's. Raises
    ValueError for a bad table or a price that is not positive.

    Expert 0 is right more often than expert 1, and that is found:

    >>> losses = np.random.default_rng(0).random((400, 2)) < [0.1, 0.4]
    >>> found = universal_shares(losses, lam=1.0)
    >>> bool(found.last[0] > 0.8), bool(found.paid <= 1.0)
    (True, True)
    """
    losses, lam = _checked(losses, lam)
    n_particles = as_count(n_particles, "n_particles", at_least=2)
    rng = np.random.default_rng(rng)
    rows, row_of = np.unique(losses, axis=0, return_inverse=True)
    floor = rows.min(axis=1, keepdims=True)  # what no shares can save
    kernel = np.exp((floor - rows) / lam)
    tells = np.ptp(kernel, axis=1) > 0
    n_experts = rows.shape[1]
    seen = np.zeros(len(rows), dtype=int)
    drawn = rng.dirichlet(np.full(n_experts, 0.5), n_particles)
    weights = np.full(n_particles, 1 / n_particles)
    total = np.zeros(n_experts)
    paid = 0.0
    for row in row_of.ravel().tolist():
        total += weights @ drawn
        paid += floor[row, 0]
        if not tells[row]:
            continue
        each = drawn @ kernel[row]
        gain = weights @ each
        paid -= lam * np.log(gain)
        seen[row] += 1
        weights = weights * each / gain
        if 1 / (weights @ weights) < n_particles / 2:
            drawn = drawn[rng.choice(n_particles, n_particles, p=weights / weights.sum())]
            drawn = _moved(drawn, kernel, seen, rng)
            weights = np.full(n_particles, 1 / n_particles)
    n = len(losses)
    return OnlineShares(average=total / n, last=weights @ drawn, paid=float(paid / n))


def mixture_gain(losses: ArrayLike, lam: float) -> float:
    """log W of the Dirichlet(1/2) universal portfolio on losses (n, R), exactly, for few inputs and
    experts.

    It sums over the counts of experts, of which there are binomial(n + R - 1, R - 1). Raises
    ValueError for more than a million, a bad table or a price that is not positive.

    On one input the shares are even:

    >>> round(mixture_gain([[0, 1]], lam=1.0), 6), round(float(np.log((1 + np.exp(-1)) / 2)), 6)
    (-0.379885, -0.379885)
    """
    losses, lam = _checked(losses, lam)
    n, n_experts = losses.shape
    n_counts = scipy.special.comb(n + n_experts - 1, n_experts - 1)
    if n_counts > LARGEST_SUM:
        raise ValueError(f"{n_counts:.3g} counts of experts are too many; allowed are 10^6")
    # an urn: an expert that was drawn c times in i draws comes next with (c + 1/2) / (i + R/2)
    gains = {(0,) * n_experts: 0.0}
    for i, row in enumerate(-losses / lam):
        grown: dict[tuple[int, ...], list[float]] = {}
        for counts, gain in gains.items():
            for t, count in enumerate(counts):
                more = (*counts[:t], count + 1, *counts[t + 1 :])
                step = gain + row[t] + np.log((count + 0.5) / (i + n_experts / 2))
                grown.setdefault(more, []).append(step)
        gains = {counts: float(np.logaddexp.reduce(steps)) for counts, steps in grown.items()}
    return float(np.logaddexp.reduce(list(gains.values())))


def _moved(
    drawn: np.ndarray, kernel: np.ndarray, seen: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws (P, R) after a Gibbs sweep: an expert for each input seen, then shares given those."""
    rows = np.flatnonzero(seen)
    laws = drawn[:, None, :] * kernel[rows]
    laws /= laws.sum(axis=2, keepdims=True)
    counts = rng.multinomial(seen[rows], laws).sum(axis=1)
    grown = rng.standard_gamma(0.5 + counts)
    return grown / grown.sum(axis=1, keepdims=True)


def _checked(losses: ArrayLike, lam: float) -> tuple[np.ndarray, float]:
    losses = as_losses(losses).astype(float)
    return losses, as_number(lam, "lam", ABOVE_0, BELOW_INF, allowed="a positive number")
