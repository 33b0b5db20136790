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
    Asked,
    Format,
    Piece,
    as_numbers,
    number_names,
    signed,
    split_by_layer,
)
from expertbank.routers.statistics import Layer
from expertbank.tables import check_row_groups


def read_parquet(path: Path, asked: Asked) -> Iterator[Piece]:
    """Columns under the names of `COLUMNS`, or renamed to them, a row for each token and layer,
    read in batches.

    Rows of a sequence stand together; sequences that are numbers ascend within a layer, names may
    come in any order. Domains and sequences may be names. Row groups without a layer that is asked
    for are not read. The number of experts may
    stand in the metadata of the schema under `n_experts`.

    >>> import pyarrow
    >>> import pyarrow.parquet
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "routes.parquet")
    ...     table = pyarrow.table({"chosen": [[0, 1], [2]], "token": [17, 4]})
    ...     pyarrow.parquet.write_table(table, path)
    ...     [(p.layer, p.arrays["chosen"].tolist()) for p in read_parquet(path, Asked())]
    [(0, [[0, 1], [2, -1]])]
    """
    file, names = _open_parquet(path, asked)
    metadata = file.schema_arrow.metadata
    n_experts = None
    if metadata and metadata.get(b"n_experts"):
        n_experts = int(metadata[b"n_experts"])
    is_text = "sequence" in names and _holds_text(file.schema_arrow.field(names["sequence"]).type)
    last: dict[Layer, int] = {}  # the highest sequence of each layer so far
    seen: dict[Layer, set[int]] = {}  # where they are names
    for arrays in _whole_sequences(_batches(path, file, names, asked)):
        if n_experts is None and "probabilities" in arrays:
            n_experts = arrays["probabilities"].shape[1]
        n_rows = len(next(iter(arrays.values())))
        layers = arrays.pop("layer", np.zeros(n_rows, int))
        for piece in split_by_layer(arrays, layers, n_experts, asked):
            if is_text:
                _check_new(path, piece, seen)
            else:
                _check_order(path, piece, last)
            yield piece


def _open_parquet(path: Path, asked: Asked) -> tuple[Any, dict[str, str]]:
    """The open file, and its columns by the names that they have here."""
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    check_row_groups(file.metadata, path.stat().st_size)
    return file, asked.rename(path, file.schema_arrow.names, COLUMNS)


def _holds_text(kind: Any) -> bool:
    """Whether a column of that type holds names, also where they are a dictionary's."""
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_text(inner) for is_text in (pa.types.is_string, pa.types.is_large_string))


def _check_new(path: Path, piece: Piece, seen: dict[Layer, set[int]]) -> None:
    """Refuse a named sequence that comes back later in its layer."""
    ids = set(np.unique(piece.arrays["sequence"]).tolist())
    before = seen.setdefault(piece.layer, set())
    if ids & before:
        raise ValueError(
            f"{path}, layer {piece.layer}: a sequence comes back after others; sort the rows by "
            "layer and sequence, so that a sequence is read in one go"
        )
    before |= ids


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


def _batches(path: Path, file: Any, names: dict[str, str], asked: Asked) -> Iterator[Arrays]:
    """Columns of `BATCH` rows as arrays, of row groups that may hold a layer asked for."""
    groups = _groups_with_layers(file, names, asked)
    options = {"batch_size": _common.BATCH, "row_groups": groups, "columns": list(names.values())}
    for batch in file.iter_batches(**options) if groups else ():
        yield {key: _column(path, key, batch.column(name), asked) for key, name in names.items()}


def _groups_with_layers(file: Any, names: dict[str, str], asked: Asked) -> list[int]:
    """Row groups whose least and highest layer do not leave out all that are asked for."""
    groups = list(range(file.metadata.num_row_groups))
    if asked.layers is None or "layer" not in names:
        return groups
    column = file.schema_arrow.names.index(names["layer"])
    found = []
    for group in groups:
        part = file.metadata.row_group(group).column(column)
        known = part.statistics if part.path_in_schema == names["layer"] else None
        if known is None or any(_may_hold(known, layer) for layer in asked.layers):
            found.append(group)
    return found


def _may_hold(known: Any, layer: Layer) -> bool:
    """Whether a layer lies between the least and the highest of a row group."""
    if not known.has_min_max or type(layer) is not type(known.min):
        return True
    return known.min <= layer <= known.max


def _column(path: Path, name: str, column: Any, asked: Asked) -> np.ndarray:
    """A column of numbers (n,), or of lists (n, k), the shorter ones filled up."""
    import pyarrow as pa

    if column.null_count:
        raise ValueError(
            f"{path}: {name} has {column.null_count} nulls; write -1 for what is unknown"
        )
    if name in ("domain", "sequence") and _holds_text(column.type):
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        texts = column.dictionary.to_pylist()
        used = np.unique(column.indices.to_numpy()).tolist()
        numbers = np.full(len(texts), -1)
        as_numbers(str(path), name, np.array([texts[i] for i in used], str), asked)
        numbers[used] = number_names(name, [texts[i] for i in used], asked)
        return numbers[column.indices.to_numpy()]
    kinds_of_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    has_lists = any(is_kind(column.type) for is_kind in kinds_of_list)
    if has_lists and name not in OF_EXPERTS:
        raise ValueError(f"{path}: {name} is {column.type}; allowed is one value a row")
    if name in OF_EXPERTS and not has_lists:
        raise ValueError(f"{path}: {name} is {column.type}; allowed are lists, one a token")
    if not has_lists:
        array = column.to_numpy(zero_copy_only=False)
        return array if name == "layer" else as_numbers(str(path), name, array, asked)
    lengths = np.asarray(column.value_lengths())
    values = signed(column.flatten().to_numpy(zero_copy_only=False))
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
        "columns under the names of the arrays of npz (or selected_experts, gate_weights), a row "
        "for each token and layer, with lists of the chosen experts; rows sorted by layer and "
        "sequence; domain and sequence may be text"
    ),
    read=read_parquet,
    writer="pyarrow, pandas, polars",
)
