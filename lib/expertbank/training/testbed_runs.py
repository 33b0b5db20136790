"""The grid of testbed runs that the book ships: trained side by side, resumed when stopped, sealed
when whole."""

from __future__ import annotations

import io
import platform
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from expertbank.shipped.manifest import check_free
from expertbank.shipped.testbed import EXAMPLES, save_testbed
from expertbank.training.corpus import (
    COMMIT,
    CORPUS_SHA256,
    MIXES,
    classifier_accuracy,
    load_mix,
    placed_tokens,
)
from expertbank.training.resumable import open_partial, run_jobs
from expertbank.training.testbed_model import SIZES, Run, train_run

SCOPES = (1, 2, 8, 16, 64)
N_SEEDS = 3
WEIGHT, STEP = 0.125, 2.0**-7  # of LBL and of EB: from P3's grid of powers of two
EXAMPLE_SEQUENCES = 512


def default_grid(size: str = "small") -> list[Run]:
    """The runs of one size: the main contrasts three times, then strengths, and methods at the
    scopes between."""
    whole, seeds = SIZES[size].n_sequences, range(N_SEEDS)
    scopes = [scope for scope in SCOPES if scope < whole] + [whole]
    ends = (scopes[0], whole)

    def runs(seeds, **given):
        return [Run(seed=seed, size=size, **given) for seed in seeds]

    grid = []
    for mix, between in (("scripts", scopes), ("latin", (1, 8, whole))):
        for scope in between:
            grid += runs(seeds, mix=mix, scope=scope, strength=WEIGHT)
        grid += runs(seeds, mix=mix, method="none") + runs(
            seeds, mix=mix, method="reference", strength=WEIGHT
        )
    for method in ("SH", "BA"):
        for scope in ends:
            grid += runs(seeds, method=method, scope=scope)
    grid += runs(seeds, method="EB", scope=whole, strength=STEP)
    for capacity in (1.0, 1.25):
        for scope in ends:
            grid += runs(seeds, scope=scope, strength=WEIGHT, capacity=capacity)
    # once each: is the cap's own scope what counts, the reference without freedom, scopes between,
    # other strengths
    grid += runs([0], scope=whole, strength=WEIGHT, capacity=1.0, capacity_scope=whole)
    grid += runs([0], method="reference", strength=WEIGHT, placed=1.0)
    for method in ("SH", "BA"):
        grid += runs([0], method=method, scope=8)
    for strength in (2.0**-9, 2.0**-6, 1.0):
        for scope in ends:
            grid += runs([0], scope=scope, strength=strength)
    for strength in (2.0**-10, 2.0**-5):
        grid += runs([0], method="EB", scope=whole, strength=strength)
    return grid


def train_testbed(
    folder, size: str = "small", root=None, download: bool = False, n_jobs=None, device=None
) -> None:
    """Train `default_grid(size)` and write results into `folder`; a large run takes a GPU where
    there is one.

    Finished runs wait in `<folder>.partial`, so a killed run goes on where it stopped. Raises
    FileExistsError where `folder` holds a testbed.
    """
    folder, grid = Path(folder), default_grid(size)
    check_free(folder, "a testbed")
    device = device or ("cuda" if size == "large" and torch.cuda.is_available() else "cpu")
    data = {name: load_mix(name, root, download) for name in MIXES}
    partial = open_partial(folder, {"size": size, **asdict(SIZES[size])})
    jobs = {}
    for run in grid:
        mix = data[run.mix]
        arrays = mix.train, mix.held_out, mix.vocabulary, placed_tokens(mix, run.placed)
        jobs[partial / f"{run.name}.npz"] = (_trained, run, *arrays, device)
    run_jobs(jobs, "runs", n_jobs if device == "cpu" else 1)
    rows, routing = [], {}
    for run, path in zip(grid, jobs, strict=True):
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        rows.append(
            asdict(run)
            | dict(zip(arrays.pop("names").tolist(), arrays.pop("values").tolist(), strict=True))
        )
        if run.name in EXAMPLES:
            routing[EXAMPLES[run.name]] = _by_token(arrays)
    save_testbed(folder, rows, routing, _manifest(size, data))
    shutil.rmtree(partial)


def _trained(run: Run, train, held_out, vocabulary: int, placed, device: str) -> bytes:
    numbers, routing = train_run(run, train, held_out, vocabulary, placed, device)
    shipped = {}
    if run.name in EXAMPLES:
        chosen, weights, domain, tokens = (
            routing[name][:EXAMPLE_SEQUENCES] for name in ("chosen", "weights", "domain", "tokens")
        )
        shipped = {"chosen": chosen.astype(np.int8), "weights": weights.astype(np.float16)}
        shipped |= {"domain": domain.astype(np.uint8), "tokens": tokens.astype(np.uint16)}
    file = io.BytesIO()
    np.savez_compressed(file, names=list(numbers), values=list(numbers.values()), **shipped)
    return file.getvalue()


def _by_token(routing: dict) -> dict:
    """Routing of whole sequences (S, L, ...) as a row for each token, which `routers.formats`
    reads."""
    n_sequences, length = routing["tokens"].shape
    return {
        "n_experts": SIZES["small"].n_experts,
        "chosen": routing["chosen"].reshape(-1, routing["chosen"].shape[2]),
        "weights": routing["weights"].reshape(-1, routing["weights"].shape[2]),
        "domain": np.repeat(routing["domain"], length),
        "sequence": np.repeat(np.arange(n_sequences, dtype=np.int32), length),
        "position": np.tile(np.arange(length, dtype=np.int16), n_sequences),
        "token": routing["tokens"].ravel(),
    }


def _manifest(size: str, data: dict) -> dict:
    return {
        "format": 1,
        "title": f"Routing testbed after P3, {size} size: {len(default_grid(size))} runs",
        "recipe": asdict(SIZES[size]) | {"weight": WEIGHT, "step": STEP, "seeds": N_SEEDS},
        "data": {
            name: {
                "languages": list(mix.languages),
                "vocabulary": mix.vocabulary,
                "train_sequences": mix.train.shape[1],
                "held_out_sequences": mix.held_out.shape[1],
                "sequence_length": mix.train.shape[2],
                "classifier_accuracy": round(classifier_accuracy(mix), 4),
                "placed_accuracy": round(classifier_accuracy(mix, placed_tokens(mix)), 4),
            }
            for name, mix in data.items()
        },
        "corpus": {"commit": COMMIT, "sha256": CORPUS_SHA256},
        "versions": {name: version(name) for name in ("numpy", "torch", "tokenizers")},
        "trained_on": {"machine": platform.machine(), "python": platform.python_version()},
        "source": "bible-corpus (Christodoulopoulos & Steedman 2015), CC0 1.0; these results: this project, CC0 1.0",
    }
