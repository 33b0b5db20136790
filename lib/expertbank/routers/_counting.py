"""The tables of one batch of tokens, in few passes: what counting costs is spent here.

Choices are kept as columns (k, n), one a slot, so that each step runs over neighbouring numbers. A
table that is larger than the batch is never made: its cells are named one by one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_array, sum_tolerance
from expertbank.routers._batch import as_amounts, check_choices, check_integers
from expertbank.routers._sets import SetNumbering

BLOCK = 2**16  # numbers that are worked on at once: they stay in a core's cache
MOST_ROWS = 1024  # that are summed in single precision where numbers come in it
STEP_BINS = 1024  # for the MaxVio of steps, of even width in log(1 + MaxVio), from 0 to log E


class Cells(NamedTuple):
    """What is added to some cells of a table."""

    cells: np.ndarray
    """(c,) places in the flattened table; one may come several times"""
    amounts: Any = 1
    """() or (c,)"""


Amounts = dict[str, Any]
"""By field of a layer, what is added: an array, a number, or `Cells`."""


class Columns(NamedTuple):
    """The experts of n tokens, slot by slot."""

    experts: np.ndarray
    """(k, n) int64, -1 for an empty slot"""
    are_full: bool
    """whether no slot is empty"""


def as_columns(
    chosen: ArrayLike, n_tokens: int, n_experts: int, most: int, keep: np.ndarray | None
) -> Columns:
    """The choices (n, k) of the tokens to keep; ValueError for what are none. Whether they are
    distinct shows in `pairs_of`."""
    array = as_array(chosen, "chosen")
    check_choices(array, "chosen", n_tokens, most)
    check_integers(array, "chosen", array.shape)
    if keep is not None:
        array = array[keep]
    n, width = array.shape
    columns = np.empty((width, n), np.int64)
    step = max(1, BLOCK // width)
    for first in range(0, n, step):
        columns[:, first : first + step] = array[first : first + step].T
    if not n:
        return Columns(columns, True)
    low = columns.min()
    high = columns.max()
    if low < -1 or high >= n_experts:
        worst = low if low < -1 else high
        raise ValueError(f"chosen holds {worst}; allowed are 0 to {n_experts - 1}, and -1 for none")
    return Columns(columns, bool(low >= 0))


def counts_in(cells: np.ndarray, shape: tuple[int, ...]) -> Any:
    """How often each cell comes: a table of this shape, or the cells where it would be larger."""
    size = math.prod(shape)
    if len(cells) < size:
        return Cells(cells)
    return np.bincount(cells, minlength=size).reshape(shape)


def cells_of(columns: Columns, label: np.ndarray, n_experts: int) -> np.ndarray:
    """Cells (c,) of a table (labels, E), one a slot that is taken and whose label (n,) is known."""
    experts = columns.experts
    cells = experts + label * n_experts
    if columns.are_full and (not len(label) or label.min() >= 0):
        return cells.ravel()
    return cells[(experts >= 0) & (label >= 0)]


# --- choices ---


def choice_amounts(
    columns: Columns, n_experts: int, n_chosen: int, numbering: SetNumbering | None
) -> Amounts:
    """Sizes, slots, pairs and sets of choices. Raises ValueError for a token that takes an expert
    twice."""
    experts = columns.experts
    width, n = experts.shape
    if columns.are_full:
        sizes = np.zeros(n_chosen + 1, np.int64)
        sizes[width] = n
        slots = np.bincount(experts.ravel(), minlength=n_experts)
    else:
        sizes = np.bincount((experts >= 0).sum(axis=0), minlength=n_chosen + 1)
        slots = np.bincount((experts + 1).ravel(), minlength=n_experts + 1)[1:]
    pairs = pairs_of(columns, n_experts)
    amounts: Amounts = {"sizes": sizes, "slots": slots, "pairs": pairs}
    if numbering is None:
        return amounts
    if n_chosen <= 2 and not isinstance(pairs, Cells):
        singles = slots - pairs.sum(axis=1)
        amounts["sets"] = numbering.counts_of_pairs(sizes[0], singles, pairs)
    else:
        numbers = set_numbers(experts, n_chosen, numbering)
        amounts["sets"] = counts_in(numbers, (numbering.n_sets,))
    return amounts


def pairs_of(columns: Columns, n_experts: int) -> Any:
    """Tokens that took both experts, (E, E), symmetric, zero on the diagonal. Raises ValueError for
    a token that takes an expert twice."""
    width, n = columns.experts.shape
    n_pairs = width * (width - 1) // 2
    if 2 * n_pairs * n < n_experts**2:
        return _cells_of_pairs(columns, n_experts)
    upper = _upper_pairs(columns, n_experts, n_pairs)
    if upper.diagonal().any():
        _refuse_repeats(columns)
    return upper + upper.T


def _cells_of_pairs(columns: Columns, n_experts: int) -> Cells:
    """The cells of the table of pairs, for few tokens."""
    one, other = np.triu_indices(len(columns.experts), 1)
    first = columns.experts[one].ravel()
    second = columns.experts[other].ravel()
    if not columns.are_full:
        both = (first >= 0) & (second >= 0)
        first = first[both]
        second = second[both]
    if (first == second).any():
        _refuse_repeats(columns)
    return Cells(np.concatenate([first * n_experts + second, second * n_experts + first]))


def _upper_pairs(columns: Columns, n_experts: int, n_pairs: int) -> np.ndarray:
    """Tokens by the experts of two slots (E, E), the earlier slot in the row."""
    experts = columns.experts
    width, n = experts.shape
    e = n_experts
    if not columns.are_full:  # a row and a column more, for empty slots
        experts = experts + 1
        e += 1
    table = np.zeros(e * e, np.int64)
    step = max(1, 4 * BLOCK // max(1, n_pairs))
    room = np.empty(n_pairs * min(n, step), np.int64)
    for first in range(0, n, step):
        some = experts[:, first : first + step]
        rows = some[:-1] * e
        keys = room[: n_pairs * some.shape[1]].reshape(n_pairs, -1)
        start = 0
        for i in range(width - 1):
            stop = start + width - 1 - i
            np.add(some[i + 1 :], rows[i], out=keys[start:stop])
            start = stop
        table += np.bincount(keys.ravel(), minlength=e * e)
    return table.reshape(e, e)[-n_experts:, -n_experts:]


def _refuse_repeats(columns: Columns) -> None:
    """Raise ValueError that shows a token which takes an expert twice."""
    ordered = np.sort(columns.experts, axis=0)
    repeats = (ordered[1:] == ordered[:-1]) & (ordered[1:] >= 0)
    row = columns.experts[:, repeats.any(axis=0).argmax()].tolist()
    raise ValueError(
        f"chosen has a row {row} that names an expert twice; the experts of a token are distinct"
    )


def set_numbers(experts: np.ndarray, n_chosen: int, numbering: SetNumbering) -> np.ndarray:
    """Numbers (n,) of the sets of experts (k, n) in any order."""
    return numbering.numbers(_ascending(experts, n_chosen))


def _ascending(experts: np.ndarray, n_chosen: int) -> np.ndarray:
    """Columns (n_chosen, n) of the experts (k, n) of each token in ascending order, empty slots
    first: exchanges of neighbours, each over all tokens."""
    width, n = experts.shape
    ordered = np.full((n_chosen, n), -1)
    ordered[n_chosen - width :] = experts
    last = n_chosen - 1
    for end in range(last, n_chosen - width, -1):
        for i in range(n_chosen - width, end):
            lower = np.minimum(ordered[i], ordered[i + 1])
            np.maximum(ordered[i], ordered[i + 1], out=ordered[i + 1])
            ordered[i] = lower
    return ordered


# --- sequences and steps ---


def groups_of(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels (S,), ascending, and the number (n,) of each token's among them; -1 where it
    is unknown (-1)."""
    if not len(label):
        return label, label
    if (label[1:] >= label[:-1]).all():
        is_start = np.empty(len(label), bool)
        is_start[0] = True
        np.not_equal(label[1:], label[:-1], out=is_start[1:])
        ids = label[is_start]
        index = is_start.cumsum() - 1
    else:
        ids, index = np.unique(label, return_inverse=True)
    if ids[0] < 0:
        return ids[1:], index - 1
    return ids, index


def sequence_sums(counts: np.ndarray) -> Amounts:
    """Amounts of sequences with slots (..., S, E), for each of the axes in front."""
    slots = counts.sum(axis=-1)
    return {
        "sequences": (slots > 0).sum(axis=-1),
        "sequence_slots": counts.sum(axis=-2),
        "sequence_cells": (counts > 0).sum(axis=(-2, -1)),
        "sequence_entropy": n_log_n(slots).sum(axis=-1) - n_log_n(counts).sum(axis=(-2, -1)),
    }


def n_log_n(counts: np.ndarray) -> np.ndarray:
    """n log n of each. Most counts are small and come often, so that a table is shorter."""
    most = int(counts.max(initial=0))
    if most > max(counts.size, BLOCK):
        return scipy.special.xlogy(counts, counts)
    sizes = np.arange(most + 1)
    return scipy.special.xlogy(sizes, sizes)[counts]


def step_amounts(loads: np.ndarray) -> Amounts:
    """The MaxVio of steps with slots (S, E), by bins of `STEP_BINS`; steps without any are none."""
    totals = loads.sum(axis=1)
    if not totals.all():
        loads = loads[totals > 0]
        totals = totals[totals > 0]
    bins, violation = step_bins(loads, totals)
    return {"step_counts": Cells(bins), "step_sums": Cells(bins, violation)}


def step_bins(loads: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bins and MaxVio (S,) of steps with slots (S, E), which come to these totals above 0."""
    n_experts = loads.shape[1]
    ratio = loads.max(axis=1) * n_experts / totals  # 1 + MaxVio, from 1 to E
    width = np.log(n_experts) / (STEP_BINS - 1) if n_experts > 1 else 1.0
    return np.rint(np.log(ratio) / width).astype(np.int64), ratio - 1


# --- weights and probabilities ---


def weight_amounts(
    weights: ArrayLike, columns: Columns, shape: tuple[int, ...], keep: np.ndarray | None, e: int
) -> Amounts:
    """Amounts of weights (n, k) of the experts of the columns, of `e` in all."""
    shares = np.array(as_amounts(weights, "weights", shape, keep).T, order="C")
    experts = columns.experts
    if not columns.are_full:
        shares[experts < 0] = 0
        served = (experts >= 0).any(axis=0)
        shares = shares[:, served]
        experts = experts[:, served]
    sums = shares.sum(axis=0)
    if sums.min(initial=1) <= 0:
        raise ValueError(
            "weights of a token that took experts sum to 0; mask such tokens or leave weights out"
        )
    shares /= sums
    if columns.are_full:
        load = np.bincount(experts.ravel(), shares.ravel(), e)
    else:
        load = np.bincount(experts[experts >= 0], shares[experts >= 0], e)
    inner = logs(shares, np.empty_like(shares))
    inner *= shares
    return {
        "weighted": len(sums),
        "weight_sum": float(sums.sum(dtype=float)),
        "weight_load": load,
        "weight_entropy": max(0.0, -float(inner.sum(axis=0).sum(dtype=float))),
    }


def logs(numbers: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Logarithms of shares; of 0 some finite number, which 0 is multiplied by."""
    np.maximum(numbers, np.finfo(numbers.dtype).tiny, out=out)
    return np.log(out, out=out)


def entropies_of_rows(rows: np.ndarray, sums: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Entropies (...,) of rows (..., E) over their sums, with room for as many numbers."""
    inner = np.einsum("...j,...j->...", rows, logs(rows, room))
    return np.maximum(np.log(sums) - inner / sums, 0)


def probability_amounts(
    probabilities: ArrayLike, shape: tuple[int, int], keep: np.ndarray | None
) -> Amounts:
    """Amounts of probabilities (n, E), scaled to sum to 1 exactly where they nearly do.

    In the precision that they come in, a few rows at a time, so that each is read once from memory;
    what blocks of rows amount to is summed in double precision.
    """
    tolerance = sum_tolerance(probabilities)
    array = as_array(probabilities, "probabilities")
    if array.shape != shape or array.dtype.kind != "f":
        array = as_amounts(probabilities, "probabilities", shape, keep)
        keep = None
    n_experts = shape[1]
    step = max(1, min(MOST_ROWS, BLOCK // n_experts))
    room = np.empty((min(step, len(array)), n_experts), array.dtype)
    ones = np.ones(n_experts, array.dtype)
    n = 0
    load = np.zeros(n_experts)
    entropy = 0.0
    for first in range(0, len(array), step):
        rows = array[first : first + step]
        if keep is not None:
            rows = rows[keep[first : first + step]]
        if not len(rows):
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            sums = rows @ ones
            worst = np.abs(sums - 1).max()
        if not (rows.min() >= 0 and worst <= tolerance):
            as_amounts(rows, "probabilities", rows.shape, None)
            raise ValueError(
                f"probabilities have a row that sums to 1 +- {worst:.3g}; allowed are rows that "
                "sum to 1: take the softmax of logits, divide a sigmoid router's scores by their "
                "sum"
            )
        entropies = entropies_of_rows(rows, sums, room[: len(rows)])
        entropy += float(entropies.sum(dtype=float))
        load += (1 / sums) @ rows
        n += len(rows)
    return {"probable": n, "probability_sum": load, "probability_entropy": entropy}
