"""Prices of experts against a convex programme and enumeration, and the laws of pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from expertbank import (
    distortion_at_rate,
    gating_rate,
    load_bank,
    load_family,
    rate_distortion_curve,
    routing,
)
from expertbank.expert_values import (
    REMOVAL_SCORES,
    point_at_rate,
    reap_scores,
    removal_order,
    removal_prices,
)
from expertbank.shipped.manifest import read_json, shipped_file
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


# --- what data/removals holds, without the library's solver ---


def plain_gate(losses, rate):
    """D(rate), and the load (R,) and gate (N, R) there: SLSQP finds the load that is best at a
    price, and the tangent of that price is highest at the rate where the right one touches."""
    n_experts = losses.shape[1]
    rows, counts = np.unique(losses, axis=0, return_counts=True)
    weights = counts / len(losses)

    def at_price(lam):
        kernel = np.exp(-rows / lam)
        found = minimize(
            lambda load: -(weights @ np.log(kernel @ load)),
            np.full(n_experts, 1 / n_experts),
            method="SLSQP",
            jac=lambda load: -((weights / (kernel @ load)) @ kernel),
            bounds=[(1e-15, 1)] * n_experts,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return lam * (found.fun - rate), found.x

    best = minimize_scalar(
        lambda log_lam: -at_price(np.exp(log_lam))[0],
        bounds=np.log([0.01, 2]),
        method="bounded",
        options={"xatol": 1e-5},
    )
    value, load = at_price(np.exp(best.x))
    gate = load * np.exp(-losses / np.exp(best.x))
    return value, load, gate / gate.sum(axis=1, keepdims=True)


def plain_scores(losses, rate):
    """The four scores (R,) by which experts go."""
    value, load, gate = plain_gate(losses, rate)
    experts = range(losses.shape[1])
    prices = [plain_gate(np.delete(losses, t, axis=1), rate)[0] - value for t in experts]
    strongest = gate.argmax(axis=1)
    active = [gate[strongest == t, t] for t in experts]
    reap = [weights.mean() if len(weights) else 0 for weights in active]
    scores = {"information": prices, "load": load, "REAP": reap, "accuracy": -losses.mean(axis=0)}
    return {name: np.array(score) for name, score in scores.items()}


@pytest.fixture(scope="module")
def fashion():
    """A bank of Fashion-MNIST, its losses on the test split, and what is shipped of it."""
    [bank] = [one for one in load_family(data="fashion") if one.name == "replicate-2034"]
    shipped = read_json(shipped_file("removals", "removals.json"))
    [row] = [
        row
        for row in shipped["banks"]
        if (row["data"], row["bank"]) == ("fashion", "replicate-2034")
    ]
    return bank.losses("test").astype(float), row, shipped["rate"]


def test_every_bank_of_both_data_sets_is_shipped_once():
    rows = read_json(shipped_file("removals", "removals.json"))["banks"]
    named = [(row["data"], row["bank"]) for row in rows]
    replicates = {bank.name for bank in load_family()}
    assert len(named) == 2 * (len(replicates) + 2) == len(set(named))
    for data, others in (
        ("mnist", {"mnist", "specialists"}),
        ("fashion", {"fashion", "fashion-specialists"}),
    ):
        assert {bank for of, bank in named if of == data} == replicates | others


def test_another_solver_finds_the_shipped_prices_of_fashion(fashion):
    losses, row, rate = fashion
    prices = np.array(row["singles"][f"{rate:g}"])
    ranked = np.argsort(prices)
    assert prices[ranked[0]] == 0 and prices[ranked[-1]] > 5e-4
    value = plain_gate(losses, rate)[0]
    assert value == pytest.approx(row["distortion"], abs=2e-7)
    for t in ranked[[0, 12, 18, -1]]:
        other = plain_gate(np.delete(losses, t, axis=1), rate)[0] - value
        assert other == pytest.approx(prices[t], abs=2e-7)


@pytest.mark.parametrize("name", REMOVAL_SCORES)
def test_another_solver_takes_the_shipped_step_on_fashion(fashion, name):
    """The next expert to go when 18 are gone, by each score, and what is left then."""
    losses, row, rate = fashion
    path = row["paths"][name]
    left = [t for t in range(25) if t not in path["order"][:18]]
    chosen_on, judged_on = losses[::2], losses[1::2]
    scores = plain_scores(chosen_on[:, left], rate)[name]
    next_gone = left.index(path["order"][18])
    assert scores[next_gone] == scores.min() < np.median(scores) - 1e-5
    value = plain_gate(judged_on[:, left], rate)[0]
    assert value == pytest.approx(path["distortion"][18], abs=2e-7)


def test_bad_questions_are_refused():
    refused(lambda: removal_prices([[0, 1, 1]], 0.1, 3), "n_removed")
    refused(lambda: removal_prices([[0]], 0.1), "1 experts")
    refused(lambda: removal_prices([[0, 1]], -1), "rate")
    refused(lambda: reap_scores([[0.5, 0.5]], 3), "n_active")
