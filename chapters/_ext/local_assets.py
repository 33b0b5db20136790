"""Put what npm delivered (MathJax, the widget manager) into the site, and widgets onto the pages
that have some.

The files go to `_local/`, not `_static/`: Jupyter Book loads every script of `_static` on every
page, and a widget manager that is loaded twice draws everything twice.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from PIL import Image
from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset

HERE = Path(__file__).parent
NPM = HERE.parents[1] / "node_modules"
MATHJAX = NPM / "mathjax" / "es5"
MANAGER = NPM / "@jupyter-widgets" / "html-manager" / "dist"
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = re.compile(
    r'<script type="application/vnd\.jupyter\.widget-view\+json">(.*?)</script>', re.S
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


def place_widgets(app, pagename, templatename, context, doctree):
    """Give every widget a still of its first frame, which holds its place; add state and manager
    where one is shown."""
    scripts = context.get("script_files", [])
    states = [s for s in scripts if s.attributes.get("type") == STATE]
    context["script_files"] = [s for s in scripts if s not in states]
    bodies = [state.attributes["body"] for state in states]
    # all chapters are one page, but only the first one's scripts arrive here
    if app.builder.name == "singlehtml":
        files = [
            file
            for page in app.env.nb_metadata.values()
            for file in page.get("js_files", {}).values()
        ]
        bodies = [attributes["body"] for _, attributes in files if attributes.get("type") == STATE]
    if not bodies or not VIEW.search(context.get("body", "")):
        return
    models = {key: model for body in bodies for key, model in json.loads(body)["state"].items()}
    note = "<noscript><p>The sliders need JavaScript; this is the picture that they start from.</p></noscript>"

    def with_still(view):
        model_id = json.loads(view[1])["model_id"]
        sliders = sum("Slider" in models[child.removeprefix("IPY_MODEL_")]["model_name"]
                      for child in models[model_id]["state"]["children"])  # fmt: skip
        still = f'<div class="explorer-still">{note}{selected_frame(models, model_id)}</div>'
        return f'<div class="explorer" style="--sliders: {sliders}">{still}{view[0]}</div>'

    local = context["pathto"]("_local", resource=True)
    context["body"] = (
        VIEW.sub(with_still, context["body"])
        + "".join(f'<script type="{STATE}">{body}</script>' for body in bodies)
        + f'<script defer src="{local}/explorer.js"></script>'
        + f'<script defer src="{local}/embed.js" data-jupyter-widgets-cdn-only="{local}/"></script>'
    )


def finish(app, exception):
    """Copy the files that pages ask for, lighten figures, and mend what the theme's templates do
    not let us set."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    for part in ("tex-chtml.js", "output/chtml", "input/tex/extensions", "a11y", "sre"):
        goal = site / "_local" / "mathjax" / part
        copy_asset(MATHJAX / part, goal.parent if goal.suffix else goal)
    for file in (HERE / "explorer.js", MANAGER / "embed.js"):
        copy_asset(file, site / "_local")
    for figure in (site / "_images").glob("*.png"):
        picture = Image.open(figure)
        # as matplotlib writes it; 256 colours look the same and weigh a third
        if picture.mode == "RGBA":
            picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
                figure, optimize=True
            )
    for page in site.rglob("*.html"):
        text = whole = page.read_text()
        for pattern, replacement in MENDED:
            text = pattern.sub(replacement, text)
        if text != whole:
            page.write_text(text)


def setup(app):
    for folder in (MATHJAX, MANAGER):
        if not folder.is_dir():
            raise ExtensionError(
                f"{folder} is missing: run `npm ci` (Node.js), or `make book`, which does"
            )
    # explorers of the book's own build are prerendered, since a page has no kernel
    os.environ["EXPERTBANK_FRAMES"] = "1"
    app.config.mathjax_path = "../_local/mathjax/tex-chtml.js"
    app.connect("html-page-context", place_widgets, priority=950)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
