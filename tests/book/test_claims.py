"""The papers' rows: complete, computed, and with verdicts that can come out either way."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from expertbank import load_bank, simulate
from expertbank.book.claims import (
    CLAIMS,
    TABLE_1,
    TABLE_2,
    VERDICTS,
    Claim,
    Evidence,
    Finding,
    headline,
    repeat_tables,
    reproduce,
    spread,
)
from expertbank.book.claims.registry import none_of
from expertbank.bounds import xu_raginsky_bound
from expertbank.information import binary_entropy
from expertbank.rate_distortion import rate_distortion_curve


@pytest.fixture(scope="module")
def findings():
    return {finding.claim.key: finding for finding in reproduce(Evidence(load_bank()))}


def test_every_number_of_both_tables_has_a_row():
    locations = [claim.location for claim in CLAIMS]
    assert locations.count("P2 Table I") == len(TABLE_1) == 8
    table_2 = [c for c in CLAIMS if c.key.startswith("II ")]
    assert len(table_2) == sum(len(row) for row in TABLE_2.values()) == 24


def test_rows_are_told_apart_and_say_why():
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.reason and claim.method and claim.quantity


def test_the_verdicts_of_this_build(findings):
    verdicts = {key: finding.verdict for key, finding in findings.items()}
    assert set(verdicts.values()) <= set(VERDICTS)
    assert {key for key, verdict in verdicts.items() if verdict == "outside"} == {"II gap 0"}
    assert {key for key, verdict in verdicts.items() if verdict == "does not hold"} == {
        "bias_of_the_information",
        "risks_above_the_bound",
        "rate_that_buys_nothing",
        "methods_that_differ",
        "rank_correlation_of_the_metric",
        "learned_below_the_reference",
        "learned_above_the_full_reference",
    }


def test_the_headline_counts_measured_rows_that_no_other_row_settles(findings):
    counted, outside = headline(list(findings.values()))
    assert {finding.claim.key for finding in counted} == {
        "II gap 0",
        "II gap 1",
        "II absolute_gap 0",
        "II absolute_gap 1",
        "II information 1",
        "interval_width",
    }
    assert [finding.claim.key for finding in outside] == ["II gap 0"]
    assert all(finding.claim.kind == "measured" for finding in counted)


# every kind of claim comes out the other way on some data, except where nothing could


@pytest.mark.parametrize("key", [claim.key for claim in CLAIMS if claim.kind == "measured"])
def test_a_measured_claim_can_fail(findings, key):
    """A paper's number beyond the interval, or a family that lies elsewhere, turns the verdict."""
    finding = findings[key]
    low, high = finding.found.interval
    beyond = dataclasses.replace(finding.claim, reported=high + 1)
    assert Finding(beyond, finding.found).verdict == "outside"
    between = dataclasses.replace(finding.claim, reported=(low + high) / 2)
    assert Finding(between, finding.found).verdict == "inside"


@pytest.mark.parametrize("kind", ["compared", "proved"])
def test_what_does_not_come_out_is_said_so(kind):
    claim = Claim("key", "P0", "a count", kind, none_of, "by hand", "none")
    assert Finding(claim, none_of(1)).verdict == "does not hold"
    assert Finding(claim, none_of(0)).verdict != "does not hold"


def test_selection_does_not_pay_on_banks_of_equal_experts():
    claim = next(c for c in CLAIMS if c.key == "banks_where_selection_does_not_pay")
    risks = np.zeros((3, 2, len(TABLE_2)))  # test risks of experiments that gain nothing
    assert claim.compute(SimpleNamespace(tables={"test_risk": risks})).holds is False


def test_randomisation_costs_where_no_input_has_two_best_experts():
    """The counterexample of P1's sentence needs ties; without them the sentence is true."""
    claim = next(c for c in CLAIMS if c.key == "rate_that_buys_nothing")
    for losses, holds in (([[0, 1], [1, 0]], True), ([[0, 1], [1, 0], [0, 0]], False)):
        losses = np.array(losses)
        wanted = np.eye(2)[losses.argmin(axis=1)].mean(axis=0)
        curve = rate_distortion_curve(losses, [0.0])
        evidence = SimpleNamespace(wanted=SimpleNamespace(prior=wanted, curve=curve))
        assert claim.compute(evidence).holds is holds


def test_no_number_stands_where_the_paper_gives_none(findings):
    for finding in findings.values():
        if finding.verdict == "no number":
            assert finding.claim.reported is None
    assert findings["II bound 0"].verdict == "no number"


def test_conditional_entropy_is_the_closed_form(findings):
    # P2 (19): the minimiser has mass alpha + (1 - alpha)/R, the other R - 1 share the rest evenly
    rest = 0.3 * 24 / 25
    closed = binary_entropy(rest) + rest * math.log(24)
    assert findings["I conditional_entropy 0.7"].found.value == pytest.approx(closed, abs=1e-12)
    assert round(closed, 4) == 1.5156


# --- replicated banks ---


def test_the_audits_figures_of_the_family(findings):
    """Recomputed by others: family means at alpha = 0.7, and the interval of G at alpha = 0."""
    assert findings["II information 0.7"].found.value == pytest.approx(1.301, abs=5e-4)
    assert findings["II gap 0.7"].found.value == pytest.approx(0.0058, abs=5e-5)
    assert findings["II gap 0"].found.interval == pytest.approx((-0.0085, -0.0035), abs=5e-5)


def test_measured_claims_show_the_shipped_bank_beside_the_family(findings):
    for finding in findings.values():
        if finding.claim.kind == "measured":
            assert finding.found.shipped is not None and finding.found.interval is not None


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


def test_repeated_tables_take_other_sizes_of_an_experiment():
    bank = load_bank()
    tables = repeat_tables([bank], 2, sample_size=64, n_datasets=200)
    bound = xu_raginsky_bound(tables["information"], 64, sigma=1)
    assert np.array_equal(tables["bound"], bound)
    truth = simulate(bank.losses("train"), 1, sample_size=64, n_datasets=20_000).gap
    assert tables["pool_gap"][0, :, -1] == pytest.approx(truth, abs=0.01)
    # a quarter of the images doubles the gap
    usual = repeat_tables([bank], 2)["pool_gap"][0, :, -1]
    assert tables["pool_gap"][0, :, -1].mean() > 1.5 * usual.mean()


def test_spread_separates_banks_from_selections():
    rng = np.random.default_rng(0)
    values = 3 + 2 * rng.standard_normal((400, 1)) + 0.5 * rng.standard_normal((400, 8))
    found = spread(values)
    assert found.mean == pytest.approx(3, abs=0.3)
    assert found.banks == pytest.approx(2, rel=0.1) and found.selections == pytest.approx(
        0.5, rel=0.05
    )
    assert spread(0.5 * rng.standard_normal((400, 8))).banks < 0.1  # banks that are all alike


def test_datasets_and_bootstrap_have_streams_of_their_own(monkeypatch):
    """One seed for both would tie which datasets are drawn to which are drawn again."""
    streams = []

    def posteriors_of(losses, sample_size, n_datasets, rng):
        streams.append(rng.bit_generator.state["state"]["state"])
        return np.tile([0.1, 0.2], (n_datasets, 1))

    def interval_of(posteriors, n_resamples, rng):
        streams.append(rng.bit_generator.state["state"]["state"])
        return 0.0, 1.0

    monkeypatch.setattr("expertbank.book.claims.evidence.empirical_risks", posteriors_of)
    monkeypatch.setattr("expertbank.book.claims.evidence.bootstrap_interval", interval_of)
    evidence = Evidence(load_bank())
    evidence.__dict__["family"] = [evidence.bank, evidence.bank]
    assert evidence.intervals.shape == (2, 2, 2)
    assert len(streams) == len(set(streams)) == 8


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
