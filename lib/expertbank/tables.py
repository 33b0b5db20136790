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
    if path.suffix == ".parquet":
        import dask.dataframe as dd

        return dd.read_parquet(path).to_dask_array(lengths=True)
    if path.suffix not in (".npy", ".zarr"):
        raise ValueError(f"{path.name} has suffix {path.suffix!r}; allowed are .npy, .zarr and .parquet")
    import dask.array as da

    table = da.from_zarr(path) if path.suffix == ".zarr" else None
    shape, dtype = (table.shape, table.dtype) if table is not None else _header(path)
    if len(shape) != 2:
        raise ValueError(f"{path.name} has shape {shape}; allowed is (N, R): inputs by experts")
    if chunk_rows is not None or table is None:
        rows = max(1, NUMBERS_PER_CHUNK // shape[1]) if chunk_rows is None else as_count(chunk_rows, "chunk_rows")
        starts = range(0, shape[0], rows)
    if table is not None:
        return table.rechunk((table.chunks[0] if chunk_rows is None else rows, -1))
    import dask

    read = dask.delayed(_rows, pure=True)
    lengths = [min(rows, shape[0] - start) for start in starts]
    parts = [read(path, start, start + n) for start, n in zip(starts, lengths)]
    return da.concatenate([da.from_delayed(part, (n, shape[1]), dtype) for part, n in zip(parts, lengths)])


def _header(path: Path):
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    return table.shape, table.dtype


def _rows(path: Path, start: int, stop: int) -> np.ndarray:
    # a copy: a memory map would travel to other processes as the whole file
    return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[start:stop])
