"""Inverses, searches and closed forms against mpmath, from 1e-30 to the top.

Each is within a relative 1e-9 of the truth, and what is promised as a bound lies on its safe side.
What inverts an increasing function needs no inverse to be checked: in 50 digits and more the
function must reach the target at the library's answer, and not at an answer a relative 1e-9 away.
"""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from expertbank import (
    binary_entropy,
    binary_entropy_inverse,
    bounds,
    bsc_distortion_rate,
    bsc_rate,
    channels,
    critical_lambda,
    distortion_at_rate,
    privacy,
    xu_raginsky_bound,
)
from expertbank.information import bracketed_root, divergence_terms
from expertbank.synthetic import bsc_threshold

CLOSE = mp.mpf(10) ** -9
LOG2 = float(np.log(2))
# budgets from those that vanish beside 1 to those that allow everything
BUDGETS = np.concatenate([[1e-300], np.logspace(-30, 1, 32), [0.5, LOG2, 36.0, 40.0, 700.0]])
# probabilities at both ends and on both sides of the middle
PROBABILITIES = [0.0, 1e-300, 1e-30, 1e-12, 0.01, 0.3, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 0.8, 1 - 1e-9]
PROBABILITIES = [*PROBABILITIES, float(np.nextafter(1, 0)), 1.0]


@pytest.fixture(autouse=True)
def digits():
    """50 digits of 1 - p for the smallest p, and of differences of what is left."""
    with mp.workdps(400):
        yield


def xlogy(x, y):
    return mp.mpf(0) if x == 0 else x * mp.log(y)


def exact_entropy(p):
    p = mp.mpf(p)
    return -xlogy(p, p) - xlogy(1 - p, 1 - p)


def exact_kl(q, p):
    """kl(q || p) of Bernoulli laws; inf also beyond the ends of p."""
    q, p = mp.mpf(q), mp.mpf(p)
    if (p <= 0 and q > 0) or (p >= 1 and q < 1):
        return mp.inf
    return xlogy(q, q) + xlogy(1 - q, 1 - q) - xlogy(q, p) - xlogy(1 - q, 1 - p)


def assert_just_above(value, truth, rel=CLOSE):
    assert truth <= mp.mpf(float(value)) <= truth * (1 + rel), (value, mp.nstr(truth, 20))


def assert_near(value, truth, rel=CLOSE):
    assert abs(mp.mpf(float(value)) - truth) <= rel * abs(truth), (value, mp.nstr(truth, 20))


# --- the divergence and its inverses ---


@pytest.mark.parametrize("q", PROBABILITIES)
def test_binary_kl_inverse_is_never_below(q):
    found = bounds.binary_kl_inverse(np.full(len(BUDGETS), q), BUDGETS)
    for p, budget in zip(found, BUDGETS):
        assert p == pytest.approx(bounds.binary_kl_inverse(q, budget), rel=1e-14)
        assert q <= p <= 1
        assert p == 1 or exact_kl(q, p) >= budget, (q, budget)
        less = mp.mpf(p) * (1 - CLOSE)
        assert less <= q or exact_kl(q, less) <= budget, (q, budget)


@pytest.mark.parametrize("q", PROBABILITIES)
def test_pac_bayes_kl_is_never_below(q):
    for budget in BUDGETS:
        rise = bounds.pac_bayes_kl_bound(10 * budget, 10, q)
        spent = np.float64(10 * budget) / 10
        assert 0 <= rise <= xu_raginsky_bound(10 * budget, 10) * (1 + 1e-15)
        reached = mp.mpf(q) + mp.mpf(rise)
        assert reached >= 1 or exact_kl(q, reached) >= spent, (q, budget)
        less = mp.mpf(q) + mp.mpf(rise) * (1 - CLOSE)
        assert rise == 0 or exact_kl(q, less) <= spent, (q, budget)
        assert rise > 0 or q == 1


def fall(p, budget):
    """p - min{b : kl(b || p) <= budget} of the library, as the bound by one sample point has it: a
    bit Z and experts whose only differing loss leaves the mean at p."""
    return bounds.largest_drop(p, 1 - p, budget)


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_lowest_mean_is_never_above(p):
    drops = fall(np.full(len(BUDGETS), p), BUDGETS)
    for drop, budget in zip(drops, BUDGETS):
        assert drop == pytest.approx(fall(p, budget), rel=1e-14, abs=0) and 0 <= drop <= p
        if p < 1:
            assert drop == p or exact_kl(mp.mpf(p) - mp.mpf(drop), p) >= budget, (p, budget)
            less = mp.mpf(p) - mp.mpf(drop) * (1 - CLOSE)
            assert exact_kl(less, p) <= budget, (p, budget)
        assert p < 1 or drop == 0


@pytest.mark.parametrize("budget", [1e-30, 1e-12, 1e-3, 1.0])
def test_means_next_to_1_fall_by_what_their_complement_allows(budget):
    """1 - p is 1e-18 here, and p as a float is 1."""
    rare = mp.mpf(1e-18)
    drop = bounds.largest_drop(1.0, 1e-18, budget)
    assert exact_kl(1 - rare - mp.mpf(drop), 1 - rare) >= budget
    assert exact_kl(1 - rare - mp.mpf(drop) * (1 - CLOSE), 1 - rare) <= budget


@given(st.floats(0, 1), st.floats(-30, 1).map(lambda x: 10**x))
@settings(max_examples=60)
@example(0.5, 1e-30)
def test_inverses_of_the_divergence_anywhere(q, budget):
    with mp.workdps(400):
        p = float(bounds.binary_kl_inverse(q, budget))
        assert p == 1 or exact_kl(q, p) >= budget
        less = mp.mpf(p) * (1 - CLOSE)
        assert less <= q or exact_kl(q, less) <= budget
        drop = float(fall(q, budget))
        assert drop == q or q == 1 or exact_kl(mp.mpf(q) - drop, q) >= budget
        assert q == 1 or exact_kl(mp.mpf(q) - mp.mpf(drop) * (1 - CLOSE), q) <= budget


def test_terms_of_a_divergence():
    for x in (1e-200, 1e-20, 0.1, 0.5, 1.0):
        for ratio in (-0.999, -0.2, -0.06, -1e-9, 1e-30, 1e-12, 0.1, 0.11, 3.0, 1e9):
            step = x * ratio
            y = mp.mpf(x) + mp.mpf(step)
            truth = mp.mpf(x) * mp.log(mp.mpf(x) / y) + mp.mpf(step)
            assert_near(divergence_terms(x, x + step, step), truth, mp.mpf(10) ** -13)
    assert divergence_terms(0.0, 0.25, 0.25) == 0.25
    assert divergence_terms(0.25, 0.0, -0.25) == np.inf
    assert divergence_terms(0.0, 0.0, 0.0) == 0


@given(st.floats(-280, 280), st.floats(1, 4))
def test_a_bracket_closes_around_the_root(exponent, power):
    target = 10.0**exponent
    around = 10.0 ** (exponent / power)
    low, high = bracketed_root(lambda x: x**power, target, around / 7, around * 2)
    # powers are rounded, and not always in the same way
    assert low**power * (1 - 1e-15) < target <= high**power * (1 + 1e-15)
    assert high <= low * (1 + 1e-14)


# --- cumulants ---


def exact_cumulant_bound(rate, risks, marginal):
    """The minimum over s by golden sections of log s, straight from the definition."""
    rate, risks = mp.mpf(rate), [mp.mpf(p) for p in risks]

    def bound(log_s):
        s = mp.exp(log_s)
        psi = [s * p + mp.log(1 - p + p * mp.exp(-s)) for p in risks]
        return (rate + mp.fdot(marginal, psi)) / s

    low, high = mp.mpf(-60), mp.mpf(20)
    golden = (mp.sqrt(5) - 1) / 2
    for _ in range(110):
        width = golden * (high - low)
        left, right = high - width, low + width
        if bound(left) < bound(right):
            high = right
        else:
            low = left
    return bound((low + high) / 2)


BANKS = [
    ([0.5, 0.5], [0.25, 0.75]),
    ([0.01, 0.02, 0.3], [0.5, 0.3, 0.2]),
    ([1e-12, 1e-6, 0.9], [0.5, 0.5, 0.0]),
    ([0.0, 1.0, 0.7], [0.25, 0.25, 0.5]),
    ([1 - 1e-12, 0.999], [0.5, 0.5]),
    ([1e-30], [1.0]),
]


@pytest.mark.parametrize(("risks", "marginal"), BANKS)
def test_cumulant_bound_is_the_minimum_and_never_below(risks, marginal):
    for rate in [*np.logspace(-30, 0, 11), 3.0, 10.0, 17.0, 30.0, 1e6]:
        found = bounds.cumulant_bound(rate, 1, risks, marginal)
        with mp.workdps(90):
            truth = exact_cumulant_bound(rate, risks, marginal)
            ceiling = mp.fdot(marginal, [p * (p < 1) for p in risks])
            truth = min(truth, ceiling)  # the limit of large s
            assert_just_above(found, truth)
        assert found <= xu_raginsky_bound(rate, 1) * (1 + 1e-15)
    assert bounds.cumulant_bound(0.0, 1, risks, marginal) == 0


def test_cumulant_bound_of_one_expert_is_the_inverse_of_its_divergence():
    for p in (1e-9, 0.1, 0.5, 0.99):
        for rate in BUDGETS[1:]:
            found = bounds.cumulant_bound(rate, 1, [p], [1.0])
            assert found == pytest.approx(float(fall(p, rate)), rel=1e-12)


def test_bounds_by_one_point_at_tiny_dependence():
    """W leans by d on the one bit that Z is, and errs on it: KL and gap are known."""
    for d in (1e-14, 1e-10, 1e-5, 0.1):
        conditionals = [[0.5 + d, 0.5 - d], [0.5 - d, 0.5 + d]]
        losses = [[0, 1], [1, 0]]
        lean = mp.mpf(0.5 + d) - mp.mpf(0.5)
        truth = exact_kl(mp.mpf("0.5") + lean, mp.mpf("0.5"))
        rel = 1e-9 + 4e-16 / d  # of d as a float
        assert_near(bounds.disintegrated_bound(conditionals), mp.sqrt(truth / 2), rel)
        # the gap is d, and this bound is exact
        assert_near(bounds.disintegrated_kl_bound(conditionals, losses), lean, rel)
        order = (1 + 2 * lean) / 2
        truth = mp.sqrt(2 * (mp.log(2) - exact_entropy(order)) / 2)
        assert_near(bounds.loss_difference_bound(conditionals, losses), truth, rel)


# --- the binary entropy and the binary symmetric channel ---

RATES = np.concatenate([np.logspace(-30, -0.2, 60), np.linspace(0.01, 0.69, 18)])
NEAR_LOG2 = LOG2 - np.logspace(-16, -2, 29)


def test_binary_entropy_of_rare_events():
    for p in PROBABILITIES:
        assert_near(binary_entropy(p), exact_entropy(p), mp.mpf(10) ** -15)


@pytest.mark.parametrize("h", [1e-300, *RATES, *NEAR_LOG2, float(np.nextafter(LOG2, 0))])
def test_binary_entropy_inverse_is_never_above(h):
    p = float(binary_entropy_inverse(h))
    assert exact_entropy(p) <= h
    more = mp.mpf(p) * (1 + CLOSE)
    assert more >= 0.5 or exact_entropy(more) >= h


@pytest.mark.parametrize("rate", [1e-300, *RATES, *NEAR_LOG2, float(np.nextafter(LOG2, 0))])
def test_bsc_distortion_rate_is_never_above(rate):
    p = float(bsc_distortion_rate(rate))
    assert mp.log(2) - exact_entropy(p) >= rate
    more = mp.mpf(p) * (1 + CLOSE)
    assert more >= 0.5 or mp.log(2) - exact_entropy(more) <= rate


def test_inverses_take_arrays_as_they_take_numbers():
    both = np.stack([RATES, RATES[::-1]])
    for function in (binary_entropy_inverse, bsc_distortion_rate):
        found = function(both)
        assert found.shape == both.shape
        np.testing.assert_allclose(found[0], [function(rate) for rate in RATES], rtol=1e-14)
        assert isinstance(float(function(0.1)), float) and np.ndim(function(0.1)) == 0
    assert bounds.binary_kl_inverse([[0.1], [0.2]], [0.0, 1.0, np.inf]).shape == (2, 3)
    assert bounds.binary_kl_inverse(0.2, np.inf) == 1
    assert bsc_distortion_rate([0, LOG2, 5.0, np.inf]).tolist() == [0.5, 0, 0, 0]


# gaps to the middle, or to guessing, that leave a rate of 1e-30 and more
GAPS = [*np.logspace(-15, -1, 29), 0.2, 0.4]


def test_rates_near_the_useless_channel():
    for gap in GAPS:
        for p in (0.5 - gap, 0.5 + gap):
            assert_near(bsc_rate(p), mp.log(2) - exact_entropy(p))
    for k in (2, 3, 7, 25, 1000):
        guessing = 1 - 1 / k
        for p in [guessing * (1 - gap) for gap in GAPS] + [1e-300, 1e-20, 0.0]:
            truth = mp.log(k) - exact_entropy(p) - xlogy(mp.mpf(p), mp.mpf(k - 1))
            if p < 1 - mp.mpf(1) / k:
                assert_near(channels.uniform_rate(p, k), truth)
            assert_near(channels.symmetric_capacity(k, p), truth)
            if p > 0:
                odds = (1 - mp.mpf(p)) * (k - 1) / mp.mpf(p)
                truth = mp.mpf(p) * (1 - mp.mpf(p)) * mp.log(odds) ** 2
                assert_near(channels.symmetric_dispersion(k, p), truth)
        assert channels.uniform_rate([min(1, guessing + 1e-9), 1.0], k).tolist() == [0, 0]


@pytest.mark.parametrize("epsilon", [*np.logspace(-15, 2, 35), 700.0, 1e5])
def test_privacy_and_its_rates(epsilon):
    exact = mp.mpf(epsilon)
    for k in (2, 3, 25):
        total = k - 1 + mp.exp(exact)
        truth = mp.log(k) - mp.log(total) + exact * mp.exp(exact) / total
        assert_near(channels.randomised_response_rate(k, epsilon), truth)
    z = exact / (1 - mp.exp(-exact))
    assert_just_above(channels.ldp_sharp_cap(epsilon), z - 1 - mp.log(z))
    assert_near(channels.ldp_contraction(epsilon), mp.tanh(exact / 2) ** 2)


def test_the_sharp_cap_at_its_ends():
    assert channels.ldp_sharp_cap([0.0, np.inf]).tolist() == [0, np.inf]
    assert np.ndim(channels.ldp_sharp_cap(1.0)) == 0
    assert channels.randomised_response_rate(3, np.inf) == pytest.approx(np.log(3), rel=1e-15)


@pytest.mark.parametrize("gap", np.logspace(-15, -1, 15))
def test_privacy_of_rows_that_are_nearly_alike(gap):
    low, high = 0.5, 0.5 + gap
    channel = [[low, 1 - low], [high, 1 - high]]
    truth = max(mp.log(mp.mpf(high) / low), mp.log(mp.mpf(1 - low) / mp.mpf(1 - high)))
    assert_near(privacy.privacy_level(channel), truth)


# --- searches on loss tables ---


def exact_critical(differences, weights):
    """The price at which E exp(-difference / lam) is 1, by bisection of its logarithm."""
    pairs = [(mp.mpf(w), mp.mpf(d)) for w, d in zip(weights, differences)]
    low, high = mp.mpf(10) ** -40, mp.mpf(10) ** 40
    for _ in range(160):
        middle = mp.sqrt(low * high)
        total = mp.fsum(w * (mp.exp(-d / middle) - 1) for w, d in pairs)
        low, high = (middle, high) if total > 0 else (low, middle)
    return high


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**-30, 1.0, 2.0**30])
@pytest.mark.parametrize("weights", [(0.5, 0.25, 0.25), (0.375, 0.5, 0.125)])
def test_critical_lambda_at_every_scale(scale, weights):
    losses = scale * np.array([[0.25, 0.0], [0.0, 0.75], [0.5, 0.5]])
    gain = losses @ [-1, 1]
    if np.dot(weights, gain) < 0:
        gain = -gain
    with mp.workdps(60):
        truth = exact_critical(gain.tolist(), weights)
        assert_near(critical_lambda(losses, weights), truth)


@pytest.mark.parametrize("tilt", 2.0 ** -np.arange(2, 31, 4))
def test_critical_lambda_of_experts_that_are_nearly_even(tilt):
    """For 0-1 losses it is 1 / log(b/a)."""
    weights = [0.5 + tilt, 0.5 - tilt]
    truth = 1 / mp.log(mp.mpf(weights[0]) / mp.mpf(weights[1]))
    assert_near(critical_lambda([[0, 1], [1, 0]], weights), truth)


@pytest.mark.parametrize("rate", [*np.logspace(-30, -1, 30), 0.3, 0.6, 0.69])
def test_distortion_at_a_rate_is_reached_and_within_its_promise(rate):
    """A chord of the curve: not below the closed form, and at most 1e-9 of its height above, or
    1e-14 nats where the price 1 / (2 u) of the fair bit is so high that they are more."""
    found = distortion_at_rate([[0, 1], [1, 0]], rate)
    truth = float(bsc_distortion_rate(rate))
    price = 1 / (1 - 2 * truth)
    allowed = min(0.5e-9 + 2.01e-14 * price, 0.5 - truth)
    assert truth - 1e-15 <= found <= truth + allowed + 1e-15


def test_the_threshold_of_the_channel_experiment():
    """The inverse temperature at which E[p_W] is D(R_g) + sqrt(2 I/m), from the definitions."""
    candidates, crossover, m = [0.05, 0.2, 0.4], 0.2, 20

    def margin(beta):
        flips = range(m + 1)
        chance = [
            mp.binomial(m, k) * mp.mpf(crossover) ** k * mp.mpf(1 - crossover) ** (m - k)
            for k in flips
        ]
        rows = []
        for k in flips:
            likely = [
                mp.mpf(p) ** (beta * k) * (1 - mp.mpf(p)) ** (beta * (m - k)) for p in candidates
            ]
            rows.append([x / mp.fsum(likely) for x in likely])
        marginal = [mp.fsum(c * row[j] for c, row in zip(chance, rows)) for j in range(3)]
        information = mp.fsum(
            c * q * mp.log(q / w) for c, row in zip(chance, rows) for q, w in zip(row, marginal)
        )
        risk = mp.fdot(marginal, candidates)
        rate = mp.fdot(marginal, [mp.log(2) - exact_entropy(p) for p in candidates])
        allowed = risk - mp.sqrt(2 * information / m)
        return mp.log(2) - exact_entropy(allowed) - rate

    with mp.workdps(40):
        found = bsc_threshold(candidates, crossover, m)
        assert margin(found * (1 - 1e-9)) < 0 < margin(found * (1 + 1e-9))


@pytest.mark.parametrize("bad", [-0.1, 1.1])
def test_what_is_no_probability_has_no_cumulants(bad):
    with pytest.raises(ValueError, match="risks"):
        bounds.cumulant_bound(0.1, 10, [0.1, bad], [0.5, 0.5])
    with pytest.raises(ValueError, match="losses"):
        bounds.disintegrated_kl_bound([[0.5, 0.5]], [[0.1, bad]])
