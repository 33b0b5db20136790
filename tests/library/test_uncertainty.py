"""Bootstrap bands, optimism and the cost surface, against normal theory, exact laws and single
solves."""

import numpy as np
import pytest

from expertbank import (
    accuracy_rate_cost,
    curve_bootstrap,
    rate_distortion,
    rate_distortion_curve,
    routing,
    split_optimism,
)

RNG = np.random.default_rng(7)
# a population of eight kinds of inputs with four experts
KINDS, SHARES = RNG.random((8, 4)), RNG.dirichlet(np.full(8, 3.0))
LAMS = np.array([1.0, 0.3, 0.1, 0.03])


def drawn(n, rng):
    return KINDS[rng.choice(8, n, p=SHARES)]


# --- curve_bootstrap ---


def test_one_expert_has_the_interval_of_a_mean():
    losses = np.random.default_rng(0).random((400, 1))
    band = curve_bootstrap(losses, rates=[0, 1], n_resamples=2000)
    np.testing.assert_allclose(band.distortion, losses.mean())
    error = losses.std() / np.sqrt(len(losses))
    np.testing.assert_allclose(band.high - band.distortion, 1.96 * error, rtol=0.1)
    np.testing.assert_allclose(band.distortion - band.low, 1.96 * error, rtol=0.1)
    # D is the same at both rates, so that the band of all rates is that of one
    np.testing.assert_allclose(band.simultaneous_high - band.distortion, 1.96 * error, rtol=0.1)
    assert (band.information == 0).all() and (band.information_high == 0).all()


def test_band_is_that_of_the_curve():
    losses = drawn(200, np.random.default_rng(1))
    band, curve = (
        curve_bootstrap(losses, lams=LAMS, n_resamples=50),
        rate_distortion_curve(losses, LAMS),
    )
    np.testing.assert_allclose(band.information, curve.rate, atol=1e-8)
    np.testing.assert_allclose(band.distortion, curve.upper(band.rates), atol=1e-8)
    assert (band.low < band.distortion).all() and (band.distortion < band.high).all()
    assert (band.information_low <= band.information).all() and (
        band.information <= band.information_high
    ).all()
    # to hold everywhere at once takes more room than to hold at each rate
    assert ((band.simultaneous_high - band.simultaneous_low) > (band.high - band.low)).mean() > 0.9
    wider = curve_bootstrap(losses, lams=LAMS, n_resamples=50, level=0.99)
    assert (wider.high - wider.low >= band.high - band.low).all()


def test_weights_stand_for_copies():
    losses, times = drawn(30, np.random.default_rng(2)), np.random.default_rng(3).integers(1, 4, 30)
    one = curve_bootstrap(losses, lams=LAMS, weights=times, n_resamples=2)
    other = curve_bootstrap(np.repeat(losses, times, axis=0), lams=LAMS, n_resamples=2)
    np.testing.assert_allclose(one.distortion, other.distortion, atol=1e-8)
    np.testing.assert_allclose(one.information, other.information, atol=1e-7)


@pytest.mark.slow
def test_the_simultaneous_band_covers():
    truth = rate_distortion_curve(KINDS, LAMS, SHARES)
    rates = np.linspace(0, truth.rate.max(), 7)
    rng, held = np.random.default_rng(4), 0
    for _ in range(40):
        band = curve_bootstrap(drawn(800, rng), rates, LAMS, n_resamples=80, rng=rng)
        at = truth.upper(rates)
        held += bool(((band.simultaneous_low <= at) & (at <= band.simultaneous_high)).all())
    assert held >= 33  # 38 expected of 40; 33 or fewer has probability 0.003 if 95% is true


# --- split_optimism ---


def test_shares_cost_more_on_other_inputs_by_lambda_times_experts_less_one_over_n():
    """The second-order law: two sides of a half of n inputs differ by lam (k - 1) / n with k
    experts in use."""
    rng, lam, n = np.random.default_rng(5), 0.5, 1000
    losses = (rng.random((2 * n, 2)) < 0.5).astype(float)
    runs = [split_optimism(rng.permutation(losses), [lam], n_splits=200, rng=rng) for _ in range(3)]
    excess = np.concatenate([run.excess for run in runs])
    assert (excess >= -1e-9).all()
    assert excess.mean() * n / lam == pytest.approx(1, rel=0.25)


@pytest.mark.slow
def test_the_truth_lies_between_the_two_sides():
    truth = rate_distortion_curve(KINDS, LAMS, SHARES)
    value = truth.distortion + LAMS * truth.rate
    rng = np.random.default_rng(6)
    runs = [split_optimism(drawn(80, rng), LAMS, n_splits=10, rng=rng) for _ in range(150)]
    fitted, held_out = (
        np.array([getattr(run, name) for run in runs]) for name in ("fitted", "held_out")
    )
    excess = np.array([run.excess for run in runs])
    assert (excess >= -1e-9).all()
    error = fitted.std(axis=0) / np.sqrt(len(runs))
    assert (fitted.mean(axis=0) < value + 2 * error).all()
    assert (held_out.mean(axis=0) > value - 2 * error).all()
    gap = held_out.mean(axis=0) - fitted.mean(axis=0)
    np.testing.assert_allclose(gap, excess.mean(axis=(0, 1)), atol=4 * error.max())


def test_nothing_to_choose_is_nothing_to_overfit():
    losses = np.random.default_rng(8).random((20, 1))
    found = split_optimism(losses, LAMS, n_splits=5)
    np.testing.assert_allclose(found.excess, 0, atol=1e-12)


# --- accuracy_rate_cost ---


def test_surface_is_made_of_single_solves():
    losses, cost, exchange = (
        drawn(60, np.random.default_rng(9)),
        np.array([5.0, 1.0, 2.0, 0.0]),
        [0, 0.02, 0.1],
    )
    surface = accuracy_rate_cost(losses, cost, exchange, LAMS)
    assert surface.loss.shape == surface.rate.shape == surface.cost.shape == (3, 4)
    assert surface.certificate.max() <= 1e-9
    for m, price in enumerate(exchange):
        for k, lam in enumerate(LAMS):
            gate = routing(losses, rate_distortion(losses + price * cost, lam), cost=price * cost)
            assert surface.loss[m, k] == pytest.approx((gate * losses).sum(axis=1).mean(), abs=1e-4)
            assert surface.cost[m, k] == pytest.approx(gate.mean(axis=0) @ cost, abs=1e-3)
            best = rate_distortion(losses + price * cost, lam)
            value = surface.loss[m, k] + price * surface.cost[m, k] + lam * surface.rate[m, k]
            assert value == pytest.approx(best.distortion + lam * best.rate, abs=2e-9)
    # what costs more is bought less
    assert (np.diff(surface.cost, axis=0) <= 1e-6).all()


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: curve_bootstrap(KINDS, n_resamples=1),
            "n_resamples is 1; allowed is an integer of at least 2",
        ),
        (lambda: curve_bootstrap(KINDS, level=1), "level is 1"),
        (lambda: curve_bootstrap(KINDS, rates=[-1]), "rate is -1"),
        (lambda: curve_bootstrap(KINDS, weights=[1]), "weights has shape"),
        (lambda: split_optimism(KINDS[:1]), "at least two inputs"),
        (lambda: split_optimism(KINDS, [0.0]), "lams is 0; allowed is positive numbers"),
        (lambda: split_optimism(KINDS, n_splits=0), "n_splits is 0"),
        (
            lambda: accuracy_rate_cost(KINDS, [1, 2], [0], LAMS),
            r"cost has shape \(2,\); allowed is \(4,\)",
        ),
        (lambda: accuracy_rate_cost(KINDS, np.ones(4), [-1], LAMS), "exchange_rates is -1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
