"""What vLLM returns offline with `enable_return_routed_experts`, written by `numpy.save` or
`savez`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from expertbank._files import check_array, each_array
from expertbank.routers.formats._arrays import arrays_named, names_in, one_integer
from expertbank.routers.formats._common import (
    Asked,
    Format,
    Piece,
    Request,
    as_ids,
    as_numbers,
    phase_of,
    pieces_of_requests,
)

_KEY = "routed_experts"


def read_vllm(path: Path, asked: Asked) -> Iterator[Piece]:
    """Arrays [tokens, layers, k], one a request; in an npz also `domain` (requests,) and
    `n_experts`.

    Of vLLM 0.21 the prompt's array is one of its own: prompt_routed_experts with any ending, and
    routed_experts with the same ending for its completion, or with a number after that for one of
    several. Prompt and first completion are one sequence; each other completion is a sequence that
    starts behind the prompt, which counts once: of these the phases are known. Rows of -1 were
    cached, rows of 0 not captured: both are counted as having no route, and a layer of nothing
    else, a dense one, is left out.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "routes.npy")
    ...     np.save(path, [[[4, 0], [1, 2]], [[-1, -1], [2, 3]]])  # two tokens, two layers
    ...     [(p.layer, p.arrays["chosen"].tolist(), p.unrouted) for p in read_vllm(path, Asked())]
    [(0, [[4, 0], [-1, -1]], 1), (1, [[1, 2], [2, 3]], 0)]
    """
    names = names_in(path)
    small = arrays_named(path, "domain", "n_experts")
    n_experts = one_integer(small, "n_experts")
    if not names:
        check_array(path)
        only = as_ids(str(path), _KEY, np.load(path, mmap_mode="r", allow_pickle=False))
        yield from pieces_of_requests(path, [Request(only)], asked, n_experts)
        return
    groups = _groups_of(path, [name for name in names if name not in small])
    domain = None
    if "domain" in small:
        domain = as_numbers(str(path), "domain", small["domain"], asked)
        if domain.shape != (len(groups),) or domain.dtype.kind != "i":
            raise ValueError(
                f"{path}: domain has shape {domain.shape}; allowed is one a request, "
                f"({len(groups)},)"
            )
    yield from pieces_of_requests(path, _requests(path, groups, domain), asked, n_experts)


def _groups_of(path: Path, names: list[str]) -> list[list[str]]:
    """The arrays of each request: a prompt and its completions, or one array."""
    prompts = {name: name.replace(f"prompt_{_KEY}", _KEY, 1) for name in names if "prompt_" in name}
    prompts = {name: own for name, own in prompts.items() if own != name}
    groups: dict[str, list[str]] = {name: [name] for name in prompts}
    for name in names:
        if name in prompts:
            continue
        fits = [
            prompt
            for prompt, own in prompts.items()
            if re.fullmatch(re.escape(own) + r"([_./-]?\d+)?", name)
        ]
        if prompts and not fits:
            raise ValueError(
                f"{path}: {name} belongs to no prompt; allowed is {_KEY} with the ending of a "
                f"prompt_{_KEY}, and a number after that for one of several completions"
            )
        groups.setdefault(max(fits, key=len) if fits else name, []).append(name)
    return list(groups.values())


def _requests(path: Path, groups: list[list[str]], domain: np.ndarray | None) -> Iterator[Request]:
    """The sequences of each group, read one group at a time."""
    arrays = each_array(path, [name for group in groups for name in group])
    for i, group in enumerate(groups):
        own = -1 if domain is None else int(domain[i])
        found = [(name, as_ids(str(path), name, array)) for name, array in _some(arrays, group)]
        n_prompt = len(found[0][1]) if f"prompt_{_KEY}" in group[0] else None
        if n_prompt and len(found) > 1:
            if found[0][1].shape[1:] != found[1][1].shape[1:]:
                raise ValueError(
                    f"{path}: {group[0]} and {group[1]} are of shapes {found[0][1].shape} and "
                    f"{found[1][1].shape}; allowed are requests of one model"
                )
            found[:2] = [(group[1], np.concatenate([found[0][1], found[1][1]]))]
        for j, (_, ids) in enumerate(found):
            start = n_prompt if j and n_prompt else 0
            yield Request(ids, start, 0, own, phase=phase_of(len(ids), start, n_prompt))


def _some(
    arrays: Iterator[tuple[str, np.ndarray]], group: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
    for _ in group:
        yield next(arrays)


FORMAT = Format(
    name="vllm",
    suffixes=(".npy", ".npz"),
    description=(
        "integer arrays [tokens, layers, k], one a request: vLLM's routed_experts, with its "
        "prompt_routed_experts before it; the number of experts is not among them: give it"
    ),
    read=read_vllm,
    is_fallback=True,  # requests have any names, so this is what another npz is taken for
    writer="vLLM 0.11 to 0.23",
    source="vllm-project/vllm, docs/training/routed_experts_replay.md at 0087e005de",
)
