"""Sums on the device, scalars of a training run, and ranks that add up."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny_models

from expertbank.routers.hooks import record_routing
from expertbank.routers.measures import balance_loss, max_violation
from expertbank.routers.meter import RoutingMeter, all_reduce
from expertbank.routers.statistics import RouterStatistics, merge_statistics

FIELDS = ("tokens", "slots", "domains", "sequences", "sequence_slots", "known_slots")


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
        for field in FIELDS:
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


RANK = """
import json, sys
import numpy as np
import torch.distributed as ranks
from expertbank.routers.meter import all_reduce
from expertbank.routers.statistics import RouterStatistics
rank, folder = int(sys.argv[1]), sys.argv[2]
ranks.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
part = RouterStatistics(8, 2, n_domains=2, n_positions=4, n_kept=int(sys.argv[3]))
rng = np.random.default_rng(rank)
for layer in ("a", "b") if rank else ("a",):
    chosen = rng.random((40, 8)).argsort(axis=1)[:, :2]
    sequence = np.arange(40) // 4 + 100 * rank
    labels = {"domain": sequence % 2, "sequence": sequence, "position": np.arange(40) % 4}
    part.update(layer, chosen, weights=rng.random((40, 2)), **labels)
    part.heard[layer] = "verified"
part.save(f"{folder}/part{rank}.npz")
all_reduce(part).save(f"{folder}/sum{rank}.npz")
try:
    all_reduce(RouterStatistics(8, 1 + rank))
except ValueError as error:
    print(json.dumps(str(error)))
ranks.destroy_process_group()
"""


@pytest.mark.parametrize("n_kept", [8, 64])
def test_two_ranks_add_up_to_what_merging_gives(torch, tmp_path, n_kept):
    from expertbank.routers.statistics import load_statistics

    commands = [[sys.executable, "-c", RANK, str(i), str(tmp_path), str(n_kept)] for i in (0, 1)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for words in commands]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    merged = merge_statistics([load_statistics(tmp_path / f"part{i}.npz") for i in (0, 1)])
    for i in (0, 1):
        total = load_statistics(tmp_path / f"sum{i}.npz")
        assert set(total.layers) == {"a", "b"} and total.heard == merged.heard
        for name, layer in total.layers.items():
            for field, array in vars(layer).items():
                np.testing.assert_allclose(array, vars(merged.layers[name])[field], rtol=1e-12)
        assert "ranks hold statistics of different sizes" in json.loads(said[i])


def test_ranks_that_are_not_there_are_named(torch):
    with pytest.raises(ValueError, match="not initialised"):
        all_reduce(RouterStatistics(2, 1))
