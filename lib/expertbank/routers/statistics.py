"""What a router did, in constant memory: sums that grow batch by batch and add up over machines.

T is the expert of a slot: a token that takes k experts fills k slots and counts k times, once for
each, so every quantity that is made of counts speaks of the same T. Where each sequence has one
domain, and domains and sequences are known of all tokens, I(D;T) <= I(Seq;T) <= I(X;T) holds for
the estimates too, as long as T is a uniform pick among a token's experts: weights make another T,
whose I(X;T) may lie below the other two.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_count, check_size, sum_tolerance
from expertbank._files import check_input, read_arrays, reading, write_atomically
from expertbank.routers._batch import as_amounts, as_choices, as_integers, as_mask
from expertbank.routers._kept import SEVERAL, Sequences, keep_lowest
from expertbank.routers._sets import SetNumbering, number_of_sets
from expertbank.routers.measures import routing_counts

FILE_FORMAT = "expertbank router statistics 2"
OLD_FORMAT = "expertbank router statistics 1"  # random relabellings in place of sequences
MOST_SETS = 200_000  # sets of chosen experts that are counted one by one; above, only pairs are
MOST_COUNTS = 2**30  # of one layer: 8 GB
MOST = 2**53  # of a count, above which double precision skips some
KEPT = ("kept_ids", "kept_domains", "kept_slots")  # the fields of a layer that do not add up
# the argument of `RouterStatistics` that makes room for a label; a sequence needs none
ROOM_FOR = {"domain": "n_domains", "position": "n_positions", "token": "n_tokens"}

Layer = int | str
"""What a layer is called: a number or a name."""


@dataclass(frozen=True)
class LayerStatistics:
    """Sums over the tokens of one layer; E experts, k slots, all arrays. Those of two parts add up
    field by field, but for the kept sequences, of which `include` keeps the right ones.

    Counts are exact integers. Arrays of what was not asked for are empty. `RouterStatistics` makes
    and feeds them.

    >>> statistics = RouterStatistics(n_experts=3, n_chosen=2)
    >>> statistics.update("first", chosen=[[0, 1], [0, 2], [0, -1]])
    >>> layer = statistics.layers["first"]
    >>> int(layer.tokens), layer.sizes.tolist(), layer.slots.tolist()
    (3, [0, 1, 2], [3, 1, 1])
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
    mixed_sequences: np.ndarray
    """() sequences with tokens of more than one domain in one update; below 0 where a file of an
    earlier version did not count them"""
    known_slots: np.ndarray
    """() slots of tokens whose domain and sequence are known"""
    unrouted: np.ndarray
    """() rows of files that held no route, cached, not captured or padding; counted nowhere else"""
    kept_ids: np.ndarray
    """(K,) ids of the sequences that are kept for the null, ascending; -1 for a free row, after all
    others"""
    kept_domains: np.ndarray
    """(K,) their domains; -2 for one with tokens of several"""
    kept_slots: np.ndarray
    """(K, E) their slots, of tokens whose domain is known"""

    def add(self, **amounts: ArrayLike) -> None:
        """Add to the fields named, in place.

        >>> statistics = RouterStatistics(n_experts=3, n_chosen=1)
        >>> statistics.update(0, [[2]])
        >>> statistics.layers[0].add(tokens=1, slots=[1, 0, 0])
        >>> statistics.layers[0].slots.tolist()
        [1, 0, 1]
        """
        for name, amount in amounts.items():
            getattr(self, name)[...] += amount

    @property
    def kept(self) -> Sequences:
        """The rows of the kept sequences, free ones included."""
        return Sequences(self.kept_ids, self.kept_domains, self.kept_slots)

    def add_sequences(self, whole: Sequences, seed: int) -> None:
        """Add sequences of an update to what the null needs, in place."""
        n_mixed = int((whole.domains == SEVERAL).sum())
        self.add(known_slots=whole.slots.sum(), mixed_sequences=n_mixed)
        keep_lowest(self.kept, whole, seed)

    def include(self, other: LayerStatistics, seed: int) -> None:
        """Add what another part counted, in place; `seed` is that of both."""
        sums = {name: array for name, array in vars(other).items() if name not in KEPT}
        self.add(**sums)
        keep_lowest(self.kept, other.kept.there(), seed)

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
    big one. Raises ValueError for sizes that are no counts, and for more slots than experts.

    **Null of the domain information.** A permutation of domains over sequences needs the slots of
    each sequence. Those of `n_kept` K sequences are kept, 4 K E bytes a layer: of all that came,
    the K with the lowest hash of (seed, id), which are the same in whatever batch, order or machine
    they turn up, so that parts merge exactly, and the same in all layers. Up to K sequences the
    permutation test of the report is one of all data; beyond, of a random sample of K. An id that
    comes back is taken for more of the same sequence, so ids must differ between sequences, also
    between updates: different texts that share an id are permuted as one. The null keeps its mean
    then, and has fewer units to permute, so that p falls less low; where their domains differ, the
    report has no p value.

    Two batches, counted together or in parts:

    >>> one = RouterStatistics(n_experts=4, n_chosen=2, n_domains=2)
    >>> one.update(0, chosen=[[0, 1], [0, 1]], domain=[0, 0], sequence=[7, 7])
    >>> other = RouterStatistics(n_experts=4, n_chosen=2, n_domains=2)
    >>> other.update(0, chosen=[[2, 3]], domain=[1], sequence=[8])
    >>> (one + other).layers[0].domains.tolist()
    [[2, 2, 0, 0], [0, 0, 1, 1]]

    Reduction on Dask, in bounded memory on every worker::

        parts = dask.bag.from_sequence(files).map(statistics_of)
        statistics = parts.fold(operator.add, split_every=8).compute()
    """

    def __init__(
        self,
        n_experts: int,
        n_chosen: int,
        *,
        n_domains: int = 0,
        n_positions: int = 0,
        n_tokens: int = 0,
        n_kept: int = 1024,
        seed: int = 0,
    ):
        self.n_experts = as_count(n_experts, "n_experts")
        self.n_chosen = as_count(n_chosen, "n_chosen")
        if n_chosen > n_experts:
            raise ValueError(
                f"n_chosen is {n_chosen}; allowed is at most {n_experts}, the number of experts"
            )
        self.n_domains = as_count(n_domains, "n_domains", 0)
        self.n_positions = as_count(n_positions, "n_positions", 0)
        self.n_tokens = as_count(n_tokens, "n_tokens", 0)
        self.n_kept = as_count(n_kept, "n_kept", 0)
        self.seed = as_count(seed, "seed", 0)
        by_label = self.n_domains + max(1, self.n_domains) * self.n_positions + self.n_tokens
        n_counts = self.n_experts * (self.n_experts + by_label + self.n_kept)
        check_size(n_counts, f"counts of {self.n_experts} experts by label", MOST_COUNTS)
        self.layers: dict[Layer, LayerStatistics] = {}
        # by layer, how its choices were heard, of those that a recorder listened to
        self.heard: dict[Layer, str] = {}
        # from a file of `OLD_FORMAT`, by layer: (relabellings, D, E) slots by random domain
        self.old_nulls: dict[Layer, np.ndarray] = {}

    @property
    def configuration(self) -> dict[str, int]:
        """What it was made with; two can be merged where these agree.

        >>> RouterStatistics(8, 2, n_domains=3).configuration["n_domains"]
        3
        """
        return {
            "n_experts": self.n_experts,
            "n_chosen": self.n_chosen,
            "n_domains": self.n_domains,
            "n_positions": self.n_positions,
            "n_tokens": self.n_tokens,
            "n_kept": self.n_kept,
            "seed": self.seed,
        }

    @property
    def nbytes(self) -> int:
        """Bytes held by all layers."""
        return sum(layer.nbytes for layer in self.layers.values())

    @cached_property
    def set_numbering(self) -> SetNumbering | None:
        """The numbers under which `LayerStatistics.sets` counts sets; None where there are too
        many to be counted one by one."""
        if not number_of_sets(self.n_experts, self.n_chosen) <= MOST_SETS:
            return None
        return SetNumbering(self.n_experts, self.n_chosen)

    @cached_property
    def sets(self) -> np.ndarray | None:
        """Every set of at most k experts (sets, k), -1 for an empty slot, in the order of counting;
        None if too many.

        >>> RouterStatistics(n_experts=3, n_chosen=1).sets.tolist()
        [[-1], [0], [1], [2]]
        """
        return None if self.set_numbering is None else self.set_numbering.rows()

    # --- feeding ---

    def update(
        self,
        layer: Layer,
        chosen: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        probabilities: ArrayLike | None = None,
        *,
        domain: ArrayLike | None = None,
        sequence: ArrayLike | None = None,
        position: ArrayLike | None = None,
        token: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> None:
        """Count n tokens of a layer. A refused batch leaves the statistics as they were.

        `chosen` (n, <= k): distinct experts of each token in any order, -1 for a slot that was
        dropped or not used. `weights`, of the same shape: what the experts' outputs were multiplied
        by, >= 0, of any sum. `probabilities` (n, E): the router's softmax before the choice.
        `domain`, `sequence`, `position` and `token` (n,): integers, -1 for unknown; they are
        counted against `chosen`. **All tokens of a sequence must come in one update**: in all but
        the null, what crosses updates would be two sequences. `mask` (n,): True for tokens that
        count, False for padding. Raises ValueError for anything else, and says what is allowed.

        >>> statistics = RouterStatistics(n_experts=3, n_chosen=2)
        >>> statistics.update(0, [[0, 1], [2, -1]], weights=[[0.6, 0.2], [0.9, 0]])
        >>> statistics.layers[0].weight_load.round(2).tolist()  # each token's weights sum to 1
        [0.75, 0.25, 1.0]
        """
        arrays = {"chosen": chosen, "weights": weights, "probabilities": probabilities}
        labels = {"domain": domain, "sequence": sequence, "position": position, "token": token}
        self.update_layers([(layer, {**arrays, **labels, "mask": mask})])

    def update_layers(self, batches: Iterable[tuple[Layer, Mapping[str, Any]]]) -> None:
        """Count several layers, or none of them: pairs of a layer and keywords of `update`. Where
        one is refused, all statistics are as they were.

        >>> statistics = RouterStatistics(n_experts=3, n_chosen=1)
        >>> statistics.update_layers([(0, {"chosen": [[0]]}), (1, {"chosen": [[2]]})])
        >>> [layer.slots.tolist() for layer in statistics.layers.values()]
        [[1, 0, 0], [0, 0, 1]]
        """
        checked = [(_as_layer(layer), self._amounts(**arrays)) for layer, arrays in batches]
        for layer, (amounts, whole) in checked:
            counted = self._layer(layer)
            counted.add(**amounts)
            if whole is not None:
                counted.add_sequences(whole, self.seed)

    def add_sequences(
        self,
        layer: Layer,
        sequence: ArrayLike,
        slots: ArrayLike,
        domain: ArrayLike | None = None,
        before: ArrayLike = 0,
    ) -> None:
        """Add slots (S, E) to sequences (S,) that grow token by token, where `update` counted those
        slots without their sequence. `before` (S, E): slots that were counted of them earlier, with
        their sequence. `domain` (S,), -1 for unknown; -2 where tokens are of several. Raises
        ValueError for other shapes.

        >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
        >>> statistics.update(0, [[0]], sequence=[7])
        >>> statistics.update(0, [[1]])
        >>> statistics.add_sequences(0, [7], [[0, 1]], before=[[1, 0]])
        >>> int(statistics.layers[0].sequences), float(statistics.layers[0].sequence_entropy)
        (1, 1.3862943611198906)
        """
        slots = np.asarray(slots)
        sequence = np.asarray(sequence)
        if slots.shape != (len(sequence), self.n_experts):
            raise ValueError(
                f"slots has shape {slots.shape}; allowed is {(len(sequence), self.n_experts)}"
            )
        order = sequence.argsort()
        counted = self._layer(layer)
        counted.add(**_sequence_amounts(slots + before))
        earlier = np.broadcast_to(np.asarray(before), slots.shape)
        counted.add(**{name: -amount for name, amount in _sequence_amounts(earlier).items()})
        if domain is not None:
            domain = np.asarray(domain)[order]
            known = (domain >= 0) | (domain == SEVERAL)
            whole = Sequences(sequence[order][known], domain[known], slots[order][known])
            counted.add_sequences(whole, self.seed)

    def add_load(self, layer: Layer, load: ArrayLike) -> None:
        """Add slots (E,) of a layer that were counted elsewhere, expert by expert: its load, and
        nothing else of it. Raises ValueError for anything but counts.

        >>> statistics = RouterStatistics(n_experts=3, n_chosen=1)
        >>> statistics.add_load(0, [5, 0, 2])
        >>> statistics.layers[0].slots.tolist(), int(statistics.layers[0].tokens)
        ([5, 0, 2], 0)
        """
        keep = np.ones(self.n_experts, bool)
        slots = as_integers(load, "load", (self.n_experts,), keep, None)
        if slots.min() < 0:
            raise ValueError(f"load holds {slots.min()}; allowed are counts of slots, 0 and up")
        self._layer(layer).add(slots=slots)

    def _amounts(
        self,
        chosen: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        probabilities: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        **labels: ArrayLike | None,
    ) -> tuple[dict[str, ArrayLike], Sequences | None]:
        """What a batch adds to the fields of a layer, and its sequences; checks it."""
        if chosen is None and probabilities is None:
            raise ValueError(
                "neither chosen nor probabilities is given; at least one of them is needed"
            )
        known = {name: label for name, label in labels.items() if label is not None}
        if chosen is None and (known or weights is not None):
            needing_choices = ", ".join([*known, *(["weights"] if weights is not None else [])])
            raise ValueError(
                f"{needing_choices} without chosen; they are counted against the chosen experts"
            )
        first: Any = probabilities if chosen is None else chosen
        n = np.shape(first)[0] if np.ndim(first) else 1
        keep = as_mask(mask, n)
        amounts: dict[str, ArrayLike] = {"tokens": int(keep.sum())}
        whole = None
        if chosen is not None:
            rows = as_choices(chosen, "chosen", n, self.n_experts, self.n_chosen, keep)
            checked = {name: self._as_label(label, name, n, keep) for name, label in known.items()}
            amounts |= self._choice_amounts(rows) | self._label_amounts(rows, checked)
            whole = self._whole_sequences(rows, checked)
            if weights is not None:
                kept_weights = as_amounts(weights, "weights", np.shape(chosen), keep)
                amounts |= _weight_amounts(kept_weights, rows, self.n_experts)
        if probabilities is not None:
            shape = (n, self.n_experts)
            kept_probabilities = as_amounts(probabilities, "probabilities", shape, keep)
            amounts |= _probability_amounts(kept_probabilities, sum_tolerance(probabilities))
        return amounts, whole

    def _as_label(self, label: ArrayLike, name: str, n: int, keep: np.ndarray) -> np.ndarray:
        """A label (n,) of the tokens to keep, below the room that was made for it."""
        argument = ROOM_FOR.get(name)
        if argument is None:
            return as_integers(label, name, (n,), keep, None)
        room = getattr(self, argument)
        if not room:
            raise ValueError(
                f"{name} is given, but {argument} is 0; make the statistics with {argument}=... "
                "to count it"
            )
        return as_integers(label, name, (n,), keep, room)

    def _choice_amounts(self, rows: np.ndarray) -> dict[str, ArrayLike]:
        """Amounts of rows (n, k'): sizes, slots, pairs, sets."""
        e = self.n_experts
        k = self.n_chosen
        n, width = rows.shape
        sorted_rows = np.hstack([np.full((n, k - width), -1), np.sort(rows, axis=1)])
        upper = np.zeros((e, e), np.int64)
        for i in range(k - 1):  # each expert with those of higher number
            upper += routing_counts(sorted_rows[:, i + 1 :], sorted_rows[:, i], e, e)
        amounts: dict[str, ArrayLike] = {
            "sizes": np.bincount((rows >= 0).sum(axis=1), minlength=k + 1),
            "slots": np.bincount(rows[rows >= 0], minlength=e),
            "pairs": upper + upper.T,
        }
        numbering = self.set_numbering
        if numbering is not None:
            numbers = numbering.numbers(sorted_rows)
            amounts["sets"] = np.bincount(numbers, minlength=numbering.n_sets)
        return amounts

    def _label_amounts(
        self, rows: np.ndarray, labels: dict[str, np.ndarray]
    ) -> dict[str, ArrayLike]:
        """Amounts of rows (n, k) with labels (n,): slots by domain, position, token and
        sequence."""
        amounts: dict[str, ArrayLike] = {}
        domain = labels.get("domain")
        if domain is not None:
            amounts["domains"] = routing_counts(rows, domain, self.n_domains, self.n_experts)
        if "position" in labels:
            amounts["positions"] = self._slots_by_position(rows, labels["position"], domain)
        if "token" in labels:
            counts = routing_counts(rows, labels["token"], self.n_tokens, self.n_experts)
            amounts["token_slots"] = counts
        if "sequence" in labels:
            amounts |= self._sequence_amounts(rows, labels["sequence"])
        return amounts

    def _slots_by_position(
        self, rows: np.ndarray, position: np.ndarray, domain: np.ndarray | None
    ) -> np.ndarray:
        """Slots (P, max(D, 1), E) by position and domain; a token of unknown domain counts nowhere
        where there are domains."""
        n_labels = max(self.n_domains, 1)
        if self.n_domains == 0:
            label = np.zeros_like(position)
        elif domain is None:
            label = np.full_like(position, -1)
        else:
            label = domain
        known = (position >= 0) & (label >= 0)
        cell = np.where(known, position * n_labels + label, -1)
        counts = routing_counts(rows, cell, self.n_positions * n_labels, self.n_experts)
        return counts.reshape(self.n_positions, n_labels, self.n_experts)

    def _sequence_amounts(self, rows: np.ndarray, sequence: np.ndarray) -> dict[str, ArrayLike]:
        """Amounts of rows (n, k) in sequences (n,)."""
        ids, index = np.unique(sequence, return_inverse=True)
        index = np.where(sequence >= 0, index, -1)
        return _sequence_amounts(routing_counts(rows, index, len(ids), self.n_experts))

    def _whole_sequences(self, rows: np.ndarray, labels: dict[str, np.ndarray]) -> Sequences | None:
        """The sequences of rows (n, k), and their slots, of tokens whose domain is known."""
        if "domain" not in labels or "sequence" not in labels:
            return None
        domain = labels["domain"]
        sequence = labels["sequence"]
        known = (sequence >= 0) & (domain >= 0)
        ids, index = np.unique(sequence[known], return_inverse=True)
        lowest = np.full(len(ids), self.n_domains)
        highest = np.full(len(ids), -1)
        np.minimum.at(lowest, index, domain[known])
        np.maximum.at(highest, index, domain[known])
        slots = routing_counts(rows[known], index, len(ids), self.n_experts)
        return Sequences(ids, np.where(lowest == highest, lowest, SEVERAL), slots)

    def _layer(self, name: Layer) -> LayerStatistics:
        """The statistics of a layer, made where it is new."""
        name = _as_layer(name)
        if name not in self.layers:
            arrays = {
                field: np.zeros(shape, _type_of(field)) for field, shape in self._shapes().items()
            }
            arrays["kept_ids"] -= 1
            arrays["kept_domains"] -= 1
            self.layers[name] = LayerStatistics(**arrays)
        return self.layers[name]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each field of a layer."""
        e = self.n_experts
        d = self.n_domains
        n_kept = self.n_kept if d else 0
        shapes: dict[str, tuple[int, ...]] = {field.name: () for field in fields(LayerStatistics)}
        for name in ("slots", "weight_load", "probability_sum", "sequence_slots"):
            shapes[name] = (e,)
        return shapes | {
            "sizes": (self.n_chosen + 1,),
            "pairs": (e, e),
            "sets": (0 if self.set_numbering is None else self.set_numbering.n_sets,),
            "domains": (d, e),
            "positions": (self.n_positions, max(d, 1), e),
            "token_slots": (self.n_tokens, e),
            "kept_ids": (n_kept,),
            "kept_domains": (n_kept,),
            "kept_slots": (n_kept, e),
        }

    # --- adding and saving ---

    def merge(self, other: RouterStatistics) -> RouterStatistics:
        """A new one that has counted what both did; layers that only one of them knows are taken
        over. Raises ValueError where the two were made with different numbers.

        >>> one = RouterStatistics(n_experts=2, n_chosen=1)
        >>> one.update(0, [[0], [1]])
        >>> one.merge(one).layers[0].slots.tolist()
        [2, 2]
        """
        if not isinstance(other, RouterStatistics) or other.configuration != self.configuration:
            found = getattr(other, "configuration", type(other).__name__)
            raise ValueError(
                f"cannot merge {found} into {self.configuration}; both must be made with the same "
                "numbers"
            )
        merged = RouterStatistics(**self.configuration)
        for part in (self, other):
            for name, layer in part.layers.items():
                merged._layer(name).include(layer, self.seed)
            merged.heard |= part.heard
        return merged

    __add__ = merge

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one npz, all of it or nothing; `load_statistics` reads it back. No pickles."""
        names = list(self.layers)
        header = {"format": FILE_FORMAT, "sizes": self.configuration, "layers": names}
        header["heard"] = [self.heard.get(name) for name in names]
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
        for i, layer in enumerate(self.layers.values()):
            for name, array in vars(layer).items():
                arrays[f"{i}.{name}"] = array

        def write(file) -> None:
            np.savez_compressed(file, **arrays)

        write_atomically(path, write)


def merge_statistics(parts: Iterable[RouterStatistics]) -> RouterStatistics:
    """The sum of one or more statistics, in any order; ValueError where there is none or their
    sizes differ.

    >>> parts = [RouterStatistics(n_experts=2, n_chosen=1) for _ in range(3)]
    >>> for part in parts:
    ...     part.update(0, [[1]])
    >>> merge_statistics(parts).layers[0].slots.tolist()
    [0, 3]
    """
    parts = list(parts)
    if not parts:
        raise ValueError("no statistics to merge; at least one is needed")
    return reduce(operator.add, parts)


def load_statistics(path: str | os.PathLike[str]) -> RouterStatistics:
    """Read what `RouterStatistics.save` wrote; ValueError for any other file, or a damaged one,
    FileNotFoundError for none.

    Files of the first format hold random relabellings in place of sequences. They are read, and the
    report says what can be said of so few; added to other statistics or saved again they lose them.

    >>> from tempfile import TemporaryDirectory
    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
    >>> statistics.update("first", [[1], [1]])
    >>> with TemporaryDirectory() as folder:
    ...     statistics.save(f"{folder}/routes.npz")
    ...     read = load_statistics(f"{folder}/routes.npz")
    >>> read.layers["first"].slots.tolist()
    [0, 2]
    """
    check_input(path, "what RouterStatistics.save writes")
    with reading(path, " as router statistics, which RouterStatistics.save writes"):
        return _from_arrays(read_arrays(path))


def _from_arrays(arrays: dict[str, np.ndarray]) -> RouterStatistics:
    """Statistics from the arrays of an npz, each of the type and shape that the header promises:
    no memory is taken on its word alone."""
    header = json.loads(str(arrays["header"]))
    sizes = header["sizes"]
    is_old = header["format"] == OLD_FORMAT
    if is_old:
        sizes = {name: size for name, size in sizes.items() if name != "relabellings"}
        sizes["n_kept"] = 0
    elif header["format"] != FILE_FORMAT:
        raise ValueError(f"its format is {header['format']!r}")
    statistics = RouterStatistics(**sizes)
    for i, name in enumerate(map(_as_layer, header["layers"])):
        found = {}
        for field, shape in statistics._shapes().items():
            if is_old and field in ("mixed_sequences", "known_slots", *KEPT):
                found[field] = np.zeros(shape, _type_of(field))
                continue
            array = arrays.get(f"{i}.{field}") if field == "unrouted" else arrays[f"{i}.{field}"]
            if array is None:  # not counted when the file was written
                array = np.zeros(shape, _type_of(field))
            if array.shape != shape or array.dtype != _type_of(field):
                raise ValueError(f"{field} is {array.dtype} of shape {array.shape}, not {shape}")
            found[field] = array
        layer = LayerStatistics(**found)
        if is_old:
            null = arrays[f"{i}.null"]
            if null.shape[1:] != layer.domains.shape or null.dtype != np.int64:
                raise ValueError(f"null is {null.dtype} of shape {null.shape}")
            _check_counts("null", null)
            statistics.old_nulls[name] = null
            layer.add(mixed_sequences=-1, known_slots=null[:1].sum())
        for field, array in found.items():
            _check_counts(field, array)
        statistics.layers[name] = layer
        how = header.get("heard", [])[i : i + 1]
        if how and how[0] is not None:
            statistics.heard[name] = str(how[0])
    return statistics


def _check_counts(field: str, array: np.ndarray) -> None:
    """Raise ValueError for what no counting gives: below 0, too many, NaN, or kept sequences that
    are not in order."""
    if field == "kept_ids":
        ids = array[array >= 0]
        if (np.diff(ids) <= 0).any() or (array[len(ids) :] != -1).any():
            raise ValueError("kept_ids are not ascending with -1 behind them")
        return
    # what may lie below 0: by rounding, or as a mark
    least = {"sequence_entropy": -MOST, "mixed_sequences": -MOST, "kept_domains": SEVERAL}
    if not (array >= least.get(field, 0)).all() or not abs(array.sum(dtype=float)) < MOST:
        raise ValueError(f"{field} holds what cannot be counted: below 0, NaN or above {MOST:.0e}")


def _as_layer(name: Any) -> Layer:
    """The name of a layer; ValueError for anything else."""
    if isinstance(name, np.integer):
        name = int(name)
    if not isinstance(name, (int, str)) or isinstance(name, bool):
        raise ValueError(f"layer is {name!r}; allowed is a number or a name")
    return name


def _type_of(field: str) -> type:
    """Of the numbers in a field of a layer: counts, or sums of what is no count."""
    if field == "kept_slots":
        return np.int32
    is_sum = field.startswith(("weight_", "probability_")) or field == "sequence_entropy"
    return np.float64 if is_sum else np.int64


# --- amounts of a batch ---


def _sequence_amounts(counts: np.ndarray) -> dict[str, Any]:
    """Amounts of sequences with slots (S, E)."""
    slots = counts.sum(axis=1)
    entropy = -scipy.special.entr(slots).sum() + scipy.special.entr(counts).sum()
    return {
        "sequences": int((slots > 0).sum()),
        "sequence_slots": counts.sum(axis=0),
        "sequence_cells": int((counts > 0).sum()),
        "sequence_entropy": float(entropy),
    }


def _weight_amounts(weights: np.ndarray, rows: np.ndarray, n_experts: int) -> dict[str, ArrayLike]:
    """Amounts of weights (n, k) of the experts in rows (n, k)."""
    weights = np.where(rows >= 0, weights, 0)
    sums = weights.sum(axis=1)
    served = (rows >= 0).any(axis=1)
    if (sums[served] <= 0).any():
        raise ValueError(
            "weights of a token that took experts sum to 0; mask such tokens or leave weights out"
        )
    share = weights[served] / sums[served, None]
    taken = rows[served] >= 0
    return {
        "weighted": int(served.sum()),
        "weight_sum": float(sums[served].sum()),
        "weight_load": np.bincount(rows[served][taken], share[taken], n_experts),
        "weight_entropy": float(scipy.special.entr(share).sum()),
    }


def _probability_amounts(probabilities: np.ndarray, tolerance: float) -> dict[str, ArrayLike]:
    """Amounts of probabilities (n, E), scaled to sum to 1 exactly where they nearly do."""
    sums = probabilities.sum(axis=1)
    worst = float(np.abs(sums - 1).max(initial=0))
    if worst > tolerance:
        raise ValueError(
            f"probabilities have a row that sums to 1 +- {worst:.3g}; allowed are rows that sum to "
            "1: take the softmax of logits, divide a sigmoid router's scores by their sum"
        )
    share = probabilities / sums[:, None]
    return {
        "probable": len(share),
        "probability_sum": share.sum(axis=0),
        "probability_entropy": float(scipy.special.entr(share).sum()),
    }
