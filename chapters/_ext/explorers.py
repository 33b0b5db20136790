"""Explorers on the page: a still that holds the place, then the script that makes it live; and a
gallery of all of them.

A chapter's output is `<div class="explorer">` with the packed scenes in it. Node.js draws the still
with the module that will draw the live one, so that nothing jumps. Where the book is one file to
print or to carry, the still is all there is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.fileutil import copy_asset

from expertbank.book.palette import style_sheet

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "lib" / "expertbank" / "book" / "explorers"
BUNDLE = SOURCE / "bundle" / "explorer.mjs"
EXPLORER = re.compile(
    r'<div class="explorer" data-name="[^"]*"><script type="application/json">(.*?)</script></div>',
    re.S,
)
NOTE = (
    "<noscript><p>The sliders need JavaScript; this is the picture that they start from."
    "</p></noscript>"
)
# pixels of the drawings: beside each other and below each other
WIDE = 688
NARROW = 358
CARD = 300
PAPER = 640


class Gallery(nodes.General, nodes.Element):
    """Stands where the gallery will be, until every chapter has been read."""


class ExplorerGallery(SphinxDirective):
    """The explorers of all chapters, in the order of the contents: still, caption, link."""

    def run(self):
        # any chapter may change what it shows
        self.env.note_reread()
        return [Gallery()]


def draw(jobs: list[dict]) -> list[str]:
    """The HTML of stills, each of packed scenes at a width."""
    node = shutil.which("node")
    if node is None:
        raise ExtensionError("node is needed to draw the explorers: run `make book`, which gets it")
    command = [node, str(HERE / "stills.mjs"), str(BUNDLE)]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True)
    if done.returncode:
        # Node.js prints the line of the bundle, which is long, before what is wrong
        raise ExtensionError(f"an explorer cannot be drawn: {done.stderr[-1500:]}")
    return json.loads(done.stdout)


def place_explorers(app, pagename, templatename, context, doctree):
    """Give every explorer its still, and the page the script."""
    body = context.get("body", "")
    if 'class="explorer"' not in body:
        return
    # small, and nobody waits for it: in the page itself
    style = f"<style>{style_sheet()}{(SOURCE / 'explorer.css').read_text()}</style>"
    context["metatags"] = context.get("metatags", "") + style
    found = list(EXPLORER.finditer(body))
    printed = app.builder.name in ("singlehtml", "epub")
    widths = [WIDE, NARROW]
    if printed:
        widths = [PAPER if app.builder.name == "singlehtml" else NARROW]
    packed = [json.loads(explorer[1]) for explorer in found]
    # whether live.py brought what the "Any value" button loads
    live = getattr(app, "live_folder", None) is not None
    jobs = [
        {"packed": scenes, "width": width, "plain": printed, "live": live}
        for scenes in packed
        for width in widths
    ]
    drawn = iter(draw(jobs) if jobs else [])

    def with_still(explorer: re.Match) -> str:
        stills = [next(drawn) for _ in widths]
        if printed:
            return f'<div class="explorer">{stills[0]}</div>'
        wide, narrow = stills
        still = (
            f'<div class="explorer-still">{NOTE}<div class="explorer-wide">{wide}</div>'
            f'<div class="explorer-narrow">{narrow}</div></div>'
        )
        return explorer[0].replace("><script", f">{still}<script", 1)

    context["body"] = EXPLORER.sub(with_still, body)
    if found and not printed:
        script = context["pathto"]("_local/explorer.js", resource=True)
        context["body"] += f'<script async src="{script}"></script>'
        context["metatags"] += f'<link rel="preload" as="script" href="{script}">'


def explorers_of(doctree: nodes.document) -> Iterator[str]:
    """The packed scenes of a chapter."""
    for output in doctree.findall(nodes.raw):
        if output.get("format") == "html":
            yield from (found[1] for found in EXPLORER.finditer(output.astext()))


def fill_gallery(app, doctree, docname):
    """Replace the gallery by what the chapters hold."""
    for gallery in list(doctree.findall(Gallery)):
        env = app.env
        chapters = [name for name in _in_order(env) if name != docname]
        found = {name: next(explorers_of(env.get_doctree(name)), None) for name in chapters}
        packed = {name: json.loads(scenes) for name, scenes in found.items() if scenes}
        jobs = [{"packed": one, "width": CARD, "plain": True} for one in packed.values()]
        # a book to print or to carry has each picture in its chapter, and once is enough
        stills = draw(jobs) if app.builder.name == "html" else [""] * len(jobs)
        cards = [
            _card(
                env.titles[name].astext(), app.builder.get_relative_uri(docname, name), one, still
            )
            for (name, one), still in zip(packed.items(), stills)
        ]
        html = f'<div class="explorer-gallery">{"".join(cards)}</div>'
        gallery.replace_self(nodes.raw("", html, format="html"))


def _in_order(env) -> list[str]:
    """The pages of the book in the order of its contents."""
    root = env.config.root_doc
    order = [root]
    for name in order:
        order += [child for child in env.toctree_includes.get(name, []) if child not in order]
    return order


def _card(title: str, address: str, packed: dict, still: str) -> str:
    caption = f'<a href="{address}">{escape(title)}</a> {escape(packed["alt"])}'
    return (
        f'<figure data-name="{packed["name"]}">'
        f'<div class="explorer" aria-hidden="true">{still}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def copy_bundle(app, exception):
    if exception is None and app.builder.format == "html":
        copy_asset(SOURCE / "bundle" / "explorer.js", Path(app.outdir) / "_local")


def setup(app):
    if not BUNDLE.is_file():
        raise ExtensionError(
            f"{BUNDLE} is missing: run `npm ci` and `npm run bundle` in {HERE} (Node.js), "
            "or `make book`, which does"
        )
    # a page has no kernel to ask
    os.environ["EXPERTBANK_STATIC"] = "1"
    app.add_node(Gallery)
    app.add_directive("explorer-gallery", ExplorerGallery)
    app.connect("doctree-resolved", fill_gallery)
    app.connect("html-page-context", place_explorers, priority=950)
    app.connect("build-finished", copy_bundle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
