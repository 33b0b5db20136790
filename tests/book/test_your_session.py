"""What the page *Your own experts* asks of the library: one session, answers as JSON text."""

import csv
import io
import json

import numpy as np
import pytest

from expertbank import bound_ladder, critical_lambda, rate_distortion, simulate
from expertbank.book.your_table import scenes, session
from expertbank.book.your_table.session import Session
from expertbank.bounds import union_bound, xu_raginsky_bound
from expertbank.cli import main

MISTAKES = np.random.default_rng(0).integers(0, 2, (300, 4)).astype(float)
COSTS = np.random.default_rng(1).normal(2, 30, (200, 5))


def opened(losses, **options):
    own = Session(**options)
    return own, json.loads(own.open_array("a table", losses))


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv"])
def test_a_file_is_read_and_described(suffix, tmp_path):
    path = tmp_path / f"losses.{suffix}"
    if suffix == "csv":
        np.savetxt(path, MISTAKES, delimiter=",")
    else:
        {"npy": np.save, "npz": np.savez}[suffix](path, MISTAKES)
    said = []
    found = json.loads(Session(said.append).open_file(str(path)))
    assert found["name"] == path.name
    assert found["facts"][0] == "300 inputs, 4 experts; all losses are 0 or 1: mistakes."
    assert list(found["explorers"]) == ["your_curve", "your_choice"]
    assert said[0] == f"Reading losses.{suffix}"
    assert f"Solving price {scenes.PRICES} of {scenes.PRICES} of the curve" in said


def test_scenes_are_those_of_the_library():
    own, found = opened(MISTAKES)
    dials = {
        name: dial["start"] for name, dial in found["explorers"]["your_curve"]["dials"].items()
    }
    scene = json.loads(own.scene("your_curve", json.dumps(dials)))
    shown = {one["name"]: one["value"] for one in scene["readings"]}
    point = rate_distortion(MISTAKES, dials["lam"])
    assert shown["mean loss"] == pytest.approx(point.distortion, rel=1e-6)
    assert shown["price at which routing stops"] == critical_lambda(MISTAKES)
    choice = json.loads(own.scene("your_choice", json.dumps({"alpha": 0.33, "sample_size": 77})))
    run = simulate(MISTAKES, 0.33, 77, 20_000)
    assert choice["readings"][0]["value"] == pytest.approx(run.information, abs=0.05)


def test_every_bound_is_the_ladders():
    own, _ = opened(MISTAKES)
    found = json.loads(own.bounds(0.7, 64))
    expected = bound_ladder(MISTAKES, 0.7, 64)
    assert found["rungs"][0] == [
        "gap",
        pytest.approx(expected.gap),
        pytest.approx(expected.gap_error),
    ]
    rungs = {name: value for name, value, _ in found["rungs"][1:]}
    assert rungs == pytest.approx(expected.values)
    assert list(rungs.values()) == sorted(rungs.values(), reverse=True)
    run = simulate(MISTAKES, 0.7, 64, 20_000)
    assert found["information_nats"] == pytest.approx(run.information)
    assert found["notes"] == []


def test_other_losses_have_the_bounds_that_scale():
    own, _ = opened(COSTS)
    found = json.loads(own.bounds(1, 100))
    run = simulate(COSTS, 1, 100, 20_000)
    width = np.ptp(COSTS)
    rungs = {name: value for name, value, _ in found["rungs"]}
    assert rungs == pytest.approx(
        {
            "gap": run.gap,
            "union_bound": width * union_bound(5, 100),
            "xu_raginsky_bound": float(xu_raginsky_bound(run.information, 100, width / 2)),
        }
    )
    assert "losses of 0 and 1 alone" in found["notes"][0]


def test_a_table_of_many_distinct_rows_says_what_it_leaves_out(monkeypatch):
    monkeypatch.setattr(session, "MOST_COMPARISONS", 16_000)
    own, _ = opened(MISTAKES)
    found = json.loads(own.bounds(1, 64))
    assert [name for name, *_ in found["rungs"]] == ["gap", "union_bound", "xu_raginsky_bound"]
    assert "16 distinct rows of 4 experts" in found["notes"][0]
    assert "`expertbank bounds` has them all" in found["notes"][0]


def test_numbers_go_into_files(tmp_path, capsys):
    own, _ = opened(MISTAKES)
    own.bounds(1, 64)
    own.scene("your_choice", '{"alpha": 1, "sample_size": 64}')
    found = json.loads(json.loads(own.as_json())["text"])
    assert found["inputs"], found["experts"] == MISTAKES.shape
    assert found["critical_lambda"] == critical_lambda(MISTAKES)
    assert found["bounds"]["sample_size"] == 64
    assert found["your_choice"]["readings"]["information I(S;W)"] > 0
    rows = list(csv.reader(io.StringIO(json.loads(own.as_csv())["text"])))
    path = tmp_path / "losses.npy"
    np.save(path, MISTAKES)
    main(["curve", str(path), "--lam", rows[20][0]])
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == ",".join(rows[0])
    assert [float(x) for x in printed[2].split(",")[:3]] == pytest.approx(
        [float(x) for x in rows[20][:3]], rel=1e-5
    )
    assert len(rows) == 1 + len(found["curve"]["rows"]) == 1 + scenes.PRICES


def test_json_holds_no_number_that_json_cannot_say():
    own, _ = opened(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert json.loads(json.loads(own.as_json())["text"])["critical_lambda"] is None


def test_large_tables_have_fewer_prices_and_larger_ones_are_refused(monkeypatch):
    monkeypatch.setattr(scenes, "LARGE", 100)
    own, _ = opened(MISTAKES)
    assert own.curve is not None and len(own.curve.points()) == scenes.PRICES_OF_LARGE
    monkeypatch.setattr(session, "MOST_NUMBERS_OF_A_PAGE", 1000)
    with pytest.raises(ValueError, match=r"1,200 numbers; a page computes with at most 1,000; "):
        own.open_array("larger", MISTAKES)
    assert own.name == "a table", "what was open stays open"


def test_a_router_is_reported(tmp_path):
    path = tmp_path / "routes.npz"
    rng = np.random.default_rng(0)
    np.savez(path, chosen=rng.integers(0, 8, (400, 1)), domain=rng.integers(0, 2, 400))
    own = Session()
    with pytest.raises(ValueError, match="give the number of experts"):
        own.routes(str(path))
    found = json.loads(own.routes(str(path), n_experts=8))
    assert "I(D;T)" in found["text"] and "nats" in found["text"]
    assert found["numbers"]["layers"][0]["tokens"] == 400
    assert found["numbers"]["n_experts"] == 8


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "losses.txt",
            b"0,1",
            r"^losses\.txt ends in '\.txt'; allowed are \.npy, \.npz and \.csv$",
        ),
        ("losses.csv", b"a,b\n0,1", "could not convert string 'a'"),
        ("losses.csv", b"", "losses.csv"),
        ("losses.csv", b"0,nan\n1,0", "finite"),
        ("losses.csv", b"0\n1", "two experts are the fewest"),
        ("losses.npy", b"\x93NUMPY", "losses.npy"),
        ("losses.npz", b"no zip", "losses.npz"),
    ],
)
def test_bad_files_get_the_librarys_own_sentences(name, content, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        Session().open_file(name)
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_bad_wishes_get_a_sentence(tmp_path):
    own, _ = opened(MISTAKES)
    with pytest.raises(ValueError, match="alpha"):
        own.bounds(1.5, 10)
    with pytest.raises(ValueError, match=r"sample_size is 20,?000"):
        own.bounds(1, 20_000)
    with pytest.raises(ValueError, match="no table is open"):
        Session().as_json()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModuleNotFoundError("No module named 'torch'"), "'torch', and a page has NumPy and SciPy"),
        (MemoryError("Unable to allocate 9 GiB"), "more memory than a page has; Unable to"),
    ],
)
def test_what_a_page_lacks_is_said(error, sentence, monkeypatch):
    def fail(path):
        raise error

    monkeypatch.setattr(session, "read_table", fail)
    with pytest.raises(ValueError, match=sentence):
        Session().open_file("losses.npy")
