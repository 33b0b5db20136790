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
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import as_count, as_number, check_size
from expertbank._files import check_input, printable, read_arrays, reading, write_atomically
from expertbank.routers._batch import as_integers, as_mask
from expertbank.routers._counting import (
    STEP_BINS,
    Amounts,
    Cells,
    Columns,
    as_columns,
    cells_of,
    choice_amounts,
    counts_in,
    groups_of,
    probability_amounts,
    sequence_sums,
    step_amounts,
    weight_amounts,
)
from expertbank.routers._kept import SEVERAL, Sequences, domains_of, keep_lowest, take_away
from expertbank.routers._sets import SetNumbering, number_of_sets
from expertbank.routers._together import (
    OF_LAYERS,
    OF_TOKENS,
    Rooms,
    amounts_of_layers,
    are_alike,
)

FILE_FORMAT = "expertbank router statistics 2"
OLD_FORMAT = "expertbank router statistics 1"  # random relabellings in place of sequences
MOST_SETS = 200_000  # sets of chosen experts that are counted one by one; above, only pairs are
MOST_COUNTS = 2**30  # of one layer: 8 GB
MOST = 2**53  # of a count, above which double precision skips some
# what files of earlier versions did not count
LATER = ("unrouted", "step_counts", "step_sums", "phases")
SUM_ROUNDING = 1e-9  # of sums that are subtracted
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
    phases: np.ndarray
    """(2, E) slots of tokens of prompts, and of generated tokens; what is missing to `slots` is of
    unknown phase, as all is where a file of an earlier version did not count them"""
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
    step_counts: np.ndarray
    """(`STEP_BINS`,) steps by their MaxVio; none where a file of an earlier version did not count
    them"""
    step_sums: np.ndarray
    """(`STEP_BINS`,) sums of their MaxVio"""
    unrouted: np.ndarray
    """() rows of files that held no route, cached, not captured or padding; counted nowhere else"""
    kept_ids: np.ndarray
    """(K,) ids of the sequences that are kept for the null, ascending; -1 for a free row, after all
    others"""
    kept_domains: np.ndarray
    """(K,) their domains; -2 for one with tokens of several"""
    kept_slots: np.ndarray
    """(K, E) their slots, of tokens whose domain is known"""

    def add(self, **amounts: Any) -> None:
        """Add to the fields named, in place: arrays, numbers, or `Cells`.

        >>> statistics = RouterStatistics(n_experts=3, n_chosen=1)
        >>> statistics.update(0, [[2]])
        >>> statistics.layers[0].add(tokens=1, slots=[1, 0, 0])
        >>> statistics.layers[0].slots.tolist()
        [1, 0, 1]
        """
        for name, amount in amounts.items():
            field = getattr(self, name)
            if isinstance(amount, Cells):
                np.add.at(field.reshape(-1), amount.cells, amount.amounts)
            else:
                field += amount

    @property
    def steps(self) -> int:
        """Steps whose MaxVio was kept, those in which some expert served a slot."""
        return int(self.step_counts.sum())

    def step_violation(self, quantile: float) -> float:
        """The quantile of the MaxVio of steps, the least that so large a share of them does not
        exceed; nan where there are none. Of steps within 0.5 % of one another, their mean.

        >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
        >>> statistics.update(0, [[0], [0], [1], [1]])
        >>> statistics.update(0, [[1], [1]])
        >>> statistics.layers[0].step_violation(0.5), statistics.layers[0].step_violation(1)
        (0.0, 1.0)
        """
        share = as_number(quantile, "quantile", 0, 1)
        if not self.steps:
            return float("nan")
        place = max(1, np.ceil(share * self.steps))
        found = int(np.searchsorted(self.step_counts.cumsum(), place))
        return float(self.step_sums[found] / self.step_counts[found])

    @property
    def mean_step_violation(self) -> float:
        """Mean of the MaxVio of steps; nan where there are none."""
        return float(self.step_sums.sum() / self.steps) if self.steps else float("nan")

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

    def exclude(self, earlier: LayerStatistics, where: str) -> None:
        """Take away what was counted before, in place. Raises ValueError, which begins with
        `where`, for what cannot have grown to this.

        >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
        >>> statistics.update(0, [[1]])
        >>> before = statistics.copy()
        >>> statistics.update(0, [[0]])
        >>> statistics.layers[0].exclude(before.layers[0], "layer 0")
        >>> statistics.layers[0].slots.tolist()
        [1, 0]
        """
        for name, before in vars(earlier).items():
            if name in KEPT:
                continue
            here = getattr(self, name)
            is_count = before.dtype.kind == "i"
            least = before if is_count else before * (1 - SUM_ROUNDING)
            if name != "mixed_sequences" and (here < least).any():
                raise ValueError(
                    f"{where} has counted less {name.replace('_', ' ')} than before; only an "
                    "earlier state of the same statistics can be subtracted"
                )
            here[...] -= before
            if not is_count:  # what rounding leaves
                here[here < SUM_ROUNDING * before] = 0
        self.step_sums[self.step_counts == 0] = 0
        if not take_away(self.kept, earlier.kept):
            raise ValueError(
                f"{where} no longer has the sequences that were kept before; only an earlier state "
                "of the same statistics can be subtracted"
            )

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
        phase: ArrayLike | None = None,
        step: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> None:
        """Count n tokens of a layer. A refused batch leaves the statistics as they were.

        `chosen` (n, <= k): distinct experts of each token in any order, -1 for a slot that was
        dropped or not used. `weights`, of the same shape: what the experts' outputs were multiplied
        by, >= 0, of any sum. `probabilities` (n, E): the router's softmax before the choice.
        `domain`, `sequence`, `position` and `token` (n,): integers, -1 for unknown; they are
        counted against `chosen`. **All tokens of a sequence must come in one update**: in all but
        the null, what crosses updates would be two sequences. `phase`, () or (n,): 0 for tokens of
        a prompt, 1 for generated ones, -1 for unknown. `step` says which tokens were
        computed at once, for the MaxVio of steps: None where all were, -1 where that is not known,
        or integers (n,) that tell steps apart. `mask` (n,): True for tokens that
        count, False for padding. Raises ValueError for anything else, and says what is allowed.

        >>> statistics = RouterStatistics(n_experts=3, n_chosen=2)
        >>> statistics.update(0, [[0, 1], [2, -1]], weights=[[0.6, 0.2], [0.9, 0]])
        >>> statistics.layers[0].weight_load.round(2).tolist()  # each token's weights sum to 1
        [0.75, 0.25, 1.0]
        """
        arrays = {"chosen": chosen, "weights": weights, "probabilities": probabilities}
        labels = {"domain": domain, "sequence": sequence, "position": position, "token": token}
        labels |= {"phase": phase, "step": step, "mask": mask}
        self.update_layers([(layer, {**arrays, **labels})])

    def update_layers(self, batches: Iterable[tuple[Layer, Mapping[str, Any]]]) -> None:
        """Count several layers, or none of them: pairs of a layer and keywords of `update`. Where
        one is refused, all statistics are as they were.

        >>> statistics = RouterStatistics(n_experts=3, n_chosen=1)
        >>> statistics.update_layers([(0, {"chosen": [[0]]}), (1, {"chosen": [[2]]})])
        >>> [layer.slots.tolist() for layer in statistics.layers.values()]
        [[1, 0, 0], [0, 0, 1]]
        """
        named = [(_as_layer(layer), arrays) for layer, arrays in batches]
        allowed = (*OF_LAYERS, *OF_TOKENS)
        for _, arrays in named:
            for name in arrays:
                if name not in allowed:
                    raise ValueError(f"{name} is given; allowed are {', '.join(allowed)}")
        found = self._amounts_of_layers([arrays for _, arrays in named])
        for (layer, _), (amounts, whole) in zip(named, found):
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
        earlier = np.broadcast_to(np.asarray(before), slots.shape)
        self.add_sequences_of_layers({layer: slots}, sequence, domain, {layer: earlier})

    def add_sequences_of_layers(
        self,
        slots: Mapping[Layer, np.ndarray],
        sequence: np.ndarray,
        domain: ArrayLike | None,
        before: Mapping[Layer, np.ndarray],
    ) -> None:
        """The same, of several layers: slots (S, E) of each, and those that were counted before.

        >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
        >>> new = {layer: np.array([[0, 1]]) for layer in ("first", "second")}
        >>> old = {layer: np.array([[0, 0]]) for layer in new}
        >>> statistics.add_sequences_of_layers(new, np.array([7]), None, old)
        >>> [int(layer.sequences) for layer in statistics.layers.values()]
        [1, 1]
        """
        if not slots:
            return
        earlier = np.stack([before[layer] for layer in slots])
        added = np.stack(list(slots.values()))
        now = sequence_sums(added + earlier)
        then = sequence_sums(earlier)
        order = sequence.argsort()
        for place, layer in enumerate(slots):
            counted = self._layer(layer)
            counted.add(**{name: amount[place] - then[name][place] for name, amount in now.items()})
            if domain is not None:
                ordered = np.asarray(domain)[order]
                known = (ordered >= 0) | (ordered == SEVERAL)
                ids = sequence[order][known]
                whole = Sequences(ids, ordered[known], added[place, order][known])
                counted.add_sequences(whole, self.seed)

    def add_load(self, layer: Layer, load: ArrayLike, is_step: bool = False) -> None:
        """Add slots (E,) of a layer that were counted elsewhere, expert by expert: its load, and
        nothing else of it. `is_step` says that they were computed at once, for the MaxVio of steps;
        then they may be (S, E), those of each step. Raises ValueError for anything but counts.

        >>> statistics = RouterStatistics(n_experts=3, n_chosen=1)
        >>> statistics.add_load(0, [5, 0, 2])
        >>> statistics.layers[0].slots.tolist(), int(statistics.layers[0].tokens)
        ([5, 0, 2], 0)
        """
        shape = (self.n_experts,)
        if is_step and np.ndim(load) == 2:
            shape = (np.shape(load)[0], self.n_experts)
        steps = np.atleast_2d(as_integers(load, "load", shape, None, None))
        if steps.min(initial=0) < 0:
            raise ValueError(f"load holds {steps.min()}; allowed are counts of slots, 0 and up")
        counted = self._layer(layer)
        counted.add(slots=steps.sum(axis=0))
        if is_step:
            counted.add(**step_amounts(steps))

    def _amounts_of_layers(
        self, batches: list[Mapping[str, Any]]
    ) -> list[tuple[Amounts, Sequences | None]]:
        """What each batch adds to its layer: found together where that pays and nothing is odd,
        else one by one, which says what is wrong."""
        if are_alike(batches, self.n_experts):
            with suppress(ValueError):
                return self._amounts_together(batches[0], batches)
        return [self._amounts(**arrays) for arrays in batches]

    def _amounts_together(
        self, first: Mapping[str, Any], batches: list[Mapping[str, Any]]
    ) -> list[tuple[Amounts, Sequences | None]]:
        """The same, of batches of the same tokens as the first."""
        n = len(first["chosen"])
        keep = _kept_tokens(first.get("mask"), n)
        labels = {
            name: self._as_label(first[name], name, n, keep)
            for name in ("sequence", *ROOM_FOR)
            if first.get(name) is not None
        }
        if "position" in labels:
            labels["positions"] = self._place(labels.pop("position"), labels.get("domain"))
        if "token" in labels:
            labels["token_slots"] = labels.pop("token")
        if first.get("phase") is not None:
            phase = np.broadcast_to(first["phase"], n)
            labels["phases"] = as_integers(phase, "phase", (n,), keep, 2)
        rooms = Rooms(self.n_experts, self.n_chosen, self.set_numbering)
        return amounts_of_layers(batches, keep, labels, rooms)

    def _amounts(
        self,
        chosen: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        probabilities: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        step: ArrayLike | None = None,
        **labels: ArrayLike | None,
    ) -> tuple[Amounts, Sequences | None]:
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
        keep = _kept_tokens(mask, n)
        amounts: Amounts = {"tokens": n if keep is None else int(keep.sum())}
        whole = None
        if chosen is not None:
            columns = as_columns(chosen, n, self.n_experts, self.n_chosen, keep)
            phase = known.pop("phase", None)
            checked = {name: self._as_label(label, name, n, keep) for name, label in known.items()}
            amounts |= choice_amounts(columns, self.n_experts, self.n_chosen, self.set_numbering)
            amounts |= self._step_amounts(columns, step, n, keep, amounts["slots"])
            if phase is not None:
                amounts["phases"] = self._phases(columns, phase, n, keep, amounts["slots"])
            of_labels, whole = self._label_amounts(columns, checked)
            amounts |= of_labels
            if weights is not None:
                shape = np.shape(chosen)
                amounts |= weight_amounts(weights, columns, shape, keep, self.n_experts)
        if probabilities is not None:
            amounts |= probability_amounts(probabilities, (n, self.n_experts), keep)
        return amounts, whole

    def _as_label(self, label: ArrayLike, name: str, n: int, keep: np.ndarray | None) -> np.ndarray:
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

    def _step_amounts(
        self,
        columns: Columns,
        step: ArrayLike | None,
        n: int,
        keep: np.ndarray | None,
        slots: np.ndarray,
    ) -> Amounts:
        """Amounts of the steps of a batch with these slots (E,)."""
        if step is None:
            return step_amounts(slots[None])
        if np.ndim(step) == 0:
            if step != -1:
                raise ValueError(
                    f"step is {step}; allowed are None, -1 for none, or numbers ({n},)"
                )
            return {}
        steps, index = groups_of(as_integers(step, "step", (n,), keep, None))
        return step_amounts(self._slots_by(columns, index, len(steps)))

    def _phases(self, columns: Columns, phase: Any, n: int, keep: Any, slots: Any) -> np.ndarray:
        """Slots (2, E) by phase of a batch with these slots (E,), which are all of one phase where
        that is one number."""
        if np.ndim(phase):
            return self._slots_by(columns, as_integers(phase, "phase", (n,), keep, 2), 2)
        return (as_integers(phase, "phase", (), None, 2) == [[0], [1]]) * slots

    def _slots_by(self, columns: Columns, label: np.ndarray, n_labels: int) -> np.ndarray:
        """Slots (L, E) of each label (n,), -1 for unknown."""
        cells = cells_of(columns, label, self.n_experts)
        shape = (n_labels, self.n_experts)
        return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)

    def _label_amounts(
        self, columns: Columns, labels: dict[str, np.ndarray]
    ) -> tuple[Amounts, Sequences | None]:
        """Amounts of choices with labels (n,): slots by domain, position, token and sequence; and
        the sequences for the null."""
        e = self.n_experts
        amounts: Amounts = {}
        domain = labels.get("domain")
        if domain is not None:
            cells = cells_of(columns, domain, e)
            amounts["domains"] = counts_in(cells, (self.n_domains, e))
        if "position" in labels:
            n_labels = max(self.n_domains, 1)
            place = self._place(labels["position"], domain)
            cells = cells_of(columns, place, e)
            amounts["positions"] = counts_in(cells, (self.n_positions, n_labels, e))
        if "token" in labels:
            cells = cells_of(columns, labels["token"], e)
            amounts["token_slots"] = counts_in(cells, (self.n_tokens, e))
        if "sequence" not in labels:
            return amounts, None
        ids, index = groups_of(labels["sequence"])
        slots = self._slots_by(columns, index, len(ids))
        amounts |= sequence_sums(slots)
        if domain is None:
            return amounts, None
        return amounts, self._whole_sequences(columns, domain, ids, index, slots)

    def _place(self, position: np.ndarray, domain: np.ndarray | None) -> np.ndarray:
        """The row of the table of positions and domains (n,), -1 for a token of unknown position,
        and where there are domains, of unknown domain."""
        if self.n_domains == 0:
            return position
        if domain is None:
            return np.full_like(position, -1)
        place = position * self.n_domains + domain
        if len(place) and (position.min() < 0 or domain.min() < 0):
            place[(position < 0) | (domain < 0)] = -1
        return place

    def _whole_sequences(
        self,
        columns: Columns,
        domain: np.ndarray,
        ids: np.ndarray,
        index: np.ndarray,
        slots: np.ndarray,
    ) -> Sequences:
        """The sequences (S,) of tokens in them (n,), and their slots (S, E), of tokens whose domain
        is known."""
        known = (index >= 0) & (domain >= 0)
        if not known.all():
            slots = self._slots_by(columns, np.where(known, index, -1), len(ids))
            domain = domain[known]
            index = index[known]
        domains, seen = domains_of(index, domain, len(ids))
        return Sequences(ids[seen], domains, slots[seen])

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
            "step_counts": (STEP_BINS,),
            "step_sums": (STEP_BINS,),
            "token_slots": (self.n_tokens, e),
            "phases": (2, e),
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
        self._check_alike(other, "merge", "into")
        merged = RouterStatistics(**self.configuration)
        for part in (self, other):
            for name, layer in part.layers.items():
                merged._layer(name).include(layer, self.seed)
            merged.heard |= part.heard
        return merged

    __add__ = merge

    def since(self, earlier: RouterStatistics) -> RouterStatistics:
        """What was counted after `earlier`, a state of the same statistics: also as `self -
        earlier`. Added to `earlier` again it gives these statistics.

        Everything is a difference of sums, the MaxVio of steps too, so that a window's largest is
        that of its own steps. A sequence that goes on from before counts where it began; of the
        kept ones, those are kept that took slots in between. Raises ValueError where `earlier`
        cannot have grown to this.

        >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
        >>> statistics.update(0, [[0], [0], [1]])
        >>> before = statistics.copy()
        >>> statistics.update(0, [[1]])
        >>> window = (statistics - before).layers[0]
        >>> window.slots.tolist(), window.step_violation(1)
        ([0, 1], 1.0)
        """
        self._check_alike(earlier, "subtract", "from")
        gone = [name for name in earlier.layers if name not in self.layers]
        if gone:
            raise ValueError(f"the earlier statistics have a layer {gone[0]!r}, the later have not")
        window = RouterStatistics(**self.configuration)
        window.heard = dict(self.heard)
        for name, layer in self.layers.items():
            counted = window._layer(name)
            counted.include(layer, self.seed)
            if name in earlier.layers:
                counted.exclude(earlier.layers[name], f"layer {name!r}")
        return window

    __sub__ = since

    def copy(self) -> RouterStatistics:
        """The state that it is in now, to subtract later.

        >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
        >>> before = statistics.copy()
        >>> statistics.update(0, [[0]])
        >>> list(before.layers)
        []
        """
        return merge_statistics([RouterStatistics(**self.configuration), self])

    def _check_alike(self, other: Any, verb: str, preposition: str) -> None:
        """Raise ValueError for what was not made with the same numbers."""
        if not isinstance(other, RouterStatistics) or other.configuration != self.configuration:
            found = getattr(other, "configuration", type(other).__name__)
            raise ValueError(
                f"cannot {verb} {found} {preposition} {self.configuration}; both must be made with "
                "the same numbers"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one npz, all of it or nothing; `load_statistics` reads it back. No pickles."""
        names = list(self.layers)
        header = {"format": FILE_FORMAT, "sizes": self.configuration, "layers": names}
        header["writer"] = _writer()
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

    Files of earlier versions hold no MaxVio of steps, which is not recorded then. Those of the
    first format hold random relabellings in place of sequences. They are read, and the report says
    what can be said of so few; added to other statistics or saved again they lose them.

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
        raise ValueError(
            f"its format is {header['format']!r}, written by "
            f"{printable(header.get('writer', 'a version that does not say'))}; allowed are "
            f"{FILE_FORMAT!r} and {OLD_FORMAT!r}"
        )
    statistics = RouterStatistics(**sizes)
    for i, name in enumerate(map(_as_layer, header["layers"])):
        found = {}
        for field, shape in statistics._shapes().items():
            if is_old and field in ("mixed_sequences", "known_slots", *KEPT):
                found[field] = np.zeros(shape, _type_of(field))
                continue
            if field in LATER and f"{i}.{field}" not in arrays:
                arrays[f"{i}.{field}"] = np.zeros(shape, _type_of(field))
            array = arrays[f"{i}.{field}"]
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


def _writer() -> str:
    """What writes files: a page that loads the library has no package of it."""
    try:
        return f"expertbank {version('expertbank')}"
    except PackageNotFoundError:
        return "expertbank"


def _kept_tokens(mask: ArrayLike | None, n_tokens: int) -> np.ndarray | None:
    """Which tokens count, (n,); None where all do."""
    if mask is None:
        return None
    keep = as_mask(mask, n_tokens)
    return None if keep.all() else keep


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
    is_sum = field.startswith(("weight_", "probability_"))
    is_sum |= field in ("sequence_entropy", "step_sums")
    return np.float64 if is_sum else np.int64
