"""Readers for files that hold what routers chose. None of them runs code from a file.

**One module a format.** Each module in this folder without an underscore describes itself as a
`Format` under the name `FORMAT`, and `FORMATS` finds them all: what `format=` takes, what the
command line offers and explains, and how a file is recognised come from there. To read another kind
of file, add one module.

>>> print(*FORMATS)
megatron npz parquet r3 statistics sglang sglang-http counts vllm vllm-http
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import textwrap
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from expertbank._checks import as_count
from expertbank._files import PathLike, check_input, check_memory, reading
from expertbank.routers.formats._common import (
    MOST_ID,
    Arrays,
    Asked,
    Format,
    Names,
    Piece,
    check_arrays,
    first_sequence_id,
)
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

    >>> print(describe_formats(width=80).splitlines()[0])
      megatron     router_trace_rank*.jsonl of Megatron-Core's router tracer, with
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
    path: PathLike | Iterable[PathLike],
    format: str | None = None,
    *,
    n_experts: int | None = None,
    n_chosen: int | None = None,
    layers: Iterable[Layer] | None = None,
    columns: Mapping[str, str | None] | None = None,
    domains: Iterable[str] | None = None,
) -> Iterator[tuple[Layer, Arrays]]:
    """What files and folders hold, as (layer, arrays): keywords of `RouterStatistics.update`, many
    tokens at a time.

    A sequence is never cut. Where a file holds counts only, `arrays` is {"load": (E,)}. `format` is
    one of `FORMATS`; None goes by the file. `n_experts` is used to check the ids, `n_chosen` is k
    for files that do not say it. `layers`, `columns` and `domains` are as in `statistics_of`; names
    of domains are numbered as they come where none are given. Rows without a route are masked.
    Raises FileNotFoundError, or ValueError that names the file, the key and what is allowed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/routes.npz", chosen=[[0, 1], [2, -1]])
    ...     [(layer, arrays)] = read_routing(f"{folder}/routes.npz")
    >>> layer, arrays["chosen"].tolist()
    (0, [[0, 1], [2, -1]])
    """
    asked = _asked(n_experts, n_chosen, layers, columns, domains)
    for each in _as_paths(path, format):
        for piece in _pieces(each, format, asked):
            if not piece.is_empty:
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
    layers: Iterable[Layer] | None = None,
    columns: Mapping[str, str | None] | None = None,
    domains: Iterable[str] | None = None,
    by_file: bool = False,
    step: int | None = None,
    decode_from: int | None = None,
) -> RouterStatistics:
    """Statistics of any number of files and folders in bounded memory, sizes as `RouterStatistics`.

    `domain` is that of everything in these files, for formats that know none. What is None is taken
    from the files, which are read twice for it: `n_experts` from probabilities or a header (vLLM's
    arrays have neither: give it), `n_chosen` from the rows, `n_domains` from the largest domain.
    Positions and tokens are counted where room is made for them. Counts give loads alone. `layers`
    are those to read. `columns` renames columns of npz and parquet, as {"topk": "chosen",
    "text": None}; None leaves one out. `domains` are the names of the domains in their order, by
    default all that are found, by the alphabet: give them where parts are to be added. A sequence
    that two files have is refused; `by_file` says that each file numbers its own. `step` is how
    many tokens, in their order, were computed at once, for the MaxVio of steps where a file does
    not say; without it, such a file has none; what is left over is no step. `decode_from` is the
    first position that was generated, where a file does not say it. Rows without a route are left
    out and counted as `LayerStatistics.unrouted`. Raises as `read_routing` does, where no file says
    how many experts there are, or none has a route, and where ranks hold the same tokens.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/routes.npz", chosen=[[0, 1], [2, -1]], domain=[0, 1], n_experts=4)
    ...     statistics = statistics_of(f"{folder}/routes.npz")
    >>> statistics.layers[0].domains.tolist()
    [[1, 1, 0, 0], [0, 0, 1, 0]]
    """
    paths = _as_paths(path, format)
    asked = _asked(n_experts, n_chosen, layers, columns, domains)
    if all(_format_of(each, format, asked).load is not None for each in paths):
        return _sum_of_saved(paths, format, asked)
    sizes = _sizes_in(paths, format, asked, _Sizes(n_experts, n_chosen, n_domains), domain)
    asked.domains.close()
    asked = replace(asked, n_experts=sizes.n_experts)
    statistics = RouterStatistics(
        sizes.n_experts,
        sizes.n_chosen,
        n_domains=sizes.n_domains,
        n_positions=n_positions,
        n_tokens=n_tokens,
        n_kept=n_kept,
        seed=seed,
    )
    _Count(statistics, asked, format, domain, by_file, step, decode_from).of(paths)
    return statistics


def _asked(
    n_experts: int | None,
    n_chosen: int | None,
    layers: Iterable[Layer] | None,
    columns: Mapping[str, str | None] | None,
    domains: Iterable[str] | None,
) -> Asked:
    return Asked(
        n_experts if n_experts is None else as_count(n_experts, "n_experts"),
        n_chosen if n_chosen is None else as_count(n_chosen, "n_chosen"),
        None if layers is None else frozenset(layers),
        {} if columns is None else dict(columns),
        Names(domains),
    )


# --- which format a file has ---


def _as_paths(path: PathLike | Iterable[PathLike], format: str | None) -> list[Path]:
    """Files, and those in folders that end as routing files do."""
    given = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    if not given:
        raise ValueError("no file is given; at least one is needed")
    paths = []
    for each in map(Path, given):
        paths += _files_in(each, format) if each.is_dir() else [each]
    return paths


def _files_in(folder: Path, format: str | None) -> list[Path]:
    """The routing files in a folder and those in it, sorted by name; what starts with a dot and
    what stands beside a routing file is left out."""
    kinds = [_format_named(format)] if format is not None else list(FORMATS.values())
    suffixes = {suffix for kind in kinds for suffix in kind.suffixes}
    beside = [pattern for kind in FORMATS.values() for pattern in kind.sidecars]
    found = [
        each
        for each in sorted(folder.rglob("*"))
        if each.suffix in suffixes
        and each.is_file()
        and not any(name.startswith(".") for name in each.relative_to(folder).parts)
        and not any(each.match(pattern) for pattern in beside)
    ]
    if not found:
        raise ValueError(f"{folder} holds no file that ends in {', '.join(sorted(suffixes))}")
    return found


def _format_named(name: str) -> Format:
    if name not in FORMATS:
        raise ValueError(f"format is {name!r}; allowed are {', '.join(FORMATS)}")
    return FORMATS[name]


def _format_of(path: Path, name: str | None, asked: Asked) -> Format:
    """The format of that name, or the one that recognises the file."""
    known = ", ".join(FORMATS)
    check_input(path)
    if name is not None:
        return _format_named(name)
    candidates = [format for format in FORMATS.values() if path.suffix in format.suffixes]
    if not candidates:
        raise ValueError(f"{path} ends in {path.suffix!r}; give format, one of {known}")
    candidates.sort(key=lambda format: format.is_fallback)
    with reading(path):
        for format in candidates:
            if format.recognises(path, asked):
                return format
    raise ValueError(f"{path} is not recognised; give format, one of {known}")


# --- reading ---


def _pieces(path: Path, format: str | None, asked: Asked) -> Iterator[Piece]:
    """The pieces of a file after checks; their `n_experts` is what was given, or what the file
    says."""
    read = _format_of(path, format, asked).read
    with reading(path):
        for piece in read(path, asked):
            known = piece.n_experts if asked.n_experts is None else asked.n_experts
            check_arrays(f"{path}, layer {piece.layer}", piece.arrays, known)
            yield piece._replace(n_experts=known)


class _Count:
    """Counts files into statistics, with what has to be seen across files."""

    def __init__(
        self,
        statistics: RouterStatistics,
        asked: Asked,
        format: str | None,
        domain: int | None,
        by_file: bool,
        step: int | None,
        decode_from: int | None,
    ):
        self.statistics = statistics
        self.asked = asked
        self.format = format
        self.domain = domain
        self.by_file = by_file
        self.step = None if step is None else as_count(step, "step")
        self.decode_from = decode_from
        if decode_from is not None:
            as_count(decode_from, "decode_from", 0)
        self.unrouted: dict[Layer, int] = {}
        self.without_room = {
            name for name, room in ROOM_FOR.items() if not getattr(statistics, room)
        }
        # by layer, the sequences of the files before; and what ranks have written
        self.sequences: dict[Layer, np.ndarray] = {}
        self.written: dict[int, Path] = {}

    def of(self, paths: list[Path]) -> None:
        """Count all files."""
        for path in paths:
            self._file(path, len(paths) > 1)
        layers = self.statistics.layers
        if self.unrouted and not layers:
            raise ValueError(
                f"{paths[0]}: none of {max(self.unrouted.values()):,} rows holds a route"
            )
        for layer, n in self.unrouted.items():
            if layer in layers:  # a layer without any route is a dense one
                layers[layer].add(unrouted=n)

    def _file(self, path: Path, is_one_of_several: bool) -> None:
        first = None
        found: list[np.ndarray] = []
        digest = 0
        for piece in _pieces(path, self.format, self.asked):
            layer = piece.layer
            self.unrouted[layer] = self.unrouted.get(layer, 0) + piece.unrouted
            if piece.is_empty:
                continue
            if is_one_of_several:
                content = piece.arrays.get("chosen", piece.arrays.get("load"))
                if content is not None:
                    digest = zlib.crc32(content.tobytes(), digest)
                first = layer if first is None else first
                if layer == first and "sequence" in piece.arrays and not self.by_file:
                    found.append(np.unique(piece.arrays["sequence"]))
            self._piece(path, piece)
        if first is None:
            return
        if _format_of(path, self.format, self.asked).is_of_ranks:
            self._check_rank(path, digest)
        if found:
            self._check_sequences(path, first, np.unique(np.concatenate(found)))

    def _check_rank(self, path: Path, digest: int) -> None:
        if digest in self.written:
            raise ValueError(
                f"{path} and {self.written[digest].name} hold the same tokens, as ranks of one "
                "group write them; give one of them"
            )
        self.written[digest] = path

    def _check_sequences(self, path: Path, layer: Layer, ids: np.ndarray) -> None:
        ids = ids[ids >= 0]
        before = self.sequences.get(layer, np.zeros(0, np.int64))
        shared = np.intersect1d(before, ids, assume_unique=True)
        if len(shared):
            raise ValueError(
                f"{path}: sequence {shared[0]} is in a file before it too, so two texts would "
                "count as one; give by_file=True where each file numbers its own"
            )
        self.sequences[layer] = np.concatenate([before, ids])

    def _piece(self, path: Path, piece: Piece) -> None:
        """Count a piece, by the labels that there is room for."""
        statistics = self.statistics
        layer = piece.layer
        arrays = piece.arrays
        if self.domain is not None and "load" not in arrays:
            n = len(next(iter(arrays.values())))
            arrays = {**arrays, "domain": np.full(n, self.domain)}
        if self.by_file and "sequence" in arrays:
            own = arrays["sequence"]
            ids = (own + first_sequence_id(path)) % MOST_ID
            arrays = {**arrays, "sequence": np.where(own >= 0, ids, -1)}
        if self.decode_from is not None and "position" in arrays and "phase" not in arrays:
            position = arrays["position"]
            phase = np.where(position < 0, -1, position >= self.decode_from)
            arrays = {**arrays, "phase": phase}
        counted = {key: array for key, array in arrays.items() if key not in self.without_room}
        with reading(f"{path}, layer {layer}"):
            n_layers = len({*statistics.layers, layer})
            cells = statistics.n_experts * (statistics.n_experts + statistics.n_domains)
            check_memory(8 * cells * n_layers, path.stat().st_size)
            if "load" in arrays:
                load = arrays["load"] if piece.steps is None else piece.steps
                statistics.add_load(layer, load, is_step=piece.steps is not None)
            else:
                statistics.update(layer, **counted, step=self._steps(piece))

    def _steps(self, piece: Piece) -> np.ndarray | int:
        """Which tokens (n,) of a piece were computed at once; -1 where that is not known."""
        if piece.steps is not None:
            return piece.steps
        if self.step is None:
            return -1
        n = len(next(iter(piece.arrays.values())))
        place = (piece.arrays.get("mask", np.ones(n, bool)) > 0).cumsum() - 1
        steps = place // self.step
        n_whole = (place[-1] + 1) // self.step
        return np.where(steps < n_whole, steps, -1)


def _sum_of_saved(paths: list[Path], format: str | None, asked: Asked) -> RouterStatistics:
    """The sum of files that hold statistics."""
    parts = []
    for path in paths:
        load = _format_of(path, format, asked).load
        assert load is not None
        parts.append(load(path))
    statistics = reduce(add, parts)
    if asked.n_experts not in (None, statistics.n_experts):
        raise ValueError(
            f"{paths[0]} is about {statistics.n_experts} experts, n_experts is {asked.n_experts}; "
            "leave it out"
        )
    for layer in [name for name in statistics.layers if not asked.wants(name)]:
        del statistics.layers[layer]
    return statistics


@dataclass(frozen=True)
class _Sizes:
    n_experts: Any
    n_chosen: Any
    n_domains: Any


def _sizes_in(
    paths: list[Path], format: str | None, asked: Asked, given: _Sizes, domain: int | None
) -> _Sizes:
    """Experts, chosen ones at most, and domains, as the files say where they are not given."""
    if None not in vars(given).values():
        return given
    experts = set() if given.n_experts is None else {given.n_experts}
    n_chosen = 1
    n_domains = 0 if domain is None else domain + 1
    for path in paths:
        for piece in _pieces(path, format, asked):
            arrays = piece.arrays
            if piece.n_experts is not None:
                experts.add(piece.n_experts)
            if "chosen" in arrays and not piece.is_empty:
                n_chosen = max(n_chosen, arrays["chosen"].shape[1])
            if "domain" in arrays:
                found = arrays["domain"]
                if "mask" in arrays:
                    found = found[arrays["mask"] > 0]
                n_domains = max(n_domains, int(found.max(initial=-1)) + 1)
    if len(experts) != 1:
        says = "do not say how many experts there are"
        if experts:
            says = f"say that there are {sorted(experts)} experts"
        raise ValueError(
            f"{', '.join(map(str, paths[:3]))} {says}; give n_experts (the dead ones count too)"
        )
    n_domains = max(n_domains, len(asked.domains.numbers))
    return _Sizes(
        experts.pop(),
        n_chosen if given.n_chosen is None else given.n_chosen,
        n_domains if given.n_domains is None else given.n_domains,
    )
