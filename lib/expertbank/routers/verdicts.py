"""One verdict on each layer of a router, what it rests on, and what to do about it.

The rules, in this order, each only where the statistics say enough:

- **dead experts**: some expert serves no token, of `FEWEST_SLOTS` slots an expert or more.
- **skewed**: MaxVio above `MOST_VIOLATION`, or utilisation below `LEAST_UTILISATION`.
- **no evidence of specialisation**: p over all layers above `nulls.LEVEL`, from `FEWEST_SEQUENCES`
  sequences or more.
- **fine**: none of these, and both were measured.
- **not known**: nothing wrong was seen, and one of the two was not measured.

The limits of the load are conventions of this library: no theorem says where skew begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from expertbank.routers.layer_report import LayerReport, shown
from expertbank.routers.nulls import LEVEL

FEWEST_SLOTS = 50
"""Slots an expert, on average, from which an idle one counts as dead: one with a tenth of the mean
load is then missed by chance with probability e^-5, if slots are independent"""
MOST_VIOLATION = 1.0
"""The busiest expert has twice the mean load"""
LEAST_UTILISATION = 0.8
"""Balance would move a fifth of the work to other experts"""
FEWEST_SEQUENCES = 8
"""Below, few permutations of the domains differ: p can hardly fall to `LEVEL` whatever the router
does"""
MOST_WORST = 5
"""Layers that the front page names"""

DEAD = "dead experts"
SKEWED = "skewed"
UNSPECIFIC = "no evidence of specialisation"
UNKNOWN = "not known"
FINE = "fine"
WORDS = (DEAD, SKEWED, UNSPECIFIC, UNKNOWN, FINE)
"""All verdicts, the worst first"""
SHORT: dict[str, str] = dict(zip(WORDS, ("dead", SKEWED, "no evidence", UNKNOWN, FINE)))
"""The same where there is little room"""


@dataclass(frozen=True)
class Verdict:
    """What is said of one layer.

    >>> layer_verdict(LayerReport(0, 0)).word
    'not known'
    """

    word: str
    """one of `WORDS`"""
    reason: str
    """a sentence with the numbers behind it"""
    action: str
    """one thing to do, as a sentence"""
    unmeasured: tuple[str, ...]
    """what could not be looked at, and why"""
    severity: float
    """orders layers of the same word, the worst highest"""


class _Answer(NamedTuple):
    """What one question finds: nothing wrong where `action` is empty."""

    reason: str
    action: str = ""
    severity: float = 0.0


def layer_verdict(layer: LayerReport) -> Verdict:
    """The verdict on a layer, by the rules above.

    >>> layer = LayerReport(0, 800, slots=800, dead=0, max_violation=0.1, utilisation=0.95)
    >>> layer_verdict(layer).word, layer_verdict(layer).unmeasured[0][:14]  # its load alone
    ('not known', 'specialisation')
    """
    missing = {name: question.missing(layer) for name, question in _QUESTIONS.items()}
    unmeasured = tuple(f"{name}: {why}" for name, why in missing.items() if why)
    reasons = []
    for name, question in _QUESTIONS.items():
        if missing[name]:
            continue
        found = question.find(layer)
        if found.action:
            word = question.word(layer)
            return Verdict(word, found.reason, found.action, unmeasured, found.severity)
        reasons.append(found.reason)
    if not unmeasured:
        return Verdict(FINE, " ".join(reasons), "Nothing to do.", (), 0.0)
    reason = " ".join([*reasons, "Not measured: " + "; ".join(unmeasured) + "."])
    return Verdict(UNKNOWN, reason, _how_to_know(unmeasured), unmeasured, 0.0)


def worst_layers(layers: Iterable[LayerReport]) -> list[tuple[LayerReport, Verdict]]:
    """At most `MOST_WORST` layers with something wrong, the worst first: by word, then by how much.

    >>> sizes = {"slots": 800, "utilisation": 1.0, "dead": 0}
    >>> layers = [LayerReport(i, 800, max_violation=i, **sizes) for i in range(4)]
    >>> [layer.layer for layer, _ in worst_layers(layers)]
    [3, 2]
    """
    judged = [(layer, layer_verdict(layer)) for layer in layers]
    wrong = [pair for pair in judged if pair[1].word in (DEAD, SKEWED, UNSPECIFIC)]
    wrong.sort(key=lambda pair: (WORDS.index(pair[1].word), -pair[1].severity))
    return wrong[:MOST_WORST]


# --- the questions ---


class _Load:
    """Is there work for all experts, and about as much for each?"""

    @staticmethod
    def missing(layer: LayerReport) -> str:
        if layer.slots is None or layer.dead is None:
            return "no choices were given"
        n_experts = max(1, len(layer.load))
        if layer.slots < FEWEST_SLOTS * n_experts:
            return f"{layer.slots:,} slots are fewer than {FEWEST_SLOTS} an expert"
        return ""

    @staticmethod
    def word(layer: LayerReport) -> str:
        return DEAD if layer.dead else SKEWED

    @staticmethod
    def find(layer: LayerReport) -> _Answer:
        assert layer.max_violation is not None and layer.utilisation is not None
        busiest = f"the busiest has {1 + layer.max_violation:.2f} times the mean load"
        if layer.dead:
            return _Answer(
                f"{layer.dead} of {len(layer.load)} experts serve no token; {busiest}.",
                "Train on with a stronger balance loss or a bias towards idle experts; to serve "
                "the model as it is, leave them out.",
                layer.dead / len(layer.load),
            )
        even = f"{busiest[0].upper()}{busiest[1:]}, utilisation is {layer.utilisation:.2f}"
        if layer.max_violation > MOST_VIOLATION or layer.utilisation < LEAST_UTILISATION:
            # loads are missing only where someone else made the report
            expert = f"expert {int(np.argmax(layer.load))}" if layer.load else "the busiest expert"
            return _Answer(
                f"{even}.",
                f"To serve it, give {expert} a replica (routes place --replicas); in training, "
                "raise the balance loss or balance by a bias.",
                layer.max_violation,
            )
        return _Answer(f"No expert is idle. {even}.")


class _Specialisation:
    """Does the choice have to do with the domain, beyond chance?"""

    @staticmethod
    def missing(layer: LayerReport) -> str:
        if layer.domain_information is None:
            return "no domains were given"
        if layer.family_p is None:
            return "no p, which needs sequences of one domain each, all known of the same tokens"
        if layer.permuted is not None and layer.permuted < FEWEST_SEQUENCES:
            return f"{layer.permuted} sequences are fewer than {FEWEST_SEQUENCES}"
        return ""

    @staticmethod
    def word(layer: LayerReport) -> str:
        return UNSPECIFIC

    @staticmethod
    def find(layer: LayerReport) -> _Answer:
        p = layer.family_p
        assert p is not None
        if p > LEVEL:
            return _Answer(
                f"Domains dealt out at random do as well: p = {shown(p)} over all layers.",
                "Count more sequences; if p stays, balance over more sequences at a time, since "
                "balance inside each leaves no room for a domain.",
                p,
            )
        return _Answer(f"The expert tells about the domain beyond chance, p = {shown(p)}.")


_QUESTIONS = {"load": _Load, "specialisation": _Specialisation}


def _how_to_know(unmeasured: tuple[str, ...]) -> str:
    """What would have to be given."""
    if any(text.startswith("load: no choices") for text in unmeasured):
        return "Give the chosen experts, not probabilities alone."
    if any(text.startswith("load") for text in unmeasured):
        return "Count more tokens."
    if any("fewer than" in text for text in unmeasured):
        return "Count more sequences."
    return "Give each sequence a domain (a language, a source) and count again."
