"""The distortion-rate function of a loss table, by Blahut-Arimoto with a certificate of optimality. Nats.

For losses (N, R), input weights w and a price lambda per nat, D(R)'s Lagrangian min E[loss] + lambda I(X;T) over
gates p(t|x) is a concave problem in the expert marginal pi alone: with row minima m_i and
K_it = exp(-(l_it - m_i)/lambda) it equals m - lambda max_pi f(pi), f(pi) = sum_i w_i log (K pi)_i, m = sum_i w_i m_i.
Blahut-Arimoto, P2 (28)-(29), multiplies pi by g_t = sum_i w_i K_it / (K pi)_i, and concavity bounds what is left:
f* - f(pi) <= log max_t g_t. Each answer carries that certificate, and iterations stop on it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import rel_entr

from expertbank._checks import ABOVE_0, BELOW_INF, as_interval, as_losses, as_number, as_weights
from expertbank.learners import merge_rows

MAX_ITERATIONS = 1_000_000


class ConvergenceWarning(RuntimeWarning):
    """The certificate stayed above the tolerance; the message names both."""


@dataclass(frozen=True)
class RateDistortion:
    """A point, or arrays of points, on the distortion-rate curve."""

    rate: float | np.ndarray
    """I(X;T) in nats"""
    distortion: float | np.ndarray
    """expected loss"""
    lam: float | np.ndarray
    """price of a nat: minus the slope of D(R)"""
    marginal: np.ndarray
    """share of the inputs that each expert serves, (R,) or (points, R)"""
    certificate: float | np.ndarray
    """>= 0, nats: distortion + lam * rate is within lam * certificate of its minimum"""
    iterations: int | np.ndarray


@dataclass(frozen=True)
class _Problem:
    """A loss table reduced to what the solver needs: distinct excess-loss rows and their weights."""

    excess: np.ndarray  # (U, R) distinct rows of losses - row minimum
    weights: np.ndarray  # (U,) positive, sum 1
    floor: float  # weighted mean of the row minima
    means: np.ndarray  # (R,) mean excess of each expert
    best: int  # the best single expert, ties to the smallest index


def rate_distortion(losses, lam: float, weights=None, tol: float = 1e-9) -> RateDistortion:
    """Minimise E[loss] + lam I(X;T) over gates, for losses (N, R) and input weights (N,), default uniform.

    Exact without iterating: lam at or above `critical_lambda` (and inf) is the best single expert at rate 0.
    lam = 0 is the best expert for every input, at the smallest rate among such gates. Warns with
    `ConvergenceWarning` where the certificate does not reach `tol`; raises ValueError for a table with entries
    that are not finite, bad weights, lam < 0 or tol <= 0. Source: P2 (26)-(29).
    """
    problem = _reduce(losses, weights)
    lam, tol = _check_lam(lam), _check_tol(tol)
    return _solve(problem, lam, tol, _critical_lambda(problem))


def rate_distortion_curve(losses, lams=None, weights=None, tol: float = 1e-9) -> RateDistortion:
    """`rate_distortion` at every lam, in the given order; fields are arrays.

    The default grid goes from the critical lam, where the rate leaves 0, down three decades below the spread of
    the losses, and ends at 0 exactly.
    """
    problem = _reduce(losses, weights)
    critical = _critical_lambda(problem)
    tol = _check_tol(tol)
    lams = default_lams(critical, problem.excess.max()) if lams is None else lams
    lams = np.atleast_1d(as_interval(lams, "lams", 0, np.inf, allowed="numbers >= 0, or inf"))
    if lams.ndim != 1 or lams.size == 0:
        raise ValueError(f"lams has shape {lams.shape}; allowed is a list of at least one value")
    points = [_solve(problem, float(lam), tol, critical) for lam in lams]
    return RateDistortion(*(np.array([getattr(p, name) for p in points]) for name in points[0].__dataclass_fields__))


def distortion_at_rate(losses, rate: float, weights=None, tol: float = 1e-9) -> float:
    """D(rate): the least expected loss of a gate with I(X;T) <= rate nats, P1 (5), P2 (27).

    The answer is a chord of the curve, so it is achievable, and at most a relative 1e-6 of the curve's height
    (plus lam * tol) above the truth: the dual line of the chord's own slope proves it.
    """
    problem, tol = _reduce(losses, weights), _check_tol(tol)
    rate = as_number(rate, "rate", 0, np.inf, allowed="a number >= 0")
    critical = _critical_lambda(problem)
    left, right = _solve(problem, np.inf, tol, critical), _solve(problem, 0.0, tol, critical)
    if rate >= right.rate:
        return right.distortion
    if rate == 0:
        return left.distortion
    height = left.distortion - right.distortion
    while True:
        lam = (left.distortion - right.distortion) / (right.rate - left.rate)
        middle = _solve(problem, lam, tol, critical)
        # how far the chord lies above the best line of its slope
        above = (left.distortion + lam * left.rate) - (middle.distortion + lam * middle.rate)
        if above <= 1e-6 * height + lam * tol:
            return left.distortion - lam * (rate - left.rate)
        if middle.rate <= rate:
            left = middle
        else:
            right = middle


def critical_lambda(losses, weights=None) -> float:
    """The least lam at which one expert for all inputs is optimal and the gate's rate is 0.

    The best expert t* is optimal exactly when max_t E exp(-(l_t - l_t*)/lam) <= 1; the root is found per
    expert. It is inf where another expert ties with t* on average without being its copy, and 0 where t* is
    best on every input.
    """
    return _critical_lambda(_reduce(losses, weights))


def default_lams(critical: float, spread: float, points: int = 40) -> np.ndarray:
    """A grid from the critical lam (or 100 spreads, if that is smaller) down to a thousandth of that or of the
    spread, whichever is smaller, then 0."""
    if critical == 0 or spread == 0:
        return np.array([0.0])
    top = min(critical, 100 * spread)
    return np.append(np.geomspace(top, 1e-3 * min(top, spread), points - 1), 0.0)


def routing(losses, point: RateDistortion) -> np.ndarray:
    """The optimal gate p(t|x), (N, R), of one solved point: proportional to marginal * exp(-loss/lam), P2 (28)."""
    losses = as_losses(losses).astype(float)
    if np.ndim(point.lam) or point.marginal.shape != losses.shape[1:]:
        raise ValueError(
            f"point has a marginal of shape {np.shape(point.marginal)}; allowed is one point with "
            f"{losses.shape[1]} experts"
        )
    # among the experts in use: an input of weight 0 may lose so much with all of them that exp(-loss/lam) is 0
    used = point.marginal > 0
    served = losses[:, used]
    gate = np.zeros(losses.shape)
    gate[:, used] = _kernel(served - served.min(axis=1, keepdims=True), point.lam) * point.marginal[used]
    return gate / gate.sum(axis=1, keepdims=True)


def _reduce(losses, weights) -> _Problem:
    losses = as_losses(losses).astype(float)
    weights = as_weights(weights, len(losses))
    losses, weights = losses[weights > 0], weights[weights > 0]
    minima = losses.min(axis=1)
    excess, merged, _ = merge_rows(losses - minima[:, None], weights)
    means = merged @ excess
    best = int(np.argmax(means <= means.min() * (1 + 1e-12)))  # a tie must not be decided by rounding
    return _Problem(excess, merged, float(weights @ minima), means, best)


def _kernel(excess: np.ndarray, lam: float) -> np.ndarray:
    """exp(-excess/lam), with its limits 1 at lam = inf and 1{excess = 0} at lam = 0."""
    if lam == 0:
        return (excess == 0).astype(float)
    with np.errstate(under="ignore", over="ignore"):
        return np.exp(-excess / lam)


def _critical_lambda(problem: _Problem) -> float:
    return max(_challenge(problem, t) for t in range(len(problem.means)))


def _challenge(problem: _Problem, t: int) -> float:
    """The lam above which expert t cannot improve on the best expert: E exp(-difference/lam) = 1."""
    difference = problem.excess[:, t] - problem.excess[:, problem.best]
    gain = -difference.min()
    if gain <= 0:
        return 0.0  # never better
    difference = difference / gain  # at least -1: lam is found in units of the gain
    mean = problem.weights @ difference
    if mean <= 1e-14 * difference.max():
        return np.inf  # as good on average, and better somewhere

    def slope(price):  # of log E exp(-price * difference) / price: increasing, and -mean at 0
        exponents = -price * difference
        top = exponents.max()
        if top <= 1:  # small exponents: log of the mean would round the difference to 1 away
            return np.log1p(problem.weights @ np.expm1(exponents)) / price
        return (top + np.log(problem.weights @ np.exp(exponents - top))) / price

    # e^x - 1 - x <= (e/2) x^2 for x <= 1, so the slope is negative at `low`
    spread = np.abs(difference)
    low = high = mean / (problem.weights @ spread) / (2 * spread.max())
    if slope(low) >= 0:
        return np.inf  # the means differ by less than rounding
    while slope(high) < 0:
        high *= 2
    return gain / brentq(slope, low, high, xtol=1e-300, rtol=1e-14)


def _solve(problem: _Problem, lam: float, tol: float, critical: float) -> RateDistortion:
    n_experts = len(problem.means)
    if lam >= critical:
        alone = np.eye(n_experts)[problem.best]
        return RateDistortion(0.0, problem.floor + float(problem.means[problem.best]), lam, alone, 0.0, 0)
    kernel = _kernel(problem.excess, lam)
    pi = np.full(n_experts, 1 / n_experts)
    for iteration in range(MAX_ITERATIONS + 1):
        z = kernel @ pi
        g = (problem.weights / z) @ kernel
        certificate = max(0.0, float(np.log(g.max())))
        if certificate <= tol or iteration == MAX_ITERATIONS:
            break
        pi = pi * g
    if certificate > tol:
        message = f"lam = {lam:.6g}: certificate {certificate:.3g} above tol = {tol:.3g} after {iteration} iterations"
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    return _point(problem, lam, kernel, pi, z, g, certificate, iteration)


def _point(problem, lam, kernel, pi, z, g, certificate, iterations) -> RateDistortion:
    """Rate and distortion of the gate pi_t K_it / Z_i, whose own marginal is pi * g."""
    marginal = pi * g
    excess = float(((problem.weights / z)[:, None] * kernel * problem.excess).sum(axis=0) @ pi)
    rate = -float(problem.weights @ np.log(z)) - float(rel_entr(marginal, pi).sum())
    if lam > 0:
        rate -= excess / lam
    return RateDistortion(
        max(0.0, rate), problem.floor + excess, lam, marginal / marginal.sum(), certificate, iterations
    )


def _check_lam(lam) -> float:
    return as_number(lam, "lam", 0, np.inf, allowed="a number >= 0, or inf")


def _check_tol(tol) -> float:
    return as_number(tol, "tol", ABOVE_0, BELOW_INF, allowed="a positive number of nats")
