"""Learners against their definitions; sampled datasets against exhaustive enumeration; the
experiment's laws."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats

from expertbank import learners
from expertbank.learners import (
    alpha_mixture,
    draw_experts,
    empirical_risks,
    enumerate_datasets,
    gibbs_posterior,
    simulate,
)
from expertbank.tables import merge_rows

risk_vectors = arrays(
    float, array_shapes(min_dims=1, max_dims=3, max_side=5), elements=st.floats(0, 1)
)
TABLE = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]], np.uint8)


def zero_one_table(n_inputs, n_experts, seed=0):
    """0-1 losses that go wrong together on hard inputs, as a trained bank's do."""
    rng = np.random.default_rng(seed)
    hardness = rng.beta(0.15, 1.5, size=(n_inputs, 1))
    return (rng.random((n_inputs, n_experts)) < hardness).astype(np.uint8)


# --- posteriors ---


@given(risk_vectors, st.floats(0, 1))
def test_alpha_mixture_is_11(risks, alpha):
    posterior = alpha_mixture(risks, alpha)
    n_experts = risks.shape[-1]
    for index in np.ndindex(risks.shape[:-1]):
        # ties to the smallest index
        best = min(range(n_experts), key=lambda r: (risks[index][r], r))
        expected = [(1 - alpha) / n_experts + alpha * (r == best) for r in range(n_experts)]
        np.testing.assert_allclose(posterior[index], expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(posterior.sum(axis=-1), 1, atol=1e-14)


def test_alpha_mixture_ties_go_to_the_smallest_index():
    np.testing.assert_array_equal(
        alpha_mixture([[3, 1, 1], [2, 2, 2], [0.5, 0.7, 0.5]], 1), np.eye(3)[[1, 0, 0]]
    )


@given(risk_vectors, st.floats(0, 50), st.floats(-10, 10))
def test_gibbs_is_the_tilted_uniform(risks, beta, shift):
    expected = np.exp(-beta * risks)
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(gibbs_posterior(risks, beta), expected, atol=1e-12)
    np.testing.assert_allclose(gibbs_posterior(risks + shift, beta), expected, atol=1e-12)


def test_gibbs_limits():
    risks = np.array([0.2, 0.1, 0.4, 0.1])
    np.testing.assert_array_equal(gibbs_posterior(risks, 0), np.full(4, 0.25))
    # cold: uniform over the minimisers, whatever their number
    for beta in (1e6, 1e300, np.finfo(float).max):
        np.testing.assert_allclose(gibbs_posterior(risks, beta), [0, 0.5, 0, 0.5], atol=1e-15)
        np.testing.assert_allclose(gibbs_posterior(1e3 * risks, beta), [0, 0.5, 0, 0.5], atol=1e-15)
    unique = np.array([0.3, 0.1, 0.2])
    np.testing.assert_allclose(gibbs_posterior(unique, 1e9), alpha_mixture(unique, 1), atol=1e-15)


def test_draw_experts_follows_the_posterior():
    q = np.array([0.5, 0.0, 0.3, 0.2])
    drawn = draw_experts(np.tile(q, (200_000, 1)), 0)
    counts = np.bincount(drawn, minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[q > 0], 200_000 * q[q > 0]).pvalue > 1e-3
    np.testing.assert_array_equal(draw_experts(np.eye(5)[[3, 0, 4, 4]], 1), [3, 0, 4, 4])


# --- merging equal rows ---

whole = arrays(
    np.int64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-1, 1)
)
real = arrays(
    float,
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.sampled_from([0.0, -0.0, 0.5, 1e300]),
)


@given(whole | real, st.sampled_from([None, "i1", "f4", "?"]))
def test_merge_rows_is_numpys_unique(table, kind):
    if kind is not None:
        table = np.clip(table, 0, 1).astype(kind)
    rows, weights, inverse = merge_rows(table)
    expected, counts = np.unique(table, axis=0, return_counts=True)
    order = np.lexsort(rows.T[::-1])
    np.testing.assert_array_equal(rows[order], expected)
    np.testing.assert_array_equal(weights[order], counts)
    np.testing.assert_array_equal(rows[inverse], table)
    assert rows.dtype == table.dtype


@given(whole)
def test_merge_rows_adds_weights(table):
    weights = np.arange(1.0, len(table) + 1)
    rows, merged, inverse = merge_rows(table, weights)
    for row, weight in zip(rows, merged):
        assert weight == pytest.approx(weights[(table == row).all(axis=1)].sum())
    assert inverse.shape == (len(table),)


def test_minus_zero_is_zero():
    rows, counts, _ = merge_rows(np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, -0.0]]))
    assert len(rows) == 2
    assert sorted(counts) == [1, 2]


def test_merge_rows_takes_any_memory_layout():
    table = zero_one_table(60, 4)
    for layout in (
        np.asfortranarray(table),
        np.repeat(table, 2, axis=1)[:, ::2],
        table[::-1][::-1],
    ):
        rows, counts, inverse = merge_rows(layout)
        np.testing.assert_array_equal(rows[inverse], table)
        assert counts.sum() == 60


# --- datasets ---


def all_ordered_datasets(losses, m):
    """Risks (N^m, R) of every ordered dataset, each of probability N^-m: slow, and nothing to get
    wrong."""
    return np.array(
        [
            np.mean([losses[i] for i in chosen], axis=0)
            for chosen in product(range(len(losses)), repeat=m)
        ]
    )


@given(
    arrays(float, st.tuples(st.integers(1, 4), st.integers(1, 3)), elements=st.floats(0, 1)),
    st.integers(1, 4),
)
def test_enumerated_datasets_are_all_datasets(losses, m):
    probabilities, risks = enumerate_datasets(losses, m)
    assert len(probabilities) == comb(len(losses) + m - 1, m)
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    ordered = all_ordered_datasets(losses, m)
    for power in (1, 2, 3):  # moments of both laws
        np.testing.assert_allclose(
            probabilities @ risks**power, (ordered**power).mean(axis=0), atol=1e-12
        )
    smallest = probabilities @ risks.min(axis=1)
    assert smallest == pytest.approx(ordered.min(axis=1).mean(), abs=1e-12)


def test_enumerated_datasets_follow_the_input_weights():
    weights = np.array([0.5, 0.25, 0.25, 0])
    doubled = TABLE[[0, 0, 1, 2]]
    for m in (1, 3):
        p, risks = enumerate_datasets(TABLE, m, weights)
        q, same = enumerate_datasets(doubled, m)
        assert p @ risks.min(axis=1) == pytest.approx(q @ same.min(axis=1), abs=1e-13)


def law(probabilities, risks):
    """Probability of each distinct risk vector."""
    table = {}
    for p, risk in zip(probabilities, np.round(risks, 9)):
        table[tuple(risk)] = table.get(tuple(risk), 0) + p
    return table


@pytest.mark.parametrize("chunk", [1_000_000, 50])
def test_sampled_datasets_have_the_enumerated_law(chunk, monkeypatch):
    monkeypatch.setattr(learners, "DRAWS_PER_CHUNK", chunk)
    n_datasets, m = 20_000, 4
    expected = law(*enumerate_datasets(TABLE, m))
    found = law(np.ones(n_datasets), empirical_risks(TABLE, m, n_datasets, 7))
    assert set(found) <= set(expected)
    counts, wanted = (
        np.array([source.get(k, 0) for k in expected]) for source in (found, expected)
    )
    assert n_datasets * wanted.min() > 5 and len(wanted) > 20
    assert stats.chisquare(counts, n_datasets * wanted).pvalue > 1e-3


def test_sampled_risks_have_the_pools_mean_and_covariance():
    losses = np.random.default_rng(0).random((37, 3))
    m, n_datasets = 9, 30_000
    risks = empirical_risks(losses, m, n_datasets, 1)
    covariance = np.cov(losses.T, bias=True) / m
    error = np.sqrt(np.diag(covariance) / n_datasets)
    assert np.all(np.abs(risks.mean(axis=0) - losses.mean(axis=0)) < 5 * error)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) / n_datasets)
    assert np.all(np.abs(np.cov(risks.T) - covariance) < 5 * np.sqrt(2) * scale)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32, float])
def test_datasets_depend_on_values_and_not_on_their_type(dtype):
    expected = empirical_risks(TABLE, 5, 50, 3)
    np.testing.assert_allclose(empirical_risks(TABLE.astype(dtype), 5, 50, 3), expected, atol=1e-15)


@pytest.mark.parametrize("n_datasets", [20_000, 100_000])
def test_memory_stays_bounded(n_datasets):
    losses = zero_one_table(60_000, 25)
    gc.collect()
    tracemalloc.start()
    run = simulate(losses, alpha=0.7, sample_size=256, n_datasets=n_datasets, rng=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(run.gaps) == n_datasets
    assert peak < 300e6


# --- the experiment ---


def test_same_rng_means_same_datasets_at_every_alpha():
    """The gap averaged over alpha-mixture posteriors is linear in alpha when the datasets are the
    same."""
    losses = zero_one_table(500, 6)
    gaps = {
        alpha: simulate(losses, alpha, 20, 400, rng=11).expected_gap for alpha in (0, 0.3, 0.8, 1)
    }
    for alpha in (0.3, 0.8):
        assert gaps[alpha] == pytest.approx((1 - alpha) * gaps[0] + alpha * gaps[1], abs=1e-13)
    assert simulate(losses, 0, 20, 400, rng=12).expected_gap != gaps[0]


def test_population_as_nothing_table_or_vector():
    losses, other = zero_one_table(300, 5), zero_one_table(200, 5, seed=1)
    own = simulate(losses, 0.5, 16, 200, rng=2)
    for population in (losses, losses.mean(axis=0), losses.mean(axis=0).tolist()):
        np.testing.assert_allclose(
            simulate(losses, 0.5, 16, 200, population, rng=2).gaps, own.gaps, atol=1e-15
        )
    shifted = simulate(losses, 0.5, 16, 200, other, rng=2)
    np.testing.assert_array_equal(shifted.selected, own.selected)
    np.testing.assert_allclose(shifted.test_risks, other.mean(axis=0)[own.selected], atol=1e-15)
    np.testing.assert_array_equal(shifted.train_risks, own.train_risks)


@pytest.mark.parametrize("seed", range(3))
def test_a_learner_that_ignores_the_data_has_no_gap(seed):
    losses = zero_one_table(2000, 8, seed)
    run = simulate(losses, 0, 32, 20_000, rng=seed)
    assert abs(run.gap) < 4 * run.gap_error
    assert abs(run.expected_gap) < 4 * run.gap_error
    assert run.information < 1e-12
    # and against another population it shows that population's shift, whatever its sign
    other = zero_one_table(2000, 8, seed + 100)
    shift = other.mean() - losses.mean()
    run = simulate(losses, 0, 32, 20_000, other, rng=seed)
    assert run.gap == pytest.approx(shift, abs=4 * run.gap_error)


def test_monte_carlo_meets_enumeration():
    m, alpha = 5, 0.8
    probabilities, risks = enumerate_datasets(TABLE, m)
    posterior = alpha_mixture(risks, alpha)
    gap = probabilities @ (posterior * (TABLE.mean(axis=0) - risks)).sum(axis=1)
    joint = probabilities[:, None] * posterior
    information = stats.entropy(joint.sum(0)) - probabilities @ stats.entropy(posterior, axis=1)
    run = simulate(TABLE, alpha, m, 40_000, rng=5)
    assert gap > 20 * run.gap_error  # there is something to find
    assert run.gap == pytest.approx(gap, abs=4 * run.gap_error)
    assert run.expected_gap == pytest.approx(gap, abs=4 * run.gap_error)
    assert run.information == pytest.approx(information, abs=4 * run.algorithmic.standard_error)
    shares = np.bincount(run.selected, minlength=3) / 40_000
    np.testing.assert_allclose(shares, joint.sum(0), atol=4 * 0.5 / np.sqrt(40_000))


def test_the_numbers_of_a_run_fit_together():
    run = simulate(zero_one_table(400, 25), 0.7, 64, 500, rng=3)
    assert run.gap == pytest.approx(run.test_risk - run.train_risk, abs=1e-14)
    np.testing.assert_allclose(run.gaps, run.test_risks - run.train_risks)
    assert run.absolute_gap == pytest.approx(np.mean(np.abs(run.gaps)))
    assert run.gap_error == pytest.approx(stats.sem(run.gaps))
    assert run.information == pytest.approx(
        run.marginal_entropy - run.conditional_entropy, abs=1e-12
    )
    assert round(run.conditional_entropy, 4) == 1.5156  # R = 25, alpha = 0.7: P2 (19)
    best = simulate(zero_one_table(400, 25), 1, 64, 500, rng=3)
    assert best.train_risk < run.train_risk
    assert best.conditional_entropy == 0


def test_information_and_gap_grow_with_alpha():
    losses = zero_one_table(3000, 10)
    runs = [simulate(losses, alpha, 64, 4000, rng=4) for alpha in (0, 0.25, 0.5, 0.75, 1)]
    assert np.all(np.diff([run.information for run in runs]) > 0)
    assert np.all(np.diff([run.expected_gap for run in runs]) > 0)


def test_seeds_and_generators():
    losses = zero_one_table(100, 4)
    np.testing.assert_array_equal(simulate(losses, rng=9).gaps, simulate(losses, rng=9).gaps)
    rng = np.random.default_rng(9)
    first, second = simulate(losses, rng=rng), simulate(losses, rng=rng)
    np.testing.assert_array_equal(first.gaps, simulate(losses, rng=9).gaps)
    assert not np.array_equal(first.gaps, second.gaps)


def test_float32_populations_are_averaged_in_double():
    table = np.random.default_rng(0).random((200_000, 2)).astype(np.float32)
    run = simulate(table[:100], 0, 4, 50, population=table, rng=0)
    exact = table.astype(float).mean(axis=0)
    np.testing.assert_allclose(run.test_risks, exact[run.selected], rtol=1e-12)


def test_one_run_has_no_error_bar():
    run = simulate(TABLE, n_datasets=1)
    assert run.gap_error == np.inf
    assert np.isfinite(run.gap)
