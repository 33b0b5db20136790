"""What a function says of itself, also where Python runs without docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any


def docstring(function: Callable[..., Any]) -> str:
    """The docstring of a function; `python -OO` drops it, then it is read from the source. Empty
    where there is none.

    >>> docstring(docstring).splitlines()[0][:30]
    'The docstring of a function; `'
    """
    text = inspect.getdoc(function)
    if text is None:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        definition: Any = tree.body[0]
        text = ast.get_docstring(definition)
    return "" if text is None else text
