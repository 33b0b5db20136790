"""The API reference shows every public docstring as its author meant it."""

from __future__ import annotations

import ast
import io

import pytest
from docutils.core import publish_doctree

from references import ROOT

LIBRARY = ROOT / "lib" / "expertbank"


def public_docstrings(path):
    """Name and docstring of the module, and of what in it has a public name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        name = getattr(node, "name", path.stem)
        is_public = not name.startswith("_") or name in ("__init__", "__call__")
        if is_public and ast.get_docstring(node):
            yield name, ast.get_docstring(node)


def problems(docstring):
    """What docutils complains of; names in backquotes are Sphinx's to resolve."""
    told = io.StringIO()
    settings = {"warning_stream": told, "report_level": 2, "halt_level": 5}
    publish_doctree(docstring, settings_overrides=settings)
    lines = told.getvalue().splitlines()
    return [line for line in lines if "Unknown interpreted text role" not in line]


@pytest.mark.parametrize(
    "path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: str(path.relative_to(LIBRARY))
)
def test_docstrings_are_valid_markup(path):
    found = {name: problems(text) for name, text in public_docstrings(path)}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_broken_docstring_is_found():
    assert problems("Sets.\n\nP(|S|) of a set.")
    assert problems("Sets.\n\nname   text\n    more\nother")
    assert not problems("Sets `S` (k,).\n\n>>> 1\n1")
