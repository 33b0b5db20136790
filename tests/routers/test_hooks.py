"""Recording routers of transformers models: tiny random models, held against what their experts
were called with."""

import re

import numpy as np
import pytest

from expertbank.routers.hooks import TRANSFORMERS, Choice, record_routing, softmax_choice
from expertbank.routers.statistics import RouterStatistics
from expertbank.shipped.manifest import REPOSITORY

N_EXPERTS, N_TOKENS = 8, 64
NORMALISED = {"Mixtral": True, "OLMoE": False, "Qwen2-MoE": False, "Qwen3-MoE": True}
SIZES = {
    "vocab_size": N_TOKENS, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
OWN = {
    "Mixtral": ("Mixtral", {"num_local_experts": N_EXPERTS, "num_experts_per_tok": 2}),
    "OLMoE": (
        "Olmoe",
        {"num_experts": N_EXPERTS, "num_experts_per_tok": 3, "norm_topk_prob": False},
    ),
    "Qwen2-MoE": (
        "Qwen2Moe",
        {
            "num_experts": N_EXPERTS,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "norm_topk_prob": False,
        },
    ),
    "Qwen3-MoE": (
        "Qwen3Moe",
        {
            "num_experts": N_EXPERTS,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 16,
            "head_dim": 8,
            "norm_topk_prob": True,
        },
    ),
    "gpt-oss": (
        "GptOss",
        {"num_local_experts": N_EXPERTS, "num_experts_per_tok": 2, "head_dim": 8},
    ),
    "Granite-MoE": ("GraniteMoe", {"num_local_experts": N_EXPERTS, "num_experts_per_tok": 2}),
    "DeepSeek-V3": (
        "DeepseekV3",
        {
            "n_routed_experts": N_EXPERTS,
            "num_experts_per_tok": 3,
            "n_group": 4,
            "topk_group": 2,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "num_hidden_layers": 3,
            "num_key_value_heads": 4,
            "q_lora_rank": None,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
            "routed_scaling_factor": 2.5,
        },
    ),
}
DECODERS = list(OWN)
NAMES = [*DECODERS, "Switch"]
SWITCH = {
    "vocab_size": N_TOKENS, "d_model": 32, "d_kv": 8, "d_ff": 24, "num_heads": 4, "num_layers": 2,
    "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1,
    "num_experts": N_EXPERTS, "expert_capacity": 2, "decoder_start_token_id": 0,
}  # fmt: skip


def build(transformers, name):
    """A random model of the family, with routers sure enough of themselves to differ from token to
    token."""
    import torch

    torch.manual_seed(0)
    if name == "Switch":
        model = transformers.SwitchTransformersForConditionalGeneration(
            transformers.SwitchTransformersConfig(**SWITCH)
        )
    else:
        prefix, sizes = OWN[name]
        config = getattr(transformers, f"{prefix}Config")(**{**SIZES, **sizes})
        model = getattr(transformers, f"{prefix}ForCausalLM")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if re.search(r"(gate|router)(\.classifier)?\.(weight|bias)$", name):
                parameter.normal_(0, 0.7)
            elif "expert" in name:
                parameter.normal_(0, 0.2)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(0, 0.5)
    return model.eval()


@pytest.fixture(scope="module", params=NAMES)
def family(request, transformers):
    return request.param, build(transformers, request.param)


class Kept(RouterStatistics):
    """Statistics that also keep what they were given."""

    def __init__(self, **sizes):
        super().__init__(N_EXPERTS, 3, **sizes)
        self.given = {}

    def update_layers(self, batches):
        batches = list(batches)
        super().update_layers(batches)
        for layer, arrays in batches:
            self.given.setdefault(layer, []).append(arrays)

    def tokens(self, layer, name):
        """One array over all batches, tokens that count."""
        return np.concatenate([batch[name][batch["mask"]] for batch in self.given[layer]])


def batch(name, rows=3, length=9, seed=1):
    import torch

    ids = torch.randint(1, N_TOKENS, (rows, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids} | ({"decoder_input_ids": ids[:, :5]} if name == "Switch" else {})


def record(model, *batches, sizes=None):
    kept = Kept(**(sizes or {}))
    with record_routing(model, kept, first_sequence=0) as recorder:
        for inputs in batches:
            recorder(**inputs)
    return kept


def experts_inputs(model, inputs):
    """(chosen, weights) that each experts module was called with, by a hook of the test's own, in
    model order."""
    import torch

    seen = []
    modules = [
        module for module in model.modules() if re.search(r"(?<!Mo)Experts$", type(module).__name__)
    ]
    handles = [
        module.register_forward_pre_hook(lambda _, given: seen.append(given[1:3]))
        for module in modules
    ]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return seen


def test_what_is_recorded_is_what_the_experts_are_called_with(family):
    name, model = family
    inputs = batch(name)
    kept, called = record(model, inputs), experts_inputs(model, inputs)
    assert len(called) == len(kept.given) == 2
    for layer, (chosen, weights) in zip(kept.given, called):
        found, amounts = kept.tokens(layer, "chosen"), kept.tokens(layer, "weights")
        if name == "Switch":  # a dispatch mask (n, 1, E): rows of a dropped token are all zero
            served = chosen.sum(dim=(1, 2)).numpy() > 0
            assert served.any() and (layer.startswith("decoder") or not served.all())
            np.testing.assert_array_equal(
                found[:, 0], np.where(served, chosen.argmax(dim=-1)[:, 0], -1)
            )
            np.testing.assert_array_equal(amounts[served], weights.numpy()[served])
            assert (amounts[~served] == 0).all()
        else:
            np.testing.assert_array_equal(found, chosen)
            np.testing.assert_array_equal(amounts, weights)


@pytest.mark.parametrize("name", ["Mixtral", "OLMoE", "Qwen3-MoE", "Granite-MoE"])
def test_the_recorded_choice_reproduces_what_the_layer_computes(transformers, name):
    import torch

    model, inputs, seen = build(transformers, name), batch(name), []
    block = next(
        m for m in model.modules() if hasattr(m, "experts") and hasattr(m.experts, "gate_up_proj")
    )
    handle = block.register_forward_hook(lambda _, given, output: seen.append((given[0], output)))
    kept = record(model, inputs)
    handle.remove()
    x, y = (array.reshape(-1, 32) for array in seen[0])
    experts, expected = block.experts, torch.zeros_like(y)
    for i, (chosen, weights) in enumerate(zip(kept.tokens(0, "chosen"), kept.tokens(0, "weights"))):
        for t, w in zip(chosen, weights):
            gate, up = (experts.gate_up_proj[t] @ x[i]).chunk(2)
            expected[i] += w * (experts.down_proj[t] @ (torch.nn.functional.silu(gate) * up))
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["Mixtral", "OLMoE", "Qwen2-MoE", "Qwen3-MoE", "gpt-oss", "Granite-MoE"]
)
def test_softmax_routers_against_the_logits_that_the_model_puts_out(transformers, name):
    import torch

    model, inputs = build(transformers, name), batch(name)
    kept = record(model, inputs)
    with torch.no_grad():
        logits = model(**inputs, output_router_logits=True).router_logits
    for layer, array in enumerate(logits):
        array = array.double().numpy().reshape(-1, N_EXPERTS)
        softmax = np.exp(array) / np.exp(array).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(kept.tokens(layer, "probabilities"), softmax, rtol=1e-4)
        chosen, weights = kept.tokens(layer, "chosen"), kept.tokens(layer, "weights")
        best = np.argsort(-array, axis=1)[:, : chosen.shape[1]]
        np.testing.assert_array_equal(np.sort(chosen, axis=1), np.sort(best, axis=1))
        expected = np.take_along_axis(softmax, chosen, axis=1)
        if NORMALISED.get(name, True):
            expected /= expected.sum(axis=1, keepdims=True)
        else:
            assert (weights.sum(axis=1) < 0.999).any()
        np.testing.assert_allclose(weights, expected, rtol=1e-4)


def test_deepseek_by_hand_and_not_by_its_logits(transformers):
    model, inputs = build(transformers, "DeepSeek-V3"), batch("DeepSeek-V3", rows=8)
    seen, gate = [], model.model.layers[1].mlp.gate
    handle = gate.register_forward_hook(lambda _, given, output: seen.append(given[0]))
    kept = record(model, inputs)
    handle.remove()
    assert list(kept.layers) == [1, 2]  # layer 0 is dense
    logits = (
        seen[0].reshape(-1, 32).detach().double().numpy() @ gate.weight.detach().double().numpy().T
    )
    scores = 1 / (1 + np.exp(-logits))
    biased = scores + gate.e_score_correction_bias.numpy()
    groups = np.sort(biased.reshape(-1, 4, 2), axis=2)[:, :, -2:].sum(axis=2)
    allowed = np.zeros_like(groups, bool)
    np.put_along_axis(allowed, np.argsort(-groups, axis=1)[:, :2], True, axis=1)
    limited = np.where(np.repeat(allowed, 2, axis=1), biased, -np.inf)
    chosen, weights = kept.tokens(1, "chosen"), kept.tokens(1, "weights")
    np.testing.assert_array_equal(
        np.sort(chosen, axis=1), np.sort(np.argsort(-limited, axis=1)[:, :3], axis=1)
    )
    expected = np.take_along_axis(scores, chosen, axis=1)
    np.testing.assert_allclose(
        weights, 2.5 * expected / expected.sum(axis=1, keepdims=True), rtol=1e-4
    )
    np.testing.assert_allclose(
        kept.tokens(1, "probabilities"), scores / scores.sum(axis=1, keepdims=True), rtol=1e-4
    )
    by_logits = np.sort(np.argsort(-logits, axis=1)[:, :3], axis=1)
    assert (by_logits != np.sort(chosen, axis=1)).any(axis=1).mean() > 0.2


def test_switch_drops_what_exceeds_the_capacity_of_an_expert(transformers):
    model, inputs = build(transformers, "Switch"), batch("Switch", rows=4, length=20)
    kept = record(model, inputs)
    encoder, decoder = kept.layers
    assert encoder.startswith("encoder.") and decoder.startswith("decoder.")
    assert kept.layers[encoder].tokens == 80 and kept.layers[decoder].tokens == 20
    best = kept.tokens(encoder, "probabilities").argmax(axis=1).reshape(4, 20)
    chosen = kept.tokens(encoder, "chosen").reshape(4, 20)
    for row, taken in zip(best, chosen):
        earlier = np.array([(row[:i] == expert).sum() for i, expert in enumerate(row)])
        np.testing.assert_array_equal(taken, np.where(earlier < 2, row, -1))
    assert (chosen == -1).any()
    assert kept.layers[encoder].sizes[0] == (chosen == -1).sum()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", DECODERS)
def test_padding_changes_nothing(transformers, name, side):
    check_padding(transformers, name, side)


def test_padding_after_a_text_changes_nothing_in_switch(transformers):
    """Before a text it takes up the experts' capacity, and the model itself chooses otherwise."""
    check_padding(transformers, "Switch", "right")


def check_padding(transformers, name, side):
    import torch

    model = build(transformers, name)
    lengths, whole = (9, 4, 6), batch(name)
    mask = torch.zeros(3, 9, dtype=torch.long)
    padded = torch.zeros(3, 9, dtype=torch.long)
    for row, length in enumerate(lengths):
        where = slice(0, length) if side == "right" else slice(9 - length, 9)
        padded[row, where], mask[row, where] = whole["input_ids"][row, :length], 1
    together = {"input_ids": padded, "attention_mask": mask}
    alone = [
        {"input_ids": whole["input_ids"][row : row + 1, :length]}
        for row, length in enumerate(lengths)
    ]
    if name == "Switch":
        short = torch.ones(3, 5, dtype=torch.long)
        short[1, 3:] = 0
        together |= {
            "decoder_input_ids": whole["decoder_input_ids"],
            "decoder_attention_mask": short,
        }
        for row, inputs in enumerate(alone):
            inputs["decoder_input_ids"] = whole["decoder_input_ids"][
                row : row + 1, : 3 if row == 1 else 5
            ]
    sizes = {"n_positions": 9, "n_tokens": N_TOKENS}
    one, many = record(model, together, sizes=sizes), record(model, *alone, sizes=sizes)
    for layer in one.layers:
        for label in ("chosen", "position", "token", "sequence"):
            np.testing.assert_array_equal(one.tokens(layer, label), many.tokens(layer, label))
        for amount in ("weights", "probabilities"):
            np.testing.assert_allclose(
                one.tokens(layer, amount), many.tokens(layer, amount), rtol=1e-3, atol=1e-5
            )
        expected = 13 if name == "Switch" and layer.startswith("decoder") else 19
        assert one.layers[layer].tokens == expected
        assert one.tokens(layer, "position").max() == (4 if expected == 13 else 8)


def test_batches_add_up_to_one_and_sequences_are_numbered_through(family):
    name, model = family
    inputs, domain = batch(name, rows=6), np.array([0, 1, 0, 1, 1, 0])
    inputs["domain"], sizes = domain, {"n_domains": 2, "n_positions": 9}
    parts = [{key: value[i : i + 2] for key, value in inputs.items()} for i in (0, 2, 4)]
    one, many = record(model, inputs, sizes=sizes), record(model, *parts, sizes=sizes)
    for layer, counted in one.layers.items():
        assert counted.sequences == 6 and counted.domains.sum() == counted.slots.sum()
        assert counted.steps == 1 and many.layers[layer].steps == 3  # a forward is one
        for field, array in vars(counted).items():
            if field in ("step_counts", "step_sums"):
                continue
            np.testing.assert_allclose(
                vars(many.layers[layer])[field], array, rtol=1e-5, err_msg=field
            )
        tokens = 5 if str(layer).startswith("decoder") else 9
        np.testing.assert_array_equal(
            many.tokens(layer, "sequence"), np.repeat(np.arange(6), tokens)
        )


def hooks_of(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def test_nothing_is_left_behind(family):
    name, model = family
    before = hooks_of(model)
    model.train()
    frozen = next(module for module in model.modules() if "Norm" in type(module).__name__)
    frozen.eval()
    modes = [module.training for module in model.modules()]
    try:
        with pytest.raises(IndexError), record_routing(model) as recorder:
            assert [module.training for module in model.modules()] == modes
            assert hooks_of(model) > before
            output = recorder(**batch(name))
            assert not output.logits.requires_grad
            assert [module.training for module in model.modules()] == modes
            counted = {
                layer: int(counts.tokens) for layer, counts in recorder.statistics.layers.items()
            }
            # no such tokens
            recorder(**{key: value + N_TOKENS for key, value in batch(name).items()})
        assert hooks_of(model) == before
        assert [module.training for module in model.modules()] == modes
        assert {
            layer: int(counts.tokens) for layer, counts in recorder.statistics.layers.items()
        } == counted
        with pytest.raises(ValueError, match="not in use"):
            recorder(**batch(name))
    finally:
        model.eval()


def test_recording_does_not_change_the_output(family):
    import torch

    name, model = family
    with torch.no_grad():
        plain = model(**batch(name)).logits
    with record_routing(model) as recorder:
        assert torch.equal(recorder(**batch(name)).logits, plain)
    model(**batch(name))  # after the block: not recorded
    assert {int(counts.sequences) for counts in recorder.statistics.layers.values()} == {3}


def test_half_precision_and_lists(transformers):
    import torch

    model = build(transformers, "Mixtral").to(torch.bfloat16)
    with record_routing(model, n_domains=2) as recorder:
        recorder(
            input_ids=[[1, 2, 3], [4, 5, 6]], attention_mask=[[1, 1, 1], [1, 1, 0]], domain=[0, 1]
        )
    layer = recorder.statistics.layers[0]
    assert layer.tokens == 5 and layer.domains.sum(axis=1).tolist() == [6, 4]
    assert layer.probability_sum.sum() == pytest.approx(5)


def test_labels_of_a_token_each(transformers):
    """Two documents packed into one row: sequence, domain and position are given token by token."""
    model, inputs = build(transformers, "Mixtral"), batch("Mixtral", rows=1, length=6)
    packed = {
        "sequence": [[0, 0, 1, 1, 1, 1]],
        "domain": [[1, 1, 0, 0, 0, 0]],
        "position_ids": [[0, 1, 0, 1, 2, 3]],
    }
    kept = record(model, inputs | packed, sizes={"n_domains": 2, "n_positions": 4})
    assert kept.layers[0].sequences == 2
    assert kept.layers[0].domains.sum(axis=1).tolist() == [8, 4]
    assert kept.layers[0].positions.sum(axis=(1, 2)).tolist() == [4, 4, 2, 2]


def test_an_extractor_of_ones_own(torch):
    class Toy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.gate = torch.nn.Embedding(10, 4), torch.nn.Linear(4, 5)

        def forward(self, input_ids):
            return self.gate(self.embed(input_ids))

    def extract(module, arguments, output):
        probabilities = output.flatten(0, 1).softmax(dim=-1)
        top = probabilities.topk(2, dim=-1)
        return Choice(top.indices, top.values, probabilities)

    model = Toy()
    with pytest.raises(
        ValueError, match=r"modules here that may be routers: \['gate'\].*RouterStatistics.update"
    ):
        record_routing(model)
    with pytest.raises(ValueError, match="has not"):
        record_routing(model, routers={"gates": extract})
    with pytest.raises(ValueError, match="pass statistics="):
        record_routing(model, routers={"gate": extract})
    with record_routing(model, RouterStatistics(5, 2), routers={"gate": extract}) as recorder:
        logits = recorder(input_ids=[[1, 2, 3]])
    assert recorder.layers == {"gate": "gate"}
    expected = np.bincount(logits[0].topk(2, dim=-1).indices.ravel().numpy(), minlength=5)
    np.testing.assert_array_equal(recorder.statistics.layers["gate"].slots, expected)
    for wrong, message in (
        (lambda *_: None, "allowed is a Choice"),
        (softmax_choice, "not 3: its layout"),
    ):
        recorder = record_routing(model, RouterStatistics(5, 2), routers={"gate": wrong})
        with pytest.raises(ValueError, match=message), recorder:
            recorder(input_ids=[[1, 2, 3]])


def test_bad_input_names_the_fix(transformers):
    model = build(transformers, "Mixtral")
    with record_routing(model, n_domains=2) as recorder:
        with pytest.raises(ValueError, match=r"domain has shape \(2,\); allowed is \(3,\)"):
            recorder(**batch("Mixtral"), domain=[0, 1])
        with pytest.raises(ValueError, match="domain has dtype float64; allowed are integers"):
            recorder(**batch("Mixtral"), domain=[0.0, 1.0, 1.0])
        with pytest.raises(ValueError, match=r"attention_mask has shape \(3, 4\)"):
            recorder(**batch("Mixtral"), attention_mask=np.ones((3, 4), int))
        with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
            recorder(attention_mask=np.ones((3, 4), int))
        assert not recorder.statistics.layers
        with pytest.raises(ValueError, match="in use already"), recorder:
            pass
    with pytest.raises(ValueError, match="a list; allowed is a torch module"):
        record_routing([])
    switch = build(transformers, "Switch")
    with record_routing(switch) as recorder:  # whose decoder makes its input of the labels
        recorder(input_ids=[[1, 2]], labels=[[1, 2, 3]])
    assert [int(counts.tokens) for counts in recorder.statistics.layers.values()] == [2, 3]


def test_layers_are_numbers_where_these_tell_them_apart(family):
    name, model = family
    layers = record_routing(model).layers.values()
    if name == "Switch":
        assert all(isinstance(layer, str) for layer in layers)
    else:
        assert list(layers) == ([1, 2] if name == "DeepSeek-V3" else [0, 1])


def test_the_chapter_lists_what_is_tested_here(transformers):
    assert transformers.__version__ == TRANSFORMERS
    chapter = (REPOSITORY / "chapters" / "your_router.md").read_text()
    # the table and the version are made of the very list, not typed
    assert "in families_of()" in chapter and 'show("version", TRANSFORMERS' in chapter
