"""A short function of the library as code that a chapter shows."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST_EXCERPT = 25


@dataclass(frozen=True)
class Excerpt:
    """Code with the full name of what it defines."""

    name: str
    code: str

    def __repr__(self) -> str:
        return f"{self.name}\n\n{self.code}"

    def _repr_markdown_(self) -> str:
        return f"`{self.name}`, as it stands in the library:\n\n```python\n{self.code}\n```"


def source(function: Callable[..., Any]) -> Excerpt:
    """The library's own code of `function`, without its docstring, for a cell that shows it.

    Longer functions than a reader takes in at once are refused.

    >>> from expertbank import union_bound
    >>> print(source(union_bound).code.splitlines()[0])
    def union_bound(n_candidates: int, sample_size: int) -> float:
    """
    if not inspect.isfunction(function):
        raise TypeError(f"{function!r} is no function: a function in Python is needed")
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    definition = ast.parse("\n".join(lines)).body[0]
    assert isinstance(definition, ast.FunctionDef)
    first = definition.body[0]
    if ast.get_docstring(definition) is not None:
        del lines[first.lineno - 1 : first.end_lineno]
    if len(lines) > LONGEST_EXCERPT:
        raise ValueError(
            f"{function.__name__} has {len(lines)} lines: at most {LONGEST_EXCERPT} are allowed"
        )
    return Excerpt(f"{function.__module__}.{function.__qualname__}", "\n".join(lines))
