"""Numbers of the text: computed in a chapter, and put where its sentences name them."""

from __future__ import annotations

from collections.abc import Callable


def numbers_of(chapter: str) -> Callable[[str, str], None]:
    """A function `show(key, text)` that keeps a number as the chapter's sentences print it.

    A sentence of the chapter `bsc` names what `show("crossing", "0.102")` kept by the key
    `bsc_crossing`.

    >>> show = numbers_of("bsc")
    >>> show("crossing", f"{0.10234:.3f}")
    """
    from myst_nb import glue  # the library's other parts do without the book's tools

    def show(key: str, text: str) -> None:
        glue(f"{chapter}_{key}", text, display=False)

    return show
