"""Solvers of other papers, as `expertbank bench` calls them: solver(losses, lam, weights).

    cd benchmarks && expertbank bench paper_peers:constrained_blahut_arimoto --limit 10

Every one is a short implementation of ours from the paper's description, in NumPy, on merged rows;
their authors would tune them better. They stop at a certificate of 1e-9 nats, or after `SECONDS`
with the best marginal that they have seen: what is measured then is their gap after that time.

Two of them solve for a target distortion in place of a price. They are given the certified one of
the problem, which only a reference set can do. QICS is a package, and called as it is documented.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
from peers import clarabel as solve_by_cones
from peers import lbfgsb, slsqp, task_of
from scipy.optimize import brentq

from expertbank.shipped.reference import load_reference

REFERENCE = load_reference()
SECONDS = float(os.environ.get("PEER_SECONDS", "2"))
TOL = 1e-9
# inverse prices above it are infinite to them
LARGEST_INVERSE = 1e9


class Kernel:
    """Distinct rows of a table, and the kernel of a price."""

    def __init__(self, losses, lam, weights):
        excess = losses - losses.min(axis=1, keepdims=True)
        rows, of_row = np.unique(excess, axis=0, return_inverse=True)
        self.excess = rows
        self.weights = np.bincount(of_row.ravel(), weights, len(rows))
        self.floor = float(weights @ losses.min(axis=1))
        self.lam = lam
        self.kernel = np.exp(-rows / lam) if lam > 0 else (rows == 0).astype(float)

    def gradient(self, x):
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.weights / (self.kernel @ x)) @ self.kernel

    def objective(self, x):
        with np.errstate(divide="ignore"):
            return float(self.weights @ np.log(self.kernel @ x))


def best_of(problem: Kernel, iterates: Iterator[np.ndarray]) -> np.ndarray:
    """The first marginal that is certified, or the best of those that time allows. Looking at one
    costs as much as a step of Blahut-Arimoto, so that later ones are looked at less often."""
    deadline = time.perf_counter() + SECONDS
    best = (np.inf, np.full(problem.kernel.shape[1], 1 / problem.kernel.shape[1]))
    seen = 0
    look = 1
    for x in iterates:
        seen += 1
        late = time.perf_counter() > deadline
        if seen < look and not late:
            continue
        look = max(seen + 1, int(1.1 * seen))
        x = np.maximum(x, 0) / np.maximum(x, 0).sum()
        gap = np.log(problem.gradient(x).max())
        if gap < best[0]:
            best = (gap, x)
        if gap <= TOL or late or not np.isfinite(x).all():
            break
    return best[1]


def uniform(problem: Kernel) -> np.ndarray:
    return np.full(problem.kernel.shape[1], 1 / problem.kernel.shape[1])


# --- Blahut-Arimoto, plain and squared ---


def blahut_arimoto(losses, lam, weights):
    """Blahut and Arimoto (1972), P2 (28)-(29)."""
    problem = Kernel(losses, lam, weights)

    def iterates():
        x = uniform(problem)
        while True:
            yield x
            x = x * problem.gradient(x)

    return best_of(problem, iterates())


def squared_extrapolation(losses, lam, weights):
    """The same, two steps at a time extrapolated (Varadhan and Roland, 2008, their third scheme),
    kept where the objective rises."""
    problem = Kernel(losses, lam, weights)

    def iterates():
        x = uniform(problem)
        while True:
            x_before = x
            first = x * problem.gradient(x)
            yield first
            second = first * problem.gradient(first)
            change = first - x
            bend = second - first - change
            length = np.linalg.norm(bend)
            x = second
            if length > 0:
                stride = -max(np.linalg.norm(change) / length, 1.0)
                far = x_before - 2 * stride * change + stride**2 * bend
                far = np.maximum(far, second / 100)
                far /= far.sum()
                if problem.objective(far) > problem.objective(second):
                    x = far

    return best_of(problem, iterates())


# --- with a target distortion ---


def target_excess(losses, lam, weights, problem: Kernel) -> float:
    """The certified distortion of a reference problem, above the floor."""
    for known in REFERENCE:
        if (
            known.lam == lam
            and known.losses.shape == losses.shape
            and (known.losses == losses).all()
        ):
            return max(0.0, known.distortion - problem.floor)
    raise ValueError("no problem of the reference set has this table and this price")


def inverse_price(mean_excess, target, start):
    """The inverse price at which a decreasing mean excess, with its slope, meets a target: by
    Newton's method, as both papers have it, and from a bracket where that leads nowhere."""
    inverse = start
    for _ in range(15):
        value, slope = mean_excess(inverse)
        if abs(value - target) <= 1e-14 * max(target, 1e-3):
            return inverse
        if not slope < 0:
            break
        inverse -= (value - target) / slope
        if not 0 <= inverse < LARGEST_INVERSE:
            break
    if mean_excess(0.0)[0] <= target:
        return 0.0
    high = max(start, 1e-3)
    while mean_excess(high)[0] > target:
        high *= 2
        if high > LARGEST_INVERSE:
            return LARGEST_INVERSE
    return brentq(lambda s: mean_excess(s)[0] - target, 0.0, high, xtol=1e-14, rtol=1e-14)


def constrained_blahut_arimoto(losses, lam, weights):
    """Chen et al., arXiv 2305.02650: a step of Blahut-Arimoto at the inverse price at which its own
    gate has the target distortion, found anew in each step."""
    problem = Kernel(losses, lam, weights)
    target = target_excess(losses, lam, weights, problem)

    def iterates():
        x = uniform(problem)
        inverse = 1.0

        def gate_at(s, shares):
            gate = shares * np.exp(-s * problem.excess)
            return gate / gate.sum(axis=1, keepdims=True)

        while True:
            yield x

            def mean_excess(s, shares=x):
                gate = gate_at(s, shares)
                means = (gate * problem.excess).sum(axis=1)
                squares = (gate * problem.excess**2).sum(axis=1)
                return problem.weights @ means, problem.weights @ (means**2 - squares)

            inverse = inverse_price(mean_excess, target, inverse)
            x = problem.weights @ gate_at(inverse, x)

    return best_of(problem, iterates())


def communication_transport(losses, lam, weights):
    """CommOT: Wu et al., arXiv 2212.10098. One sweep of Sinkhorn for the scalings of rows and
    columns, the inverse price that meets the target, then the column sums from the multipliers."""
    problem = Kernel(losses, lam, weights)
    target = target_excess(losses, lam, weights, problem)
    excess = problem.excess
    own = problem.weights

    def iterates():
        x = uniform(problem)
        inverse = 0.0
        rows = np.ones(len(excess))
        while True:
            yield x
            kernel = np.exp(-inverse * excess)
            columns = 1 / np.maximum((rows * own) @ kernel, 1e-300)
            rows = 1 / np.maximum(kernel @ (columns * x), 1e-300)

            def mean_excess(s, left=rows * own, right=columns * x):
                part = excess * np.exp(-s * excess)
                return left @ part @ right, -left @ (excess * part) @ right

            inverse = inverse_price(mean_excess, target, inverse)
            kernel = np.exp(-inverse * excess)
            mass = columns * x * ((rows * own) @ kernel)
            beta = -np.log(columns) - 0.5
            least = beta.max()

            def surplus(eta, mass=mass, beta=beta):
                return (mass / (eta - beta)).sum() - 1

            high = least + len(x)
            low = least + 1e-12
            eta = low if surplus(low) <= 0 else brentq(surplus, low, high, xtol=1e-15)
            x = mass / (eta - beta)

    return best_of(problem, iterates())


# --- a path, a mirror, cones ---

PATH_STEPS = 300
REPAIRS = 3
GONE = 1e-7


def root_tracking(losses, lam, weights):
    """Agmon, arXiv 2206.11369, with first derivatives alone (the paper takes higher ones): the
    fixed point of Blahut-Arimoto is followed from a cheap nat up to the price, by the implicit
    derivative in the inverse price, experts leave where their shares vanish, and a few steps of
    Blahut-Arimoto repair each stride; at the end these go on alone."""
    problem = Kernel(losses, lam, weights)
    spread = problem.excess.max()
    if lam == 0 or spread == 0:
        return blahut_arimoto(losses, lam, weights)

    def iterates():
        first = min(lam, 0.02 * spread)
        x = uniform(problem)
        inverses = np.geomspace(1 / first, 1 / lam, PATH_STEPS)
        for step, inverse in enumerate(inverses):
            problem.kernel = np.exp(-inverse * problem.excess)
            for _ in range(REPAIRS if step else 200):
                x = x * problem.gradient(x)
            x = np.where(x > GONE, x, 0)
            x /= x.sum()
            if step + 1 < len(inverses):
                x = x + (inverses[step + 1] - inverse) * path_slope(problem, x)
                x = np.maximum(x, 0)
        x = np.maximum(x, GONE / 100)  # those that left may come back
        x /= x.sum()
        while True:
            yield x
            x = x * problem.gradient(x)

    return best_of(problem, iterates())


def path_slope(problem: Kernel, x: np.ndarray) -> np.ndarray:
    """dx / d(inverse price) of the optimum among the experts in use, on the simplex: H dx = dg."""
    used = x > 0
    kernel = problem.kernel[:, used]
    z = kernel @ x[used]
    bend = -problem.excess[:, used] * kernel
    own = problem.weights
    hessian = (kernel * (own / z**2)[:, None]).T @ kernel
    moved = (own / z) @ bend - (own / z**2 * (bend @ x[used])) @ kernel
    slope = np.zeros(len(x))
    slope[used] = np.linalg.lstsq(hessian, moved, rcond=1e-12)[0]
    return slope - used * slope.sum() / used.sum()


STRIDE = 1.8


def generalised_arimoto(losses, lam, weights):
    """Hayashi's generalised Arimoto-Blahut iteration (arXiv 2408.05454) at a fixed price: the gate
    times exp(-stride * gradient of the Lagrangian), where stride 1 is Blahut-Arimoto; ours takes
    1.8 while the Lagrangian falls, and 1 where it would rise. The paper's own point, a step that
    meets linear constraints without a minimisation, is not needed at a fixed price."""
    problem = Kernel(losses, lam, weights)
    with np.errstate(divide="ignore"):
        cost = -np.log(problem.kernel)

    def iterates():
        x = uniform(problem)
        gate = np.tile(x, (len(cost), 1))
        value = np.inf
        while True:
            shares = problem.weights @ gate
            yield shares
            with np.errstate(divide="ignore", invalid="ignore"):
                lagrangian = gate * (np.log(gate / shares) + cost)
                now = float(problem.weights @ np.where(gate > 0, lagrangian, 0).sum(axis=1))
                stride = STRIDE if now <= value else 1.0
                value = now
                logs = (1 - stride) * np.log(np.maximum(gate, 1e-300)) + stride * (
                    np.log(shares) - cost
                )
            logs = np.where(np.isnan(logs), -np.inf, logs)
            gate = np.exp(logs - logs.max(axis=1, keepdims=True))
            gate /= gate.sum(axis=1, keepdims=True)

    return best_of(problem, iterates())


def qics(losses, lam, weights):
    """QICS: t >= sum_i w_i log(w_i / (K x)_i), the cone of classical relative entropy, tolerances
    of 1e-11."""
    import qics as package

    problem = Kernel(losses, lam, weights)
    n, r = problem.kernel.shape
    cost = np.zeros((r + 1, 1))
    cost[0] = 1
    simplex = np.ones((1, r + 1))
    simplex[0, 0] = 0
    rows = np.zeros((r + 1 + 2 * n, r + 1))
    rows[:r, 1:] = -np.eye(r)
    rows[r, 0] = -1
    rows[r + 1 + n :, 1:] = -problem.kernel
    right = np.zeros((r + 1 + 2 * n, 1))
    right[r + 1 : r + 1 + n, 0] = problem.weights
    cones = [package.cones.NonNegOrthant(r), package.cones.ClassRelEntr(n)]
    model = package.Model(c=cost, A=simplex, b=np.ones((1, 1)), G=rows, h=right, cones=cones)
    how = dict(verbose=0, tol_gap=1e-11, tol_feas=1e-11, max_time=SECONDS)
    x = package.Solver(model, **how).solve()["x_opt"].ravel()[1:]
    return np.maximum(x, 0) / np.maximum(x, 0).sum()


def clarabel(losses, lam, weights):
    """cvxpy and CLARABEL at tolerances of 1e-12, as in `peers`."""
    x = solve_by_cones(_task(losses, lam, weights), lam or 1e-3, time.perf_counter() + SECONDS).x
    return x / x.sum()


def sequential_quadratic(losses, lam, weights):
    """SciPy's SLSQP on merged rows, as in `peers`."""
    x = slsqp(_task(losses, lam, weights), lam or 1e-3, time.perf_counter() + SECONDS).x
    return x / x.sum()


def quasi_newton(losses, lam, weights):
    """SciPy's L-BFGS-B on merged rows, as in `peers`."""
    x = lbfgsb(_task(losses, lam, weights), lam or 1e-3, time.perf_counter() + SECONDS).x
    return x / x.sum()


def _task(losses, lam, weights):
    problem = Kernel(losses, lam, weights)
    task = task_of("merged", problem.excess)
    task.rows = problem.excess
    task.weights = problem.weights
    return task
