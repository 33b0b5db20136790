"""What expert parallelism pays for a routing: devices a token, bytes, the busiest device of a step.

Experts are spread over G devices, a step's tokens too (equal runs of them, in order). A token is
sent once to every other device that holds one of its experts, and a sum comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import LARGEST, as_count, as_number
from expertbank.routers._batch import as_choices
from expertbank.routers.placement import place
from expertbank.routers.statistics import Layer, RouterStatistics


class Communication:
    """Sums over tokens of one layer under one placement; fed with `update`, added with `+`.

    `placement` (P,) names the expert of each physical slot, device by device; `n_devices` G divides
    P; `step` is how many tokens are computed at once. A copy on a token's own device serves it;
    else one on a device that serves it anyway; else copies take turns. Raises ValueError for a
    placement that leaves an expert out.

    >>> paid = Communication([0, 1, 2, 3], n_devices=2, step=4)
    >>> paid.update([[0, 1], [0, 2], [2, 3], [1, 3]])
    >>> paid.devices_a_token, paid.sent_a_token
    (1.5, 0.5)
    """

    def __init__(self, placement: ArrayLike, n_devices: int, step: int = 256):
        slots = np.asarray(placement)
        self.n_devices = as_count(n_devices, "n_devices")
        self.step = as_count(step, "step")
        counted = slots.ndim == 1 and slots.size > 0
        if not counted or set(slots.tolist()) != set(range(int(slots.max()) + 1)):
            raise ValueError(
                "placement leaves an expert out; allowed are slots that hold every expert, 0 and up"
            )
        if slots.size % self.n_devices:
            raise ValueError(f"{slots.size} slots do not share {n_devices} devices evenly")
        self.placement = slots
        self.n_experts = int(slots.max()) + 1
        device = np.repeat(np.arange(self.n_devices), slots.size // self.n_devices)
        # copies[e]: its devices, filled up in turns
        self._copies = [device[slots == expert] for expert in range(self.n_experts)]
        self.holds = np.zeros((self.n_experts, self.n_devices), bool)
        self.holds[slots, device] = True
        self.tokens = 0
        self.traffic = np.zeros((self.n_devices, self.n_devices), np.int64)
        """(G, G) tokens of the device of the row that the device of the column serves"""
        self.busiest: list[float] = []
        """of each step, the slots of its busiest device over the mean"""

    def update(self, chosen: ArrayLike, mask: ArrayLike | None = None) -> None:
        """Count tokens (n, k) in their order, -1 for an empty slot; the last step may be short.
        `mask` (n,) is True for tokens that count.

        >>> paid = Communication([0, 1], n_devices=2, step=2)
        >>> paid.update([[0], [0]])
        >>> paid.busiest, paid.traffic.tolist()
        ([2.0], [[1, 0], [1, 0]])
        """
        shape = np.shape(chosen)
        n = shape[0] if shape else 0
        keep = np.ones(n, bool) if mask is None else np.asarray(mask, bool)
        rows = as_choices(chosen, "chosen", n, self.n_experts, self.n_experts, keep)
        rows = rows[(rows >= 0).any(axis=1)]
        for first in range(0, len(rows), self.step):
            self._count(rows[first : first + self.step])

    def _count(self, rows: np.ndarray) -> None:
        n = len(rows)
        home = np.arange(n) * self.n_devices // n
        device = self._serving(rows, home)
        served = np.zeros((n, self.n_devices), bool)
        token, slot = np.nonzero(rows >= 0)
        served[token, device[token, slot]] = True
        for g in range(self.n_devices):
            self.traffic[g] += served[home == g].sum(axis=0)
        self.tokens += n
        load = np.bincount(device[token, slot], minlength=self.n_devices)
        self.busiest.append(float(load.max() / load.mean()))

    def _serving(self, rows: np.ndarray, home: np.ndarray) -> np.ndarray:
        """The device (n, k) that serves each slot of rows (n, k) of tokens at home (n,)."""
        n, width = rows.shape
        taken = rows >= 0
        expert = np.where(taken, rows, 0)
        holds = self.holds[expert] & taken[:, :, None]
        # first those that can only be served in one place, then the others where it costs nothing
        fixed = holds.sum(axis=2, keepdims=True) == 1
        used = (holds & fixed).any(axis=1)
        used[np.arange(n), home] = True
        device = np.empty((n, width), np.int64)
        for slot in range(width):
            can = holds[:, slot]
            cheap = can & used
            turn = self._in_turn(expert[:, slot])
            device[:, slot] = np.where(cheap.any(axis=1), cheap.argmax(axis=1), turn)
            at_home = can[np.arange(n), home]
            device[at_home, slot] = home[at_home]
            used[np.arange(n), device[:, slot]] |= taken[:, slot]
        return device

    def _in_turn(self, experts: np.ndarray) -> np.ndarray:
        """A device (n,) for each expert (n,): its copies one after the other."""
        turn = np.empty(len(experts), np.int64)
        for expert in np.unique(experts):
            here = np.flatnonzero(experts == expert)
            copies = self._copies[expert]
            turn[here] = copies[np.arange(len(here)) % len(copies)]
        return turn

    @property
    def devices_a_token(self) -> float:
        """Mean number of devices that serve a token."""
        return float(self.traffic.sum() / self.tokens)

    @property
    def sent_a_token(self) -> float:
        """Mean number of other devices that a token is sent to."""
        return float((self.traffic.sum() - np.trace(self.traffic)) / self.tokens)

    def bytes_a_token(
        self, hidden_size: int, dispatch_bytes: float = 2, combine_bytes: float = 2
    ) -> tuple[float, float]:
        """Bytes of dispatch and of combine a token, for numbers of so many bytes each.

        >>> paid = Communication([0, 1], n_devices=2, step=2)
        >>> paid.update([[0], [0]])
        >>> paid.bytes_a_token(hidden_size=1024, dispatch_bytes=1)
        (512.0, 1024.0)
        """
        size = as_count(hidden_size, "hidden_size")
        there = as_number(dispatch_bytes, "dispatch_bytes", 0, LARGEST)
        back = as_number(combine_bytes, "combine_bytes", 0, LARGEST)
        return self.sent_a_token * size * there, self.sent_a_token * size * back

    def busiest_device(self, quantile: float) -> float:
        """The quantile, over steps, of the busiest device's slots over the mean; 1 is balance."""
        return float(np.quantile(self.busiest, as_number(quantile, "quantile", 0, 1)))

    def __add__(self, other: Communication) -> Communication:
        """What both counted, under the same placement and step."""
        ours = (self.placement.tolist(), self.n_devices, self.step)
        if ours != (other.placement.tolist(), other.n_devices, other.step):
            raise ValueError("cannot add what was counted under another placement or step")
        both = Communication(self.placement, self.n_devices, self.step)
        both.tokens = self.tokens + other.tokens
        both.traffic += self.traffic + other.traffic
        both.busiest = self.busiest + other.busiest
        return both


def dropped_share(
    chosen: ArrayLike, n_experts: int, factors: ArrayLike, step: int = 256
) -> np.ndarray:
    """Share of slots (F,) that are dropped where an expert takes at most f n k / E of a step's n
    tokens, for capacity factors (F,); tokens are (n, k), -1 for an empty slot.

    >>> dropped_share([[0], [0], [0], [1]], n_experts=2, factors=[1, 1.5], step=4).tolist()
    [0.25, 0.0]
    """
    n_experts = as_count(n_experts, "n_experts")
    step = as_count(step, "step")
    n = np.shape(chosen)[0]
    rows = as_choices(chosen, "chosen", n, n_experts, n_experts, np.ones(n, bool))
    factors = np.asarray(factors, float)
    dropped = np.zeros(len(factors))
    for first in range(0, n, step):
        some = rows[first : first + step]
        load = np.bincount(some[some >= 0], minlength=n_experts)
        room = np.ceil(factors * some.size / n_experts)
        dropped += np.maximum(load - room[:, None], 0).sum(axis=1)
    return dropped / max(1, (rows >= 0).sum())


Read = Callable[[], Iterable[tuple[Layer, Mapping[str, np.ndarray]]]]
"""Gives (layer, arrays) of the same tokens each time it is called, as `read_routing` does"""


def judge_placements(
    read: Read,
    sizes: RouterStatistics,
    n_devices: int,
    kinds: Mapping[str, int],
    step: int = 256,
    given: Mapping[Layer, ArrayLike] | None = None,
) -> dict[Layer, dict[str, Communication]]:
    """What placements of each kind cost, fitted on every second sequence and judged on the others.

    `read` gives (layer, arrays) of the same tokens each time it is called, as `read_routing` does;
    `sizes` is an empty `RouterStatistics` that says how many experts there are, `kinds` how many
    replicas each kind of `PLACEMENTS` has. `given` are placements of one's own by layer, judged as
    kind "given". Where no sequence is known, the first half of the tokens is fitted and the second
    judged. Raises ValueError where there are no choices, and for a layer that `given` leaves out.

    >>> rows = {"chosen": np.array(8 * [[0, 2], [1, 3]]), "sequence": np.repeat([0, 1], 8)}
    >>> read = lambda: [(0, rows)]
    >>> found = judge_placements(
    ...     read, RouterStatistics(4, 2), 2, {"contiguous": 0, "coactivation": 0}
    ... )
    >>> {kind: paid.devices_a_token for kind, paid in found[0].items()}
    {'contiguous': 2.0, 'coactivation': 1.0}
    """
    fitted = RouterStatistics(**sizes.configuration)
    for name, arrays in read():
        if "chosen" in arrays:
            known, _ = _halves(arrays)
            fitted.update(name, arrays["chosen"], mask=known)
    if not fitted.layers:
        raise ValueError("nothing to place: there are loads but no choices of tokens")
    found: dict[Layer, dict[str, Communication]] = {}
    for name, layer in fitted.layers.items():
        found[name] = {}
        for kind, n_replicas in kinds.items():
            placement = place(layer, n_devices, kind, n_replicas)
            found[name][kind] = Communication(placement, n_devices, step)
        if given is not None:
            if name not in given:
                raise ValueError(f"the map has no layer {name}; it has {len(given)} layers")
            found[name]["given"] = Communication(given[name], n_devices, step)
            if found[name]["given"].n_experts != sizes.n_experts:
                raise ValueError(
                    f"the map has {found[name]['given'].n_experts} experts, the router "
                    f"{sizes.n_experts}"
                )
    for name, arrays in read():
        if "chosen" in arrays:
            _, judged = _halves(arrays)
            for paid in found[name].values():
                paid.update(arrays["chosen"], judged)
    return found


FACTORS = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
"""Capacity factors of the curve of dropped slots"""


@dataclass(frozen=True)
class Cost:
    """What one placement of one layer costs, on texts that it was not fitted on.

    >>> Cost(0, "load", 2.1, 1.6, None, None, 1.1, 1.4, ()).sent
    1.6
    """

    layer: Layer
    placement: str
    devices: float
    """that serve a token, on average"""
    sent: float
    """other devices that a token is sent to"""
    dispatch_bytes: float | None
    """a token; None where the hidden size is not known"""
    combine_bytes: float | None
    busiest: float
    """slots of a step's busiest device over the mean: median over steps"""
    busiest_95: float
    """its 95% quantile"""
    traffic: tuple[tuple[int, ...], ...]
    """(G, G) tokens of the device of the row that the device of the column serves"""


@dataclass(frozen=True)
class Costs:
    """What expert parallelism costs a router, under several placements. `communication_costs` makes
    it.

    >>> Costs(2, 256, None, 2.0, (), {}).mean("devices")
    {}
    """

    n_devices: int
    step: int
    """tokens computed at once"""
    hidden_size: int | None
    number_bytes: float
    """of each number of the hidden state, both ways"""
    costs: tuple[Cost, ...]
    dropped: dict[Layer, tuple[float, ...]]
    """by layer, the share of slots dropped at each of `FACTORS`"""

    def kinds(self) -> list[str]:
        """The placements, in their order."""
        return list(dict.fromkeys(cost.placement for cost in self.costs))

    def mean(self, name: str) -> dict[str, float | None]:
        """The mean over layers of a field of `Cost`, by placement; None where it is not known."""
        found: dict[str, float | None] = {}
        for kind in self.kinds():
            values = [getattr(cost, name) for cost in self.costs if cost.placement == kind]
            found[kind] = None if None in values else float(np.mean(values))
        return found

    def devices(self, kind: str) -> float:
        """Devices that serve a token under a placement, mean over layers."""
        return float(np.mean([each.devices for each in self.costs if each.placement == kind]))

    def traffic(self, kind: str) -> list[list[int]]:
        """(G, G) tokens by the device they are at and the one that serves them, of all layers."""
        tables = [cost.traffic for cost in self.costs if cost.placement == kind]
        return np.sum(tables, axis=0).tolist()

    def mean_dropped(self) -> list[float]:
        """The mean over layers of the share of slots dropped, at each of `FACTORS`."""
        return np.mean(list(self.dropped.values()), axis=0).tolist()


def communication_costs(
    read: Read,
    sizes: RouterStatistics,
    n_devices: int,
    kinds: Mapping[str, int],
    step: int = 256,
    hidden_size: int | None = None,
    number_bytes: float = 2,
    given: Mapping[Layer, ArrayLike] | None = None,
) -> Costs:
    """Everything that `judge_placements` judges, as plain numbers, with bytes where the hidden size
    is known, and the share of slots dropped by capacity factor, which needs no placement.

    >>> rows = {"chosen": np.array(8 * [[0, 2], [1, 3]]), "sequence": np.repeat([0, 1], 8)}
    >>> sizes = RouterStatistics(4, 2)
    >>> found = communication_costs(lambda: [(0, rows)], sizes, 2, {"contiguous": 0}, step=8)
    >>> found.mean("devices"), found.mean_dropped()[0]
    ({'contiguous': 2.0}, 0.0)
    """
    judged = judge_placements(read, sizes, n_devices, kinds, step, given)
    costs = []
    for name, ways in judged.items():
        for kind, paid in ways.items():
            sent = (None, None)
            if hidden_size is not None:
                sent = paid.bytes_a_token(hidden_size, number_bytes, number_bytes)
            traffic = tuple(tuple(row) for row in paid.traffic.tolist())
            quantiles = (paid.busiest_device(0.5), paid.busiest_device(0.95))
            one = Cost(
                name, kind, paid.devices_a_token, paid.sent_a_token, *sent, *quantiles, traffic
            )
            costs.append(one)
    dropped = _dropped(read, sizes.n_experts, step)
    return Costs(n_devices, step, hidden_size, number_bytes, tuple(costs), dropped)


def _dropped(read: Read, n_experts: int, step: int) -> dict[Layer, tuple[float, ...]]:
    """By layer, the share of slots dropped at each of `FACTORS`."""
    sums: dict[Layer, np.ndarray] = {}
    slots: dict[Layer, int] = {}
    for name, arrays in read():
        if "chosen" in arrays:
            chosen = np.asarray(arrays["chosen"])
            rows = chosen[np.asarray(arrays.get("mask", np.ones(len(chosen), bool)), bool)]
            n_slots = int((rows >= 0).sum())
            lost = dropped_share(rows, n_experts, FACTORS, step) * n_slots
            sums[name] = sums.get(name, 0) + lost
            slots[name] = slots.get(name, 0) + n_slots
    return {name: tuple((lost / max(1, slots[name])).tolist()) for name, lost in sums.items()}


def _halves(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens (n,) are fitted, and which judged."""
    n = len(arrays["chosen"])
    counts = np.asarray(arrays.get("mask", np.ones(n, bool)), bool)
    if "sequence" in arrays:
        _, number = np.unique(arrays["sequence"], return_inverse=True)
        is_fitted = number % 2 == 0
    else:
        is_fitted = np.arange(n) < n // 2
    return is_fitted & counts, ~is_fitted & counts
