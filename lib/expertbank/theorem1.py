"""Theorem 1 of P1 on examples small enough to enumerate, in nats.

Laws, cumulants and information are computed without sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_distribution, as_gate, as_losses, as_weights
from expertbank.information import mutual_information
from expertbank.learners import enumerate_datasets


@dataclass(frozen=True)
class ExactSelection:
    """A learner on every dataset of m inputs: D datasets, R candidates.

    Risks are in units of the losses, information is in nats. `enumerate_selection` makes it.
    """

    probabilities: np.ndarray
    """probability of each dataset, (D,); datasets are multisets, since a learner of averages
    ignores order"""
    risks: np.ndarray
    """empirical risk of each candidate on each dataset, (D, R)"""
    posterior: np.ndarray
    """q(w|s), (D, R)"""
    population_risks: np.ndarray
    """R(w), (R,)"""

    @property
    def joint(self) -> np.ndarray:
        """the law of (S, W), (D, R)"""
        return self.probabilities[:, None] * self.posterior

    @property
    def product(self) -> np.ndarray:
        """the product of the laws of S and W, (D, R)"""
        return self.probabilities[:, None] * self.joint.sum(axis=0)

    @property
    def information(self) -> float:
        """I(S;W) in nats, the divergence of `joint` from `product`"""
        return mutual_information(self.posterior, self.probabilities)

    @property
    def differences(self) -> np.ndarray:
        """population minus empirical risk, (D, R)"""
        return self.population_risks - self.risks

    @property
    def gap(self) -> float:
        """E[R(W)] - E[R_S(W)]"""
        return float((self.joint * self.differences).sum())


def enumerate_selection(
    losses: ArrayLike,
    sample_size: int,
    learner: Callable[[np.ndarray], ArrayLike],
    weights: ArrayLike | None = None,
) -> ExactSelection:
    """Run `learner` on every dataset of `sample_size` inputs.

    losses (N, R) and input weights (N,), default uniform, are the whole population. `learner` maps
    risks (D, R) to posteriors (D, R). D = C(N + m - 1, m) is held in memory. Raises ValueError for
    bad losses, weights or sample size, or a learner whose rows do not sum to 1.

    Two experts, each right on one of two inputs; whoever does better on both draws is selected:

    >>> from expertbank.learners import alpha_mixture
    >>> exact = enumerate_selection(np.eye(2), 2, lambda risks: alpha_mixture(risks, alpha=1.0))
    >>> round(exact.information, 4), round(exact.gap, 4)
    (0.5623, 0.25)
    """
    losses = as_losses(losses).astype(float)
    probabilities, risks = enumerate_datasets(losses, sample_size, weights)
    posterior = as_gate(learner(risks), "learner(risks)")
    population_risks = as_weights(weights, len(losses)) @ losses
    return ExactSelection(probabilities, risks, posterior, population_risks)


def log_mgf(law: ArrayLike, values: ArrayLike, lam: ArrayLike) -> np.ndarray:
    """log E[exp(lam * values)] under a law of the same shape as the values, for every lam (...,).

    Raises ValueError for a law that does not sum to 1.

    A fair sign has the logarithm of cosh lam:

    >>> log_mgf([0.5, 0.5], [-1, 1], lam=[0.0, 1.0]).round(4).tolist()
    [0.0, 0.4338]
    """
    law = as_distribution(np.ravel(law), "law")
    values = np.asarray(values, float).ravel()
    possible = law > 0
    law = law[possible]
    values = values[possible]
    lam = np.asarray(lam, float)
    # in blocks of at most 128 MiB
    blocks = np.array_split(lam.ravel(), 1 + lam.size * len(law) // 2**24)
    logs = [scipy.special.logsumexp(x[:, None] * values, b=law, axis=-1) for x in blocks]
    return np.concatenate(logs).reshape(lam.shape)


def donsker_varadhan(joint: ArrayLike, values: ArrayLike, lam: ArrayLike) -> np.ndarray:
    """lam E_joint[f] - log E_product[exp(lam f)] for f = values (D, R) and every lam (...,).

    In nats. Never above I(S;W) (Donsker & Varadhan 1983); equal to it at lam = 1 for f = log(joint
    / product). Raises ValueError for a joint law (D, R) that does not sum to 1.

    >>> joint = np.array([[0.4, 0.1], [0.1, 0.4]])
    >>> density = np.log(joint / 0.25)
    >>> donsker_varadhan(joint, density, lam=[0.5, 1.0]).round(4).tolist()
    [0.1491, 0.1927]
    """
    joint = np.asarray(joint, float)
    product = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    expected = np.sum(joint * values)
    return np.asarray(lam, float) * expected - log_mgf(product, values, lam)
