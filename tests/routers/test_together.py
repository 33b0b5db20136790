"""Layers counted together against the same layers counted one by one: each field and refusal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertbank.routers import RouterStatistics
from expertbank.routers._together import FEW, are_alike
from expertbank.routers.hooks import _fetched, _kept


def batches(rng, sizes, width, n, n_layers):
    """Batches of several layers of the same n tokens, with some of the labels there is room for."""
    labels = {
        "mask": rng.random(n) < 0.8,
        "sequence": rng.integers(-1, 5, n),
        "domain": rng.integers(-1, max(1, sizes["n_domains"]), n),
        "position": rng.integers(-1, max(1, sizes["n_positions"]), n),
        "token": rng.integers(-1, max(1, sizes["n_tokens"]), n),
        "phase": rng.integers(-1, 2, n) if rng.random() < 0.5 else int(rng.integers(-1, 2)),
    }
    room = {name: sizes.get(f"n_{name}s", 1) for name in labels}
    labels = {name: x for name, x in labels.items() if room[name] and rng.random() < 0.7}
    has_weights, has_probabilities = rng.random(2) < 0.6
    of_layers = []
    for _ in range(n_layers):
        rows = rng.dirichlet(np.ones(sizes["n_experts"]), n).astype(np.float32)
        batch = {"chosen": rows.argsort(axis=1)[:, -width:], **labels}
        if has_weights:
            batch["weights"] = rng.random((n, width)) + 0.1
        if has_probabilities:
            batch["probabilities"] = rows
        of_layers.append(batch)
    return of_layers


def counted(sizes, of_layers, together):
    """The statistics, or the sentence that refuses them."""
    statistics = RouterStatistics(**sizes, n_kept=3)
    try:
        if together:
            statistics.update_layers(enumerate(of_layers))
        else:
            for layer, batch in enumerate(of_layers):
                statistics.update(layer, **batch)
    except ValueError as error:
        return str(error)
    return statistics


def assert_same(one, other):
    assert one.layers.keys() == other.layers.keys()
    for layer, fields in other.layers.items():
        for name, expected in vars(fields).items():
            found = getattr(one.layers[layer], name)
            if expected.dtype.kind == "i":
                assert np.array_equal(found, expected), name
            else:
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)


@given(seed=st.integers(0, 2**32 - 1))
def test_layers_together_are_layers_one_by_one(seed):
    rng = np.random.default_rng(seed)
    n_experts = int(rng.integers(2, 12))
    n_chosen = int(rng.integers(1, min(n_experts, 4) + 1))
    sizes = {"n_experts": n_experts, "n_chosen": n_chosen}
    sizes |= {name: int(rng.integers(0, 4)) for name in ("n_domains", "n_positions", "n_tokens")}
    width = int(rng.integers(1, n_chosen + 1))
    of_layers = batches(rng, sizes, width, int(rng.integers(1, 10)), int(rng.integers(2, 5)))
    assert are_alike(of_layers, n_experts)
    together, one_by_one = (counted(sizes, of_layers, how) for how in (True, False))
    assert_same(together, one_by_one)


SIZES = {"n_experts": 4, "n_chosen": 2, "n_domains": 2, "n_positions": 0, "n_tokens": 0}


def plain():
    """Two layers of three tokens."""
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(4), 3)
    chosen = rows.argsort(axis=1)[:, -2:]
    sequence, domain = np.array([0, 0, 1]), np.array([0, 0, 1])
    batch = {"chosen": chosen, "weights": rng.random((3, 2)) + 0.1, "probabilities": rows}
    return [batch | {"sequence": sequence, "domain": domain} for _ in range(2)]


SPOILT = {
    "an expert too high": ("chosen", [[0, 4], [0, 1], [1, 2]]),
    "an expert twice": ("chosen", [[0, 0], [0, 1], [1, 2]]),
    "below -1": ("chosen", [[0, -2], [0, 1], [1, 2]]),
    "no integers": ("chosen", [[0.0, 1.0], [0.0, 1.0], [1.0, 2.0]]),
    "a weight below 0": ("weights", [[0.5, -0.5], [1, 1], [1, 1]]),
    "weights of 0": ("weights", [[0, 0], [1, 1], [1, 1]]),
    "a weight without a value": ("weights", [[np.nan, 1], [1, 1], [1, 1]]),
    "weights of another shape": ("weights", [[1, 1], [1, 1]]),
    "probabilities that sum to 2": ("probabilities", [[0.5] * 4, [0.25] * 4, [0.25] * 4]),
    "probabilities that overflow": ("probabilities", [[1e308] * 4] * 3),
    "probabilities without an end": ("probabilities", [[np.inf, -np.inf, 0, 1]] * 3),
    "probabilities without a value": ("probabilities", [[np.nan, 0, 0, 1]] * 3),
    "weights that overflow": ("weights", [[1e308, 1e308]] * 3),
    "weights without an end": ("weights", [[np.inf, 1]] * 3),
    "probabilities of too few experts": ("probabilities", [[0.5, 0.5]] * 3),
    "an unknown domain": ("domain", [0, 0, 2]),
    "labels of another shape": ("sequence", [0, 0]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", SPOILT)
def test_what_is_wrong_in_one_layer_is_said_and_nothing_counts(case):
    name, value = SPOILT[case]
    of_layers = plain()
    of_layers[1][name] = np.array(value)
    if name in ("domain", "sequence"):  # one object for all, as a recorder gives it
        of_layers[0][name] = of_layers[1][name]
    statistics = RouterStatistics(**SIZES)
    with pytest.raises(ValueError) as together:
        statistics.update_layers(enumerate(of_layers))
    assert statistics.layers == {}
    assert str(together.value) == counted(SIZES, of_layers, together=False)


@pytest.mark.parametrize(
    "odd",
    [
        {"chosen": np.array([[0, 1], [2, -1], [3, 0]])},
        {"chosen": np.array([[0, 1, 2]] * 3)[:, :1]},
        {"sequence": np.array([5, 5, 6])},
        {"step": -1},
        {"weights": None},
    ],
    ids=["an empty slot", "another width", "other sequences", "no step", "no weights"],
)
def test_layers_that_differ_are_counted_all_the_same(odd):
    of_layers = plain()
    of_layers[1] |= odd
    if "chosen" in odd and odd["chosen"].shape[1] == 1:
        of_layers[1]["weights"] = of_layers[1]["weights"][:, :1]
    together, one_by_one = (counted(SIZES, of_layers, how) for how in (True, False))
    assert_same(together, one_by_one)


def test_many_tokens_are_counted_one_by_one():
    few = [{"chosen": np.zeros((FEW // 4, 1), int)} for _ in range(2)]
    many = [{"chosen": np.zeros((FEW // 4 + 1, 1), int)} for _ in range(2)]
    assert are_alike(few, 4) and not are_alike(many, 4) and not are_alike(few[:1], 4)


def test_a_word_that_is_no_label_is_refused():
    of_layers = [batch | {"domains": np.zeros(3, int)} for batch in plain()]
    with pytest.raises(ValueError, match=r"^domains is given; allowed are chosen, weights"):
        RouterStatistics(**SIZES).update_layers(enumerate(of_layers))


def test_tensors_of_all_layers_are_fetched_together_and_in_order(torch):
    given = [torch.tensor([[1.5]]), None, [[2]], torch.tensor([[3]]), np.array([[4.0]])]
    given += [torch.tensor([[5.5]], dtype=torch.bfloat16), torch.tensor([[6.5]]), torch.ones(2, 1)]
    found = _fetched([_kept(value) for value in given])
    assert found[1] is None and found[2] == [[2]]
    numbers = [float(np.ravel(found[place])[0]) for place in (0, 3, 4, 5, 6, 7)]
    assert numbers == [1.5, 3, 4, 5.5, 6.5, 1] and found[7].shape == (2, 1)
    assert found[3].dtype.kind == "i"
    assert found[0].base is found[6].base is not None  # one piece of memory, asked for once


def test_small_tensors_stay_where_they_are_and_large_ones_do_not(torch):
    weights = torch.ones(2, 1, requires_grad=True)
    assert isinstance(_kept(weights), torch.Tensor) and not _kept(weights).requires_grad
    assert isinstance(_kept(torch.ones(FEW + 1)), np.ndarray)
