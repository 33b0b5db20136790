"""Every example in a docstring of the library runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib

import pytest

from expertbank.shipped.manifest import REPOSITORY
from support import skip_or_fail

LIBRARY = REPOSITORY / "lib"


def module_of(path):
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = [
    module_of(path)
    for path in sorted((LIBRARY / "expertbank").rglob("*.py"))
    if ">>>" in path.read_text()
]


def difference(example: doctest.DocTest) -> str | None:
    """What a docstring promised and what it printed instead, where they differ."""
    try:
        doctest.DebugRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    except doctest.DocTestFailure as failure:
        step = failure.example
        line = (example.lineno or 0) + step.lineno + 1
        place = f"{example.filename}:{line}: {example.name}"
        return f"{place}\n{step.source}expected: {step.want}printed: {failure.got}"
    except doctest.UnexpectedException as failure:
        raise failure.exc_info[1] from None
    return None


@pytest.mark.parametrize("module", MODULES)
def test_examples_print_what_they_say(module, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    try:
        # an extra may be missing that a whole module or one of its functions needs
        found = doctest.DocTestFinder().find(importlib.import_module(module))
        differences = [difference(example) for example in found]
    except ModuleNotFoundError as error:
        skip_or_fail(f"examples of {module} need an extra: {error}")
    failed = [text for text in differences if text]
    assert not failed, "\n".join(failed)
