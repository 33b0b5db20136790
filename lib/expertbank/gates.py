"""Gates p(t|x) judged on a loss table: their rate, loss and load. Rates in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import (
    FloatOrArray,
    as_count,
    as_distribution,
    as_gate,
    as_losses,
    as_number,
    check_size,
)
from expertbank.information import algorithmic_information, mean_error
from expertbank.rate_distortion import RateDistortionCurve, rate_distortion_curve, routing

# --- one gate ---


@dataclass(frozen=True)
class Judgement:
    """A gate on a loss table; `judge_gate` makes it."""

    rate: float
    """I(X;T) in nats, plug-in, P2 (24)"""
    rate_interval: tuple[float, float]
    """normal interval at 95% around the rate less its bias"""
    loss: float
    """expected loss"""
    loss_error: float
    """its standard error; infinite for one input"""
    load: np.ndarray
    """share of the inputs that each expert serves, (R,)"""


def judge_gate(gate: ArrayLike, losses: ArrayLike) -> Judgement:
    """Rate, loss and load of a gate (N, R) on the losses (N, R) of the same inputs.

    Better of held-out inputs. Raises ValueError where shapes differ or rows of the gate do not sum
    to 1.

    >>> judged = judge_gate(gate=[[1, 0], [0, 1]], losses=[[0, 1], [1, 0]])
    >>> round(judged.rate, 4), judged.loss, judged.load.tolist()
    (0.6931, 0.0, [0.5, 0.5])
    """
    gate = as_gate(gate)
    losses = as_losses(losses)
    if gate.shape != losses.shape:
        raise ValueError(
            f"gate has shape {gate.shape}, losses {losses.shape}; they must be of the same inputs"
        )
    # the mean divergence of rows from their mixture, whatever the rows are: posteriors there, a
    # gate here
    found = algorithmic_information(gate)
    low, high = found.interval
    paid = (gate * losses).sum(axis=1)
    return Judgement(
        rate=found.information,
        rate_interval=(max(0.0, low), max(0.0, high)),
        loss=float(paid.mean()),
        loss_error=mean_error(paid),
        load=gate.mean(axis=0),
    )


def harden(gate: ArrayLike) -> np.ndarray:
    """The gate (N, R) that always takes the most probable expert, the first of several.

    Its rate is H(T). Raises ValueError for rows that do not sum to 1.

    >>> harden([[0.6, 0.4], [0.2, 0.8]]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    gate = as_gate(gate)
    return np.eye(gate.shape[1])[gate.argmax(axis=1)]


# --- a linear gate, fitted ---


def fit_linear_gate(
    features: ArrayLike, losses: ArrayLike, lam: float, ridge: float = 1e-6
) -> np.ndarray:
    """Weights (F + 1, R) of the softmax gate on features (N, F) that minimises P2 (26).

    The last row is a bias. Expected loss + lam I(X;T) + ridge times the squared weights, over all
    inputs at once, by L-BFGS-B from uniform routing: no minibatch, so no bias of the rate. Not
    convex: a local minimum. Raises ValueError where shapes differ, features are not finite or lam
    is below 0.

    >>> features = np.linspace(-1, 1, 50)[:, None]
    >>> losses = np.hstack([features > 0, features < 0])
    >>> weights = fit_linear_gate(features, losses, lam=0.1)
    >>> judge_gate(linear_gate(weights, features), losses).loss < 0.01
    True
    """
    features = np.asarray(features, dtype=float)
    losses = as_losses(losses).astype(float)
    lam = as_number(lam, "lam", 0, np.inf, allowed="a number >= 0")
    if features.ndim != 2 or len(features) != len(losses) or not np.isfinite(features).all():
        raise ValueError(
            f"features has shape {features.shape}; "
            f"allowed are finite numbers (N, F), N = {len(losses)}"
        )
    inputs = _with_bias(features)
    shape = (inputs.shape[1], losses.shape[1])

    def objective(flat):
        """The objective at weights (F + 1, R), and its gradient, both as `minimize` wants them."""
        weights = flat.reshape(shape)
        log_gate = scipy.special.log_softmax(inputs @ weights, axis=1)
        gate = np.exp(log_gate)
        log_marginal = np.log(np.maximum(gate.mean(axis=0), 1e-300))
        price = losses + lam * (log_gate - log_marginal)
        paid = (gate * price).sum(axis=1, keepdims=True)
        slope = inputs.T @ (gate * (price - paid)) / len(inputs)
        return paid.mean() + ridge * (flat @ flat), slope.ravel() + 2 * ridge * flat

    start = 1e-3 * np.random.default_rng(0).standard_normal(shape).ravel()
    return scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B").x.reshape(shape)


def linear_gate(weights: ArrayLike, features: ArrayLike) -> np.ndarray:
    """p(t|x) (N, R) of `fit_linear_gate`'s weights (F + 1, R) on features (N, F).

    >>> linear_gate([[0, np.log(4)], [0, 0]], features=[[0], [1]]).round(4).tolist()
    [[0.5, 0.5], [0.2, 0.8]]
    """
    inputs = _with_bias(np.asarray(features, dtype=float))
    return scipy.special.softmax(inputs @ np.asarray(weights), axis=1)


def _with_bias(features: np.ndarray) -> np.ndarray:
    return np.hstack([features, np.ones((len(features), 1))])


# --- what gates that see x can reach ---


@dataclass(frozen=True)
class RoutedByEstimate:
    """What gates reach that route optimally by estimated losses; arrays over prices.

    `route_by_estimate` makes it.
    """

    lam: np.ndarray
    rate: np.ndarray
    """I(X;T) in nats"""
    loss: np.ndarray
    """what such a gate really loses: an upper bound on the frontier of gates that see x"""
    hoped: np.ndarray
    """what it would lose were the estimates true"""
    ceiling: float
    """what the expert that looks best on average really loses: the gate of rate 0"""

    def at(self, rate: ArrayLike) -> FloatOrArray:
        """Loss reached with at most `rate` nats, a number or an array.

        Between the prices it is reached by mixing the two gates beside it.
        """
        order = np.argsort(self.rate)
        rates = np.append(0, self.rate[order])
        reached = np.append(self.ceiling, self.loss[order])
        return np.interp(np.asarray(rate, float), rates, np.minimum.accumulate(reached))


def route_by_estimate(estimates: ArrayLike, losses: ArrayLike, lams: ArrayLike) -> RoutedByEstimate:
    """Solve D(R) for estimated losses E[loss | x] (N, R) and pay the true losses (N, R).

    `lams` are the prices, in any order. The best gate that sees only x solves the problem of the
    conditional means. With estimates in their place this gives gates that exist, so their loss lies
    above the frontier of all gates that see x; D of `losses`, whose gate sees the label through the
    loss, lies below it. Raises ValueError for tables that are not finite or prices below 0.

    Estimates that favour the wrong expert on one of four inputs:

    >>> losses = np.array([[0, 1], [0, 1], [1, 0], [1, 0]])
    >>> estimates = [[0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.4, 0.6]]
    >>> reached = route_by_estimate(estimates, losses, lams=[0.01])
    >>> float(reached.loss.round(3)[0]), float(reached.hoped.round(3)[0])
    (0.25, 0.175)
    """
    estimates = as_losses(estimates)
    losses = as_losses(losses)
    lams = np.sort(np.asarray(lams, dtype=float))[::-1]
    curve = rate_distortion_curve(estimates, lams)
    paid = []
    for index in range(len(lams)):
        gate = routing(estimates, curve.point(index))
        paid.append(float((gate * losses).sum() / len(losses)))
    looks_best = estimates.mean(axis=0).argmin()
    return RoutedByEstimate(
        lam=lams,
        rate=np.asarray(curve.rate),
        loss=np.array(paid),
        hoped=np.asarray(curve.distortion),
        ceiling=float(losses[:, looks_best].mean()),
    )


def route_by_guess(
    predictions: ArrayLike, guessed: ArrayLike, losses: ArrayLike, lams: ArrayLike
) -> RoutedByEstimate:
    """Solve D(R) as if a guess of the label were the label, and pay the true losses (N, R).

    `predictions` (N, R) are what the experts say, `guessed` (N,) the labels guessed from x,
    `losses` those of the true labels. An expert is expected to be right where it says what was
    guessed. Where the guess errs on a share e of the inputs and losses are 0-1, the loss at a rate
    R is at most D(R) + 2e, and D of gates that see x is no larger than it. Such a gate runs every
    expert on every input: it bounds what gates that see x can reach, and is no router. Raises
    ValueError where shapes differ.

    The guess is wrong on one of four inputs:

    >>> predictions = np.array([[0, 1], [0, 1], [0, 1], [0, 1]])
    >>> labels = np.array([0, 0, 1, 1])
    >>> losses = predictions != labels[:, None]
    >>> reached = route_by_guess(predictions, [0, 0, 1, 0], losses, lams=[0.01])
    >>> float(reached.loss.round(3)[0]), float(reached.hoped.round(3)[0])
    (0.25, 0.0)
    """
    predictions = np.asarray(predictions)
    guessed = np.asarray(guessed)
    if predictions.ndim != 2 or guessed.shape != predictions.shape[:1]:
        raise ValueError(
            f"guessed has shape {guessed.shape}, predictions {predictions.shape}; "
            "allowed are (N,) and (N, R)"
        )
    return route_by_estimate((predictions != guessed[:, None]).astype(np.uint8), losses, lams)


@dataclass(frozen=True)
class Distance:
    """Why a gate that sees x loses more than D(R) at its rate, where gates may see the label.

    Arrays over gates, in units of loss; `explain_distance` makes it.
    """

    total: np.ndarray
    """held-out loss less D(rate)"""
    bracket: np.ndarray
    """the best known gate that sees x, less D(rate): not to see the label costs at most this"""
    generalisation: np.ndarray
    """held-out loss less training loss"""
    not_learned: np.ndarray
    """the rest: training loss less that of the best known gate that sees x, at the same rate"""


def explain_distance(
    rate: ArrayLike,
    train_loss: ArrayLike,
    test_loss: ArrayLike,
    curve: RateDistortionCurve,
    known: Sequence[RoutedByEstimate],
) -> Distance:
    """Split the distance of gates (G,) to a curve into three terms that add up to it.

    Rates in nats, losses and terms in units of loss. `curve` is the certified D(R) of the held-out
    losses, `known` what gates that see x reach there. `not_learned` is below 0 for gates that do
    better on their training inputs than the known ones.

    >>> losses = np.array([[0, 1], [0, 1], [1, 0], [1, 0]])
    >>> curve = rate_distortion_curve(losses)
    >>> known = [route_by_estimate(losses, losses, lams=[0.1, 0.01])]
    >>> found = explain_distance([0.6], [0.1], [0.2], curve, known)
    >>> parts = found.bracket + found.generalisation + found.not_learned
    >>> bool(np.isclose(parts[0], found.total[0]))
    True
    """
    rate = np.asarray(rate, dtype=float)
    train_loss = np.asarray(train_loss, dtype=float)
    test_loss = np.asarray(test_loss, dtype=float)
    frontier = curve.upper(rate)
    reached = np.min([gates.at(rate) for gates in known], axis=0)
    generalisation = test_loss - train_loss
    return Distance(
        total=test_loss - frontier,
        bracket=reached - frontier,
        generalisation=generalisation,
        not_learned=train_loss - reached,
    )


# --- the rate as training sees it ---


@dataclass(frozen=True)
class MinibatchRate:
    """Mean over minibatches of an estimate of I(X;T), nats; `minibatch_rate` makes it."""

    value: float
    error: float
    """standard error of the mean"""


def minibatch_rate(
    gate: ArrayLike,
    batch_size: int,
    marginal: ArrayLike | None = None,
    n_batches: int = 500,
    rng: np.random.Generator | int = 0,
) -> MinibatchRate:
    """I(X;T) of a gate (N, R) as training sees it: from batches of its rows.

    Rows are drawn with replacement. Without `marginal` (R,) each batch is compared with its own
    mean, which lies too low by about (1/2B) sum_t Var(p(t|x)) / p(t). With the gate's marginal the
    mean of KL(p(.|x) || marginal) is unbiased. Raises ValueError for rows or a marginal that do not
    sum to 1, a marginal of another shape, a batch size below 1 or fewer than two batches.

    A hard gate of rate log 2 = 0.693 looks cheaper in batches of four:

    >>> gate = np.eye(2)
    >>> round(minibatch_rate(gate, 4).value, 3)
    0.549
    >>> round(minibatch_rate(gate, 4, marginal=[0.5, 0.5]).value, 3)
    0.693
    """
    gate = as_gate(gate)
    rng = np.random.default_rng(rng)
    batch_size = as_count(batch_size, "batch_size")
    n_batches = as_count(n_batches, "n_batches", 2)
    check_size(batch_size * gate.shape[1] + n_batches, f"{n_batches} batches of {batch_size} rows")
    if marginal is not None:
        marginal = as_distribution(marginal, "marginal")
        if marginal.shape != gate.shape[1:]:
            raise ValueError(
                f"marginal has shape {marginal.shape}; "
                f"allowed is ({gate.shape[1]},), as the gate has experts"
            )
        if gate[:, marginal == 0].any():
            raise ValueError("marginal is 0 for an expert that the gate uses; it must not be")
    found = np.empty(n_batches)
    for batch in range(n_batches):
        rows = gate[rng.integers(len(gate), size=batch_size)]
        compared = rows.mean(axis=0) if marginal is None else marginal
        found[batch] = scipy.special.rel_entr(rows, compared).sum(axis=1).mean()
    return MinibatchRate(float(found.mean()), mean_error(found))
