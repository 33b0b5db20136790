"""The papers' rows: complete, computed, and judged by the tolerance that they state."""

import math

import numpy as np
import pytest

from expertbank import load_bank, simulate
from expertbank.book.claims import (
    CLAIMS,
    TABLE_1,
    TABLE_2,
    Evidence,
    Finding,
    repeat_tables,
    reproduce,
    spread,
)
from expertbank.information import binary_entropy


@pytest.fixture(scope="module")
def findings():
    return {finding.claim.key: finding for finding in reproduce(Evidence(load_bank()))}


def test_every_number_of_both_tables_has_a_row():
    locations = [claim.location for claim in CLAIMS]
    assert locations.count("P2 Table I") == len(TABLE_1) == 8
    table_2 = [c for c in CLAIMS if c.location == "P2 Table II" and c.cell is not None]
    assert len(table_2) == sum(len(row) for row in TABLE_2.values()) == 24


def test_rows_are_told_apart_and_say_why():
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.reason and claim.method and claim.tolerance >= 0


def test_only_the_known_rows_are_not_reproduced(findings):
    missed = {
        key: finding.verdict for key, finding in findings.items() if finding.verdict != "reproduced"
    }
    assert missed == {
        "II bound 0": "undefined",
        "bias_of_the_information": "differs",
        "information_bound_by_union_bound_at_half": "differs",
        "risks_above_the_bound_at_small_beta": "differs",
        "spread_of_methods_by_gain_from_scope": "differs",
        "rank_correlation_of_the_metric": "differs",
        "learned_below_the_reference": "differs",
        "learned_above_the_full_reference": "differs",
    }


def test_conditional_entropy_is_the_closed_form(findings):
    # P2 (19): the minimiser has mass alpha + (1 - alpha)/R, the other R - 1 share the rest evenly
    rest = 0.3 * 24 / 25
    closed = binary_entropy(rest) + rest * math.log(24)
    assert findings["I conditional_entropy 0.7"].found == pytest.approx(closed, abs=1e-12)
    assert round(closed, 4) == 1.5156


def test_a_number_outside_its_tolerance_differs():
    claim = next(claim for claim in CLAIMS if claim.key == "union_bound_of_the_bank")
    assert Finding(claim, claim.reported + 2 * claim.tolerance).verdict == "differs"
    assert Finding(claim, math.nan).verdict == "differs"


# --- replicated banks ---


def test_every_number_of_both_tables_has_an_interval_over_banks(findings):
    for key, finding in findings.items():
        of_a_table = key.startswith(("I ", "II "))
        assert (finding.interval is not None) == of_a_table
    assert findings["I conditional_entropy 0.7"].interval == pytest.approx(
        (1.5156, 1.5156), abs=5e-5
    )
    assert findings["II information 0"].interval == pytest.approx((0, 0), abs=1e-12)


def test_which_reported_numbers_another_bank_would_hardly_give(findings):
    outside = {
        key
        for key, finding in findings.items()
        if finding.interval
        and not finding.interval[0] - 5e-5 <= finding.claim.reported <= finding.interval[1] + 5e-5
    }
    assert outside == {"II bound 0", "II gap 0"}  # the first is the paper's nan


def test_tolerances_are_two_standard_deviations_of_a_difference_of_banks():
    evidence = Evidence(load_bank())
    for claim in CLAIMS:
        if claim.cell and claim.reported:  # not the exact 0
            s = evidence.spreads[claim.cell]
            assert math.isnan(claim.reported) or claim.tolerance > 2 * math.hypot(
                s.banks, s.banks, s.selections
            )


def test_repeated_tables_repeat_the_experiment():
    bank = load_bank()
    tables = repeat_tables([bank, bank], n_experiments=3)
    assert set(tables) == {*TABLE_1, "pool_gap"}
    assert {values.shape for values in tables.values()} == {(2, 3, len(TABLE_2))}
    # no two experiments share their datasets
    assert len(np.unique(tables["information"][:, :, 3])) == 6
    for i, alpha in enumerate(TABLE_2):
        many = simulate(
            bank.losses("train"), alpha, n_datasets=20_000, population=bank.losses("test")
        )
        exact = simulate(bank.losses("train"), alpha, n_datasets=20_000)
        for name, run in (
            ("information", many),
            ("gap", many),
            ("test_risk", many),
            ("pool_gap", exact),
        ):
            found = tables[name][:, :, i]
            truth = getattr(run, "gap" if name == "pool_gap" else name)
            # the plug-in bias at M = 300, 20,000 draws of W
            slack = 0.05 if name == "information" else 0.0003
            assert abs(found.mean() - truth) < slack + 5 * found.std() / math.sqrt(6)


def test_spread_separates_banks_from_selections():
    rng = np.random.default_rng(0)
    values = 3 + 2 * rng.standard_normal((400, 1)) + 0.5 * rng.standard_normal((400, 8))
    found = spread(values)
    assert found.mean == pytest.approx(3, abs=0.3)
    assert found.banks == pytest.approx(2, rel=0.1) and found.selections == pytest.approx(
        0.5, rel=0.05
    )
    assert spread(0.5 * rng.standard_normal((400, 8))).banks < 0.1  # banks that are all alike


@pytest.mark.parametrize(("noise", "lowest", "highest"), [(0.01, 0.935, 0.965), (1, 0.94, 0.995)])
def test_prediction_intervals_of_few_banks_keep_their_promise(noise, lowest, highest):
    """With 5 banks the normal factor would cover 0.85; where selections dominate, Student's is
    safe."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        banks = rng.standard_normal((6, 1))
        values = banks + noise * rng.standard_normal((6, 4))
        low, high = spread(values[:5]).interval
        hits += low <= values[5, 0] <= high
    assert lowest < hits / 2000 < highest
