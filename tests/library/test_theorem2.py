"""P1's Theorem 2 with measured terms: against every dataset enumerated, closed forms, and on the
shipped gates."""

from __future__ import annotations

from functools import partial
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expertbank import (
    algorithmic_information,
    alpha_mixture,
    critical_lambda,
    gating_rate,
    gibbs_posterior,
    kl_divergence,
    load_bank,
    rate_distortion_curve,
    routing,
    theorem2_bound,
)
from expertbank.rate_distortion import rate_distortion
from expertbank.shipped.gates import STEPS, gate_family, load_gates
from expertbank.theorem1 import enumerate_selection
from expertbank.theorem2 import theorem2_terms

ALPHAS = np.array([0, 0.25, 0.5, 0.75, 1])


def small(seed, n_inputs=5, n_experts=3, n_gates=4, sharpness=3.0):
    """Losses of a tiny bank, and losses and rates of some gates on it."""
    rng = np.random.default_rng(seed)
    losses = rng.random((n_inputs, n_experts)).round(2)
    gates = np.exp(sharpness * rng.standard_normal((n_gates, n_inputs, n_experts)))
    gates /= gates.sum(axis=2, keepdims=True)
    return losses, (gates * losses).sum(axis=2).T, np.array([gating_rate(gate) for gate in gates])


@given(
    st.integers(0, 10_000), st.integers(1, 4), st.floats(0, 1), st.booleans(), st.floats(0.1, 20)
)
@settings(max_examples=40)
def test_theorem_2_on_every_dataset(seed, m, alpha, gibbs, sharpness):
    losses, gate_losses, rates = small(seed, sharpness=sharpness)
    curve = rate_distortion_curve(losses, band=1e-3)
    learner = (
        partial(gibbs_posterior, inverse_temperature=50 * alpha)
        if gibbs
        else partial(alpha_mixture, alpha=alpha)
    )
    run = enumerate_selection(gate_losses, m, learner)
    assert (gate_losses.mean(axis=0) >= curve.lower(rates) - 1e-12).all()
    law = run.joint.sum(axis=0)
    best, train, population = (
        law @ curve.lower(rates),
        (run.joint * run.risks).sum(),
        law @ run.population_risks,
    )
    right = theorem2_bound(best, run.information, m, max(0, train - best))
    assert population <= right + 1e-8  # I of a tiny alpha is rounded to 0
    # D cancels
    assert right == pytest.approx(max(train, best) + np.sqrt(run.information / (2 * m)), abs=1e-9)


@pytest.mark.parametrize(
    "learner, values", [(alpha_mixture, ALPHAS), (gibbs_posterior, [0, 2, 10, 50])]
)
def test_sampled_terms_agree_with_every_dataset(learner, values):
    losses, gate_losses, rates = small(3)
    curve = rate_distortion_curve(losses, band=1e-7)
    terms = theorem2_terms(
        gate_losses, rates, curve, values, 3, n_datasets=20_000, rng=1, learner=learner
    )
    for i, value in enumerate(values):
        run = enumerate_selection(gate_losses, 3, lambda risks, value=value: learner(risks, value))
        law = run.joint.sum(axis=0)
        low, high = terms.information_interval[i]
        # four errors
        assert low - (high - low) / 2 - 1e-9 <= run.information <= high + (high - low) / 2 + 1e-9
        assert abs(terms.gap[i] - run.gap) <= 4 * terms.gap_error[i] + 1e-12
        assert terms.marginal[i] == pytest.approx(law, abs=0.015)
        assert terms.population_risk[i] == pytest.approx(law @ run.population_risks, abs=0.01)
        assert terms.rate[i] == pytest.approx(law @ rates, abs=0.02)
        assert terms.distortion[i] == pytest.approx(law @ curve.lower(rates), abs=0.01)


def test_terms_add_up():
    losses, gate_losses, rates = small(7, n_gates=12)
    terms = theorem2_terms(gate_losses, rates, rate_distortion_curve(losses, band=1e-7), ALPHAS, 8)
    assert terms.distortion + terms.excess + terms.gap == pytest.approx(
        terms.population_risk, abs=1e-12
    )
    for sigma in (0.5, 1):
        root = sigma * np.sqrt(2 * terms.information / 8)
        assert terms.bound(sigma) == pytest.approx(
            np.maximum(terms.train_risk, terms.distortion) + root
        )
    assert (terms.distortion_at_mean <= terms.distortion + 1e-7).all()  # Jensen
    assert terms.distortion_at_mean[2] < terms.distortion[2] - 1e-4  # and not by equality


def test_along_alpha_both_sides_are_forced():
    """The gap is a straight line through 0, the information convex from 0: they rise together for
    any family."""
    losses, gate_losses, rates = small(11, n_gates=9)
    alphas = np.linspace(0, 1, 21)
    terms = theorem2_terms(gate_losses, rates, rate_distortion_curve(losses), alphas, 6)
    assert terms.gap[0] == pytest.approx(0, abs=1e-15) and terms.information[0] == pytest.approx(
        0, abs=1e-12
    )
    assert terms.gap == pytest.approx(alphas * terms.gap[-1], abs=1e-12)
    assert (np.diff(terms.information) > 0).all() and (np.diff(terms.information, 2) > -1e-9).all()


@pytest.mark.parametrize("beta", [0.5, 4, 30])
def test_along_beta_the_gap_is_symmetrised_information(beta):
    """Aminian et al. 2021: beta G = I(S;W) + the divergence the other way round, for the Gibbs
    posterior."""
    _, gate_losses, _ = small(5, n_gates=6)
    run = enumerate_selection(gate_losses, 4, partial(gibbs_posterior, inverse_temperature=beta))
    lautum = kl_divergence(run.product.ravel(), run.joint.ravel())
    assert beta * run.gap == pytest.approx(run.information + lautum, rel=1e-9)


def test_gates_on_the_frontier_leave_minus_the_gap():
    losses = (np.random.default_rng(2).random((400, 6)) < 0.3).astype(float)
    curve = rate_distortion_curve(losses, band=1e-7)
    points = [
        rate_distortion(losses, lam)
        for lam in critical_lambda(losses) * np.array([0.8, 0.9, 0.95, 1])
    ]
    gate_losses = np.stack(
        [(routing(losses, point) * losses).sum(axis=1) for point in points], axis=1
    )
    terms = theorem2_terms(gate_losses, np.array([p.rate for p in points]), curve, ALPHAS, 32)
    assert terms.excess == pytest.approx(-terms.gap, abs=1e-6)
    assert (terms.excess[1:] < -1e-5).all()  # (8) holds with delta_m = 0, and with room
    assert terms.bound() == pytest.approx(
        terms.distortion + np.sqrt(terms.information / 64), abs=1e-6
    )


def test_rivals_that_err_on_different_inputs_leave_less_than_nothing_and_copies_nothing():
    """Two experts, each right on half of the inputs: E |k - m/2| of a fair binomial in closed
    form."""
    m = 64
    rivals = np.tile([[0.0, 1.0], [1.0, 0.0]], (50, 1))
    curve = rate_distortion_curve(rivals, band=1e-6)
    terms = theorem2_terms(rivals, [0, 0], curve, 1, m, 20_000, rng=3)
    gap = comb(m, m // 2) / 2 ** (m + 1)
    assert terms.excess[0] == pytest.approx(-gap, abs=4 * terms.gap_error[0] + 2e-6)
    copies = theorem2_terms(rivals[:, [0, 0]], [0, 0], curve, 1, m, 200, rng=3)
    assert copies.gap[0] == 0 and copies.excess[0] == pytest.approx(0, abs=1e-5)


def test_errors_are_those_of_repetitions():
    losses, gate_losses, rates = small(13, n_gates=8)
    curve = rate_distortion_curve(losses)
    runs = [theorem2_terms(gate_losses, rates, curve, [0.3, 1], 16, 400, rng) for rng in range(60)]
    for i in range(2):
        spread = np.std([run.gap[i] for run in runs], ddof=1)
        assert np.mean([run.gap_error[i] for run in runs]) == pytest.approx(spread, rel=0.3)
        information = np.array([run.information[i] for run in runs])
        inside = [run.information_interval[i] for run in runs]
        covered = [low <= information.mean() <= high for low, high in inside]
        assert np.mean(covered) > 0.85


def test_a_mass_that_vanishes_in_the_mean_carries_nothing():
    """A cold Gibbs posterior gives a gate the smallest float there is; its mean over datasets is
    rounded to 0."""
    found = algorithmic_information([[1.0, 5e-324], [1.0, 0.0]])
    assert found.information == 0 and np.isfinite(found.interval).all()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(gate_losses=[[0.5, 1.5]]), "gate_losses is 1.5"),
        (dict(gate_losses=[0.5, 0.5]), "gate_losses has shape"),
        (dict(rates=[0.1]), "rates has shape"),
        (dict(rates=[0.1, -0.1]), "rates is -0.1"),
        (dict(alpha=1.5), "alpha is 1.5"),
        (dict(sample_size=0), "sample_size is 0"),
        (dict(n_datasets=1), "n_datasets is 1"),
    ],
)
def test_bad_input_is_named(change, message):
    losses = np.array([[0.0, 1.0], [1.0, 0.0]])
    given = dict(
        gate_losses=losses,
        rates=[0.0, 0.0],
        curve=rate_distortion_curve(losses),
        alpha=0.5,
        sample_size=4,
    )
    with pytest.raises(ValueError, match=message):
        theorem2_terms(**(given | change))


# --- the shipped gates ---


@pytest.fixture(scope="module")
def sweep():
    return load_gates()


@pytest.mark.parametrize("name", ["mnist", "specialists"])
def test_families_are_the_gates_of_the_table(sweep, name):
    bank = load_bank(name)
    for decision in ("soft", "hard"):
        losses, rates = gate_family(sweep, bank, decision)
        rows = sweep.columns(bank=name, split="test", decision=decision)
        seeing_only_x = rows["family"] != "oracle"
        assert losses.shape == (len(bank.losses("test")), 90) and seeing_only_x.sum() == 90
        assert rates == pytest.approx(rows["rate"][seeing_only_x], abs=1e-6)
        assert losses.mean(axis=0) == pytest.approx(
            rows["loss"][seeing_only_x], abs=0.5 / STEPS if decision == "soft" else 1e-6
        )
    with pytest.raises(ValueError, match="decision is 'firm'"):
        gate_family(sweep, bank, "firm")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "specialists"])
@pytest.mark.parametrize("decision", ["soft", "hard"])
def test_theorem_2_holds_on_the_shipped_gates(sweep, name, decision):
    bank = load_bank(name)
    losses, rates = gate_family(sweep, bank, decision)
    curve = rate_distortion_curve(bank.losses("test"), band=1e-5)
    # rounding apart, none beats it
    assert (losses.mean(axis=0) >= curve.lower(rates) - 0.5 / STEPS).all()
    for m in (32, 512):
        terms = theorem2_terms(losses, rates, curve, ALPHAS, m, n_datasets=500)
        assert (terms.bound() >= terms.population_risk - 3 * terms.gap_error).all()
        assert (np.sqrt(terms.information / (2 * m)) >= terms.gap - 3 * terms.gap_error).all()
        assert (terms.gap[1:] > 3 * terms.gap_error[1:]).all()
