"""Shares learnt online: the universal portfolio against enumeration, and its guarantees."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import gammaln, logsumexp

from expertbank import load_bank, rate_distortion, routing
from expertbank.gates import judge_gate
from expertbank.portfolio import mixture_gain, shares_loss, universal_regret, universal_shares
from support import refused

CASES = [(1, 2), (3, 3), (5, 2), (4, 4), (6, 3)]


def table(n, n_experts, seed=0):
    return 2 * np.random.default_rng([n, n_experts, seed]).random((n, n_experts))


def log_urn(counts, n_experts):
    """log E prod q_t^counts under Dirichlet(1/2)."""
    counts = np.asarray(counts)
    both = gammaln(n_experts / 2) - gammaln(counts.sum() + n_experts / 2)
    return both + (gammaln(counts + 0.5) - gammaln(0.5)).sum()


@pytest.mark.parametrize(("n", "n_experts"), CASES)
def test_the_mixture_gains_what_all_sequences_of_experts_gain(n, n_experts):
    losses = table(n, n_experts)
    terms = []
    for sequence in product(range(n_experts), repeat=n):
        counts = np.bincount(sequence, minlength=n_experts)
        paid = losses[np.arange(n), sequence].sum()
        terms.append(log_urn(counts, n_experts) - paid / 0.7)
    assert mixture_gain(losses, 0.7) == pytest.approx(logsumexp(terms), abs=1e-10)


def test_two_experts_by_quadrature():
    losses = table(7, 2)
    angle = (np.arange(200_000) + 0.5) / 200_000 * np.pi / 2  # q = sin^2 is Dirichlet(1/2)
    q = np.sin(angle) ** 2
    gain = np.ones_like(q)
    for row in np.exp(-losses):
        gain *= q * row[0] + (1 - q) * row[1]
    assert mixture_gain(losses, 1.0) == pytest.approx(np.log(gain.mean()), abs=1e-8)


@pytest.mark.parametrize(("n", "n_experts"), [(1, 2), (6, 2), (5, 3), (8, 3), (4, 4)])
def test_the_regret_is_the_largest_over_all_counts(n, n_experts):
    worst = 0.0
    for counts in product(range(n + 1), repeat=n_experts):
        if sum(counts) == n:
            shares = np.array(counts) / n
            best = sum(c * np.log(s) for c, s in zip(counts, shares) if c)
            worst = max(worst, best - log_urn(counts, n_experts))
    assert universal_regret(n, n_experts) == pytest.approx(worst, abs=1e-10)
    assert worst <= (n_experts - 1) / 2 * np.log(n + 1) + np.log(2) + 1e-12


def test_the_closed_form_of_cover_and_ordentlich_is_never_smaller():
    for n_experts in (2, 5, 25, 100):
        for n in (1, 10, 1000, 10**6):
            closed = (n_experts - 1) / 2 * np.log(n + 1) + np.log(2)
            assert universal_regret(n, n_experts) <= closed + 1e-9


@pytest.mark.parametrize(("n", "n_experts"), CASES)
@pytest.mark.parametrize("lam", [0.1, 1.0])
def test_the_mixture_stays_within_its_regret_of_the_best(n, n_experts, lam):
    losses = table(n, n_experts)
    point = rate_distortion(losses, lam)
    best = -n * (point.distortion + lam * point.rate) / lam
    gain = mixture_gain(losses, lam)
    assert best - universal_regret(n, n_experts) - 1e-9 <= gain <= best + 1e-9


def test_the_worst_case_is_reached():
    """One expert is right always, and all others lose without end: the regret to all digits."""
    losses = np.full((6, 3), 400.0)
    losses[:, 0] = 0
    assert mixture_gain(losses, 1.0) == pytest.approx(-universal_regret(6, 3), abs=1e-9)


def test_the_least_loss_of_shares_is_the_least_lagrangian():
    losses = table(12, 3)
    point = rate_distortion(losses, 0.4)

    def loss(z):
        return shares_loss(losses, 0.4, np.exp(z) / np.exp(z).sum())

    other = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"fatol": 1e-12}).fun
    assert point.distortion + 0.4 * point.rate == pytest.approx(other, abs=1e-7)
    shares = np.array([0.2, 0.5, 0.3])
    gate = shares * np.exp(-losses / 0.4)
    gate /= gate.sum(axis=1, keepdims=True)
    judged = judge_gate(gate, losses)
    divergence = (judged.load * np.log(judged.load / shares)).sum()
    total = judged.loss + 0.4 * (judged.rate + divergence)
    assert shares_loss(losses, 0.4, shares) == pytest.approx(total, abs=1e-10)


def test_many_draws_gain_what_the_mixture_gains():
    losses = table(8, 3)
    truth = -0.5 * mixture_gain(losses, 0.5) / 8
    paid = [universal_shares(losses, 0.5, n_particles=4000, rng=seed).paid for seed in range(4)]
    assert np.mean(paid) == pytest.approx(truth, abs=5e-3)
    exact = [mixture_gain(losses[:n], 0.5) for n in (7, 8)]
    last = np.log(universal_shares(losses[:7], 0.5, 4000).last @ np.exp(-losses[7] / 0.5))
    assert last == pytest.approx(exact[1] - exact[0], abs=0.02)


@pytest.mark.parametrize("n_particles", [2, 8, 64])
def test_the_statement_by_all_samples(n_particles):
    """Every sample of three inputs of a population of three: L, the average and what was paid."""
    losses = table(3, 2, seed=5)
    lam = 0.5
    point = rate_distortion(losses, lam)
    least = point.distortion + lam * point.rate
    average = []
    paid = []
    for sample in product(range(3), repeat=3):
        found = universal_shares(losses[list(sample)], lam, n_particles, rng=0)
        average.append(shares_loss(losses, lam, found.average))
        paid.append(found.paid)
    assert least <= np.mean(average) + 1e-12
    assert np.mean(average) <= np.mean(paid) + 1e-12


def test_on_the_bank_the_measured_regret_is_far_below_the_guarantee():
    pool = load_bank("mnist").losses("train").astype(float)
    lam = 0.1
    n = 500
    regrets = []
    for seed in range(4):
        sample = pool[np.random.default_rng(seed).integers(len(pool), size=n)]
        point = rate_distortion(sample, lam)
        found = universal_shares(sample, lam, rng=seed)
        regrets.append(n * (found.paid - point.distortion - lam * point.rate) / lam)
        gate = found.average * np.exp(-sample / lam)
        gate /= gate.sum(axis=1, keepdims=True)
        judged = judge_gate(gate, sample)
        assert judged.loss + lam * judged.rate <= shares_loss(sample, lam, found.average) + 1e-9
    assert min(regrets) > 0
    assert max(regrets) < universal_regret(n, 25) / 2


def test_shares_are_laws_and_a_seed_fixes_them():
    losses = (np.random.default_rng(0).random((300, 4)) < [0.1, 0.3, 0.3, 0.5]).astype(float)
    found = universal_shares(losses, 0.2, rng=3)
    for shares in (found.average, found.last):
        assert shares.min() >= 0 and shares.sum() == pytest.approx(1)
    again = universal_shares(losses, 0.2, rng=3)
    assert again.paid == found.paid and (again.last == found.last).all()
    # numbers added to all experts of an input are paid, and change no shares
    moved = universal_shares(losses + 7.0, 0.2, rng=3)
    assert moved.paid == pytest.approx(found.paid + 7)


def test_a_sample_on_which_experts_agree_teaches_nothing():
    found = universal_shares(np.zeros((5, 3)), 1.0)
    assert found.paid == 0
    assert routing(np.zeros((5, 3)), rate_distortion(np.zeros((5, 3)), 1.0)).sum() == 5


def test_bad_questions_are_refused():
    losses = [[0, 1], [1, 0]]
    refused(lambda: universal_shares(losses, 0), "lam")
    refused(lambda: universal_shares(losses, 1.0, 1), "n_particles")
    refused(lambda: shares_loss(losses, 1.0, [0.5, 0.3, 0.2]), "shares")
    refused(lambda: shares_loss(losses, 1.0, [0.5, 0.3]), "shares")
    refused(lambda: mixture_gain(np.zeros((200, 25)), 1.0), "counts of experts")
    refused(lambda: universal_regret(0, 3), "n_inputs")
