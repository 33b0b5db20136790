"""Explorers: frames that need no kernel, and the same picture computed live for any value."""

import re

import ipywidgets
import numpy as np
import pytest

from expertbank import load_bank, rate_distortion_curve
from expertbank.book.explorers import (
    explore_alpha_mixture,
    explore_bsc,
    explore_gates,
    explore_link,
)
from expertbank.privacy import wanted_experts
from expertbank.shipped.gates import load_gates

NINE = np.linspace(0.05, 0.45, 9)


def test_sliders_choose_frames_without_a_kernel():
    *sliders, pictures = explore_bsc(NINE, live=False).children
    assert [len(slider.options) for slider in sliders] == [11, 7]
    rows = pictures.children
    assert [len(row.children) for row in rows] == [11] * 7
    assert len({frame.value for row in rows for frame in row.children}) == 77
    state = ipywidgets.Widget.get_manager_state()["state"].values()
    links = {
        (x["state"]["source"][0], x["state"]["target"][0])
        for x in state
        if x["model_name"] == "LinkModel"
    }
    assert {
        (f"IPY_MODEL_{sliders[0].model_id}", f"IPY_MODEL_{row.model_id}") for row in rows
    } <= links
    assert (f"IPY_MODEL_{sliders[1].model_id}", f"IPY_MODEL_{pictures.model_id}") in links


def test_only_numbers_are_bold():
    losses = np.random.default_rng(0).random((40, 3))
    explorers = [explore_bsc(NINE, live=True), explore_alpha_mixture(losses, losses, 20, live=True)]
    for text in (explorer.children[-1].value for explorer in explorers):
        bold = re.findall("<b>(.*?)</b>", text.split("<p role=")[1])
        assert len(bold) >= 5 and all(
            re.fullmatch(r"[-+\d.]+( ± [\d.]+)?( nats)?", number) for number in bold
        ), bold


def test_live_takes_any_value_and_agrees_with_the_frames():
    *_, pictures = explore_bsc(NINE, live=False).children
    *dials, picture = explore_bsc(NINE, live=True).children
    shown = (
        pictures.children[pictures.selected_index]
        .children[pictures.children[0].selected_index]
        .value
    )
    read = "<p role="
    assert picture.value.split(read)[1] == shown.split(read)[1]
    for dial, value in zip(dials, (0.7, 123, 0.33)):
        before = picture.value
        dial.value = value
        assert picture.value != before


def test_a_build_without_kernel_asks_for_frames(monkeypatch):
    monkeypatch.setenv("EXPERTBANK_FRAMES", "1")
    assert isinstance(explore_bsc(NINE).children[-1], ipywidgets.Stack)
    monkeypatch.delenv("EXPERTBANK_FRAMES")
    assert isinstance(explore_bsc(NINE).children[-1], ipywidgets.HTML)


def test_no_frame_of_the_gates_lies_below_the_curve():
    *sliders, pictures = explore_gates(
        load_gates(), load_bank("specialists"), 500, live=False
    ).children
    (slider,) = sliders
    assert len(slider.options) == len(pictures.children) == 24
    read = [
        re.search(
            r"rate <b>(.*) nats</b>; loss <b>(.*)</b>; D at this rate <b>(.*)</b>; l", frame.value
        ).groups()
        for frame in pictures.children
    ]
    rates, losses, frontier = np.array(read, dtype=float).T
    assert (losses >= frontier - 2e-4).all() and (np.diff(rates) <= 1e-3).all()


def test_no_frame_of_the_link_lies_below_its_limit():
    losses = np.random.default_rng(0).random((300, 4)) ** 3
    prior, costs = wanted_experts(np.eye(4)[losses.argmin(axis=1)], losses)
    curve = rate_distortion_curve(losses, band=1e-4)
    *sliders, pictures = explore_link(prior, costs, curve, live=False).children
    assert [len(slider.options) for slider in sliders] == [13, 7]
    for frame in (frame for row in pictures.children for frame in row.children):
        loss, response, limit = re.search(
            r"loss <b>(.*)</b>; of randomised response <b>(.*)</b>; limit <b>(.*)</b>", frame.value
        ).groups()
        assert (
            float(limit) <= float(loss) + 1e-4
            and float(loss) <= float(response) <= curve.ceiling + 1e-4
        )
    *dials, picture = explore_link(prior, costs, curve, live=True).children
    before = picture.value
    for dial, value in zip(dials, (0.33, 0.7)):
        dial.value = value
        assert picture.value != before


@pytest.fixture(autouse=True)
def forget_widgets():
    yield
    ipywidgets.Widget.close_all()
