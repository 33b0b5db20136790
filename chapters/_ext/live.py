"""The library itself in the pages: what their "Any value" button loads, as files of the site.

Nothing of it is loaded before that button is pressed. The files go to `_local/live/KEY/`, where the
key is a hash of all of them: a browser may keep what it has of an address for ever. Modules are
`.mjs`: Jupyter Book loads every `.js` of `_static` on every page. Where no source of the files can
be reached the book is built without the button, and one line says so; in CI that is an error.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import carrier
from sphinx.errors import ExtensionError
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
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


def place_of(folder: Path) -> str:
    """Where the files lie in the site."""
    key = json.loads((folder / "live.json").read_text())["key"]
    return f"{FOLDER}/{key[:16]}"


def point_to_it(app, pagename, templatename, context, doctree):
    """Tell the script of the explorers where the files lie."""
    body = context.get("body", "")
    if app.live_folder is not None and "/explorer.js" in body:
        place = context["pathto"](place_of(app.live_folder), resource=True)
        tag = f'<script async data-live="{place}/" src'
        context["body"] = body.replace("<script async src", tag)


def bring(app, exception):
    """Copy the files into the site."""
    if exception is not None or app.builder.name != "html":
        return
    # those of an earlier build have another key
    shutil.rmtree(Path(app.outdir) / FOLDER, ignore_errors=True)
    if app.live_folder is not None:
        shutil.copytree(app.live_folder, Path(app.outdir) / place_of(app.live_folder))


def setup(app):
    app.connect("builder-inited", prepare)
    app.connect("html-page-context", point_to_it, priority=952)  # after the explorers
    app.connect("build-finished", bring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
