"""The loss table of a mixture of experts: against modules replaced by hand, resumed, refused."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="loss tables need torch")
pytest.importorskip("transformers", reason="loss tables are tested on a model of transformers")
pytest.importorskip("zarr", reason="loss tables are written to zarr")

import tiny_models  # noqa: E402
from transformers import (  # noqa: E402
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
)

from expertbank.gates import linear_gate  # noqa: E402
from expertbank.rate_distortion import distortion_at_rate  # noqa: E402
from expertbank.routers import loss_tables as tables  # noqa: E402
from expertbank.routers.loss_tables import loss_table, open_loss_table  # noqa: E402
from expertbank.routers.regret import (  # noqa: E402
    fitted_weights,
    regret_lines,
    regret_numbers,
    regret_on_half,
    router_regret,
)

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_experts_per_tok": 2,
}


def tiny(family="mixtral"):
    torch.manual_seed(1)
    if family == "olmoe":
        model = OlmoeForCausalLM(OlmoeConfig(**SIZES, num_experts=4, pad_token_id=0))
    else:
        model = MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4))
    # experts that matter
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def batches(n=3, seed=0, padded=True):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        tokens = torch.from_numpy(rng.integers(1, 50, (2, 7)))
        mask = torch.ones_like(tokens)
        if padded:
            mask[1, 5:] = 0
        found.append({"input_ids": tokens, "attention_mask": mask})
    return found


class Replaced(torch.nn.Module):
    """An experts module in whose place the routing is another."""

    def __init__(self, experts, change):
        super().__init__()
        self.inner = experts
        self.change = change

    def forward(self, states, chosen, weights):
        return self.inner(states, *self.change(chosen, weights))


def by_hand(model, batch, layer, change):
    """Losses of next tokens with the layer's experts module replaced, one sequence at a time."""
    model = copy.deepcopy(model).eval()
    block = model.model.layers[layer].mlp
    block.experts = Replaced(block.experts, change)
    found = []
    for tokens, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        text = tokens[mask > 0][None]
        with torch.no_grad():
            log_p = model(input_ids=text).logits[0].log_softmax(dim=-1)
        found += [-log_p[i, text[0, i + 1]].item() for i in range(text.shape[1] - 1)]
    return found


def alone(expert):
    def change(chosen, weights):
        return torch.full_like(chosen[:, :1], expert), weights.sum(dim=1, keepdim=True)

    return change


def swapped(expert):
    def change(chosen, weights):
        chosen = chosen.clone()
        for row, heaviest in enumerate(weights.argmax(dim=1)):
            chosen[row, heaviest] = expert
        return chosen, weights

    return change


@pytest.mark.parametrize("family", ["mixtral", "olmoe"])
@pytest.mark.parametrize(("how", "change"), [("solo", alone), ("swap", swapped)])
@pytest.mark.parametrize("layer", [0, 1])
def test_losses_are_those_of_a_model_with_the_module_replaced(family, how, change, layer):
    model = tiny(family)
    own = batches()
    table = loss_table(model, own, layer, how)
    for expert in range(4):
        expected = [x for batch in own for x in by_hand(model, batch, layer, change(expert))]
        assert np.allclose(table.losses[:, expert], expected, atol=1e-4)
    expected = [x for batch in own for x in by_hand(model, batch, layer, lambda *given: given)]
    assert np.allclose(table.loss[:], expected, atol=1e-4)
    # rows end where padding begins, and texts are counted through
    assert np.bincount(table.sequence[:]).tolist() == [6, 4] * 3


def test_the_router_is_noted_as_it_is():
    model = tiny()
    table = loss_table(model, batches(), 1)
    probabilities = table.probabilities[:]
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    # the two most probable are chosen, and weighed by their probabilities
    top = np.sort(np.argsort(-probabilities, axis=1)[:, :2], axis=1)
    assert np.array_equal(np.sort(table.chosen[:], axis=1), top)
    gate = model.model.layers[1].mlp.gate.weight.detach().numpy()
    logits = table.features[:] @ gate.T
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(probabilities, expected, atol=1e-4)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "family", ["mixtral", "qwen3_moe", "deepseek_v3", "glm4_moe", "minimax_m2"]
)
def test_probabilities_are_those_that_the_weights_are_made_of(family, kind):
    """By softmax or by sigmoid scores, as the family's routers have it: the chosen experts' weights
    are a multiple of them, token by token."""
    model = tiny_models.build_family(family).to(kind)
    [*_, last] = tables.layer_names(model)
    table = loss_table(model, [{"input_ids": tiny_models.tokens()}], last, experts=[0])
    probabilities = np.take_along_axis(table.probabilities[:], table.chosen[:], axis=1)
    ratio = table.weights[:] / probabilities
    slack = 1e-3 if kind == torch.float32 else 5e-2
    np.testing.assert_allclose(ratio[:, 1:], ratio[:, :-1], rtol=slack)


def test_the_model_keeps_its_mode_and_no_hook_stays():
    model = tiny().train()
    model.model.layers[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    loss_table(model, batches(1), 0)
    assert before == {name: module.training for name, module in model.named_modules()}
    with pytest.raises(ValueError, match="no token that another one follows"):
        loss_table(model, [{"input_ids": torch.ones(2, 1, dtype=int)}], 0)
    assert before == {name: module.training for name, module in model.named_modules()}
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_one_backward_pass_is_exact_to_first_order():
    """Experts a little apart change the loss a little, and then the estimate is the change."""
    model = tiny()
    experts = model.model.layers[1].mlp.experts
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.copy_(parameter[:1] * (1 + 1e-2 * torch.randn_like(parameter)))
    own = batches(8)
    exact = loss_table(model, own, 1, "swap")
    linear = loss_table(model, own, 1, "swap", method="linear")
    change = exact.losses[:] - exact.loss[:][:, None]
    estimate = linear.losses[:] - linear.loss[:][:, None]
    assert np.abs(change).max() > 1e-4
    assert np.corrcoef(change.ravel(), estimate.ravel())[0, 1] > 0.99
    assert np.allclose(exact.loss[:], linear.loss[:], atol=1e-5)
    # before attention sees it, a token's gradient holds what it does to later tokens as well
    first = loss_table(model, own, 0, method="linear")
    assert first.losses[:].shape == exact.losses[:].shape


def test_some_experts_are_columns_of_all():
    model = tiny()
    every = loss_table(model, batches(), 0)
    some = loss_table(model, batches(), 0, experts=[3, 1])
    assert some.experts == (3, 1)
    assert np.array_equal(some.losses[:], every.losses[:][:, [3, 1]])
    with pytest.raises(ValueError, match="some experts alone"):
        regret_on_half(some)


def test_a_killed_table_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    model = tiny()
    own = batches(5)
    whole = loss_table(model, own, 0, to=tmp_path / "whole")
    columns = tables._columns
    calls = []

    def stopped(*given):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        return columns(*given)

    monkeypatch.setattr(tables, "_columns", stopped)
    with pytest.raises(KeyboardInterrupt):
        loss_table(model, own, 0, to=tmp_path / "killed")
    monkeypatch.setattr(tables, "_columns", columns)
    # killed between an array and the note that its rows are there
    group = tables._opened(tmp_path / "killed", {})
    group["losses"].resize((100, 4))
    begun = open_loss_table(tmp_path / "killed")
    assert begun.attributes["rows"] == 30
    calls.clear()
    monkeypatch.setattr(tables, "_columns", lambda *g: calls.append(1) or columns(*g))
    killed = loss_table(model, own, 0, to=tmp_path / "killed")
    assert len(calls) == 2
    for name in tables.ARRAYS:
        assert np.array_equal(getattr(killed, name)[:], getattr(whole, name)[:]), name
    assert killed.attributes == whole.attributes


def test_a_folder_takes_one_table(tmp_path):
    model = tiny()
    own = batches(2)
    loss_table(model, own, 0, to=tmp_path / "t")
    for other in ({"how": "swap"}, {"experts": [0]}, {"method": "linear"}):
        with pytest.raises(ValueError, match="holds a table of another"):
            loss_table(model, own, 0, to=tmp_path / "t", **other)
    with pytest.raises(ValueError, match="table of another layer"):
        loss_table(model, own, 1, to=tmp_path / "t")
    with pytest.raises(ValueError, match="batch 2 is not the one"):
        loss_table(model, [own[0], *batches(1, seed=9)], 0, to=tmp_path / "t")
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    with pytest.raises(ValueError, match="table of another model"):
        loss_table(model, own, 0, to=tmp_path / "t")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(FileExistsError, match="not empty"):
        loss_table(tiny(), own, 0, to=tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="holds no loss table"):
        open_loss_table(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"layer": 7}, "layer is 7; allowed is one with experts: 0, 1"),
        ({"layer": True}, "layer is True; allowed"),
        ({"how": "both"}, r"how is 'both'; allowed are \('solo', 'swap'\)"),
        ({"method": "quick"}, "method is 'quick'"),
        ({"experts": "some"}, "experts is 'some'; allowed are 'all' and a list"),
        ({"experts": [4]}, "an expert is 4; allowed is an integer of at most 3"),
        ({"experts": [1, 1]}, "without repetition"),
        ({"batches": []}, "batches are empty"),
        ({"batches": [[1, 2]]}, "a batch is a list; allowed is a dict"),
        ({"batches": [{"input_ids": torch.ones(3, dtype=int)}]}, r"shape \(3,\); allowed is"),
        ({"model": 3}, "model is a int; allowed is a torch module"),
        ({"model": torch.nn.Linear(2, 2)}, "Linear has no module named experts"),
    ],
)
def test_bad_input_gets_one_sentence(given, says):
    model = given.pop("model", None)
    whole = {"model": tiny() if model is None else model, "batches": batches(1), "layer": 0}
    with pytest.raises((ValueError, TypeError), match=says) as caught:
        loss_table(**(whole | given))
    assert "\n" not in str(caught.value)


def test_an_experts_module_of_another_form_is_refused():
    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = torch.nn.Linear(2, 2)
            self.experts.num_experts = 2

        def forward(self, input_ids):
            return self.experts(torch.zeros(*input_ids.shape, 2))

    with pytest.raises(ValueError, match="was called with shapes"):
        loss_table(Other(), [{"input_ids": torch.ones(1, 3, dtype=int)}], "experts")


# --- where a router sits ---


def test_a_router_that_knows_what_can_be_known_has_no_regret_to_its_input():
    """Losses that depend on a feature and a coin: the router follows the feature, D(R) the coin."""
    rng = np.random.default_rng(0)
    side = rng.integers(0, 2, 4_000)
    coin = rng.integers(0, 2, 4_000)
    losses = np.where(np.arange(2) == side[:, None], 0.0, 1.0)
    losses = np.where(coin[:, None] * (rng.random((4_000, 1)) < 0.4) > 0, 1 - losses, losses)
    features = np.stack([side, rng.random(4_000)], axis=1)
    half = np.arange(4_000) < 2_000
    fits = fitted_weights(features[half], losses[half], lams=[0.01])
    gates = [linear_gate(fit, features[~half]) for fit in fits]
    chosen = side[~half][:, None]
    found = router_regret(losses[~half], chosen, np.ones(chosen.shape), gates)
    assert abs(found.router.loss - 0.2) < 0.03
    assert abs(found.router.loss - found.reached(found.router.rate)) < 0.01
    least = distortion_at_rate(losses[~half], found.router.rate)
    assert found.router.lower - 1e-9 <= least <= found.router.upper + 1e-9
    assert found.router.upper < 0.02
    assert np.isclose(found.router.rate, np.log(2), atol=1e-3)
    # grouped by what came out, the same router looks blind where it went badly
    worst = found.by_outcome[-1]
    assert worst.router - worst.oracle == 1 and abs(worst.router - worst.seen) < 0.05
    assert sum(group.tokens for group in found.by_confidence) == 2_000


def test_weights_are_of_features_as_they_are():
    rng = np.random.default_rng(1)
    features = 50 + 7 * rng.random((300, 3))
    losses = np.stack([features[:, 0], 107 - features[:, 0]], axis=1)
    [fit] = fitted_weights(features, losses, lams=[0.05])
    best = losses.argmin(axis=1)
    assert (linear_gate(fit, features).argmax(axis=1) == best).mean() > 0.97
    constant = np.hstack([features, np.ones((300, 1))])
    [fit] = fitted_weights(constant, losses, lams=[0.05])
    assert np.isfinite(fit).all()


def test_the_report_says_what_was_found(tmp_path):
    table = loss_table(tiny(), batches(6), 1)
    found = regret_on_half(table)
    text = "\n".join(regret_lines(found))
    assert "it saw the next token" in text and "sees x only" in text
    numbers = regret_numbers(found)
    assert numbers["router"]["lower"] <= numbers["router"]["loss"]
    assert numbers["tokens"] == found.tokens
    # six of twelve texts, of 6 or 4 rows each
    assert found.tokens == 32
    assert found.softmax.rate < found.router.rate
    with pytest.raises(ValueError, match="the number of texts is 2"):
        regret_on_half(loss_table(tiny(), batches(1), 1))
    with pytest.raises(ValueError, match="chosen has shape"):
        router_regret(np.eye(2), [0, 1], [1, 1], [])
