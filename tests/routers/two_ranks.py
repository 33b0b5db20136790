"""What two ranks of torch.distributed do over gloo: the tests' own process is rank 0, and rank 1 is
`python two_ranks.py <folder>`."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
import torch
import torch.distributed as ranks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from expertbank.routers.hooks import record_routing
from expertbank.routers.meter import RoutingMeter, all_reduce
from expertbank.routers.statistics import RouterStatistics

TIMEOUT = timedelta(seconds=60)
SIZES = {"n_domains": 2, "n_positions": 16, "n_tokens": tiny_models.VOCABULARY}
STEPS, ROWS = 3, 4
KEPT = (8, 64)
WRAPPERS = ("ddp", "fsdp")


def both(folder: Path) -> None:
    """Run all below on two ranks; what they made is in a folder."""
    words = [sys.executable, __file__, str(folder)]
    other = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        run(0, folder)
        _, said = other.communicate(timeout=TIMEOUT.total_seconds())
    finally:
        other.kill()  # where this one failed, it would wait
    assert other.returncode == 0, said


def run(rank: int, folder: Path) -> None:
    """Meet the other rank, and do all."""
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    ranks.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=TIMEOUT)
    try:
        for n_kept in KEPT:
            summed(rank, folder, n_kept)
        for how in WRAPPERS:
            trained(rank, folder, how)
    finally:
        ranks.destroy_process_group()


def summed(rank: int, folder: Path, n_kept: int) -> None:
    """Statistics of made-up choices, of one layer or two, beside their sum; what is said of ranks
    whose sizes differ."""
    part = RouterStatistics(8, 2, n_domains=2, n_positions=4, n_kept=n_kept)
    rng = np.random.default_rng(rank)
    for layer in ("a", "b") if rank else ("a",):
        chosen = rng.random((40, 8)).argsort(axis=1)[:, :2]
        sequence = np.arange(40) // 4 + 100 * rank
        labels = {"domain": sequence % 2, "sequence": sequence, "position": np.arange(40) % 4}
        part.update(layer, chosen, weights=rng.random((40, 2)), phase=rank, **labels)
        part.heard[layer] = "verified"
    part.save(folder / f"part{n_kept}-{rank}.npz")
    all_reduce(part).save(folder / f"sum{n_kept}-{rank}.npz")
    try:
        all_reduce(RouterStatistics(8, 1 + rank))
    except ValueError as error:
        (folder / f"refused{n_kept}-{rank}").write_text(str(error))


def rows_of(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts (2 * ROWS, 9) of a step over both ranks, and their domains."""
    return tiny_models.tokens(2 * ROWS, seed=step), torch.arange(2 * ROWS) % 2


def train(model: Any, rows: slice) -> tuple[RouterStatistics, RoutingMeter]:
    """Steps on some rows of each batch, heard by a recorder and by a meter at once."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    meter = RoutingMeter(model, n_domains=2)
    with record_routing(model, **SIZES) as recorder, meter:
        for step in range(STEPS):
            ids, domain = (array[rows] for array in rows_of(step))
            model(input_ids=ids, labels=ids, domain=domain).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return recorder.statistics, meter


def trained(rank: int, folder: Path, how: str) -> None:
    """Train a tiny Mixtral on two ranks, each on half of the rows."""
    model = tiny_models.build_family("mixtral").train()
    if how == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(model)
    else:
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    statistics, meter = train(model, slice(rank * ROWS, (rank + 1) * ROWS))
    scalars = meter.collect(is_shared=True)
    all_reduce(statistics).save(folder / f"recorded-{how}{rank}.npz")
    meter.statistics.save(folder / f"metered-{how}{rank}.npz")
    (folder / f"scalars-{how}{rank}.json").write_text(json.dumps(scalars))


if __name__ == "__main__":
    run(1, Path(sys.argv[1]))
