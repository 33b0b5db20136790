"""Dials that the stops of a page lack: what an explorer is made of."""

import json

import numpy as np
import pytest

from expertbank import load_bank
from expertbank.book.explorers import EXPLORERS
from expertbank.book.explorers.live import dials_of, opened, scene_of
from expertbank.book.explorers.variants import VARIANTS
from expertbank.shipped.testbed import load_testbed
from expertbank.synthetic import bsc_selection

every_variant = pytest.mark.parametrize("name", VARIANTS)


def asked(name, **setting):
    """The scene that a page gets."""
    dials = {key: dial.start for key, dial in opened(name).dials.items()}
    return json.loads(scene_of(name, json.dumps({**dials, **setting})))


def readings(scene):
    return {one["name"]: one["value"] for one in scene["readings"]}


@every_variant
def test_a_page_offers_them_beside_its_own_dials(name):
    own = EXPLORERS[name]().dials
    dials = json.loads(dials_of(name))
    assert list(dials) == [*own, *VARIANTS[name].dials]
    for key, dial in VARIANTS[name].dials.items():
        assert key not in own
        low, high = (dial.live or (dial.stops[0], dial.stops[-1]))[:2]
        assert low <= dial.start <= high
        assert len(dial.names) == len(dial.stops)


@every_variant
def test_where_they_start_is_the_explorer_of_the_chapter(name):
    chapter = EXPLORERS[name]()
    shown = json.loads(json.dumps(chapter.scene(**chapter.start()).to_json()))
    assert asked(name) == shown
    explorer = VARIANTS[name].at(**{key: dial.start for key, dial in VARIANTS[name].dials.items()})
    again = readings(json.loads(json.dumps(explorer.scene(**chapter.start()).to_json())))
    assert again == pytest.approx(readings(shown), rel=1e-9)


@every_variant
def test_each_of_them_changes_the_picture_and_keeps_its_numbers_finite(name):
    start = asked(name)
    for key, dial in VARIANTS[name].dials.items():
        end = dial.live[1] if dial.live else dial.stops[-1]
        if dial.start == end:
            end = dial.stops[0]
        scene = asked(name, **{key: end})
        assert scene["readings"] != start["readings"], key
        assert len(scene["readings"]) == len(start["readings"])
        assert np.isfinite(list(readings(scene).values())).all(), key


def test_candidates_of_the_channel_are_those_that_the_dials_name():
    at = {"number": 5, "lowest": 0.1, "highest": 0.3, "crossover": 0.21, "beta": 2}
    found = readings(asked("bsc", **at))
    wanted = bsc_selection([0.1, 0.15, 0.2, 0.25, 0.3], 0.21, 100, 2)
    assert found["information I(S;W)"] == pytest.approx(wanted.information, abs=1e-12)
    assert found["mean risk"] == pytest.approx(wanted.risk, abs=1e-12)


def test_the_bank_is_the_one_that_the_dial_names():
    losses = load_bank("specialists").losses("test")[:2000]
    found = readings(asked("blahut_arimoto", bank=1))
    assert found["best single expert"] == pytest.approx(losses.mean(axis=0).min())
    of_mnist = readings(asked("gates", bank=0))
    assert of_mnist["expected loss"] < 0.12 < readings(asked("gates"))["expected loss"]
    runs = load_testbed().columns(mix="latin", capacity=None)
    balanced = np.isin(runs["method"], ["LBL", "SH", "BA", "EB", "none"]) & (runs["scope"] <= 8)
    found = readings(asked("testbed", mix=1))
    assert found["runs balanced this narrowly"] == balanced.sum()


def test_crosses_of_the_paper_stand_beside_its_own_bank_alone():
    def crosses(scene):
        return [x for panel in scene["panels"] for x in panel["marks"] if x["kind"] == "cross"]

    assert len(crosses(asked("mnist_bank"))) > 4
    assert crosses(asked("mnist_bank", bank=1)) == []


def test_another_seed_draws_other_datasets_of_the_same_law():
    one, other = (readings(asked("mnist_bank", seed=seed)) for seed in (0, 1))
    key = "mean gap, population = pool"
    assert one[key] != other[key]
    assert one[key] == pytest.approx(other[key], rel=0.1)
