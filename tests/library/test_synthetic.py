"""P1's two experiments against brute force: every bit string, every dataset, symmetry, and P1's
claims."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from expertbank import synthetic
from expertbank.bounds import xu_raginsky_bound
from expertbank.channels import bsc_distortion_rate, bsc_rate
from expertbank.learners import alpha_mixture, enumerate_datasets, simulate
from expertbank.synthetic import (
    MixtureOfExperts,
    alpha_curve,
    alpha_mixture_grid,
    bsc_label_gap,
    bsc_posteriors,
    bsc_selection,
    bsc_threshold,
    moe_bank_losses,
    random_moe,
)

CANDIDATES = np.array([0.05, 0.12, 0.2, 0.33, 0.45])


# --- experiment 1: a bank of mixtures of experts ---


def test_mixture_of_experts_by_hand():
    moe = MixtureOfExperts(
        gates=np.array([[0.0, 0.0], [np.log(3), 0.0]]), experts=np.array([[1.0, 0.0], [0.0, -1.0]])
    )
    x = np.array([[1.0, 2.0], [-1.0, -2.0]])
    np.testing.assert_allclose(moe.gate(x), [[0.25, 0.75], [0.75, 0.25]])
    np.testing.assert_array_equal(moe.votes(x), [[1, 0], [0, 1]])


def test_prior_is_standard_normal():
    moe = random_moe(50, 100, rng=0)
    for weights in (moe.gates, moe.experts):
        assert weights.shape == (100, 50)
        assert stats.kstest(weights.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(moe.gates.ravel(), moe.experts.ravel())[0, 1]) < 0.05


def test_bank_losses_are_probabilities_of_error():
    losses = moe_bank_losses(4, 3, 20, 500, rng=1)
    assert losses.shape == (500, 20)
    assert losses.min() >= 0 and losses.max() <= 1 + 1e-12
    np.testing.assert_array_equal(losses, moe_bank_losses(4, 3, 20, 500, rng=1))
    one_expert = moe_bank_losses(4, 1, 20, 500, rng=1)
    assert set(np.unique(one_expert)) == {0, 1}  # a single expert leaves nothing to average over


def test_candidates_are_judged_by_the_truth(monkeypatch):
    """With one expert each, a candidate errs where the two half-spaces differ: with probability
    angle / pi."""
    angles = np.array([0, np.pi / 2, 0.3, np.pi])
    moes = [
        MixtureOfExperts(np.zeros((1, 2)), np.array([[np.cos(a), np.sin(a)]])) for a in (0, *angles)
    ]
    drawn = iter(moes)
    monkeypatch.setattr(synthetic, "random_moe", lambda *_: next(drawn))
    risks = moe_bank_losses(2, 1, 4, 40_000, rng=0).mean(axis=0)
    np.testing.assert_allclose(risks, angles / np.pi, atol=5 * 0.5 / 200)
    assert (risks[0], risks[3]) == (0, 1)


def test_losses_are_averaged_over_the_candidates_gate(monkeypatch):
    """Two experts that always disagree: the loss is the gate's probability of the one that is
    wrong."""
    gates, experts = np.array([[1.0, 0.5], [-1.0, 0.0]]), np.array([[1.0, 2.0], [-1.0, -2.0]])
    moe, flipped = MixtureOfExperts(gates, experts), MixtureOfExperts(gates, -experts)
    drawn = iter([moe, moe, flipped])
    monkeypatch.setattr(synthetic, "random_moe", lambda *_: next(drawn))
    losses = moe_bank_losses(2, 2, 2, 20_000, rng=1)
    np.testing.assert_allclose(losses.sum(axis=1), 1, atol=1e-12)
    # the label is the truth's own draw: right with probability p and charged 1 - p, or the other
    # way round
    p = moe.gate(np.random.default_rng(2).standard_normal((200_000, 2)))[:, 0]
    assert losses[:, 0].mean() == pytest.approx(np.mean(2 * p * (1 - p)), abs=0.01)


def test_a_random_candidate_is_right_half_the_time():
    """The prior is symmetric under flipping every vote, so over draws of the candidates the risk
    averages 1/2."""
    for seed in range(3):
        risks = moe_bank_losses(5, 4, 400, 2000, rng=seed).mean(axis=0)
        assert risks.mean() == pytest.approx(0.5, abs=5 * risks.std() / 20)
        assert risks.std() > 0.02  # but candidates differ: there is something to learn


def test_claim_of_figure_2():
    pool = moe_bank_losses(6, 4, 20, 3000, rng=2)
    runs = [simulate(pool, alpha, 100, 4000, rng=3) for alpha in np.linspace(0, 1, 6)]
    information, gap = np.array([(run.information, run.expected_gap) for run in runs]).T
    assert np.all(np.diff(information) > 0) and np.all(np.diff(gap) > 0)
    assert np.all(gap[1:] < xu_raginsky_bound(information[1:], 100))
    assert gap[0] < 4 * runs[0].gap_error


def test_alpha_curve_meets_enumeration():
    pool, m = np.array([[0, 1, 0.5], [1, 0, 0.5], [0, 0.2, 1], [1, 1, 0]]), 4
    probabilities, risks = enumerate_datasets(pool, m)
    curve = alpha_curve(pool, [0, 0.4, 1], m, 40_000, rng=0)
    for k, alpha in enumerate(curve.alphas):
        q = alpha_mixture(risks, alpha)
        information = stats.entropy(probabilities @ q) - probabilities @ stats.entropy(q, axis=1)
        gap = probabilities @ (q * (pool.mean(axis=0) - risks)).sum(axis=1)
        assert curve.information[k] == pytest.approx(information, abs=0.01)
        assert curve.gap[k] == pytest.approx(gap, abs=4 * curve.gap_error[k] + 1e-12)
    assert curve.gap[2] > 20 * curve.gap_error[2]
    assert curve.frequencies.sum() == pytest.approx(1)
    np.testing.assert_allclose(curve.test_gap, curve.gap)


def test_alpha_curve_meets_simulate():
    pool, test = np.split(moe_bank_losses(5, 3, 10, 2000, rng=4), 2)
    curve = alpha_curve(pool, [0, 0.6], 50, 20_000, test=test, rng=1)
    for k, alpha in enumerate([0, 0.6]):
        own = simulate(pool, alpha, 50, 20_000, rng=2)
        other = simulate(pool, alpha, 50, 20_000, test, rng=2)
        assert curve.information[k] == pytest.approx(own.information, abs=0.02)
        assert curve.gap[k] == pytest.approx(own.expected_gap, abs=4 * own.gap_error)
        assert curve.test_gap[k] == pytest.approx(other.expected_gap, abs=4 * other.gap_error)


def test_the_grid_is_alpha_curve_at_each_size():
    alphas = [0.2, 1.0]
    sizes = {
        "dimensions": [2, 3],
        "expert_counts": [2],
        "candidate_counts": [3, 6],
        "sample_sizes": [20],
    }
    numbers = {"n_inputs": 300, "n_test": 200, "n_datasets": 50}
    curves = alpha_mixture_grid(**sizes, alphas=alphas, **numbers, seed=7)
    assert set(curves) == {(d, 2, k, 20) for d in (2, 3) for k in (3, 6)}
    for (dimension, n_experts, k, m), found in curves.items():
        rng = np.random.default_rng([7, dimension, n_experts])
        losses = moe_bank_losses(dimension, n_experts, 6, 500, rng)[:, :k]
        same = alpha_curve(losses[:300], alphas, m, 50, losses[300:], rng)
        assert found.information == pytest.approx(same.information)
        assert found.gap == pytest.approx(same.gap)
        assert found.test_gap == pytest.approx(same.test_gap)
        assert found.frequencies.shape == (k,)


# --- experiment 2: the binary symmetric channel ---


def brute_force(candidates, crossover, m, beta):
    """I(S;W), P(W) and E[(1 - 2 p_W)(p* - K/m)] over all 2^m noise strings, each posterior from its
    likelihoods."""
    law, posteriors, flips = [], [], []
    for bits in product([0, 1], repeat=m):
        k = sum(bits)
        law.append(crossover**k * (1 - crossover) ** (m - k))
        likelihood = np.array([np.prod([p if bit else 1 - p for bit in bits]) for p in candidates])
        posteriors.append(likelihood**beta / np.sum(likelihood**beta))
        flips.append(k)
    joint = np.array(law)[:, None] * np.array(posteriors)
    information = max(
        0.0,
        stats.entropy(joint.sum(0)) + stats.entropy(joint.sum(1)) - stats.entropy(joint.ravel()),
    )
    gap = np.sum(joint * (1 - 2 * candidates) * (crossover - np.array(flips) / m)[:, None])
    return information, joint.sum(0), gap


@pytest.mark.parametrize("beta", [0, 0.3, 1, 5])
@pytest.mark.parametrize("crossover", [0.1, 0.3, 0.5])
def test_exact_selection_is_the_sum_over_all_strings(crossover, beta):
    information, marginal, gap = brute_force(CANDIDATES, crossover, 8, beta)
    found = bsc_selection(CANDIDATES, crossover, 8, beta)
    assert found.information == pytest.approx(information, abs=1e-12)
    np.testing.assert_allclose(found.marginal, marginal, atol=1e-12)
    assert found.risk == pytest.approx(marginal @ CANDIDATES, abs=1e-12)
    assert found.rate == pytest.approx(marginal @ bsc_rate(CANDIDATES), abs=1e-12)
    assert found.distortion == pytest.approx(bsc_distortion_rate(found.rate), abs=1e-12)
    assert bsc_label_gap(CANDIDATES, crossover, 8, beta) == pytest.approx(gap, abs=1e-12)
    assert abs(gap) <= xu_raginsky_bound(information, 8) + 1e-12


@pytest.mark.parametrize("beta", [0.05, 1])
def test_monte_carlo_meets_the_exact_sum(beta):
    exact = bsc_selection(CANDIDATES, 0.15, 60, beta)
    sampled = bsc_selection(CANDIDATES, 0.15, 60, beta, n_datasets=40_000, rng=0)
    spread = np.sqrt(exact.marginal @ (CANDIDATES - exact.risk) ** 2)
    assert sampled.information == pytest.approx(exact.information, abs=0.01)
    assert sampled.risk == pytest.approx(exact.risk, abs=4 * spread / 200)
    assert sampled.rate == pytest.approx(exact.rate, abs=0.01)
    np.testing.assert_allclose(sampled.marginal, exact.marginal, atol=0.01)


@given(st.integers(0, 400), st.floats(0, 20))
def test_posteriors_are_tempered_likelihoods(flips, beta):
    logs = beta * (flips * np.log(CANDIDATES) + (400 - flips) * np.log1p(-CANDIDATES))
    expected = np.exp(logs - logs.max())
    np.testing.assert_allclose(
        bsc_posteriors(CANDIDATES, [flips], 400, beta)[0], expected / expected.sum(), atol=1e-9
    )


def test_temperature_limits():
    hot = bsc_selection(CANDIDATES, 0.2, 100, 0)
    assert hot.information == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(hot.marginal, 0.2)
    cold = bsc_posteriors(CANDIDATES, np.arange(101), 100, 1e4)
    likelihood = stats.binom.logpmf(np.arange(101)[:, None], 100, CANDIDATES)
    np.testing.assert_array_equal(cold.argmax(axis=1), likelihood.argmax(axis=1))
    assert np.median(cold.max(axis=1)) == 1


@given(st.floats(0.01, 0.5), st.integers(1, 300), st.floats(0, 10))
def test_mean_point_lies_above_the_curve_and_information_below_its_limits(crossover, m, beta):
    found = bsc_selection(CANDIDATES, crossover, m, beta)
    assert found.risk >= found.distortion - 1e-12  # Jensen: D is convex
    assert 0 <= found.information <= min(np.log(5), np.log(m + 1)) + 1e-12
    assert found.marginal.sum() == pytest.approx(1, abs=1e-12)


def test_more_data_reveal_more_and_find_the_truth():
    sizes = [10, 100, 1000, 10_000]
    runs = [bsc_selection(CANDIDATES, 0.2, m, 1) for m in sizes]
    assert runs[-1].marginal[2] > 0.999
    assert runs[-1].risk == pytest.approx(0.2, abs=1e-3)
    # all datasets agree in the end: nothing is left to reveal
    assert runs[-1].information < runs[1].information


@pytest.mark.parametrize("m", [50, 200])
def test_threshold_separates_bound_met_from_bound_missed(m):
    threshold = bsc_threshold(CANDIDATES, 0.2, m)

    def lies_below(beta):
        point = bsc_selection(CANDIDATES, 0.2, m, beta)
        return point.risk <= point.distortion + xu_raginsky_bound(point.information, m, sigma=1)

    assert 0 < threshold < np.inf
    assert not lies_below(0.99 * threshold)
    assert all(lies_below(beta) for beta in threshold * np.geomspace(1.01, 50, 20) if beta <= 100)


def test_without_a_bound_to_miss_there_is_no_threshold():
    # with next to no slack what is left is Jensen's inequality, which no temperature breaks
    assert bsc_threshold(CANDIDATES, 0.2, 50, sigma=1e-9) == np.inf
    # and so wide a bound is met everywhere
    assert bsc_threshold(CANDIDATES, 0.2, 50, sigma=1e6) == 0


def test_excess_is_jensens_gap():
    assert bsc_selection([0.2], 0.3, 50, 1).excess == pytest.approx(0, abs=1e-9)
    point = bsc_selection(CANDIDATES, 0.2, 50, 1)
    assert point.excess > 0
    assert bsc_rate(point.risk - point.excess) == pytest.approx(point.rate)


def test_seeds():
    one, same, other = (bsc_selection(CANDIDATES, 0.2, 50, 1, 500, rng=seed) for seed in (1, 1, 2))
    assert one.information == same.information != other.information
