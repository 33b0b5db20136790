"""Learners that pick one expert from a finite bank, and the experiment that measures what they leak
and overfit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
import scipy

from expertbank._checks import BELOW_INF, as_count, as_losses, as_number, as_risks, as_weights
from expertbank.information import AlgorithmicInformation, algorithmic_information
from expertbank.tables import merge_rows

# draws held at once by `empirical_risks`: a few dozen megabytes, whatever the number of datasets
DRAWS_PER_CHUNK = 1_000_000


def alpha_mixture(risks, alpha: float) -> np.ndarray:
    """Posterior q(r|S) = (1-alpha)/R + alpha 1{r = argmin risk}, ties to the smallest index: P2
    (11).

    risks (..., R) gives a posterior (..., R). Raises ValueError for alpha outside [0, 1].
    """
    risks = as_risks(risks)
    return mix_with_uniform(np.arange(risks.shape[-1]) == risks.argmin(axis=-1)[..., None], alpha)


def mix_with_uniform(posterior, alpha: float) -> np.ndarray:
    """(1-alpha)/R + alpha posterior, for posteriors (..., R) over R experts."""
    alpha = as_number(alpha, "alpha", 0, 1)
    return (1 - alpha) / np.shape(posterior)[-1] + alpha * np.asarray(posterior, float)


def epsilon_greedy(risks, epsilon: float) -> np.ndarray:
    """1 - epsilon shared evenly by all minimisers of risks (..., R), epsilon by all experts.

    With epsilon = 0 it is the empirical risk minimiser with ties broken at random.
    """
    risks, epsilon = as_risks(risks), as_number(epsilon, "epsilon", 0, 1)
    best = risks == risks.min(axis=-1, keepdims=True)
    return mix_with_uniform(best / best.sum(axis=-1, keepdims=True), 1 - epsilon)


def top_k_uniform(risks, k: int) -> np.ndarray:
    """1/k on each of the k smallest risks (..., R), ties to the smallest index. Raises ValueError
    for k > R."""
    risks, k = as_risks(risks), as_count(k, "k")
    if k > risks.shape[-1]:
        raise ValueError(f"k is {k}; allowed is at most {risks.shape[-1]}, the number of experts")
    posterior = np.zeros(risks.shape)
    np.put_along_axis(posterior, risks.argsort(axis=-1, kind="stable")[..., :k], 1 / k, axis=-1)
    return posterior


def gibbs_posterior(risks, inverse_temperature: float) -> np.ndarray:
    """Posterior q(r|S) proportional to exp(-inverse_temperature * risk), for risks (..., R)."""
    allowed = "a finite number >= 0 (the limit at inf is alpha_mixture with 1)"
    beta = as_number(inverse_temperature, "inverse_temperature", 0, BELOW_INF, allowed)
    risks = as_risks(risks)
    # only the excess is multiplied: the best stays at 0, others may reach -inf
    with np.errstate(over="ignore"):
        return scipy.special.softmax(-beta * (risks - risks.min(axis=-1, keepdims=True)), axis=-1)


def empirical_risks(
    losses, sample_size: int, n_datasets: int, rng: np.random.Generator | int
) -> np.ndarray:
    """Empirical risks (M, R) on M datasets of `sample_size` rows drawn with replacement from losses
    (N, R).

    Each chunk of datasets is one product of a sparse count matrix with the distinct loss rows.
    """
    losses = as_losses(losses)
    sample_size, n_datasets = (
        as_count(sample_size, "sample_size"),
        as_count(n_datasets, "n_datasets"),
    )
    rng = np.random.default_rng(rng)
    rows, _, row_of = merge_rows(losses)
    rows, row_of = rows.astype(float), row_of.astype(np.int32)
    risks = np.empty((n_datasets, losses.shape[1]))
    chunk = max(1, DRAWS_PER_CHUNK // sample_size)
    for start in range(0, n_datasets, chunk):
        size = min(chunk, n_datasets - start)
        drawn = row_of[rng.integers(len(losses), size=size * sample_size, dtype=np.int32)]
        counts = scipy.sparse.csr_array(
            (np.ones(len(drawn)), drawn, np.arange(size + 1, dtype=np.int32) * sample_size),
            (size, len(rows)),
        )
        risks[start : start + size] = (counts @ rows) / sample_size
    return risks


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
    """the gap averaged over the posteriors instead of one draw from each: same mean, less noise"""
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
        return float(self.train_risks.mean())

    @property
    def test_risk(self) -> float:
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
        """standard error of `gap`"""
        return (
            float(self.gaps.std(ddof=1) / np.sqrt(len(self.gaps))) if len(self.gaps) > 1 else np.inf
        )


def draw_experts(gate: np.ndarray, rng: np.random.Generator | int) -> np.ndarray:
    """One expert (N,) from each row of a gate or posterior (N, R)."""
    uniform = np.random.default_rng(rng).random((len(gate), 1))
    # the last column is left out: rounding may end a cumulative sum just below 1
    return (gate.cumsum(axis=1)[:, :-1] < uniform).sum(axis=1)


def select(risks, posteriors, population_risks, rng: np.random.Generator | int) -> Selection:
    """Draw one expert per dataset from posteriors (M, R) and compare its risks (M, R) with its
    population risk (R,)."""
    risks, population_risks = as_risks(risks), as_risks(population_risks, "population_risks")
    rng = np.random.default_rng(rng)
    selected = draw_experts(posteriors, rng)
    return Selection(
        selected=selected,
        train_risks=risks[np.arange(len(risks)), selected],
        test_risks=population_risks[selected],
        expected_gap=float((posteriors * (population_risks - risks)).sum(axis=1).mean()),
        algorithmic=algorithmic_information(posteriors),
    )


def simulate(
    losses,
    alpha: float = 0.7,
    sample_size: int = 256,
    n_datasets: int = 300,
    population=None,
    rng: np.random.Generator | int = 0,
) -> Selection:
    """P2's experiment: draw M datasets from losses (N, R), select by alpha-mixture, compare with
    the population.

    `population` is another loss table (N', R), a risk vector (R,), or None: then the pool itself is
    the exact population, as the theorems assume. The same `rng` gives the same datasets at every
    alpha. Raises ValueError for bad tables, alpha outside [0, 1], counts below 1, or a population
    with other experts.
    """
    losses = as_losses(losses)
    as_number(alpha, "alpha", 0, 1)
    population_risks = _population_risks(losses, population)
    rng = np.random.default_rng(rng)
    risks = empirical_risks(losses, sample_size, n_datasets, rng)
    return select(risks, alpha_mixture(risks, alpha), population_risks, rng)


def enumerate_datasets(losses, sample_size: int, weights=None):
    """Every dataset of `sample_size` i.i.d. rows of losses (N, R): its probability (D,) and its
    risks (D, R).

    Order does not matter to a learner that sees averages, so datasets are multisets: D = C(N + m -
    1, m).
    """
    losses = as_losses(losses).astype(float)
    sample_size = as_count(sample_size, "sample_size")
    weights = as_weights(weights, len(losses))
    multisets = list(combinations_with_replacement(range(len(losses)), sample_size))
    counts = np.array([np.bincount(s, minlength=len(losses)) for s in multisets])
    log_weights = scipy.special.xlogy(counts, weights).sum(axis=1)
    log_orders = scipy.special.gammaln(sample_size + 1) - scipy.special.gammaln(counts + 1).sum(
        axis=1
    )
    return np.exp(log_orders + log_weights), counts @ losses / sample_size


def _population_risks(losses: np.ndarray, population) -> np.ndarray:
    if population is None:
        return losses.mean(axis=0, dtype=float)
    if np.ndim(population) == 1:
        risks = as_risks(population, "population")
    else:
        risks = as_losses(population, "population").mean(axis=0, dtype=float)
    if len(risks) != losses.shape[1]:
        raise ValueError(
            f"population has {len(risks)} experts, losses has {losses.shape[1]}; they must be the same bank"
        )
    return risks
