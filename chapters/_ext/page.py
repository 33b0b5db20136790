"""What the theme leaves open on pages: the picture before the parameters, formulas in what the
search shows, and an error page that finds its styles wherever the site is served."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes

# Sphinx quotes a page as text, formulas in TeX: one without a command is readable as it stands
QUOTE_FORMULAS = r"""
addEventListener("DOMContentLoaded", () => {
  const textOf = Search.htmlToText;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    for (const formula of page.querySelectorAll(".math")) {
      const tex = formula.textContent.trim().replace(/^\\[([]|\\[)\]]$/g, "");
      formula.textContent = /[\\^_]/.test(tex) ? "…" : tex;
    }
    return textOf(page.documentElement.outerHTML, anchor);
  };
});
"""
# The error page is served for any address: it is at home below its prefix, or at the root of a
# copy of the site. Links into the page itself are not relative to that.
FIND_HOME = """
const home = document.querySelector("base");
if (!location.pathname.startsWith(home.getAttribute("href"))) home.href = "/";
addEventListener("DOMContentLoaded", () => {
  for (const link of document.querySelectorAll("a[href^='#']")) {
    link.href = location.pathname + link.getAttribute("href");
  }
});
"""


def picture_first(app, doctree):
    """A chapter sets its parameters before it draws; a page shows them, and what to try with them,
    below the picture and the numbers that it opens with."""
    tried = next((node for node in doctree.findall(nodes.paragraph) if _is_hint(node)), None)
    short = next((node for node in doctree.findall(nodes.admonition) if _is_short(node)), None)
    if tried is None or short is None or tried.parent is not short.parent:
        return
    section = tried.parent
    hint = section.index(tried)
    if hint < section.index(short):
        # the parameters, and the imports before them
        first = hint - 2 if "cell" in section[hint - 2].get("classes", []) else hint - 1
        moved = section[first : hint + 1]
        del section[first : hint + 1]
        below = section.index(short) + 1
        section[below:below] = moved


def _is_hint(paragraph: nodes.paragraph) -> bool:
    return paragraph.astext().startswith("Try this:")


def _is_short(box: nodes.admonition) -> bool:
    return box[0].astext() == "In short"


def quote_formulas(app, pagename, templatename, context, doctree):
    """On the page of the search alone."""
    if pagename == "search" and app.builder.name == "html":
        app.add_js_file(None, body=QUOTE_FORMULAS)


def at_home(page: str, prefix: str) -> str:
    """An error page whose addresses begin with `prefix`, as one whose addresses follow its base."""
    page = re.sub(rf'\b(href|src|action)="{re.escape(prefix)}(?!/)', r'\1="', page)
    head = f'<head>\n    <base href="{prefix}" />\n    <script>{FIND_HOME}</script>'
    return page.replace("<head>", head, 1)


def settle_error_page(app, exception):
    error_page = Path(app.outdir) / "404.html"
    if exception is None and app.builder.name == "html" and error_page.is_file():
        text = error_page.read_text()
        if "<base " not in text:
            error_page.write_text(at_home(text, app.config.notfound_urls_prefix))


def visit_citation(self, node):
    """docutils gives an entry a role that is no longer one."""
    start = len(self.body)
    type(self).visit_citation(self, node)
    self.body[start:] = [
        piece.replace(' role="doc-biblioentry"', "") for piece in self.body[start:]
    ]


def depart_citation(self, node):
    type(self).depart_citation(self, node)


def setup(app):
    app.add_node(nodes.citation, override=True, html=(visit_citation, depart_citation))
    app.connect("doctree-read", picture_first)
    app.connect("html-page-context", quote_formulas)
    app.connect("build-finished", settle_error_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
