"""Dials that the stops of a page lack: what an explorer is made of, such as the bank or a seed.

A page that loads the library offers them beside the explorer's own dials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from expertbank.book import explorers
from expertbank.book.explorers.channel import NINE_CANDIDATES, synthetic_bank
from expertbank.book.explorers.dial import Dial, starts_of
from expertbank.book.explorers.gates import most_used_experts
from expertbank.book.explorers.scene import Scene
from expertbank.book.explorers.second_look import shares_won
from expertbank.shipped.bank import load_bank

BANKS = ("mnist", "specialists")
MIX_NAMES = ("scripts", "latin")


@dataclass(frozen=True)
class Variants:
    """Dials over whole numbers or fractions of what an explorer is made of, by what `make` calls
    them."""

    make: Callable[..., explorers.Explorer]
    dials: Mapping[str, Dial]

    def at(self, **values: float) -> explorers.Explorer:
        """The explorer at a value of every dial."""
        given = {key: x if _fraction(self.dials[key]) else int(x) for key, x in values.items()}
        return self.make(**given)


def _fraction(dial: Dial) -> bool:
    return dial.live is not None and not isinstance(dial.live[2], int)


def _start(bank: int) -> explorers.Explorer:
    return explorers.explore_start(load_bank(BANKS[bank]))


def _alpha_mixture(seed: int, **candidates: int) -> explorers.Explorer:
    return explorers.explore_alpha_mixture(*synthetic_bank(**candidates), seed=seed)


def _bsc(number: int, lowest: float, highest: float) -> explorers.Explorer:
    return explorers.explore_bsc(np.linspace(lowest, highest, number))


def _mnist_bank(bank: int, seed: int) -> explorers.Explorer:
    return explorers.explore_mnist_bank(load_bank(BANKS[bank]), seed=seed)


def _blahut_arimoto(bank: int) -> explorers.Explorer:
    # stops are for a page alone, and each costs a solution
    return explorers.explore_blahut_arimoto(load_bank(BANKS[bank]).losses("test"), n_stops=9)


def _estimators(bank: int) -> explorers.Explorer:
    return explorers.explore_estimators(shares_won(load_bank(BANKS[bank])))


def _other_learners(bank: int, seed: int) -> explorers.Explorer:
    return explorers.explore_other_learners(load_bank(BANKS[bank]), seed=seed)


def _gates(bank: int) -> explorers.Explorer:
    return explorers.explore_gates(bank=load_bank(BANKS[bank]))


def _links(n_experts: int) -> explorers.Explorer:
    return explorers.explore_link(*most_used_experts(n_experts))


def _testbed(mix: int) -> explorers.Explorer:
    return explorers.explore_testbed(mix=MIX_NAMES[mix])


BANK = Dial("bank", 0, stops=(0, 1), names=("25 networks on MNIST", "25 specialists"))
SEED = Dial("seed of the datasets", 0, live=(0, 99, 1))
OF_ALPHA_MIXTURE = {
    "dimension": Dial("dimension of an input", 20, live=(2, 50, 1)),
    "n_experts": Dial("experts of a candidate", 4, live=(2, 12, 1)),
    "rng": Dial("seed of the candidates", 1, live=(0, 99, 1)),
    "seed": SEED,
}
# a candidate has a crossover above 0 and at most 1/2
OF_BSC = {
    "number": Dial("candidates", len(NINE_CANDIDATES), live=(1, 49, 1)),
    "lowest": Dial("lowest candidate", 0.05, live=(0.01, 0.5, 0.01)),
    "highest": Dial("highest candidate", 0.45, live=(0.01, 0.5, 0.01)),
}
LANGUAGES = Dial("languages", 0, stops=(0, 1), names=("of eight scripts", "of one script"))
VARIANTS = {
    "start": Variants(_start, {"bank": BANK}),
    "alpha_mixture": Variants(_alpha_mixture, OF_ALPHA_MIXTURE),
    "bsc": Variants(_bsc, OF_BSC),
    "mnist_bank": Variants(_mnist_bank, {"bank": BANK, "seed": SEED}),
    "blahut_arimoto": Variants(_blahut_arimoto, {"bank": BANK}),
    "estimators": Variants(_estimators, {"bank": BANK}),
    "other_learners": Variants(_other_learners, {"bank": BANK, "seed": SEED}),
    "gates": Variants(_gates, {"bank": replace(BANK, start=1)}),
    "links": Variants(_links, {"n_experts": Dial("experts", 8, live=(2, 10, 1))}),
    "testbed": Variants(_testbed, {"mix": LANGUAGES}),
}


def with_variants(name: str) -> explorers.Explorer:
    """The explorer of a chapter with all its dials; what it is made of at last is kept."""
    first = explorers.EXPLORERS[name]()
    more = VARIANTS.get(name)
    if more is None:
        return first
    starts = starts_of(more.dials)
    made = lru_cache(maxsize=1)(more.at)

    def scene(**values: float) -> Scene:
        own = {key: float(values.pop(key)) for key in starts}
        explorer = first if own == starts else made(**own)
        return explorer.scene(**values)

    return replace(first, scene=scene, dials={**first.dials, **more.dials})
