"""What SGLang's expert distribution recorder dumps, by `torch.save`."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from expertbank._files import check_members
from expertbank.routers.formats._common import (
    Arrays,
    Format,
    Piece,
    first_sequence_id,
    groups_of_tokens,
)

COUNTS_KEY = "global_physical_count"
CHOICES_KEY = "topk_ids_of_layer"
MAP_KEY = "last_physical_to_logical_map"


def read_sglang(path: Path) -> Iterator[Piece]:
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
    ...     [piece.arrays["load"].tolist() for piece in read_sglang(path)]
    [[5, 2, 1]]
    """
    content = _load_tensors(path)
    if not isinstance(content, dict) or not {"logical_count", "records"} & set(content):
        found = type(content).__name__
        if isinstance(content, dict):
            found = sorted(key for key in content if isinstance(key, str))
        raise ValueError(
            f"{path} holds {found}; allowed is a dump of SGLang's recorder, with logical_count or "
            "records"
        )
    if "logical_count" in content:
        counts = _integers(path, "logical_count", content["logical_count"], 3)
        yield from _loads(counts.sum(axis=0))
        return
    records = content["records"]
    logical = content.get(MAP_KEY)
    if logical is not None:
        logical = _integers(path, MAP_KEY, logical, 2)
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
        yield from _choices(path, records, logical)
    else:
        yield from _loads(_logical_counts(path, records, logical))


# --- modes that count ---


def _loads(counts: np.ndarray) -> Iterator[Piece]:
    """Loads from counts (layers, E); a layer without any is a dense one."""
    for layer, load in enumerate(counts):
        if load.any():
            yield Piece(layer, {"load": load}, len(load))


def _logical_counts(
    path: Path, records: list[dict[str, Any]], logical: np.ndarray | None
) -> np.ndarray:
    """Counts (layers, E) of logical experts over all passes; `logical` (layers, physical experts)
    is the map."""
    counts = [_integers(path, COUNTS_KEY, record.get(COUNTS_KEY), 2) for record in records]
    total = np.asarray(sum(counts))
    if logical is None:
        logical = np.broadcast_to(np.arange(total.shape[1]), total.shape)
    if logical.shape != total.shape:
        raise ValueError(
            f"{path}: {COUNTS_KEY} has shape {total.shape}, the map {logical.shape}; allowed is "
            "(layers, experts)"
        )
    n_experts = int(logical.max()) + 1
    loads = [np.bincount(names, load, n_experts) for names, load in zip(logical, total)]
    return np.array(loads).astype(np.int64)


# --- the mode that keeps every choice ---


def _choices(
    path: Path, records: list[dict[str, Any]], logical: np.ndarray | None
) -> Iterator[Piece]:
    """Choices of all tokens, many records at a time."""
    n_experts = None if logical is None else int(logical.max()) + 1
    sequence = first_sequence_id(path)
    lengths = [len(record.get("input_ids", ())) for record in records]
    for group in groups_of_tokens(lengths):
        parts: list[Arrays] = []
        for record in (records[i] for i in group):
            tokens, n_sequences = _tokens_of_record(path, record, sequence)
            sequence += n_sequences
            parts.append(tokens)
        labels = {
            name: np.concatenate([tokens[name] for tokens in parts])
            for name in ("sequence", "position", "token")
        }
        ids = np.concatenate([tokens["chosen"] for tokens in parts], axis=1)  # (layers, n, 8)
        # the recorder always keeps room for 8
        n_used = int((ids >= 0).any(axis=(0, 1)).sum())
        ids = ids[..., : max(1, n_used)]
        for layer in np.flatnonzero((ids >= 0).any(axis=(1, 2))).tolist():
            chosen = _logical_ids(path, ids[layer], logical, layer)
            yield Piece(layer, {"chosen": chosen, **labels}, n_experts)


def _tokens_of_record(path: Path, record: dict[str, Any], first_id: int) -> tuple[Arrays, int]:
    """Arrays of the tokens of one pass, with chosen (layers, n, 8), and how many sequences it
    began."""
    chosen = _integers(path, CHOICES_KEY, record.get(CHOICES_KEY), 3)
    n = chosen.shape[1]
    tokens = {"chosen": chosen}
    for name, key in (("token", "input_ids"), ("position", "positions")):
        tokens[name] = _integers(path, key, record.get(key, [-1] * n), 1)
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


# --- files of torch.save ---


def _integers(path: Path, key: str, value: Any, n_axes: int) -> np.ndarray:
    """A tensor or a flat list as an array of integers; None, for a missing key, is refused too."""
    if hasattr(value, "untyped_storage"):
        if value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: {key} repeats its numbers; allowed is one of each")
        array = value.numpy()
    elif isinstance(value, list) and all(isinstance(number, int) for number in value):
        array = np.asarray(value)
    else:
        raise ValueError(
            f"{path}: {key} is a {type(value).__name__}; allowed are integers of {n_axes} axes"
        )
    if array.dtype.kind in "iu" and array.ndim == n_axes:
        return array
    if array.shape == (0,):  # an empty list has no type of its own
        return array.astype(np.int64)
    raise ValueError(
        f"{path}: {key} is {array.dtype} of shape {array.shape}; allowed are integers of "
        f"{n_axes} axes"
    )


# what to do with a file that is not loaded because it could run code
INSTEAD = "where you trust it, load it on the machine that made it and np.savez its arrays"


def _load_tensors(path: Path) -> Any:
    """A file of torch.save, by the restricted unpickler: it makes tensors and plain containers and
    runs nothing."""
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{path} needs torch to be read: `pip install -e '.[gpu]'`, or convert it to npz"
        ) from None
    if not zipfile.is_zipfile(path):  # the pickles of torch before 1.6 ask for memory as they like
        raise ValueError(f"{path} is refused: truncated, or of no torch since 1.6; {INSTEAD}")
    check_members(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # which kinds there are is torch's own affair
        if type(error).__name__ != "UnpicklingError":
            raise
        wanted = re.search(r"(?:GLOBAL|global|class) `?([\w.]{1,60})", str(error))
        asked = f"asks for {wanted[1]}" if wanted else "is damaged or asks for more than data"
        raise ValueError(
            f"{path} is refused: its pickle {asked}, and that could run code; {INSTEAD}"
        ) from None


FORMAT = Format(
    name="sglang",
    suffixes=(".pt",),
    description=(
        "what SGLang's expert distribution recorder dumps, read without running code from it"
    ),
    read=read_sglang,
)
