"""The reference set: its answers against other solvers and closed forms, and what becomes of
solvers that fail."""

import csv
import math
import os
import threading
from multiprocessing import Pipe

import numpy as np
import pytest

import expertbank as eb
from expertbank._files import read_arrays
from expertbank.cli import main
from expertbank.shipped.bench import OUR_SOLVER, OUTCOMES, _serve, bench, bench_csv
from expertbank.shipped.manifest import data_folder, read_json
from expertbank.shipped.reference import (
    CERTIFIED_TO,
    PROBLEMS,
    TABLES,
    judge_answer,
    load_reference,
)

REFERENCE = load_reference()
BY_NAME = {problem.name: problem for problem in REFERENCE}
SMALL = [problem for problem in REFERENCE if problem.losses.size <= 3_000]
# a solver of each way to fail, and one that hands over a gate
SOLVERS = """
import os, time
import numpy as np

def loud(losses, lam, weights):
    print("not a row")
    return np.eye(losses.shape[1])[0]

def hangs(losses, lam, weights):
    if len(losses) == 8:
        time.sleep(60)
    return np.full(losses.shape[1], 1 / losses.shape[1])

def crashes(losses, lam, weights):
    if len(losses) == 8:
        os._exit(3)
    return np.full(losses.shape[1], 1 / losses.shape[1])

def raises(losses, lam, weights):
    raise RuntimeError("no\\nidea")

def talks(losses, lam, weights):
    return "the uniform one"

def spoils(losses, lam, weights):
    losses[:] = 0
    weights[:] = np.nan
    return np.full(losses.shape[1], 1 / losses.shape[1])

nothing = 3
"""


@pytest.fixture
def solvers(tmp_path, monkeypatch):
    (tmp_path / "some_solvers.py").write_text(SOLVERS)
    monkeypatch.chdir(tmp_path)


def shannon(n, distortion):
    """R(D) of n equally likely symbols with Hamming loss."""
    d = np.float64(distortion)
    return float(np.log(n) + d * np.log(d / (n - 1)) + (1 - d) * np.log1p(-d))


def test_there_are_many_kinds_of_problem_and_few_bytes():
    assert len(REFERENCE) == len(BY_NAME) >= 30
    families = {problem.record["family"] for problem in REFERENCE}
    assert families >= {"closed form", "source", "deconvolution", "ties and copies", "bank"}
    assert sum(path.stat().st_size for path in (data_folder() / "reference").iterdir()) < 500_000
    arrays = read_arrays(data_folder() / "reference" / TABLES)
    assert {name.removesuffix(".weights") for name in arrays} <= set(BY_NAME)


@pytest.mark.parametrize("problem", REFERENCE, ids=lambda problem: problem.name)
def test_two_methods_certify_every_answer(problem):
    """As the record keeps them, and by what the numbers say of each other."""
    kept = problem.record["certified_by"]
    good = [
        row["method"]
        for row in kept
        if row["difference"] <= CERTIFIED_TO and row.get("certificate", 0) <= CERTIFIED_TO
    ]
    assert len(good) >= 2 and "80-bit Newton" in good
    assert problem.record["certificate"] <= 1e-15
    assert problem.lagrangian == pytest.approx(
        problem.distortion + problem.lam * problem.rate, abs=1e-12
    )
    found = judge_answer(problem, problem.record["marginal"])
    assert found.gap < CERTIFIED_TO
    if problem.is_unique:
        assert found.rate == pytest.approx(problem.rate, abs=CERTIFIED_TO)
        assert found.distortion == pytest.approx(problem.distortion, abs=CERTIFIED_TO)


@pytest.mark.parametrize("problem", SMALL, ids=lambda problem: problem.name)
def test_the_library_finds_them_again(problem):
    point = eb.rate_distortion(problem.losses, problem.lam, problem.weights, tol=1e-12)
    assert judge_answer(problem, point).gap < CERTIFIED_TO
    if problem.is_unique:
        assert point.rate == pytest.approx(problem.rate, abs=CERTIFIED_TO)
        assert point.distortion == pytest.approx(problem.distortion, abs=CERTIFIED_TO)


@pytest.mark.parametrize(
    "name", ["hamming-2-0.1", "hamming-2-0.49", "hamming-8-0.2", "hamming-64-0.5"]
)
def test_hamming_problems_are_shannons(name):
    _, n, distortion = name.split("-")
    assert BY_NAME[name].distortion == pytest.approx(float(distortion), abs=1e-12)
    assert BY_NAME[name].rate == pytest.approx(shannon(int(n), distortion), abs=1e-12)


def test_copies_and_repeated_inputs_change_nothing():
    for name in ("copies", "equal-rows"):
        assert BY_NAME[name].rate == pytest.approx(BY_NAME["originals"].rate, abs=CERTIFIED_TO)
        assert BY_NAME[name].lagrangian == pytest.approx(
            BY_NAME["originals"].lagrangian, abs=CERTIFIED_TO
        )


def test_another_solver_agrees_on_a_bank():
    """SLSQP, which the set was not made with."""
    from scipy.optimize import minimize

    problem = BY_NAME["mnist-2000-5"]
    kernel = np.exp(-problem.losses / problem.lam)
    r = kernel.shape[1]

    def value(x):
        z = kernel @ x
        return -problem.weights @ np.log(z), -(problem.weights / z) @ kernel

    found = minimize(
        value, np.full(r, 1 / r), jac=True, method="SLSQP", bounds=[(0, 1)] * r,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    assert problem.lam * found.fun == pytest.approx(problem.lagrangian, abs=CERTIFIED_TO)


# --- the judge ---


def test_a_gate_is_judged_as_it_is():
    problem = BY_NAME["hamming-8-0.2"]
    best = eb.routing(problem.losses, eb.rate_distortion(problem.losses, problem.lam))
    assert judge_answer(problem, best).gap < 1e-12
    worse = judge_answer(problem, np.eye(8))
    assert worse.rate == pytest.approx(np.log(8)) and worse.distortion == 0
    assert worse.gap == pytest.approx(np.log(8) - problem.lagrangian / problem.lam)


def test_at_price_0_a_loss_above_the_floor_is_no_answer():
    assert judge_answer(BY_NAME["no-loss"], np.full((5, 5), 0.2)).gap == math.inf
    assert judge_answer(BY_NAME["no-loss"], np.eye(5)).gap < 1e-12


def test_the_smallest_floats_are_shares_like_others():
    """A share of 1e-320 does not make the rate infinite, and 1e300 times too much loss is seen."""
    problem = BY_NAME["mixture"]
    shares = np.asarray(problem.record["marginal"])
    exact = judge_answer(problem, shares)
    tiny = judge_answer(problem, np.where(shares > 0, shares, 1e-320))
    assert tiny.gap == pytest.approx(exact.gap, abs=1e-12) and np.isfinite(tiny.rate)
    alone = judge_answer(problem, np.eye(len(shares))[0])
    assert alone.rate < 1e-12 and alone.gap > 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([0.5, 0.6], "off 1 by 0.1"),
        ([1.5, -0.5], "a share of -0.5"),
        ([float("nan"), 1], "not finite"),
        ([1.0], "allowed are"),
        ("uniform", "returned str"),
        (None, "shape"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(answer, said):
    with pytest.raises(ValueError, match=said) as error:
        judge_answer(BY_NAME["hamming-2-0.1"], answer)
    assert "\n" not in str(error.value)


# --- any solver ---

FEW = ["hamming-2-0.1", "hamming-8-0.2", "near-critical"]


@pytest.mark.parametrize(
    ("name", "outcomes"),
    [
        ("loud", ["missed", "missed", "missed"]),
        ("hangs", ["solved", "late", "missed"]),
        ("crashes", ["solved", "crashed", "missed"]),
        ("raises", ["raised", "raised", "raised"]),
        ("talks", ["nonsense", "nonsense", "nonsense"]),
        ("spoils", ["solved", "solved", "missed"]),
    ],
)
def test_every_failure_is_a_row(name, outcomes, solvers, capfd):
    rows = list(bench(f"some_solvers:{name}", FEW, limit=3))
    assert [row.outcome for row in rows] == outcomes
    assert [row.problem for row in rows] == FEW
    assert set(outcomes) <= set(OUTCOMES)
    assert capfd.readouterr().out == ""
    for row in rows:
        assert "\n" not in row.note
        assert bool(row.note) == (row.outcome not in ("solved", "missed"))
        assert math.isnan(row.gap) == bool(row.note)
        assert row.outcome != "solved" or row.gap <= 1e-9
    read = list(csv.DictReader(bench_csv(rows).splitlines()))
    assert [row["outcome"] for row in read] == outcomes


def test_the_other_process_in_this_one():
    here, there = Pipe()
    problem = BY_NAME["hamming-8-0.2"]
    other = threading.Thread(target=_serve, args=(OUR_SOLVER, str(os.dup(there.fileno()))))
    other.start()
    there.close()
    assert here.recv() == "ready"
    here.send((problem.losses, problem.lam, problem.weights, 1.0))
    seconds, answer, error = here.recv()
    assert error is None and seconds > 0 and judge_answer(problem, answer).gap < 1e-9
    here.send((problem.losses, "dear", problem.weights, 1.0))
    _, answer, error = here.recv()
    assert answer is None and error.startswith("ValueError: lam is 'dear'")
    here.close()
    other.join(10)
    assert not other.is_alive()


def test_the_command(capsys, tmp_path, solvers):
    assert main(["bench", "--problem", *FEW, "--csv", "rows.csv"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in out[1:-1]] == [[name, "solved"] for name in FEW]
    assert out[-1].startswith("3 of 3 solved, in ")
    assert (tmp_path / "rows.csv").read_text().count("\n") == 4
    assert main(["bench", "some_solvers:raises", "--problem", FEW[0]]) == 1
    assert "RuntimeError: no idea" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["some_solvers"], "allowed is module:function"),
        (["some_solvers:absent"], "cannot be loaded"),
        (["no_such_module:f"], "No module named"),
        (["some_solvers:nothing"], "is int; allowed is a function"),
        (["--problem", "bsc"], "no problem is called 'bsc'; allowed are hamming-2-0.1"),
        (["--limit", "0"], "limit is 0"),
        (["--tol", "nan"], "tol is nan"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, solvers, capsys):
    assert main(["bench", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_what_is_stated_is_readable_without_the_library():
    """The fields that the documentation names, in plain JSON and NumPy."""
    folder = data_folder() / "reference"
    stated = read_json(folder / PROBLEMS)
    fields = {"name", "family", "what", "lam", "rate", "distortion", "lagrangian", "unique"}
    fields |= {"certificate", "certified_by", "marginal", "inputs", "experts", "distinct_rows"}
    arrays = np.load(folder / TABLES, allow_pickle=False)
    for record in stated["problems"]:
        assert set(record) - {"bank"} == fields
        if "bank" not in record:
            assert arrays[record["name"]].shape == (record["inputs"], record["experts"])
