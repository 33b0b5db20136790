"""What counts of a router's choices say: load, balance, and what the chosen expert tells about a
label. In nats.

A table of counts (A, B) holds how often each label (a domain, a sequence, a token) met each expert;
a token that takes k experts counts k times, once for each, so T is a uniform pick among its
experts.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_count, as_number, check_size
from expertbank.information import (
    as_counts,
    conditional_information,
    independence_divergence,
    joint_information,
    log_choices,
)

N_NULL = 20  # permutations behind each `_null` of `specialisation`
NOTHING = 1e-15  # nats that are rounding
TIE = 1e-9  # values that differ by a smaller part are equal but for rounding
MOST_CELLS = 2**22  # of tables that are held together


# --- counting ---


def routing_counts(
    chosen: ArrayLike, labels: ArrayLike, n_labels: int, n_experts: int
) -> np.ndarray:
    """How often each label met each expert, (n_labels, E), from chosen (..., k) experts.

    `labels` has the shape of `chosen` without its last axis, or one that broadcasts to it. -1 for a
    dropped choice or an unknown label counts nowhere.

    >>> routing_counts([[0, 1], [0, 2], [2, -1]], [0, 0, 1], n_labels=2, n_experts=3).tolist()
    [[2, 1, 1], [0, 0, 1]]
    """
    chosen = np.asarray(chosen)
    labels = np.broadcast_to(np.asarray(labels)[..., None], chosen.shape)
    kept = (chosen >= 0) & (labels >= 0)
    cells = labels[kept] * n_experts + chosen[kept]
    counts = np.bincount(cells, minlength=n_labels * n_experts)
    return counts.reshape(n_labels, n_experts)


# --- load ---


def renyi_entropy(load: ArrayLike, order: float) -> float:
    """Rényi entropy in nats of the load (E,), counts or shares, of order 0 to infinity; order 1 is
    Shannon's.

    One family holds the usual summaries: e^H_0 experts are used, CV^2 = E e^-H_2 - 1, MaxVio =
    E e^-H_inf - 1. Raises ValueError for a negative order, and where `load` is not (E,) numbers
    >= 0 of which one is positive, as every function of a load here.

    >>> [round(renyi_entropy([2, 1, 1, 0], order), 4) for order in (0, 1, np.inf)]
    [1.0986, 1.0397, 0.6931]
    """
    share = _shares(load)
    order = as_number(order, "order", 0, np.inf)
    used = share[share > 0]
    if order == 1:
        return float(scipy.special.entr(used).sum())
    if np.isinf(order):
        return float(-np.log(used.max()))
    return float(scipy.special.logsumexp(order * np.log(used)) / (1 - order))


def variation(load: ArrayLike) -> float:
    """Coefficient of variation of the load (E,): its standard deviation over its mean.

    >>> variation([5, 5, 5]), variation([2, 0])
    (0.0, 1.0)
    """
    share = _shares(load)
    return float(share.std() * len(share))


def max_violation(load: ArrayLike) -> float:
    """MaxVio of the load (E,): how far the busiest expert lies above the mean load, as a share of
    it.

    >>> max_violation([2, 1, 1, 0])  # the busiest has twice its share
    1.0
    """
    share = _shares(load)
    return float(share.max() * len(share) - 1)


def utilisation(load: ArrayLike) -> float:
    """P3's utilisation, sum_i min(f_i, 1/E), of the load (E,): one less its distance in variation
    to balance.

    >>> utilisation([1, 1, 1, 1]), utilisation([2, 1, 1, 0])
    (1.0, 0.75)
    """
    share = _shares(load)
    return float(np.minimum(share, 1 / len(share)).sum())


def balance_loss(load: ArrayLike, probabilities: ArrayLike) -> float:
    """The auxiliary loss E sum_i f_i P_i of a load (E,) and mean gate probabilities (E,); 1 where
    both are even.

    Raises ValueError where the two are not of the same number of experts.

    >>> balance_loss([1, 1], [0.5, 0.5]), balance_loss([1, 0], [0.75, 0.25])
    (1.0, 1.5)
    """
    share = _shares(load)
    mean = _shares(probabilities, "probabilities")
    if share.shape != mean.shape:
        raise ValueError(
            f"load has {len(share)} experts, probabilities {len(mean)}; they must be the same"
        )
    return float(len(share) * share @ mean)


def _shares(load: ArrayLike, name: str = "load") -> np.ndarray:
    """A load (E,) scaled to sum to 1."""
    load = np.asarray(load, dtype=float)
    is_load = load.ndim == 1 and np.isfinite(load).all() and load.min(initial=0) >= 0
    if not is_load or not load.sum() > 0:
        raise ValueError(
            f"{name} has shape {load.shape}; allowed are (E,) numbers >= 0 that do not all vanish"
        )
    return load / load.sum()


# --- what the expert tells about a label ---


def purity(counts: ArrayLike) -> float:
    """P3's purity, (1/E) sum_i max_d f_i^d / f_i, of counts (D, E) over tokens whose domain is
    plain.

    P3 leaves an expert that serves none of them undefined (0/0): such experts are left out of the
    mean.

    >>> purity([[4, 0, 0], [0, 1, 0]]), purity([[1, 1], [1, 1]])
    (1.0, 0.5)
    """
    counts = as_counts(counts)
    used = counts.sum(axis=0) > 0
    return float((counts.max(axis=0)[used] / counts.sum(axis=0)[used]).mean())


def load_purity(counts: ArrayLike) -> float:
    """Purity of counts (D, E) weighted by load, sum_i max_d f_i^d: how often the likeliest domain
    of an expert is right.

    >>> load_purity([[6, 1], [2, 1]])
    0.7
    """
    counts = as_counts(counts)
    return float(counts.max(axis=0).sum() / counts.sum())


def fano_floor(accuracy: float, label_entropy: float, n_labels: int) -> float:
    """Least I(D;T) in nats at which D is guessed from T with this accuracy: Fano's inequality,
    H(D) - h(e) - e log(D - 1) with the error e = 1 - accuracy.

    Raises ValueError for an accuracy outside [0, 1], fewer than two labels, or an entropy that so
    many labels cannot have.

    >>> round(fano_floor(1.0, np.log(4), n_labels=4), 4)  # who is always right knows the label
    1.3863
    >>> round(fano_floor(0.9, np.log(2), n_labels=2), 4)
    0.3681
    """
    error = 1 - as_number(accuracy, "accuracy", 0, 1)
    n_labels = as_count(n_labels, "n_labels", 2)
    most = float(np.log(n_labels)) + 1e-9
    entropy = as_number(label_entropy, "label_entropy", 0, most, "[0, log n_labels]")
    doubt = scipy.special.entr(error) + scipy.special.entr(1 - error) + error * np.log(n_labels - 1)
    return float(max(0.0, entropy - doubt))


def relabelled_information(
    unit_counts: ArrayLike, labels: ArrayLike, n: int = 100, rng: np.random.Generator | int = 0
) -> np.ndarray:
    """I(D;T) (n,) in nats when the labels (S,) of whole units with counts (S, E) are permuted: the
    null.

    Units are sequences, since tokens of one sequence share the label and are not exchangeable by
    themselves. The same labels and the same seed give the same permutations, whatever the counts.
    Raises ValueError where there is not one label for each unit.

    >>> counts = [[9, 1], [9, 1], [1, 9], [1, 9]]
    >>> null = relabelled_information(counts, labels=[0, 0, 1, 1], n=50)
    >>> sorted(set(null.round(4).tolist()))  # mixed labels tell nothing
    [0.0, 0.3681]
    """
    unit_counts = as_counts(unit_counts)
    labels = np.asarray(labels)
    rng = np.random.default_rng(rng)
    if labels.shape != unit_counts.shape[:1]:
        raise ValueError(
            f"labels has shape {labels.shape}; allowed is ({len(unit_counts)},), one for each unit"
        )
    n = as_count(n, "n")
    check_size(n * len(labels), f"{n} relabellings of {len(labels)} units")
    names, labels = np.unique(labels, return_inverse=True)
    permuted = np.array([rng.permutation(labels) for _ in range(n)])
    shares = unit_counts / unit_counts.sum()
    n_together = max(1, MOST_CELLS // (len(names) * shares.shape[1]))
    blocks = [permuted[i : i + n_together] for i in range(0, n, n_together)]
    return np.concatenate([_informations(shares, block, len(names)) for block in blocks])


def _informations(shares: np.ndarray, labels: np.ndarray, n_labels: int) -> np.ndarray:
    """I(D;T) (n,) of units with shares (S, E) under each of n labellings (n, S)."""
    n, n_units = labels.shape
    # a row for each label of each labelling, a column for each unit
    rows = (labels + n_labels * np.arange(n)[:, None]).ravel()
    columns = np.tile(np.arange(n_units), n)
    ones = np.ones(len(rows))
    of_label = scipy.sparse.csr_array((ones, (rows, columns)), shape=(n * n_labels, n_units))
    joint = (of_label @ shares).reshape(n, n_labels, -1)
    return independence_divergence(joint)


def permutation_p(found: float, null: ArrayLike) -> float:
    """P value (1 + #) / (n + 1) of `found` among n values (n,) of relabelled data, where # of them
    are as large.

    Where relabelling leaves the law of the data as it is, it lies below a level with a chance of at
    most that level (Phipson & Smyth 2010). The quantile of n values alone rejects too often.

    >>> permutation_p(0.5, [0.1, 0.2, 0.3, 0.5]), permutation_p(0.6, [0.1, 0.2, 0.3, 0.5])
    (0.4, 0.2)
    """
    null = np.asarray(null, dtype=float)
    slack = TIE * np.abs(null).max(initial=0) + NOTHING
    return float((1 + (null >= found - slack).sum()) / (1 + null.size))


def adjusted_p(found: ArrayLike, nulls: ArrayLike) -> np.ndarray:
    """P values (L,) of L statistics, corrected for looking at all of them: max-T of Westfall &
    Young (1993).

    `found` (L,) beside `nulls` (L, n) of n relabellings, each the same in all L. Every statistic is
    studentised over its own n + 1 values and compared with the largest of each relabelling, so the
    chance that any one whose null holds is rejected is at most the level, however they depend on
    one another. One that no relabelling changes has p = 1. Raises ValueError where shapes differ.

    >>> adjusted_p([9.0, 2.0], [[1, 2, 3, 4], [1, 2, 3, 4]]).tolist()
    [0.2, 0.8]
    """
    values = np.column_stack([np.asarray(found, dtype=float), np.asarray(nulls, dtype=float)])
    deviation = values.std(axis=1, keepdims=True)
    moves = deviation > TIE * np.abs(values).max(axis=1, keepdims=True)
    centred = values - values.mean(axis=1, keepdims=True)
    scaled = np.where(moves, centred / np.where(moves, deviation, 1), -np.inf)
    largest = scaled[:, 1:].max(axis=0)
    return np.array([permutation_p(value, largest) for value in scaled[:, 0]])


def group_entropy(scope: int, n_sequences: int = 64, n_domains: int = 8) -> float:
    """Mean entropy in nats of the domain of a token in a random group of `scope` of the step's
    sequences.

    Every domain has the same number of sequences in the step. A router that loads all experts alike
    within every such group has I(D;T) at most this: the corollary of the scope theorem. Raises
    ValueError where the domains do not divide the sequences, or the scope exceeds them.

    >>> [abs(round(group_entropy(scope), 4)) for scope in (1, 8, 64)]  # log 8 = 2.0794
    [0.0, 1.6003, 2.0794]
    """
    scope = as_count(scope, "scope")
    n_sequences = as_count(n_sequences, "n_sequences")
    check_size(n_sequences, f"{n_sequences} sequences")
    if n_sequences % as_count(n_domains, "n_domains") or scope > n_sequences:
        raise ValueError(
            f"scope is {scope} of {n_sequences} sequences in {n_domains} domains; they must fit"
        )
    counts = np.arange(scope + 1)
    own = n_sequences // n_domains
    logs = log_choices(own, counts) + log_choices(n_sequences - own, scope - counts)
    drawn = np.exp(logs - log_choices(n_sequences, scope))
    return float(n_domains * drawn @ scipy.special.entr(counts / scope))


# --- everything about one run of the testbed ---


def specialisation(
    chosen: ArrayLike,
    weights: ArrayLike,
    domains: ArrayLike,
    placed: ArrayLike,
    n_experts: int,
    rng: np.random.Generator | int = 0,
) -> dict[str, float]:
    """P3's measures and ours for whole sequences: chosen (S, L, k), -1 where dropped, weights (S,
    L, k), domains (S,), placed (S, L), true for tokens of T_D. T is a uniform pick among a token's
    experts.

    `I(X;T)` alone (`rate`) weighs them by the router's weights. Names that end in `_null` are means
    over `N_NULL` permutations: of the domains of whole sequences, and for `sequence_information` of
    the tokens of each position among sequences. H(T), I(X;T), utilisation and MaxVio use no label,
    so relabelling leaves them as they are.

    >>> chosen = np.repeat([0, 0, 1, 1], 3).reshape(4, 3, 1)  # an expert for each domain
    >>> weights = np.ones(chosen.shape)
    >>> found = specialisation(chosen, weights, [0, 0, 1, 1], np.ones((4, 3), bool), n_experts=2)
    >>> found["purity"], round(found["domain_information"], 4), round(found["cap"], 4)
    (1.0, 0.6931, 0.6931)
    """
    chosen = np.asarray(chosen)
    weights = np.asarray(weights)
    domains = np.asarray(domains)
    rng = np.random.default_rng(rng)
    n_domains = int(domains.max()) + 1
    plain = np.where(np.asarray(placed)[..., None], chosen, -1)
    by_sequence = _counts_by_sequence(chosen, np.arange(len(chosen))[:, None], n_experts)
    by_domain = routing_counts(chosen, domains[:, None], n_domains, n_experts)
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
    found["cap"] = float(np.log(n_experts)) - found["sequence_entropy"]
    null = relabelled_information(by_sequence, domains, N_NULL, rng)
    found["domain_information_null"] = float(null.mean())
    return found | _null_means(chosen, plain, domains, n_experts, rng)


def _null_means(
    chosen: np.ndarray,
    plain: np.ndarray,
    domains: np.ndarray,
    n_experts: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Means over permutations of the measures that depend on labels, under `<measure>_null`."""
    n_sequences, length, _ = chosen.shape
    n_domains = int(domains.max()) + 1
    sequence = np.broadcast_to(np.arange(n_sequences)[:, None], (n_sequences, length))
    names = ("purity", "load_purity", "sequence_information", "position_information")
    nulls = np.empty((N_NULL, len(names)))
    for i in range(N_NULL):
        relabelled = rng.permutation(domains)
        shuffled = rng.permuted(sequence, axis=0)
        pure = routing_counts(plain, relabelled[:, None], n_domains, n_experts)
        by_domain = routing_counts(chosen, relabelled[:, None], n_domains, n_experts)
        nulls[i] = (
            purity(pure),
            load_purity(by_domain),
            joint_information(_counts_by_sequence(chosen, shuffled, n_experts)),
            _given_position(chosen, relabelled, n_domains, n_experts),
        )
    means = nulls.mean(axis=0)
    return {f"{name}_null": float(mean) for name, mean in zip(names, means, strict=True)}


def _counts_by_sequence(chosen: np.ndarray, sequence: np.ndarray, n_experts: int) -> np.ndarray:
    """Counts (S, E) of chosen (S, L, k) whose tokens belong to the sequences (S, L) or (S, 1)."""
    return routing_counts(chosen, sequence, len(chosen), n_experts)


def _given_position(
    chosen: np.ndarray, domains: np.ndarray, n_domains: int, n_experts: int
) -> float:
    """I(D;T | position) in nats of chosen (S, L, k) in sequences of domains (S,)."""
    length = chosen.shape[1]
    labels = np.arange(length) * n_domains + domains[:, None]  # (S, L)
    counts = routing_counts(chosen, labels, length * n_domains, n_experts)
    by_position = counts.reshape(length, n_domains, n_experts)
    return conditional_information(np.moveaxis(by_position, 0, -1))


def _weighted_rate(chosen: np.ndarray, weights: np.ndarray, n_experts: int) -> float:
    """I(X;T) where a token picks among its kept experts by weight; tokens whose every choice was
    dropped are out."""
    k = chosen.shape[-1]
    weights = np.where(chosen >= 0, weights, 0).astype(float).reshape(-1, k)
    sums = weights.sum(axis=1)
    served = sums > 0
    gate = weights[served] / sums[served, None]
    experts = chosen.reshape(-1, k)[served].clip(0)  # a dropped choice has weight 0
    load = np.bincount(experts.ravel(), gate.ravel(), minlength=n_experts)
    inside = scipy.special.entr(gate).sum(axis=1).mean()
    return float(renyi_entropy(load, 1) - inside)
