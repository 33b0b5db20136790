"""Closed forms of channels against their matrices, optimised inputs, exact coding bounds and
contraction laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.optimize import minimize
from scipy.special import gammaln, logsumexp, rel_entr

from expertbank.channels import (
    bsc_blocklength,
    bsc_contraction,
    bsc_distortion_rate,
    bsc_rate,
    erasure_capacity,
    erasure_channel,
    ldp_contraction,
    ldp_rate_cap,
    randomised_response,
    randomised_response_rate,
    symmetric_capacity,
    symmetric_channel,
    uniform_rate,
)
from expertbank.information import mutual_information

LOG2 = np.log(2)
letters = st.integers(2, 6)


def capacity(channel) -> float:
    """Capacity by optimising the input, certified: no input's divergence exceeds the answer
    (Kuhn-Tucker)."""
    n = len(channel)

    def negative(p):
        p = np.maximum(p, 0) / np.maximum(p, 0).sum()
        return -float(p @ rel_entr(channel, np.maximum(p @ channel, 1e-300)).sum(axis=1))

    start = np.random.default_rng(0).dirichlet(np.full(n, 5.0))
    found = minimize(
        negative,
        start,
        method="SLSQP",
        bounds=[(0, 1)] * n,
        options={"ftol": 1e-13, "maxiter": 500},
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
    )
    p = np.maximum(found.x, 0) / np.maximum(found.x, 0).sum()
    assert rel_entr(channel, p @ channel).sum(axis=1).max() <= -negative(p) + 1e-4
    return -negative(p)


def bsc(p):
    return np.array([[1 - p, p], [p, 1 - p]])


@given(st.floats(0, 1))
def test_bsc_rate(p):
    assert bsc_rate(p) == pytest.approx(mutual_information(bsc(p)), abs=1e-14)
    assert 0 <= bsc_rate(p) <= LOG2


@given(letters, st.floats(0, 1))
def test_symmetric_capacity_is_the_rate_of_its_matrix(k, p):
    channel = symmetric_channel(k, p)
    np.testing.assert_allclose(channel.sum(axis=1), 1, atol=1e-15)
    np.testing.assert_allclose(np.diag(channel), 1 - p)
    assert symmetric_capacity(k, p) == pytest.approx(mutual_information(channel), abs=1e-13)
    assert symmetric_capacity(2, p) == pytest.approx(bsc_rate(p), abs=1e-15)
    assert symmetric_capacity(k, p) >= 0


@given(letters, st.floats(0, 1))
def test_erasure_capacity_is_the_rate_of_its_matrix(k, erased):
    channel = erasure_channel(k, erased)
    assert channel.shape == (k, k + 1)
    assert erasure_capacity(k, erased) == pytest.approx(mutual_information(channel), abs=1e-13)
    assert erasure_capacity(k, erased) == pytest.approx((1 - erased) * np.log(k), abs=1e-13)


@given(letters, st.floats(0, 30))
def test_randomised_response_rate_is_the_rate_of_its_matrix(k, epsilon):
    channel = randomised_response(k, epsilon)
    ratio = channel.max(axis=0) / channel.min(axis=0)
    np.testing.assert_allclose(ratio, np.exp(epsilon), rtol=1e-9)  # exactly epsilon-LDP
    assert randomised_response_rate(k, epsilon) == pytest.approx(
        mutual_information(channel), abs=1e-12
    )
    assert randomised_response_rate(k, epsilon) <= ldp_rate_cap(k, epsilon) + 1e-12


def test_randomised_response_formula_of_the_paper_notes():
    k, e = 5, 1.3
    formula = np.log(k) - np.log(k - 1 + np.exp(e)) + e * np.exp(e) / (k - 1 + np.exp(e))
    assert randomised_response_rate(k, e) == pytest.approx(formula, abs=1e-14)


@pytest.mark.parametrize("epsilon", [0, 1e-9, 700, 1e5, np.inf])
def test_randomised_response_at_the_ends(epsilon):
    channel, rate = randomised_response(4, epsilon), randomised_response_rate(4, epsilon)
    expected, matrix = (0, np.full((4, 4), 0.25)) if epsilon < 1 else (np.log(4), np.eye(4))
    np.testing.assert_allclose(channel, matrix, atol=1e-9)
    assert rate == pytest.approx(expected, abs=1e-12)
    assert rate >= 0


@pytest.mark.parametrize(
    ("channel", "closed_form"),
    [
        (symmetric_channel(2, 0.11), bsc_rate(0.11)),
        (symmetric_channel(4, 0.3), symmetric_capacity(4, 0.3)),
        (symmetric_channel(3, 0.9), symmetric_capacity(3, 0.9)),
        (erasure_channel(3, 0.4), erasure_capacity(3, 0.4)),
        (randomised_response(5, 1.0), randomised_response_rate(5, 1.0)),
    ],
)
def test_capacity_by_brute_force(channel, closed_form):
    assert capacity(channel) == pytest.approx(closed_form, abs=1e-7)


@given(st.floats(0, 0.5))
def test_bsc_distortion_inverts_the_rate(p):
    assert bsc_rate(bsc_distortion_rate(bsc_rate(p))) == pytest.approx(bsc_rate(p), abs=1e-13)
    assert bsc_distortion_rate(bsc_rate(p)) == pytest.approx(p, abs=2e-8)


def test_bsc_distortion_rate_curve():
    rates = np.linspace(0, 1, 301)
    curve = bsc_distortion_rate(rates)
    assert curve[0] == 0.5
    assert np.all(curve[rates >= LOG2] == 0)
    assert np.all(np.diff(curve) <= 0)
    assert np.all(np.diff(curve, 2) >= -1e-12)
    assert bsc_distortion_rate(np.inf) == 0
    assert bsc_distortion_rate(LOG2 / 2) == pytest.approx(0.110027864, abs=1e-9)  # h = half a bit


@given(letters, st.floats(0, 1))
def test_uniform_rate_is_what_its_test_channel_spends(k, distortion):
    used = min(distortion, 1 - 1 / k)
    assert uniform_rate(distortion, k) == pytest.approx(
        mutual_information(symmetric_channel(k, used)), abs=1e-13
    )
    assert uniform_rate(distortion, k) >= 0
    assert uniform_rate(1, k) == pytest.approx(0, abs=1e-15)
    assert uniform_rate(0, k) == pytest.approx(np.log(k))


# --- privacy and contraction ---


@st.composite
def private_channels(draw, n_inputs=3):
    """A random channel and the epsilon for which it is exactly epsilon-LDP."""
    k = draw(st.integers(2, 4))
    reach = draw(st.floats(0, 3))
    tilt = draw(arrays(float, (n_inputs, k), elements=st.floats(0, reach)))
    base = draw(arrays(float, k, elements=st.floats(0.05, 1)))
    channel = base * np.exp(tilt)
    channel /= channel.sum(axis=1, keepdims=True)
    return channel, float(np.log(channel.max(axis=0) / channel.min(axis=0)).max())


def input_distribution(seed, n):
    return np.random.default_rng(seed).dirichlet(np.full(n, 0.7))


@given(private_channels(), st.integers(0, 10**6))
def test_private_gates_are_limited(private, seed):
    """Remark 3 of P1: any epsilon-LDP gate, any inputs."""
    channel, epsilon = private
    found = mutual_information(channel, input_distribution(seed, 3))
    assert found <= ldp_rate_cap(channel.shape[1], epsilon) + 1e-12


@given(
    private_channels(), arrays(float, (4, 3), elements=st.floats(0.01, 1)), st.integers(0, 10**6)
)
def test_private_channels_contract_information(private, gate, seed):
    """Asoodeh & Zhang: I(X;T_hat) <= tanh^2(eps/2) I(X;T)."""
    channel, epsilon = private
    gate = gate / gate.sum(axis=1, keepdims=True)
    p = input_distribution(seed, 4)
    limit = ldp_contraction(epsilon) * mutual_information(gate, p)
    assert mutual_information(gate @ channel, p) <= limit + 1e-12


@given(st.floats(0, 1), arrays(float, (4, 2), elements=st.floats(0.01, 1)), st.integers(0, 10**6))
def test_a_bsc_contracts_information(p, gate, seed):
    gate = gate / gate.sum(axis=1, keepdims=True)
    inputs = input_distribution(seed, 4)
    through = mutual_information(gate @ bsc(p), inputs)
    assert through <= bsc_contraction(p) * mutual_information(gate, inputs) + 1e-12
    assert through <= bsc_rate(p) + 1e-12


def test_ldp_rate_cap_is_the_smaller_limit():
    np.testing.assert_allclose(
        ldp_rate_cap(4, np.array([0, 0.5, 1.3, 2, np.inf])), [0, 0.5, 1.3, *[np.log(4)] * 2]
    )


def test_bsc_contraction_is_attained_by_weak_signals():
    for p in (0.05, 0.2, 0.4):
        gate = bsc(0.5 - 1e-3)
        ratio = mutual_information(gate @ bsc(p)) / mutual_information(gate)
        assert ratio == pytest.approx(bsc_contraction(p), rel=1e-4)
        assert bsc_contraction(1 - p) == pytest.approx(bsc_contraction(p))


@given(st.floats(0, 30))
def test_the_two_contractions_agree_on_binary_randomised_response(epsilon):
    assert ldp_contraction(epsilon) == pytest.approx(
        bsc_contraction(1 / (1 + np.exp(epsilon))), abs=1e-13
    )


# --- finite blocklength ---


def log_binomials(n):
    k = np.arange(n + 1)
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def meta_converse(n, p, error):
    """No code has more words: 1 / beta of the binary test between the channel and pure noise (2010,
    Theorem 35)."""
    log_ball = np.logaddexp.accumulate(log_binomials(n)) - n * LOG2
    within = stats.binom.cdf(np.arange(n + 1), n, p)
    last = int(np.searchsorted(within, 1 - error))  # weights up to `last`, the last one in part
    before = within[last - 1] if last else 0.0
    share = (1 - error - before) / (within[last] - before)
    log_before = log_ball[last - 1] if last else -np.inf
    shell = log_binomials(n)[last] - n * LOG2
    return -float(np.logaddexp(log_before, np.log(share) + shell))


def random_coding(n, p, error):
    """Some code has at least as many words: the random coding union bound (2010, Theorem 33), by
    bisection."""
    log_ball = np.logaddexp.accumulate(log_binomials(n)) - n * LOG2
    log_pmf = stats.binom.logpmf(np.arange(n + 1), n, p)
    low, high = 0.0, n * LOG2
    for _ in range(60):
        middle = (low + high) / 2
        failed = logsumexp(log_pmf + np.minimum(0, middle + log_ball))
        low, high = (middle, high) if failed <= np.log(error) else (low, middle)
    return low


@pytest.mark.parametrize(("p", "error"), [(0.11, 1e-3), (0.05, 1e-3), (0.11, 1e-6), (0.2, 1e-2)])
def test_blocklength_keeps_a_constant_distance_from_exact_bounds(p, error):
    """The approximation is claimed up to a constant; a wrong V, Q or log term would grow by more
    than a nat."""
    lengths = (200, 500, 2000, 5000)
    below, above = (
        np.array([bound(n, p, error) - bsc_blocklength(n, p, error) for n in lengths])
        for bound in (random_coding, meta_converse)
    )
    assert np.all(below < above)
    assert np.ptp(below) < 0.6 and np.ptp(above) < 0.9
    assert np.abs(below).max() < 5 and 0 < above.max() < 7


def test_blocklength_laws():
    assert bsc_blocklength(300, 0.11, 0.5) == pytest.approx(300 * bsc_rate(0.11) + np.log(300) / 2)
    rates = [bsc_blocklength(n, 0.11, 1e-3) / n for n in (100, 1000, 10_000, 10**6)]
    assert np.all(np.diff(rates) > 0) and rates[-1] < bsc_rate(0.11)
    assert rates[-1] == pytest.approx(bsc_rate(0.11), rel=0.01)
    by_error = [bsc_blocklength(500, 0.11, e) for e in (1e-9, 1e-6, 1e-3, 0.1)]
    assert np.all(np.diff(by_error) > 0)
    assert bsc_blocklength(5, 0.45, 1e-6) == 0


def test_blocklength_without_noise_and_without_signal():
    assert bsc_blocklength(100, 0, 1e-3) == pytest.approx(100 * LOG2)
    assert bsc_blocklength(100, 0.5, 1e-3) == 0  # the output ignores the input
