"""What the pictures of single layers show: experts against domains, tokens, the next layer and the
two phases of an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from expertbank._files import PathLike, check_input, printable, reading
from expertbank.routers.agreement import Agreement
from expertbank.routers.statistics import Layer, LayerStatistics

MOST_PICTURED = 4
"""Layers with pictures of their own, the worst first"""
TOP_TOKENS = 5
"""Tokens of an expert"""
FEWEST_OF_TOKEN = 5
"""Times that an expert served a token, from which its lift is told: rare tokens look special"""
LONGEST_WORD = 24

LiftTable = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class TokenLift:
    """A token that an expert serves more often than its share.

    >>> TokenLift(expert=0, token=3, word=None, slots=9, lift=2.0).lift
    2.0
    """

    expert: int
    token: int
    word: str | None
    """what the token is, where a vocabulary was given"""
    slots: int
    """of this token that the expert served"""
    lift: float
    """P(expert given the token) over P(expert)"""


@dataclass(frozen=True)
class LayerMap:
    """The pictures of a layer; empty where the statistics do not hold what one needs.

    >>> LayerMap(0).tokens
    ()
    """

    layer: Layer
    domain_lift: LiftTable = ()
    """(D, E) P(expert given the domain) over P(expert); None for a domain without a slot"""
    tokens: tuple[TokenLift, ...] = ()
    """at most `TOP_TOKENS` of an expert, by lift"""
    phases: LiftTable = ()
    """(2, E) load over the mean load, of prompts and of what is generated"""
    next_layer: str | None = None
    next_lift: LiftTable = ()
    """(E, E) P(expert of the next layer given this one's) over P(expert of the next layer)"""


def layer_map(
    name: Layer,
    layer: LayerStatistics,
    words: Mapping[int, str] | None = None,
    following: tuple[str, Agreement] | None = None,
) -> LayerMap:
    """The pictures of a layer. `words` names tokens; `following` is the name of the next layer and
    how experts go with its own.

    >>> from expertbank.routers import RouterStatistics
    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1, n_domains=2)
    >>> statistics.update(0, [[0], [0], [1], [1]], domain=[0, 0, 1, 1])
    >>> layer_map(0, statistics.layers[0]).domain_lift
    ((2.0, 0.0), (0.0, 2.0))
    """
    phases: LiftTable = ()
    if layer.phases.any(axis=1).all():
        phases = _table(layer.phases / layer.phases.mean(axis=1, keepdims=True))
    return LayerMap(
        name,
        _table(_lift(layer.domains)) if layer.domains.any() else (),
        tuple(_top_tokens(layer.token_slots, {} if words is None else words)),
        phases,
        None if following is None else following[0],
        () if following is None else _table(_lift(following[1].pairs)),
    )


def read_words(path: PathLike) -> dict[int, str]:
    """The words of a vocabulary by number: a tokenizer.json of transformers, a JSON object {word:
    number}, or a text file with a word a line. ValueError for anything else.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "vocab.json").write_text('{"the": 1, "a": 0}')
    ...     read_words(f"{folder}/vocab.json")
    {1: 'the', 0: 'a'}
    """
    check_input(path, "a vocabulary")
    with reading(path, " as a vocabulary"):
        text = Path(path).read_text("utf-8")
        if Path(path).suffix != ".json":
            return {i: printable(word, LONGEST_WORD) for i, word in enumerate(text.splitlines())}
        content = json.loads(text)
        if isinstance(content, dict) and "model" in content:
            content = content["model"]["vocab"]
        if not isinstance(content, dict):
            raise ValueError("it holds no object {word: number}")
        return {int(number): printable(word, LONGEST_WORD) for word, number in content.items()}


def _lift(counts: np.ndarray) -> np.ndarray:
    """P(column given the row) over P(column), of counts (R, C); nan for an empty row or column."""
    counts = counts.astype(float)
    expected = counts.sum(axis=1, keepdims=True) * (counts.sum(axis=0) / counts.sum())
    return np.divide(counts, expected, out=np.full(counts.shape, np.nan), where=expected > 0)


def _table(values: np.ndarray) -> LiftTable:
    """Rows of plain numbers; None for nan."""
    return tuple(
        tuple(None if np.isnan(value) else float(value) for value in row) for row in values
    )


def _top_tokens(token_slots: np.ndarray, words: Mapping[int, str]) -> list[TokenLift]:
    """The tokens (V, E) of each expert with the largest lift, of those served often enough."""
    if not token_slots.any():
        return []
    lift = np.where(token_slots >= FEWEST_OF_TOKEN, _lift(token_slots), -1)
    found = []
    for expert, column in enumerate(lift.T):
        for token in np.argsort(-column, kind="stable")[:TOP_TOKENS].tolist():
            if column[token] > 1:
                slots = int(token_slots[token, expert])
                word = words.get(token)
                found.append(TokenLift(expert, token, word, slots, float(column[token])))
    return found
