"""Where the book is published and what it looks like from outside: addresses, cards, robots, how
to cite.

The address of the repository is where the book is built (`address.py`). Where that is not known,
whatever would lead there is left out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import resvg_py
import yaml
from address import install_line, pages_address, repository_address
from docutils import nodes
from myst_nb.sphinx_ext import add_global_html_resources as copy_notebook_style
from sphinx.util.docutils import SphinxDirective
from sphinx_exercise import copy_asset_files as copy_exercise_style
from sphinx_proof import copy_asset_files as copy_proof_style

ROOT = Path(__file__).parents[2]
# hosts whose repositories Binder opens, with the icon of the link to them
ICONS = {"github.com": "fab fa-github", "gitlab.com": "fab fa-gitlab"}


def card_picture(logo: Path, folder: Path) -> Path:
    """The logo as a bitmap, which is what the cards of social media can take."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "logo.png"
    picture.write_bytes(resvg_py.svg_to_bytes(svg_path=str(logo), width=300))
    return picture


def bibtex_entry(kind: str, key: str, **fields) -> str:
    """One entry; fields without a value are left out."""
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def bibtex_author(author: dict) -> str:
    """A person as BibTeX sorts them, or a group in braces, which are kept together."""
    if "family-names" in author:
        return f"{author['family-names']}, {author['given-names']}"
    if author["name"] == "others":  # BibTeX's own word for et al.
        return "others"
    return f"{{{author['name']}}}"


def bibtex_authors(work: dict) -> str:
    return " and ".join(bibtex_author(author) for author in work["authors"])


def arxiv_number(work: dict) -> str:
    identifiers = [identifier["value"] for identifier in work["identifiers"]]
    return next(value.removeprefix("arXiv:") for value in identifiers if "arXiv" in value)


def bibtex(citation: dict, repository: str) -> str:
    """BibTeX entries of what CITATION.cff describes: the book first, then the papers."""
    book = bibtex_entry(
        "software",
        "expertbank",
        author=bibtex_authors(citation),
        title=f"{{{citation['title']}}}",
        year=str(citation["date-released"])[:4],
        version=citation["version"],
        url=repository,
    )
    entries = [book]
    for work in citation["references"]:
        first_author = re.sub(r"\W", "", work["authors"][0]["family-names"]).lower()
        paper = bibtex_entry(
            "article" if "journal" in work else "misc",
            f"{first_author}{work['year']}",
            author=bibtex_authors(work),
            title=f"{{{work['title']}}}",
            journal=work.get("journal"),
            year=work["year"],
            eprint=arxiv_number(work),
            archiveprefix="arXiv",
        )
        entries.append(paper)
    return "\n\n".join(entries)


class CiteThis(SphinxDirective):
    """The BibTeX entries of CITATION.cff as a block that can be copied."""

    def run(self):
        self.env.note_dependency(str(ROOT / "CITATION.cff"))
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
        text = bibtex(citation, self.config.own_repository)
        return [nodes.literal_block(text, text, language="bibtex")]


def derive(app, config):
    """Fill in what follows from where the book is built, from CITATION.cff and from the logo."""
    options = config.html_theme_options
    repository = repository_address(
        options.pop("repository_url", ""), os.environ, Path(app.confdir)
    )
    config.own_repository = repository
    if urlsplit(repository).netloc in ICONS:
        options["repository_url"] = repository
    else:
        options["launch_buttons"] = {}
    base = config.html_baseurl or pages_address(repository)
    config.html_baseurl = base
    config.ogp_site_url = base
    config.notfound_urls_prefix = urlsplit(base).path or "/"
    config.project = config.html_title
    config.ogp_site_name = config.html_title
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    config.version = citation["version"]
    config.release = citation["version"]
    if base:
        folder = Path(app.outdir).parent / "drawn"
        picture = card_picture(Path(app.confdir) / config.html_logo, folder)
        config.ogp_social_cards = {"image": str(picture), "line_color": "#f0a030"}
    else:  # a sitemap and a card need whole addresses
        config.ogp_social_cards = {"enable": False}
        config.suppress_warnings.append("sitemap.configuration")


def without_address(app, pagename, templatename, context, doctree):
    """Where the site's own address is not known, no page states one."""
    if "metatags" in context and not app.config.html_baseurl:
        context["metatags"] = re.sub(r'<meta property="og:url"[^>]*>\n?', "", context["metatags"])


def link_repository(app, pagename, templatename, context, doctree):
    """A link to the repository in the header of every page."""
    repository = app.config.own_repository
    if repository and app.builder.name == "html":
        button = {
            "type": "link",
            "url": repository,
            "tooltip": "Source repository",
            "text": '<span class="visually-hidden">Source repository</span>',
            "icon": ICONS.get(urlsplit(repository).netloc, "fas fa-code-branch"),
            "label": "source-repository-button",
        }
        context["header_buttons"].append(button)


def say_where_the_code_is(app, doctree, docname):
    """A box of the class `install` begins with the repository and the line that installs from it;
    in JupyterLab, which knows neither, it says what to do in a checkout. One of the class `launch`
    speaks of the launch buttons, and goes where they are left out."""
    repository = app.config.own_repository
    for box in list(doctree.findall(nodes.Admonition)):
        if "launch" in box["classes"] and not app.config.html_theme_options["launch_buttons"]:
            box.parent.remove(box)
        if "install" in box["classes"] and repository:
            link = nodes.reference("", repository, refuri=repository, internal=False)
            line = install_line(repository)
            first = nodes.paragraph("", "", nodes.Text("The code lives at "), link, nodes.Text(":"))
            # after the title
            box.insert(1, [first, nodes.literal_block(line, line, language="sh")])


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
    """Print moves nothing, so its pages hold no script; of an explorer the still is there."""
    if app.builder.name in ("singlehtml", "epub") and "body" in context:
        body = re.sub(r"<script\b.*?</script>", "", context["body"], flags=re.S)
        # an e-book is XML
        context["body"] = re.sub(r"<(img|br|hr)\b([^>]*[^>/])?>", r"<\1\2/>", body)


def invite_robots(app, exception):
    if exception is None and app.builder.name == "html":
        text = "User-agent: *\nAllow: /\n"
        if app.config.html_baseurl:
            text += f"Sitemap: {app.config.html_baseurl}sitemap.xml\n"
        (Path(app.outdir) / "robots.txt").write_text(text)


def setup(app):
    # a page reads it, so another address means that pages are read again
    app.add_config_value("own_repository", "", "env", str)
    app.add_directive("cite-this", CiteThis)
    app.connect("config-inited", derive, priority=100)
    app.connect("builder-inited", bind_in_one)
    app.connect("builder-inited", bring_styles)
    app.connect("doctree-resolved", say_where_the_code_is)
    app.connect("html-page-context", link_repository, priority=590)
    app.connect("html-page-context", without_address, priority=600)
    app.connect("html-page-context", keep_still, priority=960)
    app.connect("build-finished", invite_robots)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
