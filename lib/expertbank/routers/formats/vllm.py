"""What vLLM returns with `enable_return_routed_experts`, written by `numpy.save` or `savez`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from expertbank.routers.formats._common import (
    Arrays,
    Format,
    Piece,
    arrays_of,
    first_sequence_id,
    groups_of_tokens,
    take_number,
)


def read_vllm(path: Path) -> Iterator[Piece]:
    """Arrays [tokens, layers, k], one a request; in an npz also `domain` (requests,) and
    `n_experts`.

    A prompt's array under prompt_routed_experts is put before routed_experts, as one request. A
    layer whose ids are all 0 though k > 1 is a dense one that nothing was captured in, and left
    out.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "routes.npy")
    ...     np.save(path, [[[0, 0], [1, 2]], [[0, 0], [2, 3]]])  # two tokens, two layers
    ...     [(piece.layer, piece.arrays["chosen"].tolist()) for piece in read_vllm(path)]
    [(1, [[1, 2], [2, 3]])]
    """
    arrays = arrays_of(path)
    n_experts = take_number(arrays, "n_experts")
    domain = arrays.pop("domain", None)
    requests = _requests(path, arrays)
    if domain is not None and domain.shape != (len(requests),):
        raise ValueError(
            f"{path}: domain has shape {domain.shape}; allowed is one a request, ({len(requests)},)"
        )
    first_id = first_sequence_id(path)
    layers = _captured_layers(requests)
    for group in groups_of_tokens([len(request) for request in requests]):
        lengths = [len(requests[i]) for i in group]
        ids = np.concatenate([requests[i] for i in group])
        labels = {
            "sequence": np.repeat(first_id + np.array(group), lengths),
            "position": np.concatenate([np.arange(length) for length in lengths]),
        }
        if domain is not None:
            labels["domain"] = np.repeat(domain[group], lengths)
        for layer in layers:
            yield Piece(layer, {"chosen": ids[:, layer], **labels}, n_experts)


def _requests(path: Path, arrays: Arrays) -> list[np.ndarray]:
    """The arrays of all requests, checked to be of one model."""
    for key, array in arrays.items():
        if array.ndim != 3 or array.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: {key} is {array.dtype} of shape {array.shape}; allowed are integers "
                "[tokens, layers, k]"
            )
        if array.size and array.dtype.kind == "i" and array.min() < 0:
            raise ValueError(
                f"{path}: {key} holds {array.min()}; vLLM's ids start at 0: leave out tokens "
                "without a route"
            )
    if "prompt_routed_experts" in arrays:
        prompt = arrays.pop("prompt_routed_experts")
        arrays = {"request": np.concatenate([prompt, *arrays.values()])}
    if len({array.shape[1:] for array in arrays.values()}) != 1:
        shapes = {key: array.shape for key, array in arrays.items()}
        raise ValueError(
            f"{path}: shapes are {shapes}; allowed are requests of one model, alike in layers and k"
        )
    return list(arrays.values())


def _captured_layers(requests: list[np.ndarray]) -> list[int]:
    """Layers in which a route was captured: not all ids are 0, or k is 1, where they may be."""
    n_layers, k = requests[0].shape[1:]
    if k == 1:
        return list(range(n_layers))
    is_zero = np.all([(request == 0).all(axis=(0, 2)) for request in requests], axis=0)
    return np.flatnonzero(~is_zero).tolist()


FORMAT = Format(
    name="vllm",
    suffixes=(".npy", ".npz"),
    description=(
        "integer arrays [tokens, layers, k], one a request: vLLM's routed_experts; the number of "
        "experts is not among them: give it"
    ),
    read=read_vllm,
    is_fallback=True,  # requests have any names, so this is what another npz is taken for
)
