"""The library itself in the pages: what their "Any value" button loads, as files of the site.

Nothing of it is loaded before that button is pressed. The files go to `_local/live/`, and modules
are `.mjs`: Jupyter Book loads every `.js` of `_static` on every page. Where a source of them cannot
be reached the book is built without the button, and one line says so; in CI that is an error.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import carrier
from sphinx.errors import ExtensionError
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
WORKER = carrier.HERE / "live" / "worker.mjs"
FOLDER = "_local/live"


def prepare(app):
    """Make the files, or say what is missing."""
    app.live_folder = None
    if app.builder.name != "html":
        return
    try:
        app.live_folder = carrier.build(carrier.ROOT / "build" / "live")
    except carrier.Missing as error:
        if os.environ.get("CI"):
            raise ExtensionError(f"{error}; CI must have it") from error
        LOGGER.info(f"The pages will have no 'Any value' button: {error}", color="yellow")


def point_to_it(app, pagename, templatename, context, doctree):
    """Tell the script of the explorers where the files lie."""
    body = context.get("body", "")
    if app.live_folder is not None and "/explorer.js" in body:
        place = context["pathto"](FOLDER, resource=True)
        tag = f'<script async data-live="{place}/" src'
        context["body"] = body.replace("<script async src", tag)


def bring(app, exception):
    """Copy the files into the site."""
    if exception is None and app.live_folder is not None:
        goal = Path(app.outdir) / FOLDER
        shutil.copytree(app.live_folder, goal, dirs_exist_ok=True)
        shutil.copy(WORKER, goal)


def setup(app):
    app.connect("builder-inited", prepare)
    app.connect("html-page-context", point_to_it, priority=952)  # after the explorers
    app.connect("build-finished", bring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
