"""A report on a router, layer by layer, from its statistics: numbers, how to read them, a table and
JSON. Nats."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy

import expertbank.routers.measures as measures
from expertbank.information import (
    binary_entropy,
    conditional_information,
    entropy,
    joint_bias,
    joint_information,
)
from expertbank.routers.agreement import Agreement
from expertbank.routers.statistics import LayerStatistics, RouterStatistics

HIGH = 0.95  # quantile of the null
WIDTH = 110  # of text in a terminal
TREES = 5  # drawn for the bias of the best one
MOST_NAMED = 12  # dead experts of a layer that a note names; JSON has all


@dataclass(frozen=True)
class Quantity:
    """How a number of the report is called, which table it stands in, and one sentence on how to
    read it."""

    label: str
    group: str
    text: str


@dataclass(frozen=True)
class LayerReport:
    """One layer; None where its statistics do not hold what a number needs. `QUANTITIES` explains
    each field."""

    layer: int | str
    tokens: int
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
    null_unit: str | None = None
    null_mean: float | None = None
    null_high: float | None = None
    excess: float | None = None
    given_position: float | None = None
    given_position_bias: float | None = None
    purity: float | None = None
    load_purity: float | None = None
    fano_floor: float | None = None
    # sequences, positions, tokens
    sequences: int | None = None
    sequence_entropy: float | None = None
    cap: float | None = None
    sequence_information: float | None = None
    sequence_bias: float | None = None
    position_information: float | None = None
    position_bias: float | None = None
    token_information: float | None = None
    token_bias: float | None = None
    # experts chosen together
    coactivation_of: str | None = None
    coactivation: float | None = None
    coactivation_uniform: float | None = None
    coactivation_bias: float | None = None
    # against another run
    flip_rate: float | None = None
    chance_flip_rate: float | None = None
    matched_flip_rate: float | None = None
    agreement_information: float | None = None
    # for figures
    dead_experts: tuple[int, ...] = ()
    load: tuple[float, ...] = ()


QUANTITIES: dict[str, Quantity] = {
    "tokens": Quantity("tokens", "Rate", "Tokens that were counted; padding is not among them."),
    "rate_of": Quantity("T from", "Rate",
        "What T is drawn from: the weights of the chosen experts, uniform picks among the chosen where no weights "
        "were given, or the softmax where nothing else was."),
    "rate": Quantity("I(X;T)", "Rate",
        "What the expert tells about the token, in nats: H(T) - H(T|X), from 0, where all tokens are treated alike, "
        "to log E, where each has one expert and all experts are used alike."),
    "output_entropy": Quantity("H(T)", "Rate", "How evenly the experts share the work; log E if they share it evenly."),
    "conditional_entropy": Quantity("H(T|X)", "Rate",
        "How undecided the router is on one token; log k if it takes k experts with equal weights."),
    "softmax_rate": Quantity("I softmax", "Rate",
        "The rate before the choice: I(X;T) of the full softmax over all experts, which the top k sharpen."),
    "weight_sum": Quantity("sum w", "Rate",
        "Mean sum of a token's weights as the model uses them; below 1 the layer's output is scaled down, and T is "
        "drawn from the weights over their sum."),
    "used": Quantity("used", "Load", "Experts that served a token at all, e^H_0 with the Renyi entropy of order 0."),
    "dead": Quantity("dead", "Load", "Experts that served none, E - used: parameters that do nothing on this data."),
    "load_entropy": Quantity("H_1", "Load", "Shannon entropy of the load: e^H_1 experts would share it evenly."),
    "collision_entropy": Quantity("H_2", "Load", "Renyi entropy of order 2: the CV of the load is sqrt(E e^-H_2 - 1)."),
    "min_entropy": Quantity("H_inf", "Load",
        "Renyi entropy of infinite order, which sees the busiest expert alone: MaxVio is E e^-H_inf - 1."),
    "variation": Quantity("CV", "Load", "Standard deviation of the load over its mean; 0 is balance."),
    "max_violation": Quantity("MaxVio", "Load",
        "How far the busiest expert lies above the mean load, as a share of it: at 1 it has twice its share, which "
        "is what sets the pace of expert parallelism."),
    "utilisation": Quantity("util", "Load",
        "sum_i min(f_i, 1/E), one less the distance of the load from balance in total variation: 1 is balance, 0.6 "
        "leaves 40% of the work that balance would share out with too few experts."),
    "balance_loss": Quantity("LBL", "Load",
        "Auxiliary loss E sum_i f_i P_i of this layer alone, 1 at balance; transformers multiplies it by k and "
        "pools all layers, which can hide a layer that is out of balance."),
    "empty_slots": Quantity("empty", "Load",
        "Share of the k slots of each token that no expert served: dropped at a full expert, or not used."),
    "domain_entropy": Quantity("H(D)", "Domains",
        "Entropy of the domains by slots: the most that any expert can tell."),
    "domain_information": Quantity("I(D;T)", "Domains",
        "What the expert tells about the domain, in nats: 0 for a router that ignores it, min(H(D), H(T)) at most; "
        "read it against its null."),
    "domain_bias": Quantity("bias", "Domains",
        "Miller and Madow's bias of I(D;T) for independent slots, (D-1)(E-1)/2N; tokens of a sequence are alike, so "
        "the null is the better judge."),
    "null_unit": Quantity("null of", "Domains",
        "What draws pseudo-domains for the null: sequences, or single slots where sequences are unknown, which is "
        "too low if tokens of a text are alike."),
    "null_mean": Quantity("null", "Domains",
        "Mean I(D;T) when whole sequences get domains at random: what finite data shows where there is nothing."),
    "null_high": Quantity("null 95%", "Domains", "95% quantile of that null; an I(D;T) below it is no evidence."),
    "excess": Quantity("excess", "Domains", "I(D;T) less the mean of its null: the part that is specialisation."),
    "given_position": Quantity("|position", "Domains",
        "I(D;T | position): what the domain has to do with the expert once the place in the sequence is known; less "
        "its bias, it should be near I(D;T)."),
    "given_position_bias": Quantity("bias", "Domains",
        "Miller and Madow's bias of I(D;T | position): each position has few tokens."),
    "purity": Quantity("purity", "Domains",
        "Mean over experts that are used of the largest share that a domain has in them (P3's purity, here over all "
        "tokens with a domain): 1/D without specialisation, 1 with full; idle experts with few tokens look pure."),
    "load_purity": Quantity("by load", "Domains",
        "Purity weighted by load: how often the domain is guessed right from the expert."),
    "fano_floor": Quantity("Fano", "Domains",
        "The least I(D;T) with which that guess can be so good: Fano's inequality."),
    "sequences": Quantity("seqs", "Sequences", "Sequences that were counted."),
    "sequence_entropy": Quantity("H(T|Seq)", "Sequences",
        "How evenly experts are used inside a sequence; balancing each sequence drives it to log E."),
    "cap": Quantity("cap", "Sequences",
        "log E - H(T|Seq): by the scope theorem no specialisation by sequence or domain can exceed it, I(D;T) <= "
        "I(Seq;T) <= log E - H(T|Seq)."),
    "sequence_information": Quantity("I(Seq;T)", "Sequences",
        "What the expert tells about the sequence; the domain, a function of the sequence, cannot get more."),
    "sequence_bias": Quantity("bias", "Sequences",
        "Miller and Madow's bias of I(Seq;T), which is large for short sequences: what of it a sequence would show "
        "by chance."),
    "position_information": Quantity("I(pos;T)", "Sequences",
        "What the expert tells about the place in the sequence; the first tokens often have experts of their own."),
    "position_bias": Quantity("bias", "Sequences", "Miller and Madow's bias of I(pos;T)."),
    "token_information": Quantity("I(tok;T)", "Sequences",
        "What the expert tells about the token's identity; near I(X;T), the router is a lookup table of the "
        "vocabulary and sees no context."),
    "token_bias": Quantity("bias", "Sequences", "Miller and Madow's bias of I(tok;T): rare tokens look special."),
    "coactivation_of": Quantity("from", "Co-activation",
        "sets: exact on the sets of experts that were counted; tree: a lower bound from pairs (Chow and Liu's "
        "tree), where sets are too many to count."),
    "coactivation": Quantity("total corr.", "Co-activation",
        "Total correlation of who is chosen, sum_i h(P(i chosen)) - H(set), in nats: how far experts are chosen as "
        "teams rather than one by one."),
    "coactivation_uniform": Quantity("uniform", "Co-activation",
        "The same for k experts drawn at random: choosing exactly k makes memberships dependent, E h(k/E) - log "
        "C(E,k); only what exceeds it is teams."),
    "coactivation_bias": Quantity("bias", "Co-activation",
        "How far finite data raises it: Miller and Madow's bias of sets, or that of the best tree on random experts; "
        "where it is a good part of it, more tokens are needed."),
    "flip_rate": Quantity("flips", "Agreement",
        "Share of the chosen experts that differ from the other run's on the same tokens: 0 is the same choice, 1 "
        "none in common."),
    "chance_flip_rate": Quantity("chance", "Agreement",
        "The flip rate of two runs with these loads that ignore each other."),
    "matched_flip_rate": Quantity("matched", "Agreement",
        "Flip rate after the other run's experts are renamed for the best match: runs from different seeds number "
        "their experts differently, checkpoints of one run do not."),
    "agreement_information": Quantity("I(T;T')", "Agreement",
        "What an expert of one run tells about the other's on the same token, one slot drawn from each: it needs no "
        "matching, and log(E/k) is its value for equal runs with fixed teams of k."),
}  # fmt: skip


@dataclass(frozen=True)
class RoutingReport:
    """All layers of a router, and what only shows across them."""

    n_experts: int
    n_chosen: int
    layers: tuple[LayerReport, ...]
    pooled_balance_loss: float | None
    """E sum_i f_i P_i with f and P averaged over layers first, as transformers does (there times
    k)"""

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
            heads = ["layer", *(QUANTITIES[name].label for name in names)]
            rows = [
                [str(layer.layer), *(shown(getattr(layer, name)) for name in names)]
                for layer in self.layers
            ]
            widths = [max(map(len, column)) for column in zip(heads, *rows)]
            lines.append(group)
            for row in (heads, ["-" * width for width in widths], *rows):
                first, *others = (cell.rjust(width) for cell, width in zip(row, widths))
                lines.append("  ".join([row[0].ljust(len(first)), *others]).rstrip())
            lines.append("")
            if explain:
                width = max(len(QUANTITIES[name].label) for name in names)
                for name in names:
                    head, text = QUANTITIES[name].label.ljust(width), QUANTITIES[name].text
                    lines.append(
                        textwrap.fill(
                            text,
                            WIDTH,
                            initial_indent=f"  {head}  ",
                            subsequent_indent=" " * (width + 4),
                        )
                    )
                lines.append("")
        return (
            "\n".join([*lines, *(textwrap.fill(note, WIDTH) for note in self.notes())]).rstrip()
            + "\n"
        )

    def title(self) -> str:
        """One line: what was counted."""
        layers = f"{len(self.layers)} layer" + ("s" if len(self.layers) > 1 else "")
        return f"{layers}, {self.n_experts} experts, {self.n_chosen} a token; nats, log E = {np.log(self.n_experts):.4f}"

    def notes(self) -> list[str]:
        """What needs a sentence: dead experts, and the pooled balance loss beside the worst
        layer's."""
        notes = []
        for layer in self.layers:
            if layer.dead_experts:
                first = ", ".join(map(str, layer.dead_experts[:MOST_NAMED]))
                more = f" and {layer.dead - MOST_NAMED} more" if layer.dead > MOST_NAMED else ""
                notes.append(f"Dead experts in layer {layer.layer}: {first}{more}.")
        losses = [layer.balance_loss for layer in self.layers if layer.balance_loss is not None]
        if self.pooled_balance_loss is not None and len(losses) > 1:
            notes.append(
                f"Balance loss pooled over layers {self.pooled_balance_loss:.4f}, of single layers up to "
                f"{max(losses):.4f}: a model's pooled loss cannot see what layers make up for in one another."
            )
        return notes

    def json(self) -> dict:
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
            "explanations": {name: quantity.text for name, quantity in QUANTITIES.items()},
        }


def routing_report(
    statistics: RouterStatistics,
    agreements: Mapping[int | str, Agreement] | None = None,
    layers=None,
) -> RoutingReport:
    """The report on a router's statistics; `agreements` (layer -> Agreement) adds a comparison with
    another run.

    `layers` picks some, in that order. Raises ValueError where there is no such layer, or none at
    all.
    """
    if not isinstance(statistics, RouterStatistics):
        raise ValueError(
            f"statistics is a {type(statistics).__name__}; allowed is a RouterStatistics"
        )
    known, agreements = statistics.layers, agreements or {}
    names = sorted(known, key=_natural) if layers is None else list(layers)
    for name in [*names, *agreements]:
        if name not in known:
            raise ValueError(
                f"there is no layer {name!r}; allowed are {sorted(known, key=_natural)}"
            )
    if not names:
        raise ValueError("the statistics hold no layer; update them first")
    found = tuple(_layer_report(statistics, name, agreements.get(name)) for name in names)
    return RoutingReport(
        statistics.n_experts,
        statistics.n_chosen,
        found,
        _pooled_balance_loss([known[name] for name in names]),
    )


def _natural(name) -> list:
    """Sorts layer 10 after layer 9, as a number or within a name."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", str(name)))]


def shown(value) -> str:
    """A number as the tables show it."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, float):
        return (
            f"{value:.1e}"
            if 1e-9 < abs(value) < 1e-3
            else f"{value:.4f}".replace("-0.0000", "0.0000")
        )
    return f"{value:,}" if isinstance(value, int) else str(value)


def total_correlation(layer: LayerStatistics, n_experts: int) -> tuple[float, float]:
    """sum_i h(P(i chosen)) - H(set) in nats, exact where sets were counted, and its Miller-Madow
    bias."""
    n = int(layer.sizes.sum())
    single = binary_entropy(layer.slots / n)
    seen = int((layer.sets > 0).sum())
    bias = (seen - 1 - int(((layer.slots > 0) & (layer.slots < n)).sum())) / (2 * n)
    return max(0.0, float(single.sum() - entropy(layer.sets / n))), bias


def chow_liu_information(layer: LayerStatistics) -> float:
    """Lower bound of the total correlation in nats from pairs: the best tree of pairwise
    informations.

    Chow & Liu (1968): the law of memberships that factorises along a tree and is closest to the
    truth has the maximum spanning tree of I(i chosen; j chosen), whose sum is what of the total
    correlation the tree explains.
    """
    n = int(layer.sizes.sum())
    single = layer.slots / n
    return _best_tree(_membership_information(layer.pairs / n, single[:, None], single[None, :]))


def _best_tree(edges) -> float:
    """The most that a spanning tree of edges (E, E) sums to; what is above the diagonal counts."""
    cost = np.triu(1 + edges.max() - edges, 1)  # positive: a cost of 0 would be no edge
    tree = scipy.sparse.csgraph.minimum_spanning_tree(cost).nonzero()
    return float(edges[tree].sum())


def _tree_bias(information: float, n_experts: int, n_tokens: int) -> float:
    """How far the best tree on n tokens lies above (E - 1) times the true information of every
    pair, in nats.

    Each plug-in information is nearly a noncentral chi-squared variable over 2n, and the tree picks
    the largest, so that (E - 1)/2n would be far too little; the mean of `TREES` draws.
    """
    draws = np.random.default_rng(0).normal(
        np.sqrt(2 * n_tokens * information), size=(TREES, n_experts, n_experts)
    )
    return (
        float(np.mean([_best_tree(edges**2 / (2 * n_tokens)) for edges in draws]))
        - (n_experts - 1) * information
    )


def _membership_information(both, one, other):
    """I(1{i chosen}; 1{j chosen}) in nats, elementwise, from P(both), P(i), P(j)."""
    cells = ((both, one, other), (one - both, one, 1 - other), (other - both, 1 - one, other))
    cells += ((1 - one - other + both, 1 - one, 1 - other),)
    return sum(
        scipy.special.rel_entr(np.maximum(p, 0), np.maximum(a * b, 1e-300)) for p, a, b in cells
    ).clip(min=0)


def _layer_report(statistics: RouterStatistics, name, agreement: Agreement | None) -> LayerReport:
    layer, e, found = statistics.layers[name], statistics.n_experts, {}
    if layer.slots.any() or layer.sizes.sum() or layer.probable:
        found |= _rate(layer) | _load(layer, e, statistics.n_chosen)
    if layer.domains.any():
        found |= _domains(layer, statistics.seed)
    if layer.sequence_slots.any():
        found |= _sequences(layer, e)
    if layer.positions.any():
        counts = layer.positions.sum(axis=1)
        found["position_information"] = joint_information(counts)
        found["position_bias"] = joint_bias(counts)
    if layer.token_slots.any():
        found["token_information"] = joint_information(layer.token_slots)
        found["token_bias"] = joint_bias(layer.token_slots)
    # where loads without choices were added, memberships are not known
    if statistics.n_chosen > 1 and 0 < layer.slots.sum() == layer.sizes @ np.arange(
        len(layer.sizes)
    ):
        found |= _coactivation(layer, e)
    if agreement is not None:
        rates = {
            key: getattr(agreement, key)
            for key in ("flip_rate", "chance_flip_rate", "matched_flip_rate")
        }
        found |= rates | {"agreement_information": agreement.information}
    return LayerReport(name, int(layer.tokens), **found)


def _rate(layer: LayerStatistics) -> dict:
    found = {}
    if layer.probable:
        mean = layer.probability_sum / layer.probable
        softmax = (
            float(entropy(mean / mean.sum())),
            float(layer.probability_entropy / layer.probable),
        )
        found["softmax_rate"] = max(0.0, softmax[0] - softmax[1])
    if layer.weighted:
        load = layer.weight_load / layer.weight_load.sum()
        kind, pair = "weights", (float(entropy(load)), float(layer.weight_entropy / layer.weighted))
        found["weight_sum"] = float(layer.weight_sum / layer.weighted)
    elif layer.sizes[1:].any():
        size = np.arange(len(layer.sizes))
        inside = float(layer.sizes @ (size * np.log(np.maximum(size, 1))) / (layer.sizes @ size))
        kind, pair = "picks", (measures.renyi_entropy(layer.slots, 1), inside)
    elif layer.probable:
        kind, pair = "softmax", softmax
    else:  # loads alone, or every slot was dropped
        return (
            {"output_entropy": measures.renyi_entropy(layer.slots, 1)}
            if layer.slots.any()
            else found
        )
    rate = max(0.0, pair[0] - pair[1])
    return found | {
        "rate_of": kind,
        "rate": rate,
        "output_entropy": pair[0],
        "conditional_entropy": pair[1],
    }


def _load(layer: LayerStatistics, n_experts: int, n_chosen: int) -> dict:
    n, found = int(layer.sizes.sum()), {}
    if n:
        found["empty_slots"] = 1 - float(layer.sizes @ np.arange(n_chosen + 1)) / (n * n_chosen)
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


def _domains(layer: LayerStatistics, seed: int) -> dict:
    counts = layer.domains[layer.domains.any(axis=1)]
    information, accuracy = joint_information(counts), measures.load_purity(counts)
    shares = counts.sum(axis=1) / counts.sum()
    label_entropy = float(entropy(shares))
    unit, null = _null(layer, counts, seed)
    found = {
        "domain_entropy": label_entropy,
        "domain_information": information,
        "domain_bias": joint_bias(counts),
        "purity": measures.purity(counts),
        "load_purity": accuracy,
    }
    if len(null):
        found |= {
            "null_unit": unit,
            "null_mean": float(null.mean()),
            "null_high": float(np.quantile(null, HIGH)),
            "excess": information - float(null.mean()),
        }
    if len(counts) > 1:
        found["fano_floor"] = measures.fano_floor(accuracy, label_entropy, len(counts))
    if layer.positions.any():
        found["given_position"] = conditional_information(np.moveaxis(layer.positions, 0, -1))
        tables = [table for table in layer.positions if table.any()]
        biases = [joint_bias(table) * table.sum() for table in tables]
        found["given_position_bias"] = float(sum(biases) / layer.positions.sum())
    return found


def _null(layer: LayerStatistics, counts, seed: int) -> tuple[str, np.ndarray]:
    """Unit and values (relabellings,) of I(D;T) under random domains, of as many as were seen.

    Where every counted slot had a sequence, these are the statistics' pseudo-domains. Otherwise
    slots are dealt out by the domains' shares, as if they were independent.
    """
    tables, n_seen = layer.null, len(counts)
    if tables.size and (tables.sum(axis=(1, 2)) == counts.sum()).all():
        folded = [[table[d::n_seen].sum(axis=0) for d in range(n_seen)] for table in tables]
        return "sequences", np.array([joint_information(table) for table in folded])
    shares = counts.sum(axis=1) / counts.sum()
    dealt = np.random.default_rng(seed).multinomial(
        counts.sum(axis=0), shares, size=(len(tables), counts.shape[1])
    )
    return "slots", np.array([joint_information(table.T) for table in dealt])


def _sequences(layer: LayerStatistics, n_experts: int) -> dict:
    slots = int(layer.sequence_slots.sum())
    inside = float(layer.sequence_entropy) / slots
    cells = int(layer.sequence_cells - layer.sequences) - int((layer.sequence_slots > 0).sum() - 1)
    return {
        "sequences": int(layer.sequences),
        "sequence_entropy": inside,
        "cap": max(0.0, float(np.log(n_experts)) - inside),
        "sequence_information": max(0.0, measures.renyi_entropy(layer.sequence_slots, 1) - inside),
        "sequence_bias": cells / (2 * slots),
    }


def _coactivation(layer: LayerStatistics, n_experts: int) -> dict:
    """Total correlation of the chosen set beside that of sets of the same sizes drawn at random."""
    size, share = np.arange(len(layer.sizes)), layer.sizes / layer.sizes.sum()
    single = float(share @ size) / n_experts
    if layer.sets.size:
        logs = np.log(scipy.special.comb(n_experts, size))
        uniform = n_experts * float(binary_entropy(single)) - float(entropy(share) + share @ logs)
        kind, (value, bias) = "sets", total_correlation(layer, n_experts)
    else:
        both = float(share @ (size * (size - 1))) / (n_experts * (n_experts - 1))
        pair = float(_membership_information(both, single, single))
        kind, value, uniform = "tree", chow_liu_information(layer), (n_experts - 1) * pair
        bias = _tree_bias(pair, n_experts, int(layer.sizes.sum()))
    return {
        "coactivation_of": kind,
        "coactivation": value,
        "coactivation_uniform": max(0.0, uniform),
        "coactivation_bias": bias,
    }


def _pooled_balance_loss(layers: list[LayerStatistics]) -> float | None:
    layers = [layer for layer in layers if layer.slots.any() and layer.probable]
    if not layers:
        return None
    load, probabilities = (
        sum(getattr(layer, name) for layer in layers) for name in ("slots", "probability_sum")
    )
    return measures.balance_loss(load, probabilities)


def _plain(value):
    """nan and infinity have no place in JSON."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value
