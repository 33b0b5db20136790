"""What came of one part of a reproduction, in one of three words and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RESULTS = ("identical", "within", "differs")


@dataclass(frozen=True)
class Outcome:
    """Of one part: identical, within the stated tolerance, or different."""

    part: str
    result: str
    sentence: str

    def __post_init__(self):
        if self.result not in RESULTS:
            raise ValueError(f"result is {self.result!r}; allowed are {RESULTS}")

    def line(self) -> str:
        """As `expertbank reproduce` prints it."""
        return f"{self.result:9}  {self.part}: {self.sentence}"


def outcome_of(part: str, pairs: Mapping[str, tuple[float, float]], tolerance: float) -> Outcome:
    """Numbers that should be the same, by name: how many are, and by how much one differs at most.

    >>> outcome_of("gate", {"rate": (1.5, 1.5), "loss": (0.1, 0.102)}, 0.01).line()
    'within     gate: 1 of 2 numbers identical, loss differs most, 0.1 and 0.102, tolerance 0.01'
    """
    apart = {name: abs(one - other) for name, (one, other) in pairs.items()}
    differing = {name: by for name, by in apart.items() if by != 0}
    sentence = f"{len(pairs) - len(differing)} of {len(pairs)} numbers identical"
    if not differing:
        return Outcome(part, "identical", sentence)
    name = max(differing, key=differing.__getitem__)
    one, other = pairs[name]
    sentence += f", {name} differs most, {one:.6g} and {other:.6g}, tolerance {tolerance:g}"
    is_within = all(by <= tolerance for by in differing.values())
    return Outcome(part, "within" if is_within else "differs", sentence)


def summary(outcomes: list[Outcome]) -> str:
    """How many parts came out how.

    >>> summary([Outcome("bank", "identical", "3 of 3 files identical")])
    'reproduced: 1 of 1 parts identical'
    """
    counts = {result: sum(one.result == result for one in outcomes) for result in RESULTS}
    word = "NOT reproduced" if counts["differs"] else "reproduced"
    text = f"{word}: {counts['identical']} of {len(outcomes)} parts identical"
    if counts["within"]:
        text += f", {counts['within']} within the stated tolerance"
    if counts["differs"]:
        text += f", {counts['differs']} different"
    return text
