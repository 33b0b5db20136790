"""The built site, for the tests that read or open it: where its pages are, what each must have, a
silent server, and axe-core's findings.
"""

from __future__ import annotations

import re
from http.server import SimpleHTTPRequestHandler

import yaml

from references import ROOT

HTML = ROOT / "_build" / "html"
AXE = ROOT / "chapters" / "_ext" / "node_modules" / "axe-core" / "axe.min.js"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
WITH_EXPLORER = ["alpha_mixture", "bsc", "mnist_bank", "blahut_arimoto", "ladder", "gates", "links"]
LECTURES = [
    "gate",
    "theorem1",
    *WITH_EXPLORER,
    "solver",
    "replicates",
    "estimators",
    "other_learners",
    "audit",
    "theorem2",
    "testbed",
    "your_router",
]


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


def violations(page) -> list[tuple[str, list]]:
    """What axe-core finds, of any impact: rule and first place."""
    assert AXE.is_file(), "run `make book`: it fetches axe-core from npm"
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [(v["id"], v["nodes"][0]["target"]) for v in found]
