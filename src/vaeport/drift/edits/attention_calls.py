"""What else a call of `scaled_dot_product_attention` may have been meant to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from math import prod
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.drift.edits.watching import Change

_ROWS: Mapping[str, int] = MappingProxyType({"(3, heads, D)": -3, "(heads, 3, D)": -2, "(heads, D, 3)": -1})
"""How queries, keys and values lie in one row: the axis that tells them apart."""


def attention_changes() -> Iterator[tuple[str, str, Change]]:
    """(cause, what is wrong, the call as it should be)."""
    for order in list(permutations(range(3)))[1:]:
        yield "order", f"attention: its operands should be {[('q', 'k', 'v')[i] for i in order]}", _ordered(order)
    for (ours, read), (theirs, meant) in permutations(_ROWS.items(), 2):
        yield "order", f"attention: rows that are read as {ours} should be read as {theirs}", _dealt(read, meant)
    yield "attention mask", "attention: every position should see all", lambda f, args, kwargs, _: f(*args[:3])
    yield "attention mask", "attention: no position should see those behind it", _causal
    yield "attention mask", "attention: a position should see its frame and those before it", _by_frame(later=False)
    yield "attention axis", "attention: a position should see its frame alone", _by_frame(later=None)
    yield "attention axis", "attention: over all positions of a sample", _joined(None)
    says = "attention: over all positions of a sample, in its frame and before it"
    yield "attention axis", says, _joined(False)


def _ordered(order: Sequence[int]) -> Change:
    return lambda f, args, kwargs, _: f(*(args[i] for i in order), *args[3:], **kwargs)


def _dealt(read: int, meant: int) -> Change:
    """[B, heads, N, D] each: put together again as they were read, and dealt out as they are meant."""

    def change(f: Any, args: Any, kwargs: Any, shape: Sequence[int]) -> Any:
        rows = torch.stack([t.transpose(1, 2) for t in args[:3]], read)
        sizes = list(args[0].transpose(1, 2).shape[2:])
        sizes.insert(len(sizes) + 1 + meant, 3)
        return f(*(t.transpose(1, 2) for t in rows.flatten(2).unflatten(2, sizes).unbind(meant)), *args[3:], **kwargs)

    return change


def _causal(f: Any, args: Any, kwargs: Any, shape: Sequence[int]) -> Tensor:
    out: Tensor = f(*args[:3], is_causal=True)
    return out


def _by_frame(later: bool | None) -> Change:
    """A mask by frames, whose size the module's input tells."""

    def change(f: Any, args: Any, kwargs: Any, shape: Sequence[int]) -> Any:
        return f(*args[:3], attn_mask=_mask(args[0].shape[-2], args[1].shape[-2], prod(shape[-2:]), later))

    return change


def _mask(queries: int, keys: int, frame: int, later: bool | None) -> Tensor:
    q, k = torch.arange(queries)[:, None] // frame, torch.arange(keys) // frame
    return q == k if later is None else q >= k


def _joined(later: bool | None) -> Change:
    """Batches of positions as one row of positions."""

    def change(f: Any, args: Any, kwargs: Any, shape: Sequence[int]) -> Any:
        q, k, v = (t.reshape(shape[0], 1, -1, t.shape[-1]) for t in args[:3])
        mask = None if later is None else _mask(q.shape[-2], k.shape[-2], prod(shape[-2:]), later)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(args[0].shape)

    return change
