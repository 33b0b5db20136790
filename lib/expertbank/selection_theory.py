"""What a learner that selects from a bank leaks and overfits, without drawing a dataset. Nats.

**Statement.** Let R_S be the empirical risks on m i.i.d. inputs, mu and Sigma the mean and the
covariance of an input's losses, and q_t the chance that t minimises R_S. As m grows, q_t, I(S;W)
and sqrt(m) times the gap come as near as one likes to what they are for R_S ~ N(mu, Sigma/m).

*Proof.* {t minimises} is a set {r_t <= r_s for all s}, an intersection of half-spaces. By Bentkus
(2005) a normalised sum of m independent vectors in d dimensions and its Gaussian differ on convex
sets by at most C d^(1/4) E|Sigma^(-1/2) (l - mu)|^3 / sqrt(m), in the d coordinates in which losses
vary. So q differs in total variation by some v = O(R / sqrt m); the entropy of q, which is I(S;W)
at alpha = 1, by at most v log(R - 1) + h(v); the gap, the mean of sqrt(m)(mu_W - R_S,W), converges
as it is uniformly integrable: the squares have mean at most the trace of Sigma. A mixture with the
uniform law has the gap alpha G, its I follows from q. Ties have no part where no two experts are
copies; of copies the smallest index wins, as in the library's learner.

*Many experts.* Where the variance of each difference of two losses is at least b > 0, the event
that t wins is a rectangle in the R - 1 differences, and by Proposition 2.1 of Chernozhukov,
Chetverikov & Kato (2017) q_t is off by at most C_b (log(Rm)^7 / m)^(1/6): the dimension enters by
its logarithm. No constant is known that says anything at m = 256; how near it is there is measured.

*What is left at finite m.* Counts of mistakes are integers, so that ties go to the smallest index:
most of what I(S;W) lacks, as with ties drawn fairly it agrees. And they are skewed: most of the
gap's excess. `margins="binomial"` gives each count its exact law and keeps the Gaussian dependence
(a copula): no theorem, but it has nearly all of the difference. On the 21 MNIST banks of P2's
recipe, theory over 50,000 simulated datasets, mean +- sd over banks:

    m       ties   I, normal       G, normal       I, binomial     G, binomial
    32      71 %   1.123 +- .030   1.199 +- .037   1.025 +- .007   1.060 +- .011
    256     26 %   1.027 +- .024   1.045 +- .021   1.001 +- .003   1.003 +- .003
    1,024   10 %   1.014 +- .022   1.017 +- .022   1.002 +- .004   1.002 +- .004

Rank correlations of I and G over banks at m = 256 are .94 and .95 (.99 and 1.00 with binomial
margins); at m = 32 that of I is -.04: there the normal theory fails. `make selection` has all of
it.

Probabilities are integrals over orthants of R - 1 dimensions, done by scrambled Sobol points with
fixed seeds; the spread over independent scrambles is the stated error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_count, as_losses, as_number, check_size
from expertbank.information import mean_error
from expertbank.learners import mix_with_uniform

MARGINS = ("normal", "rounded", "smoothed", "binomial")
SCRAMBLES = 8  # independent ones of the same points
MOST_POINTS_EACH = 2**20
LARGEST_SAMPLE = 10**6  # with binomial margins, whose laws are tabulated


@dataclass(frozen=True)
class GaussianSelection:
    """I(S;W) and gap of an alpha-mixture by the Gaussian theory; `gaussian_selection` makes it."""

    chances: np.ndarray
    """of each expert to minimise the empirical risk, (R,)"""
    information: float
    """I(S;W) in nats"""
    gap: float
    """E[R(W) - R_S(W)]"""
    information_error: float
    """standard error of the integration, over scrambles"""
    gap_error: float
    """the same of the gap"""


def gaussian_selection(
    losses: ArrayLike,
    sample_size: int = 256,
    alpha: float = 1.0,
    margins: str = "normal",
    n_points: int = 2**12,
) -> GaussianSelection:
    """I(S;W) and gap of the alpha-mixture on samples of losses (N, R), predicted without a dataset.

    The empirical risks are taken to be N(mu, Sigma/m) with the table's own mean and covariance; see
    the module's text for the theorem. `margins` is "normal" or, for 0-1 losses, "binomial": counts
    of mistakes with their exact laws and ties, tied together as the Gaussian ties them. Two more
    take one of these steps alone: "rounded" makes the normal count whole, "smoothed" spreads each
    binomial count evenly over its cell, so that nothing ties. Of `n_points` Sobol points, a power
    of 2, there are `SCRAMBLES` scrambles. Raises ValueError for a bad table, alpha outside [0, 1],
    other margins, losses other than 0 and 1 without normal ones, or numbers that are too large.

    Two fair coins against each other, m = 100: a gap of sqrt(1/(4 pi m)):

    >>> coins = [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> found = gaussian_selection(coins, sample_size=100)
    >>> round(found.gap, 4), round(found.information, 4)
    (0.0282, 0.6931)
    """
    losses = as_losses(losses)
    m = as_count(sample_size, "sample_size")
    alpha = as_number(alpha, "alpha", 0, 1)
    _check_margins(losses, m, margins)
    n_points = _check_points(n_points, losses.shape[1], m)
    # of copies only the first can win
    first = np.sort(np.unique(losses, axis=1, return_index=True)[1])
    won, gaps = _integrated(losses[:, first].astype(float), m, margins, n_points)
    chances = np.zeros((SCRAMBLES, losses.shape[1]))
    chances[:, first] = won
    informations = [_leaked(row, alpha) for row in chances]
    return GaussianSelection(
        chances=chances.mean(axis=0),
        information=_leaked(chances.mean(axis=0), alpha),
        gap=alpha * float(gaps.mean()),
        information_error=mean_error(np.array(informations)),
        gap_error=alpha * mean_error(gaps),
    )


def _check_margins(losses: np.ndarray, m: int, margins: str) -> None:
    if margins not in MARGINS:
        raise ValueError(f"margins is {margins!r}; allowed are {', '.join(MARGINS)}")
    if margins == "normal":
        return
    if not np.isin(losses, (0, 1)).all():
        raise ValueError(f"losses hold values other than 0 and 1; {margins} margins count 0-1s")
    as_count(m, "sample_size", at_most=LARGEST_SAMPLE)


def _check_points(n_points: int, n_experts: int, m: int) -> int:
    n_points = as_count(n_points, "n_points", 2, MOST_POINTS_EACH)
    if n_points & (n_points - 1):
        raise ValueError(f"n_points is {n_points}; allowed is a power of 2")
    check_size(n_points * n_experts + m, f"{n_points} points of {n_experts} experts")
    return n_points


def _integrated(
    losses: np.ndarray, m: int, margins: str, n_points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Chances to win (SCRAMBLES, R) and gaps (SCRAMBLES,) of the minimiser, one a scramble."""
    n_experts = losses.shape[1]
    mean = losses.mean(axis=0)
    deviations = losses - mean
    covariance = deviations.T @ deviations / len(losses)
    values, vectors = np.linalg.eigh(covariance)
    # the directions of largest variance get the first coordinates, which are spread best
    root = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1]
    won = []
    gaps = []
    for seed in range(SCRAMBLES):
        sobol = scipy.stats.qmc.Sobol(n_experts, rng=np.random.default_rng(seed))
        # a scrambled point may be 0
        uniform = np.maximum(sobol.random(n_points), 2.0**-64)
        noise = scipy.special.ndtri(uniform) @ root.T
        risks = _sample_risks(noise, mean, np.sqrt(covariance.diagonal()), m, margins)
        winner = risks.argmin(axis=1)
        won.append(np.bincount(winner, minlength=n_experts) / n_points)
        gaps.append((mean[winner] - risks[np.arange(n_points), winner]).mean())
    return np.array(won), np.array(gaps)


def _sample_risks(
    noise: np.ndarray, mean: np.ndarray, deviation: np.ndarray, m: int, margins: str
) -> np.ndarray:
    """Risks (K, R) on m inputs from Gaussian noise (K, R) of one input."""
    normal = mean + noise / np.sqrt(m)
    if margins == "normal":
        return normal
    if margins == "rounded":
        return np.rint(normal * m) / m  # integers over m, so that ties are ties
    counts = np.arange(m + 1)
    found = np.empty_like(noise)
    for t, p in enumerate(mean):
        if deviation[t] == 0:
            found[:, t] = p
            continue
        law = scipy.special.bdtr(counts, m, p)
        chance = scipy.special.ndtr(noise[:, t] / deviation[t])
        count = np.minimum(np.searchsorted(law, chance), m)
        if margins == "smoothed":
            below = np.where(count > 0, law[count - 1], 0)
            width = np.maximum(law[count] - below, np.finfo(float).tiny)
            count = count - 0.5 + np.clip((chance - below) / width, 0, 1)
        found[:, t] = count / m
    return found


def _leaked(chances: np.ndarray, alpha: float) -> float:
    """I(S;W) of the alpha-mixture whose minimiser has the given law (R,)."""
    one = mix_with_uniform(np.eye(len(chances))[0], alpha)
    law = mix_with_uniform(chances, alpha)
    spread = scipy.special.entr(law).sum() - scipy.special.entr(one).sum()
    return max(0.0, float(spread))
