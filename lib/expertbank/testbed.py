"""The routing testbed's results: what each run's routing says, and P3's claims on the shipped runs. In nats."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy

from expertbank._checks import as_count
from expertbank.bank import matching, open_sealed, seal, write_atomically
from expertbank.routers.measures import (
    conditional_information,
    joint_information,
    load_purity,
    max_violation,
    purity,
    relabelled_information,
    renyi_entropy,
    utilisation,
)

N_NULL = 20


def routing_counts(chosen, labels, n_labels: int, n_experts: int) -> np.ndarray:
    """How often each label met each expert, (n_labels, E): chosen (..., k) with -1 for a dropped choice.

    `labels` has the shape of `chosen` without its last axis, or one that broadcasts to it.
    """
    chosen = np.asarray(chosen)
    labels = np.broadcast_to(np.asarray(labels)[..., None], chosen.shape)
    kept = chosen >= 0
    cells = np.bincount(labels[kept] * n_experts + chosen[kept], minlength=n_labels * n_experts)
    return cells.reshape(n_labels, n_experts)


def specialisation(chosen, weights, domains, placed, n_experts: int, rng=0) -> dict[str, float]:
    """P3's measures and ours for whole sequences: chosen (S, L, k), -1 where dropped, weights (S, L, k),
    domains (S,), placed (S, L), true for tokens of T_D. T is a uniform pick among a token's experts.

    `I(X;T)` alone weighs them by the router's weights. Names that end in `_null` are means over `N_NULL` permutations:
    of the domains of whole sequences, and for `sequence_information` of the tokens of each position among
    sequences. H(T), I(X;T), utilisation and MaxVio use no label, so relabelling leaves them as they are.
    """
    chosen, domains, rng = np.asarray(chosen), np.asarray(domains), np.random.default_rng(rng)
    n_sequences, length, _ = chosen.shape
    n_domains = int(domains.max()) + 1
    sequence = np.arange(n_sequences)[:, None]
    by_sequence = routing_counts(chosen, sequence, n_sequences, n_experts)
    by_domain = routing_counts(chosen, domains[:, None], n_domains, n_experts)
    plain = np.where(placed[..., None], chosen, -1)
    load = by_sequence.sum(axis=0)
    found = {
        "utilisation": utilisation(load),
        "max_violation": max_violation(load),
        "entropy": renyi_entropy(load, 1),
        "rate": _weighted_rate(chosen, weights, n_experts),
        "purity": purity(routing_counts(plain, domains[:, None], n_domains, n_experts)),
        "load_purity": load_purity(by_domain),
        "domain_information": joint_information(by_domain),
        "sequence_information": joint_information(by_sequence),
        "position_information": _given_position(chosen, domains, n_domains, n_experts),
    }
    found["sequence_entropy"] = found["entropy"] - found["sequence_information"]
    found["cap"] = np.log(n_experts) - found["sequence_entropy"]
    found["domain_information_null"] = float(relabelled_information(by_sequence, domains, N_NULL, rng).mean())
    nulls = np.empty((N_NULL, 4))
    for i in range(N_NULL):
        relabelled = rng.permutation(domains)
        shuffled = rng.permuted(np.broadcast_to(sequence, (n_sequences, length)), axis=0)
        nulls[i] = (
            purity(routing_counts(plain, relabelled[:, None], n_domains, n_experts)),
            load_purity(routing_counts(chosen, relabelled[:, None], n_domains, n_experts)),
            joint_information(routing_counts(chosen, shuffled, n_sequences, n_experts)),
            _given_position(chosen, relabelled, n_domains, n_experts),
        )
    names = ("purity", "load_purity", "sequence_information", "position_information")
    return found | {f"{name}_null": float(value) for name, value in zip(names, nulls.mean(axis=0), strict=True)}


def _given_position(chosen, domains, n_domains: int, n_experts: int) -> float:
    length = chosen.shape[1]
    labels = np.arange(length) * n_domains + domains[:, None]
    counts = routing_counts(chosen, labels, length * n_domains, n_experts)
    return conditional_information(counts.reshape(length, n_domains, n_experts))


def _weighted_rate(chosen, weights, n_experts: int) -> float:
    """I(X;T) where a token picks among its kept experts by weight; tokens whose every choice was dropped are out."""
    weights = np.where(chosen >= 0, weights, 0).astype(float).reshape(-1, chosen.shape[-1])
    served = weights.sum(axis=1) > 0
    weights = weights[served] / weights[served].sum(axis=1, keepdims=True)
    experts = chosen.reshape(weights.shape[0] if served.all() else -1, chosen.shape[-1])
    load = np.bincount(experts[served].clip(0).ravel(), weights.ravel(), minlength=n_experts)
    return float(renyi_entropy(load, 1) - scipy.special.entr(weights).sum(axis=1).mean())


# --- the shipped runs ---

# balanced within a sequence and over the whole step: their held-out routing is shipped token by token
EXAMPLES = {"scripts-LBL-1-0.125-seed0": "routing-narrow.npz", "scripts-LBL-64-0.125-seed0": "routing-wide.npz"}
FILES = ("runs.csv", *EXAMPLES.values())
CONFIGURATION = ("mix", "method", "scope", "strength", "capacity", "capacity_scope", "placed")


@dataclass(frozen=True)
class Testbed:
    """All runs of a grid, one row each, and files with the routing of two of them."""

    folder: Path = field(repr=False)
    manifest: dict = field(repr=False)
    table: np.ndarray = field(repr=False)
    """a row for each run: its configuration (no cap is nan) and what was measured"""

    def rows(self, **wanted) -> np.ndarray:
        """The rows whose columns have the wanted values; `capacity=None` for runs without a cap."""
        return self.table[matching(self.table, wanted, "run")]

    def routing(self, name: str) -> Path:
        """File with the held-out routing of the example `"narrow"` (balanced within a sequence) or `"wide"` (over the
        whole step), for `routers.files.read_routing`."""
        if (file := f"routing-{name}.npz") not in FILES:
            raise ValueError(f"name is {name!r}; allowed are 'narrow' and 'wide'")
        return self.folder / file


def load_testbed(folder: str | os.PathLike | None = None) -> Testbed:
    """The shipped runs (default: the repository's `data/testbed`) after checking their hashes.

    Raises FileNotFoundError where they are missing, ValueError where they are damaged.
    """
    folder, manifest, (table, *_) = open_sealed(folder, "testbed", FILES)
    return Testbed(folder, manifest, np.genfromtxt(table, delimiter=",", names=True, dtype=None, encoding="utf-8"))


def save_testbed(folder, rows: Sequence[dict], routing: dict[str, dict], manifest: dict) -> None:
    """Write `runs.csv`, the arrays of each routing file and, last, the manifest that seals them, each atomically."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shown = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
        exact = {name: "nan" if row[name] is None else row[name] for name in CONFIGURATION}
        writer.writerow(shown | exact)
    write_atomically(folder / FILES[0], lambda file: file.write(text.getvalue().encode()))
    for name, arrays in routing.items():
        write_atomically(folder / name, lambda file, arrays=arrays: np.savez_compressed(file, **arrays))
    seal(folder, manifest, FILES)


# --- reading the runs ---


@dataclass(frozen=True)
class Contrast:
    """A difference between two configurations, paired by seed."""

    mean: float
    interval: tuple[float, float]
    """95%, Student's, over seeds; infinite for a single one"""
    n_seeds: int


def contrast(first: np.ndarray, second: np.ndarray, measure: str = "loss") -> Contrast:
    """`measure` of the first rows less that of the second at the same seeds, which saw the same batches.

    Raises ValueError where no seed is common or one occurs twice.
    """
    seeds = np.intersect1d(first["seed"], second["seed"])
    for rows in (first, second):
        if not len(seeds) or len(np.unique(rows["seed"])) < len(rows):
            raise ValueError(f"seeds are {first['seed']} and {second['seed']}; allowed are one row a seed, some shared")
    one, other = (np.array([rows[measure][rows["seed"] == seed][0] for seed in seeds]) for rows in (first, second))
    differences = one - other
    mean, n = float(differences.mean()), len(seeds)
    reach = scipy.stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return Contrast(mean, (float(mean - reach), float(mean + reach)), n)


def group_entropy(scope: int, n_sequences: int = 64, n_domains: int = 8) -> float:
    """Mean entropy in nats of the domain of a token in a random group of `scope` of the step's sequences.

    Every domain has the same number of sequences in the step. A router that loads all experts alike within every
    such group has I(D;T) at most this: the corollary of the scope theorem.
    """
    scope, n_sequences = as_count(scope, "scope"), as_count(n_sequences, "n_sequences")
    if n_sequences % as_count(n_domains, "n_domains") or scope > n_sequences:
        raise ValueError(f"scope is {scope} of {n_sequences} sequences in {n_domains} domains; they must fit")
    counts = np.arange(scope + 1)
    drawn = scipy.stats.hypergeom.pmf(counts, n_sequences, n_sequences // n_domains, scope)
    return float(n_domains * drawn @ scipy.special.entr(counts / scope))


def rank_correlation(values, losses) -> tuple[float, float]:
    """Spearman's rho of (K,) values with losses, and its two-sided p-value."""
    found = scipy.stats.spearmanr(values, losses)
    return float(found.statistic), float(found.pvalue)


def summarise(rows: np.ndarray, measures: Sequence[str] = ("loss",)) -> list[dict]:
    """One dict a configuration, in order of appearance: `n_seeds`, and mean and standard deviation over seeds of each
    measure, as `name` and `name_sd` (nan for a single seed)."""
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[name]) for name in CONFIGURATION), []).append(row)
    found = []
    for group in groups.values():
        values = {name: np.array([row[name] for row in group], dtype=float) for name in measures}
        one = {name: group[0][name].item() for name in CONFIGURATION} | {"n_seeds": len(group)}
        one |= {name: float(column.mean()) for name, column in values.items()}
        one |= {f"{name}_sd": float(v.std(ddof=1)) if len(v) > 1 else np.nan for name, v in values.items()}
        found.append(one)
    return found
