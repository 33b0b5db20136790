"""Small banks on MNIST-1D (Greydanus & Kobak 2020), which a seed generates: each takes a second.

The experts of a bank are perceptrons with one hidden layer, trained side by side by gradient
descent, each on images of its own and for a number of steps of its own.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import nn

from expertbank._files import write_atomically
from expertbank.information import entropy
from expertbank.learners import empirical_risks
from expertbank.shipped.manifest import check_free, seal
from expertbank.shipped.small_banks import (
    SMALL_BANKS_FILE,
    SMALL_RATIOS,
    SMALL_SAMPLES,
    SMALL_SIZES,
    spread_and_noise,
)
from expertbank.training.resumable import provenance, resumed, run_missing


@dataclass(frozen=True)
class SmallRecipe:
    """Everything that determines the small banks. Bank b draws from `SeedSequence([seed, b])`."""

    n_banks: int = 300
    n_images: int = 5_000
    subset_size: int = 1_000
    hidden: int = 32
    steps: int = 80
    batch_size: int = 100
    learning_rate: float = 0.4
    n_datasets: int = 1_000
    seed: int = 0


def mnist1d_images(recipe: SmallRecipe) -> tuple[np.ndarray, np.ndarray]:
    """MNIST-1D anew from its seed: signals (N, 40) of mean 0 and deviation 1, labels (N,).

    >>> signals, labels = mnist1d_images(SmallRecipe(n_images=100))
    >>> signals.shape, round(float(signals.std()), 3), sorted(set(labels.tolist()))
    ((100, 40), 1.0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    from mnist1d.data import get_dataset_args, make_dataset

    wanted: Any = get_dataset_args()
    wanted.num_samples = recipe.n_images
    wanted.train_split = 1.0
    made = make_dataset(wanted)
    return made["x"].astype(np.float32), made["y"].astype(np.int64)


def small_bank(
    signals: np.ndarray, labels: np.ndarray, recipe: SmallRecipe, bank: int, ratio: float
) -> np.ndarray:
    """The 0-1 losses (N, 32) of a bank on all signals (N, 40). Its experts train for numbers of
    steps between steps/sqrt(ratio) and steps sqrt(ratio), uniform in the logarithm.

    >>> recipe = SmallRecipe(n_images=100, subset_size=50, steps=5)
    >>> small_bank(*mnist1d_images(recipe), recipe, bank=0, ratio=3).shape
    (100, 32)
    """
    rng = np.random.default_rng([recipe.seed, bank])
    n_experts = max(SMALL_SIZES)
    powers = rng.uniform(-0.5, 0.5, n_experts)
    steps = np.rint(recipe.steps * ratio**powers).astype(int)
    own = np.stack([rng.permutation(len(labels))[: recipe.subset_size] for _ in range(n_experts)])
    shapes = [(signals.shape[1], recipe.hidden), (recipe.hidden, 10)]
    weights = [rng.standard_normal((n_experts, *s)) * (2 / s[0]) ** 0.5 for s in shapes]
    tensors = [torch.tensor(w, dtype=torch.float32, requires_grad=True) for w in weights]
    biases = [torch.zeros(n_experts, 1, s[1], requires_grad=True) for s in shapes]
    x = torch.from_numpy(signals)
    y = torch.from_numpy(labels)
    learns_until = torch.from_numpy(steps)
    optimizer = torch.optim.SGD([*tensors, *biases], lr=recipe.learning_rate)
    for step in range(steps.max()):
        chosen = rng.integers(recipe.subset_size, size=(n_experts, recipe.batch_size))
        images = torch.from_numpy(np.take_along_axis(own, chosen, axis=1))
        scores = _scores(x[images], tensors, biases)
        losses = nn.functional.cross_entropy(scores.mT, y[images], reduction="none").mean(1)
        optimizer.zero_grad()
        (losses * (step < learns_until)).sum().backward()
        optimizer.step()
    with torch.no_grad():
        answers = _scores(x.expand(n_experts, -1, -1), tensors, biases).argmax(2)
    return (answers != y).T.numpy().astype(np.uint8)


def _scores(
    signals: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor]
) -> torch.Tensor:
    """Logits (R, N, 10) of every expert for signals of its own (R, N, 40)."""
    hidden = torch.relu(torch.baddbmm(biases[0], signals, weights[0]))
    return torch.baddbmm(biases[1], hidden, weights[1])


def small_bank_numbers(
    losses: np.ndarray, n_datasets: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """What `SmallBanks` holds of one bank, by the losses (N, 32) of its experts: the first 4, 8,
    16 and all of them are the smaller banks.

    >>> losses = np.random.default_rng(0).integers(0, 2, (200, 32))
    >>> found = small_bank_numbers(losses, n_datasets=10, rng=np.random.default_rng(1))
    >>> found["gaps"].shape, bool((found["information"] <= np.log([4, 8, 16, 32])[:, None]).all())
    ((4, 4), True)
    """
    heads = [losses[:, :size] for size in SMALL_SIZES]
    parts = [spread_and_noise(head) for head in heads]
    information = np.empty((len(SMALL_SIZES), len(SMALL_SAMPLES)))
    gaps = np.empty_like(information)
    mean = losses.mean(axis=0)
    for column, sample_size in enumerate(SMALL_SAMPLES):
        risks = empirical_risks(losses, sample_size, n_datasets, rng)
        for row, size in enumerate(SMALL_SIZES):
            winners = risks[:, :size].argmin(axis=1)
            information[row, column] = entropy(np.bincount(winners, minlength=size) / n_datasets)
            gaps[row, column] = np.mean(mean[winners] - risks[:, :size].min(axis=1))
    return {
        "errors": np.array([head.mean() for head in heads]),
        "spreads": np.array([spread for spread, _ in parts]),
        "noises": np.array([noise for _, noise in parts]),
        "information": information,
        "gaps": gaps,
    }


def train_small_banks(
    folder: str | os.PathLike, recipe: SmallRecipe | None = None, n_jobs: int | None = None
) -> None:
    """Train the small banks, measure them and write `folder`; a killed run goes on where it
    stopped.

    Raises FileExistsError where `folder` holds something, ValueError where the partial run has
    another recipe.

    >>> train_small_banks("small-banks", n_jobs=2)  # four minutes  # doctest: +SKIP
    """
    check_free(folder, "small banks")
    recipe = SmallRecipe() if recipe is None else recipe
    signals, labels = mnist1d_images(recipe)
    manifest = {
        "title": f"{recipe.n_banks} banks of {max(SMALL_SIZES)} perceptrons on MNIST-1D, measured",
        "recipe": asdict(recipe) | {"ratios": list(SMALL_RATIOS), "sizes": list(SMALL_SIZES)},
        "data": hashlib.sha256(signals.tobytes() + labels.tobytes()).hexdigest(),
        **provenance("numpy", "torch", "mnist1d", device="cpu"),
        "source": "MNIST-1D (Greydanus & Kobak), Apache-2.0; these results: this project, MIT",
    }
    per_ratio = -(-recipe.n_banks // len(SMALL_RATIOS))
    made = list(product(SMALL_RATIOS, range(per_ratio)))[: recipe.n_banks]
    with resumed(folder, manifest, "small banks") as (partial, whole):
        paths = [partial / f"bank-{index:04d}.safetensors" for index in range(len(made))]
        tasks = {
            path: (_measured, signals, labels, recipe, index, made[index][0])
            for index, path in enumerate(paths)
        }
        run_missing(tasks, "banks", n_jobs)
        found = [load_file(path) for path in paths]
        arrays = {name: np.stack([bank[name] for bank in found]) for name in found[0]}
        arrays["ratios"] = np.array([ratio for ratio, _ in made], dtype=np.float32)
        _save(whole, arrays, manifest)


def _measured(
    signals: np.ndarray, labels: np.ndarray, recipe: SmallRecipe, bank: int, ratio: float
) -> bytes:
    losses = small_bank(signals, labels, recipe, bank, ratio)
    rng = np.random.default_rng([recipe.seed, bank, 1])
    numbers = small_bank_numbers(losses, recipe.n_datasets, rng)
    return save({name: values.astype(np.float32) for name, values in numbers.items()})


def _save(folder: Path, arrays: dict[str, np.ndarray], manifest: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SMALL_BANKS_FILE
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    seal(folder, manifest, [SMALL_BANKS_FILE])
