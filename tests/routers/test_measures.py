"""Measures on a router's counts: closed forms, identities and inequalities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from expertbank.information import (
    binary_entropy,
    conditional_information,
    entropy,
    joint_bias,
    joint_information,
    mutual_information,
)
from expertbank.routers import measures

tables = arrays(np.int64, (4, 6), elements=st.integers(0, 50)).filter(lambda table: table.sum() > 0)
loads = arrays(np.int64, 8, elements=st.integers(0, 100)).filter(lambda load: load.sum() > 0)


@given(loads)
def test_one_family_of_entropies_holds_every_summary_of_the_load(load):
    e = len(load)
    orders = [measures.renyi_entropy(load, order) for order in (0, 0.5, 1, 2, 7, np.inf)]
    assert np.all(np.diff(orders) <= 1e-12)
    assert np.exp(orders[0]) == pytest.approx((load > 0).sum())
    assert orders[2] == pytest.approx(entropy(load / load.sum()))
    assert e * np.exp(-orders[3]) - 1 == pytest.approx(measures.variation(load) ** 2, abs=1e-12)
    assert e * np.exp(-orders[5]) - 1 == pytest.approx(measures.max_violation(load))


@given(loads)
def test_utilisation_is_a_distance_and_bounds_the_lost_entropy(load):
    share = load / load.sum()
    distance = np.abs(share - 1 / len(load)).sum() / 2
    assert measures.utilisation(load) == pytest.approx(1 - distance)
    assert np.log(len(load)) - measures.renyi_entropy(load, 1) >= 2 * distance**2 - 1e-12  # Pinsker


@given(tables)
def test_information_of_counts_is_that_of_the_channel(table):
    seen = table.sum(axis=1) > 0
    rows = table[seen] / table[seen].sum(axis=1, keepdims=True)
    expected = mutual_information(rows, table[seen].sum(axis=1))
    assert joint_information(table) == pytest.approx(expected, abs=1e-12)
    assert joint_information(table.T) == pytest.approx(expected, abs=1e-12)


@given(tables)
def test_the_accuracy_of_guessing_bounds_the_information_from_below(table):
    label_entropy = entropy(table.sum(axis=1) / table.sum())
    floor = measures.fano_floor(measures.load_purity(table), label_entropy, len(table))
    assert floor <= joint_information(table) + 1e-12


def test_experts_of_their_own_are_pure_and_dead_ones_are_left_out():
    counts = np.kron(np.eye(3, dtype=int), [[5, 5]])
    assert measures.purity(counts) == measures.load_purity(counts) == 1
    assert joint_information(counts) == pytest.approx(np.log(3))
    assert measures.fano_floor(1, np.log(3), 3) == pytest.approx(np.log(3))
    dead = np.hstack([counts, np.zeros((3, 2), dtype=int)])
    assert measures.purity(dead) == 1
    assert measures.utilisation(dead.sum(axis=0)) == pytest.approx(6 / 8)
    # weighted by load a busy mixed expert counts for more than a pure quiet one
    uneven = np.array([[1, 50], [0, 50]])
    assert measures.purity(uneven) == 0.75
    assert measures.load_purity(uneven) == pytest.approx(51 / 101)


def test_the_condition_is_taken_out():
    # expert = domain XOR condition: nothing without the condition, one bit with it
    counts = np.array([[[5, 0], [0, 5]], [[0, 5], [5, 0]]])
    assert joint_information(counts.sum(axis=0)) == pytest.approx(0, abs=1e-12)
    assert conditional_information(np.moveaxis(counts, 0, -1)) == pytest.approx(np.log(2))
    # both follow the condition: dependent, but not given it
    counts = np.array([[[9, 0], [0, 0]], [[0, 0], [0, 9]]])
    assert joint_information(counts.sum(axis=0)) == pytest.approx(np.log(2))
    assert conditional_information(np.moveaxis(counts, 0, -1)) == pytest.approx(0, abs=1e-12)


def test_balance_loss_of_two_experts_by_hand():
    assert measures.balance_loss([3, 1], [0.6, 0.4]) == pytest.approx(2 * (0.75 * 0.6 + 0.25 * 0.4))
    assert measures.balance_loss([3, 1], [0.5, 0.5]) == pytest.approx(1)


def test_bias_of_independent_counts():
    rng = np.random.default_rng(0)
    joint = np.outer([0.2, 0.3, 0.5], [0.1, 0.2, 0.3, 0.4]).ravel()
    found = [joint_information(rng.multinomial(400, joint).reshape(3, 4)) for _ in range(2_000)]
    assert np.mean(found) == pytest.approx(joint_bias(np.full((3, 4), 100) / 3), rel=0.06)


def test_null_is_small_for_units_without_a_domain_and_the_truth_stands_out():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), 50)
    same = rng.multinomial(64, np.full(8, 1 / 8), size=200)
    null = measures.relabelled_information(same, labels, 200)
    found = joint_information(np.eye(4)[:, labels] @ same)
    assert null.min() < found < null.max()
    assert null.mean() == pytest.approx(joint_bias(np.eye(4)[:, labels] @ same), rel=0.15)
    apart = np.stack(
        [rng.multinomial(64, np.roll([0.65] + [0.05] * 7, 2 * label)) for label in labels]
    )
    assert (
        joint_information(np.eye(4)[:, labels] @ apart)
        > 5 * measures.relabelled_information(apart, labels, 50).max()
    )


def test_fano_by_hand():
    assert measures.fano_floor(0.9, np.log(2), 2) == pytest.approx(np.log(2) - binary_entropy(0.1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measures.utilisation([0, 0]), "do not all vanish"),
        (lambda: measures.renyi_entropy([1, 1], -1), "order is -1"),
        (lambda: measures.purity([1, 2]), r"allowed are \(A, B\)"),
        (lambda: measures.balance_loss([1, 1], [1, 1, 1]), "2 experts, probabilities 3"),
        (lambda: conditional_information([[1]]), r"allowed is \(A, B, C\)"),
        (lambda: measures.relabelled_information([[1, 1]], [0, 1]), "one for each unit"),
        (lambda: measures.fano_floor(1.2, 0.1, 2), "accuracy is 1.2"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
