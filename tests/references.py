"""Execute every chapter and store it with its text outputs as tests/references/NAME.ipynb, for
nbval to compare with.

Where nothing changed the file does not change either: a cell's id comes from what it holds, what
one cell prints stands in one piece, and no version or time is noted. A file is replaced at once.

With --check nothing is stored: each chapter prints one line of JSON on how many outputs differ
from the stored ones, which `make reproduce` reads.

A notebook fresh from its Markdown source holds no outputs, so comparing with that would prove
nothing. Images and widget states are left out: they differ between machines, and the browser tests
look at them.
"""

from __future__ import annotations

import argparse
import configparser
import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from expertbank._files import write_atomically

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
    return settled(book)


def settled(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The executed notebook without what differs from one execution to the next."""
    book, _ = CoalesceStreamsPreprocessor().preprocess(book, {})
    seen = Counter()
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        held = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:8]
        seen[held] += 1
        cell.id = held if seen[held] == 1 else f"{held}-{seen[held]}"
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in [kind for kind in data if kind.startswith(LEFT_OUT)]:
                del data[kind]
    book.metadata.pop("widgets", None)
    book.metadata.get("language_info", {}).pop("version", None)
    return book


def stored_as(book: nbformat.NotebookNode) -> bytes:
    """What its file holds: keys are sorted, lines end in a newline."""
    return (nbformat.writes(book) + "\n").encode()


def reference_of(chapter: Path) -> Path:
    """Where the outputs of a chapter are stored."""
    return REFERENCES / f"{chapter.stem}.ipynb"


def store(chapter: Path, book: nbformat.NotebookNode) -> None:
    """Put an executed notebook in the place of the stored one."""
    content = stored_as(book)
    write_atomically(reference_of(chapter), lambda file: file.write(content))


NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?|(?<![\w.])-?\.\d+")


def check(chapter: Path, book: nbformat.NotebookNode) -> dict:
    """How many outputs of a chapter there are, how many are not as stored, how many of these only
    in numbers that differ by one in the last digit printed, and the first that is none of this."""
    stored = nbformat.read(reference_of(chapter), as_version=4)
    pairs = list(zip(_outputs(stored), _outputs(book), strict=True))
    apart = [(was, now) for was, now in pairs if was != now]
    other = [pair for pair in apart if not _differ_in_rounding(*pair)]
    found = {"chapter": chapter.stem, "outputs": len(pairs)}
    found |= {"differing": len(apart), "rounding": len(apart) - len(other)}
    return found | {"first": _first_lines(*other[0]) if other else ""}


def _outputs(book: nbformat.NotebookNode) -> list[str]:
    """What each cell prints, as nbval compares it."""
    rules = configparser.ConfigParser()
    rules.read(ROOT / "tests" / "sanitize.cfg")
    compared = []
    for cell in book.cells:
        if cell.cell_type != "code" or "nbval-ignore-output" in cell.metadata.get("tags", []):
            continue
        texts = []
        for output in cell.outputs:
            forms = sorted(output.get("data", {}).items())  # as a file holds them
            texts += [output.get("text", ""), *(str(form) for _, form in forms)]
        text = "\n".join(texts)
        for rule in map(rules.__getitem__, rules.sections()):
            text = re.sub(rule["regex"], rule["replace"], text)
        compared.append(text)
    return compared


def _differ_in_rounding(was: str, now: str) -> bool:
    if NUMBER.sub("#", was) != NUMBER.sub("#", now):
        return False
    return all(
        abs(float(one.replace(",", "")) - float(other.replace(",", ""))) <= 1.01 * _last_digit(one)
        for one, other in zip(NUMBER.findall(was), NUMBER.findall(now), strict=True)
    )


def _last_digit(number: str) -> float:
    """What one in the last digit is worth, as in 0.01 of 1.25."""
    digits, _, power = number.partition("e")
    return 10.0 ** (int(power) if power else 0) / 10.0 ** len(digits.partition(".")[2])


def _first_lines(was: str, now: str) -> str:
    for one, other in zip(was.splitlines(), now.splitlines(), strict=False):
        if one != other:
            return f"{one.strip()[:70]!r} is now {other.strip()[:70]!r}"
    return f"{len(was.splitlines())} lines are now {len(now.splitlines())}"


def main(arguments: list[str]) -> int:
    """Store or check the chapters of these names, or all; 2 where one is not there, 130 after
    Ctrl-C."""
    parser = argparse.ArgumentParser(description="execute chapters and store what they print")
    parser.add_argument("wanted", nargs="*", metavar="NAME", help="default: every chapter")
    parser.add_argument("--check", action="store_true", help="compare, and store nothing")
    options = parser.parse_args(arguments)
    wanted = options.wanted
    named = {chapter.stem: chapter for chapter in chapters()}
    unknown = sorted(set(wanted) - set(named))
    if unknown:
        print(f"no chapter {unknown}; allowed are {sorted(named)}", file=sys.stderr)
        return 2
    REFERENCES.mkdir(exist_ok=True)
    todo = [chapter for name, chapter in named.items() if not wanted or name in wanted]
    done = []
    try:
        for chapter in todo:
            if options.check:
                print(json.dumps(check(chapter, execute(chapter))), flush=True)
                continue
            print(chapter.stem, flush=True)
            store(chapter, execute(chapter))
            done.append(chapter.stem)
    except KeyboardInterrupt:
        kept = f"stored before that: {', '.join(done)}" if done else "nothing was changed"
        left = " ".join(chapter.stem for chapter in todo[len(done) :])
        sentence = f"interrupted; {kept}. Go on with: python tests/references.py {left}"
        print(sentence, file=sys.stderr)
        return 130
    if options.check:
        return 0
    for stale in set(REFERENCES.glob("*.ipynb")) - set(map(reference_of, named.values())):
        stale.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
