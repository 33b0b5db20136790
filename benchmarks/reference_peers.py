"""Peers on the reference set: python benchmarks/reference_peers.py (20 minutes)

    python benchmarks/reference_peers.py                    into build/peers
    python benchmarks/reference_peers.py --out data/peers   into what the book ships

The folder holds `peers.json`: `date`, `machine`, `versions`, `seconds` (what a peer may take before
it hands over the best that it has), and `rows`, one for each peer and problem, as the command
`expertbank bench` makes them; it is written anew after every peer, so that a run that was
interrupted goes on there. A finished folder is refused. A peer whose package is missing is left
out, and named in `missing`. One BLAS thread for everybody.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
# before NumPy is loaded, here and in the processes of the solvers
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
os.environ.setdefault("PEER_SECONDS", "2")
sys.path.insert(0, str(HERE))

import folders  # noqa: E402
from solver import machine  # noqa: E402

from expertbank._files import write_atomically  # noqa: E402
from expertbank.shipped.bench import OUR_SOLVER, bench  # noqa: E402

RESULTS = "peers.json"
ABOUT = {
    "title": "Solvers of other papers on the reference set",
    "recipe": "python benchmarks/reference_peers.py",
    "source": "made by this project; CC0 1.0",
}
# what the book calls them; all but the packages are short implementations of ours
PEERS = {
    "ours": OUR_SOLVER,
    "Blahut-Arimoto": "paper_peers:blahut_arimoto",
    "squared extrapolation": "paper_peers:squared_extrapolation",
    "constrained BA": "paper_peers:constrained_blahut_arimoto",
    "CommOT": "paper_peers:communication_transport",
    "root tracking": "paper_peers:root_tracking",
    "generalised BA": "paper_peers:generalised_arimoto",
    "SLSQP": "paper_peers:sequential_quadratic",
    "L-BFGS-B": "paper_peers:quasi_newton",
    "cvxpy + CLARABEL": "paper_peers:clarabel",
    "QICS": "paper_peers:qics",
}
PACKAGES = ("numpy", "scipy", "cvxpy", "clarabel", "qics", "numba")
LIMIT = 30.0


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "peers")
    folder = parser.parse_args().out
    path = folders.begin(folder, RESULTS)
    results = json.loads(path.read_text()) if path.exists() else {"rows": [], "missing": []}
    results["date"] = datetime.date.today().isoformat()
    results["machine"] = machine()
    results["versions"] = versions()
    results["seconds"] = float(os.environ["PEER_SECONDS"])
    done = {row["peer"] for row in results["rows"]} | set(results["missing"])
    for peer, solver in PEERS.items():
        if peer in done:
            continue
        if peer == "QICS" and "qics" not in results["versions"]:
            results["missing"].append(peer)
            continue
        rows = [dict(peer=peer, **asdict(row)) for row in bench(solver, limit=LIMIT)]
        results["rows"] += [{key: kept(value) for key, value in row.items()} for row in rows]
        text = json.dumps(results, indent=1)
        write_atomically(path, lambda file, text=text: file.write(text.encode()))
        print(peer, sum(row["outcome"] == "solved" for row in rows), "of", len(rows), flush=True)
    folders.finish(folder, ABOUT, RESULTS)


def kept(value):
    """A number to three digits, and no NaN, which JSON has not."""
    if isinstance(value, float):
        return None if value != value else float(f"{value:.3g}")
    return value


if __name__ == "__main__":
    main()
