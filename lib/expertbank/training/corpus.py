"""Parallel New Testaments as token sequences of one language each: the data of the routing testbed.

Every language says the same verses, so language is the only domain. Christodouloupoulos & Steedman
(2015), CC0.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pooch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from expertbank._checks import as_count, as_number
from expertbank.training.datasets import data_root

COMMIT = "44e5fca1bfb369a5da2ee23ebc6f421c88489c5c"
ADDRESS = f"https://raw.githubusercontent.com/christos-c/bible-corpus/{COMMIT}/bibles"
# sha256 of each file at that commit
CORPUS_SHA256 = {
    "Armenian-PART": "2cfe925bb595d612241b25a3a9d38c68815e2e95cef5f77227f12696d107f299",
    "Basque-NT": "6bf07062402cdb47c97db84926f5d80b26a87ee8cd448f72f52d4f91f0c0cbc0",
    "Cherokee-NT": "4f9faaa875a1256fe6f51a9dc28b92c0ba1fb7e520a1c0f1707f21319e13ce49",
    "Coptic-NT": "26423d1b2934b699a1fa6ab2745ae2dc206795af1beff5ec39c2f16bb7b2383a",
    "Ewe-NT": "e610810065abfdcbe90fc6280613111965187acd747b6a898077f212bd6b7397",
    "Gujarati-NT": "3cf642f231fcbd6b66c6aeca3d00ea6bcb24a74514d5aa9450628690a62c6ee9",
    "Kabyle-NT": "c9a19a18b8a41a9fb986c0cd67f4fab6bb55c7324701c1105c58f49b3749b6cf",
    "Latvian-NT": "8560d7ff45cdf3e50737b4f48ba173ed4003a69141143a5e380c89287656c83a",
    "Ojibwa-NT": "f35a9ebd6de45dd827f56efb53ffbdb33b0908f1f6af92b23f0bf4b06bcbe955",
    "Quichua-NT": "4550bd139f49b76cce84f0a66b6a9b706f374bbbe62dbe4550d2685288707614",
    "Romani-NT": "17ff1250b40744256da6a45ad67f14d5ca5b3f8f6eee2d10c3c9f31582630f2e",
    "Swahili-NT": "a00ef6b173c586f40eb66f2b41aa48c010c7adce74338446686763de07efa17c",
    "Syriac-NT": "9a34a14a32d47b9c916a990fae056c8184aa382c898f58c9daf48e7ad6c64cc4",
    # so spelled there
    "Ukranian-NT": "da1e37c52425e9023863cf2026ad16c8b4dbd71dfce4dfac5a388bc81e53a35e",
    "Wolof-NT": "b3116cc04038b0b1e24f780b57446c1d4cd02a039cc5315ced0617ad363eab1f",
}
# eight languages each: in eight scripts, as P3 chose, and in one script, harder to tell apart
MIXES = {
    "scripts": ("Ukranian-NT", "Armenian-PART", "Gujarati-NT", "Syriac-NT",
                "Coptic-NT", "Cherokee-NT", "Ojibwa-NT", "Swahili-NT"),
    "latin": ("Latvian-NT", "Swahili-NT", "Basque-NT", "Wolof-NT",
              "Romani-NT", "Kabyle-NT", "Quichua-NT", "Ewe-NT"),
}  # fmt: skip


@dataclass(frozen=True)
class Mix:
    """Sequences of eight languages, cut from one tokenisation; every language has the same number
    of them."""

    languages: tuple[str, ...]
    vocabulary: int
    train: np.ndarray
    """tokens (D, S, L) uint16: sequences of each language, from the training chapters"""
    held_out: np.ndarray
    """the same from chapters, the same in all languages, that no training sequence touches"""
    tokenizer: Tokenizer


def corpus_file(name: str, root: str | os.PathLike | None = None, download: bool = False) -> Path:
    """Path of one translation after checking its sha256; FileNotFoundError or ValueError with what
    to do.

    A download is checked before it gets its name, so a file is whole or not there.

    >>> corpus_file("Swahili-NT", download=True).name  # doctest: +SKIP
    'Swahili-NT.xml'
    """
    if name not in CORPUS_SHA256:
        raise ValueError(f"name is {name!r}; allowed are {tuple(CORPUS_SHA256)}")
    folder = (data_root() if root is None else Path(root)) / "bible-corpus"
    path = folder / f"{name}.xml"
    sha256 = CORPUS_SHA256[name]
    if not path.exists():
        if not download:
            raise FileNotFoundError(
                f"{path} is missing; `expertbank train testbed --download` fetches it"
            )
        address = f"{ADDRESS}/{path.name}"
        try:
            pooch.retrieve(address, known_hash=f"sha256:{sha256}", fname=path.name, path=folder)
        except ValueError as error:
            raise ValueError(f"{address}: nothing was written ({error})") from error
    found = pooch.file_hash(path, alg="sha256")
    if found != sha256:
        raise ValueError(
            f"{path} has sha256 {found}, not {sha256}; remove the file and download again"
        )
    return path


def verses(path: str | os.PathLike) -> dict[str, str]:
    """Verse id (`b.MAT.1.1`) -> text of one file of the corpus, empty verses left out.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = Path(file.name).write_text('<cesDoc><seg id="b.MAT.1.1">In  short</seg></cesDoc>')
    ...     verses(file.name)
    {'b.MAT.1.1': 'In short'}
    """
    found = {}
    for segment in ElementTree.parse(path).iter("seg"):
        text = "" if segment.text is None else segment.text
        found[segment.get("id", "")] = " ".join(text.split())
    return {name: text for name, text in found.items() if text}


def load_mix(
    name: str,
    root: str | os.PathLike | None = None,
    download: bool = False,
    vocabulary: int = 2048,
    sequence_length: int = 32,
    held_out: float = 0.1,
    seed: int = 2026,
) -> Mix:
    """The mix `"scripts"` or `"latin"` as sequences; `held_out` is the share of chapters kept from
    training.

    Only verses that all eight languages have are used. The byte-pair tokens are learned on the
    training verses of all eight together, and the last piece of a chapter that fills no sequence is
    dropped. Raises FileNotFoundError where a translation is missing, ValueError for bad arguments.

    >>> mix = load_mix("scripts", download=True)  # doctest: +SKIP
    >>> mix.train.shape  # doctest: +SKIP
    (8, 3626, 32)
    """
    if name not in MIXES:
        raise ValueError(f"name is {name!r}; allowed are {tuple(MIXES)}")
    as_count(vocabulary, "vocabulary", 257)
    as_count(sequence_length, "sequence_length", 2)
    as_number(held_out, "held_out", 0.01, 0.5)
    texts = [verses(corpus_file(language, root, download)) for language in MIXES[name]]
    common = [verse for verse in texts[0] if all(verse in text for text in texts)]
    chapters = list(dict.fromkeys(map(_chapter_of, common)))
    drawn = np.random.default_rng(seed).random(len(chapters)) < held_out
    kept_out = {chapter for chapter, out in zip(chapters, drawn, strict=True) if out}
    seen = [verse for verse in common if _chapter_of(verse) not in kept_out]
    unseen = [verse for verse in common if _chapter_of(verse) in kept_out]
    tokenizer = train_tokenizer([text[verse] for text in texts for verse in seen], vocabulary)
    train = _sequences(tokenizer, texts, seen, sequence_length)
    test = _sequences(tokenizer, texts, unseen, sequence_length)
    return Mix(MIXES[name], tokenizer.get_vocab_size(), train, test, tokenizer)


def _chapter_of(verse: str) -> str:
    return verse.rsplit(".", 1)[0]


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Byte-level byte-pair tokens: no text is unknown, and letters of rare scripts may fall into
    shared bytes.

    >>> tokenizer = train_tokenizer(["in the beginning was the word"], vocabulary=260)
    >>> tokenizer.decode(tokenizer.encode("anything else").ids).strip()
    'anything else'
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _sequences(
    tokenizer: Tokenizer, texts: list[dict[str, str]], names: list[str], length: int
) -> np.ndarray:
    """(D, S, L): the chapters' verses of each language end to end, cut; as many for each as the
    shortest has."""
    languages = []
    for text in texts:
        encodings = tokenizer.encode_batch([text[name] for name in names])
        tokens = np.concatenate([encoding.ids for encoding in encodings])
        whole = len(tokens) // length * length
        languages.append(tokens[:whole].reshape(-1, length))
    shortest = min(map(len, languages))
    if not shortest:
        raise ValueError(
            f"the verses fill no sequence of {length} tokens; take a shorter sequence_length"
        )
    # evenly spread over the book, so that a wordy language does not miss its end
    chosen = [np.linspace(0, len(tokens) - 1, shortest).round().astype(int) for tokens in languages]
    spread_out = [tokens[rows] for tokens, rows in zip(languages, chosen, strict=True)]
    return np.stack(spread_out).astype(np.uint16)


# --- which tokens say their language ---


def domain_posterior(mix: Mix) -> np.ndarray:
    """p(d | token) (V, D) from the training counts, each plus a half: the best classifier without
    attention.

    A classifier that sees one token can do no better than its counts, so nothing needs to be
    trained.

    >>> sequences = np.array([[[0, 0, 1]], [[1, 2, 2]]])  # two languages, a sequence each
    >>> mix = Mix(("one", "other"), 3, sequences, sequences, Tokenizer(models.BPE()))
    >>> domain_posterior(mix)[:, 0].round(2).tolist()
    [0.83, 0.5, 0.17]
    """
    counts = [np.bincount(tokens.ravel(), minlength=mix.vocabulary) for tokens in mix.train]
    smoothed = np.stack(counts, axis=1) + 0.5
    return smoothed / smoothed.sum(axis=1, keepdims=True)


def placed_tokens(mix: Mix, share: float = 0.5) -> np.ndarray:
    """Which token ids (V,) belong to T_D: those surest of their language, `share` of all training
    tokens (P3).

    The rest form T_G. P3 states the share, about one half, and not the threshold: the threshold
    follows from it.

    >>> sequences = np.array([[[0, 0, 1]], [[1, 2, 2]]])
    >>> mix = Mix(("one", "other"), 3, sequences, sequences, Tokenizer(models.BPE()))
    >>> placed_tokens(mix, share=0.6).tolist()
    [True, False, True]
    """
    share = as_number(share, "share", 0, 1)
    sureness = domain_posterior(mix).max(axis=1)
    counts = np.bincount(mix.train.ravel(), minlength=mix.vocabulary)
    order = np.argsort(-sureness, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    placed = np.zeros(mix.vocabulary, dtype=bool)
    placed[order[before < share * counts.sum()]] = True
    return placed


def classifier_accuracy(mix: Mix, placed: np.ndarray | None = None) -> float:
    """How often the likeliest domain of a held-out token is right, on all tokens or those `placed`
    (V,) marks.

    >>> sequences = np.array([[[0, 0, 1]], [[1, 2, 2]]])
    >>> mix = Mix(("one", "other"), 3, sequences, sequences, Tokenizer(models.BPE()))
    >>> round(classifier_accuracy(mix), 2), classifier_accuracy(mix, placed_tokens(mix, 0.6))
    (0.83, 1.0)
    """
    likeliest = domain_posterior(mix).argmax(axis=1)[mix.held_out]
    domains = np.arange(len(mix.languages))[:, None, None]
    is_right = likeliest == domains
    if placed is not None:
        is_right = is_right[placed[mix.held_out]]
    return float(is_right.mean())
