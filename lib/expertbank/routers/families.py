"""Which modules of a transformers model choose experts, and how to read their choice.

Nearly every mixture of experts in transformers calls a module named `experts` with (hidden (n, h),
top_k_index (n, k), top_k_weights (n, k)): there the choice is read off the call, whatever the
router computed. The rest have extractors of their own. Nothing is chosen again here: a router's
logits do not tell its choice, since DeepSeek-V3 takes the top k of sigmoid scores plus a bias and
Switch drops what exceeds an expert's capacity. transformers itself is never imported.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRANSFORMERS = "5.23.0"  # the version whose modules the families below were checked against
OLDEST = (5, 0)  # before it, routers are loops over experts inside of the block
# what a module of transformers calls its number of experts, the most telling first
_SIZES = ("total_experts", "num_experts", "num_local_experts", "n_routed_experts")
_CHOSEN = ("top_k", "num_experts_per_tok", "top_k_experts", "moe_k", "moe_topk")
# what wrappers put into the path of a module: DataParallel, DDP, PEFT, compile, FSDP, checkpoint
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:base_model\.model|module|_orig_mod|_fsdp_wrapped_module"
    r"|_checkpoint_wrapped_module|modules_to_save\.\w+|base_layer)(?:\.|$)"
)


@dataclass(frozen=True)
class Choice:
    """What one router chose for n tokens of a batch, sequence by sequence: tensors or arrays, on
    any device.

    >>> Choice(chosen=[[0, 2], [1, -1]]).weights is None
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

# --- probabilities from what a router puts out ---


def _softmax(logits: Any) -> Any:
    return logits.softmax(dim=-1)


def _sigmoid(logits: Any) -> Any:
    return logits.sigmoid()


def _root_softplus(logits: Any) -> Any:
    return logits.exp().log1p().where(logits < 20, logits).sqrt()


SOFTMAX = "softmax"  # sums to 1 by itself
# the functions of logits that routers of transformers score experts by
SCORES: dict[str, Callable[[Any], Any]] = {
    SOFTMAX: _softmax,
    "sigmoid": _sigmoid,
    "root of softplus": _root_softplus,
}

AS_THEY_ARE = "none"  # in place of such a function


def are_probabilities(rows: Any) -> bool:
    """Whether rows (n, E) are >= 0 and sum to 1: a softmax was taken of them already.

    >>> import torch
    >>> are_probabilities(torch.tensor([[0.5, 0.5]])), are_probabilities(torch.zeros(1, 2))
    (True, False)
    """
    slack = 1e-4 if rows.element_size() > 2 else 2e-2
    off = (rows.float().sum(dim=-1) - 1).abs()
    return bool(((rows >= 0).all() & (off <= slack).all()).item())


def scores_by_weights(logits: Any, chosen: Any, weights: Any) -> str | None:
    """Of which function of the logits (n, E) the weights (n, k) of the chosen experts are a
    multiple, token by token; None where that cannot be told.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]])
    >>> weights, chosen = logits.sigmoid().topk(2)
    >>> scores_by_weights(logits, chosen, 2.5 * weights)
    'sigmoid'
    """
    slack = 1e-3 if weights.element_size() > 2 else 3e-2
    spreads = {}
    for name, function in SCORES.items():
        ratio = weights.double() / function(logits.double()).gather(-1, chosen)
        if ratio.shape[-1] == 1:  # one expert a token: tokens are compared
            ratio = ratio.reshape(1, -1)
        ratio = ratio[ratio.isfinite().all(dim=-1) & (ratio > 0).all(dim=-1)]
        if not len(ratio):
            return None
        spreads[name] = float((ratio.amax(dim=-1) / ratio.amin(dim=-1) - 1).max())
    best, second = sorted(spreads, key=lambda name: spreads[name])[:2]
    return best if spreads[best] <= slack < spreads[second] else None


def as_probabilities(rows: Any, scores: str) -> Any:
    """Probabilities (n, E) of what a router put out: scores of the logits over their sum, or the
    rows themselves where `scores` is `AS_THEY_ARE`.

    >>> import torch
    >>> as_probabilities(torch.zeros(1, 4), "sigmoid").tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    if scores == AS_THEY_ARE:
        return rows
    found = SCORES[scores](rows.float())
    return found if scores == SOFTMAX else found / found.sum(dim=-1, keepdim=True)


def _probabilities(rows: Any, scores: str) -> Any:
    """The same, where rows that are probabilities already are told by themselves."""
    return as_probabilities(rows, AS_THEY_ARE if are_probabilities(rows) else scores)


# --- extractors ---


def softmax_choice(module: Any, arguments: Any, output: Any) -> Choice:
    """Of a router that returns (logits (n, E), weights (n, k), experts (n, k)); probabilities:
    softmax of the logits, or the logits where they are probabilities.

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
    logits, weights, chosen = _several(module, output, 3)
    return Choice(chosen, weights, _probabilities(logits, "softmax"))


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
    logits, weights, chosen = _several(module, output, 3)
    return Choice(chosen, weights, _probabilities(logits, "sigmoid"))


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
    dispatch, probability, logits = _several(module, output, 3)
    if dispatch.shape != logits.shape or probability.shape != (*logits.shape[:-1], 1):
        raise ValueError(
            f"{type(module).__name__} returned shapes {[tuple(x.shape) for x in output]}; allowed "
            f"are those of transformers {TRANSFORMERS}: pass an extractor for it"
        )
    is_served = dispatch.sum(dim=-1, keepdim=True) > 0
    chosen = dispatch.argmax(dim=-1, keepdim=True).masked_fill(~is_served, -1)
    weights = probability.masked_fill(~is_served, 0)
    probabilities = _probabilities(logits, "softmax")
    return Choice(
        _one_row_a_token(chosen), _one_row_a_token(weights), _one_row_a_token(probabilities)
    )


def nllb_choice(module: Any, arguments: Any, output: Any) -> Choice:
    """Of NLLB's router: (mask (n, E) of first choices, combining weights (n, E), logits (n, E)).

    The two experts of a token are those with a weight; -1 where the capacity left it fewer.

    >>> import torch
    >>> weights = torch.tensor([[0.0, 0.75, 0.25], [1.0, 0.0, 0.0]])
    >>> nllb_choice(None, (), (weights > 0.5, weights, torch.zeros(2, 3))).chosen.tolist()
    [[1, 2], [0, -1]]
    """
    _, combining, logits = _several(module, output, 3)
    weights, chosen = combining.topk(2, dim=-1)
    probabilities = _probabilities(logits, "softmax")
    return Choice(chosen.masked_fill(weights <= 0, -1), weights, probabilities)


def llama4_choice(module: Any, arguments: Any, output: Any) -> Choice:
    """Of Llama 4's router: (scores (n, E), 0 for experts not chosen, logits (n, E)). The scores
    multiply what the experts get, not what they give.

    >>> import torch
    >>> class Router:
    ...     top_k = 1
    >>> logits = torch.tensor([[0.0, 2.0]])
    >>> llama4_choice(Router, (), (logits.sigmoid(), logits)).chosen.tolist()
    [[1]]
    """
    scores, logits = _several(module, output, 2)
    chosen = logits.topk(module.top_k, dim=-1).indices
    return Choice(chosen, scores.gather(-1, chosen), _probabilities(logits, "sigmoid"))


def jetmoe_choice(module: Any, arguments: Any, output: Any) -> Choice:
    """Of JetMoE's gating, which sorts slots by expert: (slots (n k,), tokens (n k,), weights (n
    k,), slots of each expert, logits (n, E)).

    >>> import torch
    >>> class Gating:
    ...     top_k = 1
    >>> slots = torch.tensor([1, 0])  # the second token's comes first
    >>> output = (slots, slots, torch.tensor([0.9, 0.8]), [1, 1], torch.zeros(2, 2))
    >>> jetmoe_choice(Gating, (), output).chosen.tolist()
    [[1], [0]]
    """
    slots, _, sorted_weights, sizes, logits = _several(module, output, 5)
    experts = slots.new_tensor([i for i, size in enumerate(sizes) for _ in range(size)])
    chosen = slots.new_empty(len(slots)).index_copy(0, slots, experts)
    weights = sorted_weights.new_empty(len(slots)).index_copy(0, slots, sorted_weights.detach())
    k = module.top_k
    return Choice(chosen.view(-1, k), weights.view(-1, k), _probabilities(logits, "softmax"))


def doge_choice(module: Any, arguments: Any, output: Any) -> Choice:
    """Of Doge's block, which adds the scores of two halves of a key: (hidden, logits (2, n, keys)).

    No module is called with the choice, so it is made again from the logits, as the block does.
    Probabilities: softmax over all sums, which is the product of the softmaxes of the halves.

    >>> import torch
    >>> class Block:
    ...     num_keys = 2
    ...     top_k = 1
    ...     norm_topk_prob = False
    >>> logits = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    >>> doge_choice(Block, (), (None, logits)).chosen.tolist()
    [[2]]
    """
    _, logits = _several(module, output, 2)
    keys = module.num_keys
    (first, second), (row, column) = logits.topk(keys, dim=-1)
    sums = (first.unsqueeze(-1) + second.unsqueeze(-2)).flatten(-2)
    experts = (row.unsqueeze(-1) * keys + column.unsqueeze(-2)).flatten(-2)
    scores, place = sums.topk(module.top_k, dim=-1)
    halves = logits.float().softmax(dim=-1)
    probabilities = (halves[0].unsqueeze(-1) * halves[1].unsqueeze(-2)).flatten(-2)
    return Choice(experts.gather(-1, place), scores.softmax(dim=-1), probabilities)


def zaya_choice(module: Any, arguments: Any, output: Any) -> Choice:
    """Of ZAYA's router: (logits (n, E + 1), weights (n, 1), experts (n, 1), states). The last class
    computes nothing; the block gives its tokens to expert 0 with weight 0.

    Here it is expert E, with the weight that the router gave it.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 0.0, 9.0]])
    >>> zero = torch.zeros(1, 1)
    >>> zaya_choice(None, (), (logits, zero, zero.long(), None)).chosen.tolist()
    [[2]]
    """
    logits, weights, experts, _ = _several(module, output, 4)
    probabilities = _probabilities(logits, "softmax")
    is_skipped = weights == 0
    chosen = experts.masked_fill(is_skipped, logits.shape[-1] - 1)
    own = probabilities.gather(-1, chosen).to(weights.dtype)
    return Choice(chosen, weights.where(~is_skipped, own), probabilities)


def _several(module: Any, output: Any, n: int) -> tuple[Any, ...]:
    """The n values that a router of transformers 5 returns."""
    if isinstance(output, tuple) and len(output) == n:
        return output
    shown = f"{len(output)} values" if isinstance(output, tuple) else f"a {type(output).__name__}"
    raise ValueError(
        f"{type(module).__name__} returned {shown}, not {n}: its layout is not that of "
        f"transformers {TRANSFORMERS}; pass routers={{name: extract}} with an extractor for it"
    )


def _one_row_a_token(tensor: Any) -> Any:
    """(B * L, ...) for (B, L, ...)."""
    return tensor.reshape(-1, tensor.shape[-1])


# --- the families that are known ---


@dataclass(frozen=True)
class Family:
    """A kind of model whose choices were compared with what its experts were called with.

    >>> [family.router for family in MODEL_FAMILIES if family.name == "mixtral"]
    ['experts']
    """

    name: str
    """the model type of transformers"""
    router: str = "experts"
    """class of the module that is heard; `experts` where it is the call of that module"""
    choice: Extractor | None = None
    """how to read its output; None for a call of `experts`"""
    probabilities: str = "softmax of the logits"
    """what the probabilities of a `Choice` are"""
    scores: str = "softmax"
    """of which function of the logits"""


_OVER_SUM = "sigmoid scores over their sum, without the bias"
# by the call of `experts`; the scores are those that their weights turned out to be multiples of
_BY_SOFTMAX = (
    "aria cohere2_moe dbrx deepseek_ocr2 deepseek_v2 ernie4_5_moe ernie4_5_vl_moe flex_olmo "
    "gpt_oss granitemoe granitemoe_swa granitemoehybrid granitemoeshared hunyuan_v1_moe jamba "
    "longcat_flash mellum minimax mistral4 mistral_large4 mixtral olmoe openai_privacy_filter "
    "phimoe qwen2_moe qwen3_5_moe qwen3_moe qwen3_next qwen3_omni_moe qwen3_vl_moe qwen4_exp "
    "unlimited_ocr"
)
_BY_SIGMOID = (
    "afmoe axk1 axk2 bailing_hybrid beam deepseek_v3 deepseek_v32 dots1 dots3_note exaone_moe "
    "flint glm4_moe glm4_moe_lite glm4v_moe glm5_next glm_moe_dsa hy_v3 hy_v4 inkling inkling2 "
    "kimi_linear kolibri1 laguna lfm2_moe mimo_v2_flash minimax_m2 minimax_m3_vl muse_spark "
    "nemotron_h solar_open step3p7"
)
_READY = "as the router puts them out"
_OWN = (
    Family("doge", "DogeCDMoE", doge_choice, "product of the softmaxes of both halves of a key"),
    Family("jetmoe", "JetMoeTopKGating", jetmoe_choice),
    Family("llama4", "Llama4Router", llama4_choice, "sigmoid scores over their sum", "sigmoid"),
    Family("nllb_moe", "NllbMoeTop2Router", nllb_choice),
    Family("switch_transformers", "SwitchTransformersTop1Router", switch_choice),
    Family("zaya", "ZayaRouter", zaya_choice, "softmax of the logits, skipping included"),
)
_BY_CALL = (
    *(Family(name) for name in _BY_SOFTMAX.split()),
    *(Family(name, probabilities=_OVER_SUM, scores="sigmoid") for name in _BY_SIGMOID.split()),
    *(Family(name, probabilities=_READY) for name in ("diffusion_gemma", "gemma4")),
    Family(
        "deepseek_v4",
        probabilities="roots of softplus over their sum, without the bias",
        scores="root of softplus",
    ),
)
MODEL_FAMILIES = tuple(sorted((*_BY_CALL, *_OWN), key=lambda family: family.name))
"""Families that were built and compared, one test each"""
_KNOWN = {family.name: family for family in MODEL_FAMILIES}
_EXTRACTORS = {family.router: family for family in _OWN}
# modules of experts that run only where the batch holds what they are for
_OPTIONAL = ("vision_moe",)
# what looks like a mixture in the source of transformers and has no router of tokens
NO_ROUTER = {
    "bamba": "its configuration names experts, its layers have none",
    "vitpose_backbone": "the caller names the expert of each image",
}


def families_of(folder: Path | None = None) -> Iterator[tuple[str, str, str]]:
    """Of each family of mixtures in transformers: its name, `verified`, `by form` or `not`, and
    what its probabilities are or why not.

    `folder` holds the sources of models; None is that of the transformers installed, or what is
    known of `TRANSFORMERS` where none is.

    >>> found = {name: how for name, how, _ in families_of()}
    >>> found["mixtral"], found["bamba"]
    ('verified', 'not')
    """
    spec = None if folder is not None else importlib.util.find_spec("transformers")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "models"
    if folder is None:
        known = {family.name: ("verified", family.probabilities) for family in MODEL_FAMILIES}
        known |= {name: ("not", reason) for name, reason in NO_ROUTER.items()}
        yield from ((name, *known[name]) for name in sorted(known))
        return
    for path in sorted(folder.glob("*/modeling_*.py")):
        text = path.read_text("utf-8")
        name = path.parent.name
        if name in _KNOWN:
            yield name, "verified", _KNOWN[name].probabilities
        elif name in NO_ROUTER:
            yield name, "not", NO_ROUTER[name]
        elif re.search(r"self\.experts\([^,()]+, [^,()]+, [^,()]+\)", text):
            yield name, "by form", "as the weights tell, else none"
        elif re.search(r"class \w*(Router|Gating|Experts)\b", text) and "num_experts" in text:
            yield name, "not", "its experts are not called with a choice"


# --- finding what to listen to ---


@dataclass(frozen=True)
class Listener:
    """One module that is heard: where it is and how its choice is read.

    >>> Listener("mlp", "mlp.experts").how
    'by form'
    """

    layer: str
    """path of the block, or of the router where an extractor reads it; without wrappers"""
    path: str
    """path of the module in the model"""
    extract: Extractor | None = None
    """None: the call of the module is the choice"""
    router: str | None = None
    """path of the module that puts out logits, beside it"""
    family: Family | None = None
    """what was compared; None for one that is known by its form alone"""
    is_own: bool = False
    """whether the caller gave the extractor"""
    n_experts: int | None = None
    n_chosen: int | None = None

    @property
    def how(self) -> str:
        """`verified`, `by form` or `own extractor`."""
        if self.is_own:
            return "own extractor"
        return "by form" if self.family is None else "verified"

    @property
    def is_optional(self) -> bool:
        """Whether a batch may leave it out."""
        return any(part in _OPTIONAL for part in self.layer.split("."))


def find_listeners(model: Any, own: Mapping[str, Extractor] | None = None) -> list[Listener]:
    """What to listen to in a model, in the model's order; `own` maps names of modules to
    extractors. Raises ValueError where there is nothing, or `own` names what is not there.

    >>> import torch
    >>> class Experts(torch.nn.Module):
    ...     num_experts = 4
    ...     def forward(self, hidden, top_k_index, top_k_weights):
    ...         return hidden
    >>> block = torch.nn.ModuleDict({"experts": Experts()})
    >>> [(found.layer, found.how, found.n_experts) for found in find_listeners(block)]
    [('experts', 'by form', 4)]
    """
    own = {} if own is None else own
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
    found = []
    for path, module in modules.items():
        kind = type(module).__name__
        if path in own:
            found.append(_listener(modules, path, path, extract=own[path], is_own=True))
        elif kind in _EXTRACTORS:
            family = _EXTRACTORS[kind]
            found.append(_listener(modules, path, path, extract=family.choice, family=family))
        elif path.rpartition(".")[2] == "experts" and _takes_a_choice(module):
            parent = path.rpartition(".")[0]
            router = _router_beside(modules, parent)
            is_read_at_router = router is not None and (
                router in own or type(modules[router]).__name__ in _EXTRACTORS
            )
            if not is_read_at_router:
                family = family_of(module)
                found.append(_listener(modules, parent, path, router=router, family=family))
    if not found:
        raise ValueError(_nothing_found(model, list(modules)))
    return found


def _listener(
    modules: Mapping[str, Any],
    block: str,
    path: str,
    *,
    extract: Extractor | None = None,
    router: str | None = None,
    family: Family | None = None,
    is_own: bool = False,
) -> Listener:
    """A listener, with the sizes that its modules or their configurations tell."""
    module = modules[path]
    near = [module, modules.get(path.rpartition(".")[0], module)]
    if router is not None:
        near.insert(0, modules[router])
    configs = [module.config for module in modules.values() if hasattr(module, "config")]
    if extract is zaya_choice:
        n_experts = module.num_router_classes
    else:
        n_experts = _first_of([*module.modules(), *near], _SIZES)
    # routers of one expert, and NLLB's of two, name no number of their choices
    if extract is switch_choice:
        n_chosen = 1
    elif extract is nllb_choice:
        n_chosen = 2
    else:
        n_chosen = _first_of([*near, *reversed(configs)], _CHOSEN)
    layer = _WRAPPERS.sub("", block).rstrip(".")
    return Listener(
        layer if layer else path, path, extract, router, family, is_own, n_experts, n_chosen
    )


def _first_of(objects: list[Any], names: tuple[str, ...]) -> int | None:
    """The first of these attributes that one of the objects has as a number."""
    for thing in objects:
        for name in names:
            value = getattr(thing, name, None)
            if isinstance(value, int) and value > 0:
                return value
    return None


def _takes_a_choice(module: Any) -> bool:
    """Whether a module can be called with (hidden, top_k_index, top_k_weights): wrappers can with
    anything."""
    parameters = inspect.signature(module.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return True
    return len([p for p in parameters if p.kind is not p.VAR_KEYWORD]) >= 3


def _router_beside(modules: Mapping[str, Any], parent: str) -> str | None:
    """The path of the router of a block of experts."""
    for name in ("gate", "router"):
        path = f"{parent}.{name}" if parent else name
        if path in modules:
            return path
    return None


def family_of(module: Any) -> Family | None:
    """The verified family that a module of transformers belongs to.

    >>> import torch
    >>> family_of(torch.nn.Identity()) is None
    True
    """
    return _KNOWN.get(_folder_of(module))


def scores_of(family: Family | None, rows: Any, chosen: Any, weights: Any) -> str | None:
    """Of which function of what a router puts out, (n, E), the probabilities are multiples: known
    of the family, else told by the weights (n, k); None where it cannot be told.

    >>> import torch
    >>> scores_of(None, torch.tensor([[0.75, 0.25]]), torch.tensor([[0]]), torch.ones(1, 1))
    'none'
    """
    if are_probabilities(rows):
        return AS_THEY_ARE
    if family is not None:
        return family.scores
    return scores_by_weights(rows, chosen, weights)


def _folder_of(module: Any) -> str:
    """The model type that a module of transformers belongs to; looks into wrappers."""
    for part in module.modules():
        parts = type(part).__module__.split(".")
        if parts[:2] == ["transformers", "models"]:
            return parts[2]
    return ""


def _nothing_found(model: Any, names: list[str]) -> str:
    usual = ("gate", "router", "block_sparse_moe")
    near = [name for name in names if name.split(".")[-1] in usual]
    hint = f"; modules here that may be routers: {near[:3]}" if near else ""
    return (
        f"no known router in {type(model).__name__}: no module named experts that is called with "
        f"(hidden, top_k_index, top_k_weights), and none of {', '.join(_EXTRACTORS)}{hint}. For "
        "another model pass routers={'path.of.router': extract}, or give arrays of your own to "
        "RouterStatistics.update(layer, chosen=..., weights=..., probabilities=...)"
    )
