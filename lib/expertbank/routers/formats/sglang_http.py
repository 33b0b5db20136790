"""Responses of SGLang's server to requests with `return_routed_experts`, saved as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from expertbank.routers.formats._common import (
    Asked,
    Format,
    Piece,
    Request,
    phase_of,
    pieces_of_requests,
    signed,
)
from expertbank.routers.formats._json_lines import (
    SUFFIXES,
    Record,
    body_of,
    bytes_at,
    count_at,
    domain_at,
    first_record,
    lists_of_records,
    part,
    parts,
    tokens_at,
)

_KEY = "routed_experts"
_START = "routed_experts_start_len"
_TYPES = {"int32": "<i4", "uint16": "<u2", "uint8": "<u1"}  # of `routed_experts_dtype`


def read_sglang_http(path: Path, asked: Asked) -> Iterator[Piece]:
    """Responses of /generate or of the OpenAI endpoints, one or a list of them a line; or objects
    with the `request` beside the `response`, and `domain` where known.

    `meta_info.routed_experts` is a base64 of flat int32, [start, P + N - 1) tokens by layers by k;
    neither is in the file, so `Asked.n_chosen` has to say k. `routed_experts_start_len` is the
    position of the first row. -1 marks what was not captured: a row of them has no route, a layer
    of them is a dense one. Prompts that stand in one list with the same routes count once.
    `prompt_tokens` tells the phases apart.

    >>> import base64, json
    >>> from tempfile import TemporaryDirectory
    >>> flat = np.array([3, 1, 0, 2], np.int32)  # two tokens, one layer, two experts
    >>> meta = {"prompt_tokens": 2, "completion_tokens": 1}
    >>> meta["routed_experts"] = base64.b64encode(flat.tobytes()).decode()
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "responses.jsonl")
    ...     _ = path.write_text(json.dumps({"meta_info": meta}))
    ...     [p.arrays["chosen"].tolist() for p in read_sglang_http(path, Asked(n_chosen=2))]
    [[[3, 1], [0, 2]]]
    """
    yield from pieces_of_requests(path, _requests(path, asked), asked)


def _requests(path: Path, asked: Asked) -> Iterator[Request]:
    n_found = 0
    for where, records in lists_of_records(path):
        prompts: set[bytes] = set()
        for record in records:
            domain = domain_at(where, record, asked)
            for answer in _answers(body_of(record)):
                if part(answer, "meta_info", _KEY) is not None:
                    n_found += 1
                    yield _request(where, record, answer, domain, prompts, asked)
    if not n_found:
        raise ValueError(f"{path}: no meta_info has {_KEY}; ask for return_routed_experts")


def _answers(body: Any) -> list[Record]:
    """The completions of one response, each with its meta_info."""
    if isinstance(body, list):
        return [each for each in body if isinstance(each, dict)]
    return [body] if part(body, "meta_info") is not None else parts(body, "choices")


def _request(
    where: str, record: Record, answer: Record, domain: int, prompts: set[bytes], asked: Asked
) -> Request:
    meta = answer["meta_info"]
    n_prompt = count_at(where, "prompt_tokens", meta.get("prompt_tokens"))
    n_answer = count_at(where, "completion_tokens", meta.get("completion_tokens"))
    if n_prompt is None or n_answer is None:
        raise ValueError(f"{where}: meta_info has no prompt_tokens or completion_tokens")
    places = (meta, record, part(record, "request"))
    starts = [count_at(where, _START, part(place, _START)) for place in places]
    start = next((found for found in starts if found is not None), 0)
    ids = _ids(where, meta, n_prompt + n_answer - 1 - start, asked)
    skip = 0
    in_prompt = max(0, n_prompt - start)
    if in_prompt:
        shared = start.to_bytes(8) + ids[:in_prompt].tobytes()
        if shared in prompts:
            skip = min(len(ids), in_prompt)
        prompts.add(shared)
    tokens = tokens_at(part(record, "request", "input_ids"), answer.get("output_ids"))
    if tokens is not None:
        tokens = tokens[start : start + len(ids)]
        tokens = tokens if len(tokens) == len(ids) else None
    phase = phase_of(len(ids), start, n_prompt)
    return Request(ids, start, skip, domain, tokens, phase=phase)


def _ids(where: str, meta: Record, n: int, asked: Asked) -> np.ndarray:
    """Experts (n, L, k) of so many tokens."""
    kind = meta.get("routed_experts_dtype", "int32")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(
            f"{where}: {_KEY} is of {str(kind)[:20]!r}; allowed is int32, uint16, uint8"
        )
    data = bytes_at(where, _KEY, meta[_KEY])
    k = asked.n_chosen
    size = np.dtype(_TYPES[kind]).itemsize
    n_numbers = len(data) // size
    if n <= 0 or len(data) % size or n_numbers % n or not n_numbers:
        raise ValueError(
            f"{where}: {_KEY} has {len(data):,} bytes of {kind}, which are no {n:,} tokens (prompt "
            f"and completion less 1, from {_START} on)"
        )
    width = n_numbers // n
    if k is None or width % k:
        raise ValueError(
            f"{where}: {_KEY} has {width} numbers a token, layers times experts a token; give "
            "n_chosen, the experts a token"
        )
    return signed(np.frombuffer(data, _TYPES[kind])).reshape(n, width // k, k)


def _is_sglang(path: Path, asked: Asked) -> bool:
    answers = _answers(body_of(first_record(path)))
    return any(part(answer, "meta_info", _KEY) is not None for answer in answers)


FORMAT = Format(
    name="sglang-http",
    suffixes=SUFFIXES,
    description=(
        "responses of SGLang's server with meta_info.routed_experts, one a line of .jsonl or a "
        ".json; neither the number of experts nor how many a token takes is in them: give both"
    ),
    read=read_sglang_http,
    recognises=_is_sglang,
    writer="SGLang 0.5.6 to 0.5.16",
    source=(
        "sgl-project/sglang, python/sglang/srt/state_capturer/routed_experts_wire.py at a6463a1003"
    ),
)
