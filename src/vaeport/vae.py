"""`VAE`: what all models share. A model file adds its arch config, its encoder and decoder tables, and its contract."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import torch
from torch import Tensor, nn

from vaeport.configs import AxisRule, LatentContract, VAEArchConfig, VAEConfig
from vaeport.errors import InputError
from vaeport.kernels.graphs import Graphs
from vaeport.kernels.running import fingerprint, running
from vaeport.layers import (
    SAMPLES,
    TIME,
    Conditions,
    DiagonalGaussian,
    LatentNormalizer,
    Layer,
    NormalizedGaussian,
    SoftplusGaussian,
    StoredNormalizer,
    run_in_pieces,
    standard_normal,
    stream,
)
from vaeport.layers.layer import Streamed
from vaeport.runtime.backends import checked_backend

if TYPE_CHECKING:
    from vaeport.runtime.plan import Half, Plan

Minimum = list[tuple[str, int]]
"""Least length of each axis, by name."""
_POSTERIORS = {"gaussian-logvar": DiagonalGaussian, "gaussian-softplus": SoftplusGaussian}


@dataclass(frozen=True)
class EncoderOutput:
    """`latent_dist`: the posterior, with `.mode()` and `.sample(generator)`."""

    latent_dist: DiagonalGaussian


@dataclass(frozen=True)
class DecoderOutput:
    """`sample`: [B, C, *axes] in the contract's value range."""

    sample: Tensor


class VAE(nn.Module):
    """A pair of layers between media and latents.

    encoder     [B, C, *axes] -> moments [B, 2Z, *latent axes]; None if not loaded
    decoder     [B, Z, *latent axes] -> [B, C, *axes] before the contract's clamp; None if not loaded
    """

    arch_class: ClassVar[type[VAEArchConfig]]
    config_class: ClassVar[type[VAEConfig]]
    variants: ClassVar[dict[str, VAEArchConfig]] = {}
    """Published configurations by name."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Names of the same class elsewhere, under which the registry finds it too; a tuple of literal strings."""
    encode_pieces: tuple[int, int] | None = None
    decode_pieces: tuple[int, int] | None = None
    """Length of the first and of every other piece in which `encode` and `decode` run; None: in one."""

    def __init__(self, arch: VAEArchConfig, config: VAEConfig | None = None) -> None:
        super().__init__()
        self.arch = arch
        self.config = config or self.config_class()
        self._graphs = Graphs() if self.config.use_graphs else None
        self.contract = self.contract_of(arch)
        shift, scale = self.contract.shift, self.contract.scale
        if shift is None or scale is None:
            self.normalizer: LatentNormalizer | StoredNormalizer = StoredNormalizer(self.contract.latent_channels)
        else:
            self.normalizer = LatentNormalizer(shift, scale)
        self.encoder = self.encoder_of(arch) if self.config.load_encoder else None
        self.decoder = self.decoder_of(arch) if self.config.load_decoder else None

    @staticmethod
    def encoder_of(arch: Any) -> Layer:
        """The encoder's table."""
        raise NotImplementedError

    @staticmethod
    def decoder_of(arch: Any) -> Layer:
        """The decoder's table."""
        raise NotImplementedError

    @staticmethod
    def contract_of(arch: Any) -> LatentContract:
        """The latent contract of an architecture's constants."""
        raise NotImplementedError

    @overload
    def encode(self, x: Tensor, return_dict: Literal[True] = True) -> EncoderOutput: ...
    @overload
    def encode(self, x: Tensor, return_dict: Literal[False]) -> tuple[DiagonalGaussian]: ...
    def encode(self, x: Tensor, return_dict: bool = True) -> EncoderOutput | tuple[DiagonalGaussian]:
        """[B, C, *axes] -> posterior over latents as the family publishes them (not normalised).

        Lengths that break an axis' rule lose what is over the last legal length, as in the published code.
        InputError for a wrong rank, channel count, dtype, an axis too short for one latent, or a length that breaks a
        rule which does not crop.
        """
        encoder = self._running("encoder")
        least = [(a.name, a.least) for a in self.contract.axes]
        self._check(x, self.contract.channels, least, self.half_dtype("encoder"))
        self._require_legal(self.contract.axes, x.shape[2:])
        posterior = self._posterior(self._run("encoder", encoder, x, self.encode_pieces))
        return EncoderOutput(posterior) if return_dict else (posterior,)

    @overload
    def decode(
        self,
        z: Tensor,
        return_dict: Literal[True] = True,
        *,
        timestep: float | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> DecoderOutput: ...
    @overload
    def decode(
        self,
        z: Tensor,
        return_dict: Literal[False],
        *,
        timestep: float | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor]: ...
    def decode(
        self,
        z: Tensor,
        return_dict: bool = True,
        *,
        timestep: float | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> DecoderOutput | tuple[Tensor]:
        """[B, Z, *latent axes] (not normalised) -> media [B, C, *axes], clamped if the contract says so.

        timestep    for decoders that know one: a number, or one per sample [B]; None: the contract's
        generator   of the noise that some decoders add

        InputError for a wrong rank, channel count or dtype, or a timestep for a decoder that knows none.
        """
        decoder = self.decoder_at(timestep, generator)
        least = [(a.name, 1) for a in self.contract.axes]
        self._check(z, self.contract.latent_channels, least, self.half_dtype("decoder"))
        sample = self._clamped(self._run("decoder", decoder, self._raw(z), self.decode_pieces))
        return DecoderOutput(sample) if return_dict else (sample,)

    def decoder_at(self, timestep: float | Tensor | None = None, generator: torch.Generator | None = None) -> Layer:
        """The decoder under these conditions, as a layer that runs whole or in a stream; see `decode`."""
        decoder, default = self._running("decoder"), self.contract.decode_timestep
        if default is None and timestep is not None:
            raise InputError(f"{type(self).__name__}'s decoder knows no timestep", found=timestep, fix="leave it out")
        at = default if timestep is None else timestep
        if at is None and generator is None:
            return decoder
        given = (
            None
            if at is None
            else torch.as_tensor(at, dtype=self.half_dtype("decoder"), device=self.device).reshape(-1)
        )
        return decoder.bind(Conditions(timestep=given, generator=generator))

    def stream_encode(self, pieces: Iterable[Tensor]) -> Iterator[DiagonalGaussian]:
        """As `encode`, from pieces along time or samples; memory does not grow with the length.

        The posteriors concatenate to that of the whole, however the input is cut; pieces of length 0 are welcome.
        InputError as for `encode`, and for pieces that do not fit together.
        """
        minimum = [(a.name, a.least) for a in self.contract.axes]
        encoder, dtype = self._running("encoder"), self.half_dtype("encoder")
        checked = self._checked(pieces, self.contract.channels, minimum, self.contract.axes, dtype)
        return map(self._posterior, self._streamed("encoder", encoder)(encoder, checked, self._stream_axis()))

    def stream_decode(
        self,
        pieces: Iterable[Tensor],
        *,
        timestep: float | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """As `decode`, from pieces along time or samples; the outputs concatenate to that of the whole."""
        decoder, minimum = self.decoder_at(timestep, generator), [(a.name, 1) for a in self.contract.axes]
        dtype = self.half_dtype("decoder")
        checked = self._checked(pieces, self.contract.latent_channels, minimum, (), dtype)
        return map(
            self._clamped, self._streamed("decoder", decoder)(decoder, map(self._raw, checked), self._stream_axis())
        )

    def forward(
        self, x: Tensor, sample_posterior: bool = False, generator: torch.Generator | None = None
    ) -> DecoderOutput:
        """The round trip through the posterior's mode, or a sample of it, which takes the type of the decoder."""
        posterior = self.encode(x).latent_dist
        z = posterior.sample(generator) if sample_posterior else posterior.mode()
        return self.decode(z.to(self.half_dtype("decoder")))

    def normalize(self, z: Tensor) -> Tensor:
        """Latents as `encode` gives them -> as the diffusion model takes them."""
        return z if self.config.latents == "normalized" else self.normalizer.normalize(z)

    def denormalize(self, z: Tensor) -> Tensor:
        """Latents as the diffusion model gives them -> as `decode` takes them."""
        return z if self.config.latents == "normalized" else self.normalizer.denormalize(z)

    def with_decode_noise(
        self,
        z: Tensor,
        generator: torch.Generator | None = None,
        *,
        noise: Tensor | None = None,
        scale: float | None = None,
        order: Literal["official", "diffusers"] = "official",
    ) -> Tensor:
        """Latents as the diffusion model gives them -> as `decode` takes them, with the noise that it was trained on.

        z <- (1 - scale) z + scale * noise, before latents are denormalised ("official") or after ("diffusers").

        noise   standard normal, of z's shape; None draws it with the generator
        scale   None: the contract's
        InputError for a VAE whose decoder expects no noise, unless a scale is given.
        """
        share = self.contract.decode_noise_scale if scale is None else scale
        if share is None:
            what = f"{type(self).__name__}'s decoder expects no noise"
            raise InputError(what, fix="use denormalize, or give a scale")
        if order == "diffusers" and self.config.latents == "normalized":
            what = "noise cannot follow the normaliser where `decode` applies it"
            raise InputError(what, fix='load with latents="raw", or use order="official"')
        noise = standard_normal(z.shape, z, generator) if noise is None else noise
        if order == "diffusers":
            return (1.0 - share) * self.denormalize(z) + share * noise
        return self.denormalize((1.0 - share) * z + share * noise)

    def plan(
        self,
        shape: Sequence[int],
        half: Literal["encoder", "decoder"] = "decoder",
        *,
        budget: int | str | None = None,
    ) -> Plan:
        """How an input of that shape runs exactly within `budget` bytes beside the weights ("6GiB").

        None: what is free on the device. `ParallelTiledVAE` carries plans out. InputError for a budget too small.
        """
        from vaeport.runtime.parallel import ParallelTiledVAE

        return ParallelTiledVAE(self, budget=budget).plan(shape, half)

    @property
    def streaming(self) -> str:
        """How it runs along time or samples: "exact" in a stream, "layer-synchronous" where a layer needs all of it.

        "-" for images, which have no such axis.
        """
        if self.contract.modality == "image":
            return "-"
        halves = (half for half in (self.encoder, self.decoder) if half is not None)
        whole = any(half.needs((0, 1), self._stream_axis()) is None for half in halves)
        return "layer-synchronous" if whole else "exact"

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights; the encoder's, where the halves differ (see `half_dtype`)."""
        return next(self.parameters()).dtype

    def half_dtype(self, half: Literal["encoder", "decoder"]) -> torch.dtype:
        """Type of the weights of one half, which is that of the tensors that it takes and gives."""
        return next(self._half(half).parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def save(
        self, folder: str | Path, *, max_shard_size: int | str = "10GB", variant: str | None = None
    ) -> tuple[Path, ...]:
        """Writes a component folder in the Diffusers layout, sharded when larger than `max_shard_size`."""
        from vaeport.runtime.load import save

        return save(self, folder, max_shard_size=max_shard_size, variant=variant)

    def weights_hash(self, half: Literal["encoder", "decoder"] | None = None) -> str:
        """SHA-256 over names, types, shapes and bytes of the weights of one half, or of all that are loaded."""
        digest = hashlib.sha256()
        for name, tensor in sorted((self if half is None else self._half(half)).state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _half(self, name: str) -> Layer:
        half = getattr(self, name)
        if half is None:
            raise InputError(f"this VAE was loaded without its {name}", fix=f"load it with load_{name}=True")
        assert isinstance(half, Layer)
        return half

    def _running(self, name: Half) -> Layer:
        """A half as it runs where it is, at the config's precision."""
        half = self._half(name)
        first = next(half.parameters())
        if self.contract.modality == "video":  # alone has conv3d
            checked_backend(first.device, first.dtype)
        return running(half, first.device, first.dtype, self.config.precision)

    def _stream_axis(self) -> int:
        if self.contract.modality == "image":
            raise InputError("an image VAE has no axis to stream along", fix="use encode and decode")
        return TIME if self.contract.modality == "video" else SAMPLES

    def _run(self, name: Half, half: Layer, x: Tensor, pieces: tuple[int, int] | None) -> Tensor:
        if pieces is not None:
            return run_in_pieces(half, x, self._stream_axis(), *pieces, streamed=self._streamed(name, half))
        graphs = self._graphs_of(name, half)
        if graphs is not None:
            return graphs.run(half, x)
        y: Tensor = half(x)
        return y

    def _streamed(self, name: Half, half: Layer) -> Streamed:
        graphs = self._graphs_of(name, half)
        return stream if graphs is None else graphs.stream

    def _graphs_of(self, name: Half, half: Layer) -> Graphs | None:
        """None where hooks watch the layers, and for what was bound to a time or to noise, which changes each time."""
        if self._graphs is None or fingerprint(half) is None or half is not self._running(name):
            return None
        return self._graphs

    def drop_graphs(self) -> bool:
        """Let go of recorded CUDA graphs and their memory; whether there were any."""
        return self._graphs is not None and self._graphs.drop()

    def _checked(
        self,
        pieces: Iterable[Tensor],
        channels: int,
        minimum: Minimum,
        rules: Sequence[AxisRule],
        dtype: torch.dtype,
    ) -> Iterator[Tensor]:
        """The pieces, each of which fits the model and the one before; long enough and of legal length in all."""
        (axis, least), *others = minimum
        total, first = 0, None
        for piece in pieces:
            self._check(piece, channels, [(axis, 0), *others], dtype)
            self._require_legal(rules[1:], piece.shape[3:])
            first = first or piece.shape
            if (piece.shape[0], *piece.shape[3:]) != (first[0], *first[3:]):
                what = f"the pieces of a stream differ along {axis} alone"
                raise InputError(what, expected=f"pieces like the first, {list(first)}", found=list(piece.shape))
            total += piece.shape[2]
            yield piece
        self._require_length(axis, least, total)
        self._require_legal(rules[:1], (total,))

    def _posterior(self, moments: Tensor) -> DiagonalGaussian:
        posterior = _POSTERIORS[self.contract.posterior](moments)
        return NormalizedGaussian(posterior, self.normalizer) if self.config.latents == "normalized" else posterior

    def _raw(self, z: Tensor) -> Tensor:
        """Latents as the decoder's first layer takes them."""
        return self.normalizer.denormalize(z) if self.config.latents == "normalized" else z

    def _clamped(self, x: Tensor) -> Tensor:
        if self.contract.clamp is None:
            return x
        # the decoder's output is nobody else's, so it is clamped where it lies unless gradients need it
        return x.clamp(*self.contract.clamp) if x.requires_grad else x.clamp_(*self.contract.clamp)

    def _check(self, x: Tensor, channels: int, minimum: Minimum, dtype: torch.dtype | None = None) -> None:
        name, layout, dtype = type(self).__name__, self.contract.layout, dtype or self.dtype
        if x.dim() != 2 + len(minimum):
            raise InputError(f"{name} takes {layout}", expected=f"{2 + len(minimum)} axes", found=list(x.shape))
        if not x.is_floating_point():
            low, high = self.contract.value_range
            fix = f"scale it to [{low:g}, {high:g}] and convert it to {dtype}"
            raise InputError(f"{name} takes floating-point tensors", expected=dtype, found=x.dtype, fix=fix)
        if x.dtype != dtype:
            fix = "x.to(vae.dtype)" if dtype == self.dtype else f"x.to({dtype})"
            raise InputError("input and weights differ in type", expected=dtype, found=x.dtype, fix=fix)
        if x.device != self.device:
            raise InputError("input and weights are on different devices", expected=self.device, found=x.device)
        if x.shape[0] < 1:
            raise InputError(f"{name} takes {layout}", where="axis batch", expected="at least 1", found=0)
        if x.shape[1] != channels:
            raise InputError(f"{name} takes {layout}", where="axis C", expected=channels, found=list(x.shape))
        for (axis, least), n in zip(minimum, x.shape[2:], strict=True):
            self._require_length(axis, least, n)

    def _require_length(self, axis: str, least: int, n: int) -> None:
        if n < least:
            what = f"{type(self).__name__}: the input is too short"
            raise InputError(what, where=f"axis {axis}", expected=f"at least {least}", found=n)

    def _require_legal(self, rules: Sequence[AxisRule], lengths: Sequence[int]) -> None:
        """Refuses what only a rule that crops would take."""
        for rule, n in zip(rules, lengths, strict=False):
            if not rule.crops and rule.padded(n) != n:
                what = f"{type(self).__name__} takes no input of this length"
                expected = f"{rule.multiple}k + {rule.offset}"
                fix = f"crop it to {rule.decoded(rule.latents(n))}, or repeat its end up to {rule.padded(n)}"
                raise InputError(what, where=f"axis {rule.name}", expected=expected, found=n, fix=fix)
