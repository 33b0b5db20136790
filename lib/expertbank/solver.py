"""The optimisation behind the distortion-rate function: Newton's method on an active set of experts. Nats.

For a price lam per nat, the least E[loss] + lam I(X;T) over gates is m - lam max_x f(x), f(x) = sum_i w_i log (x K)_i,
with x on the simplex of experts, row minima m_i, their weighted mean m, and K_ti = exp(-(l_it - m_i)/lam). f is
concave with gradient g_t = sum_i w_i K_ti / (x K)_i and x.g = 1, so f* - f(x) <= log max_t g_t: the certificate.
Blahut-Arimoto is the EM step x <- x g. Newton's step goes to the optimum, on the simplex, of a quadratic model of f
among the experts that are in use or want to be: sequential quadratic programming for mixture proportions (Kim,
Carbonetto, Stephens and Anitescu, 2020).

The N inputs enter through sums over blocks of a table, in code of the array API standard: NumPy and torch blocks keep
their kernel K in memory, a dask array streams through the same functions. What has R or R x R numbers is NumPy.
"""

from __future__ import annotations

import math

import numpy as np

from expertbank._checks import as_losses, as_risks, as_weights
from expertbank.learners import merge_rows

# numbers in one block of a table in memory: about a processor's cache
BLOCK = 1 << 18
# numbers below which a product with a transpose is faster as a general one
SMALL = 100_000
# rows by which a table is judged
SAMPLE = 1_000
MAX_NEWTON = 300
MAX_EM = 1_000_000
# f is a sum of many rounded terms: smaller differences mean nothing
ROUNDING = 1e-13


# losses may be huge against lam, and a step may leave an input without an expert: both are seen and dealt with
quietly = np.errstate(all="ignore")


class Block:
    """Some inputs of a table: losses (R, n), expert by input so that active experts are contiguous, weights (n,) > 0.

    Every public method returns a tuple of sums or extremes over its inputs, which the table combines over blocks.
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
        """Mean of the inputs' least losses, mean excess of each expert (R,), and the largest excess."""
        excess = self._excess()
        return self.minima @ self.weights, excess @ self.weights, self.xp.max(excess)

    def differences(self, best):
        """Each expert's loss above that of the best one: least, largest, mean and mean absolute value, (R,) each."""
        xp, above = self.xp, self._above(best)
        return xp.min(above, axis=1), xp.max(above, axis=1), above @ self.weights, xp.abs(above) @ self.weights

    def challenges(self, best, lam):
        """E exp(-difference / lam) - 1 for every expert, and the mean absolute value of that, (R,) each."""
        gains = self.xp.expm1(self._above(best) / -lam)
        return gains @ self.weights, self.xp.abs(gains) @ self.weights

    def challenge(self, best, t, price, top):
        """E exp(-price difference - top) for one expert; E exp(-price difference) - 1 where top = 0."""
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
        """The excess where it is not 0, if it is one number, as with 0-1 losses: one exponential is enough. Else 0."""
        if self.xp is not np:
            return 0.0
        excess = self._excess()
        step = float(excess.max())
        return step if all(((part == 0) | (part == step)).all() for part in (excess[:, :8], excess)) else 0.0

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
        self.floor, self.means, self.spread = floor + float(total(floors)), total(means), float(max(spreads))
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
        """Least, largest, mean and mean absolute loss of each expert above that of the best one, (R,) each."""
        least, most, means, sizes = self.each("differences", self.best)
        return np.min(least, axis=0), np.max(most, axis=0), total(means), total(sizes)

    def challenge(self, t: int, price: float, top: float) -> float:
        """E exp(-price difference - top) for one expert; E exp(-price difference) - 1 where top = 0."""
        return float(total(*self.each("challenge", self.best, t, price, top)))


class Stream(Table):
    """The parts of a dask array, read anew for every sum: memory holds a few parts, whatever the length."""

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
    """A table (N, R) on the engine of its array: NumPy, with equal rows of excess loss merged, torch or dask."""
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
    """A table (N, R) that is checked as far as it costs nothing, and its engine: dask, torch, or anything for NumPy."""
    library = type(losses).__module__.partition(".")[0]
    if library not in ("dask", "torch"):
        return as_losses(losses), library
    if losses.ndim != 2 or 0 in losses.shape:
        raise ValueError(f"losses has shape {tuple(losses.shape)}; allowed is (N, R) with N, R >= 1")
    if not any(kind in str(losses.dtype) for kind in ("float", "int", "bool")):
        raise ValueError(f"losses has dtype {losses.dtype}; allowed are real numbers")
    return losses.detach() if library == "torch" else losses, library


def check_cost(cost, n_experts: int) -> np.ndarray | None:
    """One number (R,) per expert, or None."""
    if cost is None:
        return None
    cost = as_risks(cost, "cost")
    if cost.shape != (n_experts,):
        raise ValueError(f"cost has shape {cost.shape}; allowed is ({n_experts},), one number per expert")
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
    return Table([Block(losses[i : i + size].T, weights[i : i + size], cost) for i in starts], floor)


def _repeats(losses) -> bool:
    """Whether merging may pay: rows of real numbers hardly ever repeat, and a sample tells without a copy of all."""
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
        raise ValueError("losses has chunks of unknown length; its compute_chunk_sizes() must be called first")
    if weights is None or not isinstance(weights, da.Array):
        weights = da.from_array(as_weights(weights, len(losses)), chunks=(sizes,))
    if weights.shape != (len(losses),):
        raise ValueError(f"weights has shape {weights.shape}; allowed is ({len(losses)},), one weight per input")
    weights = weights.rechunk((sizes,)).to_delayed()
    lows, sums = zip(*dask.compute(*((dask.delayed(np.min)(part), dask.delayed(np.sum)(part)) for part in weights)))
    if not (min(lows) >= 0 and 0 < sum(sums) < np.inf):
        raise ValueError("weights must be finite, none negative and at least one positive")
    pairs = zip(losses.to_delayed().ravel(), weights, sums)
    return [(part, weight / float(sum(sums))) for part, weight, own in pairs if own > 0]


def maximise(table: Table, start: np.ndarray, tol: float):
    """The maximum of f at the price that is set: x (R,), f, g (R,), the certificate and the number of steps."""
    n, newton = len(start), False
    x = start
    f, g, largest = table.evaluate(x)
    if not largest <= 2:  # at the optimum w / z is at most 1
        x = (x + 1 / n) / 2
        f, g, _ = table.evaluate(x)
    for step in range(MAX_NEWTON + 1):
        gap = _gap(g)
        if gap <= tol or step == MAX_NEWTON:
            return x, f, g, gap, step
        if gap > math.log(2) and not newton and step < 10:
            x, f, g = _em_step(table, x, g)
        else:
            newton = True
            x, f, g = _search(table, x, f, g, _model_optimum(table, x, g))


def expectation_maximisation(table: Table, start: np.ndarray, tol: float):
    """Blahut-Arimoto: the same as `maximise`, by EM steps alone."""
    x = start
    f, g, _ = table.evaluate(x)
    for step in range(MAX_EM + 1):
        gap = _gap(g)
        if gap <= tol or step == MAX_EM:
            return x, f, g, gap, step
        x, f, g = _em_step(table, x, g)


def _gap(g) -> float:
    """The certificate log max_t g_t; rounding may take the largest g_t below 1."""
    return max(math.log(g.max()), 0.0)


def _em_step(table, x, g):
    """One step of Blahut-Arimoto."""
    x = x * g
    f, g, _ = table.evaluate(x)
    return x, f, g


def _model_optimum(table, x, g):
    """The optimum on the simplex of f's quadratic model at x."""
    active = np.flatnonzero((x > 0) | (g > 1))
    if len(active) == len(x):
        y = _quadratic_optimum(table.hessian(None), x, g)
    else:
        y = np.zeros(len(x))
        y[active] = _quadratic_optimum(table.hessian(active), x[active], g[active])
    return y / y.sum()


def _quadratic_optimum(hessian, x, g):
    for ridge in (1e-10, 1e-8, 1e-6):
        hessian.flat[:: len(x) + 1] *= 1 + ridge
        try:
            return nonnegative_minimum(hessian, hessian @ x + g - 1, x)
        except np.linalg.LinAlgError:
            continue
    return x * g


def nonnegative_minimum(h, b, start):
    """argmin y'hy/2 - b'y over y >= 0, by Lawson and Hanson's active-set method from a feasible start."""
    y, free = start, np.flatnonzero(start)
    for _ in range(3 * len(b)):
        if len(free) == len(b):
            target = part = np.linalg.solve(h, b)
        else:
            target, part = np.zeros(len(b)), np.linalg.solve(h[free[:, None], free], b[free])
            target[free] = part
        least = part.min()
        if not math.isfinite(least):
            raise np.linalg.LinAlgError("singular")
        if least > 0:
            y = target
            if len(free) == len(b):
                break
            pull = b - h @ y
            pull[free] = 0
            t = pull.argmax()
            if pull[t] <= 1e-12:
                break
            free = np.sort(np.append(free, t))
        else:  # as far as the first expert that would turn negative
            falling = free[part <= 0]
            y = y + (y[falling] / np.maximum(y[falling] - target[falling], 1e-300)).min() * (target - y)
            y[y < 1e-15] = 0
            free = np.flatnonzero(y)
    return y


def _search(table, x, f, g, y):
    """From x towards y until f has risen by a share of what its slope promises."""
    fy, gy, largest = table.evaluate(y)
    if not largest <= 2:
        y = y + (x - y) / 10  # every expert keeps a tenth, and the direction still rises
        fy, gy, largest = table.evaluate(y)
    share, slope, z = 1.0, g @ (y - x), y
    while not fy >= f + 0.01 * share * slope - ROUNDING:
        share /= 2
        if share < 1e-9:
            return _em_step(table, x, g)
        z = x + share * (y - x)
        fy, gy, largest = table.evaluate(z)
    return (z, fy, gy) if share == 1 else _em_step(table, z, gy)


def total(parts):
    """Sum over blocks."""
    return parts[0] if len(parts) == 1 else sum(parts)


def namespace(array):
    """The array API namespace of an array."""
    if isinstance(array, np.ndarray):
        return np
    from array_api_compat import array_namespace  # NumPy alone does not need it

    return array_namespace(array)
