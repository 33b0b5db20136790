"""Any solver, given as a Python callable, on the reference set: time, gap, failures.

A solver is a function ::

    solver(losses, lam, weights) -> marginal

of a table of losses (N, R), a price lam >= 0 of a nat and weights (N,) of the inputs that sum to 1.
It returns the shares (R,) of the experts, or a gate (N, R), or anything with a `marginal` (R,): one
that minimises E[loss] + lam I(X;T). It runs in a process of its own, so that one that hangs or
crashes is a row of the outcome too.
"""

from __future__ import annotations

import csv
import importlib
import io
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import astuple, dataclass, fields
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from expertbank._checks import ABOVE_0, BELOW_INF, as_number
from expertbank._files import one_line
from expertbank.rate_distortion import RateDistortion, rate_distortion
from expertbank.shipped.reference import ReferenceProblem, judge_answer, load_reference

OUR_SOLVER = "expertbank.shipped.bench:ours"
# until a process has loaded a solver
START_SECONDS = 60.0
# runs of one problem, of which the median counts, while they take no longer together
MOST_RUNS = 5
RUNS_SECONDS = 0.2
LONGEST_NOTE = 100

# what may become of a problem
OUTCOMES = ("solved", "missed", "raised", "nonsense", "late", "crashed")


@dataclass(frozen=True)
class BenchRow:
    """What a solver did on one problem."""

    problem: str
    outcome: str
    """one of `OUTCOMES`: solved to the tolerance; missed it; raised; returned what is no marginal
    or gate; ran past the limit; ended its process"""
    seconds: float
    """median of up to five runs; NaN where none ended"""
    gap: float
    """nats above the certified minimum, as `ReferenceScore.gap`; NaN where nothing can be judged"""
    rate: float
    """nats"""
    distortion: float
    note: str
    """what is wrong with a failure, in one line"""


def ours(losses: np.ndarray, lam: float, weights: np.ndarray) -> RateDistortion:
    """`rate_distortion` as the others are called: what is measured where nobody names another.

    >>> point = ours(np.array([[0.0, 1.0], [1.0, 0.0]]), 0.5, np.array([0.5, 0.5]))
    >>> point.marginal.tolist()
    [0.5, 0.5]
    """
    return rate_distortion(losses, lam, weights)


def bench(
    solver: str = OUR_SOLVER,
    problems: Sequence[str] | None = None,
    *,
    limit: float = 10.0,
    tol: float = 1e-9,
) -> Iterator[BenchRow]:
    """Run a solver, `module:function` as one would import it from here, on problems of the
    reference set (names; default: all), for at most `limit` seconds each, and judge it by `tol`
    nats: a row for each problem, as they end.

    Raises ValueError for a solver that cannot be loaded, another name, limit or tolerance.

    >>> [row] = bench(problems=["hamming-8-0.2"])
    >>> row.outcome, row.gap < 1e-9, row.seconds < 10
    ('solved', True, True)
    """
    limit = as_number(limit, "limit", ABOVE_0, BELOW_INF, allowed="a positive number of seconds")
    tol = as_number(tol, "tol", ABOVE_0, BELOW_INF, allowed="a positive number of nats")
    known = {problem.name: problem for problem in load_reference()}
    names = list(known) if problems is None else list(problems)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no problem is called {unknown[0]!r}; allowed are {', '.join(known)}")
    find_solver(solver)
    return _rows(solver, [known[name] for name in names], limit, tol)


def find_solver(name: str) -> Callable[..., Any]:
    """The function that `module:function` names, as one would import it from here.

    >>> find_solver("expertbank.shipped.bench:ours") is ours
    True
    """
    module, _, path = name.partition(":")
    if not module or not path:
        raise ValueError(f"solver is {name!r}; allowed is module:function")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ValueError(f"solver {name} cannot be loaded: {one_line(error)}") from error
    if not callable(found):
        raise ValueError(f"solver {name} is {type(found).__name__}; allowed is a function")
    return found


def bench_csv(rows: Sequence[BenchRow]) -> str:
    """Rows as a csv file with a header.

    >>> bench_csv([BenchRow("bit", "late", 10.0, 0.5, 0.0, 0.5, "")]).splitlines()[0]
    'problem,outcome,seconds,gap,rate,distortion,note'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(BenchRow)])
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


# --- a process that solves, and may have to be ended ---


# what the other process runs
SERVE = "import sys; from expertbank.shipped.bench import _serve; _serve(*sys.argv[1:])"


class _Worker:
    """A process that has loaded a solver."""

    def __init__(self, solver: str):
        self.pipe, other = Pipe()
        handle = other.fileno()
        command = [sys.executable, "-c", SERVE, solver, str(handle)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(command, pass_fds=[handle], env=environment)
        other.close()
        try:
            is_there = self.pipe.poll(START_SECONDS)
            if is_there:
                self.pipe.recv()
        except EOFError:
            is_there = False
        if not is_there:
            self.end()
            raise ValueError(f"solver {solver} was not loaded within {START_SECONDS:g} seconds")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()


def _rows(
    solver: str, problems: list[ReferenceProblem], limit: float, tol: float
) -> Iterator[BenchRow]:
    worker = None
    try:
        for problem in problems:
            if worker is None:
                worker = _Worker(solver)
            row = _one_row(worker, problem, limit, tol)
            if row.outcome in ("late", "crashed"):
                worker.end()
                worker = None
            yield row
    finally:
        if worker is not None:
            worker.end()


def _one_row(worker: _Worker, problem: ReferenceProblem, limit: float, tol: float) -> BenchRow:
    try:
        worker.pipe.send((problem.losses, problem.lam, problem.weights, limit))
        if not worker.pipe.poll(limit):
            return _failure(problem, "late", f"no answer in {limit:g} s")
        seconds, answer, error = worker.pipe.recv()
    except (EOFError, OSError):
        status = worker.process.wait()
        return _failure(problem, "crashed", f"its process ended with status {status}")
    if error is not None:
        return _failure(problem, "raised", error)
    try:
        found = judge_answer(problem, answer)
    except ValueError as error:
        return _failure(problem, "nonsense", one_line(error, LONGEST_NOTE), seconds)
    outcome = "solved" if found.gap <= tol else "missed"
    return BenchRow(problem.name, outcome, seconds, found.gap, found.rate, found.distortion, "")


def _failure(
    problem: ReferenceProblem, outcome: str, note: str, seconds: float = math.nan
) -> BenchRow:
    return BenchRow(problem.name, outcome, seconds, math.nan, math.nan, math.nan, note)


def _serve(solver: str, handle: str) -> None:
    """In a process of its own: load the solver, then solve what comes through the pipe with this
    handle, until it is closed. What the solver prints is no part of the outcome."""
    pipe: Connection = Connection(int(handle))
    with redirect_stdout(sys.stderr):
        solve = find_solver(solver)
        pipe.send("ready")
        is_first = True
        while True:
            try:
                losses, lam, weights, limit = pipe.recv()
            except EOFError:
                return
            try:
                if is_first:  # what it imports or compiles then is not timed
                    solve(losses.copy(), lam, weights.copy())
                is_first = False
                pipe.send((*_timed(solve, losses, lam, weights, limit), None))
            except Exception as error:
                said = one_line(f"{type(error).__name__}: {error}", LONGEST_NOTE)
                pipe.send((math.nan, None, said))


def _timed(
    solve: Callable[..., Any], losses: np.ndarray, lam: float, weights: np.ndarray, limit: float
) -> tuple[float, Any]:
    """Median seconds, and the answer as something that travels. Each run gets arrays of its own."""
    times = []
    while True:
        own = losses.copy(), lam, weights.copy()
        start = time.perf_counter()
        answer = solve(*own)
        times.append(time.perf_counter() - start)
        if len(times) == MOST_RUNS or sum(times) > min(RUNS_SECONDS, limit / 4):
            break
    answer = getattr(answer, "marginal", answer)
    try:
        answer = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        answer = type(answer).__name__  # the judge says that this is nothing
    return statistics.median(times), answer
