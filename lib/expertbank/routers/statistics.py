"""What a router did, in constant memory: sums that grow batch by batch and add up over machines.

T is the expert of a slot: a token that takes k experts fills k slots and counts k times, once for
each, so every quantity that is made of counts speaks of the same T, and I(D;T) <= I(Seq;T) <=
I(X;T) holds for the estimates too.
"""

from __future__ import annotations

import json
import operator
import zipfile
import zlib
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from pathlib import Path

import numpy as np
import scipy

from expertbank._checks import as_count
from expertbank._files import write_atomically

FORMAT = "expertbank router statistics 1"
MOST_SETS = 200_000  # sets of chosen experts that are counted one by one; above, only pairs are
TOLERANCE = 0.02  # how far a row of probabilities may miss 1: bfloat16 has three digits


@dataclass(frozen=True)
class LayerStatistics:
    """Sums over the tokens of one layer; E experts, k slots, all arrays, of which two add up field
    by field.

    Counts are int64 and exact. Arrays of what was not asked for are empty.
    """

    tokens: np.ndarray
    """() tokens that counted"""
    sizes: np.ndarray
    """(k + 1,) tokens by the number of experts they took; 0 is a token that was dropped
    altogether"""
    slots: np.ndarray
    """(E,) slots that each expert served"""
    pairs: np.ndarray
    """(E, E) tokens that took both experts, symmetric, zero on the diagonal"""
    sets: np.ndarray
    """tokens by the set that they took, in the order of `RouterStatistics.sets`; empty above
    `MOST_SETS` sets"""
    weighted: np.ndarray
    """() tokens with weights"""
    weight_sum: np.ndarray
    """() sum of their weights as given"""
    weight_load: np.ndarray
    """(E,) sum of their weights after each token's were scaled to sum to 1"""
    weight_entropy: np.ndarray
    """() sum of the entropies H(T|X=x) of those, nats"""
    probable: np.ndarray
    """() tokens with probabilities"""
    probability_sum: np.ndarray
    """(E,) sum of their probabilities"""
    probability_entropy: np.ndarray
    """() sum of their entropies, nats"""
    domains: np.ndarray
    """(D, E) slots by domain"""
    positions: np.ndarray
    """(P, max(D, 1), E) slots by position and domain"""
    token_slots: np.ndarray
    """(V, E) slots by token"""
    sequences: np.ndarray
    """() sequences"""
    sequence_slots: np.ndarray
    """(E,) slots of tokens whose sequence is known"""
    sequence_cells: np.ndarray
    """() pairs of a sequence and an expert that met, for the bias of I(Seq;T)"""
    sequence_entropy: np.ndarray
    """() sum over sequences of slots times H(T|Seq=s), nats"""
    null: np.ndarray
    """(relabellings, D, E) slots by pseudo-domain, of tokens whose domain and sequence are known"""

    def add(self, **amounts) -> None:
        """Add to the fields named, in place."""
        for name, amount in amounts.items():
            getattr(self, name)[...] += amount

    @property
    def nbytes(self) -> int:
        """Bytes held; they depend on the sizes asked for, never on how much was counted."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))


class RouterStatistics:
    """Statistics of all layers of a router, of constant size, fed with `update` and added with
    `merge` or `+`.

    `n_experts` E and `n_chosen`, the most slots k of a token, are the same in all layers.
    `n_domains`, `n_positions` and `n_tokens` (vocabulary) make room for counts by those labels; 0
    leaves them out. Counts take 8 bytes each: the table by token of a large vocabulary is the only
    big one.

    **Null of the domain information.** An exact permutation of domains over sequences needs all of
    them at once (`measures.relabelled_information` does that for what fits into memory). Here each
    sequence draws `relabellings` pseudo-domains from a hash of (seed, its id): uniform, independent
    of its experts, and the same in whatever batch or machine it turns up, so that parts merge
    exactly. Ids must therefore differ between sequences, also between updates: ids that come back
    share their pseudo-domains, which makes the null too high. Domains of unequal shares have the
    same null to first order, since its mean depends on how many labels there are, not on how common
    they are.

    Reduction on Dask, in bounded memory on every worker::

        import dask.bag statistics =
        dask.bag.from_sequence(files).map(statistics_of).fold(operator.add, split_every=8).compute()
    """

    def __init__(
        self, n_experts: int, n_chosen: int, *, n_domains: int = 0, n_positions: int = 0, n_tokens: int = 0,
        relabellings: int = 20, seed: int = 0,
    ):  # fmt: skip
        self.n_experts, self.n_chosen = (
            as_count(n_experts, "n_experts"),
            as_count(n_chosen, "n_chosen"),
        )
        if n_chosen > n_experts:
            raise ValueError(
                f"n_chosen is {n_chosen}; allowed is at most {n_experts}, the number of experts"
            )
        self.n_domains, self.n_positions = (
            as_count(n_domains, "n_domains", 0),
            as_count(n_positions, "n_positions", 0),
        )
        self.n_tokens = as_count(n_tokens, "n_tokens", 0)
        self.relabellings, self.seed = (
            as_count(relabellings, "relabellings", 0),
            as_count(seed, "seed", 0),
        )
        self.layers: dict[int | str, LayerStatistics] = {}

    @property
    def configuration(self) -> dict[str, int]:
        """What it was made with; two can be merged where these agree."""
        names = (
            "n_experts",
            "n_chosen",
            "n_domains",
            "n_positions",
            "n_tokens",
            "relabellings",
            "seed",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def nbytes(self) -> int:
        """Bytes held by all layers."""
        return sum(layer.nbytes for layer in self.layers.values())

    def update(
        self, layer: int | str, chosen=None, weights=None, probabilities=None, *, domain=None, sequence=None,
        position=None, token=None, mask=None,
    ) -> None:  # fmt: skip
        """Count n tokens of a layer. A refused batch leaves the statistics as they were.

        `chosen` (n, <= k): distinct experts of each token in any order, -1 for a slot that was
        dropped or not used. `weights`, of the same shape: what the experts' outputs were multiplied
        by, >= 0, of any sum. `probabilities` (n, E): the router's softmax before the choice.
        `domain`, `sequence`, `position` and `token` (n,): integers, -1 for unknown; they are
        counted against `chosen`. **All tokens of a sequence must come in one update**: what crosses
        updates would be two sequences. `mask` (n,): True for tokens that count, False for padding.
        Raises ValueError for anything else, and says what is allowed.
        """
        given = {"chosen": chosen, "weights": weights, "probabilities": probabilities}
        if chosen is None and probabilities is None:
            raise ValueError(
                "neither chosen nor probabilities is given; at least one of them is needed"
            )
        labels = {"domain": domain, "sequence": sequence, "position": position, "token": token}
        labels = {name: label for name, label in labels.items() if label is not None}
        if chosen is None and (labels or weights is not None):
            names = [*labels, *(["weights"] if weights is not None else [])]
            raise ValueError(
                f"{', '.join(names)} without chosen; they are counted against the chosen experts"
            )
        n = next(
            len(np.atleast_1d(np.asarray(value))) for value in given.values() if value is not None
        )
        keep = _as_mask(mask, n)
        amounts = {"tokens": int(keep.sum())}
        if chosen is not None:
            rows = _as_rows(chosen, "chosen", n, self.n_experts, self.n_chosen, keep)
            labels = {name: self._as_label(label, name, n, keep) for name, label in labels.items()}
            amounts |= self._choices(rows) | self._labels(rows, labels)
            if weights is not None:
                amounts |= _weights(
                    _as_numbers(weights, "weights", np.shape(chosen), keep), rows, self.n_experts
                )
        if probabilities is not None:
            amounts |= _probabilities(
                _as_numbers(probabilities, "probabilities", (n, self.n_experts), keep)
            )
        self._layer(layer).add(**amounts)

    def add_load(self, layer: int | str, load) -> None:
        """Add slots (E,) of a layer that were counted elsewhere, expert by expert: its load, and
        nothing else of it."""
        keep = np.ones(self.n_experts, bool)
        load = _as_integers(load, "load", (self.n_experts,), keep, None)
        if load.min() < 0:
            raise ValueError(f"load holds {load.min()}; allowed are counts of slots, 0 and up")
        self._layer(layer).add(slots=load)

    def merge(self, other: RouterStatistics) -> RouterStatistics:
        """A new one that has counted what both did; layers that only one of them knows are taken
        over."""
        if not isinstance(other, RouterStatistics) or other.configuration != self.configuration:
            found = getattr(other, "configuration", type(other).__name__)
            raise ValueError(
                f"cannot merge {found} into {self.configuration}; both must be made with the same numbers"
            )
        merged = RouterStatistics(**self.configuration)
        for part in (self, other):
            for name, layer in part.layers.items():
                merged._layer(name).add(**vars(layer))
        return merged

    __add__ = merge

    def save(self, path) -> None:
        """Write one npz, all of it or nothing; `load_statistics` reads it back. No pickles."""
        header = {"format": FORMAT, "sizes": self.configuration, "layers": list(self.layers)}
        arrays = {
            f"{i}.{name}": array
            for i, layer in enumerate(self.layers.values())
            for name, array in vars(layer).items()
        }
        header = np.array(json.dumps(header))
        write_atomically(
            Path(path), lambda file: np.savez_compressed(file, header=header, **arrays)
        )

    @cached_property
    def sets(self) -> np.ndarray | None:
        """Every set of at most k experts (sets, k), -1 for an empty slot, in the order of counting;
        None if too many.

        Sets of one size follow each other by size, and within a size in the combinatorial number
        system: the set c_1 < c_2 < ... has the number sum_i C(c_i, i), which needs no table to look
        up.
        """
        if self._binomials is None:
            return None
        from itertools import combinations

        k, parts = self.n_chosen, []
        for size in range(k + 1):
            members = np.array(list(combinations(range(self.n_experts), size)), dtype=np.int64)
            parts.append(
                np.hstack(
                    [np.full((len(members), k - size), -1), members.reshape(len(members), size)]
                )
            )
        rows = np.vstack(parts)
        return rows[np.argsort(self._set_numbers(rows))]

    @cached_property
    def _binomials(self) -> np.ndarray | None:
        """C(i, j), (E + 1, k + 1), where the sets are few enough to be counted."""
        i, j = np.arange(self.n_experts + 1)[:, None], np.arange(self.n_chosen + 1)
        binomials = scipy.special.comb(i, j)
        return binomials.astype(np.int64) if binomials[-1].sum() <= MOST_SETS else None

    def _set_numbers(self, rows) -> np.ndarray:
        """Numbers (n,) of sets given as sorted rows (n, k), empty slots first."""
        there = rows >= 0
        place = np.cumsum(there, axis=1)
        first = np.concatenate([[0], self._binomials[-1].cumsum()])[there.sum(axis=1)]
        return first + np.where(there, self._binomials[np.where(there, rows, 0), place], 0).sum(
            axis=1
        )

    def _layer(self, name) -> LayerStatistics:
        name = int(name) if isinstance(name, np.integer) else name
        if not isinstance(name, (int, str)) or isinstance(name, bool):
            raise ValueError(f"layer is {name!r}; allowed is a number or a name")
        if name not in self.layers:
            self.layers[name] = LayerStatistics(
                **{
                    field.name: np.zeros(*self._shape(field.name))
                    for field in fields(LayerStatistics)
                }
            )
        return self.layers[name]

    def _shape(self, name: str) -> tuple[tuple[int, ...], type]:
        e, d = self.n_experts, self.n_domains
        shapes = {
            "sizes": (self.n_chosen + 1,), "slots": (e,), "pairs": (e, e), "weight_load": (e,), "probability_sum": (e,),
            "sets": (0 if self._binomials is None else int(self._binomials[-1].sum()),),
            "domains": (d, e), "positions": (self.n_positions, max(d, 1), e), "token_slots": (self.n_tokens, e),
            "sequence_slots": (e,), "null": (self.relabellings, d, e),
        }  # fmt: skip
        real = {
            "weight_sum",
            "weight_load",
            "weight_entropy",
            "probability_sum",
            "probability_entropy",
        }
        return shapes.get(name, ()), float if name in real | {"sequence_entropy"} else np.int64

    def _as_label(self, label, name: str, n: int, keep) -> np.ndarray:
        room = {"domain": "n_domains", "position": "n_positions", "token": "n_tokens"}.get(name)
        if room and not getattr(self, room):
            raise ValueError(
                f"{name} is given, but {room} is 0; make the statistics with {room}=... to count it"
            )
        return _as_integers(label, name, (n,), keep, getattr(self, room) if room else None)

    def _choices(self, rows) -> dict:
        """Amounts of rows (n, k): sizes, slots, pairs, sets."""
        e, k, (n, width) = self.n_experts, self.n_chosen, rows.shape
        sorted_rows = np.hstack([np.full((n, k - width), -1), np.sort(rows, axis=1)])
        upper = np.zeros((e, e), np.int64)
        for i in range(k - 1):  # each expert with those of higher number
            upper += _by_label(sorted_rows[:, i + 1 :], sorted_rows[:, i], (e, e))
        amounts = {
            "sizes": np.bincount((rows >= 0).sum(axis=1), minlength=k + 1),
            "slots": np.bincount(rows[rows >= 0], minlength=e),
            "pairs": upper + upper.T,
        }
        if self._binomials is not None:
            amounts["sets"] = np.bincount(
                self._set_numbers(sorted_rows), minlength=int(self._binomials[-1].sum())
            )
        return amounts

    def _labels(self, rows, labels: dict) -> dict:
        """Amounts of rows (n, k) with labels (n,): slots by domain, position, token and sequence,
        and the null."""
        e, d, amounts = self.n_experts, self.n_domains, {}
        domain = labels.get("domain")
        if domain is not None:
            amounts["domains"] = _by_label(rows, domain, (d, e))
        if "position" in labels:
            position, shape = labels["position"], (self.n_positions, max(d, 1), e)
            within = (
                np.zeros_like(position)
                if d == 0
                else np.full_like(position, -1)
                if domain is None
                else domain
            )
            cell = np.where((position >= 0) & (within >= 0), position * shape[1] + within, -1)
            amounts["positions"] = _by_label(rows, cell, (shape[0] * shape[1], e)).reshape(shape)
        if "token" in labels:
            amounts["token_slots"] = _by_label(rows, labels["token"], (self.n_tokens, e))
        if "sequence" in labels:
            ids, index = np.unique(labels["sequence"], return_inverse=True)
            index = np.where(labels["sequence"] >= 0, index, -1)
            counts = _by_label(rows, index, (len(ids), e))
            slots, cells = counts.sum(axis=1), counts > 0
            amounts |= {
                "sequences": int((slots > 0).sum()),
                "sequence_slots": counts.sum(axis=0),
                "sequence_cells": int(cells.sum()),
                "sequence_entropy": float(
                    -scipy.special.entr(slots).sum() + scipy.special.entr(counts).sum()
                ),
            }
            if domain is not None and self.relabellings:
                known = _by_label(rows, np.where(domain >= 0, index, -1), (len(ids), e))
                amounts["null"] = self._null(ids, known)
        return amounts

    def _null(self, ids, counts) -> np.ndarray:
        """Slots by pseudo-domain (relabellings, D, E) of sequences with counts (S, E)."""
        r, d, n = self.relabellings, self.n_domains, len(ids)
        labels = pseudo_labels(ids, r, d, self.seed) + d * np.arange(r)[:, None]  # (r, S)
        ones = np.ones(r * n, np.int64)
        of_label = scipy.sparse.csr_array(
            (ones, (labels.ravel(), np.tile(np.arange(n), r))), shape=(r * d, n)
        )
        return (of_label @ counts).reshape(r, d, self.n_experts)


def merge_statistics(parts) -> RouterStatistics:
    """The sum of one or more statistics, in any order; ValueError where there is none or their
    sizes differ."""
    parts = list(parts)
    if not parts:
        raise ValueError("no statistics to merge; at least one is needed")
    return reduce(operator.add, parts)


def load_statistics(path) -> RouterStatistics:
    """Read what `RouterStatistics.save` wrote; ValueError for any other file, or a damaged one."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; RouterStatistics.save writes such a file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(str(archive["header"]))
            if header["format"] != FORMAT:
                raise ValueError(f"its format is {header['format']!r}")
            statistics = RouterStatistics(**header["sizes"])
            for i, name in enumerate(header["layers"]):
                layer = statistics._layer(name)
                for field, array in vars(layer).items():
                    found = archive[f"{i}.{field}"]
                    if found.shape != array.shape or found.dtype != array.dtype:
                        raise ValueError(f"{field} is {found.dtype} of shape {found.shape}")
                    array[...] = found
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} holds no router statistics ({error}); RouterStatistics.save writes them"
        ) from error
    return statistics


def pseudo_labels(ids, relabellings: int, n_labels: int, seed: int) -> np.ndarray:
    """Labels (relabellings, S) in 0 .. n_labels-1 of sequences with integer ids (S,): a hash, the
    same everywhere.

    The finaliser of SplitMix64 (Steele, Lea & Flood 2014) is applied to the seed, the relabelling
    and the id in turn.
    """
    with np.errstate(over="ignore"):
        state = _mix(
            np.uint64(seed % 2**64)
            + _GOLDEN * (np.arange(relabellings, dtype=np.uint64) + np.uint64(1))
        )
        hashed = _mix(_mix(np.asarray(ids).astype(np.uint64) + _GOLDEN)[None, :] ^ state[:, None])
    return ((hashed >> np.uint64(32)) * np.uint64(n_labels) >> np.uint64(32)).astype(np.int64)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _by_label(rows, labels, shape) -> np.ndarray:
    """Slots by label and expert, of `shape`: rows (n, k), labels (n,); -1 in either counts
    nowhere."""
    there = (rows >= 0) & (labels >= 0)[:, None]
    cells = (labels[:, None] * shape[1] + rows)[there]
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)


def _weights(weights, rows, n_experts: int) -> dict:
    """Amounts of weights (n, k) of the experts in rows (n, k)."""
    weights = np.where(rows >= 0, weights, 0)
    sums = weights.sum(axis=1)
    taken = (rows >= 0).any(axis=1)
    if (sums[taken] <= 0).any():
        raise ValueError(
            "weights of a token that took experts sum to 0; mask such tokens or leave weights out"
        )
    share = weights[taken] / sums[taken, None]
    there = rows[taken] >= 0
    return {
        "weighted": int(taken.sum()),
        "weight_sum": float(sums[taken].sum()),
        "weight_load": np.bincount(rows[taken][there], share[there], n_experts),
        "weight_entropy": float(scipy.special.entr(share).sum()),
    }


def _probabilities(probabilities) -> dict:
    """Amounts of probabilities (n, E), scaled to sum to 1 exactly."""
    sums = probabilities.sum(axis=1)
    worst = float(np.abs(sums - 1).max(initial=0))
    if worst > TOLERANCE:
        raise ValueError(
            f"probabilities have a row that sums to 1 +- {worst:.3g}; allowed are rows that sum to 1: take the softmax "
            "of logits, divide a sigmoid router's scores by their sum"
        )
    share = probabilities / sums[:, None]
    return {
        "probable": len(share),
        "probability_sum": share.sum(axis=0),
        "probability_entropy": float(scipy.special.entr(share).sum()),
    }


def _as_mask(mask, n: int) -> np.ndarray:
    if mask is None:
        return np.ones(n, bool)
    mask = np.asarray(mask)
    if mask.shape != (n,) or not (mask.dtype == bool or np.isin(mask, (0, 1)).all()):
        raise ValueError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}; allowed is ({n},), True for what counts"
        )
    return mask.astype(bool)


def _as_rows(chosen, name: str, n: int, n_experts: int, most: int, keep) -> np.ndarray:
    """Chosen experts of the tokens to keep, (n', k), distinct within a row."""
    shape = np.shape(chosen)
    if len(shape) != 2 or shape[0] != n or not 1 <= shape[1] <= most:
        raise ValueError(
            f"{name} has shape {shape}; allowed is ({n}, k) with k from 1 to {most}, a token a row"
        )
    rows = _as_integers(chosen, name, shape, keep, n_experts)
    ordered = np.sort(rows, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        row = rows[twice.argmax()].tolist()
        raise ValueError(
            f"{name} has a row {row} that names an expert twice; the experts of a token are distinct"
        )
    return rows


def _as_integers(values, name: str, shape, keep, below: int | None) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != tuple(shape):
        raise ValueError(f"{name} has shape {array.shape}; allowed is {tuple(shape)}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {array.dtype}; allowed are integers")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {array.max()}; allowed is at most 2^63 - 1")
    array = array[keep].astype(np.int64)
    if array.size and (array.min() < -1 or (below is not None and array.max() >= below)):
        worst = array.min() if array.min() < -1 else array.max()
        allowed = "0 and up" if below is None else f"0 to {below - 1}"
        raise ValueError(f"{name} holds {worst}; allowed are {allowed}, and -1 for none")
    return array


def _as_numbers(values, name: str, shape, keep) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != tuple(shape):
        raise ValueError(f"{name} has shape {array.shape}; allowed is {tuple(shape)}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} has dtype {array.dtype}; allowed are real numbers")
    array = array[keep].astype(float)
    if not (np.isfinite(array).all() and array.min(initial=0) >= 0):
        raise ValueError(
            f"{name} holds {array[~(array >= 0) | ~np.isfinite(array)][0]:g}; allowed are numbers >= 0"
        )
    return array
