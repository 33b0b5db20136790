"""Hundreds of small banks on MNIST-1D, by three numbers each: how far the experts' risks spread,
how much one image's losses say about who is better, and their mean error.

`training.small_banks` made them. With m images the ratio of spread to noise is
`sqrt(m) spread / noise`: what selection can learn from a sample.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from expertbank._checks import as_losses
from expertbank._files import read_arrays, reading
from expertbank.shipped.manifest import open_sealed

SMALL_BANKS_FILE = "small_banks.npz"
SMALL_SIZES = (4, 8, 16, 32)  # experts of a bank
SMALL_SAMPLES = (16, 64, 256, 1024)  # images of a sample
# the longest over the shortest training of a bank's experts
SMALL_RATIOS = (1, 3, 9)


@dataclass(frozen=True)
class SmallBanks:
    """B banks of MNIST-1D, at S sizes of bank and M sizes of sample. Empirical risk minimisation,
    the pool as population."""

    ratios: np.ndarray
    """longest over shortest training (B,)"""
    errors: np.ndarray
    """mean error (B, S)"""
    spreads: np.ndarray
    """standard deviation of the experts' risks (B, S)"""
    noises: np.ndarray
    """see `spread_and_noise` (B, S)"""
    information: np.ndarray
    """I(S;W) in nats (B, S, M)"""
    gaps: np.ndarray
    """expected gap (B, S, M)"""

    @property
    def kappas(self) -> np.ndarray:
        """Spread over the noise of a sample, (B, S, M)."""
        sizes = np.sqrt(SMALL_SAMPLES)
        return (self.spreads / self.noises)[:, :, None] * sizes

    @property
    def scaled_gaps(self) -> np.ndarray:
        """Gaps in units of the noise of a sample, (B, S, M)."""
        return self.gaps * np.sqrt(SMALL_SAMPLES) / self.noises[:, :, None]


def spread_and_noise(losses: np.ndarray) -> tuple[float, float]:
    """Standard deviation over experts of their risks on all inputs, and what one input adds to the
    difference of two of them, over sqrt 2: the root of mean variance less mean covariance of the
    columns of losses (N, R).

    >>> spread, noise = spread_and_noise(np.array([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    >>> round(spread, 4), round(noise, 4)
    (0.1768, 0.677)
    """
    losses = as_losses(losses)
    covariance = np.cov(losses.T)
    n_experts = len(covariance)
    own = np.trace(covariance)
    shared = (covariance.sum() - own) / (n_experts * (n_experts - 1))
    return float(losses.mean(axis=0).std(ddof=1)), float(np.sqrt(own / n_experts - shared))


def load_small_banks(folder: str | os.PathLike | None = None) -> SmallBanks:
    """The shipped small banks, or those of a folder, after checking their hashes.

    Raises FileNotFoundError where they are missing, ValueError where they are damaged.

    >>> banks = load_small_banks()
    >>> banks.information.shape == (len(banks.ratios), 4, 4)
    True
    """
    _, _, (path,) = open_sealed(folder, "small-banks", [SMALL_BANKS_FILE])
    with reading(path):
        return SmallBanks(**read_arrays(path))
