"""Put what npm delivered (MathJax, the widget manager) into the site, and widgets onto the pages
that have some.

The files go to `_local/`, not `_static/`: Jupyter Book loads every script of `_static` on every
page, and a widget manager that is loaded twice draws everything twice.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset

HERE = Path(__file__).parent
NPM = HERE / "node_modules"
MATHJAX = NPM / "mathjax" / "es5"
MANAGER = NPM / "@jupyter-widgets" / "html-manager" / "dist"
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = re.compile(
    r'<script type="application/vnd\.jupyter\.widget-view\+json">(.*?)</script>', re.S
)
NOTE = (
    "<noscript><p>The sliders need JavaScript; this is the picture that they start from."
    "</p></noscript>"
)

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
    # tables of outputs scroll where they are too wide, and a keyboard must reach what scrolls
    (re.compile(r"<table>"), '<table tabindex="0">'),
    # a list that holds no list items, to a screen reader
    (re.compile(r'<div role="list" class="citation-list">'), '<div class="citation-list">'),
]


def selected_frame(models: dict, model_id: str) -> str:
    """The HTML that a widget shows at first: through boxes, and through stacks by their selected
    child."""
    model = models[model_id.removeprefix("IPY_MODEL_")]
    state = model["state"]
    if model["model_name"] == "HTMLModel":
        return state["value"]
    children = state.get("children", [])
    if model["model_name"] == "StackModel":
        children = children[state["selected_index"] :][:1]
    return "".join(selected_frame(models, child) for child in children)


def states_of_all_chapters(app) -> Iterator[str]:
    """Widget states of the whole book: where all chapters are one page, only the first one's
    scripts arrive there."""
    for page in app.env.nb_metadata.values():
        for _, attributes in page.get("js_files", {}).values():
            if attributes.get("type") == STATE:
                yield attributes["body"]


def place_widgets(app, pagename, templatename, context, doctree):
    """Give every widget a still of its first frame, which holds its place; add state and manager
    where one is shown."""
    scripts = context.get("script_files", [])
    states = [s for s in scripts if s.attributes.get("type") == STATE]
    context["script_files"] = [s for s in scripts if s not in states]
    bodies = [state.attributes["body"] for state in states]
    if app.builder.name == "singlehtml":
        bodies = list(states_of_all_chapters(app))
    if not bodies or not VIEW.search(context.get("body", "")):
        return
    models = {}
    for body in bodies:
        models.update(json.loads(body)["state"])

    def with_still(view):
        model_id = json.loads(view[1])["model_id"]
        children = models[model_id]["state"]["children"]
        kinds = [models[child.removeprefix("IPY_MODEL_")]["model_name"] for child in children]
        sliders = sum("Slider" in kind for kind in kinds)
        still = f'<div class="explorer-still">{NOTE}{selected_frame(models, model_id)}</div>'
        return f'<div class="explorer" style="--sliders: {sliders}">{still}{view[0]}</div>'

    local = context["pathto"]("_local", resource=True)
    parts = [VIEW.sub(with_still, context["body"])]
    parts += [f'<script type="{STATE}">{body}</script>' for body in bodies]
    parts += [
        f'<script defer src="{local}/explorer.js"></script>',
        f'<script defer src="{local}/embed.js" data-jupyter-widgets-cdn-only="{local}/"></script>',
    ]
    context["body"] = "".join(parts)


def copy_scripts(local: Path) -> None:
    """What pages ask for: MathJax in parts, the widget manager and our own script."""
    for part in ("tex-chtml.js", "output/chtml", "input/tex/extensions", "a11y", "sre"):
        goal = local / "mathjax" / part
        copy_asset(MATHJAX / part, goal.parent if goal.suffix else goal)
    for file in (HERE / "explorer.js", MANAGER / "embed.js"):
        copy_asset(file, local)


def lighten(figure: Path) -> None:
    """A figure as matplotlib writes it in 256 colours: it looks the same and weighs a third."""
    picture = Image.open(figure)
    if picture.mode == "RGBA":
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(figure, optimize=True)


def mend(page: Path) -> None:
    """Correct what the theme's templates do not let us set."""
    found = page.read_text()
    text = found
    for pattern, replacement in MENDED:
        text = pattern.sub(replacement, text)
    if text != found:
        page.write_text(text)


def finish(app, exception):
    """Complete the site when its pages are written."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    copy_scripts(site / "_local")
    for figure in (site / "_images").glob("*.png"):
        lighten(figure)
    for page in site.rglob("*.html"):
        mend(page)


def setup(app):
    for folder in (MATHJAX, MANAGER):
        if not folder.is_dir():
            raise ExtensionError(
                f"{folder} is missing: run `npm ci` in {HERE} (Node.js), or `make book`, which does"
            )
    # explorers of the book's own build are prerendered, since a page has no kernel
    os.environ["EXPERTBANK_FRAMES"] = "1"
    app.config.mathjax_path = "../_local/mathjax/tex-chtml.js"
    app.connect("html-page-context", place_widgets, priority=950)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
