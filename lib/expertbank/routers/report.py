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
from expertbank.routers import measures
from expertbank.routers.agreement import Agreement
from expertbank.routers.layer_report import LayerReport, layer_fields, null_fields, shown
from expertbank.routers.nulls import DomainNull, domain_null, family_p
from expertbank.routers.quantities import CAUTIONS, QUANTITIES, RATE_OF_PICKS, Quantity
from expertbank.routers.statistics import Layer, LayerStatistics, RouterStatistics
from expertbank.routers.verdicts import UNKNOWN, WORDS, Verdict, layer_verdict, worst_layers

RELABELLINGS = 199  # the fewest with which p falls to 0.005
UNEVEN = 2.0  # ratio of the lengths of domains' texts from which p values need a caution
WIDTH = 110  # of text in a terminal
MOST_NAMED = 12  # dead experts of a layer, or layers, that a note names; JSON has all


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

    @property
    def verdicts(self) -> list[Verdict]:
        """One of each layer, by `layer_verdict`."""
        return [layer_verdict(layer) for layer in self.layers]

    def count_of_verdicts(self) -> dict[str, int]:
        """Layers by verdict, the worst first; only words that some layer has.

        >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
        >>> statistics.update(0, 80 * [[0], [1]])
        >>> routing_report(statistics).count_of_verdicts()
        {'not known': 1}
        """
        found = [verdict.word for verdict in self.verdicts]
        return {word: found.count(word) for word in WORDS if word in found}

    def worst(self) -> list[tuple[LayerReport, Verdict]]:
        """The layers to look at first."""
        return worst_layers(self.layers)

    def unmeasured(self) -> list[str]:
        """What no verdict could look at, and in how many layers, a sentence each."""
        found = [text for verdict in self.verdicts for text in verdict.unmeasured]
        n = len(self.layers)
        return [
            f"Not measured in {found.count(text)} of {n} layers: {text}."
            for text in dict.fromkeys(found)
        ]

    def headline(self) -> str:
        """One line: how many layers have which verdict."""
        counts = ", ".join(f"{n} {word}" for word, n in self.count_of_verdicts().items())
        unknown = [verdict for verdict in self.verdicts if verdict.word == UNKNOWN]
        in_order = [each for each in unknown if not each.unmeasured[0].startswith("load")]
        more = f" The load of {len(in_order)} not known is in order." if in_order else ""
        return f"Verdict by layer: {counts}.{more}"

    def front(self) -> list[str]:
        """The first lines of the text: verdicts, the worst layers with what to do, what was not
        measured."""
        lines = [self.headline(), *self.unmeasured()]
        for layer, verdict in self.worst():
            lines.append(f"Layer {layer.name}, {verdict.word}: {verdict.reason} {verdict.action}")
        return lines

    def table(self, explain: bool = False) -> str:
        """Plain text for a terminal: the verdicts, then a table a group, a line a layer; `explain`
        adds what every number is, its unit and what would be good to see."""
        front = [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in self.front()]
        lines = [self.title(), *front, ""]
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
                quantity.lesson, WIDTH, initial_indent=head, subsequent_indent=indent
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
            "title": self.title(),
            "headline": self.headline(),
            "unmeasured": self.unmeasured(),
            "notes": self.notes(),
            "verdicts": [dataclasses.asdict(verdict) for verdict in self.verdicts],
            "worst": [layer.layer for layer, _ in self.worst()],
            "layers": layers,
            "relabellings": self.relabellings,
            "labels": {name: self.quantity(name).label for name in QUANTITIES},
            "explanations": {name: self.quantity(name).text for name in QUANTITIES},
            "unit_of": {name: self.quantity(name).unit for name in QUANTITIES},
            "good": {name: self.quantity(name).good for name in QUANTITIES},
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
        fields = layer_fields(statistics, name, agreements.get(name))
        if name in nulls:
            fields |= null_fields(nulls[name], fields["domain_information"])
            fields["family_p"] = adjusted.get(name)
        found.append(LayerReport(name, int(known[name].tokens), **fields))
    pooled = _pooled_balance_loss([known[name] for name in names])
    fewest = min((len(null.values) for null in nulls.values()), default=relabellings)
    return RoutingReport(statistics.n_experts, statistics.n_chosen, tuple(found), pooled, fewest)


# --- text ---


def _is_sampled(layer: LayerReport) -> bool:
    """Whether the null permutes fewer sequences than there are."""
    n_permuted = layer.permuted
    n_known = layer.sequences if layer.capped == "yes" else None
    return n_permuted is not None and n_known is not None and n_permuted < n_known


def short_names(names: list[str]) -> list[str]:
    """Names that differ in one number alone, as that number; others as they are.

    >>> short_names(["layers.9.gate", "layers.10.gate"])
    ['9', '10']
    """
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({len(each) for each in parts}) > 1:
        return names
    differ = [i for i, column in enumerate(zip(*parts)) if len(set(column)) > 1]
    if len(differ) != 1 or differ[0] % 2 == 0:
        return names
    return [each[differ[0]] for each in parts]


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


def _pooled_balance_loss(layers: list[LayerStatistics]) -> float | None:
    """The balance loss of all layers that have choices and probabilities, taken together."""
    layers = [layer for layer in layers if layer.slots.any() and layer.probable]
    if not layers:
        return None
    load = np.sum([layer.slots for layer in layers], axis=0)
    probabilities = sum(layer.probability_sum for layer in layers)
    return measures.balance_loss(load, np.asarray(probabilities))
