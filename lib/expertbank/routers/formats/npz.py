"""Arrays of one's own, written by `numpy.savez`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from expertbank.routers.formats._common import (
    KEYS,
    OF_EXPERTS,
    Arrays,
    Format,
    Piece,
    arrays_of,
    names_in,
    split_by_layer,
    take_number,
)


def read_npz(path: Path) -> Iterator[Piece]:
    """Arrays under the names of `KEYS`: rows of one layer (n, k), of several told apart by `layer`
    (n,), or (layers, n, k) with names `layer` (layers,).

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "routes.npz")
    ...     np.savez(path, chosen=[[0], [3], [1]], layer=[0, 0, 1], n_experts=4)
    ...     [(piece.layer, piece.arrays["chosen"].tolist()) for piece in read_npz(path)]
    [(0, [[0], [3]]), (1, [[1]])]
    """
    arrays = arrays_of(path)
    unknown = sorted(set(arrays) - set(KEYS))
    if unknown:
        raise ValueError(
            f"{path} has keys {unknown}; allowed are {', '.join(KEYS)}, or format='vllm'"
        )
    n_experts = take_number(arrays, "n_experts")
    layers = arrays.pop("layer", None)
    of_experts = [key for key in OF_EXPERTS if key in arrays]
    if not {"chosen", "probabilities"} & set(of_experts):
        raise ValueError(f"{path} has keys {sorted(arrays)}; chosen or probabilities is needed")
    axes = {key: arrays[key].ndim for key in of_experts}
    if set(axes.values()) not in ({2}, {3}):
        raise ValueError(
            f"{path}: axes are {axes}; allowed are (tokens, k) or (layers, tokens, k), the same "
            "for all"
        )
    if n_experts is None and "probabilities" in arrays:
        n_experts = arrays["probabilities"].shape[-1]
    first = of_experts[0]
    if axes[first] == 3:
        yield from _stacked_layers(path, arrays, of_experts, layers, n_experts)
    elif layers is None:
        yield Piece(0, arrays, n_experts)
    elif layers.ndim == 0:
        yield Piece(layers.item(), arrays, n_experts)
    else:
        if layers.shape != arrays[first].shape[:1]:
            raise ValueError(
                f"{path}: layer has shape {layers.shape}; allowed is one a row, "
                f"{arrays[first].shape[:1]}"
            )
        yield from split_by_layer(arrays, layers, n_experts)


def _stacked_layers(
    path: Path,
    arrays: Arrays,
    of_experts: list[str],
    layers: np.ndarray | None,
    n_experts: int | None,
) -> Iterator[Piece]:
    """A piece for each index of the first axis of arrays (layers, n, k)."""
    sizes = {key: len(arrays[key]) for key in of_experts}
    if layers is None:
        layers = np.arange(sizes[of_experts[0]])
    else:
        sizes["layer"] = layers.size
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{path}: numbers of layers are {sizes}; allowed is the same for all")
    for i, layer in enumerate(layers.tolist()):
        own = {key: array[i] if key in of_experts else array for key, array in arrays.items()}
        yield Piece(layer, own, n_experts)


def _is_npz(path: Path) -> bool:
    return bool({"chosen", "probabilities"} & names_in(path))


FORMAT = Format(
    name="npz",
    suffixes=(".npz",),
    description=(
        "arrays chosen (tokens, k), integer experts, -1 for a dropped slot; and where known "
        "weights (tokens, k); probabilities (tokens, experts), the router's softmax; domain, "
        "sequence, position, token, mask (tokens,); layer (tokens,) or an axis of layers in front"
    ),
    read=read_npz,
    recognises=_is_npz,
)
