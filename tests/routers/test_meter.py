"""Sums on the device, scalars of a training run, and ranks that add up."""

import json

import numpy as np
import pytest
import tiny_models

from expertbank.routers.hooks import record_routing
from expertbank.routers.measures import balance_loss, max_violation
from expertbank.routers.meter import RoutingMeter, all_reduce
from expertbank.routers.statistics import RouterStatistics, load_statistics, merge_statistics

# of a meter, and of a recorder, by whatever steps the tokens came
FIELDS = ("tokens", "slots", "domains", "sequences", "sequence_slots", "known_slots")
COUNTS = (*FIELDS, "sizes", "pairs", "positions", "token_slots", "sequence_cells")


@pytest.fixture(scope="module")
def mixtral(transformers):
    return tiny_models.build_family("mixtral")


def batches(torch, n=3):
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    ids = [tiny_models.tokens(seed=seed) for seed in range(n)]
    labels = {"attention_mask": mask, "domain": torch.tensor([0, 1, 1])}
    return [{"input_ids": i, **labels} for i in ids]


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gemma4", "switch_transformers"])
def test_a_meter_sums_what_a_recorder_counts(transformers, torch, name):
    model = tiny_models.build_family(name)
    extra = tiny_models.inputs_of(name)
    given = [{**extra, **batch, "input_ids": batch["input_ids"]} for batch in batches(torch)]
    room = {"n_domains": 2, "first_sequence": 0}
    with RoutingMeter(model, **room) as meter, record_routing(model, **room) as recorder:
        for batch in given:
            labels = {"domain": batch.pop("domain")}
            with torch.no_grad(), recorder.labels(**labels), meter._sums.labels(**labels):
                model(**batch)
    scalars = meter.collect()
    assert list(meter.statistics.layers) == list(recorder.statistics.layers)
    for layer, ours in meter.statistics.layers.items():
        theirs = recorder.statistics.layers[layer]
        for field in (*FIELDS, "step_counts"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), field)
        np.testing.assert_allclose(ours.probability_sum, theirs.probability_sum, rtol=1e-4)
        np.testing.assert_array_equal(ours.kept_slots, theirs.kept_slots)
    layers = recorder.statistics.layers.values()
    assert scalars["dead"] == sum((layer.slots == 0).sum() for layer in layers)
    losses = [balance_loss(layer.slots, layer.probability_sum) for layer in layers]
    assert scalars["balance_loss"] == pytest.approx(max(losses), rel=1e-4)
    assert meter.collect() == {}


def test_scalars_of_a_window_are_of_its_steps(mixtral, torch):
    """The busiest expert of each step and layer, which the sum over steps hides."""
    violations = []
    with RoutingMeter(mixtral, n_domains=2) as meter:
        for batch in batches(torch):
            with torch.no_grad(), record_routing(mixtral) as recorder:
                recorder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            violations += [max_violation(x.slots) for x in recorder.statistics.layers.values()]
        first = meter.collect()
        assert first["max_violation_p50"] == pytest.approx(np.quantile(violations, 0.5))
        assert first["max_violation_p95"] == pytest.approx(np.quantile(violations, 0.95))
        assert "domain_excess" not in first
        mixtral(**batches(torch)[0])
        second = meter.collect()
    assert second["domain_excess"] > -1
    assert meter.statistics.layers[0].sequences == 12
    with pytest.raises(ValueError, match=r"domain has shape \(2,\)"), meter:
        mixtral(input_ids=tiny_models.tokens(), domain=torch.tensor([0, 1]))


def test_a_window_moves_once(mixtral, torch, monkeypatch):
    """Whatever the number of steps and layers."""
    moved = []
    plain = torch.Tensor.cpu
    with RoutingMeter(mixtral) as meter, torch.no_grad():
        mixtral(input_ids=tiny_models.tokens())  # the first looks at the scores
        monkeypatch.setattr(torch.Tensor, "cpu", lambda self: moved.append(1) or plain(self))
        for seed in range(5):
            mixtral(input_ids=tiny_models.tokens(seed=seed))
        assert not moved, "a step waits for nothing"
        meter.collect()
    assert len(moved) == 1
    assert meter.statistics.layers[0].tokens == 6 * 27


def test_the_logs_of_a_trainer_have_the_scalars(transformers, torch):
    """By the Trainer's own handler of callbacks, in its order; a whole Trainer, which needs
    accelerate, is in tests/environments.py."""
    from transformers.trainer_callback import CallbackHandler, TrainerControl, TrainerState

    from expertbank.routers.callback import RoutingCallback

    seen = []

    class Reporter(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **inputs):
            seen.append(dict(logs))

    class Trainer:
        pass

    model = tiny_models.build_family("mixtral").train()
    callback = RoutingCallback(n_domains=2)
    trainer = Trainer()
    trainer.callback_handler = CallbackHandler([Reporter(), callback], model, None, None, None)
    callback.report_first(trainer)
    args, state, control = None, TrainerState(), TrainerControl()
    handler = trainer.callback_handler
    handler.on_train_begin(args, state, control)
    for batch in batches(torch):
        model(**batch, labels=batch["input_ids"]).loss.backward()
        state.log_history.append({"loss": 1.0})
        handler.on_log(args, state, control, {"loss": 1.0})
    handler.on_train_end(args, state, control)
    names = {"dead", "max_violation_p50", "max_violation_p95", "balance_loss", "domain_excess"}
    for log in (*seen, *state.log_history):
        assert {f"routing/{name}" for name in names} | {"loss"} == set(log)
    assert len(seen) == 3 and model.training
    assert callback.statistics.layers[0].tokens == 3 * 24


@pytest.fixture(scope="module")
def met(transformers, torch, tmp_path_factory):
    """The folder of what two ranks made."""
    import two_ranks

    folder = tmp_path_factory.mktemp("ranks")
    two_ranks.both(folder)
    return folder


@pytest.mark.parametrize("n_kept", [8, 64])
def test_two_ranks_add_up_to_what_merging_gives(met, n_kept):
    merged = merge_statistics([load_statistics(met / f"part{n_kept}-{i}.npz") for i in (0, 1)])
    for i in (0, 1):
        said = (met / f"refused{n_kept}-{i}").read_text()
        assert "ranks hold statistics of different sizes" in said
        total = load_statistics(met / f"sum{n_kept}-{i}.npz")
        assert set(total.layers) == {"a", "b"} and total.heard == merged.heard
        for name, layer in total.layers.items():
            for field, array in vars(layer).items():
                np.testing.assert_allclose(array, vars(merged.layers[name])[field], rtol=1e-12)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_ranks_that_train_count_what_one_does(met, how):
    """Each on half of the rows, against whole batches in one process."""
    import two_ranks

    rows = slice(0, 2 * two_ranks.ROWS)
    recorded, meter = two_ranks.train(tiny_models.build_family("mixtral").train(), rows)
    alone = meter.collect()
    for i in (0, 1):
        scalars = json.loads((met / f"scalars-{how}{i}.json").read_text())
        # the null is of other numbers of sequences
        assert scalars.pop("domain_excess") == pytest.approx(alone["domain_excess"], abs=0.01)
        expected = {name: value for name, value in alone.items() if name != "domain_excess"}
        assert scalars == pytest.approx(expected)
        shared = load_statistics(met / f"recorded-{how}{i}.npz")
        window = load_statistics(met / f"metered-{how}{i}.npz")
        assert list(shared.layers) == list(recorded.layers) == list(window.layers) == [0, 1]
        for name, layer in recorded.layers.items():
            counted = meter.statistics.layers[name]
            for field in COUNTS:
                np.testing.assert_array_equal(vars(shared.layers[name])[field], vars(layer)[field])
            for field in FIELDS:
                found = vars(window.layers[name])[field]
                np.testing.assert_array_equal(found, vars(counted)[field], err_msg=field)
            ids = shared.layers[name].kept_ids
            assert layer.sequences == (ids >= 0).sum() == two_ranks.STEPS * 2 * two_ranks.ROWS


def test_ranks_that_are_not_there_are_named(torch):
    with pytest.raises(ValueError, match="not initialised"):
        all_reduce(RouterStatistics(2, 1))
