"""The layers that a forward of few tokens went through, counted together: what would cost a call of
NumPy for each of them costs one for all.

L layers, n tokens, k slots, E experts. Only plain batches are counted so: of the same tokens, of
the same shapes, with every slot taken. ValueError for anything else, which is then counted one by
one, where what is wrong is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from expertbank._checks import as_array, sum_tolerance
from expertbank.routers._batch import as_amounts, check_integers
from expertbank.routers._counting import (
    Amounts,
    Cells,
    entropies_of_rows,
    groups_of,
    logs,
    n_log_n,
    set_numbers,
    step_bins,
)
from expertbank.routers._kept import Sequences, domains_of
from expertbank.routers._sets import SetNumbering

FEW = 2**13  # numbers (n, E) of a layer up to which this pays
OF_LAYERS = ("chosen", "weights", "probabilities")
OF_TOKENS = ("domain", "sequence", "position", "token", "phase", "step", "mask")


class Rooms(NamedTuple):
    """The sizes of the statistics."""

    n_experts: int
    n_chosen: int
    numbering: SetNumbering | None


def are_alike(batches: Sequence[Mapping[str, Any]], n_experts: int) -> bool:
    """Whether batches of several layers are of the same few tokens: their labels are the same
    objects, and their arrays have the same shapes and types."""
    if len(batches) < 2:
        return False
    first = batches[0]
    chosen = first.get("chosen")
    if not isinstance(chosen, np.ndarray) or chosen.ndim != 2 or first.get("step") is not None:
        return False
    if not 0 < len(chosen) * n_experts <= FEW:
        return False
    kinds = {name: _kind(first.get(name)) for name in OF_LAYERS}
    labels = {name: label for name, label in first.items() if name not in OF_LAYERS}
    return all(
        batch.keys() == first.keys()
        and all(_kind(batch.get(name)) == kind for name, kind in kinds.items())
        and all(batch[name] is label for name, label in labels.items())
        for batch in batches[1:]
    )


def _kind(array: Any) -> Any:
    """Shape and type of an array."""
    return None if array is None else (np.shape(array), getattr(array, "dtype", None))


def stacked(arrays: Sequence[Any], name: str, keep: np.ndarray | None) -> np.ndarray:
    """Arrays of the same shape as one, (L, n, ...), of the tokens to keep (None: all)."""
    array = np.stack([as_array(part, name) for part in arrays])
    return array if keep is None else array[:, keep]


# --- choices ---


def choices_of_layers(arrays: Sequence[Any], keep: np.ndarray | None, rooms: Rooms) -> np.ndarray:
    """Distinct experts (L, n, k), all slots taken; else ValueError."""
    chosen = stacked(arrays, "chosen", keep)
    check_integers(chosen, "chosen", chosen.shape)
    chosen = chosen.astype(np.int64, copy=False)
    width = chosen.shape[2]
    least = chosen.min(initial=0)
    most = chosen.max(initial=0)
    if not chosen.size or width > rooms.n_chosen or least < 0 or most >= rooms.n_experts:
        raise ValueError("chosen has empty slots, or something else that is looked at one by one")
    return chosen


def choice_amounts_of_layers(chosen: np.ndarray, rooms: Rooms) -> Amounts:
    """Tokens, sizes, slots, pairs, sets and the step's MaxVio by layer, of choices (L, n, k)."""
    n_layers, n, width = chosen.shape
    sizes = np.zeros((n_layers, rooms.n_chosen + 1), np.int64)
    sizes[:, width] = n
    slots = by_layer(chosen, rooms.n_experts)
    bins, violation = step_bins(slots, np.full(n_layers, n * width))
    amounts: Amounts = {
        "tokens": np.full(n_layers, n),
        "sizes": sizes,
        "slots": slots,
        "pairs": _cells_of_pairs(chosen, rooms.n_experts),
        "step_counts": _ones(bins[:, None]),
        "step_sums": Cells(bins[:, None], violation[:, None]),
    }
    if rooms.numbering is not None:
        numbers = set_numbers(chosen.reshape(-1, width).T, rooms.n_chosen, rooms.numbering)
        amounts["sets"] = _ones(numbers.reshape(n_layers, n))
    return amounts


def by_layer(cells: np.ndarray, size: int, amounts: np.ndarray | None = None) -> np.ndarray:
    """Sums (L, size) of amounts (or of ones) by layer and cell, of cells (L, ...) below `size`."""
    n_layers = len(cells)
    places = cells.reshape(n_layers, -1) + size * np.arange(n_layers)[:, None]
    given = None if amounts is None else amounts.ravel()
    return np.bincount(places.ravel(), given, n_layers * size).reshape(n_layers, size)


def _ones(cells: np.ndarray) -> Cells:
    """One in each of cells (L, c)."""
    return Cells(cells, np.ones(cells.shape, np.int64))


@cache
def _slots_of_pairs(width: int) -> tuple[np.ndarray, np.ndarray]:
    """The earlier and the later slot of each pair."""
    one, other = np.triu_indices(width, 1)
    return one, other


def _cells_of_pairs(chosen: np.ndarray, n_experts: int) -> Cells:
    one, other = _slots_of_pairs(chosen.shape[2])
    first = chosen[:, :, one].reshape(len(chosen), -1)
    second = chosen[:, :, other].reshape(len(chosen), -1)
    if (first == second).any():
        raise ValueError("chosen names an expert twice")
    both = [first * n_experts + second, second * n_experts + first]
    return _ones(np.concatenate(both, axis=1))


# --- labels ---


def label_cells(chosen: np.ndarray, label: np.ndarray, n_experts: int) -> Cells:
    """Cells of tables (labels, E) by layer, of choices (L, n, k) and labels (n,), -1 for
    unknown."""
    known = label >= 0
    cells = label[known][:, None] * n_experts + chosen[:, known]
    return _ones(cells.reshape(len(chosen), -1))


def slots_by(chosen: np.ndarray, label: np.ndarray, n_labels: int, n_experts: int) -> np.ndarray:
    """Slots (L, labels, E) of choices (L, n, k) with labels (n,), -1 for unknown."""
    cells = label_cells(chosen, label, n_experts).cells
    return by_layer(cells, n_labels * n_experts).reshape(-1, n_labels, n_experts)


def sequence_amounts_of_layers(
    chosen: np.ndarray, sequence: np.ndarray, domain: np.ndarray | None, rooms: Rooms
) -> tuple[Amounts, list[Sequences | None]]:
    """Amounts of sequences (n,) by layer, and each layer's sequences for the null."""
    ids, index = groups_of(sequence)
    amounts = sequence_sums_of_layers(chosen, index, len(ids), rooms.n_experts)
    if domain is None:
        return amounts, [None] * len(chosen)
    known = (index >= 0) & (domain >= 0)
    slots = slots_by(chosen, np.where(known, index, -1), len(ids), rooms.n_experts)
    domains, seen = domains_of(index[known], domain[known], len(ids))
    return amounts, [Sequences(ids[seen], domains, table[seen]) for table in slots]


def sequence_sums_of_layers(
    chosen: np.ndarray, index: np.ndarray, n_sequences: int, n_experts: int
) -> Amounts:
    """`sequence_sums` by layer of choices (L, n, k) of sequences (n,), -1 for unknown, from the
    few cells that are not empty."""
    n_layers = len(chosen)
    cells = label_cells(chosen, index, n_experts).cells
    cells = np.sort(cells + n_sequences * n_experts * np.arange(n_layers)[:, None], axis=None)
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    counts = np.diff(starts, append=len(cells))
    rows = cells[starts] // n_experts
    layer = rows // max(1, n_sequences)
    totals = np.zeros((n_layers, n_sequences), np.int64)
    np.add.at(totals.reshape(-1), rows, counts)
    inner = np.bincount(layer, n_log_n(counts), n_layers)
    return {
        "sequences": (totals > 0).sum(axis=1),
        "sequence_slots": by_layer(chosen[:, index >= 0], n_experts),
        "sequence_cells": np.bincount(layer, minlength=n_layers),
        "sequence_entropy": n_log_n(totals).sum(axis=1) - inner,
    }


# --- weights and probabilities ---


def weight_amounts_of_layers(weights: np.ndarray, chosen: np.ndarray, n_experts: int) -> Amounts:
    """Amounts by layer of weights (L, n, k) of the experts chosen."""
    shares = as_amounts(weights, "weights", chosen.shape, None)
    sums = shares.sum(axis=2, keepdims=True)
    if sums.min() <= 0:
        raise ValueError("weights of a token sum to 0")
    shares = shares / sums
    inner = logs(shares, np.empty_like(shares))
    inner *= shares
    return {
        "weighted": np.full(len(chosen), chosen.shape[1]),
        "weight_sum": sums.sum(axis=(1, 2), dtype=float),
        "weight_load": by_layer(chosen, n_experts, shares),
        "weight_entropy": np.maximum(0, -inner.sum(axis=(1, 2), dtype=float)),
    }


def probability_amounts_of_layers(probabilities: np.ndarray) -> Amounts:
    """Amounts by layer of probabilities (L, n, E)."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums = probabilities.sum(axis=2)
        off = np.abs(sums - 1).max()
    if not (probabilities.min() >= 0 and off <= sum_tolerance(probabilities)):
        raise ValueError("probabilities are none")
    room = np.empty_like(probabilities)
    entropies = entropies_of_rows(probabilities, sums, room)
    return {
        "probable": np.full(len(sums), sums.shape[1]),
        "probability_sum": np.einsum("ln,lne->le", 1 / sums, probabilities),
        "probability_entropy": entropies.sum(axis=1, dtype=float),
    }


# --- all of it ---


def amounts_of_layers(
    batches: Sequence[Mapping[str, Any]],
    keep: np.ndarray | None,
    labels: Mapping[str, np.ndarray],
    rooms: Rooms,
) -> list[tuple[Amounts, Sequences | None]]:
    """What each of batches that `are_alike` adds to the fields of its layer, and its sequences.

    `labels` are those of the tokens to keep: `sequence`, `domain`, `phase`, and `positions` and
    `token_slots`, the row of each token in the tables of these names.
    """
    e = rooms.n_experts
    chosen = choices_of_layers([batch["chosen"] for batch in batches], keep, rooms)
    amounts = choice_amounts_of_layers(chosen, rooms)
    domain = labels.get("domain")
    if domain is not None:
        amounts["domains"] = label_cells(chosen, domain, e)
    for name in ("positions", "token_slots", "phases"):
        if name in labels:
            amounts[name] = label_cells(chosen, labels[name], e)
    whole: list[Sequences | None] = [None] * len(batches)
    if "sequence" in labels:
        found, whole = sequence_amounts_of_layers(chosen, labels["sequence"], domain, rooms)
        amounts |= found
    if batches[0].get("weights") is not None:
        weights = stacked([batch["weights"] for batch in batches], "weights", keep)
        amounts |= weight_amounts_of_layers(weights, chosen, e)
    if batches[0].get("probabilities") is not None:
        rows = stacked([batch["probabilities"] for batch in batches], "probabilities", keep)
        if rows.dtype.kind != "f" or rows.shape[1:] != (chosen.shape[1], e):
            raise ValueError("probabilities are none")
        amounts |= probability_amounts_of_layers(rows)
    return [(_of_layer(amounts, place), whole[place]) for place in range(len(batches))]


def _of_layer(amounts: Amounts, place: int) -> Amounts:
    """The amounts of one of the layers."""
    return {
        name: Cells(amount.cells[place], amount.amounts[place])
        if isinstance(amount, Cells)
        else amount[place]
        for name, amount in amounts.items()
    }
