"""Watch the routers of a training run: sums where the model is, a small transfer every few steps.

A recorder looks at every token. A meter keeps, of each forward and layer, the slots of each row and
expert and the sum of the probabilities, on the device; `collect` moves them all at once.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from expertbank.routers._calls import one_a_token
from expertbank.routers._kept import keep_lowest
from expertbank.routers.families import Choice, Listener
from expertbank.routers.hooks import RoutingRecorder, record_routing
from expertbank.routers.measures import balance_loss, max_violation
from expertbank.routers.nulls import domain_null
from expertbank.routers.statistics import (
    Layer,
    LayerStatistics,
    RouterStatistics,
)

N_RELABELLINGS = 99  # behind the excess of I(D;T) of a window


class RoutingMeter:
    """Sums of the routing of a model, on its device: `with RoutingMeter(model) as meter:` listens,
    `meter.collect()` adds what came since the last call to `meter.statistics`.

    The statistics hold loads, domains, sequences (a row is one) and mean probabilities; weights,
    sets, positions, tokens and phases are a recorder's. `n_domains` makes room for the labels
    `domain=` of forwards, one a row. Raises ValueError as `record_routing` does.

    >>> import torch
    >>> class Experts(torch.nn.Module):
    ...     num_experts, top_k = 4, 2
    ...     def forward(self, hidden, top_k_index, top_k_weights):
    ...         return hidden
    >>> class Model(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.experts = Experts()
    ...     def forward(self, input_ids):
    ...         first = input_ids.flatten() % 4
    ...         chosen = torch.stack([first, (first + 1) % 4], dim=1)
    ...         return self.experts(torch.zeros(len(first), 8), chosen, torch.ones(chosen.shape))
    >>> model = Model()
    >>> with RoutingMeter(model) as meter:
    ...     out = model(torch.tensor([[0, 1], [0, 0]]))
    >>> meter.collect()["max_violation_p50"]
    1.0
    >>> meter.statistics.layers["experts"].slots.tolist()
    [3, 4, 1, 0]
    """

    def __init__(self, model: Any, *, n_domains: int = 0, seed: int = 0, **options: Any):
        recorder = record_routing(model, n_domains=n_domains, seed=seed, **options)
        self._sums = _Sums(model, recorder.statistics, list(recorder.listeners))
        self.statistics = RouterStatistics(**recorder.statistics.configuration)
        """all that was collected"""

    def __enter__(self) -> RoutingMeter:
        self._sums.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._sums.__exit__(*error)

    def collect(self, is_shared: bool = False) -> dict[str, float]:
        """Move the sums of all forwards since the last call here, add them to `statistics`, and
        return the scalars of that window, {} where it is empty. `is_shared`: over all ranks of
        torch.distributed, each of which must call it; a step is then that of all ranks together.

        dead               experts that served no slot, summed over layers
        max_violation_p50  MaxVio of a step, quantiles over steps and layers; and max_violation_p95
        balance_loss       the largest of a layer
        domain_excess      the largest of a layer: I(D;T) above the mean of its null, nats
        """
        window = RouterStatistics(**self.statistics.configuration)
        loads = self._sums.move_to(window)
        if is_shared:
            window = all_reduce(window)
            loads = _loads_of_all(loads, window.n_experts)
        self.statistics = self.statistics.merge(window)
        return _scalars(window, [max_violation(load) for load in loads if load.any()])


class _Sums(RoutingRecorder):
    """A recorder that keeps sums on the device in place of arrays of tokens."""

    def __init__(self, model: Any, statistics: RouterStatistics, listeners: list[Listener]):
        super().__init__(model, statistics, listeners)
        self._steps: list[tuple[Layer, np.ndarray, Any, Any]] = []

    def _keep(self, running: Any, listener: Listener, choice: Choice) -> None:
        """Keep the sums of a call: of each row (E,) slots, tokens, and (E,) probabilities."""
        call = self._call_around(running, listener, len(choice.chosen))
        rows, length = call.shape
        n_experts = self.statistics.n_experts
        chosen = choice.chosen.reshape(rows, -1)
        is_kept = chosen >= 0
        mask = call.mask_here()
        if mask is not None:
            mask = (mask > 0).to(chosen.device)
            is_kept = is_kept & mask.repeat_interleave(chosen.shape[1] // length, dim=1)
        slots = chosen.new_zeros(rows, n_experts).scatter_add_(
            1, chosen.clamp(min=0), is_kept.to(chosen.dtype)
        )
        n_tokens = slots.new_full((1,), rows * length) if mask is None else mask.sum().view(1)
        probabilities = choice.probabilities
        if probabilities is None:
            parts = [slots.flatten(), n_tokens]
        else:
            probabilities = probabilities.float()
            if mask is not None:
                probabilities = probabilities * mask.reshape(-1, 1)
            parts = [slots.flatten(), n_tokens, probabilities.sum(dim=0)]
        running.choices.append((listener, [part.float() for part in parts], call))

    def _count(self, running: Any) -> None:
        """Keep the sums of a whole forward, or refuse it."""
        self._check_all_heard(running)
        domain = running.labels.get("domain")
        for listener, parts, call in running.choices:
            rows = call.shape[0]
            if running.sequence is None:
                running.sequence = self._new_numbers(rows)
            if domain is not None and tuple(np.shape(domain)) not in ((), (rows,)):
                raise ValueError(
                    f"domain has shape {tuple(np.shape(domain))}; allowed is ({rows},), one a row"
                )
            self._steps.append((self.layers[listener.layer], running.sequence, domain, parts))

    def move_to(self, window: RouterStatistics) -> list[np.ndarray]:
        """Add all steps to statistics, by one transfer for each device, and forget them; returns
        the load (E,) of each step and layer."""
        import torch

        steps = self._steps
        self._steps = []
        by_device: dict[Any, list[Any]] = {}
        for _, _, _, parts in steps:
            by_device.setdefault(parts[0].device, []).extend(parts)
        moved = {}
        for device, parts in by_device.items():
            together = torch.cat(parts).cpu().numpy()
            ends = np.cumsum([len(part) for part in parts])[:-1]
            moved[device] = iter(np.split(together, ends))
        loads = []
        for layer, sequence, domain, parts in steps:
            arrays = [next(moved[parts[0].device]) for _ in parts]
            slots = arrays[0].reshape(len(sequence), -1).round().astype(np.int64)
            if domain is not None:
                domain = one_a_token(domain, "domain", (len(sequence), 1))
            _add_step(window, layer, sequence, domain, slots, arrays[1:])
            loads.append(slots.sum(axis=0))
        return loads


def _add_step(
    window: RouterStatistics,
    layer: Layer,
    sequence: np.ndarray,
    domain: np.ndarray | None,
    slots: np.ndarray,
    sums: list[np.ndarray],
) -> None:
    """Add the slots (B, E) of the rows of one forward, its tokens (1,) and its sum (E,) of
    probabilities."""
    window.add_load(layer, slots.sum(axis=0), is_step=True)
    counted = window.layers[layer]
    n_tokens = round(float(sums[0][0]))
    counted.add(tokens=n_tokens)
    if domain is not None and window.n_domains:
        domains = np.zeros_like(counted.domains)
        known = domain >= 0
        np.add.at(domains, domain[known], slots[known])
        counted.add(domains=domains)
    elif domain is not None:
        raise ValueError("domain is given, but n_domains is 0; make the meter with n_domains=...")
    window.add_sequences(layer, sequence, slots, domain)
    if len(sums) > 1 and n_tokens:
        share = sums[1].astype(float) * n_tokens / sums[1].sum(dtype=float)
        counted.add(probable=n_tokens, probability_sum=share)


def _scalars(window: RouterStatistics, violations: list[float]) -> dict[str, float]:
    """What a training run logs of a window."""
    layers = [layer for layer in window.layers.values() if layer.slots.any()]
    if not layers:
        return {}
    found = {"dead": float(sum((layer.slots == 0).sum() for layer in layers))}
    if violations:
        found["max_violation_p50"] = float(np.quantile(violations, 0.5))
        found["max_violation_p95"] = float(np.quantile(violations, 0.95))
    losses = [
        balance_loss(layer.slots, layer.probability_sum) for layer in layers if layer.probable
    ]
    if losses:
        found["balance_loss"] = max(losses)
    nulls = [domain_null(window, name, N_RELABELLINGS) for name in window.layers]
    excess = [null.found - float(null.values.mean()) for null in nulls if null is not None]
    if excess:
        found["domain_excess"] = max(excess)
    return found


# --- over ranks ---


def all_reduce(statistics: RouterStatistics) -> RouterStatistics:
    """The sum of the statistics of all ranks of torch.distributed, on each of them: what `merge`
    gives. Every rank must call it. Raises ValueError where there are no ranks, and on all of them
    where their statistics were made with different numbers.

    >>> all_reduce(RouterStatistics(n_experts=2, n_chosen=1))
    Traceback (most recent call last):
    ...
    ValueError: torch.distributed is not initialised, so there are no ranks to add up
    """
    device = _device_of_ranks()
    heads = _gather_texts(_header_of(statistics), device)
    sizes = {json.dumps(head["sizes"], sort_keys=True) for head in heads}
    if len(sizes) > 1:
        raise ValueError(f"ranks hold statistics of different sizes: {' and '.join(sorted(sizes))}")
    total = RouterStatistics(**statistics.configuration)
    for head in heads:
        for name, how in head["layers"]:
            total.add_load(name, np.zeros(total.n_experts, np.int64))
            if how is not None:
                total.heard[name] = how
    empty = RouterStatistics(**statistics.configuration)
    for name, layer in total.layers.items():
        empty.add_load(name, np.zeros(total.n_experts, np.int64))
        own = statistics.layers.get(name, empty.layers[name])
        _reduce_layer(layer, own, total.seed, device)
    return total


def _device_of_ranks() -> Any:
    """Where ranks exchange tensors. Raises ValueError where there are no ranks."""
    import torch
    import torch.distributed as ranks

    if not ranks.is_available() or not ranks.is_initialized():
        raise ValueError("torch.distributed is not initialised, so there are no ranks to add up")
    is_on_gpu = ranks.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if is_on_gpu else "cpu"


def _loads_of_all(loads: list[np.ndarray], n_experts: int) -> list[np.ndarray]:
    """The loads (E,) of each step and layer over all ranks; one that made fewer steps adds nothing
    to the last."""
    import torch
    import torch.distributed as ranks

    device = _device_of_ranks()
    sizes = [int(size[0]) for size in _gather(np.array([len(loads)]), device)]
    padded = np.zeros((max(sizes), n_experts), np.int64)
    padded[: len(loads)] = np.reshape(loads, (-1, n_experts))
    tensor = torch.from_numpy(padded).to(device)
    ranks.all_reduce(tensor)
    return list(tensor.cpu().numpy())


def _header_of(statistics: RouterStatistics) -> dict[str, Any]:
    """What ranks must agree on, and their layers."""
    layers = [[name, statistics.heard.get(name)] for name in statistics.layers]
    return {"sizes": statistics.configuration, "layers": layers}


def _reduce_layer(total: LayerStatistics, own: LayerStatistics, seed: int, device: Any) -> None:
    """Add a layer of all ranks to an empty one."""
    import torch
    import torch.distributed as ranks

    for kind in (np.int64, np.float64):
        names = [
            name
            for name, array in vars(own).items()
            if array.dtype == kind and not name.startswith("kept_")
        ]
        flat = np.concatenate([getattr(own, name).ravel() for name in names])
        tensor = torch.from_numpy(flat).to(device)
        ranks.all_reduce(tensor)
        ends = np.cumsum([getattr(own, name).size for name in names])[:-1]
        for name, part in zip(names, np.split(tensor.cpu().numpy(), ends)):
            target = getattr(total, name)
            target[...] = part.reshape(target.shape)
    gathered = [_gather(array, device) for array in own.kept]
    for ids, domains, slots in zip(*gathered):
        keep_lowest(
            total.kept, own.kept._replace(ids=ids, domains=domains, slots=slots).there(), seed
        )


def _gather(array: np.ndarray, device: Any) -> list[np.ndarray]:
    """The arrays of all ranks, of one shape."""
    import torch
    import torch.distributed as ranks

    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device)
    found = [torch.empty_like(tensor) for _ in range(ranks.get_world_size())]
    ranks.all_gather(found, tensor)
    return [part.cpu().numpy() for part in found]


def _gather_texts(content: dict[str, Any], device: Any) -> list[dict[str, Any]]:
    """JSON of all ranks."""
    text = np.frombuffer(json.dumps(content).encode(), np.uint8)
    sizes = [int(size[0]) for size in _gather(np.array([len(text)]), device)]
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(text)] = text
    parts = _gather(padded, device)
    return [json.loads(part[:size].tobytes()) for part, size in zip(parts, sizes)]
