"""Stored references change only where what a chapter prints changes."""

import nbformat
import pytest

import references
from references import ROOT, chapters, execute, main, reference_of, settled, stored_as

NAMES = [chapter.stem for chapter in chapters()]


@pytest.mark.parametrize("name", NAMES)
def test_stored_references_are_settled(name):
    """As `make references` writes them: ids by content, merged streams, sorted keys."""
    path = references.REFERENCES / f"{name}.ipynb"
    book = nbformat.read(path, as_version=4)
    assert stored_as(settled(book)) == path.read_bytes()
    ids = [cell.id for cell in book.cells]
    assert len(set(ids)) == len(ids)


def test_what_differs_from_run_to_run_is_settled():
    def executed(tag):
        def printed(text):
            return nbformat.v4.new_output("stream", name="stdout", text=text)

        cell = nbformat.v4.new_code_cell("print(1)\nprint(2)", id=f"random-{tag}")
        cell.outputs = [printed("1\n"), printed("2\n")] if tag else [printed("1\n2\n")]
        cell.metadata["execution"] = {"iopub.execute_input": f"2026-01-0{tag + 1}"}
        again = nbformat.v4.new_code_cell("print(1)\nprint(2)")
        book = nbformat.v4.new_notebook(cells=[cell, again])
        book.metadata["language_info"] = {"name": "python", "version": f"3.11.{tag}"}
        return settled(book)

    assert stored_as(executed(0)) == stored_as(executed(1))
    first, second = executed(0).cells
    assert first.id != second.id and [o.text for o in first.outputs] == ["1\n2\n"]


def test_a_chapter_executed_again_is_the_same_file():
    chapter = ROOT / "chapters" / "gate.md"
    assert stored_as(execute(chapter)) == reference_of(chapter).read_bytes()


def test_ctrl_c_says_what_was_stored_and_how_to_go_on(monkeypatch, capsys, tmp_path):
    def interrupted(chapter):
        if chapter.stem == "bsc":
            raise KeyboardInterrupt
        return nbformat.v4.new_notebook()

    monkeypatch.setattr(references, "REFERENCES", tmp_path)
    monkeypatch.setattr(references, "execute", interrupted)
    assert main(["gate", "bsc", "theorem1"]) == 130
    said = capsys.readouterr().err
    assert "stored before that: gate" in said or "stored before that: gate, theorem1" in said
    assert "Go on with: python tests/references.py" in said and "bsc" in said
    assert "gate.ipynb" in [path.name for path in tmp_path.iterdir()]
    assert main(["no_such_chapter"]) == 2
    assert "no chapter ['no_such_chapter']; allowed are" in capsys.readouterr().err
