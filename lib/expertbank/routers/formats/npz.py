"""Arrays of one's own, written by `numpy.savez`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from expertbank.routers.formats._arrays import (
    Rows,
    arrays_named,
    cuts_between_sequences,
    names_in,
    one_integer,
    rows_of,
    with_flat_layers,
)
from expertbank.routers.formats._common import (
    ALIASES,
    KEYS,
    LABELS,
    OF_EXPERTS,
    Arrays,
    Asked,
    Format,
    Piece,
    as_numbers,
    signed,
    split_by_layer,
)


def read_npz(path: Path, asked: Asked) -> Iterator[Piece]:
    """Arrays under the names of `KEYS`: rows of one layer (n, k), of several told apart by `layer`
    (n,), or (layers, n, k) with names `layer` (layers,).

    Rows are read a batch at a time where the sequences stand together and nothing is compressed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "routes.npz")
    ...     np.savez(path, chosen=[[0], [3], [1]], layer=[0, 0, 1], n_experts=4)
    ...     [(piece.layer, piece.arrays["chosen"].tolist()) for piece in read_npz(path, Asked())]
    [(0, [[0], [3]]), (1, [[1]])]
    """
    names = asked.rename(path, names_in(path), KEYS)
    found = {names[key]: key for key in (*LABELS, "layer", "n_experts") if key in names}
    small = {found[name]: array for name, array in arrays_named(path, *found).items()}
    n_experts = one_integer(small, "n_experts")
    layers = small.get("layer")
    labels = {k: as_numbers(str(path), k, small[k], asked) for k in LABELS if k in small}
    rows = {key: rows_of(path, names[key]) for key in OF_EXPERTS if key in names}
    axes = {key: len(array.shape) for key, array in rows.items()}
    if set(axes.values()) not in ({2}, {3}):
        raise ValueError(
            f"{path}: axes are {axes}; allowed are (tokens, k) or (layers, tokens, k), the same "
            "for all"
        )
    if n_experts is None and "probabilities" in rows:
        n_experts = rows["probabilities"].shape[-1]
    shape = next(iter(rows.values())).shape
    n = shape[-2]
    _check_lengths(path, {key: array.shape[-2] for key, array in rows.items()}, labels, n)
    sequence = [labels["sequence"]] if "sequence" in labels else []
    if len(shape) == 3:
        stacked = _layers_of_stack(path, rows, layers)
        rows = {key: with_flat_layers(array) for key, array in rows.items()}
        for i, layer in enumerate(stacked):
            if asked.wants(layer):
                for start, stop in cuts_between_sequences(n, *sequence):
                    span = slice(i * n + start, i * n + stop)
                    yield Piece(layer, _span(rows, labels, span, start, stop), n_experts)
        return
    keys = sequence
    if layers is not None and layers.ndim:
        if layers.shape != (n,):
            raise ValueError(
                f"{path}: layer has shape {layers.shape}; allowed is one a row, {(n,)}"
            )
        keys = [np.unique(layers, return_inverse=True)[1], *sequence]
    for start, stop in cuts_between_sequences(n, *keys):
        arrays = _span(rows, labels, slice(start, stop), start, stop)
        if len(keys) > len(sequence):
            assert layers is not None
            yield from split_by_layer(arrays, layers[start:stop], n_experts, asked)
        else:
            layer = 0 if layers is None else layers.item()
            if asked.wants(layer):
                yield Piece(layer, arrays, n_experts)


def _span(
    rows: dict[str, np.ndarray | Rows], labels: Arrays, span: slice, start: int, stop: int
) -> Arrays:
    """Some rows of all arrays."""
    arrays = {key: array[span] for key, array in rows.items()}
    if "chosen" in arrays:
        arrays["chosen"] = signed(arrays["chosen"])
    return arrays | {key: label[start:stop] for key, label in labels.items()}


def _check_lengths(path: Path, lengths: dict[str, int], labels: Arrays, n: int) -> None:
    """Raise ValueError where arrays are about different numbers of tokens."""
    for key, length in lengths.items():
        if length != n:
            raise ValueError(f"{path}: {key} has {length} rows, {next(iter(lengths))} has {n}")
    for key, label in labels.items():
        if label.shape != (n,):
            raise ValueError(f"{path}: {key} has shape {label.shape}; allowed is {(n,)}")


def _layers_of_stack(
    path: Path, rows: dict[str, np.ndarray | Rows], layers: np.ndarray | None
) -> list:
    """The names of the layers along the first axis of arrays (layers, n, k)."""
    sizes = {key: array.shape[0] for key, array in rows.items()}
    if layers is None:
        layers = np.arange(next(iter(sizes.values())))
    else:
        sizes["layer"] = layers.size
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{path}: numbers of layers are {sizes}; allowed is the same for all")
    return layers.ravel().tolist()


def _is_npz(path: Path, asked: Asked) -> bool:
    names = {asked.columns.get(name, ALIASES.get(name, name)) for name in names_in(path)}
    return bool({"chosen", "probabilities"} & names)


FORMAT = Format(
    name="npz",
    suffixes=(".npz",),
    description=(
        "arrays chosen (tokens, k), integer experts, `-1` for a dropped slot; and where known "
        "weights (tokens, k); probabilities (tokens, experts), the router's softmax; domain, "
        "sequence, position, token, mask (tokens,), phase (tokens,), 0 for a prompt's and 1 for "
        "generated ones; layer (tokens,) or an axis of layers in front"
    ),
    read=read_npz,
    recognises=_is_npz,
    writer="numpy.savez",
)
