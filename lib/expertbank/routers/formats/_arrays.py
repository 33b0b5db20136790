"""Arrays in npy and npz files, read by name, or a slice of rows at a time."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from expertbank._files import array_header, check_members, each_array, reading
from expertbank.routers.formats import _common
from expertbank.routers.formats._common import Arrays


def names_in(path: Path) -> list[str]:
    """Names of the arrays in an npz file; an npy file has none."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def arrays_named(path: Path, *names: str) -> Arrays:
    """Those arrays of an npz file that it has, by their names."""
    there = names_in(path)
    found = [name for name in names if name in there]
    return dict(each_array(path, found)) if found else {}


def one_integer(arrays: Arrays, key: str) -> int | None:
    """The one integer under a key; None where there is none."""
    if key not in arrays:
        return None
    array = arrays[key]
    if array.size != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{key} is {array.dtype} of shape {array.shape}; allowed is one integer")
    return int(array.item())


@dataclass(frozen=True)
class Rows:
    """An array in a file, of which slices of the first axis are read."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    """where its numbers start in the file"""

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        width = math.prod(self.shape[1:])
        with self.path.open("rb") as file:
            file.seek(self.offset + start * width * self.dtype.itemsize)
            array = np.fromfile(file, self.dtype, max(0, stop - start) * width)
        return array.reshape(-1, *self.shape[1:])


def rows_of(path: Path, name: str) -> np.ndarray | Rows:
    """An array of an npz file after all checks, left on the disk where it is not compressed."""
    check_members(path)
    with zipfile.ZipFile(path) as archive:
        members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
        member = members[name]
    if member.compress_type == zipfile.ZIP_STORED:
        with reading(path, f" at {name}"), path.open("rb") as file:
            file.seek(member.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")
            start = member.header_offset + 30 + int(lengths.sum())
            file.seek(start)
            shape, is_fortran, dtype = array_header(file, start + member.file_size)
            if file.tell() + math.prod(shape) * dtype.itemsize > path.stat().st_size:
                raise ValueError("it is cut off; write it again")
            if len(shape) > 1 and not is_fortran:
                return Rows(path, dtype, shape, file.tell())
    return dict(each_array(path, [name]))[name]


def with_flat_layers(array: np.ndarray | Rows) -> np.ndarray | Rows:
    """Rows (layers, n, k) as (layers n, k)."""
    shape = (array.shape[0] * array.shape[1], array.shape[2])
    if isinstance(array, np.ndarray):
        return array.reshape(shape)
    return Rows(array.path, array.dtype, shape, array.offset)


def cuts_between_sequences(n: int, *keys: np.ndarray) -> list[tuple[int, int]]:
    """Spans of about `BATCH` of n rows that cut no sequence; all rows where some come back later.

    `keys` (n,) tell sequences apart together; -1 in the last is a row of none, a sequence for
    itself.
    """
    if not keys:
        starts = np.arange(0, n, _common.BATCH)
        return [(int(a), min(n, int(a) + _common.BATCH)) for a in starts]
    is_start = np.ones(n, bool)
    is_start[1:] = keys[-1][1:] < 0
    for key in keys:
        is_start[1:] |= key[1:] != key[:-1]
    starts = np.flatnonzero(is_start)
    known = starts[keys[-1][starts] >= 0]
    if len(np.unique(np.stack([key[known] for key in keys]), axis=1).T) < len(known):
        return [(0, n)]
    ends = [0]
    for end in [*starts[1:].tolist(), n]:
        if end - ends[-1] >= _common.BATCH or end == n:
            ends.append(end)
    return list(pairwise(ends))
