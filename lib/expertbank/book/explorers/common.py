"""What the scenes have in common: looks, stops of dials, and datasets that grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from expertbank.book.explorers.dial import Dial

# what a look stands for, in every explorer
FIRST = 0
SECOND = 1
THIRD = 2
RING = 3
FOURTH = 4
LIMIT = 5
PAPER = 5
FIFTH = 6

ALPHA_STOPS = np.arange(101) / 100


def alpha_dial(start: float = 0.7, stops: ArrayLike = ALPHA_STOPS) -> Dial:
    """The dial of an alpha-mixture, over its stops on a page and all values between them beside a
    kernel.

    >>> alpha_dial(stops=[0.1, 0.7, 1]).live
    (0.1, 1.0, 0.01)
    """
    found = np.asarray(stops, dtype=float).tolist()
    return Dial("α, weight of the data", start, found, (found[0], found[-1], 0.01))


def doublings(low: int, high: int, per_octave: int) -> list[float]:
    """Whole numbers from low to high, `per_octave` of them for each doubling.

    >>> doublings(4, 16, 2)
    [4.0, 6.0, 8.0, 11.0, 16.0]
    """
    octaves = np.log2(high / low)
    exponents = np.arange(round(octaves * per_octave) + 1) / per_octave
    return np.unique(np.rint(low * 2**exponents)).tolist()


def with_stops(stops: ArrayLike, *more: float) -> list[float]:
    """Sorted stops with more of them; of two that differ by rounding one is kept.

    >>> with_stops([0.1, 0.3], 0.2, 0.3)
    [0.1, 0.2, 0.3]
    """
    return np.unique(np.round(np.append(stops, more), 12)).tolist()


class GrowingSamples:
    """Empirical risks (M, R) on M datasets that grow: at every size the first points of the same
    draws from a pool (N, R).

    What changes with the size is then the size, and not the luck of new draws. Sizes that are not
    among the prepared ones cost the points since the last prepared one. Losses are `unit` times the
    pool, which as whole numbers is drawn from many times as fast.

    >>> samples = GrowingSamples(np.eye(2), sizes=[4, 8], n_datasets=3)
    >>> samples.risks(8).shape, bool(np.allclose(samples.risks(6).sum(axis=1), 1))
    ((3, 2), True)
    """

    def __init__(
        self,
        pool: np.ndarray,
        sizes: Sequence[float],
        n_datasets: int,
        unit: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.pool = pool
        self.unit = unit
        self.sizes = [0, *(int(size) for size in sizes)]
        shape = (n_datasets, self.sizes[-1])
        self.draws = np.random.default_rng(seed).integers(len(pool), size=shape, dtype=np.int32)
        totals = [np.zeros((n_datasets, pool.shape[1]), np.float32)]
        for low, high in zip(self.sizes, self.sizes[1:]):
            totals.append(totals[-1] + self._sums(low, high))
        self.totals = totals

    def risks(self, size: float) -> np.ndarray:
        """Mean losses (M, R) on the first `size` points."""
        last = int(np.searchsorted(self.sizes, size, side="right")) - 1
        total = self.totals[last] + self._sums(self.sizes[last], int(size))
        return total.astype(float) * self.unit / int(size)

    def _sums(self, low: int, high: int) -> np.ndarray:
        kind = np.float32 if self.pool.dtype.kind == "f" else np.int32
        return self.pool[self.draws[:, low:high]].sum(axis=1, dtype=kind)


@dataclass(frozen=True)
class Winners:
    """Who has the lowest empirical risk on M datasets, from which alpha-mixtures follow."""

    shares: np.ndarray
    """how often each expert wins, (R,)"""
    gap: float
    """mean generalisation gap of the winner, less that of an expert chosen blindly"""
    gap_error: float
    """its standard error over the datasets"""
    n_datasets: int

    def marginal(self, alpha: ArrayLike) -> np.ndarray:
        """Law of W at each alpha, (A, R)."""
        alpha = np.atleast_1d(np.asarray(alpha, dtype=float))[:, None]
        return (1 - alpha) / len(self.shares) + alpha * self.shares

    def information(self, alpha: ArrayLike) -> np.ndarray:
        """I(S;W) at each alpha, (A,), in nats, less its bias by the delta method."""
        alpha = np.atleast_1d(np.asarray(alpha, dtype=float))
        marginal = self.marginal(alpha)
        n_experts = len(self.shares)
        others = (1 - alpha) / n_experts
        given_sample = entr(others + alpha) + (n_experts - 1) * entr(others)
        variance = alpha[:, None] ** 2 * self.shares * (1 - self.shares)
        bias = np.divide(variance, marginal, out=np.zeros_like(marginal), where=marginal > 0)
        found = entr(marginal).sum(axis=1) - given_sample + bias.sum(axis=1) / (2 * self.n_datasets)
        return np.clip(found, 0, np.log(n_experts))


def winners_of(risks: np.ndarray, population: np.ndarray) -> Winners:
    """Who wins on datasets of empirical risks (M, R), and by how much it is flattered against
    population risks (R,).

    >>> found = winners_of(np.array([[0.0, 0.4], [0.4, 0.0]]), np.array([0.2, 0.2]))
    >>> found.shares.tolist(), round(found.gap, 4)
    ([0.5, 0.5], 0.4)
    """
    n_datasets, n_experts = risks.shape
    winner = risks.argmin(axis=1)
    shares = np.bincount(winner, minlength=n_experts) / n_datasets
    flattered = population - risks
    excess = flattered[np.arange(n_datasets), winner] - flattered @ shares
    return Winners(
        shares=shares,
        gap=float(excess.mean()) * n_datasets / (n_datasets - 1),
        gap_error=float(excess.std(ddof=1)) / np.sqrt(n_datasets),
        n_datasets=n_datasets,
    )
