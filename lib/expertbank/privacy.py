"""Optimal private gates: linear programmes over staircase patterns.

What a gate wants is private, experts are not. A gate names the expert that it wants, index j with
probability prior[j]; costs[j, t] is the mean loss of expert t where j was wanted. The pair is all
that a mechanism on the index, or a link that carries it, needs to know of the bank.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_count, as_distribution, as_gate, as_losses, as_number, as_weights
from expertbank.tables import merge_rows

LARGEST_ALPHABET = 12  # letters: 2^12 patterns
LARGEST_EPSILON = 30.0  # above it e^eps and 1 in one programme are more than double precision holds


# --- an index that is wanted, a channel that garbles it, an expert that answers ---


def wanted_experts(gate: ArrayLike, losses: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Prior (R,) and costs (R, R) of a gate (N, R) on losses (N, R).

    costs[j, t] = E[loss of t | wanted j]. The row of an expert that is never wanted holds the
    experts' mean losses. Raises ValueError where shapes differ.

    >>> gate = [[1, 0], [1, 0], [0, 1], [0, 1]]
    >>> losses = [[0, 1], [0, 0], [1, 0], [1, 0]]
    >>> prior, costs = wanted_experts(gate, losses)
    >>> prior.tolist(), costs.tolist()
    ([0.5, 0.5], [[0.0, 0.5], [1.0, 0.0]])
    """
    gate = as_gate(gate)
    losses = as_losses(losses)
    if gate.shape != losses.shape:
        raise ValueError(f"gate has shape {gate.shape}; allowed is that of losses, {losses.shape}")
    prior = gate.mean(axis=0)
    joint = gate.T @ losses.astype(float) / len(losses)
    given_wanted = joint / np.maximum(prior, 1e-300)[:, None]
    return prior, np.where(prior[:, None] > 0, given_wanted, losses.mean(axis=0))


def routed_loss(
    prior: ArrayLike, costs: ArrayLike, channel: ArrayLike, answers: ArrayLike | None = None
) -> float:
    """Expected loss after a channel (k, outputs) of the wanted index, prior (k,), costs (k, R).

    Each output is answered by its expert of `answers` (outputs,), default the best one. Raises
    ValueError where shapes differ or the prior does not sum to 1.

    >>> from expertbank.channels import symmetric_channel
    >>> round(routed_loss([0.5, 0.5], 1 - np.eye(2), symmetric_channel(2, 0.1)), 4)
    0.1
    """
    risks = _risks_by_output(prior, costs, channel)
    if answers is None:
        return float(risks.min(axis=1).sum())
    answers = np.asarray(answers)
    return float(np.take_along_axis(risks, answers[:, None], axis=1).sum())


def best_answers(prior: ArrayLike, costs: ArrayLike, channel: ArrayLike) -> np.ndarray:
    """The best expert (outputs,) for each output of a channel; ties go to the smallest index.

    Arguments and errors as for `routed_loss`. An index that is rarely wanted is not believed:

    >>> from expertbank.channels import symmetric_channel
    >>> best_answers([0.95, 0.05], 1 - np.eye(2), symmetric_channel(2, 0.1)).tolist()
    [0, 0]
    """
    return _risks_by_output(prior, costs, channel).argmin(axis=1)


# --- the best private mechanisms ---


def staircase_patterns(k: int, epsilon: float) -> np.ndarray:
    """The extreme columns (k, 2^k - 1) of eps-LDP channels on k letters, up to a factor.

    Their entries are 1 and e^eps. Kairouz, Oh & Viswanath (2014): a sum over outputs of a sublinear
    function of the channel's column is largest at a channel whose columns are multiples of these.
    They are scaled so that the largest entry is 1. Raises ValueError for k outside 2 .. 12 or
    epsilon outside [0, 30].

    >>> staircase_patterns(2, np.log(2)).round(4).tolist()
    [[1.0, 0.5, 1.0], [0.5, 1.0, 1.0]]
    """
    k = as_count(k, "k", at_least=2)
    epsilon = as_number(epsilon, "epsilon", 0, LARGEST_EPSILON)
    if k > LARGEST_ALPHABET:
        raise ValueError(
            f"k is {k}; allowed are at most {LARGEST_ALPHABET} letters, "
            "since there are 2^k patterns"
        )
    # pattern number i is high at the letters that are bits of i
    is_high = np.arange(1, 2**k) >> np.arange(k)[:, None] & 1
    return np.where(is_high, 1.0, np.exp(-epsilon))


def most_informative_mechanism(prior: ArrayLike, epsilon: float) -> np.ndarray:
    """The eps-LDP channel (k, outputs), outputs <= k, with the largest I(T; T_hat).

    For an index of law prior (k,). Raises ValueError as `staircase_patterns` does or for a prior
    that does not sum to 1.

    Of two letters it is randomised response:

    >>> most_informative_mechanism([0.5, 0.5], np.log(3)).round(4).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    prior = as_distribution(prior, "prior")
    patterns = staircase_patterns(len(prior), epsilon)
    # I(T; T_hat) is the sum of these over the outputs, each times the size of its pattern
    masses = prior @ patterns
    heights = prior @ scipy.special.xlogy(patterns, patterns) - scipy.special.xlogy(masses, masses)
    sizes = _programme(patterns, heights)
    used = sizes > 0
    return _rows_to_one(patterns[:, used] * sizes[used])


def least_loss_mechanism(prior: ArrayLike, epsilon: float, costs: ArrayLike) -> np.ndarray:
    """The eps-LDP routing (k, R), wanted index to expert, of the least expected loss.

    For prior (k,) and costs (k, R). Every output of the optimal mechanism is answered by the best
    expert for it; outputs with one answer are merged, which keeps the mechanism private.
    `(prior[:, None] * routing * costs).sum()` is its loss. Raises ValueError as `routed_loss` and
    `staircase_patterns` do.

    >>> least_loss_mechanism([0.5, 0.5], np.log(3), 1 - np.eye(2)).round(4).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    prior, costs, _ = _check(prior, costs, np.ones((np.size(prior), 1)))
    patterns = staircase_patterns(len(prior), epsilon)
    risks = (prior[:, None] * patterns).T @ costs
    sizes = _programme(patterns, -risks.min(axis=1))
    answers = np.zeros((len(sizes), costs.shape[1]))
    answers[np.arange(len(sizes)), risks.argmin(axis=1)] = sizes
    return _rows_to_one(patterns @ answers)


def private_distortion(
    losses: ArrayLike, epsilon: float, weights: ArrayLike | None = None
) -> float:
    """The least expected loss of any eps-LDP gate on losses (N, R).

    Input weights (N,) are uniform by default. A gate is private when p(t|x) lies between m_t and
    e^eps m_t. Given m, an input serves itself from its best expert on, and by duality loses the
    largest value over v of v + sum_t m_t [(l_t - v)_+ - e^eps (v - l_t)_+], where v need only be
    one of its losses. What is left is a linear programme in m and the losses of the distinct
    inputs. Raises ValueError for a bad table, weights or epsilon outside [0, 30], RuntimeError
    where the solver stops.

    Two inputs with opposite experts: as much as randomised response of a bit.

    >>> round(private_distortion([[0, 1], [1, 0]], np.log(3)), 4)
    0.25
    """
    losses = as_losses(losses)
    weights = as_weights(weights, len(losses))
    epsilon = as_number(epsilon, "epsilon", 0, LARGEST_EPSILON)
    rows, weights, _ = merge_rows(losses.astype(float), weights)
    n_rows, n_experts = rows.shape
    # one constraint for each v, a distinct loss of a row
    levels = np.sort(rows, axis=1)
    row_of, place = np.nonzero(np.diff(levels, axis=1, prepend=-np.inf))
    v = levels[row_of, place]
    n_constraints = len(v)
    above = rows[row_of] - v[:, None]
    # unknowns: e^eps m_t, which is at most 1 and keeps the programme in scale, and the loss of each
    # row
    slopes = np.maximum(above, 0) * np.exp(-epsilon) - np.maximum(-above, 0)
    own_loss = scipy.sparse.csr_array((np.ones(n_constraints), (np.arange(n_constraints), row_of)))
    # sum_t e^eps m_t >= 1 and sum_t m_t <= 1
    minus_sum = scipy.sparse.csr_array([[-1.0] * n_experts + [0.0] * n_rows])
    constraints = scipy.sparse.vstack(
        [scipy.sparse.hstack([slopes, -own_loss]), minus_sum, -np.exp(-epsilon) * minus_sum]
    )
    found = scipy.optimize.linprog(
        np.concatenate([np.zeros(n_experts), weights]),
        A_ub=constraints.tocsr(),
        b_ub=np.concatenate([-v, [-1.0, 1.0]]),
        bounds=[(0, 1)] * n_experts + [(None, None)] * n_rows,
        method="highs",
    )
    return float(_solved(found).fun)


def privacy_level(channel: ArrayLike) -> float:
    """The least epsilon, in nats, at which a channel (k, outputs) is LDP.

    It is inf where an output has a 0 among others. To all digits also where rows are nearly alike.
    Raises ValueError for rows that do not sum to 1.

    >>> round(privacy_level([[0.75, 0.25], [0.25, 0.75]]), 4)  # log 3
    1.0986
    """
    channel = as_gate(channel, "channel")
    low = channel.min(axis=0)
    high = channel.max(axis=0)
    used = high > 0
    with np.errstate(divide="ignore"):
        return float(np.log1p((high[used] - low[used]) / low[used]).max())


def _programme(patterns: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Sizes >= 0 of the patterns that make rows of sum 1 and the largest total height."""
    found = scipy.optimize.linprog(
        -heights, A_eq=patterns, b_eq=np.ones(len(patterns)), method="highs-ds"
    )
    return np.maximum(_solved(found).x, 0)


def _solved(found):
    """The result of a linear programme, or a RuntimeError where the solver stopped."""
    if not found.success:
        raise RuntimeError(f"the linear programme stopped: {found.message}")
    return found


def _rows_to_one(channel: np.ndarray) -> np.ndarray:
    return channel / channel.sum(axis=1, keepdims=True)


def _risks_by_output(prior, costs, channel) -> np.ndarray:
    """E[loss of t; output o], (outputs, R)."""
    prior, costs, channel = _check(prior, costs, channel)
    return (prior[:, None] * channel).T @ costs


def _check(prior, costs, channel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prior = as_distribution(prior, "prior")
    costs = as_losses(costs, "costs")
    channel = np.asarray(channel, dtype=float)
    if prior.ndim != 1 or len(prior) != len(costs):
        raise ValueError(
            f"prior has shape {prior.shape}; allowed is ({len(costs)},), one entry per row of costs"
        )
    if channel.ndim != 2 or len(channel) != len(prior):
        raise ValueError(f"channel has shape {channel.shape}; allowed is ({len(prior)}, outputs)")
    return prior, costs, channel
