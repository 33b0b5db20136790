"""Scenes of the part *Gates that pay for their bits*."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from expertbank.book.explorers.banks import drawn_curve
from expertbank.book.explorers.common import (
    FIRST,
    FOURTH,
    LIMIT,
    SECOND,
    THIRD,
    GrowingSamples,
    Winners,
    alpha_dial,
    doublings,
    winners_of,
    with_stops,
)
from expertbank.book.explorers.explorer import Dial, Explorer
from expertbank.book.explorers.scene import Axis, Mark, Panel, Reading, Scene, Series, Track
from expertbank.bounds import xu_raginsky_bound
from expertbank.channels import (
    ldp_rate_cap,
    ldp_sharp_cap,
    randomised_response,
    symmetric_capacity,
    symmetric_channel,
)
from expertbank.information import mutual_information
from expertbank.privacy import least_loss_mechanism, routed_loss, wanted_experts
from expertbank.rate_distortion import (
    RateDistortion,
    RateDistortionCurve,
    rate_distortion,
    rate_distortion_curve,
    routing,
)
from expertbank.shipped.bank import ExpertBank, load_bank
from expertbank.shipped.gates import (
    GATE_FAMILIES,
    LAMS,
    STEPS,
    GateSweep,
    as_steps,
    gate_family,
    load_gates,
)
from expertbank.tables import table_of

FAMILY_LOOK = dict(zip(GATE_FAMILIES, (FOURTH, SECOND, THIRD)))

# --- what a gate can reach ---


HARDEST = 32.0


def sharpened(log_gates: np.ndarray, sharpness: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Gates (..., N, R) as sharp as asked, each row to that power with the sum 1 again, and the
    entropies (..., N) of their rows in nats.

    The largest of a row of `log_gates` is 0, which a constant does that changes nothing.

    >>> gates, entropies = sharpened(np.log([[1, 0.25]]), sharpness=2)
    >>> gates.round(3).tolist(), entropies.round(3).tolist()
    ([[0.941, 0.059]], [0.224])
    """
    logits = np.asarray(sharpness) * log_gates
    gates = np.exp(logits)
    total = gates.sum(axis=-1)
    gates /= total[..., None]
    return gates, np.log(total) - np.einsum("...r,...r->...", gates, logits)


class _PricedGates:
    """Gates that route on distilled estimates of E[loss | x], beside D(R) and the trained gates."""

    def __init__(self, sweep: GateSweep, bank: ExpertBank, n_images: int) -> None:
        self.losses = bank.losses("test")[:n_images].astype(float)
        self.estimates = sweep.estimates(bank.name, "distilled")[:n_images]
        self.table = table_of(self.estimates)
        self.curve = rate_distortion_curve(self.losses)
        self.lams = with_stops(np.geomspace(0.01, 2, 61), 0.2, *LAMS[bank.name])
        solved = rate_distortion_curve(self.table, self.lams)
        points = [solved.point(i) for i in range(len(self.lams))]
        self.log_gates = np.array([self.log_gate(point) for point in points])
        self.along = lru_cache(maxsize=64)(self._along)
        self.dots = []
        gates = sweep.columns(bank=bank.name, split="test", decision="soft")
        for family, look in FAMILY_LOOK.items():
            own = gates["family"] == family
            rate, loss = (gates[name][own] for name in ("rate", "loss"))
            self.dots.append(Series(f"{family} gates", rate, loss, "dots", look))
        series = [self.along(1.0)[1], self.along(HARDEST)[1], drawn_curve(self.curve), *self.dots]
        self.rate = Axis("rate I(X;T), nats", 0, 1.05 * max(np.max(x.x) for x in series))
        self.loss = Axis("expected loss", 0, 1.1 * max(np.max(x.y) for x in series))
        self.experts = np.arange(bank.n_experts)
        self.expert = Axis("expert", -0.6, bank.n_experts - 0.4)
        self.share = Axis("share of inputs served", 0, 1)

    def log_gate(self, point: RateDistortion) -> np.ndarray:
        """log p(t|x) of the gate at a price, less its maximum over t, (N, R)."""
        gate = np.asarray(routing(self.estimates, point))
        relative = gate / gate.max(axis=1, keepdims=True)
        return np.log(np.maximum(relative, 1e-30))

    def places(self, log_gates: np.ndarray, sharpness: float) -> tuple[np.ndarray, ...]:
        """Rates (L,), what the gates really lose (L,), and their loads (L, R)."""
        gates, entropies = sharpened(log_gates, sharpness)
        loads = gates.mean(axis=1)
        rates = entr(loads).sum(axis=1) - entropies.mean(axis=1)
        losses = np.einsum("lnr,nr->l", gates, self.losses) / len(self.losses)
        return np.maximum(rates, 0), losses, loads

    def _along(self, sharpness: float) -> tuple[tuple[np.ndarray, ...], Series, Track]:
        """What `places` finds at all prices, and the line of the gates."""
        found = self.places(self.log_gates, sharpness)
        rates, losses, _ = found
        line = Series("routing on estimates, by price", rates, losses)
        return found, line, Track("lam", np.array(self.lams), rates, losses)

    def scene(self, lam: float, sharpness: float = 1.0) -> Scene:
        found, line, track = self.along(sharpness)
        if lam not in self.lams:
            log_gate = self.log_gate(rate_distortion(self.table, lam))
            found = self.places(log_gate[None], sharpness)
        place = self.lams.index(lam) if lam in self.lams else 0
        rate, loss, load = (values[place] for values in found)
        best = float(self.curve.upper(rate))
        ring = Mark("gate at this price, down to D(R)", rate, loss, low=best, high=loss)
        series = [drawn_curve(self.curve), line, *self.dots]
        bars = Series("load", self.experts, load, "bars")
        panels = [
            Panel(self.rate, self.loss, series, [ring], track, "rate and loss"),
            Panel(self.expert, self.share, [bars], title="who serves"),
        ]
        readings = [
            Reading("rate", rate, 3, "nats"),
            Reading("expected loss", loss, 4),
            Reading("D at this rate", best, 4),
            Reading("above D by", loss - best, 4),
            Reading("largest load", load.max(), 3),
        ]
        return Scene(panels, readings)


def explore_gates(
    sweep: GateSweep | None = None, bank: ExpertBank | None = None, n_images: int = 500
) -> Explorer:
    """By price and sharpness: the gate that routes on distilled estimates of E[loss | x], beside
    D(R) and the trained gates, and its load. Default bank: the specialists.

    Sharpness 1 is the gate that the price asks for; a sharp one nearly always takes its most
    probable expert.
    """
    sweep = load_gates() if sweep is None else sweep
    bank = load_bank("specialists") if bank is None else bank
    gates = _PricedGates(sweep, bank, n_images)
    alt = (
        "Left: expected loss against rate, with D(R) below the dots of trained gates and a ring at "
        "the gate of the chosen price, joined to the curve under it. Right: the share of inputs "
        "that each expert serves."
    )
    sharper = with_stops(np.geomspace(1, HARDEST, 51))
    dials = {
        "lam": Dial("price λ of a nat", 0.2, gates.lams, (-2, 0.3, "log")),
        "sharpness": Dial("sharpness of its choices", 1, sharper, (0, np.log10(HARDEST), "log")),
    }
    return Explorer("gates", gates.scene, dials, alt)


# --- Theorem 2 with all its terms ---

BANK_TITLES = {"mnist": "MNIST bank", "specialists": "specialists"}


class _GatesToSelect:
    """A family of gates on the inputs of one bank, of which an alpha-mixture selects one."""

    def __init__(self, name: str, sizes: list[float], n_datasets: int, sweep: GateSweep) -> None:
        bank = load_bank(name)
        losses, rates = gate_family(sweep, bank, "soft")
        curve = rate_distortion_curve(bank.losses("test"), band=1e-3)
        self.risks = losses.mean(axis=0)
        self.best = np.asarray(curve.lower(rates))
        self.ceiling = curve.ceiling
        self.samples = GrowingSamples(as_steps(losses), sizes, n_datasets, unit=1 / STEPS)
        self.winners = lru_cache(maxsize=128)(self._winners)

    def _winners(self, sample_size: float) -> Winners:
        return winners_of(self.samples.risks(sample_size), self.risks)

    def terms(self, sample_size: float, alpha: float) -> dict[str, float]:
        """What happens, and the terms of (10)."""
        found = self.winners(sample_size)
        marginal = found.marginal(alpha)[0]
        risk = float(marginal @ self.risks)
        gap = alpha * found.gap
        distortion = float(marginal @ self.best)
        information = float(found.information(alpha)[0])
        term = float(xu_raginsky_bound(information, int(sample_size)))
        start = max(risk - gap, distortion)
        return {
            "information": information,
            "gap": gap,
            "risk": risk,
            "train risk": risk - gap,
            "distortion": distortion,
            "tight": start + term,
            "loose": start + 2 * term,
        }


def explore_theorem2(sweep: GateSweep | None = None, n_datasets: int = 2000) -> Explorer:
    """Both sides of Theorem 2 against the sample size m on two banks, soft gates, by m and the
    alpha of the learner that selects among them."""
    sweep = load_gates() if sweep is None else sweep
    sizes = doublings(32, 4096, 8)
    families = {name: _GatesToSelect(name, sizes, n_datasets, sweep) for name in LAMS}
    alphas = (np.arange(51) / 50).tolist()
    size_axis = Axis("sample size m", 32, 4096, "log")
    loss_axis = Axis("loss", 0.005, 2, "log")

    @lru_cache(maxsize=128)
    def curves(name: str, alpha: float) -> tuple[list[Series], Track]:
        rows = [families[name].terms(size, alpha) for size in sizes]
        of = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        places = np.array(sizes)
        level = np.full(len(sizes), families[name].ceiling)
        series = [
            Series("δ of (8)", places, of["distortion"], "band", FOURTH, of["train risk"]),
            Series("right side of (10), σ = 1", places, of["loose"], look=SECOND),
            Series("right side of (10), σ = 1/2", places, of["tight"], look=THIRD),
            Series("D(0), best single expert", places, level, look=LIMIT),
            Series("risk of the selected gate", places, of["risk"], look=FIRST),
        ]
        return series, Track("sample_size", places, places, of["risk"])

    def scene(sample_size: float, alpha: float = 1.0) -> Scene:
        panels = []
        readings = []
        for name, family in families.items():
            series, track = curves(name, alpha)
            x = family.terms(sample_size, alpha)
            risk = x["risk"]
            ring_name = "risk, up to (10) with σ = 1/2"
            ring = Mark(ring_name, sample_size, risk, low=risk, high=x["tight"])
            title = BANK_TITLES[name]
            panels.append(Panel(size_axis, loss_axis, series, [ring], track, title))
            readings += [
                Reading(f"{title}: risk", x["risk"], 4),
                Reading(f"{title}: gap", x["gap"], 4),
                Reading(f"{title}: right side, σ = 1/2", x["tight"], 4),
            ]
        return Scene(panels, readings)

    alt = (
        "Two panels, losses against the sample size on logarithmic axes. The risk of the selected "
        "gate is nearly level; the two right sides of Theorem 2 fall towards it and cross the line "
        "of the best single expert; a band under the risk is delta."
    )
    dials = {
        "sample_size": Dial("sample size m", 256, sizes, (32, 4096, 1)),
        "alpha": alpha_dial(1, alphas),
    }
    return Explorer("theorem2", scene, dials, alt)


# --- private gates and noisy links ---

RESPONSE = "randomised response"
STAIRCASE = "staircase, the best mechanism"


def most_used_experts(
    n_experts: int = 8,
) -> tuple[np.ndarray, np.ndarray, RateDistortionCurve]:
    """Prior (k,), costs (k, k) and certified curve of the experts that the shipped example gate of
    the specialists uses most, as the chapter has them."""
    gate = load_gates().example("specialists")
    few = np.argsort(-gate.mean(axis=0))[:n_experts]
    losses = load_bank("specialists").losses("test")[:, few]
    choice = gate[:, few].argmax(axis=1)
    prior, costs = wanted_experts(np.eye(n_experts)[choice], losses)
    return prior, costs, rate_distortion_curve(losses, band=1e-4)


class _PrivateLinks:
    """A wanted index, made private, over a k-ary symmetric link."""

    def __init__(self, prior: np.ndarray, costs: ArrayLike, curve: RateDistortionCurve) -> None:
        k = len(prior)
        self.prior = prior
        self.costs = costs
        self.curve = curve
        self.errors = with_stops(np.linspace(0, 1 - 1 / k, 57), 0.1)
        self.epsilons = with_stops(np.geomspace(0.1, 8, 49), 0.5, 1, 2, 3, 5)
        self.x = Axis("error of the link", 0, 1 - 1 / k)
        self.y = Axis("expected loss", 0.9 * curve.floor, 1.1 * curve.ceiling)
        self.links = lru_cache(maxsize=512)(partial(symmetric_channel, k))
        self.mechanisms = lru_cache(maxsize=128)(self._mechanisms)
        self.loss_of = lru_cache(maxsize=8192)(self._loss_of)
        self.along = lru_cache(maxsize=128)(self._along)

    def _mechanisms(self, epsilon: float) -> dict[str, np.ndarray]:
        return {
            RESPONSE: randomised_response(len(self.prior), epsilon),
            STAIRCASE: least_loss_mechanism(self.prior, epsilon, self.costs),
        }

    def _loss_of(self, name: str, epsilon: float, error: float) -> float:
        received = self.mechanisms(epsilon)[name] @ self.links(error)
        return routed_loss(self.prior, self.costs, received)

    def caps(self, epsilon: float, error: float) -> tuple[float, float]:
        """Nats that privacy allows, and nats that the link carries."""
        k = len(self.prior)
        privacy = float(min(ldp_rate_cap(k, epsilon), ldp_sharp_cap(epsilon)))
        return privacy, float(symmetric_capacity(k, error))

    def _along(self, epsilon: float) -> tuple[list[Series], Track]:
        places = np.array(self.errors)
        least = [min(self.caps(epsilon, error)) for error in self.errors]
        limit = np.asarray(self.curve.lower(least))
        series = [Series("D at the least cap", places, limit, look=LIMIT)]
        for name, look in ((RESPONSE, SECOND), (STAIRCASE, FIRST)):
            losses = [self.loss_of(name, epsilon, error) for error in self.errors]
            series.append(Series(name, places, np.array(losses), look=look))
        return series, Track("error", places, places, series[-1].y)

    def scene(self, error: float, epsilon: float) -> Scene:
        series, track = self.along(epsilon)
        privacy, capacity = self.caps(epsilon, error)
        loss = self.loss_of(STAIRCASE, epsilon, error)
        limit = float(self.curve.lower(min(privacy, capacity)))
        received = self.mechanisms(epsilon)[STAIRCASE] @ self.links(error)
        marks = [
            Mark("staircase, down to the limit", error, loss, low=limit, high=loss),
            Mark("no gate: D(0)", 0, self.curve.ceiling, "rule", LIMIT),
            Mark("every input's best", 0, self.curve.floor, "rule", LIMIT),
        ]
        readings = [
            Reading("privacy allows", privacy, 3, "nats"),
            Reading("the link carries", capacity, 3, "nats"),
            Reading("staircase carries", mutual_information(received, self.prior), 3, "nats"),
            Reading("loss of the staircase", loss, 4),
            Reading("loss of randomised response", self.loss_of(RESPONSE, epsilon, error), 4),
            Reading("limit", limit, 4),
        ]
        return Scene([Panel(self.x, self.y, series, marks, track)], readings)


def explore_link(
    prior: ArrayLike | None = None,
    costs: ArrayLike | None = None,
    curve: RateDistortionCurve | None = None,
) -> Explorer:
    """What a private index on a noisy link is worth: loss by the link's error and by epsilon, above
    D of the least cap.

    The wanted index of law prior (k,), costs (k, k) from `privacy.wanted_experts`, is made private,
    crosses a k-ary symmetric link once, and the receiver takes the best expert for what arrives.
    `curve` is the bank's own, banded. Without arguments: the eight experts of the chapter.
    """
    if prior is None or costs is None or curve is None:
        prior, costs, curve = most_used_experts()
    links = _PrivateLinks(np.asarray(prior, dtype=float), costs, curve)
    alt = (
        "Expected loss against the error of the link: two lines for private mechanisms rise to the "
        "loss of the best single expert, above a limit. A ring marks the chosen error, and a line "
        "joins it to the limit."
    )
    dials = {
        "error": Dial("error of the link", 0.1, links.errors, (0.0, links.x.high, 0.005)),
        "epsilon": Dial("privacy parameter ε", 2, links.epsilons, (-1, 0.9, "log")),
    }
    return Explorer("links", links.scene, dials, alt)
