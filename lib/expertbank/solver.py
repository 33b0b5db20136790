"""The optimisation behind the distortion-rate function: Newton's method on an active set of
experts. Nats.

The problem
    At a price lam > 0 per nat, a gate p(t|x) of least E[loss] + lam I(X;T) is wanted, P2 (26). With
    losses l_it of expert t on input i, weights w_i of the inputs, least losses m_i of the inputs
    and their weighted mean m, that least value is m - lam max_x f(x), where x is a point on the
    simplex of experts and ::

        f(x) = sum_i w_i log z_i,    z = x K,    K_ti = exp(-(l_it - m_i) / lam).

    At the optimum x is the experts' share of the inputs, and p(t|x_i) = x_t K_ti / z_i is the gate.
    At lam = 0, K_ti is 1 where the loss is least and 0 elsewhere, and -max f is the least rate.

The certificate
    f is concave with gradient g_t = sum_i w_i K_ti / z_i, and x.g = 1 at every x. By Jensen's
    inequality f(y) - f(x) <= log y.g for every y, so no point lies more than log max_t g_t above x:
    a small certificate proves that x is good, however it was found.

    Read K_ti as what a stake on t returns on input i: then max f is the growth of the log-optimal
    portfolio, and iteration and certificate are Cover's (1984).

The methods
    `expectation_maximisation` repeats x <- x g, the algorithm of Blahut and Arimoto, P2 (28)-(29).
    `maximise` takes a few such steps while the start is far off, then Newton's: to the optimum, on
    the simplex, of a quadratic model of f among the experts that are in use (x_t > 0) or want to be
    (g_t > 1). This is sequential quadratic programming for mixture proportions (Kim, Carbonetto,
    Stephens and Anitescu, 2020). `nonnegative_minimum` finds the model's optimum, and a line search
    ends the step.

All sums over inputs are asked of a `Table`, which may lie in memory, on a GPU or in a stream. What
is here has R or R x R numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from expertbank.tables import Table

MAX_NEWTON = 300
MAX_EM = 1_000_000
# f is a sum of many rounded terms: smaller differences mean nothing
ROUNDING = 1e-13


class Maximum(NamedTuple):
    """Where an optimiser stopped."""

    x: np.ndarray
    """a point on the simplex of experts, (R,)"""
    f: float
    """the value there"""
    g: np.ndarray
    """the gradient there, (R,)"""
    certificate: float
    """log max_t g_t in nats; the maximum lies at most this far above f"""
    steps: int
    """Newton or EM steps"""


def maximise(table: Table, start: np.ndarray, tol: float) -> Maximum:
    """The maximum of f at the price that is set, by Newton's method from a start (R,) on the
    simplex, to a certificate of at most `tol`.

    It stops after `MAX_NEWTON` steps at the latest: the certificate tells.

    >>> from expertbank.tables import table_of
    >>> table = table_of([[0, 1], [1, 0], [1, 0]])
    >>> table.set_price(0.5)
    >>> found = maximise(table, np.array([0.5, 0.5]), tol=1e-9)
    >>> found.x.round(4).tolist(), found.certificate <= 1e-9
    ([0.2812, 0.7188], True)
    """
    x = start
    f, g, largest = table.evaluate(x)
    if not largest <= 2:  # at the optimum w / z is at most 1
        x = (x + 1 / len(x)) / 2
        f, g, _ = table.evaluate(x)
    newton = False
    step = 0
    while True:
        certificate = _certificate(g)
        if certificate <= tol or step == MAX_NEWTON:
            return Maximum(x, f, g, certificate, step)
        if certificate > math.log(2) and not newton and step < 10:
            x, f, g = _em_step(table, x, g)
        else:
            newton = True
            x, f, g = _search(table, x, f, g, _model_optimum(table, x, g))
        step += 1


def expectation_maximisation(table: Table, start: np.ndarray, tol: float) -> Maximum:
    """Blahut-Arimoto, P2 (28)-(29): the same as `maximise`, by EM steps alone, at most `MAX_EM` of
    them.

    >>> from expertbank.tables import table_of
    >>> table = table_of([[0, 1], [1, 0], [1, 0]])
    >>> table.set_price(0.5)
    >>> start = np.array([0.5, 0.5])
    >>> slow = expectation_maximisation(table, start, tol=1e-9)
    >>> slow.steps > maximise(table, start, tol=1e-9).steps
    True
    """
    x = start
    f, g, _ = table.evaluate(x)
    step = 0
    while True:
        certificate = _certificate(g)
        if certificate <= tol or step == MAX_EM:
            return Maximum(x, f, g, certificate, step)
        x, f, g = _em_step(table, x, g)
        step += 1


def _certificate(g: np.ndarray) -> float:
    """log max_t g_t; rounding may take the largest g_t below 1."""
    return max(math.log(g.max()), 0.0)


def _em_step(table: Table, x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """One step of Blahut-Arimoto: the new x with its f and g."""
    x = x * g
    f, g, _ = table.evaluate(x)
    return x, f, g


# --- Newton's step: where the quadratic model leads ---


def _model_optimum(table: Table, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The optimum on the simplex of f's quadratic model at x."""
    active = ((x > 0) | (g > 1)).nonzero()[0]
    if len(active) == len(x):
        y = _quadratic_optimum(table.hessian(None), x, g)
    else:
        y = np.zeros(len(x))
        y[active] = _quadratic_optimum(table.hessian(active), x[active], g[active])
    return y / y.sum()


def _quadratic_optimum(hessian: np.ndarray, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The optimum over y >= 0 of the model of f less the sum of y, which lies on the simplex.

    `hessian` is minus that of f, and is written over. Experts that are nearly alike make it nearly
    singular: then a little more is put on its diagonal, and at last an EM step takes its place.
    """
    for ridge in (1e-10, 1e-8, 1e-6):
        hessian.flat[:: len(x) + 1] *= 1 + ridge
        try:
            return nonnegative_minimum(hessian, hessian @ x + g - 1, x)
        except np.linalg.LinAlgError:
            continue
    return x * g


def nonnegative_minimum(h: np.ndarray, b: np.ndarray, start: np.ndarray) -> np.ndarray:
    """argmin y'hy/2 - b'y over y >= 0, (R,), by the active-set method of Lawson and Hanson from a
    feasible start.

    h (R, R) is positive definite; raises numpy.linalg.LinAlgError where it is singular.

    >>> nonnegative_minimum(np.eye(2), np.array([1.0, -1.0]), np.array([0.5, 0.5])).tolist()
    [1.0, 0.0]
    """
    y = start
    free = start.nonzero()[0]
    for _ in range(3 * len(b)):
        if not len(free):
            raise np.linalg.LinAlgError("nothing is left of the start")
        # the minimum with all others at 0, of any sign
        if len(free) == len(b):
            part = np.linalg.solve(h, b)
            target = part
        else:
            part = np.linalg.solve(h[free[:, None], free], b[free])
            target = np.zeros(len(b))
            target[free] = part
        least = part.min()
        if not math.isfinite(least):
            raise np.linalg.LinAlgError("singular")
        if least > 0:
            y = target
            if len(free) == len(b):
                break
            # free the one that would lower the value fastest, if any would
            pull = b - h @ y
            pull[free] = 0
            t = pull.argmax()
            if pull[t] <= 1e-12:
                break
            free = np.sort(np.append(free, t))
        else:
            # as far as the first expert that would turn negative
            falling = free[part <= 0]
            drop = np.maximum(y[falling] - target[falling], 1e-300)
            share = (y[falling] / drop).min()
            y = y + share * (target - y)
            y[y < 1e-15] = 0
            free = y.nonzero()[0]
    return y


# --- the line search that ends a step ---


def _search(
    table: Table, x: np.ndarray, f: float, g: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """From x towards y until f has risen by a share of what its slope promises: the point reached,
    with its f and g. One EM step follows a shortened step, and takes its place where none helps."""
    f_reached, g_reached, largest = table.evaluate(y)
    if not largest <= 2:
        y = y + (x - y) / 10  # every expert keeps a tenth, and the direction still rises
        f_reached, g_reached, _ = table.evaluate(y)
    reached = y
    slope = g @ (y - x)
    share = 1.0
    while not f_reached >= f + 0.01 * share * slope - ROUNDING:
        share /= 2
        if share < 1e-9:
            return _em_step(table, x, g)
        reached = x + share * (y - x)
        f_reached, g_reached, _ = table.evaluate(reached)
    if share == 1:
        return reached, f_reached, g_reached
    return _em_step(table, reached, g_reached)
