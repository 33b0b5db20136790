"""How far two runs of a router agree on the same tokens. Nats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_count
from expertbank.information import joint_information
from expertbank.routers._batch import as_choices, as_mask
from expertbank.routers.measures import routing_counts
from expertbank.routers.statistics import Layer

COMPARED = ("chosen", "token", "position", "mask")  # of the arrays of a run


class Agreement:
    """How far two runs or checkpoints choose alike on the same tokens: one (E, E') table, mergeable
    like the rest.

    >>> agreement = Agreement(n_experts=4)
    >>> agreement.update([[0, 1], [2, 3]], [[1, 0], [2, 0]])
    >>> agreement.flip_rate  # one of four slots differs
    0.25
    """

    pairs: np.ndarray
    """(E, E') tokens that took expert i in the one and j in the other"""
    slots: np.ndarray
    """(E,) slots of the one run by expert"""
    other_slots: np.ndarray
    """(E',) slots of the other"""
    tokens: int
    """tokens compared"""
    most: int
    """sum over them of the larger of their two numbers of experts"""

    def __init__(self, n_experts: int, n_experts_other: int | None = None):
        if n_experts_other is None:
            n_experts_other = n_experts
        self.n_experts = as_count(n_experts, "n_experts")
        self.n_experts_other = as_count(n_experts_other, "n_experts_other")
        self.pairs = np.zeros((self.n_experts, self.n_experts_other), np.int64)
        self.slots = np.zeros(self.n_experts, np.int64)
        self.other_slots = np.zeros(self.n_experts_other, np.int64)
        self.tokens = 0
        self.most = 0

    def update(self, chosen: ArrayLike, other: ArrayLike, mask: ArrayLike | None = None) -> None:
        """Count n tokens: `chosen` (n, k) and `other` (n, k'), distinct experts in any order, -1
        for an empty slot; `mask` (n,) is True for tokens that count. Raises ValueError for anything
        else.

        >>> agreement = Agreement(n_experts=2)
        >>> agreement.update([[0], [0], [1]], [[1], [1], [0]], mask=[True, True, False])
        >>> agreement.pairs.tolist()
        [[0, 2], [0, 0]]
        """
        n = len(np.atleast_1d(np.asarray(chosen)))
        keep = as_mask(mask, n)
        e = self.n_experts
        e_other = self.n_experts_other
        rows = as_choices(chosen, "chosen", n, e, e, keep)
        other_rows = as_choices(other, "other", n, e_other, e_other, keep)
        for column in rows.T:
            self.pairs += routing_counts(other_rows, column, e, e_other)
        self.slots += np.bincount(rows[rows >= 0], minlength=e)
        self.other_slots += np.bincount(other_rows[other_rows >= 0], minlength=e_other)
        self.tokens += int(keep.sum())
        sizes = (rows >= 0).sum(axis=1)
        other_sizes = (other_rows >= 0).sum(axis=1)
        self.most += int(np.maximum(sizes, other_sizes).sum())

    def merge(self, another: Agreement) -> Agreement:
        """A new one that has counted what both did; ValueError where their numbers of experts
        differ.

        >>> agreement = Agreement(n_experts=2)
        >>> agreement.update([[0]], [[1]])
        >>> (agreement + agreement).tokens
        2
        """
        if self.pairs.shape != another.pairs.shape:
            raise ValueError(
                f"cannot merge tables of {another.pairs.shape} and {self.pairs.shape} experts"
            )
        merged = Agreement(self.n_experts, self.n_experts_other)
        for part in (self, another):
            merged.pairs += part.pairs
            merged.slots += part.slots
            merged.other_slots += part.other_slots
            merged.tokens += part.tokens
            merged.most += part.most
        return merged

    __add__ = merge

    @property
    def flip_rate(self) -> float:
        """Share of the chosen experts that differ: 0 for the same sets, 1 for disjoint ones; nan if
        E is not E'."""
        if not self._has_flips:
            return np.nan
        return 1 - float(np.trace(self.pairs)) / self.most

    @property
    def chance_flip_rate(self) -> float:
        """The flip rate of two runs with these loads that choose independently of each other; nan
        if E is not E'."""
        if not self._has_flips:
            return np.nan
        return 1 - float(self.slots / self.tokens @ self.other_slots) / self.most

    @property
    def _has_flips(self) -> bool:
        return self.n_experts == self.n_experts_other and self.most > 0

    @property
    def matching(self) -> np.ndarray:
        """Which expert of the other run (E,) plays the part of each of this one, -1 for none: the
        fewest flips.

        >>> agreement = Agreement(n_experts=3)
        >>> agreement.update([[0], [1], [2]], [[2], [0], [1]])
        >>> agreement.matching.tolist(), agreement.flip_rate, agreement.matched_flip_rate
        ([2, 0, 1], 1.0, 0.0)
        """
        rows, columns = scipy.optimize.linear_sum_assignment(self.pairs, maximize=True)
        found = np.full(self.n_experts, -1)
        found[rows] = columns
        return found

    @property
    def matched_flip_rate(self) -> float:
        """The flip rate after the other run's experts were renamed by `matching`: numbers are
        names, not roles."""
        if not self.most:
            return np.nan
        matching = self.matching
        rows = np.flatnonzero(matching >= 0)
        return 1 - float(self.pairs[rows, matching[rows]].sum()) / self.most

    @property
    def information(self) -> float:
        """I(T;T') in nats of one slot drawn from each, given the token; what it is does not depend
        on names. nan where nothing was counted."""
        return joint_information(self.pairs) if self.pairs.any() else np.nan


def compare_routing(
    one: Iterable[tuple[Layer, Mapping[str, Any]]],
    other: Iterable[tuple[Layer, Mapping[str, Any]]],
    n_experts: int,
    n_experts_other: int | None = None,
) -> dict[Layer, Agreement]:
    """Agreement by layer of two runs on the same tokens, each a stream of (layer, arrays) as
    `read_routing` gives it.

    `arrays` holds `chosen` (n, k) and what else is known of the tokens. Tokens are paired in the
    order in which they come; the two may be cut differently, and only what still waits for its
    partner is held. Raises ValueError where one has tokens or layers that the other has not, or
    where their tokens or positions differ.

    >>> one = [(0, {"chosen": [[0], [1], [1]]})]
    >>> other = [(0, {"chosen": [[0]]}), (0, {"chosen": [[1], [0]]})]  # cut elsewhere
    >>> found = compare_routing(one, other, n_experts=2)
    >>> round(found[0].flip_rate, 4)
    0.3333
    """
    found: dict[Layer, Agreement] = {}
    waiting: dict[Layer, list[dict[str, np.ndarray]]] = {}  # tokens of the two runs, unpaired
    for pieces in zip_longest(one, other):
        for side, piece in enumerate(pieces):
            if piece is None:
                continue
            layer, arrays = piece
            if "chosen" not in arrays:
                raise ValueError(
                    f"layer {layer} has no chosen experts; two runs are compared by their choices"
                )
            pair = waiting.setdefault(layer, [{}, {}])
            pair[side] = _joined(pair[side], arrays)
            n = min(_n_tokens(pair[0]), _n_tokens(pair[1]))
            if n:
                agreement = found.setdefault(layer, Agreement(n_experts, n_experts_other))
                first, second = (_tokens(arrays, slice(None, n)) for arrays in pair)
                _compare(agreement, layer, first, second)
                waiting[layer] = [_tokens(arrays, slice(n, None)) for arrays in pair]
    for layer, pair in waiting.items():
        left = [_n_tokens(arrays) for arrays in pair]
        if any(left):
            longer = "second" if left[1] else "first"
            raise ValueError(
                f"layer {layer} has {max(left)} tokens more in the {longer} run than in the other; "
                "both must have routed the same tokens in the same order"
            )
    return found


def _n_tokens(arrays: dict[str, np.ndarray]) -> int:
    return len(arrays["chosen"]) if arrays else 0


def _tokens(arrays: dict[str, np.ndarray], which: slice) -> dict[str, np.ndarray]:
    return {name: array[which] for name, array in arrays.items()}


def _compare(
    agreement: Agreement,
    layer: Layer,
    first: dict[str, np.ndarray],
    second: dict[str, np.ndarray],
) -> None:
    """Count the same number of tokens of both runs; a token counts where no run masks it."""
    for name in ("token", "position"):
        if name in first and name in second and not np.array_equal(first[name], second[name]):
            raise ValueError(
                f"layer {layer}: {name} differs between the runs; both must have routed the same "
                "tokens in one order"
            )
    masks = [arrays["mask"] > 0 for arrays in (first, second) if "mask" in arrays]
    mask = np.logical_and.reduce(masks) if masks else None
    agreement.update(first["chosen"], second["chosen"], mask)


def _joined(
    waiting: dict[str, np.ndarray], arrays: Mapping[str, ArrayLike]
) -> dict[str, np.ndarray]:
    """Tokens of both, one after the other; rows of fewer slots are filled up."""
    added = {name: np.asarray(arrays[name]) for name in COMPARED if name in arrays}
    if not waiting:
        return added
    width = max(waiting["chosen"].shape[1], added["chosen"].shape[1])
    joined = {}
    for name in waiting:
        if name not in added:
            continue
        parts = [waiting[name], added[name]]
        if name == "chosen":
            parts = [_widened(rows, width) for rows in parts]
        joined[name] = np.concatenate(parts)
    return joined


def _widened(rows: np.ndarray, width: int) -> np.ndarray:
    missing = width - rows.shape[1]
    return np.pad(rows.astype(np.int64), ((0, 0), (0, missing)), constant_values=-1)
