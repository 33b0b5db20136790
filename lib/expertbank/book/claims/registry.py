"""A claim of a paper, the number found in its place, and how the claims of a paper are written
down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from expertbank.book.claims.evidence import Evidence


@dataclass(frozen=True)
class Claim:
    """One statement of a paper that a number can confirm or contradict."""

    key: str
    location: str
    """paper and place"""
    quantity: str
    reported: float
    """nan where the paper prints nan"""
    compute: Callable[[Evidence], float]
    method: str
    """how ours is computed"""
    tolerance: float
    """largest difference from `reported` that counts as reproduced"""
    reason: str
    """why that tolerance"""
    cell: tuple[str, float] | None = None
    """quantity and alpha of a number in P2's Tables I and II"""


@dataclass(frozen=True)
class Finding:
    """A claim with the number found in its place.

    >>> claims = PaperClaims()
    >>> note = claims.claim("one", "P0", "a count", reported=0, method="", tolerance=0, reason="")
    >>> _ = note(lambda evidence: 2)
    >>> Finding(claims.rows[0], found=2).verdict
    'differs'
    """

    claim: Claim
    found: float
    interval: tuple[float, float] | None = None
    """for Tables I and II: where 95% of experiments with M = 300 on another bank of the recipe
    would fall"""

    @property
    def verdict(self) -> str:
        """`reproduced` within the tolerance, `differs` outside, `undefined` where the paper prints
        nan."""
        if np.isnan(self.claim.reported):
            return "undefined"
        if abs(self.found - self.claim.reported) <= self.claim.tolerance:
            return "reproduced"
        return "differs"


class PaperClaims:
    """The claims of one paper, in the order in which they are written down.

    >>> claims = PaperClaims()
    >>> @claims.claim("experts", "P2, text", "experts in the bank", reported=25,
    ...               method="shipped predictions", tolerance=0, reason="a count")
    ... def experts(evidence):
    ...     return evidence.bank.n_experts
    >>> claims.rows[0].quantity
    'experts in the bank'
    """

    def __init__(self):
        self.rows: list[Claim] = []

    def claim(
        self,
        key: str,
        location: str,
        quantity: str,
        *,
        reported: float,
        method: str,
        tolerance: float,
        reason: str,
        cell: tuple[str, float] | None = None,
    ) -> Callable[[Callable[[Evidence], float]], Callable[[Evidence], float]]:
        """Decorate a function that finds our number from the evidence with what the paper says.

        The arguments are the fields of `Claim`.
        """

        def note(compute: Callable[[Evidence], float]) -> Callable[[Evidence], float]:
            row = Claim(key, location, quantity, reported, compute, method, tolerance, reason, cell)
            self.rows.append(row)
            return compute

        return note
