"""A loss table in memory, on a GPU or larger than memory, as the sums over inputs that the solver
asks for; and files.

The N inputs enter through sums over blocks of a table, in code of the array API standard: NumPy and
torch blocks keep their kernel in memory, a dask array streams through the same functions. What has
R or R x R numbers is NumPy.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from expertbank._checks import as_count, as_losses, as_risks, as_weights

# numbers in one chunk: 32 MB in double precision
NUMBERS_PER_CHUNK = 1 << 22


def open_table(path, chunk_rows: int | None = None):
    """A table (N, R) in a .npy, .zarr or .parquet file (or folder) as a dask array in chunks of
    rows.

    Nothing is read but the header; every worker of a dask cluster reads its own chunks, so `path`
    must be one that all of them see. `chunk_rows` is the number of rows in a chunk (default: about
    32 MB; a parquet file keeps its own partitions, one row per input and one column per expert).
    Raises ValueError for another kind of file or a table that is not two-dimensional,
    FileNotFoundError where there is none. Needs `pip install "expertbank[dask]"`.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix not in READERS:
        raise ValueError(
            f"{path.name} has suffix {path.suffix!r}; allowed are .npy, .zarr and .parquet"
        )
    return READERS[path.suffix](
        path, None if chunk_rows is None else as_count(chunk_rows, "chunk_rows")
    )


def _open_npy(path: Path, chunk_rows: int | None):
    import dask
    import dask.array as da

    table = np.load(path, mmap_mode="r", allow_pickle=False)
    n_inputs, n_experts = _two_dimensions(path, table.shape)
    chunk_rows = chunk_rows or max(1, NUMBERS_PER_CHUNK // n_experts)
    bounds = [
        (start, min(start + chunk_rows, n_inputs)) for start in range(0, n_inputs, chunk_rows)
    ]
    read = dask.delayed(_rows, pure=True)
    return da.concatenate(
        [
            da.from_delayed(read(path, *ends), (ends[1] - ends[0], n_experts), table.dtype)
            for ends in bounds
        ]
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


# numbers of a table whose keys are computed at once
NUMBERS_PER_KEY = 1 << 20


def merge_rows(table: np.ndarray, weights: np.ndarray | None = None):
    """Distinct rows (U, R) of a table (N, R), their total weights (U,), and the row number (N,) of
    each input.

    0-1 losses have few distinct rows, and everything in this library depends on a table only
    through them.
    """
    chunk = max(1, NUMBERS_PER_KEY // table.shape[1])
    chunks = [table[start : start + chunk] for start in range(0, len(table), chunk)]
    # one sort of N keys instead of one per column; equal rows have equal keys
    keys = np.concatenate([_row_keys(part) for part in chunks])
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == len(table):
        return (
            table,
            np.ones(len(table), int) if weights is None else weights,
            np.arange(len(table)),
        )
    rows = table[first]
    rows_of_chunks = np.split(inverse, range(chunk, len(table), chunk))
    # two rows, one key: one in 1e10
    if not all((rows[of] == part).all() for part, of in zip(chunks, rows_of_chunks)):
        rows, inverse = np.unique(table, axis=0, return_inverse=True)
    return rows, np.bincount(inverse, weights, len(rows)), inverse


def _row_keys(rows: np.ndarray) -> np.ndarray:
    """A 64-bit key for each row: its bytes as words, each mixed and times its own odd number."""
    # -0.0 is made 0.0
    rows = np.ascontiguousarray(rows + rows.dtype.type(0) if rows.dtype.kind == "f" else rows)
    content = rows.view(np.uint8)
    padded = np.zeros((len(rows), -(-content.shape[1] // 8) * 8), np.uint8)
    padded[:, : content.shape[1]] = content
    words = padded.view(np.uint64)
    # the low half must see the high half: products carry upwards only
    words ^= words >> np.uint64(32)
    odd = np.random.default_rng(0).integers(
        2**63, size=words.shape[1], dtype=np.uint64
    ) * np.uint64(2) + np.uint64(1)
    return (words * odd).sum(axis=1)


# numbers in one block of a table in memory: about a processor's cache
BLOCK = 1 << 18
# numbers below which a product with a transpose is faster as a general one
SMALL = 100_000
# rows by which a table is judged
SAMPLE = 1_000


# losses may be huge against lam, and a step may leave an input without an expert: both are seen and
# dealt with
quietly = np.errstate(all="ignore")


class Block:
    """Some inputs of a table: losses (R, n), expert by input so that active experts are contiguous,
    weights (n,) > 0.

    Every public method returns a tuple of sums or extremes over its inputs, which the table
    combines over blocks.
    """

    def __init__(self, losses, weights, cost=None):
        self.xp = namespace(losses)
        self.losses = losses
        self.weights = self.beside(weights)
        self.cost = None if cost is None else self.beside(cost)[:, None]
        self.minima = self.xp.min(self._losses(), axis=0)
        self.shifted = bool(self.xp.any(self.minima != 0))
        self.roots = self.xp.sqrt(self.weights)
        self.kernel, self.step = None, self._step()

    def set_price(self, lam: float):
        """The kernel of a price; at lam = 0 it is 1 where the loss is least."""
        xp = self.xp
        self.low = math.exp(-self.step / lam) if lam else 0.0
        if lam == 0:
            self.kernel = xp.astype(self._excess() == 0, xp.float64)
        elif xp is np:  # in place and contiguous, whatever the order of the table
            self.kernel = np.empty(self.losses.shape) if self.kernel is None else self.kernel
            if self.step:
                np.multiply(self._excess(), (self.low - 1) / self.step, out=self.kernel)
                self.kernel += 1
            else:
                np.subtract(self.minima, self._losses(), out=self.kernel)
                self.kernel /= lam
                np.exp(self.kernel, out=self.kernel)
        else:
            self.kernel = xp.exp(self._excess() / -lam)
        return ()

    def evaluate(self, x):
        """f, its gradient g (R,), and the largest w / z, where z = x K."""
        self.z = self.beside(x) @ self.kernel
        ratio = self.weights / self.z
        return self.weights @ self.xp.log(self.z), self.kernel @ ratio, ratio.max()

    def hessian(self, active):
        """K diag(w / z^2) K' of the active experts (None: of all): minus the Hessian of f."""
        kernel, ratio = self.kernel if active is None else self.kernel[active], self.roots / self.z
        if math.prod(kernel.shape) < SMALL:
            return ((kernel * ratio**2) @ kernel.T,)
        scaled = kernel * ratio
        return (scaled @ scaled.T,)

    def mean_excess(self, x):
        """Expected excess loss of the gate x_t K_ti / z_i."""
        ratio, excess = self.weights / self.z, self._excess()
        if self.step:  # the kernel is the same wherever the excess is not 0
            return ((x @ excess) @ ratio * self.low,)
        return ((self.beside(x) @ (excess * self.kernel)) @ ratio,)

    def summary(self):
        """Mean of the inputs' least losses, mean excess of each expert (R,), and the largest
        excess."""
        excess = self._excess()
        return self.minima @ self.weights, excess @ self.weights, self.xp.max(excess)

    def differences(self, best):
        """Each expert's loss above that of the best one: least, largest, mean and mean absolute
        value, (R,) each."""
        xp, above = self.xp, self._above(best)
        return (
            xp.min(above, axis=1),
            xp.max(above, axis=1),
            above @ self.weights,
            xp.abs(above) @ self.weights,
        )

    def challenges(self, best, lam):
        """E exp(-difference / lam) - 1 for every expert, and the mean absolute value of that, (R,)
        each."""
        gains = self.xp.expm1(self._above(best) / -lam)
        return gains @ self.weights, self.xp.abs(gains) @ self.weights

    def challenge(self, best, t, price, top):
        """E exp(-price difference - top) for one expert; E exp(-price difference) - 1 where top =
        0."""
        exponents = -price * self._above(best, [t])[0]
        return (self.weights @ (self.xp.exp(exponents - top) if top else self.xp.expm1(exponents)),)

    def _losses(self, experts=slice(None)):
        losses = self.losses[experts]
        if losses.dtype != self.xp.float64:
            losses = self.xp.astype(losses, self.xp.float64)
        return losses if self.cost is None else losses + self.cost[experts]

    def _excess(self):
        return self._losses() - self.minima if self.shifted else self._losses()

    def _above(self, best, experts=slice(None)):
        return self._losses(experts) - self._losses([best])

    def _step(self) -> float:
        """The excess where it is not 0, if it is one number, as with 0-1 losses: one exponential is
        enough. Else 0."""
        if self.xp is not np:
            return 0.0
        excess = self._excess()
        step = float(excess.max())
        return (
            step
            if all(((part == 0) | (part == step)).all() for part in (excess[:, :8], excess))
            else 0.0
        )

    def beside(self, array):
        """A NumPy array in double precision, where the block is."""
        if self.xp is np:
            return array
        return self.xp.asarray(array, dtype=self.xp.float64, device=self.losses.device)


class Table:
    """Blocks in memory, and what is asked of all of them together."""

    def __init__(self, blocks, floor: float = 0.0):
        self.blocks = blocks
        self._summarise(floor)

    def _summarise(self, floor):
        """Mean least loss, mean excess of each expert, and the best single expert with its loss."""
        floors, means, spreads = self.each("summary")
        self.floor, self.means, self.spread = (
            floor + float(total(floors)),
            total(means),
            float(max(spreads)),
        )
        if not (np.isfinite(self.floor) and np.isfinite(self.means).all()):
            raise ValueError("losses hold NaN or infinity; all entries must be finite")
        # a tie goes to the smallest index and must not be decided by rounding
        self.best = int(np.argmax(self.means <= self.means.min() * (1 + 1e-12)))
        self.ceiling = self.floor + float(self.means[self.best])

    @property
    def n_experts(self) -> int:
        return len(self.means)

    def each(self, method: str, *arguments):
        """The values that a method of the blocks returns, each as a sequence over blocks."""
        return list(zip(*[_ask(block, method, arguments) for block in self.blocks]))

    def set_price(self, lam: float) -> None:
        self.each("set_price", lam)

    def evaluate(self, x):
        """f, g (R,) and the largest w / z at x; the next two methods speak of this x."""
        f, g, largest = self.each("evaluate", x)
        return float(total(f)), total(g), max(largest)

    def hessian(self, active):
        return total(*self.each("hessian", active))

    def mean_excess(self, x) -> float:
        return float(total(*self.each("mean_excess", x)))

    def challengers(self, lam: float) -> np.ndarray:
        """Which experts (R,) would be used beside the best one at this price."""
        if lam == 0:
            return self.differences()[0] < 0
        gains, sizes = map(total, self.each("challenges", self.best, lam))
        return (gains > 1e-13 * sizes) | (gains == np.inf)

    def differences(self):
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
    length."""

    def __init__(self, parts, cost=None):
        self.parts, self.cost = parts, cost
        self.lam = self.x = None
        self._summarise(0.0)

    def each(self, method: str, *arguments):
        import dask

        run = dask.delayed(_on_part, pure=False)
        tasks = [run(*part, self.cost, self.lam, self.x, method, arguments) for part in self.parts]
        return list(zip(*dask.compute(*tasks)))

    def set_price(self, lam: float) -> None:
        self.lam = lam

    def evaluate(self, x):
        self.x = x
        return super().evaluate(x)


def _ask(block, method: str, arguments):
    """What a method of a block returns, as NumPy numbers and arrays."""
    values = getattr(block, method)(*arguments)
    return values if block.xp is np else [value.cpu().numpy() for value in values]


@quietly
def _on_part(losses, weights, cost, lam, x, method, arguments):
    used = weights > 0
    block = Block(losses.T if used.all() else losses[used].T, weights[used], cost)
    if method in ("evaluate", "hessian", "mean_excess"):
        _ask(block, "set_price", (lam,))
    if method in ("hessian", "mean_excess"):
        _ask(block, "evaluate", (x,))
    return _ask(block, method, arguments)


@quietly
def table_of(losses, weights=None, cost=None) -> Table:
    """A table (N, R) on the engine of its array: NumPy, with equal rows of excess loss merged,
    torch or dask."""
    losses, library = as_table(losses)
    cost = check_cost(cost, losses.shape[1])
    if library == "dask":
        return Stream(_parts(losses, weights), cost)
    if library == "torch":
        weights = as_weights(weights, len(losses))
        losses = losses if weights.all() else losses[np.flatnonzero(weights)]
        return Table([Block(losses.T, weights[weights > 0], cost)])
    weights = as_weights(weights, len(losses))
    if not weights.all():
        losses, weights = losses[weights > 0], weights[weights > 0]
    return _merged(losses, weights, cost)


def as_table(losses):
    """A table (N, R) that is checked as far as it costs nothing, and its engine: dask, torch, or
    anything for NumPy."""
    library = type(losses).__module__.partition(".")[0]
    if library not in ("dask", "torch"):
        return as_losses(losses), library
    if losses.ndim != 2 or 0 in losses.shape:
        raise ValueError(
            f"losses has shape {tuple(losses.shape)}; allowed is (N, R) with N, R >= 1"
        )
    if not any(kind in str(losses.dtype) for kind in ("float", "int", "bool")):
        raise ValueError(f"losses has dtype {losses.dtype}; allowed are real numbers")
    return losses.detach() if library == "torch" else losses, library


def check_cost(cost, n_experts: int) -> np.ndarray | None:
    """One number (R,) per expert, or None."""
    if cost is None:
        return None
    cost = as_risks(cost, "cost")
    if cost.shape != (n_experts,):
        raise ValueError(
            f"cost has shape {cost.shape}; allowed is ({n_experts},), one number per expert"
        )
    return cost


def _merged(losses, weights, cost) -> Table:
    floor = 0.0
    if _repeats(losses):
        if losses.dtype.kind != "u":  # differences of other types may overflow or lose digits
            losses = losses.astype(float, copy=False)
        minima = losses.min(axis=1)
        rows, merged, _ = merge_rows(losses - minima[:, None], weights)
        losses, weights, floor = np.array(rows, float, order="F"), merged, float(weights @ minima)
    size = max(1, BLOCK // losses.shape[1])
    starts = range(0, len(losses), size)
    return Table(
        [Block(losses[i : i + size].T, weights[i : i + size], cost) for i in starts], floor
    )


def _repeats(losses) -> bool:
    """Whether merging may pay: rows of real numbers hardly ever repeat, and a sample tells without
    a copy of all."""
    if len(losses) <= SAMPLE:
        return True
    sample = losses[:: len(losses) // SAMPLE].astype(float)
    return len(merge_rows(sample - sample.min(axis=1)[:, None])[0]) <= 0.9 * len(sample)


def _parts(losses, weights):
    """Pairs of delayed losses (n, R) and weights (n,) for the row chunks of a dask array."""
    import dask
    import dask.array as da

    losses = losses.rechunk({1: -1})
    sizes = losses.chunks[0]
    if np.isnan(sizes).any():
        raise ValueError(
            "losses has chunks of unknown length; its compute_chunk_sizes() must be called first"
        )
    if weights is None or not isinstance(weights, da.Array):
        weights = da.from_array(as_weights(weights, len(losses)), chunks=(sizes,))
    if weights.shape != (len(losses),):
        raise ValueError(
            f"weights has shape {weights.shape}; allowed is ({len(losses)},), one weight per input"
        )
    weights = weights.rechunk((sizes,)).to_delayed()
    lows, sums = zip(
        *dask.compute(
            *((dask.delayed(np.min)(part), dask.delayed(np.sum)(part)) for part in weights)
        )
    )
    if not (min(lows) >= 0 and 0 < sum(sums) < np.inf):
        raise ValueError("weights must be finite, none negative and at least one positive")
    pairs = zip(losses.to_delayed().ravel(), weights, sums)
    return [(part, weight / float(sum(sums))) for part, weight, own in pairs if own > 0]


def total(parts):
    """Sum over blocks."""
    return parts[0] if len(parts) == 1 else sum(parts)


def namespace(array):
    """The array API namespace of an array."""
    if isinstance(array, np.ndarray):
        return np
    from array_api_compat import array_namespace  # NumPy alone does not need it

    return array_namespace(array)


def read_table(path: str) -> np.ndarray:
    """A table from .npy, .npz or .csv; ValueError where the file is none of these or cannot be read
    as one."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; allowed is a .npy, .npz or .csv file")
    try:
        if file.suffix == ".npy":
            return np.load(file, allow_pickle=False)
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                (name,) = archive.files
                return archive[name]
        if file.suffix == ".csv":
            return np.loadtxt(file, delimiter=",", ndmin=2)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read as one table of numbers: {error}") from error
    raise ValueError(f"{file} ends in {file.suffix!r}; allowed are .npy, .npz and .csv")
