"""A claim of a paper, the number found in its place, and how the claims of a paper are written
down."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from expertbank.book.claims.evidence import Evidence

Compute = Callable[[Evidence], float]


@dataclass(frozen=True)
class Claim:
    """One statement of a paper that a number can confirm or contradict."""

    key: str
    location: str
    """paper and place"""
    quantity: str
    reported: float
    """nan where the paper prints nan"""
    compute: Compute
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

    >>> claim = Claim("experts", "P2, text", "experts", 25, len, "shipped bank", 0, "a count")
    >>> Finding(claim, found=24).verdict
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

    >>> paper = PaperClaims()
    >>> @paper.claim("P2, text", reported=25, method="shipped predictions")
    ... def bank_size(evidence):
    ...     '''experts in the bank'''
    ...     return evidence.bank.n_experts
    >>> paper.rows[0].quantity, paper.rows[0].reason
    ('experts in the bank', 'a count')
    """

    def __init__(self):
        self.rows: list[Claim] = []

    def claim(
        self, location: str, *, method: str, reported: float = 0, tolerance: float = 0
    ) -> Callable[[Compute], Compute]:
        """Decorate a function that finds our number from the evidence with what the paper says.

        The function's name is the key of the claim. The first paragraph of its docstring is the
        quantity, and the second says why that tolerance; without one it is a count.
        """

        def note(compute: Compute) -> Compute:
            text = inspect.getdoc(compute)
            assert text is not None, f"{compute.__name__} has no docstring"
            quantity, *reasons = [" ".join(part.split()) for part in text.split("\n\n")]
            reason = reasons[0] if reasons else "a count"
            key = compute.__name__
            row = Claim(key, location, quantity, reported, compute, method, tolerance, reason)
            self.rows.append(row)
            return compute

        return note
