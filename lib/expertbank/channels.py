"""Closed forms for private, noisy and capacity-limited gates. Rates and capacities in nats per
use."""

from __future__ import annotations

import numpy as np
import scipy

from expertbank._checks import ABOVE_0, BELOW_1, as_count, as_interval, as_number
from expertbank.information import binary_entropy, binary_entropy_inverse


def bsc_rate(crossover):
    """log 2 - h(p): information through a binary symmetric channel with uniform input, and its
    capacity."""
    return np.log(2) - binary_entropy(crossover)


def bsc_distortion_rate(rate):
    """D(R) = h^-1(log 2 - R) of a uniform bit under Hamming loss; 0 from R = log 2 on. Used in P1
    (13)."""
    rate = as_interval(rate, "rate", 0, np.inf, allowed="a number >= 0")
    return binary_entropy_inverse(np.maximum(np.log(2) - rate, 0))


def symmetric_channel(k: int, error: float) -> np.ndarray:
    """The k-ary symmetric channel (k, k): right with probability 1-p, else uniform on the k-1 wrong
    letters."""
    k, error = as_count(k, "k", at_least=2), as_number(error, "error", 0, 1)
    return np.where(np.eye(k, dtype=bool), 1 - error, error / (k - 1))


def symmetric_capacity(k: int, error):
    """log k - h(p) - p log(k-1), the capacity of the k-ary symmetric channel."""
    k, error = as_count(k, "k", at_least=2), as_interval(error, "error", 0, 1)
    capacity = np.log(k) - binary_entropy(error) - scipy.special.xlogy(error, k - 1)
    return np.maximum(capacity, 0)  # rounding may go below 0


def uniform_rate(distortion, k: int):
    """R(D) of a uniform letter among k under Hamming loss; 0 from D = 1 - 1/k on."""
    k, distortion = as_count(k, "k", at_least=2), as_interval(distortion, "distortion", 0, 1)
    return symmetric_capacity(k, np.minimum(distortion, 1 - 1 / k))


def erasure_channel(k: int, erased: float) -> np.ndarray:
    """The k-ary erasure channel (k, k+1): the letter arrives, or output k says that it was lost."""
    k, erased = as_count(k, "k"), as_number(erased, "erased", 0, 1)
    return np.hstack([(1 - erased) * np.eye(k), np.full((k, 1), erased)])


def erasure_capacity(k: int, erased):
    """(1 - delta) log k, the capacity of the k-ary erasure channel."""
    return (1 - as_interval(erased, "erased", 0, 1)) * np.log(as_count(k, "k"))


def randomised_response(k: int, epsilon: float) -> np.ndarray:
    """k-ary randomised response (k, k): the true index with probability e^eps/(k-1+e^eps). It is
    eps-LDP."""
    k = as_count(k, "k", at_least=2)
    epsilon = as_number(epsilon, "epsilon", 0, np.inf, allowed="a number >= 0")
    wrong = (k - 1) * np.exp(-epsilon)
    return symmetric_channel(k, float(wrong / (1 + wrong)))


def randomised_response_rate(k: int, epsilon):
    """log k - log(k-1+e^eps) + eps e^eps/(k-1+e^eps): I(T; T_hat) of randomised response for a
    uniform index."""
    k, epsilon = as_count(k, "k", at_least=2), _privacy(epsilon)
    # both terms divided by e^eps, so that large epsilon cannot overflow; entr(e^-eps) is eps
    # e^-eps, 0 at inf
    kept = np.exp(-epsilon)
    wrong = (k - 1) * kept
    return np.maximum(
        np.log(k) - np.log1p(wrong) - (k - 1) * scipy.special.entr(kept) / (1 + wrong), 0
    )


def ldp_rate_cap(k: int, epsilon):
    """min(eps, log k): no eps-LDP gate over k experts has a larger I(X;T)."""
    return np.minimum(_privacy(epsilon), np.log(as_count(k, "k")))


def ldp_sharp_cap(epsilon):
    """Z - 1 - log Z, Z = eps/(1 - e^-eps): a smaller limit on eps-LDP rates, about eps^2/8 for
    small eps."""
    epsilon = _privacy(epsilon)
    small = epsilon < 1e-3  # there the difference would be rounding
    z = np.where(small, 1.0, epsilon) / -np.expm1(-np.where(small, 1.0, epsilon))
    return np.where(small, epsilon**2 / 8, z - 1 - np.log(z))[()]


def bsc_contraction(crossover):
    """(1-2p)^2: I(X;T_hat) is at most this share of I(X;T) when a binary T crosses a BSC."""
    return (1 - 2 * as_interval(crossover, "crossover", 0, 1)) ** 2


def ldp_contraction(epsilon):
    """tanh^2(eps/2): the same for any eps-LDP channel (Asoodeh & Zhang 2022)."""
    return np.tanh(_privacy(epsilon) / 2) ** 2


def bsc_blocklength(n_uses: int, crossover: float, block_error: float) -> float:
    """Nats that n uses of a BSC carry at a block error: nC - sqrt(nV) Q^-1(error) + (1/2) log n, at
    least 0.

    The normal approximation of Polyanskiy, Poor & Verdu (2010), V = p(1-p) log^2((1-p)/p). It needs
    V > 0; without noise the answer is n log 2, and at p = 1/2, where the output ignores the input,
    it is 0.
    """
    n, p = as_count(n_uses, "n_uses"), as_number(crossover, "crossover", 0, 0.5)
    error = as_number(block_error, "block_error", ABOVE_0, BELOW_1, allowed="(0, 1)")
    if p == 0:
        return float(n * np.log(2))
    if p == 0.5:
        return 0.0
    dispersion = p * (1 - p) * np.log((1 - p) / p) ** 2
    return float(
        max(
            0.0,
            n * bsc_rate(p) - np.sqrt(n * dispersion) * -scipy.special.ndtri(error) + np.log(n) / 2,
        )
    )


def symmetric_dispersion(k: int, error):
    """p(1-p) log^2((1-p)(k-1)/p), variance of the information density of the k-ary symmetric
    channel, in nats^2."""
    k, p = as_count(k, "k", at_least=2), as_interval(error, "error", 0, 1)
    inside = np.clip(p, 1e-300, 1 - 1e-16)
    return np.where(
        (p > 0) & (p < 1), p * (1 - p) * np.log((1 - inside) * (k - 1) / inside) ** 2, 0.0
    )[()]


def erasure_dispersion(k: int, erased):
    """delta (1-delta) log^2 k, the same of the k-ary erasure channel."""
    delta = as_interval(erased, "erased", 0, 1)
    return delta * (1 - delta) * np.log(as_count(k, "k")) ** 2


def block_error(n_uses: int, log_messages: float, capacity, dispersion, log_term: float = 0.5):
    """Approximate least block error when `log_messages` nats cross n uses: Q((nC + log_term log n -
    log M) / sqrt(nV)).

    The normal approximation of Polyanskiy, Poor & Verdu (2010), solved for the error; log_term is
    1/2 for symmetric channels and 0 for erasure channels. Without dispersion it is 0 or 1. At short
    lengths it is no bound.
    """
    n, nats = (
        as_count(n_uses, "n_uses"),
        as_number(log_messages, "log_messages", 0, np.inf, allowed="a number >= 0"),
    )
    capacity = as_interval(capacity, "capacity", 0, np.inf, allowed="numbers >= 0")
    dispersion = as_interval(dispersion, "dispersion", 0, np.inf, allowed="numbers >= 0")
    room = n * capacity + log_term * np.log(n) - nats
    steps = np.divide(
        room,
        np.sqrt(n * dispersion),
        out=np.where(room >= 0, np.inf, -np.inf),
        where=dispersion > 0,
    )
    return scipy.special.ndtr(-steps)


def _privacy(epsilon):
    return as_interval(epsilon, "epsilon", 0, np.inf, allowed="a number >= 0")
