"""Distortion-rate curves against closed forms, an independent optimiser, brute force and the laws
of D(R).

A gate is always judged by its own distortion and its own I(X;T), evaluated here on the raw table.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import entropy

from expertbank import solver
from expertbank.channels import bsc_distortion_rate, uniform_rate
from expertbank.information import gating_rate
from expertbank.rate_distortion import (
    ConvergenceWarning,
    critical_lambda,
    distortion_at_rate,
    rate_distortion,
    rate_distortion_curve,
    routing,
)

LOG2 = np.log(2)
FIELDS = ("rate", "distortion", "lam", "marginal", "certificate", "iterations")


def hamming(k):
    return 1.0 - np.eye(k)


def zero_one(n_inputs, n_experts, seed, error=0.3):
    return (np.random.default_rng(seed).random((n_inputs, n_experts)) < error).astype(np.uint8)


def evaluate(gate, losses, weights=None):
    """Distortion and rate of a gate, from the raw table."""
    w = (
        np.full(len(losses), 1 / len(losses))
        if weights is None
        else np.asarray(weights) / np.sum(weights)
    )
    return float(w @ (gate * losses).sum(axis=1)), gating_rate(gate, w)


def lagrangian(pi, losses, lam, w):
    """-lam sum_i w_i log sum_t pi_t exp(-l_it/lam): minimal over pi it is min D + lam I, anywhere
    else it is above."""
    with np.errstate(divide="ignore"):
        return -lam * float(w @ logsumexp(np.log(np.maximum(pi, 0)) - losses / lam, axis=1))


def oracle(losses, lam, w):
    """The minimum of the Lagrangian by SLSQP on the simplex."""
    k = losses.shape[1]

    def gradient(pi):
        log_z = logsumexp(np.log(np.maximum(pi, 1e-300)) - losses / lam, axis=1, keepdims=True)
        return -lam * (w @ np.exp(-losses / lam - log_z))

    found = minimize(
        lambda pi: lagrangian(pi, losses, lam, w),
        np.full(k, 1 / k),
        jac=gradient,
        method="SLSQP",
        bounds=[(0, 1)] * k,
        constraints={"type": "eq", "fun": lambda pi: pi.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 300},
    )
    pi = np.maximum(found.x, 0) / np.maximum(found.x, 0).sum()
    return lagrangian(pi, losses, lam, w)  # of a point on the simplex, so never below the minimum


@st.composite
def tables(draw, ties=True):
    """Losses (N, R) and weights (N,): whole numbers with many ties, or real numbers."""
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    numbers = (
        st.integers(0, 2).map(float) if ties and draw(st.booleans()) else st.floats(0, 1, width=16)
    )
    losses = draw(arrays(float, shape, elements=numbers))
    weights = draw(arrays(float, shape[0], elements=st.integers(1, 4).map(float)))
    return losses, weights / weights.sum()


# --- closed forms ---


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("lam", [0.05, 0.3, 1.0, 5.0])
def test_uniform_letter_under_hamming_loss(k, lam):
    point = rate_distortion(hamming(k), lam)
    wrong = (k - 1) * np.exp(-1 / lam)
    assert point.distortion == pytest.approx(wrong / (1 + wrong), abs=1e-9)
    assert point.rate == pytest.approx(uniform_rate(point.distortion, k), abs=1e-9)
    np.testing.assert_allclose(point.marginal, 1 / k, atol=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.6])
def test_binary_symmetric_source(rate):
    point = distortion_at_rate(hamming(2), rate, tol=1e-12)
    assert point == pytest.approx(bsc_distortion_rate(rate), abs=1e-9)


@pytest.mark.parametrize("q", [0.05, 0.2, 0.4])
def test_biased_bit_under_hamming_loss(q):
    """R(D) = h(q) - h(D) up to D = q, where the slope is -1/lam = -log((1-q)/q): the critical
    lambda."""
    weights, critical = [q, 1 - q], 1 / np.log((1 - q) / q)
    assert critical_lambda(hamming(2), weights) == pytest.approx(critical, rel=1e-12)
    for share in (0.2, 0.7, 0.95):
        point = rate_distortion(hamming(2), share * critical, weights, tol=1e-12)
        d = 1 / (1 + np.exp(1 / (share * critical)))
        assert point.distortion == pytest.approx(d, abs=1e-9)
        assert point.rate == pytest.approx(entropy([q, 1 - q]) - entropy([d, 1 - d]), abs=1e-9)
    at = rate_distortion(hamming(2), critical * (1 + 1e-9), weights)
    assert (at.rate, at.distortion) == (0, pytest.approx(q))


@pytest.mark.parametrize(("right", "wrong"), [(5, 2), (300, 299), (2500, 2499)])
def test_critical_lambda_of_two_zero_one_experts(right, wrong):
    """1 / log(b/a), b and a the shares of inputs that only the better and only the worse expert
    gets right.

    Nearly equal experts are the hard case: one error in 5,000 between them puts lambda at 2,500.
    """
    losses = np.array([[0, 1]] * right + [[1, 0]] * wrong + [[0, 0]] * 7)
    assert critical_lambda(losses) == pytest.approx(1 / np.log(right / wrong), rel=1e-9)


def test_perfect_erasure_trade_off():
    """A bit may be guessed (loss 0 or 10) or declined (loss 1): D = 1 - R / log 2 nearly, by time
    sharing."""
    losses = np.array([[0, 10, 1.0], [10, 0, 1.0]])
    critical = critical_lambda(losses)
    assert 0.5 * (np.exp(1 / critical) + np.exp(-9 / critical)) == pytest.approx(1, abs=1e-9)
    assert rate_distortion(losses, critical).marginal.tolist() == [0, 0, 1]
    for rate in (0.1, 0.4, 0.65):
        found = distortion_at_rate(losses, rate)
        # mixing guess and decline achieves it
        assert 1 - rate / LOG2 - 2e-3 < found < 1 - rate / LOG2 + 1e-9


# --- optimality ---


@given(tables(), st.sampled_from([0.02, 0.1, 0.3, 1.0, 4.0]))
def test_optimal_against_an_independent_solver(table, lam):
    losses, w = table
    point = rate_distortion(losses, lam, w)
    found = point.distortion + lam * point.rate
    # no worse than SLSQP's point
    assert found <= oracle(losses, lam, w) + lam * point.certificate + 1e-9
    # and not better than possible: the gate itself, evaluated on the raw table, does no worse
    d, i = evaluate(routing(losses, point), losses, w)
    assert d + lam * i <= found + lam * point.certificate + 1e-9
    assert found <= d + lam * i + lam * point.certificate + 1e-9
    # the dual side, whatever the solver says: min D + lam I >= value - lam log max_t g_t, at any
    # marginal
    z = -lagrangian(point.marginal, losses, lam, w) / lam
    kernel = np.exp(-losses / lam)
    g = (w / (kernel @ point.marginal)) @ kernel
    lower = -lam * (z + np.log(g.max()))
    assert lower <= oracle(losses, lam, w) + 1e-9
    assert lower <= found + 1e-9


@pytest.mark.parametrize("lam", [0.03, 0.2, 0.8])
@pytest.mark.parametrize("seed", range(4))
def test_reported_point_is_the_gates_own(seed, lam):
    """Rate, distortion and marginal are those of the gate that `routing` builds, and the
    certificate is kept."""
    rng = np.random.default_rng(seed)
    losses, weights = rng.random((40, 6)), rng.random(40)
    point = rate_distortion(losses, lam, weights, tol=1e-9)
    assert 0 <= point.certificate <= 1e-9
    gate = routing(losses, point)
    np.testing.assert_allclose(gate.sum(axis=1), 1, atol=1e-12)
    distortion, rate = evaluate(gate, losses, weights)
    assert distortion == pytest.approx(point.distortion, abs=1e-7)
    assert rate == pytest.approx(point.rate, abs=1e-7)
    assert distortion + lam * rate == pytest.approx(point.distortion + lam * point.rate, abs=3e-9)
    np.testing.assert_allclose(weights / weights.sum() @ gate, point.marginal, atol=1e-7)
    assert distortion + lam * rate == pytest.approx(
        oracle(losses, lam, weights / weights.sum()), abs=1e-7
    )


def test_a_point_of_a_curve_routes_as_if_solved_alone():
    losses, lams = np.random.default_rng(0).random((40, 6)), np.array([np.inf, 0.05, 0.3, 0.0])
    curve = rate_distortion_curve(losses, lams)
    for i, lam in enumerate(lams):
        point, alone = curve.point(i), rate_distortion(losses, lam)
        assert point.lam == lam
        assert point.distortion == pytest.approx(alone.distortion, abs=1e-6)
        assert point.rate == pytest.approx(alone.rate, abs=1e-6)
        np.testing.assert_allclose(routing(losses, point), routing(losses, alone), atol=1e-4)
    assert curve.point(-1).lam == 0


def test_no_random_gate_beats_the_curve():
    rng = np.random.default_rng(0)
    losses = zero_one(12, 4, seed=3)
    for concentration in (0.05, 0.3, 1.0):
        for _ in range(8):
            distortion, rate = evaluate(rng.dirichlet(np.full(4, concentration), size=12), losses)
            assert distortion >= distortion_at_rate(losses, rate) - 1e-8


def test_giving_up_is_said_and_the_certificate_still_holds(monkeypatch):
    losses, lam = np.random.default_rng(1).random((30, 5)), 0.05
    best = oracle(losses, lam, np.full(30, 1 / 30))
    monkeypatch.setattr(solver, "MAX_NEWTON", 2)
    with pytest.warns(ConvergenceWarning, match=r"certificate .* above tol"):
        point = rate_distortion(losses, lam)
    assert point.certificate > 1e-3
    value = point.distortion + lam * point.rate
    assert best - 1e-9 <= value <= best + lam * point.certificate
    d, i = evaluate(routing(losses, point), losses)
    assert best - 1e-9 <= d + lam * i <= value + 1e-12  # the gate is one update further


@pytest.mark.parametrize("lam", [0.05, 0.5])
def test_an_unfinished_point_tells_its_own_rate(lam):
    """With any certificate accepted the answer is the first gate, that of equal shares: its D and
    I, not better."""
    losses = np.random.default_rng(15).random((30, 5))
    point = rate_distortion(losses, lam, tol=1e6)
    distortion, rate = evaluate(softmax(-losses / lam, axis=1), losses)
    assert point.iterations == 0
    assert point.distortion == pytest.approx(distortion, abs=1e-12)
    assert point.rate == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("lam", [0, 0.2, 1.5, np.inf])
def test_routing_is_28(lam):
    """p(t|x) proportional to share times exp(-loss/lam), for shares that may be 0."""
    losses = np.random.default_rng(16).random((20, 4)).round(1)
    shares = np.array([0.5, 0, 0.2, 0.3])
    point = replace(rate_distortion(losses, lam), marginal=shares)
    gate = routing(losses, point)
    for i, row in enumerate(losses):
        best_in_use = row == row[shares > 0].min()  # the limit at 0, ties by their shares
        expected = shares * (best_in_use if lam == 0 else np.exp(-row / lam))
        np.testing.assert_allclose(gate[i], expected / expected.sum(), atol=1e-12)


def test_looser_tolerance_is_honoured():
    losses = np.random.default_rng(2).random((30, 5))
    loose, tight = (rate_distortion(losses, 0.05, tol=tol) for tol in (1e-3, 1e-9))
    assert tight.certificate <= 1e-9 < loose.certificate <= 1e-3
    assert loose.iterations < tight.iterations


def test_on_the_shipped_bank(shipped):
    losses = shipped.losses("test")[:2000]  # P2, section V
    point = rate_distortion(losses, 0.3)
    d, i = evaluate(routing(losses, point), losses)
    assert point.certificate <= 1e-9
    assert d + 0.3 * i == pytest.approx(point.distortion + 0.3 * point.rate, abs=1e-9)
    assert losses.min(axis=1).mean() < d < losses.mean(axis=0).min()


# --- exact cases ---


@given(tables())
def test_free_of_charge_and_priceless(table):
    losses, w = table
    best = int(np.argmin((w @ losses).round(12)))
    for lam in (np.inf, critical_lambda(losses, w)):
        point = rate_distortion(losses, lam, w)
        if lam == 0:
            continue
        assert point.rate == 0 and point.certificate == 0
        assert point.marginal.tolist() == np.eye(losses.shape[1])[best].tolist()
        assert point.distortion == pytest.approx((w @ losses).min(), abs=1e-12)


@given(tables())
def test_critical_lambda_is_where_one_expert_stops_being_optimal(table):
    """KKT: e_t* is optimal exactly when max_t E exp(-(l_t - l_t*)/lam) <= 1."""
    losses, w = table
    critical = critical_lambda(losses, w)
    means = w @ losses
    best = int(np.argmin(means.round(12)))
    difference = losses - losses[:, [best]]

    def worst(lam):
        return logsumexp(-difference / lam, b=w[:, None], axis=0).max()

    if critical == 0:
        assert np.all(losses[:, best] <= losses.min(axis=1))
    elif critical == np.inf:
        ties = np.abs(means - means[best]) < 1e-12
        assert np.any(difference[:, ties] != 0)
        assert worst(1e3) > 0
    else:
        assert worst(critical * 1.001) < 0 or worst(critical * 1.001) == pytest.approx(0, abs=1e-14)
        assert worst(critical * 0.999) > 0
        above, below = (rate_distortion(losses, critical * s, w) for s in (1.0001, 0.9))
        assert above.rate == 0
        assert below.rate > 0
        assert below.distortion < means[best]


@pytest.mark.parametrize("seed", range(12))
def test_critical_lambda_of_long_tables(seed):
    """Means that differ by a few inputs in 5,000: the root is far out and its equation is flat
    there."""
    losses = zero_one(5000, 4, seed)
    counts = losses.sum(axis=0)
    best = counts.argmin()
    expected = [
        1
        / np.log(
            np.sum((losses[:, t] == 1) & (losses[:, best] == 0))
            / np.sum((losses[:, t] == 0) & (losses[:, best] == 1))
        )
        for t in range(4)
        if counts[t] > counts[best]
    ]
    if np.sum(counts == counts[best]) > 1:
        expected.append(np.inf)
    assert critical_lambda(losses) == pytest.approx(max(expected), rel=1e-9)


def test_critical_lambda_ignores_an_expert_that_nobody_would_use():
    losses = np.array([[0.2, 0.1], [0.0, 0.3]])
    useless = np.full((2, 1), 1e20)
    assert critical_lambda(np.hstack([losses, useless])) == pytest.approx(
        critical_lambda(losses), rel=1e-12
    )


@pytest.mark.parametrize("seed", range(20))
def test_ties_go_to_the_smallest_index(seed):
    """Experts with equally many errors tie; sums in another order must not decide between them."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(5, 200)), 5
    column = np.arange(n) < n // 3
    losses = np.stack([rng.permutation(column) for _ in range(k)], axis=1).astype(float)
    for scale in (1, 0.1, 0.3):
        assert rate_distortion(scale * losses, np.inf).marginal.tolist() == [1, 0, 0, 0, 0]
    weights = rng.integers(1, 4, n)
    means = weights @ losses
    assert rate_distortion(losses, np.inf, weights).marginal.argmax() == means.argmin()


def smallest_rate(losses, w, step=200):
    """Least -sum w_i log pi(best experts of i) over a grid of the simplex: the rate at lam = 0 by
    brute force."""
    best = losses == losses.min(axis=1, keepdims=True)
    k = losses.shape[1]
    if k == 1:
        return 0.0
    grids = np.meshgrid(*[np.arange(step + 1)] * (k - 1))
    pi = np.stack([g.ravel() for g in grids], axis=1)
    pi = np.column_stack([pi, step - pi.sum(axis=1)])
    pi = pi[pi[:, -1] >= 0] / step
    with np.errstate(divide="ignore"):
        return float(-(np.log(pi @ best.T) @ w).max())


@settings(max_examples=30)
@given(
    arrays(
        float,
        st.tuples(st.integers(1, 5), st.integers(1, 3)),
        elements=st.integers(0, 1).map(float),
    )
)
def test_free_information_is_used_sparingly(losses):
    w = np.full(len(losses), 1 / len(losses))
    point = rate_distortion(losses, 0)
    assert point.distortion == pytest.approx(losses.min(axis=1).mean(), abs=1e-12)
    brute = smallest_rate(losses, w)
    assert point.rate <= brute + point.certificate + 1e-9
    assert point.rate >= brute - point.certificate - 2e-3  # the grid's own error
    gate = routing(losses, point)
    assert np.all((losses == losses.min(axis=1, keepdims=True))[gate > 0])


def test_free_information_known_cases():
    two_of_three = rate_distortion([[0, 1], [1, 0], [0, 0]], 0)
    assert two_of_three.rate == pytest.approx(2 / 3 * LOG2, abs=1e-9)
    shared = rate_distortion([[0, 1, 0], [1, 0, 0], [0, 0, 0]], 0)
    assert shared.rate == 0
    assert shared.marginal.tolist() == [0, 0, 1]
    assert rate_distortion(hamming(5), 0).rate == pytest.approx(np.log(5), abs=1e-9)


@pytest.mark.parametrize("lam", [0, 1e-300, 0.5, np.inf])
def test_one_expert(lam):
    point = rate_distortion([[0.2], [0.4], [0.9]], lam)
    assert (point.rate, point.certificate, point.marginal.tolist()) == (0, 0, [1])
    assert point.distortion == pytest.approx(0.5)
    assert critical_lambda([[0.2], [0.4]]) == 0


def test_one_input():
    point = rate_distortion([[3.0, 1.0, 1.0]], 0.1)
    assert (point.rate, point.distortion, point.marginal.tolist()) == (0, 1, [0, 1, 0])


@pytest.mark.parametrize("lam", [5e-324, 1e-300, 1e-30, 1e-4])
def test_tiny_prices_approach_zero(lam):
    losses = np.random.default_rng(3).random((20, 4)).round(1)
    tiny, free = rate_distortion(losses, lam), rate_distortion(losses, 0)
    assert tiny.distortion == pytest.approx(free.distortion, abs=1e-9)
    assert tiny.rate == pytest.approx(free.rate, abs=1e-6)
    assert np.isfinite(routing(losses, tiny)).all()


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e9, 1e200])
def test_units_of_the_loss_do_not_matter(scale):
    losses = np.random.default_rng(4).random((25, 4))
    one, other = rate_distortion(losses, 0.2), rate_distortion(scale * losses, 0.2 * scale)
    assert other.rate == pytest.approx(one.rate, abs=1e-8)
    assert other.distortion == pytest.approx(scale * one.distortion, rel=1e-8)
    assert critical_lambda(scale * losses) == pytest.approx(
        scale * critical_lambda(losses), rel=1e-9
    )


def test_huge_losses_are_avoided():
    losses = np.array([[0, 1e300, 0.5], [1e300, 0, 0.5], [0, 0.2, 1e300]])
    for lam in (0, 1e-3, 1.0, 1e6):
        point = rate_distortion(losses, lam)
        assert np.isfinite([point.rate, point.distortion]).all()
        assert point.distortion < 1
        assert np.isfinite(routing(losses, point)).all()
    curve = rate_distortion_curve(losses)
    assert np.isfinite(curve.distortion).all() and np.isfinite(curve.rate).all()


# --- symmetries: what must not change the answer ---


def same_point(one, other, marginal=True):
    assert one.rate == pytest.approx(other.rate, abs=1e-8)
    assert one.distortion == pytest.approx(other.distortion, abs=1e-8)
    if marginal:
        np.testing.assert_allclose(one.marginal, other.marginal, atol=1e-7)


@pytest.mark.parametrize("lam", [0, 0.1, 0.4, np.inf])
def test_inputs_of_weight_zero_are_ignored(lam):
    losses = np.random.default_rng(5).random((20, 4))
    weights = np.arange(20) % 3.0
    with_noise = losses.copy()
    with_noise[weights == 0] = 1e12 * np.random.default_rng(6).random((7, 4))
    kept = rate_distortion(losses[weights > 0], lam, weights[weights > 0])
    point = rate_distortion(with_noise, lam, weights)
    same_point(point, kept)
    assert critical_lambda(with_noise, weights) == pytest.approx(
        critical_lambda(losses, weights), rel=1e-9
    )
    gate = routing(with_noise, point)  # defined for them all the same
    np.testing.assert_allclose(gate.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(gate[weights > 0], routing(losses, kept)[weights > 0], atol=1e-7)


@pytest.mark.parametrize("lam", [0, 0.1, 0.4, np.inf])
def test_weights_are_repeated_inputs(lam):
    losses = np.random.default_rng(7).random((8, 3)).round(1)
    times = np.array([1, 3, 2, 1, 5, 1, 0, 2])
    repeated = np.repeat(losses, times, axis=0)
    same_point(rate_distortion(losses, lam, times), rate_distortion(repeated, lam))
    same_point(rate_distortion(losses, lam, 1e-3 * times), rate_distortion(repeated, lam))


@pytest.mark.parametrize("lam", [0, 0.1, 0.4, np.inf])
def test_what_every_expert_loses_does_not_matter(lam):
    # exact in binary, so that ties stay ties
    losses = np.random.default_rng(8).integers(0, 8, (15, 4)) / 8
    shift = np.random.default_rng(9).integers(-100, 100, (15, 1)) * 1.0
    one, other = rate_distortion(losses, lam), rate_distortion(losses + shift, lam)
    assert other.rate == pytest.approx(one.rate, abs=1e-9)
    assert other.distortion == pytest.approx(one.distortion + shift.mean(), abs=1e-9)


@pytest.mark.parametrize("lam", [0, 0.1, 0.4])
def test_order_and_type_do_not_matter(lam):
    rng = np.random.default_rng(10)
    losses = zero_one(60, 4, seed=1)
    one = rate_distortion(losses, lam)
    same_point(one, rate_distortion(rng.permutation(losses), lam), marginal=False)
    order = rng.permutation(4)
    same_point(one, rate_distortion(losses[:, order], lam), marginal=False)
    for dtype in (bool, np.int64, np.float32):
        same_point(one, rate_distortion(losses.astype(dtype), lam))


@pytest.mark.parametrize("lam", [0.05, 0.3])
def test_copies_and_dominated_experts_change_nothing(lam):
    losses = np.random.default_rng(11).random((25, 3))
    one = rate_distortion(losses, lam)
    same_point(one, rate_distortion(losses[:, [0, 1, 2, 1]], lam), marginal=False)
    same_point(
        one, rate_distortion(np.column_stack([losses, losses[:, 0] + 0.2]), lam), marginal=False
    )


@pytest.mark.parametrize("rate", [0, 0.2, 0.6])
def test_another_expert_never_hurts(rate):
    losses = np.random.default_rng(12).random((20, 5))
    values = [distortion_at_rate(losses[:, :k], rate) for k in range(1, 6)]
    assert np.all(np.diff(values) <= 1e-8)


# --- the curve ---

CURVE_TABLES = {
    "zero-one": zero_one(80, 5, seed=2),
    "real": np.random.default_rng(13).random((30, 4)),
    "two": np.array([[0, 1], [0, 1], [1, 0]]),
    # critical lambda far below the largest loss: the grid must still reach from rate 0 to the end
    "one bad expert": np.column_stack(
        [np.random.default_rng(14).random((12, 3)), np.full(12, 5e4)]
    ),
}


@pytest.mark.parametrize("name", CURVE_TABLES)
def test_curve_is_monotone_convex_and_certified(name):
    losses = CURVE_TABLES[name]
    curve = rate_distortion_curve(losses)
    assert [np.shape(getattr(curve, field))[0] for field in FIELDS] == [len(curve.lam)] * 6
    assert np.all((curve.certificate >= 0) & (curve.certificate <= 1e-9))
    assert np.all(np.diff(curve.lam) < 0) and curve.lam[-1] == 0
    assert np.all(np.diff(curve.rate) >= -1e-7) and np.all(np.diff(curve.distortion) <= 1e-7)
    # the supporting line of every point lies below all other points: convexity, and optimality at
    # each slope
    value = curve.distortion + curve.lam[:, None] * curve.rate  # slope by point
    least = np.diag(value) - curve.lam * curve.certificate
    assert np.all(value >= least[:, None] - 1e-12)
    assert curve.rate[0] == 0
    assert curve.distortion[0] == pytest.approx(losses.mean(axis=0).min())
    assert curve.distortion[-1] == pytest.approx(losses.min(axis=1).mean())
    assert len(np.unique(curve.rate.round(6))) > 5  # it goes somewhere between the ends


def test_curve_is_its_points_in_the_given_order():
    losses, lams = CURVE_TABLES["real"], [0.3, np.inf, 0.05, 0]
    curve = rate_distortion_curve(losses, lams)
    for k, lam in enumerate(lams):
        point = rate_distortion(losses, lam)
        assert curve.lam[k] == lam
        assert curve.rate[k] == pytest.approx(point.rate, abs=1e-7)
        assert curve.distortion[k] == pytest.approx(point.distortion, abs=1e-7)
        np.testing.assert_allclose(curve.marginal[k], point.marginal, atol=1e-6)


def test_curve_of_identical_experts_is_one_point():
    curve = rate_distortion_curve(np.tile([[0.5], [0.1]], 3))
    assert (curve.rate.tolist(), curve.distortion.tolist(), curve.lam.tolist()) == ([0], [0.3], [0])


@pytest.mark.parametrize("name", ["zero-one", "real", "two"])
def test_distortion_at_rate_between_dual_and_chords(name):
    losses = CURVE_TABLES[name]
    curve = rate_distortion_curve(losses)
    height = curve.distortion[0] - curve.distortion[-1]
    rates = np.linspace(0, 1.1 * curve.rate[-1], 6)
    values = np.array([distortion_at_rate(losses, rate) for rate in rates])
    for rate, value in zip(rates, values):
        lower = (curve.distortion + curve.lam * (curve.rate - curve.certificate - rate)).max()
        upper = np.interp(rate, curve.rate, curve.distortion)
        assert lower - 1e-9 <= value <= upper + 1e-8 * height
    assert np.all(np.diff(values) <= 1e-9)
    assert np.all(np.diff(values, 2) >= -1e-8 * height)
    assert values[0] == pytest.approx(losses.mean(axis=0).min())
    assert values[-1] == pytest.approx(losses.min(axis=1).mean())
    assert distortion_at_rate(losses, np.inf) == pytest.approx(losses.min(axis=1).mean())


def test_distortion_at_rate_with_weights():
    q, d = 0.2, 0.07
    rate = entropy([q, 1 - q]) - entropy([d, 1 - d])
    assert distortion_at_rate(hamming(2), rate, weights=[1, 4]) == pytest.approx(d, abs=1e-8)
