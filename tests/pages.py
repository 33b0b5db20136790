"""The built site, for the tests that read or open it: where its pages are, what each must have, a
silent server, and axe-core's findings.
"""

from __future__ import annotations

import gzip
import re
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import yaml

from expertbank.book.explorers import EXPLORERS
from references import ROOT

HTML = ROOT / "_build" / "html"
# what the buttons "Run this page here" load, a file a page
CELLS = HTML / "_local" / "cells"
AXE = ROOT / "chapters" / "_ext" / "node_modules" / "axe-core" / "axe.min.js"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
# of axe's rules those that the theme has a part in: colours, and the logo, which is another one
OF_THE_THEME = ("color-contrast", "link-in-text-block", "image-alt")
WITH_EXPLORER = list(EXPLORERS)
LECTURES = [
    "gate",
    "theorem1",
    "alpha_mixture",
    "bsc",
    "mnist_bank",
    "blahut_arimoto",
    "solver",
    "replicates",
    "estimators",
    "other_learners",
    "ladder",
    "audit",
    "is_it_mnist",
    "gates",
    "theorem2",
    "links",
    "what_else",
    "testbed",
    "in_network",
    "your_router",
]
# what a server sends as it is, without gzip
PACKED = {".woff", ".woff2", ".png", ".jpg", ".gif", ".zip", ".whl"}


def built_from() -> str:
    """The address of the repository that the site was built from, as its first page states it."""
    first = HTML / f"{TOC['root']}.html"
    text = first.read_text() if first.exists() else ""
    found = re.search(r'<a href="([^"]+)"[^>]*btn-source-repository-button', text)
    return found[1] if found else ""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and prints no line for each."""

    def log_message(self, *args):
        pass


class Packed(Quiet):
    """Sends what GitHub Pages sends: compressed, over connections that stay open, to be kept for
    ten minutes."""

    protocol_version = "HTTP/1.1"
    sent = 0

    def content_of(self, file: Path) -> bytes:
        return file.read_bytes()

    def do_GET(self):
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            return self.send_error(404)
        self.send_response(200)
        content = self.content_of(file)
        if file.suffix not in PACKED:
            content = gzip.compress(content)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", self.guess_type(str(file)))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "max-age=600")
        self.sent = len(content)
        self.end_headers()
        self.wfile.write(content)


def watch(page) -> None:
    """Keep what a page asks for, in `page.asked`, and its errors, in `page.problems`."""
    page.asked, page.problems = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda said: said.type == "error" and page.problems.append(said.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))


def violations(page, *rules: str) -> list[tuple[str, list]]:
    """What axe-core finds by these rules, else by all, of any impact: rule and first place."""
    assert AXE.is_file(), "run `make book`: it fetches axe-core from npm"
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = page.evaluate("options => axe.run(options)", options)["violations"]
    return [(v["id"], v["nodes"][0]["target"]) for v in found]


def turn(page, theme: str) -> None:
    """Show the page in the other theme, as a reader's system does in the evening, until no colour
    is on its way."""
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
    page.wait_for_function(
        "() => document.getAnimations().every(one => one.playState !== 'running')"
    )
