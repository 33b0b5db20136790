"""A chapter as a notebook: its source stays as it is when JupyterLab saves it."""

import tomllib

import jupytext
import pytest
from jupytext.config import JupytextConfiguration

from references import ROOT, chapters

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SAVING = JupytextConfiguration(**PROJECT["tool"]["jupytext"])


@pytest.mark.parametrize("chapter", chapters(), ids=lambda path: path.stem)
def test_saving_changes_nothing(chapter):
    source = chapter.read_text()
    book = jupytext.reads(source, fmt="md:myst")
    # JupyterLab writes the name that the kernel gives itself
    assert book.metadata.kernelspec.display_name == "Python 3 (ipykernel)"
    assert jupytext.writes(book, fmt="md:myst", config=SAVING) == source
