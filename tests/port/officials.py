"""Small VAEs written as official code writes them: each shows one thing that a probe must find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Posterior:
    """Clamps log variances to -30..20."""

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = parameters
        self.mean, logvar = torch.chunk(parameters, 2, dim=1)
        self.std = torch.exp(0.5 * torch.clamp(logvar, -30.0, 20.0))

    def mode(self) -> Tensor:
        return self.mean


class Narrow(Posterior):
    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        self.std = torch.exp(0.5 * torch.clamp(parameters.chunk(2, 1)[1], -6.0, 2.0))


class Image(nn.Module):
    """Four pixels a latent, eight moments; floors lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.moments = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 1)
        self.lift, self.up = nn.Conv2d(4, 8, 1), nn.ConvTranspose2d(8, 3, 4, stride=4)
        self.use_tiling, self.tile_size = False, 512

    def parameters_of(self, x: Tensor) -> Tensor:
        return self.moments(F.silu(self.down(x)))

    def encode(self, x: Tensor) -> Any:
        return Posterior(self.parameters_of(x))

    def decode(self, z: Tensor) -> Any:
        return self.up(F.silu(self.lift(z)))


class NarrowClamp(Image):
    def encode(self, x: Tensor) -> Any:
        return Narrow(self.parameters_of(x))


class Samples(Image):
    """Gives samples; with the mean behind the log variance."""

    def encode(self, x: Tensor) -> Any:
        logvar, mean = self.parameters_of(x).chunk(2, 1)
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)


class Softplus(Image):
    def encode(self, x: Tensor) -> Any:
        mean, scale = self.parameters_of(x).chunk(2, 1)
        return torch.normal(mean, F.softplus(scale) + 1e-4)


class Distribution(Image):
    def encode(self, x: Tensor) -> Any:
        mean, logvar = self.parameters_of(x).chunk(2, 1)
        return torch.distributions.Normal(mean, torch.exp(0.5 * logvar)).rsample()


class MeanAlone(Image):
    def encode(self, x: Tensor) -> Any:
        return self.parameters_of(x).chunk(2, 1)[0]


class Scaled(Image):
    """Normalises all channels alike."""

    shift: Any = 0.25
    scale: Any = 0.5

    def encode(self, x: Tensor) -> Any:
        posterior = Posterior(self.parameters_of(x))
        return (posterior.mean + posterior.std * torch.randn_like(posterior.std) - self.shift) * self.scale

    def decode(self, z: Tensor) -> Any:
        return super().decode(z / self.scale + self.shift)


class Standardised(Scaled):
    """Normalises each channel by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.tensor([0.1, -0.2, 0.3, 0.0]).view(1, 4, 1, 1)
        self.scale = torch.tensor([0.5, 2.0, 1.25, 0.8]).view(1, 4, 1, 1)


class Clamps(Image):
    def decode(self, z: Tensor) -> Any:
        return (super().decode(z).clamp(-1, 1), "more")


class Tanh(Image):
    def decode(self, z: Tensor) -> Any:
        return super().decode(z).tanh()


class Noisy(Image):
    def decode(self, z: Tensor) -> Any:
        return super().decode(z + 0.1 * torch.randn_like(z))


class Refuses(Image):
    def encode(self, x: Tensor) -> Any:
        assert x.shape[-1] % 4 == 0, "the width must be a multiple of 4"
        return super().encode(x)


class Pads(Image):
    def encode(self, x: Tensor) -> Any:
        return super().encode(F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)))


class Wide(Image):
    """Its decoder takes no single column or row."""

    def decode(self, z: Tensor) -> Any:
        return super().decode(F.pad(z, (1, 1, 1, 1), mode="reflect"))[..., 4:-4, 4:-4]


class Idle(Image):
    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.Linear(2, 2)


class Conditioned(Image):
    """Cannot be called without a condition."""

    def encode(self, x: Tensor, condition: Tensor) -> Any:  # type: ignore[override]
        return super().encode(x + condition)


class Video(nn.Module):
    """The first frame by itself, then four frames a latent; no frame sees a later one."""

    causal = True

    def __init__(self) -> None:
        super().__init__()
        self.down, self.moments = nn.Conv3d(3, 8, 4, stride=4), nn.Conv3d(8, 8, 1)
        self.lift, self.up = nn.Conv3d(4, 8, 1), nn.ConvTranspose3d(8, 3, 4, stride=4)

    def encode(self, x: Tensor) -> Any:
        x = F.pad(x, (0, 0, 0, 0, 3, 0)) if self.causal else x
        return Posterior(self.moments(F.silu(self.down(x))))

    def decode(self, z: Tensor) -> Any:
        return self.up(F.silu(self.lift(z)))[:, :, 3 if self.causal else 0 :]


class Blurred(Video):
    """Sees both neighbours in time."""

    causal = False

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))

    def decode(self, z: Tensor) -> Any:
        return super().decode(self.blur(z))


class Chunked(Video):
    """One frame, then four at a time; gives the mean alone."""

    def encode(self, x: Tensor) -> Any:
        first = F.pad(x[:, :, :1], (0, 0, 0, 0, 3, 0))
        pieces = [first, *x[:, :, 1:].split(4, 2)]
        out = [self.moments(F.silu(self.down(p))) for p in pieces if p.shape[2] == 4]
        return torch.cat(out, 2).chunk(2, 1)[0]


class Lists:
    """A wrapper without batch axis, with statistics of its own."""

    def __init__(self, mean: Sequence[float]) -> None:
        self.model, self.mean = Video(), torch.tensor(mean).view(4, 1, 1, 1)

    def encode(self, videos: list[Tensor]) -> list[Tensor]:
        return [self.model.encode(video[None]).mode()[0] - self.mean for video in videos]

    def decode(self, latents: list[Tensor]) -> list[Tensor]:
        return [self.model.decode((latent + self.mean)[None])[0].float().clamp(-1, 1) for latent in latents]


class Audio(nn.Module):
    """Eight stereo samples a latent."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(2, 8, 8, stride=8), nn.ConvTranspose1d(4, 2, 8, stride=8)

    def encode(self, x: Tensor) -> Any:
        mean, scale = self.down(x).chunk(2, 1)
        return mean + (F.softplus(scale) + 1e-4) * torch.randn_like(mean)

    def decode(self, z: Tensor) -> Any:
        return self.up(z)
