"""P2's claims: every number of its Tables I and II, the figures that its text quotes, its curve,
and what its text says in words.

Each docstring says what the row of the report says: the quantity, and why the verdict can, or
cannot, come out the other way. `registry` says what the kinds of claims are.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from expertbank.book.claims.evidence import (
    ACCURACY_RANGE,
    BANK_SIZES,
    DISAGREEMENT_RANGE,
    MANY_DATASETS,
    PAPER_DATASETS,
    SAMPLE_SIZE,
    TABLE_1,
    TABLE_2,
    Evidence,
    bank_summary,
    count_falls,
)
from expertbank.book.claims.registry import (
    Claim,
    Found,
    Kind,
    PaperClaims,
    none_of,
    over_the_family,
)
from expertbank.bounds import union_bound, xu_raginsky_bound
from expertbank.information import miller_madow_bias
from expertbank.rate_distortion import rate_distortion_curve
from expertbank.shipped.bank import load_bank
from expertbank.shipped.gates import LAMS, ORACLE

P2 = PaperClaims()


# --- Tables I and II ---

ON_THE_FAMILY = "21 banks of the recipe, ten experiments with M = 300 on each"
TABLE_QUANTITIES = {
    "train_risk": "mean training risk of the selected expert",
    "test_risk": "mean test risk of the selected expert",
    "gap": "mean generalisation gap G",
    "absolute_gap": "mean absolute gap",
    "marginal_entropy": "entropy H(W) of the selected expert, nats",
    "conditional_entropy": "entropy H(W|S) of the selection given the sample, nats",
    "information": "algorithmic information I(S;W), nats",
    "bound": "bound B_MI with sigma = 1",
}
FITTED = "follows from the accuracies, which our batch size was chosen by"
# of measured rows that other rows settle: why
SETTLED = {
    "train_risk": FITTED,
    "test_risk": FITTED,
    "gap": "the gap is linear in alpha: the rows at 0 and 1 settle those between",
    "absolute_gap": "nearly the same experiments as the rows at 0 and 1",
    "marginal_entropy": "H(W|S), a closed form, plus I(S;W)",
    "information": "settled by how often each expert wins, as the row at alpha = 1 is",
    "bound": "a function of I(S;W)",
}
INDEPENDENT = {("information", 1.0), ("gap", 0.0), ("gap", 1.0)}
INDEPENDENT |= {("absolute_gap", 0.0), ("absolute_gap", 1.0)}


def kind_of(name: str, alpha: float) -> tuple[Kind, str]:
    """Of a number of the tables: what kind of claim it is, and why."""
    if name == "conditional_entropy":
        return "proved", "a closed form of alpha and R, P2 (19)"
    if alpha == 0 and name == "information":
        return "proved", "a selection that ignores S carries nothing about it"
    if alpha == 0 and name == "bound":
        reason = "the paper prints nan, the root of a rounding error below 0; I(S;W) = 0 gives 0"
        return "no number", reason
    if (name, alpha) in INDEPENDENT:
        return "measured", "another bank may lie anywhere in or out of the interval"
    return "measured", SETTLED[name]


def table_value(evidence: Evidence, name: str, alpha: float) -> float:
    """One number of P2's Tables I and II as the bank of the evidence gives it, M = 20,000."""
    selection = evidence.selections[alpha]
    if name == "bound":
        return float(xu_raginsky_bound(selection.information, SAMPLE_SIZE, sigma=1))
    return float(getattr(selection, name))


def table_row(evidence: Evidence, name: str, alpha: float) -> Found:
    """The family's mean and interval of one number of the tables, and the shipped bank's number."""
    family = evidence.spreads[name, alpha]
    shipped = table_value(evidence, name, alpha)
    reported = TABLE_2[alpha].get(name, TABLE_1[name])
    return Found(family.mean, family.interval, shipped, holds=abs(shipped - reported) <= 5e-5)


def claim_every_table_value() -> None:
    """Both tables, a claim for each number, in the order of the paper."""
    rows = [("I", 0.7, TABLE_1)]
    rows += [("II", alpha, values) for alpha, values in TABLE_2.items()]
    for table, alpha, values in rows:
        for name, reported in values.items():
            kind, reason = kind_of(name, alpha)
            is_repeat = table == "I" and name in TABLE_2[alpha]
            row = Claim(
                key=f"{table} {name} {alpha:g}",
                location=f"P2 Table {table}",
                quantity=f"{TABLE_QUANTITIES[name]}, alpha = {alpha:g}",
                kind=kind,
                compute=partial(table_row, name=name, alpha=alpha),
                method=ON_THE_FAMILY,
                reason="printed again in Table II" if is_repeat else reason,
                reported=None if kind == "no number" else reported,
                independent=table == "II" and (name, alpha) in INDEPENDENT,
            )
            P2.rows.append(row)


claim_every_table_value()


# --- the bank, in the text ---

SHIPPED = "predictions of the shipped bank"


@P2.claim("P2, text", "calibrated", reported=ACCURACY_RANGE[0], decimals=2, method=SHIPPED)
def lowest_accuracy(evidence: Evidence) -> Found:
    """lowest test accuracy of an expert

    of the usual batch sizes the one was taken that agrees best with the four ranges
    """
    return Found(float(bank_summary(evidence.bank)["lowest_accuracy"]))


@P2.claim("P2, text", "calibrated", reported=ACCURACY_RANGE[1], decimals=2, method=SHIPPED)
def highest_accuracy(evidence: Evidence) -> Found:
    """highest test accuracy of an expert

    of the usual batch sizes the one was taken that agrees best with the four ranges
    """
    return Found(float(bank_summary(evidence.bank)["highest_accuracy"]))


@P2.claim("P2, text", "calibrated", reported=DISAGREEMENT_RANGE[0], decimals=2, method=SHIPPED)
def lowest_disagreement(evidence: Evidence) -> Found:
    """lowest share of test images on which two experts disagree

    of the usual batch sizes the one was taken that agrees best with the four ranges
    """
    return Found(float(bank_summary(evidence.bank)["lowest_disagreement"]))


@P2.claim("P2, text", "calibrated", reported=DISAGREEMENT_RANGE[1], decimals=2, method=SHIPPED)
def highest_disagreement(evidence: Evidence) -> Found:
    """highest share of test images on which two experts disagree

    of the usual batch sizes the one was taken that agrees best with the four ranges
    """
    return Found(float(bank_summary(evidence.bank)["highest_disagreement"]))


# --- how well I(S;W) is known, in the text ---

BOOTSTRAP = "percentile bootstrap, M = 300, twice on each of the 21 banks"


@P2.claim("P2, text", "measured", reported=1.34, decimals=2, method=BOOTSTRAP)
def interval_low(evidence: Evidence) -> Found:
    """lower end of the 95% interval of I(S;W) at alpha = 0.7, nats

    I(S;W) itself less half the width
    """
    return over_the_family(evidence.intervals[:, :, 0])


@P2.claim("P2, text", "measured", reported=1.42, decimals=2, method=BOOTSTRAP)
def interval_high(evidence: Evidence) -> Found:
    """upper end of the 95% interval of I(S;W) at alpha = 0.7, nats

    I(S;W) itself and half the width
    """
    return over_the_family(evidence.intervals[:, :, 1])


@P2.claim("P2, text", "measured", reported=0.08, decimals=2, method=BOOTSTRAP, independent=True)
def interval_width(evidence: Evidence) -> Found:
    """width of the 95% interval of I(S;W) at alpha = 0.7, nats

    another bank may lie anywhere in or out of the interval
    """
    ends = evidence.intervals
    return over_the_family(ends[:, :, 1] - ends[:, :, 0])


@P2.claim("P2, text", "proved", reported=0.04, decimals=2, method="closed form")
def miller_madow_term(evidence: Evidence) -> Found:
    """Miller and Madow's correction (R-1)/(2M), nats

    arithmetic
    """
    term = miller_madow_bias(evidence.bank.n_experts, PAPER_DATASETS)
    return Found(term, holds=round(term, 2) == 0.04)


@P2.claim("P2, text", "compared", reported=0.04, decimals=2, method="delta method, for M = 300")
def bias_of_the_information(evidence: Evidence) -> Found:
    """the bias of I(S;W) at alpha = 0.7 that this correction is to remove, nats

    it would hold for multinomial counts; the posteriors of a mixture vary less
    """
    scale = MANY_DATASETS / PAPER_DATASETS
    bias = -evidence.selections[0.7].algorithmic.bias * scale
    return Found(bias, holds=round(bias, 2) == 0.04)


# --- the bounds, in the text ---


def loose_row(evidence: Evidence, alpha: float) -> Found:
    """B_MI as a multiple of the gap, of the family and of the shipped bank."""
    inverse = evidence.looseness(alpha)
    low, high = inverse.interval
    interval = (1 / high, 1 / low) if low > 0 else (1 / high, np.inf)
    bound = table_value(evidence, "bound", alpha)
    return Found(1 / inverse.mean, interval, bound / table_value(evidence, "gap", alpha))


@P2.claim("P2, text", "proved", reported=0.079, decimals=3, method="closed form")
def union_bound_of_the_bank(evidence: Evidence) -> Found:
    """union bound sqrt(log R / 2m)

    arithmetic
    """
    bound = union_bound(evidence.bank.n_experts, SAMPLE_SIZE)
    return Found(bound, holds=round(bound, 3) == 0.079)


@P2.claim("P2, text", "measured", reported=20, decimals=0, method=ON_THE_FAMILY)
def looseness_at_70_percent(evidence: Evidence) -> Found:
    """B_MI as a multiple of the gap, alpha = 0.7

    a ratio of two numbers of Table II
    """
    return loose_row(evidence, 0.7)


@P2.claim("P2, text", "measured", reported=14, decimals=0, method=ON_THE_FAMILY)
def looseness_of_the_best_expert(evidence: Evidence) -> Found:
    """B_MI as a multiple of the gap, alpha = 1

    a ratio of two numbers of Table II
    """
    return loose_row(evidence, 1.0)


@P2.claim("P2, text", "measured", reported=2, decimals=0, method=ON_THE_FAMILY)
def information_bound_by_union_bound(evidence: Evidence) -> Found:
    """B_MI with sigma = 1 as a multiple of the union bound, alpha = 1

    a function of I(S;W); with sigma = 1/2, as in the union bound, it cannot exceed 1
    """
    union = union_bound(evidence.bank.n_experts, SAMPLE_SIZE)
    family = evidence.spreads["bound", 1.0]
    low, high = family.interval
    shipped = table_value(evidence, "bound", 1.0)
    return Found(family.mean / union, (low / union, high / union), shipped / union)


# --- what the text says in words ---


@P2.claim("P2 Table II", "proved", decimals=0, method="count over the alphas of Table II")
def falls_of_the_table_information(evidence: Evidence) -> Found:
    """falls of I(S;W) as alpha rises

    I(S;W) is convex in alpha and 0 at alpha = 0
    """
    return none_of(count_falls(run.information for run in evidence.selections.values()))


@P2.claim("P2 Table II", "proved", decimals=0, method="count over the alphas of Table II")
def falls_of_the_table_gap(evidence: Evidence) -> Found:
    """falls of G as alpha rises: "I(S;W) tracks G"

    G is linear in alpha, so it tracks anything that rises; the paper calls it an observation
    """
    return none_of(count_falls(run.expected_gap for run in evidence.selections.values()))


@P2.claim("P2, text", "compared", decimals=0, method="the 21 banks, alpha = 1 against alpha = 0")
def banks_where_selection_does_not_pay(evidence: Evidence) -> Found:
    """banks on which selecting on data gives no lower test risk than a uniform choice

    it fails on a bank whose experts are alike or whose samples mislead
    """
    risks = evidence.tables["test_risk"].mean(axis=1)
    uniform = risks[:, list(TABLE_2).index(0.0)]
    selected = risks[:, list(TABLE_2).index(1.0)]
    return none_of(int(np.sum(selected >= uniform)))


@P2.claim("P2, sensitivity", "compared", decimals=0, method="10, 25, 50 experts; 3 subset sizes")
def steps_of_size_without_more_information(evidence: Evidence) -> Found:
    """steps from a bank to a larger one at which I(S;W) does not grow

    a larger bank whose new experts never win would not raise it
    """
    return none_of(sum(count_falls(row) for row in evidence.informations_by_size.values()))


@P2.claim("P2, sensitivity", "no number", method="10, 25, 50 experts; 3 subset sizes")
def information_by_log_size(evidence: Evidence) -> Found:
    """I(S;W) at alpha = 0.7 as a share of log R, from the least to the largest of nine banks

    "about like log R" names no factor
    """
    shares = [row / np.log(BANK_SIZES) for row in evidence.informations_by_size.values()]
    return Found(float(np.mean(shares)), (float(np.min(shares)), float(np.max(shares))))


@P2.claim("P2 section V", "proved", decimals=0, method="certified curve, 2,000 test images")
def rises_of_the_curve(evidence: Evidence) -> Found:
    """rises of D along the curve

    D(R) never rises; it falls strictly up to the rate at which every input has its best expert
    """
    order = np.argsort(evidence.curve.rate)
    return none_of(count_falls(-np.asarray(evidence.curve.distortion)[order]))


@P2.claim("P2 section V", "proved", decimals=0, method="certified curve, 2,000 test images")
def failures_of_convexity(evidence: Evidence) -> Found:
    """points of the curve above the chord of their neighbours

    D(R) is convex
    """
    order = np.argsort(evidence.curve.rate)
    rate = np.asarray(evidence.curve.rate)[order]
    distortion = np.asarray(evidence.curve.distortion)[order]
    # below the smallest excess loss all lambda give one point
    is_new = np.append(True, np.diff(rate) > 1e-6)
    slopes = np.diff(distortion[is_new]) / np.diff(rate[is_new])
    return none_of(count_falls(slopes + 1e-6))


@P2.claim("P2, future work", "proved", decimals=0, method="180 gates on two banks, held out")
def gates_below_the_curve(evidence: Evidence) -> Found:
    """gates trained under (26) that lose less than D at their rate

    D(R) is the least loss of any gate, and it sees the label
    """
    below = 0
    for name in LAMS:
        curve = rate_distortion_curve(load_bank(name).losses("test"))
        rows = evidence.gates.rows(bank=name, split="test")
        trained = rows.query(f"family != '{ORACLE}'")
        below += int(np.sum(trained["loss"] < curve.lower(trained["rate"]) - 1e-5))
    return none_of(below)
