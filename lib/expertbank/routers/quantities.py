"""The numbers of the report: what each is called, which table it stands in, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """How a number of the report is called, which table it stands in, and one sentence on how to
    read it.

    >>> QUANTITIES["rate"].label, QUANTITIES["rate"].group
    ('I(X;T)', 'Rate')
    """

    label: str
    group: str
    text: str


# table of the report: {field of `LayerReport`: (label, how to read it)}
_GROUPS = {
    "Rate": {
        "tokens": ("tokens", "Tokens that were counted; padding is not among them."),
        "rate_of": (
            "T from",
            "What T is drawn from: the weights of the chosen experts, uniform picks among the "
            "chosen where no weights were given, or the softmax where nothing else was.",
        ),
        "rate": (
            "I(X;T)",
            "What the expert tells about the token, in nats: H(T) - H(T|X), from 0, where all "
            "tokens are treated alike, to log E, where each has one expert and all experts are "
            "used alike.",
        ),
        "output_entropy": (
            "H(T)",
            "How evenly the experts share the work; log E if they share it evenly.",
        ),
        "conditional_entropy": (
            "H(T|X)",
            "How undecided the router is on one token; log k if it takes k experts with equal "
            "weights.",
        ),
        "softmax_rate": (
            "I softmax",
            "The rate before the choice: I(X;T) of the full softmax over all experts, which the "
            "top k sharpen.",
        ),
        "weight_sum": (
            "sum w",
            "Mean sum of a token's weights as the model uses them; below 1 the layer's output is "
            "scaled down, and T is drawn from the weights over their sum.",
        ),
    },
    "Load": {
        "used": (
            "used",
            "Experts that served a token at all, e^H_0 with the Renyi entropy of order 0.",
        ),
        "dead": (
            "dead",
            "Experts that served none, E - used: parameters that do nothing on this data.",
        ),
        "load_entropy": (
            "H_1",
            "Shannon entropy of the load: e^H_1 experts would share it evenly.",
        ),
        "collision_entropy": (
            "H_2",
            "Renyi entropy of order 2: the CV of the load is sqrt(E e^-H_2 - 1).",
        ),
        "min_entropy": (
            "H_inf",
            "Renyi entropy of infinite order, which sees the busiest expert alone: MaxVio is E "
            "e^-H_inf - 1.",
        ),
        "variation": ("CV", "Standard deviation of the load over its mean; 0 is balance."),
        "max_violation": (
            "MaxVio",
            "How far the busiest expert lies above the mean load, as a share of it: at 1 it has "
            "twice its share, which is what sets the pace of expert parallelism.",
        ),
        "utilisation": (
            "util",
            "sum_i min(f_i, 1/E), one less the distance of the load from balance in total "
            "variation: 1 is balance, 0.6 leaves 40% of the work that balance would share out "
            "with too few experts.",
        ),
        "balance_loss": (
            "LBL",
            "Auxiliary loss E sum_i f_i P_i of this layer alone, 1 at balance; transformers "
            "multiplies it by k and pools all layers, which can hide a layer that is out of "
            "balance.",
        ),
        "empty_slots": (
            "empty",
            "Share of the k slots of each token that no expert served: dropped at a full expert, "
            "or not used.",
        ),
    },
    "Domains": {
        "domain_entropy": (
            "H(D)",
            "Entropy of the domains by slots: the most that any expert can tell.",
        ),
        "domain_information": (
            "I(D;T)",
            "What the expert tells about the domain, in nats: 0 for a router that ignores it, "
            "min(H(D), H(T)) at most; read it against its null.",
        ),
        "domain_bias": (
            "bias",
            "Miller and Madow's bias of I(D;T) for independent slots, (D-1)(E-1)/2N; tokens of a "
            "sequence are alike, so the null is the better judge.",
        ),
        "null_unit": (
            "null of",
            "What draws pseudo-domains for the null: sequences, or single slots where sequences "
            "are unknown, which is too low if tokens of a text are alike.",
        ),
        "null_mean": (
            "null",
            "Mean I(D;T) when whole sequences get domains at random: what finite data shows "
            "where there is nothing.",
        ),
        "null_high": ("null 95%", "95% quantile of that null; an I(D;T) below it is no evidence."),
        "excess": ("excess", "I(D;T) less the mean of its null: the part that is specialisation."),
        "given_position": (
            "|position",
            "I(D;T | position): what the domain has to do with the expert once the place in the "
            "sequence is known; less its bias, it should be near I(D;T).",
        ),
        "given_position_bias": (
            "bias",
            "Miller and Madow's bias of I(D;T | position): each position has few tokens.",
        ),
        "purity": (
            "purity",
            "Mean over experts that are used of the largest share that a domain has in them "
            "(P3's purity, here over all tokens with a domain): 1/D without specialisation, 1 "
            "with full; idle experts with few tokens look pure.",
        ),
        "load_purity": (
            "by load",
            "Purity weighted by load: how often the domain is guessed right from the expert.",
        ),
        "fano_floor": (
            "Fano",
            "The least I(D;T) with which that guess can be so good: Fano's inequality.",
        ),
    },
    "Sequences": {
        "sequences": ("seqs", "Sequences that were counted."),
        "sequence_entropy": (
            "H(T|Seq)",
            "How evenly experts are used inside a sequence; balancing each sequence drives it to "
            "log E.",
        ),
        "cap": (
            "cap",
            "log E - H(T|Seq): by the scope theorem no specialisation by sequence or domain can "
            "exceed it, I(D;T) <= I(Seq;T) <= log E - H(T|Seq).",
        ),
        "sequence_information": (
            "I(Seq;T)",
            "What the expert tells about the sequence; the domain, a function of the sequence, "
            "cannot get more.",
        ),
        "sequence_bias": (
            "bias",
            "Miller and Madow's bias of I(Seq;T), which is large for short sequences: what of it "
            "a sequence would show by chance.",
        ),
        "position_information": (
            "I(pos;T)",
            "What the expert tells about the place in the sequence; the first tokens often have "
            "experts of their own.",
        ),
        "position_bias": ("bias", "Miller and Madow's bias of I(pos;T)."),
        "token_information": (
            "I(tok;T)",
            "What the expert tells about the token's identity; near I(X;T), the router is a "
            "lookup table of the vocabulary and sees no context.",
        ),
        "token_bias": ("bias", "Miller and Madow's bias of I(tok;T): rare tokens look special."),
    },
    "Co-activation": {
        "coactivation_of": (
            "from",
            "sets: exact on the sets of experts that were counted; tree: a lower bound from "
            "pairs (Chow and Liu's tree), where sets are too many to count.",
        ),
        "coactivation": (
            "total corr.",
            "Total correlation of who is chosen, sum_i h(P(i chosen)) - H(set), in nats: how far "
            "experts are chosen as teams rather than one by one.",
        ),
        "coactivation_uniform": (
            "uniform",
            "The same for k experts drawn at random: choosing exactly k makes memberships "
            "dependent, E h(k/E) - log C(E,k); only what exceeds it is teams.",
        ),
        "coactivation_bias": (
            "bias",
            "How far finite data raises it: Miller and Madow's bias of sets, or that of the best "
            "tree on random experts; where it is a good part of it, more tokens are needed.",
        ),
    },
    "Agreement": {
        "flip_rate": (
            "flips",
            "Share of the chosen experts that differ from the other run's on the same tokens: 0 "
            "is the same choice, 1 none in common.",
        ),
        "chance_flip_rate": (
            "chance",
            "The flip rate of two runs with these loads that ignore each other.",
        ),
        "matched_flip_rate": (
            "matched",
            "Flip rate after the other run's experts are renamed for the best match: runs from "
            "different seeds number their experts differently, checkpoints of one run do not.",
        ),
        "agreement_information": (
            "I(T;T')",
            "What an expert of one run tells about the other's on the same token, one slot drawn "
            "from each: it needs no matching, and log(E/k) is its value for equal runs with "
            "fixed teams of k.",
        ),
    },
}

QUANTITIES: dict[str, Quantity] = {
    name: Quantity(label, group, text)
    for group, entries in _GROUPS.items()
    for name, (label, text) in entries.items()
}
"""Every number of a `LayerReport`, by its field, in the order of the tables."""
