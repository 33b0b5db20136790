"""Checks that turn bad input into one clear error: which argument, what was found, what is
allowed."""

from __future__ import annotations

from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

# a float where a number went in, an array where an array went in
FloatOrArray: TypeAlias = Any

# how far the sum of a distribution may lie from 1: numbers of 64 bits are computed, those of fewer
# come out of networks, where 16 bits leave two or three digits
SUM_TOLERANCE = 1e-6
NETWORK_TOLERANCE = 0.02

# ends of open intervals
ABOVE_0 = float(np.nextafter(0.0, 1.0))
BELOW_1 = float(np.nextafter(1.0, 0.0))
BELOW_INF = float(np.finfo(float).max)

# losses may be as large: their sums stay finite
LARGEST = 1e300
# counts in a formula: floats hold every integer up to it
LARGEST_COUNT = 10**15
# of numbers that one call may hold at once: a gigabyte
MOST_NUMBERS = 2**27


# --- tables and risks ---


def as_losses(losses: ArrayLike, name: str = "losses") -> np.ndarray:
    """A finite, non-empty (N, R) table as an array; integer tables keep their small dtype.

    Raises ValueError for another shape, and for entries that are not real numbers, not finite or
    above `LARGEST` in size.

    >>> as_losses([0, 1])
    Traceback (most recent call last):
    ValueError: losses has shape (2,); allowed is (N, R): inputs by experts
    """
    table = as_array(losses, name)
    if table.ndim != 2:
        raise ValueError(f"{name} has shape {table.shape}; allowed is (N, R): inputs by experts")
    if table.shape[0] == 0 or table.shape[1] == 0:
        raise ValueError(
            f"{name} has shape {table.shape}; at least one input and one expert are needed"
        )
    return _as_moderate(_as_finite(table, name), name)


def as_unit_losses(losses: ArrayLike, name: str = "losses") -> np.ndarray:
    """A table (N, R) of numbers in [0, 1].

    >>> as_unit_losses([[0, 2]])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: losses lie between 0 and 2; ... in [0, 1]: scale them first, (losses - (0)) / 2
    """
    table = as_losses(losses, name)
    low = float(table.min())
    high = float(table.max())
    if low >= 0 and high <= 1:
        return table
    fix = "they are all the same"
    if high > low:
        fix = f"scale them first, ({name} - ({low:g})) / {high - low:g}"
    raise ValueError(
        f"{name} lie between {low:g} and {high:g}; the bounds are for losses in [0, 1]: {fix}"
    )


def as_risks(risks: ArrayLike, name: str = "risks") -> np.ndarray:
    """A finite (..., R) array of floats up to `LARGEST` in size, R >= 1; else ValueError.

    >>> as_risks([0.25, float("nan")])
    Traceback (most recent call last):
    ValueError: risks holds nan at (1,); all entries must be finite
    """
    array = as_array(risks, name)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}; allowed is (..., R) with R >= 1")
    return _as_moderate(_as_finite(array, name).astype(float, copy=False), name)


# --- distributions ---


def sum_tolerance(values: Any) -> float:
    """How far rows that should sum to 1 may miss it: the one rule of the library.

    1e-6; where the numbers are floats of 32 or 16 bits 0.02, and then the rows are scaled to sum
    to 1.

    >>> sum_tolerance(np.ones(1)), sum_tolerance(np.ones(1, np.float16))
    (1e-06, 0.02)
    """
    dtype = str(getattr(values, "dtype", "float64"))
    is_short = "float" in dtype and not dtype.endswith(("64", "96", "128"))
    return NETWORK_TOLERANCE if is_short else SUM_TOLERANCE


def as_distribution(p: ArrayLike, name: str, axis: int = -1) -> np.ndarray:
    """An array of floats that is non-negative and sums to 1 along `axis`; else ValueError.

    How near to 1 is near enough says `sum_tolerance`.

    >>> as_distribution([0.5, 0.4], "p")
    Traceback (most recent call last):
    ValueError: p must sum to 1; the largest deviation found is 0.1
    """
    array = _as_nonnegative(p, name)
    if array.ndim == 0 or array.shape[axis] == 0:
        raise ValueError(
            f"{name} has shape {array.shape}; a distribution needs at least one outcome"
        )
    sums = array.sum(axis=axis)
    worst = float(np.max(np.abs(sums - 1), initial=0))
    tolerance = sum_tolerance(p)
    if worst > tolerance:
        raise ValueError(f"{name} must sum to 1; the largest deviation found is {worst:.3g}")
    if tolerance > SUM_TOLERANCE:
        array = array / np.expand_dims(sums, axis)
    return array


def as_gate(gate: ArrayLike, name: str = "gate") -> np.ndarray:
    """A row-stochastic (N, R) array of floats; else ValueError.

    >>> as_gate([0.5, 0.5])
    Traceback (most recent call last):
    ValueError: gate has shape (2,); allowed is (N, R) with N, R >= 1, each row p(t|x)
    """
    array = as_array(gate, name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} has shape {array.shape}; allowed is (N, R) with N, R >= 1, each row p(t|x)"
        )
    return as_distribution(array, name)


def as_weights(weights: ArrayLike | None, n: int, name: str = "weights") -> np.ndarray:
    """Non-negative weights (n,) of n inputs, scaled to sum to 1; None means uniform.

    One that is 1e308 times smaller than the largest counts as 0: as a float it would have lost its
    digits. Raises ValueError for another shape, for a negative weight, and where all of them are 0.

    >>> as_weights([1, 3], 2).tolist()
    [0.25, 0.75]
    """
    if weights is None:
        return np.full(n, 1 / n)
    array = _as_nonnegative(weights, name)
    if array.shape != (n,):
        raise ValueError(f"{name} has shape {array.shape}; allowed is ({n},), one weight per input")
    largest = array.max()
    if largest <= 0:
        raise ValueError(f"{name} sum to 0; at least one weight must be positive")
    array = array / largest  # so that the sum cannot overflow
    array = array / array.sum()
    return np.where(array < np.finfo(float).tiny, 0.0, array)


# --- numbers ---


def as_interval(
    value: ArrayLike, name: str, low: float, high: float, allowed: str | None = None
) -> FloatOrArray:
    """A number, or an array of numbers, in [low, high]; else ValueError, which says `allowed`.

    >>> as_interval([0.5, 1.5], "alpha", 0, 1)
    Traceback (most recent call last):
    ValueError: alpha is 1.5; allowed is [0, 1]
    """
    array = as_array(value, name)
    if array.dtype.kind not in "fiub":
        kinds = f"a number in [{low:g}, {high:g}]" if allowed is None else allowed
        raise ValueError(f"{name} is {value!r}; allowed is {kinds}")
    array = array.astype(float)
    inside = (array >= low) & (array <= high)  # also false for NaN
    if not np.all(inside):
        worst = array[~inside].flat[0]
        raise ValueError(f"{name} is {worst:g}; allowed is {_range(low, high, allowed)}")
    return array[()]


def as_number(
    value: ArrayLike, name: str, low: float, high: float, allowed: str | None = None
) -> float:
    """One number in [low, high]; else ValueError, which says `allowed`.

    >>> as_number([0.5, 0.6], "alpha", 0, 1)
    Traceback (most recent call last):
    ValueError: alpha has shape (2,); allowed is one number, [0, 1]
    """
    array = as_interval(value, name, low, high, allowed)
    if np.ndim(array):
        raise ValueError(
            f"{name} has shape {array.shape}; allowed is one number, {_range(low, high, allowed)}"
        )
    return float(array)


def as_count(value: Any, name: str, at_least: int = 1, at_most: int = LARGEST_COUNT) -> int:
    """An integer from `at_least` to `at_most`; ValueError for anything else, True and 2.0 included.

    >>> as_count(0, "n_datasets")
    Traceback (most recent call last):
    ValueError: n_datasets is 0; allowed is an integer of at least 1
    >>> as_count(10**10, "k", at_most=1000)
    Traceback (most recent call last):
    ValueError: k is 10000000000; allowed is an integer of at most 1,000
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise ValueError(f"{name} is {value!r}; allowed is an integer of at least {at_least}")
    if value > at_most:
        n_bits = int(value).bit_length()
        shown = f"{value}" if n_bits <= 64 else f"about 2^{n_bits}"
        raise ValueError(f"{name} is {shown}; allowed is an integer of at most {at_most:,}")
    return int(value)


def check_size(numbers: float, what: str, most: int = MOST_NUMBERS) -> None:
    """ValueError where one call would hold more than `most` numbers; `what` says of what.

    >>> check_size(25 * 10**10, "10000000000 datasets of 25 experts")
    Traceback (most recent call last):
    ValueError: 10000000000 datasets of 25 experts are too many to hold at once; allowed are \
134,217,728 numbers
    """
    if numbers > most:
        raise ValueError(f"{what} are too many to hold at once; allowed are {most:,} numbers")


# --- what the checks above share ---


def _range(low: float, high: float, allowed: str | None) -> str:
    return f"[{low:g}, {high:g}]" if allowed is None else allowed


def as_array(value: Any, name: str) -> np.ndarray:
    """Whatever holds numbers as an array in the machine's byte order, at least 32 bits a float.

    >>> as_array(np.ma.masked_array([1, 2], [True, False]), "labels")
    Traceback (most recent call last):
    ValueError: labels is a masked array, whose hidden numbers mean nothing; allowed are \
plain ones: drop the masked rows, or fill them by its filled(...)
    """
    if _is_masked(value):
        raise ValueError(
            f"{name} is a masked array, whose hidden numbers mean nothing; allowed are plain ones: "
            "drop the masked rows, or fill them by its filled(...)"
        )
    if type(value).__module__.partition(".")[0] == "torch":
        value = _from_torch(value)
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} is no rectangular array of numbers: {error}") from None
    if array.dtype.kind == "O":
        array = _from_objects(array, name)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _is_masked(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(part, np.ma.MaskedArray) for part in value)
    return isinstance(value, np.ma.MaskedArray)


def _from_torch(tensor: Any) -> Any:
    """A tensor that NumPy takes: on the CPU, without gradient, in a type that NumPy has."""
    tensor = tensor.detach().cpu()
    return tensor.float() if "bfloat16" in str(tensor.dtype) else tensor


def _from_objects(array: np.ndarray, name: str) -> np.ndarray:
    """Floats of an array of Python objects, such as a data frame of mixed columns gives."""
    for place, entry in np.ndenumerate(array):
        if not isinstance(entry, (Real, np.bool_)):
            raise ValueError(f"{name} holds {entry!r} at {place}; allowed are real numbers")
    return array.astype(float)


def _as_finite(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {array.dtype}; allowed are real numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} holds {array[bad]} at {bad}; all entries must be finite")
    return array


def _as_moderate(array: np.ndarray, name: str) -> np.ndarray:
    """A finite array whose entries are at most `LARGEST` in size."""
    if array.dtype.kind != "f" or not array.size:
        return array
    low = float(array.min())
    high = float(array.max())
    if max(-low, high) > LARGEST * (1 + 1e-9):  # a mean of the largest may be rounded up
        worst = high if high > -low else low
        raise ValueError(
            f"{name} holds {worst:.3g}; allowed are numbers up to {LARGEST:g} in size, whose sums "
            "are finite: scale them"
        )
    return array


def _as_nonnegative(p: ArrayLike, name: str) -> np.ndarray:
    array = _as_finite(as_array(p, name), name).astype(float, copy=False)
    if array.size and array.min() < 0:
        raise ValueError(f"{name} holds {array.min():.3g}; entries must not be negative")
    return array
