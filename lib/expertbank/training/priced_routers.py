"""Two routers that came after P3, on P3's testbed at our size: a mask that prices experts, and a
score of low rank and bounded slope.

After Wu et al. (2026), "BEAM", and Yang et al. (2026), "L2R", of which we know the abstracts: a
binary mask learned by a straight-through estimate with an auxiliary loss; a shared space of low
rank, saturated inner products and several anchors an expert. Every formula here is ours.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from expertbank._checks import BELOW_INF, as_count, as_number
from expertbank.routers.measures import renyi_entropy
from expertbank.shipped.manifest import check_free
from expertbank.shipped.testbed import BEAM, L2R, PRICED_FAMILIES, TOP_K, save_priced_routers
from expertbank.training.corpus import Mix, load_mix, placed_tokens
from expertbank.training.resumable import pack_run, resumed, run_missing, unpack_run
from expertbank.training.testbed_model import (
    Routing,
    Run,
    Size,
    TestbedModel,
    batches,
    fit,
    measure,
)
from expertbank.training.testbed_runs import BALANCE_WEIGHT, made_with

MIX = "scripts"
CHOSEN = (1, 2, 4, 8)
EXPERT_PRICES = (0.001, 0.003, 0.01, 0.03)
RANKS = (2, 8, 32)
ANCHORS = 2
SATURATION = 3.0
SEEDS = 3
MASK_BIAS = 1.0  # the mask's bias at the start, at which every chosen expert is used
SHAKE = 0.1  # noise on a state, as a share of its own norm


@dataclass(frozen=True)
class PricedRun(Run):
    """One configuration: how experts are scored, how many a token may take, and what one costs."""

    strength: float = BALANCE_WEIGHT
    family: str = TOP_K
    n_chosen: int = 4
    price: float = 0.0
    """of an expert, in nats of loss a token; BEAM alone"""
    rank: int = 0
    """of the space that tokens and experts meet in; L2R alone"""

    def __post_init__(self):
        super().__post_init__()
        if self.family not in PRICED_FAMILIES:
            raise ValueError(f"family is {self.family!r}; allowed are {PRICED_FAMILIES}")
        as_count(self.n_chosen, "n_chosen")
        as_number(self.price, "price", 0, BELOW_INF)
        as_count(self.rank, "rank", at_least=0)
        if (self.price > 0) != (self.family == BEAM):
            raise ValueError(f"price is {self.price}; allowed is one above 0 for {BEAM} alone")
        if (self.rank > 0) != (self.family == L2R):
            raise ValueError(f"rank is {self.rank}; allowed is one above 0 for {L2R} alone")

    @property
    def shape(self) -> Size:
        return replace(super().shape, n_chosen=self.n_chosen)

    @property
    def name(self) -> str:
        return f"{self.family}-{self.n_chosen}-{self.price:g}-{self.rank}-seed{self.seed}"

    def routing(self, placed: np.ndarray) -> Routing:
        kinds = {TOP_K: Routing, BEAM: MaskedRouting, L2R: LowRankRouting}
        return kinds[self.family](self, placed)


class MaskedRouting(Routing):
    """BEAM: of its k best experts a token uses those that a second linear layer leaves open, and
    the best in any case; each that it uses costs `price`."""

    run: PricedRun

    def __init__(self, run: PricedRun, placed: np.ndarray):
        super().__init__(run, placed)
        # experts that come after start as those of the other families do
        with torch.random.fork_rng():
            self.mask = nn.Linear(run.shape.width, run.shape.n_experts)
        nn.init.zeros_(self.mask.weight)
        nn.init.constant_(self.mask.bias, MASK_BIAS)

    def weigh(
        self, states: torch.Tensor, logits: torch.Tensor, chosen: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights, nothing = super().weigh(states, logits, chosen)
        mask = open_mask(self.mask(states).gather(2, chosen))
        masked = weights * mask
        price = nothing + self.run.price * mask.sum(dim=2).mean()
        return masked / masked.sum(dim=2, keepdim=True), price


class LowRankRouting(Routing):
    """L2R: the score of an expert is its nearest anchor's inner product with the token, both
    saturated, in a space of low rank."""

    run: PricedRun

    def __init__(self, run: PricedRun, placed: np.ndarray):
        super().__init__(run, placed)
        del self.linear
        width, n_experts = run.shape.width, run.shape.n_experts
        # experts that come after start as those of the other families do
        with torch.random.fork_rng():
            self.projection = nn.Parameter(torch.randn(width, run.rank))
            self.anchors = nn.Parameter(torch.randn(n_experts, ANCHORS, run.rank))

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        # orthonormal columns: no state gets longer, so the slope is that of the score alone
        basis = torch.linalg.qr(self.projection).Q
        tokens = saturated(states @ basis)
        products = torch.einsum("blr,ear->blea", tokens, saturated(self.anchors))
        return products.amax(dim=3)


def open_mask(logits: torch.Tensor) -> torch.Tensor:
    """1 where a mask's logits (..., k) are positive, and for the first of the k; 0 elsewhere.

    The gradient is that of the logistic function: the straight-through estimate.

    >>> open_mask(torch.tensor([-2.0, 3.0, -1.0])).tolist()
    [1.0, 1.0, 0.0]
    """
    soft = logits.sigmoid()
    is_open = logits > 0
    is_open[..., 0] = True
    # exactly 0 or 1, since the difference is 0 but for its gradient
    return is_open.to(soft.dtype) + (soft - soft.detach())


def saturated(vectors: torch.Tensor, most: float = SATURATION) -> torch.Tensor:
    """Vectors (..., r) in their directions, `v / sqrt(1 + |v|^2 / most^2)`: none as long as `most`.

    No two get further apart by it, so an inner product with a saturated vector has a slope below
    `most`: the Lipschitz constant of L2R's score.

    >>> saturated(torch.tensor([[4.0, 0.0], [0.0, 1e6]]), most=3.0).tolist()
    [[2.4000000953674316, 0.0], [0.0, 3.0]]
    """
    squares = vectors.square().sum(dim=-1, keepdim=True)
    return vectors / torch.sqrt(1 + squares / most**2)


# --- what a run is measured by ---


def train_priced(
    run: PricedRun, train: np.ndarray, held_out: np.ndarray, vocabulary: int, placed: np.ndarray
) -> dict[str, float]:
    """Train one configuration on sequences (D, S, L) and measure it on held-out ones, as
    `train_run` does.

    Beside the testbed's measures: `experts` a token uses, `log_experts` the mean of their
    logarithm, `weighted_entropy` H(T) by the router's weights, `slope` the steepest of all scores,
    and `changed`, the share of experts that a token leaves when its state is shaken.

    >>> mix = load_mix("scripts")  # doctest: +SKIP
    >>> given = mix.train, mix.held_out, mix.vocabulary, placed_tokens(mix)  # doctest: +SKIP
    >>> found = train_priced(PricedRun(family="BEAM", price=0.03), *given)  # doctest: +SKIP
    >>> round(found["experts"], 2)  # after two minutes  # doctest: +SKIP
    1.01
    """
    model, numbers = fit(run, train, vocabulary, placed)
    found, routing = measure(model, held_out, placed)
    n_used = (routing["chosen"] >= 0).sum(axis=2)
    # a choice that is not used has weight 0
    load = np.bincount(np.maximum(routing["chosen"], 0).ravel(), routing["weights"].ravel())
    numbers |= found
    numbers["experts"] = float(n_used.mean())
    numbers["log_experts"] = float(np.log(n_used).mean())
    numbers["weighted_entropy"] = renyi_entropy(load, 1)
    return numbers | stability(model, held_out, run.seed)


def stability(model: TestbedModel, held_out: np.ndarray, seed: int) -> dict[str, float]:
    """`slope`, the largest gradient of a score, and `changed`, the share of experts that a token
    leaves when its state is shaken, of a model on one step of held-out sequences (D, S, L).

    >>> sequences = np.zeros((8, 8, 5), dtype=int)
    >>> run = PricedRun(family="L2R", rank=2)
    >>> found = stability(TestbedModel(run, 300, 5, np.zeros(300, bool)), sequences, seed=0)
    >>> found["slope"] <= SATURATION, found["changed"] < 1
    (True, True)
    """
    seen = []
    hook = model.routing.register_forward_pre_hook(lambda _, given: seen.append(given))
    model.eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        model(*next(batches(held_out, model.size.n_sequences, rng)))
        hook.remove()
        ((states, *rest),) = seen
        drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal(states.shape))
        drawn = drawn.to(states.dtype) / states.shape[2] ** 0.5
        shaken = states + SHAKE * states.norm(dim=2, keepdim=True) * drawn
        used = _used(model, states, *rest)
        still = used & _used(model, shaken, *rest)
    changed = 1 - float(still.sum() / used.sum())
    return {"slope": _slope(model.routing, states), "changed": changed}


def _used(model: TestbedModel, *given: torch.Tensor) -> torch.Tensor:
    """Which experts each token uses (B, L, E)."""
    chosen, weights, _ = model.routing(*given)
    used = torch.zeros(*chosen.shape[:2], model.size.n_experts, dtype=torch.bool)
    return used.scatter(2, chosen, weights > 0)


def _slope(routing: Routing, states: torch.Tensor) -> float:
    """Largest norm of the gradient of any expert's score at any of the states (B, L, width)."""
    states = states.detach().requires_grad_()
    scores = routing.scores(states)
    steepest = 0.0
    for score in scores.unbind(dim=2):
        (gradient,) = torch.autograd.grad(score.sum(), states, retain_graph=True)
        steepest = max(steepest, float(gradient.norm(dim=2).max()))
    return steepest


# --- the shipped runs ---


def priced_runs() -> list[PricedRun]:
    """The runs that are shipped: k experts without a price, four prices of an expert, three ranks.

    >>> runs = priced_runs()
    >>> len(runs), runs[0].name
    (33, 'top-k-1-0-0-seed0')
    """
    kinds: list[dict[str, Any]] = [{"n_chosen": k} for k in CHOSEN]
    kinds += [{"family": BEAM, "price": price} for price in EXPERT_PRICES]
    kinds += [{"family": L2R, "rank": rank} for rank in RANKS]
    return [PricedRun(**kind, seed=seed) for seed in range(SEEDS) for kind in kinds]


def train_priced_routers(
    folder: str | os.PathLike,
    root: str | os.PathLike | None = None,
    download: bool = False,
    n_jobs: int | None = None,
) -> None:
    """Train `priced_runs()` and write what was measured into `folder`.

    Finished runs wait in `<folder>.partial`, so a killed run goes on where it stopped. Raises
    FileExistsError where `folder` holds something, ValueError where the partial run has another
    recipe or where another run is at work on it.

    >>> train_priced_routers("priced", download=True, n_jobs=2)  # 40 minutes  # doctest: +SKIP
    """
    check_free(folder, "priced routers")
    mix = load_mix(MIX, root, download)
    runs = priced_runs()
    manifest = _manifest(mix, len(runs))
    given = mix.train, mix.held_out, mix.vocabulary, placed_tokens(mix)
    with resumed(folder, manifest, "priced routers") as (partial, whole):
        tasks = {partial / f"{run.name}.npz": (_trained, run, *given) for run in runs}
        run_missing(tasks, "runs", n_jobs)
        done = zip(runs, tasks, strict=True)
        rows = [asdict(run) | unpack_run(path)[0] for run, path in done]
        save_priced_routers(whole, rows, manifest)


def _trained(run: PricedRun, *given) -> bytes:
    return pack_run(train_priced(run, *given), {})


def _manifest(mix: Mix, n_runs: int) -> dict:
    grid = {"chosen": list(CHOSEN), "expert_prices": list(EXPERT_PRICES), "ranks": list(RANKS)}
    recipe = {"anchors": ANCHORS, "saturation": SATURATION, "mask_bias": MASK_BIAS, "shake": SHAKE}
    return {
        "title": f"Priced experts and scores of low rank on the routing testbed: {n_runs} runs",
        "recipe": asdict(Run().shape) | grid | recipe | {"weight": BALANCE_WEIGHT, "seeds": SEEDS},
        **made_with({MIX: mix}, "cpu"),
    }
