"""NumPy, torch and dask give the same iterations and answers; tables larger than memory stay out of
it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import expertbank as eb
from expertbank import tables
from support import skip_or_fail

try:
    import dask
    import dask.array as da
except ImportError as error:  # the rest of the module says so, test by test
    dask, MISSING = None, error

FIELDS = ("rate", "distortion", "marginal", "certificate")
LAMS = [0.0, 0.01, 0.1, 0.5, np.inf]


@pytest.fixture
def threads():
    """dask on this process's threads, whatever cluster another test has left."""
    if dask is None:
        skip_or_fail(f"this needs `pip install -e '.[dask]'`: {MISSING}")
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture(params=["torch-cpu", "torch-cuda", "dask", "dask-single-rows"])
def engine(request):
    """A function that takes a NumPy table to another engine."""
    kind = request.param
    if kind.startswith("dask"):
        request.getfixturevalue("threads")
        rows = (1, 1, 100, 127, 1) if kind == "dask-single-rows" else 50
        return lambda losses: da.from_array(losses, chunks=(rows, -1))
    torch = request.getfixturevalue("torch")
    if kind == "torch-cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return lambda losses: torch.as_tensor(losses, device=kind.removeprefix("torch-"))


def table(kind, n=230, k=6):
    rng = np.random.default_rng(0)
    if kind in ("uint8", "bool"):
        return (rng.random((n, k)) < 0.3).astype(kind)
    if kind == "small integers":
        return rng.integers(-3, 4, (n, k)).astype(np.int8)
    if kind == "fortran":
        return np.asfortranarray(rng.random((n, k)))
    return rng.random((n, k)).astype(kind)


def assert_same(one, other, atol=1e-9):
    for field in FIELDS:
        np.testing.assert_allclose(
            getattr(one, field), getattr(other, field), rtol=1e-9, atol=atol, err_msg=field
        )


KINDS = ["float64", "float32", "uint8", "bool", "small integers", "fortran"]


@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree(engine, kind):
    losses = table(kind)
    there = engine(losses)
    assert eb.critical_lambda(there) == pytest.approx(eb.critical_lambda(losses), rel=1e-9)
    for lam in LAMS:
        one, other = eb.rate_distortion(losses, lam), eb.rate_distortion(there, lam)
        assert_same(one, other)
        assert one.iterations == other.iterations
        assert other.certificate <= 1e-9


@pytest.mark.parametrize("kind", ["float64", "float32", "uint8"])
def test_engines_agree_with_weights_and_costs(engine, kind):
    rng = np.random.default_rng(1)
    losses, cost = table(kind), np.array([0.2, 0, 0.05, 0.4, 0.1, 0])
    weights = rng.random(230) * (rng.random(230) < 0.6)
    weights[:80] = 0  # whole chunks of it
    there = engine(losses)
    assert eb.critical_lambda(there, weights, cost=cost) == pytest.approx(
        eb.critical_lambda(losses, weights, cost=cost), rel=1e-9
    )
    for lam in LAMS:
        one, other = (eb.rate_distortion(t, lam, weights, cost=cost) for t in (losses, there))
        assert_same(one, other)
        assert one.iterations == other.iterations
    one, other = (eb.distortion_at_rate(t, 0.2, weights, cost=cost) for t in (losses, there))
    assert one == pytest.approx(other, abs=1e-9)


def test_curves_agree(engine):
    losses = table("float64")
    there = engine(losses)
    lams = [0.3, 0.1, 0.03, 0.01, 0]
    one, other = (eb.rate_distortion_curve(t, lams) for t in (losses, there))
    assert_same(one, other)
    assert one.iterations.tolist() == other.iterations.tolist()
    assert (one.ceiling, one.floor) == (
        pytest.approx(other.ceiling, rel=1e-12),
        pytest.approx(other.floor, rel=1e-12),
    )
    one, other = (eb.rate_distortion_curve(t, band=1e-3) for t in (losses, there))
    rates = np.linspace(0, one.rate.max(), 50)
    np.testing.assert_allclose(one.lower(rates), other.lower(rates), atol=1e-8)
    np.testing.assert_allclose(one.upper(rates), other.upper(rates), atol=1e-8)
    assert np.max(other.upper(rates) - other.lower(rates)) <= 1e-3 * (1 + 1e-9)


def test_blahut_arimoto_agrees_too(engine):
    losses = table("uint8")
    one, other = (
        eb.rate_distortion(t, 0.3, tol=1e-5, method="blahut-arimoto")
        for t in (losses, engine(losses))
    )
    assert_same(one, other)
    assert one.iterations == other.iterations > 10


@pytest.mark.parametrize("cost", [None, [0.2, 0, 0.05, 0.4, 0.1, 0]])
def test_routing_lies_where_the_losses_lie(engine, cost):
    losses = table("float32")
    there = engine(losses)
    for lam in (0, 0.1, np.inf):
        point = eb.rate_distortion(losses, lam, cost=cost)
        gate = eb.routing(there, point, cost=cost)
        assert type(gate) is type(there)
        assert getattr(gate, "device", None) == getattr(there, "device", None)
        gate = gate.compute() if hasattr(gate, "compute") else gate.cpu().numpy()
        assert gate.dtype == float
        np.testing.assert_allclose(gate, eb.routing(losses, point, cost=cost), atol=1e-12)


def test_a_table_is_left_as_it_was(engine):
    losses = table("float64")
    before, there = losses.copy(), engine(losses)
    eb.rate_distortion_curve(there, [0.1, 0], cost=np.ones(6))
    np.testing.assert_array_equal(losses, before)


# --- blocks, chunks, merged rows ---


@pytest.mark.parametrize("block", [1, 50, 6 * 229, 6 * 230])
@pytest.mark.parametrize("kind", KINDS)
def test_many_blocks_are_one(kind, block, monkeypatch):
    rng = np.random.default_rng(2)
    losses, weights, cost = (
        table(kind),
        rng.random(230) * (rng.random(230) < 0.8),
        rng.random(6) / 10,
    )
    losses[:2] = 1  # whole blocks in which all experts are as good
    whole = [eb.rate_distortion(losses, lam, weights, cost=cost) for lam in LAMS]
    critical = eb.critical_lambda(losses, weights, cost=cost)
    monkeypatch.setattr(tables, "NUMBERS_PER_BLOCK", block)
    monkeypatch.setattr(tables, "merge_rows", lambda rows, weights=None: (rows, weights, None))
    assert len(tables.table_of(losses, weights, cost).blocks) > (block < 6 * 180)
    for point in whole:
        blocked = eb.rate_distortion(losses, point.lam, weights, cost=cost)
        assert_same(point, blocked)
        assert blocked.iterations == point.iterations
    assert eb.critical_lambda(losses, weights, cost=cost) == pytest.approx(critical, rel=1e-12)


@pytest.mark.parametrize("chunks", [(1,) * 40, (39, 1), (1, 39), (20, 3, 17), (40,)])
def test_chunk_boundaries_do_not_matter(chunks, threads):
    losses = table("float64", n=40)
    weights = np.random.default_rng(3).random(40)
    one = eb.rate_distortion(losses, 0.1, weights)
    there = da.from_array(losses, chunks=(chunks, (6,)))
    assert_same(one, eb.rate_distortion(there, 0.1, weights))
    there = da.from_array(losses, chunks=(chunks, (2, 4)))
    assert_same(one, eb.rate_distortion(there, 0.1, da.from_array(weights, chunks=17)))


def test_computed_chunks(threads):
    """A table that is itself a computation, of lengths known only once they are asked for."""
    losses = table("float64")
    there = da.from_array(losses, chunks=(50, -1))
    kept = there[there[:, 0] > 0.5]
    kept.compute_chunk_sizes()
    assert_same(eb.rate_distortion(losses[losses[:, 0] > 0.5], 0.1), eb.rate_distortion(kept, 0.1))
    assert_same(eb.rate_distortion(2 * losses, 0.1), eb.rate_distortion(2 * there, 0.1))


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "small integers"])
def test_rows_with_the_same_key_are_told_apart(kind, monkeypatch):
    losses = table(kind)
    losses[1::2] = losses[::2]
    weights = np.random.default_rng(4).random(230)
    expected = eb.rate_distortion(losses, 0.1, weights)
    rows, totals, of = tables.merge_rows(losses, weights)
    assert len(rows) < len(losses)
    asked = []

    def same(part):
        asked.append(len(part))
        return np.zeros(len(part), np.uint64)

    monkeypatch.setattr(tables, "_row_keys", same)
    assert_same(expected, eb.rate_distortion(losses, 0.1, weights))
    assert asked
    other_rows, other_totals, other_of = tables.merge_rows(losses, weights)
    np.testing.assert_array_equal(other_rows[other_of], losses)
    np.testing.assert_array_equal(rows[of], losses)
    assert len(other_rows) == len(rows)
    np.testing.assert_allclose(np.sort(other_totals), np.sort(totals))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, float])
@pytest.mark.parametrize("n_experts", [1, 3, tables.SHORT_ROW, tables.SHORT_ROW + 1])
def test_least_losses_are_those_of_the_rows(n_experts, dtype):
    """Of short rows in pieces and by columns, of long ones as they stand."""
    rng = np.random.default_rng(n_experts)
    few = rng.integers(0, 200, (50, n_experts)).astype(dtype)
    losses = few[rng.integers(50, size=40_000 // n_experts)]
    expected = losses.astype(float).min(axis=1).mean()
    assert tables.table_of(losses).floor == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("factor", [0.5, 0.99, 1, 1 + 1e-10, 10])
def test_one_expert_alone_is_told_from_two(factor, monkeypatch):
    """On both sides of the critical price, and far above it, where nothing more is asked of the
    table than its gradient."""
    losses = np.random.default_rng(2).integers(0, 2, (500, 6))
    table = tables.table_of(losses)
    asked = []
    ask = tables.Table.challengers
    monkeypatch.setattr(
        tables.Table, "challengers", lambda self, lam: asked.append(lam) or ask(self, lam)
    )
    critical = eb.critical_lambda(table)
    asked.clear()
    point = eb.rate_distortion(table, critical * factor)
    assert (point.rate == 0) == (factor >= 1)
    assert len(asked) == (1 <= factor < 10)


def test_merging_does_not_change_the_answer(monkeypatch):
    """Many copies of few rows, with and without the merging: also rows that differ by a
    constant."""
    rng = np.random.default_rng(5)
    few = rng.integers(0, 16, (40, 5)) / 16
    losses = few[rng.integers(40, size=3000)] + rng.integers(0, 4, (3000, 1))
    assert sum(len(block.weights) for block in tables.table_of(losses).blocks) <= 40
    merged = [eb.rate_distortion(losses, lam) for lam in LAMS]
    monkeypatch.setattr(tables, "merge_rows", lambda rows, weights=None: (rows, weights, None))
    assert sum(len(block.weights) for block in tables.table_of(losses).blocks) == 3000
    for point in merged:
        assert_same(point, eb.rate_distortion(losses, point.lam), atol=1e-8)


# --- larger than memory ---


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A table on disk, written part by part, and its path."""
    path = tmp_path_factory.mktemp("tables") / "losses.npy"
    file = np.lib.format.open_memmap(path, "w+", np.float32, (20_000, 16))
    rng = np.random.default_rng(6)
    for start in range(0, len(file), 5000):
        file[start : start + 5000] = rng.random((5000, 16))
    file.flush()
    return path, np.array(file)


@pytest.mark.slow
def test_a_cluster_of_processes_gives_the_same(stored, tmp_path):
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        skip_or_fail(f"this needs `pip install -e '.[dask]'`: {error}")
    path, losses = stored
    here = [eb.rate_distortion(losses, lam) for lam in (0.02, 0.2)]
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=tmp_path,
        ) as cluster,
        Client(cluster) as client,
    ):
        assert len(client.run(os.getpid)) == 2 and os.getpid() not in client.run(os.getpid).values()
        there = eb.open_table(path, chunk_rows=3000)
        for point in here:
            far = eb.rate_distortion(there, point.lam)
            assert_same(point, far)
            assert far.iterations == point.iterations


MEMORY = """
import sys
import dask, numpy as np
import expertbank as eb
with dask.config.set(scheduler="threads", num_workers=2):
    losses = eb.open_table(sys.argv[1], chunk_rows=20_000)
    point = eb.rate_distortion(losses, 0.1, tol=1e-2)
assert point.certificate <= 1e-2 and point.rate > 0
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
# ru_maxrss would count the process that started this one
print(int(status["VmHWM"].split()[0]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc, as on Linux"
)
def test_memory_does_not_grow_with_the_table(tmp_path, threads):
    """Peak memory in MB, in a process of its own, for 100,000 and for 1,000,000 inputs by 64
    experts: 256 MB."""
    path = tmp_path / "losses.npy"
    part = np.random.default_rng(7).random((100_000, 64), dtype=np.float32)
    peaks = []
    for n in (100_000, 1_000_000):
        file = np.lib.format.open_memmap(path, "w+", np.float32, (n, 64))
        for start in range(0, n, len(part)):
            file[start : start + len(part)] = part
        file.flush()
        del file
        command = [sys.executable, "-c", MEMORY, str(path)]
        run = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        )
        assert run.returncode == 0, run.stderr
        peaks.append(float(run.stdout))
    path.unlink()
    print(f"peak memory {peaks[0]:.0f} MB and {peaks[1]:.0f} MB")
    assert peaks[1] - peaks[0] < 50  # a fifth of the growth of the table


# --- files ---


@pytest.mark.parametrize("suffix", [".npy", ".zarr", ".parquet"])
@pytest.mark.parametrize("chunk_rows", [None, 7])
def test_tables_from_files(suffix, chunk_rows, tmp_path, threads):
    losses, path = table("float32", n=60), tmp_path / f"losses{suffix}"
    if suffix == ".npy":
        np.save(path, losses)
    elif suffix == ".zarr":
        da.from_array(losses, chunks=(25, 3)).to_zarr(path)
    else:
        import pyarrow
        import pyarrow.parquet

        columns = {f"expert {t}": losses[:, t] for t in range(6)}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    opened = eb.open_table(path, chunk_rows)
    assert isinstance(opened, da.Array) and opened.shape == (60, 6) and opened.dtype == np.float32
    if chunk_rows and suffix != ".parquet":
        assert opened.chunks == ((7,) * 8 + (4,), (6,))
    np.testing.assert_array_equal(opened.compute(), losses)
    assert_same(eb.rate_distortion(losses, 0.1), eb.rate_distortion(eb.open_table(str(path)), 0.1))


@pytest.mark.parametrize("name", ["losses.csv", "losses", "losses.npz"])
def test_other_files_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        ValueError, match=rf"{name} has suffix .*; allowed are \.npy, \.zarr and \.parquet"
    ):
        eb.open_table(tmp_path / name)


def test_missing_and_misshapen_files(tmp_path, threads):
    with pytest.raises(FileNotFoundError, match=r"losses\.npy"):
        eb.open_table(tmp_path / "losses.npy")
    np.save(tmp_path / "flat.npy", np.zeros(5))
    with pytest.raises(ValueError, match=r"flat\.npy has shape \(5,\); allowed is \(N, R\)"):
        eb.open_table(tmp_path / "flat.npy")
    da.zeros((2, 3, 4)).to_zarr(tmp_path / "deep.zarr")
    with pytest.raises(ValueError, match=r"deep\.zarr has shape \(2, 3, 4\)"):
        eb.open_table(tmp_path / "deep.zarr")
    np.save(tmp_path / "objects.npy", np.array([[None]]), allow_pickle=True)
    with pytest.raises(ValueError):
        eb.open_table(tmp_path / "objects.npy")


# --- what loads when ---

LOADED = """
import sys
import expertbank
lazy = {"scipy.optimize", "scipy.stats", "scipy.sparse", "scipy.special", "array_api_compat"}
lazy |= {"dask", "distributed", "torch", "zarr", "pyarrow", "matplotlib"}
assert not lazy & set(sys.modules), lazy & set(sys.modules)
expertbank.rate_distortion([[0, 1], [1, 0], [0, 0.5]], 0.2)
heavy = lazy - {"scipy.optimize", "scipy.sparse", "scipy.special"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_importing_the_library_loads_no_engine():
    """Neither SciPy's parts nor an engine: a NumPy table needs none of them."""
    run = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
