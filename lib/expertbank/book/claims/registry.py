"""A claim of a paper, what is found in its place, and the verdict.

A verdict that cannot fail is not evidence. So each claim says beforehand of which kind it is:

- **measured**: the paper prints a number of one experiment on one bank. It is `inside` or `outside`
  the 95% prediction interval of one such experiment on another bank of the recipe.
- **proved**: a theorem or an identity. It is computed all the same, as a check of the library:
  where the check fails, the verdict is `does not hold`.
- **calibrated**: a choice of ours was fitted to it, so that agreement says nothing.
- **compared**: a statement in words that data can contradict: `holds` or `does not hold`.
- **no number**: the paper gives nothing to compare with; ours stands by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from expertbank._texts import docstring
from expertbank.book.claims.evidence import Evidence, spread

Kind = Literal["measured", "proved", "calibrated", "compared", "no number"]
VERDICTS = ("inside", "outside", "holds", "does not hold", "proved", "calibrated", "no number")


@dataclass(frozen=True)
class Found:
    """What was found in the place of a claim."""

    value: float
    """our number; of a measured claim the mean over the family of banks"""
    interval: tuple[float, float] | None = None
    """95% prediction interval of one experiment on another bank"""
    shipped: float | None = None
    """the number of the shipped bank alone"""
    holds: bool | None = None
    """whether a compared claim, or the check of a proved one, came out"""


def none_of(count: int) -> Found:
    """A count of what should not happen.

    >>> none_of(2).holds
    False
    """
    return Found(count, holds=count == 0)


def over_the_family(values: np.ndarray) -> Found:
    """Mean and prediction interval of experiments (B, E) on B banks, the shipped bank first."""
    found = spread(values)
    return Found(found.mean, found.interval, float(values[0].mean()))


Compute = Callable[[Evidence], Found]


@dataclass(frozen=True)
class Claim:
    """One statement of a paper, or of what follows from it."""

    key: str
    location: str
    """paper and place"""
    quantity: str
    """in words that need no code"""
    kind: Kind
    compute: Compute
    method: str
    """how ours is computed"""
    reason: str
    """why the verdict can, or cannot, come out the other way"""
    reported: float | None = None
    """None where the paper gives no number"""
    decimals: int = 4
    """digits that the paper prints behind the point; 0 for a count"""
    independent: bool = False
    """whether a headline counts it: measured, and no function of other rows"""


@dataclass(frozen=True)
class Finding:
    """A claim with what was found in its place.

    >>> claim = Claim("gap", "P0", "gap", "measured", len, "by hand", "none", reported=0.5)
    >>> Finding(claim, Found(0.4, interval=(0.3, 0.49))).verdict
    'outside'
    >>> Finding(claim, Found(0.4, interval=(0.3, 0.52))).verdict
    'inside'
    """

    claim: Claim
    found: Found

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        kind = self.claim.kind
        if kind == "measured":
            return self._inside_or_outside()
        if kind == "compared":
            return "holds" if self.found.holds else "does not hold"
        if kind == "proved" and not self.found.holds:
            return "does not hold"
        return kind

    def _inside_or_outside(self) -> str:
        reported = self.claim.reported
        if reported is None or self.found.interval is None:
            raise ValueError(
                f"{self.claim.key} is measured; it needs a reported value and an interval"
            )
        low, high = self.found.interval
        rounding = 0.5 * 10.0**-self.claim.decimals  # the paper's own last digit
        is_inside = low - rounding <= reported <= high + rounding
        return "inside" if is_inside else "outside"


class PaperClaims:
    """The claims of one paper, in the order in which they are written down.

    >>> paper = PaperClaims()
    >>> @paper.claim("P2, text", "calibrated", reported=25, decimals=0, method="shipped bank")
    ... def bank_size(evidence):
    ...     '''experts in the bank
    ...
    ...     the number is part of the recipe
    ...     '''
    ...     return Found(evidence.bank.n_experts)
    >>> paper.rows[0].quantity, paper.rows[0].reason
    ('experts in the bank', 'the number is part of the recipe')
    """

    def __init__(self) -> None:
        self.rows: list[Claim] = []

    def claim(
        self,
        location: str,
        kind: Kind,
        *,
        method: str,
        reported: float | None = None,
        decimals: int = 4,
        independent: bool = False,
    ) -> Callable[[Compute], Compute]:
        """Decorate a function that finds our side of a claim with what the paper says.

        The function's name is the key of the claim. The first paragraph of its docstring is the
        quantity; the second says why the verdict can, or cannot, come out the other way.
        """

        def note(compute: Compute) -> Compute:
            paragraphs = docstring(compute).split("\n\n")
            quantity, reason = [" ".join(part.split()) for part in paragraphs]
            row = Claim(
                key=compute.__name__,
                location=location,
                quantity=quantity,
                kind=kind,
                compute=compute,
                method=method,
                reason=reason,
                reported=reported,
                decimals=decimals,
                independent=independent,
            )
            self.rows.append(row)
            return compute

        return note


def headline(findings: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    """The independent measured findings, and those among them whose verdict is `outside`."""
    counted = [finding for finding in findings if finding.claim.independent]
    outside = [finding for finding in counted if finding.verdict == "outside"]
    return counted, outside
