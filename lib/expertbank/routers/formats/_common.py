"""What every format of a routing file shares: the record that describes it, what a reader is asked
for, the pieces that it reads, and the checks of what was read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from expertbank.routers.statistics import Layer, RouterStatistics

OF_EXPERTS = ("chosen", "weights", "probabilities")  # (tokens, k) or (tokens, E)
LABELS = ("domain", "sequence", "position", "token", "phase", "mask")  # (tokens,)
COLUMNS = (*OF_EXPERTS, *LABELS, "layer")
KEYS = (*COLUMNS, "n_experts")
# names that others use for these columns
ALIASES = {"selected_experts": "chosen", "gate_weights": "weights"}
BATCH = 65_536  # tokens that are looked at together: what bounds the memory
MOST_ID = 2**62  # of a sequence

Arrays = dict[str, np.ndarray]


class Piece(NamedTuple):
    """Many tokens of one layer, in which no sequence is cut."""

    layer: Layer
    arrays: Arrays
    """keywords of `RouterStatistics.update`; {"load": (E,)} where a file holds counts only"""
    n_experts: int | None = None
    """E, where the file says it"""
    unrouted: int = 0
    """rows that hold no route, which the mask leaves out"""
    steps: np.ndarray | None = None
    """(n,) numbers that tell apart which tokens were computed at once; of loads, (S, E) that of
    each step; None where the file does not say"""

    @property
    def is_empty(self) -> bool:
        """Whether no row of it has a route."""
        return self.unrouted > 0 and not self.arrays["mask"].any()


class Names:
    """Numbers for the names of domains, the same in all files of one call."""

    def __init__(self, names: Iterable[str] | None = None):
        given = [] if names is None else list(names)
        self.is_given = names is not None
        self.numbers = {name: i for i, name in enumerate(given)}
        self.are_numbers = False

    def numbers_of(self, names: list[str]) -> np.ndarray:
        """The number of each name; a new one is added where no names were given."""
        for name in names:
            if name not in self.numbers:
                if self.is_given:
                    allowed = ", ".join(map(repr, list(self.numbers)[:9]))
                    raise ValueError(
                        f"domain is {name!r}; allowed are [{allowed}], which `domains` gives"
                    )
                self.numbers[name] = len(self.numbers)
        return np.array([self.numbers[name] for name in names], np.int64)

    def close(self) -> None:
        """Number the names that were found so far by the alphabet, so that no order of files
        matters, and take no more."""
        if not self.is_given:
            self.numbers = {name: i for i, name in enumerate(sorted(self.numbers))}
            self.is_given = True


@dataclass(frozen=True)
class Asked:
    """What a reader is asked for, beside the file."""

    n_experts: int | None = None
    """E, for files that do not say it"""
    n_chosen: int | None = None
    """k, for files that do not say it"""
    layers: frozenset[Layer] | None = None
    """those to read; None is all"""
    columns: Mapping[str, str | None] = field(default_factory=dict)
    """what columns of the file are here; None leaves one out"""
    domains: Names = field(default_factory=Names)

    def wants(self, layer: Layer) -> bool:
        """Whether a layer is to be read."""
        return self.layers is None or layer in self.layers

    def rename(self, path: Path, names: Iterable[str], known: tuple[str, ...]) -> dict[str, str]:
        """The columns of a file, by the names that they have here."""
        found: dict[str, str] = {}
        unknown = []
        for name in names:
            ours = self.columns.get(name, ALIASES.get(name, name))
            if ours is None:
                continue
            if ours in found:
                raise ValueError(f"{path}: {found[ours]} and {name} are both {ours}; leave one out")
            if ours not in known:
                unknown.append(name)
            found[ours] = name
        if unknown:
            raise ValueError(
                f"{path} has columns {sorted(unknown)}; allowed are {', '.join(known)}; `columns` "
                "renames or leaves out"
            )
        if not {"chosen", "probabilities"} & set(found):
            raise ValueError(
                f"{path} has columns {sorted(found)}; chosen or probabilities is needed"
            )
        return found


def any_file(path: Path, asked: Asked) -> bool:
    """Recognises every file: for formats that their suffix tells apart."""
    return True


@dataclass(frozen=True)
class Format:
    """One kind of file, as the registry in `expertbank.routers.formats` knows it."""

    name: str
    """what `format=` and `--format` call it"""
    suffixes: tuple[str, ...]
    """how its files end, dots included"""
    description: str
    """what is in a file, for the help of the command line"""
    read: Callable[[Path, Asked], Iterator[Piece]]
    """the pieces of a file, or ValueError that names the file, the key and what is allowed"""
    recognises: Callable[[Path, Asked], bool] = any_file
    """whether a file with one of the suffixes is of this format"""
    is_fallback: bool = False
    """asked last: its files have no mark of their own"""
    load: Callable[[Path], RouterStatistics] | None = None
    """statistics of a file that holds no tokens but statistics"""
    writer: str = "expertbank"
    """what writes such files, and the versions that it was read for"""
    source: str = ""
    """the public file that says how: repository, path, commit"""
    sidecars: tuple[str, ...] = ()
    """patterns of files beside these, which are no routing files of their own"""
    is_of_ranks: bool = False
    """whether ranks of one group write the same tokens: then two equal files are one too many"""


# --- columns ---


def signed(array: np.ndarray) -> np.ndarray:
    """Unsigned integers in a signed type that holds them, so that -1 may stand among them."""
    if array.dtype.kind != "u":
        return array
    if array.dtype.itemsize < 8:
        return array.astype(f"i{2 * array.dtype.itemsize}")
    if array.size and array.max() >= 2**63:
        raise ValueError(f"{array.max()} is too large; allowed are ids below 2^63")
    return array.astype(np.int64)


def as_numbers(where: str, key: str, array: np.ndarray, asked: Asked) -> np.ndarray:
    """A label (n,) as integers: names of domains by their numbers, names of sequences by a hash."""
    if key == "mask":
        return array
    if key == "domain":
        is_text = array.dtype.kind in "OUS"
        if array.size and is_text == asked.domains.are_numbers:
            if is_text or asked.domains.numbers:
                raise ValueError(f"{where}: domain is names in one place and numbers in another")
            asked.domains.are_numbers = True
    if key not in ("domain", "sequence") or array.dtype.kind not in "OU":
        return signed(array)
    names, index = np.unique(array, return_inverse=True)
    if not all(isinstance(name, str) for name in names.tolist()):
        raise ValueError(f"{where}: {key} is not all text; allowed are names, or integers")
    return number_names(key, names.tolist(), asked)[index]


def number_names(key: str, names: list[str], asked: Asked) -> np.ndarray:
    """The integers that stand for names of domains or sequences."""
    if key == "domain":
        return asked.domains.numbers_of(names)
    digests = [hashlib.blake2b(name.encode(errors="replace")).digest() for name in names]
    return np.array([int.from_bytes(digest[:8]) % MOST_ID for digest in digests], np.int64)


# --- pieces ---


def split_by_layer(
    arrays: Arrays, layers: np.ndarray, n_experts: int | None, asked: Asked
) -> Iterator[Piece]:
    """A piece for each layer among rows whose layers (tokens,) are named one by one."""
    for layer in np.unique(layers).tolist():
        if asked.wants(layer):
            rows = layers == layer
            yield Piece(layer, {key: array[rows] for key, array in arrays.items()}, n_experts)


def groups_of_tokens(lengths: list[int]) -> Iterator[list[int]]:
    """Indices of neighbours that together have about `BATCH` tokens."""
    group: list[int] = []
    size = 0
    for i, length in enumerate(lengths):
        if group and size + length > BATCH:
            yield group
            group = []
            size = 0
        group.append(i)
        size += length
    if group:
        yield group


def first_sequence_id(path: Path) -> int:
    """Where the numbers of a file's sequences start, so that files that know no others do not share
    them: of its name, its size and blocks from all over it, since prompts begin alike."""
    size = path.stat().st_size
    digest = hashlib.blake2b(f"{path.parent.name}/{path.name} {size}".encode(errors="replace"))
    with path.open("rb") as file:
        digest.update(file.read(2**20))
        for i in range(1, 65):
            file.seek(max(0, size * i // 64 - 2**14))
            digest.update(file.read(2**14))
    return int.from_bytes(digest.digest()[:8]) % 2**39 << 23


def routed_piece(
    where: str,
    layer: Layer,
    chosen: np.ndarray,
    labels: Arrays,
    n_experts: int | None = None,
    missing: np.ndarray | None = None,
    may_drop: bool = False,
) -> Piece:
    """A piece of rows (n, k) of which some hold no route: all -1 where none was captured, or all 0,
    which no k > 1 distinct experts are. `missing` (n,) marks more of them. `step` among the labels
    tells apart which tokens were computed at once.

    Rows with some of their experts missing are damaged, unless the writer `may_drop` slots.
    """
    labels = dict(labels)
    steps = labels.pop("step", None)
    keep = labels.get("mask", np.ones(len(chosen), bool))
    none = np.zeros(len(chosen), bool)
    if chosen.min(initial=0) < 0:
        none = (chosen == -1).all(axis=1)
        if not may_drop and ((chosen < 0).any(axis=1) & ~none).any():
            raise ValueError(f"{where}: layer {layer} has a row of which some experts are missing")
    if chosen.shape[1] > 1 and ((chosen[:, 0] == 0) & (chosen[:, 1] == 0)).any():
        none |= (chosen == 0).all(axis=1)
    if missing is not None:
        none |= missing
    n_missing = int((none & keep).sum())
    if n_missing:
        labels["mask"] = keep & ~none
    return Piece(layer, {"chosen": chosen, **labels}, n_experts, n_missing, steps)


class Request(NamedTuple):
    """What was routed of one request, or of one of several completions of a prompt."""

    ids: np.ndarray
    """(n, L, k) experts"""
    start: int = 0
    """position of the first row"""
    skip: int = 0
    """rows in front that another request counts: the prompt that they share"""
    domain: int = -1
    tokens: np.ndarray | None = None
    """(n,) the token of each row"""
    missing: np.ndarray | None = None
    """(n,) rows that are known to hold no route"""
    phase: np.ndarray | None = None
    """(n,) 0 for rows of the prompt, 1 for those of generated tokens, -1 for unknown"""


def phase_of(n: int, start: int, n_prompt: int | None) -> np.ndarray | None:
    """The phase of n rows from that position on, behind a prompt of so many tokens; None where that
    is not known."""
    if n_prompt is None:
        return None
    return (np.arange(start, start + n) >= n_prompt).astype(np.int64)


def pieces_of_requests(
    path: Path, requests: Iterable[Request], asked: Asked, n_experts: int | None = None
) -> Iterator[Piece]:
    """Pieces of whole requests, about `BATCH` tokens at a time, each request a sequence."""
    first_id = first_sequence_id(path)
    group: list[tuple[int, Request]] = []
    shape = None
    size = 0
    for i, request in enumerate(requests):
        n = len(request.ids)
        if shape is None:
            shape = request.ids.shape
        if request.ids.shape[1:] != shape[1:]:
            raise ValueError(
                f"{path}: shapes are {shape} and {request.ids.shape}; allowed are requests of one "
                "model, alike in layers and k"
            )
        if group and size + n > BATCH:
            yield from _pieces_of_group(path, group, asked, n_experts)
            group = []
            size = 0
        group.append((first_id + i, request))
        size += n
    if group:
        yield from _pieces_of_group(path, group, asked, n_experts)


def _pieces_of_group(
    path: Path, group: list[tuple[int, Request]], asked: Asked, n_experts: int | None
) -> Iterator[Piece]:
    requests = [request for _, request in group]
    lengths = [len(request.ids) for request in requests]
    labels = {
        "sequence": np.repeat([name for name, _ in group], lengths),
        "position": np.concatenate([r.start + np.arange(len(r.ids)) for r in requests]),
    }
    if any(request.domain >= 0 for request in requests):
        labels["domain"] = np.repeat([request.domain for request in requests], lengths)
    given = {"token": [r.tokens for r in requests], "phase": [r.phase for r in requests]}
    for key, arrays in given.items():
        if any(array is not None for array in arrays):
            known = [np.full(n, -1) if a is None else a for a, n in zip(arrays, lengths)]
            labels[key] = np.concatenate(known)
    if any(request.skip for request in requests):
        kept = [np.arange(len(request.ids)) >= request.skip for request in requests]
        labels["mask"] = np.concatenate(kept)
    rows = [
        np.zeros(n, bool) if r.missing is None else r.missing for r, n in zip(requests, lengths)
    ]
    missing = np.concatenate(rows)
    for layer in filter(asked.wants, range(requests[0].ids.shape[1])):
        chosen = np.concatenate([signed(request.ids[:, layer]) for request in requests])
        yield routed_piece(str(path), layer, chosen, labels, n_experts, missing)


def as_ids(where: str, key: str, array: np.ndarray) -> np.ndarray:
    """Experts of one request, checked to be integers [tokens, layers, k]."""
    if array.ndim != 3 or array.dtype.kind not in "iu" or 0 in array.shape[1:]:
        raise ValueError(
            f"{where}: {key} is {array.dtype} of shape {array.shape}; allowed are integers "
            "[tokens, layers, k]"
        )
    return array


# --- checks ---


def check_arrays(where: str, arrays: Arrays, n_experts: int | None) -> None:
    """Raise ValueError for arrays of the wrong type, shape or range; tokens that the mask leaves
    out are not looked at."""
    if "load" in arrays:
        return
    first = arrays["chosen"] if "chosen" in arrays else arrays["probabilities"]
    keep = np.ones(len(first), bool)
    if "mask" in arrays:
        _check_form(where, "mask", arrays["mask"], first.shape, n_experts)
        keep = arrays["mask"] > 0
    for key, array in arrays.items():
        _check_form(where, key, array, first.shape, n_experts)
        _check_values(where, key, array[keep], n_experts)


def _check_form(
    where: str, key: str, array: np.ndarray, first_shape: tuple[int, ...], n_experts: int | None
) -> None:
    """Type and shape, beside an array of experts of shape (tokens, k) or (tokens, E)."""
    if key == "mask":
        kinds, allowed = "biu", "booleans"
    elif key == "chosen" or key in LABELS:
        kinds, allowed = "iu", "integers"
    else:
        kinds, allowed = "fiu", "real numbers"
    if array.dtype.kind not in kinds:
        raise ValueError(f"{where}: {key} has dtype {array.dtype}; allowed are {allowed}")
    n = first_shape[0]
    if key in LABELS:
        wanted: tuple[int, ...] = (n,)
    elif key == "probabilities":
        wanted = (n, n_experts if n_experts else array.shape[-1])
    else:
        wanted = first_shape
    if array.shape != wanted:
        raise ValueError(f"{where}: {key} has shape {array.shape}; allowed is {wanted}")


def _check_values(where: str, key: str, kept: np.ndarray, n_experts: int | None) -> None:
    """Range of the values of tokens that count."""
    if kept.dtype.kind == "f" and not np.isfinite(kept).all():
        worst = kept[~np.isfinite(kept)][0]
        raise ValueError(f"{where}: {key} holds {worst}; mask such tokens or leave it out")
    if not kept.size:
        return
    has_none = key == "chosen" or key in LABELS
    if kept.min() < (-1 if has_none else 0):
        meaning = ", -1 for none" if has_none else ""
        raise ValueError(f"{where}: {key} holds {kept.min():g}; allowed is 0 and up{meaning}")
    if key == "chosen" and n_experts and kept.max() >= n_experts:
        raise ValueError(
            f"{where}: chosen holds expert {kept.max()}, n_experts is {n_experts}: give a larger "
            "one"
        )
