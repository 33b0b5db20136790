"""The bounds against the papers' numbers, and against gaps and information found by exhausting
every dataset."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from expertbank.bounds import theorem2_bound, union_bound, xu_raginsky_bound
from expertbank.information import gating_rate
from expertbank.learners import alpha_mixture, gibbs_posterior
from expertbank.rate_distortion import distortion_at_rate

losses_01 = arrays(
    float,
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    elements=st.floats(0, 1) | st.sampled_from([0.0, 1.0]),
)


def exact(losses, m, learner):
    """I(S;W), expected training risk and expected population risk over all N^m ordered datasets."""
    chosen = np.array(list(product(range(len(losses)), repeat=m)))
    risks = losses[chosen].mean(axis=1)
    joint = learner(risks) / len(chosen)
    information = (
        stats.entropy(joint.sum(0)) + stats.entropy(joint.sum(1)) - stats.entropy(joint.ravel())
    )
    return max(0.0, information), (joint * risks).sum(), float(joint.sum(0) @ losses.mean(axis=0))


@st.composite
def learners(draw):
    """An alpha-mixture, a Gibbs posterior, or an arbitrary function of the risks."""
    kind = draw(st.sampled_from(["alpha", "gibbs", "contrary"]))
    if kind == "alpha":
        alpha = draw(st.floats(0, 1))
        return lambda risks: alpha_mixture(risks, alpha)
    beta = draw(st.floats(0, 60))
    sign = 1 if kind == "gibbs" else -1  # picking the worst must be covered as well
    return lambda risks: gibbs_posterior(sign * risks, beta)


@given(losses_01, st.integers(1, 4), learners())
def test_theorem_1_on_every_dataset(losses, m, learner):
    information, train, population = exact(losses, m, learner)
    gap = abs(population - train)
    assert gap <= xu_raginsky_bound(information, m) + 1e-9
    assert gap <= union_bound(losses.shape[1], m) + 1e-9
    assert xu_raginsky_bound(information, m) <= union_bound(losses.shape[1], m) + 1e-9  # I <= log R


def test_theorem_1_is_not_vacuous():
    """One input decides: the gap is 85% of the bound, so a sigma 16% smaller would be refuted
    here."""
    information, train, population = exact(
        np.array([[0.0, 1.0], [1.0, 0.0]]), 1, lambda r: alpha_mixture(r, 1)
    )
    assert (information, train, population) == (pytest.approx(np.log(2)), 0, 0.5)
    assert population - train > xu_raginsky_bound(information, 1, sigma=0.42)
    assert population - train < xu_raginsky_bound(information, 1, sigma=0.43)


@given(losses_01, st.integers(1, 3), learners(), st.floats(0, 1))
def test_theorem_2_on_every_dataset(losses, m, learner, distortion):
    information, train, population = exact(losses, m, learner)
    excess = max(0.0, train - distortion)  # the least delta_m that (8) allows
    assert population <= theorem2_bound(distortion, information, m, excess) + 1e-9


@settings(max_examples=25)
@given(st.integers(0, 10**6), learners())
def test_theorem_2_with_the_distortion_of_the_gating_rate(seed, learner):
    """Candidates are gates over the same experts; D(R_g) is that of their loss table at the rate
    they use."""
    rng = np.random.default_rng(seed)
    experts = rng.integers(0, 2, (3, 3)).astype(float)  # inputs by experts
    gates = rng.dirichlet(np.full(3, 0.3), size=(4, 3))  # candidates by inputs by experts
    losses = (gates * experts).sum(axis=2).T  # inputs by candidates
    information, train, population = exact(losses, 3, learner)
    distortion = distortion_at_rate(experts, max(gating_rate(gate) for gate in gates), tol=1e-6)
    assert population >= distortion - 1e-4  # no gate beats the curve at its rate
    assert (
        population
        <= theorem2_bound(distortion, information, 3, max(0.0, train - distortion)) + 1e-9
    )


@pytest.mark.parametrize(
    ("information", "reported"),
    [(0.2919, 0.0478), (0.8305, 0.0805), (1.3778, 0.1038), (2.0569, 0.1268), (2.5280, 0.1405)],
)
def test_the_papers_bounds(information, reported):
    # P2 Table II
    assert xu_raginsky_bound(information, 256, sigma=1) == pytest.approx(reported, abs=6e-5)


def test_the_papers_union_bound():
    assert round(union_bound(25, 256), 3) == 0.079
    assert union_bound(1, 10) == 0


@given(st.floats(0, 10), st.integers(1, 10_000), st.floats(0.01, 10))
def test_formula(information, m, sigma):
    assert xu_raginsky_bound(information, m, sigma) == pytest.approx(
        sigma * (2 * information / m) ** 0.5
    )
    assert theorem2_bound(0.1, information, m, 0.02, sigma) == pytest.approx(
        0.12 + xu_raginsky_bound(information, m, sigma)
    )
    assert xu_raginsky_bound(information, 4 * m, sigma) == pytest.approx(
        xu_raginsky_bound(information, m, sigma) / 2
    )


def test_half_is_the_sub_gaussian_constant_of_a_loss_in_the_unit_interval():
    """Hoeffding's lemma: log E exp(t (L - E L)) <= t^2 sigma^2 / 2 with sigma = 1/2, and no smaller
    one."""
    t = np.linspace(-8, 8, 801)
    for p in np.linspace(0.01, 0.99, 99):
        cumulant = np.log1p(p * np.expm1(t)) - p * t
        assert np.all(cumulant <= t**2 / 8 + 1e-15)
    assert np.log(np.cosh(0.005)) > 0.01**2 * 0.4999**2 / 2  # p = 1/2, t = 0.01
    assert xu_raginsky_bound(1.0, 2) == 0.5


def test_arrays_and_extremes():
    np.testing.assert_allclose(xu_raginsky_bound(np.array([0, 2.0]), 4), [0, 0.5])
    assert xu_raginsky_bound(np.inf, 4) == np.inf
    np.testing.assert_allclose(
        theorem2_bound(np.array([0.1, 0.2]), np.array([0, 2.0]), 4), [0.1, 0.7]
    )
