"""What a drawn index costs on a wire when both ends toss coins of their own: common information.

The sender sees X, the receiver has to put out T with p(t|x). A letter V with X - V - T does it: the
sender draws V given X and sends it, the receiver draws T given V. In long blocks V costs I(X,T;V)
nats a query, one query at a time H(V). The least I(X,T;V) is Wyner's common information.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import (
    BELOW_INF,
    FloatOrArray,
    as_gate,
    as_interval,
    as_number,
    as_weights,
)

LARGEST_TABLE = 1024  # pairs (x, t): the search holds (X + T) times as many numbers
STIFFNESSES = (30.0, 10.0, 3.0)  # prices of I(X;T|V), one after the other
STEPS_PER_STAGE = 250  # at each of them
WIRE_PRICES = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)  # at which letters are looked for
NEGLIGIBLE = 1e-9  # a smaller probability within a letter's law is rounding


@dataclass(frozen=True)
class CommonLetter:
    """A letter V with X - V - T: a way to draw T given X without shared coins. Units are nats."""

    weights: np.ndarray
    """(V,) its law"""
    input_laws: np.ndarray
    """(V, X) laws of X given V"""
    output_laws: np.ndarray
    """(V, T) laws of T given V, from which the receiver draws"""

    @property
    def joint(self) -> np.ndarray:
        """The law (X, T) of input and output that the letter makes."""
        return (self.weights[:, None] * self.input_laws).T @ self.output_laws

    @property
    def sender_laws(self) -> np.ndarray:
        """(X, V) laws of V given X, from which the sender draws; an input of weight 0 has none."""
        both = (self.weights[:, None] * self.input_laws).T
        inputs = both.sum(axis=1, keepdims=True)
        return np.divide(both, inputs, out=np.zeros_like(both), where=inputs > 0)

    @property
    def entropy(self) -> float:
        """H(V): what one query costs, up to the one bit of a prefix code."""
        return _entropy(self.weights)

    @property
    def rate(self) -> float:
        """I(X,T;V): what a query costs in long blocks."""
        within = scipy.special.entr(self.input_laws).sum(axis=1)
        within = within + scipy.special.entr(self.output_laws).sum(axis=1)
        return _entropy(self.joint) - float(self.weights @ within)

    @property
    def wire_rate(self) -> float:
        """I(X;V): what is left of it on the wire when `rate - wire_rate` nats of coins are shared
        (Cuff 2013)."""
        within = scipy.special.entr(self.input_laws).sum(axis=1)
        return _entropy(self.joint.sum(axis=1)) - float(self.weights @ within)


def kept_or_erased(channel: ArrayLike, input_dist: ArrayLike | None = None) -> CommonLetter:
    """The letter that is X or says nothing, for a channel p(t|x), (X, T), and X's law (X,).

    What all rows have in common, min_x p(t|x), has a mass d. With probability d the sender says so
    and the receiver draws from that; else it sends X. The law is uniform by default. Raises
    ValueError for rows that are no distributions and for bad weights.

    Half of the time nothing of the input is needed:

    >>> letter = kept_or_erased([[0.75, 0.25], [0.25, 0.75]])
    >>> letter.weights.tolist(), letter.output_laws.tolist()
    ([0.25, 0.25, 0.5], [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    """
    channel = as_gate(channel, "channel")
    prior = as_weights(input_dist, len(channel), "input_dist")
    common = channel.min(axis=0)
    erased = float(common.sum())
    if erased >= 1 - 1e-12:  # all rows are the same
        return CommonLetter(np.ones(1), prior[None], (prior @ channel)[None])
    inputs = np.eye(len(prior))
    kept = (channel - common) / (1 - erased)
    if erased <= 0:
        return CommonLetter(prior, inputs, channel)
    weights = np.append((1 - erased) * prior, erased)
    return CommonLetter(weights, np.vstack([inputs, prior]), np.vstack([kept, common / erased]))


def common_information(
    channel: ArrayLike,
    input_dist: ArrayLike | None = None,
    wire_price: float = 0.0,
    rng: np.random.Generator | int = 0,
) -> CommonLetter:
    """The letter V of least I(X,T;V) that was found for a channel p(t|x), (X, T), and X's law (X,).

    Its `rate` is an upper bound of Wyner's common information C (Wyner 1975), since its `joint` is
    the given law up to rounding; I(X;T) <= C <= rate <= min(H(X), H(T)). The problem is not convex
    and nothing certifies that the bound is C. With `wire_price` w it is I(X,T;V) + w I(X;V) that is
    made small: 0 asks for no shared coins, a large w for as little on the wire as coins allow. The
    law of X is uniform by default. Raises ValueError for rows that are no distributions, for bad
    weights, more than 1,024 pairs or a negative price.

    Wyner's doubly symmetric binary source, log 2 + h(p) - 2 h((1 - sqrt(1 - 2p)) / 2) at p = 0.1:

    >>> round(common_information([[0.9, 0.1], [0.1, 0.9]]).rate, 4)
    0.605
    """
    channel = as_gate(channel, "channel")
    prior = as_weights(input_dist, len(channel), "input_dist")
    wire_price = as_number(wire_price, "wire_price", 0, BELOW_INF, allowed="a number >= 0")
    if channel.size > LARGEST_TABLE:
        raise ValueError(f"channel has {channel.size} entries; allowed are at most {LARGEST_TABLE}")
    joint = prior[:, None] * channel
    output = joint.sum(axis=0)
    send_output = CommonLetter(output[output > 0], _rows(joint.T), np.eye(len(output))[output > 0])
    send_input = CommonLetter(prior[prior > 0], np.eye(len(prior))[prior > 0], channel[prior > 0])
    erased = kept_or_erased(channel, prior)
    found = [send_output, send_input, erased]
    for start in (_blurred(erased), _random_letter(joint.shape, rng)):
        found += _search(joint, start, wire_price)
    return min(found, key=lambda letter: letter.rate + wire_price * letter.wire_rate)


def letters_by_price(
    channel: ArrayLike,
    input_dist: ArrayLike | None = None,
    prices: Sequence[float] = WIRE_PRICES,
    rng: np.random.Generator | int = 0,
) -> list[CommonLetter]:
    """Letters of a channel p(t|x), (X, T), by the price of the wire, and T itself as the last one.

    Arguments and errors are those of `common_information`. T itself takes I(X;T) on the wire, the
    least there is, and H(T|X) in shared coins:

    >>> letters = letters_by_price([[0.9, 0.1], [0.1, 0.9]], prices=[0, 10])
    >>> [round(letter.wire_rate, 3) for letter in letters]
    [0.487, 0.368, 0.368]
    """
    channel = as_gate(channel, "channel")
    prior = as_weights(input_dist, len(channel), "input_dist")
    joint = prior[:, None] * channel
    output = joint.sum(axis=0)
    itself = CommonLetter(output[output > 0], _rows(joint.T), np.eye(len(output))[output > 0])
    found = [common_information(channel, prior, price, rng) for price in prices]
    return [*found, itself]


def wire_beside_coins(letters: Sequence[CommonLetter], coins: ArrayLike) -> FloatOrArray:
    """What is left on the wire, in nats a query in long blocks, when some nats of coins are shared.

    A letter V takes max(I(X;V), I(X,T;V) - coins) (Cuff 2013), and blocks may use one letter for a
    part of the time and another for the rest. All letters must be of one channel; what comes out is
    an upper bound of the least that suffices. Raises ValueError for no letters or coins < 0.

    >>> letters = letters_by_price([[0.9, 0.1], [0.1, 0.9]], prices=[0, 10])
    >>> np.round(wire_beside_coins(letters, [0, 0.1, 1]), 3).tolist()
    [0.605, 0.505, 0.368]
    """
    if not len(letters):
        raise ValueError("letters is empty; at least one is needed")
    coins = np.asarray(as_interval(coins, "coins", 0, np.inf, allowed="numbers >= 0"))
    wire = np.array([letter.wire_rate for letter in letters])
    shared = np.array([letter.rate for letter in letters]) - wire
    # each letter with all of its coins, and with none
    wire = np.concatenate([wire, wire + shared])
    shared = np.concatenate([shared, np.zeros(len(letters))])
    # the lower convex hull by its supporting lines: slopes of all chords, and the level one
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (wire[:, None] - wire) / (shared - shared[:, None])
    slopes = np.append(slopes[np.isfinite(slopes) & (slopes > 0)], 0.0)
    heights = (wire + slopes[:, None] * shared).min(axis=1)
    return (heights - slopes * coins[..., None]).max(axis=-1)[()]


# --- the search ---


def _search(joint: np.ndarray, start: CommonLetter, wire_price: float) -> Iterator[CommonLetter]:
    """Letters for a joint law (X, T), one after each stage, made exact.

    Alternating minimisation of I(X,T;V) + w I(X;V) + s I(X;T|V) leaves I(X;T|V) positive: the
    letter's own joint law is not the target. So the target is moved until it is.
    """
    weights, inputs, outputs = start.weights, start.input_laws, start.output_laws
    for stiffness in STIFFNESSES:
        price = stiffness + wire_price
        target = joint
        for _ in range(STEPS_PER_STAGE):
            scores = weights[:, None, None] * (inputs ** (stiffness / (1 + price)))[:, :, None]
            scores = scores * (outputs ** (price / (1 + price)))[:, None, :]
            total = scores.sum(axis=0)
            both = scores * np.divide(target, total, out=np.zeros_like(total), where=total > 0)
            weights = both.sum(axis=(1, 2))
            both = both[weights > NEGLIGIBLE]
            weights = both.sum(axis=(1, 2))
            inputs = both.sum(axis=2) / weights[:, None]
            outputs = both.sum(axis=1) / weights[:, None]
            own = (weights[:, None] * inputs).T @ outputs
            target = np.where(joint > 0, np.maximum(target + (joint - own) / 2, 0), 0)
            target = target / target.sum()
        yield _made_exact(joint, CommonLetter(weights, inputs, outputs))


def _made_exact(joint: np.ndarray, letter: CommonLetter) -> CommonLetter:
    """The letter, shrunk until nothing exceeds the joint law (X, T), and a pair (x, t) sent as it
    is for what is missing."""
    inputs = _rows(np.where(letter.input_laws < NEGLIGIBLE, 0, letter.input_laws))
    outputs = _rows(np.where(letter.output_laws < NEGLIGIBLE, 0, letter.output_laws))
    impossible = ((inputs @ (joint <= 0)) * outputs).sum(axis=1) > 0
    weights = np.where(impossible, 0, letter.weights)
    own = CommonLetter(weights, inputs, outputs).joint
    share = (joint[own > 0] / own[own > 0]).min(initial=1)
    missing = np.maximum(joint - share * own, 0)
    x, t = np.nonzero(missing)
    return CommonLetter(
        np.append(share * weights, missing[x, t]),
        np.vstack([inputs, np.eye(len(joint))[x]]),
        np.vstack([outputs, np.eye(joint.shape[1])[t]]),
    )


def _blurred(letter: CommonLetter) -> CommonLetter:
    """The letter with a fifth of the laws replaced by X's and T's own: a start with no zeros."""
    inputs = 0.8 * letter.input_laws + 0.2 * letter.joint.sum(axis=1)
    outputs = 0.8 * letter.output_laws + 0.2 * letter.joint.sum(axis=0)
    return CommonLetter(letter.weights, inputs, outputs)


def _random_letter(shape: tuple[int, int], rng: np.random.Generator | int) -> CommonLetter:
    rng = np.random.default_rng(rng)
    n_letters = sum(shape) + 1
    inputs = rng.dirichlet(np.full(shape[0], 0.5), n_letters)
    outputs = rng.dirichlet(np.full(shape[1], 0.5), n_letters)
    return CommonLetter(np.full(n_letters, 1 / n_letters), inputs, outputs)


def _rows(masses: np.ndarray) -> np.ndarray:
    """Rows of masses as laws; rows without mass are left out."""
    total = masses.sum(axis=1, keepdims=True)
    return masses[total[:, 0] > 0] / total[total[:, 0] > 0]


def _entropy(law: np.ndarray) -> float:
    return float(scipy.special.entr(law).sum())
