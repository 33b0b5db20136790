"""What a running model was called with: the tokens of each call, their mask, positions and texts.

Modules that take tokens stand inside one another (a model, its decoder). What an inner call does
not say is taken from the one around it, as long as both see the same tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

CACHES = ("past_key_values", "cache_params")


@dataclass
class Call:
    """One call of a module that takes tokens, inside of a forward. Tensors become arrays only where
    they are asked for."""

    path: str
    shape: tuple[int, int]
    """(B, L); (0, 0) where it is not known"""
    has_two_sides: bool
    """whether its inputs are those of an encoder, and of a decoder too"""
    outer: Call | None
    """the call around it that sees the same tokens"""
    given_mask: Any
    """(B, L or more), longer where a cache keeps earlier tokens; None where there is none"""
    given_position: Any
    given_tokens: Any
    past: int
    """tokens that its cache held before"""
    heard: set[str] = field(default_factory=set)
    """paths of the modules that were heard in it"""

    @cached_property
    def mask(self) -> np.ndarray:
        """(B, L) which tokens count."""
        mask = to_array(self.given_mask)
        if mask is not None:
            return mask[:, mask.shape[1] - self.shape[1] :] > 0
        return np.ones(self.shape, bool) if self.outer is None else self.outer.mask

    @cached_property
    def position(self) -> np.ndarray:
        """(B, L) places of tokens in their text, without padding."""
        own = to_array(self.given_position)
        if own is not None:
            return np.broadcast_to(own, self.shape)
        mask = to_array(self.given_mask)
        if mask is not None:
            counted = np.maximum((mask > 0).cumsum(axis=1) - 1, 0)
            later = self.past if mask.shape[1] == self.shape[1] else 0
            return counted[:, mask.shape[1] - self.shape[1] :] + later
        if self.outer is not None:
            return self.outer.position
        return np.broadcast_to(self.past + np.arange(self.shape[1]), self.shape)

    @property
    def tokens(self) -> Any:
        """(B, L), or None where no one was given them."""
        if self.given_tokens is None and self.outer is not None:
            return self.outer.tokens
        return self.given_tokens

    def mask_here(self) -> Any:
        """(B, L) tensor that is > 0 for tokens that count, where the model is; None where all
        do."""
        if self.given_mask is not None:
            return self.given_mask[:, self.given_mask.shape[1] - self.shape[1] :]
        return None if self.outer is None else self.outer.mask_here()

    def texts(self) -> np.ndarray:
        """(B, L) numbers of texts: rows, cut where positions start again."""
        rows, length = self.shape
        if length == 1:  # as in a step of decoding
            return np.arange(rows)[:, None]
        starts = np.zeros(self.shape, bool)
        if length:
            starts[:, 0] = True
        for row in range(rows):
            kept = np.flatnonzero(self.mask[row])
            position = self.position[row, kept]
            again = (position[1:] == 0) | (position[1:] < position[:-1])
            starts[row, kept[1:][again]] = True
        return starts.ravel().cumsum().reshape(self.shape) - 1


def entries(modules: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Paths of the modules that take tokens, and the names of what they take; the model itself
    where none does.

    >>> class Model:
    ...     def forward(self, input_ids=None, inputs_embeds=None):
    ...         pass
    >>> entries({"": Model()})
    {'': ('input_ids', 'inputs_embeds')}
    """
    found = {}
    for path, module in modules.items():
        names = tuple(inspect.signature(module.forward).parameters)
        if {"input_ids", "inputs_embeds"} <= set(names):
            found[path] = names
    if not found:
        found[""] = tuple(inspect.signature(modules[""].forward).parameters)
    return found


def call_of(
    path: str, names: tuple[str, ...], given: Mapping[str, Any], around: list[Call]
) -> Call:
    """The call of a module with these arguments, inside of other calls. Raises ValueError for a
    mask of another shape."""
    shape = _shape(given)
    outer = around[-1] if around and not around[-1].has_two_sides else None
    if outer is not None and (outer.shape != shape or shape == (0, 0)):
        outer = None
    past = _past_length(given)
    position = given.get("position_ids")
    if getattr(position, "shape", ()) not in (shape, (1, shape[1])):
        position = None
    return Call(
        path,
        shape,
        "decoder_input_ids" in names,
        outer,
        _mask(given.get("attention_mask"), shape, past, is_inner=bool(around)),
        position,
        given.get("input_ids"),
        past,
    )


def _shape(given: Mapping[str, Any]) -> tuple[int, int]:
    """(B, L) of the tokens of a call."""
    for name in ("input_ids", "inputs_embeds"):
        if given.get(name) is not None:
            rows, length = given[name].shape[:2]
            return rows, length
    shapes = [value.shape for value in given.values() if len(getattr(value, "shape", ())) > 1]
    return (shapes[0][0], shapes[0][1]) if shapes else (0, 0)


def _past_length(given: Mapping[str, Any]) -> int:
    """Tokens that the cache of a call holds."""
    for name in CACHES:
        cache = given.get(name)
        if cache is not None and hasattr(cache, "get_seq_length"):
            try:
                return int(cache.get_seq_length())
            except (ValueError, IndexError):  # of layers that keep no keys
                return 0
    return 0


def _mask(mask: Any, shape: tuple[int, int], past: int, is_inner: bool) -> Any:
    """The mask of a call, where it is one of tokens: an inner call may have masks of another
    make. `generate` with a static cache makes one of queries and keys (B, 1, L, T), or one a kind
    of layer: there a token that counts sees itself, and padding sees nothing."""
    rows, length = shape
    if isinstance(mask, dict):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if not hasattr(mask, "shape"):
        return None
    is_of_pairs = len(mask.shape) == 4 and mask.shape[0] == rows and mask.shape[2] == length
    if is_of_pairs and mask.shape[3] >= past + length and not is_inner:
        own = mask[:, 0, :, past : past + length].diagonal(dim1=1, dim2=2)
        return own == 0 if own.is_floating_point() else own
    if len(mask.shape) == 2 and mask.shape[0] == rows and mask.shape[1] >= length:
        return mask
    if is_inner or len(mask.shape) != 2:
        return None
    raise ValueError(
        f"attention_mask has shape {tuple(mask.shape)}; allowed is {shape}, 0 where there is "
        "padding"
    )


def to_array(value: Any) -> np.ndarray | None:
    """A tensor as an array; None for what is neither."""
    if isinstance(value, np.ndarray):
        return value
    if not hasattr(value, "detach"):
        return None
    value = value.detach()
    if value.is_floating_point():
        value = value.float()  # numpy knows no bfloat16
    return value.cpu().numpy()


@contextmanager
def evaluated(model: Any) -> Iterator[None]:
    """The model without dropout; every module is back in its own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def device_of(model: Any) -> Any:
    """Where a model takes its inputs: parameters that are offloaded are nowhere."""
    for module in model.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return device
    devices = [parameter.device for parameter in model.parameters()]
    there = [device for device in devices if device.type != "meta"]
    return there[0] if there else "cpu"


def one_a_token(labels: Any, name: str, shape: tuple[int, int]) -> np.ndarray:
    """One integer a token (B * L,), from one in all, one a sequence (B,) or one a token (B, L)."""
    array = to_array(labels)
    if array is None:
        array = np.asarray(labels)
    rows, length = shape
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {array.dtype}; allowed are integers")
    if array.shape == (rows,):
        array = array[:, None]
    elif array.shape not in ((), shape, (1, length)):
        raise ValueError(
            f"{name} has shape {array.shape}; allowed is ({rows},), one a sequence, or {shape}"
        )
    return np.broadcast_to(array, shape).ravel()


def around(path: str, calls: list[Call]) -> Call:
    """The innermost of nested calls that a module stands in."""
    for call in reversed(calls):
        if is_inside(path, call.path):
            return call
    return calls[-1]


def is_inside(path: str, outer: str) -> bool:
    """Whether the module at a path is another, or stands in it."""
    return not outer or path == outer or path.startswith(f"{outer}.")
