"""Recording while others run the model: generation, training, threads, wrappers, offloading."""

import gc
import threading

import numpy as np
import pytest
import tiny_models

from expertbank.routers.hooks import record_routing
from expertbank.routers.report import routing_report
from expertbank.routers.statistics import load_statistics, merge_statistics

POSITIONS = {"n_positions": 32, "n_tokens": tiny_models.VOCABULARY}
GENERATE = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
# fields that do not depend on how the tokens came in, nor on numbers of sequences
COUNTS = (
    "tokens", "sizes", "slots", "pairs", "positions", "token_slots", "domains", "sequences",
    "sequence_slots", "sequence_cells", "known_slots",
)  # fmt: skip


def same_counts(one, other, fields=COUNTS):
    assert list(one.layers) == list(other.layers)
    for name, layer in one.layers.items():
        for field in fields:
            ours, theirs = getattr(layer, field), getattr(other.layers[name], field)
            np.testing.assert_array_equal(ours, theirs, err_msg=field)
        np.testing.assert_allclose(
            layer.sequence_entropy, other.layers[name].sequence_entropy, rtol=1e-9
        )


@pytest.fixture(scope="module")
def mixtral(transformers):
    return tiny_models.build_family("mixtral")


def padded(torch):
    """Three prompts of different lengths, padded at the front."""
    ids = tiny_models.tokens()
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    mask[2, :2] = 0
    return ids * mask, mask


@pytest.mark.parametrize("name", ["mixtral", "qwen3_next", "jamba", "deepseek_v3", "gpt_oss"])
def test_generation_counts_as_one_forward_of_the_whole_text(transformers, torch, name):
    model = tiny_models.build_family(name)
    ids, mask = padded(torch)
    domain = [0, 1, 0]
    with (
        record_routing(model, n_domains=2, **POSITIONS) as stepwise,
        stepwise.labels(domain=domain),
    ):
        texts = model.generate(input_ids=ids, attention_mask=mask, **GENERATE)
    assert texts.shape == (3, 15)
    whole_mask = torch.cat([mask, torch.ones(3, 5, dtype=torch.long)], dim=1)
    with record_routing(model, n_domains=2, **POSITIONS) as at_once:
        at_once(input_ids=texts[:, :14], attention_mask=whole_mask, domain=domain)
    # a choice may differ where two experts tie, since a cache rounds otherwise
    layer = next(iter(at_once.layers.values()))
    one, other = stepwise.statistics.layers[layer], at_once.statistics.layers[layer]
    assert abs(one.slots - other.slots).sum() <= 2
    for field in ("tokens", "sequences", "sizes"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    np.testing.assert_array_equal(one.positions.sum(axis=2), other.positions.sum(axis=2))
    np.testing.assert_array_equal(one.token_slots.sum(axis=1), other.token_slots.sum(axis=1))
    np.testing.assert_array_equal(
        np.sort(one.kept_slots.sum(axis=1)), np.sort(other.kept_slots.sum(axis=1))
    )


def test_steps_of_ones_own_belong_to_their_sequences(mixtral, torch):
    ids = tiny_models.tokens()
    with record_routing(mixtral, **POSITIONS) as stepwise:
        output = stepwise(input_ids=ids[:, :4])
        for i in range(4, 9):
            cache = output.past_key_values
            output = stepwise(input_ids=ids[:, i : i + 1], past_key_values=cache)
    with record_routing(mixtral, **POSITIONS) as at_once:
        at_once(input_ids=ids)
    same_counts(stepwise.statistics, at_once.statistics)
    assert int(stepwise.statistics.layers[0].sequences) == 3


def test_two_generations_are_of_different_sequences(mixtral):
    ids = tiny_models.tokens()
    with record_routing(mixtral, n_domains=1) as recorder, recorder.labels(domain=0):
        for _ in range(2):
            mixtral.generate(input_ids=ids, **GENERATE)
            gc.collect()
    layer = recorder.statistics.layers[0]
    assert layer.sequences == 6 and (layer.kept_ids >= 0).sum() == 6
    assert layer.sequence_slots.sum() == layer.slots.sum()


@pytest.mark.parametrize("beams", [{"num_beams": 2}, {"num_return_sequences": 2, "do_sample": 1}])
def test_more_rows_than_prompts(mixtral, beams):
    with record_routing(mixtral) as recorder:
        mixtral.generate(input_ids=tiny_models.tokens(), **{**GENERATE, **beams})
    assert recorder.statistics.layers[0].sequences == 6
    assert recorder.statistics.layers[0].tokens == 6 * 14


def test_an_encoder_runs_once_and_its_decoder_step_by_step(transformers):
    model = tiny_models.build_family("switch_transformers")
    with record_routing(model) as recorder:
        model.generate(input_ids=tiny_models.tokens(), **GENERATE)
    encoder, decoder = recorder.statistics.layers.values()
    assert encoder.tokens == 27 and decoder.tokens == 18
    assert encoder.sequences == decoder.sequences == 3


def test_a_training_loop_is_counted_in_training_mode(transformers, torch):
    """Steps, gradients and modes are what they are without a recorder; recomputation counts
    once."""

    def train(checkpointing, listen):
        model = tiny_models.build_family("mixtral").train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        recorder = record_routing(model, n_domains=2)

        def loop():
            for seed in range(3):
                ids = tiny_models.tokens(seed=seed)
                label = {"domain": torch.tensor([0, 1, 1])} if listen else {}
                model(input_ids=ids, labels=ids, **label).loss.backward()
                assert model.training
                optimizer.step()
                optimizer.zero_grad()

        if listen:
            with recorder:
                loop()
        else:
            loop()
        return model, recorder.statistics

    plain, _ = train(False, False)
    model, counted = train(False, True)
    again, checkpointed = train(True, True)
    for other in (model, again):
        for ours, theirs in zip(plain.parameters(), other.parameters()):
            torch.testing.assert_close(ours, theirs)
    assert counted.layers[0].tokens == 81 and counted.layers[0].sequences == 9
    assert counted.layers[0].domains.sum(axis=1).tolist() == [54, 108]
    same_counts(counted, checkpointed)


def test_threads_are_counted_each_as_a_whole(mixtral, torch):
    with record_routing(mixtral, **POSITIONS) as recorder:

        def run(seed):
            with torch.no_grad():
                for _ in range(5):
                    mixtral(input_ids=tiny_models.tokens(seed=seed))

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with record_routing(mixtral, **POSITIONS) as alone:
        for seed in range(4):
            for _ in range(5):
                alone(input_ids=tiny_models.tokens(seed=seed))
    same_counts(recorder.statistics, alone.statistics)


def test_all_layers_or_none(mixtral, torch):
    """A layer that is not heard is named, and one refused batch leaves all layers as they were."""
    block = mixtral.model.layers[1].mlp
    plain = block.forward
    with record_routing(mixtral) as recorder:
        recorder(input_ids=tiny_models.tokens())
        block.forward = lambda hidden: hidden  # as a fused block that calls no experts
        try:
            with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.experts were not heard"):
                mixtral(input_ids=tiny_models.tokens())
        finally:
            block.forward = plain
        with pytest.raises(ValueError, match="domain is given, but n_domains is 0"):
            recorder(input_ids=tiny_models.tokens(), domain=0)
        assert [int(layer.tokens) for layer in recorder.statistics.layers.values()] == [27, 27]
    layers = recorder.statistics.layers
    with pytest.raises(ValueError, match="names an expert twice"):
        recorder.statistics.update_layers([(0, {"chosen": [[0, 1]]}), (1, {"chosen": [[0, 0]]})])
    assert [int(layer.tokens) for layer in layers.values()] == [27, 27]


@pytest.mark.filterwarnings("error")
def test_a_call_refused_before_it_began_leaves_nothing(mixtral):
    """No cache either, whose sequences the next forward would go on with."""
    ids = tiny_models.tokens()
    with record_routing(mixtral) as recorder:
        cache = recorder(input_ids=ids).past_key_values
        with pytest.raises(ValueError, match="attention_mask has shape"):
            recorder(input_ids=ids, past_key_values=cache, attention_mask=np.ones((2, 4), int))
        recorder(input_ids=ids)
    layer = recorder.statistics.layers[0]
    assert layer.tokens == 54 and layer.sequences == 6


@pytest.mark.parametrize("part", ["", "model.layers.1"])
def test_what_is_compiled_is_named(transformers, torch, part):
    """Compiled code does not see hooks that come later, and would count nothing."""
    model = tiny_models.build_family("mixtral")
    inputs = {"input_ids": tiny_models.tokens()}
    model.get_submodule(part).compile(backend="eager")
    expected = f"{part if part else 'the model'} is compiled, so model.layers"
    with pytest.raises(ValueError, match=expected), record_routing(model):
        raise AssertionError("the block is not entered")
    wrapped = torch.compile(tiny_models.build_family("mixtral"), backend="eager")
    with pytest.raises(ValueError, match="the model is compiled"), record_routing(wrapped):
        raise AssertionError("the block is not entered")
    with record_routing(wrapped._orig_mod) as recorder:
        recorder(**inputs)
    assert recorder.statistics.layers[0].tokens == 27


def test_wrappers_keep_the_names_of_layers(mixtral, torch):
    inputs = {"input_ids": tiny_models.tokens()}
    with record_routing(mixtral) as plain:
        plain(**inputs)
    with record_routing(torch.nn.DataParallel(mixtral)) as wrapped:
        wrapped(**inputs)
    same_counts(plain.statistics, wrapped.statistics)
    assert list(plain.layers) == list(wrapped.layers)


def test_offloaded_parameters_do_not_tell_the_device(transformers, torch):
    model = tiny_models.build_family("mixtral")
    kept = model.model.embed_tokens.weight.data.clone()
    model.lm_head = torch.nn.Linear(32, 64, bias=False)
    model.model.embed_tokens.weight = torch.nn.Parameter(kept.to("meta"), requires_grad=False)

    def onload(module, given):
        module.weight = torch.nn.Parameter(kept)

    model.model.embed_tokens.register_forward_pre_hook(onload)  # as accelerate does
    assert next(model.parameters()).device.type == "meta"
    with record_routing(model) as recorder:
        recorder(input_ids=[[3, 4, 5]])
    assert recorder.statistics.layers[0].tokens == 3


def test_packed_texts_are_told_apart_by_their_positions(mixtral, torch):
    ids = tiny_models.tokens(1, 9)
    position = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 5]])
    with record_routing(mixtral, n_positions=8) as recorder, torch.no_grad():
        mixtral(input_ids=ids, position_ids=position)
    layer = recorder.statistics.layers[0]
    assert layer.sequences == 2
    assert layer.positions.sum(axis=(1, 2)).tolist() == [4, 4, 4, 2, 2, 2, 0, 0]


def test_numbers_of_sequences_never_repeat(mixtral, tmp_path):
    """Across recorders, blocks, ranks and files, so parts merge to as many sequences."""
    parts = []
    for i in range(3):
        recorder = record_routing(mixtral, n_domains=2)
        for _ in range(2):  # the same block twice
            with recorder:
                recorder(input_ids=tiny_models.tokens(), domain=[0, 1, 0])
        recorder.statistics.save(tmp_path / f"{i}.npz")
        parts.append(load_statistics(tmp_path / f"{i}.npz"))
    merged = merge_statistics(parts).layers[0]
    assert (merged.kept_ids >= 0).sum() == merged.sequences == 18
    first = record_routing(mixtral, n_domains=2, first_sequence=5)
    with first:
        first(input_ids=tiny_models.tokens(), domain=0)
    assert first.statistics.layers[0].kept_ids[:3].tolist() == [5, 6, 7]


def test_what_ids_that_repeat_cost():
    """Texts that share an id are one unit: the null keeps its mean and p loses power."""
    from expertbank.routers.nulls import domain_null
    from expertbank.routers.statistics import RouterStatistics

    rng = np.random.default_rng(0)
    means = []
    for _ in range(10):
        parts = [RouterStatistics(8, 1, n_domains=2) for _ in range(2)]
        for i in range(64):
            chosen = rng.choice(8, (20, 1), p=rng.dirichlet(np.full(8, 0.3)))
            for part, number in zip(parts, (i, i // 8 * 2 + i % 2)):
                labels = {"domain": np.full(20, i % 2), "sequence": np.full(20, number)}
                part.update(0, chosen, **labels)
        apart, shared = [domain_null(part, 0, 99) for part in parts]
        assert (apart.n_units, shared.n_units) == (64, 16)
        means.append((apart.mean, shared.mean))
    apart, shared = np.mean(means, axis=0)
    assert abs(shared / apart - 1) < 0.2
    parts[1].update(0, chosen, domain=np.full(20, 1), sequence=np.full(20, 0))
    assert domain_null(parts[1], 0, 99).p is None, "domains differ within an id"


def test_the_report_says_how_a_layer_was_heard(mixtral, tmp_path):
    with record_routing(mixtral) as recorder:
        recorder(input_ids=tiny_models.tokens())
    recorder.statistics.save(tmp_path / "routes.npz")
    report = routing_report(load_statistics(tmp_path / "routes.npz"))
    assert report.layers[0].heard == "verified"
    assert report.json()["layers"][0]["heard"] == "verified"
