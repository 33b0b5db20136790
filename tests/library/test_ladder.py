"""Every rung of the ladder against exhaustive enumeration: all datasets, all supersamples and all
halves of them.

The quantities are computed here from joint laws as sums of entropies, not with the library's own
formulas.
"""

from __future__ import annotations

from itertools import product

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from expertbank import bounds
from expertbank.ladder import LadderExperiment, bound_ladder
from expertbank.shipped.bank import load_family

ONE_POINT = (
    "individual_sample_bound",
    "disintegrated_bound",
    "loss_difference_bound",
    "total_variation_bound",
    "disintegrated_kl_bound",
)
SETTINGS = [(n, r, m) for m, n in ((2, 3), (2, 4), (3, 3), (4, 3)) for r in (2, 3)]


def tables():
    """Small random 0-1 tables (N, R) with a sample size and an alpha; some rows repeat, which gives
    them weight."""
    rng = np.random.default_rng(11)
    found = []
    for turn, (n_rows, n_experts, m) in enumerate(SETTINGS * 2):
        losses = (rng.random((n_rows, n_experts)) < rng.uniform(0.2, 0.8)).astype(int)
        if turn % 2:
            losses[-1] = losses[0]
        found.append((losses, m, (0.25, 0.7, 1.0)[turn % 3]))
    # an expert that is always wrong, one that never is, two that cannot be told apart, all wrong on
    # every row
    found += [
        (np.array([[1, 0], [1, 1], [1, 0]]), 3, 1.0),
        (np.array([[0, 1, 0], [0, 0, 1], [0, 1, 1]]), 2, 0.7),
    ]
    return [
        *found,
        (np.array([[0, 1, 0], [1, 0, 1], [0, 0, 0]]), 3, 1.0),
        (np.ones((3, 3), int), 2, 0.7),
    ]


def posterior(mistakes, alpha):
    """q(r|S) of (11) of P2, written again: the first minimum gets alpha, and everybody a share of
    the rest."""
    q = np.full(mistakes.shape, (1 - alpha) / mistakes.shape[1])
    q[np.arange(len(q)), mistakes.argmin(axis=1)] += alpha
    return q


def shannon(p):
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def information(joint):
    """I between the rows and the columns of a joint law."""
    return max(0.0, shannon(joint.sum(axis=0)) + shannon(joint.sum(axis=1)) - shannon(joint))


def sample_law(losses, m, alpha):
    """All ordered datasets: the gap, I(S;W), the law of W, its law given the first sample point, E
    R_S(W)."""
    chosen = np.array(list(product(range(len(losses)), repeat=m)))
    joint = posterior(losses[chosen].sum(axis=1), alpha) / len(chosen)
    given_first = np.array([joint[chosen[:, 0] == u].sum(axis=0) for u in range(len(losses))])
    train = float((joint * losses[chosen].mean(axis=1)).sum())
    gap = float(joint.sum(axis=0) @ losses.mean(axis=0)) - train
    return gap, information(joint), joint.sum(axis=0), given_first, train


def supersample_law(losses, m, alpha):
    """All supersamples and all halves: I(W;U|Z), I(losses of W;U|Z) and I(D;U) of the first pair, D
    in {-1, 0, 1}."""
    halves = np.array(list(product((0, 1), repeat=m)))
    conditional = evaluated = 0.0
    difference = np.zeros((2, 3))
    supersamples = list(product(range(len(losses)), repeat=2 * m))
    for points in supersamples:
        both = losses[list(points)].reshape(2, m, -1)
        joint = posterior(np.where(halves[:, :, None], both[1], both[0]).sum(axis=1), alpha) / len(
            halves
        )
        patterns = [both[:, :, r].tobytes() for r in range(losses.shape[1])]
        merged = np.array(
            [joint[:, [q == p for q in patterns]].sum(axis=1) for p in dict.fromkeys(patterns)]
        ).T
        conditional += information(joint) / len(supersamples)
        evaluated += information(merged) / len(supersamples)
        np.add.at(difference, (halves[:, :1], both[1, 0] - both[0, 0] + 1), joint)
    return conditional, evaluated, information(difference / difference.sum())


def enumerated_ladder(losses, m, alpha):
    """The gap and every bound from the joint laws alone, with grids where the library solves an
    equation."""
    gap, mutual, marginal, joint, train = sample_law(losses, m, alpha)
    conditional, evaluated, difference = supersample_law(losses, m, alpha)
    rows = joint * len(losses)
    divergences = np.maximum([stats.entropy(row, marginal) for row in rows], 0)
    return gap, {
        "union_bound": np.sqrt(np.log(losses.shape[1]) / 2 / m),
        "xu_raginsky_bound_sigma_1": np.sqrt(2 * mutual / m),
        "xu_raginsky_bound": np.sqrt(mutual / 2 / m),
        "kearns_saul_bound": brute_proxy(mutual / m, losses.mean(axis=0), marginal, (-1, 1)),
        "okamoto_bound": brute_proxy(mutual / m, losses.mean(axis=0), marginal, (1,)),
        "cumulant_bound": brute_cumulant(mutual / m, losses.mean(axis=0), marginal),
        "pac_bayes_kl_bound": brute_kl(train, mutual / m) - train,
        "individual_sample_bound": np.sqrt(information(joint) / 2),
        "disintegrated_bound": np.mean(np.sqrt(divergences / 2)),
        "loss_difference_bound": np.sqrt(2 * difference),
        "total_variation_bound": np.mean([abs(row - marginal).sum() / 2 for row in rows]),
        "disintegrated_kl_bound": np.mean(
            [brute_fall(a, k) for a, k in zip(losses @ marginal, divergences)]
        ),
        "conditional_mi_bound": np.sqrt(2 * conditional / m),
        "evaluated_cmi_bound": np.sqrt(2 * evaluated / m),
    }


def bernoulli_cumulants(s, risks):
    """log E exp(s (p - Bernoulli(p))) for s of shape (K, 1) and risks p (R,)."""
    right = np.log(1 - risks, where=risks < 1, out=np.full(len(risks), -np.inf))
    wrong = np.log(risks, where=risks > 0, out=np.full(len(risks), -np.inf))
    return np.logaddexp(right, wrong - s) + s * risks


def brute_cumulant(rate, risks, marginal):
    s = np.geomspace(1e-4, 1e6, 8001)[:, None]
    psi = bernoulli_cumulants(s, risks)
    return 0.0 if rate < 1e-14 else float(((rate + psi @ marginal) / s[:, 0]).min())


def brute_proxy(rate, risks, marginal, signs):
    """sqrt(2 E[v_W] rate), v_p the largest 2 psi_p(s) / s^2 of a grid on the given sides of 0."""
    grid = np.geomspace(1e-3, 60, 4001)[:, None]
    ratios = [2 * bernoulli_cumulants(sign * grid, risks) / grid**2 for sign in signs]
    proxies = np.concatenate(ratios).max(axis=0)
    return float(np.sqrt(2 * (proxies @ marginal) * rate))


def brute_kl(q, budget, n=20_001):
    """The largest p of a grid from q to 1 with q log(q/p) + (1-q) log((1-q)/(1-p)) <= budget."""
    if q > 1 - 1e-12:
        return 1.0
    p = np.linspace(max(q, 1e-15), 1, n)[:-1]
    kl = (q * np.log(q / p) if q > 1e-15 else 0) + (1 - q) * np.log((1 - q) / (1 - p))
    return float(p[kl <= budget + 1e-14].max())


def brute_fall(a, budget, n=20_001):
    """How far a mean can fall below a: b from a grid with b log(b/a) + (1-b) log((1-b)/(1-a)) <=
    budget."""
    if budget < 1e-14 or not 1e-12 < a < 1 - 1e-12:
        return 0.0
    b = np.linspace(0, a, n)
    kl = b * np.log(np.maximum(b, 1e-300) / a) + (1 - b) * np.log((1 - b) / (1 - a))
    return float(a - b[kl <= budget + 1e-14].min())


@pytest.fixture(scope="module")
def enumerated():
    return [(case, enumerated_ladder(*case)) for case in tables()]


# (tighter, looser) by a proof
ORDERED = [
    ("disintegrated_bound", "individual_sample_bound"),
    ("individual_sample_bound", "xu_raginsky_bound"),
    ("xu_raginsky_bound", "union_bound"),
    ("cumulant_bound", "okamoto_bound"),
    ("okamoto_bound", "kearns_saul_bound"),
    ("kearns_saul_bound", "xu_raginsky_bound"),
    ("pac_bayes_kl_bound", "xu_raginsky_bound"),
    ("total_variation_bound", "disintegrated_bound"),
    ("disintegrated_kl_bound", "disintegrated_bound"),
    ("evaluated_cmi_bound", "conditional_mi_bound"),
    ("loss_difference_bound", "evaluated_cmi_bound"),
    ("conditional_mi_bound", "xu_raginsky_bound_sigma_1"),
]


def test_enumerated_bounds_hold_and_are_ordered(enumerated):
    """What the theory says about the numbers that the library has to match."""
    for case, (gap, rung) in enumerated:
        # whoever minimises the empirical risk does no better on the population
        assert gap >= -1e-12, case
        for name, value in rung.items():
            assert value >= gap - 1e-4, (name, case)  # grid
        for lower, upper in ORDERED:
            assert rung[lower] <= rung[upper] + 1e-6, (lower, upper, case)
    assert np.ptp([gap for _, (gap, _) in enumerated]) > 0.1  # the cases are not all trivial


def test_each_function_against_enumeration(enumerated):
    for (losses, m, alpha), (gap, rung) in enumerated:
        _, mutual, marginal, joint, train = sample_law(losses, m, alpha)
        rows = joint * len(losses)
        ours = {
            "union_bound": bounds.union_bound(losses.shape[1], m),
            "xu_raginsky_bound_sigma_1": bounds.xu_raginsky_bound(mutual, m, sigma=1),
            "xu_raginsky_bound": bounds.xu_raginsky_bound(mutual, m),
            "kearns_saul_bound": bounds.kearns_saul_bound(mutual, m, losses.mean(axis=0), marginal),
            "okamoto_bound": bounds.okamoto_bound(mutual, m, losses.mean(axis=0), marginal),
            "cumulant_bound": bounds.cumulant_bound(mutual, m, losses.mean(axis=0), marginal),
            "pac_bayes_kl_bound": bounds.pac_bayes_kl_bound(mutual, m, min(1, train)),
            "individual_sample_bound": bounds.individual_sample_bound(rows),
            "disintegrated_bound": bounds.disintegrated_bound(rows),
            "loss_difference_bound": bounds.loss_difference_bound(rows, losses),
            "total_variation_bound": bounds.total_variation_bound(rows),
            "disintegrated_kl_bound": bounds.disintegrated_kl_bound(rows, losses),
        }
        for name, value in ours.items():
            assert value == pytest.approx(rung[name], abs=2e-4), (name, losses, m, alpha)
            assert value >= gap - 1e-7, (name, losses, m, alpha)
        conditional = (
            supersample_law(losses, m, alpha)[0]
            if m == 2
            else rung["conditional_mi_bound"] ** 2 * m / 2
        )
        assert bounds.conditional_mi_bound(conditional, m) == pytest.approx(
            rung["conditional_mi_bound"]
        )
        assert bounds.evaluated_cmi_bound(conditional, m) == bounds.conditional_mi_bound(
            conditional, m
        )


def test_weights_count_as_repeated_rows():
    rng = np.random.default_rng(3)
    conditionals, losses = rng.dirichlet(np.ones(3), 4), rng.integers(0, 2, (4, 3))
    repeats = np.array([1, 3, 2, 1])
    long_q, long_losses = conditionals.repeat(repeats, axis=0), losses.repeat(repeats, axis=0)
    for name in ONE_POINT:
        function = getattr(bounds, name)
        tables = (losses,) if "loss" in name or "kl" in name else ()
        long = (long_losses,) if tables else ()
        assert function(conditionals, *tables, repeats) == pytest.approx(
            function(long_q, *long), rel=1e-12
        )


@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.1, 0.6, 3.0])
@pytest.mark.parametrize(
    "risks", [(0.08, 0.1, 0.3), (0.5, 0.5, 0.5), (0.0, 1.0, 0.7), (0.97, 0.9, 1.0)]
)
def test_cumulant_and_kl_against_a_grid(rate, risks):
    marginal = np.array([0.5, 0.3, 0.2])
    ours = bounds.cumulant_bound(rate * 50, 50, risks, marginal)
    assert ours == pytest.approx(
        brute_cumulant(rate, np.array(risks), marginal), rel=1e-5, abs=2e-4
    )
    assert ours <= bounds.xu_raginsky_bound(rate * 50, 50) + 1e-9
    train = float(marginal @ risks)
    assert bounds.pac_bayes_kl_bound(rate * 50, 50, train) == pytest.approx(
        brute_kl(train, rate) - train, abs=1e-4
    )


@given(
    st.lists(st.floats(1e-3, 1 - 1e-3), min_size=1, max_size=6),
    st.floats(-8, 1).map(lambda x: 10**x),
    st.integers(0, 2**32 - 1),
)
@example([1e-12, 0.5, 1 - 1e-12], 1e-3, 0)
@example([0.5 - 1e-9, 0.5, 0.5 + 1e-9], 1.0, 0)
def test_each_variance_proxy_asks_for_less(risks, rate, seed):
    """Exact cumulants <= Okamoto <= Kearns & Saul <= Hoeffding, whatever the risks."""
    marginal = np.random.default_rng(seed).dirichlet(np.ones(len(risks)))
    rungs = [
        bounds.cumulant_bound(rate * 50, 50, risks, marginal),
        bounds.okamoto_bound(rate * 50, 50, risks, marginal),
        bounds.kearns_saul_bound(rate * 50, 50, risks, marginal),
        bounds.xu_raginsky_bound(rate * 50, 50),
    ]
    assert (np.diff(rungs) >= -1e-9 * (1 + np.array(rungs[1:]))).all(), rungs


@pytest.mark.parametrize("p", ["1e-300", "1e-30", "0.01", "0.09", "0.3", "0.4999999999", "0.7"])
def test_variance_proxies_against_mpmath(p):
    """With one expert and 2 I = m the square of the bound is the proxy itself."""
    with mpmath.workdps(50):
        exact = mpmath.mpf(float(p))
        two_sided = (1 - 2 * exact) / (2 * mpmath.log((1 - exact) / exact))
        one_sided = exact * (1 - exact) if exact < 0.5 else two_sided
    for bound, truth in ((bounds.kearns_saul_bound, two_sided), (bounds.okamoto_bound, one_sided)):
        assert bound(5, 10, [float(p)], [1.0]) ** 2 == pytest.approx(float(truth), rel=1e-14)
        assert bound(5, 10, [0.5], [1.0]) == 0.5
        assert bound(5, 10, [0.0, 1.0], [0.3, 0.7]) == 0
    assert bounds.okamoto_bound(0.0, 10, [0.1], [1.0]) == 0


def test_okamoto_bounds_one_side_alone():
    """Ten experts that err independently, one sample point, and a learner that picks among those
    that err on it: the gap is negative, and larger than the bound for positive ones. The upper tail
    of a rare error is thicker than its variance says; Kearns & Saul's bound holds."""
    n_experts, p = 10, 0.05
    errs = np.array(list(product((0, 1), repeat=n_experts)))
    law = (p**errs * (1 - p) ** (1 - errs)).prod(axis=1)
    candidates = np.where(errs.any(axis=1, keepdims=True), errs, 1)
    posteriors = candidates / candidates.sum(axis=1, keepdims=True)
    joint = law[:, None] * posteriors
    gap = p - float((joint * errs).sum())
    arguments = (information(joint), 1, np.full(n_experts, p), joint.sum(axis=0))
    assert gap < 0 and bounds.okamoto_bound(*arguments) < abs(gap)
    assert abs(gap) < bounds.kearns_saul_bound(*arguments)


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_a_risk_that_is_no_probability_is_refused(bad):
    for bound in (bounds.kearns_saul_bound, bounds.okamoto_bound):
        with pytest.raises(ValueError, match="risks"):
            bound(0.1, 10, [0.1, bad], [0.5, 0.5])


def test_a_constant_loss_costs_nothing():
    """Experts that are always right or always wrong have nothing to overfit, however often they are
    chosen."""
    assert bounds.cumulant_bound(2.0, 10, [0.0, 1.0], [0.5, 0.5]) == pytest.approx(0, abs=1e-5)
    assert bounds.cumulant_bound(2.0, 10, [1.0, 0.3], [0.5, 0.5]) == pytest.approx(
        bounds.cumulant_bound(2.0, 10, [0.0, 0.3], [0.5, 0.5])
    )


def test_monte_carlo_agrees_with_enumeration(enumerated):
    """Within five reported standard errors, on a handful of the cases; nothing else is allowed to
    differ."""
    for (losses, m, alpha), (gap, rung) in enumerated[::3] + enumerated[-4:]:
        ladder = bound_ladder(losses, alpha, m, rng=5, n_datasets=4000)
        assert set(ladder.values) == set(ladder.errors) == set(rung)
        assert abs(ladder.gap - gap) <= 5 * ladder.gap_error + 1e-9
        for name, value in ladder.values.items():
            assert abs(value - rung[name]) <= 5 * ladder.errors[name] + 2e-4, (
                name,
                losses,
                m,
                alpha,
            )


def test_errors_shrink_like_a_root():
    losses = (np.random.default_rng(1).random((40, 5)) < 0.3).astype(int)
    few, many = (bound_ladder(losses, 0.8, 8, rng=2, n_datasets=n) for n in (500, 50_000))
    assert few.gap_error > 3 * many.gap_error
    for name in (*ONE_POINT, "xu_raginsky_bound", "cumulant_bound", "pac_bayes_kl_bound"):
        assert few.errors[name] > 3 * many.errors[name] > 0, name
    assert few.errors["union_bound"] == 0


def test_same_seed_same_ladder():
    losses = np.random.default_rng(0).integers(0, 2, (30, 4))
    first = bound_ladder(losses, 0.7, 6, rng=9, n_datasets=300)
    assert first == bound_ladder(losses, 0.7, 6, rng=np.random.default_rng(9), n_datasets=300)
    assert first == LadderExperiment(losses, 6, 9, 300).at(0.7)
    assert first != bound_ladder(losses, 0.7, 6, rng=10, n_datasets=300)


def test_nothing_is_leaked_at_alpha_0():
    ladder = bound_ladder(np.random.default_rng(0).integers(0, 2, (30, 4)), 0, 6, n_datasets=300)
    assert ladder.gap == pytest.approx(0, abs=1e-12)
    union = ladder.values["union_bound"]
    assert union > 0.3 and sum(ladder.values.values()) == pytest.approx(union, abs=1e-6)


@pytest.mark.parametrize(
    "losses", [np.full((4, 2), 0.5), np.array([[0, 2], [1, 0]]), np.ones(4), np.ones((0, 2))]
)
def test_other_losses_are_refused(losses):
    with pytest.raises(ValueError, match="losses"):
        bound_ladder(losses, 0.5, 4, n_datasets=20)


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, "half"])
def test_bad_alpha_is_refused(bad):
    with pytest.raises(ValueError, match="alpha"):
        bound_ladder(np.eye(3, dtype=int), bad, 4, n_datasets=20)
    with pytest.raises(ValueError, match="n_datasets"):
        LadderExperiment(np.eye(3, dtype=int), 4, n_datasets=9)


@pytest.fixture(scope="module")
def banks(shipped):
    family = load_family("replicate")
    return {
        "default": shipped,
        "first": family[0],
        "middle": family[len(family) // 2],
        "last": family[-1],
    }


@pytest.mark.slow
@pytest.mark.parametrize("sample_size", [64, 256])
@pytest.mark.parametrize("which", ["default", "first", "middle", "last"])
def test_every_bound_holds_on_shipped_banks(which, sample_size, banks, monkeypatch):
    monkeypatch.setattr("expertbank.ladder.SUPERSAMPLES", 20)
    monkeypatch.setattr("expertbank.ladder.SPLITS_PER_SUPERSAMPLE", 1000)
    experiment = LadderExperiment(banks[which].losses("train"), sample_size, rng=1, n_datasets=1000)
    for alpha in (0.25, 1):
        ladder = experiment.at(alpha)
        assert ladder.gap > 10 * ladder.gap_error
        for name, value in ladder.values.items():
            assert value >= ladder.gap - 3 * (ladder.errors[name] + ladder.gap_error), (name, alpha)
        # these are theorems about the estimated channel itself: noise cannot carry the gap above
        # them
        for name in ONE_POINT:
            assert ladder.values[name] >= ladder.gap - 1e-9, (name, alpha)
