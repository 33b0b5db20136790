"""A report on a router, layer by layer, from its statistics: numbers, how to read them, a table and
JSON. Nats."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from expertbank._checks import as_count
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
from expertbank.routers.nulls import DomainNull, domain_null, family_p, holds_mixed
from expertbank.routers.quantities import CAUTIONS, QUANTITIES, RATE_OF_PICKS, Quantity
from expertbank.routers.statistics import Layer, LayerStatistics, RouterStatistics

RELABELLINGS = 199  # the fewest with which p falls to 0.005
UNEVEN = 2.0  # ratio of the lengths of domains' texts from which p values need a caution
WIDTH = 110  # of text in a terminal
MOST_NAMED = 12  # dead experts of a layer, or layers, that a note names; JSON has all

# fields of a layer, by what is known of it
LONGEST_NAME = 100  # characters of a layer's name in tables
Fields = dict[str, Any]


@dataclass(frozen=True)
class LayerReport:
    """One layer; None where its statistics do not hold what a number needs. `QUANTITIES` explains
    each field. Information and entropies are in nats.

    >>> statistics = RouterStatistics(n_experts=4, n_chosen=1)
    >>> statistics.update(0, [[0], [0], [1], [2]])
    >>> layer = routing_report(statistics).layers[0]
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
    used: int | None = None
    dead: int | None = None
    load_entropy: float | None = None
    collision_entropy: float | None = None
    min_entropy: float | None = None
    variation: float | None = None
    max_violation: float | None = None
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
    # for figures
    dead_experts: tuple[int, ...] = ()
    load: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """What the layer is called, as a terminal or a page can show it."""
        return printable(self.layer, LONGEST_NAME)


@dataclass(frozen=True)
class RoutingReport:
    """All layers of a router, and what only shows across them.

    >>> statistics = RouterStatistics(n_experts=4, n_chosen=1)
    >>> statistics.update(0, [[0], [0], [1], [2]])
    >>> report = routing_report(statistics)
    >>> print(report.title())
    1 layer, 4 experts, 1 a token; nats, log E = 1.3863
    >>> print(report.notes()[0])
    Dead experts in layer 0: 3.
    """

    n_experts: int
    n_chosen: int
    layers: tuple[LayerReport, ...]
    pooled_balance_loss: float | None
    """E sum_i f_i P_i with f and P averaged over layers first, as transformers does (there times
    k)"""
    relabellings: int = RELABELLINGS
    """n behind each p value; of a file of an earlier version, as many as it holds"""

    def quantity(self, name: str) -> Quantity:
        """What the number in a field is called here and how to read it: where no layer has more
        than choices, `rate` is no I(X;T) of the router's weights.

        >>> statistics = RouterStatistics(n_experts=4, n_chosen=1)
        >>> statistics.update(0, [[0], [0], [1], [2]])
        >>> routing_report(statistics).quantity("rate").label
        'H(T) - log k'
        """
        picks_alone = all(layer.rate_of in (None, "picks") for layer in self.layers)
        return RATE_OF_PICKS if name == "rate" and picks_alone else QUANTITIES[name]

    def groups(self) -> dict[str, list[str]]:
        """Fields by table, only those that some layer has."""
        found: dict[str, list[str]] = {}
        for name, quantity in QUANTITIES.items():
            if any(getattr(layer, name) is not None for layer in self.layers):
                found.setdefault(quantity.group, []).append(name)
        return found

    def table(self, explain: bool = False) -> str:
        """Plain text for a terminal: a table a group, a line a layer; `explain` adds a sentence on
        every number."""
        lines = [self.title(), ""]
        for group, names in self.groups().items():
            lines += [group, *self._table_lines(names), ""]
            if explain:
                lines += [*self._explanation_lines(names), ""]
        lines += [textwrap.fill(note, WIDTH) for note in self.notes()]
        return "\n".join(lines).rstrip() + "\n"

    def _table_lines(self, names: list[str]) -> list[str]:
        """Heads, a rule and a line a layer, aligned."""
        heads = ["layer", *(self.quantity(name).label for name in names)]
        rows = [
            [layer.name, *(shown(getattr(layer, name)) for name in names)] for layer in self.layers
        ]
        widths = [max(map(len, column)) for column in zip(heads, *rows)]
        rule = ["-" * width for width in widths]
        lines = []
        for row in (heads, rule, *rows):
            numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
            lines.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
        return lines

    def _explanation_lines(self, names: list[str]) -> list[str]:
        """How to read these numbers, beside the label of each."""
        quantities = [self.quantity(name) for name in names]
        width = max(len(quantity.label) for quantity in quantities)
        indent = " " * (width + 4)
        lines = []
        for quantity in quantities:
            head = f"  {quantity.label.ljust(width)}  "
            wrapped = textwrap.fill(
                quantity.text, WIDTH, initial_indent=head, subsequent_indent=indent
            )
            lines.append(wrapped)
        return lines

    def title(self) -> str:
        """One line: what was counted."""
        plural = "s" if len(self.layers) > 1 else ""
        return (
            f"{len(self.layers)} layer{plural}, {self.n_experts} experts, {self.n_chosen} a token; "
            f"nats, log E = {np.log(self.n_experts):.4f}"
        )

    def notes(self) -> list[str]:
        """What needs a sentence: dead experts, the pooled balance loss beside the worst layer's,
        and what keeps a p value or a cap from holding."""
        notes = []
        for layer in self.layers:
            dead = layer.dead_experts
            if dead:
                named = _listed([str(expert) for expert in dead])
                notes.append(f"Dead experts in layer {layer.name}: {named}.")
        losses = [layer.balance_loss for layer in self.layers if layer.balance_loss is not None]
        if self.pooled_balance_loss is not None and len(losses) > 1:
            notes.append(
                f"Balance loss pooled over layers {self.pooled_balance_loss:.4f}, of single layers "
                f"up to {max(losses):.4f}: a model's pooled loss cannot see what layers make up "
                "for in one another."
            )
        return notes + self._cautions()

    def _cautions(self) -> list[str]:
        """One sentence on each thing that the tables' claims need and these layers have not."""
        cautions = []
        by_form = [layer.name for layer in self.layers if layer.heard == "by form"]
        if by_form:
            cautions.append(CAUTIONS["by_form"].format(layers=_listed(by_form)))
        for reason in ("mixed", "apart"):
            names = [layer.name for layer in self.layers if layer.capped == reason]
            if names:
                cautions.append(CAUTIONS[reason].format(layers=_listed(names)))
        if any(_is_sampled(layer) for layer in self.layers):
            cautions.append(CAUTIONS["sampled"])
        ratio = max((layer.length_ratio for layer in self.layers if layer.length_ratio), default=1)
        if ratio > UNEVEN:
            cautions.append(CAUTIONS["lengths"].format(ratio=ratio))
        n = self.relabellings
        if n < RELABELLINGS and any(layer.domain_p for layer in self.layers):
            few = CAUTIONS["few"].format(n=n, least=1 / (n + 1), wanted=RELABELLINGS)
            cautions.append(few)
        return cautions

    def json(self) -> dict[str, Any]:
        """Everything as plain dicts and lists that `json.dumps` takes; what is not known is
        None."""
        layers = [
            {name: _plain(value) for name, value in dataclasses.asdict(layer).items()}
            for layer in self.layers
        ]
        return {
            "units": "nats",
            "n_experts": self.n_experts,
            "n_chosen": self.n_chosen,
            "pooled_balance_loss": _plain(self.pooled_balance_loss),
            "layers": layers,
            "relabellings": self.relabellings,
            "labels": {name: self.quantity(name).label for name in QUANTITIES},
            "explanations": {name: self.quantity(name).text for name in QUANTITIES},
        }


def routing_report(
    statistics: RouterStatistics,
    agreements: Mapping[Layer, Agreement] | None = None,
    layers: Iterable[Layer] | None = None,
    relabellings: int = RELABELLINGS,
) -> RoutingReport:
    """The report on a router's statistics; `agreements` (layer -> Agreement) adds a comparison with
    another run.

    `layers` picks some, in that order. `relabellings` is how many permutations of the domains p
    values are made of; those corrected for the number of layers speak of all layers of the
    statistics, however many are picked. Raises ValueError where there is no such layer, or none at
    all, and for no relabelling.

    >>> statistics = RouterStatistics(n_experts=4, n_chosen=2, n_domains=2)
    >>> statistics.update(0, 8 * [[0, 1], [2, 3]], domain=8 * [0, 1], sequence=range(16))
    >>> layer = routing_report(statistics).layers[0]
    >>> round(layer.rate, 4), round(layer.domain_information, 4)  # the domain is all it looks at
    (0.6931, 0.6931)
    """
    if not isinstance(statistics, RouterStatistics):
        raise ValueError(
            f"statistics is a {type(statistics).__name__}; allowed is a RouterStatistics"
        )
    if agreements is None:
        agreements = {}
    known = statistics.layers
    names = sorted(known, key=_natural) if layers is None else list(layers)
    for name in [*names, *agreements]:
        if name not in known:
            raise ValueError(
                f"there is no layer {name!r}; allowed are {sorted(known, key=_natural)}"
            )
    if not names:
        raise ValueError("the statistics hold no layer; update them first")
    as_count(relabellings, "relabellings")
    nulls: dict[Layer, DomainNull] = {}
    for name in known:
        null = domain_null(statistics, name, relabellings)
        if null is not None:
            nulls[name] = null
    adjusted = family_p(nulls)
    found = []
    for name in names:
        fields = _layer_fields(statistics, name, agreements.get(name))
        if name in nulls:
            fields |= _null_fields(nulls[name], fields["domain_information"])
            fields["family_p"] = adjusted.get(name)
        found.append(LayerReport(name, int(known[name].tokens), **fields))
    pooled = _pooled_balance_loss([known[name] for name in names])
    fewest = min((len(null.values) for null in nulls.values()), default=relabellings)
    return RoutingReport(statistics.n_experts, statistics.n_chosen, tuple(found), pooled, fewest)


# --- text ---


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


def _is_sampled(layer: LayerReport) -> bool:
    """Whether the null permutes fewer sequences than there are."""
    n_permuted = layer.permuted
    n_known = layer.sequences if layer.capped == "yes" else None
    return n_permuted is not None and n_known is not None and n_permuted < n_known


def _listed(names: list[str]) -> str:
    """Names, with no more than `MOST_NAMED` of them written out."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _natural(name: Layer) -> list[int | str]:
    """Sorts layer 10 after layer 9, as a number or within a name."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", str(name)))]


def _plain(value: Any) -> Any:
    """nan and infinity have no place in JSON."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value


# --- the numbers of a layer, group by group ---


def _layer_fields(statistics: RouterStatistics, name: Layer, agreement: Agreement | None) -> Fields:
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
        # nan where it means nothing, as between runs of different numbers of experts
        found |= {name: rate for name, rate in compared.items() if not np.isnan(rate)}
    return found


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
    if layer.probable and layer.slots.any():
        found["balance_loss"] = measures.balance_loss(load, layer.probability_sum)
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


def _null_fields(null: DomainNull, information: float) -> Fields:
    """What relabelling says about I(D;T) of a layer."""
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


def _pooled_balance_loss(layers: list[LayerStatistics]) -> float | None:
    """The balance loss of all layers that have choices and probabilities, taken together."""
    layers = [layer for layer in layers if layer.slots.any() and layer.probable]
    if not layers:
        return None
    load = np.sum([layer.slots for layer in layers], axis=0)
    probabilities = sum(layer.probability_sum for layer in layers)
    return measures.balance_loss(load, np.asarray(probabilities))
