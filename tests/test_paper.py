"""The papers' rows: complete, computed, and judged by the tolerance that they state."""

import math

import pytest

from expertbank import load_bank
from expertbank.information import binary_entropy
from expertbank.paper import CLAIMS, TABLE_1, TABLE_2, Evidence, Finding, reproduce


@pytest.fixture(scope="module")
def findings():
    return {finding.claim.key: finding for finding in reproduce(Evidence(load_bank()))}


def test_every_number_of_both_tables_has_a_row():
    locations = [claim.location for claim in CLAIMS]
    assert locations.count("P2 Table I") == len(TABLE_1) == 8
    table_2 = [c for c in CLAIMS if c.location == "P2 Table II" and not c.key.endswith("monotone")]
    assert len(table_2) == sum(len(row) for row in TABLE_2.values()) == 24


def test_rows_are_told_apart_and_say_why():
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.reason and claim.method and claim.tolerance >= 0


def test_only_the_known_rows_are_not_reproduced(findings):
    missed = {key: finding.verdict for key, finding in findings.items() if finding.verdict != "reproduced"}
    assert missed == {
        "II bound 0": "undefined",
        "delta bias": "differs",
        "union against MI, sigma 1/2": "differs",
        "P1 BSC bound, small beta": "differs",
    }


def test_conditional_entropy_is_the_closed_form(findings):
    # P2 (19): the minimiser has mass alpha + (1 - alpha)/R, the other R - 1 share the rest evenly
    rest = 0.3 * 24 / 25
    closed = binary_entropy(rest) + rest * math.log(24)
    assert findings["I conditional_entropy 0.7"].found == pytest.approx(closed, abs=1e-12)
    assert round(closed, 4) == 1.5156


def test_a_number_outside_its_tolerance_differs():
    claim = next(claim for claim in CLAIMS if claim.key == "union")
    assert Finding(claim, claim.reported + 2 * claim.tolerance).verdict == "differs"
    assert Finding(claim, math.nan).verdict == "differs"
