"""What the papers report, and what this library finds in its place: one claim a number.

The report page of the book, `expertbank report` and the tests read these claims. A claim is a
function that finds our number from the experiments of `Evidence`, under a decorator that holds what
the paper says; one that does not come out stays visible as such. P2 comes first: its bank is the
book's subject.
"""

from __future__ import annotations

from expertbank.book.claims.evidence import (
    TABLE_1,
    TABLE_2,
    Evidence,
    bank_summary,
    repeat_tables,
    spread,
)
from expertbank.book.claims.p1 import P1
from expertbank.book.claims.p2 import P2
from expertbank.book.claims.p3 import P3
from expertbank.book.claims.registry import VERDICTS, Claim, Finding, Found, headline

__all__ = ["CLAIMS", "TABLE_1", "TABLE_2", "VERDICTS", "Claim", "Evidence", "Finding", "Found"]
__all__ += ["bank_summary", "headline", "repeat_tables", "reproduce", "spread"]

CLAIMS: tuple[Claim, ...] = (*P2.rows, *P1.rows, *P3.rows)


def reproduce(evidence: Evidence, claims: tuple[Claim, ...] = CLAIMS) -> list[Finding]:
    """Every claim with what is found in its place, in the order given.

    >>> from expertbank import load_bank
    >>> union = next(claim for claim in CLAIMS if claim.key == "union_bound_of_the_bank")
    >>> [finding] = reproduce(Evidence(load_bank()), (union,))
    >>> finding.verdict, round(finding.found.value, 4)
    ('proved', 0.0793)
    """
    return [Finding(claim, claim.compute(evidence)) for claim in claims]
