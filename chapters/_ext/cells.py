"""The code cells of a chapter, for the button "Run this page here".

A page has the button alone. What it loads when it is pressed, the cells as JSON and the script that
runs them in the worker of `live.py`, lies in `_local/cells/`. It is no module, which a page from
disk may not load.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

import carrier
from docutils import nodes
from myst_nb.core.read import read_myst_markdown_notebook
from notebooks import has_code
from sphinx.errors import ExtensionError

from live import place_of

FOLDER = "_local/cells"
NUMBER = re.compile(r"\{glue:text\}`([^`:]+)")
PACKAGE = re.compile(r"node_modules/((?:@[^/]+/)?[^/]+)/")
BUTTON = """\
<p class="run-page"><button type="button" data-live="{live}/" data-cells="{cells}" hidden>\
Run this page here</button> <span role="status"></span></p><script>(b => {{
  b.hidden = false;
  const words = e => b.nextElementSibling && (b.disabled = false, b.nextElementSibling.textContent =
    `This page cannot run here: ${{e.message}}. Press again to try again.`);
  b.onclick = () => {{
    const s = document.createElement("script");
    s.src = "{script}";
    s.onload = () => expertbankCells.begin(b).catch(words);
    s.onerror = () => words(Error("cells.js could not be loaded"));
    document.head.append(s);
  }};
}})(document.querySelector(".run-page button"))</script>
"""


def listed(app, docname: str, doctree: nodes.document) -> dict:
    """What a page that runs needs to know: `cells`, the code of all; `order`, which of them each
    cell on the page is; `numbers`, the names of those in its text."""
    text = Path(app.env.doc2path(docname)).read_text()
    book = read_myst_markdown_notebook(text, app.env.myst_config)
    code = [i for i, cell in enumerate(book.cells) if cell.cell_type == "code"]
    shown = [
        code.index(node["cell_index"])
        for node in doctree.findall(nodes.container)
        if node.get("nb_element") == "cell_code"
    ]
    cells = [book.cells[i].source for i in code]
    return {"cells": cells, "order": shown, "numbers": NUMBER.findall(text)}


def leave(app, doctree, docname):
    """Write the cells of a page beside the site."""
    if app.builder.name != "html" or app.live_folder is None or not has_code(app.env, docname):
        return
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(listed(app, docname, doctree), ensure_ascii=False)
    (folder / f"{Path(docname).name}.json").write_text(content)


def offer(app, pagename, templatename, context, doctree):
    """Put the button above the first cell of a page, below the numbers that it opens with."""
    body = context.get("body", "")
    if app.builder.name != "html" or app.live_folder is None or not has_code(app.env, pagename):
        return
    opened = max(0, body.find(">In short</p>"))
    first = body.find('<div class="cell ', opened)
    if first < 0:
        return
    place = context["pathto"]
    button = BUTTON.format(
        live=escape(place(place_of(app.live_folder), resource=True)),
        cells=escape(place(f"{FOLDER}/{Path(pagename).name}.json", resource=True)),
        script=place(f"{FOLDER}/cells.js", resource=True),
    )
    context["body"] = body[:first] + button + body[first:]


def bundle(app, exception):
    """Bundle the script that the button loads, and say under which licences its parts stand."""
    if exception is not None or app.builder.name != "html" or app.live_folder is None:
        return
    folder = Path(app.outdir) / FOLDER
    with tempfile.TemporaryDirectory() as notes:
        made_of = Path(notes, "made_of.json")
        command = ["npm", "run", "--silent", "cells", "--prefix", str(carrier.HERE), "--"]
        command += [f"--outfile={folder / 'cells.js'}", f"--metafile={made_of}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            words = f"the script that runs cells cannot be bundled: {done.stderr[-800:]}"
            raise ExtensionError(words)
        parts = json.loads(made_of.read_text())["inputs"]
    (folder / "LICENCES.txt").write_text("\n\n".join(licences(parts)))


def licences(parts: Iterable[str]) -> Iterator[str]:
    """The licences of the packages of npm that files of a bundle come from."""
    for package in sorted({found[1] for part in parts if (found := PACKAGE.search(part))}):
        place = carrier.HERE / "node_modules" / package
        file = next(path for path in sorted(place.iterdir()) if path.name.startswith("LICENSE"))
        yield f"{package}\n{file.read_text()}"


def setup(app):
    # after everything else has put its part into the page
    app.connect("doctree-resolved", leave, priority=900)
    app.connect("html-page-context", offer, priority=953)
    app.connect("build-finished", bundle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
