"""Networks of sensors that learn along their links, and the shipped runs on them. Nats.

After Deylam Salehi (2026), "D-INL", of which we know abstract and introduction; every choice that
these leave open is ours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, dijkstra, minimum_spanning_tree

from expertbank._checks import as_count
from expertbank._files import read_arrays, write_atomically
from expertbank.shipped.frames import csv_bytes, matching, read_columns
from expertbank.shipped.manifest import open_sealed, seal

FUSION = 0
N_SENSORS = 8
# of the 36 pairs of nine nodes: with these the paper's 70.4 % is what a tree of 8 links leaves out
N_LINKS = 27
LINK_NOISE = 2.0  # of a link, for each unit of its length: the best way is often through others
DENSE = "dense"
RANDOM = "random tree"
SPANNING = "minimum spanning tree"
SHORTEST = "D-INL"
PRICED = "D-INL with a price"
ARMS = (DENSE, RANDOM, SPANNING, SHORTEST, PRICED)
NETWORK_FILES = ("networks.csv", "errors.npz")


@dataclass(frozen=True)
class SensorNetwork:
    """Nine nodes in a unit square, the first of which fuses, and the 27 shortest links."""

    places: np.ndarray
    """(9, 2)"""
    links: np.ndarray
    """pairs of nodes (27, 2), the smaller number first"""
    distances: np.ndarray
    """of the two ends of each (27,)"""

    @property
    def noise(self) -> np.ndarray:
        """Standard deviation of what each link adds to a latent of unit power (27,)."""
        return LINK_NOISE * self.distances

    @property
    def capacities(self) -> np.ndarray:
        """Nats a use of a Gaussian channel with unit power (27,): half log(1 + 1 / noise^2)."""
        return 0.5 * np.log1p(self.noise**-2.0)


@dataclass(frozen=True)
class Routes:
    """The links in use, each in the direction of the fusion node."""

    links: np.ndarray
    """(K, 2): from, to"""
    noise: np.ndarray
    """standard deviation of each link's noise (K,)"""
    order: np.ndarray
    """all nodes (9,), each after those that send to it"""

    @property
    def hops(self) -> int:
        """Most links that something passes on its way."""
        longest = np.zeros(len(self.order), dtype=int)
        for node in self.order:
            for link in self.links[self.links[:, 0] == node]:
                longest[link[1]] = max(longest[link[1]], longest[node] + 1)
        return int(longest[FUSION])


def sensor_network(seed: int) -> SensorNetwork:
    """Nodes at random places, all of which the links reach.

    >>> network = sensor_network(0)
    >>> network.links.shape, round(float(network.capacities.max()), 2)
    ((27, 2), 2.27)
    """
    rng = np.random.default_rng(as_count(seed, "seed", at_least=0))
    first, second = np.triu_indices(N_SENSORS + 1, 1)
    while True:
        places = rng.random((N_SENSORS + 1, 2))
        apart = np.linalg.norm(places[first] - places[second], axis=1)
        shortest = np.argsort(apart, kind="stable")[:N_LINKS]
        links = np.stack([first[shortest], second[shortest]], axis=1)
        network = SensorNetwork(places, links, apart[shortest])
        # where one node lies far off, the others may have taken all links
        if np.isfinite(_distances(network)[0]).all():
            return network


def routes(network: SensorNetwork, arm: str, seed: int = 0) -> Routes:
    """Which links an arm uses: all of them, or a tree rooted at the fusion node.

    `"D-INL"` keeps the shortest paths where a link is 1/capacity long, by Dijkstra's algorithm;
    `"random tree"` is the spanning tree of least weight for weights drawn with `seed`. The dense
    arm sends along every link, from the node that is further from the fusion node.

    >>> network = sensor_network(0)
    >>> [len(routes(network, arm).links) for arm in ARMS]
    [27, 8, 8, 8, 8]
    """
    if arm not in ARMS:
        raise ValueError(f"arm is {arm!r}; allowed are {ARMS}")
    far, parents = _distances(network)
    if arm == DENSE:
        is_second = far[network.links[:, 1]] > far[network.links[:, 0]]
        links = np.where(is_second[:, None], network.links[:, ::-1], network.links)
        return Routes(links, network.noise, np.argsort(-far, kind="stable"))
    if arm in (SHORTEST, PRICED):
        order = np.argsort(-far, kind="stable")
    else:
        weights = 1 / network.capacities
        if arm == RANDOM:
            # positive, since to a sparse matrix 0 is no link
            weights = 1 + np.random.default_rng(seed).random(N_LINKS)
        tree = minimum_spanning_tree(_matrix(network.links, weights))
        reached, parents = breadth_first_order(tree, FUSION, directed=False)
        order = reached[::-1]
    senders = order[order != FUSION]
    links = np.stack([senders, parents[senders]], axis=1)
    noise = _matrix(network.links, network.noise).toarray()
    noise += noise.T
    return Routes(links, noise[links[:, 0], links[:, 1]], order)


def _matrix(links: np.ndarray, values: np.ndarray) -> csr_array:
    size = N_SENSORS + 1
    return csr_array((values, (links[:, 0], links[:, 1])), shape=(size, size))


def _distances(network: SensorNetwork) -> tuple[np.ndarray, np.ndarray]:
    """How far each node is from the fusion node (9,), and the next node on the way (9,)."""
    lengths = _matrix(network.links, 1 / network.capacities)
    far, parents = dijkstra(lengths, directed=False, indices=FUSION, return_predecessors=True)
    return far, parents


# --- the shipped runs ---


@dataclass(frozen=True)
class InNetworkRuns:
    """All runs, one row each, and on which test images each was wrong."""

    folder: Path = field(repr=False)
    manifest: dict = field(repr=False)
    _columns: dict = field(repr=False)
    _errors: np.ndarray = field(repr=False)

    @property
    def prices(self) -> list[float]:
        """Prices of a nat at which D-INL was trained, ascending."""
        is_tree = np.isin(self._columns["arm"], (SHORTEST, PRICED))
        return np.unique(self._columns["price"][is_tree]).tolist()

    def columns(self, **wanted) -> dict[str, np.ndarray]:
        """The runs with the wanted values, as columns (K,) by name.

        Raises ValueError where there is none.
        """
        found = matching(self._columns, wanted, "run")
        return {name: values[found] for name, values in self._columns.items()}

    def errors(self, **wanted) -> np.ndarray:
        """0 or 1 for each test image and run (10000, K)."""
        found = matching(self._columns, wanted, "run")
        n_images = self.manifest["data"]["test_images"]
        return np.unpackbits(self._errors[found], axis=1, count=n_images).T.astype(float)


def load_in_network(folder: str | os.PathLike | None = None) -> InNetworkRuns:
    """The shipped runs, or those of a folder, after checking their hashes.

    Raises FileNotFoundError where they are missing, ValueError where they are damaged.

    >>> runs = load_in_network()
    >>> runs.columns(arm="dense")["links"].tolist()[:2]
    [27.0, 27.0]
    """
    place, manifest, (table, errors) = open_sealed(folder, "in-network", NETWORK_FILES)
    packed = read_arrays(errors)["errors"]
    return InNetworkRuns(place, manifest, read_columns(table), packed)


def save_in_network(
    folder: str | os.PathLike, rows: Sequence[dict], errors: np.ndarray, manifest: dict
) -> None:
    """Write rows, errors (K, N) of as many runs, and the manifest that seals them.

    >>> import tempfile
    >>> rows = [{"arm": "dense", "price": 0.0, "seed": 0, "accuracy": 0.5}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_in_network(folder, rows, np.eye(1, 4), {"data": {"test_images": 4}})
    ...     load_in_network(folder).errors(seed=0).ravel().tolist()
    [1.0, 0.0, 0.0, 0.0]
    """
    import pandas as pd

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = csv_bytes(pd.DataFrame(rows))
    write_atomically(folder / NETWORK_FILES[0], lambda file: file.write(table))
    packed = np.packbits(np.asarray(errors, dtype=bool), axis=1)
    path = folder / NETWORK_FILES[1]
    write_atomically(path, lambda file: np.savez_compressed(file, errors=packed))
    seal(folder, manifest, NETWORK_FILES)
