"""A report on a router, layer by layer, from its statistics: numbers, how to read them, a table and
JSON. Nats."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from expertbank._checks import as_count
from expertbank._files import json_ready, printable
from expertbank.routers import measures
from expertbank.routers.agreement import TIE_MARGINS, Agreement
from expertbank.routers.communication import FACTORS, Cost, Costs
from expertbank.routers.layer_report import (
    LONGEST_NAME,
    Fields,
    LayerReport,
    layer_fields,
    next_fields,
    null_fields,
    phase_fields,
    shown,
    with_phases,
)
from expertbank.routers.maps import MOST_PICTURED, LayerMap, layer_map
from expertbank.routers.nulls import DomainNull, domain_null, family_p
from expertbank.routers.quantities import (
    CAUTIONS,
    FURTHER_TEXTS,
    QUANTITIES,
    RATE_OF_PICKS,
    Quantity,
)
from expertbank.routers.statistics import Layer, LayerStatistics, RouterStatistics
from expertbank.routers.verdicts import (
    FINE,
    SHORT,
    UNKNOWN,
    WORDS,
    Verdict,
    layer_verdict,
    worst_layers,
)

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
    maps: tuple[LayerMap, ...] = ()
    """pictures of at most `MOST_PICTURED` layers"""
    costs: Costs | None = None
    """what expert parallelism costs, where that was asked for"""
    checkpoints: tuple[tuple[str, RoutingReport], ...] = ()
    """reports on earlier states of the same router, by name, in order"""
    beside: tuple[str, RoutingReport] | None = None
    """the report on another run, to be read side by side"""

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
        counts = ", ".join(f"{word} {n}" for word, n in self.count_of_verdicts().items())
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
        for heading, rows in self.further().items():
            lines += [heading, *_aligned(rows), ""]
            if explain:
                lines += [textwrap.fill(how_to_read(heading), WIDTH), ""]
        lines += [textwrap.fill(note, WIDTH) for note in self.notes()]
        return "\n".join(lines).rstrip() + "\n"

    def _table_lines(self, names: list[str]) -> list[str]:
        """Heads, a rule and a line a layer, aligned."""
        heads = ["layer", *(self.quantity(name).label for name in names)]
        rows = [
            [layer.name, *(shown(getattr(layer, name)) for name in names)] for layer in self.layers
        ]
        return _aligned([heads, *rows])

    def further(self) -> dict[str, list[list[str]]]:
        """Tables that are not about single layers, by heading: rows of text, their heads first.

        >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
        >>> statistics.update(0, [[0], [1]])
        >>> routing_report(statistics).further()
        {}
        """
        found = {}
        if self.costs is not None:
            found[_cost_heading(self.costs)] = cost_rows(self.costs)
            found["Dropped at a capacity factor, share of slots"] = _dropped_rows(self.costs)
        if any(layer.tokens_by_margin for layer in self.layers):
            found["Flips by margin of the choice, all layers"] = _margin_rows(self.layers)
        if self.checkpoints:
            found["Checkpoints, in their order"] = checkpoint_rows([*self.checkpoints, self.last])
        if self.beside is not None:
            heading = f"Side by side: this run | {printable(self.beside[0], LONGEST_NAME)}"
            found[heading] = beside_rows(self, self.beside[1])
        return found

    def tables(self) -> dict[str, list[list[str]]]:
        """What the page has in place of `further`: those, and the tokens of each expert, of the
        layers with pictures.

        >>> statistics = RouterStatistics(n_experts=2, n_chosen=1, n_tokens=2)
        >>> statistics.update(0, 9 * [[0], [1]], token=9 * [0, 1])
        >>> routing_report(statistics).tables()["Tokens by lift, layer 0"][1]
        ['0', 'token 0, 2.0 times (9)']
        """
        names = {layer.layer: layer.name for layer in self.layers}
        found = self.further()
        for each in self.maps:
            if each.tokens:
                found[f"Tokens by lift, layer {names[each.layer]}"] = _token_rows(each)
        return found

    def _summary(self) -> Fields:
        """Numbers that the page says of all layers together."""
        loads = [layer.max_violation for layer in self.layers if layer.max_violation is not None]
        return {
            "log_experts": float(np.log(self.n_experts)),
            "dead_in_all_layers": sum(len(layer.dead_experts) for layer in self.layers),
            "busiest_over_mean": 1 + max(loads) if loads else None,
            "flips_with_margin": sum(sum(layer.flips_by_margin) for layer in self.layers),
            "means": {name: trend(self, name) for name in TRENDS},
        }

    @property
    def last(self) -> tuple[str, RoutingReport]:
        """This report as the last checkpoint."""
        return "this", self

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

    def _beside(self) -> list[tuple[str, RoutingReport]]:
        return [] if self.beside is None else [self.beside]

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
        if self.costs is not None and self.costs.hidden_size is None:
            cautions.append(CAUTIONS["no_bytes"])
        for reason in ("mixed", "apart"):
            names = [layer.name for layer in self.layers if layer.capped == reason]
            if names:
                cautions.append(CAUTIONS[reason].format(layers=_listed(names)))
        without = [layer.name for layer in self.layers if layer.slots and not layer.steps]
        if without:
            cautions.append(CAUTIONS["no_steps"].format(layers=_listed(without)))
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
        return {
            "units": "nats",
            "n_experts": self.n_experts,
            "n_chosen": self.n_chosen,
            "pooled_balance_loss": json_ready(self.pooled_balance_loss),
            "title": self.title(),
            "headline": self.headline(),
            "unmeasured": self.unmeasured(),
            "notes": self.notes(),
            "verdicts": [dataclasses.asdict(verdict) for verdict in self.verdicts],
            "worst": [layer.layer for layer, _ in self.worst()],
            "layers": json_ready(self.layers),
            "relabellings": self.relabellings,
            "maps": [dataclasses.asdict(each) for each in self.maps],
            "costs": None if self.costs is None else _costs_json(self.costs),
            "margins": list(TIE_MARGINS),
            "checkpoints": {name: report.json() for name, report in self.checkpoints},
            "beside": {name: report.json() for name, report in self._beside()},
            "tables": self.tables(),
            "tables_explained": {heading: how_to_read(heading) for heading in self.tables()},
            "summary": self._summary(),
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
    *,
    transitions: Mapping[tuple[Layer, Layer], Agreement] | None = None,
    decode_from: int | None = None,
    words: Mapping[int, str] | None = None,
    costs: Costs | None = None,
) -> RoutingReport:
    """The report on a router's statistics; `agreements` (layer -> Agreement) adds a comparison with
    another run.

    `layers` picks some, in that order. `relabellings` is how many permutations of the domains p
    values are made of; those corrected for the number of layers speak of all layers of the
    statistics, however many are picked. Raises ValueError where there is no such layer, or none at
    all, for no relabelling, and for `decode_from`, the first position that was generated, where
    neither phases nor positions were counted: it is for positions without phases.

    `transitions` are those of `layer_transitions`; `words` names tokens; `costs` are those of
    `communication_costs`.

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
    known = statistics.layers
    agreements = {} if agreements is None else agreements
    transitions = {} if transitions is None else transitions
    names = in_natural_order(known) if layers is None else list(layers)
    _check_layers(known, names, agreements)
    if decode_from is not None:
        known = {name: with_phases(layer, decode_from) for name, layer in known.items()}
        if not any(layer.phases.any() for layer in known.values()):
            raise ValueError("decode_from needs the positions of tokens, which are not known here")
    nulls = _nulls(statistics, as_count(relabellings, "relabellings"))
    adjusted = family_p(nulls)
    following = {one: (other, found) for (one, other), found in transitions.items()}
    found = []
    for name in names:
        fields = layer_fields(statistics, name, agreements.get(name))
        if name in nulls:
            fields |= null_fields(nulls[name], fields["domain_information"])
            fields["family_p"] = adjusted.get(name)
        if name in following:
            fields |= next_fields(*following[name])
        fields |= phase_fields(known[name])
        found.append(LayerReport(name, int(known[name].tokens), **fields))
    pooled = _pooled_balance_loss([known[name] for name in names])
    fewest = min((len(null.values) for null in nulls.values()), default=relabellings)
    sizes = (statistics.n_experts, statistics.n_chosen)
    pictures = tuple(_pictures(found, known, words, following))
    return RoutingReport(*sizes, tuple(found), pooled, fewest, pictures, costs)


def _nulls(statistics: RouterStatistics, relabellings: int) -> dict[Layer, DomainNull]:
    """Of all layers that have one."""
    nulls = {name: domain_null(statistics, name, relabellings) for name in statistics.layers}
    return {name: null for name, null in nulls.items() if null is not None}


def _check_layers(
    known: Iterable[Layer], names: list[Layer], agreements: Mapping[Layer, Agreement]
) -> None:
    """Raise ValueError for layers that are not among those known, and where there is none."""
    for name in [*names, *agreements]:
        if name not in known:
            raise ValueError(f"there is no layer {name!r}; allowed are {in_natural_order(known)}")
    if not names:
        raise ValueError("the statistics hold no layer; update them first")


def _pictures(
    layers: list[LayerReport],
    known: Mapping[Layer, LayerStatistics],
    words: Mapping[int, str] | None,
    following: Mapping[Layer, tuple[Layer, Agreement]],
) -> Iterator[LayerMap]:
    """The pictures of a few layers, of those that have any."""
    for layer in _pictured(layers):
        after = following.get(layer.layer)
        named = None if after is None else (str(after[0]), after[1])
        one = layer_map(layer.layer, known[layer.layer], words, named)
        if one != LayerMap(layer.layer):
            yield one


def _pictured(layers: list[LayerReport]) -> list[LayerReport]:
    """Layers with pictures of their own: the worst, then some from all over the model."""
    spread = np.linspace(0, len(layers) - 1, MOST_PICTURED).round().astype(int)
    wanted = [layer for layer, _ in worst_layers(layers)] + [layers[i] for i in spread]
    return [layer for i, layer in enumerate(wanted) if layer not in wanted[:i]][:MOST_PICTURED]


# --- tables that are not about single layers ---


def _aligned(rows: list[list[str]]) -> list[str]:
    """Heads, a rule and lines; the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = ["-" * width for width in widths]
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
    return lines


def _cost_heading(costs: Costs) -> str:
    return (
        f"Communication on {costs.n_devices} devices, {costs.step} tokens a step, "
        f"{costs.number_bytes:g} bytes a number, mean over layers"
    )


def cost_rows(costs: Costs) -> list[list[str]]:
    """A row a placement, its heads first.

    >>> cost_rows(Costs(2, 256, None, 2.0, (), {}))[0][:2]
    ['placement', 'devices a token']
    """
    names = {
        "devices": "devices a token",
        "sent": "sent to",
        "dispatch_bytes": "dispatch, bytes",
        "combine_bytes": "combine, bytes",
        "busiest": "busiest, p50",
        "busiest_95": "p95",
    }
    means = {name: costs.mean(name) for name in names}
    rows = []
    for kind in costs.kinds():
        numbers = {name: means[name][kind] for name in names}
        cells = [
            shown(round(value)) if name.endswith("_bytes") and value is not None else shown(value)
            for name, value in numbers.items()
        ]
        rows.append([kind, *cells])
    return [["placement", *names.values()], *rows]


def _dropped_rows(costs: Costs) -> list[list[str]]:
    dropped = [shown(share) for share in costs.mean_dropped()]
    return [["factor", *(f"{factor:g}" for factor in FACTORS)], ["mean of layers", *dropped]]


def _costs_json(costs: Costs) -> Fields:
    """Costs with what the page shows of them: means over layers and the factors of the curve."""
    fields = [field.name for field in dataclasses.fields(Cost)]
    numbers = [name for name in fields if name not in ("layer", "placement", "traffic")]
    return {
        **dataclasses.asdict(costs),
        "dropped": {str(layer): list(shares) for layer, shares in costs.dropped.items()},
        "factors": list(FACTORS),
        "mean": {name: costs.mean(name) for name in numbers},
        "mean_dropped": costs.mean_dropped(),
        "traffic": {kind: costs.traffic(kind) for kind in costs.kinds()},
    }


def _token_rows(pictures: LayerMap) -> list[list[str]]:
    """A row an expert: the tokens that it serves more often than its share."""
    rows: dict[int, list[str]] = {}
    for lift in pictures.tokens:
        word = f"token {lift.token}" if lift.word is None else repr(lift.word)
        text = f"{word}, {lift.lift:.1f} times ({lift.slots:,})"
        rows.setdefault(lift.expert, [str(lift.expert)]).append(text)
    widest = max(map(len, rows.values()))
    heads = ["expert", *(f"{i}." for i in range(1, widest))]
    return [heads, *([*row, *[""] * (widest - len(row))] for row in rows.values())]


def _margin_rows(layers: Iterable[LayerReport]) -> list[list[str]]:
    """Tokens and flips by margin, added over layers."""
    known = [layer for layer in layers if layer.tokens_by_margin]
    tokens = np.sum([layer.tokens_by_margin for layer in known], axis=0)
    flips = np.sum([layer.flips_by_margin for layer in known], axis=0)
    rows = [["margin, nats", "tokens", "flips", "share of flips"]]
    edges = [0.0, *TIE_MARGINS]
    for i, low in enumerate(edges):
        name = f"{low:g} to {edges[i + 1]:g}" if i + 1 < len(edges) else f"from {low:g}"
        share = float(flips[i] / flips.sum()) if flips.any() else None
        rows.append([name, shown(int(tokens[i])), shown(int(flips[i])), shown(share)])
    return rows


TRENDS = ("rate", "domain_information", "excess", "max_violation", "dead", "utilisation")
"""Fields that are followed over checkpoints: the mean over layers, and for the load the worst"""

BESIDE = ("rate", "excess", "max_violation", "dead")
"""Fields of two runs, side by side"""


def trend(report: RoutingReport, name: str) -> float | None:
    """The mean over layers of a field of `LayerReport`; None where no layer has it.

    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
    >>> statistics.update(0, [[0], [0]])
    >>> trend(routing_report(statistics), "dead")
    1.0
    """
    values = [getattr(layer, name) for layer in report.layers]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def checkpoint_rows(reports: list[tuple[str, RoutingReport]]) -> list[list[str]]:
    """A row a checkpoint: means over layers, and how many layers are fine; heads first.

    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
    >>> statistics.update(0, [[0], [0]])
    >>> checkpoint_rows([("a", routing_report(statistics))])[1]
    ['a', '0.0000', '1.0000', '1.0000', '0.5000', '0 of 1']
    """
    names = [name for name in TRENDS if any(trend(one, name) is not None for _, one in reports)]
    rows = [["checkpoint", *(reports[-1][1].quantity(name).label for name in names), "fine"]]
    for title, report in reports:
        fine = report.count_of_verdicts().get(FINE, 0)
        means = [shown(trend(report, name)) for name in names]
        rows.append([printable(title, LONGEST_NAME), *means, f"{fine} of {len(report.layers)}"])
    return rows


def beside_rows(one: RoutingReport, other: RoutingReport) -> list[list[str]]:
    """A row a layer that both have: verdicts and numbers of one and the other; heads first.

    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
    >>> statistics.update(0, [[0], [0]])
    >>> report = routing_report(statistics)
    >>> beside_rows(report, report)[1][:3]
    ['0', 'not known | not known', '0.0000 | 0.0000']
    """
    theirs = {layer.layer: layer for layer in other.layers}
    pairs = [(layer, theirs[layer.layer]) for layer in one.layers if layer.layer in theirs]
    names = [name for name in BESIDE if any(getattr(each, name) is not None for each, _ in pairs)]
    rows = [["layer", "verdict", *(one.quantity(name).label for name in names)]]
    for pair in pairs:
        words = " | ".join(SHORT[layer_verdict(each).word] for each in pair)
        numbers = [" | ".join(shown(getattr(each, name)) for each in pair) for name in names]
        rows.append([pair[0].name, words, *numbers])
    return rows


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


def how_to_read(heading: str) -> str:
    """What the table under a heading of `RoutingReport.tables` says, and what is good.

    >>> how_to_read("Side by side: this run | other")[:12]
    'This run | t'
    """
    return FURTHER_TEXTS[heading.split()[0].strip(",")]


def in_natural_order(layers: Iterable[Layer]) -> list[Layer]:
    """Layers by their numbers, or the numbers in their names.

    >>> in_natural_order(["layers.10", "layers.9"])
    ['layers.9', 'layers.10']
    """
    return sorted(layers, key=_natural)


def _natural(name: Layer) -> list[int | str]:
    """Sorts layer 10 after layer 9, as a number or within a name."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", str(name)))]


def _pooled_balance_loss(layers: list[LayerStatistics]) -> float | None:
    """The balance loss of all layers that have choices and probabilities, taken together."""
    layers = [layer for layer in layers if layer.slots.any() and layer.probable]
    if not layers:
        return None
    load = np.sum([layer.slots for layer in layers], axis=0)
    probabilities = sum(layer.probability_sum for layer in layers)
    return measures.balance_loss(load, np.asarray(probabilities))
