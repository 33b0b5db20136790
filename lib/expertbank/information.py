"""Entropies and mutual information of finite channels, of counts, and of the posteriors of
datasets, with what is known of the error of their estimates. Everything in nats."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import (
    ABOVE_0,
    BELOW_1,
    FloatOrArray,
    as_count,
    as_distribution,
    as_gate,
    as_interval,
    as_number,
    as_weights,
    check_size,
)

# at most this many dataset indices are drawn at once by `bootstrap_interval`
RESAMPLED_AT_ONCE = 10_000_000
# of a bracket's logarithm: from a factor of 1e300 down to a rounding
MOST_HALVINGS = 64
# a solution is moved by this share of itself to its safe side; its own rounding is a tenth of it
MARGIN = 1e-13
# what a few sums and products of floats may be off by, relative
ULPS = 4 * float(np.finfo(float).eps)
# the smallest float that has all its digits
TINY = float(np.finfo(float).tiny)
# log 2 less its float
LOG_2_ROUNDED_OFF = 2.3190468138462996e-17


# --- entropies and divergences ---


def entropy(p: ArrayLike, axis: int = -1) -> FloatOrArray:
    """Shannon entropy -sum p log p in nats of distributions along `axis`.

    Raises ValueError for entries that are negative, not finite, or do not sum to 1.

    >>> float(round(entropy([0.5, 0.25, 0.25]), 4))  # 1.5 bits
    1.0397
    """
    return scipy.special.entr(as_distribution(p, "p", axis)).sum(axis=axis)


def binary_entropy(p: ArrayLike) -> FloatOrArray:
    """h(p) = -p log p - (1-p) log(1-p) in nats, elementwise for p in [0, 1]; else ValueError.

    >>> binary_entropy([0, 0.11, 0.5]).round(4).tolist()
    [0.0, 0.3465, 0.6931]
    """
    chance = as_interval(p, "p", 0, 1)
    # the logarithm of 1 - p would lose a small p
    both = scipy.special.entr(chance) - scipy.special.xlog1py(1 - chance, -chance)
    return np.minimum(both, np.log(2))  # rounding may exceed the maximum


def binary_entropy_inverse(h: ArrayLike) -> FloatOrArray:
    """The p in [0, 1/2] with binary_entropy(p) = h, elementwise for h in [0, log 2] nats; else
    ValueError.

    As a limit on what can be lost it is rounded down: within a relative 1e-12, never above p.

    >>> binary_entropy_inverse(binary_entropy([0.01, 0.2])).round(6).tolist()
    [0.01, 0.2]
    """
    h = as_interval(h, "h", 0, np.log(2), allowed="[0, log 2]")
    return chance_of_entropy(h, below_log_2(h))


def below_log_2(nats: FloatOrArray) -> FloatOrArray:
    """log 2 less a number of nats, to the last digit also where little is left; at least 0.

    log 2 as a float, which lies 2.3e-17 below log 2, counts as log 2.

    >>> round(float(below_log_2(0.25)), 12), float(below_log_2(np.log(2)))
    (0.44314718056, 0.0)
    """
    left = np.log(2) - nats
    return np.where(left > 0, left + LOG_2_ROUNDED_OFF, 0.0)[()]


def chance_of_entropy(h: FloatOrArray, shortfall: FloatOrArray) -> FloatOrArray:
    """`binary_entropy_inverse` where log 2 - h = `shortfall` is known as well as h, and the smaller
    of both to all its digits.

    >>> round(0.5 - float(chance_of_entropy(np.log(2), shortfall=2e-20)), 14)
    1e-10
    """
    # small entropies are solved for p: h(p) <= p + p log(1/p) gives the lower end
    spread = 2 - 2 * np.log(np.maximum(h, TINY))
    rare, _ = bracketed_root(binary_entropy, h, h / spread, h / (2 * np.log(2)))

    # others for u = 1 - 2p: near p = 1/2 the entropy is flat and p would lose half its digits
    def missing(u):  # between u^2 / 2 and u^2 log 2
        return binary_divergence((1 - u) / 2, (1 + u) / 2, 0.5, 0.5, u / 2)

    square = np.minimum(shortfall / np.log(2), 1)
    highest = np.minimum(np.sqrt(2 * shortfall), 1)
    _, u = bracketed_root(missing, shortfall, np.sqrt(square), highest)
    below = np.nextafter((1 - np.minimum(u * (1 + MARGIN), 1)) / 2, 0)
    near_half = np.where(u > 0, below, 0.5)
    return np.where(h < 0.35, rare * (1 - MARGIN), near_half)[()]


# --- to full relative accuracy ---


def binary_divergence(
    q: FloatOrArray, not_q: FloatOrArray, p: FloatOrArray, not_p: FloatOrArray, gap: FloatOrArray
) -> FloatOrArray:
    """kl(q || p) of Bernoulli(q) from Bernoulli(p) in nats, to nearly all digits, elementwise.

    `not_q` is 1 - q, `not_p` 1 - p and `gap` p - q: whoever knows them better than subtraction
    would find them gets what 1e-16 between two large probabilities is worth.

    >>> float(binary_divergence(0.5, 0.5, 0.5, 0.5, gap=1e-12)) == 2e-24
    True
    """
    return divergence_terms(q, p, gap) + divergence_terms(not_q, not_p, -gap)


def largest_drop(p: FloatOrArray, not_p: FloatOrArray, budget: FloatOrArray) -> FloatOrArray:
    """The largest g <= p with kl(p - g || p) <= budget nats, elementwise; `not_p` is 1 - p.

    Within a relative 1e-12 and never below: how far a mean can fall at that price.

    >>> round(float(largest_drop(0.5, 0.5, np.log(2) / 2)), 4)  # 1/2 - .11, where h is half a bit
    0.39
    """

    def spent(g):
        return binary_divergence(p - g, not_p + g, p, not_p, g)

    # kl is convex in its first argument, and Pinsker's inequality gives the upper end
    most = spent(p)
    share = np.minimum(budget, most) / np.maximum(most, TINY)
    highest = np.minimum(p, np.sqrt(budget / 2) * (1 + ULPS))
    _, drop = bracketed_root(spent, budget, p * share, highest)
    # a sure event stays sure
    return np.where(not_p > 0, np.minimum(drop * (1 + MARGIN), highest), 0.0)[()]


def largest_rise(q: FloatOrArray, not_q: FloatOrArray, budget: FloatOrArray) -> FloatOrArray:
    """The largest g <= 1 - q with kl(q || q + g) <= budget nats, elementwise; `not_q` is 1 - q.

    Within a relative 1e-12 and never below.

    >>> float(largest_rise(0.0, 1.0, 1e-30)) >= 1e-30  # 1 - exp(-budget)
    True
    """

    def spent(g):
        return binary_divergence(q, not_q, q + g, not_q - g, g)

    lowest = -not_q * np.expm1(-budget)  # what it is at q = 0
    highest = np.minimum(not_q, np.sqrt(budget / 2)) * (1 + ULPS)
    _, rise = bracketed_root(spent, budget, lowest, highest)
    return np.minimum(rise * (1 + MARGIN), highest)[()]


def divergence_terms(x: FloatOrArray, y: FloatOrArray, step: FloatOrArray) -> FloatOrArray:
    """x log(x/y) - x + y elementwise for y = x + step, all >= 0: a divergence in terms that never
    cancel.

    Summed over the outcomes of two distributions they are KL(x || y), which no rounding takes below
    0.

    >>> p, q = np.array([0.5, 0.5]), np.array([0.75, 0.25])
    >>> round(float(divergence_terms(p, q, q - p).sum()), 6), round(float(kl_divergence(p, q)), 6)
    (0.143841, 0.143841)
    """
    # with z = step / (x + y) it is step z (1 - (1 - z) (z/3 + z^3/5 + ...))
    z = step / np.maximum(x + y, TINY)
    small = np.abs(z) < 0.05
    square = np.where(small, z * z, 0)
    series = 1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9 + square * (1 / 11))))
    near = step * z * (1 - (1 - z) * z * series)
    return np.maximum(np.where(small, near, scipy.special.rel_entr(x, y) + step), 0.0)


def divergences_from_mixture(
    rows: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mixture (R,) of distributions (N, R) under weights (N,), and KL(row || mixture) of each
    in nats, (N,).

    All divergences of the library that are from a mixture are made here: finite, 0 where the rows
    are alike, and 0 for rows of weight 0, which have no part in it.

    >>> mixture, divergences = divergences_from_mixture(np.full((5, 2), 0.5), np.full(5, 0.2))
    >>> mixture.tolist(), divergences.tolist()
    ([0.5, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0])
    """
    used = weights > 0
    part = rows if used.all() else rows[used]
    highest = part.max(axis=0)
    # rounding may take it out of the rows' range
    mixture = np.clip(weights @ rows, part.min(axis=0), highest)
    # what is small in a row of small weight may be rounded to 0
    mixture = np.where(mixture > 0, mixture, np.minimum(highest, TINY))
    divergences = divergence_terms(rows, mixture, mixture - rows).sum(axis=-1)
    return mixture, np.where(used, divergences, 0.0)


def mean_error(values: np.ndarray) -> float:
    """Standard error of the mean of independent values (n,), of any size; infinite for one value.

    >>> mean_error(np.array([1e200, 3e200])), mean_error(np.ones(1))
    (1e+200, inf)
    """
    if len(values) < 2:
        return np.inf
    size = max(float(np.abs(values).max()), TINY)  # so that the squares neither overflow nor vanish
    return float((values / size).std(ddof=1) / np.sqrt(len(values))) * size


def log_choices(n: ArrayLike, k: ArrayLike) -> FloatOrArray:
    """log of the number of ways to choose k of n things, elementwise; -inf where there is none.

    The laws of counts follow from it; unlike `scipy.stats` it loads in no time, in a browser too.

    >>> np.exp(log_choices(4, [0, 1, 2, 5])).round(9).tolist()
    [1.0, 4.0, 6.0, 0.0]
    """
    n, k = np.broadcast_arrays(n, k)
    possible = (k >= 0) & (k <= n)
    chosen = np.where(possible, k, 0)
    logs = -scipy.special.betaln(n - chosen + 1, chosen + 1) - np.log1p(n)
    return np.where(possible, logs, -np.inf)


def independence_divergence(joint: np.ndarray) -> np.ndarray:
    """KL in nats of joint laws (..., A, B) from the products of their margins, (...,): I(A;B).

    >>> independence_divergence(np.eye(2) / 2).round(4).tolist()
    0.6931
    """
    rows = joint.sum(axis=-1, keepdims=True)
    # a single row has all of it, to the last digit
    product = rows / rows.sum(axis=-2, keepdims=True) * joint.sum(axis=-2, keepdims=True)
    product = np.where(joint > 0, np.maximum(product, TINY), product)  # it may be rounded to 0
    return divergence_terms(joint, product, product - joint).sum(axis=(-2, -1))


def bracketed_root(
    increasing: Callable[[np.ndarray], np.ndarray],
    target: FloatOrArray,
    low: FloatOrArray,
    high: FloatOrArray,
) -> tuple[np.ndarray, np.ndarray]:
    """Both ends (low, high), a rounding apart, of the step in which `increasing` reaches `target`.

    Elementwise, for 0 <= low <= high around the root, by bisection of the logarithm: the root has
    all its digits whether it is 1 or 1e-300, and the caller takes the end that is safe.

    >>> squares = np.array([4e-60, 4.0])
    >>> low, high = bracketed_root(np.square, squares, low=1e-40, high=3.0)
    >>> [f"{root:.9g}" for root in high], bool(((low**2 < squares) & (squares <= high**2)).all())
    (['2e-30', '2'], True)
    """
    target, low, high = np.broadcast_arrays(np.asarray(target, dtype=float), low, high)
    for _ in range(MOST_HALVINGS):
        middle = np.sqrt(low) * np.sqrt(high)
        is_low = increasing(middle) < target
        low = np.where(is_low, middle, low)
        high = np.where(is_low, high, middle)
        if np.all(high - low <= ULPS * high):
            break
    return low, high


def kl_divergence(p: ArrayLike, q: ArrayLike, axis: int = -1) -> FloatOrArray:
    """KL(p || q) = sum p log(p/q) in nats along `axis`; infinite where p has mass that q lacks.

    Raises ValueError for arrays that are no distributions or have different numbers of outcomes.

    >>> float(round(kl_divergence([1, 0], [0.5, 0.5]), 4)), float(kl_divergence([0.5, 0.5], [1, 0]))
    (0.6931, inf)
    """
    p = as_distribution(p, "p", axis)
    q = as_distribution(q, "q", axis)
    if p.shape[axis] != q.shape[axis]:
        raise ValueError(
            f"q has {q.shape[axis]} outcomes, p has {p.shape[axis]}; they must be the same"
        )
    return divergence_terms(p, q, q - p).sum(axis=axis)


# --- mutual information of a channel ---


def mutual_information(channel: ArrayLike, input_dist: ArrayLike | None = None) -> float:
    """I(X;T) in nats of a channel with rows p(t|x), (N, R), under an input distribution (N,),
    default uniform.

    Computed as the mean divergence of the rows from their mixture, which is never negative. Raises
    ValueError for rows that are no distributions and for bad weights.

    >>> round(mutual_information([[0.9, 0.1], [0.1, 0.9]]), 4)  # log 2 - h(0.1)
    0.3681
    """
    channel = as_gate(channel, "channel")
    input_dist = as_weights(input_dist, len(channel), "input_dist")
    _, divergences = divergences_from_mixture(channel, input_dist)
    return float(input_dist @ divergences)


def gating_rate(gate: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Plug-in gating rate I(X;T) in nats of a gate (N, R) on N held-out inputs: P1 Remark 2, P2
    (23)-(24).

    Weights (N,) of the inputs are uniform by default. Raises ValueError as `mutual_information`.

    >>> gating_rate([[0.3, 0.7], [0.3, 0.7]])  # a gate that does not look at its input
    0.0
    """
    gate = as_gate(gate)
    return mutual_information(gate, as_weights(weights, len(gate)))


# --- information of an algorithm, from the posteriors of its datasets ---


@dataclass(frozen=True)
class AlgorithmicInformation:
    """I(S;W) estimated from the posteriors of M datasets, in nats: P2 (16)-(18)."""

    marginal_entropy: float
    """H(W), entropy of the mean posterior, P2 (16)"""
    conditional_entropy: float
    """H(W|S), mean entropy of the posteriors, P2 (17)"""
    information: float
    """their difference, P2 (18)"""
    bias: float
    """expected value of `information` minus the truth, by the delta method"""
    standard_error: float
    """infinite for one dataset"""
    interval: tuple[float, float]
    """normal interval around the bias-corrected estimate; unbounded for one dataset"""


def algorithmic_information(
    posteriors: ArrayLike, confidence: float = 0.95
) -> AlgorithmicInformation:
    """Plug-in I(S;W) from posteriors q(w|S_i), shape (M, R), with its delta-method bias and
    interval.

    The estimate is the mean over datasets of KL(q_i || mean q), so its influence function is that
    divergence; its bias is -(1/2M) sum_w Var(q_i(w)) / mean q(w). (At first order the error in mean
    q cancels.) Raises ValueError for rows that are no distributions and a confidence outside (0,
    1).

    >>> found = algorithmic_information([[1, 0], [0, 1], [1, 0], [0, 1]])
    >>> round(found.information, 4), found.conditional_entropy, found.bias
    (0.6931, 0.0, -0.125)
    """
    q = as_gate(posteriors, "posteriors")
    confidence = _as_confidence(confidence)
    n = len(q)
    mean, divergences = divergences_from_mixture(q, np.full(n, 1 / n))
    seen = mean > 0
    conditional = float(scipy.special.entr(q).sum(axis=1).mean())
    information = float(divergences.mean())
    bias = -float((q[:, seen].var(axis=0) / mean[seen]).sum()) / (2 * n)
    error = mean_error(divergences)
    reach = float(scipy.special.ndtri((1 + confidence) / 2)) * error
    return AlgorithmicInformation(
        marginal_entropy=information + conditional,
        conditional_entropy=conditional,
        information=information,
        bias=bias,
        standard_error=error,
        interval=(information - bias - reach, information - bias + reach),
    )


def bootstrap_interval(
    posteriors: ArrayLike,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    rng: np.random.Generator | int = 0,
    method: str = "percentile",
) -> tuple[float, float]:
    """Bootstrap interval of I(S;W) over datasets, posteriors (M, R): `"percentile"`, as P2 reports,
    or `"BCa"`. Where resamples hardly differ BCa is undefined, and the percentiles stand in.

    Raises ValueError for rows that are no distributions, fewer than two datasets, a confidence
    outside (0, 1), fewer than one resample, or another method.

    >>> posteriors = np.eye(2)[[0, 1, 0, 1, 0, 0]]
    >>> low, high = bootstrap_interval(posteriors, n_resamples=500)
    >>> low < algorithmic_information(posteriors).information <= high
    True
    """
    q = as_gate(posteriors, "posteriors")
    confidence = _as_confidence(confidence)
    n_resamples = as_count(n_resamples, "n_resamples")
    if method not in ("percentile", "BCa"):
        raise ValueError(f"method is {method!r}; allowed are 'percentile' and 'BCa'")
    if len(q) < 2:
        raise ValueError(f"posteriors has shape {q.shape}; a bootstrap needs at least two datasets")
    check_size(n_resamples, f"{n_resamples} resamples")
    entropies = scipy.special.entr(q).sum(axis=1)

    def information(drawn, axis):
        drawn = np.moveaxis(drawn, axis, -1).astype(int)
        counts = _times_drawn(drawn.reshape(-1, drawn.shape[-1]), len(q))
        n_drawn = drawn.shape[-1]
        marginal = scipy.special.entr(counts @ q / n_drawn).sum(axis=1)
        conditional = counts @ entropies / n_drawn
        return np.maximum(marginal - conditional, 0).reshape(drawn.shape[:-1])

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # that it is undefined, which is seen below
        result = scipy.stats.bootstrap(
            (np.arange(len(q)),),
            information,
            vectorized=True,
            method=method,
            confidence_level=confidence,
            n_resamples=n_resamples,
            batch=max(1, RESAMPLED_AT_ONCE // len(q)),
            rng=rng,
        )
    low, high = result.confidence_interval
    if not np.isfinite([low, high]).all():
        ends = ((1 - confidence) / 2, (1 + confidence) / 2)
        low, high = np.quantile(result.bootstrap_distribution, ends)
    return float(low), float(high)


def _times_drawn(drawn: np.ndarray, n_datasets: int) -> np.ndarray:
    """How often each of M datasets occurs in each of B resamples (B, n) of their indices: (B, M).

    One product of this with the posteriors (M, R) takes the place of gathering (B, n, R) numbers.
    """
    n_resamples = len(drawn)
    cells = drawn + n_datasets * np.arange(n_resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=n_resamples * n_datasets)
    return counts.reshape(n_resamples, n_datasets)


def information_estimates(posteriors: ArrayLike) -> dict[str, float]:
    """Four estimates of I(S;W) in nats from posteriors (M, R): none, or one of three corrections
    for bias.

    `plug-in` is P2 (18); `Miller-Madow` adds (R-1)/(2M) as P2 states it; `delta` subtracts the
    delta-method bias of `algorithmic_information`; `jackknife` extrapolates from leaving out one
    dataset at a time. Raises ValueError for rows that are no distributions and for fewer than two
    datasets.

    >>> estimates = information_estimates([[1, 0], [0, 1], [1, 0], [0, 1]])
    >>> {name: round(value, 3) for name, value in estimates.items()}
    {'plug-in': 0.693, 'Miller-Madow': 0.818, 'delta': 0.818, 'jackknife': 0.863}
    """
    found = algorithmic_information(posteriors)
    q = as_gate(posteriors, "posteriors")
    n = len(q)
    if n < 2:
        raise ValueError(
            f"posteriors has shape {q.shape}; the jackknife needs at least two datasets"
        )
    # mean posterior and mean entropy of the n - 1 others
    mean_without = (n * q.mean(axis=0) - q).clip(min=0) / (n - 1)
    entropies = scipy.special.entr(q).sum(axis=1)
    entropy_without = (entropies.sum() - entropies) / (n - 1)
    left_out = scipy.special.entr(mean_without).sum(axis=1) - entropy_without
    return {
        "plug-in": found.information,
        "Miller-Madow": found.information + miller_madow_bias(q.shape[1], n),
        "delta": found.information - found.bias,
        "jackknife": n * found.information - (n - 1) * float(left_out.mean()),
    }


def miller_madow_bias(n_outcomes: int, n_samples: int) -> float:
    """The correction (R-1)/(2M) in nats that P2 adds to an entropy of R outcomes estimated from M
    samples.

    It is the delta-method bias for multinomial counts; posteriors vary less (see
    `algorithmic_information`). Raises ValueError for counts below 1.

    >>> miller_madow_bias(25, 300)  # P2's bank and number of datasets
    0.04
    """
    return (as_count(n_outcomes, "n_outcomes") - 1) / (2 * as_count(n_samples, "n_samples"))


def _as_confidence(confidence: float) -> float:
    return as_number(confidence, "confidence", ABOVE_0, BELOW_1, allowed="in (0, 1)")


# --- information of counts ---


def joint_information(counts: ArrayLike) -> float:
    """Plug-in I(A;B) in nats from counts (A, B); see `joint_bias` for how far it lies too high.

    Raises ValueError as `as_counts`.

    >>> round(joint_information([[2, 0], [0, 2]]), 4), joint_information([[3, 1], [3, 1]])
    (0.6931, 0.0)
    """
    joint = as_counts(counts) / np.sum(counts, dtype=float)
    return float(independence_divergence(joint))


def joint_bias(counts: ArrayLike) -> float:
    """Miller-Madow bias in nats of `joint_information` where the N counts are independent draws:
    (A-1)(B-1)/2N, with A rows and B columns in use.

    Tokens of one sequence are alike, and a token's k experts differ, so it is a guide; a null is
    the better judge. Raises ValueError as `as_counts`.

    >>> joint_bias([[3, 1, 0], [2, 4, 0]])  # 2 rows, 2 columns in use, 10 draws
    0.05
    """
    counts = as_counts(counts)
    used_rows = int((counts.sum(axis=1) > 0).sum())
    used_columns = int((counts.sum(axis=0) > 0).sum())
    return (used_rows - 1) * (used_columns - 1) / (2 * float(counts.sum()))


def conditional_information(counts: ArrayLike) -> float:
    """I(A;B|C) in nats from counts or probabilities (A, B, C): what A and B share beyond what C
    explains.

    Raises ValueError for another shape, and as `as_counts` for the table of each value of C.

    >>> same = np.zeros((2, 2, 2))
    >>> same[[0, 1], [0, 1], [0, 1]] = 1  # A = B = C: nothing beyond C
    >>> conditional_information(same)
    0.0
    """
    counts = np.asarray(counts)
    if counts.ndim != 3:
        raise ValueError(f"counts has shape {counts.shape}; allowed is (A, B, C)")
    shares = counts.sum(axis=(0, 1)) / counts.sum(dtype=float)
    tables = np.moveaxis(counts, -1, 0)
    terms = [
        share * joint_information(table)
        for share, table in zip(shares, tables, strict=True)
        if share
    ]
    return float(sum(terms))


def as_counts(counts: ArrayLike) -> np.ndarray:
    """Counts (A, B), not negative and not all 0, of a finite sum, or a ValueError that says so.

    >>> as_counts([0, 1])
    Traceback (most recent call last):
    ValueError: counts has shape (2,); allowed are (A, B) numbers >= 0 of a finite sum above 0
    """
    counts = np.asarray(counts)
    with np.errstate(over="ignore"):
        is_table = counts.ndim == 2 and 0 < counts.sum(dtype=float) < np.inf
    if not is_table or counts.min(initial=0) < 0:
        raise ValueError(
            f"counts has shape {counts.shape}; allowed are (A, B) numbers >= 0 of a finite sum "
            "above 0"
        )
    return counts
