"""What a running model was called with: the tokens of each call, their mask, positions and texts.

Modules that take tokens stand inside one another (a model, its decoder). What an inner call does
not say is taken from the one around it, as long as both see the same tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CACHES = ("past_key_values", "cache_params")


@dataclass
class Call:
    """One call of a module that takes tokens, inside of a forward."""

    path: str
    shape: tuple[int, int]
    """(B, L); (0, 0) where it is not known"""
    mask: np.ndarray
    """(B, L) which tokens count"""
    position: np.ndarray
    """(B, L)"""
    tokens: Any
    """(B, L), or None"""
    has_two_sides: bool
    """whether its inputs are those of an encoder, and of a decoder too"""
    heard: set[str] = field(default_factory=set)
    """paths of the modules that were heard in it"""

    def texts(self) -> np.ndarray:
        """(B, L) numbers of texts: rows, cut where positions start again."""
        rows, length = self.shape
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
    outer = around[-1] if around and not around[-1].has_two_sides else None
    shape = _shape(given)
    if outer is not None and (outer.shape != shape or shape == (0, 0)):
        outer = None
    past = _past_length(given)
    mask = _mask(given, shape, is_inner=bool(around))
    if mask is None and outer is not None:
        counted = outer.mask
        position = outer.position
    elif mask is None:
        counted = np.ones(shape, bool)
        position = np.broadcast_to(past + np.arange(shape[1]), shape)
    else:
        counted = mask[:, mask.shape[1] - shape[1] :]
        position = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, mask.shape[1] - shape[1] :]
        if past and mask.shape[1] == shape[1]:
            position = position + past
    own = to_array(given.get("position_ids"))
    if own is not None and own.shape in (shape, (1, shape[1])):
        position = np.broadcast_to(own, shape)
    tokens = to_array(given.get("input_ids"))
    if tokens is None and outer is not None:
        tokens = outer.tokens
    return Call(path, shape, counted, position, tokens, "decoder_input_ids" in names)


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


def _mask(given: Mapping[str, Any], shape: tuple[int, int], is_inner: bool) -> np.ndarray | None:
    """True where a token counts; longer than the batch where the model keeps earlier tokens in a
    cache. An inner call may have masks of another make."""
    mask = to_array(given.get("attention_mask"))
    if mask is None:
        return None
    rows, length = shape
    if mask.ndim == 2 and mask.shape[0] == rows and mask.shape[1] >= length:
        return mask > 0
    if is_inner or mask.ndim != 2:
        return None
    raise ValueError(
        f"attention_mask has shape {mask.shape}; allowed is {shape}, 0 where there is padding"
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
