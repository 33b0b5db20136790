"""Record what the routers of a Hugging Face transformers model choose, by forward hooks on the
router modules.

A router's logits do not tell its choice: DeepSeek-V3 takes the top k of sigmoid scores plus a bias,
in a few of its groups, and Switch drops tokens beyond an expert's capacity. So nothing is computed
again here: the experts and their weights are those that the router module returned, which is what
the block hands to its experts. Routers are known by the name of their class; transformers itself is
never imported, and torch only when a model is run. Shared experts, which serve every token, are not
routed to and not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from expertbank.routers.statistics import RouterStatistics

TRANSFORMERS = "5.23.0"  # the version whose modules the families below were checked against


@dataclass(frozen=True)
class Choice:
    """What one router chose for n tokens of a batch, sequence by sequence: tensors or arrays, on
    any device.

    chosen (n, k) integer experts, -1 where a slot is dropped; weights (n, k) >= 0 of any sum;
    probabilities (n, E), rows that sum to 1, before the choice. Weights and probabilities may be
    None.
    """

    chosen: object
    weights: object = None
    probabilities: object = None


def softmax_choice(module, arguments, output) -> Choice:
    """Of a router that returns (logits (n, E), weights (n, k), experts (n, k)); probabilities:
    softmax of the logits.

    The weights are the model's own: the chosen softmax entries, scaled to sum to 1 or not, or a
    softmax of the chosen logits. An extractor for `record_routing(..., routers={name:
    softmax_choice})`.
    """
    logits, weights, chosen = _three(module, output)
    return Choice(chosen, weights, logits.float().softmax(dim=-1))


def sigmoid_choice(module, arguments, output) -> Choice:
    """As `softmax_choice`, for scores that are sigmoids of the logits; probabilities: those scores
    over their sum.

    A bias that steers the choice (DeepSeek's e_score_correction_bias) is in the choice, not in the
    probabilities.
    """
    logits, weights, chosen = _three(module, output)
    scores = logits.float().sigmoid()
    return Choice(chosen, weights, scores / scores.sum(dim=-1, keepdim=True))


def switch_choice(module, arguments, output) -> Choice:
    """Of Switch's router: (dispatch (B, L, E) of zeros and ones, probability (B, L, 1), logits (B,
    L, E)).

    A token beyond its expert's capacity has no one in its dispatch row: expert -1, weight 0.
    """
    dispatch, probability, logits = _three(module, output)
    served = dispatch.sum(dim=-1, keepdim=True) > 0
    chosen = dispatch.argmax(dim=-1, keepdim=True).masked_fill(~served, -1)
    weights = probability.masked_fill(~served, 0)
    return Choice(*(_flat(array) for array in (chosen, weights, logits.float().softmax(dim=-1))))


@dataclass(frozen=True)
class Family:
    """A kind of model: the class of its router modules, how to read their output, what their
    probabilities are."""

    name: str
    router: str
    choice: Callable
    probabilities: str = "softmax of the logits"


MODEL_FAMILIES = (
    Family("Mixtral", "MixtralTopKRouter", softmax_choice),
    Family("OLMoE", "OlmoeTopKRouter", softmax_choice),
    Family("Qwen2-MoE", "Qwen2MoeTopKRouter", softmax_choice),
    Family("Qwen3-MoE", "Qwen3MoeTopKRouter", softmax_choice),
    Family("gpt-oss", "GptOssTopKRouter", softmax_choice),
    Family("Granite-MoE", "GraniteMoeTopKRouter", softmax_choice),
    Family(
        "DeepSeek-V3",
        "DeepseekV3TopkRouter",
        sigmoid_choice,
        "sigmoid scores over their sum, without the bias",
    ),
    Family("Switch", "SwitchTransformersTop1Router", switch_choice),
)


def record_routing(
    model,
    statistics: RouterStatistics | None = None,
    *,
    routers: Mapping[str, Callable] | None = None,
    n_domains: int = 0,
    n_positions: int = 0,
    n_tokens: int = 0,
    relabellings: int = 20,
    seed: int = 0,
) -> RoutingRecorder:
    """A context manager that runs a transformers model and adds up what its routers choose::

        with record_routing(model, n_domains=2) as recorder:
            recorder(**tokenizer(texts, return_tensors="pt", padding=True), domain=domains)
        report = routing_report(recorder.statistics)

    `statistics` to add to, or None: new ones with the sizes given here (0 = not kept; `n_tokens` is
    the size of the vocabulary). `routers` maps names of modules to extractors `extract(module,
    arguments, output) -> Choice`, for routers that are not in `MODEL_FAMILIES`. Raises ValueError
    where no router is found.
    """
    found = _find_routers(model, routers or {})
    if statistics is None:
        sizes = {"n_domains": n_domains, "n_positions": n_positions, "n_tokens": n_tokens}
        statistics = RouterStatistics(
            *_experts_of(model, found), **sizes, relabellings=relabellings, seed=seed
        )
    return RoutingRecorder(model, statistics, found)


class RoutingRecorder:
    """Made by `record_routing`. Within `with`, hooks sit on the routers and the model is in
    evaluation mode.

    On leaving, also by an exception, the hooks are gone and every module is back in the mode that
    it was in.

    `statistics` holds what has been recorded; `layers` maps the names of router modules to the
    names of layers in it: the number in the module's path where it tells the layers apart, else the
    path.
    """

    def __init__(self, model, statistics: RouterStatistics, routers: Mapping[str, Callable]):
        self.model, self.statistics = model, statistics
        self.layers = _layer_names(list(routers))
        self._routers, self._handles, self._modes = routers, [], {}
        self._seen: list | None = None
        self._n_sequences = 0

    def __enter__(self) -> RoutingRecorder:
        if self._handles:
            raise ValueError("this recorder is in use already; leave its `with` block first")
        self._modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        for name, extract in self._routers.items():
            module = self.model.get_submodule(name)
            self._handles.append(module.register_forward_hook(self._hook(name, extract)))
        return self

    def __exit__(self, *error) -> None:
        for handle in self._handles:
            handle.remove()
        for module, training in self._modes.items():
            module.training = training
        self._handles, self._modes = [], {}

    def __call__(self, *, domain=None, sequence=None, **inputs):
        """Run the model on one batch without gradients, add its routing to `statistics`, return the
        model's output.

        inputs   what the model takes: `input_ids` (B, L), and `attention_mask` (B, L) where there
        is padding;
                 `decoder_input_ids` and `decoder_attention_mask` for a model with a decoder of its
                 own
        domain   one integer, one a sequence (B,), or one a token (B, L) sequence the like; by
        default each row of each batch is a sequence of its own, numbered through

        Positions count the tokens of a row that are not padding, or are `position_ids` where they
        are given. Nothing is added when the model fails. Calls of the model past the recorder are
        not recorded.
        """
        import torch

        if not self._handles:
            raise ValueError(
                "the recorder is not in use; call it inside `with record_routing(model) as recorder:`"
            )
        device = next(self.model.parameters()).device
        inputs = {name: _on(device, value) for name, value in inputs.items()}
        sides = {self._side(name) for name in self._routers} | {""}
        labels = {side: self._labels(inputs, side, domain, sequence) for side in sides}
        self._seen = []
        try:
            with torch.no_grad():
                output = self.model(**inputs)
            updates = [
                (name, _arrays(name, choice, labels[self._side(name)]))
                for name, choice in self._seen
            ]
        finally:
            self._seen = None
        if not updates:
            raise ValueError(
                "the model ran and no router was called: are its layers replaced or compiled?"
            )
        for name, arrays in updates:
            self.statistics.update(self.layers[name], **arrays)
        self._n_sequences += _grid(inputs, "")[0]
        return output

    def _hook(self, name: str, extract: Callable) -> Callable:
        def hook(module, arguments, output):
            if self._seen is not None:
                choice = extract(module, arguments, output)
                if not isinstance(choice, Choice):
                    raise ValueError(
                        f"the extractor of {name} returned {type(choice).__name__}; allowed is a Choice"
                    )
                values = (choice.chosen, choice.weights, choice.probabilities)
                self._seen.append((name, Choice(*(_to_numpy(value) for value in values))))

        return hook

    def _side(self, name: str) -> str:
        """Prefix of the inputs that the router at `name` sees: the decoder of an encoder-decoder
        has its own."""
        two = getattr(getattr(self.model, "config", None), "is_encoder_decoder", False)
        return "decoder_" if two and "decoder" in name.split(".") else ""

    def _labels(self, inputs: Mapping, side: str, domain, sequence) -> dict:
        """What is known of each token of a batch, one array (B * L,) a label."""
        rows, length = grid = _grid(inputs, side)
        mask = _mask(inputs, side, grid)
        own = np.arange(self._n_sequences, self._n_sequences + rows)
        labels = {"sequence": _spread(own if sequence is None else sequence, "sequence", grid)}
        if domain is not None:
            labels["domain"] = _spread(domain, "domain", grid)
        if self.statistics.n_positions:
            given = inputs.get("position_ids") if not side else None
            counted = np.maximum(mask.cumsum(axis=1) - 1, 0)
            labels["position"] = _spread(
                counted[:, -length:] if given is None else given, "position_ids", grid
            )
        if self.statistics.n_tokens:
            if inputs.get(f"{side}input_ids") is None:
                raise ValueError(
                    f"statistics of tokens (n_tokens) need {side}input_ids, not {side}inputs_embeds"
                )
            labels["token"] = _spread(inputs[f"{side}input_ids"], f"{side}input_ids", grid)
        return {**labels, "mask": mask[:, -length:].ravel()}


def _find_routers(model, own: Mapping[str, Callable]) -> dict[str, Callable]:
    """Extractor of each router module by the module's name, in the model's order."""
    if not hasattr(model, "named_modules"):
        raise ValueError(
            f"model is a {type(model).__name__}; allowed is a torch module of transformers"
        )
    names = dict(model.named_modules())
    if unknown := sorted(set(own) - set(names)):
        raise ValueError(
            f"routers names {unknown}, which the model has not; it has, for one, {list(names)[-1]!r}"
        )
    known = {family.router: family.choice for family in MODEL_FAMILIES}
    found = {
        name: known[type(module).__name__]
        for name, module in names.items()
        if type(module).__name__ in known
    }
    found = {name: own.get(name, found.get(name)) for name in names if name in own or name in found}
    if not found:
        near = [
            name for name in names if name.split(".")[-1] in ("gate", "router", "block_sparse_moe")
        ]
        raise ValueError(
            f"no known router in {type(model).__name__}. Known are those of "
            f"{', '.join(family.name for family in MODEL_FAMILIES)}, as transformers {TRANSFORMERS} builds them"
            + (f"; modules here that may be routers: {near[:3]}" if near else "")
            + ". For another model pass routers={'path.of.router': extract}, or give arrays of your own to "
            "RouterStatistics.update(layer, chosen=..., weights=..., probabilities=...)"
        )
    return found


def _experts_of(model, names) -> tuple[int, int]:
    """Numbers of experts and of chosen ones, (E, k), as the router modules say."""
    modules = [model.get_submodule(name) for name in names]
    sizes = {
        (getattr(module, "num_experts", None), getattr(module, "top_k", 1)) for module in modules
    }
    if len(sizes) > 1 or any(n_experts is None for n_experts, _ in sizes):
        raise ValueError(
            f"routers say that they have (experts, chosen) = {sorted(sizes, key=str)}; where they do not all say the "
            "same, pass statistics=RouterStatistics(n_experts, n_chosen)"
        )
    return sizes.pop()


def _layer_names(names: list[str]) -> dict[str, int | str]:
    """The number in each path where paths differ in that alone, else the paths themselves."""
    parts = [name.split(".") for name in names]
    numbers = [[int(part) for part in path if part.isdigit()] for path in parts]
    shapes = {tuple("*" if part.isdigit() else part for part in path) for path in parts}
    if len(shapes) == 1 and len({path[0] for path in numbers if path}) == len(names):
        return {name: path[0] for name, path in zip(names, numbers)}
    return {name: name for name in names}


def _three(module, output) -> tuple:
    """The three tensors that a router of transformers 5 returns."""
    if not isinstance(output, tuple) or len(output) != 3:
        shown = (
            f"{len(output)} values" if isinstance(output, tuple) else f"a {type(output).__name__}"
        )
        raise ValueError(
            f"{type(module).__name__} returned {shown}, not three: its layout is not that of transformers "
            f"{TRANSFORMERS}; pass routers={{name: extract}} with an extractor for it"
        )
    return output


def _on(device, value):
    """Lists and arrays as tensors, tensors moved to the device, anything else as it is."""
    import torch

    if isinstance(value, (list, np.ndarray)):
        value = torch.as_tensor(np.asarray(value))
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _flat(tensor):
    return tensor.reshape(-1, tensor.shape[-1])


def _to_numpy(value) -> np.ndarray | None:
    if value is None or isinstance(value, np.ndarray):
        return value
    value = value.detach()  # numpy knows no bfloat16
    return (value.float() if value.is_floating_point() else value).cpu().numpy()


def _grid(inputs: Mapping, side: str) -> tuple[int, int]:
    """(B, L) of the tokens of one side of the model."""
    for name in ("input_ids", "inputs_embeds"):
        if inputs.get(side + name) is not None:
            return tuple(inputs[side + name].shape[:2])
    raise ValueError(
        f"neither {side}input_ids nor {side}inputs_embeds is among the inputs {sorted(inputs)}"
    )


def _mask(inputs: Mapping, side: str, grid: tuple[int, int]) -> np.ndarray:
    """True where a token counts; longer than the grid where the model keeps earlier tokens in a
    cache."""
    mask = inputs.get(f"{side}attention_mask")
    if mask is None:
        return np.ones(grid, bool)
    mask = _to_numpy(mask) > 0
    if mask.ndim != 2 or mask.shape[0] != grid[0] or mask.shape[1] < grid[1]:
        raise ValueError(
            f"{side}attention_mask has shape {mask.shape}; allowed is {grid}, 0 where there is padding"
        )
    return mask


def _spread(labels, name: str, grid: tuple[int, int]) -> np.ndarray:
    """One integer a token (B * L,), from one in all, one a sequence (B,) or one a token (B, L)."""
    labels = np.asarray(_to_numpy(labels) if hasattr(labels, "detach") else labels)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {labels.dtype}; allowed are integers")
    if labels.shape == grid[:1]:
        labels = labels[:, None]
    elif labels.shape not in ((), grid, (1, grid[1])):
        raise ValueError(
            f"{name} has shape {labels.shape}; allowed is ({grid[0]},), one a sequence, or {grid}"
        )
    return np.broadcast_to(labels, grid).ravel()


def _arrays(name: str, choice: Choice, labels: dict) -> dict:
    """Keywords of `RouterStatistics.update` for one call of a router."""
    n_tokens = len(labels["mask"])
    if len(choice.chosen) != n_tokens:
        raise ValueError(
            f"{name} saw {len(choice.chosen)} tokens in one call, the batch has {n_tokens} with padding; "
            "models that route in chunks need smaller batches or an extractor of their own"
        )
    found = {
        "chosen": choice.chosen,
        "weights": choice.weights,
        "probabilities": choice.probabilities,
    }
    return {**found, **labels}
