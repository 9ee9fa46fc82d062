"""CompVis latent-diffusion: AutoencoderKL kl-f8 as in Stable Diffusion 1, and LatentDiffusion's scale."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from torch import nn

from ..float64 import Noise
from ..official import unused
from ..record import Record
from .base import Official, Oracle

CONFIG = "configs/latent-diffusion/txt2img-1p4B-eval.yaml"


class LatentDiffusionSD1(Oracle):
    """The first stage of the text-to-image model; Stable Diffusion 1 publishes the same configuration and scale."""

    name = "ldm_sd1"
    repo = "CompVis/latent-diffusion"
    published_file = "Stable Diffusion 1 single-file checkpoints, such as sd-v1-4.ckpt"
    key_prefix = "first_stage_model."
    taps = (
        *("encoder.conv_in", "encoder.down.?.block.1", "encoder.down.?.downsample", "encoder.conv_out", "quant_conv"),
        *("decoder.conv_in", "decoder.up.?.block.2", "decoder.up.?.upsample", "decoder.conv_out", "post_quant_conv"),
        *("*coder.mid.*_?", "*coder.norm_out"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.stand_ins = {
            "pytorch_lightning": {"LightningModule": nn.Module},
            "pytorch_lightning.utilities": {},
            "pytorch_lightning.utilities.distributed": {"rank_zero_only": lambda function: function},
            "taming": {},
            "taming.modules": {},
            "taming.modules.vqvae": {},
            "taming.modules.vqvae.quantize": {"VectorQuantizer2": unused("VectorQuantizer2")},
            "torchvision": {},
            "torchvision.utils": {"make_grid": unused("make_grid")},
        }

    def build(self, root: Path) -> Official:
        import yaml
        from ldm.models.autoencoder import AutoencoderKL
        from ldm.models.diffusion.ddpm import LatentDiffusion
        from ldm.modules.distributions.distributions import DiagonalGaussianDistribution

        config = yaml.safe_load((root / CONFIG).read_text("utf-8"))["model"]["params"]
        arguments = config["first_stage_config"]["params"]
        model = AutoencoderKL(**arguments)
        wrapper = SimpleNamespace(scale_factor=config["scale_factor"], first_stage_model=model)
        parts = {"diffusion": LatentDiffusion, "wrapper": wrapper, "posterior": DiagonalGaussianDistribution}
        return Official(model, "ldm.models.autoencoder.AutoencoderKL", {"config": CONFIG, **arguments}, parts)

    def run(self, official: Official, record: Record) -> None:
        model, diffusion, wrapper = official.model, official.parts["diffusion"], official.parts["wrapper"]
        x = record.media("encode.x", (2, 3, 40, 56))
        with record.running("encode"):
            posterior = model.encode(x)
        record.output("encode.moments", posterior.parameters, "encode(x).parameters: mean, then logvar, along channels")
        record.output("encode.mode", posterior.mode(), "encode(x).mode()")
        record.output("encode.std", posterior.std, "encode(x).std = exp(logvar / 2), logvar clamped to [-30, 20]")
        latent = diffusion.get_first_stage_encoding(wrapper, posterior.mode())
        record.output("encode.latent", latent, "LatentDiffusion.get_first_stage_encoding(mode) = 0.18215 * mode")
        with Noise(record.latent("encode.noise", posterior.mean.shape)):
            record.output("encode.sample", posterior.sample(), "encode(x).sample() with input.encode.noise")

        odd = record.media("encode_44x52.x", (1, 3, 44, 52))
        record.output(
            "encode_44x52.moments", model.encode(odd).parameters, "as encode.moments; H/8 and W/8 are floored"
        )

        z = record.latent("decode.z", (2, 4, 5, 7))
        with record.running("decode"):
            record.output("decode.image", model.decode(z), "decode(z), z not normalised, not clamped")
        normalized = record.latent("decode_normalized.z", (1, 4, 3, 5))
        image = diffusion.decode_first_stage(wrapper, normalized)
        record.output("decode_normalized.image", image, "LatentDiffusion.decode_first_stage(z) = decode(z / 0.18215)")

        far = official.parts["posterior"](record.latent("far.moments", (1, 8, 3, 5), scale=30))
        record.output(
            "far.std", far.std, "std of DiagonalGaussianDistribution(input.far.moments): both clamps of logvar act"
        )
