"""The scene of learning in a network: one network and its tree, and what a price on the rate of its
gates leaves."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.interpolate import PchipInterpolator

from expertbank.book.explorers.common import FIRST, FOURTH, LIMIT, SECOND, THIRD, with_stops
from expertbank.book.explorers.explorer import Dial, Explorer
from expertbank.book.explorers.scene import Axis, Mark, Panel, Reading, Scene, Series, Track
from expertbank.shipped.in_network import (
    DENSE,
    FUSION,
    PRICED,
    RANDOM,
    SHORTEST,
    SPANNING,
    InNetworkRuns,
    load_in_network,
    routes,
    sensor_network,
)

LOOKS = {DENSE: LIMIT, RANDOM: FOURTH, SPANNING: THIRD, SHORTEST: SECOND}


def walk(links: np.ndarray) -> list[int]:
    """Nodes (2K + 1,) on a way along links (K, 2) that goes through each there and back, from the
    fusion node.

    >>> walk(np.array([[1, 0], [2, 1]]))
    [0, 1, 2, 1, 0]
    """
    found = [FUSION]
    seen: set[int] = set()

    def visit(node: int) -> None:
        for index, (one, other) in enumerate(links.tolist()):
            if node in (one, other) and index not in seen:
                seen.add(index)
                found.append(other if node == one else one)
                visit(found[-1])
                found.append(node)

    visit(FUSION)
    return found


class _Networks:
    """Rate and accuracy of the runs of one network, or of all of them on average."""

    def __init__(self, runs: InNetworkRuns) -> None:
        table = runs.columns()
        self.runs = runs
        self.seeds = np.unique(table["seed"])
        self.prices = np.array(runs.prices[1:])
        self.lowest = float(100 * table["accuracy"].min())
        self.most = float(table["rate"].max())
        # the same at every price
        self.at = lru_cache(maxsize=32)(self._at)
        self.others = lru_cache(maxsize=32)(self._others)

    def _mean(self, arm: str, name: str, **wanted: float) -> float:
        return float(self.runs.columns(arm=arm, **wanted)[name].mean())

    def _seed_of(self, network: int) -> dict[str, float]:
        """What picks the runs of network 1, 2, ..., or nothing, for all, where it is 0."""
        return {"seed": float(self.seeds[network - 1])} if network else {}

    def _at(self, network: int) -> tuple[np.ndarray, np.ndarray]:
        """Rate and accuracy at every price, of network 1, 2, ..., or of all for 0."""
        wanted = self._seed_of(network)
        found = [
            [self._mean(PRICED, name, price=price, **wanted) for price in self.prices]
            for name in ("rate", "accuracy")
        ]
        return np.array(found[0]), np.array(found[1])

    def _others(self, network: int) -> list[Series]:
        """A dot for each arm without a price."""
        wanted = self._seed_of(network)
        dots = []
        for arm, look in LOOKS.items():
            rate = self._mean(arm, "rate", **wanted)
            accuracy = 100 * self._mean(arm, "accuracy", **wanted)
            dots.append(Series(arm, [rate], [accuracy], "dots", look))
        return dots


@lru_cache(maxsize=32)
def map_of(seed: int) -> Panel:
    """Where the nodes of a network stand, its links, and the tree of shortest paths."""
    network = sensor_network(seed)
    x, y = network.places.T
    series = []
    tree = routes(network, SHORTEST).links
    for name, links, look in (("links", network.links, LIMIT), ("D-INL", tree, SECOND)):
        way = walk(links)
        series.append(Series(name, x[way], y[way], look=look))
    series.append(Series("sensors", x[1:], y[1:], "dots", FIRST))
    fusion = Mark("fusion node", float(x[FUSION]), float(y[FUSION]), "cross")
    across = Axis("place, west to east", -0.05, 1.05)
    up = Axis("place, south to north", -0.05, 1.05)
    return Panel(across, up, series, [fusion], title="the network")


def explore_in_network(runs: InNetworkRuns | None = None) -> Explorer:
    """Accuracy against the rate of the gates as a nat gets dearer, on one of ten networks or on
    average, beside the arms without a price.

    Between prices that were trained the means are joined smoothly over the logarithm of the price.
    """
    networks = _Networks(load_in_network() if runs is None else runs)
    prices = networks.prices
    stops = with_stops(np.geomspace(prices[0], prices[-1], 51), *prices)
    x = Axis("rate of all gates, nats an image", 0, 1.05 * networks.most)
    y = Axis("images classified rightly, %", networks.lowest - 1, 100)

    def scene(price: float, network: float = 0) -> Scene:
        rates, accuracies = networks.at(int(network))
        joined = PchipInterpolator(np.log(prices), np.stack([rates, 100 * accuracies]), axis=1)
        all_rates, all_accuracies = joined(np.log(stops))
        rate, accuracy = joined(np.log(np.clip(price, prices[0], prices[-1]))).tolist()
        dots = networks.others(int(network))
        free_rate = float(np.asarray(dots[-1].x)[0])
        line = Series("D-INL by its price", all_rates, all_accuracies, look=FIRST)
        ring = Mark("at this price", rate, accuracy)
        track = Track("price", np.array(stops), all_rates, all_accuracies)
        panel = Panel(x, y, [line, *dots], [ring], track, title="what a price leaves")
        readings = [
            Reading("rate of all gates", rate, 2, "nats"),
            Reading("less than without a price", 100 * (1 - rate / free_rate), 0, "%"),
            Reading("classified rightly", accuracy, 1, "%"),
            Reading("by dense exchange", float(np.asarray(dots[0].y)[0]), 1, "%"),
        ]
        shown = map_of(int(networks.seeds[max(int(network) - 1, 0)]))
        return Scene([panel, shown], readings)

    count = len(networks.seeds)
    names = ("mean of all (the first is drawn)", *(f"network {i + 1}" for i in range(count)))
    alt = (
        "Left, share of images classified rightly against the rate of the gates: a nearly flat "
        "curve that falls a little towards rate zero, with dots for arms without a price. Right, a "
        "map of nine nodes, their links and the tree of shortest paths. A ring marks the price."
    )
    dials = {
        "price": Dial(
            "price of a nat",
            0.003,
            stops,
            (float(np.log10(prices[0])), float(np.log10(prices[-1])), "log"),
        ),
        "network": Dial("network", 0, np.arange(count + 1.0).tolist(), names=names),
    }
    return Explorer("in_network", scene, dials, alt)
