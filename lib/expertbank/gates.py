"""Gates p(t|x) judged on a loss table: their rate, loss and load. Rates in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from expertbank._checks import as_count, as_distribution, as_gate, as_losses, as_number
from expertbank.information import algorithmic_information
from expertbank.rate_distortion import rate_distortion_curve, routing


@dataclass(frozen=True)
class Judgement:
    """A gate on a loss table."""

    rate: float
    """I(X;T) in nats, plug-in, P2 (24)"""
    rate_interval: tuple[float, float]
    """normal interval at 95% around the rate less its bias"""
    loss: float
    """expected loss"""
    loss_error: float
    """its standard error"""
    load: np.ndarray
    """share of the inputs that each expert serves, (R,)"""


def judge_gate(gate, losses) -> Judgement:
    """Rate, loss and load of a gate (N, R) on the losses (N, R) of the same inputs, better held
    out."""
    gate, losses = as_gate(gate), as_losses(losses)
    if gate.shape != losses.shape:
        raise ValueError(
            f"gate has shape {gate.shape}, losses {losses.shape}; they must be of the same inputs"
        )
    # the mean divergence of rows from their mixture, whatever the rows are: posteriors there, a
    # gate here
    found = algorithmic_information(gate)
    paid = (gate * losses).sum(axis=1)
    error = paid.std(ddof=1) / np.sqrt(len(paid)) if len(paid) > 1 else np.inf
    low, high = (max(0.0, end) for end in found.interval)
    return Judgement(
        found.information, (low, high), float(paid.mean()), float(error), gate.mean(axis=0)
    )


def harden(gate) -> np.ndarray:
    """The gate (N, R) that always takes the most probable expert, the first of several; its rate is
    H(T)."""
    gate = as_gate(gate)
    return np.eye(gate.shape[1])[gate.argmax(axis=1)]


def fit_linear_gate(features, losses, lam: float, ridge: float = 1e-6) -> np.ndarray:
    """Weights (F + 1, R) of the softmax gate on features (N, F), the last row a bias, that
    minimises P2 (26).

    Expected loss + lam I(X;T) + ridge times the squared weights, over all inputs at once, by
    L-BFGS-B from uniform routing: no minibatch, so no bias of the rate. Not convex: a local
    minimum. Raises ValueError where shapes differ.
    """
    features, losses = np.asarray(features, dtype=float), as_losses(losses).astype(float)
    lam = as_number(lam, "lam", 0, np.inf, allowed="a number >= 0")
    if features.ndim != 2 or len(features) != len(losses) or not np.isfinite(features).all():
        raise ValueError(
            f"features has shape {features.shape}; allowed are finite numbers (N, F), N = {len(losses)}"
        )
    inputs = _with_bias(features)
    shape = inputs.shape[1], losses.shape[1]

    def objective(flat):
        weights = flat.reshape(shape)
        log_gate = scipy.special.log_softmax(inputs @ weights, axis=1)
        gate = np.exp(log_gate)
        price = losses + lam * (log_gate - np.log(np.maximum(gate.mean(axis=0), 1e-300)))
        paid = (gate * price).sum(axis=1, keepdims=True)
        slope = inputs.T @ (gate * (price - paid)) / len(inputs)
        return paid.mean() + ridge * (flat @ flat), slope.ravel() + 2 * ridge * flat

    start = 1e-3 * np.random.default_rng(0).standard_normal(shape).ravel()
    return scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B").x.reshape(shape)


def linear_gate(weights, features) -> np.ndarray:
    """p(t|x) (N, R) of `fit_linear_gate`'s weights on features (N, F)."""
    return scipy.special.softmax(_with_bias(np.asarray(features, dtype=float)) @ weights, axis=1)


def _with_bias(features: np.ndarray) -> np.ndarray:
    return np.hstack([features, np.ones((len(features), 1))])


@dataclass(frozen=True)
class RoutedByEstimate:
    """What gates reach that route optimally by estimated losses; arrays over prices."""

    lam: np.ndarray
    rate: np.ndarray
    """I(X;T) in nats"""
    loss: np.ndarray
    """what such a gate really loses: an upper bound on the frontier of gates that see x"""
    hoped: np.ndarray
    """what it would lose were the estimates true"""
    ceiling: float
    """what the expert that looks best on average really loses: the gate of rate 0"""

    def at(self, rate):
        """Loss reached with at most `rate` nats, between the prices by mixing the two gates beside
        it."""
        order = np.argsort(self.rate)
        rates, reached = np.append(0, self.rate[order]), np.append(self.ceiling, self.loss[order])
        return np.interp(rate, rates, np.minimum.accumulate(reached))


def route_by_estimate(estimates, losses, lams) -> RoutedByEstimate:
    """Solve D(R) for estimated losses E[loss | x] (N, R) and pay the true losses (N, R).

    The best gate that sees only x solves the problem of the conditional means. With estimates in
    their place this gives gates that exist, so their loss lies above the frontier of all gates that
    see x; D of `losses`, whose gate sees the label through the loss, lies below it.
    """
    estimates, losses, lams = (
        as_losses(estimates),
        as_losses(losses),
        np.sort(np.asarray(lams, dtype=float))[::-1],
    )
    curve = rate_distortion_curve(estimates, lams)
    gates = (routing(estimates, curve.point(i)) for i in range(len(lams)))
    paid = [float((gate * losses).sum() / len(losses)) for gate in gates]
    ceiling = float(losses[:, estimates.mean(axis=0).argmin()].mean())
    return RoutedByEstimate(lams, curve.rate, np.array(paid), curve.distortion, ceiling)


@dataclass(frozen=True)
class Distance:
    """Why a gate that sees x loses more than D(R) of the label-seeing gate at its rate; arrays over
    gates."""

    total: np.ndarray
    """held-out loss less D(rate)"""
    label_access: np.ndarray
    """the best known gate that sees x, less D(rate): from above, as a better one may exist"""
    generalisation: np.ndarray
    """held-out loss less training loss"""
    family: np.ndarray
    """the rest: what this family, so trained, leaves on its own training inputs"""


def explain_distance(
    rate, train_loss, test_loss, curve, known: Sequence[RoutedByEstimate]
) -> Distance:
    """Split the distance of gates (G,) to a curve into three terms that add up to it, in units of
    loss.

    `curve` is the certified D(R) of the held-out losses, `known` what gates that see x reach there.
    """
    rate, train_loss, test_loss = (
        np.asarray(values, dtype=float) for values in (rate, train_loss, test_loss)
    )
    frontier, reached = curve.upper(rate), np.min([gates.at(rate) for gates in known], axis=0)
    generalisation = test_loss - train_loss
    return Distance(
        test_loss - frontier,
        reached - frontier,
        generalisation,
        test_loss - reached - generalisation,
    )


@dataclass(frozen=True)
class MinibatchRate:
    """Mean over minibatches of an estimate of I(X;T), nats."""

    value: float
    error: float
    """standard error of the mean"""


def minibatch_rate(
    gate, batch_size: int, marginal=None, n_batches: int = 500, rng=0
) -> MinibatchRate:
    """I(X;T) of a gate (N, R) as training sees it: from batches of its rows, drawn with
    replacement.

    Without `marginal` (R,) each batch is compared with its own mean, which lies too low by about
    (1/2B) sum_t Var(p(t|x)) / p(t). With the gate's marginal the mean of KL(p(.|x) || marginal) is
    unbiased.
    """
    gate, rng = as_gate(gate), np.random.default_rng(rng)
    batch_size, n_batches = as_count(batch_size, "batch_size"), as_count(n_batches, "n_batches", 2)
    if marginal is not None:
        marginal = as_distribution(marginal, "marginal")
        if marginal.shape != gate.shape[1:]:
            raise ValueError(
                f"marginal has shape {marginal.shape}; allowed is ({gate.shape[1]},), as the gate has experts"
            )
    found = np.empty(n_batches)
    for i in range(n_batches):
        rows = gate[rng.integers(len(gate), size=batch_size)]
        compared = rows.mean(axis=0) if marginal is None else marginal
        found[i] = scipy.special.rel_entr(rows, compared).sum(axis=1).mean()
    return MinibatchRate(float(found.mean()), float(found.std(ddof=1) / np.sqrt(n_batches)))
