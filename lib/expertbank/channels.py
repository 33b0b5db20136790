"""Closed forms for private, noisy and capacity-limited gates.

Rates and capacities are in nats per use. What is elementwise takes a number or an array and returns
the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import ABOVE_0, BELOW_1, FloatOrArray, as_count, as_interval, as_number
from expertbank.information import (
    MARGIN,
    TINY,
    below_log_2,
    binary_divergence,
    bracketed_root,
    chance_of_entropy,
    divergence_terms,
    largest_drop,
    log_choices,
)

MOST_LETTERS = 10_000  # of a channel that is written down
MOST_USES = 10**9  # of a short word, whose numbers of flips are gone through one by one

# --- what a link carries ---


def bsc_rate(crossover: ArrayLike) -> FloatOrArray:
    """log 2 - h(p): information through a binary symmetric channel, and its capacity.

    The input is uniform; elementwise for a crossover probability p in [0, 1], else ValueError.

    >>> bsc_rate([0.0, 0.11, 0.5]).round(4).tolist()
    [0.6931, 0.3466, 0.0]
    """
    p = as_interval(crossover, "crossover", 0, 1)
    return binary_divergence(p, 1 - p, 0.5, 0.5, 0.5 - p)[()]


def bsc_distortion_rate(rate: ArrayLike) -> FloatOrArray:
    """D(R) = h^-1(log 2 - R) of a uniform bit under Hamming loss; 0 from R = log 2 on.

    Used in P1 (13). Elementwise for a rate >= 0 in nats, else ValueError. Rounded down, within a
    relative 1e-12: no gate of that rate loses less. The inverse of `bsc_rate` on [0, 1/2]:

    >>> round(float(bsc_distortion_rate(bsc_rate(0.1))), 4)
    0.1
    """
    nats = as_interval(rate, "rate", 0, np.inf, allowed="a number >= 0")
    return chance_of_entropy(below_log_2(nats), np.minimum(nats, np.log(2)))


def symmetric_channel(k: int, error: float) -> np.ndarray:
    """The k-ary symmetric channel (k, k): right with probability 1-p, p = `error`.

    A wrong letter is uniform on the k-1 others. Raises ValueError for k below 2 or p outside
    [0, 1].

    >>> symmetric_channel(3, 0.5).tolist()
    [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    """
    k = as_count(k, "k", at_least=2, at_most=MOST_LETTERS)
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
    return binary_divergence(p, 1 - p, 1 - 1 / k, 1 / k, _below_guessing(k, p))[()]


def uniform_rate(distortion: ArrayLike, k: int) -> FloatOrArray:
    """R(D) of a uniform letter among k under Hamming loss; 0 from D = 1 - 1/k on.

    Elementwise for a distortion in [0, 1]. Raises ValueError for k below 2 or a distortion outside
    [0, 1].

    >>> uniform_rate([0.0, 0.1, 0.9], k=4).round(4).tolist()
    [1.3863, 0.9514, 0.0]
    """
    k = as_count(k, "k", at_least=2)
    error = as_interval(distortion, "distortion", 0, 1)
    return np.where(_below_guessing(k, error) > 0, symmetric_capacity(k, error), 0.0)[()]


def erasure_channel(k: int, erased: float) -> np.ndarray:
    """The k-ary erasure channel (k, k+1): the letter arrives, or output k says that it was lost.

    Raises ValueError for k below 1 or a probability `erased` outside [0, 1].

    >>> erasure_channel(2, 0.25).tolist()
    [[0.75, 0.0, 0.25], [0.0, 0.75, 0.25]]
    """
    k = as_count(k, "k", at_most=MOST_LETTERS)
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
    # the capacity of that symmetric channel, which errs less than guessing by `gap`
    eps = _privacy(epsilon)
    wrong = (k - 1) * np.exp(-eps)
    gap = (k - 1) * -np.expm1(-eps) / (k * (1 + wrong))
    return binary_divergence(wrong / (1 + wrong), 1 / (1 + wrong), 1 - 1 / k, 1 / k, gap)[()]


def ldp_rate_cap(k: int, epsilon: ArrayLike) -> FloatOrArray:
    """min(eps, log k): no eps-LDP gate over k experts has a larger I(X;T).

    Elementwise for epsilon >= 0. Raises ValueError for k below 1 or epsilon below 0.

    >>> ldp_rate_cap(25, [1.0, 10.0]).round(4).tolist()
    [1.0, 3.2189]
    """
    return np.minimum(_privacy(epsilon), np.log(as_count(k, "k")))


def ldp_sharp_cap(epsilon: ArrayLike) -> FloatOrArray:
    """Z - 1 - log Z, Z = eps/(1 - e^-eps): a smaller limit on eps-LDP rates.

    About eps^2/8 for small eps. Rounded up, within a relative 1e-12. Elementwise for epsilon >= 0,
    else ValueError.

    >>> ldp_sharp_cap([0.1, 1.0]).round(5).tolist()
    [0.00125, 0.1233]
    """
    eps = _privacy(epsilon)
    lost = -np.expm1(-eps)
    # Z = 1 + rise, without the differences that small eps leaves to rounding
    above = np.where(eps < 1, divergence_terms(1.0, np.exp(-eps), -lost), eps - lost)
    rise = above / np.maximum(lost, TINY)
    with np.errstate(invalid="ignore"):  # inf - inf
        cap = divergence_terms(1.0, 1 + rise, rise) * (1 + MARGIN)
    return np.where(eps < np.inf, cap, np.inf)[()]


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

    Source: Asoodeh & Zhang (2024). Elementwise for epsilon >= 0, else ValueError.

    >>> round(float(ldp_contraction(1.0)), 4)
    0.2136
    """
    return np.tanh(_privacy(epsilon) / 2) ** 2


# --- what short words carry ---


def bsc_blocklength(n_uses: int, crossover: float, block_error: float) -> float:
    """Nats that n uses of a BSC carry: nC - sqrt(nV) Q^-1(error) + (1/2) log n, approximately.

    The normal approximation of Polyanskiy, Poor & Verdu (2010), V = p(1-p) log^2((1-p)/p), kept
    between 0 and what no code exceeds, see `bsc_blocklength_bracket`. Without dispersion it is nC:
    n log 2 without noise, and 0 at p = 1/2, where the output ignores the input. Raises ValueError
    for a crossover outside [0, 1/2] or a block error outside (0, 1).

    >>> round(bsc_blocklength(100, crossover=0.05, block_error=1e-3), 2)
    31.93
    >>> round(100 * float(bsc_rate(0.05)), 2)  # the capacity of as many uses
    49.46
    """
    n, p, error = _short_word(n_uses, crossover, block_error)
    nats = n * bsc_rate(p)
    dispersion = symmetric_dispersion(2, p)
    if dispersion > 0:
        nats += np.sqrt(n * dispersion) * scipy.special.ndtri(error) + np.log(n) / 2
    return float(np.clip(nats, 0.0, _converse_nats(_flips(n, p), error)))


def bsc_blocklength_bracket(
    n_uses: int, crossover: float, block_error: float
) -> tuple[float, float]:
    """Nats that some code carries over n uses of a BSC, and nats that no code exceeds.

    For equally likely words and their mean error: the random coding union bound and the
    meta-converse (Polyanskiy, Poor & Verdu 2010, Theorems 33 and 35). Both are logarithms of
    numbers M that need not be whole: round M down. Rounded outwards, by 1e-11 at n = 1000. Raises
    ValueError as `bsc_blocklength` does.

    >>> low, high = bsc_blocklength_bracket(100, crossover=0.05, block_error=1e-3)
    >>> round(low, 2), round(high, 2)
    (31.57, 33.27)
    """
    n, p, error = _short_word(n_uses, crossover, block_error)
    flips = _flips(n, p)
    most = _converse_nats(flips, error)

    def union_error(nats):
        return _union_error(flips, nats)

    least, _ = bracketed_root(union_error, error, error / 2, most)
    return float(least), most


def bsc_error_bracket(n_uses: int, log_messages: float, crossover: float) -> tuple[float, float]:
    """The error below which no code brings M equally likely words over n uses of a BSC, and one
    that some code reaches.

    `log_messages` is log M in nats. The bounds of `bsc_blocklength_bracket`, solved for the error.
    Raises ValueError for log M below 0 or a crossover outside [0, 1/2].

    The 32 words of the Reed-Muller code of length 16 fail with probability .0423; others may do
    better, by no more than this:

    >>> [round(error, 4) for error in bsc_error_bracket(16, np.log(32), crossover=0.1)]
    [0.0302, 0.1359]
    """
    n, p, _ = _short_word(n_uses, crossover, 0.5)
    nats = as_number(log_messages, "log_messages", 0, np.inf, allowed="a number >= 0")
    flips = _flips(n, p)
    # M disjoint sets of received words: the right ones are at best the likeliest 1/M of all words
    last = int(np.searchsorted(flips.log_ball, -nats))
    beyond = flips.tail[last + 1]
    if last < len(flips.chance):
        left = -np.expm1(-nats - flips.log_ball[last])
        shell = np.exp(flips.log_shell[last] - flips.log_ball[last])
        beyond += flips.chance[last] * min(1.0, left / shell)
    reached = float(_union_error(flips, nats))
    return min(float(beyond * (1 - flips.rounding)), reached), reached


class _Flips(NamedTuple):
    """By the number t of flips (T,) in words of n bits: rows of increasing t."""

    chance: np.ndarray
    """that the channel makes t flips"""
    tail: np.ndarray
    """that it makes at least t; one more entry, and another, for none that is left"""
    log_shell: np.ndarray
    """log of the share of all words that lie t flips away"""
    log_ball: np.ndarray
    """log of the share that lie at most t flips away"""
    rounding: float
    """relative, of all of these"""


def _flips(n: int, p: float) -> _Flips:
    # others are less likely than any number
    reach = 40 * int(np.sqrt(n)) + 40
    t = np.arange(max(0, int(n * p) - reach), min(n, int(n * p) + reach) + 1)
    log_number = log_choices(n, t)
    log_chance = scipy.special.xlogy(t, p) + scipy.special.xlog1py(n - t, -p)
    chance = np.exp(log_number + log_chance)
    log_shell = log_number - n * np.log(2)
    tail = np.append(chance[::-1].cumsum()[::-1], [0.0, 0.0])
    log_ball = np.logaddexp.accumulate(log_shell)
    # of log n!, whose size is n log n
    rounding = 8 * np.finfo(float).eps * n * np.log(n + 1)
    return _Flips(chance, tail, log_shell, log_ball, rounding)


def _converse_nats(flips: _Flips, error: float) -> float:
    """Minus the log of the least share of all words that receives with 1 - error."""
    error = min(BELOW_1, error * (1 + flips.rounding))
    last = int(np.argmax(flips.tail[1:] <= error))  # the flips that are forgiven in part
    forgiven = min(BELOW_1, (error - flips.tail[last + 1]) / flips.chance[last])
    shell = np.exp(flips.log_shell[last] - flips.log_ball[last])
    return float(flips.rounding - flips.log_ball[last] - np.log1p(-forgiven * shell))


def _union_error(flips: _Flips, nats: FloatOrArray) -> FloatOrArray:
    """E min(1, (M - 1) times the share of words as near as the right one), at most 1 - 1/M."""
    others = -np.expm1(-nats)  # 1 - 1/M
    with np.errstate(divide="ignore"):
        log_union = nats + np.log(others) + flips.log_ball
    error = flips.chance @ np.exp(np.minimum(log_union, 0))
    return np.minimum(others, error * (1 + flips.rounding))


def _short_word(n_uses: int, crossover: float, block_error: float) -> tuple[int, float, float]:
    n = as_count(n_uses, "n_uses", at_most=MOST_USES)
    p = as_number(crossover, "crossover", 0, 0.5)
    error = as_number(block_error, "block_error", ABOVE_0, BELOW_1, allowed="(0, 1)")
    return n, p, error


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
    with np.errstate(over="ignore"):
        above_1 = k * _below_guessing(k, p) / inside  # odds - 1, to all digits
    near = np.log1p(np.clip(above_1, -0.5, 0.5))
    far = np.log1p(-inside) + np.log(k - 1) - np.log(inside)
    log_odds = np.where(np.abs(above_1) < 0.5, near, far)
    return np.where((p > 0) & (p < 1), p * (1 - p) * log_odds**2, 0.0)[()]


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
    """Approximate least block error when M = exp(log_messages) messages cross n uses of a channel.

    Q((nC + log_term log n - log M) / sqrt(nV)), elementwise in capacity C (nats) and dispersion V
    (nats^2): the normal approximation of Polyanskiy, Poor & Verdu (2010), solved for the error.
    log_term is 1/2 for symmetric channels and 0 for erasure channels. It is kept at or above what
    Fano's inequality allows, and at or below 1 - 1/M, the error of guessing. Without dispersion the
    right message is among exp(nC) that look alike, and the error is 1 - exp(nC)/M or 0. At short
    lengths it is no bound: see `bsc_error_bracket`. Raises ValueError where one of them is below 0.

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
    alike = -np.expm1(np.minimum(mean - nats, 0))
    with np.errstate(divide="ignore", invalid="ignore"):  # no dispersion
        error = np.where(variance > 0, scipy.special.ndtr(-room / np.sqrt(variance)), alike)
    guessing = -np.expm1(-nats)
    one_of_many = max(np.exp(-nats), TINY)
    fano = guessing - largest_drop(guessing, one_of_many, mean)
    return np.clip(error, fano, guessing)[()]


def _below_guessing(k: int, error: FloatOrArray) -> FloatOrArray:
    """1 - 1/k - error to all digits, also where little is left."""
    right = 1 - error
    # halves of `right` whose products with k are exact
    coarse = np.asarray(right, dtype=np.float32).astype(float)
    left = (coarse * k - 1 + (right - coarse) * k) / k
    return np.where(error < 0.5, 1 - 1 / k - error, left)  # there `right` is rounded


def _privacy(epsilon: ArrayLike) -> FloatOrArray:
    return as_interval(epsilon, "epsilon", 0, np.inf, allowed="a number >= 0")
