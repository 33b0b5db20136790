"""Counts of tokens by expert that trainers log, a step a line: loads and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from expertbank.routers.formats._common import Asked, Format, Piece
from expertbank.routers.formats._json_lines import Record, count_at, first_record, records_of
from expertbank.routers.statistics import Layer

MOST_STEPS = 1024  # that are kept together
_KEYS = ("tokens_per_expert", "tpe")


def read_tokens_per_expert(path: Path, asked: Asked) -> Iterator[Piece]:
    """Lines with `tokens_per_expert`: [L, E] of all layers, an object of layers, or [E] beside
    `layer` or `layer_id`, counts of that step alone, integers (of any type).

    Megatron-LM's rank{r}.jsonl has `tpe` in place of it: [microbatches, E / G] counts of the
    experts of that rank alone, with G devices to a model's experts. `Asked.n_experts` has to say E
    then; expert parallelism is taken to run over neighbouring ranks.

    >>> import json
    >>> from tempfile import TemporaryDirectory
    >>> record = {"step": 7, "tokens_per_expert": [[4, 0, 2], [1, 1, 4]]}
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "load.jsonl")
    ...     _ = path.write_text(json.dumps(record))
    ...     pieces = list(read_tokens_per_expert(path, Asked()))
    >>> [(piece.layer, piece.arrays["load"].tolist()) for piece in pieces]
    [(0, [4, 0, 2]), (1, [1, 1, 4])]
    """
    found: dict[Layer, list[np.ndarray]] = {}
    is_part = False
    for where, record in records_of(path):
        is_part = "tpe" in record
        for layer, counts in _loads_of(where, record):
            if not asked.wants(layer):
                continue
            load = _counts(where, counts, 2 if is_part else 1)
            load = load.sum(axis=0) if is_part else load
            steps = found.setdefault(layer, [])
            if steps and len(steps[0]) != len(load):
                raise ValueError(
                    f"{where}: layer {layer} has {len(load)} experts, {len(steps[0])} before"
                )
            steps.append(load)
            if len(steps) == MOST_STEPS:
                yield from _piece(path, layer, steps, is_part, asked)
                found[layer] = [np.zeros_like(load)]
    for layer, steps in found.items():
        yield from _piece(path, layer, steps, is_part, asked)


def _piece(
    path: Path, layer: Layer, steps: list[np.ndarray], is_part: bool, asked: Asked
) -> Iterator[Piece]:
    """The counts of some steps, nothing where there are none; those of a rank's own experts in
    their place among all, whose steps are not known."""
    load = np.sum(steps, axis=0)
    if not load.any():
        return
    if not is_part:
        yield Piece(layer, {"load": load}, len(load), steps=np.array(steps))
        return
    n_own = len(load)
    n_experts = asked.n_experts
    if n_experts is None:
        yield Piece(layer, {"load": load})
        return
    found = re.fullmatch(r"rank(\d{1,9})", path.stem)
    if n_experts % n_own or (found is None and n_own < n_experts):
        raise ValueError(
            f"{path}: layer {layer} has counts of {n_own} experts, n_experts is {n_experts}; "
            "allowed are equal parts in files rank0.jsonl, rank1.jsonl and on"
        )
    rank = 0 if found is None else int(found[1])
    first = rank % (n_experts // n_own) * n_own
    whole = np.zeros(n_experts, np.int64)
    whole[first : first + n_own] = load
    yield Piece(layer, {"load": whole})


def _loads_of(where: str, record: Record) -> Iterator[tuple[Layer, Any]]:
    """The layers of a record and their counts."""
    found = next((record[key] for key in _KEYS if key in record), None)
    if isinstance(found, dict):
        for name, counts in found.items():
            yield int(name) if re.fullmatch(r"\d{1,6}", name) else name, counts
        return
    name = record.get("layer", record.get("layer_id"))
    if name is None and isinstance(found, list) and "tokens_per_expert" in record:
        yield from enumerate(found)
        return
    if isinstance(name, str):
        layer: Layer = name
    else:
        number = count_at(where, "layer", name)
        if number is None or found is None:
            raise ValueError(f"{where}: allowed are lines with tokens_per_expert, and layer")
        layer = number
    block = record.get("block", "decoder")
    if block != "decoder":
        layer = f"{block}{record.get('mtp_idx', '')}.{layer}"
    yield layer, found


def _counts(where: str, found: Any, n_axes: int) -> np.ndarray:
    """Counts as integers, of floats too, which some trainers keep them in."""
    counts = np.asarray(found)
    if counts.dtype.kind not in "if" or counts.ndim != n_axes or not counts.size:
        raise ValueError(
            f"{where}: counts are {counts.dtype} of shape {counts.shape}; allowed are integers of "
            f"{n_axes} axes"
        )
    whole = np.rint(counts)
    if not ((counts == whole) & (counts >= 0) & (counts < 2**53)).all():
        worst = counts[~((counts == whole) & (counts >= 0) & (counts < 2**53))][0]
        raise ValueError(f"{where}: a count is {worst:g}; allowed are whole numbers from 0 on")
    return whole.astype(np.int64)


def _is_counts(path: Path, asked: Asked) -> bool:
    return bool(set(_KEYS) & set(first_record(path)))


FORMAT = Format(
    name="counts",
    suffixes=(".jsonl", ".json"),
    description=(
        "tokens_per_expert of each step as Megatron-LM, TorchTitan and NeMo users log it: [layers, "
        "experts] counts, or one layer's beside layer; tpe of a rank's own experts: give their "
        "number"
    ),
    read=read_tokens_per_expert,
    recognises=_is_counts,
    writer="Megatron-LM 0.17 (--save-tokens-per-experts-interval), TorchTitan, NeMo",
    source=(
        "NVIDIA/Megatron-LM, megatron/training/activation_logging.py at 191d70cf0f; the buffer "
        "tokens_per_expert of pytorch/torchtitan, torchtitan/models/moe.py"
    ),
)
