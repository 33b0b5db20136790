"""Does it come out again: comparing results, verifying folders, and the run that does it all."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from expertbank.book.claims import Evidence
from expertbank.cli import main
from expertbank.reproduction.compare import compare, compare_predictions, differences
from expertbank.reproduction.outcome import Outcome, outcome_of, summary
from expertbank.reproduction.verdicts import changes, findings_of
from expertbank.reproduction.verify import (
    SHIPPED_PLACES,
    _check_accuracies,
    place_of,
    verify,
)
from expertbank.shipped.bank import load_bank, save_bank
from expertbank.shipped.gates import GATE_FILES, load_gates, save_gates
from expertbank.shipped.manifest import REPOSITORY, data_folder, read_manifest, seal

DATA = REPOSITORY / "data"


def altered_bank(folder, differing=0, **stated):
    """A copy of the shipped bank without weights, with some predictions of the test split changed
    for expert 3."""
    bank = load_bank("mnist")
    labels = {split: bank.labels(split) for split in ("train", "test")}
    predictions = {split: bank.predictions(split).copy() for split in ("train", "test")}
    column = predictions["test"][:differing, 3]
    predictions["test"][:differing, 3] = (column + 1) % 10
    unlisted = ("files", "seal", "format")
    manifest = {key: value for key, value in bank.manifest.items() if key not in unlisted}
    save_bank(folder, labels, predictions, manifest | stated)
    return folder


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- compare ---


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("banks/mnist", "banks: 3 of 3 files identical"),
        ("banks/family", "families: 46 of 46 files identical"),
        ("gates", "sweeps of gates: 3 of 3 files identical"),
        ("testbed", "testbeds: 4 of 4 files identical"),
    ],
)
def test_the_same_is_identical_by_folder_and_by_manifest(capsys, tmp_path, place, says):
    shutil.copytree(DATA / place, tmp_path / "copy")
    assert run(capsys, "compare", DATA / place, tmp_path / "copy") == (0, says + "\n", "")
    if place != "banks/family":
        manifests = [DATA / place / "manifest.json", tmp_path / "copy" / "manifest.json"]
        assert run(capsys, "compare", *manifests) == (0, says + "\n", "")


def test_other_machine_and_versions_are_named_and_change_nothing(capsys, tmp_path):
    first = altered_bank(tmp_path / "a")
    made = {"trained_on": {"device": "cpu", "processor": "Another 3000"}}
    second = altered_bank(tmp_path / "b", **made)
    code, out, _ = run(capsys, "compare", first, second)
    assert code == 0 and out.startswith("banks: 2 of 2 files identical\nmade otherwise: ")
    assert "processor not stated and Another 3000" in out and "machine x86_64 and not" in out


def test_differing_predictions_are_counted_with_accuracy_and_verdicts(capsys, tmp_path):
    first = altered_bank(tmp_path / "a")
    second = altered_bank(tmp_path / "b", differing=1_400)
    code, out, err = run(capsys, "compare", first, second)
    assert code == 1 and err == ""
    lines = out.splitlines()
    assert lines[0] == "banks: 1 of 2 files identical"
    accuracies = [load_bank(folder).accuracies("test") for folder in (first, second)]
    most = np.abs(accuracies[0] - accuracies[1]).max()
    assert lines[1] == (
        f"1,400 of 1,750,000 predictions differ (0.08 %), test accuracy by at most {most:.4f}"
    )
    assert "numbers of the report differ, relatively most" in lines[2]
    assert lines[2].endswith("; no verdict changed") or " changed: " in lines[2]
    assert len(lines) == 3


def test_a_bank_that_turns_a_verdict_says_which():
    ours = findings_of(Evidence(load_bank("mnist")))
    turned = next(finding for finding in ours if finding.claim.kind == "measured")
    low = turned.found.value + 1
    found = replace(turned.found, interval=(low, low))
    others = [replace(one, found=found) if one is turned else one for one in ours]
    changed, n_moved, sentence = changes(ours, others)
    assert n_moved == 0
    assert changed == [f"{turned.claim.quantity}: inside, outside"]
    assert sentence == f"0 of {len(ours)} numbers of the report differ"


def test_gates_with_other_numbers_are_compared_array_by_array(capsys, tmp_path):
    sweep = load_gates()
    rows = sweep.table.to_dict("records")
    rows[0]["loss"] += 0.25
    arrays = dict(np.load(sweep.folder / GATE_FILES[1]))
    arrays["mnist_losses"] = arrays["mnist_losses"].copy()
    arrays["mnist_losses"][:2, 0] ^= 1
    unlisted = ("files", "seal", "format")
    stated = {key: value for key, value in sweep.manifest.items() if key not in unlisted}
    save_gates(tmp_path / "gates", rows, arrays, stated)
    found = compare(DATA / "gates", tmp_path / "gates", report=False)
    assert not found.is_same and found.lines()[0] == "sweeps of gates: 1 of 3 files identical"
    table, numbers = found.lines()[1:]
    assert table == "gates.csv: 1 of 800 numbers in 1 arrays differ, most in loss, by 0.25"
    assert numbers.startswith("gates.npz: 2 of ") and numbers.endswith("mnist_losses, by 1")


def test_a_family_names_the_banks_that_differ(tmp_path):
    for name in ("a", "b"):
        altered_bank(tmp_path / name / "replicate-1")
        altered_bank(tmp_path / name / "replicate-2", differing=7 * (name == "b"))
    found = compare(tmp_path / "a", tmp_path / "b", report=False)
    assert found.lines()[:2] == [
        "families: 3 of 4 files identical",
        "7 of 3,500,000 predictions differ (0.00 %), test accuracy by at most 0.0007",
    ]
    assert found.lines()[2].startswith("replicate-2: 7 of 1,750,000 predictions differ")


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("banks/mnist", "gates", "holds a bank, "),
        ("banks/mnist", "banks/specialists", "made by different recipes (seed 2026 and 2026"),
        ("banks/family/replicate-2027", "banks/mnist", "recipes (seed 2027 and 2026)"),
        ("banks/mnist", "routers", "allowed are folders of banks, families"),
        ("banks/mnist", "nowhere", "nowhere has no manifest; allowed are folders of banks"),
    ],
)
def test_what_cannot_be_compared_gets_one_sentence(capsys, first, second, says):
    code, out, err = run(capsys, "compare", DATA / first, DATA / second)
    assert code == 2 and out == "" and err.count("\n") == 1
    says = says.replace("(seed 2026 and 2026", "(distortions None and ")
    assert says in err


def test_other_shapes_names_images_and_words_get_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"loss has shape \(2,\) in one and \(3,\) in the other"):
        differences({"loss": np.zeros(2)}, {"loss": np.zeros(3)})
    with pytest.raises(ValueError, match=r"only one of the two holds \['rate'\]"):
        differences({"loss": np.zeros(2)}, {"loss": np.zeros(2), "rate": np.zeros(2)})
    with pytest.raises(ValueError, match="family holds other words"):
        differences({"family": np.array(["cnn"])}, {"family": np.array(["linear"])})
    labels = {"train": [1, 2], "test": [3]}
    predictions = {"train": [[1], [2]], "test": [[3]]}
    for name, seen in (("a", labels), ("b", labels | {"test": [4]})):
        save_bank(tmp_path / name, seen, predictions, {"recipe": {}})
    banks = [load_bank(tmp_path / name) for name in ("a", "b")]
    with pytest.raises(ValueError, match="hold other images"):
        compare_predictions(*banks)


def test_nan_is_nan_and_small_and_large_differences_are_found():
    nan = np.array([np.nan, 1.0])
    assert differences({"x": nan}, {"x": nan.copy()}) == []
    [found] = differences({"x": nan}, {"x": np.array([np.nan, 1.5])})
    assert (found.differing, found.size, found.most) == (1, 2, 0.5)


# --- verify ---


def test_everything_shipped_under_a_manifest_has_a_name():
    """`expertbank verify` without a name looks at all of them."""
    covered = {data_folder() / place for place in SHIPPED_PLACES.values()}
    for manifest in data_folder().rglob("manifest.json"):
        folder = manifest.parent
        # a family is covered as a whole
        assert folder in covered or folder.parent in covered - {data_folder() / "banks"}, folder


# their predictions are recomputed from weights, by the tests of training
WITH_WEIGHTS = ("mnist", "specialists")


@pytest.mark.parametrize("name", [name for name in SHIPPED_PLACES if name not in WITH_WEIGHTS])
def test_shipped_folders_verify(name, capsys):
    code, out, _ = run(capsys, "verify", name)
    assert code == 0 and out.startswith(f"{name}: hashes match")


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_banks_with_weights_have_the_accuracies_that_they_state(name):
    """To four digits, however a tie was rounded; their weights are run elsewhere."""
    assert _check_accuracies(DATA / "banks" / name) == 25


def test_paths_are_relative_to_where_one_stands(capsys, tmp_path, monkeypatch):
    shutil.copytree(DATA / "gates", tmp_path / "mine" / "sweep")
    monkeypatch.chdir(tmp_path)
    assert place_of("mine/sweep") == tmp_path / "mine" / "sweep"
    code, out, _ = run(capsys, "verify", "mine/sweep", "mine/sweep/manifest.json")
    assert code == 0 and out.count("recomputed from what they chose") == 2
    code, out, err = run(capsys, "verify", "nowhere")
    assert code == 2 and err.count("\n") == 1 and "allowed are such folders and what is" in err


def test_a_gate_whose_table_is_not_what_it_chose_is_found(tmp_path):
    sweep = load_gates()
    rows = sweep.table.to_dict("records")
    hard = next(row for row in rows if (row["split"], row["decision"]) == ("test", "hard"))
    hard["loss"] += 0.01
    unlisted = ("files", "seal", "format")
    stated = {key: value for key, value in sweep.manifest.items() if key not in unlisted}
    save_gates(tmp_path / "g", rows, dict(np.load(sweep.folder / GATE_FILES[1])), stated)
    with pytest.raises(ValueError, match="a loss in its table is not what its gates chose"):
        verify(tmp_path / "g")


def test_accuracies_that_the_predictions_do_not_have_are_found(tmp_path):
    altered_bank(tmp_path / "b", differing=2_000)
    with pytest.raises(ValueError, match="states other test accuracies than it has"):
        verify(tmp_path / "b")


def test_a_changed_file_of_any_kind_is_found(tmp_path):
    for place in (
        "gates",
        "testbed",
        "routers",
        "benchmarks",
        "removals",
        "selection",
        "router-model",
    ):
        shutil.copytree(DATA / place, tmp_path / place)
        name = next(iter(read_manifest(tmp_path / place, ())["files"]))
        content = (tmp_path / place / name).read_bytes()
        (tmp_path / place / name).write_bytes(content[:-1] + b"?")
        with pytest.raises(ValueError, match="has sha256"):
            verify(tmp_path / place)


# --- outcomes and the run ---


def test_outcomes_are_identical_within_or_different():
    same = outcome_of("gate", {"rate": (1.0, 1.0)}, 0.01)
    near = outcome_of("gate", {"rate": (1.0, 1.005)}, 0.01)
    far = outcome_of("gate", {"rate": (1.0, 1.02), "loss": (0.0, 0.0)}, 0.01)
    broken = outcome_of("gate", {"rate": (1.0, float("nan"))}, 0.01)
    assert [one.result for one in (same, near, far, broken)] == [
        "identical", "within", "differs", "differs",
    ]  # fmt: skip
    assert summary([same, near]) == (
        "reproduced: 1 of 2 parts identical, 1 within the stated tolerance"
    )
    assert summary([same, far]).startswith("NOT reproduced: 1 of 2 parts identical, 1 different")
    with pytest.raises(ValueError, match="result is 'maybe'"):
        Outcome("gate", "maybe", "")


@pytest.fixture
def rerun(torch):
    from expertbank.reproduction import rerun

    return rerun


def test_a_bank_trained_again_is_judged_by_its_predictions(rerun, tmp_path):
    bank = load_bank("mnist")
    labels = {split: bank.labels(split) for split in ("train", "test")}
    first = {split: bank.predictions(split)[:, :5] for split in ("train", "test")}
    save_bank(tmp_path / "first", labels, first, {"recipe": {}})
    same = rerun.bank_outcome(tmp_path / "first")
    assert same.line() == "identical  bank: 350,000 of 350,000 predictions of 5 experts identical"
    for differing, result in ((40, "within"), (4_000, "differs")):
        other = {split: array.copy() for split, array in first.items()}
        other["test"][:differing, 0] = (other["test"][:differing, 0] + 1) % 10
        save_bank(tmp_path / result, labels, other, {"recipe": {}})
        found = rerun.bank_outcome(tmp_path / result)
        assert found.result == result and "tolerances 0.5 % and 0.005" in found.sentence


def test_chapters_are_identical_rounded_or_different(rerun):
    found = {"chapter": "bsc", "outputs": 9, "differing": 0, "rounding": 0, "first": ""}
    assert rerun.chapter_outcome(found).result == "identical"
    assert rerun.chapter_outcome(found | {"differing": 2, "rounding": 2}).result == "within"
    other = rerun.chapter_outcome(found | {"differing": 2, "rounding": 1, "first": "1 is now 2"})
    assert other.result == "differs" and other.sentence.endswith("; 1 is now 2")


def test_predictions_that_cannot_be_recomputed_are_different(rerun):
    assert rerun.predictions_outcome({"compared": 9, "ties": 0}).result == "identical"
    assert rerun.predictions_outcome({"compared": 9, "ties": 1}).result == "within"
    assert rerun.predictions_outcome({"error": "a hash differs"}).result == "differs"


def played(rerun, monkeypatch, gate=0.0):
    """A reproduction whose long parts are there already; the gate is off by so much."""
    from expertbank.reproduction import samples

    bank = load_bank("mnist")

    def train(folder, *_, **__):
        labels = {split: bank.labels(split) for split in ("train", "test")}
        first = {split: bank.predictions(split)[:, :5] for split in ("train", "test")}
        save_bank(folder, labels, first, {"recipe": {}})

    def tasks(missing, label, n_jobs=None):
        for path in missing:
            path.write_bytes(contents(path.stem))

    def contents(stem):
        if stem == "gate":
            table = load_gates().rows(bank="mnist", family="linear", seed=0)
            rows = table[abs(table["lam"] - 0.0238) < 1e-4].to_dict("records")
            rows[0]["loss"] += gate
            return json.dumps(rows).encode()
        if stem == "testbed":
            runs = samples.load_testbed()
            row = runs.rows(mix="scripts", method="LBL", scope=1, strength=0.125, seed=0)
            row = row[row["capacity"].isna()].iloc[0]
            numbers = {
                name: float(row[name])
                for name in row.index
                if name not in (*samples.CONFIGURATION, "seed", "size")
            }
            return json.dumps(numbers).encode()
        if stem == "predictions":
            return json.dumps({"compared": 10, "ties": 0}).encode()
        name = stem.removeprefix("chapter-")
        found = {"chapter": name, "outputs": 3, "differing": 0, "rounding": 0, "first": ""}
        return json.dumps(found).encode()

    monkeypatch.setattr(rerun, "train_bank", train)
    monkeypatch.setattr(rerun, "gate_task", lambda *_: (print,))
    monkeypatch.setattr(rerun, "run_task", lambda *_: (print,))
    monkeypatch.setattr(rerun, "run_missing", tasks)


def test_reproduce_says_each_part_and_answers_by_its_status(rerun, capsys, tmp_path, monkeypatch):
    played(rerun, monkeypatch)
    code, out, _ = run(capsys, "reproduce", "--quick", "--out", tmp_path / "r")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 8
    assert all(line.startswith("identical  ") for line in lines[1:-1])
    assert lines[-1].startswith("reproduced: 6 of 6 parts identical; ")
    outcomes = json.loads((tmp_path / "r" / "outcomes.json").read_text())
    assert [one["part"] for one in outcomes][:2] == ["bank", "predictions"]
    assert read_manifest(tmp_path / "r", ["outcomes.json"])["trained_on"]["processor"] is not None
    assert load_bank(tmp_path / "r" / "mnist").n_experts == 5
    code, out, err = run(capsys, "reproduce", "--quick", "--out", tmp_path / "r")
    assert code == 2 and "already holds a reproduction; choose another folder" in err


def test_reproduce_fails_where_one_part_differs(rerun, capsys, tmp_path, monkeypatch):
    played(rerun, monkeypatch, gate=0.5)
    code, out, _ = run(capsys, "reproduce", "--quick", "--out", tmp_path / "r")
    assert code == 1 and "\ndiffers    gate mnist-linear-0.0238-0: 19 of 20 numbers" in out
    assert "NOT reproduced: 5 of 6 parts identical, 1 different" in out


def test_ctrl_c_says_what_was_kept_and_the_next_run_goes_on(rerun, capsys, tmp_path, monkeypatch):
    played(rerun, monkeypatch)
    finished = rerun.run_missing
    stopped = []

    def interrupted(missing, label, n_jobs=None):
        finished(missing, label)
        if label == "chapters":
            stopped.append(label)
            raise KeyboardInterrupt

    monkeypatch.setattr(rerun, "run_missing", interrupted)
    code, _, err = run(capsys, "reproduce", "--quick", "--out", tmp_path / "r")
    assert code == 130 and stopped == ["chapters"]
    assert "interrupted; 5 finished parts are kept in " in err
    assert "r.partial; the same command goes on from there" in err
    monkeypatch.setattr(rerun, "run_missing", finished)
    trained = []
    monkeypatch.setattr(rerun, "train_bank", lambda *_, **__: trained.append(1))
    code, out, _ = run(capsys, "reproduce", "--quick", "--out", tmp_path / "r")
    assert code == 0 and not trained and "reproduced: 6 of 6" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]


def test_tolerances_are_stated_where_they_are_used(rerun):
    text = " ".join((REPOSITORY / "REPRODUCING.md").read_text().split())
    from expertbank.reproduction import samples

    for tolerance in (
        f"{100 * rerun.PREDICTION_TOLERANCE:g} % of the predictions",
        f"{rerun.ACCURACY_TOLERANCE:g} of an expert's test accuracy",
        f"{samples.GATE_TOLERANCE:g} of a number of the gate",
        f"{samples.RUN_TOLERANCE:g} of a number of the testbed run",
    ):
        assert tolerance in text


def test_what_can_be_compared_is_said():
    from expertbank.reproduction.compare import PLURALS

    text = " ".join((REPOSITORY / "REPRODUCING.md").read_text().split())
    [listed] = re.findall(r"compares two folders of the same kind, (.*?), and `expertbank", text)
    assert set(re.split(r", | or ", listed)) == set(PLURALS.values())


def test_input_files_are_listed_with_their_sha256(rerun):
    from expertbank.shipped.manifest import describe_file
    from expertbank.training.corpus import CORPUS_SHA256
    from expertbank.training.datasets import RAW_FILES, data_root

    text = (REPOSITORY / "REPRODUCING.md").read_text()
    for name, sha256 in CORPUS_SHA256.items():
        assert f"| `bible-corpus/{name}.xml` | `{sha256}` |" in text
    for name in RAW_FILES:
        assert f"| `MNIST/raw/{name}` | `" in text
        path = data_root() / "MNIST" / "raw" / name
        if path.is_file():
            assert f"`{describe_file(path)['sha256']}`" in text


def test_an_older_manifest_without_a_processor_still_loads(tmp_path):
    assert "processor" not in load_bank("mnist").manifest["trained_on"]
    (tmp_path / "a").write_text("1")
    seal(tmp_path, {"trained_on": {"processor": "Model X"}}, ["a"])
    assert read_manifest(tmp_path, ["a"])["trained_on"]["processor"] == "Model X"


def test_chapters_are_executed_in_the_environment_that_their_outputs_were_stored_in():
    """A chapter prints less where an extra such as transformers is missing."""
    makefile = (REPOSITORY / "Makefile").read_text()
    needed = dict(re.findall(r"^(reproduce|references): (.*?)  ##", makefile, flags=re.M))
    assert needed["reproduce"] == needed["references"]
