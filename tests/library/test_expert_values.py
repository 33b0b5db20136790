"""Prices of experts against a convex programme and enumeration, and the laws of pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from expertbank import distortion_at_rate, gating_rate, load_bank, rate_distortion_curve, routing
from expertbank.expert_values import (
    REMOVAL_SCORES,
    point_at_rate,
    reap_scores,
    removal_order,
    removal_prices,
)
from support import refused

COUNTEREXAMPLE = np.array([[1.0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]])


def tables():
    rng = np.random.default_rng(0)
    for _ in range(3):
        yield rng.integers(0, 2, (rng.integers(4, 9), 4)).astype(float)
    for _ in range(3):
        yield rng.random((rng.integers(4, 9), 4))


def least_loss(losses, rate):
    """D(rate) by a conic programme over all gates."""
    cvxpy = pytest.importorskip("cvxpy", reason="another optimiser: the extra test")
    n, n_experts = losses.shape
    gate = cvxpy.Variable((n, n_experts), nonneg=True)
    load = np.ones((n, n)) / n @ gate
    limits = [cvxpy.sum(gate, axis=1) == 1, cvxpy.sum(cvxpy.rel_entr(gate, load)) <= n * rate]
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(cvxpy.multiply(gate, losses)) / n), limits)
    return float(problem.solve(solver="CLARABEL"))


@pytest.mark.parametrize("rate", [0.0, 0.1, np.inf])
def test_prices_are_differences_of_curves(rate):
    for losses in tables():
        base = distortion_at_rate(losses, rate)
        pairs = removal_prices(losses, rate, 2)
        np.testing.assert_array_equal(pairs, pairs.T)
        np.testing.assert_array_equal(np.diag(pairs), removal_prices(losses, rate))
        for a, b in combinations(range(4), 2):
            kept = np.delete(losses, (a, b), axis=1)
            curve = rate_distortion_curve(kept, band=1e-5)
            price = pairs[a, b] + base
            assert curve.lower(rate) - 1e-7 <= price <= curve.upper(rate) + 1e-7
        assert (pairs >= np.maximum.outer(np.diag(pairs), np.diag(pairs)) - 1e-9).all()


def test_another_solver_prices_alike():
    """The counterexample's four prices, without the library's solver."""
    losses = COUNTEREXAMPLE
    base = least_loss(losses, 0.3)
    pairs = removal_prices(losses, 0.3, 2)
    for gone in ((0,), (2,), (0, 2)):
        other = least_loss(np.delete(losses, gone, axis=1), 0.3) - base
        assert pairs[gone[0], gone[-1]] == pytest.approx(other, abs=1e-6)


def test_at_a_finite_rate_a_pair_may_cost_less_than_its_experts():
    pairs = removal_prices(COUNTEREXAMPLE, 0.3, 2)
    assert pairs[0, 2] < pairs[0, 0] + pairs[2, 2] - 0.01


def test_without_a_limit_a_pair_costs_at_least_its_experts():
    for losses in [*tables(), COUNTEREXAMPLE]:
        pairs = removal_prices(losses, np.inf, 2)
        singles = np.diag(pairs)
        for a, b in combinations(range(4), 2):
            assert pairs[a, b] >= singles[a] + singles[b] - 1e-12
            # the loss of an image whose best experts are all gone, counted
            kept = np.delete(losses, (a, b), axis=1).min(axis=1)
            assert pairs[a, b] == pytest.approx((kept - losses.min(axis=1)).mean(), abs=1e-12)


def test_copies_cost_nothing_alone_and_all_together():
    losses = np.array([[0.0, 0, 1], [0, 0, 1], [1, 1, 0], [1, 1, 0]])
    pairs = removal_prices(losses, 0.2, 2)
    assert pairs[0, 0] == pairs[1, 1] == 0
    assert pairs[0, 1] > 0.1


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_the_point_has_the_rate(rate):
    for losses in tables():
        point = point_at_rate(losses, rate)
        assert gating_rate(routing(losses, point)) == pytest.approx(point.rate, abs=1e-8)
        end = point_at_rate(losses, np.inf)
        assert end.distortion == pytest.approx(losses.min(axis=1).mean(), abs=1e-9)
        if rate < end.rate:
            at_rate = distortion_at_rate(losses, point.rate)
            assert point.distortion == pytest.approx(at_rate, abs=1e-6)
            reached = rate_distortion_curve(losses, band=1e-5)
            between = np.diff(reached.rate).max() > 0.01  # a straight piece
            assert between or point.rate == pytest.approx(rate, abs=2e-4)


def test_reap_by_hand():
    gate = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]])
    np.testing.assert_allclose(reap_scores(gate), [0.55, 0.7, 0])
    np.testing.assert_allclose(reap_scores(gate, 2), [1.3 / 3, 1.4 / 3, 0])
    np.testing.assert_allclose(reap_scores(gate, 3), gate.mean(axis=0))  # all active: the load
    np.testing.assert_allclose(reap_scores(gate, weights=[1, 0, 0]), [0.6, 0, 0])


def test_experts_go_in_the_order_of_their_score():
    rng = np.random.default_rng(3)
    losses = (rng.random((60, 5)) < [0.1, 0.2, 0.3, 0.4, 0.5]).astype(float)
    by_accuracy = removal_order(losses, 0.1, REMOVAL_SCORES["accuracy"])
    assert by_accuracy == np.argsort(-losses.mean(axis=0), kind="stable")[:4].tolist()
    left = list(range(5))
    for gone in removal_order(losses, 0.1, REMOVAL_SCORES["information"]):
        prices = {t: distortion_at_rate(losses[:, [s for s in left if s != t]], 0.1) for t in left}
        assert prices[gone] <= min(prices.values()) + 1e-8
        left.remove(gone)
    for score in REMOVAL_SCORES.values():
        assert len(set(removal_order(losses, 0.1, score))) == 4


def test_single_prices_of_the_bank_are_exact():
    """Without a limit: images that one expert alone gets right."""
    losses = load_bank("mnist").losses("test")
    alone = (losses == 0).sum(axis=1) == 1
    counted = ((losses == 0) & alone[:, None]).mean(axis=0)
    np.testing.assert_allclose(removal_prices(losses, np.inf), counted, atol=1e-12)


def test_bad_questions_are_refused():
    refused(lambda: removal_prices([[0, 1, 1]], 0.1, 3), "n_removed")
    refused(lambda: removal_prices([[0]], 0.1), "1 experts")
    refused(lambda: removal_prices([[0, 1]], -1), "rate")
    refused(lambda: reap_scores([[0.5, 0.5]], 3), "n_active")
