"""Whether I(D;T) of a layer is more than chance: permutations of the domains of whole sequences.

What is exchanged are sequences, with all their tokens. The p value is exact, for any number of
sequences and any shares of the domains, where a router that ignores the domain would have made any
assignment of these domains to these sequences as likely as the one found. That is not so where
domains differ in the length of their texts: a few long texts make a domain that stands out by
chance more often than permutations show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from expertbank._checks import check_size
from expertbank.information import joint_information
from expertbank.routers._kept import SEVERAL
from expertbank.routers.measures import (
    adjusted_p,
    permutation_p,
    relabelled_information,
)
from expertbank.routers.statistics import Layer, LayerStatistics, RouterStatistics

LEVEL = 0.05  # at which `DomainNull.high` is a threshold


@dataclass(frozen=True)
class DomainNull:
    """I(D;T) of a layer beside what relabelling makes of it. `domain_null` makes one.

    >>> statistics = RouterStatistics(n_experts=4, n_chosen=1, n_domains=2)
    >>> statistics.update(0, 8 * [[0], [1]], domain=8 * [0, 1], sequence=range(16))
    >>> null = domain_null(statistics, 0, relabellings=199)
    >>> null.p, null.mean < 0.1, null.n_units
    (0.005, True, 16)
    """

    unit: str
    """what is relabelled: sequences, or slots where whole sequences of one domain are not known"""
    found: float
    """I(D;T) of the units, nats"""
    values: np.ndarray
    """(n,) the same after relabelling"""
    share: float = 1.0
    """what part of the layer's slots these units have; their null is larger by 1 over it"""
    n_units: int | None = None
    """sequences that were permuted"""
    units: bytes = b""
    """their ids and domains, to tell whether another layer's permutations were the same"""
    lengths: float | None = None
    """mean slots of a sequence, of the domain with the longest over that with the shortest"""

    @property
    def mean(self) -> float:
        """Mean of the null for all slots of the layer, nats; to first order in 1 over sequences
        where only a sample of them was permuted."""
        return self.share * float(self.values.mean())

    @property
    def high(self) -> float | None:
        """What I(D;T) must exceed for p <= `LEVEL`, scaled as `mean`; None where relabellings are
        too few, or not of sequences."""
        rank = int(LEVEL * (len(self.values) + 1) + 1e-9)
        if self.unit != "sequences" or not rank:
            return None
        return self.share * float(np.sort(self.values)[-rank])

    @property
    def p(self) -> float | None:
        """P value of this layer alone. None for slots, which tokens of a text are not
        exchangeable as."""
        return permutation_p(self.found, self.values) if self.unit == "sequences" else None


def domain_null(statistics: RouterStatistics, name: Layer, relabellings: int) -> DomainNull | None:
    """The null of a layer; None where nothing is known of its domains.

    Sequences are permuted where each has one domain and no slot of a known domain is without one.
    Otherwise slots are dealt out by the domains' shares, as if they were independent: what comes
    out is too low, and no p value is made of it. Draws depend on the statistics' seed alone, so the
    same sequences are permuted in the same way in every layer.

    >>> domain_null(RouterStatistics(n_experts=2, n_chosen=1), 0, 199) is None
    True
    """
    if name not in statistics.layers or not statistics.layers[name].domains.any():
        return None
    layer = statistics.layers[name]
    counts = layer.domains[layer.domains.any(axis=1)]
    n_slots = int(counts.sum())
    old = statistics.old_nulls.get(name)
    if old is not None and len(old) and (old.sum(axis=(1, 2)) == n_slots).all():
        return _old_null(counts, old)
    ids, domains, slots = layer.kept.there()
    if layer.known_slots == n_slots and not holds_mixed(layer) and slots.any():
        by_domain = np.zeros_like(layer.domains)
        np.add.at(by_domain, domains, slots)
        values = relabelled_information(slots, domains, relabellings, statistics.seed)
        share = float(slots.sum() / n_slots)
        means = [slots[domains == domain].sum(axis=1).mean() for domain in np.unique(domains)]
        # a domain without a slot counts as one with the least that one could have
        lengths = float(max(means) / max(min(means), 1 / len(slots)))
        found = joint_information(by_domain)
        units = ids.tobytes() + domains.tobytes()
        return DomainNull("sequences", found, values, share, len(ids), units, lengths)
    shares = counts.sum(axis=1) / n_slots
    size = (relabellings, counts.shape[1])
    check_size(relabellings * counts.size, f"{relabellings} relabellings of {counts.size} counts")
    dealt = np.random.default_rng(statistics.seed).multinomial(counts.sum(axis=0), shares, size)
    values = np.array([joint_information(table.T) for table in dealt])
    return DomainNull("slots", joint_information(counts), values)


def holds_mixed(layer: LayerStatistics) -> bool:
    """Whether a sequence has tokens of more than one domain, as far as that is seen: within an
    update always, across updates in the kept sequences.

    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1, n_domains=2)
    >>> statistics.update(0, [[0], [1]], domain=[0, 1], sequence=[5, 5])
    >>> holds_mixed(statistics.layers[0])
    True
    """
    return bool(layer.mixed_sequences > 0 or (layer.kept_domains == SEVERAL).any())


def family_p(nulls: Mapping[Layer, DomainNull]) -> dict[Layer, float]:
    """P values of the layers that have one, corrected for looking at all of them.

    Where all layers permute the same sequences of the same domains, by the largest of each
    permutation; where they do not, permutations of one say nothing about another, and p is
    multiplied by their number (Bonferroni).

    >>> slots = DomainNull("slots", 0.5, np.array([0.1, 0.2]))
    >>> family_p({"a": DomainNull("sequences", 0.5, np.array([0.1, 0.2])), "b": slots})
    {'a': 0.3333333333333333}
    """
    single = {name: null.p for name, null in nulls.items()}
    single = {name: p for name, p in single.items() if p is not None}
    known = [nulls[name] for name in single]
    if len({(len(null.values), null.units) for null in known}) == 1:
        adjusted = adjusted_p([null.found for null in known], [null.values for null in known])
        return {name: float(p) for name, p in zip(single, adjusted)}
    return {name: min(1.0, len(single) * p) for name, p in single.items()}


def _old_null(counts: np.ndarray, tables: np.ndarray) -> DomainNull:
    """From tables (n, D, E) of random domains that a file of an earlier version holds."""
    n = len(counts)
    # random domains beyond those that were seen are folded onto them
    folded = [[table[d::n].sum(axis=0) for d in range(n)] for table in tables]
    values = np.array([joint_information(table) for table in folded])
    return DomainNull("sequences", joint_information(counts), values)
