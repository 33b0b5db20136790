"""Tables of the chapters: one function, so that they all look alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def html_table(rows: Iterable[Sequence[Any]], headers: Sequence[str], **look: Any) -> Any:
    """A table that a notebook shows as HTML: rows under headers, numbers in `floatfmt`.

    `look` is what `tabulate` takes: `floatfmt`, one format or one a column; `colalign`; and
    `disable_numparse=True` where text must stay as it is.

    >>> table = html_table([["gate", 0.12345]], ["name", "loss"], floatfmt=".3f")
    >>> "0.123" in str(table)
    True
    """
    from tabulate import tabulate  # the library's other parts do without the book's tools

    return tabulate(rows, headers, tablefmt="html", **look)
