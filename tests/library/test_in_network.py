"""Networks of sensors: which links each arm uses, what training measures, resumed and sealed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from expertbank.information import gating_rate
from expertbank.reproduction.compare import compare
from expertbank.reproduction.verify import verify
from expertbank.shipped.in_network import (
    ARMS,
    DENSE,
    FUSION,
    PRICED,
    RANDOM,
    SHORTEST,
    SPANNING,
    load_in_network,
    routes,
    save_in_network,
    sensor_network,
)
from support import refused

SEEDS = range(10)


def lengths(network):
    """The matrix of 1/capacity, infinite where there is no link."""
    found = np.full((9, 9), np.inf)
    for (one, other), capacity in zip(network.links, network.capacities):
        found[one, other] = found[other, one] = 1 / capacity
    return found


def all_distances(matrix):
    """Floyd and Warshall's."""
    far = matrix.copy()
    np.fill_diagonal(far, 0)
    for middle in range(len(far)):
        far = np.minimum(far, far[:, [middle]] + far[middle])
    return far


@pytest.mark.parametrize("seed", SEEDS)
def test_the_links_are_the_27_shortest_pairs(seed):
    network = sensor_network(seed)
    apart = np.linalg.norm(network.places[:, None] - network.places, axis=2)
    used = apart[tuple(network.links.T)]
    np.testing.assert_allclose(used, network.distances)
    assert np.sort(apart[np.triu_indices(9, 1)])[26] == pytest.approx(used.max())
    # half log(1 + power / noise)
    np.testing.assert_allclose(np.exp(2 * network.capacities) - 1, network.noise**-2)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_everything_sent_arrives_at_the_fusion_node(seed, arm):
    network = sensor_network(seed)
    way = routes(network, arm, seed)
    place = {node: index for index, node in enumerate(way.order.tolist())}
    assert sorted(place) == list(range(9)) and way.order[-1] == FUSION
    noise = dict(zip(map(tuple, network.links.tolist()), network.noise))
    for (source, target), sd in zip(way.links.tolist(), way.noise):
        assert place[source] < place[target]
        assert sd == noise[min(source, target), max(source, target)]
    assert set(way.links[:, 0].tolist()) == set(range(1, 9))
    assert len(way.links) == (27 if arm == DENSE else 8)
    assert 1 <= way.hops <= 8


@pytest.mark.parametrize("seed", SEEDS)
def test_d_inl_takes_shortest_paths_and_the_spanning_tree_the_least_length(seed):
    network = sensor_network(seed)
    matrix = lengths(network)
    far = all_distances(matrix)[FUSION]
    for source, target in routes(network, SHORTEST).links:
        assert far[source] == pytest.approx(matrix[source, target] + far[target])

    def total(arm):
        return sum(matrix[source, target] for source, target in routes(network, arm, seed).links)

    assert total(SPANNING) <= min(total(SHORTEST), total(RANDOM)) + 1e-12
    # every other tree that swaps one link is longer: what makes a spanning tree minimal
    chosen = {tuple(sorted(link)) for link in routes(network, SPANNING).links.tolist()}
    for link in map(tuple, network.links.tolist()):
        for left_out in chosen:
            swapped = chosen - {left_out} | {link}
            if len(swapped) == 8 and _connects(swapped):
                assert sum(matrix[pair] for pair in swapped) >= total(SPANNING) - 1e-12


def _connects(links):
    reached = {FUSION}
    for _ in range(8):
        for one, other in links:
            if one in reached or other in reached:
                reached |= {one, other}
    return len(reached) == 9


def test_the_random_tree_follows_its_seed_and_others_do_not():
    network = sensor_network(0)
    trees = [routes(network, RANDOM, seed).links.tolist() for seed in range(5)]
    assert any(tree != trees[0] for tree in trees)
    assert (
        routes(network, SHORTEST, 1).links.tolist() == routes(network, SHORTEST, 2).links.tolist()
    )
    refused(lambda: routes(network, "star"), "arm", "'star'")


def test_the_shipped_networks_are_five_arms_of_ten_seeds():
    runs = load_in_network()
    assert runs.manifest["recipe"]["seeds"] == 10
    for arm in ARMS[:4]:
        assert runs.columns(arm=arm)["seed"].tolist() == list(SEEDS)
    for price in runs.prices[1:]:
        assert runs.columns(arm=PRICED, price=price)["seed"].tolist() == list(SEEDS)
    table = runs.columns()
    for name, arm, seed in zip(("links", "hops"), (SHORTEST, SPANNING), (3, 7)):
        way = routes(sensor_network(seed), arm, seed)
        stored = runs.columns(arm=arm, seed=seed)[name]
        assert stored.tolist() == [len(way.links) if name == "links" else way.hops]
    np.testing.assert_allclose(runs.errors().mean(axis=0), 1 - table["accuracy"], atol=1e-6)
    assert table["rate"].min() >= 0 and table["rate"].max() <= 8 * np.log(8)
    size = sum(item["bytes"] for item in runs.manifest["files"].values())
    assert size <= 200_000
    assert verify("in-network").endswith("accuracies of 100 runs recomputed")


def test_a_changed_accuracy_is_found(tmp_path):
    rows = [{"arm": DENSE, "price": 0.0, "seed": 0, "accuracy": 0.75}]
    save_in_network(tmp_path / "good", rows, np.eye(1, 4), {"data": {"test_images": 4}})
    assert "1 runs" in verify(tmp_path / "good")
    rows[0]["accuracy"] = 0.5
    save_in_network(tmp_path / "bad", rows, np.eye(1, 4), {"data": {"test_images": 4}})
    with pytest.raises(ValueError, match="an accuracy in its table is not what its errors give"):
        verify(tmp_path / "bad")


# --- training ---


@pytest.fixture
def training():
    pytest.importorskip("torch", reason="training needs the extra train")
    import torch

    from expertbank.training import in_network

    # as each worker of a real run: two threads would wait for each other at every step
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield in_network
    torch.set_num_threads(threads)


@pytest.fixture
def little(training, monkeypatch):
    """A few images, of which one pixel is the label, and two runs."""
    labels = (np.arange(200) % 10).astype(np.uint8)
    images = np.zeros((200, 4, 4), np.uint8)
    images.reshape(200, 16)[np.arange(200), labels] = 255
    monkeypatch.setattr(training, "load_mnist", lambda *_: (images, labels))
    runs = [training.NetworkRun(SHORTEST, 0.0, 0), training.NetworkRun(PRICED, 0.01, 0)]
    monkeypatch.setattr(training, "shipped_networks", lambda: runs)
    return training.NetworkRecipe(100, epochs=1, least_noise=0.1, most_noise=0.2)


def test_rates_of_gates_are_those_of_the_library(training):
    import torch

    gates = np.random.default_rng(0).dirichlet(np.ones(8), (3, 50))
    found = training.latent_rates(torch.from_numpy(gates))
    np.testing.assert_allclose(found, [gating_rate(gate) for gate in gates], atol=1e-12)


def test_a_network_learns_and_a_price_lowers_the_rate(training, little):
    data = training.load_mnist()
    recipe = replace(little, epochs=16, batch=20, learning_rate=0.03)
    free, errors = training.train_network(training.NetworkRun(), recipe, data, data)
    assert free["accuracy"] > 0.5 and errors.mean() == pytest.approx(1 - free["accuracy"])
    priced, _ = training.train_network(training.NetworkRun(PRICED, 1.0), recipe, data, data)
    assert priced["rate"] < 0.2 * free["rate"]
    assert free["exchange"] == 2 * 8 * 8


def test_a_killed_run_goes_on_to_the_same_files(training, little, tmp_path, monkeypatch):
    training.train_in_network(tmp_path / "one", little, n_jobs=1)
    real = training.train_network
    done = []

    def stopped(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(training, "train_network", stopped)
    with pytest.raises(KeyboardInterrupt, match="1 finished part is kept"):
        training.train_in_network(tmp_path / "two", little, n_jobs=1)
    monkeypatch.setattr(training, "train_network", real)
    with pytest.raises(ValueError, match=r"begun with recipe.epochs 1, not 2"):
        training.train_in_network(tmp_path / "two", replace(little, epochs=2), n_jobs=1)
    training.train_in_network(tmp_path / "two", little, n_jobs=1)
    assert compare(tmp_path / "one", tmp_path / "two").lines() == [
        "sets of networks: 3 of 3 files identical"
    ]
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert manifest["recipe"]["epochs"] == 1
    with pytest.raises(FileExistsError, match="already holds"):
        training.train_in_network(tmp_path / "two", little, n_jobs=1)


@pytest.mark.parametrize(
    ("make", "given", "says"),
    [
        ("NetworkRun", {"arm": "star"}, "arm is 'star'"),
        ("NetworkRun", {"price": 0.1}, "price is 0.1"),
        ("NetworkRun", {"arm": PRICED}, "price is 0"),
        ("NetworkRecipe", {"codes": 0}, "codes is 0"),
        ("NetworkRecipe", {"least_noise": 4.0}, "least_noise is 4"),
        ("NetworkRecipe", {"learning_rate": 0.0}, "learning_rate is 0"),
    ],
)
def test_a_bad_recipe_gets_one_sentence(training, make, given, says):
    with pytest.raises(ValueError, match=says):
        getattr(training, make)(**given)
