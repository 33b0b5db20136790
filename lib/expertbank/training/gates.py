"""Gates that see only the input, trained end to end on expected loss + lam I(X;T): P2 (26), its
future work.

I(X;T) is the mean of KL(p(.|x) || q) over x, with q the gate's marginal, and no other q gives less:
so a minibatch's mean of KL to a running average of the marginal has, as far as q is right, the
gradient of the rate without bias. The minibatch's own marginal would make the rate too small by
about (R_eff - 1)/(2 B).
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save
from torch import nn

from expertbank._checks import ABOVE_0, BELOW_INF, as_count, as_number
from expertbank.gates import harden, judge_gate
from expertbank.rate_distortion import rate_distortion, routing
from expertbank.shipped.bank import SPLITS, ExpertBank, load_bank
from expertbank.shipped.gates import (
    DECISIONS,
    ESTIMATES,
    EXAMPLE,
    GATE_FAMILIES,
    GATE_SEEDS,
    LAMS,
    ORACLE,
    as_steps,
    save_gates,
)
from expertbank.shipped.manifest import check_free
from expertbank.training.datasets import load_mnist
from expertbank.training.experts import as_input, expert_network, judged_on, logits, recipe_of
from expertbank.training.resumable import open_partial, run_jobs

NEIGHBOURS = 20
STEP = 0.02  # of the running marginal: about the last 50 minibatches count
# the price starts at this share of what routing can save at all and has fallen to lam after this
# share of the steps: a
# gate that may commit at once stays with the first expert that serves an input well
BEGIN, ANNEALED = 0.25, 0.6
SPEED = 10  # the table of a prototype gate learns this much faster than pixels
TINY = 1e-30


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
    """Softmax of a linear map of the pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), n_experts), nn.LogSoftmax(1))


def small_cnn(images: torch.Tensor, n_experts: int) -> nn.Module:
    """Two strided convolutions and a hidden layer: about 53,000 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),  # (B, 8, 14, 14)
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),  # (B, 16, 7, 7)
        nn.Flatten(), nn.Linear(16 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, n_experts), nn.LogSoftmax(1),
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
        return (near @ torch.softmax(SPEED * self.table, 1)).clamp(min=TINY).log()


NETWORKS: dict[str, Callable[[torch.Tensor, int], nn.Module]] = dict(
    zip(GATE_FAMILIES, (linear, small_cnn, Prototypes), strict=True)
)


def rate_term(log_gate: torch.Tensor, marginal: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of KL(p(.|x) || marginal), nats; log_gate (B, R). I(X;T) where marginal
    is the gate's."""
    return (log_gate.exp() * (log_gate - marginal.log())).sum(1).mean()


def gate_objective(log_gate, losses, marginal, lam: float) -> torch.Tensor:
    """Expected loss + lam I(X;T) on a batch: P2 (26), with losses (B, R) and a marginal (R,) held
    fixed."""
    return (log_gate.exp() * losses).sum(1).mean() + lam * rate_term(log_gate, marginal)


def annealed(lam: float, begin: float, progress: float) -> float:
    """The price at a share `progress` of the training: from `begin` geometrically down to lam,
    reached at 60%."""
    if begin <= lam:
        return lam
    return max(lam, begin * (max(lam, 1e-6) / begin) ** (progress / ANNEALED))


def train_gate(images: np.ndarray, losses: np.ndarray, recipe: GateRecipe) -> nn.Module:
    """Train one gate on images (N, 28, 28) uint8 and the losses (N, R) of the experts on them."""
    x, loss_table = as_input(images), torch.from_numpy(losses).float()
    begin = BEGIN * (losses.mean(axis=0).min() - losses.min(axis=1).mean())
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        gate = NETWORKS[recipe.family](x, losses.shape[1])
        optimizer = torch.optim.Adam(gate.parameters(), lr=recipe.learning_rate)
        n_steps = recipe.epochs * -(-len(x) // recipe.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=n_steps
        )
        marginal, step = torch.zeros(losses.shape[1]), 0
        for _ in range(recipe.epochs):
            for batch in torch.randperm(len(x)).split(recipe.batch_size):
                log_gate, step = gate(x[batch]), step + 1
                marginal = torch.lerp(
                    marginal, log_gate.detach().exp().mean(0), max(1 / step, STEP)
                )
                optimizer.zero_grad()
                lam = annealed(recipe.lam, begin, step / n_steps)
                gate_objective(
                    log_gate, loss_table[batch], marginal.clamp(min=TINY), lam
                ).backward()
                optimizer.step()
                schedule.step()
    return gate.eval()


@torch.no_grad()
def gate_probabilities(gate: nn.Module, images: np.ndarray) -> np.ndarray:
    """p(t|x) (N, R) of a gate on images (N, 28, 28) uint8, rows summing to 1 in float64."""
    found = torch.cat(
        [gate(as_input(images[start : start + 1000])) for start in range(0, len(images), 1000)]
    )
    return torch.softmax(found.double(), 1).numpy()


def distilled_losses(
    images: np.ndarray, losses: np.ndarray, unseen: np.ndarray, epochs: int = 4
) -> np.ndarray:
    """E[loss | x] (N', R) of unseen images by a CNN that learned the losses (N, R) of images (N,
    28, 28)."""
    x, target = as_input(images), torch.from_numpy(losses).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = expert_network(losses.shape[1])
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(100):
                optimizer.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(
                    network(x[batch]), target[batch]
                ).backward()
                optimizer.step()
    return torch.from_numpy(logits(network.eval(), unseen)).sigmoid().numpy()


def neighbours_losses(
    images: np.ndarray, losses: np.ndarray, unseen: np.ndarray, k: int = NEIGHBOURS
) -> np.ndarray:
    """E[loss | x] (N', R) of unseen images as the mean loss (N, R) of the k nearest images in
    pixels."""
    x, queries = as_input(images).flatten(1), as_input(unseen).flatten(1)
    norms = x.square().sum(1)
    nearest = [
        (norms - 2 * batch @ x.T).topk(k, largest=False).indices.numpy()
        for batch in queries.split(500)
    ]
    return losses[np.concatenate(nearest)].mean(axis=1, dtype=float)


REGRESSIONS = dict(zip(ESTIMATES, (distilled_losses, neighbours_losses), strict=True))


def recipes() -> list[GateRecipe]:
    """The sweep: every bank, family, price and seed."""
    grid = product(LAMS, GATE_FAMILIES, range(GATE_SEEDS))
    return [
        GateRecipe(bank, family, float(lam), seed)
        for bank, family, seed in grid
        for lam in LAMS[bank]
    ]


def train_gates(folder, root=None, download: bool = False, n_jobs: int | None = None) -> None:
    """Train the whole sweep and the two estimates of E[loss | x], judge them, and write `folder`.

    What is finished waits in `<folder>.partial`, so a killed run goes on where it stopped. Raises
    FileExistsError where `folder` holds gates.
    """
    folder = Path(folder)
    check_free(folder, "gates")
    partial = open_partial(folder)
    raw = {split: load_mnist(split, root, download)[0] for split in SPLITS}
    banks = {name: load_bank(name) for name in LAMS}
    seen = {
        name: [judged_on(raw[s], s, recipe_of(bank.manifest)) for s in SPLITS]
        for name, bank in banks.items()
    }
    arrays = {
        name: (*seen[name], *(bank.losses(split) for split in SPLITS))
        for name, bank in banks.items()
    }
    work = [(_estimated, name, kind) for name in LAMS for kind in ESTIMATES]
    work += [(_trained, recipe.bank, recipe) for recipe in recipes()]
    jobs = {
        _partial_file(partial, name, what): (do, *arrays[name], what) for do, name, what in work
    }
    run_jobs(jobs, "gates", n_jobs)
    _assemble(folder, partial, banks)
    shutil.rmtree(partial)


def _partial_file(partial: Path, bank: str, what: GateRecipe | str) -> Path:
    return (
        partial / f"{what.name if isinstance(what, GateRecipe) else f'{bank}-{what}'}.safetensors"
    )


def _estimated(images, unseen, losses, _, kind: str) -> bytes:
    return save({"losses": torch.from_numpy(as_steps(REGRESSIONS[kind](images, losses, unseen)))})


def _trained(images, unseen, losses, unseen_losses, recipe: GateRecipe) -> bytes:
    gate = train_gate(images, losses, recipe)
    soft = [gate_probabilities(gate, inputs) for inputs in (images, unseen)]
    rows, loads = judge_splits(
        recipe.bank, recipe.family, recipe.lam, recipe.seed, soft, (losses, unseen_losses)
    )
    tensors = {
        "losses": torch.from_numpy(as_steps((soft[1] * unseen_losses).sum(axis=1))),
        "chosen": torch.from_numpy(soft[1].argmax(axis=1).astype(np.uint8)),
        "loads": torch.from_numpy(loads),
    }
    if (recipe.family, recipe.lam, recipe.seed) == (
        EXAMPLE[0],
        LAMS[recipe.bank][EXAMPLE[1]],
        EXAMPLE[2],
    ):
        tensors["gate"] = torch.from_numpy(soft[1]).half()
    return save(tensors, {"rows": json.dumps(rows)})


def _rows(path: Path) -> list[dict]:
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["rows"])


def _assemble(folder: Path, partial: Path, banks: dict) -> None:
    rows, loads, arrays = [], [], {}
    for name in banks:
        paths = [
            _partial_file(partial, name, recipe) for recipe in recipes() if recipe.bank == name
        ]
        found = [load_file(path) for path in paths]
        rows += [row for path in paths for row in _rows(path)]
        loads += [gate["loads"] for gate in found]
        arrays |= {
            f"{name}_{key}": np.stack([gate[key] for gate in found], axis=1)
            for key in ("losses", "chosen")
        }
        arrays[f"{name}_example"] = next(gate["gate"] for gate in found if "gate" in gate)
        for kind in ESTIMATES:
            arrays[f"{name}_{kind}"] = load_file(_partial_file(partial, name, kind))["losses"]
    for bank in banks.values():  # the gate that sees the label through the loss
        oracle_rows, oracle_loads = judge_oracle(bank)
        rows, loads = rows + oracle_rows, [*loads, oracle_loads]
    defaults = asdict(GateRecipe("mnist", "linear", 1.0))
    manifest = {
        "format": 1,
        "title": f"{len(recipes())} gates trained on expected loss + lam I(X;T), and E[loss | x] by two regressions",
        "recipe": {key: defaults[key] for key in ("epochs", "batch_size", "learning_rate")}
        | {
            "families": list(GATE_FAMILIES),
            "seeds": GATE_SEEDS,
            "lams": {bank: list(lams) for bank, lams in LAMS.items()},
        }
        | {"begin": BEGIN, "annealed": ANNEALED, "marginal_step": STEP, "neighbours": NEIGHBOURS},
        "banks": {
            name: bank.manifest["files"]["predictions.npz"]["sha256"]
            for name, bank in banks.items()
        },
        "versions": {name: version(name) for name in ("numpy", "torch", "torchvision")},
        "trained_on": {
            "device": "cpu",
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
        "source": "MNIST (LeCun, Cortes & Burges), CC BY-SA 3.0; these results: this project, CC BY-SA 3.0",
    }
    save_gates(folder, rows, {**arrays, "loads": np.concatenate(loads)}, manifest)


def judge_splits(bank: str, family: str, lam: float, seed: int, gates: Sequence, losses: Sequence):
    """Rows of `gates.csv` and loads (4, R) of one gate, given as each split's p(t|x) and losses:
    soft and hardened."""
    rows, loads = [], []
    for split, soft, table in zip(SPLITS, gates, losses, strict=True):
        for decision, routed in zip(DECISIONS, (soft, harden(soft)), strict=True):
            judged = judge_gate(routed, table)
            low, high = judged.rate_interval
            numbers = {"rate": judged.rate, "rate_low": low, "rate_high": high}
            numbers |= {"loss": judged.loss, "loss_error": judged.loss_error}
            named = {
                "bank": bank,
                "family": family,
                "lam": lam,
                "seed": seed,
                "split": split,
                "decision": decision,
            }
            rows.append({**named, **{name: round(value, 6) for name, value in numbers.items()}})
            loads.append(judged.load)
    return rows, np.array(loads, dtype=np.float32)


def judge_oracle(bank: ExpertBank) -> tuple[list[dict], np.ndarray]:
    """Rows and loads of the gate that sees the label: the posterior of P2 (28), its marginal solved
    on train."""
    losses, rows, loads = [bank.losses(split) for split in SPLITS], [], []
    for lam in LAMS[bank.name].tolist():
        point = rate_distortion(losses[0], lam)
        gates = [routing(table, point) for table in losses]
        judged_rows, judged_loads = judge_splits(bank.name, ORACLE, lam, 0, gates, losses)
        rows, loads = rows + judged_rows, [*loads, judged_loads]
    return rows, np.concatenate(loads)
