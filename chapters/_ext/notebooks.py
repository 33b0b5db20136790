"""Chapters as plain .ipynb files, for download and for Colab, which reads no MyST Markdown.

Numbers of the text are filled in, directives become quotations, references become links to the
published page, and a first cell fetches the library when the notebook runs on Colab. Outputs are
left out: running it is the point.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import jupytext
import nbformat

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


def plain(text: str, values: dict[str, str], page: str) -> str:
    """MyST as Markdown that any notebook shows: `values` by glue key, `page` the address of the
    chapter."""
    book = page.rsplit("/", 1)[0]

    def reference(found):
        role, title, label = found.groups()
        if title is None:
            title = KINDS[role]
        anchor = f"equation-{label}" if role == "eq" else label
        return f"[{title}]({page}#{anchor})"

    def chapter(found):
        title, name = found.groups()
        if not title:
            title = name.replace("_", " ")
        return f"[{title}]({book}/{name}.html)"

    text = FENCE.sub(lambda found: quotation(found, values, page), text)
    text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.M)
    text = re.sub(r"^(\$\$) *\([\w-]+\) *$", r"\1", text, flags=re.M)
    text = re.sub(r"\{glue:text\}`([^`]+)`", lambda found: values[found[1]], text)
    text = re.sub(r"\{cite:\w\}`([^`]+)`", rf"[\1]({book}/references.html)", text)
    text = re.sub(r"\{(numref|eq|ref|prf:ref)\}`(?:([^`<]+) <)?([\w-]+)>?`", reference, text)
    return re.sub(r"\[([^\]]*)\]\((\w+)\.md\)", chapter, text)


def quotation(found: re.Match, values: dict[str, str], page: str) -> str:
    """A directive as a quotation that begins with its kind; solutions stay folded."""
    kind = found["name"].split(":")[-1].capitalize()
    body = plain(re.sub(r"\A(:[\w-]+:.*\n)+", "", found["body"]).strip(), values, page)
    if kind == "Solution":
        return f"<details><summary>Solution</summary>\n\n{body}\n\n</details>"
    head = f"**{kind}**"
    if found["title"]:
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
    install = nbformat.v4.new_code_cell(INSTALL.format(branch=branch, repository=repository))
    return nbformat.v4.new_notebook(
        cells=[install, *book.cells],
        metadata={"kernelspec": book.metadata.kernelspec, "language_info": {"name": "python"}},
    )


def offer(app, pagename, templatename, context, doctree):
    """Replace the notebook to download with ours, and add Colab to the launch buttons."""
    if "ipynb_source" not in context:
        return
    options = app.config.html_theme_options
    page = f"{app.config.html_baseurl}{pagename}.html"
    executed = (Path(app.outdir).parent / "jupyter_execute" / pagename).parent
    book = notebook(
        Path(app.env.doc2path(pagename)),
        executed,
        page,
        options["repository_url"],
        options["repository_branch"],
    )
    nbformat.write(book, Path(app.outdir) / "_sources" / f"{pagename}.ipynb")
    place = options["repository_url"].removeprefix("https://github.com/")
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
    app.connect("html-page-context", offer, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
