"""Listen to the routers of a model while it runs, by hooks: a forward, generation, training.

A pre-hook on each module named `experts` sees what it is called with; routers that call none have
extractors (`expertbank.routers.families`). A forward of the model, whoever calls it, is one batch:
all of its layers are counted or none. What is recomputed in a backward pass is outside of any
forward and counts once. torch is imported only when a model is run, transformers never.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expertbank.routers._calls import (
    CACHES,
    Call,
    around,
    call_of,
    device_of,
    entries,
    evaluated,
    is_inside,
    one_a_token,
    to_array,
)
from expertbank.routers._together import FEW
from expertbank.routers.families import (
    MODEL_FAMILIES,
    OLDEST,
    TRANSFORMERS,
    Choice,
    Extractor,
    Family,
    Listener,
    as_probabilities,
    find_listeners,
    scores_of,
    sigmoid_choice,
    softmax_choice,
    switch_choice,
)
from expertbank.routers.measures import routing_counts
from expertbank.routers.statistics import Layer, RouterStatistics

__all__ = [
    "MODEL_FAMILIES",
    "TRANSFORMERS",
    "Choice",
    "Extractor",
    "Family",
    "RoutingRecorder",
    "record_routing",
    "sigmoid_choice",
    "softmax_choice",
    "switch_choice",
]

ID_BITS = 62  # of the number of a sequence
# bits that one recorder may count up to before its numbers may meet those of another
OWN_BITS = 30
OURS = ("domain", "sequence", "phase")
# labels that one listener took from a call, for others of the same module, by thread and module
TAKEN: dict[tuple[int, int], dict[str, Any]] = {}


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
    first_sequence: int | None = None,
) -> RoutingRecorder:
    """A context manager that adds up what the routers of a model choose, in every forward inside::

        with record_routing(model, n_domains=2) as recorder:
            with recorder.labels(domain=domains):
                model.generate(**tokenizer(texts, return_tensors="pt", padding=True))
        report = routing_report(recorder.statistics)

    `statistics` to add to, or None: new ones with the sizes given here (0 = not kept; `n_tokens` is
    the size of the vocabulary, `n_kept` how many sequences the null may permute). `routers` maps
    names of modules to extractors `extract(module, arguments, output) -> Choice`, for routers that
    `find_listeners` does not find. Sequences are numbered from `first_sequence` on; by default from
    a number drawn at random, so that no two recorders, ranks or files share one. Raises ValueError
    where no router is found.

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
    >>> model = Toy()
    >>> with record_routing(model, statistics, routers={"gate": extract}):
    ...     logits = model(torch.tensor([[1, 2, 3]]))
    >>> int(statistics.layers["gate"].slots.sum())
    6
    """
    listeners = find_listeners(model, routers)
    _check_version(listeners)
    if statistics is None:
        n_experts, n_chosen = _sizes_of(listeners)
        statistics = RouterStatistics(
            n_experts,
            n_chosen,
            n_domains=n_domains,
            n_positions=n_positions,
            n_tokens=n_tokens,
            n_kept=n_kept,
            seed=seed,
        )
    return RoutingRecorder(model, statistics, listeners, first_sequence)


@dataclass
class _Growing:
    """Sequences that a cache holds, which later forwards go on with."""

    sequence: np.ndarray
    """(B,) their numbers"""
    domain: np.ndarray | None
    """(B,) -1 for unknown"""
    slots: dict[Layer, np.ndarray]
    """by layer, (B, E) that were counted"""


Heard = tuple[Listener, Choice, Call]
"""What a listener heard in a call."""


@dataclass
class _Pass:
    """The forward that runs in one thread: the outermost call, and what was heard inside."""

    labels: dict[str, Any] = field(default_factory=dict)
    cache: Any = None
    goes_on: bool = False
    """whether the cache was there before"""
    calls: list[Call] = field(default_factory=list)
    open_calls: list[Call] = field(default_factory=list)
    logits: dict[str, Any] = field(default_factory=dict)
    choices: list[Heard] = field(default_factory=list)
    sequence: np.ndarray | None = None


class RoutingRecorder:
    """Made by `record_routing`. Within `with`, hooks listen to the model, in whatever mode it is;
    on leaving, also by an exception, they are gone.

    A forward with `domain=`, `sequence=` or `phase=` among its keywords is recorded with these
    labels, which the model does not see; `labels` gives them where the forwards are somebody
    else's. Every row of a batch is a sequence of its own, but for steps of decoding, which belong
    to the sequences and positions of their cache, and rows of packed texts, which `position_ids`
    that start again tell apart. Rows of a beam search are counted as they ran. Threads may run at
    the same time; each forward is counted as a whole. A forward that fails, or is refused, counts
    nowhere.

    **Phase.** Where no label says it, the forward that opens a cache is the prompt, of whatever
    length in each row, and one that goes on with a cache by one token a row generates. Several
    tokens a row that go on may be more of the prompt, in chunks, or guesses of a smaller model: of
    unknown phase, as is a forward without a cache.
    """

    statistics: RouterStatistics
    """what has been recorded"""
    layers: dict[str, Layer]
    """names of layers in it, by the paths of blocks or routers: the number in the path where it
    tells the layers apart, else the path"""

    def __init__(
        self,
        model: Any,
        statistics: RouterStatistics,
        listeners: list[Listener],
        first_sequence: int | None = None,
    ):
        self.model = model
        self.statistics = statistics
        self.listeners = tuple(listeners)
        self.layers = _layer_names([listener.layer for listener in listeners])
        self._handles: list[Any] = []
        self._passes: dict[int, _Pass] = {}
        self._lock = threading.RLock()
        self._given: dict[str, Any] = {}
        self._growing: dict[int, _Growing] = {}
        self._scores: dict[str, str | None] = {}
        if first_sequence is None:
            first_sequence = secrets.randbits(ID_BITS - OWN_BITS) << OWN_BITS
        self._next_sequence = int(first_sequence)

    # --- with ---

    def __enter__(self) -> RoutingRecorder:
        if self._handles:
            raise ValueError("this recorder is in use already; leave its `with` block first")
        modules = dict(self.model.named_modules())
        self._check_not_compiled(modules)
        self._entries = entries(modules)
        for path, names in self._entries.items():
            module = modules[path]
            before = module.register_forward_pre_hook(self._open(path, names), with_kwargs=True)
            after = module.register_forward_hook(self._closed, always_call=True)
            self._handles += [before, after]
        for listener in self.listeners:
            module = modules[listener.path]
            if listener.extract is not None:
                self._handles.append(module.register_forward_hook(self._extracted(listener)))
                continue
            self._handles.append(
                module.register_forward_pre_hook(self._called(listener), with_kwargs=True)
            )
            if listener.router is not None:
                hook = self._put_out(listener.router)
                self._handles.append(modules[listener.router].register_forward_hook(hook))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._passes = {}
        self._growing = {}

    @contextlib.contextmanager
    def labels(
        self, *, domain: Any = None, sequence: Any = None, phase: Any = None
    ) -> Iterator[None]:
        """Labels of the forwards inside, whoever calls them: one integer, one a sequence (B,) or
        one a token (B, L)."""
        before = self._given
        given = {"domain": domain, "sequence": sequence, "phase": phase}
        self._given = {name: label for name, label in given.items() if label is not None}
        try:
            yield
        finally:
            self._given = before

    def __call__(self, *, domain: Any = None, sequence: Any = None, **inputs: Any) -> Any:
        """Run the model on one batch, in evaluation mode and without gradients, and return its
        output; the modes are put back.

        `inputs` are what the model takes: `input_ids` (B, L), and `attention_mask` (B, L) where
        there is padding; lists and arrays become tensors on the model's device. `domain` is one
        integer, one a sequence (B,), or one a token (B, L); `sequence` the like, by default each
        row of each batch is a sequence of its own, numbered through.

        Positions count the tokens of a row that are not padding, or are `position_ids` where they
        are given. Raises ValueError outside of `with`, and for labels of another shape.
        """
        import torch

        if not self._handles:
            raise ValueError(
                "the recorder is not in use; call it inside `with record_routing(model) as "
                "recorder:`"
            )
        device = device_of(self.model)
        inputs = {name: _as_tensor(value, device) for name, value in inputs.items()}
        with (
            evaluated(self.model),
            torch.no_grad(),
            self.labels(domain=domain, sequence=sequence),
        ):
            return self.model(**inputs)

    # --- hooks ---

    def _open(self, path: str, names: tuple[str, ...]) -> Callable[..., Any]:
        """A pre-hook of a module that takes tokens."""

        def hook(module: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
            thread = threading.get_ident()
            running = self._passes.setdefault(thread, _Pass())
            # labels are ours, but for a model that takes such a word itself
            own = {name: keywords[name] for name in OURS if name in keywords and name not in names}
            if own:
                TAKEN[thread, id(module)] = own
            given = {**dict(zip(names, arguments)), **keywords}
            if not running.open_calls:
                running.labels = {**self._given, **TAKEN.get((thread, id(module)), {})}
            for name in CACHES:
                if running.cache is None and given.get(name) is not None:
                    running.cache = given[name]
                    running.goes_on = True
            call = call_of(path, names, given, running.open_calls)
            running.open_calls.append(call)
            running.calls.append(call)
            kept = {name: value for name, value in keywords.items() if name not in own}
            return (arguments, kept) if own else None

        return hook

    def _closed(self, module: Any, arguments: Any, output: Any) -> None:
        """A hook of a module that takes tokens: the outermost counts what was heard."""
        thread = threading.get_ident()
        TAKEN.pop((thread, id(module)), None)
        running = self._passes.get(thread)
        if running is None:
            return
        if running.open_calls:  # none where the call was refused before it began
            running.open_calls.pop()
        if running.open_calls:
            return
        del self._passes[thread]
        if output is None:  # the model failed
            return
        for name in CACHES:
            if running.cache is None and not module.training:
                running.cache = _named(output, name)
        with self._lock:
            self._count(running)

    def _extracted(self, listener: Listener) -> Callable[..., None]:
        """A hook of a module that an extractor reads."""
        extract = listener.extract

        def hook(module: Any, arguments: Any, output: Any) -> None:
            running = self._passes.get(threading.get_ident())
            if running is None or extract is None:
                return
            choice = extract(module, arguments, output)
            if not isinstance(choice, Choice):
                raise ValueError(
                    f"the extractor of {listener.path} returned {type(choice).__name__}; allowed "
                    "is a Choice"
                )
            self._keep(running, listener, choice)

        return hook

    def _put_out(self, path: str) -> Callable[..., None]:
        """A hook of a router whose logits are wanted."""

        def hook(module: Any, arguments: Any, output: Any) -> None:
            running = self._passes.get(threading.get_ident())
            if running is not None:
                first = output[0] if isinstance(output, tuple) else output
                running.logits[path] = first.detach()

        return hook

    def _called(self, listener: Listener) -> Callable[..., None]:
        """A pre-hook of a module of experts."""

        def hook(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
            running = self._passes.get(threading.get_ident())
            if running is None:
                return
            given = [*arguments, *keywords.values()]
            if len(given) < 3 or not _is_a_choice(*given[:3]):
                shown = [tuple(getattr(value, "shape", ())) for value in given]
                raise ValueError(
                    f"{listener.path} was called with shapes {shown}; allowed is (hidden (n, h), "
                    "top_k_index (n, k), top_k_weights (n, k)): pass routers={name: extract} with "
                    "an extractor for it"
                )
            _, chosen, weights, *_ = given
            logits = running.logits.pop(listener.router, None) if listener.router else None
            probabilities = self._probabilities(listener, logits, chosen, weights)
            self._keep(running, listener, Choice(chosen, weights, probabilities))

        return hook

    def _probabilities(self, listener: Listener, logits: Any, chosen: Any, weights: Any) -> Any:
        """Probabilities (n, E) from what the router put out, of scores that are known of the family
        or told by the weights; None where neither is."""
        if logits is None:
            return None
        rows = logits.reshape(-1, logits.shape[-1])
        if len(rows) != len(chosen) or not len(rows):
            return None
        if listener.path not in self._scores:  # looked at once: it waits for the device
            self._scores[listener.path] = scores_of(listener.family, rows, chosen, weights.detach())
        scores = self._scores[listener.path]
        return None if scores is None else as_probabilities(rows, scores)

    def _keep(self, running: _Pass, listener: Listener, choice: Choice) -> None:
        """Keep a choice of the running forward: on its device where it is small, for all layers are
        fetched at once, else as arrays."""
        call = self._call_around(running, listener, len(choice.chosen))
        kept = Choice(_kept(choice.chosen), _kept(choice.weights), _kept(choice.probabilities))
        running.choices.append((listener, kept, call))

    def _call_around(self, running: _Pass, listener: Listener, n_chosen: int) -> Call:
        """The call that a choice belongs to. Raises ValueError where it is of other tokens."""
        call = around(listener.path, running.open_calls)
        call.heard.add(listener.path)
        n_tokens = call.shape[0] * call.shape[1]
        if n_chosen != n_tokens:
            raise ValueError(
                f"{listener.path} saw {n_chosen} tokens in one call, the batch has {n_tokens} with "
                "padding; models that route in chunks need smaller batches or an extractor of "
                "their own"
            )
        return call

    def _check_not_compiled(self, modules: Mapping[str, Any]) -> None:
        """Raise ValueError where compiled code runs around a layer: it passes by later hooks."""
        for path, module in modules.items():
            is_compiled = hasattr(module, "_orig_mod") or (
                getattr(module, "_compiled_call_impl", None) is not None
            )
            inside = [x.path for x in self.listeners if is_inside(x.path, path)]
            if is_compiled and inside:
                raise ValueError(
                    f"{path if path else 'the model'} is compiled, so {inside[0]} would not be "
                    "heard; record the model before `compile`, or what `_orig_mod` holds"
                )

    # --- counting a forward ---

    def _count(self, running: _Pass) -> None:
        """Add a whole forward, or refuse it."""
        self._check_all_heard(running)
        rows = running.calls[0].shape[0]
        growing = self._growing.get(id(running.cache))
        if growing is not None and len(growing.sequence) != rows:
            growing = None
        updates = []
        labels: dict[int, dict[str, Any]] = {}  # by call: layers of one call share them
        running.choices = _as_arrays(running.choices)
        for listener, choice, call in running.choices:
            if id(call) not in labels:
                labels[id(call)] = self._labels(call, running, growing)
            arrays = {
                "chosen": choice.chosen,
                "weights": choice.weights,
                "probabilities": choice.probabilities,
            }
            updates.append((self.layers[listener.layer], {**arrays, **labels[id(call)]}))
        self.statistics.update_layers(updates)
        for listener in self.listeners:
            self.statistics.heard[self.layers[listener.layer]] = listener.how
        if growing is not None:
            self._grow(growing, self._slots_by_row(running))
        elif running.cache is not None:
            self._follow(running, self._slots_by_row(running))

    def _grow(self, growing: _Growing, slots: dict[Layer, np.ndarray]) -> None:
        """Add slots (B, E) of each layer to the sequences of a cache."""
        before = {
            layer: growing.slots.get(layer, np.zeros_like(new)) for layer, new in slots.items()
        }
        self.statistics.add_sequences_of_layers(slots, growing.sequence, growing.domain, before)
        growing.slots |= {layer: before[layer] + new for layer, new in slots.items()}

    def _slots_by_row(self, running: _Pass) -> dict[Layer, np.ndarray]:
        """Slots (B, E) of the rows of a forward in each layer."""
        alike: dict[Any, list[tuple[Layer, np.ndarray, Call]]] = {}
        for listener, choice, call in running.choices:
            entry = (self.layers[listener.layer], choice.chosen, call)
            alike.setdefault((id(call), choice.chosen.shape), []).append(entry)
        slots: dict[Layer, np.ndarray] = {}
        for entries_here in alike.values():
            layers, chosen, calls = zip(*entries_here)
            found = _slots_by_row(np.stack(chosen), calls[0], self.statistics.n_experts)
            for layer, table in zip(layers, found):
                slots[layer] = slots.get(layer, 0) + table
        return slots

    def _check_all_heard(self, running: _Pass) -> None:
        """Raise ValueError where a layer of a module that ran was not heard."""
        ran = {call.path for call in running.calls}
        heard = {path for call in running.calls for path in call.heard}
        inside = [listener for listener in self.listeners if self._entry_of(listener.path) in ran]
        missing = [x.path for x in inside if x.path not in heard and not x.is_optional]
        if missing:
            raise ValueError(
                f"of {len(self.listeners)} layers {', '.join(missing[:5])} were not heard in a "
                "forward: are they compiled, or their gates fused? Nothing of it was counted"
            )
        outermost = running.calls[0].path
        is_around = any(is_inside(listener.path, outermost) for listener in self.listeners)
        if is_around and not heard and outermost == "":
            raise ValueError(
                "the model ran and no router was called: are its layers replaced or compiled?"
            )

    def _entry_of(self, path: str) -> str:
        """The innermost module that takes tokens around another."""
        return max((entry for entry in self._entries if is_inside(path, entry)), key=len)

    def _labels(self, call: Call, running: _Pass, growing: _Growing | None) -> dict[str, Any]:
        """What is known of each token of a call, one array (B * L,) a label; the phase may be one
        number."""
        labels: dict[str, Any] = {"mask": call.mask.ravel()}
        for name, label in running.labels.items():
            labels[name] = one_a_token(label, name, call.shape)
        if growing is not None and growing.domain is not None:
            labels["domain"] = one_a_token(growing.domain, "domain", call.shape)
        if growing is not None:  # `_grow` counts what its sequences take
            labels.pop("sequence", None)
        elif "sequence" not in labels:
            labels["sequence"] = self._numbers(call, running)
        if "phase" not in labels:
            labels["phase"] = _phase_of(call, running, growing)
        if self.statistics.n_positions:
            labels["position"] = call.position.ravel()
        if self.statistics.n_tokens:
            if call.tokens is None:
                raise ValueError(
                    f"statistics of tokens (n_tokens) need input_ids, not inputs_embeds, of "
                    f"{call.path if call.path else 'the model'}"
                )
            labels["token"] = one_a_token(call.tokens, "input_ids", call.shape)
        return labels

    def _numbers(self, call: Call, running: _Pass) -> np.ndarray:
        """Numbers of new sequences (B * L,), the same in all layers of a forward."""
        texts = call.texts()
        n = int(texts.max()) + 1
        if running.sequence is None or len(running.sequence) < n:
            running.sequence = self._new_numbers(n)
        return running.sequence[texts].ravel()

    def _new_numbers(self, n: int) -> np.ndarray:
        first = self._next_sequence
        self._next_sequence += n
        return np.arange(first, first + n)

    def _follow(self, running: _Pass, slots: dict[Layer, np.ndarray]) -> None:
        """Remember which sequences a new cache holds; not those whose labels are given token by
        token, nor several in a row."""
        outermost = running.calls[0]
        rows = outermost.shape[0]
        sequence = running.labels.get("sequence", running.sequence)
        domain = running.labels.get("domain")
        is_packed = outermost.texts().max(initial=0) >= rows
        if sequence is None or is_packed or np.ndim(sequence) != 1:
            return
        if domain is not None and np.ndim(domain) > 1:
            return
        numbers = one_a_token(sequence, "sequence", (rows, 1))
        if domain is not None:
            domain = one_a_token(domain, "domain", (rows, 1))
        cache = running.cache
        new = _Growing(numbers, domain, slots)
        self._growing[id(cache)] = new
        weakref.finalize(cache, self._cache_ended, id(cache), new).atexit = False

    def _cache_ended(self, key: int, growing: _Growing) -> None:
        """Forget sequences that no forward can go on with."""
        if self._growing.get(key) is growing:
            del self._growing[key]


# --- models and tensors ---


def _phase_of(call: Call, running: _Pass, growing: _Growing | None) -> int | None:
    """Whether a call is of a prompt (0) or generates (1); None where it may be either."""
    if running.cache is None:
        return None
    if growing is None and not call.past:
        return 0
    return 1 if call.shape[1] == 1 else None


def _slots_by_row(chosen: np.ndarray, call: Call, n_experts: int) -> np.ndarray:
    """Slots (L, B, E) of the rows of a call, of what L layers chose (L, B * length, k)."""
    rows, length = call.shape
    layer = np.arange(len(chosen))[:, None]
    place = np.where(call.mask.ravel(), layer * rows + np.arange(rows).repeat(length), -1)
    counts = routing_counts(chosen, place, len(chosen) * rows, n_experts)
    return counts.reshape(len(chosen), rows, n_experts)


def _check_version(listeners: list[Listener]) -> None:
    """Raise ValueError for a transformers whose blocks are of another make."""
    transformers = sys.modules.get("transformers")
    if transformers is None or all(listener.is_own for listener in listeners):
        return
    version = str(transformers.__version__)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        raise ValueError(
            f"transformers is {version}; allowed are 5.0 and up, whose blocks call their experts "
            "with a choice"
        )


def _sizes_of(listeners: list[Listener]) -> tuple[int, int]:
    """Numbers of experts and of chosen ones, (E, k), as the modules say."""
    sizes = {(listener.n_experts, listener.n_chosen) for listener in listeners}
    n_experts, n_chosen = next(iter(sizes))
    if len(sizes) > 1 or n_experts is None or n_chosen is None:
        raise ValueError(
            f"routers say that they have (experts, chosen) = {sorted(sizes, key=str)}; where they "
            "do not all say the same, pass statistics=RouterStatistics(n_experts, n_chosen)"
        )
    return n_experts, n_chosen


def _layer_names(names: list[str]) -> dict[str, Layer]:
    """The number in each path where paths differ in that alone, else the paths themselves."""
    parts = [name.split(".") for name in names]
    numbers = [[int(part) for part in path if part.isdigit()] for path in parts]
    shapes = {tuple("*" if part.isdigit() else part for part in path) for path in parts}
    first_numbers = {path[0] for path in numbers if path}
    if len(shapes) == 1 and len(first_numbers) == len(names):
        return {name: path[0] for name, path in zip(names, numbers)}
    return {name: name for name in names}


def _is_a_choice(hidden: Any, chosen: Any, weights: Any) -> bool:
    """Whether these are (n, h), (n, k) integers and (n, k) weights."""
    of_hidden, of_chosen, of_weights = (
        getattr(x, "shape", None) for x in (hidden, chosen, weights)
    )
    if of_hidden is None or of_chosen is None or of_chosen != of_weights:
        return False
    if len(of_chosen) != 2 or chosen.is_floating_point():
        return False
    return math.prod(of_hidden[:-1]) == of_chosen[0]  # DBRX gives its experts (B, L, h)


def _as_tensor(value: Any, device: Any) -> Any:
    """Lists and arrays as tensors, tensors moved to the device, anything else as it is."""
    import torch

    if isinstance(value, (list, np.ndarray)):
        value = torch.as_tensor(np.asarray(value))
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _kept(value: Any) -> Any:
    """A small tensor without its gradient, a large one as an array; anything else as it is."""
    if hasattr(value, "detach") and value.numel() <= FEW:
        return value.detach()
    found = to_array(value)
    return value if found is None else found


def _as_arrays(choices: list[Heard]) -> list[Heard]:
    """Choices as arrays. Tensors of one shape, type and device are fetched together: each time that
    a device is asked, it comes to a halt."""
    chosen = _fetched([choice.chosen for _, choice, _ in choices])
    weights = _fetched([choice.weights for _, choice, _ in choices])
    probabilities = _fetched([choice.probabilities for _, choice, _ in choices])
    arrays = [Choice(*parts) for parts in zip(chosen, weights, probabilities)]
    return [(listener, array, call) for (listener, _, call), array in zip(choices, arrays)]


def _fetched(values: list[Any]) -> list[Any]:
    """Tensors as arrays, anything else as it is."""
    alike: dict[Any, list[int]] = {}
    for place, value in enumerate(values):
        if hasattr(value, "detach"):
            alike.setdefault((value.shape, value.dtype, value.device), []).append(place)
    found = list(values)
    for places in alike.values():
        import torch

        together = to_array(torch.stack([values[place] for place in places]))
        assert together is not None
        for place, array in zip(places, together):
            found[place] = array
    return found


def _named(output: Any, name: str) -> Any:
    """A part of a model's output."""
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
