"""Theorem 1 of P1 on populations small enough to write every dataset down, in order."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from expertbank import alpha_mixture, gibbs_posterior
from expertbank.theorem1 import donsker_varadhan, enumerate_selection, log_mgf
from support import refused

LOSSES = np.array([[0.0, 1.0, 0.5], [1.0, 0.2, 0.5], [0.3, 0.4, 0.9]])
WEIGHTS = np.array([0.5, 0.3, 0.2])
SEEDS = st.integers(0, 2**32 - 1)


def learn(risks):
    return gibbs_posterior(risks, 3.0)


def random_joint(rng, shape=(4, 3)):
    return rng.dirichlet(np.full(shape[0] * shape[1], 0.5)).reshape(shape)


def divergence(joint, other):
    """Kullback-Leibler divergence in nats, from its definition."""
    possible = joint > 0
    return float(np.sum(joint[possible] * np.log(joint[possible] / other[possible])))


# --- every dataset ---


@pytest.mark.parametrize("learner", [learn, lambda risks: alpha_mixture(risks, 0.6)])
@pytest.mark.parametrize("m", [1, 2, 4])
def test_selection_is_that_of_all_ordered_samples(m, learner):
    laws, posteriors, differences = [], [], []
    for sample in product(range(3), repeat=m):
        chosen = list(sample)
        risks = LOSSES[chosen].mean(axis=0)
        laws.append(WEIGHTS[chosen].prod())
        posteriors.append(learner(risks[None])[0])
        differences.append(WEIGHTS @ LOSSES - risks)
    joint = np.array(laws)[:, None] * np.array(posteriors)
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    exact = enumerate_selection(LOSSES, m, learner, WEIGHTS)
    assert exact.probabilities.sum() == pytest.approx(1)
    assert exact.joint.sum(axis=0) == pytest.approx(joint.sum(axis=0))
    assert exact.gap == pytest.approx(float(np.sum(joint * differences)))
    # a learner of averages reads no order: what the multisets tell is all there is
    assert exact.information == pytest.approx(divergence(joint, independent))
    assert exact.information == pytest.approx(divergence(exact.joint, exact.product))


def test_a_learner_that_does_not_look_learns_nothing():
    blind = enumerate_selection(LOSSES, 3, lambda risks: np.full(risks.shape, 1 / 3))
    assert blind.information == pytest.approx(0, abs=1e-12)
    assert blind.gap == pytest.approx(0, abs=1e-12)


# --- cumulants and the variational formula ---


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_cumulants_of_binomial_counts(p):
    lam = np.linspace(-4, 4, 9)
    counts = np.arange(7)
    found = log_mgf(binom.pmf(counts, 6, p), counts, lam)
    assert found == pytest.approx(6 * np.log1p(p * np.expm1(lam)))


def test_what_cannot_happen_counts_for_nothing():
    assert log_mgf([1.0, 0.0], [2.0, np.inf], 0.5) == pytest.approx(1.0)


@given(SEEDS, st.floats(-5, 5))
def test_no_function_passes_the_information(seed, lam):
    rng = np.random.default_rng(seed)
    joint = random_joint(rng)
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    information = divergence(joint, independent)
    values = rng.normal(size=joint.shape)
    assert donsker_varadhan(joint, values, lam) <= information + 1e-9
    # nothing is to be had from independent variables
    assert donsker_varadhan(independent, values, lam) <= 1e-9


@given(SEEDS)
def test_the_log_density_attains_it(seed):
    joint = random_joint(np.random.default_rng(seed)) * 0.9 + 0.1 / 12
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    values = np.log(joint / independent)
    information = divergence(joint, independent)
    assert donsker_varadhan(joint, values, 1.0) == pytest.approx(information)


# --- the theorem, step by step ---


@given(SEEDS, st.integers(1, 4), st.floats(0, 50))
def test_the_chain_of_inequalities_ends_in_the_bound(seed, m, beta):
    losses = np.random.default_rng(seed).random((3, 4))
    exact = enumerate_selection(losses, m, lambda risks: gibbs_posterior(risks, beta))
    lam = np.linspace(0.1, 20, 40)
    cumulant = log_mgf(exact.product, exact.differences, lam)
    # lam gap <= I + log E exp(lam difference) <= I + lam^2 / 8m, by Hoeffding's lemma
    assert (lam * exact.gap <= exact.information + cumulant + 1e-9).all()
    assert (cumulant <= lam**2 / (8 * m) + 1e-9).all()
    assert exact.gap <= np.sqrt(exact.information / (2 * m)) + 1e-9


# --- bad input ---


def test_bad_input_is_named():
    refused(lambda: enumerate_selection(LOSSES, 0, learn), "sample_size", "0")
    refused(lambda: enumerate_selection(LOSSES, 2, learn, [1.0, 2.0]), "weights", "(2,)")
    refused(lambda: enumerate_selection([1.0], 2, learn), "losses", "(1,)")
    # a learner that returns the risks themselves
    refused(lambda: enumerate_selection(LOSSES, 2, np.asarray), "learner")
    refused(lambda: log_mgf([0.5, 0.6], [0, 1], 1.0), "law")
    refused(lambda: donsker_varadhan([[0.5, 0.6]], [[0, 1]], 1.0), "law")
