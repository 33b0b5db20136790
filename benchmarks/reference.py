"""The reference set of distortion-rate problems: make reference-set (about five minutes)

    python benchmarks/reference.py                       into build/reference
    python benchmarks/reference.py --out data/reference  into what is shipped

The folder holds `tables.npz`, `problems.json` and, written last, a manifest that seals both; while
it runs, one file for each problem that is done, so that a run that was interrupted goes on there.
A finished folder is refused.
`expertbank.shipped.reference` says what the fields mean.

Every problem is solved three times, by programs that share nothing but the table: by the library's
Newton method, by CLARABEL's interior points through cvxpy, and by Newton's method in 80 bits from
what CLARABEL found (`polished`), which is where the stored numbers come from. The certificate of
each answer is formed in 80 bits over all experts. Where there is a closed form, mpmath evaluates it
in 50 digits, and it is stored instead. The script stops where two of them differ by more than 1e-9
in Lagrangian, in rate or in distortion; of a problem whose optimal rate and distortion are not
unique, the Lagrangian alone is certified.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from pathlib import Path

import folders
import numpy as np
import peers
import reference_tables
from mpmath import mp

from expertbank import rate_distortion
from expertbank._files import write_atomically
from expertbank.shipped.reference import CERTIFIED_TO, PROBLEMS, TABLES, bank_losses
from expertbank.tables import merge_rows

ROOT = Path(__file__).parents[1]
Long = np.longdouble
ABOUT = {
    "title": "Reference problems of distortion-rate computation with certified answers",
    "recipe": "python benchmarks/reference.py",
    "source": "made by this project; CC0 1.0",
}
# how far two answers may be apart, in units of loss and in nats
AGREEMENT = CERTIFIED_TO
# a share below it is none, where CLARABEL hands over
LEAST_SHARE = 1e-8


# --- in 80 bits ---


class Precise:
    """f, its gradient and what belongs to a marginal, for a table (N, R) at one price, in 80
    bits."""

    def __init__(self, losses, weights, lam):
        self.losses = losses.astype(Long)
        self.weights = weights.astype(Long) / weights.astype(Long).sum()
        self.excess = self.losses - self.losses.min(axis=1, keepdims=True)
        self.lam = Long(lam)
        if lam:
            self.kernel = np.exp(-self.excess / self.lam)
        else:
            self.kernel = (self.excess == 0).astype(Long)

    def gradient(self, x):
        z = (self.kernel * x).sum(axis=1)
        return (self.kernel * (self.weights / z)[:, None]).sum(axis=0), z

    def certificate(self, x):
        x = np.maximum(x.astype(Long), 0)
        x /= x.sum()
        return float(max(np.log(self.gradient(x)[0].max()), Long(0)))

    def answer(self, x):
        """Rate, distortion and Lagrangian of the gate that belongs to a marginal."""
        x = np.maximum(x.astype(Long), 0)
        x /= x.sum()
        g, z = self.gradient(x)
        gate = self.kernel * x / z[:, None]
        distortion = (self.weights[:, None] * gate * self.losses).sum()
        share = x * g
        ratio = np.where(gate > 0, gate / np.where(share > 0, share, 1), 1)
        rate = (self.weights[:, None] * gate * np.log(ratio)).sum()
        return float(rate), float(distortion), float(distortion + self.lam * rate)


def polished(problem, x, steps=60):
    """Newton's method on the experts in use, in 80 bits; an expert whose share turns negative
    leaves, one whose gradient is above 1 comes in."""
    used = x > LEAST_SHARE
    x = np.where(used, x, 0).astype(Long)
    x /= x.sum()
    for _ in range(steps):
        g, z = problem.gradient(x)
        used |= g > 1 + 1e-15
        if abs(g[used] - 1).max() < 1e-17:
            break
        part = problem.kernel[:, used]
        hessian = (part * (problem.weights / z**2)[:, None]).T @ part
        step = precise_solution(hessian, g[used] - 1)
        target = x[used] + step
        share = Long(1)
        if target.min() < 0:
            falling = target < 0
            share = min(share, (x[used][falling] / (x[used] - target)[falling]).min())
        moved = x.copy()
        moved[used] = np.maximum(x[used] + share * step, 0)
        used &= moved > 1e-18
        x = np.where(used, moved, 0)
        x /= x.sum()
    return x


def precise_solution(matrix, right):
    """matrix^-1 right in 80 bits: a pseudo-inverse in 64 and residuals in 80; copies make the
    matrix singular, and any solution will do."""
    inverse = np.linalg.pinv(matrix.astype(float), rcond=1e-13, hermitian=True)
    solution = np.zeros(len(right), Long)
    for _ in range(6):
        solution = solution + inverse @ (right - matrix @ solution).astype(float)
    return solution


# --- one problem, three times ---


def certified(name, entry, losses, weights):
    """The record of a problem: its numbers and who found them."""
    lam = entry["lam"]
    rows, totals, _ = merge_rows(losses, weights)
    problem = Precise(rows, totals, lam)
    clarabel = peers.clarabel(peers.Task(name, rows, rows, totals, 0.0), lam).x if lam else None
    start = np.full(losses.shape[1], 1 / losses.shape[1]) if clarabel is None else clarabel
    if clarabel is None:
        kernel = problem.kernel.astype(float)
        start = peers.blahut_arimoto(kernel, totals, time.perf_counter() + 60, CERTIFIED_TO).x
    newton = rate_distortion(losses, lam, weights, tol=1e-12)
    answers = {"expertbank": newton.marginal, "80-bit Newton": polished(problem, start)}
    if clarabel is not None:
        answers["CLARABEL"] = clarabel
    found = []
    for method, x in answers.items():
        rate, distortion, value = problem.answer(x)
        certificate = problem.certificate(x)
        own = dict(rate=rate, distortion=distortion, lagrangian=value, certificate=certificate)
        found.append(dict(method=method, **own))
    best = min(found, key=lambda row: row["certificate"])
    stored = {key: best[key] for key in ("rate", "distortion", "lagrangian")}
    if "closed" in entry:
        mp.dps = 50
        exact = {key: float(value) for key, value in entry["closed"]().items()}
        stored |= exact
        found.append(dict(method="closed form", **exact))
    check_agreement(name, entry, stored, found, lam)
    record = {key: value for key, value in entry.items() if key not in ("table", "closed")}
    shape = dict(inputs=len(losses), experts=losses.shape[1], distinct_rows=len(rows))
    marginal = [float(share) for share in answers["80-bit Newton"]]
    return dict(
        name=name,
        **record,
        **shape,
        **stored,
        certificate=best["certificate"],
        certified_by=found,
        marginal=marginal,
    )


def check_agreement(name, entry, stored, found, lam):
    """Stop where fewer than two answers are good, or where good ones differ."""
    keys = ("rate", "distortion", "lagrangian") if entry["unique"] else ("lagrangian",)
    good = []
    for row in found:
        off = max(abs(row[key] - stored[key]) for key in keys)
        row["difference"] = off
        if off <= AGREEMENT and row.get("certificate", 0) <= AGREEMENT:
            good.append(row["method"])
    print(f"{name}: {', '.join(good)}; certificates", end=" ")
    print(*(f"{row.get('certificate', 0):.0e}/{row['difference']:.0e}" for row in found))
    if len(good) < 2 or not {"expertbank", "closed form"} & set(good):
        raise SystemExit(f"{name}: two answers do not agree to {AGREEMENT:g}: {found}")


# --- all of them ---


def read_losses(entry):
    if "bank" in entry:
        return bank_losses(entry["bank"])
    return entry["table"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "reference")
    folder = parser.parse_args().out
    problems = folders.begin(folder, PROBLEMS)
    done = folder / "done"
    done.mkdir(exist_ok=True)
    arrays, records = {}, []
    for name, entry in reference_tables.problems().items():
        losses = read_losses(entry)
        weights = entry.pop("weights", None)
        if "bank" not in entry:
            arrays[name] = losses
        if weights is not None:
            arrays[f"{name}.weights"] = weights
        path = done / f"{name}.json"
        if not path.exists():
            shares = np.ones(len(losses)) if weights is None else weights
            record = certified(name, entry, losses.astype(float), shares / shares.sum())
            text = json.dumps(record).encode()
            write_atomically(path, lambda file, text=text: file.write(text))
        records.append(json.loads(path.read_text()))
    write_atomically(folder / TABLES, lambda file: np.savez_compressed(file, **arrays))
    text = json.dumps(
        dict(date=datetime.date.today().isoformat(), tolerance=CERTIFIED_TO, problems=records),
        indent=1,
    )
    write_atomically(problems, lambda file: file.write(text.encode()))
    folders.finish(folder, ABOUT, TABLES, PROBLEMS)
    for path in done.glob("*.json"):
        path.unlink()
    done.rmdir()
    print(f"{len(records)} problems in {folder}")


if __name__ == "__main__":
    main()
