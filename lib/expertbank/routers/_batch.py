"""Checks of what one batch of tokens brings: arrays of the shape, type and range that counting
takes, or a ValueError that says what is allowed.

Each check returns the tokens to keep only, so that masked ones may hold anything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import LARGEST, as_array

SAFE = 1e30  # many numbers of this size have a finite sum in single precision


def as_mask(mask: ArrayLike | None, n_tokens: int) -> np.ndarray:
    """Which of the tokens count, (n,) booleans; None keeps all."""
    if mask is None:
        return np.ones(n_tokens, bool)
    mask = as_array(mask, "mask")
    is_yes_or_no = mask.dtype == bool or np.isin(mask, (0, 1)).all()
    if mask.shape != (n_tokens,) or not is_yes_or_no:
        raise ValueError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}; allowed is ({n_tokens},), "
            "True for what counts"
        )
    return mask.astype(bool)


def check_choices(chosen: ArrayLike, name: str, n_tokens: int, most: int) -> None:
    """Raise ValueError for another shape than (n, k) with k of at most `most`."""
    shape = np.shape(chosen)
    if len(shape) != 2 or shape[0] != n_tokens or not 1 <= shape[1] <= most:
        raise ValueError(
            f"{name} has shape {shape}; allowed is ({n_tokens}, k) with k from 1 to {most}, "
            "a token a row"
        )


def as_choices(
    chosen: ArrayLike, name: str, n_tokens: int, n_experts: int, most: int, keep: np.ndarray
) -> np.ndarray:
    """Chosen experts of the tokens to keep, (n', k) with k of at most `most`, distinct in a row."""
    check_choices(chosen, name, n_tokens, most)
    rows = as_integers(chosen, name, np.shape(chosen), keep, n_experts)
    ordered = np.sort(rows, axis=1)
    repeats = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    twice = repeats.any(axis=1)
    if twice.any():
        row = rows[twice.argmax()].tolist()
        raise ValueError(
            f"{name} has a row {row} that names an expert twice; the experts of a token are "
            "distinct"
        )
    return rows


def check_integers(array: np.ndarray, name: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError for another shape or type than that of integers up to 2^63 - 1."""
    if array.shape != tuple(shape):
        raise ValueError(f"{name} has shape {array.shape}; allowed is {tuple(shape)}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {array.dtype}; allowed are integers")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {array.max()}; allowed is at most 2^63 - 1")


def as_integers(
    values: ArrayLike, name: str, shape: tuple[int, ...], keep: np.ndarray | None, below: int | None
) -> np.ndarray:
    """Integers of this shape, of the tokens to keep (None: all): 0 to below - 1, and -1 for
    none."""
    array = as_array(values, name)
    check_integers(array, name, shape)
    if keep is not None:
        array = array[keep]
    array = array.astype(np.int64, copy=False)
    if not array.size:
        return array
    too_low = array.min() < -1
    too_high = below is not None and array.max() >= below
    if too_low or too_high:
        worst = array.min() if too_low else array.max()
        allowed = "0 and up" if below is None else f"0 to {below - 1}"
        raise ValueError(f"{name} holds {worst}; allowed are {allowed}, and -1 for none")
    return array


def as_amounts(
    values: ArrayLike, name: str, shape: tuple[int, ...], keep: np.ndarray | None
) -> np.ndarray:
    """Numbers >= 0 of this shape, up to `LARGEST`, of the tokens to keep (None: all); in single
    precision where they come in it and none is so large that a sum may overflow."""
    array = as_array(values, name)
    if array.shape != tuple(shape):
        raise ValueError(f"{name} has shape {array.shape}; allowed is {tuple(shape)}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} has dtype {array.dtype}; allowed are real numbers")
    if keep is not None:
        array = array[keep]
    high = float(array.max(initial=0))
    if array.dtype != np.float32 or not high <= SAFE:
        array = array.astype(float)
    if not (array.min(initial=0) >= 0 and high <= LARGEST):
        array = array.astype(float)
        worst = array[~(array >= 0) | ~(array <= LARGEST)][0]
        raise ValueError(f"{name} holds {worst:g}; allowed are numbers >= 0, up to {LARGEST:g}")
    return array
