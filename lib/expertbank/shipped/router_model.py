"""The loss tables of the mixture of experts that ships, layer by layer, without torch. Nats."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from expertbank._checks import as_count
from expertbank._files import read_arrays, write_atomically
from expertbank.shipped.manifest import check_file, open_sealed

LOSSES = "losses.npz"
ROUTING = "routing.npz"  # for `routers.read_routing`
LEVELS = 127  # of a feature, on each side of 0


@dataclass(frozen=True)
class RouterLayer:
    """One layer's loss table on N held-out tokens, and its router."""

    losses: np.ndarray
    """(N, E): loss of the next token with each expert alone in this layer"""
    estimate: np.ndarray
    """the same, estimated by one backward pass (N, E)"""
    features: np.ndarray
    """what the router is given (N, F), rounded to 255 levels each"""
    chosen: np.ndarray
    weights: np.ndarray
    probabilities: np.ndarray
    """the router's softmax (N, E)"""
    gates: np.ndarray
    """weights (K, F + 1, E) of gates fitted on other held-out texts, one a price"""
    lam: np.ndarray
    """those prices (K,)"""
    loss: np.ndarray
    """what the model loses as it is (N,)"""
    sequence: np.ndarray
    language: np.ndarray


@dataclass(frozen=True)
class RouterTables:
    """Tables of every layer; `load_router_tables` reads them."""

    folder: Path
    manifest: dict
    arrays: dict

    @property
    def n_layers(self) -> int:
        return len(self.arrays["change"])

    @property
    def routing(self) -> Path:
        """File with what the routers chose on held-out texts, its hash checked, for
        `routers.read_routing`."""
        return check_file(self.folder, self.manifest, ROUTING)

    def layer(self, index: int) -> RouterLayer:
        """The table of a layer, counted from 0."""
        as_count(index, "index", at_least=0, at_most=self.n_layers - 1)
        own = self.arrays
        loss = own["loss"].astype(float)
        shared = {name: own[name] for name in ("lam", "sequence", "language")}
        stacked = {name: own[name][index] for name in ("chosen", "weights", "gates")}
        probabilities = own["probabilities"][index].astype(float)
        return RouterLayer(
            losses=loss[:, None] + own["change"][index],
            estimate=loss[:, None] + own["estimate"][index],
            features=own["features"][index] * own["step"][index].astype(float),
            probabilities=probabilities / probabilities.sum(axis=1, keepdims=True),
            loss=loss,
            **shared,
            **stacked,
        )


def load_router_tables(folder: str | os.PathLike | None = None) -> RouterTables:
    """The shipped tables, or those of a folder, after checking hashes.

    Raises FileNotFoundError where they are missing, ValueError where they are damaged.

    >>> tables = load_router_tables()
    >>> tables.n_layers, tables.layer(2).losses.shape
    (3, (4032, 16))
    """
    place, manifest, [path] = open_sealed(folder, "router-model", [LOSSES])
    return RouterTables(place, manifest, read_arrays(path))


def save_tables(folder: str | os.PathLike, tables: Mapping[str, np.ndarray]) -> None:
    """Write stacked arrays small: losses as what changes against the model as it is, in 16 bits,
    features in 8.

    >>> import tempfile
    >>> rows = np.ones((1, 4, 2))
    >>> tables = dict.fromkeys(["losses", "estimate", "features", "weights", "probabilities"], rows)
    >>> tables |= {"loss": np.ones(4), "chosen": rows, "gates": rows}
    >>> tables |= dict.fromkeys(["sequence", "language", "lam"], np.arange(4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_tables(folder, tables)
    ...     float(read_arrays(Path(folder, LOSSES))["change"].max())
    0.0
    """
    features = tables["features"]
    largest = np.abs(features).max(axis=1, keepdims=True)
    step = np.where(largest > 0, largest, 1.0) / LEVELS
    loss = tables["loss"][:, None]
    small = {
        "change": (tables["losses"] - loss).astype(np.float16),
        "estimate": (tables["estimate"] - loss).astype(np.float16),
        "features": np.round(features / step).astype(np.int8),
        "step": step.astype(np.float32),
        "chosen": tables["chosen"].astype(np.int16),
        "weights": tables["weights"].astype(np.float16),
        "probabilities": tables["probabilities"].astype(np.float16),
        "gates": tables["gates"].astype(np.float32),
        "lam": tables["lam"],
        "loss": tables["loss"].astype(np.float32),
        "sequence": tables["sequence"].astype(np.int32),
        "language": tables["language"].astype(np.uint8),
    }
    path = Path(folder) / LOSSES
    write_atomically(path, lambda file: np.savez_compressed(file, **small))


def save_routing(folder: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what the routers chose, as `routers.read_routing` takes it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_routing(folder, {"chosen": np.zeros((3, 8, 2), np.int8)})
    ...     read_arrays(Path(folder, ROUTING))["chosen"].shape
    (3, 8, 2)
    """
    path = Path(folder) / ROUTING
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
