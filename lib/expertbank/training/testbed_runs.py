"""The testbed runs that the book ships: trained side by side, resumed when stopped, sealed when
whole."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from expertbank.shipped.manifest import check_free
from expertbank.shipped.testbed import EXAMPLES, save_testbed
from expertbank.training.corpus import (
    COMMIT,
    CORPUS_SHA256,
    MIXES,
    Mix,
    classifier_accuracy,
    load_mix,
    placed_tokens,
)
from expertbank.training.resumable import pack_run, provenance, resumed, run_missing, unpack_run
from expertbank.training.testbed_model import SIZES, Run, train_run

SCOPES = (1, 2, 8, 16, 64)
RUN_SEEDS = 3
# of what a claim is judged by: LBL, SH and BA at both ends of the scope, LBL there under a cap, EB,
# no balance and the reference
CONTRAST_SEEDS = 8
# of LBL and of EB: from P3's grid of powers of two
BALANCE_WEIGHT = 0.125
BIAS_STEP = 2.0**-7
EXAMPLE_SEQUENCES = 512
SHIPPED_TYPES = {"chosen": np.int8, "weights": np.float16, "domain": np.uint8, "tokens": np.uint16}
MAIN_CONTRASTS = {"weight": BALANCE_WEIGHT, "step": BIAS_STEP, "seeds": RUN_SEEDS}
MAIN_CONTRASTS["seeds_of_main_contrasts"] = CONTRAST_SEEDS


def shipped_runs(size: str = "small") -> list[Run]:
    """The runs of one size: the main contrasts three times, then strengths, and methods at the
    scopes between.

    >>> runs = shipped_runs()
    >>> len(runs), runs[0].name
    (130, 'scripts-LBL-1-0.125-seed0')
    """
    whole = SIZES[size].n_sequences
    scopes = [scope for scope in SCOPES if scope < whole] + [whole]
    ends = (scopes[0], whole)

    def repeated(**given) -> list[Run]:
        return [Run(seed=seed, size=size, **given) for seed in range(RUN_SEEDS)]

    def once(**given) -> list[Run]:
        return [Run(size=size, **given)]

    runs = []
    for mix, between in (("scripts", scopes), ("latin", (1, 8, whole))):
        for scope in between:
            runs += repeated(mix=mix, scope=scope, strength=BALANCE_WEIGHT)
        runs += repeated(mix=mix, method="none")
        runs += repeated(mix=mix, method="reference", strength=BALANCE_WEIGHT)
    for method in ("SH", "BA"):
        for scope in ends:
            runs += repeated(method=method, scope=scope)
    runs += repeated(method="EB", scope=whole, strength=BIAS_STEP)
    for capacity in (1.0, 1.25):
        for scope in ends:
            runs += repeated(scope=scope, strength=BALANCE_WEIGHT, capacity=capacity)
    # is the cap's own scope what counts, the reference without freedom, scopes between, other
    # strengths
    runs += once(scope=whole, strength=BALANCE_WEIGHT, capacity=1.0, capacity_scope=whole)
    runs += once(method="reference", strength=BALANCE_WEIGHT, placed=1.0)
    for method in ("SH", "BA"):
        runs += once(method=method, scope=8)
    for strength in (2.0**-9, 2.0**-6, 1.0):
        for scope in ends:
            runs += once(scope=scope, strength=strength)
    for strength in (2.0**-10, 2.0**-5):
        runs += once(method="EB", scope=whole, strength=strength)
    # eight seeds in all, so that a test of paired runs can reach a p-value of 2/256
    further = range(RUN_SEEDS, CONTRAST_SEEDS)
    for method, strength in (("LBL", BALANCE_WEIGHT), ("SH", 0.0), ("BA", 0.0)):
        for scope in ends:
            for seed in further:
                runs += once(method=method, scope=scope, strength=strength, seed=seed)
    for seed in further:
        runs += once(method="reference", strength=BALANCE_WEIGHT, seed=seed)
        runs += once(method="none", seed=seed)
        runs += once(method="EB", scope=whole, strength=BIAS_STEP, seed=seed)
        for scope in ends:
            runs += once(scope=scope, strength=BALANCE_WEIGHT, capacity=1.0, seed=seed)
    return runs


def train_testbed(
    folder: str | os.PathLike,
    size: str = "small",
    root: str | os.PathLike | None = None,
    download: bool = False,
    n_jobs: int | None = None,
    device: str | None = None,
) -> None:
    """Train `shipped_runs(size)` and write results into `folder`; a large run takes a GPU where
    there is one.

    Finished runs wait in `<folder>.partial`, so a killed run goes on where it stopped. Raises
    FileExistsError where `folder` holds something, ValueError where the partial run has another
    recipe or where another run is at work on it.

    >>> train_testbed("testbed", download=True, n_jobs=2)  # two hours  # doctest: +SKIP
    """
    check_free(folder, "a testbed")
    if device is None:
        device = "cuda" if size == "large" and torch.cuda.is_available() else "cpu"
    runs = shipped_runs(size)
    mixes = {name: load_mix(name, root, download) for name in MIXES}
    manifest = _manifest(size, mixes, device)
    with resumed(folder, manifest, "a testbed") as (partial, whole):
        tasks = {}
        for run in runs:
            mix = mixes[run.mix]
            arrays = (mix.train, mix.held_out, mix.vocabulary, placed_tokens(mix, run.placed))
            tasks[partial / f"{run.name}.npz"] = (_trained, run, *arrays, device)
        run_missing(tasks, "runs", n_jobs if device == "cpu" else 1)
        _assemble(whole, dict(zip(tasks, runs, strict=True)), manifest)


def _assemble(folder: Path, runs: dict[Path, Run], manifest: dict) -> None:
    rows = []
    routing = {}
    for path, run in runs.items():
        numbers, arrays = unpack_run(path)
        rows.append(asdict(run) | numbers)
        if run.name in EXAMPLES:
            routing[EXAMPLES[run.name]] = _by_token(arrays)
    save_testbed(folder, rows, routing, manifest)


def _trained(
    run: Run,
    train: np.ndarray,
    held_out: np.ndarray,
    vocabulary: int,
    placed: np.ndarray,
    device: str,
) -> bytes:
    numbers, routing = train_run(run, train, held_out, vocabulary, placed, device)
    shipped = {}
    if run.name in EXAMPLES:
        for name, dtype in SHIPPED_TYPES.items():
            shipped[name] = routing[name][:EXAMPLE_SEQUENCES].astype(dtype)
    return pack_run(numbers, shipped)


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


def _manifest(size: str, mixes: dict[str, Mix], device: str) -> dict:
    return {
        "title": f"Routing testbed after P3, {size} size: {len(shipped_runs(size))} runs",
        "recipe": asdict(SIZES[size]) | MAIN_CONTRASTS,
        **made_with(mixes, device),
    }


def made_with(mixes: dict[str, Mix], device: str) -> dict:
    """What a manifest says of the data, the packages and the machine that runs were made with.

    >>> list(made_with({}, "cpu"))
    ['data', 'corpus', 'versions', 'trained_on', 'source']
    """
    return {
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
            for name, mix in mixes.items()
        },
        "corpus": {"commit": COMMIT, "sha256": CORPUS_SHA256},
        **provenance("numpy", "torch", "tokenizers", device=device),
        "source": "bible-corpus (Christodouloupoulos & Steedman 2015), CC0 1.0; "
        "these results: this project, CC0 1.0",
    }
