"""A sample of whole sequences in constant memory: those whose hash is lowest.

Which ones these are depends on their ids and the seed alone, never on the order or the parts in
which they come, so the samples of parts merge into that of the whole.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SEVERAL = -2  # in place of the domain of a sequence whose tokens are of several
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Sequences(NamedTuple):
    """S sequences and the slots of their tokens of known domain."""

    ids: np.ndarray
    """(S,) ascending; -1 for a free row, after all others"""
    domains: np.ndarray
    """(S,) what all their tokens are of, or `SEVERAL`"""
    slots: np.ndarray
    """(S, E) by expert"""

    def there(self) -> Sequences:
        """Those rows that are not free.

        >>> rows = Sequences(np.array([3, 7, -1]), np.array([1, 0, -1]), np.zeros((3, 2)))
        >>> rows.there().ids.tolist(), rows.there().domains.tolist()
        ([3, 7], [1, 0])
        """
        n = np.count_nonzero(self.ids >= 0)
        return Sequences(self.ids[:n], self.domains[:n], self.slots[:n])


def domains_of(
    index: np.ndarray, domain: np.ndarray, n_sequences: int
) -> tuple[np.ndarray, np.ndarray]:
    """The domain (S',) of each sequence that is seen, or `SEVERAL`, and which are (S,), from the
    sequence and the domain of each token (n,).

    >>> domains_of(np.array([0, 0, 2, 2]), np.array([1, 1, 0, 1]), n_sequences=3)
    (array([ 1, -2]), array([ True, False,  True]))
    """
    lowest = np.full(n_sequences, domain.max(initial=0) + 1)
    highest = np.full(n_sequences, -1)
    np.minimum.at(lowest, index, domain)
    np.maximum.at(highest, index, domain)
    seen = highest >= 0
    return np.where(lowest == highest, lowest, SEVERAL)[seen], seen


def keep_lowest(kept: Sequences, new: Sequences, seed: int) -> None:
    """Take new sequences of distinct ids into `kept`, in place, as long as their hashes are among
    its lowest.

    A sequence that is there already grows, so one that comes in pieces ends whole: its hash is
    among the lowest from its first piece on, or never in the end.

    >>> kept = Sequences(np.full(2, -1), np.full(2, -1), np.zeros((2, 1), int))
    >>> for some in ([4, 5], [5, 6]):
    ...     keep_lowest(kept, Sequences(np.array(some), np.zeros(2), np.ones((2, 1))), seed=0)
    >>> kept.ids.tolist(), kept.slots.ravel().tolist()
    ([5, 6], [2, 1])
    """
    n = len(kept.ids)
    if not n:
        return
    n_there = len(kept.there().ids)
    here, is_there = _places(kept.ids[:n_there], new.ids)
    here = here[is_there]
    if len(here):
        kept.slots[here] += new.slots[is_there].astype(kept.slots.dtype)
        differ = kept.domains[here] != new.domains[is_there]
        kept.domains[here[differ]] = SEVERAL
    if len(here) == len(new.ids):
        return
    unseen = np.flatnonzero(~is_there)
    n_all = n_there + len(unseen)
    if n_all <= n and not (n_there and new.ids[unseen[0]] < kept.ids[n_there - 1]):
        for array, incoming in zip(kept, new):  # there is room, and the order holds
            array[n_there:n_all] = incoming[unseen]
        return
    hashes = np.concatenate([_hash(kept.ids, seed), _hash(new.ids[unseen], seed)])
    lowest = np.argpartition(hashes, n - 1)[:n]
    coming = unseen[lowest[lowest >= n] - n]
    if not len(coming):
        return
    leaving = np.setdiff1d(np.arange(n), lowest)
    for array, incoming in zip(kept, new):
        array[leaving] = incoming[coming]
    order = np.where(kept.ids < 0, np.iinfo(np.int64).max, kept.ids).argsort()
    for array in kept:
        array[...] = array[order]


def take_away(kept: Sequences, earlier: Sequences) -> bool:
    """Leave of `kept`, in place, those that took slots after `earlier` was kept of the same
    sequences, and these slots; False where `earlier` cannot have grown to it.

    >>> kept = Sequences(np.array([3, 5]), np.array([0, 1]), np.array([[4], [2]]))
    >>> take_away(kept, Sequences(np.array([3, -1]), np.array([0, -1]), np.array([[4], [0]])))
    True
    >>> kept.ids.tolist(), kept.slots.ravel().tolist()
    ([5, -1], [2, 0])
    """
    before = earlier.there()
    now = kept.there()
    here, is_there = _places(now.ids, before.ids)
    here = here[is_there]
    is_full = len(now.ids) == len(kept.ids)
    has_lost = not is_there.all() and not is_full
    if has_lost or (now.slots[here] < before.slots[is_there]).any():
        return False
    now.slots[here] -= before.slots[is_there]
    grown = np.ones(len(now.ids), bool)
    grown[here] = now.slots[here].any(axis=1)
    left = int(grown.sum())
    for array, free in zip(kept, (-1, -1, 0)):
        array[:left] = array[: len(grown)][grown]
        array[left:] = free
    return True


def _places(ids: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where others (m,) stand or would stand among ascending ids, and whether they are there."""
    place = np.searchsorted(ids, others)
    if not len(ids):
        return place, np.zeros(len(others), bool)
    return place, ids[np.minimum(place, len(ids) - 1)] == others


def _hash(ids: np.ndarray, seed: int) -> np.ndarray:
    """64 bits of (seed, id): the finaliser of SplitMix64 (Steele, Lea & Flood 2014), applied to
    each in turn; the highest number for a free row."""
    with np.errstate(over="ignore"):
        state = _mix(np.array([seed % 2**64], np.uint64) + _GOLDEN)
        hashed = _mix(_mix(ids.astype(np.uint64) + _GOLDEN) ^ state)
    return np.where(ids < 0, np.iinfo(np.uint64).max, hashed)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
