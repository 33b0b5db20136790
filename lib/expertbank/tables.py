"""A loss table (N, R), N inputs by R experts, and the sums over its inputs that `solver` and
`rate_distortion` ask for.

A table may lie in memory (NumPy), on a GPU (torch), or be larger than memory (dask). `table_of`
takes any of these. The N inputs enter through sums over blocks, written once in the array API
standard: a `Block` of NumPy or torch keeps its kernel in memory, a `Stream` reads the parts of a
dask array anew for every sum. What has R or R x R numbers is NumPy. Equal rows of a NumPy table are
merged into one with their total weight (`merge_rows`). `read_table` and `open_table` open files.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import LARGEST, as_count, as_losses, as_risks, as_weights
from expertbank._files import (
    check_array,
    check_folder,
    check_input,
    check_memory,
    read_array,
    read_arrays,
    reading,
)

if TYPE_CHECKING:
    import dask.array as da

# a NumPy array or a torch tensor: the array API standard has no type of its own
Array: TypeAlias = Any

# losses may be huge against lam, and a step may leave an input without an expert: both are seen and
# dealt with
quietly = np.errstate(all="ignore")


# --- files ---


# what `reading` says that a file was expected to be
AS_TABLE = " as one table of numbers"


def read_table(path: str | Path) -> np.ndarray:
    """A table from .npy, .npz or .csv, read whole.

    Raises FileNotFoundError where there is no such file, ValueError of one line where it is none of
    these, cannot be read as one table, or asks for more memory than its size explains.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = Path(folder, "losses.csv").write_text("0, 1\\n1, 0\\n1, 1\\n")
    ...     read_table(f"{folder}/losses.csv").shape
    (3, 2)
    """
    file = Path(path)
    check_input(file, "a .npy, .npz or .csv file")
    readers = {".npy": read_array, ".npz": _read_npz, ".csv": _read_csv}
    with reading(file, AS_TABLE):
        if file.suffix not in readers:
            raise ValueError(f"{file} ends in {file.suffix!r}; allowed are .npy, .npz and .csv")
        return readers[file.suffix](file)


def _read_npz(file: Path) -> np.ndarray:
    arrays = list(read_arrays(file).values())
    if len(arrays) != 1:
        raise ValueError(f"it holds {len(arrays)} arrays; allowed is one")
    return arrays[0]


def _read_csv(file: Path) -> np.ndarray:
    # programs of offices write a byte order mark
    with file.open(encoding="utf-8-sig") as lines, warnings.catch_warnings():
        warnings.simplefilter("error")  # an empty file is one
        return np.loadtxt(lines, delimiter=",", ndmin=2)


def open_table(path: str | Path, chunk_rows: int | None = None) -> da.Array:
    """A table (N, R) in a .npy, .zarr or .parquet file (or folder) as a dask array in chunks of
    rows.

    Nothing is read but the header; every worker of a dask cluster reads its own chunks, so `path`
    must be one that all of them see. `chunk_rows` is the number of rows in a chunk (default: about
    32 MB; a parquet file keeps its own partitions, one row per input and one column per expert).
    Raises ValueError for another kind of file or a table that is not two-dimensional,
    FileNotFoundError where there is none. Needs `pip install -e '.[dask]'`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/losses.npy", np.eye(6, 3))
    ...     losses = open_table(f"{folder}/losses.npy", chunk_rows=4)
    ...     print(losses.shape, losses.chunks[0], float(losses.sum().compute()))
    (6, 3) (4, 2) 3.0
    """
    path = Path(path).absolute()
    if chunk_rows is not None:
        chunk_rows = as_count(chunk_rows, "chunk_rows")
    check_folder(path)
    import dask.array  # noqa: F401 (who lacks it hears of that first)

    with reading(path, AS_TABLE):
        if path.suffix not in READERS:
            raise ValueError(
                f"{path} has suffix {path.suffix!r}; allowed are .npy, .zarr and .parquet"
            )
        return READERS[path.suffix](path, chunk_rows)


# numbers in one chunk of a .npy file: 32 MB in double precision
NUMBERS_PER_CHUNK = 1 << 22
# parts of a table that are still worth a task each
MOST_CHUNKS = 100_000


def _open_npy(path: Path, chunk_rows: int | None) -> da.Array:
    check_array(path)
    return _in_chunks(path, np.load(path, mmap_mode="r", allow_pickle=False), chunk_rows)


def _open_zarr(path: Path, chunk_rows: int | None) -> da.Array:
    import zarr

    table = zarr.open_array(path, mode="r")
    if table.dtype.kind not in "biuf":
        raise ValueError(f"it holds {table.dtype}; allowed are real numbers")
    n_bytes = table.dtype.itemsize * math.prod(table.chunks)
    held = check_folder(path)
    check_memory(n_bytes, held)
    codecs = [type(codec).__name__.removesuffix("Codec") for codec in table.compressors]
    if table.shards is None and not table.filters and len(codecs) == 1:
        _check_chunks(path, codecs[0], n_bytes)
    if chunk_rows is None:
        chunk_rows = table.chunks[0]
    check_memory(chunk_rows * math.prod(table.shape[1:]) * table.dtype.itemsize, held)
    return _in_chunks(path, table, chunk_rows)


def _check_chunks(path: Path, codec: str, n_bytes: int) -> None:
    """Raise ValueError for a chunk of a zarr folder that says it is of another size: decoders take
    memory for what it says, and blosc reads on behind the end of a file that was cut."""
    for folder, _, names in os.walk(path):
        for name in names:
            if name == "zarr.json" or name.startswith(".z"):
                continue
            with open(Path(folder, name), "rb") as file:
                head = file.read(18)
                held = os.fstat(file.fileno()).st_size
            says: dict[str, int | None] = {"Zstd": _content_of_zstd(head)}
            says |= {"Blosc": _number(head, 4, 4), "LZ4": _number(head, 0, 4)}
            of_file = _number(head, 12, 4) if codec == "Blosc" else held
            found = says.get(codec)
            if found not in (None, n_bytes) or of_file != held:
                raise ValueError(f"chunk {name} is truncated or damaged; {n_bytes:,} bytes needed")


def _number(head: bytes, start: int, width: int) -> int:
    return int.from_bytes(head[start : start + width], "little")


def _content_of_zstd(head: bytes) -> int | None:
    """How many bytes a frame of zstd says that it holds (RFC 8878, 3.1.1.1); None where it does not
    say."""
    if len(head) < 5:
        return 0
    is_single = head[4] >> 5 & 1
    width = (is_single, 2, 4, 8)[head[4] >> 6]
    if not width:
        return None
    start = 6 - is_single + (0, 1, 2, 4)[head[4] & 3]
    return _number(head, start, width) + (256 if width == 2 else 0)


def _in_chunks(path: Path, table: Any, chunk_rows: int | None) -> da.Array:
    """A table in an open file, in chunks of rows that each worker reads by itself."""
    import dask.array as da

    n_inputs, n_experts = _two_dimensions(path, table.shape)
    if chunk_rows is None:
        chunk_rows = max(1, NUMBERS_PER_CHUNK // n_experts)
    if n_inputs > MOST_CHUNKS * chunk_rows:
        raise ValueError(f"it has {n_inputs / chunk_rows:.3g} chunks; allowed are {MOST_CHUNKS:,}")
    chunks = []
    for start in range(0, n_inputs, chunk_rows):
        shape = (min(chunk_rows, n_inputs - start), n_experts)
        part = _delayed_part(path, _read_rows, shape, start)
        chunks.append(da.from_delayed(part, shape, table.dtype))
    return da.concatenate(chunks)


def _delayed_part(path: Path, read: Callable, shape: tuple[int, int], *where: Any) -> Any:
    """The rows that `read(path, *where)` will find, delayed."""
    from dask.delayed import delayed

    return delayed(_read_part, pure=True)(path, read, shape, *where)


def _read_part(path: Path, read: Callable, shape: tuple[int, int], *where: Any) -> np.ndarray:
    """Some rows of a file, in a worker; the file may have changed, or be damaged there alone."""
    with reading(path, AS_TABLE):
        rows = read(path, shape, *where)
        if rows.shape != shape:
            raise ValueError(f"its rows have shape {rows.shape}, {shape} was promised")
        return rows


def _open_parquet(path: Path, chunk_rows: int | None) -> da.Array:
    """A chunk for each group of rows of each file; a column that pandas kept as its index is none
    of the experts'."""
    import dask.array as da
    import pyarrow.parquet as parquet

    files = sorted(path.glob("**/*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} is a folder without .parquet files")
    schema = parquet.read_schema(files[0])
    names = _expert_columns(path, schema)
    dtype = np.result_type(*(schema.field(name).type.to_pandas_dtype() for name in names))
    chunks = []
    for file in files:
        metadata = parquet.read_metadata(file)
        check_row_groups(metadata, file.stat().st_size)
        for group in range(metadata.num_row_groups):
            shape = (metadata.row_group(group).num_rows, len(names))
            if shape[0]:
                part = _delayed_part(file, _read_row_group, shape, group, names, dtype)
                chunks.append(da.from_delayed(part, shape, dtype))
    if not chunks:
        raise ValueError(f"{path} has no rows; at least one input is needed")
    return da.concatenate(chunks)


def check_row_groups(metadata: Any, held: int) -> None:
    """Raise ValueError where the groups of rows of a parquet file of `held` bytes cannot be: a
    group is what a reader takes into memory.

    >>> import io, pyarrow, pyarrow.parquet
    >>> file = io.BytesIO()
    >>> pyarrow.parquet.write_table(pyarrow.table({"a": [0.5]}), file)
    >>> check_row_groups(pyarrow.parquet.read_metadata(file), held=len(file.getvalue()))
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(i) for i in range(group.num_columns)]
        if min(group.num_rows, *(column.num_values for column in columns)) < 0:
            raise ValueError(f"group {number} has {group.num_rows} rows; allowed is 0 and up")
        sizes = [max(8 * c.num_values, c.total_uncompressed_size) for c in columns]
        check_memory(max(8 * group.num_rows, sum(sizes)), held)


def _expert_columns(path: Path, schema: Any) -> list[str]:
    """Names of the columns of numbers; ValueError where another one is no index."""
    from pyarrow import types

    index = []
    if schema.pandas_metadata:
        index = schema.pandas_metadata.get("index_columns", [])
    names = [name for name in schema.names if name not in index]
    for name in names:
        kind = schema.field(name).type
        numeric = (types.is_integer, types.is_floating, types.is_boolean)
        if not any(is_kind(kind) for is_kind in numeric):
            raise ValueError(f"{path}: column {name} holds {kind}; allowed are numbers")
    if not names:
        raise ValueError(f"{path} has no columns of numbers; one for each expert is needed")
    return names


def _read_row_group(
    file: Path, shape: tuple[int, int], group: int, names: list[str], dtype: np.dtype
) -> np.ndarray:
    import pyarrow.parquet as parquet

    table = parquet.ParquetFile(file).read_row_group(group, columns=names)
    columns = [table.column(name) for name in names]
    if any(column.null_count for column in columns):
        dtype = np.dtype(float)  # what is missing becomes NaN, which the checks refuse
    return np.column_stack([column.to_numpy().astype(dtype) for column in columns])


READERS: dict[str, Callable[[Path, int | None], da.Array]] = {
    ".npy": _open_npy,
    ".zarr": _open_zarr,
    ".parquet": _open_parquet,
}


def _two_dimensions(path: Path, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2 or 0 in shape:
        raise ValueError(
            f"{path} has shape {shape}; allowed is (N, R), inputs by experts, at least one each"
        )
    n_inputs, n_experts = shape
    return n_inputs, n_experts


def _read_rows(path: Path, shape: tuple[int, int], start: int) -> np.ndarray:
    if path.suffix == ".zarr":
        import zarr

        table: Any = zarr.open_array(path, mode="r")
    else:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    # a copy: a memory map would travel to other processes as the whole file
    return np.array(table[start : start + shape[0]])


# --- equal rows, merged ---

# numbers of a table whose rows get their keys at once
NUMBERS_KEYED_AT_ONCE = 1 << 20


def merge_rows(
    table: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct rows (U, R) of a table (N, R), their total weights (U,), and the row number (N,) of
    each input.

    Without weights (N,) the totals are counts. 0-1 losses have few distinct rows, and everything in
    this library depends on a table only through them.

    >>> rows, counts, row_of = merge_rows(np.array([[0, 1], [1, 0], [0, 1]]))
    >>> sorted(zip(rows.tolist(), counts.tolist()))
    [([0, 1], 2), ([1, 0], 1)]
    >>> rows[row_of].tolist()
    [[0, 1], [1, 0], [0, 1]]
    """
    chunk = max(1, NUMBERS_KEYED_AT_ONCE // table.shape[1])
    parts = [table[start : start + chunk] for start in range(0, len(table), chunk)]
    # one sort of N keys instead of one per column; equal rows have equal keys
    keys = np.concatenate([_row_keys(part) for part in parts])
    _, first, row_of = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == len(table):
        if weights is None:
            weights = np.ones(len(table), int)
        return table, weights, np.arange(len(table))
    rows = table[first]
    row_of_parts = np.split(row_of, range(chunk, len(table), chunk))
    kept = all((rows[numbers] == part).all() for part, numbers in zip(parts, row_of_parts))
    if not kept:  # two different rows with one key: one table in 1e10
        rows, row_of = np.unique(table, axis=0, return_inverse=True)
    return rows, np.bincount(row_of, weights, len(rows)), row_of


def _row_keys(rows: np.ndarray) -> np.ndarray:
    """A 64-bit key for each row: its bytes as words, each mixed and times its own odd number."""
    if rows.dtype.kind == "f":
        rows = rows + rows.dtype.type(0)  # -0.0 is made 0.0
    content = np.ascontiguousarray(rows).view(np.uint8)
    n_words = -(-content.shape[1] // 8)  # rounded up
    padded = np.zeros((len(rows), 8 * n_words), np.uint8)
    padded[:, : content.shape[1]] = content
    words = padded.view(np.uint64)
    # the low half must see the high half: products carry upwards only
    words ^= words >> np.uint64(32)
    rng = np.random.default_rng(0)
    odd = rng.integers(2**63, size=n_words, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return words @ odd


# --- one block: sums over some inputs ---

# smaller losses count as 0
SMALLEST = 1e-292


class Block:
    """Some inputs of a table: losses (R, n), expert by input so that active experts are contiguous,
    weights w (n,) > 0, and the price that `set_price` sets.

    The kernel of a price lam is K_ti = exp(-(l_ti - m_i) / lam), m_i the least loss of input i; the
    loss above it is called excess. Every public method returns a tuple of sums or extremes over its
    inputs, which the table combines over blocks.

    >>> block = Block(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.5, 0.5]))
    >>> block.set_price(1.0)
    ()
    >>> block.kernel.round(4).tolist()
    [[1.0, 0.3679], [0.3679, 1.0]]
    """

    def __init__(self, losses: Array, weights: np.ndarray, cost: np.ndarray | None = None):
        self.xp = namespace(losses)
        self.losses = self._without_dust(losses)
        self.weights = self.beside(weights)
        self.cost: Array = None if cost is None else self.beside(cost)[:, None]
        self.minima = self.xp.min(self._losses(), axis=0)
        self.shifted = bool(self.xp.any(self.minima != 0))
        self.roots = self.xp.sqrt(self.weights)
        self.step = self._step()
        self.kernel: Array = None  # (R, n), once there is a price
        self.kernel_at_step = 0.0
        # where NumPy scales the kernel: new memory for each step would take longer than the step
        self.room = np.empty(0)

    def set_price(self, lam: float) -> tuple[()]:
        """The kernel of a price; at lam = 0 it is 1 where the loss is least."""
        if lam == 0:
            self.kernel_at_step = 0.0
            self.kernel = self.xp.astype(self._excess() == 0, self.xp.float64)
        elif self.xp is np:
            self.kernel_at_step = math.exp(-self.step / lam)
            self._fill_kernel(lam)
        else:
            self.kernel = self.xp.exp(self._excess() / -lam)
        return ()

    def _fill_kernel(self, lam: float) -> None:
        """NumPy's kernel, in place and contiguous, whatever the order of the table."""
        if self.kernel is None:
            self.kernel = np.empty(self.losses.shape)
        if self.step:
            slope = (self.kernel_at_step - 1) / self.step
            np.multiply(self._excess(), slope, out=self.kernel)
            self.kernel += 1
        else:
            np.subtract(self.minima, self._losses(), out=self.kernel)
            self.kernel /= lam
            np.exp(self.kernel, out=self.kernel)

    def evaluate(self, x: np.ndarray) -> tuple[Array, Array, Array]:
        """f, its gradient g (R,), and the largest w / z, where z = x K."""
        self.z = self.beside(x) @ self.kernel
        ratio = self.weights / self.z
        return self.weights @ self.xp.log(self.z), self.kernel @ ratio, ratio.max()

    def hessian(self, active: np.ndarray | None) -> tuple[Array]:
        """K diag(w / z^2) K' of the active experts (None: of all): minus the Hessian of f."""
        ratio = self.roots / self.z
        if self.xp is np:
            scaled = self._scaled_kernel(active, ratio)
        else:
            scaled = (self.kernel if active is None else self.kernel[active]) * ratio
        return (scaled @ scaled.T,)

    def _scaled_kernel(self, active: np.ndarray | None, ratio: np.ndarray) -> np.ndarray:
        """NumPy's kernel of the active experts times a number for each input, in `room`."""
        n_active = len(self.kernel) if active is None else len(active)
        if self.room.size < self.kernel.size:
            self.room = np.empty(self.kernel.size)
        scaled = self.room[: n_active * len(ratio)].reshape(n_active, len(ratio))
        if active is None:
            return np.multiply(self.kernel, ratio, out=scaled)
        # "clip" writes straight into `scaled`, "raise" by way of a copy
        np.take(self.kernel, active, axis=0, out=scaled, mode="clip")
        return np.multiply(scaled, ratio, out=scaled)

    def mean_excess(self, x: np.ndarray) -> tuple[Array]:
        """Expected excess loss of the gate x_t K_ti / z_i."""
        ratio = self.weights / self.z
        excess = self._excess()
        if self.step:  # the kernel is the same wherever the excess is not 0
            return ((x @ excess) @ ratio * self.kernel_at_step,)
        return ((self.beside(x) @ (excess * self.kernel)) @ ratio,)

    def summary(self) -> tuple[Array, Array, Array]:
        """Mean of the inputs' least losses, mean excess of each expert (R,), and the largest
        excess."""
        excess = self._excess()
        return self.minima @ self.weights, excess @ self.weights, self.xp.max(excess)

    def differences(self, best: int) -> tuple[Array, Array, Array, Array]:
        """Each expert's loss above that of the best one: least, largest, mean and mean absolute
        value, (R,) each."""
        above = self._above(best)
        return (
            self.xp.min(above, axis=1),
            self.xp.max(above, axis=1),
            above @ self.weights,
            self.xp.abs(above) @ self.weights,
        )

    def challenges(self, best: int, lam: float) -> tuple[Array, Array]:
        """E exp(-difference / lam) - 1 for every expert, and the mean absolute value of that, (R,)
        each."""
        gains = self.xp.expm1(self._above(best) / -lam)
        return gains @ self.weights, self.xp.abs(gains) @ self.weights

    def challenge(self, best: int, t: int, price: float, top: float) -> tuple[Array]:
        """E exp(-price difference - top) for one expert; E exp(-price difference) - 1 where top =
        0."""
        exponents = -price * self._above(best, [t])[0]
        if top:
            return (self.weights @ self.xp.exp(exponents - top),)
        return (self.weights @ self.xp.expm1(exponents),)

    def _without_dust(self, losses: Array) -> Array:
        """The losses, with 0 for what is smaller than `SMALLEST`: what differs then differs by more
        than the smallest floats, which have no digits."""
        if losses.dtype != self.xp.float64:
            return losses
        dust = (self.xp.abs(losses) < SMALLEST) & (losses != 0)
        return self.xp.where(dust, 0.0, losses) if self.xp.any(dust) else losses

    def beside(self, array: np.ndarray) -> Array:
        """A NumPy array in double precision, where the block is."""
        if self.xp is np:
            return array
        return self.xp.asarray(array, dtype=self.xp.float64, device=self.losses.device)

    def _losses(self, experts: slice | list[int] = slice(None)) -> Array:
        """Losses of some experts in double precision, their costs included."""
        losses = self.losses[experts]
        if losses.dtype != self.xp.float64:
            losses = self.xp.astype(losses, self.xp.float64)
        return losses if self.cost is None else losses + self.cost[experts]

    def _excess(self) -> Array:
        return self._losses() - self.minima if self.shifted else self._losses()

    def _above(self, best: int, experts: slice | list[int] = slice(None)) -> Array:
        return self._losses(experts) - self._losses([best])

    def _step(self) -> float:
        """The excess where it is not 0, if it is one number, as with 0-1 losses: one exponential is
        enough. Else 0."""
        if self.xp is not np:
            return 0.0
        excess = self._excess()
        step = float(excess.max())
        for part in (excess[:, :8], excess):  # a few inputs mostly settle it
            if not ((part == 0) | (part == step)).all():
                return 0.0
        return step


def namespace(array: Array) -> Any:
    """The array API namespace of an array: NumPy itself, or torch as the standard has it.

    >>> namespace(np.zeros(3)).__name__
    'numpy'
    """
    if isinstance(array, np.ndarray):
        return np
    from array_api_compat import array_namespace  # NumPy alone does not need it

    return array_namespace(array)


# --- all blocks together ---


class Table:
    """Blocks in memory, and what is asked of all of them together.

    `floor` is the mean least loss, `means` (R,) the mean excess of each expert above it, `spread`
    the largest excess, `best` the best single expert (a tie goes to the smallest index) and
    `ceiling` its mean loss. Raises ValueError for losses that are not finite.

    >>> table = table_of([[0, 1, 1], [1, 0, 1], [1, 0, 1]])
    >>> table.floor, table.best, round(table.ceiling, 4)
    (0.0, 1, 0.3333)
    """

    def __init__(self, blocks: list[Block], floor: float = 0.0):
        self.blocks = blocks
        self._summarise(floor)

    def _summarise(self, floor: float) -> None:
        floors, means, spreads = self.each("summary")
        self.floor = floor + float(total(floors))
        self.means: np.ndarray = total(means)
        self.spread = float(max(spreads))
        # what passes here has finite sums; a NumPy table was told which entry is too large
        if not (np.isfinite(self.floor) and np.isfinite(self.means).all()):
            raise ValueError(
                f"losses hold NaN or infinity, or numbers above {LARGEST:g} in size; all entries "
                "must be finite and no larger"
            )
        # a tie goes to the smallest index and must not be decided by rounding
        self.best = int(np.argmax(self.means <= self.means.min() * (1 + 1e-12)))
        self.ceiling = self.floor + float(self.means[self.best])

    @property
    def n_experts(self) -> int:
        """R."""
        return len(self.means)

    def each(self, method: str, *arguments: Any) -> list[tuple]:
        """The values that a method of the blocks returns, each as a sequence over blocks."""
        if len(self.blocks) == 1:
            return [(value,) for value in _ask(self.blocks[0], method, arguments)]
        return list(zip(*[_ask(block, method, arguments) for block in self.blocks]))

    def set_price(self, lam: float) -> None:
        """The price lam >= 0 that the next three methods speak of."""
        self.each("set_price", lam)

    def evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray, float]:
        """f, g (R,) and the largest w / z at x (R,); the next two methods speak of this x."""
        f, g, largest = self.each("evaluate", x)
        return float(total(f)), total(g), max(largest)

    def hessian(self, active: np.ndarray | None) -> np.ndarray:
        """Minus the Hessian of f among the active experts (None: all)."""
        return total(*self.each("hessian", active))

    def mean_excess(self, x: np.ndarray) -> float:
        """Expected excess loss of the gate that belongs to x."""
        return float(total(*self.each("mean_excess", x)))

    def challengers(self, lam: float) -> np.ndarray:
        """Which experts (R,) would be used beside the best one at this price."""
        if lam == 0:
            least = self.differences()[0]
            return least < 0
        all_gains, all_sizes = self.each("challenges", self.best, lam)
        gains = total(all_gains)
        sizes = total(all_sizes)
        return (gains > 1e-13 * sizes) | (gains == np.inf)

    def differences(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Least, largest, mean and mean absolute loss of each expert above that of the best one,
        (R,) each."""
        least, most, means, sizes = self.each("differences", self.best)
        return np.min(least, axis=0), np.max(most, axis=0), total(means), total(sizes)

    def challenge(self, t: int, price: float, top: float) -> float:
        """E exp(-price difference - top) for one expert; E exp(-price difference) - 1 where top =
        0."""
        return float(total(*self.each("challenge", self.best, t, price, top)))


class Stream(Table):
    """The parts of a dask array, read anew for every sum: memory holds a few parts, whatever the
    length.

    `parts` are pairs of delayed losses (n, R) and weights (n,). `table_of` makes one:

    >>> import dask.array as da
    >>> table_of(da.from_array(np.array([[0, 1], [1, 0], [1, 0]]), chunks=(2, 2))).best
    1
    """

    def __init__(self, parts: list[tuple[Any, Any]], cost: np.ndarray | None = None):
        self.parts = parts
        self.cost = cost
        self.lam: float | None = None
        self.x: np.ndarray | None = None
        self._summarise(0.0)

    def each(self, method: str, *arguments: Any) -> list[tuple]:
        """The values that a method of the blocks returns, each as a sequence over parts."""
        from dask.base import compute
        from dask.delayed import delayed

        run = delayed(_ask_part, pure=False)
        tasks = [
            run(losses, weights, self.cost, self.lam, self.x, method, arguments)
            for losses, weights in self.parts
        ]
        return list(zip(*compute(*tasks)))

    def set_price(self, lam: float) -> None:
        """The price, kept for the sums that need it."""
        self.lam = lam

    def evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray, float]:
        """As `Table.evaluate`; x is kept for the sums that need it."""
        self.x = x
        return super().evaluate(x)


def total(parts: Sequence[Any]) -> Any:
    """Sum over blocks; one block's number or array itself.

    >>> total((1.5, 2.5))
    4.0
    """
    return parts[0] if len(parts) == 1 else sum(parts)


def _ask(block: Block, method: str, arguments: tuple) -> Sequence[Any]:
    """What a method of a block returns, as NumPy numbers and arrays."""
    values = getattr(block, method)(*arguments)
    if block.xp is np:
        return values
    return [value.cpu().numpy() for value in values]


@quietly
def _ask_part(losses, weights, cost, lam, x, method: str, arguments: tuple) -> Sequence[Any]:
    """What a method of a block returns that is made here and now, with its price and x."""
    used = weights > 0
    rows = losses if used.all() else losses[used]
    block = Block(rows.T, weights[used], cost)
    if method in ("evaluate", "hessian", "mean_excess"):
        block.set_price(lam)
    if method in ("hessian", "mean_excess"):
        block.evaluate(x)
    return _ask(block, method, arguments)


# --- a table of any kind, checked ---


@quietly
def table_of(losses: Any, weights: ArrayLike | None = None, cost: ArrayLike | None = None) -> Table:
    """A table (N, R) on the engine of its array: NumPy, with equal rows of excess loss merged,
    torch or dask.

    Weights (N,) are uniform by default; cost (R,) is added to each expert's loss. Raises ValueError
    for tables, weights and costs of another shape or with entries that are not allowed.

    >>> table = table_of([[0, 1], [1, 2], [1, 0]])  # excess (0, 1) twice
    >>> sum(block.losses.shape[1] for block in table.blocks)
    2
    """
    losses, library = as_table(losses)
    cost = check_cost(cost, losses.shape[1])
    if library == "dask":
        return Stream(_parts(losses, weights), cost)
    weights = as_weights(weights, len(losses))
    if library == "torch":
        if not weights.all():
            losses = losses[np.flatnonzero(weights)]
        return Table([Block(losses.T, weights[weights > 0], cost)])
    if not weights.all():
        losses = losses[weights > 0]
        weights = weights[weights > 0]
    return _merged(losses, weights, cost)


def as_table(losses: Any) -> tuple[Any, str]:
    """A table (N, R) that is checked as far as it costs nothing, and its engine: `"dask"`,
    `"torch"`, or anything else for NumPy.

    Raises ValueError for another shape or kind of number.

    >>> as_table([[0, 1], [1, 0]])[0].shape
    (2, 2)
    """
    library = type(losses).__module__.partition(".")[0]
    if library not in ("dask", "torch"):
        return as_losses(losses), library
    if losses.ndim != 2 or 0 in losses.shape:
        raise ValueError(
            f"losses has shape {tuple(losses.shape)}; allowed is (N, R) with N, R >= 1"
        )
    if not any(kind in str(losses.dtype) for kind in ("float", "int", "bool")):
        raise ValueError(f"losses has dtype {losses.dtype}; allowed are real numbers")
    if isinstance(getattr(losses, "_meta", None), np.ma.MaskedArray):
        raise ValueError("losses is a masked array; fill it or drop the masked rows first")
    if library == "torch":
        losses = losses.detach()
    return losses, library


def check_cost(cost: ArrayLike | None, n_experts: int) -> np.ndarray | None:
    """One number (R,) per expert, or None; else ValueError.

    >>> check_cost([1, 2], 3)
    Traceback (most recent call last):
    ValueError: cost has shape (2,); allowed is (3,), one number per expert
    """
    if cost is None:
        return None
    cost = as_risks(cost, "cost")
    if cost.shape != (n_experts,):
        raise ValueError(
            f"cost has shape {cost.shape}; allowed is ({n_experts},), one number per expert"
        )
    return cost


# numbers in one block of a NumPy table: about a processor's cache
NUMBERS_PER_BLOCK = 1 << 18


def _merged(losses: np.ndarray, weights: np.ndarray, cost: np.ndarray | None) -> Table:
    """A NumPy table in blocks of inputs, with equal rows of excess loss merged where it pays."""
    floor = 0.0
    if _repeats(losses):
        if losses.dtype.kind != "u":  # differences of other types may overflow or lose digits
            losses = losses.astype(float, copy=False)
        minima = _row_minima(losses)
        floor = float(weights @ minima)
        rows, weights, _ = merge_rows(losses - minima[:, None], weights)
        losses = np.array(rows, float, order="F")
    size = max(1, NUMBERS_PER_BLOCK // losses.shape[1])
    blocks = []
    for start in range(0, len(losses), size):
        part = slice(start, start + size)
        blocks.append(Block(losses[part].T, weights[part], cost))
    return Table(blocks, floor)


# rows up to this length, and so many of their numbers at once: a processor's cache
SHORT_ROW = 64
NUMBERS_TURNED_AT_ONCE = 1 << 15


def _row_minima(table: np.ndarray) -> np.ndarray:
    """The least number of each row (N,); of short rows by columns, as NumPy is slow along them."""
    if table.shape[1] > SHORT_ROW:
        return table.min(axis=1)
    chunk = NUMBERS_TURNED_AT_ONCE // table.shape[1]
    parts = [table[start : start + chunk] for start in range(0, len(table), chunk)]
    return np.concatenate([np.ascontiguousarray(part.T).min(axis=0) for part in parts])


# rows by which a table is judged
SAMPLED_ROWS = 1_000


def _repeats(losses: np.ndarray) -> bool:
    """Whether merging may pay: rows of real numbers hardly ever repeat, and a sample tells without
    a copy of all."""
    if len(losses) <= SAMPLED_ROWS:
        return True
    sample = losses[:: len(losses) // SAMPLED_ROWS].astype(float)
    distinct = merge_rows(sample - sample.min(axis=1)[:, None])[0]
    return len(distinct) <= 0.9 * len(sample)


def _parts(losses: Any, weights: Any) -> list[tuple[Any, Any]]:
    """Pairs of delayed losses (n, R) and weights (n,) for the row chunks of a dask array."""
    from dask.base import compute
    from dask.delayed import delayed

    losses = losses.rechunk({1: -1})
    sizes = losses.chunks[0]
    if np.isnan(sizes).any():
        raise ValueError(
            "losses has chunks of unknown length; its compute_chunk_sizes() must be called first"
        )
    if 0 in sizes:  # as a filter leaves them
        sizes = tuple(size for size in sizes if size)
        losses = losses.rechunk({0: sizes})
    weight_parts = _weights_in_chunks(weights, sizes)
    # all sums in one pass, without the weights in memory
    sought = [(delayed(np.min)(part), delayed(np.sum)(part)) for part in weight_parts]
    lows, sums = zip(*compute(*sought))
    if not (min(lows) >= 0 and 0 < sum(sums) < np.inf):
        raise ValueError("weights must be finite, none negative and at least one positive")
    whole = float(sum(sums))
    loss_parts = losses.to_delayed().ravel()
    return [
        (part, weight / whole)
        for part, weight, own in zip(loss_parts, weight_parts, sums)
        if own > 0
    ]


def _weights_in_chunks(weights: Any, sizes: tuple[int, ...]) -> Iterable[Any]:
    """Delayed weights (n,) of row chunks of these sizes, from a dask array, an array or None."""
    import dask.array as da

    n_inputs = sum(sizes)
    chunks: Any = (sizes,)
    if not isinstance(weights, da.Array):
        weights = da.from_array(as_weights(weights, n_inputs), chunks=chunks)
    if weights.shape != (n_inputs,):
        raise ValueError(
            f"weights has shape {weights.shape}; allowed is ({n_inputs},), one weight per input"
        )
    return weights.rechunk(chunks).to_delayed()
