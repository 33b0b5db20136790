"""The optimisation behind the distortion-rate function: Newton's method on an active set of
experts. Nats.

For a price lam per nat, the least E[loss] + lam I(X;T) over gates is m - lam max_x f(x), f(x) =
sum_i w_i log (x K)_i, with x on the simplex of experts, row minima m_i, their weighted mean m, and
K_ti = exp(-(l_it - m_i)/lam). f is concave with gradient g_t = sum_i w_i K_ti / (x K)_i and x.g =
1, so f* - f(x) <= log max_t g_t: the certificate. Blahut-Arimoto is the EM step x <- x g. Newton's
step goes to the optimum, on the simplex, of a quadratic model of f among the experts that are in
use or want to be: sequential quadratic programming for mixture proportions (Kim, Carbonetto,
Stephens and Anitescu, 2020).

The N inputs enter through sums over blocks of a table, in code of the array API standard: NumPy and
torch blocks keep their kernel K in memory, a dask array streams through the same functions. What
has R or R x R numbers is NumPy.
"""

from __future__ import annotations

import math

import numpy as np

from expertbank.tables import Table

MAX_NEWTON = 300
MAX_EM = 1_000_000
# f is a sum of many rounded terms: smaller differences mean nothing
ROUNDING = 1e-13


def maximise(table: Table, start: np.ndarray, tol: float):
    """The maximum of f at the price that is set: x (R,), f, g (R,), the certificate and the number
    of steps."""
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
    """argmin y'hy/2 - b'y over y >= 0, by Lawson and Hanson's active-set method from a feasible
    start."""
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
            y = y + (y[falling] / np.maximum(y[falling] - target[falling], 1e-300)).min() * (
                target - y
            )
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
