"""Chapters as plain .ipynb files, for download and for Colab, which reads no MyST Markdown.

Numbers of the text are filled in, directives become quotations, references become links to the
published page, and a first cell fetches the library when the notebook runs on Colab. Where the book
is built from no known repository, links become their titles and there is no such cell. Outputs are
left out: running it is the point.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import jupytext
import nbformat
from statements import says_its_kind

FENCE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\} *(?P<title>[^\n]*)\n(?P<body>.*?)^(?P=fence) *$",
    re.M | re.S,
)
COLAB = "https://colab.research.google.com/github"
KINDS = {"numref": "figure", "eq": "equation", "ref": "section", "prf:ref": "statement"}
# what runs first on Colab, and does nothing anywhere else
INSTALL = """\
# on Colab: fetch the library with its banks, and what Colab lacks
import os
import sys

if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 --branch {branch} {repository} expertbank
    %pip install --quiet constriction myst-nb reedsolo tabulate
    sys.path.insert(0, os.path.abspath("expertbank/lib"))"""


def link(title: str, address: str) -> str:
    """A link into the published book, or its title where the book has no address."""
    return f"[{title}]({address})" if urlsplit(address).netloc else title


def plain(text: str, values: dict[str, str], page: str) -> str:
    """MyST as Markdown that any notebook shows: `values` by glue key, `page` the address of the
    chapter, its name alone where the book has none."""
    book = page.rpartition("/")[0]

    def reference(found):
        role, title, label = found.groups()
        if title is None:
            title = "table" if label.startswith("tbl-") else KINDS[role]
        anchor = f"equation-{label}" if role == "eq" else label
        return link(title, f"{page}#{anchor}")

    def chapter(found):
        title, name = found.groups()
        if not title:
            title = name.replace("_", " ")
        return link(title, f"{book}/{name}.html")

    def documented(found):
        name = found[1].removeprefix("~")
        # as Sphinx shortens it
        shown = name.rpartition(".")[2] if found[1].startswith("~") else name
        return link(f"`{shown}`", f"{book}/api.html#{name}")

    def citation(found):
        return link(found[1], f"{book}/references.html")

    text = FENCE.sub(lambda found: quotation(found, values, page), text)
    text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.M)
    text = re.sub(r"^(\$\$) *\([\w-]+\) *$", r"\1", text, flags=re.M)
    text = re.sub(r"^(\$\$\n)%[ \t]*(P\d .+)\n", r"\1\\tag{\2}\n", text, flags=re.M)
    text = re.sub(r"\{glue:text\}`([^`]+)`", lambda found: values[found[1]], text)
    text = re.sub(r"\{term\}`([^`<]+?)(?: <[^>]+>)?`", r"\1", text)
    text = re.sub(r"\{func\}`([^`]+)`", documented, text)
    text = re.sub(r"\{cite:\w\}`([^`]+)`", citation, text)
    text = re.sub(r"\{(numref|eq|ref|prf:ref)\}`(?:([^`<]+) <)?([\w-]+)>?`", reference, text)
    return re.sub(r"\[([^\]]*)\]\((\w+)\.md\)", chapter, text)


def quotation(found: re.Match, values: dict[str, str], page: str) -> str:
    """A directive as a quotation that begins with its kind; solutions stay folded."""
    kind = found["name"].split(":")[-1].capitalize()
    body = plain(re.sub(r"\A(:[\w-]+:.*\n)+", "", found["body"]).strip(), values, page)
    if kind == "Solution":
        return f"<details><summary>Solution</summary>\n\n{body}\n\n</details>"
    head = f"**{kind}**"
    if kind == "Admonition" or says_its_kind(found["title"], kind):
        head = f"**{found['title']}**"
    elif found["title"]:
        head += f" ({found['title']})"
    return "\n".join(f"> {line}".rstrip() for line in [head, "", *body.splitlines()])


def notebook(
    source: Path, executed: Path, page: str, repository: str, branch: str
) -> nbformat.NotebookNode:
    """The chapter `source` for Colab; `executed` is the folder in which the build left the values
    of its numbers."""
    left = executed / f"{source.stem}.glue.json"
    glued = json.loads(left.read_text()) if left.exists() else {}
    values = {key: ast.literal_eval(value["data"]["text/plain"]) for key, value in glued.items()}
    book = jupytext.read(source)
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, values, page)
    if repository:
        install = INSTALL.format(branch=branch, repository=repository)
        book.cells.insert(0, nbformat.v4.new_code_cell(install))
    return nbformat.v4.new_notebook(
        cells=book.cells,
        metadata={"kernelspec": book.metadata.kernelspec, "language_info": {"name": "python"}},
    )


def announce(app, pagename, templatename, context, doctree):
    """Tell the theme that there is a notebook to download, also where nothing can be launched."""
    if app.builder.name == "html" and "kernelspec" in app.env.metadata.get(pagename, {}):
        context["ipynb_source"] = f"{pagename}.ipynb"


def offer(app, pagename, templatename, context, doctree):
    """Write the notebook to download, and add Colab to the launch buttons."""
    if "ipynb_source" not in context:
        return
    repository = app.config.own_repository
    page = f"{app.config.html_baseurl}{pagename}.html"
    executed = (Path(app.outdir).parent / "jupyter_execute" / pagename).parent
    book = notebook(
        Path(app.env.doc2path(pagename)),
        executed,
        page,
        repository,
        app.config.html_theme_options["repository_branch"],
    )
    goal = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
    goal.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, goal)
    if urlsplit(repository).netloc != "github.com":
        return
    place = urlsplit(repository).path.strip("/")
    groups = context["header_buttons"]
    launch = next(group for group in groups if group.get("label") == "launch-buttons")
    name = Path(pagename).name
    launch["buttons"].append(
        {
            "type": "link",
            "text": "Colab",
            "tooltip": "Launch on Colab",
            "icon": "_static/images/logo_colab.png",
            "url": f"{COLAB}/{place}/blob/notebooks/{name}.ipynb",
        }
    )


def setup(app):
    app.connect("html-page-context", announce)
    app.connect("html-page-context", offer, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
