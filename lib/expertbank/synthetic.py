"""The two synthetic experiments of P1: a bank of random mixtures of experts, and the binary
symmetric channel. Information in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_count, as_interval, as_losses, as_number, check_size
from expertbank.bounds import xu_raginsky_bound
from expertbank.channels import bsc_distortion_rate, bsc_rate
from expertbank.information import algorithmic_information, log_choices, mutual_information
from expertbank.learners import draw_experts, empirical_risks, gibbs_posterior, mix_with_uniform

# --- experiment 1: a bank of random mixtures of experts ---


@dataclass(frozen=True)
class MixtureOfExperts:
    """A binary classifier: a softmax gate over linear experts.

    >>> moe = random_moe(dimension=3, n_experts=2, rng=0)
    >>> x = np.ones((5, 3))
    >>> moe.gate(x).shape, moe.votes(x).shape
    ((5, 2), (5, 2))
    """

    gates: np.ndarray
    """weights of the gate, (n_experts, dimension)"""
    experts: np.ndarray
    """weights of the experts, (n_experts, dimension)"""

    def gate(self, x: np.ndarray) -> np.ndarray:
        """p(t|x), (N, n_experts), for features x (N, dimension)."""
        return scipy.special.softmax(x @ self.gates.T, axis=1)

    def votes(self, x: np.ndarray) -> np.ndarray:
        """The label in {0, 1} that each expert gives, (N, n_experts)."""
        return (x @ self.experts.T > 0).astype(float)


def random_moe(dimension: int, n_experts: int, rng: np.random.Generator | int) -> MixtureOfExperts:
    """One draw from the prior: standard normal gate and expert weights.

    Raises ValueError for sizes below 1.

    >>> random_moe(dimension=3, n_experts=2, rng=0).experts.shape
    (2, 3)
    """
    shape = (as_count(n_experts, "n_experts"), as_count(dimension, "dimension"))
    check_size(shape[0] * shape[1], f"{shape[0]} experts of dimension {shape[1]}")
    rng = np.random.default_rng(rng)
    gates = rng.standard_normal(shape)
    experts = rng.standard_normal(shape)
    return MixtureOfExperts(gates, experts)


# inputs whose losses are computed at once by `moe_bank_losses`
INPUTS_PER_BLOCK = 1000


def moe_bank_losses(
    dimension: int, n_experts: int, n_candidates: int, n_inputs: int, rng: np.random.Generator | int
) -> np.ndarray:
    """Losses (n_inputs, n_candidates) in [0, 1] of random candidates on data from a true mixture:
    P1 experiment 1.

    Truth and candidates come from the same prior. X is standard normal, Y the label of an expert
    drawn from the true gate, and a candidate's loss is its probability of error over its own gate,
    as in P1 (1)-(2). Raises ValueError for sizes below 1.

    >>> losses = moe_bank_losses(dimension=3, n_experts=2, n_candidates=4, n_inputs=10, rng=0)
    >>> losses.shape, bool((0 <= losses).all() and (losses <= 1).all())
    ((10, 4), True)
    """
    dimension = as_count(dimension, "dimension")
    n_experts = as_count(n_experts, "n_experts")
    n_candidates = as_count(n_candidates, "n_candidates")
    n_inputs = as_count(n_inputs, "n_inputs")
    check_size(n_inputs * dimension, f"{n_inputs} inputs of dimension {dimension}")
    check_size(n_inputs * n_candidates, f"{n_inputs} inputs by {n_candidates} candidates")
    n_weights = n_candidates * n_experts * max(dimension, INPUTS_PER_BLOCK)
    check_size(n_weights, f"{n_candidates} candidates of {n_experts} experts")
    rng = np.random.default_rng(rng)
    truth = random_moe(dimension, n_experts, rng)
    x = rng.standard_normal((n_inputs, dimension))
    chosen = draw_experts(truth.gate(x), rng)
    y = truth.votes(x)[np.arange(n_inputs), chosen]
    candidates = [random_moe(dimension, n_experts, rng) for _ in range(n_candidates)]
    # the candidates side by side in one product, a block of inputs at a time: many thin products
    # are slow
    gates = np.concatenate([moe.gates for moe in candidates])
    experts = np.concatenate([moe.experts for moe in candidates])
    shape = (-1, n_candidates, n_experts)
    losses = np.empty((n_inputs, n_candidates))
    for start in range(0, n_inputs, INPUTS_PER_BLOCK):
        block = slice(start, start + INPUTS_PER_BLOCK)
        chances = scipy.special.softmax((x[block] @ gates.T).reshape(shape), axis=2)
        is_wrong = (x[block] @ experts.T > 0).reshape(shape) != y[block, None, None]
        losses[block] = (chances * is_wrong).sum(axis=2)
    return losses


@dataclass(frozen=True)
class AlphaCurve:
    """The alpha-mixture along A values of alpha, all on the same datasets. Information in nats."""

    alphas: np.ndarray
    sample_size: int
    information: np.ndarray
    """I(S;W), (A,)"""
    gap: np.ndarray
    """mean generalisation gap with the pool as exact population, (A,)"""
    gap_error: np.ndarray
    """standard error of `gap` over the datasets, (A,)"""
    test_gap: np.ndarray
    """mean generalisation gap against the separate test table, (A,); equal to `gap` without one"""
    frequencies: np.ndarray
    """how often each candidate is the empirical risk minimiser, (R,)"""


def alpha_curve(
    pool: ArrayLike,
    alphas: ArrayLike,
    sample_size: int = 256,
    n_datasets: int = 2000,
    test: ArrayLike | None = None,
    rng: np.random.Generator | int = 0,
) -> AlphaCurve:
    """P1 experiment 1: information and gap of the alpha-mixture at each alpha, datasets drawn from
    pool (N, R).

    Averages over the posteriors, not over one draw from each. W depends on S through the minimiser
    r* alone, so I(S;W) = I(r*;W). The gap is alpha times the covariance of {r* = r} with the risk
    deficit of r, summed over r: the mean under the joint law minus the mean under the product law,
    which is 0 in expectation. Raises ValueError for bad tables, alphas outside [0, 1], fewer than 2
    datasets, or a test table with other candidates.

    >>> pool = moe_bank_losses(dimension=3, n_experts=2, n_candidates=4, n_inputs=500, rng=0)
    >>> curve = alpha_curve(pool, [0, 0.5, 1], sample_size=10, n_datasets=200)
    >>> float(curve.information[0]), bool(curve.gap[1] < curve.gap[2])
    (0.0, True)
    """
    pool = as_losses(pool)
    test = pool if test is None else as_losses(test, "test")
    if test.shape[1] != pool.shape[1]:
        raise ValueError(
            f"test has {test.shape[1]} candidates, pool has {pool.shape[1]}; they must be the same "
            "bank"
        )
    risks = empirical_risks(pool, sample_size, as_count(n_datasets, "n_datasets", at_least=2), rng)
    return _alpha_curve(risks, pool.mean(axis=0), test.mean(axis=0), alphas, sample_size)


def alpha_mixture_grid(
    dimensions: Sequence[int],
    expert_counts: Sequence[int],
    candidate_counts: Sequence[int],
    sample_sizes: Sequence[int],
    alphas: ArrayLike,
    n_inputs: int = 4000,
    n_test: int = 4000,
    n_datasets: int = 1000,
    seed: int = 0,
) -> dict[tuple[int, int, int, int], AlphaCurve]:
    """`alpha_curve` at every combination of P1's unpublished sizes, keyed (dimension, experts,
    candidates, m).

    Candidates are drawn independently, so the first of a large bank are a smaller bank: one table
    serves all candidate counts at a (dimension, experts), and one set of datasets all of them at an
    m. Raises ValueError as `moe_bank_losses` and `alpha_curve` do.

    >>> curves = alpha_mixture_grid([3], [2], [4, 8], [10], [1.0], 100, 100, n_datasets=20)
    >>> list(curves)
    [(3, 2, 4, 10), (3, 2, 8, 10)]
    """
    n_datasets = as_count(n_datasets, "n_datasets", at_least=2)
    curves = {}
    for dimension in dimensions:
        for n_experts in expert_counts:
            rng = np.random.default_rng([seed, dimension, n_experts])
            n_rows = n_inputs + n_test
            losses = moe_bank_losses(dimension, n_experts, max(candidate_counts), n_rows, rng)
            pool = losses[:n_inputs]
            pool_risks = pool.mean(axis=0)
            test_risks = losses[n_inputs:].mean(axis=0)
            for m in sample_sizes:
                risks = empirical_risks(pool, m, n_datasets, rng)
                for k in candidate_counts:
                    curves[dimension, n_experts, k, m] = _alpha_curve(
                        risks[:, :k], pool_risks[:k], test_risks[:k], alphas, m
                    )
    return curves


def _alpha_curve(
    risks: np.ndarray,
    pool_risks: np.ndarray,
    test_risks: np.ndarray,
    alphas: ArrayLike,
    sample_size: int,
) -> AlphaCurve:
    """The curve from empirical risks (M, R) and population risks (R,)."""
    alphas = np.atleast_1d(as_interval(alphas, "alphas", 0, 1))
    n_datasets, n_candidates = risks.shape
    picked = risks.argmin(axis=1)
    frequencies = np.bincount(picked, minlength=n_candidates) / n_datasets
    # given the minimiser, W comes from a symmetric channel that alpha alone decides: H(W|S) is that
    # of any of its rows
    one_hot = np.eye(n_candidates)[0]
    rows = np.array([mix_with_uniform(one_hot, alpha) for alpha in alphas])
    marginals = np.array([mix_with_uniform(frequencies, alpha) for alpha in alphas])
    conditional_entropies = scipy.special.entr(rows).sum(axis=1)
    marginal_entropies = scipy.special.entr(marginals).sum(axis=1)

    deficits = pool_risks - risks
    excess = deficits[np.arange(n_datasets), picked] - deficits @ frequencies
    gap = alphas * excess.mean() * n_datasets / (n_datasets - 1)
    return AlphaCurve(
        alphas=alphas,
        sample_size=sample_size,
        information=np.maximum(0, marginal_entropies - conditional_entropies),
        gap=gap,
        gap_error=alphas * excess.std(ddof=1) / np.sqrt(n_datasets),
        test_gap=gap + marginals @ (test_risks - pool_risks),
        frequencies=frequencies,
    )


# --- experiment 2: the binary symmetric channel ---


@dataclass(frozen=True)
class BscSelection:
    """P1 experiment 2 at one inverse temperature. Risks in [0, 1/2], information in nats."""

    information: float
    """I(S;W)"""
    information_error: float
    """standard error of `information` by Monte Carlo; 0 where it is exact"""
    risk: float
    """E[p_W], the mean population risk"""
    rate: float
    """R_g = E[log 2 - h(p_W)], the mean gating rate"""
    marginal: np.ndarray
    """probability of each candidate, (J,)"""

    @cached_property
    def distortion(self) -> float:
        """D(R_g) = h^-1(log 2 - R_g), the least risk at that rate"""
        return float(bsc_distortion_rate(self.rate))

    @property
    def excess(self) -> float:
        """E[p_W] - D(R_g) >= 0, by Jensen's inequality; how far the mean point lies above the
        curve"""
        return self.risk - self.distortion


def bsc_posteriors(
    candidates: ArrayLike, flips: ArrayLike, sample_size: int, inverse_temperature: float
) -> np.ndarray:
    """Tempered posteriors (K, J) over candidate crossovers (J,) after `flips` (K,) among
    sample_size bits.

    q(j|S) is proportional to likelihood^beta, and S enters through its number of flips alone.
    Raises ValueError for candidates outside (0, 1/2], flips outside [0, sample_size], and an
    inverse temperature that is negative or infinite.

    >>> posteriors = bsc_posteriors([0.1, 0.4], [0, 5], sample_size=10, inverse_temperature=1)
    >>> posteriors.round(3).tolist()  # few flips speak for the smaller crossover
    [[0.983, 0.017], [0.007, 0.993]]
    """
    candidates = _crossovers(candidates)
    flipped = as_interval(flips, "flips", 0, sample_size)[..., None]
    kept = sample_size - flipped
    surprise = -scipy.special.xlogy(flipped, candidates) - scipy.special.xlogy(kept, 1 - candidates)
    return gibbs_posterior(surprise, inverse_temperature)


def bsc_selection(
    candidates: ArrayLike,
    crossover: float,
    sample_size: int,
    inverse_temperature: float,
    n_datasets: int | None = None,
    rng: np.random.Generator | int = 0,
) -> BscSelection:
    """P1 experiment 2: learn a crossover from m bits of a BSC(crossover) by the tempered posterior.

    With `n_datasets` it is the paper's Monte Carlo: M datasets, one index drawn from each
    posterior. With None it is exact: S acts through K ~ Binomial(m, p*), so I(S;W) = I(K;W) is a
    sum of m + 1 terms. Raises ValueError for candidates outside (0, 1/2], a crossover outside
    [0, 1], counts below 1, and an inverse temperature that is negative or infinite.

    >>> found = bsc_selection([0.1, 0.2, 0.4], 0.2, sample_size=50, inverse_temperature=1)
    >>> found.marginal.round(2).tolist(), round(found.information, 3)
    ([0.22, 0.69, 0.09], 0.316)
    """
    candidates = _crossovers(candidates)
    sample_size = as_count(sample_size, "sample_size")
    crossover = as_number(crossover, "crossover", 0, 1)
    if n_datasets is None:
        weights, _, posteriors = _exact_posteriors(
            candidates, crossover, sample_size, inverse_temperature
        )
        marginal = weights @ posteriors
        drawn = marginal
        information = mutual_information(posteriors, weights)
        error = 0.0
    else:
        n_datasets = as_count(n_datasets, "n_datasets")
        n_candidates = len(candidates)
        check_size(n_datasets * n_candidates, f"{n_datasets} datasets of {n_candidates} candidates")
        rng = np.random.default_rng(rng)
        flips = rng.binomial(sample_size, crossover, size=n_datasets)
        posteriors = bsc_posteriors(candidates, flips, sample_size, inverse_temperature)
        estimate = algorithmic_information(posteriors)
        information = max(0.0, estimate.information)
        error = estimate.standard_error
        marginal = posteriors.mean(axis=0)
        drawn = _draw_frequencies(posteriors, rng)
    return BscSelection(
        information=information,
        information_error=error,
        risk=float(drawn @ candidates),
        rate=float(drawn @ bsc_rate(candidates)),
        marginal=marginal,
    )


def bsc_threshold(
    candidates: ArrayLike,
    crossover: float,
    sample_size: int,
    sigma: float = 1.0,
    highest: float = 100.0,
) -> float:
    """The inverse temperature up to which the mean risk E[p_W] lies above P1's (13), D(R_g) + sigma
    sqrt(2 I/m).

    Searched on [1e-4, highest] with exact sums, to a relative 1e-9: inf if it lies above even at
    `highest`, 0 if nowhere. Raises ValueError as `bsc_selection` does.

    >>> round(bsc_threshold([0.05, 0.2, 0.4], 0.2, sample_size=50), 2)
    0.11
    """

    def margin(log_beta):
        # compared on the rate axis, where no entropy has to be inverted: D(R) falls, so both have
        # the same sign
        point = bsc_selection(candidates, crossover, sample_size, float(np.exp(log_beta)))
        allowed = point.risk - xu_raginsky_bound(point.information, sample_size, sigma)
        return float(bsc_rate(max(allowed, 0.0))) - point.rate

    grid = np.linspace(np.log(1e-4), np.log(highest), 25)
    margins = np.array([margin(log_beta) for log_beta in grid])
    above = np.flatnonzero(margins < -1e-12)
    if not len(above):
        return 0.0
    last = above[-1]
    if last == len(grid) - 1:
        return float("inf")
    return float(np.exp(scipy.optimize.brentq(margin, grid[last], grid[last + 1], xtol=1e-11)))


def bsc_label_gap(
    candidates: ArrayLike, crossover: float, sample_size: int, inverse_temperature: float
) -> float:
    """E[R(W) - R_S(W)], exactly, when model j's output T = BSC_j(X) is charged for differing from
    the label Y.

    Then R_S(j) = p_j (1 - K/m) + (1 - p_j) K/m, so the gap is E[(1 - 2 p_W)(p* - K/m)]. It is never
    negative: more flips make larger crossovers likelier. Raises ValueError as `bsc_selection` does.

    >>> round(bsc_label_gap([0.1, 0.4], 0.2, sample_size=50, inverse_temperature=1), 4)
    0.0117
    """
    candidates = _crossovers(candidates)
    sample_size = as_count(sample_size, "sample_size")
    crossover = as_number(crossover, "crossover", 0, 1)
    weights, flips, posteriors = _exact_posteriors(
        candidates, crossover, sample_size, inverse_temperature
    )
    weighted = weights * (crossover - flips / sample_size)
    return max(0.0, float(weighted @ posteriors @ (1 - 2 * candidates)))


def _exact_posteriors(
    candidates: np.ndarray, crossover: float, sample_size: int, inverse_temperature: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (K,), numbers (K,) and tempered posteriors (K, J) of the flips, but for a mass
    below rounding."""
    check_size(sample_size * len(candidates), f"{sample_size} bits of {len(candidates)} candidates")
    flips = np.arange(sample_size + 1)
    kept = sample_size - flips
    log_weights = scipy.special.xlogy(flips, crossover) + scipy.special.xlog1py(kept, -crossover)
    weights = np.exp(log_choices(sample_size, flips) + log_weights)
    weights /= weights.sum()  # they share the rounding of log m!
    possible = weights > 1e-30
    flips = flips[possible]
    weights = weights[possible]
    return weights, flips, bsc_posteriors(candidates, flips, sample_size, inverse_temperature)


def _draw_frequencies(posteriors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often each candidate (J,) is drawn, one from each posterior (M, J)."""
    drawn = draw_experts(posteriors, rng)
    return np.bincount(drawn, minlength=posteriors.shape[1]) / len(drawn)


def _crossovers(candidates: ArrayLike) -> np.ndarray:
    """Candidate crossovers (J,), J >= 1, in (0, 1/2]; else ValueError."""
    candidates = np.atleast_1d(as_interval(candidates, "candidates", 0, 0.5))
    if candidates.ndim != 1 or not len(candidates) or candidates.min() <= 0:
        raise ValueError(f"candidates are {candidates}; allowed is a non-empty list in (0, 1/2]")
    return candidates
