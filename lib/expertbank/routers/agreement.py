"""How far two runs of a router agree on the same tokens. Nats."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
import scipy

from expertbank._checks import as_count
from expertbank.information import joint_information
from expertbank.routers.statistics import _as_mask, _as_rows, _by_label


class Agreement:
    """How far two runs or checkpoints choose alike on the same tokens: one (E, E') table, mergeable
    like the rest."""

    def __init__(self, n_experts: int, n_experts_other: int | None = None):
        self.n_experts = as_count(n_experts, "n_experts")
        self.n_experts_other = as_count(
            n_experts if n_experts_other is None else n_experts_other, "n_experts_other"
        )
        self.pairs = np.zeros((self.n_experts, self.n_experts_other), np.int64)
        """(E, E') tokens that took expert i in the one and j in the other"""
        self.slots, self.other_slots = (
            np.zeros(self.n_experts, np.int64),
            np.zeros(self.n_experts_other, np.int64),
        )
        self.tokens = self.most = 0
        """tokens, and the sum over them of the larger of their two numbers of experts"""

    def update(self, chosen, other, mask=None) -> None:
        """Count n tokens: `chosen` (n, k) and `other` (n, k'), distinct experts in any order, -1
        for an empty slot."""
        n = len(np.atleast_1d(np.asarray(chosen)))
        keep = _as_mask(mask, n)
        chosen = _as_rows(chosen, "chosen", n, self.n_experts, self.n_experts, keep)
        other = _as_rows(other, "other", n, self.n_experts_other, self.n_experts_other, keep)
        for column in chosen.T:
            self.pairs += _by_label(other, column, self.pairs.shape)
        self.slots += np.bincount(chosen[chosen >= 0], minlength=self.n_experts)
        self.other_slots += np.bincount(other[other >= 0], minlength=self.n_experts_other)
        self.tokens += int(keep.sum())
        self.most += int(np.maximum((chosen >= 0).sum(axis=1), (other >= 0).sum(axis=1)).sum())

    def merge(self, another: Agreement) -> Agreement:
        """A new one that has counted what both did."""
        if self.pairs.shape != another.pairs.shape:
            raise ValueError(
                f"cannot merge tables of {another.pairs.shape} and {self.pairs.shape} experts"
            )
        merged = Agreement(self.n_experts, self.n_experts_other)
        for name in vars(merged):
            if not name.startswith("n_"):
                setattr(merged, name, getattr(self, name) + getattr(another, name))
        return merged

    __add__ = merge

    @property
    def flip_rate(self) -> float:
        """Share of the chosen experts that differ: 0 for the same sets, 1 for disjoint ones; nan if
        E is not E'."""
        if self.n_experts != self.n_experts_other or not self.most:
            return np.nan
        return 1 - float(np.trace(self.pairs)) / self.most

    @property
    def chance_flip_rate(self) -> float:
        """The flip rate of two runs with these loads that choose independently of each other."""
        if self.n_experts != self.n_experts_other or not self.most:
            return np.nan
        return 1 - float(self.slots / self.tokens @ self.other_slots) / self.most

    @property
    def matching(self) -> np.ndarray:
        """Which expert of the other run (E,) plays the part of each of this one, -1 for none: the
        fewest flips."""
        rows, columns = scipy.optimize.linear_sum_assignment(self.pairs, maximize=True)
        found = np.full(self.n_experts, -1)
        found[rows] = columns
        return found

    @property
    def matched_flip_rate(self) -> float:
        """The flip rate after the other run's experts were renamed by `matching`: numbers are
        names, not roles."""
        rows = np.flatnonzero(self.matching >= 0)
        return (
            1 - float(self.pairs[rows, self.matching[rows]].sum()) / self.most
            if self.most
            else np.nan
        )

    @property
    def information(self) -> float:
        """I(T;T') in nats of one slot drawn from each, given the token; what it is does not depend
        on names."""
        return joint_information(self.pairs) if self.pairs.any() else np.nan


def compare_routing(
    one, other, n_experts: int, n_experts_other: int | None = None
) -> dict[int | str, Agreement]:
    """Agreement by layer of two runs on the same tokens, each a stream of (layer, arrays) as
    `read_routing` gives it.

    `arrays` holds `chosen` (n, k) and what else is known of the tokens. Tokens are paired in the
    order in which they come; the two may be cut differently, and only what still waits for its
    partner is held. Raises ValueError where one has tokens or layers that the other has not, or
    where their tokens or positions differ.
    """
    found: dict[int | str, Agreement] = {}
    waiting: dict[int | str, list[dict]] = {}
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
            n = min(len(arrays["chosen"]) if arrays else 0 for arrays in pair)
            if n:
                agreement = found.setdefault(layer, Agreement(n_experts, n_experts_other))
                _compare(
                    agreement,
                    layer,
                    *({name: array[:n] for name, array in arrays.items()} for arrays in pair),
                )
                waiting[layer] = [
                    {name: array[n:] for name, array in arrays.items()} for arrays in pair
                ]
    for layer, pair in waiting.items():
        left = [len(arrays["chosen"]) if arrays else 0 for arrays in pair]
        if any(left):
            raise ValueError(
                f"layer {layer} has {max(left)} tokens more in the {'second' if left[1] else 'first'} run than in the "
                "other; both must have routed the same tokens in the same order"
            )
    return found


def _compare(agreement: Agreement, layer, first: dict, second: dict) -> None:
    for name in ("token", "position"):
        if name in first and name in second and not np.array_equal(first[name], second[name]):
            raise ValueError(
                f"layer {layer}: {name} differs between the runs; both must have routed the same tokens in one order"
            )
    masks = [np.asarray(arrays["mask"]) > 0 for arrays in (first, second) if "mask" in arrays]
    agreement.update(
        first["chosen"], second["chosen"], np.logical_and.reduce(masks) if masks else None
    )


def _joined(first: dict, second: dict) -> dict:
    """Tokens of both, one after the other; rows of fewer slots are filled up."""
    second = {
        name: np.asarray(second[name])
        for name in ("chosen", "token", "position", "mask")
        if name in second
    }
    if not first:
        return second
    width = max(first["chosen"].shape[1], second["chosen"].shape[1])
    pieces = ({**piece, "chosen": _widened(piece["chosen"], width)} for piece in (first, second))
    first, second = pieces
    return {name: np.concatenate([first[name], second[name]]) for name in first if name in second}


def _widened(rows, width: int) -> np.ndarray:
    return np.pad(rows.astype(np.int64), ((0, 0), (0, width - rows.shape[1])), constant_values=-1)
