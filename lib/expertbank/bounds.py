"""Bounds on the expected generalisation gap of a learner that selects from a bank. Losses in [0, 1], nats."""

from __future__ import annotations

import numpy as np

from expertbank._checks import as_count, as_interval


def xu_raginsky_bound(information, sample_size: int, sigma: float = 0.5):
    """sigma sqrt(2 I(S;W) / m): P1 Theorem 1 and P2 (21) with sigma = 1 (Xu & Raginsky 2017).

    A loss in [0, 1] is sigma-sub-Gaussian with sigma = 1/2 (Hoeffding's lemma), which is the default here.
    """
    information = _nonnegative(information, "information")
    return _positive(sigma, "sigma") * np.sqrt(2 * information / as_count(sample_size, "sample_size"))


def union_bound(n_candidates: int, sample_size: int) -> float:
    """sqrt(log R / (2m)): P2 (22), the bound in expectation for any selection among R candidates."""
    n_candidates = as_count(n_candidates, "n_candidates")
    return float(np.sqrt(np.log(n_candidates) / (2 * as_count(sample_size, "sample_size"))))


def theorem2_bound(distortion, information, sample_size: int, excess=0.0, sigma: float = 0.5):
    """D(R_g) + delta_m + sigma sqrt(2 I(S;W)/m): P1 Theorem 2, (10), with `excess` the delta_m of (8)."""
    return (
        _nonnegative(distortion, "distortion")
        + _nonnegative(excess, "excess")
        + xu_raginsky_bound(information, sample_size, sigma)
    )


def _nonnegative(value, name: str):
    return as_interval(value, name, 0, np.inf, allowed="a number >= 0")


def _positive(value, name: str):
    if not np.all(_nonnegative(value, name) > 0):
        raise ValueError(f"{name} is {value}; allowed is a number > 0")
    return value
