"""How a router's load is balanced: P3's methods, each at a scope of 1 to all sequences of a step,
and token caps.

Logits come grouped as (G, n, E): G groups of n tokens, balanced one by one. Every method only
chooses the experts; the weights they get are the router's own softmax over the chosen.
"""

from __future__ import annotations

import torch

METHODS = ("none", "LBL", "EB", "SH", "BA", "reference")
SINKHORN_ROUNDS = 8
AUCTION_ROUNDS = 30


def top_choice(logits: torch.Tensor, n_chosen: int) -> torch.Tensor:
    """The n_chosen experts of largest logit, (..., k).

    >>> top_choice(torch.tensor([0.1, 2.0, 1.0]), 2).tolist()
    [1, 2]
    """
    return logits.topk(n_chosen, dim=-1).indices


def load_balancing_loss(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """LBL: mean over groups of E sum_i f_i P_i, P the mean softmax, f the share of choices (no
    gradient).

    It is 1 where the load is even and the softmax flat, and E where one expert has all.

    >>> logits = torch.tensor([[[9.0, 0.0], [0.0, 9.0]], [[9.0, 0.0], [9.0, 0.0]]])
    >>> balanced_and_not = [load_balancing_loss(x[None], top_choice(x[None], 1)) for x in logits]
    >>> [round(loss.item(), 3) for loss in balanced_and_not]
    [1.0, 2.0]
    """
    n_experts = logits.shape[-1]
    counts = torch.nn.functional.one_hot(chosen, n_experts).sum(dim=(1, 2)).to(logits.dtype)
    load = counts / counts.sum(dim=-1, keepdim=True)
    probability = logits.softmax(dim=-1).mean(dim=1)
    return n_experts * (load * probability).sum(dim=-1).mean()


def moved_bias(bias: torch.Tensor, chosen: torch.Tensor, step: float) -> torch.Tensor:
    """EB: after a step the bias (E,) rises by `step` for experts below the mean load and falls for
    those above.

    >>> moved_bias(torch.zeros(3), torch.tensor([0, 0, 1, 2, 0, 0]), step=0.25).tolist()
    [-0.25, 0.25, 0.25]
    """
    counts = torch.bincount(chosen.flatten(), minlength=len(bias)).to(bias.dtype)
    return bias + step * torch.sign(counts.mean() - counts)


def sinkhorn_prices(logits: torch.Tensor, rounds: int = SINKHORN_ROUNDS) -> torch.Tensor:
    """SH: prices (G, 1, E) at which the softmax of logits less prices loads all experts of a group
    alike.

    Sinkhorn's alternating scaling of exp(logits) (G, n, E) to rows of one token and columns of n/E,
    in logarithms.

    >>> logits = torch.tensor([[[2.0, 0.0], [1.0, 0.0]]])
    >>> (logits - sinkhorn_prices(logits)).softmax(dim=2).mean(dim=1).round(decimals=2).tolist()
    [[0.5, 0.5]]
    """
    even = torch.log(torch.tensor(logits.shape[1] / logits.shape[2], device=logits.device))
    prices = torch.zeros_like(logits[:, :1])
    for _ in range(rounds):
        rows = (logits - prices).logsumexp(dim=2, keepdim=True)
        prices = (logits - rows).logsumexp(dim=1, keepdim=True) - even
    return prices


def auction(
    logits: torch.Tensor, n_chosen: int, step: float = 0.2, rounds: int = AUCTION_ROUNDS
) -> torch.Tensor:
    """BA: every token gets n_chosen different experts and every expert of a group the same number
    of tokens.

    Bertsekas' auction with bidding increment `step`: a token short of u experts bids on its u best
    at current prices what would make them no better than its next choice; an expert keeps its
    highest bidders, and its price is the lowest bid that it keeps. Prices start at Sinkhorn's. The
    rounds are limited, as in BASE layers: tokens that are then still short take their best choices,
    so a few experts may end slightly over their share.

    >>> auction(torch.tensor([[[2.0, 0.0], [1.0, 0.0]]]), n_chosen=1).flatten().tolist()
    [0, 1]
    """
    n_tokens, n_experts = logits.shape[1:]
    places = n_tokens * n_chosen // n_experts
    prices = sinkhorn_prices(logits)
    nothing = torch.full_like(logits, -torch.inf)
    bids = nothing
    ranks = torch.arange(n_chosen + 1, device=logits.device)
    for _ in range(rounds):
        is_held = torch.isfinite(bids)
        short = n_chosen - is_held.sum(dim=2, keepdim=True)  # (G, n, 1)
        if not short.any():
            break
        value = (logits - prices).masked_fill(is_held, -torch.inf)
        best, expert = value.topk(n_chosen + 1, dim=2)
        # the best one it does not bid on sets the bid
        bid = logits.gather(2, expert) - best.gather(2, short) + step
        bid = torch.where(ranks < short, bid, -torch.inf)
        bids = torch.maximum(bids, nothing.scatter(2, expert, bid))
        # the lowest bid kept, -inf while there is room
        least = bids.topk(places, dim=1).values[:, -1:]
        bids = bids.masked_fill(bids < least, -torch.inf)
        prices = torch.where(torch.isfinite(least), torch.maximum(prices, least), prices)
    # what a token holds comes first, then its best choices at the final prices
    preference = torch.where(torch.isfinite(bids), 1e6, logits - prices)
    return top_choice(preference, n_chosen)


def kept(chosen: torch.Tensor, n_experts: int, places: int) -> torch.Tensor:
    """Token caps: which choices (G, n, k) fit when each expert serves `places` tokens of a group,
    first come first.

    >>> kept(torch.tensor([[[0], [0], [1]]]), n_experts=2, places=1).flatten().tolist()
    [True, False, True]
    """
    wanted = torch.zeros(*chosen.shape[:2], n_experts, dtype=torch.int32, device=chosen.device)
    queue = wanted.scatter(2, chosen, 1).cumsum(dim=1)
    return queue.gather(2, chosen) <= places
