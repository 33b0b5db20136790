"""The routing testbed of P3 at small scale: one transformer layer whose experts are balanced in
different ways."""

from __future__ import annotations

import time
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
        for name in ("scope", "capacity_scope"):
            if SIZES[self.size].n_sequences % as_count(getattr(self, name), name):
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must divide {SIZES[self.size].n_sequences}"
                )
        if self.method == "EB" and self.scope != SIZES[self.size].n_sequences:
            raise ValueError(
                f"scope is {self.scope}; EB balances the whole step, {SIZES[self.size].n_sequences}"
            )
        if self.capacity is not None:
            as_number(
                self.capacity, "capacity", ABOVE_0, BELOW_INF, allowed="a positive number, or None"
            )
        as_number(self.strength, "strength", 0, BELOW_INF), as_number(self.placed, "placed", 0, 1)
        as_count(self.seed, "seed", at_least=0)

    @property
    def name(self) -> str:
        """What tells this run from the others of its size, fit for a file name."""
        cap = "" if self.capacity is None else f"-cap{self.capacity:g}of{self.capacity_scope}"
        placed = f"-placed{self.placed:g}" if self.method == "reference" else ""
        return (
            f"{self.mix}-{self.method}-{self.scope}-{self.strength:g}{cap}{placed}-seed{self.seed}"
        )


class Routing(nn.Module):
    """The router of a run and its memory: expert bias (EB) and which token ids the reference
    confines."""

    def __init__(self, run: Run, placed: np.ndarray):
        super().__init__()
        size = SIZES[run.size]
        self.run, self.size = run, size
        self.linear = nn.Linear(size.width, size.n_experts, bias=False)
        self.register_buffer("bias", torch.zeros(size.n_experts))
        self.register_buffer("placed", torch.from_numpy(placed))
        per_domain = size.n_experts // len(MIXES[run.mix])
        self.register_buffer("group", torch.arange(size.n_experts) // per_domain)

    def forward(self, states, tokens, domains):
        """Experts (B, L, k), their weights, and the auxiliary loss, for normed states (B, L,
        width)."""
        run, k = self.run, self.size.n_chosen
        logits = self.linear(states)
        # a token that says its domain may use the experts of that domain alone
        if run.method == "reference":
            foreign = self.placed[tokens].unsqueeze(-1) & (self.group != domains[:, None, None])
            logits = logits.masked_fill(foreign, -1e4)
        grouped = logits.reshape(-1, run.scope * tokens.shape[1], self.size.n_experts)
        with torch.no_grad():
            if run.method == "SH":
                chosen = top_choice(grouped - sinkhorn_prices(grouped), k)
            elif run.method == "BA":
                chosen = auction(grouped, k)
            else:
                chosen = top_choice(grouped + self.bias, k)
        balanced = run.method in ("LBL", "reference")
        auxiliary = (
            run.strength * load_balancing_loss(grouped, chosen)
            if balanced
            else logits.new_zeros(())
        )
        if run.method == "EB" and self.training:
            self.bias.copy_(moved_bias(self.bias, chosen, run.strength))
        chosen = chosen.reshape(*tokens.shape, k)
        weights = logits.gather(2, chosen).softmax(dim=-1)
        return chosen, weights * self._kept(chosen, tokens.shape[1]), auxiliary

    def _kept(self, chosen, length):
        if self.run.capacity is None:
            return torch.ones_like(chosen, dtype=torch.float32)
        grouped = chosen.reshape(-1, self.run.capacity_scope * length, self.size.n_chosen)
        places = int(
            np.ceil(self.run.capacity * grouped.shape[1] * self.size.n_chosen / self.size.n_experts)
        )
        return kept(grouped, self.size.n_experts, places).reshape(chosen.shape).float()


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

    def forward(self, states, chosen, weights):
        """Weighted sum of the chosen experts' outputs: states (N, width), chosen and weights (N,
        k)."""
        expert, order = chosen.flatten().sort(stable=True)
        token = order // chosen.shape[1]
        sizes = torch.bincount(expert, minlength=len(self.inner)).tolist()
        served = zip(states[token].split(sizes), self.inner, self.outer, strict=True)
        outputs = torch.cat([nn.functional.gelu(x @ inner) @ outer for x, inner, outer in served])
        return torch.zeros_like(states).index_add(
            0, token, outputs * weights.flatten()[order].unsqueeze(1)
        )


class TestbedModel(nn.Module):
    """One pre-norm transformer layer, attention then experts, and an output tied to the
    embedding."""

    def __init__(self, run: Run, vocabulary: int, length: int, placed: np.ndarray):
        super().__init__()
        size = SIZES[run.size]
        self.size = size
        self.embedding, self.position = (
            nn.Embedding(vocabulary, size.width),
            nn.Embedding(length, size.width),
        )
        self.norms = nn.ModuleList(nn.RMSNorm(size.width) for _ in range(3))
        self.mixing, self.joining = (
            nn.Linear(size.width, 3 * size.width),
            nn.Linear(size.width, size.width),
        )
        self.routing, self.experts = Routing(run, placed), Experts(size)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, tokens, domains):
        """Logits (B, L, V) of the next tokens, chosen experts and weights (B, L, k), auxiliary
        loss."""
        states = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        heads = (
            self.mixing(self.norms[0](states))
            .unflatten(-1, (3, self.size.heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        mixed = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        states = states + self.joining(mixed.transpose(1, 2).flatten(2))
        normed = self.norms[1](states)
        chosen, weights, auxiliary = self.routing(normed, tokens, domains)
        served = self.experts(normed.flatten(0, 1), chosen.flatten(0, 1), weights.flatten(0, 1))
        states = states + served.reshape(states.shape)
        return self.norms[2](states) @ self.embedding.weight.T, chosen, weights, auxiliary


def batches(sequences: np.ndarray, n_sequences: int, rng: np.random.Generator):
    """Endless steps of tokens (B, L) and domains (B,): as many sequences of each language, in
    random order."""
    n_domains, count, _ = sequences.shape
    each, waiting = n_sequences // n_domains, np.empty((n_domains, 0), dtype=int)
    while True:
        if waiting.shape[1] < each:
            waiting = np.hstack(
                [waiting, rng.permuted(np.tile(np.arange(count), (n_domains, 1)), axis=1)]
            )
        drawn, waiting = waiting[:, :each], waiting[:, each:]
        order = rng.permutation(n_sequences)
        tokens = np.concatenate([sequences[d, drawn[d]] for d in range(n_domains)])[order]
        yield (
            torch.from_numpy(tokens.astype(np.int64)),
            torch.arange(n_domains).repeat_interleave(each)[order],
        )


def _rate_at(step: int, size: Size) -> float:
    """Learning rate: a linear start over a tenth of the steps, then half a cosine down to a
    tenth."""
    begin = size.steps // 10
    if step < begin:
        return size.learning_rate * (step + 1) / begin
    done = (step - begin) / (size.steps - begin)
    return size.learning_rate * (0.55 + 0.45 * np.cos(np.pi * done))


def _loss(logits, tokens):
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
    device="cpu",
):
    """Train one configuration on sequences (D, S, L) and judge it on held-out ones.

    Returns a dict of numbers and a dict of the held-out routing (`chosen`, `weights`, `domain`,
    `tokens`). Purity and utilisation that begin with `step_` are P3's: of each training step's
    whole batch, averaged over the last hundred.
    """
    started, size = time.perf_counter(), SIZES[run.size]
    torch.manual_seed(run.seed)
    model = TestbedModel(run, vocabulary, train.shape[2], placed).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=size.learning_rate, betas=(0.9, 0.95), weight_decay=0.1
    )
    # the same batches for every method at the same seed: contrasts are paired
    steps, recent = batches(train, size.n_sequences, np.random.default_rng([run.seed, 1])), []
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
            recent.append(
                _step_measures(
                    chosen, weights, domains, placed[tokens.cpu().numpy()], size.n_experts
                )
            )
    numbers = {f"step_{name}": float(np.mean([one[name] for one in recent])) for name in recent[0]}
    loss, routing = judge(model, held_out, device)
    numbers |= {"loss": loss, "loss_alone": _loss_alone(model, held_out, device)}
    kept_choices = np.where(routing["weights"] > 0, routing["chosen"], -1)
    on_plain = placed[routing["tokens"]]
    numbers |= specialisation(
        kept_choices, routing["weights"], routing["domain"], on_plain, size.n_experts, run.seed
    )
    numbers |= {
        "dropped": float((kept_choices < 0).mean()),
        "seconds": time.perf_counter() - started,
    }
    return numbers, routing | {"chosen": kept_choices}


def _step_measures(chosen, weights, domains, plain, n_experts) -> dict[str, float]:
    chosen = np.where(weights.detach().cpu().numpy() > 0, chosen.cpu().numpy(), -1)
    labels = domains.cpu().numpy()[:, None]
    counts = routing_counts(chosen, labels, int(labels.max()) + 1, n_experts)
    on_plain = routing_counts(
        np.where(plain[..., None], chosen, -1), labels, len(counts), n_experts
    )
    return {"purity": purity(on_plain), "utilisation": utilisation(counts.sum(axis=0))}


@torch.no_grad()
def judge(model: TestbedModel, held_out: np.ndarray, device="cpu"):
    """Loss in nats a token and the routing of held-out sequences (D, S, L), in steps as in
    training."""
    model.eval()
    n_sequences = model.size.n_sequences
    steps, losses, parts = batches(held_out, n_sequences, np.random.default_rng(0)), [], []
    for _ in range(max(1, held_out.shape[0] * held_out.shape[1] // n_sequences)):
        tokens, domains = (part.to(device) for part in next(steps))
        logits, chosen, weights, _ = model(tokens, domains)
        losses.append(_loss(logits, tokens).item())
        parts.append([part.cpu().numpy() for part in (chosen, weights, domains, tokens)])
    model.train()
    names = ("chosen", "weights", "domain", "tokens")
    return float(np.mean(losses)), {
        name: np.concatenate(part) for name, part in zip(names, zip(*parts), strict=True)
    }


def _loss_alone(model: TestbedModel, held_out: np.ndarray, device) -> float:
    """Held-out loss when every token takes its top k, whatever the others chose: SH and BA look at
    whole groups."""
    run = model.routing.run
    if run.method in ("SH", "BA"):
        model.routing.run = replace(run, method="none")
    loss, _ = judge(model, held_out, device)
    model.routing.run = run
    return loss
