"""The command line: a practitioner's own files in, numbers or one clear error out."""

import csv
import io
import re
import shutil
import subprocess
import sys

import dask.array as da
import numpy as np
import pytest

from expertbank.bounds import union_bound, xu_raginsky_bound
from expertbank.channels import bsc_distortion_rate
from expertbank.cli import main
from expertbank.ladder import bound_ladder
from expertbank.learners import simulate
from expertbank.rate_distortion import critical_lambda, rate_distortion_curve
from expertbank.shipped.manifest import REPOSITORY

HAMMING = 1 - np.eye(2)


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv"])
def test_curve_of_a_users_table_follows_the_closed_form(capsys, tmp_path, suffix):
    path = tmp_path / f"losses.{suffix}"
    if suffix == "csv":
        np.savetxt(path, HAMMING, delimiter=",")
    else:
        {"npy": np.save, "npz": np.savez}[suffix](path, HAMMING)
    code, out, _ = run(capsys, "curve", path, "--tol", "1e-9")
    rows = list(csv.DictReader(line for line in out.splitlines() if not line.startswith("#")))
    assert code == 0 and len(rows) > 10
    for row in rows:
        expected = bsc_distortion_rate(float(row["rate_nats"]))
        assert float(row["distortion"]) == pytest.approx(expected, abs=1e-6)


def test_curve_streams_and_takes_a_band_or_a_method(capsys, tmp_path):
    losses, path = np.random.default_rng(0).random((40, 4)), tmp_path / "losses.npy"
    np.save(path, losses)
    zarr = tmp_path / "losses.zarr"
    da.from_array(losses, chunks=(15, -1)).to_zarr(zarr)

    def points(*arguments):
        code, out, _ = run(capsys, "curve", *arguments)
        assert code == 0
        lines = [line for line in out.splitlines() if not line.startswith("#")]
        return out.splitlines()[0], np.array(
            [[float(x) for x in row.values()] for row in csv.DictReader(lines)]
        )

    critical, banded = points(path, "--band", 1e-3)
    assert critical == f"# critical lambda {critical_lambda(losses):.6g}"
    curve = rate_distortion_curve(losses, band=1e-3)
    np.testing.assert_allclose(banded[:, 1:3].T, [curve.rate, curve.distortion], atol=1e-7)
    there, priced = points(path, "--lam", 0.05, 0.2)
    assert there == critical
    for other in ([path, "--stream"], [zarr], [path, "--method", "blahut-arimoto"]):
        again, same = points(*other, "--lam", 0.05, 0.2)
        assert again == critical
        np.testing.assert_allclose(
            same[:, :3], priced[:, :3], atol=1e-5 if "--method" in other else 1e-7
        )


def test_rate_of_a_gate(capsys, tmp_path):
    np.save(tmp_path / "gate.npy", np.eye(4))
    code, out, _ = run(capsys, "rate", tmp_path / "gate.npy")
    assert code == 0 and out == f"I(X;T) = {np.log(4):.6f} nats\n"


def test_simulate_names_information_gap_and_bounds(capsys, tmp_path):
    np.save(tmp_path / "losses.npy", np.random.default_rng(0).integers(0, 2, (500, 3)))
    code, out, _ = run(
        capsys, "simulate", tmp_path / "losses.npy", "--datasets", 200, "--sample-size", 16
    )
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        "I(S;W)", "train, test risk", "gap", "bound", "union bound",
    ]  # fmt: skip


def test_simulate_against_another_population_gives_no_bound(capsys, tmp_path):
    losses = np.random.default_rng(0).random((200, 3))
    np.save(tmp_path / "train.npy", losses[:100])
    np.save(tmp_path / "test.npy", losses[100:])
    numbers = ("--alpha", 1, "--datasets", 200, "--sample-size", 16)
    population = ("--population", tmp_path / "test.npy")
    code, out, _ = run(capsys, "simulate", tmp_path / "train.npy", *population, *numbers)
    learner = simulate(losses[:100], 1.0, 16, 200, losses[100:])
    assert code == 0 and "no bound" in out and "union bound" not in out
    assert f"{learner.train_risk:.6f}  {learner.test_risk:.6f}" in out


def test_bounds_grow_with_the_range_of_the_losses(capsys, tmp_path):
    losses = np.random.default_rng(0).random((200, 3))
    found = []
    for scale in (1, 4):
        np.save(tmp_path / "losses.npy", scale * losses - scale + 1)
        _, out, _ = run(capsys, "simulate", tmp_path / "losses.npy", "--datasets", 200)
        found.append(float(re.search(r"union bound +([\d.]+)", out)[1]))
    assert found[1] == pytest.approx(4 * np.ptp(losses) * found[0], abs=1e-5)


def test_a_missing_extra_is_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "losses.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "dask.array", None)
    code, out, err = run(capsys, "curve", tmp_path / "losses.zarr")
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "in a checkout, `pip install -e '.[dask]'` brings it" in err


@pytest.mark.slow
def test_verify_says_how_many_predictions_it_recomputed(capsys, mnist_root):
    code, out, _ = run(capsys, "verify", "mnist", "--images", 20)
    assert code == 0 and out.startswith("mnist: hashes match; 1,000 predictions recomputed")


def test_bounds_of_mistakes_are_the_ladder(capsys, tmp_path):
    losses = np.random.default_rng(0).integers(0, 2, (300, 4))
    np.save(tmp_path / "losses.npy", losses)
    numbers = ("--datasets", 200, "--sample-size", 16)
    code, out, _ = run(capsys, "bounds", tmp_path / "losses.npy", "--alpha", 1, 0.5, *numbers)
    assert code == 0 and "300 inputs, 4 experts, 16 samples" in out
    for alpha, part in zip((1, 0.5), out.split("\n\n")[1:], strict=True):
        ladder, learner = bound_ladder(losses, alpha, 16, 0, 200), simulate(losses, alpha, 16, 200)
        assert f"I(S;W) = {learner.information:.4f} nats" in part
        assert ("empirical risk minimiser" if alpha == 1 else "alpha-mixture, alpha = 0.5") in part
        rows = {line.split()[0]: float(line.split()[1]) for line in part.splitlines()[2:]}
        assert rows == pytest.approx({"gap": ladder.gap, **ladder.values}, abs=6e-5)
        values = list(rows.values())[1:]
        assert values == sorted(values, reverse=True)


def test_bounds_of_other_losses_are_those_of_the_papers(capsys, tmp_path):
    losses = np.random.default_rng(0).random((300, 4))
    np.save(tmp_path / "losses.npy", losses)
    code, out, _ = run(capsys, "bounds", tmp_path / "losses.npy", "--alpha", 1, "--datasets", 200)
    learner = simulate(losses, 1, 256, 200)
    assert code == 0 and "need losses of 0 and 1 alone" in out and "losses > 0.5" in out
    assert f"union_bound                   {union_bound(4, 256):.4f}" in out
    assert f"xu_raginsky_bound             {xu_raginsky_bound(learner.information, 256):.4f}" in out
    np.save(tmp_path / "losses.npy", 3 * losses - 1)
    code, out, err = run(capsys, "bounds", tmp_path / "losses.npy")
    assert (
        code == 2
        and out == ""
        and err.count("\n") == 1
        and "scale them first, (losses - (-0.9" in err
    )


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        (["curve"], ["(inputs, experts)", "nats", "examples:", "--band 1e-4", "certificate"]),
        (
            ["bounds"],
            ["(inputs, experts)", "nats", "examples:", "sqrt(log R / 2m)", "numbers in [0, 1]"],
        ),
        (
            ["routes", "report"],
            [
                "chosen (tokens, k)",
                "nats",
                "examples:",
                "--against trainer.npz",
                "p, all layers",
            ],
        ),
    ],
)
def test_help_says_what_the_file_holds_and_how_to_read_the_output(capsys, command, taught):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and all(text in out for text in taught)


def test_describe_regenerates_the_shipped_row(capsys):
    code, out, _ = run(capsys, "describe", REPOSITORY / "data/banks/mnist")
    (row,) = csv.DictReader(io.StringIO(out))
    shipped = list(csv.DictReader((REPOSITORY / "data/banks/batch_sizes.csv").open()))
    (same,) = [other for other in shipped if other["batch_size"] == row["batch_size"]]
    assert code == 0 and {**row, "bank": ""} == {**same, "bank": ""}


def test_the_chosen_batch_size_matches_both_ranges_best():
    shipped = list(csv.DictReader((REPOSITORY / "data/banks/batch_sizes.csv").open()))
    best = max(
        shipped,
        key=lambda row: float(row["accuracies_inside"]) + float(row["disagreements_inside"]),
    )
    assert best["batch_size"] == "80"


@pytest.mark.slow
def test_report_lists_every_row(capsys):
    from expertbank.book.claims import CLAIMS

    code, out, err = run(capsys, "report")
    explained, rows, totals = out.split("\n\n")
    head, *rows = rows.splitlines()
    assert code == 0 and err == "" and len(rows) == len(CLAIMS)
    assert head.split()[:5] == ["verdict", "paper", "ours", "interval", "mnist"]
    assert "lies in the interval with 95%" in explained
    total, independent = totals.splitlines()
    counts = re.findall(r"(\d+) ([a-z ]+)(?:,|$)", total.partition(": ")[2])
    assert total.startswith(f"{len(CLAIMS)} claims: ")
    assert sum(int(count) for count, _ in counts) == len(CLAIMS)
    for count, verdict in counts:
        assert sum(row[:13].strip() == verdict for row in rows) == int(count)
    found = "6 independent measured numbers, 1 outside: mean generalisation gap G"
    assert independent.startswith(found)


@pytest.mark.slow
def test_a_measured_line_of_the_report_shows_why_it_is_inside(capsys):
    """20 beside 17.54 is inside because of the interval that stands there."""
    _, out, _ = run(capsys, "report")
    number = r"(-?[\d.]+)"
    line = re.compile(rf"(inside|outside) +{number} +{number} +\[{number}, {number}\]")
    measured = [found for found in map(line.match, out.splitlines()) if found]
    assert len(measured) == len(re.findall(r"^(?:inside|outside) ", out, flags=re.M)) > 30
    for found in measured:
        paper, ours, low, high = map(float, found.groups()[1:])
        rounding = 0.5 * 10.0 ** -len(found[2].partition(".")[2]) + 6e-5
        is_inside = low - rounding <= paper <= high + rounding
        assert found[1] == ("inside" if is_inside else "outside") and low <= ours <= high


def test_report_of_a_folder_from_where_one_stands(capsys, tmp_path, monkeypatch):
    shutil.copytree(REPOSITORY / "data/banks/mnist", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "report", "--bank", "mine")
    assert code == 0 and "The column mine is that bank alone" in out
    code, out, err = run(capsys, "report", "--bank", "yours")
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "yours is no folder with a manifest; allowed are such folders and" in err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "does not exist"),
        ("table.txt", b"1 2", "allowed are .npy, .npz and .csv"),
        ("table.csv", b"a,b\n", "cannot be read as one table"),
        ("table.npy", b"not an array", "cannot be read as one table"),
        ("table.npz", b"not an archive", "cannot be read as one table"),
    ],
)
def test_bad_files_give_one_line_and_status_2(capsys, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, out, err = run(capsys, "curve", tmp_path / name)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert message in err and name in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnist", "--size", "large"), "only the testbed has sizes"),
        (("testbed", "--experts", "3"), "testbed has recipes of its own"),
    ],
)
def test_training_refuses_what_makes_no_sense(capsys, arguments, message):
    pytest.importorskip("torch")
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_command_line_loads_nothing_heavy():
    """`expertbank curve` runs where NumPy and SciPy alone are installed."""
    code = "import sys, expertbank.cli; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "matplotlib", "pandas", "ipywidgets", "joblib", "dask", "jinja2"}
    assert not heavy & set(run.stdout.split())
