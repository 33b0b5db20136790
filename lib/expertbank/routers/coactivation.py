"""Experts that are chosen together: the total correlation of who is chosen, exact from sets or
bounded from pairs, and what experts chosen independently would have of it. Nats."""

from __future__ import annotations

import numpy as np
import scipy

from expertbank.information import binary_entropy, entropy
from expertbank.routers.conditional_bernoulli import (
    ConditionalBernoulli,
    conditional_bernoulli,
)
from expertbank.routers.statistics import LayerStatistics

N_TREES = 5  # drawn for the bias of the best one


def total_correlation(layer: LayerStatistics) -> tuple[float, float]:
    """sum_i h(P(i chosen)) - H(set) in nats, exact where sets were counted, and its Miller-Madow
    bias.

    >>> from expertbank.routers import RouterStatistics
    >>> statistics = RouterStatistics(n_experts=4, n_chosen=2)
    >>> statistics.update(0, 8 * [[0, 1], [2, 3]])  # two teams
    >>> value, bias = total_correlation(statistics.layers[0])
    >>> round(value, 4)  # 4 h(1/2) - log 2
    2.0794
    """
    n = int(layer.sizes.sum())
    single = np.asarray(binary_entropy(layer.slots / n))
    n_seen = int((layer.sets > 0).sum())
    n_undecided = int(((layer.slots > 0) & (layer.slots < n)).sum())
    bias = (n_seen - 1 - n_undecided) / (2 * n)
    return max(0.0, float(single.sum() - entropy(layer.sets / n))), bias


def baseline_total_correlation(layer: LayerStatistics) -> float:
    """The total correlation in nats of experts that are chosen independently but for the number of
    them, each as often as in this layer: sum_i h(P(i chosen)) - H(set) at the most entropy.

    Choosing exactly k makes memberships dependent, so it is above 0; it knows the layer's load, so
    that an uneven load alone is no excess.

    >>> from expertbank.routers import RouterStatistics
    >>> statistics = RouterStatistics(n_experts=4, n_chosen=2)
    >>> statistics.update(0, 8 * [[0, 1], [2, 3]])  # an even load: all pairs are as likely
    >>> round(baseline_total_correlation(statistics.layers[0]), 4)  # 4 h(1/2) - log C(4, 2)
    0.9808
    """
    law = _independent_choice(layer)
    n = int(layer.sizes.sum())
    return max(0.0, float(np.sum(binary_entropy(layer.slots / n))) - law.entropy)


def chow_liu_information(layer: LayerStatistics) -> float:
    """Lower bound of the total correlation in nats from pairs: the best tree of pairwise
    informations.

    Chow & Liu (1968): the law of memberships that factorises along a tree and is closest to the
    truth has the maximum spanning tree of I(i chosen; j chosen), whose sum is what of the total
    correlation the tree explains.

    >>> from expertbank.routers import RouterStatistics
    >>> statistics = RouterStatistics(n_experts=4, n_chosen=2)
    >>> statistics.update(0, 8 * [[0, 1], [2, 3]])
    >>> round(chow_liu_information(statistics.layers[0]), 4)  # three edges of log 2: here exact
    2.0794
    """
    n = int(layer.sizes.sum())
    single = layer.slots / n
    edges = _membership_information(layer.pairs / n, single[:, None], single[None, :])
    return _best_tree(edges)


def baseline_tree(layer: LayerStatistics) -> tuple[float, float]:
    """What `chow_liu_information` would be for experts chosen independently but for the number of
    them, each as often as in this layer, in nats; and how far as many tokens would raise it.

    >>> from expertbank.routers import RouterStatistics
    >>> statistics = RouterStatistics(n_experts=4, n_chosen=2)
    >>> statistics.update(0, 500 * [[0, 1], [2, 3]])
    >>> value, bias = baseline_tree(statistics.layers[0])
    >>> round(value, 4), 0 < bias < value  # three equal edges
    (0.1699, True)
    """
    law = _independent_choice(layer)
    single = law.marginals
    edges = _membership_information(law.pairs, single[:, None], single[None, :])
    return _best_tree(edges), _tree_bias(edges, int(layer.sizes.sum()))


def _independent_choice(layer: LayerStatistics) -> ConditionalBernoulli:
    """The law of sets that has the layer's loads and sizes, and the most entropy."""
    n = layer.sizes.sum()
    return conditional_bernoulli(layer.slots / n, layer.sizes / n)


def _best_tree(edges: np.ndarray) -> float:
    """The most that a spanning tree of edges (E, E) sums to; what is above the diagonal counts."""
    cost = np.triu(1 + edges.max() - edges, 1)  # positive: a cost of 0 would be no edge
    tree = scipy.sparse.csgraph.minimum_spanning_tree(cost).nonzero()
    return float(edges[tree].sum())


def _tree_bias(edges: np.ndarray, n_tokens: int) -> float:
    """How far the best tree on n tokens lies above that of the true informations `edges` (E, E),
    in nats.

    Each plug-in information is nearly a noncentral chi-squared variable over 2n, and the tree picks
    the largest, so that (E - 1)/2n would be far too little; the mean of `N_TREES` draws.
    """
    centre = np.sqrt(2 * n_tokens * edges)
    draws = np.random.default_rng(0).normal(centre, size=(N_TREES, *edges.shape))
    trees = [_best_tree(noisy**2 / (2 * n_tokens)) for noisy in draws]
    return float(np.mean(trees)) - _best_tree(edges)


def _membership_information(both, one, other) -> np.ndarray:
    """I(1{i chosen}; 1{j chosen}) in nats, elementwise, from P(both), P(i), P(j)."""
    neither = 1 - one - other + both
    # (probability of a cell, and the two of its margins)
    cells = (
        (both, one, other),
        (one - both, one, 1 - other),
        (other - both, 1 - one, other),
        (neither, 1 - one, 1 - other),
    )
    information = np.zeros(())
    for joint, first, second in cells:
        independent = np.maximum(first * second, 1e-300)
        information = information + scipy.special.rel_entr(np.maximum(joint, 0), independent)
    return np.asarray(information).clip(min=0)
