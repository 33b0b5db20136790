"""What every format of a routing file shares: the record that describes it, the pieces that it is
read in, and the checks of what was read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from expertbank._files import read_array, read_arrays
from expertbank.routers.statistics import Layer, RouterStatistics

OF_EXPERTS = ("chosen", "weights", "probabilities")  # (tokens, k) or (tokens, E)
LABELS = ("domain", "sequence", "position", "token", "mask")  # (tokens,)
COLUMNS = (*OF_EXPERTS, *LABELS, "layer")
KEYS = (*COLUMNS, "n_experts")
OF_NPY = "routed_experts"  # what the one array of an npy file is called, after vLLM, who writes it
BATCH = 65_536  # tokens that are looked at together: what bounds the memory

Arrays = dict[str, np.ndarray]


class Piece(NamedTuple):
    """Many tokens of one layer, in which no sequence is cut."""

    layer: Layer
    arrays: Arrays
    """keywords of `RouterStatistics.update`; {"load": (E,)} where a file holds counts only"""
    n_experts: int | None = None
    """E, where the file says it"""


def any_file(path: Path) -> bool:
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
    read: Callable[[Path], Iterator[Piece]]
    """the pieces of a file, or ValueError that names the file, the key and what is allowed"""
    recognises: Callable[[Path], bool] = any_file
    """whether a file with one of the suffixes is of this format"""
    is_fallback: bool = False
    """asked last: its files have no mark of their own"""
    load: Callable[[Path], RouterStatistics] | None = None
    """statistics of a file that holds no tokens but statistics"""


# --- npy and npz ---


def names_in(path: Path) -> set[str]:
    """Names of the arrays in an npz file; an npy file has none."""
    if not zipfile.is_zipfile(path):
        return set()
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def arrays_of(path: Path) -> Arrays:
    """All arrays of an npz file, or the one of an npy file under `OF_NPY`; object arrays are
    refused."""
    if zipfile.is_zipfile(path):
        return read_arrays(path)
    return {OF_NPY: read_array(path)}


def take_number(arrays: Arrays, key: str) -> int | None:
    """The one integer under a key, taken out; None where there is none."""
    if key not in arrays:
        return None
    array = arrays.pop(key)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{key} is {array.dtype} of shape {array.shape}; allowed is one integer")
    return int(array.item())


# --- pieces ---


def split_by_layer(arrays: Arrays, layers: np.ndarray, n_experts: int | None) -> Iterator[Piece]:
    """A piece for each layer among rows whose layers (tokens,) are named one by one."""
    for layer in np.unique(layers).tolist():
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
    them."""
    with path.open("rb") as file:
        return zlib.crc32(file.read(2**20), path.stat().st_size) << 31


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
