"""What counts of a router's choices say: load, balance, and what the chosen expert tells about a
label. In nats.

A table of counts (A, B) holds how often each label (a domain, a sequence, a token) met each expert;
a token that takes k experts counts k times, once for each, so T is a uniform pick among its
experts.
"""

from __future__ import annotations

import numpy as np
import scipy

from expertbank._checks import as_count, as_interval, as_number
from expertbank.information import as_counts, conditional_information, joint_information


def renyi_entropy(load, order: float) -> float:
    """Rényi entropy in nats of the load (E,), counts or shares, of order 0 to infinity; order 1 is
    Shannon's.

    One family holds the usual summaries: e^H_0 experts are used, CV^2 = E e^-H_2 - 1, MaxVio = E
    e^-H_inf - 1.
    """
    share, order = _shares(load), as_number(order, "order", 0, np.inf)
    used = share[share > 0]
    if order == 1:
        return float(scipy.special.entr(used).sum())
    if np.isinf(order):
        return float(-np.log(used.max()))
    return float(scipy.special.logsumexp(order * np.log(used)) / (1 - order))


def variation(load) -> float:
    """Coefficient of variation of the load (E,): its standard deviation over its mean."""
    share = _shares(load)
    return float(share.std() * len(share))


def max_violation(load) -> float:
    """MaxVio of the load (E,): how far the busiest expert lies above the mean load, as a share of
    it."""
    share = _shares(load)
    return float(share.max() * len(share) - 1)


def utilisation(load) -> float:
    """P3's utilisation, sum_i min(f_i, 1/E), of the load (E,): one less its distance in variation
    to balance."""
    share = _shares(load)
    return float(np.minimum(share, 1 / len(share)).sum())


def balance_loss(load, probabilities) -> float:
    """The auxiliary loss E sum_i f_i P_i of a load (E,) and mean gate probabilities (E,); 1 where
    both are even."""
    share, mean = _shares(load), _shares(probabilities, "probabilities")
    if share.shape != mean.shape:
        raise ValueError(
            f"load has {len(share)} experts, probabilities {len(mean)}; they must be the same"
        )
    return float(len(share) * share @ mean)


def purity(counts) -> float:
    """P3's purity, (1/E) sum_i max_d f_i^d / f_i, of counts (D, E) over tokens whose domain is
    plain.

    P3 leaves an expert that serves none of them undefined (0/0): such experts are left out of the
    mean.
    """
    counts = as_counts(counts)
    used = counts.sum(axis=0) > 0
    return float((counts.max(axis=0)[used] / counts.sum(axis=0)[used]).mean())


def load_purity(counts) -> float:
    """Purity weighted by load, sum_i max_d f_i^d: how often the likeliest domain of an expert is
    right."""
    counts = as_counts(counts)
    return float(counts.max(axis=0).sum() / counts.sum())


def fano_floor(accuracy: float, label_entropy: float, n_labels: int) -> float:
    """Least I(D;T) in nats at which D is guessed from T with this accuracy: Fano, H(D) - h(e) - e
    log(D - 1)."""
    error = 1 - as_number(accuracy, "accuracy", 0, 1)
    n_labels = as_count(n_labels, "n_labels", 2)
    label_entropy = as_interval(
        label_entropy, "label_entropy", 0, np.log(n_labels) + 1e-9, "[0, log n_labels]"
    )
    doubt = scipy.special.entr(error) + scipy.special.entr(1 - error) + error * np.log(n_labels - 1)
    return float(max(0.0, label_entropy - doubt))


def relabelled_information(unit_counts, labels, n: int = 100, rng=0) -> np.ndarray:
    """I(D;T) (n,) in nats when the labels (S,) of whole units with counts (S, E) are permuted: the
    null.

    Units are sequences, since tokens of one sequence share the label and are not exchangeable by
    themselves.
    """
    unit_counts, labels, rng = (
        as_counts(unit_counts),
        np.asarray(labels),
        np.random.default_rng(rng),
    )
    if labels.shape != unit_counts.shape[:1]:
        raise ValueError(
            f"labels has shape {labels.shape}; allowed is ({len(unit_counts)},), one for each unit"
        )
    names, labels = np.unique(labels, return_inverse=True)
    found = np.empty(as_count(n, "n"))
    for i in range(n):
        of_label = np.eye(len(names))[:, rng.permutation(labels)]  # (D, S)
        found[i] = joint_information(of_label @ unit_counts)
    return found


def _shares(load, name: str = "load") -> np.ndarray:
    load = np.asarray(load, dtype=float)
    if (
        load.ndim != 1
        or not np.isfinite(load).all()
        or load.min(initial=0) < 0
        or not load.sum() > 0
    ):
        raise ValueError(
            f"{name} has shape {load.shape}; allowed are (E,) numbers >= 0 that do not all vanish"
        )
    return load / load.sum()


N_NULL = 20


def routing_counts(chosen, labels, n_labels: int, n_experts: int) -> np.ndarray:
    """How often each label met each expert, (n_labels, E): chosen (..., k) with -1 for a dropped
    choice.

    `labels` has the shape of `chosen` without its last axis, or one that broadcasts to it.
    """
    chosen = np.asarray(chosen)
    labels = np.broadcast_to(np.asarray(labels)[..., None], chosen.shape)
    kept = chosen >= 0
    cells = np.bincount(labels[kept] * n_experts + chosen[kept], minlength=n_labels * n_experts)
    return cells.reshape(n_labels, n_experts)


def specialisation(chosen, weights, domains, placed, n_experts: int, rng=0) -> dict[str, float]:
    """P3's measures and ours for whole sequences: chosen (S, L, k), -1 where dropped, weights (S,
    L, k), domains (S,), placed (S, L), true for tokens of T_D. T is a uniform pick among a token's
    experts.

    `I(X;T)` alone weighs them by the router's weights. Names that end in `_null` are means over
    `N_NULL` permutations: of the domains of whole sequences, and for `sequence_information` of the
    tokens of each position among sequences. H(T), I(X;T), utilisation and MaxVio use no label, so
    relabelling leaves them as they are.
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
    found["domain_information_null"] = float(
        relabelled_information(by_sequence, domains, N_NULL, rng).mean()
    )
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
    return found | {
        f"{name}_null": float(value) for name, value in zip(names, nulls.mean(axis=0), strict=True)
    }


def _given_position(chosen, domains, n_domains: int, n_experts: int) -> float:
    length = chosen.shape[1]
    labels = np.arange(length) * n_domains + domains[:, None]
    counts = routing_counts(chosen, labels, length * n_domains, n_experts)
    return conditional_information(np.moveaxis(counts.reshape(length, n_domains, n_experts), 0, -1))


def _weighted_rate(chosen, weights, n_experts: int) -> float:
    """I(X;T) where a token picks among its kept experts by weight; tokens whose every choice was
    dropped are out."""
    weights = np.where(chosen >= 0, weights, 0).astype(float).reshape(-1, chosen.shape[-1])
    served = weights.sum(axis=1) > 0
    weights = weights[served] / weights[served].sum(axis=1, keepdims=True)
    experts = chosen.reshape(weights.shape[0] if served.all() else -1, chosen.shape[-1])
    load = np.bincount(experts[served].clip(0).ravel(), weights.ravel(), minlength=n_experts)
    return float(renyi_entropy(load, 1) - scipy.special.entr(weights).sum(axis=1).mean())


def group_entropy(scope: int, n_sequences: int = 64, n_domains: int = 8) -> float:
    """Mean entropy in nats of the domain of a token in a random group of `scope` of the step's
    sequences.

    Every domain has the same number of sequences in the step. A router that loads all experts alike
    within every such group has I(D;T) at most this: the corollary of the scope theorem.
    """
    scope, n_sequences = as_count(scope, "scope"), as_count(n_sequences, "n_sequences")
    if n_sequences % as_count(n_domains, "n_domains") or scope > n_sequences:
        raise ValueError(
            f"scope is {scope} of {n_sequences} sequences in {n_domains} domains; they must fit"
        )
    counts = np.arange(scope + 1)
    drawn = scipy.stats.hypergeom.pmf(counts, n_sequences, n_sequences // n_domains, scope)
    return float(n_domains * drawn @ scipy.special.entr(counts / scope))
