"""Loss tables larger than memory: files read chunk by chunk as dask arrays, which the solver streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from expertbank._checks import as_count

# numbers in one chunk: 32 MB in double precision
NUMBERS_PER_CHUNK = 1 << 22


def open_table(path, chunk_rows: int | None = None):
    """A table (N, R) in a .npy, .zarr or .parquet file (or folder) as a dask array in chunks of rows.

    Nothing is read but the header; every worker of a dask cluster reads its own chunks, so `path` must be one that
    all of them see. `chunk_rows` is the number of rows in a chunk (default: about 32 MB; a parquet file keeps its own
    partitions, one row per input and one column per expert). Raises ValueError for another kind of file or a table
    that is not two-dimensional, FileNotFoundError where there is none. Needs `pip install "expertbank[dask]"`.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix not in READERS:
        raise ValueError(f"{path.name} has suffix {path.suffix!r}; allowed are .npy, .zarr and .parquet")
    return READERS[path.suffix](path, None if chunk_rows is None else as_count(chunk_rows, "chunk_rows"))


def _open_npy(path: Path, chunk_rows: int | None):
    import dask
    import dask.array as da

    table = np.load(path, mmap_mode="r", allow_pickle=False)
    n_inputs, n_experts = _two_dimensions(path, table.shape)
    chunk_rows = chunk_rows or max(1, NUMBERS_PER_CHUNK // n_experts)
    bounds = [(start, min(start + chunk_rows, n_inputs)) for start in range(0, n_inputs, chunk_rows)]
    read = dask.delayed(_rows, pure=True)
    return da.concatenate(
        [da.from_delayed(read(path, *ends), (ends[1] - ends[0], n_experts), table.dtype) for ends in bounds]
    )


def _open_zarr(path: Path, chunk_rows: int | None):
    import dask.array as da

    table = da.from_zarr(path)
    _two_dimensions(path, table.shape)
    return table.rechunk((chunk_rows or table.chunks[0], -1))


def _open_parquet(path: Path, chunk_rows: int | None):
    import dask.dataframe as dd

    return dd.read_parquet(path).to_dask_array(lengths=True)


READERS = {".npy": _open_npy, ".zarr": _open_zarr, ".parquet": _open_parquet}


def _two_dimensions(path: Path, shape) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"{path.name} has shape {shape}; allowed is (N, R): inputs by experts")
    return shape


def _rows(path: Path, start: int, stop: int) -> np.ndarray:
    # a copy: a memory map would travel to other processes as the whole file
    return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[start:stop])
