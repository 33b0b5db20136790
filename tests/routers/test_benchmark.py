"""The benchmark of counting runs on small sizes, and its plain version counts the same; no clock is
asserted."""

import csv
import sys

import numpy as np
import pytest

from expertbank.routers import RouterStatistics
from expertbank.shipped.manifest import REPOSITORY, read_manifest, seal


@pytest.fixture(scope="module")
def benchmark():
    pytest.importorskip("transformers")
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        import routers
    finally:
        sys.path.remove(str(REPOSITORY / "benchmarks"))
    return routers


@pytest.mark.parametrize(("n_experts", "k"), [(16, 4), (9, 2)])
def test_the_plain_version_makes_the_same_tables(benchmark, n_experts, k):
    chosen, weights, probabilities = benchmark.batch_of(500, n_experts, k)
    statistics = RouterStatistics(n_experts, k)
    statistics.update(0, chosen, weights, probabilities)
    layer = statistics.layers[0]
    for name, plain in zip(("sizes", "slots", "pairs"), benchmark.plain_choices(chosen, n_experts)):
        np.testing.assert_array_equal(getattr(layer, name), plain, err_msg=name)
    if k == 2:
        sets = benchmark.plain_sets_of_two(chosen, n_experts)
        np.testing.assert_array_equal(layer.sets[1 + n_experts :], sets)
    names = ("weight_load", "probability_sum", "weight_entropy", "probability_entropy")
    for name, plain in zip(names, benchmark.plain_amounts(chosen, weights, probabilities)):
        np.testing.assert_allclose(getattr(layer, name), plain, rtol=1e-4, err_msg=name)


def test_a_small_run_writes_every_row_resumes_and_seals(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "machine_of", lambda: "a machine")
    settings = benchmark.QUICK | {"tokens": 64, "updates": 1, "repetitions": 1}
    wanted = [job[:2] for job in benchmark.jobs(settings)]
    benchmark.run(tmp_path, settings)
    with (tmp_path / "routers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["section"], row["case"]) for row in rows] == wanted
    assert all(row["date"] and row["machine"] and float(row["load"]) >= 0 for row in rows)
    assert float(rows[-1]["megabytes"]) > 10
    read_manifest(tmp_path, ["routers.csv"])
    # what is there is not measured again; a folder of two benchmarks keeps both
    benchmark.write_rows(rows[1:], tmp_path / "routers.csv")
    (tmp_path / "solver.json").write_text("{}")
    seal(tmp_path, {}, ["solver.json"])
    calls = []
    real = benchmark.update_row
    monkeypatch.setattr(benchmark, "update_row", lambda *a: calls.append(a) or real(*a))
    benchmark.run(tmp_path, settings)
    assert len(calls) == 1
    manifest = read_manifest(tmp_path, ["routers.csv"])
    assert set(manifest["files"]) == {"solver.json", "routers.csv"}
