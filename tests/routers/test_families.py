"""Every family of mixtures in transformers: built tiny, and what is recorded held against what its
experts were called with, by hooks of the test's own."""

import re
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from expertbank.routers.families import (
    MODEL_FAMILIES,
    NO_ROUTER,
    SCORES,
    families_of,
    find_listeners,
    scores_by_weights,
)
from expertbank.routers.hooks import record_routing
from expertbank.routers.statistics import RouterStatistics

NAMES = [family.name for family in MODEL_FAMILIES]


class Kept(RouterStatistics):
    """Statistics that also keep what they were given."""

    def update_layers(self, batches):
        batches = list(batches)
        super().update_layers(batches)
        self.given = getattr(self, "given", []) + batches


def record(model, inputs):
    """What a recorder counted of one forward, by layer, and the recorder."""
    made = record_routing(model)
    made.statistics = Kept(**made.statistics.configuration)
    with made as recorder:
        recorder(**inputs)
    return recorder.statistics.given, recorder


def dense(chosen, weights, n_experts):
    """(n, E) of the weight of each expert, NaN where it was not chosen."""
    rows = np.full((len(chosen), n_experts + 1), np.nan)
    np.put_along_axis(rows, np.where(chosen < 0, n_experts, chosen), weights, axis=1)
    return rows[:, :n_experts]


def listen(model, pattern, take):
    """What `take(module, arguments, keywords)` says of each call of modules of a kind."""
    seen = []

    def hook(module, arguments, keywords):
        seen.append(take(module, [*arguments, *keywords.values()]))

    kinds = [module for module in model.modules() if re.search(pattern, type(module).__name__)]
    return seen, [module.register_forward_pre_hook(hook, with_kwargs=True) for module in kinds]


def called_experts(module, given):
    """(n, E) of the weights that the experts of a block were called with."""
    chosen = given[1].numpy()
    return dense(chosen, given[2].detach().numpy(), int(chosen.max()) + 1)


def check(found, seen, exact=True):
    """Compare choices and weights, a layer at a time, as (n, E)."""
    assert len(found) == len(seen) > 0
    for (_, arrays), expected in zip(found, seen):
        ours = dense(arrays["chosen"], arrays["weights"], expected.shape[1])
        compare = np.testing.assert_array_equal if exact else np.testing.assert_allclose
        compare(ours, expected)


BY_CALL = [family.name for family in MODEL_FAMILIES if family.choice is None]


@pytest.mark.parametrize("name", BY_CALL)
def test_the_call_of_the_experts_is_what_is_recorded(transformers, name):
    model = tiny_models.build_family(name)
    inputs = tiny_models.inputs_of(name)
    seen, handles = listen(model, "(?<!InklingShared)Experts$", called_experts)
    found, recorder = record(model, inputs)
    for handle in handles:
        handle.remove()
    check(found, seen)
    assert {listener.how for listener in recorder.listeners} == {"verified"}
    for layer, arrays in found:
        assert len(np.unique(arrays["chosen"])) > 3, "the routers do not differ between tokens"
        probabilities = arrays["probabilities"]
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-4)
        assert probabilities.std() > 0.03
        assert recorder.statistics.heard[layer] == "verified"


@pytest.mark.parametrize("name", BY_CALL)
def test_the_scores_of_a_family_are_those_that_its_weights_tell(transformers, name):
    """Weights are a multiple of the scores that the table names, and of no others."""
    import torch

    model = tiny_models.build_family(name)
    inputs = tiny_models.inputs_of(name)
    family = next(family for family in MODEL_FAMILIES if family.name == name)
    logits, told = {}, []
    for listener in find_listeners(model):
        router = model.get_submodule(listener.router)
        router.register_forward_hook(
            lambda _, given, output, path=listener.router: logits.__setitem__(
                path, output[0] if isinstance(output, tuple) else output
            )
        )
        model.get_submodule(listener.path).register_forward_pre_hook(
            lambda _, given, keywords, path=listener.router: told.append(
                scores_by_weights(logits[path].flatten(0, -2), *[*given, *keywords.values()][1:3])
            ),
            with_kwargs=True,
        )
    with torch.no_grad():
        model(**inputs)
    if name in ("gemma4", "diffusion_gemma", "phimoe"):
        # probabilities already, times a scale; a softmax of what is near the best alone
        assert set(told) == {None}
    else:
        assert set(told) == {family.scores}
    assert family.scores in SCORES


def test_llama4_scores_what_goes_into_its_experts(transformers):
    model = tiny_models.build_family("llama4")
    inputs = tiny_models.inputs_of("llama4")
    hidden, seen = [], []
    for block in model.modules():
        if type(block).__name__ == "Llama4TextMoe":
            block.register_forward_pre_hook(lambda _, given: hidden.append(given[0]))
            block.experts.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    found, _ = record(model, inputs)
    for (_, arrays), before, after in zip(found, hidden, seen, strict=True):
        before = before.reshape(1, -1, before.shape[-1]).numpy()
        ratio = after.reshape(N, *before.shape[1:]).numpy() / before  # (E, n, h)
        expected = np.where(ratio[:, :, 0] == 0, np.nan, np.median(ratio, axis=2)).T
        ours = dense(arrays["chosen"], arrays["weights"], N)
        np.testing.assert_allclose(ours, expected, rtol=1e-4)


N = tiny_models.N_EXPERTS


def test_switch_gives_its_experts_a_mask(transformers):
    def take(module, given):
        mask = given[1][:, 0].numpy()
        return np.where(mask, given[2].numpy(), np.nan)

    model = tiny_models.build_family("switch_transformers")
    seen, _ = listen(model, "TransformersExperts$", take)
    found, _ = record(model, tiny_models.inputs_of("switch_transformers"))
    check(found, [np.where(np.isnan(rows), np.nan, rows) for rows in seen])
    assert any((arrays["chosen"] < 0).any() for _, arrays in found)


def test_nllb_gives_its_experts_combining_weights(transformers):
    """Two choices a token, less what exceeds the capacity."""

    def take(module, given):
        weights = given[2].numpy()
        return np.where(weights > 0, weights, np.nan)

    model = tiny_models.build_family("nllb_moe")
    seen, _ = listen(model, "NllbMoeExperts$", take)
    found, _ = record(model, tiny_models.inputs_of("nllb_moe"))
    assert any((arrays["chosen"] < 0).any() for _, arrays in found)
    for _, arrays in found:  # what is dropped has no weight
        arrays["weights"] = np.where(arrays["chosen"] < 0, np.nan, arrays["weights"])
    check(found, seen)


def test_jetmoe_gives_each_expert_its_slots(transformers):
    """In the feed-forward and in the attention, whose queries are a mixture too."""
    model = tiny_models.build_family("jetmoe")
    inputs, sizes = tiny_models.inputs_of("jetmoe"), []
    for name, module in model.named_modules():
        if name.endswith("input_linear"):
            module.register_forward_pre_hook(lambda _, given: sizes.append((given[1], given[0])))
    hidden = []
    for module in model.modules():
        if type(module).__name__ == "JetMoeTopKGating":
            module.register_forward_pre_hook(lambda _, given: hidden.append(given[0]))
    found, _ = record(model, inputs)
    assert len(found) == 4
    for (_, arrays), (of_expert, rows), tokens in zip(found, sizes, hidden, strict=True):
        assert [(arrays["chosen"] == t).sum() for t in range(N)] == list(of_expert)
        start = 0
        for t, size in enumerate(of_expert):  # the rows that each expert was given
            mine = tokens.numpy()[(arrays["chosen"] == t).any(axis=1)].tolist()
            assert sorted(rows.numpy()[start : start + size].tolist()) == sorted(mine)
            start += size
        np.testing.assert_allclose(arrays["weights"].sum(axis=1), 1, rtol=1e-5)


def test_doge_looks_up_the_experts_that_are_recorded(transformers):
    model = tiny_models.build_family("doge")
    seen = []
    for name, module in model.named_modules():
        if name.endswith("down_embed"):
            module.register_forward_pre_hook(lambda _, given: seen.append(given[0].numpy()))
    found, _ = record(model, tiny_models.inputs_of("doge"))
    for (_, arrays), expected in zip(found, seen, strict=True):
        np.testing.assert_array_equal(arrays["chosen"], expected)
        chosen = np.take_along_axis(arrays["probabilities"], expected, axis=1)
        shares = chosen / chosen.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(arrays["weights"], shares, rtol=1e-4)


def test_zaya_counts_what_skips_the_experts(transformers):
    model = tiny_models.build_family("zaya")
    for name, buffer in model.named_buffers():
        if name.endswith("balancing_biases"):
            buffer.zero_()[-1] = 0.95  # or no token would skip

    def take(module, given):
        return np.where(given[2].numpy() == 0, N, given[1].numpy())

    seen, _ = listen(model, "ZayaExperts$", take)
    found, recorder = record(model, tiny_models.inputs_of("zaya"))
    assert recorder.statistics.n_experts == N + 1
    assert any((expected == N).any() for expected in seen)
    for (_, arrays), expected in zip(found, seen, strict=True):
        np.testing.assert_array_equal(arrays["chosen"], expected)
        assert (arrays["weights"] > 0).all()


def test_longcat_counts_its_experts_that_compute_nothing(transformers):
    model = tiny_models.build_family("longcat_flash")
    found, recorder = record(model, tiny_models.inputs_of("longcat_flash"))
    assert recorder.statistics.n_experts == N + 4
    assert any((arrays["chosen"] >= N).any() for _, arrays in found)


def test_the_hash_router_of_deepseek_v4_looks_up_tokens(transformers):
    model = tiny_models.build_family("deepseek_v4")
    inputs = tiny_models.inputs_of("deepseek_v4")
    found, _ = record(model, inputs)
    table = dict(model.named_buffers())["model.layers.0.mlp.gate.tid2eid"]
    expected = table[inputs["input_ids"].ravel()]
    np.testing.assert_array_equal(found[0][1]["chosen"], expected)


def test_every_family_of_the_installed_transformers_is_in_the_table(transformers, monkeypatch):
    table = list(families_of())
    assert {name for name, how, _ in table if how == "verified"} == set(NAMES)
    assert {name for name, how, _ in table if how == "not"} == set(NO_ROUTER)
    assert not [name for name, how, _ in table if how == "by form"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert list(families_of()) == table, "where transformers is not installed"


def test_every_family_has_a_test():
    """Those of one form are built one by one, the others have a test each."""
    own = {family.name for family in MODEL_FAMILIES if family.choice is not None}
    source = Path(__file__).read_text()
    assert all(f'build_family("{name}")' in source for name in own)
    assert set(BY_CALL) | own == set(NAMES)
    assert not set(tiny_models.CANNOT_BE_BUILT) & set(NAMES)


def test_a_family_that_is_not_known_is_heard_by_its_form(tmp_path):
    folder = tmp_path / "novel"
    folder.mkdir()
    code = "class NovelExperts:\n    def f(self):\n        self.experts(hidden, index, weights)\n"
    (folder / "modeling_novel.py").write_text(code)
    assert [row[:2] for row in families_of(tmp_path)] == [("novel", "by form")]
    code = "class NovelRouter:\n    def f(self, num_experts):\n        self.experts(hidden)\n"
    (folder / "modeling_novel.py").write_text(code)
    assert [row[:2] for row in families_of(tmp_path)] == [("novel", "not")]


@pytest.mark.parametrize("scores", SCORES)
def test_probabilities_of_an_unknown_family_follow_its_weights(torch, scores):
    """Rows that are probabilities already are taken as they are, never a softmax of a softmax."""

    class Experts(torch.nn.Module):
        num_experts = 4

        def forward(self, hidden, top_k_index, top_k_weights):
            return hidden

    class Gate(torch.nn.Module):
        top_k = 2

        def __init__(self, is_ready):
            super().__init__()
            self.layer, self.is_ready = torch.nn.Linear(8, 4), is_ready

        def forward(self, hidden):
            logits = 3 * self.layer(hidden)
            values = SCORES[scores](logits)
            weights, chosen = values.topk(2, dim=-1)
            shares = values / values.sum(dim=-1, keepdim=True)
            return shares if self.is_ready else logits, 2.5 * weights, chosen

    class Model(torch.nn.Module):
        def __init__(self, is_ready):
            super().__init__()
            self.embed, self.gate = torch.nn.Embedding(16, 8), Gate(is_ready)
            self.experts = Experts()

        def forward(self, input_ids):
            hidden = self.embed(input_ids).flatten(0, 1)
            _, weights, chosen = self.gate(hidden)
            return self.experts(hidden, chosen, weights)

    torch.manual_seed(0)
    ready, plain = Model(True), Model(False)
    plain.load_state_dict(ready.state_dict())
    inputs = {"input_ids": torch.arange(16)[None]}
    one, recorder = record(ready, inputs)
    other, _ = record(plain, inputs)
    assert [listener.how for listener in recorder.listeners] == ["by form"]
    ours, theirs = one[0][1]["probabilities"], other[0][1]["probabilities"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert theirs.std() > 0.05
