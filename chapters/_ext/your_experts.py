"""The page *Your own experts*: frames in the page, which a script fills with what the library says
of a reader's own table and of the choices of a reader's own router.

The script asks the worker of `live.py`. Where that could not be brought, one sentence says what is
missing in place of the frames.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import carrier
from docutils import nodes
from explorers import SOURCE
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from expertbank.book.palette import style_sheet
from live import place_of

SCRIPT = "_local/your_experts.js"
STYLE = carrier.HERE / "live" / "your_experts.css"
ESBUILD = carrier.HERE / "node_modules" / ".bin" / "esbuild"
NEWS = """\
<div class="your-news"><progress data-part="progress" aria-label="progress" hidden></progress>
<p role="status" data-part="status"></p><span aria-hidden="true" data-part="clock"></span>
<button type="button" data-part="cancel" hidden>Cancel</button></div>
<noscript><p>This page computes in your browser, and needs JavaScript for that.</p></noscript>
"""
TABLE = """\
<div class="your-experts" data-part="table" data-stage="ready">
<div class="your-drop">
<p><label>Choose a table, or drop it here: .npy, .npz or .csv
<input type="file" accept=".npy,.npz,.csv" data-part="file"></label></p>
<p><button type="button" data-part="example">Take the example</button></p>
<details><summary>Paste a table</summary>
<label>Numbers separated by commas, a line an input
<textarea rows="5" spellcheck="false" data-part="text">0,1,1
1,0,1
1,1,0
0,0,1</textarea></label>
<button type="button" data-part="paste">Take these numbers</button></details>
</div>
{news}
<div data-part="result" hidden>
<p><strong data-part="name"></strong></p>
<ul data-part="facts"></ul>
<div data-part="pictures"></div>
<form data-part="ask-bounds">
<label>&alpha; <input type="number" min="0" max="1" step="any" value="1" required \
data-part="alpha"></label>
<label>samples m <input type="number" min="1" max="10000" step="1" value="256" required \
data-part="size"></label>
<button type="submit">Compute every bound</button></form>
<p data-part="selection"></p>
<div data-part="bounds"></div>
<p class="your-files"><button type="button" data-part="json">All numbers, JSON</button>
<button type="button" data-part="csv">Curve, csv</button>
<button type="button" data-part="curve-svg">Curve, SVG</button>
<button type="button" data-part="selection-svg">Selection, SVG</button></p>
</div></div>
"""
ROUTER = """\
<div class="your-experts" data-part="router" data-stage="ready">
<div class="your-drop">
<p><label>Choose what a router chose, or drop it here: .npz, .json, .jsonl
<input type="file" data-part="routes"></label></p>
<p><label>experts, if the file does not say
<input type="number" min="1" step="1" data-part="n-experts"></label>
<label>experts that a token takes, if the file does not say
<input type="number" min="1" step="1" data-part="n-chosen"></label></p>
</div>
{news}
<div data-part="router-result" hidden>
<pre tabindex="0" role="region" aria-label="Report on the router" data-part="report"></pre>
<p class="your-files"><button type="button" data-part="router-json">Report, JSON</button></p>
</div></div>
"""
FRAMES = {"table": TABLE, "router": ROUTER}
MISSING = (
    "<p><strong>This copy of the book holds no Python for the browser</strong>, so this part of "
    "the page cannot compute. It needs NumPy and SciPy for Pyodide, which <code>make book</code> "
    "gets from PyPI or from the folder <code>EXPERTBANK_WHEELS</code>. <code>expertbank</code> in "
    "a shell, as shown on this page, needs neither.</p>"
)


class Frame(nodes.General, nodes.Element):
    """Stands where a frame will be."""


class YourExperts(SphinxDirective):
    """The frame for a `table` or for a `router`."""

    required_arguments = 1

    def run(self):
        [what] = self.arguments
        if what not in FRAMES:
            raise self.error(f"{what!r} is no part of the page; allowed are {', '.join(FRAMES)}")
        return [Frame(what=what)]


def fill_frames(app, doctree, docname):
    """Put the frames of a page in their places, or what is missing."""
    for frame in list(doctree.findall(Frame)):
        html = FRAMES[frame["what"]].format(news=NEWS)
        if app.live_folder is None:
            html = MISSING
        frame.replace_self(nodes.raw("", html, format="html"))


def point_to_script(app, pagename, templatename, context, doctree):
    """Give the page its script and style, and the script the place of the library."""
    if 'class="your-experts"' not in context.get("body", ""):
        return
    place = context["pathto"]
    style = f"{style_sheet()}{(SOURCE / 'explorer.css').read_text()}{STYLE.read_text()}"
    context["metatags"] = context.get("metatags", "") + f"<style>{style}</style>"
    script = place(SCRIPT, resource=True)
    live = place(place_of(app.live_folder), resource=True)
    context["body"] += f'<script defer data-live="{live}/" src="{script}"></script>'


def bundle(app, exception):
    """Bundle the script with what draws explorers."""
    if exception is not None or app.live_folder is None:
        return
    command = [ESBUILD, carrier.HERE / "live" / "your_experts.js", "--bundle", "--minify"]
    command += ["--format=iife", "--log-level=warning", f"--outfile={Path(app.outdir) / SCRIPT}"]
    found = os.environ | {"NODE_PATH": str(carrier.HERE / "node_modules")}
    done = subprocess.run(command, env=found, capture_output=True, text=True)
    if done.returncode:
        raise ExtensionError(f"your_experts.js cannot be bundled: {done.stderr[-800:]}")


def setup(app):
    app.add_directive("your-experts", YourExperts)
    app.add_node(Frame)
    app.connect("doctree-resolved", fill_frames)
    app.connect("html-page-context", point_to_script, priority=952)
    app.connect("build-finished", bundle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
