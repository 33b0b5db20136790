"""Learning in a network: modules at its nodes send latents towards a fusion node, and errors flow
back along the same links. Needs torch.

After Deylam Salehi (2026), "D-INL". Each of eight sensors sees its own noisy copy of an image; a
gate of eight codes, drawn at random, picks which of eight linear maps its latent passes through;
the rate of that gate, I(Z;T), may be priced. Sizes, data, gates and channels are ours.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from expertbank._checks import ABOVE_0, as_count, as_number
from expertbank.shipped.in_network import (
    ARMS,
    DENSE,
    FUSION,
    N_SENSORS,
    PRICED,
    RANDOM,
    SHORTEST,
    SPANNING,
    Routes,
    routes,
    save_in_network,
    sensor_network,
)
from expertbank.shipped.manifest import check_free
from expertbank.training.datasets import load_mnist
from expertbank.training.resumable import pack_run, provenance, resumed, run_missing, unpack_run

N_CLASSES = 10
MEAN, SPREAD = 0.1307, 0.3081  # of MNIST's pixels between 0 and 1
# of a nat; the fifth arm has the one that cost little in a first trial of two seeds
NAT_PRICES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
ARM_PRICE = 0.003
N_SEEDS = 10
PART = 2000  # test images that are judged at once


@dataclass(frozen=True)
class NetworkRecipe:
    """What is the same for every run."""

    n_train: int = 4000
    epochs: int = 12
    batch: int = 100
    learning_rate: float = 2e-3
    latent: int = 8
    codes: int = 8
    hidden: int = 32
    least_noise: float = 0.8
    most_noise: float = 3.2
    """of the sensors, in standard deviations of a pixel"""

    def __post_init__(self):
        for name in ("n_train", "epochs", "batch", "latent", "codes", "hidden"):
            as_count(getattr(self, name), name)
        as_number(self.learning_rate, "learning_rate", ABOVE_0, 1)
        as_number(self.most_noise, "most_noise", 0, 100)
        as_number(self.least_noise, "least_noise", 0, self.most_noise)


@dataclass(frozen=True)
class NetworkRun:
    """One run: which links are used, what a nat costs, and the seed of network, data and
    weights."""

    arm: str = SHORTEST
    price: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if self.arm not in ARMS:
            raise ValueError(f"arm is {self.arm!r}; allowed are {ARMS}")
        as_number(self.price, "price", 0, 100)
        if (self.price > 0) != (self.arm == PRICED):
            raise ValueError(f"price is {self.price}; allowed is one above 0 for {PRICED!r} alone")
        as_count(self.seed, "seed", at_least=0)

    @property
    def name(self) -> str:
        return f"{self.arm.replace(' ', '-')}-{self.price:g}-seed{self.seed}"


class InNetworkModel(nn.Module):
    """Modules at nine nodes, joined by the links in use."""

    def __init__(self, way: Routes, n_pixels: int, recipe: NetworkRecipe) -> None:
        super().__init__()
        self.way = way
        h, d, k = recipe.hidden, recipe.latent, recipe.codes

        def drawn(*shape: int, fan_in: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) / fan_in**0.5)

        self.see = drawn(N_SENSORS, n_pixels, h, fan_in=n_pixels)
        self.shift = nn.Parameter(torch.zeros(N_SENSORS + 1, h))
        self.receive = drawn(len(way.links), d, h, fan_in=d)
        self.shrink = drawn(N_SENSORS, h, d, fan_in=h)
        self.gate = drawn(N_SENSORS, d, k, fan_in=d)
        self.maps = drawn(N_SENSORS, k, d, d, fan_in=d)
        self.classify = nn.Linear(h, N_CLASSES)

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, 10), and the gates' probabilities (8, B, codes), of what the sensors see
        (B, 8, pixels)."""
        views = torch.einsum("bvp,vph->vbh", seen, self.see)
        sent: dict[int, torch.Tensor] = {}
        gates: dict[int, torch.Tensor] = {}
        *sensors, _ = self.way.order.tolist()
        for node in sensors:
            hidden = views[node - 1] + self.shift[node] + self._received(node, sent)
            sent[node], gates[node] = self._send(node - 1, functional.relu(hidden))
        fused = self.shift[FUSION] + self._received(FUSION, sent)
        logits = self.classify(functional.relu(fused))
        return logits, torch.stack([gates[node] for node in range(1, N_SENSORS + 1)])

    def _received(self, node: int, sent: dict[int, torch.Tensor]) -> torch.Tensor:
        """What reaches a node through its links, each with noise of its own."""
        total = torch.zeros(())
        for index, (source, target) in enumerate(self.way.links.tolist()):
            if target == node:
                message = sent[source]
                noise = self.way.noise[index] * torch.randn_like(message)
                total = total + (message + noise) @ self.receive[index]
        return total

    def _send(self, sensor: int, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A sensor's message (B, latent) of unit power, and its gate's probabilities (B, codes)."""
        latent = functional.layer_norm(hidden @ self.shrink[sensor], self.shrink.shape[2:])
        scores = latent @ self.gate[sensor]
        code = functional.gumbel_softmax(scores, hard=True)
        message = torch.einsum("bk,kde,bd->be", code, self.maps[sensor], latent)
        return functional.layer_norm(message, latent.shape[1:]), scores.softmax(dim=1)


def latent_rates(gates: torch.Tensor) -> torch.Tensor:
    """I(Z;T) of each node in nats (V,), of gates' probabilities (V, B, codes) on B latents alike
    in weight.

    >>> sure = torch.eye(4)[None]
    >>> blind = torch.full((1, 4, 4), 0.25)
    >>> [round(float(latent_rates(gates)), 4) for gates in (sure, blind)]
    [1.3863, 0.0]
    """
    usage = gates.mean(dim=1)
    return torch.special.entr(usage).sum(dim=1) - torch.special.entr(gates).sum(dim=2).mean(dim=1)


def noisy_copies(images: np.ndarray, noise: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """What sensors with noise (V,) see of images (N, ...) uint8: (N, V, pixels), standardised.

    >>> noisy_copies(np.zeros((3, 2, 2), np.uint8), np.ones(8), np.random.default_rng(0)).shape
    torch.Size([3, 8, 4])
    """
    pixels = images.reshape(len(images), 1, -1).astype(np.float32) / 255
    shape = (len(images), len(noise), pixels.shape[2])
    drawn = rng.standard_normal(shape, dtype=np.float32)
    drawn *= noise[:, None].astype(np.float32)
    drawn += (pixels - MEAN) / SPREAD
    return torch.from_numpy(drawn)


def train_network(
    run: NetworkRun,
    recipe: NetworkRecipe,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
) -> tuple[dict[str, float], np.ndarray]:
    """What was measured of one run, and its errors on the test images (N,).

    `train` and `test` are images (N, height, width) uint8 and labels (N,).

    >>> rng = np.random.default_rng(0)
    >>> data = rng.integers(0, 256, (200, 4, 4), dtype=np.uint8), np.arange(200) % 10
    >>> found, errors = train_network(NetworkRun(), NetworkRecipe(100, epochs=1), data, data)
    >>> found["links"], errors.shape
    (8, (200,))
    """
    way = routes(sensor_network(run.seed), run.arm, run.seed)
    rng = np.random.default_rng([run.seed, 1])
    noise = rng.permutation(np.linspace(recipe.least_noise, recipe.most_noise, N_SENSORS))
    chosen = rng.permutation(len(train[0]))[: recipe.n_train]
    seen = noisy_copies(train[0][chosen], noise, rng)
    labels = torch.from_numpy(train[1][chosen].astype(np.int64))
    torch.manual_seed(run.seed)
    model = InNetworkModel(way, seen.shape[2], recipe)
    _fit(model, seen, labels, run.price, recipe)
    fitted = _judged(model, seen, labels)
    unseen = noisy_copies(test[0], noise, rng)
    held_out = _judged(model, unseen, torch.from_numpy(test[1].astype(np.int64)))
    numbers = {
        "links": len(way.links),
        "hops": way.hops,
        # latents forward and their gradients backward, for each image
        "exchange": 2 * recipe.latent * len(way.links),
        "train_accuracy": 1 - fitted["errors"].mean(),
        "accuracy": 1 - held_out["errors"].mean(),
        "train_loss": fitted["loss"],
        "loss": held_out["loss"],
        "rate": held_out["rate"],
    }
    return numbers, held_out["errors"]


def _fit(
    model: InNetworkModel,
    seen: torch.Tensor,
    labels: torch.Tensor,
    price: float,
    recipe: NetworkRecipe,
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(labels)).split(recipe.batch):
            logits, gates = model(seen[batch])
            loss = functional.cross_entropy(logits, labels[batch])
            if price:
                loss = loss + price * latent_rates(gates).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def _judged(model: InNetworkModel, seen: torch.Tensor, labels: torch.Tensor) -> dict:
    """Errors (N,), mean loss, and the gates' rates together, on images that are drawn codes for
    once."""
    parts = [model(part) for part in seen.split(PART)]
    logits = torch.cat([part[0] for part in parts])
    gates = torch.cat([part[1] for part in parts], dim=1).double()
    return {
        "errors": (logits.argmax(dim=1) != labels).numpy(),
        "loss": float(functional.cross_entropy(logits, labels)),
        "rate": float(latent_rates(gates).sum()),
    }


# --- all runs ---


def shipped_networks() -> list[NetworkRun]:
    """Five arms, and the other prices, at ten seeds each.

    >>> runs = shipped_networks()
    >>> len(runs), runs[0].name
    (100, 'dense-0-seed0')
    """
    kinds = [(arm, 0.0) for arm in (DENSE, RANDOM, SPANNING, SHORTEST)]
    kinds += [(PRICED, price) for price in NAT_PRICES]
    return [NetworkRun(*kind, seed) for kind in kinds for seed in range(N_SEEDS)]


def train_in_network(
    folder: str | os.PathLike,
    recipe: NetworkRecipe | None = None,
    root: str | os.PathLike | None = None,
    download: bool = False,
    n_jobs: int | None = None,
) -> None:
    """Train `shipped_networks()` and write results into `folder`.

    Finished runs wait in `<folder>.partial`, so a killed run goes on where it stopped. Raises
    FileExistsError where `folder` holds something, ValueError where the partial run has another
    recipe or where another run is at work on it.

    >>> train_in_network("in-network", download=True, n_jobs=2)  # half an hour  # doctest: +SKIP
    """
    check_free(folder, "a set of networks")
    recipe = NetworkRecipe() if recipe is None else recipe
    train = load_mnist("train", root, download)
    test = load_mnist("test", root, download)
    runs = shipped_networks()
    manifest = _manifest(recipe, len(test[0]))
    with resumed(folder, manifest, "a set of networks") as (partial, whole):
        tasks = {
            partial / f"{run.name}.npz": (_trained, run, recipe, *train, *test) for run in runs
        }
        run_missing(tasks, "runs", n_jobs)
        _assemble(whole, dict(zip(tasks, runs, strict=True)), manifest)


def _trained(run: NetworkRun, recipe: NetworkRecipe, *arrays: np.ndarray) -> bytes:
    images, labels, test_images, test_labels = arrays
    numbers, errors = train_network(run, recipe, (images, labels), (test_images, test_labels))
    return pack_run(numbers, {"errors": errors})


def _assemble(folder: Path, runs: dict[Path, NetworkRun], manifest: dict) -> None:
    rows = []
    errors = []
    for path, run in runs.items():
        measured, arrays = unpack_run(path)
        rows.append(asdict(run) | {name: float(f"{x:.6g}") for name, x in measured.items()})
        errors.append(arrays["errors"])
    save_in_network(folder, rows, np.array(errors), manifest)


def _manifest(recipe: NetworkRecipe, n_test: int) -> dict:
    return {
        "title": "Learning in networks of sensors after D-INL: five arms, ten seeds",
        "recipe": asdict(recipe) | {"prices": NAT_PRICES, "arm_price": ARM_PRICE, "seeds": N_SEEDS},
        "data": {"name": "MNIST", "test_images": n_test},
        **provenance("numpy", "torch", device="cpu"),
        "source": "MNIST (LeCun, Cortes & Burges), CC BY-SA 3.0; these results: this project, "
        "CC0 1.0",
    }
