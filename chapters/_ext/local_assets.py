"""Put what npm delivered (MathJax) into the site, and mend what the theme does not let us set.

The files go to `_local/`, not `_static/`: Jupyter Book loads every script of `_static` on every
page.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pydata_sphinx_theme as theme
from fontTools import subset
from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset

HERE = Path(__file__).parent
NPM = HERE / "node_modules"
MATHJAX = NPM / "mathjax"
MATH_FONT = NPM / "@mathjax" / "mathjax-newcm-font"
# makes what pages load, and is not in it
BUNDLER = "esbuild"
# formulas break where a phone is too narrow for them, and screen readers get them as MathML
MATH_SETTINGS = {
    "loader": {"load": ["a11y/assistive-mml"]},
    "output": {
        "displayOverflow": "linebreak",
        "linebreaks": {"inline": True, "width": "100%"},
        "fontPath": "[mathjax]/fonts/%%FONT%%-font",
    },
    "options": {
        "menuOptions": {
            "settings": {
                "speech": False,
                "braille": False,
                "enrich": False,
                "collapsible": False,
                "assistiveMml": True,
            }
        }
    },
}

ICON_FONTS = Path("vendor", "fontawesome", "webfonts")
WITHIN_THEME = Path("theme", "pydata_sphinx_theme", "static") / ICON_FONTS
# how the theme's style gives icons their characters
ICON = re.compile(r'((?:\.fa-[a-z0-9-]+:before,?)+)\{content:"\\([0-9a-f]+)"\}')

MENDED = [
    # the theme draws its icons twice: by a font, and by half a megabyte of script, which the font
    # makes unnecessary
    (re.compile(r"<script[^>]*/fontawesome\.js[^>]*></script>"), ""),
    # names that differ from the text on the button, which speech control listens for
    (
        re.compile(
            r'(<button class="btn search-button-field[^>]*?) title="Search" aria-label="Search"'
        ),
        r"\1",
    ),
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    # a list that holds no list items, to a screen reader
    (re.compile(r'<div role="list" class="citation-list">'), '<div class="citation-list">'),
]


def copy_scripts(local: Path) -> None:
    """The parts of MathJax that pages ask for."""
    for part in ("tex-chtml.js", "input/tex/extensions", "a11y"):
        goal = local / "mathjax" / part
        copy_asset(MATHJAX / part, goal.parent if goal.suffix else goal)
    for part in ("chtml.js", "chtml"):
        goal = local / "mathjax" / "fonts" / MATH_FONT.name / part
        copy_asset(MATH_FONT / part, goal.parent if goal.suffix else goal)


def licences() -> str:
    """The packages of npm that pages load something of, each with its licence."""
    packages = json.loads((HERE / "package-lock.json").read_text())["packages"]
    found = []
    for place, entry in packages.items():
        name = place.rpartition("node_modules/")[2]
        if name not in ("", BUNDLER) and not entry.get("dev") and not entry.get("optional"):
            texts = [path.read_text() for path in sorted((HERE / place).glob("LICENSE*"))]
            found.append("\n\n".join([f"{name} {entry['version']}: {entry['license']}", *texts]))
    return f"\n\n{'-' * 80}\n\n".join(found)


def icons_in_use(site: Path) -> set[int]:
    """The characters of the icons that pages and scripts name, or that styles draw."""
    static = site / "_static"
    sheets = "".join(sheet.read_text() for sheet in static.rglob("*.css"))
    scripts = [script for script in static.rglob("*.js") if script.name != "fontawesome.js"]
    texts = (file.read_text() for file in [*site.rglob("*.html"), *scripts])
    names = {name for text in texts for name in re.findall(r"\bfa-[a-z0-9-]+", text)}
    codes = re.findall(r"\\([ef][0-9a-f]{3})\b", ICON.sub("", sheets))
    for selectors, code in ICON.findall(sheets):
        if names & set(re.findall(r"fa-[a-z0-9-]+", selectors)):
            codes.append(code)
    return {int(code, 16) for code in codes}


def lighten_icons(site: Path) -> None:
    """The theme's icon fonts with the icons of this book, a few of two thousand."""
    options = subset.Options(flavor="woff2")
    wanted = icons_in_use(site)
    for file in (Path(theme.__file__).parent / WITHIN_THEME).glob("*.woff2"):
        font = subset.load_font(file, options)
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=wanted)
        cutter.subset(font)
        subset.save_font(font, site / "_static" / ICON_FONTS / file.name, options)


def mend(page: Path) -> None:
    """Correct what the theme's templates do not let us set."""
    found = page.read_text()
    text = found
    for pattern, replacement in MENDED:
        text = pattern.sub(replacement, text)
    if text != found:
        page.write_text(text)


def search_from_disk(site: Path) -> None:
    """The search quotes the pages that it finds, which a page from disk may not fetch."""
    options = site / "_static" / "documentation_options.js"
    quoted = "SHOW_SEARCH_SUMMARY: true"
    mended = 'SHOW_SEARCH_SUMMARY: location.protocol !== "file:"'
    text = options.read_text().replace(quoted, mended)
    if mended not in text:
        raise ExtensionError(f"{options} no longer says {quoted!r}: local_assets.py must follow")
    options.write_text(text)


def finish(app, exception):
    """Complete the site when its pages are written."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    copy_scripts(site / "_local")
    (site / "_local" / "LICENCES.txt").write_text(licences())
    for page in site.rglob("*.html"):
        mend(page)
    # an e-book has no icons
    if (site / "_static" / ICON_FONTS).is_dir():
        lighten_icons(site)
    if app.builder.search:
        search_from_disk(site)


def setup(app):
    if not MATH_FONT.is_dir():
        raise ExtensionError(
            f"{MATH_FONT} is missing: run `npm ci` in {HERE} (Node.js), or `make book`, which does"
        )
    app.config.mathjax_path = "../_local/mathjax/tex-chtml.js"
    app.config.mathjax3_config = MATH_SETTINGS
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
