"""The Python of the pages, under Node.js: see `live/run.mjs`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from time import perf_counter
from typing import Any

from references import ROOT

RUN = Path(__file__).with_name("live") / "run.mjs"
WORKER = ROOT / "chapters" / "_ext" / "live" / "worker.mjs"


def node(base: Path, **job: Any) -> tuple[str, float]:
    """What a job answers with the files of the folder `base`, as text, and its seconds."""
    command = ["node", RUN, WORKER, f"{base}/"]
    before = perf_counter()
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout, perf_counter() - before
