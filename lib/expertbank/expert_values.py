"""Which experts of a bank can go: what D(R) loses without them, beside other scores. Nats.

**Statement.** The price of removing a set A of experts is V(A) = D'(R) - D(R) >= 0, with D'
the curve of the bank without A. With no limit on the rate V is supermodular: V(A + B) >= V(A) +
V(B) for disjoint A and B, so that pairs cost at least the sum of their experts. At a finite rate
this fails.

*Proof.* Without a limit D is E[min_t l_t]. What A adds to a set S of others is
E[(min_S l - min_A l)_+], which can only shrink where S grows. V(A + B) is V(A) plus what B adds to
the rest without A, at least what it adds to the rest with A, V(B). *Counterexample at a finite
rate:* the example of `removal_prices`, at 0.3 nats. Its experts 0 and 2 cost 0.061 and 0.289 when
one of them goes, and 0.333 when both do.

The scores beside it are those of a rate-optimal gate p(t|x) of the same rate: its load, and our
reading of REAP, router-weighted expert activation pruning (2510.13999), which takes the mean of
gate weight times norm of the answer over the inputs where an expert is active. Answers here are
classes, one-hot vectors of norm 1, so that only the weight is left.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import as_count, as_gate, as_losses, as_number, as_weights
from expertbank.rate_distortion import RateDistortion, distortion_at_rate, rate_distortion, routing
from expertbank.tables import merge_rows

# what an expert is worth on merged losses (N, R) with weights (N,) at a rate: the least goes first
Score = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
NEAR = 1e-4  # nats by which `point_at_rate` may miss the rate


def removal_prices(
    losses: ArrayLike, rate: float, n_removed: int = 1, weights: ArrayLike | None = None
) -> np.ndarray:
    """Rise of D(rate) in units of loss when experts of losses (N, R) go: (R,) for one, and for
    `n_removed=2` (R, R), a pair a cell, single experts on the diagonal.

    Input weights (N,) are uniform by default. Raises ValueError for a bad table, weights or rate,
    another number to remove, or no expert left.

    >>> losses = [[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]]
    >>> removal_prices(losses, rate=0.3, n_removed=2).round(3).tolist()[0]
    [0.061, 0.289, 0.333, 0.061]
    """
    rows, weights = _merged(losses, weights)
    n_removed = as_count(n_removed, "n_removed", at_most=2)
    rate = as_number(rate, "rate", 0, np.inf, allowed="a number >= 0")
    n_experts = rows.shape[1]
    if n_experts <= n_removed:
        raise ValueError(f"losses has {n_experts} experts; allowed are more than are removed")
    everything = distortion_at_rate(rows, rate, weights)

    def price(*gone):
        kept = np.delete(rows, gone, axis=1)
        return max(0.0, distortion_at_rate(kept, rate, weights) - everything)

    single = np.array([price(t) for t in range(n_experts)])
    if n_removed == 1:
        return single
    pairs = np.diag(single)
    for a in range(n_experts):
        for b in range(a):
            pairs[a, b] = pairs[b, a] = price(a, b)
    return pairs


def point_at_rate(
    losses: ArrayLike, rate: float, weights: ArrayLike | None = None
) -> RateDistortion:
    """The solved point whose rate is `rate`, in nats, to 1e-4; where D(R) is straight, the nearest
    that a price picks.

    A rate that the curve does not reach gives its end. Input weights (N,) are uniform by default.
    Raises ValueError for a bad table, weights or rate.

    >>> round(point_at_rate([[0, 1], [1, 0]], 0.2).rate, 3)
    0.2
    """
    rows, weights = _merged(losses, weights)
    rate = as_number(rate, "rate", 0, np.inf, allowed="a number >= 0")
    point = rate_distortion(rows, 0.0, weights)
    spread = float(np.ptp(rows))
    if point.rate <= rate or spread == 0:
        return point
    # prices on a log scale: too much is spent at the lower, too little at the upper
    low = 1e-3 * spread
    high = 1e3 * spread
    while abs(point.rate - rate) > NEAR and high > low * (1 + 1e-6):
        middle = float(np.sqrt(low * high))
        point = rate_distortion(rows, middle, weights)
        if point.rate > rate:
            low = middle
        else:
            high = middle
    return point


def reap_scores(gate: ArrayLike, n_active: int = 1, weights: ArrayLike | None = None) -> np.ndarray:
    """REAP's score (R,) of a gate (N, R) in our reading: its mean weight over the inputs where an
    expert is among the `n_active` of largest weight, and 0 for one that never is.

    Answers count with norm 1. Input weights (N,) are uniform by default. Raises ValueError for a
    bad gate or weights, or more active experts than there are.

    >>> reap_scores([[0.9, 0.1, 0.0], [0.7, 0.3, 0.0], [0.2, 0.8, 0.0]]).round(2).tolist()
    [0.8, 0.8, 0.0]
    """
    gate = as_gate(gate)
    n_active = as_count(n_active, "n_active", at_most=gate.shape[1])
    weights = as_weights(weights, len(gate))
    order = np.argsort(-gate, axis=1, kind="stable")[:, :n_active]
    active = np.zeros(gate.shape)
    np.put_along_axis(active, order, weights[:, None], axis=1)
    share = active.sum(axis=0)
    total = (active * gate).sum(axis=0)
    return np.divide(total, share, out=np.zeros_like(total), where=share > 0)


# --- scores by which experts go ---


def by_information(losses: np.ndarray, weights: np.ndarray, rate: float) -> np.ndarray:
    """The price in D(rate) of removing each expert: a `Score`.

    >>> by_information(np.array([[0, 1], [1, 0], [1, 0]]), np.full(3, 1 / 3), 0.0).round(2).tolist()
    [0.0, 0.33]
    """
    return removal_prices(losses, rate, weights=weights)


def by_load(losses: np.ndarray, weights: np.ndarray, rate: float) -> np.ndarray:
    """The load of each expert under the rate-optimal gate: a `Score`.

    >>> by_load(np.array([[0, 1], [1, 0], [1, 0]]), np.full(3, 1 / 3), 1.0).round(2).tolist()
    [0.33, 0.67]
    """
    return point_at_rate(losses, rate, weights).marginal


def by_reap(losses: np.ndarray, weights: np.ndarray, rate: float) -> np.ndarray:
    """`reap_scores` of the rate-optimal gate with one active expert: a `Score`.

    >>> by_reap(np.array([[0, 1], [1, 0], [1, 0]]), np.full(3, 1 / 3), 1.0).tolist()
    [1.0, 1.0]
    """
    gate = np.asarray(routing(losses, point_at_rate(losses, rate, weights)))
    return reap_scores(gate, weights=weights)


def by_accuracy(losses: np.ndarray, weights: np.ndarray, rate: float) -> np.ndarray:
    """Minus the mean loss of each expert, whatever the rate: a `Score`.

    >>> by_accuracy(np.array([[0, 1], [1, 0], [1, 0]]), np.full(3, 1 / 3), 0.0).round(2).tolist()
    [-0.67, -0.33]
    """
    return -(weights @ losses)


REMOVAL_SCORES: dict[str, Score] = {
    "information": by_information,
    "load": by_load,
    "REAP": by_reap,
    "accuracy": by_accuracy,
}


def removal_order(
    losses: ArrayLike, rate: float, score: Score, weights: ArrayLike | None = None
) -> list[int]:
    """Experts of losses (N, R) in the order in which they go, all but the last one: of those left
    the one of least score, the scores taken anew after each; among equals the less accurate.

    Input weights (N,) are uniform by default. Raises ValueError for a bad table, weights or rate.

    >>> removal_order([[1, 1, 0], [0, 0, 0], [0, 1, 1]], rate=0.3, score=by_information)
    [1, 0]
    """
    rows, weights = _merged(losses, weights)
    rate = as_number(rate, "rate", 0, np.inf, allowed="a number >= 0")
    left = list(range(rows.shape[1]))
    gone = []
    while len(left) > 1:
        kept = rows[:, left]
        values = score(kept, weights, rate)
        # differences of less than the solver's tolerance are none
        worst = np.lexsort((by_accuracy(kept, weights, rate), values.round(9)))[0]
        gone.append(left.pop(int(worst)))
    return gone


def _merged(losses: ArrayLike, weights: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    losses = as_losses(losses).astype(float)
    weights = as_weights(weights, len(losses))
    rows, weights, _ = merge_rows(losses, weights)
    return rows, weights
