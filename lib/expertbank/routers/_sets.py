"""Numbers for the sets of experts that a token may take."""

from __future__ import annotations

from functools import cached_property
from itertools import combinations

import numpy as np
import scipy


def number_of_sets(n_experts: int, n_chosen: int) -> float:
    """How many sets of at most k of E experts there are, sum_j C(E, j); a float, for it may be
    huge.

    >>> number_of_sets(3, 2)
    7.0
    """
    return float(scipy.special.comb(n_experts, np.arange(n_chosen + 1)).sum())


class SetNumbering:
    """Every set of at most k of E experts, numbered from 0 without gaps.

    Sets are numbered by size, and within a size in the combinatorial number system: the set
    c_1 < c_2 < ... has the number sum_i C(c_i, i), which needs no table to look up.

    >>> SetNumbering(n_experts=3, n_chosen=2).rows().tolist()
    [[-1, -1], [-1, 0], [-1, 1], [-1, 2], [0, 1], [0, 2], [1, 2]]
    """

    def __init__(self, n_experts: int, n_chosen: int):
        self.n_experts = n_experts
        self.n_chosen = n_chosen
        i = np.arange(n_experts + 1)[:, None]
        j = np.arange(n_chosen + 1)
        self._binomials = scipy.special.comb(i, j).astype(np.int64)  # C(i, j), (E + 1, k + 1)
        self.n_sets = int(self._binomials[-1].sum())

    def numbers(self, columns: np.ndarray) -> np.ndarray:
        """Numbers (n,) of sets given as columns (k, n) in ascending order, empty slots (-1) first.

        >>> SetNumbering(n_experts=3, n_chosen=2).numbers(np.array([[-1, 0], [2, 1]])).tolist()
        [3, 4]
        """
        smaller_sizes = np.concatenate([[0], self._binomials[-1].cumsum()])
        if not len(columns) or columns.min(initial=0) >= 0:
            numbers = np.full(columns.shape[1], smaller_sizes[len(columns)])
            for i, experts in enumerate(columns):
                numbers += self._binomials[:, i + 1].take(experts)
            return numbers
        taken = columns >= 0
        first = smaller_sizes[taken.sum(axis=0)]
        place = np.cumsum(taken, axis=0)
        terms = np.where(taken, self._binomials[np.where(taken, columns, 0), place], 0)
        return first + terms.sum(axis=0)

    def counts_of_pairs(self, empty: int, singles: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Counts by number where k is at most 2, of the tokens that took nothing, one expert (E,)
        or two (E, E): the numbers run through the lower triangle.

        >>> numbering = SetNumbering(n_experts=3, n_chosen=2)
        >>> pairs = np.array([[0, 5, 6], [5, 0, 7], [6, 7, 0]])
        >>> numbering.counts_of_pairs(1, np.array([2, 3, 4]), pairs).tolist()
        [1, 2, 3, 4, 5, 6, 7]
        """
        parts = [[empty], singles]
        if self.n_chosen == 2:
            parts.append(pairs[self._below])
        return np.concatenate(parts)

    @cached_property
    def _below(self) -> np.ndarray:
        """(E, E) True below the diagonal."""
        return np.tri(self.n_experts, k=-1, dtype=bool)

    def rows(self) -> np.ndarray:
        """All sets (sets, k) in the order of their numbers, -1 for an empty slot."""
        parts = []
        for size in range(self.n_chosen + 1):
            members = np.array(list(combinations(range(self.n_experts), size)), dtype=np.int64)
            members = members.reshape(len(members), size)
            empty = np.full((len(members), self.n_chosen - size), -1)
            parts.append(np.hstack([empty, members]))
        rows = np.vstack(parts)
        return rows[np.argsort(self.numbers(rows.T))]
