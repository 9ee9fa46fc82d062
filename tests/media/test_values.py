from __future__ import annotations

import pytest
import torch

from vaeport.errors import InputError
from vaeport.media import to_model, to_pixels

EVERY_VALUE = torch.arange(256, dtype=torch.uint8).repeat_interleave(3).reshape(16, 16, 3)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pixel_value_comes_back(dtype: torch.dtype) -> None:
    assert torch.equal(to_pixels(to_model(EVERY_VALUE, dtype=dtype)), EVERY_VALUE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_the_nearest_of_their_dtype(dtype: torch.dtype) -> None:
    exact = torch.tensor([(2 * p - 255) / 255 for p in EVERY_VALUE.flatten().tolist()], dtype=torch.float64)
    values = to_model(EVERY_VALUE, dtype=dtype).movedim(0, -1)
    assert torch.equal(values, exact.view_as(values).to(dtype))
    assert values.min() == -1
    assert values.max() == 1


def test_layouts_are_channels_first_and_back() -> None:
    video = torch.randint(0, 256, (4, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = to_model(video)
    assert values.shape == (3, 4, 5, 7)
    assert values.is_contiguous()
    assert values[2, 1, 3, 6] == pytest.approx(int(video[1, 3, 6, 2]) / 127.5 - 1, abs=1e-7)
    assert torch.equal(to_pixels(values), video)
    assert torch.equal(to_model(video[2]), values[:, 2])
    assert torch.equal(to_pixels(values[:, 2]), video[2])


def test_strided_input_and_the_input_itself_are_left_alone() -> None:
    video = torch.randint(0, 256, (4, 6, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    before = video.clone()
    part = video[::2, 1:, ::3].flip(1)
    values = to_model(part)
    kept = values.clone()
    assert torch.equal(to_pixels(values), part)
    assert torch.equal(values, kept)
    assert torch.equal(video, before)


def test_out_of_range_is_clamped_and_rounding_is_to_the_nearest() -> None:
    values = torch.tensor([-7.0, -1.001, 1.001, 3e38, 0.49 / 127.5 - 1, 0.51 / 127.5 - 1, 254.49 / 127.5 - 1, 0.0])
    assert to_pixels(values.expand(3, 1, 8))[0, :, 0].tolist() == [0, 0, 255, 255, 0, 1, 254, 128]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    values = torch.zeros(3, 2, 2)
    values[1, 0, 1] = bad
    with pytest.raises(InputError, match="1 of 12"):
        to_pixels(values)


def test_unchecked_values_become_the_same_pixels() -> None:
    values = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(to_pixels(values, check=False), to_pixels(values))
    values[1, 0, 1] = float("nan")
    finite = values.isfinite().movedim(0, -1)
    assert torch.equal(to_pixels(values, check=False)[finite], to_pixels(values.nan_to_num())[finite])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_gives_the_same_bits(dtype: torch.dtype) -> None:
    assert torch.equal(to_model(EVERY_VALUE, dtype=dtype, device="cuda").cpu(), to_model(EVERY_VALUE, dtype=dtype))
    values = (torch.randn(3, 9, 33, 57, generator=torch.Generator().manual_seed(0)) / 2).to(dtype)
    assert torch.equal(to_pixels(values.cuda()).cpu(), to_pixels(values))
    halfway = ((torch.arange(-300, 900) + 0.5) / 127.5 - 1).to(dtype).expand(3, 1, -1)
    assert torch.equal(to_pixels(halfway.cuda()).cpu(), to_pixels(halfway))


def test_wrong_ranks_and_types_are_refused() -> None:
    for pixels in (torch.zeros(4, 4, 3), torch.zeros(4, 4, dtype=torch.uint8), torch.zeros(4, 4, 4, dtype=torch.uint8)):
        with pytest.raises(InputError):
            to_model(pixels)
    with pytest.raises(InputError):
        to_model(EVERY_VALUE, dtype=torch.int32)
    for values in (torch.zeros(4, 4, 3), torch.zeros(3, 4), torch.zeros(3, 4, 4, dtype=torch.int64)):
        with pytest.raises(InputError):
            to_pixels(values)
