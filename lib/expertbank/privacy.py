"""Optimal private gates: linear programmes over staircase patterns. What a gate wants is private,
experts are not.

A gate names the expert that it wants, index j with probability prior[j]; costs[j, t] is the mean
loss of expert t where j was wanted. The pair is all that a mechanism on the index, or a link that
carries it, needs to know of the bank.
"""

from __future__ import annotations

import numpy as np
import scipy

from expertbank._checks import as_count, as_distribution, as_gate, as_losses, as_number, as_weights
from expertbank.tables import merge_rows

LARGEST = 12  # letters: 2^12 patterns
LARGEST_EPSILON = 30.0  # above it e^eps and 1 in one programme are more than double precision holds


def wanted_experts(gate, losses) -> tuple[np.ndarray, np.ndarray]:
    """Prior (R,) and costs (R, R) of a gate (N, R) on losses (N, R): costs[j, t] = E[loss of t |
    wanted j].

    The row of an expert that is never wanted holds the experts' mean losses. Raises ValueError
    where shapes differ.
    """
    gate, losses = as_gate(gate), as_losses(losses)
    if gate.shape != losses.shape:
        raise ValueError(f"gate has shape {gate.shape}; allowed is that of losses, {losses.shape}")
    prior = gate.mean(axis=0)
    joint = gate.T @ losses.astype(float) / len(losses)
    return prior, np.where(
        prior[:, None] > 0, joint / np.maximum(prior, 1e-300)[:, None], losses.mean(axis=0)
    )


def routed_loss(prior, costs, channel, answers=None) -> float:
    """Expected loss after a channel (k, outputs) of the wanted index, by experts `answers`
    (outputs,), or the best."""
    prior, costs, channel = _check(prior, costs, channel)
    risks = (prior[:, None] * channel).T @ costs
    if answers is None:
        return float(risks.min(axis=1).sum())
    return float(np.take_along_axis(risks, np.asarray(answers)[:, None], axis=1).sum())


def best_answers(prior, costs, channel) -> np.ndarray:
    """The best expert (outputs,) for each output; ties go to the smallest index."""
    prior, costs, channel = _check(prior, costs, channel)
    return ((prior[:, None] * channel).T @ costs).argmin(axis=1)


def staircase_patterns(k: int, epsilon: float) -> np.ndarray:
    """The extreme columns (k, 2^k - 1) of eps-LDP channels on k letters, up to a factor: entries 1
    and e^eps.

    Kairouz, Oh & Viswanath (2014): a sum over outputs of a sublinear function of the channel's
    column is largest at a channel whose columns are multiples of these. They are scaled so that the
    largest entry is 1.
    """
    k, epsilon = as_count(k, "k", at_least=2), as_number(epsilon, "epsilon", 0, LARGEST_EPSILON)
    if k > LARGEST:
        raise ValueError(
            f"k is {k}; allowed are at most {LARGEST} letters, since there are 2^k patterns"
        )
    high = np.arange(1, 2**k) >> np.arange(k)[:, None] & 1
    return np.where(high, 1.0, np.exp(-epsilon))


def most_informative_mechanism(prior, epsilon: float) -> np.ndarray:
    """The eps-LDP channel (k, outputs), outputs <= k, with the largest I(T; T_hat) for an index of
    law prior (k,)."""
    prior = as_distribution(prior, "prior")
    patterns = staircase_patterns(len(prior), epsilon)
    heights = prior @ scipy.special.xlogy(patterns, patterns) - scipy.special.xlogy(
        prior @ patterns, prior @ patterns
    )
    sizes = _programme(patterns, heights)
    return _rows_to_one(patterns[:, sizes > 0] * sizes[sizes > 0])


def least_loss_mechanism(prior, epsilon: float, costs) -> np.ndarray:
    """The eps-LDP routing (k, R), wanted index to expert, of the least expected loss, for prior
    (k,), costs (k, R).

    Every output of the optimal mechanism is answered by the best expert for it; outputs with one
    answer are merged, which keeps the mechanism private. `(prior[:, None] * routing * costs).sum()`
    is its loss.
    """
    prior, costs, _ = _check(prior, costs, np.ones((np.size(prior), 1)))
    patterns = staircase_patterns(len(prior), epsilon)
    risks = (prior[:, None] * patterns).T @ costs
    sizes = _programme(patterns, -risks.min(axis=1))
    answers = np.zeros((len(sizes), costs.shape[1]))
    answers[np.arange(len(sizes)), risks.argmin(axis=1)] = sizes
    return _rows_to_one(patterns @ answers)


def private_distortion(losses, epsilon: float, weights=None) -> float:
    """The least expected loss of any eps-LDP gate on losses (N, R) with input weights (N,), default
    uniform.

    A gate is private when p(t|x) lies between m_t and e^eps m_t. Given m, an input serves itself
    from its best expert on, and by duality loses the largest value over v of v + sum_t m_t [(l_t -
    v)_+ - e^eps (v - l_t)_+], where v need only be one of its losses. What is left is a linear
    programme in m and the losses of the distinct inputs.
    """
    losses = as_losses(losses)
    weights, epsilon = (
        as_weights(weights, len(losses)),
        as_number(epsilon, "epsilon", 0, LARGEST_EPSILON),
    )
    rows, weights, _ = merge_rows(losses.astype(float), weights)
    levels = np.sort(rows, axis=1)
    of, place = np.nonzero(np.diff(levels, axis=1, prepend=-np.inf))
    above = rows[of] - levels[of, place][:, None]
    # unknowns: e^eps m_t, which is at most 1 and keeps the programme in scale, and the loss of each
    # row
    slopes = np.maximum(above, 0) * np.exp(-epsilon) - np.maximum(-above, 0)
    own = scipy.sparse.csr_array((np.ones(len(of)), (np.arange(len(of)), of)))
    sums = scipy.sparse.csr_array([[-1.0] * rows.shape[1] + [0.0] * len(rows)])
    bounds = scipy.sparse.vstack(
        [scipy.sparse.hstack([slopes, -own]), sums, -np.exp(-epsilon) * sums]
    )
    room = np.concatenate([-levels[of, place], [-1.0, 1.0]])
    cost = np.concatenate([np.zeros(rows.shape[1]), weights])
    limits = [(0, 1)] * rows.shape[1] + [(None, None)] * len(rows)
    found = scipy.optimize.linprog(
        cost, A_ub=bounds.tocsr(), b_ub=room, bounds=limits, method="highs"
    )
    if not found.success:
        raise RuntimeError(f"the linear programme stopped: {found.message}")
    return float(found.fun)


def privacy_level(channel) -> float:
    """The least epsilon, in nats, at which a channel (k, outputs) is LDP; inf where an output has a
    0 among others."""
    channel = as_gate(channel, "channel")
    low, high = channel.min(axis=0), channel.max(axis=0)
    with np.errstate(divide="ignore"):
        return float(np.log(high[high > 0] / low[high > 0]).max())


def _programme(patterns, heights):
    """Sizes >= 0 of the patterns that make rows of sum 1 and the largest total height."""
    found = scipy.optimize.linprog(
        -heights, A_eq=patterns, b_eq=np.ones(len(patterns)), method="highs-ds"
    )
    if not found.success:
        raise RuntimeError(f"the linear programme stopped: {found.message}")
    return np.maximum(found.x, 0)


def _rows_to_one(channel):
    return channel / channel.sum(axis=1, keepdims=True)


def _check(prior, costs, channel):
    prior, costs, channel = (
        as_distribution(prior, "prior"),
        as_losses(costs, "costs"),
        np.asarray(channel, dtype=float),
    )
    if prior.ndim != 1 or len(prior) != len(costs):
        raise ValueError(
            f"prior has shape {prior.shape}; allowed is ({len(costs)},), one entry per row of costs"
        )
    if channel.ndim != 2 or len(channel) != len(prior):
        raise ValueError(f"channel has shape {channel.shape}; allowed is ({len(prior)}, outputs)")
    return prior, costs, channel
