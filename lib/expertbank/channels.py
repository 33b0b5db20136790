"""Closed forms for private, noisy and capacity-limited gates.

Rates and capacities are in nats per use. What is elementwise takes a number or an array and returns
the same.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import ABOVE_0, BELOW_1, FloatOrArray, as_count, as_interval, as_number
from expertbank.information import binary_entropy, binary_entropy_inverse

# --- what a link carries ---


def bsc_rate(crossover: ArrayLike) -> FloatOrArray:
    """log 2 - h(p): information through a binary symmetric channel, and its capacity.

    The input is uniform; elementwise for a crossover probability p in [0, 1], else ValueError.

    >>> bsc_rate([0.0, 0.11, 0.5]).round(4).tolist()
    [0.6931, 0.3466, 0.0]
    """
    return np.log(2) - binary_entropy(crossover)


def bsc_distortion_rate(rate: ArrayLike) -> FloatOrArray:
    """D(R) = h^-1(log 2 - R) of a uniform bit under Hamming loss; 0 from R = log 2 on.

    Used in P1 (13). Elementwise for a rate >= 0 in nats, else ValueError. The inverse of `bsc_rate`
    on [0, 1/2]:

    >>> round(float(bsc_distortion_rate(bsc_rate(0.1))), 4)
    0.1
    """
    nats = as_interval(rate, "rate", 0, np.inf, allowed="a number >= 0")
    return binary_entropy_inverse(np.maximum(np.log(2) - nats, 0))


def symmetric_channel(k: int, error: float) -> np.ndarray:
    """The k-ary symmetric channel (k, k): right with probability 1-p, p = `error`.

    A wrong letter is uniform on the k-1 others. Raises ValueError for k below 2 or p outside
    [0, 1].

    >>> symmetric_channel(3, 0.5).tolist()
    [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    """
    k = as_count(k, "k", at_least=2)
    error = as_number(error, "error", 0, 1)
    return np.where(np.eye(k, dtype=bool), 1 - error, error / (k - 1))


def symmetric_capacity(k: int, error: ArrayLike) -> FloatOrArray:
    """log k - h(p) - p log(k-1), the capacity of the k-ary symmetric channel.

    Elementwise for p = `error` in [0, 1]. Raises ValueError for k below 2 or p outside [0, 1].

    >>> symmetric_capacity(4, [0.0, 0.1, 0.75]).round(4).tolist()
    [1.3863, 0.9514, 0.0]
    """
    k = as_count(k, "k", at_least=2)
    p = as_interval(error, "error", 0, 1)
    capacity = np.log(k) - binary_entropy(p) - scipy.special.xlogy(p, k - 1)
    return np.maximum(capacity, 0)  # rounding may go below 0


def uniform_rate(distortion: ArrayLike, k: int) -> FloatOrArray:
    """R(D) of a uniform letter among k under Hamming loss; 0 from D = 1 - 1/k on.

    Elementwise for a distortion in [0, 1]. Raises ValueError for k below 2 or a distortion outside
    [0, 1].

    >>> uniform_rate([0.0, 0.1, 0.9], k=4).round(4).tolist()
    [1.3863, 0.9514, 0.0]
    """
    k = as_count(k, "k", at_least=2)
    error = as_interval(distortion, "distortion", 0, 1)
    return symmetric_capacity(k, np.minimum(error, 1 - 1 / k))


def erasure_channel(k: int, erased: float) -> np.ndarray:
    """The k-ary erasure channel (k, k+1): the letter arrives, or output k says that it was lost.

    Raises ValueError for k below 1 or a probability `erased` outside [0, 1].

    >>> erasure_channel(2, 0.25).tolist()
    [[0.75, 0.0, 0.25], [0.0, 0.75, 0.25]]
    """
    k = as_count(k, "k")
    erased = as_number(erased, "erased", 0, 1)
    return np.hstack([(1 - erased) * np.eye(k), np.full((k, 1), erased)])


def erasure_capacity(k: int, erased: ArrayLike) -> FloatOrArray:
    """(1 - delta) log k, the capacity of the k-ary erasure channel.

    Elementwise for delta = `erased` in [0, 1]. Raises ValueError as `erasure_channel` does.

    >>> round(float(erasure_capacity(4, 0.25)), 4)
    1.0397
    """
    delta = as_interval(erased, "erased", 0, 1)
    return (1 - delta) * np.log(as_count(k, "k"))


# --- what a private gate tells ---


def randomised_response(k: int, epsilon: float) -> np.ndarray:
    """k-ary randomised response (k, k): the true index with probability e^eps/(k-1+e^eps).

    It is eps-LDP. Raises ValueError for k below 2 or epsilon below 0.

    >>> randomised_response(3, np.log(2)).round(4).tolist()
    [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    """
    k = as_count(k, "k", at_least=2)
    epsilon = as_number(epsilon, "epsilon", 0, np.inf, allowed="a number >= 0")
    wrong = (k - 1) * np.exp(-epsilon)
    return symmetric_channel(k, float(wrong / (1 + wrong)))


def randomised_response_rate(k: int, epsilon: ArrayLike) -> FloatOrArray:
    """log k - log(k-1+e^eps) + eps e^eps/(k-1+e^eps): I(T; T_hat) of randomised response.

    For a uniform index; elementwise for epsilon >= 0. Raises ValueError as `randomised_response`
    does.

    >>> randomised_response_rate(3, [0.0, 1.0, np.inf]).round(4).tolist()
    [0.0, 0.1233, 1.0986]
    """
    k = as_count(k, "k", at_least=2)
    # both terms divided by e^eps, so that large epsilon cannot overflow; entr(e^-eps) is eps
    # e^-eps, 0 at inf
    kept = np.exp(-_privacy(epsilon))
    wrong = (k - 1) * kept
    rate = np.log(k) - np.log1p(wrong) - (k - 1) * scipy.special.entr(kept) / (1 + wrong)
    return np.maximum(rate, 0)


def ldp_rate_cap(k: int, epsilon: ArrayLike) -> FloatOrArray:
    """min(eps, log k): no eps-LDP gate over k experts has a larger I(X;T).

    Elementwise for epsilon >= 0. Raises ValueError for k below 1 or epsilon below 0.

    >>> ldp_rate_cap(25, [1.0, 10.0]).round(4).tolist()
    [1.0, 3.2189]
    """
    return np.minimum(_privacy(epsilon), np.log(as_count(k, "k")))


def ldp_sharp_cap(epsilon: ArrayLike) -> FloatOrArray:
    """Z - 1 - log Z, Z = eps/(1 - e^-eps): a smaller limit on eps-LDP rates.

    About eps^2/8 for small eps. Elementwise for epsilon >= 0, else ValueError.

    >>> ldp_sharp_cap([0.1, 1.0]).round(5).tolist()
    [0.00125, 0.1233]
    """
    eps = _privacy(epsilon)
    small = eps < 1e-3  # there the difference would be rounding
    large = np.where(small, 1.0, eps)
    z = large / -np.expm1(-large)
    return np.where(small, eps**2 / 8, z - 1 - np.log(z))[()]


def bsc_contraction(crossover: ArrayLike) -> FloatOrArray:
    """(1-2p)^2: I(X;T_hat) is at most this share of I(X;T) when a binary T crosses a BSC.

    Elementwise for p = `crossover` in [0, 1], else ValueError.

    >>> round(float(bsc_contraction(0.1)), 4)
    0.64
    """
    p = as_interval(crossover, "crossover", 0, 1)
    return (1 - 2 * p) ** 2


def ldp_contraction(epsilon: ArrayLike) -> FloatOrArray:
    """tanh^2(eps/2): the share of `bsc_contraction` for any eps-LDP channel.

    Source: Asoodeh & Zhang (2022). Elementwise for epsilon >= 0, else ValueError.

    >>> round(float(ldp_contraction(1.0)), 4)
    0.2136
    """
    return np.tanh(_privacy(epsilon) / 2) ** 2


# --- what short words carry ---


def bsc_blocklength(n_uses: int, crossover: float, block_error: float) -> float:
    """Nats that n uses of a BSC carry: nC - sqrt(nV) Q^-1(error) + (1/2) log n, at least 0.

    The normal approximation of Polyanskiy, Poor & Verdu (2010), V = p(1-p) log^2((1-p)/p). It needs
    V > 0; without noise the answer is n log 2, and at p = 1/2, where the output ignores the input,
    it is 0. Raises ValueError for a crossover outside [0, 1/2] or a block error outside (0, 1).

    >>> round(bsc_blocklength(100, crossover=0.05, block_error=1e-3), 2)
    31.93
    >>> round(100 * float(bsc_rate(0.05)), 2)  # the capacity of as many uses
    49.46
    """
    n = as_count(n_uses, "n_uses")
    p = as_number(crossover, "crossover", 0, 0.5)
    error = as_number(block_error, "block_error", ABOVE_0, BELOW_1, allowed="(0, 1)")
    if p == 0:
        return float(n * np.log(2))
    if p == 0.5:
        return 0.0
    dispersion = p * (1 - p) * np.log((1 - p) / p) ** 2
    back_off = np.sqrt(n * dispersion) * -scipy.special.ndtri(error)
    return float(max(0.0, n * bsc_rate(p) - back_off + np.log(n) / 2))


def symmetric_dispersion(k: int, error: ArrayLike) -> FloatOrArray:
    """p(1-p) log^2((1-p)(k-1)/p), dispersion of the k-ary symmetric channel, in nats^2.

    The variance of its information density. Elementwise for p = `error` in [0, 1]. Raises
    ValueError as `symmetric_capacity` does.

    >>> round(float(symmetric_dispersion(4, 0.1)), 4)
    0.9776
    """
    k = as_count(k, "k", at_least=2)
    p = as_interval(error, "error", 0, 1)
    inside = np.clip(p, 1e-300, 1 - 1e-16)
    dispersion = p * (1 - p) * np.log((1 - inside) * (k - 1) / inside) ** 2
    return np.where((p > 0) & (p < 1), dispersion, 0.0)[()]


def erasure_dispersion(k: int, erased: ArrayLike) -> FloatOrArray:
    """delta (1-delta) log^2 k, dispersion of the k-ary erasure channel, in nats^2.

    Elementwise for delta = `erased` in [0, 1]. Raises ValueError as `erasure_channel` does.

    >>> round(float(erasure_dispersion(4, 0.25)), 4)
    0.3603
    """
    delta = as_interval(erased, "erased", 0, 1)
    return delta * (1 - delta) * np.log(as_count(k, "k")) ** 2


def block_error(
    n_uses: int,
    log_messages: float,
    capacity: ArrayLike,
    dispersion: ArrayLike,
    log_term: float = 0.5,
) -> FloatOrArray:
    """Approximate least block error when `log_messages` nats cross n uses of a channel.

    Q((nC + log_term log n - log M) / sqrt(nV)), elementwise in capacity C (nats) and dispersion V
    (nats^2): the normal approximation of Polyanskiy, Poor & Verdu (2010), solved for the error.
    log_term is 1/2 for symmetric channels and 0 for erasure channels. Without dispersion it is 0 or
    1. At short lengths it is no bound. Raises ValueError where one of them is below 0.

    One index among 25, sent by three letters of a link that loses one letter in ten:

    >>> capacity = erasure_capacity(25, 0.1)
    >>> dispersion = erasure_dispersion(25, 0.1)
    >>> round(float(block_error(3, np.log(25), capacity, dispersion, log_term=0)), 4)
    0.0005
    """
    n = as_count(n_uses, "n_uses")
    nats = as_number(log_messages, "log_messages", 0, np.inf, allowed="a number >= 0")
    mean = n * as_interval(capacity, "capacity", 0, np.inf, allowed="numbers >= 0")
    variance = n * as_interval(dispersion, "dispersion", 0, np.inf, allowed="numbers >= 0")
    room = mean + log_term * np.log(n) - nats
    certain = np.where(room >= 0, np.inf, -np.inf)  # where there is no dispersion
    steps = np.divide(room, np.sqrt(variance), out=certain, where=variance > 0)
    return scipy.special.ndtr(-steps)


def _privacy(epsilon: ArrayLike) -> FloatOrArray:
    return as_interval(epsilon, "epsilon", 0, np.inf, allowed="a number >= 0")
