"""Explorers: dials around pure library functions, one a chapter.

A scene is plain numbers; the page, JupyterLab and Binder draw it with one ES module. `EXPLORERS`
makes the explorer of a chapter from shipped data alone; a function takes other data, too.
"""

from __future__ import annotations

from collections.abc import Callable

from expertbank.book.explorers.banks import explore_blahut_arimoto, explore_mnist_bank
from expertbank.book.explorers.channel import explore_alpha_mixture, explore_bsc
from expertbank.book.explorers.explorer import Dial, Explorer
from expertbank.book.explorers.gates import explore_gates, explore_link, explore_theorem2
from expertbank.book.explorers.in_network import explore_in_network
from expertbank.book.explorers.second_look import (
    explore_estimators,
    explore_ladder,
    explore_other_learners,
)
from expertbank.book.explorers.start import explore_start
from expertbank.book.explorers.testbed import explore_testbed

EXPLORERS: dict[str, Callable[[], Explorer]] = {
    "start": explore_start,
    "alpha_mixture": explore_alpha_mixture,
    "bsc": explore_bsc,
    "mnist_bank": explore_mnist_bank,
    "blahut_arimoto": explore_blahut_arimoto,
    "estimators": explore_estimators,
    "other_learners": explore_other_learners,
    "ladder": explore_ladder,
    "gates": explore_gates,
    "theorem2": explore_theorem2,
    "links": explore_link,
    "testbed": explore_testbed,
    "in_network": explore_in_network,
}

__all__ = ["EXPLORERS", "Dial", "Explorer", *(make.__name__ for make in EXPLORERS.values())]
