"""What Megatron-Core's router tracer writes, `--moe-routing-trace-path`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from expertbank._files import check_input
from expertbank.routers.formats import _common
from expertbank.routers.formats._common import Arrays, Asked, Format, Piece, routed_piece
from expertbank.routers.formats._json_lines import (
    Record,
    count_at,
    first_record,
    records_of,
)
from expertbank.routers.formats._torch_files import keys_of, load_tensors
from expertbank.routers.statistics import Layer

MOST_EXPERTS = 2**16  # more are no model's


def read_megatron(path: Path, asked: Asked) -> Iterator[Piece]:
    """Records of (step, block, layer), of all tokens of a microbatch; those of one step together.

    Layers of the decoder are numbers; others are named by their block, as mtp0.1. Where the logits
    were captured, logits_rank{r}.bin beside the file gives the number of experts and the
    probabilities: a softmax, or a sigmoid over its sum where router_state_rank{r}.pt says so.
    Tokens have no sequence. Ranks of one tensor-parallel group write the same tokens.

    >>> import json
    >>> from tempfile import TemporaryDirectory
    >>> record = {"step": 0, "block": "decoder", "layer": 3, "rank": 0}
    >>> record |= {"num_tokens": 2, "topk": 2, "top_indices": [[4, 1], [0, 5]]}
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "router_trace_rank0.jsonl")
    ...     _ = path.write_text(json.dumps(record))
    ...     [(p.layer, p.arrays["chosen"].tolist()) for p in read_megatron(path, Asked())]
    [(3, [[4, 1], [0, 5]])]
    """
    waiting: dict[tuple[Layer, int | None], list[Arrays]] = {}
    n_waiting = 0
    n_records = 0  # each is a microbatch, which is computed at once
    step = None
    scores: dict[int, str] = {}  # of the ranks: softmax or sigmoid
    for where, record in records_of(path):
        layer = _layer_of(where, record)
        if not asked.wants(layer):
            continue
        arrays, n_experts = _arrays_of(path, where, record, scores)
        n = len(arrays["chosen"])
        arrays["step"] = np.full(n, n_records)
        n_records += 1
        if record.get("step") != step or n_waiting + n > _common.BATCH:
            yield from _together(path, waiting)
            waiting = {}
            n_waiting = 0
            step = record.get("step")
        waiting.setdefault((layer, n_experts), []).append(arrays)
        n_waiting += n
    yield from _together(path, waiting)


def _together(path: Path, waiting: dict[tuple[Layer, int | None], list[Arrays]]) -> Iterator[Piece]:
    """A piece for each layer."""
    for (layer, n_experts), found in waiting.items():
        if len({arrays["chosen"].shape[1] for arrays in found}) > 1:
            raise ValueError(f"{path}: layer {layer} changes its topk; allowed is one")
        joined = {key: np.concatenate([arrays[key] for arrays in found]) for key in found[0]}
        if len(joined["chosen"]):
            yield routed_piece(str(path), layer, joined.pop("chosen"), joined, n_experts)


def _layer_of(where: str, record: Record) -> Layer:
    layer = count_at(where, "layer", record.get("layer"))
    block = record.get("block", "decoder")
    if layer is None or not isinstance(block, str):
        raise ValueError(f"{where}: a record has a layer, a number, and a block, a name")
    if block == "decoder":
        return layer
    index = count_at(where, "mtp_idx", record.get("mtp_idx"))
    return f"{block}{'' if index is None else index}.{layer}"


def _arrays_of(
    path: Path, where: str, record: Record, scores: dict[int, str]
) -> tuple[Arrays, int | None]:
    """Choices, and probabilities where there are any, of one record; and how many experts."""
    n = count_at(where, "num_tokens", record.get("num_tokens"))
    k = count_at(where, "topk", record.get("topk"))
    if n is None or k is None:
        raise ValueError(f"{where}: a record has num_tokens and topk, counts")
    chosen = np.asarray(record.get("top_indices"))
    if n == 0 and chosen.size == 0:
        chosen = np.zeros((0, max(1, k)), np.int64)
    if chosen.dtype.kind != "i" or chosen.shape != (n, k) or k == 0:
        raise ValueError(
            f"{where}: top_indices is {chosen.dtype} of shape {chosen.shape}; num_tokens and topk "
            f"promise integers of {(n, k)}"
        )
    if "logit_offset" not in record:
        return {"chosen": chosen}, None
    logits = _logits(path, where, record, n)
    rank = record["rank"]
    if rank not in scores:
        scores[rank] = _score_function(path, rank)
    if scores[rank] == "sigmoid":
        share = scipy.special.expit(logits)
        share /= share.sum(axis=1, keepdims=True)
    else:
        share = scipy.special.softmax(logits, axis=1)
    return {"chosen": chosen, "probabilities": share}, logits.shape[1]


def _logits(path: Path, where: str, record: Record, n: int) -> np.ndarray:
    """Logits (n, E) of bfloat16 from the file beside this one."""
    shape: Any = record.get("logit_shape")
    fields = [record.get("rank"), record.get("logit_offset"), record.get("logit_bytes")]
    rank, offset, size = (count_at(where, "logit_offset", each) for each in fields)
    is_shape = isinstance(shape, list) and len(shape) == 2 and shape[0] == n
    if rank is None or offset is None or size is None or not is_shape:
        raise ValueError(f"{where}: logit_shape is {str(shape)[:40]}; allowed is [{n}, experts]")
    n_experts = count_at(where, "logit_shape", shape[1])
    if not n_experts or n_experts > MOST_EXPERTS or size != 2 * n * n_experts:
        raise ValueError(f"{where}: logit_bytes is {size}, logit_shape {shape}, of 2 bytes each")
    beside = path.with_name(f"logits_rank{rank}.bin")
    check_input(beside, "the logits that were captured with it")
    if offset + size > beside.stat().st_size:
        raise ValueError(f"{where}: {beside.name} ends before byte {offset + size:,}")
    with beside.open("rb") as file:
        file.seek(offset)
        words = np.fromfile(file, "<u2", n * n_experts)
    logits = (words.astype(np.uint32) << 16).view(np.float32).astype(float)
    if not np.isfinite(logits).all():
        raise ValueError(f"{where}: {beside.name} holds logits that are not finite")
    return logits.reshape(n, n_experts)


def _score_function(path: Path, rank: int) -> str:
    """What the router makes of its logits, as router_state_rank{r}.pt says; else a softmax."""
    beside = path.with_name(f"router_state_rank{rank}.pt")
    if not beside.is_file():
        return "softmax"
    layers: Any = load_tensors(beside)
    if not isinstance(layers, dict):
        raise ValueError(f"{beside} is a {type(layers).__name__}; allowed is a dict of layers")
    names = {each.get("score_function") for each in layers.values() if keys_of(each)}
    names -= {None}
    if names - {"softmax", "sigmoid"} or len(names) > 1:
        raise ValueError(f"{beside} has score functions {sorted(map(str, names))[:3]}; allowed is "
                         "softmax or sigmoid")  # fmt: skip
    return str(names.pop()) if names else "softmax"


def _is_megatron(path: Path, asked: Asked) -> bool:
    return "top_indices" in first_record(path)


FORMAT = Format(
    name="megatron",
    suffixes=(".jsonl",),
    description=(
        "router_trace_rank*.jsonl of Megatron-Core's router tracer, with logits_rank*.bin beside "
        "it for probabilities and the number of experts; without, give that"
    ),
    read=read_megatron,
    recognises=_is_megatron,
    writer="Megatron-Core 0.17",
    source=("NVIDIA/Megatron-LM, megatron/core/transformer/moe/router_trace.py at 059f0f5c78"),
    sidecars=("hidden_states_rank*.bin", "logits_rank*.bin", "router_state_rank*.pt"),
    is_of_ranks=True,
)
