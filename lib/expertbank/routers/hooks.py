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
from typing import Any

import numpy as np

from expertbank.routers.statistics import Layer, RouterStatistics

TRANSFORMERS = "5.23.0"  # the version whose modules the families below were checked against

# --- what a router chose, read from the output of its module ---


@dataclass(frozen=True)
class Choice:
    """What one router chose for n tokens of a batch, sequence by sequence: tensors or arrays, on
    any device.

    >>> Choice(chosen=np.array([[0, 2], [1, -1]])).weights is None
    True
    """

    chosen: Any
    """(n, k) integer experts, -1 where a slot is dropped"""
    weights: Any = None
    """(n, k) >= 0 of any sum, or None"""
    probabilities: Any = None
    """(n, E), rows that sum to 1, before the choice, or None"""


# extract(module, arguments, output) of a forward hook
Extractor = Callable[[Any, Any, Any], Choice]


def softmax_choice(module: Any, arguments: Any, output: Any) -> Choice:
    """Of a router that returns (logits (n, E), weights (n, k), experts (n, k)); probabilities:
    softmax of the logits.

    The weights are the model's own: the chosen softmax entries, scaled to sum to 1 or not, or a
    softmax of the chosen logits. An extractor for `record_routing(..., routers={name:
    softmax_choice})`. Raises ValueError for another output.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
    >>> weights, experts = logits.softmax(dim=-1).topk(2)
    >>> choice = softmax_choice(None, (), (logits, weights, experts))
    >>> choice.chosen.tolist(), choice.probabilities.shape
    ([[0, 1]], torch.Size([1, 3]))
    """
    logits, weights, chosen = _three(module, output)
    return Choice(chosen, weights, logits.float().softmax(dim=-1))


def sigmoid_choice(module: Any, arguments: Any, output: Any) -> Choice:
    """As `softmax_choice`, for scores that are sigmoids of the logits; probabilities: those scores
    over their sum.

    A bias that steers the choice (DeepSeek's e_score_correction_bias) is in the choice, not in the
    probabilities.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 0.0]])
    >>> weights, experts = logits.sigmoid().topk(1)
    >>> sigmoid_choice(None, (), (logits, weights, experts)).probabilities.tolist()
    [[0.5, 0.5]]
    """
    logits, weights, chosen = _three(module, output)
    scores = logits.float().sigmoid()
    return Choice(chosen, weights, scores / scores.sum(dim=-1, keepdim=True))


def switch_choice(module: Any, arguments: Any, output: Any) -> Choice:
    """Of Switch's router: (dispatch (B, L, E) of zeros and ones, probability (B, L, 1), logits (B,
    L, E)).

    A token beyond its expert's capacity has no one in its dispatch row: expert -1, weight 0.

    >>> import torch
    >>> dispatch = torch.tensor([[[0, 1], [0, 0]]])  # the second token found its expert full
    >>> logits = torch.zeros(1, 2, 2)
    >>> probability = torch.full((1, 2, 1), 0.5)
    >>> switch_choice(None, (), (dispatch, probability, logits)).chosen.tolist()
    [[1], [-1]]
    """
    dispatch, probability, logits = _three(module, output)
    is_served = dispatch.sum(dim=-1, keepdim=True) > 0
    chosen = dispatch.argmax(dim=-1, keepdim=True).masked_fill(~is_served, -1)
    weights = probability.masked_fill(~is_served, 0)
    probabilities = logits.float().softmax(dim=-1)
    return Choice(
        _one_row_a_token(chosen), _one_row_a_token(weights), _one_row_a_token(probabilities)
    )


def _three(module: Any, output: Any) -> tuple[Any, Any, Any]:
    """The three tensors that a router of transformers 5 returns."""
    if isinstance(output, tuple) and len(output) == 3:
        return output
    shown = f"{len(output)} values" if isinstance(output, tuple) else f"a {type(output).__name__}"
    raise ValueError(
        f"{type(module).__name__} returned {shown}, not three: its layout is not that of "
        f"transformers {TRANSFORMERS}; pass routers={{name: extract}} with an extractor for it"
    )


def _one_row_a_token(tensor: Any) -> Any:
    """(B * L, ...) for (B, L, ...)."""
    return tensor.reshape(-1, tensor.shape[-1])


# --- the models that are known ---


@dataclass(frozen=True)
class Family:
    """A kind of model whose routers are known.

    >>> [family.router for family in MODEL_FAMILIES if family.name == "Mixtral"]
    ['MixtralTopKRouter']
    """

    name: str
    router: str
    """class of its router modules"""
    choice: Extractor
    """how to read their output"""
    probabilities: str = "softmax of the logits"
    """what the probabilities of a `Choice` are"""


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


# --- recording ---


def record_routing(
    model: Any,
    statistics: RouterStatistics | None = None,
    *,
    routers: Mapping[str, Extractor] | None = None,
    n_domains: int = 0,
    n_positions: int = 0,
    n_tokens: int = 0,
    n_kept: int = 1024,
    seed: int = 0,
) -> RoutingRecorder:
    """A context manager that runs a transformers model and adds up what its routers choose::

        with record_routing(model, n_domains=2) as recorder:
            recorder(**tokenizer(texts, return_tensors="pt", padding=True), domain=domains)
        report = routing_report(recorder.statistics)

    `statistics` to add to, or None: new ones with the sizes given here (0 = not kept; `n_tokens` is
    the size of the vocabulary, `n_kept` how many sequences the null may permute). `routers` maps
    names of modules to extractors `extract(module, arguments, output) -> Choice`, for routers that
    are not in `MODEL_FAMILIES`. Raises ValueError where no router is found.

    A model of one's own, whose gate looks up the logits of four experts:

    >>> import torch
    >>> class Toy(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.gate = torch.nn.Embedding(10, 4)
    ...     def forward(self, input_ids):
    ...         return self.gate(input_ids)
    >>> def extract(module, arguments, logits):
    ...     return Choice(logits.flatten(0, 1).topk(2).indices)
    >>> statistics = RouterStatistics(n_experts=4, n_chosen=2)
    >>> with record_routing(Toy(), statistics, routers={"gate": extract}) as recorder:
    ...     logits = recorder(input_ids=[[1, 2, 3]])
    >>> int(statistics.layers["gate"].slots.sum())
    6
    """
    found = _find_routers(model, {} if routers is None else routers)
    if statistics is None:
        n_experts, n_chosen = _experts_of(model, list(found))
        statistics = RouterStatistics(
            n_experts,
            n_chosen,
            n_domains=n_domains,
            n_positions=n_positions,
            n_tokens=n_tokens,
            n_kept=n_kept,
            seed=seed,
        )
    return RoutingRecorder(model, statistics, found)


class RoutingRecorder:
    """Made by `record_routing`. Within `with`, hooks sit on the routers and the model is in
    evaluation mode.

    On leaving, also by an exception, the hooks are gone and every module is back in the mode that
    it was in.
    """

    statistics: RouterStatistics
    """what has been recorded"""
    layers: dict[str, Layer]
    """names of layers in it, by the names of router modules: the number in the module's path where
    it tells the layers apart, else the path"""

    def __init__(self, model: Any, statistics: RouterStatistics, routers: Mapping[str, Extractor]):
        self.model = model
        self.statistics = statistics
        self.layers = _layer_names(list(routers))
        self._routers = routers
        self._handles: list[Any] = []
        self._modes: dict[Any, bool] = {}
        # choices of the running call by the name of their router; None outside of a call
        self._seen: list[tuple[str, Choice]] | None = None
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

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        for module, training in self._modes.items():
            module.training = training
        self._handles = []
        self._modes = {}

    def __call__(self, *, domain: Any = None, sequence: Any = None, **inputs: Any) -> Any:
        """Run the model on one batch without gradients, add its routing to `statistics`, return the
        model's output.

        inputs   what the model takes: `input_ids` (B, L), and `attention_mask` (B, L) where there
                 is padding; `decoder_input_ids` and `decoder_attention_mask` for a model with a
                 decoder of its own
        domain   one integer, one a sequence (B,), or one a token (B, L)
        sequence the like; by default each row of each batch is a sequence of its own, numbered
                 through

        Positions count the tokens of a row that are not padding, or are `position_ids` where they
        are given. Nothing is added when the model fails. Calls of the model past the recorder are
        not recorded. Raises ValueError outside of `with`, and for labels of another shape.
        """
        import torch

        if not self._handles:
            raise ValueError(
                "the recorder is not in use; call it inside `with record_routing(model) as "
                "recorder:`"
            )
        device = next(self.model.parameters()).device
        inputs = {name: _as_tensor(value, device) for name, value in inputs.items()}
        sides = {self._side(name) for name in self._routers} | {""}
        labels = {side: self._labels(inputs, side, domain, sequence) for side in sides}
        self._seen = []
        try:
            with torch.no_grad():
                output = self.model(**inputs)
            updates = [
                (name, _as_update(name, choice, labels[self._side(name)]))
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
        self._n_sequences += _batch_shape(inputs, "")[0]
        return output

    def _hook(self, name: str, extract: Extractor) -> Callable[[Any, Any, Any], None]:
        """A forward hook that keeps what the router at `name` chose, as arrays."""

        def hook(module: Any, arguments: Any, output: Any) -> None:
            if self._seen is None:
                return
            choice = extract(module, arguments, output)
            if not isinstance(choice, Choice):
                raise ValueError(
                    f"the extractor of {name} returned {type(choice).__name__}; allowed is a Choice"
                )
            chosen = _to_numpy(choice.chosen)
            weights = _to_numpy(choice.weights)
            probabilities = _to_numpy(choice.probabilities)
            self._seen.append((name, Choice(chosen, weights, probabilities)))

        return hook

    def _side(self, name: str) -> str:
        """Prefix of the inputs that the router at `name` sees: the decoder of an encoder-decoder
        has its own."""
        config = getattr(self.model, "config", None)
        has_two_sides = getattr(config, "is_encoder_decoder", False)
        return "decoder_" if has_two_sides and "decoder" in name.split(".") else ""

    def _labels(
        self, inputs: Mapping[str, Any], side: str, domain: Any, sequence: Any
    ) -> dict[str, np.ndarray]:
        """What is known of each token of a batch, one array (B * L,) a label."""
        batch_shape = _batch_shape(inputs, side)
        rows, length = batch_shape
        mask = _mask(inputs, side, batch_shape)
        if sequence is None:
            sequence = np.arange(self._n_sequences, self._n_sequences + rows)
        labels = {
            "sequence": _one_a_token(sequence, "sequence", batch_shape),
            "mask": mask[:, -length:].ravel(),
        }
        if domain is not None:
            labels["domain"] = _one_a_token(domain, "domain", batch_shape)
        if self.statistics.n_positions:
            position = None if side else inputs.get("position_ids")
            if position is None:
                counted = np.maximum(mask.cumsum(axis=1) - 1, 0)
                position = counted[:, -length:]
            labels["position"] = _one_a_token(position, "position_ids", batch_shape)
        if self.statistics.n_tokens:
            name = f"{side}input_ids"
            if inputs.get(name) is None:
                raise ValueError(
                    f"statistics of tokens (n_tokens) need {name}, not {side}inputs_embeds"
                )
            labels["token"] = _one_a_token(inputs[name], name, batch_shape)
        return labels


# --- finding the routers of a model ---


def _find_routers(model: Any, own: Mapping[str, Extractor]) -> dict[str, Extractor]:
    """Extractor of each router module by the module's name, in the model's order."""
    if not hasattr(model, "named_modules"):
        raise ValueError(
            f"model is a {type(model).__name__}; allowed is a torch module of transformers"
        )
    modules = dict(model.named_modules())
    unknown = sorted(set(own) - set(modules))
    if unknown:
        raise ValueError(
            f"routers names {unknown}, which the model has not; it has, for one, "
            f"{list(modules)[-1]!r}"
        )
    known = {family.router: family.choice for family in MODEL_FAMILIES}
    found = {}
    for name, module in modules.items():
        kind = type(module).__name__
        if name in own:
            found[name] = own[name]
        elif kind in known:
            found[name] = known[kind]
    if not found:
        raise ValueError(_no_router_found(model, list(modules)))
    return found


def _no_router_found(model: Any, names: list[str]) -> str:
    usual = ("gate", "router", "block_sparse_moe")
    near = [name for name in names if name.split(".")[-1] in usual]
    hint = f"; modules here that may be routers: {near[:3]}" if near else ""
    families = ", ".join(family.name for family in MODEL_FAMILIES)
    return (
        f"no known router in {type(model).__name__}. Known are those of {families}, as "
        f"transformers {TRANSFORMERS} builds them{hint}. For another model pass "
        "routers={'path.of.router': extract}, or give arrays of your own to "
        "RouterStatistics.update(layer, chosen=..., weights=..., probabilities=...)"
    )


def _experts_of(model: Any, names: list[str]) -> tuple[int, int]:
    """Numbers of experts and of chosen ones, (E, k), as the router modules say."""
    modules = [model.get_submodule(name) for name in names]
    sizes: set[tuple[Any, Any]] = {
        (getattr(module, "num_experts", None), getattr(module, "top_k", 1)) for module in modules
    }
    if len(sizes) > 1 or any(n_experts is None for n_experts, _ in sizes):
        raise ValueError(
            f"routers say that they have (experts, chosen) = {sorted(sizes, key=str)}; where they "
            "do not all say the same, pass statistics=RouterStatistics(n_experts, n_chosen)"
        )
    return sizes.pop()


def _layer_names(names: list[str]) -> dict[str, Layer]:
    """The number in each path where paths differ in that alone, else the paths themselves."""
    parts = [name.split(".") for name in names]
    numbers = [[int(part) for part in path if part.isdigit()] for path in parts]
    shapes = {tuple("*" if part.isdigit() else part for part in path) for path in parts}
    first_numbers = {path[0] for path in numbers if path}
    if len(shapes) == 1 and len(first_numbers) == len(names):
        return {name: path[0] for name, path in zip(names, numbers)}
    return {name: name for name in names}


# --- the labels of a batch, and arrays from tensors ---


def _as_tensor(value: Any, device: Any) -> Any:
    """Lists and arrays as tensors, tensors moved to the device, anything else as it is."""
    import torch

    if isinstance(value, (list, np.ndarray)):
        value = torch.as_tensor(np.asarray(value))
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _to_numpy(value: Any) -> Any:
    """A tensor as an array; arrays and None as they are."""
    if value is None or isinstance(value, np.ndarray):
        return value
    value = value.detach()
    if value.is_floating_point():
        value = value.float()  # numpy knows no bfloat16
    return value.cpu().numpy()


def _batch_shape(inputs: Mapping[str, Any], side: str) -> tuple[int, int]:
    """(B, L), rows and length, of the tokens of one side of the model."""
    for name in ("input_ids", "inputs_embeds"):
        tokens = inputs.get(side + name)
        if tokens is not None:
            rows, length = tokens.shape[:2]
            return rows, length
    raise ValueError(
        f"neither {side}input_ids nor {side}inputs_embeds is among the inputs {sorted(inputs)}"
    )


def _mask(inputs: Mapping[str, Any], side: str, batch_shape: tuple[int, int]) -> np.ndarray:
    """True where a token counts; longer than the batch where the model keeps earlier tokens in a
    cache."""
    mask = inputs.get(f"{side}attention_mask")
    if mask is None:
        return np.ones(batch_shape, bool)
    mask = _to_numpy(mask) > 0
    rows, length = batch_shape
    if mask.ndim != 2 or mask.shape[0] != rows or mask.shape[1] < length:
        raise ValueError(
            f"{side}attention_mask has shape {mask.shape}; allowed is {batch_shape}, 0 where there "
            "is padding"
        )
    return mask


def _one_a_token(labels: Any, name: str, batch_shape: tuple[int, int]) -> np.ndarray:
    """One integer a token (B * L,), from one in all, one a sequence (B,) or one a token (B, L)."""
    if hasattr(labels, "detach"):
        labels = _to_numpy(labels)
    labels = np.asarray(labels)
    rows, length = batch_shape
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {labels.dtype}; allowed are integers")
    if labels.shape == (rows,):
        labels = labels[:, None]
    elif labels.shape not in ((), batch_shape, (1, length)):
        raise ValueError(
            f"{name} has shape {labels.shape}; allowed is ({rows},), one a sequence, or "
            f"{batch_shape}"
        )
    return np.broadcast_to(labels, batch_shape).ravel()


def _as_update(name: str, choice: Choice, labels: dict[str, np.ndarray]) -> dict[str, Any]:
    """Keywords of `RouterStatistics.update` for one call of a router."""
    n_tokens = len(labels["mask"])
    if len(choice.chosen) != n_tokens:
        raise ValueError(
            f"{name} saw {len(choice.chosen)} tokens in one call, the batch has {n_tokens} with "
            "padding; models that route in chunks need smaller batches or an extractor of their own"
        )
    return {
        "chosen": choice.chosen,
        "weights": choice.weights,
        "probabilities": choice.probabilities,
        **labels,
    }
