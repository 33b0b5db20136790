"""The routing testbed of P3 at small scale: one transformer layer whose experts are balanced in
different ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from expertbank._checks import ABOVE_0, BELOW_INF, as_count, as_number
from expertbank.routers.measures import purity, routing_counts, specialisation, utilisation
from expertbank.training.balancing import (
    METHODS,
    auction,
    kept,
    load_balancing_loss,
    moved_bias,
    sinkhorn_prices,
    top_choice,
)
from expertbank.training.corpus import MIXES

LAST = 100  # P3 averages purity and utilisation over the last 100 steps


@dataclass(frozen=True)
class Size:
    """Everything about model and schedule that a comparison of routers keeps fixed."""

    width: int = 96
    heads: int = 4
    n_experts: int = 32
    n_chosen: int = 4
    expert_width: int = 48
    n_sequences: int = 64
    steps: int = 800
    learning_rate: float = 1e-2


# small: about two minutes on a CPU core; large: the same code on one GPU, sized by estimate for ten
# minutes
SIZES = {
    "small": Size(),
    "large": Size(
        width=1024, heads=16, expert_width=640, n_sequences=256, steps=6_000, learning_rate=1e-3
    ),
}


@dataclass(frozen=True)
class Run:
    """One configuration. `scope` is in sequences; strength is LBL's weight or EB's step; no cap is
    None."""

    mix: str = "scripts"
    method: str = "LBL"
    scope: int = 64
    strength: float = 0.0
    capacity: float | None = None
    capacity_scope: int = 1
    placed: float = 0.5
    seed: int = 0
    size: str = "small"

    def __post_init__(self):
        for name, allowed in (("mix", tuple(MIXES)), ("method", METHODS), ("size", tuple(SIZES))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed are {allowed}")
        whole_step = self.shape.n_sequences
        for name in ("scope", "capacity_scope"):
            group = as_count(getattr(self, name), name)
            if whole_step % group:
                raise ValueError(f"{name} is {group}; it must divide {whole_step}")
        if self.method == "EB" and self.scope != whole_step:
            raise ValueError(f"scope is {self.scope}; EB balances the whole step, {whole_step}")
        if self.capacity is not None:
            as_number(
                self.capacity, "capacity", ABOVE_0, BELOW_INF, allowed="a positive number, or None"
            )
        as_number(self.strength, "strength", 0, BELOW_INF)
        as_number(self.placed, "placed", 0, 1)
        as_count(self.seed, "seed", at_least=0)

    @property
    def shape(self) -> Size:
        """What a comparison of routers keeps fixed."""
        return SIZES[self.size]

    @property
    def name(self) -> str:
        """What tells this run from the others of its size, fit for a file name."""
        cap = "" if self.capacity is None else f"-cap{self.capacity:g}of{self.capacity_scope}"
        placed = f"-placed{self.placed:g}" if self.method == "reference" else ""
        return (
            f"{self.mix}-{self.method}-{self.scope}-{self.strength:g}{cap}{placed}-seed{self.seed}"
        )

    def routing(self, placed: np.ndarray) -> Routing:
        """A router of this kind, not trained; `placed` (V,) marks the tokens of T_D."""
        return Routing(self, placed)


class Routing(nn.Module):
    """The router of a run and its memory: expert bias (EB) and which token ids the reference
    confines."""

    bias: torch.Tensor
    placed: torch.Tensor
    group: torch.Tensor
    """domain whose tokens an expert of the reference serves (E,)"""

    def __init__(self, run: Run, placed: np.ndarray):
        super().__init__()
        size = run.shape
        self.run = run
        self.size = size
        self.linear = nn.Linear(size.width, size.n_experts, bias=False)
        self.register_buffer("bias", torch.zeros(size.n_experts))
        self.register_buffer("placed", torch.from_numpy(placed))
        per_domain = size.n_experts // len(MIXES[run.mix])
        self.register_buffer("group", torch.arange(size.n_experts) // per_domain)

    def forward(
        self, states: torch.Tensor, tokens: torch.Tensor, domains: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Experts (B, L, k), their weights, and the auxiliary loss, for normed states (B, L,
        width)."""
        run = self.run
        length = tokens.shape[1]
        logits = self.scores(states)
        # a token that says its domain may use the experts of that domain alone
        if run.method == "reference":
            foreign = self.placed[tokens].unsqueeze(-1) & (self.group != domains[:, None, None])
            logits = logits.masked_fill(foreign, -1e4)
        grouped = logits.reshape(-1, run.scope * length, self.size.n_experts)
        with torch.no_grad():
            chosen = self._choice(grouped)
        auxiliary = logits.new_zeros(())
        if run.method in ("LBL", "reference"):
            auxiliary = run.strength * load_balancing_loss(grouped, chosen)
        if run.method == "EB" and self.training:
            self.bias.copy_(moved_bias(self.bias, chosen, run.strength))
        chosen = chosen.reshape(*tokens.shape, self.size.n_chosen)
        weights, price = self.weigh(states, logits, chosen)
        return chosen, weights * self._kept(chosen, length), auxiliary + price

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Scores of all experts (B, L, E) for states (B, L, width)."""
        return self.linear(states)

    def weigh(
        self, states: torch.Tensor, logits: torch.Tensor, chosen: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (B, L, k) of the chosen experts, and what they cost beside the loss."""
        return logits.gather(2, chosen).softmax(dim=-1), logits.new_zeros(())

    def _choice(self, grouped: torch.Tensor) -> torch.Tensor:
        """Experts of grouped logits (G, n, E) by the run's method."""
        if self.run.method == "SH":
            return top_choice(grouped - sinkhorn_prices(grouped), self.size.n_chosen)
        if self.run.method == "BA":
            return auction(grouped, self.size.n_chosen)
        return top_choice(grouped + self.bias, self.size.n_chosen)

    def _kept(self, chosen: torch.Tensor, length: int) -> torch.Tensor:
        """1.0 where a choice fits under the run's cap and 0.0 where it is dropped."""
        if self.run.capacity is None:
            return torch.ones_like(chosen, dtype=torch.float32)
        n_experts, n_chosen = self.size.n_experts, self.size.n_chosen
        grouped = chosen.reshape(-1, self.run.capacity_scope * length, n_chosen)
        places = int(np.ceil(self.run.capacity * grouped.shape[1] * n_chosen / n_experts))
        return kept(grouped, n_experts, places).reshape(chosen.shape).float()


class Experts(nn.Module):
    """E two-layer networks; each computes only the tokens that chose it."""

    def __init__(self, size: Size):
        super().__init__()
        self.inner = nn.Parameter(
            torch.randn(size.n_experts, size.width, size.expert_width) * size.width**-0.5
        )
        self.outer = nn.Parameter(
            torch.randn(size.n_experts, size.expert_width, size.width) * size.expert_width**-0.5
        )

    def forward(
        self, states: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Weighted sum of the chosen experts' outputs: states (N, width), chosen and weights (N,
        k)."""
        expert, order = chosen.flatten().sort(stable=True)
        token = order // chosen.shape[1]
        sizes = torch.bincount(expert, minlength=len(self.inner)).tolist()
        served = zip(states[token].split(sizes), self.inner, self.outer, strict=True)
        outputs = torch.cat([nn.functional.gelu(x @ inner) @ outer for x, inner, outer in served])
        weighted = outputs * weights.flatten()[order].unsqueeze(1)
        return torch.zeros_like(states).index_add(0, token, weighted)


class TestbedModel(nn.Module):
    """One pre-norm transformer layer, attention then experts, and an output tied to the
    embedding."""

    def __init__(self, run: Run, vocabulary: int, length: int, placed: np.ndarray):
        super().__init__()
        size = run.shape
        self.size = size
        self.embedding = nn.Embedding(vocabulary, size.width)
        self.position = nn.Embedding(length, size.width)
        self.norms = nn.ModuleList(nn.RMSNorm(size.width) for _ in range(3))
        self.mixing = nn.Linear(size.width, 3 * size.width)
        self.joining = nn.Linear(size.width, size.width)
        self.routing = run.routing(placed)
        self.experts = Experts(size)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(
        self, tokens: torch.Tensor, domains: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits (B, L, V) of the next tokens, chosen experts and weights (B, L, k), auxiliary
        loss."""
        states = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        heads = self.mixing(self.norms[0](states)).unflatten(-1, (3, self.size.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (B, heads, L, width / heads)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.joining(mixed.transpose(1, 2).flatten(2))
        normed = self.norms[1](states)
        chosen, weights, auxiliary = self.routing(normed, tokens, domains)
        served = self.experts(normed.flatten(0, 1), chosen.flatten(0, 1), weights.flatten(0, 1))
        states = states + served.reshape(states.shape)
        return self.norms[2](states) @ self.embedding.weight.T, chosen, weights, auxiliary


def batches(
    sequences: np.ndarray, n_sequences: int, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless steps of tokens (B, L) and domains (B,): as many sequences of each language, in
    random order, from sequences (D, S, L).

    >>> steps = batches(np.arange(12).reshape(2, 3, 2), 4, np.random.default_rng(0))
    >>> tokens, domains = next(steps)
    >>> tokens.shape, sorted(domains.tolist())
    (torch.Size([4, 2]), [0, 0, 1, 1])
    """
    n_domains, count, _ = sequences.shape
    each = n_sequences // n_domains
    waiting = np.empty((n_domains, 0), dtype=int)
    while True:
        if waiting.shape[1] < each:
            shuffled = rng.permuted(np.tile(np.arange(count), (n_domains, 1)), axis=1)
            waiting = np.hstack([waiting, shuffled])
        drawn = waiting[:, :each]
        waiting = waiting[:, each:]
        order = rng.permutation(n_sequences)
        tokens = np.concatenate([sequences[d, drawn[d]] for d in range(n_domains)])[order]
        domains = torch.arange(n_domains).repeat_interleave(each)[order]
        yield torch.from_numpy(tokens.astype(np.int64)), domains


def _rate_at(step: int, size: Size) -> float:
    """Learning rate: a linear start over a tenth of the steps, then half a cosine down to a
    tenth."""
    begin = size.steps // 10
    if step < begin:
        return size.learning_rate * (step + 1) / begin
    done = (step - begin) / (size.steps - begin)
    return size.learning_rate * (0.55 + 0.45 * np.cos(np.pi * done))


def _loss(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the next token in nats, within each sequence."""
    following = torch.full_like(tokens, -100)  # nothing follows the last token
    following[:, :-1] = tokens[:, 1:]
    return nn.functional.cross_entropy(logits.flatten(0, 1), following.flatten())


def train_run(
    run: Run,
    train: np.ndarray,
    held_out: np.ndarray,
    vocabulary: int,
    placed: np.ndarray,
    device: str = "cpu",
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Train one configuration on sequences (D, S, L) and judge it on held-out ones; `placed` (V,)
    marks the tokens of T_D.

    Returns a dict of numbers and a dict of the held-out routing (`chosen`, `weights`, `domain`,
    `tokens`). Purity and utilisation that begin with `step_` are P3's: of each training step's
    whole batch, averaged over the last hundred.

    >>> mix = load_mix("scripts")  # doctest: +SKIP
    >>> given = mix.train, mix.held_out, mix.vocabulary, placed_tokens(mix)  # doctest: +SKIP
    >>> numbers, routing = train_run(Run(strength=0.125), *given)  # doctest: +SKIP
    >>> round(numbers["loss"], 1)  # nats a token, after two minutes  # doctest: +SKIP
    3.5
    """
    model, numbers = fit(run, train, vocabulary, placed, device)
    found, routing = measure(model, held_out, placed, device)
    return numbers | found, routing


def fit(
    run: Run, train: np.ndarray, vocabulary: int, placed: np.ndarray, device: str = "cpu"
) -> tuple[TestbedModel, dict[str, float]]:
    """A configuration trained on sequences (D, S, L), and P3's measures of its last steps.

    >>> model, numbers = fit(Run(), mix.train, mix.vocabulary, placed)  # doctest: +SKIP
    >>> list(numbers)  # doctest: +SKIP
    ['step_purity', 'step_utilisation']
    """
    size = run.shape
    torch.manual_seed(run.seed)
    model = TestbedModel(run, vocabulary, train.shape[2], placed).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=size.learning_rate, betas=(0.9, 0.95), weight_decay=0.1
    )
    # the same batches for every method at the same seed: contrasts are paired
    steps = batches(train, size.n_sequences, np.random.default_rng([run.seed, 1]))
    recent = []
    for step in range(size.steps):
        tokens, domains = (part.to(device) for part in next(steps))
        for group in optimizer.param_groups:
            group["lr"] = _rate_at(step, size)
        logits, chosen, weights, auxiliary = model(tokens, domains)
        optimizer.zero_grad()
        (_loss(logits, tokens) + auxiliary).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step >= size.steps - LAST:
            on_plain = placed[tokens.cpu().numpy()]
            recent.append(_step_measures(chosen, weights, domains, on_plain, size.n_experts))
    numbers = {f"step_{name}": float(np.mean([one[name] for one in recent])) for name in recent[0]}
    return model, numbers


def measure(
    model: TestbedModel, held_out: np.ndarray, placed: np.ndarray, device: str = "cpu"
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Losses and all measures of a model on held-out sequences (D, S, L), and its routing there,
    -1 for what it drops.

    >>> sequences = np.random.default_rng(0).integers(0, 300, (8, 8, 5))
    >>> placed = np.ones(300, bool)
    >>> numbers, routing = measure(TestbedModel(Run(), 300, 5, placed), sequences, placed)
    >>> numbers["dropped"], routing["chosen"].shape
    (0.0, (64, 5, 4))
    """
    run = model.routing.run
    loss, routing = judge(model, held_out, device)
    numbers = {"loss": loss, "loss_alone": _loss_alone(model, held_out, device)}
    routing["chosen"] = np.where(routing["weights"] > 0, routing["chosen"], -1)
    of_each = routing["chosen"], routing["weights"], routing["domain"], placed[routing["tokens"]]
    numbers |= specialisation(*of_each, model.size.n_experts, run.seed)
    numbers["dropped"] = float((routing["chosen"] < 0).mean())
    return numbers, routing


def _step_measures(
    chosen: torch.Tensor,
    weights: torch.Tensor,
    domains: torch.Tensor,
    on_plain: np.ndarray,
    n_experts: int,
) -> dict[str, float]:
    """P3's purity, over the tokens (B, L) of T_D, and utilisation of one training step."""
    is_kept = weights.detach().cpu().numpy() > 0
    choices = np.where(is_kept, chosen.cpu().numpy(), -1)
    labels = domains.cpu().numpy()[:, None]
    n_domains = int(labels.max()) + 1
    counts = routing_counts(choices, labels, n_domains, n_experts)
    plain_choices = np.where(on_plain[..., None], choices, -1)
    plain_counts = routing_counts(plain_choices, labels, n_domains, n_experts)
    return {"purity": purity(plain_counts), "utilisation": utilisation(counts.sum(axis=0))}


@torch.no_grad()
def judge(
    model: TestbedModel, held_out: np.ndarray, device: str = "cpu"
) -> tuple[float, dict[str, np.ndarray]]:
    """Loss in nats a token and the routing of held-out sequences (D, S, L), in steps as in
    training.

    >>> sequences = np.zeros((8, 8, 5), dtype=int)  # eight languages of one word
    >>> model = TestbedModel(Run(), 300, 5, placed=np.zeros(300, bool))
    >>> loss, routing = judge(model, sequences)
    >>> routing["chosen"].shape  # sequences, tokens, experts of each
    (64, 5, 4)
    """
    model.eval()
    n_domains, count, _ = held_out.shape
    n_sequences = model.size.n_sequences
    steps = batches(held_out, n_sequences, np.random.default_rng(0))
    losses = []
    parts = []
    for _ in range(max(1, n_domains * count // n_sequences)):
        tokens, domains = (part.to(device) for part in next(steps))
        logits, chosen, weights, _ = model(tokens, domains)
        losses.append(_loss(logits, tokens).item())
        parts.append([part.cpu().numpy() for part in (chosen, weights, domains, tokens)])
    model.train()
    names = ("chosen", "weights", "domain", "tokens")
    whole = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return float(np.mean(losses)), dict(zip(names, whole, strict=True))


def _loss_alone(model: TestbedModel, held_out: np.ndarray, device: str) -> float:
    """Held-out loss when every token takes its top k, whatever the others chose: SH and BA look at
    whole groups."""
    run = model.routing.run
    if run.method in ("SH", "BA"):
        model.routing.run = replace(run, method="none")
    loss, _ = judge(model, held_out, device)
    model.routing.run = run
    return loss
