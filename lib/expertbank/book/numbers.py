"""Numbers of the text: computed in a chapter, and put where its sentences name them; and whether
a run is the one that the text was written for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

Keep = Callable[[str, str], None]


def _glued(name: str, text: str) -> None:
    from myst_nb import glue  # the library's other parts do without the book's tools

    glue(name, text, display=False)


_keep: ContextVar[Keep] = ContextVar("keep", default=_glued)


@contextmanager
def kept_by(keep: Keep) -> Iterator[None]:
    """Where numbers go to `keep(name, text)` in place of the notebook: in a page.

    >>> with kept_by(print):
    ...     numbers_of("bsc")("crossing", "0.102")
    bsc_crossing 0.102
    """
    token = _keep.set(keep)
    try:
        yield
    finally:
        _keep.reset(token)


def typeset(text: str) -> str:
    """Numbers as a reader expects them: with a minus for the hyphen, and a zero without a sign.

    >>> typeset("-0.0060 ± 0.0004"), typeset("[-.04, 1e-3]"), typeset("-0.00")
    ('−0.0060 ± 0.0004', '[−.04, 1e-3]', '0.00')
    """
    unsigned = re.sub(r"(?<![\w.])-(?=0+(?:\.0+)?(?![\d.e]))", "", text)
    return re.sub(r"(?<![\w.])-(?=\.?\d)", "\u2212", unsigned)


def numbers_of(chapter: str) -> Keep:
    """A function `show(key, text)` that keeps a number as the chapter's sentences print it.

    A sentence of the chapter `bsc` names what `show("crossing", "0.102")` kept by the key
    `bsc_crossing`.

    >>> show = numbers_of("bsc")
    >>> show("crossing", f"{0.10234:.3f}")
    """

    def show(key: str, text: str) -> None:
        _keep.get()(f"{chapter}_{key}", typeset(text))

    return show


def _briefly(value: Any) -> str:
    return str(value) if np.size(value) <= 9 else f"{np.size(value)} values"


def same_as_book(**parameters: tuple[Any, Any]) -> bool:
    """Whether a chapter runs with the book's own parameters: each is a pair of its value here and
    its value in the book.

    Where they differ a sentence says so. Checks of the book's own numbers stand behind this; what
    holds for every value of the parameters is checked without asking.

    >>> same_as_book(p=(0.1, 0.1), m=(100, 100))
    True
    >>> same_as_book(p=(0.3, 0.1), m=(100, 100))
    Here p = 0.3. The text, the captions and the checks of single numbers are of the book's own run
    (p = 0.1), so those checks are left out; what holds for every value is still checked.
    False
    """
    pairs = {
        name: pair for name, pair in parameters.items() if not np.array_equal(pair[0], pair[1])
    }
    if not pairs:
        return True
    here, book = (
        ", ".join(f"{name} = {_briefly(pair[i])}" for name, pair in pairs.items()) for i in (0, 1)
    )
    print(
        f"Here {here}. The text, the captions and the checks of single numbers are of the book's "
        f"own run\n({book}), so those checks are left out; what holds for every value is still "
        "checked."
    )
    return False
