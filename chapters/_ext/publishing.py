"""Where the book is published and what it looks like from outside: addresses, logo, cards, robots,
how to cite.

The address of the repository stands once, in `_config.yml`; everything that needs one derives it
from there.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import yaml
from docutils import nodes
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from myst_nb.sphinx_ext import add_global_html_resources as copy_notebook_style
from sphinx.util.docutils import SphinxDirective
from sphinx_exercise import copy_asset_files as copy_exercise_style
from sphinx_proof import copy_asset_files as copy_proof_style

from expertbank.channels import bsc_distortion_rate

ROOT = Path(__file__).parents[2]


def pages_address(repository: str) -> str:
    """Where GitHub Pages serves a repository."""
    owner, name = urlsplit(repository).path.strip("/").split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def draw_logo(folder: Path) -> None:
    """The distortion-rate curve of a binary symmetric channel with three gates on it, as logo.svg
    and logo.png."""
    rates = np.log(2) * np.linspace(0, 1, 33)
    losses = np.array([float(bsc_distortion_rate(rate)) for rate in rates])
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.17, 0.86), ylim=(-0.13, 0.62))
    axes.set_axis_off()
    tile = FancyBboxPatch(
        (0.18, 0.18), 0.64, 0.64, "round,pad=0.18", transform=axes.transAxes, color="#0b3c5d", lw=0
    )
    axes.add_patch(tile)
    axes.plot(rates, losses, color="white", linewidth=4.5, solid_capstyle="round")
    axes.plot(rates[3:32:11], losses[3:32:11], "o", color="#f0a030", markersize=11)
    figure.savefig(folder / "logo.png", dpi=300, transparent=True)
    with rc_context({"svg.hashsalt": "logo"}):
        figure.savefig(folder / "logo.svg", transparent=True, metadata={"Date": None})


def bibtex(citation: dict, repository: str) -> str:
    """BibTeX entries of what CITATION.cff describes: the book first, then the papers."""

    def entry(kind, key, **fields):
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join([f"@{kind}{{{key},", *lines, "}"])

    def people(work):
        return " and ".join(
            f"{a['family-names']}, {a['given-names']}"
            if "family-names" in a
            else f"{{{a['name']}}}"
            for a in work["authors"]
        )

    year = str(citation["date-released"])[:4]
    entries = [
        entry("software", "expertbank", author=people(citation), title=f"{{{citation['title']}}}", year=year,
              version=citation["version"], url=repository)
    ]  # fmt: skip
    for work in citation["references"]:
        key = re.sub(r"\W", "", work["authors"][0]["family-names"]).lower() + str(work["year"])
        arxiv = next(
            i["value"].removeprefix("arXiv:") for i in work["identifiers"] if "arXiv" in i["value"]
        )
        entries.append(
            entry("article" if "journal" in work else "misc", key, author=people(work), title=f"{{{work['title']}}}",
                  journal=work.get("journal"), year=work["year"], eprint=arxiv, archiveprefix="arXiv")
        )  # fmt: skip
    return "\n\n".join(entries)


class CiteThis(SphinxDirective):
    """The BibTeX entries of CITATION.cff as a block that can be copied."""

    def run(self):
        self.env.note_dependency(str(ROOT / "CITATION.cff"))
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
        text = bibtex(citation, self.config.html_theme_options["repository_url"])
        return [nodes.literal_block(text, text, language="bibtex")]


def derive(app, config):
    """Fill in what follows from the repository's address, and draw the logo."""
    base = config.html_baseurl or pages_address(config.html_theme_options["repository_url"])
    config.html_baseurl = config.ogp_site_url = base
    config.project = config.ogp_site_name = config.html_title
    config.notfound_urls_prefix = urlsplit(base).path
    config.version = config.release = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    folder = Path(app.outdir).parent / "drawn"
    folder.mkdir(parents=True, exist_ok=True)
    draw_logo(folder)
    config.html_logo = config.html_favicon = str(folder / "logo.svg")
    config.ogp_social_cards = {"image": str(folder / "logo.png"), "line_color": "#f0a030"}


def bind_in_one(app):
    """Where the whole book is one file (PDF, e-book) nobody presses buttons, and every node is
    drawn as on a page."""
    if app.builder.name in ("singlehtml", "epub"):
        app.config.html_theme_options["launch_buttons"] = {}
        # no page leads to the list of modules, and its button wants a picture
        app.config.html_domain_indices = []
        # the first chapter alone would decide whether MathJax is needed
        app.set_html_assets_policy("always")
        # sphinx-exercise names these builders, so Sphinx would forget who else draws HTML
        drawn = app.registry.translation_handlers
        drawn[app.builder.name] = drawn["html"] | drawn.get(app.builder.name, {})


def bring_styles(app):
    """Extensions bring the styles of their boxes when a build is over, but an e-book has been
    packed by then."""
    if app.builder.name == "epub":
        for bring in (copy_proof_style, copy_exercise_style, copy_notebook_style):
            bring(app, None)


def keep_still(app, pagename, templatename, context, doctree):
    """Print moves nothing: of an explorer the first frame stays."""
    if app.builder.name in ("singlehtml", "epub") and "body" in context:
        body = re.sub(r"<script\b.*?</script>", "", context["body"], flags=re.S)
        # an e-book is XML
        context["body"] = re.sub(r"<(img|br|hr)\b([^>]*[^>/])?>", r"<\1\2/>", body)


def invite_robots(app, exception):
    if exception is None and app.builder.name == "html":
        text = f"User-agent: *\nAllow: /\nSitemap: {app.config.html_baseurl}sitemap.xml\n"
        (Path(app.outdir) / "robots.txt").write_text(text)


def setup(app):
    app.add_directive("cite-this", CiteThis)
    app.connect("config-inited", derive, priority=100)
    app.connect("builder-inited", bind_in_one)
    app.connect("builder-inited", bring_styles)
    app.connect("html-page-context", keep_still, priority=960)
    app.connect("build-finished", invite_robots)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
