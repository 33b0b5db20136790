"""The index of an expert on a noisy link and on a wire: words, noise, decoders, and what the bits
cost.

Letters are integers, -1 a letter that was lost. For a binary link any matrix of codewords will do,
here Reed-Muller's from SciPy; Reed-Solomon words are built and repaired by reedsolo, bits are
written and read back by constriction.
"""

from __future__ import annotations

import numpy as np
import scipy

from expertbank._checks import as_count, as_distribution, as_gate, as_losses, as_number

LARGEST = 2**20  # outputs of a channel that is written down
FIELD = 5  # bits of a Reed-Solomon letter: an index below 32, words of 31 letters


# --- words on a binary link ---


def index_bits(k: int) -> np.ndarray:
    """The numbers 0 .. k-1 in binary, (k, ceil(log2 k)), highest bit first: the uncoded words of k
    experts."""
    k = as_count(k, "k", at_least=2)
    width = int(np.ceil(np.log2(k)))
    return np.arange(k)[:, None] >> np.arange(width)[::-1] & 1


def reed_muller_words(k: int) -> np.ndarray:
    """The first k words (k, n) of the first-order Reed-Muller code, n the largest power of 2 below
    2^ceil(log2 k).

    Rows of a Hadamard matrix and their complements: any two differ in n/2 places at least.
    """
    k = as_count(k, "k", at_least=2)
    rows = scipy.linalg.hadamard(2 ** (index_bits(k).shape[1] - 1))
    return np.vstack([rows < 0, rows > 0])[:k].astype(int)


def words_channel(words, crossover: float) -> np.ndarray:
    """What a BSC makes of words (k, n): the channel (k, 2^n) from index to received word, in binary
    order."""
    words, p = _as_words(words), as_number(crossover, "crossover", 0, 1)
    if 2 ** words.shape[1] > LARGEST:
        raise ValueError(
            f"words have {words.shape[1]} bits; allowed are at most {int(np.log2(LARGEST))}"
        )
    channel = np.ones((len(words), 1))
    for bits in words.T:  # one bit more doubles the outputs
        flipped = np.where(bits[:, None] == [0, 1], 1 - p, p)
        channel = (channel[:, :, None] * flipped[:, None, :]).reshape(len(words), -1)
    return channel


def nearest_words(received, words) -> np.ndarray:
    """Index (N,) of the word (k, n) that differs least from each received one (N, n); ties go to
    the smallest."""
    received, words = _as_words(received, "received"), _as_words(words)
    agreements = (2 * words - 1.0) @ (2 * received - 1.0).T
    return agreements.argmax(axis=0)


def flip_bits(sent, crossover: float, rng: np.random.Generator | int) -> np.ndarray:
    """Words (N, n) after a BSC."""
    sent, p = _as_words(sent, "sent"), as_number(crossover, "crossover", 0, 1)
    return sent ^ (np.random.default_rng(rng).random(sent.shape) < p)


# --- letters on a k-ary link ---


def repeated_channel(channel, n_uses: int) -> np.ndarray:
    """The channel (k, outputs^n) of one letter sent n times."""
    channel, n = as_gate(channel, "channel"), as_count(n_uses, "n_uses")
    if channel.shape[1] ** n > LARGEST:
        raise ValueError(
            f"n_uses is {n}; allowed are at most {LARGEST:,} outputs, here {channel.shape[1]}^n"
        )
    product = channel
    for _ in range(n - 1):
        product = (product[:, :, None] * channel[:, None, :]).reshape(len(channel), -1)
    return product


def spoil_letters(
    sent, k: int, error: float, erased: float, rng: np.random.Generator | int
) -> np.ndarray:
    """Letters of any shape after a k-ary link: each lost (-1) with probability `erased`, else wrong
    with `error`."""
    k, error, erased = (
        as_count(k, "k", 2),
        as_number(error, "error", 0, 1),
        as_number(erased, "erased", 0, 1),
    )
    sent, rng = _as_letters(sent, "sent", k), np.random.default_rng(rng)
    wrong = (sent + rng.integers(1, k, sent.shape)) % k
    received = np.where(rng.random(sent.shape) < error, wrong, sent)
    return np.where(rng.random(sent.shape) < erased, -1, received)


def reed_solomon_link(
    indices, parity: int, error=0.0, erased=0.0, rng: np.random.Generator | int = 0
) -> np.ndarray:
    """Indices (N,) below 32 sent in Reed-Solomon words over GF(32), 31 - parity at a time, over a
    32-ary link.

    Returns what arrives, (N,), -1 where it is lost. A word with more erasures plus twice the errors
    than `parity` is left as received, as a rule. The last word is filled up with the first indices
    again. Needs the extra `links`.
    """
    from reedsolo import ReedSolomonError, RSCodec

    k, length = 2**FIELD, 2**FIELD - 1
    indices, parity = _as_letters(indices, "indices", k), as_count(parity, "parity")
    if parity >= length:
        raise ValueError(
            f"parity is {parity}; allowed is at most {length - 1} of the {length} letters of a word"
        )
    codec, message = RSCodec(parity, nsize=length, c_exp=FIELD), length - parity
    blocks = np.resize(indices, (-(-len(indices) // message), message))
    sent = np.array([list(codec.encode(bytes(block.tolist()))) for block in blocks])
    received = spoil_letters(sent, k, error, erased, rng)
    arrived = received[:, :message].copy()
    for row, word in enumerate(received):
        try:
            decoded = codec.decode(
                bytes(np.maximum(word, 0).tolist()), erase_pos=np.flatnonzero(word < 0).tolist()
            )
        except ReedSolomonError:
            continue
        arrived[row] = list(decoded[0])
    return arrived.ravel()[: len(indices)]


def measured_loss(losses, answers) -> tuple[float, float]:
    """Mean loss (N, R) of the experts that answer (N,) or of several trials (trials, N), and its
    standard error."""
    losses, answers = as_losses(losses), np.atleast_2d(answers)
    if answers.shape[-1] != len(losses):
        raise ValueError(f"answers has shape {answers.shape}; allowed is (..., {len(losses)})")
    means = losses[np.arange(len(losses)), answers].mean(axis=1, dtype=float)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means))) if len(
        means
    ) > 1 else np.nan


# --- bits on a wire ---


def coded_bits(indices, law) -> int:
    """Bits that a range coder needs for indices (N,) under a law (k,), or one of its own for each
    index, (N, k).

    The stream is read back and compared. It comes in words of 32 bits. Needs the extra `links`.
    """
    import constriction

    law = as_distribution(law, "law")
    indices = _as_letters(indices, "indices", law.shape[-1]).astype(np.int32)
    if law.ndim > 2 or (law.ndim == 2 and len(law) != len(indices)):
        raise ValueError(f"law has shape {law.shape}; allowed is (k,) or ({len(indices)}, k)")
    family = constriction.stream.model.Categorical
    model = [family(law, perfect=False)] if law.ndim == 1 else [family(perfect=False), law]
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(indices, *model)
    words = encoder.get_compressed()
    count = [] if law.ndim == 2 else [len(indices)]
    if not np.array_equal(
        constriction.stream.queue.RangeDecoder(words).decode(*model, *count), indices
    ):
        raise RuntimeError("the coder did not return what it was given")
    return 32 * len(words)


def raced_indices(gate, chosen, rng: np.random.Generator | int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (Q,) drawn from the rows `chosen` (Q,) of a gate (N, R), with coins that the receiver
    sees too.

    For each query both ends draw the same exponential times E_t; the gate takes the first of E_t /
    p(t|x). Also returned is the law (Q, R) that the coins leave for the receiver, who knows the
    gate but not x: what a coder needs. Its mean entropy is H(T|Z), between I(X;T) and I + log(I +
    1) + 4 bits (Li & El Gamal 2018).
    """
    gate, rng = as_gate(gate), np.random.default_rng(rng)
    rows, counts = np.unique(gate, axis=0, return_inverse=True)
    weights = np.bincount(counts.ravel(), minlength=len(rows)) / len(gate)
    with np.errstate(divide="ignore"):
        means = 1 / rows
    indices, laws = [], []
    for row in counts.ravel()[np.asarray(chosen)]:
        first = (rng.exponential(size=rows.shape[1]) * means).argmin(axis=1)
        indices.append(first[row])
        laws.append(np.bincount(first, weights, rows.shape[1]))
    return np.array(indices), np.array(laws)


def poisson_index(
    law, channel, n_letters: int, rng: np.random.Generator | int, most: int = 2**22
) -> int:
    """Which candidate (1, 2, ...) of a shared list simulates a channel (k, outputs) on n letters of
    law (k,).

    Li & El Gamal's Poisson functional representation: both ends hold candidates drawn from the
    output law, with the arrival times of a Poisson process; the sender points to the least time /
    ratio, ratio = p(candidate | letters) / p(candidate). It stops when no later one can win. Raises
    RuntimeError after `most` candidates.
    """
    law, channel = as_distribution(law, "law"), as_gate(channel, "channel")
    n, rng = as_count(n_letters, "n_letters"), np.random.default_rng(rng)
    outputs = law @ channel
    ratios = np.divide(channel, outputs, out=np.zeros_like(channel), where=outputs > 0)
    letters = rng.choice(len(law), n, p=law)
    highest = ratios[letters].max(axis=1).prod()
    best, winner, time, seen, chunk = np.inf, 0, 0.0, 0, 256
    while time / highest < best and seen < most:
        candidates = rng.choice(len(outputs), (chunk, n), p=outputs)
        times = time + rng.exponential(size=chunk).cumsum()
        with np.errstate(divide="ignore"):
            scores = times / ratios[letters, candidates].prod(axis=1)
        if scores.min() < best:
            best, winner = scores.min(), seen + int(scores.argmin()) + 1
        time, seen, chunk = times[-1], seen + chunk, min(2 * chunk, 2**16)
    if time / highest < best:
        raise RuntimeError(
            f"no winner is certain after {seen:,} candidates; fewer letters or a less sharp channel are needed"
        )
    return winner


def pointer_bits(winners, information: float) -> float:
    """Mean bits of winners (N,) under Li & El Gamal's power law for a channel that carries
    `information` nats."""
    bits = as_number(information, "information", 0, np.inf, allowed="a number >= 0") / np.log(2)
    exponent = 1 + 1 / (bits + np.log2(np.e) / np.e + 1)
    return float(np.mean(exponent * np.log2(winners)) + np.log2(scipy.special.zeta(exponent)))


def _as_words(words, name="words"):
    words = np.asarray(words)
    if (
        words.ndim != 2
        or 0 in words.shape
        or words.dtype.kind not in "iub"
        or not np.isin(words, (0, 1)).all()
    ):
        raise ValueError(f"{name} has shape {words.shape}; allowed is (k, n) of integers 0 and 1")
    return words.astype(np.int64)


def _as_letters(letters, name, k):
    letters = np.asarray(letters)
    if (
        letters.size == 0
        or letters.dtype.kind not in "iu"
        or letters.min() < 0
        or letters.max() >= k
    ):
        raise ValueError(f"{name} must be integers; allowed are 0 to {k - 1}, at least one of them")
    return letters.astype(np.int64)
