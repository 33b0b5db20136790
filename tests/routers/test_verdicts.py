"""Verdicts on layers: each rule on both sides of its limit, and what cannot be said."""

from dataclasses import replace

import numpy as np
import pytest

from expertbank.routers import RouterStatistics, routing_report
from expertbank.routers.layer_report import LayerReport
from expertbank.routers.nulls import LEVEL
from expertbank.routers.report import short_names
from expertbank.routers.verdicts import (
    DEAD,
    FEWEST_SEQUENCES,
    FEWEST_SLOTS,
    FINE,
    LEAST_UTILISATION,
    MOST_VIOLATION,
    MOST_WORST,
    SKEWED,
    UNKNOWN,
    UNSPECIFIC,
    layer_verdict,
    worst_layers,
)

GOOD = LayerReport(
    0,
    1000,
    slots=4 * FEWEST_SLOTS,
    dead=0,
    max_violation=0.2,
    utilisation=0.95,
    domain_information=0.3,
    permuted=FEWEST_SEQUENCES,
    family_p=0.005,
    load=(0.3, 0.3, 0.2, 0.2),
)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, FINE),
        ({"dead": 1}, DEAD),
        ({"max_violation": MOST_VIOLATION}, FINE),
        ({"max_violation": np.nextafter(MOST_VIOLATION, 9)}, SKEWED),
        ({"utilisation": LEAST_UTILISATION}, FINE),
        ({"utilisation": np.nextafter(LEAST_UTILISATION, 0)}, SKEWED),
        ({"family_p": LEVEL}, FINE),
        ({"family_p": np.nextafter(LEVEL, 1)}, UNSPECIFIC),
        ({"dead": 1, "max_violation": 3.0, "family_p": 1.0}, DEAD),
        ({"max_violation": 3.0, "family_p": 1.0}, SKEWED),
        # nothing is fine that was not looked at
        ({"slots": 4 * FEWEST_SLOTS - 1}, UNKNOWN),
        ({"slots": 4 * FEWEST_SLOTS - 1, "dead": 3}, UNKNOWN),
        ({"slots": None}, UNKNOWN),
        ({"domain_information": None, "family_p": None}, UNKNOWN),
        ({"family_p": None}, UNKNOWN),
        ({"permuted": FEWEST_SEQUENCES - 1}, UNKNOWN),
        ({"permuted": FEWEST_SEQUENCES - 1, "family_p": 1.0}, UNKNOWN),
        # what was seen stands, whatever was not
        ({"family_p": None, "dead": 1}, DEAD),
        ({"slots": None, "family_p": 1.0}, UNSPECIFIC),
    ],
)
def test_every_rule_at_its_limit(changed, word):
    verdict = layer_verdict(replace(GOOD, **changed))
    assert verdict.word == word
    assert verdict.reason.endswith(".") and verdict.action.endswith(".")
    assert bool(verdict.unmeasured) == (word == UNKNOWN or None in changed.values())


def test_an_unknown_layer_says_what_to_give():
    said = [
        layer_verdict(replace(GOOD, **changed)).action
        for changed in (
            {"slots": None},
            {"slots": 1},
            {"permuted": 2},
            {"domain_information": None},
        )
    ]
    assert ["probabilities" in said[0], "tokens" in said[1], "sequences" in said[2]] == [True] * 3
    assert "domain" in said[3] and len(set(said)) == 4


def test_the_worst_come_first_and_are_few():
    layers = [replace(GOOD, layer=i, max_violation=1.1 + i / 10) for i in range(6)]
    layers += [replace(GOOD, layer="dead", dead=1), replace(GOOD, layer="more", dead=2), GOOD]
    layers += [replace(GOOD, layer="lot", family_p=0.9)]
    found = [layer.layer for layer, _ in worst_layers(layers)]
    assert found == ["more", "dead", 5, 4, 3] and len(found) == MOST_WORST
    assert [layer.layer for layer, _ in worst_layers([layers[-1], GOOD])] == ["lot"]


def counted(domains, skew=0.0):
    """64 texts of 40 tokens, two of eight experts each; the domain, if any, moves the choice."""
    rng = np.random.default_rng(0)
    statistics = RouterStatistics(8, 2, n_domains=2)
    for layer, strength in enumerate((0, 0.8)):
        domain = np.repeat(np.arange(64) % 2, 40)
        logits = rng.gumbel(size=(len(domain), 8)) + skew * np.arange(8)
        logits += strength * np.eye(2, 8)[domain]
        labels = {"domain": domain, "sequence": np.repeat(np.arange(64), 40)} if domains else {}
        statistics.update(layer, logits.argsort(axis=1)[:, -2:], **labels)
    return routing_report(statistics)


def test_a_report_opens_with_verdicts_and_says_what_was_not_measured():
    report = counted(domains=True)
    assert report.count_of_verdicts() == {UNSPECIFIC: 1, FINE: 1}
    first = report.table().split("\n\n")[0]
    assert "Verdict by layer: no evidence of specialisation 1, fine 1." in first
    assert "Layer 0, no evidence" in first and "Not measured" not in first
    assert [verdict["word"] for verdict in report.json()["verdicts"]] == [UNSPECIFIC, FINE]
    blind = counted(domains=False)
    assert blind.count_of_verdicts() == {UNKNOWN: 2}
    first = blind.table().split("\n\n")[0]
    assert "The load of 2 not known is in order." in first
    assert "Not measured in 2 of 2 layers: specialisation: no domains were given." in first
    assert counted(domains=True, skew=3.0).json()["worst"] == [0, 1]


def test_names_are_cut_to_the_number_in_which_they_differ():
    assert short_names(["a.9.gate", "a.10.gate"]) == ["9", "10"]
    for names in (["a.1.b", "c.2.d"], ["a", "b"], ["one"], ["a.1.2", "a.2.3"], ["a.1", "a"]):
        assert short_names(names) == names
