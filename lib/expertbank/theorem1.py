"""Theorem 1 of P1 on examples small enough to enumerate: laws, cumulants and information without
sampling. Nats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from expertbank._checks import as_distribution, as_gate, as_losses, as_weights
from expertbank.information import mutual_information
from expertbank.learners import enumerate_datasets


@dataclass(frozen=True)
class ExactSelection:
    """A learner on every dataset of m inputs: D datasets, R candidates. Risks as the losses,
    information in nats."""

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
        """I(S;W), the divergence of `joint` from `product`"""
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
    losses, sample_size: int, learner: Callable, weights=None
) -> ExactSelection:
    """Run `learner`, a map from risks (D, R) to posteriors (D, R), on every dataset of
    `sample_size` inputs.

    losses (N, R) and input weights (N,), default uniform, are the whole population. D = C(N + m -
    1, m) is held in memory. Raises ValueError for bad losses, weights or sample size, or a learner
    whose rows do not sum to 1.
    """
    losses = as_losses(losses).astype(float)
    probabilities, risks = enumerate_datasets(losses, sample_size, weights)
    posterior = as_gate(learner(risks), "learner(risks)")
    return ExactSelection(
        probabilities, risks, posterior, as_weights(weights, len(losses)) @ losses
    )


def log_mgf(law, values, lam):
    """log E[exp(lam * values)] under a law of the same shape, for every lam (...,)."""
    law, values = _flat(law, "law"), np.asarray(values, float).ravel()
    exponents = np.asarray(lam, float)[..., None] * values[law > 0]
    return scipy.special.logsumexp(exponents, b=law[law > 0], axis=-1)


def donsker_varadhan(joint, values, lam):
    """lam E_joint[f] - log E_product[exp(lam f)] for f = values (D, R) and every lam (...,), in
    nats.

    Never above I(S;W) (Donsker & Varadhan 1983); equal to it at lam = 1 for f = log(joint /
    product).
    """
    joint = np.asarray(joint, float)
    product = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    return np.asarray(lam, float) * np.sum(joint * values) - log_mgf(product, values, lam)


def _flat(law, name: str) -> np.ndarray:
    return as_distribution(np.ravel(law), name)
