"""Counting what routers choose beside plain NumPy and SciPy: python benchmarks/routers.py (about
five minutes; the recorder needs the extra `transformers`)

    python benchmarks/routers.py                        everything, into build/benchmarks/full
    python benchmarks/routers.py --quick                small sizes, into build/benchmarks/quick
    python benchmarks/routers.py --out data/benchmarks  everything, into what the book ships

The folder holds routers.csv, a row a case, written whole after every row: a run that was
interrupted goes on where it stopped, and finished rows are refused. `seconds` is of ours (a
token, where a batch is counted), `plain` of the plain version of the same tables (of a recorder: of
the forward alone; of one token: with room for few positions), `ratio` ours over plain, or what a
recorder adds, `limit` what was aimed at. Both run in turns, `repetitions` times, and are medians of
the processor's seconds of one thread: others on the machine change the clock's seconds (`wall`)
and hardly these. `load` is how many processes wanted a processor when the row was begun.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import datetime
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import folders
import numpy as np
import scipy.special

from expertbank._files import write_atomically
from expertbank.routers import RouterStatistics, record_routing, statistics_of

ROOT = Path(__file__).parents[1]
RESULTS = "routers.csv"
FIELDS = (
    "section",
    "case",
    "seconds",
    "plain",
    "ratio",
    "limit",
    "unit",
    "wall",
    "megabytes",
    "repetitions",
    "load",
    "date",
    "machine",
    "numpy",
)
SHAPES = ((64, 8), (256, 8), (64, 2))  # experts, chosen
FULL = {
    "tokens": 32_768,
    "repetitions": 15,
    "updates": 300,
    "positions": 4096,
    "file_bytes": 10**9,
    "layers": 61,
    "experts": 256,
    "texts": (4, 128),
    "forwards": {"128": 11, "1": 99, "generate": 15},
    "generated": 16,
    "hidden": 512,
}
QUICK = {
    "tokens": 512,
    "repetitions": 3,
    "updates": 3,
    "positions": 64,
    "file_bytes": 10**5,
    "layers": 2,
    "experts": 16,
    "texts": (2, 16),
    "forwards": {"16": 2, "1": 2, "generate": 2},
    "generated": 3,
    "hidden": 16,
}
# of the C library: no page goes back to the system
KEPT_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_MMAP_THRESHOLD_": "8000000000"}
Settings = dict[str, Any]
Row = dict[str, Any]


# --- the plain version ---


def plain_choices(chosen: np.ndarray, n_experts: int) -> tuple[np.ndarray, ...]:
    """Tokens by how many experts they took, slots (E,) and pairs (E, E): what anyone would write,
    without a check, for rows (n, k) in which nothing is missing."""
    k = chosen.shape[1]
    sizes = np.bincount((chosen >= 0).sum(axis=1), minlength=k + 1)
    slots = np.bincount(chosen.ravel(), minlength=n_experts)
    pairs = np.zeros(n_experts**2, np.int64)
    for i in range(k):
        for j in range(i + 1, k):
            pairs += np.bincount(chosen[:, i] * n_experts + chosen[:, j], minlength=n_experts**2)
    pairs = pairs.reshape(n_experts, n_experts)
    return sizes, slots, pairs + pairs.T


def plain_sets_of_two(chosen: np.ndarray, n_experts: int) -> np.ndarray:
    """How often each set of two was taken."""
    low = chosen.min(axis=1)
    high = chosen.max(axis=1)
    return np.bincount(high * (high - 1) // 2 + low, minlength=n_experts * (n_experts - 1) // 2)


def plain_amounts(
    chosen: np.ndarray, weights: np.ndarray, probabilities: np.ndarray
) -> tuple[Any, ...]:
    """Load by weight, mean probabilities, and the sums of both entropies."""
    n_experts = probabilities.shape[1]
    share = weights / weights.sum(axis=1, keepdims=True)
    load = np.bincount(chosen.ravel(), share.ravel(), n_experts)
    scaled = probabilities / probabilities.sum(axis=1, keepdims=True)
    entropies = scipy.special.entr(share).sum(), scipy.special.entr(scaled).sum()
    return load, scaled.sum(axis=0), *entropies


# --- clocks ---


def in_turns(
    runs: list[Callable[[], Any]], repetitions: int, within: list[Any] | None = None
) -> tuple[list[float], list[float], list[float]]:
    """Medians of the processor's and the clock's seconds of each run, and the ratios of the first
    to the second, round by round. `within` are contexts that they run in, which are not timed."""
    if within is None:
        within = [contextlib.nullcontext() for _ in runs]
    cpu: list[list[float]] = [[] for _ in runs]
    wall: list[list[float]] = [[] for _ in runs]
    for repetition in range(repetitions + 1):
        for place, run in enumerate(runs):
            with within[place]:
                start = time.perf_counter()
                begun = time.process_time()
                run()
                spent = time.process_time() - begun
                passed = time.perf_counter() - start
            if repetition:  # the first makes what is made once
                cpu[place].append(spent)
                wall[place].append(passed)
    ratios = np.array(cpu[0]) / np.maximum(cpu[-1], 1e-9)
    return [float(np.median(x)) for x in cpu], [float(np.median(x)) for x in wall], list(ratios)


def compared(
    runs: list[Callable[[], Any]],
    repetitions: int,
    limit: float,
    unit: str,
    within: list[Any] | None = None,
) -> Row:
    """The fields of a row, of ours and the plain run."""
    cpu, wall, ratios = in_turns(runs, repetitions, within)
    return {
        "seconds": cpu[0],
        "plain": cpu[1],
        "ratio": float(np.median(ratios)),
        "limit": limit,
        "unit": unit,
        "wall": wall[0],
        "repetitions": repetitions,
    }


# --- what is measured ---


def batch_of(n: int, n_experts: int, k: int) -> tuple[np.ndarray, ...]:
    """Choices, weights and probabilities of n tokens, the last two in single precision."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(n_experts, 0.3), n).astype(np.float32)
    chosen = np.argpartition(-probabilities, k - 1, axis=1)[:, :k].astype(np.int64)
    weights = np.take_along_axis(probabilities, chosen, axis=1) + np.float32(1e-6)
    return chosen, weights, probabilities


def update_row(settings: Settings, shape: tuple[int, int], has_amounts: bool) -> Row:
    """One batch of a layer, choices alone or with weights and probabilities."""
    n_experts, k = shape
    chosen, weights, probabilities = batch_of(settings["tokens"], n_experts, k)
    statistics = RouterStatistics(n_experts, k)

    def ours() -> None:
        if has_amounts:
            statistics.update(0, chosen, weights, probabilities)
        else:
            statistics.update(0, chosen)

    def plain() -> None:
        plain_choices(chosen, n_experts)
        if k == 2:
            plain_sets_of_two(chosen, n_experts)
        if has_amounts:
            plain_amounts(chosen, weights, probabilities)

    row = compared([ours, plain], settings["repetitions"], 1.5, "times plain")
    for name in ("seconds", "plain", "wall"):
        row[name] /= len(chosen)
    return row


def token_row(settings: Settings) -> Row:
    """One token, with room for many positions, and for few."""
    counted = []
    for n_positions in (settings["positions"], 16):
        counted.append(RouterStatistics(256, 8, n_domains=8, n_positions=n_positions))
    chosen, weights, probabilities = batch_of(1, 256, 8)
    labels = {"domain": [3], "position": [7]}

    def update(statistics: RouterStatistics) -> Callable[[], None]:
        return lambda: statistics.update(0, chosen, weights, probabilities, **labels)

    runs = [update(statistics) for statistics in counted]
    row = compared(runs, settings["updates"], 0.0002, "seconds")
    return row


def model_of(settings: Settings) -> Any:
    """A Qwen3-MoE of that many layers and experts. It is narrow (no model of 256 experts is below
    2,048), so what a recorder adds is an upper bound; and layers share the parameters of their
    experts, so that it fits into memory."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden = settings["hidden"]
    config = Qwen3MoeConfig(
        vocab_size=256,
        hidden_size=hidden,
        intermediate_size=hidden,
        moe_intermediate_size=hidden // 4,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=hidden // 2,
        num_experts=settings["experts"],
        num_experts_per_tok=8,
    )
    model = Qwen3MoeForCausalLM(config).eval()
    first = model.model.layers[0]
    shared = {id(parameter): parameter for parameter in first.mlp.experts.parameters()}
    for _ in range(1, settings["layers"]):
        model.model.layers.append(copy.deepcopy(first, dict(shared)))
    config.num_hidden_layers = settings["layers"]
    return model


def recorder_row(settings: Settings, length: int | str) -> Row:
    """What a recorder adds to a forward of texts of that length, or to generating from one token
    each, with the cache that generating keeps; in a process of its own.

    There memory that was freed stays with the process. Else the C library hands pages back and
    takes them again in every forward, with a recorder or without, and the time of that, up to a
    tenth of a forward, differs from one to the next.
    """
    return from_child("recorder", {"settings": settings, "length": length}, KEPT_MEMORY)


def recorded(settings: Settings, length: int | str) -> Row:
    """The row of `recorder_row`."""
    import torch

    model = model_of(settings)
    generates = length == "generate"
    tokens = torch.randint(0, 256, (settings["texts"][0], 1 if generates else int(length)))
    n = settings["generated"]

    def forward() -> None:
        with torch.no_grad():
            if generates:
                model.generate(tokens, min_new_tokens=n, max_new_tokens=n, do_sample=False)
            else:
                model(input_ids=tokens, use_cache=False)

    within = [record_routing(model), contextlib.nullcontext()]
    limit = (0.05, "of the forward")
    row = compared([forward, forward], settings["forwards"][str(length)], *limit, within)
    return row | {"ratio": row["ratio"] - 1}


def from_child(what: str, given: dict[str, Any], more: dict[str, str] | None = None) -> Row:
    """What a process of its own measured, with more variables in its environment."""
    command = [sys.executable, __file__, "--child", what, json.dumps(given)]
    environment = os.environ | (more or {})
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def file_row(settings: Settings) -> Row:
    """Reading a file of choices, in a process of its own, whose memory is all that it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "routes.npz")
        write_requests(path, settings["file_bytes"])
        found = from_child("file", {"path": str(path)})
    return found | {"limit": 20.0, "unit": "seconds", "repetitions": 1}


def write_requests(path: Path, n_bytes: int) -> None:
    """Requests of 1,024 tokens, 16 layers and 8 of 64 experts as vLLM returns them, in 2 bytes."""
    rng = np.random.default_rng(0)
    ids = rng.random((1024, 16, 64)).argpartition(7, axis=2)[:, :, :8].astype(np.int16)
    n_requests = max(1, n_bytes // ids.nbytes)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(n_requests):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.roll(ids, i, axis=0))
            archive.writestr(f"routed_experts_{i}.npy", buffer.getvalue())


def read(path: str) -> Row:
    """What reading a file took."""
    begun = time.process_time()
    start = time.perf_counter()
    statistics = statistics_of(path, n_experts=64, n_chosen=8, n_domains=0)
    found = {"seconds": time.process_time() - begun, "wall": time.perf_counter() - start}
    assert len(statistics.layers) == 16
    lines = Path("/proc/self/status").read_text().splitlines()
    found["megabytes"] = next(int(x.split()[1]) / 1000 for x in lines if x.startswith("VmHWM"))
    return found


def jobs(settings: Settings) -> list[tuple[str, str, Callable[[], Row]]]:
    """Every row in order: (section, case, function)."""
    found: list[tuple[str, str, Callable[[], Row]]] = []
    for n_experts, k in SHAPES:
        for what, has_amounts in (("choices", False), ("weights and probabilities too", True)):
            case = f"{n_experts} experts, {k} a token, {what}"
            run = partial(update_row, settings, (n_experts, k), has_amounts)
            found.append(("update", case, run))
    found.append(("token", f"{settings['positions']:,} positions", partial(token_row, settings)))
    rows, length = settings["texts"]
    cases = {
        f"{rows} texts of {length}": length,
        f"{rows} tokens": 1,
        f"{rows} texts, {settings['generated']} tokens generated": "generate",
    }
    for case, n in cases.items():
        found.append(("recorder", case, partial(recorder_row, settings, n)))
    size = f"{settings['file_bytes'] / 1e9:g} GB"
    found.append(("file", size, partial(file_row, settings)))
    return found


# --- the run ---


def read_rows(path: Path) -> list[Row]:
    """The rows so far; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(rows: list[Row], path: Path) -> None:
    """All rows, or the file as it was."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        numbers = {key: f"{x:.6g}" if isinstance(x, float) else x for key, x in row.items()}
        writer.writerow(numbers)
    write_atomically(path, lambda file: file.write(buffer.getvalue().encode()))


def machine_of() -> str:
    """Its processor and cores."""
    from solver import machine  # with all its peers, which a child goes without

    facts = machine()
    return f"{facts['processor']}, {facts['cores']} cores"


def run(folder: Path, settings: Settings) -> None:
    """Every row that is missing; what is not complete stands in no manifest."""
    path = folders.begin(folder, RESULTS)
    rows = read_rows(path)
    for section, case, function in jobs(settings):
        if any((row["section"], row["case"]) == (section, case) for row in rows):
            continue
        row = {"section": section, "case": case, "load": os.getloadavg()[0], **function()}
        row["date"] = datetime.date.today().isoformat()
        row["machine"] = machine_of()
        row["numpy"] = np.__version__
        rows.append(row)
        write_rows(rows, path)
        names = [name for name in ("seconds", "plain", "ratio", "megabytes") if name in row]
        told = " ".join(f"{name} {row[name]:.3g}" for name in names)
        print(f"{section}: {case}: {told}", flush=True)
    folders.finish(folder, ABOUT, RESULTS)


ABOUT = {
    "title": "The distortion-rate solver beside its peers, and counting what routers choose",
    "recipe": "python benchmarks/solver.py; python benchmarks/routers.py",
    "source": "made by this project; CC0 1.0",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="every row, on small sizes")
    parser.add_argument("--out", type=Path, help="folder; default build/benchmarks/full or quick")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, given = args.child
        measured = {"file": read, "recorder": recorded}[what](**json.loads(given))
        print(json.dumps(measured))
        return
    folder = ROOT / "build" / "benchmarks" / ("quick" if args.quick else "full")
    run(args.out or folder, QUICK if args.quick else FULL)


if __name__ == "__main__":
    main()
