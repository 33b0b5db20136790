"""Routes that trainers keep to replay them (R3): batches of padded sequences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from expertbank.routers.formats._arrays import arrays_named, names_in, one_integer
from expertbank.routers.formats._common import (
    Arrays,
    Asked,
    Format,
    Piece,
    Request,
    as_numbers,
    phase_of,
    pieces_of_requests,
    signed,
)
from expertbank.routers.formats._json_lines import (
    body_of,
    domain_at,
    first_record,
    part,
    parts,
    records_of,
    routes_at,
    tokens_at,
)
from expertbank.routers.formats._torch_files import integers_of, keys_of, load_tensors

_KEYS = ("routed_experts", "rollout_routed_experts")
_BESIDE = ("attention_mask", "input_lengths", "input_ids", "domain", "response_mask", "n_experts")


def read_r3(path: Path, asked: Asked) -> Iterator[Piece]:
    """`routed_experts` [B, S, L, k] in an npz or a .pt, with `attention_mask` [B, S] or
    `input_lengths` [B], `input_ids` [B, S], `domain` [B] and `n_experts` where known; or lines of
    NeMo-RL's train_data_step*.jsonl or of responses with its envelopes. Phases are known by verl's
    `response_mask` [B, R], of the last R columns: 1 for generated tokens, 0 for what a tool said,
    a prompt too; and by the `prompt_token_ids` of a response, of all that was there before.

    Padding is left out: what the mask or the lengths say, or else the rows at the end that are 0
    to k - 1 in every layer, as NeMo-RL fills them. Rows of -1 are missing, rows of 0 too where k
    is above 1. All of these are counted as having no route. Each row of the batch is a sequence.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "batch.npz")
    ...     rows = [[[[3, 1]], [[-1, -1]], [[0, 1]]]]  # a token, one without a route, padding
    ...     np.savez(path, routed_experts=np.array(rows, np.int16))
    ...     [piece.unrouted for piece in read_r3(path, Asked())]
    [2]
    """
    if path.suffix == ".jsonl":
        yield from pieces_of_requests(path, _of_lines(path, asked), asked)
        return
    if path.suffix == ".npz":
        key = next(key for key in _KEYS if key in names_in(path))
        arrays = arrays_named(path, key, *_BESIDE)
    else:
        content = load_tensors(path)
        key = next((key for key in _KEYS if key in keys_of(content)), _KEYS[0])
        if key not in keys_of(content):
            raise ValueError(f"{path} holds no {key}; allowed is a dict of tensors with it")
        axes = {"attention_mask": 2, "input_ids": 2, "response_mask": 2, "n_experts": 0}
        if isinstance(content[key], list):  # slime: one tensor a sample, of its own length
            found = [integers_of(path, key, each, 3) for each in content[key]]
            yield from pieces_of_requests(path, _of_samples(found), asked)
            return
        arrays = {key: integers_of(path, key, content[key], 4)}
        for name in keys_of(content) & set(_BESIDE):
            arrays[name] = integers_of(path, name, content[name], axes.get(name, 1))
    n_experts = one_integer(arrays, "n_experts")
    routes = signed(arrays.pop(key))
    if routes.ndim != 4 or routes.dtype.kind != "i" or 0 in routes.shape[1:]:
        raise ValueError(
            f"{path}: {key} is {routes.dtype} of shape {routes.shape}; allowed are integers [B, S, "
            "L, k]"
        )
    yield from pieces_of_requests(path, _of_batch(path, routes, arrays, asked), asked, n_experts)


def _of_samples(samples: list[np.ndarray]) -> Iterator[Request]:
    for ids in samples:
        yield Request(ids, missing=_padding(ids, np.ones(len(ids), bool)))


def _of_batch(path: Path, routes: np.ndarray, arrays: Arrays, asked: Asked) -> Iterator[Request]:
    """The sequences of a batch, each with the rows of it that are no tokens."""
    n_rows, n_columns = routes.shape[:2]
    shapes = {"attention_mask": (n_rows, n_columns), "input_ids": (n_rows, n_columns)}
    answers = arrays.get("response_mask", np.zeros((n_rows, 0), bool))
    shapes["response_mask"] = (n_rows, min(n_columns, answers.shape[-1]))
    for name in set(_BESIDE[:5]) & set(arrays):
        wanted = shapes.get(name, (n_rows,))
        kinds = "biu" if name.endswith("mask") else "iuUO"
        if arrays[name].shape != wanted or arrays[name].dtype.kind not in kinds:
            found = arrays[name]
            raise ValueError(
                f"{path}: {name} is {found.dtype} of shape {found.shape}; allowed is {wanted}"
            )
    domain = arrays.get("domain")
    if domain is not None:
        domain = as_numbers(str(path), "domain", domain, asked)
    tokens = arrays.get("input_ids")
    for i, ids in enumerate(routes):
        is_token = np.ones(n_columns, bool)
        if "attention_mask" in arrays:
            is_token = arrays["attention_mask"][i] > 0
        elif "input_lengths" in arrays:
            is_token = np.arange(n_columns) < arrays["input_lengths"][i]
        missing = ~is_token | _padding(ids, is_token)
        first = int(is_token.argmax())
        own = None if tokens is None else signed(tokens[i])
        phase = None
        if answers.size:
            phase = np.pad(answers[i] > 0, (n_columns - answers.shape[1], 0)).astype(np.int64)
        yield Request(ids, -first, 0, -1 if domain is None else int(domain[i]), own, missing, phase)


def _padding(ids: np.ndarray, is_token: np.ndarray) -> np.ndarray:
    """Rows at the end of a sequence (S, L, k) that are 0 to k - 1 in every layer.

    Where all rows are known to be tokens or not, it is the last token alone that may be filled:
    it never ran.
    """
    is_filled = (ids == np.arange(ids.shape[2])).all(axis=(1, 2))
    last = np.flatnonzero(is_token)
    found = np.zeros(len(ids), bool)
    if is_token.all():
        others = np.flatnonzero(~is_filled)
        found[int(others[-1]) + 1 if len(others) else 0 :] = True
    elif len(last):
        found[last[-1]] = is_filled[last[-1]]
    return found


def _of_lines(path: Path, asked: Asked) -> Iterator[Request]:
    """Sequences of records: of NeMo-RL's dumps, or of its chat responses."""
    for where, record in records_of(path):
        domain = domain_at(where, record, asked)
        choices = [part(choice, "message") for choice in parts(body_of(record), "choices")]
        for holder in choices if choices else [record]:
            value = next(
                (part(holder, key) for key in _KEYS if part(holder, key) is not None), None
            )
            rows = value if isinstance(value, list) and not choices else [value]
            for each in rows:
                ids = routes_at(where, _KEYS[0], each)
                if ids is None:
                    continue
                prompt = part(holder, "prompt_token_ids")
                tokens = tokens_at(prompt, part(holder, "generation_token_ids"))
                if tokens is not None and len(tokens) != len(ids):
                    tokens = None
                missing = _padding(ids, np.ones(len(ids), bool))
                phase = None if tokens is None else phase_of(len(ids), 0, len(prompt))
                yield Request(ids, 0, 0, domain, tokens, missing, phase)


def _is_r3(path: Path, asked: Asked) -> bool:
    if path.suffix == ".npz":
        names = names_in(path)
        # one request of vLLM has three axes and the same name
        key = next((key for key in _KEYS if key in names), None)
        return key is not None and arrays_named(path, key)[key].ndim == 4
    if path.suffix == ".pt":
        return bool(set(_KEYS) & keys_of(load_tensors(path)))
    record = first_record(path)
    choices = parts(body_of(record), "choices")
    holders = [record, *(part(choice, "message") for choice in choices)]
    return any(part(holder, key) is not None for holder in holders for key in _KEYS)


FORMAT = Format(
    name="r3",
    suffixes=(".npz", ".pt", ".jsonl"),
    description=(
        "routed_experts [batch, tokens, layers, k] that verl, slime and NeMo-RL replay, `-1` where "
        "missing, padded; with attention_mask or input_lengths, and response_mask, where known; "
        "NeMo-RL's training dumps and envelopes"
    ),
    read=read_r3,
    recognises=_is_r3,
    writer="verl 0.6, slime 0.2, NeMo-RL 0.5",
    source=(
        "NVIDIA-NeMo/RL, nemo_rl/models/generation/vllm/utils.py (pad_and_align_routed_expert_"
        "indices), nemo_rl/utils/routed_experts_codec.py at 0cbe0ac120, "
        "nemo_rl/utils/train_data_dump.py at 55af33fcb5; verl-project/verl, "
        "verl/utils/megatron/router_replay_utils.py at 0256d18b02, "
        "verl/experimental/agent_loop/agent_loop.py at 2994fde446; THUDM/slime, pull request 2308"
    ),
)
