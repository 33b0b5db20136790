"""The mixture of experts that ships: trained, stopped and resumed, read, and what it loses."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the model needs the extra train")
pytest.importorskip("transformers", reason="the model is one of transformers")
pytest.importorskip("zarr", reason="loss tables are written to zarr")

from expertbank.cli import main  # noqa: E402
from expertbank.gates import linear_gate  # noqa: E402
from expertbank.reproduction.compare import compare  # noqa: E402
from expertbank.reproduction.verify import verify  # noqa: E402
from expertbank.routers.formats import read_routing  # noqa: E402
from expertbank.routers.hooks import record_routing  # noqa: E402
from expertbank.routers.loss_tables import loss_table  # noqa: E402
from expertbank.routers.models import load_model, text_batches  # noqa: E402
from expertbank.routers.regret import router_regret  # noqa: E402
from expertbank.shipped.manifest import data_folder, read_manifest  # noqa: E402
from expertbank.shipped.router_model import load_router_tables  # noqa: E402
from expertbank.training import router_model  # noqa: E402
from expertbank.training.corpus import MIXES, Mix, load_mix, train_tokenizer  # noqa: E402
from expertbank.training.router_model import ModelRecipe, train_router_model  # noqa: E402
from support import skip_or_fail  # noqa: E402

SHIPPED = data_folder() / "router-model"
TINY = ModelRecipe(
    vocabulary=260, width=16, layers=2, heads=2, n_experts=4, expert_width=8, n_sequences=8, steps=5
)


@pytest.fixture
def little(monkeypatch):
    """A corpus of a few words, a checkpoint every second step."""
    rng = np.random.default_rng(0)
    tokenizer = train_tokenizer(["in the beginning was the word"], 260)
    train, held_out = (rng.integers(0, 260, (8, n, 10)).astype(np.uint16) for n in (9, 48))
    mix = Mix(MIXES["latin"], 260, train, held_out, tokenizer)
    monkeypatch.setattr(router_model, "load_mix", lambda *_, **__: mix)
    monkeypatch.setattr(router_model, "SAVED_EVERY", 2)
    return mix


def test_a_killed_run_goes_on_to_the_same_files(tmp_path, monkeypatch, little):
    train_router_model(tmp_path / "one", TINY)
    real = router_model.write_atomically
    written = []

    def stopped(path, write):
        real(path, write)
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(router_model, "write_atomically", stopped)
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        train_router_model(tmp_path / "two", TINY)
    monkeypatch.setattr(router_model, "write_atomically", real)
    assert not (tmp_path / "two").exists()
    with pytest.raises(ValueError, match=r"begun with recipe.steps 5, not 6"):
        train_router_model(tmp_path / "two", replace(TINY, steps=6))
    train_router_model(tmp_path / "two", TINY)
    assert compare(tmp_path / "one", tmp_path / "two").lines() == [
        "router models: 7 of 7 files identical"
    ]
    with pytest.raises(FileExistsError, match="already holds a router model"):
        train_router_model(tmp_path / "two", TINY)
    train_router_model(tmp_path / "other", replace(TINY, seed=1))
    with pytest.raises(ValueError, match="different recipes"):
        compare(tmp_path / "one", tmp_path / "other")
    assert verify(tmp_path / "two") == ("hashes match of 6 files; 2 loss tables of 576 tokens read")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mix": "runes"}, "mix is 'runes'"),
        ({"n_sequences": 9}, "allowed are multiples of 8"),
        ({"n_chosen": 17}, "n_chosen is 17; allowed is an integer of at most 16"),
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
    ],
)
def test_a_bad_recipe_gets_one_sentence(given, says):
    with pytest.raises(ValueError, match=says):
        ModelRecipe(**given)


def test_the_shipped_model_is_small_and_of_the_default_recipe():
    manifest = read_manifest(SHIPPED, ())
    assert ModelRecipe(**manifest["recipe"]) == ModelRecipe()
    assert manifest["files"]["model.safetensors"]["bytes"] <= 4_000_000
    assert manifest["files"]["losses.npz"]["bytes"] <= 3_000_000
    model = load_model(SHIPPED)
    assert 1_000_000 <= model.num_parameters() <= 2_000_000
    assert model.num_parameters() == manifest["parameters"]
    assert next(model.parameters()).dtype == torch.float32
    assert not model.training


@pytest.fixture(scope="module")
def mix():
    """The corpus that the shipped model was trained on."""
    try:
        return load_mix("latin", sequence_length=ModelRecipe().sequence_length)
    except FileNotFoundError as error:
        skip_or_fail(str(error))


def test_the_shipped_model_loses_what_its_manifest_says(mix):
    manifest = read_manifest(SHIPPED, ())
    found = router_model.held_out_loss(load_model(SHIPPED), mix.held_out)
    assert abs(found - manifest["held_out_loss"]) < 1e-3


def test_the_shipped_tables_are_those_of_the_shipped_model(mix):
    spread = np.linspace(0, mix.held_out.shape[1] - 1, 48).round().astype(int)[::6]
    # the first text of each language
    rows = torch.from_numpy(mix.held_out[:, spread[0]].astype(np.int64))
    tables = load_router_tables()
    for layer in range(tables.n_layers):
        shipped = tables.layer(layer)
        table = loss_table(load_model(SHIPPED), [{"input_ids": rows}], layer)
        n = len(table.loss[:])
        assert np.abs(table.losses[:] - shipped.losses[:n]).max() < 0.01
        assert (table.chosen[:] == shipped.chosen[:n]).mean() > 0.999
        assert np.abs(table.features[:] - shipped.features[:n]).max() < 0.1
        assert np.abs(table.probabilities[:] - shipped.probabilities[:n]).max() < 0.001


def test_the_shipped_routing_is_that_of_the_shipped_model(mix):
    """As a recorder hears it, of the first texts of the first language and the last."""
    tables = load_router_tables()
    counts = tables.manifest["tables"]
    read = dict(read_routing(tables.routing))
    assert list(read) == [0, 1, 2]
    assert len(np.unique(read[0]["sequence"])) == counts["routed_sequences"] == 512
    assert len(np.unique(tables.arrays["sequence"])) == counts["judged_sequences"]
    for language in (0, 7):
        ids = mix.held_out[language, -64:-61].astype(np.int64)
        with record_routing(load_model(SHIPPED)) as recorder:
            recorder(input_ids=ids)
        for layer, arrays in read.items():
            own = np.isin(arrays["sequence"], np.arange(3) + 64 * language)
            assert (arrays["domain"][own] == language).all()
            np.testing.assert_array_equal(arrays["token"][own], ids.ravel())
            slots = np.bincount(arrays["chosen"][own].ravel(), minlength=16)
            assert np.abs(slots - recorder.statistics.layers[layer].slots).sum() <= 2


def test_no_gate_on_the_routers_input_is_known_to_beat_it():
    """What the chapter says, layer by layer."""
    tables = load_router_tables()
    for index in range(tables.n_layers):
        layer = tables.layer(index)
        gates = [linear_gate(fit, layer.features) for fit in layer.gates]
        found = router_regret(
            layer.losses, layer.chosen, layer.weights, gates, layer.probabilities, layer.loss
        )
        router = found.router
        assert router.upper - router.lower < 0.001
        assert abs(router.loss - found.reached(router.rate)) < 0.02
        assert router.loss - router.upper > 0.6
        assert found.as_is < router.loss < found.single


def test_the_command_prints_regret_and_goes_on(tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    words = ["Hapo", "mwanzo", "kulikuwako", "Neno", "naye", "alikuwako", "kwa", "Mungu"]
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.permutation(words)) for _ in range(6)]
    texts.write_text("\n".join(lines) + "\n")
    command = ["routes", "regret", str(SHIPPED), str(texts), "--to", str(tmp_path / "t")]
    assert main([*command, "--layer", "2", "--json", str(tmp_path / "r.json")]) == 0
    first = capsys.readouterr().out
    assert first.startswith("layer 2\n") and "sees x only" in first
    assert main([*command, "--layer", "2"]) == 0
    assert capsys.readouterr().out == first
    assert (tmp_path / "r.json").read_text().count('"certificate"') == 1
    assert main([*command, "--layer", "9"]) == 2
    assert "layer is '9'; allowed is one with experts: 0, 1, 2" in capsys.readouterr().err
    command[2] = str(tmp_path)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "holds nothing that transformers reads" in error


def test_texts_are_a_line_each(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("Hapo mwanzo\n\n" * 5)
    found = list(text_batches(SHIPPED, [path], size=2, most=3))
    assert [len(batch["input_ids"]) for batch in found] == [2, 1]
    path.write_text("\n")
    with pytest.raises(ValueError, match="no line of two tokens"):
        list(text_batches(SHIPPED, [path]))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"t\.txt"):
        list(text_batches(SHIPPED, [path]))
