"""Rungs beyond the ladder's own, on small problems: all datasets, supersamples and halves."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import mpmath
import numpy as np
import pytest
from test_ladder import brute_kl, information, posterior, sample_law, supersample_law, tables

from expertbank import bounds
from expertbank.ladder import LadderExperiment, bound_ladder

CASES = tables()[:12]
DIVERGENCES = {
    "total_variation": lambda x: abs(x - 1) / 2,
    "chi_square": lambda x: (x - 1) ** 2,
    "squared_hellinger": lambda x: (np.sqrt(x) - 1) ** 2,
}


def f_information(joint, f):
    """Sum of p(a) p(b) f(p(a, b) / p(a) p(b))."""
    together = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    used = together > 0
    return float((together[used] * f(joint[used] / together[used])).sum())


def pair_laws(losses, m, alpha):
    """For every supersample the joint law of U and the losses (L0, L1) of W on the first pair,
    (S, 2, 4)."""
    halves = np.array(list(product((0, 1), repeat=m)))
    laws = []
    for points in product(range(len(losses)), repeat=2 * m):
        both = losses[list(points)].reshape(2, m, -1)
        mistakes = np.where(halves[:, :, None], both[1], both[0]).sum(axis=1)
        law = np.zeros((2, 4))
        place = 2 * both[0, 0] + both[1, 0]
        np.add.at(law, (halves[:, :1], place), posterior(mistakes, alpha) / len(halves))
        laws.append(law)
    return np.array(laws)


@pytest.fixture(scope="module")
def small():
    """Each case with its gap, P(W|Z), training risk and the laws of the first pair; alpha as
    given."""
    found = []
    for losses, m, alpha in CASES:
        gap, _, _, joint, train = sample_law(losses, m, alpha)
        laws = pair_laws(losses, m, alpha)
        found.append((losses, gap, joint * len(losses), min(1, train), laws))
    return found


def half_kl(q, budget):
    """The largest p of a grid with kl(q || (p+q)/2) <= budget."""
    return min(1.0, 2 * brute_kl(q, budget) - q)


def test_the_samplewise_bound_conditions_on_nothing(small):
    """Enumerated I(L0,L1;U); the same given the supersample is larger, so that bound is looser."""
    looser = 0
    for losses, gap, rows, train, laws in small:
        free = information(laws.mean(axis=0))
        given = np.mean([information(law) for law in laws])
        assert given >= free - 1e-12
        looser += given > free + 1e-6
        ours = bounds.samplewise_kl_bound(rows, losses)
        assert ours == pytest.approx(half_kl(train, free) - train, abs=3e-4)
        assert ours >= gap - 1e-9
        # as I(L0,L1;U) is I(D;U)
        assert bounds.loss_difference_bound(rows, losses) == pytest.approx(
            np.sqrt(2 * free), abs=1e-7
        )
    assert looser > 6


def test_the_jensen_shannon_rung_is_the_gap(small):
    for _, gap, _, train, laws in small:
        pair = laws.mean(axis=0).reshape(2, 2, 2)  # U, L0, L1
        one_loss = pair.sum(axis=2)
        assert bounds.jensen_shannon_bound(information(one_loss), train) == pytest.approx(
            gap, abs=1e-6
        )
        # what the two of a pair tell is more
        assert information(one_loss) <= information(laws.mean(axis=0)) + 1e-12


def test_a_loss_between_0_and_1_can_tell_more():
    """The rung is an identity for 0-1 losses alone: a loss that takes a value of its own on every
    trained point tells U, with almost no gap."""
    joint = np.array([[0.5, 0.0], [0.0, 0.5]])  # loss 0.50 when trained, 0.51 when not
    assert bounds.jensen_shannon_bound(information(joint), 0.5) == pytest.approx(0.5)


def test_f_informations_are_ordered_and_as_enumerated(small):
    for losses, gap, rows, _, laws in small:
        law = laws.mean(axis=0)
        differences = np.stack([law[:, 1], law[:, 2], law[:, 0] + law[:, 3]], axis=1)
        found = {}
        for name, f in DIVERGENCES.items():
            value = f_information(differences, f)
            given = np.mean([f_information(one, f) for one in laws])
            assert given >= value - 1e-12  # conditioning on the supersample
            expected = {
                "total_variation": 2 * value,
                "chi_square": np.sqrt(value),
                "squared_hellinger": 2 * np.sqrt(value),
            }[name]
            found[name] = bounds.f_information_bound(rows, losses, None, name)
            assert found[name] == pytest.approx(expected, abs=1e-7)
        shannon = bounds.loss_difference_bound(rows, losses)
        rungs = [found["total_variation"], found["chi_square"], shannon]
        assert (np.diff([gap, *rungs, found["squared_hellinger"]]) >= -1e-9).all()
        assert found["total_variation"] == pytest.approx(abs(gap), abs=1e-12)


def left_out_information(losses, m, k, alpha):
    """I(W;V | supersample) over all supersamples of m + k points and all V."""
    trained = [list(chosen) for chosen in combinations(range(m + k), m)]
    total = 0.0
    for points in product(range(len(losses)), repeat=m + k):
        drawn = losses[list(points)]
        mistakes = np.array([drawn[chosen].sum(axis=0) for chosen in trained])
        total += information(posterior(mistakes, alpha) / comb(m + k, m))
    return total / len(losses) ** (m + k)


@pytest.mark.parametrize("case", range(0, 12, 2))
def test_leave_out_bounds_hold_for_every_number_left_out(case):
    losses, m, alpha = CASES[case]
    gap, mutual, *_ = sample_law(losses, m, alpha)
    informations = []
    for k in range(1, 7 - m):
        nats = left_out_information(losses, m, k, alpha)
        informations.append(nats)
        assert bounds.leave_out_bound(nats, m, k) >= gap - 1e-12
    # more points left out hide the sample better, up to I(S;W)
    assert (np.diff([*informations, mutual]) >= -1e-12).all()


@pytest.mark.parametrize("case", [0, 3, 7])
def test_the_ladder_estimates_what_leaving_out_half_tells(case):
    """Beside all supersamples of 2m points and all halves of them."""
    losses, m, alpha = CASES[case]
    exact = bounds.leave_out_bound(left_out_information(losses, m, m, alpha), m, m)
    found = LadderExperiment(losses, m, n_datasets=20).further(alpha)["leave_out_bound"]
    assert found == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize(("m", "k"), [(1, 1), (2, 1), (1, 4), (3, 3), (5, 2), (4, 8)])
def test_the_variance_proxy_of_leaving_out(m, k):
    """log E exp(s (mean of k - mean of the other m)) <= v s^2 / 2 for every 0-1 pattern, with v of
    the bound: its square at I = 1/2."""
    proxy = float(bounds.leave_out_bound(0.5, m, k)) ** 2
    s = np.concatenate([-np.geomspace(40, 0.01, 60), np.geomspace(0.01, 40, 60)])
    for wrong in range(m + k + 1):
        inside = np.arange(max(0, wrong - m), min(k, wrong) + 1)
        chances = [comb(k, i) * comb(m, wrong - i) / comb(m + k, wrong) for i in inside]
        steps = inside / k - (wrong - inside) / m
        cumulants = np.log(np.exp(s[:, None] * steps) @ chances)
        assert (cumulants <= proxy * s**2 / 2 + 1e-12).all()


def test_pairs_leave_less_than_the_set_does():
    """At equal information leave-m-out asks for a root of two less than pairs; its information is
    larger, so neither is below the other everywhere."""
    assert bounds.leave_out_bound(0.1, 1000, 1000) == pytest.approx(
        bounds.conditional_mi_bound(0.1, 1000) / np.sqrt(2), rel=1e-3
    )
    ratios = []
    for losses, m, alpha in CASES[:4]:
        pairs = bounds.conditional_mi_bound(supersample_law(losses, m, alpha)[0], m)
        ratios.append(
            bounds.leave_out_bound(left_out_information(losses, m, m, alpha), m, m) / pairs
        )
    assert max(ratios) < 1.01 and min(ratios) > 0.6


# --- private gates ---


def worst_private_gate(losses, counts, epsilon, rng):
    """Of eps-LDP gates on the distinct rows, one with little training risk and much elsewhere:
    m_t on a random law, each row free in [m_t, e^eps m_t]; greedy per row."""
    high = np.exp(epsilon)
    law = rng.dirichlet(np.ones(losses.shape[1]) * 0.7)
    scale = rng.uniform(1 / high, 1)
    gate = np.tile(law * scale, (len(losses), 1))
    for row, (seen, own) in enumerate(zip(counts, losses)):
        order = np.argsort(own if seen else -own)
        free = 1 - scale
        for t in order:
            step = min(free, (high - 1) * law[t] * scale)
            gate[row, t] += step
            free -= step
    return gate


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_private_gate_bounds_hold_for_gates_that_memorise(epsilon):
    """Every dataset of six of four rows; a violation may have a chance of delta at most."""
    rng = np.random.default_rng(4)
    losses = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    m, delta = 6, 0.2
    for bound in (bounds.private_gate_kl_bound, bounds.private_gate_rademacher_bound):
        violated = 0
        for chosen in product(range(4), repeat=m):
            counts = np.bincount(chosen, minlength=4)
            gates = [worst_private_gate(losses, counts, epsilon, rng) for _ in range(2)]
            for gate in gates:
                assert (gate.max(axis=0) <= np.exp(epsilon) * gate.min(axis=0) + 1e-9).all()
            paid = [(gate * losses).sum(axis=1) for gate in gates]
            limits = [bound(min(1, counts @ p / m), 3, m, epsilon, delta) for p in paid]
            violated += any(p.mean() > limit + 1e-12 for p, limit in zip(paid, limits))
        assert violated <= delta * 4**m


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_a_memorising_gate_shows_that_a_factor_is_needed(epsilon):
    """Two opposite experts, a fair coin on endless new inputs: training risk 1/(1 + e^eps) of the
    gate that leans to what was right, risk 1/2, whatever m."""
    train = 1 / (1 + np.exp(epsilon))
    limit = bounds.private_gate_kl_bound(train, 2, 10**9, epsilon)
    assert 0.5 <= limit <= 0.5 * 2 * np.exp(epsilon) / (1 + np.exp(epsilon)) * 1.01


def test_a_gate_of_privacy_0_is_a_law_on_the_experts():
    for risk in (0.0, 0.1, 0.7):
        kl = bounds.private_gate_kl_bound(risk, 25, 1000, 0.0, 0.05)
        assert kl == bounds.binary_kl_inverse(risk, np.log(25 / 0.05) / 1000)
    assert bounds.private_gate_kl_bound(0.4, 25, 10, 5.0) == 1.0


# --- the three kinds, and the ladder ---


def test_every_bound_has_a_kind():
    public = {name for name in dir(bounds) if name.endswith("_bound") and name[0] != "_"}
    others = {"theorem2_bound"}  # of the risk, from another bound of the gap
    assert public - others == set(bounds.RUNG_KINDS) - {"xu_raginsky_bound_sigma_1"}
    ladder = bound_ladder(CASES[0][0], 0.7, 4, n_datasets=20)
    assert set(ladder.values) <= set(bounds.RUNG_KINDS)
    further = LadderExperiment(CASES[0][0], 4, n_datasets=20).further(0.7)
    kinds = {name: bounds.rung_kind(name) for name in ladder.values | further}
    assert all(kinds[name] == bounds.RUNG_KINDS[name] for name in ladder.values)
    assert kinds.pop("leave_out_bound") == bounds.BY_INFORMATION
    assert {kinds[name] for name in further if name in kinds} == {bounds.BY_THE_GAP}


def test_what_the_last_kind_looks_at_gives_the_gap(small):
    """P(W|Z) and the losses, the arguments of that kind, are enough to compute the gap."""
    for losses, gap, rows, _, _ in small:
        exact = (rows.mean(axis=0) * losses.mean(axis=0)).sum() - (rows * losses).sum(axis=1).mean()
        assert exact == pytest.approx(gap, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_further_rungs_hold_on_a_bank(alpha):
    losses = (np.random.default_rng(2).random((300, 6)) < 0.2).astype(int)
    experiment = LadderExperiment(losses, 20, n_datasets=2000)
    gap = experiment.at(alpha, errors=False).gap
    rungs = experiment.further(alpha)
    assert all(value >= gap - 1e-12 for value in rungs.values())
    if alpha:
        assert rungs["jensen_shannon_bound"] == pytest.approx(gap, rel=1e-6)
        assert rungs["samplewise_kl_bound"] == pytest.approx(np.sqrt(2) * gap, rel=0.2)


@pytest.mark.parametrize("q", [0.0, 1e-20, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("nats", [0.0, 1e-30, 1e-12, 1e-3, 0.2, 0.7])
def test_jensen_shannon_against_mpmath(q, nats):
    """Never below the largest p, and above it by a relative 1e-9 at most."""
    rise = float(bounds.jensen_shannon_bound(nats, q))
    with mpmath.workdps(60):

        def entropy(x):
            return -sum(mpmath.mpf(y) * mpmath.log(y) for y in (x, 1 - x) if y > 0)

        def divergence(rise):
            low = mpmath.mpf(q)
            high = min(low + rise, mpmath.mpf(1))
            return entropy((low + high) / 2) - (entropy(low) + entropy(high)) / 2

        assert q + rise >= 1 - 1e-15 or divergence(mpmath.mpf(rise)) >= nats
        assert divergence(mpmath.mpf(rise) * (1 - mpmath.mpf(10) ** -9)) <= nats


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: bounds.f_information_bound([[1.0]], [[0]], None, "kl"), "divergence"),
        (lambda: bounds.leave_out_bound(0.1, 4, 0), "held_out"),
        (lambda: bounds.private_gate_kl_bound(0.1, 4, 4, -1.0), "epsilon"),
        (lambda: bounds.private_gate_rademacher_bound(0.1, 4, 4, 1.0, 0.0), "delta"),
        (lambda: bounds.jensen_shannon_bound(-0.1, 0.5), "information"),
        (lambda: bounds.rung_kind("an_unknown_bound"), "name"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
