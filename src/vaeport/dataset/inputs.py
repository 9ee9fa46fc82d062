"""What readers sent as input of a VAE: one item, or several of one shape that run as a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from vaeport.dataset.readers import Opened
from vaeport.dataset.reading import Head
from vaeport.runtime.inputs import AudioInput, ImageInput, Input, VideoInput
from vaeport.vae import VAE


class _Sent:
    """The parts of an item under the names that `VideoReader` and `AudioReader` have."""

    def __init__(self, opened: Opened, head: Head) -> None:
        self._opened = opened
        self.height, self.width = head.height, head.width
        self.frames, self.channels = head.total, head.channels
        self.rate = head.rate if head.kind == "video" else int(head.rate)

    def chunks(self, first: int, size: int, *, pin: bool) -> Iterator[Tensor]:
        """As they were sent, which is by the same sizes."""
        return self._opened.parts()

    def blocks(self, size: int) -> Iterator[Tensor]:
        """The same of audio."""
        return self._opened.parts()

    @property
    def notes(self) -> list[str]:
        """What was noticed while the file was read; complete when all parts are taken."""
        return list(self._opened.notes.lines)

    def close(self) -> None:
        """The readers are their owner's."""


def input_of(vae: VAE, opened: Opened, *, resample: bool, upmix: bool) -> Input:
    """An item as input; MediaError or BlockedError if it could not be read, or does not fit the VAE."""
    if opened.failure is not None:
        raise opened.failure
    head, path = opened.head, Path(opened.item.place)
    assert head is not None
    if head.kind == "audio":
        return AudioInput(vae, path, resample, upmix, _Sent(opened, head))
    if head.kind == "image":
        (pixels,) = opened.parts()
        return ImageInput(vae, path, pixels[0])
    return VideoInput(vae, path, _Sent(opened, head))


class Batch:
    """Inputs of one shape as one: their pieces, joined along the batch."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = inputs
        self.streams = inputs[0].streams

    def pieces(self) -> Iterator[Tensor]:
        """Tensors [B, C, ...], as `Input.pieces` gives them."""
        if len(self.inputs) == 1:
            yield from self.inputs[0].pieces()
            return
        for pieces in zip(*(one.pieces() for one in self.inputs), strict=True):
            yield torch.cat(pieces)

    def __enter__(self) -> Batch:
        with ExitStack() as stack:
            for one in self.inputs:
                stack.enter_context(one)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._closing.close()
