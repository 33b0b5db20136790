"""Responses of vLLM's server started with `--enable-return-routed-experts`, saved as JSON."""

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
)
from expertbank.routers.formats._json_lines import (
    SUFFIXES,
    Record,
    body_of,
    count_at,
    domain_at,
    first_record,
    part,
    parts,
    records_of,
    routes_at,
    tokens_at,
)

_START = "routed_experts_prompt_start"
_KEY = "routed_experts"


def read_vllm_http(path: Path, asked: Asked) -> Iterator[Piece]:
    """Responses of /v1/completions, /v1/chat/completions or /inference/v1/generate, one a line; or
    objects with the `request` beside the `response`, and `domain`, a number or a name, where known.

    `choices[i].routed_experts` is a base64 of npy (P + N - 1, L, k), from position
    `routed_experts_prompt_start` on where the request said so: the last token that was generated
    never ran. Each choice is a sequence. The prompt's rows, which every choice repeats, count in
    the first alone; in vLLM 0.21 they stand once, in `prompt_routed_experts`. Rows of -1 were
    cached, rows of 0 not captured: both are counted as having no route. The length of the prompt,
    where the response has it (`usage.prompt_tokens`, `prompt_token_ids`), tells the phases apart.

    >>> import base64, io, json
    >>> from tempfile import TemporaryDirectory
    >>> file = io.BytesIO()
    >>> np.save(file, np.array([[[3, 1]], [[0, 2]]], np.uint8))  # two tokens, one layer
    >>> choice = {"routed_experts": base64.b64encode(file.getvalue()).decode()}
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "responses.jsonl")
    ...     _ = path.write_text(json.dumps({"choices": [choice]}))
    ...     [piece.arrays["chosen"].tolist() for piece in read_vllm_http(path, Asked())]
    [[[3, 1], [0, 2]]]
    """
    yield from pieces_of_requests(path, _requests(path, asked), asked)


def _requests(path: Path, asked: Asked) -> Iterator[Request]:
    n_found = 0
    for where, record in records_of(path):
        body = body_of(record)
        for request in _choices(where, record, body, domain_at(where, record, asked)):
            n_found += 1
            yield request
    if not n_found:
        raise ValueError(
            f"{path}: no choice has {_KEY}; start the server with --enable-return-routed-experts"
        )


def _choices(where: str, record: Record, body: Any, domain: int) -> Iterator[Request]:
    """What each completion of one response routed; those without routes are left out."""
    prompt = routes_at(where, f"prompt_{_KEY}", part(body, f"prompt_{_KEY}"))
    found = []
    for choice in parts(body, "choices"):
        ids = routes_at(where, _KEY, choice.get(_KEY))
        if ids is not None:
            found.append((choice, ids))
    n_prompt = _prompt_length(where, body)
    if prompt is not None:
        found = _behind(where, prompt, found)
        n_prompt = len(prompt)
    for i, (choice, ids) in enumerate(found):
        start = 0 if prompt is not None else _start_of(where, record, body, choice)
        skip = 0
        if i:
            if n_prompt is None:
                raise ValueError(
                    f"{where} has several choices and no usage.prompt_tokens: the rows of the "
                    "prompt, which each repeats, would count several times"
                )
            skip = min(len(ids), max(0, n_prompt - start))
        tokens = _tokens(where, body, choice, start, len(ids))
        phase = phase_of(len(ids), start, n_prompt)
        yield Request(ids, start, skip, domain, tokens, phase=phase)


def _behind(
    where: str, prompt: np.ndarray, found: list[tuple[Record, np.ndarray]]
) -> list[tuple[Record, np.ndarray]]:
    """Completions of vLLM 0.21, whose prompt stands apart, each with the prompt before it."""
    for _, ids in found:
        if ids.shape[1:] != prompt.shape[1:]:
            raise ValueError(
                f"{where}: prompt_{_KEY} is of shape {prompt.shape}, {_KEY} of {ids.shape}; "
                "allowed are the same layers and k"
            )
    if not found:
        return [({}, prompt)]
    return [(choice, np.concatenate([prompt, ids])) for choice, ids in found]


def _start_of(where: str, record: Record, body: Any, choice: Record) -> int:
    """The position of the first row: what the request, or the answer, says of it."""
    request = part(record, "request")
    places = (choice, body, record, part(record, "sampling_params"), request)
    for place in (*places, part(request, "sampling_params")):
        start = count_at(where, _START, part(place, _START))
        if start is not None:
            return start
    return 0


def _prompt_length(where: str, body: Any) -> int | None:
    n_prompt = count_at(where, "prompt_tokens", part(body, "usage", "prompt_tokens"))
    tokens = part(body, "prompt_token_ids")
    if n_prompt is None and isinstance(tokens, list):
        n_prompt = len(tokens)
    return n_prompt


def _tokens(where: str, body: Any, choice: Record, start: int, n: int) -> np.ndarray | None:
    """The tokens of n rows, where the response has them."""
    tokens = tokens_at(part(body, "prompt_token_ids"), choice.get("token_ids"))
    if tokens is None:
        return None
    if len(tokens) < start + n:
        raise ValueError(
            f"{where}: {_KEY} has {n} rows from position {start} on, prompt_token_ids and "
            f"token_ids have {len(tokens)} tokens; is {_START} missing?"
        )
    return tokens[start : start + n]


def _is_vllm(path: Path, asked: Asked) -> bool:
    record = first_record(path)
    body = body_of(record)
    if part(body, f"prompt_{_KEY}") is not None:
        return True
    return any(_KEY in choice for choice in parts(body, "choices"))


FORMAT = Format(
    name="vllm-http",
    suffixes=SUFFIXES,
    description=(
        "responses of vLLM's server with routed_experts in their choices, one a line of .jsonl or "
        "a .json; each completion is a sequence, a prompt counts once; domain where you wrote it"
    ),
    read=read_vllm_http,
    recognises=_is_vllm,
    writer="vLLM 0.21 (nested lists) to 0.23 (base64 of npy)",
    source=(
        "vllm-project/vllm, docs/training/routed_experts_replay.md at 0087e005de; pull requests "
        "44638 and 51906 of the same"
    ),
)
