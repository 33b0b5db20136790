"""Remark 3 from both sides of one curve: levels by enumeration, the best private gate by another
programme."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from expertbank import load_bank, rate_distortion, routing
from expertbank.channels import ldp_sharp_cap
from expertbank.privacy import private_distortion
from expertbank.private_prices import gate_level, price_bracket
from support import refused

EPSILONS = (0.5, 2, 6)


def tables():
    rng = np.random.default_rng(0)
    for _ in range(6):
        yield rng.integers(0, 2, (rng.integers(3, 9), rng.integers(2, 5))).astype(float)
    for _ in range(6):
        yield 3 * rng.random((rng.integers(3, 9), rng.integers(2, 5)))


def least_private_loss(losses, epsilon):
    """Over all p(t|x) at once, every pair of inputs a constraint."""
    n, n_experts = losses.shape
    rows = []
    for t in range(n_experts):
        for x in range(n):
            for other in range(n):
                if x != other:
                    row = np.zeros((n, n_experts))
                    row[x, t] = 1
                    row[other, t] = -np.exp(epsilon)
                    rows.append(row.ravel())
    sums = np.kron(np.eye(n), np.ones(n_experts))
    found = linprog(losses.ravel() / n, rows, np.zeros(len(rows)), sums, np.ones(n))
    assert found.success
    return found.fun


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_best_private_gate_lies_within_both_sides(epsilon):
    for losses in tables():
        truth = least_private_loss(losses, epsilon)
        assert truth == pytest.approx(private_distortion(losses, epsilon), abs=1e-7)
        found = price_bracket(losses, epsilon)
        assert found.lower - 1e-7 <= truth <= found.exact + 1e-7
        assert found.exact <= found.upper + 1e-9
        assert found.level <= epsilon + 1e-9
        again = rate_distortion(losses, found.lam)
        assert again.distortion == pytest.approx(found.exact, abs=1e-8)


@pytest.mark.parametrize("lam", [0.1, 0.5, 2])
def test_a_level_is_the_largest_log_ratio_and_at_most_two_spreads(lam):
    for losses in tables():
        point = rate_distortion(losses, lam)
        gate = routing(losses, point)
        used = gate[:, point.marginal > 0]
        ratio = max(np.log(p / q) for column in used.T for p in column for q in column if p > 0)
        level = gate_level(losses, point)
        assert level == pytest.approx(ratio, abs=1e-9)
        spread = (losses.max(axis=0) - losses.min(axis=0)).max()
        assert level <= 2 * spread / lam + 1e-9
        # the whole bank moves by a number of its own at every input: no gate notices
        moved = losses + np.arange(len(losses))[:, None]
        assert gate_level(moved, point) == pytest.approx(level, abs=1e-6)


def test_two_spreads_are_reached_up_to_a_factor():
    """No smaller constant does for all tables: one input against the other, rare experts."""
    losses = np.array([[0.0, 1.0], [1.0, 0.0]])
    for lam in (0.05, 0.2):
        level = gate_level(losses, rate_distortion(losses, lam))
        assert level == pytest.approx(1 / lam, rel=1e-6)
    gate = np.array([1e-9, 1 - 1e-9]) * np.exp(-losses / 0.2)  # shares that no curve would choose
    gate /= gate.sum(axis=1, keepdims=True)
    assert np.log(gate[0, 0] / gate[1, 0]) == pytest.approx(2 / 0.2, abs=1e-6)


def test_losses_that_do_not_vary_need_no_privacy():
    found = price_bracket(np.full((4, 3), [0.2, 0.1, 0.3]), 1.0)
    assert found.lower == found.upper == found.exact == pytest.approx(0.1)
    assert found.level == 0


def test_inputs_of_weight_0_are_no_inputs():
    losses = np.array([[0.0, 1.0], [1.0, 0.0], [50.0, 0.0]])
    found = price_bracket(losses, 2.0, weights=[1, 1, 0])
    assert found == price_bracket(losses[:2], 2.0)


def test_on_the_bank_both_sides_are_close_only_at_their_ends():
    losses = load_bank("mnist").losses("test")[:2000]
    found = {epsilon: price_bracket(losses, epsilon) for epsilon in (0.05, 2.0, 12.0)}
    for epsilon, bracket in found.items():
        best = private_distortion(losses, epsilon)
        assert bracket.lower - 1e-9 <= best <= bracket.exact + 1e-9
        assert bracket.lower == pytest.approx(best, abs=0.02) or ldp_sharp_cap(epsilon) > 0.1
    assert found[12.0].exact - private_distortion(losses, 12.0) < 0.002
    # in between the left side is the floor of the curve, and says nothing
    assert found[2.0].exact - found[2.0].lower > 0.02


@pytest.mark.parametrize("epsilon", [0, -1, 31, np.nan])
def test_levels_out_of_range_are_refused(epsilon):
    refused(lambda: price_bracket([[0, 1], [1, 0]], epsilon), "epsilon")
