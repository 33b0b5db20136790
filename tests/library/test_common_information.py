"""Wyner's common information: closed forms, another solver, and laws that every letter keeps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from scipy.special import entr, rel_entr

from expertbank import channels, entropy, mutual_information
from expertbank.common_information import (
    common_information,
    kept_or_erased,
    letters_by_price,
    wire_beside_coins,
)
from support import refused

SMALL = 1e-9


def h(p):
    return entr(p) + entr(1 - p)


def checked(letter, channel, prior):
    """The letter, after its law and its three costs were computed again from all (v, x, t)."""
    prior = np.asarray(prior)
    table = np.einsum("v,vx,vt->vxt", letter.weights, letter.input_laws, letter.output_laws)
    for laws in (letter.weights[None], letter.input_laws, letter.output_laws):
        assert laws.min() >= 0
        np.testing.assert_allclose(laws.sum(axis=1), 1, atol=SMALL)
    np.testing.assert_allclose(table.sum(axis=0), prior[:, None] * channel, atol=1e-12)
    np.testing.assert_allclose(letter.joint, table.sum(axis=0), atol=1e-15)
    split = letter.weights[:, None, None] * table.sum(axis=0)
    assert letter.rate == pytest.approx(rel_entr(table, split).sum(), abs=SMALL)
    inputs = table.sum(axis=2)
    split = letter.weights[:, None] * inputs.sum(axis=0)
    assert letter.wire_rate == pytest.approx(rel_entr(inputs, split).sum(), abs=SMALL)
    assert letter.entropy == pytest.approx(entropy(letter.weights), abs=SMALL)
    occurs = prior > 0
    drawn = letter.sender_laws @ letter.output_laws
    np.testing.assert_allclose(drawn[occurs], np.asarray(channel)[occurs], atol=1e-8)
    # data processing, and what V = X and V = T cost
    rate = mutual_information(channel, prior)
    assert rate - SMALL <= letter.wire_rate <= letter.rate + SMALL
    assert letter.rate <= letter.entropy + SMALL
    return letter


def best(channel, prior, **options):
    letter = checked(common_information(channel, prior, **options), channel, prior)
    if not options.get("wire_price"):
        output = np.asarray(prior) @ channel
        assert letter.rate <= min(entropy(prior), entropy(output)) + SMALL
    return letter


# --- closed forms ---


@pytest.mark.parametrize("p", [0.01, 0.1, 0.25, 0.4])
def test_two_symmetric_bits(p):
    """Wyner 1975: log 2 + h(p) - 2 h(a), a(1 - a) = p/2."""
    a = (1 - np.sqrt(1 - 2 * p)) / 2
    truth = np.log(2) + h(p) - 2 * h(a)
    rate = best(channels.symmetric_channel(2, p), [0.5, 0.5]).rate
    assert truth - SMALL <= rate <= truth + 1e-4


@pytest.mark.parametrize("erased", [0.2, 0.5, 0.7, 0.9])
def test_a_bit_that_may_be_erased(erased):
    """Cuff 2013: log 2 up to a half, h(erased) above it."""
    truth = np.log(2) if erased <= 0.5 else h(erased)
    rate = best(channels.erasure_channel(2, erased), [0.5, 0.5]).rate
    assert truth - SMALL <= rate <= truth + 1e-3


@pytest.mark.parametrize("price", [0.5, 2, 8])
@pytest.mark.parametrize("erased", [0.3, 0.75])
def test_shared_coins_for_a_bit_that_may_be_erased(erased, price):
    """Cuff 2013: with r log 2 on the wire, r from 1 - erased to 1, wire and coins together take
    h(erased) + r (log 2 - h((1 - erased) / r))."""
    sent = np.linspace(1 - erased, 1, 400_001)
    total = h(erased) + sent * (np.log(2) - h(np.minimum((1 - erased) / sent, 1)))
    truth = (total + price * sent * np.log(2)).min()
    letter = best(channels.erasure_channel(2, erased), [0.5, 0.5], wire_price=price)
    found = letter.rate + price * letter.wire_rate
    assert truth - 1e-6 <= found <= truth + 2e-3


def test_an_index_that_ignores_the_input_costs_nothing():
    channel = np.tile([0.2, 0.3, 0.5], (4, 1))
    letter = best(channel, np.full(4, 0.25))
    assert letter.rate == pytest.approx(0, abs=SMALL)
    assert letter.entropy == pytest.approx(0, abs=SMALL)


def test_a_function_of_the_input_costs_its_entropy():
    channel = np.eye(3)[[0, 0, 1, 2]]
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    assert best(channel, prior).rate == pytest.approx(entropy(prior @ channel), abs=SMALL)


def letters_of_one_shape(k, channel):
    """The least rate for a symmetric channel, by grid, of letters that point to an index or to
    none: with probability w to j, X = j with probability s + (1 - s) / k, and T alike."""
    kept = channel[0, 0] - channel[0, 1]
    one = np.linspace(kept, 1, 200)
    w, s = one[:, None], one[None, :]
    r = kept / (w * s)

    def spread(share):
        return entr(share + (1 - share) / k) + (k - 1) * entr((1 - share) / k)

    valid = (r <= 1) & (s <= 1)
    within = w * (spread(s) + spread(np.minimum(r, 1))) + (1 - w) * 2 * np.log(k)
    return entropy(channel[0]) + np.log(k) - within[valid].max()


@pytest.mark.parametrize("epsilon", [0.1, 1, 3])
def test_a_private_index_is_as_cheap_as_a_family_that_fits_it(epsilon):
    channel = channels.randomised_response(8, epsilon)
    rate = best(channel, np.full(8, 1 / 8)).rate
    assert rate <= letters_of_one_shape(8, channel) + 1e-4
    # and much less than the index itself, since the receiver tosses coins
    assert rate < 0.87 * np.log(8)


# --- another solver ---


def rate_by_descent(joint, n_letters, seed):
    """The least I(X,T;V) that SLSQP finds among letters that make the joint law."""
    rng = np.random.default_rng(seed)
    n_inputs, n_outputs = joint.shape
    cuts = [n_letters, n_letters * (1 + n_inputs)]

    def parts(z):
        weights, inputs, outputs = np.split(z, cuts)
        return weights, inputs.reshape(n_letters, -1), outputs.reshape(n_letters, -1)

    def rate(z):
        weights, inputs, outputs = parts(z)
        return entr(joint).sum() - weights @ (entr(inputs).sum(1) + entr(outputs).sum(1))

    def mismatch(z):
        weights, inputs, outputs = parts(z)
        own = np.einsum("v,vx,vt->xt", weights, inputs, outputs)
        sums = [inputs.sum(1) - 1, outputs.sum(1) - 1]
        return np.concatenate([(own - joint).ravel(), *sums])

    start = np.concatenate(
        [
            np.full(n_letters, 1 / n_letters),
            rng.dirichlet(np.ones(n_inputs), n_letters).ravel(),
            rng.dirichlet(np.ones(n_outputs), n_letters).ravel(),
        ]
    )
    limits = [(1e-12, 1)] * len(start)
    constraint = {"type": "eq", "fun": mismatch}
    found = minimize(rate, start, bounds=limits, constraints=constraint, options={"maxiter": 150})
    is_feasible = np.abs(mismatch(found.x)).max() < 1e-7
    return found.fun if is_feasible else np.inf


@pytest.mark.parametrize("shape", [(2, 2), (2, 3)])
def test_no_other_solver_finds_a_cheaper_letter(shape):
    rng = np.random.default_rng(sum(shape))
    joint = rng.dirichlet(np.ones(shape[0] * shape[1])).reshape(shape)
    prior = joint.sum(axis=1)
    rate = best(joint / prior[:, None], prior).rate
    others = [rate_by_descent(joint, n, seed) for n in (2, 3) for seed in range(3)]
    assert min(others) < np.inf
    assert rate <= min(others) + 1e-3


# --- laws ---


@pytest.mark.parametrize("seed", range(4))
def test_letters_make_the_law_that_they_are_asked_for(seed):
    rng = np.random.default_rng(seed)
    n_inputs, n_outputs = rng.integers(2, 6, size=2)
    prior = rng.dirichlet(np.ones(n_inputs))
    channel = rng.dirichlet(np.full(n_outputs, 0.7), n_inputs)
    channel = np.where(channel < 0.1 * seed, 0, channel)  # and some zeros
    channel = channel / channel.sum(axis=1, keepdims=True)
    letter = best(channel, prior)
    assert letter.rate <= checked(kept_or_erased(channel, prior), channel, prior).rate + SMALL


def test_inputs_and_outputs_that_never_occur_are_let_be():
    channel = np.array([[0.5, 0.5, 0, 0], [0.2, 0.8, 0, 0], [0, 0, 1, 0]])
    letter = best(channel, [0.5, 0.5, 0.0])
    alone = best(channel[:2, :2], [0.5, 0.5])
    assert letter.rate == pytest.approx(alone.rate, abs=1e-3)


def test_noise_after_the_index_makes_it_cheaper():
    prior = np.array([0.5, 0.3, 0.2])
    channel = channels.symmetric_channel(3, 0.1)
    rates = [best(channel, prior).rate]
    for _ in range(3):
        channel = channel @ channels.symmetric_channel(3, 0.1)
        rates.append(best(channel, prior).rate)
    assert (np.diff(rates) < 0).all()


def test_shared_coins_take_the_place_of_what_is_sent():
    prior = np.array([0.4, 0.3, 0.2, 0.1])
    channel = channels.randomised_response(4, 1.0)
    letters = [best(channel, prior, wire_price=price) for price in (0, 1, 4, 1000)]
    sent = np.array([letter.wire_rate for letter in letters])
    total = np.array([letter.rate for letter in letters])
    assert (np.diff(sent) < 0).all()
    assert (np.diff(total) > 0).all()
    # the far end: I(X;T) on the wire, H(T|X) of coins, the index itself as the letter
    assert sent[-1] == pytest.approx(mutual_information(channel, prior), abs=1e-6)
    assert total[-1] == pytest.approx(entropy(prior @ channel), abs=1e-6)


# --- one query at a time ---


@pytest.mark.parametrize("epsilon", [0.01, 1, 4])
def test_kept_or_erased_costs_what_its_two_parts_cost(epsilon):
    prior = np.array([0.5, 0.25, 0.125, 0.125])
    channel = channels.randomised_response(4, epsilon)
    letter = checked(kept_or_erased(channel, prior), channel, prior)
    erased = 4 / (np.exp(epsilon) + 3)
    assert letter.entropy == pytest.approx(h(erased) + (1 - erased) * entropy(prior))
    block = entropy((prior[:, None] * channel).ravel()) - erased * (entropy(prior) + np.log(4))
    assert letter.rate == pytest.approx(block)


def test_nothing_in_common_is_sent_as_it_is():
    letter = checked(kept_or_erased(np.eye(3)), np.eye(3), np.full(3, 1 / 3))
    assert letter.entropy == pytest.approx(np.log(3))


def test_a_sent_letter_draws_the_index_that_the_gate_would():
    """Coded, read back and drawn from: bits close to H(V), and the channel comes out."""
    constriction = pytest.importorskip("constriction")
    assert constriction
    from expertbank.links import coded_bits

    prior = np.array([0.4, 0.3, 0.2, 0.1])
    channel = channels.randomised_response(4, 1.0)
    letter = kept_or_erased(channel, prior)
    rng = np.random.default_rng(0)
    n = 40_000
    x = rng.choice(4, n, p=prior)
    sent = (letter.sender_laws[x].cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    laws = letter.output_laws[sent]
    drawn = (laws.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    counts = np.zeros((4, 4))
    np.add.at(counts, (x, drawn), 1)
    expected = counts.sum(axis=1, keepdims=True) * channel
    assert ((counts - expected) ** 2 / expected).sum() < 30  # chi-square, 12 degrees of freedom
    bits = coded_bits(sent, letter.weights) / n
    assert bits == pytest.approx(letter.entropy / np.log(2), abs=0.02)


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "name", "found"),
    [
        (lambda: common_information([[0.5, 0.6]]), "channel", "0.1"),
        (lambda: common_information(np.eye(2), [0.5, 0.4, 0.1]), "input_dist", "(3,)"),
        (lambda: common_information(np.full((33, 32), 1 / 32)), "channel", "1056"),
        (lambda: common_information(np.eye(2), wire_price=-1), "wire_price", "-1"),
        (lambda: kept_or_erased([0.5, 0.5]), "channel", "(2,)"),
        (lambda: kept_or_erased(np.eye(2), [-1, 2]), "input_dist", "-1"),
    ],
)
def test_bad_arguments_are_named(call, name, found):
    refused(call, name, found)


# --- what shared coins buy ---


def by_programme(letters, coins):
    """The least wire rate of mixtures of letters, with and without their coins, as a programme."""
    wire = np.array([letter.wire_rate for letter in letters])
    shared = np.array([letter.rate for letter in letters]) - wire
    heights = np.concatenate([wire, wire + shared])
    used = np.concatenate([shared, 0 * shared])
    sums = np.ones((1, len(used)))
    return linprog(heights, used[None], [coins], sums, [1]).fun


@pytest.mark.parametrize("epsilon", [0.3, 1, 3])
def test_coins_are_bought_by_mixtures_of_letters(epsilon):
    prior = np.array([0.5, 0.2, 0.2, 0.1])
    channel = channels.randomised_response(4, epsilon)
    letters = letters_by_price(channel, prior)
    for letter in letters:
        checked(letter, channel, prior)
    rate = mutual_information(channel, prior)
    coins = np.linspace(0, 1.5, 7)
    wire = wire_beside_coins(letters, coins)
    np.testing.assert_allclose(wire, [by_programme(letters, c) for c in coins], atol=1e-9)
    assert wire[0] == pytest.approx(min(letter.rate for letter in letters), abs=SMALL)
    assert (wire >= rate - SMALL).all()
    dice = entropy(prior @ channel) - rate
    assert wire_beside_coins(letters, dice) == pytest.approx(rate, abs=SMALL)
    # falls, is convex, and no nat of coins saves more than one on the wire
    assert (np.diff(wire) <= SMALL).all() and (np.diff(wire, 2) >= -SMALL).all()
    assert (wire + coins >= wire[0] - SMALL).all()


def test_the_curve_of_an_erased_bit():
    """Cuff 2013: with r log 2 on the wire the two together take h(d) + r (log 2 - h((1-d)/r))."""
    erased = 0.75
    letters = letters_by_price(channels.erasure_channel(2, erased), [0.5, 0.5])
    sent = np.linspace(1 - erased, 1, 100_001)
    together = h(erased) + sent * (np.log(2) - h(np.minimum((1 - erased) / sent, 1)))
    for coins in (0.05, 0.2, 0.4):
        truth = np.maximum(sent * np.log(2), together - coins).min()
        assert truth - 1e-6 <= wire_beside_coins(letters, coins) <= truth + 0.02


def test_for_a_weak_gate_coins_are_worth_the_most():
    """Two symmetric bits with 1 - 2p = tanh(eps/2): C is about eps/2 and I about eps^2/8."""
    for epsilon in (0.02, 0.1, 0.3):
        channel = channels.randomised_response(2, epsilon)
        rate = mutual_information(channel, [0.5, 0.5])
        p = channel[0, 1]
        least = np.log(2) + h(p) - 2 * h((1 - np.sqrt(1 - 2 * p)) / 2)
        assert least == pytest.approx(epsilon / 2, rel=epsilon)
        assert rate == pytest.approx(epsilon**2 / 8, rel=epsilon)


def test_bad_questions_about_coins_are_refused():
    refused(lambda: wire_beside_coins([], 0.1), "letters")
    letters = letters_by_price([[0.9, 0.1], [0.1, 0.9]], prices=[0])
    refused(lambda: wire_beside_coins(letters, [0.1, -1]), "coins")
