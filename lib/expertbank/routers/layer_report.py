"""What the statistics of one layer of a router amount to, number by number. Nats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from expertbank._files import printable
from expertbank.information import (
    conditional_information,
    entropy,
    joint_bias,
    joint_information,
)
from expertbank.routers import measures
from expertbank.routers.agreement import Agreement
from expertbank.routers.coactivation import (
    baseline_total_correlation,
    baseline_tree,
    chow_liu_information,
    total_correlation,
)
from expertbank.routers.nulls import DomainNull, holds_mixed
from expertbank.routers.statistics import Layer, LayerStatistics, RouterStatistics

LONGEST_NAME = 100  # characters of a layer's name in tables
# fields of a layer, by what is known of it
Fields = dict[str, Any]


@dataclass(frozen=True)
class LayerReport:
    """One layer; None where its statistics do not hold what a number needs. `QUANTITIES` explains
    each field. Information and entropies are in nats.

    >>> statistics = RouterStatistics(n_experts=4, n_chosen=1)
    >>> statistics.update(0, [[0], [0], [1], [2]])
    >>> layer = LayerReport(0, 4, **layer_fields(statistics, 0))
    >>> layer.dead_experts, layer.max_violation, layer.domain_information
    ((3,), 1.0, None)
    """

    layer: Layer
    tokens: int
    unrouted: int | None = None
    heard: str | None = None
    """`verified`, `by form` or `own extractor`, where a recorder listened"""
    # rate
    rate_of: str | None = None
    rate: float | None = None
    output_entropy: float | None = None
    conditional_entropy: float | None = None
    softmax_rate: float | None = None
    weight_sum: float | None = None
    # load
    slots: int | None = None
    used: int | None = None
    dead: int | None = None
    load_entropy: float | None = None
    collision_entropy: float | None = None
    min_entropy: float | None = None
    variation: float | None = None
    max_violation: float | None = None
    steps: int | None = None
    step_violation: float | None = None
    step_violation_p50: float | None = None
    step_violation_p95: float | None = None
    step_violation_max: float | None = None
    utilisation: float | None = None
    balance_loss: float | None = None
    empty_slots: float | None = None
    # domains
    domain_entropy: float | None = None
    domain_information: float | None = None
    domain_bias: float | None = None
    given_position: float | None = None
    given_position_bias: float | None = None
    purity: float | None = None
    load_purity: float | None = None
    fano_floor: float | None = None
    # whether that is more than chance
    null_unit: str | None = None
    permuted: int | None = None
    length_ratio: float | None = None
    null_mean: float | None = None
    null_high: float | None = None
    excess: float | None = None
    domain_p: float | None = None
    family_p: float | None = None
    # sequences, positions, tokens
    sequences: int | None = None
    sequence_entropy: float | None = None
    cap: float | None = None
    capped: str | None = None
    sequence_information: float | None = None
    sequence_bias: float | None = None
    position_information: float | None = None
    position_bias: float | None = None
    token_information: float | None = None
    token_bias: float | None = None
    # experts chosen together
    coactivation_of: str | None = None
    coactivation: float | None = None
    coactivation_baseline: float | None = None
    coactivation_bias: float | None = None
    # against another run
    flip_rate: float | None = None
    chance_flip_rate: float | None = None
    matched_flip_rate: float | None = None
    agreement_information: float | None = None
    near_ties: float | None = None
    near_flips: float | None = None
    # experts of the next layer
    next_layer: str | None = None
    next_information: float | None = None
    next_bias: float | None = None
    # prompts beside what is generated
    prefill_violation: float | None = None
    decode_violation: float | None = None
    no_phase: int | None = None
    phase_distance: float | None = None
    phase_information: float | None = None
    phase_bias: float | None = None
    # for figures
    dead_experts: tuple[int, ...] = ()
    load: tuple[float, ...] = ()
    flips_by_position: tuple[float | None, ...] = ()
    """flip rate at positions 0, 1, 2 to 3, 4 to 7 and so on; None where there is none"""
    tokens_by_margin: tuple[int, ...] = ()
    """by how near a tie the choice was, between `agreement.TIE_MARGINS`"""
    flips_by_margin: tuple[int, ...] = ()
    """slots that differ, of these tokens"""

    @property
    def name(self) -> str:
        """What the layer is called, as a terminal or a page can show it."""
        return printable(self.layer, LONGEST_NAME)


def shown(value: float | int | str | None) -> str:
    """A number as the tables show it.

    >>> shown(0.25), shown(0.0004), shown(12345), shown("picks"), shown(None)
    ('0.2500', '4.0e-04', '12,345', 'picks', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        if np.isnan(value):
            return "-"
        if 1e-9 < abs(value) < 1e-3:
            return f"{value:.1e}"
        return f"{value:.4f}".replace("-0.0000", "0.0000")
    return f"{value:,}" if isinstance(value, int) else value


# --- the numbers of a layer, group by group ---


def layer_fields(
    statistics: RouterStatistics, name: Layer, agreement: Agreement | None = None
) -> Fields:
    """What is known of a layer, as fields of its `LayerReport`; only the null is not among them.

    >>> statistics = RouterStatistics(n_experts=4, n_chosen=1)
    >>> statistics.update(0, [[0], [0], [1], [2]])
    >>> layer_fields(statistics, 0)["dead"]
    1
    """
    layer = statistics.layers[name]
    n_experts = statistics.n_experts
    found: Fields = {}
    if layer.unrouted:
        found["unrouted"] = int(layer.unrouted)
    if name in statistics.heard:
        found["heard"] = printable(statistics.heard[name], LONGEST_NAME)
    if layer.slots.any() or layer.sizes.sum() or layer.probable:
        found |= _rate_fields(layer) | _load_fields(layer, n_experts, statistics.n_chosen)
    if layer.domains.any():
        found |= _domain_fields(layer)
    if layer.sequence_slots.any():
        found |= _sequence_fields(layer, n_experts)
    if layer.positions.any():
        counts = layer.positions.sum(axis=1)
        found["position_information"] = joint_information(counts)
        found["position_bias"] = joint_bias(counts)
    if layer.token_slots.any():
        found["token_information"] = joint_information(layer.token_slots)
        found["token_bias"] = joint_bias(layer.token_slots)
    # where loads without choices were added, memberships are not known
    n_slots = layer.slots.sum()
    are_all_choices = n_slots == layer.sizes @ np.arange(len(layer.sizes))
    if statistics.n_chosen > 1 and n_slots > 0 and are_all_choices:
        found |= _coactivation_fields(layer)
    if agreement is not None:
        compared = {
            "flip_rate": agreement.flip_rate,
            "chance_flip_rate": agreement.chance_flip_rate,
            "matched_flip_rate": agreement.matched_flip_rate,
            "agreement_information": agreement.information,
        }
        compared["near_ties"], compared["near_flips"] = agreement.near_ties
        # nan where it means nothing, as between runs of different numbers of experts
        found |= {name: rate for name, rate in compared.items() if not np.isnan(rate)}
        if "flip_rate" in found:
            found |= _flip_fields(agreement)
    return found


def _flip_fields(agreement: Agreement) -> Fields:
    """Where the differences lie: by position, and by how near a tie the choice was."""
    found: Fields = {}
    slots, flips = agreement.by_position
    if slots.any():
        last = int(np.flatnonzero(slots)[-1])
        rates = [float(flips[i] / slots[i]) if slots[i] else None for i in range(last + 1)]
        found["flips_by_position"] = tuple(rates)
    if agreement.by_margin[0].any():
        found["tokens_by_margin"] = tuple(agreement.by_margin[0].tolist())
        found["flips_by_margin"] = tuple(agreement.by_margin[1].tolist())
    return found


def next_fields(name: Layer, transition: Agreement) -> Fields:
    """How a layer's experts go with those of the next, which has that name.

    >>> transition = Agreement(n_experts=2)
    >>> transition.update([[0], [1]], [[1], [0]])
    >>> round(next_fields("head", transition)["next_information"], 4)
    0.6931
    """
    if not transition.pairs.any():
        return {}
    return {
        "next_layer": printable(name, LONGEST_NAME),
        "next_information": transition.information,
        "next_bias": joint_bias(transition.pairs),
    }


def with_phases(layer: LayerStatistics, decode_from: int) -> LayerStatistics:
    """A layer whose tokens at positions from `decode_from` on were generated, the others of
    prompts; as it is where it has counted phases.

    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1, n_positions=3)
    >>> statistics.update(0, [[0], [0], [1]], position=[0, 1, 2])
    >>> with_phases(statistics.layers[0], 2).phases.tolist()
    [[2, 0], [0, 1]]
    """
    if layer.phases.any():
        return layer
    slots = layer.positions.sum(axis=1)
    phases = [slots[:decode_from].sum(axis=0), slots[decode_from:].sum(axis=0)]
    return replace(layer, phases=np.stack(phases))


def phase_fields(layer: LayerStatistics) -> Fields:
    """How far the loads of prompts and of what is generated differ; nothing where one is empty.

    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
    >>> statistics.update(0, [[0], [0], [1]], phase=[0, 0, 1])
    >>> phase_fields(statistics.layers[0])["phase_distance"]
    1.0
    """
    loads = layer.phases
    if not loads.any(axis=1).all():
        return {}
    shares = loads / loads.sum(axis=1, keepdims=True)
    return {
        "prefill_violation": measures.max_violation(loads[0]),
        "decode_violation": measures.max_violation(loads[1]),
        "no_phase": int(layer.slots.sum() - loads.sum()),
        "phase_distance": float(np.abs(shares[0] - shares[1]).sum() / 2),
        "phase_information": joint_information(loads),
        "phase_bias": joint_bias(loads),
    }


def _rate_fields(layer: LayerStatistics) -> Fields:
    """H(T) and H(T|X), of the weights where there are any, else of uniform picks, else of the
    softmax."""
    found: Fields = {}
    softmax_entropy = softmax_conditional = 0.0
    if layer.probable:
        mean = layer.probability_sum / layer.probable
        softmax_entropy = float(entropy(mean / mean.sum()))
        softmax_conditional = float(layer.probability_entropy / layer.probable)
        found["softmax_rate"] = max(0.0, softmax_entropy - softmax_conditional)
    if layer.weighted:
        rate_of = "weights"
        output_entropy = float(entropy(layer.weight_load / layer.weight_load.sum()))
        conditional = float(layer.weight_entropy / layer.weighted)
        found["weight_sum"] = float(layer.weight_sum / layer.weighted)
    elif layer.sizes[1:].any():
        rate_of = "picks"
        output_entropy = measures.renyi_entropy(layer.slots, 1)
        size = np.arange(len(layer.sizes))
        inside = size * np.log(np.maximum(size, 1))
        conditional = float(layer.sizes @ inside / (layer.sizes @ size))
    elif layer.probable:
        rate_of = "softmax"
        output_entropy = softmax_entropy
        conditional = softmax_conditional
    elif layer.slots.any():  # loads alone
        return {"output_entropy": measures.renyi_entropy(layer.slots, 1)}
    else:  # every slot was dropped
        return found
    return found | {
        "rate_of": rate_of,
        "rate": max(0.0, output_entropy - conditional),
        "output_entropy": output_entropy,
        "conditional_entropy": conditional,
    }


def _load_fields(layer: LayerStatistics, n_experts: int, n_chosen: int) -> Fields:
    found: Fields = {}
    n = int(layer.sizes.sum())
    if n:
        n_filled = float(layer.sizes @ np.arange(n_chosen + 1))
        found["empty_slots"] = 1 - n_filled / (n * n_chosen)
    load = layer.slots if layer.slots.any() else layer.probability_sum
    if not load.any():
        return found
    if layer.slots.any():
        found["slots"] = int(layer.slots.sum())
    if layer.probable and layer.slots.any():
        found["balance_loss"] = measures.balance_loss(load, layer.probability_sum)
    if layer.steps:
        found |= {
            "steps": layer.steps,
            "step_violation": layer.mean_step_violation,
            "step_violation_p50": layer.step_violation(0.5),
            "step_violation_p95": layer.step_violation(0.95),
            "step_violation_max": layer.step_violation(1),
        }
    dead = np.flatnonzero(load == 0)
    return found | {
        "used": n_experts - len(dead),
        "dead": len(dead),
        "dead_experts": tuple(dead.tolist()),
        "load": tuple((load / load.sum()).tolist()),
        "load_entropy": measures.renyi_entropy(load, 1),
        "collision_entropy": measures.renyi_entropy(load, 2),
        "min_entropy": measures.renyi_entropy(load, np.inf),
        "variation": measures.variation(load),
        "max_violation": measures.max_violation(load),
        "utilisation": measures.utilisation(load),
    }


def _domain_fields(layer: LayerStatistics) -> Fields:
    counts = layer.domains[layer.domains.any(axis=1)]
    information = joint_information(counts)
    accuracy = measures.load_purity(counts)
    label_entropy = float(entropy(counts.sum(axis=1) / counts.sum()))
    found: Fields = {
        "domain_entropy": label_entropy,
        "domain_information": information,
        "domain_bias": joint_bias(counts),
        "purity": measures.purity(counts),
        "load_purity": accuracy,
    }
    if len(counts) > 1:
        found["fano_floor"] = measures.fano_floor(accuracy, label_entropy, len(counts))
    if layer.positions.any():
        found["given_position"] = conditional_information(np.moveaxis(layer.positions, 0, -1))
        tables = [table for table in layer.positions if table.any()]
        biases = [joint_bias(table) * table.sum() for table in tables]
        found["given_position_bias"] = float(sum(biases) / layer.positions.sum())
    return found


def null_fields(null: DomainNull, information: float) -> Fields:
    """What relabelling says about I(D;T) of a layer, as fields of its `LayerReport`.

    >>> from expertbank.routers.nulls import domain_null
    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1, n_domains=2)
    >>> statistics.update(0, [[0], [1]], domain=[0, 1], sequence=[0, 1])
    >>> null_fields(domain_null(statistics, 0, 9), 0.7)["permuted"]
    2
    """
    return {
        "null_unit": null.unit,
        "permuted": null.n_units,
        "length_ratio": null.lengths,
        "null_mean": null.mean,
        "null_high": null.high,
        "excess": information - null.mean,
        "domain_p": null.p,
    }


def _sequence_fields(layer: LayerStatistics, n_experts: int) -> Fields:
    slots = int(layer.sequence_slots.sum())
    inside = float(layer.sequence_entropy) / slots
    information = measures.renyi_entropy(layer.sequence_slots, 1) - inside
    # Miller and Madow: parameters of all sequences less those of the load
    n_free = int(layer.sequence_cells - layer.sequences)
    n_free_load = int((layer.sequence_slots > 0).sum() - 1)
    return {
        "sequences": int(layer.sequences),
        "sequence_entropy": inside,
        "cap": max(0.0, float(np.log(n_experts)) - inside),
        "capped": _capped(layer),
        "sequence_information": max(0.0, information),
        "sequence_bias": (n_free - n_free_load) / (2 * slots),
    }


def _capped(layer: LayerStatistics) -> str | None:
    """Whether I(D;T) <= I(Seq;T) is sure: the domain is a function of the sequence, and both are
    known of the same slots. None where one of them is not known at all."""
    if not layer.domains.any() or layer.mixed_sequences < 0:
        return None
    if holds_mixed(layer):
        return "mixed"
    same = layer.known_slots == layer.domains.sum() == layer.sequence_slots.sum()
    return "yes" if same else "apart"


def _coactivation_fields(layer: LayerStatistics) -> Fields:
    """Total correlation of the chosen set beside that of experts chosen independently, as often as
    here and as many at a time."""
    if layer.sets.size:
        value, bias = total_correlation(layer)
        baseline = baseline_total_correlation(layer)
    else:
        value = chow_liu_information(layer)
        baseline, bias = baseline_tree(layer)
    return {
        "coactivation_of": "sets" if layer.sets.size else "tree",
        "coactivation": value,
        "coactivation_baseline": baseline,
        "coactivation_bias": bias,
    }
