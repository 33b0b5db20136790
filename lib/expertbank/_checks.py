"""Checks that turn bad input into one clear error: which argument, what was found, what is
allowed."""

from __future__ import annotations

import numpy as np

SUM_TOLERANCE = 1e-6
# ends of open intervals
ABOVE_0, BELOW_1, BELOW_INF = np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0), np.finfo(float).max


def as_losses(losses, name: str = "losses") -> np.ndarray:
    """A finite, non-empty (N, R) table as an array; integer tables keep their small dtype."""
    table = _as_array(losses, name)
    if table.ndim != 2:
        raise ValueError(f"{name} has shape {table.shape}; allowed is (N, R): inputs by experts")
    if table.shape[0] == 0 or table.shape[1] == 0:
        raise ValueError(
            f"{name} has shape {table.shape}; at least one input and one expert are needed"
        )
    return _as_finite(table, name)


def as_risks(risks, name: str = "risks") -> np.ndarray:
    """A finite (..., R) array of floats with R >= 1."""
    array = _as_array(risks, name)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}; allowed is (..., R) with R >= 1")
    return _as_finite(array, name).astype(float, copy=False)


def as_distribution(p, name: str, axis: int = -1) -> np.ndarray:
    """An array of floats that is non-negative and sums to 1 along `axis`."""
    array = _as_nonnegative(p, name)
    if array.ndim == 0 or array.shape[axis] == 0:
        raise ValueError(
            f"{name} has shape {array.shape}; a distribution needs at least one outcome"
        )
    sums = array.sum(axis=axis)
    worst = float(np.max(np.abs(sums - 1), initial=0))
    if worst > SUM_TOLERANCE:
        raise ValueError(f"{name} must sum to 1; the largest deviation found is {worst:.3g}")
    return array


def as_gate(gate, name: str = "gate") -> np.ndarray:
    """A row-stochastic (N, R) array."""
    array = _as_array(gate, name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} has shape {array.shape}; allowed is (N, R) with N, R >= 1, each row p(t|x)"
        )
    return as_distribution(array, name)


def as_weights(weights, n: int, name: str = "weights") -> np.ndarray:
    """Non-negative weights of n inputs, scaled to sum to 1; None means uniform."""
    if weights is None:
        return np.full(n, 1 / n)
    array = _as_nonnegative(weights, name)
    if array.shape != (n,):
        raise ValueError(f"{name} has shape {array.shape}; allowed is ({n},), one weight per input")
    largest = array.max()
    if largest <= 0:
        raise ValueError(f"{name} sum to 0; at least one weight must be positive")
    array = array / largest  # so that the sum cannot overflow
    return array / array.sum()


def as_interval(value, name: str, low: float, high: float, allowed: str | None = None):
    """A number (or array of numbers) in [low, high]."""
    array = _as_array(value, name)
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} is {value!r}; allowed is {allowed or f'a number in [{low:g}, {high:g}]'}"
        )
    array = array.astype(float)
    if not np.all((array >= low) & (array <= high)):  # also false for NaN
        worst = array[~((array >= low) & (array <= high))].flat[0]
        raise ValueError(f"{name} is {worst:g}; allowed is {allowed or f'[{low:g}, {high:g}]'}")
    return array[()]


def as_number(value, name: str, low: float, high: float, allowed: str | None = None) -> float:
    """One number in [low, high]."""
    if np.ndim(array := as_interval(value, name, low, high, allowed)):
        raise ValueError(
            f"{name} has shape {array.shape}; allowed is one number, {allowed or f'[{low:g}, {high:g}]'}"
        )
    return float(array)


def as_count(value, name: str, at_least: int = 1) -> int:
    """An integer of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise ValueError(f"{name} is {value!r}; allowed is an integer of at least {at_least}")
    return int(value)


def _as_array(value, name: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} is no rectangular array of numbers: {error}") from None


def _as_finite(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {array.dtype}; allowed are real numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} holds {array[bad]} at {bad}; all entries must be finite")
    return array


def _as_nonnegative(p, name: str) -> np.ndarray:
    array = _as_finite(_as_array(p, name), name).astype(float, copy=False)
    if array.size and array.min() < 0:
        raise ValueError(f"{name} holds {array.min():.3g}; entries must not be negative")
    return array
