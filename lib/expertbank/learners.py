"""Learners that pick one expert from a finite bank, and the experiment that measures what they leak
and overfit. Information in nats.

A learner turns the risks of the R experts on a dataset S into a posterior q(w|S), from which it
draws the expert W. Shapes: risks and posteriors (..., R), one row a dataset; a loss table (N, R) is
the pool that datasets are drawn from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import (
    BELOW_INF,
    as_count,
    as_losses,
    as_number,
    as_risks,
    as_weights,
    check_size,
)
from expertbank.information import AlgorithmicInformation, algorithmic_information, mean_error
from expertbank.tables import merge_rows

# --- selection rules: from risks to a posterior ---


def alpha_mixture(risks: ArrayLike, alpha: float) -> np.ndarray:
    """Posterior q(r|S) = (1-alpha)/R + alpha 1{r = argmin risk}, ties to the smallest index: P2
    (11).

    risks (..., R) gives a posterior (..., R). Raises ValueError for alpha outside [0, 1].

    >>> alpha_mixture([0.3, 0.1], alpha=0.5).tolist()
    [0.25, 0.75]
    """
    risks = as_risks(risks)
    is_best = np.arange(risks.shape[-1]) == risks.argmin(axis=-1)[..., None]
    return mix_with_uniform(is_best, alpha)


def mix_with_uniform(posterior: ArrayLike, alpha: float) -> np.ndarray:
    """(1-alpha)/R + alpha posterior, for posteriors (..., R) over R experts; ValueError for alpha
    outside [0, 1].

    >>> mix_with_uniform([0.0, 1.0], alpha=0.0).tolist()
    [0.5, 0.5]
    """
    alpha = as_number(alpha, "alpha", 0, 1)
    posterior = np.asarray(posterior, float)
    return (1 - alpha) / posterior.shape[-1] + alpha * posterior


def epsilon_greedy(risks: ArrayLike, epsilon: float) -> np.ndarray:
    """1 - epsilon shared evenly by all minimisers of risks (..., R), epsilon by all experts.

    With epsilon = 0 it is the empirical risk minimiser with ties broken at random. Raises
    ValueError for epsilon outside [0, 1].

    >>> epsilon_greedy([0.1, 0.1, 0.3, 0.3], epsilon=0).tolist()
    [0.5, 0.5, 0.0, 0.0]
    """
    risks = as_risks(risks)
    epsilon = as_number(epsilon, "epsilon", 0, 1)
    best = risks == risks.min(axis=-1, keepdims=True)
    return mix_with_uniform(best / best.sum(axis=-1, keepdims=True), 1 - epsilon)


def top_k_uniform(risks: ArrayLike, k: int) -> np.ndarray:
    """1/k on each of the k smallest risks (..., R), ties to the smallest index. Raises ValueError
    for k > R.

    >>> top_k_uniform([0.3, 0.1, 0.2], k=2).tolist()
    [0.0, 0.5, 0.5]
    """
    risks = as_risks(risks)
    k = as_count(k, "k")
    if k > risks.shape[-1]:
        raise ValueError(f"k is {k}; allowed is at most {risks.shape[-1]}, the number of experts")
    smallest = risks.argsort(axis=-1, kind="stable")[..., :k]
    posterior = np.zeros(risks.shape)
    np.put_along_axis(posterior, smallest, 1 / k, axis=-1)
    return posterior


def gibbs_posterior(risks: ArrayLike, inverse_temperature: float) -> np.ndarray:
    """Posterior q(r|S) proportional to exp(-inverse_temperature * risk), for risks (..., R).

    Raises ValueError for an inverse temperature that is negative or infinite.

    >>> gibbs_posterior([0.0, 1.0], inverse_temperature=2).round(4).tolist()
    [0.8808, 0.1192]
    """
    allowed = "a finite number >= 0 (the limit at inf is alpha_mixture with 1)"
    beta = as_number(inverse_temperature, "inverse_temperature", 0, BELOW_INF, allowed)
    risks = as_risks(risks)
    # only the excess is multiplied: the best stays at 0, others may reach -inf
    with np.errstate(over="ignore"):
        return scipy.special.softmax(-beta * (risks - risks.min(axis=-1, keepdims=True)), axis=-1)


# --- risks on datasets: drawn, or all that there are ---

# draws held at once by `empirical_risks`: a few dozen megabytes, whatever the number of datasets
DRAWS_PER_CHUNK = 1_000_000
# samples of a dataset that are drawn one by one; of more only the number of each row is
DRAWN_ONE_BY_ONE = 100_000


def empirical_risks(
    losses: ArrayLike, sample_size: int, n_datasets: int, rng: np.random.Generator | int
) -> np.ndarray:
    """Empirical risks (M, R) on M datasets of `sample_size` rows drawn with replacement from losses
    (N, R).

    Each chunk of datasets is one product of a sparse count matrix with the distinct loss rows.
    Raises ValueError for bad tables, for counts below 1, and for more datasets than fit in memory.

    >>> risks = empirical_risks([[0, 1], [1, 0]], sample_size=4, n_datasets=1000, rng=0)
    >>> risks.shape, risks.sum(axis=1).tolist() == [1.0] * 1000  # one of two experts is right
    ((1000, 2), True)
    """
    losses = as_losses(losses)
    sample_size = as_count(sample_size, "sample_size")
    n_datasets = as_count(n_datasets, "n_datasets")
    n_experts = losses.shape[1]
    check_size(n_datasets * n_experts, f"{n_datasets} datasets of {n_experts} experts")
    rng = np.random.default_rng(rng)
    rows, times, row_of = merge_rows(losses)
    rows = rows.astype(float)
    row_of = row_of.astype(np.int32)
    risks = np.empty((n_datasets, n_experts))
    if sample_size > DRAWN_ONE_BY_ONE:
        for dataset in range(n_datasets):
            shares = rng.multinomial(sample_size, times / len(losses)) / sample_size
            risks[dataset] = shares @ rows
        return risks
    chunk = max(1, DRAWS_PER_CHUNK // sample_size)
    for start in range(0, n_datasets, chunk):
        size = min(chunk, n_datasets - start)
        drawn = row_of[rng.integers(len(losses), size=size * sample_size, dtype=np.int32)]
        ends = np.arange(size + 1, dtype=np.int32) * sample_size
        counts = scipy.sparse.csr_array((np.ones(len(drawn)), drawn, ends), (size, len(rows)))
        risks[start : start + size] = (counts @ rows) / sample_size
    return risks


def enumerate_datasets(
    losses: ArrayLike, sample_size: int, weights: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Every dataset of `sample_size` i.i.d. rows of losses (N, R): its probability (D,) and its
    risks (D, R).

    Order does not matter to a learner that sees averages, so datasets are multisets: D = C(N + m -
    1, m). Weights (N,) of the rows are uniform by default. Raises ValueError for bad tables and
    weights, a sample size below 1, and more datasets than fit in memory.

    >>> probabilities, risks = enumerate_datasets([[0, 1], [1, 0]], sample_size=2)
    >>> probabilities.round(4).tolist(), risks[:, 0].tolist()
    ([0.25, 0.5, 0.25], [0.0, 0.5, 1.0])
    """
    losses = as_losses(losses).astype(float)
    sample_size = as_count(sample_size, "sample_size")
    weights = as_weights(weights, len(losses))
    n = len(losses)
    n_multisets = scipy.special.comb(n + sample_size - 1, sample_size)
    check_size(n_multisets * max(n, sample_size), f"all datasets of {sample_size} of {n} rows")
    multisets = list(combinations_with_replacement(range(len(losses)), sample_size))
    counts = np.array([np.bincount(rows, minlength=len(losses)) for rows in multisets])
    log_weights = scipy.special.xlogy(counts, weights).sum(axis=1)
    log_repeats = scipy.special.gammaln(counts + 1).sum(axis=1)
    log_orders = scipy.special.gammaln(sample_size + 1) - log_repeats
    return np.exp(log_orders + log_weights), counts @ losses / sample_size


# --- the experiment: draw datasets, select, compare with the population ---


@dataclass(frozen=True)
class Selection:
    """What M runs of a learner did: one selected expert per dataset. Risks in [0, 1], information
    in nats."""

    selected: np.ndarray
    """index of the expert drawn from each posterior, (M,)"""
    train_risks: np.ndarray
    """its empirical risk on the dataset that selected it, (M,)"""
    test_risks: np.ndarray
    """its population risk, (M,)"""
    expected_gap: float
    """the gap averaged over the posteriors instead of one draw from each; same mean, less noise"""
    algorithmic: AlgorithmicInformation

    @property
    def information(self) -> float:
        """I(S;W) in nats, P2 (18)"""
        return self.algorithmic.information

    @property
    def marginal_entropy(self) -> float:
        """H(W) in nats, P2 (16)"""
        return self.algorithmic.marginal_entropy

    @property
    def conditional_entropy(self) -> float:
        """H(W|S) in nats, P2 (17)"""
        return self.algorithmic.conditional_entropy

    @property
    def train_risk(self) -> float:
        """mean empirical risk of the selected experts"""
        return float(self.train_risks.mean())

    @property
    def test_risk(self) -> float:
        """mean population risk of the selected experts"""
        return float(self.test_risks.mean())

    @cached_property
    def gaps(self) -> np.ndarray:
        """test minus train risk of every run, (M,)"""
        return self.test_risks - self.train_risks

    @property
    def gap(self) -> float:
        """mean gap G, P2 (20)"""
        return float(self.gaps.mean())

    @property
    def absolute_gap(self) -> float:
        """mean absolute gap G_abs"""
        return float(np.abs(self.gaps).mean())

    @property
    def gap_error(self) -> float:
        """standard error of `gap`; infinite for one run"""
        return mean_error(self.gaps)


def simulate(
    losses: ArrayLike,
    alpha: float = 0.7,
    sample_size: int = 256,
    n_datasets: int = 300,
    population: ArrayLike | None = None,
    rng: np.random.Generator | int = 0,
) -> Selection:
    """P2's experiment: draw M datasets from losses (N, R), select by alpha-mixture, compare with
    the population.

    `population` is another loss table (N', R), a risk vector (R,), or None: then the pool itself is
    the exact population, as the theorems assume. The same `rng` gives the same datasets at every
    alpha. Raises ValueError for bad tables, alpha outside [0, 1], counts below 1, or a population
    with other experts.

    >>> losses = np.random.default_rng(0).integers(0, 2, (500, 5))
    >>> run = simulate(losses, alpha=1.0, sample_size=20, n_datasets=400)
    >>> run.gap > 3 * run.gap_error, run.conditional_entropy  # the minimiser overfits
    (True, 0.0)
    """
    losses = as_losses(losses)
    as_number(alpha, "alpha", 0, 1)
    population_risks = _population_risks(losses, population)
    rng = np.random.default_rng(rng)
    risks = empirical_risks(losses, sample_size, n_datasets, rng)
    return select(risks, alpha_mixture(risks, alpha), population_risks, rng)


def select(
    risks: ArrayLike,
    posteriors: np.ndarray,
    population_risks: ArrayLike,
    rng: np.random.Generator | int,
) -> Selection:
    """Draw one expert per dataset from posteriors (M, R) and compare its risks (M, R) with its
    population risk (R,).

    Raises ValueError for risks that are not finite and rows that are no distributions.

    >>> risks = np.array([[0.0, 0.4], [0.4, 0.0]])
    >>> select(risks, alpha_mixture(risks, 1), [0.2, 0.2], rng=0).gap
    0.2
    """
    risks = as_risks(risks)
    population_risks = as_risks(population_risks, "population_risks")
    selected = draw_experts(posteriors, rng)
    return Selection(
        selected=selected,
        train_risks=risks[np.arange(len(risks)), selected],
        test_risks=population_risks[selected],
        expected_gap=float((posteriors * (population_risks - risks)).sum(axis=1).mean()),
        algorithmic=algorithmic_information(posteriors),
    )


def draw_experts(gate: np.ndarray, rng: np.random.Generator | int) -> np.ndarray:
    """One expert (N,) from each row of a gate or posterior (N, R).

    >>> draw_experts(np.eye(3), rng=0).tolist()
    [0, 1, 2]
    """
    uniform = np.random.default_rng(rng).random((len(gate), 1))
    # the last column is left out: rounding may end a cumulative sum just below 1
    return (gate.cumsum(axis=1)[:, :-1] < uniform).sum(axis=1)


def _population_risks(losses: np.ndarray, population: ArrayLike | None) -> np.ndarray:
    """Population risks (R,) from a table, risks, or the pool itself."""
    if population is None:
        return losses.mean(axis=0, dtype=float)
    if np.ndim(population) == 1:
        risks = as_risks(population, "population")
    else:
        risks = as_losses(population, "population").mean(axis=0, dtype=float)
    if len(risks) != losses.shape[1]:
        raise ValueError(
            f"population has {len(risks)} experts, losses has {losses.shape[1]}; they must be the "
            "same bank"
        )
    return risks
