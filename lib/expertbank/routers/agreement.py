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

# of the arrays of a run
COMPARED = ("chosen", "token", "position", "mask", "probabilities")
TIE_MARGINS = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Between which margins tokens are counted together, nats"""
NEAR_TIE = 0.03
"""Margin of a near tie: what logits around 8 lose in bfloat16, whose steps are 2^-8 of them"""
POSITION_BINS = 32
"""Positions 0, 1, 2 to 3, 4 to 7 and so on are counted together"""


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
    by_position: np.ndarray
    """(2, `POSITION_BINS`) slots, and those of them that differ, by binary logarithm of the
    position plus 1"""
    by_margin: np.ndarray
    """(2, `TIE_MARGINS` + 1) tokens, and slots that differ, by how near a tie the choice was"""

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
        self.by_position = np.zeros((2, POSITION_BINS), np.int64)
        self.by_margin = np.zeros((2, len(TIE_MARGINS) + 1), np.int64)

    def update(
        self,
        chosen: ArrayLike,
        other: ArrayLike,
        mask: ArrayLike | None = None,
        position: ArrayLike | None = None,
        probabilities: ArrayLike | None = None,
    ) -> None:
        """Count n tokens: `chosen` (n, k) and `other` (n, k'), distinct experts in any order, -1
        for an empty slot; `mask` (n,) is True for tokens that count. Raises ValueError for anything
        else.

        `position` (n,), -1 for unknown, and `probabilities` (n, E) of the first run say where the
        differences are: the margin of a choice is the logarithm of its least probable expert's
        probability over that of the most probable one left out. Where that is below 0 something
        else than these probabilities chose, and the token has no margin.

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
        most = np.maximum(sizes, other_sizes)
        self.most += int(most.sum())
        flips = most - _in_both(rows, other_rows)
        if position is not None:
            place = np.asarray(position)[keep]
            self.by_position += _binned(_position_bin(place), POSITION_BINS, [most, flips])
        if probabilities is not None:
            margin = _margins(rows, np.asarray(probabilities)[keep])
            bins = np.where(margin >= 0, np.searchsorted(TIE_MARGINS, margin, side="right"), -1)
            tokens = np.ones_like(flips)
            self.by_margin += _binned(bins, len(TIE_MARGINS) + 1, [tokens, flips])

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
            merged.by_position += part.by_position
            merged.by_margin += part.by_margin
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
    def near_ties(self) -> tuple[float, float]:
        """The share of tokens whose choice was a near tie, and the share of the differences that
        lie there; nan where no margin is known, or nothing differs.

        >>> agreement = Agreement(n_experts=2)
        >>> agreement.update([[0], [0]], [[1], [0]], probabilities=[[0.501, 0.499], [0.9, 0.1]])
        >>> agreement.near_ties
        (0.5, 1.0)
        """
        near = self.by_margin[:, : TIE_MARGINS.index(NEAR_TIE) + 1].sum(axis=1)
        tokens, flips = self.by_margin.sum(axis=1)
        share = float(near[0] / tokens) if tokens else np.nan
        return share, float(near[1] / flips) if flips else np.nan

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


def _in_both(rows: np.ndarray, other_rows: np.ndarray) -> np.ndarray:
    """How many experts (n,) of rows (n, k) are in the other rows (n, k') too."""
    found = np.zeros(len(rows), np.int64)
    for column in rows.T:
        found += (column >= 0) & (other_rows == column[:, None]).any(axis=1)
    return found


def _position_bin(position: np.ndarray) -> np.ndarray:
    """0 for position 0, 1 for 1, 2 for 2 and 3, 3 for 4 to 7; -1 where it is unknown."""
    exponent = np.frexp(np.maximum(position, 0).astype(float))[1]
    return np.where(position >= 0, np.minimum(exponent, POSITION_BINS - 1), -1)


def _margins(rows: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(n,) nats between the last expert chosen and the first left out; -1 where none is."""
    n = len(rows)
    token = np.arange(n)[:, None]
    is_chosen = np.zeros(probabilities.shape, bool)
    where, slot = np.nonzero(rows >= 0)
    is_chosen[where, rows[where, slot]] = True
    last = np.where(rows >= 0, probabilities[token, np.maximum(rows, 0)], np.inf).min(axis=1)
    first = np.where(is_chosen, -np.inf, probabilities).max(axis=1)
    known = np.isfinite(last) & (first > 0) & (last > 0)
    return np.where(known, np.log(np.where(known, last / np.where(known, first, 1), 1)), -1)


def _binned(bins: np.ndarray, n_bins: int, amounts: list[np.ndarray]) -> np.ndarray:
    """(len(amounts), n_bins) sums of amounts (n,) by bin; -1 counts nowhere."""
    known = bins >= 0
    sums = [np.bincount(bins[known], each[known], n_bins) for each in amounts]
    return np.array(sums).astype(np.int64)


def layer_transitions(
    stream: Iterable[tuple[Layer, Mapping[str, Any]]], n_experts: int
) -> dict[tuple[Layer, Layer], Agreement]:
    """How the experts of a layer go with those of the next, in the order in which layers come: the
    table of each pair is `Agreement.pairs`, and its `information` is I(T;T') of a slot of each.

    `stream` gives (layer, arrays) as `read_routing` does, each layer with the same tokens in the
    same order. Raises ValueError where a layer has more tokens than another.

    >>> layers = [(0, {"chosen": [[0], [1], [1]]}), (1, {"chosen": [[1], [0], [0]]})]
    >>> layer_transitions(layers, n_experts=2)[0, 1].pairs.tolist()
    [[0, 1], [2, 0]]
    """
    found: dict[tuple[Layer, Layer], Agreement] = {}
    order: list[Layer] = []
    # by pair, tokens of the one and of the other layer that still lack their partner
    waiting: dict[tuple[Layer, Layer], list[dict[str, np.ndarray]]] = {}
    # tokens of the last layer so far, whose next one is not known yet
    last: dict[str, np.ndarray] = {}
    for layer, arrays in stream:
        known = {name: arrays[name] for name in ("chosen", "mask") if name in arrays}
        if "chosen" not in known:
            raise ValueError(f"layer {layer} has no chosen experts; transitions need choices")
        if layer not in order:
            order.append(layer)
            if len(order) > 1:
                waiting[order[-2], layer] = [last, {}]
            last = {}
        at = order.index(layer)
        pairs = [(order[at - 1], layer, 1)] if at else []
        if at + 1 < len(order):
            pairs.append((layer, order[at + 1], 0))
        else:
            last = _joined(last, known)
        for one, other, side in pairs:
            pair = waiting[one, other]
            pair[side] = _joined(pair[side], known)
            agreement = found.setdefault((one, other), Agreement(n_experts))
            waiting[one, other] = _paired(agreement, layer, pair)
    _check_even(((f"{a} and {b}", pair) for (a, b), pair in waiting.items()), "layer")
    return found


def _paired(
    agreement: Agreement, layer: Layer, pair: list[dict[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Count the tokens that both sides have; what is left of each."""
    n = min(_n_tokens(pair[0]), _n_tokens(pair[1]))
    if not n:
        return pair
    first, second = (_tokens(arrays, slice(None, n)) for arrays in pair)
    _compare(agreement, layer, first, second)
    return [_tokens(arrays, slice(n, None)) for arrays in pair]


def _check_even(
    waiting: Iterable[tuple[Layer, list[dict[str, np.ndarray]]]], kind: str = "run"
) -> None:
    """Raise ValueError where tokens are left that found no partner."""
    for layer, pair in waiting:
        left = [_n_tokens(arrays) for arrays in pair]
        if any(left):
            longer = "second" if left[1] else "first"
            raise ValueError(
                f"layer {layer} has {max(left)} tokens more in the {longer} {kind} than in the "
                "other; both must have routed the same tokens in the same order"
            )


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
            if min(_n_tokens(pair[0]), _n_tokens(pair[1])):
                agreement = found.setdefault(layer, Agreement(n_experts, n_experts_other))
                waiting[layer] = _paired(agreement, layer, pair)
    _check_even(waiting.items())
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
    position = first.get("position", second.get("position"))
    # the margin is that of the first run
    probabilities = first.get("probabilities")
    agreement.update(first["chosen"], second["chosen"], mask, position, probabilities)


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
