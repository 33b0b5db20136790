"""The distortion-rate solver beside its peers, in one run: python benchmarks/solver.py (about 25
minutes)

    python benchmarks/solver.py                        everything, into build/benchmarks/full
    python benchmarks/solver.py --quick                small tables and caps, into .../quick
    python benchmarks/solver.py --only points own_gap  these sections anew, in that file
    python benchmarks/solver.py --out data/benchmarks  everything, into what the book ships

The folder holds solver.json and, once that is complete, a manifest that seals it. The file is
written whole after every row, so a run that was interrupted goes on where it stopped; finished
results are refused, but for the sections that `--only` names. The file holds `date`, `complete`,
`settings`, `machine`, `versions`, and lists of rows, each a flat dictionary: tables, points (one
price, cold), curves (100 prices), own_gap (ours at the gap that SLSQP reached), growth_inputs,
growth_experts, floor (against plain matrix products), memory, streaming, imports, and, from these,
slopes and targets.

Seconds are medians of `repetitions` runs: at least 5, fewer where they would take longer than
`settings["patience"]`. Where threadpoolctl is installed, whatever takes less than 5 seconds is run
with the BLAS's own number of threads and with one, and the faster counts (`blas_threads`), for
peers, ours and the floor alike. `gap` is the certificate of the answer, found anew on the raw table
over all experts by the same function for everyone; `capped` says that the solver was stopped at
`settings["cap"]` seconds, so that its seconds are a lower bound.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache, lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import folders
import numpy as np
import peers
from peers import SOLVERS, certificate, kernel_of, synthetic, task_of

try:
    from threadpoolctl import threadpool_limits
except ImportError:
    threadpool_limits = None

from expertbank import load_bank, rate_distortion, rate_distortion_curve, tables
from expertbank._files import write_atomically
from expertbank.shipped.manifest import read_json

ROOT = Path(__file__).parents[1]
RESULTS = "solver.json"
ABOUT = {
    "title": "The distortion-rate solver beside its peers",
    "recipe": "python benchmarks/solver.py",
    "source": "made by this project; CC0 1.0",
}
LAMS = np.geomspace(10, 1e-3, 100)
SINGLE = (1.0, 0.1, 0.01)
TOL = 1e-9
PACKAGES = (
    "numpy",
    "scipy",
    "dit",
    "cvxpy",
    "clarabel",
    "dask",
    "distributed",
    "array-api-compat",
    "threadpoolctl",
)
SECTIONS = (
    "tables",
    "points",
    "curves",
    "own_gap",
    "floor",
    "growth_inputs",
    "growth_experts",
    "memory",
    "streaming",
    "imports",
)
FULL = dict(
    banks=(2_000, 10_000, 60_000),
    synthetic=(1_000_000, 64),
    cap=20.0,
    patience=20.0,
    least=0.2,
    threads_below=5.0,
    repetitions=5,
    growth_inputs=tuple(10**k for k in range(3, 8)),
    growth_inputs_experts=16,
    growth_experts=tuple(2**k for k in range(1, 10)),
    growth_experts_inputs=20_000,
    memory=(1_000_000, 64),
    streaming=(10**5, 10**6, 10**7),
    streaming_experts=64,
    imports=15,
    curve_stride=1,
)
QUICK = dict(
    banks=(300, 500, 1_000),
    synthetic=(20_000, 16),
    cap=0.5,
    patience=0.5,
    least=0.0,
    threads_below=5.0,
    repetitions=5,
    growth_inputs=(1_000, 10_000, 30_000),
    growth_inputs_experts=16,
    growth_experts=(2, 8, 32),
    growth_experts_inputs=2_000,
    memory=(200_000, 16),
    streaming=(20_000, 100_000),
    streaming_experts=16,
    imports=3,
    curve_stride=10,
)


# --- clocks ---


def repeated(run, settings):
    """Median seconds of a call, how many calls, and what the last one returned."""
    seconds = []
    while True:
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
        enough = len(seconds) >= settings["repetitions"]
        if (enough and (sum(seconds) > settings["least"] or len(seconds) >= 25)) or sum(
            seconds
        ) > settings["patience"]:
            return float(np.median(seconds)), len(seconds), result


def timed(run, settings):
    """The same with the BLAS's own number of threads or with one, whichever is faster: fields, and
    the result.

    Threads can slow small products down, so a comparison that forced them on anyone would be
    unfair.
    """
    seconds, repetitions, result = repeated(run, settings)
    threads = "default"
    if threadpool_limits is not None and seconds < settings["threads_below"]:
        with threadpool_limits(1, "blas"):
            alone, times, other = repeated(run, settings)
        if alone < seconds:
            seconds, repetitions, result, threads = alone, times, other, "1"
    return dict(seconds=seconds, repetitions=repetitions, blas_threads=threads), result


@cache
def loaded(name):
    """A solver that has run once, on a small table: imports and first calls are not timed."""
    SOLVERS[name](task_of("small", synthetic(50, 4)), 0.5, time.perf_counter() + 10)
    return SOLVERS[name]


def solved(name, task, lam, settings):
    """One solver at one price, timed and judged."""
    run = loaded(name)
    clock, answer = timed(lambda: run(task, lam, time.perf_counter() + settings["cap"]), settings)
    return dict(
        table=task.name,
        tool=name,
        lam=float(lam),
        **clock,
        gap=certificate(task.losses, lam, answer.x),
        steps=int(answer.steps),
        capped=answer.capped,
        note=answer.note,
    )


# --- tables ---


def bank_name(inputs):
    return f"{inputs:,} x 25"


@lru_cache(maxsize=1)
def bank_task(inputs):
    bank = load_bank("mnist")
    losses = bank.losses("test") if inputs <= 10_000 else bank.losses("train")
    return task_of(bank_name(inputs), losses[:inputs])


@lru_cache(maxsize=1)
def synthetic_task(inputs, experts):
    bank_task.cache_clear()
    gc.collect()
    return task_of(f"{inputs:,} x {experts}", synthetic(inputs, experts))


def describe(task):
    shape = dict(
        inputs=task.losses.shape[0], experts=task.losses.shape[1], distinct_rows=len(task.rows)
    )
    return dict(
        table=task.name, **shape, bytes=task.losses.nbytes, merging_seconds=task.merging_seconds
    )


# --- one price ---


def points_of(task, settings):
    """Tools and prices for one table: (tool, lam); a table of a million rows is too large for
    some."""
    for lam in SINGLE:
        for name in SOLVERS:
            merged_only = (
                name in ("ours, merged rows", "Blahut-Arimoto, merged rows") and not task.merged
            )
            # a square of the inputs, or an exponential cone for each
            too_large = (name == "dit" and len(task.rows) > 2_000) or (
                "CLARABEL" in name and len(task.rows) > 50_000
            )
            if not (merged_only or too_large):
                yield name, lam


# --- 100 prices ---


def our_curve(task, settings):
    lams = LAMS[:: settings["curve_stride"]]
    clock, curve = timed(lambda: rate_distortion_curve(task.losses, lams, tol=TOL), settings)
    # one judgement of a large table takes about a second
    judged = range(0, len(lams), 1 if len(task.rows) < 10**5 else 10)
    worst = max(certificate(task.losses, lams[i], curve.marginal[i]) for i in judged)
    return dict(
        table=task.name,
        tool="ours",
        points=len(lams),
        measured_points=len(lams),
        **clock,
        worst_gap=worst,
        certificate=float(curve.certificate.max()),
        steps=int(curve.iterations.sum()),
        capped_points=0,
        note="each point started from those before it",
    )


def cold_curve(name, task, settings):
    """A tool without a curve of its own, every price cold: all prices, or every tenth if that takes
    long."""
    lams = LAMS[:: settings["curve_stride"]]
    once = dict(settings, repetitions=1, patience=0)
    rows = [solved(name, task, lam, once) for lam in lams[::10]]
    spent = 10 * sum(row["seconds"] for row in rows)
    if 5 * spent <= settings["patience"]:
        rows = [solved(name, task, lam, dict(settings, least=0.0)) for lam in lams]
    elif spent <= settings["patience"]:
        rows += [solved(name, task, lam, once) for i, lam in enumerate(lams) if i % 10]
    return dict(
        table=task.name,
        tool=name,
        points=len(lams),
        measured_points=len(rows),
        seconds=sum(row["seconds"] for row in rows) * len(lams) / len(rows),
        repetitions=min(row["repetitions"] for row in rows),
        worst_gap=max(row["gap"] for row in rows),
        missed_points=sum(row["gap"] > TOL * 1.001 for row in rows),
        steps=round(sum(row["steps"] for row in rows) * len(lams) / len(rows)),
        capped_points=sum(row["capped"] for row in rows),
        note="every point cold"
        + ("" if len(rows) == len(lams) else "; every tenth point measured, total scaled"),
    )


def paper_curve(task, settings, merged):
    """The paper's form takes the steps that it takes on merged rows, each as long as measured on
    the full table."""
    steps = min(2_000, max(20, 200_000_000 // task.losses.size))
    run = partial(peers.paper_blahut_arimoto, task, 0.1, tol=-1.0)
    # the difference of two runs: without the kernel
    late = time.perf_counter() + 1e6
    short, _, _ = repeated(lambda: run(late, max_iters=1), settings)
    long, repetitions, _ = repeated(lambda: run(late, max_iters=1 + steps), settings)
    step = (long - short) / steps
    return dict(
        table=task.name,
        tool="Blahut-Arimoto",
        points=merged["points"],
        measured_points=0,
        seconds=merged["steps"] * step,
        repetitions=repetitions,
        worst_gap=merged["worst_gap"],
        steps=merged["steps"],
        capped_points=merged["capped_points"],
        seconds_per_step=step,
        note="estimated: steps counted on merged rows (same iteration), times measured seconds of "
        "a step in full",
    )


# --- ours at SLSQP's gap ---


def own_gap(task, lam, ftol, settings, results):
    """SLSQP, then ours with the gap that SLSQP reached as its tolerance, both on the same distinct
    rows."""
    name = "SLSQP" if ftol == 1e-15 else "SLSQP, default ftol"
    key = f"{task.name}, {name}, {lam:g}"
    theirs = next((row for row in results["points"] if row["key"] == key), None) or solved(
        name, task, lam, settings
    )
    tol = max(theirs["gap"], 1e-12)
    run = peers.ours_on_merged_rows if task.merged else peers.ours
    clock, answer = timed(lambda: run(task, lam, tol=tol), settings)
    return dict(
        table=task.name,
        lam=float(lam),
        ftol=ftol,
        slsqp_seconds=theirs["seconds"],
        slsqp_gap=theirs["gap"],
        slsqp_capped=theirs["capped"],
        our_seconds=clock["seconds"],
        our_gap=certificate(task.losses, lam, answer.x),
        repetitions=clock["repetitions"],
        ratio=theirs["seconds"] / clock["seconds"],
    )


# --- the floor of matrix products ---


@contextlib.contextmanager
def counted():
    """What the solver asks of its table: the number of evaluations, of kernels, and the size of
    each Hessian."""
    counts = dict(evaluations=0, kernels=0, hessians=[])
    evaluate, hessian, set_price = (
        tables.Table.evaluate,
        tables.Table.hessian,
        tables.Table.set_price,
    )

    def count_evaluate(self, *args, **options):
        counts["evaluations"] += 1
        return evaluate(self, *args, **options)

    def count_hessian(self, active, *args, **options):
        counts["hessians"].append(self.n_experts if active is None else len(active))
        return hessian(self, active, *args, **options)

    def count_price(self, *args, **options):
        counts["kernels"] += 1
        return set_price(self, *args, **options)

    tables.Table.evaluate, tables.Table.hessian, tables.Table.set_price = (
        count_evaluate,
        count_hessian,
        count_price,
    )
    try:
        yield counts
    finally:
        tables.Table.evaluate, tables.Table.hessian, tables.Table.set_price = (
            evaluate,
            hessian,
            set_price,
        )


def floor(task, settings):
    """The curve on distinct rows against the time of the products alone; every tenth price where it
    takes minutes."""
    lams = LAMS[:: settings["curve_stride"] * (1 if len(task.rows) < 10**5 else 10)]
    weights = task.weights if task.merged else None
    with counted() as counts:
        curve = rate_distortion_curve(task.rows, lams, weights, tol=TOL)
    clock, _ = timed(lambda: rate_distortion_curve(task.rows, lams, weights, tol=TOL), settings)
    kernel, x = kernel_of(task.rows, 0.1), np.full(task.rows.shape[1], 1 / task.rows.shape[1])
    z, quiet = kernel @ x, dict(settings, patience=5.0)

    def least(run):
        return timed(run, quiet)[0]["seconds"]

    gemv = least(lambda: kernel @ x) + least(lambda: kernel.T @ z)
    sizes = sorted({size for size in (1, 2, 4, 8, 16, 24, 32, 48) if size < len(x)} | {len(x)})
    parts = (np.ascontiguousarray(kernel[:, :size]) for size in sizes)
    syrk = [least(lambda part=part: part.T @ part) for part in parts]
    exponentials = counts["kernels"] * least(lambda: np.exp(task.rows, out=kernel))
    products = counts["evaluations"] * gemv + float(
        np.interp(counts["hessians"], sizes, syrk).sum()
    )
    return dict(
        table=task.name,
        points=len(lams),
        **clock,
        floor_seconds=products,
        ratio=clock["seconds"] / products,
        exponential_seconds=exponentials,
        ratio_with_exponentials=clock["seconds"] / (products + exponentials),
        evaluations=counts["evaluations"],
        hessians=len(counts["hessians"]),
        steps=int(curve.iterations.sum()),
        mean_active=float(np.mean(counts["hessians"] or [0])),
        gemv_seconds=gemv,
        syrk_seconds=syrk[-1],
    )


# --- growth ---


def growth(inputs, experts, settings, lam=0.1):
    losses = synthetic(inputs, experts)
    clock, point = timed(lambda: rate_distortion(losses, lam, tol=TOL), settings)
    return dict(
        inputs=inputs,
        experts=experts,
        lam=lam,
        **clock,
        gap=certificate(losses, lam, point.marginal),
        steps=int(point.iterations),
    )


def slope(rows, axis):
    """Of log seconds against log size, over all rows and over the larger half."""
    size, seconds = np.log([row[axis] for row in rows]), np.log([row["seconds"] for row in rows])
    half = (len(rows) - 1) // 2
    return dict(
        axis=axis,
        slope=float(np.polyfit(size, seconds, 1)[0]),
        from_size=rows[0][axis],
        to_size=rows[-1][axis],
        upper_slope=float(np.polyfit(size[half:], seconds[half:], 1)[0]),
        upper_from_size=rows[half][axis],
    )


# --- memory, each in a process of its own ---


def child(*arguments):
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def resident(field, pid="self"):
    """A line of /proc/PID/status in bytes: VmHWM is the peak of this process alone, where ru_maxrss
    starts from the parent's; elsewhere than on Linux ru_maxrss it is."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return next(
        (1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith(field + ":")),
        0,
    )


def memory_child(inputs, experts, lam):
    rate_distortion(synthetic(1_000, experts), lam)  # what loads once, loads before
    before = resident("VmHWM")
    losses = synthetic(inputs, experts)
    built = resident("VmHWM")
    point = rate_distortion(losses, lam, tol=TOL)
    peak = resident("VmHWM")
    return dict(
        inputs=inputs,
        experts=experts,
        lam=lam,
        table_bytes=losses.nbytes,
        baseline_bytes=before,
        building_multiple=(built - before) / losses.nbytes,
        peak_bytes=peak - before,
        multiple=(peak - before) / losses.nbytes,
        certificate=float(point.certificate),
    )


def streaming_child(inputs, experts, lam):
    """A float32 table on disk, solved by two worker processes of a local dask cluster."""
    from distributed import Client, LocalCluster

    from expertbank.tables import open_table

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "losses.npy"
        peers.write_synthetic(path, inputs, experts)
        options = dict(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=None)
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            client.run(lambda: __import__("expertbank.rate_distortion"))
            pids = list(client.run(os.getpid).values())
            before = max(resident("VmRSS", pid) for pid in pids)
            losses = open_table(path)
            with peak_of(pids, "RssAnon") as anonymous:
                start = time.perf_counter()
                point = rate_distortion(losses, lam, tol=TOL)
                seconds = time.perf_counter() - start
            peak = max(resident("VmHWM", pid) for pid in pids)
        return dict(
            inputs=inputs,
            experts=experts,
            lam=lam,
            file_bytes=path.stat().st_size,
            chunks=losses.npartitions,
            workers=len(pids),
            seconds=seconds,
            certificate=float(point.certificate),
            steps=int(point.iterations),
            worker_start_bytes=before,
            worker_peak_bytes=peak,
            worker_peak_private_bytes=anonymous[0],
            client_peak_bytes=resident("VmHWM"),
        )


@contextlib.contextmanager
def peak_of(pids, field):
    """The largest value of a field of /proc among processes while the block runs; pages of a mapped
    file, which the system takes back when it likes, are not in RssAnon."""
    highest, done = [0], threading.Event()

    def watch():
        while not done.wait(0.02):
            highest[0] = max(highest[0], *(resident(field, pid) for pid in pids))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        done.set()
        thread.join()


def imports(repetitions):
    """Medians of fresh interpreters, in turns."""
    seconds = {"numpy": [], "expertbank": []}
    for _ in range(repetitions + 1):
        for module, times in seconds.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            times.append(time.perf_counter() - start)
    # the first of each fills the disk cache
    medians = {module: float(np.median(times[1:])) for module, times in seconds.items()}
    return dict(
        numpy_seconds=medians["numpy"],
        expertbank_seconds=medians["expertbank"],
        difference=medians["expertbank"] - medians["numpy"],
        repetitions=repetitions,
    )


# --- the run ---


def jobs(settings, results):
    """Every row in order: (section, key, function)."""
    large = partial(synthetic_task, *settings["synthetic"])
    tasks = [*(partial(bank_task, inputs) for inputs in settings["banks"]), large]
    for task in tasks:
        # a key needs the table's name, and its rows' number decides on peers: cheap for banks
        name = (
            "{:,} x {}".format(*settings["synthetic"]) if task is large else bank_name(*task.args)
        )
        yield "tables", name, lambda task=task: describe(task())
        known = next((row for row in results["tables"] if row["key"] == name), None)
        shape = task() if known is None else _Shape(known)
        for tool, lam in points_of(shape, settings):
            yield (
                "points",
                f"{name}, {tool}, {lam:g}",
                lambda task=task, tool=tool, lam=lam: solved(tool, task(), lam, settings),
            )
        yield from curve_jobs(name, task, task is large, settings, results)
        for lam in SINGLE if task is large else LAMS[2::5]:
            for ftol in (1e-15, 1e-6):
                key = f"{name}, {lam:.4g}, {ftol:g}"
                yield (
                    "own_gap",
                    key,
                    lambda task=task, lam=lam, ftol=ftol: own_gap(
                        task(), lam, ftol, settings, results
                    ),
                )
        yield "floor", name, lambda task=task: floor(task(), settings)
    synthetic_task.cache_clear()
    del task, tasks, large
    experts, inputs = settings["growth_inputs_experts"], settings["growth_experts_inputs"]
    for n in settings["growth_inputs"]:
        yield "growth_inputs", f"{n:,}", partial(growth, n, experts, settings)
    for r in settings["growth_experts"]:
        yield "growth_experts", str(r), partial(growth, inputs, r, settings)
    yield (
        "memory",
        "{:,} x {}".format(*settings["memory"]),
        partial(child, "memory", *settings["memory"], 0.1),
    )
    for n in settings["streaming"]:
        yield (
            "streaming",
            f"{n:,}",
            partial(child, "streaming", n, settings["streaming_experts"], 0.1),
        )
    yield "imports", "imports", partial(imports, settings["imports"])


class _Shape:
    """What `points_of` asks of a task, from the row that describes it."""

    def __init__(self, row):
        self.merged, self.rows = row["distinct_rows"] < row["inputs"], range(row["distinct_rows"])


def curve_jobs(name, task, large, settings, results):
    yield "curves", f"{name}, ours", lambda: our_curve(task(), settings)
    if large:
        return
    cold = [tool for tool in SOLVERS if tool not in ("Blahut-Arimoto", "ours, merged rows", "dit")]
    for tool in cold:
        label = "ours, every point cold" if tool == "ours" else tool
        yield (
            "curves",
            f"{name}, {label}",
            lambda tool=tool, label=label: dict(cold_curve(tool, task(), settings), tool=label),
        )
    merged = f"{name}, Blahut-Arimoto, merged rows"
    yield (
        "curves",
        f"{name}, Blahut-Arimoto",
        lambda: paper_curve(
            task(), settings, next(row for row in results["curves"] if row["key"] == merged)
        ),
    )


def derive(results):
    """Ratios to ours, slopes and targets, from the rows that are there."""
    for rows, fields in ((results["points"], ("table", "lam")), (results["curves"], ("table",))):
        for row in rows:
            own = [r for r in rows if r["tool"] == "ours" and all(r[f] == row[f] for f in fields)]
            row["times_ours"] = row["seconds"] / own[0]["seconds"] if own else None
    grown = (("growth_inputs", "inputs"), ("growth_experts", "experts"))
    results["slopes"] = [
        slope(results[section], axis) for section, axis in grown if len(results[section]) > 1
    ]
    results["targets"] = list(targets(results))


def targets(results):
    """What the solver was to reach on two cores: name, value, limit, and whether it is met."""

    def row(target, value, limit, at_most=True):
        met = value <= limit if at_most else value >= limit
        return dict(target=target, value=value, limit=limit, at_most=at_most, met=bool(met))

    curves = {(r["table"], r["tool"]): r for r in results["curves"]}
    for inputs, limit in ((2_000, 0.012), (10_000, 0.020), (60_000, 0.090)):
        name = bank_name(inputs)
        if (name, "ours") in curves:
            yield row(f"seconds for 100 points, {name}", curves[name, "ours"]["seconds"], limit)
        for tool, least in (("Blahut-Arimoto, merged rows", 1_000), ("Blahut-Arimoto", 10_000)):
            if (name, tool) in curves and curves[name, tool]["times_ours"]:
                yield row(
                    f"times faster than {tool}, {name}",
                    curves[name, tool]["times_ours"],
                    least,
                    at_most=False,
                )
    if results["own_gap"]:
        yield row(
            "least SLSQP / ours at SLSQP's gap",
            min(r["ratio"] for r in results["own_gap"]),
            1,
            at_most=False,
        )
    if results["floor"]:
        last = results["floor"][-1]
        yield row(f"times the floor of products, {last['table']}", last["ratio"], 2)
    if results["memory"]:
        yield row("peak memory in tables", results["memory"][0]["multiple"], 2.5)
    if results["imports"]:
        yield row("seconds of import beyond NumPy's", results["imports"][0]["difference"], 0.15)


def machine():
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
            model,
        )
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    facts = dict(
        processor=model,
        cores=os.cpu_count(),
        system=platform.platform(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        blas=f"{blas['name']} {blas['version']}",
        openblas_num_threads=os.environ.get("OPENBLAS_NUM_THREADS"),
    )
    with contextlib.suppress(ImportError):
        import scipy.linalg  # noqa: F401  SciPy brings a BLAS of its own
        from threadpoolctl import threadpool_info

        facts["blas_threads"] = [
            f"{p['internal_api']} {p['version']}: {p['num_threads']}" for p in threadpool_info()
        ]
    return facts


def versions():
    found = dict(python=platform.python_version())
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def opened(path, settings, only):
    """The results so far, without the sections that are asked for anew."""
    results = read_json(path) if path.exists() else {}
    if results and results["settings"] != json.loads(json.dumps(settings)):
        raise SystemExit(f"{path} was begun with other settings; choose another folder")
    for section in SECTIONS:
        if section not in results or (section in only and results.get("complete")):
            results[section] = []
    facts = dict(
        date=datetime.date.today().isoformat(),
        complete=False,
        settings=settings,
        machine=machine(),
        versions=versions(),
    )
    return facts | {key: value for key, value in results.items() if key not in facts}


def write(results, path):
    text = json.dumps(results, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def run(folder, settings, only):
    """Every row that is missing; what is not complete stands in no manifest."""
    if not only:
        folders.begin(folder, RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULTS
    results = opened(path, settings, only)
    folders.reopen(folder, ABOUT, RESULTS)
    begun = time.perf_counter()
    for section, key, function in jobs(settings, results):
        if (only and section not in only) or any(row["key"] == key for row in results[section]):
            continue
        start = time.perf_counter()
        row = dict(key=key, **function())
        results[section].append(row)
        derive(results)
        write(results, path)
        told = {
            name: row[name]
            for name in ("seconds", "gap", "worst_gap", "ratio", "multiple")
            if name in row
        }
        numbers = " ".join(f"{name} {value:.3g}" for name, value in told.items())
        now = time.perf_counter()
        print(f"[{now - begun:6.0f} s, +{now - start:.1f}] {section}: {key}: {numbers}", flush=True)
    results["complete"] = all(results[section] for section in SECTIONS)
    write(results, path)
    if results["complete"]:
        folders.finish(folder, ABOUT, RESULTS)
    for row in results["targets"]:
        print(
            f"{'met   ' if row['met'] else 'MISSED'} {row['target']}: {row['value']:.4g} "
            f"(limit {row['limit']:g})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="every row, on small tables with small caps"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        default=(),
        metavar="SECTION",
        help=", ".join(SECTIONS),
    )
    parser.add_argument(
        "--cap", type=float, help="seconds after which a peer is stopped at one price"
    )
    parser.add_argument(
        "--patience", type=float, help="seconds after which a row is not repeated any more"
    )
    parser.add_argument(
        "--streaming", type=int, nargs="*", help="numbers of inputs of the tables on disk"
    )
    parser.add_argument("--out", type=Path, help="folder; default build/benchmarks/full or quick")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        kind, inputs, experts, lam = args.child
        children = dict(memory=memory_child, streaming=streaming_child)
        print(json.dumps(children[kind](int(inputs), int(experts), float(lam))))
        return
    chosen = {name: getattr(args, name) for name in ("cap", "patience", "streaming")}
    settings = (QUICK if args.quick else FULL) | {
        name: v for name, v in chosen.items() if v is not None
    }
    folder = ROOT / "build" / "benchmarks" / ("quick" if args.quick else "full")
    run(args.out or folder, settings, args.only)


if __name__ == "__main__":
    main()
