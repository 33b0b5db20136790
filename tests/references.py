"""Execute every chapter and store it with its text outputs as tests/references/NAME.ipynb, for nbval to compare with.

A notebook fresh from its Markdown source holds no outputs, so comparing with that would prove nothing. Images and
widget states are left out: they differ between machines, and the browser tests look at them.
"""

from __future__ import annotations

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
    names = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    files = [ROOT / f"{name}.md" for name in names]
    return [file for file in files if "kernelspec:" in file.read_text()]


def execute(chapter: Path) -> nbformat.NotebookNode:
    """The chapter as a notebook with its text outputs."""
    notebook = jupytext.read(chapter)
    NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in [kind for kind in data if kind.startswith(LEFT_OUT)]:
                del data[kind]
    notebook.metadata.pop("widgets", None)
    return notebook


def main() -> None:
    REFERENCES.mkdir(exist_ok=True)
    wanted = sys.argv[1:]
    for chapter in chapters():
        if not wanted or chapter.stem in wanted:
            print(chapter.stem, flush=True)
            nbformat.write(execute(chapter), REFERENCES / f"{chapter.stem}.ipynb")
    for stale in set(REFERENCES.glob("*.ipynb")) - {REFERENCES / f"{c.stem}.ipynb" for c in chapters()}:
        stale.unlink()


if __name__ == "__main__":
    main()
