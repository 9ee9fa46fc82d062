"""Copies from a device into host memory that the device does not wait for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class HostCopies:
    """Copies CUDA tensors into pinned memory, on a stream beside the one that computes.

    The pinned memory comes from torch's cache, which holds as many blocks as there are copies at a time: those that
    nobody has let go of.
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def start(self, *tensors: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        """Starts copying tensors of one device. What it returns waits for the copies, in any thread, and gives them.

        Tensors that lie in host memory already are given as they are.
        """
        device = tensors[0].device
        if device.type != "cuda":
            return lambda: tuple(tensor.cpu() for tensor in tensors)
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        side = self._streams[device]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            copies = tuple(torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors)
            for copy, tensor in zip(copies, tensors, strict=True):
                copy.copy_(tensor, non_blocking=True)
                tensor.record_stream(side)  # its memory serves again when it has been copied
            arrived = torch.cuda.Event(blocking=True)
            arrived.record(side)

        def wait() -> tuple[Tensor, ...]:
            arrived.synchronize()
            return copies

        return wait
