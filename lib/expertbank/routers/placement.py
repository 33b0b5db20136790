"""Where experts live: which device holds which, by what the routing says about load and company.

A placement of one layer is the list of its P physical experts, device by device: entry p is the
expert that slot p holds, and device g has the slots g P/G to (g + 1) P/G - 1. With P > E some
experts have replicas. This is the `physical_to_logical_map` of EPLB, which vLLM and SGLang load.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import as_count
from expertbank._files import check_input, reading, write_atomically
from expertbank.routers.statistics import Layer, LayerStatistics

PLACEMENTS = ("contiguous", "load", "coactivation", "replicated")
ENGINES = ("sglang", "vllm", "vllm-ascend")
SLACK = 1.02  # a device may serve this much more than the mean, or what balance by load reaches
ROUNDS = 10_000  # swaps at most


def place(
    layer: LayerStatistics, n_devices: int, kind: str = "coactivation", n_replicas: int = 0
) -> np.ndarray:
    """The experts (P,) of a layer's physical slots on G devices, device by device.

    `kind` is one of `PLACEMENTS`: in the order of their numbers; each to the device with the least
    load; then swapped as long as more experts of a token share a device and no device serves more
    than `SLACK` times the mean (or what balance by load reaches); or balance by load with
    `n_replicas` more slots, for the experts that serve most. Raises ValueError for other kinds, a
    layer without choices, and slots that G does not divide.

    Teams of two share a device where their company is known:

    >>> from expertbank.routers import RouterStatistics
    >>> statistics = RouterStatistics(n_experts=4, n_chosen=2)
    >>> statistics.update(0, 8 * [[0, 2], [1, 3]])
    >>> place(statistics.layers[0], 2, "contiguous").tolist()
    [0, 1, 2, 3]
    >>> sorted(place(statistics.layers[0], 2)[:2].tolist()) in ([0, 2], [1, 3])
    True
    """
    n_devices = as_count(n_devices, "n_devices")
    n_replicas = as_count(n_replicas, "n_replicas", 0)
    n_experts = len(layer.slots)
    if kind not in PLACEMENTS:
        raise ValueError(f"kind is {kind!r}; allowed are {', '.join(PLACEMENTS)}")
    if n_replicas and kind != "replicated":
        raise ValueError(f"n_replicas is {n_replicas}; allowed is 0 unless kind is 'replicated'")
    if (n_experts + n_replicas) % n_devices:
        raise ValueError(
            f"{n_experts + n_replicas} experts do not share {n_devices} devices evenly; allowed "
            "are numbers that divide"
        )
    if kind == "contiguous":
        return np.arange(n_experts)
    if not layer.slots.any():
        raise ValueError("the layer has no choices; a placement needs its load")
    held = _with_replicas(layer.slots, n_replicas)
    load = layer.slots / np.bincount(held, minlength=n_experts)
    by_load = _by_load(held, load, n_devices)
    if kind != "coactivation":
        return by_load
    if not layer.pairs.any():
        raise ValueError("no two experts were chosen together; co-activation says nothing")
    return _by_company(by_load, layer.pairs, load, n_devices)


def _with_replicas(slots: np.ndarray, n_replicas: int) -> np.ndarray:
    """Experts (P,) that need a slot: each replica goes to the one whose copies serve most."""
    copies = np.ones(len(slots), np.intp)  # which is 32 bits wide in a page
    for _ in range(n_replicas):
        copies[(slots / copies).argmax()] += 1
    return np.repeat(np.arange(len(slots)), copies)


def _by_load(held: np.ndarray, load: np.ndarray, n_devices: int) -> np.ndarray:
    """The longest first, each to the device with the least load that has room, and none of it."""
    room = len(held) // n_devices
    devices: list[list[int]] = [[] for _ in range(n_devices)]
    total = np.zeros(n_devices)
    for expert in held[np.argsort(-load[held], kind="stable")]:
        # a second copy on the same device helps nobody, unless there is no other room
        worth = [(len(own) >= room, expert in own) for own in devices]
        best = min(range(n_devices), key=lambda g: (*worth[g], total[g], g))
        devices[best].append(int(expert))
        total[best] += load[expert]
    return np.concatenate([np.sort(own) for own in devices])


def _by_company(
    start: np.ndarray, pairs: np.ndarray, load: np.ndarray, n_devices: int
) -> np.ndarray:
    """Swaps of two experts that raise the pairs within devices most, as long as there are any.

    The number of devices that a token meets is no sum over pairs; pairs within a device are what
    lowers it.
    """
    n_experts = len(load)
    device = np.empty(n_experts, np.int64)
    device[start] = np.repeat(np.arange(n_devices), n_experts // n_devices)
    total = np.bincount(device, load, n_devices)
    most = max(SLACK * total.mean(), total.max())
    for _ in range(ROUNDS):
        # company[i, g]: how often i is chosen with an expert of device g
        company = np.stack([pairs[:, device == g].sum(axis=1) for g in range(n_devices)], axis=1)
        own = company[np.arange(n_experts), device]
        moved = company[:, device] - own[:, None]
        gain = moved + moved.T - 2 * pairs
        after = total[device][:, None] - load[:, None] + load[None, :]
        fits = np.maximum(after, after.T) <= most
        gain = np.where(fits & (device[:, None] != device), gain, 0)
        one, other = np.unravel_index(gain.argmax(), gain.shape)
        if gain[one, other] <= 0:
            break
        device[[one, other]] = device[[other, one]]
        total = np.bincount(device, load, n_devices)
    return np.argsort(device, kind="stable")


def save_placement(
    path: str | os.PathLike[str],
    placements: Mapping[Layer, ArrayLike],
    n_devices: int,
    engine: str = "sglang",
) -> None:
    """Write the map of all layers, in their order, as JSON that an engine loads.

    `engine` is one of `ENGINES`. sglang: `--init-expert-location FILE`, with
    `--ep-num-redundant-experts` where there are replicas (a row for each layer that its model
    counts). vllm: a row of physical experts a layer, the form of `EplbState`'s
    `physical_to_logical_map`, which the proposed `initial_expert_map_path` takes (pull request
    49572). vllm-ascend: `expert_map_path`. Raises ValueError for another engine, or rows of
    different lengths or such as the devices do not share evenly.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_placement(f"{folder}/map.json", {0: [0, 2, 1, 3]}, n_devices=2)
    ...     print(open(f"{folder}/map.json").read().strip())
    {"physical_to_logical_map": [[0, 2, 1, 3]]}
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; allowed are {', '.join(ENGINES)}")
    rows = [np.asarray(row).tolist() for row in placements.values()]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or widths.pop() % n_devices:
        raise ValueError(
            f"placements have {sorted({len(row) for row in rows})} slots on {n_devices} devices; "
            "allowed is one number that the devices share evenly"
        )
    content: object = rows
    if engine == "sglang":
        content = {"physical_to_logical_map": rows}
    if engine == "vllm-ascend":
        layers = [_layer_on_devices(i, row, n_devices) for i, row in enumerate(rows)]
        content = {"moe_layer_count": len(rows), "layer_list": layers}
    text = json.dumps(content) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def load_placement(path: str | os.PathLike[str]) -> list[list[int]]:
    """The slots (P,) of each layer in a map as one of `ENGINES` loads it, whichever it is.
    ValueError for anything else.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_placement(f"{folder}/map.json", {0: [0, 2, 1, 3]}, 2, "vllm-ascend")
    ...     load_placement(f"{folder}/map.json")
    [[0, 2, 1, 3]]
    """
    check_input(path, "a map of experts as JSON")
    with reading(path, f" as a map of experts for {', '.join(ENGINES)}"):
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        if isinstance(content, dict) and "layer_list" in content:
            content = [
                [expert for device in layer["device_list"] for expert in device["device_expert"]]
                for layer in content["layer_list"]
            ]
        elif isinstance(content, dict):
            content = content["physical_to_logical_map"]
        rows = [[operator.index(expert) for expert in row] for row in content]
        if not rows or not all(rows):
            raise ValueError("it holds a layer without an expert, or none at all")
    return rows


def _layer_on_devices(number: int, row: list[int], n_devices: int) -> dict:
    room = len(row) // n_devices
    devices = [
        {"device_id": g, "device_expert": row[g * room : (g + 1) * room]} for g in range(n_devices)
    ]
    return {"layer_id": number, "device_count": n_devices, "device_list": devices}
