"""Columns of one's own in a parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from expertbank._files import check_memory
from expertbank.routers.formats import _common
from expertbank.routers.formats._common import (
    COLUMNS,
    OF_EXPERTS,
    Arrays,
    Format,
    Piece,
    split_by_layer,
)
from expertbank.routers.statistics import Layer
from expertbank.tables import check_row_groups


def read_parquet(path: Path) -> Iterator[Piece]:
    """Columns under the names of `COLUMNS`, a row for each token and layer, read in batches.

    Rows of a sequence stand together, sequences ascend within a layer. The number of experts may
    stand in the metadata of the schema under `n_experts`.

    >>> import pyarrow
    >>> import pyarrow.parquet
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "routes.parquet")
    ...     table = pyarrow.table({"chosen": [[0, 1], [2]], "token": [17, 4]})
    ...     pyarrow.parquet.write_table(table, path)
    ...     [(piece.layer, piece.arrays["chosen"].tolist()) for piece in read_parquet(path)]
    [(0, [[0, 1], [2, -1]])]
    """
    file = _open_parquet(path)
    metadata = file.schema_arrow.metadata
    n_experts = None
    if metadata and metadata.get(b"n_experts"):
        n_experts = int(metadata[b"n_experts"])
    last: dict[Layer, int] = {}  # the highest sequence of each layer so far
    for arrays in _whole_sequences(_batches(path, file)):
        if n_experts is None and "probabilities" in arrays:
            n_experts = arrays["probabilities"].shape[1]
        n_rows = len(next(iter(arrays.values())))
        layers = arrays.pop("layer", np.zeros(n_rows, int))
        for piece in split_by_layer(arrays, layers, n_experts):
            _check_order(path, piece, last)
            yield piece


def _open_parquet(path: Path) -> Any:
    """The open file, with columns that are known."""
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    check_row_groups(file.metadata, path.stat().st_size)
    names = file.schema_arrow.names
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown:
        raise ValueError(f"{path} has columns {unknown}; allowed are {', '.join(COLUMNS)}")
    if not {"chosen", "probabilities"} & set(names):
        raise ValueError(f"{path} has columns {names}; chosen or probabilities is needed")
    return file


def _check_order(path: Path, piece: Piece, last: dict[Layer, int]) -> None:
    """Refuse a sequence that comes back later in its layer: it would count as two."""
    sequence = piece.arrays.get("sequence")
    if sequence is None or not (sequence >= 0).any():
        return
    known = sequence[sequence >= 0]
    before = last.get(piece.layer, -1)
    if known.min() <= before:
        raise ValueError(
            f"{path}, layer {piece.layer}: sequence {known.min()} comes after sequence {before}; "
            "sort the rows by layer and sequence, so that a sequence is read in one go"
        )
    last[piece.layer] = int(known.max())


# --- columns as arrays ---


def _batches(path: Path, file: Any) -> Iterator[Arrays]:
    """Columns of `BATCH` rows as arrays."""
    for batch in file.iter_batches(batch_size=_common.BATCH):
        yield {name: _column(path, name, batch.column(name)) for name in batch.schema.names}


def _column(path: Path, name: str, column: Any) -> np.ndarray:
    """A column of numbers (n,), or of lists (n, k), the shorter ones filled up."""
    import pyarrow as pa

    if column.null_count:
        raise ValueError(
            f"{path}: {name} has {column.null_count} nulls; write -1 for what is unknown"
        )
    kinds_of_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    has_lists = any(is_kind(column.type) for is_kind in kinds_of_list)
    if has_lists and name not in OF_EXPERTS:
        raise ValueError(f"{path}: {name} is {column.type}; allowed is one value a row")
    if name in OF_EXPERTS and not has_lists:
        raise ValueError(f"{path}: {name} is {column.type}; allowed are lists, one a token")
    if not has_lists:
        return column.to_numpy(zero_copy_only=False)
    lengths = np.asarray(column.value_lengths())
    values = column.flatten().to_numpy(zero_copy_only=False)
    width = int(lengths.max(initial=0))
    if (lengths == width).all():
        return values.reshape(len(lengths), width)
    if name == "probabilities":
        raise ValueError(
            f"{path}: probabilities has lists of {lengths.min()} to {width}; allowed is one number "
            "an expert"
        )
    check_memory(8 * len(lengths) * width, path.stat().st_size)
    fill = -1 if name == "chosen" else 0
    rows = np.full((len(lengths), width), fill, values.dtype)
    rows[np.arange(width) < lengths[:, None]] = values
    return rows


# --- batches of whole sequences ---


def _whole_sequences(batches: Iterable[Arrays]) -> Iterator[Arrays]:
    """The batches, cut between sequences instead of where they happened to end."""
    rest: Arrays | None = None
    for batch in batches:
        if rest is not None:
            batch = {key: _stacked(rest[key], batch[key]) for key in batch}
        sequence = batch.get("sequence")
        if sequence is None or sequence[-1] < 0:
            rest = None
            yield batch
            continue
        others = np.flatnonzero(sequence != sequence[-1])
        cut = int(others[-1]) + 1 if len(others) else 0  # where the last sequence begins
        rest = {key: array[cut:] for key, array in batch.items()}
        if cut:
            yield {key: array[:cut] for key, array in batch.items()}
    if rest is not None:
        yield rest


def _stacked(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One array of both; rows of fewer slots are filled up, choices with -1."""
    if first.ndim == 2 and first.shape[1] != second.shape[1]:
        width = max(first.shape[1], second.shape[1])
        fill = -1 if first.dtype.kind in "iu" else 0
        first = _widened(first, width, fill)
        second = _widened(second, width, fill)
    return np.concatenate([first, second])


def _widened(rows: np.ndarray, width: int, fill: int) -> np.ndarray:
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=fill)


FORMAT = Format(
    name="parquet",
    suffixes=(".parquet",),
    description=(
        "columns under the names of the arrays of npz, a row for each token and layer, with lists "
        "of the chosen experts; rows sorted by layer and sequence"
    ),
    read=read_parquet,
)
