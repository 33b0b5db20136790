"""Gates that see only the input, trained end to end on expected loss + lam I(X;T): P2 (26), its
future work.

I(X;T) is the mean of KL(p(.|x) || q) over x, with q the gate's marginal, and no other q gives less:
so a minibatch's mean of KL to a running average of the marginal has, as far as q is right, the
gradient of the rate without bias. The minibatch's own marginal would make the rate too small by
about (R_eff - 1)/(2 B).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save
from torch import nn

from expertbank._checks import ABOVE_0, BELOW_INF, as_count, as_number
from expertbank.shipped.bank import SPLITS, ExpertBank, load_bank
from expertbank.shipped.gates import (
    ESTIMATES,
    GATE_FAMILIES,
    GATE_SEEDS,
    VOTED,
    as_steps,
    banks_of,
    is_example,
    judge_oracle,
    judge_splits,
    prices_of,
    save_gates,
)
from expertbank.shipped.manifest import check_free
from expertbank.training.datasets import IMAGES, load_images
from expertbank.training.experts import as_input, expert_network, judged_on, logits, recipe_of
from expertbank.training.resumable import Task, provenance, resumed, run_missing

NEIGHBOURS = 20
VOTERS = 3
MARGINAL_STEP = 0.02  # of the running marginal: about the last 50 minibatches count
# the price starts at this share of what routing can save at all and has fallen to lam after that
# share of the steps: a gate that may commit at once stays with the first expert that serves an
# input well
BEGIN = 0.25
ANNEALED = 0.6
SPEED = 10  # the table of a prototype gate learns this much faster than pixels
LEAST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class GateRecipe:
    """Everything that determines a trained gate."""

    bank: str
    family: str
    lam: float
    seed: int = 0
    epochs: int = 6
    batch_size: int = 256
    learning_rate: float = 5e-3

    def __post_init__(self):
        if self.family not in GATE_FAMILIES:
            raise ValueError(f"family is {self.family!r}; allowed are {GATE_FAMILIES}")
        as_number(self.lam, "lam", 0, BELOW_INF, allowed="a number >= 0")
        as_number(
            self.learning_rate, "learning_rate", ABOVE_0, BELOW_INF, allowed="a positive number"
        )
        for name in ("epochs", "batch_size"):
            as_count(getattr(self, name), name)

    @property
    def name(self) -> str:
        return f"{self.bank}-{self.family}-{self.lam:.3g}-{self.seed}"


def linear(images: torch.Tensor, n_experts: int) -> nn.Module:
    """Softmax of a linear map of the pixels.

    >>> linear(torch.zeros(2, 1, 28, 28), n_experts=5)(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 5])
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), n_experts), nn.LogSoftmax(1))


def small_cnn(images: torch.Tensor, n_experts: int) -> nn.Module:
    """Two strided convolutions and a hidden layer: about 53,000 weights for 28 x 28 pixels.

    >>> gate = small_cnn(torch.zeros(2, 1, 28, 28), n_experts=25)
    >>> sum(weights.numel() for weights in gate.parameters())
    53241
    """
    channels, height, width = images.shape[1:]
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, stride=2, padding=2), nn.ReLU(),  # (B, 8, H/2, W/2)
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),  # (B, 16, H/4, W/4)
        nn.Flatten(), nn.Linear(16 * (height // 4) * (width // 4), 64), nn.ReLU(),
        nn.Linear(64, n_experts), nn.LogSoftmax(1),
    )  # fmt: skip


class Prototypes(nn.Module):
    """`p(t|x) = sum_k softmax_k(-|x - c_k|^2 / tau) softmax(table_k)_t`: prototypes near x say
    where it goes."""

    def __init__(self, images: torch.Tensor, n_experts: int, n_prototypes: int = 100):
        super().__init__()
        points = images.flatten(1)
        self.points = nn.Parameter(points[torch.randperm(len(points))[:n_prototypes]].clone())
        self.log_sharpness = nn.Parameter(torch.tensor(-1.0))
        self.table = nn.Parameter(torch.zeros(len(self.points), n_experts))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(1)
        # |x|^2 is the same for every prototype and falls out of the softmax
        closeness = 2 * x @ self.points.T - self.points.square().sum(1)
        near = torch.softmax(self.log_sharpness.exp() * closeness, 1)
        return (near @ torch.softmax(SPEED * self.table, 1)).clamp(min=LEAST_PROBABILITY).log()


NETWORKS: dict[str, Callable[[torch.Tensor, int], nn.Module]] = dict(
    zip(GATE_FAMILIES, (linear, small_cnn, Prototypes), strict=True)
)


def rate_term(log_gate: torch.Tensor, marginal: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of KL(p(.|x) || marginal), nats; log_gate (B, R). I(X;T) where marginal
    is the gate's.

    >>> log_gate = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    >>> round(rate_term(log_gate, log_gate.exp().mean(0)).item(), 4)
    0.3681
    """
    return (log_gate.exp() * (log_gate - marginal.log())).sum(1).mean()


def gate_objective(
    log_gate: torch.Tensor, losses: torch.Tensor, marginal: torch.Tensor, lam: float
) -> torch.Tensor:
    """Expected loss + lam I(X;T) on a batch: P2 (26), with losses (B, R) and a marginal (R,) held
    fixed.

    >>> log_gate = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    >>> losses = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> round(gate_objective(log_gate, losses, torch.tensor([0.5, 0.5]), lam=0.1).item(), 4)
    0.1368
    """
    expected_loss = (log_gate.exp() * losses).sum(1).mean()
    return expected_loss + lam * rate_term(log_gate, marginal)


def annealed(lam: float, begin: float, progress: float) -> float:
    """The price at a share `progress` of the training: from `begin` geometrically down to lam,
    reached at 60%.

    >>> [round(annealed(0.01, 0.25, progress), 3) for progress in (0, 0.3, 0.6, 1)]
    [0.25, 0.05, 0.01, 0.01]
    """
    if begin <= lam:
        return lam
    return max(lam, begin * (max(lam, 1e-6) / begin) ** (progress / ANNEALED))


def train_gate(images: np.ndarray, losses: np.ndarray, recipe: GateRecipe) -> nn.Module:
    """Train one gate on images (N, 28, 28) uint8 and the losses (N, R) of the experts on them.

    >>> images = np.zeros((40, 28, 28), np.uint8)
    >>> images[20:] = 255
    >>> losses = np.repeat([[0.0, 1.0], [1.0, 0.0]], 20, axis=0)
    >>> recipe = GateRecipe("mnist", "linear", lam=0.01, epochs=20, batch_size=10)
    >>> gate = train_gate(images, losses, recipe)
    >>> gate_probabilities(gate, images[[0, -1]]).argmax(axis=1).tolist()
    [0, 1]
    """
    x = as_input(images)
    loss_table = torch.tensor(losses).float()
    begin = BEGIN * (losses.mean(axis=0).min() - losses.min(axis=1).mean())
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        gate = NETWORKS[recipe.family](x, losses.shape[1])
        optimizer = torch.optim.Adam(gate.parameters(), lr=recipe.learning_rate)
        n_steps = recipe.epochs * -(-len(x) // recipe.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=n_steps
        )
        marginal = torch.zeros(losses.shape[1])
        step = 0
        for _ in range(recipe.epochs):
            for batch in torch.randperm(len(x)).split(recipe.batch_size):
                step += 1
                log_gate = gate(x[batch])
                of_batch = log_gate.detach().exp().mean(0)
                marginal = torch.lerp(marginal, of_batch, max(1 / step, MARGINAL_STEP))
                lam = annealed(recipe.lam, begin, step / n_steps)
                fixed = marginal.clamp(min=LEAST_PROBABILITY)
                optimizer.zero_grad()
                gate_objective(log_gate, loss_table[batch], fixed, lam).backward()
                optimizer.step()
                schedule.step()
    return gate.eval()


@torch.no_grad()
def gate_probabilities(gate: nn.Module, images: np.ndarray) -> np.ndarray:
    """p(t|x) (N, R) of a gate on images (N, 28, 28) uint8, rows summing to 1 in float64.

    >>> gate = linear(torch.zeros(1, 1, 28, 28), n_experts=4)
    >>> gate_probabilities(gate, np.zeros((3, 28, 28), np.uint8)).sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0]
    """
    starts = range(0, len(images), 1000)
    found = torch.cat([gate(as_input(images[start : start + 1000])) for start in starts])
    return torch.softmax(found.double(), 1).numpy()


def distilled_losses(
    images: np.ndarray, losses: np.ndarray, unseen: np.ndarray, epochs: int = 4
) -> np.ndarray:
    """E[loss | x] (N', R) of unseen images by a CNN that learned the losses (N, R) of images (N,
    28, 28).

    >>> images = np.zeros((40, 28, 28), np.uint8)
    >>> losses = np.zeros((40, 2))
    >>> distilled_losses(images, losses, images[:3], epochs=1).shape
    (3, 2)
    """
    x = as_input(images)
    target = torch.tensor(losses).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = expert_network(losses.shape[1], images.shape[1:])
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(100):
                optimizer.zero_grad()
                scores = network(x[batch])
                nn.functional.binary_cross_entropy_with_logits(scores, target[batch]).backward()
                optimizer.step()
    return torch.from_numpy(logits(network.eval(), unseen)).sigmoid().numpy()


def neighbours_losses(
    images: np.ndarray, losses: np.ndarray, unseen: np.ndarray, k: int = NEIGHBOURS
) -> np.ndarray:
    """E[loss | x] (N', R) of unseen images as the mean loss (N, R) of the k nearest images in
    pixels.

    >>> images = np.zeros((4, 28, 28), np.uint8)
    >>> images[2:] = 255
    >>> losses = np.array([[0.0, 1.0], [0.0, 0.5], [1.0, 0.0], [1.0, 0.0]])
    >>> neighbours_losses(images, losses, images[:1], k=2).tolist()
    [[0.0, 0.75]]
    """
    nearest = _nearest(as_input(images), as_input(unseen), k)
    return losses[nearest].mean(axis=1, dtype=float)


def voted_labels(
    images: np.ndarray, labels: np.ndarray, unseen: np.ndarray, k: int = VOTERS
) -> np.ndarray:
    """The label (N',) that most of the k images nearest in pixels have: a guess from x alone.

    Of several labels with as many votes it is that of the nearest image. Pixels are whole numbers
    in double precision, so that distances are exact.

    >>> dark, grey, light = (np.full((1, 28, 28), level, np.uint8) for level in (0, 90, 255))
    >>> images = np.concatenate([dark, dark, grey, light])
    >>> voted_labels(images, np.array([4, 4, 7, 7]), np.concatenate([grey, light])).tolist()
    [4, 7]
    """
    pixels = torch.from_numpy(images).double()
    nearest = labels[_nearest(pixels, torch.from_numpy(unseen).double(), k)]
    votes = (nearest[:, :, None] == nearest[:, None, :]).sum(axis=2)
    winner = votes.argmax(axis=1)  # the first of several, and the nearest image comes first
    return np.take_along_axis(nearest, winner[:, None], axis=1)[:, 0]


def _nearest(images: torch.Tensor, unseen: torch.Tensor, k: int) -> np.ndarray:
    """Indices (N', k) of the images nearest to each unseen one in pixels, the nearest first."""
    x = images.flatten(1)
    queries = unseen.flatten(1)
    norms = x.square().sum(1)
    nearest = [
        (norms - 2 * batch @ x.T).topk(k, largest=False).indices.numpy()
        for batch in queries.split(500)
    ]
    return np.concatenate(nearest)


REGRESSIONS: dict[str, Callable[..., np.ndarray]] = dict(
    zip(ESTIMATES, (distilled_losses, neighbours_losses), strict=True)
)


def shipped_gates(data: str = "mnist") -> list[GateRecipe]:
    """The recipes of a data set's sweep: every bank, family, price and seed; on other data sets
    than MNIST one seed.

    >>> gates = shipped_gates()
    >>> len(gates), gates[0].name, len(shipped_gates("fashion"))
    (180, 'mnist-linear-0.001-0', 30)
    """
    seeds = range(GATE_SEEDS if data == "mnist" else 1)
    return [
        GateRecipe(bank, family, float(lam), seed)
        for bank, family, seed in product(banks_of(data), GATE_FAMILIES, seeds)
        for lam in prices_of(bank)
    ]


def train_gates(
    folder: str | os.PathLike,
    root: str | os.PathLike | None = None,
    download: bool = False,
    n_jobs: int | None = None,
    data: str = "mnist",
    bank_root: str | os.PathLike | None = None,
) -> None:
    """Train the whole sweep of a data set and the two estimates of E[loss | x], judge them, let the
    nearest training images vote for labels, and write `folder`. The banks lie in `bank_root`
    (default: the shipped ones).

    What is finished waits in `<folder>.partial`, so a killed run goes on where it stopped. Raises
    FileExistsError where `folder` holds something, ValueError where the partial run has another
    recipe or other banks, or where another run is at work on it.

    >>> train_gates("gates", download=True, n_jobs=2)  # an hour and a half  # doctest: +SKIP
    """
    check_free(folder, "gates")
    banks = {name: load_bank(name, bank_root) for name in banks_of(data)}
    splits = {split: load_images(data, split, root, download) for split in SPLITS}
    arrays = {}
    for name, bank in banks.items():
        recipe = recipe_of(bank.manifest)
        images = [judged_on(splits[split][0], split, recipe) for split in SPLITS]
        arrays[name] = (*images, *(bank.losses(split) for split in SPLITS))
    gates = shipped_gates(data)
    manifest = _manifest(banks, gates, data)
    with resumed(folder, manifest, "gates") as (partial, whole):
        run_missing(_tasks(partial, arrays, splits["train"][1], gates), "gates", n_jobs)
        _assemble(whole, partial, banks, gates, manifest)


def _tasks(
    partial: Path, arrays: dict[str, tuple], train_labels: np.ndarray, gates: list[GateRecipe]
) -> dict[Path, Task]:
    tasks = {}
    for name, kind in product(arrays, ESTIMATES):
        tasks[_estimate_file(partial, name, kind)] = (_estimated, *arrays[name], kind)
    for name in arrays:
        tasks[_estimate_file(partial, name, VOTED)] = (_voted, *arrays[name][:2], train_labels)
    for gate in gates:
        tasks[_gate_file(partial, gate)] = (_trained, *arrays[gate.bank], gate)
    return tasks


def _estimate_file(partial: Path, bank: str, kind: str) -> Path:
    return partial / f"{bank}-{kind}.safetensors"


def _gate_file(partial: Path, recipe: GateRecipe) -> Path:
    return partial / f"{recipe.name}.safetensors"


def _estimated(
    images: np.ndarray, unseen: np.ndarray, losses: np.ndarray, _: np.ndarray, kind: str
) -> bytes:
    estimates = REGRESSIONS[kind](images, losses, unseen)
    return save({"losses": torch.from_numpy(as_steps(estimates))})


def _voted(images: np.ndarray, unseen: np.ndarray, labels: np.ndarray) -> bytes:
    voted = voted_labels(images, labels, unseen)
    return save({"labels": torch.from_numpy(voted.astype(np.uint8))})


def judged_gate(
    images: Sequence[np.ndarray], losses: Sequence[np.ndarray], recipe: GateRecipe
) -> tuple[np.ndarray, list[dict], np.ndarray]:
    """Train a gate on the first of two splits of images and losses (N, R), and judge it on both:
    its probabilities on the second (N, R), its rows of the table of gates, and how many inputs of
    each split it sends to each expert.

    >>> judged_gate((images, unseen), (losses, unseen_losses), recipe)  # doctest: +SKIP
    """
    gate = train_gate(images[0], losses[0], recipe)
    soft = [gate_probabilities(gate, inputs) for inputs in images]
    named = (recipe.bank, recipe.family, recipe.lam, recipe.seed)
    rows, loads = judge_splits(*named, soft, losses)
    return soft[1], rows, loads


def _trained(images, unseen, losses, unseen_losses, recipe: GateRecipe) -> bytes:
    unseen_gate, rows, loads = judged_gate((images, unseen), (losses, unseen_losses), recipe)
    tensors = {
        "losses": torch.from_numpy(as_steps((unseen_gate * unseen_losses).sum(axis=1))),
        "chosen": torch.from_numpy(unseen_gate.argmax(axis=1).astype(np.uint8)),
        "loads": torch.from_numpy(loads),
    }
    if is_example(recipe.bank, recipe.family, recipe.lam, recipe.seed):
        tensors["gate"] = torch.from_numpy(unseen_gate).half()
    return save(tensors, {"rows": json.dumps(rows)})


def _rows(path: Path) -> list[dict]:
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["rows"])


def _assemble(
    folder: Path,
    partial: Path,
    banks: dict[str, ExpertBank],
    gates: list[GateRecipe],
    manifest: dict,
) -> None:
    rows = []
    loads = []
    arrays = {}
    for name in banks:
        paths = [_gate_file(partial, recipe) for recipe in gates if recipe.bank == name]
        found = [load_file(path) for path in paths]
        rows += [row for path in paths for row in _rows(path)]
        loads += [gate["loads"] for gate in found]
        for key in ("losses", "chosen"):
            arrays[f"{name}_{key}"] = np.stack([gate[key] for gate in found], axis=1)
        arrays[f"{name}_example"] = next(gate["gate"] for gate in found if "gate" in gate)
        for kind in ESTIMATES:
            arrays[f"{name}_{kind}"] = load_file(_estimate_file(partial, name, kind))["losses"]
        arrays[f"{name}_{VOTED}"] = load_file(_estimate_file(partial, name, VOTED))["labels"]
    for bank in banks.values():
        oracle_rows, oracle_loads = judge_oracle(bank)
        rows += oracle_rows
        loads.append(oracle_loads)
    arrays["loads"] = np.concatenate(loads)
    save_gates(folder, rows, arrays, manifest)


def _manifest(banks: dict[str, ExpertBank], gates: list[GateRecipe], data: str) -> dict:
    defaults = asdict(GateRecipe("mnist", "linear", 1.0))
    recipe = {key: defaults[key] for key in ("epochs", "batch_size", "learning_rate")}
    recipe |= {
        "families": list(GATE_FAMILIES),
        "seeds": len({gate.seed for gate in gates}),
        "lams": {bank: list(prices_of(bank)) for bank in banks},
        "begin": BEGIN,
        "annealed": ANNEALED,
        "marginal_step": MARGINAL_STEP,
        "neighbours": NEIGHBOURS,
        "voters": VOTERS,
    }
    return {
        "title": f"{len(gates)} gates trained on expected loss + lam I(X;T), "
        "E[loss | x] by two regressions, and labels voted by the nearest training images",
        "recipe": recipe,
        "banks": {
            name: bank.manifest["files"]["predictions.npz"]["sha256"]
            for name, bank in banks.items()
        },
        **provenance("numpy", "torch", "torchvision", device="cpu"),
        "source": f"{IMAGES[data].source}; these results: this project, CC BY-SA 3.0",
    }
