"""Entropies and mutual information of finite channels, and their plug-in estimates. Everything in
nats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from expertbank._checks import (
    ABOVE_0,
    BELOW_1,
    as_count,
    as_distribution,
    as_gate,
    as_interval,
    as_number,
    as_weights,
)


def entropy(p, axis: int = -1):
    """Shannon entropy -sum p log p in nats of distributions along `axis`.

    Raises ValueError for entries that are negative, not finite, or do not sum to 1.
    """
    return scipy.special.entr(as_distribution(p, "p", axis)).sum(axis=axis)


def binary_entropy(p):
    """h(p) = -p log p - (1-p) log(1-p) in nats, elementwise for p in [0, 1]."""
    p = as_interval(p, "p", 0, 1)
    # rounding may exceed the maximum
    return np.minimum(scipy.special.entr(p) + scipy.special.entr(1 - p), np.log(2))


def binary_entropy_inverse(h):
    """The p in [0, 1/2] with binary_entropy(p) = h, elementwise for h in [0, log 2] nats."""
    h = as_interval(h, "h", 0, np.log(2), allowed="[0, log 2]")
    # 1 - 2p is the unknown: near p = 1/2 the entropy is flat and p itself would lose half its
    # digits
    from scipy.optimize import elementwise  # loaded where it is used

    roots = elementwise.find_root(
        lambda u, h: scipy.special.entr((1 - u) / 2) + scipy.special.entr((1 + u) / 2) - h,
        (0.0, 1.0),
        args=(h,),
    )
    return np.where(h >= np.log(2), 0.5, (1 - roots.x) / 2)[()]


def kl_divergence(p, q, axis: int = -1):
    """KL(p || q) = sum p log(p/q) in nats along `axis`; infinite where p has mass that q lacks."""
    p, q = as_distribution(p, "p", axis), as_distribution(q, "q", axis)
    if p.shape[axis] != q.shape[axis]:
        raise ValueError(
            f"q has {q.shape[axis]} outcomes, p has {p.shape[axis]}; they must be the same"
        )
    return scipy.special.rel_entr(p, q).sum(axis=axis)


def mutual_information(channel, input_dist=None) -> float:
    """I(X;T) in nats of a channel with rows p(t|x), (N, R), under an input distribution (N,),
    default uniform.

    Computed as the mean divergence of the rows from their mixture, which is never negative.
    """
    channel = as_gate(channel, "channel")
    input_dist = as_weights(input_dist, len(channel), "input_dist")
    # an output that only inputs of weight 0 produce has mass 0 in the mixture, where 0 times inf
    # would be nan
    mixture = np.maximum(input_dist @ channel, np.finfo(float).tiny)
    return max(0.0, float(input_dist @ scipy.special.rel_entr(channel, mixture).sum(axis=1)))


def gating_rate(gate, weights=None) -> float:
    """Plug-in gating rate I(X;T) in nats of a gate (N, R) on N held-out inputs: P1 Remark 2, P2
    (23)-(24)."""
    gate = as_gate(gate)
    return mutual_information(gate, as_weights(weights, len(gate)))


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
    interval: tuple[float, float]
    """normal interval around the bias-corrected estimate"""


def algorithmic_information(posteriors, confidence: float = 0.95) -> AlgorithmicInformation:
    """Plug-in I(S;W) from posteriors q(w|S_i), shape (M, R), with its delta-method bias and
    interval.

    The estimate is the mean over datasets of KL(q_i || mean q), so its influence function is that
    divergence; its bias is -(1/2M) sum_w Var(q_i(w)) / mean q(w). (At first order the error in mean
    q cancels.)
    """
    q = as_gate(posteriors, "posteriors")
    confidence = _as_confidence(confidence)
    mean = q.mean(axis=0)
    seen = mean > 0
    # a mass so small that its mean is rounded to 0 would have an infinite divergence from it
    divergences = scipy.special.rel_entr(q, np.maximum(mean, np.finfo(float).tiny)).sum(axis=1)
    conditional = float(scipy.special.entr(q).sum(axis=1).mean())
    information = max(0.0, float(divergences.mean()))
    n = len(q)
    bias = -float((q[:, seen].var(axis=0) / mean[seen]).sum()) / (2 * n)
    error = float(divergences.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf
    reach = float(scipy.special.ndtri((1 + confidence) / 2)) * error
    interval = (information - bias - reach, information - bias + reach)
    return AlgorithmicInformation(
        information + conditional, conditional, information, bias, error, interval
    )


def bootstrap_interval(
    posteriors, confidence: float = 0.95, n_resamples: int = 2000, rng=0, method: str = "percentile"
) -> tuple[float, float]:
    """Bootstrap interval of I(S;W) over datasets, posteriors (M, R): `"percentile"`, as P2 reports,
    or `"BCa"`."""
    q = as_gate(posteriors, "posteriors")
    confidence, n_resamples = _as_confidence(confidence), as_count(n_resamples, "n_resamples")
    if method not in ("percentile", "BCa"):
        raise ValueError(f"method is {method!r}; allowed are 'percentile' and 'BCa'")
    if len(q) < 2:
        raise ValueError(f"posteriors has shape {q.shape}; a bootstrap needs at least two datasets")
    entropies = scipy.special.entr(q).sum(axis=1)

    def information(index, axis):
        index = np.moveaxis(index, axis, -1).astype(int)
        # how often each dataset was drawn: one matrix product instead of gathering (B, M, R)
        # numbers
        flat = index.reshape(-1, index.shape[-1])
        cells = flat + len(q) * np.arange(len(flat))[:, None]
        counts = np.bincount(cells.ravel(), minlength=len(flat) * len(q)).reshape(len(flat), len(q))
        values = (
            scipy.special.entr(counts @ q / index.shape[-1]).sum(axis=1)
        ) - counts @ entropies / index.shape[-1]
        return values.reshape(index.shape[:-1])

    result = scipy.stats.bootstrap(
        (np.arange(len(q)),), information, vectorized=True, method=method,
        confidence_level=confidence, n_resamples=n_resamples, batch=max(1, 10_000_000 // len(q)), rng=rng,
    )  # fmt: skip
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def information_estimates(posteriors) -> dict[str, float]:
    """Four estimates of I(S;W) in nats from posteriors (M, R): none, or one of three corrections
    for bias.

    `plug-in` is P2 (18); `Miller-Madow` adds (R-1)/(2M) as P2 states it; `delta` subtracts the
    delta-method bias of `algorithmic_information`; `jackknife` extrapolates from leaving out one
    dataset at a time.
    """
    found = algorithmic_information(posteriors)
    q = as_gate(posteriors, "posteriors")
    n = len(q)
    if n < 2:
        raise ValueError(
            f"posteriors has shape {q.shape}; the jackknife needs at least two datasets"
        )
    without = (n * q.mean(axis=0) - q).clip(min=0) / (n - 1)
    entropies = scipy.special.entr(q).sum(axis=1)
    left_out = scipy.special.entr(without).sum(axis=1) - (entropies.sum() - entropies) / (n - 1)
    return {
        "plug-in": found.information,
        "Miller-Madow": found.information + miller_madow_bias(q.shape[1], n),
        "delta": found.information - found.bias,
        "jackknife": n * found.information - (n - 1) * float(left_out.mean()),
    }


def miller_madow_bias(n_outcomes: int, n_samples: int) -> float:
    """The correction (R-1)/(2M) that P2 adds to an entropy of R outcomes estimated from M samples.

    It is the delta-method bias for multinomial counts; posteriors vary less (see
    `algorithmic_information`).
    """
    return (as_count(n_outcomes, "n_outcomes") - 1) / (2 * as_count(n_samples, "n_samples"))


def _as_confidence(confidence) -> float:
    return as_number(confidence, "confidence", ABOVE_0, BELOW_1, allowed="in (0, 1)")


def joint_information(counts) -> float:
    """Plug-in I(A;B) in nats from counts (A, B); see `joint_bias` for how far it lies too high."""
    joint = as_counts(counts) / np.sum(counts, dtype=float)
    return max(
        0.0,
        float(scipy.special.rel_entr(joint, np.outer(joint.sum(axis=1), joint.sum(axis=0))).sum()),
    )


def joint_bias(counts) -> float:
    """Miller-Madow bias of `joint_information` where the N counts are independent draws:
    (A-1)(B-1)/2N, used ones.

    Tokens of one sequence are alike, and a token's k experts differ, so it is a guide; a null is
    the better judge.
    """
    counts = as_counts(counts)
    used_rows, used_columns = (int((counts.sum(axis=axis) > 0).sum()) for axis in (1, 0))
    return (used_rows - 1) * (used_columns - 1) / (2 * float(counts.sum()))


def conditional_information(counts) -> float:
    """I(A;B|C) in nats from counts or probabilities (A, B, C): what A and B share beyond what C
    explains."""
    counts = np.asarray(counts)
    if counts.ndim != 3:
        raise ValueError(f"counts has shape {counts.shape}; allowed is (A, B, C)")
    shares = counts.sum(axis=(0, 1)) / counts.sum(dtype=float)
    tables = np.moveaxis(counts, -1, 0)
    return float(
        sum(
            share * joint_information(table)
            for share, table in zip(shares, tables, strict=True)
            if share
        )
    )


def as_counts(counts) -> np.ndarray:
    """Counts (A, B) that are finite, not negative and not all 0, or a ValueError that says so."""
    counts = np.asarray(counts)
    if (
        counts.ndim != 2
        or not np.isfinite(counts).all()
        or counts.min(initial=0) < 0
        or not counts.sum() > 0
    ):
        raise ValueError(
            f"counts has shape {counts.shape}; allowed are (A, B) numbers >= 0 that do not all vanish"
        )
    return counts
