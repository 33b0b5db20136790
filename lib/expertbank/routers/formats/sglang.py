"""What SGLang's expert distribution recorder dumps, by `torch.save`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from expertbank.routers.formats._common import (
    Arrays,
    Asked,
    Format,
    Piece,
    first_sequence_id,
    groups_of_tokens,
    routed_piece,
)
from expertbank.routers.formats._torch_files import integers_of, keys_of, load_tensors

COUNTS_KEY = "global_physical_count"
CHOICES_KEY = "topk_ids_of_layer"
MAP_KEY = "last_physical_to_logical_map"


def read_sglang(path: Path, asked: Asked) -> Iterator[Piece]:
    """Dumps of the modes stat, stat_approx and per_pass (loads) and per_token (choices).

    Ids are those of physical experts, mapped to logical ones by the map at the end of the
    recording: record without rebalancing in between. Rows of one prefill make a sequence; a decoded
    token's request is not in the dump (-1).

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> counts = torch.tensor([[[3, 0, 1]], [[2, 2, 0]]])  # two passes, one layer, three experts
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "dump.pt")
    ...     torch.save({"logical_count": counts}, path)
    ...     [piece.arrays["load"].tolist() for piece in read_sglang(path, Asked())]
    [[5, 2, 1]]
    """
    content = load_tensors(path)
    if not isinstance(content, dict) or not {"logical_count", "records"} & set(content):
        found = type(content).__name__
        if isinstance(content, dict):
            found = sorted(keys_of(content))
        raise ValueError(
            f"{path} holds {found}; allowed is a dump of SGLang's recorder, with logical_count or "
            "records"
        )
    if "logical_count" in content:
        counts = integers_of(path, "logical_count", content["logical_count"], 3)
        yield from _loads(counts, asked)
        return
    records = content["records"]
    logical = content.get(MAP_KEY)
    if logical is not None:
        logical = integers_of(path, MAP_KEY, logical, 2)
        if not logical.size or logical.min() < 0 or logical.max() >= logical.shape[1]:
            raise ValueError(
                f"{path}: {MAP_KEY} of shape {logical.shape} must name an expert below "
                f"{logical.shape[1]} in each place"
            )
    is_list = isinstance(records, list) and all(isinstance(record, dict) for record in records)
    if not is_list or not records:
        raise ValueError(
            f"{path}: records is empty or no list of dicts; nothing was recorded before the dump"
        )
    if CHOICES_KEY in records[0]:
        yield from _choices(path, records, logical, asked)
    else:
        yield from _loads(_logical_counts(path, records, logical), asked)


# --- modes that count ---


def _loads(counts: np.ndarray, asked: Asked) -> Iterator[Piece]:
    """Loads from counts (passes, layers, E); a layer without any is a dense one. One row of counts
    is taken to be of the whole recording, several to be of a pass each."""
    for layer, load in enumerate(counts.sum(axis=0, dtype=np.int64)):
        if load.any() and asked.wants(layer):
            steps = counts[:, layer] if len(counts) > 1 else None
            yield Piece(layer, {"load": load}, len(load), steps=steps)


def _logical_counts(
    path: Path, records: list[dict[str, Any]], logical: np.ndarray | None
) -> np.ndarray:
    """Counts (passes, layers, E) of logical experts; `logical` (layers, physical experts) is the
    map."""
    passes = [integers_of(path, COUNTS_KEY, record.get(COUNTS_KEY), 2) for record in records]
    shape = passes[0].shape
    if logical is None:
        logical = np.broadcast_to(np.arange(shape[1]), shape)
    if any(counts.shape != logical.shape for counts in passes):
        raise ValueError(
            f"{path}: {COUNTS_KEY} has shape {shape}, the map {logical.shape}; allowed is "
            "(layers, experts)"
        )
    n_experts = int(logical.max()) + 1
    # the recorder counts in int32, which many passes overflow
    loads = np.zeros((len(passes), len(logical), n_experts), np.int64)
    for layer, names in enumerate(logical):
        counts = np.stack([each[layer] for each in passes])
        np.add.at(loads[:, layer].T, names, counts.T)
    return loads


# --- the mode that keeps every choice ---


def _choices(
    path: Path, records: list[dict[str, Any]], logical: np.ndarray | None, asked: Asked
) -> Iterator[Piece]:
    """Choices of all tokens, many records at a time."""
    n_experts = None if logical is None else int(logical.max()) + 1
    sequence = first_sequence_id(path)
    lengths = [len(record.get("input_ids", ())) for record in records]
    for group in groups_of_tokens(lengths):
        parts: list[Arrays] = []
        for record in (records[i] for i in group):
            tokens, n_sequences = _tokens_of_record(path, record, sequence)
            tokens["step"] = np.full(len(tokens["token"]), len(parts))  # a pass is one
            sequence += n_sequences
            parts.append(tokens)
        labels = {
            name: np.concatenate([tokens[name] for tokens in parts])
            for name in ("sequence", "position", "token", "step")
        }
        ids = np.concatenate([tokens["chosen"] for tokens in parts], axis=1)  # (layers, n, 8)
        # the recorder always keeps room for 8
        n_used = int((ids >= 0).any(axis=(0, 1)).sum())
        ids = ids[..., : max(1, n_used)]
        for layer in np.flatnonzero((ids >= 0).any(axis=(1, 2))).tolist():
            if asked.wants(layer):
                chosen = _logical_ids(path, ids[layer], logical, layer)
                yield routed_piece(str(path), layer, chosen, labels, n_experts, may_drop=True)


def _tokens_of_record(path: Path, record: dict[str, Any], first_id: int) -> tuple[Arrays, int]:
    """Arrays of the tokens of one pass, with chosen (layers, n, 8), and how many sequences it
    began."""
    chosen = integers_of(path, CHOICES_KEY, record.get(CHOICES_KEY), 3)
    n = chosen.shape[1]
    tokens = {"chosen": chosen}
    for name, key in (("token", "input_ids"), ("position", "positions")):
        tokens[name] = integers_of(path, key, record.get(key, [-1] * n), 1)
        if len(tokens[name]) != n:
            raise ValueError(
                f"{path}: {key} has {len(tokens[name])} tokens, {CHOICES_KEY} {n}; allowed is the "
                "same"
            )
    lengths = record.get("extend_seq_lens")
    if lengths is None or sum(lengths) != n:  # no prefill
        tokens["sequence"] = np.full(n, -1)
        return tokens, 0
    tokens["sequence"] = np.repeat(first_id + np.arange(len(lengths)), lengths)
    return tokens, len(lengths)


def _logical_ids(path: Path, ids: np.ndarray, logical: np.ndarray | None, layer: int) -> np.ndarray:
    """Ids of logical experts for those of physical ones; -1 stays."""
    if logical is None:
        return ids
    if layer >= len(logical) or ids.max() >= logical.shape[1] or ids.min() < -1:
        raise ValueError(
            f"{path}: layer {layer} has expert {ids.max()}, the map has shape {logical.shape}; "
            "they are of two models"
        )
    return np.where(ids >= 0, logical[layer][ids], -1)


FORMAT = Format(
    name="sglang",
    suffixes=(".pt",),
    description=(
        "what SGLang's expert distribution recorder dumps, read without running code from it"
    ),
    read=read_sglang,
    is_fallback=True,  # what another .pt is taken for
    writer="SGLang 0.4.6 to 0.5",
    source="sgl-project/sglang, python/sglang/srt/eplb/expert_distribution.py at dd780ab9de",
    is_of_ranks=True,
)
