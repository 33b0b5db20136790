"""Tables of the chapters: one function, so that they all look alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from typing import Any

from expertbank.book.numbers import typeset

# what a number is written with beside its digits: signs, units, ranges
_JOINTS = re.compile(r"\bto\b|(?<=\d)e[+-]?\d+")
_PARTS = re.compile(r"(?P<whole>[^\d]*[\d,]*)(?P<decimals>(?:\.\d+)?)(?P<rest>.*)")
_NO_DIGITS = {"inf", "-inf", "nan"}
_FIGURE_SPACE, _POINT_SPACE, _NO_BREAK = "\u2007", "\u2008", "\u00a0"


@dataclass(frozen=True)
class NumberedTable:
    """A table as text, cell by cell; a notebook shows it as HTML, the book also numbers it.

    `numeric` says which columns hold numbers: these stand on the right, decimals aligned.
    """

    caption: str
    name: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]

    def __repr__(self) -> str:
        from tabulate import tabulate  # the library's other parts do without the book's tools

        align = ["right" if is_numeric else "left" for is_numeric in self.numeric]
        plain = tabulate(self.rows, self.headers, disable_numparse=True, colalign=align)
        return f"{self.caption}\n\n{plain}"

    def _repr_html_(self) -> str:
        columns = [
            _aligned(column) if is_numeric else column
            for column, is_numeric in zip(zip(*self.rows), self.numeric)
        ]
        head = "".join(
            f'<th scope="col"{self._look(place)}>{_marked(text)}</th>' if text else "<td></td>"
            for place, text in enumerate(self.headers)
        )
        body = "".join(f"<tr>{self._cells(row)}</tr>\n" for row in zip(*columns))
        return (
            f'<table class="book-table" id="{escape(self.name)}">\n'
            f"<caption>{_marked(self.caption)}</caption>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
        )

    def _look(self, place: int) -> str:
        if self.numeric[place]:
            return ' class="number" style="text-align: right; white-space: nowrap"'
        return ' style="text-align: left"'

    def _cells(self, row: Sequence[str]) -> str:
        """A row: its first cell is the header of the others."""
        cells = []
        for place, text in enumerate(row):
            kind, scope = ("td", "") if place else ("th", ' scope="row"')
            cells.append(f"<{kind}{scope}{self._look(place)}>{_marked(text)}</{kind}>")
        return "".join(cells)


def table(
    rows: Iterable[Iterable[Any]],
    headers: Sequence[str],
    caption: str,
    name: str = "",
    *,
    formats: str | Sequence[str] = "",
    verdict: str = "",
) -> NumberedTable:
    """A numbered table of a chapter.

    `rows` hold numbers and texts, and `headers` one text a column, the first of a row being what
    the row is about. `caption` says what the table shows and `name`, as in `"tbl-gate-rates"`, is
    what the text refers to. `formats` is how numbers are written, once or once a column; in a
    column of whole numbers one format for all leaves them whole. `verdict` is the header of the
    column that a reader wants first: it becomes the second one, which a phone shows too. Caption,
    headers and cells may hold `$mathematics$` and `code` in backticks.

    >>> table([["hard", 0.25, 3], ["soft", 1.5, 12]], ["gate", "loss", "n"], "Two.", formats=".2f")
    Two.
    <BLANKLINE>
    gate      loss    n
    ------  ------  ---
    hard      0.25    3
    soft      1.50   12
    """
    cells = [list(row) for row in rows]
    names = [str(header) for header in headers]
    kinds = [formats] * len(names) if isinstance(formats, str) else list(formats)
    _check(cells, names, kinds, caption, name, verdict)
    columns = [
        _written(column, kind, isinstance(formats, str)) for column, kind in zip(zip(*cells), kinds)
    ]
    order = list(range(len(names)))
    if verdict:
        order.remove(names.index(verdict))
        order.insert(1, names.index(verdict))
    return NumberedTable(
        caption=caption,
        name=name,
        headers=tuple(names[place] for place in order),
        rows=tuple(zip(*(columns[place] for place in order))),
        numeric=tuple(_is_numeric(columns[place]) for place in order),
    )


def _check(
    cells: list[list[Any]],
    names: list[str],
    kinds: list[str],
    caption: str,
    name: str,
    verdict: str,
) -> None:
    """What a table must be, in one sentence where it is not."""
    if not cells:
        raise ValueError("rows is empty: at least one row is needed")
    for place, row in enumerate(cells):
        if len(row) != len(names):
            raise ValueError(
                f"rows[{place}] has {len(row)} cells: {len(names)} are needed, one a header"
            )
    if len(kinds) != len(names):
        raise ValueError(
            f"formats has {len(kinds)} entries: one for all or {len(names)} are needed"
        )
    if not caption.strip():
        raise ValueError("caption is empty: a sentence is needed that says what the table shows")
    if re.search(r"(?<!\w)\*\w[^*]*\w\*", caption):
        raise ValueError("caption has *stressed* words: plain ones and formulas are allowed")
    if name and not re.fullmatch(r"tbl-[\w-]+", name):
        raise ValueError(f"name is {name!r}: tbl- and letters, digits, - or _ are allowed")
    if verdict and verdict not in names[1:]:
        raise ValueError(f"verdict is {verdict!r}: a header after the first is needed")


def _written(column: Sequence[Any], kind: str, is_for_all: bool) -> list[str]:
    """The cells of a column as text."""
    are_whole = all(isinstance(value, (Integral, str, type(None))) for value in column)
    if is_for_all and are_whole:
        kind = ""
    return [format(value, kind) if isinstance(value, Real) else _text(value) for value in column]


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _is_number(text: str) -> bool:
    bare = _JOINTS.sub("", text)
    return any(sign.isdigit() for sign in bare) and not any(sign.isalpha() for sign in bare)


def _is_numeric(column: Sequence[str]) -> bool:
    """Whether most cells that say anything are numbers."""
    saying = [text for text in column if any(map(str.isalnum, text)) and text not in _NO_DIGITS]
    return 2 * sum(map(_is_number, saying)) > len(saying)


def _aligned(column: Sequence[str]) -> list[str]:
    """Numbers with spaces as wide as what they lack to the right of the point."""
    found = [_PARTS.fullmatch(text) for text in column if _is_number(text)]
    parts = [part for part in found if part]
    if any("e" in part["rest"].replace("to", "") for part in parts):
        return [typeset(text) for text in column]
    decimals = max((part["decimals"] for part in parts), key=len, default="")
    rest = max((part["rest"] for part in parts), key=len, default="")
    lines = []
    for text in column:
        part = _PARTS.fullmatch(text)
        if part and _is_number(text):
            text = part["whole"] + part["decimals"] + _gap(decimals, part["decimals"])
            text += part["rest"] + _gap(rest, part["rest"])
        lines.append(typeset(text))
    return lines


def _gap(longest: str, own: str) -> str:
    missing = longest[len(own) :]
    width = {".": _POINT_SPACE, " ": _NO_BREAK}
    return "".join(width.get(sign, _FIGURE_SPACE) for sign in missing)


def _marked(text: str) -> str:
    """Text as HTML: code in backticks, and a value with its error on one line."""
    joined = text.replace(" ± ", f"{_NO_BREAK}±{_NO_BREAK}")
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(joined, quote=False))
