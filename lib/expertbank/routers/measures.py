"""What counts of a router's choices say: load, balance, and what the chosen expert tells about a label. In nats.

A table of counts (A, B) holds how often each label (a domain, a sequence, a token) met each expert; a token that
takes k experts counts k times, once for each, so T is a uniform pick among its experts.
"""

from __future__ import annotations

import numpy as np
import scipy

from expertbank._checks import as_count, as_interval, as_number


def renyi_entropy(load, order: float) -> float:
    """Rényi entropy in nats of the load (E,), counts or shares, of order 0 to infinity; order 1 is Shannon's.

    One family holds the usual summaries: e^H_0 experts are used, CV^2 = E e^-H_2 - 1, MaxVio = E e^-H_inf - 1.
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
    """MaxVio of the load (E,): how far the busiest expert lies above the mean load, as a share of it."""
    share = _shares(load)
    return float(share.max() * len(share) - 1)


def utilisation(load) -> float:
    """P3's utilisation, sum_i min(f_i, 1/E), of the load (E,): one less its distance in variation to balance."""
    share = _shares(load)
    return float(np.minimum(share, 1 / len(share)).sum())


def balance_loss(load, probabilities) -> float:
    """The auxiliary loss E sum_i f_i P_i of a load (E,) and mean gate probabilities (E,); 1 where both are even."""
    share, mean = _shares(load), _shares(probabilities, "probabilities")
    if share.shape != mean.shape:
        raise ValueError(f"load has {len(share)} experts, probabilities {len(mean)}; they must be the same")
    return float(len(share) * share @ mean)


def purity(counts) -> float:
    """P3's purity, (1/E) sum_i max_d f_i^d / f_i, of counts (D, E) over tokens whose domain is plain.

    P3 leaves an expert that serves none of them undefined (0/0): such experts are left out of the mean.
    """
    counts = _table(counts)
    used = counts.sum(axis=0) > 0
    return float((counts.max(axis=0)[used] / counts.sum(axis=0)[used]).mean())


def load_purity(counts) -> float:
    """Purity weighted by load, sum_i max_d f_i^d: how often the likeliest domain of an expert is right."""
    counts = _table(counts)
    return float(counts.max(axis=0).sum() / counts.sum())


def joint_information(counts) -> float:
    """Plug-in I(A;B) in nats from counts (A, B); see `joint_bias` for how far it lies too high."""
    joint = _table(counts) / np.sum(counts, dtype=float)
    return max(0.0, float(scipy.special.rel_entr(joint, np.outer(joint.sum(axis=1), joint.sum(axis=0))).sum()))


def joint_bias(counts) -> float:
    """Miller-Madow bias of `joint_information` where the N counts are independent draws: (A-1)(B-1)/2N, used ones.

    Tokens of one sequence are alike, and a token's k experts differ, so it is a guide; a null is the better judge.
    """
    counts = _table(counts)
    used_rows, used_columns = (int((counts.sum(axis=axis) > 0).sum()) for axis in (1, 0))
    return (used_rows - 1) * (used_columns - 1) / (2 * float(counts.sum()))


def conditional_information(counts) -> float:
    """I(A;B|C) in nats from counts (C, A, B): what A and B share beyond what the condition explains."""
    counts = np.asarray(counts)
    if counts.ndim != 3:
        raise ValueError(f"counts has shape {counts.shape}; allowed is (C, A, B)")
    shares = counts.sum(axis=(1, 2)) / counts.sum(dtype=float)
    return float(sum(share * joint_information(table) for share, table in zip(shares, counts, strict=True) if share))


def fano_floor(accuracy: float, label_entropy: float, n_labels: int) -> float:
    """Least I(D;T) in nats at which D is guessed from T with this accuracy: Fano, H(D) - h(e) - e log(D - 1)."""
    error = 1 - as_number(accuracy, "accuracy", 0, 1)
    n_labels = as_count(n_labels, "n_labels", 2)
    label_entropy = as_interval(label_entropy, "label_entropy", 0, np.log(n_labels) + 1e-9, "[0, log n_labels]")
    doubt = scipy.special.entr(error) + scipy.special.entr(1 - error) + error * np.log(n_labels - 1)
    return float(max(0.0, label_entropy - doubt))


def relabelled_information(unit_counts, labels, n: int = 100, rng=0) -> np.ndarray:
    """I(D;T) (n,) in nats when the labels (S,) of whole units with counts (S, E) are permuted: the null.

    Units are sequences, since tokens of one sequence share the label and are not exchangeable by themselves.
    """
    unit_counts, labels, rng = _table(unit_counts), np.asarray(labels), np.random.default_rng(rng)
    if labels.shape != unit_counts.shape[:1]:
        raise ValueError(f"labels has shape {labels.shape}; allowed is ({len(unit_counts)},), one for each unit")
    names, labels = np.unique(labels, return_inverse=True)
    found = np.empty(as_count(n, "n"))
    for i in range(n):
        of_label = np.eye(len(names))[:, rng.permutation(labels)]  # (D, S)
        found[i] = joint_information(of_label @ unit_counts)
    return found


def _shares(load, name: str = "load") -> np.ndarray:
    load = np.asarray(load, dtype=float)
    if load.ndim != 1 or not np.isfinite(load).all() or load.min(initial=0) < 0 or not load.sum() > 0:
        raise ValueError(f"{name} has shape {load.shape}; allowed are (E,) numbers >= 0 that do not all vanish")
    return load / load.sum()


def _table(counts) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.ndim != 2 or not np.isfinite(counts).all() or counts.min(initial=0) < 0 or not counts.sum() > 0:
        raise ValueError(f"counts has shape {counts.shape}; allowed are (A, B) numbers >= 0 that do not all vanish")
    return counts
