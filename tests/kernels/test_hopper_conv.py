"""What surrounds the kernel on a host: packing, choice of a variant, what it is compiled from."""

from __future__ import annotations

import pytest
import torch

from tests.layers.laws import normal
from vaeport.errors import BlockedError
from vaeport.kernels import driver, hopper_conv
from vaeport.kernels.hopper_conv import LINE, Variant, choice, packed, variant_of


@pytest.mark.parametrize(
    ("out", "channels", "ck"), [(96, 96, 32), (192, 192, 64), (3, 96, 32), (40, 16, 16), (8, 3, 16)]
)
def test_packing_loses_nothing(out: int, channels: int, ck: int) -> None:
    """Unswizzled, as shared memory is read: row r holds unit u of its channels at u ^ (r * units // 8 % units)."""
    weight = normal(out, channels, 3, 3, 2)
    p = packed(weight)
    steps, chunks, taps, rows, size = p.shape
    assert (steps, taps, size) == (3, 6, ck)
    assert rows % 8 == 0
    units = ck // 8
    for row in range(rows):
        for unit in range(units):
            found = p[:, :, :, row].unflatten(-1, (units, 8))[..., unit ^ (row * units // 8 % units), :]
            first = unit * 8
            for chunk in range(chunks):
                for lane in range(8):
                    channel = chunk * ck + first + lane
                    inside = row < out and channel < channels
                    wanted = weight[row, channel].flatten(1) if inside else torch.zeros(3, 6, dtype=weight.dtype)
                    assert torch.equal(found[:, chunk, :, lane], wanted)


def test_strided_taps_are_steps() -> None:
    assert packed(normal(64, 64, 3, 3, 3), strided=True).shape == (27, 1, 1, 64, 64)


@pytest.mark.parametrize("channels", [32, 64, 96, 128, 160, 192, 256, 384, 512, 1024])
def test_blocks_divide_the_channels(channels: int) -> None:
    for height, width in ((60, 104), (480, 832), (1, 2048)):
        n, patches = choice(channels, 1, 4, height, width, 132)
        assert channels % n == 0
        assert (patches == LINE) == (height == 1) or n == 8


def test_small_frames_get_smaller_blocks() -> None:
    """As many as there are processors, rather than the fastest."""
    assert choice(384, 1, 1, 60, 104, 132)[0] < choice(384, 1, 40, 480, 832, 132)[0] * 2
    tiles = [-(-60 // 16) * -(-104 // (8 * p)) * (384 // n) for n, p in [choice(384, 1, 1, 60, 104, 132)]]
    assert tiles[0] >= 100


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 3, 3), (3, 3, 3), (3, 1, 1), (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("ck", [16, 32, 64])
def test_stages_fit_into_shared_memory(kernel: tuple[int, int, int], ck: int) -> None:
    for n, patches in hopper_conv._RATE:
        if patches != LINE:
            v = variant_of(False, ck, kernel, False, 1, n, patches)
            assert v.shared <= 227 * 1024
            assert min(v.a_stages, v.b_stages) >= 2
            assert (v.kh * v.kw) % v.tps == 0


VARIANTS = [
    variant_of(False, 32, (3, 3, 3), False, 1, 96, 2),
    variant_of(True, 64, (1, 2, 2), False, 1, 192, 1),
    variant_of(False, 32, (1, 3, 3), True, 1, 96, 2),
    variant_of(False, 16, (3, 3, 3), False, 1, 8, 1),
    variant_of(True, 64, (1, 1, 7), False, 9, 256, LINE),
    variant_of(True, 64, (1, 1, 7), False, 1, 8, LINE),
]


@pytest.mark.parametrize("v", VARIANTS, ids=str)
def test_the_source_compiles(v: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    """For Hopper, on a machine without a GPU; nothing but what the compiler itself gives up registers for."""
    pytest.importorskip("cuda.bindings.nvrtc", reason="NVIDIA's compiler library is not installed")
    compiled: list[bytes] = []

    def kernel(source: str, name: str, defines: dict[str, int], shared: int) -> None:
        options = ["--gpu-architecture=sm_90a", *(f"-D{key}={value}" for key, value in defines.items())]
        compiled.append(driver._compiled(source, options))

    monkeypatch.setattr(driver, "kernel", kernel)
    hopper_conv._kernel.__wrapped__(v, torch.device("cuda", 0))
    assert compiled[0].startswith(b"\x7fELF")


def test_a_source_that_does_not_compile_is_told_with_the_compilers_words() -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="NVIDIA's compiler library is not installed")
    with pytest.raises(BlockedError, match='identifier "x" is undefined'):
        driver._compiled("__global__ void f() { x = 1; }", ["--gpu-architecture=sm_90a"])


def test_compiled_kernels_are_kept_whole_or_not_at_all(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("VAEPORT_CACHE", str(tmp_path / "cache"))
    file = driver.folder() / "a.cubin"
    driver._keep(file, b"kernel")
    assert file.read_bytes() == b"kernel"
    assert [p.name for p in file.parent.iterdir()] == ["a.cubin"]
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("VAEPORT_CACHE", str(tmp_path / "taken"))
    driver._keep(driver.folder() / "a.cubin", b"kernel")  # cannot be written: compiled again next time
