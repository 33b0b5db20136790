"""Entropies and mutual information against scipy.stats, definitions and laws; estimates against
simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from expertbank.information import (
    algorithmic_information,
    binary_entropy,
    binary_entropy_inverse,
    bootstrap_interval,
    entropy,
    gating_rate,
    kl_divergence,
    miller_madow_bias,
    mutual_information,
)

LOG2 = np.log(2)
sizes = st.integers(1, 6)


@st.composite
def channels(draw, n=sizes, k=sizes):
    """Rows that sum to 1, some entries exactly 0."""
    shape = draw(n), draw(k)
    table = draw(arrays(float, shape, elements=st.sampled_from([0.0, 1.0]) | st.floats(1e-6, 1)))
    table[table.sum(axis=1) == 0] = 1
    return table / table.sum(axis=1, keepdims=True)


@st.composite
def inputs_and_channels(draw, k=sizes):
    n = draw(sizes)
    return draw(channels(st.just(1), st.just(n)))[0], draw(channels(st.just(n), k))


def joint_information(joint) -> float:
    """I = H(X) + H(T) - H(X, T) by scipy."""
    return stats.entropy(joint.sum(1)) + stats.entropy(joint.sum(0)) - stats.entropy(joint.ravel())


@given(channels())
def test_entropy_is_scipys(p):
    np.testing.assert_allclose(entropy(p), stats.entropy(p, axis=1), atol=1e-13)
    np.testing.assert_allclose(entropy(p.T, axis=0), stats.entropy(p, axis=1), atol=1e-13)


@given(channels(), channels())
def test_entropy_of_independent_pairs_adds(p, q):
    assert entropy(np.kron(p[0], q[0])) == pytest.approx(entropy(p[0]) + entropy(q[0]), abs=1e-12)


def test_entropy_known_values():
    assert entropy(np.full(25, 1 / 25)) == pytest.approx(np.log(25), abs=1e-14)
    assert entropy([0, 1, 0]) == 0
    assert binary_entropy(1 / 4) == pytest.approx(2 * LOG2 - 0.75 * np.log(3), abs=1e-15)
    assert binary_entropy(0) == binary_entropy(1) == 0
    assert binary_entropy(0.5) == LOG2


@given(st.floats(0, 1))
def test_binary_entropy_is_the_entropy_of_two(p):
    assert binary_entropy(p) == pytest.approx(stats.entropy([p, 1 - p]), abs=1e-14)
    assert 0 <= binary_entropy(p) <= LOG2


@given(st.floats(0, LOG2))
def test_binary_entropy_inverse_round_trip(h):
    p = binary_entropy_inverse(h)
    assert 0 <= p <= 0.5
    assert binary_entropy(p) == pytest.approx(h, abs=1e-12)


def test_binary_entropy_inverse_at_the_edges():
    distances = np.append(np.logspace(-17, -1, 200), 0)
    for h in (distances, LOG2 - distances):
        np.testing.assert_allclose(binary_entropy(binary_entropy_inverse(h)), h, rtol=0, atol=1e-12)
    assert binary_entropy_inverse(0) == 0
    assert binary_entropy_inverse(LOG2) == 0.5
    # from p and back; within 1e-4 of 1/2, h is flat: a rounding error e in h moves p by sqrt(e)
    p = np.concatenate([np.linspace(0, 0.4999, 5001), distances[distances < 0.4]])
    np.testing.assert_allclose(binary_entropy_inverse(binary_entropy(p)), p, rtol=0, atol=1e-12)
    near = 0.5 - distances[distances < 0.4]
    np.testing.assert_allclose(
        binary_entropy_inverse(binary_entropy(near)), near, rtol=0, atol=2e-8
    )


@given(channels())
def test_kl_is_scipys_and_obeys_pinsker(rows):
    p, q = rows[0], rows[-1]
    found = kl_divergence(p, q)
    assert found == pytest.approx(stats.entropy(p, q), abs=1e-12)
    assert found >= 0.5 * np.abs(p - q).sum() ** 2 - 1e-12
    assert kl_divergence(p, p) == 0


def test_kl_is_infinite_where_mass_is_lacking():
    assert kl_divergence([0.5, 0.5], [1, 0]) == np.inf


@given(inputs_and_channels())
def test_mutual_information_is_the_entropy_identity(pair):
    p, channel = pair
    found = mutual_information(channel, p)
    assert found == pytest.approx(joint_information(p[:, None] * channel), abs=1e-12)
    assert 0 <= found <= min(stats.entropy(p), np.log(channel.shape[1])) + 1e-12


@given(channels())
def test_gating_rate_is_remark_2(gate):
    weights = np.arange(1.0, len(gate) + 1)
    for given_weights, w in (
        (None, np.full(len(gate), 1 / len(gate))),
        (weights, weights / weights.sum()),
    ):
        marginal = w @ gate
        terms = [
            w[i] * gate[i, t] * np.log(gate[i, t] / marginal[t])
            for i, t in np.ndindex(gate.shape)
            if gate[i, t] > 0
        ]
        assert gating_rate(gate, given_weights) == pytest.approx(sum(terms), abs=1e-12)


@given(st.data())
def test_data_processing(data):
    p, first = data.draw(inputs_and_channels())
    second = data.draw(channels(st.just(first.shape[1])))
    through = mutual_information(first @ second, p)
    assert through <= mutual_information(first, p) + 1e-12
    assert through <= mutual_information(second, p @ first) + 1e-12


@given(inputs_and_channels(), inputs_and_channels())
def test_independent_uses_add(one, two):
    (p, first), (q, second) = one, two
    both = mutual_information(np.kron(first, second), np.kron(p, q))
    assert both == pytest.approx(
        mutual_information(first, p) + mutual_information(second, q), abs=1e-12
    )


@given(st.data(), st.floats(0, 1))
def test_convex_in_the_channel_concave_in_the_input(data, share):
    p, one = data.draw(inputs_and_channels())
    other = data.draw(channels(st.just(one.shape[0]), st.just(one.shape[1])))
    q = data.draw(channels(st.just(1), st.just(len(p))))[0]
    mixed = mutual_information(share * one + (1 - share) * other, p)
    assert (
        mixed
        <= share * mutual_information(one, p) + (1 - share) * mutual_information(other, p) + 1e-12
    )
    mixed = mutual_information(one, share * p + (1 - share) * q)
    assert (
        mixed
        >= share * mutual_information(one, p) + (1 - share) * mutual_information(one, q) - 1e-12
    )


def test_mutual_information_extremes():
    assert mutual_information(np.eye(7)) == pytest.approx(np.log(7), abs=1e-14)
    for seed in range(50):  # independence is 0 and not a rounding error below it
        row = np.random.default_rng(seed).dirichlet(np.ones(5))
        assert 0 <= mutual_information(np.tile(row, (7, 1))) < 1e-14


def test_inputs_of_weight_zero_do_not_count():
    # the second row alone reaches the second output: 0 * log(1/0) must be 0, not nan
    assert mutual_information(np.eye(2), [1, 0]) == 0
    gate = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0, 0, 1]])
    assert gating_rate(gate, [1, 3, 0]) == pytest.approx(gating_rate(gate[:2], [1, 3]), abs=1e-15)
    assert gating_rate(gate[[0, 1, 1, 1]]) == pytest.approx(
        gating_rate(gate[:2], [1, 3]), abs=1e-15
    )


# --- I(S;W) from the posteriors of M datasets ---


def mixture_posteriors(frequencies, alpha, n_datasets, rng):
    """Alpha-mixture posteriors of datasets whose minimiser has the given law."""
    n_experts = len(frequencies)
    minimisers = rng.choice(n_experts, n_datasets, p=frequencies)
    return (1 - alpha) / n_experts + alpha * np.eye(n_experts)[minimisers]


FREQUENCIES = np.array([0.3, 0.25, 0.15, 0.1, 0.08, 0.05, 0.04, 0.03])
ALPHA = 0.7
MARGINAL = (1 - ALPHA) / 8 + ALPHA * FREQUENCIES
# H(W|S) by (19): one outcome of probability alpha + (1-alpha)/R, the others (1-alpha)/R
CONDITIONAL = stats.entropy([ALPHA + (1 - ALPHA) / 8, *[(1 - ALPHA) / 8] * 7])
TRUTH = stats.entropy(MARGINAL) - CONDITIONAL


def test_conditional_entropy_closed_form_of_the_paper():
    posteriors = mixture_posteriors(np.full(25, 1 / 25), 0.7, 300, np.random.default_rng(0))
    top, rest = 0.7 + 0.3 / 25, 0.3 / 25
    assert algorithmic_information(posteriors).conditional_entropy == pytest.approx(
        -top * np.log(top) - 24 * rest * np.log(rest), abs=1e-12
    )
    assert round(algorithmic_information(posteriors).conditional_entropy, 4) == 1.5156  # P2 Table I


@given(channels())
def test_algorithmic_information_is_16_to_18(posteriors):
    found = algorithmic_information(posteriors)
    marginal = stats.entropy(posteriors.mean(axis=0))
    conditional = stats.entropy(posteriors, axis=1).mean()
    assert found.marginal_entropy == pytest.approx(marginal, abs=1e-12)
    assert found.conditional_entropy == pytest.approx(conditional, abs=1e-12)
    assert found.information == pytest.approx(marginal - conditional, abs=1e-12)
    assert found.information >= 0


@pytest.mark.parametrize("n_experts", [3, 5, 7, 25])
def test_a_learner_that_ignores_the_data_leaks_nothing(n_experts):
    for n_datasets in (1, 2, 300, 20_000):
        found = algorithmic_information(np.full((n_datasets, n_experts), 1 / n_experts)).information
        assert 0 <= found < 1e-12  # never a rounding error below 0: the bounds take its root


def test_bias_is_the_delta_formula_and_what_a_simulation_finds():
    rng = np.random.default_rng(1)
    n_datasets, repeats = 100, 4000
    estimates = [
        algorithmic_information(mixture_posteriors(FREQUENCIES, ALPHA, n_datasets, rng))
        for _ in range(repeats)
    ]
    error = np.array([e.information for e in estimates]) - TRUTH
    delta = -0.5 * np.sum(ALPHA**2 * FREQUENCIES * (1 - FREQUENCIES) / (n_datasets * MARGINAL))
    noise = error.std() / np.sqrt(repeats)
    # the formula is of first order in 1/M
    assert abs(error.mean() - delta) < 4 * noise + 0.03 * abs(delta)
    assert abs(delta) > 10 * noise  # otherwise the line above would say nothing
    assert np.mean([e.bias for e in estimates]) == pytest.approx(delta, rel=0.05)
    # the multinomial correction that P2 uses would be far off
    assert abs(error.mean() + miller_madow_bias(8, n_datasets)) > 10 * noise


def test_standard_error_is_the_spread_of_estimates():
    rng = np.random.default_rng(2)
    runs = [
        algorithmic_information(mixture_posteriors(FREQUENCIES, ALPHA, 400, rng))
        for _ in range(1500)
    ]
    spread = np.std([run.information for run in runs])
    assert np.mean([run.standard_error for run in runs]) == pytest.approx(spread, rel=0.08)
    posteriors = rng.dirichlet(np.ones(4), 7)  # of few datasets too: that of a mean of divergences
    divergences = [stats.entropy(q, posteriors.mean(axis=0)) for q in posteriors]
    assert algorithmic_information(posteriors).standard_error == pytest.approx(
        stats.sem(divergences)
    )


@pytest.mark.parametrize(("confidence", "band"), [(0.95, (0.93, 0.97)), (0.5, (0.45, 0.55))])
def test_interval_covers(confidence, band):
    rng = np.random.default_rng(3)
    hits = []
    for _ in range(1200):
        posteriors = mixture_posteriors(FREQUENCIES, ALPHA, 200, rng)
        low, high = algorithmic_information(posteriors, confidence).interval
        hits.append(low <= TRUTH <= high)
    assert band[0] <= np.mean(hits) <= band[1]


def test_bias_of_one_hot_posteriors_is_miller_madow():
    # at alpha = 1 the posteriors are multinomial counts, the case the correction was made for
    posteriors = np.eye(6)[np.arange(300) % 5]  # the sixth expert is never picked
    assert algorithmic_information(posteriors).bias == pytest.approx(
        -miller_madow_bias(5, 300), abs=1e-14
    )
    assert miller_madow_bias(25, 300) == pytest.approx(0.04, abs=1e-15)  # P2's number


def test_one_dataset_has_no_interval():
    found = algorithmic_information([[0.25, 0.75]])
    assert found.information == 0
    assert found.interval == (-np.inf, np.inf)


def test_bootstrap_agrees_with_the_delta_interval():
    posteriors = mixture_posteriors(FREQUENCIES, ALPHA, 2000, np.random.default_rng(4))
    delta = algorithmic_information(posteriors)
    low, high = bootstrap_interval(posteriors, n_resamples=1000, rng=5)
    width = delta.interval[1] - delta.interval[0]
    assert high - low == pytest.approx(width, rel=0.1)
    # a percentile interval sits around the plug-in value plus its bias, the other around the value
    # minus it
    assert (low + high) / 2 == pytest.approx(delta.information + delta.bias, abs=0.1 * width)
    assert bootstrap_interval(posteriors, n_resamples=50, rng=5) == bootstrap_interval(
        posteriors, n_resamples=50, rng=5
    )


def test_entries_that_underflow_in_the_mixture_carry_nothing():
    gate = np.full((10, 2), 0.0)
    gate[:, 0] = 1.0
    gate[3, 1] = 1e-323
    assert mutual_information(gate) == 0
