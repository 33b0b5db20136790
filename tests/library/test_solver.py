"""The solver against closed forms, two other optimisers, twenty thousand adversarial tables and the
laws of D(R).

An answer is judged by its own gate on the raw table: what the gate loses and tells, and the dual
bound at its marginal.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize, nnls
from scipy.special import logsumexp

from expertbank import solver, tables
from expertbank.channels import bsc_distortion_rate, uniform_rate
from expertbank.information import entropy, gating_rate
from expertbank.rate_distortion import (
    ConvergenceWarning,
    critical_lambda,
    distortion_at_rate,
    rate_distortion,
    rate_distortion_curve,
    routing,
)

# a tolerance that is missed anywhere below is a failure, unless the test asks for it
pytestmark = pytest.mark.filterwarnings("error::expertbank.rate_distortion.ConvergenceWarning")
LOG2 = np.log(2)
TOL = 1e-9


def normalised(weights, n):
    return np.full(n, 1 / n) if weights is None else np.asarray(weights) / np.sum(weights)


def judge(losses, lam, w, marginal):
    """From the raw table: D - (mean row minimum) and I of the gate marginal * exp(-loss/lam), and a
    bound below all.

    The bound is the dual's: no gate has D + lam I less, whatever the marginal.
    """
    excess = losses - losses.min(axis=1, keepdims=True)
    kernel = np.exp(-excess / lam)
    z = kernel @ marginal
    gate = kernel * marginal / z[:, None]
    own = w @ gate
    logs = np.log(np.divide(gate, own, out=np.ones_like(gate), where=(gate > 0) & (own > 0)))
    bound = -lam * (w @ np.log(z) + np.log(((w / z) @ kernel).max()))
    return (
        float(w @ (gate * excess).sum(axis=1)),
        float(w @ (gate * logs).sum(axis=1)),
        float(bound),
    )


def best_bound(losses, lam, w, marginal, enough):
    """A better dual bound than that of the marginal, where that is loose: EM goes on from it, and
    from near it."""
    kernel = np.exp((losses.min(axis=1, keepdims=True) - losses) / lam)
    best = -np.inf
    for share in (0, 1e-7, 1e-3):
        x = (1 - share) * marginal + share / len(marginal)
        for _ in range(100):
            best = max(best, judge(losses, lam, w, x)[2])
            if best >= enough:
                return best
            x = x * ((w / (kernel @ x)) @ kernel)
            x /= x.sum()
    return best


def disagreement(losses, lam, w, point):
    """How far the point's value lies outside what its own gate and its certificate allow, in units
    of lam."""
    distortion, rate, bound = judge(losses, lam, w, point.marginal)
    value = (point.distortion - w @ losses.min(axis=1)) + lam * point.rate
    least = value - lam * point.certificate
    if bound < least - 1e-10 * lam:
        bound = best_bound(losses, lam, w, point.marginal, least - 1e-10 * lam)
    return max(
        least - bound,  # the point is as near to the least value as it says ...
        distortion + lam * rate - value,  # ... its gate, one update further, does no worse ...
        bound - value,  # ... and neither of them better than possible
        bound - (distortion + lam * rate),
    ) / lam  # fmt: skip


def value_of(point):
    return point.distortion + point.lam * point.rate


def assert_same_value(one, other, shift=0.0):
    """Two points at one price agree within their certificates."""
    allowed = one.lam * np.maximum(one.certificate, other.certificate) + 1e-12 * (
        1 + np.abs(one.distortion)
    )
    assert np.all(np.abs(value_of(one) - value_of(other) + shift) <= allowed)


def hamming(k):
    return 1.0 - np.eye(k)


# --- closed forms, D and I to 1e-9 ---


@pytest.mark.parametrize("rate", [1e-3, 0.05, 0.2, 0.5, 0.69])
def test_binary_symmetric_source(rate):
    # near rate 0 lambda is large, and the slack lam * tol
    found = distortion_at_rate(hamming(2), rate, tol=1e-12)
    assert found == pytest.approx(bsc_distortion_rate(rate), abs=1e-9)


@pytest.mark.parametrize("method", ["newton", "blahut-arimoto"])
@pytest.mark.parametrize("k", [2, 3, 10, 40])
@pytest.mark.parametrize("lam", [0.02, 0.2, 1.0, 30.0])
def test_uniform_letter_under_hamming_loss(k, lam, method):
    point = rate_distortion(hamming(k), lam, method=method)
    wrong = (k - 1) * np.exp(-1 / lam)
    assert point.distortion == pytest.approx(wrong / (1 + wrong), abs=1e-9)
    assert point.rate == pytest.approx(uniform_rate(point.distortion, k), abs=1e-9)


@pytest.mark.parametrize("k", [2, 4, 9])
@pytest.mark.parametrize("lam", [0.1, 0.3, 0.6, 1.2])
def test_any_letter_under_hamming_loss(k, lam):
    """Water filling: letters rarer than a level get no expert, though they have one of their own.

    With s = exp(-1/lam) the conditions for an optimum say z_t = w_t / c for the letters in use, and
    z_t = s for the others, where c makes the marginal (z - s) / (1 - s) sum to 1.
    """
    w = np.sort(np.random.default_rng(k).dirichlet(np.ones(k)))[::-1]
    s = np.exp(-1 / lam)
    for n in range(k, 0, -1):
        c = w[:n].sum() / (1 - s + n * s)
        marginal = np.append((w[:n] / c - s) / (1 - s), np.zeros(k - n))
        if marginal.min() >= 0:
            break
    gate = marginal * np.where(hamming(k) == 0, 1, s)
    gate /= gate.sum(axis=1, keepdims=True)
    point = rate_distortion(hamming(k), lam, w, tol=1e-12)
    np.testing.assert_allclose(point.marginal, marginal, atol=1e-9)
    assert point.distortion == pytest.approx(w @ (1 - np.diag(gate)), abs=1e-9)
    assert point.rate == pytest.approx(gating_rate(gate, w), abs=1e-9)
    np.testing.assert_allclose(routing(hamming(k), point), gate, atol=1e-8)


@pytest.mark.parametrize("k", [2, 5])
def test_erasure(k):
    """One of k letters, guessed at a huge loss if wrong, or declined at loss 1: D = 1 - R / log k,
    all one segment."""
    losses = np.column_stack([1e6 * hamming(k), np.ones(k)])
    slope = 1 / np.log(k)
    assert critical_lambda(losses) == pytest.approx(slope, rel=1e-12)
    above, below = (rate_distortion(losses, slope * share) for share in (1 + 1e-6, 1 - 1e-6))
    assert (above.rate, above.distortion) == (0, 1)
    assert (below.rate, below.distortion) == (
        pytest.approx(np.log(k), abs=1e-9),
        pytest.approx(0, abs=1e-9),
    )
    for share in (0.1, 0.5, 0.99):
        assert distortion_at_rate(losses, share * np.log(k)) == pytest.approx(1 - share, abs=1e-9)
    curve = rate_distortion_curve(losses, band=1e-6)
    rates = np.linspace(0, np.log(k), 50)
    np.testing.assert_allclose(curve.upper(rates), 1 - rates * slope, atol=1e-6)
    np.testing.assert_allclose(curve.lower(rates), 1 - rates * slope, atol=1e-6)
    assert len(curve.lam) < 6  # a chord is a chord


@pytest.mark.parametrize("lam", [0, 1e-3, 0.1, 1.0, np.inf])
def test_a_dominating_expert_is_alone(lam):
    rng = np.random.default_rng(0)
    losses = np.column_stack([rng.random((30, 4)) + 0.5, np.full(30, 0.5)])
    point = rate_distortion(losses, lam)
    assert (point.rate, point.certificate, point.marginal.tolist()) == (0, 0, [0, 0, 0, 0, 1])
    assert point.distortion == pytest.approx(0.5, abs=1e-15)
    assert critical_lambda(losses) == 0


@pytest.mark.parametrize("lam", [0.05, 0.2, 0.7])
def test_independent_pairs_of_tables_add(lam):
    """Losses a_it + b_ju of independent i and j, experts (t, u): distortions add, rates add."""
    rng = np.random.default_rng(1)
    a, b, v, w = rng.random((9, 4)), rng.random((7, 3)), rng.random(9), rng.random(7)
    both = (a[:, None, :, None] + b[None, :, None, :]).reshape(63, 12)
    one, other = rate_distortion(a, lam, v, tol=1e-12), rate_distortion(b, lam, w, tol=1e-12)
    pair = rate_distortion(both, lam, np.outer(v, w).ravel(), tol=1e-12)
    assert pair.distortion == pytest.approx(one.distortion + other.distortion, abs=1e-9)
    assert pair.rate == pytest.approx(one.rate + other.rate, abs=1e-9)


@pytest.mark.parametrize("lam", [0, 0.05, 0.3])
def test_copies_of_inputs_and_experts(lam):
    rng = np.random.default_rng(2)
    losses, w = rng.random((20, 4)).round(1), rng.random(20)
    rows, columns = rng.integers(20, size=60), np.array([2, 0, 1, 3, 3, 0, 0])
    rows[:20] = np.arange(20)
    copied = losses[rows][:, columns]
    one = rate_distortion(losses, lam, np.bincount(rows, np.tile(w, 3)), tol=1e-12)
    other = rate_distortion(copied, lam, np.tile(w, 3), tol=1e-12)
    assert other.rate == pytest.approx(one.rate, abs=1e-9)
    assert other.distortion == pytest.approx(one.distortion, abs=1e-9)
    shared = np.bincount(columns, other.marginal)
    np.testing.assert_allclose(shared, one.marginal, atol=1e-9)


# --- other optimisers: each side bounds the other, from the raw table ---


def by_slsqp(losses, lam, w):
    kernel = np.exp(-(losses - losses.min(axis=1, keepdims=True)) / lam)
    k = losses.shape[1]
    found = minimize(
        lambda x: -(w @ np.log(np.maximum(kernel @ x, 1e-300))), np.full(k, 1 / k), method="SLSQP",
        jac=lambda x: -((w / np.maximum(kernel @ x, 1e-300)) @ kernel), bounds=[(0, 1)] * k,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    return found.x


def by_clarabel(losses, lam, w):
    cvxpy = pytest.importorskip("cvxpy", reason="another optimiser: the extra test")
    kernel = np.exp(-(losses - losses.min(axis=1, keepdims=True)) / lam)
    x = cvxpy.Variable(losses.shape[1], nonneg=True)
    problem = cvxpy.Problem(cvxpy.Maximize(w @ cvxpy.log(kernel @ x)), [cvxpy.sum(x) == 1])
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return x.value


ORACLE_TABLES = {
    "real": lambda rng: rng.random((25, 6)),
    "zero-one": lambda rng: (rng.random((40, 5)) < 0.3) * 1.0,
    "whole numbers": lambda rng: rng.integers(0, 4, (20, 7)) / 2,
    "heavy tails": lambda rng: rng.lognormal(0, 1, (30, 4)),
    "near copies": lambda rng: rng.random((20, 1)) + 0.2 * rng.random((20, 5)),
}


@pytest.mark.parametrize("oracle", [by_slsqp, by_clarabel])
@pytest.mark.parametrize("lam", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("name", ORACLE_TABLES)
def test_another_optimiser_agrees_within_both_certificates(name, lam, oracle):
    rng = np.random.default_rng(3)
    losses = ORACLE_TABLES[name](rng)
    w = normalised(rng.random(len(losses)), len(losses))
    theirs = np.maximum(oracle(losses, lam, w), 0)
    distortion, rate, bound = judge(losses, lam, w, theirs / theirs.sum())
    point = rate_distortion(losses, lam, w)
    ours = value_of(point) - w @ losses.min(axis=1)
    assert distortion + lam * rate - bound < 1e-5 * lam  # the other optimiser did its work
    assert bound - 1e-13 <= ours <= distortion + lam * rate + lam * point.certificate + 1e-13
    assert disagreement(losses, lam, w, point) < 1e-12


@pytest.mark.parametrize("lam", [0.02, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", ORACLE_TABLES)
def test_blahut_arimoto_agrees_within_both_certificates(name, lam):
    losses = ORACLE_TABLES[name](np.random.default_rng(4))
    newton = rate_distortion(losses, lam)
    plain = rate_distortion(losses, lam, tol=1e-6, method="blahut-arimoto")
    assert plain.certificate <= 1e-6 and newton.certificate <= TOL
    assert (
        abs(value_of(newton) - value_of(plain))
        <= lam * (newton.certificate + plain.certificate) + 1e-13
    )
    assert newton.iterations <= plain.iterations


def test_both_methods_on_the_shipped_bank(shipped):
    losses, lams = shipped.losses("test")[:2000], [3.0, 0.3, 0.05, 0.0]
    newton = rate_distortion_curve(losses, lams)
    plain = rate_distortion_curve(losses, lams, tol=1e-4, method="blahut-arimoto")
    assert np.all(plain.certificate <= 1e-4) and np.all(newton.certificate <= TOL)
    assert np.all(
        np.abs(value_of(newton) - value_of(plain))
        <= lams * (newton.certificate + plain.certificate) + 1e-13
    )
    assert newton.iterations.sum() < 50 < plain.iterations.sum()


def test_critical_slowing_down_is_blahut_arimotos_alone():
    """Just below the critical lambda, EM creeps; Newton does not notice."""
    losses = (np.random.default_rng(5).random((300, 8)) < 0.3) * 1.0
    lam = 0.9 * critical_lambda(losses)
    newton = rate_distortion(losses, lam)
    plain = rate_distortion(losses, lam, tol=1e-6, method="blahut-arimoto")
    assert newton.iterations <= 10
    assert plain.iterations > 20 * newton.iterations


# --- the quadratic model: Lawson and Hanson, beside SciPy's ---


def assert_as_good_as_nnls(a, c, start):
    """min |ay - c|^2 / 2 over y >= 0."""
    h, b = a.T @ a, a.T @ c
    y = solver.nonnegative_minimum(h, b, start)
    reference, _ = nnls(a, c)
    assert y.min() >= 0
    scale = c @ c
    assert y @ h @ y / 2 - b @ y <= reference @ h @ reference / 2 - b @ reference + 1e-11 * scale
    return y, reference


def better_than_nothing(rng, a, c):
    """A start, with zeros, that beats y = 0, as the present marginal does; c is turned if only y =
    0 is left."""
    pull = a.T @ c
    if pull.max() <= 0:
        c *= -1
        pull *= -1
    start = rng.random(len(pull)) * (rng.random(len(pull)) < 0.5)
    if start @ pull <= 0:
        start = np.eye(len(pull))[pull.argmax()]
    return start * (start @ pull) / np.sum((a @ start) ** 2)


@pytest.mark.parametrize("k", [1, 2, 5, 12, 30])
def test_nonnegative_minimum_of_random_problems(k):
    rng = np.random.default_rng(k)
    for trial in range(40):
        a = rng.normal(size=(k + 5, k)) if trial % 2 else rng.random((k + 5, k))
        # every third: all experts are in use
        c = rng.normal(size=k + 5) if trial % 3 else a @ rng.random(k)
        y, reference = assert_as_good_as_nnls(a, c, better_than_nothing(rng, a, c))
        np.testing.assert_allclose(y, reference, atol=1e-7 * (1 + reference.max()))


def test_nonnegative_minimum_adds_experts_in_any_order():
    """From one expert to all of them: they enter by their pull, not by their number."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        a = np.eye(6) + 0.1 * rng.random((6, 6))
        expected = rng.permutation(6) + 1.0
        y = solver.nonnegative_minimum(a.T @ a, a.T @ a @ expected, np.eye(6)[rng.integers(6)])
        np.testing.assert_allclose(y, expected, atol=1e-9)


@pytest.mark.parametrize("noise", [1e-3, 1e-5])
def test_nonnegative_minimum_of_nearly_singular_problems(noise):
    rng = np.random.default_rng(1)
    for _ in range(60):
        k = int(rng.integers(2, 10))
        a = rng.random((20, 1)) + noise * rng.normal(size=(20, k))
        c = rng.random(20)
        assert_as_good_as_nnls(a, c, better_than_nothing(rng, a, c))


# --- adversarial tables ---


def adversarial(rng):
    """Losses (N, R), weights (N,) and a price: ties, copies, near copies, heavy tails, tiny
    weights, N = 1, R = 1."""
    n, k = int(rng.integers(1, 40)), int(rng.integers(1, 11))
    make = [
        lambda: rng.random((n, k)),
        lambda: (rng.random((n, k)) < rng.random()) * 1.0,
        lambda: rng.integers(0, 3, (n, k)) * 1.0,
        lambda: rng.standard_cauchy((n, k)),
        lambda: rng.lognormal(0, 3, (n, k)),
        lambda: rng.random((n, 1)) + 1e-6 * rng.random((n, k)),
        lambda: rng.random((n, k)) + np.arange(k) * rng.choice([1e-9, 1e-3, 1.0]),
        lambda: np.where(rng.random((n, k)) < 1 / k, 0.0, 10.0 ** rng.integers(-3, 7)),
    ][rng.integers(8)]
    losses = make()
    if rng.random() < 0.3:
        losses = losses[:, rng.integers(k, size=k + 2)]
    if rng.random() < 0.3:
        losses = losses[rng.integers(n, size=n + 5)]
    if rng.random() < 0.2:
        losses = losses + 1e-6 * rng.random(losses.shape)
    w = None if rng.random() < 0.4 else 10 ** rng.uniform(-12, 0, len(losses))
    return losses, w, 10 ** rng.uniform(-4, 3)


@pytest.mark.slow
def test_twenty_thousand_solves():
    rng = np.random.default_rng(2026)
    solves, worst, farthest, most = 0, 0.0, 0.0, 0
    while solves < 20_500:
        losses, weights, lam = adversarial(rng)
        point = rate_distortion(losses, lam, weights)
        solves += 1
        worst, most = max(worst, point.certificate), max(most, point.iterations)
        w = normalised(weights, len(losses))
        # rounding: a mean of losses this large, measured in units of lam
        rounding = 1e-13 + 1e-15 * float(w @ np.abs(losses).max(axis=1)) / lam
        farthest = max(farthest, disagreement(losses, lam, w, point) / (1e-9 + rounding))
    print(
        f"{solves} solves, worst certificate {worst:.3g}, "
        f"most iterations {most}, judged {farthest:.3g}"
    )
    assert solves >= 20_000
    assert worst <= TOL
    assert farthest <= 5  # the bound found here is not the solver's own
    assert most <= 100


@st.composite
def adversarial_tables(draw):
    """The same dangers in small tables, which hypothesis can shrink."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    numbers = draw(
        st.sampled_from([
            st.integers(0, 2).map(float),
            st.floats(0, 1),
            st.sampled_from([0.0, 1e-9, 1.0, 1 + 1e-6, 1e6]),
            st.floats(-1e6, 1e6),
        ])
    )  # fmt: skip
    losses = draw(arrays(float, shape, elements=numbers))
    losses = losses[:, draw(st.lists(st.integers(0, shape[1] - 1), min_size=1, max_size=6))]
    weights = 10 ** draw(arrays(float, shape[0], elements=st.floats(-12, 0)))
    return losses, weights, 10 ** draw(st.floats(-4, 3))


@given(adversarial_tables())
def test_any_table_is_solved_to_the_tolerance(table):
    losses, weights, lam = table
    point = rate_distortion(losses, lam, weights)
    assert 0 <= point.certificate <= TOL
    assert point.iterations <= 100
    w = normalised(weights, len(losses))
    rounding = 1e-13 + 1e-15 * np.abs(losses).max() / lam
    assert disagreement(losses, lam, w, point) <= TOL + rounding
    assert 0 <= point.rate <= min(np.log(losses.shape[1]), entropy(w)) + 1e-12
    assert point.marginal.min() >= 0 and point.marginal.sum() == pytest.approx(1, abs=1e-14)


@given(adversarial_tables())
def test_any_table_is_solved_at_zero(table):
    losses, weights, _ = table
    point = rate_distortion(losses, 0, weights)
    w = normalised(weights, len(losses))
    assert 0 <= point.certificate <= TOL
    assert point.distortion == pytest.approx(
        w @ losses.min(axis=1), abs=1e-12 * (1 + np.abs(losses).max())
    )
    gate = routing(losses, point)
    best = losses == losses.min(axis=1, keepdims=True)
    assert np.all(best[gate > 0])
    assert gating_rate(gate, w) == pytest.approx(point.rate, abs=1e-6)


def test_experts_that_only_rare_inputs_tell_apart():
    """Newton's model gives the fourth expert nothing, but one input of weight 1e-11 cannot do
    without it."""
    losses = np.array(
        [
            [1, 2, 1, 0, 0, 1, 2],
            [0, 1, 2, 1, 1, 2, 1],
            [1, 1, 1, 1, 2, 1, 1],
            [2, 2, 2, 0, 2, 2, 2],
            [0, 2, 2, 1, 0, 2, 2],
        ]
    )
    weights = [2.28e-2, 0.977, 8.4e-12, 1.5e-11, 1.69e-6]
    point = rate_distortion(losses, 0.0536, weights)
    assert point.certificate <= TOL and point.iterations < 20


# --- laws ---

CURVES = {
    "real": np.random.default_rng(6).random((40, 5)),
    "zero-one": (np.random.default_rng(7).random((80, 6)) < 0.3) * 1.0,
    "heavy tails": np.random.default_rng(8).lognormal(0, 2, (30, 4)),
    "one segment": np.array([[0, 100, 1.0], [100, 0, 1.0]]),
    "segment and curve": np.array(
        [[0, 9, 1.0, 1.5], [9, 0, 1.0, 0.2], [0.3, 0.2, 1.0, 0.1], [4, 1, 1.0, 2.0]]
    ),
    # equally good on average, so that the rate leaves 0 only as lambda grows without limit
    "tied": np.array([[0, 1.0], [1, 0], [0, 1], [1, 0], [0, 0]]),
    "tied threes": np.random.default_rng(9).permuted(np.tile(np.arange(12.0)[:, None], 3), axis=0),
}


@cache
def curve_of(name):
    return rate_distortion_curve(CURVES[name])


@pytest.mark.parametrize("name", CURVES)
def test_along_a_curve(name):
    """Slack comes from certificates c alone: (lam1 - lam2) (I1 - I2) <= c (lam1 + lam2) where lam1
    > lam2."""
    losses, curve = CURVES[name], curve_of(name)
    assert np.all(curve.certificate <= TOL)
    lam, slack = curve.lam, TOL * (curve.lam[:-1] + curve.lam[1:]) / -np.diff(curve.lam) + 1e-12
    assert np.all(np.diff(curve.rate) >= -slack)
    assert np.all(np.diff(curve.distortion) <= lam[:-1] * (slack + 2 * TOL) + 1e-12)
    # convex: every point lies above the supporting line of every other
    values = curve.distortion + lam[:, None] * curve.rate
    assert np.all(values >= (np.diag(values) - lam * curve.certificate)[:, None] - 1e-12)
    _, counts = np.unique(losses - losses.min(axis=1, keepdims=True), axis=0, return_counts=True)
    assert curve.rate.max() <= min(np.log(losses.shape[1]), entropy(counts / counts.sum())) + 1e-9
    assert (
        curve.distortion.min() >= curve.floor - 1e-12
        and curve.distortion.max() <= curve.ceiling + 1e-12
    )
    assert curve.floor == pytest.approx(losses.min(axis=1).mean())
    assert curve.ceiling == pytest.approx(losses.mean(axis=0).min())


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_is_its_points_solved_cold(name):
    curve = curve_of(name)
    for k, lam in enumerate(curve.lam):
        point = rate_distortion(CURVES[name], lam)
        allowed = lam * (point.certificate + curve.certificate[k]) + 1e-12
        assert abs(value_of(point) - curve.distortion[k] - lam * curve.rate[k]) <= allowed
        if lam == 0:
            assert point.rate == pytest.approx(curve.rate[k], abs=1e-8)


@pytest.mark.parametrize("lam", [0.03, 0.2, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_merging_experts_and_inputs(seed, lam):
    """Data processing, for the value D + lam I at every price, so for D at every rate.

    Two experts become one with the better loss of both: any gate still does what it did and tells
    no more. An expert is left out, or takes on the worse loss of two: fewer gates. Inputs seen only
    in pairs, at their mean loss: the gate knows less.
    """
    losses = np.random.default_rng(seed).random((24, 5))

    def value(table):
        return value_of(rate_distortion(table, lam))

    a, b, rest = losses[:, 0], losses[:, 1], losses[:, 2:]
    better, worse = (np.column_stack([pick(a, b), rest]) for pick in (np.minimum, np.maximum))
    values = [value(table) for table in (better, losses, losses[:, 1:], worse)]
    assert np.all(np.diff(values) >= -lam * TOL)
    assert value(losses.reshape(12, 2, 5).mean(axis=1)) >= values[1] - lam * TOL
    gate = routing(losses, rate_distortion(losses, lam))
    merged = np.column_stack([gate[:, 0] + gate[:, 1], gate[:, 2:]])
    assert gating_rate(merged) <= gating_rate(gate) + 1e-12


@pytest.mark.parametrize("lam", [0.0, 0.02, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_what_must_not_matter(seed, lam):
    rng = np.random.default_rng(seed)
    losses = rng.integers(0, 64, (30, 5)) / 64  # exact in binary, so that shifts keep ties
    w = normalised(rng.integers(1, 9, 30), 30)
    point = rate_distortion(losses, lam, w)
    order = rng.permutation(30)
    assert_same_value(point, rate_distortion(losses[order], lam, w[order]))
    split, share = np.append(np.arange(30), [3, 3, 7]), np.append(w, [w[3] / 2, w[3] / 4, w[7] / 8])
    share[[3, 7]] = w[3] / 4, 7 * w[7] / 8
    assert_same_value(point, rate_distortion(losses[split], lam, share))
    shift = rng.integers(-100, 100, (30, 1)) * 1.0
    assert_same_value(point, rate_distortion(losses + shift, lam, w), shift=(w @ shift)[0])
    assert_same_value(point, rate_distortion(losses[:, rng.permutation(5)], lam, w))
    scaled = rate_distortion(1024 * losses, 1024 * lam, w)
    assert value_of(scaled) == pytest.approx(1024 * value_of(point), abs=1024 * (lam * TOL + 1e-13))
    for dtype in (np.float32, np.float16):  # 64ths are exact in them
        assert_same_value(point, rate_distortion(losses.astype(dtype), lam, w))


# --- the certified band ---


@pytest.mark.parametrize("band", [1e-2, 1e-5])
@pytest.mark.parametrize("name", CURVES)
def test_the_band_holds_the_truth_and_is_as_narrow_as_asked(name, band):
    losses = CURVES[name]
    curve = rate_distortion_curve(losses, band=band)
    rates = np.unique(
        np.concatenate([np.linspace(0, 1.2 * curve.rate.max(), 400), np.geomspace(1e-8, 1, 60)])
    )
    lower, upper = curve.lower(rates), curve.upper(rates)
    assert np.all(upper - lower <= band * (1 + 1e-6) + 1e-12)
    assert np.all(lower <= upper + 1e-12)
    for rate in [0, *np.linspace(1e-3, 1.1 * curve.rate.max(), 9)]:
        truth = distortion_at_rate(losses, rate)
        slack = 2e-9 * (curve.ceiling - curve.floor) + 1e-12  # how far that may itself be above
        assert curve.lower(rate) - slack <= truth <= curve.upper(rate) + slack
    assert curve.upper(0) == pytest.approx(curve.ceiling, abs=1e-12)
    assert curve.upper(10.0) == pytest.approx(curve.floor, abs=1e-9)
    assert np.all(np.diff(lower) <= 1e-12) and np.all(np.diff(upper) <= 1e-12)
    assert np.all(np.diff(curve.lam) <= 0) and np.all(curve.certificate <= TOL)


@pytest.mark.parametrize("lams", [[0.3], [5.0, 0.01], [np.inf], [0.0], [0.02, np.inf, 0.2, 0]])
@pytest.mark.parametrize("name", CURVES)
def test_any_points_give_a_band_that_holds_the_truth(name, lams):
    losses = CURVES[name]
    curve = rate_distortion_curve(losses, lams)
    for rate in np.linspace(0, 1.1 * curve_of(name).rate.max(), 7):
        truth = distortion_at_rate(losses, rate)
        assert curve.lower(rate) - 1e-9 * curve.ceiling <= truth
        assert truth <= curve.upper(rate) + 2e-9 * curve.ceiling
    assert np.shape(curve.lower(0.1)) == np.shape(curve.upper(0.1)) == ()
    assert curve.lower(np.ones((2, 3))).shape == curve.upper(np.ones((2, 3))).shape == (2, 3)


def test_the_ceiling_bounds_a_curve_that_starts_late():
    """Points far down the curve alone: near rate 0 the chord to the best single expert is the upper
    bound."""
    losses = CURVES["real"]
    curve = rate_distortion_curve(losses, [0.05, 0.02])
    assert curve.upper(0) == pytest.approx(losses.mean(axis=0).min())
    half = curve.rate[0] / 2
    assert curve.upper(half) == pytest.approx((curve.ceiling + curve.distortion[0]) / 2)
    assert distortion_at_rate(losses, half) < curve.upper(half)


def test_a_loose_certificate_widens_the_band():
    losses = CURVES["real"]
    loose, tight = (rate_distortion_curve(losses, [0.1], tol=tol) for tol in (1e-1, 1e-9))
    assert loose.certificate[0] > 1e-4
    rate = tight.rate[0]
    assert (
        loose.lower(rate)
        < tight.lower(rate)
        <= tight.distortion[0] + 1e-12
        <= loose.upper(rate) + 1e-9
    )


def test_the_band_of_one_expert_and_of_copies():
    for losses in ([[0.2], [0.4]], [[0.2, 0.2], [0.4, 0.4]]):
        curve = rate_distortion_curve(losses, band=1e-6)
        np.testing.assert_allclose(
            [curve.lower(0.5), curve.upper(0.5), curve.lower(0), curve.upper(0)], 0.3
        )


# --- what is not reached is said ---


@pytest.mark.parametrize(
    ("method", "limit"), [("newton", "MAX_NEWTON"), ("blahut-arimoto", "MAX_EM")]
)
def test_a_missed_tolerance_warns_and_names_the_gap(method, limit, monkeypatch):
    losses = CURVES["real"]
    monkeypatch.setattr(solver, limit, 1)
    with pytest.warns(ConvergenceWarning) as caught:
        point = rate_distortion(losses, 0.05, method=method)
    assert point.certificate > TOL
    assert [str(one.message) for one in caught] == [
        f"lam = 0.05: certificate {point.certificate:.3g} above tol = 1e-09 "
        f"after {point.iterations} iterations"
    ]
    assert caught[0].filename == __file__  # the caller's line
    # and the certificate is still true
    assert disagreement(losses, 0.05, normalised(None, 40), point) < 1e-12
    with pytest.warns(
        ConvergenceWarning, match=r"lam = \S+: certificate \S+ above tol = 1e-09"
    ) as caught:
        curve = rate_distortion_curve(losses, [0.3, 0.05, 0.1], method=method)
    assert (
        f"certificate {curve.certificate.max():.3g} " in str(caught[0].message) and len(caught) == 1
    )
    with pytest.warns(ConvergenceWarning, match="above tol"):
        rate_distortion_curve(losses, band=1e-3, method=method)


@pytest.mark.filterwarnings("ignore::expertbank.rate_distortion.ConvergenceWarning")
@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("name", CURVES)
def test_certificates_hold_before_the_end(name, limit, monkeypatch):
    """Also for experts without mass, which look optimal among those in use."""
    losses, lams = CURVES[name], [0.3, 0.1, 0.03]
    best = rate_distortion_curve(losses, lams)
    start = np.append(np.ones(2), np.zeros(losses.shape[1] - 2)) / 2
    monkeypatch.setattr(solver, "MAX_NEWTON", limit)
    for lam, least in zip(lams, value_of(best)):
        table = tables.table_of(losses)
        table.set_price(lam)
        x, f, g, certificate, _ = solver.maximise(table, start, TOL)
        assert certificate >= np.log(g.max()) - 1e-15
        assert table.floor - lam * f <= least + lam * (certificate + TOL) + 1e-12
        assert table.floor - lam * f >= least - lam * TOL - 1e-12
        assert x.min() >= 0 and x.sum() == pytest.approx(1, abs=1e-12)


def test_distortion_at_rate_warns_too(monkeypatch):
    monkeypatch.setattr(solver, "_search", lambda table, x, f, g, y: (x, f, g))  # stuck
    monkeypatch.setattr(solver, "MAX_NEWTON", 2)
    with pytest.warns(ConvergenceWarning, match="certificate .* above tol = 1e-09"):
        distortion_at_rate(CURVES["real"], 0.3)


# --- costs ---


@pytest.mark.parametrize("dtype", [float, np.float32, np.uint8, bool])
def test_a_cost_is_added_to_the_losses(dtype):
    rng = np.random.default_rng(10)
    losses = (
        (rng.random((60, 5)) < 0.4).astype(dtype)
        if dtype in (np.uint8, bool)
        else rng.random((60, 5)).astype(dtype)
    )
    cost, w = np.array([0.3, 0, 0.05, 0.11, 2.0]), rng.random(60)
    summed = losses.astype(float) + cost
    assert critical_lambda(losses, w, cost=cost) == pytest.approx(
        critical_lambda(summed, w), rel=1e-12
    )
    for lam in (0, 0.05, 0.3, np.inf):
        one, other = rate_distortion(losses, lam, w, cost=cost), rate_distortion(summed, lam, w)
        assert one.distortion == pytest.approx(other.distortion, abs=1e-9)
        assert one.rate == pytest.approx(other.rate, abs=1e-9)
        np.testing.assert_allclose(one.marginal, other.marginal, atol=1e-8)
        np.testing.assert_allclose(
            routing(losses, one, cost=cost), routing(summed, one), atol=1e-12
        )
    for rate in (0, 0.1, 0.4):
        at = distortion_at_rate(losses, rate, w, cost=cost)
        assert at == pytest.approx(distortion_at_rate(summed, rate, w), abs=1e-8)
    one, other = (
        rate_distortion_curve(losses, None, w, cost=cost),
        rate_distortion_curve(summed, None, w),
    )
    np.testing.assert_allclose(one.distortion, other.distortion, atol=1e-8)
    assert (one.ceiling, one.floor) == (pytest.approx(other.ceiling), pytest.approx(other.floor))
    one, other = (rate_distortion_curve(*t, weights=w, band=1e-4) for t in ((summed,), (summed,)))
    np.testing.assert_allclose(one.lam, other.lam)


def test_the_same_cost_for_all_is_a_constant():
    losses = CURVES["zero-one"]
    one, other = rate_distortion(losses, 0.2), rate_distortion(losses, 0.2, cost=np.full(6, 0.25))
    assert other.rate == pytest.approx(one.rate, abs=1e-9)
    assert other.distortion == pytest.approx(one.distortion + 0.25, abs=1e-9)


def test_a_dear_expert_is_not_used():
    losses = CURVES["real"]
    point = rate_distortion(losses, 0.05, cost=[0, 0, 10.0, 0, 0])
    assert point.marginal[2] == 0
    assert_same_value(point, rate_distortion(np.delete(losses, 2, axis=1), 0.05))


@given(adversarial_tables(), st.integers(0, 3))
def test_dual_bounds_do_not_cross_values(table, seed):
    """Any marginal's dual bound is below any gate's value: on the raw table, solver or no
    solver."""
    losses, weights, lam = table
    w, rng = normalised(weights, len(losses)), np.random.default_rng(seed)
    _, _, bound = judge(losses, lam, w, rng.dirichlet(np.ones(losses.shape[1])))
    point = rate_distortion(losses, lam, weights)
    value = value_of(point) - w @ losses.min(axis=1)
    assert bound <= value + 1e-12 * (1 + np.abs(losses).max()) + lam * 1e-12


def test_logsumexp_is_the_value_at_the_optimum():
    """D + lam I = -lam sum w log sum_t pi_t exp(-l/lam) at the optimal marginal."""
    losses, lam = CURVES["heavy tails"], 0.4
    point = rate_distortion(losses, lam)
    with np.errstate(divide="ignore"):
        dual = -lam * logsumexp(np.log(point.marginal) - losses / lam, axis=1).mean()
    assert value_of(point) == pytest.approx(dual, abs=lam * TOL + 1e-12)
