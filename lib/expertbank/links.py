"""The index of an expert on a noisy link and on a wire: words, noise, decoders, and their bits.

Letters are integers, -1 a letter that was lost. For a binary link any matrix of codewords will do,
here Reed-Muller's from SciPy; Reed-Solomon words are built and repaired by reedsolo, bits are
written and read back by constriction.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_count, as_distribution, as_gate, as_losses, as_number, check_size
from expertbank.information import mean_error

MOST_OUTPUTS = 2**20  # of a channel that is written down
FIELD = 5  # bits of a Reed-Solomon letter: an index below 32, words of 31 letters


# --- words on a binary link ---


def index_bits(k: int) -> np.ndarray:
    """The numbers 0 .. k-1 in binary, (k, ceil(log2 k)): the uncoded words of k experts.

    The highest bit comes first. Raises ValueError for k below 2.

    >>> index_bits(3).tolist()
    [[0, 0], [0, 1], [1, 0]]
    """
    k = as_count(k, "k", at_least=2, at_most=MOST_OUTPUTS)
    width = int(np.ceil(np.log2(k)))
    shifts = np.arange(width)[::-1]
    return np.arange(k)[:, None] >> shifts & 1


def reed_muller_words(k: int) -> np.ndarray:
    """The first k words (k, n) of the first-order Reed-Muller code.

    n is the largest power of 2 below 2^ceil(log2 k). The words are rows of a Hadamard matrix and
    their complements: any two differ in n/2 places at least. Raises ValueError for k below 2.

    >>> reed_muller_words(4).tolist()
    [[0, 0], [0, 1], [1, 1], [1, 0]]
    """
    width = index_bits(k).shape[1]
    check_size(4 ** (width - 1), f"the words of {k} experts")
    rows = scipy.linalg.hadamard(2 ** (width - 1))
    return np.vstack([rows < 0, rows > 0])[:k].astype(int)


def words_channel(words: ArrayLike, crossover: float) -> np.ndarray:
    """What a BSC makes of words (k, n): the channel (k, 2^n) from index to received word.

    Received words are in binary order. Raises ValueError for words that are not integers 0 and 1 or
    have more than 20 bits, or a crossover probability outside [0, 1].

    >>> words_channel([[0, 0], [1, 1]], 0.1).round(4).tolist()
    [[0.81, 0.09, 0.09, 0.01], [0.01, 0.09, 0.09, 0.81]]
    """
    words = _as_words(words)
    p = as_number(crossover, "crossover", 0, 1)
    if 2 ** words.shape[1] > MOST_OUTPUTS:
        most = int(np.log2(MOST_OUTPUTS))
        raise ValueError(f"words have {words.shape[1]} bits; allowed are at most {most}")
    channel = np.ones((len(words), 1))
    for bits in words.T:  # one bit more doubles the outputs
        received = np.where(bits[:, None] == [0, 1], 1 - p, p)
        channel = _append_letter(channel, received)
    return channel


def nearest_words(received: ArrayLike, words: ArrayLike) -> np.ndarray:
    """Index (N,) of the word (k, n) that differs least from each received one (N, n).

    Ties go to the smallest index. Raises ValueError for words that are not integers 0 and 1.

    >>> nearest_words([[0, 0, 1], [1, 1, 0]], words=[[0, 0, 0], [1, 1, 1]]).tolist()
    [0, 1]
    """
    received = _as_words(received, "received")
    words = _as_words(words)
    agreements = (2 * words - 1.0) @ (2 * received - 1.0).T
    return agreements.argmax(axis=0)


def flip_bits(sent: ArrayLike, crossover: float, rng: np.random.Generator | int) -> np.ndarray:
    """Words (N, n) after a BSC, which flips each bit with probability `crossover`.

    Raises ValueError for words that are not integers 0 and 1 or a crossover outside [0, 1].

    >>> flip_bits([[0, 0, 0, 0], [1, 1, 1, 1]], crossover=0.25, rng=0).tolist()
    [[0, 0, 1, 1], [1, 1, 1, 1]]
    """
    sent = _as_words(sent, "sent")
    p = as_number(crossover, "crossover", 0, 1)
    return sent ^ (np.random.default_rng(rng).random(sent.shape) < p)


# --- letters on a k-ary link ---


def repeated_channel(channel: ArrayLike, n_uses: int) -> np.ndarray:
    """The channel (k, outputs^n) of one letter sent n times through a channel (k, outputs).

    Raises ValueError for rows that do not sum to 1, n below 1 or more than 2^20 outputs.

    >>> repeated_channel([[0.9, 0.1], [0.1, 0.9]], 2).round(4).tolist()
    [[0.81, 0.09, 0.09, 0.01], [0.01, 0.09, 0.09, 0.81]]
    """
    channel = as_gate(channel, "channel")
    n = as_count(n_uses, "n_uses", at_most=int(np.log2(MOST_OUTPUTS)))
    n_outputs = channel.shape[1]
    if n_outputs**n > MOST_OUTPUTS:
        raise ValueError(
            f"n_uses is {n}; allowed are at most {MOST_OUTPUTS:,} outputs, here {n_outputs}^n"
        )
    repeated = channel
    for _ in range(n - 1):
        repeated = _append_letter(repeated, channel)
    return repeated


def spoil_letters(
    sent: ArrayLike, k: int, error: float, erased: float, rng: np.random.Generator | int
) -> np.ndarray:
    """Letters 0 .. k-1 of any shape after a k-ary link.

    Each is lost (-1) with probability `erased`, else wrong with probability `error`. Raises
    ValueError for other letters, k below 2 or probabilities outside [0, 1].

    >>> spoil_letters([7, 7, 7, 7, 7], k=25, error=0.2, erased=0.2, rng=0).tolist()
    [3, 7, 7, -1, 7]
    """
    k = as_count(k, "k", 2)
    error = as_number(error, "error", 0, 1)
    erased = as_number(erased, "erased", 0, 1)
    sent = _as_letters(sent, "sent", k)
    rng = np.random.default_rng(rng)
    wrong = (sent + rng.integers(1, k, sent.shape)) % k
    received = np.where(rng.random(sent.shape) < error, wrong, sent)
    return np.where(rng.random(sent.shape) < erased, -1, received)


def reed_solomon_link(
    indices: ArrayLike,
    parity: int,
    error: float = 0.0,
    erased: float = 0.0,
    rng: np.random.Generator | int = 0,
) -> np.ndarray:
    """Indices (N,) below 32 sent in Reed-Solomon words over GF(32) through a 32-ary link.

    A word carries 31 - parity of them. Returns what arrives, (N,), -1 where it is lost. A word with
    more erasures plus twice the errors than `parity` is left as received, as a rule. The last word
    is filled up with the first indices again. Raises ValueError for other indices or parity outside
    1 .. 30. Needs the extra `links`.

    >>> sent = np.arange(25)
    >>> arrived = reed_solomon_link(sent, parity=6, error=0.05, erased=0.05)
    >>> bool((arrived == sent).all())
    True
    """
    from reedsolo import ReedSolomonError, RSCodec

    k = 2**FIELD
    length = k - 1
    indices = _as_letters(indices, "indices", k)
    parity = as_count(parity, "parity")
    if parity >= length:
        raise ValueError(
            f"parity is {parity}; allowed is at most {length - 1} of the {length} letters of a word"
        )
    codec = RSCodec(parity, nsize=length, c_exp=FIELD)
    message = length - parity
    n_words = -(-len(indices) // message)
    blocks = np.resize(indices, (n_words, message))
    sent = np.array([list(codec.encode(bytes(block.tolist()))) for block in blocks])
    received = spoil_letters(sent, k, error, erased, rng)
    arrived = received[:, :message].copy()
    for row, word in enumerate(received):
        lost = np.flatnonzero(word < 0).tolist()
        letters = bytes(np.maximum(word, 0).tolist())
        try:
            decoded = codec.decode(letters, erase_pos=lost)
        except ReedSolomonError:
            continue
        arrived[row] = list(decoded[0])
    return arrived.ravel()[: len(indices)]


def measured_loss(losses: ArrayLike, answers: ArrayLike) -> tuple[float, float]:
    """Mean loss of the experts that answer, and its standard error over trials.

    losses (N, R); answers (N,) are their indices, or (trials, N) those of several trials. The error
    of one trial is nan. Raises ValueError where shapes differ.

    >>> measured_loss([[0, 1], [0, 1]], answers=[[0, 0], [0, 1]])
    (0.25, 0.25)
    """
    losses = as_losses(losses)
    answers = np.atleast_2d(answers)
    if answers.shape[-1] != len(losses):
        raise ValueError(f"answers has shape {answers.shape}; allowed is (..., {len(losses)})")
    means = losses[np.arange(len(losses)), answers].mean(axis=1, dtype=float)
    error = mean_error(means) if len(means) > 1 else np.nan
    return float(means.mean()), error


# --- bits on a wire ---


def coded_bits(indices: ArrayLike, law: ArrayLike) -> int:
    """Bits that a range coder needs for indices (N,) under a law.

    The law (k,) is that of every index, or (N, k) has one of its own for each. The stream is read
    back and compared. It comes in words of 32 bits. Raises ValueError for other indices or laws.
    Needs the extra `links`.

    A thousand indices of 25 equally likely experts, log2 25 = 4.64 bits each:

    >>> coded_bits(np.arange(1000) % 25, np.full(25, 1 / 25))
    4672
    """
    import constriction

    stream = constriction.stream  # pyright: ignore[reportAttributeAccessIssue] (compiled)

    law = as_distribution(law, "law")
    indices = _as_letters(indices, "indices", law.shape[-1]).astype(np.int32)
    if law.ndim > 2 or (law.ndim == 2 and len(law) != len(indices)):
        raise ValueError(f"law has shape {law.shape}; allowed is (k,) or ({len(indices)}, k)")
    categorical = stream.model.Categorical
    if law.ndim == 1:
        model = [categorical(law, perfect=False)]
        count = [len(indices)]
    else:
        model = [categorical(perfect=False), law]
        count = []
    encoder = stream.queue.RangeEncoder()
    encoder.encode(indices, *model)
    words = encoder.get_compressed()
    decoded = stream.queue.RangeDecoder(words).decode(*model, *count)
    if not np.array_equal(decoded, indices):
        raise RuntimeError("the coder did not return what it was given")
    return 32 * len(words)


def raced_indices(
    gate: ArrayLike, chosen: ArrayLike, rng: np.random.Generator | int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (Q,) drawn from the rows `chosen` (Q,) of a gate (N, R), with shared coins.

    For each query both ends draw the same exponential times E_t; the gate takes the first of E_t /
    p(t|x). Also returned is the law (Q, R) that the coins leave for the receiver, who knows the
    gate but not x: what a coder needs. Its mean entropy is H(T|Z), between I(X;T) and I + log(I +
    1) + 4 bits (Li & El Gamal 2018). Raises ValueError for a gate whose rows do not sum to 1.

    Where both rows would take the same expert, the receiver is certain of it:

    >>> gate = [[0.9, 0.1], [0.5, 0.5]]
    >>> indices, laws = raced_indices(gate, chosen=[0, 1, 0], rng=0)
    >>> indices.tolist(), laws.tolist()
    ([0, 1, 0], [[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    """
    gate = as_gate(gate)
    rng = np.random.default_rng(rng)
    rows, row_of = np.unique(gate, axis=0, return_inverse=True)
    row_of = row_of.ravel()
    weights = np.bincount(row_of, minlength=len(rows)) / len(gate)
    with np.errstate(divide="ignore"):
        mean_times = 1 / rows
    indices = []
    laws = []
    for row in row_of[np.asarray(chosen)]:
        # the winner of the race in every distinct row of the gate
        first = (rng.exponential(size=rows.shape[1]) * mean_times).argmin(axis=1)
        indices.append(first[row])
        laws.append(np.bincount(first, weights, rows.shape[1]))
    return np.array(indices), np.array(laws)


def poisson_index(
    law: ArrayLike,
    channel: ArrayLike,
    n_letters: int,
    rng: np.random.Generator | int,
    most: int = 2**22,
) -> int:
    """Which candidate (1, 2, ...) of a shared list simulates a channel (k, outputs) on n letters.

    Li & El Gamal's Poisson functional representation, for letters of law (k,): both ends hold
    candidates drawn from the output law, with the arrival times of a Poisson process; the sender
    points to the least time / ratio, ratio = p(candidate | letters) / p(candidate). It stops when
    no later one can win. Raises RuntimeError after `most` candidates, ValueError for a law or rows
    that do not sum to 1.

    >>> channel = [[0.9, 0.1], [0.1, 0.9]]
    >>> [poisson_index([0.5, 0.5], channel, n_letters=4, rng=seed) for seed in range(5)]
    [13, 36, 1, 3, 2]
    """
    law = as_distribution(law, "law")
    channel = as_gate(channel, "channel")
    n = as_count(n_letters, "n_letters")
    check_size(2**16 * n, f"candidates of {n} letters")
    rng = np.random.default_rng(rng)
    outputs = law @ channel
    ratios = np.divide(channel, outputs, out=np.zeros_like(channel), where=outputs > 0)
    letters = rng.choice(len(law), n, p=law)
    highest = ratios[letters].max(axis=1).prod()
    best = np.inf
    winner = 0
    time = 0.0
    seen = 0
    chunk = 256
    while time / highest < best and seen < most:
        candidates = rng.choice(len(outputs), (chunk, n), p=outputs)
        times = time + rng.exponential(size=chunk).cumsum()
        with np.errstate(divide="ignore"):
            scores = times / ratios[letters, candidates].prod(axis=1)
        if scores.min() < best:
            best = scores.min()
            winner = seen + int(scores.argmin()) + 1
        time = times[-1]
        seen += chunk
        chunk = min(2 * chunk, 2**16)
    if time / highest < best:
        raise RuntimeError(
            f"no winner is certain after {seen:,} candidates; "
            "fewer letters or a less sharp channel are needed"
        )
    return winner


def pointer_bits(winners: ArrayLike, information: float) -> float:
    """Mean bits of winners (N,) of `poisson_index` under Li & El Gamal's power law.

    For a channel that carries `information` nats. Raises ValueError for information below 0.

    >>> round(pointer_bits([1, 2, 4, 1], information=np.log(2)), 4)
    2.6953
    """
    exponent = _power_law_exponent(information)
    return float(np.mean(exponent * np.log2(winners)) + np.log2(scipy.special.zeta(exponent)))


def pointer_bits_error(winners: ArrayLike, information: float) -> float:
    """Standard error of `pointer_bits` over independent winners (N,), N at least 2, in bits.

    >>> round(pointer_bits_error([1, 2, 4, 1], information=np.log(2)), 4)
    0.6679
    """
    spread = np.std(np.log2(winners), ddof=1)
    return float(_power_law_exponent(information) * spread / np.sqrt(np.size(winners)))


# --- what the functions above share ---


def _power_law_exponent(information: float) -> float:
    """Of the law of the winner's number that codes it, for a channel of so many nats."""
    nats = as_number(information, "information", 0, np.inf, allowed="a number >= 0")
    return 1 + 1 / (nats / np.log(2) + np.log2(np.e) / np.e + 1)


def _append_letter(channel: np.ndarray, letter: np.ndarray) -> np.ndarray:
    """The channel (k, outputs * m) with one more letter, of law (k, m) given the index."""
    return (channel[:, :, None] * letter[:, None, :]).reshape(len(channel), -1)


def _as_words(words, name: str = "words") -> np.ndarray:
    words = np.asarray(words)
    is_table = words.ndim == 2 and 0 not in words.shape
    if not is_table or words.dtype.kind not in "iub" or not np.isin(words, (0, 1)).all():
        raise ValueError(f"{name} has shape {words.shape}; allowed is (k, n) of integers 0 and 1")
    return words.astype(np.int64)


def _as_letters(letters, name: str, k: int) -> np.ndarray:
    letters = np.asarray(letters)
    is_integer = letters.size > 0 and letters.dtype.kind in "iu"
    if not is_integer or letters.min() < 0 or letters.max() >= k:
        raise ValueError(f"{name} must be integers; allowed are 0 to {k - 1}, at least one of them")
    return letters.astype(np.int64)
