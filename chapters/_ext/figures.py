"""Figures on the page: SVG in place of pictures, one form for a desk and one for a phone.

A chapter's figure arrives as an SVG file that holds its narrow form in its metadata. Both go into
the page itself, where they take the colours of its theme, and a style sheet shows one of them.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.util.fileutil import copy_asset

from expertbank.book.palette import style_sheet

HERE = Path(__file__).parent
NARROW = re.compile(r"<metadata>(.*?)</metadata>", re.S)
BUTTON = (
    '<button type="button" class="enlarge" aria-label="Enlarge the figure" '
    'title="Enlarge the figure"><span aria-hidden="true">⤢</span></button>'
)


def described(svg: str, alt: str) -> str:
    """A drawing that a screen reader takes as one picture with this text."""
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)


def inline_forms(svg: str, alt: str) -> str:
    """Both forms of a figure and the button that enlarges it, as HTML."""
    narrow = NARROW.search(svg)
    if narrow is None:
        return f'<div class="figure-forms">{described(svg, alt)}</div>'
    forms = [NARROW.sub("", svg), html.unescape(narrow[1])]
    drawn = "".join(described(form, alt) for form in forms)
    return f'<div class="figure-forms">{drawn}{BUTTON}</div>'


class InlineFigures(SphinxTransform):
    """Put the SVG of each output into the page, with the alt text of its cell."""

    default_priority = 410

    def apply(self, **kwargs) -> None:
        for picture in list(self.document.findall(nodes.image)):
            output = picture.parent
            if output.get("mime_type") != "image/svg+xml":
                continue
            file = Path(self.app.srcdir, picture["uri"].lstrip("/"))
            if not file.is_file():
                file = Path(self.document["source"]).parent / picture["uri"]
            forms = inline_forms(file.read_text(encoding="utf-8"), picture.get("alt", ""))
            picture.replace_self(nodes.raw("", forms, format="html"))


def bring_colours(app, pagename, templatename, context, doctree):
    """The palette, on the pages that have a figure."""
    if 'class="figure-forms"' in context.get("body", ""):
        style = f"<style>{style_sheet()}</style>"
        context["metatags"] = context.get("metatags", "") + style


def bring_script(app, pagename, templatename, context, doctree):
    """The script that enlarges, on the pages that have something to enlarge."""
    if app.builder.name == "html" and 'class="enlarge"' in context.get("body", ""):
        local = context["pathto"]("_local", resource=True)
        context["body"] += f'<script defer src="{local}/figures.js"></script>'


def copy_script(app, exception):
    if exception is None and app.builder.name == "html":
        copy_asset(HERE / "figures.js", Path(app.outdir) / "_local")


def setup(app):
    app.add_transform(InlineFigures)
    app.connect("html-page-context", bring_colours, priority=955)
    app.connect("html-page-context", bring_script, priority=955)
    app.connect("build-finished", copy_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
