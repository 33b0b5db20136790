"""Whether a folder with a manifest is whole, and what it states follows from what it holds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from expertbank._files import read_arrays
from expertbank.reproduction.compare import holds_what
from expertbank.shipped.bank import SPLITS, load_bank
from expertbank.shipped.gates import ORACLE, gate_family, load_gates
from expertbank.shipped.in_network import load_in_network
from expertbank.shipped.manifest import MANIFEST, check_file, data_folder, read_manifest
from expertbank.shipped.router_model import load_router_tables
from expertbank.shipped.testbed import EXAMPLES, load_priced_routers, load_testbed

# what is shipped, and where in the data's folder
SHIPPED_PLACES = {
    "mnist": "banks/mnist",
    "specialists": "banks/specialists",
    "family": "banks/family",
    "fashion": "banks/fashion",
    "fashion-specialists": "banks/fashion-specialists",
    "fashion-family": "banks/fashion-family",
    "fashion-gates": "fashion-gates",
    "small-banks": "small-banks",
    "gates": "gates",
    "testbed": "testbed",
    "priced-routers": "priced-routers",
    "batch-sizes": "banks",
    "benchmarks": "benchmarks",
    "routers": "routers",
    "router-model": "router-model",
    "reference": "reference",
    "peers": "peers",
    "removals": "removals",
    "selection": "selection",
    "in-network": "in-network",
}
LAST_DIGIT = 1e-6  # of the tables' numbers
FOUR_DIGITS = 0.5001e-4  # of accuracies that are stated to four digits


def place_of(name: str | os.PathLike) -> Path:
    """The folder that is shipped under a name, or that a path from here, also of a manifest, names.

    Raises FileNotFoundError where neither is there.

    >>> place_of("gates") == data_folder() / "gates"
    True
    """
    if str(name) in SHIPPED_PLACES:
        return data_folder() / SHIPPED_PLACES[str(name)]
    for path in (Path(name), data_folder() / "banks" / name):
        folder = path.parent if path.name == MANIFEST else path
        if (folder / MANIFEST).is_file() or any(folder.glob(f"*/{MANIFEST}")):
            return folder.resolve()
    raise FileNotFoundError(
        f"{name} is no folder with a manifest; allowed are such folders and what is shipped: "
        f"{', '.join(SHIPPED_PLACES)}"
    )


def verify(name: str | os.PathLike, n_images: int | None = None) -> str:
    """Check a bank, a family, gates, a testbed or other files under a manifest: sizes, hashes and
    seal, and what can be computed again. One sentence says what was.

    Predictions are recomputed from weights and MNIST where a bank has weights, on the first
    `n_images` of each split, and a bank's accuracies from its predictions. Raises ValueError, which
    says what is wrong, or FileNotFoundError.

    >>> verify("routers")
    'hashes match of 1 file'
    """
    folder = place_of(name)
    try:
        kind = holds_what(folder)
    except ValueError:
        kind = "other"
    if kind == "bank":
        return _bank(folder, n_images)
    if kind == "family":
        banks = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
        experts = sum(_check_accuracies(bank) for bank in banks)
        return f"hashes match of {len(banks)} banks; accuracies of {experts:,} experts recomputed"
    if kind == "gates":
        return _gates(folder)
    if kind == "testbed":
        return _testbed(folder)
    if kind == "set of priced routers":
        return f"{_hashes(folder)}; {_priced_routers(folder)}"
    if kind == "set of networks":
        return f"{_hashes(folder)}; {_in_network(folder)}"
    if kind == "router model":
        return f"{_hashes(folder)}; {_router_tables(folder)}"
    return _hashes(folder)


def _hashes(folder: Path) -> str:
    manifest = read_manifest(folder, ())
    paths = [check_file(folder, manifest, name) for name in manifest["files"]]
    return f"hashes match of {len(paths)} file{'s' if len(paths) > 1 else ''}"


def _in_network(folder: Path) -> str:
    runs = load_in_network(folder)
    accuracies = runs.columns()["accuracy"]
    found = 1 - runs.errors().mean(axis=0)
    if np.abs(accuracies - found).max() > LAST_DIGIT:
        raise ValueError(f"{folder}: an accuracy in its table is not what its errors give")
    return f"accuracies of {len(found)} runs recomputed"


def _priced_routers(folder: Path) -> str:
    runs = load_priced_routers(folder).columns()
    floors = runs["weighted_entropy"] - runs["log_experts"]
    if (runs["rate"] < floors - LAST_DIGIT).any():
        raise ValueError(f"{folder}: a rate in its table lies below what its experts leave of H(T)")
    return f"rates of {len(floors)} runs above their floors"


def _router_tables(folder: Path) -> str:
    tables = load_router_tables(folder)
    n_tokens = len(tables.arrays["loss"])
    return f"{tables.n_layers} loss tables of {n_tokens:,} tokens read"


def _bank(folder: Path, n_images: int | None) -> str:
    experts = _check_accuracies(folder)
    if "weights.safetensors" not in read_manifest(folder)["files"]:
        return f"hashes match; accuracies of {experts} experts recomputed, it has no weights"
    from expertbank.training.experts import verify_bank

    counts = verify_bank(folder, n_images=n_images)
    compared = f"{counts['compared']:,} predictions recomputed, {counts['ties']} at a tie"
    return f"hashes match; {compared}"


def _check_accuracies(folder: Path) -> int:
    """How many experts have the accuracies that their manifest states; ValueError where one has
    others."""
    bank = load_bank(folder.resolve())
    stated = bank.manifest.get("accuracies", {})
    for split in SPLITS:
        if split not in stated:
            continue
        # stated to four digits; a tie may have been rounded either way
        if np.abs(bank.accuracies(split) - stated[split]).max() > FOUR_DIGITS:
            raise ValueError(f"{folder}: its manifest states other {split} accuracies than it has")
    return bank.n_experts


def _gates(folder: Path) -> str:
    sweep = load_gates(folder)
    for name, sha256 in sweep.manifest.get("banks", {}).items():
        bank = load_bank(name)
        if bank.manifest["files"]["predictions.npz"]["sha256"] != sha256:
            raise ValueError(f"{folder} was trained on another bank {name} than the shipped one")
    count = 0
    for name in sweep.banks:
        losses, rates = gate_family(sweep, load_bank(name), "hard")
        rows = sweep.columns(bank=name, split="test", decision="hard")
        trained = rows["family"] != ORACLE
        for column, found in (("loss", losses.mean(axis=0)), ("rate", rates)):
            if np.max(np.abs(rows[column][trained] - found)) > LAST_DIGIT:
                raise ValueError(f"{folder}: a {column} in its table is not what its gates chose")
        count += len(rates)
    return f"hashes match; test loss and rate of {count} gates recomputed from what they chose"


def _testbed(folder: Path) -> str:
    runs = load_testbed(folder)
    tokens = sum(len(read_arrays(folder / file)["chosen"]) for file in EXAMPLES.values())
    n_runs = len(next(iter(runs.columns().values())))
    return f"hashes match of {n_runs} runs; routing of {tokens:,} tokens can be read"
