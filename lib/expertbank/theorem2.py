"""P1's Theorem 2 with every term measured, for a learner that selects one of finitely many gates.

Information and rates are in nats. The sample S and the population are of inputs that no gate was
trained on; S is drawn from a pool that is itself the exact population, so that risks, rates and
D(R) of the pool are known and only the datasets are sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import SUM_TOLERANCE, as_count, as_interval, as_losses
from expertbank.bounds import theorem2_bound
from expertbank.information import algorithmic_information
from expertbank.learners import alpha_mixture, empirical_risks
from expertbank.rate_distortion import RateDistortionCurve


@dataclass(frozen=True)
class Theorem2Terms:
    """Both sides of P1's (8) and (10) for A values of the learner's parameter.

    Arrays (A,) unless said otherwise. `theorem2_terms` measures them.
    """

    parameter: np.ndarray
    """alpha of the alpha-mixture, or whatever the learner takes"""
    sample_size: int
    marginal: np.ndarray
    """law of W, (A, K)"""
    information: np.ndarray
    """I(S;W) in nats, less its bias by the delta method"""
    information_interval: np.ndarray
    """normal interval at 95%, (A, 2)"""
    population_risk: np.ndarray
    """E[R(W)]"""
    gap: np.ndarray
    """E[R(W) - R_S(W)]"""
    gap_error: np.ndarray
    """its standard error"""
    rate: np.ndarray
    """E[I_W] = I(X;T|W) in nats: mean rate of the selected gate"""
    distortion: np.ndarray
    """E[D(I_W)]: what the best gates of those rates would lose"""
    distortion_at_mean: np.ndarray
    """D(E[I_W]), never more than `distortion`: D is convex"""

    @property
    def train_risk(self) -> np.ndarray:
        """E[R_S(W)]"""
        return self.population_risk - self.gap

    @property
    def excess(self) -> np.ndarray:
        """the smallest delta_m with which (8) holds, E[R_S(W)] - E[D(I_W)]; negative where (8)
        holds with room"""
        return self.train_risk - self.distortion

    def bound(self, sigma: float = 0.5) -> np.ndarray:
        """The right side of (10), (A,), with that delta_m, or with 0 where it is negative."""
        excess = np.maximum(0, self.excess)
        return np.asarray(
            theorem2_bound(self.distortion, self.information, self.sample_size, excess, sigma)
        )


def theorem2_terms(
    gate_losses: ArrayLike,
    rates: ArrayLike,
    curve: RateDistortionCurve,
    alpha: ArrayLike,
    sample_size: int,
    n_datasets: int = 2000,
    rng: np.random.Generator | int = 0,
    learner: Callable[[np.ndarray, float], np.ndarray] = alpha_mixture,
) -> Theorem2Terms:
    """Draw M datasets from the pool, let the learner select a gate from each, measure (8) and (10).

    gate_losses (N, K) in [0, 1] is the expected loss of K gates on the pool's inputs, rates (K,)
    their I(X;T) there in nats, `curve` the certified D(R) of the same pool, of which the lower end
    is taken. alpha is one value or a list; all see the same datasets. learner(risks, alpha) maps
    risks (M, K) to posteriors: `alpha_mixture` or `gibbs_posterior`. Raises ValueError for losses
    outside [0, 1], rates that are negative or not one for each gate, or fewer than two datasets.

    The gates of one bank at three prices; Theorem 2 holds for the learner that selects among them:

    >>> from expertbank.rate_distortion import rate_distortion_curve, routing
    >>> losses = np.random.default_rng(0).random((200, 3))
    >>> curve = rate_distortion_curve(losses, [0.05, 0.1, 0.2])
    >>> gates = [routing(losses, curve.point(index)) for index in range(3)]
    >>> gate_losses = np.stack([(gate * losses).sum(axis=1) for gate in gates], axis=1)
    >>> terms = theorem2_terms(gate_losses, curve.rate, curve, alpha=0.7, sample_size=16)
    >>> bool(terms.population_risk[0] <= terms.bound()[0])
    True
    """
    losses = as_losses(gate_losses, "gate_losses")
    n_datasets = as_count(n_datasets, "n_datasets", at_least=2)
    as_interval(losses, "gate_losses", 0, 1 + SUM_TOLERANCE, allowed="[0, 1]")
    rates = _one_rate_a_gate(rates, losses)
    parameter = np.atleast_1d(np.asarray(alpha, dtype=float))
    risks = empirical_risks(losses, sample_size, n_datasets, rng)
    population_risks = losses.mean(axis=0, dtype=float)
    distortions = curve.lower(rates)
    rows = [
        _measure(learner(risks, value), risks, population_risks) for value in parameter.tolist()
    ]
    marginal, information, interval, gap, gap_error = (np.array(column) for column in zip(*rows))
    rate = marginal @ rates
    return Theorem2Terms(
        parameter=parameter,
        sample_size=sample_size,
        marginal=marginal,
        information=information,
        information_interval=interval,
        population_risk=marginal @ population_risks,
        gap=gap,
        gap_error=gap_error,
        rate=rate,
        distortion=marginal @ distortions,
        distortion_at_mean=curve.lower(rate),
    )


def _one_rate_a_gate(rates, losses: np.ndarray) -> np.ndarray:
    """Rates (K,) of the gates whose losses are (N, K), or a ValueError."""
    rates = np.asarray(as_interval(rates, "rates", 0, np.inf, allowed="numbers >= 0"))
    if rates.shape != losses.shape[1:]:
        raise ValueError(
            f"rates has shape {rates.shape}; allowed is {losses.shape[1:]}, one for each gate"
        )
    return rates


def _measure(posteriors: np.ndarray, risks: np.ndarray, population_risks: np.ndarray):
    """Law of W (K,), I(S;W) and its interval, the gap and its error, from posteriors (M, K).

    The gap is estimated as minus the covariance of posterior and risk over the datasets, summed
    over gates: a gate that is selected at random has none, and adds no noise.
    """
    n_datasets, n_gates = posteriors.shape
    marginal = posteriors.mean(axis=0)
    found = algorithmic_information(posteriors)
    information = min(max(0.0, found.information - found.bias), np.log(n_gates))
    products = ((posteriors - marginal) * (population_risks - risks)).sum(axis=1)
    gaps = products * n_datasets / (n_datasets - 1)
    gap_error = gaps.std(ddof=1) / np.sqrt(n_datasets)
    return marginal, information, found.interval, gaps.mean(), gap_error
