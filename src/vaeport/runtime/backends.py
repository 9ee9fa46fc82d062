"""Known faults of cuDNN's conv3d, as data, and what is done about them.

cuDNN's versions are its own numbers: 91002 is 9.10.2.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch

from vaeport.errors import BlockedError

Version = tuple[int, ...]
_HALF, _EVER = (torch.bfloat16, torch.float16), 10**6


@dataclass(frozen=True)
class Fault:
    """Of conv3d in some types, from the first version of cuDNN and of PyTorch on and before the second.

    effect  "wrong": refused; "tf32": wrong in TF32, which is switched off; "slow": right, and told
    """

    effect: Literal["wrong", "tf32", "slow"]
    dtypes: tuple[torch.dtype, ...]
    cudnn: tuple[int, int]
    torch: tuple[Version, Version]
    what: str
    source: str
    fix: str


_LARGE = "conv3d gives wrong values for large inputs"
_TF32 = "conv3d may give wrong values in TF32, which is switched off for this process"
_OFF = "conv3d takes several times the memory and the time, since PyTorch keeps it off this cuDNN"
_NEWER = "install a PyTorch that brings cuDNN 9.15 or later, or upgrade nvidia-cudnn-cu12 or -cu13 itself"
FAULTS = (
    # PyTorch keeps conv3d off cuDNN 9.8 to 9.14 from 2.9 on; 2.9.0 asks what it was built with, not what is there
    Fault("wrong", _HALF, (90800, 91500), ((0,), (2, 9)), _LARGE, "pytorch#163539, #163581", _NEWER),
    Fault("slow", _HALF, (90800, 91500), ((2, 9), (_EVER,)), _OFF, "pytorch#166643, #166122", _NEWER),
    Fault("slow", _HALF, (91500, _EVER), ((2, 9), (2, 9, 1)), _OFF, "pytorch#167111", "install PyTorch 2.9.1 or later"),
    # 2.9.1 leaves TF32 out by itself; whether later versions do is not known
    Fault("tf32", (torch.float32,), (91002, 91600), ((0,), (_EVER,)), _TF32, "pytorch#167024", "upgrade cuDNN to 9.16"),
)


def known_faults(cudnn_version: int | None, torch_version: str) -> list[Fault]:
    """The faults of these versions, such as 91002 and "2.9.0+cu128"; none without cuDNN."""
    if cudnn_version is None:
        return []
    release = tuple(int(n) for n in re.findall(r"\d+", torch_version)[:3])
    return [f for f in FAULTS if f.cudnn[0] <= cudnn_version < f.cudnn[1] and f.torch[0] <= release < f.torch[1]]


def checked_backend(device: torch.device, dtype: torch.dtype) -> None:
    """To be called before conv3d runs on a device in a type: it then gives no wrong values in silence.

    BlockedError where it would. A RuntimeWarning tells of what is slow, and that TF32 was switched off where it has a
    fault. Devices other than CUDA's, and CUDA without cuDNN, are left alone.
    """
    cudnn: Any = torch.backends.cudnn
    if device.type != "cuda" or torch.version.hip or not cudnn.enabled:
        return
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else dtype
    version = cudnn.version()
    for fault in known_faults(version, torch.__version__):
        if dtype not in fault.dtypes or (fault.effect == "tf32" and cudnn.conv.fp32_precision != "tf32"):
            continue
        found = f"cuDNN {_text(version)} under PyTorch {torch.__version__}, {dtype}"
        if fault.effect == "wrong":
            expected = f"cuDNN before {_text(fault.cudnn[0])} or from {_text(fault.cudnn[1])} on"
            what = f"{fault.what} ({fault.source})"
            raise BlockedError(what, where=device, expected=expected, found=found, fix=fault.fix)
        if fault.effect == "tf32":
            cudnn.allow_tf32 = False
        warnings.warn(f"{fault.what} ({fault.source}): {found}; {fault.fix}", RuntimeWarning, stacklevel=2)


def _text(version: int) -> str:
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"
