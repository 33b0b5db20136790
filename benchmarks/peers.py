"""What a user would pick otherwise to maximise sum_i w_i log (K x)_i over the simplex of experts,
and how we judge it.

A task is a table with its equal rows merged. Every solver takes (task, lam, deadline) and returns
an `Answer`; its clock includes the kernel K of the price, which ours builds too. Where the deadline
passes it hands over the best x it has seen. Every x, ours too, is judged by `certificate`: on the
raw table, over all experts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import numpy as np

from expertbank import rate_distortion
from expertbank.tables import merge_rows

# rows in one piece of a table that is too large for another copy
PIECE = 1 << 16


@dataclass
class Task:
    """A loss table (N, R) and its distinct rows (U, R) with their weights (U,), shifted to least
    loss 0."""

    name: str
    losses: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    merging_seconds: float

    @property
    def merged(self) -> bool:
        return len(self.rows) < len(self.losses)


@dataclass
class Answer:
    """A marginal x (R,), the solver's own steps, and whether time ran out."""

    x: np.ndarray
    steps: int
    capped: bool = False
    note: str = ""


class TimeUp(Exception):
    pass


def task_of(name: str, losses: np.ndarray) -> Task:
    start = time.perf_counter()
    signed = losses.astype(float) if losses.dtype.kind in "bui" else losses
    minima = signed.min(axis=1, keepdims=True)
    weights = np.full(len(losses), 1 / len(losses))
    rows, weights, _ = merge_rows(signed - minima if minima.any() else signed, weights)
    return Task(name, losses, rows, weights, time.perf_counter() - start)


def synthetic_pieces(inputs: int, experts: int, dtype=np.float64):
    """Real-valued losses: an expert's quality, uniform on [0, 1], plus normal noise; no two rows
    are equal."""
    rng = np.random.default_rng(0)
    quality = rng.uniform(size=experts).astype(dtype)
    for start in range(0, inputs, PIECE):
        piece = rng.standard_normal((min(PIECE, inputs - start), experts), dtype=dtype)
        piece += quality
        yield start, piece


def synthetic(inputs: int, experts: int) -> np.ndarray:
    losses = np.empty((inputs, experts))
    for start, piece in synthetic_pieces(inputs, experts):
        losses[start : start + len(piece)] = piece
    return losses


def write_synthetic(path, inputs: int, experts: int) -> None:
    """The same kind of table in single precision as a .npy file, never whole in memory."""
    header = dict(
        descr=np.lib.format.dtype_to_descr(np.dtype(np.float32)),
        fortran_order=False,
        shape=(inputs, experts),
    )
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, piece in synthetic_pieces(inputs, experts, np.float32):
            piece.tofile(file)


def certificate(losses: np.ndarray, lam: float, x: np.ndarray) -> float:
    """log max_t g_t of a marginal: how far f(x) may be below its maximum, in nats, on the raw
    table."""
    x = np.maximum(x, 0) / np.maximum(x, 0).sum()
    g = np.zeros(len(x))
    for start in range(0, len(losses), PIECE):
        kernel = kernel_of(losses[start : start + PIECE].astype(float), lam)
        with np.errstate(divide="ignore"):  # an input without an expert: infinitely far
            g += (1 / (kernel @ x)) @ kernel
    return max(0.0, float(np.log(g.max() / len(losses))))


def kernel_of(rows: np.ndarray, lam: float) -> np.ndarray:
    kernel = rows - rows.min(axis=1, keepdims=True)
    kernel /= -lam
    return np.exp(kernel, out=kernel)


# --- ours ---


def ours(task: Task, lam: float, deadline=None, tol: float = 1e-9) -> Answer:
    point = rate_distortion(task.losses, lam, tol=tol)
    return Answer(point.marginal, int(point.iterations))


def ours_on_merged_rows(task: Task, lam: float, deadline=None, tol: float = 1e-9) -> Answer:
    point = rate_distortion(task.rows, lam, task.weights, tol=tol)
    return Answer(point.marginal, int(point.iterations))


# --- Blahut-Arimoto ---


def paper_blahut_arimoto(
    task: Task, lam: float, deadline: float, tol: float = 1e-9, max_iters=10**9
) -> Answer:
    """P2 (28)-(29) on the full table: the gate p(t|x), then its marginal; log-safe, as row minima
    are taken off."""
    kernel = kernel_of(task.losses.astype(float), lam)
    return blahut_arimoto(kernel, np.full(len(kernel), 1 / len(kernel)), deadline, tol, max_iters)


def merged_blahut_arimoto(
    task: Task, lam: float, deadline: float, tol: float = 1e-9, max_iters=10**9
) -> Answer:
    """The same iteration, so the same number of steps, on distinct rows."""
    return blahut_arimoto(kernel_of(task.rows, lam), task.weights, deadline, tol, max_iters)


def blahut_arimoto(kernel, weights, deadline, tol, max_iters=10**9):
    x, gate = np.full(kernel.shape[1], 1 / kernel.shape[1]), np.empty_like(kernel)
    for step in range(1, max_iters + 1):
        np.multiply(kernel, x, out=gate)
        gate /= gate.sum(axis=1, keepdims=True)
        following = weights @ gate
        # the ratio of two marginals is the gradient: the certificate comes free
        gain = np.divide(following, x, out=np.zeros_like(x), where=x > 0).max()
        if np.log(gain) <= tol:
            return Answer(x, step)
        x = following
        if time.perf_counter() > deadline:
            return Answer(x, step, capped=True)
    return Answer(x, step)


def dit_blahut_arimoto(task: Task, lam: float, deadline: float) -> Answer:
    """dit's iteration on distinct rows from a uniform gate, until its own rule stops it (a still
    distortion).

    Its public function takes square distortions and 100 restarts; this is the loop inside, which
    takes any shape.
    """
    from dit.rate_distortion.blahut_arimoto import _blahut_arimoto as iterate

    steps = 0

    def distortion(_, gate):
        nonlocal steps
        steps += 1
        if time.perf_counter() > deadline:
            raise TimeUp(gate)
        return excess

    excess = task.rows.astype(float)
    gate = np.full(excess.shape, 1 / excess.shape[1])
    try:
        _, joint = iterate(task.weights, 1 / (lam * np.log(2)), gate, distortion, max_iters=10**9)
    except TimeUp as late:
        return Answer(task.weights @ late.args[0], steps // 2, capped=True)
    return Answer(joint.sum(axis=0), steps // 2)


def dit_public(task: Task, lam: float, deadline: float) -> Answer:
    """`dit.rate_distortion.blahut_arimoto` as it is called, one start: its alphabet of experts is
    as large as that of inputs, so the table is padded with experts that no input would take, and it
    stops after 100 steps."""
    from dit.rate_distortion.blahut_arimoto import blahut_arimoto

    n, r = task.rows.shape
    square = np.full((n, n), 1e6)
    square[:, :r] = task.rows
    _, joint = blahut_arimoto(task.weights, 1 / (lam * np.log(2)), lambda *_: square, restarts=1)
    return Answer(joint.sum(axis=0)[:r], 100, note="square, at most 100 steps")


# --- general optimisers ---


class Objective:
    """Minus f and its gradient, counting; past the deadline it gives up with the best x seen."""

    def __init__(self, task, lam, deadline):
        self.kernel, self.weights = kernel_of(task.rows, lam), task.weights
        self.deadline, self.best, self.calls = deadline, (np.inf, None), 0

    def __call__(self, x):
        self.calls += 1
        z = np.maximum(self.kernel @ x, 1e-300)
        value = -self.weights @ np.log(z)
        # what the value is once x is put back on the simplex
        if x.min() >= 0 and value + np.log(x.sum()) < self.best[0]:
            self.best = value + np.log(x.sum()), x.copy()
        if time.perf_counter() > self.deadline:
            raise TimeUp
        return value, -(self.weights / z) @ self.kernel


def slsqp(task: Task, lam: float, deadline: float, ftol: float = 1e-15) -> Answer:
    """x >= 0, sum x = 1, analytic gradients, from the uniform x."""
    from scipy.optimize import minimize

    objective, n = Objective(task, lam, deadline), task.rows.shape[1]
    try:
        found = minimize(
            objective, np.full(n, 1 / n), jac=True, method="SLSQP", bounds=[(0, 1)] * n,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
            options={"ftol": ftol, "maxiter": 1000},
        )  # fmt: skip
    except TimeUp:
        return Answer(objective.best[1], objective.calls, capped=True)
    return Answer(np.maximum(found.x, 0), found.nit, note="" if found.success else found.message)


def lbfgsb(task: Task, lam: float, deadline: float) -> Answer:
    """x >= 0 and the sum as a price: -f(x) + sum x has the same optimum, on the simplex by
    itself."""
    from scipy.optimize import minimize

    objective, n = Objective(task, lam, deadline), task.rows.shape[1]

    def priced(x):
        value, gradient = objective(x)
        return value + x.sum(), gradient + 1

    try:
        found = minimize(
            priced, np.full(n, 1 / n), jac=True, method="L-BFGS-B", bounds=[(0, None)] * n,
            options={"ftol": 0, "gtol": 1e-11, "maxiter": 10**5, "maxfun": 10**5, "maxcor": 20},
        )  # fmt: skip
    except TimeUp:
        return Answer(objective.best[1], objective.calls, capped=True)
    return Answer(found.x / found.x.sum(), found.nit, note="" if found.success else found.message)


def clarabel(task: Task, lam: float, deadline=None) -> Answer:
    """cvxpy's maximise w @ log(K x) over the simplex, with CLARABEL at tolerances of 1e-12."""
    import warnings

    import cvxpy

    x = cvxpy.Variable(task.rows.shape[1], nonneg=True)
    value = task.weights @ cvxpy.log(kernel_of(task.rows, lam) @ x)
    problem = cvxpy.Problem(cvxpy.Maximize(value), [cvxpy.sum(x) == 1])
    tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-12)
    left = max(1.0, deadline - time.perf_counter()) if deadline else 1e9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver=cvxpy.CLARABEL, time_limit=left, **tolerances)
    steps = problem.solver_stats.num_iters or 0
    if x.value is None:
        return Answer(np.full(x.size, 1 / x.size), steps, capped=True, note=problem.status)
    late = problem.status == "user_limit"
    return Answer(
        np.maximum(x.value, 0), steps, late, "" if problem.status == "optimal" else problem.status
    )


SOLVERS = {
    "ours": ours,
    "ours, merged rows": ours_on_merged_rows,
    "Blahut-Arimoto": paper_blahut_arimoto,
    "Blahut-Arimoto, merged rows": merged_blahut_arimoto,
    "dit, inner loop": dit_blahut_arimoto,
    "dit": dit_public,
    "SLSQP": slsqp,
    "SLSQP, default ftol": partial(slsqp, ftol=1e-6),
    "L-BFGS-B": lbfgsb,
    "cvxpy + CLARABEL": clarabel,
}
