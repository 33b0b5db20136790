"""Execute every chapter and store it with its text outputs as tests/references/NAME.ipynb, for
nbval to compare with.

A notebook fresh from its Markdown source holds no outputs, so comparing with that would prove
nothing. Images and widget states are left out: they differ between machines, and the browser tests
look at them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
REFERENCES = ROOT / "tests" / "references"
LEFT_OUT = ("image/", "application/vnd.jupyter.widget")


def chapters() -> list[Path]:
    """Every notebook of the table of contents, in its order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [
        toc["root"],
        *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"]),
    ]
    files = [ROOT / f"{name}.md" for name in names]
    return [file for file in files if "kernelspec:" in file.read_text()]


def solutions(book: nbformat.NotebookNode) -> list[str]:
    """The Python code in each folded solution."""
    texts = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    folded = [
        found[2]
        for text in texts
        for found in re.finditer(r"^(`{3,})\{solution\}(.*?)^\1$", text, re.M | re.S)
    ]
    return [
        code
        for text in folded
        for code in re.findall(r"^```python\n(.*?)\n```$", text, re.M | re.S)
    ]


def notebook(chapter: Path) -> nbformat.NotebookNode:
    """The chapter, and after its last cell what a reader who tries the solutions runs."""
    book = jupytext.read(chapter)
    tagged = {"metadata": {"tags": ["solution"]}}
    book.cells += [nbformat.v4.new_code_cell(code, **tagged) for code in solutions(book)]
    return book


def execute(chapter: Path) -> nbformat.NotebookNode:
    """The chapter as a notebook with its text outputs."""
    book = notebook(chapter)
    NotebookClient(
        book, timeout=180, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    ).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in [kind for kind in data if kind.startswith(LEFT_OUT)]:
                del data[kind]
    book.metadata.pop("widgets", None)
    return book


def main() -> None:
    REFERENCES.mkdir(exist_ok=True)
    wanted = sys.argv[1:]
    for chapter in chapters():
        if not wanted or chapter.stem in wanted:
            print(chapter.stem, flush=True)
            nbformat.write(execute(chapter), REFERENCES / f"{chapter.stem}.ipynb")
    for stale in set(REFERENCES.glob("*.ipynb")) - {
        REFERENCES / f"{c.stem}.ipynb" for c in chapters()
    }:
        stale.unlink()


if __name__ == "__main__":
    main()
