"""Private and noisy chains from gate to expert: what arrives, what it costs, and the caps that
nothing may pass."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from expertbank import channels, entropy, gating_rate, links, load_bank, mutual_information, privacy
from expertbank.rate_distortion import (
    critical_lambda,
    rate_distortion,
    rate_distortion_curve,
    routing,
)
from support import refused

EPSILONS = (0.1, 0.5, 1, 2, 4, 8)


@pytest.fixture(scope="module")
def system():
    """Eight experts of the shipped bank, a soft gate over them, what it wants, and the bank's
    certified curve."""
    losses = load_bank().losses("test")[:2000, :8]
    gate = routing(losses, rate_distortion(losses, 0.2))
    return (
        losses,
        gate,
        *privacy.wanted_experts(gate, losses),
        rate_distortion_curve(losses, band=1e-5),
    )


def chains(prior, costs):
    """Channels from the wanted index, each with a cap on its rate that theory gives: private ones,
    links, and both."""
    k = len(prior)
    for epsilon in EPSILONS:
        cap = min(channels.ldp_rate_cap(k, epsilon), channels.ldp_sharp_cap(epsilon))
        cap = min(cap, channels.ldp_contraction(epsilon) * entropy(prior))
        mechanisms = (
            channels.randomised_response(k, epsilon),
            privacy.most_informative_mechanism(prior, epsilon),
            privacy.least_loss_mechanism(prior, epsilon, costs),
        )
        for mechanism in mechanisms:
            assert privacy.privacy_level(mechanism) <= epsilon + 1e-9
            yield mechanism, cap
        for p in (0.05, 0.4):
            yield (
                mechanisms[2] @ channels.symmetric_channel(k, p),
                min(cap, channels.symmetric_capacity(k, p)),
            )
    for p in (0.01, 0.1, 0.3):
        for words in (
            links.index_bits(k),
            np.tile(links.index_bits(k), 3),
            links.reed_muller_words(k),
        ):
            yield links.words_channel(words, p), words.shape[1] * channels.bsc_rate(p)
        for n in (1, 2, 3):
            yield (
                links.repeated_channel(channels.symmetric_channel(k, p), n),
                n * channels.symmetric_capacity(k, p),
            )
            yield (
                links.repeated_channel(channels.erasure_channel(k, p), n),
                n * channels.erasure_capacity(k, p),
            )


# --- the chain ---


def test_no_chain_passes_its_caps(system):
    _, gate, prior, costs, curve = system
    for channel, cap in chains(prior, costs):
        carried, sent = gating_rate(gate @ channel), mutual_information(channel, prior)
        # data processing, on both sides of the index
        assert carried <= min(gating_rate(gate), sent) + 1e-9
        assert sent <= cap + 1e-9
        assert (
            privacy.routed_loss(prior, costs, channel)
            >= curve.lower(carried) - 1e-9
            >= curve.lower(cap) - 2e-9
        )


def test_prior_and_costs_are_all_that_a_chain_needs(system):
    losses, gate, prior, costs, _ = system
    channel = channels.randomised_response(8, 1)
    answers = privacy.best_answers(prior, costs, channel)
    arrived = gate @ channel
    assert privacy.routed_loss(prior, costs, channel) == pytest.approx(
        (arrived * losses[:, answers]).sum(axis=1).mean()
    )
    assert privacy.routed_loss(prior, costs, channel, np.arange(8)) == pytest.approx(
        (arrived * losses).sum(axis=1).mean()
    )
    assert privacy.routed_loss(prior, costs, np.ones((8, 1))) == pytest.approx(
        losses.mean(axis=0).min()
    )


def test_an_expert_that_nobody_wants_has_the_mean_costs():
    losses = np.array([[0.1, 0.7], [0.3, 0.1]])
    prior, costs = privacy.wanted_experts([[1, 0], [1, 0]], losses)
    np.testing.assert_allclose(prior, [1, 0])
    np.testing.assert_allclose(costs, [[0.2, 0.4], [0.2, 0.4]])


# --- privacy: the programmes against theorems of Kairouz, Oh & Viswanath ---


@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_randomised_response_is_optimal_at_large_epsilon(k):
    for epsilon in (5, 8):
        best = mutual_information(privacy.most_informative_mechanism(np.full(k, 1 / k), epsilon))
        assert best == pytest.approx(channels.randomised_response_rate(k, epsilon), abs=1e-9)


@given(st.integers(2, 7), st.integers(0, 10**6))
@settings(max_examples=20)
def test_the_binary_mechanism_is_optimal_at_small_epsilon(k, seed):
    """It tells, by randomised response, on which side of the most even cut the index lies."""
    prior, epsilon = np.random.default_rng(seed).dirichlet(np.full(k, 3.0)), 1e-2
    cuts = [sum(prior[list(part)]) for n in range(k) for part in combinations(range(k), n)]
    share = min(cuts, key=lambda cut: abs(cut - 0.5))
    binary = mutual_information(channels.randomised_response(2, epsilon), [share, 1 - share])
    best = mutual_information(privacy.most_informative_mechanism(prior, epsilon), prior)
    assert binary <= best + 1e-13
    assert best == pytest.approx(binary, rel=1e-2)


@given(st.integers(2, 6), st.floats(0.05, 8), st.integers(0, 10**6))
def test_programmes_beat_randomised_response_and_stay_private(k, epsilon, seed):
    rng = np.random.default_rng(seed)
    prior, costs = rng.dirichlet(np.ones(k)), rng.random((k, k + 1))
    response = channels.randomised_response(k, epsilon)
    informative = privacy.most_informative_mechanism(prior, epsilon)
    routed = privacy.least_loss_mechanism(prior, epsilon, costs)
    assert informative.shape[1] <= k and routed.shape == costs.shape
    for channel in (informative, routed):
        np.testing.assert_allclose(channel.sum(axis=1), 1, atol=1e-12)
        assert privacy.privacy_level(channel) <= epsilon + 1e-9
    assert mutual_information(informative, prior) >= mutual_information(response, prior) - 1e-9
    loss = float((prior[:, None] * routed * costs).sum())
    for channel in (response, informative, routed):
        assert loss <= privacy.routed_loss(prior, costs, channel) + 1e-9


def test_random_private_channels_are_no_better(system):
    _, _, prior, costs, _ = system
    rng, epsilon = np.random.default_rng(0), 1.0
    best = mutual_information(privacy.most_informative_mechanism(prior, epsilon), prior)
    loss = (prior[:, None] * privacy.least_loss_mechanism(prior, epsilon, costs) * costs).sum()
    for _ in range(200):
        rows = rng.random((8, 6)) < 0.5
        channel = np.where(rows, np.exp(epsilon / 2), 1.0) * rng.dirichlet(np.ones(6))
        channel /= channel.sum(axis=1, keepdims=True)  # at most e^(eps/2) twice
        assert privacy.privacy_level(channel) <= epsilon + 1e-12
        assert mutual_information(channel, prior) <= best + 1e-12
        assert privacy.routed_loss(prior, costs, channel) >= loss - 1e-12


def every_gate(losses, epsilon, weights):
    """The least loss of a private gate, one unknown for each p(t|x) and each m_t."""
    n, k = losses.shape
    one, high = np.eye(n * k), np.tile(np.eye(k), (n, 1))
    bounds = np.vstack([np.hstack([-one, high]), np.hstack([one, -np.exp(epsilon) * high])])
    rows = np.hstack([np.kron(np.eye(n), np.ones(k)), np.zeros((n, k))])
    cost = np.concatenate([(weights[:, None] * losses).ravel(), np.zeros(k)])
    return linprog(cost, A_ub=bounds, b_ub=np.zeros(2 * n * k), A_eq=rows, b_eq=np.ones(n)).fun


@given(st.integers(1, 7), st.integers(2, 4), st.floats(0, 6), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=20)
def test_the_least_loss_of_any_private_gate(n, k, epsilon, binary, seed):
    rng = np.random.default_rng(seed)
    losses, weights = rng.random((n, k)), rng.dirichlet(np.ones(n))
    losses = losses.round() if binary else losses
    assert privacy.private_distortion(losses, epsilon, weights) == pytest.approx(
        every_gate(losses, epsilon, weights), abs=1e-8
    )


def test_private_gates_are_ordered(system):
    losses, _, prior, costs, curve = system
    for epsilon in EPSILONS:
        cap = min(channels.ldp_rate_cap(8, epsilon), channels.ldp_sharp_cap(epsilon))
        routed = (
            prior[:, None] * privacy.least_loss_mechanism(prior, epsilon, costs) * costs
        ).sum()
        assert (
            curve.lower(cap) - 1e-9 <= privacy.private_distortion(losses, epsilon) <= routed + 1e-9
        )
    assert privacy.private_distortion(losses, 0) == pytest.approx(curve.ceiling, abs=1e-12)


def test_private_gates_pay_from_one_over_the_critical_price_on(system):
    losses, *_, curve = system
    onset = 1 / critical_lambda(losses)
    assert privacy.private_distortion(losses, 0.99 * onset) == pytest.approx(
        curve.ceiling, abs=1e-12
    )
    assert privacy.private_distortion(losses, 1.01 * onset) < curve.ceiling - 1e-9


def test_two_letters_leave_only_randomised_response():
    response = channels.randomised_response(2, 1.5)
    for prior in ([0.5, 0.5], [0.7, 0.3]):
        best = mutual_information(privacy.most_informative_mechanism(prior, 1.5), prior)
        assert best == pytest.approx(mutual_information(response, prior), abs=1e-12)


def test_patterns_are_private_and_all_there():
    patterns = privacy.staircase_patterns(4, 2.0)
    assert patterns.shape == (4, 15) and len(np.unique(patterns, axis=1).T) == 15
    np.testing.assert_allclose(np.unique(patterns), [np.exp(-2), 1])
    assert (patterns.max(axis=0) == 1).all()


@pytest.mark.parametrize("epsilon", [0, 1e-6, 9e-4, 1.1e-3, 1, 30])
def test_the_sharp_cap(epsilon):
    assert channels.ldp_sharp_cap(epsilon) <= epsilon
    rates = [channels.randomised_response_rate(k, epsilon) for k in (2, 8, 64)]
    assert max(rates) <= channels.ldp_sharp_cap(epsilon) * (1 + 1e-3)
    assert (
        channels.ldp_sharp_cap(epsilon) == pytest.approx(epsilon**2 / 8, rel=1e-3) or epsilon >= 1
    )


def test_the_sharp_cap_is_attained_by_an_uneven_bit():
    """So it is the capacity of binary randomised response with the best of all splits of many
    letters."""
    epsilon = 2.0
    one = np.array([1, np.exp(-epsilon)])
    shares = np.linspace(0.01, 0.99, 9801)
    mean = shares * one[0] + (1 - shares) * one[1]
    heights = (
        shares * one[0] * np.log(one[0] / mean) + (1 - shares) * one[1] * np.log(one[1] / mean)
    ) / mean
    assert heights.max() == pytest.approx(channels.ldp_sharp_cap(epsilon), abs=1e-6)


# --- noisy links ---


def test_words_channel_is_the_product_of_flips():
    words = np.array([[0, 1, 1], [1, 0, 0]])
    channel = links.words_channel(words, 0.1)
    received = links.index_bits(8)
    for word, row in zip(words, channel):
        flips = (received != word).sum(axis=1)
        np.testing.assert_allclose(row, 0.1**flips * 0.9 ** (3 - flips))


def test_reed_muller_words_are_far_apart():
    for k, n in ((8, 4), (25, 16), (32, 16)):
        words = links.reed_muller_words(k)
        apart = (words[:, None] != words).sum(axis=2)
        assert words.shape == (k, n) and apart[~np.eye(k, dtype=bool)].min() == n // 2


def binomial(n, i, p):
    return comb(n, i) * p**i * (1 - p) ** (n - i)


def block_error(words, p):
    """Of the nearest-word decoder with equally likely words, exactly."""
    answers = links.nearest_words(links.index_bits(2 ** words.shape[1]), words)
    channel = links.words_channel(words, p)
    return 1 - np.mean([channel[j, answers == j].sum() for j in range(len(words))])


def test_codes_gain_what_they_should():
    bits = links.index_bits(32)
    for p in (0.01, 0.05, 0.1):
        assert block_error(bits, p) == pytest.approx(1 - (1 - p) ** 5)
        bit = 3 * p**2 * (1 - p) + p**3  # two or three of three flipped
        assert block_error(np.tile(bits, 3), p) == pytest.approx(1 - (1 - bit) ** 5)
        # 16 uses against 15: up to three flips are repaired
        assert block_error(links.reed_muller_words(32), p) < block_error(np.tile(bits, 3), p) / 2
        within = sum(binomial(16, i, p) for i in range(4))
        assert block_error(links.reed_muller_words(32), p) <= 1 - within + 1e-12


def test_measured_losses_are_the_exact_ones(system):
    """Indices sent word by word through a simulated BSC, decoded, and charged by the table."""
    losses, gate, *_ = system
    wanted = gate.argmax(axis=1)
    prior, costs = privacy.wanted_experts(np.eye(8)[wanted], losses)
    for words in (links.index_bits(8), links.reed_muller_words(8)):
        trials = [
            links.nearest_words(links.flip_bits(words[wanted], 0.1, seed), words)
            for seed in range(40)
        ]
        loss, error = links.measured_loss(losses, trials)
        answers = links.nearest_words(links.index_bits(2 ** words.shape[1]), words)
        exact = privacy.routed_loss(prior, costs, links.words_channel(words, 0.1), answers)
        assert abs(loss - exact) < 4 * error
        assert privacy.routed_loss(prior, costs, links.words_channel(words, 0.1)) <= exact + 1e-12


@pytest.mark.parametrize(("parity", "errors", "lost"), [(16, 8, 0), (16, 0, 16), (8, 2, 4)])
def test_reed_solomon_repairs_up_to_its_distance(parity, errors, lost, monkeypatch):
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 25, 200)

    def spoil(sent, k, *_):
        received = sent.copy()
        for row in received:
            places = rng.permutation(31)
            row[places[:errors]] = (row[places[:errors]] + rng.integers(1, k, errors)) % k
            row[places[errors : errors + lost]] = -1
        return received

    monkeypatch.setattr(links, "spoil_letters", spoil)
    np.testing.assert_array_equal(links.reed_solomon_link(indices, parity), indices)


def test_reed_solomon_beyond_repair_leaves_what_arrived():
    indices = np.random.default_rng(0).integers(0, 25, 3000)
    assert links.reed_solomon_link(indices, 4, erased=1.0).tolist() == [-1] * 3000
    arrived = links.reed_solomon_link(indices, 4, erased=0.6, rng=1)
    assert set(np.flatnonzero(arrived != indices)) == set(np.flatnonzero(arrived < 0))
    assert np.mean(arrived < 0) == pytest.approx(0.6, abs=0.03)


def test_letters_are_spoilt_as_often_as_they_should():
    sent = np.random.default_rng(0).integers(0, 5, 40_000)
    received = links.spoil_letters(sent, 5, 0.3, 0.2, 1)
    assert np.mean(received < 0) == pytest.approx(0.2, abs=0.01)
    kept = received >= 0
    assert np.mean(received[kept] != sent[kept]) == pytest.approx(0.3, abs=0.01)
    assert set(np.unique((received - sent)[kept] % 5)) == {0, 1, 2, 3, 4}


def test_normal_approximation_of_the_block_error():
    # the two directions are each other's inverse
    for p, n in ((0.05, 100), (0.11, 500)):
        nats = channels.bsc_blocklength(n, p, 1e-3)
        found = channels.block_error(
            n, nats, channels.bsc_rate(p), channels.symmetric_dispersion(2, p)
        )
        assert found == pytest.approx(1e-3, rel=1e-9)
    # without dispersion exp(5 C) outputs differ
    without = channels.block_error(5, 1.0, [0.3, 0.1, 0.2], 0.0, 0)
    assert without == pytest.approx([0, 1 - np.exp(-0.5), 0], abs=1e-15)
    # erasures: with a maximum distance separable code the error is a binomial tail
    erased = np.array([0.3, 0.4, 0.45])
    capacity, dispersion = (
        channels.erasure_capacity(32, erased),
        channels.erasure_dispersion(32, erased),
    )
    approximate = channels.block_error(310, 150 * np.log(32), capacity, dispersion, log_term=0)
    exact = [sum(binomial(310, i, e) for i in range(161, 311)) for e in erased]
    np.testing.assert_allclose(approximate, exact, atol=0.05)


@pytest.mark.parametrize(("k", "p"), [(2, 0.1), (8, 0.2), (32, 0.5)])
def test_dispersions_are_variances_of_the_information_density(k, p):
    for matrix, dispersion in (
        (channels.symmetric_channel(k, p), channels.symmetric_dispersion(k, p)),
        (channels.erasure_channel(k, p), channels.erasure_dispersion(k, p)),
    ):
        density = np.log(np.maximum(matrix, 1e-300) / matrix.mean(axis=0))
        mean = (matrix * density).sum() / k
        assert dispersion == pytest.approx((matrix * (density - mean) ** 2).sum() / k)
    assert channels.symmetric_dispersion(k, [0, 1 - 1 / k, 1]).tolist()[0] == 0


# --- bits on a wire ---


def test_a_coder_needs_what_the_entropy_says():
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.ones(25))
    indices = rng.choice(25, 20_000, p=law)
    used = np.bincount(indices, minlength=25) / 20_000
    bits = 20_000 * entropy(used) / np.log(2)
    assert bits - 1e-6 * 20_000 <= links.coded_bits(indices, used) <= 1.01 * bits + 64
    assert links.coded_bits(indices, np.full(25, 1 / 25)) == pytest.approx(
        20_000 * np.log2(25), rel=0.01
    )
    laws = rng.dirichlet(np.ones(25), 3000)
    drawn = np.array([rng.choice(25, p=row) for row in laws])
    ideal = -np.log2(laws[np.arange(3000), drawn]).sum()
    assert links.coded_bits(drawn, laws) == pytest.approx(ideal, rel=0.01, abs=64)


def test_shared_coins_draw_from_the_gate_and_cost_less():
    prior, channel = np.full(4, 1 / 4), channels.randomised_response(4, 1.0)
    gate = channel[np.arange(4000) % 4]
    indices, laws = links.raced_indices(gate, np.arange(4000), 0)
    for j in range(4):
        found = np.bincount(indices[j::4], minlength=4) / 1000
        np.testing.assert_allclose(found, channel[j], atol=0.06)
    np.testing.assert_allclose(laws.mean(axis=0), prior, atol=0.02)
    rate, cost = mutual_information(channel, prior), entropy(laws).mean()
    assert rate <= cost <= rate + np.log(rate / np.log(2) + 1) + 4 * np.log(2)
    assert cost < 0.8 * entropy(prior)
    ideal = 4000 * cost / np.log(2)
    assert links.coded_bits(indices, laws) == pytest.approx(ideal, rel=0.05)


def test_a_certain_gate_leaves_nothing_to_the_coins():
    gate = np.eye(3)[np.arange(300) % 3]
    indices, laws = links.raced_indices(gate, np.arange(300), 0)
    np.testing.assert_array_equal(indices, np.arange(300) % 3)
    np.testing.assert_allclose(laws, 1 / 3)


def test_pointers_cost_less_a_letter_in_longer_blocks():
    prior, channel = np.full(3, 1 / 3), channels.randomised_response(3, 1.0)
    rate, costs = mutual_information(channel, prior), []
    for n in (1, 4, 8):
        winners = [links.poisson_index(prior, channel, n, seed) for seed in range(400)]
        costs.append(links.pointer_bits(winners, n * rate) / n)
        bits = n * rate / np.log(2)
        assert bits <= n * costs[-1] <= bits + np.log2(bits + 1) + 4
    assert costs[0] > costs[1] > costs[2]


def test_the_error_of_pointer_bits_is_how_far_repeats_scatter():
    prior, channel = np.full(3, 1 / 3), channels.randomised_response(3, 1.0)
    rate = mutual_information(channel, prior)
    winners = [links.poisson_index(prior, channel, 1, seed) for seed in range(4000)]
    repeats = np.reshape(winners, (100, 40))
    found = [links.pointer_bits(row, rate) for row in repeats]
    errors = [links.pointer_bits_error(row, rate) for row in repeats]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(found, ddof=1), rel=0.25)


def test_a_pointer_to_a_useless_channel_is_the_first_candidate():
    assert links.poisson_index([0.5, 0.5], np.full((2, 2), 0.5), 3, 0) == 1


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "name", "found"),
    [
        (lambda: privacy.staircase_patterns(13, 1.0), "k", "13"),
        (lambda: privacy.staircase_patterns(3, -1.0), "epsilon", "-1"),
        (lambda: privacy.staircase_patterns(3, 31), "epsilon", "31"),
        (lambda: privacy.most_informative_mechanism([0.5, 0.6], 1), "prior", "0.1"),
        (lambda: privacy.least_loss_mechanism([0.5, 0.5], 1, np.zeros((3, 3))), "prior", "(2,)"),
        (
            lambda: privacy.routed_loss([0.5, 0.5], np.zeros((2, 2)), np.ones((3, 1))),
            "channel",
            "(3, 1)",
        ),
        (lambda: privacy.wanted_experts(np.eye(2), np.zeros((2, 3))), "gate", "(2, 2)"),
        (lambda: privacy.private_distortion([[0, np.nan]], 1), "losses", "nan"),
        (lambda: privacy.private_distortion([[0, 1]], -1), "epsilon", "-1"),
        (lambda: privacy.private_distortion([[0, 1]], 1, [1, 1]), "weights", "(2,)"),
        (lambda: links.index_bits(1), "k", "1"),
        (lambda: links.words_channel([[0, 2]], 0.1), "words", "(1, 2)"),
        (lambda: links.words_channel([[0, 1]], 1.5), "crossover", "1.5"),
        (lambda: links.words_channel(np.zeros((25, 30), int), 0.1), "words", "30"),
        (lambda: links.nearest_words([0, 1], [[0, 1]]), "received", "(2,)"),
        (lambda: links.repeated_channel(np.eye(32), 5), "n_uses", "32^n"),
        (lambda: links.reed_solomon_link([32], 4), "indices", "31"),
        (lambda: links.reed_solomon_link([1], 31), "parity", "31"),
        (lambda: links.spoil_letters([1], 4, 1.5, 0, 0), "error", "1.5"),
        (lambda: links.coded_bits([3], [0.5, 0.5]), "indices", "1"),
        (lambda: links.coded_bits([0, 1], np.full((3, 2), 0.5)), "law", "(3, 2)"),
        (lambda: links.measured_loss(np.zeros((3, 2)), [0, 1]), "answers", "(1, 2)"),
        (lambda: channels.block_error(0, 1, 1, 1), "n_uses", "0"),
        (lambda: channels.symmetric_dispersion(2, 2), "error", "2"),
        (lambda: channels.ldp_sharp_cap(-1), "epsilon", "-1"),
    ],
)
def test_bad_input(call, name, found):
    refused(call, name, found)
