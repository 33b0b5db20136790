"""Readers for files that hold what routers chose. None of them runs code from a file.

**One module a format.** Each module in this folder without an underscore describes itself as a
`Format` under the name `FORMAT`, and `FORMATS` finds them all: what `format=` takes, what the
command line offers and explains, and how a file is recognised come from there. To read another kind
of file, add one module.

>>> list(FORMATS)
['npz', 'parquet', 'statistics', 'sglang', 'vllm']
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from expertbank._files import PathLike, check_input, check_memory, reading
from expertbank.routers.formats._common import Arrays, Format, Piece, check_arrays
from expertbank.routers.statistics import ROOM_FOR, Layer, RouterStatistics


def discover_formats() -> dict[str, Format]:
    """The `FORMAT` of every module in this folder, by its name.

    >>> discover_formats()["parquet"].suffixes
    ('.parquet',)
    """
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            format = importlib.import_module(f"{__name__}.{module.name}").FORMAT
            found[format.name] = format
    return found


FORMATS = discover_formats()


def describe_formats(width: int = 100) -> str:
    """What is in a file of each format, as indented lines of at most `width` characters.

    >>> print(describe_formats(width=80).splitlines()[-2])
      vllm        integer arrays [tokens, layers, k], one a request: vLLM's
    """
    column = max(len(name) for name in FORMATS)
    entries = []
    for name, format in FORMATS.items():
        head = f"  {name:{column}}  "
        indent = " " * len(head)
        entry = textwrap.fill(
            format.description, width, initial_indent=head, subsequent_indent=indent
        )
        entries.append(entry)
    return "\n".join(entries)


def read_routing(
    path: PathLike, format: str | None = None, *, n_experts: int | None = None
) -> Iterator[tuple[Layer, Arrays]]:
    """What a file holds, as (layer, arrays): keywords of `RouterStatistics.update`, many tokens at
    a time.

    A sequence is never cut. Where a file holds counts only, `arrays` is {"load": (E,)}. `format` is
    one of `FORMATS`; None goes by the file. `n_experts` is used to check the ids. Raises
    FileNotFoundError, or ValueError that names the file, the key and what is allowed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/routes.npz", chosen=[[0, 1], [2, -1]])
    ...     [(layer, arrays)] = read_routing(f"{folder}/routes.npz")
    >>> layer, arrays["chosen"].tolist()
    (0, [[0, 1], [2, -1]])
    """
    for piece in _pieces(Path(path), format, n_experts):
        yield piece.layer, piece.arrays


def statistics_of(
    path: PathLike | Iterable[PathLike],
    format: str | None = None,
    *,
    domain: int | None = None,
    n_experts: int | None = None,
    n_chosen: int | None = None,
    n_domains: int | None = None,
    n_positions: int = 0,
    n_tokens: int = 0,
    n_kept: int = 1024,
    seed: int = 0,
) -> RouterStatistics:
    """Statistics of one file, or of a list of files, in bounded memory; see `RouterStatistics` for
    the sizes.

    `domain` is that of everything in these files, for formats that know none: record each domain by
    itself and add up. What is None is taken from the files, which are read twice for it:
    `n_experts` from probabilities or a header (vLLM's arrays have neither: give it), `n_chosen`
    from the width of the rows, `n_domains` from the largest domain. Positions and tokens are
    counted where room is made for them. Counts-only files give loads and nothing else. Raises as
    `read_routing` does, and where no file says how many experts there are.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/routes.npz", chosen=[[0, 1], [2, -1]], domain=[0, 1], n_experts=4)
    ...     statistics = statistics_of(f"{folder}/routes.npz")
    >>> statistics.layers[0].domains.tolist()
    [[1, 1, 0, 0], [0, 0, 1, 0]]
    """
    paths = _as_paths(path)
    if all(_format_of(each, format).load is not None for each in paths):
        return _sum_of_saved(paths, format, n_experts)
    if n_experts is None or n_chosen is None or n_domains is None:
        found = _sizes_in(paths, format, n_experts)
        n_experts = found.n_experts if n_experts is None else n_experts
        n_chosen = found.n_chosen if n_chosen is None else n_chosen
        if n_domains is None:
            n_domains = found.n_domains if domain is None else max(found.n_domains, domain + 1)
    statistics = RouterStatistics(
        n_experts,
        n_chosen,
        n_domains=n_domains,
        n_positions=n_positions,
        n_tokens=n_tokens,
        n_kept=n_kept,
        seed=seed,
    )
    for each in paths:
        _count_file(statistics, each, format, domain)
    return statistics


# --- which format a file has ---


def _as_paths(path: PathLike | Iterable[PathLike]) -> list[Path]:
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    if not paths:
        raise ValueError("no file is given; at least one is needed")
    return [Path(each) for each in paths]


def _format_of(path: Path, name: str | None) -> Format:
    """The format of that name, or the one that recognises the file."""
    known = ", ".join(FORMATS)
    check_input(path)
    if name is not None:
        if name not in FORMATS:
            raise ValueError(f"format is {name!r}; allowed are {known}")
        return FORMATS[name]
    candidates = [format for format in FORMATS.values() if path.suffix in format.suffixes]
    if not candidates:
        raise ValueError(f"{path} ends in {path.suffix!r}; give format, one of {known}")
    candidates.sort(key=lambda format: format.is_fallback)
    with reading(path):
        for format in candidates:
            if format.recognises(path):
                return format
    raise ValueError(f"{path} is not recognised; give format, one of {known}")


# --- reading ---


def _pieces(path: Path, format: str | None, n_experts: int | None) -> Iterator[Piece]:
    """The pieces of a file after checks; their `n_experts` is what was given, or what the file
    says."""
    read = _format_of(path, format).read
    with reading(path):
        for piece in read(path):
            known = piece.n_experts if n_experts is None else n_experts
            check_arrays(f"{path}, layer {piece.layer}", piece.arrays, known)
            yield Piece(piece.layer, piece.arrays, known)


def _count_file(
    statistics: RouterStatistics, path: Path, format: str | None, domain: int | None
) -> None:
    """Count what is in a file, by the labels that there is room for."""
    without_room = {name for name, room in ROOM_FOR.items() if not getattr(statistics, room)}
    for layer, arrays, _ in _pieces(path, format, statistics.n_experts):
        if domain is not None and "load" not in arrays:
            n = len(next(iter(arrays.values())))
            arrays = {**arrays, "domain": np.full(n, domain)}
        counted = {key: array for key, array in arrays.items() if key not in without_room}
        with reading(f"{path}, layer {layer}"):
            n_layers = len({*statistics.layers, layer})
            cells = statistics.n_experts * (statistics.n_experts + statistics.n_domains)
            check_memory(8 * cells * n_layers, path.stat().st_size)
            if "load" in arrays:
                statistics.add_load(layer, arrays["load"])
            else:
                statistics.update(layer, **counted)


def _sum_of_saved(paths: list[Path], format: str | None, n_experts: int | None) -> RouterStatistics:
    """The sum of files that hold statistics."""
    parts = []
    for path in paths:
        load = _format_of(path, format).load
        assert load is not None
        parts.append(load(path))
    statistics = reduce(add, parts)
    if n_experts not in (None, statistics.n_experts):
        raise ValueError(
            f"{paths[0]} is about {statistics.n_experts} experts, n_experts is {n_experts}; leave "
            "it out"
        )
    return statistics


@dataclass(frozen=True)
class _Sizes:
    n_experts: int
    n_chosen: int
    n_domains: int


def _sizes_in(paths: list[Path], format: str | None, n_experts: int | None) -> _Sizes:
    """Experts, chosen ones at most, and domains, as the files say; `n_experts` where given."""
    experts = set() if n_experts is None else {n_experts}
    n_chosen = 1
    n_domains = 0
    for path in paths:
        for _, arrays, found in _pieces(path, format, n_experts):
            if found is not None:
                experts.add(found)
            if "chosen" in arrays:
                n_chosen = max(n_chosen, arrays["chosen"].shape[1])
            if "domain" in arrays:
                domain = arrays["domain"]
                if "mask" in arrays:
                    domain = domain[arrays["mask"] > 0]
                if domain.size:
                    n_domains = max(n_domains, int(domain.max()) + 1)
    if len(experts) != 1:
        found = "do not say how many experts there are"
        if experts:
            found = f"say that there are {sorted(experts)} experts"
        raise ValueError(
            f"{', '.join(map(str, paths[:3]))} {found}; give n_experts (the dead ones count too)"
        )
    return _Sizes(experts.pop(), n_chosen, n_domains)
