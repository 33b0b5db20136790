"""Firefox for the tests: what a reader does on pages, one process for all of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from pages import SIZES
from references import ROOT
from support import skip_or_fail

DRIVER = Path(__file__).with_suffix(".mjs")
NPM = ROOT / "chapters" / "_ext"


def visits(plan: list[tuple[str, list[list], str]]) -> list[dict]:
    """What each visit gave, an address with steps at a size: see `firefox.mjs`."""
    firefox = shutil.which("firefox-esr") or shutil.which("firefox")
    if firefox is None:
        skip_or_fail("no Firefox on this machine: install Debian's firefox-esr")
    if not (NPM / "node_modules" / "puppeteer-core").is_dir():
        skip_or_fail("puppeteer-core is missing: `make book` gets it from npm")
    asked = [{"address": to, "size": SIZES[size], "steps": steps} for to, steps, size in plan]
    command = ["node", DRIVER, NPM, firefox]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
