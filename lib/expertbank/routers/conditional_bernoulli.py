"""Sets of experts chosen independently but for their sizes: the law of the most entropy among those
in which every expert is chosen as often, and every size met as often, as was seen.

It is the conditional Bernoulli law (Chen, Dempster & Liu 1994): experts join one by one, with odds
w_i, given how many join, so that a set S of size j has the probability P(j) prod_{i in S} w_i over
e_j(w), the elementary symmetric polynomial of degree j. Independent Bernoulli variables with these
odds number j with probability e_j(w) / prod_i (1 + w_i), which neither over- nor underflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank.information import entropy

ROWS = 64  # laws whose tables are held at a time
MOST_LOG_ODDS = 30.0  # beyond it a probability is 0 or 1 to double precision


@dataclass(frozen=True)
class ConditionalBernoulli:
    """The law of sets of at most k of E experts.

    >>> law = conditional_bernoulli(marginals=[0.5, 0.5, 0.5, 0.5], sizes=[0, 0, 1])
    >>> round(float(np.exp(law.entropy)), 6)  # all C(4, 2) pairs are as likely
    6.0
    """

    joining: np.ndarray
    """(E,) probabilities of independent Bernoulli variables that give the law at given sizes"""
    sizes: np.ndarray
    """(k + 1,) probabilities of the sizes 0 to k"""

    @cached_property
    def _numbers(self) -> np.ndarray:
        return _numbers_chosen(self.joining[None], len(self.sizes))

    @cached_property
    def _weight(self) -> np.ndarray:
        """(k + 1,) P(size) over the probability that so many independent ones join."""
        number = self._numbers[-1, 0]
        return np.divide(self.sizes, number, out=np.zeros_like(number), where=self.sizes > 0)

    @property
    def marginals(self) -> np.ndarray:
        """(E,) P(i chosen)."""
        return _members(self.joining[None], self._numbers, self._weight[None])[0]

    @property
    def entropy(self) -> float:
        """H(set) in nats."""
        seen = self.sizes > 0
        given_size = self.sizes[seen] @ np.log(self._numbers[-1, 0][seen])
        # what every expert adds to -log P(set), chosen or not
        chosen = scipy.special.xlogy(self.marginals, self.joining)
        left = scipy.special.xlogy(1 - self.marginals, 1 - self.joining)
        return float(entropy(self.sizes) + given_size - chosen.sum() - left.sum())

    @property
    def pairs(self) -> np.ndarray:
        """(E, E) P(i and j chosen), symmetric; the diagonal is 0."""
        n_experts = len(self.joining)
        found = np.zeros((n_experts, n_experts))
        for first in range(0, n_experts, ROWS):
            some = np.arange(first, min(first + ROWS, n_experts))
            # the others, where i is chosen already: one expert fewer joins
            others = np.tile(self.joining, (len(some), 1))
            others[np.arange(len(some)), some] = 0
            numbers = _numbers_chosen(others, len(self.sizes) - 1)
            weight = self.joining[some, None] * self._weight[1:]
            found[some] = _members(others, numbers, weight)
        return found


def conditional_bernoulli(marginals: ArrayLike, sizes: ArrayLike) -> ConditionalBernoulli:
    """The law of the most entropy with P(i chosen) = `marginals` (E,) and P(size is j) = `sizes`
    (k + 1,), of which some law must exist: sum_i P(i chosen) is the mean size.

    The odds minimise sum_j P(j) log e_j(w) - sum_i P(i chosen) log w_i, which is convex in their
    logarithms.

    >>> law = conditional_bernoulli([0.8, 0.1, 0.1], sizes=[0, 1])  # one expert: by its share
    >>> law.marginals.round(6).tolist()
    [0.8, 0.1, 0.1]
    """
    goal = np.asarray(marginals, float)
    sizes = np.asarray(sizes, float)
    free = (goal > 0) & (goal < 1)
    if not free.any():
        return ConditionalBernoulli(goal.round(), sizes)
    start = scipy.special.logit(goal[free])
    # in these units the Hessian is nearly the identity
    scale = np.sqrt(goal[free] * (1 - goal[free]))
    # where sizes leave no choice the odds have no end
    bounds = np.stack([-MOST_LOG_ODDS - start, MOST_LOG_ODDS - start], axis=1) * scale[:, None]
    joining = goal.copy()

    def excess(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        log_odds = start + scaled / scale
        joining[free] = scipy.special.expit(log_odds)
        law = ConditionalBernoulli(joining.copy(), sizes)
        seen = sizes > 0
        log_normal = sizes[seen] @ np.log(law._numbers[-1, 0][seen])
        log_normal += np.logaddexp(0, log_odds).sum()
        slope = (law.marginals - goal)[free] / scale
        return float(log_normal - goal[free] @ log_odds), slope

    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    best = scipy.optimize.minimize(
        excess, np.zeros(len(start)), jac=True, method="L-BFGS-B", options=options, bounds=bounds
    )
    joining[free] = scipy.special.expit(start + best.x / scale)
    return ConditionalBernoulli(joining, sizes)


def _numbers_chosen(joining: np.ndarray, n_sizes: int) -> np.ndarray:
    """(E + 1, R, sizes) P(j of the first i experts join), for R laws (R, E) of independent ones."""
    n_laws, n_experts = joining.shape
    found = np.zeros((n_experts + 1, n_laws, n_sizes))
    found[0, :, 0] = 1
    for i in range(n_experts):
        joins = joining[:, i, None]
        found[i + 1] = (1 - joins) * found[i]
        found[i + 1, :, 1:] += joins * found[i, :, :-1]
    return found


def _members(joining: np.ndarray, numbers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(R, E) sum_j weight_j P(i joins and j join in all), from `_numbers_chosen`; one pass back."""
    found = np.empty_like(joining)
    for i in reversed(range(joining.shape[1])):
        joins = joining[:, i, None]
        # weight_j is now that of j of the first i + 1 experts
        found[:, i] = joins[:, 0] * (weight[:, 1:] * numbers[i, :, :-1]).sum(axis=1)
        stays = (1 - joins) * weight
        stays[:, :-1] += joins * weight[:, 1:]
        weight = stays
    return found
