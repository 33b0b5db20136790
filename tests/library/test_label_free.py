"""The frontier of gates that see only x: enumerated laws, all marginals on a grid, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from expertbank import label_free
from expertbank.information import mutual_information
from expertbank.rate_distortion import rate_distortion, rate_distortion_curve, routing


def problem(seed):
    """A law on 4 inputs, P(y|x) (4, C) and the classes (4, 3) that three experts name."""
    rng = np.random.default_rng(seed)
    n_classes = 2 + seed % 3
    law = rng.dirichlet(np.ones(4))
    chances = rng.dirichlet(np.full(n_classes, 0.6), 4)
    return law, chances, rng.integers(0, n_classes, (4, 3))


def is_routed(law, chances, predictions):
    """Whether the best gate uses its input at a price of .1."""
    losses = label_free.losses_given_input(predictions, chances)
    return rate_distortion(losses, 0.1, law).rate > 0.1


PROBLEMS = [made for made in map(problem, range(60)) if is_routed(*made)][:12]
PRICES = (0.02, 0.1, 0.4)


SHARES = np.array([(a, b, 200 - a - b) for a in range(201) for b in range(201 - a)]) / 200


def least_lagrangian(losses, law, lam):
    """min of E loss + lam I over gates, from above: Blahut's form on a grid of all marginals."""
    with np.errstate(divide="ignore"):
        return (-lam * np.log(SHARES @ np.exp(-losses / lam).T) @ law).min()


def paid_by_enumeration(chances, predictions):
    """E[loss | x] of every expert, a label at a time."""
    paid = np.zeros(predictions.shape)
    for label in range(chances.shape[1]):
        paid += chances[:, [label]] * (predictions != label)
    return paid


@pytest.mark.parametrize("number", range(12))
def test_the_bracket_holds_for_every_small_law(number):
    law, chances, predictions = PROBLEMS[number]
    error = 1 - chances.max(axis=1)
    exact = label_free.losses_given_input(predictions, chances)
    assert exact == pytest.approx(paid_by_enumeration(chances, predictions), abs=1e-12)
    floor = label_free.bayes_floor(predictions, chances.argmax(axis=1), error)
    wrong = predictions != chances.argmax(axis=1)[:, None]
    above = error[:, None] + (1 - error)[:, None] * wrong
    assert (floor <= exact + 1e-12).all() and (exact <= above + 1e-12).all()
    seen = [(predictions != label).astype(float) for label in range(chances.shape[1])]
    joint = (law[:, None] * chances).T.ravel()
    for lam in PRICES:
        least = least_lagrangian(exact, law, lam)
        solved = rate_distortion(exact, lam, law)
        assert -1e-9 <= least - solved.distortion - lam * solved.rate < 1e-4
        low = rate_distortion(floor, lam, law)
        low = low.distortion + lam * low.rate
        high = rate_distortion(above, lam, law)
        assert low <= least + 1e-8
        for gate in np.random.default_rng(number).dirichlet(np.ones(3), (200, 4)):
            paid = law @ (gate * exact).sum(axis=1) + lam * mutual_information(gate, law)
            assert low <= paid
        assert high.distortion + lam * high.rate - low <= law @ np.minimum(error, 1 - error) + 1e-8
        label = rate_distortion(np.concatenate(seen), lam, joint)  # a gate that sees y too
        assert label.distortion + lam * label.rate <= least + 1e-8
        if chances.shape[1] == 2:
            assert low == pytest.approx(least, abs=1e-4)
            assert floor == pytest.approx(exact, abs=1e-12)


def test_the_constant_of_a_row_is_its_mean_in_the_curve():
    law, chances, predictions = PROBLEMS[4]
    error = 1 - chances.max(axis=1)
    floor = label_free.bayes_floor(predictions, chances.argmax(axis=1), error)
    rest = rate_distortion(floor - error[:, None], 0.05, law)
    whole = rate_distortion(floor, 0.05, law)
    assert whole.distortion == pytest.approx(law @ error + rest.distortion, abs=1e-8)
    assert whole.rate == pytest.approx(rest.rate, abs=1e-6)


def test_an_estimate_of_the_error_gives_no_bound():
    """One input, both experts say what is right with chance .4: every gate pays .6. With e = .1 in
    place of .4 the table asks for .9."""
    said = [[0, 0]]
    exact = label_free.losses_given_input(said, [[0.4, 0.6]])
    assert exact == pytest.approx(0.6)
    assert label_free.bayes_floor(said, [1], [0.4]) == pytest.approx(0.6)
    assert (label_free.bayes_floor(said, [1], [0.1]) > exact).all()
    # nor with too large an error, where an expert names the likeliest class
    assert (label_free.bayes_floor([[1, 1]], [1], [0.5]) > 0.4).all()


def test_chances_from_votes_know_the_law_of_independent_experts():
    """Three experts that err apart: Bayes' rule by hand; a copy of one adds no evidence."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 40_000)
    wrong = rng.random((40_000, 3)) < [0.1, 0.2, 0.4]
    said = np.where(wrong, 1 - labels[:, None], labels[:, None])
    patterns = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1]])
    odds = np.log([0.9 / 0.1, 0.8 / 0.2, 0.6 / 0.4])
    expected = special.expit((2 * patterns - 1) @ odds)
    found = label_free.chances_from_votes(patterns, said, labels)
    assert found[:, 1] == pytest.approx(expected, abs=0.02)
    twice = [0, 0, 1, 2]
    copied = label_free.chances_from_votes(patterns[:, twice], said[:, twice], labels)
    assert copied == pytest.approx(found, abs=0.01)


def test_certified_routes_hold_for_the_law():
    """100 tables of 150 inputs from a known law; the gates' exact loss and rate may exceed a limit
    in 1 of 10, and hardly do. Estimates that are wrong cost loss, not validity."""
    rng = np.random.default_rng(2)
    law, chances, predictions = PROBLEMS[6]
    exact = label_free.losses_given_input(predictions, chances)
    estimates = np.clip(exact + rng.normal(0, 0.2, exact.shape), 0, 1)
    lams = [0.3, 0.1, 0.03]
    known = estimates[rng.choice(4, 400, p=law)]
    curve = rate_distortion_curve(known, lams)
    gates = [routing(estimates, curve.point(i)) for i in range(3)]
    truly = np.array([law @ (gate * exact).sum(axis=1) for gate in gates])
    rates = np.array([mutual_information(gate, law) for gate in gates])
    best = rate_distortion_curve(exact, weights=law)
    broken = 0
    for _ in range(100):
        inputs = rng.choice(4, 150, p=law)
        labels = (rng.random(150)[:, None] > chances[inputs].cumsum(axis=1)).sum(axis=1)
        labels = np.minimum(labels, chances.shape[1] - 1)
        losses = predictions[inputs] != labels[:, None]
        found = label_free.certified_routes(known, estimates[inputs], losses, lams, 0.9)
        assert (found.loss > found.hoped).all()
        over = (truly > found.loss).any() or (rates > found.rate).any()
        broken += over
        if not over:  # the frontier is below every line between limits
            grid = np.linspace(0, 1, 9)
            assert (best.lower(grid) <= found.at(grid) + 1e-9).all()
    assert broken <= 10


def test_more_inputs_bring_the_limits_down():
    _, chances, predictions = PROBLEMS[6]
    exact = label_free.losses_given_input(predictions, chances)
    found = []
    for n in (100, 10_000):
        table = np.tile(exact, (n, 1))
        found.append(label_free.certified_routes(exact, table, table, [0.1]))
    assert found[1].hoped == pytest.approx(found[0].hoped)
    assert found[1].loss - found[1].hoped < 0.15 * (found[0].loss - found[0].hoped)
    assert found[1].rate < found[0].rate


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: label_free.losses_given_input([[2]], [[0.5, 0.5]]), "predictions"),
        (lambda: label_free.losses_given_input([[0]], [[0.5, 0.1]]), "sum to 1"),
        (lambda: label_free.bayes_floor([[0, 1]], [0, 1], [0.1]), "likeliest"),
        (lambda: label_free.bayes_floor([[0, 1]], [0], [1.5]), "bayes_error"),
        (lambda: label_free.chances_from_votes([[0]], [[0]], [0, 1]), "known_labels"),
        (lambda: label_free.chances_from_votes([[0, 1]], [[0]], [0]), "predictions"),
        (lambda: label_free.certified_routes([[0]], [[0], [0]], [[0]], [1]), "estimates"),
        (
            lambda: label_free.certified_routes([[0], [0]], [[0], [0]], [[0], [0]], [1], 1.0),
            "confidence",
        ),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
