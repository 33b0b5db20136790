"""Estimates of I(S;W) and selection rules against their definitions, written out the long way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats
from scipy.special import entr

from expertbank import (
    algorithmic_information,
    alpha_mixture,
    bootstrap_interval,
    epsilon_greedy,
    information_estimates,
    top_k_uniform,
)
from expertbank.learners import empirical_risks, mix_with_uniform

# few values, so that ties are common
risk_tables = arrays(
    float,
    array_shapes(min_dims=1, max_dims=3, max_side=5),
    elements=st.sampled_from([0, 0.25, 0.5]),
)
shares = st.floats(0, 1)


def plug_in(posteriors):
    return entr(posteriors.mean(axis=0)).sum() - entr(posteriors).sum(axis=1).mean()


def mixture_posteriors(n_datasets=60, n_experts=5, alpha=0.7, seed=0):
    winners = np.random.default_rng(seed).choice(
        n_experts, n_datasets, p=[0.4, 0.3, 0.15, 0.1, 0.05]
    )
    return mix_with_uniform(np.eye(n_experts)[winners], alpha), np.bincount(
        winners, minlength=n_experts
    ) / n_datasets


def random_posteriors(n_datasets=30, n_experts=6, seed=3):
    return np.random.default_rng(seed).dirichlet(np.full(n_experts, 0.7), n_datasets)


# --- estimates ---


@pytest.mark.parametrize(
    "posteriors", [mixture_posteriors()[0], mixture_posteriors(alpha=1)[0], random_posteriors()]
)
def test_plug_in_miller_madow_and_jackknife_are_their_definitions(posteriors):
    found = information_estimates(posteriors)
    n, n_experts = posteriors.shape
    assert found["plug-in"] == pytest.approx(plug_in(posteriors), abs=1e-12)
    assert found["Miller-Madow"] == pytest.approx(
        plug_in(posteriors) + (n_experts - 1) / (2 * n), abs=1e-12
    )
    left_out = np.mean([plug_in(np.delete(posteriors, i, axis=0)) for i in range(n)])
    assert found["jackknife"] == pytest.approx(
        n * plug_in(posteriors) - (n - 1) * left_out, abs=1e-9
    )


@pytest.mark.parametrize("alpha", [0, 0.25, 0.7, 1])
def test_delta_bias_of_a_mixture_is_its_closed_form(alpha):
    posteriors, f = mixture_posteriors(alpha=alpha)
    p = (1 - alpha) / 5 + alpha * f
    bias = -np.sum(alpha**2 * f * (1 - f) / p) / (2 * len(posteriors))
    assert algorithmic_information(posteriors).bias == pytest.approx(bias, abs=1e-14)
    assert information_estimates(posteriors)["delta"] == pytest.approx(
        plug_in(posteriors) - bias, abs=1e-12
    )
    if alpha == 1:  # counts: what Miller and Madow had in mind
        assert -bias == pytest.approx((5 - 1) / (2 * len(posteriors)))


def test_delta_and_jackknife_remove_the_bias_that_miller_madow_overshoots():
    f, alpha, n = np.array([0.4, 0.3, 0.15, 0.1, 0.05]), 0.7, 60
    channel = mix_with_uniform(np.eye(5), alpha)
    truth = entr(f @ channel).sum() - entr(channel[0]).sum()
    runs = [
        information_estimates(mixture_posteriors(n, alpha=alpha, seed=seed)[0])
        for seed in range(800)
    ]
    errors = {name: np.array([run[name] for run in runs]) - truth for name in runs[0]}
    noise = 4 * errors["plug-in"].std() / np.sqrt(len(runs))
    p = f @ channel
    predicted = -np.sum(alpha**2 * f * (1 - f) / p) / (2 * n)
    assert errors["plug-in"].mean() == pytest.approx(predicted, abs=noise)
    assert errors["plug-in"].mean() < -noise and errors["Miller-Madow"].mean() > noise
    assert abs(errors["delta"].mean()) < noise and abs(errors["jackknife"].mean()) < noise


def test_a_constant_posterior_has_no_information_whatever_the_estimate():
    found = information_estimates(np.full((20, 4), 0.25))
    assert found.pop("Miller-Madow") == pytest.approx(3 / 40)
    assert list(found.values()) == pytest.approx([0, 0, 0], abs=1e-12)


def test_one_dataset_is_refused():
    with pytest.raises(
        ValueError, match=r"posteriors has shape .1, 3.; the jackknife needs at least two"
    ):
        information_estimates(np.full((1, 3), 1 / 3))


# --- intervals ---


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_bootstrap_interval_is_scipys(method):
    posteriors = random_posteriors()

    def information(index):
        return plug_in(posteriors[index.astype(int)])

    theirs = stats.bootstrap(
        (np.arange(len(posteriors)),),
        information,
        vectorized=False,
        method=method,
        n_resamples=300,
        confidence_level=0.9,
        rng=np.random.default_rng(5),
    ).confidence_interval
    ours = bootstrap_interval(posteriors, 0.9, 300, np.random.default_rng(5), method)
    assert ours == pytest.approx(tuple(theirs), abs=1e-10)


def test_bca_lies_above_the_percentile_interval_that_inherits_the_bias():
    posteriors, _ = mixture_posteriors(alpha=1)
    percentile, bca = (
        bootstrap_interval(posteriors, rng=1, method=name) for name in ("percentile", "BCa")
    )
    assert percentile[0] < bca[0] and percentile[1] < bca[1]
    assert percentile[0] + percentile[1] < 2 * plug_in(posteriors)


@pytest.mark.parametrize("method", ["bca", "basic", "", None])
def test_unknown_methods_are_refused(method):
    with pytest.raises(ValueError, match=r"method is .*; allowed are 'percentile' and 'BCa'"):
        bootstrap_interval(random_posteriors(), method=method)


# --- selection rules ---


@given(risk_tables, shares)
def test_epsilon_greedy_shares_the_rest_among_all_minimisers(risks, epsilon):
    posterior = epsilon_greedy(risks, epsilon)
    n_experts = risks.shape[-1]
    for index in np.ndindex(risks.shape[:-1]):
        best = [r for r in range(n_experts) if risks[index][r] == min(risks[index])]
        expected = [
            epsilon / n_experts + (1 - epsilon) * (r in best) / len(best) for r in range(n_experts)
        ]
        np.testing.assert_allclose(posterior[index], expected, atol=1e-14)
    np.testing.assert_allclose(posterior.sum(axis=-1), 1, atol=1e-14)


def test_epsilon_greedy_breaks_ties_at_random_and_alpha_mixture_does_not():
    risks = np.array([[0.2, 0.1, 0.1], [0.3, 0.3, 0.3], [0.1, 0.2, 0.3]])
    np.testing.assert_allclose(epsilon_greedy(risks, 0), [[0, 0.5, 0.5], [1 / 3] * 3, [1, 0, 0]])
    np.testing.assert_array_equal(alpha_mixture(risks, 1), np.eye(3)[[1, 0, 0]])
    # the same where none tie
    np.testing.assert_allclose(epsilon_greedy(risks[2], 0.3), alpha_mixture(risks[2], 0.7))


@given(risk_tables, st.data())
def test_top_k_is_uniform_on_the_k_smallest(risks, data):
    n_experts = risks.shape[-1]
    k = data.draw(st.integers(1, n_experts))
    posterior = top_k_uniform(risks, k)
    for index in np.ndindex(risks.shape[:-1]):
        chosen = sorted(range(n_experts), key=lambda r: (risks[index][r], r))[:k]
        np.testing.assert_array_equal(
            posterior[index], [(r in chosen) / k for r in range(n_experts)]
        )


@given(risk_tables)
def test_the_ends_of_top_k_are_erm_and_uniform(risks):
    np.testing.assert_array_equal(top_k_uniform(risks, 1), alpha_mixture(risks, 1))
    np.testing.assert_allclose(top_k_uniform(risks, risks.shape[-1]), 1 / risks.shape[-1])


@pytest.mark.parametrize("k, found", [(4, "k is 4; allowed is at most 3"), (0, "k"), (1.5, "k")])
def test_top_k_refuses_other_k(k, found):
    with pytest.raises(ValueError, match=found):
        top_k_uniform([0.1, 0.2, 0.3], k)


@pytest.mark.parametrize("share", [-0.1, 1.1, np.nan])
def test_shares_outside_0_to_1_are_refused(share):
    with pytest.raises(ValueError, match="epsilon"):
        epsilon_greedy([0.1, 0.2], share)
    with pytest.raises(ValueError, match="alpha"):
        mix_with_uniform([0.5, 0.5], share)


@given(risk_tables, shares)
def test_mix_with_uniform_is_linear_in_alpha(risks, alpha):
    posterior = epsilon_greedy(risks, 0)
    mixed = mix_with_uniform(posterior, alpha)
    uniform = np.full(risks.shape[-1], 1 / risks.shape[-1])
    np.testing.assert_allclose(mixed, alpha * posterior + (1 - alpha) * uniform, atol=1e-15)
    np.testing.assert_allclose(mixed.sum(axis=-1), 1, atol=1e-14)


def test_random_ties_carry_less_information_than_a_fixed_order():
    losses = (np.random.default_rng(0).random((400, 6)) < 0.1).astype(np.uint8)
    risks = empirical_risks(losses, 16, 4000, rng=1)
    fixed, random = (
        algorithmic_information(q).information
        for q in (alpha_mixture(risks, 1), epsilon_greedy(risks, 0))
    )
    assert random < fixed - 0.1
