"""The Gaussian theory of selection against closed forms, quadrature and full enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from expertbank import gaussian_selection
from expertbank.information import entropy
from expertbank.learners import alpha_mixture, enumerate_datasets, simulate
from expertbank.selection_theory import MARGINS
from expertbank.shipped.bank import load_family


def exact(losses, m, alpha=1.0):
    """P(W), I(S;W) and gap over all datasets."""
    chances, risks = enumerate_datasets(losses, m)
    posteriors = alpha_mixture(risks, alpha)
    law = chances @ posteriors
    gap = chances @ (posteriors * (losses.mean(axis=0) - risks)).sum(axis=1)
    return law, entropy(law) - chances @ entropy(posteriors), gap


@pytest.mark.parametrize("m", [1, 30, 1000])
def test_two_experts_have_a_closed_form(m):
    """q_0 = Phi(sqrt(m) (mu_1 - mu_0) / s), gap = s phi(.) / sqrt(m), s the deviation of l_0 -
    l_1."""
    losses = np.random.default_rng(3).normal([0.3, 0.32], 0.4, (200, 2))
    difference = losses[:, 0] - losses[:, 1]
    s = difference.std()
    z = -np.sqrt(m) * difference.mean() / s
    found = gaussian_selection(losses, m)
    assert found.chances[0] == pytest.approx(stats.norm.cdf(z), abs=6e-4)
    expected = s * stats.norm.pdf(z) / np.sqrt(m)
    assert found.gap == pytest.approx(expected, abs=5 * found.gap_error + 1e-3 * expected)


def test_five_independent_equals():
    """The gap is that of the least of five normals; every expert wins a fifth."""
    bits = np.array(np.meshgrid(*[[0, 1]] * 5)).reshape(5, -1).T
    density = lambda x: 5 * x * stats.norm.pdf(x) * stats.norm.sf(x) ** 4  # noqa: E731
    least, _ = integrate.quad(density, -10, 10)
    found = gaussian_selection(bits, 64)
    assert found.gap == pytest.approx(-least * 0.5 / 8, abs=5 * found.gap_error + 1e-5)
    assert found.information == pytest.approx(np.log(5), abs=1e-4)
    assert found.chances == pytest.approx(np.full(5, 0.2), abs=2e-3)


def test_three_correlated_equals_by_the_orthant_formula():
    """q_t = 1/4 + asin(rho) / (2 pi), rho the correlation of the two differences."""
    losses = np.random.default_rng(5).normal(size=(50, 3)) @ np.array(
        [[1, 0.3, 0], [0, 2, 0], [0, 0.5, 0.4]]
    )
    losses -= losses.mean(axis=0)
    found = gaussian_selection(losses, 10)
    for t in range(3):
        others = [s for s in range(3) if s != t]
        rho = np.corrcoef((losses[:, [t]] - losses[:, others]).T)[0, 1]
        assert found.chances[t] == pytest.approx(0.25 + np.arcsin(rho) / 2 / np.pi, abs=1e-3)


def test_six_experts_against_another_integrator():
    """Genz's method in SciPy, for chances of experts that differ in mean."""
    losses = np.random.default_rng(8).random((80, 6)) + np.linspace(0, 0.1, 6)
    m = 40
    found = gaussian_selection(losses, m)
    for t in range(6):
        differences = losses[:, [t]] - np.delete(losses, t, axis=1)
        law = stats.multivariate_normal(differences.mean(axis=0), np.cov(differences.T, ddof=0) / m)
        assert found.chances[t] == pytest.approx(law.cdf(np.zeros(5)), abs=2e-3)


TABLES = [(np.random.default_rng(seed).random((4, 3)) < 0.5).astype(int) for seed in range(12)]
TABLES = [table for table in TABLES if len(np.unique(table, axis=1).T) > 1][:12]


def test_the_error_falls_as_the_theorem_says():
    """Twelve tables, all datasets of m = 4, 16 and 64: total variation of the winner's law, and the
    gap on its own scale. The rate is 1/sqrt(m): four times the sample halves the error."""
    errors = []
    for m in (4, 16, 64):
        off = []
        for table in TABLES:
            law, _, gap = exact(table, m)
            found = gaussian_selection(table, m, n_points=2**11)
            tv = np.abs(found.chances - law).sum() / 2
            off.append((tv, np.sqrt(m) * abs(found.gap - gap)))
        errors.append(np.mean(off, axis=0))
    errors = np.array(errors)
    assert (errors[1:] < 0.65 * errors[:-1]).all(), errors
    assert errors[2, 0] < 0.06


def test_at_finite_m_the_gaussian_is_wrong_where_ties_are_frequent():
    """Not a bound and not exact: two experts that seldom differ, where most samples are tied. The
    Gaussian splits them in halves, the learner takes the first, as binomial counts do."""
    table = np.zeros((40, 2), int)
    table[0, 0] = table[1, 1] = 1
    law, _, _ = exact(np.array([[1, 0], [0, 1], [0, 0]]), 2)
    assert law[0] > 0.6
    found = gaussian_selection(table, 4)
    simulated = simulate(table, 1.0, 4, 20_000)
    assert found.information == pytest.approx(np.log(2), abs=1e-3)
    assert simulated.information < 0.4
    counted = gaussian_selection(table, 4, margins="binomial")
    assert counted.information == pytest.approx(simulated.information, abs=0.02)


def test_of_the_two_steps_rounding_brings_the_ties():
    """Twelve tables, all datasets of m = 8. Rounded and binomial margins give ties to the first, as
    the learner does, and come nearer to its law than what is smooth; a rounded risk is a whole
    number of mistakes, so that expert 0 wins every tie of two."""
    off = {margins: [] for margins in MARGINS}
    for table in TABLES:
        law, _, _ = exact(table, 8)
        for margins in MARGINS:
            found = gaussian_selection(table, 8, margins=margins, n_points=2**11)
            off[margins].append(np.abs(found.chances - law).sum() / 2)
    means = {margins: np.mean(values) for margins, values in off.items()}
    assert means["rounded"] < 0.8 * means["normal"], means
    assert means["binomial"] < 0.8 * means["smoothed"], means
    coins = [[0, 0], [0, 1], [1, 0], [1, 1]]
    tied = sum(stats.binom.pmf(np.arange(9), 8, 0.5) ** 2)
    for margins in ("rounded", "binomial"):
        found = gaussian_selection(coins, 8, margins=margins)
        assert found.chances[0] == pytest.approx((1 + tied) / 2, abs=0.005)
    smooth = gaussian_selection(coins, 8, margins="smoothed")
    assert smooth.chances[0] == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_mixtures_follow_from_the_minimiser(alpha):
    table = TABLES[1]
    one = gaussian_selection(table, 32)
    mixed = gaussian_selection(table, 32, alpha)
    assert mixed.gap == pytest.approx(alpha * one.gap)
    law = (1 - alpha) / 3 + alpha * one.chances
    single = (1 - alpha) / 3 + alpha * np.eye(3)[0]
    assert mixed.information == pytest.approx(entropy(law) - entropy(single), abs=1e-12)
    assert mixed.information_error >= 0


def test_of_copies_the_first_wins():
    table = TABLES[1][:, [0, 1, 1, 2, 0]]
    found = gaussian_selection(table, 8)
    assert found.chances[2] == found.chances[4] == 0
    same = gaussian_selection(np.ones((5, 3)), 8)
    assert same.chances.tolist() == [1, 0, 0] and same.information == same.gap == 0
    always = gaussian_selection([[0, 1], [1, 1]], 8, margins="binomial")
    assert always.chances[0] == 1


def test_the_stated_error_covers_more_points():
    losses = np.random.default_rng(0).random((60, 8)) < 0.3
    rough = gaussian_selection(losses, 50, n_points=2**8)
    fine = gaussian_selection(losses, 50, n_points=2**14)
    assert abs(rough.gap - fine.gap) <= 5 * rough.gap_error
    assert fine.gap_error < rough.gap_error / 4
    repeated = gaussian_selection(losses, 50, n_points=2**8)
    assert repeated.gap == rough.gap  # nothing is drawn


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 7, 19])
def test_on_shipped_banks(number):
    """Gaussian: I within 7%, G up to 9% high; binomial margins are within 1.5% of both."""
    losses = load_family("replicate")[number].losses("train")
    run = simulate(losses, 1.0, 256, 20_000)
    plain = gaussian_selection(losses, 256)
    counted = gaussian_selection(losses, 256, margins="binomial")
    assert 0.95 < plain.information / run.information < 1.08
    assert 1 < plain.gap / run.expected_gap < 1.1
    assert counted.information == pytest.approx(run.information, rel=0.015)
    assert counted.gap == pytest.approx(run.expected_gap, rel=0.03)  # simulated to 1%


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: gaussian_selection([[0.5, 1]], margins="binomial"), "0 and 1"),
        (lambda: gaussian_selection([[0, 1]], margins="poisson"), "margins"),
        (lambda: gaussian_selection([[0, 1]], n_points=100), "power of 2"),
        (lambda: gaussian_selection([[0, 1]], alpha=2), "alpha"),
        (lambda: gaussian_selection([[0, 1]], sample_size=0), "sample_size"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
