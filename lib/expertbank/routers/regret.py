"""Where a router sits: its rate and loss on the loss table of its own experts, under the certified
D(R), beside the best gates that see only what the router sees. Losses and rates in nats.

D(R) of a loss table is reached by gates that see the loss, and so the next token: no router can
know it. So a router's distance to D(R) is split at what gates on the router's own features reach,
which were not fitted on the tokens they are judged by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import as_count, as_gate, as_losses
from expertbank.gates import fit_linear_gate, judge_gate, linear_gate
from expertbank.rate_distortion import RateDistortionCurve, rate_distortion_curve

FIT_PRICES = (0.3, 0.1, 0.03)  # prices of the fitted gates, nats of loss a nat
RIDGE = 1e-3
SHARPER = (2.0, 4.0, 8.0)  # powers of the router's softmax: gates that see x, too
GROUPS = 5
TOLERANCE = 1e-6  # of certificates


@dataclass(frozen=True)
class PlanePoint:
    """A gate on the plane of rate and loss."""

    name: str
    rate: float
    """I(X;T)"""
    loss: float
    loss_error: float
    lower: float
    """certified: D at the gate's own rate is at least this"""
    upper: float
    """and at most this"""


@dataclass(frozen=True)
class RegretGroup:
    """Tokens that share a fifth of some measure, means over them."""

    tokens: int
    measure: float
    router: float
    """loss of the router's heaviest expert"""
    seen: float
    """loss of the best gate that sees only the router's features"""
    oracle: float
    """loss of the token's best expert, which only the next token tells"""


@dataclass(frozen=True)
class RouterRegret:
    """One layer's router on its loss table; `router_regret` makes it."""

    tokens: int
    as_is: float
    """loss of the model as it is, which mixes k experts; nan where not given"""
    single: float
    """loss of the best single expert for all tokens"""
    curve: RateDistortionCurve
    """certified D(R): its gates see the next token"""
    router: PlanePoint
    """the heaviest of the chosen experts"""
    softmax: PlanePoint | None
    """an expert drawn by the router's probabilities"""
    seen: tuple[PlanePoint, ...]
    """gates on the router's features, not fitted on these tokens"""
    by_confidence: tuple[RegretGroup, ...]
    """groups by the router's confidence, which it knows before the next token"""
    by_outcome: tuple[RegretGroup, ...]
    """groups by the loss that came out, as 2605.07260 groups: tokens that went badly could have
    gone better by chance alone"""

    def reached(self, rate: float) -> float:
        """Loss of the best known gate on the router's features at a rate of at most `rate`, mixing
        two that lie beside it."""
        points = sorted((point.rate, point.loss) for point in self.seen)
        rates = [0.0, *(r for r, _ in points)]
        losses = np.minimum.accumulate([self.single, *(loss for _, loss in points)])
        return float(np.interp(rate, rates, losses))


def router_regret(
    losses: ArrayLike,
    chosen: ArrayLike,
    weights: ArrayLike,
    gates: Sequence[ArrayLike],
    probabilities: ArrayLike | None = None,
    loss: ArrayLike | None = None,
) -> RouterRegret:
    """Where the router of one layer sits on the table of its experts' losses (N, E).

    `chosen` and `weights` are the router's experts and their weights (N, k), `gates` are (N, E):
    they see only the router's features and were not fitted on these tokens, as those of
    `fitted_weights`. `probabilities` (N, E) are the router's softmax, whose sharper powers join
    `gates`; `loss` (N,) is what the model loses as it is.

    Raises ValueError where shapes differ.

    >>> losses = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.6], [0.5, 0.1]])
    >>> other = np.eye(2)[[0, 1, 0, 0]]  # a gate that the router could be
    >>> found = router_regret(losses, [[0], [0], [0], [1]], np.ones((4, 1)), [other])
    >>> round(found.router.loss, 3), round(found.single, 3), round(found.reached(0.6), 3)
    (0.325, 0.425, 0.175)
    """
    losses = as_losses(losses).astype(float)
    n_tokens, n_experts = losses.shape
    router, share = _heaviest(np.asarray(chosen), np.asarray(weights), n_tokens, n_experts)
    seen = [as_gate(gate) for gate in gates]
    if probabilities is not None:
        probabilities = as_gate(probabilities, "probabilities")
        seen += [_sharper(probabilities, power) for power in SHARPER]
        share = probabilities.max(axis=1)
    curve = rate_distortion_curve(losses, tol=TOLERANCE)
    softmax = None
    if probabilities is not None:
        softmax = _point("softmax", probabilities, losses, curve)
    points = [_point("sees the router's input", gate, losses, curve) for gate in seen]
    best = int(np.argmin([point.loss for point in points])) if points else None
    paid = _paid(router, losses)
    seen_paid = np.full(n_tokens, np.nan) if best is None else _paid(seen[best], losses)
    columns = (paid, seen_paid, losses.min(axis=1))
    return RouterRegret(
        tokens=n_tokens,
        as_is=np.nan if loss is None else float(np.mean(np.asarray(loss))),
        single=float(losses.mean(axis=0).min()),
        curve=curve,
        router=_point("router", router, losses, curve),
        softmax=softmax,
        seen=tuple(points),
        by_confidence=_groups(share, columns),
        by_outcome=_groups(paid, columns),
    )


def _heaviest(
    chosen: np.ndarray, weights: np.ndarray, n_tokens: int, n_experts: int
) -> tuple[np.ndarray, np.ndarray]:
    """The gate (N, E) that takes the heaviest expert of the chosen, and its share of their weight
    (N,)."""
    if chosen.shape != weights.shape or chosen.ndim != 2 or len(chosen) != n_tokens:
        raise ValueError(
            f"chosen has shape {chosen.shape}, weights {weights.shape}; allowed is (N, k), "
            f"N = {n_tokens}"
        )
    expert = np.take_along_axis(chosen, weights.argmax(axis=1)[:, None], axis=1)[:, 0]
    if expert.min() < 0 or expert.max() >= n_experts:
        raise ValueError(f"chosen holds an expert outside 0 to {n_experts - 1}")
    share = weights.max(axis=1) / np.maximum(weights.sum(axis=1), 1e-30)
    return np.eye(n_experts)[expert], share


def fitted_weights(
    features: ArrayLike,
    losses: ArrayLike,
    lams: Sequence[float] = FIT_PRICES,
    ridge: float = RIDGE,
) -> list[np.ndarray]:
    """Weights (F + 1, E) of linear gates fitted on features (N, F) and losses (N, E), one a price,
    as `linear_gate` takes them.

    Features are scaled by their mean and deviation while fitting; the weights are of features as
    they are.

    >>> features = np.linspace(-1, 1, 50)[:, None]
    >>> losses = np.hstack([features > 0, features < 0])
    >>> [weights] = fitted_weights(features, losses, lams=[0.1])
    >>> linear_gate(weights, [[-1.0], [1.0]]).argmax(axis=1).tolist()
    [0, 1]
    """
    features = np.asarray(features, dtype=float)
    centre = features.mean(axis=0)
    scale = features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    found = []
    for lam in lams:
        fit = fit_linear_gate((features - centre) / scale, losses, lam, ridge)
        slopes = fit[:-1] / scale[:, None]
        found.append(np.vstack([slopes, fit[-1:] - centre @ slopes]))
    return found


def regret_on_half(table: Any, seed: int = 0) -> RouterRegret:
    """Gates fitted on a random half of the texts of a loss table, everything judged on the other
    half.

    `table` has what `loss_table` returns: losses, features, chosen, weights, loss, sequence, and
    probabilities or None. Needs all experts, and four texts.

    >>> regret_on_half(open_loss_table("losses")).router.rate  # doctest: +SKIP
    2.18
    """
    experts = np.asarray(table.losses).shape[1]
    if tuple(table.experts) != tuple(range(experts)):
        raise ValueError("the table has losses of some experts alone; allowed is experts='all'")
    sequence = np.asarray(table.sequence)
    texts = np.unique(sequence)
    as_count(len(texts), "the number of texts", 4)
    drawn = np.random.default_rng(seed).permutation(texts)[: len(texts) // 2]
    is_fitted = np.isin(sequence, drawn)
    losses = np.asarray(table.losses)
    features = np.asarray(table.features)
    fits = fitted_weights(features[is_fitted], losses[is_fitted])
    gates = [linear_gate(fit, features[~is_fitted]) for fit in fits]
    probabilities = table.probabilities
    if probabilities is not None:
        probabilities = np.asarray(probabilities)[~is_fitted]
    return router_regret(
        losses[~is_fitted],
        np.asarray(table.chosen)[~is_fitted],
        np.asarray(table.weights)[~is_fitted],
        gates,
        probabilities,
        np.asarray(table.loss)[~is_fitted],
    )


def regret_lines(found: RouterRegret) -> list[str]:
    """What `expertbank routes regret` prints of one layer.

    >>> losses = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> found = router_regret(losses, [[0], [0]], np.ones((2, 1)), [np.eye(2)])
    >>> regret_lines(found)[0]
    '2 tokens; best single expert 0.5000, oracle 0.0000 (it saw the next token)'
    """
    lines = [
        f"{found.tokens:,} tokens; best single expert {found.single:.4f}, oracle "
        f"{found.curve.floor:.4f} (it saw the next token)"
    ]
    if np.isfinite(found.as_is):
        lines.append(f"the model as it is, which mixes its experts: {found.as_is:.4f}")
    lines.append(f"{'':10}{'rate':>8}{'loss':>9}{'+-':>8}{'D(rate)':>18}{'sees x only':>13}")
    for point in (found.router, found.softmax):
        if point is not None:
            band = f"{point.lower:.4f}..{point.upper:.4f}"
            lines.append(
                f"{point.name:10}{point.rate:8.3f}{point.loss:9.4f}{point.loss_error:8.4f}"
                f"{band:>18}{found.reached(point.rate):13.4f}"
            )
    lines.append("by the router's confidence: regret to a gate on its input, and to the next token")
    for group in found.by_confidence:
        lines.append(
            f"  {group.measure:.3f}  {group.tokens:7,} tokens  loss {group.router:.4f}  "
            f"{group.router - group.seen:+.4f}  {group.router - group.oracle:+.4f}"
        )
    return lines


def regret_numbers(found: RouterRegret) -> dict[str, Any]:
    """The same as plain numbers, for JSON.

    >>> losses = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> found = router_regret(losses, [[0], [0]], np.ones((2, 1)), [np.eye(2)])
    >>> regret_numbers(found)["router"]["loss"]
    0.5
    """
    softmax = None if found.softmax is None else vars(found.softmax)
    return {
        "tokens": found.tokens,
        "as_is": None if np.isnan(found.as_is) else found.as_is,
        "single": found.single,
        "oracle": found.curve.floor,
        "router": vars(found.router),
        "softmax": softmax,
        "seen": [vars(point) for point in found.seen],
        "curve": {
            name: np.asarray(getattr(found.curve, name)).tolist()
            for name in ("lam", "rate", "distortion", "certificate")
        },
        "by_confidence": [vars(group) for group in found.by_confidence],
        "by_outcome": [vars(group) for group in found.by_outcome],
    }


def _point(
    name: str, gate: np.ndarray, losses: np.ndarray, curve: RateDistortionCurve
) -> PlanePoint:
    judged = judge_gate(gate, losses)
    return PlanePoint(
        name=name,
        rate=judged.rate,
        loss=judged.loss,
        loss_error=judged.loss_error,
        lower=float(curve.lower(judged.rate)),
        upper=float(curve.upper(judged.rate)),
    )


def _sharper(gate: np.ndarray, power: float) -> np.ndarray:
    # over the largest, so that no row underflows
    raised = (gate / gate.max(axis=1, keepdims=True)) ** power
    return raised / raised.sum(axis=1, keepdims=True)


def _paid(gate: np.ndarray, losses: np.ndarray) -> np.ndarray:
    return (gate * losses).sum(axis=1)


def _groups(
    measure: np.ndarray, columns: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[RegretGroup, ...]:
    order = np.argsort(measure, kind="stable")
    found = []
    for rows in np.array_split(order, min(GROUPS, len(order))):
        means = [float(column[rows].mean()) for column in columns]
        found.append(RegretGroup(len(rows), float(measure[rows].mean()), *means))
    return tuple(found)
