"""CUDA sources to kernels, kept on disk, and their launch: the compiler and the driver that come with torch."""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from vaeport.errors import BlockedError

_BFLOAT16, _FLOAT16 = 9, 6  # CUtensorMapDataType
_SWIZZLE = {32: 1, 64: 2, 128: 3}  # bytes of a row -> CUtensorMapSwizzle


def folder() -> Path:
    """Where compiled kernels are kept between processes: $VAEPORT_CACHE or the user's cache folder."""
    if root := os.environ.get("VAEPORT_CACHE"):
        return Path(root) / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vaeport" / "kernels"


def kernel(source: str, name: str, defines: dict[str, int], shared: int) -> ctypes.c_void_p:
    """Compiles for the current device, or reads what was compiled; BlockedError with the compiler's words."""
    major, minor = torch.cuda.get_device_capability()
    options = [f"--gpu-architecture=sm_{major}{minor}a", *(f"-D{key}={value}" for key, value in defines.items())]
    key = hashlib.sha256("\n".join((source, *options, str(torch.version.cuda))).encode()).hexdigest()
    file = folder() / f"{key}.cubin"
    try:
        cubin = file.read_bytes()
    except OSError:
        cubin = _compiled(source, options)
        _keep(file, cubin)
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    torch.cuda.current_stream()  # makes the context
    _call("cuModuleLoadData", ctypes.byref(module), cubin)
    _call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
    _call("cuFuncSetAttribute", function, 8, shared)  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    return function


def launch(
    function: ctypes.c_void_p, args: ctypes.Structure, blocks: int, threads: int, shared: int, device: torch.device
) -> None:
    """On the device's current stream."""
    params = (ctypes.c_void_p * 1)(ctypes.addressof(args))
    stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
    _call("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, shared, stream, params, None)


@cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def tensor_map(x: Tensor, box: tuple[int, int, int], steps: tuple[int, ...]) -> ctypes.Array[ctypes.c_uint64]:
    """How the copy engine reads a channels-last [B, C, T, H, W]: `box` channels, columns and rows at once.

    steps   of time, height, width, from one to the next that it brings
    """
    return _tensor_map(x.data_ptr(), tuple(x.shape), x.stride(), x.dtype, box, steps)


@lru_cache(8192)
def _tensor_map(
    pointer: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    dtype: torch.dtype,
    box: tuple[int, int, int],
    steps: tuple[int, ...],
) -> ctypes.Array[ctypes.c_uint64]:
    n, c, t, h, w = shape
    inner = [stride[4], stride[3], stride[2], stride[0]]
    # an axis of one position may have any stride
    strides = [2 * s if size > 1 else 16 * -(-c // 8) for s, size in zip(inner, (w, h, t, n), strict=True)]
    raw = (ctypes.c_byte * 192)()
    address = (ctypes.addressof(raw) + 63) // 64 * 64
    _call(
        "cuTensorMapEncodeTiled",
        ctypes.c_void_p(address),
        _BFLOAT16 if dtype is torch.bfloat16 else _FLOAT16,
        5,
        ctypes.c_void_p(pointer),
        (ctypes.c_uint64 * 5)(c, w, h, t, n),
        (ctypes.c_uint64 * 4)(*strides),
        (ctypes.c_uint32 * 5)(box[0], box[1] * steps[2], box[2] * steps[1], 1, 1),
        (ctypes.c_uint32 * 5)(1, steps[2], steps[1], 1, 1),
        0,
        _SWIZZLE[2 * box[0]],
        2,  # CU_TENSOR_MAP_L2_PROMOTION_L2_128B
        0,
    )
    found = (ctypes.c_uint64 * 16)()
    ctypes.memmove(found, address, 128)
    return found


def _compiled(source: str, options: list[str]) -> bytes:
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise BlockedError("no CUDA compiler", found=str(error), fix="pip install cuda-bindings") from error
    _, program = nvrtc.nvrtcCreateProgram(source.encode(), b"vaeport.cu", 0, [], [])
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = b" " * size
        nvrtc.nvrtcGetProgramLog(program, log)
        raise BlockedError("a kernel does not compile", found=log.decode(errors="replace").strip()[:2000])
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    cubin = b" " * size
    nvrtc.nvrtcGetCUBIN(program, cubin)
    nvrtc.nvrtcDestroyProgram(program)
    return bytes(cubin)


def _keep(file: Path, data: bytes) -> None:
    """Whole or not at all; a folder that cannot be written only costs the time of compiling again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
            part.write(data)
        Path(part.name).replace(file)
    except OSError:
        pass


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *arguments: object) -> None:
    if code := getattr(_library(), name)(*arguments):
        text = ctypes.c_char_p()
        _library().cuGetErrorString(code, ctypes.byref(text))
        what = text.value.decode() if text.value else f"error {code}"
        raise BlockedError(f"{name} failed", found=what)
